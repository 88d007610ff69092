"""Stored notebooks are what their sources build; nbval compares the outputs, these tests the rest."""

import ast
import re
import shutil
import subprocess
import sys
import textwrap

import nbformat
import pytest

from tools import build
from tools.imports import Imports

SOURCES = sorted(build.SOURCES.glob("*.py"))


@pytest.mark.skipif(not SOURCES, reason="no notebooks in this tree")
@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_stored_notebook_is_what_its_source_builds(source):
    target = build.BOOKS / f"{source.stem}.ipynb"
    assert target.exists(), "run `make notebooks`"
    made, stored = build.load(source), nbformat.read(target, 4)

    def content(notebook):
        return [(c.id, c.cell_type, c.source, c.metadata) for c in notebook.cells]

    assert content(made) == content(stored), "run `make notebooks`"
    assert stored.metadata.source_hash == build.fingerprint(source), "run `make notebooks`"
    assert stored.metadata.output_hash == build.results(stored), "outputs were edited by hand"
    assert stored.metadata.kernelspec.name == "python3" and "widgets" not in stored.metadata
    counts = [c.execution_count for c in stored.cells if c.cell_type == "code" and c.source]
    assert counts == list(range(1, len(counts) + 1))
    for output in (o for c in stored.cells for o in c.get("outputs", [])):
        assert output.output_type != "error"
        assert all(output.metadata[m]["alt"] for m in output.get("data", {}) if m.startswith("image/"))
    text = target.read_text()
    words = re.sub(r'("image/\w+": )"[^"]*"', r'\1""', text)
    assert not re.search(r"/(home|root|Users|tmp|work)/|ipykernel_\d+|0x[0-9a-f]{8,}", words)
    assert len(text) <= 400_000, f"{len(text)} bytes with outputs"


SOURCE = """
# ---
# jupyter:
#   title: A trial
# ---

# %% [markdown]
# # A trial

# %% tags=["parameters"]
count = 3

# %%
print([1] * count, __import__("os").getcwd())
from IPython.display import display
display({"text/plain": "hidden"}, raw=True, metadata={})

# %%
count

# %%
count

# %% tags=["nbval-ignore-output"]
import time
print(time.time())
"""


def source_in(folder, text=SOURCE, name="trial.py"):
    path = folder / name
    path.write_text(textwrap.dedent(text).lstrip())
    return path


def test_ids_are_made_of_the_content(tmp_path):
    before = build.load(source_in(tmp_path))
    after = build.load(source_in(tmp_path, SOURCE.replace("# %% tags", "# %%\nnew = 1\n\n# %% tags", 1)))
    ids = [c.id for c in before.cells]
    assert len(set(ids)) == len(ids), "equal cells need different ids"
    assert set(ids) < {c.id for c in after.cells} and len(after.cells) == len(before.cells) + 1
    assert before.metadata.title == "A trial" and before.cells[2].metadata == {"tags": ["parameters"]}
    nbformat.validate(before)


def test_a_build_is_repeatable_and_stays_whole_when_a_cell_fails(tmp_path):
    source = source_in(tmp_path)
    target = build.build(source, tmp_path)
    first = target.read_bytes()
    assert not build.stale(source, tmp_path)
    stored = nbformat.read(target, 4)
    assert stored.cells[3].outputs[0].text.startswith("[1, 1, 1]")
    assert "execution" not in str(stored.cells[3].metadata) and stored.metadata.output_hash == build.results(stored)
    assert build.build(source, tmp_path).read_bytes() == first, "the printed time is kept while nothing changes"
    source_in(tmp_path, SOURCE + "\n# %%\n1 / 0\n")
    assert build.stale(source, tmp_path)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        build.build(source, tmp_path)
    assert target.read_bytes() == first and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("where", "there", "missing"),
    [
        ("course/notebooks", "fsslib/names torch lightning_fabric", ""),
        ("", "fsslib/names torch lightning_fabric", ""),
        ("course/runs/one", "fsslib/names torch lightning_fabric", ""),
        ("course/notebooks", "fsslib/names torch", "lightning_fabric"),
        ("elsewhere", "fsslib/names torch lightning_fabric", "fsslib"),
    ],
)
def test_the_first_cell_finds_the_course_or_says_what_to_do(tmp_path, where, there, missing):
    """In a Python without any package, as a kernel of another environment is to us."""
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    for name in there.split():
        file = tmp_path / "course" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    command = [sys.executable, "-I", "-S", "-c", f"{build.FIRST}\nimport fsslib.names"]
    said = subprocess.run(command, cwd=tmp_path / where, capture_output=True, text=True).stderr
    assert ("pip install" in said, missing in said) == (bool(missing), True), said
    assert missing or not said


