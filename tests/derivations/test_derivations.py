"""Every derivation holds, none holds of a wrong reference, and pages quote the numbers that they return."""

import importlib
import itertools
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from reference.numbers import symbols
from spec import proofs, sources
from spec.quoted import unexplained
from spec.registry import ROOT, Registry

REGISTRY = Registry.load()
FOUND = sources.derivations(ROOT)
for module in sorted({derivation.name.rpartition(".")[0] for derivation in FOUND}):
    importlib.import_module(module)


Break = Callable[[Any, tuple[Any, ...], int], Any]


@cache
def returned(name: str) -> tuple[Any, ...]:
    """The numbers that a derivation returns; it is run once."""
    return tuple((proofs.REGISTERED[name].run() or {}).values())


@pytest.mark.parametrize("name", sorted(proofs.REGISTERED))
def test_derivation_holds(name: str) -> None:
    returned(name)


@pytest.mark.parametrize("name", sorted(proofs.REGISTERED))
def test_derivation_fails_on_a_wrong_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It speaks of the code: with one of the functions that its clause names turned wrong, it fails."""
    functions = REGISTRY.clauses[proofs.REGISTERED[name].slug].reference or OF_EVERY_OPERATION
    ways = itertools.product((negative, drifting), functions)
    assert any(_notices(name, function, way, monkeypatch) for way, function in ways), functions


OF_EVERY_OPERATION = ("reference.gae.gae", "reference.gae.whiten")
"""What stands for all operations, where a clause of the contract names none."""


def _notices(name: str, function: str, way: Break, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a derivation fails when one function of the reference is wrong, wherever it was imported."""
    module, _, attribute = function.rpartition(".")
    right = getattr(importlib.import_module(module), attribute)
    broken = wrong(right, way)
    with monkeypatch.context() as patch:
        for holder in list(sys.modules.values()):
            if getattr(holder, "__name__", "").startswith(("reference", "spec")):
                _replace(holder, right, broken, patch)
        try:
            proofs.REGISTERED[name].run()
        except AssertionError:
            return True
        return False


def _replace(holder: Any, right: Any, broken: Any, patch: pytest.MonkeyPatch) -> None:
    """Replace a function under every name that a module has for it, tables of functions included."""
    for key, value in list(vars(holder).items()):
        if value is right:
            patch.setattr(holder, key, broken)
        elif isinstance(value, dict):
            for entry in [entry for entry, content in value.items() if content is right]:
                patch.setitem(value, entry, broken)


def wrong(function: Any, way: Break) -> Any:
    """A function whose results are off in one of two ways."""
    calls = itertools.count(1)

    def off(*arguments: Any, **options: Any) -> Any:
        result, call = function(*arguments, **options), next(calls)
        if isinstance(result, tuple):
            return tuple(way(part, arguments, call) for part in result)
        if isinstance(result, dict):
            return {key: way(part, arguments, call) for key, part in result.items()}
        return way(result, arguments, call)

    return off


def negative(result: Any, arguments: tuple[Any, ...], _call: int) -> Any:
    """The wrong sign; an array also off by its arguments and by where an element stands."""
    if np.ndim(result) == 0:
        return -result
    arrays = [x for x in arguments if isinstance(x, np.ndarray)]
    alike = [x for x in arrays if x.shape == np.shape(result) and x.dtype != bool]
    places = np.indices(np.shape(result)).sum(axis=0)
    return sum(alike[1:], -result + sum(np.square(x) for x in alike[:1]) + places)


def drifting(result: Any, _arguments: tuple[Any, ...], call: int) -> Any:
    """Off by how often it has been called: no relation between two calls survives that."""
    return result + call * call


def test_sources_and_python_agree_on_what_is_registered() -> None:
    read = {(found.name, found.slug, found.status) for found in FOUND}
    assert read == {(name, made.slug, made.status) for name, made in proofs.REGISTERED.items()}


@pytest.mark.parametrize("slug", sorted(REGISTRY.clauses))
def test_numbers_in_the_prose_are_recomputed(slug: str) -> None:
    clause = REGISTRY.clauses[slug]
    own = [name for name, made in proofs.REGISTERED.items() if made.slug == slug]
    numbers = [number for name in own for number in returned(name)]
    assert not unexplained(clause.prose, numbers), f"{clause.place}: no derivation returns these"


@pytest.mark.parametrize(
    ("prose", "left"),
    [
        ("0.95 and 0.0056 are there", []),
        ("one digit wrong: 0.0057", ["0.0057"]),
        ("rounded to 0.006, in a table | 0.95 |, at the end 100.", []),
        ("the sign counts: −0.95 and -0.95", ["−0.95", "-0.95"]),
        ("an integer is not rounded: 99, and a fraction 1/3 is exact", ["99", "1/3"]),
        ("4/3 is there; 0, 1, 2 and −2 are words; V_7 and float32 are names", []),
    ],
)
def test_numbers_are_found(prose: str, left: list[str]) -> None:
    assert unexplained(prose, [0.95, 0.005624, 100, 4 / 3]) == left


def test_agreement_is_for_all_values() -> None:
    x = symbols.array("x", (2,))
    proofs.agree((x + 1) ** 2, x**2 + 2 * x + 1)
    with pytest.raises(AssertionError, match="differ by"):
        proofs.agree(x, 2 * x)
    with pytest.raises(AssertionError, match="shapes"):
        proofs.agree(x, x[:1])
