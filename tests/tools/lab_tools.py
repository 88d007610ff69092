"""What the tests of the exercises share: the solutions in the notebooks' sources, and answers made of a body."""

import ast
import re
import textwrap
from functools import cache
from types import CodeType

from wrong_bodies import WRONG

from fsslib.labs.exercise import exercises
from fsslib.labs.hidden_state import names
from tools import build

STAGES = {p.stem: p for p in sorted(build.SOURCES.glob("[0-9]*.py")) if exercises(p.stem)}


@cache
def tagged(stage: str, tag: str) -> list[str]:
    """The source texts of a stage's cells with a tag."""
    return [c.source for c in build.load(STAGES[stage], marking=True).cells if tag in c.metadata.get("tags", [])]


@cache
def _imports(stage: str) -> dict[str, CodeType]:
    """name -> import statement that binds it, in a notebook: all that an answer may use."""
    statements = [n for n in ast.parse(STAGES[stage].read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
    return {name: compile(ast.unparse(n), stage, "exec") for n in statements for name in names(ast.unparse(n)).bound}


def run(stage: str, text: str) -> dict:
    """Execute a cell with those of the notebook's imports that it names; returns its names."""
    space: dict = {}
    for name in (names(text).used | names(text).later) & _imports(stage).keys():
        exec(_imports(stage)[name], space)
    exec(compile(text, f"<{stage}>", "exec"), space)
    return space


@cache
def sources(stage: str) -> dict[str, str]:
    """name -> text, of all cells tagged `solution`."""
    return {ast.parse(text).body[0].name: text for text in tagged(stage, "solution")}


@cache
def solutions(stage: str) -> dict:
    """name -> function, of all cells tagged `solution`."""
    return {name: run(stage, text)[name] for name, text in sources(stage).items()}


def answer(name: str, body: str):
    """A student's function with the right first line and the given body."""
    task = exercises()[name]
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return run(task.stage, f"def {name}({', '.join(task.parameters)}):\n{lines}\n")[name]


def named(name: str, function):
    """The function under another name, as students' answers are found."""
    function.__name__ = name
    return function


# Answers to any open question: slip -> body.
ESSAYS = {
    "no text": "print('the class falls by 38 points, for its prototype is gone')",
    "too short": "return 'The IoU of the class falls to 19 %.'",
    "repeats itself": "return 'the object falls by 38 ' * 10",
    "beside the point": "return ' '.join('the score goes down a lot when we change what stands in between, that is how "
    "it ought to be because otherwise nothing would depend on them, which we saw at 19 percent'.split())",
    "no measurement": "return ('Each cell of the class is compared with the prototype under its mask, and the interval "
    "of such a score is so wide that nobody can tell from one picture whether the background made the difference.')",
}


def wrong_answers(name: str) -> dict[str, str]:
    """slip -> body, of an exercise."""
    return ESSAYS if exercises()[name].written else WRONG.get(name, {})


def box(text: str) -> re.Match | None:
    """The heading and the effort box of an exercise's question."""
    return re.search(
        r"^### (\d) · `(\w+)`$\n\n\*Difficulty ([●○]{3}) · importance ([●○]{3}) · (\d+) minutes\.\*", text, re.M
    )


__all__ = ["STAGES", "answer", "box", "named", "run", "solutions", "sources", "tagged", "wrong_answers"]
