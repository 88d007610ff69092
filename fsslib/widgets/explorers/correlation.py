"""`explore_correlation`: what HDMNet compares at each scale, who attends to whom, and what the ensemble decides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ipywidgets
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.base import SegmentationDataset
from ...episode import Episode
from ...models.hdmnet import EPS_UNIT, HDMNet, block_mask, to_tokens
from ...ops import resize, strongest
from .. import board, panels
from ..episode_controls import EpisodeControls
from ..explained_models import Memo, only
from ..explorer import WIDE, Explorer, Scene, dropdown, switch

TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SMALL = board.WIDTH // 2


def explore_correlation(
    dataset: SegmentationDataset | Mapping[str, object] | None = None,
    model: HDMNet | str | Path | None = None,
    *,
    size: int | None = None,
    shots: int = 1,
    stage: int = 0,
) -> Explorer:
    """HDMNet from its correlation maps to its answer, with the settings of the matching in your hand.

    Settings change at test time: the layers behind were trained with those of the model. Point at the query to see what
    a cell reads in the supports, or at a support to see where in the query its cell is read.

    Args:
        dataset: see `EpisodeControls`; None: Shapes-5i.
        model: an HDMNet or a file of `save_model`; None: the shipped weights.
        size: pixels a side; None: what suits the model's backbone.
        shots: supports at first. stage: the scale at first, from 0 (fine).
    Returns:
        an `Explorer` with the controls of `Picks` and `stage`, `softmax` (`"query"` or `"support"`), `temperature`,
        and, where the model has them, `self_attention` and `ensemble` (on or off). Facts, at the chosen stage of
        (h, w) cells: `correlation` (h, w); `on` and `off`, its mean on the object and elsewhere; `received` (h, w), the
        attention that each query cell gets, `share` of it that the object gets, and its `area`; `attention`, the mean
        over the heads at the point: (K, h, w) what a query cell reads, or (h, w) where a support cell is read; its
        sum `amount`; `like`, the mean cosine of the object's keys with their mean. `iou` of the prediction on display;
        `ious` of `"ensemble"` and `"meta"`, the matching network alone.
    Raises ModelError: a model that is no HDMNet.
    """
    bench, memo, attended = only("hdmnet", HDMNet, model, "explore_correlation"), Memo(), Memo(4)
    net = bench(0).model
    picks = EpisodeControls(dataset, size=lambda: size or bench(picks.fold).size, shots=shots)
    trained = net.transformer.match[0].attention
    last = len(net.transformer.match) - 1
    stages = [(f"{i}{', fine' * (i == 0)}{', coarse' * (0 < i == last)}", i) for i in range(last + 1)]
    temperatures = sorted({*TEMPERATURES, trained.temperature})
    own = {
        "stage": dropdown("Stage", stages, stage),
        "softmax": dropdown("Softmax over the", ("query", "support"), trained.softmax),
        "temperature": ipywidgets.SelectionSlider(
            options=temperatures,
            value=trained.temperature,
            description="Temperature",
            layout=WIDE,
            style={"description_width": "initial"},
        ),
        "self_attention": switch("Self-attention", True),
        "ensemble": switch("Ensemble", True),
    }
    if not net.self_attention:
        del own["self_attention"]
    if net.ensemble is None:
        del own["ensemble"]

    def draw(stage, softmax, temperature, point, self_attention=True, ensemble=False, **_) -> Scene:
        episode, asked = picks.episode(), bench(picks.fold)
        key = (picks.key, softmax, temperature, self_attention)
        options = _options(asked.model, softmax, temperature, self_attention)
        found = memo(key, lambda: asked(episode, **options))
        pairs = attended(
            (*key, stage), lambda: _attention(asked.model, found.maps, episode, stage, softmax, temperature)
        )
        truth = episode.query_masks[0]
        # Without the ensemble the probabilities of the matching network are the answer.
        logits = {"meta": resize(found.maps["meta"], tuple(truth.shape))}
        if asked.model.ensemble is not None:
            logits["ensemble"] = found.logits
        masks = {name: strongest(value)[0] for name, value in logits.items()}
        chosen = "ensemble" if ensemble else "meta"
        facts = _facts(found.maps, episode, stage, *pairs)
        facts["ious"] = {name: panels.iou(mask, truth) for name, mask in masks.items()}
        facts["iou"] = facts["ious"][chosen]
        shown = _inputs(episode, found.maps, pairs[0], stage, point, facts, picks.name)
        shown += _answers(found.maps, episode, masks[chosen], ensemble)
        changed = (softmax, temperature, self_attention) != (trained.softmax, trained.temperature, True)
        words = _words(facts, stage, ensemble) + " The weights were trained with other settings." * changed
        return Scene(shown, f"{words} {asked.note(episode.shot)}".strip(), facts)

    return Explorer({**picks.controls, **own}, draw, label="Correlation explorer", prepare=picks.prepare)


def _options(model: HDMNet, softmax: str, temperature: float, self_attention: bool) -> dict[str, object]:
    """What a run of the model is to change, see `Bench.ready`."""
    changes: dict[str, object] = {}
    for i in range(len(model.transformer.match)):
        changes[f"transformer__match__{i}__attention__softmax"] = softmax
        changes[f"transformer__match__{i}__attention__temperature"] = temperature
        if not self_attention:
            changes[f"transformer__stages__{i}__layers"] = nn.ModuleList()
    return changes


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


def _facts(maps: Mapping[str, Tensor], episode: Episode, stage: int, pairs: Tensor, alike: float) -> dict:
    """The numbers of one stage."""
    correlation, received = maps[f"correlation/{stage}"][0], pairs.sum((2, 3, 4))
    inside = F.adaptive_avg_pool2d((episode.query_masks == 1).float(), correlation.shape)[0]
    on, off = (float((correlation * part).sum() / part.sum().clamp_min(1e-9)) for part in (inside, 1 - inside))
    share = float((received * inside).sum() / received.sum().clamp_min(1e-9))
    facts = {"correlation": correlation, "on": on, "off": off, "received": received, "share": share}
    return facts | {"area": float(inside.mean()), "like": alike}


def _inputs(
    episode: Episode, maps: Mapping[str, Tensor], pairs: Tensor, stage: int, point: Mapping, facts: dict, name: str
) -> list:
    """Supports, query, correlation maps and attention; adds what the point shows to the facts."""
    query, truth, high, wide = episode.query_images[0], episode.query_masks[0], *episode.query_images.shape[-2:]
    rows, columns = facts["correlation"].shape
    panel, x, y = (point.get(name, -1) for name in ("panel", "x", "y"))
    known = {"query", *(f"support {k}" for k in range(episode.shot))}
    if panel not in known or not (0 <= x < wide and 0 <= y < high):
        # Nothing was pointed at: where the correlation is largest.
        row, column = divmod(int(facts["correlation"].argmax()), columns)
        panel, x, y = "query", (column + 0.5) * wide / columns - 0.5, (row + 0.5) * high / rows - 0.5
    else:
        row, column = int(y * rows / high), int(x * columns / wide)
    marks = {panel: [panels.cross(x, y)]}
    shown = []
    for k, (image, mask) in enumerate(zip(episode.support_images[0, 0], episode.support_masks[0, 0])):
        mark = marks.get(f"support {k}", ())
        shown.append(panels.photo(f"support {k}", f"Support {k + 1}: {name}", image, mask, marks=mark, pick=True))
    shown.append(panels.photo("query", "Query", query, marks=marks.get("query", ()), pick=True))
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
        attention = facts["attention"] = pairs[:, :, int(panel.split()[1]), row, column]
        caption = (
            "Where the ring is read in the query" if attention.any() else "The ring lies beside the object: unread"
        )
        shown.append(panels.heat("attention", caption, attention, query, mask=truth))
    facts["amount"] = float(attention.sum())
    return shown


def _answers(maps: Mapping[str, Tensor], episode: Episode, mask: Tensor, ensemble: bool) -> list:
    """Prior maps, probabilities, prediction and truth."""
    query, truth = episode.query_images[0], episode.query_masks[0]
    shown = []
    for i, name in enumerate(("base learner", "deepest stage")):
        shown.append(panels.heat(f"prior {i}", f"Prior map, {name}", maps["prior"][0, i], query, width=SMALL))
    both = {"limits": (0.0, 1.0), "mask": truth}
    shown.append(panels.heat("meta", "Matching network: probability of the object", maps["meta"][0, 1], query, **both))
    caption = "Base learner: probability of base classes" + ", not used" * (not ensemble)
    shown.append(panels.heat("base_map", caption, maps["base_map"][0, 0], query, **both))
    caption = "Prediction, merged" if ensemble else "Prediction, matching alone"
    return [
        *shown,
        panels.prediction("prediction", caption, query, mask, truth)[0],
        panels.photo("truth", "True mask", query, truth),
    ]


def _words(facts: Mapping, stage: int, ensemble: bool) -> str:
    said = f"Stage {stage}: the correlation is {facts['on']:.2f} on the object and {facts['off']:.2f} elsewhere. "
    said += f"The object covers {facts['area']:.0%} of the query and receives {facts['share']:.0%} of the attention. "
    said += f"IoU {facts['iou']:.0%}"
    for other in facts["ious"].keys() - {"ensemble" if ensemble else "meta"}:
        said += f", {'without' if ensemble else 'with'} the ensemble {facts['ious'][other]:.0%}"
    return f"{said}."
