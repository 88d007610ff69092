"""The web site: whole, every link leads somewhere, nothing is asked from elsewhere."""

import json
import re

import pytest
from bs4 import BeautifulSoup

pytest.importorskip("sphinx", reason="needs the extra `site`")
pytest.importorskip("myst_nb", reason="needs the extra `site`")

from fsslib.errors import FsslibError
from fsslib.files import repository_folder
from tools import site

BOOKS = sorted(path.stem for path in (repository_folder() / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return site.build(tmp_path_factory.mktemp("made") / "site").parent


def test_every_notebook_is_there_with_its_pictures_and_formulas(made):
    for name in BOOKS:
        page = BeautifulSoup((made / "notebooks" / f"{name}.html").read_text("utf-8"), "html.parser")
        stored = json.loads((repository_folder() / "notebooks" / f"{name}.ipynb").read_text("utf-8"))
        pictures = [o for c in stored["cells"] for o in c.get("outputs", []) if "image/" in " ".join(o.get("data", ()))]
        shown = page.select("article img[src^=data]")
        assert len(shown) == len(pictures) and all(picture["alt"] for picture in shown)
        assert "$" not in " ".join(p.text for p in page.select("article p"))  # no formula is left as it was typed
    assert (made / "notebooks" / f"{BOOKS[1]}.html").read_text("utf-8").count("<math") > 3


def test_next_walks_all_notebooks(made):
    seen, name = [], BOOKS[0]
    while name in BOOKS:
        seen.append(name)
        page = BeautifulSoup((made / "notebooks" / f"{name}.html").read_text("utf-8"), "html.parser")
        name = page.select_one("a.right-next")["href"].removesuffix(".html").rsplit("/", 1)[-1]
    assert seen == BOOKS


def test_the_search_knows_words_and_the_reference_its_sections(made):
    index = (made / "searchindex.js").read_text("utf-8")
    assert re.search(r"\bprior\b", index) and re.search(r"\bmask\b", index)
    reference = BeautifulSoup((made / "reference.html").read_text("utf-8"), "html.parser")
    entry = reference.find(id="fsslib.evaluate").find_parent("dl")
    assert "Parameters" in entry.text and "Raises" in entry.text
    raised = reference.find(id="fsslib.Protocol").find_parent("dl").select_one("dl.field-list dd").text
    assert re.match(r"\s*ProtocolError – for unknown", raised), "also where the docstring has no colon"


def test_faults_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="gone.html">x</a><a href="#nowhere">x</a><a href="b.html#not">x</a><a href="b.html#here">x</a>'
        '<script src="https://elsewhere.org/x.js"></script><a href="https://elsewhere.org">a reader may click</a>'
    )
    (tmp_path / "b.html").write_text('<p id="here"></p>')
    (tmp_path / "s.css").write_text("@font-face { src: url(//elsewhere.org/f.woff) }")
    assert len(list(site.faults(tmp_path))) == 5


def test_a_folder_that_is_no_site_stays(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FsslibError, match="holds no site"):
        site.build(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
