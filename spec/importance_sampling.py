"""Derivations of the chapter `importance_sampling` about ratios: of a token, of a trajectory, of a sequence.

Each region between two kinks has a symbol for the distance from them, a positive one, so that SymPy
decides every comparison of the reference's own expression.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import sympy

from reference import importance_sampling as reference
from reference.numbers import symbols
from reference.numbers.formats import FORMATS
from spec.proofs import Numbers, agree, derivation

LONGEST = 4
"""Rows of symbols are tried up to this length."""

X, OLD, CLIP, UPSTREAM = (sympy.Symbol(name, real=True) for name in ("x", "x_old", "c", "g"))
NEAR, FAR = sympy.symbols("n f", positive=True)


class Region(NamedTuple):
    """A set of log-ratios, written with positive symbols, and the ratio and its derivative there."""

    values: dict[Any, Any]
    ratio: Any
    derivative: Any


REGIONS = {
    "inside": Region({X: OLD + NEAR - FAR, CLIP: NEAR + FAR}, sympy.exp(NEAR - FAR), sympy.exp(NEAR - FAR)),
    "above": Region({X: OLD + NEAR + FAR, CLIP: NEAR}, sympy.exp(NEAR), 0),
    "below": Region({X: OLD - NEAR - FAR, CLIP: NEAR}, sympy.exp(-NEAR), 0),
}
"""|ℓ| < c with both distances positive, and the two sides on which the clamp acts."""


def one(x: Any) -> Any:
    """An array of shape (1, 1)."""
    return np.array([[sympy.sympify(x)]], dtype=object)


def ratio(x: Any, old: Any, **options: Any) -> Any:
    """The reference's ratio of one token."""
    return reference.importance_ratio(one(x), one(old), **options)[0, 0]


def ratio_gradient(upstream: Any, x: Any, old: Any, **options: Any) -> Any:
    """The reference's gradient of it."""
    return reference.importance_ratio_gradient(one(upstream), one(x), one(old), **options)[0, 0]


def rows_of_symbols() -> Iterator[tuple[Any, Any, Any]]:
    """Log-probabilities, old ones and a mask: one row, every mask up to `LONGEST` tokens."""
    for length in range(1, LONGEST + 1):
        for mask in itertools.product((False, True), repeat=length):
            logprobs, old_logprobs = (symbols.array(name, (1, length)) for name in ("x", "y"))
            yield logprobs, old_logprobs, np.array([mask])


@derivation("is.ratio", status="proved")
def ratio_of_probabilities() -> None:
    """exp(log π - log π_old) = π / π_old, without a clamp, and with one that is not reached."""
    new, old = sympy.symbols("pi pi_old", positive=True)
    agree(ratio(sympy.log(new), sympy.log(old), log_ratio_clip=None), new / old)
    within = REGIONS["inside"]
    agree(ratio(X, OLD, log_ratio_clip=CLIP).subs(within.values, simultaneous=True), within.ratio)


@derivation("is.log-ratio-clamp", status="proved")
def clamp_of_the_log_ratio() -> Numbers:
    """Value and gradient in each region; at a bound the value is that of both sides."""
    value, gradient = (
        ratio(X, OLD, log_ratio_clip=CLIP),
        ratio_gradient(UPSTREAM, X, OLD, log_ratio_clip=CLIP),
    )
    for region in REGIONS.values():
        agree(value.subs(region.values, simultaneous=True), region.ratio)
        agree(gradient.subs(region.values, simultaneous=True), UPSTREAM * region.derivative)
    for sign in (-1, 1):
        at_the_bound = value.subs({X: OLD + sign * NEAR, CLIP: NEAR}, simultaneous=True)
        agree(at_the_bound, sympy.exp(sign * NEAR))
    largest = {name: FORMATS[name].largest for name in ("float16", "float32")}
    overflow = {f"log-ratio that overflows {name}": np.log(x) for name, x in largest.items()}
    ratios = reference.importance_ratio(np.array([[20.0, 21.0]]), np.zeros((1, 2)))
    assert ratios[0, 1] == ratios[0, 0] > 0
    return {"c": 20.0, "the largest ratio": ratios[0, 1]} | overflow


