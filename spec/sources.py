"""Read Python sources without importing them: tests and the clauses they name, derivations, citations."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spec.clauses import SLUG

CITATION = re.compile(rf"spec: ({SLUG})@(\d+\.\d+)#([0-9a-f]{{8}})")


@dataclass(frozen=True)
class Test:
    """One test of the conformance suite, and the clauses it names; None where they are no literals."""

    name: str
    slugs: tuple[str, ...] | None
    place: str


@dataclass(frozen=True)
class Derivation:
    """One function registered by `@derivation`."""

    name: str
    slug: str
    status: str
    place: str


@dataclass(frozen=True)
class Mention:
    """A clause named somewhere: in a docstring, or as a citation with version and hash."""

    slug: str
    place: str
    version: str = ""
    hash: str = ""


def tests(root: Path) -> list[Test]:
    """Every `test_*` function of the conformance suite, methods included."""
    found = []
    for path in sorted((root / "conformance").glob("test_*.py")):
        name = path.relative_to(root).as_posix()
        for function in _functions(_parse(path)):
            if function.name.startswith("test_"):
                place = f"{name}:{function.lineno}"
                found.append(Test(f"{name}::{function.name}", _named_clauses(function), place))
    return found


def derivations(root: Path) -> list[Derivation]:
    """Every function under `@derivation("slug", status="...")` beside the pages."""
    found = []
    for path in sorted((root / "spec").glob("*.py")):
        for function in _functions(_parse(path)):
            for call in _decorators(function, "derivation"):
                slug, status = (
                    _literal(x) or "" for x in (*call.args[:1], *(k.value for k in call.keywords))
                )
                place = f"{path.relative_to(root).as_posix()}:{function.lineno}"
                found.append(Derivation(f"spec.{path.stem}.{function.name}", slug, status, place))
    return found


def public_functions(root: Path, package: str) -> set[str]:
    """Dotted names of a package's public functions."""
    names = set()
    for path in (root / package).rglob("*.py"):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        defined = (node for node in _parse(path).body if isinstance(node, ast.FunctionDef))
        names |= {f"{module}.{node.name}" for node in defined if not node.name.startswith("_")}
    return names


def docstring_mentions(root: Path, folders: tuple[str, ...], prefixes: set[str]) -> Iterator[Mention]:
    """Slugs in backticks in the docstrings of some folders, where the prefix is a chapter's."""
    for path in _files(root, folders):
        for node in ast.walk(_parse(path)):
            if isinstance(node, ast.Expr) and (text := _literal(node.value)):
                for match in re.finditer(rf"`({SLUG})`", text):
                    if match[1].partition(".")[0] in prefixes:
                        line = node.lineno + text[: match.start()].count("\n")
                        yield Mention(match[1], f"{path.relative_to(root).as_posix()}:{line}")


def citations(root: Path, folders: tuple[str, ...]) -> Iterator[Mention]:
    """Citations `spec: slug@version#hash`, anywhere in the sources of some folders."""
    for path in _files(root, folders):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for slug, version, digest in CITATION.findall(line):
                yield Mention(slug, f"{path.relative_to(root).as_posix()}:{number}", version, digest)


def _files(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _decorators(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[ast.Call]:
    """The calls of a decorator, by its own name or as an attribute."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call):
            called = decorator.func
            if name == (called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")):
                yield decorator


def _named_clauses(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...] | None:
    literals = [_literal(argument) for call in _decorators(function, "clauses") for argument in call.args]
    known = tuple(literal for literal in literals if literal is not None)
    return known if len(known) == len(literals) else None


def _literal(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
