"""Conventions of returns, advantages and whitening."""

from functools import partial
from typing import Any

import numpy as np

from conformance.conventions.family import Convention, Family, Observation, values
from conformance.conventions.inputs import EMPTY_ROW, FULL, HOLES, PADDED, dense
from reference import gae, numbers, rows

MASKED = {"masked positions skipped": "skip", "masked positions as steps of reward and value 0": "zero"}
"""What holes are to a recursion."""
IGNORED = {"the mask ignored": "ignore"}
BOOTSTRAP = Convention(
    "bootstrap",
    {
        "bootstrapping from the value given": "given",
        "bootstrapping from 0": "zero",
        "bootstrapping from the row's last value": "last",
    },
    "gae.row-end",
)
GAMMA = Convention("gamma", values(1.0, 0.99), "gae.td-error")


def steps_of(masked: str, mask: Any, *arrays: Any) -> tuple[Any, ...]:
    """Which positions are time steps, and the arrays with what they hold there."""
    if masked == "skip":
        return (mask, *arrays)
    if masked == "ignore":
        return (np.ones_like(mask), *arrays)
    return (
        rows.through_last_active(mask),
        *(numbers.where(mask, x, numbers.zeros(x.shape, x)) for x in arrays),
    )


def _end(bootstrap: str, values: Any, given: Any) -> Any:
    """The value of the state after a row."""
    return {"given": given, "zero": 0 * given, "last": values[:, -1]}[bootstrap]


def _estimate(
    function: Any,
    rewards: Any,
    values: Any,
    mask: Any,
    bootstrap_value: Any,
    *,
    masked: str = "skip",
    bootstrap: str = "given",
    **options: Any,
) -> Any:
    """An estimator of the reference over the time steps that there are."""
    steps, rewards, values = steps_of(masked, mask, rewards, values)
    end = _end(bootstrap, values, bootstrap_value)
    return numbers.where(mask, *_or_zero(function(rewards, values, steps, end, **options)))


def _advantages(
    rewards: Any, values: Any, mask: Any, bootstrap_value: Any, *, gives: str = "advantages", **options: Any
) -> Any:
    """Generalised advantages, or what is made of them."""
    advantages = _estimate(gae.gae, rewards, values, mask, bootstrap_value, **options)
    if gives == "returns":
        return numbers.where(mask, *_or_zero(advantages + values))
    return advantages if gives == "advantages" else gae.whiten(advantages, mask, ddof=int(gives[-1]))


def _returns(*arguments: Any, gives: str = "returns", **options: Any) -> Any:
    return _advantages(*arguments, gives=gives, **options)


def _discounted(
    rewards: Any,
    mask: Any,
    bootstrap_value: Any,
    *,
    gamma: Any,
    masked: str = "skip",
    bootstrap: str = "given",
) -> Any:
    """Discounted returns; "reset" forgets the running return wherever the mask is False."""
    end = _end(bootstrap, rewards, bootstrap_value)
    if masked != "reset":
        steps, rewards = steps_of(masked, mask, rewards)
        return numbers.where(mask, *_or_zero(gae.discounted_returns(rewards, steps, end, gamma=gamma)))
    following, returns = end, numbers.zeros(rewards.shape, like=rewards)
    for t in reversed(range(rewards.shape[1])):
        following = numbers.where(mask[:, t], *_or_zero(rewards[:, t] + gamma * following))
        returns[:, t] = following
    return returns


def _whiten(
    x: Any,
    mask: Any,
    *,
    shift_mean: Any = True,
    ddof: int = 1,
    eps: Any = 1e-8,
    place: str = "inside",
    scope: str = "batch",
    few: str = "zero",
    inverted: bool = False,
) -> Any:
    """Whitening with ε at another place, of each row by itself, or with another answer to few numbers."""
    options = {"ddof": ddof, "eps": eps, "place": place, "few": few}
    shift_mean = shift_mean != inverted
    if scope == "row":
        pairs = zip(x, mask, strict=True)
        return np.concatenate([_whiten(r[None], m[None], shift_mean=shift_mean, **options) for r, m in pairs])
    count = int(mask.sum())
    if count <= ddof:
        return numbers.full(x.shape, 0.0 if few == "zero" else np.nan, like=x)
    if place == "inside":
        return gae.whiten(x, mask, shift_mean=shift_mean, ddof=ddof, eps=eps)
    nothing = numbers.zeros(x.shape, like=x)
    mean = _whitened_mean(x, mask)
    centred = numbers.where(mask, x - mean, nothing)
    variance = numbers.total(numbers.square(centred)) / (count - ddof)
    whitened = centred / divisor(variance, eps, place)
    return whitened if shift_mean else numbers.where(mask, whitened + mean, nothing)


def divisor(variance: Any, eps: Any, place: str) -> Any:
    """What divides a deviation from the mean, by where ε stands."""
    deviation = numbers.sqrt(variance)
    match place:
        case "inside":
            return numbers.sqrt(variance + eps)
        case "outside":
            return deviation + eps
        case "floor of the variance":
            return numbers.sqrt(numbers.maximum(variance, eps))
    return numbers.maximum(deviation, eps)


def _whitened_mean(x: Any, mask: Any) -> Any:
    return numbers.total(numbers.where(mask, *_or_zero(x))) / max(int(mask.sum()), 1)


