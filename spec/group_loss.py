"""Derivations of the chapter `grpo` about the loss: its parts, its gradient, what lengths and groups do."""

import itertools
from typing import Any, NamedTuple

import numpy as np
import sympy

from reference import group, kl, policy_loss
from reference.numbers import symbols
from spec.pieces import piece
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import ONE, ZERO

reference: Any = group
BETA, LOW, HIGH = sympy.symbols("beta epsilon_low epsilon_high", positive=True)
UPSTREAM = sympy.Symbol("u", real=True)
CLIPS = {"clip_low": LOW, "clip_high": HIGH}
CLIP_POINT = {LOW: sympy.Rational(1, 5), HIGH: sympy.Rational(1, 5), BETA: ONE, UPSTREAM: ONE}


class Batch(NamedTuple):
    """What :func:`reference.group.grpo_loss` takes, in its order."""

    logprobs: Any
    old_logprobs: Any
    ref_logprobs: Any
    advantages: Any
    mask: Any


def batch(mask: Any) -> Batch:
    """Symbols for every position, under a mask."""
    mask = np.array(mask, dtype=bool)
    logprobs, old, ref = (symbols.array(name, mask.shape) for name in ("l", "old", "ref"))
    return Batch(logprobs, old, ref, symbols.array("A", mask.shape[:1]), mask)


def point(x: Batch, log_ratios: Any, advantages: Any) -> Any:
    """Numbers for all symbols: log-ratios to the old policy, one a position, and advantages, one a row."""
    at = dict(CLIP_POINT)
    for array in (x.logprobs, x.old_logprobs, x.ref_logprobs):
        at |= dict.fromkeys(array.flat, ZERO)
    at |= dict(zip(x.logprobs.flat, np.ravel(log_ratios), strict=True))
    return at | dict(zip(x.advantages, advantages, strict=True))


def regions(x: Batch) -> Any:
    """Points with ratios below, inside and above the clip, and beyond the clamp; both signs of A."""
    places = [sympy.Rational(n, 10) for n in (-250, -5, 0, 5, 250)]
    for place, sign in itertools.product(places, (-ONE, ONE)):
        slopes = np.array([[place + sympy.Rational(k, 100) for k in range(x.mask.shape[1])]] * len(x.mask))
        yield point(x, slopes, [sign] * len(x.mask))


@derivation("grpo.loss", status="verified for T <= 2")
def sum_of_its_parts() -> None:
    """The clipped loss of advantages copied to every token, and β times the mean of k3, in every mode."""
    x = batch([[True, True], [False, True]])
    copied = np.repeat(x.advantages[:, None], 2, axis=1)
    for mode, level in zip(policy_loss.MODES, ("token", "sequence", "sequence-token", "token"), strict=True):
        options: Any = {"aggregation": mode, "ratio_level": level, "log_ratio_clip": None}
        clipped: Any = policy_loss.policy_loss(x.logprobs, x.old_logprobs, copied, x.mask, **CLIPS, **options)
        k3 = kl.kl_estimate(x.logprobs, x.ref_logprobs, estimator="k3")
        divergence = policy_loss.aggregate(k3, x.mask, mode=mode)
        loss = reference.grpo_loss(*x, **CLIPS, kl_coef=BETA, **options)
        at = point(x, np.zeros(x.mask.shape, dtype=int), [ONE, ONE])
        agree(piece(loss, at), piece(clipped, at) + BETA * divergence)
        log_ratio = x.logprobs - x.ref_logprobs
        agree(k3, np.frompyfunc(sympy.exp, 1, 1)(-log_ratio) - 1 + log_ratio)


@derivation("grpo.loss", status="verified for T <= 2")
def gradient_of_the_loss() -> None:
    """The code's loss differentiated is the code's gradient on every piece, and 0 at masked positions."""
    for mask, mode, level, clamp in (
        ([[True]], "token-mean", "token", 20),
        ([[True, False], [True, True]], "seq-mean-token-mean", "token", None),
        ([[True, True], [True, False]], "seq-mean-token-sum-norm", "sequence", None),
    ):
        x = batch(mask)
        options = {
            **CLIPS,
            "kl_coef": BETA,
            "aggregation": mode,
            "ratio_level": level,
            "log_ratio_clip": clamp,
        }
        loss = UPSTREAM * reference.grpo_loss(*x, **options)
        gradient = reference.grpo_loss_gradient(UPSTREAM, *x, **options)
        for at in regions(x):
            on_piece = piece(loss, at)
            derivative = [sympy.diff(on_piece, symbol) for symbol in x.logprobs.flat]
            agree(piece(gradient, at).ravel(), derivative)
        agree(gradient[~x.mask], np.zeros((~x.mask).sum(), dtype=int))


