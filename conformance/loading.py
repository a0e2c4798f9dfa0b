"""Find a backend: a file, a module, a class in a module, or a registered name."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from conformance.arrays import HOOKS, LIBRARIES
from conformance.callables import SOURCES
from conformance.operations import OPERATIONS

ADAPTERS = Path(__file__).parent / "adapters"
CLOSE = 0.8
"""How alike a name has to be to an operation's, from 0 to 1, to be taken for a misspelling."""


class LoadError(Exception):
    """The backend cannot be loaded; the message says why and what to do."""


def registered_names() -> list[str]:
    """List the names that `--backend NAME` knows."""
    return sorted(path.stem for path in ADAPTERS.glob("*.py") if path.stem != "__init__")


def load(what: str) -> Any:
    """Import a backend and return the module, or the instance of the class, that has its operations."""
    target, _, attribute = what.partition(":") if not Path(what).exists() else (what, "", "")
    try:
        module = _import(target)
    except ModuleNotFoundError as error:
        raise LoadError(f"it needs {error.name!r}, which is not installed{_hint(target)}") from error
    if not attribute:
        return module
    if not hasattr(module, attribute):
        raise LoadError(f"module {target} has no {attribute!r}; it has {', '.join(_public(module))}")
    return getattr(module, attribute)()


def library(backend: Any) -> Any:
    """Tell the array library that a backend, or its class's module, names; None where there is none."""
    module = inspect.getmodule(type(backend))
    return getattr(backend, "array_library", getattr(module, "array_library", None))


def hooks(backend: Any) -> Any:
    """Return what converts arrays for this backend: its library's hooks, or its own three."""
    named = library(backend)
    if named is None and all(callable(getattr(backend, hook, None)) for hook in HOOKS):
        return backend
    if named is None:
        known = ", ".join(map(repr, LIBRARIES))
        raise LoadError(
            f"the backend says nothing of its arrays: set array_library to one of {known}, "
            f"or define {', '.join(HOOKS)}"
        )
    if named not in LIBRARIES:
        raise LoadError(f"array_library is {named!r}, expected one of {', '.join(map(repr, LIBRARIES))}")
    try:
        return LIBRARIES[named]()
    except ImportError as error:
        raise LoadError(f"array_library is {named!r}, which cannot be imported: {error}") from error


def provided(backend: Any, operations: Mapping[str, Collection[str]]) -> dict[str, list[str] | None]:
    """Tell which operations a backend has, and which keywords each takes (None: any).

    What stands behind a wrapper cannot be seen: there, an option that the backend fixes at its default is
    none that it takes.
    """
    found = {name: getattr(backend, name, None) for name in operations}
    limits = declared(backend, operations)
    return {
        name: _behind(name, limits.get(name, {})) if _is_wrapper(function) else _keywords(function)
        for name, function in found.items()
        if callable(function)
    }


