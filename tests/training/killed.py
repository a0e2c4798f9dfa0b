"""Runs that are killed at some moment, and resumed: prints what they end with.

`python -m tests.training.killed ALGORITHM FOLDER`. Everything is imported once; each run is a fork.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.training import small_runs
from torch_impl.train import checkpoints, loop, metrics
from torch_impl.train.settings import WarmStart

MOMENTS: list[tuple[Any, str]] = [
    (loop, "_step"),
    (metrics.Log, "write"),
    (checkpoints, "save_file"),
    (checkpoints, "_to_disk"),
    (Path, "rename"),
    (shutil, "rmtree"),
]
"""Before and after each call of these, a run may be killed."""


def killed_at(moment: int) -> Callable[[], None]:
    """What counts moments, and kills this process at one of them."""
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name in MOMENTS:
        setattr(owner, name, _counted(getattr(owner, name), count))
    return lambda: print(seen, flush=True)


def _counted(function: Callable[..., Any], count: Callable[[], None]) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        count()
        found = function(*arguments, **options)
        count()
        return found

    return counted


def run(algorithm: str, out: Path, moment: int) -> None:
    """A run to the end, or to a moment."""
    torch.set_num_threads(1)
    tell = killed_at(moment)
    settings = small_runs.settings(algorithm, out, steps=3)
    if hasattr(settings, "warm_start"):
        settings.warm_start = WarmStart(steps=2, rows=4)
    loop.run(small_runs.begin(algorithm, settings), out, resume=True)
    if moment == 0:
        tell()


def fork(algorithm: str, out: Path, moment: int) -> bool:
    """Whether a run came to its end."""
    child = os.fork()
    if child == 0:
        try:
            run(algorithm, out, moment)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"a run failed that was to be killed at {moment}")
    return os.WIFEXITED(status)


def result(out: Path) -> str:
    """What a run has left, by digest: weights, optimiser and model; and metrics."""
    last = checkpoints.newest(out / "checkpoints")
    assert last is not None
    files = [last / checkpoints.WEIGHTS, last / checkpoints.STATE, *(out / "model").glob("*.safetensors")]
    assert len(files) == 3
    whole = b"".join(path.read_bytes() for path in files)
    lines = metrics.read(out / "metrics.jsonl")
    told = json.dumps([{k: x for k, x in line.items() if k != "seconds"} for line in lines])
    return " ".join([last.name, *(hashlib.sha256(x).hexdigest() for x in (whole, told.encode()))])


def main(algorithm: str, folder: Path, moments: list[int]) -> None:
    """The result of a whole run, then of those that are killed, resumed, killed again and resumed."""
    warnings.simplefilter("ignore")
    small_runs.trainer(algorithm, folder)  # imports what each run would import anew
    metrics.Log(folder / "log").close()
    assert fork(algorithm, folder / "whole", 0)
    print(result(folder / "whole"), flush=True)
    for moment in moments:
        out = folder / str(moment)
        assert not fork(algorithm, out, moment), f"not killed at {moment}"
        fork(algorithm, out, moment)
        assert fork(algorithm, out, 10**6)
        print(result(out), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [int(x) for x in sys.argv[3:]])
