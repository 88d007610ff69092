"""SD-AANet on a tiny backbone: what every option changes, and that it changes nothing else; the teacher; sizes."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from core_tools import random_episode
from method_tools import differing, of_shots
from sdaanet_tools import LOSSES, RELATIVE, everything, tiny

from fsslib import load_model, save_model
from fsslib.losses import distillation, log_distribution
from fsslib.models.sdaanet import SDAANet
from fsslib.ops import resize

INNER = {f"inner/{i}" for i in range(4)}
DECODED = {"logits", "main", "aux", "total"} | INNER
# What may change; everything else must stay to the bit.
OPTIONS = {
    "alpha=0": ({"alpha": 0.0}, {"total"}), "beta=0": ({"beta": 0.0}, {"total"}),
    "aux_weight=0": ({"aux_weight": 0.0}, {"total"}), "temperature": ({"temperature": 1.0}, {"kd", "total"}),
    "kd_factor": ({"kd_factor": 0.3}, {"kd", "total"}), "kd_mean": ({"kd_mean": "prototypes"}, {"kd", "total"}),
    "teacher": ({"teacher": "distributions"}, {"kd", "total"}),
    "teacher_query": ({"teacher_query": "reweighted"}, {"kd", "total", "teacher"}),
    "teachers": ({"teachers": "integral"}, {"kd", "total", "teacher"}),
    "query_factor=mean": ({"query_factor": "mean"}, {"query_factor", "query_reweighted"} | DECODED),
    "query_factor=average": ({"query_factor": "average"}, {"query_factor", "query_reweighted"} | DECODED),
    "query_factor=none": ({"query_factor": "none"}, {"query_factor", "query_reweighted"} | DECODED),
    "attention": ({"attention": "each_support"}, {"attention"} | DECODED),
    "prior_masking": ({"prior_masking": "after"}, {"prior", "prior_shots"} | DECODED),
    "scales": ({"scales": RELATIVE}, DECODED), "detach_teacher": ({"detach_teacher": True}, set()),
    "dropout": ({"dropout": 0.9}, set()), "freeze": ({"freeze": False}, set()), "bn": ({"bn": "batch"}, set()),
    "shots": ({"shots": 5}, set()),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_changes_what_it_says_and_nothing_else(option):
    options, changes = OPTIONS[option]
    episode, models = random_episode(2, 1, 2), (tiny(), tiny(**options))
    for model in models:
        # Untrained, the attention hardly matters: its differences would drown in the last digit of a loss.
        model.saam.query_map.weight.data *= 100
    assert differing(*(everything(model, episode) for model in models)) == changes


def test_the_losses_are_what_the_options_make_of_them():
    episode = random_episode(2, 1, 2)
    plain = everything(tiny(), episode)
    assert plain["kd"] > 0 and plain["saam"] > 0
    expected = plain["main"] + plain["aux"] + 50 * plain["kd"] + 0.5 * plain["saam"]
    torch.testing.assert_close(plain["total"], expected)
    weighed = everything(tiny(alpha=2.0, beta=3.0, aux_weight=0.25), episode)
    expected = plain["main"] + 0.25 * plain["aux"] + 2 * plain["kd"] + 3 * plain["saam"]
    torch.testing.assert_close(weighed["total"], expected)
    found = [everything(tiny(**options), episode)["kd"] for options in ({"kd_mean": "prototypes"}, {"kd_factor": 0.3})]
    torch.testing.assert_close(found, [8 * plain["kd"], plain["kd"] / 3], rtol=1e-5, atol=0)


def strong(**options) -> SDAANet:
    """As `tiny`, with features so large that the distillation is no small difference of large numbers."""
    model = tiny(**options)
    for reduction in (model.down_query, model.down_supp):
        reduction[0].weight.data *= 20
    return model


def test_the_teachers_are_what_the_options_make_of_them():
    """Against the equations, from the maps."""
    episode = random_episode(2, 1, 3)
    maps = everything(strong(), episode)
    gate, student, query = maps["gate"], maps["students"], maps["query_prototype"].unsqueeze(1)
    torch.testing.assert_close(student, maps["pooled"] * (gate + 1) / 2)
    torch.testing.assert_close(maps["prototypes"], student.mean(1))
    assert maps["prior"].amin() >= 0 and maps["prior"].amax() <= 1
    factor = ((gate + 1) / 2).prod(1) * (gate.mean(1) + 3) / 4
    torch.testing.assert_close(maps["query_factor"], factor)
    torch.testing.assert_close(maps["query_reweighted"], maps["query_features"] * factor[..., None, None])
    own = query * (gate + 1) / 2
    mean = student.mean(1, keepdim=True).expand_as(student)
    teachers = [
        ({}, (query + student) / 2),
        ({"teacher_query": "reweighted"}, (own + student) / 2),
        ({"teachers": "integral"}, (query + mean) / 2),
        ({"teachers": "integral", "teacher_query": "reweighted"}, (own.mean(1, keepdim=True) + mean) / 2),
    ]
    seen = []
    for options, teacher in teachers:
        for kind in ("prototypes", "distributions"):
            found = everything(strong(teacher=kind, **options), episode)
            torch.testing.assert_close(found["teacher"], teacher)
            log_teacher = log_distribution(teacher)
            if kind == "distributions":
                other = mean if "teachers" in options else student
                log_teacher = (((2 * teacher - other) / 5).softmax(-1) / 2 + (other / 5).softmax(-1) / 2).log()
            torch.testing.assert_close(found["kd"], distillation(student, log_teacher), rtol=1e-4, atol=0)
            seen.append(float(found["kd"]))
    assert all(larger > 1.01 * smaller for smaller, larger in pairwise(sorted(seen))), seen
    single = random_episode(2, 1, 1)
    for query_of in ("original", "reweighted"):
        pair = [everything(strong(teachers=t, teacher_query=query_of), single)["kd"] for t in ("separate", "integral")]
        torch.testing.assert_close(*pair, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("options", "channels", "absent", "zero"), [
    ({"sdpm": False}, 18, {"gate", "query_factor", "teacher", "query_prototype"}, {"kd"}),
    ({"saam": False}, 17, {"attention", "support_attention"}, {"saam"}),
    ({"prior": False}, 17, {"prior", "prior_shots"}, set()),
    ({"sdpm": False, "saam": False, "prior": False}, 16, {"gate", "attention", "prior"}, {"kd", "saam"}),
])  # fmt: skip
def test_a_part_that_is_off_leaves_no_trace(options, channels, absent, zero):
    model, episode = tiny(**options), random_episode(2, 1, 2)
    full = everything(tiny(), episode)
    found = everything(model, episode)
    assert model.enrichment.merge[0][0].in_channels == channels and len(full.keys() & absent) == len(absent)
    assert not found.keys() & absent and {name for name in LOSSES if found[name] == 0} == zero
    parts = {name for name in options if name != "prior"}
    assert not any(name.split(".")[0] in parts for name in model.state_dict())
    if not options.get("sdpm", True):
        assert torch.equal(found["students"], found["pooled"])
        assert torch.equal(found["query_reweighted"], found["query_features"])
    losses = model.train().losses(episode)
    losses["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@torch.no_grad()
def test_the_deepest_stage_around_the_objects_is_all_that_the_prior_needs():
    """With `explain` whole maps are computed; nothing else may depend on it."""
    model, episode = tiny(backbone="resnet18"), random_episode(2, 1, 3)
    objects = torch.zeros_like(episode.support_masks)
    objects[:, :, 0, 9:20, 3:12] = objects[1, :, 1, 30:, 30:] = 1  # one at a corner, and three empty ones
    episode = replace(episode, support_masks=objects)
    deep, logits = [], []
    for model.explain in (True, False):
        query, support = (dict(side) for side in model.features(episode))
        deep.append(support["deep"][:, 0])
        own = {name: value[:, 0] for name, value in support.items()}
        logits.append(model.segment(query, own, objects[:, 0], None, False).logits)
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)
    inside = resize(objects[:, 0].float(), (5, 5))[:, :, None] > 0
    torch.testing.assert_close(*(maps * inside for maps in deep), rtol=1e-4, atol=1e-5)
    assert (deep[1][:, 0, :, :, 3:] == 0).all() and not (deep[1][:, 0] == 0).all()


def test_a_width_of_one():
    assert tiny(width=1)(random_episode()).logits.shape == (2, 2, 33, 33)


def test_the_same_support_twice_is_one_support_but_for_the_factor():
    """One gate twice multiplies twice, which is the published code's choice; with mean or average it does not."""
    episode = random_episode(2, 1, 1)
    twice = of_shots(episode, [0, 0])
    for factor in ("mean", "average"):
        found, expected = (everything(tiny(query_factor=factor), e) for e in (twice, episode))
        for name in ("logits", "prior", "attention", *LOSSES):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    one, average = (everything(tiny(query_factor=f), episode)["query_factor"] for f in ("product", "average"))
    torch.testing.assert_close(average, one)
    found, expected = (everything(tiny(), e)["query_factor"] for e in (twice, episode))
    assert (found < expected).all()


