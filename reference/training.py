"""One update of a tabular policy and its critic, from a batch to new parameters; and what training keeps.

Assumptions: the table has a row a state. Its first A columns are the logits of a softmax policy, its last
one is the state's value, or its score where a reward model is trained. Responses are rows of states and of
the actions taken there; a state stands for all that a token is chosen on. Rewards, states, actions and
bootstrap values are data: constants.

Shapes: S states, A actions, B rows, T positions. Rewards and values have reward units, logits and
log-probabilities are in nats.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from reference import checks, numbers, tabular
from reference.checks import Indices
from reference.numbers import Array, Mask, Scalar
from reference.optimizer import adam_step, clip_by_norm, sgd_step
from reference.policy_loss import MODES
from reference.tabular import Batch, Gradient

ALGORITHMS = ("ppo", "grpo", "dpo", "reward-model", "trpo")
IN_PAIRS = ("dpo", "reward-model")
OPTIMIZERS = ("sgd", "adam")
NETWORKS_TRAINED = {"ppo": 2, "grpo": 1}

MOST = {"approx_kl": 0.02, "clip_range": 0.4}
LEAST = {"batch_size": 128, "group_size": 32}
BELOW = {"beta": 0.3}
LEARNING_RATES = {"ppo": 1.5e-5, "grpo": 8e-7}
FAR = 10.0
"""How many times a learning rate may be what is recommended."""

OPTIONAL = ("max_grad_norm", "value_clip", "minibatch_rows")
CHECKS: dict[str, Callable[[str, Any], None]] = {
    "algorithm": partial(checks.choice, options=ALGORITHMS),
    "optimizer": partial(checks.choice, options=OPTIMIZERS),
    "aggregation": partial(checks.choice, options=MODES),
    **dict.fromkeys(("epochs", "minibatch_rows", "cg_iters"), partial(checks.integer, at_least=1)),
    **dict.fromkeys(("gamma", "lam"), checks.unit_interval),
    **dict.fromkeys(("beta1", "beta2"), checks.below_one),
    **dict.fromkeys(("adam_eps", "beta", "max_grad_norm", "value_clip"), checks.positive),
    **dict.fromkeys(("learning_rate", "clip_eps", "clip_low", "clip_high"), checks.non_negative),
    **dict.fromkeys(("value_coef", "kl_coef", "max_kl", "damping"), checks.non_negative),
}
"""The check of each option; those in `OPTIONAL` may be None."""

Options = dict[str, Any]
Step = Callable[[Array, Array], Array]
"""What an optimiser makes of a table and a gradient; it counts its steps and keeps its moments."""


def train_step(
    parameters: Array,
    ref_logits: Array,
    states: Indices,
    actions: Indices,
    rewards: Array,
    mask: Mask,
    bootstrap_value: Array,
    group_ids: Indices,
    *,
    algorithm: str,
    learning_rate: Scalar,
    optimizer: str = "sgd",
    max_grad_norm: Scalar | None = None,
    clip_eps: Scalar = 1e-6,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    adam_eps: Scalar = 1e-8,
    epochs: int = 1,
    minibatch_rows: int | None = None,
    gamma: Scalar = 1.0,
    lam: Scalar = 0.95,
    clip_low: Scalar = 0.2,
    clip_high: Scalar = 0.2,
    value_clip: Scalar | None = None,
    value_coef: Scalar = 0.5,
    kl_coef: Scalar = 0.04,
    aggregation: str = "token-mean",
    beta: Scalar = 0.1,
    max_kl: Scalar = 0.01,
    cg_iters: int = 10,
    damping: Scalar = 0.1,
) -> Array:
    """Parameters after one update of a tabular policy, critic or reward model by a batch of responses.

    Clauses: `train.ppo-loop`, `train.tabular-step`, `train.tabular-step-losses`,
    `train.tabular-step-clipping`, `train.tabular-step-adam`, `train.tabular-step-trust-region`.

    Parameters
    ----------
    parameters : (S, A + 1)
        Logits of the actions in each state, and in the last column its value or score.
    ref_logits : (S, A)
        Logits of the reference policy; read by "grpo" and "dpo".
    states, actions : (B, T) int
        0 ... S-1 and 0 ... A-1, at masked positions too.
    rewards : (B, T)
        What each token was paid.
    mask : (B, T) bool
        True at the tokens that take part.
    bootstrap_value : (B,)
        Value of what lies behind each row's last active token; 0 where the response has ended.
    group_ids : (B,) int
        Equal for the responses to one prompt; read by "grpo".
    algorithm : "ppo", "grpo", "dpo", "reward-model" or "trpo"
        "dpo" and "reward-model" read pairs of rows: 2i chosen, 2i + 1 rejected.
    learning_rate : float, at least 0
        Of `optimizer`, "sgd" or "adam", whose state begins at 0; "trpo" has neither.
    max_grad_norm, clip_eps
        As for :func:`reference.optimizer.clip_by_norm`; None does not clip.
    beta1, beta2, adam_eps
        As for :func:`reference.optimizer.adam_step`.
    epochs, minibatch_rows : int, at least 1
        How often the batch is gone through, and how many rows, in their order, a step takes; None: all.
    gamma, lam
        As for :func:`reference.gae.gae`; read by "ppo" and "trpo".
    clip_low, clip_high, aggregation
        As for :func:`reference.policy_loss.policy_loss`; the aggregation is the critic's too.
    value_clip : float, above 0, or None
        As `clip` of :func:`reference.value_loss.value_loss`.
    value_coef : float, at least 0
        Weight of the critic's loss.
    kl_coef
        As for :func:`reference.group.grpo_loss`.
    beta
        As for :func:`reference.preference.dpo_loss`.
    max_kl, cg_iters, damping
        As for :func:`reference.trust_region.trust_region_step`.

    Returns
    -------
    (S, A + 1)
        New parameters. Columns that the algorithm does not train, and states that no active token is in,
        stay as they are.

    Raises
    ------
    ValueError
        For an unknown algorithm, optimizer or aggregation, options out of their ranges, shapes that
        disagree, states or actions that are none, an odd number of rows or of `minibatch_rows` where rows
        are read in pairs.

    Source
    ------
    Schulman et al. 2017, arXiv:1707.06347v2, algorithm 1; Shao et al. 2024, arXiv:2402.03300v3, algorithm 1.

    Examples
    --------
    >>> batch = [[0]], [[1]], [[2.0]], [[True]], [0.0], [0]
    >>> train_step([[0.0, 0.0, 0.0]], [[0.0, 0.0]], *batch, algorithm="ppo", learning_rate=0.5)
    array([[-0.5,  0.5,  0.5]])
    """
    table, ref, batch = _checked(
        parameters, ref_logits, states, actions, rewards, mask, bootstrap_value, group_ids
    )
    clipping: Options = {"max_grad_norm": max_grad_norm, "clip_eps": clip_eps}
    descent: Options = {"learning_rate": learning_rate, "beta1": beta1, "beta2": beta2, "adam_eps": adam_eps}
    order: Options = {"epochs": epochs, "minibatch_rows": minibatch_rows}
    estimates: Options = {"gamma": gamma, "lam": lam}
    clips: Options = {"clip_low": clip_low, "clip_high": clip_high, "aggregation": aggregation}
    critic: Options = {"value_clip": value_clip, "value_coef": value_coef}
    region: Options = {"max_kl": max_kl, "cg_iters": cg_iters, "damping": damping}
    _check_options(algorithm=algorithm, optimizer=optimizer, kl_coef=kl_coef, beta=beta, **clipping)
    _check_options(**descent, **order, **estimates, **clips, **critic, **region)
    _check_pairs(algorithm, len(batch.states), minibatch_rows)
    if algorithm == "trpo":
        return tabular.trust_region_update(table, batch, **estimates, **region)
    makers: dict[str, Callable[[], Gradient]] = {
        "ppo": partial(tabular.ppo_gradient, table, batch, **estimates, **clips, **critic),
        "grpo": partial(tabular.grpo_gradient, table, ref, batch, **clips, kl_coef=kl_coef),
        "dpo": partial(tabular.dpo_gradient, ref, batch, beta=beta),
        "reward-model": partial(tabular.reward_model_gradient, batch),
    }
    step = _optimizer(optimizer, table, **descent)
    return _descended(table, makers[algorithm](), step, len(batch.states), **order, **clipping)


def memory_per_parameter(
    algorithm: str, *, trained: Scalar, frozen: Scalar, reward_model: bool = True
) -> Scalar:
    """Bytes that training keeps for each parameter of a network, all its networks being of one size.

    Clause: `train.memory`. Without activations and what rollouts take.

    Parameters
    ----------
    algorithm : "ppo" or "grpo"
        PPO trains a policy and a critic, GRPO a policy; both keep a reference.
    trained : float, at least 0
        Bytes for a parameter that is trained: its weights, gradient and moments.
    frozen : float, at least 0
        Bytes for a parameter that is not.
    reward_model : bool
        Whether a network gives the rewards, and not a rule.

    Returns
    -------
    scalar
        Bytes.

    Raises
    ------
    ValueError
        For an unknown algorithm, or negative bytes.

    Examples
    --------
    >>> [memory_per_parameter(name, trained=16.0, frozen=2.0) for name in ("ppo", "grpo")]
    [36.0, 20.0]
    """
    checks.choice("algorithm", algorithm, tuple(NETWORKS_TRAINED))
    checks.non_negative("trained", trained)
    checks.non_negative("frozen", frozen)
    checks.flag("reward_model", reward_model)
    return NETWORKS_TRAINED[algorithm] * trained + (1 + reward_model) * frozen


def alarms(algorithm: str, measured: dict[str, float]) -> dict[str, bool]:
    """Whether something that a run was set to, or has measured, is outside of its recommended range.

    Clause: `train.settings`.

    Parameters
    ----------
    algorithm : "ppo" or "grpo"
        Whose learning rate `learning_rate` is.
    measured : dict of float
        By the names in `MOST`, `LEAST` and `BELOW`, and `learning_rate`; what is not there gives no alarm.

    Returns
    -------
    dict of bool
        By the names in `measured`.

    Raises
    ------
    ValueError
        For an unknown algorithm or name.

    Examples
    --------
    >>> alarms("grpo", {"approx_kl": 0.03, "group_size": 32, "learning_rate": 1e-6})
    {'approx_kl': True, 'group_size': False, 'learning_rate': False}
    """
    checks.choice("algorithm", algorithm, tuple(LEARNING_RATES))
    most = {**MOST, "learning_rate": FAR * LEARNING_RATES[algorithm]}
    found = {}
    for name, value in measured.items():
        checks.choice("measured", name, (*most, *LEAST, *BELOW))
        within = LEAST.get(name, -math.inf) <= value <= most.get(name, math.inf)
        found[name] = not (within and value < BELOW.get(name, math.inf))
    return found


def _descended(
    table: Array,
    gradient: Gradient,
    step: Step,
    rows: int,
    *,
    epochs: int,
    minibatch_rows: int | None,
    max_grad_norm: Scalar | None,
    clip_eps: Scalar,
) -> Array:
    """The table after as many epochs, a step for every minibatch."""
    for _ in range(epochs):
        for part in tabular.minibatches(rows, minibatch_rows):
            slope = gradient(table, part)
            if max_grad_norm is not None:
                slope = clip_by_norm(slope, max_grad_norm=max_grad_norm, clip_eps=clip_eps)
            table = step(table, slope)
    return table


def _optimizer(
    name: str, table: Array, *, learning_rate: Scalar, beta1: Scalar, beta2: Scalar, adam_eps: Scalar
) -> Step:
    """An optimiser whose state is 0."""
    if name == "sgd":
        return partial(sgd_step, learning_rate=learning_rate)
    first = second = numbers.zeros(table.shape, like=table)
    count = 0

    def step(parameters: Array, gradient: Array) -> Array:
        nonlocal first, second, count
        count += 1
        after, first, second = adam_step(
            parameters,
            gradient,
            first,
            second,
            count=count,
            learning_rate=learning_rate,
            beta1=beta1,
            beta2=beta2,
            adam_eps=adam_eps,
        )
        return after

    return step


def _checked(
    parameters: Array,
    ref_logits: Array,
    states: Indices,
    actions: Indices,
    rewards: Array,
    mask: Mask,
    bootstrap_value: Array,
    group_ids: Indices,
) -> tuple[Array, Array, Batch]:
    """Check the arrays, and put 0 where what is masked was paid."""
    ref = checks.real_array("ref_logits", ref_logits, (None, None))
    size = len(ref), ref.shape[1] + 1
    table = checks.real_array("parameters", parameters, size, like="ref_logits")
    rewards = checks.real_array("rewards", rewards, (None, None))
    shape = rewards.shape
    mask = checks.mask_array("mask", mask, shape, like="rewards")
    batch = Batch(
        checks.index_array("states", states, shape, below=size[0], like="rewards"),
        checks.index_array("actions", actions, shape, below=size[1] - 1, like="rewards"),
        numbers.where(mask, rewards, numbers.zeros(shape, like=rewards)),
        mask,
        checks.real_array("bootstrap_value", bootstrap_value, shape[:1], like="rewards"),
        checks.integer_array("group_ids", group_ids, shape[:1], like="rewards"),
    )
    return table, ref, batch


def _check_options(**options: Any) -> None:
    for name, value in options.items():
        if value is not None or name not in OPTIONAL:
            CHECKS[name](name, value)


def _check_pairs(algorithm: str, rows: int, minibatch_rows: int | None) -> None:
    """Refuse half a pair."""
    for name, count in (("states", rows), ("minibatch_rows", minibatch_rows or 0)):
        if algorithm in IN_PAIRS and count % 2:
            raise ValueError(f"{name} must be rows in pairs for algorithm={algorithm!r}, got {count} rows")
