"""Derivations of the chapter `ppo` around the clip: levels of the ratio, penalty, total, metrics."""

import itertools
from typing import Any

import numpy as np
import sympy

from reference import clipping, importance_sampling, logprobs
from reference import policy_loss as reference
from reference.numbers import symbols
from spec.policy_loss_logits import TAU, same, token, vocabularies
from spec.proofs import Numbers, agree, derivation
from spec.zones import Zone, decided, gradient

BOUND, GAP, NEAR, LOW, HIGH, SIZE, OTHER = sympy.symbols("C d e epsilon_l epsilon_h a b", positive=True)
UP = sympy.Symbol("g", real=True)
UNCLAMPED: dict[str, Any] = {"log_ratio_clip": None}
CLIPS: dict[str, Any] = {"clip_low": LOW, "clip_high": HIGH, "log_ratio_clip": None}
FIFTH: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.2}
exp = np.frompyfunc(sympy.exp, 1, 1)


@derivation("ppo.ratio-level", status="verified for T <= 3")
def levels_of_the_ratio() -> None:
    """On every mask: the values are importance ratios, and each gradient is its level's derivative."""
    masks = (mask for length in range(1, 4) for mask in itertools.product((False, True), repeat=length))
    for mask in (np.array([mask]) for mask in masks if any(mask)):
        new, old, upstream = (symbols.array(name, mask.shape) for name in ("x", "o", "g"))
        sequence = importance_sampling.sequence_importance_ratio(new, old, mask)[0]
        token = importance_sampling.importance_ratio(new, old, **UNCLAMPED)
        start, constant = symbols.array("y", mask.shape), sympy.Symbol("s", positive=True)
        here = dict(zip(start.flat, new.flat, strict=True)) | {constant: sequence}
        claims = {
            "token": (token, token),
            "sequence": (np.full(mask.shape, sequence), np.full(mask.shape, sequence)),
            "sequence-token": (np.full(mask.shape, sequence), constant * exp(new - start)),
        }
        for level, (value, path) in claims.items():
            options = UNCLAMPED | {"ratio_level": level}
            agree(clipping.policy_ratio(new, old, mask, **options)[mask], value[mask])
            derivative = gradient(sum((upstream * path)[mask]), new)
            put = np.frompyfunc(lambda x, here=here: x.subs(here), 1, 1)
            agree(clipping.policy_ratio_gradient(upstream, new, old, mask, **options), put(derivative))


@derivation("ppo.ratio-level", status="verified for T <= 2")
def clipped_sequences() -> Numbers:
    """A row with a token rewarded and one punished, ρ above: who is held, what either receives."""
    new, old, advantages = (symbols.array(name, (1, 2)) for name in ("x", "o", "A"))
    mask = np.array([[True, True]])
    change = (new - old).sum()
    ratio = sympy.exp(sympy.expand(change / 2))
    at_ratio: Zone = {new[0, 0]: old[0, 0] - new[0, 1] + old[0, 1] + 2 * sympy.log(1 + HIGH + GAP)}
    zone = at_ratio | {advantages[0, 0]: SIZE, advantages[0, 1]: -OTHER}
    free = ratio * advantages[0, 1]
    for level, shares in (("sequence", (free / 2, free / 2)), ("sequence-token", (0, free))):
        options = CLIPS | {"ratio_level": level}
        value = decided(reference.policy_loss(new, old, advantages, mask, **options), zone)
        agree(value, -((1 + HIGH) * advantages[0, 0] + free) / 2)
        slope = decided(reference.policy_loss_gradient(UP, new, old, advantages, mask, **options), zone)
        agree(slope[0], [-UP * share / 2 for share in shares])
        if level == "sequence":
            agree(gradient(UP * value, new), slope)
    same = np.array([[SIZE, SIZE]])
    inside = {new[0, 0]: at_ratio[new[0, 0]].subs(HIGH + GAP, NEAR), HIGH: NEAR + GAP}
    both = [
        decided(reference.policy_loss_gradient(UP, new, old, same, mask, **CLIPS, ratio_level=level), inside)
        for level in ("sequence", "sequence-token")
    ]
    agree(*both)
    return _three_tokens()


