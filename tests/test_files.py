"""Files written whole into places of every kind, in any terminal; texts without the paths of this machine."""

import errno
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest

from fsslib import files
from fsslib.errors import FsslibError, OutputError
from fsslib.experiments.notebook import hide_places
from fsslib.files import atomic, clear_abandoned, plain, socket_folder, without_places, write_text
from fsslib.progress import any_terminal

# ---- written whole or not at all ----


def test_what_a_killed_writer_left_goes_after_an_hour(tmp_path):
    for name, age in (("1.png.77.part", 7200), ("1.png.78.part", 10), ("2.txt.79.part", 7200), ("1.png", 7200)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    clear_abandoned(tmp_path, r"\d+\.png")
    clear_abandoned(tmp_path / "none", ".*")
    assert sorted(os.listdir(tmp_path)) == ["1.png", "1.png.78.part", "2.txt.79.part"]


def test_a_failure_leaves_the_file_as_it_was(tmp_path):
    file = write_text(tmp_path / "a.txt", "before")
    with pytest.raises(ZeroDivisionError), atomic(file) as part:
        part.write_text("half")
        1 / 0  # noqa: B018
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("length", [200, 240, 250, 255])
def test_names_as_long_as_a_file_may_have(tmp_path, length):
    for name in ("a" * length, "ü" * (length // 2)):
        assert write_text(tmp_path / name, "text").read_text() == "text"
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(OutputError, match="shorter name"):
        write_text(tmp_path / ("a" * 256), "text")


def test_a_link_is_kept_and_its_file_replaced(tmp_path):
    (tmp_path / "other disk").mkdir()
    (link := tmp_path / "link").symlink_to(tmp_path / "other disk" / "file")
    for text in ("first", "second"):  # the first one makes the file
        write_text(link, text)
        assert link.is_symlink() and link.read_text() == text
    assert [path.name for path in (tmp_path / "other disk").iterdir()] == ["file"]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EBUSY])
def test_what_cannot_be_replaced_is_written_to(tmp_path, monkeypatch, code):
    """A single file mounted into a container, as most bind mounts are."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    file = write_text(tmp_path / "a", "before")
    monkeypatch.setattr(os, "replace", refuse)
    write_text(file, "after")
    assert file.read_text() == "after" and list(tmp_path.iterdir()) == [file]


def test_devices_stay_devices():
    before = os.stat("/dev/null").st_rdev
    write_text("/dev/null", "text")
    assert os.stat("/dev/null").st_rdev == before
    with pytest.raises(OutputError, match="Free space"):
        write_text("/dev/full", "text")


# ---- places that cannot be written ----


@pytest.mark.parametrize(("code", "cure"), [
    (errno.EACCES, "may write to"), (errno.EROFS, "may write to"), (errno.ENOSPC, "Free space"),
    (errno.EDQUOT, "Free space"), (errno.ENOTDIR, "name a folder"), (errno.EIO, "Name a place"),
])  # fmt: skip
def test_what_the_system_says_becomes_one_error(tmp_path, code, cure):
    file = tmp_path / "a.txt"
    with pytest.raises(OutputError, match=rf"{file} cannot be written: .*{cure}") as caught, atomic(file):
        raise OSError(code, os.strerror(code))
    assert caught.value.errno == code and isinstance(caught.value, OSError) and not list(tmp_path.iterdir())


OUTPUTS = ["save_model", "drawing", "Evaluation.save", "write_result", "write_text", "atomic", "make_folder"]
OUTPUTS += ["features", "figure", "collect --csv", "page", "training"]


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_says_that_it_cannot_be_written(output, tmp_path, monkeypatch, capsys):
    import test_paths

    assert sorted(OUTPUTS) == sorted(test_paths.WRITE), "a new output: name it here, too"
    (tmp_path / "n.ipynb").write_text(json.dumps(test_paths.BOOK))
    (tmp_path / "runs" / "one").mkdir(parents=True)
    monkeypatch.setattr(test_paths, "OWN", [tmp_path / "own"])
    (blocked := tmp_path / "file").write_text("")
    name, write = test_paths.WRITE[output]
    try:
        assert write(blocked / name) == 2, "the command line says so by its status"
        said = capsys.readouterr().err
    except FsslibError as error:
        said = str(error)
    assert "file" in said and "Traceback" not in said
    assert blocked.read_text() == "" and not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize("command", [
    ["run", "-p", "episodes=2", "--runs"], ["sweep", "-f", "grid.json", "--runs"], ["reports", "--runs"],
])  # fmt: skip
def test_runs_that_have_no_place_are_said_in_a_sentence(command, tmp_path, monkeypatch, capsys):
    from fsslib.experiments.__main__ import main

    monkeypatch.chdir(tmp_path)
    Path("grid.json").write_text('{"seed": [1]}')
    Path("file").write_text("")
    assert main([*command, "file"]) in (1, 2)
    assert "cannot be written: " in capsys.readouterr().err


# ---- what a reader gets back ----


def test_plain_is_what_json_gives_back():
    given = {"a": np.float32(0.5), 1: (np.int64(3), Path("x/y"), np.bool_(True)), "n": None, "t": np.str_("ü")}
    given |= {"e": np.arange(2.0), "m": {"deep": [True, 2, "z"]}, 2.5: np.array(1)}
    made = plain(given)
    assert json.loads(json.dumps(made)) == made
    assert made == {
        "a": 0.5, "1": [3, "x/y", True], "n": None, "t": "ü", "e": [0.0, 1.0], "m": {"deep": [True, 2, "z"]}, "2.5": 1,
    }  # fmt: skip
    for value, words in (
        ({"a": {"b": float("nan")}}, "value.a.b is nan"), ([np.float32("inf")], r"value\[0\] is inf"),
        ({1: 0, "1": 0}, "two keys"), ({"a": {1, 2}}, "value.a is of type set"), ({(1, 2): 0}, "."),
        ({"d": __import__("datetime").date(2020, 1, 1)}, "value.d is of type date"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=words):
            plain(value)


# ---- sockets ----


def test_sockets_have_a_short_place(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with socket_folder() as folder:
        assert len(os.fsencode(folder)) + len("/socket-12345") < 100 and folder.is_dir()
    assert not folder.exists() and not list(long.iterdir())
    monkeypatch.setattr(files, "_holds_sockets", lambda place: False)
    with pytest.raises(FsslibError, match="set TMPDIR"), socket_folder():
        pass


WORKERS = """
import fsslib
from fsslib.evaluation import evaluate
data = fsslib.load_dataset("shapes", size=33, pool=20)
model = fsslib.build_model("panet", backbone="tiny")
evaluate(model, data, fsslib.Protocol(input_size=33, episodes=2), workers=1, progress=False)
print("done")
"""


def test_loader_processes_under_a_long_tmpdir(tmp_path):
    (long := tmp_path / ("x" * 100)).mkdir()
    (script := tmp_path / "script.py").write_text(WORKERS)
    environment = {**os.environ, "TMPDIR": str(long)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr[-500:]


# ---- terminals ----

MARKS = "ü … 5 ± 2 → ✓ ✗ “x” 漢 \udce4"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8", "koi8-r"])
def test_any_terminal_takes_every_mark(encoding, monkeypatch):
    stream = io.TextIOWrapper(raw := io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    any_terminal()
    print(MARKS, flush=True)
    said = raw.getvalue().decode(encoding)
    assert said.endswith("\n") and "x" in said
    if encoding == "ascii":
        assert said == 'u ... 5 +/- 2 -> + x "x" ? ?\n'
    if encoding == "utf-8":
        assert said == MARKS.replace("\udce4", "?") + "\n"


def test_no_terminal_at_all(monkeypatch):
    for stream in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        any_terminal()
        print(MARKS[:-1])


COMMANDS = [["fsslib.experiments", "help"], ["fsslib.experiments", "--help"], ["fsslib.experiments", "status"],
            ["fsslib.experiments", "collect"], ["fsslib.data", "--help"], ["fsslib.data", "check", "größe"],
            ["fsslib.labs", "--help"], ["fsslib.labs", "collect", "größe"]]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_in_a_terminal_of_ascii(command, tmp_path, monkeypatch):
    """In this process: every command line begins with `any_terminal`."""
    from importlib import import_module

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "größe").mkdir(parents=True)
    (tmp_path / "runs" / "größe" / "report.ipynb").write_text("{}")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    try:
        status = import_module(f"{command[0]}.__main__").main(command[1:])
    except SystemExit as error:
        status = error.code
    said = raw.getvalue().decode("ascii")
    assert status in (0, 1, 2) and said and "Traceback" not in said


# ---- paths of this machine ----

HOME, CLONE = "/home/ann", "/srv/ann/clone"
PLACES = {HOME: "~", CLONE: "", f"{HOME}/runs/a.part": "."}


@pytest.mark.parametrize(("text", "shown"), [
    ("in /home/ann/data/x.png", "in ~/data/x.png"), ("/home/ann", "~"), ("/home/ann.", "~."), ("'/home/ann/'", "'~/'"),
    ("/srv/ann/clone/fsslib/ops.py:3", "fsslib/ops.py:3"), ("cd /srv/ann/clone", "cd ."),
    ("/home/ann/runs/a.part/m.npz", "./m.npz"), ("a:/home/ann/x:/home/ann/y", "a:~/x:~/y"),
    ("\x1b[32m/home/ann/x.py\x1b[39m", "\x1b[32m~/x.py\x1b[39m"), ("file:///home/ann/x", "file://~/x"),
    ("/home/anna/x", "/home/anna/x"), ("/home/ann-b/x", "/home/ann-b/x"), ("/home/ann.old/x", "/home/ann.old/x"),
    ("/mnt/home/ann/x", "/mnt/home/ann/x"), ("https://example.org/home/ann/x", "https://example.org/home/ann/x"),
    ("iVBOR/home/ann/AAA", "iVBOR/home/ann/AAA"), ("7 // 2", "7 // 2"),
])  # fmt: skip
def test_whole_components_of_a_text(text, shown):
    assert without_places(text, PLACES) == shown


def test_short_folders_are_left_alone():
    for home in ("/", "/a", "/me", ""):
        assert without_places("7 // 2, /a/b /me/x https://example.org//x", {home: "~"}) == (
            "7 // 2, /a/b /me/x https://example.org//x"
        )


def test_html_keeps_its_links_and_pictures():
    html = '<a href="/home/ann/x">/home/ann/x</a><img src="data:image/png;base64,/home/ann/AA">'
    assert without_places(html, PLACES, "text/html") == html.replace(">/home/ann/x<", ">~/x<")


def test_a_report_is_changed_in_its_texts_alone():
    path, output = "/home/ann/x", nbformat.v4.new_output
    picture = {
        "image/png": path,
        "text/plain": path,
        "text/html": f"<a href='{path}'>{path}</a>",
        "application/json": path,
    }
    outputs = [output("stream", text=path), output("display_data", data=picture)]
    outputs += [output("error", ename="E", evalue=path, traceback=[path])]
    injected = nbformat.v4.new_code_cell(f"root = '{path}'", metadata={"tags": ["injected-parameters"]})
    cells = [nbformat.v4.new_markdown_cell(path), nbformat.v4.new_code_cell(path, outputs=outputs), injected]
    book = nbformat.v4.new_notebook(cells=cells, metadata={"papermill": {"parameters": {"root": path, "n": 1}}})
    hide_places(book, PLACES)
    nbformat.validate(book)
    assert [cell.source for cell in book.cells] == [path, path, "root = '~/x'"]
    text, shown, error = book.cells[1].outputs
    assert text.text == error.evalue == error.traceback[0] == shown.data["text/plain"] == "~/x"
    assert shown.data["image/png"] == shown.data["application/json"] == path
    assert shown.data["text/html"] == f"<a href='{path}'>~/x</a>"
    assert book.metadata.papermill.parameters == {"root": "~/x", "n": 1}
