"""`explore_correlation`: what HDMNet compares at each scale, who attends to whom, and what the ensemble decides."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episode import Episode
from ...models.hdmnet import EPS_UNIT, HDMNet, block_mask, to_tokens
from ...ops import resize, strongest
from .. import board, panels
from ..episode_controls import Datasets, EpisodeControls
from ..explained_models import Memo, only
from ..explorer import Explorer, Scene, dropdown, steps, switch

TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SMALL = board.WIDTH // 2


def explore_correlation(
    dataset: Datasets = None, model: HDMNet | str | Path | None = None, *, size: int | None = None, shots: int = 1,
    stage: int = 0,
) -> Explorer:  # fmt: skip
    """HDMNet from its correlation maps to its answer, with the settings of the matching in your hand.

    Settings change at test time: the layers behind were trained with those of the model. Point at the query to see what
    a cell reads in the supports, or at a support to see where in the query its cell is read.

    Args:
        dataset, size, shots: see `explore_episode`.
        model: an HDMNet or a file of `save_model`; None: the shipped weights. stage: the scale at first, from 0 (fine).
    Returns:
        an `Explorer` with the controls of `EpisodeControls` and `stage`, `softmax` (`"query"` or `"support"`),
        `temperature`, and, where the model has them, `self_attention` and `ensemble` (on or off). Facts, at the chosen
        stage of (h, w) cells: `correlation` (h, w); `on` and `off`, its mean on the object and elsewhere; `received`
        (h, w), the attention that each query cell gets, `share` of it that the object gets, and its `area`;
        `attention`, the mean over the heads at the point: (K, h, w) what a query cell reads, or (h, w) where a support
        cell is read; its sum `amount`; `like`, the mean cosine of the object's keys with their mean. `iou` of the
        prediction on display; `ious` of `"ensemble"` and `"meta"`, the matching network alone.
    Raises ModelError: a model that is no HDMNet.
    """
    model_of, memo, attended = only("hdmnet", HDMNet, model, "explore_correlation"), Memo(), Memo(4)
    picks, net = EpisodeControls(dataset, model_of, size=size, shots=shots), model_of(0).model
    trained = net.transformer.match[0].attention
    last = len(net.transformer.match) - 1
    stages = [(f"{i}{', fine' * (i == 0)}{', coarse' * (0 < i == last)}", i) for i in range(last + 1)]
    controls = {
        "stage": dropdown("Stage", stages, stage),
        "softmax": dropdown("Softmax over the", ("query", "support"), trained.softmax),
        "temperature": steps("Temperature", TEMPERATURES, trained.temperature),
    }
    if net.self_attention:
        controls["self_attention"] = switch("Self-attention", True)
    if net.ensemble is not None:
        controls["ensemble"] = switch("Ensemble", True)

    def draw(stage, softmax, temperature, point, self_attention=True, ensemble=False, **_) -> Scene:
        episode, explained = picks.episode(), picks.model
        settings = (softmax, temperature, self_attention)
        answer = memo((picks.key, *settings), lambda: explained(episode, **_options(explained.model, *settings)))
        maps, truth = answer.maps, episode.query_masks[0]
        related = partial(_attention, explained.model, maps, episode, stage, softmax, temperature)
        pairs, alike = attended((picks.key, *settings, stage), related)
        # Without the ensemble the probabilities of the matching network are the answer.
        logits = {"meta": resize(maps["meta"], tuple(truth.shape))}
        if explained.model.ensemble is not None:
            logits["ensemble"] = answer.logits
        masks = {name: strongest(value)[0] for name, value in logits.items()}
        chosen, ious = "ensemble" if ensemble else "meta", {n: panels.iou(mask, truth) for n, mask in masks.items()}
        facts = _facts(maps, episode, stage, pairs) | {"like": alike, "ious": ious, "iou": ious[chosen]}
        shown = _inputs(episode, maps, pairs, stage, point, facts, picks.name)
        shown += _answers(maps, episode, masks[chosen], ensemble)
        changed = settings != (trained.softmax, trained.temperature, True)
        words = _words(facts, stage, ensemble) + " The weights were trained with other settings." * changed
        return Scene(shown, f"{words} {explained.note(episode.shot)}".strip(), facts)

    return Explorer({**picks.controls, **controls}, draw, label="Correlation explorer", prepare=picks.prepare)


def _options(model: HDMNet, softmax: str, temperature: float, self_attention: bool) -> dict[str, object]:
    """What a run of the model is to change, see `ExplainedModel.ready`."""
    changes = {"match__{}__attention__softmax": softmax, "match__{}__attention__temperature": temperature}
    changes |= {} if self_attention else {"stages__{}__layers": nn.ModuleList()}
    stages = range(len(model.transformer.match))
    return {f"transformer__{name.format(i)}": value for i in stages for name, value in changes.items()}


@torch.no_grad()
def _attention(
    model: HDMNet, maps: Mapping[str, Tensor], episode: Episode, stage: int, softmax: str, temperature: float
) -> tuple[Tensor, float]:
    """Attention (h, w, K, h, w) of query cells to support cells, mean over the heads, as `correlate` applies it; and
    how alike the object's keys are, the mean cosine with their mean."""
    layer, (query, support) = model.transformer.match[stage], (maps[f"{side}/{stage}"] for side in ("query", "support"))
    size, device = tuple(query.shape[-2:]), next(layer.parameters()).device
    tokens = (to_tokens(query), to_tokens(support.flatten(0, 1)).flatten(0, 1)[None])
    queries, keys, _ = layer.attention.project(*(layer.norm1(side.to(device)) for side in tokens))
    inside = block_mask(episode.support_masks[:, 0], size)[0] == 1
    queries, keys = (F.normalize(x[0].float().cpu(), dim=-1, eps=EPS_UNIT) for x in (queries, keys))
    keys = keys[:, inside]
    scores = queries @ keys.mT / temperature
    pairs = torch.zeros(len(queries[0]), len(inside))
    pairs[:, inside] = scores.softmax(-2 if softmax == "query" else -1).mean(0)
    alike = float(keys.mean(1).norm(dim=-1).mean()) if inside.any() else 0.0
    return pairs.view(*size, episode.shot, *size), alike


