"""Made-up folders of photographs, one a test."""

import pytest
from coco_tree import make_coco
from voc_tree import make_voc


@pytest.fixture
def voc(tmp_path):
    return make_voc(tmp_path)


@pytest.fixture
def coco(tmp_path):
    return make_coco(tmp_path / "coco")