def test_paths_and_widgets_are_cleaned():
    cell = nbformat.v4.new_code_cell("x", metadata={"tags": ["a"], "execution": {"started": "1"}})
    data = {"text/plain": f"{build.ROOT}/data", "application/vnd.jupyter.widget-view+json": {}}
    warning = "/var/x/ipykernel_77/123.py:1: UserWarning"
    cell.outputs = [nbformat.v4.new_output("stream", text=warning), nbformat.v4.new_output("display_data", data=data)]
    notebook = nbformat.v4.new_notebook(
        cells=[cell], metadata={"widgets": {}, "language_info": {"name": "python", "version": "3"}}
    )
    build.clean(notebook)
    assert cell.metadata == {"tags": ["a"]} and "widgets" not in notebook.metadata
    assert cell.outputs[0].text == "cell:1: UserWarning" and cell.outputs[1].data == {"text/plain": "./data"}


@pytest.fixture
def library(tmp_path):
    """A small package with re-exports, names and imports on first use, and modules nobody asks for."""
    files = {
        "__init__.py": "from .names import on_demand\nhand_out = on_demand(__name__, {'shapes': 'Round Shape',\n"
        "    'models': 'build', 'other': 'unused'})\n",
        "names.py": "def on_demand(package, homes): ...\n",
        "shapes.py": "from .deep import base\nclass Shape: ...\n",
        "other.py": "unused = 1\n",
        "errors.py": "class E(Exception): ...\n",
        "deep/__init__.py": "from .core import base\nfrom .unused import nothing\n",
        "deep/core.py": "def base():\n    from ..errors import E\n    return E\n",
        "deep/unused.py": "nothing = 0\n",
        "models/__init__.py": "from ..names import on_demand\n__getattr__, _ = on_demand(__name__, {'one': 'One'})\n"
        "def build(): ...\n",
        "models/one.py": "from .. import other as o\nclass One: ...\n",
    }
    for name, text in files.items():
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize("text, expected", [
    ("from lib import Shape", {"shapes.py", "deep/core.py", "errors.py"}),
    ("import lib\nlib.Shape()", {"shapes.py", "deep/core.py", "errors.py"}),
    ("import lib.shapes as s\ns.Shape", {"shapes.py", "deep/core.py", "errors.py"}),
    ("from lib.other import *", {"other.py"}),
    ("from lib import build", {"models/__init__.py", "models/one.py", "other.py", "names.py"}),
    ("from lib.models import One", {"models/one.py", "other.py"}),
    ("import numpy\nfrom os import path", set()),
])  # fmt: skip
def test_imports_are_followed_by_name(library, text, expected):
    source = source_in(library, text, "book.py")
    found = Imports(library, "lib").of(source)
    assert {f.relative_to(library / "lib").as_posix() for f in found} == expected


def test_a_notebook_is_out_of_date_when_what_it_uses_has_changed(tmp_path):
    """Also through names that `fsslib` hands out on first use; modules of another purpose do not count."""
    source = build.SOURCES / "00_start_here.py"
    shutil.copytree(build.ROOT / "fsslib", tmp_path / "fsslib", ignore=lambda folder, names: {"__pycache__"} & {*names})
    before = build.fingerprint(source, tmp_path)
    for name, matters in (("evaluation", True), ("metrics", True), ("labs/collect", False), ("models/panet", True)):
        file = tmp_path / "fsslib" / f"{name}.py"
        whole = file.read_text()
        file.write_text(f"{whole}# changed\n")
        assert (build.fingerprint(source, tmp_path) != before) == matters, name
        file.write_text(whole)


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_every_name_of_a_notebook_leads_somewhere(source):
    """A name that `fsslib` does not know would lead to all of it."""
    assert build.ROOT / "fsslib" / "__init__.py" not in Imports(build.ROOT).of(source)


def test_the_library_itself_can_be_followed():
    """Every relative import of every module leads to a file: nothing of the library is overlooked."""
    for path in sorted((build.ROOT / "fsslib").rglob("*.py")):
        imports = Imports(build.ROOT)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert imports._file(imports._home(path, node.level, node.module)), (path.name, ast.unparse(node))
