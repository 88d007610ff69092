"""The house rules that code can check: what is imported, in which direction, and what is explained."""

import ast
import os
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "fsslib").rglob("*.py"))

# Lowest first. A module may import from its own floor and from those below; a package stands on one floor.
FLOORS = [
    {"errors", "names"}, {"arguments", "files", "progress"}, {"episode", "protocol"},
    {"ops", "losses", "metrics"}, {"nn"}, {"models"}, {"data"},
    {"checkpoints", "training", "pretraining", "evaluation", "inference"}, {"analysis"}, {"plots"},
    {"experiments", "labs"}, {"widgets"}, {"__main__"},
]  # fmt: skip

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
ON_DEMAND = ["timm", "torchvision", "scipy", "lightning_fabric", "safetensors", "tqdm"]

# PIL and what torchvision's operators take along: there, but too slow for a start.
SLOW = ["torch._dynamo", "sympy", "PIL"]

MACHINES = """
import torch, fsslib, fsslib.evaluation
data = fsslib.load_dataset("shapes", split="test", size=33, pool=20)
rules = fsslib.Protocol(input_size=33, episodes=2)
model = fsslib.build_model("panet", backbone="tiny")
episode = fsslib.EpisodeSampler(data, rules).batch(0, 2).validate()
assert model(episode).logits.shape == (2, 2, 33, 33)
assert torch.isfinite(model.train().losses(episode)["total"])
assert fsslib.evaluate(model, data, rules, progress=False).scores[1].miou >= 0
assert not [name for name in {slow!r} if name in sys.modules]
print("bare machine")

REFUSED -= set({on_demand!r})
import fsslib.training, fsslib.pretraining
sampler = fsslib.EpisodeSampler(fsslib.load_dataset("shapes", size=33, pool=40), rules)
fsslib.training.train_episodes(model, sampler, fsslib.training.Schedule(steps=1, batch=1), progress=False)
print("GPU machine")
"""


def test_runs_without(tmp_path):
    """An episode and an evaluation take torch and numpy; training takes no notebook package."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    code = GUARD.format(refused=NOTEBOOK + FIGURES + ON_DEMAND) + MACHINES.format(slow=SLOW, on_demand=ON_DEMAND)
    done = subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", code], env=env, capture_output=True)
    assert done.stdout.split(b"\n")[:2] == [b"bare machine", b"GPU machine"], done.stderr.decode()[-2000:]
    assert done.returncode == 0 and not list(tmp_path.rglob("*.pth")), "nothing may be downloaded"


def test_the_guard_guards():
    code = GUARD.format(refused=["tqdm"]) + "import tqdm"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode != 0 and b"No module named 'tqdm'" in done.stderr


def module_name(path: Path) -> str:
    """`fsslib.nn.context` for its file, `fsslib.nn` for the package's own."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> frozenset[str]:
    """What a library file imports, wherever in the file, as full names; lines for type checkers alone do not count."""
    tree, name = parsed(path), module_name(path)
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    checked = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    for_types = {inner for node in checked for inner in ast.walk(node)}
    names = set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parts, *([node.module] if node.module else [])])
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return frozenset(names)


def neighbours(path: Path) -> set[str]:
    """The library's modules that a file imports; a package counts only where the name is its own."""
    found = set()
    for name in imported(path):
        module = next((m for m in (name, name.rpartition(".")[0]) if m in MODULES), None)
        if module and module != module_name(path):
            found.add(module)
    return found


def floor(module: str) -> int:
    return next(level for level, names in enumerate(FLOORS) if module.split(".")[1] in names)


def test_every_module_has_its_floor():
    top = {name.split(".")[1] for name in MODULES if "." in name}
    assert set().union(*FLOORS) == top
    assert len(list((ROOT / "fsslib").glob("*.py"))) - 1 <= 16, "a new room belongs into a package"


def test_nothing_imports_upward():
    inside = [(name, other) for name, path in MODULES.items() if "." in name for other in neighbours(path)]
    assert len(inside) > 300
    assert not [(name, other) for name, other in inside if "." not in other or floor(other) > floor(name)]


def test_no_circles():
    """`fsslib/__init__.py` and packages that only hand names on stand above what they hand on."""
    TopologicalSorter({name: neighbours(path) for name, path in MODULES.items()}).prepare()


@pytest.mark.parametrize(("package", "refused"), [
    ("fsslib.analysis", ("matplotlib", "seaborn", "fsslib.plots")),
    ("fsslib.plots", ("scipy", "random", "statistics", "fsslib.evaluation")),
], ids=["numbers do not draw", "drawings do not count"])  # fmt: skip
def test_statistics_and_drawing_live_apart(package, refused):
    files = [path for name, path in MODULES.items() if f"{name}.".startswith(f"{package}.")]
    assert len(files) > 3
    assert not [(path.name, name) for path in files for name in imported(path) if name.startswith(refused)]


def test_drawings_take_no_chances():
    """Resampling, quantiles of samples and verdicts belong to `analysis`."""
    for name, path in MODULES.items():
        if name.startswith("fsslib.plots."):
            words = {node.attr for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)}
            assert not words & {"quantile", "percentile", "default_rng", "std", "var", "random"}, name


@pytest.mark.parametrize(("paper", "parts"), [
    ("panet", {"PANet"}), ("sdaanet", {"SDAANet", "SDPM", "SAAM"}),
    ("asgnet", {"ASGNet", "Superpixels", "Seeds", "Allocation"}),
    ("hdmnet", {"HDMNet", "MatchingPyramid", "Correlation", "Ensemble"}), ("matching", {"Matching"}),
])  # fmt: skip
def test_one_paper_is_one_file(paper, parts):
    holders = {cls: name for name, path in MODULES.items() for cls in defined(path)}
    assert {holders[part] for part in parts} == {f"fsslib.models.{paper}"}


def defined(path: Path) -> set[str]:
    return {node.name for node in parsed(path).body if isinstance(node, ast.ClassDef)}


@cache
def classes() -> dict[str, ast.ClassDef]:
    return {node.name: node for path in FILES for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)}


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


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_everything_public_is_explained(path):
    tree, known, silent = parsed(path), classes(), []
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
