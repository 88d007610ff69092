"""HDMNet against the authors' code: everything between images and logits, losses, gradients, single operations."""

import pytest
import torch
from golden_tools import assert_within, gradient_norms, names, officially_named, read_golden
from hdmnet_tools import LOSSES, SHARE, TYPICAL, excess, golden_file, official_model, record, typical_error

from fsslib.losses import correlation_distillation
from fsslib.models.hdmnet import Attention, Correlation
from fsslib.ops import gram, gram_distance, masked_pool, prior_mask, resize

# Those of the same weights one after the other.
EVALUATIONS = ("eval_1shot_coco", "eval_1shot_vgg16", "eval_1shot", "eval_5shot")
TRAININGS = ("train_1shot", "train_5shot")


def test_every_golden_file_is_compared(shared):
    files = {path.stem for path in (shared / "golden/hdmnet").glob("*.safetensors")}
    assert files == {*EVALUATIONS, *TRAININGS, "unit_ops"}


def complete(found, golden) -> None:
    """Every stored tensor agrees; of sampled ones their norm and mean, which the other positions share, too."""
    assert_within(excess(found, golden), {key for key in names(golden) if not key.startswith("in.")})
    assert typical_error(found, golden) <= TYPICAL
    sampled = [key.removesuffix(".stats") for key in golden if key.endswith(".stats")]
    assert len(sampled) > 10
    for key in sampled:
        (mean, _, norm), value = golden[f"{key}.stats"], found[key].double()
        assert abs(value.norm() - norm) <= SHARE * norm, key
        assert abs(value.mean() - mean) <= SHARE * value.square().mean().sqrt(), key


@pytest.mark.parametrize("name", EVALUATIONS)
@torch.no_grad()
def test_evaluation(shared, name):
    golden, facts, episode = golden_file(shared, name)
    model = official_model(shared, facts)
    prediction, found = record(model, episode, "forward")
    found.pop("pred")
    complete(found, golden)
    assert len(names(golden)) > 50 and torch.equal(prediction.logits, found["final_out"])
    if name == "eval_5shot":
        assert "kshot_rw_out" in golden and "similarity_ppm_per_shot" in golden


@pytest.mark.parametrize(("name", "learned"), list(zip(TRAININGS, (221, 225))))
def test_training(shared, name, learned):
    """The whole model in training mode; the batch norms must not notice."""
    golden, facts, episode = golden_file(shared, name)
    model = official_model(shared, facts)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    losses, found = record(model.train(), episode, "losses")
    assert losses.keys() == set(LOSSES) and torch.equal(losses["total"].detach().view(1), found["loss.total"])
    order = facts["grad_names"]
    assert len(order) == learned and not facts["no_grad_names"]
    assert any(n.startswith("kshot_rw") for n in order) == (facts["shot"] == 5)
    found["grad_norms"] = gradient_norms(losses["total"], officially_named(model, order)).double()
    for absent in ("final_out", "meta_out", "base_out"):
        found.pop(absent)
    complete(found, golden)
    torch.testing.assert_close(found["grad_norms"], golden["grad_norms"], rtol=2e-4, atol=0)
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())


@pytest.fixture(scope="module")
def units(shared):
    return read_golden(shared / "golden/hdmnet/unit_ops.safetensors")[0]


def loaded(layer, units):
    names_ = {"query": "q", "key": "k", "value": "v", "out": "o"}
    layer.load_state_dict({f"{ours}.weight": units[f"w.linear_{letter}.weight"] for ours, letter in names_.items()})
    return layer.eval()


@torch.no_grad()
def test_single_operations(units):
    """All tensors of the file: attention, priors, Gram matrices, pooling, distillation."""
    own, cross = loaded(Attention(16, 2), units), loaded(Correlation(16, 2), units)
    found = {"self.out": own(units["q"], (5, 6))}
    for name, mask in (("cross", units["mask"][:, 0]), ("cross_emptymask", torch.zeros(2, 45))):
        found[f"{name}.out"], found[f"{name}.weight"] = cross(units["q"], units["s"], mask)
    assert not found["cross_emptymask.out"].any() and not found["cross_emptymask.weight"].any()
    # What self-attention returns beside its result is the mean score of each query; nobody uses it.
    query, key, _ = own.project(units["q"], units["q"])
    scores = query @ key.transpose(-2, -1) / (8**0.5 + 1e-9)
    found["self.weight"] = scores.mean((1, -1))
    object_ = (units["sim_mask"] == 1).float()
    mask = torch.nn.functional.interpolate(object_, (9, 9), mode="nearest")
    found["similarity"] = prior_mask(units["sim_q"], units["sim_s"][:, None], mask, stretch=False)
    found |= {"gram": gram(units["sim_q"]), "gram2": gram(units["sim_s"])}
    found["gram_factor"] = gram_distance(units["sim_q"], units["sim_s"][:, None])[:, 0]
    soft = resize(object_, (9, 9))
    found["weighted_gap"] = masked_pool(units["sim_s"], soft[:, 0])[..., None, None]
    labels, maps = units["gt"].long(), [units[f"corr{i}"] for i in (2, 1, 0)]
    found["distill_terms"] = torch.stack(correlation_distillation(labels, maps))
    found["distill_empty_gt"] = correlation_distillation(torch.zeros_like(labels), maps)[0].view(1)
    given = {"q", "s", "mask", "gt", "sim_q", "sim_s", "sim_mask", "corr0", "corr1", "corr2"}
    assert_within(excess(found, units), {key for key in names(units) if not key.startswith("w.")} - given)
