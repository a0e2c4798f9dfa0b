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
    "torch": "print(torch.autograd.grad({call}, {name}, asarray(upstream))[0].tolist())",
    "jax": "print(jax.vjp(lambda {name}: {call}, {name})[1](asarray(upstream))[0].tolist())",
}
RECORDED = {
    "torch": "print({call}.tolist())",
    "jax": "print(jax.vjp(lambda {name}: {call}, {name})[0].tolist())",
}
OWN_GRADIENT = "print(backend.to_numpy(backend.gradient(lambda {name}: {call}, [{name}], upstream)[0]))"


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
        if self.what.endswith(".py"):
            path = str(Path(self.what))
            return f"import runpy, types; backend = types.SimpleNamespace(**runpy.run_path({path!r}))"
        if self.registered:
            return f"import conformance.adapters.{module} as backend"
        return (
            f"import {module}; backend = {module}.{attribute}()"
            if attribute
            else f"import {module} as backend"
        )


def script(
    case: Case,
    source: Source,
    gradient: str = "",
    upstream: np.ndarray | None = None,
    longest: int | None = None,
    *,
    recorded: str = "",
) -> list[str]:
    """The lines that make the call, or differentiate it in the argument `gradient`, and print the answer.

    With `recorded` they print the result of the call that is to be differentiated in that argument.
    Arrays with more than `longest` entries are shortened, and the lines no longer run.
    """
    form = {"dtype": case.dtype, "device": source.device}
    lines = [
        IMPORTS.get(source.library, "import numpy as np"),
        source.statement(),
        CONVERSIONS.get(source.library, OWN_CONVERSION).format(**form),
    ]
    arrays = case.arguments if upstream is None else {**case.arguments, "upstream": upstream}
    lines += [f"{name} = {_array(x, longest)}" for name, x in arrays.items() if x is not None]
    given = {name: "None" if x is None else f"asarray({name})" for name, x in source.placed(case).items()}
    name = gradient or recorded
    if name:
        lines.append(f"{name} = asarray({name})" + (".requires_grad_()" if source.library == "torch" else ""))
        given[name] = name
    setup, arguments = SOURCES.get(case.operation, ((), tuple(given)))
    lines += [line.format(**given) for line in setup]
    words = [given.get(name, name) for name in arguments]
    words += [f"{name}={value!r}" for name, value in source.given(case).items()]
    call = f"backend.{case.operation}({', '.join(words)})"
    if recorded:
        return [*lines, RECORDED[source.library].format(call=call, name=recorded)]
    if not gradient:
        return [*lines, f"print({_readable(case, call)})" if source.library else f"print({call})"]
    return [*lines, GRADIENTS.get(source.library, OWN_GRADIENT).format(call=call, name=gradient)]


def _readable(case: Case, call: str) -> str:
    """A call whose answer prints with all its digits."""
    if OPERATIONS[case.operation].keys:
        return f"{{key: float(x) for key, x in {call}.items()}}"
    return f"{call}.tolist()" if case.arguments else call


def _array(x: np.ndarray, longest: int | None) -> str:
    """An array as an expression."""
    text = repr(x.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    if longest is not None and x.size > longest:
        rows: Any = np.array2string(x, threshold=longest, edgeitems=3, separator=", ").split("\n")
        return " ".join(part.strip() for part in rows) + f"  # shortened, shape {x.shape}"
    return f"np.array({text})" if x.size else f"np.zeros({x.shape}, {str(x.dtype)!r})"
