"""Figures. Every function returns `(figure, alt text, data)` for `fsslib.plots.display.show`; numbers come in finished.

What several lessons draw is in `common` and handed on here; a file for each lesson's own figures. Change looks freely.
"""

from ..names import on_demand

__getattr__, __dir__, __all__ = on_demand(
    __name__, {"common": "Drawing class_bars episodes histories maps score_bars", "pixels": "COLOURS overlay"}
)
