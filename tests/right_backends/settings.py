"""Settings of modules that hold while a function is called, and not for others that run beside it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any

Settings = Mapping[ModuleType, Mapping[str, Any]]


@contextmanager
def holding(settings: Settings) -> Iterator[None]:
    """Let names of modules stand for other values for a while."""
    before = {module: {name: vars(module)[name] for name in names} for module, names in settings.items()}
    _set(settings)
    try:
        yield
    finally:
        _set(before)


def under(settings: Settings, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is called under settings; the gradient of its result is found without them."""

    @wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        with holding(settings):
            return function(*arguments, **options)

    return called


def _set(settings: Settings) -> None:
    for module, names in settings.items():
        vars(module).update(names)
