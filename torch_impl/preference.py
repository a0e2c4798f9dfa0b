"""Preferences: sequence log-probabilities, implicit rewards and the DPO family of losses.

Shapes: B rows, T positions, N responses or pairs. Log-probabilities are in nats. The reference's are
constants: no gradient flows into them. float16 and bfloat16 inputs are computed in float32 and rounded
once at the end. The definitions are those of the chapter `dpo` of the spec.
"""

from torch import Tensor
from torch.nn import functional

from torch_impl import checks
from torch_impl.precision import select, widen

LOSS_TYPES = ("sigmoid", "hinge", "ipo")


def sequence_logprobs(token_logprobs: Tensor, mask: Tensor, *, average: bool = False) -> Tensor:
    """Log-probability of each response: the sum of those of its active tokens.

    Clause: `dpo.sum-of-logprobs`.

    Parameters
    ----------
    token_logprobs : (B, T) floating
        Log-probability of each token, in nats.
    mask : (B, T) bool
        True at the response's tokens; what lies elsewhere, NaN included, does not matter.
    average : bool
        True divides the sum by the number of active tokens.

    Returns
    -------
    (B,)
        Sums, or means, in the dtype of `token_logprobs`; 0 for a row without active tokens.

    Raises
    ------
    ValueError
        For shapes that disagree, a mask that is not boolean, an `average` that is no flag.
    """
    checks.floating("token_logprobs", token_logprobs, (None, None))
    checks.boolean("mask", mask, tuple(token_logprobs.shape), like="token_logprobs")
    checks.flag("average", average)
    sums = select(mask, widen(token_logprobs)).sum(dim=1)
    if average:
        sums = sums / mask.sum(dim=1).clamp(min=1)
    return sums.to(token_logprobs.dtype)


def implicit_rewards(policy_logprobs: Tensor, ref_logprobs: Tensor, *, beta: float) -> Tensor:
    """Implicit rewards β (log π - log π_ref).

    Clause: `dpo.implicit-reward`.

    Parameters
    ----------
    policy_logprobs, ref_logprobs : (N,) floating
        Log-probability of each response under the policy and under the reference, in nats.
    beta : float above 0
        Weight β of the KL divergence.

    Returns
    -------
    (N,)
        Rewards, in the dtype of `policy_logprobs`.

    Raises
    ------
    ValueError
        For a β that is not above 0, or shapes that disagree.
    """
    checks.positive("beta", beta)
    checks.floating("policy_logprobs", policy_logprobs, (None,))
    checks.floating("ref_logprobs", ref_logprobs, tuple(policy_logprobs.shape), like="policy_logprobs")
    log_ratio = widen(policy_logprobs) - widen(ref_logprobs.detach())
    return (beta * log_ratio).to(policy_logprobs.dtype)


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    loss_type: str = "sigmoid",
) -> Tensor:
    """Preference loss: the mean over pairs of a function of the margin h of their log-ratios.

    Clauses: `dpo.loss`, `dpo.loss-label-smoothing`, `dpo.loss-hinge`, `dpo.loss-ipo`.

    Parameters
    ----------
    policy_chosen, policy_rejected : (N,) floating
        Log-probability of the chosen and of the rejected response under the policy, in nats.
    ref_chosen, ref_rejected : (N,) floating
        The same under the reference; constants.
    beta : float above 0
        Weight β of the KL divergence that the policy is held to the reference with.
    label_smoothing : float in [0, 1]
        Share ε of labels that are thought to be the wrong way round; "sigmoid" only.
    loss_type : "sigmoid", "hinge" or "ipo"
        -log σ(βh), max(0, 1 - βh), or (h - 1/(2β))².

    Returns
    -------
    scalar
        Mean loss, in the dtype of `policy_chosen`; 0 without any pair.

    Raises
    ------
    ValueError
        For a β that is not above 0, an ε outside [0, 1], an ε other than 0 with another type than "sigmoid",
        an unknown type, or shapes that disagree.
    """
    _check_options(beta, label_smoothing, loss_type)
    checks.floating("policy_chosen", policy_chosen, (None,))
    others = {"policy_rejected": policy_rejected, "ref_chosen": ref_chosen, "ref_rejected": ref_rejected}
    for name, x in others.items():
        checks.floating(name, x, tuple(policy_chosen.shape), like="policy_chosen")
    chosen = widen(policy_chosen) - widen(ref_chosen.detach())
    rejected = widen(policy_rejected) - widen(ref_rejected.detach())
    losses = _losses(chosen - rejected, beta, label_smoothing, loss_type)
    return (losses.sum() / max(len(losses), 1)).to(policy_chosen.dtype)


def _losses(margin: Tensor, beta: float, label_smoothing: float, loss_type: str) -> Tensor:
    """Loss of each pair as a function of its margin."""
    x = beta * margin
    if loss_type == "hinge":
        return functional.relu(1 - x)
    if loss_type == "ipo":
        return (margin - 1 / (2 * beta)).square()
    # softplus would be linear past 20, and so off by more than it rounds: log σ is not.
    losses = (1 - label_smoothing) * -functional.logsigmoid(x)
    return losses + label_smoothing * -functional.logsigmoid(-x) if label_smoothing else losses


def _check_options(beta: float, label_smoothing: float, loss_type: str) -> None:
    checks.positive("beta", beta)
    checks.unit_interval("label_smoothing", label_smoothing)
    checks.choice("loss_type", loss_type, LOSS_TYPES)
    if loss_type != "sigmoid" and label_smoothing != 0:
        raise ValueError(f"label_smoothing must be 0 with loss_type {loss_type!r}, got {label_smoothing!r}")
