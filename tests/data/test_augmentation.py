"""The training transforms of PFENet's family: what is drawn how often, and what is kept;
its crop, a piece of the picture at any place, is drawn again until it holds most of the object."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from voc_tree import make_voc, quiet

from fsslib import EpisodeSampler, Protocol
from fsslib.data.episodes import EpisodeSpec
from fsslib.data.transforms import MEAN_COLOUR, WHOLE, Resize, augment_whole, normalise

kinds = pytest.mark.parametrize("kind", WHOLE)
DRAWS = 200


def picture(height=80, width=110):
    """Blue with a red bar of class 7 that shows a turn by its axis, a scale by its area, a flip by its place."""
    image, mask = torch.zeros(3, height, width, dtype=torch.uint8), torch.zeros(height, width, dtype=torch.uint8)
    image[2] = 255
    mask[36:44, 15:75] = 7
    image[:, mask == 7] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None]
    return image, mask


def seen_in(image, mask):
    """What was drawn for `picture`, told from the result: scale, degrees (of the picture before its flip), flip."""
    rows, columns = (axis.double() for axis in (mask == 7).nonzero().T)
    valid = (mask != 255).nonzero().double()
    flipped = bool(columns.mean() > valid[:, 1].mean())
    rows, columns = rows - rows.mean(), columns - columns.mean()
    angle = 0.5 * torch.atan2(2 * (rows * columns).mean(), (columns**2).mean() - (rows**2).mean())
    # The length of the bar, since its area is rounded much more.
    length = float((12 * ((columns**2).mean() + (rows**2).mean())).sqrt())
    return length / 60, float(angle.rad2deg()) * (1 if flipped else -1), flipped


@pytest.fixture(scope="module")
def made():
    """Crops so large that nothing is cut off."""
    return [augment_whole(*picture(), seed, "pfenet", 160, (7,)) for seed in range(DRAWS)]


def test_everything_is_drawn_as_often_as_published(made):
    scales, angles, flips = (np.array(column) for column in zip(*(seen_in(*pair) for pair in made)))
    assert 0.895 < scales.min() < 0.92 and 1.08 < scales.max() < 1.125
    # Uniform: mean and standard deviation, and a quarter of the draws in each quarter.
    assert scales.mean() == pytest.approx(1.005, abs=0.01) and scales.std() == pytest.approx(0.2 / 12**0.5, abs=0.006)
    assert (np.histogram(scales, [0.0, 0.95, 1.0, 1.05, 2.0])[0] > DRAWS / 4 * 0.75).all()
    turned = np.abs(angles) > 0.4  # what nearest neighbours leave of a bar that was not turned
    assert 0.42 < turned.mean() < 0.60
    bent = angles[turned]
    assert 9 < bent.max() < 10.5 and -10.5 < bent.min() < -9 and abs(bent.mean()) < 1.2
    assert np.abs(bent).mean() == pytest.approx(5.2, abs=0.8) and 0.42 < flips.mean() < 0.58
    # The largest weight of the blur is 0.37: no edge is steeper than that. One that was only interpolated is.
    steps = [image[0].int().masked_fill(mask == 255, 0).diff(dim=0).abs().max().item() / 255 for image, mask in made]
    blurred = np.array(steps) < 0.4
    assert 0.40 < blurred.mean() < 0.60
    for one, other in ((turned, flips), (turned, blurred), (flips, blurred), (scales > 1, turned), (scales > 1, flips)):
        assert 0.16 < (one & other).mean() < 0.34, "independent of each other"


@kinds
def test_label_and_picture_go_the_same_way(kind):
    image, mask = picture()
    mask[15:55] = mask[40]
    image[:, 15:55] = image[:, 40:41]
    for seed in range(25):
        out, label = augment_whole(image, mask, seed, kind, 120, (7,))
        red = out[0].int() > out[2].int()
        assert red[label == 7].float().mean() > 0.95 and (~red)[label == 0].float().mean() > 0.95


def test_the_border_is_mean_colour_and_ignored(made):
    """Nothing of the border is a class, and none of it lies inside the picture."""
    for image, mask in made[:30]:
        void = mask == 255
        deep = -torch.nn.functional.max_pool2d(-void.float()[None], 9, 1, 4)[0] == 1
        assert deep.any() and (image[:, deep] == torch.tensor(MEAN_COLOUR)[:, None]).all()
        assert normalise(image)[:, deep].abs().max() < 0.02
        # Where the label is valid the picture is red or blue, up to a blend at the edges.
        inside = -torch.nn.functional.max_pool2d(void.float()[None], 9, 1, 4)[0] == 0
        assert (image[1][inside] == 0).all()
        valid = (mask != 255).nonzero()
        middle = (valid.min(0).values + valid.max(0).values).double() / 2
        assert (middle - 79.5).abs().max() <= 1.5, "padded alike on both sides"


@kinds
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_picture_becomes_a_square_of_its_own_classes(kind, data):
    height, width, size = (data.draw(st.integers(least, 90)) for least in (1, 1, 8))
    seed, objects = data.draw(st.integers(-(2**40), 2**40)), data.draw(st.lists(st.sampled_from([1, 2, 20])))
    numbers = np.random.default_rng(height * 100 + width)
    image = torch.from_numpy(numbers.integers(0, 256, (3, height, width)).astype(np.uint8))
    mask = torch.from_numpy(numbers.choice([0, 1, 20, 255], (height, width)).astype(np.uint8))
    out, label = augment_whole(image, mask, seed, kind, size, objects)
    assert out.shape == (3, size, size) and label.shape == (size, size)
    assert out.dtype == label.dtype == torch.uint8 and type(out) is type(label) is torch.Tensor
    assert set(label.unique().tolist()) <= {*mask.unique().tolist(), 255}
    assert out.is_contiguous() and label.is_contiguous()


def test_hdmnet_resizes_the_picture_as_it_is(monkeypatch):
    image, mask = picture()
    untouched = torch.tensor([0.5, 0.9, 0.5, 0.9, 0.9] + 64 * [0.5], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *shape, **how: untouched)
    out, label = augment_whole(image, mask, 0, "hdmnet", 61)
    plain = Resize(61)(image, mask)
    assert torch.equal(label, plain[1]) and (out.int() - plain[0].int()).abs().max() <= 1 and not (label == 255).any()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return quiet(make_voc(tmp_path_factory.mktemp("voc"), scale=2), 0, "train")


@kinds
def test_episodes_augment_the_original_and_every_image_by_itself(photographs, kind):
    rules = Protocol(input_size=33, augmentation=kind)
    sampler = EpisodeSampler(photographs, rules, shot=1, augment=True)
    drawn = sampler.draw(0, 0)
    c, query = drawn.classes[0], drawn.query
    # The same picture as support and as query: what differs is what was drawn for each.
    spec = EpisodeSpec((c,), ((query,),), query)
    episode = sampler.build([spec], augment_seed=5)
    image, mask = augment_whole(*photographs[query], 5 * 1009, kind, 33, (c,))
    assert torch.equal(episode.query_images[0], normalise(image))
    assert torch.equal(episode.query_masks[0], torch.where(mask == 255, 255, (mask == c).long()))
    assert not torch.equal(episode.support_images[0, 0, 0], episode.query_images[0])
    plain = sampler.build([spec])
    assert torch.equal(plain.query_images[0], normalise(Resize(33)(*photographs[query])[0]))
    assert torch.equal(plain.support_images[0, 0, 0], plain.query_images[0])


@kinds
def test_all_labels_of_a_query_move_together(photographs, kind):
    sampler = EpisodeSampler(photographs, Protocol(input_size=73, augmentation=kind), augment=True)
    several = set()
    for step in range(8):
        batch, again = sampler.batch(step, 2), sampler.batch(step, 2)
        assert torch.equal(batch.query_images, again.query_images) and torch.equal(batch.base_masks, again.base_masks)
        batch.validate()
        own = batch.base_masks == (batch.class_index + 1)[:, None, None]
        assert torch.equal(own, batch.query_masks == 1)
        assert torch.equal(batch.base_masks == 255, batch.query_masks == 255)
        several |= {tuple(m.unique().tolist()) for m in batch.base_masks}
    assert any(len(set(values) - {0, 255}) > 1 for values in several), "other base classes are still there"


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
    tops, lefts = [], []
    for seed in range(400):
        out, label = augment_whole(image, mask, seed, "pfenet", 73)
        top, left = out[0, 0, 0].item(), out[1, 0, 0].item()
        assert torch.equal(out, image[:, top : top + 73, left : left + 73])
        assert torch.equal(label, mask[top : top + 73, left : left + 73])
        tops.append(top), lefts.append(left)
    assert set(tops) == set(range(18)) and set(lefts) == set(range(48))
    assert np.mean(tops) == pytest.approx(8.5, abs=0.8) and np.mean(lefts) == pytest.approx(23.5, abs=2)


def test_a_crop_is_drawn_again_until_it_holds_the_object(only_crops):
    image, mask = corner_object()
    # A crop in five holds enough of class 4, so that 32 of them never miss it.
    made = [augment_whole(image, mask, seed, "pfenet", 73, (4,))[1] for seed in range(100)]
    assert all((label == 4).sum() >= 0.85 * 30 * 60 for label in made)
    assert len({label.numpy().tobytes() for label in made}) > 50
    first = [augment_whole(image, mask, seed, "pfenet", 73)[1] for seed in range(100)]
    good = [bool((label == 4).sum() >= 0.85 * 30 * 60) for label in first]
    assert good == [torch.equal(*labels) for labels in zip(made, first)], "a first crop that is good enough stays"
    assert 0.1 < np.mean(good) < 0.4


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
