"""The same work by installed libraries, called as their users call them. One that is missing has no calls."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Call = Callable[[], object]
Calls = dict[str, Call]
CLIPS: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0}


@contextlib.contextmanager
def quietly() -> Any:
    """Without what libraries print, log and warn of while they are imported."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def installed(*names: str) -> dict[str, str]:
    """The versions of those packages that are there."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def of(package: str, make: Callable[[], Calls]) -> Calls:
    """The calls of a package, if it is installed."""
    if not installed(package):
        return {}
    with quietly():
        return make()


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float, *, whole: bool) -> Calls:
    """verl's loop; with nothing masked also torchrl's convolution and a filter of SciPy's over TD errors."""

    def verl() -> Calls:
        from verl.trainer.ppo.core_algos import compute_gae_advantage_return

        return {"verl": lambda: compute_gae_advantage_return(rewards, values, mask.float(), gamma, lam)}

    def torchrl() -> Calls:
        from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

        following = torch.nn.functional.pad(values[:, 1:], (0, 1))
        columns = [x[..., None] for x in (values, following, rewards)]
        done = torch.zeros_like(columns[0], dtype=torch.bool)
        done[:, -1] = True
        return {"torchrl": lambda: vec_generalized_advantage_estimate(gamma, lam, *columns, done, done)}

    def scipy() -> Calls:
        from scipy.signal import lfilter

        r, v = rewards.cpu().numpy(), values.cpu().numpy()

        def filtered() -> object:
            errors = r - v
            errors[:, :-1] += np.float32(gamma) * v[:, 1:]
            return lfilter([1.0], np.array([1.0, -gamma * lam], np.float32), errors[:, ::-1])[:, ::-1]

        return {"scipy": filtered}

    return of("verl", verl) | (of("torchrl", torchrl) | of("scipy", scipy) if whole else {})


def whiten(x: Tensor, mask: Tensor) -> Calls:
    """verl's masked whitening."""

    def verl() -> Calls:
        from verl.utils.torch_functional import masked_whiten

        return {"verl": lambda: masked_whiten(x, mask)}

    return of("verl", verl)


def logprobs(logits: Tensor, tokens: Tensor, *, entropy: bool) -> dict[str, Callable[[], list[Tensor]]]:
    """Of the tokens, and entropies."""

    def verl() -> Any:
        from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits

        def call() -> list[Tensor]:
            found = [logprobs_from_logits(logits, tokens, inplace_backward=False)]
            return [*found, entropy_from_logits(logits)] if entropy else found

        return {"verl": call}

    def trl() -> Any:
        from trl.trainer.utils import entropy_from_logits, selective_log_softmax

        def call() -> list[Tensor]:
            found = [selective_log_softmax(logits, tokens)]
            return [*found, entropy_from_logits(logits)] if entropy else found

        return {"trl": call}

    return of("verl", verl) | of("trl", trl)  # type: ignore[return-value]


def policy_loss(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor) -> Calls:
    """verl's dual-clip loss."""

    def verl() -> Calls:
        from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
        from verl.workers.config import ActorConfig

        config = ActorConfig(
            strategy="fsdp",
            rollout_n=1,
            ppo_micro_batch_size_per_gpu=1,
            clip_ratio_low=CLIPS["clip_low"],
            clip_ratio_high=CLIPS["clip_high"],
            clip_ratio_c=CLIPS["dual_clip"],
        )
        rows = old, logprobs, advantages, mask.float()
        return {"verl": lambda: compute_policy_loss_vanilla(*rows, config=config)[0]}

    return of("verl", verl)


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Calls:
    """verl's clipped value loss."""

    def verl() -> Calls:
        from verl.trainer.ppo.core_algos import compute_value_loss

        rows = values, returns, old, mask.float()
        return {"verl": lambda: compute_value_loss(*rows, cliprange_value=clip)[0]}

    return of("verl", verl)


def group_advantages(scores: Tensor, ids: Tensor) -> Calls:
    """verl's two: a dictionary of lists, and index sums."""

    def verl() -> Calls:
        from verl.trainer.ppo import core_algos

        index = ids.cpu().numpy().astype(str).astype(object)
        rows = scores[:, None], torch.ones_like(scores[:, None]), index
        return {
            "verl": lambda: core_algos.compute_grpo_outcome_advantage(*rows),
            "verl, vectorised": lambda: core_algos.compute_grpo_vectorized_outcome_advantage(*rows),
        }

    return of("verl", verl)


def grpo(folder: Path, responses: int, length: int, *, samples: int, kl_coef: float, **run: Any) -> Calls:
    """TRL's trainer, which scores as ours does: 1 for the right answer."""

    def trl() -> Calls:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        def right(completions: list[str], answer: list[str], **_: Any) -> list[float]:
            return [float(a.strip() == b.strip()) for a, b in zip(completions, answer, strict=True)]

        config = GRPOConfig(
            **_settings(folder, responses, **run),
            num_generations=samples,
            max_completion_length=length,
            beta=kl_coef,
            epsilon_high=0.2,
            loss_type="dapo",
            steps_per_generation=1,
        )
        data = Dataset.from_json(str(folder / "prompts.jsonl"), cache_dir=str(folder / "cache"))
        model = str(folder / "model")
        return {"trl": GRPOTrainer(model, reward_funcs=right, args=config, train_dataset=data).train}

    return of("trl", trl)


def dpo(folder: Path, pairs: int, *, beta: float, **run: Any) -> Calls:
    """TRL's trainer."""

    def trl() -> Calls:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        config = DPOConfig(**_settings(folder, pairs, **run), beta=beta, max_length=64)
        data = Dataset.from_json(str(folder / "pairs.jsonl"), cache_dir=str(folder / "cache"))
        return {"trl": DPOTrainer(str(folder / "model"), args=config, train_dataset=data).train}

    return of("trl", trl)


def _settings(folder: Path, rows: int, *, steps: int, rate: float, device: str) -> dict[str, Any]:
    """What TRL's trainers are told: AdamW at ours' rate in float32, nothing saved and nothing reported."""
    return {
        "output_dir": str(folder / "trl"),
        "per_device_train_batch_size": rows,
        "max_steps": steps,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "use_cpu": device == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
