"""HDMNet for the tests: models, and every intermediate value under the name that the golden files give it."""

import json
from collections import defaultdict
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from statistics import median
from unittest import mock

import golden_tools
import torch
from golden_tools import names, read_golden, recipe_weights, without_dropout
from torch import Tensor

from fsslib import Episode, build_model, load_official, ops
from fsslib.models import hdmnet as module
from fsslib.models.hdmnet import HDMNet, to_tokens
from fsslib.ops import resize

LOSSES = ("main", "distill", "base", "total")
SCALES = [[".bn3.weight", 0.25], ["mix_transformer.cls.4.weight", 0.02]]
REDUCED = ("query_images", "query_masks", "support_images", "support_masks", "classes", "base_masks")
SHARE, TYPICAL = 2e-5, 2e-6  # the golden README's tolerance, of a tensor's largest value; see `typical_error`
EXACT = ("pred", "transformer_mask")


def tiny(seed: int = 0, backbone: str = "tiny", **options) -> HDMNet:
    """A small seeded model in eval mode: 32 channels, 8 in the transformer, nothing dropped."""
    torch.manual_seed(seed)
    options = {"width": 32, "dropout": 0.0, "attention_dropout": 0.0} | options
    return build_model("hdmnet", backbone=backbone, **options).eval()


@torch.no_grad()
def everything(model: HDMNet, episode: Episode) -> dict[str, Tensor]:
    """Logits, maps and, as `loss/…`, losses by name, in eval mode."""
    model.explain = True
    prediction = model.eval()(episode)
    losses = {f"loss/{name}": value for name, value in model.losses(episode).items()}
    return {"logits": prediction.logits, **prediction.maps, **losses}


@lru_cache(maxsize=3)
def official_state(table: Path, key: str) -> dict[str, Tensor]:
    """The authors' state dict of the golden files; not to be changed in place."""
    scales = SCALES if "resnet" in key else SCALES[1:]
    return recipe_weights(json.loads(table.read_text())[key], scales)


def official_model(shared: Path, facts: dict) -> HDMNet:
    """The model of a golden file by its metadata, as the authors' state dict loads it, in eval mode."""
    coco, vgg, shot = facts["data_set"] == "coco", facts["vgg"], facts["shot"]
    table, key = shared / "specs/hdmnet_state.json", f"{'vgg16' if vgg else 'resnet50'}_{facts['data_set']}_1shot"
    assert facts["recipe_scales"] == (SCALES[1:] if vgg else SCALES)
    state = official_state(table, key) | (official_state(table, "extra_5shot") if shot == 5 else {})
    built = {"backbone": "vgg16_bn" if vgg else "resnet50", "base_classes": 60 if coco else 15, "shots": shot}
    return load_official(without_dropout(build_model("hdmnet", **built)), state).eval()


def golden_file(shared: Path, name: str) -> tuple[dict[str, Tensor], dict, Episode]:
    """Tensors, metadata and the episode of one golden file."""
    golden, facts = read_golden(shared / f"golden/hdmnet/{name}.safetensors")
    images = golden["in.x"].float(), golden["in.s_x"].float()[:, None]
    masks = golden["in.y_m"].long(), golden["in.s_y"].long()[:, None]
    known = {"base_masks": golden["in.y_b"].long(), "class_index": golden["in.cat_idx"].long()}
    episode = Episode(images[0], masks[0], images[1], masks[1], torch.ones(len(masks[0]), 1).long(), **known)
    return golden, facts, episode.validate()


def excess(found: dict[str, Tensor], golden: dict[str, Tensor]) -> dict[str, float]:
    """`golden_tools.excess` with the tolerances that the golden README gives HDMNet."""
    return golden_tools.excess(found, golden, lambda key, e: 0.0 if key in EXACT else SHARE * float(e.abs().max()))


def typical_error(found: dict[str, Tensor], golden: dict[str, Tensor]) -> float:
    """Median of the root mean square deviations, each as a share of its tensor's size, behind the first layer norm.

    About 1e-6 from rounding alone; another epsilon in the layer norms hides in single values, but multiplies this.
    """
    shares = []
    for key in names(golden):
        if key.startswith(("stage", "meta_lowres")):
            expected = golden.get(key, golden.get(f"{key}.sub"))
            value = found[key] if key in golden else found[key].flatten()[golden[f"{key}.idx"].long()]
            shares.append(float((value - expected).double().norm() / expected.double().norm()))
    return median(shares)


