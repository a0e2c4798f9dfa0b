"""Derivations of the chapter `dpo`: the reference, run on symbols, proves clauses of `spec/preference.md`.

A statement about every number of responses is proved on one general response, whose terms the sums are made
of; the reference itself then confirms it on prompts of up to `MOST` responses. A statement about pairs is
proved on one pair, because the loss is the mean of what its pairs have alone (`dpo.limits-equal-weights`).
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
import sympy

from reference import preference, reward
from reference.numbers import balls, symbols
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import ZERO

reference: Any = preference

BETA = sympy.Symbol("beta", positive=True)
SMOOTHING = sympy.Symbol("epsilon", real=True)
MARGIN = sympy.Symbol("h", real=True)
MOST = 4
"""Prompts with up to so many responses are tried."""

Responses = tuple[Any, Any, Any]
"""Probabilities under the policy and under the reference, and rewards, of all responses to a prompt."""


class Pairs(NamedTuple):
    """What :func:`reference.preference.dpo_loss` takes, in its order."""

    policy_chosen: Any
    policy_rejected: Any
    ref_chosen: Any
    ref_rejected: Any


def pairs(count: int) -> Pairs:
    """So many pairs of symbols."""
    return Pairs(*(symbols.array(name, (count,)) for name in ("c", "r", "C", "R")))


def with_margin(margin: Any) -> Pairs:
    """One pair of symbols in which the chosen response is moved until the margin is this."""
    others = pairs(1)
    return others._replace(policy_chosen=others.policy_chosen + margin - reference.preference_margin(*others))


def responses(count: int) -> Responses:
    """So many responses: rewards, and two distributions of symbols, each with its last one left over."""
    policy, ref = (symbols.array(name, (count,), positive=True) for name in ("p", "q"))
    for distribution in (policy, ref):
        distribution[-1] = 1 - sum(distribution[:-1])
    return policy, ref, symbols.array("r", (count,))


def divergence(policy: Any, other: Any) -> Any:
    """KL(policy‖other), written out."""
    return sum(p * sympy.log(p / q) for p, q in zip(policy, other, strict=True))


@derivation("dpo.optimum", status="proved")
def objective_is_a_divergence_from_the_optimum() -> None:
    """β p log(p/π*) = β p log(p/q) - p r + β p log Z for one response; the p sum to 1."""
    p, q, z = sympy.symbols("p q Z", positive=True)
    r = sympy.Symbol("r", real=True)
    best = q * sympy.exp(r / BETA) / z
    agree(p * r - BETA * p * sympy.log(p / q), -BETA * p * sympy.log(p / best) + BETA * p * sympy.log(z))
    for count in range(1, MOST + 1):
        policy, ref, rewards = responses(count)
        objective = reference.regularised_objective(policy, ref, rewards, beta=BETA)
        best, log_z = (
            f(ref, rewards, beta=BETA) for f in (reference.optimal_policy, reference.log_partition)
        )
        agree(_split(objective), _split(-BETA * divergence(policy, best) + BETA * log_z))
        agree(sum(best), 1)


def _split(expression: Any) -> Any:
    """Logarithms of products as sums of logarithms: all factors here are positive."""
    return sympy.expand(sympy.expand_log(sympy.together(expression), force=True))


@derivation("dpo.optimum", status="proved")
def divergence_has_one_minimum() -> Numbers:
    """KL(p‖q) = Σ p f(q/p) with f(t) = t - 1 - log t, 0 at its one minimum, t = 1; and competitors."""
    t, p, q = sympy.symbols("t p q", positive=True)
    function = t - 1 - sympy.log(t)
    assert sympy.solve(sympy.diff(function, t), t) == [1]
    assert function.subs(t, 1) == 0
    assert sympy.diff(function, t, 2).is_positive
    agree(p * function.subs(t, q / p), p * sympy.log(p / q) + q - p)  # and Σ (q - p) = 0
    policy, ref, rewards = (symbols.array(x, (MOST,), positive=True) for x in ("p", "q", "r"))
    objective = reference.regularised_objective(policy, ref, rewards, beta=BETA)
    slopes = [sympy.diff(objective, p) for p in policy]
    best = reference.optimal_policy(ref, rewards, beta=BETA)
    at_best = [_split(slope.subs(dict(zip(policy, best, strict=True)))) for slope in slopes]
    agree(at_best, np.full(MOST, at_best[0]))  # what is left of the gradient on the simplex is 0
    return _competitors()


def _competitors() -> Numbers:
    """Every policy over three responses in steps of 1/24, in certified arithmetic, against β log Z."""
    steps, beta = 24, 0.5
    ref, rewards = balls.array([0.5, 0.25, 0.25]), balls.array([0.0, 0.5, 1.0])
    most = beta * reference.log_partition(ref, rewards, beta=beta)
    counts = [x for x in itertools.product(range(1, steps), repeat=3) if sum(x) == steps]
    policies = [np.array([balls.array(float(k)) / steps for k in x], dtype=object) for x in counts]
    objectives = [reference.regularised_objective(p, ref, rewards, beta=beta) for p in policies]
    assert all(objective.value < most.value for objective in objectives)
    best = max(range(len(counts)), key=lambda k: float(objectives[k].value.mid()))
    optimum = reference.optimal_policy(ref, rewards, beta=beta)
    numbers: Numbers = {
        "β": beta,
        "policies": len(counts),
        "step": 1 / steps,
        "β log Z": float(most.value.mid()),
    }
    numbers |= {f"best, {k}": count / steps for k, count in enumerate(counts[best])}
    numbers |= {f"π*, {k}": float(x.value.mid()) for k, x in enumerate(optimum)}
    inputs = {"q": 0.5, "q elsewhere": 0.25, "r": 0.5}
    return numbers | inputs | {"best": float(objectives[best].value.mid())}


@derivation("dpo.implicit-reward", status="proved")
def reward_of_the_optimum() -> None:
    """β log(π*/q) = r - β log Z for one response and on the code; a term f(x) moves log Z alone."""
    q, z = sympy.symbols("q Z", positive=True)
    r, shift = sympy.symbols("r f", real=True)
    agree(sympy.expand_log(BETA * sympy.log(q * sympy.exp(r / BETA) / z / q)), r - BETA * sympy.log(z))
    for count in range(1, MOST + 1):
        _, ref, rewards = responses(count)
        best, log_z = (
            f(ref, rewards, beta=BETA) for f in (reference.optimal_policy, reference.log_partition)
        )
        logs = (np.frompyfunc(sympy.log, 1, 1)(x) for x in (best, ref))
        found = reference.implicit_rewards(*logs, beta=BETA)
        agree([_split(x) for x in found], [_split(x - BETA * log_z) for x in rewards])
        agree(reference.optimal_policy(ref, rewards + shift, beta=BETA), best)


@derivation("dpo.implicit-reward", status="proved")
def implicit_reward_gradient() -> None:
    """The code's gradient is the derivative of the code's rewards, for any upstream."""
    policy, ref, upstream = (symbols.array(name, (2,)) for name in ("c", "C", "u"))
    value = sum(upstream * reference.implicit_rewards(policy, ref, beta=BETA))
    expected = reference.implicit_rewards_gradient(upstream, policy, ref, beta=BETA)
    agree([sympy.diff(value, x) for x in policy], expected)


@derivation("dpo.partition-cancels", status="proved")
def loss_of_the_implicit_rewards() -> None:
    """With r = β log(π/q) + β log Z for both, r_c - r_r has no Z left, and two chapters' losses are one."""
    pair, log_z = pairs(1), sympy.Symbol("log_Z", real=True)
    chosen, rejected = (
        reference.implicit_rewards(policy, ref, beta=BETA) + BETA * log_z
        for policy, ref in ((pair.policy_chosen, pair.ref_chosen), (pair.policy_rejected, pair.ref_rejected))
    )
    agree(chosen - rejected, BETA * reference.preference_margin(*pair))
    loss = reference.dpo_loss(*pair, beta=BETA, label_smoothing=ZERO)
    agree(_expanded(reward.reward_model_loss(chosen, rejected, margin=ZERO)), _expanded(loss))
    preferred = reward.preference_probability(chosen, rejected)[0]
    agree(_expanded(sympy.exp(-loss)), _expanded(preferred))


