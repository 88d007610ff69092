"""What people read of results: one student's report, and the table of a class as text, CSV and HTML."""

import codecs
import csv
import html
import io
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..files import atomic, located
from .check import DONE
from .exercise import exercises

MARKS = {"right": "✓", "recorded": "✎", "unsolved": "…", "unchecked": "-"}
LEGEND = "✓ right   ✗ not yet   … not solved yet   ✎ recorded, for you to judge   - not checked"


def report(result: dict[str, Any]) -> str:
    """One result as text: cells to look at, then the exercises."""
    about = f"{result['notebook']} ({result['stage']})"
    lines = [f"{about}, run from top to bottom in a fresh kernel: {result['seconds']} s"]
    for row in result["cells"]:
        place = f"cell {row['cell']} `{row['source']}`" if row["cell"] else "whole notebook"
        lines.append(f"  ! {place}\n      {row['problem']}: {row['message']}")
    lines += ["" if result["cells"] else "  every cell ran", "Exercises"]
    for row in result["exercises"]:
        words = {"right": "", "unsolved": "not solved yet"}.get(row["status"], row["message"])
        lines.append(f"  {_mark(row['status'])} {row['name']}" + (f": {words}" if words else ""))
    status = [row["status"] for row in result["exercises"]]
    written = f", {status.count('recorded')} recorded for your instructor" * ("recorded" in status)
    return "\n".join([*lines, f"  {status.count('right')} of {len(status)} are right{written}"])


def class_table(rows: Sequence[dict[str, Any]]) -> str:
    """The class as text: who solved what, the common wrong answers, and what needs a look."""
    lines = []
    for stage, members in _by_stage(rows).items():
        names = list(exercises(stage))
        lines.append(f"\n{stage}: {len(members)} notebook{'s' * (len(members) != 1)}")
        width = max(5, *(len(row["who"]) for row in members))
        lines.append(" " * (width + 2) + "  ".join(names))
        for row in members:
            status = {x["name"]: x["status"] for x in row["result"]["exercises"]}
            cells = "  ".join(_mark(status.get(name, "missing")).center(len(name)) for name in names)
            lines.append(f"{row['who']:{width}s}  {cells}".rstrip())
        totals = "  ".join(str(n).center(len(name)) for name, n in solved(members, names).items())
        lines.append(f"{'done':{width}s}  {totals}".rstrip())
        common = common_slips(members)
        lines += ["common wrong answers:"] if common else []
        lines += [f"  {count} x {name}: {slip}" for (name, slip), count in common]
    lines += [f"\n{LEGEND}"] if lines else []
    notes = [(row["file"], text) for row in rows for text in _notes(row)]
    lines += ["\nto look at:"] if notes else []
    lines += [f"  {file}: {text}" for file, text in notes]
    return "\n".join(lines).strip("\n")


def solved(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, int]:
    """How many have solved each exercise, or written an answer."""
    right = Counter(x["name"] for row in rows for x in row["result"]["exercises"] if x["status"] in DONE)
    return {name: right[name] for name in names}


def common_slips(rows: Sequence[dict[str, Any]]) -> list[tuple[tuple[str, str], int]]:
    """((exercise, slip), how often), the most frequent first."""
    answers = [x for row in rows for x in row["result"]["exercises"]]
    wrong = [x for x in answers if x["status"] not in MARKS and x["slip"] != "missing"]
    counts = Counter((x["name"], x["slip"] or "another value") for x in wrong)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def write_table(rows: Sequence[dict[str, Any]], out: str | Path) -> list[Path]:
    """Write `class.csv` (one line per student and exercise) and `class.html` into the folder `out`; returns both.

    The CSV is for spreadsheet programs and scripts alike: UTF-8 with a byte order mark (`encoding="utf-8-sig"`),
    commas, and no cell that is taken for a formula.
    Raises OutputError for the first that cannot be written, after the other one was written.
    """
    out, problems = located(out, "--out", OutputError), []
    # A half of a surrogate pair, which no file can hold, becomes "?".
    contents = {"class.csv": codecs.BOM_UTF8 + _csv(rows).encode("utf-8", "replace")}
    contents["class.html"] = _page(rows).encode("utf-8", "replace")
    for name, content in contents.items():
        try:
            with atomic(out / name) as part:
                part.write_bytes(content)
        except OutputError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    return [out / name for name in contents]


