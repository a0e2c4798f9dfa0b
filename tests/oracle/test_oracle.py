"""The oracle: what it permits is neither everything nor less than a correct computation gives."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from conformance.cases import Case, ordinary
from conformance.operations import OPERATIONS
from conformance.oracle import FACTOR, attainable, grade, judged, permitted, permitted_gradients
from reference.numbers.formats import FORMATS

PAIRS = [(operation, dtype) for operation in OPERATIONS for dtype in FORMATS]


def middles(balls: np.ndarray) -> np.ndarray:
    """The middle of each interval."""
    return np.array([float(ball.value.mid()) for ball in balls.flat]).reshape(balls.shape)


def halves(balls: np.ndarray) -> np.ndarray:
    """Half the width of each interval."""
    return np.array([float(ball.value.rad()) for ball in balls.flat]).reshape(balls.shape)


@pytest.mark.parametrize(("operation", "dtype"), PAIRS)
@pytest.mark.parametrize("seed", range(5))
def test_four_half_widths_off_fails_and_the_rounded_truth_passes(
    operation: str, dtype: str, seed: int
) -> None:
    case = ordinary(operation, dtype, {}, seed)
    allowed = permitted(case)
    middle, half = middles(allowed.balls), halves(allowed.balls)
    truth = FORMATS[dtype].round(middles(attainable(case)))
    bounded = [i for i in judged(case, middle) if np.isfinite(half[i])]
    assert bounded or (dtype, operation) in UNBOUNDED
    for index in bounded:
        assert allowed.distance(index, float(truth[index])) <= 1.0
        step = 4.0 * half[index] if half[index] > 0.0 else FORMATS[dtype].subnormal
        assert allowed.distance(index, middle[index] + step) > 1.0
        assert allowed.distance(index, middle[index] - step) > 1.0


UNBOUNDED = {
    (dtype, operation)
    for dtype in ("bfloat16", "float16")
    for operation in ("conjugate_gradient", "trust_region_step")
}
"""In so few bits, rounding may use up the whole residual of a linear system: nothing can be decided."""


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "operation", ["td_errors", "n_step_advantages", "gae", "lambda_returns", "discounted_returns"]
)
def test_interval_is_as_narrow_as_the_roundings_of_the_formula(operation: str, dtype: str) -> None:
    """In a linear formula, each rounding adds at most what FACTOR roundings of the inputs can cause."""
    case = ordinary(operation, dtype, {}, 0)
    allowed, reach = permitted(case), attainable(case)
    roundings = 6 * case.arguments["mask"].shape[1]  # a token: γV, r +, − V, γλ, γλA, δ +
    for index in judged(case, reach):
        half, conditioning = float(allowed.balls[index].value.rad()), float(reach[index].value.rad())
        assert half <= FACTOR * (1 + roundings) * conditioning


@pytest.mark.parametrize("dtype", FORMATS)
def test_exact_where_no_order_of_evaluation_rounds(dtype: str) -> None:
    ones, mask = np.ones((1, 4)), np.ones((1, 4), dtype=bool)
    arguments = {"rewards": ones, "values": ones, "mask": mask, "bootstrap_value": np.ones(1)}
    case = Case("gae", arguments, {"gamma": 1.0, "lam": 0.5, "masked": "skip"}, dtype, "exact", exact=True)
    allowed = permitted(case)
    assert list(allowed.exact[0]) == [Fraction(15, 8), Fraction(7, 4), Fraction(3, 2), Fraction(1)]
    assert allowed.distance((0, 0), 1.875) == 0.0
    assert allowed.distance((0, 0), float(np.nextafter(1.875, 2))) == np.inf
    thirds = case.with_arguments(rewards=FORMATS[dtype].round(ones / 3))
    assert permitted(thirds.with_options(lam=0.9)).exact[0, 0] is None


def test_nan_never_passes_and_infinity_only_beyond_the_largest_number() -> None:
    case = ordinary("discounted_returns", "float16", {}, 0)
    assert permitted(case).distance((0, 0), np.nan) == np.inf
    assert permitted(case).distance((0, 0), np.inf) == np.inf
    huge = permitted(case.with_arguments(rewards=np.full((3, 5), 60000.0)))
    assert huge.distance((0, 0), np.inf) == 1.0
    assert huge.distance((0, 0), -np.inf) == np.inf


def test_certain_infinity_is_the_one_answer() -> None:
    case = ordinary("token_logprobs", "float32", {}, 0)
    logits, tokens = case.arguments["logits"], np.zeros_like(case.arguments["tokens"])
    logits[..., 0] = -np.inf
    allowed = permitted(case.with_arguments(logits=logits, tokens=tokens))
    assert allowed.distance((0, 0), -np.inf) == 0.0
    for other in (np.inf, np.nan, -3e38, 0.0):
        assert allowed.distance((0, 0), other) == np.inf
    assert allowed.bounds((0, 0)) == (-np.inf, -np.inf)


def test_unbounded_interval_decides_nothing() -> None:
    case = ordinary("whiten", "float32", {}, 0).with_options(eps=0.0)
    flat = case.with_arguments(x=np.full((3, 5), 0.1))
    assert np.isnan(permitted(flat).distance((0, 0), 1.0))


def test_other_formula_widens_to_the_hull_and_is_exact_only_where_both_are() -> None:
    case = ordinary("td_errors", "float32", {}, 0)
    reference = OPERATIONS["td_errors"].reference

    def shifted(*rows: Any, gamma: Any) -> Any:
        return reference(*rows, gamma=gamma) + 1.0

    alone, both = permitted(case), permitted(case, shifted)
    middle = middles(alone.balls)
    assert alone.distance((0, 0), middle[0, 0] + 1.0) > 1.0
    assert both.distance((0, 0), middle[0, 0] + 1.0) <= 1.0
    assert both.distance((0, 0), middle[0, 0]) <= 1.0


@pytest.mark.parametrize(
    ("dtype", "entry", "lengths", "exact"),
    [
        ("float32", 1.0, (4, 4), True),
        ("float32", 1.0, (5, 3), False),
        ("float32", 1.0, (4, 0, 4), True),
        ("float16", 2.0**-19, (4, 4), True),
        ("float16", 2.0**-20, (4, 4), False),
    ],
)
def test_a_mean_over_tokens_may_be_one_of_the_means_of_rows(
    dtype: str, entry: float, lengths: tuple[int, ...], exact: bool
) -> None:
    """A third is rounded; a quarter of an eighth of 2**-20 may be, where the last bit is 2**-24."""
    mask = np.arange(5) < np.array(lengths)[:, None]
    case = Case("aggregate", {"x": np.full(mask.shape, entry), "mask": mask}, {}, dtype, "exact", exact=True)
    assert permitted(case).exact[()] == (entry if exact else None)
    shares = permitted_gradients(case, np.array(3 * entry))["x"]
    assert shares.exact[0, 0] == (Fraction(3 * entry) / 8 if exact else None)


def test_sums_of_rows_round_only_where_there_are_many() -> None:
    mask = np.arange(5) < np.array([[5], [3]])
    case = Case("aggregate", {"x": np.ones((2, 5)), "mask": mask}, {}, "float32", "exact", exact=True)
    assert permitted(case.with_options(mode="seq-mean-token-sum")).exact[()] == 4


ORDER = [argument.name for argument in OPERATIONS["policy_loss"].arguments]


def test_upstream_may_multiply_last() -> None:
    """What underflows in float16 is 0, and a thousand of it too; not so where the thousand comes first."""
    tiny = float(FORMATS["float16"].round(1e-4))
    arguments = {name: np.zeros((1, 1)) for name in ("logprobs", "old_logprobs")}
    arguments |= {name: np.full((1, 1), tiny) for name in ("advantages", "rollout_weights")}
    arguments = {name: arguments.get(name, np.array([[True]])) for name in ORDER}
    case = Case("policy_loss", arguments, {"clip_low": 0.2, "clip_high": 0.2}, "float16", "extremes")
    slopes = permitted_gradients(case, np.array(1000.0))["logprobs"]
    assert slopes.distance((0, 0), 0.0) <= 1.0
    assert slopes.distance((0, 0), -3 * tiny) > 1.0


def test_a_tie_may_be_shared_in_halves() -> None:
    """Inside the clip range both products of the minimum are equal, and autograd takes half of each.

    In float16, in units of 2**-24: a sixth of the weight 17 is 2.83, so 3, and its halves are 2 each. Twenty
    times that, twice, is 80. Without halves it is 60.
    """
    unit, nothing, ones = 2.0**-24, np.zeros((1, 6)), np.ones((1, 6))
    rows = dict(zip(ORDER, (nothing, nothing, 20 * ones, ones > 0, 17 * unit * ones), strict=True))
    options = {"clip_low": 0.2, "clip_high": 0.2}
    case = Case("policy_loss", rows, options, "float16", "extremes")
    logprobs, weights = (torch.tensor(rows[k], dtype=torch.float16) for k in ("logprobs", "rollout_weights"))
    ratio = logprobs.requires_grad_().exp()
    loss = -(torch.minimum(20 * ratio, 20 * ratio.clamp(0.8, 1.2)) * weights).sum() / 6
    (found,) = torch.autograd.grad(loss, [logprobs])
    assert found[0, 0].item() == -80 * unit
    slopes = permitted_gradients(case, np.array(1.0))["logprobs"]
    assert slopes.distance((0, 0), -80 * unit) <= 1.0
    assert slopes.distance((0, 0), -125 * unit) > 1.0


def test_a_weight_may_multiply_the_advantage_first() -> None:
    """In float16, in units of 2**-24: a tenth of a weight of 17 is 1.7, so 2; e⁵ makes it 297, not 252."""
    unit, one = 2.0**-24, np.ones((1, 1))
    weight, advantage = one * 17 * unit, FORMATS["float16"].round(one / 10)
    rows = dict(zip(ORDER, (one * 5, one * 0, advantage, one > 0, weight), strict=True))
    case = Case("policy_loss", rows, {"clip_low": 0.2, "clip_high": 1e3}, "float16", "extremes")
    folded = np.float16(weight[0, 0]) * np.float16(advantage[0, 0]) * np.exp(np.float16(5))
    assert 296 * unit < folded < 298 * unit
    assert permitted(case).distance((), -float(folded)) <= 1.0
    assert permitted(case).distance((), -410 * unit) > 1.0


def test_a_ratio_may_multiply_before_the_advantage() -> None:
    """In float16, in units of 2**-24: a thirtieth of 40 is 1, the ratio e⁻¹ makes it 0, A no more."""
    unit, ones = 2.0**-24, np.ones((1, 30))
    names = [argument.name for argument in OPERATIONS["kl_penalty_loss"].arguments]
    rows = dict(zip(names, (0 * ones, ones, 20 * ones, 0 * ones, ones > 0), strict=True))
    case = Case("kl_penalty_loss", rows, {"kl_coef": 0.0, "aggregation": "token-mean"}, "float16", "extremes")
    share = np.float16(40 * unit) / np.float16(30)
    assert share * np.exp(np.float16(-1)) * np.float16(20) == 0
    slopes = permitted_gradients(case, np.array(40 * unit))["logprobs"]
    assert slopes.distance((0, 0), 0.0) <= 1.0
    assert slopes.distance((0, 0), -40 * unit) > 1.0


@pytest.mark.parametrize(
    ("operation", "options", "upstream", "tokens", "formula", "gives", "beyond"),
    [
        ("value_loss", {"clip": None}, 40.0, 30, lambda x: (x**2 / 2).sum() / 30, 0, 36),
        ("value_loss", {"clip": 1.0}, 75.0, 30, lambda x: (torch.maximum(x**2, x**2) / 2).sum() / 30, 0, 80),
        ("kl_estimate", {"estimator": "k2"}, 1.0, 1, lambda x: x**2 / 2, 0, 22),
        ("kl_estimate", {"estimator": "k1"}, 3.0, 1, lambda x: x, 3, 4.5),
    ],
)
def test_half_a_square_is_halved_and_a_tie_of_two_once_more(
    operation: str,
    options: dict[str, Any],
    upstream: float,
    tokens: int,
    formula: Callable[[torch.Tensor], torch.Tensor],
    gives: float,
    beyond: float,
) -> None:
    """In float16, in units of 2**-24: a thirtieth of 40 is 1 and of 75 is 2, and half of 1 is 0."""
    unit, error, nothing = 2.0**-24, np.full((1, tokens), 10.0), np.zeros((1, tokens))
    values = {"values": error, "old_values": error, "returns": nothing, "mask": error > 0}
    rows = values if operation == "value_loss" else {"logprobs": error, "ref_logprobs": nothing}
    case = Case(operation, rows, options, "float16", "extremes")
    given = np.full(OPERATIONS[operation].result_shape(rows), upstream * unit)
    x = torch.tensor(error, dtype=torch.float16, requires_grad=True)
    (found,) = torch.autograd.grad(formula(x), [x], torch.tensor(given, dtype=torch.float16))
    assert found[0, 0].item() == gives * unit
    (slope,) = permitted_gradients(case, given).values()
    assert slope.distance((0, 0), gives * unit) <= 1.0
    assert slope.distance((0, 0), beyond * unit) > 1.0


UNIT = 2.0**-24
"""The spacing of float16 below its normal range."""


def half(x: Any) -> Any:
    """As float16."""
    return np.asarray(x, dtype=np.float64).astype(np.float16)[()]


def test_products_that_underflow_to_one_number_tie() -> None:
    """In float16, in units of 2**-24: w is 17, wA 2, times e^½ 3.3, so 3, and times 1.28 2.6, so 3 too."""
    one = np.ones((1, 1))
    advantage = FORMATS["float16"].round(one / 10)
    rows = dict(zip(ORDER, (one / 2, 0 * one, advantage, one > 0, 17 * UNIT * one), strict=True))
    clips = {"clip_low": 0.2, "clip_high": 0.28}
    logprobs, *others = (torch.tensor(rows[k], dtype=torch.float16) for k in ORDER if k != "mask")
    ratio, weighted = (logprobs.requires_grad_() - others[0]).exp(), others[1] * others[2]
    loss = -torch.minimum(ratio * weighted, ratio.clamp(0.8, 1.28) * weighted).sum()
    (found,) = torch.autograd.grad(loss, [logprobs])
    assert found.item() == -2 * UNIT
    slopes = permitted_gradients(Case("policy_loss", rows, clips, "float16", "extremes"), np.array(1.0))
    assert slopes["logprobs"].distance((0, 0), -2 * UNIT) <= 1.0
    assert slopes["logprobs"].distance((0, 0), -12 * UNIT) > 1.0
    far = Case("policy_loss", rows | {"logprobs": 3 * one}, clips, "float16", "extremes")
    assert permitted_gradients(far, np.array(1.0))["logprobs"].distance((0, 0), -UNIT) > 1.0


@pytest.mark.parametrize(("units", "counted"), [(3, 0.0), (3000, 1.0)])
def test_a_clip_is_counted_where_the_products_tell_it(units: int, counted: float) -> None:
    """In float16, in units of 2**-24: 3 times 1.4 is 4, and 3 times 1.28 too; 3000 times them differ."""
    one = np.ones((1, 1))
    names = [argument.name for argument in OPERATIONS["policy_metrics"].arguments]
    logprobs = FORMATS["float16"].round(one * np.log(1.4))
    rows = dict(zip(names, (logprobs, 0 * one, units * UNIT * one, one > 0), strict=True))
    case = Case("policy_metrics", rows, {"clip_low": 0.2, "clip_high": 0.28}, "float16", "extremes")
    unclipped, clipped = half(units * UNIT) * half(1.4), half(units * UNIT) * half(1.28)
    assert (clipped < unclipped) == counted
    allowed, place = permitted(case), (OPERATIONS["policy_metrics"].keys.index("clip_fraction"),)
    assert allowed.distance(place, counted) <= 1.0
    assert (allowed.distance(place, 1.0 - counted) > 1.0) == (units > 3)


def pairs_of(count: int, margin: float) -> dict[str, Any]:
    """Pairs of one margin."""
    names = [argument.name for argument in OPERATIONS["dpo_loss"].arguments]
    return {name: np.full(count, margin if name == "policy_chosen" else 0.0) for name in names}


TAIL = 0.5 * np.exp(-12.0)
"""The probability of a token twelve below two equal ones."""


@pytest.mark.parametrize(
    ("operation", "rows", "options", "upstream", "index", "gives", "beyond"),
    [
        (  # (u/N) · 2(h - 1/2β)
            "dpo_loss",
            pairs_of(3, 0.0),
            {"beta": 0.01, "loss_type": "ipo"},
            34 * UNIT,
            (0,),
            half(34 * UNIT) / half(3) * half(-100.0),
            -1600 * UNIT,
        ),
        (  # (u/N) · σ(-βh) · β
            "dpo_loss",
            pairs_of(3, half(0.9)),
            {"beta": 10.0},
            2.167e-3,
            (0,),
            half(2.167e-3) / half(3) * half(-np.exp(-9.0)) * half(10.0),
            -30 * UNIT,
        ),
        (  # (u/N) · β
            "dpo_loss",
            pairs_of(3, 0.0),
            {"beta": 10.0, "loss_type": "hinge"},
            34 * UNIT,
            (0,),
            half(34 * UNIT) / half(3) * half(-10.0),
            -130 * UNIT,
        ),
        (  # u p · (ℓ - KL)
            "kl_divergence",
            {"logits": np.array([[[0.0, -10.0]]]), "ref_logits": np.array([[[0.0, -5008.0]]])},
            {},
            6.561e-4,
            (0, 0, 1),
            half(6.561e-4) * half(np.exp(-10.0)) * half(4998.0),
            6e-4,
        ),
        (  # (p/τ) · u · excess
            "token_entropy",
            {"logits": np.array([[[0.0, 0.0, -800.0, -1200.0]]])},
            {"temperature": 100.0},
            50.3125,
            (0, 0, 3),
            half(TAIL) / half(100.0) * half(50.3125) * half(12.0),
            9e-5,
        ),
        (  # (u/N) · s
            "sequence_importance_ratio",
            {
                "logprobs": np.full((1, 100), 4.0),
                "old_logprobs": np.zeros((1, 100)),
                "mask": np.ones((1, 100)) > 0,
            },
            {},
            46 * UNIT,
            (0, 0),
            half(46 * UNIT) / half(100) * half(np.exp(4.0)),
            120 * UNIT,
        ),
        (  # u · (p/τ)
            "token_logprobs",
            {"logits": np.array([[[0.0, -1075.0]]]), "tokens": np.array([[0]])},
            {"temperature": 100.0},
            1024.0,
            (0, 0, 1),
            half(-np.exp(-10.75)) / half(100.0) * half(1024.0),
            -2 * 2.2e-4,
        ),
        (  # (u/R) / L
            "aggregate",
            {"x": np.ones((64, 1)), "mask": np.ones((64, 1)) > 0},
            {"mode": "seq-mean-token-sum-norm", "horizon": 0.1},
            285 * UNIT,
            (0, 0),
            half(285 * UNIT) / half(64) / half(0.1),
            70 * UNIT,
        ),
        (  # (w/N) · f, of which seven
            "importance_sampling_mean",
            {"f_values": np.full(7, 1000.0), "log_weights": np.full(7, -13.0)},
            {},
            None,
            (),
            half(np.exp(-13.0)) / half(7) * half(1000.0) * half(7),
            3.1e-3,
        ),
        (  # (wρ) · A
            "policy_loss",
            dict(zip(ORDER, np.array([-0.25, 0.0, 1000.0, 1.0, 3 * UNIT])[:, None, None], strict=True)),
            {"clip_low": 0.5, "clip_high": 0.5},
            None,
            (),
            -half(3 * UNIT) * half(np.exp(-0.25)) * half(1000.0),
            -3500 * UNIT,
        ),
    ],
)
def test_products_that_underflow_are_taken_in_any_order(
    operation: str,
    rows: dict[str, Any],
    options: dict[str, Any],
    upstream: float | None,
    index: tuple[int, ...],
    gives: float,
    beyond: float,
) -> None:
    """What float16 gives in an order in which a small product comes first, and something that none gives."""
    form = FORMATS["float16"]
    rows = {name: x > 0 if name == "mask" else x for name, x in rows.items()}
    rows = {name: form.round(x) if x.dtype == float else x for name, x in rows.items()}
    case = Case(operation, rows, options, "float16", "extremes")
    if upstream is None:
        allowed = permitted(case)
    else:
        given = np.full(OPERATIONS[operation].result_shape(rows), form.round(np.array(upstream)))
        allowed, *_ = permitted_gradients(case, given).values()
    assert allowed.distance(index, float(gives)) <= 1.0
    assert allowed.distance(index, beyond) > 1.0


def test_grade_is_small_for_the_rounded_truth_and_large_for_lost_digits() -> None:
    case = ordinary("gae", "float64", {}, 0)
    truth = OPERATIONS["gae"].reference(*case.arguments.values(), **case.options)
    single = truth.astype(np.float32).astype(np.float64)
    assert grade(case, truth) < 2.0 < grade(case, single)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_attainable_lies_within_permitted(operation: str) -> None:
    """What inputs off by one unit roundoff can cause, any correct backend may answer."""
    case = ordinary(operation, "float32", {}, 1)
    reach, allowed = attainable(case), permitted(case)
    for index in judged(case, reach):
        outer, inner = allowed.balls[index].value, reach[index].value
        assert not outer.is_finite() or outer.contains(inner)


def test_a_number_is_told_from_an_interval_that_no_float_reaches() -> None:
    arguments = {"logprobs": np.zeros((1, 1)), "old_logprobs": np.array([[-800.0]])}
    case = Case("importance_ratio", arguments, {"log_ratio_clip": None}, "float32", "extremes")
    allowed = permitted(case)
    assert allowed.distance((0, 0), np.inf) <= 1.0
    assert allowed.distance((0, 0), FORMATS["float32"].largest) > 1.0
    assert allowed.distance((0, 0), 0.0) > 1.0
