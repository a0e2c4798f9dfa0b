"""Derivations of the chapter `gae` that take means: bias, variance, whitening.

The first step of the argument is always algebra on the reference's own expressions; the rest is exact
enumeration, of small tabular processes or of finite samples.
"""

import itertools
from typing import Any

import numpy as np
import sympy

from reference import gae as reference
from reference import numbers
from reference.numbers import symbols
from spec import tabular
from spec.markov import Process, processes
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import GAMMA, HALF, LAM, LONGEST, ONE, ZERO, K, Rows, first_step_and_tail, row


@derivation("gae.td-error", status="proved")
def td_error_unbiased() -> Numbers:
    """E[δ | s, a] = E[r] + γ E[V(s')] - V(s), which is Q - V when V = V^π; wrong V, wrong sign."""
    steps = row(1)
    reward, value, following = steps.rewards[0, 0], steps.values[0, 0], steps.bootstrap_value[0]
    error = reference.td_errors(*steps, gamma=GAMMA)[0, 0]
    agree(error, reward + GAMMA * following - value)  # affine in r and V(s'), so it passes to means
    lead_to_u, lead_to_w = (tabular.Action(HALF, ZERO, {state: ONE}) for state in "uw")
    process = {
        "s": (lead_to_u, lead_to_w),
        "u": (tabular.Action(ONE, ONE, {}),),
        "w": (tabular.Action(ONE, ZERO, {}),),
    }
    advantage = tabular.action_value(process, "s", 0, ONE) - tabular.state_value(process, "s", ONE)
    start, u, w = (tabular.state_value(process, state, ONE) for state in "suw")
    step_to_u = error.subs({reward: 0, value: start, GAMMA: 1})
    agree(step_to_u.subs(following, u), advantage)
    exchanged = step_to_u.subs(following, w)
    assert exchanged == -advantage
    return {"V(s)": start, "A": advantage, "mean of δ with V(u) and V(w) exchanged": exchanged}


@derivation("gae.variance", status="verified for n <= 4")
def variance_is_a_double_sum() -> None:
    """The code's A on two outcomes of n TD errors, of any values and probability: its variance, exactly."""
    p = sympy.Symbol("p", real=True)
    for count in range(1, 5):
        errors = symbols.array("d", (2, count))
        nothing, everything = np.zeros_like(errors), np.ones(errors.shape, dtype=bool)
        advantage = reference.gae(errors, nothing, everything, nothing[:, 0], gamma=GAMMA, lam=LAM)[:, 0]
        mean, mean_square = (p * x[0] + (1 - p) * x[1] for x in (advantage, advantage**2))
        means = p * errors[0] + (1 - p) * errors[1]
        second = p * np.outer(errors[0], errors[0]) + (1 - p) * np.outer(errors[1], errors[1])
        covariance = second - np.outer(means, means)
        agree(mean_square - mean**2, reference.gae_variance(covariance, gamma=GAMMA, lam=LAM))


@derivation("gae.variance", status="proved")
def variance_of_uncorrelated() -> Numbers:
    """(1 - x²) x^(2k) = x^(2k) - x^(2k+2) with x = γλ sums to the closed form; its terms grow with λ."""
    weight = GAMMA * LAM
    agree((1 - weight**2) * weight ** (2 * K), weight ** (2 * K) - weight ** (2 * K + 2))
    for count in range(1, LONGEST + 1):
        identity = np.array(sympy.eye(count).tolist(), dtype=object)
        variance: Any = reference.gae_variance(identity, gamma=GAMMA, lam=LAM)
        agree(variance * (1 - weight**2), 1 - weight ** (2 * count))
        agree(variance.subs({GAMMA: 1, LAM: 1}), count)
    gamma, lam = sympy.symbols("gamma lambda", positive=True)
    power = sympy.Symbol("k", integer=True, positive=True)
    assert sympy.diff((gamma * lam) ** power, lam).is_positive
    whole, part = (reference.gae_variance(np.eye(1000), gamma=1.0, lam=lam) for lam in (1.0, 0.95))
    return {"tokens": 1000, "λ": 0.95, "at λ = 1": whole, "at λ = 0.95": part}


