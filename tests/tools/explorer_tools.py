"""What tests of the explorers share: one of each kind for the session, shipped models that explain, views of panels."""

from functools import cache

import pytest
import torch

from fsslib import build_model, load_dataset, load_model, widgets
from fsslib.checkpoints import shipped
from fsslib.metrics import FewShotIoU
from fsslib.widgets import strokes

pytest.importorskip("anywidget")


@cache
def _explorer(name):
    explorer = getattr(widgets, name)()
    # A hand on `point` or `drawing` chooses a source: the source itself comes last.
    return explorer, dict(sorted(explorer.values.items(), key=lambda item: item[0] == "source"))


def as_made(name):
    """The session's explorer of this name, as it was when it was made."""
    explorer, values = _explorer(name)
    return explorer.set(**values)


def explaining(name):
    model = load_model(shipped(name)).eval()
    model.explain = True
    return model


@torch.no_grad()
def by_model(net, episode, **options):
    """What a model says by itself, with these options from now on."""
    for name, value in options.items():
        setattr(net, name, value)
    return net(episode)


def own(name, method, shots=2, data=None, **options):
    """An explorer of an own model in training mode, which it leaves so, and own data in another size; and the model."""
    model = build_model(method, backbone="tiny", **options).train()
    data = data or load_dataset("shapes", fold=1, split="test", size=65)
    explorer = getattr(widgets, name)(data, model, size=65, shots=shots)
    assert panel(explorer, "query").pixels.shape == (65, 65, 3) and f"support {shots - 1}" in keys(explorer)
    query = explorer.values["query"]
    assert explorer.set(query=query + 1).set(query=query) and not {"data", "fold"} & explorer.controls.keys()
    assert model.training and not model.explain and all(part.training for part in model.children())
    return explorer, model


def counted(monkeypatch, kind, *methods):
    """A list that grows by the name of one of these methods whenever it runs."""
    calls = []

    def noting(name, run):
        return lambda *given, **how: calls.append(name) or run(*given, **how)

    for name in methods:
        monkeypatch.setattr(kind, name, noting(name, getattr(kind, name)))
    return calls


def document(*history, size):
    out = strokes.empty(*size)
    for stroke in history:
        out = strokes.add(out, stroke)
    return out


def panel(explorer, key):
    return next(panel for panel in explorer.scene.panels if panel.key == key)


def keys(explorer):
    return [panel.key for panel in explorer.scene.panels]


def overlap(mask, truth):
    meter = FewShotIoU()
    meter.update(mask[None], truth[None], torch.ones(1, 1, dtype=torch.long))
    return float(meter.compute().episode_iou()[0])
