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
from typing import BinaryIO

from ...errors import DownloadError
from ...files import located
from ...progress import bar
from .locks import alone, writing

_BROKEN = (
    *(tarfile.ReadError, tarfile.HeaderError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError),
    *(RuntimeError, ValueError, KeyError),  # unknown compression, a password, impossible offsets, lost link targets
)
_ANOTHER = "Nothing was unpacked: delete it and run again, or put a good copy in its place."


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
    archive, folder = located(archive, "archive", DownloadError), located(folder, "folder", DownloadError)
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
            content = hidden
            if holding is not None:
                places = sorted(hidden.rglob(holding), key=lambda place: (len(place.parts), place))
                if not places:
                    raise DownloadError(f"{archive} does not hold {holding}. {_ANOTHER}")
                content = places[0].parent
            if check is not None:
                check(content)
            for entry, place in list(_moves(archive, content, folder)):
                os.replace(entry, place)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    return folder


def _extract(archive: Path, folder: Path, progress: bool) -> None:
    size, read = archive.stat().st_size, _read_zip if archive.suffix.lower() == ".zip" else _read_tar
    shown = bar(desc=f"unpacking {archive.name}", total=size, show=progress, unit="B", unit_scale=True)
    try:
        with archive.open("rb") as stream, shown:
            for done in read(stream, folder):
                shown.update(done - shown.n)
    except tarfile.FilterError as error:
        raise DownloadError(
            f"{archive}: its member {error.tarinfo.name!r} would lie outside the folder it is unpacked into, or is no "
            f"plain file. {_ANOTHER}"
        ) from error
    except _BROKEN as error:
        with archive.open("rb") as stream:
            page = stream.read(256).lstrip().lower().startswith((b"<!doctype html", b"<html"))
        why = "it is a web page" if page else str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        raise DownloadError(f"{archive} is no whole archive ({why}). {_ANOTHER}") from error


def _unwanted(path: PurePosixPath) -> bool:
    return "__MACOSX" in path.parts or path.name == ".DS_Store" or path.name.startswith("._")


def _read_tar(stream: BinaryIO, folder: Path) -> Iterator[int]:
    """Unpack members one by one; yields bytes of the archive read so far."""
    with tarfile.open(fileobj=stream, mode="r:*") as tar:
        for member in tar:
            if not _unwanted(PurePosixPath(member.name)):
                tar.extract(member, folder, filter="data")
            yield stream.tell()
        # A tar cut between two members looks complete but for the empty block that ends it.
        if tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is cut short: its end is missing")
        while tar.fileobj.read(2**20):  # a compressed file has its checksum at the very end
            pass


def _read_zip(stream: BinaryIO, folder: Path) -> Iterator[int]:
    """Unpack members one by one, testing their checksums; yields compressed bytes unpacked so far."""
    done = 0
    with zipfile.ZipFile(stream) as file:
        for member in file.infolist():
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in member.filename:
                raise tarfile.OutsideDestinationError(tarfile.TarInfo(member.filename), str(folder))
            if not _unwanted(path):
                file.extract(member, folder)
            done += member.compress_size
            yield done


def _moves(archive: Path, source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """From where to where, whole folders where possible; raises DownloadError for another thing under that name."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if not os.path.lexists(place):
            yield entry, place
        elif entry.is_dir() and place.is_dir():
            yield from _moves(archive, entry, place)
        elif entry.is_dir() or not place.is_file() or not filecmp.cmp(entry, place, shallow=False):
            raise DownloadError(
                f"{place} is there already, with other content than in {archive.name}: move or delete what is there, "
                "then run again. Nothing was changed."
            )
