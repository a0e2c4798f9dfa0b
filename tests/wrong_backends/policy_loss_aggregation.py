"""Wrong backends of `aggregate`."""

from functools import partial

from tests.wrong_backends.edits import Edit

AGGREGATE = partial(Edit, "aggregate", base="torch_policy_loss", clause="ppo.aggregation")

RETURN = "return _aggregate(x, mask, mode, horizon, empty_rows)"
HALVES = (
    "half = (len(x) + 1) // 2; parts = (slice(half), slice(half, None))[: len(x)]"
    "; means = [_aggregate(x[s], mask[s], mode, horizon, empty_rows) for s in parts]"
)
CHOSEN = "chosen = torch.where(mask, x, 0)"
TOKENS = "tokens = mask.sum(dim=1)"
TOKEN_MEAN = "return chosen.sum() / tokens.sum().clamp(min=1)"
HORIZON = "(mask.shape[1] if horizon is None else horizon)"
COUNTED = 'len(mask) if empty_rows == "count" else max(int((tokens > 0).sum()), 1)'
UPSTREAM = "result.requires_grad and result.register_hook(torch.ones_like); return result"

EDITS: tuple[Edit, ...] = (
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
    AGGREGATE(
        "the longest row for the horizon",
        HORIZON, "(int(tokens.max()) if horizon is None else horizon)",
    ),
    AGGREGATE("the horizon in two modes", 'mode == "seq-mean-token-sum-norm"', '"token-sum" in mode'),
    AGGREGATE("empty rows always count", COUNTED, "len(mask)"),
    AGGREGATE("empty rows never count", COUNTED, "max(int((tokens > 0).sum()), 1)"),
    AGGREGATE(
        "the mean of means for the mean over tokens",
        TOKEN_MEAN,
        "return (chosen.sum(dim=1) / tokens.clamp(min=1)).sum() / max(int((tokens > 0).sum()), 1)",
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
        "the mean of the means of micro-batches",
        RETURN, f"{HALVES}; return sum(means) / len(means)",
        thread="huggingface/transformers#34191",
    ),
    AGGREGATE(
        "the sum of the means of micro-batches",
        RETURN, f"{HALVES}; return sum(means)",
        thread="verl-project/verl#6957",
    ),
    AGGREGATE(
        "micro-batches weighted by their rows",
        RETURN, f"{HALVES}; return sum(mean * len(x[s]) for s, mean in zip(parts, means)) / len(x)",
    ),
    AGGREGATE(
        "a fixed number of micro-batches",
        RETURN, f"{HALVES}; return sum(means) / 2",
        thread="volcengine/verl#141",
    ),
    AGGREGATE(
        "the mean of the means of two ranks",
        RETURN,
        "parts = [slice(k, None, 2) for k in range(min(len(x), 2))]"
        "; return sum(_aggregate(x[s], mask[s], mode, horizon, empty_rows) for s in parts) / len(parts)",
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
        CHOSEN,
        "mask = mask[: max(len(x) // 2 * 2, 1)]; x = x[: len(mask)]; chosen = torch.where(mask, x, 0)",
    ),
    AGGREGATE("bfloat16 inside", "chosen.sum(dim=1)\n", "chosen.bfloat16().sum(dim=1).to(x.dtype)\n"),
    AGGREGATE(
        "float32 inside",
        CHOSEN, "chosen = torch.where(mask, x.float().to(x.dtype), 0)",
        dtype="float64",
    ),
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
    AGGREGATE("a block of 1024 positions summed", CHOSEN, "chosen = torch.where(mask, x, 0)[:, :1024]"),
    AGGREGATE("at most 128 rows summed", CHOSEN, "chosen = torch.where(mask, x, 0)[:128]"),
    AGGREGATE(
        "the count in bfloat16",
        "tokens.sum().clamp(min=1)", "tokens.sum().clamp(min=1).bfloat16().long()",
    ),
    AGGREGATE(
        "strides ignored",
        CHOSEN, "x = x.as_strided(x.shape, (x.shape[1], 1)); chosen = torch.where(mask, x, 0)",
        clause="contract.pure",
    ),
    AGGREGATE(
        "a smaller number beside the count, in float64",
        "tokens.sum().clamp(min=1)", "(tokens.sum().double() + 1e-8)",
        dtype="float64",
    ),
    AGGREGATE(
        "rows and columns swapped where B = T",
        "rows / tokens.clamp(min=1)",
        "(chosen / tokens.clamp(min=1)).sum(dim=1)"
        " if mask.shape[0] == mask.shape[1] else rows / tokens.clamp(min=1)",
        thread="OpenRLHF/OpenRLHF#1250", clause="",
    ),
    AGGREGATE(
        "rows and columns of the mask swapped where B = T",
        CHOSEN,
        "mask = mask.mT if mask.shape[0] == mask.shape[1] else mask; chosen = torch.where(mask, x, 0)",
        clause="",
    ),
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
        "the sums of gradients of micro-batches",
        RETURN,
        f"{HALVES}; slope = sum(means); {RETURN.replace('return', 'result =')}"
        "; return slope + (result - slope).detach()",
        thread="NVIDIA-NeMo/RL#86", values_equal=True,
    ),
    AGGREGATE(
        "no gradient where nothing but one token is active",
        TOKEN_MEAN, f"{TOKEN_MEAN} if mask.sum() > 1 else chosen.sum().detach()",
        values_equal=True,
    ),
    AGGREGATE(
        "the gradient of at most 128 rows",
        CHOSEN, "chosen = torch.where(mask, torch.cat([x[:128], x[128:].detach()]), 0)",
        values_equal=True,
    ),
    AGGREGATE(
        "a gradient for masked numbers",
        TOKEN_MEAN, f"leak = (x - x.detach()).nan_to_num().sum() / mask.numel(); {TOKEN_MEAN} + leak",
        values_equal=True,
    ),
)  # fmt: skip
