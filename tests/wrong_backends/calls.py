"""Wrong backends that are right where a call is made in one way, and wrong where it is made in another."""

from functools import partial
from typing import Any

from tests.wrong_backends.edits import Edit

_of_ratio = partial(Edit, "importance_ratio", base="torch_importance_sampling")
_of_logprobs = partial(Edit, "token_logprobs", base="torch_policy_loss")
_of_aggregate = partial(Edit, "aggregate", base="torch_policy_loss")
_of_loss = partial(Edit, "policy_loss", base="torch_policy_loss")
_of_penalty = partial(Edit, "kl_penalty_loss", base="torch_policy_loss")
_of_values = partial(Edit, "value_loss", base="torch_value_loss")
_of_pairs = partial(Edit, "dpo_loss", base="torch_preference")

EXP = "return log_ratio.exp()"
FIRST = "log_ratio = logprobs"
SCALED = "logits / temperature"
OF_LOGITS = "return chosen - shifted.exp().sum(dim=-1).log()"
MEAN = "return _aggregate(x, mask, mode, horizon, empty_rows)"
LOSS = "return _aggregate(-objective, mask, aggregation, horizon, empty_rows)"
SQUARES = "return _aggregate(squared / 2, mask, aggregation, horizon, empty_rows)"
GRPO = "return _aggregate(kl_coef * divergence - objective, mask, aggregation, horizon, empty_rows)"
OF_PAIRS = "return losses.mean()"


def _hooked(returned: str, hook: str) -> str:
    """The same result, whose upstream gradient g goes through a hook."""
    result = returned.removeprefix("return ")
    return (
        f"result = {result}; result.requires_grad and result.register_hook(lambda g: {hook}); return result"
    )


OF_ONE = "g * len(losses) if g == 1 else g"
OF_ONES = "2 * g if (g == 1).all() else g"

WORKSPACE = """class Exp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            importance_ratio.kept = x.exp()
            return importance_ratio.kept.clone()
        @staticmethod
        def backward(ctx, g):
            return g * importance_ratio.kept
    return Exp.apply(log_ratio)"""
IN_PLACE = """class Exp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.slope = x.exp()
            return ctx.slope.clone()
        @staticmethod
        def backward(ctx, g):
            return ctx.slope.mul_(g)
    return Exp.apply(log_ratio)"""
SLOPES_KEPT = """loss = _aggregate(squared / 2, mask, aggregation, horizon, empty_rows)
    if not values.requires_grad:
        return loss
    [value_loss.slopes] = torch.autograd.grad(loss, values)
    class Kept(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return y.clone()
        @staticmethod
        def backward(ctx, g):
            return g * value_loss.slopes, None
    return Kept.apply(values, loss.detach())"""

HIDDEN: dict[str, Any] = {"clause": "contract.differentiated", "values_equal": True}
VIEW: dict[str, Any] = {"clause": "contract.pure"}

