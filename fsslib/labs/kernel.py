"""Cells in a fresh kernel, within limits of time, memory and output: whatever a cell does, the run ends."""

import contextlib
import importlib.util
import os
import queue
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..arguments import check_number
from ..errors import FsslibError
from ..files import socket_folder
from .check import Meter

# Evaluated before the first cell; binds no name that a cell could come to rely on, and loads what the checks need.
SETUP = '__import__("fsslib.labs.in_kernel", fromlist=["guard"]).guard(get_ipython(), {memory}, {output})'
OBEY = 5.0  # seconds of processor time that an interrupted cell may go on for; it has IMPATIENT by the clock
IMPATIENT = 300.0


@dataclass(frozen=True)
class Limits:
    """What a submission may use, however fast the machine is.

    Attributes:
        cell, total: seconds of processor time, of one cell and of all cells together, with the programs they start.
        output: bytes that a cell may print. memory: bytes of the kernel.
        wait: seconds by the clock in which a cell may do next to nothing, as when it sleeps or waits for an answer.
    """

    cell: float = 180.0
    total: float = 900.0
    output: int = 5_000_000
    memory: int = 6_000_000_000
    wait: float = 600.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_number(value, f"limits: {name}", zero=False, error=FsslibError)


@dataclass
class Outcome:
    """What happened to one cell.

    Attributes:
        status: "ok", "error", "slow" (`message` says of what), "loud" (too much output), "dead" (the kernel ended) or
            "skipped" (the kernel was gone, or the time of all cells over).
        error, message, texts: the name and words of an exception, and the results as text.
        request: the kernel's name for this run of the cell.
        gone: the kernel is. left: the cell has told it to end, which happens later.
        effects: (problem, what) of all that the cell has brought about, also when it had ended already.
    """

    status: str
    error: str = ""
    message: str = ""
    texts: list[str] = field(default_factory=list)
    request: str = ""
    gone: bool = False
    left: bool = False
    effects: list[tuple[str, str]] = field(default_factory=list)

    def fail(self, content: dict[str, Any]) -> None:
        """Take over the error of a message's content."""
        self.status = "loud" if content.get("ename") == "TooMuchOutput" else "error"
        self.error, self.message = content.get("ename", ""), content.get("evalue", "")[:500]


def processor_seconds(pid: int) -> float:
    """Processor time of a process and of all that it has started; 0 if it is gone."""
    import psutil

    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(each.cpu_times()[:4])  # its own, and that of children which have ended
    return total


def _meter(pid: int, seconds: float, wait: float) -> Meter:
    return Meter(partial(processor_seconds, pid), seconds, wait)


