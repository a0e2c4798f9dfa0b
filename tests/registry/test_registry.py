"""The registry finds nothing wrong here; on a broken copy, each gate finds its fault and nothing else."""

import pytest

from spec.registry import Registry
from tests.registry.conftest import Copy


def test_no_problems() -> None:
    assert Registry.load().problems() == []


def test_a_copy_is_as_good(copy: Copy) -> None:
    assert copy.problems() == []


def test_changed_text(copy: Copy) -> None:
    old = copy.clause("gae.lambda-zero").hash
    copy.edit(
        "spec/gae.md",
        "With λ = 0, `gae` MUST return the TD errors.",
        "With λ = 0, `gae` MUST be the TD errors.",
    )
    new = copy.clause("gae.lambda-zero").hash
    place = copy.line_of("spec/gae.md", "## gae.lambda-zero")
    assert copy.problems() == [
        f"{place}: gae.lambda-zero: the text hashes to `{new}`, that of version 1.0 to `{old}`: "
        "a new text takes a new version, with an entry that has its hash"
    ]


def test_changed_text_with_its_version(copy: Copy) -> None:
    copy.edit("spec/gae.md", "`gae` MUST return the TD errors.", "`gae` MUST be the TD errors.")
    copy.edit("spec/gae.md", "**λ = 0.** limit, version 1.0", "**λ = 0.** limit, version 1.1")
    clause = copy.clause("gae.lambda-zero")
    first = clause.versions[0]
    entry = f"{first.number} ({first.date}, `{first.hash}`) {first.change}"
    copy.edit(
        "spec/gae.md",
        f"- Versions: {entry}",
        f"- Versions:\n  - 1.1 (2027-01-05, `{clause.hash}`) clearer\n  - {entry}",
    )
    assert copy.problems() == []


@pytest.mark.parametrize(
    ("what", "to"),
    [
        ("wrapping", "With λ = 0,\n> `gae` MUST return the TD errors."),
        ("prose", None),
    ],
)
def test_what_binds_nobody_is_not_hashed(copy: Copy, what: str, to: str | None) -> None:
    if to is None:
        copy.edit("spec/gae.md", "Nothing but the next state's value", "Only the next state's value")
    else:
        copy.edit("spec/gae.md", "With λ = 0, `gae` MUST return the TD errors.", to)
    assert copy.problems() == [], what


def test_version_without_an_entry(copy: Copy) -> None:
    copy.edit("spec/gae.md", "**λ = 0.** limit, version 1.0", "**λ = 0.** limit, version 1.1")
    place = copy.line_of("spec/gae.md", "## gae.lambda-zero")
    assert copy.problems() == [
        f"{place}: gae.lambda-zero is at version 1.1, its newest entry under Versions at 1.0: "
        "put the entry of 1.1 first"
    ]


def test_unknown_slug_in_a_test(copy: Copy) -> None:
    copy.add_test('@clauses("gae.td-eror", "gae.td-error")\ndef test_it(): ...\n')
    [problem] = copy.problems()
    name = "conformance/test_extra.py::test_it"
    assert problem.startswith(
        f"conformance/test_extra.py:2: {name} names gae.td-eror, which is no clause; near: gae.td-error"
    )


@pytest.mark.parametrize(
    ("source", "line", "fault"),
    [
        ("def test_it(): ...\n", 1, "names no clause"),
        ("class TestAll:\n    def test_it(self): ...\n", 2, "names no clause"),
        ("@clauses(SLUG)\ndef test_it(): ...\n", 2, "names its clauses by something else than strings"),
    ],
)
def test_test_without_a_clause(copy: Copy, source: str, line: int, fault: str) -> None:
    copy.add_test(source)
    assert copy.problems() == [
        f"conformance/test_extra.py:{line}: conformance/test_extra.py::test_it {fault}: "
        'put @clauses("chapter.name") over it'
    ]


def test_new_clause(copy: Copy) -> None:
    copy.add_clause("A theorem that binds nobody.")
    assert copy.problems() == []


def test_must_without_a_test(copy: Copy) -> None:
    place = copy.add_clause("It MUST.")
    assert copy.problems() == [
        f"{place}: gae.new says MUST, and no conformance test names it: write one, or say in the field "
        "Untestable why there can be none"
    ]


def test_must_that_is_untestable(copy: Copy) -> None:
    copy.add_clause("It MUST.", fields="- Untestable: no answer shows it\n")
    assert copy.problems() == []


def test_untestable_with_a_test(copy: Copy) -> None:
    place = copy.add_clause("It MUST.", fields="- Untestable: no answer shows it\n")
    copy.add_test('@clauses("gae.new")\ndef test_it(): ...\n')
    assert copy.problems() == [f"{place}: gae.new has a test: remove the field Untestable"]


@pytest.mark.parametrize("kind", ["identity", "limit", "bound"])
def test_kind_that_needs_a_derivation(copy: Copy, kind: str) -> None:
    place = copy.add_clause("It is so.", kind)
    assert copy.problems() == [
        f"{place}: gae.new is of kind {kind} and has no derivation: write a function under "
        '@derivation("gae.new", status=...) in spec/ and name it in the field Derivation'
    ]


def test_unknown_kind(copy: Copy) -> None:
    place = copy.add_clause("It is so.", "theorem")
    assert copy.problems() == [
        f"{place}: gae.new: the kind theorem is none of "
        "definition, identity, limit, case, bound, convention, warning"
    ]


