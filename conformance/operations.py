"""The operations of the protocol: names, positions and meanings are fixed.

B is the batch, T the response length, V the vocabulary, N samples or pairs, D parameters, S states, A
actions. Every array
argument of kind "real" that has the mask's shape may hold anything at masked positions, and outputs there
are unspecified.
"""

from conformance.protocol import REQUIRED, Argument, Operation
from reference import (
    gae,
    group,
    importance_sampling,
    kl,
    logprobs,
    policy_loss,
    preference,
    reward,
    training,
    trust_region,
    value_loss,
)

BT, B, N, D = ("B", "T"), ("B",), ("N",), ("D",)
SCALAR: tuple[str, ...] = ()

MASK = Argument("mask", BT, "mask")
BOOTSTRAP = Argument("bootstrap_value", B)
ROWS = (Argument("rewards", BT), Argument("values", BT), MASK, BOOTSTRAP)
LOGPROBS = Argument("logprobs", BT, domain="logprob")
OLD_LOGPROBS = Argument("old_logprobs", BT, domain="logprob", beside="logprobs")
REF_LOGPROBS = Argument("ref_logprobs", BT, domain="logprob", beside="logprobs")
ADVANTAGES = Argument("advantages", BT)
LOGITS = Argument("logits", ("B", "T", "V"), domain="logit")
SCORES, GROUP_IDS = Argument("scores", B), Argument("group_ids", B, "ids")
LOG_WEIGHTS = Argument("log_weights", N, domain="log-weight")
MATRIX, VECTOR = Argument("matrix", ("D", "D"), "matrix"), Argument("b", D, domain="direction")

GAE_OPTIONS = {"gamma": REQUIRED, "lam": REQUIRED, "masked": "skip"}
AGGREGATION = {"aggregation": "token-mean", "horizon": None, "empty_rows": "count"}
CLIP = {"clip_low": REQUIRED, "clip_high": REQUIRED}

GAE = (
    Operation("td_errors", ROWS, {"gamma": REQUIRED}, gae.td_errors),
    Operation(
        "n_step_advantages",
        ROWS,
        {"gamma": REQUIRED, "n": REQUIRED},
        gae.n_step_advantages,
        forms=(gae.telescoped_advantages,),
    ),
    Operation("gae", ROWS, GAE_OPTIONS, gae.gae, constant=True),
    Operation("lambda_returns", ROWS, GAE_OPTIONS, gae.lambda_returns, constant=True),
    Operation(
        "discounted_returns",
        (Argument("rewards", BT), MASK, BOOTSTRAP),
        {"gamma": REQUIRED},
        gae.discounted_returns,
    ),
    Operation(
        "whiten",
        (Argument("x", BT), MASK),
        {"shift_mean": True, "ddof": 1, "eps": 1e-8},
        gae.whiten,
    ),
)

IMPORTANCE_SAMPLING = (
    Operation(
        "importance_ratio",
        (LOGPROBS, OLD_LOGPROBS),
        {"log_ratio_clip": 20.0},
        importance_sampling.importance_ratio,
        differentiable=("logprobs",),
        gradient=importance_sampling.importance_ratio_gradient,
    ),
    Operation(
        "sequence_importance_ratio",
        (LOGPROBS, OLD_LOGPROBS, MASK),
        {},
        importance_sampling.sequence_importance_ratio,
        result=B,
        differentiable=("logprobs",),
        gradient=importance_sampling.sequence_importance_ratio_gradient,
    ),
    Operation(
        "truncated_importance_weights",
        (
            Argument("old_logprobs", BT, domain="logprob"),
            Argument("rollout_logprobs", BT, domain="logprob", beside="old_logprobs"),
        ),
        {"cap": REQUIRED, "mode": "truncate"},
        importance_sampling.truncated_importance_weights,
        forms=(importance_sampling.weights_truncated_by_logarithms,),
        constant=True,
    ),
    Operation(
        "importance_sampling_mean",
        (Argument("f_values", N), LOG_WEIGHTS),
        {"self_normalized": False},
        importance_sampling.importance_sampling_mean,
        result=SCALAR,
    ),
    Operation(
        "effective_sample_size", (LOG_WEIGHTS,), {}, importance_sampling.effective_sample_size, result=SCALAR
    ),
)

