"""Widgets for notebooks: the support painter and the explorers. Looks may change freely, recorded drawings may not.

`SupportPainter` and the explorers need the extra `notebooks`; `fsslib.widgets.strokes`, drawings as data, does not.
"""

from ..names import on_demand

# An explorer is a function that returns an `Explorer`.
__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "painter": "SupportPainter", "explorer": "Explorer", "explorers.methods": "compare_methods",
        "explorers.episode": "explore_episode", "explorers.prototypes": "explore_prototypes",
        "explorers.distillation": "explore_distillation", "explorers.attention": "explore_attention",
        "explorers.superpixels": "explore_superpixels", "explorers.correlation": "explore_correlation",
    },
)  # fmt: skip
