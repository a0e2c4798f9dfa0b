"""Derivations of the chapter `ppo` that end at the clip: the reference, in every zone of the ratio.

The loss is a sum of one term a token, so one token proves its clauses for every size; batches are then
tried on the code. A zone places the advantage on one side of 0 and the ratio between two bounds, by
positive symbols; in it every condition of the code is decided, and what is left is differentiated.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from reference import clipping, numbers
from reference import policy_loss as reference
from reference.numbers import symbols
from spec.proofs import Numbers, agree, derivation
from spec.zones import Zone, decided, gradient

X, OLD, A, UP = sympy.symbols("x o A g", real=True)
LOW, HIGH, DUAL = sympy.symbols("epsilon_l epsilon_h c", positive=True)
SIZE, GAP, FAR, NEAR = sympy.symbols("a d f e", positive=True)
RATIO = sympy.exp(X - OLD)
TOKEN = np.array([[True]])


@dataclass(frozen=True)
class Case:
    """A sign of the advantage and a zone of the ratio; `held` is the ratio of the objective, if not ρ."""

    name: str
    sign: int
    where: Zone
    held: Any = None

    @property
    def zone(self) -> Zone:
        """Where the symbols are."""
        return {A: self.sign * SIZE} | self.where

    @property
    def objective(self) -> Any:
        """The claimed objective."""
        return (RATIO if self.held is None else self.held) * A

    @property
    def slope(self) -> Any:
        """The claimed derivative of the objective in the log-probability."""
        return RATIO * A if self.held is None else sympy.Integer(0)


def at(ratio: Any) -> Any:
    """The log-probability that has this ratio."""
    return OLD + sympy.log(ratio)


ABOVE: Zone = {X: at(1 + HIGH + GAP)}
INSIDE_ABOVE: Zone = {X: at(1 + NEAR), HIGH: NEAR + GAP}
INSIDE_BELOW: Zone = {X: at(1 - NEAR), LOW: NEAR + GAP}
BELOW: Zone = {X: at(1 - LOW - GAP)}
CASES = (
    Case("A > 0, above", 1, ABOVE, 1 + HIGH),
    Case("A > 0, inside, above 1", 1, INSIDE_ABOVE),
    Case("A > 0, inside, below 1", 1, INSIDE_BELOW),
    Case("A > 0, below", 1, BELOW),
    Case("A < 0, above", -1, ABOVE),
    Case("A < 0, inside, above 1", -1, INSIDE_ABOVE),
    Case("A < 0, inside, below 1", -1, INSIDE_BELOW),
    Case("A < 0, below", -1, BELOW, 1 - LOW),
)
BEYOND = (
    Case("between clip and c", -1, {X: at(1 + HIGH + GAP), DUAL: 1 + HIGH + GAP + FAR}),
    Case("beyond c, beyond the clip", -1, {X: at(1 + HIGH + FAR + GAP), DUAL: 1 + HIGH + FAR}, DUAL),
    Case(
        "c inside the clip, ρ between",
        -1,
        {X: at(1 + NEAR + GAP), DUAL: 1 + NEAR, HIGH: NEAR + GAP + FAR},
        DUAL,
    ),
    Case(
        "c inside the clip, ρ above",
        -1,
        {X: at(1 + NEAR + FAR + GAP), DUAL: 1 + NEAR, HIGH: NEAR + FAR},
        DUAL,
    ),
    Case("inside, above 1", -1, {X: at(1 + NEAR), DUAL: 1 + NEAR + FAR, HIGH: NEAR + GAP}),
    Case("inside, below 1", -1, INSIDE_BELOW | {DUAL: 1 + FAR}),
    Case("below", -1, BELOW | {DUAL: 1 + FAR}, 1 - LOW),
)
"""Zones of the dual clip, for A < 0; the bound c may lie on either side of 1 + ε_high."""


def one(x: Any) -> Any:
    """An array of one token."""
    return np.array([[x]], dtype=object)


def loss(**options: Any) -> Any:
    """The code's loss of one token."""
    return reference.policy_loss(one(X), one(OLD), one(A), TOKEN, **_clips(options))


def slope(**options: Any) -> Any:
    """The code's gradient of that loss."""
    return reference.policy_loss_gradient(UP, one(X), one(OLD), one(A), TOKEN, **_clips(options))[0, 0]


def _clips(options: dict[str, Any]) -> dict[str, Any]:
    return {"clip_low": LOW, "clip_high": HIGH, "log_ratio_clip": None} | options


