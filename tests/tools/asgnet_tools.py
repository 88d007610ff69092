"""ASGNet for the tests: models, and every intermediate value under the name that the golden files give it."""

from pathlib import Path
from unittest import mock

import golden_tools
import torch
from core_tools import built
from golden_tools import Call, buffer_norms, gradient_norms, learned, one_way, read_golden, terms, watching
from golden_tools import everything as everything  # these two for the tests of the method
from golden_tools import reduced_episode as reduced_episode
from torch import Tensor

from fsslib import Episode, build_model, load_official
from fsslib.models import asgnet as module
from fsslib.models import base
from fsslib.models.asgnet import ASGNet, Seeds, Superpixels, cluster

LOSSES = ("main", "aux", "total")
VARIANTS = (True,), (False,)  # the feature enrichment, the ASPP decoder
SCALES = ((".bn3.weight", 0.25), ("down_conv.0.weight", 0.6))
RELATIVE = (1.0, 0.5, 0.25, 0.125)
# The golden README's tolerances: per tensor, as a share of its largest value.
SHARE, LOOSE = 2e-5, 2e-4
EXACT = ("guide_map", "num_sp", "pred", "roi", "seeds")


def tiny(**options) -> ASGNet:
    """A small seeded model in eval mode: 8 channels, grids of 6, 4, 3 and 2 cells, no dropout on the features.

    Nine cells a side leave room for several superpixels of ten cells.
    """
    scales = {"scales": (6, 4, 3, 2)} if options.get("pyramid", True) else {}
    return built("asgnet", **{"width": 8, "superpixel_area": 10.0, "dropout": 0.0} | scales | options)


def official_state(shared: Path, pyramid: bool) -> dict[str, Tensor]:
    """The authors' state dict, with the feature enrichment or the ASPP decoder; not to be changed in place."""
    key = "resnet50" if pyramid else "resnet50_aspp"
    return golden_tools.specified_weights(shared / "specs/asgnet_state.json", key, SCALES)


def official_model(shared: Path, pyramid: bool) -> ASGNet:
    """The model of the golden files, as the authors' state dict loads it, in eval mode."""
    model = build_model("asgnet", backbone="resnet50", pyramid=pyramid, scales=RELATIVE, bn="batch")
    return load_official(golden_tools.without_dropout(model).eval(), official_state(shared, pyramid))


def golden_file(shared: Path, name: str) -> tuple[dict[str, Tensor], dict, Episode]:
    """Tensors, metadata and the episode of one golden file."""
    golden, facts = read_golden(shared / f"golden/asgnet/{name}.safetensors")
    return golden, facts, one_way(golden, "in.x", "in.y", "in.s_x", "in.s_y")


def excess(found: dict[str, Tensor], golden: dict[str, Tensor]) -> dict[str, float]:
    """`golden_tools.excess` with the tolerances that the golden README gives ASGNet."""

    def tolerance(key: str, expected: Tensor) -> float:
        if key.split(".")[-1] in EXACT:
            return 0.0
        share = LOOSE if key == "grad_norms" and "decoder.sub" in golden else SHARE
        return share * float(expected.abs().max())

    return golden_tools.excess(found, golden, tolerance)


def record(model: ASGNet, episode: Episode, run: str) -> tuple[object, dict[str, Tensor]]:
    """Call `model.forward` or `model.losses` (`run`); its result, and the values inside by their golden names."""
    parts = {f"layer{i}": getattr(model.backbone, f"layer{i}") for i in (1, 2, 3)}
    context, levels = model.context, range(4)
    if model.pyramid:
        # Without a prototype the last part of the merge, its ReLU, is called by itself.
        parts |= {f"corr_conv.{i}": context.merge[i][1] for i in levels}
        parts |= {f"alpha_conv.{i}": part for i, part in enumerate(context.alpha)}
        parts |= {f"beta_conv.{i}": context.beta[i] for i in levels}
        parts |= {f"inner_cls.{i}": context.inner[i] for i in levels}
        parts |= {"res1": context.res1, "res2": context.res2}
    else:
        parts |= {"corr_conv": context.merge, "ASPP": context.aspp, "decoder": context.decode}
        parts["cls_aux"] = context.auxiliary
    parts["cls"] = context.classifier
    functions = (module, "cluster"), (base, "segmentation"), (model, "superpixels"), (model, "segment")
    model.explain = True  # or nothing would be computed that the logits do not depend on
    with watching(parts, functions) as seen:
        result = getattr(model, run)(episode)
    return result, {name: value.detach() for name, value in _by_golden_name(model, episode, seen).items()}


