"""Derivations of the chapter `grpo` about advantages: the reference, run on symbols, proves `spec/group.md`.

Rewards of a group are symbols r_0 ... r_{G-1}, and what the code gives is read where they are not all equal;
where they are, it is 0 (`grpo.zero-variance`). Statements about every size are proved on sums S of rewards
and Q of their squares, with G a symbol, and confirmed by the code on groups of up to `LARGEST`.
"""

import itertools
from typing import Any

import numpy as np
import sympy

from reference import group
from reference.numbers import symbols
from spec.pieces import piece
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import ONE, ZERO

reference: Any = group
EPS = sympy.Symbol("epsilon", positive=True)
SIZE = sympy.Symbol("G", integer=True, positive=True)
LARGEST = 5
"""Groups of symbols are tried up to this size."""


def advantages(rewards: Any, **options: Any) -> Any:
    """The code's advantages of one group, where its rewards are not all equal."""
    return where_unequal(reference.group_advantages(rewards, np.zeros(len(rewards), dtype=int), **options))


def where_unequal(x: Any) -> Any:
    """What the code gives where rewards r_0, r_1 ... are 0, 1 ...: on the piece of unequal rewards."""
    names = {symbol for entry in np.ravel(x) for symbol in sympy.sympify(entry).free_symbols}
    rewards = {symbol: int(symbol.name[2:]) for symbol in names if symbol.name.startswith("r_")}
    return piece(x, dict.fromkeys(names, 1) | rewards)


def sampled(*rewards: Any) -> Any:
    """A group of exact numbers."""
    return np.array([sympy.sympify(x) for x in rewards], dtype=object)


@derivation("grpo.advantage", status="verified for G <= 5")
def moments_of_a_group() -> Numbers:
    """Mean 0, and variance v/(√v + ε)², by either count; the code is the formula, written out."""
    for count, ddof in itertools.product(range(2, LARGEST + 1), (0, 1)):
        rewards = symbols.array("r", (count,))
        centred = rewards - sum(rewards) / count
        variance = sum(centred**2) / (count - ddof)
        agree(advantages(rewards, scale="none", ddof=ddof, eps=EPS), centred)
        scaled = advantages(rewards, ddof=ddof, eps=EPS)
        agree(scaled * (sympy.sqrt(variance) + EPS), centred)
    numbers: Numbers = {}
    one_success = np.array([1.0, 0.0, 0.0, 0.0])
    for ddof in (0, 1):
        success, failure, *_ = reference.group_advantages(one_success, np.zeros(4, dtype=int), ddof=ddof)
        numbers |= {f"success, ddof {ddof}": success, f"failure, ddof {ddof}": failure}
    for eps in (1e-4, 1e-6):
        close = reference.group_advantages(np.array([0.0, 2e-4]), np.zeros(2, dtype=int), ddof=0, eps=eps)
        numbers[f"eps {eps}"] = close[1]
    return numbers | {"deviation": 1e-4, "eps of TRL": 1e-4, "eps": 1e-6, "rewards": 4}


@derivation("grpo.invariances", status="proved")
def sum_and_scale() -> None:
    """S - G (S/G) = 0; a r + b moves the mean to a m + b and the deviation to a s; on the code, every G."""
    total, a = sympy.Symbol("S", real=True), sympy.Symbol("a", positive=True)
    b = sympy.Symbol("b", real=True)
    agree(total - SIZE * (total / SIZE), 0)
    r, deviation = sympy.symbols("r s", positive=True)
    agree((a * r + b) - (a * total + SIZE * b) / SIZE, a * (r - total / SIZE))
    agree(sympy.sqrt((a * deviation) ** 2), a * deviation)
    for count, ddof in itertools.product((2, 3), (0, 1)):
        rewards = symbols.array("r", (count,))
        plain, moved = (advantages(x, scale="none", ddof=ddof, eps=ZERO) for x in (rewards, a * rewards + b))
        agree(sum(plain), 0)
        agree(moved, a * plain)  # so signs agree, and squares decide
        before, after = (advantages(x, ddof=ddof, eps=ZERO) ** 2 for x in (rewards, a * rewards + b))
        agree(after, before)
        ids = np.zeros(count, dtype=int)
        plain, moved = (where_unequal(reference.rloo_advantages(x, ids)) for x in (rewards, a * rewards + b))
        agree([sum(plain), *moved], [0, *(a * plain)])


