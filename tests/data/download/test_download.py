"""Fetching a file: resumed, verified, and told well when it cannot be had."""

import errno
import hashlib
import http.client
import os
import random
import shutil
import socket
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from file_server import serving

from fsslib.data.download import fetch as download
from fsslib.data.download import locks as disk
from fsslib.data.download.fetch import fetch
from fsslib.errors import DatasetError, DownloadError

DATA = random.Random(1).randbytes(4_000)
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture(scope="module")
def files():
    with serving() as files:
        yield files


@pytest.fixture
def server(files, monkeypatch):
    """A file server of this machine; nobody waits between attempts."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "WAIT", 0.0)
    monkeypatch.setattr(download, "CHUNK", 512)
    files.pages.clear()
    return files


@pytest.fixture
def target(tmp_path):
    return tmp_path / "x.bin"


def get(server, target: Path, name: str = "x.bin", **options) -> bytes:
    return fetch(server.url(name), target, progress=False, **options).read_bytes()


def part_of(target: Path, data: bytes) -> Path:
    """A part as a kill leaves it."""
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(data)
    return part


def test_a_cut_download_fetches_only_the_rest(server, target):
    page = server.add("x.bin", DATA, cut=1_500, cuts=2)
    assert get(server, target, md5=MD5) == DATA
    assert page.asked == [None, "bytes=1500-", "bytes=3000-"] and page.sent == len(DATA)
    assert os.listdir(target.parent) == [target.name]
    get(server, target, md5=MD5.upper())
    assert len(page.asked) == 3, "what is there is not fetched again"


@pytest.mark.parametrize(
    ("had", "page", "sums", "asked"),
    [
        (DATA[:3_000], {}, {}, ["bytes=3000-"]), (DATA, {}, {}, ["bytes=4000-"]),
        (DATA[:3_000], {"ranges": False}, {}, ["bytes=3000-"]),
        (DATA[:3_000], {"shift": 100}, {}, ["bytes=3000-", None]), (DATA + b"!", {}, {}, ["bytes=4001-", None]),
        (DATA[:2_000] + bytes(1_000), {}, {"md5": MD5}, ["bytes=3000-", None]),
    ],
    ids=["rest", "whole", "no ranges", "other range", "shorter", "spoilt"],
)  # fmt: skip
def test_what_was_left_by_a_kill(server, target, had, page, sums, asked):
    """What belongs to the file is gone on with; whatever does not starts over, once."""
    log = server.add("x.bin", DATA, **page)
    part_of(target, had)
    assert get(server, target, **sums) == DATA and log.asked == asked and os.listdir(target.parent) == [target.name]


def test_wrong_bytes_never_get_the_name(server, target):
    wrong = DATA[:-1] + b"!"
    server.add("wrong.bin", wrong)
    server.add("long.bin", DATA + b"!")
    server.add("unknown.bin", DATA[1:], length=False)
    part_of(target, DATA[:9])
    with pytest.raises(DatasetError) as caught:
        fetch([server.url(name) for name in server.pages], target, md5=MD5, progress=False)
    text = str(caught.value)
    for what in (hashlib.md5(wrong).hexdigest(), MD5, str(target), "by hand", "run again"):
        assert what in text
    assert [len(page.asked) for page in server.pages.values()] == [2, 1, 1] and os.listdir(target.parent) == []
    server.add("right.bin", DATA)
    fetch([server.url("wrong.bin"), server.url("right.bin")], target, md5=MD5, progress=False)
    assert target.read_bytes() == DATA


def test_a_wrong_file_that_is_there_is_kept_aside(server, target):
    server.add("x.bin", DATA)
    for other in (b"mine", b"mine too"):
        target.write_bytes(other)
        with pytest.warns(UserWarning, match=r"kept as x\.bin\.wrong"):
            get(server, target, md5=MD5)
    assert [file.read_bytes() for file in sorted(target.parent.iterdir())] == [DATA, b"mine", b"mine too"]


def test_hosts_that_fail(server, target):
    """The message says of every address what happened; 5xx is tried again, 4xx is not."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{free.getsockname()[1]}/x.bin"
    busy = server.add("busy.bin", DATA, status=[500, 503, 503, 503])
    server.add("page.bin", b"<!DOCTYPE html><title>Quota\n exceeded</title>", kind="text/html; charset=utf-8")
    server.add("cut.bin", DATA, cut=500, cuts=1)
    urls = [down, *(server.url(name) for name in ("none.bin", "busy.bin", "page.bin", "cut.bin"))]
    with pytest.raises(DownloadError) as caught:
        fetch(urls, target, progress=False, attempts=1, hint="ask a friend")
    lines = str(caught.value).splitlines()[1:]
    for line, url, what in zip(lines, urls, ("is down", "404", "500", '"Quota exceeded"', "after 500 of 4,000 bytes")):
        assert url in line and what in line
    assert "500 bytes have arrived" in lines[5] and "by hand: ask a friend" in lines[6] and len(busy.asked) == 1
    fetch(urls[1:3], target, md5=MD5, progress=False)
    assert busy.asked == [None, *["bytes=500-"] * 4], "three failures more, then the rest"


