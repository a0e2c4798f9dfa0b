"""Derivations of the chapter `ppo` that begin at logits: log-probabilities, entropy, their gradients.

The code takes the largest logit out of the sum, so its expressions have a piece for every order of the
logits; every order is tried, with the gaps between neighbours as positive symbols. With x_k = exp(z_k/τ)
a piece is a rational function of the x_k and of a few logarithms, where equality is decided by cancelling.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import sympy

from reference import logprobs as reference
from reference.numbers import symbols
from spec.proofs import Numbers, agree, derivation
from spec.zones import Zone, decided, gradient

TAU = sympy.Symbol("tau", positive=True)
LARGEST = 3
"""Vocabularies of symbols are tried up to this size."""


def vocabularies(largest: int = LARGEST) -> Iterator[tuple[Any, list[Zone]]]:
    """Logits of one position, (1, 1, V), and a zone for every order that they may have."""
    for size in range(1, largest + 1):
        logits = symbols.array("z", (1, 1, size))
        gaps = [sympy.Symbol(f"gap{k}", positive=True) for k in range(1, size)]
        zones = []
        for order in itertools.permutations(range(size)):
            highest = logits[0, 0, order[0]]
            below = [highest - sum(gaps[:k], sympy.Integer(0)) for k in range(1, size)]
            zones.append(dict(zip(logits[0, 0, list(order[1:])], below, strict=True)))
        yield logits, zones


def same(left: Any, right: Any) -> None:
    """Assert that two expressions in the logits, or two arrays of them, are equal."""
    left, right = np.asarray(left, dtype=object), np.asarray(right, dtype=object)
    agree(np.frompyfunc(lambda x, y: sympy.cancel(_in_powers(x - y)), 2, 1)(left, right), 0 * right)


def _in_powers(expression: Any) -> Any:
    """The expression with τ log x_k for every logit z_k, logarithms of quotients split."""
    logits = [symbol for symbol in expression.free_symbols if symbol.name.startswith("z")]
    powers = {z: TAU * sympy.log(sympy.Symbol(f"x{z.name[1:]}", positive=True)) for z in logits}
    return expression.xreplace(powers).replace(
        sympy.log, lambda x: sympy.expand_log(sympy.log(sympy.factor(x)), force=True)
    )


def token(index: int) -> Any:
    """The token of the one position."""
    return np.array([[index]])


@derivation("ppo.token-logprobs", status="verified for V <= 3")
def softmax_of_scaled_logits() -> Numbers:
    """exp of the code's log-probability times Σ exp(z/τ) is exp(z_a/τ), whatever the order of the logits."""
    for logits, zones in vocabularies():
        powers = np.array([sympy.exp(z / TAU) for z in logits[0, 0]])
        for zone, a in itertools.product(zones, range(logits.size)):
            same(decided(_logprob(logits, a), zone), sympy.log(powers[a] / sum(powers)))
    numbers: Numbers = {}
    for tau in (1.0, 0.5):
        logprob = reference.token_logprobs(np.array([[[1.0, 0.0]]]), token(1), temperature=tau)[0, 0]
        numbers |= {f"τ = {tau}": tau, f"log-probability at {tau}": logprob}
    ratio = np.exp(numbers["log-probability at 0.5"] - numbers["log-probability at 1.0"])
    return numbers | {"ratio of a policy to itself": ratio}


@derivation("ppo.token-logprobs-gradient", status="verified for V <= 3")
def gradient_of_logprobs() -> None:
    """The derivative of the code's log-probability is the code's gradient, in every order of the logits."""
    upstream = symbols.array("g", (1, 1))
    for logits, zones in vocabularies():
        for a in range(logits.size):
            loss = upstream[0, 0] * reference.token_logprobs(logits, token(a), temperature=TAU)[0, 0]
            claimed = reference.token_logprobs_gradient(upstream, logits, token(a), temperature=TAU)
            for zone in zones:
                same(gradient(decided(loss, zone), logits), decided(claimed, zone))
                same(sum(decided(claimed, zone).flat), sympy.Integer(0))


@derivation("ppo.token-logprobs-extremes", status="verified for V <= 3")
def ruled_out_tokens_are_not_there() -> Numbers:
    """A logit of -inf leaves the other tokens what they are without it; a constant changes nothing."""
    shift = sympy.Symbol("s", real=True)
    upstream = symbols.array("g", (1, 1))
    for logits, zones in vocabularies(LARGEST - 1):
        fewer = np.append(logits, [[[-sympy.oo]]], axis=-1)
        for zone, a in itertools.product(zones, range(logits.size)):
            logprob = decided(reference.token_logprobs(logits, token(a), temperature=TAU), zone)
            same(decided(reference.token_logprobs(fewer, token(a), temperature=TAU), zone), logprob)
            moved = decided(reference.token_logprobs(logits + shift, token(a), temperature=TAU), zone)
            same(moved, logprob)
            slope = reference.token_logprobs_gradient(upstream, logits, token(a), temperature=TAU)
            short = reference.token_logprobs_gradient(upstream, fewer, token(a), temperature=TAU)
            same(decided(short[..., :-1], zone), decided(slope, zone))
            agree(short[..., -1], [[0]])
    return _far_apart()


