"""Groups of responses: group-relative advantages, leave-one-out advantages, the GRPO loss.

Shapes: B responses, T positions. A group is the responses with one id. Advantages are constants: no gradient
flows through them. float16 and bfloat16 inputs are computed in float32 and rounded once at the end. The
definitions are those of the chapter `grpo` of the spec.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_impl import checks, policy_loss
from torch_impl.one_pass import row_sums
from torch_impl.precision import select, widen

SCALES = ("std", "none")


@torch.no_grad()
def group_advantages(
    scores: Tensor, group_ids: Tensor, *, scale: str = "std", ddof: int = 1, eps: float = 1e-6
) -> Tensor:
    """Group-relative advantages (r - mean) / (std + eps), with the mean and deviation of each group.

    Clauses: `grpo.advantage`, `grpo.zero-variance`, `grpo.single`.

    Parameters
    ----------
    scores : (B,) floating
        Reward of each response.
    group_ids : (B,) int
        Equal for the responses to one prompt; any integers, in any order.
    scale : "std" or "none"
        Whether the deviation divides.
    ddof : 0 or 1
        0 divides the sum of squares by the group's size, 1 by one less.
    eps : float, at least 0
        Added to the deviation, outside the root; reward units.

    Returns
    -------
    (B,)
        Advantages, in the dtype of `scores`; 0 where all rewards of a group are equal, and in a group of one.

    Raises
    ------
    ValueError
        For an unknown scale, a ddof other than 0 and 1, a negative eps, ids that are no integers, or shapes
        that disagree.
    """
    checks.choice("scale", scale, SCALES)
    checks.integer("ddof", ddof, at_least=0)
    if ddof > 1:
        raise ValueError(f"ddof must be 0 or 1, got {ddof!r}")
    checks.non_negative("eps", eps)
    groups, distances = _sorted(scores, group_ids)
    advantages = distances - groups.of_rows(groups.sums(distances) / groups.sizes.clamp(min=1))
    if scale == "std":
        variance = groups.sums(advantages.square()) / (groups.sizes - ddof).clamp(min=1)
        deviation = groups.of_rows(variance.sqrt() + eps)
        advantages = select(deviation != 0, advantages / deviation)
    return groups.unsorted(advantages).to(scores.dtype)


@torch.no_grad()
def rloo_advantages(scores: Tensor, group_ids: Tensor) -> Tensor:
    """Leave-one-out advantages: each reward less the mean of the other rewards of its group.

    Clauses: `grpo.leave-one-out`, `grpo.zero-variance`, `grpo.single`.

    Parameters
    ----------
    scores : (B,) floating
        Reward of each response.
    group_ids : (B,) int
        Equal for the responses to one prompt; any integers, in any order.

    Returns
    -------
    (B,)
        Advantages, in the dtype of `scores`; 0 where all rewards of a group are equal, and in a group of one.

    Raises
    ------
    ValueError
        For ids that are no integers, or shapes that disagree.
    """
    groups, distances = _sorted(scores, group_ids)
    sums = groups.of_rows(groups.sums(distances))
    others = groups.of_rows((groups.sizes - 1).clamp(min=1))
    return groups.unsorted(distances - (sums - distances) / others).to(scores.dtype)


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    kl_coef: float,
    aggregation: str,
    horizon: float | None = None,
    empty_rows: str = "count",
    ratio_level: str = "token",
    log_ratio_clip: float | None = 20.0,
) -> Tensor:
    """GRPO loss: the clipped policy loss with one advantage a response, and β times the aggregate of k3.

    Clauses: `grpo.loss`, `grpo.sequence-ratio`, `grpo.on-policy-gradient`.

    Parameters
    ----------
    logprobs, old_logprobs, ref_logprobs : (B, T) floating
        Log-probability of each token under the policy that is trained, the one that sampled, and the
        reference, in nats. The last two are constants.
    advantages : (B,) floating
        Advantage of each response, which all of its tokens carry; constants.
    mask : (B, T) bool
        True at the tokens that take part.
    clip_low, clip_high : float, at least 0
        The ratio is clipped to [1 - clip_low, 1 + clip_high].
    kl_coef : float, at least 0
        Weight β of the KL divergence from the reference.
    aggregation, horizon, empty_rows
        As `mode`, `horizon` and `empty_rows` of :func:`torch_impl.policy_loss.aggregate`, for both terms.
    ratio_level, log_ratio_clip
        As for :func:`torch_impl.policy_loss.policy_loss`; the KL term has neither.

    Returns
    -------
    scalar
        The loss, in the dtype of `logprobs`; 0 without active tokens.

    Raises
    ------
    ValueError
        For a negative clip or kl_coef, and for what :func:`torch_impl.policy_loss.policy_loss` raises for.
    """
    checks.non_negative("kl_coef", kl_coef)
    checks.floating("logprobs", logprobs, (None, None))
    shape = tuple(logprobs.shape)
    checks.floating("old_logprobs", old_logprobs, shape, like="logprobs")
    checks.floating("ref_logprobs", ref_logprobs, shape, like="logprobs")
    checks.floating("advantages", advantages, shape[:1], like="logprobs")
    checks.boolean("mask", mask, shape, like="logprobs")
    checks.choice("aggregation", aggregation, policy_loss.MODES)
    dtype, logprobs = logprobs.dtype, widen(logprobs) if ratio_level != "token" else logprobs
    x, old = policy_loss.at_level(logprobs, old_logprobs, mask, ratio_level)
    clips = policy_loss.Clips(clip_low, clip_high, log_ratio=log_ratio_clip)

    def clipped(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        log_ratio = x if old is None else x - widen(old[rows])
        return clips.act(log_ratio, -widen(advantages.detach()[rows, None]))

    def penalty(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        log_ratio = x - widen(ref_logprobs.detach()[rows])
        slope = -torch.expm1(-log_ratio)
        return kl_coef * (log_ratio - slope), kl_coef * slope

    def both(x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        (loss, slope), (more, steeper) = clipped(x, rows), penalty(x, rows)
        return loss + more, slope + steeper

    if not kl_coef:
        sums = row_sums(x, mask, clipped)
    elif x is logprobs:
        sums = row_sums(x, mask, both)
    else:
        sums = row_sums(x, mask, clipped) + row_sums(logprobs, mask, penalty)
    return policy_loss.aggregate_sums(sums, mask, aggregation, horizon, empty_rows).to(dtype)


class _Groups:
    """Rows sorted by their group, without waiting for the device: there is room for a group for each row."""

    def __init__(self, group_ids: Tensor) -> None:
        ids, self.order = group_ids.sort(stable=True)
        self.another = pad(ids[1:] != ids[:-1], (1, 0))[: len(ids)]  # than that of the row before
        self.number = self.another.cumsum(0)
        self.sizes = self.sums(torch.ones_like(self.number))

    def sums(self, x: Tensor) -> Tensor:
        """The sum of each group; 0 behind the last group."""
        return torch.zeros_like(x).index_add_(0, self.number, x)

    def of_rows(self, x: Tensor) -> Tensor:
        """For each row the number of its group."""
        return x.index_select(0, self.number)

    def first(self, x: Tensor) -> Tensor:
        """For each row the number at the first one of its group."""
        places = torch.arange(len(x), device=x.device).where(self.another, 0).cummax(0).values
        return x.index_select(0, places)

    def unsorted(self, x: Tensor) -> Tensor:
        """The rows where they were before they were sorted."""
        return torch.empty_like(x).scatter_(0, self.order, x)


def _sorted(scores: Tensor, group_ids: Tensor) -> tuple[_Groups, Tensor]:
    """Groups, and the distance of each reward from the first one of its group.

    Equal rewards are at distance 0 exactly, and so are their mean and their advantages; the mean of the
    rewards themselves would be a rounded number, and what it is off by would be divided by eps.
    """
    checks.floating("scores", scores, (None,))
    checks.integers("group_ids", group_ids, tuple(scores.shape), like="scores")
    groups = _Groups(group_ids)
    rewards = widen(scores).index_select(0, groups.order)
    return groups, rewards - groups.first(rewards)
