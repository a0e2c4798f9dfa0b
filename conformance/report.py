"""The verdict: what was asked, what was executed, what holds, as tables, JSON and Markdown."""

import json
import math
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.known import Known
from conformance.operations import OPERATIONS
from reference.numbers.formats import FORMATS

if TYPE_CHECKING:
    import pandas as pd  # at run time only where tables are made, which is not in every process

SCHEMA_VERSION = 1
CONTRACT = "contract"
FEW = 6
"""So many operations that are not provided are listed by name."""
KNOWN = "known failure"
OUTCOMES = ("passed", "failed", KNOWN, "limited", "not run")
OPERATION_ORDER = {name: place for place, name in enumerate(OPERATIONS)}
DTYPE_ORDER = {name: place for place, name in enumerate(FORMATS)}


@dataclass(frozen=True)
class Result:
    """The outcome of one test of one operation in one dtype."""

    test: str
    operation: str
    dtype: str
    clauses: tuple[str, ...]
    """Those that the test shows; of a failure, those that it breaks: none where a call could not be made."""
    smoke: bool
    outcome: str
    """passed, failed, known failure, limited (the backend refused every case), not provided, or not run."""
    detail: str
    reproduction: str
    """Python code that makes the call of a failure with the backend alone; empty where there is no call."""
    expected: int
    executed: int
    limited: int
    limitations: tuple[str, ...]
    """The reasons that the backend gave for what it refused."""
    worst_distance: float
    """Farthest answer from the middle of its permitted interval, in half widths; above 1 fails."""
    grade: float
    """Farthest answer from the truth, in units of what the conditioning allows."""


