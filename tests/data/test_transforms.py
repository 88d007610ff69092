"""Joint transforms: shapes, what stays aligned, what is invented, and that a seed decides everything."""

import numpy as np
import pytest
import torch

from fsslib.data.transforms import (
    AUGMENTATIONS,
    MEAN,
    MEAN_COLOUR,
    STD,
    WHOLE,
    Resize,
    _blur,
    _turn,
    augment,
    augment_whole,
    denormalise,
    normalise,
)  # fmt: skip
from fsslib.errors import DatasetError


def pair(height=60, width=80):
    """A red square of class 3 on blue, so that colour tells the class of every pixel; 255 in one corner."""
    image, mask = torch.zeros(3, height, width, dtype=torch.uint8), torch.zeros(height, width, dtype=torch.uint8)
    image[2], mask[:6, :6] = 255, 255
    mask[20:44, 30:60] = 3
    image[:, mask == 3] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None]
    return image, mask


def aligned(image, mask, least=0.96):
    """Share of object pixels that are red and of background pixels that are blue."""
    red = image[0].int() > image[2].int()
    return bool(red[mask == 3].float().mean() > least and (~red)[mask == 0].float().mean() > least)


@pytest.mark.parametrize("size", [9, 97, 200])
def test_squash(size):
    image, mask = Resize(size)(*pair())
    assert image.shape == (3, size, size) and mask.shape == (size, size)
    assert image.dtype == mask.dtype == torch.uint8 and type(image) is type(mask) is torch.Tensor
    assert set(mask.unique().tolist()) == {0, 3, 255} and image.is_contiguous()
    assert abs((mask == 3).float().mean() - 24 * 30 / 4800) < 0.06
    if size > 90:
        assert aligned(image, mask)


def test_masks_are_not_shifted_against_images():
    """Both show the column number: a mask taken from the corner of each 3 x 3 cell would show 3i, not 3i + 1."""
    columns = torch.arange(96, dtype=torch.uint8).expand(96, 96)
    image, mask = Resize(32)(columns.expand(3, 96, 96).contiguous(), columns.contiguous())
    assert torch.equal(mask[0], torch.arange(1, 96, 3, dtype=torch.uint8))
    assert torch.equal(image[:, :, 1:-1], mask[:, 1:-1].expand(3, 32, 30))


@pytest.mark.parametrize("height, width", [(60, 80), (80, 60), (64, 64), (44, 200)])
def test_pad_keeps_the_aspect_ratio(height, width):
    image, mask = Resize(97, "pad")(*pair(height, width))
    rows, columns = round(height * 97 / max(height, width)), round(width * 97 / max(height, width))
    assert image.shape == (3, 97, 97) and max(rows, columns) == 97
    for part in (mask[rows:], mask[:, columns:]):
        assert (part == 255).all()
    assert (mask[:rows, :columns] != 255).float().mean() > 0.95
    assert aligned(image[:, :rows, :columns], mask[:rows, :columns])
    if rows < 97:
        assert image[:, -1, 0].tolist() == MEAN_COLOUR
        assert normalise(image)[:, -1].abs().max() < 0.02  # zero after normalisation, up to rounding


def test_extreme_shapes():
    thin = torch.zeros(3, 1, 900, dtype=torch.uint8), torch.ones(1, 900, dtype=torch.uint8)
    image, mask = Resize(97, "pad")(*thin)
    assert image.shape == (3, 97, 97) and (mask[0] == 1).all() and (mask[1:] == 255).all()


@pytest.mark.parametrize("kind", ["photo", "flip", "sdaanet", "symmetry", *WHOLE])
def test_augmentation_is_a_pure_function_of_the_seed(kind):
    image, mask = Resize(97)(*pair())

    def made(seed):
        given = image, mask, seed, kind
        return augment_whole(*given, 57, (3,)) if kind in WHOLE else augment(*given)

    before, kept = torch.get_rng_state(), (image.clone(), mask.clone())
    first = made(7)
    torch.manual_seed(99)
    again = made(np.int64(7))
    assert all(torch.equal(a, b) for a, b in zip((*first, image, mask), (*again, *kept)))
    torch.set_rng_state(before)
    assert kind not in WHOLE or len({made(seed)[0].numpy().tobytes() for seed in range(-5, 15)}) == 20
    made(8)
    assert torch.equal(torch.get_rng_state(), before)


