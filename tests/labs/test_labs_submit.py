"""Submissions of all kinds: each ends in a clear message, and the others of the folder are still collected."""

import contextlib
import csv
import json
import pathlib
import re
import threading
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import pytest

from fsslib.labs import __main__ as command
from fsslib.labs import collect, kernel, submit
from fsslib.labs.kernel import Limits, fresh_kernel

IMPORTS = "import os, subprocess\nimport torch\nfrom fsslib.labs import check"
RIGHT = "def temperature(margin, probability):\n    return float(torch.logit(torch.tensor(probability)) / margin)"
WRONG = "def cosine_map(features, prototype):\n    return torch.einsum('chw,c->hw', features, prototype)"
WORDS = (
    'def box_bias():\n    return "'
    + "Noise of scribbles averages out over five shots but the bias of a box is the same in every shot, "
)
WORDS += 'so that the gap of 10 points between box and mask remains with them."'
STUB = "def inside_only(masks):\n    raise NotImplementedError('inside_only: your turn')"
DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
SLEEP = "import time\ntime.sleep(10**6)"
LIMITS = Limits(cell=60, output=2_000_000, memory=5_000_000_000)


def book(*cells, counts=None, **meta):
    return raw_book(IMPORTS, RIGHT, *cells, counts=counts, **meta)


def raw_book(*cells, counts=None, **meta):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    for i, cell in enumerate(notebook.cells):
        cell.execution_count = counts[i] if counts else i + 1
    notebook.metadata["fsslib"] = {"stage": "01_prototypes", **meta}
    return notebook


def stale_claim():
    notebook = book("check(temperature)")
    notebook.cells[1].source = RIGHT.replace("/ margin", "* margin")  # edited after the check had been run
    notebook.cells[2].outputs = [
        nbformat.v4.new_output("execute_result", {"text/plain": "✓ temperature: right."}, execution_count=3)
    ]
    return notebook


