"""Fetching a file: resumed, verified, and told well when it cannot be had."""

import hashlib
import os
import random
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from file_server import serving

from fsslib.data import disk, download, transfer
from fsslib.data.download import fetch
from fsslib.errors import DownloadError

DATA = random.Random(1).randbytes(400_000)
SHA = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()
QUIET = {"progress": False, "timeout": 60.0}


@pytest.fixture
def server(monkeypatch):
    """A file server of this machine; waits between attempts are short."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "WAIT", 0.001)
    with serving() as files:
        yield files


def visible(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def stop_at(server, name: str, target: Path, size: int) -> None:
    """Leave a part of `size` bytes, as a kill does."""
    page = server.pages[name]
    page.cut, page.cuts = size, len(page.asked) + 1
    with pytest.raises(DownloadError, match="are kept"):
        fetch(server.url(name), target, attempts=1, **QUIET)
    assert not target.exists() and transfer.Part(target).size() == size


def test_a_cut_download_fetches_only_the_rest(server, tmp_path):
    page = server.add("x.bin", DATA, cut=150_000, cuts=2)
    assert fetch(server.url("x.bin"), tmp_path / "x.bin", sha256=SHA, size=len(DATA), **QUIET).read_bytes() == DATA
    assert page.asked == [None, "bytes=150000-", "bytes=300000-"] and page.sent == len(DATA)
    assert visible(tmp_path) == ["x.bin"]
    fetch(server.url("x.bin"), tmp_path / "x.bin", sha256=SHA.upper(), **QUIET)
    assert len(page.asked) == 3, "what is there is not fetched again"


@pytest.mark.parametrize("change", ["etag", "etag ignored", "no ranges", "no etag", "shorter"])
def test_what_cannot_be_resumed_starts_over(server, tmp_path, change):
    page = server.add("x.bin", DATA[::-1])
    stop_at(server, "x.bin", tmp_path / "x.bin", 300_000)
    page.data, page.sent = DATA, 0
    if change.startswith("etag"):
        page.etag = '"two"'
    page.any_range = change == "etag ignored"  # it sends the end of another file
    page.ranges = change != "no ranges"
    if change == "no etag":
        page.etag = None
    if change == "shorter":
        page.data = DATA[:250_000]
    fetch(server.url("x.bin"), tmp_path / "x.bin", **QUIET)
    assert (tmp_path / "x.bin").read_bytes() == page.data and visible(tmp_path) == ["x.bin"]


def test_spoilt_old_bytes_are_replaced(server, tmp_path):
    """A crash of the machine may leave zeros at the end of the part: the same address gets a second chance."""
    server.add("x.bin", DATA)
    stop_at(server, "x.bin", tmp_path / "x.bin", 300_000)
    part = transfer.Part(tmp_path / "x.bin").file
    part.write_bytes(part.read_bytes()[:-1000] + bytes(1000))
    fetch(server.url("x.bin"), tmp_path / "x.bin", md5=MD5, **QUIET)
    assert (tmp_path / "x.bin").read_bytes() == DATA


def test_wrong_bytes_never_get_the_name(server, tmp_path):
    server.add("wrong.bin", DATA[:-1] + b"!")
    server.add("long.bin", DATA + b"!")
    target = tmp_path / "x.bin"
    with pytest.raises(DownloadError) as caught:
        fetch([server.url("wrong.bin"), server.url("long.bin")], target, sha256=SHA, size=len(DATA), **QUIET)
    text, found = str(caught.value), hashlib.sha256(DATA[:-1] + b"!").hexdigest()
    assert found in text and SHA in text and "400,001" in text and str(target) in text and "by hand" in text
    assert visible(tmp_path) == []
    server.add("right.bin", DATA)
    fetch([server.url("wrong.bin"), server.url("right.bin")], target, md5=MD5, **QUIET)
    assert target.read_bytes() == DATA


def test_a_wrong_file_that_is_there_is_kept_aside(server, tmp_path):
    server.add("x.bin", DATA)
    for other in (b"mine", b"mine too"):
        (tmp_path / "x.bin").write_bytes(other)
        with pytest.warns(UserWarning, match=r"kept as x\.bin\.wrong"):
            fetch(server.url("x.bin"), tmp_path / "x.bin", sha256=SHA, **QUIET)
    assert [f.read_bytes() for f in sorted(tmp_path.iterdir())] == [DATA, b"mine", b"mine too"]


def test_hosts_that_fail(server, tmp_path):
    """The message says of every address what happened; 5xx and timeouts are tried again, 4xx is not."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{free.getsockname()[1]}/x.bin"
    busy = server.add("busy.bin", DATA, status=[500, 503, 503, 503])
    slow = server.add("slow.bin", DATA, stall=8.0, etag=None)
    server.add("page.bin", b"<!DOCTYPE html><title>Quota\n exceeded</title>" + DATA, kind="text/html; charset=utf-8")
    urls = [down, *(server.url(name) for name in ("none.bin", "busy.bin", "page.bin", "slow.bin"))]
    with pytest.raises(DownloadError) as caught:
        fetch(urls, tmp_path / "x.bin", progress=False, timeout=2.0, attempts=1)
    lines = str(caught.value).splitlines()[1:6]
    for line, url, what in zip(lines, urls, ("is down", "404", "500", '"Quota exceeded"', "nothing came for 2 s")):
        assert url in line and what in line
    assert len(busy.asked) == 1
    fetch(urls[2:], tmp_path / "x.bin", sha256=SHA, progress=False, timeout=2.0)
    # The last address is asked first, for the rest: part of it is there.
    assert len(slow.asked) == 2 and slow.asked[1].startswith("bytes=") and len(busy.asked) == 1
    fetch(urls[1:3], tmp_path / "y.bin", sha256=SHA, **QUIET)
    assert len(busy.asked) == 5, "three failures more, then the file"