def test_augment_photographs(monkeypatch):
    image, mask = Resize(97)(*pair())
    made = [augment(image, mask, seed) for seed in range(-5, 35)]
    assert len({label.numpy().tobytes() for _, label in made}) > 35
    for out, label in made:
        assert out.shape == (3, 97, 97) and set(label.unique().tolist()) <= {0, 3, 255} and aligned(out, label, 0.93)
    assert all(torch.equal(a, b) for a, b in zip(augment(image, mask, 5, "none"), (image, mask)))
    flipped = {augment(image, mask, seed, "flip")[1].numpy().tobytes() for seed in range(20)}
    assert flipped == {mask.numpy().tobytes(), mask.flip(1).contiguous().numpy().tobytes()}
    void, size = int((mask == 255).sum()), int((mask == 3).sum())
    for factor, least in ((0.5, 97 * 97 - 48 * 48), (2, 0)):  # the rest is filled up; the crop is anywhere
        monkeypatch.setitem(AUGMENTATIONS, "flip", {"scale": (factor, factor), "rotate": 0, "flip": False})
        labels = [augment(image, mask, seed, "flip")[1] for seed in range(8)]
        assert all(least <= int((label == 255).sum()) <= least + factor**2 * void + 20 for label in labels)
        assert len({tuple((label == 3).nonzero().float().mean(0).tolist()) for label in labels}) > 5
    monkeypatch.setitem(AUGMENTATIONS, "flip", {"scale": (1, 1), "rotate": 45})
    turned = augment(image, mask, 1, "flip")[1]
    assert (turned == 255).sum() > 300 and abs(int((turned == 3).sum()) - size) < 100


def test_augmentation_as_published_by_sdaanet():
    """Half turned, half blurred (the image alone), half flipped, independently; neither scaled nor moved."""
    image, mask = Resize(97)(*pair())
    size = (mask == 3).sum()
    made = [augment(image, mask, seed, "sdaanet") for seed in range(200)]
    flips = {True: mask.flip(1), False: mask}
    turned = [not any(torch.equal(m, flip) for flip in flips.values()) for _, m in made]
    flipped = [bool(((m == 255) & (flips[True] == 255)).sum() > ((m == 255) & (mask == 255)).sum()) for _, m in made]
    # Without a turn, only the blur can change the image.
    still = [(i, flips[bool(f)], f) for (i, m), f, t in zip(made, flipped, turned) if not t]
    sharp = [torch.equal(i, image.flip(2) if f else image) for i, _, f in still]
    for share in (turned, flipped, sharp):
        assert 0.38 < sum(share) / len(share) < 0.62
    for (i, m), t in zip(made, turned):
        assert aligned(i, m) and abs(int((m == 3).sum() - size)) < 30
        assert t or set(m.unique().tolist()) == {0, 3, 255}
    bent = [m for (_, m), t in zip(made, turned) if t]
    assert all((m[0] == 255).any() and (m[-1] == 255).any() for m in bent), "what a turn invents is ignored"
    blurred = next(i for (i, _, _), s in zip(still, sharp) if not s)
    assert len(blurred[0].unique()) > len(image[0].unique()) and (blurred.int() - image.int()).abs().max() < 256
    assert all(torch.equal(a, b) for a, b in zip(made[3], augment(image, mask, 3, "sdaanet")))
    corner = next(i for (i, m), t in zip(made, turned) if t and (m[0, -1] == 255) and (m[0, -3:] == 255).all())
    assert (corner[:, 0, -1] - torch.tensor(MEAN_COLOUR)).abs().max() < 40


def noise(height, width):
    """Every pixel unlike its neighbours, so that a place or weight that is slightly off shows."""
    numbers = np.random.default_rng(height * 1000 + width)
    image = torch.from_numpy(numbers.integers(0, 256, (3, height, width), dtype=np.uint8))
    return image, torch.from_numpy(numbers.integers(0, 255, (height, width), dtype=np.uint8))


@pytest.mark.parametrize(
    "height, width, degrees", [(40, 61, 10), (61, 40, -10), (33, 33, 3.7), (1, 7, 10), (9, 2, -45)]
)
def test_a_turn_is_what_bilinear_weights_make_of_it(height, width, degrees):
    image, mask = noise(height, width)
    # A frame of what lies beyond, from which places are interpolated one by one, in double precision.
    frame = np.full((height + 60, width + 60, 4), [*MEAN_COLOUR, 255.0])
    frame[30:-30, 30:-30, :3], frame[30:-30, 30:-30, 3] = image.permute(1, 2, 0), mask
    across, down = np.arange(width) - (width - 1) / 2, np.arange(height)[:, None] - (height - 1) / 2
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = across * cosine - down * sine + (width - 1) / 2, across * sine + down * cosine + (height - 1) / 2
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    wanted = 0
    for one, other in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (1 - np.abs(x - left - one)) * (1 - np.abs(y - top - other))
        wanted = wanted + weight[..., None] * frame[top + other + 30, left + one + 30]
    out, label = _turn(image, mask, degrees)
    assert out.dtype == label.dtype == torch.uint8 and out.is_contiguous() and label.is_contiguous()
    assert np.abs(out.permute(1, 2, 0).numpy() - wanted[..., :3]).max() < 0.51
    nearest = frame[np.rint(y).astype(int) + 30, np.rint(x).astype(int) + 30, 3]
    halfway = (np.abs(x % 1 - 0.5) < 1e-4) | (np.abs(y % 1 - 0.5) < 1e-4)  # either neighbour is the nearest
    assert ((label.numpy() == nearest) | halfway).all() and halfway.mean() < 0.1