KL = (
    Operation(
        "kl_estimate",
        (LOGPROBS, REF_LOGPROBS),
        {"estimator": "k1", "log_ratio_clip": None, "value_clip": None},
        kl.kl_estimate,
        differentiable=("logprobs",),
        gradient=kl.kl_estimate_gradient,
    ),
    Operation(
        "kl_divergence",
        (LOGITS, Argument("ref_logits", ("B", "T", "V"), domain="logit")),
        {},
        kl.kl_divergence,
        differentiable=("logits",),
        gradient=kl.kl_divergence_gradient,
    ),
    Operation(
        "adaptive_kl_coef",
        (),
        {"coef": REQUIRED, "kl": REQUIRED, "target": REQUIRED},
        kl.adaptive_kl_coef,
        result=SCALAR,
    ),
    Operation(
        "proportional_kl_coef",
        (),
        {"coef": REQUIRED, "kl": REQUIRED, "target": REQUIRED, "horizon": REQUIRED, "n_steps": REQUIRED},
        kl.proportional_kl_coef,
        result=SCALAR,
    ),
)

POLICY_LOSS = (
    Operation(
        "token_logprobs",
        (LOGITS, Argument("tokens", BT, "tokens", beside="logits")),
        {"temperature": 1.0},
        logprobs.token_logprobs,
        differentiable=("logits",),
        gradient=logprobs.token_logprobs_gradient,
    ),
    Operation(
        "token_entropy",
        (LOGITS,),
        {"temperature": 1.0},
        logprobs.token_entropy,
        differentiable=("logits",),
        gradient=logprobs.token_entropy_gradient,
    ),
    Operation(
        "aggregate",
        (Argument("x", BT), MASK),
        {"mode": "token-mean", "horizon": None, "empty_rows": "count"},
        policy_loss.aggregate,
        result=SCALAR,
        differentiable=("x",),
        gradient=policy_loss.aggregate_gradient,
    ),
    Operation(
        "policy_loss",
        (
            LOGPROBS,
            OLD_LOGPROBS,
            ADVANTAGES,
            MASK,
            Argument("rollout_weights", BT, "optional", domain="weight"),
        ),
        {**CLIP, "dual_clip": None, "ratio_level": "token", **AGGREGATION, "log_ratio_clip": 20.0},
        policy_loss.policy_loss,
        result=SCALAR,
        differentiable=("logprobs",),
        gradient=policy_loss.policy_loss_gradient,
    ),
    Operation(
        "policy_metrics",
        (LOGPROBS, OLD_LOGPROBS, ADVANTAGES, MASK),
        {**CLIP, "dual_clip": None},
        policy_loss.policy_metrics,
        result=SCALAR,
        keys=("approx_kl", "clip_fraction", "dual_clip_fraction"),
    ),
    Operation(
        "kl_penalty_loss",
        (LOGPROBS, OLD_LOGPROBS, ADVANTAGES, Argument("kl", BT), MASK),
        {"kl_coef": REQUIRED, "aggregation": REQUIRED},
        policy_loss.kl_penalty_loss,
        result=SCALAR,
        differentiable=("logprobs", "kl"),
        gradient=policy_loss.kl_penalty_loss_gradient,
    ),
)

VALUE_LOSS = (
    Operation(
        "value_loss",
        (Argument("values", BT), Argument("old_values", BT), Argument("returns", BT), MASK),
        {"clip": None, **AGGREGATION},
        value_loss.value_loss,
        result=SCALAR,
        differentiable=("values",),
        gradient=value_loss.value_loss_gradient,
    ),
)

REWARD = (
    Operation(
        "reward_model_loss",
        (Argument("chosen", N), Argument("rejected", N)),
        {"margin": 0.0},
        reward.reward_model_loss,
        result=SCALAR,
        differentiable=("chosen", "rejected"),
        gradient=reward.reward_model_loss_gradient,
    ),
    Operation(
        "shaped_rewards",
        (SCORES, LOGPROBS, REF_LOGPROBS, MASK),
        {"kl_coef": REQUIRED, "estimator": "k1"},
        reward.shaped_rewards,
        constant=True,
    ),
)

