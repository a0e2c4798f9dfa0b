"""Wrong backends that are right for ordinary numbers, not for large or small ones, for ids, or for none."""

from functools import partial

from tests.wrong_backends.edits import Edit

GAE = partial(Edit, base="torch_columns", clause="gae.")
GROUP = partial(Edit, base="torch_group", clause="grpo.")
RATIO = partial(Edit, base="torch_importance_sampling", clause="is.")
KL = partial(Edit, base="torch_kl", clause="kl.")
LOSS = partial(Edit, base="torch_policy_loss", clause="ppo.")
PREFERENCE = partial(Edit, base="torch_preference", clause="contract.scale")
REGION = partial(Edit, base="torch_trust_region", clause="trpo.")
TRAIN = partial(Edit, "train_step", base="torch_training", clause="train.")

BOUND = "clamp(-1e5, 1e5)"
CHOSEN, ADVANTAGES = "torch.where(mask, x, 0)", "torch.where(mask, advantages, 0).detach()"
PAIRS = "losses.mean() if len(losses) else losses.sum()"
EACH_GROUP = "for group in set(group_ids.tolist()):"
STOP, SOLVED = "residual.norm() <= tol", "gradient, cg_iters, cg_tol)"
WITHIN, EVALUATED = "kl <= max_kl", "improvement, kl = evaluate(point)"
ENDS = "\n        if {}:\n            break"
AT_MOST_0 = "token_logprobs.clamp(max=0)"
FIRST_OUT = "torch.isneginf({}[..., :2]).all(-1, keepdim=True)"

SCALE = "contract.scale"

