"""Editions of the notebooks for a course, made of the same sources.

python tools/editions.py student       editions/student: a folder to hand out, and editions/student.zip
python tools/editions.py instructor    editions/instructor: solutions, outputs, times, marking notes
"""

import argparse
import ast
import re
import shutil
import sys
import zipfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that `python tools/editions.py` finds its neighbours

from fsslib.labs.check import TURN  # noqa: E402
from fsslib.labs.exercise import exercises  # noqa: E402
from fsslib.labs.hidden_state import names  # noqa: E402
from tools import build  # noqa: E402

EDITIONS = ROOT / "editions"
STAGES = sorted({task.stage for task in exercises().values()})
# Besides the notebooks, what a student needs to install and run the course. No tests, no sources of the notebooks.
HANDED = ("fsslib", "data", "pyproject.toml", "environment.yml", "LICENSE")
START = """# Few-shot segmentation: the course

    python -m venv .venv && source .venv/bin/activate     (Windows: .venv\\Scripts\\activate)
    pip install -e ".[notebooks,photographs]"
    python -m fsslib lab                                  (JupyterLab, at the first notebook)

On Linux pip brings PyTorch with CUDA, about 6 GB. Without an NVIDIA card, `pip install uv` and then
`uv pip install --torch-backend=cpu -e ".[notebooks,photographs]"` take a few hundred MB. Without a network, ask for the
folder of wheels, and add `--no-index --find-links WHEELS` to the second line.

In VS Code choose `.venv` as the kernel. In Colab upload the zip beside the notebook, and run this in its first cell:

    !unzip -q student.zip
    %pip install -q -e "fsslib-course[notebooks,photographs]"

Every notebook ends with exercises: write the function, run `check(...)` below it. To hand in a finished notebook, save
it, and in a terminal in this folder (JupyterLab: File, New, Terminal; it takes about a minute)

    python -m fsslib.labs submit "notebooks/01_prototypes.ipynb" --name "Your Name"

Hand in the notebook and the `.result.json` that now lies beside it.

Terms are explained in notebooks/GLOSSARY.md, symbols in notebooks/NOTATION.md.
"""
# Reading technical text with formulas and figures, and looking at a cell and at what it gives.
WORDS_A_MINUTE, MINUTES_A_CELL = 100, 0.5
KEPT = "question"  # cells with this tag keep their output in the student's edition: a question asks about it


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def checked(cell: nbformat.NotebookNode) -> str:
    """The exercise whose check a cell is, or nothing."""
    called = re.fullmatch(r"check\((\w+)\)", cell.source.strip())
    return called[1] if called else ""


def answered(cell: nbformat.NotebookNode) -> str:
    """The exercise that a cell answers, or nothing."""
    return ast.parse(cell.source).body[0].name if "solution" in tags(cell) else ""


def parts(solution: str) -> tuple[list[str], list[str], list[str], str]:
    """Of a cell tagged `solution`: the lines before its secret, the secret, those behind it, and its indentation. It
    lies between the lines ### BEGIN SOLUTION ... ### END SOLUTION; without them it is all but first line and docstring.
    Raises ValueError unless the cell is one function."""
    body = ast.parse(solution).body
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef) or not ast.get_docstring(body[0]):
        raise ValueError(f"a solution is one function with a docstring:\n{solution}")
    lines, begin = solution.rstrip().splitlines(), body[0].body[0].end_lineno
    marks = [i for i, line in enumerate(lines) if re.fullmatch(r"\s*### (BEGIN|END) SOLUTION", line)]
    before, secret, behind = lines[:begin], lines[begin:], []
    if marks:
        first, last = marks
        before, secret, behind = lines[:first], lines[first + 1 : last], lines[last + 1 :]
    return before, secret, behind, re.match(r"\s*", next(filter(str.strip, secret)))[0]


def stub(solution: str) -> str:
    """What a student gets of a cell tagged `solution`."""
    before, _, behind, indent = parts(solution)
    turn = f'raise NotImplementedError("{ast.parse(solution).body[0].name}: {TURN}")'
    return "\n".join([*before, indent + turn, *behind])


def minutes(stage: str) -> dict[str, float]:
    """Minutes for a stage: reading, running (measured, from the notebook's metadata) and exercises."""
    book = build.load(build.SOURCES / f"{stage}.py")
    text = " ".join(c.source for c in book.cells if c.cell_type == "markdown" and "exercise" not in tags(c))
    cells = sum(c.cell_type == "code" for c in book.cells) - 1  # nobody has to read the first
    work = sum(int(m) for c in book.cells if "exercise" in tags(c) for m in re.findall(r"(\d+) minutes\.\*", c.source))
    return {
        "reading": 5 * round((len(text.split()) / WORDS_A_MINUTE + cells * MINUTES_A_CELL) / 5),
        "running": book.metadata.get("minutes", 1),
        "exercises": work,
    }


def nbgrader(cell: nbformat.NotebookNode, worth: int = 1, by_hand: bool = False) -> None:
    """Give a cell what nbgrader's `autograde` wants to know: a check has points, an answer if graded `by_hand`."""
    if name := answered(cell) or checked(cell):
        check = not answered(cell)
        facts = {"schema_version": 3, "grade_id": f"check-{name}" if check else name, "task": False}
        facts |= {"solution": not check, "grade": check or by_hand, "locked": check}
        cell.metadata["nbgrader"] = nbformat.from_dict(facts | ({"points": worth} if facts["grade"] else {}))