@dataclass
class Verdict:
    """All results of a run."""

    backend: str
    provided: tuple[str, ...]
    limits: dict[str, dict[str, tuple[Any, ...]]]
    settings: dict[str, Any]
    known: tuple[Known, ...] = ()
    whole: bool = True
    """Whether every test of the suite was asked for, and not a selection."""
    notes: tuple[str, ...] = ()
    """What in the backend looks like a name of the protocol, and is none."""
    results: list[Result] = field(default_factory=list)

    def unsound(self, operation: str, dtype: str) -> str:
        """Tell whether the smoke check of an operation failed, so that the rest says nothing new."""
        failed = {(r.operation, r.dtype) for r in self.results if r.smoke and r.outcome == "failed"}
        return "its smoke check failed" if (operation, dtype) in failed else ""

    def failures(self, operation: str, dtype: str) -> int:
        """Count the failed tests of an operation in a dtype."""
        outcomes = [r.outcome for r in self.results if (r.operation, r.dtype) == (operation, dtype)]
        return outcomes.count("failed")

    def sort(self) -> None:
        """Put the results in the order of the protocol, however many processes ran the tests."""
        self.results.sort(key=lambda r: (OPERATION_ORDER[r.operation], DTYPE_ORDER[r.dtype]))

    def shortcomings(self) -> list[str]:
        """List what makes a run without a failed test a failure all the same."""
        silent = [f"{name} is provided, and no case of it was executed" for name in self._silent()]
        nothing = [] if silent or any(r.executed for r in self.results) else ["nothing was executed"]
        return [*silent, *nothing, *self._untrue()]

    def _silent(self) -> list[str]:
        """List the operations that are provided and were asked for, and of which nothing was executed."""
        asked = {r.operation for r in self.results if r.operation in self.provided and not r.smoke}
        return sorted(asked - {r.operation for r in self.results if r.executed})

    def _untrue(self) -> list[str]:
        """List the known failures that no test, or no failure of this run, bears out."""
        found = []
        for known in self.known:
            met = self._outcomes(known)
            if KNOWN in met or not (met or self.whole):
                continue
            what = "did not fail as it says" if met else "matches no test of this run"
            found.append(f"the known failure {known.pattern!r} {what}: remove it, or set it right")
        return found

    def _outcomes(self, known: Known) -> list[str]:
        """How the tests ended that a known failure is about."""
        return [r.outcome for r in self.results if known.covers(r.clauses, r.operation, r.dtype)]

    def frame(self) -> "pd.DataFrame":
        """One line for each operation, dtype and clause that was asked for."""
        import pandas as pd

        lines = [{**asdict(r), "clause": slug} for r in self.results for slug in r.clauses]
        return pd.DataFrame(lines, columns=["clause", *Result.__dataclass_fields__])

    def by_clause(self) -> "list[pd.DataFrame]":
        """Clause × operation, a table a chapter, then operation × clause of the contract.

        A cell is pass, partly, FAIL, known, limited or not run; blank where nothing was asked.
        """
        frame = self.frame()
        frame = frame[frame.outcome != "not provided"]
        chapters = frame.clause.str.split(".").str[0]
        names = [chapter for chapter in chapters.unique() if chapter != CONTRACT]
        tables = [self._matrix(frame[chapters == name]) for name in names]
        contract = frame[chapters == CONTRACT]
        if contract.empty:
            return tables
        of_every_operation = self._matrix(contract).T.rename_axis("operation")
        return [*tables, of_every_operation.rename(columns=lambda slug: slug.removeprefix(f"{CONTRACT}."))]

    def _matrix(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        cells = frame.groupby(["clause", "operation"], sort=True)[["outcome", "dtype", "limited"]].apply(
            _dtypes
        )
        table = cells.unstack(fill_value="").astype(str)
        return table[[name for name in self.provided if name in table.columns]].rename_axis(columns=None)

    def by_operation(self) -> "pd.DataFrame":
        """Operation × dtype: tests by outcome, inputs executed of expected, worst distance, grade."""
        import pandas as pd

        results = pd.DataFrame([asdict(r) for r in self.results if r.outcome != "not provided"])
        if results.empty:
            return results
        groups = results.groupby(["operation", "dtype"], sort=False)
        lines = [self._line(group) for _, group in groups]
        return pd.DataFrame(lines).set_index("operation")

    def as_text(self) -> str:
        """Both tables, the limitations and the verdict in words."""
        notes = [f"note: {text}" for text in self.notes]
        notes += [f"limited: {text}" for text in self.limitations()]
        notes += [f"known failure: {text}" for text in self.known_failures()]
        notes += [f"FAIL: {text}" for text in self.shortcomings()]
        tables = [_text(table) for table in (*self.by_clause(), self.by_operation())]
        parts = [*tables, LEGEND, "\n".join(notes), self.summary()]
        return "\n\n".join(part for part in parts if part)

    def summary(self) -> str:
        """The verdict in one sentence."""
        counts = {outcome: sum(r.outcome == outcome for r in self.results) for outcome in OUTCOMES}
        missing = sorted({r.operation for r in self.results if r.outcome == "not provided"})
        names = ", ".join(missing) if len(missing) <= FEW else f"{len(missing)} operations"
        shortcomings = self.shortcomings()
        good = not counts["failed"] and not shortcomings
        tests = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n) or "no test"
        lacking = f"; not provided: {names}" if missing else ""
        lacking += "" if counts["failed"] else "".join(f"; {text}" for text in shortcomings[:1])
        words = "conforms" if self.whole else "passes the part of the suite that was asked for"
        words += " but for known failures" if counts[KNOWN] else ""
        return f"{self.backend} {words if good else 'does not conform'} ({self._where()}): {tests}{lacking}"

    def _where(self) -> str:
        """The settings of the run, in words."""
        dtypes = ", ".join(self.settings["dtypes"])
        profile, seed = self.settings["profile"], self.settings["seed"]
        return f"{self.settings['device']}, {dtypes}, {profile} profile, seed {seed}"

    def limitations(self) -> list[str]:
        """What the backend says that it cannot do: its declared options, and its reasons to refuse calls."""
        found = [
            (f"{option} is only {', '.join(map(repr, values))}", operation)
            for operation, limits in self.limits.items()
            for option, values in limits.items()
        ]
        found += sorted({(reason, r.operation) for r in self.results for reason in r.limitations})
        operations: dict[str, list[str]] = {}
        for reason, operation in found:
            operations.setdefault(reason, []).append(operation)
        return [f"{', '.join(names)}: {reason}" for reason, names in operations.items()]

    def known_failures(self) -> list[str]:
        """What is known to fail and did, why, and where that is told."""
        met = [known for known in self.known if KNOWN in self._outcomes(known)]
        return [f"{known.pattern}: {known.reason} ({known.link})" for known in met]

    def write(self, folder: Path) -> None:
        """Write verdict.json and verdict.md; pytest itself writes junit.xml."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "verdict.json").write_text(json.dumps(self._as_json(), indent=1, default=str) + "\n")
        (folder / "verdict.md").write_text(self._as_markdown())

    def _line(self, group: "pd.DataFrame") -> dict[str, Any]:
        operation, counts = group.operation.iloc[0], group.outcome.value_counts()
        return {
            "operation": operation,
            "dtype": group["dtype"].iloc[0],
            "verdict": "FAIL" if operation in self._silent() else _cell(group.outcome),
            **{outcome: int(counts.get(outcome, 0)) for outcome in OUTCOMES},
            "executed/expected": f"{group.executed.sum()}/{group.expected.sum()}",
            "worst distance": _number(group.worst_distance.max()),
            "grade": _number(group.grade.max()),
        }

    def _as_json(self) -> dict[str, Any]:
        results = [{k: None if v != v else v for k, v in asdict(r).items()} for r in self.results]
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.summary(),
            "backend": self.backend,
            "settings": self.settings,
            "versions": _versions(),
            "notes": self.notes,
            "limitations": self.limitations(),
            "known_failures": self.known_failures(),
            "shortcomings": self.shortcomings(),
            "results": results,
        }

    def _as_markdown(self) -> str:
        failed = [r for r in self.results if r.outcome == "failed"]
        failures = [f"### {r.test}\n\n```text\n{r.detail}\n```" for r in failed]
        notes = "\n".join(
            [f"- note: {text}" for text in self.notes]
            + [f"- limited: {text}" for text in self.limitations()]
            + [f"- known failure: {text}" for text in self.known_failures()]
        )
        versions = ", ".join(f"{name} {number}" for name, number in _versions().items())
        parts = [
            f"# Verdict on {self.backend}",
            self.summary(),
            versions,
            *(table.to_markdown() for table in self.by_clause()),
            self.by_operation().to_markdown(),
            notes,
            *failures,
            LEGEND,
        ]
        return "\n\n".join(part for part in parts if part) + "\n"


LEGEND = """\
partly: what was executed passed, and in every test of the clause the backend refused some inputs
executed/expected: inputs that were judged, of those that were asked for; an input that fails ends its test
worst distance: from the middle of the permitted interval, in half widths; above 1 fails
grade: error in units of what the conditioning of the inputs allows; up to about 1 is as good as it gets"""


def _dtypes(group: "pd.DataFrame") -> str:
    """One word for a clause of an operation, and the dtypes it holds for when it is not all of them."""
    word = _cell(group["outcome"])
    outcome = {"FAIL": "failed", "pass": "passed", "known": KNOWN}.get(word, word)
    dtypes = group["dtype"][group["outcome"] == outcome].drop_duplicates()
    if word == "pass" and group["limited"][group["outcome"] == outcome].all():
        word = "partly"
    return word if len(dtypes) == group["dtype"].nunique() else f"{word} {', '.join(dtypes)}"


def _cell(outcomes: "pd.Series[str]") -> str:
    """One word for several outcomes: the worst decides, and a limitation shows only when alone."""
    for outcome, word in (("failed", "FAIL"), (KNOWN, "known"), ("not run", "not run"), ("passed", "pass")):
        if (outcomes == outcome).any():
            return word
    return str(outcomes.iloc[0])


def _text(table: "pd.DataFrame") -> str:
    return "" if table.empty else table.to_string()


def _number(x: float) -> str:
    return "" if math.isnan(x) or x == 0.0 else f"{x:.2g}"


def _versions() -> dict[str, str]:
    names = ("numpy", "hypothesis", "pytest", "python-flint")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
