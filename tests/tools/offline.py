"""No test contacts another machine: not this process, nor the kernels and programs that it starts."""

import contextlib
import os
import runpy
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SITE = Path(__file__).with_name("offline_site")
LOG = "FSSLIB_OFFLINE"


def go_offline() -> None:
    """From now on every attempt is refused and written down, here and in whatever Python is started from here."""
    if f"-{os.getpid()}-" in os.environ.get(LOG, ""):
        return
    descriptor, os.environ[LOG] = tempfile.mkstemp(prefix=f"fsslib-asked-{os.getpid()}-")
    os.close(descriptor)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(SITE)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(SITE), *paths])
    runpy.run_path(str(SITE / "sitecustomize.py"))


def asked() -> list[str]:
    """Who was asked since the last call, a line each."""
    log = Path(os.environ[LOG])
    if not log.exists() or not log.stat().st_size:
        return []
    lines = log.read_text("utf-8").splitlines()
    log.write_text("")
    return lines


@contextlib.contextmanager
def nobody_asked() -> Iterator[None]:
    """Raises AssertionError if anything inside the block asked outside, also where it went on without an answer."""
    yield
    lines = asked()
    assert not lines, f"asked outside this machine: {'; '.join(lines)}"


if __name__ == "__main__":  # python tests/tools/offline.py COMMAND ...: whether a whole program stays at home
    go_offline()
    status = os.spawnvp(os.P_WAIT, sys.argv[1], sys.argv[1:])
    print("\n".join(asked()) or "nobody was asked", file=sys.stderr)
    sys.exit(status)
