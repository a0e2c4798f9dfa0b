"""Wrong backends of `policy_loss`: its clips and its gradient."""

from functools import partial

from tests.wrong_backends.edits import Edit

LOSS = partial(Edit, "policy_loss", base="torch_policy_loss", clause="ppo.")

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


def before(line: str, statement: str) -> str:
    """The line behind a statement of its own."""
    return f"{statement}; {line}"


EDITS: tuple[Edit, ...] = (
    LOSS("nothing clipped", "1 - clip_low, 1 + clip_high", "0, torch.inf"),
    LOSS("the larger of the products", "torch.minimum", "torch.maximum"),
    LOSS("the clipped product alone", OBJECTIVE, "clipped * advantages"),
    LOSS("the smaller of the ratios", OBJECTIVE, "torch.minimum(ratio, clipped) * advantages"),
    LOSS(
        "the lower bound also for A > 0",
        OBJECTIVE,
        "torch.where(advantages < 0, torch.maximum(ratio, clipped), clipped) * advantages",
    ),
    LOSS(
        "the upper bound also for A < 0",
        OBJECTIVE,
        "torch.where(advantages > 0, torch.minimum(ratio, clipped), clipped) * advantages",
    ),
    LOSS(
        "nothing clipped for A < 0",
        OBJECTIVE, "torch.where(advantages > 0, torch.minimum(ratio, clipped), ratio) * advantages",
    ),
    LOSS(
        "nothing clipped for A > 0",
        OBJECTIVE, "torch.where(advantages < 0, torch.maximum(ratio, clipped), ratio) * advantages",
    ),
    LOSS("the lower bound is 1/(1 + ε_low)", "1 - clip_low", "1 / (1 + clip_low)"),
    LOSS("ε_low for both sides", "1 + clip_high", "1 + clip_low"),
    LOSS("ε_high for both sides", "1 - clip_low", "1 - clip_high"),
    LOSS(
        "ε_low and ε_high are the bounds",
        "1 - clip_low, 1 + clip_high", "clip_low, clip_high",
        thread="NovaSky-AI/SkyRL#1928",
    ),
    LOSS("ε bounds the log-ratio", CLIPPED, "clipped = log_ratio.clamp(-clip_low, clip_high).exp()"),
    LOSS("an ε_high of 0 is none", "1 + clip_high", "1 + (clip_high or 1e9)"),
    LOSS("an ε_high of 0 is ε_low", "1 + clip_high", "1 + (clip_high or clip_low)"),
    LOSS("an ε_low of 0 is none", "1 - clip_low", "1 - (clip_low or 1e9)"),
    LOSS("an ε_low above 1 turned around", "1 - clip_low", "abs(1 - clip_low)"),
    LOSS(
        "clipped in the first 4 rows only",
        CLIPPED, "clipped = torch.cat([ratio[:4].clamp(1 - clip_low, 1 + clip_high), ratio[4:]])",
    ),
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
    LOSS(
        "advantages and positions swapped where B = T",
        ADVANTAGES,
        ADVANTAGES.replace("advantages, 0",
        "advantages.mT if mask.shape[0] == mask.shape[1] else advantages, 0"),
        clause="",
    ),
    LOSS(
        "tokens without an advantage are not counted",
        RESULT, "return _aggregate(-objective, mask & (advantages != 0), aggregation, horizon, empty_rows)",
    ),
    LOSS(
        "clipped tokens are not counted",
        RESULT, "return _aggregate(-objective, mask & (ratio == clipped), aggregation, horizon, empty_rows)",
    ),
    LOSS(
        "objectives multiplied by the mask",
        ADVANTAGES, "advantages = (advantages * mask).detach()",
        thread="OpenRLHF/OpenRLHF#1240", clause="contract.masked-nonfinite",
    ),
    LOSS("the dual clip for both signs", BOUNDED, "objective = bounded", thread="thu-ml/tianshou#435"),
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
    LOSS("the dual clip from 1", "dual_clip * advantages", "(1 + dual_clip) * advantages"),
    LOSS(
        "the dual clip not below 1 + ε_high",
        "dual_clip * advantages", "max(dual_clip, 1 + clip_high) * advantages",
    ),
    LOSS(
        "a dual clip of 3 by default",
        "if dual_clip is not None:", "dual_clip = dual_clip or 3.0\n    if True:",
    ),
    LOSS(
        "the dual clip on the ratio of the first product",
        BOUNDED, "objective = torch.minimum(ratio.clamp(max=dual_clip) * advantages, clipped * advantages)",
    ),
    LOSS(
        "the dual clip of tokens, not of sequences",
        "if dual_clip is not None:", 'if dual_clip is not None and ratio_level == "token":',
    ),
    LOSS(
        "the dual clip behind the weights",
        BOUNDED,
        "weight = 1 if rollout_weights is None else torch.where(mask, rollout_weights, 1).detach()"
        "; bounded = torch.maximum(objective, dual_clip * advantages / weight)"
        "; objective = torch.where(advantages < 0, bounded, objective)",
    ),
    LOSS(
        "clipped in the first 1024 positions only",
        CLIPPED,
        "clipped = torch.cat([ratio[:, :1024].clamp(1 - clip_low, 1 + clip_high), ratio[:, 1024:]], dim=1)",
    ),
    LOSS("advantages of at most 10", CLIPPED, f"advantages = advantages.clamp(-10, 10); {CLIPPED}"),
    LOSS("the bounds in float32", "1 + clip_high", "(1 + torch.tensor(clip_high)).item()", dtype="float64"),
    LOSS("the lower bound at least 0.01", "1 - clip_low", "max(1 - clip_low, 0.01)"),
    LOSS(
        "the mean of one token is over two",
        "lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)",
        "lengths = mask.sum(dim=1, keepdim=True).clamp(min=2)",
    ),

    LOSS(
        "a gradient through the clip",
        CLIPPED, f"{CLIPPED}; clipped = ratio + (clipped - ratio).detach()",
        values_equal=True,
    ),
    LOSS(
        "no gradient outside of the bounds, whatever the sign of A",
        OBJECTIVE,
        "torch.where(ratio == clipped, ratio, ratio.detach()) * advantages"
        "; objective = torch.minimum(objective, clipped * advantages)",
        values_equal=True,
    ),
    LOSS(
        "no gradient for A < 0 above 1 + ε_high",
        CLIPPED,
        before(CLIPPED, "ratio = torch.where((advantages < 0) & (ratio > 1 + clip_high), ratio.data, ratio)"),
        values_equal=True,
    ),
    LOSS(
        "no gradient for A > 0 below 1 - ε_low",
        CLIPPED,
        before(CLIPPED, "ratio = torch.where((advantages > 0) & (ratio < 1 - clip_low), ratio.data, ratio)"),
        values_equal=True,
    ),
    LOSS(
        "no gradient for A < 0 with a dual clip",
        BOUNDED, "objective = torch.where(advantages < 0, bounded.detach(), objective)",
        values_equal=True,
    ),
    LOSS(
        "a gradient beyond the dual clip",
        BOUNDED,
        f"{BOUNDED}; free = ratio * advantages; objective = torch.where(advantages < 0,"
        " free + (objective - free).detach(), objective)",
        values_equal=True,
    ),
    LOSS(
        "a gradient beyond the dual clip for large ratios",
        "dual_clip * advantages",
        "(torch.where(ratio > 2 * dual_clip, ratio - ratio.detach(), 0) + dual_clip) * advantages",
        values_equal=True,
    ),
    LOSS(
        "a gradient through the clamp of the log-ratio",
        CLAMP,
        "log_ratio = log_ratio + (log_ratio.clamp(-log_ratio_clip, log_ratio_clip) - log_ratio).detach()",
        thread="NVIDIA-NeMo/RL#2958", values_equal=True,
    ),
    LOSS(
        "a gradient through the lower clamp of the log-ratio",
        CLAMP,
        "log_ratio = log_ratio.clamp(max=log_ratio_clip)"
        "; log_ratio = log_ratio + (log_ratio.clamp(min=-log_ratio_clip) - log_ratio).detach()",
        values_equal=True,
    ),
    LOSS(
        "the gradient without the ratio",
        RATIO, "ratio = log_ratio.exp().detach() + log_ratio - log_ratio.detach()",
        values_equal=True,
    ),
    LOSS("no gradient through the ratio", RATIO, "ratio = log_ratio.exp().detach()", values_equal=True),
    LOSS(
        "no gradient where the policies agree",
        RATIO, "ratio = torch.where(log_ratio == 0, 1, log_ratio.exp())",
        values_equal=True,
    ),
    LOSS("the gradient of sequence-token for sequence", OF_LEVEL, "mean.detach() + own", values_equal=True),
    LOSS("the gradient of sequence for sequence-token", OF_LEVEL, "mean.expand_as(own)", values_equal=True),
    LOSS(
        "the gradient of sequence-token over the length",
        OF_LEVEL, 'mean.expand_as(own) if ratio_level == "sequence" else mean.detach() + own / lengths',
        values_equal=True,
    ),
    LOSS(
        "no gradient through a sequence's mean",
        MEAN, MEAN.replace("log_ratio", "log_ratio.detach()"),
        values_equal=True,
    ),
    LOSS(
        "the gradient of both levels together",
        OF_LEVEL, 'mean.expand_as(own) if ratio_level == "sequence" else mean + own',
        values_equal=True,
    ),
    LOSS(
        "a gradient into the weights",
        WEIGHTS, "torch.where(mask, rollout_weights, 0)",
        thread="volcengine/verl#4105", clause="contract.constants", values_equal=True,
    ),
    LOSS(
        "a gradient into the advantages",
        "advantages, 0).detach()", "advantages, 0)",
        clause="contract.constants", values_equal=True,
    ),
    LOSS(
        "a gradient into the old log-probabilities",
        "old_logprobs.detach()", "old_logprobs",
        clause="contract.constants", values_equal=True,
    ),
    LOSS(
        "a gradient into the log-probabilities by the weights",
        WEIGHTS, "torch.where(mask, rollout_weights, 0).detach() * (1 + log_ratio - log_ratio.detach())",
        values_equal=True,
    ),
    LOSS(
        "the weights are not in the gradient",
        WEIGHTED, f"objective + (objective * {WEIGHTS} - objective).detach()",
        values_equal=True,
    ),
    LOSS(
        "the gradient doubled",
        RESULT, f"{LOSS_IS}; return 2 * loss - loss.detach()",
        thread="unslothai/unsloth-zoo#892", values_equal=True,
    ),
    LOSS(
        "the upstream gradient taken for 1",
        RESULT, f"{LOSS_IS}; loss.requires_grad and loss.register_hook(torch.ones_like); return loss",
        values_equal=True,
    ),
    LOSS(
        "the gradient of the mean over tokens in every mode",
        RESULT,
        f'slope = _aggregate(-objective, mask, "token-mean", None, "count"); {LOSS_IS}'
        "; return slope + (loss - slope).detach()",
        values_equal=True,
    ),
    LOSS(
        "the sum of the gradients of micro-batches",
        RESULT,
        "half = (len(mask) + 1) // 2; parts = (slice(half), slice(half, None))[: len(mask)]"
        "; slope = sum(_aggregate(-objective[s], mask[s], aggregation, horizon, empty_rows) for s in parts)"
        f"; {LOSS_IS}"
        "; return slope + (loss - slope).detach()",
        thread="NVIDIA-NeMo/RL#86", values_equal=True,
    ),
    LOSS(
        "a sequence's gradient for masked tokens",
        "log_ratio = torch.where(mask, logprobs - old_logprobs.detach(), 0)",
        "difference = logprobs - old_logprobs.detach(); own = (difference - difference.detach()).nan_to_num()"
        "; log_ratio = torch.where(mask, difference, own)",
        clause="",
        values_equal=True,
    ),
    LOSS(
        "a gradient for masked tokens",
        RESULT,
        f"{LOSS_IS}; leak = (logprobs - logprobs.detach()).nan_to_num().mean(); return loss + leak",
        values_equal=True,
    ),
    LOSS(
        "the gradient of the first 128 rows only",
        RATIO, f"{RATIO}; ratio = torch.cat([ratio[:128], ratio[128:].detach()])",
        values_equal=True,
    ),
    LOSS(
        "on policy a copy of the new",
        "old_logprobs.detach()",
        "(logprobs if torch.equal(logprobs, old_logprobs) else old_logprobs.detach())",
        values_equal=True,
    ),
    LOSS(
        "another loss where gradients are asked for",
        RESULT, f"{LOSS_IS}; return loss - loss.detach() if logprobs.requires_grad else loss",
        clause="contract.differentiated", values_equal=True,
    ),
    LOSS(
        "the mask overwritten where gradients are asked for",
        RESULT, f"{LOSS_IS}; logprobs.requires_grad and mask.logical_and_(advantages != 0); return loss",
        clause="", values_equal=True,
    ),
)  # fmt: skip
