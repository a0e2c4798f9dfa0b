"""One update of a tabular policy and its critic: the step of the trainers, on the smallest model there is.

Shapes: S states, A actions, B rows, T positions. The model is a table: the logits of a softmax policy and a
value for each state. It is trained by `torch.optim` through :func:`torch_impl.train.step.update`, down the
losses of this package. float16 and bfloat16 tables are trained in float32 and rounded once at the end. The
definitions are those of the chapter `train` of the spec.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torch_impl import checks
from torch_impl.gae import gae, lambda_returns
from torch_impl.group import group_advantages, grpo_loss
from torch_impl.logprobs import token_logprobs
from torch_impl.policy_loss import MODES, policy_loss
from torch_impl.precision import select, widen
from torch_impl.preference import dpo_loss, sequence_logprobs
from torch_impl.reward import reward_model_loss
from torch_impl.train.step import update
from torch_impl.trust_region import backtracking_line_search, trust_region_step
from torch_impl.value_loss import value_loss

ALGORITHMS = ("ppo", "grpo", "dpo", "reward-model", "trpo")
IN_PAIRS = ("dpo", "reward-model")
OPTIMIZERS = ("sgd", "adam")

OPTIONAL = ("max_grad_norm", "value_clip", "minibatch_rows")
CHECKS: dict[str, Callable[[str, Any], None]] = {
    "algorithm": partial(checks.choice, options=ALGORITHMS),
    "optimizer": partial(checks.choice, options=OPTIMIZERS),
    "aggregation": partial(checks.choice, options=MODES),
    **dict.fromkeys(("epochs", "minibatch_rows", "cg_iters"), partial(checks.integer, at_least=1)),
    **dict.fromkeys(("gamma", "lam"), checks.unit_interval),
    **dict.fromkeys(("beta1", "beta2"), checks.below_one),
    **dict.fromkeys(("adam_eps", "beta", "max_grad_norm", "value_clip"), checks.positive),
    **dict.fromkeys(("learning_rate", "clip_eps", "clip_low", "clip_high"), checks.non_negative),
    **dict.fromkeys(("value_coef", "kl_coef", "max_kl", "damping"), checks.non_negative),
}
"""The check of each option; those in `OPTIONAL` may be None."""

Options = dict[str, Any]
Loss = Callable[[slice], Tensor]
"""The loss of some rows of a batch, by the table as it is."""


class Batch(NamedTuple):
    """Responses: rows of states, of the actions taken there, and of what they were paid."""

    states: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor
    bootstrap_value: Tensor
    group_ids: Tensor


class Table(nn.Module):
    """Logits of a policy and a value for each state."""

    def __init__(self, parameters: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(parameters[:, :-1].clone())
        self.values = nn.Parameter(parameters[:, -1].clone())

    def logprobs(self, batch: Batch, rows: slice = slice(None)) -> Tensor:
        """Log-probabilities of the actions of some rows, (B, T)."""
        return token_logprobs(self.logits[batch.states[rows]], batch.actions[rows])

    def value(self, batch: Batch, rows: slice = slice(None)) -> Tensor:
        """Values of the states of some rows, (B, T)."""
        return self.values[batch.states[rows]]

    def whole(self) -> Tensor:
        """The table, (S, A + 1)."""
        return torch.cat([self.logits, self.values[:, None]], dim=1).detach()


@torch.enable_grad()
def train_step(
    parameters: Tensor,
    ref_logits: Tensor,
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    group_ids: Tensor,
    *,
    algorithm: str,
    learning_rate: float,
    optimizer: str = "sgd",
    max_grad_norm: float | None = None,
    clip_eps: float = 1e-6,
    beta1: float = 0.9,
    beta2: float = 0.999,
    adam_eps: float = 1e-8,
    epochs: int = 1,
    minibatch_rows: int | None = None,
    gamma: float = 1.0,
    lam: float = 0.95,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    value_clip: float | None = None,
    value_coef: float = 0.5,
    kl_coef: float = 0.04,
    aggregation: str = "token-mean",
    beta: float = 0.1,
    max_kl: float = 0.01,
    cg_iters: int = 10,
    damping: float = 0.1,
) -> Tensor:
    """Parameters after one update of a tabular policy, critic or reward model by a batch of responses.

    Clauses: `train.ppo-loop`, `train.tabular-step`, `train.tabular-step-losses`,
    `train.tabular-step-clipping`, `train.tabular-step-adam`, `train.tabular-step-trust-region`.

    Parameters
    ----------
    parameters : (S, A + 1) floating
        Logits of the actions in each state, and in the last column its value or score.
    ref_logits : (S, A) floating
        Logits of the reference policy; read by "grpo" and "dpo".
    states, actions : (B, T) int
        0 ... S-1 and 0 ... A-1, at masked positions too.
    rewards : (B, T) floating
        What each token was paid.
    mask : (B, T) bool
        True at the tokens that take part.
    bootstrap_value : (B,) floating
        Value of what lies behind each row's last active token; 0 where the response has ended.
    group_ids : (B,) int
        Equal for the responses to one prompt; read by "grpo".
    algorithm : "ppo", "grpo", "dpo", "reward-model" or "trpo"
        "dpo" and "reward-model" read pairs of rows: 2i chosen, 2i + 1 rejected.
    learning_rate : float, at least 0
        Of `optimizer`, "sgd" or "adam", which is made anew; "trpo" has neither.
    max_grad_norm, clip_eps
        As `max_norm` and `clip_eps` of :func:`torch_impl.train.step.clip_gradients`; None does not clip.
    beta1, beta2, adam_eps
        `betas` and `eps` of :class:`torch.optim.Adam`.
    epochs, minibatch_rows : int, at least 1
        How often the batch is gone through, and how many rows, in their order, a step takes; None: all.
    gamma, lam
        As for :func:`torch_impl.gae.gae`; read by "ppo" and "trpo".
    clip_low, clip_high, aggregation
        As for :func:`torch_impl.policy_loss.policy_loss`; the aggregation is the critic's too.
    value_clip : float, above 0, or None
        As `clip` of :func:`torch_impl.value_loss.value_loss`.
    value_coef : float, at least 0
        Weight of the critic's loss.
    kl_coef
        As for :func:`torch_impl.group.grpo_loss`.
    beta
        As for :func:`torch_impl.preference.dpo_loss`.
    max_kl, cg_iters, damping
        As for :func:`torch_impl.trust_region.trust_region_step`.

    Returns
    -------
    (S, A + 1)
        New parameters, in the dtype of `parameters`: a constant.

    Raises
    ------
    ValueError
        For an unknown algorithm, optimizer or aggregation, options out of their ranges, shapes that
        disagree, an odd number of rows or of `minibatch_rows` where rows are read in pairs.
    torch_impl.train.step.NotFinite
        For a gradient that is not finite.
    """
    batch = _checked(parameters, ref_logits, states, actions, rewards, mask, bootstrap_value, group_ids)
    clipping: Options = {"max_grad_norm": max_grad_norm, "clip_eps": clip_eps}
    descent: Options = {"learning_rate": learning_rate, "beta1": beta1, "beta2": beta2, "adam_eps": adam_eps}
    order: Options = {"epochs": epochs, "minibatch_rows": minibatch_rows}
    estimates: Options = {"gamma": gamma, "lam": lam}
    clips: Options = {"clip_low": clip_low, "clip_high": clip_high, "aggregation": aggregation}
    critic: Options = {"value_clip": value_clip, "value_coef": value_coef}
    region: Options = {"max_kl": max_kl, "cg_iters": cg_iters, "damping": damping}
    _check_options(algorithm=algorithm, optimizer=optimizer, kl_coef=kl_coef, beta=beta, **clipping)
    _check_options(**descent, **order, **estimates, **clips, **critic, **region)
    _check_pairs(algorithm, len(states), minibatch_rows)
    table, ref = Table(widen(parameters.detach())), widen(ref_logits.detach())
    if algorithm == "trpo":
        _trust_region_update(table, batch, **estimates, **region)
        return table.whole().to(parameters.dtype)
    makers: dict[str, Callable[[], Loss]] = {
        "ppo": partial(_ppo, table, batch, **estimates, **clips, **critic),
        "grpo": partial(_grpo, table, ref, batch, **clips, kl_coef=kl_coef),
        "dpo": partial(_dpo, table, ref, batch, beta=beta),
        "reward-model": partial(_reward_model, table, batch),
    }
    loss, made = makers[algorithm](), _optimizer(optimizer, table, **descent)
    for _ in range(epochs):
        for first in range(0, len(states), minibatch_rows or max(len(states), 1)):
            rows = slice(first, None if minibatch_rows is None else first + minibatch_rows)
            update(made, [partial(loss, rows)], **clipping)
    return table.whole().to(parameters.dtype)


def _ppo(
    table: Table,
    batch: Batch,
    *,
    gamma: float,
    lam: float,
    clip_low: float,
    clip_high: float,
    aggregation: str,
    value_clip: float | None,
    value_coef: float,
) -> Loss:
    """The clipped loss and the critic's, with what the table as it is now fixes for all epochs."""
    old_logprobs, old_values = table.logprobs(batch).detach(), table.value(batch).detach()
    responses = batch.rewards, old_values, batch.mask, batch.bootstrap_value
    advantages = gae(*responses, gamma=gamma, lam=lam)
    returns = lambda_returns(*responses, gamma=gamma, lam=lam)

    def loss(rows: slice) -> Tensor:
        actor = policy_loss(
            table.logprobs(batch, rows),
            old_logprobs[rows],
            advantages[rows],
            batch.mask[rows],
            clip_low=clip_low,
            clip_high=clip_high,
            aggregation=aggregation,
        )
        critic = value_loss(
            table.value(batch, rows),
            old_values[rows],
            returns[rows],
            batch.mask[rows],
            clip=value_clip,
            aggregation=aggregation,
        )
        return actor + value_coef * critic

    return loss


