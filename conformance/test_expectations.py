"""Means over every outcome of small distributions: what an operation estimates, and what it pulls towards.

The clauses named last in each test are identities between means. They bind nobody by themselves; they follow
from the clause named first, and a backend that breaks one breaks that one.
"""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from flint import arb

from conformance.answers import Answer
from conformance.cases import Case
from conformance.enumeration import (
    Policies,
    call,
    divergence_gradient,
    drawn,
    exact_in_logits,
    exactly,
    expect,
    in_logits,
    log_ratio,
    logs,
    probabilities,
    read_as,
    results,
    rounded,
    slopes,
)
from conformance.marks import clauses, operations
from conformance.reproduction import Call
from conformance.run import Run
from conformance.values import MODES

UNCLIPPED = 0.5
"""Any clip serves where the ratio is 1."""


@clauses("kl.estimators", "kl.unbiased")
@operations("kl_estimate")
def test_means_of_estimates(run: Run) -> None:
    """E_π[k1] = E_π[k3] = KL(π‖π_ref)."""

    def check(p: Policies) -> None:
        for name in ("k1", "k3"):
            case = _estimate(run, p, name)
            over_tokens = partial(_mean, p.policy)
            mean, shown = over_tokens(results(run, case)), _read(p, Call(case), over_tokens)
            expect(run, shown, {f"the mean of {name} over tokens of the policy": (mean, _divergence(p))})

    _each(run, check)


@clauses("kl.estimator-gradients", "kl.gradient-estimand")
@operations("kl_estimate")
def test_mean_gradients_of_estimates(run: Run) -> None:
    """E_π[∇k1] = 0, E_π[∇k2] = ∇KL(π‖π_ref), E_π[∇k3] = ∇KL(π_ref‖π), in the logits."""

    def check(p: Policies) -> None:
        opposite = [exactly(a - b) for a, b in zip(*map(probabilities, (p.policy, p.ref)), strict=True)]
        targets = {
            "k1": [arb(0)] * len(p.policy),
            "k2": divergence_gradient(p.policy, p.ref),
            "k3": opposite,
        }
        for name, target in targets.items():
            case = _estimate(run, p, name)
            upstream = _row(p.policy)

            def pulled(found: list[Answer]) -> list[Answer]:
                return in_logits(p.policy, _over(p.policy, found))

            means = pulled(slopes(run, case, "logprobs", upstream))
            shown = _read(p, Call(case, "logprobs", upstream), pulled)
            expect(run, shown, _each_logit(f"E[∇{name}]", means, target))

    _each(run, check)


@clauses("kl.estimators", "kl.in-reward")
@operations("kl_estimate")
def test_estimate_in_reward(run: Run) -> None:
    """E_π[-k1 ∇log π] = -∇KL(π‖π_ref)."""

    def check(p: Policies) -> None:
        case = _estimate(run, p, "k1")
        less = [-q for q in probabilities(p.policy)]
        pulled = partial(_weighed, p.policy, less)
        target = [-x for x in divergence_gradient(p.policy, p.ref)]
        means = _each_logit("E[-k1 ∇log π]", pulled(results(run, case)), target)
        expect(run, _read(p, Call(case), pulled), means)

    _each(run, check)


@clauses("rm.shaping", "kl.in-reward")
@operations("shaped_rewards")
def test_shaped_rewards(run: Run) -> None:
    """Responses of one token: E_π[(score - β k1) ∇log π] = ∇(E_π[score] - β KL(π‖π_ref))."""

    def check(p: Policies) -> None:
        every = {
            "scores": np.array(p.worth, dtype=np.float64),
            "logprobs": logs(run, p.policy).T,
            "ref_logprobs": logs(run, p.ref).T,
            "mask": np.ones((len(p.worth), 1), dtype=bool),
        }
        case = call(run, "shaped_rewards", every, kl_coef=0.5, estimator="k1")
        pulled = partial(_weighed, p.policy, probabilities(p.policy))
        for_scores = _policy_gradient(p.policy, p.worth)
        for_divergence = divergence_gradient(p.policy, p.ref)
        target = [a - b / 2 for a, b in zip(for_scores, for_divergence, strict=True)]
        means = _each_logit("E[reward · ∇log π]", pulled(results(run, case)), target)
        expect(run, _read(p, Call(case), pulled), means)

    _each(run, check)


