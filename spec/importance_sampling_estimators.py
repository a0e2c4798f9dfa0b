"""Derivations of the chapter `importance_sampling` about weighted means: bias and variance.

Means over samples are exact: every sample of a finite space, with its probability, is given to the code.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import sympy

from reference import importance_sampling as reference
from reference.numbers import symbols
from spec.proofs import Numbers, agree, derivation

HALF = sympy.Rational(1, 2)


def estimate(f_values: Any, weights: Any, **options: Any) -> Any:
    """The reference's estimate from exact weights."""
    return reference.importance_sampling_mean(exact(f_values), log(exact(weights)), **options)


def effective(weights: Any) -> Any:
    """The reference's effective sample size of exact weights."""
    return reference.effective_sample_size(log(exact(weights)))


exact = np.frompyfunc(sympy.sympify, 1, 1)
log = np.frompyfunc(lambda weight: sympy.log(weight), 1, 1)
exp = np.frompyfunc(sympy.exp, 1, 1)


def samples(q: Any, count: int) -> Iterator[tuple[Any, list[int]]]:
    """Every sample of so many outcomes, with its probability."""
    for outcomes in itertools.product(range(len(q)), repeat=count):
        yield sympy.prod([q[k] for k in outcomes]), list(outcomes)


def space(size: int) -> tuple[Any, Any, Any]:
    """Symbolic p, q and f on a space of so many outcomes; p and q sum to 1."""
    p, q = (symbols.array(name, (size,), positive=True) for name in ("p", "q"))
    for x in (p, q):
        x[-1] = 1 - sum(x[:-1])
    return p, q, symbols.array("f", (size,))


@derivation("is.definition", status="proved")
def change_of_measure() -> Numbers:
    """q (p/q) f = p f, outcome by outcome; where q is 0 and p f is not, the outcome never comes up."""
    p, q = sympy.symbols("p q", positive=True)
    f = sympy.Symbol("f", real=True)
    agree(q * estimate([f], [p / q]), p * f)
    likely, missed = 1, 10
    truth = HALF * likely + HALF * missed
    always = estimate([likely] * 3, [HALF] * 3)
    agree(always, HALF)
    return {"f of the missing outcome": missed, "mean": truth, "estimate": always}


@derivation("is.unbiased", status="proved")
def unbiased() -> None:
    """The code's estimate is the mean of single-sample ones, each with the mean E_p[f]; then every sample."""
    for count in range(1, 5):
        weights, f = symbols.array("w", (count,), positive=True), symbols.array("f", (count,))
        agree(estimate(f, weights), sum(estimate([f[i]], [weights[i]]) for i in range(count)) / count)
    for size, count in ((2, 1), (3, 1), (2, 2), (3, 2), (2, 3)):
        p, q, f = space(size)
        mean = sum(chance * estimate(f[s], (p / q)[s]) for chance, s in samples(q, count))
        agree(mean, sum(p * f))
    p, q, _ = space(3)
    agree(sum(chance * estimate([1], (p / q)[s]) for chance, s in samples(q, 1)), 1)


@derivation("is.variance", status="proved")
def variance() -> None:
    """q (w f)² = p w f², outcome by outcome; both sides on the code; N samples; and the best q."""
    p, q = sympy.symbols("p q", positive=True)
    f = sympy.Symbol("f", real=True)
    agree(q * estimate([f], [p / q]) ** 2, p * (p / q) * f**2)
    for size in (2, 3):
        p, q, f = space(size)
        mean, weights = sum(p * f), p / q
        second = sum(chance * estimate(f[s], weights[s]) ** 2 for chance, s in samples(q, 1))
        agree(second - mean**2, sum(p * weights * f**2) - mean**2)
        under_p = sum(p * f**2) - mean**2
        agree(second - mean**2 - under_p, sum(p * f**2 * (weights - 1)))
    p, q, f = space(2)
    of_two = sum(chance * estimate(f[s], (p / q)[s]) ** 2 for chance, s in samples(q, 2)) - sum(p * f) ** 2
    of_one = sum(chance * estimate(f[s], (p / q)[s]) ** 2 for chance, s in samples(q, 1)) - sum(p * f) ** 2
    agree(of_two, of_one / 2)
    _best_proposal()


def _best_proposal() -> None:
    """With f > 0 and q = p f / E_p[f], every sample estimates the mean."""
    p, f = (symbols.array(name, (3,), positive=True) for name in ("p", "f"))
    mean = sum(p * f)
    for k in range(3):
        agree(estimate([f[k]], [p[k] / (p[k] * f[k] / mean)]), mean)


@derivation("is.chi-square", status="proved")
def second_moment_of_the_weight() -> Numbers:
    """q w² = (p - q)²/q + 2p - q for the code's w; for normals, p²/q is 1 + V times a normal density."""
    p, q = sympy.symbols("p q", positive=True)
    weight = estimate([1], [p / q])
    agree(q * weight**2, (p - q) ** 2 / q + 2 * p - q)
    x, first, second = sympy.symbols("x mu_1 mu_2", real=True)
    sigma = sympy.Symbol("sigma", positive=True)

    def log_density(mean: Any) -> Any:
        return -((x - mean) ** 2) / (2 * sigma**2) - sympy.log(sigma) - sympy.log(2 * sympy.pi) / 2

    moment: Any = 1 + reference.normal_weight_variance(first - second, sigma=sigma)
    integrand = 2 * log_density(first) - log_density(second)
    agree(integrand, sympy.log(moment) + log_density(2 * first - second))
    numbers: Numbers = {"samples": 1000, "d/σ of the first row": 0.5, "of the last": 3}
    for distance in (0.5, 1.0, 2.0, 3.0):
        value = reference.normal_weight_variance(distance, sigma=1.0)
        numbers |= {f"variance at {distance}": value, f"samples at {distance}": 1000 / (1 + value)}
    return numbers


@derivation("is.wrong-sign", status="witnessed")
def wrong_sign() -> Numbers:
    """100 samples of two outcomes, counted by how often the rare one came up: exact probabilities."""
    count, rare = 100, sympy.Rational(1, 1000)
    p, q, f = (
        np.array([HALF, HALF]),
        np.array([rare, 1 - rare]),
        np.array([sympy.Integer(-2), sympy.Integer(1)]),
    )
    truth, mean, wrong = sum(p * f), sympy.Integer(0), sympy.Integer(0)
    for hits in range(count + 1):
        chance = sympy.binomial(count, hits) * q[0] ** hits * q[1] ** (count - hits)
        sample = [0] * hits + [1] * (count - hits)
        value = estimate(f[sample], (p / q)[sample])
        mean += chance * value
        wrong += chance if value > 0 else 0
    assert truth < 0
    assert mean == truth
    without, once = (estimate(f[s], (p / q)[s]) for s in ([1] * count, [0] + [1] * (count - 1)))
    size = effective((p / q)[[1] * count])
    assert size == count
    return {
        "samples": count,
        "q of the rare outcome": rare,
        "mean": truth,
        "probability of the wrong sign": wrong,
        "estimate without it": without,
        "estimate with it once": once,
    }
