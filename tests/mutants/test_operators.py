"""Each operator does what it says, to nothing else, and every mutant has a name of its own that stays."""

import ast
from collections import Counter

import pytest

from tests.mutants.campaign import PACKAGES, every_mutant, sample
from tests.mutants.operators import Mutant, mutants
from tests.mutants.running import ROOT

EVERY = every_mutant(ROOT)

HEADER = "import np\nfrom np import Tensor\n\n"


def made(body: str, arguments: str = "x, y") -> list[Mutant]:
    return mutants("package", "module", f"{HEADER}def f({arguments}):\n    {body}\n")


def of(operator: str, body: str) -> list[str]:
    """What an operator makes of one line of a function."""
    lines = [mutant.text.splitlines()[4].strip() for mutant in made(body) if mutant.operator == operator]
    return [ast.unparse(ast.parse(f"async def f():\n {line}")).splitlines()[1].strip() for line in lines]


@pytest.mark.parametrize(
    ("operator", "body", "expected"),
    [
        ("arithmetic", "return x + y", ["return x - y"]),
        ("arithmetic", "return x - y", ["return x + y"]),
        ("arithmetic", "return x / y", ["return x * y"]),
        ("arithmetic", "return x // y", ["return x * y"]),
        ("arithmetic", "return x ** y", ["return x * y"]),
        ("arithmetic", "return 2 * x * y", ["return 2 * x / y", "return 2 / x * y"]),
        ("comparison", "return x < y", ["return x <= y", "return x > y"]),
        ("comparison", "return 0 <= x", ["return 0 < x", "return 0 >= x"]),
        ("comparison", "return x == y", ["return x != y"]),
        ("comparison", "return x is None", ["return x is not None"]),
        ("comparison", "return x not in y", ["return x in y"]),
        ("comparison", "return x == y is None", ["return x != y is None", "return x == y is not None"]),
        ("logic", "return x & y", ["return x | y"]),
        ("logic", "return x or y", ["return x and y"]),
        ("negation", "return -x", ["return x"]),
        ("negation", "return ~x", ["return x"]),
        ("negation", "return 1 if x else y", ["return 1 if not x else y"]),
        ("negation", "return 1 if x < 2 else y", ["return 1 if not x < 2 else y"]),
        ("negation", "return 1 if x is None else y", []),
        ("negation", "if x: y()", ["if not x: y()"]),
        ("constant", "return x[0]", ["return x[1]"]),
        ("constant", "return x[1]", ["return x[0]", "return x[2]"]),
        ("constant", "return x + 0.5", ["return x + 0.25", "return x + 1.5"]),
        ("constant", "return x + 0.0", ["return x + 1.0"]),
        ("constant", "return x(flag=True)", ["return x(flag=False)"]),
        ("constant", "return 'text', None, b'1'", []),
        ("keyword", "return x(1, a=2, b=3)", ["return x(1, b=3)", "return x(1, a=2)"]),
        ("keyword", "return zip(x, y, strict=True), x(**y)", []),
        ("keyword", "np.real(x, like='y')", []),
        ("keyword", "return np.zeros(2, like=x)", ["return np.zeros(2)"]),
        ("opposite", "return np.minimum(x, y)", ["return np.maximum(x, y)"]),
        ("opposite", "return x.clamp(min=y)", ["return x.clamp(max=y)"]),
        ("opposite", "return x.all()", ["return x.any()"]),
        ("swap", "return np.less(x, y)", ["return np.less(y, x)"]),
        ("swap", "return np.minimum(x, y), np.where(x, y, 1)", []),
        ("branches", "return np.where(x, y, 2)", ["return np.where(x, 2, y)"]),
        ("branches", "return np.kink(x, 1, y, 2)", ["return np.kink(x, 1, 2, y)"]),
        ("unchanged", "return np.exp(x)", ["return x"]),
        ("unchanged", "return x.exp().sum(dim=1)", ["return x.exp()", "return x.sum(dim=1)"]),
        ("unchanged", "return np.real('x', x, 2)", ["return x"]),
        ("unchanged", "np.check('x', x)", []),
        ("deletion", "np.check('x', x)", ["pass"]),
        ("deletion", "x = y", ["pass"]),
        ("deletion", "x += y", ["pass"]),
        ("deletion", "z = y", []),
        ("deletion", "return x", []),
        ("deletion", "raise ValueError(f'{x} is {y + 1}, not {2}')", ["pass"]),
    ],
)
def test_operator(operator: str, body: str, expected: list[str]) -> None:
    assert sorted(of(operator, body)) == sorted(
        ast.unparse(ast.parse(f"async def f():\n {line}")).splitlines()[1].strip() for line in expected
    )


