"""Wrong backends of the chapter `value_loss`."""

from functools import partial

from tests.wrong_backends.edits import Edit

edit = partial(Edit, "value_loss", clause="vf.", base="torch_value_loss")

LARGER = "torch.maximum(squared, (clipped - returns).square())"
SQUARED = "(values - returns).square()"
HALF = "squared / 2"
DETACHED = "old_values, returns = old_values.detach(), returns.detach()"
CLIPPED = "old_values + (values - old_values).clamp(-clip, clip)"
TOKEN_MEAN = "sums.sum() / counts.sum().clamp(min=1)"
MASKED = "torch.where(mask, x, 0)"
START = "values, old_values, returns = (torch"

EDITS = (
    edit(
        "the smaller of two errors",
        LARGER,
        LARGER.replace("maximum", "minimum"),
        thread="vwxyzjn/cleanrl commit d6fd21b4",
    ),
    edit("the half missing", HALF, "squared", thread="vwxyzjn/cleanrl commit d6fd21b4"),
    edit(
        "the larger of signed errors",
        LARGER,
        "torch.maximum(values - returns, clipped - returns).square()",
        thread="implementation-matters/code-for-paper#1",
    ),
    edit(
        "a clamp of the loss",
        LARGER,
        "squared.clamp(max=clip)",
        thread="ray-project/ray#19291",
    ),
    edit("values clipped, not their move", CLIPPED, "values.clamp(-clip, clip)"),
    edit("clipped around the return", CLIPPED, CLIPPED.replace("old_values", "returns")),
    edit(
        "a range relative to the old value",
        CLIPPED,
        "torch.minimum(torch.maximum(values, old_values - clip * old_values.abs())"
        ", old_values + clip * old_values.abs())",
    ),
    edit("a clip of 0 is no clip", "if clip is not None", "if clip"),
    edit(
        "Huber's loss", SQUARED, "torch.nn.functional.smooth_l1_loss(values, returns, reduction='none') * 2"
    ),
    edit("bfloat16 inside", SQUARED, "(values - returns).bfloat16().to(values.dtype).square()"),
    edit("float32 inside", SQUARED, "(values - returns).float().double().square()", dtype="float64"),
    edit(
        "a gradient into the returns",
        DETACHED,
        "old_values = old_values.detach()",
        clause="contract.constants",
        values_equal=True,
    ),
    edit(
        "a gradient into the old values",
        DETACHED,
        "returns = returns.detach()",
        clause="contract.constants",
        values_equal=True,
    ),
    edit(
        "the gradient passes the clip",
        CLIPPED,
        f"({CLIPPED}).detach() + values - values.detach()",
        values_equal=True,
    ),
    edit("a gradient of twice the size", HALF, "squared - squared.detach() / 2", values_equal=True),
    edit(
        "no gradient beyond the range",
        HALF,
        "torch.where((values - old_values).abs() > (clip or torch.inf), squared.detach(), squared) / 2",
        values_equal=True,
    ),
    edit("the mean over all positions", TOKEN_MEAN, "x.mean()", thread="huggingface/trl#6439"),
    edit(
        "each row divided by its own count",
        TOKEN_MEAN,
        "(sums / counts.clamp(min=1)).sum()",
        thread="verl-project/verl#6957",
    ),
    edit(
        "the mean of the means of two shards",
        TOKEN_MEAN,
        "(sums[::2].sum() / counts[::2].sum().clamp(min=1)"
        " + sums[1::2].sum() / counts[1::2].sum().clamp(min=1)) / 2",
        thread="PrimeIntellect-ai/prime-rl#2562",
    ),
    edit(
        "the count at most 1",
        TOKEN_MEAN,
        TOKEN_MEAN.replace("min", "max"),
        thread="PrimeIntellect-ai/prime-rl#816",
    ),
    edit(
        "0 divided by 0",
        TOKEN_MEAN,
        "sums.sum() / counts.sum()",
        thread="volcengine/verl#782",
        clause="",
    ),
    edit(
        "0 divided by 0 in a row",
        "sums / counts.clamp(min=1)",
        "sums / counts",
        thread="THUDM/slime commit 82d3f94a",
        clause="",
    ),
    edit(
        "multiplied by the mask",
        MASKED,
        "x * mask",
        thread="volcengine/verl#2377",
        clause="contract.masked-nonfinite",
    ),
    edit(
        "holes take part",
        START,
        f"mask = mask.int().flip(1).cumsum(1).flip(1) > 0; {START}",
        thread="volcengine/verl#2543",
        clause="",
    ),
    edit("empty rows count", 'if empty_rows == "drop" else', 'if empty_rows == "" else'),
    edit(
        "the horizon is the longest row",
        "mask.shape[1] if horizon is None",
        "counts.max() if horizon is None",
        thread="verl-project/verl#4510",
    ),
    edit(
        "sums divided by the length",
        'if mode == "seq-mean-token-mean"',
        'if mode.startswith("seq-mean-token-")',
        thread="volcengine/verl#931",
    ),
    edit(
        "the mask of the first chunk for all",
        START,
        f"mask = mask[torch.arange(len(mask)) % 4]; {START}",
        thread="linkedin/Liger-Kernel#330",
        clause="",
    ),
    edit(
        "128 tokens of a row", START, f"mask = mask & (torch.arange(mask.shape[1]) < 128); {START}", clause=""
    ),
)
