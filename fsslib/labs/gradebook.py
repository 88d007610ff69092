"""Points of a class as the files that Canvas and Moodle import, or as plain CSV.

Formats: Canvas, "How do I import grades in the Gradebook?" (columns Student, ID, SIS User ID, SIS Login ID, Section,
then assignments, with a row Points Possible); Moodle, "Grade import" (one column that says who, then grades).
File names of bulk downloads: Canvas `name_ID_SUBMISSION_file` with `_LATE` behind the name, Moodle
`Full name_NUMBER_assignsubmission_file/`.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..arguments import choose
from ..errors import FsslibError
from ..files import atomic, located, read_text, repository_folder
from .class_table import plain_cell
from .exercise import exercises
from .submit import SubmissionError

SYSTEMS, DOUBLES, COLUMNS = ("canvas", "moodle", "csv"), ("best", "latest", "first"), ("sum", "exercises")
# What a roster's column means -> how Canvas, Moodle and people head it.
HEADINGS = {
    "name": ("student", "full name", "name"), "first": ("first name",), "last": ("last name", "surname"),
    "id": ("id", "id number", "student id"), "sis": ("sis user id",), "login": ("sis login id", "username", "login"),
    "section": ("section",), "email": ("email address", "email"),
}  # fmt: skip
# The columns of a system before the points -> what stands in them.
HEADS = {
    "canvas": {"Student": "name", "ID": "id", "SIS User ID": "sis", "SIS Login ID": "login", "Section": "section"},
    "moodle": {"ID number": "id", "Full name": "name", "Email address": "email"},
    "csv": {"student": "name", "id": "id", "late": "late", "files": "files"},
}  # fmt: skip
CANVAS = re.compile(r"(?P<name>[^_/]+)(?P<late>_LATE)?_(?P<id>\d+)_\d+_(?P<file>[^/]+)")
_MOODLE = re.compile(r"(?P<name>[^_/]+)_\d+_assignsubmission_file(?P<late>)(?P<id>)(_[^/]*)?/")


@dataclass
class Handed:
    """One submission: points by exercise, whether it was late, its file, and when that was last changed."""

    points: dict[str, float]
    late: bool
    file: str
    moment: float

    def worth(self, late: float) -> dict[str, float]:
        """The points that count when late work keeps the share `late` of them."""
        return {name: value * (late if self.late else 1) for name, value in self.points.items()}


@dataclass
class Student:
    """What identifies somebody, and stage -> submissions."""

    facts: dict[str, str]
    handed: dict[str, list[Handed]] = field(default_factory=dict)


def points(stage: str) -> dict[str, int]:
    """Exercise -> the points it is worth: the ● of its importance in the notebook, or 1 where that is not at hand."""
    try:
        text = (repository_folder() / "notebooks" / f"{stage}.ipynb").read_text("utf-8")
    except (FsslibError, OSError):
        text = ""
    found = re.findall(r"### \d+ · `(\w+)`[^`]*?importance (●+)", text)
    return dict.fromkeys(exercises(stage), 1) | {name: len(importance) for name, importance in found}


def read_roster(file: str | Path) -> list[dict[str, str]]:
    """Students of a CSV file exported from Canvas or Moodle, or written by hand: `name` and what identifies them.
    Raises SubmissionError for a file without names."""
    path = located(file, "roster", SubmissionError)
    text = read_text(
        path, "roster", "Expected the exported gradebook, or names below a line `name,id`.", SubmissionError
    )
    rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    heads = [cell.strip().casefold() for cell in rows[0]] if rows else []
    place = {fact: heads.index(h) for fact, known in HEADINGS.items() for h in known[::-1] if h in heads}
    if "name" not in place and not {"first", "last"} <= place.keys():
        raise SubmissionError(
            f"{path}: line 1 names no column for students: Student, Full name, or First and Last name."
        )
    people = []
    for row in rows[1:]:
        facts = {fact: row[at].strip() for fact, at in place.items() if at < len(row)}
        facts.setdefault("name", f"{facts.get('first', '')} {facts.get('last', '')}".strip())
        if facts["name"] and facts["name"] != "Points Possible":
            people.append(facts)
    return people


def gradebook(
    rows: Sequence[Mapping[str, Any]], system: str, *, roster: Sequence[Mapping[str, str]] = (), columns: str = "sum",
    due: datetime | None = None, late: float = 1.0, double: str = "best",
) -> tuple[str, list[str]]:  # fmt: skip
    """The text of a file for `system`, and what needs a look: nothing that was handed in is dropped without a word.

    Args:
        rows: of `collect`. system: canvas, moodle or csv. roster: as `read_roster` gives it: then everybody in it has
            a line with all that identifies them, and who is not in it is named among the remarks.
        columns: the `sum` of a notebook, or one column for each of its `exercises`. Written answers have points of
            their own, which you give: in the sum they do not count, among the exercises their column is empty.
        due: what is handed in later counts `late` (0..1) of its points. double: which of several submissions counts.
    Raises SubmissionError: an unknown system or rule, or `late` outside 0..1.
    """
    choose(system, SYSTEMS, "gradebook=", SubmissionError)
    choose(columns, COLUMNS, "columns=", SubmissionError)
    choose(double, DOUBLES, "double=", SubmissionError)
    if not 0 <= late <= 1:
        raise SubmissionError(f"late={late!r}: expected the share of the points that late work keeps, 0 to 1.")
    students, remarks = _gather(rows, roster, due)
    stages = sorted({stage for student in students for stage in student.handed})
    worth = {stage: points(stage) for stage in stages}
    titles, most = [], []
    for stage in stages:
        checked = {name: value for name, value in worth[stage].items() if not exercises()[name].written}
        titles += [stage] if columns == "sum" else [f"{stage} {name}" for name in worth[stage]]
        most += [sum(checked.values())] if columns == "sum" else list(worth[stage].values())
    lines = [[*HEADS[system], *titles]]
    if system == "canvas":
        lines.append(["    Points Possible", "", "", "", "", *map(str, most)])
    elif system == "csv":
        lines.append(["points possible", "", "", "", *map(str, most)])
    if system == "canvas" and not roster and any(not student.facts.get("id") for student in students):
        cure = "export the gradebook there and give it as the roster"
        remarks.append(f"Canvas finds students by their ID, and some have none here: {cure}.")
    for student in students:
        cells = []
        for stage in stages:
            chosen = _chosen(student, stage, late, double, remarks)
            given = [None if chosen is None else chosen.get(name) for name in worth[stage]]
            total = sum(value or 0 for value in given)
            cells += [None if chosen is None else total] if columns == "sum" else given
        lines.append([*_who(student, system), *("" if cell is None else f"{cell:g}" for cell in cells)])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue(), remarks


def write_gradebook(text: str, file: str | Path) -> Path:
    """Write what `gradebook` made, UTF-8 with a byte order mark, which spreadsheets and both systems read."""
    with atomic(located(file, "gradebook", SubmissionError)) as part:
        part.write_bytes(codecs.BOM_UTF8 + text.encode("utf-8", "replace"))
    return located(file)


def _gather(
    rows: Sequence[Mapping[str, Any]], roster: Sequence[Mapping[str, str]], due: datetime | None
) -> tuple[list[Student], list[str]]:
    """Students with what they handed in, those of the roster first and in its order; and remarks."""
    students, remarks, known = [Student(dict(facts)) for facts in roster], [], {}
    for student in students:
        for key in _keys(student.facts):
            known.setdefault(key, student)
    of_roster = dict(known)
    for row in rows:
        if not row["result"]:
            remarks.append(f"{row['file']}: not in the gradebook: {row['note']}")
            continue
        facts, was_late = _identity(row)
        found = next((known[key] for key in _keys(facts) if key in known), None)
        folder = row["file"].rpartition("/")[0].partition("/")[0]
        found = found or next((of_roster[key] for key in _keys({"name": folder}) if key in of_roster), None)
        if found and facts["id"] and found.facts.get("id") not in ("", None, facts["id"]):
            found = None  # somebody else of that name
        if found is None:
            found = Student(facts)
            students.append(found)
            known |= dict.fromkeys(_keys(facts), found)
            if roster:
                cure = "A subfolder with the name that stands there mends it."
                remarks.append(f"{row['file']}: {facts['name']} is not in the roster. {cure}")
        moment = row.get("submitted", 0.0)
        was_late = was_late or (due is not None and moment > due.timestamp())
        stage, worth = row["result"]["stage"], points(row["result"]["stage"])
        marks = {x["name"]: x["status"] for x in row["result"]["exercises"]}
        gained = {n: float(v * (marks.get(n) == "right")) for n, v in worth.items() if not exercises()[n].written}
        found.handed.setdefault(stage, []).append(Handed(gained, was_late, row["file"], moment))
    return students, remarks


def _identity(row: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
    """Who handed a row in, and whether the name of the download says that it was late."""
    parts = re.fullmatch(CANVAS, row["file"].rsplit("/", 1)[-1]) or re.match(_MOODLE, row["file"])
    own = row["result"].get("name") or (parts["name"] if parts else row["who"])
    return {"name": str(own), "id": parts["id"] if parts else ""}, bool(parts and parts["late"])


def _keys(facts: Mapping[str, str]) -> list[str]:
    """What somebody may be found by: ids, addresses, and the name in either order and any case."""
    keys = [f"{fact} {facts[fact].casefold()}" for fact in ("id", "sis", "login", "email") if facts.get(fact)]
    name = unicodedata.normalize("NFKC", facts.get("name", "")).casefold()
    last, comma, first = name.partition(",")
    words = re.findall(r"\w+", f"{first} {last}" if comma else name)
    orders = (words, words[-1:] + words[:-1], words[1:] + words[:1])  # Canvas names files `leeanna` for Anna Lee
    return [*keys, *dict.fromkeys(f"name {''.join(order)}" for order in orders if order)]


def _chosen(student: Student, stage: str, late: float, double: str, remarks: list[str]) -> dict[str, float] | None:
    """Points by exercise of the submission that counts, None without any."""
    handed = student.handed.get(stage)
    if not handed:
        return None
    orders = {"best": lambda x: sum(x.worth(late).values()), "latest": lambda x: x.moment, "first": lambda x: -x.moment}
    counts, name = max(handed, key=orders[double]), student.facts["name"]
    if len(handed) > 1:
        remarks.append(f"{name}: {stage} was handed in {len(handed)} times; {counts.file} counts ({double}).")
    if counts.late:
        remarks.append(f"{name}: {counts.file} was late; it counts {late:.0%} of its points.")
    return counts.worth(late)


def _who(student: Student, system: str) -> list[str]:
    handed = [entry for entries in student.handed.values() for entry in entries]
    late = "late" if any(entry.late for entry in handed) else ""
    facts = student.facts | {"late": late, "files": "; ".join(entry.file for entry in handed)}
    return [plain_cell(facts.get(fact, "")) for fact in HEADS[system].values()]
