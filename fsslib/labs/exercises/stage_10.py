"""Exercises of notebook 10: the size at which an object has cells enough, the nearest cell as a rule, smoothing."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..exercise import Cases, essay, exercise

STAGE = "10_photographs"


def _size(rounded: Callable[[float], int] = math.ceil, stride: int = 8, one: int = 1):
    """8k + 1 for k >= 1, with one of its ingredients exchanged."""
    return lambda p, s, c: 8 * max(1, rounded((math.ceil(stride * c * s / p) - one) / 8)) + one


@exercise(STAGE, lambda: {
    "40 of 384 pixels, three cells": (40, 384, 3),
    "6 of 96 pixels, three cells": (6, 96, 3),
    "an object as wide as its picture, four cells": (500, 500, 4),
    "12 of 241 pixels, one cell (exactly 161)": (12, 241, 1),
    "a large object (k is at least 1)": (90, 100, 1),
    "19 of 250 pixels, two cells": (19, 250, 2),
}, slips={
    "8k instead of 8k + 1: The sizes that fit the grid are 8k + 1: the first cell lies on the first pixel, and "
    "the last one on the last.": _size(one=0),
    "not rounded to 8k + 1: This many pixels are needed, but not every size fits the grid: "
    "the next one of the form 8k + 1 does.": lambda p, s, c: math.ceil(8 * c * s / p),
    "rounded down: This is the last size that is too small. Round up, twice.": _size(math.floor),
    "rounded to the nearest: The nearest 8k + 1 may be a little too small: at *least* so many cells are "
    "asked for.": _size(round),
    "stride forgotten: This counts a cell as one pixel. It stands for 8 of them.": _size(stride=1),
    "half the stride: A cell stands for 8 pixels a side.": _size(stride=4),
    "upside down: The larger the object in its picture, the *smaller* the size that will do: the quotient stands "
    "upside down.": lambda p, s, c: 8 * max(1, math.ceil((math.ceil(8 * c * p / s) - 1) / 8)) + 1,
    "the picture's own size: The picture is resized first: what counts is its share of the "
    "side.": lambda p, s, c: 8 * max(1, math.ceil((s - 1) / 8)) + 1,
})  # fmt: skip
def smallest_size(pixels: int, side: int, cells: int) -> int:
    k = 1
    while pixels * (8 * k + 1) < 8 * cells * side:
        k += 1
    return 8 * k + 1


def _nearest_cases() -> Cases:
    draw = torch.Generator().manual_seed(4)
    cosines = torch.rand(20, 6, generator=draw) * 1.6 - 0.8
    labels = torch.tensor([1, 0, 0, 1, 255, 0])
    unclear = cosines.clone()
    unclear[:, 4] = 0.95
    tie = torch.tensor([[0.5, 0.5, 0.1], [0.2, 0.6, 0.9], [0.7, 0.6, 0.9]])
    low = torch.tensor(
        [[-0.2, -0.6, -0.9, -0.7], [-0.8, -0.3, -0.1, -0.4], [0.9, 0.8, 0.1, -0.2], [-0.7, -0.1, 0.3, 0.6]]
    )
    return {
        "twenty query cells, six support cells": (cosines, labels),
        "an unmarked support cell that resembles every query cell": (unclear, labels),
        "a tie (background)": (tie, torch.tensor([1, 0, 255])),
        "as many query cells as support cells, negative cosines": (low, torch.tensor([1, 1, 0, 0])),
    }


def _best(cosines: Tensor, inside: Tensor) -> Tensor:
    return cosines.masked_fill(~inside, -torch.inf).amax(1)


@exercise(STAGE, _nearest_cases, slips={
    "255 counted as background: Cells that nobody marked answer as background here. They may be the object: "
    "they have no say.": lambda c, m: (_best(c, m == 1) > _best(c, m != 1)).long(),
    "255 counted as object: Cells that nobody marked answer as object here. They have no say: 255 is not "
    "1.": lambda c, m: (_best(c, m > 0) > _best(c, m == 0)).long(),
    "unmarked cells silence the rest: Here the nearest of all cells decides, and where nobody marked it, the answer is "
    "background. The nearest *known* cell has to decide.": lambda c, m: (m[c.argmax(1)] == 1).long(),
    "mean instead of the nearest: This compares mean cosines. That is the prototype's question; here the most similar "
    "cell decides.": lambda c, m: (c[:, m == 1].mean(1) > c[:, m == 0].mean(1)).long(),
    "masked with 0: Cells that may not answer got the cosine 0, which beats every negative one. Give them minus "
    "infinity, so that they never win.": lambda c, m: ((c * (m == 1)).amax(1) > (c * (m == 0)).amax(1)).long(),
    "a tie is object: Where both are equally near, the answer is "
    "background.": lambda c, m: (_best(c, m == 1) >= _best(c, m == 0)).long(),
    "inverted: Object and background are exchanged.": lambda c, m: (_best(c, m == 1) <= _best(c, m == 0)).long(),
    "maximum over the query: The maximum runs over the query's cells. Each of *them* wants an answer: which axis holds "
    "the support?": lambda c, m: (m[c.argmax(0)] == 1).long() if c.shape[0] == c.shape[1] else m[c.argmax(0) % len(m)],
})  # fmt: skip
def nearest_side(cosines: Tensor, labels: Tensor) -> Tensor:
    known = labels != 255
    return labels[known][_later(cosines[:, known], labels[known])].long()


def _later(cosines: Tensor, labels: Tensor) -> Tensor:
    """The most similar column; of several the first background one."""
    order = labels.argsort(stable=True)
    return order[cosines[:, order].argmax(1)]


def _smooth_cases() -> Cases:
    draw = torch.Generator().manual_seed(6)
    scores, features = torch.randn(2, 6, generator=draw), torch.randn(5, 6, generator=draw)
    long = features * torch.tensor([1.0, 5.0, 0.2, 1.0, 3.0, 1.0])
    square = torch.randn(6, 6, generator=draw)
    return {
        "two classes, six cells": (scores, features, 0.5),
        "features of different lengths (the same answer)": (scores, long, 0.5),
        "a sharp softmax": (scores, features, 0.1),
        "as many channels as cells": (scores, square, 1.0),
    }


def _weights(features: Tensor, temperature: float) -> Tensor:
    cells = F.normalize(features, dim=0)
    return (cells.T @ cells / temperature).softmax(1)


@exercise(STAGE, _smooth_cases, slips={
    "weights of the wrong side: Here the weights that each cell *gives away* sum to 1. Those it receives have to: "
    "cell i's weights over all cells j.": lambda s, f, t: s @ _weights(f, t),
    "dot product: Long features win although they point elsewhere. A cosine divides by both "
    "lengths.": lambda s, f, t: s @ (f.T @ f / t).softmax(1).T,
    "times the temperature: A *small* temperature is sharp: "
    "divide by it.": lambda s, f, t: s @ _weights(f, 1 / t).T,
    "no softmax: These weights are cosines: some are negative, and they do not sum to "
    "1.": lambda s, f, t: s @ (F.normalize(f, dim=0).T @ F.normalize(f, dim=0) / t).T,
    "the cell itself left out: A cell resembles itself most; leave it in, or a cell that resembles no other "
    "gets a wrong answer.": lambda s, f, t: (
        s @ (F.normalize(f, dim=0).T @ F.normalize(f, dim=0) / t).fill_diagonal_(-torch.inf).softmax(1).T
    ),
    "added to the scores: The mean was added to the old scores. It takes their "
    "place.": lambda s, f, t: s + s @ _weights(f, t).T,
    "channels normalised: Each channel was brought to length 1, over the cells. A cosine compares cells: normalise "
    "each cell's vector.": lambda s, f, t: s @ (F.normalize(f, dim=1).T @ F.normalize(f, dim=1) / t).softmax(1).T,
})  # fmt: skip
def smoothed(scores: Tensor, features: Tensor, temperature: float) -> Tensor:
    cosines = F.cosine_similarity(features[:, :, None], features[:, None], dim=0)
    return torch.einsum("cj,ij->ci", scores, torch.exp((cosines / temperature).log_softmax(1)))


one_failure = essay(STAGE, "one_failure", terms=("cell", "mean", "prototype", "layer", "background", "size", "object"))
