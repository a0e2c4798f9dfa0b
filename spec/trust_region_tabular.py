"""Derivations of the chapter `trpo` on decision processes that are solved exactly, cycles included.

The algebra holds for every process. It needs of a policy's values V and visitation ρ nothing but what
defines them: A(s, a) = r(s, a) + γ Σ P(s'|s, a) V(s') - V(s), and μ = ρ - γ Pᵀρ with the distribution μ of
the first state. Then the reference is run on random processes, in rationals.
"""

from typing import Any

import numpy as np
import sympy

from reference import numbers
from reference import trust_region as reference
from reference.numbers import balls, symbols
from spec.markov import Process, processes
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import GAMMA, HALF, ONE, ZERO

T = sympy.Symbol("t", real=True)


def _symbolic_process(states: int, actions: int) -> tuple[Process, Any, Any, Any]:
    """A process of symbols with values V of any kind, a policy, and its visitation, which gives the start."""
    following = symbols.array("P", (states, actions, states))
    policy, visitation, values = (
        symbols.array(name, shape)
        for name, shape in (("pi", (states, actions)), ("rho", (states,)), ("V", (states,)))
    )
    policy[:, -1] = ONE - policy[:, :-1].sum(axis=1)
    flow = np.sum(policy[:, :, None] * following, axis=1)
    start = visitation - GAMMA * flow.T @ visitation
    return Process(start, following, symbols.array("r", (states, actions)), GAMMA), policy, visitation, values


@derivation("trpo.performance-difference", status="proved")
def performance_difference() -> None:
    """Σ ρ'(r + γP'V - V) = Σ ρ' r - Σ (ρ' - γP'ᵀρ') V = η' - Σ μ V, for all V: with V^π, the sum is η."""
    for states, actions in ((1, 2), (2, 2), (3, 2), (2, 3)):
        process, policy, visitation, values = _symbolic_process(states, actions)
        objective = reference.expected_advantage(visitation, policy, process.rewards)
        gathered = reference.expected_advantage(visitation, policy, process.gains(values))
        agree(np.sum(process.start * values) + gathered, objective)
    for known, old, new in processes():
        gathered = reference.expected_advantage(known.visitation(new), new, known.advantages(old))
        agree(known.objective(old) + gathered, known.objective(new))


@derivation("trpo.local-approximation", status="proved")
def local_approximation() -> None:
    """η - L = Σ (ρ_t - ρ)(s) a_t(s), a_t = Σ π_t A: both factors are 0 at t = 0, where π_t = π: no slope."""
    visited, gathered = sympy.Function("rho")(T), sympy.Function("a")(T)
    slope = sympy.diff((visited - visited.subs(T, 0)) * gathered, T).subs(T, 0)
    agree(slope.doit().subs(gathered.subs(T, 0), 0), ZERO)
    for process, old, new in (drawn for drawn in processes() if len(drawn[0].start) < 3):
        moving = old + T * (new - old)
        visitation, advantages = process.visitation(old), process.advantages(old)
        gain = reference.expected_advantage(visitation, moving, advantages)
        agree(sympy.expand(gain).subs(T, 0), ZERO)
        true = process.objective(moving)
        agree(sympy.diff(true, T).subs(T, 0), sympy.diff(gain, T))


@derivation("trpo.local-approximation", status="witnessed")
def local_only() -> Numbers:
    """A policy that seldom meets u does little harm there; one that goes there always is harmed always."""
    tenth = sympy.Rational(1, 10)
    process = _fork(paid_in_u=(ONE, -2 * ONE), paid_in_w=(ZERO, ZERO), gamma=ONE)
    old = np.array([[tenth, 1 - tenth], [ONE, ZERO], [ONE, ZERO], [ONE, ZERO]])
    new = np.array([[ONE, ZERO], [ZERO, ONE], [ONE, ZERO], [ONE, ZERO]])
    visitation = _fork_visitation(old)
    values = np.array([tenth, ONE, ZERO, ZERO])
    gain = reference.expected_advantage(visitation, new, process.gains(values))
    before, after = (np.sum(_fork_visitation(x)[:, None] * x * process.rewards) for x in (old, new))
    assert gain > 0 > after - before
    return {"π(u|s)": tenth, "L - η": gain, "η": before, "η of π'": after}