def test_a_shared_projection_is_one_for_query_and_support(tmp_path):
    """The same picture has one prototype then; the rest of the network begins as it would without."""
    apart, shared = tiny(sdpm=False), tiny(sdpm=False, shared_projection=True)
    assert torch.equal(apart.enrichment.classifier[0].weight, shared.enrichment.classifier[0].weight)
    assert sum(x.numel() for x in apart.parameters()) - sum(x.numel() for x in shared.parameters()) == (
        apart.down_supp[0].weight.numel()
    )
    images = torch.randn(2, shared.down_query[0].in_channels, 5, 5)
    assert not torch.equal(apart.down_query(images), apart.down_supp(images))
    assert torch.equal(shared.down_query(images), shared.down_supp(images))
    again = load_model(save_model(shared, tmp_path / "shared.safetensors"))
    assert again.down_supp is again.down_query and torch.equal(again.down_query(images), shared.down_query(images))


def test_the_attention_may_come_from_the_supervised_head():
    """The map is then the object's probability of the support's own last layer, on the support's projection: a query
    equal to its support gets the support's own answer, the mask's loss and the segmentation's train the same parts."""
    net, plain = tiny(attention_from="supervised_head"), tiny()
    assert net.saam.query_map is None and plain.saam.query_map is not None
    episode = random_episode(2, 1, 1)
    twin = replace(episode, query_images=episode.support_images[:, 0, 0])
    net.explain = True
    maps = net.eval()(twin).maps
    torch.testing.assert_close(maps["attention"], maps["support_attention"][:, 0].softmax(1)[:, 1:])
    other = net(episode).maps["attention"]
    assert (other - maps["attention"]).abs().max() > 1e-4 and other.min() >= 0 and other.max() <= 1
    for model in (net, plain):
        model.losses(episode)["main"].backward()
    taught = [model.saam.support_logits.weight.grad is not None for model in (net, plain)]
    assert taught == [True, False], "the segmentation loss reaches the supervised layer only where it makes the map"
