"""Derivations of the chapter `ppo` about aggregation: weights, agreement of the modes, shards of a batch."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import sympy

from reference import policy_loss as reference
from reference.numbers import symbols
from spec.proofs import Numbers, agree, derivation
from spec.zones import gradient

UP, HORIZON = sympy.symbols("g L", positive=True)
SHAPE = (2, 3)
Options = dict[str, Any]


def every_way() -> Iterator[Options]:
    """Every way to aggregate."""
    for mode, empty in itertools.product(reference.MODES, reference.EMPTY_ROWS):
        yield {"mode": mode, "empty_rows": empty, "horizon": HORIZON}


def every_mask(shape: tuple[int, int]) -> Iterator[Any]:
    """Every mask of a shape."""
    for mask in itertools.product((False, True), repeat=shape[0] * shape[1]):
        yield np.array(mask).reshape(shape)


def weight(mask: Any, row: int, options: Options) -> Any:
    """A token's weight in closed form, from the counts alone."""
    lengths = mask.sum(axis=1)
    rows = len(mask) if options["empty_rows"] == "count" else np.count_nonzero(lengths)
    inner = {
        "token-mean": rows / sympy.Integer(lengths.sum()),
        "seq-mean-token-sum": 1,
        "seq-mean-token-mean": 1 / sympy.Integer(lengths[row]),
        "seq-mean-token-sum-norm": 1 / HORIZON,
    }
    return sympy.Rational(1, int(rows)) * inner[options["mode"]]


@derivation("ppo.aggregation", status="verified for T <= 3")
def weights_of_the_tokens() -> None:
    """Every mask of two rows: the sum of active tokens with their weights, which are the code's gradient."""
    x = symbols.array("x", SHAPE)
    for mask, options in itertools.product(every_mask(SHAPE), every_way()):
        weights = np.full(SHAPE, sympy.Integer(0))
        for row, t in zip(*np.nonzero(mask), strict=True):
            weights[row, t] = weight(mask, row, options)
        agree(reference.aggregate(x, mask, **options), (weights * x).sum())
        agree(reference.aggregate_gradient(UP, x, mask, **options), UP * weights)


@derivation("ppo.aggregation", status="verified for T <= 3")
def means_of_rows() -> None:
    """Every mask of two rows: the rows' own means, each with the row's share of the tokens as its weight."""
    x = symbols.array("x", SHAPE)
    for mask in filter(np.any, every_mask(SHAPE)):
        lengths = [sympy.Integer(n) for n in mask.sum(axis=1)]
        means = [reference.aggregate(x[k : k + 1], mask[k : k + 1]) for k in range(len(mask))]
        agree(np.dot(lengths, means) / sum(lengths), reference.aggregate(x, mask))


@derivation("ppo.aggregation-agreement", status="verified for T <= 3")
def modes_agree_on_equal_lengths() -> Numbers:
    """Rows of one length N: both means agree, the sum is N times them, and over the horizon N/L times."""
    for length in range(1, SHAPE[1] + 1):
        x = symbols.array("x", SHAPE)
        mask = np.arange(SHAPE[1]) < np.full((SHAPE[0], 1), length)
        mean, total, of_means, over_horizon = (
            reference.aggregate(x, mask, mode=mode, horizon=HORIZON) for mode in reference.MODES
        )
        agree([of_means, total, over_horizon], [mean, length * mean, length * mean / HORIZON])
    rows, mask = np.array([[1.0, 0.0, 0.0], [-1.0, -1.0, -1.0]]), np.array([[True, False, False], [True] * 3])
    found = {mode: reference.aggregate(rows, mask, mode=mode, horizon=3) for mode in reference.MODES}
    assert found["seq-mean-token-sum"] < found["token-mean"] < found["seq-mean-token-sum-norm"]
    return {"longer row": 3} | found


@derivation("ppo.aggregation-empty-rows", status="witnessed")
def empty_rows_scale_the_mean() -> Numbers:
    """One of four rows has active tokens: what counting the others does to the mean over rows."""
    x, mask = np.full((4, 2), 3.0), np.zeros((4, 2), dtype=bool)
    mask[0] = True
    found: Numbers = {"rows": 4, "each token": 3}
    for empty in reference.EMPTY_ROWS:
        found[empty] = reference.aggregate(x, mask, mode="seq-mean-token-mean", empty_rows=empty)
    assert found["drop"] == 3 == 4 * found["count"]
    return found


@derivation("ppo.aggregation-horizon", status="witnessed")
def default_horizon_sees_padding() -> Numbers:
    """The same two tokens in a batch of width 2 and of width 8: only the default horizon tells them apart."""
    found: Numbers = {"wide": 8, "a given horizon": 8}
    for width in (2, 8):
        x, mask = np.full((1, width), 4.0), np.arange(width)[None] < 2
        for horizon in (None, 8):
            result = reference.aggregate(x, mask, mode="seq-mean-token-sum-norm", horizon=horizon)
            found[f"width {width}, horizon {horizon}"] = result
    assert found["width 2, horizon 8"] == found["width 8, horizon 8"] == found["width 2, horizon None"] / 4
    assert found["width 8, horizon None"] == 1
    return found | {"each token": 4}


@derivation("ppo.partition", status="verified for B <= 3")
def shards_sum_to_the_batch() -> Numbers:
    """Three rows in any shards, every mask, value and gradient; in token-mean also a cut through rows."""
    x = symbols.array("x", (3, 2))
    for mask, options in itertools.product(every_mask((3, 2)), every_way()):
        whole = reference.aggregate(x, mask, **options)
        slopes = reference.aggregate_gradient(UP, x, mask, **options)
        for shards in ([0], [1, 2]), ([0, 1], [2]), ([0, 2], [1]), ([0], [1], [2]):
            parts = [_shard(x[rows], mask[rows], mask, options) for rows in shards]
            agree(sum(parts), whole)
            agree(gradient(UP * sum(parts), x), slopes)
        if options["mode"] == "token-mean":
            agree(sum(_shard(x[:, [t]], mask[:, [t]], mask, options) for t in range(2)), whole)
    return _mean_of_means()


def _shard(x: Any, mask: Any, whole: Any, options: Options) -> Any:
    """The sum that one shard contributes, with the denominators of the whole batch."""
    rows = len(whole) if options["empty_rows"] == "count" else int(whole.any(axis=1).sum())
    divisors = reference.shard_divisors(
        mask, mode=options["mode"], tokens=int(whole.sum()), rows=rows, horizon=options["horizon"]
    )
    return (np.where(mask, x, sympy.Integer(0)) / divisors).sum()


def _mean_of_means() -> Numbers:
    """Shards of one and of three tokens: the mean of their means, and the mean of the batch."""
    x, mask = np.array([[4.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), np.array([[True, False, False], [True] * 3])
    means = [reference.aggregate(x[[row]], mask[[row]]) for row in range(2)]
    return {"x": 4, "tokens": 3, "mean of means": np.mean(means), "batch": reference.aggregate(x, mask)}