def _three_tokens() -> Numbers:
    """What advantages of 1, -1 and 0.5 send back on policy."""
    rows = np.zeros((1, 3)), np.zeros((1, 3)), np.array([[1.0, -1.0, 0.5]]), np.ones((1, 3), dtype=bool)
    found: Numbers = {"an advantage": 0.5}
    for level in ("sequence", "sequence-token"):
        slope = reference.policy_loss_gradient(1.0, *rows, **FIFTH, ratio_level=level)[0]
        found |= {f"{level} {t}": x for t, x in enumerate(slope)}
    return found


@derivation("ppo.log-ratio-clamp", status="proved")
def clamp_of_the_log_ratio() -> Numbers:
    """exp(±C) without slope beyond the clamp, ρ with its own inside, for a token and a mean of two."""
    for length, level in ((1, "token"), (2, "sequence"), (2, "sequence-token")):
        new, old, upstream = (symbols.array(name, (1, length)) for name in ("x", "o", "g"))
        mask = np.ones((1, length), dtype=bool)
        mean = sympy.expand((new - old).sum() / length)
        rest = sympy.expand(length * mean - new[0, 0])
        options = {"ratio_level": level}
        for log_ratio, bound, held in (
            (BOUND + GAP, BOUND, sympy.exp(BOUND)),
            (-BOUND - GAP, BOUND, sympy.exp(-BOUND)),
            (NEAR, NEAR + GAP, None),
            (-NEAR, NEAR + GAP, None),
        ):
            zone: Zone = {new[0, 0]: length * log_ratio - rest, BOUND: bound}
            value = decided(clipping.policy_ratio(new, old, mask, **options, log_ratio_clip=BOUND), zone)
            agree(value, np.full((1, length), sympy.exp(mean) if held is None else held))
            slope = clipping.policy_ratio_gradient(upstream, new, old, mask, **options, log_ratio_clip=BOUND)
            free = clipping.policy_ratio_gradient(upstream, new, old, mask, **options, log_ratio_clip=None)
            agree(decided(slope, zone), free if held is None else 0 * free)
    return _far_tokens()


def _far_tokens() -> Numbers:
    """The largest ratio at the default clamp; tokens at ±30, alone and as a sequence."""
    logprobs, mask = np.array([[30.0, -30.0]]), np.array([[True, True]])
    token, sequence = (
        clipping.policy_ratio(logprobs, np.zeros((1, 2)), mask, ratio_level=level)[0]
        for level in ("token", "sequence")
    )
    found = {"C": 20, "a log-ratio": 30, "the other": -30, "sequence": sequence[0]}
    return found | {"largest ratio, in millions": token[0] / 1e6}


@derivation("ppo.kl-penalty", status="proved")
def penalised_loss_and_gradient() -> Numbers:
    """Every mask of two rows: aggregated βk - ρA; its derivatives are the code's gradients."""
    coef = sympy.Symbol("beta", positive=True)
    for mask in itertools.product((False, True), repeat=4):
        rows = [symbols.array(name, (2, 2)) for name in ("x", "o", "A", "k")]
        active = np.array(mask).reshape(2, 2)
        for mode in reference.MODES:
            options: dict[str, Any] = {"kl_coef": coef, "aggregation": mode}
            new, old, advantages, kl = rows
            loss = reference.kl_penalty_loss(new, old, advantages, kl, active, **options)
            each = coef * kl - exp(new - old) * advantages
            agree(loss, reference.aggregate(each, active, mode=mode))
            slopes = reference.kl_penalty_loss_gradient(UP, new, old, advantages, kl, active, **options)
            agree(slopes, [gradient(UP * loss, new), gradient(UP * loss, kl)])
    slope, _ = reference.kl_penalty_loss_gradient(
        1.0, np.log([[2.0]]), np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1)), np.array([[True]]),
        kl_coef=0.1, aggregation="token-mean",
    )  # fmt: skip
    return {"slope at ρ = 2": slope[0, 0]}


@derivation("ppo.kl-penalty", status="verified for V <= 3")
def divergence_has_no_slope_on_policy() -> None:
    """The gradient of KL(π_old‖π) in the logits, -Σ q_a ∇log p_a, is (p - q)/τ, which is 0 at π = π_old."""
    one = np.array([[sympy.Integer(1)]])
    for logits, zones in vocabularies():
        old = symbols.array("q", (logits.size,))
        old[-1] = 1 - sum(old[:-1])
        p = logprobs.probabilities(logits, temperature=TAU)
        slopes = [
            -old[a] * logprobs.token_logprobs_gradient(one, logits, token(a), temperature=TAU)
            for a in range(logits.size)
        ]
        for zone in zones:
            same(decided(sum(slopes), zone), decided((p - old) / TAU, zone))


