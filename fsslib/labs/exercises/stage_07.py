"""Exercises of notebook 07: when a difference is clear, what a convolution costs, mIoU, and the paired bootstrap."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...analysis.costs import macs
from ...metrics import Scores
from ..exercise import Cases, essay, exercise

STAGE = "07_comparison"
Interval = tuple[float, float, float]


def _agree(trainings: Sequence[float]) -> bool:
    return all(x > 0 for x in trainings) or all(x < 0 for x in trainings)


def _without_zero(interval: Interval) -> bool:
    return not interval[1] <= 0 <= interval[2]


@exercise(STAGE, lambda: {
    "a gain on which all agree": ((2.0, 0.5, 3.5), [1.0, 2.5, 2.5]),
    "a loss on which all agree": ((-2.0, -3.0, -1.0), [-1.0, -2.0, -3.0]),
    "an interval that holds 0": ((2.0, -0.5, 4.5), [1.0, 2.5, 2.5]),
    "a loss whose interval holds 0": ((-1.0, -2.5, 0.5), [-0.5, -1.0, -1.5]),
    "one training of three that says the opposite": ((2.0, 0.5, 3.5), [-1.0, 3.5, 3.5]),
    "two of three that say the opposite": ((2.0, 0.5, 3.5), [-0.5, -0.5, 7.0]),
    "a loss, but one training gains": ((-2.0, -3.0, -1.0), [0.5, -3.0, -3.5]),
    "an interval that holds 0, and trainings that disagree": ((0.4, -1.0, 1.8), [-1.0, 0.2, 2.0]),
    "an interval that ends at 0": ((1.0, 0.0, 2.0), [0.5, 1.0, 1.5]),
    "a single training": ((1.0, 0.5, 1.5), [1.0]),
    "trainings that lie far apart": ((20.0, 18.0, 22.0), [1.0, 29.0, 30.0]),
}, slips={
    "interval alone: Only the interval is checked here. Check the trainings, too: "
    "another seed may say the opposite on any episodes.": lambda i, t: _without_zero(i),
    "trainings alone: Only the trainings are checked here. Check the interval, too: other episodes might turn all of "
    "them round at once.": lambda i, t: _agree(t),
    "only gains: "
    "Only gains can be clear here. A loss is as clear if all of it lies below 0.": lambda i, t: i[1] > 0 and min(t) > 0,
    "one of the two is enough: One of the two conditions is enough here. There are two kinds of chance, and "
    "both have to be ruled out.": lambda i, t: _without_zero(i) or _agree(t),
    "most trainings: Here most trainings decide. All of them have to agree: one that disagrees out of three is no "
    "rare accident.": lambda i, t: _without_zero(i) and sum(x * i[0] > 0 for x in t) > len(t) / 2,
    "trainings inside the interval: Trainings need not lie in the interval, which is about other *episodes*. Only "
    "their signs count.": lambda i, t: _without_zero(i) and all(i[1] <= x <= i[2] for x in t),
    "0 at the end: "
    "An interval that ends at 0 does not leave it out.": lambda i, t: (i[1] >= 0 or i[2] <= 0) and _agree(t),
})  # fmt: skip
def is_clear(interval: Interval, trainings: Sequence[float]) -> bool:
    return _without_zero(interval) and _agree(trainings)


def _area(layer: nn.Conv2d) -> int:
    return layer.kernel_size[0] * layer.kernel_size[1]


@exercise(STAGE, lambda: {
    "a 3 x 3 convolution": (nn.Conv2d(6, 4, 3, padding=1, bias=False), 8, 10),
    "stride 2 (8 x 8 is the size of the output)": (nn.Conv2d(6, 4, 3, stride=2, padding=1), 8, 8),
    "a kernel of 1 x 5": (nn.Conv2d(4, 8, (1, 5)), 6, 9),
    "two groups": (nn.Conv2d(8, 12, 3, groups=2), 5, 5),
    "one group for each channel": (nn.Conv2d(6, 6, 3, groups=6), 4, 7),
}, slips={
    "groups forgotten: With groups, every output sees only its share of the input "
    "channels.": lambda x, h, w: _area(x) * x.in_channels * x.out_channels * h * w,
    "operations: These are operations. "
    "A product that is added to a sum is *one* multiply-accumulate.": lambda x, h, w: 2 * x.weight.numel() * h * w,
    "one side of the kernel: The kernel has two sides: "
    "an output value needs a product for each place under it.": lambda x, h, w: x.weight[..., 0].numel() * h * w,
    "square kernel: The kernel need not be square: "
    "both of its sides count.": lambda x, h, w: x.kernel_size[0] * x.weight[..., 0].numel() * h * w,
    "input channels forgotten: "
    "Every output value sums over the input channels, too.": lambda x, h, w: _area(x) * x.out_channels * h * w,
    "one more for each output: One product too many for each output value: "
    "a bias is added, not multiplied.": lambda x, h, w: (x.weight.numel() + x.out_channels) * h * w,
    "stride divided: height and width already are those of the output: "
    "do not divide them by the stride.": lambda x, h, w: x.weight.numel() * (h // x.stride[0]) * (w // x.stride[1]),
    "parameters: "
    "These are the weights. Each is used once for every place of the output.": lambda x, h, w: x.weight.numel(),
})  # fmt: skip
def conv_macs(layer: nn.Conv2d, height: int, width: int) -> int:
    spans = zip((height, width), layer.stride, layer.padding, layer.kernel_size)
    sides = [(n - 1) * step - 2 * pad + k for n, step, pad, k in spans]
    return macs(layer, torch.zeros(1, layer.in_channels, *sides)).total


def _count_cases() -> Cases:
    draw = torch.Generator().manual_seed(7)
    objects = torch.randint(20, 400, (7, 1, 3), generator=draw)
    table = torch.cat([9000 - objects, objects], 1)
    table[:, 0, 1:] = table[:, 1, [2, 1]]
    table[2, 1, 0] = 5000  # one large object
    classes = torch.tensor([4, 9, 9, 2, 9, 4, 9])[:, None]
    empty = table.clone()
    empty[3, 1] = 0
    return {
        "seven episodes of three classes": (table, classes),
        "a single class": (table[1:3], classes[1:3]),
        "a class of which no pixel was shown or marked (it is left out)": (empty, classes),
    }


def _class_ious(
    table: Tensor, classes: Tensor, channel: int = 1, empty: float | None = None, weights=(1, 1, 1)
) -> Tensor:
    ids = classes[:, 0]
    sums = torch.stack([table[ids == c, channel].sum(0) for c in ids.unique()])
    if empty is None and not sums.sum(1).all():
        raise ZeroDivisionError
    return (sums[:, 0] / (sums * torch.tensor(weights)).sum(1)).nan_to_num(empty or 0.0)


def _single(table: Tensor) -> Tensor:
    """IoU of each episode; ZeroDivisionError where one has none."""
    return _class_ious(table, torch.arange(len(table))[:, None])


@exercise(STAGE, _count_cases, slips={
    "mean over episodes: This is the mean of the episodes' IoUs. "
    "Sum the counts of a class before you divide.": lambda t, c: _single(t).mean(),
    "IoUs averaged within a class: The classes are averaged, but so are the episodes of each. Within a class counts "
    "are summed first.": lambda t, c: torch.stack([_single(t)[c[:, 0] == k].mean() for k in c.unique()]).mean(),
    "all classes in one sum: All classes went into one sum, so that the frequent ones drown the others. Divide for "
    "each class.": lambda t, c: t[:, 1, 0].sum() / t[:, 1].sum(),
    "background included: The background is averaged in. It is large and easy; mIoU looks at the object's channel "
    "only.": lambda t, c: (_class_ious(t, c) + _class_ious(t, c, channel=0)).mean() / 2,
    "background's channel: "
    "This is the background's score: which channel holds the object?": lambda t, c: _class_ious(t, c, channel=0).mean(),
    "false positives left out: A union holds the false positives, too: "
    "marking everything would score 1 here.": lambda t, c: _class_ious(t, c, weights=(1, 0, 1)).mean(),
    "false negatives left out: A union holds the false negatives, too: "
    "one safe pixel would score 1 here.": lambda t, c: _class_ious(t, c, weights=(1, 1, 0)).mean(),
    "Dice: This is Dice (F1), "
    "which counts the true positives twice.": lambda t, c: _class_ious(t, c, weights=(1, 0.5, 0.5)).mean(),
    "empty class, NaN: A class without a pixel gives 0 / 0, and one NaN makes the mean NaN: "
    "leave it out.": lambda t, c: _class_ious(t, c, empty=torch.nan).mean(),
    "empty class, 0: A class without a pixel counts as 0 here, as if something had been missed. It has no IoU: leave "
    "it out.": lambda t, c: _class_ious(t, c, empty=0.0).mean(),
})  # fmt: skip
def miou(table: Tensor, classes: Tensor) -> float:
    return Scores(table.numpy(), classes.numpy(), torch.zeros(len(table)).numpy()).miou


def _paired_cases() -> Cases:
    draw = torch.Generator().manual_seed(8)
    (table, classes), *_ = _count_cases().values()
    table, classes = table.repeat(2, 1, 1), classes.repeat(2, 1)
    table[7:, 1] += torch.randint(0, 90, (7, 3), generator=draw)
    better = table.clone()
    better[:, 1, 0] += torch.randint(0, 120, (14,), generator=draw)
    picks = torch.randint(0, 14, (40, 14), generator=draw)
    rare = classes.clone()
    rare[0] = 30
    return {
        "two methods on fourteen episodes, forty draws": (better, table, classes, picks),
        "a class that only one episode shows": (table, better, rare, picks),
        "a method against itself (all zero)": (table, table, classes, picks),
    }


def _drawn(table: Tensor, classes: Tensor, picks: Tensor) -> Tensor:
    """(D,) mIoU of every draw; ZeroDivisionError where a class has no pixel."""
    return torch.stack([_class_ious(table[pick], classes[pick]).mean() for pick in picks])


def _interval(value: Tensor, drawn: Tensor, low: float = 0.025) -> Interval:
    return float(value), *(float(drawn.quantile(q)) for q in (low, 1 - low))


def _whole(a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    return _class_ious(a, classes).mean() - _class_ious(b, classes).mean()


def _gain(a: Tensor, b: Tensor, classes: Tensor, picks: Tensor, other: Tensor | None = None) -> Tensor:
    return _drawn(a, classes, picks) - _drawn(b, classes, picks if other is None else other)


def _unpaired(a: Tensor, b: Tensor, classes: Tensor, picks: Tensor) -> Interval:
    """Ends of two intervals, subtracted."""
    (x, x_low, x_high), (y, y_low, y_high) = (
        _interval(_class_ious(t, classes).mean(), _drawn(t, classes, picks)) for t in (a, b)
    )
    return x - y, x_low - y_high, x_high - y_low


def _images(a: Tensor, b: Tensor, classes: Tensor, picks: Tensor) -> Interval:
    gains = _single(a) - _single(b)
    return _interval(gains.mean(), gains[picks].mean(1))


@exercise(STAGE, _paired_cases, slips={
    "other episodes for each side: Each side drew its own episodes. Paired means that both are scored on the *same* "
    "draw.": lambda a, b, c, p: _interval(_whole(a, b, c), _gain(a, b, c, p, p.flip(0))),
    "two intervals subtracted: These are the ends of two intervals, subtracted. That is far too wide: subtract within "
    "each draw.": _unpaired,
    "mean of IoUs: The episodes' IoUs were averaged. Sum the counts of each class in the draw, then "
    "divide.": _images,
    "90 % interval: These are the 5 % and 95 % quantiles. A 95 % interval leaves 2.5 % on either "
    "side.": lambda a, b, c, p: _interval(_whole(a, b, c), _gain(a, b, c, p), 0.05),
    "mean of the draws: The value is the mean of the draws. It should be the difference on all episodes, without "
    "drawing.": lambda a, b, c, p: _interval(_gain(a, b, c, p).mean(), _gain(a, b, c, p)),
    "the wrong way round: This is b minus a: a gain of the first method shows as a "
    "loss.": lambda a, b, c, p: _interval(_whole(b, a, c), _gain(b, a, c, p)),
    "the episodes of the first draw: All draws take the same episodes here: use each row of "
    "`picks` once.": lambda a, b, c, p: _interval(_whole(a, b, c), _gain(a, b, c, p[:1].expand_as(p))),
    "largest and smallest draw: These are the extremes, which grow with the number of draws. Take "
    "quantiles.": lambda a, b, c, p: _interval(_whole(a, b, c), _gain(a, b, c, p), 0.0),
})  # fmt: skip
def paired(a: Tensor, b: Tensor, classes: Tensor, picks: Tensor) -> Interval:
    ids, weights = classes[:, 0].unique(), torch.stack([p.bincount(minlength=len(a)) for p in picks]).double()
    every = torch.cat([torch.ones(1, len(a), dtype=torch.double), weights])

    def scores(table: Tensor) -> Tensor:
        sums = torch.einsum("dec,ek->dck", every[..., None] * (classes == ids), table[:, 1].double())
        return (sums[..., 0] / sums.sum(-1)).nanmean(-1)

    gains = scores(a) - scores(b)
    return _interval(gains[0], gains[1:])


fair_comparison = essay(STAGE, "fair_comparison", terms=("protocol", "interval", "training", "episodes", "checkpoint"))
