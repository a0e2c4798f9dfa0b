"""Which tests may see a mutant, the likeliest and cheapest first."""

from pathlib import Path

from conformance.adapters import torch_impl
from conformance.callables import BINDINGS
from conformance.operations import CHAPTERS, OPERATIONS
from conformance.protocol import Operation
from spec.registry import current
from tests.mutants.operators import Mutant
from tests.mutants.reach import Name
from tests.mutants.running import Selection

REFUSALS = ("tests/formulas/test_refusals.py", "tests/formulas/test_bad_upstream.py")
TENSORS = "tests/formulas/test_torch_tensors.py"
SECOND = "tests/formulas/test_second_definitions.py"
DERIVATIONS = "tests/derivations/test_derivations.py"
EXAMPLES = "tests/numbers/test_systems.py"
KERNELS = "torch_impl.kernels"
KERNEL_TESTS = Selection(("tests/formulas/test_torch_gae_kernels.py",))
INTERPRETED = "tests/right_backends/triton_interpreted.py"
"""The kernels as a backend."""
CHECKS = ("checks.", "_check", "raise ")
"""What is in the text of what refuses arguments."""


def plan(project: Path, mutant: Mutant, reaching: set[Name]) -> list[Selection]:
    """The selections of tests to run, one after the other, until one fails."""
    if mutant.package == KERNELS:
        return [*_suite(list(OPERATIONS), INTERPRETED, "quick"), KERNEL_TESTS]
    operations = [name for name, functions in _functions(mutant.package).items() if functions & reaching]
    own = [name for name in operations if (mutant.module, name) in reaching] or operations
    others = [name for name in operations if name not in own]
    refusals = [Selection(REFUSALS, operations=tuple(own))] if own else []
    files = [*refusals, _files(project, mutant, operations)]
    if mutant.package == "torch_impl":  # the suite is asked of many at once: tests.mutants.beside
        of_tensors = tuple(name for name in own if OPERATIONS[name].arguments and name not in BINDINGS)
        formulas, rest = [Selection((TENSORS,), operations=of_tensors)] if of_tensors else [], []
    else:
        agreements = tuple(f"test_agreement[{name}]" for name in (*own, *others))
        examples = f"test_docstring_examples[reference.{mutant.module}]"
        formulas = [Selection((EXAMPLES, SECOND), (examples, *agreements))]
        rest = [*_derivations(reaching), *_suite([] if checks(mutant) else own)]
    return [*files, *formulas, *rest] if checks(mutant) else [*formulas, *files, *rest]


def checks(mutant: Mutant) -> bool:
    """Whether it is about what is refused."""
    return mutant.module == "checks" or any(word in mutant.old for word in CHECKS)


def _suite(operations: list[str], backend: str = "torch_impl", profile: str = "default") -> list[Selection]:
    """The suite on a backend, if it asks about any operation."""
    words = ("--dtype", "float32", "--backend", backend, "--profile", profile, "--replay", "off")
    options = (*words, "--time-limit", "10")
    suite = Selection(("conformance/",), operations=tuple(operations), options=options)
    return [suite] if operations else []


def _functions(package: str) -> dict[str, set[Name]]:
    """For each operation, the functions of a package that it is, or that the suite asks about it."""
    if package == "torch_impl":
        return {name: {_name(getattr(torch_impl, name))} for name in OPERATIONS}
    return {name: _of_reference(operation) for name, operation in OPERATIONS.items()}


def _of_reference(operation: Operation) -> set[Name]:
    gradient = [operation.gradient] if operation.gradient else []
    return {_name(function) for function in (operation.reference, *operation.forms, *gradient)}


def _name(function: object) -> Name:
    module: str = getattr(function, "__module__", "")
    name: str = getattr(function, "__name__", "")
    return module.rpartition(".")[2], name


def _files(project: Path, mutant: Mutant, operations: list[str]) -> Selection:
    """The tests of formulas that import the package and are of a chapter that is concerned, or of all.

    Those of the mutant's module come first, and those of how PyTorch computes the formulas last.
    """
    chapters = {name for name, group in CHAPTERS.items() if any(op.name in operations for op in group)}
    others = CHAPTERS.keys() - chapters - {mutant.module}
    paths = sorted((project / "tests" / "formulas").glob("test_*.py"))
    paths.sort(key=lambda path: (mutant.module not in path.stem, path.stem.startswith("test_torch")))
    taken = [
        path.relative_to(project).as_posix()
        for path in paths
        if not any(chapter in path.stem for chapter in others) and mutant.package in path.read_text("utf-8")
    ]
    return Selection(tuple(file for file in taken if file not in (SECOND, TENSORS, *REFUSALS)))


def _derivations(reaching: set[Name]) -> list[Selection]:
    """The derivations of the clauses that name a function which is changed, and the numbers they return."""
    names = {f"reference.{module}.{name}" for module, name in reaching}
    clauses = [clause for clause in current().clauses.values() if names & set(clause.reference)]
    derivations = [
        f"test_derivation_holds[{derivation}]"
        for clause in clauses
        for derivation, _status in clause.derivations
    ]
    numbers = [f"test_numbers_in_the_prose_are_recomputed[{clause.slug}]" for clause in clauses]
    return [Selection((DERIVATIONS,), (*derivations, *numbers))] if clauses else []
