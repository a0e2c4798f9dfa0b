"""Markov decision processes, cycles included, that are solved exactly: values, visitation, advantages."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from spec.symbolic import HALF, ZERO


@dataclass(frozen=True)
class Process:
    """A decision process: arrays of rationals or symbols."""

    start: Any
    """Distribution of the first state, (S,)."""
    following: Any
    """Probability of each next state after a state and an action, (S, A, S)."""
    rewards: Any
    """Mean reward of an action in a state, (S, A)."""
    gamma: Any

    def step(self, policy: Any) -> Any:
        """Matrix of the probabilities from state to state, (S, S)."""
        return np.sum(policy[:, :, None] * self.following, axis=1)

    def values(self, policy: Any) -> Any:
        """V = (1 - γP)⁻¹ r, (S,)."""
        return self._solve(self.step(policy), np.sum(policy * self.rewards, axis=1))

    def visitation(self, policy: Any) -> Any:
        """ρ = (1 - γPᵀ)⁻¹ μ, (S,)."""
        return self._solve(self.step(policy).T, self.start)

    def objective(self, policy: Any) -> Any:
        """η = Σ μ V."""
        return np.sum(self.start * self.values(policy))

    def advantages(self, policy: Any) -> Any:
        """A = Q - V of a policy, (S, A)."""
        return self.gains(self.values(policy))

    def gains(self, values: Any) -> Any:
        """r + γPV - V for any values, (S, A)."""
        return self.rewards + self.gamma * np.sum(self.following * values, axis=2) - values[:, None]

    def _solve(self, matrix: Any, right: Any) -> Any:
        system = sympy.eye(len(right)) - self.gamma * sympy.Matrix(matrix)
        return np.array(system.LUsolve(sympy.Matrix(right)).applyfunc(sympy.cancel)).ravel()


def processes() -> Iterator[tuple[Process, Any, Any]]:
    """Random processes of 1 to 3 states and 2 or 3 actions, each with two policies, in rationals."""
    source = random.Random(1502)
    gammas = (ZERO, HALF, sympy.Rational(9, 10), sympy.Rational(99, 100))

    def rows(*shape: int, least: int = 0) -> Any:
        weights = np.array([source.randint(least, 4) for _ in range(math.prod(shape))]).reshape(shape)
        weights[..., -1] += 1
        return np.frompyfunc(sympy.Rational, 2, 1)(weights, weights.sum(axis=-1, keepdims=True))

    for count in range(12):
        states, actions = 1 + count % 3, 2 + count % 2
        rewards = [
            sympy.Rational(source.randint(-6, 6), source.randint(1, 4)) for _ in range(states * actions)
        ]
        following = rows(states, actions, states)
        process = Process(rows(states), following, np.reshape(rewards, (states, actions)), gammas[count % 4])
        least = min(count % 5, 1)
        yield process, rows(states, actions, least=least), rows(states, actions, least=least)
