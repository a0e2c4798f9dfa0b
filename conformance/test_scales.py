"""Numbers of any size: no clause of a formula bounds what it is given, or takes what is small for 0."""

from conformance.cases import Case
from conformance.marks import clauses, operations
from conformance.operations import OPERATIONS
from conformance.run import Run

OF_ANY_SIZE = tuple(
    name
    for name, operation in OPERATIONS.items()
    if any(a.kind == "real" and a.domain == "value" for a in operation.arguments)
)
SCALES = {"float16": (2.0**4, 2.0**-4)}
"""Factors by which ordinary numbers become large or small, where a dtype has no room for the usual ones."""
USUAL_SCALES = (2.0**27, 2.0**-40)
FEW_STEPS = {"conjugate_gradient": {"max_iters": 1}, "trust_region_step": {"cg_iters": 1}}
"""Options with which the answers of few bits are decided."""


@clauses("gae.td-error", of=("td_errors",))
@clauses("gae.n-step", of=("n_step_advantages",))
@clauses("gae.backward-recursion", of=("gae",))
@clauses("gae.lambda-return", of=("lambda_returns",))
@clauses("gae.lambda-one", of=("discounted_returns",))
@clauses("gae.whitening", of=("whiten",))
@clauses("is.estimator", of=("importance_sampling_mean",))
@clauses("ppo.aggregation", of=("aggregate",))
@clauses("ppo.clip", of=("policy_loss",))
@clauses("ppo.metrics", of=("policy_metrics",))
@clauses("ppo.kl-penalty", of=("kl_penalty_loss",))
@clauses("vf.loss", of=("value_loss",))
@clauses("rm.bradley-terry", of=("reward_model_loss",))
@clauses("rm.shaping", of=("shaped_rewards",))
@clauses("grpo.advantage", of=("group_advantages",))
@clauses("grpo.leave-one-out", of=("rloo_advantages",))
@clauses("grpo.loss", of=("grpo_loss",))
@clauses("trpo.conjugate-gradient", of=("conjugate_gradient",))
@clauses("trpo.step", of=("trust_region_step",))
@clauses("trpo.line-search", of=("backtracking_line_search",))
@clauses("train.tabular-step", of=("train_step",))
@operations(*OF_ANY_SIZE)
def test_numbers_of_any_size(run: Run) -> None:
    """Rewards, values, advantages and scores of 1e8 and 1e-12, all alike, in value and gradient."""

    def check(case: Case) -> None:
        run.conforms_there(case)
        if OPERATIONS[case.operation].differentiable:
            run.differentiates(case)

    plain = run.ordinary().with_options(**FEW_STEPS.get(run.operation, {}))
    run.at(check, *(_scaled(plain, factor) for factor in SCALES.get(run.dtype, USUAL_SCALES)))


def _scaled(case: Case, factor: float) -> Case:
    """The call with all such numbers times a factor, a power of two."""
    numbers = (
        a.name for a in OPERATIONS[case.operation].arguments if a.kind == "real" and a.domain == "value"
    )
    return case.with_arguments(**{name: factor * case.arguments[name] for name in numbers})
