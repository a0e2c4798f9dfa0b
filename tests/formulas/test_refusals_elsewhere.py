"""Formulas of the reference that are no operation refuse bad arguments as operations do."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from reference import (
    checks,
    clipping,
    gae,
    group,
    importance_sampling,
    logprobs,
    optimizer,
    policy_loss,
    preference,
    reward,
    training,
    trust_region,
    value_loss,
)
from tests.formulas.refusals import (
    OPTIONS,
    Kind,
    assert_options_refused,
    assert_shape_refused,
    strangers,
    wrong_shapes,
)

SIZES = {"B": 2, "T": 3, "V": 4, "N": 3, "S": 2, "A": 3}

CLIPS = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}
LEVELS = {"ratio_level": "token", "log_ratio_clip": 20.0}
RATIO = {"logprobs": "BT", "old_logprobs": "BT", "mask": "BT"}
OBJECTIVE = {"ratio": "BT", "advantages": "BT"}
CALLS: tuple[tuple[Any, dict[str, Any], dict[str, Any]], ...] = (
    (clipping.policy_ratio, RATIO, LEVELS),
    (clipping.policy_ratio_gradient, {"upstream": "BT", **RATIO}, LEVELS),
    (clipping.policy_ratio_gradient, {"upstream": "BT", **RATIO}, {**LEVELS, "ratio_level": "sequence"}),
    (clipping.clipped_objective, OBJECTIVE, CLIPS),
    (clipping.clipped_slope, OBJECTIVE, CLIPS),
    (clipping.bounded_shares, OBJECTIVE, CLIPS),
    (gae.n_step_weights, {"count": 2}, {"lam": 0.5}),
    (
        gae.gae_by_definition,
        {"rewards": "BT", "values": "BT", "mask": "BT", "bootstrap_value": "B"},
        {"gamma": 0.5, "lam": 0.5},
    ),
    (gae.reward_horizon, {"epsilon": 0.5}, {"gamma": 0.5, "lam": 0.5}),
    (gae.gae_variance, {"covariance": "TT"}, {"gamma": 0.5, "lam": 0.5}),
    (group.advantage_bound, {"group_size": 4}, {"ddof": 1}),
    (group.binary_advantages, {"success_rate": 0.5}, {}),
    (group.overlong_penalty, {"lengths": "B"}, {"max_length": 2.0, "buffer": 1.0}),
    (importance_sampling.trajectory_importance_ratio, RATIO, {}),
    (importance_sampling.normalised_weights, {"log_weights": "N"}, {}),
    (importance_sampling.normal_weight_variance, {"distance": 1.0}, {"sigma": 2.0}),
    (importance_sampling.trajectory_weight_variance, {"chi_squares": "N"}, {}),
    (logprobs.probabilities, {"logits": "BTV"}, {"temperature": 1.0}),
    (optimizer.clip_by_norm, {"gradient": "SA"}, {"max_grad_norm": 1.0, "clip_eps": 0.0}),
    (optimizer.sgd_step, {"parameters": "SA", "gradient": "SA"}, {"learning_rate": 0.5}),
    (
        optimizer.adam_step,
        {"parameters": "SA", "gradient": "SA", "first": "SA", "second": "SA"},
        {"count": 1, "learning_rate": 0.5, "beta1": 0.5, "beta2": 0.5, "adam_eps": 0.5},
    ),
    (policy_loss.aggregation_divisors, {"mask": "BT"}, {"mode": "token-mean", "empty_rows": "count"}),
    (
        policy_loss.shard_divisors,
        {"mask": "BT"},
        {"mode": "token-mean", "tokens": 9, "rows": 3, "horizon": 4.0},
    ),
    (reward.last_active, {"mask": "BT"}, {}),
    (
        policy_loss.total_loss,
        {"policy_loss": 1.0, "entropy": 1.0, "kl_loss": 1.0},
        {"entropy_coef": 0.5, "kl_coef": 0.5},
    ),
    (
        preference.preference_margin,
        {"policy_chosen": "N", "policy_rejected": "N", "ref_chosen": "N", "ref_rejected": "N"},
        {},
    ),
    (preference.regularised_objective, {"policy": "A", "ref": "A", "rewards": "A"}, {"beta": 0.5}),
    (preference.optimal_policy, {"ref": "A", "rewards": "A"}, {"beta": 0.5}),
    (preference.log_partition, {"ref": "A", "rewards": "A"}, {"beta": 0.5}),
    (reward.preference_probability, {"chosen": "N", "rejected": "N"}, {}),
    (reward.k_wise_loss, {"scores": "NA"}, {"margin": 0.0}),
    (reward.terminal_rewards, {"scores": "B", "mask": "BT"}, {}),
    (
        training.memory_per_parameter,
        {},
        {"algorithm": "ppo", "trained": 1.0, "frozen": 1.0, "reward_model": True},
    ),
    (trust_region.expected_advantage, {"visitation": "S", "policy": "SA", "advantages": "SA"}, {}),
    (trust_region.penalty_coefficient, {"advantages": "SA"}, {"gamma": 0.5}),
    (trust_region.surrogate, {"logprobs": "BT", "old_logprobs": "BT", "advantages": "BT", "mask": "BT"}, {}),
    (trust_region.mean_kl, {"old_logprobs": "SA", "logprobs": "SA", "weights": "S"}, {}),
    (trust_region.fisher_vector_product, {"probabilities": "SA", "weights": "S", "vector": "SA"}, {}),
    (value_loss.clip_values, {"values": "BT", "old_values": "BT"}, {"clip": 0.5}),
)
"""Functions, their arguments (an array by the letters of its shape) and their options."""

every_function = pytest.mark.parametrize(
    ("function", "arguments", "options"), CALLS, ids=[function.__name__ for function, _, _ in CALLS]
)


def call(function: Any, arguments: dict[str, Any], options: dict[str, Any], **changed: Any) -> Any:
    """Call a function with good arguments, but for what is changed."""
    arrays = {name: np.full(shape_of(x), 0.5) for name, x in arguments.items() if isinstance(x, str)}
    if "mask" in arrays:
        arrays["mask"] = np.ones(arrays["mask"].shape, dtype=bool)
    given = {name: changed.get(name, arrays.get(name, x)) for name, x in arguments.items()}
    chosen = {name: changed.get(name, x) for name, x in options.items()}
    return function(*given.values(), **chosen)


def kind_of(function: Any, name: str) -> Kind:
    """What an option of a function is; the bound on the improvement divides by 1 - γ."""
    return OPTIONS["beta1" if (function, name) == (trust_region.penalty_coefficient, "gamma") else name]


def shape_of(letters: str) -> tuple[int, ...]:
    return tuple(SIZES[letter] for letter in letters)


@every_function
def test_good_arguments_are_accepted(
    function: Any, arguments: dict[str, Any], options: dict[str, Any]
) -> None:
    call(function, arguments, options)
    for name in options:
        for edge in kind_of(function, name).edges if function is not gae.reward_horizon else ():
            call(function, arguments, options, **{name: edge})


@every_function
def test_lists_are_arrays(function: Any, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    lists = {
        name: np.full(shape_of(x), name == "mask" or 0.5).tolist()
        for name, x in arguments.items()
        if isinstance(x, str)
    }
    assert np.array_equal(call(function, arguments, options, **lists), call(function, arguments, options))


def test_the_horizon_of_rewards_lies_between_the_edges() -> None:
    assert gae.reward_horizon(0.25, gamma=1, lam=0.5) == gae.reward_horizon(0.25, gamma=0.5, lam=1) == 2.0
    for gamma, lam in ((0, 0.5), (0.5, 0.0), (1, 1.0)):
        with pytest.raises(ValueError, match=r"^gamma \* lam must be a number strictly between 0 and 1"):
            gae.reward_horizon(0.25, gamma=gamma, lam=lam)


@every_function
def test_bad_options(function: Any, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    numbers = [name for name in arguments if name in OPTIONS]
    for name in [*options, *numbers]:

        def given(value: Any, name: str = name) -> Any:
            return call(function, arguments, options, **{name: value})

        kind = kind_of(function, name)
        assert_options_refused(name, given, kind, optional=name in ("dual_clip", "log_ratio_clip", "horizon"))


@every_function
def test_bad_arrays(function: Any, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    letters = {name: tuple(x) for name, x in arguments.items() if isinstance(x, str)}
    for name, shape in wrong_shapes(letters, SIZES):
        wrong = np.ones(shape, dtype=bool if name == "mask" else float)
        assert_shape_refused(name, partial(call, function, arguments, options, **{name: wrong}))
    for name in letters:
        kind = bool if name == "mask" else float
        for stranger in [*strangers(kind, shape_of(arguments[name]), np.asarray), None]:
            with pytest.raises(ValueError, match=f"^{name} must be "):
                call(function, arguments, options, **{name: stranger})


@pytest.mark.parametrize("number", [1, np.float32(0.5), np.array(0.5)], ids=["int", "float32", "array"])
def test_a_number_becomes_a_float(number: Any) -> None:
    assert type(checks.real_number("x", number)) is float
