"""Notebooks as single HTML files that load nothing: no script, no font, no picture from another address.

`page` shows one notebook; `write_index` all finished runs: a picture of each, the table of their scores, and at the end
two of them compared.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FsslibError
from ..files import located, write_text
from .comparison import comparison_of
from .results import RESULT, collect, finished, read_result

TEMPLATE = Path(__file__).resolve().parent / "page_template"
# A widget's or a figure's picture is preferred to its other forms; nothing else is shown.
KINDS = ["image/png", "image/jpeg", "text/html", "text/markdown", "text/plain"]
# Columns of the index that say little beside the others, or are the same for most runs.
LEFT_OUT = {"options", "training", "validate_every", "root", "batch", "lr", "pretrain_lr", "seeds", "list_hash"}
LEFT_OUT |= {"precision", "accelerator", "workers"}
# What latex2mathml turns into something else without a word (measured), and the spelling that works.
_SILENT = {
    r"\\boldsymbol": r"is not made bold: write \mathbf",
    r"\\mathbb\s*\{?\s*\d": r"becomes a plain digit: write \mathbf{1}",
    r"\\operatorname\*": r"is not converted: write \underset{c}{\mathrm{argmax}}",
}


def formula(text: str, display: str = "inline") -> str:
    """LaTeX to MathML (`display` is "inline" or "block"); raises FsslibError rather than show half a formula."""
    from latex2mathml.converter import convert

    for pattern, advice in _SILENT.items():
        if found := re.search(pattern, text):
            raise FsslibError(f"formula {text.strip()!r}: {found[0]!r} {advice}.")
    bare = re.sub(r"\\[{}]", "", text)
    if bare.count("{") != bare.count("}"):
        raise FsslibError(f"formula {text.strip()!r}: the braces do not match.")
    source = text.strip().replace("{aligned}", "{align*}")
    if display == "block":  # otherwise the index of a maximum stands beside it, not below
        source = re.sub(r"\\(max|min|sup|inf|lim)\s*_", r"\\\1\\limits_", source)
    try:
        made = convert(source, display=display)
    except Exception as error:
        raise FsslibError(f"formula {text.strip()!r} is not valid: {type(error).__name__} {error}".rstrip()) from error
    if leftover := re.search(r"\\[A-Za-z]+|<mi>&(amp;)?</mi>|<mo\s*/>|<merror", made):
        raise FsslibError(f"formula {text.strip()!r} is not converted completely: {leftover[0]!r} is left over.")
    # The name space is implied in HTML, and is the only address a page would contain.
    return made.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")


def css() -> str:
    """The style sheet of all pages: light and dark, with colours for code."""
    from pygments.formatters import HtmlFormatter

    sheet = (TEMPLATE / "page.css").read_text("utf-8")
    for which, style in (("not all and ", "friendly"), ("", "github-dark")):
        rules = HtmlFormatter(style=style, nobackground=True).get_style_defs(".highlight").splitlines()
        colours = "\n".join(rule for rule in rules if rule.startswith(".highlight ."))
        sheet += f"\n@media {which}(prefers-color-scheme: dark) {{\n{colours}\n}}"
    return sheet


def _exporter(folder: Path) -> Any:
    # nbconvert takes half a second to import, which only the making of a page should cost.
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
    from traitlets.config import Config

    class Renderer(IPythonRenderer):
        """Markdown to HTML with MathML; a link to a notebook or to the glossary keeps its words only."""

        def inline_math(self, body: str) -> str:
            return formula(body)

        def block_math(self, body: str) -> str:
            return formula(body, "block")

        def latex_environment(self, name: str, body: str) -> str:
            return formula(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

        def link(self, text: str, url: str, title: str | None = None) -> str:
            return f"<em>{text}</em>" if re.match(r"(?!\w+:)[^#]*\.(ipynb|md)", url) else super().link(text, url, title)

    class PageExporter(HTMLExporter):
        """nbconvert's exporter without its own style sheets, scripts and widget manager."""

        @pass_context
        def markdown2html(self, context: Any, source: str) -> str:
            attached = context.get("cell", {}).get("attachments", {})
            how = {"escape": False, "embed_images": True, "exclude_anchor_links": True}
            renderer = Renderer(path=str(folder), attachments=attached, **how)
            return MarkdownWithMath(renderer=renderer).render(source)

    no_styles, order = {"enabled": False}, {"display_data_priority": KINDS}
    config = Config({"CSSHTMLHeaderPreprocessor": no_styles, "NbConvertBase": order})
    return PageExporter(config=config, template_name=TEMPLATE.name, extra_template_basedirs=[str(TEMPLATE.parent)])


