"""The explorer and the method that a test file is about, by its `EXPLORER` and `METHOD`."""

import pytest


@pytest.fixture
def explorer(request):
    """As it was when it was made."""
    from explorer_tools import as_made

    return as_made(request.module.EXPLORER)


@pytest.fixture
def net(request):
    """With the shipped weights, in eval mode, explaining."""
    from explorer_tools import explaining

    return explaining(request.module.METHOD)
