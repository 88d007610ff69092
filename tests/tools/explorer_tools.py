"""What tests of the explorers share: one of each kind for the session, shipped models that explain, views of panels."""

from functools import cache

from fsslib import load_model, widgets
from fsslib.checkpoints import shipped


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


def panel(explorer, key):
    return next(panel for panel in explorer.scene.panels if panel.key == key)


def keys(explorer):
    return [panel.key for panel in explorer.scene.panels]


def overlap(mask, truth):
    return float(((mask == 1) & (truth == 1)).sum() / ((mask == 1) | (truth == 1)).sum())
