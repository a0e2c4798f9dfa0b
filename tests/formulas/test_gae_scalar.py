"""The formulas of the chapter `gae` that are no operations agree with a second definition, exactly."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import mpmath
import numpy as np
from hypothesis import given

from conformance.operations import OPERATIONS
from reference import gae as reference
from reference.numbers import balls
from reference.numbers.formats import FORMATS
from tests.examples import examples
from tests.formulas import scalar_gae as scalar
from tests.formulas.agreement import agrees
from tests.formulas.drawing import Call, calls
from tests.numbers.enclosure import DIGITS, encloses

INPUTS = 1000
"""Inputs that are drawn for each formula."""

EXACTLY_ROUNDED, LOGARITHMS_TOO = (balls.Rounding(FORMATS["float64"], factor) for factor in (1.0, 3.0))
"""What NumPy's + - * / lose in float64, and its logarithm, which is off by up to 1.5 in the last place."""

DISCOUNTS = [1.0, 0.0, 0.5, 0.99, 0.95, 0.9, 0.997, 0.25]
discount = st.sampled_from(DISCOUNTS)


def holds(formula: Callable[..., Any], expected: Any, *arguments: Any, rounding: balls.Rounding) -> bool:
    """Whether certified balls enclose the expected numbers, and balls that round what floats give."""
    certified = np.ravel(formula(*map(balls.array, arguments)))
    permitted = np.ravel(formula(*(balls.array(x, rounding) for x in arguments)))
    got = np.ravel(formula(*arguments))
    return all(map(encloses, certified, np.ravel(expected))) and all(
        map(encloses, permitted, map(float, got))
    )


@examples(INPUTS)
@given(calls("gae"))
def test_gae_by_definition(call: Call) -> None:
    """The weighted mean of the n-step advantages, on rows with their masked positions deleted."""
    options = {name: call.case.options[name] for name in ("gamma", "lam")}
    without_holes = replace(call, case=replace(call.case, options=options))
    by_definition = replace(OPERATIONS["gae"], reference=reference.gae_by_definition)
    assert agrees(by_definition, scalar.on_rows(scalar.gae_by_definition), without_holes)


@examples(INPUTS)
@given(st.floats(-10.0, 10.0), discount | st.floats(0.0, 1.0))
def test_one_token_has_nothing_to_average(reward: float, lam: float) -> None:
    row: Any = ([[reward]], [[1.0]], np.array([[True]]), [2.0])
    advantage = reference.gae_by_definition(*row, gamma=0.5, lam=lam)
    assert advantage == reference.n_step_advantages(*row, gamma=0.5, n=1)


@examples(INPUTS)
@given(st.integers(1, 12), discount | st.floats(0.0, 1.0))
def test_n_step_weights(count: int, lam: float) -> None:
    weights = scalar.n_step_weights(count, Fraction(lam))
    assert sum(weights) == 1

    def formula(lam: Any) -> Any:
        return reference.n_step_weights(count, lam=lam)

    assert holds(formula, weights, lam, rounding=EXACTLY_ROUNDED)


@examples(INPUTS)
@given(*[st.floats(2.0**-40, 1.0 - 2.0**-40)] * 2, st.floats(2.0**-40, 1.0))
def test_reward_horizon(epsilon: float, gamma: float, lam: float) -> None:
    """γ is not so close to 1 that γλ may round to 1."""
    with mpmath.workdps(DIGITS):
        exact = scalar.reward_horizon(*map(Fraction, (epsilon, gamma, lam)))

    def formula(epsilon: Any, gamma: Any, lam: Any) -> Any:
        return reference.reward_horizon(epsilon, gamma=gamma, lam=lam)

    assert holds(formula, [exact], epsilon, gamma, lam, rounding=LOGARITHMS_TOO)


@examples(INPUTS)
@given(st.integers(1, 4), st.integers(0, 2**32 - 1), discount, discount)
def test_gae_variance(size: int, seed: int, gamma: float, lam: float) -> None:
    covariance = np.random.default_rng(seed).normal(size=(size, size))
    rationals = [[Fraction(entry) for entry in line] for line in covariance]
    exact = scalar.gae_variance(rationals, Fraction(gamma), Fraction(lam))

    def formula(covariance: Any, gamma: Any, lam: Any) -> Any:
        return reference.gae_variance(covariance, gamma=gamma, lam=lam)

    assert holds(formula, [exact], covariance, gamma, lam, rounding=EXACTLY_ROUNDED)


def test_every_function_has_a_second_definition() -> None:
    public = {
        name for name, x in vars(reference).items() if callable(x) and x.__module__ == reference.__name__
    }
    assert {name for name in public if not name.startswith("_")} <= set(vars(scalar))
