"""Derivations of the chapter `importance_sampling` about weights that are divided by their sum.

The reference takes the largest log-weight out, so symbolic weights come with a known order, in every order.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import sympy

from reference import importance_sampling as reference
from reference.numbers import symbols
from reference.numbers.formats import FORMATS
from spec.importance_sampling_estimators import HALF, effective, estimate, exp
from spec.proofs import Numbers, agree, derivation

QUARTER = sympy.Rational(1, 4)


def ordered_log_weights(count: int) -> Iterator[Any]:
    """Logarithms of symbolic weights W, W/(1 + d), ... in every order: it is known which is the largest."""
    first, *steps = symbols.array("d", (count,), positive=True)
    falling = [sympy.log(first) - sum(sympy.log(1 + d) for d in steps[:k]) for k in range(count)]
    yield from map(np.array, itertools.permutations(falling))


def equal(left: Any, right: Any) -> None:
    """Assert that two quotients of polynomials are equal: over a common denominator, nothing is left."""
    agree(sympy.cancel(sympy.together(left - right)), 0)


@derivation("is.self-normalised", status="verified for n <= 3")
def self_normalised_mean() -> None:
    """Σ w f / Σ w on the code, in every order of the weights; one sample gives f."""
    for count in (1, 2, 3):
        f = symbols.array("f", (count,))
        for logs in ordered_log_weights(count):
            value = reference.importance_sampling_mean(f, logs, self_normalized=True)
            equal(value * sum(exp(logs)), sum(exp(logs) * f))
            if count == 1:
                agree(value, f[0])


@derivation("is.self-normalised-shift", status="proved")
def shifts_cancel() -> Numbers:
    """(s w) / Σ (s w) is free of s, and so is the code, in every order; it runs where exp would overflow."""
    shift, first, rest = sympy.symbols("s w S", positive=True)
    agree(shift * first / (shift * rest), first / rest)
    for count in (1, 2, 3):
        f = symbols.array("f", (count,))
        for logs in ordered_log_weights(count):
            moved = logs + sympy.Symbol("c", real=True)
            value = reference.importance_sampling_mean(f, moved, self_normalized=True)
            equal(value * sum(exp(logs)), sum(exp(logs) * f))
            equal(reference.effective_sample_size(moved), reference.effective_sample_size(logs))
    for far in (-1e4, 1e4):
        logs = np.array([far, far + 1.0])
        mean = reference.importance_sampling_mean(np.arange(2.0), logs, self_normalized=True)
        assert 0.5 < mean < 1.0 < reference.effective_sample_size(logs) < 2.0
    return {"log-weight that overflows float32": np.log(FORMATS["float32"].largest)}


@derivation("is.self-normalised-bias", status="proved")
def consistent() -> Numbers:
    """In shares n_k/N = q_k the code gives E_p[f]; it is continuous in them, and they converge to q."""
    p, q = (np.array([sympy.Rational(n, 8) for n in x]) for x in ((2, 5, 1), (4, 1, 3)))
    f = symbols.array("f", (3,))
    sample = [0] * 4 + [1] * 1 + [2] * 3
    agree(estimate(f[sample], (p / q)[sample], self_normalized=True), sum(p * f))
    shares, weights = symbols.array("s", (3,)), symbols.array("w", (3,))
    limit = (sum(shares * weights * f) / sum(shares * weights)).subs(dict(zip(shares, q, strict=True)))
    agree(limit.subs(dict(zip(weights, p / q, strict=True))), sum(p * f))
    return {"q": QUARTER, "p": HALF} | {
        label: value for count in (1, 10, 100) for label, value in _mean_of_two(count).items()
    }


def _mean_of_two(count: int) -> Numbers:
    """Mean of the self-normalised estimate of p(a) = 1/2 from N samples of q(a) = 1/4, exactly."""
    weights, f = np.array([HALF / QUARTER, HALF / (1 - QUARTER)]), np.array([1, 0])
    mean = sympy.Integer(0)
    for hits in range(count + 1):
        chance = sympy.binomial(count, hits) * QUARTER**hits * (1 - QUARTER) ** (count - hits)
        sample = [0] * hits + [1] * (count - hits)
        mean += chance * estimate(f[sample], weights[sample], self_normalized=True)
    assert mean < HALF
    return {f"N = {count}": count, f"mean at {count}": mean}


@derivation("is.effective-sample-size", status="verified for n <= 3")
def effective_sample_size() -> Numbers:
    """(Σ w)² / Σ w² on the code, in every order of the weights; and N/(1 + χ²) where shares are q."""
    for count in (1, 2, 3):
        for logs in ordered_log_weights(count):
            equal(reference.effective_sample_size(logs) * sum(exp(2 * logs)), sum(exp(logs)) ** 2)
    p, q = np.array([HALF, HALF]), np.array([QUARTER, 1 - QUARTER])
    size = effective((p / q)[[0, 1, 1, 1]])
    chi_square = sum((p - q) ** 2 / q)
    agree(size, 4 / (1 + chi_square))
    return {"p": HALF, "q": QUARTER, "the other q": 1 - QUARTER, "χ²": chi_square, "share": size / 4}


@derivation("is.effective-sample-size-bounds", status="proved")
def effective_sample_size_bounds() -> None:
    """N Σw² - (Σw)² grows by Σ (w - v)² with a further weight v; (Σw)² - Σw² by 2 v Σw. Both on the code."""
    count, total, squares, new = sympy.symbols("N S_1 S_2 v", positive=True)

    def upper(n: Any, s: Any, s2: Any) -> Any:
        return n * s2 - s**2

    sum_of_squares = squares - 2 * new * total + count * new**2
    grown = (count + 1, total + new, squares + new**2)
    agree(upper(*grown) - upper(count, total, squares), sum_of_squares)
    agree(grown[1] ** 2 - grown[2] - (total**2 - squares), 2 * new * total)
    for size in (1, 2, 3):
        for logs in ordered_log_weights(size):
            pairs = list(itertools.combinations(exp(logs), 2))
            value, second = reference.effective_sample_size(logs), sum(exp(2 * logs))
            equal((size - value) * second, sum((a - b) ** 2 for a, b in pairs))
            equal((value - 1) * second, 2 * sum(a * b for a, b in pairs))
    same = sympy.Symbol("w", positive=True)
    for size in range(1, 6):
        agree(effective([same] * size), size)