def places(backend: Any, operations: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Tell how many arguments each operation of a backend takes by position, where its signature says so."""
    found = {name: _positional(getattr(backend, name, None), options) for name, options in operations.items()}
    return {name: len(names) for name, names in found.items() if names is not None}


def tracer(backend: Any) -> Any:
    """Return a backend's `trace`; None for NumPy's, or another library's, which `import *` brings along."""
    trace = getattr(backend, "trace", None)
    return trace if inspect.isfunction(trace) or inspect.ismethod(trace) else None


def strangers(backend: Any, operations: Mapping[str, Collection[str]]) -> list[str]:
    """Say what a backend has that looks like a name of the protocol, and is none, or is in another place."""
    public = [name for name in dir(backend) if not name.startswith("_") and name not in operations]
    lacking = [name for name in operations if not callable(getattr(backend, name, None))]
    found = [
        f"{name} is no operation; near: {near}"
        for name in public
        for near in get_close_matches(name, lacking, n=1, cutoff=CLOSE)
        if callable(getattr(backend, name))
    ]
    for operation in operations.keys() - set(lacking):
        function, options = getattr(backend, operation), operations[operation]
        found += _unknown_keywords(operation, function, options) + _misplaced(operation, function, options)
    return sorted(found)


def declared(
    backend: Any, operations: Mapping[str, Collection[str]]
) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Return the options that a backend says it cannot vary, each with the values that it takes."""
    options = getattr(backend, "options", {})
    form = "{'whiten': {'ddof': (1,)}}: operation, option, the values that it takes"
    try:
        found = {key: {name: _values(x) for name, x in limits.items()} for key, limits in options.items()}
    except (AttributeError, TypeError) as error:
        raise LoadError(f"its options are {options!r}, expected something like {form}") from error
    for operation, limits in found.items():
        if operation not in operations:
            raise LoadError(
                f"its options name {operation!r}, which is no operation: {', '.join(operations)} are"
            )
        for name in limits.keys() - set(operations[operation]):
            raise LoadError(f"its options name {name!r}: {operation} has {', '.join(operations[operation])}")
    return found


def _unknown_keywords(operation: str, function: Any, options: Collection[str]) -> list[str]:
    """Say what a function takes by name alone that is no option."""
    names = sorted(set(_keyword_only(function)) - set(options) - set(_arguments(operation)))
    near = {name: get_close_matches(name, options, n=1) for name in names}
    return [
        f"{operation} takes {name!r}, which is no option of it" + "".join(f"; near: {x}" for x in near[name])
        for name in names
    ]


def _misplaced(operation: str, function: Any, options: Collection[str]) -> list[str]:
    """Say which arguments a function takes by name alone, or in another order than the protocol's."""
    arguments, by_name = _arguments(operation), _keyword_only(function)
    named = [name for name in arguments if name in by_name]
    given = [name for name in _positional(function, options) or () if name in arguments]
    found = [f"{operation} takes {', '.join(named)} by name; arguments come by position"] if named else []
    if given != [name for name in arguments if name in given]:
        found += [f"{operation} takes {', '.join(given)}; they come as {', '.join(arguments)}"]
    return found


def _arguments(operation: str) -> tuple[str, ...]:
    """What a call gives by position."""
    _, names = SOURCES.get(operation, ((), tuple(x.name for x in OPERATIONS[operation].arguments)))
    return names


def _values(values: Any) -> tuple[Any, ...]:
    if isinstance(values, str) or not tuple(values):
        raise TypeError("a tuple or list of at least one value is expected")
    return tuple(values)


def _import(target: str) -> ModuleType:
    if target.endswith(".py"):
        return _import_file(Path(target))
    name = f"conformance.adapters.{target}" if target in registered_names() else target
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise LoadError(
            f"there is no module {target!r} to import, and no registered backend of that name "
            f"(registered: {', '.join(registered_names())}; a file needs its .py)"
        ) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise LoadError(f"there is no file {path}")
    sys.path.append(str(path.parent.resolve()))
    name = f"backend_{path.stem}"  # its own name: my/reference.py must not pass for `reference`
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _keywords(function: Any) -> list[str] | None:
    parameters = _parameters(function)
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _behind(operation: str, fixed: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """The options of an operation but for those fixed at their default."""
    defaults = OPERATIONS[operation].options
    return [name for name, default in defaults.items() if fixed.get(name) != (default,)]


def _is_wrapper(function: Any) -> bool:
    """Whether a function takes anything, `(*args, **kwargs)`, and so says nothing of what it takes."""
    kinds = {p.kind for p in _parameters(function) or ()}
    return kinds == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def _positional(function: Any, options: Collection[str]) -> list[str] | None:
    """What a function takes by position, up to the first option; None where it does not say."""
    parameters = _parameters(function)
    if parameters is None or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return list(takewhile(lambda name: name not in options, names))


def _keyword_only(function: Any) -> list[str]:
    """What a function takes by name alone."""
    return [p.name for p in _parameters(function) or () if p.kind is p.KEYWORD_ONLY]


def _parameters(function: Any) -> list[inspect.Parameter] | None:
    """The parameters of a function; None where they cannot be known.

    A `torch.nn.Module` is called as its `forward` is.
    """
    try:
        return list(inspect.signature(getattr(function, "forward", function)).parameters.values())
    except (TypeError, ValueError):
        return None


def _hint(target: str) -> str:
    requirements = ADAPTERS / f"{Path(target).stem}-requirements.txt"
    return f": pip install --no-deps -r {requirements}" if requirements.is_file() else ""


def _public(module: ModuleType) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")]