EDITS = (
    GAE(
        "discounted_returns",
        "rewards of at most 1e5",
        "_sums(rewards,",
        f"_sums(rewards.{BOUND},",
        clause=SCALE,
    ),
    GAE(
        "whiten",
        "numbers of at most 1e5",
        "mean = chosen.mean()",
        f"chosen = chosen.{BOUND}; mean = chosen.mean()",
        clause=SCALE,
    ),
    GAE(
        "gae",
        "advantages of at most 1e5",
        "advantages, 0).detach()\n\n\n",
        f"advantages, 0).detach().{BOUND}\n\n\n",
        clause=SCALE,
    ),
    GROUP(
        "group_advantages",
        "scores of at most 1e5",
        "scores.detach()",
        f"scores.detach().{BOUND}",
        clause=SCALE,
    ),
    PREFERENCE(
        "sequence_logprobs",
        "-100 for a token that cannot be",
        "torch.where(mask, token_logprobs, 0)",
        "torch.where(mask, token_logprobs.nan_to_num(neginf=-100.0), 0)",
    ),
    PREFERENCE(
        "implicit_rewards",
        "-10000 for a response that cannot be",
        "(policy_logprobs -",
        "(policy_logprobs.nan_to_num(neginf=-1e4) -",
    ),
    GROUP(
        "group_advantages", "ids by their last digits", "group_ids == group", "group_ids % 997 == group % 997"
    ),
    GROUP("group_advantages", "the id -100 ignored", EACH_GROUP, EACH_GROUP.replace(":", " - {-100}:")),
    GROUP("rloo_advantages", "the id -100 ignored", EACH_GROUP, EACH_GROUP.replace(":", " - {-100}:")),
    RATIO(
        "importance_ratio",
        "1 where the old policy ruled a token out",
        "log_ratio = logprobs - old_logprobs.detach()",
        "log_ratio = (logprobs - old_logprobs.detach()).nan_to_num(posinf=0.0)",
    ),
    RATIO(
        "sequence_importance_ratio",
        "tokens that were ruled out skipped",
        "torch.where(mask, logprobs",
        "torch.where(mask & (logprobs - old_logprobs).isfinite(), logprobs",
    ),
    RATIO(
        "importance_ratio",
        "log-probabilities of at most 0",
        "log_ratio = logprobs -",
        "log_ratio = logprobs.clamp(max=0) -",
        clause=SCALE,
    ),
    LOSS(
        "policy_loss",
        "log-probabilities of at most 0",
        "where(mask, logprobs -",
        "where(mask, logprobs.clamp(max=0) -",
        clause=SCALE,
    ),
    PREFERENCE("sequence_logprobs", "log-probabilities of at most 0", "token_logprobs, 0", f"{AT_MOST_0}, 0"),
    PREFERENCE(
        "dpo_loss", "log-probabilities of at most 0", "- policy_rejected)", "- policy_rejected.clamp(max=0))"
    ),
    PREFERENCE(
        "implicit_rewards",
        "log-probabilities of at least -2000",
        "* (policy_logprobs",
        "* (policy_logprobs.clamp(min=-2000)",
    ),
    LOSS(
        "token_entropy",
        "not a number where the first logits are ruled out",
        "weights = shifted.exp()",
        f"weights = torch.where({FIRST_OUT.format('shifted')}, torch.nan, shifted.exp())",
    ),
    LOSS(
        "token_logprobs",
        "not a number where the first logits are ruled out",
        "return chosen -",
        f"return chosen + torch.where({FIRST_OUT.format('shifted')}, torch.nan, 0)[..., 0] -",
    ),
    KL(
        "kl_divergence",
        "not a number where the first logits are ruled out",
        "logits.log_softmax(-1), ref",
        f"(logits + torch.where({FIRST_OUT.format('logits')}, torch.nan, 0)).log_softmax(-1), ref",
    ),
    KL(
        "kl_divergence",
        "logits of at least -1e4",
        "logits.log_softmax(-1), ref",
        "logits.clamp(min=-1e4).log_softmax(-1), ref",
    ),
    KL("adaptive_kl_coef", "a coefficient of at most 10", "coef * 2", "min(coef * 2, 10.0)"),
    KL(
        "adaptive_kl_coef", "a coefficient of at least 1e-3, or 0", "coef / 2", "coef and max(coef / 2, 1e-3)"
    ),
    KL("proportional_kl_coef", "a coefficient of at most 10", "coef * (1 +", "min(coef, 10.0) * (1 +"),
    LOSS("aggregate", "numbers of at most 1e5", CHOSEN, f"torch.where(mask, x.{BOUND}, 0)", clause=SCALE),
    LOSS("policy_loss", "advantages of at most 1e5", ADVANTAGES, f"{ADVANTAGES}.{BOUND}", clause=SCALE),
    LOSS(
        "policy_loss",
        "advantages below 1e-8 are 0",
        ADVANTAGES,
        ADVANTAGES.replace("mask,", "mask & (advantages.abs() > 1e-8),"),
        clause=SCALE,
    ),
    LOSS(
        "token_entropy",
        "logits of at least -1e5",
        "logits / temperature",
        "logits.clamp(min=-1e5) / temperature",
    ),
    Edit(
        "value_loss",
        "errors of at most 1e5",
        "(values - returns).square()",
        f"(values - returns).{BOUND}.square()",
        base="torch_value_loss",
        clause=SCALE,
    ),
    Edit(
        "shaped_rewards",
        "scores of at most 1e5",
        "scores[row]",
        f"scores[row].{BOUND}",
        base="torch_reward",
        clause=SCALE,
    ),
    Edit("reward_model_loss", "NaN for no pairs", PAIRS, "losses.mean()", "rm.", base="torch_reward"),
    Edit("dpo_loss", "NaN for no pairs", PAIRS, "losses.mean()", "dpo.", base="torch_preference"),
    REGION(
        "conjugate_gradient",
        "no tolerance below 1e-10",
        STOP,
        "residual.norm() <= max(tol, 1e-10)",
        clause=SCALE,
    ),
    REGION(
        "conjugate_gradient",
        "small squares are 0",
        STOP,
        f"{STOP} or residual.square().sum() < 1e-10",
        clause=SCALE,
    ),
    REGION(
        "trust_region_step",
        "a small curvature is none",
        "if curvature <= 0:",
        "if curvature <= 1e-12:",
        clause=SCALE,
    ),
    REGION(
        "trust_region_step", "a relative tolerance", SOLVED, SOLVED.replace("tol", "tol * gradient.norm()")
    ),
    REGION("trust_region_step", "the tolerance on the square", SOLVED, SOLVED.replace("tol", "tol**0.5")),
    REGION(
        "backtracking_line_search",
        "an infinite KL ends the search",
        EVALUATED,
        EVALUATED + ENDS.format("torch.isinf(kl)"),
    ),
    REGION(
        "backtracking_line_search",
        "an improvement that is NaN ends the search",
        EVALUATED,
        EVALUATED + ENDS.format("torch.isnan(improvement)"),
    ),
    REGION("backtracking_line_search", "a thousandth beyond the bound", WITHIN, "kl <= 1.001 * max_kl"),
    REGION("backtracking_line_search", "20 tries", "range(max_steps)", "range(min(max_steps, 20))"),
    REGION("backtracking_line_search", "the size of the KL", WITHIN, "abs(kl) <= max_kl"),
    REGION("backtracking_line_search", "a KL below 0 refused", WITHIN, "0 <= kl <= max_kl"),
    REGION(
        "backtracking_line_search",
        "an infinite improvement refused",
        "improvement > 0",
        "0 < improvement < torch.inf",
    ),
    TRAIN(
        "minibatches without tokens skipped",
        "            made.zero_grad()",
        "            if not mask[rows].any(): continue\n            made.zero_grad()",
    ),
    TRAIN(
        "group ids of 8 bits",
        "bootstrap_value, group_ids)\n    if",
        "bootstrap_value, group_ids.to(torch.int8))\n    if",
    ),
    TRAIN("64 groups", "set(group_ids.tolist())", "range(64)"),
    TRAIN("a search of 4 steps", "for j in range(10)", "for j in range(4)", dtype="float64"),
    TRAIN("a solver that stops at 1e-5", "residual.norm() <= 1e-10", "residual.norm() <= 1e-5"),
)
