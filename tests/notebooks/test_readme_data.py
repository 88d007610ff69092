"""The README's lines about pictures of one's own do what they say."""

import re

import pytest
import torch
from core_tools import panet
from folder_tree import class_folders
from test_readme import TEXT

import fsslib
from fsslib import inference
from fsslib.data.__main__ import main


def block(first: str) -> str:
    """The Python block that holds the line `first`."""
    return next(code for code in re.findall(r"```python\n(.*?)```", TEXT, re.S) if first in code)


def test_a_folder_of_ones_own(tmp_path, capsys):
    class_folders(tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir() if p.is_dir())[:2]
    code = block('load_dataset("folder"').replace("my/pictures", str(tmp_path)).replace('["heron", "owl"]', str(names))
    found = {}
    exec(code, found)
    assert found["episode"].batch == 4 and "novel: " + ", ".join(names) in found["data"].fold_scheme
    assert main(["check", str(tmp_path)]) == 0 and "no problems" in capsys.readouterr().out


def test_segment_a_picture_of_ones_own(tmp_path, monkeypatch):
    """With a small network in place of the packaged one, and strokes in place of a hand."""
    anywidget = pytest.importorskip("anywidget")
    assert anywidget
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    data = fsslib.load_dataset("shapes", split="test", pool=10)
    for name, index in (("query.jpg", 0), ("support.jpg", 5)):
        Image.fromarray(data[index][0].permute(1, 2, 0).numpy()).save(name)
    label = data[5][1] == data.classes[0]
    Image.fromarray((label * 255).to(torch.uint8).numpy()).save("support_mask.png")
    monkeypatch.setattr(inference, "_for_photographs", panet)
    found = {}
    exec(block('segment("query.jpg", "support.jpg"'), found)
    assert found["mask"].shape == (97, 97)
    drawing = block("SupportPainter(").replace("# in a later cell:", "painter.document = strokes")
    from fsslib.widgets import strokes as pen

    stroke = {"tool": "brush", "label": 1, "width": 20.0, "points": [[40.0, 40.0], [50.0, 45.0]]}
    exec(drawing, found | {"strokes": pen.add(pen.empty(97, 97), stroke)}, found)
    assert found["mask"].shape == (97, 97) and (found["painter"].mask == 1).sum() > 300
