"""Widgets for notebooks: the support painter and the explorers. Looks may change freely, recorded drawings may not.

`SupportPainter` and the explorers need the extra `notebooks`; `fsslib.widgets.strokes`, drawings as data, does not.
"""

from ..names import on_demand

# An explorer is a function `explore_…` in the module of its name that returns an `Explorer`.
IDEAS = "episode", "prototypes", "distillation", "attention", "superpixels", "correlation"
_homes = {"painter": "SupportPainter", "explorer": "Explorer", "explorers.methods": "compare_methods"}
_homes |= {f"explorers.{idea}": f"explore_{idea}" for idea in IDEAS}
__getattr__, __dir__, __all__ = on_demand(__name__, _homes)
