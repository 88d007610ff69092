"""Shapes-5i: draws an image, its label map and its ground truth from a plan and a stream of random numbers.

Outlines, textures, colours and smooth noise are plain array functions; a `Canvas` takes objects, occluders and debris
and keeps its instance and part maps; `draw_scene` puts an image together.
"""

from collections import namedtuple
from functools import cache
from math import cos, exp, hypot, pi, sin
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from .knobs import MIN_VISIBLE, ShapesKnobs
from .plan import SHAPES, SLOTS, TEXTURES, shape_texture

# Farthest point of each unit outline from its centre (in the order of SHAPES); sizes give equal areas, about 2.2.
REACH = (0.85, 1.06, 1.28, 1.22, 0.98)
# One period of a texture as a fraction of the image's side (8 px at 97).
PERIOD = 0.083
# What "two colours of an object" must differ by at least, summed over RGB.
CONTRAST = 0.7
DEBRIS = 3  # bars in an image
FULL = 2 * pi


def outline(shape: int, x: ndarray, y: ndarray) -> ndarray:
    """Signed distance (negative inside, in radii) from the outline of shape number `shape`; x, y in radii."""
    if shape == 0:
        return np.sqrt(x * x + y * y) - 0.85
    if shape == 1:
        return np.maximum(np.abs(x), np.abs(y)) - 0.75
    if shape == 2:  # three half-planes at a distance of half the circumradius 1.28
        return np.maximum(np.abs(x) * (3**0.5 / 2) - 0.5 * y, y) - 0.64
    if shape == 3:
        return _star(x, y)
    return np.abs(np.sqrt(x * x + y * y) - 0.73) - 0.25


def _star(x: ndarray, y: ndarray) -> ndarray:
    """Five-pointed star: fold the plane into one tenth, where the outline is a single straight edge."""
    tenth, outer, inner = pi / 5, 1.22, 0.6
    angle = np.abs(np.mod(np.arctan2(x, -y) + tenth, 2 * tenth) - tenth)
    rho = np.sqrt(x * x + y * y)
    # The edge runs from (outer, 0) to (inner, tenth) in polar coordinates.
    dx, dy = inner * cos(tenth) - outer, inner * sin(tenth)
    norm = (dx * dx + dy * dy) ** 0.5
    return rho * np.cos(angle) * (dy / norm) - rho * np.sin(angle) * (dx / norm) - outer * dy / norm


def texture(kind: int, u: ndarray, v: ndarray, phase: float, swirl: float) -> ndarray:
    """How much of the second colour (0..1) texture number `kind` shows; u, v are turned coordinates, 2 pi a period.
    `phase` moves the pattern along u (pi is half a period), `swirl` moves it along v and shapes the marble."""
    if kind == 0:
        wave = 2.2 * np.sin(u + phase)
    elif kind == 1:
        wave = 4.0 * np.sin(0.8 * u + phase) * np.sin(0.8 * v + swirl)
    elif kind == 2:
        wave = 3.0 * (np.cos(u + phase) + np.cos(v + swirl) - 0.7)
    else:  # veins: a slow wave whose coordinate is bent by three others, of changing width
        bend = u + 3.0 * np.sin(0.29 * v + swirl) + 1.6 * np.sin(0.43 * u - 0.31 * v + 2 * swirl)
        bend += 0.8 * np.sin(0.83 * v + 0.2 * u + 3 * swirl)
        wave = 1.6 + 0.9 * np.sin(0.37 * v - 0.23 * u + swirl) - 4.4 * np.abs(np.sin(0.36 * bend + 0.5 * phase))
    return np.clip(0.5 + 0.5 * wave, 0.0, 1.0)


def colour_pairs(draws: ndarray) -> ndarray:
    """Colours (..., 2, 3) from uniform draws (..., 5, 3): one colour and the first of four others far enough away."""
    first, others = draws[..., :1, :], draws[..., 1:, :]
    far = np.abs(others - first).sum(-1) >= CONTRAST
    pick = np.take_along_axis(others, far.argmax(-1)[..., None, None], axis=-2)
    # The opposite corner is at least 1.5 away: the rare case where all four are too close.
    second = np.where(far.any(-1)[..., None, None], pick, np.where(first < 0.5, 1.0, 0.0))
    return np.concatenate([first, second], axis=-2).astype(np.float32)


@cache
def _weights(side: int, knots: int) -> ndarray:
    """(side, knots) weights of a smooth interpolation between equally spaced knots."""
    place = np.linspace(0, knots - 1, side)
    near = np.clip(1 - np.abs(place[:, None] - np.arange(knots)), 0, 1)
    return (near * near * (3 - 2 * near)).astype(np.float32)


def smooth_noise(knots: ndarray, side: int) -> ndarray:
    """(..., side, side) smooth field through the values `knots` (..., k, k)."""
    weights = _weights(side, knots.shape[-1])
    return weights @ knots.astype(np.float32) @ weights.T


@cache
def grid(side: int) -> tuple[ndarray, ndarray]:
    """Pixel coordinates: x (1, side) and y (side, 1), float32."""
    line = np.arange(side, dtype=np.float32)
    return line[None, :], line[:, None]