def student(stage: str) -> nbformat.NotebookNode:
    """The student's edition: stubs for solutions, no outputs but those a question asks about, no marking notes."""
    book = with_asked_outputs(stage)
    if stage not in STAGES:  # without checks: the text keeps its stubs, the solutions go
        book.cells = [c for c in book.cells if "solution" not in tags(c)]
    for cell in book.cells:
        nbgrader(cell)
        if "solution" in tags(cell):
            cell.source = stub(cell.source)
            cell.metadata["tags"] = [t for t in tags(cell) if t != "solution"] + ["answer"]
    given = {
        n: c.source.strip().splitlines()[0] for c in book.cells if c.cell_type == "code" for n in names(c.source).bound
    }
    book.metadata["fsslib"] = nbformat.from_dict({"stage": stage, "edition": "student", "names": given})
    if stage in STAGES:
        time = minutes(stage)
        note = (
            f"> **Student's edition.** About {time['reading']} minutes of reading, {time['running']} of running, "
            f"{time['exercises']} for the exercises at the end. When you are done, save it, and in a terminal in the "
            "course's folder\n"
            f'> `python -m fsslib.labs submit "notebooks/{stage}.ipynb" --name "Your Name"`\n'
            "> runs it from top to bottom in a fresh kernel and writes the result to hand in beside it."
        )
        book.cells.insert(1, nbformat.v4.new_markdown_cell(note, id="edition"))
    return book


def with_asked_outputs(stage: str) -> nbformat.NotebookNode:
    """The notebook with its solutions, without outputs but those a question asks about."""
    book, stored = build.load(build.SOURCES / f"{stage}.py"), _stored(stage)
    for cell in book.cells:
        if KEPT in tags(cell):
            cell.outputs = stored[cell.id].outputs
    return book


def _stored(stage: str) -> dict[str, nbformat.NotebookNode]:
    return {cell.id: cell for cell in nbformat.read(build.BOOKS / f"{stage}.ipynb", 4).cells}


def instructor(stage: str) -> nbformat.NotebookNode:
    """The instructor's edition: the built notebook with its outputs, the times, and the marking notes."""
    book, stored = build.load(build.SOURCES / f"{stage}.py", marking=True), _stored(stage)
    for cell in book.cells:
        if stage in STAGES:
            nbgrader(cell)
        if cell.cell_type == "code":
            cell.outputs = stored[cell.id].outputs
            cell.execution_count = stored[cell.id].execution_count
    book.metadata["fsslib"] = nbformat.from_dict({"stage": stage, "edition": "instructor"})
    if stage in STAGES:
        time = minutes(stage)
        rows = [
            re.search(r"^### (\d) · `(\w+)`\n\n\*Difficulty (\S+) · importance (\S+) · (\d+) minutes", c.source, re.M)
            for c in book.cells
            if "exercise" in tags(c)
        ]
        table = "\n".join(f"| `{m[2]}` | {m[3]} | {m[4]} | {m[5]} |" for m in rows if m)
        note = (
            f"> **Instructor's edition**, with solutions and marking notes: not for students. About {time['reading']} "
            f"minutes of reading, {time['running']} of running (two cores), {time['exercises']} of exercises.\n\n"
            f"| exercise | difficulty | importance | minutes |\n|---|---|---|---|\n{table}"
        )
        book.cells.insert(1, nbformat.v4.new_markdown_cell(note, id="edition"))
    return book


def _write(book: nbformat.NotebookNode, path: Path) -> None:
    nbformat.validate(book)
    path.write_text(nbformat.writes(book) + "\n")


def make(edition: str, out: Path = EDITIONS) -> Path:
    """Write an edition below `out`, in place of an earlier one; returns its folder."""
    target, part = out / edition, out / f"{edition}.part"
    shutil.rmtree(part, ignore_errors=True)
    (part / "notebooks").mkdir(parents=True)
    makers = {"student": student, "instructor": instructor}
    for source in sorted(build.SOURCES.glob("*.py")):
        _write(makers[edition](source.stem), part / "notebooks" / f"{source.stem}.ipynb")
    for extra in ["GLOSSARY.md", "NOTATION.md"] + ["INSTRUCTORS.md"] * (edition == "instructor"):
        shutil.copy(build.BOOKS / extra, part / "notebooks" / extra)
    if edition == "student":
        for name in HANDED:
            _copy(ROOT / name, part / name)
        (part / "README.md").write_text(START)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    if edition == "student":
        _zip(target)
    return target


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.part", ".*"))
    else:
        shutil.copy(source, target)


def _zip(folder: Path) -> None:
    """A zip beside `folder`, the same bytes for the same files."""
    part = folder.with_suffix(".zip.part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(f"fsslib-course/{file.relative_to(folder).as_posix()}", (2020, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    part.replace(folder.with_suffix(".zip"))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("edition", choices=("student", "instructor"))
    parser.add_argument("--out", type=Path, default=EDITIONS, help="folder for the editions (default: editions)")
    given = parser.parse_args(arguments)
    late = [s.stem for s in sorted(build.SOURCES.glob("*.py")) if build.stale(s)]
    if late:
        print(f"out of date: {', '.join(late)}; run `make notebooks` first, editions take its outputs", file=sys.stderr)
        return 1
    folder = make(given.edition, given.out)
    books = len(list((folder / "notebooks").glob("*.ipynb")))
    print(
        f"{folder}: {books} notebooks"
        + (f"; to hand out: {folder.with_suffix('.zip')}" if given.edition == "student" else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
