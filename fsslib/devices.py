"""One training on several devices, and what processes hand each other for that and for evaluation in shards."""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

import torch

from .errors import TrainingError
from .models import use

PLUGIN = "fsslib_plugin_"  # how the modules of `models.use` are called


def packed(thing: Any, alone: str) -> bytes:
    """`thing`, models and data sets included, for another process. `alone` says in an error how to do without one.
    Raises TrainingError for what only this process knows, such as a class that a notebook defines."""
    plugins = [module.__file__ for name, module in list(sys.modules.items()) if name.startswith(PLUGIN)]
    order = io.BytesIO()
    try:
        torch.save(thing, order)
    except Exception as error:  # pickle's own, and whatever an object's own code raises
        cure = f"define its classes and functions in a module, not in a notebook or another function, or use {alone}"
        raise TrainingError(f"this cannot be sent to another process ({error}): {cure}.") from error
    return pickle.dumps((plugins, order.getvalue()))


def unpacked(order: bytes) -> Any:
    """What `packed` was given, on the CPU, after the files of `models.use` that it may need."""
    plugins, held = pickle.loads(order)
    for path in plugins:
        if not any(getattr(module, "__file__", None) == path for module in list(sys.modules.values())):
            use(path)
    return torch.load(io.BytesIO(held), map_location="cpu", weights_only=False)
