"""What our widgets are made of: anywidget's class, or where that is missing one without a view, for which stills stand
in."""

from typing import Any

import ipywidgets

try:
    from anywidget import AnyWidget

    LIVE = True
except ModuleNotFoundError:
    AnyWidget, LIVE = ipywidgets.DOMWidget, False


def live_view(bundle: Any) -> tuple[dict, dict]:
    """Data and metadata by mime type of a parent's `_repr_mimebundle_`; without anywidget none, and a sentence."""
    if not LIVE:
        print("A still: live widgets need anywidget. Install it (pip install anywidget) and start the kernel again.")
        return {}, {}
    return bundle if isinstance(bundle, tuple) else (bundle or {}, {})
