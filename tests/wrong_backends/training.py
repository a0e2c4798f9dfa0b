"""Wrong backends of the chapter `training`: broken trainers."""

from functools import partial

from tests.wrong_backends.edits import Edit

edit = partial(Edit, "train_step", clause="train.", base="torch_training")

ZERO_GRAD = "made.zero_grad()"
BACKWARD = "loss(table, rows).backward()  # type: ignore[no-untyped-call]"
STEP = "            made.step()"
CLIP = "gradient.mul_(min(1.0, max_grad_norm / max(float(norm) + clip_eps, 1e-300)))"
BOUND = "max_grad_norm / max(float(norm) + clip_eps, 1e-300)"
DOWN = "self.table -= self.rate * self.table.grad"
FIRSTS = "range(0, len(states), size)"
SIZE = "size = minibatch_rows or len(states)"
LOOP = "for _ in range(epochs):"
LOSSES = "loss = _losses(table, ref_logits, *data, algorithm, **options)"
AGAIN = f"loss = _losses(table, ref_logits, *data, algorithm, **options); {ZERO_GRAD}"
OLD_RATIO = "(new - old[rows])"
DETACHED = "_chosen(table[:, :-1], states, actions).detach(), table[:, -1][states].detach()"
RELATIVE = "_relative(scores, group_ids)[:, None].expand_as(rewards)"
CRITIC = "value_coef * _mean("
ERRORS = "(values - returns[rows]).square()"
PAIR = "log_ratios[::2] - log_ratios[1::2]"
LOG_RATIOS = "torch.where(mask[rows], new - ref[rows], 0).sum(1)"
SCORE = "values[::2] - values[1::2]"
DIVERGENCE = "kl_coef * divergence"
MEAN = "mean = self.first / (1 - self.slow**self.count)"
SQUARE = "square = self.second / (1 - self.square**self.count)"
MOVE = "self.table -= self.rate * mean / (square.sqrt() + self.eps)"
ACCEPTED = "gain(candidate) > 0 and kl(candidate) <= max_kl"
NEW = "_Adam(table, learning_rate, beta1, beta2, adam_eps)"
VISITS = "visits = met.to(logits.dtype) / count"
HALVES = (
    "for part in (slice(first, first + (size + 1) // 2), slice(first + (size + 1) // 2, first + size)): "
    "(loss(table, part) / 2).backward() if len(states[part]) else None"
)