def _by_golden_name(model: ASGNet, episode: Episode, seen: dict[str, list[Call]]) -> dict[str, Tensor]:
    batch, shot = episode.batch, episode.shot
    found: dict[str, Tensor] = {}
    if seen["layer1"]:  # not where a test hands the features over
        found |= _backbone(model, batch, shot, seen)
    (flat, small, _), superpixels, settings, _ = seen["cluster"][0]
    features, split = flat.unflatten(0, (batch, shot)), small.unflatten(0, (batch, shot))
    found |= {f"supp_feat.{k}": features[:, k] for k in range(shot)}
    found |= {f"mask_ds.{k}": split[:, k, None] for k in range(shot)}
    seeds: Seeds = seen["superpixels"][0].result[0]
    found["in.s_seed"] = seeds.points.unflatten(0, (batch, shot))
    # The authors' model counts seeds it was given; one that the data loader would have placed it never sees.
    found["num_sp"] = (seeds.counts * seeds.points.flatten(1).any(1)).unflatten(0, (batch, shot))
    for i, values in clustering(flat, small, seeds, settings, superpixels).items():
        found |= {f"sgc.b{i // shot}.s{i % shot}.{key}": value for key, value in values.items()}
    logits, losses, maps = vars(seen["segment"][0].result).values()
    used = maps["prototypes_used"].bool()
    for b in range(batch):
        found[f"prototypes.b{b}"] = maps["prototypes"][b][used[b]].T
        found[f"cos_sim.b{b}"] = maps["similarity"][b][used[b]]
    compact = (used.cumsum(1) - 1)[:, :, None].expand(-1, -1, maps["guide"][0].numel())
    found["guide_map"] = compact.gather(1, maps["guide"].flatten(2).long()).view_as(maps["guide"])[:, 0]
    found |= {"query_feat": maps["query_features"], "prob_map": maps["probability"]}
    found |= {"logits": logits, "pred": logits.argmax(1), "pred logits": logits}
    heads = ("corr", "alpha", "beta", "inner", "res", "ASPP", "decoder", "cls")
    found |= {name: calls[0].result for name, calls in seen.items() if name.startswith(heads)}
    if losses:
        found |= {f"loss.{name}": losses[name][None] for name in LOSSES}
        *levels, main = [call.result for call in seen["segmentation"]]
        found["loss.ce_calls"] = torch.stack([main, *levels])
    return found


def _backbone(model: ASGNet, batch: int, shot: int, seen: dict[str, list[Call]]) -> dict[str, Tensor]:
    found = {}
    for i in (1, 2, 3):
        every = torch.cat([call.result for call in seen[f"layer{i}"]])
        first = every[batch : 2 * batch] if model.batch_statistics else every[batch:].unflatten(0, (batch, shot))[:, 0]
        found |= {f"query_layer{i}": every[:batch], f"supp0_layer{i}": first}
    return found


def clustering(
    features: Tensor, masks: Tensor, seeds: Seeds, settings: dict, result: Superpixels
) -> dict[int, dict[str, Tensor]]:
    """What the golden files keep of every clustered image (by its index), with unscaled rows and columns of centres."""
    centres = centres_of(features, masks, seeds, 2, settings["reach"])
    early = cluster(features, masks, seeds, iterations=1, reach=settings["reach"]).assignment
    found = {}
    for i in ((seeds.counts >= 2) & (masks == 1).flatten(1).any(1)).nonzero().flatten().tolist():
        count, cells = int(seeds.counts[i]), masks[i] == 1
        values = {"roi": cells, "prototypes": result.prototypes[i, :count].T}
        values |= {"init_center": centres[0][i, :count].T, "centers_iter1": centres[1][i, :count].T}
        values |= {"assoc_iter1": early[i, :count, cells].T, "assoc_last": result.assignment[i, :count, cells].T}
        found[i] = values
    return found


def centres_of(features: Tensor, masks: Tensor, seeds: Seeds, steps: int, reach: float) -> list[Tensor]:
    """The centres before each of `steps` iterations, (M, P, C + 2) with row and column in cells."""
    calls, cdist = [], torch.cdist

    def watched(centres, cells, **options):
        calls.append(centres)
        return cdist(centres, cells, **options)

    with mock.patch.object(torch, "cdist", watched):
        cluster(features, masks, seeds, iterations=steps, reach=reach)
    return [torch.cat([c[..., :-2], c[..., -2:] * reach], -1) for c in calls]


def reduced_model(pyramid: bool = True) -> ASGNet:
    """A deep-stem ResNet-50 with 32 channels behind it, weights from the authors' names, superpixels of six cells."""
    options = {"width": 32, "pyramid": pyramid, "superpixel_area": 6.0, "bn": "batch", "last": "layer3"}
    options |= {"scales": (9, 5, 4, 3)} if pyramid else {}
    # Larger features than in the golden files: with few channels everything would be one cluster.
    scales = SCALES[0], ("down_conv.0.weight", 2.0)
    return golden_tools.with_named_weights(build_model("asgnet", backbone="resnet50", **options), scales)


def reduced_evaluation(model: ASGNet, episode: Episode) -> dict[str, Tensor]:
    """An evaluation: at both kinds of scales, or of the ASPP decoder."""
    start, model.explain = "" if model.pyramid else "aspp_", True
    with torch.no_grad():
        prediction = model(episode)
        numbers = {"logits": prediction.logits[:, 1:, ::4, ::4], "eval_losses": terms(model.losses(episode))}
        numbers |= {key: prediction.maps[key] for key in ("seeds", "prototypes", "probability")}
        if model.pyramid:
            absolute, model.context.scales = model.context.scales, RELATIVE
            numbers["logits_relative"] = model(episode).logits[:, 1:, ::4, ::4]
            model.context.scales = absolute
    wanted = numbers if model.pyramid else ("logits", "eval_losses")
    return {start + key: numbers[key] for key in wanted}


def reduced_training(model: ASGNet, episode: Episode) -> dict[str, Tensor]:
    """One training step's losses, norms of gradients, and norms of the moved buffers."""
    losses = model.train().losses(episode)
    found = {"train_losses": terms(losses), "gradnorms": gradient_norms(losses["total"], learned(model))}
    found["buffernorms"] = buffer_norms(model)
    return {("" if model.pyramid else "aspp_") + key: value for key, value in found.items()}


def reduced_excess(numbers: dict[str, Tensor], stored: dict[str, Tensor]) -> dict[str, float]:
    """As `excess`, for the numbers of the reduced file."""

    def tolerance(key: str, expected: Tensor) -> float:
        # The decoder's batch norms over few cells amplify what the order of a summation changes.
        share = 1e-3 if "gradnorms" in key else LOOSE if key.startswith("aspp_") else SHARE
        return 0.0 if key in EXACT else share * float(expected.abs().max())

    return golden_tools.excess(numbers, stored, tolerance)