def _by_stage(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    stages = sorted({row["result"]["stage"] for row in rows if row["result"]})
    return {stage: [row for row in rows if row["result"] and row["result"]["stage"] == stage] for stage in stages}


def _mark(status: str) -> str:
    return MARKS.get(status, "✗")


def _notes(row: dict[str, Any]) -> list[str]:
    cells = (row["result"] or {}).get("cells", [])
    messages = [(f"cell {c['cell']}: " if c["cell"] else "") + c["message"] for c in cells]
    return [row["note"]] * bool(row["note"]) + messages


_FORMULA = ("=", "+", "-", "@", "|", "\t", "\r", "\n")


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["who", "file", "notebook", "exercise", "status", "slip", "message", "answer", "note"])
    for row in rows:
        stage = (row["result"] or {}).get("stage", "")
        for x in (row["result"] or {}).get("exercises") or [{}]:  # a line for everybody
            cells = [x.get(k, "") for k in ("name", "status", "slip", "message", "answer")]
            writer.writerow([plain_cell(v) for v in (row["who"], row["file"], stage, *cells, row["note"])])
    return text.getvalue()


def plain_cell(value: str) -> str:
    """A text that no spreadsheet takes for a formula: some leave out spaces, or read wide forms of signs as signs."""
    value = value.replace("\0", "")
    first = unicodedata.normalize("NFKC", value.lstrip()[:1] or value[:1])
    return "'" + value if first in _FORMULA or value[:1] in _FORMULA else value


_STYLE = """:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;
padding:0 1rem}table{border-collapse:collapse;margin:1rem 0}th,td{border:1px solid #8888;padding:.2rem .6rem}
td{text-align:center}.right{background:#009e7333}.other{background:#d55e0033}th[scope=row]{text-align:left}
blockquote{white-space:pre-line;border-left:4px solid #0072b2;margin-left:0;padding-left:1rem}"""
_WORDS = {"right": "right", "recorded": "recorded", "unsolved": "not solved yet"}


def _page(rows: Sequence[dict[str, Any]]) -> str:
    safe = html.escape
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Class table</title>'
        f"<style>{_STYLE}</style></head><body><h1>Class table</h1>"
    ]
    for stage, members in _by_stage(rows).items():
        names = list(exercises(stage))
        head = "".join(f'<th scope="col"><code>{n}</code></th>' for n in names)
        parts.append(
            f'<h2>{safe(stage)}</h2><table><caption>Who solved what</caption><tr><th scope="col">who</th>{head}</tr>'
        )
        for row in members:
            status = {x["name"]: x for x in row["result"]["exercises"]}
            parts.append(f'<tr><th scope="row">{safe(row["who"])}</th>')
            for name in names:
                x = status.get(name, {"status": "missing", "message": "", "slip": ""})
                words = _WORDS.get(x["status"]) or x["slip"] or x["status"]
                kind = "right" if x["status"] == "right" else "" if x["status"] in _WORDS else "other"
                parts.append(f'<td class="{kind}" title="{safe(x["message"])}">{_mark(x["status"])} {safe(words)}</td>')
            parts.append("</tr>")
        totals = "".join(f"<td>{n} of {len(members)}</td>" for n in solved(members, names).values())
        parts.append(f'<tr><th scope="row">done</th>{totals}</tr></table>')
        if common := common_slips(members):
            parts.append("<h3>Common wrong answers</h3><ul>")
            parts += [f"<li>{n} × <code>{safe(e)}</code>: {safe(slip)}</li>" for (e, slip), n in common]
            parts.append("</ul>")
        written = [(x, row) for row in members for x in row["result"]["exercises"] if x.get("answer")]
        parts += ["<h3>Written answers</h3>"] * bool(written)
        parts += [
            f"<p><b>{safe(r['who'])}</b>, <code>{safe(x['name'])}</code></p>"
            f"<blockquote>{safe(x['answer'])}</blockquote>"
            for x, r in written
        ]
    notes = [(row["file"], text) for row in rows for text in _notes(row)]
    parts += ["<h2>To look at</h2><ul>"] * bool(notes)
    parts += [f"<li><code>{safe(file)}</code>: {safe(text)}</li>" for file, text in notes] + ["</ul>"] * bool(notes)
    return "\n".join([*parts, "</body></html>\n"])
