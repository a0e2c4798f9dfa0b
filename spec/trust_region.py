"""Derivations of the chapter `trpo` that need no process: the surrogate, the mean KL, the Fisher matrix.

A *rest* turns the code's own expressions into statements about every number of actions: of a softmax's
actions two are kept, and a third one stands for all others together. Where the code compares,
:func:`settled` proves which side holds and takes it.
"""

import itertools
from typing import Any

import numpy as np
import sympy
from sympy.core.relational import Relational

from reference import trust_region as reference
from reference.numbers import symbols
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import ONE, ZERO


def settled(x: Any) -> Any:
    """The side of every comparison that holds for all values of the symbols, entry by entry."""
    return np.frompyfunc(lambda entry: _settled(sympy.sympify(entry)), 1, 1)(x)


def _settled(expression: Any) -> Any:
    while comparisons := expression.atoms(Relational):
        simple = min(comparisons, key=sympy.count_ops)
        assert sympy.factor(simple.gts - simple.lts).is_positive, f"undecided: {simple}"
        expression = expression.xreplace({simple: sympy.true})
    return expression


def resolved(x: Any) -> Any:
    """The same, simplified."""
    return np.frompyfunc(sympy.factor, 1, 1)(settled(x))


@derivation("trpo.surrogate", status="proved")
def surrogate_is_an_expectation() -> None:
    """One token gives ρA; Σ π_old ρ A = Σ π A, state by state; and a mean of tokens has the mean of one."""
    shape = (2, 3)
    new, old = (symbols.array(name, shape, positive=True) for name in ("p", "q"))
    advantages, weights = symbols.array("A", shape), symbols.array("w", (2,), positive=True)

    def of(*tokens: tuple[int, int]) -> Any:
        rows, columns = np.transpose(tokens)
        logprobs, sampled, gains = (x[rows, columns][None] for x in (_log(new), _log(old), advantages))
        return reference.surrogate(logprobs, sampled, gains, np.ones((1, len(tokens)), dtype=bool))

    each = list(np.ndindex(shape))
    mean = sum(weights[s] * old[s, a] * of((s, a)) for s, a in each)
    agree(mean, reference.expected_advantage(weights, new, advantages))
    for first, second in itertools.product(each, each):
        agree(of(first, second), (of(first) + of(second)) / 2)


@derivation("trpo.surrogate", status="witnessed")
def mean_over_a_response() -> Numbers:
    """Responses of one token or of two: what the mean of ρA is on average, and L - η over Σ ρ_old."""
    pays = np.array([[1.0, 0.0], [1.5, -1.5]])  # of stopping and going on, and of what may follow
    advantages = pays - pays.mean(axis=1, keepdims=True)
    visits, policy, odds = np.array([1.0, 0.5]), np.array([[1.0, 0.0], [0.0, 1.0]]), np.full((2, 2), 0.5)
    gain = reference.expected_advantage(visits, policy, advantages) / visits.sum()

    def mean(*tokens: tuple[int, int]) -> Any:
        rows, columns = np.transpose(tokens)
        with np.errstate(divide="ignore"):
            new, old = (np.log(x[rows, columns])[None] for x in (policy, odds))
        return reference.surrogate(new, old, advantages[rows, columns][None], np.ones(new.shape, dtype=bool))

    stop, go = (0, 0), (0, 1)
    on_average = mean(stop) / 2 + (mean(go, (1, 0)) + mean(go, (1, 1))) / 4
    assert on_average > 0 > gain
    paid: Numbers = {"for stopping": pays[0, 0], "for the better": pays[1, 0], "for the worse": pays[1, 1]}
    return paid | {"L − η": gain, "mean": on_average}


def _log(x: Any) -> Any:
    return np.frompyfunc(sympy.log, 1, 1)(x)


