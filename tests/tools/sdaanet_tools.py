"""SD-AANet for the tests: models, and every intermediate value under the name that the golden files give it."""

from functools import partial
from pathlib import Path

import golden_tools
import torch
from core_tools import built
from golden_tools import Call, buffer_norms, gradient_norms, learned, one_way, read_golden, terms, watching
from golden_tools import everything as everything  # these two for the tests of the method
from golden_tools import reduced_episode as reduced_episode
from torch import Tensor

from fsslib import Episode, build_model, load_official
from fsslib.losses import distillation
from fsslib.models import sdaanet as module
from fsslib.models.sdaanet import SDAANet

RELATIVE, ABSOLUTE = (1.0, 0.5, 0.25, 0.125), (60, 30, 15, 8)
LOSSES = ("main", "aux", "kd", "saam", "total")
SCALES = ((".bn3.weight", 0.25),)


# A small model: 8 channels, grids of 6, 4, 3 and 2 cells, no dropout on the features.
tiny = partial(built, "sdaanet", width=8, scales=(6, 4, 3, 2), dropout=0.0)


def official_state(shared: Path, backbone: str) -> dict[str, Tensor]:
    """The authors' state dict of the golden files; not to be changed in place."""
    return golden_tools.specified_weights(shared / "specs/sdaanet_state.json", backbone, SCALES)


def official_model(shared: Path, backbone: str) -> SDAANet:
    """The model of the golden files, as the authors' state dict loads it, in eval mode."""
    model = golden_tools.without_dropout(build_model("sdaanet", backbone=backbone)).eval()
    return load_official(model, official_state(shared, backbone))


def golden_file(shared: Path, name: str) -> tuple[dict[str, Tensor], dict, Episode]:
    """Tensors, metadata and the episode of one golden file."""
    golden, facts = read_golden(shared / f"golden/sdaanet/{name}.safetensors")
    return golden, facts, one_way(golden, "in/query_img", "in/query_mask", "in/support_img", "in/support_mask")


def record(model: SDAANet, episode: Episode, run: str) -> tuple[object, dict[str, Tensor]]:
    """Call `model.forward` or `model.losses` (`run`); its result, and the values inside by their golden names."""
    decoder = model.enrichment
    parts = {f"layer{i}": getattr(model.backbone, f"layer{i}") for i in range(5)}
    parts |= {f"alpha_conv_{i}": part for i, part in enumerate(decoder.alpha)}
    parts |= {f"beta_conv_{i}": part for i, part in enumerate(decoder.beta)}
    parts |= {f"inner_logits_{i}": part for i, part in enumerate(decoder.inner)}
    parts |= {"res1": decoder.res1, "res2": decoder.res2, "logits_small": decoder.classifier}
    parts |= {"psp": model.saam, "support_logits": model.saam.support_logits}
    functions = (module, "masked_pool"), (module, "distillation"), (model, "segment"), (decoder, "_merge")
    model.explain = True  # or nothing would be computed that the logits do not depend on
    with watching(parts, functions) as seen:
        result = getattr(model, run)(episode)
    return result, {name: value.detach() for name, value in _by_golden_name(model, episode, seen).items()}


