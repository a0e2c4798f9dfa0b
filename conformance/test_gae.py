"""The clauses of the chapter `gae`: what each operation returns, and what that amounts to."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from conformance.cases import VALUE_REGIONS, Case, ordinary
from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.oracle import judged, permitted
from conformance.run import Run
from conformance.values import option_values
from reference import gae as reference

ROW_ENDS = ("terminated", "truncated")


@clauses("gae.td-error")
@operations("td_errors")
def test_td_errors(run: Run) -> None:
    """δ_t = r_t + γ V_{t+1} - V_t."""
    run.over((*VALUE_REGIONS, *ROW_ENDS), run.conforms)


@clauses("gae.n-step")
@operations("n_step_advantages")
def test_n_step_advantages(run: Run) -> None:
    """n rewards, then the value of the state they lead to, however many."""
    run.over((*VALUE_REGIONS, *ROW_ENDS), run.conforms)
    limits = run.backend.limits(run.operation)
    steps = max(limits.get("n", option_values(run.operation, "n")))
    long_row = ordinary(run.operation, run.dtype, limits, sizes={"B": 1, "T": steps + 3})
    run.tally.expected += 1
    run.count(run.conforms, long_row.with_options(n=steps))


@clauses("gae.telescoping", "gae.n-step-recursion")
@operations("n_step_advantages")
def test_one_step_is_the_td_error(run: Run) -> None:
    """A^(1)_t = δ_t, where both recursions over n begin."""
    run.over(
        VALUE_REGIONS,
        lambda case: run.conforms(case, lambda *rows, gamma, n: reference.td_errors(*rows, gamma=gamma)),
        n=1,
    )


@clauses("gae.backward-recursion", "gae.sum-of-td-errors")
@operations("gae")
def test_gae(run: Run) -> None:
    """A_t = δ_t + γλ A_{t+1}."""
    run.over((*VALUE_REGIONS, *ROW_ENDS), run.conforms)


@clauses("gae.definition")
@operations("gae")
def test_gae_is_the_weighted_mean_of_n_step_advantages(run: Run) -> None:
    """A_t = (1-λ) Σ λ^{n-1} A^(n)_t, the last weight λ^{N-1}."""

    def by_definition(*rows: Any, masked: str, **discounts: Any) -> np.ndarray:
        return reference.gae_by_definition(*rows, **discounts)

    run.over(VALUE_REGIONS, lambda case: run.conforms(case, by_definition), max_tokens=8, masked="skip")


@clauses("gae.lambda-zero")
@operations("gae")
def test_lambda_zero(run: Run) -> None:
    """λ = 0: A_t = δ_t, exactly where that is exact."""

    def td_errors(*rows: np.ndarray, gamma: float, lam: float, masked: str) -> np.ndarray:
        return reference.td_errors(*rows, gamma=gamma)

    run.over((*VALUE_REGIONS, *ROW_ENDS), lambda case: run.conforms(case, td_errors), lam=0.0, masked="skip")


@clauses("gae.lambda-one")
@operations("gae")
def test_lambda_one(run: Run) -> None:
    """λ = 1: A_t is the Monte Carlo return minus V_t, exactly where that is exact."""

    def return_minus_value(
        rewards: np.ndarray, values: np.ndarray, mask: np.ndarray, bootstrap_value: np.ndarray,
        *, gamma: float, lam: float, masked: str,
    ) -> np.ndarray:  # fmt: skip
        returns = reference.discounted_returns(rewards, mask, bootstrap_value, gamma=gamma)
        return np.asarray(returns - values)

    run.over(
        ("exact", *ROW_ENDS), lambda case: run.conforms(case, return_minus_value), lam=1.0, masked="skip"
    )


@clauses("gae.lambda-one")
@operations("discounted_returns")
def test_discounted_returns(run: Run) -> None:
    """G_t = Σ γ^l r_{t+l}, the bootstrap value behind the last active token."""
    run.over((*VALUE_REGIONS, *ROW_ENDS), run.conforms)


@clauses("gae.lambda-return")
@operations("lambda_returns")
def test_lambda_returns(run: Run) -> None:
    """G_t = A_t + V_t."""
    run.over((*VALUE_REGIONS, *ROW_ENDS), run.conforms)


@clauses("gae.mask")
@operations("gae", "lambda_returns")
def test_masked_positions_are_deleted(run: Run) -> None:
    """With masked="skip", what comes out is the result on rows without the masked positions."""
    operation = OPERATIONS[run.operation].reference
    run.over(
        ("exact", "adversarial", "holes"),
        lambda case: run.conforms(case, lambda *rows, **options: _row_by_row(operation, rows, options)),
        masked="skip",
    )


@clauses("gae.mask")
@operations("gae", "lambda_returns")
def test_masked_positions_are_zero_steps(run: Run) -> None:
    """With masked="zero", holes are time steps with reward and value 0; what lies behind the row is none."""
    operation = OPERATIONS[run.operation].reference

    def with_zero_steps(*rows: np.ndarray, masked: str, **discounts: float) -> np.ndarray:
        rewards, values, mask, bootstrap_value = rows
        steps = np.array([[row[t:].any() for t in range(len(row))] for row in mask], dtype=bool)
        filled = (np.where(mask, x, 0 * discounts["gamma"]) for x in (rewards, values))
        return np.asarray(operation(*filled, steps, bootstrap_value, **discounts))

    run.over(
        ("exact", "adversarial", "holes"), lambda case: run.conforms(case, with_zero_steps), masked="zero"
    )


@clauses("gae.row-end")
@operations("td_errors", "n_step_advantages", "gae", "lambda_returns", "discounted_returns")
def test_row_end(run: Run) -> None:
    """The state behind the last active token has the bootstrap value, wherever the row ends."""
    run.over((*ROW_ENDS, "one-token", "one-active", "nothing-active"), run.conforms)


@clauses("gae.terminal-reward")
@operations("gae")
def test_terminal_reward(run: Run) -> None:
    """A terminal reward r alone gives A_t = (γλ)^{N-1-t} r."""

    def check(case: Case) -> None:
        sparse = _only_terminal_reward(case)
        run.conforms(sparse.with_arguments(values=np.zeros_like(case.arguments["values"])), _decayed_reward)

    run.over(VALUE_REGIONS, check, masked="skip")


@clauses("gae.terminal-reward")
@operations("gae")
def test_terminal_reward_without_discount(run: Run) -> None:
    """γ = λ = 1 and a terminal reward r alone: A_t = r - V_t, exactly where that is exact."""

    def reward_minus_value(
        rewards: np.ndarray, values: np.ndarray, mask: np.ndarray, bootstrap_value: np.ndarray, **_: object
    ) -> np.ndarray:
        return np.asarray(rewards.sum(axis=1)[:, None] - values)

    run.over(
        ("exact", "terminated"),
        lambda case: run.conforms(_only_terminal_reward(case), reward_minus_value),
        gamma=1.0,
        lam=1.0,
        masked="skip",
    )


@clauses("gae.linearity")
@operations("gae")
def test_potential_shaping(run: Run) -> None:
    """Rewards r + γΦ' - Φ with values V - Φ give the advantages of r with V, exactly where that is exact."""

    def check(case: Case) -> None:
        shaped = _shaped_by_potential(case)
        both = permitted(case), permitted(shaped)
        got = run.call(shaped)
        exact = [i for i in judged(case, got) if all(p.exact[i] is not None for p in both)]
        run.seen(
            shaped,
            all(both[0].distance(i, float(got[i])) == 0.0 for i in exact),
            f"got {got.tolist()}, the unshaped advantages are {run.call(case).tolist()}",
        )

    run.over(("exact",), check, masked="skip")


