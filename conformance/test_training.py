"""The clauses of the chapter `train`: one update of a table, from a batch to new parameters."""

from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.marks import clauses, operations
from conformance.relations import with_each_value
from conformance.run import Run
from conformance.values import IN_PAIRS, option_values
from reference.numbers.formats import FORMATS

REGIONS = ("generic", "exact", "adversarial")
FAR_IDS = np.array([-(2**62), 2**62])
"""Ids of two groups, one number in 32 bits and fewer."""


@clauses("train.tabular-step", "train.ppo-loop")
@operations("train_step")
def test_one_step_of_ppo(run: Run) -> None:
    """A gradient step of the clipped loss and of the critic's, on the policy that sampled."""
    once: dict[str, Any] = {"epochs": 1, "minibatch_rows": None, "optimizer": "sgd", "max_grad_norm": None}
    run.over(REGIONS, run.conforms, algorithm="ppo", **once)


@clauses("train.ppo-loop")
@operations("train_step")
def test_epochs(run: Run) -> None:
    """Old log-probabilities, values, advantages and returns are those of the start, in every minibatch."""
    several: dict[str, Any] = {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.5, "max_grad_norm": None}
    for rows in (None, 2):
        run.over(
            ("generic", "adversarial"),
            run.conforms,
            algorithm="ppo",
            minibatch_rows=rows,
            **several,
        )


@clauses("train.ppo-loop")
@operations("train_step")
def test_rows_that_are_left(run: Run) -> None:
    """The last minibatch has fewer rows than the others, and is a step like them."""
    for algorithm in ("ppo", "dpo"):
        run.at(run.conforms, _ragged(run, algorithm=algorithm, minibatch_rows=4))


@clauses("train.ppo-loop", "train.tabular-step-adam")
@operations("train_step")
def test_rows_without_tokens(run: Run) -> None:
    """A minibatch without any active token is a step too: Adam goes on by its moments."""
    batch = _ragged(run, algorithm="ppo", minibatch_rows=2)
    mask = batch.arguments["mask"] & (np.arange(6) < 4)[:, None]
    for half in (0.5, 0.9):
        adam = {"optimizer": "adam", "beta1": half, "beta2": half, "adam_eps": 0.01, "epochs": 1}
        run.at(run.conforms, batch.with_arguments(mask=mask).with_options(**adam))


@clauses("train.tabular-step-losses")
@operations("train_step")
def test_losses(run: Run) -> None:
    """Groups, pairs and scores; a reference that stays what it is."""
    for algorithm in ("grpo", "dpo", "reward-model"):
        run.over(("generic",), run.conforms, algorithm=algorithm, optimizer="sgd")
    run.at(run.conforms, *(_ragged(run, algorithm="grpo", minibatch_rows=rows) for rows in (None, 4)))
    groups = _ragged(run, algorithm="grpo")
    run.at(run.conforms, groups.with_arguments(group_ids=FAR_IDS[groups.arguments["group_ids"]]))
    close = FORMATS[run.dtype].round(1.0 + 2.0**-24 * groups.arguments["rewards"])
    run.at(run.conforms, groups.with_arguments(rewards=close, mask=np.ones(close.shape, dtype=bool)))
    run.at(run.conforms, _ragged(run, algorithm="reward-model"))


@clauses("train.tabular-step-clipping")
@operations("train_step")
def test_clipping(run: Run) -> None:
    """One norm for all that is trained, and no more than it allows."""
    for bound in (0.1, 8.0):
        run.over(("generic",), run.conforms, algorithm="ppo", optimizer="sgd", max_grad_norm=bound)


@clauses("train.tabular-step-adam")
@operations("train_step")
def test_adam(run: Run) -> None:
    """Moments from 0, corrected, over several steps."""
    run.over(("generic",), run.conforms, algorithm="ppo", optimizer="adam")
    for algorithm in ("ppo", "reward-model"):  # what is decided in few bits too
        half: dict[str, Any] = {"beta1": 0.5, "beta2": 0.5, "adam_eps": 0.01}
        run.over(("generic",), run.conforms, algorithm=algorithm, optimizer="adam", epochs=2, **half)


@clauses("train.tabular-step-trust-region")
@operations("train_step")
def test_trust_region(run: Run) -> None:
    """One step along the natural gradient that improves and stays in the region."""
    for damping, steps in ((0.0, 1), (0.1, 2)):  # undamped, few steps spend the whole budget, or more
        run.over(("generic",), run.conforms, algorithm="trpo", cg_iters=steps, damping=damping)
        run.at(run.conforms, _ragged(run, algorithm="trpo", cg_iters=steps, damping=damping))
    far: dict[str, Any] = {"algorithm": "trpo", "cg_iters": 2, "damping": 0.0, "max_kl": 1.0}
    run.at(run.conforms, *(_ragged(run, seed, **far) for seed in FAR))
    run.at(run.conforms, *(_rare(run, *where) for where in RARE))
    for steps in (1, 2):
        run.at(run.conforms, _indifferent(_ragged(run, algorithm="trpo", cg_iters=steps, damping=0.1)))


@clauses("train.tabular-step-losses", "train.tabular-step-clipping", "train.tabular-step-adam")
@operations("train_step")
def test_options_of_each_algorithm(run: Run) -> None:
    """All that an algorithm reads, at each of its values, in rows of different length, one of them 0."""
    for algorithm in option_values("train_step", "algorithm"):
        plain = _with_an_empty_row(run).with_options(algorithm=algorithm)
        bounded = plain.with_options(max_grad_norm=0.1, clip_eps=0.125)
        moments = {"optimizer": "adam", "beta1": 0.5, "beta2": 0.5, "adam_eps": 0.01}
        descended = () if algorithm == "trpo" else (bounded, plain.with_options(**moments))
        for case in (plain, *descended):
            run.at(run.conforms, *with_each_value(run, case))


