"""Choosing a checkpoint: the state of a training that scored best on validation episodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from .data.base import SegmentationDataset
from .errors import TrainingError
from .evaluation import evaluate
from .models.base import FewShotModel
from .protocol import Protocol


class Selection:
    """Keeps the best state of a training: a callback of `training.fit`, which stores it in its resume file.

    The model is scored after every `every` steps and after the last one; of equal scores the earliest counts. A run
    that was killed and goes on chooses the same state, bit for bit, as one that was not.

    Args:
        score: model -> number, the higher the better; must depend on the model alone (a fixed list of episodes).
        every: steps between two validations. steps: length of the training.
        rules: identifies what `score` measures, so that a run is not resumed with another one.
    Attributes:
        best: the highest score so far, None before the first. trained: after how many steps it was reached.
    Raises TrainingError for an impossible `every`.
    """

    name = "val_miou"  # of the score in the rows of a History, in percent

    def __init__(self, score: Callable[[nn.Module], float], *, every: int, steps: int, rules: str = ""):
        if type(every) is not int or every < 1:
            raise TrainingError(f"validate every {every!r} steps: expected a whole number from 1.")
        self.score, self.every, self.steps = score, every, steps
        self.rules = f"every {every}: {rules}"
        self.best: float | None = None
        self.trained = 0
        self._state: dict[str, torch.Tensor] = {}

    def __call__(self, step: int, model: nn.Module) -> dict[str, float] | None:
        """Score the model where it is due after (0-based) step `step`, and keep its state if it is the best."""
        if (step + 1) % self.every and step + 1 != self.steps:
            return None
        # A validation without a single counted pixel is no reason to prefer a state.
        score = float(np.nan_to_num(self.score(model)))
        if self.best is None or score > self.best:
            self.best, self.trained = score, step + 1
            self._state = {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
        return {self.name: score}

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Put the best state into `model`. Raises TrainingError when nothing was validated."""
        if self.best is None:
            raise TrainingError("no state was validated, so none can be chosen: train for at least one step.")
        for name, value in model.state_dict().items():
            kept = self._state[name].to(value.device)
            # What is equal stays untouched: features cached for a frozen backbone stay valid.
            if not torch.equal(value, kept):
                value.copy_(kept)

    def summary(self) -> dict[str, float]:
        """The score of the best state, and the number of steps after which it was reached."""
        return {"step": self.trained, self.name: round(self.best, 4)}

    def state_dict(self) -> dict:
        """What a resume file has to hold."""
        return {"best": self.best, "trained": self.trained, "state": self._state}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` returned."""
        self.best, self.trained, self._state = state["best"], state["trained"], state["state"]


def validation_score(
    dataset: SegmentationDataset, protocol: Protocol, *, shot: int = 1, batch: int = 8
) -> tuple[Callable[[FewShotModel], float], str]:
    """mIoU in percent on the fixed episodes of `protocol`, as a function of the model, and a text that names it."""

    def score(model: FewShotModel) -> float:
        scores = evaluate(model, dataset, protocol, shots=(shot,), batch=batch, progress=False).scores[shot]
        return 100 * scores.miou

    return score, f"{shot} shots on {dataset.hash()} {protocol.as_dict()}"