@derivation("grpo.invariances", status="verified for B <= 3")
def groups_stand_alone() -> None:
    """Up to three rows, each of one of three ids: every group gets what it gets alone, in any order."""
    names = np.array([7, -3, 10**12])
    for rows in (1, 2, 3):
        rewards = symbols.array("r", (rows,))
        for choice in itertools.product(range(3), repeat=rows):
            ids = names[list(choice)]
            order = np.argsort(ids, kind="stable")[::-1]
            for operation, options in (
                (reference.group_advantages, {"eps": EPS}),
                (reference.rloo_advantages, {}),
            ):
                together = where_unequal(operation(rewards, ids, **options))
                agree(where_unequal(operation(rewards[order], ids[order], **options)), together[order])
                for members in (ids == name for name in set(ids)):
                    alone = operation(rewards[members], np.zeros(members.sum(), dtype=int), **options)
                    agree(together[members], where_unequal(alone))


@derivation("grpo.bound", status="proved")
def no_advantage_is_larger() -> Numbers:
    """G Q ≥ S² by induction; of the other G - 1 distances, whose sum is -d: so d² is at most (G-1)/G of Q."""
    total, squares, x = sympy.symbols("S Q x", real=True)
    one_more = (SIZE + 1) * (squares + x**2) - (total + x) ** 2
    distances = squares - 2 * x * total + SIZE * x**2  # Σ (d_j - x)², which is not negative
    agree(one_more, (SIZE * squares - total**2) + distances)
    d, others = sympy.symbols("d Q_others", real=True)
    slack = (SIZE - 1) * others - d**2  # not negative, by the induction
    agree((SIZE - 1) * (others + d**2) - SIZE * d**2, slack)  # so d² ≤ (G-1)/G · (Q_others + d²)
    for ddof in (0, 1):
        scaled = (SIZE - 1) / SIZE * (SIZE - ddof)  # d²/v with v = Q/(G - ddof)
        agree(reference.advantage_bound(SIZE, ddof=ddof) ** 2, scaled)
    for count, ddof in itertools.product(range(2, LARGEST + 2), (0, 1)):
        found = reference.group_advantages(
            sampled(1, *[0] * (count - 1)), np.zeros(count, dtype=int), ddof=ddof, eps=ZERO
        )
        agree(found[0], reference.advantage_bound(sympy.Integer(count), ddof=ddof))
    return {"G": 8} | {f"ddof {ddof}": reference.advantage_bound(8, ddof=ddof) for ddof in (0, 1)}


@derivation("grpo.binary-rewards", status="proved")
def advantages_of_zeros_and_ones() -> Numbers:
    """Mean p, variance p (1-p)² + (1-p) p² = p (1-p); and the code, on every group of up to six."""
    p = sympy.Symbol("p", positive=True)
    variance = p * (1 - p) ** 2 + (1 - p) * p**2
    agree(variance, p * (1 - p))
    success, failure = reference.binary_advantages(p)
    agree([success**2 * variance, failure**2 * variance], [(1 - p) ** 2, p**2])
    for count in range(2, LARGEST + 2):
        for successes in range(1, count):
            rewards = sampled(*[1] * successes, *[0] * (count - successes))
            found = reference.group_advantages(rewards, np.zeros(count, dtype=int), ddof=0, eps=ZERO)
            expected = reference.binary_advantages(sympy.Rational(successes, count))
            agree(found, [expected[0]] * successes + [expected[1]] * (count - successes))
    rare = reference.binary_advantages(0.1)
    return {"p": 0.1, "success": rare[0], "failure": rare[1]}


@derivation("grpo.zero-variance", status="verified for G <= 5")
def equal_rewards_give_zero() -> Numbers:
    """Exactly 0 for every reward, with and without ε; and what a rounded mean would leave in float32."""
    for count in range(1, LARGEST + 1):
        same, ids = np.full(count, sympy.Symbol("c", real=True), dtype=object), np.zeros(count, dtype=int)
        nothing = np.zeros(count, dtype=int)
        for scale, eps in itertools.product(reference.SCALES, (ZERO, EPS)):
            agree(reference.group_advantages(same, ids, scale=scale, eps=eps), nothing)
        agree(reference.rloo_advantages(same, ids), nothing)
        for reward in (0.1, -1 / 3, 1e9 + 0.7):
            assert not reference.group_advantages(np.full(count, reward), ids, eps=0.0).any()
            assert not reference.rloo_advantages(np.full(count, reward), ids).any()
    tenth = np.float32(0.1)
    one_by_one = np.cumsum(np.full(10, tenth))[-1]
    left = float(tenth - one_by_one / np.float32(10))
    numbers: Numbers = {"responses": 10, "reward": 0.1}
    for eps in (1e-6, 1e-9):
        deviation = abs(left) * np.sqrt(10 / 9)  # with ddof 1
        numbers |= {f"eps {eps}": eps, f"left with eps {eps}": left / (deviation + eps)}
    return numbers


