"""The clauses of the chapter `policy_loss`: log-probabilities, entropy, clips, aggregation, metrics."""

import itertools
import math
from dataclasses import replace

import numpy as np

from conformance.cases import MASK_REGIONS, VALUE_REGIONS, Case, ordinary
from conformance.extremes import filtered, left_by_filter
from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.run import Run
from conformance.values import MODES, option_values
from conformance.zones import CLIPS, SIGNS, with_every_ratio
from reference.numbers.formats import FORMATS

LOSSES = ("policy_loss", "kl_penalty_loss")
BEYOND_BLOCKS = ({"B": 1, "T": 1031, "V": 2}, {"B": 131, "T": 5, "V": 2}, {"B": 1, "T": 2, "V": 1031})
"""A long row, many rows, a large vocabulary: each more than a block of a kernel, and no multiple of one."""
VARIED = {"aggregate": "mode", "policy_loss": "ratio_level", "kl_penalty_loss": "aggregation"}
"""The option that decides what is summed up."""


@clauses("ppo.token-logprobs")
@operations("token_logprobs")
def test_token_logprobs(run: Run) -> None:
    """log softmax(logits / temperature) at the token."""
    run.over(VALUE_REGIONS, run.conforms)
    last = 2**16 + 3  # an id that needs 17 bits, beside the one that 16 of them are
    logits = np.full((1, 1, last + 1), -np.inf)
    logits[..., [3, last]] = 0.5, -1.0
    run.at(run.conforms, run.ordinary().with_arguments(logits=logits, tokens=np.array([[last]])))


@clauses("ppo.token-logprobs-gradient")
@operations("token_logprobs")
def test_gradient_of_token_logprobs(run: Run) -> None:
    """(1 - p)/τ at the token, -p/τ elsewhere."""
    run.over(VALUE_REGIONS, run.differentiates)


@clauses("ppo.token-logprobs-extremes")
@operations("token_logprobs")
def test_extreme_logits(run: Run) -> None:
    """±10⁴, and a token that is filtered out by -∞."""

    def check(case: Case) -> None:
        large = _with_large_logits(case)
        run.conforms(large)
        run.differentiates(large)
        some = case.with_arguments(logits=filtered(case.arguments["logits"]))
        tokens = left_by_filter(case.arguments["tokens"], case.arguments["logits"])
        run.conforms(some.with_arguments(tokens=tokens))
        run.differentiates(some.with_arguments(tokens=tokens))
        run.conforms(some)
        run.conforms(_far_down(some.with_arguments(tokens=tokens)))

    run.over(("generic", "adversarial"), check)


@clauses("ppo.entropy")
@operations("token_entropy")
def test_token_entropy(run: Run) -> None:
    """-Σ p log p."""
    run.over(VALUE_REGIONS, run.conforms)


@clauses("ppo.entropy-gradient")
@operations("token_entropy")
def test_gradient_of_token_entropy(run: Run) -> None:
    """-p (log p + H)/τ."""
    run.over(VALUE_REGIONS, run.differentiates)


@clauses("ppo.entropy-extremes")
@operations("token_entropy")
def test_entropy_of_extreme_logits(run: Run) -> None:
    """A token of -∞ contributes 0 to the entropy and to its gradient."""

    def check(case: Case) -> None:
        some = case.with_arguments(logits=filtered(case.arguments["logits"]))
        for extreme in (_with_large_logits(case), some, _far_down(some)):
            run.conforms(extreme)
            run.differentiates(extreme)

    run.over(("generic", "adversarial"), check)