def _or_zero(x: Any) -> tuple[Any, Any]:
    return x, numbers.zeros(x.shape, like=x)


def _rows(mask: Any, bootstrap: float = 0.0, seed: int = 0) -> dict[str, Any]:
    return {
        "rewards": dense(seed, 3, 5),
        "values": dense(seed + 1, 3, 5),
        "mask": mask,
        "bootstrap_value": bootstrap * dense(seed + 2, 3),
    }


def _returning(mask: Any, bootstrap: float = 0.0) -> dict[str, Any]:
    return {name: x for name, x in _rows(mask, bootstrap).items() if name != "values"}


ROWS = (
    Observation("plain rows", _rows(FULL), vary=None, main=True),
    Observation("padded rows", _rows(PADDED), main=True),
    Observation("rows that go on", _rows(FULL, bootstrap=1.0)),
    Observation("padded rows that go on", _rows(PADDED, bootstrap=1.0)),
    Observation("rows with holes", _rows(HOLES), vary=("masked",)),
    Observation("a row without tokens", _rows(EMPTY_ROW)),
)

ESTIMATOR = (Convention("masked", MASKED | IGNORED, "gae.mask"), BOOTSTRAP, GAMMA)
RECURSION = (
    Convention("masked", values("skip", "zero", "ignore"), "gae.mask"),
    BOOTSTRAP,
    GAMMA,
    Convention("lam", values(1.0, 0.95), "gae.definition"),
)
WHITENED = {"whitened advantages, ddof 1": "whitened 1", "whitened advantages, ddof 0": "whitened 0"}


def _scaled(scale: float) -> dict[str, Any]:
    return {"x": dense(3, 3, 5, scale=scale, offset=scale / 2), "mask": PADDED}


WHITEN = Family(
    "whiten",
    (
        Convention("ddof", values(0, 1), "gae.whitening"),
        Convention("eps", values(1e-8, 1e-5, 1e-6, 1e-4, 1e-12, 0.0), "gae.whitening"),
        Convention(
            "place",
            {
                "ε added to the variance, inside the root": "inside",
                "ε added to the deviation, outside the root": "outside",
                "the variance at least ε": "floor of the variance",
            },
            "gae.whitening",
            unless={"eps": (0.0,)},
        ),
        Convention(
            "shift_mean",
            values(True, False),
            "gae.whitening",
        ),
        Convention(
            "inverted",
            {"shift_mean=False adds the mean back": False, "shift_mean=True adds the mean back": True},
            "gae.whitening",
            unless={"shift_mean": (True, False)},
        ),
        Convention(
            "scope",
            {"statistics of the whole batch": "batch", "statistics of each row": "row"},
            "gae.whitening",
        ),
        Convention(
            "few",
            {"0 where numbers are too few": "zero", "NaN where numbers are too few": "nan"},
            "gae.whitening",
        ),
    ),
    _whiten,
    (
        Observation(
            "numbers around 1",
            _scaled(1.0),
            vary=("ddof", "shift_mean", "eps"),
            main=True,
            sees=("ddof", "eps", "place", "shift_mean", "inverted", "scope"),
        ),
        Observation("numbers around 1e-2", _scaled(1e-2), main=True),
        Observation("numbers around 1e-4", _scaled(1e-4), vary=("eps",), main=True),
        Observation("numbers around 1e-7", _scaled(1e-7), main=True),
        Observation(
            "one number",
            {"x": dense(3, 1, 4), "mask": np.array([[True, False, False, False]])},
            vary=("ddof",),
        ),
        Observation(
            "two numbers",
            {"x": dense(3, 1, 4), "mask": np.array([[True, False, True, False]])},
            vary=("ddof",),
        ),
    ),
)

FAMILIES = (
    Family("td_errors", ESTIMATOR, partial(_estimate, gae.td_errors), ROWS),
    Family("n_step_advantages", ESTIMATOR, partial(_estimate, gae.n_step_advantages), ROWS),
    Family(
        "gae",
        (
            *RECURSION,
            Convention(
                "gives",
                {"raw advantages": "advantages", "λ-returns": "returns", **WHITENED},
                "gae.whitening",
            ),
        ),
        _advantages,
        ROWS,
    ),
    Family(
        "lambda_returns",
        (
            *RECURSION,
            Convention(
                "gives",
                {"advantages plus values": "returns", "advantages": "advantages"},
                "gae.lambda-return",
            ),
        ),
        _returns,
        ROWS,
    ),
    Family(
        "discounted_returns",
        (
            Convention(
                "masked", {**MASKED, **IGNORED, "reset to 0 at masked positions": "reset"}, "gae.mask"
            ),
            Convention("bootstrap", dict(list(BOOTSTRAP.choices.items())[:2]), "gae.row-end"),
            GAMMA,
        ),
        _discounted,
        (
            Observation("plain rows", _returning(FULL), vary=None, main=True),
            Observation("padded rows", _returning(PADDED), main=True),
            Observation("rows that go on", _returning(FULL, bootstrap=1.0)),
            Observation("padded rows that go on", _returning(PADDED, bootstrap=1.0)),
            Observation("rows with holes", _returning(HOLES)),
        ),
    ),
    WHITEN,
)
