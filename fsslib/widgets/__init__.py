"""Widgets for notebooks. Imported on demand: `import fsslib` works where Jupyter is absent.

`from fsslib.widgets import SupportPainter` and the explorers need the extra `notebooks`; `fsslib.widgets.strokes`,
drawings as data, does not.
"""

from importlib import import_module

# name -> module; an explorer is a function that returns an `Explorer`.
_HOMES = {
    "SupportPainter": ".painter",
    "Explorer": ".explorer",
    "explore_episode": ".episodes",
    "explore_prototypes": ".prototypes",
    "explore_distillation": ".distillation",
    "explore_attention": ".attention",
    "explore_superpixels": ".superpixels",
    "explore_correlation": ".correlation",
    "compare_methods": ".compare",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name], __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__):
            raise
        raise ImportError(f"widgets need {error.name}: pip install -e '.[notebooks]' in the clone.") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
