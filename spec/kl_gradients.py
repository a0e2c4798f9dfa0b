"""Derivations of the chapter `kl` on mean gradients: what an estimate pulls towards, as a loss or a reward.

The device is a *general token* whose probability is a function p(θ), while q, that of the reference, is a
constant. Identities between mean gradients are identities between the terms of their sums, up to multiples
of p'(θ): probabilities sum to 1, so their derivatives sum to 0. The code itself then takes the means over
small vocabularies, with respect to logits: ∂p_a/∂z_j = p_a ([a = j] - p_j).
"""

from typing import Any

import numpy as np
import sympy

from reference import gae
from reference import kl as reference
from spec.kl import NEARLY_LOST, REFERENCE, Q, estimates, logs, mean, pairs
from spec.pieces import piece
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import HALF, ONE, ZERO

THETA = sympy.Symbol("theta", real=True)
BETA, MU = sympy.symbols("beta mu", positive=True)
P = sympy.Function("p", positive=True)(THETA)
CHANGE = sympy.diff(P, THETA)
"""p'(θ), which sums to 0 over the vocabulary."""

DIVERGENCE = sympy.diff(P * (sympy.log(P) - sympy.log(Q)), THETA)
"""The token's term of ∇KL(π‖π_ref)."""

OPPOSITE = sympy.diff(Q * (sympy.log(Q) - sympy.log(P)), THETA)
"""The token's term of ∇KL(π_ref‖π)."""


def pulls(name: str, policy: Any, ref: Any, upstream: Any) -> Any:
    """The code's gradient in each token's log-probability, times upstream."""
    weights = np.array([upstream], dtype=object)
    return reference.kl_estimate_gradient(weights, logs(policy), logs(ref), estimator=name)[0]


def loss_term(name: str) -> Any:
    """p ∇k of the general token: the term of E_π[∇k]."""
    return pulls(name, [P], [Q], [P])[0] * sympy.diff(sympy.log(P), THETA)


def value(name: str) -> Any:
    """The code's estimate of the general token."""
    return estimates(name, [P], [Q])[0]


def in_logits(policy: Any, weights: Any) -> Any:
    """Σ_a weight_a ∂ log π(a) / ∂z_j for every logit j."""
    return [weight - p * sum(weights) for p, weight in zip(policy, weights, strict=True)]


def full_gradient(policy: Any, ref: Any) -> Any:
    """The code's gradient of the full divergence in the logits."""
    logits, ref_logits = logs(policy)[None], logs(ref)[None]
    return reference.kl_divergence_gradient(np.array([[ONE]]), logits, ref_logits)[0, 0]


@derivation("kl.gradient-estimand", status="proved")
def gradient_estimands() -> None:
    """The terms are 0, those of ∇KL(π‖ref), of ∇KL(ref‖π) and of ∇Σ|p - q|, all up to multiples of p'."""
    agree(loss_term("k1"), CHANGE)
    agree(loss_term("k2"), DIVERGENCE - CHANGE)
    agree(loss_term("k3"), OPPOSITE + CHANGE)
    for point in ({P: 1, Q: 2}, {P: 2, Q: 1}):
        distance = piece(sympy.Abs(P - Q), point)
        agree(piece(loss_term("abs"), point), sympy.diff(distance, THETA))
    for policy, ref in pairs():
        found = {name: in_logits(policy, pulls(name, policy, ref, policy)) for name in ("k1", "k2", "k3")}
        agree(found["k1"], [ZERO] * len(policy))
        agree(found["k2"], full_gradient(policy, ref))
        agree(found["k3"], np.subtract(policy, ref))


@derivation("kl.gradient-estimand", status="witnessed")
def estimands_apart() -> Numbers:
    """A token that the policy nearly lost: the mean gradient of its logit under k2 and under k3."""
    weak, strong = (
        in_logits(NEARLY_LOST, pulls(name, NEARLY_LOST, REFERENCE, NEARLY_LOST))[0] for name in ("k2", "k3")
    )
    assert strong < 100 * weak < 0
    return {"π": NEARLY_LOST[0], "π_ref": HALF, "under k2": weak, "under k3": strong}


