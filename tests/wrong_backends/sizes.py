"""Wrong backends that are right up to some size, or where no block of tokens is empty."""

from functools import partial

from tests.wrong_backends.edits import Edit

_of_ratio = partial(Edit, base="torch_importance_sampling", clause="contract.shapes")
_of_kl = partial(Edit, base="torch_kl", clause="contract.shapes")
_of_policy = partial(Edit, base="torch_policy_loss", clause="contract.shapes")
_of_values = partial(Edit, "value_loss", base="torch_value_loss", clause="contract.shapes")
_of_reward = partial(Edit, base="torch_reward", clause="contract.shapes")
_of_preference = partial(Edit, base="torch_preference", clause="contract.shapes")
_of_group = partial(Edit, base="torch_group", clause="contract.shapes")
_of_rows = partial(Edit, base="torch_columns", clause="contract.shapes")

EMPTY_BLOCK = (
    "width = mask.shape[1]\n"
    "    stop = next((s for s in range(0, width, 128) if not mask[:, s : s + 128].any()), width)\n"
    "    mask = mask & (torch.arange(width) < stop)\n    "
)
CHOSEN, LOG_RATIO = "chosen = torch.where(mask, x, 0)", "log_ratio = torch.where"
VALUES, SUMS, PER_TOKEN = "values, old_values, returns = (torch", "sums = torch.where", "per_token = logprobs"
K3 = "return (-log_ratio).exp() - 1 + log_ratio"
K3_OF_FEW = f"{K3.replace('return ', 'return (')}) * (torch.arange(log_ratio.shape[-1]) < 128)"
DIVERGENCE = "(logprobs.exp() * log_ratio).sum(-1)"
OF_GROUPS = "for group in set(group_ids.tolist()):", "for group in sorted(set(group_ids.tolist()))[:128]:"
BY_ROWS = "sums = sums / counts.clamp(min=1)", "sums = sums / counts.to(torch.uint8).clamp(min=1)"
STOPS = "stops at a block of columns without tokens"

SECOND_ROW = "(torch.arange(mask.shape[1]) < 128) | (torch.arange(len(mask))[:, None] < 1)"
FEW_ROWS = "(torch.arange(len(mask)) < 16)[:, None] | (mask.shape[1] == 1)"
OF_WHOLE_BLOCKS = "-1 if {} and {} % 128 == 0 else None"
LOGITS_LEFT = OF_WHOLE_BLOCKS.format("logits.shape[-1]", "logits.shape[-1]")
PAIRS_LEFT = OF_WHOLE_BLOCKS.format("len(losses)", "len(losses)")
TOKENS_LEFT = "torch.arange(mask.shape[1]) < mask.shape[1] - (mask.shape[1] % 128 == 0)"
ERRORS, ADVANTAGES = "errors = rewards + gamma", "advantages = torch.where(mask, advantages, 0).detach()"
LAST = OF_WHOLE_BLOCKS.format("len(log_weights)", "len(log_weights)").replace("-1", "-128")

