"""The run: start the backend, give each test its operation and dtype, collect verdicts, print them."""

import importlib.util
import math
import pickle
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def _refuse_shadowed_packages() -> None:
    """Stop when another package named `reference` or `spec` would be tested against."""
    for name in ("reference", "spec"):
        found = importlib.util.find_spec(name)
        origin = Path(found.origin).parent if found is not None and found.origin else None
        if origin != ROOT / name:
            raise pytest.UsageError(
                f"`import {name}` finds {origin or 'nothing'}, the suite belongs to {ROOT / name}: "
                "another package of that name is in the way; run from an environment without it"
            )


_refuse_shadowed_packages()

import numpy as np  # noqa: E402
from hypothesis.database import DirectoryBasedExampleDatabase  # noqa: E402

from conformance.backend import Backend, BadCall, Limited, OutOfService, Unusable  # noqa: E402
from conformance.cases import Case  # noqa: E402
from conformance.failure import story  # noqa: E402
from conformance.known import BadFile, Known, read  # noqa: E402
from conformance.marks import shown  # noqa: E402
from conformance.operations import OPERATIONS  # noqa: E402
from conformance.parallel import by_operation, is_worker, tell_controller  # noqa: E402
from conformance.report import KNOWN, Result, Verdict  # noqa: E402
from conformance.run import NonConformance, Run  # noqa: E402
from conformance.trace import first_divergence  # noqa: E402
from reference.numbers.formats import FORMATS  # noqa: E402

VERDICT = pytest.StashKey[Verdict]()
BACKEND = pytest.StashKey[Backend]()
DEFAULT_DTYPES = ["float32", "float64"]
SMOKE = "test_smoke.py"
OF_ANY = ("contract", "calls", "sizes", "defaults", "far_options", "scales")
ORDER = {SMOKE: 0, "test_expectations.py": 2} | {f"test_{name}.py": 3 for name in OF_ANY}
"""Smoke checks first, then the chapters, where causes show, then means, then what holds of any operation."""
FULL_STORIES = 3
"""Failures of one operation in one dtype that are told in full, with the call; the others without it."""
SHORTENED = f"shortened  {FULL_STORIES} failures of {{}} in {{}} are told in full; --report DIR keeps all"
KEPT = ("got  ", "note  ")
"""How the lines begin that a shortened failure keeps."""


class Collector:
    """Puts the results that travel with the reports together, whichever process they come from."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the result off a report."""
        if result := vars(report).get("conformance"):
            self.results.append(Result(**result))


COLLECTOR = pytest.StashKey[Collector]()


def pytest_configure(config: pytest.Config) -> None:
    """Listen to the reports; at the end, on CI too, one line names what was told above."""
    config.option.force_short_summary = True
    config.stash[COLLECTOR] = Collector()
    config.pluginmanager.register(config.stash[COLLECTOR])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, all tests of one operation in one dtype go to one process, one after the other."""
    return by_operation(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn from a process that has ended what backend it tested, or why it could not."""
    said = getattr(node, "workeroutput", None) or {}
    if "unusable" in said:
        raise pytest.UsageError(said["unusable"])
    if "backend" in said:
        _open_verdict(node.config, *pickle.loads(said["backend"]))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the operations it names and the dtypes that were asked for."""
    if "run" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("operations")
    names = marker.args if marker else tuple(OPERATIONS)
    pairs = [(name, dtype) for name in names for dtype in _dtypes(metafunc.config)]
    metafunc.parametrize("run", pairs, indirect=True, ids=[f"{name}-{dtype}" for name, dtype in pairs])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start the backend once it is known that there is something to run, smoke checks first."""
    ours = [item for item in items if _is_ours(item)]
    if not ours or config.option.collectonly:
        return
    items.sort(key=lambda item: ORDER.get(item.path.name, 1) if _is_ours(item) else -1)
    try:
        backend = config.stash[BACKEND] = _start(config)
    except pytest.UsageError as error:
        if not is_worker(config):
            raise
        tell_controller(config, unusable=str(error))
        items.clear()
        return
    described = (
        backend.name,
        tuple(backend.provided),
        {name: backend.limits(name) for name in backend.provided},
        tuple(backend.notes),
    )
    _open_verdict(config, *described)
    if is_worker(config):
        tell_controller(config, backend=pickle.dumps(described))


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """One test of one operation in one dtype."""
    operation, dtype = request.param
    backend, verdict = request.config.stash[BACKEND], request.config.stash[VERDICT]
    if operation not in backend.provided:
        pytest.skip("not provided")
    if reason := verdict.unsound(operation, dtype) or backend.out_of_service.get(operation):
        pytest.skip(f"not run: {reason}")
    config = request.config
    replay = config.getoption("--replay")
    database = None if replay == "off" else DirectoryBasedExampleDatabase(replay)
    settings = config.getoption("--profile"), config.getoption("--seed")
    return Run(backend, operation, dtype, *settings, _name(request.node), database)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test that judged nothing did not pass: the backend refused every case, or nothing was decided."""
    result = yield
    run = getattr(item, "funcargs", {}).get("run")
    if isinstance(run, Run) and not run.tally.executed:
        if run.tally.limited:
            pytest.skip(f"limited: {'; '.join(sorted(run.tally.beyond | run.tally.limitations))}")
        if run.tally.unclear:
            pytest.skip("not run: the results it compares are outside the permitted set by themselves")
        pytest.skip("not run: no input decided anything, so few bits does this dtype have for this test")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep each test's outcome, and let a failure say what it has to say, nothing else."""
    report = yield
    if not _is_ours(item) or VERDICT not in item.config.stash or report.when == "teardown":
        return report
    failure = _tell(item, report, call.excinfo.value) if report.failed and call.excinfo else {}
    if report.when == "call" or not report.passed:
        vars(report)["conformance"] = asdict(_result(item, report, **failure))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the backend, write the report, and fail when something provided was never executed."""
    config = session.config
    if BACKEND in config.stash:
        config.stash[BACKEND].close()
    if VERDICT not in config.stash or is_worker(config):
        return
    config.stash[VERDICT].sort()
    if config.getoption("--report"):
        config.stash[VERDICT].write(Path(config.getoption("--report")))
    if session.exitstatus == pytest.ExitCode.OK and config.stash[VERDICT].shortcomings():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the verdict."""
    if VERDICT in config.stash:
        verdict = config.stash[VERDICT]
        terminalreporter.section(f"verdict on {verdict.backend}")
        terminalreporter.write_line(verdict.as_text())