@derivation("kl.in-reward", status="proved")
def reward_of_one_token() -> None:
    """The policy gradient's term R p ∇log p = R p' of the rewards -β k1 and -β k3, up to multiples of p'."""
    agree(-BETA * value("k1") * CHANGE, -BETA * (DIVERGENCE - CHANGE))
    agree(-BETA * value("k3") * CHANGE, -BETA * (DIVERGENCE - OPPOSITE - 2 * CHANGE))


@derivation("kl.in-reward", status="verified for T <= 2")
def reward_of_two_tokens() -> None:
    """Every response of two tokens, each of two kinds: returns of -β k1, and ∇KL over the responses."""
    functions = [sympy.Function(name, positive=True)(THETA) for name in ("f", "g", "h")]
    policy, ref = _responses(functions), _responses([sympy.Rational(x) for x in ("1/3", "1/4", "3/5")])
    total, gradient = ZERO, ZERO
    for tokens, ref_tokens in zip(policy, ref, strict=True):
        rewards = -BETA * reference.kl_estimate(logs(tokens), logs(ref_tokens), estimator="k1")
        returns = gae.discounted_returns(rewards, np.array([[True, True]]), np.array([ZERO]), gamma=ONE)[0]
        scores = [sympy.diff(sympy.log(p), THETA) for p in tokens]
        gradient += tokens[0] * tokens[1] * mean(scores, returns)
        total += tokens[0] * tokens[1] * (sum(logs(tokens)[0]) - sum(logs(ref_tokens)[0]))
    agree(gradient, -BETA * sympy.diff(total, THETA))


def _responses(first_kind: list[Any]) -> list[tuple[Any, Any]]:
    """Both tokens' probabilities in the four responses.

    Given are those of the first kind of token: at the first place, and at the second behind each kind.
    """
    start, *behind = first_kind
    both = [(start, behind[0]), (1 - start, behind[1])]
    return [(first, second) for first, then in both for second in (then, 1 - then)]


@derivation("kl.straight-through", status="proved")
def straight_through() -> None:
    """The constant copies cancel in the value and vanish in the slope; both means follow term by term."""
    x, constant, ref = sympy.symbols("x x_0 y", real=True)
    live, copy, other = (np.array([[symbol]], dtype=object) for symbol in (x, constant, ref))
    k2, copied_k2 = (reference.kl_estimate(z, other, estimator="k2") for z in (live, copy))
    k3, copied_k3 = (reference.kl_estimate(z, other, estimator="k3") for z in (live, copy))
    mixed = (copied_k3 + k2 - copied_k2)[0, 0]
    agree(mixed.subs(constant, x), k3[0, 0])
    slope = reference.kl_estimate_gradient(np.array([[ONE]]), live, other, estimator="k2")[0, 0]
    agree(sympy.diff(mixed, x), slope)
    for name, rest in (("k1", ZERO), ("k3", Q - P)):
        agree(P * value(name), P * (sympy.log(P) - sympy.log(Q)) + rest)
    agree(loss_term("k2"), DIVERGENCE - CHANGE)


@derivation("kl.off-policy", status="proved")
def off_policy() -> None:
    """μ ρ = p in every value; μ ∇(ρ k) = ∇(p k), and μ ρ ∇k2 = p ∇k2, up to multiples of p'."""
    ratio = P / MU
    for name in reference.ESTIMATORS:
        agree(MU * (ratio * value(name)), P * value(name))
    agree(MU * sympy.diff(ratio * value("k1"), THETA), DIVERGENCE)
    agree(MU * sympy.diff(ratio * value("k3"), THETA), DIVERGENCE - CHANGE)
    agree(MU * ratio / P * loss_term("k2"), DIVERGENCE - CHANGE)


@derivation("kl.off-policy", status="witnessed")
def live_ratio_on_k2() -> Numbers:
    """Σ μ ∇(ρ k2) = Σ π (k2 + ℓ) ∇log π has the wrong sign at a token that the policy nearly lost."""
    slopes = pulls("k2", NEARLY_LOST, REFERENCE, NEARLY_LOST)
    weights = slopes + NEARLY_LOST * estimates("k2", NEARLY_LOST, REFERENCE)
    wrong, right = (x[0] for x in (in_logits(NEARLY_LOST, weights), full_gradient(NEARLY_LOST, REFERENCE)))
    assert right < 0 < wrong
    return {"π": NEARLY_LOST[0], "π_ref": HALF, "under KL": right, "under ρ k2": wrong}
