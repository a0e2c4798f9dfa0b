"""Derivations of the chapter `vf`: the reference, run on symbols, proves the clauses of `spec/value_loss.md`.

The loss is a sum of one term a token, so that one token proves it for every size; masks and aggregation
are then tried on small batches. The clauses of the clip are in :mod:`spec.value_loss_clip`.
"""

import itertools
from typing import Any

import numpy as np
import sympy

from reference import gae, policy_loss
from reference import value_loss as reference
from reference.numbers import symbols
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import GAMMA, LAM, LONGEST, ONE, ZERO, row

OLD, TARGET, UP = sympy.symbols("V_old R g", real=True)
CLIP = sympy.Symbol("epsilon", positive=True)
TOKEN = np.array([[True]])


@derivation("vf.target", status="proved")
def target_is_a_constant() -> None:
    """R = A + V_old. With the trained V for V_old the gradient is 0; with A of it too, V_1 takes some."""
    advantage, value = sympy.symbols("A V", real=True)
    agree(sympy.diff(loss(value, OLD, advantage + OLD), value), value - OLD - advantage)
    through = loss(value, value, advantage + value)
    agree(through, advantage**2 / 2)
    agree(sympy.diff(through, value), ZERO)
    for length in range(2, LONGEST + 1):
        steps = row(length)
        first, following = gae.gae(*steps, gamma=GAMMA, lam=LAM)[0, 0], steps.values[0, 1]
        returns = gae.lambda_returns(*steps, gamma=GAMMA, lam=LAM)
        arguments = (steps.values, steps.values, returns, steps.mask)
        constant = reference.value_loss_gradient(ONE, *arguments)[0, 1]
        leak = sympy.diff(reference.value_loss(*arguments), following) - constant
        agree(leak, GAMMA * (1 - LAM) * first / length)


@derivation("vf.loss", status="verified for T <= 3")
def half_mean_square() -> Numbers:
    """Every mask of up to three tokens: half the sum of squared errors over the count of active ones."""
    for length in range(1, 4):
        for mask in itertools.product((False, True), repeat=length):
            values, old, returns = batch((1, length))
            active = np.flatnonzero(mask)
            halves = sum((values[0, active] - returns[0, active]) ** 2, ZERO) / 2
            got = reference.value_loss(values, old, returns, np.array([mask]))
            agree(got, halves / max(active.size, 1))
    two = np.array([[1.0, 5.0, 9.0]]), np.zeros((1, 3)), np.array([[3.0, 1.0, -9.0]])
    mean = reference.value_loss(*two, np.array([[True, True, False]]))
    return {"V": 1, "its R": 3, "the other V": 5, "its R too": 1, "loss": mean, "no half": 2 * mean}


@derivation("vf.loss-gradient", status="proved")
def gradient_of_the_loss() -> None:
    """One token: V - R. A batch: the derivative of the code's own loss, in every mode, whatever the mask."""
    value = sympy.Symbol("V", real=True)
    agree(slope(value, OLD, TARGET), UP * (value - TARGET))
    agree(UP * sympy.diff(loss(value, OLD, TARGET), value), UP * (value - TARGET))
    values, old, returns = batch((2, 2))
    masks = [np.array(mask).reshape(2, 2) for mask in itertools.product((False, True), repeat=4)]
    modes = itertools.product(policy_loss.MODES, policy_loss.EMPTY_ROWS, (None, 5))
    for (mode, empty, horizon), mask in itertools.product(modes, masks):
        options: dict[str, Any] = {"aggregation": mode, "empty_rows": empty, "horizon": horizon}
        total = UP * reference.value_loss(values, old, returns, mask, **options)
        derivative = [[sympy.diff(total, x) for x in line] for line in values]
        agree(reference.value_loss_gradient(UP, values, old, returns, mask, **options), derivative)


@derivation("vf.loss-minimum", status="verified for n <= 4")
def mean_return_is_best() -> None:
    """n returns with any probabilities: the mean loss is ½ (V - E[R])² + ½ Var[R]."""
    value = sympy.Symbol("V", real=True)
    for count in range(1, 5):
        returns, others = symbols.array("R", (count,)), symbols.array("p", (count - 1,))
        probabilities = [*others, 1 - sum(others, ZERO)]
        outcomes = list(zip(probabilities, returns, strict=True))
        mean, square = (sum((p * x**k for p, x in outcomes), ZERO) for k in (1, 2))
        expected = sum((p * loss(value, OLD, x) for p, x in outcomes), ZERO)
        agree(expected, (value - mean) ** 2 / 2 + (square - mean**2) / 2)


@derivation("vf.advantage-to-zero", status="proved")
def loss_is_half_the_squared_advantage() -> Numbers:
    """V = V_old and R from the code's own λ-returns: ½ mean A², gradient -A/N, for every clip and none."""
    for length in range(1, LONGEST + 1):
        steps = row(length)
        advantages = gae.gae(*steps, gamma=GAMMA, lam=LAM)
        returns = gae.lambda_returns(*steps, gamma=GAMMA, lam=LAM)
        arguments = (steps.values, steps.values, returns, steps.mask)
        for clip in (None, ZERO, CLIP):
            agree(reference.value_loss(*arguments, clip=clip), sum(advantages[0] ** 2) / (2 * length))
            gradient = reference.value_loss_gradient(ONE, *arguments, clip=clip)
            agree(gradient, -advantages / length)
        errors = gae.td_errors(*steps, gamma=GAMMA)
        one_step = gae.lambda_returns(*steps, gamma=GAMMA, lam=ZERO)
        got = reference.value_loss(steps.values, steps.values, one_step, steps.mask)
        agree(got, sum(errors[0] ** 2) / (2 * length))
    return step_shrinks_the_advantage()


def step_shrinks_the_advantage() -> Numbers:
    """A step of η on each token's own loss: R - V is (1 - η) A; with λ = 1 so is the new advantage."""
    rate = sympy.Symbol("eta", real=True)
    for length, lam in itertools.product(range(1, LONGEST), (LAM, ONE)):
        steps = row(length)
        advantages = gae.gae(*steps, gamma=GAMMA, lam=lam)
        returns = gae.lambda_returns(*steps, gamma=GAMMA, lam=lam)
        gradient = reference.value_loss_gradient(length, steps.values, steps.values, returns, steps.mask)
        stepped = steps._replace(values=steps.values - rate * gradient)
        agree(returns - stepped.values, (1 - rate) * advantages)
        if lam is ONE:
            agree(gae.gae(*stepped, gamma=GAMMA, lam=lam), (1 - rate) * advantages)
    return {"η": 0.1, "steps": 10, "what is left": 0.9**10}


def loss(value: Any, old: Any, target: Any, **options: Any) -> Any:
    """The reference's loss of one token."""
    return np.asarray(reference.value_loss(one(value), one(old), one(target), TOKEN, **options)).item()


def slope(value: Any, old: Any, target: Any, **options: Any) -> Any:
    """The reference's gradient of one token, for the upstream gradient g."""
    return reference.value_loss_gradient(UP, one(value), one(old), one(target), TOKEN, **options)[0, 0]


def one(x: Any) -> Any:
    """A batch of one token."""
    return np.array([[sympy.sympify(x)]], dtype=object)


def batch(shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Symbols for values, old values and returns."""
    values, old, returns = (symbols.array(name, shape) for name in ("V", "W", "R"))
    return values, old, returns
