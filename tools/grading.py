"""The notebooks as a course for nbgrader and for otter-grader, made of the same sources as the editions.

python tools/grading.py nbgrader    editions/nbgrader: a course folder with source/STAGE/STAGE.ipynb and its settings
python tools/grading.py otter       editions/otter/STAGE.ipynb: masters for `otter assign`

Points are an exercise's importance (one for each ●). What `check` decides is graded automatically, written answers by
hand. Both tools run the whole notebook, so fsslib has to be installed where they grade.
"""

import argparse
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
from tools import editions  # noqa: E402

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
    before, secret, behind, indent = editions.parts(solution)
    return "\n".join([*before, indent + begin, *secret, indent + end, *behind])


def _checked(cell: nbformat.NotebookNode) -> str:
    """The exercise that a cell checks by itself, or nothing; written answers are for the instructor."""
    name = editions.checked(cell)
    return name if name and not exercises()[name].written else ""


def for_nbgrader(stage: str) -> nbformat.NotebookNode:
    """The source notebook of an assignment: `nbgrader generate_assignment` makes the students' version of it."""
    book = editions.with_asked_outputs(stage)
    worth = points(stage)
    for cell in book.cells:
        if name := editions.answered(cell) or _checked(cell):
            editions.nbgrader(cell, worth[name], exercises()[name].written)
        if editions.answered(cell):
            cell.source = marked(cell.source, "### BEGIN SOLUTION", "### END SOLUTION")
        elif name:
            cell.source = f"print(check({name}))"  # nbgrader would take a cell's value for partial points
    return book


def for_otter(stage: str) -> nbformat.NotebookNode:
    """The master notebook of an assignment: `otter assign` makes the students' version and the tests of it."""
    book = editions.with_asked_outputs(stage)
    worth = points(stage)
    cells = [_raw(OTTER.format(stage=stage))]
    for cell in book.cells:
        if "exercise" in editions.tags(cell):
            name = re.search(r"`(\w+)`", cell.source)[1]
            by_hand = exercises()[name].written
            settings = f"name: {name}\npoints: {worth[name]}\nmanual: {str(by_hand).lower()}"
            cells += [_raw(f"# BEGIN QUESTION\n{settings}"), cell]
        elif name := editions.answered(cell):
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
    print("next:", f"the commands in {folder}/nbgrader_config.py" if tool == "nbgrader" else f"otter assign {file} OUT")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", choices=("nbgrader", "otter"))
    parser.add_argument("--out", type=Path, default=editions.EDITIONS, help="folder for it (default: editions)")
    given = parser.parse_args()
    make(given.tool, given.out)