def turned(x: ndarray, y: ndarray, turn: float, frequency: float, size: int) -> tuple[ndarray, ndarray]:
    """Texture coordinates, 2 pi a period: turned by `turn` of the full circle, frequency 0.75 to 1.25."""
    scale = FULL / (PERIOD * size) * (0.75 + 0.5 * frequency)
    c, s = scale * cos(turn * FULL), scale * sin(turn * FULL)
    return c * x + s * y, c * y - s * x


# One object's uniform draws in [0, 1); a fixed place in the stream for each keeps knobs independent.
Pose = namedtuple(
    "Pose",
    "radius turn stretch warp_x warp_y jitter_x jitter_y frequency texture_turn phase swirl light_turn light swap "
    "bar_turn bar_offset",
)


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
            distance = np.maximum(np.abs(across) - 0.55 * knobs.occlusion * radius, np.abs(along) - 1.4 * radius)
            self._hide(patch, distance, bar_colour)

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


class Scene(NamedTuple):
    """One drawn image; slot k (0 is the target's) is instance k + 1, pixels not belonging to any object are 0."""

    image: ndarray  # (3, S, S) uint8
    mask: ndarray  # (S, S) uint8 class ids, with label noise
    clean_mask: ndarray  # (S, S) uint8 class ids
    instances: ndarray  # (S, S) uint8
    parts: ndarray  # (S, S) uint8, 1 is the part with the class's own texture
    drawn: tuple[tuple[int, int] | None, ...]  # (shape, texture) numbers drawn in each slot


def draw_scene(classes: tuple[int, ...], shift: float, knobs: ShapesKnobs, size: int, rng: Generator) -> Scene:
    """Draw the objects `classes` (slot 0 on top; 0 leaves a slot empty) on a textured background.

    Args: `shift` is the domain's, in [-gap / 2, gap / 2]; `rng` makes as many draws whatever classes and knobs are.
    """
    poses = [Pose(*row) for row in rng.random((SLOTS, len(Pose._fields))).tolist()]
    pairs = colour_pairs(rng.random((SLOTS, len(TEXTURES), 5, 3)))
    back, back_colours = rng.random(5).tolist(), colour_pairs(rng.random((5, 3)))
    places = _places(rng.random(SLOTS))
    bars, bar_colours = rng.random((DEBRIS, 5)).tolist(), rng.random((DEBRIS + SLOTS, 3)).astype(np.float32)
    light, warp = rng.random((7, 7)), rng.random((2, 9, 9))

    canvas = Canvas(_background(back, back_colours, knobs.backgrounds, size), knobs, shift)
    drawn = [None] * SLOTS
    for slot in reversed(range(SLOTS)):
        if classes[slot]:
            drawn[slot] = swapped(classes[slot], poses[slot].swap, knobs.swap)
            canvas.add(slot, drawn[slot], poses[slot], places[slot], pairs[slot], bar_colours[DEBRIS + slot])
    for bar, colour in zip(bars, bar_colours):
        canvas.add_debris(bar, colour)

    pixels = canvas.pixels
    pixels *= 1 + 0.3 * (smooth_noise(light, size) - 0.5)
    if shift:  # warm or cool light
        pixels *= np.exp(np.float32(shift) * np.array([0.5, 0.0, -0.5], np.float32))[:, None, None]
    pixels += 0.03 * rng.standard_normal((3, size, size), dtype=np.float32)
    image = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
    clean = np.array([0, *classes], np.uint8)[canvas.instances]
    noisy = _displaced(clean, warp, knobs.label_noise) if knobs.label_noise else clean
    return Scene(image, noisy, clean, canvas.instances, canvas.parts, tuple(drawn))


def swapped(cls: int, draw: float, swap: str | None) -> tuple[int, int]:
    """Shape and texture numbers drawn for class `cls`; a swap replaces one of them by another, chosen by `draw`."""
    shape, tex = shape_texture(cls)
    if swap == "texture":
        tex = (tex + 1 + int(draw * (len(TEXTURES) - 1))) % len(TEXTURES)
    elif swap == "shape":
        shape = (shape + 1 + int(draw * (len(SHAPES) - 1))) % len(SHAPES)
    return shape, tex


def _places(draws: ndarray) -> list[tuple[float, float]]:
    """Centres of the four quadrants (fractions of the side), in random order."""
    return [((0.25, 0.75)[q % 2], (0.25, 0.75)[q // 2]) for q in draws.argsort().tolist()]


def _background(draws: list[float], colours: ndarray, families: int, size: int) -> ndarray:
    """(3, S, S) float32: one texture in two muted colours over the whole canvas."""
    kind, turn, frequency, phase, swirl = draws
    x, y = grid(size)
    mix = texture(int(kind * families), *turned(x, y, turn, frequency, size), phase * FULL, swirl * FULL)
    low, high = 0.5 + 0.6 * (colours - 0.5)
    return low[:, None, None] + (high - low)[:, None, None] * mix


def _displaced(clean: ndarray, warp: ndarray, amount: float) -> ndarray:
    """`clean` (S, S) looked up along a smooth random displacement: borders move, the insides of objects stay."""
    size = clean.shape[-1]
    dx, dy = smooth_noise(2 * warp - 1, size) * (0.09 * size * amount)
    x, y = grid(size)
    look_x, look_y = (np.clip(np.rint(a), 0, size - 1).astype(np.intp) for a in (x + dx, y + dy))
    return clean[look_y, look_x]
