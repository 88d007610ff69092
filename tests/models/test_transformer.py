"""HDMNet's parts against plain twins of their equations: attention, correlation, pyramid, scenes, distillation."""

import itertools
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib import ops
from fsslib.losses import correlation_distillation
from fsslib.models import hdmnet as transformer
from fsslib.models.hdmnet import Attention, LinearConvs, MatchingPyramid, MixFFN, correlate


def plain_correlation(query, key, value, masks, temperature, softmax):
    """All pairs, one episode and head after the other, in float64."""
    query, key, value, masks = (x.double() for x in (query, key, value, masks))
    found = torch.zeros(*query.shape[:3], value.shape[-1], dtype=torch.double)
    weight = torch.zeros(query.shape[0], query.shape[2], dtype=torch.double)
    for b, h in itertools.product(range(query.shape[0]), range(query.shape[1])):
        unit = [x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12) for x in (query[b, h], key[b, h])]
        scores = unit[0] @ unit[1].T / temperature
        if softmax == "query":
            attention = scores.softmax(0) * masks[b]
        else:
            attention = scores.masked_fill(masks[b] == 0, float("-inf")).softmax(1).nan_to_num(0)
        found[b, h] = attention @ value[b, h]
        weight[b] += (scores * masks[b]).sum(1) / (masks[b].sum() + 1e-9) / query.shape[1]
    return found, weight


def drawn(seed: int, shots: int, shares: tuple[float, ...]):
    """Query, keys, values by head, and masks of one episode for each share of object cells."""
    g = torch.Generator().manual_seed(seed)
    batch, heads, cells = len(shares), 2, 12
    query, key, value = (torch.randn(batch, heads, n * cells, 5, generator=g) for n in (1, shots, shots))
    masks = torch.rand(batch, shots * cells, generator=g) < torch.tensor(shares)[:, None]
    return query, key, value, masks.float()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 5), st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=3),
    st.sampled_from([0.05, 0.1, 1.0]), st.sampled_from(["query", "support"]), st.booleans(),
)  # fmt: skip
def test_correlation_is_that_of_all_pairs(seed, shots, shares, temperature, softmax, wait):
    *vectors, masks = drawn(seed, shots, tuple(shares))
    with mock.patch.object(ops, "may_wait", lambda tensor: wait):
        found = correlate(*vectors, masks, temperature, softmax)
    expected = plain_correlation(*vectors, masks, temperature, softmax)
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=2e-5)
    empty = masks.sum(1) == 0
    assert not found[0][empty].any() and not found[1][empty].any()


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("softmax", ["query", "support"])
def test_correlation_has_the_gradients_of_all_pairs(softmax, wait, monkeypatch):
    monkeypatch.setattr(ops, "may_wait", lambda tensor: wait)
    *vectors, masks = drawn(3, 2, (0.0, 0.3, 1.0))
    gradients = []
    for function in (correlate, plain_correlation):
        inputs = [vector.double().requires_grad_() for vector in vectors]
        found, weight = function(*inputs, masks, 0.1, softmax)
        weights = torch.linspace(-1, 1, weight.numel(), dtype=weight.dtype).view_as(weight)
        total = (found * found.detach().cos()).sum() + (weights * weight).sum()
        gradients.append(torch.autograd.grad(total, inputs))
    for ours, theirs in zip(*gradients):
        assert torch.isfinite(ours).all() and theirs[1:].abs().sum() > 0 and not ours[0].any()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_support_cell_spreads_one_unit_and_zero_vectors_are_no_trouble():
    query, key, value, masks = drawn(0, 2, (0.5, 1.0))
    found, _ = correlate(query, key, torch.ones_like(value), masks, 0.1, "query")
    torch.testing.assert_close(found.sum(2), masks.sum(1)[:, None, None].expand(2, 2, 5))
    usual, _ = correlate(query, key, torch.ones_like(value), masks, 0.1, "support")
    torch.testing.assert_close(usual, torch.ones_like(usual))
    inputs = [torch.zeros_like(x).requires_grad_() for x in (query, key, value)]
    found, weight = correlate(*inputs, masks, 0.1, "query")
    (found.sum() + weight.sum()).backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs) and not weight.any()


