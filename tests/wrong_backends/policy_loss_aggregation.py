"""Wrong backends of `aggregate`, `policy_metrics` and `kl_penalty_loss`."""

from functools import partial

from tests.wrong_backends.edits import Edit

AGGREGATE = partial(Edit, "aggregate", base="torch_policy_loss", clause="ppo.aggregation")
METRICS = partial(Edit, "policy_metrics", base="torch_policy_loss", clause="ppo.")
PENALTY = partial(Edit, "kl_penalty_loss", base="torch_policy_loss", clause="ppo.")

RETURN = "return _aggregate(x, mask, mode, horizon, empty_rows)"
HALVES = "half = (len(x) + 1) // 2; first, second = (_aggregate(x[s], mask[s], mode, horizon, empty_rows) \
for s in (slice(half), slice(half, None)))"
CHOSEN = "chosen = torch.where(mask, x, 0)"
TOKENS = "tokens = mask.sum(dim=1)"
TOKEN_MEAN = "return chosen.sum() / tokens.sum().clamp(min=1)"
HORIZON = "(mask.shape[1] if horizon is None else horizon)"
COUNTED = 'len(mask) if empty_rows == "count" else max(int((tokens > 0).sum()), 1)'
MEANS = "{key: x.sum(dtype=logprobs.dtype) / count for key, x in means.items()}"
CLIPPED = "(chosen > 0) & above | (chosen < 0) & below"
PENALISED = 'return _aggregate(penalty - gain, mask, aggregation, None, "count")'
UPSTREAM = "result.requires_grad and result.register_hook(torch.ones_like); return result"