def record(model: HDMNet, episode: Episode, run: str) -> tuple[object, dict[str, Tensor]]:
    """Call `model.forward` or `model.losses` (`run`); its result, and the values inside by their golden names."""
    seen: dict[str, list] = defaultdict(list)
    transformer = model.transformer
    parts = {f"layer{i}": getattr(model.backbone, f"layer{i}") for i in (2, 3, 4)}
    parts |= {"ppm": model.base_head.pooling, "cls_feat": model.base_head.level5, "base": model.base_head.classifier}
    parts |= {name: getattr(model, name) for name in ("down_query", "down_supp", "query_merge", "supp_merge")}
    parts |= {"meta": transformer.classifier, "transformer": transformer}
    parts |= {"embed0": transformer.stages[0].embed_norm, "sa0": transformer.stages[0].layers[0]}
    for i in range(3):
        parts |= {f"stage{i}": transformer.stages[i], f"guide{i}": transformer.guide[i]}
        parts |= {f"parse{i}": transformer.parse[i]}
    parts |= {"scene": model.ensemble.scene, "background": model.ensemble.background}
    if model.ensemble.reweight is not None:
        parts["kshot_rw"] = model.ensemble.reweight
    with ExitStack() as stack:
        for name, part in parts.items():
            hook = part.register_forward_hook(lambda _, ins, out, name=name: seen[name].append((ins, out)))
            stack.callback(hook.remove)
        watched = [(ops, "gram"), (module, "prior_mask"), (module, "correlation_distillation")]
        watched += [(module, "segmentation"), (model, "segment"), (model.ensemble, "distance")]
        for owner, name in watched:
            original = getattr(owner, name)
            stack.enter_context(mock.patch.object(owner, name, _watched(seen[name], original)))
        result = getattr(model, run)(episode)
    return result, {name: value.detach() for name, value in _by_golden_name(episode, seen).items()}


def _watched(calls: list, function):
    def watching(*args, **kwargs):
        result = function(*args, **kwargs)
        calls.append((args, result))
        return result

    return watching


def _by_golden_name(episode: Episode, seen: dict[str, list]) -> dict[str, Tensor]:
    batch, shot, image = episode.batch, episode.shot, tuple(episode.query_images.shape[-2:])
    outcome, maps = seen["segment"][0][1], seen["segment"][0][1].maps
    found = {"similarity": maps["prior"]}
    for i in (2, 3, 4):
        if seen[f"layer{i}"]:
            both = seen[f"layer{i}"][0][1]
            found |= {f"query_layer{i}": both[:batch], f"supp_layer{i}": both[batch:]}
    for name in ("ppm", "cls_feat"):
        for side, (_, out) in zip(("query", "supp"), seen[name]):
            found[f"{side}_{name}"] = out
    for name in ("down_query", "down_supp", "query_merge", "supp_merge"):
        if seen[name]:
            found[name] = seen[name][0][1]
    for name, (_, prior) in zip(("similarity_ppm", "similarity_layer4"), seen["prior_mask"]):
        found |= {name: prior} if shot == 1 else {f"{name}_per_shot": prior.unsqueeze(2)}
    found["transformer_mask"] = (seen["transformer"][0][0][2] == 1).flatten(0, 1)[:, None].long()
    found |= {"embed0_query": seen["embed0"][0][1][:batch], "sa0_first_query": seen["sa0"][0][1][:batch]}
    for i in range(3):
        stage = to_tokens(seen[f"stage{i}"][0][1])
        found |= {f"stage{i}.query": stage[:batch], f"stage{i}.supp": stage[batch:]}
        found[f"stage{i}.correlation"] = maps[f"correlation/{i}"].flatten(1)
        found[f"stage{i}.match_attn"] = to_tokens(maps[f"matched/{i}"])
        found |= {f"stage{i}.match_conv": seen[f"guide{i}"][0][1], f"stage{i}.parse": seen[f"parse{i}"][0][1]}
    meta = seen["meta"][0][1]
    found |= {"meta_lowres": meta, "meta_bg_soft": maps["meta"][:, :1], "meta_fg_soft": maps["meta"][:, 1:]}
    (_, query_gram), (_, support_gram) = seen["gram"]
    grams = torch.cat([query_gram[None], support_gram.unflatten(0, (batch, shot)).transpose(0, 1)])
    found |= {"gram_query": query_gram, "gram_supp0": grams[1], "gram_query.diag_norm": grams.flatten(2).norm(dim=-1)}
    found["est_map"] = seen["distance"][0][1].view(-1, 1, 1, 1)
    found |= {"gram_merge_bg": seen["scene"][0][1], "gram_merge_fg": seen["scene"][1][1]}
    ((merged,), cls_merge) = seen["background"][0]
    found |= {"merged_bg_in": merged, "cls_merge": cls_merge}
    if seen["kshot_rw"]:
        ((into,), out) = seen["kshot_rw"][0]
        found |= {"kshot_rw_in": into, "kshot_rw_out": out}
    found |= {"final_out": outcome.logits, "pred": outcome.logits.argmax(1), "pred logits": outcome.logits}
    found["meta_out"] = resize(meta, image)
    if seen["base"]:
        found["base_lowres"] = seen["base"][0][1]
        found["base_out"] = resize(found["base_lowres"], image)
    if outcome.losses:
        terms, entropies = seen["correlation_distillation"][0][1], [loss for _, loss in seen["segmentation"]]
        found |= {"loss.distill_terms": torch.stack(terms), "loss.ce_calls": torch.stack(entropies)}
        named = {"main_final_plus_meta": "main", "distill_mean": "distill", "base_ce": "base", "total": "total"}
        found |= {f"loss.{theirs}": outcome.losses[ours].view(1) for theirs, ours in named.items()}
    return found


