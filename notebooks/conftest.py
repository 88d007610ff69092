"""nbval's kernels inherit this process's variables: the same as when the notebooks were built."""

import os
import tempfile
from importlib.util import find_spec

import pytest
from offline import go_offline, nobody_asked

from tools import build

go_offline()
# Photographs and a network for them are an extra: without it there is nothing to run.
collect_ignore = [] if all(map(find_spec, ("skimage", "timm"))) else ["10_photographs.ipynb"]

os.environ.update(build.environment())
# A checked notebook may not touch the repository's figures.
os.environ["FSSLIB_FIGURES"] = tempfile.mkdtemp(prefix="figures-")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown():
    """The cell during which somebody outside this machine was asked fails."""
    with nobody_asked():
        return (yield)
