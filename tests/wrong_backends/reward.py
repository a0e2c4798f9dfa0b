"""Wrong backends of the chapter `reward`."""

from functools import partial

from tests.wrong_backends.edits import Edit

edit = partial(Edit, clause="rm.", base="torch_reward")

LOSS, SHAPED = "reward_model_loss", "shaped_rewards"
DELTA = "chosen - rejected - margin"
LOSSES = f"-logsigmoid({DELTA})"
MEAN = "losses.mean()"
LAST = "positions[-1]"
PLACED = f"rewards[row, {LAST}] += scores[row]"
SCORE = "+= scores[row]"
LOG_RATIO = "logprobs - ref_logprobs"
PENALTY = "-kl_coef * _estimate(log_ratio, estimator)"

EDITS = (
    edit(
        LOSS,
        "the logarithm of a sigmoid",
        LOSSES,
        f"-torch.sigmoid({DELTA}).log()",
        thread="deepspeedai/DeepSpeedExamples#501",
    ),
    edit(LOSS, "the logarithm of 1 + exp", LOSSES, f"(-({DELTA})).exp().log1p()"),
    edit(LOSS, "small losses lost", LOSSES, f"(1 + (-({DELTA}).clamp(min=-80)).exp()).log()"),
    edit(
        LOSS,
        "a straight line beyond 20",
        LOSSES,
        f"torch.nn.functional.softplus(-({DELTA}))",
        dtype="float64",
    ),
    edit(LOSS, "the margin added", DELTA, "chosen - rejected + margin"),
    edit(LOSS, "the margin ignored", DELTA, "chosen - rejected"),
    edit(LOSS, "the pair the other way round", DELTA, "rejected - chosen - margin"),
    edit(LOSS, "a sum", MEAN, "losses.sum()"),
    edit(LOSS, "ties dropped", MEAN, "(losses * (chosen != rejected)).mean()"),
    edit(LOSS, "distances clipped at 30", DELTA, "(chosen - rejected - margin).clamp(-30, 30)"),
    edit(LOSS, "eight pairs at most", MEAN, "losses[:8].mean()", clause=""),
    edit(LOSS, "bfloat16 inside", LOSSES, f"-logsigmoid(({DELTA}).bfloat16()).to(chosen.dtype)"),
    edit(LOSS, "float32 inside", LOSSES, f"-logsigmoid(({DELTA}).float()).double()", dtype="float64"),
    edit(
        LOSS,
        "no gradient in the rejected score",
        DELTA,
        "chosen - rejected.detach() - margin",
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
        "the gradient of a straight line beyond 20",
        LOSSES,
        f"torch.where({DELTA} < -20, logsigmoid({DELTA}).detach() + {DELTA} - ({DELTA}).detach()"
        f", logsigmoid({DELTA})).neg()",
        dtype="float64",
        values_equal=True,
    ),
    edit(SHAPED, "on the last column", LAST, "-1", thread="huggingface/trl#937"),
    edit(
        SHAPED,
        "one position behind the last token",
        LAST,
        "min(positions[-1] + 1, mask.shape[1] - 1)",
        thread="huggingface/trl#3750",
    ),
    edit(
        SHAPED,
        "behind the last token, where there is room",
        PLACED,
        "rewards[row, positions[-1] + 1 :][:1] += scores[row]",
        thread="deepspeedai/DeepSpeedExamples#672",
    ),
    edit(
        SHAPED,
        "on the last token of the row that is longest",
        LAST,
        "mask.any(0).nonzero().max()",
        thread="radixark/miles#1827",
    ),
    edit(
        SHAPED,
        "before the first masked position",
        LAST,
        "int(active.int().argmin()) - 1",
        thread="huggingface/transformers#35352",
    ),
    edit(SHAPED, "at the count of active tokens", LAST, "len(positions) - 1"),
    edit(
        SHAPED,
        "one token early",
        LAST,
        "positions[-2:][0]",
        thread="alibaba/ROLL commit 1f9d2171",
    ),
    edit(SHAPED, "a row without tokens", "if positions", "if True", clause=""),
    edit(SHAPED, "the score of the next row", SCORE, "+= scores[row - 1]", clause=""),
    edit(SHAPED, "the score in place of the penalty", SCORE, "= scores[row]"),
    edit(SHAPED, "the score less that of the others", SCORE, "+= scores[row] - scores.mean()"),
    edit(SHAPED, "the score clipped at 10", SCORE, "+= scores[row].clamp(-10, 10)"),
    edit(SHAPED, "drift is paid", PENALTY, PENALTY[1:]),
    edit(
        SHAPED,
        "the penalty at once",
        PLACED,
        "rewards[row] = (torch.arange(mask.shape[1]) == positions[-1]) * (rewards[row].sum() + scores[row])",
        thread="huggingface/trl#2575",
    ),
    edit(
        SHAPED,
        "a reference of zeros",
        LOG_RATIO,
        "logprobs - 0 * ref_logprobs",
        thread="NVIDIA-NeMo/RL#3087",
    ),
    edit(
        SHAPED,
        "the penalty counted twice",
        PENALTY,
        f"2 * {PENALTY}",
        thread="NVIDIA-NeMo/RL#2530",
    ),
    edit(
        SHAPED,
        "written into the log-probabilities",
        LOG_RATIO,
        "logprobs.sub_(ref_logprobs)",
        thread="THUDM/slime#2114",
        clause="contract.pure",
    ),
    edit(SHAPED, "always k1", "estimator)\n    for", "'k1')\n    for"),
    edit(
        SHAPED,
        "k3 the other way round",
        "(-log_ratio).exp() - 1 + log_ratio",
        "log_ratio.exp() - 1 - log_ratio",
    ),
    edit(
        SHAPED,
        "the penalty clamped",
        PENALTY,
        "-kl_coef * _estimate(log_ratio, estimator).clamp(-10, 10)",
        clause="",
    ),
    edit(
        SHAPED,
        "bfloat16 inside",
        "torch.where(mask, logprobs - ref_logprobs, 0)",
        "torch.where(mask, logprobs - ref_logprobs, 0).bfloat16().to(logprobs.dtype)",
    ),
    edit(SHAPED, "a gradient flows through", "rewards.detach()", "rewards", clause="contract.constants"),
    edit(
        SHAPED,
        "the rewards of the call before",
        "return rewards.detach()",
        "kept, now = vars(shaped_rewards), rewards.detach(); before = kept.get(now.shape, now)"
        "; kept[now.shape] = now; return before",
        clause="",
    ),
)