# Each runs in a fresh kernel, whatever a reader of its text may think of it.
CLEAN = (
    "torch.zeros?", "files = !ls\ncount = len(files)", "%time total = sum(range(10))", "%%capture kept\nq = count",
    "from math import *", "print(count, total, sqrt(2.0), q, kept.stdout)", "[last := v for v in range(3)]",
    "print(last)",
    "match [1, 2]:\n    case [first, *rest]:\n        pass", "print(first, rest)", "exec('made = 1')", "made",
    "def late():\n    return found\nglobals()['found'] = 2", "late()", "del found", "import builtins\nbuiltins.own = 3",
    "def use():\n    return own\nuse()", "%%writefile other.py\nelse_where = 4", "%run other.py\nelse_where",
    "else_where",
    "if False:\n    ghost", "def uncalled():\n    return ghost",
    "try:\n    ghost\nexcept NameError:\n    pass", "async def f(x: 'Ghost'):\n    return x",
    "await f(1)", "def setting():\n    global setup\n    setup = 5\nsetting()", "setup", "%matplotlib inline",
    "del builtins.own",
)  # fmt: skip
# What ends a kernel -> the number of its cell; some act when another cell runs.
LEAVING = {
    "exit()": 3, "quit": 4, "import signal, threading\nlate = threading.Timer(0, os._exit, (3,))\nlate.start()": 5,
    "late.join()": 0, "import asyncio\n_ = asyncio.get_event_loop().call_soon(exit)": 7, "await asyncio.sleep(0.01)": 0,
    "os._exit(1)": 9, "os.kill(os.getpid(), 9)": 10, "os.abort()": 11, "signal.raise_signal(signal.SIGTERM)": 12,
    "signal.signal(signal.SIGALRM, lambda *_: 1 / 0)\nsignal.alarm(9)": 0, "assert not signal.alarm(0)": 0,
    "get_ipython().ask_exit()": 15, "os.kill(os.getpid(), 0)\nsubprocess.run('true', check=True)": 0,
    "child = os.fork()\nif not child:\n    os._exit(7)\nassert os.waitpid(child, 0)[1] >> 8 == 7": 0,
    "loud = threading.Thread(target=lambda: [print('x' * 10**6) for _ in range(9)])\nloud.start()": 18,
    "loud.join()": 0,
    "def cosine_map(features, prototype):\n    os._exit(2)": 20,
}  # fmt: skip
BOOKS = {
    "ann/work.ipynb": book(
        "check(temperature)", WRONG, "check(cosine_map)", WORDS, STUB, "inside_only(torch.zeros(1, 4, 4))",
    ),
    "out_of_order.ipynb": book("y = x + 1", "x = 3", "z = y", counts=[1, 2, 4, 3, 5]),
    "deleted.ipynb": book("print(few + 1)", names={"few": "few = sampler.build(...)"}),
    "noisy.ipynb": book(
        "while True: pass", "for _ in range(2000): print('x' * 10**6)", "print('x' * 2 * 10**7)",
        "subprocess.run('yes | head -c 2000000000', shell=True)", "kept = bytearray(10**10)", WRONG,
    ),
    "deaf.ipynb": raw_book(SLEEP, DEAF, WRONG), "left.ipynb": book("os._exit(3)", WRONG),
    "renamed.ipynb": book(WRONG.replace("cosine_map", "cosine_maps_of_mine")), "stale.ipynb": stale_claim(),
    "clean.ipynb": book(*CLEAN), "leaving.ipynb": book(*LEAVING),
}  # fmt: skip


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """The folder of a class, collected once with two notebooks at a time."""
    folder = tmp_path_factory.mktemp("room")
    for name, notebook in BOOKS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        nbformat.write(notebook, folder / name)
    (folder / "cut_short.ipynb").write_text('{"cells": [')
    (folder / "no_notebook.ipynb").write_text('{"cells": [{"cell_type": "code", "source": 3}], "nbformat": 4}')
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")]), folder / "other.ipynb")
    (folder / "forged.result.json").write_text(json.dumps({"format": 1, "sha256": "0", "exercises": []}))
    return folder


@pytest.fixture(scope="module")
def shared_kernel():
    """In place of `fresh_kernel`: one kernel for all notebooks that it survives, each without the names of the others;
    loading the checks takes seconds."""
    at_work = threading.Lock()
    with fresh_kernel(LIMITS) as started:

        @contextlib.contextmanager
        def opened(limits):
            with at_work:
                again = kernel.Kernel(started.manager, started.client, limits)
                again.ask(kernel.SETUP.format(memory=limits.memory, output=limits.output), 300)
                assert again.run("%reset -f").status == "ok"
                yield again

        yield opened


@pytest.fixture(scope="module")
def rows(room, shared_kernel):
    """Collected with two notebooks at a time. What a kernel does not survive gets its own, without the checks."""
    run, limits_of = collect._run, {"noisy": replace(LIMITS, cell=4)}
    limits_of |= {"deaf": replace(LIMITS, cell=1, wait=3), "left": replace(LIMITS, wait=4)}
    bare = [3, 4]

    def opened(limits):
        if limits.wait not in bare:
            return shared_kernel(limits)
        bare.remove(limits.wait)  # the second run of what has ended its kernel
        return fresh_kernel(limits, setup="None")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submit, "fresh_kernel", opened)
        patch.setattr(kernel, "OBEY", 1.0)
        patch.setattr(collect, "_run", lambda book, limits: run(book, limits_of.get(book.stem, limits)))
        collected = collect.collect(room, room, LIMITS, jobs=2)
    return {row["file"]: row for row in collected}


