"""Stands for Slurm on this machine: under the names sbatch, squeue, sacct, scancel, scontrol and srun it does what
submitit and dask-jobqueue ask of them. Everything lies in the folder FAKE_SLURM; `clock(...)` of it is a file:

<job>.state   what sacct says      <job>.cancel, <job>.requeue   asked for by scancel and scontrol
<job>.pid     its process          <job>.overdue                 its time is nearly over (instead of waiting for it)
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "srun")
PLACE = Path(os.environ.get("FAKE_SLURM", "."))


def install(folder: Path) -> dict[str, str]:
    """Make the commands in a new folder; returns the environment in which they are found."""
    folder.mkdir()
    for name in COMMANDS:
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{os.path.abspath(__file__)}" {name} "$@"\n')
        command.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "FAKE_SLURM": str(folder)}


def sbatch(script: str) -> None:
    text = Path(script).read_text()
    number = next(n for n in range(100, 10_000) if _new(n))
    copy = PLACE / f"{number}.sh"
    copy.write_text(text)
    array = re.search(r"--array=0-(\d+)%(\d+)", text)
    names = [f"{number}_{k}" for k in range(int(array[1]) + 1)] if array else [str(number)]
    for name in names:
        (PLACE / f"{name}.state").write_text("PENDING")
    command = [sys.executable, "-S", __file__, "supervise", str(copy), array[2] if array else "1", *names]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen(command, start_new_session=True, **quiet)
    print(f"Submitted batch job {number}")


def _new(number: int) -> bool:
    try:
        (PLACE / f"{number}.job").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def supervise(script: str, parallel: str, *names: str) -> None:
    """Run the tasks of a job, some at a time, each again as long as it asks for that."""
    free = threading.Semaphore(int(parallel))

    def task(name: str) -> None:
        with free:
            while _once(script, name):
                pass

    threads = [threading.Thread(target=task, args=(name,)) for name in names]
    for thread in threads:
        thread.start()


def _once(script: str, name: str) -> bool:
    main, _, index = name.partition("_")
    known = {"SLURM_JOB_ID": name if not index else f"{int(main) * 1000 + int(index)}", "FAKE_NAME": name}
    if index:
        known |= {"SLURM_ARRAY_JOB_ID": main, "SLURM_ARRAY_TASK_ID": index}
    state, cancel, requeue, overdue = (PLACE / f"{name}.{end}" for end in ("state", "cancel", "requeue", "overdue"))
    if cancel.exists():
        state.write_text("CANCELLED")
        return False
    with open(PLACE / f"{name}.log", "a") as log:
        how = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
        job = subprocess.Popen(["bash", script], env={**os.environ, **known}, **how)
    state.write_text("RUNNING")
    while job.poll() is None:
        time.sleep(0.05)
        if cancel.exists():
            os.killpg(job.pid, signal.SIGKILL)
        elif overdue.exists():
            overdue.unlink()
            os.kill(int((PLACE / f"{name}.pid").read_text()), signal.SIGUSR2)
    again = requeue.exists()
    requeue.unlink(missing_ok=True)
    ended = "CANCELLED" if cancel.exists() else "REQUEUED" if again else "FAILED" if job.returncode else "COMPLETED"
    state.write_text(ended)
    return again


def srun(*words: str) -> None:
    """Becomes the command, after options of which all but --unbuffered have a value."""
    words, files = list(words), {}
    while words[0].startswith("-"):
        option = words.pop(0)
        if option != "--unbuffered":
            files[option] = words.pop(0)
    name = os.environ["FAKE_NAME"]
    marks = {"%A_%a": name, "%j": name, "%t": "0"}
    for option, number in (("--output", 1), ("--error", 2)):
        path = re.sub("|".join(marks), lambda found: marks[found[0]], files[option])
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    (PLACE / f"{name}.pid").write_text(str(os.getpid()))
    os.execvp(words[0], words)


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for state in sorted(PLACE.glob("*.state")):
        print(f"{state.stem}|{state.read_text()}|here")


def scancel(*names: str) -> None:
    for name in names:
        for state in [*PLACE.glob(f"{name}.state"), *PLACE.glob(f"{name}_*.state")]:
            state.with_suffix(".cancel").touch()


def scontrol(requeue: str, name: str) -> None:
    (PLACE / f"{name}.{requeue}").touch()


squeue = sacct

if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
