"""`make site`: the executed notebooks, glossary, guides, README, reference and reports as one site that loads nothing.

python tools/site.py [OUT]      default: site/; open site/index.html, also without a server

Sphinx with MyST-NB reads the stored notebooks as they are (nothing is executed). A link that leads nowhere, a formula
that cannot be shown, and anything a browser would fetch from elsewhere fail the build, and the old site stays.
"""

import inspect
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
from bs4 import BeautifulSoup
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that `python tools/site.py` finds the library of its own clone

from fsslib.errors import FsslibError  # noqa: E402
from fsslib.experiments.pages import formula  # noqa: E402
from fsslib.files import write_text  # noqa: E402

GUIDES = ("GLOSSARY", "NOTATION", "INSTRUCTORS", "CLUSTER")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
# What the reference lists: the package's own names, then those of the packages that a notebook imports from.
MODULES = ("fsslib", "fsslib.data", "fsslib.experiments", "fsslib.widgets", "fsslib.labs")
MODULES += ("fsslib.protocol", "fsslib.episode", "fsslib.ops", "fsslib.losses", "fsslib.metrics", "fsslib.errors")
CONF = {
    "project": "fsslib",
    "copyright": "the authors of fsslib, MIT licence",
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"],
    "html_theme": "pydata_sphinx_theme",
    "html_theme_options": {
        "show_prev_next": True,
        "navigation_with_keys": False,
        "secondary_sidebar_items": ["page-toc"],
    },
    "html_sidebars": {name: [] for name in ("reference", "reports", "genindex")},  # they have no neighbours to list
    "html_title": "fsslib",
    "html_css_files": ["fsslib.css"],
    "html_static_path": ["_static"],
    "html_show_sourcelink": False,
    "html_show_sphinx": False,
    "nb_execution_mode": "off",
    "myst_enable_extensions": ["dollarmath", "amsmath"],
    "myst_heading_anchors": 4,
    "autodoc_typehints": "signature",
    "default_role": "code",
    "suppress_warnings": ["myst.header"],
}
CSS = """
.bd-main .bd-content .bd-article-container { max-width: 72em; }
.bd-page-width { max-width: 100rem; }
@media (min-width: 960px) { .bd-sidebar-primary { width: 15rem; } .bd-main .bd-content .bd-article { padding: 1rem; } }
@media (min-width: 1200px) { .bd-sidebar-secondary { width: 13rem; } }
.bd-article div.highlight pre { font-size: 0.8rem; }
.bd-article img { max-width: 100%; height: auto; background: white; }
.formula { overflow-x: auto; margin: 1em 0; }
.bd-article table.dataframe { display: block; overflow-x: auto; }
.bd-article table.dataframe :is(th, td) { padding: 0.2rem 0.6rem; }
"""


def build(out: str | Path = "site") -> Path:
    """Write the site to the folder `out`, whole or not at all; returns its first page. Raises FsslibError."""
    out = Path(out).resolve()
    if out.exists() and not (out / "index.html").is_file():
        raise FsslibError(f"{out} is there and holds no site: name another folder.")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-", suffix=".part") as part:
        source, made = Path(part, "source"), Path(part, "made")
        _gather(source)
        problems = _render(source, made, Path(part, "trees"))
        _add_reports(made)
        problems += list(faults(made))
        if problems:
            raise FsslibError("the site is not written:\n" + "\n".join(f"  {problem}" for problem in problems[:40]))
        if out.exists():
            shutil.rmtree(out)
        os.replace(made, out)
    return out / "index.html"


