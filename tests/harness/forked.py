"""A backend's process as a fork: what this process has imported needs no importing again."""

import io
import os
import signal
import sys
import traceback
import warnings
from typing import IO

from conformance import backend, worker


class Fork:
    """A fork that serves as `conformance.worker` does; what `subprocess.Popen` would be to it."""

    def __init__(self, errors: IO[bytes]) -> None:
        requests, to_fork = os.pipe()
        from_fork, replies = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the threads of the parent only read pipes
            self.pid = os.fork()
        if self.pid == 0:
            os.dup2(requests, 0)
            os.dup2(replies, 1)
            os.dup2(errors.fileno(), 2)
            for end in (requests, to_fork, from_fork, replies):
                os.close(end)  # and no other: objects that came along close theirs themselves, by number
            _serve()
        os.close(requests)
        os.close(replies)
        self.stdin: IO[bytes] = os.fdopen(to_fork, "wb")
        self.stdout: IO[bytes] = os.fdopen(from_fork, "rb")
        self.code: int | None = None

    def kill(self) -> None:
        """End it, whatever it is doing."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait until it ends, and return its exit status, or minus the signal that killed it."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code


def _serve() -> None:
    status = 1
    try:
        sys.stdin, sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, mode)) for n, mode in _STREAMS)
        warnings.resetwarnings()  # pytest's filters are the suite's, not the backend's
        worker.main()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


_STREAMS = ((0, "rb"), (1, "wb"), (2, "wb"))


def fork_workers() -> None:
    """Let the processes of backends be forks of this one from now on."""
    backend.launch = Fork
