"""The smallest training steps by hand, and what is refused where arrays and algorithms do not go together."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from reference import tabular
from reference import training as reference
from torch_impl import training as torch_impl

TOKEN: dict[str, Any] = {
    "parameters": [[0.0, 0.0, 0.0]],
    "ref_logits": [[0.0, 0.0]],
    "states": [[0]],
    "actions": [[1]],
    "rewards": [[2.0]],
    "mask": [[True]],
    "bootstrap_value": [0.0],
    "group_ids": [7],
}
"""One state, even odds; the second action was taken, and paid 2."""
PAIR = TOKEN | {
    "states": [[0], [0]],
    "actions": [[0], [1]],
    "rewards": [[1.0], [0.0]],
    "mask": [[True], [True]],
    "bootstrap_value": [0.0, 0.0],
    "group_ids": [7, 7],
}
"""Both actions of the state, of which the first is the better one."""
TWO_STATES = PAIR | {
    "parameters": [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]],
    "ref_logits": [[0.0] * 2] * 2,
    "states": [[0], [1]],
}
"""The same, each in a state of its own."""


def by_reference(call: dict[str, Any], **options: Any) -> Any:
    return reference.train_step(*call.values(), **options)


def by_torch(call: dict[str, Any], **options: Any) -> Any:
    tensors = [
        torch.tensor(x, dtype=torch.float64 if np.asarray(x).dtype == float else None) for x in call.values()
    ]
    return torch_impl.train_step(*tensors, **options).numpy()


both = pytest.mark.parametrize("step", [by_reference, by_torch])
NEARLY_ONE = 1 / (1 + 1e-8)
"""A first step of Adam, whose ε is added to a gradient of 1."""


@both
@pytest.mark.parametrize(
    ("call", "options", "expected"),
    [
        # A = 2 and ρ = 1: -ρA has the slopes -2 (0 - ½) and -2 (1 - ½) in the logits, ¼ (V - 2)² has -1 in V.
        (TOKEN, {"algorithm": "ppo"}, [[-0.25, 0.25, 0.25]]),
        # The second epoch finds ρ beyond 1.2, and the critic at 0.25: ¼ · ½ · 1.75 more.
        (TOKEN, {"algorithm": "ppo", "epochs": 2, "learning_rate": 1.0}, [[-1.0, 1.0, 1.5]]),
        # The gradient (1, -1, -1) has the norm √3.
        (
            TOKEN,
            {"algorithm": "ppo", "max_grad_norm": 3**0.5 / 4, "clip_eps": 0.0},
            [[-0.0625, 0.0625, 0.0625]],
        ),
        (
            TOKEN,
            {"algorithm": "ppo", "optimizer": "adam"},
            [[-0.25 * NEARLY_ONE, 0.25 * NEARLY_ONE, 0.25 * NEARLY_ONE]],
        ),
        # A group of one has no advantage, and the policy is the reference.
        (TOKEN, {"algorithm": "grpo"}, [[0.0, 0.0, 0.0]]),
        # Advantages ±1/√2 over s + ε: (±½) / (1/√2 + 1e-6); the mean over two tokens of -A ([a] - ½).
        (PAIR, {"algorithm": "grpo"}, [[0.0625 / (0.5**0.5 + 1e-6), -0.0625 / (0.5**0.5 + 1e-6), 0.0]]),
        # β σ(0) = ½ β of the logits' difference, 1 for each of the two.
        (PAIR, {"algorithm": "dpo", "beta": 1.0}, [[0.125, -0.125, 0.0]]),
        # Both scores are one number: its gradient is -½ + ½.
        (PAIR, {"algorithm": "reward-model"}, [[0.0, 0.0, 0.0]]),
        (TWO_STATES, {"algorithm": "reward-model"}, [[0.0, 0.0, 1.125], [0.0, 0.0, 0.875]]),
    ],
)
def test_by_hand(step: Any, call: dict[str, Any], options: dict[str, Any], expected: Any) -> None:
    got = step(call, **{"learning_rate": 0.25, **options})
    assert np.array_equal(np.round(got, 12), np.round(expected, 12))


ALGORITHMS = ("ppo", "grpo", "dpo", "reward-model", "trpo")


@both
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_rows_change_nothing(step: Any, algorithm: str) -> None:
    none = {name: np.array(TOKEN[name])[:0] for name in list(TOKEN)[2:]}
    got = step(TOKEN | none, algorithm=algorithm, learning_rate=0.25)
    assert np.array_equal(got, TOKEN["parameters"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_step_is_taken_where_nothing_is_recorded_too(algorithm: str) -> None:
    """And it records nothing for who asks for it."""
    batch = PAIR if algorithm in ("grpo", "dpo") else TWO_STATES
    expected = by_torch(batch, algorithm=algorithm, learning_rate=0.25)
    assert expected.any()
    with torch.no_grad():
        assert np.array_equal(by_torch(batch, algorithm=algorithm, learning_rate=0.25), expected)


@both
def test_a_step_of_a_trust_region_by_hand(step: Any) -> None:
    """F = ¼ (1, -1; -1, 1), g = (-1, 1): s = (-2, 2), s·F s = 4, and half of Δ·F Δ is δ for Δ = √(δ/2) s."""
    free = {"learning_rate": 0.0, "damping": 0.0, "cg_iters": 1, "max_kl": 1e-8}
    logit = float(step(TOKEN, algorithm="trpo", **free)[0, 1])
    assert round(logit / math.sqrt(1e-8 / 2) / 2, 3) in (1.0, 0.5)
    assert np.array_equal(step(TOKEN | {"mask": [[False]]}, algorithm="trpo", **free), [[0.0, 0.0, 0.0]])


@both
def test_a_slope_of_hardly_anything_is_none(step: Any) -> None:
    """The mean over two tokens has the slope (r, -r) / 4, of norm r / √8: at most 1e-10 for r = 2e-10."""
    for paid, moves in ((2e-10, False), (4e-10, True)):
        got = step(PAIR | {"rewards": [[paid], [0.0]]}, algorithm="trpo", learning_rate=0.0)
        assert got.any() == moves


def test_the_table_is_what_the_search_has_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what it has looked at last."""

    @torch.no_grad()
    def search(evaluate: Any, parameters: torch.Tensor, step: torch.Tensor, **_: Any) -> torch.Tensor:
        evaluate(parameters + step)
        return parameters - step

    expected = by_torch(TOKEN, algorithm="trpo", learning_rate=0.0)
    monkeypatch.setattr(torch_impl, "backtracking_line_search", search)
    assert np.array_equal(by_torch(TOKEN, algorithm="trpo", learning_rate=0.0), -expected)
    assert expected.any()