@derivation("ppo.total-loss", status="proved")
def signs_of_the_total() -> Numbers:
    """The total falls with entropy, by its coefficient, and rises with the KL loss, by its own."""
    policy, entropy, kl = sympy.symbols("L H D", real=True)
    total = reference.total_loss(policy, entropy, kl, entropy_coef=NEAR, kl_coef=GAP)
    agree(gradient(total, np.array([policy, entropy, kl])), [1, -NEAR, GAP])
    logits = np.log([[[0.8, 0.2]]])
    start, coef = logprobs.token_entropy(logits)[0, 0], 0.1
    slope: Any = logprobs.token_entropy_gradient(np.ones((1, 1)), logits)
    found: Numbers = {"p": 0.8, "the other p": 0.2, "coefficient": coef, "entropy": start}
    for name, sign in (("right", 1.0), ("wrong", -1.0)):
        step: Any = -reference.total_loss(0.0, sign * slope, 0.0, entropy_coef=coef, kl_coef=0.0)
        found[f"entropy after a step, {name} sign"] = logprobs.token_entropy(logits + step)[0, 0]
    assert found["entropy after a step, right sign"] > start > found["entropy after a step, wrong sign"]
    return found


@derivation("ppo.metrics", status="proved")
def approximate_kl_is_unbiased() -> Numbers:
    """Tokens in the proportions of π_old: their approx_kl is KL(π_old‖π), here with π_old in quarters."""
    p = symbols.array("p", (3,), positive=True)
    counts = (2, 1, 1)
    new = np.array([[sympy.log(x) for x, count in zip(p, counts, strict=True) for _ in range(count)]])
    quarters = [sympy.Rational(count, 4) for count in counts]
    old = np.array([[sympy.log(x) for x, count in zip(quarters, counts, strict=True) for _ in range(count)]])
    clips = {"clip_low": LOW, "clip_high": HIGH}
    mask, advantages = np.ones((1, 4), dtype=bool), np.full((1, 4), SIZE)
    metrics = reference.policy_metrics(new, old, advantages, mask, **clips)
    agree(metrics["approx_kl"], sum(q * sympy.log(q / x) for q, x in zip(quarters, p, strict=True)))
    risen = reference.policy_metrics(
        np.log([[1.5]]), np.zeros((1, 1)), np.ones((1, 1)), np.array([[True]]), **FIFTH
    )
    return {"ratio": 1.5, "approx_kl": risen["approx_kl"]}


@derivation("ppo.metrics", status="proved")
def fractions_count_what_is_held() -> Numbers:
    """Rewarded above the clip and punished below it, strictly; punished beyond c; never at A = 0."""
    bounds = {"clip_low": LOW, "clip_high": HIGH, "dual_clip": 1 + HIGH + NEAR}
    zone: Zone = {LOW: GAP}
    for advantage, ratio, clipped, beyond in (
        (SIZE, 1 + HIGH + GAP, 1, 0), (SIZE, 1 + HIGH, 0, 0), (SIZE, 1 - LOW - GAP, 0, 0), (SIZE, 1, 0, 0),
        (-SIZE, 1 - LOW - GAP, 1, 0), (-SIZE, 1 - LOW, 0, 0), (-SIZE, 1 + HIGH + NEAR, 0, 0),
        (-SIZE, 1, 0, 0), (-SIZE, 1 + HIGH + NEAR + GAP, 0, 1), (0, 1 + HIGH + NEAR + GAP, 0, 0),
        (0, 1 - LOW - GAP, 0, 0),
    ):  # fmt: skip
        shares = clipping.bounded_shares(_one(ratio), _one(advantage), **bounds)
        agree([decided(share[0, 0], zone) for share in shares], [clipped, beyond])
    ratios = np.array([[1.5, 0.5]])
    both = reference.policy_metrics(
        np.log(ratios), np.zeros((1, 2)), np.ones((1, 2)), np.array([[True, True]]), **FIFTH
    )
    outside = np.mean(np.abs(ratios - 1) > 0.2)
    return {"ratio": 1.5, "other": 0.5, "fraction": both["clip_fraction"], "whatever the sign": outside}


def _one(x: Any) -> Any:
    """An array of one symbol."""
    return np.array([[sympy.sympify(x)]], dtype=object)
