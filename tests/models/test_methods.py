"""What holds for every method, on tiny backbones: options, ways and shots, maps, precision, layouts, files, caches."""

import inspect
import re
from dataclasses import replace
from typing import Literal, get_args, get_origin

import pytest
import torch
from method_tools import LOSSES, ONE_WAY, TINY, blind, everything, legal, of_shots, one_way

from fsslib.arguments import Positive, Share, Whole
from fsslib.checkpoints import load_model, save_model
from fsslib.errors import EpisodeError, ModelError
from fsslib.models import _METHODS, build_model
from fsslib.models.start import SHARPNESS
from fsslib.nn.backbones.cached import CachedBackbone
from fsslib.ops import resize

RELATIVE = (1.0, 0.5, 0.25, 0.125)
# Wrong values of an option, by what its annotation says.
WRONG = {bool: ("no", 1, None), int: (0, 8.0, True, "8"), Whole: (-2, 1.5), Positive: (0, -1.0, float("inf"))}
WRONG |= {float: (-1, "1", None, float("nan"), float("inf")), Share: (1.5, True, -0.1)}
REFUSED = [
    *((method, {"last": "layer2"}, "needs layer2 and layer3; tiny ends at layer2") for method in ONE_WAY),
    *((method, {"shots": 0}, "shots=0: expected a whole number from 1") for method in ONE_WAY),
    ("panet", {"width": 0}, "panet: width=0: expected a whole number of channels from 1"),
    ("sdaanet", {"teacher": "prototype"}, r"teacher=.*Did you mean 'prototypes'"),
    ("sdaanet", {"scales": 60}, "scales=60: expected a list"), ("sdaanet", {"scales": (60, 0.5)}, "scales="),
    ("sdaanet", {"teachr": "prototypes"}, "no option 'teachr': did you mean 'teacher'"),
    ("asgnet", {"iterations": 5}, "asgnet: iterations=5: expected two numbers"),
    ("asgnet", {"iterations": (10, 5, 5)}, "asgnet: iterations=.*expected two numbers"),
    ("asgnet", {"iterations": (10, 0)}, "asgnet: iterations=0: expected a whole number"),
    ("asgnet", {"allocation": "guide"}, "allocation=.*Did you mean 'guided'.*Valid: 'guided', 'expand'"),
    ("asgnet", {"scales": (60, 0.5)}, "scales="),
    ("asgnet", {"shot_merg": "pool"}, "no option 'shot_merg': did you mean 'shot_merge'"),
    ("asgnet", {"backbone": "resnet50", "weights": "imagenet"}, "Ways out: stem='classic', .*PATH.*weights=None"),
    ("hdmnet", {"mask_support": "feature"}, r"mask_support=.*Did you mean 'features'"),
    ("hdmnet", {"width": 40}, "width=40.*multiple of 32"), ("hdmnet", {"stages": 4}, "stages=4.*1 to 3 stages"),
    ("hdmnet", {"stage": 2}, "no option 'stage': did you mean 'stages'"),
    ("hdmnet", {"backbone": "resnet18", "weights": "imagenet"}, r"weights='imagenet': .*deep stem.*stem='classic'"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "options", "message"), REFUSED)
def test_options_that_make_no_sense(method, options, message):
    with pytest.raises(ModelError, match=message):
        TINY[method](**options)


@pytest.mark.parametrize("method", TINY)
def test_every_option_is_checked(method):
    checked = 0
    for name, parameter in inspect.signature(_METHODS[method]).parameters.items():
        kind = parameter.annotation
        for value in ("other",) if get_origin(kind) is Literal else WRONG.get(kind, ()):
            with pytest.raises(ModelError, match=re.escape(f"{name}={value!r}") + "(: expected| is unknown)"):
                TINY[method](**{name: value})
            checked += 1
        assert kind is not str, "a choice of texts is a Literal"
        assert get_origin(kind) is not Literal or parameter.default in get_args(kind)
    assert checked > 10


