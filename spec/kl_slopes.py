"""Derivations of the chapter `kl` on one token's gradient: the slopes of the estimates, and the clamps."""

import itertools
from typing import Any

import numpy as np
import sympy

from reference import kl as reference
from reference.numbers import balls
from spec.kl import LOG_RATIO, of_log_ratio
from spec.pieces import piece
from spec.proofs import Numbers, agree, derivation

X, Y, U = sympy.symbols("x y u", real=True)
C, V = sympy.symbols("c v", positive=True)

LOG_RATIOS = tuple(sympy.Rational(x) for x in ("-2", "-3/4", "3/4", "2"))
CLIPS = (None, sympy.Rational(3, 2))
VALUE_CLIPS = (None, sympy.Rational(1, 5), sympy.Rational(5, 2))
"""A point in every cell that two clamps make, for every estimator, and none on an edge."""


@derivation("kl.estimator-gradients", status="proved")
def slopes_are_derivatives() -> None:
    """On either side of ℓ = 0 the code's gradient is upstream times the derivative of the code's estimate."""
    for name, ratio in itertools.product(reference.ESTIMATORS, (-1, 1)):
        point = {X: ratio, Y: 0}
        value, gradient = _token(name)
        agree(piece(gradient, point), U * sympy.diff(piece(value, point), X))
    slopes = {"k1": 1, "k2": X - Y, "k3": 1 - sympy.exp(Y - X)}
    for name, slope in slopes.items():
        agree(_token(name)[1], U * slope)
    [[tie]] = reference.kl_estimate_gradient(*(balls.array([[x]]) for x in (1.0, 0.0, 0.0)), estimator="abs")
    assert all(tie.value.contains(slope) for slope in (-1, 0, 1))


@derivation("kl.clamps", status="proved")
def clamps_stop_the_gradient() -> None:
    """In every cell that c, v and ℓ make: the value, its derivative, and 0 where a clamp acts."""
    for name, clip, bound in itertools.product(reference.ESTIMATORS, CLIPS, VALUE_CLIPS):
        bounds = {"log_ratio_clip": clip and C, "value_clip": bound and V}
        value, gradient = _token(name, **bounds)
        for ratio in LOG_RATIOS:
            point = {X: ratio, Y: 0, C: clip or 1, V: bound or 1}
            here, slope = piece(value, point), piece(gradient, point)
            agree(slope, U * sympy.diff(here, X))
            clamped, inside = _clip(ratio, clip), of_log_ratio(name).subs(LOG_RATIO, _clip(ratio, clip))
            agree(here.subs(point), _clip(inside, bound))
            assert (slope == 0) == (clamped != ratio or _clip(inside, bound) != inside)
    for option in ("log_ratio_clip", "value_clip"):
        one, nothing = balls.array([[1.0]]), balls.array([[0.0]])
        [[edge]] = reference.kl_estimate_gradient(one, one, nothing, estimator="k1", **{option: 1.0})
        assert all(edge.value.contains(slope) for slope in (0, 1))


def _token(name: str, **options: Any) -> tuple[Any, Any]:
    """The code's estimate of one token with log-probabilities x and y, and its gradient times u."""
    x, y, upstream = (np.array([[symbol]], dtype=object) for symbol in (X, Y, U))
    value = reference.kl_estimate(x, y, estimator=name, **options)
    gradient = reference.kl_estimate_gradient(upstream, x, y, estimator=name, **options)
    return value[0, 0], gradient[0, 0]


def _clip(x: Any, bound: Any) -> Any:
    """The nearest point of [-bound, bound] to a number."""
    return x if bound is None else max(-bound, min(x, bound))


@derivation("kl.clamps", status="witnessed")
def where_the_value_clamp_acts() -> Numbers:
    """The two log-ratios at which k3 is 10, and how much likelier the token is under the reference there."""
    bound = 10
    low, high = (float(sympy.nsolve(of_log_ratio("k3") - bound, LOG_RATIO, start)) for start in (-3, 11))
    assert low < 0 < high
    for edge in (low, high):
        value, gradient = (x.subs(X, 1.01 * edge) for x in _token("k3", value_clip=sympy.Integer(bound)))
        assert value.subs(Y, 0) == bound
        assert gradient.subs(Y, 0) == 0
    return {"v": bound, "below": low, "as likely": np.exp(-low), "above": high}