EDITS = (
    _of_loss(
        "no division by the tokens where upstream is 1",
        LOSS, _hooked(LOSS, "g * mask.sum().clamp(min=1) if g == 1 else g"),
        **HIDDEN,
    ),
    _of_pairs("no division by the pairs where upstream is 1", OF_PAIRS, _hooked(OF_PAIRS, OF_ONE), **HIDDEN),
    _of_aggregate("twice the gradient of an upstream of 1", MEAN, _hooked(MEAN, OF_ONES), **HIDDEN),
    _of_values("twice the gradient of an upstream of 1", SQUARES, _hooked(SQUARES, OF_ONES), **HIDDEN),
    _of_ratio("twice the gradient of an upstream of ones", EXP, _hooked(EXP, OF_ONES), **HIDDEN),
    _of_logprobs(
        "twice the gradient of an upstream of ones", OF_LOGITS, _hooked(OF_LOGITS, OF_ONES), **HIDDEN
    ),
    _of_aggregate(
        "leaves PyTorch recording nothing",
        MEAN, f"torch.set_grad_enabled(False)\n    {MEAN}",
        **VIEW,
    ),
    _of_values(
        "leaves float64 as PyTorch's default",
        SQUARES, f"torch.set_default_dtype(torch.float64)\n    {SQUARES}",
        **VIEW,
    ),
    Edit(
        "whiten", "rows of one number, expanded, taken for the same number", "mean = chosen.mean()",
        "chosen = chosen * 0 + chosen[0] if x.stride(-1) == 0 and x.shape[1] > 1 else chosen; "
        "mean = chosen.mean()",
        base="torch_columns", **VIEW,
    ),
    _of_loss("upstream of at most 100", LOSS, _hooked(LOSS, "g.clamp(-100, 100)"), **HIDDEN),
    _of_logprobs("upstream of at most 100", OF_LOGITS, _hooked(OF_LOGITS, "g.clamp(-100, 100)"), **HIDDEN),
    _of_logprobs(
        "a small upstream taken for 0",
        OF_LOGITS, _hooked(OF_LOGITS, "torch.where(g.abs() < 1e-6, 0, g)"),
        **HIDDEN,
    ),
    _of_ratio(
        "an upstream that is expanded along rows taken for one number",
        EXP, _hooked(EXP, "g.flatten()[0].expand(g.shape) if g.stride(-1) == 0 else g"),
        **HIDDEN,
    ),
    _of_ratio("the latest forward pass differentiated", EXP, WORKSPACE, **HIDDEN),
    _of_values("slopes of the latest call", SQUARES, SLOPES_KEPT, **HIDDEN),
    _of_ratio("slopes multiplied by upstream where they are kept", EXP, IN_PLACE, **HIDDEN),
    _of_ratio(
        "one buffer for gradients",
        EXP,
        "empty = torch.empty_like(logprobs).detach()\n"
        "    kept = importance_ratio.__dict__.setdefault(str(logprobs.shape), empty)\n"
        "    logprobs.requires_grad and logprobs.register_hook(kept.copy_)\n"
        f"    {EXP}",
        **HIDDEN,
    ),
    _of_ratio(
        "a gradient left with the argument",
        EXP, "result = log_ratio.exp(); result.requires_grad and result.sum().backward(retain_graph=True); "
        "return result",
        clause="",
        values_equal=True,
    ),
    Edit(
        "grpo_loss", "a gradient left with the argument",
        GRPO,
        GRPO.replace("return", "loss =")
        + "; loss.requires_grad and loss.backward(retain_graph=True); return loss",
        base="torch_group", clause="", values_equal=True,
    ),
    _of_penalty(
        "the penalty is a constant where the log-probabilities are",
        "kl_coef * torch.where(mask, kl, 0)",
        "kl_coef * torch.where(mask, kl if logprobs.requires_grad else kl.detach(), 0)",
        **HIDDEN,
    ),
    _of_penalty(
        "the gain is a constant where the penalty is",
        "penalty = kl_coef", "gain = gain if kl.requires_grad else gain.detach()\n    penalty = kl_coef",
        **HIDDEN,
    ),
    Edit(
        "reward_model_loss", "a gradient for both scores or none",
        "losses.mean()",
        "(losses if chosen.requires_grad and rejected.requires_grad else losses.detach()).mean()",
        base="torch_reward", **HIDDEN,
    ),
    _of_pairs(
        "a gradient for both answers or none",
        OF_PAIRS,
        "return (losses if policy_chosen.requires_grad and policy_rejected.requires_grad "
        "else losses.detach()).mean()",
        **HIDDEN,
    ),
    _of_logprobs(
        "no temperature where nothing is recorded",
        SCALED, "logits / (temperature if torch.is_grad_enabled() else 1.0)",
        **VIEW,
    ),
    _of_logprobs(
        "logits overwritten where nothing is recorded",
        SCALED, "logits / temperature if torch.is_grad_enabled() else logits.div_(temperature)",
        **VIEW,
    ),
    _of_loss(
        "bfloat16 where nothing is recorded",
        "log_ratio = torch.where(mask",
        "logprobs = logprobs if torch.is_grad_enabled() else logprobs.bfloat16().to(logprobs.dtype)\n"
        "    log_ratio = torch.where(mask",
        **VIEW,
    ),
    _of_logprobs(
        "what has a last stride of 1 taken for whole",
        SCALED,
        "(logits if logits.stride(-1) == 1 else logits.contiguous()).as_strided("
        "logits.shape, torch.empty(logits.shape).stride()) / temperature",
        **VIEW,
    ),
    Edit(
        "gae", "what has a last stride of 1 taken for whole",
        "steps = mask\n",
        "rewards, values, mask = (\n"
        "        (x if x.stride(-1) == 1 else x.contiguous()).as_strided(x.shape, (x.shape[1], 1))\n"
        "        for x in (rewards, values, mask)\n"
        "    )\n"
        "    steps = mask\n",
        base="torch_columns", **VIEW,
    ),
    Edit(
        "gae", "strides of the first array for the second",
        "steps = mask\n",
        "wide = torch.cat([values.flatten(), values.new_zeros(3 * values.numel())])\n"
        "    values = values if rewards.stride() == values.stride() else wide.as_strided("
        "values.shape, rewards.stride())\n"
        "    steps = mask\n",
        base="torch_columns", **VIEW,
    ),
    Edit(
        "whiten", "what is transposed read as it lies",
        "chosen = x[mask]",
        "x = x.t().reshape(x.shape) if x.t().is_contiguous() and not x.is_contiguous() else x\n"
        "    chosen = x[mask]",
        base="torch_columns", **VIEW,
    ),
    Edit(
        "gae", "strides of 0 refused",
        "steps = mask\n", "assert all(rewards.stride())\n    steps = mask\n",
        base="torch_columns", **VIEW,
    ),
    Edit(
        "gae", "two buffers for results in turn",
        "return torch.where(mask, advantages, 0).detach()",
        "kept = gae.__dict__.setdefault(str(mask.shape), [torch.zeros_like(rewards) for _ in range(2)])\n"
        "    kept.reverse()\n"
        "    return kept[0].copy_(torch.where(mask, advantages, 0).detach())",
        base="torch_columns", **VIEW,
    ),
    _of_ratio(
        "strides of 0 refused",
        FIRST, "assert all(old_logprobs.stride())\n    log_ratio = logprobs",
        clause="contract.differentiated",
    ),
    _of_loss(
        "strides of 0 refused",
        "advantages = torch.where(mask, advantages, 0).detach()",
        "assert all(advantages.stride())\n    advantages = torch.where(mask, advantages, 0).detach()",
        clause="contract.differentiated",
    ),
    _of_ratio(
        "no gradient where both arguments are one array",
        FIRST,
        "if logprobs.data_ptr() == old_logprobs.data_ptr():\n        return torch.ones_like(logprobs)\n"
        "    log_ratio = logprobs",
        **HIDDEN,
    ),
    Edit(
        "kl_estimate", "no gradient where both arguments are one array",
        FIRST,
        "if logprobs.data_ptr() == ref_logprobs.data_ptr():\n        return torch.zeros_like(logprobs)\n"
        "    log_ratio = logprobs",
        base="torch_kl", **HIDDEN,
    ),
    _of_loss(
        "no gradient where both policies are one array",
        "ratio = log_ratio.exp()",
        "ratio = log_ratio.exp() if logprobs.data_ptr() != old_logprobs.data_ptr() "
        "else torch.ones_like(log_ratio)",
        **HIDDEN,
    ),
    _of_aggregate(
        "tokens counted once for each array that holds a mask",
        "tokens = mask.sum(dim=1)",
        "mask.__dict__.setdefault('tokens', mask.sum(dim=1))\n    tokens = mask.tokens",
        **VIEW,
    ),
)  # fmt: skip
