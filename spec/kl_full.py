"""Derivations of the chapter `kl` on the full divergence: its sum, zeros, bound, shifts and gradient.

A policy is given by symbolic weights w, of which the logits are log w: the code's softmax is then a
quotient of sums, in any order of the logits.
"""

import itertools
from typing import Any

import numpy as np
import sympy

from reference import kl as reference
from reference.numbers import symbols
from spec.kl import (
    QUARTER,
    REFERENCE,
    P,
    Q,
    divergence,
    estimates,
    excluded_half,
    logs,
    mean,
    of_token,
    pairs,
)
from spec.pieces import Point, piece
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import ONE


@derivation("kl.full", status="verified for V <= 3")
def mean_of_k1() -> Numbers:
    """The code on logits log w and log v is Σ p (log p - log q), p and q the normalised w and v."""
    for policy, ref, point in weights(3):
        agree(expanded(divergence(policy, ref), point), expanded(by_definition(policy, ref), point))
    ahead, back = divergence(QUARTER, REFERENCE), divergence(REFERENCE, QUARTER)
    assert back > ahead > 0
    return {"π": 0.25, "1 - π": 0.75, "π_ref": 0.5, "KL": ahead, "exchanged": back}


def weights(longest: int) -> list[tuple[Any, Any, Point]]:
    """Two policies by symbolic weights, on up to so many tokens; each token in turn has the largest."""
    found: list[tuple[Any, Any, Point]] = []
    for size in range(1, longest + 1):
        policy, ref = (symbols.array(name, (size,), positive=True) for name in ("w", "v"))
        for first in range(size):
            order = np.roll(range(1, size + 1), first).tolist()
            found.append((policy, ref, dict(zip([*policy, *ref], [*order, *reversed(order)], strict=True))))
    return found


def by_definition(policy: Any, ref: Any) -> Any:
    """Σ_a π(a) (log π(a) - log π_ref(a)) of two policies that weights are given of."""
    p, q = policy / sum(policy), ref / sum(ref)
    return mean(p, logs(p)[0] - logs(q)[0])


def expanded(expression: Any, point: Point) -> Any:
    """The piece at a point, with logarithms of products taken apart."""
    return sympy.expand_log(sympy.factor(piece(expression, point), deep=True), force=True)


@derivation("kl.impossible-tokens", status="verified for V <= 3")
def impossible_tokens_count_as_zero() -> Numbers:
    """A logit of -∞ anywhere: the sum over the others in the policy; ∞ in the reference alone."""
    for policy, ref, point in weights(2):
        for at in range(len(policy) + 1):
            without, alike = (np.insert(logs(x), at, -sympy.oo, axis=1)[None] for x in (policy, ref))
            rest = expanded(by_definition(policy, ref), point)
            agree(expanded(reference.kl_divergence(without, alike)[0, 0], point), rest)
            ones = np.insert(logs(ref), at, sympy.log(ref.sum()), axis=1)[None]  # a half of the reference
            agree(expanded(reference.kl_divergence(without, ones)[0, 0] - sympy.log(2), point), rest)
            assert piece(reference.kl_divergence(ones, without)[0, 0], point) == sympy.oo
            gradient = reference.kl_divergence_gradient(np.array([[ONE]]), without, ones)
            assert piece(gradient[0, 0, at], point) == 0
    return {"KL": excluded_half()}


@derivation("kl.full-bound", status="proved")
def divergence_is_a_mean_of_k3() -> None:
    """p k1 = p k3 + (p - q), each k3 at least 0 and 0 at ℓ = 0 only: so is what they sum to."""
    agree(P * of_token("k1"), P * of_token("k3") + (P - Q))
    for policy, ref in pairs():
        full, distance = divergence(policy, ref), mean(policy, estimates("k3", policy, ref))
        agree(full, distance)
        assert (sympy.N(full) > 0) if policy != ref else (full == 0)


@derivation("kl.shift", status="verified for V <= 3")
def shifted_logits() -> None:
    """The log-sum-exp takes the constant with it; in every order of the logits."""
    constant = sympy.Symbol("c", real=True)
    for size in (1, 2, 3):
        shape = (1, 1, size)
        logits, ref = symbols.array("z", shape), symbols.array("y", shape)
        for order in itertools.permutations(range(size)):
            ranks = zip([*logits.flat, *ref.flat], [*order, *reversed(order)], strict=True)
            point = {**dict(ranks), constant: 0}
            plain = piece(reference.kl_divergence(logits, ref), point)
            agree(piece(reference.kl_divergence(logits + constant, ref), point), plain)
            agree(piece(reference.kl_divergence(logits, ref + constant), point), plain)
            assert size == 1 or plain[0, 0].subs(point) > 0


@derivation("kl.full-gradient", status="verified for V <= 3")
def full_gradient() -> None:
    """The code's gradient is the derivative of the code's divergence, in every logit and order of logits."""
    upstream = np.array([[sympy.Symbol("u", real=True)]])
    for policy, ref, point in weights(3):
        logits = symbols.array("z", (1, 1, len(policy)))
        by_weight = dict(zip(logits.flat, logs(policy).flat, strict=True))
        there = {z: log.subs(point) for z, log in by_weight.items()} | dict(point)
        full = piece(reference.kl_divergence(logits, logs(ref)[None])[0, 0], there)
        found = piece(reference.kl_divergence_gradient(upstream, logits, logs(ref)[None])[0, 0], there)
        derivatives = [upstream[0, 0] * sympy.diff(full, z) for z in logits.flat]
        for mine, derivative in zip(found, derivatives, strict=True):
            agree(sympy.cancel((mine - derivative).subs(by_weight)), 0)
        agree(sympy.cancel(sum(found).subs(by_weight)), 0)