def gradient_norms(model: HDMNet, loss: Tensor, order: list[str]) -> Tensor:
    """Norms of the gradients of `loss` for parameters by their official names, -1 where none arrives."""
    named = {model.official_name(n): p for n, p in model.named_parameters()}
    return _norms(loss, [named[n] for n in order]).double()


def _norms(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.tensor([-1.0 if grad is None else float(grad.norm()) for grad in grads])


def reduced_model() -> HDMNet:
    """ResNet-50 with 32 channels behind it and the weights of two shots, all from the authors' names."""
    model = without_dropout(build_model("hdmnet", backbone="resnet50", width=32, shots=2, base_classes=5))
    table = [(model.official_name(n), v.shape, str(v.dtype)) for n, v in model.state_dict().items()]
    return load_official(model, recipe_weights(table, SCALES)).eval()


def reduced_episode(stored: dict[str, Tensor]) -> Episode:
    """The episode of the reduced file, which keeps coarse images in steps of 1/32 and masks as bytes."""
    size, parts = tuple(stored["query_masks"].shape[-2:]), {key: stored[key].long() for key in REDUCED}
    for key in ("query_images", "support_images"):
        coarse = stored[key].float() / 32
        parts[key] = resize(coarse.flatten(0, -4), size).unflatten(0, coarse.shape[:-3])
    return Episode(**parts).validate()


def first_way(episode: Episode) -> Episode:
    """Way 1 of the reduced episode by itself; its class is the base learner's third."""
    labels = torch.where(episode.query_masks == 2, 0, episode.query_masks)
    images, masks = episode.support_images[:, :1], episode.support_masks[:, :1]
    known = {"base_masks": episode.base_masks, "class_index": torch.full((episode.batch,), 2)}
    return Episode(episode.query_images, labels, images, masks, episode.classes[:, :1], **known).validate()


def reduced_evaluation(model: HDMNet, episode: Episode) -> dict[str, Tensor]:
    """First half of the reduced file: an evaluation of both ways."""
    model.explain = True
    with torch.no_grad():
        prediction = model(episode)
        numbers = {"logits": prediction.logits[:, 1:, ::2, ::2], "eval_losses": _terms(model.losses(episode))}
    kept = ("prior", "scene_distance", "base_map", "merged/background", *(f"correlation/{i}" for i in range(3)))
    return numbers | {name: prediction.maps[name] for name in kept}


def reduced_training(model: HDMNet, episode: Episode) -> dict[str, Tensor]:
    """Second half: losses and norms of gradients of a training step, of two ways and of one, and all buffers."""
    numbers, model = {}, model.train()
    learned = [p for p in model.parameters() if p.requires_grad]
    for label, task in (("ways", episode), ("way", first_way(episode))):
        losses = model.losses(task)
        numbers[f"{label}_losses"] = _terms(losses).detach()
        for term in ("distill", "main") if label == "way" else ("total",):
            numbers[f"gradnorms_{label}_{term}"] = _norms(losses[term], learned)
    numbers["buffernorms"] = torch.stack([buffer.double().norm() for buffer in model.buffers()]).float()
    return numbers


def reduced_excess(numbers: dict[str, Tensor], stored: dict[str, Tensor]) -> dict[str, float]:
    """As `excess`, for the numbers of the reduced file."""
    found = {}
    for name, value in numbers.items():
        expected = stored[name]
        assert value.shape == expected.shape and torch.isfinite(value).all(), name
        share, single = (1e-3, True) if name.startswith("gradnorms") else (SHARE, name.endswith("losses"))
        off, limit = (value - expected).abs(), share * (expected.abs() if single else expected.abs().max())
        found[name] = float(torch.where(off > 0, off / limit, off).max())
    return found


def _terms(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([losses[name] for name in LOSSES])
