"""Fetching one large file so that nothing is lost: resumed after a cut or a kill, verified, then put in its place."""

import contextlib
import os
import time
import urllib.request
import warnings
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import DownloadError
from .disk import alone, amount, lock_of, writing
from .transfer import Again, GiveUp, Part, Stale, Wanted, receive

# First wait before a new attempt, in seconds; each further one is twice as long, up to a minute.
WAIT = 1.0
# An attempt that brought this many bytes was not in vain: the count starts again.
ENOUGH = 2**20


def fetch(
    urls: str | Sequence[str], target: str | Path, *, sha256: str | None = None, md5: str | None = None,
    size: int | None = None, progress: bool = True, timeout: float = 30.0, attempts: int = 4, hint: str = "",
) -> Path:  # fmt: skip
    """Download a file, trying one address after the other, and return `target`.

    Bytes go to a hidden file beside the target, which gets its name only when length and checksum are right. After
    Ctrl-C, a kill or a cut connection the next attempt, in this process or a later one, asks for the rest only; a
    server that cannot do that or whose file has changed is asked for all of it. Only one process at a time fetches a
    target; another one waits and finds it finished. A target that is there and right is not fetched again; one with
    wrong content is kept as `NAME.wrong`, with a warning. Proxies are taken from the environment (`https_proxy`, ...).

    Args:
        urls: http or https addresses of the same file, best first.
        sha256, md5: hexadecimal checksums; size: bytes. None where unknown: then only the server's length is checked.
        timeout: seconds without a byte that count as a cut connection.
        attempts: how often in a row one address may fail with a cut connection, a timeout or a 5xx answer, with
            growing waits; a megabyte received starts the count again.
        hint: how to get the file by hand, for the error message.
    Raises DownloadError naming every address with what went wrong and what to do.
    """
    target = Path(target).expanduser()
    urls = [urls] if isinstance(urls, str) else list(urls)
    if not urls or any(urlsplit(url).scheme not in ("http", "https") for url in urls):
        raise DownloadError(f"{target.name}: expected http or https addresses, got {urls}.")
    wanted, part = Wanted(sha256, md5, size), Part(target)
    with writing(target):
        if target.is_file() and not wanted.problem(target):
            with contextlib.suppress(DownloadError):  # no lock and no writing where nothing is to be done
                if lock_of(target).exists():
                    with alone(target):
                        part.remove()
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target):
        if target.exists():
            problem = wanted.problem(target) if target.is_file() else "it is no file"
            if not problem:
                part.remove()
                return target
            _set_aside(target, problem)
        failures = {}
        source = part.note().get("url")
        for url in sorted(urls, key=lambda url: url != source):  # go on where a part is from
            try:
                _bring(url, part, wanted, timeout, attempts, progress)
            except GiveUp as error:
                failures[url] = str(error)
                continue
            with writing(target):
                with part.file.open("rb+") as file:
                    os.fsync(file.fileno())
                os.replace(part.file, target)
                part.remove()
            return target
        raise DownloadError(_report(target, failures, part.size(), hint))


def _set_aside(target: Path, problem: str) -> None:
    names = (target.with_name(f"{target.name}.wrong{end}") for end in ("", *(f"-{n}" for n in range(2, 1000))))
    kept = next(name for name in names if not name.exists())
    with writing(target):
        os.replace(target, kept)
    warnings.warn(
        f"{target} is not the expected file ({problem}): it is kept as {kept.name} and downloaded anew. "
        "Delete it if you do not need it.",
        stacklevel=3,
    )


def _report(target: Path, failures: dict[str, str], kept: int, hint: str) -> str:
    lines = [f"{target.name} could not be downloaded:", *(f"  {url}: {why}" for url, why in failures.items())]
    if kept:
        lines.append(f"{amount(kept)} have arrived and are kept: the same call goes on from there.")
    by_hand = hint or "download it from one of these addresses with a browser or on another machine"
    lines.append(f"Try again later, or by hand: {by_hand}, put it at {target.absolute()} and run again.")
    used = {urlsplit(url).scheme for url in failures} & urllib.request.getproxies().keys()
    if used:
        names = ", ".join(f"{name}_proxy" for name in sorted(used))
        lines.append(f"The environment's proxy settings were used ({names}): check them if other hosts fail too.")
    return "\n".join(lines)


def _bring(url: str, part: Part, wanted: Wanted, timeout: float, attempts: int, progress: bool) -> None:
    """The whole, verified file in `part`; raises GiveUp."""
    inherited, failed, farthest = part.size() > 0, 0, part.size()
    while True:
        try:
            problem = wanted.problem(part.file, receive(url, part, wanted, timeout, progress))
            if not problem:
                return
            part.remove()
            if not inherited:
                raise GiveUp(f"{problem} (its bytes were removed)")
            # The bytes from an earlier run may be to blame, not this server.
            inherited = False
            continue
        except Stale:
            part.remove()
            wait, inherited = 0.0, False
            error = "its answers contradict each other"
        except Again as cut:
            if part.size() >= farthest + ENOUGH:
                failed, farthest = 0, part.size()
            wait = max(min(WAIT * 2**failed, 60.0), cut.wait)
            error = str(cut)
        failed += 1
        if failed >= attempts:
            raise GiveUp(f"{error} ({failed} attempts)")
        time.sleep(wait)
