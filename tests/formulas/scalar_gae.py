"""The chapter `gae` a second time: loops over the numbers of one row, from the words of the clauses alone.

Nothing here is an array, and nothing is shared with the reference: sums are written out where the
reference recurses, and the other way round. On rationals every result is exact; only the root and the
logarithms need mpmath, at the precision that the caller has set. Results are {position: value}, for the
active positions of a row.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import mpmath

from tests.formulas.scalars import real

Result = dict[int, Any]


class Row(NamedTuple):
    """One response: what lies at positions where the mask is False is never read."""

    rewards: Sequence[Any]
    values: Sequence[Any]
    mask: Sequence[bool]
    bootstrap_value: Any


def td_errors(row: Row, gamma: Fraction) -> Result:
    """δ_t = r_t + γ V(s_{t+1}) - V(s_t); behind the last active token lies the bootstrap value."""
    result = {}
    for t in active(row):
        later = [u for u in active(row) if u > t]
        next_value = row.values[later[0]] if later else row.bootstrap_value
        result[t] = row.rewards[t] + gamma * next_value - row.values[t]
    return result


def n_step_advantages(row: Row, gamma: Fraction, n: int) -> Result:
    """Σ_{l<n} γ^l r_{t+l} + γ^n V(s_{t+n}) - V(s_t), with as many steps as are left where n is more."""
    times, result = active(row), {}
    states = [row.values[t] for t in times] + [row.bootstrap_value]
    for k, t in enumerate(times):
        steps = min(n, len(times) - k)
        gain = sum((gamma**step * row.rewards[times[k + step]] for step in range(steps)), Fraction(0))
        result[t] = gain + gamma**steps * states[k + steps] - states[k]
    return result


def telescoped_advantages(row: Row, gamma: Fraction, n: int) -> Result:
    """Σ_{l<n} γ^l δ_{t+l}, over the tokens that are left where n is more."""
    errors, times, result = td_errors(row, gamma), active(row), {}
    for k, t in enumerate(times):
        result[t] = sum(gamma**step * errors[u] for step, u in enumerate(times[k : k + n]))
    return result


def n_step_weights(count: int, lam: Fraction) -> list[Fraction]:
    """(1-λ) λ^{n-1} for n < count, and λ^{count-1} for the last."""
    return [(1 - lam if n < count else 1) * lam ** (n - 1) for n in range(1, count + 1)]


def gae_by_definition(row: Row, gamma: Fraction, lam: Fraction) -> Result:
    """The n-step advantages weighted; N is the number of steps that are left from t on."""
    times, result = active(row), {}
    for k, t in enumerate(times):
        weights = n_step_weights(len(times) - k, lam)
        result[t] = sum(w * n_step_advantages(row, gamma, n)[t] for n, w in enumerate(weights, start=1))
    return result


def gae(row: Row, gamma: Fraction, lam: Fraction, masked: str = "skip") -> Result:
    """Σ_l (γλ)^l δ_{t+l}."""
    steps = row if masked == "skip" else with_holes_as_steps(row)
    errors, times = td_errors(steps, gamma), active(steps)
    sums = {
        t: sum((gamma * lam) ** step * errors[u] for step, u in enumerate(times[k:]))
        for k, t in enumerate(times)
    }
    return {t: sums[t] for t in active(row)}


def lambda_returns(row: Row, gamma: Fraction, lam: Fraction, masked: str = "skip") -> Result:
    """G_t = r_t + γ ((1-λ) V_{t+1} + λ G_{t+1}), from G_N = V_N = the bootstrap value."""
    steps = row if masked == "skip" else with_holes_as_steps(row)
    next_value = next_return = steps.bootstrap_value
    result = {}
    for t in reversed(active(steps)):
        result[t] = steps.rewards[t] + gamma * ((1 - lam) * next_value + lam * next_return)
        next_value, next_return = steps.values[t], result[t]
    return {t: result[t] for t in active(row)}


def discounted_returns(row: Row, gamma: Fraction) -> Result:
    """Σ_l γ^l r_{t+l} + γ^{N-t} V_N."""
    times, result = active(row), {}
    for k, t in enumerate(times):
        gain = sum(gamma**step * row.rewards[u] for step, u in enumerate(times[k:]))
        result[t] = gain + gamma ** (len(times) - k) * row.bootstrap_value
    return result


def whiten(x: Sequence[Fraction], shift_mean: bool, ddof: int, eps: Fraction) -> list[Any]:
    """(x - mean) / √(var + eps) of the active numbers of a batch; 0 where they are no more than ddof."""
    if len(x) <= ddof:
        return [Fraction(0)] * len(x)
    mean = sum(x) / Fraction(len(x))
    variance = sum((number - mean) ** 2 for number in x) / Fraction(len(x) - ddof)
    root = mpmath.sqrt(real(variance + eps))
    return [real(number - mean) / root + (0 if shift_mean else real(mean)) for number in x]


def reward_horizon(epsilon: Fraction, gamma: Fraction, lam: Fraction) -> Any:
    """ln ε / ln(γλ)."""
    return mpmath.log(real(epsilon)) / mpmath.log(real(gamma * lam))


def gae_variance(covariance: Sequence[Sequence[Fraction]], gamma: Fraction, lam: Fraction) -> Fraction:
    """Σ_i Σ_j (γλ)^{i+j} Cov(δ_{t+i}, δ_{t+j})."""
    total = Fraction(0)
    for i, line in enumerate(covariance):
        for j, entry in enumerate(line):
            total += (gamma * lam) ** (i + j) * entry
    return total


def active(row: Row) -> list[int]:
    """Positions that take part, in order."""
    return [t for t, takes_part in enumerate(row.mask) if takes_part]


def with_holes_as_steps(row: Row) -> Row:
    """The row whose holes are time steps with reward and value 0, up to the last active token."""
    last = max(active(row), default=-1)
    rewards = [x if takes_part else Fraction(0) for x, takes_part in zip(row.rewards, row.mask, strict=True)]
    values = [x if takes_part else Fraction(0) for x, takes_part in zip(row.values, row.mask, strict=True)]
    return Row(rewards, values, [t <= last for t in range(len(row.mask))], row.bootstrap_value)


def on_rows(formula: Callable[..., Result], *, values: bool = True) -> Callable[..., list[list[Any]]]:
    """The formula at every active position of a batch, None elsewhere."""

    def of_batch(rewards: Any, *others: Any, **options: Any) -> list[list[Any]]:
        columns = (rewards, *others) if values else (rewards, rewards, *others)
        rows = [Row(*row) for row in zip(*columns, strict=True)]
        results = [formula(row, **options) for row in rows]
        return [
            [result.get(t) for t in range(len(row.mask))] for row, result in zip(rows, results, strict=True)
        ]

    return of_batch


def _whitened(x: Any, mask: Any, *, shift_mean: bool, ddof: int, eps: Fraction) -> list[list[Any]]:
    places = [(b, t) for b, row in enumerate(mask) for t, active in enumerate(row) if active]
    results = dict(zip(places, whiten([x[b][t] for b, t in places], shift_mean, ddof, eps), strict=True))
    return [[results.get((b, t)) for t in range(len(row))] for b, row in enumerate(mask)]


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "td_errors": on_rows(td_errors),
    "n_step_advantages": on_rows(n_step_advantages),
    "gae": on_rows(gae),
    "lambda_returns": on_rows(lambda_returns),
    "discounted_returns": on_rows(discounted_returns, values=False),
    "whiten": _whitened,
}
"""The operations of the protocol on nested lists."""
