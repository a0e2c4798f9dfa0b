"""Rollouts by vLLM: an extra of its own (`vllm`), for GPUs."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

from torch_impl.train.rollouts import Rollouts, finish, pad_left, pad_right
from torch_impl.train.seeds import derived
from torch_impl.train.tokens import Tokenizer


class VLLMEngine:
    """Samples by vLLM, which is an extra of its own (`vllm`) and wants a GPU.

    The weights are those of the folder that it was made from: save the policy and make a new one, or let
    vLLM take the weights in its own ways.
    """

    def __init__(self, folder: str, tokenizer: Tokenizer, **options: Any) -> None:
        try:
            vllm = import_module("vllm")
        except ImportError as error:
            raise ImportError(
                "engine 'vllm' needs the package vllm, which is not installed: pip install 'rlspec[vllm]'"
            ) from error
        self.tokenizer = tokenizer
        self._vllm = vllm
        # The log-probabilities of what was sampled from: after the temperature
        self._model = vllm.LLM(
            model=folder, skip_tokenizer_init=True, logprobs_mode="processed_logprobs", **options
        )

    def generate(
        self,
        prompts: Sequence[list[int]],
        *,
        samples: int = 1,
        max_new_tokens: int,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Rollouts:
        """As :meth:`ModelEngine.generate`, but for log-probabilities at τ = 0, which are vLLM's."""
        ids, prompt_mask = pad_left(prompts, self.tokenizer.pad_id, "cpu")
        asked = [
            self._vllm.SamplingParams(
                n=samples,
                max_tokens=max_new_tokens,
                temperature=temperature,
                seed=derived(seed, number),  # one for all would draw alike for each prompt
                logprobs=0,
                stop_token_ids=[self.tokenizer.eos_id],
                ignore_eos=True,  # the model's own, which may be another
                detokenize=False,
            )
            for number in range(len(prompts))
        ]
        found = self._model.generate([{"prompt_token_ids": list(p)} for p in prompts], asked, use_tqdm=False)
        answers = [answer for one in found for answer in one.outputs]
        tokens = [list(answer.token_ids) for answer in answers]
        logprobs = [
            [place[token].logprob for place, token in zip(answer.logprobs, answer.token_ids, strict=True)]
            for answer in answers
        ]
        rows = torch.arange(len(ids)).repeat_interleave(samples)
        chosen = pad_right(tokens, self.tokenizer.pad_id), pad_right(logprobs, 0.0)
        mask = pad_right([[True] * len(row) for row in tokens], False)
        return finish(ids[rows], prompt_mask[rows], *chosen, mask, self.tokenizer)