@clauses("ppo.aggregation")
@operations("aggregate")
def test_aggregate(run: Run) -> None:
    """Each mode, in value and gradient."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    for mode in MODES:
        run.over((*VALUE_REGIONS, "square"), check, mode=mode)


@clauses("ppo.aggregation-empty-rows")
@operations("aggregate")
def test_empty_rows(run: Run) -> None:
    """A row without active tokens counts, or does not."""
    for empty_rows in ("count", "drop"):
        run.over(MASK_REGIONS, run.conforms, empty_rows=empty_rows)
    cancelling = run.ordinary().with_arguments(
        x=np.array([[1.0, -1.0, 5.0], [2.0, 3.0, 7.0], [9.0, 9.0, 9.0]]),
        mask=np.array([[True, True, False], [True, True, False], [False, False, False]]),
    )
    for mode, empty_rows in itertools.product(MODES[1:], ("count", "drop")):
        run.at(run.conforms, cancelling.with_options(mode=mode, horizon=None, empty_rows=empty_rows))


@clauses("ppo.aggregation-horizon")
@operations("aggregate")
def test_horizon(run: Run) -> None:
    """The horizon is the option, or the width of the batch."""
    for horizon in (None, 7):
        run.over(("generic", "holes"), run.conforms, mode="seq-mean-token-sum-norm", horizon=horizon)


@clauses("ppo.clip")
@operations("policy_loss")
def test_clip(run: Run) -> None:
    """-min(ρA, clip(ρ)A), aggregated."""
    run.over(VALUE_REGIONS, run.conforms, dual_clip=None)


@clauses("ppo.clip-cases", "ppo.clip-boundary")
@operations("policy_loss")
def test_gradient_of_clip(run: Run) -> None:
    """0 where the clip binds, ρA elsewhere; on a boundary anything between."""
    run.over(VALUE_REGIONS, run.differentiates, dual_clip=None, ratio_level="token")


@clauses("ppo.clip-asymmetric")
@operations("policy_loss")
def test_bounds_are_independent(run: Run) -> None:
    """Each bound at 0, and a lower one beyond 1."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    for low, high in ((0.0, 0.28), (0.2, 0.0), (1.5, 0.2)):
        run.over(("generic", "adversarial"), check, clip_low=low, clip_high=high)


@clauses("ppo.dual-clip")
@operations("policy_loss")
def test_dual_clip(run: Run) -> None:
    """A < 0 and ρ > c: -cA with the gradient 0."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    for bound in (3.0, 1.5):
        run.over(VALUE_REGIONS, check, dual_clip=bound, ratio_level="token")


@clauses("ppo.clip", "ppo.clip-cases", "ppo.clip-boundary", "ppo.dual-clip")
@operations("policy_loss")
def test_every_zone_of_the_clip(run: Run) -> None:
    """Each sign of A with ρ in each zone and on each bound, all in one batch."""

    def check(case: Case) -> None:
        zoned = with_every_ratio(case)
        run.conforms(zoned)
        run.differentiates(zoned)

    for low, high, dual in CLIPS:
        run.over(("exact", "generic"), check, inputs=3, clip_low=low, clip_high=high, dual_clip=dual)


@clauses("ppo.ratio-level")
@operations("policy_loss")
def test_ratio_level(run: Run) -> None:
    """The token's ratio, the sequence's, or the sequence's value with each token's gradient."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    for level in ("sequence", "sequence-token"):
        run.over(VALUE_REGIONS, check, ratio_level=level)


@clauses("ppo.log-ratio-clamp")
@operations("policy_loss")
def test_log_ratio_clamp(run: Run) -> None:
    """The log-ratio that is exponentiated is clipped to ±C, where the gradient is 0; None clips nothing."""

    def check(case: Case) -> None:
        within = _without_overflow(case)
        run.conforms(within)
        run.differentiates(within)

    for bound in (20.0, 0.5, None):
        run.over(("adversarial", "extremes"), check, log_ratio_clip=bound)


@clauses("ppo.log-ratio-clamp", "ppo.ratio-level")
@operations("policy_loss")
def test_both_sides_of_the_clamp(run: Run) -> None:
    """Tokens and sequences within the clamp and beyond it, on either side, where no other clip binds."""

    def check(case: Case) -> None:
        around = _without_overflow(_around_the_clamp(case))
        run.conforms(around)
        run.differentiates(around)

    for level in ("token", "sequence", "sequence-token"):
        for bound in (20.0, 0.5, None):
            run.over(("one-token",), check, ratio_level=level, log_ratio_clip=bound, dual_clip=None)


@clauses("ppo.rollout-weights")
@operations("policy_loss")
def test_rollout_weights(run: Run) -> None:
    """Weights multiply each token's objective after the clips; none are ones."""

    def check(case: Case) -> None:
        mask = case.arguments["mask"]
        mixed = np.where(np.indices(mask.shape).sum(axis=0) % 2, 2.0, 0.5)
        weights = (None, np.ones(mask.shape), mixed)
        for weighted in (case.with_arguments(rollout_weights=w) for w in weights):
            run.conforms(weighted)
            run.differentiates(weighted)

    run.over(VALUE_REGIONS, check)


