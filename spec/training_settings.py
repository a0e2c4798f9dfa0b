"""Derivations of the chapter `train` about what surrounds a step: settings with their alarms, and memory."""

from typing import Any

import numpy as np
import sympy

from reference import training
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import HALF

reference: Any = training


@derivation("train.settings", status="witnessed")
def what_the_limits_mean() -> Numbers:
    """The code's alarms stand where the page has them; and what a few of the limits let pass."""
    on_the_edge = {**reference.MOST, **reference.LEAST, "learning_rate": 1.5e-4}
    assert reference.alarms("ppo", on_the_edge) == dict.fromkeys(on_the_edge, False)
    assert reference.alarms("grpo", {"learning_rate": 8e-6}) == {"learning_rate": False}
    beyond = {"approx_kl": 0.021, "clip_range": 0.41, "batch_size": 127, "group_size": 31, "beta": 0.3}
    assert reference.alarms("ppo", beyond) == dict.fromkeys(beyond, True)
    for algorithm, rate in (("ppo", 1.5001e-4), ("grpo", 8.001e-6)):
        assert reference.alarms(algorithm, {"learning_rate": rate}) == {"learning_rate": True}
    moved = 0.5 * np.log(0.5 / 0.6) + 0.5 * np.log(0.5 / 0.4)
    numbers: Numbers = {
        "KL of a coin": moved,
        "coin": 0.5,
        "moved": 0.6,
        "share": 0.05,
        "answers": 20,
    }
    for size in (8, 32):
        numbers |= {f"group of {size}": size, f"no success in {size}": 0.95**size}
    return numbers | {"clip": 0.4, "lowest": 0.6, "highest": 1.4}


@derivation("train.memory", status="proved")
def what_a_critic_costs() -> Numbers:
    """The share that is saved grows from t = f, where it is smallest, to what it is at f = 0, the limit."""
    trained, frozen = sympy.symbols("t f", positive=True)
    shares: Any = {}
    for judged in (True, False):
        ppo, grpo = (
            reference.memory_per_parameter(name, trained=trained, frozen=frozen, reward_model=judged)
            for name in ("ppo", "grpo")
        )
        saved = sympy.simplify((ppo - grpo) / ppo)
        assert sympy.simplify(sympy.diff(saved, trained)).is_positive
        shares[judged] = saved.subs(trained, frozen), sympy.limit(saved, trained, sympy.oo)
    agree(shares[True], [sympy.Rational(1, 4), HALF])
    agree(shares[False], [sympy.Rational(1, 3), HALF])
    both = reference.memory_per_parameter("ppo", trained=trained, frozen=frozen)
    rule = reference.memory_per_parameter("grpo", trained=trained, frozen=frozen, reward_model=False)
    agree(rule / both, HALF)
    sizes = {"trained": 16.0, "frozen": 2.0}
    ppo, grpo = (reference.memory_per_parameter(name, **sizes) for name in ("ppo", "grpo"))
    by_rule = [reference.memory_per_parameter(name, **sizes, reward_model=False) for name in ("ppo", "grpo")]
    numbers = {"ppo": ppo, "grpo": grpo, "saved": 100 * (1 - grpo / ppo), "t": 16, "f": 2, "moments": 12}
    return numbers | {"ppo by rule": by_rule[0], "grpo by rule": by_rule[1]} | {
        "saved by rule": 100 * (1 - by_rule[1] / by_rule[0]), "25 %": 25, "50 %": 50, "bits": 16, "wide": 32,
    }  # fmt: skip
