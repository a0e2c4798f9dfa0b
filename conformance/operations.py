"""The operations of the protocol: names, positions and meanings are fixed.

B is the batch, T the response length, V the vocabulary, N samples or pairs, D parameters. Every array
argument of kind "real" that has the mask's shape may hold anything at masked positions, and outputs there
are unspecified.
"""

from conformance.protocol import REQUIRED, Argument, Operation
from reference import gae

BT, B, N, D = ("B", "T"), ("B",), ("N",), ("D",)
SCALAR: tuple[str, ...] = ()

MASK = Argument("mask", BT, "mask")
BOOTSTRAP = Argument("bootstrap_value", B)
ROWS = (Argument("rewards", BT), Argument("values", BT), MASK, BOOTSTRAP)
LOGPROBS = Argument("logprobs", BT, domain="logprob")
OLD_LOGPROBS = Argument("old_logprobs", BT, domain="logprob", beside="logprobs")
REF_LOGPROBS = Argument("ref_logprobs", BT, domain="logprob", beside="logprobs")
ADVANTAGES = Argument("advantages", BT)
LOGITS = Argument("logits", ("B", "T", "V"), domain="logit")
SCORES, GROUP_IDS = Argument("scores", B), Argument("group_ids", B, "ids")
LOG_WEIGHTS = Argument("log_weights", N, domain="log-weight")
MATRIX, VECTOR = Argument("matrix", ("D", "D"), "matrix"), Argument("b", D)

GAE_OPTIONS = {"gamma": REQUIRED, "lam": REQUIRED, "masked": "skip"}
AGGREGATION = {"aggregation": "token-mean", "horizon": None, "empty_rows": "count"}
CLIP = {"clip_low": REQUIRED, "clip_high": REQUIRED}

GAE = (
    Operation("td_errors", ROWS, {"gamma": REQUIRED}, gae.td_errors),
    Operation(
        "n_step_advantages",
        ROWS,
        {"gamma": REQUIRED, "n": REQUIRED},
        gae.n_step_advantages,
        forms=(gae.telescoped_advantages,),
    ),
    Operation("gae", ROWS, GAE_OPTIONS, gae.gae, constant=True),
    Operation("lambda_returns", ROWS, GAE_OPTIONS, gae.lambda_returns, constant=True),
    Operation(
        "discounted_returns",
        (Argument("rewards", BT), MASK, BOOTSTRAP),
        {"gamma": REQUIRED},
        gae.discounted_returns,
    ),
    Operation(
        "whiten",
        (Argument("x", BT), MASK),
        {"shift_mean": True, "ddof": 1, "eps": 1e-8},
        gae.whiten,
    ),
)

CHAPTERS = {
    "gae": GAE,
}
"""The operations by chapter."""

OPERATIONS = {operation.name: operation for chapter in CHAPTERS.values() for operation in chapter}
"""The operations by name."""