def _far_apart() -> Numbers:
    """What exp makes of a logit of 1000 in float64, and what the code makes of two that differ by 20000."""
    with np.errstate(over="ignore"):
        assert np.isinf(np.exp(np.float64(1000.0)))
    low = reference.token_logprobs(np.array([[[1e4, -1e4]]]), token(1))[0, 0]
    assert low == -20000.0
    return {"logit": 1000, "logits differ by": 20000, "log-probability": low}


@derivation("ppo.entropy", status="verified for V <= 3")
def entropy_is_logsumexp_less_mean_logit() -> None:
    """-Σ p log p = log Σ exp(z/τ) - Σ p z/τ, on the code, in every order of the logits."""
    for logits, zones in vocabularies():
        scaled = logits / TAU
        for zone in zones:
            entropy = decided(reference.token_entropy(logits, temperature=TAU)[0, 0], zone)
            p = decided(reference.probabilities(logits, temperature=TAU)[0, 0], zone)
            logprob = decided(_logprob(logits, 0), zone)
            same(sum(p), sympy.Integer(1))
            same(entropy, scaled[0, 0, 0] - logprob - sum(p * scaled[0, 0]))


@derivation("ppo.entropy-gradient", status="verified for V <= 3")
def gradient_of_entropy() -> Numbers:
    """The derivative of the code's entropy is the code's gradient, in every order of the logits."""
    upstream = symbols.array("g", (1, 1))
    for logits, zones in vocabularies():
        loss = upstream[0, 0] * reference.token_entropy(logits, temperature=TAU)[0, 0]
        claimed = reference.token_entropy_gradient(upstream, logits, temperature=TAU)
        for zone in zones:
            same(gradient(decided(loss, zone), logits), decided(claimed, zone))
    logits, ones = np.log(np.array([[[0.8, 0.2]]])), np.ones((1, 1))
    slope = reference.token_entropy_gradient(ones, logits)[0, 0]
    return {"p": 0.8, "the other p": 0.2, "slope": slope[0], "the other slope": slope[1]}


@derivation("ppo.entropy-extremes", status="verified for V <= 3")
def ruled_out_tokens_have_no_entropy() -> None:
    """A logit of -inf leaves entropy and gradient of the others as they are, and gets the gradient 0."""
    upstream = symbols.array("g", (1, 1))
    for logits, zones in vocabularies(LARGEST - 1):
        fewer = np.append(logits, [[[-sympy.oo]]], axis=-1)
        for zone in zones:
            whole, cut = (decided(reference.token_entropy(x, temperature=TAU), zone) for x in (logits, fewer))
            same(whole, cut)
            slope = reference.token_entropy_gradient(upstream, logits, temperature=TAU)
            short = reference.token_entropy_gradient(upstream, fewer, temperature=TAU)
            same(decided(short[..., :-1], zone), decided(slope, zone))
            agree(short[..., -1], [[0]])
    agree(reference.token_entropy(symbols.array("z", (1, 1, 1)), temperature=TAU), [[0]])
    equal = np.array([[[sympy.Integer(0), sympy.Integer(0), -sympy.oo]]])
    agree(reference.token_entropy(equal, temperature=TAU), [[sympy.log(2)]])


@derivation("ppo.entropy-bounds", status="proved")
def entropy_between_none_and_uniform() -> Numbers:
    """log x <= x - 1, so log V - H = -Σ p log(1/(pV)) >= Σ (p - 1/V) = 0; and -p log p >= 0 for p <= 1."""
    x = sympy.Symbol("x", positive=True)
    room = x - 1 - sympy.log(x)  # 0 at 1, where it turns: falling before, rising after
    assert room.subs(x, 1) == sympy.diff(room, x).subs(x, 1) == 0
    assert sympy.diff(room, x, 2).is_positive
    p, count = sympy.symbols("p V", positive=True)
    term = p * room.subs(x, 1 / (p * count))
    agree(sympy.expand_log(term), sympy.expand_log(1 / count - p + p * sympy.log(p) + p * sympy.log(count)))
    surprise = sympy.Symbol("s", nonnegative=True)  # p = e^(-s), which is every p in (0, 1]
    share = -sympy.exp(-surprise) * sympy.log(sympy.exp(-surprise))
    assert share.is_nonnegative
    assert (share / surprise).is_positive  # so that it is 0 at s = 0 alone: p = 1
    for size in range(1, LARGEST + 1):
        equal = np.full((1, 1, size), sympy.Symbol("z", real=True), dtype=object)
        agree(reference.token_entropy(equal, temperature=TAU), [[sympy.log(size)]])
    for logits, zones in vocabularies():
        for zone in zones:
            logprobs = [decided(_logprob(logits, a), zone) for a in range(logits.size)]
            entropy = decided(reference.token_entropy(logits, temperature=TAU)[0, 0], zone)
            same(entropy, -sum(sympy.exp(x) * x for x in logprobs))
    uniform = reference.token_entropy(np.zeros((1, 1, 50000)))[0, 0]
    return {"tokens": 50000, "largest entropy": uniform}


def _logprob(logits: Any, a: int) -> Any:
    return reference.token_logprobs(logits, token(a), temperature=TAU)[0, 0]
