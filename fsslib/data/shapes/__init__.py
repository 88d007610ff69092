"""Shapes-5i, the embedded data set: what an image will show (`plan`), its `knobs`, drawing, and the data set.

The stored results rest on every pixel: a change of a drawn picture asks for new weights, tables and notebooks.
"""

from .dataset import Shapes5i
from .knobs import ShapesKnobs

__all__ = ["Shapes5i", "ShapesKnobs"]
