"""Conventions of log-probabilities and entropy."""

from typing import Any

import numpy as np

from conformance.conventions.family import Convention, Family, Observation, values
from conformance.conventions.inputs import dense
from reference import logprobs, numbers


def _token_logprobs(logits: Any, tokens: Any, *, temperature: Any = 1.0, use: str = "divides") -> Any:
    if use == "divides":
        return logprobs.token_logprobs(logits, tokens, temperature=temperature)
    if use == "multiplies":
        return logprobs.token_logprobs(logits * temperature, tokens)
    return logprobs.token_logprobs(logits, tokens) / temperature


def _token_entropy(
    logits: Any,
    *,
    temperature: Any = 1.0,
    use: str = "divides",
    unit: str = "nats",
    impossible: str = "zero",
    through: str = "all",
) -> Any:
    """Entropy at another temperature, in another unit, or with NaN for 0 · log 0."""
    entropy = (
        logprobs.token_entropy(logits, temperature=temperature)
        if use == "divides"
        else logprobs.token_entropy(logits * temperature)
    )
    if unit == "bits":
        entropy = entropy / _log_of_two(logits)
    if impossible == "nan":
        ruled_out = ~np.asarray(numbers.less(-np.inf, logits), dtype=bool)
        nan = numbers.full(entropy.shape, np.nan, like=logits)
        entropy = numbers.where(ruled_out.any(axis=-1), nan, entropy)
    return entropy


def _log_of_two(like: Any) -> Any:
    return numbers.log(numbers.full((), 2, like=like)[()])


def _token_entropy_gradient(
    upstream: Any,
    logits: Any,
    *,
    temperature: Any = 1.0,
    use: str = "divides",
    unit: str = "nats",
    impossible: str = "zero",
    through: str = "all",
) -> Any:
    """Its gradient, or none."""
    if through == "nothing":
        return numbers.zeros(logits.shape, like=logits)
    gradient = logprobs.token_entropy_gradient
    if unit == "bits":
        upstream = upstream / _log_of_two(logits)
    if use == "divides":
        return gradient(upstream, logits, temperature=temperature)
    return temperature * gradient(upstream, logits * temperature)


TEMPERATURE = Convention("temperature", values(1.0), "ppo.token-logprobs")


USE = {"the temperature divides the logits": "divides", "the temperature multiplies the logits": "multiplies"}


LOGITS = dense(7, 2, 3, 4)


RULED_OUT = np.where(np.arange(4) == 2, -np.inf, LOGITS)


FAMILIES = (
    Family(
        "token_logprobs",
        (
            TEMPERATURE,
            Convention(
                "use",
                {**USE, "the temperature divides the log-probabilities": "after"},
                "ppo.token-logprobs",
                unless={"temperature": (1.0,)},
            ),
        ),
        _token_logprobs,
        (
            Observation(
                "plain logits",
                {"logits": LOGITS, "tokens": np.array([[0, 3, 1], [2, 2, 0]])},
                vary=None,
                main=True,
            ),
        ),
    ),
    Family(
        "token_entropy",
        (
            TEMPERATURE,
            Convention("use", USE, "ppo.entropy", unless={"temperature": (1.0,)}),
            Convention("unit", {"in nats": "nats", "in bits": "bits"}, "ppo.entropy"),
            Convention(
                "impossible",
                {"a logit of -∞ contributes 0": "zero", "a logit of -∞ gives NaN": "nan"},
                "ppo.entropy-extremes",
            ),
            Convention(
                "through", {"differentiable": "all", "no gradient": "nothing"}, "ppo.entropy-gradient"
            ),
        ),
        _token_entropy,
        (
            Observation("plain logits", {"logits": LOGITS}, vary=None, main=True),
            Observation("a token ruled out", {"logits": RULED_OUT}),
            Observation("the gradient", {"logits": LOGITS}, gradient=True),
        ),
        _token_entropy_gradient,
    ),
)