@derivation("trpo.kl-constraint", status="proved")
def kl_is_a_divergence() -> Numbers:
    """Its terms are g(q) = p log(p/q) - p + q, with g(p) = g'(p) = 0 and g'' > 0: 0 at q = p only."""
    p, q = (symbols.array(name, (1, 2), positive=True) for name in "pq")
    term = p[0, 0] * sympy.log(p[0, 0] / q[0, 0]) - p[0, 0] + q[0, 0]
    slope, curvature = (sympy.diff(term, q[0, 0], order) for order in (1, 2))
    agree([x.subs(q[0, 0], p[0, 0]) for x in (term, slope)], [ZERO, ZERO])
    assert curvature.is_positive
    weights = symbols.array("w", (1,), positive=True)
    divergence = resolved(reference.mean_kl(_log(p), _log(q), weights))
    terms = sum(term.subs({p[0, 0]: x, q[0, 0]: y}) for x, y in zip(p[0], q[0], strict=True))
    agree(sympy.expand_log(divergence), sympy.expand_log(terms + sum(p[0]) - sum(q[0])))
    return _same_distance()


def _same_distance() -> Numbers:
    """What a logit's growth by 1 does to an even coin, and to one that falls on its head 99 times in 100."""
    numbers: Numbers = {}
    for head in (0.5, 0.99):
        odds = head / (1 - head)
        old, new = (np.log([[x, 1 - x]]) for x in (head, np.e * odds / (1 + np.e * odds)))
        divergence = reference.mean_kl(old, new, np.ones(1))
        numbers |= {f"head {head}": head, f"KL at {head}": divergence}
    return numbers


@derivation("trpo.fisher", status="proved")
def hessian_is_fisher() -> None:
    """Two actions and a rest, logits log x: at x = y, either KL and its slope are 0, and its Hessian is F."""
    x, y = (symbols.array(name, (3,), positive=True) for name in "xy")
    there, weights = dict(zip(x, y, strict=True)), np.array([ONE])
    axes = np.eye(3, dtype=int).astype(object) * ONE
    probabilities = (y / sum(y))[None]
    fisher = [reference.fisher_vector_product(probabilities, weights, axis[None])[0] for axis in axes]
    for roles in ((y, x), (x, y)):
        first, second = (_log(z / sum(z))[None] for z in roles)
        divergence = settled(reference.mean_kl(first, second, weights))
        slopes = [entry * sympy.diff(divergence, entry) for entry in x]
        agree(sympy.expand_log(divergence.subs(there)), ZERO)
        agree([sympy.expand_log(slope.subs(there)) for slope in slopes], [ZERO] * 3)
        hessian = [[entry * sympy.diff(slope, entry) for entry in x] for slope in slopes]
        agree(resolved([[entry.subs(there) for entry in row] for row in hessian]), resolved(fisher))


@derivation("trpo.fisher", status="proved")
def fisher_is_a_second_moment() -> None:
    """E[∇log π ∇log πᵀ v], ∇log π(a) = e_a - π, two actions and a rest; states add up by their shares."""
    p, vector = symbols.array("p", (2, 3)), symbols.array("v", (2, 3))
    p[:, -1] = ONE - p[:, 0] - p[:, 1]
    weights = symbols.array("w", (2,), positive=True)
    product = reference.fisher_vector_product(p, weights, vector)
    for s in range(2):
        scores = np.eye(3, dtype=int) - p[s]
        second = sum(p[s, a] * scores[a] * (scores[a] @ vector[s]) for a in range(3))
        agree(product[s] * sum(weights), weights[s] * second)


@derivation("trpo.fisher", status="proved")
def fisher_along_a_curve() -> None:
    """θ(t) = θ_old + t u + t² k/2: the second derivative of KL is u·F u, whatever the bend k is."""
    t, y = sympy.Symbol("t", real=True), symbols.array("y", (3,), positive=True)
    velocity, bend = (symbols.array(name, (3,)) for name in "uk")
    moved = y * np.frompyfunc(sympy.exp, 1, 1)(t * velocity + t**2 * bend / 2)
    old, new = (_log(z / sum(z))[None] for z in (y, moved))
    divergence = settled(reference.mean_kl(old, new, np.array([ONE])))
    product = reference.fisher_vector_product((y / sum(y))[None], np.array([ONE]), velocity[None])
    agree(resolved(sympy.diff(divergence, t, 2).subs(t, 0)), resolved(np.sum(velocity * product)))
