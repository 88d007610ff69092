"""Executes one notebook: a script started for every run, told what to do on its standard input.

A kernel ends with the process that started it. This process ends with the one that started *it*: the standard input
stays open as long as that one lives, so that a killed run leaves nothing working on in its folder.
It imports nothing of the library, which would load torch a second time for nothing.
"""

import json
import logging
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

ERROR, REPORT = "error.json", "report.ipynb"


def _leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def attempt(order: dict[str, Any]) -> dict[str, Any] | None:
    """Execute into `report.ipynb` of the working folder; returns None, or what went wrong: cell, name, message."""
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    bar = {"desc": order["title"]} if order["progress"] else False
    how = {"kernel_name": "python3", "progress_bar": bar, "log_output": False, "start_timeout": 900}
    how |= {"parameters": order["parameters"], "store_widget_state": False}
    how["extra_arguments"] = ["--IPKernelApp.log_level=40"]  # one warning about TCP for every kernel otherwise
    try:
        try:
            papermill.execute_notebook(nbformat.from_dict(order["notebook"]), REPORT, **how)
        except RuntimeError as error:
            # On a busy machine a kernel may miss its start; nothing has run yet, so once more is safe.
            if not re.search("before replying|didn't respond", str(error)):
                raise
            papermill.execute_notebook(nbformat.from_dict(order["notebook"]), REPORT, **how)
    except PapermillExecutionError as error:
        cell = f"cell {error.exec_count or error.cell_index}"
        return {"cell": cell, "name": error.ename, "message": error.evalue, "source": error.source}
    except Exception as error:  # whatever it was, the caller hears about it
        return {"cell": "", "name": type(error).__name__, "message": str(error), "source": ""}
    return None


def main() -> int:
    """Read one line of JSON (notebook, parameters, title, progress), execute, and leave error.json on failure."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    for name in ("SIGUSR1", "SIGUSR2", "SIGTERM") if "SLURM_JOB_ID" in os.environ else ():
        # Slurm tells every process of a job that its time is nearly over; the one above decides what to do about it.
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["TQDM_DISABLE"] = "1"  # inside the notebook; the bar of the run itself is papermill's
    failure = attempt(order)
    if failure is not None:
        Path(ERROR).write_text(json.dumps(failure, indent=1), encoding="utf-8")
    return int(failure is not None)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without waiting for the thread at the standard input
