"""Derivations of the chapter `rm`: the reference, run on symbols, proves the clauses of `spec/reward.md`.

The reward model's loss is a mean of one term a pair, so that one pair proves it for every number of them;
batches of up to three pairs are then tried. The clauses on rewards of tokens are linear in scores and KL
estimates; they are tried on every mask of up to four tokens.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import sympy

from reference import reward as reference
from reference.kl import ESTIMATORS, kl_estimate
from reference.numbers import symbols
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import HALF, ONE, ZERO

AHEAD, MARGIN, BETA, UP = sympy.symbols("Delta m beta g", real=True)
FURTHER = sympy.Symbol("x", positive=True)
MOST_PAIRS = 3


@derivation("rm.bradley-terry", status="proved")
def mean_negative_log_probability() -> Numbers:
    """exp(-loss) is σ(s_c - s_r - m) for one pair; for more the loss is the mean of theirs."""
    for count in range(1, MOST_PAIRS + 1):
        chosen, rejected = pairs(count)
        losses = [-sympy.log(p) for p in reference.preference_probability(chosen, rejected + MARGIN)]
        agree(reference.reward_model_loss(chosen, rejected, margin=MARGIN), sum(losses, ZERO) / count)
    agree(probability(AHEAD), 1 / (1 + sympy.exp(-AHEAD)))
    agree(probability(ZERO), HALF)
    agree(loss(MARGIN, margin=MARGIN), sympy.log(2))
    numbers: Numbers = {"log 2": loss(ZERO), "loss at 1, m = 1": loss(ONE, margin=ONE)}
    for ahead in (1, 3):
        numbers |= {f"Δ = {ahead}": ahead, f"P at {ahead}": probability(sympy.Integer(ahead))}
    return numbers


@derivation("rm.bradley-terry-stable", status="proved")
def between_a_hinge_and_log_two_above() -> Numbers:
    """loss - max(0, -Δ) is log(1 + e^(-|Δ|)) on both sides: it falls from log 2 at 0 to its limit 0."""
    rest = sympy.log(1 + sympy.exp(-FURTHER))
    agree(loss(FURTHER), rest)
    agree(sympy.exp(loss(-FURTHER)), sympy.exp(FURTHER) * sympy.exp(rest))
    assert sympy.diff(rest, FURTHER).is_negative
    assert sympy.limit(rest, FURTHER, 0) == sympy.log(2)
    assert sympy.limit(rest, FURTHER, sympy.oo) == 0
    extreme = reference.reward_model_loss(np.array([-1e4]), np.array([1e4]))
    slopes = reference.reward_model_loss_gradient(1.0, np.array([-1e4]), np.array([1e4]))
    assert [float(x[0]) for x in slopes] == [-1.0, 1.0]
    overflow = int(np.ceil(np.log(np.finfo(np.float32).max)))
    return {"s": 1e4, "-s": -1e4, "loss": extreme, "exponent": overflow, "its negative": -overflow}


@derivation("rm.bradley-terry-calibrated", status="proved")
def mean_loss_is_least_at_the_log_odds() -> Numbers:
    """-p log σ(Δ) - (1 - p) log σ(-Δ) has the slope σ(Δ) - p in Δ, which rises through 0 at the log-odds."""
    p = sympy.Symbol("p", positive=True)
    expected = p * loss(AHEAD) + (1 - p) * loss(-AHEAD)
    agree(sympy.diff(expected, AHEAD), probability(AHEAD) - p)
    odds = sympy.Symbol("o", positive=True)
    agree(probability(sympy.log(odds)), odds / (1 + odds))
    assert sympy.diff(probability(AHEAD), AHEAD).is_positive
    return {"p": 0.75, "log-odds": np.log(3.0)}


@derivation("rm.gradient", status="proved")
def gradient_of_each_score() -> Numbers:
    """The derivatives of the code's own loss are the reference's gradients, ∓σ(-Δ)/N."""
    for count in range(1, MOST_PAIRS + 1):
        chosen, rejected = pairs(count)
        total = UP * reference.reward_model_loss(chosen, rejected, margin=MARGIN)
        slopes = reference.reward_model_loss_gradient(UP, chosen, rejected, margin=MARGIN)
        wrong = [probability(-(c - r - MARGIN)) for c, r in zip(chosen, rejected, strict=True)]
        for scores, slope, sign in ((chosen, slopes[0], -1), (rejected, slopes[1], 1)):
            agree([sympy.diff(total, s) for s in scores], slope)
            agree(slope, [sign * UP * x / count for x in wrong])
    return {f"weight at Δ = {ahead}": weight(ahead) for ahead in (-3, 0, 3)} | {"Δ": 3, "-Δ": -3}


@derivation("rm.gradient-convexity", status="proved")
def curvature_is_p_times_one_less_p() -> None:
    """The second derivative is σ(Δ) σ(-Δ) = P (1 - P) = ¼ - (P - ½)²; the Hessian is that of a difference."""
    curvature = sympy.diff(loss(AHEAD), AHEAD, 2)
    product = probability(AHEAD) * probability(-AHEAD)
    agree(curvature, product)
    assert product.is_positive
    agree(sympy.Rational(1, 4) - product, (probability(AHEAD) - HALF) ** 2)
    chosen, rejected = pairs(1)
    hessian = sympy.hessian(reference.reward_model_loss(chosen, rejected), [chosen[0], rejected[0]])
    there = product.subs(AHEAD, chosen[0] - rejected[0])
    agree(np.array(hessian), np.array([[there, -there], [-there, there]], dtype=object))


@derivation("rm.gradient-symmetry", status="proved")
def only_differences_count() -> None:
    """P + P swapped = 1; f added to both scores of a pair cancels; a pair's two gradients sum to 0."""
    agree(probability(AHEAD) + probability(-AHEAD), ONE)
    chosen, rejected = pairs(2)
    agree(reference.preference_probability(chosen, rejected)[0], 1 - swapped(chosen, rejected)[0])
    both = symbols.array("f", (2,))
    moved = reference.reward_model_loss(chosen + both, rejected + both, margin=MARGIN)
    agree(moved, reference.reward_model_loss(chosen, rejected, margin=MARGIN))
    slopes = reference.reward_model_loss_gradient(UP, chosen, rejected, margin=MARGIN)
    again = reference.reward_model_loss_gradient(UP, chosen + both, rejected + both, margin=MARGIN)
    agree(again, slopes)
    agree(slopes[0] + slopes[1], np.array([ZERO, ZERO]))


