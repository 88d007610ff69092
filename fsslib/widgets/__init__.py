"""Widgets for notebooks. Imported on demand: `import fsslib` works where Jupyter is absent.

`from fsslib.widgets import SupportPainter` needs anywidget; `fsslib.widgets.strokes`, drawings as data, does not.
"""

__all__ = ["SupportPainter"]


def __getattr__(name: str):
    if name != "SupportPainter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .painter import SupportPainter
    except ModuleNotFoundError as error:
        raise ImportError(f"widgets need {error.name}: pip install -e '.[notebooks]' in the clone.") from error
    return SupportPainter
