"""Downloads for the kill tests, each in a forked process: reads `ROOT URL FILES MOMENT` lines.

MOMENT is `-` (run to the end), `&` (two processes at once, to the end), `0.25` (SIGKILL after so many seconds) or `@17`
(SIGKILL just before the 17th time that the process opens, makes, renames or removes something). Prints a line for each
process: exit status and number of such times (`-` where it was killed). The parent has imported everything, but for
torch, which downloads do not need: two bare packages stand in for those that would import it.
"""

import os
import signal
import sys
import time
import types
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
for package in ("fsslib", "fsslib.data"):
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = [str(HOME.joinpath(*package.split(".")))]

from fsslib.data import sources  # noqa: E402
from fsslib.data.sources import Source  # noqa: E402

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def run(root: Path, url: str, files: int, moment: str, out: int) -> None:
    """Download an archive with `things/a/*.bin` and `things/b/*.bin`, to the end or to the kill."""
    content = {"a/*.bin": files // 2, "b/*.bin": files // 2}
    source, times = Source((url,), url.rpartition("/")[2], "things", content, ("things",)), 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal times
        if event in EVENTS and (str(root) in str(arguments[0]) or os.sep not in str(arguments[0])):
            times += 1
            if moment == f"@{times}":
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    sources.download("made up", root, sources={"all": source}, progress=False)
    os.write(out, str(times).encode())


def started(*order) -> tuple[int, int]:
    """Process id of a new child, and where to read the number of its times."""
    inside, outside = os.pipe()
    child = os.fork()
    if not child:
        try:
            run(*order, outside)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    os.close(outside)
    return child, inside


if __name__ == "__main__":
    assert "torch" not in sys.modules
    for line in sys.stdin:
        root, url, files, moment = line.split()
        children = [started(Path(root), url, int(files), moment) for _ in range(2 if moment == "&" else 1)]
        if moment[0].isdigit():
            time.sleep(float(moment))
            os.kill(children[0][0], signal.SIGKILL)
        for child, inside in children:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with os.fdopen(inside) as pipe:
                print(status, pipe.read() or "-", flush=True)
