"""Wrong backends of `policy_loss`: ratios, clips, weights, and what is done with a token's objective."""

from functools import partial

from tests.wrong_backends.edits import Edit

LOSS = partial(Edit, "policy_loss", base="torch_policy_loss", clause="ppo.")

LOG_RATIO = "log_ratio = torch.where(mask, logprobs - old_logprobs.detach(), 0)"
LEVEL = 'if ratio_level != "token":'
MEAN = "mean = log_ratio.sum(dim=1, keepdim=True) / lengths"
OF_LEVEL = 'mean.expand_as(own) if ratio_level == "sequence" else mean.detach() + own'
CLAMP = "log_ratio = log_ratio.clamp(-log_ratio_clip, log_ratio_clip)"
RATIO = "ratio = log_ratio.exp()"
ADVANTAGES = "advantages = torch.where(mask, advantages, 0).detach()"
CLIPPED = "clipped = ratio.clamp(1 - clip_low, 1 + clip_high)"
OBJECTIVE = "torch.minimum(ratio * advantages, clipped * advantages)"
BOUNDED = "objective = torch.where(advantages < 0, bounded, objective)"
WEIGHTS = "torch.where(mask, rollout_weights, 0).detach()"
WEIGHTED = f"objective * {WEIGHTS}"
RESULT = "return _aggregate(-objective, mask, aggregation, horizon, empty_rows)"
LOSS_IS = RESULT.replace("return", "loss =")


def before(line: str, statement: str) -> tuple[str, str]:
    """An edit that puts a statement before a line."""
    return line, f"{statement}; {line}"


RATIOS = (
    LOSS(
        "the old log-probabilities are a copy of the new",
        "old_logprobs.detach()", "logprobs.detach()",
        thread="PrimeIntellect-ai/prime-rl commit 413cf0d1",
    ),
    LOSS("the ratio upside down", "logprobs - old_logprobs.detach()", "old_logprobs.detach() - logprobs"),
    LOSS(
        "no ratio where a fused path has none",
        RATIO, "ratio = 1 + log_ratio - log_ratio.detach()",
        thread="linkedin/Liger-Kernel#1082",
    ),
    LOSS("the log-ratio for the ratio", RATIO, "ratio = 1 + log_ratio"),
    LOSS("the ratio of base 2", RATIO, "ratio = log_ratio.exp2()"),
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
        thread="volcengine/verl#2377",
    ),
    LOSS("bfloat16 inside", RATIO, "ratio = log_ratio.bfloat16().exp().to(log_ratio.dtype)"),
    LOSS("float16 inside", LOG_RATIO, LOG_RATIO.replace("old_logprobs.detach()", "old_logprobs.half().detach()")),
    LOSS("float32 inside", RATIO, "ratio = log_ratio.float().exp().to(log_ratio.dtype)", dtype="float64"),

    LOSS("a sequence's ratio of masked tokens too", "mask.sum(dim=1, keepdim=True).clamp(min=1)", "mask.shape[1]"),
    LOSS(
        "the lengths of all sequences for each",
        MEAN, "mean = (log_ratio.sum(dim=1, keepdim=True) / lengths[:, 0]).mean(dim=1, keepdim=True)",
        thread="modelscope/ms-swift#6014",
    ),
    LOSS("the length of the longest sequence", MEAN, f"{MEAN}.max()"),
    LOSS("the sum for the mean", MEAN, "mean = log_ratio.sum(dim=1, keepdim=True)"),
    LOSS("the mean of the ratios", MEAN,
         "mean = (torch.where(mask, log_ratio.exp(), 0).sum(dim=1, keepdim=True) / lengths).clamp(min=1e-9).log()"),
    LOSS("an empty sequence divides 0 by 0", "keepdim=True).clamp(min=1)", "keepdim=True)"),
    LOSS("the mean of the batch", MEAN, "mean = (log_ratio.sum() / lengths.sum()).expand(len(mask), 1)"),
    LOSS("the level ignored", LEVEL, 'if ratio_level == "both":'),
    LOSS("the level sequence ignored", LEVEL, 'if ratio_level == "sequence-token":'),
    LOSS("the level sequence-token ignored", LEVEL, 'if ratio_level == "sequence":'),
    LOSS(
        "a sequence counts by its length",
        RESULT, 'mode = "token-mean" if ratio_level == "sequence" else aggregation'
        "; return _aggregate(-objective, mask, mode, horizon, empty_rows)",
        thread="huggingface/trl#3823",
    ),
    LOSS(
        "a sequence has its mean advantage",
        *before(CLIPPED, 'n = mask.sum(dim=1, keepdim=True).clamp(min=1); advantages = advantages if ratio_level'
                ' == "token" else torch.where(mask, advantages.sum(dim=1, keepdim=True) / n, 0)'),
    ),
    LOSS(
        "clamped before the mean",
        LEVEL, f"log_ratio = log_ratio.clamp(-(log_ratio_clip or 1e4), log_ratio_clip or 1e4)\n    {LEVEL}",
    ),
    LOSS("clamped above only", CLAMP, "log_ratio = log_ratio.clamp(max=log_ratio_clip)"),
    LOSS("clamped below only", CLAMP, "log_ratio = log_ratio.clamp(min=-log_ratio_clip)"),
    LOSS("never clamped", "if log_ratio_clip is not None:", "if False:"),
    LOSS("clamped at 20 without being asked", "if log_ratio_clip is not None:", "log_ratio_clip = log_ratio_clip"
         " or 20.0\n    if True:", clause="ppo.log-ratio-clamp"),
    LOSS("clamped at 20 always", CLAMP, "log_ratio = log_ratio.clamp(-20, 20)"),
    LOSS("the ratio clamped, not its logarithm", CLAMP, "log_ratio = log_ratio.clamp(max=log_ratio_clip"
         " and torch.tensor(log_ratio_clip).log().item())"),
    LOSS("sequences never clamped", "if log_ratio_clip is not None:",
         'if log_ratio_clip is not None and ratio_level == "token":'),
    LOSS("sequences clamped at 10", CLAMP, 'log_ratio = log_ratio.clamp(-log_ratio_clip, log_ratio_clip if'
         ' ratio_level == "token" else min(log_ratio_clip, 10.0))'),
)

