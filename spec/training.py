"""Derivations of the chapter `train`: a step of the reference, run on symbols, is the step its clause states.

A loss is put together from the reference's losses, on symbols for each token's log-probability and value, and
differentiated by SymPy; and so are log-probabilities and values, in the entries of a table of symbols.
"""

from typing import Any

import numpy as np
import sympy

from reference import (
    gae,
    group,
    logprobs,
    policy_loss,
    preference,
    reward,
    tabular,
    training,
    value_loss,
)
from reference.numbers import symbols
from reference.tabular import Batch
from spec.pieces import piece
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import HALF, ONE, ZERO

reference: Any = training
tables: Any = tabular

RATE = sympy.Symbol("eta", positive=True)
FIFTH = sympy.Rational(1, 5)
TABLE = symbols.array("th", (2, 3))
STATES, ACTIONS = np.array([[0, 1], [0, 0]]), np.array([[0, 1], [1, 0]])
MASK = np.array([[True, True], [True, False]])
LOGS, OLD, VALUES = (symbols.array(name, (2, 2)) for name in ("l", "o", "v"))
OPTIONS: Any = {"clip_low": FIFTH, "clip_high": FIFTH, "aggregation": "token-mean"}
UNCLAMPED: Any = {**OPTIONS, "log_ratio_clip": None}
SAMPLED: Any = {"gamma": HALF, "lam": HALF}


def exact(*rows: Any) -> Any:
    """An array of integers."""
    return np.array([[sympy.Integer(x) for x in row] for row in rows], dtype=object)


START, REF = exact((1, 0, 2), (0, 1, 3)), symbols.array("ref", (2, 2))
PAID, BEHIND, TOGETHER = exact((20, 5), (-30, 0)), exact((1, 0))[0], np.array([7, 7])
BATCH = Batch(STATES, ACTIONS, PAID, MASK, BEHIND, TOGETHER)
AT = dict(zip(TABLE.flat, START.flat, strict=True)) | {RATE: ONE}
AT |= dict.fromkeys(REF.flat, ZERO)
AT |= dict.fromkeys([*LOGS.flat, *OLD.flat], -ONE) | dict.fromkeys(VALUES.flat, ZERO)


def rational(x: Any) -> Any:
    """Floats that options have by default as the rationals that they are."""
    return np.frompyfunc(lambda e: sympy.nsimplify(sympy.sympify(e), rational=True), 1, 1)(x)


def of_tokens(logits: Any) -> Any:
    """Log-probabilities of the batch's actions."""
    return rational(piece(logprobs.token_logprobs(logits[STATES], ACTIONS), AT))


def ppo_loss() -> Any:
    """The clipped loss and half the critic's, with the returns of the values that the table has now."""
    old_values = TABLE[:, -1][STATES]
    responses = PAID, old_values, MASK, BEHIND
    advantages, returns = gae.gae(*responses, **SAMPLED), gae.lambda_returns(*responses, **SAMPLED)
    actor = policy_loss.policy_loss(LOGS, OLD, advantages, MASK, **UNCLAMPED)
    return actor + HALF * value_loss.value_loss(VALUES, old_values, returns, MASK)


def grpo_loss() -> Any:
    """The GRPO loss, with the active rewards of each row added up."""
    advantages = group.group_advantages(exact((25, -30))[0], TOGETHER, eps=sympy.Rational(1, 10**6))
    return group.grpo_loss(LOGS, OLD, of_tokens(REF), advantages, MASK, **UNCLAMPED, kl_coef=HALF)


def dpo_loss() -> Any:
    """The DPO loss of the one pair, of sums over active tokens."""
    policy, ref = (preference.sequence_logprobs(x, MASK) for x in (LOGS, of_tokens(REF)))
    return preference.dpo_loss(policy[:1], policy[1:], ref[:1], ref[1:], beta=ONE)


def reward_model_loss() -> Any:
    """The reward model's loss of the one pair: row 0 ends in its second token, row 1 in its first."""
    return reward.reward_model_loss(VALUES[0, 1:], VALUES[1, :1])


LOSSES = {"ppo": ppo_loss, "grpo": grpo_loss, "dpo": dpo_loss, "reward-model": reward_model_loss}


@derivation("train.tabular-step", status="verified for S <= 2")
def entries_are_derivatives() -> None:
    """Slopes u and w of tokens, summed by the entries that they read, are the gradient of Σ u log π + w V."""
    slopes = [np.where(MASK, symbols.array(name, (2, 2)), ZERO) for name in ("u", "w")]
    total = (slopes[0] * of_tokens(TABLE[:, :-1]) + slopes[1] * TABLE[:, -1][STATES]).sum()
    found = rational(piece(tables.in_table(TABLE, BATCH, *slopes), AT))
    agree(found, np.frompyfunc(lambda x: sympy.diff(total, x), 1, 1)(TABLE))


