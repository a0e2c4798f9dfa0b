"""Derivations of the chapter `kl` on values: means, variances and bounds of the estimates, coefficients.

Three devices turn the code's own expressions into statements about every vocabulary:

- a *general token*: log-probabilities log p and log q of one token. An identity between means is one
  between the terms of its sums, up to multiples of terms whose sum is known: Σ p = Σ q = 1;
- a *path* from one policy to another, π = π_ref (1 + t h) with Σ π_ref h = 0, for what is small;
- the code itself, on rational probabilities, where every mean is a finite sum.
"""

import itertools
from typing import Any

import numpy as np
import sympy

from reference import kl as reference
from spec.pieces import piece
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import HALF, ONE, ZERO

P, Q = sympy.symbols("p q", positive=True)
LOG_RATIO = sympy.Symbol("ell", real=True)
T = sympy.Symbol("t", real=True)

POLICIES = tuple(
    tuple(sympy.Rational(x, sum(weights)) for x in weights)
    for weights in ((1,), (1, 1), (1, 3), (9999, 1), (1, 2, 3), (5, 1, 2))
)
"""Policies on small vocabularies."""

REFERENCE = (HALF, HALF)
QUARTER = (sympy.Rational(1, 4), sympy.Rational(3, 4))
NEARLY_LOST = (sympy.Rational(1, 10000), sympy.Rational(9999, 10000))
"""Policies that the pages' examples compare with the even reference."""


def logs(probabilities: Any) -> Any:
    """Log-probabilities, as one row of tokens."""
    return np.array([[sympy.log(p) for p in probabilities]], dtype=object)


def estimates(name: str, policy: Any, ref: Any) -> Any:
    """The code's estimate of each token of a vocabulary."""
    return reference.kl_estimate(logs(policy), logs(ref), estimator=name)[0]


def of_token(name: str) -> Any:
    """The code's estimate of a general token, of probability p under the policy and q under the reference."""
    return estimates(name, [P], [Q])[0]


def of_log_ratio(name: str) -> Any:
    """The code's estimate of a token with the log-ratio ℓ."""
    return reference.kl_estimate(np.array([[LOG_RATIO]]), np.array([[ZERO]]), estimator=name)[0, 0]


def mean(policy: Any, values: Any) -> Any:
    """Σ_a π(a) value(a)."""
    return sum((p * x for p, x in zip(policy, values, strict=True)), ZERO)


def divergence(policy: Any, ref: Any) -> Any:
    """The code's full divergence, from log-probabilities as logits."""
    return reference.kl_divergence(logs(policy)[None], logs(ref)[None])[0, 0]


def pairs() -> list[tuple[Any, Any]]:
    """Every two of the policies that share a vocabulary."""
    return [(p, q) for p, q in itertools.product(POLICIES, repeat=2) if len(p) == len(q)]


@derivation("kl.estimators", status="proved")
def exchanged_arguments() -> Numbers:
    """k1 is odd, k2 and |ℓ| are even, and k3 is neither."""
    for name, factor in (("k1", -1), ("k2", 1), ("abs", 1)):
        agree(of_token(name), factor * estimates(name, [Q], [P])[0])
    ahead, back = (of_log_ratio("k3").subs(LOG_RATIO, at) for at in (1, -1))
    assert back > ahead > 0
    return {"k3 at 1": ahead, "k3 at -1": back}


@derivation("kl.non-negative", status="proved")
def convex_with_minimum_zero() -> None:
    """k2 and k3 are strictly convex in ℓ with value and slope 0 at ℓ = 0; |ℓ| is ±ℓ on either side."""
    for name in ("k2", "k3"):
        estimate = of_log_ratio(name)
        assert sympy.diff(estimate, LOG_RATIO, 2).is_positive
        assert estimate.subs(LOG_RATIO, 0) == sympy.diff(estimate, LOG_RATIO).subs(LOG_RATIO, 0) == 0
    for point in (-1, 1):
        agree(piece(of_log_ratio("abs"), {LOG_RATIO: point}), point * LOG_RATIO)


@derivation("kl.k1-negative", status="witnessed")
def k1_pays() -> Numbers:
    """The token that the policy made less likely has a negative k1; the mean is a divergence all the same."""
    first, second = estimates("k1", QUARTER, REFERENCE)
    full = mean(QUARTER, (first, second))
    assert first < 0 < full < second
    return {"π": 0.25, "of the other": 0.75, "π_ref": 0.5, "first": first, "second": second, "KL": full}


@derivation("kl.k3-cancellation", status="witnessed")
def k3_loses_its_digits() -> Numbers:
    """expm1 is the same expression; in float32, the three terms as they stand come out below 0."""
    x = np.array([LOG_RATIO], dtype=object)
    agree(reference.k3_by_expm1(x), [of_log_ratio("k3")])
    small = np.float32(0.0001)
    as_it_stands = np.exp(-small) - np.float32(1) + small
    exact = reference.k3_by_expm1(np.array([1e-4]))[0]
    kept = reference.k3_by_expm1(np.array([small]))[0]
    assert as_it_stands < 0 < exact
    assert abs(kept - exact) < abs(as_it_stands - exact) / 100
    return {"ℓ": 0.0001, "k3": exact, "as it stands": as_it_stands}


