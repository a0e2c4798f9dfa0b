"""Small tabular decision processes, on which every expectation is an exact finite sum."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sympy


@dataclass(frozen=True)
class Action:
    """What the policy may do in a state: how likely, what it pays, and where it leads."""

    probability: sympy.Expr
    reward: sympy.Expr
    following: dict[str, sympy.Expr]
    """Probability of each next state; none where the episode ends."""


Process = dict[str, tuple[Action, ...]]
"""The actions of every state. No state may be reached twice, so that episodes are finite."""


@dataclass(frozen=True)
class Step:
    """One step of a trajectory: the state, and which of its actions was taken."""

    state: str
    action: int


def state_value(process: Process, state: str, gamma: Any) -> sympy.Expr:
    """V(s) of the process's own policy."""
    return sum(
        action.probability * action_value(process, state, k, gamma) for k, action in enumerate(process[state])
    )


def action_value(process: Process, state: str, action: int, gamma: Any) -> sympy.Expr:
    """Q(s, a) of the process's own policy."""
    taken = process[state][action]
    return taken.reward + gamma * sum(
        p * state_value(process, following, gamma) for following, p in taken.following.items()
    )


def trajectories(process: Process, start: str) -> Iterator[tuple[sympy.Expr, tuple[Step, ...]]]:
    """Every trajectory from a state to the end, with its probability."""
    for k, action in enumerate(process[start]):
        step = (Step(start, k),)
        if not action.following:
            yield action.probability, step
        for following, p in action.following.items():
            for probability, rest in trajectories(process, following):
                yield action.probability * p * probability, step + rest
