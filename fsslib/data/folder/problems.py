"""What is wrong with a folder of somebody's own pictures: one problem at a time, and all of them as a table.

At the end, what is said of masks that cannot be used as they are, and code that mends them.
"""

import html
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...episode import IGNORE
from ...errors import DatasetError
from ..base import few

PROBLEM_KINDS = (
    # Problems with one pair of files.
    "empty file", "unreadable image", "unreadable mask", "16-bit image", "16-bit or floating-point mask", "colour mask",
    "soft mask", "size mismatch", "transparent mask", "renumbered palette", "unclear 255",
    # Problems that only the whole folder shows.
    "image without mask", "mask without image", "duplicate name", "same picture twice", "broken JSON",
    "image file missing", "unknown image or category", "no polygon", "empty mask", "unknown class id",
    # What may follow from any of these: the first problem of a folder shall be a cause.
    "listed but absent", "class with too few images",
)  # fmt: skip
_NUMPY = "from PIL import Image; import numpy as np; "


@dataclass(frozen=True)
class Problem:
    """One thing to mend: the file (or folder), one of `PROBLEM_KINDS`, what was found, and what to do about it.
    Code in `cure` stands between backquotes and runs as it is, where Pillow and numpy are installed."""

    file: Path
    kind: str
    message: str
    cure: str


class Fault(DatasetError):
    """A problem that makes one pair of files useless; `problem` says which."""

    def __init__(self, file: Path, kind: str, message: str, cure: str):
        super().__init__(f"{file}: {message}. {cure}")
        self.problem = Problem(file, kind, message, cure)


@dataclass(frozen=True)
class FolderReport:
    """What `check_folder` found; `print(report)` shows the first files of each kind, a notebook shows a table."""

    root: Path  # the folder
    layout: str  # how it was read
    pairs: int  # images and masks, each name counted once
    sound: int  # how many of them can be used
    classes: dict[str, int]  # class name -> number of usable images that show it
    problems: tuple[Problem, ...]  # by kind and file

    @property
    def kinds(self) -> dict[str, int]:
        """Kind -> how many problems, in the order of `PROBLEM_KINDS`."""
        counts = Counter(problem.kind for problem in self.problems)
        return {kind: counts[kind] for kind in PROBLEM_KINDS if counts[kind]}

    def of(self, kind: str) -> list[Problem]:
        """The problems of one kind."""
        return [problem for problem in self.problems if problem.kind == kind]

    def summary(self) -> str:
        """One line: `27 of 30 pairs are usable; 3 problems: 2 size mismatch, 1 colour mask`."""
        listed = "".join(f", {count} {kind}" for kind, count in self.kinds.items())
        number = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}: " if listed else "no problems"
        return f"{self.sound} of {self.pairs} pairs are usable; {number}{listed[2:]}"

    def table(self, first: int | None = 3) -> str:
        """The report as text, with the `first` problems of each kind (None: all)."""
        lines = [f"{self.root} ({self.layout}): {self.summary()}."]
        if self.classes:
            shown = few((f"{name} {count}" for name, count in self.classes.items()), 12)
            lines.append(f"{len(self.classes)} classes (usable images): {shown}.")
        for kind, count in self.kinds.items():
            lines += ["", f"{kind} ({count})"]
            last = ""
            for problem in self.of(kind)[:first]:
                lines.append(f"  {self._short(problem.file)}: {problem.message}.")
                # The same advice once is enough.
                lines += [f"    {problem.cure}"] if problem.cure != last else []
                last = problem.cure
            if first is not None and count > first:
                lines.append(f"  … and {count - first} more")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td>{kind if at == 0 else ''}</td><td>{count if at == 0 else ''}</td>"
            + "".join(f"<td>{html.escape(t)}</td>" for t in (self._short(p.file), p.message, p.cure))
            + "</tr>"
            for kind, count in self.kinds.items()
            for at, p in enumerate(self.of(kind)[:3])
        ]
        head = f"<p>{html.escape(str(self.root))} ({self.layout}): {html.escape(self.summary())}.</p>"
        if not rows:
            return head
        titles = "".join(f"<th>{title}</th>" for title in ("kind", "count", "first files", "found", "cure"))
        return f"{head}<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def _short(self, file: Path) -> str:
        return os.path.relpath(file, self.root if self.root.is_dir() else self.root.parent)


# What is said of masks that cannot be used as they are, and code that mends them.


def _opened(file: Path) -> str:
    return f"from PIL import Image; Image.open({str(file)!r})"


def soft_fault(file: Path, values: list[int], kind: str) -> Fault:
    """A mask with soft edges: between background and object it leaves everything open."""
    new = str(file.with_suffix(".png"))
    old = f" Then remove {file.name}." if new != str(file) else ""
    if kind == "binary":
        cure = f"`{_opened(file)}.convert('L').point(lambda v: 255 * (v > {max(values) // 2})).save({new!r})` "
        cure += f"makes its edges hard.{old}"
    else:
        cure = "Export the label map again as PNG, without smoothing; resize label maps with nearest-neighbour only."
    message = f"holds {len(values)} grey values ({few(values, 6)}), as smoothed edges or JPEG compression leave them"
    return Fault(file, "soft mask", message, cure)


