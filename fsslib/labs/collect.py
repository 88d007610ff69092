"""`collect`: the results of a class from a folder of notebooks; one that hangs or is broken leaves the others alone."""

import codecs
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..arguments import check_count
from ..errors import FsslibError, OutputError
from ..files import located
from ..progress import bar
from .gradebook import CANVAS
from .kernel import Limits
from .submit import FORMAT, SUFFIX, SubmissionError, read_notebook, sign, stage_of, submit, write_result

OWN = "class"  # what collect writes goes into this folder, and is not collected again


def collect(
    folder: str | Path, out: str | Path, limits: Limits | None = None, rerun: bool = False, jobs: int = 1
) -> list[dict[str, Any]]:
    """One row per notebook or lone result file below `folder`, sorted by name of the student and notebook.

    A result counts if its signature fits and its notebook is the one that lies beside it; everything else is run
    (again), each notebook in a kernel of its own. Results are kept in `out`/class, so that a second call is quick.

    Args:
        folder: searched with all its subfolders. A student is known by the name in the result, else by the subfolder,
            else by the file's name.
        out: folder for the results. limits: for each notebook; what exceeds them is stopped.
        rerun: run every notebook, whatever results there are. jobs: notebooks at the same time.
    Returns: rows with the keys who, file, note, submitted (when the file was last changed, seconds since 1970) and
        result (None where the file was no notebook of the course).
    Raises SubmissionError if there is no folder, or nothing in it.
    """
    folder, results = located(folder, "folder", SubmissionError), located(out, "--out", SubmissionError) / OWN
    check_count(jobs, "jobs", error=SubmissionError)
    if not folder.is_dir():
        raise SubmissionError(f"{folder} is not a folder: name the one that holds the notebooks of the class.")
    books = list(_files(folder, ".ipynb"))
    lone = sorted({*_files(folder, SUFFIX)} - {_beside(book) for book in books})
    if not books and not lone:
        raise SubmissionError(f"{folder} holds neither notebooks (*.ipynb) nor results (*{SUFFIX}).")
    with ThreadPoolExecutor(jobs) as pool:
        done = pool.map(lambda f: _row(folder, f, results, limits or Limits(), rerun), books)
        rows = list(bar(done, desc="notebooks", total=len(books), show=sys.stderr.isatty()))
    rows += [_lone(folder, f) for f in lone]
    return sorted(rows, key=lambda row: (row["who"].lower(), row["file"]))


def read_result(path: Path) -> dict[str, Any]:
    """A result file. Raises SubmissionError if it is none, or was changed after it was written."""
    other = "was changed after it was written, or comes from another version"
    try:
        result = json.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8))
        if result["format"] != FORMAT or result["sha256"] != sign(result):
            raise SubmissionError(f"{path.name} {other}.")
        texts = [result[key] for key in ("stage", "name", "notebook", "notebook_sha256", "fsslib")]
        for row in result["exercises"]:
            texts += [row[key] for key in ("name", "status", "slip", "message")] + [row.get("answer", "")]
        for row in result["cells"]:
            texts += [row["problem"], row["message"], row["source"] if row["cell"] else ""]
        numbers = [result["seconds"], *(row["cell"] for row in result["cells"])]
    except SubmissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SubmissionError(f"{path.name} is not a result file, or was cut short.") from error
    if not all(isinstance(t, str) for t in texts) or not all(isinstance(n, int | float) for n in numbers):
        raise SubmissionError(f"{path.name} {other}.")
    return result


def keep_all(rows: list[dict[str, Any]], out: str | Path) -> None:
    """Write every result of `rows` into `out`/class, where `collect` finds them. Raises OutputError."""
    for row in rows:
        if row["result"]:
            write_result(row["result"], _kept(Path(out) / OWN, row["file"]))


def _kept(results: Path, file: str) -> Path:
    """Where the result of a notebook (or lone result) called `file` is kept."""
    return results / (file.removesuffix(SUFFIX).removesuffix(".ipynb") + SUFFIX)


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    for path in sorted(folder.rglob(f"*{suffix}")):
        parts = path.relative_to(folder).parts
        if OWN not in parts and not any(p.startswith(".") for p in parts) and os.path.isfile(path):
            yield path


def _row(folder: Path, book: Path, results: Path, limits: Limits, rerun: bool) -> dict[str, Any]:
    kept = _kept(results, book.relative_to(folder).as_posix())
    note = ""
    try:
        content, digest = read_notebook(book)
        stage_of(content, book)
        for source in () if rerun else (kept, _beside(book)):
            if not os.path.exists(source):
                continue
            try:
                result = read_result(source)
            except SubmissionError as error:
                note = f"{error} Run again."
                continue
            if result["notebook_sha256"] == digest:
                return _table_row(folder, book, result, note)
            note = "The notebook was changed after its result was written: run again." if source != kept else note
        result = _run(book, limits)
        if name := _name(book):  # of the student, which a run here cannot know
            result["name"] = name
            result["sha256"] = sign(result)
        try:
            write_result(result, kept)
        except OutputError as error:  # the table still shows it
            note = f"{note} Not kept for the next time: {error}".strip()
        return _table_row(folder, book, result, note)
    except FsslibError as error:
        return _table_row(folder, book, None, str(error).replace(str(book), book.name))


def _beside(book: Path) -> Path:
    """Where the student's own result of a notebook lies, if there is one. Canvas gives every file its own number."""
    own, mine = book.with_name(book.stem + SUFFIX), CANVAS.fullmatch(book.name)
    for file in book.parent.iterdir() if mine and not own.exists() else ():
        other = CANVAS.fullmatch(file.name)
        if other and other["id"] == mine["id"] and other["file"] == Path(mine["file"]).stem + SUFFIX:
            return file
    return own


def _name(book: Path) -> str:
    """The name in the student's own result, even if that belongs to an earlier state of the notebook."""
    try:
        return str(read_result(_beside(book))["name"])
    except (SubmissionError, KeyError):
        return ""


def _run(book: Path, limits: Limits) -> dict[str, Any]:
    try:
        return submit(book, limits=limits, progress=False)
    except FsslibError:
        raise
    except Exception as error:  # one notebook's trouble is not the class's
        raise SubmissionError(f"{book.name} could not be run: {type(error).__name__}: {error}") from error


def _table_row(folder: Path, path: Path, result: dict[str, Any] | None, note: str) -> dict[str, Any]:
    inner = path.relative_to(folder).parts
    who = (result or {}).get("name") or (inner[0] if len(inner) > 1 else path.name.split(".")[0])
    moment = path.stat().st_mtime if path.is_file() else 0.0
    return {"who": str(who), "file": "/".join(inner), "note": note, "result": result, "submitted": moment}


def _lone(folder: Path, path: Path) -> dict[str, Any]:
    try:
        return _table_row(folder, path, read_result(path), "A result without its notebook: nothing was run here.")
    except SubmissionError as error:
        return _table_row(folder, path, None, str(error))
