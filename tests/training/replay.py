"""Steps of each algorithm, written out: whole minibatches, one response after another, without padding.

Of `torch_impl` nothing is used but the order that rows are taken in. What a replay takes from a trainer is
data: weights before the first step, settings, tokens of responses, and scores.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import log_softmax, logsigmoid
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

from torch_impl.train.seeds import permutation


@dataclass(frozen=True)
class Answer:
    """Tokens of a prompt, and of a response to it."""

    prompt: list[int]
    response: list[int]
    truncated: bool = False
    """Whether the response could have gone on."""


def answers_of(rollouts: Any) -> list[Answer]:
    """The rows of a batch without their padding."""
    columns = rollouts.prompts, rollouts.prompt_mask, rollouts.responses, rollouts.mask, rollouts.truncated
    return [
        Answer(x[at].tolist(), y[on].tolist(), bool(cut)) for x, at, y, on, cut in zip(*columns, strict=True)
    ]


def every_logprob(policy: Any, answer: Answer, temperature: float) -> Tensor:
    """Log-probabilities of all tokens where those of a response were chosen, (T, V)."""
    ids = torch.tensor([answer.prompt + answer.response])
    logits = policy(input_ids=ids, use_cache=False).logits[0, len(answer.prompt) - 1 : -1]
    return log_softmax(logits / temperature, -1)


def chosen(every: Tensor, answer: Answer) -> Tensor:
    """Those of the tokens that were chosen, (T,)."""
    return every[torch.arange(len(answer.response)), answer.response]


def numbers(scorer: Any, answer: Answer) -> Tensor:
    """A scorer's numbers before each token of a response, and behind the last one, (T + 1,)."""
    model = scorer.model
    hidden = model.model(input_ids=torch.tensor([answer.prompt + answer.response])).last_hidden_state
    found: Tensor = hidden[0, len(answer.prompt) - 1 :] @ model.score.weight[0]
    return found


def mean(rows: Sequence[Tensor], aggregation: str, horizon: int) -> Tensor:
    """One number from those of tokens, a row each."""
    if aggregation == "token-mean":
        return torch.cat(list(rows)).mean()
    divisors = {
        "seq-mean-token-sum": [1] * len(rows),
        "seq-mean-token-mean": [len(row) for row in rows],
        "seq-mean-token-sum-norm": [horizon] * len(rows),
    }
    sums = [row.sum() / by for row, by in zip(rows, divisors[aggregation], strict=True)]
    return torch.stack(sums).mean()


def clipped_loss(new: Tensor, old: Tensor, advantages: Tensor, o: Any) -> Tensor:
    """The loss of each token."""
    ratio = torch.exp(new - old)
    held = torch.clamp(ratio, 1 - o.clip_low, 1 + o.clip_high)
    objective = torch.minimum(ratio * advantages, held * advantages)
    if o.dual_clip is not None:
        bounded = torch.maximum(objective, o.dual_clip * advantages)
        objective = torch.where(advantages < 0, bounded, objective)
    return -objective


