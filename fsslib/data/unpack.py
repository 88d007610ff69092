"""Unpacking an archive so that whatever lies under its final name is whole, however often the work was killed."""

import filecmp
import gzip
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from ..errors import DownloadError
from ..progress import bar
from .disk import alone, writing

_BROKEN = (
    *(tarfile.ReadError, tarfile.HeaderError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError),
    *(RuntimeError, ValueError, KeyError),  # unknown compression, a password, impossible offsets, lost link targets
)


def unpack(
    archive: str | Path, folder: str | Path, *, holding: str | None = None,
    check: Callable[[Path], None] | None = None, progress: bool = True,
) -> Path:  # fmt: skip
    """Unpack a zip, tar, tar.gz, tar.bz2 or tar.xz file into `folder` and return `folder`.

    Everything is first unpacked, and every checksum of the archive tested, in a hidden folder inside `folder`; then
    each file or folder is renamed into place. So a folder that was not there before appears at once and whole; one
    that was there gets whole files, and keeps all that it holds. A kill leaves the hidden folder only; the next call
    removes it and starts again. Files that are there already and equal are left alone. Members that macOS adds
    (`__MACOSX`, `._name`, `.DS_Store`) are left out.

    Args:
        holding: name of something in the archive; the content of the folder it lies in goes to `folder`. None: the
            archive's own top.
        check: is called with the unpacked content, before anything is put in place; may raise.
    Raises DownloadError for an archive that is missing, cut short, damaged, of another kind or with a member that
    would lie outside `folder`; where `folder` holds other content under a name of the archive; for a full disk.
    """
    archive, folder = Path(archive).expanduser(), Path(folder).expanduser()
    if not archive.is_file():
        raise DownloadError(f"{archive} is not there: expected an archive (zip, tar, tar.gz).")
    hidden = folder / f".{archive.name}.unpacking"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with alone(hidden), writing(folder):
        try:
            if hidden.exists():
                shutil.rmtree(hidden)
            hidden.mkdir()
            _extract(archive, hidden, progress)
            content = _content(archive, hidden, holding)
            if check is not None:
                check(content)
            _refuse_conflicts(archive, content, folder)
            _put(content, folder)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    return folder


def _extract(archive: Path, folder: Path, progress: bool) -> None:
    total, units = archive.stat().st_size, {"unit": "B", "unit_scale": True, "unit_divisor": 1000}
    read = _read_zip if archive.suffix.lower() == ".zip" else _read_tar
    try:
        with (
            archive.open("rb") as stream,
            bar(desc=f"unpacking {archive.name}", total=total, show=progress, **units) as at,
        ):
            for done in read(stream, folder):
                at.update(done - at.n)
    except tarfile.FilterError as error:
        raise DownloadError(_refusal(archive, error.tarinfo.name)) from error
    except _Outside as error:
        raise DownloadError(_refusal(archive, str(error))) from None
    except _BROKEN as error:
        with archive.open("rb") as stream:
            start = stream.read(256).lstrip().lower()
        page = start.startswith((b"<!doctype html", b"<html"))
        why = "it is a web page" if page else str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        raise DownloadError(
            f"{archive} is no whole archive ({why}): delete it and run again, or put a good copy in its place. "
            "Nothing was unpacked."
        ) from error


class _Outside(Exception):
    """A member that would lie outside the folder."""


def _refusal(archive: Path, member: str) -> str:
    return (
        f"{archive}: its member {member!r} would lie outside the folder it is unpacked into, or is no plain file. "
        "This is not the archive it should be: nothing was unpacked; delete it and download it again."
    )


def _unwanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or (parts[-1:] and (parts[-1] == ".DS_Store" or parts[-1].startswith("._")))


def _read_tar(stream, folder: Path) -> Iterator[int]:
    """Unpack members one by one; yields bytes of the archive read so far."""
    with tarfile.open(fileobj=stream, mode="r:*") as tar:
        for member in tar:
            if not _unwanted(member.name):
                tar.extract(member, folder, filter="data")
            yield stream.tell()
        # A tar cut between two members looks complete but for the empty block that ends it.
        if tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is cut short: its end is missing")
        while tar.fileobj.read(2**20):  # a compressed file has its checksum at the very end
            pass


def _read_zip(stream, folder: Path) -> Iterator[int]:
    """Unpack members one by one, testing their checksums; yields compressed bytes unpacked so far."""
    done = 0
    with zipfile.ZipFile(stream) as file:
        for member in file.infolist():
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in member.filename:
                raise _Outside(member.filename)
            if not _unwanted(member.filename):
                file.extract(member, folder)
            done += member.compress_size
            yield done


def _content(archive: Path, folder: Path, holding: str | None) -> Path:
    """The folder of the unpacked archive that holds something called `holding`, the least deep one."""
    level = [folder]
    while holding is not None and level:
        for place in level:
            if (place / holding).exists():
                return place
        level = [sub for place in level for sub in sorted(place.iterdir()) if sub.is_dir() and not sub.is_symlink()]
    if holding is None:
        return folder
    raise DownloadError(
        f"{archive} does not hold {holding}: it is another archive than expected. Nothing was unpacked; "
        "delete it and run again, or put the right one in its place."
    )


def _refuse_conflicts(archive: Path, source: Path, target: Path) -> None:
    """Raise DownloadError if a file of `source` would take the place of something else."""
    differing = list(_conflicts(source, target))
    if differing:
        raise DownloadError(
            f"{differing[0]} is there already, with other content than in {archive.name} "
            f"({len(differing)} such files): move or delete what is there, then run again. Nothing was changed."
        )


def _conflicts(source: Path, target: Path) -> Iterator[Path]:
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if not os.path.lexists(place):
            continue
        if entry.is_dir() and place.is_dir():
            yield from _conflicts(entry, place)
        elif entry.is_dir() or not place.is_file() or not filecmp.cmp(entry, place, shallow=False):
            yield place


def _put(source: Path, target: Path) -> None:
    """Rename what is not there yet; whole folders where possible."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if not os.path.lexists(place):
            os.replace(entry, place)
        elif entry.is_dir():
            _put(entry, place)