@pytest.mark.parametrize("method", ONE_WAY)
def test_the_stem_is_the_paper_s_unless_told_otherwise(method):
    with torch.device("meta"):
        stems = [TINY[method](backbone="resnet18", stem=stem).backbone.stem for stem in (None, "classic", "deep")]
    assert stems == ["classic" if method == "sdaanet" else "deep", "classic", "deep"]
    assert TINY[method]().backbone.name == "tiny", "backbones without a choice of stems have none"


@pytest.mark.parametrize("method", TINY)
def test_predicting_needs_no_labels_and_losses_do(method):
    model, episode = TINY[method](), legal(method, 2, 1, 1)
    assert torch.equal(model(blind(episode)).logits, model(episode).logits)
    with pytest.raises(EpisodeError, match=r"query_masks.*None"):
        model.losses(replace(episode, query_masks=None))
    with pytest.raises(EpisodeError, match="support_masks"):
        model(replace(episode, support_masks=episode.support_masks[..., :-1]))


INNER = {f"inner/{i}": (2, 2, side, side) for i, side in enumerate((6, 4, 3, 2))}
SCENES = dict.fromkeys(("scene/background", "scene/object", "merged/background"), (2, 1, 9, 9))
# Of two episodes of three shots.
MAPS = {
    "panet": {"prototypes": (2, 2, 64), "similarity": (2, 2, 9, 9)}
    | {"query_features": (2, 64, 9, 9), "support_features": (2, 1, 3, 64, 9, 9)},
    "sdaanet": {"support_features": (2, 3, 8, 9, 9), "support_attention": (2, 3, 2, 9, 9), "prior_shots": (2, 3, 9, 9)}
    | dict.fromkeys(("query_features", "query_reweighted"), (2, 8, 9, 9))
    | dict.fromkeys(("pooled", "gate", "students", "teacher"), (2, 3, 8))
    | dict.fromkeys(("prototypes", "query_prototype", "query_factor"), (2, 8))
    | {"prior": (2, 1, 9, 9), "attention": (2, 1, 9, 9)}
    | INNER,
    "asgnet": {"query_features": (2, 8, 9, 9), "guide_features": (2, 8, 9, 9), "seeds": (2, 3, 5, 2)}
    | {"prototypes": (2, 15, 8), "prototypes_used": (2, 15), "superpixels": (2, 3, 5, 9, 9)}
    | {"similarity": (2, 15, 9, 9), "probability": (2, 1, 9, 9), "guide": (2, 1, 9, 9)}
    | INNER,
    "hdmnet": {"query_features": (2, 32, 9, 9), "pooled": (2, 3, 32), "prior": (2, 2, 9, 9), "meta": (2, 2, 9, 9)}
    | {"base": (2, 16, 9, 9), "base_map": (2, 1, 9, 9), "scene_distance": (2, 3)}
    | {f"correlation/{i}": (2, side, side) for i, side in enumerate((9, 5, 3))}
    | {f"support/{i}": (2, 3, 8, side, side) for i, side in enumerate((9, 5, 3))}
    | {f"{n}/{i}": (2, 8, s, s) for i, s in enumerate((9, 5, 3)) for n in ("query", "matched", "decoded")}
    | SCENES,
}


@pytest.mark.filterwarnings("ignore:3 shots")
@pytest.mark.parametrize("method", TINY)
def test_maps_only_on_request_and_detached(method):
    model, episode = TINY[method](), legal(method, 2, 1, 3)
    assert model(episode).maps == {} and model(legal(method, 2, 2, 1)).maps == {}
    model.explain = True
    prediction = model(episode)
    maps = prediction.maps
    assert {name: tuple(value.shape) for name, value in maps.items()} == MAPS[method]
    assert prediction.logits.requires_grad and not any(value.requires_grad for value in maps.values())
    assert all(value.dtype == torch.float32 for value in maps.values())
    gone = {"teacher", "query_prototype"} if method == "sdaanet" else set()
    assert maps.keys() - model(blind(episode)).maps.keys() == gone
    if method in ONE_WAY:  # maps of several ways are stacked
        several = model(legal(method, 2, 2, 3)).maps
        assert {name: (2, 2, *shape[1:]) for name, shape in MAPS[method].items()} == {
            name: tuple(value.shape) for name, value in several.items()
        }


