"""The chapter `train` a second time: losses of single numbers that know their derivatives, and one step down.

Nothing is gathered or scattered: a token's log-probability and value are written out of the entries of the
table that it reads, and the gradient is what the number of the loss says of them.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from tests.formulas import scalar_gae
from tests.formulas.scalar_group import group_advantages, grpo_loss
from tests.formulas.scalar_policy_loss import active, distribution, policy_loss
from tests.formulas.scalar_preference import dpo_loss, sequence_logprobs
from tests.formulas.scalar_reward import reward_model_loss
from tests.formulas.scalar_trust_region import trust_region_step
from tests.formulas.scalar_value_loss import value_loss
from tests.formulas.scalars import Number, exp, log, number, real, sqrt, total

Table = list[list[Any]]
WHOLE: dict[str, Any] = {"horizon": None, "empty_rows": "count"}
CLAMPED: dict[str, Any] = {"ratio_level": "token", "log_ratio_clip": Fraction(20)}


class Batch(NamedTuple):
    """Responses, a list of rows each; None stands for what is masked."""

    states: Any
    actions: Any
    rewards: Any
    mask: Any
    bootstrap_value: Any
    group_ids: Any

    def part(self, rows: list[int]) -> "Batch":
        """Some of the rows."""
        return Batch(*([x[row] for row in rows] for x in self))


def logprobs(table: Table, x: Batch) -> list[list[Any]]:
    """log π of each active token, of the logits in a table's rows."""
    found: list[list[Any]] = [[None] * len(row) for row in x.mask]
    for i, t in active(x.mask):
        found[i][t] = log(distribution(table[x.states[i][t]], Fraction(1))[x.actions[i][t]])
    return found


def values(table: Table, x: Batch) -> list[list[Any]]:
    """V of each active token's state, of a table's last column."""
    found: list[list[Any]] = [[None] * len(row) for row in x.mask]
    for i, t in active(x.mask):
        found[i][t] = table[x.states[i][t]][-1]
    return found


def policy(table: Table) -> Table:
    """The logits of a table."""
    return [row[:-1] for row in table]


def plain(x: Any) -> Any:
    """Numbers without their derivatives, in lists of any depth."""
    if isinstance(x, list):
        return [plain(y) for y in x]
    return x if x is None else number(x).value


def live(table: Table) -> Table:
    """The table with a derivative for each entry."""
    return [[Number(x, {(s, k): Fraction(1)}) for k, x in enumerate(row)] for s, row in enumerate(table)]


def picked(x: Any, rows: list[int]) -> Any:
    """Some of the rows."""
    return [x[row] for row in rows]


def ppo(start: Table, x: Batch, options: dict[str, Any]) -> Callable[[Table, list[int]], Number]:
    """The clipped loss of the policy and the critic's, from what the start fixes."""
    old, old_values = plain(logprobs(policy(start), x)), values(start, x)
    responses = x.rewards, old_values, x.mask, x.bootstrap_value
    how = {"gamma": options["gamma"], "lam": options["lam"], "masked": "skip"}
    advantages = scalar_gae.DEFINITIONS["gae"](*responses, **how)
    returns: list[list[Any]] = [[None] * len(row) for row in x.mask]
    for i, t in active(x.mask):
        returns[i][t] = advantages[i][t] + old_values[i][t]
    clips = {name: options[name] for name in ("clip_low", "clip_high", "aggregation")}

    def loss(table: Table, rows: list[int]) -> Number:
        some = x.part(rows)
        before = picked(old, rows), picked(advantages, rows), some.mask, None
        how: dict[str, Any] = {**clips, **CLAMPED, **WHOLE, "dual_clip": None}
        actor = policy_loss(logprobs(policy(table), some), *before, **how)
        targets = picked(old_values, rows), picked(returns, rows), some.mask
        clip, mode = options["value_clip"], options["aggregation"]
        critic = value_loss(values(table, some), *targets, clip=clip, aggregation=mode, **WHOLE)
        return number(actor + options["value_coef"] * critic)

    return loss


def grpo(
    start: Table, ref_logits: Table, x: Batch, options: dict[str, Any]
) -> Callable[[Table, list[int]], Number]:
    """The GRPO loss, with advantages of the groups of all rows."""
    old, ref = plain(logprobs(policy(start), x)), plain(logprobs(ref_logits, x))
    scores = [sum((r for r in row if r is not None), Fraction(0)) for row in x.rewards]
    advantages = group_advantages(scores, x.group_ids, scale="std", ddof=1, eps=Fraction(1e-6))
    names = ("clip_low", "clip_high", "aggregation", "kl_coef")

    def loss(table: Table, rows: list[int]) -> Number:
        some = x.part(rows)
        before = picked(old, rows), picked(ref, rows), picked(advantages, rows), some.mask
        how: dict[str, Any] = {**{name: options[name] for name in names}, **CLAMPED, **WHOLE}
        return grpo_loss(logprobs(policy(table), some), *before, **how)

    return loss


def dpo(ref_logits: Table, x: Batch, options: dict[str, Any]) -> Callable[[Table, list[int]], Number]:
    """The DPO loss of rows two by two."""
    ref = plain(sequence_logprobs(logprobs(ref_logits, x), x.mask, average=False))

    def loss(table: Table, rows: list[int]) -> Number:
        some = x.part(rows)
        new = sequence_logprobs(logprobs(policy(table), some), some.mask, average=False)
        before = picked(ref, rows)
        pairs = new[::2], new[1::2], before[::2], before[1::2]
        return dpo_loss(*pairs, beta=options["beta"], label_smoothing=Fraction(0), loss_type="sigmoid")

    return loss


