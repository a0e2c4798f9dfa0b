"""Losses of a batch in the entries of a table: logits and a value for every state.

The table and the batch are those of :func:`reference.training.train_step`, which has checked them. Every
gradient is the reference's own gradient of a loss over tokens, carried on to the entries that a token reads;
a token under mask False reads none.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from reference import gae, group, logprobs, numbers, policy_loss, preference, reward, trust_region, value_loss
from reference.checks import Indices
from reference.numbers import Array, Mask, Scalar


class Batch(NamedTuple):
    """Responses: rows of states, of the actions taken there, and of what they were paid."""

    states: Indices
    actions: Indices
    rewards: Array
    mask: Mask
    bootstrap_value: Array
    group_ids: Indices

    def part(self, rows: slice) -> "Batch":
        """Some of the rows."""
        some: list[Any] = [x[rows] for x in self]
        return Batch(*some)


Gradient = Callable[[Array, slice], Array]
"""The gradient of the loss of some rows of a batch, at a table (S, A + 1)."""


def minibatches(rows: int, size: int | None) -> Iterator[slice]:
    """Rows one after another, so many at a time; fewer are left for the last, and None takes all at once."""
    all_rows = max(rows, 1)
    step = all_rows if size is None else size
    return (slice(first, first + step) for first in range(0, all_rows, step))


def token_logprobs(parameters: Array, batch: Batch) -> Array:
    """Log-probability of each action in its state, under the softmax of the table's logits. Shape (B, T)."""
    return logprobs.token_logprobs(parameters[:, :-1][batch.states], batch.actions)


def ppo_gradient(
    start: Array,
    batch: Batch,
    *,
    gamma: Scalar,
    lam: Scalar,
    clip_low: Scalar,
    clip_high: Scalar,
    value_clip: Scalar | None,
    value_coef: Scalar,
    aggregation: str,
) -> Gradient:
    """Gradient of the clipped policy loss plus c times the critic's loss, with what `start` fixes.

    Clause: `train.ppo-loop`. Log-probabilities, values, advantages and returns of the tokens are those of the
    table from which the update starts, however far it has come.
    """
    old_logprobs, old_values = token_logprobs(start, batch), start[:, -1][batch.states]
    rows = batch.rewards, old_values, batch.mask, batch.bootstrap_value
    advantages = gae.gae(*rows, gamma=gamma, lam=lam)
    returns = gae.lambda_returns(*rows, gamma=gamma, lam=lam)
    clips: dict[str, Any] = {"clip_low": clip_low, "clip_high": clip_high, "aggregation": aggregation}

    def gradient(parameters: Array, part: slice) -> Array:
        some = batch.part(part)
        for_policy = policy_loss.policy_loss_gradient(
            _one(parameters),
            token_logprobs(parameters, some),
            old_logprobs[part],
            advantages[part],
            some.mask,
            **clips,
        )
        for_critic = value_loss.value_loss_gradient(
            value_coef,
            parameters[:, -1][some.states],
            old_values[part],
            returns[part],
            some.mask,
            clip=value_clip,
            aggregation=aggregation,
        )
        return in_table(parameters, some, for_policy, for_critic)

    return gradient


def grpo_gradient(
    start: Array,
    ref_logits: Array,
    batch: Batch,
    *,
    clip_low: Scalar,
    clip_high: Scalar,
    kl_coef: Scalar,
    aggregation: str,
) -> Gradient:
    """Gradient of the GRPO loss; a response's score is the sum of its rewards.

    Clause: `train.tabular-step-losses`. Advantages are those of whole groups, whatever rows a minibatch has.
    """
    old_logprobs, ref_logprobs = token_logprobs(start, batch), _reference_logprobs(ref_logits, batch)
    advantages = group.group_advantages(numbers.total(batch.rewards, axis=1), batch.group_ids)

    def gradient(parameters: Array, part: slice) -> Array:
        some = batch.part(part)
        slopes = group.grpo_loss_gradient(
            _one(parameters),
            token_logprobs(parameters, some),
            old_logprobs[part],
            ref_logprobs[part],
            advantages[part],
            some.mask,
            clip_low=clip_low,
            clip_high=clip_high,
            kl_coef=kl_coef,
            aggregation=aggregation,
        )
        return in_table(parameters, some, slopes)

    return gradient


def dpo_gradient(ref_logits: Array, batch: Batch, *, beta: Scalar) -> Gradient:
    """Gradient of the DPO loss of pairs: rows 2i were chosen, rows 2i + 1 rejected.

    Clause: `train.tabular-step-losses`.
    """
    ref = preference.sequence_logprobs(_reference_logprobs(ref_logits, batch), batch.mask)

    def gradient(parameters: Array, part: slice) -> Array:
        some, before = batch.part(part), ref[part]
        each = token_logprobs(parameters, some)
        policy = preference.sequence_logprobs(each, some.mask)
        pairs = policy[::2], policy[1::2], before[::2], before[1::2]
        slopes = _interleaved(*preference.dpo_loss_gradient(_one(parameters), *pairs, beta=beta))
        return in_table(parameters, some, preference.sequence_logprobs_gradient(slopes, each, some.mask))

    return gradient


