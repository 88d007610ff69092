"""Figures of tasks on photographs: every picture has its place and its words."""

import numpy as np
import pytest
import torch

from fsslib.plots import photographs
from fsslib.plots.display import picture


@pytest.fixture
def row():
    image, mask = torch.full((3, 20, 40), 100, dtype=torch.uint8), torch.zeros(20, 40, dtype=torch.uint8)
    mask[5:13, 10:30] = 1
    return photographs.Row(image, mask, image, mask, {"a": (mask, 1.0), "b": (1 - mask, 0.0)})


def test_a_gallery_names_every_score_and_marks_the_best(row):
    figure, alt, _ = photographs.gallery({"one": row, "two": row})
    axes = np.array(figure.axes).reshape(2, 4)
    assert [axis.get_title() for axis in axes[0]] == ["support", "query", "a", "b"]
    assert [axis.get_xlabel() for axis in axes[1]] == ["two", "", "100%", "0%"]
    assert [axis.xaxis.label.get_weight() for axis in axes[0, 2:]] == ["bold", "normal"]
    assert "one: a 100%, b 0%; two: a 100%" in alt and picture(figure, photo=True)[:2] == b"\xff\xd8"
    assert len(axes[0, 1].collections) == 2 and not axes[0, 0].collections, "the true outline, on the query"


def test_what_was_drawn_and_what_was_found_can_be_told_apart(row):
    mask = row.marked.clone()
    plain = photographs.drawn(row.support, mask)
    mask[mask == 0] = 255
    mask[15:] = 0
    hinted = photographs.drawn(row.support, mask)
    assert (plain[2] == plain[17]).all() and (hinted[17, 2] != hinted[2, 2]).any(), "blue only where something is open"
    cut = photographs.cut_out(row.query, row.truth)
    assert np.allclose(cut[8, 20], 100 / 255, atol=0.01) and cut[2, 2].min() > 0.6
    figure, alt, _ = photographs.answer(row.support, row.marked, row.query, row.truth.numpy())
    assert len(figure.axes) == 3 and "20% of it" in alt


def test_scores_by_size(drawn):
    figure, alt, _ = photographs.by_size({"coins": {97: 0.5, 241: 0.75}, "eye": {97: 0.3, 241: 0.2}})
    assert [points for _, points in drawn(figure.axes[0])] == [[[97, 50], [241, 75]], [[97, 30], [241, 20]]]
    assert "coins 50 at 97, 75 at 241; eye 30 at 97, 20 at 241" in alt
