"""Rollouts of a step: prompts, responses, scores. Every process gets all of them.

Prompts are answered so many at once, each lot with a seed of its own, so that the number of processes does
not change what is sampled.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_impl.importance_sampling import truncated_importance_weights
from torch_impl.kl import kl_estimate
from torch_impl.policy_loss import aggregate
from torch_impl.train.actors import Critic
from torch_impl.train.data import Preference
from torch_impl.train.distributed import World
from torch_impl.train.rollouts import SOLVED, Engine, Rollouts
from torch_impl.train.seeds import derived, epoch_rows
from torch_impl.train.settings import Problems, Rollout
from torch_impl.train.sources import Questions
from torch_impl.train.tasks import Problem, Split
from torch_impl.train.tokens import Tokenizer

LOT = 64
"""Problems that are answered at once where it does not matter how many."""


@dataclass(frozen=True)
class Sampled:
    """Scored responses."""

    rollouts: Rollouts
    scores: Tensor
    """(B,), in reward units."""
    group_ids: Tensor
    """(B,) int: which prompt."""
    solved: float
    """Share of responses that are right."""

    def measured(self, old_logprobs: Tensor, ref_logprobs: Tensor, entropies: Tensor) -> dict[str, float]:
        """What there is to say about responses: rewards, lengths, the KL from the reference in nats."""
        mask = self.rollouts.mask
        kl = kl_estimate(old_logprobs, ref_logprobs, estimator="k3")
        return {
            "reward": float(self.scores.double().mean()),
            "success": self.solved,
            "response_length": float(mask.sum(1).double().mean()),
            "truncated": float(self.rollouts.truncated.double().mean()),
            "kl": float(aggregate(kl, mask)),
            "entropy": float(aggregate(entropies, mask)),
        }


class Sampler:
    """Asks an engine the problems of a step.

    `engine` opens, for as long as a step samples, an engine that has the policy's weights as they are.
    """

    def __init__(
        self,
        questions: Questions,
        tokenizer: Tokenizer,
        engine: Callable[[], AbstractContextManager[Engine]],
        settings: Rollout,
        problems: Problems,
        world: World,
        *,
        seed: int,
        reward_model: Critic | None = None,
    ) -> None:
        self.questions, self.tokenizer, self.engine = questions, tokenizer, engine
        self.settings, self.world, self.seed, self.reward_model = settings, world, seed, reward_model
        drawn = derived(seed, "problems")
        self.train = questions.problems("train", count=problems.train, seed=drawn)
        self.held_out = questions.problems("held-out", count=problems.held_out, seed=drawn)

    def draw(self, step: int) -> Sampled:
        """The rollouts of a step, which depend on its number, the seed and the policy."""
        s = self.settings
        rows = epoch_rows(len(self.train), s.prompts, step, self.seed, "prompts")
        asked = [self.train[row] for row in rows]
        lots = [asked[k : k + s.together] for k in range(0, s.prompts, s.together)]
        mine = self.world.mine(len(lots))
        answered = []
        with self.engine() as engine:
            for number in range(mine.start, mine.stop):
                rollouts = self._answers(
                    engine, lots[number], s.temperature, derived(self.seed, step, number)
                )
                answered.append((rollouts.to("cpu"), self._scores(rollouts, lots[number])))
        everything = [lot for held in self.world.gathered(answered) for lot in held]
        rollouts = merged([lot for lot, _ in everything], self.tokenizer.pad_id).to(self.world.device)
        right = torch.tensor([x for _, scores in everything for x in scores], device=self.world.device)
        groups = torch.arange(s.prompts, device=self.world.device).repeat_interleave(s.samples)
        scores = right if self.reward_model is None else self.reward_model.scores_of_all(rollouts)
        return Sampled(rollouts, scores, groups, float((right >= SOLVED).double().mean()))

    def weights(self, old_logprobs: Tensor, rollouts: Rollouts) -> Tensor | None:
        """Truncated importance weights of tokens, where an engine other than the trainer made them."""
        if self.settings.cap is None:
            return None
        sampled = rollouts.rollout_logprobs.to(old_logprobs.dtype)
        return truncated_importance_weights(
            old_logprobs, sampled, cap=self.settings.cap, mode=self.settings.weight_mode
        )

    def success(self) -> float:
        """Share of held-out problems that are solved with the most probable tokens."""
        mine = self.held_out[self.world.rank :: self.world.size]
        solved = 0
        with self.engine() as engine:
            for start in range(0, len(mine), LOT):
                lot = mine[start : start + LOT]
                scores = self._scores(self._answers(engine, lot, 0.0, 0, samples=1), lot, samples=1)
                solved += sum(x >= SOLVED for x in scores)
        return sum(self.world.gathered(solved)) / len(self.held_out)

    def preferences(self, asked: int) -> dict[Split, list[Preference]]:
        """Pairs of right answers and of what the policy answers wrongly, as it is now, if asked so often."""
        return {
            "train": self._mistakes("train", self.train, asked),
            "held-out": self._mistakes("held-out", self.held_out, asked),
        }

    def _mistakes(self, split: Split, problems: list[Problem], asked: int) -> list[Preference]:
        found: list[Preference] = []
        with self.engine() as engine:
            for start in range(0, len(problems), LOT):
                lot, seed = problems[start : start + LOT], derived(self.seed, "own", split, start)
                rollouts = self._answers(engine, lot, self.settings.temperature, seed, samples=asked)
                scores, texts = self._scores(rollouts, lot, samples=asked), self._texts(rollouts)
                for place, problem in enumerate(lot):
                    rows = range(place * asked, (place + 1) * asked)
                    wrong = [texts[row] for row in rows if scores[row] < SOLVED]
                    found += [Preference(problem.prompt, problem.answer, text) for text in wrong[:1]]
        if not found:
            raise ValueError(f"dpo.own needs {split} problems that the policy answers wrongly, got none")
        return found

    def _answers(
        self,
        engine: Engine,
        lot: Sequence[Problem],
        temperature: float,
        seed: int,
        samples: int | None = None,
    ) -> Rollouts:
        return engine.generate(
            [self.tokenizer.encode_prompt(p.prompt) for p in lot],
            samples=samples or self.settings.samples,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=temperature,
            seed=seed,
        )

    def _scores(self, rollouts: Rollouts, lot: Sequence[Problem], samples: int | None = None) -> list[float]:
        each = samples or self.settings.samples
        texts = enumerate(self._texts(rollouts))
        return [self.questions.score(lot[row // each], text) for row, text in texts]

    def _texts(self, rollouts: Rollouts) -> list[str]:
        return [self.tokenizer.decode(ids) for ids in rollouts.response_ids()]


def merged(lots: Sequence[Rollouts], pad_id: int) -> Rollouts:
    """One batch from several, padded to the longest prompt and the longest response."""
    longest = max(x.prompts.shape[1] for x in lots), max(x.responses.shape[1] for x in lots)
    fills: dict[str, tuple[int, float | bool]] = {
        "prompts": (-1, pad_id),
        "prompt_mask": (-1, False),
        "responses": (1, pad_id),
        "mask": (1, False),
        "rollout_logprobs": (1, 0.0),
    }

    def padded(name: str, x: Tensor) -> Tensor:
        if name not in fills:
            return x
        side, fill = fills[name]
        more = longest[side > 0] - x.shape[1]
        return pad(x, (more, 0) if side < 0 else (0, more), value=fill)

    tensors = [{name: padded(name, x) for name, x in lot.tensors().items()} for lot in lots]
    return Rollouts(**{name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})
