"""Wrong backends of the chapter `preference`."""

from functools import partial

from tests.wrong_backends.edits import Edit

edit = partial(Edit, clause="dpo.", base="torch_preference")

SUM, REWARD, LOSS = "sequence_logprobs", "implicit_rewards", "dpo_loss"
ACTIVE = "torch.where(mask, token_logprobs, 0)"
COUNT = "mask.sum(1).clamp(min=1)"
LOG_RATIO = "(policy_logprobs - ref_logprobs.detach())"
MARGIN = "(policy_chosen - policy_rejected) - (ref_chosen - ref_rejected).detach()"
RIGHT = "logsigmoid(beta * margin)"
BOTH = f"{RIGHT}, logsigmoid(-beta * margin)"
SMOOTHED = "-(1 - label_smoothing) * right - label_smoothing * wrong"
HINGE = "(1 - beta * margin).clamp(min=0)"
IPO = "(margin - 1 / (2 * beta)).square()"
MEAN = "losses.mean()"

EDITS = (
    edit(SUM, "averaged the wrong way around", "if average", "if not average"),
    edit(SUM, "divided by the width", COUNT, "mask.shape[1]"),
    edit(SUM, "divided by the mean length", COUNT, "mask.sum(1).float().mean().clamp(min=1)"),
    edit(SUM, "the prompt's tokens too", ACTIVE, "token_logprobs", thread="OpenRLHF/OpenRLHF#235"),
    edit(
        SUM,
        "half of the batch not masked",
        ACTIVE,
        "torch.where(mask | (2 * torch.arange(len(mask)) >= len(mask))[:, None], token_logprobs, 0)",
        thread="OpenRLHF/OpenRLHF#237",
    ),
    edit(
        SUM,
        "padding is summed",
        ACTIVE,
        "torch.where(mask.cumsum(1) > 0, token_logprobs, 0)",
        thread="eric-mitchell/direct-preference-optimization commit 21fd7fe",
    ),
    edit(SUM, "the last column cut", ACTIVE, f"{ACTIVE}[:, :-1]", thread="huggingface/trl#2332"),
    edit(
        SUM,
        "the mask one position off",
        ACTIVE,
        "torch.where(mask.roll(1, 1), token_logprobs, 0)",
        thread="Goekdeniz-Guelmez/mlx-lm-lora#80",
    ),
    edit(SUM, "tokens up to the first hole", ACTIVE, "torch.where(mask.cumprod(1) > 0, token_logprobs, 0)"),
    edit(
        SUM,
        "multiplied by the mask",
        ACTIVE,
        "(mask * token_logprobs)",
        thread="volcengine/verl#2377",
        clause="contract.masked-nonfinite",
    ),
    edit(
        SUM,
        "0 divided by 0",
        COUNT,
        "mask.sum(1)",
        thread="THUDM/slime commit 82d3f94a",
    ),
    edit(
        SUM,
        "the mask of the first chunk for all",
        ACTIVE,
        "torch.where(mask[torch.arange(len(mask)) % 4], token_logprobs, 0)",
        thread="linkedin/Liger-Kernel#330",
    ),
    edit(SUM, "log-probabilities clamped", ACTIVE, "torch.where(mask, token_logprobs.clamp(min=-100), 0)"),
    edit(SUM, "128 tokens of a row", ACTIVE, f"{ACTIVE}[:, :128]", clause=""),
    edit(SUM, "added up in bfloat16", ACTIVE, f"{ACTIVE}.bfloat16().to(token_logprobs.dtype)"),
    edit(SUM, "added up in float32", ACTIVE, f"{ACTIVE}.float().double()", dtype="float64"),
    edit(
        SUM,
        "the gradient of the sum for the mean",
        f"sums / {COUNT}",
        f"(sums / {COUNT}).detach() + (sums - sums.detach())",
        values_equal=True,
    ),
    edit(
        SUM,
        "no gradient in certain tokens",
        ACTIVE,
        "torch.where(mask & (token_logprobs < 0), token_logprobs, 0)",
        values_equal=True,
    ),
    edit(REWARD, "the coefficient ignored", "beta * ", ""),
    edit(REWARD, "divided by the coefficient", "beta * (", "1 / beta * ("),
    edit(REWARD, "the reference ignored", LOG_RATIO, "policy_logprobs", thread="linkedin/Liger-Kernel#405"),
    edit(REWARD, "the wrong sign", LOG_RATIO, "(ref_logprobs.detach() - policy_logprobs)"),
    edit(
        REWARD,
        "the logarithm of a ratio",
        LOG_RATIO,
        "(policy_logprobs.exp() / ref_logprobs.exp().detach()).log()",
    ),
    edit(
        REWARD,
        "the first chunk for every chunk",
        "ref_logprobs.detach()",
        "ref_logprobs.detach()[torch.arange(len(ref_logprobs)) % 4]",
        clause="contract.shapes",
        thread="modelscope/ms-swift#9128",
    ),
    edit(
        REWARD,
        "less their mean",
        f"return beta * {LOG_RATIO}",
        f"rewards = beta * {LOG_RATIO}; return rewards - rewards.mean()",
    ),
    edit(REWARD, "clamped", LOG_RATIO, f"{LOG_RATIO}.clamp(-2, 2)"),
    edit(REWARD, "bfloat16 inside", LOG_RATIO, f"{LOG_RATIO}.bfloat16().to(policy_logprobs.dtype)"),
    edit(REWARD, "no gradient", LOG_RATIO, f"{LOG_RATIO}.detach()", values_equal=True),
    edit(
        REWARD,
        "a gradient without the coefficient",
        f"return beta * {LOG_RATIO}",
        f"return beta * {LOG_RATIO}.detach() + (policy_logprobs - policy_logprobs.detach())",
        values_equal=True,
    ),
    edit(
        REWARD,
        "a gradient into the reference",
        "ref_logprobs.detach()",
        "ref_logprobs",
        clause="contract.constants",
        values_equal=True,
    ),
    edit(
        LOSS,
        "the reference left out",
        MARGIN,
        "policy_chosen - policy_rejected",
        thread="linkedin/Liger-Kernel#405",
    ),
    edit(
        LOSS,
        "the wrong sign",
        BOTH,
        "logsigmoid(-beta * margin), logsigmoid(beta * margin)",
        thread="linkedin/Liger-Kernel#484",
    ),
    edit(
        LOSS, "the reference of the chosen one for both", MARGIN, MARGIN.replace("ref_rejected", "ref_chosen")
    ),
    edit(
        LOSS,
        "the first chunk for every chunk",
        MARGIN,
        "(policy_chosen - policy_rejected)"
        " - (ref_chosen - ref_rejected).detach()[torch.arange(len(ref_chosen)) % 4]",
        thread="modelscope/ms-swift#9128",
    ),
    edit(
        LOSS,
        "the logarithm of a sigmoid",
        BOTH,
        "*(torch.sigmoid(x).log() for x in (beta * margin, -beta * margin)),",
    ),
    edit(
        LOSS,
        "a straight line beyond 20",
        RIGHT,
        "-torch.nn.functional.softplus(-beta * margin)",
        dtype="float64",
    ),
    edit(LOSS, "label smoothing ignored", SMOOTHED, "-right", clause=""),
    edit(LOSS, "label smoothing on top", SMOOTHED, "-right - label_smoothing * wrong"),
    edit(LOSS, "label smoothing subtracted", SMOOTHED, SMOOTHED.replace("right - l", "right + l")),
    edit(LOSS, "a hinge without the coefficient", HINGE, "(1 - margin).clamp(min=0)"),
    edit(LOSS, "a target of 1/β", IPO, IPO.replace("(2 * beta)", "beta")),
    edit(LOSS, "a margin times the coefficient", IPO, "(beta * margin - 1 / 2).square()"),
    edit(LOSS, "a sum", MEAN, "losses.sum()"),
    edit(LOSS, "ties dropped", MEAN, "(losses * (margin != 0)).mean()"),
    edit(LOSS, "losses clamped at 50", MEAN, "losses.clamp(max=50).mean()"),
    edit(LOSS, "eight pairs at most", MEAN, "losses[:8].mean()"),
    edit(LOSS, "bfloat16 inside", MARGIN, f"({MARGIN}).bfloat16().to(policy_chosen.dtype)"),
    edit(LOSS, "float32 inside", MARGIN, f"({MARGIN}).float().double()", dtype="float64"),
    edit(
        LOSS,
        "a gradient into the reference",
        "(ref_chosen - ref_rejected).detach()",
        "(ref_chosen - ref_rejected)",
        clause="contract.constants",
        values_equal=True,
    ),
    edit(
        LOSS,
        "no gradient in the rejected response",
        "- policy_rejected)",
        "- policy_rejected.detach())",
        values_equal=True,
    ),
    edit(
        LOSS,
        "no gradient in the other label",
        "label_smoothing * wrong",
        "label_smoothing * wrong.detach()",
        values_equal=True,
    ),
    edit(
        LOSS,
        "the gradient of the sum",
        MEAN,
        "losses.mean().detach() + (losses.sum() - losses.sum().detach())",
        values_equal=True,
    ),
    edit(
        LOSS,
        "a gradient beyond the hinge",
        HINGE,
        f"{HINGE}.detach() - beta * (margin - margin.detach())",
        values_equal=True,
    ),
)