def _fork(paid_in_u: tuple[Any, Any], paid_in_w: tuple[Any, Any], gamma: Any) -> Process:
    """From s one action leads to u, the other to w; either pays by its actions, and then nothing follows."""
    following = np.full((4, 2, 4), ZERO, dtype=object)
    following[0, 0, 1] = following[0, 1, 2] = ONE
    following[1:, :, 3] = ONE
    rewards = np.array([(ZERO, ZERO), paid_in_u, paid_in_w, (ZERO, ZERO)], dtype=object)
    return Process(np.array([ONE, ZERO, ZERO, ZERO]), following, rewards, gamma)


def _fork_visitation(policy: Any) -> Any:
    """Visitation of a fork at γ = 1, but for the end, which is met forever and pays nothing."""
    return np.array([ONE, policy[0, 0], policy[0, 1], ZERO])


@derivation("trpo.improvement-bound", status="proved")
def improvement_bound() -> Numbers:
    """|η' - L| <= |ρ' - ρ|₁ max|Σ (π' - π) A| with α the largest total variation, and 2α² <= KL (Pinsker).

    (1 - γP'ᵀ)(ρ' - ρ) = γ(P' - P)ᵀρ, where Pᵀ keeps sums of absolute values or lowers them, |ρ|₁ is
    1/(1-γ) and a policy's change is 2α at most: so |ρ' - ρ|₁ <= 2αγ/(1-γ)². And |Σ (π' - π) A| <= 2α max|A|.
    """
    new, policy, visitation, _ = _symbolic_process(2, 2)
    old = np.array([[sympy.Symbol(f"p{s}"), 1 - sympy.Symbol(f"p{s}")] for s in range(2)])
    visited = symbols.array("rho_old", (2,))
    start = visited - GAMMA * new.step(old).T @ visited
    difference = visitation - visited
    moved = difference - GAMMA * new.step(policy).T @ difference
    agree(moved, GAMMA * (new.step(policy) - new.step(old)).T @ visited + (new.start - start))
    alpha, largest = sympy.symbols("alpha a", positive=True)
    bound = 2 * alpha * GAMMA / (1 - GAMMA) ** 2 * 2 * alpha * largest
    coefficient = reference.penalty_coefficient(np.array([[largest, -largest]]), gamma=GAMMA)
    agree(bound, coefficient * alpha**2)
    _pinsker()
    judged = [_bounded(*drawn) for drawn in processes()]
    assert sum(judged) > len(judged) / 4
    return {"γ": 0.99, "C / max|A|": reference.penalty_coefficient(np.ones((1, 1)), gamma=0.99)}


def _pinsker() -> None:
    """KL(p‖q) - 2 (p - q)² of two outcomes: 0 at p = q, its slope too, and its curvature is a square.

    More outcomes fall into two, those where p > q and the others: KL falls, the total variation stays.
    """
    p, q = sympy.symbols("p q", positive=True)
    old, new = (np.array([[sympy.log(x), sympy.log(1 - x)]]) for x in (p, q))
    gap: Any = _first_branch(reference.mean_kl(old, new, np.array([ONE]))) - 2 * (p - q) ** 2
    agree(gap.subs(q, p), ZERO)
    agree(sympy.diff(gap, p).subs(q, p), ZERO)
    agree(sympy.diff(gap, p, 2), (1 - 2 * p) ** 2 / (p * (1 - p)))


def _first_branch(expression: Any) -> Any:
    """Where every probability is above 0."""
    return expression.replace(sympy.Piecewise, lambda branch, *_: branch[0])


