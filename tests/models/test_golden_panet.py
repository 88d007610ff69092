"""PANet against the authors' code: scores, losses, gradients, prototypes and counting."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from golden_tools import assert_golden, read_golden, recipe_weights

from fsslib import Episode, EpisodeSampler, Protocol, build_model, load_official
from fsslib.data.base import SegmentationDataset
from fsslib.data.episodes import EpisodeSpec
from fsslib.metrics import FewShotIoU
from fsslib.ops import cosine_maps, masked_average

FILES = ["eval_1way_1shot", "eval_1way_5shot", "eval_1way_1shot_nonsquare_b2", "train_1way_1shot", "train_1way_5shot"]


@pytest.fixture(scope="module")
def model(shared):
    table = json.loads((shared / "specs/panet_state.json").read_text())["vgg16"]
    state = {f"module.{name}": value for name, value in recipe_weights(table).items()}
    return load_official(build_model("panet", backbone="vgg16"), {"state_dict": state})


def episode_of(golden) -> Episode:
    """The golden layout (way, shot, batch, …) as an Episode; a pixel in neither mask is 255, as Episode has it."""
    images = golden["in/support_img"].float().permute(2, 0, 1, 3, 4, 5).contiguous()
    fg, bg = (golden[f"in/support_{kind}"].permute(2, 0, 1, 3, 4).bool() for kind in ("fg", "bg"))
    masks = torch.full(fg.shape, 255)
    masks[fg], masks[bg] = 1, 0
    query = golden["in/query_img"].float().flatten(0, 1)
    classes = torch.arange(1, 1 + fg.shape[1]).repeat(len(query), 1)
    return Episode(query, golden["in/query_label"].long(), images, masks, classes).validate()


@pytest.mark.parametrize("name", FILES)
def test_scores_features_and_prototypes(model, shared, name):
    golden, _ = read_golden(shared / f"golden/panet/{name}.safetensors")
    episode = episode_of(golden)
    model.eval()
    model.explain = True
    with torch.no_grad():
        prediction = model(episode)
    maps = prediction.maps
    assert_golden(prediction.logits, golden, "out/score", atol=1e-4)
    torch.testing.assert_close(
        prediction.logits[:, 1] - prediction.logits[:, 0], golden["out/score"][:, 1] - golden["out/score"][:, 0],
        atol=5e-5, rtol=0,
    )  # fmt: skip
    for b in range(episode.batch):
        assert_golden(maps["similarity"][b : b + 1], golden, f"out/score_small_{b}", atol=1e-4)
        for row, key in enumerate((f"proto/bg_{b}", f"proto/fg_{b}_0")):
            expected = golden[key]
            torch.testing.assert_close(
                maps["prototypes"][b, row : row + 1], expected, atol=2e-6 * float(expected.abs().max()), rtol=0
            )
    assert torch.equal(prediction.masks().to(torch.uint8), golden["out/pred"])
    supports = maps["support_features"].permute(1, 2, 0, 3, 4, 5).flatten(0, 2)
    features = torch.cat([supports, maps["query_features"]])
    assert_golden(features, golden, "feat/encoder", atol=1e-5 * float(features.abs().max()))


@pytest.mark.parametrize("name", [f for f in FILES if f.startswith("train")])
def test_losses_and_gradients(model, shared, name):
    golden, facts = read_golden(shared / f"golden/panet/{name}.safetensors")
    episode = episode_of(golden)
    model.train()
    losses = model.losses(episode)
    for term in ("query", "align", "total"):
        torch.testing.assert_close(losses[term].detach(), golden[f"loss/{term}"], rtol=1e-5, atol=0)
    named = {model.official_name(n): p for n, p in model.named_parameters()}
    order = facts["gradnorm_names"]
    assert len(order) == 26
    leaves = [named[n] for n in order]
    grads = {term: torch.autograd.grad(losses[term], leaves, retain_graph=True) for term in ("query", "align")}
    grads["total"] = [query + align for query, align in zip(*grads.values())]
    for term, found in grads.items():
        norms = torch.stack([g.norm() for g in found])
        torch.testing.assert_close(norms, golden[f"gradnorm/{term}"], rtol=1e-3, atol=0)
    total = dict(zip(order, grads["total"]))
    for name_, share in (("features.0.0.weight", 1e-2), ("features.8.4.weight", 1e-3), ("features.8.4.bias", 1e-3)):
        key = f"grad/encoder.backbone.{name_}"
        grad = total[f"encoder.backbone.{name_}"]
        assert_golden(grad, golden, key, atol=share * float(grad.abs().max()))
    model.eval()
    assert float(model.losses(episode)["align"]) == 0.0


@pytest.fixture(scope="module")
def units(shared):
    tensors, _ = read_golden(shared / "golden/panet/units.safetensors")
    return {key.removeprefix("units/"): value for key, value in tensors.items()}


def test_units_masked_average_and_cosine(units):
    feat = units["feat"]
    masks = torch.stack([units["mask"].float(), torch.zeros(1, 17, 23), units["mask_tiny"]], 1)
    pooled = masked_average(feat, masks)[0]
    for row, key in enumerate(("masked_avg", "masked_avg_empty", "masked_avg_tiny")):
        torch.testing.assert_close(pooled[row : row + 1], units[key], rtol=1e-5, atol=1e-7)
    maps = cosine_maps(feat, torch.stack([units["masked_avg"], torch.zeros(1, 12)], 1))
    torch.testing.assert_close(maps[:, 0], units["cos20"], rtol=0, atol=1e-5)
    assert torch.equal(maps[:, 1], units["cos20_zero_proto"])


def test_units_metric_under_the_published_protocol(units):
    protocol = Protocol.published("panet")
    runs, joint = [], FewShotIoU(protocol.counting)
    for run in range(2):
        pred, target = (units[f"metric_{k}"][run].long() for k in ("pred", "target"))
        classes = units["metric_class"][run].long()[:, None]
        meter = FewShotIoU(protocol.counting)
        for each in (meter, joint):
            each.update(pred, target, classes, run)
        runs.append(meter.compute())
        expected = units[f"metric_run{run}_class"].numpy()
        np.testing.assert_allclose(list(runs[run].per_class.values()), expected, rtol=1e-12)
        # The authors' mean becomes NaN with a class whose only query shows no object; ours leaves that class out.
        np.testing.assert_allclose(runs[run].miou, np.nanmean(expected), rtol=1e-12)
        np.testing.assert_allclose(runs[run].fb_iou, units[f"metric_run{run}_binary"].mean(), rtol=1e-12)
    np.testing.assert_allclose(runs[0].miou, float(units["metric_run0_mean"]), rtol=1e-6)
    scores = joint.compute()
    found, expected = np.array(list(scores.per_class.values())), units["metric_all_class_mean"].numpy()
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-12)
    mean, std = units["metric_all_binary_mean_std"].tolist()
    np.testing.assert_allclose(scores.fb_iou, mean, rtol=1e-6)
    np.testing.assert_allclose(np.std([run.fb_iou for run in runs]), std, rtol=1e-6)


def test_units_metric_drops_false_positives_of_absent_ways_only_as_published(units):
    pred, target = (units[f"metric2way_{k}"].long()[None] for k in ("pred", "target"))
    classes = torch.tensor([[9, 4]])
    for counting in ("present", "all"):
        meter = FewShotIoU(counting)
        meter.update(pred, target, classes)
        table = meter.compute().table[0]
        for channel, cls in enumerate((0, 9, 4)):
            expected = [float(units[f"metric2way_{k}"][cls]) for k in ("tp", "fp", "fn")]
            if np.isnan(expected).all():
                assert table[channel, 1] == (
                    0
                    if counting == "present"
                    else int((pred == channel).sum()) - int(((pred == channel) & (target == 255)).sum())
                )
            else:
                assert table[channel].tolist() == expected


class OneImage(SegmentationDataset):
    """The unit file's label map as a data set, so that the sampler makes the masks."""

    name, fold, split, classes, base_classes = "unit", 0, "test", (3, 7), ()
    names: ClassVar = {3: "three", 7: "seven"}

    def __init__(self, label):
        self.label = label

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.zeros(3, *self.label.shape, dtype=torch.uint8), self.label

    def images_of(self, cls):
        return [0, 1]

    def signature(self):
        return "unit"


@pytest.mark.parametrize("classes", [(7,), (7, 3)])
def test_units_dense_masks_under_the_published_protocol(units, classes):
    """Void is background; what belongs to the other way of the episode is in neither mask."""
    protocol = Protocol.published("panet", way=len(classes))
    sampler = EpisodeSampler(OneImage(units["label"][0]), protocol)
    spec = EpisodeSpec(classes, ((0,),) * len(classes), 1)
    mask = sampler._support_mask(units["label"][0], 7, spec, 0)
    key = f"getmask_ids{len(classes)}"
    assert torch.equal((mask == 1).to(torch.uint8), units[f"{key}_fg_mask"])
    assert torch.equal((mask == 0).to(torch.uint8), units[f"{key}_bg_mask"])
