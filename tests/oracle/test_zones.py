"""Batches by zone hold every zone: off the bounds one gradient is permitted, on them all between two."""

import itertools

import numpy as np
import pytest

from conformance import zones
from conformance.cases import Case, ordinary
from conformance.oracle import Permitted, permitted, permitted_gradients

DTYPES = ("float64", "float32", "bfloat16")

Clip = tuple[float, float, float | None]


def zoned(operation: str, dtype: str, clip: Clip) -> Case:
    """An ordinary call of a policy's loss, with every zone of its clip and no weights."""
    case = ordinary(operation, dtype, {})
    options = {name: x for name, x in named(clip).items() if name in case.options}
    weights = {"rollout_weights": None} if operation == "policy_loss" else {}
    return zones.with_every_ratio(case.with_options(**options).with_arguments(**weights))


def named(clip: Clip) -> dict[str, float | None]:
    """The bounds of a clip as options."""
    return dict(zip(("clip_low", "clip_high", "dual_clip"), clip, strict=True))


def permits(allowed: Permitted, case: Case, row: int, slope: float) -> bool:
    """Whether a token of a row may have this gradient, before the mean over tokens."""
    return allowed.distance((row, 0), slope / case.arguments["mask"].sum()) <= 1.0


def on_a_bound(sign: float, ratio: float, clip: Clip) -> bool:
    """Whether a ratio is at a bound that a token with this sign has."""
    low, high, dual = clip
    bounds = [1 - low, 1 + high, *([dual] if dual is not None and sign < 0 else [])]
    return any(np.isclose(ratio, bound) for bound in bounds)


def free(sign: float, ratio: float, clip: Clip) -> bool:
    """Whether the clip leaves a token its gradient, on either side of its ratio."""
    low, high, dual = clip
    if sign > 0:
        return min(nearby(ratio)) < 1 + high
    return any(near > 1 - low and (dual is None or near < dual) for near in nearby(ratio))


def nearby(ratio: float) -> tuple[float, float]:
    """Ratios on either side, in the same zone if it is on no bound."""
    return 0.99 * ratio, 1.01 * ratio


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clip", zones.CLIPS)
def test_zones_of_a_ratio(dtype: str, clip: Clip) -> None:
    """Off the bounds the gradient is 0 or that of ρA; on them it may be both."""
    case = zoned("policy_loss", dtype, clip)
    allowed = permitted_gradients(case, np.array(1.0))["logprobs"]
    rows = list(itertools.product(zones.SIGNS, zones.ratio_zones(named(clip)).values()))
    rounded = np.exp(case.arguments["logprobs"] - case.arguments["old_logprobs"])[:, 0]
    for row, (sign, log_ratio) in enumerate(rows):
        ratio = np.exp(log_ratio)
        may_be = (permits(allowed, case, row, 0.0), permits(allowed, case, row, -sign * rounded[row]))
        released = free(sign, ratio, clip)
        if sign == 0.0:
            assert may_be == (True, True)
        else:
            assert may_be == (not released or on_a_bound(sign, ratio, clip), released), (sign, ratio)
    assert len(rows) == len(case.arguments["mask"])


@pytest.mark.parametrize("clip", zones.CLIPS)
def test_a_ratio_on_every_bound_and_between_any_two(clip: Clip) -> None:
    found = np.exp(sorted(zones.ratio_zones(named(clip)).values()))
    low, high, dual = clip
    bounds = sorted({1.0, 1 + high} | ({1 - low} if low < 1 else set()) | ({dual} if dual else set()))
    on = [any(np.isclose(ratio, bound) for bound in bounds) for ratio in found]
    assert all(np.isclose(found, bound).any() for bound in bounds)
    for below, above in itertools.pairwise([0.0, *bounds, np.inf]):
        assert any(below < ratio < above and not bound for ratio, bound in zip(found, on, strict=True))
    assert set(zones.SIGNS) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("level", ["sequence", "sequence-token"])
@pytest.mark.parametrize("operation", ["policy_loss", "grpo_loss"])
def test_a_row_is_in_its_zone_at_every_level(operation: str, level: str) -> None:
    case = zoned(operation, "float64", zones.CLIPS[0])
    by_token, by_sequence = permitted(case), permitted(case.with_options(ratio_level=level))
    assert by_token.distance((), sum(by_sequence.bounds(())) / 2) <= 1.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clip", [0.5, 0.2, 0.0])
def test_zones_of_a_value(dtype: str, clip: float) -> None:
    """Free, or held outside the range where the clipped error is the larger; on a kink, either."""
    case = zones.with_every_value(ordinary("value_loss", dtype, {}).with_options(clip=clip))
    allowed = permitted_gradients(case, np.array(1.0))["values"]
    slopes = (case.arguments["values"] - case.arguments["returns"])[:, 0]
    rows = list(itertools.product(zones.WAYS, zones.value_zones(clip).items()))
    assert len(rows) == len(slopes)
    found = set()
    for row, (_, (name, (moved, target))) in enumerate(rows):
        may_be = (permits(allowed, case, row, 0.0), permits(allowed, case, row, slopes[row]))
        outside, half_way = moved - clip, (moved + clip) / 2
        if outside == 0.0 or "errors equal" in name or slopes[row] == 0.0 >= outside:
            assert may_be == (True, True), name
        else:
            is_held = outside > 0.0 and target > half_way
            assert may_be == (is_held, not is_held or slopes[row] == 0.0), name
            found.add(is_held)
    assert found == {False, True}