def reward_model_gradient(batch: Batch) -> Gradient:
    """Gradient of the reward model's loss of pairs, whose scores are the table's values at the last tokens.

    Clause: `train.tabular-step-losses`. Rows 2i were chosen, rows 2i + 1 rejected; without any active token
    the score is 0.
    """

    def gradient(parameters: Array, part: slice) -> Array:
        some = batch.part(part)
        values, last = parameters[:, -1][some.states], reward.last_active(some.mask)
        scores = numbers.total(numbers.where(last, values, numbers.zeros(last.shape, like=values)), axis=1)
        slopes = _interleaved(*reward.reward_model_loss_gradient(_one(parameters), scores[::2], scores[1::2]))
        return in_table(parameters, some, None, reward.terminal_rewards(slopes, some.mask))

    return gradient


def trust_region_update(
    start: Array, batch: Batch, *, gamma: Scalar, lam: Scalar, max_kl: Scalar, cg_iters: int, damping: Scalar
) -> Array:
    """The table after one step of a trust region; its values stay.

    Clause: `train.tabular-step-trust-region`. A batch without any active token leaves all as it is.
    """
    if not batch.mask.any():
        return start
    logits, shape = start[:, :-1], start[:, :-1].shape
    old, old_values = token_logprobs(start, batch), start[:, -1][batch.states]
    advantages = gae.gae(batch.rewards, old_values, batch.mask, batch.bootstrap_value, gamma=gamma, lam=lam)
    nothing = numbers.zeros(batch.mask.shape, like=old)
    objective, _ = policy_loss.kl_penalty_loss_gradient(
        -_one(start), old, old, advantages, nothing, batch.mask, kl_coef=0.0, aggregation="token-mean"
    )
    visits = np.bincount(batch.states[batch.mask], minlength=len(start)).tolist()
    weights = np.array([numbers.full((), count, like=start)[()] for count in visits])
    probabilities, before = logprobs.probabilities(logits[None])[0], _log_softmax(logits)

    def fisher(vector: Array) -> Array:
        return trust_region.fisher_vector_product(probabilities, weights, vector.reshape(shape)).ravel()

    def evaluate(candidate: Array) -> tuple[Scalar, Scalar]:
        table = np.concatenate([candidate.reshape(shape), start[:, -1:]], axis=1)
        new, objectives = token_logprobs(table, batch), []
        for logs in (new, old):
            objectives.append(trust_region.surrogate(logs, old, advantages, batch.mask))
        kl = trust_region.mean_kl(before, _log_softmax(candidate.reshape(shape)), weights)
        return objectives[0] - objectives[1], kl

    gradient = in_table(start, batch, objective)[:, :-1].ravel()
    step = trust_region.trust_region_step(fisher, gradient, max_kl=max_kl, cg_iters=cg_iters, damping=damping)
    found = trust_region.backtracking_line_search(evaluate, logits.ravel(), step, max_kl=max_kl)
    return np.concatenate([found.reshape(shape), start[:, -1:]], axis=1)


def in_table(
    parameters: Array, batch: Batch, in_logprobs: Array | None, in_values: Array | None = None
) -> Array:
    """Sum over tokens what a loss has as slopes in their log-probabilities and values, entry by entry.

    Clause: `train.tabular-step`. Slopes are (B, T), and 0 where masked; None stands for 0. Shape (S, A + 1).
    """
    nothing = numbers.zeros(batch.mask.shape, like=parameters)
    logits = parameters[:, :-1][batch.states]
    slopes = logprobs.token_logprobs_gradient(
        nothing if in_logprobs is None else in_logprobs, logits, batch.actions
    )
    values = nothing if in_values is None else in_values
    each = np.concatenate([slopes, values[..., None]], axis=2)
    result = numbers.zeros(parameters.shape, like=parameters)
    for state in np.unique(batch.states[batch.mask]):
        here = (batch.states == state) & batch.mask
        result[state] = numbers.total(each[here], axis=0)
    return result


def _reference_logprobs(ref_logits: Array, batch: Batch) -> Array:
    return logprobs.token_logprobs(ref_logits[batch.states], batch.actions)


def _log_softmax(logits: Array) -> Array:
    """Logarithms of the probabilities of every action, (S, A)."""
    return logits - numbers.logsumexp(logits)[:, None]


def _one(like: Array) -> Scalar:
    """The number 1 of a number system: what a loss is multiplied by."""
    one: Scalar = numbers.full((), 1, like=like).item()
    return one


def _interleaved(chosen: Array, rejected: Array) -> Array:
    """Numbers of pairs as those of the rows that they came from."""
    return np.stack([chosen, rejected], axis=1).ravel()