def test_progress_starts_the_count_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ENOUGH", 30_000)
    page = server.add("x.bin", DATA, cut=50_000, cuts=7)
    fetch(server.url("x.bin"), tmp_path / "x.bin", attempts=2, **QUIET)
    assert len(page.asked) == 8 and page.sent == len(DATA)
    page = server.add("y.bin", DATA, cut=10_000, cuts=99)
    with pytest.raises(DownloadError, match=r"20,000 of 400,000 bytes \(2 attempts\)"):
        fetch(server.url("y.bin"), tmp_path / "y.bin", attempts=2, **QUIET)


def test_ctrl_c_keeps_what_has_arrived(server, tmp_path):
    page = server.add("x.bin", DATA, pause=0.01, step=4096)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url("x.bin"), tmp_path / "x.bin", **QUIET)
    kept, page.pause = transfer.Part(tmp_path / "x.bin").size(), 0.0
    fetch(server.url("x.bin"), tmp_path / "x.bin", sha256=SHA, **QUIET)
    assert 0 < kept < len(DATA) and page.asked == [None, f"bytes={kept}-"]


def test_places_that_cannot_take_it(server, tmp_path, monkeypatch):
    server.add("x.bin", DATA)
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="Choose a folder"):
        fetch(server.url("x.bin"), tmp_path / "file" / "x.bin", **QUIET)
    with pytest.raises(DownloadError, match="http or https"):
        fetch("file:///etc/hosts", tmp_path / "x.bin", **QUIET)
    with (
        pytest.raises(DownloadError, match=r"full while writing .*x\.bin; 1\.0 kB more"),
        disk.writing(tmp_path / "x.bin", 1000),
    ):
        raise OSError(28, "No space left on device")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=300_000))
    with pytest.raises(DownloadError, match=r"needs 400 kB more on the disk of .*, and 300 kB are free"):
        fetch(server.url("x.bin"), tmp_path / "x.bin", **QUIET)
    # The attempt left nothing but what can be gone on with.
    assert not (tmp_path / "x.bin").exists()


def test_only_one_holds_a_path(tmp_path, capfd):
    """Also when a lock file is removed by its holder while others wait for it and a new one is made."""
    at_work, most = [], []

    def work():
        for _ in range(30):
            with disk.alone(tmp_path / "x"):
                at_work.append(1)
                most.append(len(at_work))
                time.sleep(0.0005)
                at_work.pop()

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(most) == 180 and max(most) == 1 and not any(tmp_path.iterdir())
    assert "x: another process is at work on it" in capfd.readouterr().err
