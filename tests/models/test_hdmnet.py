"""HDMNet on a tiny backbone: what every option changes, ways, shots, maps, files, caches."""

from dataclasses import replace

import pytest
import torch
from core_tools import random_episode
from hdmnet_tools import LOSSES, everything, tiny
from method_tools import differing

from fsslib.errors import EpisodeError
from fsslib.losses import segmentation
from fsslib.models.hdmnet import HDMNet
from fsslib.ops import resize

SEED = 4  # both first supports are the farther scenes, so that sorting changes their order


def awake(**options) -> HDMNet:
    """A model for two shots whose ensemble is no identity, with the weights that every other one has, too."""
    model, first = tiny(**{"shots": 2} | options), tiny(shots=2)
    with torch.no_grad():
        first.ensemble.scene.weight[0, 1] = -0.5
        first.ensemble.background.weight.copy_(torch.tensor([0.8, 0.3]).view(1, 2, 1, 1))
        for parameter in first.ensemble.reweight.parameters():
            parameter.mul_(30)
        own = model.state_dict()
        same = {n: v for n, v in first.state_dict().items() if n in own and own[n].shape == v.shape}
    model.load_state_dict(same, strict=False)
    return model


STAGES = range(3)
MERGED = {"merged/background", "logits", "loss/main", "loss/total"}
META = MERGED | {
    "scene/background", "scene/object", "meta",
    *(f"{n}/{i}" for n in ("matched", "decoded") for i in STAGES),
}  # fmt: skip
CORRELATED = META | {"loss/distill", *(f"correlation/{i}" for i in STAGES)}
REFINED = CORRELATED | {f"{side}/{i}" for side in ("query", "support") for i in STAGES}
# What may change; everything else must stay to the bit.
OPTIONS = {
    "distil_weight": ({"distil_weight": 0.0}, {"loss/total"}),
    "base_weight": ({"base_weight": 0.0}, {"loss/total"}),
    "distil_truth": ({"distil_truth": False}, {"loss/distill", "loss/total"}),
    "match_softmax": ({"match_softmax": "support"}, META),
    "match_temperature": ({"match_temperature": 1.0}, CORRELATED),
    "mask_support": ({"mask_support": "features"}, REFINED | {"pooled", "prior", "scene_distance"}),
    "self_attention": ({"self_attention": False}, REFINED),
    "priors": ({"priors": False}, CORRELATED | {"prior", *(f"query/{i}" for i in STAGES)}),
    "shot_weights": ({"shot_weights": "matched"}, MERGED | {"scene/background", "scene/object"}),
    "shot_hidden": ({"shot_hidden": 0}, MERGED | {"scene/background", "scene/object"}),
    "transformer_lr": ({"transformer_lr": 0.5}, set()), "dropout": ({"dropout": 0.9}, set()),
    "attention_dropout": ({"attention_dropout": 0.9}, set()),
    "freeze": ({"freeze": False}, set()), "bn": ({"bn": "batch"}, set()),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain():
    """An episode and what the model without options makes of it."""
    episode = random_episode(2, 1, 2, seed=SEED, extras=True)
    return episode, everything(awake(), episode)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_changes_what_it_says_and_nothing_else(option, plain):
    (options, changes), (episode, before) = OPTIONS[option], plain
    assert differing(before, everything(awake(**options), episode)) == changes


@pytest.mark.parametrize("stages", [1, 2])
def test_fewer_stages(stages, plain):
    episode, full = plain
    found = everything(awake(stages=stages), episode)
    gone = {f"{n}/{i}" for n in ("query", "support", "matched", "decoded", "correlation") for i in range(stages, 3)}
    assert full.keys() - found.keys() == gone
    for name in ("query/0", "support/0", "correlation/0", "matched/0"):
        assert torch.equal(full[name], found[name])
    assert found["logits"].shape == full["logits"].shape and found["loss/distill"] != full["loss/distill"]


def test_without_the_ensemble_the_matching_network_answers_alone(plain):
    episode, full = plain
    found = everything(awake(ensemble=False), episode)
    assert full.keys() - found.keys() == {"scene_distance", "scene/background", "scene/object", "merged/background"}
    torch.testing.assert_close(found["logits"], resize(found["meta"], (33, 33)))
    assert {n for n in found if not torch.equal(found[n], full[n])} == {"logits", "loss/main", "loss/total"}
    assert not any(name.startswith("ensemble") for name in awake(ensemble=False).state_dict())


def test_maps_and_losses_are_what_the_equations_make_of_each_other():
    episode, weights = random_episode(2, 1, 2, extras=True), {"distil_weight": 2.0, "base_weight": 3.0}
    found = everything(awake(**weights), episode)
    torch.testing.assert_close(found["base_map"], found["base"][:, 1:].sum(1, keepdim=True))
    merged = torch.cat([found["merged/background"], found["scene/object"]], 1)
    torch.testing.assert_close(found["logits"], resize(merged, (33, 33)))
    known = segmentation(resize(found["base"].log(), (33, 33)), episode.base_masks)
    assert abs(known - found["loss/base"]) < 0.05, "logarithms before and after enlarging nearly agree"
    for name in ("base", "meta"):
        torch.testing.assert_close(found[name].sum(1), torch.ones(2, 9, 9))
    assert found["prior"].abs().max() <= 1 and all(found[f"correlation/{i}"].abs().max() <= 10 for i in STAGES)
    main, distill, base, total = (found[f"loss/{name}"] for name in LOSSES)
    torch.testing.assert_close(total, main + 2 * distill + 3 * base)


@pytest.mark.parametrize("way", [1, 2])
def test_in_training_the_own_class_is_no_background(way, monkeypatch):
    """One way: `class_index`. Several: the base class that the query shows under the way's label."""
    model, episode, seen = awake(), random_episode(2, way, 2, extras=True), []
    kept = episode.base_masks.clone()
    own = [[3, 0][:way], [7, 12][:way]]
    for b, w in ((b, w) for b in range(2) for w in range(way)):
        kept[b][episode.query_masks[b] == w + 1] = own[b][w]
    episode = replace(episode, base_masks=kept, class_index=torch.tensor([o[0] - 1 for o in own]) if way == 1 else None)
    original = model.ensemble.forward
    monkeypatch.setattr(model.ensemble, "forward", lambda m, base, d: (seen.append(base), original(m, base, d))[1])
    model.losses(episode)
    model.explain = True
    base = model(episode).maps["base"]
    base = base if way == 1 else base[:, 0]
    for w in range(way):
        for b in range(2):
            channels = [c for c in range(1, 16) if c != own[b][w]]
            torch.testing.assert_close(seen[w][b, 0], base[b, channels].sum(0))
    torch.testing.assert_close(seen[way][:, 0], base[:, 1:].sum(1))


def test_losses_need_the_base_annotation():
    model, episode = tiny(), random_episode(2, 1, 1, extras=True)
    for missing in (["base_masks"], ["class_index"], ["base_masks", "class_index"]):
        with pytest.raises(EpisodeError, match=rf"^{', '.join(missing)}: found None: HDMNet"):
            model.losses(replace(episode, **dict.fromkeys(missing)))
    with pytest.raises(EpisodeError, match=r"^base_masks: found None"):
        model.losses(random_episode(2, 2, 1))
    assert model.losses(replace(random_episode(2, 2, 1, extras=True), class_index=None))["total"].isfinite()


def test_an_image_too_small_for_the_reduced_keys_is_said():
    episode = random_episode(height=9, width=9)
    with pytest.raises(EpisodeError, match=r"\(3, 3\) cells.*at least 4 cells.*self_attention=False"):
        tiny()(episode)
    assert tiny(self_attention=False)(episode).logits.shape[-2:] == (9, 9)


@pytest.mark.parametrize("place", [1, 2], ids=["prototype", "priors"])
def test_what_the_query_merges_can_be_exchanged(place):
    """A hook gets features, prototype and priors apart, and what it returns counts (notebook 06 lives on it)."""
    model, episode = tiny(), random_episode(2, 1, 1)

    def exchanged(module, inputs):
        return tuple(x.roll(1, 0) if i == place else x for i, x in enumerate(inputs))

    before = model(episode).logits
    with model.query_merge.register_forward_pre_hook(exchanged):
        assert not torch.allclose(model(episode).logits, before, atol=1e-4)
    assert torch.equal(model(episode).logits, before)
