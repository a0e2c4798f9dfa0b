"""Wrong backends of `token_logprobs` and `token_entropy`."""

from functools import partial

from tests.wrong_backends.edits import Edit

LOGPROBS = partial(Edit, "token_logprobs", base="torch_policy_loss", clause="ppo.token-logprobs")
ENTROPY = partial(Edit, "token_entropy", base="torch_policy_loss", clause="ppo.entropy")

SCALED = "scaled = logits / temperature"
SHIFT = "scaled.amax(dim=-1, keepdim=True).detach()"
LOG_SUM = "shifted.exp().sum(dim=-1).log()"
RESULT = f"chosen - {LOG_SUM}"
LOGS = "torch.where(p > 0, shifted - total.log(), 0)"
ENTROPY_RESULT = "return -(p * logs).sum(dim=-1)"
UPSTREAM = "result.requires_grad and result.register_hook(torch.ones_like); return result"

EDITS: tuple[Edit, ...] = (
    LOGPROBS("temperature ignored", "logits / temperature", "logits", thread="huggingface/trl#3029"),
    LOGPROBS(
        "temperature ignored where the vocabulary is large",
        "/ temperature", "/ (temperature if logits.shape[-1] < 5 else 1)",
        thread="volcengine/verl#3133",
    ),
    LOGPROBS(
        "temperature forgotten in one of two places",
        LOG_SUM, "(shifted * temperature).exp().sum(dim=-1).log()",
        thread="NVIDIA-NeMo/RL#1900",
    ),
    LOGPROBS(
        "temperature in the place of another argument",
        "logits / temperature", "logits + temperature",
        thread="THUDM/slime#557",
    ),
    LOGPROBS(
        "log-probabilities before the temperature, where it sharpens",
        "/ temperature", "/ max(temperature, 1.0)",
        thread="huggingface/trl#4159",
    ),
    LOGPROBS("temperature multiplied", "logits / temperature", "logits * temperature"),
    LOGPROBS(
        "temperature behind the log-softmax",
        f"return {RESULT}",
        "return (logits.log_softmax(dim=-1) / temperature).gather(-1, tokens[..., None])[..., 0]",
        thread="PrimeIntellect-ai/prime-rl#697",
    ),
    LOGPROBS("not shifted", f"scaled - {SHIFT}", "scaled"),
    LOGPROBS("shifted by the first logit", SHIFT, "scaled[..., :1].detach()"),
    LOGPROBS("shifted by the largest logit of the batch", SHIFT, "scaled.amax().detach()"),
    LOGPROBS("the logarithm of a softmax", RESULT, "(chosen.exp() / shifted.exp().sum(dim=-1)).log()"),
    LOGPROBS("a softmax is never 0", RESULT, "(chosen.exp() / shifted.exp().sum(dim=-1) + 1e-10).log()"),
    LOGPROBS("a small number in the logarithm", LOG_SUM, "(shifted.exp().sum(dim=-1) + 1e-5).log()"),
    LOGPROBS(
        "a smaller number in the logarithm, in float64",
        LOG_SUM, "(shifted.exp().sum(dim=-1) + 1e-12).log()",
        dtype="float64",
    ),
    LOGPROBS("the lowest number for a logit of -∞", "chosen - ", "chosen.nan_to_num() - "),
    LOGPROBS("log-ratios above -1e4 only", RESULT, f"({RESULT}).clamp(min=-1e4)"),
    LOGPROBS(
        "the first entry, not the sampled token's",
        "tokens[..., None]", "torch.zeros_like(tokens)[..., None]",
        thread="NVIDIA-NeMo/RL#3297",
    ),
    LOGPROBS(
        "the token one position on",
        "tokens[..., None]", "tokens.roll(-1, dims=1)[..., None]",
        thread="PrimeIntellect-ai/prime-rl#1525",
    ),
    LOGPROBS(
        "the last token of the vocabulary out of reach",
        "tokens[..., None]", "tokens.clamp(max=max(logits.shape[-1] - 2, 0))[..., None]",
    ),
    LOGPROBS(
        "the tokens of the first chunk for every chunk of rows",
        "tokens[..., None]", "tokens[torch.arange(len(tokens)) % 4][..., None]",
        thread="linkedin/Liger-Kernel#330",
    ),
    LOGPROBS(
        "the tokens of the first 32 positions for every block",
        "tokens[..., None]", "tokens[:, torch.arange(tokens.shape[1]) % 32][..., None]",
        clause="contract.shapes",
    ),
    LOGPROBS(
        "rows and positions swapped where B = T",
        "tokens[..., None]", "(tokens.mT if tokens.shape[0] == tokens.shape[1] else tokens)[..., None]",
        clause="",
    ),
    LOGPROBS(
        "the vocabulary filled up with zeros",
        SCALED, "scaled = torch.nn.functional.pad(logits / temperature, (0, -logits.shape[-1] % 4))",
        thread="verl-project/verl#5349",
    ),
    LOGPROBS(
        "the vocabulary cut to whole blocks",
        LOG_SUM, "shifted[..., : max(shifted.shape[-1] // 2 * 2, 1)].exp().sum(dim=-1).log()",
    ),
    LOGPROBS(
        "a cap on the logits that multiplies them",
        "logits / temperature", "logits * torch.tanh(logits / 30) / temperature",
        thread="unslothai/unsloth-zoo commit b66f5dca",
    ),
    LOGPROBS(
        "bfloat16 inside",
        "logits / temperature", "(logits.bfloat16() / temperature).to(logits.dtype)",
        thread="OpenRLHF/OpenRLHF#634",
    ),
    LOGPROBS(
        "float32 inside",
        "logits / temperature", "(logits.float() / temperature).to(logits.dtype)",
        dtype="float64",
    ),
    LOGPROBS(
        "dropout is on",
        "logits / temperature", "torch.nn.functional.dropout(logits, 0.1) / temperature",
        thread="volcengine/verl#4708",
    ),
    LOGPROBS(
        "another call rounds otherwise",
        SCALED,
        "noise = torch.finfo(logits.dtype).eps * torch.randint(2, logits.shape)"
        "; scaled = logits / temperature * (1 + noise.to(logits.dtype))",
        thread="volcengine/verl#3119", clause="contract.pure",
    ),
    LOGPROBS(
        "remembered by the tokens",
        f"return {RESULT}", f"return vars(token_logprobs).setdefault(str((tokens, temperature)), {RESULT})",
        clause="",
    ),
    LOGPROBS("scaled in place", "logits / temperature", "logits.div_(temperature)"),
    LOGPROBS(
        "the vocabulary beyond a block left out",
        LOG_SUM, "shifted[..., :1024].exp().sum(dim=-1).log()",
    ),
    LOGPROBS(
        "rows beyond a grid left at 0",
        f"return {RESULT}", f"return torch.where(torch.arange(len(tokens))[:, None] < 128, {RESULT}, 0)",
    ),
    LOGPROBS("tokens in 8 bits", "tokens[..., None]", "tokens.to(torch.uint8).long()[..., None]"),
    LOGPROBS(
        "strides ignored",
        "logits / temperature",
        "logits.as_strided(logits.shape, (logits[0].numel(), logits.shape[2], 1)) / temperature",
        clause="contract.pure",
    ),
    LOGPROBS("no gradient through the normaliser", LOG_SUM, f"{LOG_SUM}.detach()", values_equal=True),
    LOGPROBS(
        "the temperature is not in the gradient",
        "logits / temperature", "logits + (logits / temperature - logits).detach()",
        values_equal=True,
    ),
    LOGPROBS(
        "the shift differentiated in one of two places",
        "chosen = shifted", "chosen = (scaled - scaled.amax(dim=-1, keepdim=True))",
        values_equal=True,
    ),
    LOGPROBS(
        "the softmax of the gradient rounded to bfloat16",
        f"return {RESULT}",
        "rough = shifted.bfloat16().exp().sum(dim=-1).log()"
        f"; return chosen - {LOG_SUM}.detach() - (rough - rough.detach())",
        thread="linkedin/Liger-Kernel#1268", values_equal=True,
    ),
    LOGPROBS(
        "the gradient doubled",
        f"return {RESULT}", f"result = {RESULT}; return 2 * result - result.detach()",
        thread="unslothai/unsloth-zoo#892", values_equal=True,
    ),
    LOGPROBS(
        "the gradient of the first four rows only",
        "logits / temperature", "torch.cat([logits[:4], logits[4:].detach()]) / temperature",
        values_equal=True,
    ),
    LOGPROBS(
        "the upstream gradient taken for 1",
        f"return {RESULT}", f"result = {RESULT}; {UPSTREAM}",
        values_equal=True,
    ),
    LOGPROBS(
        "the gradient clipped",
        f"return {RESULT}",
        f"result = {RESULT}; result.requires_grad and result.register_hook(lambda g: g.clamp(-1, 1))"
        "; return result",
        values_equal=True,
    ),
    LOGPROBS(
        "no gradient for the vocabulary beyond a block",
        "logits / temperature",
        "torch.cat([logits[..., :1024], logits[..., 1024:].detach()], dim=-1) / temperature",
        values_equal=True,
    ),

    ENTROPY("temperature ignored", "logits / temperature", "logits"),
    ENTROPY("temperature forgotten in the logarithms", "shifted - total.log()", "logits.log_softmax(dim=-1)"),
    ENTROPY("temperature multiplies the entropy", "-(p * logs)", "-temperature * (p * logs)"),
    ENTROPY("negated", "-(p * logs)", "(p * logs)", thread="DLR-RM/stable-baselines3#130"),
    ENTROPY("in bits", "total.log()", "total.log2()"),
    ENTROPY("the log-probability of the likeliest token", "(p * logs).sum(dim=-1)", "logs.amax(dim=-1)"),
    ENTROPY(
        "over log V",
        ENTROPY_RESULT, f"{ENTROPY_RESULT} / torch.tensor(1.0 * logits.shape[-1]).log()",
    ),
    ENTROPY(
        "the exponentials of the logarithms of another softmax",
        "p = weights / total", "p = logits.softmax(dim=-1)",
    ),
    ENTROPY("0 times -∞", LOGS, "shifted - total.log()", thread="huggingface/trl#7221"),
    ENTROPY("the lowest number for -∞", "logits / temperature", "logits.clamp(min=-100.0) / temperature"),
    ENTROPY("not shifted", f"scaled - {SHIFT}", "scaled"),
    ENTROPY("a small number in the logarithm", LOGS, "(p + 1e-5).log()"),
    ENTROPY("a smaller number in the logarithm, in float64", LOGS, "(p + 1e-12).log()", dtype="float64"),
    ENTROPY("a least probability, in float64", LOGS, "p.clamp(min=1e-8).log()", dtype="float64"),
    ENTROPY("the four first tokens", "(p * logs).sum", "(p * logs)[..., :4].sum"),
    ENTROPY(
        "a vocabulary filled up with zeros",
        SCALED, "scaled = torch.nn.functional.pad(logits / temperature, (0, -logits.shape[-1] % 4))",
        thread="verl-project/verl#5349",
    ),
    ENTROPY(
        "the mean of the batch in every row",
        ENTROPY_RESULT, "return -(p * logs).sum(dim=-1).mean(dim=0, keepdim=True).expand(logits.shape[:2])",
    ),
    ENTROPY(
        "bfloat16 inside",
        "logits / temperature", "(logits.bfloat16() / temperature).to(logits.dtype)",
        thread="OpenRLHF/OpenRLHF#634",
    ),
    ENTROPY(
        "float32 inside",
        "p = weights / total", "p = (weights / total).float().to(weights.dtype)",
        dtype="float64",
    ),
    ENTROPY("the vocabulary beyond a block left out", "(p * logs).sum", "(p * logs)[..., :1024].sum"),
    ENTROPY(
        "rows beyond a grid left at 0",
        ENTROPY_RESULT,
        "few = torch.arange(len(logits))[:, None] < 64; return -torch.where(few, (p * logs).sum(dim=-1), 0)",
    ),
    ENTROPY(
        "NaN taken out behind the product",
        f"logs = {LOGS}\n    {ENTROPY_RESULT}",
        "return -(p * (shifted - total.log())).nan_to_num().sum(dim=-1)",
        thread="huggingface/trl#7252", clause="ppo.entropy-extremes", values_equal=True,
    ),
    ENTROPY(
        "no gradient through the weights",
        "p = weights / total", "p = (weights / total).detach()",
        values_equal=True,
    ),
    ENTROPY("no gradient", ENTROPY_RESULT, f"{ENTROPY_RESULT}.detach()", values_equal=True),
    ENTROPY(
        "no gradient through the normaliser",
        "keepdim=True)\n    p", "keepdim=True).detach()\n    p",
        values_equal=True,
    ),
    ENTROPY(
        "the temperature is not in the gradient",
        "logits / temperature", "logits + (logits / temperature - logits).detach()",
        values_equal=True,
    ),
    ENTROPY(
        "the gradient doubled",
        ENTROPY_RESULT, "result = -(p * logs).sum(dim=-1); return 2 * result - result.detach()",
        thread="unslothai/unsloth-zoo#892", values_equal=True,
    ),
    ENTROPY(
        "the upstream gradient taken for 1",
        ENTROPY_RESULT, f"result = -(p * logs).sum(dim=-1); {UPSTREAM}",
        values_equal=True,
    ),
    LOGPROBS("ids of 16 bits", "tokens[..., None]", "tokens.short().long()[..., None]"),
    LOGPROBS("a temperature of at least a half", "logits / temperature", "logits / max(temperature, 0.5)"),
    LOGPROBS(
        "the logits overwritten where gradients are asked for",
        SCALED,
        f"{SCALED}; logits.requires_grad and logits.data.copy_(logits.detach().softmax(-1))",
        clause="", values_equal=True,
    ),
)  # fmt: skip
