"""Small mistakes, made one at a time in the source of a module: what each operator does to a node.

An edit replaces the text of one node, in parentheses where it is an expression. Strings, annotations,
imports, what an exception says and `strict` of a zip are left as they are.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Pow: (ast.Mult,),
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
DECIDED = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
LOGIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
OPPOSITES = (
    ("minimum", "maximum"),
    ("min", "max"),
    ("less", "less_equal"),
    ("any", "all"),
    ("zeros_like", "ones_like"),
)
"""Functions, methods and keywords that stand for each other."""
OPPOSITE = {name: other for pair in OPPOSITES for name, other in (pair, pair[::-1])}

BRANCHES = {"where": 1, "kink": 2}
"""The place of the first of two arguments between which a function chooses."""

COMMUTATIVE = ("minimum", "maximum", "min", "max", "promote_types", "dot")
TOLD = ("_describe",)
"""Functions that make parts of messages."""


@dataclass(frozen=True)
class Mutant:
    """One edit of one module."""

    package: str
    module: str
    function: str
    """The function, class or constant of the module that it is in."""
    line: int
    operator: str
    number: int
    """Which of those of this operator on this line, from 0."""
    old: str
    """What stood there, in the words of `ast.unparse`, and what stands there now."""
    new: str
    text: str
    """The whole module, edited."""

    @property
    def file(self) -> str:
        """Where the module lies in the project."""
        return f"{self.package.replace('.', '/')}/{self.module}.py"

    @property
    def id(self) -> str:
        """Its name."""
        place = f"{self.package}.{self.module}:{self.function}:{self.line}"
        return f"{place}:{self.operator}:{self.number}"


def mutants(package: str, module: str, text: str) -> list[Mutant]:
    """Every mutant of a module, in the order of the text; none of them reads as before."""
    counts: Counter[tuple[str, int, str]] = Counter()
    found = []
    for function, node, operator, new in _edits(ast.parse(text)):
        old, words = ast.unparse(node), _words(node, new)
        if old == words:
            continue
        place = function, node.lineno, operator
        edited = _replaced(text, node, words)
        found.append(Mutant(package, module, *place, counts[place], old, words, edited))
        counts[place] += 1
    return sorted(found, key=lambda mutant: mutant.line)


Edit = tuple[str, ast.expr | ast.stmt, str, ast.expr | None]
"""Function, node, operator and what takes the node's place; None for nothing at all."""


def _edits(tree: ast.Module) -> Iterator[Edit]:
    modules = _modules(tree)
    for statement in tree.body:
        name = defined(statement)
        if not name or name in TOLD:
            continue
        for node in _visited(statement):
            if isinstance(node, ast.expr):
                for operator, new in _of(node, modules):
                    yield name, node, operator, new
            elif isinstance(node, ast.If | ast.While):
                for operator, new in _opposite(node.test):
                    yield name, node.test, operator, new
        for function in statement.body if isinstance(statement, ast.ClassDef) else [statement]:
            if isinstance(function, ast.FunctionDef):
                for deleted in _deletable(function):
                    yield name, deleted, "deletion", None


def defined(statement: ast.stmt) -> str:
    """The name that a statement of a module gives to something, empty if none."""
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""


def _modules(tree: ast.Module) -> set[str]:
    """The names that are modules, or may be: whatever is imported."""
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def _visited(node: ast.AST) -> Iterator[ast.AST]:
    """What may be edited, from a node downwards."""
    match node:
        case ast.Raise() | ast.JoinedStr() | ast.keyword(arg="strict"):
            return
        case ast.Expr(value=ast.Call() as call):  # without the call there is nothing: that is the deletion
            below: list[Any] = [*call.args, *call.keywords]
        case _:
            yield node
            fields = [value for name, value in ast.iter_fields(node) if name not in ("annotation", "returns")]
            below = [x for value in fields for x in (value if isinstance(value, list) else [value])]
    for child in below:
        if isinstance(child, ast.AST):
            yield from _visited(child)


