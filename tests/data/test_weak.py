"""Boxes against PANet's own code, and the scribble robot's promises on any mask."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file
from scipy import ndimage

from fsslib.data.weak_annotations import annotate, box_support, scribble
from fsslib.errors import DatasetError


@pytest.fixture(scope="module")
def golden(shared):
    units = load_file(shared / "golden" / "panet" / "units.safetensors")
    return {name.removeprefix("units/"): value for name, value in units.items()}


def blob(height=80, width=110):
    """A body with two thin legs and an arm, and a smaller part apart from it."""
    fg = torch.zeros(height, width, dtype=torch.bool)
    fg[20:50, 15:70] = True
    fg[50:75, 20:24] = fg[50:75, 60:64] = fg[24:28, 70:90] = True
    fg[60:72, 90:104] = True
    return fg


def test_box_equals_the_original(golden):
    fg, bg = box_support(golden["fg_mask_cls7"][0])
    assert torch.equal(fg, golden["bbox_fg"][0].bool()) and torch.equal(bg, golden["bbox_bg"][0].bool())


def test_boxes_of_components():
    fg, bg = box_support(blob().numpy())
    want = torch.zeros_like(fg)
    want[20:75, 15:90] = True
    assert fg.dtype == bg.dtype == torch.bool and torch.equal(fg, want)
    want[60:72, 90:104] = True
    assert torch.equal(bg, ~want)
    diagonal = torch.eye(4, dtype=torch.uint8)
    assert box_support(diagonal)[0].all()  # corners touch: one component
    fg, bg = box_support(torch.zeros(4, 5, dtype=torch.uint8))
    assert not fg.any() and bg.all()


def test_stroke_runs_along_the_body():
    fg = blob()
    drawn = scribble(fg, seed=3)
    assert drawn.dtype == torch.bool and not (drawn & ~fg).any()
    rows, columns = drawn.nonzero().T
    assert columns.max() - columns.min() > 25
    assert rows.max() < 50 and columns.max() < 70  # no leg, no arm, no other part
    assert ndimage.label(drawn.numpy(), np.ones((3, 3)))[1] == 1
    depth = ndimage.distance_transform_edt(np.pad(fg.numpy(), 1))[1:-1, 1:-1]
    assert depth[drawn.numpy()].mean() > 6 and drawn.sum() < 0.15 * fg.sum()


def test_stroke_is_a_pure_function_of_the_seed():
    fg = blob()
    np.random.seed(1)
    torch.manual_seed(1)
    state, first = np.random.get_state()[1].copy(), scribble(fg, 5)
    assert (np.random.get_state()[1] == state).all()
    np.random.seed(2)
    assert torch.equal(scribble(fg, 5), first) and torch.equal(scribble(fg.numpy().astype(np.uint8), 5), first)
    assert len({scribble(fg, seed).numpy().tobytes() for seed in range(8)}) > 5


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=70)), st.integers(0, 2**40))
def test_strokes_stay_inside_any_mask(fg, seed):
    drawn, other = scribble(fg, seed).numpy(), scribble(~fg, seed).numpy()
    assert not (drawn & ~fg).any() and drawn.any() == fg.any()
    assert not (other & fg).any() and other.any() == (~fg).any()


@pytest.mark.parametrize("shape", ["ring", "line", "diagonal", "pixel", "spiral", "full"])
def test_strokes_in_odd_shapes(shape):
    fg = np.zeros((64, 64), bool)
    y, x = np.mgrid[:64, :64] - 31.5
    fg[{"ring": np.abs(np.hypot(y, x) - 24) < 4, "line": np.abs(y) < 1, "diagonal": y == x,
        "pixel": (y == 0.5) & (x == 9.5), "full": y < 99,
        "spiral": np.abs((np.hypot(y, x) - 4 * np.arctan2(y, x)) % 25.13 - 12) < 3}[shape]] = True  # fmt: skip
    drawn = scribble(fg, 1).numpy()
    assert drawn.any() and not (drawn & ~fg).any()
    least = {"ring": 40, "line": 25, "diagonal": 40, "pixel": 1, "spiral": 40, "full": 25}[shape]
    assert drawn.sum() >= least


def encoded():
    mask = blob().to(torch.uint8)
    mask[:, :4] = mask[30:32, 40:44] = 255
    return mask


def test_annotate_keeps_the_encoding():
    mask, kept = encoded(), encoded()
    for kind in ("mask", "box", "scribble"):
        out = annotate(mask.long(), kind, seed=1)
        assert out.dtype == torch.int64 and out.shape == mask.shape and set(out.unique().tolist()) == {0, 1, 255}
        assert not ((out == 0) & (mask != 0)).any()  # neither object nor ignored pixels become background
        assert (annotate(mask, kind, seed=1) == out).all() and torch.equal(mask, kept)
    assert torch.equal(annotate(mask), mask) and annotate(mask) is not mask


def test_annotate_box_and_scribble():
    mask = encoded()
    box = annotate(mask, "box")
    fg, bg = box_support(mask == 1)
    assert torch.equal(box == 1, fg) and torch.equal(box == 0, bg & (mask == 0)) and (box[30:32, 40:44] == 1).all()
    stroke = annotate(mask, "scribble", seed=4)
    assert torch.equal(stroke == 1, scribble(mask == 1, 4)) and torch.equal(stroke == 0, scribble(mask == 0, 4))
    assert not torch.equal(stroke, annotate(mask, "scribble", seed=5))
    assert torch.equal(box, annotate(mask, "box", seed=5))


@pytest.mark.parametrize("kind", ["mask", "box", "scribble"])
def test_annotate_without_object_background_or_anything(kind):
    for value in (0, 1, 255):
        mask = torch.full((12, 15), value, dtype=torch.uint8)
        out = annotate(mask, kind)
        assert out.shape == mask.shape and set(out.unique().tolist()) <= {value, 255} and (out == value).any()


@pytest.mark.parametrize("call, message", [
    (lambda: annotate(encoded(), "polygon"), "'polygon' is unknown. Valid: 'mask', 'box', 'scribble'"),
    (lambda: annotate(encoded() * 3, "box"), r"found the values \[3, 253\]"),
    (lambda: annotate(encoded()[None], "mask"), r"expected bool or integers \(H, W\)"),
    (lambda: annotate(encoded().float(), "box"), "found float32"),
    (lambda: annotate(encoded(), "scribble", seed="a"), "seed='a'"),
    (lambda: annotate(encoded(), "scribble", seed=1.5), "seed=1.5"),
])  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(DatasetError, match=message):
        call()