def swapped(chosen: Any, rejected: Any) -> Any:
    """The probability of the other answer."""
    return reference.preference_probability(rejected, chosen)


@derivation("rm.k-wise", status="verified for K <= 5")
def mean_over_pairs() -> Numbers:
    """All K(K-1)/2 pairs of two prompts; K = 2 is the pairwise loss; the slope of equal scores."""
    for count in range(2, 6):
        scores = symbols.array("s", (2, count))
        gaps = [s[i] - s[j] for s in scores for i, j in itertools.combinations(range(count), 2)]
        assert len(gaps) == count * (count - 1)
        for margin in (ZERO, sympy.Symbol("m", real=True)):
            losses = [loss(gap - margin) for gap in gaps]
            agree(reference.k_wise_loss(scores, margin=margin), sum(losses, ZERO) / len(losses))
        equal = dict.fromkeys(scores.flat, ZERO)
        total = reference.k_wise_loss(scores[:1])
        for i, score in enumerate(scores[0], start=1):
            slope = sympy.diff(total, score).subs(equal)
            agree(slope, -sympy.Rational(count + 1 - 2 * i, count * (count - 1)))
    two = symbols.array("s", (MOST_PAIRS, 2))
    agree(reference.k_wise_loss(two), reference.reward_model_loss(two[:, 0], two[:, 1]))
    return {f"K = {k}": k for k in (4, 9)} | {f"pairs of {k}": k * (k - 1) // 2 for k in (4, 9)}


@derivation("rm.last-token", status="verified for T <= 4")
def score_on_the_last_active_token() -> None:
    """Every mask of up to four tokens: the score at the greatest active position, 0 elsewhere."""
    for mask in masks(4):
        scores = symbols.array("s", (1,))
        active = np.flatnonzero(mask)
        expected = np.full(mask.shape, ZERO)
        expected[0, active[-1:]] = scores
        agree(reference.terminal_rewards(scores, mask), expected)
        logprobs = symbols.array("l", mask.shape)
        rewards = reference.shaped_rewards(scores, logprobs, logprobs, mask, kl_coef=BETA)
        agree(rewards, expected)


@derivation("rm.shaping", status="verified for T <= 4")
def score_less_the_penalty_of_each_token() -> None:
    """Every mask and estimator: -β KL_t at each active token, and the score beside it at the last."""
    for mask, estimator in itertools.product(masks(4), ESTIMATORS):
        scores, logprobs, ref_logprobs = response(mask.shape)
        rewards = reference.shaped_rewards(
            scores, logprobs, ref_logprobs, mask, kl_coef=BETA, estimator=estimator
        )
        penalties = BETA * kl_estimate(logprobs, ref_logprobs, estimator=estimator)
        active = np.flatnonzero(mask)
        for t in active:
            agree(rewards[0, t], (scores[0] if t == active[-1] else ZERO) - penalties[0, t])


@derivation("rm.shaping-sum", status="verified for T <= 4")
def sum_of_a_row() -> Numbers:
    """Every mask with an active token: the score less β Σ KL_t, which for k1 is the response's log-ratio."""
    for mask, estimator in itertools.product(masks(4), ESTIMATORS):
        if not mask.any():
            continue
        scores, logprobs, ref_logprobs = response(mask.shape)
        total = shaped_sum(scores, logprobs, ref_logprobs, mask, estimator)
        divergences = kl_estimate(logprobs, ref_logprobs, estimator=estimator)[mask]
        agree(total, scores[0] - BETA * sum(divergences, ZERO))
        if estimator == "k1":
            log_ratio = sum(logprobs[mask], ZERO) - sum(ref_logprobs[mask], ZERO)
            agree(total, scores[0] - BETA * log_ratio)
    return example_of_a_response()


def example_of_a_response() -> Numbers:
    """Score 1, β = 0.1, three tokens with log-ratios 0.5, -0.2 and 0.4."""
    log_ratios, everything = np.array([[0.5, -0.2, 0.4]]), np.ones((1, 3), dtype=bool)
    rewards = reference.shaped_rewards(np.ones(1), log_ratios, np.zeros((1, 3)), everything, kl_coef=0.1)
    numbers: Numbers = {f"ratio {t}": x for t, x in enumerate(log_ratios[0])}
    numbers |= {f"reward {t}": x for t, x in enumerate(rewards[0])}
    return numbers | {"β": 0.1, "tokens": 3, "sum": rewards.sum()}


@derivation("rm.shaping-sum", status="verified for T <= 2")
def mean_is_the_regularised_objective() -> None:
    """All responses of up to two binary tokens, any policies: the mean of the k1 row sum, exactly."""
    for length in (1, 2):
        mean = objective = ZERO
        for response_tokens in itertools.product((0, 1), repeat=length):
            policy, other = (symbols_of(name, response_tokens) for name in ("p", "q"))
            score = sympy.Symbol("s" + "".join(map(str, response_tokens)), real=True)
            logs, ref_logs = (np.array([[sympy.log(x) for x in steps]]) for steps in (policy, other))
            total = shaped_sum(np.array([score]), logs, ref_logs, np.ones(logs.shape, dtype=bool), "k1")
            likelihood, reference_likelihood = sympy.prod(policy), sympy.prod(other)
            mean += likelihood * total
            log_ratio = sympy.expand_log(sympy.log(likelihood) - sympy.log(reference_likelihood))
            objective += likelihood * score - BETA * likelihood * log_ratio
        agree(mean, objective)


def symbols_of(name: str, tokens: tuple[int, ...]) -> list[Any]:
    """The probability of each token given those before it: a symbol of its own for every token and prefix."""
    prefixes = ("".join(map(str, tokens[: t + 1])) for t in range(len(tokens)))
    return [sympy.Symbol(f"{name}_{prefix}", positive=True) for prefix in prefixes]


def shaped_sum(scores: Any, logprobs: Any, ref_logprobs: Any, mask: Any, estimator: str) -> Any:
    """Sum of a row's shaped rewards over its active tokens."""
    rewards = reference.shaped_rewards(
        scores, logprobs, ref_logprobs, mask, kl_coef=BETA, estimator=estimator
    )
    return sum(rewards[mask], ZERO)


def loss(ahead: Any, **options: Any) -> Any:
    """The reference's loss of one pair whose scores differ by `ahead`."""
    chosen, rejected = (np.array([x], dtype=object) for x in (ahead, ZERO))
    return np.asarray(reference.reward_model_loss(chosen, rejected, **options)).item()


def probability(ahead: Any) -> Any:
    """The reference's probability of an answer whose score is higher by `ahead`."""
    scores = (np.array([x], dtype=object) for x in (ahead, ZERO))
    return reference.preference_probability(*scores)[0]


def weight(ahead: float) -> float:
    """By how much the chosen score of one pair is pushed up."""
    scores = np.array([float(ahead)]), np.array([0.0])
    return -float(reference.reward_model_loss_gradient(1.0, *scores)[0][0])


def pairs(count: int) -> tuple[Any, Any]:
    """Symbols for the scores of so many pairs."""
    return symbols.array("c", (count,)), symbols.array("r", (count,))


def response(shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Symbols for the score and the log-probabilities of one response."""
    return symbols.array("s", shape[:1]), symbols.array("l", shape), symbols.array("k", shape)


def masks(longest: int) -> Iterator[Any]:
    """Every mask of one row, up to a length."""
    for length in range(1, longest + 1):
        for mask in itertools.product((False, True), repeat=length):
            yield np.array([mask])
