"""Strokes as data: an exact and repeatable mask, undo and redo, typed errors for everything malformed."""

import copy
import json
import time
from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.errors import DatasetError
from fsslib.widgets import strokes
from fsslib.widgets.strokes import paint, to_mask

number = st.floats(-30, 70, width=32)
point = st.tuples(number, number).map(list)
line = st.lists(point, min_size=1, max_size=6)
pen = st.floats(1, 20)
label = st.sampled_from([0, 1])
kinds = [
    {"tool": st.sampled_from(["brush", "scribble"]), "label": label, "width": pen, "points": line},
    {"tool": st.just("eraser"), "width": pen, "points": line},
    {"tool": st.just("box"), "label": label, "points": st.lists(point, min_size=2, max_size=2)},
    {"tool": st.just("polygon"), "label": label, "points": st.lists(point, min_size=3, max_size=7)},
    {"tool": st.just("clear")},
]
stroke = st.one_of(*map(st.fixed_dictionaries, kinds))
documents = st.tuples(st.lists(stroke, max_size=8), st.integers(0, 8)).map(
    lambda given: {"version": 1, "size": None, "cursor": min(given[1], len(given[0])), "history": given[0]}
)
sides = st.integers(1, 40)
# Coarse, so that centres of pixels often lie on an edge or a corner; or as fine as corners are told apart.
halves, parts = (st.integers(-9 * n, 30 * n).map(lambda at, n=n: at / n) for n in (2, 1024))
corner = st.one_of(st.tuples(halves, halves), st.tuples(parts, parts)).map(list)


def brush(*points, width=1.0, label=1, tool="brush"):
    return {"tool": tool, "label": label, "width": width, "points": [list(p) for p in points]}


def area(tool, *corners, label=1):
    return {"tool": tool, "label": label, "points": [list(c) for c in corners]}


box, polygon = partial(area, "box"), partial(area, "polygon")


def drawn(*history, size=(6, 8)):
    document = strokes.empty()
    for entry in history:
        document = strokes.add(document, entry)
    return strokes.rasterise(document, *size)


def distances(points, height, width):
    """(H, W): from every pixel's centre to the line, one segment after the other, by the textbook."""
    points = np.asarray(points, float)
    centre = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    best = np.full((height, width), np.inf)
    for a, b in pairwise(points) if len(points) > 1 else [(points[0], points[0])]:
        way = b - a
        share = ((centre - a) @ way / max(way @ way, 1e-300)).clip(0, 1)
        best = np.minimum(best, np.linalg.norm(centre - (a + share[..., None] * way), axis=-1))
    return best


@given(line, pen, sides, sides)
@settings(max_examples=120, deadline=None)
def test_a_stroke_is_what_lies_within_half_its_width(points, width, rows, columns):
    mask = drawn(brush(*points, width=width), size=(rows, columns))
    far = distances(points, rows, columns)
    for x, y in points:
        if 0 <= x < columns and 0 <= y < rows:
            assert mask[int(y), int(x)] == 1
            far[int(y), int(x)] = 0
    sure = np.abs(far - width / 2) > 1e-6  # nearer than that, rounding decides
    assert ((far < width / 2) == (mask == 1))[sure].all()


@pytest.mark.parametrize("points", [[(1, 2.5), (6, 2.5)], [(2.5, 1), (2.5, 5)], [(0.2, 0.1), (5.7, 5.9)]])
def test_the_thinnest_line_has_no_holes(points):
    mask = drawn(brush(*points))
    (x0, y0), (x1, y1) = points
    steps = max(abs(int(x1) - int(x0)), abs(int(y1) - int(y0))) + 1
    assert steps <= mask.sum() <= 2 * steps
    for at in np.linspace(0, 1, 50):  # every place on the line has a marked pixel next to it
        column, row = int(x0 + at * (x1 - x0)), int(y0 + at * (y1 - y0))
        assert mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].any()


def test_a_tap_marks_its_pixel_and_a_box_the_centres_inside_it():
    mask = drawn(brush((3.99, 1.01)))
    assert mask.sum() == 1 and mask[1, 3] == 1
    mask = drawn(box((6.4, 1.4), (1.6, 4.6)))
    assert mask.sum() == 4 * 4 and (mask[1:5, 2:6] == 1).all()


