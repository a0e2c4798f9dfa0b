"""Derivations of the chapter `gae`: the reference, run on symbols, proves the clauses of `spec/gae.md`.

Two devices turn the code's own expressions into statements about every length:

- a *tail*: of a row the first step is kept, and one token stands for all that follows, with a reward
  that gives it any λ-return G. What the code does with G is the step of an induction;
- a *general term*: the code's TD error at a symbolic time k, with r(k), V(k) and V(k+1) put in. A sum
  whose general term is F(k+1) - F(k) is F at its end less F at its beginning.

Each is completed by the code itself, on rows of symbols up to `LONGEST` tokens.
"""

import itertools
from typing import Any

import numpy as np
import sympy

from reference import gae as reference
from reference.numbers import symbols
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import (
    GAMMA,
    LAM,
    LONGEST,
    ONE,
    OPERATIONS,
    REWARD,
    VALUE,
    ZERO,
    ZEROING,
    K,
    Rows,
    discounted,
    first_step_and_tail,
    renamed,
    row,
    td_error_at,
)


@derivation("gae.n-step", status="verified for n <= 6")
def n_step_sum() -> None:
    """The code is the defining sum at every t, for every n up to one more than there are tokens."""
    for length, n in itertools.product(range(1, LONGEST + 1), range(1, LONGEST + 2)):
        steps = row(length)
        states = [*steps.values[0], steps.bootstrap_value[0]]
        advantages = reference.n_step_advantages(*steps, gamma=GAMMA, n=n)[0]
        for t in range(length):
            last = min(t + n, length)
            target = discounted([*steps.rewards[0, t:last], states[last]], GAMMA)
            agree(advantages[t], target - states[t])


@derivation("gae.telescoping", status="proved")
def telescoping() -> None:
    """γ^k δ_k = γ^k r_k + F(k+1) - F(k) with F(k) = γ^k V_k: only the ends of F survive the sum."""
    agree(
        GAMMA**K * td_error_at(K),
        GAMMA**K * REWARD(K) + GAMMA ** (K + 1) * VALUE(K + 1) - GAMMA**K * VALUE(K),
    )
    for length, n in itertools.product(range(1, LONGEST + 1), range(1, LONGEST + 2)):
        errors = reference.td_errors(*row(length), gamma=GAMMA)[0]
        advantages = reference.n_step_advantages(*row(length), gamma=GAMMA, n=n)[0]
        agree(advantages, [discounted(errors[t : t + n], GAMMA) for t in range(length)])
        agree(advantages, reference.telescoped_advantages(*row(length), gamma=GAMMA, n=n)[0])


@derivation("gae.n-step-recursion", status="proved")
def n_step_recursions() -> None:
    """Forward with n symbolic; backward on a tail whose (n-1)-step target is G; both on the code."""
    rewards_so_far = sympy.Symbol("S")
    by_definition = rewards_so_far + GAMMA**K * VALUE(K) - VALUE(0)
    one_more = rewards_so_far + GAMMA**K * REWARD(K) + GAMMA ** (K + 1) * VALUE(K + 1) - VALUE(0)
    agree(one_more, by_definition + GAMMA**K * td_error_at(K))
    steps, _ = first_step_and_tail()
    longer, shorter = (reference.n_step_advantages(*steps, gamma=GAMMA, n=n)[0] for n in (2, 1))
    agree(longer[0], reference.td_errors(*steps, gamma=GAMMA)[0, 0] + GAMMA * shorter[1])
    for length, n in itertools.product(range(2, LONGEST + 1), range(1, LONGEST)):
        errors = reference.td_errors(*row(length), gamma=GAMMA)[0]
        shorter, longer = (reference.n_step_advantages(*row(length), gamma=GAMMA, n=m)[0] for m in (n, n + 1))
        agree(longer[:-n], shorter[:-n] + GAMMA**n * errors[n:])
        agree(longer[:-1], errors[:-1] + GAMMA * shorter[1:])


