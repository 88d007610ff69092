"""Seeds, clustering and allocation, each against a plain version written from the specification."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, gaussian_filter

from fsslib import ops
from fsslib.models.asgnet import AllocatedEnrichment, Seeds, allocate, clean_seeds, cluster, published_seeds
from fsslib.nn.context import FeatureEnrichment
from fsslib.ops import resize


def plain_seeds(mask: np.ndarray, size: tuple[int, int], most: int, area: float) -> tuple[np.ndarray, int]:
    """The authors' data loader and their model's counting, for one (H, W) mask, with scipy."""
    rows, columns = (np.floor(np.arange(n) * m / n).astype(int) for n, m in zip(size, mask.shape))
    grid, points = mask[rows][:, columns], np.zeros((most, 2), dtype=int)
    count = min(round(float(grid.sum()) / area), most)  # Python rounds halves to even
    if count >= 2:
        found = np.argwhere(grid)
        corner = found.min(0)
        crop = grid[corner[0] : found[:, 0].max() + 1, corner[1] : found[:, 1].max() + 1].astype(float)
        for i in range(count):
            distance = gaussian_filter(distance_transform_edt(crop), 0.1)
            best = np.argwhere(distance == distance.max())[0]
            points[i] = best + corner
            crop[tuple(best)] = 0
        count = max((points[:, 0] != 0).sum(), (points[:, 1] != 0).sum())
    return points, int(count)


def plain_cluster(features, mask, points, iterations: int, reach: float, sharpness: float | None):
    """Section 3.2 of the paper for one image (C, h, w), with exponentials and sums, in float64."""
    height, width = mask.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    stacked = torch.cat([features.double(), torch.stack([rows, columns]).double()])
    cells = stacked[:, mask == 1].T
    centres = torch.stack([stacked[:, row, column] for row, column in points.tolist()])
    for _ in range(iterations):
        weights = torch.zeros(len(cells), len(centres), dtype=torch.double)
        for i, centre in enumerate(centres):
            squares = (cells - centre) ** 2
            distance = (squares[:, :-2].sum(1) + squares[:, -2:].sum(1) / reach**2).sqrt()
            if sharpness:
                variances = cells.var(0, correction=0)
                distance *= sharpness / (variances[:-2].sum() + variances[-2:].sum() / reach**2).sqrt()
            weights[:, i] = (-distance).exp() / (-distance).exp().sum()
        centres = weights.T @ cells
    return centres[:, :-2], weights


def blob(generator: torch.Generator, height: int, width: int, kind: str) -> torch.Tensor:
    """A (height, width) bool object."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    if kind == "noise":
        return torch.rand(height, width, generator=generator) < float(torch.rand((), generator=generator))
    top, left = (int(torch.randint(n, (), generator=generator)) for n in (height, width))
    high, wide = (int(torch.randint(1, n + 1, (), generator=generator)) for n in (height, width))
    mask[top : top + high, left : left + wide] = True
    if kind == "border":
        mask[0] = mask[:, 0] = True
    if kind == "smooth":
        low = torch.randn(1, 1, 4, 4, generator=generator)
        mask = F.interpolate(low, (height, width), mode="bilinear")[0, 0] > 0
    if kind == "all":
        mask[:] = True
    return mask if kind != "nothing" else torch.zeros_like(mask)


