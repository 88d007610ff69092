"""Editions: made of one source, without the solutions where they do not belong, and working in class and in grading."""

import ast
import json
import os
import re
import subprocess
import sys
import zipfile

import nbformat
import pytest
from lab_tools import STAGES, run, sources

from fsslib.labs import check
from fsslib.labs.exercise import exercises
from fsslib.labs.hidden_state import hidden_state, names
from fsslib.labs.kernel import Limits
from fsslib.labs.submit import submit
from tools import build, editions

BOOKS = [p.stem for p in sorted(build.SOURCES.glob("*.py"))]
PATIENT = Limits(cell=1200, total=3600)  # nothing here depends on how busy the machine is


@pytest.fixture(scope="module")
def handed(tmp_path_factory):
    return editions.make("student", tmp_path_factory.mktemp("editions"))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    return editions.make("instructor", tmp_path_factory.mktemp("editions"))


def read(folder, stage):
    return nbformat.read(folder / "notebooks" / f"{stage}.ipynb", 4)


def solution_lines():
    """Lines of more than 20 characters of all solutions, without what the stub shows: first line and docstring."""
    for stage in BOOKS:
        for cell in build.load(build.SOURCES / f"{stage}.py").cells:
            if "solution" not in cell.metadata.get("tags", []):
                continue
            shown = editions.stub(cell.source).splitlines() if stage in STAGES else []
            for line in cell.source.splitlines():
                if len(line.strip()) > 20 and line not in shown and "### " not in line:
                    yield stage, line.strip()


def test_no_solution_in_a_student_s_edition(handed):
    """Wherever it may stand in the file: sources, outputs, metadata."""
    texts = {stage: (handed / "notebooks" / f"{stage}.ipynb").read_text() for stage in BOOKS}
    lines = [(stage, json.dumps(line, ensure_ascii=False)[1:-1]) for stage, line in solution_lines()]
    assert len(lines) > 60
    leaks = [(where, stage, line) for stage, line in lines for where, text in texts.items() if line in text]
    assert not leaks, leaks
    marks = re.compile(r'BEGIN SOLUTION|\*\*Marking|"solution\\?"(?!:)')  # nbgrader's metadata say `"solution": true`
    assert not [stage for stage, text in texts.items() if marks.search(text)]


def test_no_solution_in_the_checks():
    """The reference answers of the checks are worded differently."""
    library = "\n".join(p.read_text() for p in sorted((build.ROOT / "fsslib" / "labs").rglob("*.py")))
    assert not [(stage, line) for stage, line in solution_lines() if stage in STAGES and line in library]


@pytest.mark.parametrize("stage", STAGES)
def test_stubs_are_cut_from_solutions(handed, stage):
    """Same function, same arguments, same documentation; only the answer is missing; the check stays."""
    book = read(handed, stage)
    answers = [c for c in book.cells if "answer" in c.metadata.get("tags", [])]
    assert len(answers) == len(sources(stage)) == len(exercises(stage))
    for cell, solution in zip(answers, sources(stage).values()):
        (mine,), (full,) = ast.parse(cell.source).body, ast.parse(solution).body
        assert (mine.name, ast.dump(mine.args), ast.get_docstring(mine)) == (
            full.name, ast.dump(full.args), ast.get_docstring(full),
        )  # fmt: skip
        assert f'NotImplementedError("{mine.name}: your turn")' in cell.source
        assert check(run(stage, cell.source)[mine.name]).status == "unsolved"
        assert cell.metadata.nbgrader.grade_id == mine.name and cell.metadata.nbgrader.solution
    checks = [c for c in book.cells if c.metadata.get("nbgrader", {}).get("grade")]
    assert [c.source for c in checks] == [f"check({name})" for name in exercises(stage)]
    for cell in book.cells:
        if cell.cell_type == "code" and cell.outputs:
            assert "question" in cell.metadata.tags, "outputs only where a question asks about them"
    assert book.cells[1].id == "edition" and "labs submit" in book.cells[1].source


def test_a_solution_is_one_documented_function():
    for text in ("x = 1", "def f():\n    return 1", "def f():\n    '''d'''\ndef g():\n    '''d'''"):
        with pytest.raises(ValueError, match="one function"):
            editions.stub(text)
    part = (
        'def f(a):\n    """d"""\n    b = a\n    ### BEGIN SOLUTION\n    b = b + 1\n    ### END SOLUTION\n    return b'
    )
    assert editions.stub(part).splitlines()[2:] == [
        "    b = a", '    raise NotImplementedError("f: your turn")', "    return b",
    ]  # fmt: skip