def _of(node: ast.expr, modules: set[str]) -> Iterator[tuple[str, ast.expr]]:
    """What each operator makes of an expression."""
    match node:
        case ast.BinOp(op=op):
            for name, table in (("arithmetic", ARITHMETIC), ("logic", LOGIC)):
                for other in table.get(type(op), ()):
                    yield name, _with(node, op=other())
        case ast.BoolOp(op=op):
            yield "logic", _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.Compare(ops=ops):
            for i, relation in enumerate(ops):
                for turned in COMPARISONS[type(relation)]:
                    yield "comparison", _with(node, ops=[*ops[:i], turned(), *ops[i + 1 :]])
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert(), operand=operand):
            yield "negation", operand
        case ast.IfExp(test=test):
            for name, new in _opposite(test):
                yield name, _with(node, test=new)
        case ast.Constant(value=value):
            for constant in _constants(value):
                yield "constant", ast.Constant(constant)
        case ast.Call():
            yield from _of_call(node, modules)


def _opposite(test: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """The negation of a condition, where no operator on its comparison says the same."""
    if not (isinstance(test, ast.Compare) and isinstance(test.ops[0], DECIDED)):
        yield "negation", ast.UnaryOp(ast.Not(), test)


def _constants(value: object) -> tuple[float, ...]:
    match value:
        case bool():
            return (not value,)
        case int():
            return (value + 1,) if value != 1 else (0, 2)
        case float():
            return (value / 2, value + 1) if value else (1.0,)
    return ()


def _of_call(node: ast.Call, modules: set[str]) -> Iterator[tuple[str, ast.expr]]:
    match node.func:
        case ast.Name(id=name):
            receiver = None
        case ast.Attribute(value=value, attr=name):
            receiver = None if isinstance(value, ast.Name) and value.id in modules else value
        case _:
            return
    if name in ("isinstance", "super"):
        return
    arguments, keywords = node.args, node.keywords
    for i, keyword in enumerate(keywords):
        if keyword.arg not in (None, "strict") and not _is_told(keyword):
            yield "keyword", _with(node, keywords=keywords[:i] + keywords[i + 1 :])
        if keyword.arg in OPPOSITE:
            other = ast.keyword(OPPOSITE[keyword.arg], keyword.value)
            yield "opposite", _with(node, keywords=[*keywords[:i], other, *keywords[i + 1 :]])
    if name in OPPOSITE:
        yield "opposite", _with(node, func=_renamed(node.func, OPPOSITE[name]))
    if any(isinstance(argument, ast.Starred) for argument in arguments):
        return
    if len(arguments) == 2 and name not in COMMUTATIVE:
        yield "swap", _with(node, args=arguments[::-1])
    if name in BRANCHES and len(arguments) == BRANCHES[name] + 2:
        first, second = arguments[-2:]
        yield "branches", _with(node, args=[*arguments[:-2], second, first])
    kept = [receiver] if receiver else [x for x in arguments if not _is_text(x)]
    if kept:
        yield "unchanged", kept[0]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_told(keyword: ast.keyword) -> bool:
    """Whether a keyword only goes into messages."""
    return keyword.arg == "like" and _is_text(keyword.value)


def _renamed(function: ast.expr, name: str) -> ast.expr:
    return ast.Name(name) if isinstance(function, ast.Name) else _with(function, attr=name)


def _with(node: ast.expr, **changes: object) -> ast.expr:
    """A copy of a node with other fields."""
    other = copy(node)
    vars(other).update(changes)
    return other


def _deletable(function: ast.FunctionDef) -> Iterator[ast.stmt | ast.expr]:
    """What a function does without, as far as Python can tell: checks, second assignments, decorators."""
    yield from function.decorator_list
    arguments = function.args
    bound = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)][1:]
    for node in sorted(statements, key=lambda node: (node.lineno, node.col_offset)):
        match node:
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.If(orelse=[]):
                yield node
            case ast.Assign(targets=[target]):
                names = {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
                if names <= bound:
                    yield node
                bound |= names


def _words(node: ast.expr | ast.stmt, new: ast.expr | None) -> str:
    """What takes the place of a node."""
    if new is not None:
        return ast.unparse(new)
    return "pass" if isinstance(node, ast.stmt) else "lambda function: function"


def _replaced(text: str, node: ast.expr | ast.stmt, words: str) -> str:
    """The text with other words in the place of a node, whose columns count bytes."""
    lines = text.encode().splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: (node.end_lineno or 1) - 1])) + (node.end_col_offset or 0)
    put = words if isinstance(node, ast.stmt) else f"({words})"
    return (text.encode()[:start] + put.encode() + text.encode()[end:]).decode()
