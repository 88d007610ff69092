"""The README tells the truth: its Python runs, its links and commands exist."""

import re
from pathlib import Path

from fsslib.experiments.commands import _parser, parse_value
from fsslib.experiments.parameters import ExperimentParameters

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_python_example_runs(capsys):
    block = re.search(r"```python\n(.*?)```", TEXT, re.S)[1]
    exec(block.replace("episodes=200", "episodes=4"), {})
    assert "'miou'" in capsys.readouterr().out


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) >= 5
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_commands_are_understood():
    lines = re.sub(r"\\\n\s*", "", TEXT).splitlines()
    calls = [
        line.split("#")[0].split()[3:] for line in lines if line.strip().startswith("python -m fsslib.experiments")
    ]
    assert len(calls) >= 5
    for call in calls:
        given = _parser().parse_args(call)
        for pair in getattr(given, "pairs", []):
            name, _, value = pair.partition("=")
            assert name in ExperimentParameters.model_fields
            parse_value(value, name)


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z]+)`", TEXT)) <= targets
