"""Every exercise: its question, its solution, its stub, and wrong answers that have to be named."""

import ast
import re
import time

import nbformat
import pytest
from lab_tools import STAGES, answer, box, solutions, sources, tagged, wrong_answers

from fsslib.labs import check
from fsslib.labs.exercise import exercises
from tools import build

ALL = exercises()
WRONG = [
    pytest.param(name, slip, body, id=f"{name}-{slip.replace(' ', '_')}")
    for name in ALL
    for slip, body in wrong_answers(name).items()
]


@pytest.mark.parametrize("stage", STAGES)
def test_questions(stage):
    """Each exercise has a question with effort box and hint, a documented solution and a check, in this order."""
    names = list(exercises(stage))
    boxes = [box(text) for text in tagged(stage, "exercise")]
    assert all(boxes), "### 1 · `name`, an empty line, *Difficulty ●○○ · importance ●●○ · 5 minutes.*"
    assert [m[2] for m in boxes] == names == list(solutions(stage)), "same exercises in the same order"
    assert [int(m[1]) for m in boxes] == list(range(1, len(names) + 1))
    assert len([name for name in names if not ALL[name].written]) >= 2 and any(ALL[n].written for n in names)
    source = STAGES[stage].read_text()
    for name, text in zip(names, tagged(stage, "exercise")):
        assert re.search(r"<details><summary>Hint</summary>.{20,}</details>", text, re.S), f"{name} has no hint"
        places = [source.index(x) for x in (f"· `{name}`", f"\ndef {name}(", f"\ncheck({name})\n")]
        assert places == sorted(places), f"{name}: question, solution, check"
    for text in tagged(stage, "solution"):
        (function,) = ast.parse(text).body
        assert ast.get_docstring(function), f"{function.name}: the docstring says what comes in and goes out"
        assert [a.arg for a in function.args.args] == ALL[function.name].parameters
    assert all(re.search(rf"`{name}`", " ".join(tagged(stage, "marking"))) for name in names), "marking notes for all"


@pytest.mark.parametrize("stage, name", [(s, n) for s in STAGES for n in exercises(s)])
def test_solutions_pass_in_a_second(stage, name):
    mine = solutions(stage)[name]
    check(mine)  # the first call of a process may load a kernel
    start = time.process_time()
    result = check(mine)
    assert result, result
    assert time.process_time() - start < 1, "a student should not wait"
    assert not result.slip


def _numbers(text):
    """Every number of a text as (value, decimals), without its sign."""
    found = re.findall(r"(?<![\w.])[+\-−]?(\d[\d,]*(?:\.\d+)?)", text)
    return [(float(n.replace(",", "")), len(n.partition(".")[2])) for n in found]


@pytest.mark.parametrize("name", [name for name, task in ALL.items() if task.written])
def test_model_answers_quote_what_the_notebook_measured(name):
    """An open question is recorded, not judged; every number in its model answer stands in a stored output."""
    stage = ALL[name].stage
    mine = solutions(stage)[name]
    assert check(mine).status == "recorded" and "judged" in check(mine).message
    book = nbformat.read(build.BOOKS / f"{stage}.ipynb", 4)
    outputs = [o for c in book.cells if c.cell_type == "code" for o in c.outputs]
    texts = [t for o in outputs for t in (o.get("text", ""), *map(o.get("data", {}).get, ("text/plain", "text/html")))]
    measured = {value for text in texts if text for value, _ in _numbers(re.sub(r"<[^>]+>", " ", text))}
    for value, decimals in _numbers(mine()):
        near = 0.51 * 10**-decimals
        assert any(abs(value - m) <= near for m in measured), f"{name}: {value:g} was not measured in {stage}"


@pytest.mark.parametrize("name, slip, body", WRONG)
def test_wrong_answers_are_named(name, slip, body):
    result = check(answer(name, body))
    assert not result and result.slip == slip, result
    assert len(result.message) > 30


@pytest.mark.parametrize("name", ALL)
def test_slips_are_named(name):
    """Each slip's own answer, which an earlier slip could hide; five wrong answers for every exercise are tested."""
    task = ALL[name]
    for slip in task.slips:
        function = answer(name, f"return SLIP({', '.join(task.parameters)})")
        function.__globals__["SLIP"] = slip.answer
        assert check(function).slip == slip.name
    assert len({slip.name for slip in task.slips} | wrong_answers(name).keys()) >= 5


@pytest.mark.parametrize("name", ALL)
def test_messages_do_not_show_the_solution(name):
    """No line of a solution stands in a message."""
    task = ALL[name]
    lines = [line.strip() for line in sources(task.stage)[name].splitlines()[2:] if len(line.strip()) > 20]
    for slip in task.slips:
        assert slip.name and len(slip.name) <= 40 and len(slip.message) > 30
        assert not [line for line in lines if line in slip.message]


def test_the_rule_of_the_figures_is_that_of_the_exercise():
    from fsslib.analysis.intervals import clear

    for case, arguments in ALL["is_clear"].cases().items():
        assert ALL["is_clear"].reference(*arguments) == clear(*arguments), case
