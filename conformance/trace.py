"""Where a wrong result begins: intermediates of an operation, by name, each with its formula.

A backend that wants to be told defines `trace(operation, *arguments, **options)`, which returns a dict of
arrays: those of the names below that it computes on its way. After a failure the first of them that is not
what it may be is named.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.oracle import judged, permitted_by
from reference import clipping, gae, group, importance_sampling, kl, logprobs, preference, value_loss
from reference.policy_loss import aggregate

Formula = Callable[..., Any]


def _td_errors(*rows: Any, gamma: Any, masked: str = "skip", **_: Any) -> Any:
    return gae.td_errors(*rows, gamma=gamma) if masked == "skip" else None


def _mean(x: Any, mask: Any, **_: Any) -> Any:
    return aggregate(x, mask, mode="token-mean")


def _deviations(x: Any, mask: Any, **_: Any) -> Any:
    return x - _mean(x, mask)


def _log_ratio(logprobs: Any, old_logprobs: Any, *_: Any, **__: Any) -> Any:
    return logprobs - old_logprobs


def _ratio(logprobs: Any, old_logprobs: Any, *rest: Any, **options: Any) -> Any:
    mask = next(x for x in rest if isinstance(x, np.ndarray) and x.dtype == np.bool_)
    kept = {name: options[name] for name in ("ratio_level", "log_ratio_clip") if name in options}
    return clipping.policy_ratio(logprobs, old_logprobs, mask, **(kept or {"log_ratio_clip": None}))


def _objective(logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, *_: Any, **options: Any) -> Any:
    bounds = {name: options[name] for name in ("clip_low", "clip_high", "dual_clip")}
    ratio = _ratio(logprobs, old_logprobs, mask, **options)
    return clipping.clipped_objective(ratio, advantages, **bounds)


def _reference_kl(logprobs: Any, old_logprobs: Any, ref_logprobs: Any, *_: Any, **__: Any) -> Any:
    return kl.kl_estimate(logprobs, ref_logprobs, estimator="k3")


def _shaping_kl(scores: Any, logprobs: Any, ref_logprobs: Any, *_: Any, estimator: str, **__: Any) -> Any:
    return kl.kl_estimate(logprobs, ref_logprobs, estimator=estimator)


def _clipped_values(values: Any, old_values: Any, *_: Any, clip: Any, **__: Any) -> Any:
    return None if clip is None else value_loss.clip_values(values, old_values, clip=clip)


def _centred(scores: Any, group_ids: Any, **_: Any) -> Any:
    return group.group_advantages(scores, group_ids, scale="none")


def _probabilities(logits: Any, *_: Any, temperature: Any = 1.0, **__: Any) -> Any:
    return logprobs.probabilities(logits, temperature=temperature)


INTERMEDIATES: dict[str, Mapping[str, Formula]] = {
    "n_step_advantages": {"td_errors": _td_errors},
    "gae": {"td_errors": _td_errors},
    "lambda_returns": {"td_errors": _td_errors, "advantages": gae.gae},
    "whiten": {"mean": _mean, "deviations": _deviations},
    "importance_ratio": {"log_ratio": _log_ratio},
    "sequence_importance_ratio": {"log_ratio": _log_ratio},
    "kl_estimate": {"log_ratio": _log_ratio},
    "kl_divergence": {"probabilities": _probabilities},
    "token_logprobs": {"probabilities": _probabilities},
    "token_entropy": {"probabilities": _probabilities},
    "policy_loss": {"log_ratio": _log_ratio, "ratio": _ratio, "objective": _objective},
    "policy_metrics": {"log_ratio": _log_ratio, "ratio": _ratio},
    "kl_penalty_loss": {"log_ratio": _log_ratio, "ratio": _ratio},
    "value_loss": {"clipped_values": _clipped_values},
    "shaped_rewards": {"kl": _shaping_kl},
    "dpo_loss": {"margin": lambda *pairs, **_: preference.preference_margin(*pairs)},
    "group_advantages": {"centred": _centred},
    "grpo_loss": {"log_ratio": _log_ratio, "ratio": _ratio, "kl": _reference_kl},
    "importance_sampling_mean": {
        "effective_sample_size": lambda f_values, log_weights, **_: importance_sampling.effective_sample_size(
            log_weights
        )
    },
}
"""Intermediates in the order of their computation; a formula gives None where there is no such thing."""


def first_divergence(case: Case, traced: Mapping[str, np.ndarray]) -> list[str]:
    """Name the first intermediate that is outside of what it may be, as lines of a message."""
    held: list[str] = []
    for name, formula in INTERMEDIATES.get(case.operation, {}).items():
        if name not in traced or (allowed := _allowed(case, formula)) is None:
            continue
        got = np.asarray(traced[name], dtype=np.float64)
        if got.shape != allowed.balls.shape:
            return [f"begins     in {name}, of shape {got.shape}, expected {allowed.balls.shape}"]
        distances = {i: allowed.distance(i, float(got[i])) for i in judged(case, got)}
        wrong = [i for i, distance in distances.items() if distance > 1.0]
        if wrong:
            low, high = allowed.bounds(wrong[0])
            place = f"{name}[{', '.join(map(str, wrong[0]))}]"
            return [f"begins     in {place} = {float(got[wrong[0]])!r}, permitted from {low!r} to {high!r}"]
        held.append(name)
    return [f"begins     after {held[-1]}, which is right"] if held else []


def _allowed(case: Case, formula: Formula) -> Any:
    """What an intermediate may be; None where the call has no such thing."""
    exists = True

    def array(*arguments: Any, **options: Any) -> Any:
        nonlocal exists
        found = formula(*arguments, **options)
        exists = found is not None
        return np.zeros(0) if found is None else found

    allowed = permitted_by(case.with_defaults(), array)
    return allowed if exists else None
