"""Data sets from made-up hosts: whole or absent, however often the work was killed."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from archive_tools import holds, made, packed, visible
from file_server import serving

from fsslib.data import sources
from fsslib.data.sources import Source
from fsslib.data.voc_lists import find_sbd, find_voc
from fsslib.errors import DatasetError, DownloadError


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as files:
        yield files


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    """Runs a download in a process of its own, see killed_download.py: returns exit status and number of times."""
    log = tmp_path_factory.mktemp("log") / "log"
    script = Path(__file__).with_name("killed_download.py")
    with log.open("w") as errors:
        child = subprocess.Popen([sys.executable, script], stdin=-1, stdout=-1, stderr=errors, text=True)

    def order(root: Path, url: str, files: int, moment: str) -> list[tuple[int, str]]:
        child.stdin.write(f"{root} {url} {files} {moment}\n")
        child.stdin.flush()
        answers = [child.stdout.readline().split() for _ in range(2 if moment == "&" else 1)]
        assert all(answers), log.read_text()
        return [(int(status), times) for status, times in answers]

    order.log = log
    yield order
    child.stdin.close()
    child.stdout.close()
    child.wait()


def test_twenty_kills_at_any_moment(server, tmp_path, killer):
    """SIGKILL at evenly spread moments of a slow download and its unpacking, each going on from the one before."""
    files = made(150)
    data = packed("tar.gz", files)
    page = server.add("x.tar.gz", data, pause=0.006, step=2**12)
    order, seconds = (server.url("x.tar.gz"), len(files)), []
    for name in "abc":  # the first run also waits for the parent's imports
        start = time.monotonic()
        assert killer(tmp_path / name, *order, "-")[0][0] == 0 and holds(tmp_path / name, files)
        seconds.append(time.monotonic() - start)
    killed = number = 0
    while (killed < 20 or not any(page.asked)) and number < 100:  # and until one went on where another was killed
        root = tmp_path / str(number - killed)  # a new one for whoever comes after a finished run
        moment = min(seconds) * (7 * number % 20 + 0.5) / 20
        status = killer(root, *order, f"{moment:.4f}")[0][0]
        here = visible(root) if root.exists() else []
        assert all((root / name).read_bytes() == (data if name == "x.tar.gz" else files[name]) for name in here)
        assert not (root / "things").exists() or set(here) >= set(files), "a folder is whole or not there"
        assert status == -9 or holds(root, files)
        killed, number = killed + (status == -9), number + 1
    root = tmp_path / str(number - killed)
    assert killer(root, *order, "-")[0][0] == 0 and holds(root, files)
    assert [file.name for file in root.iterdir()] == ["things"]
    assert killed >= 20 and any(page.asked)


@pytest.mark.parametrize("merging", [False, True])
def test_killed_before_every_step(server, tmp_path, killer, merging):
    """SIGKILL before each file is opened, renamed or removed; then one more run. A folder that was there is kept."""
    files, mine = made(6), {"things/a/mine.txt": b"mine"} if merging else {}
    data = packed("zip", files)
    server.add("x.zip", data)
    order, known, status = (server.url("x.zip"), len(files)), {**files, **mine, "x.zip": data}, -9
    step = 15 if merging else 0  # the download itself is the same
    while status == -9:
        step, root = step + 1, tmp_path / str(step)
        for name in mine:
            (root / name).parent.mkdir(parents=True)
            (root / name).write_bytes(mine[name])
        status = killer(root, *order, f"@{step}")[0][0]
        here = visible(root) if root.exists() else []
        assert all((root / name).read_bytes() == known[name] for name in here)
        assert merging or not (root / "things").exists() or set(here) >= set(files)
        assert killer(root, *order, "-")[0][0] == 0 and holds(root, {**files, **mine})
        assert [file.name for file in root.iterdir()] == ["things"], "nothing hidden is left"
    assert status == 0 and step > 30


def test_the_table_is_what_the_loaders_look_for(tmp_path):
    for name, parts in {"pascal": 2, "coco": 6, "fss1000": 1}.items():
        table = sources.known_sources(name)
        assert len(table) == parts
        for source in table.values():
            assert all(url.startswith("http") for url in source.urls) and source.size < source.unpacked
    voc, sbd = sources.known_sources("pascal").values()
    assert voc.md5 == "6cd6e144f989b92b3379bac3b3de84fd" and len(voc.urls) == 2 and len(sbd.md5) == 32
    (tmp_path / voc.folders[0] / "JPEGImages").mkdir(parents=True)
    (tmp_path / sbd.folders[0] / "cls").mkdir(parents=True)
    assert find_voc(tmp_path) == tmp_path / voc.folders[0]
    assert find_sbd(find_voc(tmp_path)) == tmp_path / sbd.folders[0]
    unknown = {"did you mean 'coco'": {"name": "cocoo"}, "no part '2015'": {"name": "coco", "parts": "2015"}}
    for hint, wrong in unknown.items():
        with pytest.raises(DatasetError, match=hint):
            sources.download(root=tmp_path, **wrong)


def test_a_data_set_of_two_parts(server, tmp_path, monkeypatch):
    """What is complete is neither fetched again nor written to; one part can be had alone; archives go or stay."""
    files, table, pages = {}, {}, {}
    for year in ("2014", "2017"):
        part = {f"train{year}/{i}.jpg": bytes([i]) * 500 for i in range(9)}
        files[year], data = part, packed("zip", part)
        pages[year] = server.add(f"{year}.zip", data)
        urls = (server.url("gone.zip"), server.url(f"{year}.zip"))
        table[f"train{year}"] = Source(urls, f"{year}.zip", f"train{year}", {f"train{year}/*.jpg": 9}, size=10**4)
    root, options = tmp_path / "root", {"sources": table, "progress": False}
    assert sources.download("coco", root, parts="2014", keep_archives=True, **options) == root
    assert visible(root) == sorted([*files["2014"], "2014.zip"]) and not pages["2017"].asked
    sources.download("coco", root, **options)
    assert holds(root, {**files["2014"], **files["2017"], "2014.zip": pages["2014"].data})
    before = {entry: entry.stat().st_mtime_ns for entry in (root, *root.rglob("*"))}
    sources.download("coco", root, **options)
    assert [len(pages[year].asked) for year in pages] == [1, 1]
    assert before == {entry: entry.stat().st_mtime_ns for entry in (root, *root.rglob("*"))}
    # A file that has gone is brought back from the archive that was kept, without the network.
    (root / "train2014/3.jpg").unlink()
    sources.download("coco", root, parts=["train2014"], **options)
    assert holds(root, {**files["2014"], **files["2017"]}) and len(pages["2014"].asked) == 1
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=9_000))
    with pytest.raises(DownloadError, match=r"coco \(train2014, train2017\) needs 10\.0 kB more .* 9\.0 kB are free"):
        sources.download("coco", tmp_path / "small", **options)
    assert not (tmp_path / "small").exists()


def test_what_is_not_what_it_should_be(server, tmp_path):
    """A web page, too few files, half a copy where the download would not go: said before anything is put in place."""
    server.add("x.zip", b"<html><title>Too many users</title>", kind="text/html")
    content, hint = {"*.jpg": 3, "*.txt": 1}, "open the page in a browser"
    source = Source((server.url("x.zip"),), "x.zip", "set", content, ("set", "other"), by_hand=hint)
    with pytest.raises(DownloadError, match=rf'"Too many users"(?s:.*)by hand: {hint}, put it at .*x\.zip'):
        sources.download("made up", tmp_path, sources={"all": source}, progress=False)
    (tmp_path / "x.zip").write_bytes(packed("zip", {"set/1.jpg": b"", "set/a.txt": b""}))
    with pytest.raises(DownloadError, match=r"x\.zip holds 1 files \*\.jpg, expected 3"):
        sources.download("made up", tmp_path, sources={"all": source}, progress=False)
    assert visible(tmp_path) == ["x.zip"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.jpg").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"other holds a part .*1 of 3 \*\.jpg.*choose another root"):
        sources.download("made up", tmp_path, sources={"all": source}, progress=False)


def test_two_processes_download_once(server, tmp_path, killer):
    files = made(20)
    page = server.add("x.tar", packed("tar", files), pause=0.05)
    assert [status for status, _ in killer(tmp_path / "root", server.url("x.tar"), 20, "&")] == [0, 0]
    assert holds(tmp_path / "root", files) and len(page.asked) == 1
    assert "waiting" in killer.log.read_text()


def test_the_command_line(tmp_path, monkeypatch, capsys):
    from fsslib.data import __main__ as command

    seen = []
    monkeypatch.setattr(sources, "download", lambda *a, **k: seen.append((a, k)) or tmp_path)
    assert command.main(["download", "coco", str(tmp_path), "--parts", "val2017", "annotations2017"]) == 0
    assert seen == [(("coco", str(tmp_path)), {"parts": ["val2017", "annotations2017"], "keep_archives": False})]
    assert str(tmp_path) in capsys.readouterr().out

    def down(*_, **__):
        raise DownloadError("the host is down: do this")

    monkeypatch.setattr(sources, "download", down)
    assert command.main(["download", "pascal", str(tmp_path)]) == 1
    assert "the host is down: do this" in capsys.readouterr().err
