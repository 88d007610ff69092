"""Which library files a notebook's results depend on: its imports, followed name by name.

`from fsslib import Episode` leads through the package's `__init__.py` to `episode.py` and to nothing else, so that a
change in an unrelated module leaves the notebook alone. A name that a module defines itself pulls in that module and
everything it imports, wherever in the file the import stands.
"""

import ast
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=512)
def _parse(source: str) -> ast.Module:
    return ast.parse(source)


class Imports:
    """Collects the files of `package` (a folder below `root`) that a Python source needs."""

    def __init__(self, root: Path, package: str = "fsslib"):
        self.root, self.package = root, package
        self.found: set[Path] = set()
        self._asked: set[tuple[Path, str]] = set()

    def of(self, path: Path) -> list[Path]:
        """Sorted files of the package that the source at `path` depends on, directly or not."""
        self._follow_all(path)
        return sorted(self.found - {path})

    def _file(self, parts: tuple[str, ...]) -> Path | None:
        """The file of a dotted module, or None if there is no such module in the package."""
        if not parts or parts[0] != self.package:
            return None
        base = self.root.joinpath(*parts)
        return next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), None)

    def _home(self, path: Path, level: int, module: str | None) -> tuple[str, ...]:
        """The dotted module an `from ... import` statement in `path` names."""
        tail = tuple(module.split(".")) if module else ()
        if level == 0:
            return tail
        # A package's __init__.py and its modules share the same folder, so level 1 is that folder for both.
        folder = path.parent.parents[level - 2] if level > 1 else path.parent
        return folder.relative_to(self.root).parts + tail if folder.is_relative_to(self.root) else ()

    def _whole(self, path: Path) -> None:
        """Depend on a module itself and on all it imports."""
        if path not in self.found:
            self.found.add(path)
            self._follow_all(path)

    def _name(self, parts: tuple[str, ...], name: str) -> None:
        """Depend on `name` as imported from the module `parts`: a submodule, a re-exported name, or its own."""
        path = self._file(parts)
        if (submodule := self._file((*parts, name))) is not None:
            return self._whole(submodule)
        if path is None or (path, name) in self._asked:
            return None
        self._asked.add((path, name))
        tree = _parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self._name(self._home(path, node.level, node.module), alias.name)
        for module, names in _on_demand(tree).items():
            if name in names:
                return self._name(self._home(path, 1, module), name)
        return self._whole(path)

    def _chain(self, parts: tuple[str, ...], attributes: list[str]) -> None:
        """Depend on what `module.a.b` means after `import module`."""
        while attributes and self._file((*parts, attributes[0])) is not None:
            parts, attributes = (*parts, attributes[0]), attributes[1:]
        if attributes:
            self._name(parts, attributes[0])
        elif (path := self._file(parts)) is not None:
            self._whole(path)

    def _follow_all(self, path: Path) -> None:
        tree = _parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                home = self._home(path, node.level, node.module)
                for alias in node.names:
                    if alias.name == "*" and (module := self._file(home)) is not None:
                        self._whole(module)
                    elif alias.name != "*":
                        self._name(home, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    self._plain_import(tree, alias)
        for module, names in _on_demand(tree).items():
            for name in names:
                self._name(self._home(path, 1, module), name)

    def _plain_import(self, tree: ast.Module, alias: ast.alias) -> None:
        parts = tuple(alias.name.split("."))
        if parts[0] != self.package:
            return
        bound, prefix = (alias.asname, parts) if alias.asname else (parts[0], parts[:1])
        chains = [chain[1:] for chain in map(_dotted, ast.walk(tree)) if chain and chain[0] == bound]
        for chain in chains:
            self._chain(prefix, chain)
        if not chains:
            self._chain(parts, [])


def _on_demand(tree: ast.Module) -> dict[str, list[str]]:
    """Module -> names of it, as a package's call of `names.on_demand` hands them out on first use."""
    for node in tree.body:
        call = getattr(node, "value", None)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "on_demand":
            return {module: names.split() for module, names in ast.literal_eval(call.args[1]).items()}
    return {}


def _dotted(node: ast.AST) -> list[str]:
    """`["fsslib", "ops", "cosine_maps"]` for the expression `fsslib.ops.cosine_maps`, else an empty list."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if names and isinstance(node, ast.Name) else []
