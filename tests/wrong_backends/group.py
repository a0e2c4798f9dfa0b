"""Wrong backends of the chapter `group`."""

from functools import partial

from tests.wrong_backends.edits import Edit

edit = partial(Edit, clause="grpo.", base="torch_group")

STD, RLOO, LOSS = "group_advantages", "rloo_advantages", "grpo_loss"
LOOP = "for group in set(group_ids.tolist()):"
MEMBERS = "members = group_ids == group"
REWARDS = "rewards = _wide(scores.detach())[members]"
TAKEN = "if len(rewards) > 1 and (rewards != rewards[0]).any():\n            centred = _centred(rewards)"
SQUARES = "centred.square().sum()"
VARIANCE = f"({SQUARES} / (len(rewards) - ddof))"
SCALED = "centred / (deviation + eps)"
NONE = "torch.zeros_like(_wide(scores))"
DISTANCES = "distances = rewards - rewards[0]"
OTHERS = "(distances.sum() - distances) / (len(rewards) - 1)"
NEIGHBOURS = (
    "start = int((group_ids == group).int().argmax())"
    "; rows = torch.arange(len(scores)) - start"
    "; members = (rows >= 0) & (rows < (group_ids == group).sum())"
)
ALONE = "torch.where((group_ids[:, None] == group_ids).sum(1) == 1, _wide(scores.detach()), 0)"

PER_TOKEN = "per_token = logprobs"
OLD = "old_logprobs.detach()"
MASKED = "torch.where(mask, x, 0) for x"
CLIPPED = "ratio.clamp(1 - clip_low, 1 + clip_high)"
OBJECTIVE = "torch.minimum(ratio * advantages, clipped * advantages)"
K3 = "to_ref.exp() - 1 - to_ref"
SUM = "kl_coef * divergence - objective"
MEANS = "log_ratio.sum(1) / mask.sum(1).clamp(min=1)"
OWN_SLOPE = "means.detach() + log_ratio - log_ratio.detach()"
TOKEN_MEAN = "sums.sum() / counts.sum().clamp(min=1)"

