"""The backend as the tests see it: calls cross to a process of its own and come back checked.

A call that hangs or kills that process ends the operation, not the run: the operation is out of service
from then on, and the next call gets a new process.
"""

import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from conformance.limits import unknown_value, without_place
from conformance.loading import registered_names
from conformance.operations import OPERATIONS
from conformance.protocol import REQUIRED
from conformance.reproduction import Source
from conformance.worker import OWN_INPUT, RESULT_BEFORE

ROOT = Path(__file__).parent.parent
LOADING_LIMIT_FACTOR = 5
"""Importing a library may take longer than a call: so many times the limit of a call."""


class Unusable(Exception):
    """The backend as a whole cannot be tested: it does not load, or offers nothing."""


class Limited(Exception):
    """The backend says that it cannot serve this call (NotImplementedError)."""


class BadCall(Exception):
    """The call raised, or its result is not what the protocol asks for."""

    clause = ""
    """The clause that this breaks whatever was asked for; empty where nothing came back."""


class BadResult(BadCall):
    """The result has another type, shape, dtype or device than the protocol asks for."""

    clause = "contract.shapes"


class OutOfService(BaseException):
    """The operation hung or killed its process; no BaseException is shrunk by Hypothesis."""

    def __init__(self, fate: str, call: str) -> None:
        super().__init__(f"{fate}, {call}")
        self.fate = fate
        """What became of it."""
        self.call = call
        """What it was called with."""


@dataclass
class Output:
    """The result of one call, as float64, with what else was seen of it."""

    values: np.ndarray
    dtype: str
    changed: list[str] = field(default_factory=list)
    """What the call changed, in words: its own input, or a result or gradient of a call before."""


@dataclass
class Slopes:
    """The gradients of one call, by argument, with what else was seen of it."""

    gradients: dict[str, np.ndarray]
    result: np.ndarray | None = None
    """What the call returned on the way, as float64; None where the library does not tell."""
    changed: list[str] = field(default_factory=list)
    """What the call or its backward pass changed, in words."""


def own_inputs(changed: list[str]) -> tuple[str, ...]:
    """The arguments that a call changed, of what it changed in words."""
    found = [text.removeprefix(OWN_INPUT).split(", ") for text in changed if text.startswith(OWN_INPUT)]
    return tuple(name for names in found for name in names)


def of_before(changed: list[str]) -> bool:
    """Whether the result of a call before is among what it changed."""
    return any(text.startswith(RESULT_BEFORE) for text in changed)


