"""Wrong backends of `policy_metrics` and `kl_penalty_loss`."""

from functools import partial

from tests.wrong_backends.edits import Edit

METRICS = partial(Edit, "policy_metrics", base="torch_policy_loss", clause="ppo.")
PENALTY = partial(Edit, "kl_penalty_loss", base="torch_policy_loss", clause="ppo.")

MEANS = "{key: x.sum(dtype=logprobs.dtype) / count for key, x in means.items()}"
LOG_RATIO = "log_ratio = (logprobs - old_logprobs)[mask]"
CLIPPED = "(chosen > 0) & above | (chosen < 0) & below"
PENALISED = 'return _aggregate(penalty - gain, mask, aggregation, None, "count")'
UPSTREAM = "result.requires_grad and result.register_hook(torch.ones_like); return result"

EDITS: tuple[Edit, ...] = (
    METRICS(
        "log π less log π_old",
        '"approx_kl": -log_ratio', '"approx_kl": log_ratio',
        thread="modelscope/ms-swift#7145",
    ),
    METRICS(
        "the mean of the negated ratio",
        '"approx_kl": -log_ratio', '"approx_kl": -ratio',
        thread="OpenRLHF/OpenRLHF commit feeb0283",
    ),
    METRICS(
        "the ratio for a difference",
        '"approx_kl": -log_ratio', '"approx_kl": (-log_ratio).exp().abs()',
        thread="NovaSky-AI/SkyRL#912",
    ),
    METRICS("k3 for k1", '"approx_kl": -log_ratio', '"approx_kl": ratio - 1 - log_ratio'),
    METRICS("a KL is never negative", '"approx_kl": -log_ratio', '"approx_kl": (-log_ratio).clamp(min=0)'),
    METRICS(
        "log-ratios clamped",
        '"approx_kl": -log_ratio', '"approx_kl": -log_ratio.clamp(-20, 20)',
        clause="contract.extremes",
    ),
    METRICS(
        "every ratio out of bounds, whatever the sign of A",
        CLIPPED, "above | below",
        thread="huggingface/trl#3175",
    ),
    METRICS("no advantage counts as a gain", "(chosen > 0) & above", "(chosen >= 0) & above"),
    METRICS("one bound for both sides", "ratio < 1 - clip_low", "ratio < 1 - clip_high"),
    METRICS("the lower bound is 1/(1 + ε)", "ratio < 1 - clip_low", "ratio < 1 / (1 + clip_low)"),
    METRICS(
        "bounds for the log-ratio",
        "ratio > 1 + clip_high, ratio < 1 - clip_low", "log_ratio > clip_high, log_ratio < -clip_low",
    ),
    METRICS("on the upper bound counts", "ratio > 1 + clip_high", "ratio >= 1 + clip_high"),
    METRICS("on the lower bound counts", "ratio < 1 - clip_low", "ratio <= 1 - clip_low"),
    METRICS("a ratio that differs is clipped", CLIPPED, "log_ratio != 0"),
    METRICS(
        "of the last row only",
        '"clip_fraction": clipped,', '"clip_fraction": clipped & mask.nonzero()[:, 0].eq(len(mask) - 1),',
        thread="DLR-RM/stable-baselines3#149",
    ),
    METRICS(
        "the share of rewarded and punished tokens",
        "means = {", "count = max(int((chosen != 0).sum()), 1)\n" "    means = {",
    ),
    METRICS("the dual clip for both signs", "(chosen < 0) & (ratio > dual_clip)", "ratio > dual_clip"),
    METRICS("the dual clip beyond 1 + c", "(ratio > dual_clip)", "(ratio > 1 + dual_clip)"),
    METRICS(
        "the dual clip beyond both bounds",
        "(ratio > dual_clip)", "(ratio > max(dual_clip, 1 + clip_high))",
    ),
    METRICS(
        "the dual clip counted among the clipped",
        '"clip_fraction": clipped,', '"clip_fraction": clipped | beyond,',
    ),
    METRICS("the dual clip never there", "if dual_clip is None", "if True"),
    METRICS(
        "a dual clip of 3 by default",
        "torch.zeros_like(above) if dual_clip is None else ", "dual_clip = dual_clip or 3.0; beyond = ",
    ),
    METRICS("no token is NaN", "count = max(len(ratio), 1)", "count = len(ratio)"),
    METRICS("over all positions", "count = max(len(ratio), 1)", "count = mask.numel()"),
    METRICS(
        "masked positions counted as 0",
        "count = max(len(ratio), 1)", "count = max(int(mask.any(dim=1).sum()) * mask.shape[1], 1)",
    ),
    METRICS(
        "the mean of the means of rows",
        f"return {MEANS}",
        "rows = mask.nonzero()[:, 0]; shares = 1 / mask.sum(dim=1)[rows] / max(int(mask.any(dim=1).sum()), 1)"
        "; return {key: (x * shares).sum(dtype=logprobs.dtype) for key, x in means.items()}",
        thread="huggingface/trl#6380",
    ),
    METRICS(
        "a part without tokens counts as 0",
        f"return {MEANS}",
        "share = 0.5 if len(mask) > 1 and not mask[: len(mask) // 2].any() else 1"
        "; return {key: share * x.sum(dtype=logprobs.dtype) / count for key, x in means.items()}",
        thread="huggingface/trl#3248",
    ),
    METRICS(
        "over the number of batches once more",
        "/ count for", "/ count / -(len(mask) // -4) for",
        thread="NVIDIA-NeMo/RL#1818",
    ),
    METRICS(
        "bfloat16 inside",
        LOG_RATIO,
        "log_ratio = (logprobs - old_logprobs)[mask].bfloat16().to(logprobs.dtype)",
    ),
    METRICS(
        "float32 inside",
        LOG_RATIO,
        "log_ratio = (logprobs - old_logprobs)[mask].float().to(logprobs.dtype)",
        dtype="float64",
    ),
    METRICS(
        "a number is missing",
        f"return {MEANS}", 'del means["dual_clip_fraction"]\n' f"    return {MEANS}",
        clause="contract.shapes",
    ),
    METRICS(
        "at most 1024 positions",
        LOG_RATIO,
        f"mask = mask & (torch.arange(mask.shape[1]) < 1024); {LOG_RATIO}",
    ),
    METRICS(
        "the masks of other rows where B = T",
        LOG_RATIO,
        f"mask = mask.mT if mask.shape[0] == mask.shape[1] else mask; {LOG_RATIO}",
        clause="",
    ),
    METRICS(
        "the bounds in float32",
        "ratio > 1 + clip_high", "ratio > (1 + torch.tensor(clip_high)).item()",
        dtype="float64",
    ),
    METRICS(
        "rows beyond 64 left out",
        LOG_RATIO,
        f"mask = mask & (torch.arange(len(mask)) < 64)[:, None]; {LOG_RATIO}",
    ),

    PENALTY("the KL subtracted", "penalty - gain", "-penalty - gain", thread="volcengine/verl#179"),
    PENALTY("the coefficient ignored", "kl_coef * torch.where", "torch.where"),
    PENALTY(
        "the KL of the new policy to itself",
        "torch.where(mask, kl, 0)", "torch.where(mask, kl - kl, 0)",
        thread="pytorch/rl#1922",
    ),
    PENALTY(
        "the KL in the rewards as well",
        "torch.where(mask, advantages, 0)", "torch.where(mask, advantages - kl_coef * kl, 0)",
        thread="NVIDIA-NeMo/RL#2530",
    ),
    PENALTY("a KL is never negative", "torch.where(mask, kl, 0)", "torch.where(mask, kl, 0).clamp(min=0)"),
    PENALTY("a KL is at most 10", "torch.where(mask, kl, 0)", "torch.where(mask, kl, 0).clamp(max=10)"),
    PENALTY(
        "the KL weighted by the ratio",
        "kl_coef * torch.where", "kl_coef * log_ratio.exp() * torch.where",
    ),
    PENALTY(
        "the KL of masked tokens",
        PENALISED, 'return _aggregate(-gain, mask, aggregation, None, "count") + kl_coef * kl.mean()',
        thread="allenai/open-instruct#535", clause="",
    ),
    PENALTY(
        "the KL aggregated over tokens in every mode",
        PENALISED,
        'return _aggregate(-gain, mask, aggregation, None, "count")'
        ' + _aggregate(penalty, mask, "token-mean", None, "count")',
    ),
    PENALTY(
        "the KL normalised in each micro-batch",
        PENALISED,
        'half = (len(mask) + 1) // 2; parts = (slice(half), slice(half, None))[: len(mask)]'
        '; return _aggregate(-gain, mask, aggregation, None, "count")'
        ' + sum(_aggregate(penalty[s], mask[s], aggregation, None, "count") for s in parts)',
        thread="verl-project/verl#7225",
    ),
    PENALTY("rows without tokens dropped", '"count")\n', '"drop")\n'),
    PENALTY("the ratio upside down", "logprobs - old_logprobs.detach()", "old_logprobs.detach() - logprobs"),
    PENALTY("the log-ratio for the ratio", "log_ratio.exp() *", "(1 + log_ratio) *"),
    PENALTY(
        "the clipped loss",
        "gain = log_ratio.exp() * torch.where(mask, advantages, 0).detach()",
        "weights = torch.where(mask, advantages, 0).detach()"
        "; gain = torch.minimum(log_ratio.exp() * weights, log_ratio.exp().clamp(0.8, 1.28) * weights)",
    ),
    PENALTY(
        "log-ratios clamped",
        "log_ratio.exp()", "log_ratio.clamp(-20, 20).exp()",
        clause="contract.extremes",
    ),
    PENALTY(
        "masked by a product, behind the exponential",
        "torch.where(mask, logprobs - old_logprobs.detach(), 0)", "(logprobs - old_logprobs.detach()) * mask",
        thread="modelscope/ms-swift#9767", clause="",
    ),
    PENALTY(
        "scaled in place",
        "kl_coef * torch.where(mask, kl, 0)", "torch.where(mask, kl.mul_(kl_coef), 0)",
        thread="THUDM/slime#2114", clause="contract.",
    ),
    PENALTY(
        "advantages of other rows",
        "torch.where(mask, advantages, 0)", "torch.where(mask, advantages[torch.arange(len(mask)) % 4], 0)",
        thread="modelscope/ms-swift#9128",
    ),
    PENALTY("bfloat16 inside", "log_ratio.exp()", "log_ratio.bfloat16().exp()"),
    PENALTY("float32 inside", "log_ratio.exp()", "log_ratio.float().exp()", dtype="float64"),
    PENALTY(
        "no penalty beyond a block",
        "torch.where(mask, kl, 0)", "torch.where(mask & (torch.arange(mask.shape[1]) < 1024), kl, 0)",
    ),
    PENALTY(
        "advantages transposed where B = T",
        "torch.where(mask, advantages, 0)",
        "torch.where(mask, advantages.mT if mask.shape[0] == mask.shape[1] else advantages, 0)",
        clause="",
    ),
    PENALTY(
        "no gradient through the KL",
        "torch.where(mask, kl, 0)", "torch.where(mask, kl, 0).detach()",
        values_equal=True,
    ),
    PENALTY(
        "no gradient through the ratio",
        "log_ratio.exp()", "log_ratio.exp().detach()",
        values_equal=True,
    ),
    PENALTY(
        "the gradient without the ratio",
        "log_ratio.exp()", "(log_ratio.exp().detach() + log_ratio - log_ratio.detach())",
        values_equal=True,
    ),
    PENALTY(
        "the coefficient not in the gradient",
        "kl_coef * torch.where(mask, kl, 0)",
        "(torch.where(mask, kl, 0) + ((kl_coef - 1) * torch.where(mask, kl, 0)).detach())",
        values_equal=True,
    ),
    PENALTY(
        "a gradient into the advantages",
        "advantages, 0).detach()", "advantages, 0)",
        clause="contract.constants", values_equal=True,
    ),
    PENALTY(
        "a gradient into the old log-probabilities",
        "old_logprobs.detach()", "old_logprobs",
        clause="contract.constants", values_equal=True,
    ),
    PENALTY(
        "no gradient where the policies agree",
        "log_ratio.exp()", "torch.where(log_ratio == 0, 1, log_ratio.exp())",
        values_equal=True,
    ),
    PENALTY(
        "the gradient doubled",
        PENALISED, f"{PENALISED.replace('return', 'result =')}" "; return 2 * result - result.detach()",
        thread="unslothai/unsloth-zoo#892", values_equal=True,
    ),
    PENALTY(
        "the upstream gradient taken for 1",
        PENALISED, f"{PENALISED.replace('return', 'result =')}; {UPSTREAM}",
        values_equal=True,
    ),
    PENALTY(
        "the gradient of the first 128 rows",
        "log_ratio.exp()", "torch.cat([log_ratio[:128].exp(), log_ratio[128:].exp().detach()])",
        values_equal=True,
    ),
)  # fmt: skip