def test_a_turn_is_anticlockwise_and_leaves_large_class_ids():
    image, mask = noise(20, 20)
    assert all(torch.equal(*pair) for pair in zip(_turn(image, mask, 90), (image.rot90(1, (1, 2)), mask.rot90())))
    labels = torch.full((30, 30), 999, dtype=torch.int16)
    assert set(_turn(noise(30, 30)[0], labels, 30)[1].unique().tolist()) == {255, 999}


@pytest.mark.parametrize("height, width", [(3, 3), (17, 40), (40, 4)])
def test_the_blur_is_opencvs_gaussian_rounded_once(height, width):
    image = noise(height, width)[0]
    image[:, :2] = 255
    weights = np.array([1, 4, 6, 4, 1]) / 16
    padded = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2))
    plain = (windows * np.outer(weights, weights)).sum((-1, -2))
    assert np.abs(_blur(image).numpy() - plain).max() <= 0.5
    assert torch.equal(_blur(torch.full_like(image, 255)), torch.full_like(image, 255))
    assert torch.equal(_blur(image[:, :2]), image[:, :2]), "too small to mirror what is beyond the border"


def test_labels_are_resized_alike_in_both_types():
    for height, width, size in ((60, 80, 97), (375, 500, 321), (417, 33, 64), (1, 5, 8)):
        image, mask = noise(height, width)
        plain = torch.nn.functional.interpolate(mask[None, None].float(), (size, size), mode="nearest-exact")[0, 0]
        for dtype in (torch.uint8, torch.int16):
            assert torch.equal(Resize(size)(image, mask.to(dtype))[1], plain.to(dtype))


def test_normalised_values_are_those_of_the_formula_and_come_back():
    """Bit for bit, in place too: stored results depend on it."""
    image = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 1).unflatten(2, (16, 16))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    wanted, batch = (image.float() / 255 - mean) / std, torch.zeros(3, 3, 16, 16)
    assert torch.equal(normalise(image), wanted)
    normalise(image[0], batch[1])
    assert torch.equal(batch[1], wanted[0]) and not batch[0].any() and not batch[2].any()
    out = normalise(image)
    assert out.dtype == torch.float32 and torch.equal(denormalise(out), image)
    assert out[1, 2, 4, 5].item() == pytest.approx((image[1, 2, 4, 5].item() / 255 - 0.406) / 0.225, abs=1e-6)
    assert denormalise(out * 100).max() == 255 and denormalise(out.half()).dtype == torch.uint8


@pytest.mark.parametrize("call, message", [
    (lambda i, m: Resize(0), "size=0"), (lambda i, m: Resize(97.0), "size=97.0"),
    (lambda i, m: Resize(True), "size=True"),
    (lambda i, m: Resize(97, "stretch"), "'stretch' is unknown.*'squash', 'pad'"),
    (lambda i, m: Resize(97)(i, m[:-1]), r"found torch.uint8 \(59, 80\), expected uint8 \(or int16\) \(60, 80\)"),
    (lambda i, m: Resize(97)(i.float(), m), "image: found torch.float32"),
    (lambda i, m: Resize(97)(i[0], m), r"expected uint8 \(3, H, W\)"),
    (lambda i, m: Resize(97)(i, m.long()), "mask: found torch.int64"),
    (lambda i, m: Resize(97)(i[:, :0], m[:0]), "at least one pixel"),
    (lambda i, m: augment(*Resize(97)(i, m), 0.5), "whole number"), (lambda i, m: augment(i, m, 1), "square"),
    (lambda i, m: augment(i[:, :, :60], m[:, :60], 1, "wild"), "'wild' is unknown.*'photo'"),
    (lambda i, m: augment_whole(i, m, 0, "photo", 33), "'photo' is unknown.*Valid: 'pfenet'"),
    (lambda i, m: augment_whole(i, m, 0, "pfenet", 4), "size=4"),
    (lambda i, m: augment_whole(i, m, 0.5, "pfenet", 33), "seed=0.5"),
    (lambda i, m: augment_whole(i, m, True, "pfenet", 33), "seed=True"),
    (lambda i, m: augment_whole(i, m[1:], 0, "pfenet", 33), "like its image"),
    (lambda i, m: augment_whole(i.float(), m, 0, "hdmnet", 33), "uint8"),
    (lambda i, m: normalise(i.float()), "float32.*expected uint8"), (lambda i, m: normalise(m), "expected uint8"),
    (lambda i, m: denormalise(i), "expected floating point"),
])  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(DatasetError, match=message):
        call(*pair())