def _tell(item: pytest.Item, report: pytest.TestReport, error: BaseException) -> dict[str, Any]:
    """Let a failure say what it has to say, and mark a known one; return what its result has of its own."""
    if not isinstance(error, NonConformance | OutOfService):
        return {}
    operation, dtype = item.callspec.params["run"]  # type: ignore[attr-defined]
    verdict, source = item.config.stash[VERDICT], item.config.stash[BACKEND].source
    slugs = _broken(item, error)
    if isinstance(error, NonConformance):
        body, fault = error.story(source), error.fault
        if "\ngot  " in body and not error.gradient:
            body = "\n".join([body, *_beginning(item.config.stash[BACKEND], error.case)])
    else:
        body, fault = error.call, error.fate
    told = story(item, slugs, body, verdict.backend, fault)
    report.longrepr = told
    if verdict.failures(operation, dtype) >= FULL_STORIES:
        kept = [line for line in body.splitlines() if line.startswith(KEPT)]
        short = "\n".join([*kept, SHORTENED.format(operation, dtype)])
        report.longrepr = story(item, slugs, short, verdict.backend, fault)
    for known in verdict.known:
        if known.covers(slugs, operation, dtype) and known.error in told:
            report.outcome = "skipped"
            vars(report)["wasxfail"] = f"{known.reason} ({known.link})"
    reproduction = "\n".join(error.script(source)) if isinstance(error, NonConformance) else ""
    return {"detail": told, "reproduction": reproduction, "clauses": slugs}


def _broken(item: pytest.Item, error: NonConformance | OutOfService) -> tuple[str, ...]:
    """The clauses that a failure breaks: those that its test shows, or the one of them that the call breaks.

    An ordinary call that gave nothing to judge breaks none.
    """
    slugs = _shown(item)
    clause = error.clause if isinstance(error, NonConformance) else ""
    if clause in slugs:
        return (clause,)
    return () if item.path.name == SMOKE else slugs


def _shown(item: pytest.Item) -> tuple[str, ...]:
    """The clauses that a test shows of its operation."""
    return shown(item.iter_markers(), item.callspec.params["run"][0])  # type: ignore[attr-defined]


def _beginning(backend: Backend, case: Case) -> list[str]:
    """Say where a wrong answer begins, if the backend shows its intermediates."""
    try:
        traced = backend.trace(case.operation, case.arguments, case.options, case.dtype)
    except (BadCall, Limited, OutOfService) as error:
        return [f"begins     unknown: {error}"]
    return first_divergence(case, traced)


def _name(item: pytest.Item) -> str:
    """The id that a test has inside the project, wherever pytest runs: what is drawn depends on it."""
    return f"conformance/{item.path.name}::{item.name}"


