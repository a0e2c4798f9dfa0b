"""Wrong backends of the chapter `kl`."""

from functools import partial

from tests.wrong_backends.edits import Edit

_edit = partial(Edit, base="torch_kl", clause="kl.")

REF = "ref_logprobs.detach()"
LOG_RATIO = f"logprobs - {REF}"
CLAMP = "log_ratio.clamp(-log_ratio_clip, log_ratio_clip)"
ESTIMATE = "_estimate(log_ratio, estimator)"
VALUE = "estimate.detach().clamp(-value_clip, value_clip)"
K1, K2, ABS = "return log_ratio\n", "log_ratio * log_ratio / 2", "log_ratio.abs()"
K3 = "(-log_ratio).exp() - 1 + log_ratio"
LOGPROBS = "logits.log_softmax(-1), ref"
REF_LOGITS = "ref_logits.detach()"
REF_LOGPROBS = f"{REF_LOGITS}.log_softmax(-1)"
DIVERGENCE = "(logprobs.exp() * log_ratio).sum(-1)"
SELECTED = "torch.where(possible & ~excluded, logprobs - ref_logprobs, 0)"
INFINITE = "torch.where((possible & excluded).any(-1), torch.inf, divergence)"
ERROR = "min(max(kl / target - 1, -0.2), 0.2)"
NEXT = "coef * (1 + error * n_steps / horizon)"