@derivation("gae.variance", status="witnessed")
def variance_not_monotone() -> Numbers:
    """Two TD errors of variance 1 and covariance -0.9: longer sums cancel noise, up to λ = 0.9."""
    covariance = np.array([[1.0, -0.9], [-0.9, 1.0]])
    variances = {lam: reference.gae_variance(covariance, gamma=1.0, lam=lam) for lam in (0.0, 0.9, 1.0)}
    assert variances[0.0] > variances[1.0] > variances[0.9] > 0
    return {"covariance": -0.9, "λ": 0.9} | {f"variance at {lam}": x for lam, x in variances.items()}


@derivation("gae.unbiased", status="proved")
def unbiased_at_every_lambda() -> Numbers:
    """E[A_0] = E[δ_0] + γλ E[A_1], and E[A_1 | s_1] = 0: an induction, then all trajectories of processes."""
    steps, target = first_step_and_tail()
    tail = target - steps.values[0, 1]
    advantage = reference.gae(*steps, gamma=GAMMA, lam=LAM)[0, 0]
    agree(advantage, reference.td_errors(*steps, gamma=GAMMA)[0, 0] + GAMMA * LAM * tail)
    process = _process()
    true_values = {state: tabular.state_value(process, state, GAMMA) for state in process}
    for step, mean in mean_advantages(process, true_values).items():
        agree(mean, tabular.action_value(process, step.state, step.action, GAMMA) - true_values[step.state])
    estimated = {state: sympy.Symbol(f"V_{state}") for state in process}
    for step, mean in mean_advantages(process, estimated).items():
        true = tabular.action_value(process, step.state, step.action, GAMMA)
        agree(mean.subs(LAM, 1), true - estimated[step.state])
    for known, policy, _ in processes():
        agree(truncated_advantages(known, policy), known.advantages(policy))
    return _preferences(process, true_values)


def truncated_advantages(process: Process, policy: Any) -> Any:
    """E[A_0 | s_0, a_0] of episodes without an end, cut off after two steps, where V^π(s_2) stands."""
    states, actions = process.rewards.shape
    values = process.values(policy)
    paths = list(
        itertools.product(range(states), range(actions), range(states), range(actions), range(states))
    )
    s, a, u, b, w = np.array(paths).T
    rewards = np.stack([process.rewards[s, a], process.rewards[u, b]], axis=1)
    rows = Rows(rewards, np.stack([values[s], values[u]], axis=1), np.full((len(paths), 2), True), values[w])
    advantages = reference.gae(*rows, gamma=process.gamma, lam=LAM)[:, 0]
    weights = process.following[s, a, u] * policy[u, b] * process.following[u, b, w]
    return np.sum((weights * advantages).reshape(states, actions, -1), axis=2)


def _preferences(process: tabular.Process, true_values: dict[str, Any]) -> Numbers:
    """By how much the first action of s looks better than the second, with V = V^π and with V = 0."""
    first, second = tabular.Step("s", 0), tabular.Step("s", 1)
    numbers: Numbers = {}
    for name, values in (("V^π", true_values), ("0", dict.fromkeys(process, ZERO))):
        means = mean_advantages(process, values)
        for lam in (0, 1):
            numbers[f"V = {name}, λ = {lam}"] = (means[first] - means[second]).subs({LAM: lam, GAMMA: 1})
    return numbers


def _process() -> tabular.Process:
    """Five states, two to three steps to the end, chance in the actions and in what follows."""
    third, quarter = sympy.Rational(1, 3), sympy.Rational(1, 4)
    action = tabular.Action
    return {
        "s": (action(third, ONE, {"u": third, "w": 2 * third}), action(2 * third, 2 * ONE, {"w": ONE})),
        "u": (action(HALF, 2 * ONE, {}), action(HALF, ZERO, {"x": ONE})),
        "w": (action(quarter, -ONE, {"y": ONE}), action(3 * quarter, 3 * ONE, {})),
        "x": (action(HALF, 12 * ONE, {}), action(HALF, 18 * ONE, {})),
        "y": (action(ONE, -2 * ONE, {}),),
    }


