"""nbgrader and otter-grader on a whole notebook: a right, a half and an empty submission; what they hand out."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from lab_tools import sources

from fsslib.labs.gradebook import points
from tools import editions, grading

STAGE = "01_prototypes"
QUICK = {"episodes = 100": "episodes = 6", "finetune_steps = 30": "finetune_steps = 1"}
POINTS = points(STAGE)
UNSOLVED = {"right": (), "half": ("cosine_map", "temperature"), "empty": tuple(POINTS)}
SCORES = {"right": 12, "half": 7, "empty": 0}  # of what is graded automatically


def quick(book):
    """The whole notebook with small parameters."""
    for cell in book.cells:
        for slow, fast in QUICK.items():
            cell.source = cell.source.replace(slow, fast)
    return book


def submission(handed_out, kind):
    """What a student makes of the notebook that was handed out; the first unsolved one is a named misconception."""
    book, solved = copy.deepcopy(handed_out), sources(STAGE)
    for cell in book.cells:
        name = re.match(r"def (\w+)", cell.source) if cell.cell_type == "code" else None
        if name and "NotImplementedError" in cell.source and name[1] not in UNSOLVED[kind]:
            cell.source = solved[name[1]]
    return book


@pytest.mark.parametrize("stage", editions.STAGES)
@pytest.mark.parametrize("make", [grading.for_nbgrader, grading.for_otter])
def test_what_is_handed_out_keeps_first_lines_and_hides_answers(make, stage):
    begin, end = ("### BEGIN SOLUTION", "### END SOLUTION")
    if make is grading.for_otter:
        begin, end = ("# BEGIN SOLUTION NO PROMPT", "# END SOLUTION")
    book, solved = make(stage), sources(stage)
    nbformat.validate(book)
    answers = [c.source for c in book.cells if c.cell_type == "code" and begin in c.source]
    assert len(answers) == len(points(stage)) == len(solved)
    for source in answers:
        name = re.match(r"def (\w+)", source)[1]
        shown, secret = source[: source.index(begin)], source[source.index(begin) : source.index(end)]
        assert shown.splitlines()[0].endswith(":") and '"""' in shown and shown.endswith("\n    "), "marks in the body"
        assert secret.strip().count("\n") >= 1 and "return" in secret + source[source.index(end) :]
        assert shown.splitlines()[:2] == editions.stub(solved[name]).splitlines()[:2]


def test_written_answers_are_graded_by_hand_in_nbgrader():
    marks = [c.metadata.nbgrader for c in grading.for_nbgrader(STAGE).cells if "nbgrader" in c.metadata]
    graded = {m.grade_id.removeprefix("check-"): (m.solution, m.points) for m in marks if m.grade}
    assert graded == {name: (name == "box_bias", worth) for name, worth in POINTS.items()}


def test_nbgrader(tmp_path, monkeypatch):
    pytest.importorskip("nbgrader", reason="needs the extra `grading`")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # it calls alembic by name
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    course = grading.make("nbgrader", tmp_path)
    for folder in (course / "source").iterdir():
        if folder.name != STAGE:
            shutil.rmtree(folder)
    source = course / "source" / STAGE / f"{STAGE}.ipynb"
    nbformat.write(quick(nbformat.read(source, 4)), source)
    config = Config()
    exec(compile((course / "nbgrader_config.py").read_text(), "config", "exec"), {"get_config": lambda: config})
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.db_url = f"sqlite:///{course}/gradebook.db"
    api = NbGraderAPI(config=config)
    assert api.generate_assignment(STAGE)["success"]
    released = nbformat.read(course / "release" / STAGE / f"{STAGE}.ipynb", 4)
    for kind in UNSOLVED:
        place = course / "submitted" / kind / STAGE
        place.mkdir(parents=True)
        nbformat.write(submission(released, kind), place / f"{STAGE}.ipynb")
        done = api.autograde(STAGE, kind)
        assert done["success"], done.get("error") or done["log"]
        found = api.get_submission(STAGE, kind)
        assert (found["score"], found["max_score"]) == (SCORES[kind], 14)
        assert found["needs_manual_grade"] == (kind != "empty")  # of the written answer, two points


def test_otter(tmp_path):
    pytest.importorskip("otter", reason="needs the extra `grading`")
    master = quick(grading.for_otter(STAGE))
    nbformat.write(master, tmp_path / f"{STAGE}.ipynb")
    otter = [sys.executable, "-m", "otter"]
    subprocess.run([*otter, "assign", f"{STAGE}.ipynb", "made", "--no-run-tests"], cwd=tmp_path, check=True)
    handed_out = nbformat.read(tmp_path / "made" / "student" / f"{STAGE}.ipynb", 4)
    archive = next(Path(tmp_path, "made", "autograder").glob("*.zip"))
    for kind in UNSOLVED:
        nbformat.write(submission(handed_out, kind), tmp_path / f"{kind}.ipynb")
        words = ["run", "-a", str(archive), "-o", ".", f"{kind}.ipynb"]
        told = subprocess.run([*otter, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        assert f"Total Score: {SCORES[kind]:.3f} / 12.000" in told