class Replay:
    """What an algorithm trains, and the optimiser of it."""

    section: str
    """Where the algorithm's own settings are."""

    def __init__(self, trainer: Any) -> None:
        self.settings = copy.deepcopy(trainer.settings)
        self.options: Any = getattr(self.settings, self.section)
        self.trained: Any = copy.deepcopy(trainer.trained)
        if hasattr(trainer, "reference"):
            self.reference = copy.deepcopy(trainer.reference.policy)
        o = self.settings.optimizer
        self.rates = [o.learning_rate, o.critic_learning_rate or o.learning_rate]
        groups = zip(self.trained.values(), self.rates, strict=False)
        self.optimizer = torch.optim.AdamW(
            [{"params": list(model.parameters()), "lr": rate} for model, rate in groups],
            betas=tuple(o.betas),
            eps=o.eps,
            weight_decay=o.weight_decay,
        )

    @property
    def policy(self) -> nn.Module:
        """The policy that is trained."""
        found: nn.Module = self.trained["policy"].policy
        return found

    def down(self, loss: Tensor, rate: float = 1.0) -> None:
        """A step down a loss, at a share of the learning rates."""
        for group, peak in zip(self.optimizer.param_groups, self.rates, strict=False):
            group["lr"] = rate * peak
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self.trained.parameters(), self.settings.optimizer.max_grad_norm)
        self.optimizer.step()

    def every(self, policy: nn.Module, answer: Answer) -> Tensor:
        """Log-probabilities of all tokens at the temperature, (T, V)."""
        return every_logprob(policy, answer, self.settings.rollout.temperature)

    def logprobs(self, policy: nn.Module, answer: Answer) -> Tensor:
        """Log-probabilities of a response's tokens, (T,)."""
        return chosen(self.every(policy, answer), answer)

    @torch.no_grad()
    def constants(self, policy: nn.Module, answers: Sequence[Answer]) -> list[Tensor]:
        """Those of all responses, as they are now."""
        return [self.logprobs(policy, answer) for answer in answers]

    def taken(self, data: Sequence[Any], number: int) -> list[Any]:
        """The rows of a step, in the first epoch of the data."""
        rows = self.options.rows
        order = permutation(len(data), 0, self.settings.seed).tolist()
        return [data[k] for k in order[number * rows : (number + 1) * rows]]


class ClippedReplay(Replay):
    """Epochs and minibatches of responses that the policy sampled."""

    def minibatches(self, number: int, count: int) -> Iterator[list[int]]:
        """The rows of each update of a step."""
        size = count // self.options.minibatches
        for epoch in range(self.options.epochs):
            order = permutation(count, self.settings.seed, "order", number, epoch).tolist()
            for start in range(0, count, size):
                yield order[start : start + size]

    def mean(self, rows: Sequence[Tensor]) -> Tensor:
        """The mean over tokens of a minibatch."""
        return mean(rows, self.options.aggregation, self.settings.rollout.max_new_tokens)


class GRPOReplay(ClippedReplay):
    section = "grpo"

    def step(self, number: int, sampled: Any) -> None:
        o, answers = self.options, answers_of(sampled.rollouts)
        old, ref = self.constants(self.policy, answers), self.constants(self.reference, answers)
        scores, samples = sampled.scores.double(), self.settings.rollout.samples
        advantages = [x for group in scores.split(samples) for x in group_advantages(group.tolist(), o)]
        for rows in self.minibatches(number, len(answers)):
            losses, entropies = [], []
            for k in rows:
                every = self.every(self.policy, answers[k])
                new = chosen(every, answers[k])
                kl = torch.exp(ref[k] - new) - 1 - (ref[k] - new)
                spread = torch.full_like(new, advantages[k])
                losses.append(clipped_loss(new, old[k], spread, o) + o.kl_coef * kl)
                entropies.append(-(every.exp() * every).sum(-1))
            self.down(self.mean(losses) - o.entropy_coef * self.mean(entropies))


def group_advantages(scores: list[float], o: Any) -> list[float]:
    """Of the responses to one prompt."""
    count, total = len(scores), sum(scores)
    if o.baseline == "leave-one-out":
        return [x - (total - x) / (count - 1) for x in scores]
    distances = [x - total / count for x in scores]
    deviation = math.sqrt(sum(x * x for x in distances) / (count - o.ddof))
    return [x / (deviation + o.eps) if o.scale == "std" else x for x in distances]


