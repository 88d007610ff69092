"""Builds `notebooks/NAME.ipynb` by executing `notebooks/src/NAME.py`; rebuilds only what has changed.

python tools/build.py             everything that is out of date
python tools/build.py 01 experiment --force
python tools/build.py --check     build nothing, exit with 1 if something is out of date
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that `python tools/build.py` finds its neighbour

from fsslib.experiments.notebook import hide_places  # noqa: E402
from fsslib.experiments.notebook import load as parsed  # noqa: E402
from fsslib.files import socket_folder, write_text  # noqa: E402
from tools.imports import Imports  # noqa: E402

SOURCES, BOOKS = ROOT / "notebooks" / "src", ROOT / "notebooks"
# Outputs of cells with this tag are not compared by nbval, and kept from build to build.
FREE = "nbval-ignore-output"
# Part of every fingerprint: raise it when a change of this file changes what is written.
RECIPE = "2"
# Every notebook's first code cell, for kernels in which fsslib is not installed.
FIRST = """# Where fsslib is not installed, as in Colab, it is looked for in the folders around this notebook.
import glob, importlib.util, os, sys

sys.path += [os.path.abspath(d) for d in ("..", "../..", *glob.glob("*")) if os.path.isfile(f"{d}/fsslib/names.py")]
missing = [name for name in ("fsslib", "torch", "lightning_fabric") if not importlib.util.find_spec(name)]
assert not missing, f'no {missing} in this kernel: unzip or clone the course, then  %pip install -e "PATH[notebooks]"'
"""
ENV = {
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
    "COLUMNS": "100",
    "LINES": "40",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
}


def environment() -> dict[str, str]:
    """What a kernel is started with: this process's variables, one thread unless asked otherwise, no bars."""
    return {"OMP_NUM_THREADS": "1", **os.environ, **ENV}


def load(path: Path, marking: bool = False) -> nbformat.NotebookNode:
    """The notebook a percent source describes, with FIRST and without outputs; `marking` keeps the instructors' notes.

    A cell's id is made of its type and text (jupytext draws random ones), so it survives cells inserted before it.
    """
    notebook, seen = parsed(path), {}
    notebook.cells = [c for c in notebook.cells if marking or "marking" not in c.metadata.get("tags", [])]
    first = next((i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"), None)
    if first is not None:
        notebook.cells.insert(first, nbformat.v4.new_code_cell(FIRST.rstrip()))
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
    kept = ("kernelspec", "language_info", "title", "minutes")
    notebook.metadata = nbformat.from_dict({k: v for k, v in notebook.metadata.items() if k in kept})
    return notebook


def fingerprint(path: Path, root: Path = ROOT) -> str:
    """Sixteen digits that change with the source or with a library module whose names it imports."""
    total = hashlib.sha256(RECIPE.encode())
    for file in [path, *Imports(root).of(path)]:
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        total.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def results(notebook: nbformat.NotebookNode) -> str:
    """Sixteen digits of all outputs, pictures and alt texts included: an edit by hand shows."""
    outputs = json.dumps([cell.get("outputs") for cell in notebook.cells], sort_keys=True)
    return hashlib.sha256(outputs.encode()).hexdigest()[:16]


def execute(notebook: nbformat.NotebookNode, folder: Path = BOOKS) -> nbformat.NotebookNode:
    """Run every cell in a fresh kernel with the working folder `folder`; CellExecutionError at a failing cell."""
    with tempfile.TemporaryDirectory(prefix="kernel-") as scratch, socket_folder() as sockets:
        # ipc: no TCP ports that two builds could race for. The address must be absolute: the kernel has another folder.
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/socket")
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=6 * 3600,  # seconds by the clock: a slow machine does not fail, a cell without an end does
            record_timing=False,
            coalesce_streams=True,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
        )
        client.owns_km = True  # otherwise the kernel it was handed would outlive the client
        # A user's start-up files and history have no part in a build.
        client.execute(env={**environment(), "IPYTHONDIR": scratch, "FSSLIB_FIGURES": str(ROOT / "figures")})
    return notebook


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what differs from machine to machine: widget state, times, paths, the interpreter's version."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = nbformat.from_dict({"name": "python"})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    hide_places(notebook, {str(ROOT): ".", os.path.expanduser("~"): "~"})
    return notebook


def keep(notebook: nbformat.NotebookNode, target: Path) -> None:
    """Take over the stored outputs of cells tagged FREE while the source is the same, so that a rebuild changes no
    byte."""
    old = nbformat.read(target, 4) if target.exists() else None
    if old is None or old.metadata.get("source_hash") != notebook.metadata.source_hash:
        return
    stored = {cell.id: cell for cell in old.cells}
    for cell in notebook.cells:
        if FREE in cell.metadata.get("tags", []) and cell.id in stored:
            cell.outputs = stored[cell.id].outputs


def build(path: Path, books: Path = BOOKS) -> Path:
    """Execute one source and write its notebook; a failing cell raises and leaves the old file as it was."""
    target, notebook = books / f"{path.stem}.ipynb", load(path)
    stamp = fingerprint(path)  # before the run: a file edited meanwhile must count as out of date
    clean(execute(notebook, books))
    notebook.metadata["source_hash"] = stamp
    keep(notebook, target)
    notebook.metadata["output_hash"] = results(notebook)
    nbformat.validate(notebook)
    return write_text(target, nbformat.writes(notebook) + "\n")


def stale(path: Path, books: Path = BOOKS) -> bool:
    """True unless the stored notebook was built from this source and this library."""
    target = books / f"{path.stem}.ipynb"
    return not target.exists() or nbformat.read(target, 4).metadata.get("source_hash") != fingerprint(path)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="notebooks by name or number, e.g. 01 or experiment; default: all")
    parser.add_argument("--force", action="store_true", help="also build what is up to date")
    parser.add_argument("--check", action="store_true", help="build nothing; exit with 1 if something is out of date")
    given = parser.parse_args(arguments)
    sources = sorted(SOURCES.glob("*.py"))
    for name in given.names:
        if not any(_matches(source, name) for source in sources):
            known = ", ".join(s.stem for s in sources) or "none yet"
            parser.error(f"no source notebooks/src/{name}*.py; there are: {known}")
    sources = [s for s in sources if not given.names or any(_matches(s, n) for n in given.names)]
    late = [s for s in sources if given.force or stale(s)]
    if given.check:
        print("\n".join(f"{s.stem}: out of date, run `make notebooks`" for s in late) or "all notebooks are up to date")
        return int(bool(late))
    for source in late:
        start = time.perf_counter()
        build(source)
        print(f"{source.stem}  {time.perf_counter() - start:.1f} s", flush=True)
    if not late:
        print("all notebooks are up to date")
    return 0


def _matches(source: Path, name: str) -> bool:
    stem = Path(name).stem
    return source.stem == stem or source.stem.startswith(f"{stem}_")


if __name__ == "__main__":
    sys.exit(main())
