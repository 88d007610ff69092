"""What a reader of the stored notebooks can see: pictures wide enough, titles apart, values instead of True and False.

`show` measures a figure where it is drawn and keeps the numbers beside its alt text; here they are read.
"""

import re

import nbformat
import pytest

from tools import build

pytest.importorskip("matplotlib").use("agg")

from fsslib.plots import live  # noqa: E402

SOURCES = sorted(build.SOURCES.glob("*.py"))
LEAST = 160  # CSS pixels of a picture on a page of 1,000
CELLS = 60  # the first, which finds fsslib, among them
BOOLEANS = 40  # in all notebooks together


def stored(source):
    """The stored notebook; skipped while it is out of date, which test_notebooks reports."""
    if build.stale(source):
        pytest.skip("out of date: run `make notebooks`")
    return nbformat.read(build.BOOKS / f"{source.stem}.ipynb", 4)


def booleans(book):
    """How often True or False stands in what the cells print and show, pictures' words aside."""
    count = 0
    for output in (o for c in book.cells for o in c.get("outputs", [])):
        data = output.get("data", {})
        if not any(mime.startswith("image/") for mime in data):
            text = output.get("text") or data.get("text/html") or data.get("text/plain") or ""
            count += len(re.findall(r"\b(?:True|False)\b", text))
    return count


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_figures_can_be_seen(source):
    pictures = [
        (i, about)
        for i, cell in enumerate(stored(source).cells)
        for output in cell.get("outputs", [])
        for mime, about in output.get("metadata", {}).items()
        if mime.startswith("image/")
    ]
    assert all("panel" in about and "colliding" in about for _, about in pictures), "not drawn by `show` or a widget"
    poor = [
        f"cell {i}: picture of {about['panel']} px, {about['colliding']}"
        for i, about in pictures
        if (about["panel"] or LEAST) < LEAST or about["colliding"]
    ]
    assert not poor, "\n".join(poor)


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_notebooks_are_short(source):
    assert len(stored(source).cells) <= CELLS


def test_few_booleans_in_the_whole_suite():
    assert sum(booleans(stored(s)) for s in SOURCES) < BOOLEANS, "print values; move checks into assertions"


def test_booleans_are_counted_where_a_reader_sees_them():
    new = nbformat.v4
    said = new.new_output("stream", text="same: True\nTrueness\n")
    shown = new.new_output("display_data", {"text/html": "<td>False</td>", "text/plain": "a table"})
    figure = new.new_output("display_data", {"image/png": "", "text/plain": "True"})
    assert booleans(new.new_notebook(cells=[new.new_code_cell(outputs=[said, shown, figure])])) == 2


def test_a_curve_grows_while_a_model_trains(monkeypatch):
    """A picture at the start, at every `every` steps and at the end, in one place."""
    shown = []

    class Place:
        def update(self, data, **how):
            shown.append(data["text/plain"])

    def display(data, **how):
        shown.append(data["text/plain"])
        assert data["image/png"][:4] == b"\x89PNG" and how["metadata"]["image/png"]["alt"]
        return Place()

    monkeypatch.setattr("IPython.display.display", display)
    scores = iter((10, 20, 35, 36))
    watch = live.Watch(lambda model: next(scores), every=2, steps=5, label="score")
    watch.start(None)
    for step in range(5):
        watch(step, None)
    assert watch.points == {0: 10, 2: 20, 4: 35, 5: 36} and len(shown) == 4
    assert shown[-1] == "score while it trains: 10.0 at step 0, 36.0 at step 5 of 5."
