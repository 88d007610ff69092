"""Shared fixtures: the optional folder of real photographs, weights and golden vectors; one thread for everything."""

import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from offline import go_offline, nobody_asked

go_offline()
# Whoever starts the tests in the background may have Ctrl-C ignored, here and in whatever is started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)
# setdefault: a run under OMP_NUM_THREADS=2 must stay possible.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests leave nothing in the user's cache folder, and find nothing there.
_cache = tempfile.TemporaryDirectory(prefix="fsslib-cache-")
os.environ["FSSLIB_CACHE"] = _cache.name
# The same examples in every run: a failure must be there again when somebody looks for it.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden vectors, photographs and weights; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("FSSLIB_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("golden vectors and photographs are not on this machine (set FSSLIB_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same numbers, whatever ran before."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown():
    """The test during which somebody outside this machine was asked fails."""
    with nobody_asked():
        return (yield)
