"""Rewards: the reward model's loss, and scores with a KL penalty on every token.

Shapes: N pairs, B responses, T positions; `mask` is True at the tokens of a response, with holes anywhere.
Inputs under mask False do not matter, NaN included. float16 and bfloat16 inputs are computed in float32 and
rounded once at the end. The definitions are those of the chapter `rm` of the spec.
"""

import torch
from torch import Tensor
from torch.nn import functional

from torch_impl import checks
from torch_impl.kl import kl_estimate
from torch_impl.precision import select, widen


def reward_model_loss(chosen: Tensor, rejected: Tensor, *, margin: float = 0.0) -> Tensor:
    """Reward-model loss: the mean of -log σ(s_c - s_r - margin) over pairs.

    Clauses: `rm.bradley-terry`, `rm.bradley-terry-stable`.

    Parameters
    ----------
    chosen, rejected : (N,) floating
        Scores of the preferred answer and of the other one, in log-odds.
    margin : float
        By how much the chosen score has to be ahead before the probability is one half; finite.

    Returns
    -------
    scalar
        The loss in nats, in the dtype of `chosen`; 0 without pairs.

    Raises
    ------
    ValueError
        For a margin that is no finite number, or shapes that disagree.
    """
    checks.finite("margin", margin)
    checks.floating("chosen", chosen, (None,))
    checks.floating("rejected", rejected, tuple(chosen.shape), like="chosen")
    losses = -functional.logsigmoid(widen(chosen) - widen(rejected) - margin)
    return (losses.sum() / max(len(losses), 1)).to(chosen.dtype)


@torch.no_grad()
def shaped_rewards(
    scores: Tensor,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    *,
    kl_coef: float,
    estimator: str = "k1",
) -> Tensor:
    """Shaped rewards: the score on the last active token, and -β KL_t on every active one; constants.

    Clauses: `rm.shaping`, `rm.last-token`.

    Parameters
    ----------
    scores : (B,) floating
        One score a response, in reward units.
    logprobs, ref_logprobs : (B, T) floating
        Log-probabilities of the tokens under the policy that sampled them and under the reference, in nats.
    mask : (B, T) bool
        True at the tokens of the response; a row without any gets nothing.
    kl_coef : float, at least 0
        The coefficient β, in reward units per nat.
    estimator : "k1", "k2", "k3" or "abs"
        Estimator of each token's KL, as in :func:`torch_impl.kl.kl_estimate`, without clamps.

    Returns
    -------
    (B, T)
        Rewards at active positions, 0 elsewhere, in the dtype of `scores`.

    Raises
    ------
    ValueError
        For a negative kl_coef, an unknown estimator, shapes that disagree, a mask that is not boolean.
    """
    checks.non_negative("kl_coef", kl_coef)
    checks.floating("logprobs", logprobs, (None, None))
    shape = tuple(logprobs.shape)
    checks.floating("ref_logprobs", ref_logprobs, shape, like="logprobs")
    checks.boolean("mask", mask, shape, like="logprobs")
    checks.floating("scores", scores, shape[:1], like="logprobs")
    policy, reference = select(mask, widen(logprobs)), select(mask, widen(ref_logprobs))
    penalties = kl_coef * kl_estimate(policy, reference, estimator=estimator)
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    terminal = select(last, widen(scores)[:, None])
    return select(mask, terminal - penalties).to(scores.dtype)