def test_everybody_is_collected(rows, room):
    assert len(rows) == len(BOOKS) + 4 and rows["ann/work.ipynb"]["who"] == "ann"
    for name in ("cut_short.ipynb", "no_notebook.ipynb"):
        assert rows[name]["result"] is None and "not a notebook" in rows[name]["note"]
    assert "contains no exercise of this course" in rows["other.ipynb"]["note"]
    assert "changed after it was written" in rows["forged.result.json"]["note"]
    assert str(room) not in json.dumps(list(rows.values())), "no paths of the machine"


# File -> the problems that are told of its cells, and some of the verdicts on its exercises.
FOUND = {
    "ann/work.ipynb": ({}, {
        "temperature": "right", "cosine_map": "wrong", "inside_only": "unsolved", "box_bias": "recorded",
        "prototype": "missing",
    }),
    "out_of_order.ipynb": ({0: "order", 3: "hidden state", 5: "error"}, {"temperature": "right"}),
    "deleted.ipynb": ({3: "hidden state"}, {"temperature": "right"}),
    # A loop without an end, 2 GB in many prints, much in one, 2 GB from another program, and all of the memory. On a
    # busy machine the pipe of the other program may cost the cell's processor time before they are counted.
    "noisy.ipynb": ({3: "slow", 4: "loud", 5: "loud", 6: "loud|slow", 7: "memory"},
                    {"temperature": "right", "cosine_map": "wrong"}),
    # The kernel has to end: it is checked in a second one, where nobody imports torch.
    "deaf.ipynb": ({1: "slow", 2: "slow", 3: "hidden state"}, {"cosine_map": "stopped"}),
    "left.ipynb": ({3: "dead"}, {"temperature": "right", "cosine_map": "wrong"}),
    "clean.ipynb": ({}, {"temperature": "right"}),
    # Told of its own cell, also where it acts later.
    "leaving.ipynb": (dict.fromkeys(filter(None, LEAVING.values()), "left") | {18: "loud"}, {"temperature": "right"}),
}  # fmt: skip


@pytest.mark.parametrize("file", FOUND)
def test_cells_are_told_apart_and_the_rest_is_checked(rows, file):
    cells, verdicts = FOUND[file]
    told = {c["cell"]: c["problem"] for c in rows[file]["result"]["cells"]}
    assert list(told) == list(cells) and len(told) == len(rows[file]["result"]["cells"]), rows[file]["result"]["cells"]
    assert all(re.fullmatch(cells[n], problem) for n, problem in told.items()), rows[file]["result"]["cells"]
    assert {x["name"]: x["status"] for x in rows[file]["result"]["exercises"]}.items() >= verdicts.items()


@pytest.mark.parametrize("file, place, words", [
    ("out_of_order.ipynb", "hidden state", "only further down, in cell 4"),
    ("out_of_order.ipynb", "error", "Cell 3 would have defined it"),
    ("out_of_order.ipynb", "order", "not run from top to bottom"),
    ("deleted.ipynb", "hidden state", "gone from the notebook: `few = sampler.build(...)`"),
    ("stale.ipynb", "hidden state", '"✓ temperature: right", the fresh run "✗ temperature'),
    ("noisy.ipynb", 3, "it used 4 s of processor time"),
    ("deaf.ipynb", 1, "waited 3 seconds"), ("deaf.ipynb", 2, "used 1 s of processor time"),
])  # fmt: skip
def test_messages_about_cells(rows, file, place, words):
    """By the number of a cell, or by its problem. What only waits is told so, not that it loops."""
    assert words in " | ".join(
        c["message"] for c in rows[file]["result"]["cells"] if place in (c["cell"], c["problem"])
    )


@pytest.mark.parametrize("file, exercise, key, words", [
    ("ann/work.ipynb", "cosine_map", "slip", "unnormalised"), ("ann/work.ipynb", "box_bias", "answer", "averages out"),
    ("renamed.ipynb", "cosine_map", "slip", "renamed"), ("leaving.ipynb", "cosine_map", "message", "os._exit ends"),
    ("renamed.ipynb", "cosine_map", "message", "`cosine_maps_of_mine`"),
])  # fmt: skip
def test_what_is_said_of_exercises(rows, file, exercise, key, words):
    (row,) = (x for x in rows[file]["result"]["exercises"] if x["name"] == exercise)
    assert words in row[key]


