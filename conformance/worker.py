"""The process in which the backend runs, so that nothing it does can take the verdict with it.

It reads pickled requests from its standard input and writes pickled replies to what was its standard
output; everything that the backend prints goes to the standard error.
"""

import faulthandler
import os
import pickle
import sysconfig
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from conformance import loading
from conformance.arrays import Differentiated, Settings, device_name, dtype_name
from conformance.callables import bind

Reply = dict[str, Any]

KEPT = 4
"""So many results, and gradients, have to stay what they were while others are made."""

LAYOUTS = ("transposed", "strided", "plain", "sliced")
"""How the arguments of a call lie, in turns, that is made the "mixed" way."""

OWN_INPUT, RESULT_BEFORE = "its own input: ", "the result of a call before, of "
"""How the words begin that tell what a call has changed; its arguments follow, or the operation."""

INSTALLED = ("site-packages", "dist-packages")
"""The folders of installed packages."""


class Server:
    """Serves the requests of one run: load a backend, then call its operations."""

    def __init__(self) -> None:
        self.backend: Any = None
        self.hooks: Any = None
        self.device = "cpu"
        self.before: deque[tuple[str, list[Any], list[bytes]]] = deque(maxlen=KEPT)
        """The last calls: what each returned, by its operation, the arrays, and what they held then."""
        self.settings: Settings = {}
        """What the library was set to once the backend was loaded."""

    def load(self, what: str, device: str, operations: dict[str, list[str]]) -> Reply:
        """Import the backend and tell what it provides."""
        self.backend = loading.load(what)
        self.hooks = loading.hooks(self.backend)
        self.device = device
        self.settings = self._settings()
        return {
            "name": str(getattr(self.backend, "name", what)),
            "provided": loading.provided(self.backend, operations),
            "options": loading.declared(self.backend, operations),
            "places": loading.places(self.backend, operations),
            "notes": loading.strangers(self.backend, operations),
            "library": loading.library(self.backend) or "",
        }

    def round_trip(self, x: np.ndarray, dtype: str) -> Reply:
        """Convert an array to the backend's library and back."""
        converted = self.hooks.asarray(x, dtype, self.device)
        back = self.hooks.to_numpy(converted)
        return {"result": np.asarray(back), "dtype": dtype_name(converted, back)}

    def call(
        self,
        operation: str,
        arguments: dict[str, Any],
        options: dict[str, Any],
        dtype: str,
        way: str,
    ) -> Reply:
        """Call an operation and tell its result, and what it changed: its arguments, or the result before."""
        if way == "refilled":
            arrays = self._refilled(operation, arguments, options, dtype)
        else:
            arrays = self._arrays(arguments, dtype, way)
        with self._recording(way):
            result = getattr(self.backend, operation)(*bind(operation, tuple(arrays.values())), **options)
        if isinstance(result, float | int) and not arrays:
            return {"result": np.asarray(float(result)), "dtype": dtype, "device": "", "changed": []}
        if isinstance(result, dict):
            return self._reply_of_dict(operation, result, arguments, arrays)
        told = self._told(operation, result)
        if not arrays and told["result"].dtype.kind in "fiu":
            told |= {"dtype": dtype, "device": ""}  # no input says which they should be
        kept = self._overwritten(f"{RESULT_BEFORE}{operation}", [result], [told["result"]])
        return {**told, "changed": self._changed(arguments, arrays) + kept}

    def gradients(
        self,
        operation: str,
        arguments: dict[str, Any],
        options: dict[str, Any],
        dtype: str,
        names: list[str],
        cotangent: np.ndarray,
        way: str,
    ) -> Reply:
        """Differentiate Σ cotangent · operation with respect to the named arguments.

        Tells the result as well, where the library does, and what was changed. What a backend's own hooks do
        to the arrays that they differentiate in is theirs.
        """
        arrays = self._arrays(arguments, dtype, way)

        def function(*leaves: Any) -> Any:
            given = {**arrays, **dict(zip(names, leaves, strict=True))}
            return getattr(self.backend, operation)(*bind(operation, tuple(given.values())), **options)

        if loading.library(self.backend):
            found = self.hooks.differentiate(function, [arrays[name] for name in names], cotangent, way)
        else:
            leaves = [self._array(arguments[name], dtype, way) for name in names]
            found = Differentiated(self.hooks.gradient(function, leaves, cotangent))
        if len(found.gradients) != len(names):
            count, each = len(found.gradients), ", ".join(names)
            raise WrongResult(f"gradient returned {count} arrays, expected one for each of {each}")
        slopes = dict(zip(names, found.gradients, strict=True))
        told: Reply = {"result": None} if found.result is None else self._told(operation, found.result)
        read = {name: self._read(f"{operation}'s gradient", x) for name, x in slopes.items()}
        kept = self._overwritten(
            f"a gradient of a call before, of {operation}", list(slopes.values()), list(read.values())
        )
        return {
            "gradients": read,
            "changed": self._changed(arguments, arrays) + found.changed + kept,
            **told,
        }

    def _told(self, operation: str, result: Any) -> Reply:
        back = self._read(operation, result)
        return {"result": back, "dtype": dtype_name(result, back), "device": device_name(result)}

    def trace(self, operation: str, arguments: dict[str, Any], options: dict[str, Any], dtype: str) -> Reply:
        """Ask a backend that offers it for the intermediates of a call; none if it does not."""
        if (trace := loading.tracer(self.backend)) is None:
            return {"traced": {}}
        arrays = tuple(self._array(x, dtype, "plain") for x in arguments.values())
        found = trace(operation, *bind(operation, arrays), **options)
        return {"traced": {name: np.asarray(self.hooks.to_numpy(x)) for name, x in found.items()}}

    def _reply_of_dict(
        self, operation: str, result: dict[str, Any], arguments: dict[str, Any], arrays: dict[str, Any]
    ) -> Reply:
        read = {key: self._read(f"{operation}[{key!r}]", value) for key, value in result.items()}
        dtypes = {dtype_name(value, read[key]) for key, value in result.items()}
        return {
            "result": read,
            "dtype": " and ".join(sorted(dtypes)),
            "device": next((device_name(value) for value in result.values()), ""),
            "changed": self._changed(arguments, arrays)
            + self._overwritten(f"{RESULT_BEFORE}{operation}", list(result.values()), list(read.values())),
        }

    def _changed(self, arguments: dict[str, Any], arrays: dict[str, Any]) -> list[str]:
        names = [name for name, x in arguments.items() if not self._same(arrays[name], x)]
        return [*([f"{OWN_INPUT}{', '.join(names)}"] if names else []), *self._reset()]

    def _settings(self) -> Settings:
        found: Settings = self.hooks.settings() if hasattr(self.hooks, "settings") else {}
        return found

    def _reset(self) -> list[str]:
        """Tell which settings of the library a call has changed, and set them back."""
        changed = []
        for name, (now, put) in self._settings().items():
            before, _ = self.settings[name]
            if now != before:
                put(before)
                changed.append(f"a setting of its library: {name} was {before}, and is {now}")
        return changed

    def _overwritten(self, what: str, arrays: list[Any], read: list[np.ndarray]) -> list[str]:
        """Tell which of the last calls' arrays are no longer what they were, and keep these for the next."""
        changed = [
            earlier
            for earlier, kept, returned in self.before
            if [np.asarray(self.hooks.to_numpy(x)).tobytes() for x in kept] != returned
        ]
        if changed:
            self.before.clear()
        self.before.append((what, arrays, [x.tobytes() for x in read]))
        return list(dict.fromkeys(changed))

    def _recording(self, way: str) -> AbstractContextManager[Any]:
        """Where the library records calls for a backward pass, "unrecorded" stops it."""
        stopped = getattr(self.hooks, "without_gradients", nullcontext)
        return stopped() if way == "unrecorded" else nullcontext()

    def _arrays(self, arguments: dict[str, Any], dtype: str, way: str) -> dict[str, Any]:
        """Convert arguments; those that are one object stay one."""
        ways = cycle(LAYOUTS if way == "mixed" else (way,))
        once = {id(x): self._array(x, dtype, way) for x, way in zip(arguments.values(), ways, strict=False)}
        return {name: once[id(x)] for name, x in arguments.items()}

    def _refilled(
        self, operation: str, arguments: dict[str, Any], options: dict[str, Any], dtype: str
    ) -> dict[str, Any]:
        """Arrays that have held other numbers in a call before, where the library's can be written into."""
        arrays = self._arrays({name: _others(x) for name, x in arguments.items()}, dtype, "plain")
        getattr(self.backend, operation)(*bind(operation, tuple(arrays.values())), **options)
        try:
            for name, x in arguments.items():
                if x is not None:
                    arrays[name][...] = self._array(x, dtype, "plain")
        except (TypeError, ValueError):
            return self._arrays(arguments, dtype, "plain")
        return arrays

    def _array(self, x: Any, dtype: str, way: str) -> Any:
        """Convert an argument, and make it a view, as the way says.

        "strided" has other numbers before, between and behind; "sliced" is cut out of a larger array;
        "transposed" has its rows where others have columns; "expanded" repeats one number for each row, if
        there is but one.
        """
        if x is None:
            return None
        kind = dtype if x.dtype == np.float64 else str(x.dtype)

        def convert(numbers: np.ndarray) -> Any:
            return self.hooks.asarray(numbers, kind, self.device)

        view = _view(x, way, convert, getattr(self.hooks, "expand", None)) if x.size and x.ndim else None
        if view is None:
            return convert(x)
        if isinstance(view, np.ndarray):
            view.flags.writeable = False
        return view

    def _read(self, operation: str, result: Any) -> np.ndarray:
        try:
            back = np.asarray(self.hooks.to_numpy(result))
        except TypeError as error:
            raise WrongResult(f"{operation} returned the wrong kind of object: {error}") from error
        if back.dtype == object:
            raise WrongResult(f"{operation} returned an array of Python objects, expected numbers")
        return back

    def _same(self, array: Any, x: Any) -> bool:
        if x is None:
            return True
        after = np.asarray(self.hooks.to_numpy(array))
        return np.array_equal(after, x) or np.array_equal(after, x, equal_nan=x.dtype == np.float64)


