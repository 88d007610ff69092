"""Where the data sets on disk come from, and getting them: fetched, unpacked, counted, nothing twice."""

import difflib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError, DownloadError
from .disk import alone, check_room, lock_of, writing
from .download import fetch
from .unpack import unpack

_COCO = "http://images.cocodataset.org"
_FSS = "16TgqOeI_0P41Eh3jWQlxlRXG9KIqtMgI"


@dataclass(frozen=True)
class Source:
    """One archive of a data set.

    Attributes:
        urls: addresses of the same file, best first. file: its name. holding: something in it whose neighbours go to
            the data set's root. md5, sha256: published checksums, None where there are none.
        content: what a whole copy holds: pattern of file names -> how many there are at least.
        folders: where below root a copy counts (the first is where this archive puts it).
        size, unpacked: about how many bytes the archive and its content take, for the check of the free space.
        by_hand: how to get the archive without this library, for messages.
    """

    urls: tuple[str, ...]
    file: str
    holding: str
    content: Mapping[str, int]
    folders: tuple[str, ...] = ("",)
    size: int = 0
    unpacked: int = 0
    md5: str | None = None
    sha256: str | None = None
    by_hand: str = ""

    def lacking(self, folder: Path) -> dict[str, tuple[int, int]]:
        """Pattern -> (found, expected) for whatever is not all there in one of `folders`."""
        found = {pattern: sum(1 for _ in folder.glob(pattern)) for pattern in self.content}
        return {pattern: (found[pattern], least) for pattern, least in self.content.items() if found[pattern] < least}

    def copies(self, root: Path) -> dict[Path, dict[str, tuple[int, int]]]:
        """Every place below root with something of this data set -> what is lacking there, nothing if it is whole."""
        lacks = {root / folder: self.lacking(root / folder) for folder in self.folders}
        whole = {place: lack for place, lack in lacks.items() if len(lack) < len(self.content)}
        return whole | {place: lack for place, lack in lacks.items() if any(found for found, _ in lack.values())}


def _pascal() -> dict[str, Source]:
    from torchvision.datasets.sbd import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    voc = DATASET_YEAR_DICT["2012"]
    mirror = f"http://host.robots.ox.ac.uk/pascal/VOC/voc2012/{voc['filename']}"
    return {
        "voc": Source(
            urls=tuple(dict.fromkeys((voc["url"], mirror))),
            file=voc["filename"],
            md5=voc["md5"],
            holding="VOCdevkit",
            folders=("VOCdevkit/VOC2012", "VOC2012", ""),
            content={
                "JPEGImages/*.jpg": 17_125,
                "SegmentationClass/*.png": 2_913,
                "ImageSets/Segmentation/*.txt": 3,
                "ImageSets/Main/train.txt": 1,
            },
            size=2_000_000_000,
            unpacked=2_050_000_000,
        ),
        # Its lists only: the host of `train_noval.txt` has gone, and voc_lists derives that list.
        "sbd": Source(
            urls=(SBDataset.url,),
            file=SBDataset.filename,
            md5=SBDataset.md5,
            holding="benchmark_RELEASE",
            folders=("benchmark_RELEASE/dataset", "SBD/benchmark_RELEASE/dataset", "SBD/dataset", "SBD"),
            content={"cls/*.mat": 11_355, "train.txt": 1, "val.txt": 1},
            size=1_420_000_000,
            unpacked=1_600_000_000,
        ),
    }


def _coco() -> dict[str, Source]:
    images = {
        "train2017": (118_287, 19_340_000_000),
        "val2017": (5_000, 816_000_000),
        "train2014": (82_783, 13_520_000_000),
        "val2014": (40_504, 6_650_000_000),
    }
    table = {}
    for part, (count, size) in images.items():
        table[part] = Source(
            urls=(f"{_COCO}/zips/{part}.zip",),
            file=f"{part}.zip",
            holding=part,
            content={f"{part}/*.jpg": count},
            size=size,
            unpacked=size + 4096 * count // 2,  # each file's last block is half empty
        )
    for year in ("2017", "2014"):
        file = f"annotations_trainval{year}.zip"
        content = {f"annotations/instances_{part}{year}.json": 1 for part in ("train", "val")}
        url = f"{_COCO}/annotations/{file}"
        table[f"annotations{year}"] = Source(
            (url,), file, "annotations", content, size=253_000_000, unpacked=860_000_000
        )
    return table


def _fss1000() -> dict[str, Source]:
    return {
        "fss1000": Source(
            urls=(f"https://drive.usercontent.google.com/download?id={_FSS}&export=download&confirm=t",),
            file="fewshot_data.zip",
            holding="abacus",  # the first class
            # Numbers 1 to 10 in every class: who has the last one of all 1,000 classes has them all.
            content={"*/10.jpg": 1_000, "*/10.png": 1_000},
            size=720_000_000,
            unpacked=780_000_000,
            by_hand=f"open https://drive.google.com/file/d/{_FSS}/view in a browser (a limit there ends within a day)",
        )
    }


_TABLES: dict[str, Callable[[], dict[str, Source]]] = {"pascal": _pascal, "coco": _coco, "fss1000": _fss1000}
_DEFAULTS = {"coco": ("2017",)}