def title_of(notebook: Any, fallback: str) -> str:
    """A notebook's first heading, without marks of emphasis, or `fallback`."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (heading := re.search(r"^#\s+(.+)$", cell.source, re.M)):
            return re.sub(r"[*_`$]", "", heading[1]).strip()
    return fallback


def page(notebook: Any, title: str | None = None, hide_code: bool = False, folder: str | Path = ".") -> str:
    """One HTML page that shows a notebook without loading anything.

    Args:
        notebook: an nbformat notebook, version 4.
        title: of the browser's tab; by default the notebook's title or first heading.
        hide_code: fold every code cell behind a "Code" line, as in a report.
        folder: where pictures named in the text are looked up; they are embedded.
    Raises: FsslibError: a formula that cannot be converted completely.
    """
    title = title or notebook.metadata.get("title") or title_of(notebook, "Notebook")
    resources = {"metadata": {"name": title}, "page_title": title, "page_css": css(), "hide_code": hide_code}
    return _exporter(Path(folder)).from_notebook_node(notebook, resources)[0]


def external(html: str) -> list[str]:
    """What a browser would fetch or run by itself, at most 80 characters each; must be empty.
    Links that a reader may click (`<a href>`) are allowed."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    tags = soup.select("script, iframe, frame, link, object, embed, base, form, meta[http-equiv*=refresh i]")
    for name in ("src", "srcset", "poster", "background", "data", "xlink:href"):
        tags += [t for t in soup.find_all(attrs={name: True}) if not t[name].startswith("data:")]
    tags += [t for t in soup.find_all(["image", "use"]) if not str(t.get("href", "#")).startswith(("#", "data:"))]
    tags += [t for t in soup.find_all(True) if any(attribute.startswith("on") for attribute in t.attrs)]
    styles = [s.text for s in soup.find_all("style")] + [t["style"] for t in soup.find_all(style=True)]
    loads = re.findall(r"@import[^;]*|url\(\s*['\"]?(?!data:|#)[^)]*", " ".join(styles))
    return list(dict.fromkeys(text[:80] for text in [*map(str, tags), *loads]))


def refuse_external(html: str, name: str, advice: str = "") -> None:
    """Raise FsslibError if the page `name` would load anything."""
    if loads := external(html):
        raise FsslibError(f"{name} would load from outside: {'; '.join(loads)}.{advice}")


def write_page(ipynb_path: str | Path, html_path: str | Path, title: str | None = None) -> Path:
    """Convert a notebook file to an HTML file, its code folded; raises FsslibError if the page would load anything."""
    import nbformat

    ipynb_path = located(ipynb_path, "notebook")
    if not ipynb_path.is_file():
        raise FsslibError(f"there is no notebook {ipynb_path}: check the path, or build it with `make notebooks`.")
    made = page(nbformat.read(ipynb_path, 4), title, True, ipynb_path.parent)
    refuse_external(made, ipynb_path.name, " Embed it instead.")
    return write_text(html_path, made)


def first_picture(notebook: Any) -> tuple[str, str, str] | None:
    """Mime type, base64 text and alt text of a notebook's first photograph, else of its first plot, or None."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for mime in ("image/jpeg", "image/png"):
        for output in outputs:
            if content := output.get("data", {}).get(mime):
                alt = output.get("metadata", {}).get(mime, {}).get("alt", "figure without a description")
                return mime, content.replace("\n", ""), alt
    return None


def _card(folder: Path) -> dict[str, Any]:
    import nbformat

    notebook = nbformat.read(folder / "report.ipynb", 4)
    seconds = read_result(folder)["duration_s"] if (folder / RESULT).is_file() else None
    title, picture = title_of(notebook, folder.name), first_picture(notebook)
    return {"name": folder.name, "title": title, "picture": picture, "seconds": seconds}


def write_index(
    runs: str | Path = "runs", title: str = "Few-shot segmentation: runs", compared: Mapping[str, str] | None = None
) -> Path:  # fmt: skip
    """Write `<runs>/index.html`, whole or not at all: it loads nothing and links to every run's own page.

    Args: compared: folder -> name of two experiments whose paired comparison ends the page, see `comparison_of`.
    Raises FsslibError if there is no finished run, or if the page would load anything.
    """
    from jinja2 import Environment, FileSystemLoader

    runs = located(runs, "runs")
    folders = finished(runs)
    if not folders:
        raise FsslibError(f"no finished run in {runs}: start one with `python -m fsslib.experiments run`.")
    scores = collect(runs)
    scores = scores.drop(columns=LEFT_OUT & {*scores.columns})
    # What all rows share is said once, above the table.
    same = [name for name in scores.columns if len(scores) > 1 and scores[name].map(str).nunique() == 1]
    shared = {name: scores[name].iloc[0] for name in same if name not in ("run", "shot", "duration_s")}
    look = {"index": False, "border": 0, "na_rep": "", "float_format": lambda v: f"{v:.{1 if abs(v) >= 1 else 3}f}"}
    table = "" if scores.empty else scores.drop(columns=[*shared]).to_html(**look)
    shared = {name: value for name, value in shared.items() if value not in (None, {})}
    shown = {"page_title": title, "page_css": css(), "cards": [_card(folder) for folder in folders]}
    shown |= {"shared": shared, "scores": table, "pair": comparison_of(runs, compared) if compared else None}
    made = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True).get_template("runs.html.j2").render(shown)
    refuse_external(made, f"the index of {runs}")
    return write_text(runs / "index.html", made)
