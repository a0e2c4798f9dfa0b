"""A failing call as code that runs alone: it needs the backend, its array library and NumPy."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from conformance.callables import SOURCES
from conformance.cases import Case
from conformance.operations import OPERATIONS

IMPORTS = {
    "numpy": "import numpy as np",
    "torch": "import numpy as np, torch",
    "jax": "import numpy as np, jax; jax.config.update('jax_enable_x64', True)",
}
CONVERSIONS = {
    "numpy": "asarray = lambda x: x.astype({dtype!r}) if x.dtype == float else x",
    "torch": "asarray = lambda x: torch.tensor(x, dtype=torch.{dtype} if x.dtype == float else None, "
    "device={device!r})",
    "jax": "asarray = lambda x: jax.numpy.asarray(x, dtype={dtype!r} if x.dtype == float else None)",
}
OWN_CONVERSION = (
    "asarray = lambda x: backend.asarray(x, {dtype!r} if x.dtype == float else str(x.dtype), {device!r})"
)
GRADIENTS = {
    "torch": "torch.autograd.grad({call}, {name}, asarray(upstream))[0]",
    "jax": "jax.vjp(lambda {name}: {call}, {name})[1](asarray(upstream))[0]",
}
RECORDED = {"torch": "{call}", "jax": "jax.vjp(lambda {name}: {call}, {name})[0]"}
OWN_GRADIENT = "backend.gradient(lambda {name}: {call}, [{name}], upstream)[0]"

FEW_NUMBERS, MAX_NUMBERS = 40, 100
"""An array of few is written out; a larger one is filled and changed in some places, if that is shorter; one
with more than the second is shortened otherwise."""

WHOLE = "whole: --report DIR, key `reproduction`"
"""Where the code is that a message shortens."""


@dataclass(frozen=True)
class Call:
    """A call as it was made, and what is printed of it."""

    case: Case
    gradient: str = ""
    """The argument in which it was differentiated."""
    upstream: np.ndarray | None = None
    recorded: str = ""
    """The argument in which its result was to be differentiated."""
    read: str = "{answer}"
    """What is made of its answer, as an expression."""
    unread: bool = False
    """Whether what came is no array to be read, and is printed as it is."""
    changed: tuple[str, ...] = ()
    """The arguments that it changed: they are printed."""
    overwritten: bool = False
    """Whether its result is changed by the next call: it is printed before that and after."""


@dataclass(frozen=True)
class Source:
    """Where a backend's functions come from, and what arrays they take."""

    what: str
    """As `--backend` names it."""
    registered: bool
    """Whether that is a name that the suite knows."""
    library: str
    """"numpy", "torch" or "jax"; empty for a backend that converts arrays itself."""
    device: str
    keywords: Mapping[str, Collection[str] | None] = field(default_factory=dict)
    """Those that the functions of some operations take; None, and no entry, for any."""
    left_out: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The arguments of some operations that their functions have no place for."""

    def given(self, case: Case) -> dict[str, Any]:
        """The options of a call as the suite gives them: none at its default that is not taken."""
        taken, defaults = self.keywords.get(case.operation), OPERATIONS[case.operation].options
        return {k: x for k, x in case.options.items() if taken is None or k in taken or x != defaults[k]}

    def placed(self, case: Case) -> dict[str, Any]:
        """The arguments of a call as the suite gives them: none that is None and has no place."""
        lacking = self.left_out.get(case.operation, ())
        return {name: x for name, x in case.arguments.items() if x is not None or name not in lacking}

    def statement(self) -> str:
        """The line that makes `backend`."""
        module, _, attribute = self.what.partition(":")
        if module.endswith(".py"):
            functions = f"types.SimpleNamespace(**runpy.run_path({str(Path(module))!r}))"
            made = f"{functions}.{attribute}()" if attribute else functions
            return f"import runpy, types; backend = {made}"
        if self.registered:
            return f"import conformance.adapters.{module} as backend"
        return (
            f"import {module}; backend = {module}.{attribute}()"
            if attribute
            else f"import {module} as backend"
        )


def script(call: Call, source: Source, whole: bool = True) -> list[str]:
    """The lines that make a call, or differentiate it, and print the answer, or what is wrong with it.

    Unless they are to be whole, large arrays are shortened, and lines with one no longer run.
    """
    case, leaf = call.case, call.gradient or call.recorded
    form = {"dtype": case.dtype, "device": source.device}
    lines = [
        IMPORTS.get(source.library, "import numpy as np"),
        source.statement(),
        CONVERSIONS.get(source.library, OWN_CONVERSION).format(**form),
    ]
    arrays = {name: x for name, x in case.arguments.items() if x is not None}
    upstream = {} if call.upstream is None else {"upstream": call.upstream}
    lines += [f"{name} = {_array(name, x, whole)}" for name, x in {**arrays, **upstream}.items()]
    given = {name: "None" if x is None else f"asarray({name})" for name, x in source.placed(case).items()}
    for name in filter(None, dict.fromkeys((*call.changed, leaf))):
        recording = name == leaf and source.library == "torch"
        lines.append(f"{name} = asarray({name})" + (".requires_grad_()" if recording else ""))
        given[name] = name
    setup, arguments = SOURCES.get(case.operation, ((), tuple(given)))
    lines += [line.format(**given) for line in setup]
    words = [given.get(name, name) for name in arguments]
    words += [f"{name}={value!r}" for name, value in source.given(case).items()]
    made = f"backend.{case.operation}({', '.join(words)})"
    if call.overwritten:
        return lines + _twice(case, source, made, [name for name in arguments if name in arrays])
    return lines + _once(call, source, made)


def _once(call: Call, source: Source, made: str) -> list[str]:
    """The call, or its gradient, and what of it is printed."""
    if call.gradient:
        template = GRADIENTS.get(source.library, OWN_GRADIENT)
        made = template.format(call=made, name=call.gradient)
    elif call.recorded:
        made = RECORDED[source.library].format(call=made, name=call.recorded)
    if call.changed:
        return [made, *(f"print({_readable(call.case, source, name)})" for name in call.changed)]
    if call.unread:
        return [f"print(repr({made}))"]
    return [f"print({_readable(call.case, source, made, call.read)})"]


def _twice(case: Case, source: Source, made: str, names: list[str]) -> list[str]:
    """The call, then one with the same numbers in other places: what the first gave, before and after."""
    given, shown = ", ".join(names), f"print({_readable(case, source, 'first')})"
    return [
        f"call = lambda {given}: {made}",
        f"first = call({given})",
        shown,
        f"call(*(np.roll(x, 1) for x in [{given}]))",
        shown,
    ]


def _readable(case: Case, source: Source, answer: str, read: str = "{answer}") -> str:
    """What prints an answer with all its digits."""
    keys = OPERATIONS[case.operation].keys
    if not case.arguments or (keys and not source.library):
        return answer
    if keys:
        return f"{{key: float(x) for key, x in {answer}.items()}}"
    array = answer if source.library else f"np.asarray(backend.to_numpy({answer}))"
    return f"{read.format(answer=array)}.tolist()"


def _array(name: str, x: np.ndarray, whole: bool) -> str:
    """What an array of this name is set to, and in which places it is changed then."""
    if not x.size:
        return f"np.zeros({x.shape}, {str(x.dtype)!r})"
    numbers, counts = np.unique(x, return_counts=True)
    most = numbers[counts.argmax()]
    others = np.flatnonzero((x != most) | (np.signbit(1.0 * x) != np.signbit(1.0 * most)))
    if x.size > FEW_NUMBERS and 4 * len(others) <= min(x.size, 2 * MAX_NUMBERS):
        changed = f"; {name}.flat[{others.tolist()}] = {_text(x.flat[others])}" if len(others) else ""
        return f"np.full({x.shape}, {_text(most)}){changed}"
    if whole or x.size <= MAX_NUMBERS:
        return f"np.array({_text(x)})"
    rows = np.array2string(x, threshold=1, edgeitems=3, separator=", ").split("\n")
    return " ".join(part.strip() for part in rows) + f"  # shape {x.shape}, shortened; {WHOLE}"


def _text(x: Any) -> str:
    """Numbers as a literal."""
    return repr(x.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
