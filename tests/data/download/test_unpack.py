"""Archives: unpacked whole or not at all, and never over anything that is there."""

import io
import tarfile
import zipfile

import pytest
from archive_tools import KINDS, holds, made, packed, visible

from fsslib.data.download.unpack import unpack
from fsslib.errors import DownloadError


@pytest.mark.parametrize("kind", KINDS)
def test_unpacks(tmp_path, kind):
    files, archive = made(20), tmp_path / f"x.{kind}"
    archive.write_bytes(packed(kind, {**files, "__MACOSX/things/._000.bin": b"", "things/.DS_Store": b""}))
    target = tmp_path / "new" / "root"
    assert unpack(archive, target, holding="things", progress=False) == target
    assert holds(target, files) and [f.name for f in target.iterdir()] == ["things"]
    # Once more over its own traces and those of somebody else: nothing is lost, nothing is there twice.
    (target / "things/a/000.bin").unlink()
    (target / "things/a/mine.txt").write_bytes(b"mine")
    unpack(archive, target, holding="things", progress=False)
    assert holds(target, {**files, "things/a/mine.txt": b"mine"})
    (target / "things/a/000.bin").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"000\.bin is there already"):
        unpack(archive, target, holding="things", progress=False)
    assert (target / "things/a/000.bin").read_bytes() == b"mine" and [f.name for f in target.iterdir()] == ["things"]
    with pytest.raises(DownloadError, match="does not hold others"):
        unpack(archive, tmp_path / "empty", holding="others", progress=False)
    assert not any((tmp_path / "empty").iterdir())


BAD = [(kind, bad) for kind in KINDS for bad in ("../../evil.bin", "/evil.bin", "link")]
BROKEN = [(kind, spoil) for kind in KINDS for spoil in ("half", "end", "one byte", "web page", "empty")]
BAD.remove(("zip", "link"))  # zip files are unpacked without links
BROKEN.remove(("tar", "one byte"))  # a plain tar has checksums of its headers only


@pytest.mark.parametrize(("kind", "bad"), BAD)
def test_refuses_members_outside(tmp_path, kind, bad):
    (tmp_path / "root").mkdir()
    archive = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("a", b"a")
            file.writestr(bad, b"evil")
    else:
        with tarfile.open(archive, "w") as file:
            member = tarfile.TarInfo(bad)
            if bad == "link":
                member.type, member.linkname = tarfile.SYMTYPE, "../../.."
            file.addfile(member)
    before = visible(tmp_path)
    if bad == "/evil.bin" and kind != "zip":  # tarfile takes the leading slash away
        unpack(archive, tmp_path / "root", progress=False)
        assert visible(tmp_path) == sorted([*before, "root/evil.bin"])
    else:
        with pytest.raises(DownloadError, match="outside"):
            unpack(archive, tmp_path / "root", progress=False)
        assert visible(tmp_path) == before


@pytest.mark.parametrize(("kind", "spoil"), BROKEN)
def test_broken_archives(tmp_path, kind, spoil):
    """Also one cut exactly between two members, which looks like the end of a tar file."""
    files, archive = made(20), tmp_path / f"x.{kind}"
    data = bytearray(packed(kind, files))
    if spoil == "one byte":
        data[len(data) // 2] ^= 255
    half = len(data) // 2
    if kind == "tar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            half = tar.getmembers()[10].offset
    page = b"<html><title>Sign in</title></html>"
    data = {"half": data[:half], "end": data[:-10240], "web page": page, "empty": b""}.get(spoil, data)
    archive.write_bytes(data)
    with pytest.raises(DownloadError, match=rf"x\.{kind} is no whole archive.*delete it") as caught:
        unpack(archive, tmp_path / "root", progress=False)
    assert ("web page" in str(caught.value)) == (spoil == "web page") and not any((tmp_path / "root").iterdir())
