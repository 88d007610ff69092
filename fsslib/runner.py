"""Executes one notebook in a process of its own: `python -m fsslib.runner`, told what to do on its standard input.

A kernel ends with the process that started it. This process ends with the one that started *it*: the standard input
stays open as long as that one lives, so that a killed run leaves nothing working on in its folder.
"""

import json
import logging
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

ERROR, REPORT = "error.json", "report"


def _leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _attempt(notebook: Any, parameters: dict[str, Any], title: str | None) -> None:
    import papermill

    papermill.execute_notebook(
        notebook,
        f"{REPORT}.ipynb",
        parameters=parameters,
        kernel_name="python3",
        progress_bar={"desc": title} if title else False,
        log_output=False,
        start_timeout=120,
        store_widget_state=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # one warning about TCP for every kernel otherwise
    )


def _tidy(folder: Path, title: str) -> None:
    """Remove paths and widget state from the executed notebook, then write its page."""
    import nbformat

    from .files import atomic
    from .pages import write_page

    path = folder / f"{REPORT}.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.metadata.pop("widgets", None)
    for name in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {}).pop(name, None)
    with atomic(path) as part:
        part.write_text(nbformat.writes(notebook).replace(str(folder), ".") + "\n", encoding="utf-8")
    write_page(path, folder / f"{REPORT}.html", title=title)


def execute(source: Path, parameters: dict[str, Any], title: str, progress: bool) -> dict[str, Any] | None:
    """Run `source` in the working folder; returns None, or what went wrong: cell, name, message."""
    from papermill.exceptions import PapermillExecutionError

    from .notebook import load

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["TQDM_DISABLE"] = "1"
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        try:
            _attempt(load(source), parameters, title if progress else None)
        except RuntimeError as error:
            # On a busy machine a kernel may miss its start; nothing has run yet, so once more is safe.
            if not re.search("before replying|didn't respond", str(error)):
                raise
            _attempt(load(source), parameters, title if progress else None)
        _tidy(Path.cwd(), title)
    except PapermillExecutionError as error:
        cell = f"cell {error.exec_count or error.cell_index}"
        return {"cell": cell, "name": error.ename, "message": error.evalue, "source": error.source}
    except Exception as error:  # whatever it was, the caller hears about it
        return {"cell": "", "name": type(error).__name__, "message": str(error), "source": ""}
    return None


def main() -> int:
    """Read one line of JSON (source, parameters, title, progress), execute, and leave error.json on failure."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    failure = execute(Path(order["source"]), order["parameters"], order["title"], order["progress"])
    if failure is not None:
        Path(ERROR).write_text(json.dumps(failure, indent=1), encoding="utf-8")
    return int(failure is not None)


if __name__ == "__main__":
    status = main()
    # A thread waits on the standard input: leave without waiting for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
