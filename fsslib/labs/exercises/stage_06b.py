"""Exercises of notebook 06b: the ensemble as a threshold, and marked base objects at equal recall."""

import torch
from torch import Tensor

from ..exercise import Cases, Wrong, essay, exercise

STAGE = "06b_base_classes"


def _weights(*merges: float) -> tuple:
    b, psi = torch.tensor([[0.0, 0.5], [1.0, 0.25]]), torch.tensor([[0.1], [0.4]])
    return (*merges, b, psi)


def _threshold_cases() -> Cases:
    return {
        "the weights at the start (0.5 everywhere)": _weights(1.0, 0.0, 1.0, 0.0),
        "an objection alone": _weights(1.0, 0.0, 1.0, 0.5),
        "a scene distance alone": _weights(2.0, 0.5, 1.5, 0.0),
        "everything": _weights(2.3, 0.2, 2.0, 0.5),
    }


def _changed(scene: float = -1, objection: float = 1, gamma_at: bool = True, below: str = "both"):
    """The threshold with one slip: the factor beside gamma at the scene distance (0: none), the sign of the objection,
    gamma before alpha or not, and what is divided by."""

    def answer(alpha, beta, gamma, delta, b, psi):
        top = (gamma if gamma_at else 1) * alpha + (gamma + scene if scene else 0) * beta * psi + objection * delta * b
        return top / {"both": alpha * (1 + gamma), "alpha": alpha, "gamma": 1 + gamma}[below]

    return answer


@exercise(STAGE, _threshold_cases, slips={
    "objection with the wrong sign: A base learner that objects makes the object *harder* to "
    "find: b raises the threshold.": _changed(objection=-1),
    "not divided by 1 + gamma: f stands on both sides: alpha f on one, gamma alpha (1 - f) on the other. Collect both "
    "before you divide.": _changed(below="alpha"),
    "not divided by alpha: f carries the factor alpha: divide by it, too.": _changed(below="gamma"),
    "the scene distance is missing: beta psi stands on both sides, but with different factors: it does not cancel "
    "unless gamma is 1.": _changed(scene=0),
    "the scene distance on the wrong side: beta psi belongs to the object, too: it has to be taken off there.": (
        _changed(scene=1)
    ),
    "gamma is missing: The background's alpha (1 - f) is multiplied by gamma.": _changed(gamma_at=False),
})  # fmt: skip
def ensemble_threshold(alpha: float, beta: float, gamma: float, delta: float, b: Tensor, psi: Tensor) -> Tensor:
    # background - object at f = 0, divided by what a full f takes off it
    return (gamma * (alpha + beta * psi) + delta * b - beta * psi) / (gamma * alpha + alpha)


def _recall_cases() -> Cases:
    draw = torch.Generator().manual_seed(3)
    scores, reference = torch.rand(2, 120, generator=draw)
    wanted = torch.rand(120, generator=draw) < 0.3
    base = ~wanted & (torch.rand(120, generator=draw) < 0.5)
    scores = (scores + 0.25 * wanted) / 1.25
    shy = 0.4 * scores
    return {
        "two rankings of 120 pixels": (scores, reference, wanted, base),
        "scores that never reach 0.5": (shy, reference, wanted, base),
        "the reference itself": (reference, reference, wanted, base),
        "a reference that finds nothing (the share is 0)": (scores, 0.3 * reference, wanted, base),
    }


def _some(found: Tensor) -> int:
    """How many; ValueError for none, where most slips say nothing of their own."""
    if not found.any():
        raise ValueError
    return int(found.sum())


def _nth(values: Tensor, count: int) -> Tensor:
    return values.sort(descending=True).values[count - 1]


def _does_not_change(answer) -> None:
    scores, *others = next(iter(_recall_cases().values()))
    kept = scores.clone()
    answer(scores, *others)
    if not torch.equal(scores, kept):
        raise Wrong("scores changed", "The scores that came in were changed: work on a copy.")


@exercise(STAGE, _recall_cases, tests=[_does_not_change], slips={
    "the same threshold: Both were cut at 0.5. Then a shy model looks unbiased: it finds fewer wanted "
    "pixels, too.": lambda s, r, w, b: (s[b] > 0.5).float().mean(),
    "as many marked pixels: The thresholds let equally many pixels pass, wanted or not. Equal *recall* counts the "
    "wanted ones.": lambda s, r, w, b: (s[b] >= _nth(s, _some(r > 0.5))).float().mean(),
    "equal among the base pixels: The threshold was chosen on the base objects: then the answer is that of the "
    "reference.": lambda s, r, w, b: (s[b] >= _nth(s[b], _some(r[b] > 0.5))).float().mean() + 0 * _some(r[w] > 0.5),
    "share of all pixels: The share is one of the base objects' pixels, not of all.": lambda s, r, w, b: (
        ((s >= _nth(s[w], _some(r[w] > 0.5))) & b).float().mean()
    ),
    "nothing found: Where the reference finds nothing, nothing may be marked.": lambda s, r, w, b: (
        (s[b] >= _nth(s[w], int((r[w] > 0.5).sum()))).float().mean()
    ),
})  # fmt: skip
def marked_at_equal_recall(scores: Tensor, reference: Tensor, wanted: Tensor, base: Tensor) -> Tensor:
    count = int((reference[wanted] > 0.5).sum())
    least = scores[wanted].topk(count).values.min() if count else float("inf")
    return (scores[base] >= least).float().mean()


shy_or_wise = essay(STAGE, "shy_or_wise", terms=("recall", "threshold", "base learner", "background"))
