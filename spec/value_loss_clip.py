"""Derivations of the chapter `vf` on the clip: the reference's own expressions, zone by zone.

In each zone the arguments are written with positive symbols, so that every comparison of the code has one
answer:

- *inside*: V = V_old ± x with a clip of x + h, x and h not negative;
- *outside*: V = V_old ± (ε + a) with a > 0, and R at a distance r beyond the range's end on that side. The
  errors are equal at r = a/2; with r = (a + q)/2 and q > 0 the clipped one is larger, with q < 0 the other.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import sympy

from reference import value_loss as reference
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import ZERO
from spec.value_loss import CLIP, OLD, TARGET, TOKEN, UP, loss, one, slope

BEYOND, MORE = sympy.symbols("a q", positive=True)
X, H = sympy.symbols("x h", nonnegative=True)
ANY = sympy.Symbol("r", real=True)


@derivation("vf.clip", status="proved")
def larger_of_two_errors() -> None:
    """Zone by zone, the code is half of the larger square; V_clip is V inside and the range's end outside."""
    for zone in (*inside(), *outside()):
        clipped = reference.clip_values(one(zone.value), one(OLD), clip=zone.clip)[0, 0]
        end = OLD + zone.sign * zone.clip
        agree(clipped, end if zone.where else zone.value)
        stands = clipped if zone.slope == 0 else zone.value
        got = loss(zone.value, OLD, zone.target, clip=zone.clip)
        agree(decided(got, zone.where), ((stands - zone.target) ** 2 / 2).subs(zone.where))


@derivation("vf.clip-cases", status="proved")
def zones_of_the_gradient() -> Numbers:
    """In each zone the reference's gradient and the derivative of the reference's loss are the claim."""
    for zone in (*inside(), *outside()):
        claim = (UP * zone.slope).subs(zone.where)
        got = slope(zone.value, OLD, zone.target, clip=zone.clip)
        agree(decided(got, zone.where), claim)
        own = UP * sympy.diff(loss(zone.value, OLD, zone.target, clip=zone.clip), zone.moving)
        agree(decided(zone.sign * own, zone.where), claim)
    return example_of_each_zone()


def example_of_each_zone() -> Numbers:
    """V_old = 0 and ε = 0.5: loss and gradient at V = 1 for targets on both sides of the tie."""
    targets = np.array([[3.0, 1.0, 0.8, 0.7, 0.0, -1.0]])
    numbers: Numbers = {"ε": 0.5, "tie": 0.75}
    for target in targets[0]:
        found = (np.array([[x]]) for x in (1.0, 0.0, target))
        arguments = (*found, TOKEN)
        numbers[f"R = {target}"] = target
        numbers[f"loss at {target}"] = reference.value_loss(*arguments, clip=0.5)
        numbers[f"gradient at {target}"] = reference.value_loss_gradient(1.0, *arguments, clip=0.5)[0, 0]
    return numbers


@derivation("vf.clip-cases", status="proved")
def stopped_only_on_the_way_to_the_target() -> None:
    """Where the gradient is 0, |V_old - R| > |V - R|: the squares differ by (ε + a)(ε + q), and q > 0."""
    for zone in outside():
        stopped = decided(slope(zone.value, OLD, zone.target, clip=zone.clip), zone.where) == 0
        assert stopped == (zone.slope == 0)
        gap = MORE if stopped else -MORE
        nearer = ((OLD - zone.target) ** 2 - (zone.value - zone.target) ** 2).subs(zone.where)
        agree(nearer, (CLIP + BEYOND) * (CLIP + gap))
        assert not stopped or sympy.factor(nearer).is_positive


@derivation("vf.clip-boundary", status="proved")
def both_sides_of_each_kink() -> None:
    """At |V - V_old| = ε: V - R from within, 0 from without if R lies beyond; at the tie: 0 and V - R."""
    for zone in outside():
        gap = MORE if zone.slope == 0 else -MORE
        end, target = OLD + zone.sign * CLIP, OLD + zone.sign * (CLIP + gap)
        beyond = 2 * MORE if zone.slope == 0 else BEYOND  # near the end, R is past the tie or short of it
        step = sympy.Symbol("s", positive=True)
        value = end + zone.sign * step * beyond / (1 + step)  # a < 2 MORE, and a tends to 0 with the step
        without = decided(slope(value, OLD, target, clip=CLIP), {})
        agree(sympy.limit(without, step, 0), ZERO if zone.slope == 0 else UP * (end - target))
        agree(slope(end, OLD, target, clip=CLIP), UP * (end - target))
        at_the_tie = sympy.limit(decided(slope(zone.value, OLD, zone.target, clip=CLIP), zone.where), MORE, 0)
        agree(at_the_tie, ZERO if zone.slope == 0 else UP * zone.sign * BEYOND / 2)