def _grpo(table: Table, ref: Tensor, batch: Batch, **options: Any) -> Loss:
    """The GRPO loss, with advantages of whole groups."""
    old_logprobs = table.logprobs(batch).detach()
    ref_logprobs = token_logprobs(ref[batch.states], batch.actions)
    advantages = group_advantages(select(batch.mask, batch.rewards).sum(dim=1), batch.group_ids)

    def loss(rows: slice) -> Tensor:
        new, mask = table.logprobs(batch, rows), batch.mask[rows]
        return grpo_loss(new, old_logprobs[rows], ref_logprobs[rows], advantages[rows], mask, **options)

    return loss


def _dpo(table: Table, ref: Tensor, batch: Batch, *, beta: float) -> Loss:
    """The DPO loss of pairs."""
    before = sequence_logprobs(token_logprobs(ref[batch.states], batch.actions), batch.mask)

    def loss(rows: slice) -> Tensor:
        policy = sequence_logprobs(table.logprobs(batch, rows), batch.mask[rows])
        return dpo_loss(policy[::2], policy[1::2], before[rows][::2], before[rows][1::2], beta=beta)

    return loss


def _reward_model(table: Table, batch: Batch) -> Loss:
    """The reward model's loss of pairs, a score being the value at the last active token."""
    left = batch.mask.flip(1).cumsum(1).flip(1)
    last = batch.mask & (left == 1)

    def loss(rows: slice) -> Tensor:
        scores = select(last[rows], table.value(batch, rows)).sum(dim=1)
        return reward_model_loss(scores[::2], scores[1::2])

    return loss