@derivation("is.gradient-of-ratio", status="proved")
def gradient_of_the_ratio() -> Numbers:
    """SymPy's derivative of the code's ratio is the code's gradient: without a clamp, and in each region."""
    free = ratio(X, OLD, log_ratio_clip=None)
    agree(UPSTREAM * sympy.diff(free, X), ratio_gradient(UPSTREAM, X, OLD, log_ratio_clip=None))
    clamped, gradient = (
        ratio(X, OLD, log_ratio_clip=CLIP),
        ratio_gradient(UPSTREAM, X, OLD, log_ratio_clip=CLIP),
    )
    for region in REGIONS.values():
        derivative = sympy.diff(clamped, X).subs(region.values, simultaneous=True)
        agree(UPSTREAM * derivative, gradient.subs(region.values, simultaneous=True))
    new, old = sympy.symbols("pi pi_old", positive=True)
    agree(sympy.diff(ratio(sympy.log(new), sympy.log(old), log_ratio_clip=None), new), 1 / old)
    rare = sympy.Rational(1, 1000)
    weight = ratio_gradient(1, sympy.log(rare), sympy.log(rare), log_ratio_clip=None) / rare
    return {"old probability": rare, "weight": weight}


@derivation("is.gradient", status="proved")
def gradient_of_the_surrogate() -> None:
    """Three actions, any policy: log-probabilities are functions of a parameter, and the code's ρ is used."""
    parameter = sympy.Symbol("theta", real=True)
    policy = [sympy.Function(f"l_{a}")(parameter) for a in range(3)]
    old, advantages = symbols.array("o", (3,)), symbols.array("A", (3,))
    surrogate, gradient, on_policy = (sympy.Integer(0) for _ in range(3))
    for logprob, old_logprob, advantage in zip(policy, old, advantages, strict=True):
        slope = sympy.diff(logprob, parameter)
        surrogate += sympy.exp(old_logprob) * advantage * ratio(logprob, old_logprob, log_ratio_clip=None)
        weight = ratio_gradient(advantage, logprob, old_logprob, log_ratio_clip=None)
        gradient += sympy.exp(old_logprob) * weight * slope
        on_policy += sympy.exp(logprob) * advantage * slope
    agree(sympy.diff(surrogate, parameter), gradient)
    mean = sum(sympy.exp(logprob) * advantage for logprob, advantage in zip(policy, advantages, strict=True))
    agree(sympy.diff(mean, parameter), on_policy)
    agree(gradient.subs(dict(zip(old, policy, strict=True)), simultaneous=True), on_policy)


@derivation("is.first-epoch", status="proved")
def first_epoch() -> Numbers:
    """On equal log-probabilities ρ is the number 1, its gradient upstream · 1, with and without a clamp."""
    for options in ({}, {"log_ratio_clip": None}, {"log_ratio_clip": NEAR}):
        assert ratio(X, X, **options) == 1
        agree(ratio_gradient(UPSTREAM, X, X, **options), UPSTREAM)
    for logprobs, _, mask in rows_of_symbols():
        assert reference.sequence_importance_ratio(logprobs, logprobs, mask)[0] == 1
    moved = reference.importance_ratio(np.array([[-0.9]]), np.array([[-1.0]]))[0, 0]
    return {"step": 0.1, "ratio behind it": moved}


@derivation("is.trajectory", status="proved")
def trajectory_is_a_product() -> None:
    """Sums of log-ratios are products of ratios, at every mask; what policies share cancels."""
    for logprobs, old_logprobs, mask in rows_of_symbols():
        ratios = reference.importance_ratio(logprobs, old_logprobs, log_ratio_clip=None)
        product = sympy.prod(ratios[mask])
        agree(reference.trajectory_importance_ratio(logprobs, old_logprobs, mask), [product])
    names = sympy.symbols("p_1 p_2 o_1 o_2 T_1 T_2", positive=True)
    new, old, environment = np.array(names[:2]), np.array(names[2:4]), np.array(names[4:])
    logs, old_logs = (np.array([[sympy.log(x) for x in policy]]) for policy in (new, old))
    whole = np.prod(new * environment) / np.prod(old * environment)
    agree(reference.trajectory_importance_ratio(logs, old_logs, np.array([[True, True]])), [whole])


@derivation("is.trajectory-variance", status="proved")
def trajectory_variance() -> Numbers:
    """One more independent step multiplies E[ρ²] by its own 1 + χ²; then every path of up to three steps."""
    product, step, more = sympy.symbols("P chi d", positive=True)
    agree(reference.trajectory_weight_variance(np.array([product - 1, step])), product * (1 + step) - 1)
    assert sympy.expand(product * (1 + step + more) - product * (1 + step)).is_positive  # (1 + χ²)^N is least
    for length in range(1, LONGEST):
        new, old = (symbols.array(name, (2, length), positive=True) for name in ("p", "q"))
        second_moment = 0
        for path in itertools.product((0, 1), repeat=length):
            there = (np.array(path), np.arange(length))
            logs, old_logs = (np.array([[sympy.log(p) for p in x[there]]]) for x in (new, old))
            [whole] = reference.trajectory_importance_ratio(logs, old_logs, np.ones((1, length), dtype=bool))
            second_moment += np.prod(old[there]) * whole**2
        chi_squares = sum(new**2 / old) - 1
        agree(second_moment - 1, reference.trajectory_weight_variance(chi_squares))
    numbers: Numbers = {"χ² of a step": 0.01}
    for length in (10, 100, 1000):
        variance = reference.trajectory_weight_variance(np.full(length, 0.01))
        assert variance > length * 0.01
        numbers |= {f"{length} steps": length, f"variance of {length}": variance}
    return numbers