KINDS = ("noise", "box", "border", "smooth", "all", "nothing")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31), kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    sides=st.tuples(st.integers(1, 60), st.integers(1, 60)), most=st.integers(1, 6),
    area=st.sampled_from([1.0, 2.0, 4.0, 7.5, 100.0]),
)  # fmt: skip
def test_published_seeds_are_the_plain_ones(seed, kinds, sides, most, area):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.stack([blob(generator, *sides, kind) for kind in kinds])
    size = tuple((side - 1) // 8 + 1 if seed % 3 else max(1, side // 2) for side in sides)
    found = published_seeds(masks, size, most, area)
    assert found.points.dtype == found.counts.dtype == torch.long
    for i, mask in enumerate(masks):
        points, count = plain_seeds(mask.numpy(), size, most, area)
        assert found.points[i].tolist() == points.tolist() and int(found.counts[i]) == count, (i, kinds[i])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31), kind=st.sampled_from(KINDS), side=st.integers(9, 60), area=st.sampled_from([1.0, 4.0])
)
def test_clean_seeds_lie_on_the_cells_that_are_clustered(seed, kind, side, area):
    """Floor of the area; distinct cells; the first as far from the background, frame included, as any."""
    mask = blob(torch.Generator().manual_seed(seed), side, side + 3, kind)
    size = ((side - 1) // 8 + 1, (side + 2) // 8 + 1)
    grid = resize(mask[None].float(), size)[0] == 1
    found = clean_seeds(mask[None], size, 5, area)
    count, points = int(found.counts), found.points[0].tolist()
    assert count == min(int(grid.sum() / area), 5) and points[count:] == [[0, 0]] * (5 - count)
    assert len({tuple(point) for point in points[:count]}) == count and all(grid[r, c] for r, c in points[:count])
    distance = distance_transform_edt(np.pad(grid.numpy(), 1))[1:-1, 1:-1]
    if count:
        row, column = points[0]
        assert distance[row, column] == distance.max() and (row, column) == tuple(
            np.argwhere(distance == distance.max())[0]
        )
    for i in range(1, count):
        own = [np.hypot(*(np.indices(size) - np.array(p)[:, None, None])) for p in points[:i]]
        left = np.where(grid, np.minimum.reduce([distance, *own]), -1)
        assert left[tuple(points[i])] == pytest.approx(left.max())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31), kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    iterations=st.integers(1, 6), reach=st.sampled_from([1.0, 10.0, 100.0]), large=st.sampled_from([0.3, 1.0, 3.0]),
    sharpness=st.sampled_from([None, 0.5, 3.0]), wait=st.booleans(),
)  # fmt: skip
def test_clustering_is_the_plain_one_for_every_image_of_a_batch(seed, kinds, iterations, reach, large, sharpness, wait):
    generator = torch.Generator().manual_seed(seed)
    size, channels = (7, 6), 9
    masks = torch.stack([blob(generator, 49, 41, kind) for kind in kinds])
    features = large * torch.randn(len(kinds), channels, *size, generator=generator)
    seeds, small = published_seeds(masks, size, 4, 4.0), resize(masks.float(), size)
    with mock.patch.object(ops, "may_wait", lambda tensor: wait):
        found = cluster(features, small, seeds, iterations=iterations, reach=reach, sharpness=sharpness)
    assert found.prototypes.shape == (len(kinds), 4, channels) and found.assignment.shape == (len(kinds), 4, *size)
    for i in range(len(kinds)):
        count, inside = int(seeds.counts[i]), small[i] == 1
        if count >= 2 and inside.any():
            args = features[i], small[i], seeds.points[i, :count], iterations, reach, sharpness
            prototypes, weights = plain_cluster(*args)
            torch.testing.assert_close(found.prototypes[i, :count].double(), prototypes, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.assignment[i, :count, inside].T.double(), weights, rtol=1e-3, atol=1e-5)
            assert not found.assignment[i, :, ~inside].any()
        else:
            count = 1
            pooled = (features[i].double() * small[i]).sum((1, 2)) / (small[i].double().sum() + 5e-4)
            torch.testing.assert_close(found.prototypes[i, 0].double(), pooled, rtol=1e-4, atol=1e-5)
            assert torch.equal(found.assignment[i, 0], small[i])
        assert found.used[i].tolist() == [p < count for p in range(4)]
        assert not found.prototypes[i, count:].any() and not found.assignment[i, count:].any()


def test_with_a_sharpness_the_length_of_the_features_is_of_no_matter():
    """As published it decides everything: ten times as long, and each superpixel is little more than one cell."""
    features, mask = torch.randn(1, 8, 6, 6), torch.ones(1, 6, 6)
    seeds = Seeds(torch.tensor([[[1, 1], [4, 4]]]), torch.tensor([2]))
    for sharpness, same in ((None, False), (3.0, True)):
        found = [cluster(f * features, mask, seeds, reach=10 / f, sharpness=sharpness) for f in (1, 10)]
        largest = [float(each.assignment.amax()) for each in found]
        assert (abs(largest[0] - largest[1]) < 1e-5) == same
    flat = cluster(torch.ones_like(features), mask, seeds, reach=1e9, sharpness=3.0)
    assert torch.isfinite(flat.prototypes).all()