def _facts(maps: Mapping[str, Tensor], episode: Episode, stage: int, pairs: Tensor) -> dict:
    """The numbers of one stage."""
    correlation, received = maps[f"correlation/{stage}"][0], pairs.sum((2, 3, 4))
    inside = F.adaptive_avg_pool2d((episode.query_masks == 1).float(), correlation.shape)[0]
    on, off = (float((correlation * part).sum() / part.sum().clamp_min(1e-9)) for part in (inside, 1 - inside))
    share = float((received * inside).sum() / received.sum().clamp_min(1e-9))
    area = float(inside.mean())
    return {"correlation": correlation, "on": on, "off": off, "received": received, "share": share, "area": area}


def _inputs(
    episode: Episode, maps: Mapping[str, Tensor], pairs: Tensor, stage: int, point: Mapping, facts: dict, name: str
) -> list:
    """Supports, query, correlation maps and attention; adds what the point shows to the facts."""
    query, truth, pixels = episode.query_images[0], episode.query_masks[0], tuple(episode.query_images.shape[-2:])
    cells = tuple(facts["correlation"].shape)
    numbers = {f"support {k}": k for k in range(episode.shot)}
    spot = panels.pointed(point, ["query", *numbers], pixels)
    if spot is None:  # where the correlation is largest
        spot = ("query", *panels.middle(*divmod(int(facts["correlation"].argmax()), cells[1]), pixels, cells))
    (panel, x, y), (row, column) = spot, panels.cell_at(*spot[1:], pixels, cells)
    ring = {numbers.get(panel): [panels.cross(x, y)]}
    shown = panels.supports(episode, name, marks=ring, pick=True)
    shown.append(panels.photo("query", "Query", query, marks=ring.get(None, ()), pick=True))
    for i in sorted((i for i in range(3) if f"correlation/{i}" in maps), key=lambda i: (i != stage, i)):
        values = maps[f"correlation/{i}"][0]
        caption = f"Correlation, stage {i}: {values.min():.2f} to {values.max():.2f}"
        how = {"mask": truth} if i == stage else {"width": SMALL}
        shown.append(panels.heat(f"correlation {i}", caption, values, query, **how))
    received = facts["received"]
    caption = f"Attention that every cell receives: {received.min():.2f} to {received.max():.2f}"
    shown.append(panels.heat("received", caption, received, query, limits=(0.0, float(received.max()))))
    if panel == "query":
        attention = facts["attention"] = pairs[row, column]
        limits = (0.0, float(attention.max()))
        for k, image in enumerate(episode.support_images[0, 0]):
            caption = f"What the ring reads in support {k + 1}: {attention[k].sum():.2f} in all"
            shown.append(panels.heat(f"attention {k}", caption, attention[k], image, limits=limits))
    else:
        attention = facts["attention"] = pairs[:, :, numbers[panel], row, column]
        read = attention.any()
        caption = "Where the ring is read in the query" if read else "The ring lies beside the object: unread"
        shown.append(panels.heat("attention", caption, attention, query, mask=truth))
    facts["amount"] = float(attention.sum())
    return shown


def _answers(maps: Mapping[str, Tensor], episode: Episode, mask: Tensor, ensemble: bool) -> list:
    """Prior maps, probabilities, prediction and truth."""
    query, truth = episode.query_images[0], episode.query_masks[0]
    both = {"limits": (0.0, 1.0), "mask": truth}
    base = "Base learner: probability of base classes" + ", not used" * (not ensemble)
    caption = "Prediction, merged" if ensemble else "Prediction, matching alone"
    return [
        panels.heat("prior 0", "Prior map, base learner", maps["prior"][0, 0], query, width=SMALL),
        panels.heat("prior 1", "Prior map, deepest stage", maps["prior"][0, 1], query, width=SMALL),
        panels.heat("meta", "Matching network: probability of the object", maps["meta"][0, 1], query, **both),
        panels.heat("base_map", base, maps["base_map"][0, 0], query, **both),
        panels.prediction("prediction", caption, query, mask, truth)[0],
        panels.photo("truth", "True mask", query, truth),
    ]


def _words(facts: Mapping, stage: int, ensemble: bool) -> str:
    words = f"Stage {stage}: the correlation is {facts['on']:.2f} on the object and {facts['off']:.2f} elsewhere. "
    words += f"The object covers {facts['area']:.0%} of the query and receives {facts['share']:.0%} of the attention. "
    words += f"IoU {facts['iou']:.0%}"
    for other in facts["ious"].keys() - {"ensemble" if ensemble else "meta"}:
        words += f", {'without' if ensemble else 'with'} the ensemble {facts['ious'][other]:.0%}"
    return f"{words}."