@pytest.mark.parametrize("reduction", [1, 2, 4])
@torch.no_grad()
def test_both_ways_to_attend_are_the_softmax_of_the_paper(reduction, monkeypatch):
    """Also on a grid that the squares do not divide, whose rest has no key."""
    layer, size = Attention(8, 2, reduction).eval(), (9, 10)
    tokens = torch.randn(3, 90, 8)
    results = []
    for small in (transformer.SMALL, 0):
        monkeypatch.setattr(transformer, "SMALL", small)
        results.append(layer(tokens, size))
    source = tokens
    if reduction > 1:
        small = layer.reduce(tokens.transpose(1, 2).unflatten(-1, size))
        assert small.shape[-2:] == (9 // reduction, 10 // reduction)
        source = small.flatten(2).transpose(1, 2)
        offset = source - source.mean(-1, keepdim=True)
        norm = layer.norm
        source = offset / (offset.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight + norm.bias
    heads = []
    for channels in (slice(0, 4), slice(4, 8)):
        q, k, v = (x[..., channels] for x in (layer.query(tokens), layer.key(source), layer.value(source)))
        heads.append(((q @ k.transpose(1, 2)) / (4**0.5 + 1e-9)).softmax(-1) @ v)
    expected = layer.out(torch.cat(heads, -1))
    for found in results:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_every_layer_norm_adds_a_millionth():
    """In the golden files it almost hides."""
    norms = [part for part in MatchingPyramid(8, 8).modules() if isinstance(part, torch.nn.LayerNorm)]
    assert len(norms) > 9 and {part.eps for part in norms} == {1e-6}


@torch.no_grad()
def test_only_the_depthwise_convolution_knows_positions():
    tokens, order = torch.randn(2, 12, 8), torch.randperm(12)
    layer = Attention(8, 2).eval()
    torch.testing.assert_close(layer(tokens[:, order], (3, 4)), layer(tokens, (3, 4))[:, order])
    mix = MixFFN(8).eval()
    features = torch.randn(2, 8, 3, 4)
    turned = features.flatten(2)[..., order].unflatten(-1, (3, 4))
    expected = mix(features).flatten(2)[..., order].unflatten(-1, (3, 4))
    assert (mix(turned) - expected).abs().max() > 1e-2
    mix[1].weight[..., 0, :] = mix[1].weight[..., 2, :] = mix[1].weight[..., :, 0] = mix[1].weight[..., :, 2] = 0
    expected = mix(features).flatten(2)[..., order].unflatten(-1, (3, 4))
    torch.testing.assert_close(mix(turned), expected)


@torch.no_grad()
def test_the_pyramid_of_a_batch_is_that_of_each_episode():
    pyramid = MatchingPyramid(8, 16).eval()
    query, support, priors = torch.randn(3, 8, 9, 10), torch.randn(3, 2, 8, 9, 10), torch.rand(3, 2, 9, 10)
    masks = torch.randint(0, 2, (3, 2, 66, 75))
    masks[1, 0], masks[2, 1] = 0, 1
    whole, correlations, maps = pyramid(query, support, masks, priors)
    assert whole.shape == (3, 2, 9, 10) and [tuple(c.shape[1:]) for c in correlations] == [(3, 3), (5, 5), (9, 10)]
    for b in range(3):
        one = slice(b, b + 1)
        alone, own, inside = pyramid(query[one], support[one], masks[one], priors[one])
        torch.testing.assert_close(whole[one], alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close([c[one] for c in correlations], own, rtol=1e-4, atol=1e-5)
        for name, value in inside.items():
            torch.testing.assert_close(maps[name][one], value, rtol=1e-4, atol=1e-5)
    turned = pyramid(query, support.flip(1), masks.flip(1), priors)[0]
    torch.testing.assert_close(whole, turned, rtol=1e-4, atol=1e-5)


def test_a_distillation_term_teaches_its_own_map_alone():
    """The values are the golden files'."""
    labels = torch.randint(0, 2, (3, 33, 40))
    labels[:, 8:25, 4:30] = 1
    labels[1] = 0
    labels[2, :, :20] = 255
    maps = [torch.randn(3, *size, requires_grad=True) for size in ((3, 3), (5, 5), (9, 10))]
    found = correlation_distillation(labels, maps)
    for i, term in enumerate(found):
        reached = torch.autograd.grad(term, maps, allow_unused=True, retain_graph=True)
        assert [grad is not None and bool(grad.any()) for grad in reached] == [j == i for j in range(3)]
    without = correlation_distillation(labels, maps, truth=False)
    assert [float(x.detach()) for x in without] == [float(x.detach()) for x in found[1:]]
    assert len(correlation_distillation(labels, maps[:1])) == 1
    assert correlation_distillation(labels, maps[:1], truth=False) == []


def test_the_ground_truth_teaches_cells_that_see_only_object():
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[:, 4:13, 4:13] = 1
    term = correlation_distillation(labels, [torch.zeros(1, 4, 4)])[0]
    inside = torch.zeros(4, 4)
    inside[1:3, 1:3] = 1  # a cell's centre lies between two pixels; both must be object
    expected = torch.tensor(16 / 4).log()
    torch.testing.assert_close(term, expected, rtol=1e-5, atol=1e-5)
    nothing, everything = (correlation_distillation(x, [torch.zeros(1, 4, 4)])[0] for x in (0 * labels, 0 * labels + 1))
    assert abs(float(nothing)) < 1e-5 and abs(float(everything)) < 1e-5


def test_convolutions_without_activations_are_one():
    """Values, borders, and gradients of every parameter; batch norms that are no identity."""
    g = torch.Generator().manual_seed(0)
    convs = LinearConvs(5, 12, 4, torch.nn.BatchNorm2d(4), torch.nn.ReLU()).double().eval()
    for name, value in convs.state_dict().items():
        if "tracked" not in name:
            value.copy_(
                torch.rand(value.shape, generator=g) + 0.1 if "var" in name else torch.randn(value.shape, generator=g)
            )
    features = torch.randn(2, 5, 6, 7, generator=g, dtype=torch.double).requires_grad_()
    learned, found = [features, *convs.parameters()], []
    for result in (convs(features), torch.nn.Sequential.forward(convs, features)):
        found.append([result, *torch.autograd.grad(result.sin().sum(), learned)])
    assert len(found[0]) == 14 and all(value.abs().max() > 1e-3 for value in found[0])
    torch.testing.assert_close(*found)
    with torch.no_grad():
        convs.train()
        assert (convs(features) - found[0][0]).abs().max() > 1e-3, "batch statistics"