def launch(errors: IO[bytes]) -> Any:
    """Start the process that serves requests, as `conformance.worker` says."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "conformance.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, "PYTHONPATH": path},
    )


class Process:
    """The process that runs the backend: one request at a time, each with a time limit."""

    def __init__(self) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self.popen = launch(self.errors)
        self.replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, method: str, limit: float, **arguments: Any) -> dict[str, Any] | None:
        """Send a request and return the reply, None when the process died; TimeoutError past the limit."""
        assert self.popen.stdin is not None
        try:
            pickle.dump((method, arguments), self.popen.stdin)
            self.popen.stdin.flush()
        except (BrokenPipeError, OSError):
            return None
        try:
            return self.replies.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError from None

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.popen.kill()
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout, self.errors):
            if stream is not None:
                stream.close()

    def epitaph(self) -> str:
        """Say how the process ended, and where, or the end of what it wrote to its standard error."""
        code = self.popen.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self.errors.seek(0)
        written = self.errors.read().decode(errors="replace").strip()
        crash = re.search(r"Current thread .*\n *(.+)", written)  # as Python's fault handler says it
        last = [crash[1]] if crash else written.splitlines()[-3:]
        return f"{how}" + (f"; its last words: {' | '.join(last)}" if last else "")

    def _read(self) -> None:
        assert self.popen.stdout is not None
        while True:
            try:
                self.replies.put(pickle.load(self.popen.stdout))
            except (EOFError, OSError, ValueError, pickle.UnpicklingError):
                self.replies.put(None)
                return


class Backend:
    """A loaded backend: what it provides, and its operations."""

    def __init__(self, what: str, device: str = "cpu", limit: float = 60.0) -> None:
        self.what = what
        self.device = device
        self.limit = limit
        self.out_of_service: dict[str, OutOfService] = {}
        self.process: Process | None = None
        self.name = what
        self.provided: dict[str, list[str] | None] = {}
        self.options: dict[str, dict[str, tuple[Any, ...]]] = {}
        self.notes: list[str] = []
        """What in it looks like a name of the protocol, and is none."""
        self.left_out: dict[str, tuple[str, ...]] = {}
        """Arguments that its functions have no place for, and that calls can leave out."""
        self.source = Source(what, False, "", device)
        self._start()

    def close(self) -> None:
        """End the backend's process."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def limits(self, operation: str) -> dict[str, tuple[Any, ...]]:
        """Tell the values it takes of the options, and arguments, which it cannot vary freely."""
        keywords = self.provided[operation]
        declared = dict(self.options.get(operation, {}))
        for name, default in OPERATIONS[operation].options.items():
            if keywords is not None and name not in keywords and default is not REQUIRED:
                declared.setdefault(name, (default,))
        return {**declared, **dict.fromkeys(self.left_out.get(operation, ()), (None,))}

    def call(
        self,
        operation: str,
        arguments: dict[str, Any],
        options: dict[str, Any],
        dtype: str,
        way: str = "plain",
    ) -> Output:
        """Call an operation; raise Limited, BadCall or OutOfService when there is no result to judge."""
        options, given = self._accepted(operation, options), self._placed(operation, arguments)
        reply = self._ask(operation, "call", arguments=given, options=options, dtype=dtype, way=way)
        values = self._judgeable(operation, arguments, dtype, reply)
        return Output(values, reply["dtype"], reply["changed"])

    def _judgeable(
        self, operation: str, arguments: dict[str, Any], dtype: str, reply: dict[str, Any]
    ) -> np.ndarray:
        """A result as float64, if its shape, dtype and device are what they have to be."""
        values, expected = _in_one(operation, reply["result"]), OPERATIONS[operation].result_shape(arguments)
        if values.shape != expected:
            letters = ", ".join(OPERATIONS[operation].result)
            raise BadResult(f"{operation} returned shape {values.shape}, expected ({letters}) = {expected}")
        if reply["dtype"] != dtype:
            raise BadResult(f"{operation} returned dtype {reply['dtype']} for inputs of dtype {dtype}")
        if reply["device"] and reply["device"] != self.device.split(":")[0]:
            where = f"{reply['device']}, inputs were on {self.device}"
            raise BadResult(f"{operation} returned an array on {where}")
        return np.asarray(values, dtype=np.float64)

    def gradients(
        self,
        operation: str,
        arguments: dict[str, Any],
        options: dict[str, Any],
        dtype: str,
        names: list[str],
        cotangent: np.ndarray,
        way: str = "plain",
    ) -> Slopes:
        """Differentiate Σ cotangent · operation with respect to the named arguments."""
        options, given = self._accepted(operation, options), self._placed(operation, arguments)
        reply = self._ask(
            operation, "gradients", arguments=given, options=options, dtype=dtype,
            names=names, cotangent=cotangent, way=way,
        )  # fmt: skip
        for name, gradient in reply["gradients"].items():
            if gradient.shape != (expected := arguments[name].shape):
                raise BadCall(f"the gradient in {name} has shape {gradient.shape}, expected {expected}")
        result = None if reply["result"] is None else self._judgeable(operation, arguments, dtype, reply)
        return Slopes(dict(reply["gradients"]), result, reply["changed"])

    def trace(
        self, operation: str, arguments: dict[str, Any], options: dict[str, Any], dtype: str
    ) -> dict[str, np.ndarray]:
        """The intermediates of a call, from a backend that offers them."""
        given = self._placed(operation, arguments)
        reply = self._ask(operation, "trace", arguments=given, options=options, dtype=dtype)
        return dict(reply["traced"])

    def round_trip(self, x: np.ndarray, dtype: str) -> tuple[np.ndarray, str]:
        """Convert an array to the backend's library and back."""
        reply = self._ask("asarray/to_numpy", "round_trip", x=x, dtype=dtype)
        return reply["result"], reply["dtype"]

    def _start(self) -> None:
        self.process = Process()
        options = {name: list(operation.options) for name, operation in OPERATIONS.items()}
        try:
            reply = self.process.ask(
                "load", self.limit * LOADING_LIMIT_FACTOR,
                what=self.what, device=self.device, operations=options,
            )  # fmt: skip
        except TimeoutError:
            self.close()
            raise Unusable(
                f"importing it took longer than {self.limit * LOADING_LIMIT_FACTOR:g} s: raise --time-limit"
            ) from None
        if reply is None:
            raise Unusable(f"importing it killed the process ({self.process.epitaph()})")
        if reply["status"] == "load":
            raise Unusable(reply["message"])
        if reply["status"] != "ok":
            raise Unusable(f"importing it raised {reply['message']}" + _at(reply["where"]))
        self.name, self.provided, self.options = reply["name"], reply["provided"], reply["options"]
        self.notes, self.left_out = reply["notes"], without_place(reply["places"])
        registered = self.what in registered_names()
        self.source = Source(
            self.what, registered, reply["library"], self.device, self.provided, self.left_out
        )
        if not self.provided:
            raise Unusable(
                "it provides no operation of the protocol: define one of "
                f"{', '.join(OPERATIONS)} (names and arguments are fixed)"
            )
        if unknown := unknown_value(self.options):
            raise Unusable(unknown)

    def _accepted(self, operation: str, options: dict[str, Any]) -> dict[str, Any]:
        """Leave out options at their default that the backend's function has no keyword for."""
        keywords = self.provided[operation]
        defaults = OPERATIONS[operation].options
        missing = [name for name in options if keywords is not None and name not in keywords]
        for name in missing:
            if defaults[name] is REQUIRED:
                raise BadCall(f"{operation} takes no keyword {name!r}: every call gives it one")
            if options[name] != defaults[name]:
                raise Limited(f"{operation} has no option {name!r}")
        return {name: value for name, value in options.items() if name not in missing}

    def _placed(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Leave out arguments that are None and that the backend's function has no place for."""
        missing = [name for name in self.left_out.get(operation, ()) if name in arguments]
        for name in missing:
            if arguments[name] is not None:
                raise Limited(f"{operation} has no argument {name!r}")
        return {name: x for name, x in arguments.items() if name not in missing}

    def _ask(self, operation: str, method: str, **arguments: Any) -> dict[str, Any]:
        if operation in self.out_of_service:
            raise self.out_of_service[operation]
        if self.process is None:
            self._start()
        assert self.process is not None
        if method != "round_trip":
            arguments["operation"] = operation
        try:
            reply = self.process.ask(method, self.limit, **arguments)
        except TimeoutError:
            fate = f"{operation} did not return within {self.limit:g} s (--time-limit)"
            raise self._lost(operation, fate, arguments) from None
        if reply is None:
            fate = f"{operation} killed its process ({self.process.epitaph()})"
            raise self._lost(operation, fate, arguments)
        if reply["status"] == "limited":
            raise Limited(reply["message"] or "NotImplementedError")
        if reply["status"] == "wrong result":
            raise BadResult(reply["message"])
        if reply["status"] != "ok":
            raise BadCall(f"{operation} raised {reply['message']}" + _at(reply["where"]))
        return reply

    def _lost(self, operation: str, fate: str, arguments: dict[str, Any]) -> OutOfService:
        self.close()
        shapes = {name: x.shape for name, x in arguments.get("arguments", {}).items() if x is not None}
        call = f"called with shapes {shapes} and options {arguments.get('options')}"
        lost = self.out_of_service[operation] = OutOfService(fate, call)
        return lost


def _in_one(operation: str, result: Any) -> np.ndarray:
    """Line up the scalars of a dict in the protocol's order; an array is what it is."""
    keys = OPERATIONS[operation].keys
    if isinstance(result, dict) != bool(keys):
        expected = f"a dict with the keys {', '.join(keys)}" if keys else "an array"
        raise BadResult(f"{operation} returned a {type(result).__name__}, expected {expected}")
    if not keys:
        return np.asarray(result)
    wrong = [key for key in keys if key not in result or result[key].shape != ()]
    if wrong:
        raise BadResult(f"{operation} returned no 0-d array under {', '.join(map(repr, wrong))}")
    return np.array([float(result[key]) for key in keys])


def _at(where: str) -> str:
    return f" (at {where})" if where else ""