def _view(x: np.ndarray, way: str, convert: Callable[..., Any], expand: Callable[..., Any] | None) -> Any:
    """An array of the library that lies within another, None where the way asks for none."""
    match way:
        case "strided":
            beside = np.stack([np.roll(x, 1), x], axis=-1).reshape(*x.shape[:-1], -1)
            return convert(np.concatenate([beside, beside[..., :2]], axis=-1))[..., 1:-2:2]
        case "sliced":
            return convert(np.pad(x, 1, mode="wrap"))[(slice(1, -1),) * x.ndim]
        case "transposed" if x.ndim > 1:
            return convert(np.ascontiguousarray(np.swapaxes(x, -1, -2))).swapaxes(-1, -2)
        case "expanded" if expand and (x == x[..., :1]).all():
            return expand(convert(x[..., :1]), x.shape)
    return None


def _others(x: Any) -> Any:
    """An argument of the same shape that can stand in its place: no token, 0 for ids, numbers backwards."""
    if x is None or x.dtype == np.float64:
        return x if x is None else x.ravel()[::-1].reshape(x.shape).copy()
    return np.zeros_like(x)


class WrongResult(Exception):
    """The result is no array of the backend's library."""


def answer(function: Callable[..., Reply], arguments: dict[str, Any]) -> Reply:
    """Call a method of the server; whatever it raises becomes a reply."""
    try:
        return {"status": "ok", **function(**arguments)}
    except loading.LoadError as error:
        return {"status": "load", "message": str(error)}
    except WrongResult as error:
        return {"status": "wrong result", "message": str(error)}
    except NotImplementedError as error:
        return {"status": "limited", "message": str(error)}
    except BaseException as error:  # a backend may raise anything, SystemExit included
        return {"status": "raised", "message": _summary(error), "where": _where(error)}