def void_fault(file: Path, counts: dict[int, int]) -> Fault:
    """255 is most of what is drawn; `counts` are the pixels of every value."""
    others = sum(pixels for value, pixels in counts.items() if value not in (0, IGNORE))
    message = f"holds {counts[IGNORE]} pixels of 255 and {others} of other values, so 255 may be the object or ignored"
    cure = f"If 255 is the object: `{_opened(file)}.convert('L').point(lambda v: 255 * (v > 127)).save({str(file)!r})`."
    cure += " If it marks ignored pixels, save them as 0, or as a border thinner than the object."
    return Fault(file, "unclear 255", message, cure)


def transparent_fault(file: Path) -> Fault:
    """A mask whose shape may lie in its transparency."""
    cure = f"If the object is what can be seen: `{_NUMPY}Image.fromarray(np.array(Image.open({str(file)!r})"
    cure += f".convert('RGBA'))[..., 3] > 127).save({str(file)!r})`. "
    cure += "If colours tell it apart, save without transparency."
    return Fault(file, "transparent mask", "is transparent in places, so colours or alpha may hold the shape", cure)


def colour_fault(file: Path, picture: np.ndarray, kind: str, renumbered: bool = False) -> Fault:
    """`picture` is (H, W, 3); `renumbered`: by a palette, whose indices may be no class ids."""
    packed = picture.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    colours, counts = np.unique(packed, return_counts=True)
    ranked = [int(colours[i]) for i in np.argsort(-counts, kind="stable") if colours[i]]
    ranked = [(colour >> 16, colour >> 8 & 255, colour & 255) for colour in ranked]
    load = f"a = np.array(Image.open({str(file)!r}).convert('RGB'))"
    new = str(file.with_suffix(".png"))
    if kind == "ids" and renumbered and all(r == g == b for r, g, b in ranked):
        cure = f"If the grey values are the class ids: `{_NUMPY}Image.fromarray(np.array(Image.open({str(file)!r})"
        cure += f".convert('L'))).save({new!r})`"
    elif kind == "binary":
        cure = f"If black is the background: `{_NUMPY}{load}; Image.fromarray((a != 0).any(-1)).save({new!r})`"
    else:
        table = "{" + ", ".join(f"{at}: {colour}" for at, colour in enumerate(ranked[:4], 1)) + "}"
        cure = f"Give every colour its class id (here they count from 1): `{_NUMPY}{load}; Image.fromarray(sum("
        cure += f"i * (a == c).all(-1) for i, c in {table}.items()).astype('uint8')).save({new!r})`"
    kind, why = "colour mask", "is a colour picture; its"
    if renumbered:
        kind, why = "renumbered palette", "its palette has an order of its own, as programs save few colours;"
    return Fault(file, kind, f"{why} colours besides black: {few(ranked, 4)}", cure)


def deep_fault(file: Path, values: np.ndarray, kind: str) -> Fault:
    """A mask of 16 bits or of floating point numbers."""
    low, high = (float(part(values)) for part in (np.nanmin, np.nanmax))
    new = str(file.with_suffix(".png"))
    fits = kind == "ids" and low >= 0 and high <= IGNORE
    convert = "a.round().astype('uint8')" if fits else "(a > 0)"
    cure = f"`{_NUMPY}a = np.array(Image.open({str(file)!r})); Image.fromarray({convert}).save({new!r})` makes it 8 bit"
    cure += "." if fits or kind == "binary" else " with the one class 1; several classes need ids from 1 to 254."
    message = f"holds {values.dtype} numbers from {low:g} to {high:g}, and masks have 8 bit"
    return Fault(file, "16-bit or floating-point mask", message, cure)


def size_fault(image: Path, mask: Path, upright: tuple, stored: tuple, drawn: tuple) -> Fault:
    """A mask of another size (`drawn`) than its image (`upright` as seen, `stored` as in the file)."""
    message = f"is {drawn[0]}x{drawn[1]} pixels but the image {image.name} is {upright[0]}x{upright[1]}"
    picture, label = repr(str(image)), repr(str(mask))
    if drawn == stored:
        message += "; the image's EXIF note turns it, and the mask was drawn on the unturned picture"
        cure = f"`{_NUMPY}Image.fromarray(np.array(Image.open({picture}))).save({picture})` drops the note."
    elif drawn == upright[::-1]:
        message += ": the sides are swapped"
        cure = f"`{_opened(mask)}.transpose(Image.Transpose.ROTATE_90).save({label})` "
        cure += "turns it to the left (ROTATE_270: to the right)."
    elif abs(drawn[0] * upright[1] - drawn[1] * upright[0]) <= max(drawn + upright):
        cure = f"`{_opened(mask)}.resize({upright}, Image.Resampling.NEAREST).save({label})`"
    else:
        cure = f"The shapes differ too: look for the mask that was drawn on {image.name}, or crop both alike."
    return Fault(mask, "size mismatch", message, cure)
