"""A curve that grows on the page while a model trains: the callback of `training.fit` for notebooks."""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
from torch import nn

from ..training import Selection
from .common import curves, theme
from .display import bundle


class Watch:
    """Scores a model before its first step, after every `every` steps and after the last, and draws what it has found.

    The last picture stays in the notebook; a page without a kernel shows it, too.

    Args: score: model -> number, the higher the better, e.g. of `training.validation_score`. every, steps: of the
        training. label: what the number is.
    Attributes: points: steps -> score, so far.
    """

    def __init__(self, score: Callable[[nn.Module], float], *, every: int, steps: int, label: str = "mIoU, %"):
        self.score, self.every, self.steps, self.label = score, every, steps, label
        self.points: dict[int, float] = {}
        self._place: Any = None

    due = Selection.due

    def start(self, model: nn.Module) -> "Watch":
        """The first point, before any step."""
        self(-1, model)
        return self

    def __call__(self, step: int, model: nn.Module) -> None:
        if step < 0 or self.due(step):
            self.points[step + 1] = self.score(model)
            self._show()

    @property
    def words(self) -> str:
        """What there is to see."""
        (first, before), (last, now) = min(self.points.items()), max(self.points.items())
        return f"{self.label} while it trains: {before:.1f} at step {first}, {now:.1f} at step {last} of {self.steps}."

    @theme()
    def draw(self) -> plt.Figure:
        """The curve so far, on axes that leave room for the rest."""
        figure, axis = plt.subplots(figsize=(5, 2.4))
        curves(axis, {"": self.points}, marks=True)
        axis.set(xlabel="step", ylabel=self.label, xlim=(0, self.steps), ylim=(0, None))
        return figure

    def _show(self) -> None:
        from IPython.display import display

        data, about = bundle(self.draw(), self.words)
        if self._place is None:
            self._place = display(data, raw=True, metadata=about, display_id=True)
        else:
            self._place.update(data, raw=True, metadata=about)