@derivation("gae.definition", status="proved")
def weights_sum_to_one() -> None:
    """(1-λ) λ^k = λ^k - λ^(k+1): the first N-1 weights sum to 1 - λ^(N-1), and the last one fills up."""
    agree((1 - LAM) * LAM**K, LAM**K - LAM ** (K + 1))
    for count in range(1, LONGEST + 2):
        weights = reference.n_step_weights(count, lam=LAM)
        agree(weights[:-1], [(1 - LAM) * LAM**k for k in range(count - 1)])
        agree(weights[-1], LAM ** (count - 1))
        agree(sum(weights), 1)


@derivation("gae.sum-of-td-errors", status="proved")
def sum_of_td_errors() -> None:
    """δ_{t+l} is in A^(n) for every n > l, with γ^l: its weights λ^l - λ^(N-1) + λ^(N-1) make (γλ)^l."""
    last = sympy.Symbol("N", integer=True, positive=True) - 1
    agree((1 - LAM) * LAM**K, LAM**K - LAM ** (K + 1))  # so Σ_{l≤k<N-1} (1-λ) λ^k = λ^l - λ^(N-1)
    weight_of_all_longer = (LAM**K - LAM**last) + LAM**last
    agree(GAMMA**K * weight_of_all_longer, GAMMA**K * LAM**K)
    for length in range(1, LONGEST + 1):
        errors = reference.td_errors(*row(length), gamma=GAMMA)[0]
        sums = [discounted(errors[t:], GAMMA * LAM) for t in range(length)]
        agree(reference.gae_by_definition(*row(length), gamma=GAMMA, lam=LAM)[0], sums)
        agree(reference.gae(*row(length), gamma=GAMMA, lam=LAM)[0], sums)


@derivation("gae.backward-recursion", status="proved")
def backward_recursion() -> None:
    """The code before any tail gives δ_0 + γλ A_1; and the sum of TD errors obeys the same recursion."""
    for steps in (first_step_and_tail()[0], *map(row, range(1, LONGEST + 1))):
        errors = reference.td_errors(*steps, gamma=GAMMA)[0]
        advantages = reference.gae(*steps, gamma=GAMMA, lam=LAM)[0]
        agree(advantages, errors + GAMMA * LAM * np.append(advantages[1:], ZERO))
    agree((GAMMA * LAM) ** (K + 1), GAMMA * LAM * (GAMMA * LAM) ** K)


@derivation("gae.lambda-zero", status="proved")
def lambda_zero() -> None:
    """Before any tail, λ = 0 leaves nothing of it but V_1; and A = δ on the code."""
    for steps in (first_step_and_tail()[0], *map(row, range(1, LONGEST + 1))):
        advantages = reference.gae(*steps, gamma=GAMMA, lam=ZERO)
        agree(advantages, reference.td_errors(*steps, gamma=GAMMA))


@derivation("gae.lambda-one", status="proved")
def lambda_one() -> None:
    """With λ = 1 the step is A_0 = r_0 + γ G_1 - V_0 whatever V_1 is; G_0 = r_0 + γ G_1 is the return."""
    steps, target = first_step_and_tail()
    advantage = reference.gae(*steps, gamma=GAMMA, lam=ONE)[0, 0]
    agree(advantage, steps.rewards[0, 0] + GAMMA * target - steps.values[0, 0])
    for length in range(1, LONGEST + 1):
        steps = row(length)
        returns = reference.discounted_returns(steps.rewards, steps.mask, steps.bootstrap_value, gamma=GAMMA)
        agree(reference.gae(*steps, gamma=GAMMA, lam=ONE), returns - steps.values)
        for t in range(length):
            agree(returns[0, t], discounted([*steps.rewards[0, t:], steps.bootstrap_value[0]], GAMMA))


@derivation("gae.lambda-return", status="proved")
def lambda_return_recursion() -> None:
    """Before a tail of λ-return G_1: G_0 = r_0 + γ ((1-λ) V_1 + λ G_1), on the code and at every length."""
    for steps in (first_step_and_tail()[0], *map(row, range(1, LONGEST + 1))):
        returns = reference.lambda_returns(*steps, gamma=GAMMA, lam=LAM)[0]
        agree(returns, reference.gae(*steps, gamma=GAMMA, lam=LAM)[0] + steps.values[0])
        following = np.append(steps.values[0, 1:], steps.bootstrap_value)
        later = np.append(returns[1:], steps.bootstrap_value)
        agree(returns, steps.rewards[0] + GAMMA * ((1 - LAM) * following + LAM * later))


