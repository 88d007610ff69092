"""`explore_distillation`: SD-AANet's gate, its teacher and student, and what their divergence weighs in the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ipywidgets
import torch
from torch import Tensor
from torch.nn import functional as F

from ...data.base import SegmentationDataset
from ...episode import Episode
from ...losses import distillation, log_distribution
from ...models.sdaanet import SDAANet
from ...ops import strongest
from .. import panels
from ..board import Bars
from ..episode_controls import EpisodeControls
from ..explained_models import ExplainedModel, Memo, only
from ..explorer import WIDE, Explorer, Scene, dropdown

TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
WEIGHTS = (0.0, 1.0, 5.0, 20.0, 50.0, 200.0, 1000.0, 5000.0)
SHOWN = 8  # channels with bars of their own


def explore_distillation(
    dataset: SegmentationDataset | Mapping[str, object] | None = None,
    model: SDAANet | str | Path | None = None,
    *,
    size: int | None = None,
    shots: int = 1,
) -> Explorer:
    """SD-AANet's self-distillation: the support's prototype (student) learns from one that knows the query's mask.

    The model runs once an episode; temperature, weight and the kind of teacher are computed from what it left behind.

    Args:
        dataset: see `EpisodeControls`; None: Shapes-5i.
        model: an SDAANet with its gate (`sdpm=True`), or a file of `save_model`; None: the shipped weights.
        size: pixels a side; None: what suits the model's backbone.
        shots: supports at first.
    Returns:
        an `Explorer` with the controls of `Picks` and `temperature`, `alpha` (weight of the distillation), `mean`,
        `teacher`, `teacher_query` and `teachers` (see `SDAANet`), which start as the model has them. Facts: `kd`, the
        loss of `losses.distillation`; `terms`, the weighted terms of the loss by name, and `share`, that of the
        distillation in their sum; `student`, `teacher`, `gate` and `factor` (C,), means over the supports of the two
        distributions, of g on the support, and g's effect on the query; `channels`, those with bars of their own;
        `spread`, the teacher's entropy as a part of the largest possible; `cosines` with the query's own prototype, of
        `"pooled"` (before the gate), `"student"` and `"teacher"`; `iou` and `ungated`, the IoU without the gate.
    Raises ModelError: a model that is no SDAANet, or one without SDPM.
    """
    gated = lambda net: net.sdpm is not None  # noqa: E731
    bench, memo = only("sdaanet", SDAANet, model, "explore_distillation", gated, " with its gate (sdpm=True)"), Memo(8)
    net = bench(0).model
    picks = EpisodeControls(dataset, size=lambda: size or bench(picks.fold).size, shots=shots)
    own = {
        "temperature": _steps("Temperature", TEMPERATURES, net.distil["temperature"]),
        "alpha": _steps("Weight α", WEIGHTS, net.weights["kd"]),
        "mean": dropdown("Mean over", ("elements", "prototypes"), net.distil["mean"]),
        "teacher": dropdown("Teacher: average of", ("prototypes", "distributions"), net.sdpm.teacher),
        "teacher_query": dropdown("Its query", ("original", "reweighted"), net.sdpm.teacher_query),
        "teachers": dropdown("Teachers", ("separate", "integral"), net.sdpm.teachers),
    }

    def draw(temperature, alpha, mean, teacher, teacher_query, teachers, **_) -> Scene:
        episode, asked = picks.episode(), bench(picks.fold)
        run = memo((picks.key,), lambda: _run(asked, episode))
        maps, how = run.maps, {"temperature": temperature, "factor": asked.model.distil["factor"], "mean": mean}
        kinds = {"sdpm__teacher": teacher, "sdpm__teacher_query": teacher_query, "sdpm__teachers": teachers}
        with asked.ready(**kinds) as ready:
            parts = (maps["gate"], maps["students"], maps["query_prototype"], temperature)
            log_teacher, prototypes = ready.sdpm.log_teacher(*parts)
        kd = float(distillation(maps["students"], log_teacher, **how))
        terms = {name: asked.model.weights[name] * value for name, value in run.losses.items()} | {"kd": alpha * kd}
        facts = {"kd": kd, "terms": terms, "share": terms["kd"] / max(sum(terms.values()), 1e-12)}
        facts |= _channels(maps, log_teacher, prototypes, temperature)
        shown = _pictures(episode, run, facts, picks.name) + _bars(facts, temperature, alpha)
        return Scene(shown, f"{_words(facts, temperature, alpha)} {asked.note(episode.shot)}".strip(), facts)

    return Explorer({**picks.controls, **own}, draw, label="Distillation explorer", prepare=picks.prepare)


@dataclass(frozen=True)
class _Run:
    """What the model leaves behind: maps, plain losses by name without kd, and masks (H, W) with and without gate."""

    maps: Mapping[str, Tensor]
    losses: Mapping[str, float]
    gated: Tensor
    ungated: Tensor


def _run(bench: ExplainedModel, episode: Episode) -> _Run:
    """One pass for maps and losses together, and the short way to the mask without the gate."""
    with bench.ready() as model:
        there = episode.to(next(model.parameters()).device)
        query, support = model.features(there)
        support = {name: value[:, 0] for name, value in support.items()}
        masks = there.support_masks[:, 0]
        found = model.segment(query, support, masks, there.query_masks, True)
    # Shut off, SDPM leaves prototypes and query as they are: the open gate.
    with bench.ready(sdpm=None, explain=False) as model:
        plain = model.segment(query, support, masks, None, False)
    names = ("gate", "pooled", "students", "query_prototype", "query_factor")
    maps = {name: found.maps[name].float().cpu() for name in names}
    losses = {name: float(found.losses[name]) for name in ("main", "aux", "saam")}
    return _Run(maps, losses, *(strongest(out.logits)[0].cpu() for out in (found, plain)))


def _channels(maps: Mapping[str, Tensor], log_teacher: Tensor, prototypes: Tensor, temperature: float) -> dict:
    """Distributions, factors and likenesses; those of several supports as their means."""
    teacher = log_teacher.exp()
    student = log_distribution(maps["students"], temperature).exp()
    entropy = -(teacher * log_teacher.clamp_min(-1e4)).sum(-1) / torch.tensor(float(teacher.shape[-1])).log()
    own = maps["query_prototype"][:, None]
    sides = {"pooled": maps["pooled"], "student": maps["students"], "teacher": prototypes}
    mean = teacher[0].mean(0)
    return {
        "teacher": mean,
        "student": student[0].mean(0),
        "channels": mean.argsort(descending=True, stable=True)[:SHOWN].tolist(),
        "spread": float(entropy.mean()),
        "gate": (maps["gate"][0].mean(0) + 1) / 2,
        "factor": maps["query_factor"][0],
        "cosines": {name: float(F.cosine_similarity(side, own, dim=-1).mean()) for name, side in sides.items()},
    }


def _pictures(episode: Episode, run: _Run, facts: dict, name: str) -> list:
    """Supports, the query with the mask that the teacher knows, and both predictions, whose scores join the facts."""
    query, truth = episode.query_images[0], episode.query_masks[0]
    shown = [
        panels.photo(f"support {k}", f"Support {k + 1}: {name}", image, mask)
        for k, (image, mask) in enumerate(zip(episode.support_images[0, 0], episode.support_masks[0, 0]))
    ]
    shown += [
        panels.photo("query", "Query", query),
        panels.photo("truth", "True mask: the teacher pools under it", query, truth),
    ]
    for key, caption, mask in (("iou", "Prediction", run.gated), ("ungated", "Without the gate", run.ungated)):
        panel, facts[key] = panels.prediction(key, caption, query, mask, truth)
        shown.append(panel)
    return shown


def _bars(facts: Mapping, temperature: float, alpha: float) -> list[Bars]:
    """Distributions and factors by channel, cosines, and the terms of the loss."""
    chosen = facts["channels"]
    rest = sorted(set(range(len(facts["teacher"]))) - set(chosen))
    rows = {f"Channel {c}": {name: float(facts[name][c]) for name in ("student", "teacher")} for c in chosen}
    caption = f"Shares of the channels at temperature {temperature:g}"
    if rest:
        rows[f"{len(rest)} others"] = {n: float(facts[n][rest].mean()) for n in ("student", "teacher")}
        caption += f"; the others on average, {float(facts['teacher'][rest].sum()):.0%} of the teacher in all"
    gates = {f"Channel {c}": {"support": float(facts["gate"][c]), "query": float(facts["factor"][c])} for c in chosen}
    labels = {"pooled": "Ungated p", "student": "Student S", "teacher": "Teacher T"}
    near = {label: {"": facts["cosines"][name]} for name, label in labels.items()}
    names = {"main": "Main", "aux": "Auxiliary", "kd": f"{alpha:g} · KD", "saam": "Attention"}
    terms = {label: {"": facts["terms"][name]} for name, label in names.items()}
    return [
        Bars("terms", f"Terms of the loss; distillation is {facts['share']:.1%} of the sum", terms, "{:.3f}"),
        Bars("cosines", "Cosine with the query's own prototype t", near),
        Bars("shares", caption, rows, "{:.1%}"),
        Bars("gates", "What the gate multiplies these channels with", gates),
    ]


def _words(facts: Mapping, temperature: float, alpha: float) -> str:
    near = facts["cosines"]
    said = f"At temperature {temperature:g} the teacher has {facts['spread']:.0%} of the largest possible entropy. "
    said += f"The distillation is {facts['kd']:.2g}; times {alpha:g} it makes {facts['share']:.1%} of the loss. "
    said += f"The query's own prototype is like the support's by a cosine of {near['pooled']:.2f}, behind the gate "
    return said + f"{near['student']:.2f}. IoU {facts['iou']:.0%}, without the gate {facts['ungated']:.0%}."


def _steps(label: str, values: tuple[float, ...], own: float) -> ipywidgets.SelectionSlider:
    """A slider of unevenly spaced numbers, the model's own among them."""
    options = [(f"{value:g}", value) for value in sorted({*values, float(own)})]
    style = {"description_width": "initial"}
    return ipywidgets.SelectionSlider(options=options, value=float(own), description=label, layout=WIDE, style=style)
