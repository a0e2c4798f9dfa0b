"""Derivations of the chapter `contract`: what holds of every operation, shown on the reference."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy

from reference import importance_sampling, kl, logprobs, policy_loss, preference, reward
from reference.numbers import symbols
from reference.numbers.formats import FORMATS
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import OPERATIONS, ZEROING, Rows

UP, LOW, HIGH, BETA, HORIZON = sympy.symbols("g epsilon_l epsilon_h beta L", positive=True)
CLIP: Any = {"clip_low": LOW, "clip_high": HIGH}

EVERY = {**OPERATIONS, **{f"{name}, zero": operation for name, operation in ZEROING.items()}}
"""Every operation of the chapter `gae` that takes a mask, in both readings of it."""

OF_OTHER_CHAPTERS: dict[str, Callable[[Rows], Any]] = {
    "aggregate": lambda x: [
        policy_loss.aggregate(x.rewards, x.mask, mode=mode, horizon=HORIZON) for mode in policy_loss.MODES
    ],
    "policy_metrics": lambda x: list(policy_loss.policy_metrics(*_three(x), x.mask, **CLIP).values()),
    "gradient of policy_loss": lambda x: policy_loss.policy_loss_gradient(
        UP, *_three(x), x.mask, log_ratio_clip=None, **CLIP
    ),
    "sequence_importance_ratio": lambda x: importance_sampling.sequence_importance_ratio(
        x.rewards, x.values, x.mask
    ),
    "sequence_logprobs": lambda x: preference.sequence_logprobs(x.rewards, x.mask, average=True),
    "shaped_rewards": lambda x: reward.shaped_rewards(
        x.bootstrap_value, x.rewards, x.values, x.mask, kl_coef=BETA
    ),
}
"""What else takes a mask; the losses are aggregates, and the horizon is given."""


def _three(x: Rows) -> tuple[Any, Any, Any]:
    """Three arrays of tokens, two of them the same."""
    return x.rewards, x.values, x.values


def _batches(rows: int, length: int) -> list[Rows]:
    """A batch of symbols under every mask of its shape."""
    shape = (rows, length)
    rewards, values, bootstrap = (symbols.array(*x) for x in (("r", shape), ("V", shape), ("b", (rows,))))
    masks = itertools.product((False, True), repeat=rows * length)
    return [Rows(rewards, values, np.array(mask).reshape(shape), bootstrap) for mask in masks]


@derivation("contract.padding", status="verified for T <= 3")
def padding_changes_nothing() -> None:
    """One and two masked columns, left and right of every masked row: the active results stay."""
    for length, left, right in itertools.product((1, 2, 3), (0, 1, 2), (0, 1, 2)):
        operations = EVERY | OF_OTHER_CHAPTERS if left + right == 1 else EVERY
        for batch in _batches(1, length):
            width = ((0, 0), (left, right))
            rewards, values, mask = (np.pad(x, width, constant_values=fill) for x, fill in _columns(batch))
            padded = Rows(rewards, values, mask, batch.bootstrap_value)
            for operation in operations.values():
                agree(_active(operation(padded), padded.mask), _active(operation(batch), batch.mask))


def _active(result: Any, mask: Any) -> Any:
    """What of a result is specified: all of it, if it has no token of its own."""
    return result[mask] if np.shape(result) == mask.shape else result


def _columns(batch: Rows) -> list[tuple[Any, Any]]:
    """The arrays with columns, each with what fills the new ones: symbols that nobody else holds."""
    garbage = symbols.array("garbage", (2,))
    return [(batch.rewards, garbage[0]), (batch.values, garbage[1]), (batch.mask, False)]


@derivation("contract.permutation", status="verified for B <= 3")
def permutation_permutes() -> None:
    """Every order of up to three rows of two positions, under every mask."""
    for rows in (2, 3):
        for batch, order in itertools.product(_batches(rows, 2), itertools.permutations(range(rows))):
            permuted = Rows(*(x[list(order)] for x in batch))
            for operation in EVERY.values():
                agree(operation(permuted), operation(batch)[list(order)])
    for batch in _batches(3, 1):
        turned = Rows(*(np.roll(x, 1, axis=0) for x in batch))
        for name, operation in OF_OTHER_CHAPTERS.items():
            result = np.asarray(operation(batch), dtype=object)
            rows_of_its_own = name not in ("aggregate", "policy_metrics")
            agree(operation(turned), np.roll(result, 1, axis=0) if rows_of_its_own else result)


@derivation("contract.extremes", status="witnessed")
def finite_at_the_extremes() -> Numbers:
    """The reference on floats: slopes of 0 beyond clamps and at impossible tokens, a loss that is a line."""
    ends, nothing = np.array([[-800.0, -90.0, 90.0, 800.0]]), np.zeros((1, 4))
    clamped = importance_sampling.importance_ratio_gradient(ends + 1, ends, nothing)
    beyond_the_value = kl.kl_estimate_gradient(ends, ends, nothing, estimator="k3", value_clip=10.0)
    assert not clamped.any()
    assert not beyond_the_value.any()
    logits = np.array([[[1e4, -np.inf, -1e4]]])
    assert not logprobs.token_entropy_gradient(np.ones((1, 1)), logits).any()
    assert reward.reward_model_loss(np.array([-1e3]), np.array([0.0])) == 1e3
    assert np.exp(90.0) > FORMATS["float32"].largest
    assert np.exp(30.0) > FORMATS["float16"].largest
    return {"log-ratio": 800, "beyond float32": 90, "beyond float16": 30}
