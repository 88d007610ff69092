"""Hidden state: cells that worked only because of another order, or of a cell that is gone."""

import ast
import builtins
import re
from collections.abc import Sequence
from typing import NamedTuple

_GIVEN = {*dir(builtins), "display", "get_ipython", "In", "Out", "_", "__", "__name__", "__doc__", "exit", "quit"}


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


def names(source: str) -> Names:
    """The global names of a cell; empty sets if it is not Python. Lines for IPython (%, !) are left out."""
    text = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return Names(frozenset(), frozenset(), frozenset())
    reader = _Reader()
    for node in tree.body:
        reader.visit(node)
    return Names(*map(frozenset, (reader.used - _GIVEN, reader.bound, reader.later - reader.bound - _GIVEN)))


class _Reader(ast.NodeVisitor):
    """Visits in the order of execution: a value before the name that it is given to."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.bound: set[str] = set()
        self.later: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            if node.id not in self.bound:
                self.used.add(node.id)
        else:
            self.bound.add(node.id)

    def _visit_all(self, *parts: ast.AST) -> None:
        for part in parts:
            self.visit(part)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._visit_all(node.value, *node.targets)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and node.target.id not in self.bound:
            self.used.add(node.target.id)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._visit_all(node.iter, node.target, *node.body, *node.orelse)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}

    visit_ImportFrom = visit_Import  # type: ignore[assignment]

    def _scope(self, node: ast.AST, *parts: ast.AST, arguments: ast.arguments | None = None) -> None:
        """What an inner scope reads of the outer one (a function with `arguments`: when it is called); what it sets
        stays inside."""
        inner = _Reader()
        inner._visit_all(*parts)
        local = inner.bound | (_arguments(arguments) if arguments else set())
        for nested in ast.walk(node):
            if isinstance(nested, ast.Global):
                self.bound |= set(nested.names)
        self.later |= inner.later - local
        if arguments:
            self.later |= inner.used - local
        else:
            self.used |= inner.used - local - self.bound

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_all(*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults))
        self.bound.add(node.name)
        self._scope(node, *node.body, arguments=node.args)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._scope(node, node.body, arguments=node.args)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all(*node.decorator_list, *node.bases, *(k.value for k in node.keywords))
        self.bound.add(node.name)
        self._scope(node, *node.body)

    def _comprehension(self, node: ast.AST) -> None:
        parts = [p for g in node.generators for p in (g.iter, g.target, *g.ifs)]  # type: ignore[attr-defined]
        values = [getattr(node, field) for field in ("elt", "key", "value") if hasattr(node, field)]
        self._scope(node, *parts, *values)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # type: ignore[assignment]

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.bound.add(node.name)
        self.generic_visit(node)


def _arguments(arguments: ast.arguments) -> set[str]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {a.arg for a in every if a is not None}


def hidden_state(
    sources: Sequence[str], counts: Sequence[int | None], given: dict[str, str] | None = None
) -> list[Finding]:
    """Cells that depend on the order in which they were run, or on definitions that are gone.

    Args:
        sources: texts of the code cells, from top to bottom.
        counts: their execution counts as saved; None where a cell was not run.
        given: names that the notebook's cells defined when it was handed out, with the first line of the cell.
    """
    cells, findings = [names(text) for text in sources], []
    every = set().union(*(cell.bound for cell in cells))
    for i, cell in enumerate(cells):
        for name in sorted(cell.later - every - cell.used) + sorted(cell.used):
            above = [k for k in range(i) if name in cells[k].bound]
            if not above:
                findings.append(Finding(i, name, _no_definition(name, i, cells, given or {})))
                continue
            ran = [k for k, c in enumerate(cells) if name in c.bound and 0 < (counts[k] or 0) < (counts[i] or 0)]
            last = max(ran, key=counts.__getitem__, default=above[-1])
            if last > i:
                message = (
                    f"`{name}` came from cell {last + 1} further down when this cell was run last; from top to bottom "
                    f"it comes from cell {above[-1] + 1}. Run all cells in order and see whether the result stays."
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
