"""SD-AANet for the tests: models, and every intermediate value under the name that the golden files give it."""

import json
from collections import defaultdict
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from unittest import mock

import golden_tools
import torch
import torch.nn.functional as F
from golden_tools import names, read_golden, recipe_weights, without_dropout
from torch import Tensor

from fsslib import Episode, build_model, load_official
from fsslib.losses import distillation
from fsslib.models import sdaanet as module
from fsslib.models.sdaanet import SDAANet

RELATIVE, ABSOLUTE = (1.0, 0.5, 0.25, 0.125), (60, 30, 15, 8)
LOSSES = ("main", "aux", "kd", "saam", "total")
SCALES = [[".bn3.weight", 0.25]]
__all__ = ["names", "without_dropout"]  # what other tests still look for here
REDUCED = ("query_images", "query_masks", "support_images", "support_masks", "classes")


def tiny(seed: int = 0, backbone: str = "tiny", **options) -> SDAANet:
    """A small seeded model in eval mode: 8 channels, grids of 6, 4, 3 and 2 cells, no dropout on the features."""
    torch.manual_seed(seed)
    options = {"width": 8, "scales": (6, 4, 3, 2), "dropout": 0.0} | options
    return build_model("sdaanet", backbone=backbone, **options).eval()


@torch.no_grad()
def everything(model: SDAANet, episode: Episode) -> dict[str, Tensor]:
    """Logits, maps and losses by name, in eval mode."""
    model.explain = True
    prediction = model.eval()(episode)
    return {"logits": prediction.logits, **prediction.maps, **model.losses(episode)}


@lru_cache(maxsize=2)
def official_state(table: Path, backbone: str) -> dict[str, Tensor]:
    """The authors' state dict of the golden files; not to be changed in place."""
    return recipe_weights(json.loads(table.read_text())[backbone], SCALES)


def official_model(shared: Path, backbone: str, **options) -> SDAANet:
    """The model of the golden files, as the authors' state dict loads it, in eval mode."""
    model = without_dropout(build_model("sdaanet", backbone=backbone, **options)).eval()
    return load_official(model, official_state(shared / "specs/sdaanet_state.json", backbone))


def golden_file(shared: Path, name: str) -> tuple[dict[str, Tensor], dict, Episode]:
    """Tensors, metadata and the episode of one golden file."""
    golden, facts = read_golden(shared / f"golden/sdaanet/{name}.safetensors")
    images = golden["in/query_img"].float(), golden["in/support_img"].float()[:, None]
    masks = golden["in/query_mask"].long(), golden["in/support_mask"].long()[:, None]
    episode = Episode(images[0], masks[0], images[1], masks[1], torch.ones(len(masks[0]), 1).long())
    return golden, facts, episode.validate()


def record(model: SDAANet, episode: Episode, run: str) -> tuple[object, dict[str, Tensor]]:
    """Call `model.forward` or `model.losses` (`run`); its result, and the values inside by their golden names."""
    seen: dict[str, list] = defaultdict(list)
    decoder = model.enrichment
    parts = {f"layer{i}": getattr(model.backbone, f"layer{i}") for i in range(5)}
    parts |= {f"alpha_conv_{i}": part for i, part in enumerate(decoder.alpha)}
    parts |= {f"beta_conv_{i}": part for i, part in enumerate(decoder.beta)}
    parts |= {f"inner_logits_{i}": part for i, part in enumerate(decoder.inner)}
    parts |= {"res1": decoder.res1, "res2": decoder.res2, "logits_small": decoder.classifier}
    parts |= {"psp": model.saam, "support_logits": model.saam.support_logits}
    with ExitStack() as stack:
        for name, part in parts.items():
            hook = part.register_forward_hook(lambda _, __, out, name=name: seen[name].append(out.detach()))
            stack.callback(hook.remove)
        for owner, name in ((module, "masked_pool"), (module, "distillation"), (model, "segment"), (decoder, "_merge")):
            original = getattr(owner, name)
            stack.enter_context(mock.patch.object(owner, name, partial(_watched, seen[name], original)))
        result = getattr(model, run)(episode)
    return result, {name: value.detach() for name, value in _by_golden_name(model, episode, seen).items()}


def _watched(calls: list, function, *args, **kwargs):
    """Call `function` and keep (arguments, result, inputs of the convolutions inside)."""
    inputs, conv = [], F.conv2d
    with mock.patch.object(F, "conv2d", lambda x, *rest, **named: (inputs.append(x), conv(x, *rest, **named))[1]):
        result = function(*args, **kwargs)
    calls.append((args, result, inputs))
    return result