@derivation("grpo.on-policy-gradient", status="verified for T <= 2")
def coefficient_of_a_token() -> Numbers:
    """At π = π_old a token's loss has the derivative -A - β (π_ref/π - 1), over its divisor, in all modes."""
    log_policy, log_ref, advantage = sympy.symbols("l ref A", real=True)
    log_ratio = log_policy - log_ref
    k3 = sympy.exp(-log_ratio) - 1 + log_ratio
    old = sympy.Symbol("old", real=True)
    token = -sympy.exp(log_policy - old) * advantage + BETA * k3
    coefficient = advantage + BETA * (sympy.exp(log_ref - log_policy) - 1)
    agree(sympy.diff(token, log_policy).subs(old, log_policy), -coefficient)
    x = batch([[True, True], [False, True]])
    x = x._replace(old_logprobs=x.logprobs)
    at = point(x, np.zeros(x.mask.shape, dtype=int), [ONE, -ONE])
    ratios = np.frompyfunc(sympy.exp, 1, 1)(x.ref_logprobs - x.logprobs)
    coefficients = x.advantages[:, None] + BETA * (ratios - 1)
    for mode, level in itertools.product(policy_loss.MODES, ("token", "sequence", "sequence-token")):
        options = {**CLIPS, "kl_coef": BETA, "aggregation": mode, "ratio_level": level}
        gradient = reference.grpo_loss_gradient(ONE, *x, **options)
        divisors = np.broadcast_to(policy_loss.aggregation_divisors(x.mask, mode=mode), x.mask.shape)
        expected = -coefficients / np.frompyfunc(sympy.Integer, 1, 1)(divisors)
        agree(piece(gradient, at)[x.mask], expected[x.mask])
    half, double = (0.04 * (x - 1) for x in (0.5, 2.0))
    return {"β": 0.04, "π_ref/π": 0.5, "push down": -half, "push up": double}


@derivation("grpo.length-bias", status="verified for T <= 3")
def weights_of_tokens() -> Numbers:
    """A token's share of the gradient is 1 over B |o|, over the tokens of the batch, over B, or over B L."""
    for lengths in itertools.product((1, 2, 3), repeat=2):
        mask = np.arange(3) < np.array(lengths)[:, None]
        x = batch(mask)
        x = x._replace(old_logprobs=x.logprobs)
        at = point(x, np.zeros(mask.shape, dtype=int), [ONE, ONE])
        rows = np.repeat(x.advantages[:, None], 3, axis=1)
        shares = {
            "seq-mean-token-mean": [sympy.Rational(1, 2 * n) for n in lengths],
            "token-mean": [sympy.Rational(1, sum(lengths))] * 2,
            "seq-mean-token-sum": [sympy.Rational(1, 2)] * 2,
            "seq-mean-token-sum-norm": [sympy.Rational(1, 2 * 7)] * 2,
        }
        for mode, weights in shares.items():
            options = {**CLIPS, "kl_coef": ZERO, "aggregation": mode, "horizon": 7}
            gradient = piece(reference.grpo_loss_gradient(ONE, *x, **options), at)
            expected = -rows * np.array(weights, dtype=object)[:, None]
            agree(gradient[mask], expected[mask])
    return _short_and_long() | _rare_and_even()


def _short_and_long() -> Numbers:
    """Shares of a token in a batch of two responses, of 10 and of 100 tokens."""
    lengths = np.array([[10], [100]])
    mask = np.arange(100) < lengths
    by_row, by_token = (
        1 / np.broadcast_to(policy_loss.aggregation_divisors(mask, mode=mode), (2, 1))[:, 0]
        for mode in ("seq-mean-token-mean", "token-mean")
    )
    return {"short": 10, "long": 100, "of short": by_row[0], "of long": by_row[1], "of all": by_token[0]}


