"""The glossary and the instructors' guide: links lead somewhere, numbers are those of the notebooks."""

import re

import pytest
import torch
from lab_tools import named
from torch import Tensor

from fsslib.labs import check
from fsslib.labs.exercise import Slip, exercise, exercises
from tools import build, editions

GLOSSARY = (build.BOOKS / "GLOSSARY.md").read_text()
GUIDE = (build.BOOKS / "INSTRUCTORS.md").read_text()
TERMS = re.findall(r"^### (.+)$", GLOSSARY, re.M)


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_terms_are_sorted_and_say_where_they_come_from():
    assert sorted(TERMS, key=str.lower) == TERMS and len(TERMS) == len(set(TERMS)) >= 35
    entries = re.split(r"^### .+$", GLOSSARY, flags=re.M)[1:]
    for term, entry in zip(TERMS, entries):
        (number, book), *_ = re.findall(r"First\s+in\s+\[(\w+)\]\((\w+\.ipynb)\)", entry)
        assert (build.BOOKS / book).exists() and book.startswith(number), term


@pytest.mark.parametrize("stage", editions.STAGES)
def test_notebooks_link_to_terms(stage):
    """Each stage links some of its terms, each once, where they first matter."""
    text = "\n".join(c.source for c in build.load(build.SOURCES / f"{stage}.py").cells if c.cell_type == "markdown")
    found = re.findall(r"\]\(GLOSSARY\.md#([\w-]+)\)", text)
    assert len(found) >= 3 and len(set(found)) == len(found) and set(found) <= set(map(anchor, TERMS))


def test_minutes_of_the_guide():
    rows = dict(re.findall(r"^\| (\d\d\w?) [^|]+\| ([\d.]+ \| [\d.]+ \| [\d.]+) \|", GUIDE, re.M))
    for stage in editions.STAGES:
        time = editions.minutes(stage)
        assert rows[stage.split("_")[0]] == f"{time['reading']} | {time['running']:g} | {time['exercises']}", stage


@pytest.mark.parametrize("stage", [p.stem for p in sorted(build.SOURCES.glob("[0-9]*.py"))])
def test_headers_say_the_measured_minutes(stage):
    """The minutes in the text and in the README are those of the notebook's metadata."""
    book = build.load(build.SOURCES / f"{stage}.py")
    text = " ".join(c.source for c in book.cells[:4] if c.cell_type == "markdown").replace("\n", " ")
    (words,) = re.findall(r"about ([\w ]+) minutes? on two cores", text)
    whole = {"half a": 0.5, "one": 1, "two": 2, "three": 3}[words.removesuffix(" and a half")]
    assert whole + 0.5 * words.endswith("and a half") == book.metadata.minutes
    (row,) = re.findall(rf"^\| \[`{stage}`\].*\| ([\d.]+) \|$", (build.ROOT / "README.md").read_text(), re.M)
    assert float(row) == book.metadata.minutes


def test_the_guide_s_example_works(monkeypatch):
    """The ten lines that add an exercise are an exercise."""
    (code,) = re.findall(r"```python\n(.+?)```", GUIDE, re.S)
    space = {"torch": torch, "Tensor": Tensor, "Slip": Slip, "exercise": exercise, "STAGE": "99_guide"}
    monkeypatch.setattr("fsslib.labs.exercise._ALL", dict(exercises()))
    exec(code, space)
    assert check(named("ranks", lambda scores: scores.softmax(0))).slip == "softmax"
    assert check(named("ranks", lambda scores: (scores[:, None] > scores).sum(1)))
    assert len([line for line in code.strip().splitlines() if line.strip()]) <= 10


def test_the_guide_names_what_exists():
    commands = re.findall(r"`make (\w+)", GUIDE)
    targets = re.findall(r"^(\w+):", (build.ROOT / "Makefile").read_text(), re.M)
    assert commands and set(commands) <= set(targets)
    assert {"student.temperature"} <= set(re.findall(r"check\((student\.\w+)\)", GUIDE))
    assert "temperature" in exercises()