EDITS = (
    _edit("kl_estimate", "the arguments exchanged", LOG_RATIO, f"{REF} - logprobs"),
    _edit(
        "kl_estimate", "of the policy from itself",
        REF, "logprobs.detach()",
        thread="pytorch/rl#1922",
    ),
    _edit(
        "kl_estimate", "k1 with the wrong sign",
        K1, "return -log_ratio\n",
        thread="modelscope/ms-swift#7145",
    ),
    _edit(
        "kl_estimate", "the ratio for its logarithm",
        K1, "return -(-log_ratio).exp()\n",
        thread="OpenRLHF/OpenRLHF commit feeb0283",
    ),
    _edit("kl_estimate", "k1 never negative", K1, "return log_ratio.clamp(min=0)\n"),
    _edit("kl_estimate", "k2 not halved", K2, "log_ratio * log_ratio"),
    _edit("kl_estimate", "k3 with the arguments exchanged", K3, "log_ratio.exp() - 1 - log_ratio"),
    _edit("kl_estimate", "k3 with one sign wrong", K3, "(-log_ratio).exp() - 1 - log_ratio"),
    _edit(
        "kl_estimate", "k3 as k2 where the log-ratio is small",
        K3, f"torch.where(log_ratio.abs() < 1e-2, log_ratio * log_ratio / 2, {K3})",
        dtype="float64",
    ),
    _edit(
        "kl_estimate", "k3 is 0 where the log-ratio is small",
        K3, f"torch.where(log_ratio.abs() < 2e-3, 0, {K3})",
    ),
    _edit(
        "kl_estimate", "k3 capped in the exponential",
        K3, "(-log_ratio).clamp(max=10).exp() - 1 + log_ratio",
        clause="",
    ),
    _edit(
        "kl_estimate", "the ratio for the difference",
        ABS, "log_ratio.exp().abs()",
        thread="NovaSky-AI/SkyRL#912",
    ),
    _edit(
        "kl_estimate", "k1 for what is not k2 and k3",
        'case "k1"', 'case "k1" | "abs"',
        thread="huggingface/trl#4499",
    ),
    _edit("kl_estimate", "another default of the estimator", '= "k1"', '= "k3"'),
    _edit(
        "kl_estimate", "a clamp of the log-ratio by default",
        "log_ratio_clip: float | None = None", "log_ratio_clip: float | None = 20.0",
    ),
    _edit(
        "kl_estimate", "a clamp of the value by default",
        "value_clip: float | None = None", "value_clip: float | None = 10.0",
    ),
    _edit(
        "kl_estimate", "always clamped at 20",
        "if log_ratio_clip is not None:", "log_ratio_clip = log_ratio_clip or 20.0\n    if log_ratio_clip:",
        thread="volcengine/verl#1779", clause="",
    ),
    _edit(
        "kl_estimate", "the value always clamped at 10",
        "if value_clip is None:", "value_clip = value_clip or 10.0\n    if not value_clip:",
        thread="volcengine/verl#2928",
    ),
    _edit(
        "kl_estimate", "the log-ratio clamped from above alone",
        CLAMP, "log_ratio.clamp(max=log_ratio_clip)",
    ),
    _edit(
        "kl_estimate", "the log-ratio clamped at the value's bound",
        CLAMP, "log_ratio.clamp(-(value_clip or log_ratio_clip), value_clip or log_ratio_clip)",
    ),
    _edit(
        "kl_estimate", "the value clamped from above alone",
        "estimate.abs() > value_clip", "estimate > value_clip",
    ),
    _edit(
        "kl_estimate", "the clamped value never negative",
        VALUE, "estimate.detach().clamp(0, value_clip)",
    ),
    _edit("kl_estimate", "0 beyond the clamp of the value", VALUE, "0"),
    _edit(
        "kl_estimate", "the log-ratio of k1 alone unclamped",
        ESTIMATE,
        "_estimate(logprobs - ref_logprobs.detach() if estimator == 'k1' else log_ratio," " estimator)",
    ),
    _edit(
        "kl_estimate", "the exponential of k3 not clamped",
        ESTIMATE, f"({REF} - logprobs).exp() - 1 + log_ratio if estimator == 'k3' else {ESTIMATE}",
        thread="huggingface/trl#3015",
    ),
    _edit(
        "kl_estimate", "log-probabilities of the reference one token late",
        REF, f"{REF}.roll(1, 1)",
        thread="PrimeIntellect-ai/prime-rl#1525",
    ),
    _edit(
        "kl_estimate", "log-probabilities of the first chunk for every chunk",
        REF, f"{REF}[torch.arange(len(ref_logprobs)) % 4]",
        thread="modelscope/ms-swift#9128",
    ),
    _edit(
        "kl_estimate", "log-probabilities in bfloat16",
        LOG_RATIO, f"(logprobs.bfloat16() - {REF}.bfloat16()).to(logprobs.dtype)",
        thread="OpenRLHF/OpenRLHF#620",
    ),
    _edit(
        "kl_estimate", "float32 inside",
        LOG_RATIO, f"({LOG_RATIO}).float().to(logprobs.dtype)",
        dtype="float64",
    ),
    _edit("kl_estimate", "made from the ratio", LOG_RATIO, f"({LOG_RATIO}).exp().log()"),
    _edit(
        "kl_estimate", "no infinity",
        LOG_RATIO + "\n",
        f"{LOG_RATIO}\n    if estimator == 'k3' and value_clip is None: return _estimate(log_ratio if"
        f" log_ratio_clip is None else {CLAMP}, 'k3').nan_to_num(posinf=0.0)\n",
        clause="",
    ),
    _edit(
        "kl_estimate", "transposed where square",
        LOG_RATIO + "\n",
        f"{LOG_RATIO}\n    log_ratio = log_ratio.T if len(log_ratio) == log_ratio.shape[1] else log_ratio\n",
        clause="",
    ),
    _edit(
        "kl_estimate", "a single row squeezed",
        "        return estimate", "        return estimate.squeeze(0)",
        clause="",
    ),
    _edit(
        "kl_estimate", "no more than 128 tokens",
        LOG_RATIO, f"(torch.arange(logprobs.shape[1]) < 128) * ({LOG_RATIO})",
        clause="contract.shapes",
    ),
    _edit(
        "kl_estimate", "strides ignored",
        LOG_RATIO, f"logprobs.as_strided(logprobs.shape, (logprobs.shape[1], 1)) - {REF}",
        clause="contract.pure",
    ),
    _edit(
        "kl_estimate", "subtracted in place",
        LOG_RATIO, f"{REF}.neg_() + logprobs",
        thread="THUDM/slime#2114", clause="contract.pure",
    ),
    _edit("kl_estimate", "no gradient of k1", K1, "return log_ratio.detach()\n", values_equal=True),
    _edit(
        "kl_estimate", "the gradient of k2 behind k1",
        K1, f"return log_ratio.detach() + ({K2} - ({K2}).detach())\n",
        values_equal=True,
    ),
    _edit(
        "kl_estimate", "k1 weighed by a live ratio of 1",
        K1, "return log_ratio * (log_ratio - log_ratio.detach()).exp()\n",
        values_equal=True,
    ),
    _edit(
        "kl_estimate", "the gradient of k2 behind k3",
        K3, f"({K3}).detach() + ({K2} - ({K2}).detach())",
        values_equal=True,
    ),
    _edit(
        "kl_estimate", "the exponential of k3 a constant",
        K3, "(-log_ratio.detach()).exp() - 1 + log_ratio",
        values_equal=True,
    ),
    _edit(
        "kl_estimate", "half the gradient of k2",
        K2, "log_ratio * log_ratio.detach() / 2",
        values_equal=True,
    ),
    _edit(
        "kl_estimate", "abs as the root of a square",
        ABS, "(log_ratio * log_ratio).sqrt()",
        values_equal=True,
    ),
    _edit(
        "kl_estimate", "the gradient of abs without its sign",
        ABS, "(log_ratio.abs().detach() + (log_ratio - log_ratio.detach()))",
        values_equal=True,
    ),
    _edit(
        "kl_estimate", "a gradient into the reference",
        REF, "ref_logprobs",
        clause="contract.constants", values_equal=True,
    ),
    _edit(
        "kl_estimate", "a gradient beyond the clamp of the log-ratio",
        CLAMP, f"log_ratio + ({CLAMP} - log_ratio).detach()",
        thread="NVIDIA-NeMo/RL#2958", values_equal=True,
    ),
    _edit(
        "kl_estimate", "a gradient beyond the clamp of the value",
        VALUE, f"({VALUE} + (log_ratio - log_ratio.detach()))",
        values_equal=True,
    ),
    _edit(
        "kl_estimate", "0 times infinity beyond the clamp of the value",
        "torch.where(beyond, 0, log_ratio)", "log_ratio",
        thread="OpenRLHF/OpenRLHF commit 3c3be623", values_equal=True,
    ),

    _edit(
        "kl_divergence", "the direction exchanged",
        "logprobs, ref_logprobs = ", "ref_logprobs, logprobs = ",
        thread="vwxyzjn/cleanrl commit 7dc0baef",
    ),
    _edit(
        "kl_divergence", "of the policy from itself",
        REF_LOGITS, "logits.detach()",
        thread="pytorch/rl#1922",
    ),
    _edit(
        "kl_divergence", "the cross entropy",
        DIVERGENCE, "-(logprobs.exp() * ref_logprobs.nan_to_num()).sum(-1)",
    ),
    _edit("kl_divergence", "in bits", DIVERGENCE, f"{DIVERGENCE} / 0.6931471805599453"),
    _edit("kl_divergence", "logits of the reference not normalised", REF_LOGPROBS, REF_LOGITS),
    _edit(
        "kl_divergence", "reference at another temperature",
        REF_LOGPROBS, f"({REF_LOGITS} / 0.7).log_softmax(-1)",
        thread="THUDM/slime#2085",
    ),
    _edit(
        "kl_divergence", "softmax over the tokens of the row",
        REF_LOGPROBS, f"{REF_LOGITS}.log_softmax(1)",
    ),
    _edit(
        "kl_divergence", "probabilities, then their logarithms",
        REF_LOGPROBS, f"{REF_LOGITS}.softmax(-1).log()",
        thread="linkedin/Liger-Kernel#769", clause="",
    ),
    _edit(
        "kl_divergence", "1e-8 within the logarithm",
        REF_LOGPROBS, f"({REF_LOGITS}.softmax(-1) + 1e-8).log()",
        clause="",
    ),
    _edit(
        "kl_divergence", "no logarithm below -20",
        REF_LOGPROBS, f"{REF_LOGPROBS}.clamp(min=-20)",
        clause="",
    ),
    _edit(
        "kl_divergence", "the largest logit not taken out",
        REF_LOGPROBS, f"({REF_LOGITS} - {REF_LOGITS}.exp().sum(-1, keepdim=True).log())",
        clause="",
    ),
    _edit(
        "kl_divergence", "zeros in the vocabulary's last tile",
        REF_LOGPROBS,
        f"torch.nn.functional.pad({REF_LOGITS}, (0, -ref_logits.shape[-1] % 4)).log_softmax(-1)[..., :"
        " ref_logits.shape[-1]]",
        thread="verl-project/verl#5349",
    ),
    _edit(
        "kl_divergence", "a vocabulary of at most 4",
        DIVERGENCE, "(logprobs.exp() * log_ratio)[..., :4].sum(-1)",
    ),
    _edit(
        "kl_divergence", "a vocabulary of at most 128",
        DIVERGENCE, "(logprobs.exp() * log_ratio)[..., :128].sum(-1)",
    ),
    _edit(
        "kl_divergence", "no more than 128 tokens",
        DIVERGENCE, f"{DIVERGENCE} * (torch.arange(logits.shape[1]) < 128)",
        clause="contract.shapes",
    ),
    _edit(
        "kl_divergence", "small divergences are 0",
        DIVERGENCE, f"torch.nn.functional.threshold({DIVERGENCE}, 1e-3, 0.0)",
    ),
    _edit(
        "kl_divergence", "in bfloat16",
        LOGPROBS, "logits.bfloat16().log_softmax(-1).to(logits.dtype), ref",
        thread="OpenRLHF/OpenRLHF#620",
    ),
    _edit(
        "kl_divergence", "float32 inside",
        REF_LOGPROBS, f"{REF_LOGITS}.float().log_softmax(-1).to(logits.dtype)",
        dtype="float64",
    ),
    _edit(
        "kl_divergence", "float16 inside",
        LOGPROBS, "logits.half().log_softmax(-1).to(logits.dtype), ref",
    ),
    _edit(
        "kl_divergence", "logits of the first chunk for every chunk",
        REF_LOGITS, f"{REF_LOGITS}[torch.arange(len(ref_logits)) % 4]",
        thread="modelscope/ms-swift#9128",
    ),
    _edit(
        "kl_divergence", "0 times infinity",
        SELECTED, "logprobs - ref_logprobs",
        thread="modelscope/ms-swift#9767",
    ),
    _edit("kl_divergence", "excluded tokens left out", INFINITE, "divergence"),
    _edit(
        "kl_divergence", "a large number for infinity",
        INFINITE, INFINITE.replace("torch.inf", "1e4"),
    ),
    _edit(
        "kl_divergence", "infinite where any token is excluded",
        INFINITE, INFINITE.replace("possible & ", ""),
    ),
    _edit(
        "kl_divergence", "infinite for an impossible token",
        INFINITE, INFINITE.replace("possible & excluded", "~possible"),
    ),
    _edit(
        "kl_divergence", "logits below -1000 are impossible",
        "logits > -torch.inf", "logits > -1e3",
    ),
    _edit(
        "kl_divergence", "transposed where square",
        INFINITE, "(lambda x: x.T if len(x) == x.shape[1] else x)(" + INFINITE + ")",
        clause="",
    ),
    _edit(
        "kl_divergence", "a single token squeezed",
        INFINITE, f"{INFINITE}.squeeze(-1)",
        clause="",
    ),
    _edit(
        "kl_divergence", "normalised in place",
        REF_LOGITS, f"{REF_LOGITS}.sub_(ref_logits.amax(-1, keepdim=True))",
        thread="THUDM/slime#2114", clause="contract.pure",
    ),
    _edit(
        "kl_divergence", "strides ignored",
        LOGPROBS,
        "logits.as_strided(logits.shape, (logits[0].numel(), logits.shape[-1], 1)).log_softmax(-1), ref",
        clause="contract.pure",
    ),
    _edit(
        "kl_divergence", "no gradient",
        LOGPROBS, "logits.detach().log_softmax(-1), ref",
        values_equal=True,
    ),
    _edit(
        "kl_divergence", "a gradient into the reference",
        REF_LOGITS, "ref_logits",
        clause="contract.constants", values_equal=True,
    ),
    _edit(
        "kl_divergence", "probabilities taken as constants",
        "logprobs.exp()", "logprobs.detach().exp()",
        values_equal=True,
    ),
    _edit(
        "kl_divergence", "no gradient of the normaliser",
        LOGPROBS, "(logits - logits.logsumexp(-1, keepdim=True).detach()), ref",
        clause="", values_equal=True,
    ),
    _edit(
        "kl_divergence", "twice the gradient",
        DIVERGENCE, f"2 * {DIVERGENCE} - {DIVERGENCE}.detach()",
        thread="unslothai/unsloth-zoo#892", values_equal=True,
    ),
    _edit(
        "kl_divergence", "NaN replaced after the product",
        f"{SELECTED}\n    divergence = {DIVERGENCE}",
        "logprobs - ref_logprobs\n    divergence = (logprobs.exp() *"
        " log_ratio).nan_to_num(posinf=0.0).sum(-1)",
        thread="huggingface/trl#7252", values_equal=True,
    ),
    _edit(
        "kl_divergence", "a gradient in bfloat16",
        LOGPROBS,
        "(logits.detach() + (logits.bfloat16() -"
        " logits.detach().bfloat16()).nan_to_num()).log_softmax(-1), ref",
        values_equal=True,
    ),

    _edit("adaptive_kl_coef", "directions exchanged", "return coef / 2", "return coef * 2"),
    _edit("adaptive_kl_coef", "never lowered", "return coef / 2", "return coef"),
    _edit("adaptive_kl_coef", "never raised", "return coef * 2", "return coef"),
    _edit("adaptive_kl_coef", "a wider band below", "target / 1.5", "target / 2"),
    _edit("adaptive_kl_coef", "a wider band above", "target * 1.5", "target * 2"),
    _edit("adaptive_kl_coef", "no band above", "kl > target * 1.5", "kl > target"),
    _edit("adaptive_kl_coef", "no band below", "kl < target / 1.5", "kl < target"),
    _edit("adaptive_kl_coef", "lowered on the lower bound", "kl < ", "kl <= "),
    _edit("adaptive_kl_coef", "raised on the upper bound", "kl > ", "kl >= "),
    _edit(
        "adaptive_kl_coef", "the distance from the target",
        "kl < target / 1.5", "abs(kl) < target / 1.5",
    ),
    _edit(
        "adaptive_kl_coef", "a coefficient of at least 0.1",
        "return coef / 2", "return max(coef / 2, 0.1)",
    ),
    _edit(
        "adaptive_kl_coef", "a coefficient of at most 1",
        "return coef * 2", "return min(coef * 2, 1.0)",
    ),
    _edit(
        "adaptive_kl_coef", "a coefficient of 0 revived",
        "return coef * 2", "return coef * 2 or 1e-4",
    ),
    _edit(
        "adaptive_kl_coef", "the coefficient of the call before",
        "    return coef\n", "    return vars(adaptive_kl_coef).setdefault('coef', coef)\n",
        clause="",
    ),
    _edit(
        "adaptive_kl_coef", "rounded to a whole number",
        "return coef * 2", "return round(coef * 2, 0)",
    ),

    _edit("proportional_kl_coef", "the error not clipped", ERROR, "kl / target - 1"),
    _edit(
        "proportional_kl_coef", "the error clipped from above alone",
        ERROR, "min(kl / target - 1, 0.2)",
    ),
    _edit(
        "proportional_kl_coef", "the error clipped from below alone",
        ERROR, "max(kl / target - 1, -0.2)",
    ),
    _edit("proportional_kl_coef", "never lowered", "-0.2", "0.0"),
    _edit(
        "proportional_kl_coef", "the error clipped at 0.5",
        ERROR, "min(max(kl / target - 1, -0.5), 0.5)",
    ),
    _edit("proportional_kl_coef", "the wrong sign", "1 + error", "1 - error"),
    _edit("proportional_kl_coef", "the error absolute", "kl / target - 1", "kl - target"),
    _edit(
        "proportional_kl_coef", "target and divergence exchanged",
        "kl / target - 1", "target / max(kl, 1e-9) - 1",
    ),
    _edit(
        "proportional_kl_coef", "the error of the other",
        "kl / target - 1", "1 - target / max(kl, 1e-9)",
    ),
    _edit(
        "proportional_kl_coef", "n_steps ignored",
        "error * n_steps / horizon", "error / horizon",
    ),
    _edit(
        "proportional_kl_coef", "horizon ignored",
        "error * n_steps / horizon", "error * n_steps",
    ),
    _edit(
        "proportional_kl_coef", "n_steps over horizon turned over",
        "n_steps / horizon", "horizon / n_steps",
    ),
    _edit("proportional_kl_coef", "whole horizons", "n_steps / horizon", "(n_steps // horizon)"),
    _edit(
        "proportional_kl_coef", "no more than one horizon",
        "n_steps / horizon", "min(n_steps / horizon, 1.0)",
    ),
    _edit(
        "proportional_kl_coef", "the clip after the product",
        NEXT, "coef * (1 + min(max((kl / target - 1) * n_steps / horizon, -0.2), 0.2))",
    ),
    _edit(
        "proportional_kl_coef", "in the exponent",
        NEXT, "coef * 2.718281828459045 ** (error * n_steps / horizon)",
    ),
    _edit("proportional_kl_coef", "never below 0", NEXT, f"max({NEXT}, 0.0)"),
    _edit("proportional_kl_coef", "the distance from 0", "kl / target", "abs(kl) / target"),
    _edit("proportional_kl_coef", "a coefficient of 0 revived", NEXT, f"{NEXT} or 1e-4"),
    _edit(
        "proportional_kl_coef", "in float32",
        NEXT, f"torch.tensor({NEXT}).item()",
        dtype="float64",
    ),
    _edit(
        "proportional_kl_coef", "the coefficient of the first call",
        NEXT, NEXT.replace("coef", "vars(proportional_kl_coef).setdefault('coef', coef)"),
        clause="",
    ),
)  # fmt: skip