def is_inside(x, y, corners):
    """The even-odd rule by the textbook, in fractions: is the number of edges to the left of (x, y) odd?"""
    inside = False
    for begin, end in pairwise([*corners, corners[0]]):
        (x0, y0), (x1, y1) = map(Fraction, begin), map(Fraction, end)
        if (y0 <= y) != (y1 <= y):
            inside ^= x0 + (Fraction(y) - y0) * (x1 - x0) / (y1 - y0) <= x
    return inside


@given(st.lists(corner, min_size=3, max_size=8), st.integers(1, 24), st.integers(1, 24))
@settings(max_examples=80, deadline=None)
def test_a_polygon_is_what_the_even_odd_rule_says(corners, rows, columns):
    """Also of polygons that cross themselves or touch themselves."""
    mask = drawn(polygon(*corners), size=(rows, columns))
    wanted = [[is_inside(j + 0.5, i + 0.5, corners) for j in range(columns)] for i in range(rows)]
    assert np.array_equal(mask == 1, wanted)
    turned = corners[2:] + corners[:2]
    assert np.array_equal(drawn(polygon(*turned), size=(rows, columns)), mask), "whichever corner comes first"
    assert np.array_equal(drawn(polygon(*turned[::-1]), size=(rows, columns)), mask), "whichever way round"


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=3, max_size=8), sides, sides)
@settings(max_examples=60, deadline=None)
def test_polygons_of_any_extent_stay_exact(corners, rows, columns):
    """Corners count to the 1024th part of a pixel; nothing overflows up to the largest coordinate."""
    mask = drawn(polygon(*corners), size=(rows, columns))
    rounded = [[Fraction(round(value * 1024), 1024) for value in at] for at in corners]
    draw = np.random.default_rng(0)
    for i, j in zip(draw.integers(rows, size=20), draw.integers(columns, size=20)):
        assert is_inside(int(j) + 0.5, int(i) + 0.5, rounded) == (mask[i, j] == 1)


