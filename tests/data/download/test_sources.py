"""Data sets from made-up hosts: whole or absent, and nothing fetched twice."""

import shutil
import threading

import pytest
from archive_tools import holds, made, packed, visible
from file_server import serving

from fsslib.data.download import locks as disk
from fsslib.data.download import sources
from fsslib.data.download.sources import Source
from fsslib.data.photographs.pascal import find_sbd, find_voc
from fsslib.errors import DatasetError, DownloadError


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as files:
        yield files


def things(server, name: str, count: int) -> Source:
    content = {"a/*.bin": count // 2, "b/*.bin": count // 2}
    return Source((server.url(name),), name, "things", content, ("things",))


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


def test_two_at_once_download_once(server, tmp_path, monkeypatch):
    """The second one comes while the first waits for the host; it gets its answer once the second waits, too."""
    page = server.add("x.tar", packed("tar", made(4)), gate=threading.Event())
    monkeypatch.setattr(disk, "print", lambda *_, **__: page.gate.set(), raising=False)
    arguments = {"sources": {"all": things(server, "x.tar", 4)}, "progress": False}
    both = [
        threading.Thread(target=sources.download, args=("made up", tmp_path / "root"), kwargs=arguments)
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert holds(tmp_path / "root", made(4)) and len(page.asked) == 1


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
