"""Matching, the baseline without training: what each step does on features that are written down, and every file."""

import math
from dataclasses import replace

import pytest
import torch
from core_tools import SIZE, panet, random_episode, shapes
from method_tools import SPOILED, of_shots, spoiled
from torch import Tensor

from fsslib import Episode, EpisodeSampler, Protocol, build_model
from fsslib.checkpoints import load_model, save_model
from fsslib.errors import EpisodeError, ModelError, TrainingError
from fsslib.evaluation import evaluate
from fsslib.models.matching import Matching, class_shares, log_densities, refined
from fsslib.models.shot_by_shot import ShotByShot
from fsslib.nn.backbones.base import Backbone
from fsslib.training import Schedule, train_episodes


def matching(backbone: str | Backbone = "tiny", **options) -> Matching:
    """A seeded one, in eval mode."""
    torch.manual_seed(0)
    return build_model("matching", backbone=backbone, **options).eval()


@pytest.fixture(scope="module")
def plain():
    return matching(prototypes="means", refine=False, stages=["layer4"], scale=20.0)


@torch.no_grad()
def test_one_mean_and_no_refinement_is_prototype_matching(plain):
    reference, episode = panet(), random_episode(3, 1, 1)
    torch.testing.assert_close(plain(episode).logits, reference(episode).logits, rtol=0, atol=1e-4)
    several = random_episode(2, 2, 3)
    prototypes = torch.stack([_mean_under(plain, several, value) for value in (0, 1, 2)], 1)
    query = plain.features(several)[0]["layer4"]
    cosines = torch.nn.functional.cosine_similarity(query[:, None], prototypes[..., None, None], dim=2)
    plain.explain = True
    torch.testing.assert_close(plain(several).maps["similarity"], 20 * cosines, rtol=1e-4, atol=1e-4)
    plain.explain = False


def _mean_under(model: Matching, episode: Episode, value: int) -> Tensor:
    """(B, C): the mean of the features, enlarged, over the background of all supports (0), or the objects of a way."""
    features = model.features(episode)[1]["layer4"].flatten(0, 2)
    large = torch.nn.functional.interpolate(features, (SIZE, SIZE), mode="bilinear")
    large = large.unflatten(0, episode.support_masks.shape[:3])
    chosen = episode.support_masks == 0 if value == 0 else episode.support_masks == 1
    if value:
        large, chosen = large[:, value - 1 : value], chosen[:, value - 1 : value]
    return (large * chosen[:, :, :, None]).sum((1, 2, 4, 5)) / chosen.sum((1, 2, 3, 4))[:, None]


def test_densities_are_those_of_the_formula_and_survive_any_scale():
    generator = torch.Generator().manual_seed(0)
    query, support = (torch.randn(*shape, generator=generator) for shape in ((2, 6, 3, 4), (2, 2, 3, 6, 3, 4)))
    masks = torch.randint(0, 2, (2, 2, 3, 9, 12), generator=generator)
    shares = class_shares(masks, (3, 4))
    torch.testing.assert_close(shares.sum((2, 3)), torch.ones(2, 3))
    for scale in (1.0, 30.0, 1e4):
        found = log_densities(query, support, shares, scale)
        q, s = (torch.nn.functional.normalize(side.double(), dim=-3) for side in (query, support))
        cosines = torch.einsum("bchw,bnkcyx->bhwnkyx", q, s).flatten(3)
        expected = (scale * cosines[:, None] + shares.double().log().flatten(2)[:, :, None, None]).logsumexp(-1)
        if scale == 1e4:  # far behind the best, nothing is told apart
            near = expected > expected.amax(1, keepdim=True) - 50
            found, expected = found[near], expected[near]
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("channels", "side"), [(5, 4), (40, 4)])
def test_the_refinement_is_kernel_ridge_regression(channels, side):
    """Fewer channels than cells, and more: the same equation."""
    generator = torch.Generator().manual_seed(0)
    features, guess = (torch.rand(2, n, side, side, generator=generator).double() for n in (channels, 3))
    cells = features.flatten(2).transpose(1, 2)
    cells = cells - cells.mean(1, keepdim=True)
    gram = cells @ cells.transpose(1, 2)
    penalty = 0.05 * torch.diag_embed(gram.diagonal(dim1=1, dim2=2).sum(1, keepdim=True).expand(-1, side**2))
    answers = guess.flatten(2).transpose(1, 2)
    means = answers.mean(1, keepdim=True)
    expected = (gram @ torch.linalg.solve(gram + penalty, answers - means) + means).transpose(1, 2)
    found = refined(features.float(), guess.float(), 0.05).flatten(2)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    constant = refined(torch.ones(1, channels, side, side), guess[:1].float(), 0.05)
    torch.testing.assert_close(constant, guess[:1].float().mean((2, 3), keepdim=True).expand(constant.shape))


class Colours(Backbone):
    """Features that are the image's own three channels, one cell for 8 pixels."""

    def __init__(self):
        super().__init__("colours", (3,), (8,), "layer0")

    def layer0(self, images: Tensor) -> Tensor:
        return images[..., ::8, ::8]


