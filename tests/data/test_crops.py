"""PFENet's crop: a piece of the picture at any place, drawn again until it holds most of the object."""

import numpy as np
import pytest
import torch

from fsslib.data.transforms import augment_whole


@pytest.fixture
def only_crops(monkeypatch):
    """Neither scaled, turned, blurred nor flipped: what remains is the place of the crop."""
    real = torch.rand

    def rand(*shape, **how):
        numbers = real(*shape, **how)
        numbers[[0, 1, 3, 4]] = torch.tensor([0.5, 0.9, 0.9, 0.9], dtype=numbers.dtype)
        return numbers

    monkeypatch.setattr(torch, "rand", rand)


def corner_object():
    """Red shows the row, green the column, so that a crop can be told; class 9 fills 20 x 20 pixels of a corner."""
    rows, columns = torch.meshgrid(torch.arange(90), torch.arange(120), indexing="ij")
    mask = torch.zeros(90, 120, dtype=torch.uint8)
    mask[:20, :20] = 9
    mask[60:, 30:90] = 4
    return torch.stack([rows, columns, rows * 0]).to(torch.uint8), mask


def test_a_crop_is_a_piece_of_the_picture_at_any_place(only_crops):
    image, mask = corner_object()
    tops, lefts, kept = [], [], []
    for seed in range(400):
        out, label = augment_whole(image, mask, seed, "pfenet", 73)
        top, left = out[0, 0, 0].item(), out[1, 0, 0].item()
        assert torch.equal(out, image[:, top : top + 73, left : left + 73])
        assert torch.equal(label, mask[top : top + 73, left : left + 73])
        tops.append(top), lefts.append(left), kept.append(int((label == 9).sum()))
    assert set(tops) == set(range(18)) and set(lefts) == set(range(48))
    assert np.mean(tops) == pytest.approx(8.5, abs=0.8) and np.mean(lefts) == pytest.approx(23.5, abs=2)
    share = sum((20 - t) * (20 - f) >= 0.85 * 400 for t in range(18) for f in range(20)) / (18 * 48)
    assert np.mean(np.array(kept) >= 0.85 * 400) == pytest.approx(share, abs=0.015), "without an object, the first"


def test_a_crop_is_drawn_again_until_it_holds_the_object(only_crops):
    image, mask = corner_object()
    good = sum((20 - t) * (20 - f) >= 0.85 * 400 for t in range(18) for f in range(20)) / (18 * 48)
    held, first, draws = [], [], 400
    for seed in range(draws):
        label = augment_whole(image, mask, seed, "pfenet", 73, (9,))[1]
        held.append(bool((label == 9).sum() >= 0.85 * 400))
        alone = augment_whole(image, mask, seed, "pfenet", 73)[1]
        if (alone == 9).sum() >= 0.85 * 400:
            assert torch.equal(label, alone), "a first crop that is good enough stays"
        first.append(torch.equal(label, alone))
    assert 0.005 < good < 0.02, "so small a chance shows whether there are 32 draws"
    expected = 1 - (1 - good) ** 32
    assert np.mean(held) == pytest.approx(expected, abs=3 * (expected * (1 - expected) / draws) ** 0.5)
    assert np.mean(first) < 0.05
    # Class 4 is easier to keep: a crop in three does, so that 32 of them never miss it.
    easy = [augment_whole(image, mask, seed, "pfenet", 73, (4,))[1] for seed in range(100)]
    assert all((label == 4).sum() >= 0.85 * 30 * 60 for label in easy)
    assert len({label.numpy().tobytes() for label in easy}) > 50


@pytest.mark.parametrize("good", [0, 1, 31, None])
def test_there_are_32_crops_and_the_last_one_stays(monkeypatch, good):
    image, mask = corner_object()
    drawn = torch.full((5 + 2 * 32,), 0.9, dtype=torch.float64)
    drawn[0] = 0.5
    drawn[-2:] = torch.tensor([0.5, 0.25])  # where the last crop is, if none is good
    if good is not None:
        drawn[5 + 2 * good : 7 + 2 * good] = 0.0

    def rand(count, **how):
        assert count == len(drawn)
        return drawn

    monkeypatch.setattr(torch, "rand", rand)
    out = augment_whole(image, mask, 0, "pfenet", 73, (9,))[0]
    assert out[:2, 0, 0].tolist() == ([9, 12] if good is None else [0, 0])


def test_the_object_may_be_several_classes_or_larger_than_the_crop(only_crops):
    image, mask = corner_object()
    mask[40:60, 100:] = 5
    both = [augment_whole(image, mask, s, "pfenet", 89, (9, 5))[1] for s in range(60)]
    alone = [augment_whole(image, mask, s, "pfenet", 89, (5,))[1] for s in range(60)]
    assert all((m == 5).sum() >= 0.85 * 400 for m in alone)
    # No crop of 89 columns holds columns 0 to 119: at the most one and a bit of the two.
    assert all(((m == 9) | (m == 5)).sum() < 0.85 * 800 for m in both)
    everywhere = augment_whole(image, torch.full_like(mask, 3), 0, "pfenet", 40, (3,))[1]
    assert everywhere.shape == (40, 40) and (everywhere == 3).all()
