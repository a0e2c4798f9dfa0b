"""Which functions of a package reach which: read off their texts, without running anything."""

import ast
from collections.abc import Iterator

from tests.mutants.operators import defined

Name = tuple[str, str]
"""A module and what it defines."""


def reaching(package: str, texts: dict[str, str]) -> dict[Name, set[Name]]:
    """For each name of a package's modules, the names that use it, directly or not, and itself."""
    users: dict[Name, set[Name]] = {}
    for module, text in texts.items():
        tree = ast.parse(text)
        known = _known(package, module, tree)
        for statement in tree.body:
            if name := defined(statement):
                users.setdefault((module, name), set())
                for used in _used(statement, known):
                    users.setdefault(used, set()).add((module, name))
    return {name: _closure(name, users) for name in users}


def _known(package: str, module: str, tree: ast.Module) -> dict[str, Name]:
    """What each name of a module stands for; a module of the package has no name of its own."""
    known = {name: (module, name) for statement in tree.body if (name := defined(statement))}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == package:
            known |= {alias.asname or alias.name: (alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            holder = (node.module or "").removeprefix(f"{package}.")
            known |= {alias.asname or alias.name: (holder, alias.name) for alias in node.names}
    return known


def _used(statement: ast.stmt, known: dict[str, Name]) -> Iterator[Name]:
    for node in ast.walk(statement):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in known:
                holder, own = known[name]
                yield (holder, own or attribute)
            case ast.Name(id=name) if name in known:
                yield known[name]


def _closure(name: Name, users: dict[Name, set[Name]]) -> set[Name]:
    reached, new = {name}, {name}
    while new:
        new = {user for one in new for user in users.get(one, ())} - reached
        reached |= new
    return reached
