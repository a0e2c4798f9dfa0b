"""Checkpoints: what a run needs to go on as if it had not been stopped.

A checkpoint is a folder `step-00000040` of safetensors and JSON; nothing in it is code. It is written beside
its place, brought to the disk, and then renamed: a folder of that name is whole, whatever happens to the
process. Of random numbers it holds the seed, of the data the position: a step's draws depend on these two.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict
from torch.optim import Optimizer

from torch_impl.train.distributed import World, plain

FORMAT = "rlspec-checkpoint-1"
NAME = "step-{:08d}"
WEIGHTS, STATE, ABOUT = "weights.safetensors", "optimizer.safetensors", "checkpoint.json"
FULL = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
UNFINISHED = ".unfinished"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or cannot be gone on from."""


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Sequence[Optimizer],
    about: Mapping[str, Any],
    world: World,
    *,
    keep: int = 2,
) -> None:
    """Write the checkpoint of so many finished steps, and remove all but the newest `keep`.

    Raises CheckpointError where the disk refuses; checkpoints of before are as they were then.
    """
    weights, state = state_dict.get_state_dict(model, optimizer, options=FULL)
    if world.leads:
        files = {WEIGHTS: _owned(weights), STATE: _flat(state.get("state", {}))}
        try:
            _write(folder, NAME.format(step), files, {"format": FORMAT, "step": step, **about})
        except OSError as error:
            reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
            last = newest(folder)
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {folder}: {reason}; "
                f"the last good one is {last.name if last else 'none'}"
            ) from error
        for old in _finished(folder)[:-keep]:
            shutil.rmtree(old)
    world.wait()


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = _finished(folder)
    return found[-1] if found else None


def load(path: Path, model: nn.Module, optimizer: Sequence[Optimizer], about: Mapping[str, Any]) -> int:
    """Put a checkpoint's state into a model and its optimiser, and return how many steps it has finished.

    `about` is what has to agree with what was given to :func:`save`. Raises CheckpointError for a checkpoint
    that is damaged, that something else has written, or that belongs to other settings or another model.
    """
    said = _about(path)
    for name, wanted in about.items():
        if said.get(name) != wanted:
            raise CheckpointError(f"{path} is of a run with {_differences(name, said.get(name), wanted)}")
    weights, state = (_read(path / name, said["files"]) for name in (WEIGHTS, STATE))
    _same_tensors(path, weights, state_dict.get_model_state_dict(model, options=_shapes()))
    options, given = state_dict.StateDictOptions(full_state_dict=True, strict=False), dict[str, Any](weights)
    state_dict.set_model_state_dict(model, given, options=options)
    if optimizer:
        _set_state(model, optimizer, _nested(state), options)
    return int(said["step"])


def _set_state(
    model: nn.Module,
    optimizer: Sequence[Optimizer],
    state: dict[str, Any],
    options: state_dict.StateDictOptions,
) -> None:
    """Put in what optimisers had of each parameter, and nothing of those that they had nothing of."""
    fresh = state_dict.get_optimizer_state_dict(model, optimizer, options=_shapes())
    held: Any = {"state": state, "param_groups": fresh["param_groups"]}
    state_dict.set_optimizer_state_dict(model, optimizer, held, options=options)
    parts = [(name, p) for name, part in model.named_children() for name, p in _named(name, part)]
    for p in [p for name, p in parts if name not in state]:
        for one in optimizer:
            one.state.pop(p, None)


def _named(name: str, part: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a part of a model, by the names that they have in a checkpoint."""
    return [(f"{name}.{inner}", p) for inner, p in plain(part).named_parameters()]


def _write(folder: Path, name: str, files: dict[str, dict[str, Tensor]], about: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / (name + UNFINISHED)
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    try:
        for file, tensors in files.items():
            _save_file(tensors, made / file)
        digests = {file: _digest(made / file) for file in files}
        (made / ABOUT).write_text(json.dumps({**about, "files": digests}, indent=1), encoding="utf-8")
        for file in (*files, ABOUT):
            _to_disk(made / file)
        _to_disk(made)
        if (folder / name).exists():  # of a run that went on from an earlier one
            shutil.rmtree(folder / name)
        made.rename(folder / name)
        _to_disk(folder)
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    """As safetensors does, but a full disk is an OSError with its number."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = errno.ENOSPC if "No space left" in str(error) else errno.EIO
        raise OSError(number, str(error)) from error


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finished(folder: Path) -> list[Path]:
    """Whole checkpoints, the oldest first."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir() and p.suffix != UNFINISHED)


def _about(path: Path) -> dict[str, Any]:
    try:
        said = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path / ABOUT} cannot be read: {error}") from error
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        got = said.get("format") if isinstance(said, dict) else type(said).__name__
        raise CheckpointError(f"{path} must be a checkpoint of format {FORMAT!r}, got {got!r}")
    return said


def _read(path: Path, digests: Mapping[str, str]) -> dict[str, Tensor]:
    try:
        if _digest(path) != digests.get(path.name):
            raise CheckpointError(f"{path} is damaged: it is not what was written")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same_tensors(path: Path, saved: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> None:
    for name in sorted({*saved, *wanted}):
        shapes = [tuple(x[name].shape) if name in x else "none" for x in (saved, wanted)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{path} is of another model: {name} has shape {shapes[0]}, expected {shapes[1]}"
            )


def _differences(name: str, said: Any, wanted: Any) -> str:
    """What two runs disagree on, by name."""
    if not isinstance(said, dict) or not isinstance(wanted, dict):
        return f"{name} {said!r}, and this one has {wanted!r}"
    names = [key for key in sorted({*said, *wanted}) if said.get(key) != wanted.get(key)]
    told = [f"{key} {said.get(key)!r} and not {wanted.get(key)!r}" for key in names]
    return ", ".join(told)


def _owned(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Each with memory of its own: weights may be tied."""
    return {name: x.detach().clone().contiguous() for name, x in tensors.items()}


def _flat(state: Any) -> dict[str, Tensor]:
    return _owned({f"{name}|{key}": x for name, held in state.items() for key, x in held.items()})


def _nested(flat: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, x in flat.items():
        weight, _, key = name.rpartition("|")
        found.setdefault(weight, {})[key] = x
    return found


def _shapes() -> state_dict.StateDictOptions:
    return state_dict.StateDictOptions(full_state_dict=False)
