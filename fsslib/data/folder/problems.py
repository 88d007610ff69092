"""What is wrong with a folder of somebody's own pictures: one problem at a time, and all of them as a table."""

import html
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import DatasetError
from ..base import few

PROBLEM_KINDS = (
    # Problems with one pair of files.
    "empty file", "unreadable image", "unreadable mask", "broken label", "16-bit image",
    "16-bit or floating-point mask", "colour mask", "soft mask", "size mismatch", "transparent mask",
    "renumbered palette", "unclear 255", "several pages",
    # Problems that only the whole folder shows.
    "image without mask", "mask without image", "duplicate name", "same picture twice", "broken JSON",
    "image file missing", "unknown image or category", "no polygon", "empty mask", "unknown class id",
    # What may follow from any of these: the first problem of a folder shall be a cause.
    "listed but absent", "class with too few images",
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One thing to mend: the file (or folder), one of `PROBLEM_KINDS`, what was found, and what to do about it.
    Code in `cure` stands between backquotes and runs as it is."""

    file: Path
    kind: str
    message: str
    cure: str


class Fault(DatasetError):
    """A problem that makes one pair of files useless; `problem` says which. `values` are the colours or numbers of a
    mask that the cure, which is one for the whole folder, has to know: value -> pixels."""

    def __init__(self, file: Path, kind: str, message: str, cure: str, values: Mapping | None = None):
        super().__init__(f"{file}: {message}. {cure}")
        self.problem, self.values = Problem(file, kind, message, cure), values or {}


@dataclass(frozen=True)
class FolderReport:
    """What `check_folder` found; `print(report)` shows the first files of each kind, a notebook shows a table."""

    root: Path  # the folder
    layout: str  # how it was read
    pairs: int  # images and masks, each name counted once
    sound: int  # how many of them can be used
    classes: dict[str, int]  # class name -> number of usable images that show it
    problems: tuple[Problem, ...]  # by kind and file
    notes: tuple[str, ...] = ()  # what else was read, how, and what was not: no problems

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
        lines += [f"Note: {note}" for note in self.notes]
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
        head += "".join(f"<p>Note: {html.escape(note)}</p>" for note in self.notes)
        if not rows:
            return head
        titles = "".join(f"<th>{title}</th>" for title in ("kind", "count", "first files", "found", "cure"))
        return f"{head}<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def _short(self, file: Path) -> str:
        return os.path.relpath(file, self.root if self.root.is_dir() else self.root.parent)