def _trust_region_update(
    table: Table,
    batch: Batch,
    *,
    gamma: float,
    lam: float,
    max_kl: float,
    cg_iters: int,
    damping: float,
) -> None:
    """Move the logits by one step of a trust region; the Fisher matrix is the Hessian of the mean KL."""
    count = batch.mask.sum().clamp(min=1)
    old_values, start = table.value(batch).detach(), table.logits.detach().clone()
    advantages = gae(batch.rewards, old_values, batch.mask, batch.bootstrap_value, gamma=gamma, lam=lam)
    old_logprobs, old_policy = table.logprobs(batch).detach(), start.log_softmax(1)
    possible = old_policy > -torch.inf

    def surrogate() -> Tensor:
        ratio = select(batch.mask, table.logprobs(batch) - old_logprobs).exp()
        return select(batch.mask, ratio * advantages).sum() / count

    def mean_kl(logits: Tensor) -> Tensor:
        differences = select(possible, old_policy - logits.log_softmax(1))
        divergences = (old_policy.exp() * differences).sum(1)
        return select(batch.mask, divergences[batch.states]).sum() / count

    def fisher(vector: Tensor) -> Tensor:
        logits = start.clone().requires_grad_()
        [slope] = torch.autograd.grad(mean_kl(logits), logits, create_graph=True)
        [product] = torch.autograd.grad((slope * vector.view_as(start)).sum(), logits)
        return product.flatten()

    def evaluate(candidate: Tensor) -> tuple[Tensor, Tensor]:
        table.logits.copy_(candidate.view_as(start))
        return surrogate() - before, mean_kl(table.logits)

    value = surrogate()
    [gradient] = torch.autograd.grad(value, table.logits)
    before = value.detach()
    step = trust_region_step(fisher, gradient.flatten(), max_kl=max_kl, cg_iters=cg_iters, damping=damping)
    found = backtracking_line_search(evaluate, start.flatten(), step, max_kl=max_kl)
    with torch.no_grad():
        table.logits.copy_(found.view_as(start))


def _optimizer(
    name: str, table: Table, *, learning_rate: float, beta1: float, beta2: float, adam_eps: float
) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(table.parameters(), lr=learning_rate)
    return torch.optim.Adam(table.parameters(), lr=learning_rate, betas=(beta1, beta2), eps=adam_eps)


def _checked(
    parameters: Tensor,
    ref_logits: Tensor,
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    group_ids: Tensor,
) -> Batch:
    """Check the tensors, and widen the constants."""
    checks.floating("ref_logits", ref_logits, (None, None))
    size = len(ref_logits), ref_logits.shape[1] + 1
    checks.floating("parameters", parameters, size, like="ref_logits")
    checks.floating("rewards", rewards, (None, None))
    shape = tuple(rewards.shape)
    checks.boolean("mask", mask, shape, like="rewards")
    checks.integers("states", states, shape, like="rewards")
    checks.integers("actions", actions, shape, like="rewards")
    checks.floating("bootstrap_value", bootstrap_value, shape[:1], like="rewards")
    checks.integers("group_ids", group_ids, shape[:1], like="rewards")
    paid, behind = widen(rewards.detach()), widen(bootstrap_value.detach())
    return Batch(states, actions, paid, mask, behind, group_ids)


def _check_options(**options: Any) -> None:
    for name, value in options.items():
        if value is not None or name not in OPTIONAL:
            CHECKS[name](name, value)


def _check_pairs(algorithm: str, rows: int, minibatch_rows: int | None) -> None:
    """Refuse half a pair."""
    for name, count in (("states", rows), ("minibatch_rows", minibatch_rows or 0)):
        if algorithm in IN_PAIRS and count % 2:
            raise ValueError(f"{name} must be rows in pairs for algorithm={algorithm!r}, got {count} rows")