@derivation("kl.unbiased", status="proved")
def k1_and_k3_are_unbiased() -> Numbers:
    """p k1 is the divergence's term, and p k3 - p k1 = q - p, whose sum over a common support is 0."""
    agree(P * of_token("k1"), P * (sympy.log(P) - sympy.log(Q)))
    agree(P * of_token("k3") - P * of_token("k1"), Q - P)
    for policy, ref in pairs():
        for name in ("k1", "k3"):
            agree(mean(policy, estimates(name, policy, ref)), divergence(policy, ref))
    full, [alone] = excluded_half(), estimates("k3", [ONE], [HALF])
    agree(full - alone, HALF)
    return {"KL": full, "mean of k3": alone}


def excluded_half() -> Any:
    """KL of a policy that excludes one of two tokens, from a reference that has them equally likely."""
    return reference.kl_divergence(np.array([[[ZERO, -sympy.oo]]]), np.array([[[ZERO, ZERO]]]))[0, 0]


@derivation("kl.k2-bias", status="proved")
def k2_agrees_to_second_order() -> Numbers:
    """Taylor's terms of p k2 - p k1 along the path: -t q h, which sums to 0, nothing, and t³ q h³ / 6."""
    h = sympy.Symbol("h", real=True)
    gap = (P * of_token("k2") - P * of_token("k1")).subs(P, Q * (1 + T * h))
    taylor = [(sympy.diff(gap, T, n) / sympy.factorial(n)).subs(T, 0) for n in range(4)]
    agree(taylor, [ZERO, -Q * h, ZERO, Q * h**3 / 6])
    numbers: Numbers = {"π_ref": 0.5, "π": 0.25, "1 - π": 0.75, "far π": 0.0001, "1 - far π": 0.9999}
    for policy in (QUARTER, NEARLY_LOST):
        numbers[f"KL of {policy}"] = divergence(policy, REFERENCE)
        numbers[f"k2 of {policy}"] = mean(policy, estimates("k2", policy, REFERENCE))
    return numbers


@derivation("kl.k3-variance", status="witnessed")
def variance_near_and_far() -> Numbers:
    """Along the path k1 is t h + ..., k3 is t² h² / 2 + ...; exact variances on two tokens, near and far."""
    h = sympy.Symbol("h", real=True)
    for name, first, second in (("k1", h, -(h**2) / 2), ("k3", ZERO, h**2 / 2)):
        along = of_token(name).subs(P, Q * (1 + T * h))
        agree(along.subs(T, 0), ZERO)
        agree(sympy.diff(along, T).subs(T, 0), first)
        agree(sympy.diff(along, T, 2).subs(T, 0) / 2, second)
    near = (sympy.Rational(3, 5), sympy.Rational(2, 5))
    small, large = (_variances(policy) for policy in (near, NEARLY_LOST))
    ratio = large["k3"] / large["k1"]
    assert small["k3"] < small["k1"]
    assert ratio > 10**5
    rare = estimates("k3", NEARLY_LOST, REFERENCE)[0]
    numbers: Numbers = {str(p): float(p) for p in (*near, *NEARLY_LOST, HALF)}
    for place, variances in (("near", small), ("far", large)):
        numbers |= {f"{name} {place}": x for name, x in variances.items()}
    return numbers | {"ratio, rounded": round(ratio, -4), "k3 of the rare token": rare}


def _variances(policy: Any) -> dict[str, float]:
    """The variance of k1 and of k3 over tokens of a policy, against the even reference."""
    variances = {}
    for name in ("k1", "k3"):
        found = estimates(name, policy, REFERENCE)
        variances[name] = float(sympy.N(mean(policy, found**2) - mean(policy, found) ** 2, 30))
    return variances


@derivation("kl.adaptive-coefficient", status="proved")
def coefficients() -> None:
    """The code on symbols, at a point of each of the three cases and on both bounds."""
    coef, measured, target = sympy.symbols("beta d D", positive=True)
    expression: Any = reference.adaptive_kl_coef(coef=coef, kl=measured, target=target)
    expression = sympy.nsimplify(expression, rational=True)
    for at, factor in ((1, HALF), (2, ONE), (3, ONE), (sympy.Rational(9, 2), ONE), (5, 2 * ONE), (-1, HALF)):
        agree(piece(expression, {coef: 1, measured: at, target: 3}), factor * coef)


@derivation("kl.proportional-coefficient", status="proved")
def coefficients_by_error() -> None:
    """The code on symbols: linear in the error between 0.8 and 1.2 times the target, constant beyond."""
    coef, measured, target, horizon, steps = sympy.symbols("beta d D H n", positive=True)
    expression = reference.proportional_kl_coef(
        coef=coef, kl=measured, target=target, horizon=horizon, n_steps=steps
    )
    fifth, error = sympy.Rational(1, 5), measured / target - 1
    for at, clipped in ((3, -fifth), (4, error), (5, error), (6, error), (7, fifth)):
        found = piece(expression, {coef: 1, measured: at, target: 5, horizon: 1, steps: 1})
        agree(found, coef * (1 + clipped * steps / horizon))


@derivation("kl.proportional-sign", status="witnessed")
def coefficient_below_zero() -> Numbers:
    """The least factor is 1 - n / (5 H): 0 at n = 5 H, and below 0 behind it."""
    coef, horizon = sympy.Rational(1, 10), sympy.Integer(100)
    edge, beyond = (
        reference.proportional_kl_coef(coef=coef, kl=ZERO, target=ONE, horizon=horizon, n_steps=n)
        for n in (5 * horizon, 6 * horizon)
    )
    assert edge == 0 > beyond
    return {"coef": coef, "horizon": horizon, "steps": 6 * horizon, "next": beyond}
