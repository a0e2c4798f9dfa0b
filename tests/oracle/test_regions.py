"""What a region is said to hold is there in what the suite draws from it."""

import itertools
from collections.abc import Callable
from functools import cache

import hypothesis
import numpy as np
import pytest

from conformance.cases import MASK_REGIONS, REGIONS, SHAPE_REGIONS, Case, cases
from conformance.run import EXAMPLES
from reference.numbers.formats import FORMATS


@cache
def drawn(operation: str, region: str, dtype: str = "float32") -> tuple[Case, ...]:
    """As many cases as the suite draws by default."""
    found: list[Case] = []
    settings = hypothesis.settings(
        max_examples=EXAMPLES["default"], database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    strategy = cases(operation, region, dtype)
    hypothesis.seed(0)(settings(hypothesis.given(case=strategy)(lambda case: found.append(case))))()
    return tuple(found)


def has_hole(mask: np.ndarray) -> bool:
    """Whether a row has an active token behind a masked one, behind an active one."""
    return any(np.flatnonzero(row)[-1] - np.flatnonzero(row)[0] >= row.sum() for row in mask if row.any())


OF_EVERY_CASE: dict[str, Callable[[Case], bool]] = {
    "exact": lambda case: bool((8 * case.arguments["rewards"] % 1 == 0).all()),
    "holes": lambda case: has_hole(case.arguments["mask"]),
    "empty-rows": lambda case: set(case.arguments["mask"].any(axis=1)) == {False, True},
    "nothing-active": lambda case: not case.arguments["mask"].any(),
    "one-active": lambda case: case.arguments["mask"].sum() == 1,
    "one-token": lambda case: case.arguments["mask"].shape[1] == 1,
    "one-row": lambda case: len(case.arguments["mask"]) == 1,
    "square": lambda case: len(set(case.arguments["mask"].shape)) == 1,
    "terminated": lambda case: not case.arguments["bootstrap_value"].any(),
    "truncated": lambda case: bool(case.arguments["bootstrap_value"].all()),
}


@pytest.mark.parametrize("region", OF_EVERY_CASE)
def test_every_case_of_a_region(region: str) -> None:
    assert all(OF_EVERY_CASE[region](case) for case in drawn("gae", region))


def test_every_region_is_looked_at() -> None:
    assert {*MASK_REGIONS, *SHAPE_REGIONS} <= set(OF_EVERY_CASE)
    assert set(REGIONS) - set(OF_EVERY_CASE) == {"generic", "adversarial", "offset", "close", "extremes"}


def test_more_than_one_row_is_drawn_where_rows_can_be_mixed_up() -> None:
    for region in ("square", "one-token", "adversarial"):
        assert any(len(case.arguments["mask"]) > 1 for case in drawn("gae", region))


def test_every_extreme_log_ratio() -> None:
    found = {
        float(x)
        for case in drawn("policy_loss", "extremes", "float64")
        for x in (case.arguments["logprobs"] - case.arguments["old_logprobs"]).flat
    }
    assert found >= {sign * x for x in (20.0, 30.0, 90.0, 800.0) for sign in (1.0, -1.0)}


def test_tokens_that_are_ruled_out() -> None:
    logits = [case.arguments["logits"] for case in drawn("token_logprobs", "extremes")]
    assert all(np.isfinite(x).any(axis=-1).all() for x in logits)
    assert any(np.isneginf(x).any() for x in logits)
    assert any((np.abs(x[np.isfinite(x)]) >= 1e4).any() for x in logits)


@pytest.mark.parametrize("dtype", FORMATS)
def test_squares_that_lose_the_spread(dtype: str) -> None:
    for case in drawn("whiten", "offset", dtype):
        values = case.arguments["x"]
        assert (values % 1 == 0).all()
        last_place = values.min() ** 2 * 2 * FORMATS[dtype].unit_roundoff
        assert last_place >= 1 > np.var(values) / 4


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_few_roundings_apart(dtype: str) -> None:
    scores = [case.arguments["scores"] for case in drawn("group_advantages", "close", dtype)]
    spread = max(np.ptp(x) for x in scores)
    assert 0.0 < spread < 2.0**8 * FORMATS[dtype].unit_roundoff


def test_every_sign_of_the_advantage_meets_every_side_of_the_clip() -> None:
    met = set()
    for case in drawn("policy_loss", "adversarial"):
        ratios = np.exp(case.arguments["logprobs"] - case.arguments["old_logprobs"])
        mask = case.arguments["mask"]
        sides = np.searchsorted([0.8, 1.0, 1.28], ratios[mask])
        met |= set(zip(np.sign(case.arguments["advantages"][mask]), sides, strict=True))
    assert met >= set(itertools.product((-1.0, 1.0), range(4)))