def reward_model(x: Batch) -> Callable[[Table, list[int]], Number]:
    """The reward model's loss of rows two by two; a score is the value at the last active token."""

    def loss(table: Table, rows: list[int]) -> Number:
        scores = []
        for row in values(table, x.part(rows)):
            kept = [v for v in row if v is not None]
            scores.append(kept[-1] if kept else number(Fraction(0)))
        return reward_model_loss(scores[::2], scores[1::2], margin=Fraction(0))

    return loss


def trust_region(start: Table, x: Batch, options: dict[str, Any]) -> Table:
    """The first shortened step that is accepted; the matrix of the Fisher information is written out."""
    tokens, width = active(x.mask), len(start[0]) - 1
    old, old_values = plain(logprobs(policy(start), x)), values(start, x)
    how = {"gamma": options["gamma"], "lam": options["lam"], "masked": "skip"}
    advantages = scalar_gae.DEFINITIONS["gae"](x.rewards, old_values, x.mask, x.bootstrap_value, **how)
    shares = [
        Fraction(sum(x.states[i][t] == s for i, t in tokens), max(len(tokens), 1)) for s in range(len(start))
    ]
    before = [plain(distribution(row, Fraction(1))) for row in policy(start)]

    def gain(logits: Table) -> Number:
        new = logprobs(logits, x)
        terms = (exp(new[i][t] - old[i][t]) * advantages[i][t] - advantages[i][t] for i, t in tokens)
        return total(terms) / max(len(tokens), 1)

    def kl(logits: Table) -> Number:
        after = [distribution(row, Fraction(1)) for row in logits]
        return total(
            (log(number(before[s][a])) - log(after[s][a])) * (shares[s] * before[s][a])
            for s in range(len(start))
            for a in range(width)
        )

    places = [(s, a) for s in range(len(start)) for a in range(width)]
    slopes = gain(policy(live(start))).slopes
    gradient = [real(slopes.get(place, Fraction(0))) for place in places]
    matrix = [
        [
            real(shares[s] * before[s][a] * ((a == b) - before[s][b]) if s == z else Fraction(0))
            for z, b in places
        ]
        for s, a in places
    ]
    bounds = {"max_kl": real(options["max_kl"]), "damping": real(options["damping"])}
    steps = trust_region_step(
        matrix, gradient, cg_iters=options["cg_iters"], cg_tol=real(Fraction(1e-10)), **bounds
    )
    for j in range(10):
        moved = [list(row) for row in policy(start)]
        for (s, a), step in zip(places, steps, strict=True):
            moved[s][a] = (number(step) / 2**j + moved[s][a]).value
        if gain(moved) > 0 and kl(moved) <= options["max_kl"]:
            return [[*row, own[-1]] for row, own in zip(moved, start, strict=True)]
    return start


def minibatches(rows: int, size: int | None, epochs: int) -> Iterator[list[int]]:
    """The rows of each step."""
    order = list(range(rows))
    for _ in range(epochs):
        for first in range(0, rows, size or rows):
            yield order[first : first + (size or rows)]


def clipped(gradient: Table, bound: Any, eps: Any) -> Table:
    """The gradient, or what is left of it at a norm of the bound."""
    norm = sqrt(total(x * x for row in gradient for x in row).value)
    if bound is None or norm + eps <= bound:
        return gradient
    return [[(number(x) * bound / (norm + eps)).value for x in row] for row in gradient]


def adam_move(gradients: list[Any], options: dict[str, Any]) -> Any:
    """What Adam takes off an entry, of all its gradients so far: the moments are sums, not recursions."""
    slow, square, count = options["beta1"], options["beta2"], len(gradients)

    def mean(numbers: list[Any], share: Any) -> Number:
        weights = [(1 - share) * share ** (count - 1 - k) for k in range(count)]
        sums = total(number(x) * w for w, x in zip(weights, numbers, strict=True))
        found: Number = sums / (1 - share**count)
        return found

    root = sqrt(mean([x * x for x in gradients], square).value)
    return mean(gradients, slow) * options["learning_rate"] / (root + options["adam_eps"])


def train_step(
    parameters: Table,
    ref_logits: Table,
    states: Any,
    actions: Any,
    rewards: Any,
    mask: Any,
    bootstrap_value: Any,
    group_ids: Any,
    **options: Any,
) -> Table:
    """Each entry after all steps, of the derivatives that losses have in it."""
    x = Batch(states, actions, rewards, mask, bootstrap_value, group_ids)
    if options["algorithm"] == "trpo":
        return trust_region(parameters, x, options)
    loss = {
        "ppo": lambda: ppo(parameters, x, options),
        "grpo": lambda: grpo(parameters, ref_logits, x, options),
        "dpo": lambda: dpo(ref_logits, x, options),
        "reward-model": lambda: reward_model(x),
    }[options["algorithm"]]()
    table, past = parameters, []
    for rows in minibatches(len(mask), options["minibatch_rows"], options["epochs"]):
        slopes = loss(live(table), rows).slopes
        gradient = [[slopes.get((s, k), Fraction(0)) for k in range(len(row))] for s, row in enumerate(table)]
        past.append(clipped(gradient, options["max_grad_norm"], options["clip_eps"]))
        table = [
            [plain(number(own) - _move([g[s][k] for g in past], options)) for k, own in enumerate(row)]
            for s, row in enumerate(table)
        ]
    return table


def _move(gradients: list[Any], options: dict[str, Any]) -> Any:
    if options["optimizer"] == "adam":
        return adam_move(gradients, options)
    return options["learning_rate"] * number(gradients[-1])


DEFINITIONS: dict[str, Callable[..., Any]] = {"train_step": train_step}
"""The operation of the protocol on nested lists."""
