"""HDMNet for the tests: models, and every intermediate value under the name that the golden files give it."""

from functools import lru_cache, partial
from pathlib import Path
from statistics import median

import golden_tools
import torch
from core_tools import built
from golden_tools import FIELDS, Call, buffer_norms, learned, names, one_way, read_golden, terms, watching
from torch import Tensor

from fsslib import Episode, build_model, load_official, ops
from fsslib.models import hdmnet as module
from fsslib.models.hdmnet import HDMNet, to_tokens
from fsslib.ops import resize

LOSSES = ("main", "distill", "base", "total")
SCALES = ((".bn3.weight", 0.25), ("mix_transformer.cls.4.weight", 0.02))
REDUCED = (*FIELDS, "base_masks")
SHARE, TYPICAL = 2e-5, 2e-6  # the golden README's tolerance, of a tensor's largest value; see `typical_error`
EXACT = ("pred", "transformer_mask")
everything = partial(golden_tools.everything, prefix="loss/")  # one of its maps is called as a loss, "base"


# A small model: 32 channels, 8 in the transformer, nothing dropped.
tiny = partial(built, "hdmnet", width=32, dropout=0.0, attention_dropout=0.0)


def official_state(shared: Path, key: str) -> dict[str, Tensor]:
    """The authors' state dict of the golden files; not to be changed in place."""
    return golden_tools.specified_weights(
        shared / "specs/hdmnet_state.json", key, SCALES if "resnet" in key else SCALES[1:]
    )


def official_model(shared: Path, facts: dict) -> HDMNet:
    """The model of a golden file by its metadata, as the authors' state dict loads it, in eval mode."""
    coco, vgg, shot = facts["data_set"] == "coco", facts["vgg"], facts["shot"]
    assert facts["recipe_scales"] == [list(scale) for scale in (SCALES[1:] if vgg else SCALES)]
    state = official_state(shared, f"{'vgg16' if vgg else 'resnet50'}_{facts['data_set']}_1shot")
    state = state | (official_state(shared, "extra_5shot") if shot == 5 else {})
    model = _built("vgg16_bn" if vgg else "resnet50", 60 if coco else 15, shot)
    return load_official(model, state).eval()


@lru_cache(maxsize=2)
def _built(backbone: str, base_classes: int, shots: int) -> HDMNet:
    model = build_model("hdmnet", backbone=backbone, base_classes=base_classes, shots=shots)
    return golden_tools.without_dropout(model)


def golden_file(shared: Path, name: str) -> tuple[dict[str, Tensor], dict, Episode]:
    """Tensors, metadata and the episode of one golden file."""
    golden, facts = read_golden(shared / f"golden/hdmnet/{name}.safetensors")
    known = {"base_masks": golden["in.y_b"].long(), "class_index": golden["in.cat_idx"].long()}
    return golden, facts, one_way(golden, "in.x", "in.y_m", "in.s_x", "in.s_y", **known)


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
    transformer = model.transformer
    parts = {f"layer{i}": getattr(model.backbone, f"layer{i}") for i in (2, 3, 4)}
    parts |= {"base": model.base_head.classifier}
    parts |= {name: getattr(model, name) for name in ("down_query", "down_supp")}
    # Their convolution is taken apart; the last part, its ReLU, is called.
    parts |= {name: getattr(model, name)[1] for name in ("query_merge", "supp_merge")}
    parts |= {"meta": transformer.classifier, "transformer": transformer}
    parts |= {"embed0": transformer.stages[0].embed_norm, "sa0": transformer.stages[0].layers[0]}
    for i in range(3):
        parts |= {f"stage{i}": transformer.stages[i], f"guide{i}": transformer.guide[i]}
        parts |= {f"parse{i}": transformer.parse[i]}
    parts |= {"scene": model.ensemble.scene, "background": model.ensemble.background}
    if model.ensemble.reweight is not None:
        parts["kshot_rw"] = model.ensemble.reweight
    functions = [(ops, "gram"), (module, "prior_mask"), (module, "correlation_distillation")]
    functions += [(module, "segmentation"), (model, "segment"), (model.ensemble, "distance")]
    functions += [(model.base_head, "features")]
    with watching(parts, functions) as seen:
        result = getattr(model, run)(episode)
    return result, {name: value.detach() for name, value in _by_golden_name(model, episode, seen).items()}