def _bounded(process: Process, old: Any, new: Any) -> bool:
    """The bound in rationals with α; if no probability is 0, on balls with the largest KL and half of C."""
    advantages = process.advantages(old)
    local = reference.expected_advantage(process.visitation(old), new, advantages)
    loss = abs(process.objective(new) - process.objective(old) - local)
    coefficient: Any = reference.penalty_coefficient(advantages, gamma=process.gamma)
    variation = max(np.sum(np.abs(new - old), axis=1)) / 2
    assert 0 <= loss <= coefficient * variation**2
    finite = bool(np.all(old > 0) and np.all(new > 0))
    if finite:
        assert numbers.less_equal(_ball(loss), _ball(coefficient / 2) * _largest_kl(old, new))
    return finite


def _largest_kl(old: Any, new: Any) -> Any:
    """The largest KL of a state, certified."""
    largest: Any = balls.array(0.0)
    for x, y in zip(*_logarithms(old, new), strict=True):
        largest = numbers.maximum(largest, reference.mean_kl(x[None], y[None], np.ones(1)))
    return largest


def _logarithms(*policies: Any) -> list[Any]:
    """Certified log-probabilities."""
    return [numbers.log(np.frompyfunc(_ball, 1, 1)(policy)) for policy in policies]


def _ball(x: Any) -> Any:
    """A rational as a ball."""
    return balls.array(float(x.p)) / float(x.q)


@derivation("trpo.improvement-bound", status="witnessed")
def improvement_bound_is_tight() -> Numbers:
    """A fork, even policy; π' turns towards u by x, there to the worse action and in w to the better one."""
    shift = sympy.Rational(1, 100)
    quoted: Numbers = {"x": shift}
    for gamma, text in ((sympy.Rational(1, 100), "0.01"), (HALF, "0.5")):
        process, old, new = _turning_fork(gamma, HALF, shift, shift, -shift)
        quoted |= {
            f"γ = {text}": gamma,
            f"share at {text}": _lost(process, old, new) / float(_largest_kl(old, new).value.mid()),
        }
    assert 0.48 < quoted["share at 0.01"] < 0.5
    return quoted


@derivation("trpo.improvement-bound", status="witnessed")
def improvement_bound_needs_the_largest_kl() -> Numbers:
    """A fork that seldom turns to u, and with π' a little more often, but there to the worse action."""
    seldom, gamma = sympy.Rational(1, 1000), sympy.Rational(1, 100)
    process, old, new = _turning_fork(gamma, seldom, seldom / 50, sympy.Rational(1, 10), ZERO)
    weights = np.frompyfunc(_ball, 1, 1)(process.visitation(old))
    logprobs, moved = _logarithms(old, new)
    mean: Any = reference.mean_kl(logprobs, moved, weights)
    share = _lost(process, old, new) / float(mean.value.mid())
    assert share > 2
    assert _lost(process, old, new) < float(_largest_kl(old, new).value.mid())
    return {"γ": gamma, "π(u|s)": seldom, "share of C times the mean KL": share}


def _turning_fork(gamma: Any, to_u: Any, shift: Any, in_u: Any, in_w: Any) -> tuple[Process, Any, Any]:
    """A fork that pays 1 or -1; π' turns by a shift to u, by others to the worse action of u and of w."""
    process = _fork(paid_in_u=(ONE, -ONE), paid_in_w=(ONE, -ONE), gamma=gamma)
    old = np.array([[to_u, 1 - to_u], [HALF, HALF], [HALF, HALF], [HALF, HALF]])
    return process, old, old + np.array([[shift, -shift], [-in_u, in_u], [-in_w, in_w], [ZERO, ZERO]])


def _lost(process: Process, old: Any, new: Any) -> float:
    """How far η' falls short of L, in units of C."""
    advantages = process.advantages(old)
    local = reference.expected_advantage(process.visitation(old), new, advantages)
    short = process.objective(old) + local - process.objective(new)
    return float(short / reference.penalty_coefficient(advantages, gamma=process.gamma))