def _expanded(expression: Any) -> Any:
    """The same with what stands in exponents multiplied out."""
    return expression.replace(sympy.exp, lambda x: sympy.exp(sympy.expand(x)))


@derivation("dpo.loss", status="proved")
def loss_of_a_margin() -> Numbers:
    """The code on a pair of margin h is log(1 + e^(-βh)): it falls in h everywhere, and is log 2 at h = 0."""
    loss = reference.dpo_loss(*with_margin(MARGIN), beta=BETA)
    agree(loss, sympy.log(1 + sympy.exp(-BETA * MARGIN)))
    assert sympy.diff(loss, MARGIN).is_negative
    agree(loss.subs(MARGIN, 0), sympy.log(2))
    return {"log 2": sympy.log(2)}


@derivation("dpo.loss-label-smoothing", status="proved")
def smoothed_loss() -> Numbers:
    """Its one minimum is where σ(βh) = 1 - ε; swapping the pair swaps ε and 1 - ε."""
    loss = reference.dpo_loss(*with_margin(MARGIN), beta=BETA, label_smoothing=SMOOTHING)
    plain = sympy.log(1 + sympy.exp(-BETA * MARGIN))
    agree(loss, (1 - SMOOTHING) * plain + SMOOTHING * plain.subs(MARGIN, -MARGIN))
    slope = sympy.diff(loss, MARGIN)
    agree(slope, BETA * (1 / (1 + sympy.exp(-BETA * MARGIN)) - (1 - SMOOTHING)))
    agree(loss.subs(MARGIN, -MARGIN), loss.subs(SMOOTHING, 1 - SMOOTHING))
    least = sympy.log((1 - SMOOTHING) / SMOOTHING) / BETA
    agree(slope.subs(MARGIN, least), 0)
    share = sympy.Rational(1, 10)
    return {"ε": share, "βh": (BETA * least).subs(SMOOTHING, share), "half": sympy.Rational(1, 2)}


@derivation("dpo.loss-hinge", status="proved")
def hinge_loss() -> None:
    """1 - βh before the corner, 0 behind it."""
    before, behind = sympy.Symbol("s", positive=True), sympy.Symbol("s", negative=True)
    for distance, loss in ((before, before), (behind, 0), (sympy.Integer(0), 0)):
        pair = with_margin((1 - distance) / BETA)
        agree(reference.dpo_loss(*pair, beta=BETA, loss_type="hinge"), loss)


@derivation("dpo.loss-ipo", status="proved")
def ipo_loss() -> Numbers:
    """A parabola in h with its one minimum, 0, at h = 1/(2β)."""
    loss = reference.dpo_loss(*with_margin(MARGIN), beta=BETA, loss_type="ipo")
    agree(sympy.diff(loss, MARGIN, 2), 2)
    target = 1 / (2 * BETA)
    agree([loss.subs(MARGIN, target), sympy.diff(loss, MARGIN).subs(MARGIN, target)], [0, 0])
    agree(loss, (MARGIN - target) ** 2)
    small = {BETA: sympy.Rational(1, 10)}
    return {"β": small[BETA], "h": target.subs(small), "at h = 0": loss.subs({MARGIN: 0} | small)}
