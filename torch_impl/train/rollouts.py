"""Rollouts: what a policy answers to prompts, and with which log-probabilities.

Shapes: B rows, P positions of prompts, T of responses. Prompts are padded on the left, responses on the
right, so that the first token of every response stands in one column. Masks are True at tokens; the EOS that
ends a response is one of its tokens, since the policy chose it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pkgutil import resolve_name
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from torch_impl import checks
from torch_impl.logprobs import token_logprobs
from torch_impl.precision import widen
from torch_impl.train.building import check_context, inner, positions, token_count
from torch_impl.train.tasks import Problem, Task
from torch_impl.train.tokens import Tokenizer

SOLVED = 1.0
"""The score of a problem that was solved."""


@dataclass(frozen=True)
class Rollouts:
    """A batch of prompts and responses."""

    prompts: Tensor
    """(B, P) int, padded on the left."""
    prompt_mask: Tensor
    """(B, P) bool."""
    responses: Tensor
    """(B, T) int, padded on the right."""
    mask: Tensor
    """(B, T) bool: the tokens that the engine chose, EOS among them."""
    rollout_logprobs: Tensor
    """(B, T): the engine's, in nats, at the temperature that it sampled at; 0 where there is no token."""
    truncated: Tensor
    """(B,) bool: the length was reached before an EOS."""

    def tensors(self) -> dict[str, Tensor]:
        """All of them by name, each with a row a response: `Rollouts(**tensors)` is the same again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def select(self, index: Tensor | slice) -> "Rollouts":
        """Some rows, as indices, a boolean mask (B,) or a slice."""
        return Rollouts(**{name: x[index] for name, x in self.tensors().items()})

    def to(self, device: torch.device | str) -> "Rollouts":
        """The same on another device."""
        return Rollouts(**{name: x.to(device) for name, x in self.tensors().items()})

    def response_ids(self) -> list[list[int]]:
        """The tokens of each response, EOS among them."""
        return [row[kept].tolist() for row, kept in zip(self.responses, self.mask, strict=True)]


class Engine(Protocol):
    """Whatever answers prompts: the trainer's own model, or a server that was given its weights.

    An engine other than the trainer has log-probabilities of its own. The trainer recomputes its policy's and
    weighs tokens by `torch_impl.importance_sampling.truncated_importance_weights`.
    """

    def generate(
        self,
        prompts: Sequence[list[int]],
        *,
        samples: int,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Rollouts:
        """Answer each prompt `samples` times; the answers to one prompt lie together, in order."""


def engine_class(name: str) -> Callable[[str, Tokenizer], Engine]:
    """What makes an engine of a folder and a tokenizer: "vllm", or MODULE:CLASS."""
    try:
        found: Callable[[str, Tokenizer], Engine] = resolve_name(VLLM if name == "vllm" else name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"rollout.engine must be a MODULE:CLASS that there is, got {name!r}: {error}"
        ) from error
    return found


VLLM = "torch_impl.train.vllm_engine:VLLMEngine"
"""Where the engine of an extra of its own is."""


class ModelEngine:
    """Samples from a model in this process, all prompts at once, with a cache of keys and values."""

    def __init__(self, policy: nn.Module, tokenizer: Tokenizer) -> None:
        self.policy, self.tokenizer = policy, tokenizer

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[list[int]],
        *,
        samples: int = 1,
        max_new_tokens: int,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Rollouts:
        """Answer prompts.

        Parameters
        ----------
        prompts : lists of tokens
            At least one token each.
        samples : int
            Answers to each prompt.
        max_new_tokens : int
            T: responses that reach this length without EOS are truncated.
        temperature : float, at least 0
            τ. 0 takes the most probable token, and gives log-probabilities at τ = 1.
        seed : int
            Decides, with everything else, which tokens are chosen.

        Raises
        ------
        ValueError
            For arguments out of range, prompts without tokens, and more tokens than the model's context.
        """
        checks.integer("samples", samples, at_least=1)
        checks.integer("max_new_tokens", max_new_tokens, at_least=1)
        checks.non_negative("temperature", temperature)
        device = next(self.policy.parameters()).device
        ids, prompt_mask = pad_left(prompts, self.tokenizer.pad_id, device)
        check_context(self.policy, ids.shape[1] + max_new_tokens)
        draws = _Draws(temperature, torch.Generator(device).manual_seed(seed))
        training = self.policy.training
        self.policy.eval()
        try:
            tokens, logprobs = self._decode(ids, prompt_mask, samples, max_new_tokens, draws)
        finally:
            self.policy.train(training)
        rows = torch.arange(len(ids), device=device).repeat_interleave(samples)
        ends = (tokens == self.tokenizer.eos_id).long()
        mask = ends.cumsum(1) - ends == 0  # to the first EOS, which belongs to the row
        return finish(ids[rows], prompt_mask[rows], tokens, logprobs, mask, self.tokenizer)

    def _decode(
        self, ids: Tensor, attention: Tensor, samples: int, length: int, draws: "_Draws"
    ) -> tuple[Tensor, Tensor]:
        """Tokens and log-probabilities, (B, T) each; what comes after an EOS means nothing."""
        model = inner(self.policy)
        vocabulary, eos = token_count(self.policy), self.tokenizer.eos_id
        position = attention.sum(1, keepdim=True)
        out = model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=positions(attention),
            use_cache=True,
            logits_to_keep=1,
        )
        cache, logits = out.cache, out.logits.repeat_interleave(samples, 0)
        cache.batch_repeat_interleave(samples)
        attention, position = (x.repeat_interleave(samples, 0) for x in (attention, position))
        tokens, logprobs = [], []
        ended = torch.zeros(len(logits), dtype=torch.bool, device=ids.device)
        while True:
            token, logprob = draws.choose(logits[:, -1:, :vocabulary])
            tokens.append(token)
            logprobs.append(logprob)
            ended = ended | (token[:, 0] == eos)
            if len(tokens) == length or bool(ended.all()):
                return torch.cat(tokens, 1), torch.cat(logprobs, 1)
            attention = torch.cat([attention, torch.ones_like(attention[:, :1])], 1)
            out = model(
                input_ids=token, attention_mask=attention, position_ids=position, cache=cache, use_cache=True
            )
            cache, logits, position = out.cache, out.logits, position + 1


class _Draws:
    """Tokens by the softmax of logits / τ."""

    def __init__(self, temperature: float, generator: torch.Generator) -> None:
        self.temperature, self.generator = temperature, generator

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """A token for each row of logits (B, 1, V), and its log-probability; (B, 1) each."""
        logits = widen(logits)
        if self.temperature == 0.0:
            token = logits[:, 0].argmax(1, keepdim=True)
            return token, token_logprobs(logits, token)
        probabilities = (logits[:, 0] / self.temperature).softmax(1)
        token = torch.multinomial(probabilities, 1, generator=self.generator)
        return token, token_logprobs(logits, token, temperature=self.temperature)


def evaluate(
    engine: Engine,
    task: Task,
    problems: Sequence[Problem],
    tokenizer: Tokenizer,
    *,
    max_new_tokens: int,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 64,
) -> float:
    """Share of answers that solve their problem, with the most probable tokens unless τ is above 0."""
    checks.integer("batch", batch, at_least=1)
    if not problems:
        raise ValueError("problems must be at least one, got none")
    scores: list[float] = []
    for start in range(0, len(problems), batch):
        some = problems[start : start + batch]
        found = engine.generate(
            [tokenizer.encode_prompt(p.prompt) for p in some],
            samples=samples,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed + start,
        )
        scores += score_responses(found, task, some, tokenizer, samples=samples)
    return sum(score >= SOLVED for score in scores) / len(scores)


def score_responses(
    rollouts: Rollouts, task: Task, problems: Sequence[Problem], tokenizer: Tokenizer, *, samples: int
) -> list[float]:
    """The task's score of each response; `samples` of them belong to each problem, in order."""
    responses = rollouts.response_ids()
    if len(responses) != samples * len(problems):
        raise ValueError(
            f"rollouts must have {samples} rows for each of {len(problems)} problems, got {len(responses)}"
        )
    return [task.score(problems[row // samples], tokenizer.decode(ids)) for row, ids in enumerate(responses)]


def pad_left(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Prompts in rows that end together, and where their tokens are; (B, P) each."""
    if not prompts:
        raise ValueError("prompts must be at least one, got none")
    for place, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ValueError(f"prompts must have at least one token each, got none in number {place}")
    longest = max(map(len, prompts))
    ids = [[pad_id] * (longest - len(p)) + list(p) for p in prompts]
    held = [[False] * (longest - len(p)) + [True] * len(p) for p in prompts]
    return torch.tensor(ids, device=device), torch.tensor(held, device=device)


def pad_right(rows: Sequence[Sequence[Any]], fill: float | int, length: int | None = None) -> Tensor:
    """Rows of one length, with something behind the shorter ones; shape (B, T)."""
    longest = max(map(len, rows), default=0) if length is None else length
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


def finish(
    prompts: Tensor,
    prompt_mask: Tensor,
    tokens: Tensor,
    logprobs: Tensor,
    mask: Tensor,
    tokenizer: Tokenizer,
) -> Rollouts:
    """Rollouts from what was chosen where the mask is True; a row that does not end with EOS is truncated."""
    return Rollouts(
        prompts=prompts,
        prompt_mask=prompt_mask,
        responses=tokens.masked_fill(~mask, tokenizer.pad_id),
        mask=mask,
        rollout_logprobs=logprobs.masked_fill(~mask, 0.0),
        truncated=~((tokens == tokenizer.eos_id) & mask).any(1),
    )
