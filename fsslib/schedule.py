"""How long and how fast to train."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import TrainingError

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. Budgets are steps, never seconds, so that a run can be repeated.

    Attributes:
        steps, batch: optimiser steps and images (or episodes) per step.
        lr: peak learning rate.
        optimiser: `"adamw"` or `"sgd"` (with `momentum`). weight_decay: of all parameters alike.
        decay: `"linear"`, from `lr` after `warmup` steps to 0, or `"poly"`: lr · (1 − it/steps)^power with it counted
            from 1 (the PFENet family), where a warm-up replaces the first steps and delays nothing.
        warmup: steps over which the rate rises; with `"poly"` linearly from 0.1 · lr.
        clip: largest gradient norm; None leaves gradients as they are.
        precision: `"32"` or `"bf16"` (autocast). accelerator: `"auto"`, `"cpu"` or `"gpu"`.
        seed: the batch and every random drop of step t are pure functions of (seed, t).

    Raises TrainingError for unknown choices and numbers out of range.
    """

    steps: int
    batch: int = 8
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 30
    optimiser: str = "adamw"
    clip: float | None = 1.0
    precision: str = "32"
    accelerator: str = "cpu"
    seed: int = 0
    decay: str = "linear"
    power: float = 0.9
    momentum: float = 0.9

    def __post_init__(self) -> None:
        choices = {"precision": PRECISIONS, "optimiser": ("adamw", "sgd"), "accelerator": ACCELERATORS}
        for name, known in {**choices, "decay": ("linear", "poly")}.items():
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(known)}.")
        for name, least in {"steps": 0, "batch": 1, "warmup": 0, "seed": 0}.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise TrainingError(f"{name}={value!r}: expected a whole number from {least}.")
        for name in ("lr", "clip", "power", "weight_decay", "momentum"):
            value, zero = getattr(self, name), name in ("weight_decay", "momentum")
            if name == "clip" and value is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not (value > 0 or (zero and value == 0)):
                raise TrainingError(f"{name}={value!r}: expected a finite number {'from' if zero else 'above'} 0.")
        if self.momentum >= 1:
            raise TrainingError(f"momentum={self.momentum!r}: expected a number from 0 to below 1.")

    def lr_at(self, step: int) -> float:
        """Learning rate of step `step` (0-based)."""
        if self.decay == "poly":
            if step + 1 < self.warmup:
                return self.lr * (0.1 + 0.9 * (step + 1) / self.warmup)
            return self.lr * (1 - (step + 1) / self.steps) ** self.power
        return self.lr * min(
            (step + 1) / max(self.warmup, 1), (self.steps - step) / max(self.steps - self.warmup, 1), 1
        )