CLIPS = (
    LOSS("nothing clipped", "1 - clip_low, 1 + clip_high", "0, torch.inf"),
    LOSS("the larger of the products", "torch.minimum", "torch.maximum"),
    LOSS("the clipped product alone", OBJECTIVE, "clipped * advantages"),
    LOSS("the smaller of the ratios", OBJECTIVE, "torch.minimum(ratio, clipped) * advantages"),
    LOSS("the lower bound also for A > 0", OBJECTIVE,
         "torch.where(advantages < 0, torch.minimum(ratio * advantages, clipped * advantages), clipped * advantages)"),
    LOSS("the upper bound also for A < 0", OBJECTIVE,
         "torch.where(advantages > 0, torch.minimum(ratio * advantages, clipped * advantages), clipped * advantages)"),
    LOSS("nothing clipped for A < 0", OBJECTIVE,
         "torch.where(advantages > 0, torch.minimum(ratio, clipped), ratio) * advantages"),
    LOSS("nothing clipped for A > 0", OBJECTIVE,
         "torch.where(advantages < 0, torch.maximum(ratio, clipped), ratio) * advantages"),
    LOSS("the lower bound is 1/(1 + ε_low)", "1 - clip_low", "1 / (1 + clip_low)"),
    LOSS("the lower bound is 1/(1 + ε_high)", "1 - clip_low", "1 / (1 + clip_high)"),
    LOSS("ε_low for both sides", "1 + clip_high", "1 + clip_low"),
    LOSS("ε_high for both sides", "1 - clip_low", "1 - clip_high"),
    LOSS("ε_low and ε_high swapped", "1 - clip_low, 1 + clip_high", "1 - clip_high, 1 + clip_low"),
    LOSS(
        "ε_low and ε_high are the bounds",
        "1 - clip_low, 1 + clip_high", "clip_low, clip_high",
        thread="NovaSky-AI/SkyRL#1928",
    ),
    LOSS("ε_high from 0", "1 + clip_high", "clip_high"),
    LOSS("ε bounds the log-ratio", CLIPPED, "clipped = log_ratio.clamp(-clip_low, clip_high).exp()"),
    LOSS("an ε_high of 0 is none", "1 + clip_high", "1 + (clip_high or 1e9)"),
    LOSS("an ε_high of 0 is ε_low", "1 + clip_high", "1 + (clip_high or clip_low)"),
    LOSS("an ε_low of 0 is none", "1 - clip_low", "1 - (clip_low or 1e9)"),
    LOSS("an ε_low below 1 always", "1 - clip_low", "1 - min(clip_low, 0.99)"),
    LOSS("an ε_low above 1 turned around", "1 - clip_low", "abs(1 - clip_low)"),
    LOSS("clipped beyond the first 4 rows only", CLIPPED,
         "clipped = torch.cat([ratio[:4], ratio[4:].clamp(1 - clip_low, 1 + clip_high)])"),
    LOSS("clipped in the first 4 rows only", CLIPPED,
         "clipped = torch.cat([ratio[:4].clamp(1 - clip_low, 1 + clip_high), ratio[4:]])"),
    LOSS("clipped in the first 16 positions only", CLIPPED,
         "clipped = torch.cat([ratio[:, :16].clamp(1 - clip_low, 1 + clip_high), ratio[:, 16:]], dim=1)"),
    LOSS(
        "advantages normalised in one of two products",
        OBJECTIVE, "torch.minimum(ratio * advantages, clipped * (advantages - advantages[mask].mean()))",
        thread="pytorch/rl#1033",
    ),
    LOSS(
        "another loss by an inverted test",
        OBJECTIVE, "clipped.detach() * advantages * torch.where(mask, logprobs, 0)",
        thread="huggingface/trl#4499",
    ),
    LOSS(
        "the log-probability is missing",
        OBJECTIVE, "ratio.clamp(max=1 + clip_high) * advantages",
        thread="allenai/open-instruct#1269",
    ),
    LOSS("the objective for the loss", "-objective", "objective"),
    LOSS("the size of advantages", ADVANTAGES, ADVANTAGES.replace("0).detach", "0).abs().detach")),
    LOSS(
        "advantages of every row for each",
        ADVANTAGES, ADVANTAGES.replace("detach()", "detach()[:, None]"),
        thread="PrimeIntellect-ai/prime-rl commit 8d77a2cd",
    ),
    LOSS(
        "the advantages of the first chunk for every chunk of rows",
        ADVANTAGES, ADVANTAGES.replace("advantages, 0", "advantages[torch.arange(len(mask)) % 4], 0"),
        thread="modelscope/ms-swift#9128",
    ),
    LOSS("the first token's advantage for the row", ADVANTAGES,
         ADVANTAGES.replace("advantages, 0", "advantages[:, :1], 0")),
    LOSS("advantages whitened", *before(CLIPPED,
         "advantages = torch.where(mask, advantages - advantages[mask].mean().nan_to_num(), 0)")),
    LOSS("advantages and positions swapped where B = T", ADVANTAGES, ADVANTAGES.replace("advantages, 0",
         "advantages.mT if mask.shape[0] == mask.shape[1] else advantages, 0"), clause=""),
    LOSS("tokens without an advantage are not counted", RESULT,
         "return _aggregate(-objective, mask & (advantages != 0), aggregation, horizon, empty_rows)"),
    LOSS("clipped tokens are not counted", RESULT,
         "return _aggregate(-objective, mask & (ratio == clipped), aggregation, horizon, empty_rows)"),
    LOSS("objectives multiplied by the mask", ADVANTAGES, "advantages = (advantages * mask).detach()",
         thread="OpenRLHF/OpenRLHF#1240", clause="contract.masked-nonfinite"),

    LOSS(
        "the dual clip for both signs",
        BOUNDED, "objective = bounded",
        thread="thu-ml/tianshou#435",
    ),
    LOSS(
        "the dual clip of a loss for both signs",
        BOUNDED, "objective = -torch.minimum(-objective, -dual_clip * advantages)",
        thread="THUDM/slime commit 2b10784d",
    ),
    LOSS(
        "the dual clip never passed on",
        "if dual_clip is not None:", "dual_clip = None\n    if dual_clip is not None:",
        thread="THUDM/slime#2247",
    ),
    LOSS(
        "a dual clip below 1",
        "dual_clip * advantages", "advantages / dual_clip",
        thread="opendilab/PPOxFamily#96",
    ),
    LOSS("the dual clip for A > 0", "advantages < 0,", "advantages > 0,"),
    LOSS("the dual clip from 1", "dual_clip * advantages", "(1 + dual_clip) * advantages"),
    LOSS("the dual clip the other way", "torch.maximum(objective", "torch.minimum(objective"),
    LOSS("the dual clip not below 1 + ε_high", "dual_clip * advantages", "max(dual_clip, 1 + clip_high) * advantages"),
    LOSS("a dual clip of 3 by default", "if dual_clip is not None:", "dual_clip = dual_clip or 3.0\n    if True:"),
    LOSS("the dual clip on the ratio of the first product", BOUNDED,
         "objective = torch.minimum(ratio.clamp(max=dual_clip) * advantages, clipped * advantages)"),
    LOSS("the dual clip of tokens, not of sequences", "if dual_clip is not None:",
         'if dual_clip is not None and ratio_level == "token":'),
    LOSS("the dual clip behind the weights", BOUNDED,
         "weight = 1 if rollout_weights is None else torch.where(mask, rollout_weights, 1).detach()"
         "; objective = torch.where(advantages < 0, torch.maximum(objective, dual_clip * advantages / weight), objective)"),
)