@both
def test_an_action_that_is_ruled_out_stays_so_in_a_trust_region(step: Any) -> None:
    table, free = [[0.0, 0.0, -math.inf, 0.0]], {"max_kl": 0.01, "damping": 0.0}
    ruled_out = TOKEN | {"parameters": table, "ref_logits": [[0.0, 0.0, 0.0]]}
    got = step(ruled_out, algorithm="trpo", learning_rate=0.0, **free)
    of_two = step(TOKEN, algorithm="trpo", learning_rate=0.0, **free)
    assert of_two[0, 1] > 0
    assert got[0, 2] == -math.inf
    assert np.array_equal(np.round(np.delete(got, 2, axis=1), 12), np.round(of_two, 12))


@both
@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (TOKEN, {"algorithm": "dpo"}, "states must be rows in pairs for algorithm='dpo', got 1 rows"),
        (
            PAIR,
            {"algorithm": "reward-model", "minibatch_rows": 1},
            "minibatch_rows must be rows in pairs for algorithm='reward-model', got 1 rows",
        ),
        (
            TOKEN | {"parameters": [[0.0, 0.0]]},
            {"algorithm": "ppo"},
            "parameters must have shape (1, 3) to agree with ref_logits, got (1, 2)",
        ),
        (
            TOKEN | {"ref_logits": [[0.0, 0.0, 0.0]]},
            {"algorithm": "ppo"},
            "parameters must have shape (1, 4) to agree with ref_logits, got (1, 3)",
        ),
    ],
)
def test_what_does_not_go_together(
    step: Any, call: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        step(call, learning_rate=0.25, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(("name", "value", "below"), [("states", 1, 1), ("actions", 2, 2), ("states", -1, 1)])
def test_what_the_table_does_not_have(name: str, value: int, below: int) -> None:
    """Read by the reference; a device does not wait to look."""
    with pytest.raises(ValueError, match="must lie in") as caught:
        by_reference(TOKEN | {name: [[value]]}, algorithm="ppo", learning_rate=0.25)
    assert str(caught.value) == f"{name} must lie in [0, {below}), got {value} to {value}"


@pytest.mark.parametrize("states", [[-1, 0], [0, 1]])
def test_what_the_table_does_not_have_beside_what_it_has(states: list[int]) -> None:
    two = TOKEN | {"states": [states], "actions": [[0, 1]], "rewards": [[1.0, 2.0]], "mask": [[True, True]]}
    with pytest.raises(ValueError, match="states must lie in") as caught:
        by_reference(two, algorithm="ppo", learning_rate=0.25)
    assert str(caught.value) == f"states must lie in [0, 1), got {states[0]} to {states[1]}"


@both
@pytest.mark.parametrize("algorithm", reference.ALGORITHMS)
def test_what_an_algorithm_does_not_read_is_checked_as_well(step: Any, algorithm: str) -> None:
    for name in ("rewards", "mask", "bootstrap_value", "group_ids"):
        with pytest.raises(ValueError, match=f"^{name} must "):
            step(PAIR | {name: [PAIR[name]]}, algorithm=algorithm, learning_rate=0.25)


@pytest.mark.parametrize(
    ("name", "limit", "side", "at_limit"),
    [
        ("approx_kl", 0.02, +1, False),
        ("clip_range", 0.4, +1, False),
        ("batch_size", 128, -1, False),
        ("group_size", 32, -1, False),
        ("beta", 0.3, +1, True),
        ("learning_rate", 10 * 8e-7, +1, False),
    ],
)
def test_alarms_ring_beyond_the_limits(name: str, limit: float, side: int, at_limit: bool) -> None:
    for step, rings in ((0, at_limit), (side, True), (-side, False)):
        assert reference.alarms("grpo", {name: limit * (1 + step / 256)}) == {name: rings}


@pytest.mark.parametrize(
    "name", ["approx_kl", "clip_range", "batch_size", "group_size", "beta", "learning_rate"]
)
def test_alarms_ring_where_there_is_no_number(name: str) -> None:
    assert reference.alarms("ppo", {name: math.nan}) == {name: True}


def test_alarms_of_unknown_names() -> None:
    with pytest.raises(ValueError, match="algorithm must be one of 'ppo', 'grpo', got str 'dpo'"):
        reference.alarms("dpo", {})
    with pytest.raises(ValueError, match="measured must be one of 'approx_kl', "):
        reference.alarms("ppo", {"kl": 0.1})


@pytest.mark.parametrize("rows", range(4))
@pytest.mark.parametrize("size", [None, 1, 2, 3])
def test_minibatches_have_every_row_once(rows: int, size: int | None) -> None:
    """None of them is empty, but for the only one of a batch without rows."""
    parts = [range(rows)[part] for part in tabular.minibatches(rows, size)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert [len(part) for part in parts] == [0] if rows == 0 else all(map(len, parts))
