"""The house rules that code can check: what is imported, in which direction, how long a file is, what is explained."""

import ast
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "fsslib").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
each_file = pytest.mark.parametrize("path", FILES, ids=NAMES)

# Lowest first. A module may import from its own floor and from those below. Modules that are not named, and folders
# that are not named, are the top floor: experiments, plots, widgets, pages and whatever else only people call.
FLOORS = [
    {"errors", "version"},
    {"files", "interrupts", "progress", "episode", "paths", "protocol", "schedule"},
    {"ops", "losses", "metrics"},
    {"nn"},
    {"models"},
    {"data"},
    {"checkpoints", "training", "evaluation", "pretraining", "selection", "merging", "inference"},
]

# Stands in front of a script: makes modules as absent as if they had never been installed, and refuses connections.
GUARD = """
import socket, sys
REFUSED = set({refused!r})
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in REFUSED and hasattr(self.finder, "find_spec"):
            return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
def refuse(*_, **__):
    raise OSError("no connection must be needed here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""
NOTEBOOK = ["jupyter", "jupyterlab", "ipywidgets", "IPython", "ipykernel", "nbformat", "papermill", "pydantic"]
FIGURES = ["matplotlib", "seaborn", "pandas", "jinja2", "anywidget"]
ON_DEMAND = ["torchvision", "scipy", "lightning_fabric", "safetensors", "tqdm"]

BARE = """
import torch, fsslib
data = fsslib.load_dataset("shapes", split="test", size=33, pool=20)
sampler = fsslib.EpisodeSampler(data, fsslib.Protocol(input_size=33))
model = fsslib.build_model("panet", backbone="tiny")
episode = sampler.batch(0, 2).validate()
assert model(episode).logits.shape == (2, 2, 33, 33)
assert torch.isfinite(model.train().losses(episode)["total"])
"""
SERVER = """
import fsslib, fsslib.training, fsslib.evaluation, fsslib.pretraining
data = fsslib.load_dataset("shapes", size=33, pool=40)
rules = fsslib.Protocol(input_size=33, episodes=2)
model = fsslib.build_model("panet", backbone="tiny")
sampler = fsslib.EpisodeSampler(data, rules)
fsslib.training.train_episodes(model, sampler, fsslib.training.Schedule(steps=1, batch=1), progress=False)
assert fsslib.evaluate(model, data, rules, progress=False).scores[1].miou >= 0
"""


@pytest.mark.parametrize(
    ("script", "refused"),
    [(BARE, NOTEBOOK + FIGURES + ON_DEMAND), (SERVER, NOTEBOOK + FIGURES)],
    ids=["bare machine", "GPU machine"],
)
def test_runs_without(script, refused, tmp_path):
    """An episode takes torch and numpy; training and evaluation take no notebook package."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    code = GUARD.format(refused=refused) + script
    done = subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", code], env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert not list(tmp_path.rglob("*.pth")), "nothing may be downloaded"


def test_the_guard_guards():
    code = GUARD.format(refused=["tqdm"]) + "import tqdm"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode != 0 and b"No module named 'tqdm'" in done.stderr


def imported(path: Path) -> set[str]:
    """First parts, below fsslib, of what a library file imports, wherever in the file; `__init__` for the package."""
    folder = path.relative_to(ROOT / "fsslib").parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            full = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            if node.level:
                module = ["fsslib", *folder[: len(folder) - node.level + 1], *module]
            full = [[*module, alias.name] for alias in node.names]
        else:
            continue
        known = [path.stem if path.parent.name == "fsslib" else path.parent.name for path in FILES]
        for parts in full:
            if parts[0] == "fsslib":
                found.add(parts[1] if len(parts) > 1 and parts[1] in known else "__init__")
    return found


def floor(name: str) -> int:
    return next((level for level, names in enumerate(FLOORS) if name in names), len(FLOORS))


@each_file
def test_nothing_imports_upward(path):
    parts = path.relative_to(ROOT / "fsslib").with_suffix("").parts
    upward = {name for name in imported(path) if floor(name) > floor(parts[0])}
    if parts != ("__init__",):
        assert not upward, f"{path.name} is on floor {floor(parts[0])}"


def test_the_floors_name_modules_that_exist():
    here = {path.relative_to(ROOT / "fsslib").with_suffix("").parts[0] for path in FILES}
    assert set().union(*FLOORS) <= here


@each_file
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 250


@lru_cache
def classes() -> dict[str, ast.ClassDef]:
    trees = (ast.parse(path.read_text()) for path in FILES)
    return {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def inherits_text(cls: ast.ClassDef, method: str, known: dict[str, ast.ClassDef]) -> bool:
    """Whether a base class of the library explains `method`; a forward pass of a plain layer needs no words."""
    for base in cls.bases:
        name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        parent = known.get(name)
        if parent is None or parent is cls:
            continue
        for node in parent.body:
            if isinstance(node, ast.FunctionDef) and node.name == method and ast.get_docstring(node):
                return True
        if inherits_text(parent, method, known):
            return True
    return False


def is_reference(node):
    """The reference answer of an exercise: what goes in and comes out stands in the notebook's question."""
    return any(isinstance(d, ast.Call) and getattr(d.func, "id", "") == "exercise" for d in node.decorator_list)


@each_file
def test_everything_public_is_explained(path):
    tree, known, silent = ast.parse(path.read_text()), classes(), []
    if tree.body and not ast.get_docstring(tree):
        silent.append("the file itself")

    def visit(body, owner=None):
        for node in body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name[0] == "_":
                continue
            inherited = owner is not None and inherits_text(owner, node.name, known)
            if not ast.get_docstring(node) and not inherited and not is_reference(node):
                silent.append(f"{owner.name + '.' if owner else ''}{node.name}")
            if isinstance(node, ast.ClassDef):
                visit(node.body, node)

    visit(tree.body)
    assert not silent