@pytest.mark.parametrize("method", ONE_WAY)
def test_several_ways_are_several_episodes(method):
    model, episode = TINY[method](), legal(method, 2, 3, 1)
    whole, parts = everything(model, episode), [everything(model, one_way(episode, w)) for w in range(3)]
    assert not whole["logits"][:, 0].any() and whole["logits"].shape == (2, 4, 33, 33)
    for name, value in whole.items():
        if name == "logits":
            value, expected = value[:, 1:], torch.stack([p["logits"][:, 1] - p["logits"][:, 0] for p in parts], 1)
        elif name.startswith("loss/"):
            expected = torch.stack([part[name] for part in parts]).mean()
        else:
            expected = torch.stack([part[name] for part in parts], 1)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


BY_SHOT = {"support_features", "support_attention", "prior_shots", "pooled", "gate", "students", "teacher", "seeds"}
BY_SHOT |= {"superpixels", "prototypes_used", "similarity", "guide", "scene_distance"}
BY_SHOT |= {f"support/{i}" for i in range(3)}
ORDERLESS = [
    ("panet", {}),
    *(("sdaanet", options) for options in ({}, {"attention": "each_support", "teachers": "integral"})),
    *(("asgnet", own) for own in ({}, {"shot_merge": "average"}, {"allocation": "expand"}, {"pyramid": False})),
    ("hdmnet", {"shot_weights": "matched", "shots": 3}),
]