@clauses("gae.unbiased")
@operations("gae")
def test_unbiased_on_a_tree(run: Run) -> None:
    """With the true values, the mean of A_0 over all continuations is the true advantage, at every λ."""

    def check(case: Case) -> None:
        arguments, truth = _tree(case.options["gamma"])
        tree = replace(case, arguments=arguments, region="tree", exact=True)
        got = run.call(tree)
        half = len(got) // 2
        means = [sum(map(Fraction, map(float, part))) / half for part in (got[:half, 0], got[half:, 0])]
        run.seen(tree, means == truth, f"mean A_0 after each first action: {means}, true advantage: {truth}")

    run.over(("exact",), check, masked="skip")


@clauses("gae.whitening")
@operations("whiten")
def test_whiten(run: Run) -> None:
    """(x - mean) / √(var + eps) over all active positions."""
    run.over((*VALUE_REGIONS, "offset", "close"), run.conforms)


@clauses("gae.whitening")
@operations("whiten")
def test_whiten_outlier(run: Run) -> None:
    """One value beside many equal ones is many deviations away from them, and nothing is clipped."""

    def check(case: Case) -> None:
        x = np.full((4, 16), case.arguments["x"][0, 0])
        x[-1, -1] += 4.0
        run.conforms(case.with_arguments(x=x, mask=np.ones(x.shape, dtype=bool)))

    run.over(("exact",), check)


