"""What is wrong with a folder of somebody's own pictures: one problem at a time, and all of them as a table."""

import html
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError

# Problems with one pair of files.
PAIR_KINDS = (
    "empty file",
    "unreadable image",
    "unreadable mask",
    "16-bit image",
    "16-bit or floating-point mask",
    "colour mask",
    "soft mask",
    "size mismatch",
    "transparent mask",
    "renumbered palette",
    "unclear 255",
)
# Problems that only the whole folder shows.
FOLDER_KINDS = (
    "image without mask",
    "mask without image",
    "duplicate name",
    "empty mask",
    "unknown class id",
    "class with too few images",
    "listed but absent",
    "broken JSON",
    "image file missing",
    "unknown image",
    "unknown category",
    "no polygon",
)
KINDS = PAIR_KINDS + FOLDER_KINDS


@dataclass(frozen=True)
class Problem:
    """One thing to mend: the file (or folder), one of `KINDS`, what was found, and what to do about it.

    Code in `cure` stands between backquotes and runs as it is, where Pillow and numpy are installed.
    """

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
    """What `check_folder` found.

    Attributes:
        root: the folder. layout: how it was read.
        pairs: images and masks, each name counted once. sound: how many of them can be used.
        classes: class name -> number of usable images that show it.
        problems: every problem, by kind and file.
    `print(report)` shows the first files of each kind; in a notebook the report shows itself as a table.
    """

    root: Path
    layout: str
    pairs: int
    sound: int
    classes: dict[str, int]
    problems: tuple[Problem, ...]

    @property
    def kinds(self) -> dict[str, int]:
        """Kind -> how many problems, in the order of `KINDS`."""
        counts = Counter(problem.kind for problem in self.problems)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    def of(self, kind: str) -> list[Problem]:
        """The problems of one kind."""
        return [problem for problem in self.problems if problem.kind == kind]

    def summary(self) -> str:
        """One line: `27 of 30 pairs are usable; 3 problems: 2 size mismatch, 1 colour mask`."""
        found = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        number = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}" if found else "no problems"
        return f"{self.sound} of {self.pairs} pairs are usable; {number}{': ' + found if found else ''}"

    def table(self, first: int | None = 3) -> str:
        """The report as text, with the `first` problems of each kind (None: all)."""
        lines = [f"{self.root} ({self.layout}): {self.summary()}."]
        shown = [f"{name} {count}" for name, count in list(self.classes.items())[:12]]
        more = len(self.classes) - len(shown)
        if shown:
            tail = f" and {more} more" if more else ""
            lines.append(f"{len(self.classes)} classes (usable images): {', '.join(shown)}{tail}.")
        for kind, count in self.kinds.items():
            lines += ["", f"{kind} ({count})"]
            said = ""
            for problem in self.of(kind)[:first]:
                lines.append(f"  {self._short(problem.file)}: {problem.message}.")
                # The same advice once is enough.
                lines += [f"    {problem.cure}"] if problem.cure != said else []
                said = problem.cure
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