@pytest.mark.parametrize(
    ("error", "text", "attempts"),
    [
        (TimeoutError(), "nothing came for 7 s", 3),
        (socket.gaierror(-2, "unknown"), "its name is not known", 3),
        (ConnectionResetError(errno.ECONNRESET, "reset by peer"), "the connection failed .*reset by peer", 3),
        (ssl.SSLCertVerificationError(1, "expired"), "certificate.*SSL_CERT_FILE", 1),
        (http.client.BadStatusLine("?"), "the connection failed", 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_network_errors(monkeypatch, server, target, error, text, attempts):
    """At the request and in the middle of the answer; what a new attempt may mend gets one."""
    calls = []

    def fail(*_, **__):
        calls.append(1)
        raise urllib.error.URLError(error) if len(calls) % 2 and isinstance(error, OSError) else error

    with monkeypatch.context() as at_request, pytest.raises(DownloadError, match=text):
        at_request.setattr(urllib.request, "urlopen", fail)
        get(server, target, timeout=7.0, attempts=3)
    server.add("x.bin", DATA)
    monkeypatch.setattr(http.client.HTTPResponse, "read1", fail)
    with pytest.raises(DownloadError, match=text):
        get(server, target, timeout=7.0, attempts=3)
    assert len(calls) == 2 * attempts


def test_progress_starts_the_count_again(server, target):
    page = server.add("x.bin", DATA, cut=500, cuts=7)
    get(server, target, attempts=2)
    assert len(page.asked) == 8 and page.sent == len(DATA)
    server.add("y.bin", DATA, ranges=False, cut=300, cuts=99)
    with pytest.raises(DownloadError, match=r"300 of 4,000 bytes \(2 attempts\)"):
        get(server, target.with_name("y.bin"), "y.bin", attempts=2)


def test_places_that_cannot_take_it(server, target, monkeypatch):
    server.add("x.bin", DATA)
    target.with_name("file").write_text("")
    with pytest.raises(DownloadError, match="Choose a folder"):
        get(server, target.with_name("file") / "x.bin")
    with pytest.raises(DownloadError, match="http or https"):
        fetch("file:///etc/hosts", target)
    full = r"full while writing .*x\.bin; 1\.0 kB more"
    for code, text in ((errno.ENOSPC, full), (errno.EFBIG, "as large as .*another")):
        with pytest.raises(DownloadError, match=text), disk.writing(target, 1000):
            raise OSError(code, "no")
    usage = shutil.disk_usage(target.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3_000))
    with pytest.raises(DownloadError, match=r"needs 4\.0 kB more on the disk of .*, and 3\.0 kB are free"):
        get(server, target)
    assert not target.exists()


def test_amounts():
    amounts = {0: "0 bytes", 999: "999 bytes", 99_940: "99.9 kB", 123_456: "123 kB", 2 * 10**15: "2000 TB"}
    assert {size: disk.amount(size) for size in amounts} == amounts


def test_only_one_holds_a_path(tmp_path, monkeypatch):
    """Also when a lock file is removed by its holder while others wait for it and a new one is made."""
    waiting, at_work, most = threading.Semaphore(0), [], []

    def heard(text, **_):
        assert text.startswith("x: another process is at work on it")
        waiting.release()

    monkeypatch.setattr(disk, "print", heard, raising=False)

    def work():
        for _ in range(3):
            with disk.alone(tmp_path / "x"):
                at_work.append(1)
                most.append(len(at_work))
                os.listdir(tmp_path)  # lets go of Python's own lock
                at_work.pop()

    workers = [threading.Thread(target=work) for _ in range(3)]
    with disk.alone(tmp_path / "x"):
        for worker in workers:
            worker.start()
            waiting.acquire()
    for worker in workers:
        worker.join()
    assert len(most) == 9 and max(most) == 1 and not any(tmp_path.iterdir())
