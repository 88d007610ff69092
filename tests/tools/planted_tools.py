"""Mistakes that a re-implementation is likely to make: how they are planted, as functions (monkeypatch, model)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from fsslib.nn import context
from fsslib.ops import resize


class Error(NamedTuple):
    """`plant(monkeypatch, model)` makes the mistake; tensor `key` of `file` tells (by default those of the method).

    `features`: the mistake concerns the features, too. `known`: where the golden README knows by how much the tensor
    moves, as a share of its largest value.
    """

    plant: Callable
    key: str = ""
    file: str = ""
    features: bool = False
    known: float | None = None


def setting(owner: str, name: str, value):
    """An option that the authors' code does not have."""
    return lambda patch, model: patch.setattr(model.get_submodule(owner), name, value)


def method(owner: str, name: str, wrap):
    """Method `name` of a module, replaced by `wrap(original)`."""

    def plant(patch, model):
        target = model.get_submodule(owner)
        patch.setattr(target, name, wrap(getattr(target, name)))

    return plant


def function_of(where, name: str, wrap):
    """A function that the file `where` uses, replaced by `wrap(original)`."""
    return lambda patch, model: patch.setattr(where, name, wrap(getattr(where, name)))


def everywhere(kind: type[nn.Module], name: str, value):
    """An attribute of all layers of one kind in HDMNet's transformer."""

    def plant(patch, model):
        for layer in model.transformer.modules():
            if isinstance(layer, kind):
                patch.setattr(layer, name, value)

    return plant


def features(change):
    """The shared features as `change(query, support)` leaves them; for mistakes behind the backbone."""

    def plant(patch, model):
        original = model.features

        def changed(episode):
            query, support = (dict(side) for side in original(episode))
            change(query, support)
            return query, support

        patch.setattr(model, "features", changed)

    return plant


def turned(owner: str, order: torch.Tensor):
    """The input channels of a convolution read in another order."""

    def plant(patch, model):
        conv = model.get_submodule(owner)
        patch.setitem(conv._parameters, "weight", nn.Parameter(conv.weight[:, order]))

    return plant


def rolled(owner: str, by: Callable[[nn.Module], int]):
    """The input channels of a convolution read from another one on."""

    def plant(patch, model):
        size = model.get_submodule(owner).in_channels
        turned(owner, torch.arange(size).roll(by(model)))(patch, model)

    return plant


def resized(change: Callable[[dict], dict]):
    """An error in every resize, planted below all of them: `change` gives the keywords of `F.interpolate`."""

    def plant(patch, model):
        original = F.interpolate
        patch.setattr(F, "interpolate", lambda maps, size, **keywords: original(maps, size, **change(keywords)))

    return plant


CORNERS = resized(lambda how: how | ({"align_corners": False} if how["mode"] == "bilinear" else {}))
SMOOTH = resized(lambda how: {"mode": "bilinear", "align_corners": True} if how["mode"] == "nearest" else how)


def levels_as_they_are(patch, model):
    """The next scale reads the scale before directly, not its enlarged version."""
    origins = {}

    def remembering(maps, size):
        source, _ = origins.get(id(maps), (maps, None))
        result = resize(source, size)
        origins[id(result)] = maps, result
        return result

    patch.setattr(context, "resize", remembering)
