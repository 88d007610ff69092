"""Shapes-5i: draws one image, its label map and its ground truth from a plan and a stream of random numbers."""

from typing import NamedTuple

import numpy as np
from numpy import ndarray

from .shapes_canvas import Canvas, Pose
from .shapes_classes import SHAPES, TEXTURES, shape_texture
from .shapes_draw import FULL, colour_pairs, grid, smooth_noise, texture, turned
from .shapes_knobs import ShapesKnobs
from .shapes_plan import SLOTS

DEBRIS = 3


class Scene(NamedTuple):
    """One drawn image; slot k (0 is the target's) is instance k + 1, pixels not belonging to any object are 0."""

    image: ndarray  # (3, S, S) uint8
    mask: ndarray  # (S, S) uint8 class ids, with label noise
    clean_mask: ndarray  # (S, S) uint8 class ids
    instances: ndarray  # (S, S) uint8
    parts: ndarray  # (S, S) uint8, 1 is the part with the class's own texture
    drawn: tuple[tuple[int, int] | None, ...]  # (shape, texture) numbers drawn in each slot


def draw_scene(
    classes: tuple[int, ...], shift: float, knobs: ShapesKnobs, size: int, rng: np.random.Generator
) -> Scene:
    """Draw the objects `classes` (slot 0 on top; 0 leaves a slot empty) on a textured background.

    Args: `shift` is the domain's, in [-gap / 2, gap / 2]; `rng` is consumed by a fixed number of draws, whatever the
    classes and knobs are.
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