@given(corner, corner, st.lists(corner, min_size=1, max_size=4), st.lists(corner, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_polygons_that_share_an_edge_share_no_pixel_and_miss_none(a, b, one, other):
    """Both sides of the edge a - b together are the polygon around both of them."""
    left, right = drawn(polygon(a, b, *one), size=(30, 30)), drawn(polygon(b, a, *other), size=(30, 30))
    assert np.array_equal(left ^ right, drawn(polygon(*one, a, *other, b), size=(30, 30)))


def test_polygons_tile():
    """A square cut into a fan of triangles around a point, which is the centre of a pixel."""
    draw = np.random.default_rng(2)
    for middle in ([10.5, 7.5], [3.25, 16.125], [19.5, 19.5], [0.5, 0.5]):
        rim = [[0, 0], [float(draw.integers(1, 20)), 0], [20, 0], [20, 20], [7.5, 20], [0, 20], [0, 4.5]]
        count = np.zeros((22, 22), int)
        for start, end in pairwise([*rim, rim[0]]):
            count += drawn(polygon(middle, start, end), size=(22, 22))
        assert (count[:20, :20] == 1).all() and count.sum() == 400


def test_a_polygon_on_the_centres_of_pixels():
    """Its left and upper edges own the centres on them, the right and lower ones do not."""
    mask = drawn(polygon((1.5, 1.5), (5.5, 1.5), (5.5, 4.5), (1.5, 4.5)))
    assert mask.sum() == 4 * 3 and (mask[1:4, 1:5] == 1).all()
    bow = drawn(polygon((0, 0), (8, 6), (8, 0), (0, 6)))
    assert bow[3, 1] == bow[2, 6] == 1 and bow[0, 4] == bow[5, 3] == 0, "it may cross itself"
    for thin in ([(1, 1), (5, 5), (3, 3)], [(2, 2)] * 3, [(0, 1.5), (8, 1.5), (4, 1.5)]):
        assert not drawn(polygon(*thin)).any()
    assert not drawn(polygon((90, 90), (99, 90), (95, 99))).any(), "outside the picture"


def test_meaning_of_untouched_pixels():
    """Background, unless a pixel of a background scribble is to be seen."""
    covered, corners = box((0, 0), (3, 6)), [(5, 0), (8, 6), (5, 6)]
    hint = brush((6.5, 0.5), (6.5, 5.5), label=0, tool="scribble")
    exact = [brush((6, 1), width=2, label=0), box((5, 0), (8, 6), label=0), polygon(*corners, label=0)]
    for history in ([covered], *([covered, no_hint] for no_hint in exact), [polygon(*corners)], [{**hint, "label": 1}]):
        assert set(np.unique(drawn(*history))) == {0, 1}
    mask = drawn(covered, hint)
    assert (mask[:, :3] == 1).all() and (mask[:, 6] == 0).all() and (mask[:, 3:6] == 255).all()
    for hides in ({"tool": "eraser", "width": 3, "points": hint["points"]}, {**hint, "tool": "brush", "width": 3.0}):
        assert 255 not in drawn(covered, hint, hides)
    assert 255 not in drawn(covered, brush((60, 60), label=0, tool="scribble")), "outside the picture"
    erased = drawn(covered, hint, {"tool": "eraser", "width": 2, "points": [[1, 1], [1, 5]]})
    assert erased[3, 0] == 255, "erased pixels are untouched again"


def test_later_strokes_cover_earlier_ones():
    below, above = box((0, 0), (8, 6)), box((2, 2), (4, 4), label=0)
    hole = polygon((2, 2), (4, 2), (4, 4), (2, 4), label=0)
    assert drawn(below, above).sum() == drawn(below, hole).sum() == 48 - 4 and drawn(above, below).sum() == 48
    assert drawn(below, {"tool": "clear"}, box((0, 0), (1, 1))).sum() == 1


@given(documents, sides, sides, st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=120, deadline=None)
def test_replayed_strokes_give_the_identical_mask(document, rows, columns, more_rows, more_columns):
    before = copy.deepcopy(document)
    mask = strokes.rasterise(document, rows, columns)
    assert mask.shape == (rows, columns) and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1, 255}
    assert document == before
    again = json.loads(json.dumps(strokes.check(document)))
    assert np.array_equal(strokes.rasterise(again, rows, columns), mask)
    small, large = np.zeros((rows, columns), np.uint8), np.zeros((rows + more_rows, columns + more_columns), np.uint8)
    added = strokes.empty(rows, columns)
    for entry in document["history"][: document["cursor"]]:
        added = strokes.add(added, entry)
        paint(small, added["history"][-1])
        paint(large, entry)
    assert np.array_equal(to_mask(small), mask), "one by one or all at once"
    assert np.array_equal(strokes.rasterise(added, rows, columns), mask), "added one by one"
    assert np.array_equal(small, large[:rows, :columns]), "the border of a smaller picture bends nothing"


@given(documents)
@settings(max_examples=60, deadline=None)
def test_undo_and_redo_are_inverse(document):
    document = strokes.check(document)
    start, end = {**document, "cursor": 0}, {**document, "cursor": len(document["history"])}
    assert document == start or strokes.redo(strokes.undo(document)) == document
    assert document == end or strokes.undo(strokes.redo(document)) == document
    assert strokes.undo(start) == start and strokes.redo(end) == end


@given(documents, stroke)
@settings(max_examples=60, deadline=None)
def test_a_new_stroke_can_be_undone_and_forgets_what_was_undone(document, new):
    before = copy.deepcopy(document)
    after = strokes.add(document, new)
    assert document == before and len(after["history"]) == after["cursor"] == document["cursor"] + 1
    assert np.array_equal(strokes.rasterise(strokes.undo(after), 20, 20), strokes.rasterise(document, 20, 20))
    assert not strokes.rasterise(strokes.clear(after), 20, 20).any()


def test_two_thousand_strokes():
    """Five milliseconds for each would be slow to look at."""
    draw, history = np.random.default_rng(0), []
    tools = draw.choice([*strokes.FIELDS], 2000, p=[0.3, 0.2, 0.2, 0.09, 0.2, 0.01]).tolist()
    for tool in tools:
        wild, count = 1e6 if draw.random() < 0.05 else 120, draw.integers(3, 20)
        values = {"tool": tool, "label": int(draw.integers(2))}
        values["points"] = draw.uniform(-wild / 6, wild, (2 if tool == "box" else count, 2)).tolist()
        values["width"] = float(draw.uniform(1, 1e5 if draw.random() < 0.02 else 30))
        history.append({name: values[name] for name in strokes.FIELDS[tool]})
    document = {"version": 1, "size": [97, 97], "cursor": len(history), "history": history}
    start = time.thread_time()
    mask = strokes.rasterise(document, 97, 97)
    assert time.thread_time() - start < 2
    assert len(np.unique(mask)) > 1, "the drawing is not a trivial one"


GOOD = {"version": 1, "size": [6, 8], "cursor": 1, "history": [brush((1, 2))]}
REFUSED = {
    "version 2": [{"version": 2}], "height, width": [{"size": [6]}, {"size": [6, 0]}, {"size": [6.5, 8]}],
    "0 to 1": [{"cursor": 2}, {"cursor": -1}, {"cursor": True}], "expected a list": [{"history": "brush"}],
    "extra": [{"extra": 1}], "stroke 1: tool 'spray'": [{"history": [brush((1, 2)), {"tool": "spray"}]}],
}  # fmt: skip
WRONG_STROKES = {
    "stroke 0: tool": [None, {"tool": ["brush"]}],
    "fields": [{"tool": "brush", "points": [[1, 2]]}, {"tool": "clear", "label": 1}],
    "of a polygon": [{**polygon((1, 2), (3, 4), (5, 6)), "width": 3}],
    **{f"label {label}": [brush((1, 2), label=label)] for label in (2, True)},
    "label 3": [polygon((1, 2), (3, 4), (5, 6), label=3)],
    **{f"width {width!r}": [brush((1, 2), width=width)] for width in (0.5, float("nan"), "3")},
    "pairs": [brush(*p) for p in ([], [(1, 2, 3)], [(1, 2), (3,)], [("a", "b")], [(1, None)])] + [polygon()],
    "not finite": [brush((1, float("inf"))), polygon((1, 2), (3, 4), (5, float("nan")))],
    "beyond 1000000": [brush((1, 2e6))],
    "two opposite corners": [box((1, 2))],
    "2 points, expected three or more corners": [polygon((1, 2), (3, 4))],
}


@pytest.mark.parametrize("said", [*REFUSED, *WRONG_STROKES])
def test_malformed_documents(said):
    for change in [*REFUSED.get(said, []), *({"history": [wrong]} for wrong in WRONG_STROKES.get(said, []))]:
        with pytest.raises(DatasetError, match=said):
            strokes.rasterise({**GOOD, **change}, 6, 8)


@pytest.mark.parametrize("document", [None, [], {}, "x", {"version": 1}])
def test_not_a_document(document):
    for function in (strokes.check, strokes.undo, strokes.redo, strokes.clear):
        with pytest.raises(DatasetError, match="expected a dictionary"):
            function(document)


def test_strokes_of_another_picture():
    with pytest.raises(DatasetError, match="drawn on 6 x 8 pixels"):
        strokes.rasterise(GOOD, 8, 6)
    for side in (0, 2.5, True):
        with pytest.raises(DatasetError, match="whole numbers"):
            strokes.rasterise({**GOOD, "size": None}, 8, side)


def test_saved_and_loaded(tmp_path):
    document = strokes.undo(strokes.add(strokes.add(GOOD, box((0.123456789, 1), (3, 3))), {"tool": "clear"}))
    file = strokes.save(document, tmp_path / "new" / "drawing.json")
    assert strokes.load(file) == document and [f.name for f in file.parent.iterdir()] == ["drawing.json"]
    with pytest.raises(DatasetError):
        strokes.save({**document, "cursor": 9}, file)
    assert strokes.load(file) == document, "a refused document must not touch the file"


def test_files_that_are_not_drawings(tmp_path):
    file = tmp_path / "drawing.json"
    with pytest.raises(DatasetError, match=r"no file of strokes .*drawing\.json"):
        strokes.load(file)
    for content, said in ((b'{"version": 1', "cannot read"), (b"\xff\xfe", "cannot read"), (b"[]", "expected a dict")):
        file.write_bytes(content)
        with pytest.raises(DatasetError, match=rf"(?s)drawing\.json.*{said}|{said}.*drawing\.json"):
            strokes.load(file)