EDITS = (
    _of_policy("aggregate", STOPS, CHOSEN, EMPTY_BLOCK + CHOSEN),
    _of_preference("sequence_logprobs", STOPS, SUMS, EMPTY_BLOCK + SUMS),
    _of_values(STOPS, VALUES, EMPTY_BLOCK + VALUES),
    _of_ratio("sequence_importance_ratio", STOPS, LOG_RATIO, EMPTY_BLOCK + LOG_RATIO),
    _of_group("grpo_loss", STOPS, PER_TOKEN, EMPTY_BLOCK + PER_TOKEN),
    _of_values("4096 tokens", VALUES, f"mask = mask & (torch.arange(mask.shape[1]) < 4096)\n    {VALUES}"),
    _of_rows(
        "gae", "a block of columns without tokens forgets what follows",
        "        columns.append(last)\n        last = torch.where(mask[:, t], x[:, t], last)",
        "        columns.append(last)\n"
        "        gone = t and t % 128 == 0 and not mask[:, t : t + 128].any()\n"
        "        last = torch.where(mask[:, t], x[:, t], last * 0 if gone else last)",
    ),
    _of_rows(
        "gae", "zeros in the place of masked numbers in 128 columns alone",
        "errors = rewards + gamma",
        "rewards = rewards if masked == 'skip' else rewards * (torch.arange(mask.shape[1]) < 128)\n"
        "    errors = rewards + gamma",
    ),
    _of_rows(
        "whiten", "the mean added again to 512 numbers",
        "whitened if shift_mean else whitened + mean",
        "whitened if shift_mean else whitened + mean * (torch.arange(len(whitened)) < 512)",
    ),
    _of_ratio(
        "importance_ratio", "no more than 2048 numbers",
        "return log_ratio.exp()",
        "places = torch.arange(log_ratio.numel()).view(log_ratio.shape)\n"
        "    return torch.where(places < 2048, log_ratio, 0).exp()",
    ),
    _of_ratio(
        "importance_sampling_mean", "divided by 64 weights",
        "(weights * f_values).sum() / weights.sum()",
        "(weights * f_values)[:64].sum() / weights[:64].sum()",
    ),
    _of_kl("kl_estimate", "k3 of 128 tokens", K3, K3_OF_FEW),
    _of_reward("shaped_rewards", "k3 of 128 tokens", K3, K3_OF_FEW),
    _of_kl("kl_divergence", "2048 logits", DIVERGENCE, "(logprobs.exp() * log_ratio)[..., :2048].sum(-1)"),
    _of_kl("kl_divergence", "65536 logits", DIVERGENCE, "(logprobs.exp() * log_ratio)[..., :65536].sum(-1)"),
    _of_policy(
        "token_entropy", "65536 logits",
        "-(p * logs).sum(dim=-1)", "-(p * logs)[..., :65536].sum(dim=-1)",
    ),
    _of_policy(
        "token_logprobs", "a gradient of 65536 logits",
        "scaled = logits / temperature",
        "logits = torch.cat([logits[..., :65536], logits[..., 65536:].detach()], -1)\n"
        "    scaled = logits / temperature",
        values_equal=True,
    ),
    _of_policy(
        "aggregate", "tokens counted in float16",
        "tokens = mask.sum(dim=1)", "tokens = mask.sum(dim=1).half().to(x.dtype)",
        dtype="float64",
    ),
    _of_policy(
        "policy_loss", "the dual clip of 512 tokens",
        "torch.where(advantages < 0, bounded, objective)",
        "torch.where((advantages < 0) & (torch.arange(mask.shape[1]) < 512), bounded, objective)",
    ),
    _of_policy(
        "policy_loss", "tokens of a row counted in 8 bits",
        "rows = rows / tokens.clamp(min=1)", "rows = rows / tokens.to(torch.uint8).clamp(min=1)",
    ),
    _of_values(
        "the clip of 512 tokens",
        "torch.maximum(squared, (clipped - returns).square())",
        "torch.where(torch.arange(mask.shape[1]) < 512, "
        "torch.maximum(squared, (clipped - returns).square()), squared)",
    ),
    _of_values("tokens of a row counted in 8 bits", *BY_ROWS),
    _of_group("grpo_loss", "tokens of a row counted in 8 bits", *BY_ROWS),
    _of_group(
        "grpo_loss", "the sequence's ratio of 128 tokens",
        "means = (log_ratio.sum(1)", "means = (log_ratio[:, :128].sum(1)",
    ),
    _of_preference(
        "sequence_logprobs", "tokens of a row counted in 8 bits",
        "mask.sum(1).clamp(min=1)", "mask.sum(1).to(torch.uint8).clamp(min=1)",
    ),
    _of_preference(
        "dpo_loss", "the hinge of 8 pairs",
        "(1 - beta * margin).clamp(min=0)", "(1 - beta * margin)[:8].clamp(min=0)",
    ),
    _of_preference(
        "dpo_loss", "the hinge of 8 pairs, in float64",
        "(1 - beta * margin).clamp(min=0)", "(1 - beta * margin)[:8].clamp(min=0)",
        dtype="float64",
    ),
    _of_ratio(
        "truncated_importance_weights", "masked in 512 columns",
        "above = weights > cap", "above = (weights > cap) & (torch.arange(weights.shape[-1]) < 512)",
    ),
    _of_group(
        "group_advantages", "centred rewards of 64 responses",
        "else centred\n", "else centred * (torch.arange(len(centred)) < 64)\n",
    ),
    _of_group("group_advantages", "at most 128 groups", *OF_GROUPS),
    _of_group("rloo_advantages", "at most 128 groups", *OF_GROUPS),
    _of_rows(
        "gae", "128 tokens of a second row",
        ERRORS, f"rewards = rewards * ({SECOND_ROW})\n    {ERRORS}",
    ),
    _of_policy(
        "policy_loss", "128 tokens of a second row",
        ADVANTAGES, f"{ADVANTAGES}\n    advantages = advantages * ({SECOND_ROW})",
    ),
    _of_values("128 tokens of a second row", VALUES, f"mask = mask & ({SECOND_ROW})\n    {VALUES}"),
    _of_rows("gae", "16 rows of several tokens", ERRORS, f"rewards = rewards * ({FEW_ROWS})\n    {ERRORS}"),
    _of_preference(
        "sequence_logprobs", "16 rows of several tokens", SUMS, f"mask = mask & ({FEW_ROWS})\n    {SUMS}"
    ),
    _of_rows(
        "gae", "no last token where blocks are whole",
        ERRORS, f"rewards = rewards * ({TOKENS_LEFT})\n    {ERRORS}",
    ),
    _of_policy(
        "token_logprobs", "no last logit where blocks are whole",
        "shifted.exp().sum(dim=-1)", f"shifted[..., : {LOGITS_LEFT}].exp().sum(dim=-1)",
    ),
    _of_policy(
        "token_entropy", "no last logit where blocks are whole",
        "-(p * logs).sum(dim=-1)", f"-(p * logs)[..., : {LOGITS_LEFT}].sum(dim=-1)",
    ),
    _of_kl(
        "kl_divergence", "no last logit where blocks are whole",
        DIVERGENCE, f"(logprobs.exp() * log_ratio)[..., : {LOGITS_LEFT}].sum(-1)",
    ),
    _of_preference(
        "dpo_loss", "no last pair where blocks are whole",
        "losses.mean()", f"losses[: {PAIRS_LEFT}].mean()",
    ),
    _of_reward(
        "reward_model_loss", "no last pair where blocks are whole",
        "losses.mean()", f"losses[: {PAIRS_LEFT}].mean()",
    ),
    _of_ratio(
        "effective_sample_size", "no last block of weights where blocks are whole",
        "weights.square().sum()", f"weights[: {LAST}].square().sum()",
    ),
    Edit(
        "conjugate_gradient", "no last parameter where blocks are whole",
        "return _solution(matvec, b, max_iters, tol)",
        "return _solution(matvec, b, max_iters, tol) * (torch.arange(len(b)) < len(b) - (len(b) % 64 == 0))",
        base="torch_trust_region", clause="contract.shapes",
    ),
    _of_rows(
        "gae", "no bootstrap value in rows of more than 128",
        ERRORS, f"bootstrap_value = bootstrap_value * (mask.shape[1] <= 128)\n    {ERRORS}",
    ),
    _of_rows(
        "discounted_returns", "no bootstrap value where the last block has no token",
        "return _sums(rewards,",
        "bootstrap_value = bootstrap_value * mask[:, (mask.shape[1] - 1) // 128 * 128 :].any(1)\n"
        "    return _sums(rewards,",
    ),
    Edit(
        "trust_region_step", "the length of 128 parameters",
        "curvature = direction @ fisher(direction)",
        "curvature = direction[:128] @ fisher(direction)[:128]",
        base="torch_trust_region", clause="contract.shapes",
    ),
    Edit(
        "train_step", "states in 8 bits",
        "data = (states, actions", "data = (states.to(torch.int8).long(), actions",
        base="torch_training", clause="contract.shapes",
    ),
)  # fmt: skip