EDITS = (
    edit("old log-probabilities, values and advantages refreshed in each step", ZERO_GRAD, AGAIN),
    edit(
        "the old log-probability is the new one",
        OLD_RATIO,
        "(new - new.detach())",
        thread="PrimeIntellect-ai/prime-rl commit 413cf0d1",
    ),
    edit(
        "advantages made anew in each step",
        "policy = clipped(table, rows, advantages)",
        "policy = clipped(table, rows, _advantages(rewards, table[:, -1][states].detach(), mask, "
        "bootstrap_value, gamma, lam))",
    ),
    edit(
        "returns made anew in each step",
        ERRORS,
        "(values - (advantages + table[:, -1][states].detach())[rows]).square()",
    ),
    edit("gradients never set to zero", ZERO_GRAD, "pass"),
    edit(
        "gradients set to zero once",
        f"{LOOP}\n",
        f"{LOOP}\n        made.zero_grad(); made.zero_grad = lambda: None\n",
        thread="huggingface/trl#583",
    ),
    edit("micro-batches each with its own mean", BACKWARD, HALVES),
    edit(
        "micro-batches added up without their shares",
        BACKWARD,
        HALVES.replace(" / 2).backward", ").backward"),
    ),
    edit("one step in an epoch", STEP, "        made.step()"),
    edit("minibatches backwards", FIRSTS, f"reversed({FIRSTS})"),
    edit("rows left over are dropped", FIRSTS, "range(0, len(states) - size + 1, size)"),
    edit("minibatches ignored", SIZE, "size = len(states)"),
    edit("one epoch", LOOP, "for _ in range(1):"),
    edit("one epoch too many", LOOP, "for _ in range(epochs + 1):"),
    edit("every other row", "slice(first, first + size)", "slice(first, first + size, 2)"),
    edit(
        "a gradient through the advantages",
        DETACHED,
        DETACHED.replace("table[:, -1][states].detach()", "table[:, -1][states]"),
        dtype="float64",
    ),
    edit("the critic's loss not halved", "errors / 2", "errors"),
    edit("the critic not weighted", CRITIC, "_mean("),
    edit("no critic", CRITIC, "0 * value_coef * _mean("),
    edit("the critic learns the rewards", ERRORS, "(values - rewards[rows]).square()"),
    edit("λ ignored", "gamma * lam * advantage", "gamma * advantage"),
    edit(
        "the group's mean of a minibatch",
        "policy = clipped(table, rows, relative)",
        "now = torch.zeros_like(rewards); now[rows] += _relative(scores[rows], group_ids[rows])[:, None]; "
        "policy = clipped(table, rows, now)",
    ),
    edit(
        "the sum of masked rewards too",
        "torch.where(mask, rewards, 0), mask, bootstrap_value",
        "rewards, mask, bootstrap_value",
        clause="contract.masked",
    ),
    edit("the mean of the rewards", "rewards.sum(1)\n", "rewards.sum(1) / mask.sum(1).clamp(min=1)\n"),
    edit("the KL's sign", DIVERGENCE, f"-{DIVERGENCE}"),
    edit("k1 for k3", "to_ref.exp() - 1 - to_ref", "-to_ref"),
    edit("the reference is the old policy", "ref = _chosen(ref_logits, states, actions)", "ref = old"),
    edit(
        "the reference follows the policy",
        LOG_RATIOS,
        "torch.where(mask[rows], new - new.detach(), 0).sum(1)",
    ),
    edit("chosen and rejected exchanged", PAIR, "log_ratios[1::2] - log_ratios[::2]"),
    edit(
        "the first half chosen",
        PAIR,
        "log_ratios[: len(log_ratios) // 2] - log_ratios[len(log_ratios) // 2 :]",
    ),
    edit("means of log-probabilities", LOG_RATIOS, f"{LOG_RATIOS} / mask[rows].sum(1).clamp(min=1)"),
    edit("no reference in the margin", LOG_RATIOS, "torch.where(mask[rows], new, 0).sum(1)"),
    edit("β twice", f"beta * ({PAIR})", f"beta * beta * ({PAIR})"),
    edit("scores exchanged", SCORE, "values[1::2] - values[::2]"),
    edit("the score of the first token", "behind == 1", "mask[rows].cumsum(1) == 1"),
    edit(
        "the score of the last column",
        "last = mask[rows] & (behind == 1)",
        "last = mask[rows] & (torch.arange(mask.shape[1]) == mask.shape[1] - 1)",
    ),
    edit("clipped by value", CLIP, "gradient.clamp_(-max_grad_norm, max_grad_norm)"),
    edit("clipped by the largest entry", "norm = gradient.norm()", "norm = gradient.abs().max()"),
    edit("the norm of the policy alone", "norm = gradient.norm()", "norm = gradient[:, :-1].norm()"),
    edit(
        "a norm for each part",
        CLIP,
        "[g.mul_(min(1.0, max_grad_norm / (float(g.norm()) + clip_eps + 1e-30))) "
        "for g in (gradient[:, :-1], gradient[:, -1:])]",
    ),
    edit(
        "a norm for each state",
        CLIP,
        "gradient.mul_((max_grad_norm / (gradient.norm(dim=1)[:, None] + clip_eps + 1e-30)).clamp(max=1.0))",
    ),
    edit("always scaled to the bound", f"min(1.0, {BOUND})", BOUND),
    edit("the bound on the square", "norm = gradient.norm()", "norm = gradient.square().sum()"),
    edit("no ε in the clip", "float(norm) + clip_eps", "float(norm)", dtype="float64"),
    edit("not clipped", CLIP, "pass"),
    edit(
        "momentum",
        DOWN,
        "self.v = 0.9 * vars(self).get('v', 0) + self.table.grad; self.table -= self.rate * self.v",
    ),
    edit("weight decay", DOWN, "self.table -= self.rate * (self.table.grad + 0.01 * self.table)"),
    edit("uphill", DOWN, "self.table += self.rate * self.table.grad"),
    edit("no bias correction", f"{MEAN}\n        {SQUARE}", "mean, square = self.first, self.second"),
    edit("no bias correction of the square", SQUARE, "square = self.second"),
    edit("the correction of the first step for all", "self.count += 1", "self.count = 1"),
    edit("the correction one step late", "self.count += 1", "self.count += 1 + (self.count == 0)"),
    edit("ε inside the root", MOVE, "self.table -= self.rate * mean / (square + self.eps).sqrt()"),
    edit(
        "ε before the correction",
        MOVE,
        "root = (1 - self.square**self.count) ** 0.5; "
        "self.table -= self.rate * root * mean / (self.second.sqrt() + self.eps)",
    ),
    edit("no root", MOVE, "self.table -= self.rate * mean / (square + self.eps)"),
    edit("weight decay in Adam", MOVE, f"self.table -= self.rate * 0.01 * self.table; {MOVE}"),
    edit("moments of the last gradient", "self.slow * self.first +", "self.slow * 0 * self.first +"),
    edit(
        "β₁ for β₂",
        "self.second = self.square * self.second + (1 - self.square)",
        "self.second = self.slow * self.second + (1 - self.slow)",
    ),
    edit(
        "a new optimiser in each epoch",
        f"{LOOP}\n",
        f"{LOOP}\n        made = made if optimizer == 'sgd' else {NEW}\n",
    ),
    edit(
        "Adam's state is kept between calls",
        f"made = {NEW}",
        f"made = vars(_relative).setdefault(str(table.shape), {NEW}); made.table = table",
        clause="",
    ),
    edit("the trust region without its search", f"if {ACCEPTED}", "if True"),
    edit("the trust region with no look at the KL", ACCEPTED, "gain(candidate) > 0"),
    edit(
        "all states weigh the same",
        VISITS,
        "visits = (met > 0).to(logits.dtype) / (met > 0).sum().clamp(min=1)",
    ),
    edit(
        "the trust region's damping in the direction alone",
        "curvature = (direction * fisher(direction)).sum()",
        "curvature = (direction * (fisher(direction) - damping * direction)).sum()",
    ),
    edit("the trust region down the surrogate", "(ratio - 1) * advantages, 0", "(1 - ratio) * advantages, 0"),
    edit(
        "the Fisher matrix of the first action",
        "mean = (policy * vector).sum(1, keepdim=True)",
        "mean = vector[:, :1]",
    ),
    edit(
        "the critic is moved by the trust region",
        "return torch.cat([candidate, table[:, -1:].detach()], dim=1)",
        "return torch.cat([candidate, table[:, -1:].detach() * 0.99], dim=1)",
    ),
    edit(
        "float32 inside",
        "table = parameters.detach().clone().requires_grad_()",
        "table = parameters.detach().float().double().requires_grad_()",
        dtype="float64",
    ),
    edit(
        "written into the parameters",
        "table = parameters.detach().clone().requires_grad_()",
        "table = parameters.detach().requires_grad_()",
        clause="",
    ),
    edit(
        "the line search looks at the divergence the other way round",
        "policy * (logits.log_softmax(1) - candidate.log_softmax(1))",
        "candidate.softmax(1) * (candidate.log_softmax(1) - logits.log_softmax(1))",
        clause="train.tabular-step-trust-region",
    ),
    edit(
        "the line search looks at 1 + log ρ in place of ρ",
        "torch.where(mask, _chosen(candidate, states, actions) - old, 0).exp()",
        "1 + torch.where(mask, _chosen(candidate, states, actions) - old, 0)",
        clause="train.tabular-step-trust-region",
    ),
)
