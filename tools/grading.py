"""The notebooks as a course for nbgrader and for otter-grader, made of the same sources as the editions.

python tools/grading.py nbgrader    editions/nbgrader: a course folder with source/STAGE/STAGE.ipynb and its settings
python tools/grading.py otter       editions/otter/STAGE.ipynb: masters for `otter assign`

Points are an exercise's importance (one for each ●). What `check` decides is graded automatically, written answers by
hand. Both tools run the whole notebook, so fsslib has to be installed where they grade.
"""

import argparse
import ast
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that `python tools/grading.py` finds its neighbours

from fsslib.files import write_text  # noqa: E402
from fsslib.labs.check import TURN  # noqa: E402
from fsslib.labs.exercise import exercises  # noqa: E402
from fsslib.labs.gradebook import points  # noqa: E402
from tools import build, editions  # noqa: E402

CONFIG = f'''"""nbgrader's settings for this course. In this folder, for each notebook STAGE:

nbgrader generate_assignment STAGE --create     makes release/STAGE to hand out
nbgrader autograde STAGE --create               of what was collected into submitted/STUDENT/STAGE
nbgrader export                                 after the written answers were graded with `nbgrader formgrade`
"""

c = get_config()
c.CourseDirectory.course_id = "few-shot-segmentation"
c.ClearSolutions.code_stub = {{"python": 'raise NotImplementedError("{TURN}")'}}
c.ExecutePreprocessor.timeout = 1200  # seconds a cell: a slow or busy machine is no wrong answer
'''
OTTER = """# ASSIGNMENT CONFIG
name: {stage}
export_cell: false
check_all_cell: false
init_cell: true
generate: true
solutions_pdf: false
tests:
  ok_format: false
"""


def marked(solution: str, begin: str, end: str) -> str:
    """A cell tagged `solution` with its secret between two marks, inside the body: first line and docstring stay."""
    lines = solution.rstrip().splitlines()
    places = [i for i, line in enumerate(lines) if re.fullmatch(r"\s*### (BEGIN|END) SOLUTION", line)]
    if places:
        first, last = places
        secret, rest = lines[first + 1 : last], lines[last + 1 :]
    else:
        first = ast.parse(solution).body[0].body[0].end_lineno
        secret, rest = lines[first:], []
    indent = re.match(r"\s*", secret[0])[0]
    return "\n".join([*lines[:first], indent + begin, *secret, indent + end, *rest])


def _book(stage: str) -> nbformat.NotebookNode:
    """The notebook with its solutions, without outputs but those a question asks about."""
    book = build.load(build.SOURCES / f"{stage}.py")
    stored = nbformat.read(build.BOOKS / f"{stage}.ipynb", 4)
    outputs = {cell.id: cell.get("outputs", []) for cell in stored.cells}
    for cell in book.cells:
        if editions.KEPT in editions.tags(cell):
            cell.outputs = outputs[cell.id]
    return book


def _checked(cell: nbformat.NotebookNode) -> str:
    """The exercise that a cell checks by itself, or nothing; written answers are for the instructor."""
    called = re.fullmatch(r"check\((\w+)\)", cell.source.strip())
    return called[1] if called and not exercises()[called[1]].written else ""


def _answer(cell: nbformat.NotebookNode) -> str:
    """The exercise that a cell answers, or nothing."""
    return ast.parse(cell.source).body[0].name if "solution" in editions.tags(cell) else ""


def for_nbgrader(stage: str) -> nbformat.NotebookNode:
    """The source notebook of an assignment: `nbgrader generate_assignment` makes the students' version of it."""
    book = _book(stage)
    worth = points(stage)
    for cell in book.cells:
        if name := _answer(cell):
            cell.source = marked(cell.source, "### BEGIN SOLUTION", "### END SOLUTION")
            by_hand = exercises()[name].written
            facts = {"grade_id": name, "solution": True, "grade": by_hand, "locked": False}
            facts |= {"points": worth[name]} if by_hand else {}
        elif name := _checked(cell):
            facts = {"grade_id": f"check-{name}", "solution": False, "grade": True, "locked": True}
            facts |= {"points": worth[name]}
            cell.source = f"print(check({name}))"  # nbgrader would take a cell's value for partial points
        else:
            continue
        cell.metadata["nbgrader"] = nbformat.from_dict({"schema_version": 3, "task": False, **facts})
    return book


def for_otter(stage: str) -> nbformat.NotebookNode:
    """The master notebook of an assignment: `otter assign` makes the students' version and the tests of it."""
    book = _book(stage)
    worth = points(stage)
    cells = [_raw(OTTER.format(stage=stage))]
    for cell in book.cells:
        if "exercise" in editions.tags(cell):
            name = re.search(r"`(\w+)`", cell.source)[1]
            by_hand = exercises()[name].written
            settings = f"name: {name}\npoints: {worth[name]}\nmanual: {str(by_hand).lower()}"
            cells += [_raw(f"# BEGIN QUESTION\n{settings}"), cell]
        elif name := _answer(cell):
            turn = f'""" # BEGIN PROMPT\n    raise NotImplementedError("{name}: {TURN}")\n""" # END PROMPT'
            source = marked(cell.source, "# BEGIN SOLUTION NO PROMPT", "# END SOLUTION")
            cell.source = re.sub(r"(# END SOLUTION)", rf"\1\n{turn}", source)
            cells += [_raw("# BEGIN SOLUTION"), cell, _raw("# END SOLUTION")]
            if not exercises()[name].written:
                cells += [_raw("# BEGIN TESTS"), nbformat.v4.new_code_cell(_test(name)), _raw("# END TESTS")]
            cells.append(_raw("# END QUESTION"))
        elif not _checked(cell):
            cells.append(cell)  # `grader.check` stands for the others
    book.cells = cells
    for at, cell in enumerate(book.cells):
        cell.id = f"cell-{at}"
    return book


def _test(name: str) -> str:
    """The test of one exercise; its message is what `check` says."""
    return (
        f"def test_{name}({name}):\n    from fsslib.labs.check import check_named\n\n"
        f'    result = check_named({name}, "{name}")\n    assert result, repr(result)\n\n\n'
        f"test_{name}({name})  # IGNORE"
    )


def _raw(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_raw_cell(text)


def _files(tool: str, folder: Path) -> Iterator[Path]:
    for stage in editions.STAGES:
        book = {"nbgrader": for_nbgrader, "otter": for_otter}[tool](stage)
        nbformat.validate(book)
        place = Path("source", stage) if tool == "nbgrader" else Path()
        yield write_text(folder / place / f"{stage}.ipynb", nbformat.writes(book) + "\n")


def make(tool: str, out: Path = editions.EDITIONS) -> Path:
    """Write the course of a tool below `out`, in place of an earlier one's sources; what was collected stays."""
    folder = out / tool
    if tool == "nbgrader":
        shutil.rmtree(folder / "source", ignore_errors=True)
        write_text(folder / "nbgrader_config.py", CONFIG)
    for file in _files(tool, folder):
        print(file)
    print(
        {"nbgrader": f"next: the commands in {folder}/nbgrader_config.py", "otter": f"next: otter assign {file} OUT"}[
            tool
        ]
    )
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", choices=("nbgrader", "otter"))
    parser.add_argument("--out", type=Path, default=editions.EDITIONS, help="folder for it (default: editions)")
    given = parser.parse_args()
    make(given.tool, given.out)
