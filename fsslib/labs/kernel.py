"""Cells in a fresh kernel, within limits of time, memory and output: whatever a cell does, the run ends."""

import os
import queue
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Evaluated before the first cell; binds no name that a cell could come to rely on, and loads what the checks need.
_SETUP = """(
    __import__("fsslib.labs.verdicts"),
    __import__("fsslib.labs.guard", fromlist=["guard"]).guard(get_ipython(), {memory}, {output}),
)"""


@dataclass(frozen=True)
class Limits:
    """Seconds for a cell and for all cells together, bytes of output of a cell, bytes of memory of the kernel."""

    cell: float = 180.0
    total: float = 900.0
    output: int = 5_000_000
    memory: int = 6_000_000_000


@dataclass
class Outcome:
    """What happened to one cell: `status` is "ok", "error", "slow", "loud" (too much output), "dead" (the kernel ended)
    or "skipped" (the kernel was gone, or the time of all cells over)."""

    status: str
    error: str = ""
    message: str = ""
    texts: list[str] = field(default_factory=list)


class Kernel:
    """A started kernel; made by `fresh_kernel`."""

    def __init__(self, manager: Any, client: Any, limits: Limits):
        self.manager, self.client, self.limits = manager, client, limits
        self.end = time.monotonic() + limits.total

    def run(self, source: str) -> Outcome:
        """Execute one cell and wait for its end, its limit, or the kernel's death."""
        start = time.monotonic()
        if start > self.end or not self.manager.is_alive():
            return Outcome("skipped")
        request = self.client.execute(source, allow_stdin=False, stop_on_error=False)
        return self._listen(request, min(start + self.limits.cell, self.end))

    def _listen(self, request: str, end: float) -> Outcome:
        found, size, stopping = Outcome("ok"), 0, None
        while True:
            now = time.monotonic()
            if stopping is None and (now > end or size > self.limits.output):
                found.status, stopping = ("slow" if now > end else "loud"), now
                self.manager.interrupt_kernel()
            elif stopping is not None and now > stopping + 10:  # it does not listen to an interrupt
                self.manager.shutdown_kernel(now=True)
                return found
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                if not self.manager.is_alive():
                    found.status = found.status if stopping else "dead"
                    return found
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            size += _size(content)
            if kind == "status" and content["execution_state"] == "idle":
                return self._with_reply(found, request)
            if kind == "error" and found.status == "ok":
                found.status = "loud" if content["ename"] == "TooMuchOutput" else "error"
                found.error, found.message = content["ename"], content["evalue"][:500]
            elif kind == "execute_result" and size <= self.limits.output:
                found.texts.append(content["data"].get("text/plain", "")[:2000])

    def _with_reply(self, found: Outcome, request: str) -> Outcome:
        """The reply knows of an error whose message was lost, as when there was no memory left to send it."""
        reply = self._reply(request, 5.0)
        if found.status == "ok" and reply.get("status") == "error":
            found.status = "loud" if reply.get("ename") == "TooMuchOutput" else "error"
            found.error, found.message = reply.get("ename", ""), reply.get("evalue", "")[:500]
        return found

    def _reply(self, request: str, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.manager.is_alive():
            try:
                reply = self.client.get_shell_msg(timeout=0.5)
            except queue.Empty:
                continue
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]
        return {}

    def ask(self, expression: str, seconds: float) -> str | None:
        """The repr of an expression's value in the kernel, or None if there is no answer."""
        request = self.client.execute("", silent=True, user_expressions={"asked": expression}, allow_stdin=False)
        said = self._reply(request, seconds).get("user_expressions", {}).get("asked", {})
        return said.get("data", {}).get("text/plain")


def _size(content: dict[str, Any]) -> int:
    data = content.get("data", {})
    return len(content.get("text", "")) + sum(len(v) for v in data.values() if isinstance(v, str))


@contextmanager
def fresh_kernel(limits: Limits) -> Iterator[Kernel]:
    """A new kernel in an empty folder of its own, without the user's start-up files; it ends with the block."""
    from jupyter_client import KernelManager

    with tempfile.TemporaryDirectory(prefix="fsslib-lab-") as folder:
        kinds = {"transport": "ipc", "ip": f"{folder}/socket"} if os.name == "posix" else {}
        manager = KernelManager(kernel_name="python3", **kinds)
        work = os.path.join(folder, "work")
        os.mkdir(work)
        own = {"IPYTHONDIR": folder, "TQDM_DISABLE": "1", "FSSLIB_FIGURES": folder, "PYTHONHASHSEED": "0"}
        # Under that variable ipykernel does not pass on what other programs print.
        inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        manager.start_kernel(
            stdout=subprocess.DEVNULL,  # ipykernel repeats there what it sends
            stderr=subprocess.DEVNULL,
            cwd=work,
            env={"OMP_NUM_THREADS": "1", **inherited, **own},
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=120)
            # Loading PyTorch may take longer on a busy machine than the cells are given.
            Kernel(manager, client, limits).ask(_SETUP.format(memory=limits.memory, output=limits.output), 300)
            yield Kernel(manager, client, limits)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
