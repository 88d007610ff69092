"""Figures are drawn without a screen, and closed after each test."""

import matplotlib
import pytest

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture
def drawn():
    """The lines of a panel that show something, with their points; seaborn adds empty ones for its legend."""
    return lambda axis: [(line, line.get_xydata().tolist()) for line in axis.lines if len(line.get_xydata())]
