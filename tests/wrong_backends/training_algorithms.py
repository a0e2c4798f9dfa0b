"""Wrong trainers that are right in some of the algorithms alone, or for what is small."""

from functools import partial

from tests.wrong_backends.edits import Edit

edit = partial(Edit, "train_step", clause="train.", base="torch_training")

CLAMP = "(new - old[rows]).clamp(-20, 20)"
GRPO_POLICY = "policy = clipped(table, rows, relative)"
GRPO_MEAN = "return _mean(policy + kl_coef * divergence, mask[rows], aggregation)"
PPO_MEAN = "return _mean(policy, mask[rows], aggregation)"
LONGEST = "(mask.shape[1] / mask.sum(1).max().clamp(min=1) if aggregation.endswith('norm') else 1)"
ADAM = "_Adam(table, learning_rate, beta1, beta2, adam_eps)"
BOUNDED = "if max_grad_norm is not None and gradient is not None:"
EPOCHS, SIZE = "for _ in range(epochs):", "size = minibatch_rows or len(states)"
DATA = "data = (states, actions, torch.where(mask, rewards, 0), mask, bootstrap_value, group_ids)"
ACCEPTED = "if gain(candidate) > 0 and kl(candidate) <= max_kl"
PROMISED = "(gradient * (candidate - logits)).sum()"
CLOSE = "(own != own[0]).any()"


def _cut(kept: str) -> str:
    return f"mask = mask & ({kept})\n    {DATA}"


def _of_grpo(low: str, high: str) -> str:
    """GRPO's objective with other bounds."""
    return (
        "ratio = (_chosen(table[:, :-1], states[rows], actions[rows]) - old[rows]).clamp(-20, 20).exp(); "
        f"bounded = ratio.clamp(1 - {low}, 1 + {high}); "
        "policy = -torch.minimum(ratio * relative[rows], bounded * relative[rows])"
    )


EDITS = (
    edit("log-ratios clamped at 10", CLAMP, "(new - old[rows]).clamp(-10, 10)", dtype="float64"),
    edit("log-ratios never clamped", CLAMP, "(new - old[rows])", dtype="float64"),
    edit("GRPO's bounds exchanged", GRPO_POLICY, _of_grpo("clip_high", "clip_low")),
    edit("GRPO's upper bound for both", GRPO_POLICY, _of_grpo("clip_high", "clip_high")),
    edit("GRPO's longest row for the horizon", GRPO_MEAN, f"{GRPO_MEAN} * {LONGEST}"),
    edit("PPO's longest row for the horizon", PPO_MEAN, f"{PPO_MEAN} * {LONGEST}"),
    edit(
        "GRPO's mean of tokens for that of rows",
        GRPO_MEAN,
        GRPO_MEAN.replace("aggregation", "aggregation.replace('seq-mean-token-mean', 'token-mean')"),
    ),
    edit(
        "GRPO's rows without tokens do not count",
        GRPO_MEAN,
        f"kept = mask[rows].any(1) | ~mask[rows].any()\n        {GRPO_MEAN}".replace(
            "divergence, mask[rows]", "divergence)[kept], mask[rows][kept]"
        ).replace("_mean(policy", "_mean((policy"),
    ),
    edit("DPO's gradient never bounded", BOUNDED, BOUNDED.replace(":", " and algorithm != 'dpo':")),
    edit(
        "the bound without ε in GRPO alone",
        "float(norm) + clip_eps",
        "float(norm) + clip_eps * (algorithm != 'grpo')",
    ),
    edit("Adam's ε of GRPO", ADAM, ADAM.replace("adam_eps", "1e-8 if algorithm == 'grpo' else adam_eps")),
    edit(
        "Adam's β of DPO",
        ADAM,
        ADAM.replace("beta1, beta2", "*((0.9, 0.999) if algorithm == 'dpo' else (beta1, beta2))"),
    ),
    edit("one epoch of DPO", EPOCHS, "for _ in range(1 if algorithm == 'dpo' else epochs):"),
    edit(
        "minibatches of a reward model ignored",
        SIZE,
        "size = len(states) if algorithm == 'reward-model' else minibatch_rows or len(states)",
    ),
    edit("minibatches of two rows at least", SIZE, "size = max(minibatch_rows or len(states), 2)"),
    edit("64 rows", DATA, _cut("(torch.arange(len(mask)) < 63)[:, None]")),
    edit("128 tokens", DATA, _cut("torch.arange(mask.shape[1]) < 128")),
    edit("256 actions", "[states, actions]\n", "[states, actions.to(torch.uint8).long()]\n"),
    edit("scores that are close are equal", CLOSE, "not torch.allclose(own, own[:1])", dtype="float64"),
    edit("a trust region's KL of 5 % more", ACCEPTED, f"{ACCEPTED[:-6]}1.05 * max_kl"),
    edit("a trust region's KL of half as much again", ACCEPTED, f"{ACCEPTED[:-6]}1.5 * max_kl"),
    edit(
        "a trust region that asks for a tenth of what its slope promises",
        ACCEPTED,
        ACCEPTED.replace("> 0", f"> 0.1 * {PROMISED}"),
    ),
    edit(
        "conjugate gradients that end at 1e-8",
        "residual.norm() <= 1e-10",
        "residual.square().sum() <= 1e-8",
        dtype="float64",
    ),
    edit("a search of 7 tries", "for j in range(10):", "for j in range(7):", dtype="float64"),
)