EDITS: tuple[Edit, ...] = (
    AGGREGATE("tokens of rows without any counted as one", TOKENS, f"{TOKENS}.clamp(min=1)"),
    AGGREGATE(
        "the smaller of the count and 1",
        "tokens.sum().clamp(min=1)", "tokens.sum().clamp(max=1)",
        thread="PrimeIntellect-ai/prime-rl#816",
    ),
    AGGREGATE(
        "the mean of no token is NaN",
        "tokens.sum().clamp(min=1)", "tokens.sum()",
        thread="volcengine/verl#782",
    ),
    AGGREGATE(
        "a row without tokens divides 0 by 0",
        "rows / tokens.clamp(min=1)", "rows / tokens",
        thread="THUDM/slime commit 82d3f94a",
    ),
    AGGREGATE(
        "no row left divides 0 by 0",
        "max(int((tokens > 0).sum()), 1)", "(tokens > 0).sum()",
        thread="unslothai/unsloth-zoo#1286",
    ),
    AGGREGATE("a small number beside the count", "tokens.sum().clamp(min=1)", "(tokens.sum() + 1e-4)"),
    AGGREGATE(
        "a smaller number beside the count, in float64",
        "tokens.sum().clamp(min=1)", "(tokens.sum() + 1e-8)",
        dtype="float64",
    ),
    AGGREGATE("one more than the count", "tokens.sum().clamp(min=1)", "(tokens.sum() + 1)"),
    AGGREGATE(
        "the sum of a row over its length",
        "rows = chosen.sum(dim=1)\n", "rows = chosen.sum(dim=1) / tokens.clamp(min=1)\n",
        thread="volcengine/verl#931",
    ),
    AGGREGATE(
        "the sum over the horizon has no mean over rows",
        "rows = rows / (mask", "return rows.sum() / (mask",
        thread="verl-project/verl#5417",
    ),
    AGGREGATE("the horizon ignored", HORIZON, "mask.shape[1]"),
    AGGREGATE("the longest row for the horizon", HORIZON, "(int(tokens.max()) if horizon is None else horizon)"),
    AGGREGATE("the longer of width and horizon", HORIZON, "max(mask.shape[1], horizon or 1)"),
    AGGREGATE("the horizon in two modes", 'mode == "seq-mean-token-sum-norm"', '"token-sum" in mode'),
    AGGREGATE("the horizon less one", HORIZON, "(mask.shape[1] if horizon is None else horizon - 1)"),
    AGGREGATE("empty rows always count", COUNTED, "len(mask)"),
    AGGREGATE("empty rows never count", COUNTED, "max(int((tokens > 0).sum()), 1)"),
    AGGREGATE("count and drop swapped", 'empty_rows == "count"', 'empty_rows == "drop"'),
    AGGREGATE(
        "the mean of means for the mean over tokens",
        TOKEN_MEAN, "return (chosen.sum(dim=1) / tokens.clamp(min=1)).sum() / max(int((tokens > 0).sum()), 1)",
        thread="allenai/open-instruct#1161",
    ),
    AGGREGATE(
        "the mean over tokens for the mean of means",
        'if mode == "token-mean"', 'if "token-mean" in mode',
    ),
    AGGREGATE(
        "the mean over all positions",
        "tokens.sum().clamp(min=1)", "mask.numel()",
        thread="NovaSky-AI/SkyRL#504",
    ),
    AGGREGATE(
        "the padded width for a row's length",
        "rows / tokens.clamp(min=1)", "rows / mask.shape[1]",
        thread="huggingface/trl#6439",
    ),
    AGGREGATE("tokens with the number 0 not counted", TOKENS, "tokens = (chosen != 0).sum(dim=1)"),
    AGGREGATE("rows with the sum 0 dropped", "(tokens > 0)", "(rows != 0)"),
    AGGREGATE(
        "multiplied by the mask",
        CHOSEN, "chosen = x * mask",
        thread="volcengine/verl#2377", clause="contract.masked-nonfinite",
    ),
    AGGREGATE("masked numbers summed", CHOSEN, "chosen = x", thread="inclusionAI/AReaL#1346"),
    AGGREGATE(
        "holes filled",
        CHOSEN, "mask = mask.flip(1).cumsum(1).flip(1) > 0; chosen = torch.where(mask, x, 0)",
        thread="volcengine/verl#2543",
    ),
    AGGREGATE(
        "the mask one position off",
        CHOSEN, "mask = mask.roll(1, dims=1); chosen = torch.where(mask, x, 0)",
        thread="Goekdeniz-Guelmez/mlx-lm-lora#80",
    ),
    AGGREGATE(
        "the first position of a row left out",
        CHOSEN, "chosen = torch.where(mask & (torch.arange(mask.shape[1]) > 0), x, 0)",
    ),
    AGGREGATE("columns for rows", "rows = chosen.sum(dim=1)\n", "rows = chosen.sum(dim=0)\n", clause=""),
    AGGREGATE(
        "rows and columns swapped where B = T",
        "rows / tokens.clamp(min=1)", "(chosen / tokens.clamp(min=1)).sum(dim=1)"
        " if mask.shape[0] == mask.shape[1] else rows / tokens.clamp(min=1)",
        thread="OpenRLHF/OpenRLHF#1250", clause="",
    ),
    AGGREGATE(
        "the mean of the means of micro-batches",
        RETURN, f"{HALVES}; return (first + second) / 2",
        thread="huggingface/transformers#34191",
    ),
    AGGREGATE(
        "the sum of the means of micro-batches",
        RETURN, f"{HALVES}; return first + second",
        thread="verl-project/verl#6957",
    ),
    AGGREGATE(
        "micro-batches weighted by their rows",
        RETURN, f"{HALVES}; return (first * half + second * (len(x) - half)) / len(x)",
        thread="volcengine/verl#141",
    ),
    AGGREGATE(
        "the mean of the means of two ranks",
        RETURN,
        "return sum(_aggregate(x[k::2], mask[k::2], mode, horizon, empty_rows) for k in (0, 1)) / 2",
        thread="PrimeIntellect-ai/prime-rl#2562",
    ),
    AGGREGATE(
        "the mean over ranks taken twice",
        RETURN, f"{RETURN} / (2 if len(x) > 1 else 1)",
        thread="huggingface/transformers#37474",
    ),
    AGGREGATE(
        "the sum over ranks, the count of one",
        TOKEN_MEAN, "return chosen.sum() / tokens[::2].sum().clamp(min=1)",
        thread="modelscope/ms-swift#9152",
    ),
    AGGREGATE(
        "divided by the number of micro-batches once more",
        RETURN, f"{RETURN} / -(len(x) // -4)",
        thread="inclusionAI/AReaL#1273",
    ),
    AGGREGATE(
        "the count of the first micro-batch for all",
        TOKEN_MEAN, "return chosen.sum() / (tokens[:4].sum() * len(x) / len(x[:4])).clamp(min=1)",
        thread="OpenRLHF/OpenRLHF#1249",
    ),
    AGGREGATE(
        "the last rows of an uneven batch dropped",
        CHOSEN, "mask = mask[: max(len(x) // 2 * 2, 1)]; x = x[: len(mask)]; chosen = torch.where(mask, x, 0)",
    ),
    AGGREGATE("a block of positions summed", CHOSEN, "chosen = torch.where(mask, x, 0)[:, :32]"),
    AGGREGATE("at most 4 rows summed", CHOSEN, "chosen = torch.where(mask, x, 0)[:4]", clause=""),
    AGGREGATE(
        "bfloat16 inside",
        "chosen.sum(dim=1)\n", "chosen.bfloat16().sum(dim=1).to(x.dtype)\n",
    ),
    AGGREGATE("float16 inside", CHOSEN, "chosen = torch.where(mask, x.half().to(x.dtype), 0)"),
    AGGREGATE("float32 inside", CHOSEN, "chosen = torch.where(mask, x.float().to(x.dtype), 0)", dtype="float64"),
    AGGREGATE(
        "the count in float16, in float64",
        "rows / tokens.clamp(min=1)", "rows * (1 / tokens.clamp(min=1).half())",
        dtype="float64",
    ),
    AGGREGATE(
        "the count of the call before",
        TOKENS, "tokens = vars(_aggregate).setdefault(mask.shape, mask.sum(dim=1))",
        clause="",
    ),
    AGGREGATE("masked in place", CHOSEN, "chosen = x.detach().masked_fill_(~mask, 0) + x - x", clause=""),
    AGGREGATE("float64 comes back", RETURN, f"{RETURN}.double()", clause="contract.shapes"),
    AGGREGATE("the number of a Python float", RETURN, f"{RETURN}.item()", clause="contract.shapes"),
    AGGREGATE("an array of one", RETURN, f"{RETURN}[None]", clause="contract.shapes"),
    AGGREGATE("no gradient", RETURN, f"{RETURN}.detach()", values_equal=True),
    AGGREGATE(
        "the gradient doubled",
        RETURN, f"{RETURN.replace('return', 'result =')}; return 2 * result - result.detach()",
        thread="unslothai/unsloth-zoo#892", values_equal=True,
    ),
    AGGREGATE(
        "the upstream gradient taken for 1",
        RETURN, f"{RETURN.replace('return', 'result =')}; {UPSTREAM}",
        values_equal=True,
    ),
    AGGREGATE(
        "the gradient of the mean over tokens in every mode",
        RETURN,
        'slope = _aggregate(x, mask, "token-mean", None, "count")'
        f"; {RETURN.replace('return', 'result =')}; return slope + (result - slope).detach()",
        values_equal=True,
    ),
    AGGREGATE(
        "a gradient for masked numbers",
        TOKEN_MEAN,
        "slope = x.sum() / tokens.sum().clamp(min=1); result = chosen.sum() / tokens.sum().clamp(min=1)"
        "; return slope - slope.detach() + result.detach()",
        clause="contract.", values_equal=True,
    ),
    AGGREGATE(
        "the sums of gradients of micro-batches",
        RETURN,
        f"{HALVES}; slope = first + second; {RETURN.replace('return', 'result =')}"
        "; return slope + (result - slope).detach()",
        thread="NVIDIA-NeMo/RL#373", values_equal=True,
    ),
    AGGREGATE(
        "no gradient where nothing but one token is active",
        TOKEN_MEAN, f"{TOKEN_MEAN} if mask.sum() > 1 else chosen.sum().detach()",
        values_equal=True,
    ),

    METRICS("log π less log π_old", '"approx_kl": -log_ratio', '"approx_kl": log_ratio'),
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
    METRICS("k2 for k1", '"approx_kl": -log_ratio', '"approx_kl": 0.5 * log_ratio**2'),
    METRICS("k3 for k1", '"approx_kl": -log_ratio', '"approx_kl": ratio - 1 - log_ratio'),
    METRICS("the absolute log-ratio", '"approx_kl": -log_ratio', '"approx_kl": log_ratio.abs()'),
    METRICS("a KL is never negative", '"approx_kl": -log_ratio', '"approx_kl": (-log_ratio).clamp(min=0)'),
    METRICS(
        "log-ratios clamped",
        '"approx_kl": -log_ratio', '"approx_kl": -log_ratio.clamp(-20, 20)',
        clause="contract.extremes",
    ),
    METRICS("the logarithm of the clipped ratio", '"approx_kl": -log_ratio',
            '"approx_kl": -ratio.clamp(1 - clip_low, 1 + clip_high).log()'),
    METRICS(
        "every ratio out of bounds, whatever the sign of A",
        CLIPPED, "above | below",
        thread="huggingface/trl#3175",
    ),
    METRICS("no advantage counts as a gain", "(chosen > 0) & above", "(chosen >= 0) & above"),
    METRICS("no advantage counts as a loss", "(chosen < 0) & below", "(chosen <= 0) & below"),
    METRICS("signs swapped", CLIPPED, "(chosen < 0) & above | (chosen > 0) & below"),
    METRICS("one side only", CLIPPED, "(chosen > 0) & above"),
    METRICS("one bound for both sides", "ratio < 1 - clip_low", "ratio < 1 - clip_high"),
    METRICS("the bounds swapped", "ratio > 1 + clip_high, ratio < 1 - clip_low",
            "ratio > 1 + clip_low, ratio < 1 - clip_high"),
    METRICS("the lower bound is 1/(1 + ε)", "ratio < 1 - clip_low", "ratio < 1 / (1 + clip_low)"),
    METRICS("bounds for the log-ratio", "ratio > 1 + clip_high, ratio < 1 - clip_low",
            "log_ratio > clip_high, log_ratio < -clip_low"),
    METRICS("on the upper bound counts", "ratio > 1 + clip_high", "ratio >= 1 + clip_high"),
    METRICS("on the lower bound counts", "ratio < 1 - clip_low", "ratio <= 1 - clip_low"),
    METRICS("a ratio that differs is clipped", CLIPPED, "log_ratio != 0"),
    METRICS(
        "of the last row only",
        '"clip_fraction": clipped,', '"clip_fraction": clipped & mask.nonzero()[:, 0].eq(len(mask) - 1),',
        thread="DLR-RM/stable-baselines3#149",
    ),
    METRICS("the share of rewarded and punished tokens", "means = {", "count = max(int((chosen != 0).sum()), 1)\n"
            "    means = {"),
    METRICS("the dual clip for both signs", "(chosen < 0) & (ratio > dual_clip)", "ratio > dual_clip"),
    METRICS("the dual clip beyond 1 + c", "(ratio > dual_clip)", "(ratio > 1 + dual_clip)"),
    METRICS("the dual clip beyond both bounds", "(ratio > dual_clip)", "(ratio > max(dual_clip, 1 + clip_high))"),
    METRICS("the dual clip counted among the clipped",
            '"clip_fraction": clipped,', '"clip_fraction": clipped | beyond,'),
    METRICS("the dual clip never there", "if dual_clip is None", "if True"),
    METRICS("a dual clip of 3 by default", "torch.zeros_like(above) if dual_clip is None else ",
            "dual_clip = dual_clip or 3.0; beyond = "),
    METRICS("the share of the punished tokens", f"return {MEANS}",
            f'found = {MEANS}; found["dual_clip_fraction"] *= count / max(int((chosen < 0).sum()), 1)'
            "; return found"),
    METRICS("in percent", '"clip_fraction": clipped,', '"clip_fraction": 100 * clipped,'),
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
    METRICS("over the number of batches once more", "/ count for", "/ count / -(len(mask) // -4) for",
            thread="NVIDIA-NeMo/RL#1818"),
    METRICS("at most 32 positions", "log_ratio = (logprobs - old_logprobs)[mask]",
            "mask = mask & (torch.arange(mask.shape[1]) < 32); log_ratio = (logprobs - old_logprobs)[mask]"),
    METRICS("bfloat16 inside", "log_ratio = (logprobs - old_logprobs)[mask]",
            "log_ratio = (logprobs - old_logprobs)[mask].bfloat16().to(logprobs.dtype)"),
    METRICS("float32 inside", "log_ratio = (logprobs - old_logprobs)[mask]",
            "log_ratio = (logprobs - old_logprobs)[mask].float().to(logprobs.dtype)", dtype="float64"),
    METRICS("integers come back", "x.sum(dtype=logprobs.dtype) / count", "(x.sum() / count)",
            clause="contract.shapes", dtype="float64"),
    METRICS("a number is missing", f"return {MEANS}", 'del means["dual_clip_fraction"]\n'
            f"    return {MEANS}", clause="contract.shapes"),

    PENALTY("the KL subtracted", "penalty - gain", "-penalty - gain", thread="volcengine/verl#179"),
    PENALTY("the objective for the loss", "penalty - gain", "gain - penalty"),
    PENALTY("the gain with the wrong sign", "penalty - gain", "penalty + gain"),
    PENALTY("the coefficient ignored", "kl_coef * torch.where", "torch.where"),
    PENALTY("the coefficient squared", "kl_coef * torch.where", "kl_coef**2 * torch.where"),
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
    PENALTY("the KL weighted by the ratio", "kl_coef * torch.where", "kl_coef * log_ratio.exp() * torch.where"),
    PENALTY(
        "the KL of masked tokens",
        PENALISED,
        'return _aggregate(-gain, mask, aggregation, None, "count") + kl_coef * kl.mean()',
        thread="PeterGriffinJin/Search-R1#20", clause="",
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
        'half = (len(mask) + 1) // 2; parts = slice(half), slice(half, None)'
        '; return _aggregate(-gain, mask, aggregation, None, "count")'
        ' + sum(_aggregate(penalty[s], mask[s], aggregation, None, "count") for s in parts)',
        thread="verl-project/verl#7225",
    ),
    PENALTY("rows without tokens dropped", '"count")\n', '"drop")\n'),
    PENALTY("a horizon", "aggregation, None,", "aggregation, 8,"),
    PENALTY("the mean over tokens in every mode", "mask, aggregation,", 'mask, "token-mean",'),
    PENALTY("the ratio upside down", "logprobs - old_logprobs.detach()", "old_logprobs.detach() - logprobs"),
    PENALTY("no ratio", "log_ratio.exp() *", "logprobs *", clause=""),
    PENALTY("the log-ratio for the ratio", "log_ratio.exp() *", "(1 + log_ratio) *"),
    PENALTY("the ratio clipped", "log_ratio.exp() *", "log_ratio.exp().clamp(0.8, 1.28) *"),
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
    PENALTY("scaled in place", "kl_coef * torch.where(mask, kl, 0)",
            "torch.where(mask, kl.mul_(kl_coef), 0)", thread="THUDM/slime#2114", clause="contract."),
    PENALTY("advantages of other rows", "torch.where(mask, advantages, 0)",
            "torch.where(mask, advantages[torch.arange(len(mask)) % 4], 0)", thread="modelscope/ms-swift#9128"),
    PENALTY("bfloat16 inside", "log_ratio.exp()", "log_ratio.bfloat16().exp()"),
    PENALTY("float32 inside", "log_ratio.exp()", "log_ratio.float().exp()", dtype="float64"),
    PENALTY("no gradient through the KL", "torch.where(mask, kl, 0)", "torch.where(mask, kl, 0).detach()",
            values_equal=True),
    PENALTY("no gradient through the ratio", "log_ratio.exp()", "log_ratio.exp().detach()", values_equal=True),
    PENALTY("the gradient without the ratio", "log_ratio.exp()",
            "(log_ratio.exp().detach() + log_ratio - log_ratio.detach())", values_equal=True),
    PENALTY("the coefficient not in the gradient", "kl_coef * torch.where(mask, kl, 0)",
            "(torch.where(mask, kl, 0) + ((kl_coef - 1) * torch.where(mask, kl, 0)).detach())",
            values_equal=True),
    PENALTY("a gradient into the advantages", "advantages, 0).detach()", "advantages, 0)",
            clause="contract.constants", values_equal=True),
    PENALTY("a gradient into the old log-probabilities", "old_logprobs.detach()", "old_logprobs",
            clause="contract.constants", values_equal=True),
    PENALTY(
        "no gradient where the policies agree",
        "log_ratio.exp()", "torch.where(log_ratio == 0, 1, log_ratio.exp())",
        values_equal=True,
    ),
    PENALTY("the gradient doubled", PENALISED, f"{PENALISED.replace('return', 'result =')}"
            "; return 2 * result - result.detach()", thread="unslothai/unsloth-zoo#892", values_equal=True),
    PENALTY("the upstream gradient taken for 1", PENALISED,
            f"{PENALISED.replace('return', 'result =')}; {UPSTREAM}", values_equal=True),
)  # fmt: skip