@derivation("vf.clip-upper-bound", status="proved")
def never_below_the_plain_loss() -> None:
    """The clipped loss less the plain one is 0, or ½ a p with a, p > 0; it is 0 once ε >= |V - V_old|."""
    for zone in (*inside(), *outside()):
        plain = loss(zone.value, OLD, zone.target)
        clipped = loss(zone.value, OLD, zone.target, clip=zone.clip)
        excess = sympy.factor(sympy.expand(decided(clipped - plain, zone.where)))
        assert excess.is_nonnegative
        stopped = bool(zone.where) and zone.slope == 0
        agree(excess, BEYOND * MORE / 2 if stopped else ZERO)


@derivation("vf.clip-upper-bound", status="proved")
def range_of_width_zero() -> None:
    """With ε = 0 the clipped value is V_old: half the larger of the squares of V - R and V_old - R."""
    value = sympy.Symbol("V", real=True)
    for sign, gap in itertools.product((1, -1), (MORE, -MORE)):
        value, target = OLD + sign * BEYOND, OLD + sign * (BEYOND + gap) / 2
        stands = OLD if gap is MORE else value
        agree(decided(loss(value, OLD, target, clip=ZERO), {}), (stands - target) ** 2 / 2)
        agree(
            decided(slope(value, OLD, target, clip=ZERO), {}), ZERO if gap is MORE else UP * (value - target)
        )


@derivation("vf.clip-units", status="proved")
def scales_with_the_rewards() -> Numbers:
    """Zone by zone: c times V, V_old, R and ε makes c² times the loss and c times the gradient."""
    unit = sympy.Symbol("c", positive=True)
    for zone in (*inside(), *outside()):
        scaled = tuple(unit * x for x in (zone.value, OLD, zone.target))
        scaled_loss = loss(*scaled, clip=unit * zone.clip)
        own = decided(loss(zone.value, OLD, zone.target, clip=zone.clip), zone.where)
        agree(decided(scaled_loss, zone.where), unit**2 * own)
        agree(
            decided(slope(*scaled, clip=unit * zone.clip), zone.where),
            (UP * unit * zone.slope).subs(zone.where),
        )
    arguments = (np.array([[0.21]]), np.zeros((1, 1)), np.array([[10.0]]), TOKEN)
    assert not reference.value_loss_gradient(1.0, *arguments, clip=0.2).any()
    return {"clip": 0.2, "error": 10, "V": 0.21}


class Zone(NamedTuple):
    """One token in one zone of the clip: the value, its target, the clip range, and the derivative."""

    value: Any
    target: Any
    clip: Any
    moving: Any
    """The symbol that moves the value, the old value, the target and the clip staying where they are."""
    sign: int
    """Which way the value goes as that symbol grows."""
    where: dict[Any, Any]
    """What to put in after differentiating, so that every comparison is decided."""
    slope: Any
    """The gradient that the clause claims."""


def inside() -> Iterator[Zone]:
    """V within the range, on either side of the old value; R is anywhere."""
    for sign in (1, -1):
        value = OLD + sign * X
        yield Zone(value, TARGET, X + H, X, sign, {}, value - TARGET)


def outside() -> Iterator[Zone]:
    """V beyond one end of the range, with the clipped error the larger (slope 0) and the smaller."""
    for sign, gap in itertools.product((1, -1), (MORE, -MORE)):
        end = OLD + sign * CLIP
        value, target = end + sign * BEYOND, end + sign * ANY
        slope = ZERO if gap is MORE else value - target
        yield Zone(value, target, CLIP, BEYOND, sign, {ANY: (BEYOND + gap) / 2}, slope)


def decided(expression: Any, where: dict[Any, Any]) -> Any:
    """Put in the values, and decide each comparison by the signs of its factored difference."""
    return (
        sympy.sympify(expression)
        .subs(where)
        .replace(
            lambda e: isinstance(e, sympy.core.relational.Relational),
            lambda e: e.func(sympy.factor(e.lhs - e.rhs), 0),
        )
    )
