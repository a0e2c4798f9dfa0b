"""Derivations of the chapter `dpo` about gradients: what moves, how far, in which limits.

The reference's gradients are compared with SymPy's derivatives of the reference's own losses, piece by piece.
"""

from typing import Any

import numpy as np
import sympy

from reference import preference
from reference.numbers import symbols
from spec.preference import BETA, MARGIN, SMOOTHING, Pairs, pairs, with_margin
from spec.proofs import Numbers, agree, derivation

reference: Any = preference


@derivation("dpo.gradient", status="proved")
def gradient_is_the_derivative() -> None:
    """The code's loss differentiated is the code's gradient, and nobody else's; on up to three pairs."""
    upstream = sympy.Symbol("u", real=True)
    for count, options in ((1, {"label_smoothing": SMOOTHING}), (2, {}), (3, {"loss_type": "ipo"})):
        batch = pairs(count)
        value = upstream * reference.dpo_loss(*batch, beta=BETA, **options)
        chosen, rejected = reference.dpo_loss_gradient(upstream, *batch, beta=BETA, **options)
        agree([sympy.diff(value, x) for x in batch.policy_chosen], chosen)
        agree([sympy.diff(value, x) for x in batch.policy_rejected], rejected)
        agree(chosen + rejected, np.zeros(count, dtype=int))


@derivation("dpo.gradient", status="proved")
def hinge_gradient_is_the_derivative() -> None:
    """On either side of the corner, where βh = 1 - s; the chosen response moves s by -β."""
    upstream = sympy.Symbol("u", real=True)
    for side in ({"positive": True}, {"negative": True}):
        s = sympy.Symbol("s", **side)
        pair = with_margin((1 - s) / BETA)
        value = upstream * reference.dpo_loss(*pair, beta=BETA, loss_type="hinge")
        chosen, rejected = reference.dpo_loss_gradient(upstream, *pair, beta=BETA, loss_type="hinge")
        agree(chosen, [-BETA * sympy.diff(value, s)])
        agree(rejected, -chosen)


@derivation("dpo.gradient", status="proved")
def weight_of_a_pair() -> Numbers:
    """β σ(-βh): it falls with the margin, is β/2 at h = 0, and goes to β as the margin goes to -∞."""
    chosen, _ = reference.dpo_loss_gradient(sympy.Integer(1), *with_margin(MARGIN), beta=BETA)
    weight = -chosen[0]
    agree(weight, BETA / (1 + sympy.exp(BETA * MARGIN)))
    assert sympy.diff(weight, MARGIN).is_negative
    agree([weight.subs(MARGIN, 0), sympy.limit(weight, MARGIN, -sympy.oo)], [BETA / 2, BETA])
    wrong, right = (1 / (1 + np.exp(x)) for x in (-3.0, 3.0))
    return {"βh": 3, "βh, wrong": -3, "right": right, "wrong": wrong}


@derivation("dpo.both-fall", status="witnessed")
def one_step_and_both_fall() -> Numbers:
    """Three responses with logits -2θ, -3θ and 0: one step of gradient descent from θ = 0, the reference."""
    beta, learning_rate = 0.5, 1.0
    logits = np.array([-2.0, -3.0, 0.0])
    before = _probabilities(0.0 * logits)
    pair = _pair(before, before)
    chosen, rejected = reference.dpo_loss_gradient(1.0, *pair, beta=beta)
    by_logprob = np.array([chosen[0], rejected[0], 0.0])
    step = -learning_rate * float(by_logprob @ (logits - before @ logits))  # ∂ log π_k / ∂θ = z_k - Σ π z
    after = _probabilities(step * logits)
    losses = [float(reference.dpo_loss(*_pair(p, before), beta=beta)) for p in (before, after)]
    assert losses[1] < losses[0]
    assert after[0] < before[0]
    assert after[1] < before[1]
    numbers: Numbers = {"β": beta, "-3θ": -3, "losses before": losses[0], "after": losses[1]}
    numbers |= {f"response {k}, before": x for k, x in enumerate(before)}
    return numbers | {f"response {k}, after": x for k, x in enumerate(after)}


@derivation("dpo.both-fall", status="proved")
def only_the_margin_counts() -> None:
    """Whatever is added to both log-probabilities leaves every loss as it was."""
    pair, fall = pairs(1), sympy.Symbol("d", positive=True)
    fallen = pair._replace(
        policy_chosen=pair.policy_chosen - fall, policy_rejected=pair.policy_rejected - fall
    )
    agree(reference.preference_margin(*fallen), reference.preference_margin(*pair))
    for options in ({"label_smoothing": SMOOTHING}, {"loss_type": "ipo"}):
        before, after = (reference.dpo_loss(*x, beta=BETA, **options) for x in (pair, fallen))
        agree(after, before)
    higher, lower = (reference.dpo_loss(*with_margin(x), beta=BETA) for x in (MARGIN + fall, MARGIN))
    assert sympy.diff(higher, fall).is_negative
    agree(higher.subs(fall, 0), lower)


def _probabilities(logits: Any) -> Any:
    weights = np.exp(logits)
    return weights / weights.sum()


def _pair(policy: Any, ref: Any) -> Pairs:
    """The first response chosen, the second rejected."""
    (chosen, rejected, _), (ref_chosen, ref_rejected, _) = np.log(policy), np.log(ref)
    return Pairs(*(np.array([x]) for x in (chosen, rejected, ref_chosen, ref_rejected)))