def _by_golden_name(model: SDAANet, episode: Episode, seen: dict[str, list[Call]]) -> dict[str, Tensor]:
    batch, shot = episode.batch, episode.shot
    found: dict[str, Tensor] = {}
    for layer in (f"layer{i}" for i in range(5)):
        if seen[layer]:
            every = torch.cat([call.result for call in seen[layer]])
            rest = every[batch:]
            order = rest.unflatten(0, (shot, batch)).transpose(0, 1) if model.batch_statistics else None
            rest = rest.unflatten(0, (batch, shot)) if order is None else order
            found[f"feat/query_{layer}"] = every[:batch]
            found |= {f"feat/support{k}_{layer}": rest[:, k] for k in range(shot)}
    logits, _, maps = vars(seen["segment"][0].result).values()
    found |= {"out/logits": logits, "out/pred": logits.argmax(1), "out/pred logits": logits}
    found["feat/query_reduced"] = maps["query_features"]
    found |= {"dec/support_proto": maps["prototypes"], "prior/mask": maps["prior"]}
    found |= {"saam/query_attention": maps["attention"], "saam/psp_query": seen["psp"][-1].result}
    of_support, of_query = seen["masked_pool"]
    found |= {
        "sdpm/support_mask_small_0": of_support.args[1][:, :1],
        "sdpm/query_mask_small": of_query.args[1][:, None],
    }
    found["proto/query_gt"] = of_query.result[..., None, None]
    students, log_teacher = seen["distillation"][0].args
    named = {"proto/init": "pooled", "proto/student": "students", "proto/teacher": "teacher", "sdpm/attention": "gate"}
    for k in range(shot):
        found[f"feat/support{k}_reduced"] = maps["support_features"][:, k]
        found[f"prior/shot{k}"] = maps["prior_shots"][:, k : k + 1]
        found |= {f"{key}_{k}": maps[name][:, k, :, None, None] for key, name in named.items()}
        found[f"sdpm/kd_{k}"] = distillation(students[:, k], log_teacher[:, k], **model.distil)
        if model.training:
            found[f"saam/support_logits_{k}"] = seen["support_logits"][k].result
    for i, call in enumerate(seen["_merge"]):
        found |= {f"dec/init_merge_{i}": call.result, f"dec/query_pooled_{i}": call.convolved[0][:, :-2]}
        found |= {f"dec/prior_{i}": call.convolved[0][:, -2:-1], f"dec/saam_{i}": call.convolved[0][:, -1:]}
    for name in (*(n for n in seen if n.startswith(("alpha", "beta", "inner"))), "res1", "res2", "logits_small"):
        found[f"dec/{name}"] = seen[name][0].result
    return found


def excess(found: dict[str, Tensor], golden: dict[str, Tensor], train: bool = False) -> dict[str, float]:
    """`golden_tools.excess` with the tolerances that the golden README gives SD-AANet."""
    return golden_tools.excess(found, golden, partial(_tolerance, train))


def _tolerance(train: bool, key: str, expected: Tensor) -> float:
    if key.startswith(("prior/", "dec/prior_")):
        return 1e-4
    if key.startswith("sdpm/kd_"):
        return (2e-3 if train else 1e-4) * float(expected.abs())
    return 0.0 if key == "out/pred" else (1e-4 if train else 1e-5) * float(expected.abs().max())


def reduced_model() -> SDAANet:
    """ResNet-50 with 32 channels behind it, weights from the authors' names, batch statistics in training."""
    return golden_tools.with_named_weights(
        build_model("sdaanet", backbone="resnet50", width=32, scales=(9, 5, 4, 3), bn="batch"), SCALES
    )


def reduced_evaluation(model: SDAANet, episode: Episode) -> dict[str, Tensor]:
    """First half of the reduced file: an evaluation at both kinds of scales."""
    model.explain, absolute = True, model.enrichment.scales
    with torch.no_grad():
        prediction = model(episode)
        numbers = {"logits": prediction.logits[:, 1:], "eval_losses": terms(model.losses(episode))}
        numbers |= {key: prediction.maps[key] for key in ("prior", "attention", "query_factor")}
        model.enrichment.scales = RELATIVE
        numbers["logits_relative"] = model(episode).logits[:, 1:, ::4, ::4]
    model.enrichment.scales = absolute
    return numbers


def reduced_training(model: SDAANet, episode: Episode) -> dict[str, Tensor]:
    """Second half: one training step's losses, norms of gradients, and norms of the moved buffers."""
    losses = model.train().losses(episode)
    numbers = {f"gradnorms_{term}": gradient_norms(losses[term], learned(model)) for term in ("kd", "saam", "total")}
    return numbers | {"train_losses": terms(losses), "buffernorms": buffer_norms(model)}


def reduced_excess(numbers: dict[str, Tensor], stored: dict[str, Tensor]) -> dict[str, float]:
    """As `excess`, for the numbers of the reduced file."""

    def tolerance(key: str, expected: Tensor) -> float | Tensor:
        if key == "prior":
            return 1e-4
        if key.startswith("gradnorms"):
            return 1e-3 * expected.abs()
        if key.endswith("losses"):
            # The third is the distillation, a small difference of large numbers.
            return torch.tensor([1e-5, 1e-5, 1e-3, 1e-5, 1e-5]) * expected.abs()
        return 1e-5 * (expected.abs() if key == "buffernorms" else expected.abs().max())

    return golden_tools.excess(numbers, stored, tolerance)