WEIGHTINGS = (
    LOSS("weights ignored", "if rollout_weights is not None:", "if False:", thread="linkedin/Liger-Kernel#1082"),
    LOSS("weights in the ratio", *before(CLIPPED,
         "ratio = ratio if rollout_weights is None else ratio * torch.where(mask, rollout_weights, 0).detach()"
         "; rollout_weights = None")),
    LOSS("weights in the advantages of one product", OBJECTIVE,
         "torch.minimum(ratio * advantages * (1 if rollout_weights is None else rollout_weights.nan_to_num()),"
         " clipped * advantages)"),
    LOSS(
        "weights made of the trainer's log-probabilities",
        WEIGHTS, "torch.where(mask, (old_logprobs - logprobs).exp(), 0).detach()",
        thread="huggingface/trl#4857",
    ),
    LOSS("weights of at most 1", WEIGHTS, f"{WEIGHTS}.clamp(max=1)"),
    LOSS("weights of at most 100", WEIGHTS, f"{WEIGHTS}.clamp(max=100)"),
    LOSS("weights with the mean 1", WEIGHTED,
         "objective * torch.where(mask, rollout_weights / rollout_weights[mask].mean(), 0).detach()"),
    LOSS("the sum of the weights divides", RESULT,
         'total = mask.sum() if rollout_weights is None else torch.where(mask, rollout_weights, 0).sum()'
         f'; {LOSS_IS}; return loss * mask.sum() / total if aggregation == "token-mean" and total > 0 else loss'),
    LOSS("tokens of weight 0 are not counted", RESULT,
         "mask = mask if rollout_weights is None else mask & (rollout_weights != 0)"
         "; return _aggregate(-objective, mask, aggregation, horizon, empty_rows)"),
    LOSS("weights squared", WEIGHTED, f"{WEIGHTED}**2"),
    LOSS("the mean weight of a row", WEIGHTS,
         "(torch.where(mask, rollout_weights, 0).sum(dim=1, keepdim=True)"
         " / mask.sum(dim=1, keepdim=True).clamp(min=1)).expand_as(mask).detach()"),
    LOSS("weights for A > 0 only", WEIGHTS, "torch.where(mask & (advantages > 0), rollout_weights, 1).detach()"),
    LOSS("the horizon ignored", RESULT, "return _aggregate(-objective, mask, aggregation, None, empty_rows)"),
    LOSS("empty rows always count", RESULT, 'return _aggregate(-objective, mask, aggregation, horizon, "count")'),
    LOSS("empty rows never count", RESULT, 'return _aggregate(-objective, mask, aggregation, horizon, "drop")'),
    LOSS("the mean over tokens in every mode", RESULT,
         'return _aggregate(-objective, mask, "token-mean", horizon, empty_rows)'),
    LOSS(
        "tool tokens in the fused path",
        RESULT, "mask = mask.flip(1).cumsum(1).flip(1) > 0"
        "; return _aggregate(-objective, mask, aggregation, horizon, empty_rows)",
        thread="huggingface/trl#4975",
    ),
    LOSS(
        "the mean of the losses of micro-batches",
        RESULT, "half = (len(mask) + 1) // 2; parts = (slice(half), slice(half, None))"
        "; return sum(_aggregate(-objective[s], mask[s], aggregation, horizon, empty_rows) for s in parts) / 2",
        thread="OpenRLHF/OpenRLHF#1249",
    ),
    LOSS(
        "times the number of ranks",
        RESULT, f"{RESULT} * (2 if len(mask) > 1 else 1)",
        thread="meta-pytorch/torchtune#1917",
    ),
    LOSS("the ratio of the call before", RATIO, "ratio = vars(policy_loss).setdefault((mask.shape, ratio_level,"
         " logprobs.dtype), log_ratio.exp())", clause=""),
    LOSS("masked in place", *before(RATIO, "logprobs.detach()[~mask] = 0"), clause="contract.pure"),
)