@derivation("is.sequence-ratio", status="verified for T <= 4")
def sequence_is_a_geometric_mean() -> Numbers:
    """Its N-th power is the product of the active ratios, at every mask; an empty row has 1."""
    for logprobs, old_logprobs, mask in rows_of_symbols():
        [sequence] = reference.sequence_importance_ratio(logprobs, old_logprobs, mask)
        [trajectory] = reference.trajectory_importance_ratio(logprobs, old_logprobs, mask)
        agree(sequence ** int(mask.sum()), trajectory)
        if not mask.any():
            assert sequence == 1
    row, nothing, mask = np.full((1, 1000), -1.0), np.full((1, 1000), -1.01), np.ones((1, 1000), dtype=bool)
    [sequence] = reference.sequence_importance_ratio(row, nothing, mask)
    [trajectory] = reference.trajectory_importance_ratio(row, nothing, mask)
    return {"tokens": 1000, "log-ratio": 0.01, "sequence": sequence, "trajectory": trajectory}


@derivation("is.sequence-ratio-gradient", status="verified for T <= 4")
def gradient_of_the_sequence_ratio() -> None:
    """SymPy's derivatives of the code's ratio are the code's gradient, at every mask."""
    upstream = np.array([UPSTREAM], dtype=object)
    for logprobs, old_logprobs, mask in rows_of_symbols():
        [sequence] = reference.sequence_importance_ratio(logprobs, old_logprobs, mask)
        derivative = [[UPSTREAM * sympy.diff(sequence, x) for x in logprobs[0]]]
        gradient = reference.sequence_importance_ratio_gradient(upstream, logprobs, old_logprobs, mask)
        agree(gradient, derivative)


@derivation("is.truncated", status="proved")
def truncation_pieces() -> None:
    """A weight below C is kept, at C it is C in both modes, above C it is C or 0; by logarithms too."""
    for mode, beyond in (("truncate", NEAR), ("mask", 0)):
        agree(_truncated(NEAR, NEAR + FAR, mode), NEAR)
        agree(_truncated(NEAR, NEAR, mode), NEAR)
        agree(_truncated(NEAR + FAR, NEAR, mode), beyond)
    less = sympy.Symbol("l", real=True)
    for log_weight, log_cap in ((less, less + FAR), (less, less), (less + FAR, less)):
        agree(_truncated_by_logarithms(log_weight, log_cap), sympy.exp(less))


@derivation("is.truncated-bias", status="proved")
def truncation_bias() -> Numbers:
    """What the code takes from w: nothing below C, and w - C or w above; q w = p. Then a witness."""
    for mode, taken in (("truncate", FAR), ("mask", NEAR + FAR)):
        agree(NEAR - _truncated(NEAR, NEAR + FAR, mode), 0)
        agree(NEAR + FAR - _truncated(NEAR + FAR, NEAR, mode), taken)
    new, old = sympy.symbols("p q", positive=True)
    agree(old * ratio(sympy.log(new), sympy.log(old), log_ratio_clip=None), new)
    probability, sampled = sympy.Rational(1, 2), sympy.Rational(1, 8)
    weight = probability / sampled
    means = {mode: sampled * _truncated(weight, sympy.Integer(2), mode) for mode in ("truncate", "mask")}
    assert means == {"truncate": probability / 2, "mask": 0}
    return {"p": probability, "q": sampled, "w": weight} | means


def _truncated(weight: Any, cap: Any, mode: str) -> Any:
    """What the code makes of a weight."""
    weights = reference.truncated_importance_weights(one(sympy.log(weight)), one(0), cap=cap, mode=mode)
    return weights[0, 0]


def _truncated_by_logarithms(log_weight: Any, log_cap: Any) -> Any:
    """What the code makes of a logarithm."""
    cap = sympy.exp(log_cap)
    return reference.weights_truncated_by_logarithms(one(log_weight), one(0), cap=cap)[0, 0]
