"""Learning on several processes of this machine, seen from the one that started them."""

import json
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from typing import IO, Any, Final

from trainer import errors
from trainer.errors import TrainingFailed, TrainingRefused, WorkerDied
from trainer.learning.job import Job, Learned
from trainer.learning.worker import Task
from trainer.recipes.methods import MethodName

_TASK: Final = "task.json"
_LAST_WORDS: Final = 60
"""Lines of standard error that are remembered."""
_EXCEPTION: Final = re.compile(
    r"(\[rank\d+\]: )?(?!torch\.distributed\.elastic)[A-Za-z_.]*(Error|Exception)\b"
)
"""The last line of a traceback, unless it is torchrun's own."""


def learn_together(method: MethodName, job: Job[Any, Any]) -> Learned:
    """What ``LEARN[method]`` does, by ``job.scale.processes`` processes under torchrun.

    Raises what a worker raised, and WorkerDied when one is gone without a word.
    """
    job.scratch.mkdir(parents=True, exist_ok=True)
    task = job.scratch / _TASK
    task.write_bytes(Task.of(method, job).model_dump_json().encode())
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=0",
        f"--nproc-per-node={job.scale.processes}", "--module", "trainer.learning.worker", str(task),
    ]  # fmt: skip
    with subprocess.Popen(
        torchrun, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        words: deque[str] = deque(maxlen=_LAST_WORDS)
        listener = threading.Thread(target=_remember, args=(started.stderr, words), daemon=True)
        listener.start()
        try:
            heard = _listen(started.stdout, job)
        except BaseException:
            started.terminate()  # torchrun ends its workers first
            raise
        listener.join()
    if "failed" in heard:
        raise _error(heard["failed"])
    if "proof" not in heard:  # with it all is saved, however the processes ended after that
        raise WorkerDied(_fate(words, job.scale.processes))
    return Learned(job.out, heard["proof"])


def _listen(stream: IO[str], job: Job[Any, Any]) -> dict[str, Any]:
    """Pass on what the workers tell until all have ended; the proof, or the first failure."""
    heard: dict[str, Any] = {}
    for line in stream:
        told: Mapping[str, Any] = json.loads(line)
        if "step" in told:
            job.on_step(told["step"], told["figures"])
        elif "note" in told:
            job.note(told["note"])
        else:
            for key, value in told.items():
                heard.setdefault(key, value)
    return heard


def _remember(stream: IO[str], words: "deque[str]") -> None:
    words.extend(line.rstrip() for line in stream if line.strip())


def _error(failed: Mapping[str, Any]) -> Exception:
    """The worker's own error; errors without a message of their own making become TrainingFailed."""
    known = (value for value in vars(errors).values() if isinstance(value, type))
    for kind in known:
        if issubclass(kind, TrainingRefused | TrainingFailed) and kind.code == failed["code"]:
            return kind(failed["message"], hint=failed["hint"])
    return TrainingFailed(f"{failed['message']} [{failed['code']}]", hint=failed["hint"])


def _fate(words: "deque[str]", processes: int) -> str:
    """torchrun ends with a table whose "first observed failure" names the worker and how it ended."""
    text = "\n".join(words)
    end = re.search(r"first observed failure\):.*?rank\s*: (\d+).*?exitcode\s*: (-?\d+)", text, re.DOTALL)
    who = "a worker" if end is None else f"worker {int(end[1]) + 1} of {processes}"
    how = "died" if end is None else _how(int(end[2]))
    said = [line for line in words if _EXCEPTION.match(line)]
    return f"{who} {how}" + (f"; last words: {said[-1][:300]}" if said else "")


def _how(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
