"""Every derivation holds, none holds of a wrong reference, and pages quote the numbers that they return."""

import importlib
from typing import Any

import numpy as np
import pytest

from reference import gae
from reference.numbers import symbols
from spec import proofs, sources
from spec.quoted import unexplained
from spec.registry import ROOT, Registry

REGISTRY = Registry.load()
FOUND = sources.derivations(ROOT)
for module in sorted({derivation.name.rpartition(".")[0] for derivation in FOUND}):
    importlib.import_module(module)

WHAT_TO_BREAK = {
    "spec.contract.padding_changes_nothing": "gae",
    "spec.contract.permutation_permutes": "whiten",
    "spec.gae.backward_recursion": "gae",
    "spec.gae.bootstrap_coefficient": "gae",
    "spec.gae.horizon_is_where_the_weight_is_epsilon": "reward_horizon",
    "spec.gae.lambda_one": "discounted_returns",
    "spec.gae.lambda_return_recursion": "lambda_returns",
    "spec.gae.lambda_zero": "gae",
    "spec.gae.linear_in_rewards_and_values": "gae",
    "spec.gae.masks_delete": "td_errors",
    "spec.gae.n_step_recursions": "n_step_advantages",
    "spec.gae.n_step_sum": "n_step_advantages",
    "spec.gae.potential_shaping": "gae",
    "spec.gae.sum_of_td_errors": "gae_by_definition",
    "spec.gae.telescoping": "n_step_advantages",
    "spec.gae.terminal_reward_coefficient": "gae",
    "spec.gae.weights_sum_to_one": "n_step_weights",
    "spec.gae_statistics.td_error_unbiased": "td_errors",
    "spec.gae_statistics.unbiased_at_every_lambda": "gae",
    "spec.gae_statistics.variance_is_a_double_sum": "gae_variance",
    "spec.gae_statistics.variance_not_monotone": "gae_variance",
    "spec.gae_statistics.variance_of_uncorrelated": "gae_variance",
    "spec.gae_statistics.whitening_moments": "whiten",
}
"""A function of the reference that each derivation must not hold without."""


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
    function = WHAT_TO_BREAK[name]
    monkeypatch.setattr(gae, function, wrong(getattr(gae, function)))
    with pytest.raises(AssertionError):
        proofs.REGISTERED[name].run()


def wrong(function: Any) -> Any:
    """The function with the wrong sign; a batch also off by its arguments, its rows and its columns."""

    def off(first: Any, *arguments: Any, **options: Any) -> Any:
        result = -function(first, *arguments, **options)
        if np.ndim(result) < 2:
            return result
        rows, columns = np.indices(result.shape)
        batches = [x for x in arguments if x.ndim == 2 and x.dtype != bool]
        return sum(batches, result + np.square(first) + rows + columns)

    return off


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