def _gather(source: Path) -> None:
    """Everything Sphinx reads, laid out as in the repository, so that links between the pages hold."""
    books = source / "notebooks"
    names = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    for name in names:
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _linked(cell.source, Path("notebooks"), source)
            for output in cell.get("outputs", []):
                _as_html(output)
        write_text(books / f"{name}.ipynb", nbformat.writes(notebook))
    guides = [name for name in GUIDES if (ROOT / "notebooks" / f"{name}.md").is_file()]
    for name in guides:
        text = (ROOT / "notebooks" / f"{name}.md").read_text("utf-8")
        write_text(books / f"{name}.md", _linked(text, Path("notebooks"), source))
    rooms = {"notebooks": ("Notebooks", names), "guides": ("Words and guides", guides)}
    for room, (title, entries) in rooms.items():
        write_text(
            source / f"{room}.md", f"# {title}\n" + _tree([f"notebooks/{name}" for name in entries], ":maxdepth: 1\n")
        )
    contents = _tree([*rooms, "reference", "reports"], ":hidden:\n")
    write_text(source / "index.md", _linked((ROOT / "README.md").read_text("utf-8"), Path(), source) + contents)
    write_text(source / "reference.rst", _reference())
    write_text(source / "reports.md", _reports())
    write_text(source / "_static" / "fsslib.css", CSS)
    shutil.copytree(ROOT / "figures", source / "figures")


def _tree(pages: list[str], options: str = "") -> str:
    lines = "\n".join(pages)
    return f"\n```{{toctree}}\n{options}\n{lines}\n```\n"


def _linked(text: str, folder: Path, source: Path) -> str:
    """Markdown of a page in `folder`; files it links to are copied for it, folders become plain words."""

    def kept(found: re.Match) -> str:
        words, path, anchor = found[1], found[2], found[3] or ""
        target = (ROOT / folder / path).resolve()
        if target.is_dir() or not target.is_relative_to(ROOT):
            return words
        if target.is_file() and target.suffix not in (".md", ".ipynb"):
            place = source / target.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, place)
        return f"[{words}]({path}{anchor})"

    text = re.sub(
        r"^\[!\[.*\]\(\.\./\.\./.*\n", "", text, flags=re.M
    )  # badges, which only the repository's page can show
    return LINK.sub(kept, text)


def _as_html(output: dict) -> None:
    """A picture with its alt text, which MyST-NB would drop; of several forms of one output the best alone."""
    content = output.get("data", {})
    for mime in ("image/png", "image/jpeg"):
        if mime in content:
            alt = output.metadata.get(mime, {}).get("alt", "figure without a description")
            picture = f"data:{mime};base64,{content[mime].replace(chr(10), '')}"
            soup = BeautifulSoup("", "html.parser")
            output.data = {"text/html": str(soup.new_tag("img", src=picture, alt=alt))}
            return
    if "text/html" in content:
        output.data = {"text/html": content["text/html"]}


def _reference() -> str:
    """The public names of the library in reStructuredText, for autodoc."""
    text = "Reference\n=========\n\nWhat the notebooks and your own code import, with shapes and errors.\n"
    listed = set()
    for name in MODULES:
        module = import_module(name)
        first = (module.__doc__ or "").strip().split("\n\n")[0]
        text += f"\n{name}\n{'-' * len(name)}\n\n{first}\n\n"
        for member, value in _public(module).items():
            if id(value) not in listed:  # the errors, which `fsslib` names as well
                listed.add(id(value))
                kind = "autoclass" if isinstance(value, type) else "autofunction"
                text += f".. {kind}:: {name}.{member}\n\n"
    return text


def _public(module: ModuleType) -> dict[str, Any]:
    """The functions and classes that a module names in `__all__`, or that it defines."""
    named = {name: getattr(module, name) for name in sorted(getattr(module, "__all__", vars(module)))}
    if not hasattr(module, "__all__"):
        named = {n: v for n, v in named.items() if n[0] != "_" and getattr(v, "__module__", "") == module.__name__}
    return {name: value for name, value in named.items() if callable(value)}


