"""Pages load nothing, formulas are whole or refused, figures carry their words."""

import io

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fsslib import files
from fsslib.errors import FsslibError
from fsslib.experiments.pages import external, formula, page, write_page
from fsslib.plots.display import picture, save, show

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def notebook(*extra):
    shown = [
        new_output("stream", text="mIoU 0.512 <b>\n"),
        new_output(
            "display_data", {"image/png": PIXEL, "text/plain": "x"}, metadata={"image/png": {"alt": 'a "<dot>'}}
        ),
        new_output("display_data", {"text/html": "<table><tr><th>shot</th></tr></table>", "text/plain": "t"}),
        new_output("display_data", {"application/javascript": "alert(1)", "text/plain": "words instead"}),
    ]
    text = "# Prototypes & *cosines*\n\nLoss $\\frac{a}{b}$, see [the next](01_x.ipynb), [a term](GLOSSARY.md#term) "
    text += "or [a paper](https://doi.org/1).\n"
    cells = [new_markdown_cell(text + "\n$$\\max_x f(x)$$"), new_code_cell("score = 1 < 2", outputs=shown)]
    return new_notebook(cells=[*cells, *extra])


def test_a_page_stands_alone():
    made = page(notebook())
    assert external(made) == [] and "<script" not in made and "Content-Security-Policy" in made
    assert "w3.org" not in made, "not even the name space of formulas is an address"
    assert "<title>Prototypes &amp; cosines</title>" in made and "<mfrac>" in made and "<munder>" in made
    assert 'alt="a &quot;&lt;dot&gt;"' in made or "alt='a \"&lt;dot&gt;'" in made
    assert "mIoU 0.512 &lt;b&gt;" in made and "<th>shot</th>" in made and "words instead" in made
    assert "alert(1)" not in made
    assert "<em>the next</em>" in made and "<em>a term</em>" in made and 'href="https://doi.org/1"' in made
    assert "prefers-color-scheme: dark" in made


def test_code_is_folded_in_reports_only():
    report = page(notebook(), title="My run", hide_code=True)
    assert "<summary>Code</summary>" in report and "<title>My run</title>" in report
    assert "<summary>Code</summary>" not in page(notebook())


LOADS = """\
<script src="https://x.org/a.js"></script>
<img src="https://x.org/a.png">
<img src="file.png">
<link rel="stylesheet" href="//x.org/a.css">
<style>@import 'https://x.org/a.css';</style>
<style>p { background: url(https://x.org/a.png) }</style>
<p style="background: url(https://x.org/a.png)">
<iframe src="data:text/html,x"></iframe>
<img srcset="https://x.org/a.png 2x">
<svg><image href="https://x.org/a.png"/></svg>
<meta http-equiv="Refresh" content="0; url=https://x.org">
<p onclick="fetch(1)">"""


def test_whatever_would_load_is_found():
    assert [text for text in LOADS.splitlines() if not external(f"<html><body>{text}</body></html>")] == []
    assert external('<a href="https://x.org">x</a><img src="data:image/png;base64,AA"><a href="#top">y</a>') == []


HALF = [r"\boldsymbol{\mu}", r"\mathbb{1}", r"\operatorname*{argmax}_c x", r"\nosuchcommand x", r"\frac{a", r"\arg"]


def test_formulas_are_converted_wholly_or_refused():
    for text in HALF:
        with pytest.raises(FsslibError, match="formula"):
            formula(text)
    for text in (
        r"p_c = \frac{1}{K}\sum_{k} \frac{\sum_{x,y} F^{(x,y)} \mathbb{I}[M=c]}{\sum_{x,y} \mathbb{I}[M=c]}",
        r"\tilde{M} = \mathrm{softmax}(-\alpha\, d(F, p_c)), \quad \alpha = 20",
        r"\underset{c}{\mathrm{argmax}}\ \cos(F, p_c)",
        r"\mathcal{L} = \mathcal{L}_{\text{seg}} + \lambda \mathcal{L}_{\text{PAR}}",
        r"\begin{aligned} a &= b \\ c &= d \end{aligned}",
    ):
        assert formula(text, "block").startswith("<math")


def test_a_page_that_would_load_is_not_written(tmp_path):
    book = tmp_path / "book.ipynb"
    nbformat.write(notebook(new_markdown_cell("![far](https://x.org/a.png)")), book)
    with pytest.raises(FsslibError, match=r"x\.org"):
        write_page(book, tmp_path / "book.html")
    assert [p.name for p in tmp_path.iterdir()] == ["book.ipynb"]
    nbformat.write(notebook(), book)
    assert write_page(book, tmp_path / "book.html").read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(FsslibError, match="no notebook"):
        write_page(tmp_path / "other.ipynb", tmp_path / "other.html")


@pytest.fixture
def fig():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 2))
    figure.subplots().plot([1, 2, 3])
    return figure


def test_a_figure_is_shown_with_words_and_numbers(fig, capsys, monkeypatch):
    import pandas as pd

    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata=None: shown.append((data, metadata)))
    show(fig, "The score <rises> from 1 to 3.", pd.DataFrame({"score": [0.12345]}))
    (bundle, metadata), (words, _) = shown
    assert bundle["image/png"].startswith(b"\x89PNG") and bundle["text/plain"] == "The score <rises> from 1 to 3."
    assert metadata["image/png"]["alt"] == "The score <rises> from 1 to 3."
    assert "Figure in words" in words["text/html"] and "0.123" in words["text/html"]
    assert "&lt;rises&gt;" in words["text/html"]
    show(fig, "A photograph of a cat.", photo=True, data={"area": [0.5]})
    assert shown[2][0]["image/jpeg"].startswith(b"\xff\xd8") and "0.500" in shown[3][0]["text/html"]
    for alt in ("", "a plot"):
        with pytest.raises(FsslibError, match="alt text"):
            show(fig, alt)
    assert len(shown) == 4


def test_pictures_are_small_repeatable_and_saved_whole(fig, tmp_path, monkeypatch):
    from PIL import Image

    assert picture(fig) == picture(fig)
    assert Image.open(io.BytesIO(picture(fig))).mode == "P" and len(picture(fig)) < 15_000
    monkeypatch.setenv("FSSLIB_FIGURES", str(tmp_path))
    path = save(fig, "a/line.png", "A line from 1 to 3.")
    assert path == tmp_path / "a" / "line.png" and [p.name for p in path.parent.iterdir()] == ["line.png"]
    assert Image.open(path).text["Description"] == "A line from 1 to 3."
    with pytest.raises(FsslibError, match="alt text"):
        save(fig, "b.png", "line")
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("book", sorted(files.notebooks_folder().glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_becomes_a_page(book):
    """`make reports` writes them: no formula that is half converted, nothing that would be loaded."""
    made = nbformat.read(book, 4)
    for cell in made.cells:
        if cell.cell_type == "code":  # what takes long and could not go wrong: colours of the code, large pictures
            cell.source = "pass"
            for output in cell.outputs:
                data = output.get("data", {})
                data |= {mime: PIXEL for mime in data if mime.startswith("image/")}
    text = page(made, title=book.stem)
    assert f"<title>{book.stem}</title>" in text and external(text) == []
