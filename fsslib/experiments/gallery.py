"""One page about all finished runs: a picture of each, and the table of their scores."""

import html
from pathlib import Path
from typing import Any

from ..errors import FsslibError
from ..pages import css, refuse_external, title_of, write_text
from .results import RESULT, collect, finished, read_result

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
