"""Wrong backends of `policy_loss`: its ratio, its weights, and how it is aggregated."""

from functools import partial

from tests.wrong_backends.edits import Edit

LOSS = partial(Edit, "policy_loss", base="torch_policy_loss", clause="ppo.")

LOG_RATIO = "log_ratio = torch.where(mask, logprobs - old_logprobs.detach(), 0)"
LEVEL = 'if ratio_level != "token":'
MEAN = "mean = log_ratio.sum(dim=1, keepdim=True) / lengths"
CLAMP = "log_ratio = log_ratio.clamp(-log_ratio_clip, log_ratio_clip)"
RATIO = "ratio = log_ratio.exp()"
CLIPPED = "clipped = ratio.clamp(1 - clip_low, 1 + clip_high)"
OBJECTIVE = "torch.minimum(ratio * advantages, clipped * advantages)"
WEIGHTS = "torch.where(mask, rollout_weights, 0).detach()"
WEIGHTED = f"objective * {WEIGHTS}"
RESULT = "return _aggregate(-objective, mask, aggregation, horizon, empty_rows)"
LOSS_IS = RESULT.replace("return", "loss =")


def before(line: str, statement: str) -> str:
    """The line behind a statement of its own."""
    return f"{statement}; {line}"


EDITS: tuple[Edit, ...] = (
    LOSS(
        "the old log-probabilities are a copy of the new",
        "old_logprobs.detach()", "logprobs.detach()",
        thread="PrimeIntellect-ai/prime-rl commit 413cf0d1",
    ),
    LOSS("the ratio upside down", "logprobs - old_logprobs.detach()", "old_logprobs.detach() - logprobs"),
    LOSS(
        "no ratio where a fused path has none",
        RATIO, "ratio = 1 + log_ratio - log_ratio.detach()",
    ),
    LOSS(
        "the first order near 1, in float64",
        RATIO, "ratio = torch.where(log_ratio.abs() < 2e-3, 1 + log_ratio, log_ratio.exp())",
        dtype="float64",
    ),
    LOSS(
        "rows without tokens left out of the new log-probabilities only",
        "old_logprobs.detach()", "old_logprobs[(mask.any(dim=1).cumsum(0) - 1).clamp(min=0)].detach()",
        thread="huggingface/trl#4454",
    ),
    LOSS(
        "the old log-probabilities one position off",
        "old_logprobs.detach()", "old_logprobs.roll(1, dims=1).detach()",
        thread="PrimeIntellect-ai/prime-rl#1525",
    ),
    LOSS(
        "masked log-ratios are kept",
        LOG_RATIO, "log_ratio = logprobs - old_logprobs.detach()",
        thread="inclusionAI/AReaL#1346",
    ),
    LOSS(
        "log-ratios multiplied by the mask",
        LOG_RATIO, "log_ratio = (logprobs - old_logprobs.detach()) * mask",
        thread="volcengine/verl#2377", clause="contract.masked-nonfinite",
    ),
    LOSS("bfloat16 inside", RATIO, "ratio = log_ratio.bfloat16().exp().to(log_ratio.dtype)"),
    LOSS("float32 inside", RATIO, "ratio = log_ratio.float().exp().to(log_ratio.dtype)", dtype="float64"),
    LOSS(
        "a sequence's ratio of masked tokens too",
        "mask.sum(dim=1, keepdim=True).clamp(min=1)", "mask.shape[1]",
    ),
    LOSS(
        "the lengths of all sequences for each",
        MEAN, "mean = (log_ratio.sum(dim=1, keepdim=True) / lengths[:, 0]).mean(dim=1, keepdim=True)",
        thread="modelscope/ms-swift#6014",
    ),
    LOSS("the sum for the mean", MEAN, "mean = log_ratio.sum(dim=1, keepdim=True)"),
    LOSS(
        "the mean of the ratios",
        MEAN,
        "sums = torch.where(mask, log_ratio.exp(), 0).sum(dim=1, keepdim=True)"
        "; mean = (sums / lengths).clamp(min=1e-9).log()",
    ),
    LOSS("the mean of the batch", MEAN, "mean = (log_ratio.sum() / lengths.sum()).expand(len(mask), 1)"),
    LOSS("the level sequence ignored", LEVEL, 'if ratio_level == "sequence-token":'),
    LOSS("the level sequence-token ignored", LEVEL, 'if ratio_level == "sequence":'),
    LOSS(
        "a sequence counts by its length",
        RESULT,
        'mode = "token-mean" if ratio_level == "sequence" else aggregation'
        "; return _aggregate(-objective, mask, mode, horizon, empty_rows)",
        thread="huggingface/trl#3823",
    ),
    LOSS(
        "a sequence has its mean advantage",
        CLIPPED,
        "means = advantages.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)"
        f'; advantages = advantages if ratio_level == "token" else torch.where(mask, means, 0); {CLIPPED}',
    ),
    LOSS(
        "clamped before the mean",
        LEVEL, f"log_ratio = log_ratio.clamp(-(log_ratio_clip or 1e4), log_ratio_clip or 1e4)\n    {LEVEL}",
    ),
    LOSS("clamped below only", CLAMP, "log_ratio = log_ratio.clamp(min=-log_ratio_clip)"),
    LOSS("never clamped", "if log_ratio_clip is not None:", "if False:"),
    LOSS(
        "clamped at 20 without being asked",
        "if log_ratio_clip is not None:", "log_ratio_clip = log_ratio_clip" " or 20.0\n    if True:",
        clause="ppo.log-ratio-clamp",
    ),
    LOSS(
        "the ratio clamped, not its logarithm",
        CLAMP,
        "log_ratio = log_ratio.clamp(max=log_ratio_clip" " and torch.tensor(log_ratio_clip).log().item())",
    ),
    LOSS(
        "sequences never clamped",
        "if log_ratio_clip is not None:", 'if log_ratio_clip is not None and ratio_level == "token":',
    ),
    LOSS(
        "sequences clamped at 10",
        CLAMP,
        'log_ratio = log_ratio.clamp(-log_ratio_clip, log_ratio_clip if'
        ' ratio_level == "token" else min(log_ratio_clip, 10.0))',
    ),
    LOSS(
        "the quotient of probabilities",
        RATIO,
        "ratio = torch.where(mask, logprobs.exp() / old_logprobs.exp(), 1) if ratio_level == 'token' and"
        " log_ratio_clip is None else log_ratio.exp()",
    ),
    LOSS(
        "the mean of a sequence over its rounded length",
        MEAN, "mean = log_ratio.sum(dim=1, keepdim=True) / lengths.bfloat16().long()",
    ),
    LOSS(
        "the ratio of a sequence counts its last token twice",
        MEAN, "mean = (log_ratio.sum(dim=1, keepdim=True) + log_ratio[:, -1:]) / lengths",
    ),

    LOSS(
        "weights ignored",
        "if rollout_weights is not None:", "if False:",
        thread="linkedin/Liger-Kernel#1082",
    ),
    LOSS(
        "weights in the ratio",
        CLIPPED,
        f"ratio = ratio if rollout_weights is None else ratio * {WEIGHTS}; rollout_weights = None; {CLIPPED}",
    ),
    LOSS(
        "weights in the advantages of one product",
        OBJECTIVE,
        "torch.minimum(ratio * advantages * (1 if rollout_weights is None else rollout_weights.nan_to_num()),"
        " clipped * advantages)",
    ),
    LOSS(
        "weights made of the trainer's log-probabilities",
        WEIGHTS, "torch.where(mask, (old_logprobs - logprobs).exp(), 0).detach()",
        thread="huggingface/trl#4857",
    ),
    LOSS("weights of at most 100", WEIGHTS, f"{WEIGHTS}.clamp(max=100)"),
    LOSS(
        "weights with the mean 1",
        WEIGHTED, "objective * torch.where(mask, rollout_weights / rollout_weights[mask].mean(), 0).detach()",
    ),
    LOSS(
        "the sum of the weights divides",
        RESULT,
        f"{LOSS_IS}; total = 0 if rollout_weights is None else torch.where(mask, rollout_weights, 0).sum()"
        '; return loss * mask.sum() / total if aggregation == "token-mean" and total > 0 else loss',
    ),
    LOSS(
        "tokens of weight 0 are not counted",
        RESULT,
        "mask = mask if rollout_weights is None else mask & (rollout_weights != 0)"
        "; return _aggregate(-objective, mask, aggregation, horizon, empty_rows)",
    ),
    LOSS("the horizon ignored", RESULT, "return _aggregate(-objective, mask, aggregation, None, empty_rows)"),
    LOSS(
        "empty rows always count",
        RESULT, 'return _aggregate(-objective, mask, aggregation, horizon, "count")',
    ),
    LOSS(
        "empty rows never count",
        RESULT, 'return _aggregate(-objective, mask, aggregation, horizon, "drop")',
    ),
    LOSS(
        "the mean over tokens in every mode",
        RESULT, 'return _aggregate(-objective, mask, "token-mean", horizon, empty_rows)',
    ),
    LOSS(
        "tool tokens in the fused path",
        RESULT,
        "mask = mask.flip(1).cumsum(1).flip(1) > 0"
        "; return _aggregate(-objective, mask, aggregation, horizon, empty_rows)",
        thread="huggingface/trl#4975",
    ),
    LOSS(
        "the mean of the losses of micro-batches",
        RESULT,
        "half = (len(mask) + 1) // 2; parts = (slice(half), slice(half, None))[: len(mask)]"
        "; losses = [_aggregate(-objective[s], mask[s], aggregation, horizon, empty_rows) for s in parts]"
        "; return sum(losses) / len(losses)",
        thread="OpenRLHF/OpenRLHF#1249",
    ),
    LOSS(
        "divided by the number of ranks",
        RESULT, f"{RESULT} / (2 if len(mask) > 1 else 1)",
        thread="meta-pytorch/torchtune#2172",
    ),
    LOSS(
        "the ratio of the call before",
        RATIO,
        "ratio = vars(policy_loss).setdefault((mask.shape, ratio_level," " logprobs.dtype), log_ratio.exp())",
        clause="",
    ),
    LOSS("masked in place", RATIO, before(RATIO, "logprobs.detach()[~mask] = 0"), clause=""),
    LOSS(
        "strides ignored",
        LOG_RATIO, f"advantages = advantages.as_strided(mask.shape, (mask.shape[1], 1)); {LOG_RATIO}",
        clause="contract.pure",
    ),
)  # fmt: skip