def mean_advantages(process: tabular.Process, values: dict[str, Any]) -> dict[tabular.Step, Any]:
    """E[A_t | s_t, a_t] for every state and action, from the code's A on every trajectory."""
    found = list(tabular.trajectories(process, "s"))
    advantages = reference.gae(*_batch(process, values, [steps for _, steps in found]), gamma=GAMMA, lam=LAM)
    weighted: dict[tabular.Step, Any] = {}
    weights: dict[tabular.Step, Any] = {}
    for (probability, steps), estimates in zip(found, advantages, strict=True):
        for step, estimate in zip(steps, estimates, strict=False):
            weighted[step] = weighted.get(step, 0) + probability * estimate
            weights[step] = weights.get(step, 0) + probability
    return {step: total / weights[step] for step, total in weighted.items()}


def _batch(process: tabular.Process, values: dict[str, Any], found: list[tuple[tabular.Step, ...]]) -> Rows:
    """One row a trajectory, padded on the right; every episode ends by itself."""
    width = max(map(len, found))
    rewards, state_values = (np.full((len(found), width), sympy.nan, dtype=object) for _ in range(2))
    for b, steps in enumerate(found):
        rewards[b, : len(steps)] = [process[step.state][step.action].reward for step in steps]
        state_values[b, : len(steps)] = [values[step.state] for step in steps]
    mask = np.arange(width) < np.array([[len(steps)] for steps in found])
    return Rows(rewards, state_values, mask, np.full(len(found), ZERO, dtype=object))


@derivation("gae.whitening", status="verified for n <= 4")
def whitening_moments() -> Numbers:
    """Mean 0 and variance v/(v + ε); the mean put back; equal values and too few give 0."""
    eps = sympy.Symbol("epsilon", positive=True)
    for count, ddof in itertools.product(range(2, 5), (0, 1)):
        x, mask = symbols.array("x", (1, count + 1)), np.array([[True] * count + [False]])
        active = x[0, :count]
        mean = sum(active) / count
        variance = sum((active - mean) ** 2) / (count - ddof)
        white = reference.whiten(x, mask, ddof=ddof, eps=eps)[0, :count]
        agree(sum(white), 0)
        agree(sum(white**2) / (count - ddof) * (variance + eps), variance)
        shifted = reference.whiten(x, mask, shift_mean=False, ddof=ddof, eps=eps)[0, :count]
        agree(shifted, white + mean)
        same = np.full((1, count), sympy.Symbol("c", real=True), dtype=object)
        agree(reference.whiten(same, mask[:, :count], ddof=ddof, eps=eps), np.zeros((1, count), dtype=int))
    few = reference.whiten(symbols.array("x", (1, 2)), np.array([[True, False]]), ddof=1)
    agree(few, np.zeros((1, 2), dtype=int))
    return _two_values()


@derivation("gae.whitening", status="proved")
def running_mean() -> None:
    """The mean of one more is S/(k-1) + (x - S/(k-1))/k = (S + x)/k; and the code's mean, up to n = 5."""
    total, x = sympy.symbols("S x", real=True)
    before = total / (K - 1)
    agree(before + (x - before) / K, (total + x) / K)
    for count in range(2, LONGEST + 1):
        x, mask = symbols.array("x", (1, count)), np.full((1, count), True)
        whitened, moved = (reference.whiten(x, mask, shift_mean=shift, eps=ONE) for shift in (True, False))
        agree(moved, whitened + numbers.running_mean(x))


def _two_values() -> Numbers:
    """What ddof changes on the values 1 and 3, and eps on two values whose variance it equals."""
    mask, pair = np.array([[True, True]]), np.array([[1.0, 3.0]])
    found: Numbers = {"the larger value": 3}
    for ddof in (0, 1):
        low, high = reference.whiten(pair, mask, ddof=ddof)[0]
        found |= {f"1 with ddof {ddof}": low, f"3 with ddof {ddof}": high}
    found["variance where v = ε"] = np.var(reference.whiten(pair, mask, ddof=0, eps=1.0))
    return found