@pytest.mark.parametrize(("method", "options"), ORDERLESS)
def test_the_order_of_the_shots_and_the_batch_do_not_matter(method, options):
    model, episode = TINY[method](**options), legal(method, 3, 1, 3)
    whole, turned = everything(model, episode), everything(model, of_shots(episode, [2, 0, 1]))
    singles = [everything(model, episode.select([i])) for i in range(3)]
    for name, value in whole.items():
        if not name.startswith("loss/"):
            torch.testing.assert_close(value, torch.cat([s[name] for s in singles]), rtol=1e-4, atol=1e-5)
        if name not in BY_SHOT and (method, name) != ("asgnet", "prototypes"):
            torch.testing.assert_close(value, turned[name], rtol=1e-4, atol=1e-5)
    if method in ("sdaanet", "hdmnet"):
        term = "loss/kd" if method == "sdaanet" else "loss/distill"
        mean = torch.stack([single[term] for single in singles]).mean()
        torch.testing.assert_close(whole[term], mean, rtol=2e-3, atol=1e-6)
    if method == "sdaanet":
        torch.testing.assert_close(whole["prior_shots"], turned["prior_shots"][:, [1, 2, 0]], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:2 shots")
@pytest.mark.parametrize("method", TINY)
def test_bfloat16_autocast_keeps_scores_in_single_precision(method):
    model, episode = TINY[method](), legal(method, 2, 2, 2)
    exact = model(episode).logits.detach()
    with torch.autocast("cpu", torch.bfloat16):
        logits, losses = model(episode).logits, model.train().losses(episode)
    assert logits.dtype == torch.float32 and all(loss.dtype == torch.float32 for loss in losses.values())
    torch.testing.assert_close(logits, exact, rtol=0, atol=0.5 if method == "panet" else 0.05)
    losses["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.filterwarnings("ignore:2 shots")
@pytest.mark.parametrize("method", ["sdaanet", "hdmnet"])
def test_channels_last(method):
    episode = legal(method, 2, 1, 2)
    model = TINY[method]().to(memory_format=torch.channels_last)
    torch.testing.assert_close(everything(model, episode), everything(TINY[method](), episode), rtol=1e-4, atol=1e-5)
    model.train().losses(episode)["total"].backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


STRIDE = {"backbone_options": {"stride": 8}}
SAVED = [
    ("sdaanet", STRIDE | {"teacher": "distributions", "scales": RELATIVE}),
    ("asgnet", STRIDE | {"scales": RELATIVE, "iterations": (3, 2)}),
    ("asgnet", STRIDE | {"pyramid": False, "seeds": "clean"}),
    ("hdmnet", {"stages": 2, "match_softmax": "support"}),
]


@pytest.mark.parametrize(("method", "options"), SAVED)
@torch.no_grad()
def test_saving_and_loading(method, options, tmp_path):
    model, episode = TINY[method](**options), legal(method)
    for norm in (part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)):
        norm.running_mean += 1
    loaded = load_model(save_model(model, tmp_path / "model.safetensors"))
    lists = {name: list(value) for name, value in options.items() if isinstance(value, tuple)}
    assert type(loaded) is _METHODS[method] and loaded.config == model.config | lists
    one, other = everything(loaded, episode), everything(model, episode)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Images (and where a mask comes before a stage, its inputs) that the backbone computes for two masks of one support.
ASKED = [
    *(("panet", {}, 4), ("sdaanet", {"prior_masking": "after"}, 4), ("sdaanet", {"prior_masking": "twice"}, 10)),
    *(("asgnet", {}, 4), ("asgnet", {"pyramid": False}, 4)),
    *(("hdmnet", {"mask_support": "image"}, 6), ("hdmnet", {"mask_support": "features"}, 4)),
]


@pytest.mark.parametrize(("method", "options", "computed"), ASKED)
@torch.no_grad()
def test_cached_features_give_the_same_logits(method, options, computed):
    """The second time the cache answers everything."""
    model, episode = TINY[method](**options).requires_grad_(False), legal(method, 2, 1, 1)
    episodes = episode, replace(episode, support_masks=1 - episode.support_masks.clamp_max(1))
    expected = [model(each).logits for each in episodes]
    model.backbone = CachedBackbone(model.backbone, dtype=torch.float32)
    for _ in range(2):
        for each, logits in zip(episodes, expected):
            torch.testing.assert_close(model(each).logits, logits, rtol=1e-5, atol=1e-6)
    assert model.backbone.misses == computed


@pytest.mark.parametrize("method", TINY)
def test_inference_mode_leaves_nothing_that_breaks_training(method):
    model, episode = TINY[method](), legal(method, 2, 1, 1, 37, 35)
    with torch.inference_mode():
        model(episode)
    losses = model.train().losses(episode)
    losses["total"].backward()
    assert losses.keys() == set(LOSSES[method]) and any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("method", ONE_WAY)
@pytest.mark.parametrize("start", ["features", "matching"])
@pytest.mark.parametrize("shots", [1, 3])
def test_training_can_begin_with_an_answer(method, start, shots):
    """The untrained method says what prototypes of its backbone's features say, or matching, and the decoder learns."""
    options = {"mask_support": "features", "ensemble": False} if method == "hdmnet" else {}
    net = TINY[method](start=start, **options)
    plain = build_model({"features": "panet"}.get(start, start), backbone=net.backbone).eval()
    episode = legal(method, 2, 1, shots)
    plain.explain = True
    expected, found = plain(episode), net(episode).logits
    if method == "hdmnet":  # probabilities, of the grid's cells
        scores = expected.maps["similarity"] if start == "features" else SHARPNESS * expected.maps["refined"]
        assert torch.allclose(found, resize(scores.softmax(1), (33, 33)), atol=1e-6)
    else:
        factor = 1.0 if start == "features" else SHARPNESS / plain.scale
        assert torch.allclose(found, factor * expected.logits, atol=1e-5)
    assert not torch.allclose(found, TINY[method](**options)(episode).logits, atol=1e-3)
    net.train()
    net.losses(episode)["total"].backward()
    decoder = {"hdmnet": "transformer", "sdaanet": "enrichment", "asgnet": "context"}[method]
    last = getattr(net, decoder).classifier[4 if method == "hdmnet" else -1]
    assert last.weight.grad.abs().max() > 0
