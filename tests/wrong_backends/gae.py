"""Wrong backends of the chapter `gae`."""

from tests.wrong_backends.edits import Edit

TIME = "range(mask.shape[1])"
NEXT_VALUE = "next_value = np.where(active, values[:, t], next_value)"
STEP = 'active | step if masked == "zero" else active'
RUNNING_RETURN = "rewards[:, t] + gamma * following, following)"

EDITS = (
    Edit("td_errors", "gamma twice", "gamma *", "gamma**2 *"),
    Edit("td_errors", "gamma forgotten", "gamma * next_value", "next_value"),
    Edit(
        "td_errors", "the mask of the values one token off",
        NEXT_VALUE, NEXT_VALUE.replace("active", "active | mask[:, t - 1]"),
        thread="volcengine/verl#1850",
    ),
    Edit(
        "td_errors", "the bootstrap value one token early",
        NEXT_VALUE, NEXT_VALUE.replace("active", "active & mask[:, t + 1 :].any(axis=1)"),
        thread="anthonytorlucci/rlevo#342",
    ),
    Edit(
        "td_errors", "truncation taken for termination",
        "next_value = bootstrap_value", "next_value = np.zeros_like(bootstrap_value)",
        thread="pytorch/rl#1661",
    ),
    Edit(
        "td_errors", "truncated where a row fills the batch",
        "next_value = bootstrap_value", "next_value = np.where(mask[:, -1], bootstrap_value, 0)",
        thread="inclusionAI/AReaL#1637",
    ),
    Edit(
        "td_errors", "the next row follows a truncated one",
        "next_value = bootstrap_value", "next_value = (bootstrap_value != 0) * np.roll(values[:, 0], -1)",
        thread="pytorch/rl#4209",
    ),
    Edit(
        "td_errors", "the first bootstrap value for every row",
        "next_value = bootstrap_value", "next_value = bootstrap_value[:1]",
    ),
    Edit(
        "td_errors", "the masks of other rows",
        "active = mask[:, t]", "active = mask[::-1, t]",
        thread="volcengine/verl#1440",
    ),
    Edit(
        "td_errors", "128 tokens of a row",
        TIME, "range(min(mask.shape[1], 128))",
        clause="contract.shapes",
    ),
    Edit(
        "td_errors", "values multiplied by the mask",
        NEXT_VALUE, "next_value = active * values[:, t] + ~active * next_value",
        thread="volcengine/verl#2377", clause="contract.masked-nonfinite",
    ),

    Edit("n_step_advantages", "gamma twice", "gamma *", "gamma**2 *"),
    Edit("n_step_advantages", "n ignored", "range(n)", TIME),
    Edit("n_step_advantages", "one step too many", "range(n)", "range(n + 1)"),
    Edit("n_step_advantages", "one step too few", "range(n)", "range(n - 1)"),
    Edit("n_step_advantages", "at most 16 steps", "range(n)", "range(min(n, 16))"),
    Edit("n_step_advantages", "at most 32 steps", "range(n)", "range(min(n, 32))"),
    Edit(
        "n_step_advantages", "a step into a hole",
        "following = np.where(active, returns[:, t], following)", "following = returns[:, t]",
        thread="volcengine/verl#2337",
    ),
    Edit(
        "n_step_advantages", "truncation taken for termination",
        "following = bootstrap_value", "following = np.zeros_like(bootstrap_value)",
        thread="pytorch/rl#1661",
    ),
    Edit(
        "n_step_advantages", "written into the values",
        "np.zeros_like(rewards)", "returns",
        thread="THUDM/slime#2114", clause="contract.pure",
    ),

    Edit("gae", "lambda ignored", "gamma * lam *", "gamma *"),
    Edit("gae", "gamma forgotten in the sum", "gamma * lam *", "lam *"),
    Edit("gae", "gamma forgotten in the TD error", "gamma * next_value", "next_value"),
    Edit("gae", "a lambda of 0 is no lambda", "* lam *", "* (lam or 0.95) *"),
    Edit("gae", "masked ignored", STEP, "active"),
    Edit(
        "gae", "observations are time steps",
        STEP, "active | step",
        thread="volcengine/verl#2337",
    ),
    Edit(
        "gae", "padding is time steps",
        "np.zeros_like(mask[:, 0])", "np.ones_like(mask[:, 0])",
    ),
    Edit(
        "gae", "the sum starts anew behind a hole",
        "np.where(step, advantage, next_advantage)", "np.where(step, advantage, 0)",
        thread="verl-project/verl#7278",
    ),
    Edit(
        "gae", "truncation taken for termination",
        "next_advantage = bootstrap_value,", "next_advantage = np.zeros_like(bootstrap_value),",
        thread="pytorch/rl#1661",
    ),
    Edit(
        "gae", "rewards multiplied by the mask",
        "np.where(active, rewards[:, t], 0)", "active * rewards[:, t]",
        thread="volcengine/verl#2377", clause="contract.masked-nonfinite",
    ),
    Edit(
        "gae", "rewards of masked tokens count",
        "np.where(active, rewards[:, t], 0)", "rewards[:, t]",
        thread="radixark/miles#1827",
    ),
    Edit(
        "gae", "rewards masked in place",
        "active = mask[:, t]", "active = mask[:, t]; rewards[:, t] *= active",
        thread="THUDM/slime#2114",
    ),
    Edit(
        "gae", "whitened at once",
        "return advantages",
        "return (advantages - advantages[mask].mean()) / (advantages[mask].std() + 1e-8)",
    ),
    Edit(
        "gae", "float64 comes back",
        "return advantages", "return advantages.astype(np.float64)",
        clause="contract.shapes",
    ),
    Edit(
        "gae", "float32 inside",
        "np.where(step, advantage, next_advantage)",
        "np.where(step, advantage, next_advantage).astype(np.float32)",
        dtype="float64",
    ),
    Edit(
        "gae", "a gradient flows through",
        ".detach()", "",
        clause="contract.constants", base="torch_columns",
    ),

    Edit(
        "gae", "the end of an episode one step early",
        "next_value = np.where(step, value, next_value)",
        "next_value = np.where(step & mask[:, t + 1 :].any(axis=1), value, next_value)",
        thread="hill-a/stable-baselines#388",
    ),
    Edit(
        "gae", "the value of the last state is 0",
        "next_value = np.where(step, value, next_value)",
        "next_value = np.where(step, value * mask[:, t + 1 :].any(axis=1), next_value)",
        thread="ray-project/ray#57895",
    ),
    Edit(
        "gae", "256 tokens of a row",
        TIME, "range(min(mask.shape[1], 256))",
        clause="contract.shapes",
    ),
    Edit(
        "gae", "256 rows",
        "return advantages", "advantages[256:] = 0; return advantages",
        clause="contract.shapes",
    ),

    Edit("lambda_returns", "masked ignored", STEP, "active"),
    Edit("lambda_returns", "advantages, not returns", "lambda_return, 0)", "lambda_return - value, 0)"),
    Edit(
        "lambda_returns", "lambda and 1 - lambda swapped",
        "(1 - lam) * next_value + lam *", "lam * next_value + (1 - lam) *",
    ),
    Edit(
        "lambda_returns", "gamma in one of two terms",
        "gamma * ((1 - lam) * next_value + lam * next_return)",
        "gamma * (1 - lam) * next_value + lam * next_return",
    ),
    Edit(
        "lambda_returns", "the next episode leaks in",
        "next_value = next_return = bootstrap_value",
        "next_value, next_return = bootstrap_value, np.roll(values[:, 0], -1)",
        thread="vwxyzjn/cleanrl#494",
    ),
    Edit(
        "lambda_returns", "advantages of the call before",
        "return returns",
        "kept, now = vars(lambda_returns), returns - values; before = kept.get(now.shape, now)"
        "; kept[now.shape] = now; return before + values",
    ),
    Edit(
        "lambda_returns", "the values alone", "return returns", "return np.where(mask, values, 0)",
        thread="vwxyzjn/cleanrl#337",
    ),
    Edit(
        "lambda_returns", "remembered by all but the values",
        "return returns",
        "key = str((rewards, mask, gamma, lam, masked))"
        "; return vars(lambda_returns).setdefault(key, returns)",
    ),

    Edit("discounted_returns", "gamma twice", "gamma *", "gamma**2 *"),
    Edit(
        "discounted_returns", "the running return starts anew behind a hole",
        RUNNING_RETURN, "rewards[:, t] + gamma * following, 0)",
        thread="verl-project/verl#7278",
    ),
    Edit(
        "discounted_returns", "a hole costs a discount",
        RUNNING_RETURN, "rewards[:, t] + gamma * following, gamma * following)",
        thread="volcengine/verl#2337",
    ),
    Edit(
        "discounted_returns", "rewards of masked tokens count",
        RUNNING_RETURN, "rewards[:, t] + gamma * following, rewards[:, t] + following)",
        thread="radixark/miles#1827",
    ),
    Edit(
        "discounted_returns", "masked tokens are steps",
        RUNNING_RETURN, "rewards[:, t] + gamma * following, rewards[:, t] + gamma * following)",
        thread="THUDM/slime#1372",
    ),
    Edit(
        "discounted_returns", "strides ignored",
        "following = bootstrap_value",
        "rewards = np.lib.stride_tricks.as_strided(rewards, rewards.shape, returns.strides)"
        "; following = bootstrap_value",
        clause="contract.pure",
    ),
    Edit(
        "discounted_returns", "the stride of a row is its length",
        "following = bootstrap_value",
        "rewards = np.lib.stride_tricks.as_strided("
        "rewards, rewards.shape, (rewards.shape[1] * rewards.strides[1], rewards.strides[1]))"
        "; following = bootstrap_value",
        clause="contract.pure",
    ),
    Edit(
        "discounted_returns", "strides of a mask ignored",
        "following = bootstrap_value",
        "mask = np.lib.stride_tricks.as_strided(mask, mask.shape, (mask.shape[1], 1))"
        "; following = bootstrap_value",
        clause="contract.pure",
    ),
    Edit(
        "discounted_returns", "the last step dropped",
        TIME, "range(mask.shape[1] - 1)",
        thread="ray-project/ray#36013",
    ),
    Edit(
        "discounted_returns", "truncated where a row fills the batch",
        "following = bootstrap_value", "following = np.where(mask[:, -1], bootstrap_value, 0)",
        thread="inclusionAI/AReaL#1637",
    ),
    Edit(
        "discounted_returns", "the axis of time found by its length",
        "following = bootstrap_value",
        "following = bootstrap_value; rewards = np.moveaxis(rewards, rewards.shape.index(mask.shape[1]), 1)",
        thread="OpenRLHF/OpenRLHF#1250", clause="",
    ),
    Edit(
        "discounted_returns", "written into the rewards",
        "np.zeros_like(rewards)", "rewards",
        thread="THUDM/slime#2114", clause="contract.pure",
    ),
    Edit(
        "discounted_returns", "one buffer for the results of all calls",
        "return returns",
        "kept = vars(discounted_returns).setdefault(returns.shape, returns); kept[:] = returns; return kept",
        clause="contract.pure",
    ),
    Edit(
        "discounted_returns", "arguments have to be writable",
        "following = bootstrap_value", "following = bootstrap_value; rewards.flags.writeable or 1 / 0",
        clause="contract.pure",
    ),

    Edit("whiten", "ddof is 0", "(chosen.size - ddof)", "chosen.size"),
    Edit("whiten", "ddof is 1", "(chosen.size - ddof)", "max(chosen.size - 1, 1)"),
    Edit("whiten", "eps outside the root", "np.sqrt(variance + eps)", "(np.sqrt(variance) + eps)"),
    Edit("whiten", "eps as the least variance", "variance + eps", "max(variance, eps)"),
    Edit("whiten", "eps ignored", "variance + eps", "variance + 1e-8"),
    Edit(
        "whiten", "0 divided by 0", "variance + eps", "variance",
        thread="huggingface/trl#727",
    ),
    Edit("whiten", "a small variance is none", "variance + eps", "(variance if variance > 1e-5 else np.inf)"),
    Edit(
        "whiten", "clipped at 5",
        "whitened if shift_mean else whitened + mean",
        "whitened.clip(-5, 5) if shift_mean else whitened + mean",
    ),
    Edit("whiten", "no root", "np.sqrt(variance + eps)", "(variance + eps)"),
    Edit("whiten", "shift_mean the wrong way around", "if shift_mean", "if not shift_mean"),
    Edit(
        "whiten", "mean of squares less square of the mean",
        "(centred * centred).sum()", "((chosen * chosen).sum() - mean * mean * chosen.size)",
        thread="verl-project/verl#6348",
    ),
    Edit(
        "whiten", "the mean of each row",
        "chosen - mean", "(x - x.mean(axis=1, keepdims=True, where=mask))[mask]",
        thread="OpenRLHF/OpenRLHF#1250",
    ),
    Edit(
        "whiten", "the mean of a shard",
        "chosen.sum() / chosen.size", "chosen[: (chosen.size + 1) // 2].mean()",
        thread="THUDM/slime#2235",
    ),
    Edit("whiten", "the mean of all positions", "chosen.sum() / chosen.size", "x.mean()"),
    Edit(
        "whiten", "the sum over all positions, the count of the active ones",
        "chosen.sum()", "x.sum()",
        thread="inclusionAI/AReaL#1346",
    ),
    Edit(
        "whiten", "a sum multiplied by the mask",
        "chosen.sum()", "(x * mask).sum()",
        thread="OpenRLHF/OpenRLHF#1240", clause="contract.masked-nonfinite",
    ),
    Edit("whiten", "one active token", "size <= ddof", "size == 0", thread="alibaba/ROLL#475"),
    Edit(
        "whiten", "the mean of what is not whitened",
        "        return result", "        return result if shift_mean else result + x",
    ),
    Edit("whiten", "float32 inside", "x[mask]", "x[mask].astype(np.float32)", dtype="float64"),
)  # fmt: skip