@clauses("gae.whitening")
@operations("whiten")
def test_whiten_too_few(run: Run) -> None:
    """No more active positions than ddof: 0, and never NaN."""
    run.over(("nothing-active", "one-active"), run.conforms)


@clauses("gae.whitening")
@operations("whiten")
def test_whiten_equal_values(run: Run) -> None:
    """Equal values have no spread: 0, or their mean with shift_mean=False; exactly where that is exact."""

    def check(case: Case) -> None:
        first = case.arguments["x"][0, 0]
        run.conforms(case.with_arguments(x=np.full_like(case.arguments["x"], first)))

    run.over(("exact", "adversarial", "holes"), check)


def _row_by_row(operation: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> np.ndarray:
    """Call an operation on each row with its masked positions cut out, and put the results back."""
    rewards, values, mask, bootstrap_value = arrays
    result = rewards - rewards
    for b in np.flatnonzero(mask.any(axis=1)):
        one, kept = slice(b, b + 1), mask[b]
        row = rewards[one, kept], values[one, kept], mask[one, kept], bootstrap_value[one]
        result[b, kept] = operation(*row, **options)[0]
    return np.asarray(result)


def _only_terminal_reward(case: Case) -> Case:
    """Keep each row's reward at its last active token, nothing elsewhere, and terminate the row there."""
    mask, rewards = case.arguments["mask"], case.arguments["rewards"]
    last = mask & ~np.array([[row[t + 1 :].any() for t in range(len(row))] for row in mask])
    zeros = np.zeros_like(case.arguments["bootstrap_value"])
    return case.with_arguments(rewards=np.where(last, rewards, 0.0), bootstrap_value=zeros)


def _decayed_reward(
    rewards: Any, values: Any, mask: np.ndarray, bootstrap_value: Any, *, gamma: Any, lam: Any, masked: str
) -> np.ndarray:
    """(γλ)^{N-1-t} times the row's reward, by counting the active tokens that are still to come."""
    result = rewards - rewards
    for b, t in zip(*np.nonzero(mask), strict=True):
        weight = rewards[b].sum()
        for _ in range(int(mask[b, t + 1 :].sum())):
            weight = gamma * lam * weight
        result[b, t] = weight
    return np.asarray(result)


def _shaped_by_potential(case: Case) -> Case:
    """Shape a case with the potential Φ = 2r; behind a row's end it is twice the bootstrap value."""
    rewards, values, mask, bootstrap_value = case.arguments.values()
    potential, at_end = 2.0 * rewards, 2.0 * bootstrap_value
    shaped = reference.td_errors(rewards, potential, mask, at_end, gamma=case.options["gamma"])
    return case.with_arguments(
        rewards=shaped, values=values - potential, bootstrap_value=bootstrap_value - at_end
    )


def _tree(gamma: float) -> tuple[dict[str, np.ndarray], list[Fraction]]:
    """All 8 paths of a binary tree of depth 3 under a uniform policy, with the true values.

    The reward of action a in node k of its level is (3k + 5a) mod 7. Returns the paths as the rows of a
    batch, those with first action 0 first, and the true advantage of each first action.
    """
    discount = Fraction(gamma)
    value = {(3, k): Fraction(0) for k in range(8)}
    inner = [(level, k, a) for level in range(3) for k in range(2**level) for a in (0, 1)]
    reward = {(level, k, a): Fraction((3 * k + 5 * a) % 7) for level, k, a in inner}
    action_value = {}
    for level in (2, 1, 0):
        for k in range(2**level):
            for a in (0, 1):
                action_value[level, k, a] = reward[level, k, a] + discount * value[level + 1, 2 * k + a]
            value[level, k] = (action_value[level, k, 0] + action_value[level, k, 1]) / 2
    nodes = [
        [(level, path >> (3 - level), path >> (2 - level) & 1) for level in range(3)] for path in range(8)
    ]
    arguments = {
        "rewards": np.array([[float(reward[node]) for node in path] for path in nodes]),
        "values": np.array([[float(value[node[:2]]) for node in path] for path in nodes]),
        "mask": np.ones((8, 3), dtype=bool),
        "bootstrap_value": np.zeros(8),
    }
    return arguments, [action_value[0, 0, a] - value[0, 0] for a in (0, 1)]
