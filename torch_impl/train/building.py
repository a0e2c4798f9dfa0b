"""How models come about: from a folder or from a small config, with padding, adapters and checkpointing.

Nothing is fetched: a path that is no folder is an error. Dropout is off, since log-probabilities that are
compared, old with new, have to be those of one function.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from torch_impl import checks

Kind = Literal["causal", "scorer"]
"""A language model, or one with a number a position in place of its output head."""

DTYPES = ("float32", "bfloat16", "float16", "float64")


def small_config(
    *,
    layers: int,
    heads: int,
    width: int,
    intermediate: int | None,
    context: int,
    vocabulary: int,
    tied: bool,
) -> Any:
    """A Llama of the given sizes."""
    from transformers import LlamaConfig

    given = {"layers": layers, "heads": heads, "width": width, "context": context}
    for name, x in given.items():
        checks.integer(name, x, at_least=1)
    if width % (2 * heads) != 0:
        raise ValueError(f"width must be an even multiple of heads, {heads}, got {width}")
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width if intermediate is None else intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=tied,
    )


def folder_config(path: str | Path) -> Any:
    """The config of a folder, without dropout."""
    from transformers import AutoConfig

    if not (Path(path) / "config.json").is_file() or not any(Path(path).glob("*.safetensors")):
        raise ValueError(f"path must be a folder with a config.json and safetensors, got {str(path)!r}")
    config: Any = AutoConfig.from_pretrained(str(path), local_files_only=True)
    _drop_nothing(config)
    return config


def _drop_nothing(config: Any) -> None:
    """Set every rate of dropout to 0, those of configs within a config too."""
    for name, x in list(vars(config).items()):
        if hasattr(x, "to_dict"):
            _drop_nothing(x)
        elif "drop" in name and isinstance(x, float):
            setattr(config, name, 0.0)


def without_dropout(model: nn.Module) -> None:
    """Let modules for dropout, those of adapters among them, drop nothing."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0


def build(config: Any, kind: Kind, *, path: str | Path | None, dtype: str) -> Any:
    """The model of a config, with the weights of a folder, or new ones from the global generator."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    checks.choice("dtype", dtype, DTYPES)
    made: Any = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    config.use_cache = True
    if kind == "scorer":
        config.num_labels = 1
    width = getattr(torch, dtype)
    if path is None:
        model = made.from_config(config, dtype=width)
        missing = {"score.weight"}
    else:
        model, found = made.from_pretrained(
            str(path),
            config=config,
            dtype=width,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        missing = set(found["missing_keys"])
    if kind == "scorer":
        zero_head(model, only_if=bool(missing & {"score.weight"}))
    return model


def zero_head(model: Any, *, only_if: bool = True) -> None:
    """A new head says 0 everywhere: values and scores begin there, whatever the backbone."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != 1:
        raise ValueError(f"path must hold a model with a head named score, got a {type(model).__name__}")
    if only_if:
        nn.init.zeros_(head.weight)
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def pad_vocabulary(model: Any, tokens: int, multiple: int) -> None:
    """Rows of the embedding beyond the tokens, up to a multiple; they are no tokens, and are never chosen."""
    checks.integer("vocabulary_multiple", multiple, at_least=1)
    if model.config.vocab_size % multiple:
        model.resize_token_embeddings(pad_to_multiple_of=multiple, mean_resizing=False)
    model.config.unpadded_vocab_size = tokens


def adapt(model: Any, kind: Kind, rank: int, alpha: float, targets: Sequence[str]) -> Any:
    """LoRA around a model: only adapters, and a scorer's head, are trained; adapters are float32 or wider."""
    import peft

    checks.positive("lora_alpha", alpha)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=list(targets) or None,
        task_type="CAUSAL_LM" if kind == "causal" else "SEQ_CLS",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name of before
        return peft.get_peft_model(model, config)


def adapted(model: Any, folder: str | Path) -> Any:
    """A model with the adapters of a folder around it, trainable."""
    import peft

    if not (Path(folder) / "adapter_config.json").is_file():
        raise ValueError(f"adapter must be a folder with an adapter_config.json, got {str(folder)!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return peft.PeftModel.from_pretrained(model, str(folder), is_trainable=True, local_files_only=True)


def inner(model: nn.Module) -> Any:
    """The transformers model inside of whatever is around it: a scorer, adapters, DDP."""
    found: Any = model
    while not hasattr(found, "config"):
        found = next(found.children())
    return found.get_base_model() if hasattr(found, "get_base_model") else found


def token_count(model: nn.Module) -> int:
    """How many rows of the output head are tokens; those behind them are padding."""
    config = inner(model).config
    return int(getattr(config, "unpadded_vocab_size", config.vocab_size))


def check_context(model: nn.Module, tokens: int) -> None:
    """Refuse more positions than a model was made for."""
    context = getattr(inner(model).config, "max_position_embeddings", None)
    if context is not None and tokens > context:
        raise ValueError(f"prompts and responses must have at most {context} tokens together, got {tokens}")


def positions(attention: Tensor) -> Tensor:
    """The place of each token among those of its row, (B, L): padding on the left does not move it."""
    return (attention.long().cumsum(1) - 1).clamp(min=0)


def hidden_states(backbone: nn.Module, ids: Tensor, attention: Tensor) -> Tensor:
    """Last hidden states (B, L, D)."""
    out = backbone(
        input_ids=ids,
        attention_mask=attention,
        position_ids=positions(attention),
        use_cache=False,
    )
    hidden: Tensor = out.last_hidden_state
    return hidden