@clauses("kl.estimator-gradients", "kl.off-policy")
@operations("kl_estimate")
def test_off_policy(run: Run) -> None:
    """Tokens of μ: ∇(ρ k1), ∇(ρ k3) and ρ ∇k2 have the mean ∇KL(π‖π_ref), and ρ k1, ρ k3 the mean KL."""

    def check(p: Policies) -> None:
        rho = [a / b for a, b in zip(*map(probabilities, (p.policy, p.behaviour)), strict=True)]
        target = divergence_gradient(p.policy, p.ref)
        for name, live in (("k1", True), ("k3", True), ("k2", False)):
            case = _estimate(run, p, name)
            estimates = results(run, case)
            through_k = slopes(run, case, "logprobs", _row(p.behaviour))
            pulls = [r * slope for r, slope in zip(rho, through_k, strict=True)]
            if live:
                through_rho = [share * r for share, r in zip(p.behaviour, rho, strict=True)]
                pulls = [x + k * slope for x, k, slope in zip(pulls, estimates, through_rho, strict=True)]
                mean = _mean(p.behaviour, [r * k for r, k in zip(rho, estimates, strict=True)])
                told = "note       the code gives the estimates; ρ weighs them, and μ"
                means = {f"the mean of ρ {name} over tokens of μ": (mean, _divergence(p))}
                expect(run, Call(case), means, told)
            label = f"E[∇(ρ {name})]" if live else f"E[ρ ∇{name}]"
            pulls = _over(p.behaviour, pulls)
            told = f"note       the code gives ∇{name} times shares of μ; the mean is in the logits, with ρ"
            shown = Call(case, "logprobs", _row(p.behaviour))
            expect(run, shown, _each_logit(label, in_logits(p.policy, pulls), target), told)

    _each(run, check)


@clauses("is.ratio", "is.unbiased")
@operations("importance_ratio")
def test_mean_of_ratios(run: Run) -> None:
    """E_old[ρ] = 1, and E_old[ρ f] = E_π[f]."""

    def check(p: Policies) -> None:
        case = call(run, "importance_ratio", _pair(run, p.policy, p.behaviour, "old_logprobs"))

        def both(ratios: list[Answer]) -> list[Answer]:
            weighted = [r * f for r, f in zip(ratios, p.worth, strict=True)]
            return [_mean(p.behaviour, ratios), _mean(p.behaviour, weighted)]

        labels = ("the mean of ρ over old tokens", "the mean of ρ f over old tokens")
        pairs = zip(both(results(run, case)), (arb(1), _worth(p)), strict=True)
        expect(run, _read(p, Call(case), both), dict(zip(labels, pairs, strict=True)))

    _each(run, check)


@clauses("is.gradient-of-ratio", "is.gradient")
@operations("importance_ratio")
def test_gradient_of_surrogate(run: Run) -> None:
    """∇E_old[ρ A] = E_π[A ∇log π], in the logits."""

    def check(p: Policies) -> None:
        case = call(run, "importance_ratio", _pair(run, p.policy, p.behaviour, "old_logprobs"))
        upstream = _row([m * a for m, a in zip(p.behaviour, p.worth, strict=True)])

        def pulled(found: list[Answer]) -> list[Answer]:
            return in_logits(p.policy, _over(p.behaviour, found))

        means = pulled(slopes(run, case, "logprobs", upstream))
        shown = _read(p, Call(case, "logprobs", upstream), pulled)
        expect(run, shown, _each_logit("∇E[ρ A]", means, _policy_gradient(p.policy, p.worth)))

    _each(run, check)


@clauses("is.estimator", "is.unbiased")
@operations("importance_sampling_mean")
def test_mean_of_the_estimator(run: Run) -> None:
    """The mean over every pair of samples of μ is E_π[f]."""

    def check(p: Policies) -> None:
        worth, chances = np.array(p.worth, dtype=np.float64), probabilities(p.behaviour)
        log_weights = rounded(run, log_ratio(p.policy, p.behaviour))
        mean = Answer.of(0)
        for pair in itertools.product(range(len(worth)), repeat=2):
            given = {"f_values": worth[list(pair)], "log_weights": log_weights[list(pair)]}
            case = call(run, "importance_sampling_mean", given, self_normalized=False)
            [estimate] = results(run, case)
            mean = mean + chances[pair[0]] * chances[pair[1]] * estimate
        told = f"note       the code gives the estimate of the last of {len(worth) ** 2} pairs"
        means = {"the mean of the estimate over pairs of samples": (mean, _worth(p))}
        expect(run, Call(case), means, told)

    _each(run, check)


@clauses("grpo.leave-one-out", "grpo.leave-one-out-scale")
@operations("rloo_advantages")
def test_leave_one_out(run: Run) -> None:
    """Over every group: the policy gradient itself."""
    _each(run, lambda p: _groups(run, p, "rloo_advantages", lambda size: Fraction(1)))


@clauses("grpo.advantage", "grpo.leave-one-out-scale")
@operations("group_advantages")
def test_mean_of_the_group(run: Run) -> None:
    """Over every group, without the division: (G - 1)/G times the policy gradient."""
    scale = {"scale": "none"}
    _each(run, lambda p: _groups(run, p, "group_advantages", lambda size: Fraction(size - 1, size), **scale))


