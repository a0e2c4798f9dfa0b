"""Wrong backends that put a bound on an option, take 0 for nothing, or a whole number for no number."""

from functools import partial

from tests.wrong_backends.edits import Edit

edit = partial(Edit, clause="contract.options-used")
COLUMNS, GROUP, LOSS = (partial(edit, base=f"torch_{base}") for base in ("columns", "group", "policy_loss"))
RATIO, KL, REWARD = (partial(edit, base=f"torch_{base}") for base in ("importance_sampling", "kl", "reward"))
TRAIN = partial(edit, "train_step", base="torch_training")

CLAMP = "log_ratio.clamp(-log_ratio_clip, log_ratio_clip)"
CLAMPED = CLAMP.replace("log_ratio_clip", "min(log_ratio_clip, 20)")
GIVEN, WHOLE = "if log_ratio_clip is not None", "if isinstance(log_ratio_clip, float)"
SCALED = "logits / temperature"
MARGIN = "chosen - rejected - margin"
CRITIC_CLIP = "clamp(-clip, clip)"

EDITS = (
    COLUMNS("whiten", "ddof is a flag", "(len(chosen) - ddof)", "(len(chosen) - bool(ddof))"),
    COLUMNS("whiten", "an eps of 0 is 1e-8", "variance + eps", "variance + (eps or 1e-8)"),
    COLUMNS("whiten", "an eps of at least 1e-8", "variance + eps", "variance + max(eps, 1e-8)"),
    COLUMNS(
        "discounted_returns",
        "a small gamma is 0",
        "bootstrap_value, gamma)\n",
        "bootstrap_value, gamma if gamma > 0.3 else 0.0)\n",
    ),
    COLUMNS("gae", "a small lambda is 0", "gamma * lam)\n", "gamma * (lam if lam > 0.2 else 0))\n"),
    GROUP("group_advantages", "an eps of 0 is 1e-6", "(deviation + eps)", "(deviation + (eps or 1e-6))"),
    GROUP("grpo_loss", "an upper bound of at most 2", "1 + clip_high", "1 + min(clip_high, 1.0)"),
    GROUP(
        "grpo_loss", "always clamped", f"{GIVEN}:", f"log_ratio_clip = log_ratio_clip or 20.0\n    {GIVEN}:"
    ),
    GROUP("grpo_loss", "a clamp of at most 20", CLAMP, CLAMPED),
    GROUP(
        "grpo_loss", "a coefficient of at most 4", "kl_coef * divergence", "min(kl_coef, 4.0) * divergence"
    ),
    RATIO("importance_ratio", "a whole number for a clamp ignored", GIVEN, WHOLE),
    RATIO(
        "truncated_importance_weights",
        "a whole number for a cap refused",
        "above = weights > cap",
        "assert isinstance(cap, float); above = weights > cap",
    ),
    RATIO(
        "truncated_importance_weights",
        "a cap of at most 10",
        "weights > cap",
        "weights > (cap := min(cap, 10.0))",
    ),
    KL("kl_estimate", "a whole number for a clamp ignored", GIVEN, WHOLE),
    KL(
        "kl_estimate",
        "a clamp on the value of at most 10",
        "if value_clip is None:",
        "value_clip = value_clip and min(value_clip, 10.0)\n    if value_clip is None:",
    ),
    KL("proportional_kl_coef", "0 steps are 1", "* n_steps / horizon", "* (n_steps or 1.0) / horizon"),
    RATIO(
        "truncated_importance_weights",
        "the cap in float32",
        "above = weights > cap",
        "cap = torch.tensor(cap).item(); above = weights > cap",
        clause="",
        dtype="float64",
    ),
    RATIO(
        "importance_ratio",
        "the clamp in float32",
        GIVEN,
        "log_ratio_clip = log_ratio_clip and torch.tensor(log_ratio_clip).item()\n    " + GIVEN,
        clause="",
        dtype="float64",
    ),
    LOSS(
        "policy_loss",
        "the dual clip in float32",
        "dual_clip * adv",
        "torch.tensor(dual_clip).item() * adv",
        clause="",
        dtype="float64",
    ),
    LOSS("aggregate", "a horizon of at least 1", "is None else horizon", "is None else max(horizon, 1)"),
    LOSS("policy_loss", "an upper bound of at most 2", "1 + clip_high", "1 + min(clip_high, 1.0)"),
    LOSS("policy_loss", "a dual clip of at most 5", "dual_clip * adv", "min(dual_clip, 5.0) * adv"),
    LOSS("policy_loss", "a clamp of at most 20", CLAMP, CLAMPED),
    LOSS("token_logprobs", "a temperature of at most 2", SCALED, "logits / min(temperature, 2.0)"),
    LOSS("token_logprobs", "a temperature of at least 0.1", SCALED, "logits / max(temperature, 0.1)"),
    edit(
        "value_loss",
        "a clip of at most 1",
        CRITIC_CLIP,
        "clamp(-min(clip, 1), min(clip, 1))",
        base="torch_value_loss",
    ),
    REWARD(
        "reward_model_loss",
        "a whole number for a margin ignored",
        MARGIN,
        "chosen - rejected - (margin if isinstance(margin, float) else 0)",
    ),
    REWARD("reward_model_loss", "a margin of at most 1", MARGIN, "chosen - rejected - min(margin, 1.0)"),
    REWARD("shaped_rewards", "a coefficient of at most 4", "= -kl_coef *", "= -min(kl_coef, 4.0) *"),
    edit(
        "implicit_rewards",
        "a beta of at most 2",
        "return beta *",
        "return min(beta, 2.0) *",
        base="torch_preference",
    ),
    edit(
        "trust_region_step",
        "damping of at most 1",
        "damping * vector",
        "min(damping, 1.0) * vector",
        base="torch_trust_region",
    ),
    TRAIN("2 epochs at most", "range(epochs)", "range(min(epochs, 2))"),
    TRAIN(
        "a learning rate of at most 1",
        "_Descent(table, learning_rate)",
        "_Descent(table, min(learning_rate, 1.0))",
    ),
)