def _rare_and_even() -> Numbers:
    """Advantage of a success among ten responses, where one and where five succeed."""
    numbers: Numbers = {}
    for successes in (1, 5):
        rewards = (np.arange(10) < successes).astype(float)
        numbers[f"p, {successes}"] = successes / 10
        for scale in reference.SCALES:
            found = reference.group_advantages(rewards, np.zeros(10, dtype=int), scale=scale, ddof=0)
            numbers[f"{scale}, {successes}"] = found[0]
    return numbers


@derivation("grpo.sequence-ratio", status="verified for T <= 2")
def one_ratio_a_response() -> None:
    """The mean over responses of -min(sA, clip(s) A), s the geometric mean of the response's ratios."""
    x = batch([[True, True], [False, True]])
    log_ratio = x.logprobs - x.old_logprobs
    means = [(log_ratio[0, 0] + log_ratio[0, 1]) / 2, log_ratio[1, 1]]
    clamp = {"log_ratio_clip": None}
    options = {**CLIPS, **clamp, "aggregation": "seq-mean-token-mean", "ratio_level": "sequence"}
    loss = reference.grpo_loss(*x, **options, kl_coef=ZERO)
    for at in regions(x):
        expected = ZERO
        for mean, advantage in zip(means, x.advantages, strict=True):
            ratio = sympy.exp(mean)
            held = sympy.Piecewise((1 - LOW, ratio < 1 - LOW), (1 + HIGH, ratio > 1 + HIGH), (ratio, True))
            free = sympy.Piecewise(
                (ratio * advantage, ratio * advantage <= held * advantage), (held * advantage, True)
            )
            expected -= free / 2
        agree(piece(loss, at), piece(expected, at))
    token = {**options, "ratio_level": "token"}
    alone = Batch(*(array[1:] for array in x))
    levels = (reference.grpo_loss(*alone, **kind, kl_coef=ZERO) for kind in (options, token))
    at = next(iter(regions(x)))
    agree(*(piece(value, at) for value in levels))


@derivation("grpo.overlong", status="proved")
def penalty_by_length() -> Numbers:
    """0 below the buffer, the straight line in it, -1 behind it; the three meet."""
    most, buffer, within = sympy.symbols("L b x", positive=True)
    start = most - buffer
    for length, penalty, at in (
        (start - within, 0, 1),
        (start + within * buffer, -within, sympy.Rational(1, 2)),
        (most + within, -1, 1),
        (start, 0, 1),
        (most, -1, 1),
    ):
        lengths = np.array([length], dtype=object)
        found = reference.overlong_penalty(lengths, max_length=most, buffer=buffer)
        agree(piece(found, {most: 4, buffer: 2, within: at}), [penalty])
    lengths = np.array([80.0, 90.0, 110.0])
    none, half, beyond = reference.overlong_penalty(lengths, max_length=100.0, buffer=20.0)
    assert none == 0.0
    numbers: Numbers = {f"length {n:.0f}": n for n in lengths}
    uncapped = -(lengths[2] - 80.0) / 20.0
    return numbers | {"limit": 100, "buffer": 20, "half": half, "beyond": beyond, "uncapped": uncapped}


@derivation("grpo.overlong-dropped-groups", status="verified for T <= 2")
def dropping_rescales() -> None:
    """Rows with A = 0 and β = 0 have no gradient; without them the others' is larger by one common factor."""
    x = batch([[True, True], [False, True], [True, True]])
    x = x._replace(advantages=np.array([x.advantages[0], x.advantages[1], ZERO], dtype=object))
    kept = Batch(*(array[:2] for array in x))
    at = {symbol: ZERO for array in x[:3] for symbol in array.flat} | CLIP_POINT
    at |= dict.fromkeys(x.advantages[:2], ONE)
    factors = {"token-mean": sympy.Rational(5, 3), "seq-mean-token-mean": sympy.Rational(3, 2)}
    factors |= dict.fromkeys(("seq-mean-token-sum", "seq-mean-token-sum-norm"), sympy.Rational(3, 2))
    for mode, factor in factors.items():
        options = {**CLIPS, "kl_coef": ZERO, "aggregation": mode, "log_ratio_clip": None}
        full, part = (piece(reference.grpo_loss_gradient(ONE, *y, **options), at) for y in (x, kept))
        agree(full[2], [0, 0])
        agree(part[kept.mask], factor * full[:2][kept.mask])
    with_kl = reference.grpo_loss_gradient(ONE, *x, **{**options, "kl_coef": BETA})
    assert all(entry.has(BETA) for entry in piece(with_kl, at)[2])