@torch.no_grad()
def test_the_query_s_own_likeness_finds_the_half_that_was_missed():
    """Half of the query's object lies a little nearer to the support's ground than to its object; but next to the
    query's own ground it is like the rest, and so it gets the same answer."""
    degrees = {"object": 0, "found": 42, "missed": 46, "ground": 90, "other ground": 130}
    angles = {name: math.radians(angle) for name, angle in degrees.items()}
    colour = {name: torch.tensor([math.cos(angle), math.sin(angle), 0.0]) for name, angle in angles.items()}
    truth = torch.zeros(1, 33, 33, dtype=torch.long)
    truth[:, 8:25, 8:] = 1
    support, query = (colour[ground].expand(1, 33, 33, 3).clone() for ground in ("ground", "other ground"))
    support[truth == 1] = colour["object"]
    query[:, 8:25, 8:24], query[:, 8:25, 24:] = colour["found"], colour["missed"]
    query, support = query.permute(0, 3, 1, 2), support.permute(0, 3, 1, 2)[:, None, None]
    episode = Episode(query, truth, support, truth[:, None, None], torch.ones(1, 1, dtype=torch.long))
    model, wanted = matching(Colours(), stages=["layer0"]), truth[0, ::8, ::8] == 1
    model.explain = True
    maps = model(episode).maps
    missed = wanted & ~(maps["guess"].argmax(1)[0] == 1)
    assert missed.sum() == 6 and (missed == wanted & (torch.arange(5) > 2)).all()
    assert torch.equal(maps["refined"].argmax(1)[0] == 1, wanted)


@pytest.mark.parametrize("options", [{}, {"prototypes": "means", "refine": False, "stages": ["layer2"]}], ids=str)
@torch.no_grad()
def test_batch_shots_and_ways_only_change_their_places(options):
    model, episode = matching(**options), random_episode(2, 2, 5)
    logits = model(episode).logits
    assert logits.shape == (2, 3, SIZE, SIZE) and torch.isfinite(logits).all()
    close = {"rtol": 1e-4, "atol": 1e-3}
    torch.testing.assert_close(torch.cat([model(episode.select([i])).logits for i in (0, 1)]), logits, **close)
    torch.testing.assert_close(model(of_shots(episode, [3, 0, 4, 1, 2])).logits, logits, **close)
    turned = {name: getattr(episode, name).flip(1) for name in ("support_images", "support_masks", "classes")}
    torch.testing.assert_close(model(replace(episode, **turned)).logits, logits[:, [0, 2, 1]], **close)
    assert ShotByShot(model)(episode).logits.shape == logits.shape


@pytest.mark.parametrize("what", SPOILED)
def test_missing_objects_and_backgrounds(what):
    model, episode = matching(), spoiled("panet", what)
    prediction = model(episode)
    assert torch.isfinite(prediction.logits).all() and all(torch.isfinite(v) for v in model.losses(episode).values())
    if what in ("empty supports", "full supports"):
        assert (prediction.logits.argmax(1) == (what == "full supports")).all()


def test_nothing_is_trained():
    model, episode = matching(), random_episode()
    assert not [p for p in model.parameters() if p.requires_grad] and model.state_dict().keys() == {
        f"backbone.{name}" for name in model.backbone.state_dict()
    }
    losses = model.losses(episode)
    assert losses.keys() == {"query", "total"} and not losses["total"].requires_grad
    with pytest.raises(EpisodeError, match="query_masks"):
        model.losses(replace(episode, query_masks=None))
    sampler = EpisodeSampler(shapes(), Protocol.shapes5i(input_size=SIZE))
    with pytest.raises(TrainingError, match="Matching has no parameter to train"):
        train_episodes(model, sampler, Schedule(1, batch=1))
    assert train_episodes(model, sampler, Schedule(0)).rows == []
    learns = matching(freeze=False)
    learns.losses(episode)["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in learns.parameters() if p.grad is not None)
    assert learns.backbone.layer1[0].conv1.weight.grad.any()


@torch.no_grad()
def test_maps_files_caches_and_half_precision(tmp_path):
    model, episode = matching(stages=("layer2", "layer4"), scale=15.0), random_episode(2, 2, 1)
    prediction = model(episode)
    assert prediction.maps == {}
    loaded = load_model(save_model(model, tmp_path / "matching.safetensors")).eval()
    assert torch.equal(loaded(episode).logits, prediction.logits) and loaded.config["stages"] == ["layer2", "layer4"]
    loaded.explain = True
    maps = loaded(episode).maps
    assert maps.keys() == {"similarity", "guess", "refined", "query_features/layer2", "query_features/layer4"}
    torch.testing.assert_close(maps["guess"].sum(1), torch.ones(2, 9, 9))
    torch.testing.assert_close(maps["refined"].sum(1), torch.ones(2, 9, 9))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(episode).logits.dtype == torch.float32
    rules = Protocol.shapes5i(input_size=SIZE, episodes=3)
    scores = [evaluate(model, shapes("test"), rules, cache=c, progress=False).scores[1].table for c in (None, "memory")]
    assert (scores[0] == scores[1]).all() and scores[0].sum() > 0


WRONG = [
    ({"stages": "layer3"}, r"stages='layer3': expected a list of names"), ({"stages": []}, r"stages=\[\]: expected"),
    ({"stages": ["layer9"]}, "matching: stage 'layer9' is unknown"), ({"scale": 0}, "matching: scale=0: expected"),
    ({"ridge": -1.0}, r"matching: ridge=-1\.0"), ({"refine": 1}, "matching: refine=1: expected True or False"),
    ({"prototypes": "mean"}, "prototypes='mean' is unknown. Did you mean 'means'"),
    ({"scales": 1.0}, "no option 'scales': did you mean 'scale'"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda part: str(part)[:24])
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ModelError, match=message):
        matching(**options)


def test_stages_are_the_deep_ones_that_there_are():
    found = [matching("tiny", last=last).stages for last in (None, "layer3", "layer1")]
    assert found == [("layer3", "layer4"), ("layer3",), ("layer1",)]