@derivation("train.tabular-step", status="verified for S <= 2")
def one_step_is_down_the_loss() -> None:
    """θ - η ∂L/∂θ, by the chain rule, of the loss of each algorithm, from the policy that has sampled."""
    logs = of_tokens(TABLE[:, :-1])
    now = dict(zip(LOGS.flat, logs.flat, strict=True)) | dict(zip(OLD.flat, logs.flat, strict=True))
    now |= dict(zip(VALUES.flat, TABLE[:, -1][STATES].flat, strict=True))
    batch = STATES, ACTIONS, PAID, MASK, BEHIND, TOGETHER
    given = {"learning_rate": RATE, **OPTIONS, **SAMPLED, "value_coef": HALF, "kl_coef": HALF, "beta": ONE}
    for name, loss in LOSSES.items():
        total = rational(piece(loss(), AT))
        in_logs, in_values = (
            np.frompyfunc(lambda x, total=total: sympy.diff(total, x).subs(now), 1, 1)(part)
            for part in (LOGS, VALUES)
        )
        slopes = [
            [
                sum(weight * sympy.diff(x, entry) for weight, x in _read(in_logs, in_values, logs))
                for entry in row
            ]
            for row in TABLE
        ]
        found = piece(reference.train_step(TABLE, REF, *batch, algorithm=name, **given), AT)
        agree(of_weights(rational(found)), of_weights(TABLE - RATE * np.array(slopes)))


def of_weights(x: Any) -> Any:
    """In e^logit for the logits, and a reference whose logits are all 0: rational functions."""
    weights = {TABLE[i]: sympy.log(sympy.Symbol(f"x_{i[0]}_{i[1]}", positive=True)) for i in np.ndindex(2, 2)}
    swapped = weights | dict.fromkeys(REF.flat, ZERO)
    return np.frompyfunc(lambda e: sympy.cancel(sympy.sympify(e).subs(swapped)), 1, 1)(x)


def _read(in_logs: Any, in_values: Any, logs: Any) -> list[tuple[Any, Any]]:
    """What each active token's log-probability and value weigh, and what they are of the table."""
    values = TABLE[:, -1][STATES]
    return [*zip(in_logs[MASK], logs[MASK], strict=True), *zip(in_values[MASK], values[MASK], strict=True)]


@derivation("train.ppo-loop", status="witnessed")
def refreshed_log_probabilities_never_clip() -> Numbers:
    """Two epochs on one token of advantage 1, at even odds; and the same as two updates of one epoch."""
    batch = [[0]], [[0]], [[1.0]], [[True]], [0.0], [0]
    options = {"algorithm": "ppo", "learning_rate": 2.0}
    once = reference.train_step([[0.0, 0.0, 0.0]], [[0.0, 0.0]], *batch, **options)
    twice = reference.train_step([[0.0, 0.0, 0.0]], [[0.0, 0.0]], *batch, **options, epochs=2)
    refreshed = reference.train_step(once * [[1.0, 1.0, 0.0]], [[0.0, 0.0]], *batch, **options)
    first, second, third = (_chance(table) for table in (once, twice, refreshed))
    assert first == second < third
    return {"before": 0.5, "after one epoch": first, "refreshed": third, "ratio": first / 0.5, "bound": 1.2}


def _chance(table: Any) -> float:
    """The probability of the first action in the first state."""
    return float(logprobs.probabilities(table[None, :, :-1])[0, 0, 0])


@derivation("train.tabular-step-trust-region", status="witnessed")
def a_coin_spends_its_budget() -> Numbers:
    """One token of advantage 1 at even odds: the step has a KL of δ at most, and takes nearly all of it."""
    batch = [[0]], [[0]], [[1.0]], [[True]], [0.0], [0]
    options = {"algorithm": "trpo", "learning_rate": 0.0, "damping": 0.0, "cg_iters": 1}
    found = reference.train_step([[0.0, 0.0, 0.0]], [[0.0, 0.0]], *batch, **options, max_kl=0.02)
    chance = _chance(found)
    kl = float(0.5 * np.log(0.5 / chance) + 0.5 * np.log(0.5 / (1 - chance)))
    assert 0.019 < kl <= 0.02
    damped = reference.train_step(
        [[0.0, 0.0, 0.0]], [[0.0, 0.0]], *batch, **{**options, "damping": 0.5}, max_kl=0.02
    )
    return {
        "even": 0.5,
        "budget": 0.02,
        "chance": chance,
        "kl": kl,
        "damped": _chance(damped),
        "damping": 0.5,
    }
