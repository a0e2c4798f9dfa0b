"""Wrong backends whose options have other defaults: right where an option is given, wrong where it is not."""

from tests.wrong_backends.edits import Edit

CLAUSE = "contract.defaults"


def edit(operation: str, base: str, option: str, right: str, wrong: str, dtype: str = "float32") -> Edit:
    """One whose option has another default."""
    name = f"{option.split(':')[0]} is {wrong} where it is left out"
    right_text, wrong_text = f"{option} = {right}", f"{option} = {wrong}"
    return Edit(operation, name, right_text, wrong_text, CLAUSE, dtype=dtype, base=f"torch_{base}")


CLAMP, EMPTY, LEVEL = "log_ratio_clip: float | None", "empty_rows: str", "ratio_level: str"
COUNT, DROP, TOKEN, SEQUENCE = '"count"', '"drop"', '"token"', '"sequence"'
TOKEN_MEAN, ROW_MEAN = '"token-mean"', '"seq-mean-token-mean"'

EDITS = (
    edit("policy_loss", "policy_loss", CLAMP, "20.0", "None"),
    edit("policy_loss", "policy_loss", "dual_clip: float | None", "None", "3.0"),
    edit("policy_loss", "policy_loss", LEVEL, TOKEN, SEQUENCE),
    edit("policy_loss", "policy_loss", "aggregation: str", TOKEN_MEAN, ROW_MEAN),
    edit("token_logprobs", "policy_loss", "temperature: float", "1.0", "0.7"),
    edit("grpo_loss", "group", CLAMP, "20.0", "None"),
    edit("grpo_loss", "group", EMPTY, COUNT, DROP),
    edit("grpo_loss", "group", LEVEL, TOKEN, SEQUENCE),
    edit("group_advantages", "group", "eps: float", "1e-6", "1e-4"),
    edit("group_advantages", "group", "ddof: int", "1", "0"),
    edit("group_advantages", "group", "scale: str", '"std"', '"none"'),
    edit("value_loss", "value_loss", "clip: float | None", "None", "0.2"),
    edit("value_loss", "value_loss", EMPTY, COUNT, DROP),
    edit("value_loss", "value_loss", "aggregation: str", TOKEN_MEAN, ROW_MEAN),
    edit("whiten", "columns", "eps: float", "1e-8", "1e-5"),
    edit("whiten", "columns", "ddof: int", "1", "0"),
    edit("whiten", "columns", "shift_mean: bool", "True", "False"),
    edit("gae", "columns", "masked: str", '"skip"', '"zero"'),
    edit("sequence_logprobs", "preference", "average: bool", "False", "True"),
    edit("dpo_loss", "preference", "label_smoothing: float", "0.0", "0.1"),
    edit("dpo_loss", "preference", "loss_type: str", '"sigmoid"', '"ipo"'),
    edit("shaped_rewards", "reward", "estimator: str", '"k1"', '"k3"'),
    edit("reward_model_loss", "reward", "margin: float", "0.0", "1.0"),
    edit("trust_region_step", "trust_region", "cg_tol: float", "1e-10", "1e-5"),
    edit("trust_region_step", "trust_region", "cg_iters: int", "10", "20", dtype="float64"),
    edit("trust_region_step", "trust_region", "damping: float", "0.0", "0.1"),
    edit("backtracking_line_search", "trust_region", "backtrack: float", "0.5", "0.8"),
    edit("backtracking_line_search", "trust_region", "max_steps: int", "10", "20"),
    edit("train_step", "training", "epochs: int", "1", "2"),
    edit("train_step", "training", "optimizer: str", '"sgd"', '"adam"'),
    edit("train_step", "training", "beta2: float", "0.999", "0.95"),
)