def code(book):
    """All of its code cells that matters when they run and when nbval compares them."""
    return [(c.source, c.outputs, c.metadata.get("tags", [])) for c in book.cells if c.cell_type == "code"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_instructor_s_edition_is_the_tested_notebook(taught, stage):
    """The same code cells with the same outputs as the notebook that nbval compares; more text."""
    mine = read(taught, stage)
    assert code(mine) == code(nbformat.read(build.BOOKS / f"{stage}.ipynb", 4))
    text = "\n".join(c.source for c in mine.cells)
    assert "Marking" in text and all(f"| `{name}` |" in text for name in exercises(stage))


def test_nbval_accepts_an_instructor_s_edition(taught):
    """Its form; that the cells give their outputs, the run of the equal notebooks shows."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--collect-only"]
    command += ["-c", os.devnull, "--rootdir", str(taught), *map(str, sorted((taught / "notebooks").glob("0*.ipynb")))]
    ran = subprocess.run(command, env=build.environment(), capture_output=True, text=True)
    cells = sum(bool(source) for stage in BOOKS if stage[0] == "0" for source, *_ in code(read(taught, stage)))
    assert ran.returncode == 0 and f"{cells} tests collected" in ran.stdout, ran.stdout[-3000:]


def test_the_handout_is_whole(handed):
    """It can be installed, holds no sources, tests or notes, equals the zip, and its relative links lead somewhere."""
    names = {p.relative_to(handed).as_posix() for p in handed.rglob("*") if p.is_file()}
    assert {"pyproject.toml", "README.md", "fsslib/labs/check.py", "notebooks/GLOSSARY.md"} <= names
    assert not [
        n
        for n in names
        if "INSTRUCTORS" in n or n.startswith(("tests", "tools", "notebooks/src")) or "__pycache__" in n
    ]
    with zipfile.ZipFile(handed.with_suffix(".zip")) as archive:
        assert {n.removeprefix("fsslib-course/") for n in archive.namelist()} == names
    assert handed.with_suffix(".zip").stat().st_size < 10_000_000
    for stage in BOOKS:
        for cell in read(handed, stage).cells:
            for link in re.findall(r"\]\((?!\w+:)([^)#]+)", cell.source if cell.cell_type == "markdown" else ""):
                assert (handed / "notebooks" / link).exists(), (stage, link)


def test_the_handout_works_where_it_is_unpacked(handed):
    """Its library finds its own data: nothing leads back to this clone."""
    script = "from fsslib import files, labs; print(labs.__file__, files.data_folder(), files.repository_folder())"
    environment = os.environ | {"PYTHONPATH": str(handed)}
    ran = subprocess.run([sys.executable, "-c", script], cwd=handed, env=environment, capture_output=True, text=True)
    places = [handed / "fsslib/labs/__init__.py", handed / "data", handed]
    assert ran.stdout.split() == [str(place.resolve()) for place in places], ran.stderr
    weights = "data/weights/panet-shapes-fold0.safetensors"
    assert (handed / weights).read_bytes() == (build.ROOT / weights).read_bytes()


def solved(folder, stage, but=""):
    """A student's edition with solutions pasted into its answers, except one."""
    book, texts = read(folder, stage), sources(stage)
    for cell in book.cells:
        if "answer" in cell.metadata.get("tags", []) and cell.metadata.nbgrader.grade_id != but:
            cell.source = texts[cell.metadata.nbgrader.grade_id]
    return book


@pytest.mark.parametrize("stage", STAGES)
def test_solved_editions_are_the_tested_notebooks(handed, stage):
    """Cell by cell, so what nbval runs from top to bottom is what a student hands in: no error, no hidden state."""
    book, tested = solved(handed, stage), nbformat.read(build.BOOKS / f"{stage}.ipynb", 4)
    sources = [cell.source for cell in book.cells if cell.cell_type == "code"]
    assert sources == [source for source, _, _ in code(tested)]
    assert not [o for _, outputs, _ in code(tested) for o in outputs if o.output_type == "error"]
    for counts in ([None] * len(sources), range(1, len(sources) + 1)):
        assert hidden_state(sources, list(counts), book.metadata.fsslib.names) == []
    shown = {
        source: outputs[0].data["text/plain"] for source, outputs, _ in code(tested) if source.startswith("check(")
    }
    for name in exercises(stage):
        assert shown[f"check({name})"].startswith((f"✓ {name}: right", f"✎ {name}: recorded"))
        assert sum(name in names(source).bound for source in sources) == 1, "an answer lost to a later definition"


def test_an_edition_through_submit(handed, tmp_path):
    """One exercise is not solved: what needs it stops, and what needs those cells; nobody is told of an error."""
    book = solved(handed, "00_start_here", but="foreign_supports")
    for cell in book.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(r"^episodes = \d+", "episodes = 20", cell.source, flags=re.M)
    nbformat.write(book, tmp_path / "mine.ipynb")
    result = submit(tmp_path / "mine.ipynb", limits=PATIENT, progress=False)
    assert result["cells"] == [], "no cell failed, none depends on hidden state, none with a traceback"
    status = dict.fromkeys(exercises("00_start_here"), "right") | {"foreign_supports": "unsolved"}
    status["what_the_support_does"] = "recorded"
    assert {x["name"]: x["status"] for x in result["exercises"]} == status


def test_editions_are_made_of_current_notebooks(monkeypatch, capsys):
    monkeypatch.setattr(build, "stale", lambda path: path.stem == BOOKS[0])
    assert editions.main(["student"]) == 1 and BOOKS[0] in capsys.readouterr().err


def test_the_command(handed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(build, "stale", lambda path: False)
    assert editions.main(["student", "--out", str(tmp_path)]) == 0 and "to hand out" in capsys.readouterr().out
    zips = [path.read_bytes() for path in (tmp_path / "student.zip", handed.with_suffix(".zip"))]
    assert zips[0] == zips[1], "the same zip for the same files"