@derivation("dpo.rejected-faster", status="proved")
def pushed_by_its_probability() -> Numbers:
    """∂L/∂π = (∂L/∂ log π)/π, and the two derivatives in log π are opposite, in every loss type."""
    probabilities = sympy.symbols("pi_c pi_r", positive=True)
    ref = symbols.array("C", (1,)), symbols.array("R", (1,))
    policy = [np.array([sympy.log(x)], dtype=object) for x in probabilities]
    for options in ({"label_smoothing": SMOOTHING}, {"loss_type": "ipo"}):
        loss = reference.dpo_loss(*policy, *ref, beta=BETA, **options)
        in_chosen, in_rejected = (sympy.diff(loss, x) for x in probabilities)
        agree(in_rejected * probabilities[1], -in_chosen * probabilities[0])
    falling = sympy.diff(reference.dpo_loss(*policy, *ref, beta=BETA), probabilities[0])
    assert falling.subs(dict.fromkeys(falling.free_symbols, 1)) < 0
    return {"π_c": 0.2, "π_r": 0.01, "ratio": 0.2 / 0.01}


@derivation("dpo.limits", status="proved")
def limits_of_beta() -> None:
    """β → 0: log 2, and the slope -β/2. β → ∞: L/β → max(0, -h), and the slope over -β is 0, 1/2 or 1."""
    loss = reference.dpo_loss(*with_margin(MARGIN), beta=BETA)
    agree(sympy.limit(loss, BETA, 0), sympy.log(2))
    agree(sympy.limit(sympy.diff(loss, MARGIN) / BETA, BETA, 0), sympy.Rational(-1, 2))
    size = sympy.Symbol("x", positive=True)
    for margin, slack, weight in (
        (size, 0, 0),
        (-size, size, 1),
        (sympy.Integer(0), 0, sympy.Rational(1, 2)),
    ):
        pair = with_margin(margin)
        agree(sympy.limit(reference.dpo_loss(*pair, beta=BETA) / BETA, BETA, sympy.oo), slack)
        chosen, _ = reference.dpo_loss_gradient(sympy.Integer(1), *pair, beta=BETA)
        agree(sympy.limit(-chosen[0] / BETA, BETA, sympy.oo), weight)


@derivation("dpo.limits-equal-answers", status="proved")
def equal_answers_teach_nothing() -> None:
    """Of one response on both sides the margin is 0 and the two gradients cancel."""
    logprob, ref = symbols.array("c", (1,)), symbols.array("C", (1,))
    pair = Pairs(logprob, logprob, ref, ref)
    agree(reference.dpo_loss(*pair, beta=BETA, label_smoothing=SMOOTHING), sympy.log(2))
    agree(reference.dpo_loss(*pair, beta=BETA, loss_type="ipo"), 1 / (4 * BETA**2))
    assert reference.dpo_loss(*pair, beta=BETA, loss_type="hinge") == 1
    for loss_type in reference.LOSS_TYPES:
        chosen, rejected = reference.dpo_loss_gradient(
            sympy.Integer(1), *pair, beta=BETA, loss_type=loss_type
        )
        agree(chosen + rejected, [0])


@derivation("dpo.limits-equal-weights", status="verified for N <= 3")
def mean_of_the_pairs() -> None:
    """The loss of N pairs is the mean of the losses that they have alone."""
    for count, loss_type in ((2, "hinge"), (3, "sigmoid"), (3, "ipo")):
        batch = pairs(count)
        each = [Pairs(*(x[k : k + 1] for x in batch)) for k in range(count)]
        alone = [reference.dpo_loss(*pair, beta=BETA, loss_type=loss_type) for pair in each]
        agree(reference.dpo_loss(*batch, beta=BETA, loss_type=loss_type), sum(alone) / count)
    squares = (reference.preference_margin(*batch) - 1 / (2 * BETA)) ** 2
    agree(sum(squares) / len(squares), reference.dpo_loss(*batch, beta=BETA, loss_type="ipo"))


@derivation("dpo.sum-of-logprobs", status="verified for T <= 3")
def sums_over_active_tokens() -> Numbers:
    """Sums and means over every mask of up to three tokens, and their gradients; what they say of length."""
    for length in range(1, 4):
        logprobs, upstream = symbols.array("l", (1, length)), symbols.array("u", (1,))
        for bits in np.ndindex((2,) * length):
            mask = np.array([bits], dtype=bool)
            active = logprobs[mask]
            for average, divisor in ((False, 1), (True, max(len(active), 1))):
                result = reference.sequence_logprobs(logprobs, mask, average=average)
                agree(result, [sum(active) / sympy.Integer(divisor)])
                gradient = reference.sequence_logprobs_gradient(upstream, logprobs, mask, average=average)
                agree(gradient[0], [sympy.diff(upstream[0] * result[0], x) for x in logprobs[0]])
    lengths, everything = (10, 20), {n: np.ones((1, n), dtype=bool) for n in (10, 20)}
    sums = {n: reference.sequence_logprobs(np.full((1, n), -0.5), everything[n])[0] for n in lengths}
    means = {
        n: reference.sequence_logprobs(np.full((1, n), -0.5), everything[n], average=True)[0] for n in lengths
    }
    assert means[10] == means[20]
    return {f"tokens {n}": n for n in lengths} | {f"sum {n}": sums[n] for n in lengths} | {"mean": means[10]}
