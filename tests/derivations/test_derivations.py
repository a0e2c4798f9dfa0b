"""Every derivation holds, none holds of a wrong reference, and pages quote the numbers that they return."""

import importlib
import sys
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


@pytest.fixture(scope="module")
def numbers() -> dict[str, list[Any]]:
    """What the derivations of each clause return."""
    returned: dict[str, list[Any]] = {}
    for derivation in proofs.REGISTERED.values():
        returned.setdefault(derivation.slug, []).extend((derivation.run() or {}).values())
    return returned


@pytest.mark.parametrize("name", sorted(proofs.REGISTERED))
def test_derivation_holds(name: str) -> None:
    proofs.REGISTERED[name].run()


@pytest.mark.parametrize("name", sorted(proofs.REGISTERED))
def test_derivation_fails_on_a_wrong_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It speaks of the code: with one of the functions that its clause names turned wrong, it fails."""
    clause = REGISTRY.clauses[proofs.REGISTERED[name].slug]
    assert any(_notices(name, function, monkeypatch) for function in clause.reference), clause.reference


def _notices(name: str, function: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a derivation fails when one function of the reference is wrong, wherever it was imported."""
    module, _, attribute = function.rpartition(".")
    right = getattr(importlib.import_module(module), attribute)
    with monkeypatch.context() as patch:
        for holder in list(sys.modules.values()):
            if getattr(holder, "__name__", "").startswith(("reference", "spec")):
                for key in [key for key, value in vars(holder).items() if value is right]:
                    patch.setattr(holder, key, wrong(right))
        try:
            proofs.REGISTERED[name].run()
        except AssertionError:
            return True
        return False


def wrong(function: Any) -> Any:
    """The function with the wrong sign; a batch also off by its arguments, its rows and its columns."""

    def off(*arguments: Any, **options: Any) -> Any:
        return _off(function(*arguments, **options), *arguments)

    return off


def _off(result: Any, *arguments: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_off(part, *arguments) for part in result)
    if isinstance(result, dict):
        return {key: _off(part, *arguments) for key, part in result.items()}
    if np.ndim(result) != 2:
        return -result
    rows, columns = np.indices(np.shape(result))
    batches = [x for x in arguments if np.shape(x) == np.shape(result) and x.dtype != bool]
    return sum(batches[1:], -result + sum(np.square(x) for x in batches[:1]) + rows + columns)


def test_sources_and_python_agree_on_what_is_registered() -> None:
    read = {(found.name, found.slug, found.status) for found in FOUND}
    assert read == {(name, made.slug, made.status) for name, made in proofs.REGISTERED.items()}


@pytest.mark.parametrize("slug", sorted(REGISTRY.clauses))
def test_numbers_in_the_prose_are_recomputed(slug: str, numbers: dict[str, list[Any]]) -> None:
    clause = REGISTRY.clauses[slug]
    assert not unexplained(clause.prose, numbers.get(slug, [])), (
        f"{clause.place}: no derivation returns these"
    )


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