GRADIENTS = (
    LOSS("a gradient through the clip", CLIPPED,
         f"{CLIPPED}; clipped = ratio + (clipped - ratio).detach()", values_equal=True),
    LOSS("no gradient outside of the bounds, whatever the sign of A", OBJECTIVE,
         "torch.where(ratio == clipped, ratio, ratio.detach()) * advantages"
         "; objective = torch.minimum(objective, clipped * advantages)", values_equal=True),
    LOSS("no gradient for A < 0 above 1 + ε_high", *before(CLIPPED,
         "ratio = torch.where((advantages < 0) & (ratio > 1 + clip_high), ratio.detach(), ratio)"),
         values_equal=True),
    LOSS("no gradient for A > 0 below 1 - ε_low", *before(CLIPPED,
         "ratio = torch.where((advantages > 0) & (ratio < 1 - clip_low), ratio.detach(), ratio)"),
         values_equal=True),
    LOSS("no gradient for A < 0 with a dual clip", BOUNDED,
         "objective = torch.where(advantages < 0, bounded.detach(), objective)", values_equal=True),
    LOSS("a gradient beyond the dual clip", BOUNDED,
         f"{BOUNDED}; free = ratio * advantages; objective = torch.where(advantages < 0,"
         " free + (objective - free).detach(), objective)", values_equal=True),
    LOSS("a gradient beyond the dual clip for large ratios", "dual_clip * advantages",
         "(torch.where(ratio > 2 * dual_clip, ratio - ratio.detach(), 0) + dual_clip) * advantages",
         values_equal=True),
    LOSS(
        "a gradient through the clamp of the log-ratio",
        CLAMP, "log_ratio = log_ratio + (log_ratio.clamp(-log_ratio_clip, log_ratio_clip) - log_ratio).detach()",
        thread="NVIDIA-NeMo/RL#2958", values_equal=True,
    ),
    LOSS("a gradient through the lower clamp of the log-ratio", CLAMP,
         "log_ratio = log_ratio.clamp(max=log_ratio_clip)"
         "; log_ratio = log_ratio + (log_ratio.clamp(min=-log_ratio_clip) - log_ratio).detach()",
         values_equal=True),
    LOSS("the gradient without the ratio", RATIO,
         "ratio = log_ratio.exp().detach() + log_ratio - log_ratio.detach()", values_equal=True),
    LOSS("no gradient through the ratio", RATIO, "ratio = log_ratio.exp().detach()", values_equal=True),
    LOSS("no gradient where the policies agree", RATIO,
         "ratio = torch.where(log_ratio == 0, 1, log_ratio.exp())", values_equal=True),
    LOSS("the gradient of sequence-token for sequence", OF_LEVEL, "mean.detach() + own", values_equal=True),
    LOSS("the gradient of sequence for sequence-token", OF_LEVEL, "mean.expand_as(own)", values_equal=True),
    LOSS("the gradient of sequence-token over the length", OF_LEVEL,
         'mean.expand_as(own) if ratio_level == "sequence" else mean.detach() + own / lengths',
         values_equal=True),
    LOSS("no gradient through a sequence's mean", MEAN, f"{MEAN}.detach()", values_equal=True),
    LOSS("the gradient of both levels together", OF_LEVEL,
         'mean.expand_as(own) if ratio_level == "sequence" else mean + own', values_equal=True),
    LOSS(
        "a gradient into the weights",
        WEIGHTS, "torch.where(mask, rollout_weights, 0)",
        thread="volcengine/verl#4105", clause="contract.constants", values_equal=True,
    ),
    LOSS("a gradient into the advantages", "advantages, 0).detach()", "advantages, 0)",
         clause="contract.constants", values_equal=True),
    LOSS("a gradient into the old log-probabilities", "old_logprobs.detach()", "old_logprobs",
         clause="contract.constants", values_equal=True),
    LOSS("a gradient into the log-probabilities by the weights", WEIGHTS,
         "torch.where(mask, rollout_weights, 0).detach() * (1 + log_ratio - log_ratio.detach())",
         values_equal=True),
    LOSS("the weights are not in the gradient", WEIGHTED,
         f"objective + (objective * {WEIGHTS} - objective).detach()", values_equal=True),
    LOSS(
        "the gradient doubled",
        RESULT, f"{LOSS_IS}; return 2 * loss - loss.detach()",
        thread="unslothai/unsloth-zoo#892", values_equal=True,
    ),
    LOSS("the upstream gradient taken for 1", RESULT,
         f"{LOSS_IS}; loss.requires_grad and loss.register_hook(torch.ones_like); return loss",
         values_equal=True),
    LOSS("the gradient of the mean over tokens in every mode", RESULT,
         f'slope = _aggregate(-objective, mask, "token-mean", None, "count"); {LOSS_IS}'
         "; return slope + (loss - slope).detach()", values_equal=True),
    LOSS(
        "the sum of the gradients of micro-batches",
        RESULT,
        "half = (len(mask) + 1) // 2; parts = (slice(half), slice(half, None)); slope = sum(_aggregate("
        f"-objective[s], mask[s], aggregation, horizon, empty_rows) for s in parts); {LOSS_IS}"
        "; return slope + (loss - slope).detach()",
        thread="NVIDIA-NeMo/RL#373", values_equal=True,
    ),
    LOSS("the gradient of the first 16 positions only", RATIO,
         f"{RATIO}; ratio = torch.cat([ratio[:, :16], ratio[:, 16:].detach()], dim=1)", values_equal=True),
    LOSS("the gradient of all rows but the last", *before(CLIPPED,
         "ratio = torch.cat([ratio[:-1], ratio[-1:].detach()]) if len(ratio) > 4 else ratio"), values_equal=True),
    LOSS("a gradient for masked tokens", RESULT,
         f"{LOSS_IS}; leak = (logprobs - logprobs.detach()).nan_to_num().sum() / mask.numel(); return loss + leak",
         values_equal=True),
)

EDITS: tuple[Edit, ...] = (*RATIOS, *CLIPS, *WEIGHTINGS, *GRADIENTS)  # fmt: skip