class Kernel:
    """A started kernel; made by `fresh_kernel`."""

    def __init__(self, manager: Any, client: Any, limits: Limits):
        self.manager, self.client, self.limits = manager, client, limits
        self.pid = manager.provisioner.pid
        self.start = processor_seconds(self.pid)
        self.waits = 0  # cells that were stopped because they waited; the third ends the run

    def run(self, source: str) -> Outcome:
        """Execute one cell and wait for its end, its limit, or the kernel's death."""
        if not self.manager.is_alive():
            return Outcome("skipped", gone=True)
        left = self.limits.total - (processor_seconds(self.pid) - self.start)
        if left < 0 or self.waits == 3:
            return Outcome("skipped")
        meter = _meter(self.pid, min(left, self.limits.cell), self.limits.wait)
        outcome = self._listen(self.client.execute(source, allow_stdin=False, stop_on_error=False), meter)
        if left < self.limits.cell and "used" in outcome.message and outcome.status == "slow":
            outcome.message = f"Stopped: all cells together used {self.limits.total:g} s of processor time."
        return outcome

    def _listen(self, request: str, meter: Meter) -> Outcome:
        outcome, size, stopping = Outcome("ok", request=request), 0, None
        while True:
            over = meter.exceeded()
            if stopping is None and (over or size > self.limits.output):
                outcome.status, outcome.message = ("slow", over) if over else ("loud", "")
                self.waits += "waited" in over
                stopping = _meter(self.pid, OBEY, IMPATIENT)
                self.manager.interrupt_kernel()
            elif stopping is not None and stopping.exceeded():  # it does not listen to an interrupt
                self.manager.shutdown_kernel(now=True)
                outcome.gone = True
                return outcome
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                if not self.manager.is_alive():
                    outcome.status = outcome.status if stopping else "dead"
                    outcome.gone = True
                    return outcome
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            size += _size(content)
            if kind == "status" and content["execution_state"] == "idle":
                # The reply knows of an error whose message was lost, as when there was no memory left to send it.
                reply = self._reply(request, 60.0)
                outcome.left = any(part.get("source") == "ask_exit" for part in reply.get("payload", ()))
                if outcome.status == "ok" and reply.get("status") == "error":
                    outcome.fail(reply)
                return outcome
            if kind == "error" and outcome.status == "ok":
                outcome.fail(content)
            elif kind == "execute_result" and size <= self.limits.output:
                outcome.texts.append(content["data"].get("text/plain", "")[:2000])

    def _reply(self, request: str, seconds: float) -> dict[str, Any]:
        meter = _meter(self.pid, seconds, IMPATIENT)
        while self.manager.is_alive() and not meter.exceeded():
            try:
                reply = self.client.get_shell_msg(timeout=0.5)
            except queue.Empty:
                continue
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]
        return {}

    def ask(self, expression: str, seconds: float) -> str | None:
        """The repr of an expression's value in the kernel, or None if `seconds` of processor time give no answer."""
        request = self.client.execute("", silent=True, user_expressions={"asked": expression}, allow_stdin=False)
        answer = self._reply(request, seconds).get("user_expressions", {}).get("asked", {})
        return answer.get("data", {}).get("text/plain")


def _size(content: dict[str, Any]) -> int:
    data = content.get("data", {})
    return len(content.get("text", "")) + sum(len(v) for v in data.values() if isinstance(v, str))


@contextlib.contextmanager
def fresh_kernel(limits: Limits, setup: str = SETUP) -> Iterator[Kernel]:
    """A new kernel in an empty folder of its own, without the user's start-up files; it ends with the block."""
    from jupyter_client import KernelManager

    if importlib.util.find_spec("resource") is None:
        warnings.warn("This system does not limit the memory of a process, nor that of a submission.", stacklevel=3)
    with tempfile.TemporaryDirectory(prefix="fsslib-lab-") as folder, socket_folder() as sockets:
        kinds = {"transport": "ipc", "ip": f"{sockets}/socket"} if os.name == "posix" else {}
        manager = KernelManager(kernel_name="python3", **kinds)
        work = os.path.join(folder, "work")
        os.mkdir(work)
        settings = {"IPYTHONDIR": folder, "TQDM_DISABLE": "1", "FSSLIB_FIGURES": folder, "PYTHONHASHSEED": "0"}
        # Under that variable ipykernel does not pass on what other programs print.
        inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # ipykernel repeats there what it sends
        quiet["extra_arguments"] = ["--IPKernelApp.log_level=50"]
        manager.start_kernel(cwd=work, env={"OMP_NUM_THREADS": "1", **inherited, **settings}, **quiet)
        client, pid = manager.client(), manager.provisioner.pid
        try:
            client.start_channels()
            client.wait_for_ready(timeout=900)
            # Loading PyTorch may take longer on a slow machine than the cells are given.
            Kernel(manager, client, limits).ask(setup.format(memory=limits.memory, output=limits.output), 300)
            yield Kernel(manager, client, limits)
        finally:
            client.stop_channels()
            # What the cells have started and left behind ends as well; the kernel leads a group of its own.
            group = getattr(manager.provisioner, "pgid", None)
            manager.shutdown_kernel(now=True)
            if group and group == pid:
                with contextlib.suppress(OSError):
                    os.killpg(group, signal.SIGKILL)