def _in_sections(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Our short sections (`Args: a: …. b: …` in one paragraph) in the long form that napoleon reads."""
    parameters = "|".join(inspect.signature(value).parameters) if what in ("function", "method") else ""
    long, section = [], ""
    for line in lines:
        if found := re.match(r"(?:(Args|Returns):|(Raises):?) (\S.*)", line):
            section, line = found[1] or found[2], "    " + re.sub(r"^(\w+Error)(?= )", r"\1:", found[3])
            long += ["", f"{section}:"]
        elif not line.strip() or re.fullmatch(r"\w+:", line):
            section = ""
        elif section and (section != "Returns" or line[0] != " "):
            line = ("    " if line[0] == " " else "        ") + line
        if starts := {"Args": parameters, "Raises": r"\w+Error"}.get(section):
            line = re.sub(rf"(?<=\.) (?=(?:{starts}): )", "\n    ", line)
        long += line.split("\n")
    lines[:] = long


def _reports() -> str:
    """A page that leads to the finished runs of this clone."""
    pages = sorted((ROOT / "runs").glob("*/report.html"))
    text = "# Reports\n\nEach is one file that loads nothing: what a notebook gave with the parameters of a run.\n\n"
    if not pages:
        return text + "There are none yet: `make reports` runs every notebook, then `make site` shows them here.\n"
    if (ROOT / "runs" / "index.html").is_file():
        text += '<p><a href="runs/index.html">All runs, with their scores</a></p>\n\n'
    for page in pages:
        soup = BeautifulSoup(page.read_text("utf-8"), "html.parser")
        title = (soup.h1 or soup.title).text.strip("¶ \n")
        text += f'<p><a href="runs/{page.parent.name}/report.html">{title}</a> ({page.parent.name})</p>\n\n'
    return text


def _render(source: Path, made: Path, trees: Path) -> list[str]:
    """Run Sphinx; returns its warnings, a line each."""
    told = io.StringIO()
    app = Sphinx(source, None, made, trees, "html", CONF, status=None, warning=told, parallel=os.cpu_count() or 1)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.config.html_math_renderer = "mathml"
    app.connect("autodoc-process-docstring", _in_sections, priority=100)  # before napoleon
    app.build()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", told.getvalue()).replace(f"{source}/", "")
    return [line for line in plain.splitlines() if line.strip()]


def _inline_math(writer: object, node: object) -> None:
    from docutils.nodes import SkipNode

    writer.body.append(formula(node.astext()))
    raise SkipNode


def _block_math(writer: object, node: object) -> None:
    from docutils.nodes import SkipNode

    writer.body.append(f'<div class="formula">{formula(node.astext(), "block")}</div>')
    raise SkipNode


def _add_reports(made: Path) -> None:
    """Copy the reports beside the pages, with the files they show."""
    for page in (ROOT / "runs").glob("*/report.html"):
        place = made / "runs" / page.parent.name / page.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, place)
    if (made / "runs").is_dir() and (ROOT / "runs" / "index.html").is_file():
        shutil.copyfile(ROOT / "runs" / "index.html", made / "runs" / "index.html")


def faults(site: Path) -> Iterator[str]:
    """What a reader would stumble over: links and pictures that lead nowhere, and what is fetched from elsewhere."""
    pages = {
        path: BeautifulSoup(path.read_text("utf-8"), "html.parser")
        for path in sorted(site.rglob("*.html"))
        if path.parent.name != "_static"
    }
    ids = {path: {t["id"] for t in soup.find_all(id=True)} for path, soup in pages.items()}
    for path, soup in pages.items():
        where = path.relative_to(site)
        for tag in soup.find_all(["a", "link", "img", "script", "iframe", "source", "video", "object"]):
            address = tag.get("href") or tag.get("src") or tag.get("data") or ""
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "") and parts.netloc:
                if tag.name != "a" and "canonical" not in tag.get("rel", []):
                    yield f"{where}: <{tag.name}> asks {parts.netloc}"
            elif parts.scheme == "" and not address.startswith("#") and parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
                target = target / "index.html" if target.is_dir() else target
                if not target.is_file():
                    yield f"{where}: nothing is at {address[:80]}"
                elif parts.fragment and target in ids and unquote(parts.fragment) not in ids[target]:
                    yield f"{where}: {target.name} has no {parts.fragment}"
            elif address.startswith("#") and len(address) > 1 and unquote(address[1:]) not in ids[path]:
                yield f"{where}: no {address} on this page"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"url\(\s*['\"]?((?:https?:)?//[^)'\"]*)", sheet.read_text("utf-8", "replace")):
            yield f"{sheet.relative_to(site)}: asks {address[:60]}"


if __name__ == "__main__":
    try:
        print(build(*sys.argv[1:]))
    except FsslibError as error:
        sys.exit(str(error))
