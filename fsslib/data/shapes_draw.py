"""Shapes-5i: the five outlines, the four textures, colours and smooth noise, as plain array functions."""

from functools import cache
from math import cos, pi, sin

import numpy as np
from numpy import ndarray

# Farthest point of each unit outline from its centre (shapes_classes.SHAPES order); sizes give equal areas, about 2.2.
REACH = (0.85, 1.06, 1.28, 1.22, 0.98)
# One period of a texture as a fraction of the image's side (8 px at 97).
PERIOD = 0.083
# What "two colours of an object" must differ by at least, summed over RGB.
CONTRAST = 0.7
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


def _star(x: ndarray, y: ndarray, outer: float = 1.22, inner: float = 0.6) -> ndarray:
    """Five-pointed star: fold the plane into one tenth, where the outline is a single straight edge."""
    tenth = pi / 5
    angle = np.abs(np.mod(np.arctan2(x, -y) + tenth, 2 * tenth) - tenth)
    rho = np.sqrt(x * x + y * y)
    # The edge runs from (outer, 0) to (inner, tenth) in polar coordinates.
    dx, dy = inner * cos(tenth) - outer, inner * sin(tenth)
    norm = (dx * dx + dy * dy) ** 0.5
    return rho * np.cos(angle) * (dy / norm) - rho * np.sin(angle) * (dx / norm) - outer * dy / norm


def texture(kind: int, u: ndarray, v: ndarray, phase: float, swirl: float) -> ndarray:
    """How much of the second colour (0..1) texture number `kind` shows; u, v are turned coordinates, 2 pi a period.

    `phase` moves the pattern along u (pi is half a period), `swirl` moves it along v and shapes the marble.
    """
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