MEAN_OF_MEANS = _clips({"aggregation": "seq-mean-token-mean"})
"""Options of a batch of rows; that the others aggregate too is for `ppo.aggregation` to show."""


@derivation("ppo.clip", status="proved")
def minimum_and_maximum_agree() -> None:
    """max(-ρA, -clip(ρ) A) = -min(ρA, clip(ρ) A), in every case; a batch aggregates its tokens' losses."""
    clipped = numbers.clip(one(RATIO), 1 - LOW, 1 + HIGH)[0, 0]
    for case in CASES:
        unclipped = -RATIO * A
        larger = numbers.maximum(one(unclipped), one(-clipped * A))[0, 0]
        agree(decided(loss(), case.zone), decided(larger, case.zone))
    rows, zone = _batch()
    ratio = clipping.policy_ratio(rows[0], rows[1], rows[3], log_ratio_clip=None)
    objective = clipping.clipped_objective(ratio, rows[2], clip_low=LOW, clip_high=HIGH)
    mean = reference.aggregate(-objective, rows[3], mode=MEAN_OF_MEANS["aggregation"])
    agree(decided(reference.policy_loss(*rows, **MEAN_OF_MEANS), zone), decided(mean, zone))


@derivation("ppo.clip-cases", status="proved")
def cases_of_the_clip() -> None:
    """Value and gradient in each case; the derivative of the code's loss is the code's gradient."""
    for case in CASES:
        agree(decided(loss(), case.zone), -case.objective)
        agree(decided(slope(), case.zone), -UP * case.slope)
        agree(sympy.diff(UP * decided(loss(), case.zone), X), decided(slope(), case.zone))
    agree([loss().subs(A, 0), slope().subs(A, 0)], [0, 0])
    rows, zone = _batch()
    value = decided(UP * reference.policy_loss(*rows, **MEAN_OF_MEANS), zone)
    claimed = decided(reference.policy_loss_gradient(UP, *rows, **MEAN_OF_MEANS), zone)
    agree(gradient(value, rows[0]), claimed)


@derivation("ppo.clip-boundary", status="proved")
def both_sides_of_each_bound() -> None:
    """Up to each bound from either side: one value, and the slope of ρA or 0; 0 from one side at two."""
    for case in CASES:
        bound = at(1 + HIGH) if case.where in (ABOVE, INSIDE_ABOVE) else at(1 - LOW)
        arrives = {symbol: sympy.limit(sympy.sympify(x), GAP, 0) for symbol, x in case.zone.items()}
        there = {X: bound, A: case.sign * SIZE}
        value, claimed = (decided(f(), case.zone).subs(arrives, simultaneous=True) for f in (loss, slope))
        agree(value, decided(loss(), there).subs(there).subs(arrives))
        agree(claimed, (-UP * case.slope).subs(arrives, simultaneous=True))
        assert decided(slope(), there) in (0, -UP * RATIO * A)


@derivation("ppo.clip-lower-bound", status="proved")
def never_above_the_unclipped() -> Numbers:
    """ρA less the objective is at least 0 in every case, and exactly 0 with its slope where ρ is inside."""
    for case in CASES:
        excess = sympy.expand((RATIO * A + decided(loss(), case.zone)).subs(case.zone, simultaneous=True))
        assert excess.is_nonnegative
        assert (case.held is None) == (excess == 0)
        if "inside" in case.name:
            agree(sympy.diff(decided(loss(), case.zone), X), -RATIO * A)
    ratio, punished = one(5.0), one(-1.0)
    bounds: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.2}
    plain = clipping.clipped_objective(ratio, punished, **bounds)[0, 0]
    dual = clipping.clipped_objective(ratio, punished, dual_clip=3.0, **bounds)[0, 0]
    assert plain < dual
    return {"ρ": 5, "c": 3, "objective": plain, "with the dual clip": dual}


@derivation("ppo.clip-asymmetric", status="proved")
def never_clipped_below() -> Numbers:
    """ε_low ≥ 1, A < 0, any ρ below 1 + ε_high: the slope is A; and how far a probability may rise."""
    ratio = sympy.Symbol("r", positive=True)
    bounds: dict[str, Any] = {"clip_low": LOW, "clip_high": HIGH}
    for low in (sympy.Integer(1), 1 + GAP):
        zone = {A: -SIZE, LOW: low, HIGH: ratio + FAR}
        agree(decided(clipping.clipped_objective(one(ratio), one(A), **bounds), zone), one(ratio * A))
        agree(decided(clipping.clipped_slope(one(ratio), one(A), **bounds), zone), one(A))
    found: Numbers = {"probability": 0.01}
    for high in (0.2, 0.28):
        ratios = np.array([[1 + high - 1e-9, 1 + high + 1e-9]])
        slopes = clipping.clipped_slope(ratios, np.ones((1, 2)), clip_low=0.2, clip_high=high)
        assert slopes.tolist() == [[1.0, 0.0]]
        found |= {f"ε = {high}": high, f"highest with {high}": 0.01 * (1 + high)}
    return found


