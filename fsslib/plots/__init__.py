"""Figures. Every function returns `(figure, alt text, data)` for `fsslib.plots.display.show`; numbers come in finished.

What several lessons draw is in `common` and handed on here; a file for each lesson's own figures. Change looks freely.
"""

from .common import COLOURS, Drawing, class_bars, episodes, histories, maps, overlay, score_bars

__all__ = ["COLOURS", "Drawing", "class_bars", "episodes", "histories", "maps", "overlay", "score_bars"]