@clauses("ppo.constants")
@operations(*LOSSES)
def test_masked_positions_get_no_gradient(run: Run) -> None:
    """A gradient of 0 at masked positions, whatever lies there."""

    def check(case: Case) -> None:
        mask = case.arguments["mask"]
        names = OPERATIONS[case.operation].differentiable
        filled = case.with_arguments(**{n: np.where(mask, case.arguments[n], np.nan) for n in names[:1]})
        for variant in (case, filled):
            for name, got in run.gradients(variant, list(names), run.upstream(case)).items():
                story = f"gradient in {name}: {got.tolist()}, expected 0 where masked"
                run.seen(variant, not got[~mask].any(), story)

    run.over(("holes", "empty-rows"), check, inputs=5)


@clauses("ppo.on-policy-gradient")
@operations(*LOSSES)
def test_on_policy(run: Run) -> None:
    """Where log π = log π_old: the aggregate of -A, with the gradient -A over the divisor."""

    def check(case: Case) -> None:
        same = case.with_arguments(old_logprobs=np.array(case.arguments["logprobs"]))
        run.conforms(same)
        run.differentiates(same)

    run.over(VALUE_REGIONS, check)


@clauses("ppo.kl-penalty")
@operations("kl_penalty_loss")
def test_kl_penalty(run: Run) -> None:
    """The aggregate of β kl - ρA, and its gradients."""

    def check(case: Case) -> None:
        run.conforms(case)
        run.differentiates(case)

    run.over(VALUE_REGIONS, check)


@clauses("ppo.metrics")
@operations("policy_metrics")
def test_metrics(run: Run) -> None:
    """The approximate KL and the fractions of tokens that a clip bounds."""
    run.over((*VALUE_REGIONS, *MASK_REGIONS), run.conforms)


@clauses("ppo.metrics")
@operations("policy_metrics")
def test_metrics_in_every_zone(run: Run) -> None:
    """Each sign of A with ρ in each zone and on each bound, all in one batch."""

    def check(case: Case) -> None:
        run.conforms(with_every_ratio(case))

    for low, high, dual in CLIPS:
        run.over(("exact", "generic"), check, inputs=3, clip_low=low, clip_high=high, dual_clip=dual)
    on_both_bounds = run.ordinary().with_options(clip_low=0.0, clip_high=0.0, dual_clip=None)
    logprobs, advantages = np.full((1, 4), -0.5), np.array([[1.0, -1.0, 2.0, 0.0]])
    same = {"logprobs": logprobs, "old_logprobs": logprobs, "advantages": advantages}
    with_mask = on_both_bounds.with_arguments(**same, mask=np.ones((1, 4), dtype=bool))
    run.at(run.conforms, replace(with_mask, exact=True))


@clauses("ppo.clip-cases", "ppo.clip-asymmetric", "ppo.dual-clip", of=("policy_loss",))
@clauses("ppo.metrics", of=("policy_metrics",))
@operations("policy_loss", "policy_metrics")
def test_beside_the_bounds(run: Run) -> None:
    """Each sign of A on either side of each bound, as near to it as the dtype can tell."""

    def check(case: Case) -> None:
        beside = _beside_the_bounds(case)
        run.conforms(beside)
        if run.operation == "policy_loss":
            run.differentiates(beside)

    for low, high, dual in CLIPS:
        run.over(("one-token",), check, inputs=5, clip_low=low, clip_high=high, dual_clip=dual)


@clauses("ppo.token-logprobs", of=("token_logprobs",))
@clauses("ppo.entropy", of=("token_entropy",))
@clauses("ppo.aggregation", of=("aggregate",))
@clauses("ppo.clip", of=("policy_loss",))
@clauses("ppo.metrics", of=("policy_metrics",))
@clauses("ppo.kl-penalty", of=("kl_penalty_loss",))
@operations("token_logprobs", "token_entropy", "aggregate", "policy_metrics", *LOSSES)
def test_more_than_a_block(run: Run) -> None:
    """Sizes at which a kernel has to go on with a next block, and ends within one; value and gradient."""

    def check(case: Case) -> None:
        run.conforms(case)
        if OPERATIONS[case.operation].differentiable:
            run.differentiates(case)

    limits = run.backend.limits(run.operation)
    option = VARIED.get(run.operation, "")
    values = limits.get(option, option_values(run.operation, option))
    for seed, sizes in enumerate(BEYOND_BLOCKS):
        case = _enlarged(ordinary(run.operation, run.dtype, limits, seed), sizes)
        for variant in [case.with_options(**{option: value}) for value in values] or [case]:
            run.tally.expected += 1
            run.count(check, variant)