@derivation("ppo.dual-clip", status="proved")
def cases_of_the_dual_clip() -> Numbers:
    """A < 0: held at c beyond it, else as without; A > 0: as without, whatever c."""
    for case in BEYOND:
        value = decided(loss(dual_clip=DUAL), case.zone)
        agree(value, -case.objective)
        agree(sympy.diff(UP * value, X), decided(slope(dual_clip=DUAL), case.zone))
        agree(decided(slope(dual_clip=DUAL), case.zone), -UP * case.slope)
    for case in (case for case in CASES if case.sign > 0):
        zone = case.zone | {DUAL: 1 + FAR}
        agree(decided(loss(dual_clip=DUAL), zone), -case.objective)
        agree(decided(slope(dual_clip=DUAL), zone), -UP * case.slope)
    bounds: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.2}
    found: Numbers = {"ρ": 100, "c": 3}
    for name, dual in (("without", None), ("with", 3.0)):
        objective = clipping.clipped_objective(one(100.0), one(-1.0), dual_clip=dual, **bounds)[0, 0]
        found[f"loss {name}"] = -objective
    rewarded = clipping.clipped_objective(one(1.0), one(1.0), dual_clip=3.0, **bounds)[0, 0]
    return found | {"A > 0": rewarded, "A > 0, bounded by mistake": max(rewarded, 3.0 * rewarded)}


@derivation("ppo.rollout-weights", status="proved")
def weights_multiply_the_objective() -> Numbers:
    """The code with weights is w times the code without, token by token; a weight inside the clip is not."""
    weight = sympy.Symbol("w", positive=True)
    weighted = reference.policy_loss(one(X), one(OLD), one(A), TOKEN, one(weight), **_clips({}))
    claimed = reference.policy_loss_gradient(UP, one(X), one(OLD), one(A), TOKEN, one(weight), **_clips({}))
    for case in CASES:
        agree(decided(weighted, case.zone), -weight * case.objective)
        agree(sympy.diff(UP * decided(weighted, case.zone), X), decided(claimed[0, 0], case.zone))
    bounds: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.2}
    after = 0.5 * clipping.clipped_objective(one(1.5), one(1.0), **bounds)[0, 0]
    inside = clipping.clipped_objective(one(0.5 * 1.5), one(1.0), **bounds)[0, 0]
    return {"w": 0.5, "ρ": 1.5, "ε": 0.2, "after the clip": after, "inside the clip": inside}


@derivation("ppo.on-policy-gradient", status="proved")
def same_gradient_on_policy() -> None:
    """At x = o: the clipped, the penalised and the plain loss -A x have the derivative -A."""
    here = {X: OLD}
    penalised = reference.kl_penalty_loss(
        one(X), one(OLD), one(A), one(GAP), TOKEN, kl_coef=FAR, aggregation="token-mean"
    )
    for sign in (1, -1):
        zone = here | {A: sign * SIZE}
        agree(sympy.diff(decided(loss(), zone), X).subs(here), -A)
        agree(decided(slope(), zone).subs(here), -UP * A)
        agree(decided(loss(dual_clip=1 + GAP), zone).subs(here), -A)
    agree([sympy.diff(x, X).subs(here) for x in (penalised, -A * X)], [-A, -A])


def _batch() -> tuple[tuple[Any, Any, Any, Any], Zone]:
    """Three rows of two tokens: rewarded and punished, held and free; one masked, one row empty."""
    logprobs, old, advantages = (symbols.array(name, (3, 2)) for name in ("x", "o", "A"))
    mask = np.array([[True, True], [False, True], [False, False]])
    gaps = symbols.array("d", (3, 2), positive=True)
    zone: Zone = {}
    for index, ratio, sign in (
        ((0, 0), 1 + HIGH + gaps[0, 0], 1),
        ((0, 1), 1 + HIGH + gaps[0, 1], -1),
        ((1, 1), 1 + HIGH / 2, 1),
    ):
        zone |= {logprobs[index]: old[index] + sympy.log(ratio), advantages[index]: sign * gaps[index]}
    return (logprobs, old, advantages, mask), zone
