"""Hidden state: cells that worked only because of another order, or of a cell that is gone."""

import ast
import builtins
import dis
import inspect
import re
import warnings
from collections.abc import Collection, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

_GIVEN = {*dir(builtins), "display", "get_ipython", "In", "Out", "_", "__", "exit", "quit"}
_DUNDER = re.compile(r"__\w+__")
_LOADS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS", "DELETE_NAME", "DELETE_GLOBAL"}
_STARS = {"IMPORT_STAR", "CALL_INTRINSIC_1"}
_RUN_PYTHON = {"time", "timeit", "capture", "prun"}


class Names(NamedTuple):
    """What a cell reads before it sets it itself, what it sets, and what its functions read when they are called."""

    used: frozenset[str]
    bound: frozenset[str]
    later: frozenset[str]


class Finding(NamedTuple):
    """One dependency on hidden state: the cell's index among the code cells, the name, and what to do."""

    cell: int
    name: str
    message: str


@lru_cache(maxsize=1000)
def names(source: str) -> Names:
    """The global names of a cell; empty sets if it is not Python.

    IPython's own reader turns `%magic`, `!program` and `thing?` into Python, and Python's own compiler says what is
    global: so comprehensions, `match`, `:=`, `global` and whatever comes next are read as they run. `import *` binds
    the name "*", which stands for any.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    reader = _Reader()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the student's code, which says so itself when it runs
            tree = ast.parse(TransformerManager().transform_cell(source))
            tree = ast.fix_missing_locations(_Magics().visit(tree))
            reader.read(compile(tree, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True))
    except (SyntaxError, ValueError, RecursionError, RuntimeError, MemoryError):
        return Names(frozenset(), frozenset(), frozenset())
    return Names(*map(frozenset, (reader.used - _GIVEN, reader.bound, reader.later - reader.bound - _GIVEN)))


class _Magics(ast.NodeTransformer):
    """Puts the Python that a magic runs in the place of the magic."""

    def visit_Expr(self, node: ast.Expr) -> Any:
        match node.value:
            case ast.Call(func=ast.Attribute(attr="run_line_magic" | "run_cell_magic"), args=[*given]):
                name, *texts = (a.value if isinstance(a, ast.Constant) else "" for a in given)
                if name in _RUN_PYTHON:
                    line, *body = texts
                    inner = ast.parse(body[0] if body else re.sub(r"^(-\w+\s*\d*\s+)*", "", line)).body
                    kept = re.findall(r"^\w+", line) if name == "capture" else []
                    return [*ast.parse("".join(f"{n} = 0\n" for n in kept)).body, *inner] or node
        return self.generic_visit(node)


class _Reader:
    """Reads what was compiled, in the order of execution."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.bound: set[str] = set()
        self.later: set[str] = set()

    def read(self, code: CodeType, called: bool = False) -> None:
        """Args: called: it does not run now, but when somebody calls it."""
        local: set[str] = set()
        inner = not code.co_flags & inspect.CO_NEWLOCALS and code.co_name != "<module>"  # the body of a class
        forgiving = called and "NameError" in code.co_names  # it expects that a name is missing
        for step in dis.get_instructions(code):
            name = step.argval
            if isinstance(name, CodeType):
                at_once = name.co_name.startswith("<") and name.co_name != "<lambda>"
                at_once = at_once or not name.co_flags & inspect.CO_NEWLOCALS
                if name.co_name != "__annotate__":  # hints are not evaluated
                    self.read(name, called or not at_once)
            elif step.opname == "STORE_GLOBAL" or (step.opname == "STORE_NAME" and not inner):
                self.bound.add(name)
            elif step.opname == "STORE_NAME":
                local.add(name)
            elif step.opname in _STARS and step.argrepr in ("", "INTRINSIC_IMPORT_STAR"):
                self.bound.add("*")
            elif step.opname in _LOADS and name not in local and not forgiving and not _DUNDER.fullmatch(name):
                if called:
                    self.later.add(name)
                elif name not in self.bound:
                    self.used.add(name)


def hidden_state(
    sources: Sequence[str], counts: Sequence[int | None], given: dict[str, str] | None = None,
    missed: Collection[str] | None = None, well: Collection[int] = (),
) -> list[Finding]:  # fmt: skip
    """Cells that depend on the order in which they were run, or on definitions that are gone.

    Args:
        sources: texts of the code cells, from top to bottom.
        counts: their execution counts as saved; None where a cell was not run.
        given: names that the notebook's cells defined when it was handed out, with the first line of the cell.
        missed, well: what a run from top to bottom has shown, which counts more than what is read here: the names that
            something looked for in vain (None: there was no run), and the indices of the cells that ran without an
            error. What a cell or function did not miss is not reported, however it came there.
    """
    cells, findings = [names(text) for text in sources], []
    every = set().union(*(cell.bound for cell in cells))
    for i, cell in enumerate(cells):
        nowhere = cell.later - every - cell.used
        if missed is not None:
            nowhere &= set(missed)
        elif "*" in every:  # any name may have come from there
            nowhere = frozenset()
        above = {name: [k for k in range(i) if {name, "*"} & cells[k].bound] for name in cell.used}
        lost = [name for name in sorted(cell.used) if not above[name] and i not in well]
        findings += [Finding(i, n, _no_definition(n, i, cells, given or {})) for n in sorted(nowhere) + lost]
        for name in sorted(name for name in cell.used if above[name]):
            ran = [k for k, c in enumerate(cells) if name in c.bound and 0 < (counts[k] or 0) < (counts[i] or 0)]
            last = max(ran, key=counts.__getitem__, default=above[name][-1])
            if last > i:
                message = (
                    f"`{name}` came from cell {last + 1} further down when this cell was run last; from top to bottom "
                    f"it comes from cell {above[name][-1] + 1}. Run all cells in order and see if the result stays."
                )
                findings.append(Finding(i, name, message))
    return findings


def _no_definition(name: str, i: int, cells: Sequence[Names], given: dict[str, str]) -> str:
    below = [k + 1 for k in range(i + 1, len(cells)) if name in cells[k].bound]
    if below:
        return f"`{name}` is defined only further down, in cell {below[0]}: move that cell above this one."
    if name in cells[i].bound:
        return f"`{name}` is used in this cell before the cell sets it: a first run finds nothing there."
    if name in given:
        return f"`{name}` was defined in a cell that is gone from the notebook: `{given[name]}`. Bring it back."
    lost = "its cell was deleted, changed, or it was typed elsewhere"
    return f"`{name}` is defined nowhere in the notebook: {lost}. Define it above this cell."
