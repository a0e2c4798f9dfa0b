"""The conformance suite on many mutants of `torch_impl` at once, each a copy of the package in one process.

A copy is imported anew from its own texts, and asked in several ways (`FACES`): as it is registered, and in
the styles that take the paths of large inputs, close up rows, and go through an output head. Inputs are
drawn, and permitted sets found, once for all, beside the package as it is. A copy that a test has seen is
asked no more.
"""

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from time import monotonic
from types import FrameType, ModuleType
from typing import Any

from conformance import adapters
from conformance.adapters import torch_impl as adapter
from conformance.backend import Backend, Unusable
from conformance.operations import OPERATIONS
from tests.harness import together
from tests.mutants.operators import Mutant
from tests.mutants.reach import Name
from tests.mutants.running import ROOT
from tests.right_backends import closed_rows, linear_head
from tests.right_backends.styles import STYLES

PACKAGE = "torch_impl"
ROUNDS = (
    ("torch_impl", "float32", "default"),
    ("as_if_large", "float32", "quick"),
    ("closed_rows", "float32", "quick"),
    ("linear_head", "float32", "quick"),
    ("torch_impl", "bfloat16", "quick"),
    ("torch_impl", "float64", "quick"),
)
"""Face, dtype and profile, the likeliest to show a mistake first."""
FACES = tuple(dict.fromkeys(face for face, _, _ in ROUNDS))
CALL_SECONDS = 10
SELF = "the package as it is"


class Broken(Exception):
    """The package as it is fails a test: what a mutant fails says nothing then."""


@dataclass(frozen=True)
class Asked:
    """A mutant, and the operations of each face that may show it."""

    mutant: Mutant
    operations: Mapping[str, frozenset[str]]


def asked(mutant: Mutant, reaching: set[Name]) -> Asked:
    """What to ask of a mutant that can be felt in these functions."""
    felt = {
        face: frozenset(name for name, function in _functions(face).items() if function in reaching)
        for face in FACES
    }
    return Asked(mutant, felt)


def _functions(face: str) -> dict[str, Name]:
    """The operations of a face, and the function of the package behind each."""
    if face == "linear_head":
        return {name: ("linear", "linear_logprobs") for name in vars(linear_head) if name in OPERATIONS}
    names = [name for name in vars(closed_rows) if name in OPERATIONS]
    functions = {name: getattr(adapter, name) for name in (names if face == "closed_rows" else OPERATIONS)}
    return {name: (f.__module__.rpartition(".")[2], f.__name__) for name, f in functions.items()}


def seen(
    texts: Mapping[str, str], some: Sequence[Asked], face: str, dtype: str, profile: str
) -> dict[str, tuple[str, float]]:
    """Run a round on mutants of a package of these texts: what saw each, "" if nothing did, and seconds."""
    start = monotonic()
    left = [one for one in some if one.operations[face]]
    found = _seen_by(texts, face, dtype, profile, left) if left else {}
    share = (monotonic() - start) / max(len(some), 1)
    return {one.mutant.id: (found.get(one.mutant.id, ""), share) for one in some}


def _seen_by(
    texts: Mapping[str, str], face: str, dtype: str, profile: str, left: Sequence[Asked]
) -> dict[str, str]:
    """The mutants that a test sees in one round, each with the first such test."""
    found: dict[str, str] = {}
    right, wrong = _backend(texts, face), {}
    for one in left:
        try:
            wrong[one.mutant.id] = _backend({**texts, one.mutant.module: one.mutant.text}, face)
        except Unusable as error:
            found[one.mutant.id] = str(error).replace(f"{ROOT}{os.sep}", "")
    for operation in OPERATIONS:
        felt = {one.mutant.id for one in left if operation in one.operations[face]} - found.keys()
        some = {SELF: right} | {name: wrong[name] for name in wrong if name in felt}
        found |= dict(_failures(some, dtype, profile, operation)) if felt else {}
    return found


def _failures(
    backends: Mapping[str, Backend], dtype: str, profile: str, operation: str
) -> Iterator[tuple[str, str]]:
    """Those that fail, and the first test that each fails; raises Broken if it is the package as it is."""
    for verdict in together.verdicts(backends, dtype, profile, 0, [operation], until_failure=True):
        if verdict.failure and verdict.backend == SELF:
            raise Broken(f"{verdict.test}: {verdict.story}")
        if verdict.failure:
            yield verdict.backend, verdict.test


def _backend(texts: Mapping[str, str], face: str) -> Backend:
    """A face of a copy of the package."""
    [style] = [style for style in STYLES if style.module == face]
    with _copied(texts):
        return Timed(style.backend)


class Timed(together.Here):
    """A backend in this process, whose calls raise TimeoutError when they take too long."""

    def _ask(self, operation: str, method: str, **arguments: Any) -> dict[str, Any]:
        signal.signal(signal.SIGALRM, _late)
        signal.setitimer(signal.ITIMER_REAL, CALL_SECONDS)
        try:
            return super()._ask(operation, method, **arguments)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _late(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"no answer within {CALL_SECONDS} s")


@contextmanager
def _copied(texts: Mapping[str, str]) -> Iterator[None]:
    """Let imports of the package and of what adapts it make new modules, of these texts."""
    kept = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    finder = _Finder(texts)
    _forget()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _forget()
        sys.modules.update(kept)
        vars(adapters)[PACKAGE] = adapter


def _forget() -> None:
    for name in [name for name in sys.modules if _is_ours(name)]:
        del sys.modules[name]
    vars(adapters).pop(PACKAGE, None)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == PACKAGE or name == adapter.__name__


@dataclass
class _Finder(MetaPathFinder):
    """Finds modules of the package among texts; all others are left to the finders after it."""

    texts: Mapping[str, str]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = fullname.partition(".")
        if package != PACKAGE or module not in self.texts:
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(self.texts[module]))


@dataclass
class _Loader(InspectLoader):
    text: str

    def get_source(self, fullname: str) -> str:
        return self.text
