"""Wrong backends whose options have other defaults: right where an option is given, wrong where it is not."""

from tests.wrong_backends.edits import Edit


def edit(
    operation: str, clause: str, base: str, option: str, right: str, wrong: str, dtype: str = "float32"
) -> Edit:
    """One whose option has another default."""
    name = f"{option.split(':')[0]} is {wrong} where it is left out"
    right_text, wrong_text = f"{option} = {right}", f"{option} = {wrong}"
    return Edit(operation, name, right_text, wrong_text, clause, dtype=dtype, base=f"torch_{base}")


CLAMP, EMPTY, LEVEL = "log_ratio_clip: float | None", "empty_rows: str", "ratio_level: str"
COUNT, DROP, TOKEN, SEQUENCE = '"count"', '"drop"', '"token"', '"sequence"'
TOKEN_MEAN, ROW_MEAN = '"token-mean"', '"seq-mean-token-mean"'

EDITS = (
    edit("policy_loss", "ppo.", "policy_loss", CLAMP, "20.0", "None"),
    edit("policy_loss", "ppo.", "policy_loss", "dual_clip: float | None", "None", "3.0"),
    edit("policy_loss", "ppo.", "policy_loss", LEVEL, TOKEN, SEQUENCE),
    edit("policy_loss", "ppo.", "policy_loss", "aggregation: str", TOKEN_MEAN, ROW_MEAN),
    edit("token_logprobs", "ppo.", "policy_loss", "temperature: float", "1.0", "0.7"),
    edit("grpo_loss", "grpo.", "group", CLAMP, "20.0", "None"),
    edit("grpo_loss", "grpo.", "group", EMPTY, COUNT, DROP),
    edit("grpo_loss", "grpo.", "group", LEVEL, TOKEN, SEQUENCE),
    edit("group_advantages", "grpo.", "group", "eps: float", "1e-6", "1e-4"),
    edit("group_advantages", "grpo.", "group", "ddof: int", "1", "0"),
    edit("group_advantages", "grpo.", "group", "scale: str", '"std"', '"none"'),
    edit("value_loss", "vf.", "value_loss", "clip: float | None", "None", "0.2"),
    edit("value_loss", "vf.", "value_loss", EMPTY, COUNT, DROP),
    edit("value_loss", "vf.", "value_loss", "aggregation: str", TOKEN_MEAN, ROW_MEAN),
    edit("whiten", "gae.", "columns", "eps: float", "1e-8", "1e-5"),
    edit("whiten", "gae.", "columns", "ddof: int", "1", "0"),
    edit("whiten", "gae.", "columns", "shift_mean: bool", "True", "False"),
    edit("gae", "gae.", "columns", "masked: str", '"skip"', '"zero"'),
    edit("sequence_logprobs", "dpo.", "preference", "average: bool", "False", "True"),
    edit("dpo_loss", "dpo.", "preference", "label_smoothing: float", "0.0", "0.1"),
    edit("dpo_loss", "dpo.", "preference", "loss_type: str", '"sigmoid"', '"ipo"'),
    edit("shaped_rewards", "rm.", "reward", "estimator: str", '"k1"', '"k3"'),
    edit("reward_model_loss", "rm.", "reward", "margin: float", "0.0", "1.0"),
    edit("trust_region_step", "trpo.", "trust_region", "cg_tol: float", "1e-10", "1e-5"),
    edit("trust_region_step", "trpo.", "trust_region", "cg_iters: int", "10", "20", dtype="float64"),
    edit("trust_region_step", "trpo.", "trust_region", "damping: float", "0.0", "0.1"),
    edit("backtracking_line_search", "trpo.", "trust_region", "backtrack: float", "0.5", "0.8"),
    edit("backtracking_line_search", "trpo.", "trust_region", "max_steps: int", "10", "20"),
    edit("train_step", "train.", "training", "epochs: int", "1", "2"),
    edit("train_step", "train.", "training", "optimizer: str", '"sgd"', '"adam"'),
    edit("train_step", "train.", "training", "beta2: float", "0.999", "0.95"),
)