def _by_golden_name(model: HDMNet, episode: Episode, seen: dict[str, list[Call]]) -> dict[str, Tensor]:
    batch, shot, image = episode.batch, episode.shot, tuple(episode.query_images.shape[-2:])
    logits, losses, maps = vars(seen["segment"][0].result).values()
    found = {"similarity": maps["prior"]}
    for i in (2, 3, 4):
        if seen[f"layer{i}"]:
            both = seen[f"layer{i}"][0].result
            found |= {f"query_layer{i}": both[:batch], f"supp_layer{i}": both[batch:]}
    for side, call in zip(("query", "supp"), seen["features"]):
        # The head never lays its pyramid out; the values in there are those of the plain form.
        deepest, wanted = call.args
        found |= {
            f"{side}_cls_feat": model.base_head.features(deepest),
            f"{side}_ppm": model.base_head.pooling(deepest),
        }
        if wanted is not None:  # elsewhere the supports' context is not computed
            at = wanted[:, None].expand_as(call.result)
            torch.testing.assert_close(call.result[at], found[f"{side}_cls_feat"][at], rtol=1e-4, atol=1e-5)
    for name in ("down_query", "down_supp", "query_merge", "supp_merge"):
        if seen[name]:
            found[name] = seen[name][0].result
    for name, call in zip(("similarity_ppm", "similarity_layer4"), seen["prior_mask"]):
        found |= {name: call.result} if shot == 1 else {f"{name}_per_shot": call.result.unsqueeze(2)}
    found["transformer_mask"] = (seen["transformer"][0].args[2] == 1).flatten(0, 1)[:, None].long()
    found |= {"embed0_query": seen["embed0"][0].result[:batch], "sa0_first_query": seen["sa0"][0].result[:batch]}
    for i in range(3):
        stage = to_tokens(seen[f"stage{i}"][0].result)
        found |= {f"stage{i}.query": stage[:batch], f"stage{i}.supp": stage[batch:]}
        found[f"stage{i}.correlation"] = maps[f"correlation/{i}"].flatten(1)
        found[f"stage{i}.match_attn"] = to_tokens(maps[f"matched/{i}"])
        found |= {f"stage{i}.match_conv": seen[f"guide{i}"][0].result, f"stage{i}.parse": seen[f"parse{i}"][0].result}
    meta = seen["meta"][0].result
    found |= {"meta_lowres": meta, "meta_bg_soft": maps["meta"][:, :1], "meta_fg_soft": maps["meta"][:, 1:]}
    query_gram, support_gram = (call.result for call in seen["gram"])
    grams = torch.cat([query_gram[None], support_gram.unflatten(0, (batch, shot)).transpose(0, 1)])
    found |= {"gram_query": query_gram, "gram_supp0": grams[1], "gram_query.diag_norm": grams.flatten(2).norm(dim=-1)}
    found["est_map"] = seen["distance"][0].result.view(-1, 1, 1, 1)
    found |= {"gram_merge_bg": seen["scene"][0].result, "gram_merge_fg": seen["scene"][1].result}
    for names_, part in ((("merged_bg_in", "cls_merge"), "background"), (("kshot_rw_in", "kshot_rw_out"), "kshot_rw")):
        if seen[part]:
            found |= dict(zip(names_, (seen[part][0].args[0], seen[part][0].result)))
    found |= {"final_out": logits, "pred": logits.argmax(1), "pred logits": logits}
    found["meta_out"] = resize(meta, image)
    if seen["base"]:
        found["base_lowres"] = seen["base"][0].result
        found["base_out"] = resize(found["base_lowres"], image)
    if losses:
        found["loss.distill_terms"] = torch.stack(seen["correlation_distillation"][0].result)
        found["loss.ce_calls"] = torch.stack([call.result for call in seen["segmentation"]])
        named = {"main_final_plus_meta": "main", "distill_mean": "distill", "base_ce": "base", "total": "total"}
        found |= {f"loss.{theirs}": losses[ours].view(1) for theirs, ours in named.items()}
    return found


def reduced_model() -> HDMNet:
    """ResNet-50 with 32 channels behind it and the weights of two shots, all from the authors' names."""
    model = build_model("hdmnet", backbone="resnet50", width=32, shots=2, base_classes=5)
    return golden_tools.with_named_weights(model, SCALES)


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
        numbers = {"logits": prediction.logits[:, 1:, ::2, ::2], "eval_losses": terms(model.losses(episode))}
    kept = ("prior", "scene_distance", "base_map", "merged/background", *(f"correlation/{i}" for i in range(3)))
    return numbers | {name: prediction.maps[name] for name in kept}


def reduced_training(model: HDMNet, episode: Episode) -> dict[str, Tensor]:
    """Second half: losses and norms of gradients of a training step, of two ways and of one, and all buffers."""
    numbers, model = {}, model.train()
    for label, task in (("ways", episode), ("way", first_way(episode))):
        losses = model.losses(task)
        numbers[f"{label}_losses"] = terms(losses)
        for term in ("distill", "main") if label == "way" else ("total",):
            numbers[f"gradnorms_{label}_{term}"] = golden_tools.gradient_norms(losses[term], learned(model))
    return numbers | {"buffernorms": buffer_norms(model)}


def reduced_excess(numbers: dict[str, Tensor], stored: dict[str, Tensor]) -> dict[str, float]:
    """As `excess`, for the numbers of the reduced file."""

    def tolerance(key: str, expected: Tensor) -> float | Tensor:
        if key.startswith("gradnorms"):
            return 1e-3 * expected.abs()
        return SHARE * (expected.abs() if key.endswith("losses") else expected.abs().max())

    return golden_tools.excess(numbers, stored, tolerance)