class PPOReplay(ClippedReplay):
    section = "ppo"

    def step(self, number: int, sampled: Any) -> None:
        o, answers = self.options, answers_of(sampled.rollouts)
        old = self.constants(self.policy, answers)
        with torch.no_grad():
            values = [numbers(self.trained["critic"], answer) for answer in answers]
        rewards = self.rewards(answers, sampled.scores.tolist(), old)
        advantages = [self.gae(*row) for row in zip(answers, rewards, values, strict=True)]
        returns = [x + v[:-1] for x, v in zip(advantages, values, strict=True)]
        if o.whiten:
            all_ = torch.cat(advantages)
            deviation = torch.sqrt(((all_ - all_.mean()) ** 2).sum() / (len(all_) - 1) + 1e-8)
            advantages = [(x - all_.mean()) / deviation for x in advantages]
        for rows in self.minibatches(number, len(answers)):
            errors = [self.errors(answers[k], values[k][:-1], returns[k]) for k in rows]
            loss = o.value_coef * self.mean(errors)
            if number >= o.critic_steps:
                loss = loss + self.actor_loss([(answers[k], old[k], advantages[k]) for k in rows])
            self.down(loss)

    def rewards(self, answers: list[Answer], scores: list[float], old: list[Tensor]) -> list[list[float]]:
        """-β (log π_old - log π_reference) at each token, and the score at the last one."""
        o, found = self.options, []
        refs = self.constants(self.reference, answers)
        for answer, score, mine, ref in zip(answers, scores, old, refs, strict=True):
            row = [-o.kl_coef * (x - y) for x, y in zip(mine.tolist(), ref.tolist(), strict=True)]
            if o.truncation == "end" or not answer.truncated:
                row[-1] += score
            found.append(row)
        return found

    def gae(self, answer: Answer, rewards: list[float], values: Tensor) -> Tensor:
        """Advantages of a response, from its last token to its first."""
        o, (*states, behind) = self.options, values.tolist()
        following = behind if answer.truncated and o.truncation == "bootstrap" else 0.0
        found, ahead = [], 0.0
        for reward, value in zip(reversed(rewards), reversed(states), strict=True):
            ahead = reward + o.gamma * following - value + o.gamma * o.lam * ahead
            following = value
            found.append(ahead)
        return torch.tensor(found[::-1], dtype=values.dtype)

    def errors(self, answer: Answer, old: Tensor, returns: Tensor) -> Tensor:
        """Half the squared distances of values from returns."""
        values, clip = numbers(self.trained["critic"], answer)[:-1], self.options.value_clip
        squared = (values - returns) ** 2
        if clip is not None:
            held = torch.clamp(values, old - clip, old + clip)
            squared = torch.maximum(squared, (held - returns) ** 2)
        return squared / 2

    def actor_loss(self, some: list[tuple[Answer, Tensor, Tensor]]) -> Tensor:
        """The clipped loss less the entropy's share."""
        losses, entropies = [], []
        for answer, old, advantages in some:
            every = self.every(self.policy, answer)
            losses.append(clipped_loss(chosen(every, answer), old, advantages, self.options))
            entropies.append(-(every.exp() * every).sum(-1))
        coef: float = self.options.entropy_coef
        return self.mean(losses) - coef * self.mean(entropies)


