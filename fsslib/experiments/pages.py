"""Notebooks as single HTML files that load nothing: no script, no font, no picture from another address."""

import html
import re
from pathlib import Path
from typing import Any

from ..errors import FsslibError
from ..files import atomic
from .results import RESULT, collect, finished, read_result

TEMPLATES = Path(__file__).resolve().parent


TEMPLATE = "page_template"


# A widget's or a figure's picture is preferred to its other forms; nothing else is shown.
KINDS = ["image/png", "image/jpeg", "text/html", "text/markdown", "text/plain"]


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

    def colours(style: str) -> str:
        rules = HtmlFormatter(style=style, nobackground=True).get_style_defs(".highlight")
        return "\n".join(line for line in rules.splitlines() if line.startswith(".highlight ."))

    sheet = (TEMPLATES / TEMPLATE / "page.css").read_text()
    dark = f"@media (prefers-color-scheme: dark) {{\n{colours('github-dark')}\n}}"
    return f"{sheet}\n@media not all and (prefers-color-scheme: dark) {{\n{colours('friendly')}\n}}\n{dark}"


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
    return PageExporter(config=config, template_name=TEMPLATE, extra_template_basedirs=[str(TEMPLATES)])


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
    Raises:
        FsslibError: a formula that cannot be converted completely.
    """
    title = title or notebook.metadata.get("title") or title_of(notebook, "Notebook")
    resources = {"metadata": {"name": title}, "page_title": title, "page_css": css(), "hide_code": hide_code}
    return _exporter(Path(folder)).from_notebook_node(notebook, resources)[0]


def external(html: str) -> list[str]:
    """What a browser would fetch or run by itself, at most 80 characters each; must be empty.

    Links that a reader may click (`<a href>`) are allowed.
    """
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    tags = soup.find_all(["script", "iframe", "frame", "link", "object", "embed", "base", "form"])
    tags += soup.find_all("meta", attrs={"http-equiv": re.compile("refresh", re.I)})
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


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)


def write_page(ipynb_path: str | Path, html_path: str | Path, hide_code: bool = True, title: str | None = None) -> Path:
    """Convert a notebook file to an HTML file; raises FsslibError if the page would load anything."""
    import nbformat

    ipynb_path = Path(ipynb_path)
    if not ipynb_path.is_file():
        raise FsslibError(f"there is no notebook {ipynb_path}: check the path, or build it with `make notebooks`.")
    made = page(nbformat.read(ipynb_path, 4), title, hide_code, ipynb_path.parent)
    refuse_external(made, ipynb_path.name, " Embed it instead.")
    return write_text(html_path, made)


# One page about all finished runs: a picture of each, and the table of their scores.


# Columns that say little beside the others, or are the same for most runs.
_LEFT_OUT = [
    "options",
    "training",
    "validate_every",
    "root",
    "batch",
    "lr",
    "pretrain_lr",
    "seeds",
    "list_hash",
    "precision",
    "accelerator",
]


def first_picture(notebook: Any) -> tuple[str, str, str] | None:
    """Mime type, base64 text and alt text of a notebook's first photograph, else of its first plot, or None."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for mime in ("image/jpeg", "image/png"):
        for output in outputs:
            if content := output.get("data", {}).get(mime):
                alt = output.get("metadata", {}).get(mime, {}).get("alt", "figure without a description")
                return mime, content.replace("\n", ""), alt
    return None


def _card(folder: Path) -> str:
    import nbformat

    notebook = nbformat.read(folder / "report.ipynb", 4)
    lines = [f'<h3><a href="{folder.name}/report.html">{html.escape(title_of(notebook, folder.name))}</a></h3>']
    if picture := first_picture(notebook):
        mime, content, alt = picture
        lines.append(f'<img class="figure" src="data:{mime};base64,{content}" alt="{html.escape(alt)}">')
    about = folder.name
    if (folder / RESULT).is_file():
        about += f", {read_result(folder)['duration_s']:.0f} s"
    lines.append(f"<p>{html.escape(about)}</p>")
    return f'<article class="run">{"".join(lines)}</article>'


def _scores(runs: Path) -> str:
    table = collect(runs)
    if table.empty:
        return "<p>No run with scores yet.</p>"
    table = table[[c for c in table.columns if c not in _LEFT_OUT]]
    # What all rows share is said once, above the table.
    constant = [c for c in table.columns if len(table) > 1 and table[c].astype(str).nunique() == 1]
    first = {c: table[c].iloc[0] for c in constant if c not in ("run", "shot")}
    shared = ", ".join(f"{c} {html.escape(str(value))}" for c, value in first.items() if value is not None)
    note = f"<p>All rows: {shared}.</p>" if shared else ""
    table, digits = table.drop(columns=list(first)), lambda v: f"{v:.1f}" if abs(v) >= 1 else f"{v:.3f}"
    body = table.to_html(index=False, border=0, float_format=digits, na_rep="")
    return f'{note}<div class="rich" tabindex="0">{body}</div>'


def write_index(runs: str | Path = "runs", title: str = "Few-shot segmentation: runs") -> Path:
    """Write `<runs>/index.html`, whole or not at all: it loads nothing and links to every run's own page.

    Raises FsslibError if there is no finished run, or if the page would load anything.
    """
    runs = Path(runs)
    folders = finished(runs)
    if not folders:
        raise FsslibError(f"no finished run in {runs}: start one with `python -m fsslib.experiments run`.")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html.escape(title)}</title>
<style>{css()}</style>
</head>
<body>
<main class="wide">
<h1>{html.escape(title)}</h1>
<div class="runs">{"".join(map(_card, folders))}</div>
<h2>Scores</h2>
{_scores(runs)}
</main>
</body>
</html>
"""
    refuse_external(text, f"the index of {runs}")
    return write_text(runs / "index.html", text)
