"""Reading a notebook: finding it, its parameters cell, and whether given parameters fit."""

import ast
import hashlib
import re
from pathlib import Path
from typing import Any

from .. import files
from ..errors import FsslibError, ParameterError

# Set by the runner: the folder where the notebook leaves its result.
OUT = "out"


def find(name: str | Path) -> Path:
    """The file of a notebook: a path, or a name such as `experiment` or `01_prototypes`.
    By name the built notebook is preferred to its source. Raises FsslibError if there is none."""
    path = files.located(name, "notebook")
    if path.suffix in (".ipynb", ".py"):
        if not path.is_file():
            raise FsslibError(f"there is no notebook {path}.")
        return path.resolve()
    folder = files.notebooks_folder()
    for candidate in (folder / f"{name}.ipynb", folder / "src" / f"{name}.py"):
        if candidate.is_file():
            return candidate
    raise FsslibError(f"there is no notebook {str(name)!r}; known: {', '.join(names()) or 'none'}.")


def names() -> list[str]:
    """The names of all notebooks, built or not, in order."""
    folder = files.notebooks_folder()
    return sorted({path.stem for path in [*folder.glob("*.ipynb"), *folder.glob("src/*.py")]})


def load(path: Path) -> Any:
    """A notebook (nbformat 4) without outputs, from an .ipynb file or a percent source."""
    import nbformat

    text = files.read_text(path, "the notebook", "Give an .ipynb file, or a percent source.", FsslibError)
    try:
        if path.suffix == ".py":
            import jupytext

            notebook = jupytext.reads(text, fmt="py:percent")
        else:
            notebook = nbformat.reads(text, 4)
    except Exception as error:  # the readers' own errors, of half a dozen kinds
        raise FsslibError(f"{path} cannot be read as a notebook: {type(error).__name__} {error}.") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["kernelspec"] = nbformat.from_dict(kernel)
    notebook.metadata["language_info"] = nbformat.from_dict({"name": "python"})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def defaults(notebook: Any) -> dict[str, Any]:
    """Names and default values of the cell tagged `parameters`; empty without such a cell.
    Raises FsslibError unless every default is a plain value (a number, text, list, ...)."""
    cells = [c for c in notebook.cells if c.cell_type == "code" and "parameters" in c.metadata.get("tags", [])]
    values = {}
    for node in ast.parse(cells[0].source if cells else "").body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            try:
                values[target.id] = ast.literal_eval(node.value)
            except (ValueError, AttributeError, TypeError) as error:
                line = ast.unparse(node)
                raise FsslibError(f"parameters cell: {line!r} must give one name a plain value.") from error
    return values


def check_against(notebook: Any, given: dict[str, Any]) -> dict[str, Any]:
    """All parameters of any notebook, its own defaults filled in (without `out`, which belongs to the runner).

    A value must have the type of its default; a default of None accepts anything.
    Raises ParameterError listing unknown names, with the nearest valid one, and wrong types.
    """
    from pydantic import ConfigDict, ValidationError, create_model

    from .conflicts import plain

    known = {name: value for name, value in defaults(notebook).items() if name != OUT}
    fields = {name: (Any if value is None else type(value), value) for name, value in known.items()}
    model = create_model("Parameters", __config__=ConfigDict(extra="forbid", strict=True), **fields)
    try:
        return model.model_validate(given).model_dump()
    except ValidationError as error:
        if not known:
            raise ParameterError(f"the notebook has no parameters, found {', '.join(given)}.") from error
        raise ParameterError("\n".join(plain(e, known) for e in error.errors())) from error


def hide_places(notebook: Any, places: dict[str, str]) -> None:
    """Take the paths of this machine (see `files.without_places`) out of what an executed notebook says as text, in
    place: printed text, errors, and the parameters it was run with. Its cells, pictures and links stay as they are."""

    def hidden(value: Any, mime: str = "text/plain") -> Any:
        if isinstance(value, str):
            text = files.without_places(value, places, mime)
            # Where a warning comes from.
            return re.sub(r"(?:/[\w.~-]{1,80}){0,12}/ipykernel_\d+/\d+\.py", "cell", text)
        if isinstance(value, dict):
            return type(value)((name, hidden(inner)) for name, inner in value.items())
        return [hidden(inner) for inner in value] if isinstance(value, list) else value

    if "papermill" in notebook.metadata:
        notebook.metadata["papermill"] = hidden(notebook.metadata["papermill"])
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = hidden(cell.source)
        for output in cell.get("outputs", []):
            output.update({name: hidden(output[name]) for name in ("text", "evalue", "traceback") if name in output})
            data = output.get("data", {})
            texts = data.keys() & {"text/plain", "text/html", "text/markdown"}
            data.update({mime: hidden(data[mime], mime) for mime in texts})


def digest(notebook: Any) -> str:
    """Sixteen digits that change with the notebook; a built one stands for the library it was built with, too."""
    if stamp := notebook.metadata.get("source_hash"):
        return str(stamp)
    return hashlib.sha256("\0".join(cell.source for cell in notebook.cells).encode()).hexdigest()[:16]