def test_clustering_survives_where_exponentials_underflow():
    """All distances above 104 are 0/0 in the authors' code; a seed beside the cells makes it so at once."""
    features, mask = 300 * torch.randn(1, 16, 5, 5), torch.ones(1, 5, 5)
    mask[0, 0, 0] = 0
    seeds = Seeds(torch.tensor([[[0, 0], [2, 2]]]), torch.tensor([2]))
    found = cluster(features, mask, seeds)
    assert torch.isfinite(found.prototypes).all() and found.prototypes[0, 0].abs().sum() > 0
    torch.testing.assert_close(found.assignment.sum((-2, -1)), torch.ones(1, 2))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 3),
    most=st.integers(1, 6),
    merge=st.sampled_from(["sum", "mean", "max"]),
)
def test_allocation_is_the_plain_one(seed, batch, most, merge):
    """Against torch's cosine similarity, one prototype at a time; unused ones are as if absent."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, 12, 5, 4, generator=generator)
    prototypes = torch.randn(batch, most, 12, generator=generator)
    used = torch.rand(batch, most, generator=generator) < 0.6
    used[:, int(torch.randint(most, (), generator=generator))] = True
    prototypes = torch.where(used[..., None], prototypes, 0.0)
    found = allocate(query, prototypes, used, merge=merge)
    for b in range(batch):
        own = used[b].nonzero().flatten().tolist()
        maps = torch.stack([F.cosine_similarity(prototypes[b, p, :, None, None], query[b], dim=0) for p in own])
        torch.testing.assert_close(found.similarity[b, own], maps, rtol=1e-5, atol=1e-6)
        expected = {"sum": maps.sum(0), "mean": maps.mean(0), "max": maps.amax(0)}[merge]
        torch.testing.assert_close(found.probability[b, 0], expected, rtol=1e-5, atol=1e-5)
        guide = torch.tensor(own)[maps.argmax(0)]
        assert torch.equal(found.guide[b], guide)
        assert torch.equal(found.features[b], prototypes[b][guide].permute(2, 0, 1))


@pytest.mark.parametrize("parts", [[1.0], [0.25, 0.75]])
def test_enrichment_of_prototypes_is_that_of_the_maps_they_are_laid_out_to(parts):
    """Values, and gradients of the query and of every parameter; for whole prototypes and for means of several."""
    kinds = AllocatedEnrichment, FeatureEnrichment
    enrichment, spread = (k(constant=0, pooled=8, resized=1, width=4, scales=(7, 5, 3)).eval() for k in kinds)
    spread.load_state_dict(enrichment.state_dict())
    query = torch.randn(2, 4, 6, 5, requires_grad=True)
    found, used = [], torch.tensor([[True, True, True], [True, False, False]])
    for plain in (False, True):
        told = allocate(query, torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)), used)
        told = replace(told, shares=sum(part * told.shares.roll(i, 1) for i, part in enumerate(parts)))
        if plain:
            args = None, torch.cat([query, told.features], 1), told.probability
            logits, inner = spread(*args)
        else:
            logits, inner = enrichment(told, query, told.probability)
        total = sum(maps.sin().sum() for maps in (logits, *inner))
        found.append(
            [logits, *inner, *torch.autograd.grad(total, [query, *(spread if plain else enrichment).parameters()])]
        )
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_equal_prototypes_are_told_apart_by_their_order():
    """The first of two equal ones, and never an unused one, even where every cosine is negative."""
    direction = torch.randn(1, 1, 6)
    prototypes = torch.cat([torch.zeros(1, 1, 6), direction, direction, torch.zeros(1, 1, 6)], 1)
    used = torch.tensor([[False, True, True, False]])
    found = allocate(-direction[0, 0].view(1, 6, 1, 1).expand(1, 6, 3, 3), prototypes, used)
    assert (found.guide == 1).all() and torch.equal(found.features, direction.view(1, 6, 1, 1).expand(1, 6, 3, 3))
    torch.testing.assert_close(found.probability, torch.full((1, 1, 3, 3), -2.0))


def test_half_precision_features_are_clustered_in_full_precision():
    features = torch.randn(1, 8, 6, 6).bfloat16()
    seeds, mask = Seeds(torch.tensor([[[1, 1], [4, 4]]]), torch.tensor([2])), torch.ones(1, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = cluster(features, mask, seeds)
        matched = allocate(features, found.prototypes, found.used)
    assert found.prototypes.dtype == matched.similarity.dtype == torch.float32
    prototypes, _ = plain_cluster(features[0].float(), mask[0], seeds.points[0], 5, 10.0, None)
    torch.testing.assert_close(found.prototypes[0].double(), prototypes, rtol=1e-4, atol=1e-5)