def _around_the_clamp(case: Case) -> Case:
    """Rows of two tokens, alike but in the last row; where a row goes, no clip binds its advantages."""
    bound = case.options["log_ratio_clip"] or 20.0
    log_ratios = bound * np.array([[0.75, 0.75], [1.5, 1.5], [-0.75, -0.75], [-1.5, -1.5], [2.0, -0.5]])
    advantages = np.where(log_ratios.sum(axis=1, keepdims=True) > 0, -1.0, 1.0).repeat(2, axis=1)
    weights = None if case.arguments["rollout_weights"] is None else np.full(log_ratios.shape, 0.5)
    return case.with_arguments(
        logprobs=np.minimum(log_ratios, 0.0),
        old_logprobs=np.minimum(-log_ratios, 0.0),
        advantages=advantages,
        mask=np.full(log_ratios.shape, True),
        rollout_weights=weights,
    )


def _beside_the_bounds(case: Case) -> Case:
    """A token for each bound, side of it and sign of A, further off than a few operations may lose."""
    form, options = FORMATS[case.dtype], case.options
    bounds = [np.log1p(-options["clip_low"])] if options["clip_low"] < 1 else []
    bounds += [np.log1p(options["clip_high"]), np.log(options["dual_clip"] or 2.0)]
    sides = [bound * (1 + k * form.unit_roundoff) for bound in bounds for k in (64, -64)]
    log_ratios, signs = (x.reshape(-1, 1) for x in np.meshgrid(form.round(np.array(sides)), SIGNS))
    new, old = np.minimum(log_ratios, 0.0), np.minimum(-log_ratios, 0.0)
    weights = None if case.arguments.get("rollout_weights") is None else np.full(new.shape, 0.5)
    found = {"logprobs": new, "old_logprobs": old, "advantages": signs, "mask": np.full(new.shape, True)}
    return case.with_arguments(**found, **({} if weights is None else {"rollout_weights": weights}))


def _enlarged(case: Case, sizes: dict[str, int]) -> Case:
    """The numbers of a case over and over, up to other sizes; tokens go through the whole vocabulary."""
    found: dict[str, np.ndarray] = {}
    for argument in OPERATIONS[case.operation].arguments:
        if case.arguments[argument.name] is None:
            continue
        shape = tuple(sizes[letter] for letter in argument.shape)
        found[argument.name] = np.resize(case.arguments[argument.name], shape)
        if argument.kind == "tokens":
            found[argument.name] = sizes["V"] - 1 - np.arange(np.prod(shape)).reshape(shape) % sizes["V"]
        if argument.kind == "mask":
            found[argument.name] = np.arange(shape[1]) < shape[1] - np.arange(shape[0])[:, None] % 5
    return case.with_arguments(**found)


def _without_overflow(case: Case) -> Case:
    """Ratios that neither a clamp nor the dtype holds become 1: what 0 · ∞ is in a format is left open."""
    logprobs, old_logprobs = case.arguments["logprobs"], case.arguments["old_logprobs"]
    reach = math.log(FORMATS[case.dtype].largest) / 2
    clamped = np.minimum(logprobs - old_logprobs, case.options["log_ratio_clip"] or np.inf)
    return case.with_arguments(old_logprobs=np.where(clamped > reach, logprobs, old_logprobs))


def _with_large_logits(case: Case) -> Case:
    """One logit of each position far above the others, the last far below."""
    logits = np.array(case.arguments["logits"])
    logits[..., 0] += 1e4
    logits[..., -1] -= 1e4
    return case.with_arguments(logits=FORMATS[case.dtype].round(logits))


def _far_down(case: Case) -> Case:
    """Every logit lower than what is put in the place of -∞ here and there: -100, -1e4, -1e5."""
    down = 2e4 if case.dtype == "float16" else 2.0**17
    return case.with_arguments(logits=FORMATS[case.dtype].round(case.arguments["logits"] - down))