PREFERENCE = (
    Operation(
        "sequence_logprobs",
        (Argument("token_logprobs", BT, domain="logprob"), MASK),
        {"average": False},
        preference.sequence_logprobs,
        result=B,
        differentiable=("token_logprobs",),
        gradient=preference.sequence_logprobs_gradient,
    ),
    Operation(
        "implicit_rewards",
        (
            Argument("policy_logprobs", N, domain="logprob"),
            Argument("ref_logprobs", N, domain="logprob", beside="policy_logprobs"),
        ),
        {"beta": REQUIRED},
        preference.implicit_rewards,
        result=N,
        differentiable=("policy_logprobs",),
        gradient=preference.implicit_rewards_gradient,
    ),
    Operation(
        "dpo_loss",
        (
            Argument("policy_chosen", N, domain="logprob"),
            Argument("policy_rejected", N, domain="logprob"),
            Argument("ref_chosen", N, domain="logprob", beside="policy_chosen"),
            Argument("ref_rejected", N, domain="logprob", beside="policy_rejected"),
        ),
        {"beta": REQUIRED, "label_smoothing": 0.0, "loss_type": "sigmoid"},
        preference.dpo_loss,
        result=SCALAR,
        differentiable=("policy_chosen", "policy_rejected"),
        gradient=preference.dpo_loss_gradient,
    ),
)

GROUP = (
    Operation(
        "group_advantages",
        (SCORES, GROUP_IDS),
        {"scale": "std", "ddof": 1, "eps": 1e-6},
        group.group_advantages,
        result=B,
        constant=True,
    ),
    Operation(
        "rloo_advantages",
        (SCORES, GROUP_IDS),
        {},
        group.rloo_advantages,
        forms=(group.rloo_by_group_mean,),
        result=B,
        constant=True,
    ),
    Operation(
        "grpo_loss",
        (LOGPROBS, OLD_LOGPROBS, REF_LOGPROBS, Argument("advantages", B), MASK),
        {
            **CLIP,
            "kl_coef": REQUIRED,
            "aggregation": REQUIRED,
            "horizon": None,
            "empty_rows": "count",
            "ratio_level": "token",
            "log_ratio_clip": 20.0,
        },
        group.grpo_loss,
        result=SCALAR,
        differentiable=("logprobs",),
        gradient=group.grpo_loss_gradient,
    ),
)

TRUST_REGION = (
    Operation(
        "conjugate_gradient",
        (MATRIX, VECTOR),
        {"max_iters": REQUIRED, "tol": REQUIRED},
        trust_region.conjugate_gradient,
        result=D,
    ),
    Operation(
        "trust_region_step",
        (MATRIX, Argument("gradient", D, domain="direction")),
        {"max_kl": REQUIRED, "cg_iters": 10, "cg_tol": 1e-10, "damping": 0.0},
        trust_region.trust_region_step,
        result=D,
    ),
    Operation(
        "backtracking_line_search",
        (MATRIX, Argument("slope", D), Argument("parameters", D), Argument("full_step", D)),
        {"max_kl": REQUIRED, "backtrack": 0.5, "max_steps": 10},
        trust_region.backtracking_line_search,
        result=D,
    ),
)

TRAINING = (
    Operation(
        "train_step",
        (
            Argument("parameters", ("S", "A+1"), domain="table"),
            Argument("ref_logits", ("S", "A"), domain="table"),
            Argument("states", BT, "states", beside="ref_logits"),
            Argument("actions", BT, "tokens", beside="ref_logits"),
            Argument("rewards", BT),
            MASK,
            BOOTSTRAP,
            GROUP_IDS,
        ),
        {
            "algorithm": REQUIRED,
            "learning_rate": REQUIRED,
            "optimizer": "sgd",
            "max_grad_norm": None,
            "clip_eps": 1e-6,
            "beta1": 0.9,
            "beta2": 0.999,
            "adam_eps": 1e-8,
            "epochs": 1,
            "minibatch_rows": None,
            "gamma": 1.0,
            "lam": 0.95,
            "clip_low": 0.2,
            "clip_high": 0.2,
            "value_clip": None,
            "value_coef": 0.5,
            "kl_coef": 0.04,
            "aggregation": "token-mean",
            "beta": 0.1,
            "max_kl": 0.01,
            "cg_iters": 10,
            "damping": 0.1,
        },
        training.train_step,
        result=("S", "A+1"),
        share=0.4,
    ),
)

CHAPTERS = {
    "gae": GAE,
    "importance_sampling": IMPORTANCE_SAMPLING,
    "kl": KL,
    "policy_loss": POLICY_LOSS,
    "value_loss": VALUE_LOSS,
    "reward": REWARD,
    "preference": PREFERENCE,
    "group": GROUP,
    "trust_region": TRUST_REGION,
    "training": TRAINING,
}
"""The operations by chapter."""

OPERATIONS = {operation.name: operation for chapter in CHAPTERS.values() for operation in chapter}
"""The operations by name."""
