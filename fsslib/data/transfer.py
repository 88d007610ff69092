"""One request for one file: the bytes that have arrived, what is asked of the server, and what it answers."""

import hashlib
import html
import http.client
import json
import re
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from ..files import atomic
from ..progress import bar
from .disk import check_room, writing

CHUNK = 2**18
_RETRY = (408, 429)


class Again(Exception):
    """This address may do better at the next attempt, after at least `wait` seconds."""

    wait = 0.0


class Stale(Again):
    """What has arrived is no part of what the server has now: start over."""


class GiveUp(Exception):
    """This address will not do."""


class Wanted:
    """What a file has to be: checksums by name (`sha256`, `md5`) and length in bytes, None where unknown."""

    def __init__(self, sha256: str | None = None, md5: str | None = None, size: int | None = None):
        digests = {"sha256": sha256, "md5": md5}
        self.digests, self.size = {name: digest.lower() for name, digest in digests.items() if digest}, size

    def started(self, file: Path) -> dict:
        """Running digests that have been fed what `file` holds, nothing if it is not there."""
        running = {name: hashlib.new(name, usedforsecurity=False) for name in self.digests}
        if running and file.is_file():
            with file.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    feed(running, chunk)
        return running

    def problem(self, file: Path, running: dict | None = None) -> str:
        """What is wrong with a whole file (of which `running` has been fed everything), empty if nothing is."""
        found = file.stat().st_size
        if self.size is not None and found != self.size:
            return f"wrong length: found {found:,} bytes, expected {self.size:,}"
        for name, digest in (self.started(file) if running is None else running).items():
            if digest.hexdigest() != self.digests[name]:
                return f"wrong {name} checksum: found {digest.hexdigest()}, expected {self.digests[name]}"
        return ""


def feed(running: dict, chunk: bytes) -> None:
    """Feed every running digest."""
    for digest in running.values():
        digest.update(chunk)


class Part:
    """The bytes that have arrived, in a hidden file beside the target, and a note of where they came from."""

    def __init__(self, target: Path):
        self.file = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")

    def size(self) -> int:
        """Bytes there."""
        return self.file.stat().st_size if self.file.is_file() else 0

    def note(self) -> dict:
        """`url`, `validator` and `total` of the answer that the bytes belong to; empty where that is unknown."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def begin(self, **note) -> None:
        """Remove the old bytes, then note where new ones will come from: a kill leaves no note beside other bytes."""
        with writing(self.file):
            self.remove()
            with atomic(self._note) as temporary:
                temporary.write_text(json.dumps(note), encoding="utf-8")

    def remove(self) -> None:
        """Remove the bytes, the note, and what a kill has left of a note."""
        self.file.unlink(missing_ok=True)
        for file in self.file.parent.iterdir():
            if file.name.startswith(self._note.name):
                file.unlink(missing_ok=True)


def receive(url: str, part: Part, wanted: Wanted, timeout: float, progress: bool) -> dict:
    """Ask for what is missing and append it to `part`; return the digests of the whole file.

    Raises Again (cut, timeout, 5xx), Stale (start over), GiveUp (any other answer), DownloadError (this side's disk).
    """
    have, note = part.size(), part.note()
    if have and have == note.get("total"):  # killed after the last byte
        return wanted.started(part.file)
    headers = {"User-Agent": "fsslib", "Accept-Encoding": "identity"}
    validator = note.get("validator") if note.get("url") == url else None
    # Without a validator only the checksum can tell whether old and new bytes belong together.
    if have and (validator or wanted.digests):
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _judged(error, timeout, "Range" in headers) from error
    with answer:
        total = _total(answer, have if "Range" in headers else 0)
        if answer.status != 206 or "Range" not in headers:
            have = 0
        elif (note.get("total") or total) != total or (validator and (_validator(answer) or validator) != validator):
            raise Stale("its file has changed")
        if wanted.size is not None and total not in (None, wanted.size):
            raise GiveUp(f"wrong length: its file has {total:,} bytes, expected {wanted.size:,}")
        chunk = _read(answer, timeout)
        if have == 0:
            _refuse_page(answer, chunk, part.file)
            part.begin(url=url, validator=_validator(answer), total=total)
        running = wanted.started(part.file)
        if total is not None:
            check_room(part.file.parent, total - have, url.rpartition("/")[2])
        name = part.file.name[1 : -len(".part")]
        size = {"unit": "B", "unit_scale": True, "unit_divisor": 1000}
        left = None if total is None else total - have
        shown = bar(desc=name, total=total, initial=have, show=progress, **size)
        with writing(part.file, left), shown, part.file.open("ab") as file:
            while chunk:
                file.write(chunk)
                feed(running, chunk)
                shown.update(len(chunk))
                chunk = _read(answer, timeout)
    found = part.size()
    if total is not None and found < total:
        raise Again(f"the connection was cut after {found:,} of {total:,} bytes")
    return running


def _read(answer, timeout: float) -> bytes:
    """Whatever has arrived, empty at the end."""
    try:
        return answer.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _judged(error, timeout, False) from error


def _total(answer, asked: int) -> int | None:
    """Length of the whole file as the server tells it, None if it does not."""
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
        if not match or int(match[1]) != asked:
            raise Stale("it answers with another part of the file than asked for")
        return None if match[2] == "*" else int(match[2])
    return int(length) if (length := answer.headers.get("Content-Length", "")).isdigit() else None


def _validator(answer) -> str | None:
    """What identifies this version of the file; a weak ETag does not promise equal bytes."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _refuse_page(answer, start: bytes, file: Path) -> None:
    """A login page, a quota page or a network's welcome page comes with status 200 instead of the file."""
    page = answer.headers.get_content_type() == "text/html" or re.match(rb"\s*<(!doctype html|html)", start, re.I)
    if page and not file.name.endswith((".html.part", ".htm.part")):
        title = re.search(r"<title[^>]*>(.*?)</title>", start.decode("utf-8", "replace"), re.I | re.S)
        named = f' ("{" ".join(html.unescape(title[1]).split())[:80]}")' if title else ""
        raise GiveUp(
            f"it sent a web page{named} instead of the file (a limit of the host, or a network that asks to log in)"
        )


def _judged(error: Exception, timeout: float, resuming: bool) -> Again | GiveUp:
    """What an error of the network means for this address."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        text = f"it answered {error.code} {error.reason}"
        if error.code == 416 and resuming:
            return Stale("its file is shorter than what has arrived")
        if error.code < 500 and error.code not in _RETRY:
            return GiveUp(text)
        again = Again(text)
        after = error.headers.get("Retry-After", "") if error.headers else ""
        again.wait = min(float(after), 60.0) if after.isdigit() else 0.0
        return again
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return GiveUp(
            f"its certificate is not accepted ({cause.verify_message}): check this machine's clock and certificates; "
            "behind a proxy that opens connections, set SSL_CERT_FILE to its certificate"
        )
    if isinstance(cause, TimeoutError):
        return Again(f"nothing came for {timeout:g} s")
    if isinstance(cause, socket.gaierror):
        return Again("its name is not known: no network, or the host has gone")
    if isinstance(cause, ConnectionRefusedError):
        return Again("the host is down or refuses connections")
    if isinstance(cause, (OSError, http.client.HTTPException)):
        return Again(f"the connection failed ({getattr(cause, 'strerror', None) or cause or type(cause).__name__})")
    return GiveUp(f"the request is not possible ({cause})")
