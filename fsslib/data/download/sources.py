"""Where the data sets on disk come from, and getting them: fetched, unpacked, counted, nothing twice."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...arguments import meant
from ...errors import DatasetError, DownloadError
from ...files import located
from .fetch import fetch
from .locks import alone, check_room, lock_of, writing
from .unpack import unpack

_COCO = "http://images.cocodataset.org"
_FSS_ID = "16TgqOeI_0P41Eh3jWQlxlRXG9KIqtMgI"


@dataclass(frozen=True)
class Source:
    """One archive of a data set."""

    urls: tuple[str, ...]  # addresses of the same file, best first
    file: str  # its name
    holding: str  # something in it whose neighbours go to the data set's root
    content: Mapping[str, int]  # what a whole copy holds: pattern of file names -> how many there are at least
    folders: tuple[str, ...] = ("",)  # where below root a copy counts (the first is where this archive puts it)
    size: int = 0  # about how many bytes the archive takes, for the check of the free space ...
    unpacked: int = 0  # ... and its content
    md5: str | None = None  # published checksum
    by_hand: str = ""  # how to get the archive without this library, for messages

    def lacking(self, folder: Path) -> dict[str, tuple[int, int]]:
        """Pattern -> (there, expected) for whatever is not all there in `folder`."""
        counts = {pattern: sum(1 for _ in folder.glob(pattern)) for pattern in self.content}
        return {name: (counts[name], least) for name, least in self.content.items() if counts[name] < least}


def _coco_images(part: str, count: int, size: int) -> Source:
    unpacked = size + 4096 * count // 2  # each file's last block is half empty
    return Source((f"{_COCO}/zips/{part}.zip",), f"{part}.zip", part, {f"{part}/*.jpg": count}, ("",), size, unpacked)


def _coco_annotations(year: str) -> Source:
    file = f"annotations_trainval{year}.zip"
    content = {f"annotations/instances_{part}{year}.json": 1 for part in ("train", "val")}
    return Source((f"{_COCO}/annotations/{file}",), file, "annotations", content, ("",), 253_000_000, 860_000_000)


_VOC_PATH, _VOC_FILE = "robots.ox.ac.uk/pascal/VOC/voc2012", "VOCtrainval_11-May-2012.tar"
_VOC = Source(
    (f"https://thor.{_VOC_PATH}/{_VOC_FILE}", f"http://host.{_VOC_PATH}/{_VOC_FILE}"), _VOC_FILE, "VOCdevkit",
    {"JPEGImages/*.jpg": 17_125, "SegmentationClass/*.png": 2_913}
    | {"ImageSets/Segmentation/*.txt": 3, "ImageSets/Main/train.txt": 1},
    ("VOCdevkit/VOC2012", "VOC2012", ""), 2_000_000_000, 2_050_000_000, "6cd6e144f989b92b3379bac3b3de84fd",
)  # fmt: skip
# Its lists only: the host of `train_noval.txt` has gone, and `pascal.training_ids` derives that list.
_SBD = Source(
    ("https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",),
    "benchmark.tgz", "benchmark_RELEASE", {"cls/*.mat": 11_355, "train.txt": 1, "val.txt": 1},
    ("benchmark_RELEASE/dataset", "SBD/benchmark_RELEASE/dataset", "SBD/dataset", "SBD"),
    1_420_000_000, 1_600_000_000, "82b4d87ceb2ed10f6038a1cba92111cb",
)  # fmt: skip
_FSS1000 = Source(
    (f"https://drive.usercontent.google.com/download?id={_FSS_ID}&export=download&confirm=t",),
    "fewshot_data.zip", "abacus",  # the first class
    # Numbers 1 to 10 in every class: who has the last one of all 1,000 classes has them all.
    {"*/10.jpg": 1_000, "*/10.png": 1_000}, ("",), 720_000_000, 780_000_000,
    by_hand=f"open https://drive.google.com/file/d/{_FSS_ID}/view in a browser (a limit there ends within a day)",
)  # fmt: skip
_TABLES = {
    "pascal": {"voc": _VOC, "sbd": _SBD},
    "coco": {
        "train2017": _coco_images("train2017", 118_287, 19_340_000_000),
        "val2017": _coco_images("val2017", 5_000, 816_000_000),
        "train2014": _coco_images("train2014", 82_783, 13_520_000_000),
        "val2014": _coco_images("val2014", 40_504, 6_650_000_000),
        "annotations2017": _coco_annotations("2017"),
        "annotations2014": _coco_annotations("2014"),
    },
    "fss1000": {"fss1000": _FSS1000},
}


def known_sources(name: str) -> dict[str, Source]:
    """Part -> archive, for `"pascal"` (voc, sbd), `"coco"` (train2017, val2017, annotations2017, and 2014's) or
    `"fss1000"`. Raises DatasetError for another name."""
    if name not in _TABLES:
        raise DatasetError(f"data set {name!r} cannot be downloaded: {meant(name, _TABLES, 'these can be')}")
    return dict(_TABLES[name])


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
    root, known = located(root, "root", DownloadError), known_sources(name) if sources is None else dict(sources)
    if parts is None:
        parts = ("2017",) if name == "coco" and sources is None else tuple(known)
    parts = (parts,) if isinstance(parts, str) else tuple(parts)
    for part in parts:
        if not any(part in (key, key[-4:]) for key in known):
            raise DatasetError(f"{name} has no part {part!r}: use some of {', '.join(known)}, or a year in them.")
    chosen = {key: source for key, source in known.items() if key in parts or key[-4:] in parts}
    _check_space(name, root, {key: part for key, part in chosen.items() if not _complete(part, root)}, keep_archives)
    for source in chosen.values():
        work = root / f"{source.file}.source"
        # A lock beside a whole copy: another process is about to end, or one was killed before it had tidied up.
        if _complete(source, root) and not (lock_of(work).exists() and os.access(root, os.W_OK)):
            continue
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
        with alone(work), writing(root):
            if not _complete(source, root):
                _get(source, root, progress)
            _tidy(source, root, keep_archives, lock_of(work))
    return root


def _complete(source: Source, root: Path) -> bool:
    """Whether a whole copy is there. Raises DownloadError for a partial one that a new one would not complete."""
    lacks = {root / folder: source.lacking(root / folder) for folder in source.folders}
    if not all(lacks.values()):
        return True
    for place, lack in list(lacks.items())[1:]:
        if len(lack) < len(source.content) or any(count for count, _ in lack.values()):
            missing = "; ".join(f"{count:,} of {least:,} {pattern}" for pattern, (count, least) in lack.items())
            raise DownloadError(
                f"{place} holds a part of what {source.file} has ({missing}), and the download would go to "
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
        for pattern, (count, least) in source.lacking(content / source.folders[0]).items():
            raise DownloadError(
                f"{archive} holds {count:,} files {pattern}, expected {least:,}: it is another archive than expected. "
                "Nothing was unpacked; delete it and run again, or put the right one in its place."
            )

    archive = root / source.file
    fetch(source.urls, archive, md5=source.md5, progress=progress, hint=source.by_hand)
    unpack(archive, root, holding=source.holding, check=check, progress=progress)


def _tidy(source: Source, root: Path, keep_archives: bool, lock: Path) -> None:
    """Remove the archive and what kills have left of earlier attempts."""
    if not keep_archives:
        (root / source.file).unlink(missing_ok=True)
    for entry in root.glob(f".{source.file}.*"):
        if entry != lock:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