def _summary(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    return "".join(traceback.format_exception_only(error)).strip()


def _where(error: BaseException) -> str:
    """The last place of the traceback in the backend's own code; where that is in a library, this as well."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    here = Path(__file__).parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent != here]
    frames = [f for f in frames if not f.filename.startswith("<frozen")]
    own = [f for f in frames if not _library(f.filename)] or frames
    places = [f"{f.filename}:{f.lineno}" for f in own[-1:]]
    if own[-1:] != frames[-1:]:
        places.append(f"in {_library(frames[-1].filename)}:{frames[-1].lineno}")
    return ", ".join(places)


def _library(file: str) -> str:
    """A file of Python's, of an installed package or of none, by what tells it; "" for any other."""
    path, standard = Path(file), sysconfig.get_path("stdlib")
    for name in INSTALLED:
        if name in path.parts:
            return Path(*path.parts[path.parts.index(name) + 1 :]).as_posix()
    if path.is_relative_to(standard):
        return path.relative_to(standard).as_posix()
    return file if file.startswith("<") else ""


def main() -> None:
    """Serve requests until the standard input ends."""
    faulthandler.enable()
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    server = Server()
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return
        pickle.dump(answer(getattr(server, method), arguments), replies)
        replies.flush()


if __name__ == "__main__":
    main()
