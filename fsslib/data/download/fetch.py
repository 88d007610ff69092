"""Fetching one large file so that nothing is lost: resumed after a cut or a kill, verified, then put in its place."""

import contextlib
import functools
import hashlib
import html
import http.client
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ...errors import DownloadError
from ...files import located
from ...progress import bar
from .locks import alone, amount, check_room, writing

CHUNK = 2**18
# First wait before a new attempt, in seconds; each further one is twice as long, up to a minute.
WAIT = 1.0
_MEANINGS = {
    ssl.SSLCertVerificationError: "its certificate is not accepted: check this machine's clock and certificates; "
    "behind a proxy that opens connections, set SSL_CERT_FILE to its certificate",
    TimeoutError: "nothing came for {seconds:g} s",
    socket.gaierror: "its name is not known: no network, or the host has gone",
    ConnectionRefusedError: "the host is down or refuses connections",
}


class _CutError(Exception):
    """This address may do better at the next attempt."""


class _RefusedError(Exception):
    """This address will not do."""


def fetch(
    urls: str | Sequence[str], target: str | Path, *, md5: str | None = None, progress: bool = True,
    timeout: float = 30.0, attempts: int = 4, hint: str = "",
) -> Path:  # fmt: skip
    """Download a file, trying one address after the other, and return `target`.

    Bytes go to a hidden file beside the target, which gets its name only when length and checksum are right. After
    Ctrl-C, a kill or a cut connection the next attempt, in this process or a later one, asks for the rest only; if the
    checksum is wrong then, once more for everything. Only one process at a time fetches a target; another one waits
    and finds it finished. A target that is there and right is not fetched again; one with wrong content is kept as
    `NAME.wrong`, with a warning. Proxies are taken from the environment (`https_proxy`, ...).

    Args:
        urls: http or https addresses of the same file, best first.
        md5: hexadecimal checksum, None where unknown: then only the server's length is checked.
        timeout: seconds without a byte that count as a cut connection.
        attempts: how often in a row one address may fail with a cut connection, a timeout or a 5xx answer, with
            growing waits; bytes received start the count again.
        hint: how to get the file by hand, for the error message.
    Raises DownloadError naming every address with what went wrong and what to do.
    """
    target = located(target, "target", DownloadError)
    urls = [urls] if isinstance(urls, str) else list(urls)
    if not urls or any(urlsplit(url).scheme not in ("http", "https") for url in urls):
        raise DownloadError(f"{target.name}: expected http or https addresses, got {urls}.")
    part = target.with_name(f".{target.name}.part")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target), writing(target):
        if target.exists():
            problem = _problem(target, md5) if target.is_file() else "it is no file"
            if not problem:
                return target
            _set_aside(target, problem)
        failures = []
        for url in urls:
            try:
                _bring(url, part, md5, timeout, attempts, progress)
            except _RefusedError as error:
                failures.append(f"  {url}: {error}")
            else:
                os.replace(part, target)
                return target
        if _length(part):
            failures.append(f"{amount(_length(part))} have arrived and are kept: the same call goes on from there.")
    raise DownloadError(
        "\n".join([f"{target.name} could not be downloaded:", *failures])
        + "\nTry again later (behind a proxy, check the environment variable https_proxy), or by hand: "
        + (hint or "download it from one of these addresses with a browser or on another machine")
        + f", put it at {target.absolute()} and run again."
    )


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _problem(file: Path, md5: str | None) -> str:
    """What is wrong with a whole file, empty if nothing is."""
    with file.open("rb") as stream:
        actual = md5 and hashlib.file_digest(stream, functools.partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    return f"wrong md5: found {actual}, expected {md5}" if actual != (md5 and md5.lower()) else ""


def _set_aside(target: Path, problem: str) -> None:
    names = (f"{target.name}.wrong{end}" for end in ("", *(f"-{n}" for n in range(2, 1000))))
    kept = next(name for name in names if not target.with_name(name).exists())
    os.replace(target, target.with_name(kept))
    text = f"{target} is not the expected file ({problem}): it is kept as {kept} and downloaded anew."
    warnings.warn(f"{text} Delete it if you do not need it.", stacklevel=3)


def _bring(url: str, part: Path, md5: str | None, timeout: float, attempts: int, progress: bool) -> None:
    """The whole, verified file in `part`; raises _RefusedError."""
    failed, farthest, restarted = 0, _length(part), False
    while True:
        try:
            resumed = _receive(url, part, timeout, progress)
        except _CutError as cut:
            failed = failed + 1 if _length(part) <= farthest else 1
            farthest = max(farthest, _length(part))
            if failed >= attempts:
                raise _RefusedError(f"{cut} ({failed} attempts)") from cut
            time.sleep(min(WAIT * 2 ** (failed - 1), 60.0))
            continue
        problem = _problem(part, md5)
        if not problem:
            return
        part.unlink()
        if restarted or not resumed:
            raise _RefusedError(f"{problem} (its bytes were removed)")
        restarted = True


def _receive(url: str, part: Path, timeout: float, progress: bool) -> bool:
    """Ask for what is missing and append it to `part`; whether `part` also holds bytes of an earlier answer."""
    have = _length(part)
    headers = {"User-Agent": "fsslib", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with _judging(timeout):
        try:
            answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
        except urllib.error.HTTPError as error:
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
                return True  # killed after the last byte
            if error.code == 416:
                part.unlink(missing_ok=True)
            raise
    with answer:
        have = have if answer.status == 206 else 0
        served = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if have and (not served or int(served[1]) != have):
            part.unlink()
            raise _CutError("it answers with another part of the file than asked for")
        length = served[2] if have else answer.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        read = _judging(timeout)(answer.read1)
        if answer.headers.get_content_type() == "text/html":
            title = re.search(r"<title[^>]*>(.*?)</title>", read(CHUNK).decode("utf-8", "replace"), re.I | re.S)
            named = f' ("{" ".join(html.unescape(title[1]).split())[:80]}")' if title else ""
            raise _RefusedError(
                f"it sent a web page{named} instead of the file: a limit of the host, or a network that asks to log in"
            )
        left = None if total is None else total - have
        check_room(part.parent, left or 0, url.rpartition("/")[2])
        shown = bar(desc=part.stem[1:], total=total, initial=have, show=progress, unit="B", unit_scale=True)
        with writing(part, left), shown, part.open("ab" if have else "wb") as file:
            while chunk := read(CHUNK):
                file.write(chunk)
                shown.update(len(chunk))
    if total is not None and _length(part) < total:
        raise _CutError(f"the connection was cut after {_length(part):,} of {total:,} bytes")
    return have > 0


@contextlib.contextmanager
def _judging(timeout: float) -> Iterator[None]:
    """What an error of the network means for this address: _CutError or _RefusedError."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        lasting = error.code < 500 and error.code not in (408, 416, 429)
        raise (_RefusedError if lasting else _CutError)(f"it answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        meanings = [text for kind, text in _MEANINGS.items() if isinstance(cause, kind)]
        text = meanings[0].format(seconds=timeout) if meanings else f"the connection failed ({cause})"
        # A certificate and an address do not become better by themselves.
        raise (_RefusedError if isinstance(cause, ValueError) else _CutError)(text) from error