class PairReplay(Replay):
    """Pairs of responses to a prompt."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer)
        self.tokenizer, self.data = trainer.tokenizer, self.rows(trainer)

    def rows(self, trainer: Any) -> list[Any]:
        """What is trained on."""
        return list(trainer.preferences["train"])

    def answer(self, prompt: str, response: str) -> Answer:
        """A response that ends."""
        t = self.tokenizer
        return Answer(t.encode_prompt(prompt), [*t.encode(response), t.eos_id])

    def step(self, number: int, rate: float = 1.0) -> None:
        """Down the mean of the losses of some rows."""
        losses = [self.loss(row) for row in self.taken(self.data, number)]
        self.down(torch.stack(losses).mean(), rate)

    def loss(self, row: Any) -> Tensor:
        """The loss of one row."""
        raise NotImplementedError


class DPOReplay(PairReplay):
    section = "dpo"

    def loss(self, row: Any) -> Tensor:
        o = self.options
        ratios = []
        for text in (row.chosen, row.rejected):
            answer = self.answer(row.prompt, text)
            [ref] = self.constants(self.reference, [answer])
            found = (self.logprobs(self.policy, answer) - ref).sum()
            ratios.append(found / len(answer.response) if o.average else found)
        h = o.beta * (ratios[0] - ratios[1])
        epsilon: float = o.label_smoothing
        return -(1 - epsilon) * logsigmoid(h) - epsilon * logsigmoid(-h)


class RewardModelReplay(PairReplay):
    section = "reward_model"

    def loss(self, row: Any) -> Tensor:
        better, worse = (
            numbers(self.trained["scorer"], self.answer(row.prompt, text))[-1]
            for text in (row.chosen, row.rejected)
        )
        return -logsigmoid(better - worse - row.margin - self.options.margin)


class SFTReplay(PairReplay):
    section = "sft"

    def rows(self, trainer: Any) -> list[Any]:
        return list(trainer.demonstrations["train"])

    def step(self, number: int, rate: float = 1.0) -> None:
        answers = [self.answer(row.prompt, row.response) for row in self.taken(self.data, number)]
        self.down(-torch.cat([self.logprobs(self.policy, answer) for answer in answers]).mean(), rate)


class TRPOReplay(Replay):
    section = "trpo"

    def step(self, number: int, sampled: Any) -> tuple[float, float]:
        """Where the line search ends: what that improves, and its KL from the old policy."""
        o, answers = self.options, answers_of(sampled.rollouts)
        groups = sampled.scores.double().split(self.settings.rollout.samples)
        advantages = [x - (sum(g) - x) / (len(g) - 1) for g in map(Tensor.tolist, groups) for x in g]
        weights = list(self.policy.parameters())
        with torch.no_grad():
            old = [self.every(self.policy, answer) for answer in answers]
        start = parameters_to_vector(weights).detach().clone()

        def improvement() -> Tensor:
            gains = []
            for answer, every, advantage in zip(answers, old, advantages, strict=True):
                ratio = torch.exp(self.logprobs(self.policy, answer) - chosen(every, answer))
                gains.append(advantage * (ratio - 1))
            return torch.cat(gains).mean()

        def kl() -> Tensor:
            rows = zip(answers, old, strict=True)
            return torch.cat([(y.exp() * (y - self.every(self.policy, x))).sum(-1) for x, y in rows]).mean()

        step = self.natural_step(flat(torch.autograd.grad(improvement(), weights)), kl, weights)
        for j in range(o.max_steps):
            vector_to_parameters(start + o.backtrack**j * step, weights)
            with torch.no_grad():
                found = float(improvement()), float(kl())
            if found[0] > 0 and found[1] <= o.max_kl:
                return found
        raise AssertionError("no point of the line is better")

    def natural_step(self, gradient: Tensor, kl: Callable[[], Tensor], weights: Sequence[Tensor]) -> Tensor:
        """√(2δ / s·F s) s, from some conjugate gradients of F s = g, the damping in F."""
        o = self.options
        with sdpa_kernel(SDPBackend.MATH):
            slope = flat(torch.autograd.grad(kl(), weights, create_graph=True))

        def product(v: Tensor) -> Tensor:
            found = flat(torch.autograd.grad(slope @ v, weights, retain_graph=True))
            return torch.add(found, v, alpha=o.damping)

        s, r = torch.zeros_like(gradient), gradient
        d = r
        for _ in range(o.cg_iters):
            image = product(d)
            length = (r @ r) / (d @ image)
            s, rest = s + length * d, r - length * image
            d, r = rest + (rest @ rest) / (r @ r) * d, rest
        return torch.sqrt(2 * o.max_kl / (s @ product(s))) * s


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Numbers of all of them in one vector."""
    return torch.cat([x.flatten() for x in tensors])


REPLAYS: dict[str, Callable[[Any], Any]] = {
    "ppo": PPOReplay,
    "grpo": GRPOReplay,
    "dpo": DPOReplay,
    "reward-model": RewardModelReplay,
    "sft": SFTReplay,
    "trpo": TRPOReplay,
}
