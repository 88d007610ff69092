"""ASGNet against the authors' code: logits, everything in between, losses, gradients, moved statistics."""

from functools import cache, partial

import pytest
import torch
from asgnet_tools import centres_of, excess, golden_file, official_model, official_state, record
from golden_tools import assert_within, gradient_norms, names, officially_named, read_golden

from fsslib import load_official
from fsslib.models.asgnet import Seeds, cluster, published_seeds

FILES = ("eval_1shot", "eval_5shot", "eval_1shot_pascalbins", "train_1shot", "eval_1shot_aspp", "train_1shot_aspp")
UNITS = {"unit_seeds", "unit_sgc"}


@pytest.fixture(scope="module")
def model_of(shared):
    """Models by variant, each built once."""
    return cache(partial(official_model, shared))


def test_no_golden_file_is_left_out(shared):
    assert {path.stem for path in (shared / "golden/asgnet").glob("*")} == set(FILES) | UNITS


@pytest.mark.parametrize("name", FILES)
def test_every_stored_tensor(model_of, shared, name):
    """At 2e-5 of its largest value; whole numbers exactly; gradient norms of the ASPP decoder at 2e-4."""
    golden, facts, episode = golden_file(shared, name)
    model = load_official(model_of(facts["pyramid"]), official_state(shared, facts["pyramid"]))
    assert (model.iterations, model.reach) == ((facts["train_iter"], facts["eval_iter"]), 10)
    if facts["pyramid"]:
        model.context.scales = tuple(facts["ppm_scales"])
    if facts["train"]:
        losses, found = record(model.train(), episode, "losses")
        found["grad_norms"] = gradient_norms(losses["total"], officially_named(model, facts["grad_names"])).double()
        found |= {f"after.{model.official_name(n)}": buffer.clone() for n, buffer in model.named_buffers()}
        model.eval()
    else:
        with torch.no_grad():
            prediction, found = record(model, episode, "forward")
        assert torch.equal(prediction.logits, found["logits"]) and prediction.logits.dtype == torch.float32
    stored = {key for key in names(golden) if not key.startswith("in.")} | {"in.s_seed"}
    assert_within(excess(found, golden), stored)
    assert len(stored) > 20


def test_the_files_cover_what_they_should(shared):
    """Averages beside clusters, shots without clusters, and every training term: else agreement would mean little."""
    counts = {name: golden_file(shared, name)[0]["num_sp"].tolist() for name in FILES}
    assert counts["eval_1shot"] == [[3], [0]] and counts["eval_5shot"] == [[3, 2, 2, 0, 5]]
    golden, facts, _ = golden_file(shared, "train_1shot")
    assert len(facts["grad_names"]) == 34 and len(golden["loss.ce_calls"]) == 5
    assert sum(key.startswith("after.") for key in golden) == 6


def test_seeds(shared):
    golden, facts = read_golden(shared / "golden/asgnet/unit_seeds.safetensors")
    assert {key.partition(".")[2] for key in golden} == set(facts["order"])
    counts = {}
    for name in facts["order"]:
        mask = golden[f"mask.{name}"] == 1
        grid = tuple((side - 1) // 8 + 1 for side in mask.shape)
        seeds = published_seeds(mask[None], grid)
        assert torch.equal(seeds.points[0], golden[f"seeds.{name}"]), name
        counts[name] = int(seeds.counts)
        # The model's way of counting, on the stored seeds.
        counted = int((golden[f"seeds.{name}"] > 0).sum(0).max())
        assert counts[name] == counted or (counted == 0 and counts[name] <= 1), name
    assert counts["border"] == 4 and counts["half_150"] == 1 and counts["empty"] == 0
    assert golden["seeds.border"].any(1).all(), "five seeds, of which one is lost"


def test_seeds_of_a_batch_are_the_seeds_of_its_images(shared):
    golden, facts = read_golden(shared / "golden/asgnet/unit_seeds.safetensors")
    same = [name for name in facts["order"] if golden[f"mask.{name}"].shape[0] == 473]
    seeds = published_seeds(torch.stack([golden[f"mask.{name}"] == 1 for name in same]), (60, 60))
    assert len(same) == 9 and torch.equal(seeds.points, torch.stack([golden[f"seeds.{name}"] for name in same]))


def test_clustering(shared):
    golden, _ = read_golden(shared / "golden/asgnet/unit_sgc.safetensors")
    inputs = golden["feat"][None], golden["mask"], Seeds(golden["seeds"].long()[None], torch.tensor([4]))
    cells = golden["mask"][0] == 1
    centres = centres_of(*inputs, 11, 10.0)
    found = {"init_center": centres[0][0].T}
    for steps in (1, 2, 5, 10):
        result = cluster(*inputs, iterations=steps)
        found[f"prototypes_iter{steps}"] = result.prototypes[0].T
        found[f"assoc_iter{steps}"] = result.assignment[0][:, cells].T
        found[f"center_with_xy_iter{steps}"] = centres[steps][0].T
    assert_within(excess(found, golden), golden.keys() - {"feat", "mask", "seeds"})
    assert len(found) == 11 + 2
