"""Derivations of the chapter `ppo` around the clip: levels of the ratio, its clamp, penalty, total, metrics."""

import itertools
from typing import Any

import numpy as np
import sympy

from reference import clipping, importance_sampling, logprobs
from reference import policy_loss as reference
from reference.numbers import symbols
from spec.proofs import Numbers, agree, derivation
from spec.zones import Zone, decided, gradient

BOUND, GAP, NEAR, LOW, HIGH, SIZE = sympy.symbols("C d e epsilon_l epsilon_h a", positive=True)
CLIPS: dict[str, Any] = {"clip_low": LOW, "clip_high": HIGH, "log_ratio_clip": None}


@derivation("ppo.ratio-level", status="verified for T <= 3")
def levels_of_the_ratio() -> None:
    """The values are those of the importance ratios; each level's gradient is the derivative it claims."""
    for length in range(1, 4):
        for mask in itertools.product((False, True), repeat=length):
            if any(mask):
                _agree_with_ratios(length, np.array([mask]))


def _agree_with_ratios(length: int, mask: Any) -> None:
    """All levels on one row; the sequence-token level by a constant times exp of the token's own change."""
    x, old, upstream = (symbols.array(name, (1, length)) for name in ("x", "o", "g"))
    active = np.flatnonzero(mask)
    options: dict[str, Any] = {"log_ratio_clip": None}
    ratios = {
        level: clipping.policy_ratio(x, old, mask, ratio_level=level, **options)[0, active]
        for level in clipping.RATIO_LEVELS
    }
    agree(ratios["token"], importance_sampling.importance_ratio(x, old, **options)[0, active])
    sequence = importance_sampling.sequence_importance_ratio(x, old, mask)[0]
    agree(ratios["sequence"], np.full(active.size, sequence))
    agree(ratios["sequence-token"], ratios["sequence"])
    start = symbols.array("y", (1, length))
    own = sequence * np.frompyfunc(sympy.exp, 1, 1)(x - start)
    for level, row in (("token", ratios["token"]), ("sequence", ratios["sequence"]), ("sequence-token", own[0, active])):
        expected = gradient(sum(upstream[0, active] * row), x)
        if level == "sequence-token":
            constant = sympy.Symbol("s", positive=True)
            row = constant * np.frompyfunc(sympy.exp, 1, 1)(x - start)[0, active]
            expected = gradient(sum(upstream[0, active] * row), x)
            expected = np.frompyfunc(lambda e: e.subs(dict(zip(start.flat, x.flat))).subs(constant, sequence), 1, 1)(expected)
        got = clipping.policy_ratio_gradient(upstream, x, old, mask, ratio_level=level, **options)
        agree(got, expected)
