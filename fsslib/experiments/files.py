"""Parameter files: names and values in YAML or JSON, as `papermill -f` takes them."""

import json
from pathlib import Path
from typing import Any

from ..errors import ParameterError


def read_parameters(path: str | Path) -> dict[str, Any]:
    """Names and values of a parameter file; YAML, of which JSON is a part, unless the name ends in `.json`.

    Raises ParameterError for a file that cannot be read, holds something else, or gives a name twice (of which YAML and
    JSON silently keep the last).
    """
    import yaml  # comes with papermill

    class Loader(yaml.SafeLoader):
        """Plain values only, each name once."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            _once([self.construct_object(key) for key, _ in node.value], path)
            return super().construct_mapping(node, deep)

    def pairs(found: list[tuple[str, Any]]) -> dict:
        _once([name for name, _ in found], path)
        return dict(found)

    kind = "JSON" if Path(path).suffix == ".json" else "YAML"
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=pairs) if kind == "JSON" else yaml.load(text, Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError(f"{path} cannot be read as {kind}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ParameterError(f"{path}: expected names with values, found {type(content).__name__}.")
    return content


def _once(names: list, path: str | Path) -> None:
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise ParameterError(f"{path}: {', '.join(twice)} is given twice.")