def known_sources(name: str) -> dict[str, Source]:
    """Part -> archive, for `"pascal"` (voc, sbd), `"coco"` (train2017, val2017, annotations2017, and 2014's) or
    `"fss1000"`. Raises DatasetError for another name."""
    if name not in _TABLES:
        near = difflib.get_close_matches(str(name), _TABLES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"these can be: {', '.join(_TABLES)}."
        raise DatasetError(f"data set {name!r} cannot be downloaded: {hint}")
    return _TABLES[name]()


def download(
    name: str, root: str | Path, *, parts: Sequence[str] | str | None = None, keep_archives: bool = False,
    progress: bool = True, sources: Mapping[str, Source] | None = None,
) -> Path:  # fmt: skip
    """Get a data set into `root`, in the layout that `load_dataset(name, root=root)` reads, and return `root`.

    What is complete there is not fetched again; what a cut, Ctrl-C or a kill has left is gone on with by the same
    call. Archives go to `root` (one that you put there yourself is used) and are deleted once they are unpacked,
    unless `keep_archives` is set. Only one process at a time works on an archive; others wait.

    Args:
        name: `"pascal"` (VOC 2012, 2 GB, and SBD, 1.4 GB; both twice that while unpacking), `"coco"` (20 GB for 2017,
            20 GB for 2014) or `"fss1000"` (0.7 GB).
        parts: names of parts (see `known_sources`) or years; None is all of pascal and fss1000, and 2017 of coco.
        sources: another table of parts, e.g. with addresses of a mirror of your own.
    Raises DatasetError for an unknown name or part; DownloadError for whatever goes wrong on the way.
    """
    root, known = Path(root).expanduser(), known_sources(name) if sources is None else dict(sources)
    chosen = {part: known[part] for part in _chosen(name, known, parts, sources is None)}
    _check_space(name, root, {p: source for p, source in chosen.items() if not _complete(source, root)}, keep_archives)
    for source in chosen.values():
        work = root / f"{source.file}.source"
        # A lock beside a whole copy: another process is about to end, or one was killed before it had tidied up.
        if _complete(source, root) and not (lock_of(work).exists() and os.access(root, os.W_OK)):
            continue
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
        with alone(work):
            if not _complete(source, root):
                _get(source, root, progress)
            _tidy(source, root, keep_archives, lock_of(work))
    return root


def _chosen(name: str, known: Mapping[str, Source], parts: Sequence[str] | str | None, ours: bool) -> list[str]:
    if parts is None:
        parts = _DEFAULTS.get(name) if ours else None
    wanted = tuple(known) if parts is None else (parts,) if isinstance(parts, str) else tuple(parts)
    for part in wanted:
        if not any(part in (key, key[-4:]) for key in known):
            raise DatasetError(
                f"{name} has no part {part!r}: use some of {', '.join(known)}, or a year in their names."
            )
    return [key for key in known if key in wanted or key[-4:] in wanted]


def _complete(source: Source, root: Path) -> bool:
    """Whether a whole copy is there. Raises DownloadError for a partial one that a new one would not complete."""
    copies = source.copies(root)
    if not all(copies.values()):
        return True
    elsewhere = [place for place in copies if place != root / source.folders[0]]
    if elsewhere:
        lack = "; ".join(f"{found:,} of {least:,} {what}" for what, (found, least) in copies[elsewhere[0]].items())
        raise DownloadError(
            f"{elsewhere[0]} holds a part of what {source.file} has ({lack}), and the download would go to "
            f"{root / source.folders[0]}: choose another root, or move that folder away."
        )
    return False


def _check_space(name: str, root: Path, todo: Mapping[str, Source], keep_archives: bool) -> None:
    """Archives are unpacked one after the other: at the worst moment one of them lies beside all that is unpacked."""
    needed = worst = 0
    for source in todo.values():
        there = sum(f.stat().st_size for f in (root / source.file, root / f".{source.file}.part") if f.is_file())
        archive = max(source.size - there, 0)
        worst = max(worst, needed + archive + source.unpacked)
        needed += source.unpacked + (archive if keep_archives else 0)
    check_room(root, worst, f"{name} ({', '.join(todo)})")


def _get(source: Source, root: Path, progress: bool) -> None:
    def check(content: Path) -> None:
        for pattern, (found, least) in source.lacking(content / source.folders[0]).items():
            raise DownloadError(
                f"{archive} holds {found:,} files {pattern}, expected {least:,}: it is another archive than expected. "
                "Nothing was unpacked; delete it and run again, or put the right one in its place."
            )

    archive = root / source.file
    sums = {"md5": source.md5, "sha256": source.sha256}
    fetch(source.urls, archive, **sums, progress=progress, hint=source.by_hand)
    unpack(archive, root, holding=source.holding, check=check, progress=progress)


def _tidy(source: Source, root: Path, keep_archives: bool, lock: Path) -> None:
    """Remove the archive and what kills have left of earlier attempts."""
    with writing(root):
        if not keep_archives:
            (root / source.file).unlink(missing_ok=True)
        for entry in root.iterdir():
            if entry.name.startswith(f".{source.file}.") and entry != lock:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