EDITS = (
    edit(
        STD,
        "precedence",
        SCALED,
        "rewards - rewards.mean() / (deviation + eps)",
        thread="PrimeIntellect-ai/prime-rl#390",
    ),
    edit(
        STD,
        "the deviation of the batch",
        VARIANCE,
        "_wide(scores).var(correction=ddof)",
        thread="huggingface/trl#3992",
    ),
    edit(
        STD,
        "the deviation of the others",
        VARIANCE,
        "torch.stack([rewards[rewards.new_tensor(range(len(rewards))) != k].var(correction=0)"
        " for k in range(len(rewards))])",
        thread="NVIDIA-NeMo/RL#1519",
    ),
    edit(
        STD,
        "mean of squares less square of the mean",
        SQUARES,
        "(rewards.square().mean() - rewards.mean().square()).clamp(min=0) * len(rewards)",
        thread="verl-project/verl#6348",
    ),
    edit(
        STD,
        "a deviation of at least eps",
        SCALED,
        "centred / deviation.clamp(min=eps)",
        thread="verl-project/verl#6348",
    ),
    edit(STD, "eps inside the root", SCALED, "centred / (deviation.square() + eps).sqrt()"),
    edit(STD, "eps ignored", SCALED, "centred / deviation", clause=""),
    edit(STD, "ddof is 0", "(len(rewards) - ddof)", "len(rewards)"),
    edit(STD, "ddof is 1", "(len(rewards) - ddof)", "(len(rewards) - 1)"),
    edit(STD, "the scale ignored", 'if scale == "std" else centred', ""),
    edit(
        STD,
        "the mean of the others",
        "_centred(rewards)",
        "_centred(rewards) * len(rewards) / (len(rewards) - 1)",
    ),
    edit(
        STD,
        "one group",
        MEMBERS,
        "members = group_ids == group_ids",
        thread="XU-YIJIE/grpo-flat#2",
    ),
    edit(STD, "neighbours are a group", MEMBERS, NEIGHBOURS, thread="PrimeIntellect-ai/prime-rl#600"),
    edit(STD, "ids are indices", LOOP, "for group in range(min(int(group_ids.max()), 1000) + 1):"),
    edit(STD, "ids below 64", MEMBERS, "members = group_ids % 64 == group % 64"),
    edit(STD, "ids in float32", MEMBERS, "members = group_ids.float() == torch.tensor(group).float()"),
    edit(STD, "at most 64 groups", LOOP, "for group in sorted(set(group_ids.tolist()))[:64]:", clause=""),
    edit(STD, "at most 8 responses in a group", SQUARES, "centred[:8].square().sum()", clause=""),
    edit(
        STD,
        "sums over the batch multiplied by a mask",
        SQUARES,
        "(members * (_wide(scores.detach()) - rewards.mean())).square().sum()",
    ),
    edit(
        STD,
        "what is left of a rounded mean",
        TAKEN,
        "if len(rewards) > 1:\n            centred = rewards - rewards.mean()",
    ),
    edit(
        STD,
        "0 divided by 0",
        TAKEN,
        "if len(rewards) > 1:\n            centred = _centred(rewards)",
        thread="hill-a/stable-baselines#723",
    ),
    edit(
        STD,
        "close rewards are equal",
        "(rewards != rewards[0]).any()",
        "not torch.allclose(rewards, rewards[0])",
    ),
    edit(
        STD, "a variance below 1e-10 is none", "(deviation + eps)", "(deviation + eps) * (deviation > 1e-5)"
    ),
    edit(STD, "a group of one keeps its reward", NONE, ALONE),
    edit(
        STD,
        "a group of one is NaN",
        NONE,
        ALONE.replace("_wide(scores.detach())", "_wide(0 * scores.detach()) / 0"),
        thread="DLR-RM/stable-baselines3#1028",
        clause="",
    ),
    edit(STD, "clipped at 5", "return advantages", "return advantages.clamp(-5, 5)", clause=""),
    edit(
        STD,
        "a gradient flows through",
        REWARDS,
        REWARDS.replace(".detach()", ""),
        clause="contract.constants",
    ),
    edit(
        STD,
        "bfloat16 inside",
        REWARDS,
        REWARDS.replace("_wide(scores.detach())", "scores.detach().bfloat16().float()"),
    ),
    edit(STD, "float32 inside", REWARDS, REWARDS.replace("[", ".float().double()["), dtype="float64"),
    edit(RLOO, "the mean of all", OTHERS, "distances.mean()"),
    edit(RLOO, "the others over all", OTHERS, "(distances.sum() - distances) / len(rewards)", clause=""),
    edit(RLOO, "the sum of all over the others", OTHERS, "distances.sum() / (len(rewards) - 1)"),
    edit(RLOO, "the best of all", OTHERS, "distances.max()"),
    edit(RLOO, "scaled", OTHERS, f"{OTHERS}; advantages[members] /= distances.std() + 1e-6"),
    edit(
        RLOO,
        "what is left of a rounded mean",
        f"{DISTANCES}\n            adv",
        "distances = rewards\n            adv",
        clause="grpo.zero-variance",
    ),
    edit(RLOO, "a group of one keeps its reward", NONE, ALONE),
    edit(RLOO, "a group of one is NaN", "if len(rewards) > 1", "if True", clause=""),
    edit(RLOO, "one group", MEMBERS, "members = group_ids == group_ids", thread="XU-YIJIE/grpo-flat#2"),
    edit(RLOO, "neighbours are a group", MEMBERS, NEIGHBOURS, thread="PrimeIntellect-ai/prime-rl#600"),
    edit(RLOO, "ids are indices", LOOP, "for group in range(min(int(group_ids.max()), 1000) + 1):"),
    edit(RLOO, "ids in float32", MEMBERS, "members = group_ids.float() == torch.tensor(group).float()"),
    edit(
        RLOO,
        "the others of the batch multiplied by a mask",
        REWARDS,
        f"{REWARDS}; rewards = rewards + 0 * (scores.detach() * members).sum()",
    ),
    edit(
        RLOO,
        "close rewards are equal",
        f"{DISTANCES}\n            adv",
        "distances = (rewards - rewards[0]) * ~torch.isclose(rewards, rewards[0])\n            adv",
    ),
    edit(
        RLOO,
        "at most 4 others",
        OTHERS,
        "(distances[:4].sum() - distances) / (min(len(rewards), 4) - 1)",
        clause="",
    ),
    edit(
        RLOO,
        "a gradient flows through",
        REWARDS,
        REWARDS.replace(".detach()", ""),
        clause="contract.constants",
    ),
    edit(
        RLOO,
        "bfloat16 inside",
        REWARDS,
        REWARDS.replace("_wide(scores.detach())", "scores.detach().bfloat16().float()"),
    ),
    edit(LOSS, "the divergence is maximised", SUM, f"-{SUM}", thread="volcengine/verl#179"),
    edit(LOSS, "the coefficient ignored", SUM, "divergence - objective"),
    edit(LOSS, "k1", K3, "-to_ref", thread="allenai/open-instruct#534"),
    edit(
        LOSS, "k3 the other way round", "to_ref = ref_logprobs - logprobs", "to_ref = logprobs - ref_logprobs"
    ),
    edit(LOSS, "k3 clamped at 10", K3, f"({K3}).clamp(-10, 10)", thread="volcengine/verl#2928"),
    edit(
        LOSS,
        "the log-ratio of the divergence clamped",
        K3,
        K3.replace("to_ref", "to_ref.clamp(-20, 20)"),
        clause="",
    ),
    edit(
        LOSS,
        "the divergence aggregated by tokens",
        "return _aggregate(kl_coef * divergence - objective, ",
        'return _aggregate(kl_coef * divergence, mask, "token-mean", None, "count")'
        " + _aggregate(-objective, ",
    ),
    edit(LOSS, "only the clipped product", OBJECTIVE, "clipped * advantages"),
    edit(LOSS, "the bounds exchanged", CLIPPED, "ratio.clamp(1 - clip_high, 1 + clip_low)"),
    edit(LOSS, "bounds of the log-ratio", CLIPPED, "log_ratio.clamp(-clip_low, clip_high).exp()"),
    edit(
        LOSS,
        "the ratio is 1",
        f"{OLD}, ref",
        "logprobs.detach(), ref",
        thread="PrimeIntellect-ai/prime-rl commit 413cf0d1",
    ),
    edit(
        LOSS,
        "no ratio",
        "ratio = log_ratio.exp()",
        "ratio = torch.ones_like(log_ratio) + log_ratio - log_ratio.detach()",
    ),
    edit(
        LOSS,
        "advantages along the columns",
        "advantages.detach()[:, None]",
        "advantages.detach()[None, :]",
        thread="PrimeIntellect-ai/prime-rl commit 8d77a2cd",
        clause="",
    ),
    edit(
        LOSS,
        "advantages at the tokens of the last response",
        "advantages.detach()[:, None]",
        "torch.where(mask[-1], advantages.detach()[:, None], 0)",
        thread="NovaSky-AI/SkyRL#1507",
    ),
    edit(LOSS, "the mean log-ratio over the width", MEANS, "log_ratio.mean(1)"),
    edit(
        LOSS,
        "the ratio of the batch",
        MEANS,
        "log_ratio.sum() / mask.sum().clamp(min=1) + 0 * log_ratio.sum(1)",
    ),
    edit(
        LOSS,
        "holes take part",
        PER_TOKEN,
        f"mask = mask.int().flip(1).cumsum(1).flip(1) > 0; {PER_TOKEN}",
        thread="huggingface/trl#4975",
        clause="",
    ),
    edit(
        LOSS,
        "multiplied by the mask",
        MASKED,
        "x * mask for x",
        thread="modelscope/ms-swift#9767",
        clause="contract.masked-nonfinite",
    ),
    edit(
        LOSS, "0 divided by 0", TOKEN_MEAN, "sums.sum() / counts.sum()", thread="unslothai/unsloth-zoo#1286"
    ),
    edit(
        LOSS,
        "masked tokens in the divisor",
        TOKEN_MEAN,
        "sums.sum() / mask.numel()",
        thread="huggingface/trl#6439",
    ),
    edit(LOSS, "empty rows count", 'if empty_rows == "drop" else', 'if empty_rows == "" else', clause=""),
    edit(LOSS, "the horizon ignored", "mask.shape[1] if horizon is None else horizon", "mask.shape[1]"),
    edit(
        LOSS,
        "bfloat16 inside",
        "to_ref = ref_logprobs - logprobs",
        "to_ref = (ref_logprobs - logprobs).bfloat16().to(logprobs.dtype)",
    ),
    edit(LOSS, "a sequence's ratio is a constant", OWN_SLOPE, "means.detach()", values_equal=True),
    edit(
        LOSS,
        "the divergence is a constant",
        SUM,
        "kl_coef * divergence.detach() - objective",
        values_equal=True,
    ),
    edit(
        LOSS,
        "the gradient passes the clip",
        CLIPPED,
        f"{CLIPPED}.detach() + ratio - ratio.detach()",
        values_equal=True,
    ),
    edit(
        LOSS,
        "a gradient into the old policy",
        OLD,
        "old_logprobs",
        clause="contract.constants",
        values_equal=True,
    ),
    edit(
        LOSS,
        "a gradient into the reference",
        "ref_logprobs.detach()",
        "ref_logprobs",
        clause="contract.constants",
        values_equal=True,
    ),
    edit(
        LOSS,
        "a gradient into the advantages",
        "advantages.detach()",
        "advantages",
        clause="contract.constants",
        values_equal=True,
    ),
)