def _is_ours(item: pytest.Item) -> bool:
    return item.path.is_relative_to(Path(__file__).parent)


def _open_verdict(
    config: pytest.Config,
    backend: str,
    provided: tuple[str, ...],
    limits: dict[str, dict[str, tuple[Any, ...]]],
    notes: tuple[str, ...],
) -> None:
    """Make the verdict on a backend, of the results that are there and of those to come."""
    config.stash[VERDICT] = Verdict(
        backend=backend,
        provided=provided,
        limits=limits,
        settings={name: config.getoption(f"--{name}") for name in ("device", "profile", "seed")}
        | {"dtypes": _dtypes(config)},
        known=_known_failures(config),
        whole=not _is_selection(config),
        notes=notes,
        results=config.stash[COLLECTOR].results,
    )


def _known_failures(config: pytest.Config) -> tuple[Known, ...]:
    """Read the file of known failures, less what is about dtypes that are not tested."""
    path = config.getoption("--known-failures")
    try:
        entries = read(Path(path)) if path else ()
    except BadFile as error:
        raise pytest.UsageError(f"--known-failures: {error}") from error
    others = [dtype for dtype in FORMATS if dtype not in _dtypes(config)]
    return tuple(known for known in entries if not known.pattern.endswith(tuple(f" {d}" for d in others)))


def _dtypes(config: pytest.Config) -> list[str]:
    """The dtypes that are tested, in the order in which they were asked for."""
    return list(dict.fromkeys(config.getoption("--dtype") or DEFAULT_DTYPES))


def _is_selection(config: pytest.Config) -> bool:
    """Whether some tests of the suite were left out on purpose."""
    option = config.option
    narrowed = option.keyword or option.markexpr or option.deselect or option.maxfail
    return bool(narrowed) or any("::" in word or word.endswith(".py") for word in config.args)


def _start(config: pytest.Config) -> Backend:
    what = config.getoption("--backend")
    try:
        backend = Backend(what, config.getoption("--device"), config.getoption("--time-limit"))
        for dtype in _dtypes(config):
            _check_conversion(backend, dtype)
    except Unusable as error:
        raise pytest.UsageError(f"backend {what}: {error}") from error
    return backend


def _check_conversion(backend: Backend, dtype: str) -> None:
    """Send numbers to the backend's library and back: none may change, nor the dtype."""
    form = FORMATS[dtype]
    x = form.round(
        np.array([[0.0, 1.0, -1 / 3, 1 + 2 * form.unit_roundoff], [np.inf, np.nan, 0.1, -(2.0**-13)]])
    )
    try:
        back, name = backend.round_trip(x, dtype)
    except (BadCall, OutOfService) as error:
        backend.close()
        if backend.device != "cpu":
            raise Unusable(f"its arrays cannot be put on the device {backend.device!r}: {error}") from error
        raise Unusable(f"its arrays cannot hold {dtype}: {error}; name others with --dtype") from error
    if name != dtype or not np.array_equal(np.asarray(back, dtype=float), x, equal_nan=True):
        backend.close()
        raise Unusable(
            f"asarray and to_numpy change what they convert: {x.tolist()} in {dtype} came back as "
            f"{np.asarray(back).tolist()} in {name}"
        )


def _result(
    item: pytest.Item,
    report: pytest.TestReport,
    detail: str = "",
    reproduction: str = "",
    clauses: tuple[str, ...] | None = None,
) -> Result:
    operation, dtype = item.callspec.params["run"]  # type: ignore[attr-defined]
    run = getattr(item, "funcargs", {}).get("run")
    tally = run.tally if isinstance(run, Run) else None
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    return Result(
        test=_name(item),
        operation=operation,
        dtype=dtype,
        clauses=_shown(item) if clauses is None else clauses,
        smoke=item.path.name == SMOKE,
        outcome=_outcome(report, reason),
        detail=detail or reason.removeprefix("Skipped: ") or (str(report.longrepr) if report.failed else ""),
        reproduction=reproduction,
        expected=tally.expected if tally else 0,
        executed=tally.executed if tally else 0,
        limited=tally.limited if tally else 0,
        limitations=tuple(sorted(tally.limitations)) if tally else (),
        worst_distance=float(tally.worst_distance) if tally else math.nan,
        grade=float(tally.grade) if tally else math.nan,
    )


def _outcome(report: pytest.TestReport, reason: str) -> str:
    if hasattr(report, "wasxfail"):
        return KNOWN
    if not report.skipped:
        return report.outcome
    return next((o for o in ("not provided", "not run", "limited") if o in reason), "not run")
