"""Texts that are there already, as rows of tokens: demonstrations, and pairs of which one is preferred."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_impl.train.data import Preference
from torch_impl.train.rollouts import Rollouts, pad_left, pad_right
from torch_impl.train.tokens import Tokenizer


def collate(
    texts: Sequence[tuple[str, str]], tokenizer: Tokenizer, device: torch.device | str = "cpu"
) -> Rollouts:
    """Prompts and responses as if an engine had given them: every response ends with EOS."""
    prompts, prompt_mask = pad_left([tokenizer.encode_prompt(p) for p, _ in texts], tokenizer.pad_id, device)
    answers = [[*tokenizer.encode(r), tokenizer.eos_id] for _, r in texts]
    mask = pad_right([[True] * len(row) for row in answers], False)
    return Rollouts(
        prompts,
        prompt_mask,
        pad_right(answers, tokenizer.pad_id).to(device),
        mask.to(device),
        torch.zeros(mask.shape, device=device),
        torch.zeros(len(answers), dtype=torch.bool, device=device),
    )


@dataclass(frozen=True)
class Pairs:
    """N pairs, padded together."""

    chosen: Rollouts
    rejected: Rollouts
    margins: Tensor
    """(N,): by how much the scores should differ at least, in log-odds."""

    @property
    def mask(self) -> Tensor:
        """(N, T): where the chosen responses have tokens."""
        return self.chosen.mask

    def together(self) -> Rollouts:
        """2N rows: the chosen responses, then the rejected ones."""
        both = zip(self.chosen.tensors().items(), self.rejected.tensors().values(), strict=True)
        return Rollouts(**{name: torch.cat([first, second]) for (name, first), second in both})


def collate_pairs(
    pairs: Sequence[Preference], tokenizer: Tokenizer, device: torch.device | str = "cpu"
) -> Pairs:
    """Pairs as rows of tokens."""
    texts = [(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs]
    rows = collate(texts, tokenizer, device)
    margins = torch.tensor([p.margin for p in pairs], device=device)
    return Pairs(rows.select(slice(0, len(pairs))), rows.select(slice(len(pairs), None)), margins)