def _by_golden_name(model: SDAANet, episode: Episode, seen: dict[str, list]) -> dict[str, Tensor]:
    batch, shot = episode.batch, episode.shot
    found: dict[str, Tensor] = {}
    for layer in (f"layer{i}" for i in range(5)):
        if seen[layer]:
            every = torch.cat(seen[layer])
            rest = every[batch:]
            order = rest.unflatten(0, (shot, batch)).transpose(0, 1) if model.batch_statistics else None
            rest = rest.unflatten(0, (batch, shot)) if order is None else order
            found[f"feat/query_{layer}"] = every[:batch]
            found |= {f"feat/support{k}_{layer}": rest[:, k] for k in range(shot)}
    outcome = seen["segment"][0][1]
    maps = outcome.maps
    found |= {
        "out/logits": outcome.logits,
        "out/pred": outcome.logits.argmax(1),
        "out/pred logits": outcome.logits,
        "feat/query_reduced": maps["query_features"],
    }
    found |= {"dec/support_proto": maps["prototypes"], "prior/mask": maps["prior"]}
    found |= {"saam/query_attention": maps["attention"], "saam/psp_query": seen["psp"][-1]}
    found |= {"sdpm/support_mask_small_0": seen["masked_pool"][0][0][1][:, :1]}
    found |= {"sdpm/query_mask_small": seen["masked_pool"][1][0][1][:, None]}
    found["proto/query_gt"] = seen["masked_pool"][1][1][..., None, None]
    (students, log_teacher), _, _ = seen["distillation"][0]
    named = {"proto/init": "pooled", "proto/student": "students", "proto/teacher": "teacher", "sdpm/attention": "gate"}
    for k in range(shot):
        found[f"feat/support{k}_reduced"] = maps["support_features"][:, k]
        found[f"prior/shot{k}"] = maps["prior_shots"][:, k : k + 1]
        found |= {f"{key}_{k}": maps[name][:, k, :, None, None] for key, name in named.items()}
        found[f"sdpm/kd_{k}"] = distillation(students[:, k], log_teacher[:, k], **model.distil)
        if model.training:
            found[f"saam/support_logits_{k}"] = seen["support_logits"][k]
    for i, (_, merged, inputs) in enumerate(seen["_merge"]):
        found[f"dec/init_merge_{i}"] = merged
        found |= {f"dec/query_pooled_{i}": inputs[0][:, :-2]}
        found |= {f"dec/prior_{i}": inputs[0][:, -2:-1], f"dec/saam_{i}": inputs[0][:, -1:]}
    for name in (*(n for n in seen if n.startswith(("alpha", "beta", "inner"))), "res1", "res2", "logits_small"):
        found[f"dec/{name}"] = seen[name][0]
    return found


def excess(found: dict[str, Tensor], golden: dict[str, Tensor], train: bool) -> dict[str, float]:
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
    model = without_dropout(build_model("sdaanet", backbone="resnet50", width=32, scales=(9, 5, 4, 3), bn="batch"))
    table = [(model.official_name(n), v.shape, str(v.dtype)) for n, v in model.state_dict().items()]
    return load_official(model, recipe_weights(table, SCALES)).eval()


def reduced_episode(stored: dict[str, Tensor]) -> Episode:
    """The episode of the reduced file, which keeps images in steps of 1/32 and masks as bytes."""
    parts = {key: value.float() / 32 if "images" in key else value.long() for key, value in stored.items()}
    return Episode(**{key: parts[key] for key in REDUCED}).validate()


def reduced_evaluation(model: SDAANet, episode: Episode) -> dict[str, Tensor]:
    """First half of the reduced file: an evaluation at both kinds of scales."""
    model.explain, absolute = True, model.enrichment.scales
    with torch.no_grad():
        prediction = model(episode)
        numbers = {"logits": prediction.logits[:, 1:], "eval_losses": _terms(model.losses(episode))}
        numbers |= {key: prediction.maps[key] for key in ("prior", "attention", "query_factor")}
        model.enrichment.scales = RELATIVE
        numbers["logits_relative"] = model(episode).logits[:, 1:, ::4, ::4]
    model.enrichment.scales = absolute
    return numbers


def reduced_training(model: SDAANet, episode: Episode) -> dict[str, Tensor]:
    """Second half: one training step's losses, norms of gradients, and norms of the moved buffers."""
    losses = model.train().losses(episode)
    numbers = {"train_losses": _terms(losses).detach()}
    learned = [p for p in model.parameters() if p.requires_grad]
    for term in ("kd", "saam", "total"):
        grads = torch.autograd.grad(losses[term], learned, retain_graph=True, allow_unused=True)
        numbers[f"gradnorms_{term}"] = torch.tensor([-1.0 if grad is None else float(grad.norm()) for grad in grads])
    numbers["buffernorms"] = torch.stack([buffer.double().norm() for buffer in model.buffers()]).float()
    return numbers


def reduced_excess(numbers: dict[str, Tensor], stored: dict[str, Tensor]) -> dict[str, float]:
    """As `excess`, for the numbers of the reduced file."""
    found = {}
    for name, value in numbers.items():
        expected = stored[name]
        assert value.shape == expected.shape and torch.isfinite(value).all(), name
        limit = 1e-5 * expected.abs() if name == "buffernorms" else torch.tensor(1e-5) * expected.abs().max()
        if name == "prior":
            limit = torch.tensor(1e-4)
        elif name.startswith("gradnorms"):
            limit = 1e-3 * expected.abs()
        elif name.endswith("losses"):
            # The third is the distillation, a small difference of large numbers.
            limit = torch.tensor([1e-5, 1e-5, 1e-3, 1e-5, 1e-5]) * expected.abs()
        off = (value - expected).abs()
        found[name] = float(torch.where(off > 0, off / limit, off).max())
    return found


def _terms(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([losses[name] for name in LOSSES])
