"""The reference agrees with a second definition, exactly: no tolerance, an enclosure of the rational."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given

from reference import gae as reference
from reference.numbers import balls
from reference.numbers.formats import FORMATS
from tests.examples import examples
from tests.formulas import scalar_gae as scalar
from tests.numbers.enclosure import DIGITS, encloses

INPUTS = 1000
"""Inputs that are drawn for each operation."""

MAX_ROWS, MAX_TOKENS = 3, 5

ROUNDING = balls.Rounding(FORMATS["float64"], factor=1.0)
"""What each operation of NumPy loses in float64, where it is + - * / or a root."""

NUMBERS = np.concatenate(
    [
        [0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 3.0, 0.1, -1 / 3, 1e-3, 1e4, -1e4, 88.0, 1 + 2**-52, 1e-8, -1e8],
        np.random.default_rng(0).normal(size=240),
    ]
)
"""What a byte of input stands for; as a hyper-parameter, so does DISCOUNTS."""
DISCOUNTS = np.array([1.0, 0.0, 0.5, 0.99, 0.95, 0.9, 0.997, 0.25])


@dataclass
class Drawn:
    """One batch, read off the bytes that Hypothesis draws: B, T, masks, numbers, hyper-parameters."""

    raw: np.ndarray

    def __post_init__(self) -> None:
        self.shape = (1 + self.raw[0] % MAX_ROWS, 1 + self.raw[1] % MAX_TOKENS)
        self.gamma, self.lam = (float(DISCOUNTS[b % len(DISCOUNTS)]) for b in self.raw[2:4])
        self.option, self.place = int(self.raw[4]), 5
        self.mask = self._take(self.shape) >= 64
        garbage = np.nan if self.option % 2 else -1e4
        self.rewards, self.values = (
            np.where(self.mask, NUMBERS[self._take(self.shape)], garbage) for _ in range(2)
        )
        self.bootstrap_value = NUMBERS[self._take(self.shape[:1])]

    def _take(self, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape))
        self.place += size
        return self.raw[self.place - size : self.place].reshape(shape)

    def rows(self) -> list[scalar.Row]:
        """The batch as rows of rationals; what lies under the mask is left out."""
        arrays = (self.rewards, self.values, self.mask.tolist(), self.bootstrap_value)
        return [
            scalar.Row(_rationals(rewards), _rationals(values), mask, Fraction(end))
            for rewards, values, mask, end in zip(*arrays, strict=True)
        ]


def _rationals(x: np.ndarray) -> list[Fraction | None]:
    return [Fraction(number) if number == number else None for number in x]


SIZE = 5 + 3 * MAX_ROWS * MAX_TOKENS + MAX_ROWS
DRAWN = st.binary(min_size=SIZE, max_size=SIZE).map(lambda raw: Drawn(np.frombuffer(raw, dtype=np.uint8)))


def agrees(
    formula: Callable[..., Any],
    expected: dict[tuple[int, ...], Any],
    arguments: list[Any],
    rounding: balls.Rounding = ROUNDING,
    **options: Any,
) -> bool:
    """Whether certified balls enclose the expected values, and rounding balls what floats give.

    Where nothing is expected, at masked positions, all of them are to be 0.
    """

    def run(convert: Callable[[Any], Any]) -> Any:
        return np.asarray(
            formula(
                *(convert(x) if x.dtype == np.float64 else x for x in arguments),
                **{name: convert(x) if type(x) is float else x for name, x in options.items()},
            )
        )

    certified, permitted, got = run(balls.array), run(lambda x: balls.array(x, rounding)), run(lambda x: x)
    return all(
        encloses(certified[i], expected[i]) and encloses(permitted[i], float(got[i]))
        if i in expected
        else certified[i].value.is_zero() and got[i] == 0.0
        for i in np.ndindex(got.shape)
    )


def by_position(results: list[scalar.Result]) -> dict[tuple[int, ...], Any]:
    return {(b, t): value for b, result in enumerate(results) for t, value in result.items()}


ON_ROWS: dict[str, Callable[[Drawn], dict[str, Any]]] = {
    "td_errors": lambda x: {"gamma": x.gamma},
    "n_step_advantages": lambda x: {"gamma": x.gamma, "n": 1 + x.option % (MAX_TOKENS + 2)},
    "telescoped_advantages": lambda x: {"gamma": x.gamma, "n": 1 + x.option % (MAX_TOKENS + 2)},
    "gae_by_definition": lambda x: {"gamma": x.gamma, "lam": x.lam},
    "gae": lambda x: {"gamma": x.gamma, "lam": x.lam, "masked": ("skip", "zero")[x.option % 2]},
    "lambda_returns": lambda x: {"gamma": x.gamma, "lam": x.lam, "masked": ("skip", "zero")[x.option % 2]},
    "discounted_returns": lambda x: {"gamma": x.gamma},
}
"""The operations that take a row each, and the options of a call."""


@pytest.mark.parametrize("name", ON_ROWS)
@examples(INPUTS)
@given(drawn=DRAWN)
def test_rows(name: str, drawn: Drawn) -> None:
    options = ON_ROWS[name](drawn)
    exact = {key: Fraction(x) if type(x) is float else x for key, x in options.items()}
    expected = by_position([getattr(scalar, name)(row, **exact) for row in drawn.rows()])
    values = [] if name == "discounted_returns" else [drawn.values]
    arguments = [drawn.rewards, *values, drawn.mask, drawn.bootstrap_value]
    assert set(expected) == set(zip(*np.nonzero(drawn.mask), strict=True))
    assert agrees(getattr(reference, name), expected, arguments, **options)


@examples(INPUTS)
@given(drawn=DRAWN)
def test_whiten(drawn: Drawn) -> None:
    shift_mean, ddof = bool(drawn.option % 2), drawn.option // 2 % 3
    eps = (1e-8, 1e-5, 1.0, 0.0)[drawn.option // 8 % 4]
    x = [Fraction(number) for number in drawn.rewards[drawn.mask]]
    eps = eps if len(set(x)) > 1 else 1.0  # what is assumed of equal values
    with mpmath.workdps(DIGITS):
        whitened = scalar.whiten(x, shift_mean, ddof, Fraction(eps))
    expected = dict(zip(zip(*np.nonzero(drawn.mask), strict=True), whitened, strict=True))
    options: dict[str, Any] = {"shift_mean": shift_mean, "ddof": ddof, "eps": eps}
    assert agrees(reference.whiten, expected, [drawn.rewards, drawn.mask], **options)


@examples(INPUTS)
@given(count=st.integers(1, 12), lam=st.sampled_from(DISCOUNTS.tolist()) | st.floats(0.0, 1.0))
def test_n_step_weights(count: int, lam: float) -> None:
    weights = scalar.n_step_weights(count, Fraction(lam))
    assert sum(weights) == 1
    expected: dict[tuple[int, ...], Any] = {(n,): weight for n, weight in enumerate(weights)}
    assert agrees(lambda lam: reference.n_step_weights(count, lam=lam), expected, [], lam=lam)


@examples(INPUTS)
@given(*[st.floats(2.0**-40, 1.0 - 2.0**-40)] * 2, st.floats(2.0**-40, 1.0))
def test_reward_horizon(epsilon: float, gamma: float, lam: float) -> None:
    """γ is not so close to 1 that γλ may round to 1."""
    with mpmath.workdps(DIGITS):
        exact = scalar.reward_horizon(*map(Fraction, (epsilon, gamma, lam)))
    logs_too = balls.Rounding(FORMATS["float64"], 3.0)  # NumPy's log is off by 1.5 units in the last place
    options: dict[str, Any] = {"epsilon": epsilon, "gamma": gamma, "lam": lam}
    assert agrees(reference.reward_horizon, {(): exact}, [], logs_too, **options)


@examples(INPUTS)
@given(drawn=DRAWN, size=st.integers(1, 4))
def test_gae_variance(drawn: Drawn, size: int) -> None:
    covariance = NUMBERS[drawn.raw[5 : 5 + size * size]].reshape(size, size)
    rationals = [[Fraction(entry) for entry in line] for line in covariance]
    exact = scalar.gae_variance(rationals, Fraction(drawn.gamma), Fraction(drawn.lam))
    assert agrees(reference.gae_variance, {(): exact}, [covariance], gamma=drawn.gamma, lam=drawn.lam)


def test_every_function_has_a_second_definition() -> None:
    public = {
        name for name, x in vars(reference).items() if callable(x) and x.__module__ == reference.__name__
    }
    assert {name for name in public if not name.startswith("_")} <= set(vars(scalar))