@clauses("train.ppo-loop", "train.tabular-step-losses")
@operations("train_step")
def test_sizes_of_each_algorithm(run: Run) -> None:
    """Long rows, many rows and many actions, and a step for each row, or for more rows than there are."""
    for algorithm in option_values("train_step", "algorithm"):
        for sizes in LARGE:
            large = run.ordinary(**sizes).with_options(algorithm=algorithm, epochs=2)
            last = large.arguments["ref_logits"].shape[1] - 1
            run.at(run.conforms, large.with_arguments(actions=last - large.arguments["actions"] % 3))
        for rows in (2 if algorithm in IN_PAIRS else 1, 100):
            many = run.ordinary(B=18, T=2).with_options(algorithm=algorithm, minibatch_rows=rows)
            run.at(run.conforms, many)


@clauses("train.tabular-step-losses")
@operations("train_step")
def test_far_ratios(run: Run) -> None:
    """An action that has become likely loses: its log-ratio is clamped at 20, and not nearer."""
    run.at(run.conforms, *(_regretted(run, distance) for distance in (5.0, 15.0, 25.0)))


@clauses("train.tabular-step")
@operations("train_step")
def test_what_stays(run: Run) -> None:
    """States without an active token, and columns that are not trained, stay as they are."""

    def check(case: Case) -> None:
        before, got = case.arguments["parameters"], run.call(case)
        met = np.unique(case.arguments["states"][case.arguments["mask"]])
        stays = np.ones(before.shape, dtype=bool)
        stays[met] = False
        algorithm = case.options["algorithm"]
        if algorithm == "reward-model":
            stays[:, :-1] = True
        elif algorithm != "ppo":
            stays[:, -1] = True
        changed = [index for index in zip(*np.nonzero(stays), strict=True) if got[index] != before[index]]
        told = [
            f"{tuple(map(int, i))} is {got[i]!r}, and was {before[i]!r}: it has no gradient"
            for i in changed[:1]
        ]
        run.seen(case, not changed, *told)

    run.over(("adversarial", "empty-rows", "nothing-active"), check)


FAR = (*range(6), 11, 12, 27, 49)
"""Plain calls whose full step goes too far: how far it is taken back shows which KL and which gain count."""


def _rare(run: Run, distance: float, max_kl: float) -> Case:
    """A rare action that is better than the other: how often the step is halved until it fits."""
    numbers = {"parameters": np.array([[distance, 0.0, 0.0]]), "ref_logits": np.zeros((1, 2))}
    tokens = {"states": np.zeros((2, 1), int), "actions": np.ones((2, 1), int), "rewards": np.ones((2, 1))}
    rows = {"mask": np.full((2, 1), True), "bootstrap_value": np.zeros(2), "group_ids": np.zeros(2, int)}
    options: dict[str, Any] = {"algorithm": "trpo", "max_kl": max_kl, "cg_iters": 1, "damping": 0.0}
    return run.ordinary().with_arguments(**numbers, **tokens, **rows).with_options(**options)


def _indifferent(case: Case) -> Case:
    """The call of a uniform policy whose rewards hardly differ: a small gradient, and a step all the same."""
    rewards = FORMATS[case.dtype].round(2.0**-17 * case.arguments["rewards"])
    return case.with_arguments(parameters=np.zeros_like(case.arguments["parameters"]), rewards=rewards)


RARE = ((8.0, 1.0), (14.0, 1.0), (0.75, 0.01), (0.0, 200.0))
"""Logits ahead of a rare action, and δ: the fifth step fits, the eighth; one is over δ by a thirtieth; one
gains a twentieth of what its slope promises. Float64 alone can tell most of them."""


LARGE = ({"B": 2, "T": 129}, {"B": 64, "T": 2}, {"B": 4, "T": 3, "A": 260, "A+1": 261})
"""More tokens, rows and actions than small ones have, and than 8 bits count."""


def _regretted(run: Run, distance: float) -> Case:
    """An unlikely action that is paid until it is as likely as the other, in one step, and then costs."""
    one = np.zeros((2, 1), dtype=int)
    numbers = {"parameters": np.array([[-distance, 0.0, 0.0]]), "ref_logits": np.zeros((1, 2))}
    tokens = {"states": one, "actions": one, "rewards": np.array([[distance], [-1.0]])}
    rows = {"mask": one == 0, "bootstrap_value": np.zeros(2), "group_ids": np.zeros(2, int)}
    options: dict[str, Any] = {"learning_rate": 0.5, "minibatch_rows": 1, "optimizer": "sgd"}
    return run.ordinary().with_arguments(**numbers, **tokens, **rows).with_options(**options)


def _with_an_empty_row(run: Run) -> Case:
    """A plain call of rows of 0 to 3 tokens in 4 positions, several steps, groups whose rows lie apart."""
    plain = run.ordinary(B=6, T=4)
    mask = np.arange(4) < np.array([[3], [1], [2], [0], [2], [1]])
    batch = plain.with_arguments(mask=mask, group_ids=np.array([0, 1, 1, 0, 0, 1]))
    return batch.with_options(optimizer="sgd", learning_rate=0.5, epochs=2)


def _ragged(run: Run, seed: int = 0, **options: Any) -> Case:
    """A plain call with rows of different length, and groups whose rows lie apart."""
    plain = run.ordinary(seed, B=6)
    mask = np.arange(3) < np.array([[3], [1], [2], [3], [2], [1]])
    batch = plain.with_arguments(mask=mask, group_ids=np.array([0, 1, 1, 0, 0, 1]))
    return batch.with_options(optimizer="sgd", learning_rate=0.5, epochs=2, **options)