class Ending:
    """A kernel that ends with a cell, or after it, whenever a text is run that says so."""

    def __init__(self):
        self.alive = True

    def run(self, source):
        if not self.alive:
            return kernel.Outcome("skipped", gone=True)
        self.alive = not source.startswith("end")
        return kernel.Outcome("dead", gone=True) if source == "end" else kernel.Outcome("ok")

    def ask(self, expression, seconds):
        return repr(json.dumps([])) if self.alive else None


@pytest.mark.parametrize("sources, problems, checked", [
    (["a", "end", "b"], {2: "dead"}, True), (["a", "end later", "b"], {2: "dead"}, True),
    (["end later", "b"], {1: "dead"}, True),
    (["a", "end", "b", "end", "c"], {2: "dead", 4: "dead", 5: "skipped"}, False),
])  # fmt: skip
def test_the_others_run_in_a_second_kernel(monkeypatch, sources, problems, checked):
    monkeypatch.setattr(submit, "fresh_kernel", lambda limits: contextlib.nullcontext(Ending()))
    outcomes, rows = submit._run(sources, "01_prototypes", LIMITS, lambda texts, unit: texts)
    told = submit._reports(sources, outcomes, [], [[] for _ in sources])
    assert {row["cell"]: row["problem"] for row in told} == problems and (rows is not None) == checked
    assert checked or "ended in cell 4" in submit._unchecked("01_prototypes", outcomes)[0]["message"]


@pytest.fixture
def clock(monkeypatch):
    """Seconds of the clock (`now`) and of a kernel's processor (`used`), as a machine may be slow."""
    times = SimpleNamespace(now=0.0, used=0.0)
    monkeypatch.setattr("time.monotonic", lambda: times.now)
    monkeypatch.setattr(kernel, "processor_seconds", lambda pid: times.used)
    return times


@pytest.mark.parametrize("seconds, share, words", [
    (20 * 170, 1 / 20, ""), (200, 1, "used 180 s of processor time"), (700, 0.01, "waited 10 minutes"),
])  # fmt: skip
def test_only_processor_time_makes_a_loop(clock, seconds, share, words):
    """A cell of 170 s on a machine that is 20 times too busy ends well; sleep in small pieces does not go on."""
    meter, told = kernel._meter(0, LIMITS.cell * 3, LIMITS.wait), ""
    for _ in range(seconds):
        clock.now, clock.used = clock.now + 1, clock.used + share
        told = told or meter.exceeded()
    assert words in told and bool(words) == bool(told)
    meter = kernel._meter(0, LIMITS.cell, LIMITS.wait)
    clock.now += 3600
    assert not meter.exceeded(), "the laptop was closed"


@pytest.mark.parametrize("words, problems", [("it used", "slow slow skipped"), ("it waited", "slow slow slow skipped")])
def test_the_time_of_all_cells(clock, monkeypatch, words, problems):
    """When it is used up, and after the third cell that waited, the others are skipped."""
    alive = SimpleNamespace(provisioner=SimpleNamespace(pid=0), is_alive=lambda: True, execute=lambda *_, **__: "")
    started = kernel.Kernel(alive, alive, Limits(cell=5, total=5 if words == "it used" else 900))

    def listen(request, meter):
        clock.used += 3
        started.waits += "waited" in words
        return kernel.Outcome("slow", message=words)

    monkeypatch.setattr(started, "_listen", listen)
    outcomes = [started.run("1") for _ in problems.split()]
    assert [x.status for x in outcomes] == problems.split() and outcomes[0].message == words
    assert ("all cells together used 5 s" in outcomes[1].message) == (words == "it used")


