"""Wrong backends of the chapter `importance_sampling`."""

from functools import partial

from tests.wrong_backends.edits import Edit

_edit = partial(Edit, base="torch_importance_sampling", clause="is.")

OLD = "old_logprobs.detach()"
LOG_RATIO = f"logprobs - {OLD}"
CLAMP = "log_ratio.clamp(-log_ratio_clip, log_ratio_clip)"
CLAMPS = "if log_ratio_clip is not None:"
EXP = "log_ratio.exp()"
SELECTED = f"torch.where(mask, {LOG_RATIO}, 0)"
MEAN = "(log_ratio.sum(1) / count)"
SEQUENCE = f"{MEAN}.exp()"
WEIGHTS = "(old_logprobs - rollout_logprobs).exp()"
CHOSEN = 'torch.where(above, cap if mode == "truncate" else 0.0, weights)'
CAPPED = 'cap if mode == "truncate" else 0.0'
PLAIN_MEAN = "(log_weights.exp() * f_values).mean()"
SCALED = "(log_weights - log_weights.max()).exp()"
NORMALISED = "(weights * f_values).sum() / weights.sum()"
SIZE = "weights.sum().square() / weights.square().sum()"

EDITS = (
    _edit(
        "importance_ratio", "the old log-probabilities are the new ones, stopped",
        OLD, "logprobs.detach()",
        thread="PrimeIntellect-ai/prime-rl commit 413cf0d1",
    ),
    _edit("importance_ratio", "new and old exchanged", LOG_RATIO, f"{OLD} - logprobs"),
    _edit("importance_ratio", "to first order", EXP, "(1 + log_ratio)"),
    _edit(
        "importance_ratio", "old log-probabilities one token late",
        OLD, f"{OLD}.roll(1, 1)",
        thread="PrimeIntellect-ai/prime-rl#1525",
    ),
    _edit(
        "importance_ratio", "old log-probabilities of other rows",
        OLD, f"{OLD}.roll(1, 0)",
        thread="huggingface/trl#4454",
    ),
    _edit(
        "importance_ratio", "old log-probabilities of the first chunk for every chunk",
        OLD, f"{OLD}[torch.arange(len(old_logprobs)) % 4]",
        thread="modelscope/ms-swift#9128",
    ),
    _edit(
        "importance_ratio", "old log-probabilities by another kernel",
        OLD, f"{OLD}.bfloat16().to(logprobs.dtype)",
        thread="volcengine/verl#3119",
    ),
    _edit(
        "importance_ratio", "old log-probabilities a rounding away",
        OLD, f"({OLD} * (1 + torch.finfo(logprobs.dtype).eps))",
        thread="volcengine/verl#3119",
    ),
    _edit(
        "importance_ratio", "old log-probabilities of the call before",
        OLD, "vars(importance_ratio).setdefault(logprobs.shape, old_logprobs.detach().clone())",
    ),
    _edit(
        "importance_ratio", "small log-ratios are 0",
        EXP, "torch.where(log_ratio.abs() < 2e-3, 0, log_ratio).exp()",
    ),
    _edit(
        "importance_ratio", "what is close is equal",
        EXP, f"torch.where(logprobs.isclose({OLD}), 0, log_ratio).exp()",
    ),
    _edit(
        "importance_ratio", "a quotient of probabilities",
        LOG_RATIO, f"(logprobs.exp() / {OLD}.exp()).log()",
    ),
    _edit(
        "importance_ratio", "the clamp ignored",
        CLAMPS, "if not log_ratio_clip:\n        log_ratio_clip = 1e9",
    ),
    _edit(
        "importance_ratio", "always clamped",
        CLAMPS, "log_ratio_clip = log_ratio_clip or 20.0\n    if log_ratio_clip:",
        clause="",
    ),
    _edit(
        "importance_ratio", "clamped from above alone",
        CLAMP, "log_ratio.clamp(max=log_ratio_clip)",
    ),
    _edit(
        "importance_ratio", "the ratio clamped, and not its logarithm",
        CLAMP, "log_ratio.exp().clamp(max=log_ratio_clip).log()",
    ),
    _edit("importance_ratio", "another default of the clamp", "= 20.0", "= 10.0"),
    _edit("importance_ratio", "no clamp by default", "= 20.0", "= None"),
    _edit("importance_ratio", "no infinity", EXP, "log_ratio.exp().nan_to_num()", clause=""),
    _edit(
        "importance_ratio", "bfloat16 inside",
        EXP, "log_ratio.bfloat16().exp().to(log_ratio.dtype)",
    ),
    _edit(
        "importance_ratio", "float32 inside",
        EXP, "log_ratio.float().exp().to(log_ratio.dtype)",
        dtype="float64",
    ),
    _edit(
        "importance_ratio", "transposed where square",
        EXP, "(log_ratio.T if len(log_ratio) == log_ratio.shape[1] else log_ratio).exp()",
    ),
    _edit(
        "importance_ratio", "a single row squeezed",
        EXP, "log_ratio.exp().squeeze(0)",
        clause="",
    ),
    _edit(
        "importance_ratio", "no more than 128 tokens",
        EXP, "torch.where(torch.arange(log_ratio.shape[1]) < 128, log_ratio, 0).exp()",
        clause="contract.shapes",
    ),
    _edit(
        "importance_ratio", "no more than 128 numbers",
        EXP,
        "log_ratio.exp().flatten().index_fill(0, torch.arange(128, max(128, log_ratio.numel())), 1)"
        ".view(log_ratio.shape)",
    ),
    _edit(
        "importance_ratio", "strides ignored",
        LOG_RATIO, f"logprobs.as_strided(logprobs.shape, (logprobs.shape[1], 1)) - {OLD}",
        clause="contract.pure",
    ),
    _edit(
        "importance_ratio", "subtracted in place",
        LOG_RATIO, f"{OLD}.neg_() + logprobs",
        thread="THUDM/slime#2114", clause="contract.pure",
    ),
    _edit(
        "importance_ratio", "clamped after the exponential",
        f"log_ratio = {CLAMP}",
        "e = 2.718281828459045" "; return log_ratio.exp().clamp(e**-log_ratio_clip, e**log_ratio_clip)",
        values_equal=True,
    ),
    _edit(
        "importance_ratio", "a gradient beyond the clamp",
        CLAMP, f"log_ratio + ({CLAMP} - log_ratio).detach()",
        thread="NVIDIA-NeMo/RL#2958", values_equal=True,
    ),
    _edit(
        "importance_ratio", "the gradient of the log-ratio",
        EXP, "(log_ratio.exp().detach() + (log_ratio - log_ratio.detach()))",
        values_equal=True,
    ),
    _edit(
        "importance_ratio", "no gradient",
        "logprobs - ", "logprobs.detach() - ",
        values_equal=True,
    ),
    _edit(
        "importance_ratio", "a gradient into the old log-probabilities",
        OLD, "old_logprobs",
        thread="volcengine/verl#4105", clause="contract.constants", values_equal=True,
    ),
    _edit(
        "importance_ratio", "twice the gradient",
        EXP, "(log_ratio + (log_ratio - log_ratio.detach())).exp()",
        thread="unslothai/unsloth-zoo#892", values_equal=True,
    ),
    _edit(
        "importance_ratio", "a gradient in bfloat16",
        EXP, "(log_ratio.detach() + (log_ratio.bfloat16() - log_ratio.detach().bfloat16())).exp()",
        values_equal=True,
    ),

    _edit("sequence_importance_ratio", "the product of the ratios", MEAN, "log_ratio.sum(1)"),
    _edit(
        "sequence_importance_ratio", "the mean of the ratios",
        SEQUENCE, "(log_ratio.exp() * mask).sum(1) / count",
    ),
    _edit(
        "sequence_importance_ratio", "divided by the width",
        "mask.sum(1)", "torch.ones_like(mask).sum(1)",
    ),
    _edit(
        "sequence_importance_ratio", "holes counted",
        "mask.sum(1)", "(mask.flip(1).cumsum(1) > 0).sum(1)",
        thread="volcengine/verl#2543",
    ),
    _edit(
        "sequence_importance_ratio", "the smaller one of count and 1",
        "clamp(min=1)", "clamp(max=1)",
        thread="PrimeIntellect-ai/prime-rl#816",
    ),
    _edit(
        "sequence_importance_ratio", "0 / 0 in a row without active tokens",
        ".clamp(min=1)", "",
        thread="volcengine/verl#782", clause="",
    ),
    _edit(
        "sequence_importance_ratio", "0 for a row without active tokens",
        SEQUENCE, f"{SEQUENCE} * mask.any(1)",
        clause="",
    ),
    _edit(
        "sequence_importance_ratio", "the lengths of all rows",
        "/ count", "/ count[:, None]",
        thread="modelscope/ms-swift#6014", clause="contract.shapes",
    ),
    _edit(
        "sequence_importance_ratio", "the mean length of all rows",
        "clamp(min=1)", "clamp(min=1).double().mean().to(logprobs.dtype)",
    ),
    _edit(
        "sequence_importance_ratio", "the mask of the first chunk for every chunk",
        SELECTED, SELECTED.replace("mask", "mask[torch.arange(len(mask)) % 4]"),
        thread="linkedin/Liger-Kernel#330",
    ),
    _edit(
        "sequence_importance_ratio", "the mask one token early",
        SELECTED, SELECTED.replace("mask", "mask.roll(-1, 1)"),
        thread="Goekdeniz-Guelmez/mlx-lm-lora#80",
    ),
    _edit(
        "sequence_importance_ratio", "the axis of tokens found by its length",
        "log_ratio.sum(1)", "log_ratio.sum(log_ratio.shape.index(mask.shape[1]))",
        thread="OpenRLHF/OpenRLHF#1250", clause="",
    ),
    _edit(
        "sequence_importance_ratio", "the sum over all positions, the count of the active ones",
        SELECTED, LOG_RATIO,
        thread="inclusionAI/AReaL#1346",
    ),
    _edit(
        "sequence_importance_ratio", "multiplied by the mask",
        SELECTED, f"mask * ({LOG_RATIO})",
        thread="modelscope/ms-swift#9767", clause="contract.masked-nonfinite",
    ),
    _edit(
        "sequence_importance_ratio", "the mean clamped from above",
        SEQUENCE, f"{MEAN}.clamp(max=10).exp()",
        clause="contract.extremes",
    ),
    _edit(
        "sequence_importance_ratio", "log-ratios of tokens clamped",
        SELECTED, f"{SELECTED}.clamp(-20, 20)",
        clause="contract.extremes",
    ),
    _edit(
        "sequence_importance_ratio", "no more than 128 tokens",
        SELECTED, f"{SELECTED}[:, :128]",
        clause="contract.shapes",
    ),
    _edit(
        "sequence_importance_ratio", "bfloat16 inside",
        SELECTED, f"{SELECTED}.bfloat16().to(logprobs.dtype)",
    ),
    _edit(
        "sequence_importance_ratio", "the reciprocal of a count in float32",
        "/ count", "* (1 / count)",
        dtype="float64",
    ),
    _edit(
        "sequence_importance_ratio", "no gradient",
        "logprobs - ", "logprobs.detach() - ",
        values_equal=True,
    ),
    _edit(
        "sequence_importance_ratio", "a gradient into the old log-probabilities",
        OLD, "old_logprobs",
        thread="volcengine/verl#4105", clause="contract.constants", values_equal=True,
    ),
    _edit(
        "sequence_importance_ratio", "the gradient of the product",
        SEQUENCE, f"{SEQUENCE}.detach() * (log_ratio - log_ratio.detach()).sum(1).exp()",
        values_equal=True,
    ),
    _edit(
        "sequence_importance_ratio", "the gradient of the mean log-ratio",
        SEQUENCE, f"({SEQUENCE}.detach() + ({MEAN} - {MEAN}.detach()))",
        values_equal=True,
    ),
    _edit(
        "sequence_importance_ratio", "the gradient shared by all positions",
        SEQUENCE, f"({MEAN}.detach() + (logprobs - logprobs.detach()).mean(1)).exp()",
        clause="", values_equal=True,
    ),
    _edit(
        "sequence_importance_ratio", "a gradient at masked tokens",
        SELECTED, SELECTED.replace(", 0)", ", logprobs.nan_to_num() - logprobs.detach().nan_to_num())"),
        values_equal=True,
    ),

    _edit(
        "truncated_importance_weights", "the two exchanged",
        WEIGHTS, "(rollout_logprobs - old_logprobs).exp()",
    ),
    _edit(
        "truncated_importance_weights", "the old log-probabilities for those of the rollout",
        WEIGHTS, "(old_logprobs - old_logprobs).exp()",
        thread="huggingface/trl#4857",
    ),
    _edit("truncated_importance_weights", "cap ignored", "weights > cap", "weights > 2.0"),
    _edit(
        "truncated_importance_weights", "a weight at the cap dropped",
        "weights > cap", "weights >= cap",
    ),
    _edit(
        "truncated_importance_weights", "modes exchanged",
        'mode == "truncate"', 'mode != "truncate"',
        thread="huggingface/trl#4499",
    ),
    _edit(
        "truncated_importance_weights", "another default of the mode",
        'str = "truncate"', 'str = "mask"',
    ),
    _edit(
        "truncated_importance_weights", "1 for a weight that is dropped",
        CAPPED, 'cap if mode == "truncate" else 1.0',
    ),
    _edit(
        "truncated_importance_weights", "no weight below 1",
        WEIGHTS, f"{WEIGHTS}.clamp(min=1)",
        thread="NovaSky-AI/SkyRL#1928",
    ),
    _edit(
        "truncated_importance_weights", "a band, not a cap",
        "weights > cap", "(weights > cap) | (weights < 1e-3)",
    ),
    _edit(
        "truncated_importance_weights", "log-ratios clamped first",
        WEIGHTS, "(old_logprobs - rollout_logprobs).clamp(-20, 20).exp()",
    ),
    _edit(
        "truncated_importance_weights", "infinity is 0",
        WEIGHTS, f"{WEIGHTS}.nan_to_num(posinf=0.0)",
    ),
    _edit(
        "truncated_importance_weights", "a log-ratio that is not finite is 0",
        WEIGHTS, "(old_logprobs - rollout_logprobs).nan_to_num(posinf=0.0, neginf=0.0).exp()",
    ),
    _edit(
        "truncated_importance_weights", "1 where the trainer rules a token out",
        WEIGHTS, "torch.where(old_logprobs.isinf(), 0, old_logprobs - rollout_logprobs).exp()",
    ),
    _edit("truncated_importance_weights", "1e-8 added", WEIGHTS, f"({WEIGHTS} + 1e-8)"),
    _edit(
        "truncated_importance_weights", "a weight for each row",
        WEIGHTS, "(old_logprobs - rollout_logprobs).mean(1, keepdim=True).expand_as(old_logprobs).exp()",
    ),
    _edit(
        "truncated_importance_weights", "log-probabilities of the rollout one token late",
        WEIGHTS, WEIGHTS.replace("rollout_logprobs", "rollout_logprobs.roll(1, 1)"),
        thread="PrimeIntellect-ai/prime-rl#1525",
    ),
    _edit(
        "truncated_importance_weights", "log-probabilities of the first chunk for every chunk",
        WEIGHTS, WEIGHTS.replace("rollout_logprobs", "rollout_logprobs[torch.arange(len(old_logprobs)) % 4]"),
        thread="modelscope/ms-swift#9128",
    ),
    _edit(
        "truncated_importance_weights", "float32 inside",
        WEIGHTS, f"{WEIGHTS}.float().double()",
        dtype="float64",
    ),
    _edit(
        "truncated_importance_weights", "float16 inside",
        WEIGHTS, "(old_logprobs - rollout_logprobs).half().exp().to(old_logprobs.dtype)",
    ),
    _edit(
        "truncated_importance_weights", "no more than 128 tokens",
        "weights > cap", "(weights > cap) & (torch.arange(weights.shape[1]) < 128)",
    ),
    _edit(
        "truncated_importance_weights", "subtracted in place",
        WEIGHTS, "old_logprobs.detach().sub_(rollout_logprobs).exp()",
        thread="THUDM/slime#2114", clause="contract.pure",
    ),
    _edit(
        "truncated_importance_weights", "a gradient flows through",
        f"{CHOSEN}.detach()", CHOSEN,
        thread="volcengine/verl#4105", clause="contract.constants", values_equal=True,
    ),
    _edit(
        "truncated_importance_weights", "a gradient into the log-probabilities of the rollout",
        f"{CHOSEN}.detach()",
        f"{CHOSEN}.detach() * (rollout_logprobs.clamp(min=-1e4) -"
        " rollout_logprobs.detach().clamp(min=-1e4)).exp()",
        clause="contract.constants", values_equal=True,
    ),

    _edit("importance_sampling_mean", "the weights forgotten", PLAIN_MEAN, "f_values.mean()"),
    _edit(
        "importance_sampling_mean", "the sum",
        PLAIN_MEAN, "(log_weights.exp() * f_values).sum()",
    ),
    _edit(
        "importance_sampling_mean", "weights capped",
        PLAIN_MEAN, "(log_weights.exp().clamp(max=10) * f_values).mean()",
    ),
    _edit("importance_sampling_mean", "never normalised", "if self_normalized:", "if False:"),
    _edit("importance_sampling_mean", "always normalised", "if self_normalized:", "if True:"),
    _edit("importance_sampling_mean", "normalised by default", "= False", "= True"),
    _edit(
        "importance_sampling_mean", "normalised by the number too",
        NORMALISED, "(weights * f_values).mean() / weights.sum()",
    ),
    _edit(
        "importance_sampling_mean", "normalised by the number alone",
        NORMALISED, "(weights * f_values).mean()",
    ),
    _edit("importance_sampling_mean", "the exponential overflows", SCALED, "log_weights.exp()"),
    _edit(
        "importance_sampling_mean", "scaled by the largest absolute value",
        SCALED, "(log_weights - log_weights.abs().max()).exp()",
    ),
    _edit(
        "importance_sampling_mean", "scaled by the first",
        SCALED, "(log_weights - log_weights[0]).exp()",
    ),
    _edit(
        "importance_sampling_mean", "normalised weights below 1e-3 dropped",
        SCALED, f"torch.nn.functional.threshold({SCALED}, 1e-3, 0.0)",
    ),
    _edit(
        "importance_sampling_mean", "1e-8 in the denominator",
        NORMALISED, "(weights * f_values).sum() / (weights.sum() + 1e-8)",
        dtype="float64",
    ),
    _edit(
        "importance_sampling_mean", "a weight of 0 is no sample",
        PLAIN_MEAN, "(log_weights.exp() * f_values)[log_weights > -torch.inf].mean()",
    ),
    _edit(
        "importance_sampling_mean", "a weight of 0 is no number",
        PLAIN_MEAN, "(log_weights.nan_to_num(neginf=0.0).exp() * f_values).mean()",
    ),
    _edit(
        "importance_sampling_mean", "at most 4 samples",
        PLAIN_MEAN, "(log_weights.exp() * f_values)[:4].mean()",
    ),
    _edit(
        "importance_sampling_mean", "at most 64 samples",
        PLAIN_MEAN, "(log_weights.exp() * f_values)[:64].mean()",
        clause="contract.shapes",
    ),
    _edit(
        "importance_sampling_mean", "bfloat16 inside",
        PLAIN_MEAN, "(log_weights.bfloat16().exp() * f_values).mean()",
    ),
    _edit(
        "importance_sampling_mean", "float32 inside",
        SCALED, f"{SCALED}.float().to(f_values.dtype)",
        dtype="float64",
    ),
    _edit(
        "importance_sampling_mean", "the mean of means over shards",
        PLAIN_MEAN,
        "torch.stack([x.mean() for x in (log_weights.exp() * f_values).tensor_split(2) if len(x)]).mean()",
        thread="huggingface/trl#6380",
    ),
    _edit(
        "importance_sampling_mean", "a running maximum",
        SCALED, "(log_weights - vars(importance_sampling_mean).setdefault('most', log_weights.max())).exp()",
        clause="",
    ),

    _edit("effective_sample_size", "a share of the number", SIZE, f"{SIZE} / len(weights)"),
    _edit(
        "effective_sample_size", "the sum not squared",
        SIZE, "weights.sum() / weights.square().sum()",
    ),
    _edit("effective_sample_size", "the exponential overflows", SCALED, "log_weights.exp()"),
    _edit(
        "effective_sample_size", "scaled by the least",
        SCALED, "(log_weights - log_weights.min()).exp()",
    ),
    _edit(
        "effective_sample_size", "scaled by the largest absolute value",
        SCALED, "(log_weights - log_weights.abs().max()).exp()",
    ),
    _edit("effective_sample_size", "weights capped", SCALED, "log_weights.exp().clamp(max=10)"),
    _edit(
        "effective_sample_size", "log-weights clamped",
        SCALED, "log_weights.clamp(-20, 20).exp()",
    ),
    _edit(
        "effective_sample_size", "the perplexity of the weights",
        SIZE, "torch.distributions.Categorical(weights).entropy().exp()",
    ),
    _edit("effective_sample_size", "all weights over the largest", SIZE, "weights.sum()"),
    _edit(
        "effective_sample_size", "by a variance with ddof=1",
        SIZE, "len(weights) / (1 + (weights / weights.mean()).var(correction=min(1, len(weights) - 1)))",
    ),
    _edit(
        "effective_sample_size", "a weight of 0 is no number",
        SCALED, "(log_weights.nan_to_num(neginf=0.0) - log_weights.max()).exp()",
    ),
    _edit(
        "effective_sample_size", "1e-8 in the denominator",
        SIZE, "weights.sum().square() / (weights.square().sum() + 1e-8)",
        dtype="float64",
    ),
    _edit(
        "effective_sample_size", "float32 inside",
        SCALED, f"{SCALED}.float().to(log_weights.dtype)",
        dtype="float64",
    ),
    _edit(
        "effective_sample_size", "at most 4 samples",
        SIZE, "weights[:4].sum().square() / weights[:4].square().sum()",
    ),
    _edit(
        "effective_sample_size", "at most 64 samples",
        SIZE, "weights[:64].sum().square() / weights[:64].square().sum()",
        clause="contract.shapes",
    ),
    _edit(
        "effective_sample_size", "a single sample is worth nothing",
        SIZE, f"{SIZE} * (len(weights) > 1)",
        clause="",
    ),
    _edit(
        "effective_sample_size", "sorted in place",
        SCALED, "(log_weights - log_weights.copy_(log_weights.sort().values)[-1]).exp()",
        clause="contract.pure",
    ),
    _edit(
        "importance_ratio", "another result where gradients are asked for",
        EXP, "log_ratio.exp() + logprobs.requires_grad",
        clause="contract.differentiated", values_equal=True,
    ),
    _edit(
        "importance_ratio", "strides of the upstream gradient ignored",
        f"return {EXP}",
        f"result = {EXP}; result.requires_grad and result.register_hook("
        "lambda g: g.as_strided(g.shape, torch.empty(g.shape).stride())); return result",
        clause="contract.differentiated", values_equal=True,
    ),
    _edit(
        "importance_ratio", "the upstream gradient overwritten",
        f"return {EXP}",
        f"result = {EXP}; result.requires_grad and result.register_hook("
        "lambda g: g.clone() + 0 * g.neg_()); return result",
        clause="", values_equal=True,
    ),
    _edit(
        "importance_ratio", "never clamped beyond 20",
        CLAMP, CLAMP.replace("log_ratio_clip", "min(log_ratio_clip, 20)"),
    ),
    _edit(
        "importance_ratio", "no more than 512 tokens",
        EXP, "torch.where(torch.arange(log_ratio.shape[1]) < 512, log_ratio, 0).exp()",
        clause="contract.shapes",
    ),
    _edit(
        "truncated_importance_weights", "never a cap above 2",
        "weights > cap", "weights > (cap := min(cap, 2.0))",
    ),
)  # fmt: skip
