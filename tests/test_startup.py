"""What a start imports: nothing that the caller may not need. Counted in modules, not in seconds.

What an episode needs, test_imports says.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fsslib

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
# torch._dynamo and sympy come with torchvision's operators, and take longer than torch itself.
HEAVY = ["torchvision", "torch._dynamo", "sympy", "lightning_fabric", "matplotlib", "scipy", "IPython"]
HEAVY += ["pandas", "papermill", "nbconvert", "jupyter_client", "PIL"]
STATEMENTS = {
    "import": ("import fsslib, fsslib.experiments, fsslib.data, fsslib.labs", ["torch", "numpy", "pydantic", *HEAVY]),
    "experiments": (
        "for words in ((), ('help',), ('--help',), ('status',), ('collect',)): run('fsslib.experiments', *words)",
        ["torch", *HEAVY],
    ),
    "commands": ("run('fsslib', '--help')", ["torch", "numpy", "pydantic", *HEAVY]),
    "labs": ("run('fsslib.labs', '--help')", ["torch", "numpy", *HEAVY]),
    "data": ("run('fsslib.data', '--help')", ["torch", "numpy", *HEAVY]),
}
SCRIPT = """
import contextlib, runpy, sys
def run(package, *arguments):
    sys.argv = [package, *arguments]
    with contextlib.suppress(SystemExit):
        runpy.run_module(package, run_name="__main__", alter_sys=True)
{statement}
print("imported:", *[name for name in {unwanted!r} if name in sys.modules])
"""


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A working folder with one finished run in `runs`."""
    folder = tmp_path_factory.mktemp("work")
    run = folder / "runs" / "one"
    run.mkdir(parents=True)
    (run / "report.ipynb").write_text("{}")
    result = {"scores": {"1": {"miou": 50.0}}, "protocol": {}, "versions": {}, "seed": 0, "list_hash": "0"}
    (run / "result.json").write_text(json.dumps({**result, "duration_s": 1.0, "parameters": {"fold": 1}}))
    return folder


@pytest.mark.parametrize("name", STATEMENTS)
def test_imports_no_more_than_it_needs(name, finished_run):
    statement, unwanted = STATEMENTS[name]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = SCRIPT.format(statement=statement, unwanted=unwanted)
    done = subprocess.run([sys.executable, "-c", script], cwd=finished_run, env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["imported:"], done.stdout + done.stderr
    if name == "experiments":
        assert "50" in done.stdout


def test_public_names_are_listed_and_taken():
    taken = {}
    exec("from fsslib import *", taken)
    assert set(fsslib.__all__) == taken.keys() - {"__builtins__"}
    assert {*fsslib.__all__, "models", "files", "__version__"} <= set(dir(fsslib))
    assert fsslib.models.build_model is fsslib.build_model
    for package in (fsslib.experiments, fsslib.data, fsslib.widgets):
        assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'evaluat'"):
        _ = fsslib.evaluat
    with pytest.raises(ImportError, match="cannot import name 'evaluat'"):
        exec("from fsslib import evaluat")


def test_make_and_the_commands_without_it_are_the_same():
    """Every target that does something is a command, every command's file is there, and its status comes back."""
    from fsslib.__main__ import COMMANDS, main

    targets = dict(re.findall(r"^(\w+):[^\n]*##[^\n]*\n\t@\$\(BIN\)/python -m fsslib (\w+)", MAKEFILE, re.M))
    assert targets == {name: name for name in COMMANDS}
    for _, calls in COMMANDS.values():
        for call in calls:
            assert call[1] == "-m" or (ROOT / call[1]).is_file()
    first = COMMANDS["lab"][1][0][-1].partition("/lab/tree/")[2]  # under JupyterLab's root, which is the repository
    assert first.startswith("notebooks/00_") and (ROOT / first).is_file()
    assert main(["notebooks", "--no-such-option"]) == 2


@pytest.mark.parametrize("copy, modules, said", [
    ("fsslib data", True, "tests is not in this copy: `test` needs the whole repository."),
    ("fsslib tests", False, '`test` needs pip install -e ".[test]"'), ("fsslib tests", True, ""),
])  # fmt: skip
def test_a_command_says_what_it_lacks(tmp_path, monkeypatch, capsys, copy, modules, said):
    from fsslib import __main__ as command

    ran = []
    for name in copy.split():
        (tmp_path / name).mkdir()
    monkeypatch.setattr(command, "repository_folder", lambda: tmp_path)
    monkeypatch.setattr(command, "find_spec", lambda name: modules or None)
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(command.subprocess, "run", lambda words, cwd: ran.append(words) or done)
    assert command.main(["test", "--help"]) == (2 if said else 0)
    assert said in capsys.readouterr().err and bool(ran) != bool(said)
    assert said or [words[-1] for words in ran] == [".", ".", "--help"], "options are the command's own"


def test_every_system_can_check_the_repository_out():
    """No name that Windows refuses, none that differs from another in case alone, no symbolic link."""
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    if not listed:
        pytest.skip("not a git checkout")
    names = [line.split("\t", 1)[1] for line in listed]
    parts = {part for name in names for part in name.split("/")}
    reserved = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
    assert not [p for p in parts if re.search(r'[<>:"\\|?*]|[. ]$', p) or p.split(".")[0].lower() in reserved]
    assert len({name.casefold() for name in names}) == len(names)
    assert not [line for line in listed if line.startswith("120000")]
    assert max(map(len, names)) < 120  # 260 characters with the folder of a clone