@derivation("gae.mask", status="verified for T <= 4")
def masks_delete() -> Numbers:
    """Every mask: skipping is deletion; zeroing is a full row with zeros in the holes, to the last token."""
    for length in range(1, 5):
        for mask in itertools.product((False, True), repeat=length):
            steps, active = row(length, mask), np.flatnonzero(mask)
            if active.size:
                _agree_with_deleted(steps, active)
                _agree_with_zeroed(steps, active)
    return _credit_across_holes()


def _agree_with_deleted(steps: Rows, active: Any) -> None:
    """Every operation on the masked row, against the row of its active tokens."""
    rewards, values = steps.rewards[:, active], steps.values[:, active]
    kept = Rows(rewards, values, np.ones(rewards.shape, dtype=bool), steps.bootstrap_value)
    for operation in OPERATIONS.values():
        agree(operation(steps)[:, active], operation(kept))


def _agree_with_zeroed(steps: Rows, active: Any) -> None:
    """`masked="zero"` against a full row that ends at the last active token, with zeros in its holes."""
    length = active[-1] + 1
    rewards, values = (np.where(steps.mask, x, ZERO)[:, :length] for x in steps[:2])
    full = Rows(rewards, values, np.ones((1, length), dtype=bool), steps.bootstrap_value)
    for name, operation in ZEROING.items():
        agree(operation(steps)[:, active], OPERATIONS[name](full)[:, active])


def _credit_across_holes() -> Numbers:
    """A_0 of two tokens with a hole between, reward 1 on the second, V = 0, γ = 1, λ = 0.95."""
    numbers: Numbers = {"λ": 0.95}
    for hole in (1, 10, 100):
        mask = np.array([[True] + [False] * hole + [True]])
        rewards, values = np.where(np.arange(hole + 2) == hole + 1, 1.0, 0.0)[None], np.zeros((1, hole + 2))
        numbers[f"hole {hole}"] = hole
        for masked in ("skip", "zero"):
            advantages = reference.gae(rewards, values, mask, np.zeros(1), gamma=1.0, lam=0.95, masked=masked)
            numbers[f"{masked} {hole}"] = advantages[0, 0]
    return numbers


@derivation("gae.row-end", status="proved")
def bootstrap_coefficient() -> Numbers:
    """A_t is affine in the bootstrap value: γ at the last token, and every earlier step brings γλ."""
    steps = row(1)
    bootstrap = steps.bootstrap_value[0]
    agree(sympy.diff(reference.gae(*steps, gamma=GAMMA, lam=LAM)[0, 0], bootstrap), GAMMA)
    before, target = first_step_and_tail()
    agree(sympy.diff(reference.gae(*before, gamma=GAMMA, lam=LAM)[0, 0], target), GAMMA * LAM)
    for length in range(1, LONGEST + 1):
        steps = row(length)
        for t, advantage in enumerate(reference.gae(*steps, gamma=GAMMA, lam=LAM)[0]):
            agree(sympy.diff(advantage, bootstrap), GAMMA * (GAMMA * LAM) ** (length - 1 - t))
    nobody = reference.gae(*row(2, (False, False)), gamma=GAMMA, lam=LAM)
    agree(nobody, np.zeros((1, 2), dtype=int))
    shape, ends = (2, 11), np.array([0.5, 0.0])
    nothing, everything = np.zeros(shape), np.ones(shape, dtype=bool)
    cut, ended = reference.gae(nothing, np.full(shape, 0.5), everything, ends, gamma=1.0, lam=0.95)
    assert not cut.any()
    return {"V": 0.5, "λ": 0.95, "last token": ended[10], "tokens earlier": 10, "A there": ended[0]}


