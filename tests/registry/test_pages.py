"""Pages are read whole, what is malformed is reported, and what they state of the code is so."""

import ast
import importlib
import inspect
import re

import pytest
from latex2mathml.converter import convert
from pylatexenc.latexwalker import LatexWalker

from spec.registry import Registry
from tests.registry.conftest import Copy

REGISTRY = Registry.load()


def test_every_clause_is_read_whole() -> None:
    clause = REGISTRY.clauses["gae.td-error"]
    assert (clause.title, clause.kind, clause.version) == ("TD error", "definition", "1.0")
    assert clause.normative.startswith("`td_errors` MUST return δ_t = r_t + γ V_{t+1} − V_t")
    assert clause.assumptions == "0 ≤ γ ≤ 1."
    assert clause.formulas == (r"\delta_t = r_t + \gamma V_{t+1} - V_t, \qquad t = 0, \dots, N-1",)
    assert clause.prose.startswith("With V = V^π, the mean of δ_t")
    assert clause.reference == ("reference.gae.td_errors",)
    assert clause.derivations == (("spec.gae_statistics.td_error_unbiased", "proved"),)
    assert clause.permalink == "spec/gae.md#gaetd-error"
    assert clause.citation == f"spec: gae.td-error@1.0#{clause.hash}"
    assert len(clause.source) == 1
    assert len(clause.bugs) == 3


@pytest.mark.parametrize(
    ("old", "new", "offset", "message"),
    [
        ("## gae.new", "## gae.New", 0, "'gae.New' is no slug: chapter.name, lower case, with hyphens"),
        ("**New.** case", "**New**, a case", 0, "gae.new: begin with '**Title.** kind, version 1.0'"),
        ("> It is", "It is", 0, "gae.new: one block quote holds the normative sentence; found 0"),
        ("- Versions", "\n* Bugs: none\n\nThe end: Versions", 0, "gae.new: end with the list of fields"),
        ("- Versions", "- Bug: one\n- Versions", 6, "the field 'Bug' is none of Source, Reference"),
        ("- Versions", "- Bugs:\n- Versions", 6, "the field Bugs is empty: fill it or leave it out"),
        (
            "- Versions",
            "- Bugs: a\n- Bugs: b\n- Versions",
            7,
            "the field Bugs is there twice: make it a list",
        ),
        ("- Versions: 1.0", "- Versions: 1", 6, "Versions must look like 1.0 (2026-01-31, `0123abcd`) what"),
        (
            "- Versions",
            "- Reference: gae\n- Versions",
            6,
            "Reference must look like `reference.module.function`",
        ),
        ("- Versions", "$$\nx\n\n- Versions", 6, "the formula does not end with $$ in its paragraph"),
        ("It is so", "A^(n)_t and V_{t+1} are", 4, "an underscore is read as emphasis"),
        ("It is so", "a <b>c</b>", 4, "HTML is not read here: write Markdown"),
    ],
)
def test_malformed_block(copy: Copy, old: str, new: str, offset: int, message: str) -> None:
    place = copy.add_clause("It is so.", "case")
    head, tail = copy.read("spec/gae.md").split("## gae.new")
    copy.write("spec/gae.md", head + f"## gae.new{tail}".replace(old, new, 1))
    line = int(place.partition(":")[2]) + offset
    problems = copy.problems()
    assert problems[0].startswith(f"spec/gae.md:{line}: {message}")
    assert len(set(problems)) == 1


def test_page_without_a_prefix(copy: Copy) -> None:
    copy.edit("spec/contract.md", "(`contract`)", "(contract)")
    assert copy.problems() == [
        "spec/contract.md:1: open the page with a heading that has the prefix of its slugs in a code span"
    ]


def fault_of(formula: str) -> str:
    """Parse a formula twice: one parser knows braces and arguments, the other scripts, brackets and names."""
    try:
        LatexWalker(formula, tolerant_parsing=False).get_latex_nodes()
        mathml = convert(formula)
    except Exception as error:  # the parsers' errors have no base in common
        return repr(error)
    return "a command that MathML has no symbol for" if "\\" in mathml else ""


@pytest.mark.parametrize("slug", sorted(REGISTRY.clauses))
def test_formulas_parse(slug: str) -> None:
    for formula in REGISTRY.clauses[slug].formulas:
        assert fault_of(formula) == ""


@pytest.mark.parametrize(
    "formula",
    [
        "{a",
        "a}",
        r"\frac{1}",
        r"\sqrt",
        "a_b_c",
        "x^",
        r"\left( a",
        r"\delte_t",
        r"\begin{cases} a",
        r"\sum_{l=0",
    ],
)
def test_broken_formulas_do_not_parse(formula: str) -> None:
    assert fault_of(formula) != ""


def test_defaults_are_those_of_the_reference() -> None:
    """`name=value` (default) in a clause is the default of the functions that it names."""
    said, true = set(), set()
    for clause in REGISTRY.clauses.values():
        stated = re.findall(r"`(\w+)=([^`]+)` \(default\)", clause.normative)
        for name in clause.reference:
            module, _, function = name.rpartition(".")
            parameters = inspect.signature(
                getattr(importlib.import_module(module), function)
            ).parameters.values()
            defaults = {p.name: repr(p.default) for p in parameters if p.default is not p.empty}
            said |= {
                (name, option, repr(ast.literal_eval(value)))
                for option, value in stated
                if option in defaults
            }
            true |= {(name, *default) for default in defaults.items()}
    assert said <= true
    assert said
