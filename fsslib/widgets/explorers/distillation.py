"""`explore_distillation`: SD-AANet's gate, its teacher and student, and what their divergence weighs in the loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ...data import load_dataset
from ...data.base import SegmentationDataset
from ...episode import Episode
from ...losses import distillation, log_distribution
from ...models.sdaanet import SDAANet
from ...ops import strongest
from .. import panels
from ..board import Bars
from ..episode_controls import Datasets, EpisodeControls
from ..explained_models import ExplainedModel, Memo, only
from ..explorer import Explorer, Scene, dropdown, steps

TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
WEIGHTS = (0.0, 1.0, 5.0, 20.0, 50.0, 200.0, 1000.0, 5000.0)
SHOWN = 8  # channels with bars of their own


def explore_distillation(
    dataset: Datasets = None, model: SDAANet | str | Path | None = None, *, size: int | None = None, shots: int = 1,
    gaps: Sequence[float] = (),
) -> Explorer:  # fmt: skip
    """SD-AANet's self-distillation: the support's prototype (student) learns from one that knows the query's mask.

    The model runs once an episode; temperature, weight and the kind of teacher are computed from what it left behind.

    Args:
        dataset, size, shots: see `explore_episode`.
        gaps: values of the knob `gap` of Shapes-5i, in place of a data set: a slider `data` moves the support away from
            the query, which are of different domains then.
        model: an SDAANet with its gate (`sdpm=True`), or a file of `save_model`; None: the shipped weights.
    Returns:
        an `Explorer` with the controls of `EpisodeControls` and `temperature`, `alpha` (weight of the distillation),
        `mean`, `teacher`, `teacher_query` and `teachers` (see `SDAANet`), which start as the model has them. Facts:
        `kd`, the loss of `losses.distillation`; `terms`, the weighted terms of the loss by name, and `share`, that of
        the distillation in their sum; `student`, `teacher`, `gate` and `factor` (C,), means over the supports of the
        two distributions, of g on the support, and g's effect on the query; `channels`, those with bars of their own;
        `spread`, the teacher's entropy as a part of the largest possible; `cosines` with the query's own prototype, of
        `"pooled"` (before the gate), `"student"` and `"teacher"`; `iou` and `ungated`, the IoU without the gate.
    Raises ModelError: a model that is no SDAANet, or one without SDPM.
    """
    needs = " with its gate (sdpm=True)"
    model_of = only("sdaanet", SDAANet, model, "explore_distillation", lambda net: net.sdpm is not None, needs)
    if gaps:
        dataset = {float(gap): partial(_across, float(gap)) for gap in gaps}
    picks = EpisodeControls(dataset, model_of, size=size, shots=shots, steps_of="Gap" if gaps else "")
    memo, net = Memo(8), model_of(0).model
    controls = {
        "temperature": steps("Temperature", TEMPERATURES, net.distil["temperature"]),
        "alpha": steps("Weight α", WEIGHTS, net.weights["kd"]),
        "mean": dropdown("Mean over", ("elements", "prototypes"), net.distil["mean"]),
        "teacher": dropdown("Teacher: average of", ("prototypes", "distributions"), net.sdpm.teacher),
        "teacher_query": dropdown("Its query", ("original", "reweighted"), net.sdpm.teacher_query),
        "teachers": dropdown("Teachers", ("separate", "integral"), net.sdpm.teachers),
    }

    def draw(temperature, alpha, mean, teacher, teacher_query, teachers, **_) -> Scene:
        episode, explained = picks.episode(), picks.model
        run = memo((picks.key,), lambda: _Run.of(explained, episode))
        kinds = {"sdpm__teacher": teacher, "sdpm__teacher_query": teacher_query, "sdpm__teachers": teachers}
        gate, students, query = (run.maps[name] for name in ("gate", "students", "query_prototype"))
        with explained.ready(**kinds) as ready:
            log_teacher, prototypes = ready.sdpm.log_teacher(gate, students, query, temperature)
        factor, weights = explained.model.distil["factor"], {**explained.model.weights, "kd": alpha}
        kd = float(distillation(students, log_teacher, temperature=temperature, factor=factor, mean=mean))
        terms = {name: weights[name] * value for name, value in {**run.losses, "kd": kd}.items()}
        facts = {"kd": kd, "terms": terms, "share": terms["kd"] / max(sum(terms.values()), 1e-12)}
        facts |= _channels(run.maps, log_teacher, prototypes, temperature)
        shown = _pictures(episode, run, facts, picks.name) + _bars(facts, temperature, alpha)
        return Scene(shown, f"{_words(facts, temperature, alpha)} {explained.note(episode.shot)}".strip(), facts)

    return Explorer({**picks.controls, **controls}, draw, label="Distillation explorer", prepare=picks.prepare)


def _across(gap: float, fold: int) -> SegmentationDataset:
    """Novel classes; supports of one domain, queries of the other."""
    return load_dataset("shapes", fold=fold, split="test", knobs={"gap": gap}, across_domains=True)


@dataclass(frozen=True)
class _Run:
    """What the model leaves behind: maps, plain losses by name without kd, and masks (H, W) with and without gate."""

    maps: Mapping[str, Tensor]
    losses: Mapping[str, float]
    gated: Tensor
    ungated: Tensor

    @classmethod
    def of(cls, explained: ExplainedModel, episode: Episode) -> "_Run":
        """One pass for maps and losses together, and the short way to the mask without the gate."""
        episode = episode.to(explained.device)
        with explained.ready() as model:
            query, support = model.features(episode)
            support = {name: value[:, 0] for name, value in support.items()}
            masks = episode.support_masks[:, 0]
            gated = model.segment(query, support, masks, episode.query_masks, True)
        # Shut off, SDPM leaves prototypes and query as they are: the open gate.
        with explained.ready(sdpm=None, explain=False) as model:
            ungated = model.segment(query, support, masks, None, False)
        names = ("gate", "pooled", "students", "query_prototype", "query_factor")
        maps = {name: gated.maps[name].float().cpu() for name in names}
        losses = {name: float(gated.losses[name]) for name in ("main", "aux", "saam")}
        return cls(maps, losses, *(strongest(answer.logits)[0].cpu() for answer in (gated, ungated)))


def _channels(maps: Mapping[str, Tensor], log_teacher: Tensor, prototypes: Tensor, temperature: float) -> dict:
    """Distributions, factors and likenesses; those of several supports as their means."""
    teachers, query = log_teacher.exp(), maps["query_prototype"][:, None]
    entropy = -(teachers * log_teacher.clamp_min(-1e4)).sum(-1) / torch.tensor(float(teachers.shape[-1])).log()
    teacher, student = teachers[0].mean(0), log_distribution(maps["students"], temperature).exp()[0].mean(0)
    channels = teacher.argsort(descending=True, stable=True)[:SHOWN].tolist()
    sides = {"pooled": maps["pooled"], "student": maps["students"], "teacher": prototypes}
    cosines = {name: float(F.cosine_similarity(side, query, dim=-1).mean()) for name, side in sides.items()}
    facts = {"teacher": teacher, "student": student, "channels": channels, "spread": float(entropy.mean())}
    gate, factor = (maps["gate"][0].mean(0) + 1) / 2, maps["query_factor"][0]
    return {**facts, "gate": gate, "factor": factor, "cosines": cosines}


def _pictures(episode: Episode, run: _Run, facts: dict, name: str) -> list:
    """Supports, the query with the mask that the teacher knows, and both predictions, whose scores join the facts."""
    query, truth = episode.query_images[0], episode.query_masks[0]
    gated, facts["iou"] = panels.prediction("iou", "Prediction", query, run.gated, truth)
    ungated, facts["ungated"] = panels.prediction("ungated", "Without the gate", query, run.ungated, truth)
    known = panels.photo("truth", "True mask: the teacher pools under it", query, truth)
    return [*panels.supports(episode, name), panels.photo("query", "Query", query), known, gated, ungated]


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
    labels = {"main": "Main", "aux": "Auxiliary", "kd": f"{alpha:g} · KD", "saam": "Attention"}
    terms = {label: {"": facts["terms"][name]} for name, label in labels.items()}
    return [
        Bars("terms", f"Terms of the loss; distillation is {facts['share']:.1%} of the sum", terms, "{:.3f}"),
        Bars("cosines", "Cosine with the query's own prototype t", near),
        Bars("shares", caption, rows, "{:.1%}"),
        Bars("gates", "What the gate multiplies these channels with", gates),
    ]


def _words(facts: Mapping, temperature: float, alpha: float) -> str:
    near = facts["cosines"]
    return (
        f"At temperature {temperature:g} the teacher has {facts['spread']:.0%} of the largest possible entropy. "
        f"The distillation is {facts['kd']:.2g}; times {alpha:g} it makes {facts['share']:.1%} of the loss. "
        f"The query's own prototype is like the support's by a cosine of {near['pooled']:.2f}, behind the gate "
        f"{near['student']:.2f}. IoU {facts['iou']:.0%}, without the gate {facts['ungated']:.0%}."
    )