@derivation("gae.terminal-reward", status="proved")
def terminal_reward_coefficient() -> Numbers:
    """1 at the last token, and every step before a tail multiplies by γλ; γ = λ = 1 gives r - V_t."""
    before, target = first_step_and_tail()
    agree(sympy.diff(reference.gae(*before, gamma=GAMMA, lam=LAM)[0, 0], target), GAMMA * LAM)
    for length in range(1, LONGEST + 1):
        steps = row(length)
        reward = steps.rewards[0, -1]
        advantages = reference.gae(*steps, gamma=GAMMA, lam=LAM)[0]
        powers = [(GAMMA * LAM) ** (length - 1 - t) for t in range(length)]
        agree([sympy.diff(advantage, reward) for advantage in advantages], powers)
        steps.rewards[0, :-1], steps.bootstrap_value[0] = ZERO, ZERO
        agree(reference.gae(*steps, gamma=ONE, lam=ONE)[0], reward - steps.values[0])
    weights = {f"weight at λ = {lam}": lam**100 for lam in (0.95, 0.99)}
    return {"tokens": 100, "λ": 0.95, "the other λ": 0.99} | weights


@derivation("gae.reward-horizon", status="proved")
def horizon_is_where_the_weight_is_epsilon() -> Numbers:
    """With γλ = e^(-u) and ε = e^(-v), u, v > 0: the horizon is v/u, and e^(-uk) falls with k through ε."""
    u, v, tokens = sympy.symbols("u v k", positive=True)
    horizon = reference.reward_horizon(sympy.exp(-v), gamma=sympy.exp(-u), lam=ONE)
    weight = sympy.exp(-u * tokens)
    agree(weight.subs(tokens, horizon), sympy.exp(-v))
    assert sympy.diff(weight, tokens).is_negative
    numbers: Numbers = {}
    for lam, epsilon in itertools.product((0.9, 0.95, 0.99, 0.999), (0.5, 0.1, 0.01)):
        whole = int(np.ceil(reference.reward_horizon(epsilon, gamma=1.0, lam=lam)))
        assert lam**whole <= epsilon < lam ** (whole - 1)
        numbers |= {f"λ = {lam}": lam, f"ε = {epsilon}": epsilon, f"horizon {lam} {epsilon}": whole}
    return numbers


@derivation("gae.linearity", status="proved")
def linear_in_rewards_and_values() -> None:
    """The step δ_0 + γλ (G - V_1) is homogeneous and additive in (r_0, V_0, V_1, G): so is every length."""
    first, second = sympy.symbols("a b", real=True)
    for steps in (first_step_and_tail()[0], *map(row, range(1, LONGEST + 1))):
        others = Rows(*map(renamed, steps))
        sums = (first * x + second * y for x, y in zip(steps, others, strict=True) if x.dtype != bool)
        rewards, values, bootstrap = sums
        mixed = Rows(rewards, values, steps.mask, bootstrap)
        alone, other, together = (reference.gae(*x, gamma=GAMMA, lam=LAM) for x in (steps, others, mixed))
        agree(together, first * alone + second * other)


@derivation("gae.linearity", status="proved")
def potential_shaping() -> None:
    """r + γΦ' - Φ with V - Φ leaves every δ as it was; an unshaped end costs γΦ_N, discounted."""
    potential = sympy.Function("Phi")
    shaped = td_error_at(K).subs(
        {
            REWARD(K): REWARD(K) + GAMMA * potential(K + 1) - potential(K),
            VALUE(K): VALUE(K) - potential(K),
            VALUE(K + 1): VALUE(K + 1) - potential(K + 1),
        }
    )
    agree(shaped, td_error_at(K))
    for length in range(1, LONGEST + 1):
        plain, potentials = row(length), symbols.array("Phi", (1, length + 1))
        rewards = plain.rewards + GAMMA * potentials[:, 1:] - potentials[:, :-1]
        ends = plain.bootstrap_value - potentials[:, -1]
        steps = Rows(rewards, plain.values - potentials[:, :-1], plain.mask, ends)
        advantages = reference.gae(*plain, gamma=GAMMA, lam=LAM)
        agree(reference.gae(*steps, gamma=GAMMA, lam=LAM), advantages)
        forgotten = steps._replace(bootstrap_value=plain.bootstrap_value)
        error = (reference.gae(*forgotten, gamma=GAMMA, lam=LAM) - advantages)[0, -1]
        agree(error, GAMMA * potentials[0, -1])