@clauses("grpo.on-policy-gradient", "grpo.length-bias")
@operations("grpo_loss")
def test_length_bias(run: Run) -> None:
    """On policy a token's gradient is -A times 1/(B |o|), 1/Σ|o|, 1/B or 1/(B L), by the mode."""

    def check(p: Policies) -> None:
        lengths = (len(p.policy), 5)
        mask = np.arange(5) < np.array(lengths)[:, None]
        tokens = np.resize(logs(run, p.behaviour), mask.shape)
        same = {name: tokens.copy() for name in ("logprobs", "old_logprobs", "ref_logprobs")}
        worth = {"advantages": np.array(p.worth[:2], dtype=np.float64)}
        clip = {"clip_low": UNCLIPPED, "clip_high": UNCLIPPED}
        divisors = {"token-mean": [sum(lengths)] * 2, "seq-mean-token-sum": [2, 2]}
        divisors |= {"seq-mean-token-mean": [2 * n for n in lengths], "seq-mean-token-sum-norm": [14, 14]}
        for mode in MODES:
            options = {**clip, "kl_coef": 0.0, "aggregation": mode, "horizon": 7, "ratio_level": "token"}
            case = call(run, "grpo_loss", {**same, **worth, "mask": mask}, **options)
            upstream = np.array(2.0)
            found = slopes(run, case, "logprobs", upstream)
            first = [found[0], found[5]]
            target = [exactly(Fraction(-2 * a, n)) for a, n in zip(p.worth, divisors[mode], strict=False)]
            label = f"gradient with {mode}, of the first token of response"
            shown = Call(case, "logprobs", upstream, read="{answer}[:, 0]")
            expect(run, shown, _each_logit(label, first, target))

    _each(run, check)


def _each(run: Run, check: Callable[[Policies], None]) -> None:
    """Check every draw, and count it."""
    for policies in drawn(run):
        run.count(check, policies)


def _pair(run: Run, policy: tuple[int, ...], other: tuple[int, ...], beside: str) -> dict[str, np.ndarray]:
    return {"logprobs": logs(run, policy), beside: logs(run, other)}


def _estimate(run: Run, p: Policies, name: str) -> Case:
    """The estimate of every token of the vocabulary."""
    return call(run, "kl_estimate", _pair(run, p.policy, p.ref, "ref_logprobs"), estimator=name)


def _read(p: Policies, call: Call, formula: Callable[[list[Answer]], Any]) -> Call:
    """The call on every token, with what a formula makes of its answer."""
    return read_as(call, formula, len(p.policy))


def _weighed(policy: tuple[int, ...], weights: list[Fraction], numbers: list[Answer]) -> list[Answer]:
    """What numbers of tokens, times weights, pull towards, in the logits."""
    return in_logits(policy, [w * x for w, x in zip(weights, numbers, strict=True)])


def _row(numbers: Any) -> np.ndarray:
    return np.array([numbers], dtype=np.float64)


def _mean(shares: tuple[int, ...], numbers: list[Answer]) -> Answer:
    terms = [p * x for p, x in zip(probabilities(shares), numbers, strict=True)]
    return sum(terms[1:], terms[0])


def _over(shares: tuple[int, ...], numbers: list[Answer]) -> list[Answer]:
    """What upstream multiplied by shares, over their sum: weighted by probabilities, and nothing rounded."""
    return [Fraction(1, sum(shares)) * x for x in numbers]


def _divergence(p: Policies) -> arb:
    """KL(π‖π_ref), written out."""
    terms = zip(probabilities(p.policy), log_ratio(p.policy, p.ref), strict=True)
    return sum((exactly(q) * x for q, x in terms), arb(0))


def _worth(p: Policies) -> arb:
    """E_π[f]."""
    return exactly(sum(q * f for q, f in zip(probabilities(p.policy), p.worth, strict=True)))


def _policy_gradient(policy: tuple[int, ...], worth: tuple[int, ...]) -> list[arb]:
    """E_π[f ∇log π] in the logits."""
    terms = zip(probabilities(policy), worth, strict=True)
    return exact_in_logits(policy, [exactly(q * f) for q, f in terms])


def _each_logit(label: str, made: list[Answer], target: list[arb]) -> dict[str, tuple[Answer, arb]]:
    return {f"{label}[{j}]": pair for j, pair in enumerate(zip(made, target, strict=True))}


def _groups(run: Run, p: Policies, operation: str, factor: Callable[[int], Fraction], **options: Any) -> None:
    """All groups of two and of three answers in one call: the mean of their gradients, in the logits."""
    policy, worth = probabilities(p.policy), np.array(p.worth, dtype=np.float64)
    for size in (2, 3):
        groups = list(itertools.product(range(len(policy)), repeat=size))
        answers_in_rows = np.array(groups).ravel()
        ids = np.repeat(np.arange(len(groups)), size)
        case = call(run, operation, {"scores": worth[answers_in_rows], "group_ids": ids}, **options)
        found = iter(results(run, case))
        weights = [Answer.of(0)] * len(policy)
        for group in groups:
            chance = math.prod((policy[k] for k in group), start=Fraction(1, size))
            for k in group:
                weights[k] = weights[k] + chance * next(found)
        target = [exactly(factor(size)) * x for x in _policy_gradient(p.policy, p.worth)]
        label = f"mean over groups of {size} of A ∇log π"
        told = f"note       the code gives A in every group of {size}; a group weighs what its chance is"
        expect(run, Call(case), _each_logit(label, in_logits(p.policy, weights), target), told)