def test_derivation_that_is_not_registered(copy: Copy) -> None:
    place = copy.add_clause("It is so.", fields="- Derivation: `spec.gae.nothing` (proved)\n")
    assert copy.problems() == [
        f"{place}: gae.new names the derivation spec.gae.nothing, which is not registered"
    ]


def test_derivation_with_another_status(copy: Copy) -> None:
    copy.edit(
        "spec/gae.md", "`spec.gae.masks_delete` (verified for T <= 4)", "`spec.gae.masks_delete` (proved)"
    )
    place = copy.line_of("spec/gae.md", "## gae.mask")
    function = copy.line_of("spec/gae.py", "def masks_delete")
    assert copy.problems() == [
        f"{place}: gae.mask names spec.gae.masks_delete as proved; {function} has it for gae.mask as "
        "verified for T <= 4"
    ]


def test_derivation_with_an_unknown_status(copy: Copy) -> None:
    copy.edit("spec/gae.md", "`spec.gae.lambda_zero` (proved)", "`spec.gae.lambda_zero` (obvious)")
    copy.edit("spec/gae.py", '"gae.lambda-zero", status="proved"', '"gae.lambda-zero", status="obvious"')
    function = copy.line_of("spec/gae.py", "def lambda_zero")
    assert copy.problems() == [
        f"{function}: spec.gae.lambda_zero: the status 'obvious' is none of those in spec/proofs.py"
    ]


def test_derivation_that_no_page_names(copy: Copy) -> None:
    copy.edit("spec/gae.md", ", `spec.gae.potential_shaping` (proved)", "")
    place = copy.line_of("spec/gae.md", "## gae.linearity")
    assert copy.problems() == [
        f"{place}: gae.linearity must name its derivation spec.gae.potential_shaping in the field Derivation"
    ]


def test_reference_that_is_not_there(copy: Copy) -> None:
    copy.edit(
        "spec/gae.md", "- Reference: `reference.gae.td_errors`", "- Reference: `reference.gae.td_error`"
    )
    place = copy.line_of("spec/gae.md", "## gae.td-error")
    assert copy.problems() == [
        f"{place}: gae.td-error names reference.gae.td_error, which is no public function"
    ]


def test_repeated_slug(copy: Copy) -> None:
    first = copy.add_clause("It is so.")
    text = copy.read("spec/gae.md")
    copy.write("spec/gae.md", text + text[text.index("\n## gae.new") :])
    second = f"spec/gae.md:{text.count(chr(10)) + 2}"
    assert copy.problems() == [f"{second}: gae.new is at {first} already: a slug names one clause"]


def test_retired_slug_comes_back(copy: Copy) -> None:
    place = copy.add_clause("It is so.")
    where = copy.retire("gae.new")
    assert copy.problems() == [f"{place}: gae.new is retired ({where}): take a new slug"]


def test_test_of_a_retired_slug(copy: Copy) -> None:
    where = copy.retire("gae.old")
    copy.add_test('@clauses("gae.old")\ndef test_it(): ...\n')
    name = "conformance/test_extra.py::test_it"
    assert copy.problems() == [
        f"conformance/test_extra.py:2: {name} names gae.old, a retired clause ({where})"
    ]


def test_slug_of_another_page(copy: Copy) -> None:
    place = copy.add_clause("It is so.", page="spec/contract.md")
    assert copy.problems() == [f"{place}: gae.new must begin with the prefix of its page, contract"]


def test_prefix_of_another_page(copy: Copy) -> None:
    copy.write("spec/more.md", "# More (`gae`)\n")
    assert copy.problems() == ["spec/more.md:1: the prefix gae is that of spec/gae.md: take another"]


def test_slug_in_a_docstring(copy: Copy) -> None:
    copy.write("reference/extra.py", 'def f():\n    """Two.\n\n    See `gae.gone`.\n    """\n')
    [problem] = copy.problems()
    assert problem.startswith("reference/extra.py:4: this names gae.gone, which is no clause")


def test_slug_on_a_page(copy: Copy) -> None:
    place = copy.add_clause("As in `gae.gone`.")
    line = int(place.partition(":")[2]) + 4
    [problem] = copy.problems()
    assert problem.startswith(f"spec/gae.md:{line}: this names gae.gone, which is no clause")


def test_citation(copy: Copy) -> None:
    clause = copy.clause("gae.td-error")
    stale = clause.citation.replace(clause.hash, "01234567")
    copy.write("reference/extra.py", f"# {clause.citation}\nx = 1  # {stale}\n")
    assert copy.problems() == [
        "reference/extra.py:2: gae.td-error@1.0#01234567 is stale: read the clause again, then cite "
        f"{clause.citation}"
    ]


def test_stale_link(copy: Copy) -> None:
    place = copy.add_clause("As in [one](#gaetd-error), [two](contract.md#contractpure), [three](#gaegone).")
    line = int(place.partition(":")[2]) + 4
    assert copy.problems() == [f"spec/gae.md:{line}: the link #gaegone leads to no clause of spec/gae.md"]


@pytest.mark.parametrize("entry", ["1.0 (2026-13-22, ", "1.0 (2027-11-22, "])
def test_history_that_is_none(copy: Copy, entry: str) -> None:
    place = copy.add_clause("It is so.")
    digest = copy.clause("gae.new").hash
    copy.edit(
        "spec/gae.md",
        f"- Versions: 1.0 (2026-11-22, `{digest}`)",
        f"- Versions:\n  - 1.0 (2026-11-22, `{digest}`) newest\n  - {entry}`{digest}`)",
    )
    assert copy.problems() == [f"{place}: gae.new: under Versions, numbers and dates must fall, newest first"]
