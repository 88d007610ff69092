"""Shapes-5i: puts objects, occluders and debris on a canvas and keeps its instance and part maps."""

from math import cos, exp, hypot, pi, sin
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from .shapes_classes import TEXTURES
from .shapes_draw import FULL, REACH, grid, outline, texture, turned
from .shapes_knobs import MIN_VISIBLE, ShapesKnobs


class Pose(NamedTuple):
    """One object's uniform draws in [0, 1); a fixed place in the stream for each keeps knobs independent."""

    radius: float
    turn: float
    stretch: float
    warp_x: float
    warp_y: float
    jitter_x: float
    jitter_y: float
    frequency: float
    texture_turn: float
    phase: float
    swirl: float
    light_turn: float
    light: float
    swap: float
    bar_turn: float
    bar_offset: float


class Canvas:
    """The picture so far with its instance and part maps; objects are drawn on patches just large enough."""

    def __init__(self, pixels: ndarray, knobs: ShapesKnobs, shift: float):
        self.pixels, self.knobs, self.shift = pixels, knobs, shift
        self.size = pixels.shape[-1]
        self.instances = np.zeros((self.size, self.size), np.uint8)
        self.parts = np.zeros_like(self.instances)

    def _gapped(self, draw: float, offset: float) -> float:
        """A draw from the full circle at gap 0; at gap 1 `offset` in one domain and 0 in the other."""
        gap = self.knobs.gap
        return draw * (1 - gap) + (offset if self.shift > 0 else 0) * gap

    def add(self, slot: int, drawn: tuple[int, int], pose: Pose, place, colours: ndarray, bar_colour: ndarray) -> None:
        """Draw one object (shape, texture) and its occluder."""
        knobs, size, (shape, tex) = self.knobs, self.size, drawn
        cx = (place[0] + 0.12 * (pose.jitter_x - 0.5)) * size
        cy = (place[1] + 0.12 * (pose.jitter_y - 0.5)) * size
        radius = (0.12 + 0.14 * pose.radius) * size * knobs.area * exp(0.5 * self.shift)
        while True:
            patch, inside, local = self._outlined(shape, pose, cx, cy, radius)
            if (inside > 0.5).sum() >= MIN_VISIBLE:
                break
            radius *= 1.2  # a tiny, thin object would fall between the pixels
        px, py, x, y = local
        band = _bands(y, knobs.parts)
        turn, phase = self._gapped(pose.texture_turn, 1 / 8), self._gapped(pose.phase, 1 / 2)
        colour = None
        for part in range(knobs.parts):
            u, v = turned(px, py, turn, pose.frequency, size)
            mix = texture((tex + part) % len(TEXTURES), u, v, phase * FULL, pose.swirl * FULL)
            low, high = colours[part][:, :, None, None]
            layer = low + (high - low) * mix
            colour = layer if colour is None else np.where(band == part + 1, layer, colour)
        angle, strength = pose.light_turn * FULL, 0.1 + 0.2 * pose.light
        colour *= 1 + strength * (cos(angle) * x + sin(angle) * y)
        self._blend(patch, inside, colour)
        shown = inside > 0.5
        self.instances[patch][shown] = slot + 1
        self.parts[patch][shown] = band[shown] if knobs.parts > 1 else 1
        if knobs.occlusion:
            angle = pose.bar_turn * pi
            across = cos(angle) * px + sin(angle) * py - 0.4 * (pose.bar_offset - 0.5) * radius
            along = cos(angle) * py - sin(angle) * px
            self._hide(
                patch,
                np.maximum(np.abs(across) - 0.55 * knobs.occlusion * radius, np.abs(along) - 1.4 * radius),
                bar_colour,
            )

    def _outlined(self, shape: int, pose: Pose, cx: float, cy: float, radius: float):
        """The patch (two slices), the object's coverage 0..1 of each of its pixels, and pixel and unit coordinates."""
        stretch = exp(0.36 * (pose.stretch - 0.5))
        wide, high = radius * stretch, radius / stretch * (1 - 0.8 * self.knobs.thinness)
        reach = (REACH[shape] + 0.1) * max(wide, high) + 1
        rows, columns = (slice(max(0, int(c - reach)), min(self.size, int(c + reach) + 2)) for c in (cy, cx))
        x, y = grid(self.size)
        px, py = x[:, columns] - cx, y[rows] - cy
        angle = self._gapped(pose.turn, 1 / 8) * FULL
        ux, uy = (cos(angle) * px + sin(angle) * py) / wide, (cos(angle) * py - sin(angle) * px) / high
        ux += 0.07 * np.sin(3.8 * uy + pose.warp_x * FULL)
        uy += 0.07 * np.sin(3.8 * ux + pose.warp_y * FULL)
        inside = np.clip(0.5 - outline(shape, ux, uy) * min(wide, high), 0, 1)
        return (rows, columns), inside, (px, py, ux, uy)

    def add_debris(self, draws: list[float], colour: ndarray) -> None:
        """A short bar anywhere: it belongs to the background."""
        size = self.size
        cx, cy, angle = draws[0] * size, draws[1] * size, draws[2] * pi
        length, width = (0.06 + 0.08 * draws[3]) * size, (0.012 + 0.012 * draws[4]) * size
        reach = hypot(length, width) + 1
        rows, columns = (slice(max(0, int(c - reach)), min(size, int(c + reach) + 2)) for c in (cy, cx))
        x, y = grid(size)
        px, py = x[:, columns] - cx, y[rows] - cy
        across, along = cos(angle) * px + sin(angle) * py, cos(angle) * py - sin(angle) * px
        self._hide((rows, columns), np.maximum(np.abs(across) - width, np.abs(along) - length), colour)

    def _hide(self, patch, distance: ndarray, colour: ndarray) -> None:
        """Cover the patch with one colour where `distance` (pixels) is negative, unless the target would vanish."""
        cover = np.clip(0.5 - distance, 0, 1)
        hidden = cover > 0.5
        target = self.instances == 1
        if target.any() and target.sum() - target[patch][hidden].sum() < MIN_VISIBLE:
            return
        self._blend(patch, cover, colour[:, None, None])
        self.instances[patch][hidden] = 0
        self.parts[patch][hidden] = 0

    def _blend(self, patch, cover: ndarray, colour: ndarray) -> None:
        area = self.pixels[:, *patch]
        area += cover * (colour - area)


def _bands(y: ndarray, parts: int) -> ndarray:
    """Part number 1.. of each pixel: bands across the object, the first twice as high as the others."""
    cuts = [-0.95 + 1.9 * (k + 1) / (parts + 1) for k in range(1, parts)]
    return 1 + sum((y > cut).astype(np.uint8) for cut in cuts) if cuts else np.ones(y.shape, np.uint8)
