"""A run has one holder at a time, on whatever machine and file system; one that slept changes nothing any more."""

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from fsslib import files
from fsslib.errors import FsslibError, OutputError
from fsslib.experiments import run, runs, status

if sys.platform != "win32":
    import fcntl
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, and stops processes by signals")

BOOK = '# %% tags=["parameters"]\nseed = 0\n# %%\nprint(seed)\n'


@pytest.fixture
def book(tmp_path):
    (tmp_path / "trial.py").write_text(BOOK)
    return tmp_path / "trial.py"


def written(word):
    """Stands for `runs.execute`: a report that says `word`, and a state of training as a killed one leaves."""

    def execute(source, part, *_):
        (part / "report.ipynb").write_text(word)

    return execute


def forked(work):
    """The process number of a fork that does `work` and ends with 0, or with 1 for an FsslibError."""
    child = os.fork()
    if not child:
        status = 2
        try:
            work()
            status = 0
        except FsslibError as error:
            status = 1
            print(error, file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return child


def test_of_two_that_claim_at_one_moment_one_gets_it(tmp_path):
    """200 times; every other time a claim of a process that was killed lies there."""
    context = multiprocessing.get_context("fork")
    together, got = context.Barrier(2, timeout=300), context.Array("i", 400)

    def killed():
        with files.claim(tmp_path / "x"):
            os._exit(0)

    def rounds(me):
        for number in range(200):
            together.wait()
            if number % 2 and me == 0:
                os.waitpid(forked(killed), 0)
                assert files.lock_of(tmp_path / "x").exists()
            together.wait()
            with contextlib.suppress(BlockingIOError), files.claim(tmp_path / "x"):
                got[2 * number + me] = 1
                together.wait()
                continue
            together.wait()

    other = context.Process(target=rounds, args=(1,), daemon=True)
    other.start()
    rounds(0)
    other.join()
    assert other.exitcode == 0
    holders = [got[at] + got[at + 1] for at in range(0, 400, 2)]
    assert holders == [1] * 200 and not list(tmp_path.iterdir())


def test_a_holder_elsewhere_is_followed_when_nothing_moves(tmp_path, monkeypatch):
    """Its process cannot be looked for here: only the time of its last sign of life counts."""
    monkeypatch.setattr(files, "LEASE", 0.5)
    place, lock = tmp_path / "x", files.lock_of(tmp_path / "x")
    with files.claim(place):
        text, host = lock.read_text(), files._lease(place).owner.hostname
    monkeypatch.setattr(files, "LEASE", 100)  # alive
    lock.write_text(text.replace(host, "elsewhere").replace("0.5", "100"))
    assert files.holder(place) == f"process {os.getpid()} on elsewhere"
    with pytest.raises(BlockingIOError), files.claim(place):
        pass
    monkeypatch.setattr(files, "LEASE", 0.5)
    lock.write_text(text.replace(host, "elsewhere"))
    os.utime(lock, (1, 1))
    assert files.holder(place) == ""
    with files.claim(place):
        assert files._lease(place).owner.hostname == host
    lock.touch()  # of one that was killed before it had written who it is
    with pytest.raises(BlockingIOError), files.claim(place):
        pass
    os.utime(lock, (1, 1))
    with files.claim(place):
        pass
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("stops_at", ["execute", "_put"])
def test_a_holder_that_slept_writes_nothing_into_the_finished_run(book, tmp_path, monkeypatch, stops_at, force):
    monkeypatch.setattr(files, "LEASE", 0.5)
    how = {"runs": tmp_path / "runs", "notebook": book, "name": "r", "progress": False, "force": force}
    if force:
        monkeypatch.setattr(runs, "execute", written("the first"))
        run({}, **how)

    def sleeper():
        step = getattr(runs, stops_at)

        def stopped(source, part, *rest):
            folder = os.open(source if stops_at == "_put" else part, os.O_RDONLY)
            os.chdir(folder)  # as the process of a notebook
            os.kill(os.getpid(), signal.SIGSTOP)
            with contextlib.suppress(FileNotFoundError):
                Path("late").touch()
            step(source, part, *rest)

        monkeypatch.setattr(runs, "execute", written("the sleeper"))
        step = getattr(runs, stops_at)
        monkeypatch.setattr(runs, stops_at, stopped)
        run({}, **how)

    child = forked(sleeper)
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
    try:
        monkeypatch.setattr(runs, "execute", written("the follower"))
        folder = run({}, **how, wait=600)
        before = {file: (file.read_text(), file.stat().st_mtime_ns) for file in folder.iterdir()}
        assert before[folder / "report.ipynb"][0] == "the follower"
    finally:
        os.kill(child, signal.SIGCONT)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == 1, "it is told that its run was taken over"
    assert {file: (file.read_text(), file.stat().st_mtime_ns) for file in folder.iterdir()} == before
    assert os.listdir(tmp_path / "runs") == ["r"] and status(tmp_path / "runs") == [("r", "done", "")]


def test_file_systems_without_locks(book, tmp_path, monkeypatch):
    """The system's locks are not needed; a disk that refuses even a new file is said."""

    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, refused)
    monkeypatch.setattr(runs, "execute", written("x"))
    how = {"runs": tmp_path / "runs", "notebook": book, "progress": False}
    assert (run({}, **how) / "report.ipynb").read_text() == "x"
    monkeypatch.setattr(filelock.SoftFileLease, "_acquire", refused)
    with pytest.raises(OutputError, match=r"\.trial-.*\.lock cannot be written: No locks available"):
        run({"seed": 1}, **how)


def test_systems_without_fcntl_resource_and_alarms(book, tmp_path):
    """As on Windows; other libraries may have them. What cannot be kept is said once."""
    script = f"""
import builtins, importlib.util, signal, sys, warnings
real = builtins.__import__
def imported(name, scope=None, *rest, **how):
    if name in ("fcntl", "resource") and (scope or {{}}).get("__name__", "").startswith("fsslib"):
        raise ImportError(name)
    return real(name, scope, *rest, **how)
builtins.__import__ = imported
del signal.SIGALRM, signal.setitimer, signal.ITIMER_REAL
import fsslib.data.download, fsslib.experiments, fsslib.labs.collect, fsslib.labs.in_kernel, fsslib.widgets.painter
from fsslib.experiments import run, runs, status, sweep
from fsslib.labs.check import time_limit
from fsslib.labs.kernel import Limits, fresh_kernel
fsslib.labs.in_kernel._limit_memory(1)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("default")
    for _ in range(2):
        with time_limit(1):
            pass
assert [str(w.message) for w in said] == ["This system has no alarms: answers are checked without a limit of time."]
table = sweep({{"seed": [1]}}, runs={str(tmp_path / "runs")!r}, notebook={str(book)!r})
assert set(table.state) == {{"done"}}, table.problem.tolist()
import contextlib, fsslib.labs.kernel
importlib.util.find_spec = lambda name: None
fsslib.labs.kernel.socket_folder = lambda: 1 / 0
with warnings.catch_warnings(record=True) as said, contextlib.suppress(ZeroDivisionError):
    warnings.simplefilter("default")
    fresh_kernel(Limits()).__enter__()
assert any("does not limit the memory" in str(w.message) for w in said)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [row[1] for row in status(tmp_path / "runs")] == ["done"]