def test_collected_again(rows, room, monkeypatch):
    """Results are kept: a second call runs nothing, except what has changed meanwhile."""
    ran = []
    monkeypatch.setattr(collect, "_run", lambda book, limits: ran.append(book.name) or rows[_key(room, book)]["result"])
    again = {row["file"]: row for row in collect.collect(room, room, LIMITS)}
    assert again == rows and ran == []
    kept = room / collect.OWN / "noisy.result.json"
    kept.write_text(kept.read_text().replace('"right"', '"wrong"'))
    again = {row["file"]: row for row in collect.collect(room, room, LIMITS)}
    assert ran == ["noisy.ipynb"] and "changed after it was written" in again["noisy.ipynb"]["note"]
    assert collect.read_result(kept) == rows["noisy.ipynb"]["result"]
    collect.collect(room, room, LIMITS, rerun=True)
    assert len(ran) == 1 + len(BOOKS)


def _key(room, book):
    return book.relative_to(room).as_posix()


def test_the_table(rows, room, capsys):
    assert command.main(["collect", str(room)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^ann +✗ +✗ +✓ +… +✎ +✗$", text, re.M), text
    assert re.search(r"^done +0 +0 +\d+ +0 +1 +0$", text, re.M), text
    assert "x cosine_map: unnormalised" in text and "1 x cosine_map: renamed" in text
    table = list(csv.DictReader((room / "class" / "class.csv").open(encoding="utf-8-sig", newline="")))
    assert {(r["who"], r["exercise"], r["slip"]) for r in table} >= {("ann", "cosine_map", "unnormalised")}
    page = (room / "class" / "class.html").read_text()
    assert "averages out" in page and "<script" not in page and "http" not in page


def test_the_student_s_command(tmp_path, capsys, monkeypatch, shared_kernel):
    """One notebook with a name; then the table takes the result as it is, and notices a notebook changed after it."""
    monkeypatch.setattr(submit, "fresh_kernel", shared_kernel)
    file = tmp_path / "mine.ipynb"
    nbformat.write(book("check(temperature)"), file)
    assert command.main(["submit", str(file), "--name", "=Ann"]) == 1, "not all exercises are right"
    assert "✓ temperature" in capsys.readouterr().out
    result = collect.read_result(tmp_path / "mine.result.json")
    assert result["name"] == "=Ann" and result["notebook_sha256"] == submit.read_notebook(file)[1]
    (row,) = collect.collect(tmp_path, tmp_path / "out")
    assert row["who"] == "=Ann" and not (tmp_path / "out").exists(), "nothing was run again"
    canvas = tmp_path / "class" / "canvas"  # its bulk download numbers both files
    canvas.mkdir(parents=True)
    for ending, number in ((".ipynb", 12), (".result.json", 13)):
        copied = file.with_suffix(ending).read_bytes()
        (canvas / f"ann_LATE_4711_{number}_mine{ending}").write_bytes(copied)
    (row,) = collect.collect(canvas, tmp_path / "out")
    assert row["who"] == "=Ann" and not (tmp_path / "out").exists(), "one submission, and nothing was run again"
    from fsslib.labs.class_table import write_table

    assert "'=Ann" in write_table([row], tmp_path)[0].read_text(), "no formula for a spreadsheet"
    monkeypatch.setattr(collect, "_run", lambda book, limits: result | {"name": ""})
    (row,) = collect.collect(tmp_path, tmp_path / "out", rerun=True)
    assert row["who"] == "=Ann", "a run of the instructor's keeps the student's name"
    assert collect.read_result(tmp_path / "out" / "class" / "mine.result.json")["name"] == "=Ann"
    file.unlink()
    (row,) = collect.collect(tmp_path, tmp_path / "out")
    assert "without its notebook" in row["note"] and row["result"] == result


@pytest.mark.parametrize("arguments, said", [
    (["submit", "x.ipynb", "--limit", "nan"], "total=nan"), (["submit", "x.ipynb", "--cell-limit", "0"], "cell=0.0"),
    (["collect", ".", "--limit", "-1"], "total=-1.0"), (["collect", ".", "--jobs", "0"], "jobs=0"),
])  # fmt: skip
def test_limits_that_mean_nothing(arguments, said, capsys):
    assert command.main(arguments) == 2 and said in capsys.readouterr().err


def test_a_cell_that_is_no_python_is_the_cause_of_what_it_would_have_defined():
    sources = ["x = = 1", "x", "y"]
    outcomes = [kernel.Outcome("error", "SyntaxError", "invalid syntax")]
    outcomes += [kernel.Outcome("error", "NameError", f"name '{n}' is not defined") for n in "xy"]
    rows = submit._reports(sources, outcomes, submit.hidden_state(sources, [1, 2, 3], {}, set(), []), [[]] * 3)
    assert [row["problem"] for row in rows] == ["error", "error", "hidden state"]
    assert rows[1]["message"] == "name 'x' is not defined. Cell 1 would have defined it, but it stopped."


@pytest.mark.parametrize("arguments", [["submit", "nowhere.ipynb"], ["collect", "nowhere"]])
def test_what_is_not_there(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 2 and "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["01.ipynb", "notebooks/01", "elsewhere/02.ipynb", "."])
def test_a_notebook_beside_the_one_that_was_named(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name in ("notebooks/01.ipynb", "02.ipynb"):
        (tmp_path / name).write_text("{}")
    meant = pathlib.Path("02.ipynb" if "02" in named else "notebooks/01.ipynb")
    with pytest.raises(submit.SubmissionError, match=f"Is it {re.escape(str(meant))}" if "0" in named else "Name the"):
        submit.read_notebook(named)


@pytest.mark.parametrize("change", [
    lambda b: b.update(nbformat=3), lambda b: b.update(cells=[]), lambda b: b.update(cells={"a": 1}),
    lambda b: b.update(metadata=[1]), lambda b: b["cells"][0].update(source=3),
    lambda b: b["cells"][0].update(source=[1, 2]), lambda b: b["cells"][0].pop("cell_type"),
    lambda b: b["cells"][0].update(outputs=[{"data": {"text/plain": 3}}]), lambda b: b["cells"].append("no cell"),
    lambda b: b["metadata"].update(fsslib={"names": 3}),
])  # fmt: skip
def test_files_that_are_no_notebooks(tmp_path, change):
    made = json.loads(nbformat.writes(book()))
    change(made)
    (tmp_path / "odd.ipynb").write_text(json.dumps(made))
    with pytest.raises(submit.SubmissionError, match="not a notebook"):
        submit.read_notebook(tmp_path / "odd.ipynb")


def test_odd_notebooks_are_read(tmp_path):
    """Counts that are no numbers, metadata of others: what other programs leave behind does not matter."""
    made = json.loads(nbformat.writes(book("1")))
    made["cells"][0]["execution_count"] = "7"
    made["cells"][1]["outputs"] = [{"output_type": "stream", "text": "x"}, {"data": {"text/plain": ["✓ a", ": right"]}}]
    made["metadata"]["fsslib"] = {"stage": ["odd"]}
    (tmp_path / "odd.ipynb").write_text(json.dumps(made))
    read, _ = submit.read_notebook(tmp_path / "odd.ipynb")
    assert [c["execution_count"] for c in read["cells"]] == [None, 2, 3]
    assert read["cells"][1]["said"] == ["", "✓ a: right"] and submit.stage_of(read, tmp_path) == "01_prototypes"


def test_a_kernel_that_does_not_start(tmp_path, monkeypatch):
    nbformat.write(book(), tmp_path / "mine.ipynb")

    def refuse(limits):
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(submit, "fresh_kernel", refuse)
    (row,) = collect.collect(tmp_path, tmp_path)
    assert "mine.ipynb could not be run: RuntimeError: Kernel died" in row["note"]