def test_a_decorator_is_deleted_and_defaults_are_constants() -> None:
    text = "@np.no_grad()\ndef f(x: np.Array[1] = 2, *, eps: float = 0.5) -> np.Tuple[3]:\n    return x\n"
    found = [
        (mutant.operator, mutant.old, mutant.new) for mutant in mutants("package", "module", HEADER + text)
    ]
    assert sorted(found) == [
        ("constant", "0.5", "0.25"),
        ("constant", "0.5", "1.5"),
        ("constant", "2", "3"),
        ("deletion", "np.no_grad()", "lambda function: function"),
    ]


def test_methods_are_functions_of_their_class() -> None:
    text = "class C:\n    def f(self, x):\n        x = x + 1\n        return -x\n"
    found = [(m.function, m.operator, m.old) for m in mutants("package", "module", HEADER + text)]
    assert sorted(found) == [
        ("C", "arithmetic", "x + 1"),
        ("C", "constant", "1"),
        ("C", "constant", "1"),
        ("C", "deletion", "x = x + 1"),
        ("C", "negation", "-x"),
    ]


@pytest.mark.parametrize(
    "body",
    ['"""Text of 1 + 2."""', "raise ValueError(x + 1)", "return f'{x + 1} and {-y}'", "z: np.Array[1] = x"],
)
def test_texts_and_annotations_are_left_alone(body: str) -> None:
    assert {mutant.operator for mutant in made(body)} <= {"deletion"}


def test_columns_count_bytes_and_comments_stay() -> None:
    [mutant] = made("γ, δ = 'γδ', x + y  # γ + δ")
    assert mutant.text.splitlines()[4] == "    γ, δ = 'γδ', (x - y)  # γ + δ"


def test_an_edit_may_span_lines() -> None:
    texts = [mutant.text for mutant in made("return (x\n        - y)")]
    assert [ast.unparse(ast.parse(text).body[-1]).splitlines()[1].strip() for text in texts] == [
        "return x + y"
    ]


def test_mutants_parse_and_do_not_read_as_before() -> None:
    same = {
        (package, path.stem): ast.dump(ast.parse(path.read_text(encoding="utf-8")))
        for package in PACKAGES
        for path in (ROOT / package.replace(".", "/")).glob("*.py")
    }
    for mutant in EVERY[::10]:
        assert ast.dump(ast.parse(mutant.text)) != same[mutant.package, mutant.module], mutant.id


def test_names_are_unique_and_say_where() -> None:
    assert max(Counter(mutant.id for mutant in EVERY).values()) == 1
    assert [mutant.id for mutant in every_mutant(ROOT)] == [mutant.id for mutant in EVERY]
    assert [mutant.id for mutant in made("return x + y + x")] == [
        "package.module:f:5:arithmetic:0",
        "package.module:f:5:arithmetic:1",
    ]


def test_no_two_mutants_are_the_same() -> None:
    assert max(Counter((mutant.package, mutant.module, mutant.text) for mutant in EVERY).values()) == 1


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    assert sample(EVERY, 20, 1) == sample(EVERY, 20, 1) != sample(EVERY, 20, 2)
    assert sample(EVERY, 20, 1) == sample(EVERY, 30, 1)[:20]
    assert len(sample(EVERY, 20, 1)) == 20
    assert sorted(mutant.id for mutant in sample(EVERY, None, 1)) == sorted(mutant.id for mutant in EVERY)