@derivation("grpo.zero-variance-rounding", status="proved")
def noise_over_epsilon() -> Numbers:
    """|d|/(s + ε) ≤ |d|/ε, because s ≥ 0; the code on two rewards that differ by one rounding."""
    d, s = sympy.symbols("d s", nonnegative=True)
    assert sympy.factor(d / EPS - d / (s + EPS)).is_nonnegative
    noisy, ids = sampled(*map(sympy.Rational, (0.1 + 0.2, 0.3))), np.zeros(2, dtype=int)
    small = sympy.Rational(1, 10**6)
    with_eps, without = (reference.group_advantages(noisy, ids, eps=eps)[0] for eps in (small, ZERO))
    assert 0 < with_eps <= (noisy[0] - noisy[1]) / 2 / small
    assert with_eps < sympy.Rational(1, 10**10)
    return {"summands": 0.1, "and": 0.2, "sum": 0.3, "without ε": without, "the other": -without}


@derivation("grpo.leave-one-out", status="proved")
def mean_of_the_others() -> None:
    """r - (S - r)/(G - 1) = G/(G - 1) (r - S/G), for every G; and both forms of the code."""
    r, total = sympy.symbols("r S", real=True)
    agree(r - (total - r) / (SIZE - 1), SIZE / (SIZE - 1) * (r - total / SIZE))
    for count in range(2, LARGEST + 1):
        rewards, ids = symbols.array("r", (count,)), np.zeros(count, dtype=int)
        found = where_unequal(reference.rloo_advantages(rewards, ids))
        agree(found, [x - (sum(rewards) - x) / (count - 1) for x in rewards])
        agree(where_unequal(reference.rloo_by_group_mean(rewards, ids)), found)
    agree(reference.rloo_advantages(rewards[:1], ids[:1]), [0])


@derivation("grpo.leave-one-out-scale", status="proved")
def expected_gradients_of_baselines() -> None:
    """E[r_j ∇log π(y_i)] = 0 for j ≠ i, so the mean takes 1/G of E[r ∇log π]; the code on every sample."""
    p = sympy.Symbol("p", positive=True)
    better, worse = sympy.symbols("r_1 r_0", real=True)
    score = {0: -p, 1: 1 - p}  # ∇ log π of two answers, in the logit of the second
    probability, reward = {0: 1 - p, 1: p}, {0: worse, 1: better}
    agree(sum(probability[y] * score[y] for y in (0, 1)), 0)
    true = sum(probability[y] * reward[y] * score[y] for y in (0, 1))
    agree(true * (1 - 1 / SIZE), (SIZE - 1) / SIZE * true)
    for count in range(2, LARGEST):
        ids = np.zeros(count, dtype=int)
        relative, alone = ZERO, ZERO
        for sample in itertools.product((0, 1), repeat=count):
            rewards = np.array([reward[y] for y in sample], dtype=object)
            scores = np.array([score[y] for y in sample], dtype=object) / count
            chance = sympy.prod([probability[y] for y in sample])
            relative += chance * sum(reference.group_advantages(rewards, ids, scale="none") * scores)
            alone += chance * sum(reference.rloo_advantages(rewards, ids) * scores)
        agree(where_unequal(relative), sympy.Rational(count - 1, count) * true)
        agree(where_unequal(alone), true)


@derivation("grpo.leave-one-out-std", status="witnessed")
def deviation_turns_the_gradient() -> Numbers:
    """Three equally likely answers worth 0, 1 and 10, in pairs: what each one's logit gets, exactly."""
    rewards, third = sampled(0, 1, 10), sympy.Rational(1, 3)
    gradients = {}
    for scale in reference.SCALES:
        gradient = np.full(3, ZERO, dtype=object)
        for sample in itertools.product(range(3), repeat=2):
            chosen = rewards[list(sample)]
            found = reference.group_advantages(chosen, np.zeros(2, dtype=int), scale=scale, eps=ZERO)
            for advantage, answer in zip(found, sample, strict=True):
                score = np.array([ONE if k == answer else ZERO for k in range(3)], dtype=object) - third
                gradient = gradient + third**2 * advantage * score / 2
        gradients[scale] = gradient
    true = third * (rewards - third * sum(rewards))
    agree(gradients["none"], true / 2)
    assert gradients["std"][1] == 0 > true[1]
    agree(gradients["std"][0], -gradients["std"][2])
    worth = {f"worth {x}": x for x in rewards}
    return worth | {f"true, answer {k}": x for k, x in enumerate(true)}
