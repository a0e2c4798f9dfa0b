"""Set up this project and check it. Needs Python >= 3.11 with its venv module (on Debian python3.11-venv).

python3 dev.py conformance [pytest arguments]    run the conformance suite, for example with --backend NAME
python3 dev.py test [pytest arguments]           run everything that a change must pass
python3 dev.py museum [--help]                   hold the suite against every wrong backend
python3 dev.py alarms [--help]                   hold the suite against every right backend
python3 dev.py mutants [--help]                  hold our own tests against small mistakes in the formulas
python3 dev.py train ALGORITHM [--help]          train a language model, for example grpo --preset tiny
python3 dev.py bench [--help]                    time our implementation, with --peers beside other libraries
python3 dev.py constraints                       write constraints.txt anew, with the newest versions

The first run makes .venv and installs into it; later runs start at once.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYPROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "constraints.txt"
ADAPTERS = ROOT / "conformance" / "adapters"
PARALLEL = ("-n", "auto", "--maxprocesses", "8")
OUR_DTYPES = ("float64", "float32", "bfloat16")
"""What torch_impl is tested in when nothing else is asked for."""
PATHS = ("--report", "--replay", "--known-failures")
"""The suite's options whose values are paths, but for "off" and for what --backend names."""
CONFORMANCE_EXTRAS = "torch"
TRAIN_EXTRAS = "lora,train"
TEST_EXTRAS = f"{TRAIN_EXTRAS},torch,test"
BENCH_EXTRAS = "bench,torch,train"
PEERS_VENV = ROOT / ".venv-peers"
PEERS = (ADAPTERS / "verl-requirements.txt", ROOT / "tests" / "benchmarks" / "peers-requirements.txt")


def conformance(arguments: list[str]) -> int:
    """Run the conformance suite and return pytest's exit status."""
    ensure_installed(CONFORMANCE_EXTRAS)
    for backend in backends(arguments):
        ensure_backend(backend)
    return run(pytest("conformance/", suite_options(arguments)))


def test(arguments: list[str]) -> int:
    """Run every check, the later ones after a failure too, and say which failed.

    The conformance suite is one of them: a test holds what README.md shows of it against a run.
    """
    ensure_installed(TEST_EXTRAS)
    for requirements in sorted(ADAPTERS.glob("*-requirements.txt")):
        ensure_backend(requirements.name.removesuffix("-requirements.txt"))
    steps = {
        "ruff check": python("-m", "ruff", "check", "."),
        "ruff format --check": python("-m", "ruff", "format", "--check", "."),
        "mypy": python("-m", "mypy"),
        "pytest tests/": pytest("tests/", [*PARALLEL, "--dist", "worksteal", *arguments]),
    }
    failed = []
    for name, command in steps.items():
        say(name)
        if run(command) != 0:
            failed.append(name)
    say("failed: " + ", ".join(failed) if failed else "every step passed")
    return 1 if failed else 0


def museum(arguments: list[str]) -> int:
    """Run every wrong backend, and return 0 if the suite catches each of them."""
    ensure_installed(TEST_EXTRAS)
    return run(python("-m", "tests.wrong_backends.museum", *arguments))


def alarms(arguments: list[str]) -> int:
    """Run every right backend, and return 0 if the suite accuses none of them."""
    ensure_installed(TEST_EXTRAS)
    return run(python("-m", "tests.right_backends.alarms", *arguments))


def mutants(arguments: list[str]) -> int:
    """Make small mistakes in the formulas, and return 0 if our tests see nearly all of them."""
    ensure_installed(TEST_EXTRAS)
    return run(python("-m", "tests.mutants", *arguments))


def train(arguments: list[str]) -> int:
    """Train a language model: `python -m torch_impl.train` with what it needs, where the caller is."""
    ensure_installed(TRAIN_EXTRAS)
    return run(python("-m", "torch_impl.train", *arguments), Path.cwd())


def bench(arguments: list[str]) -> int:
    """Time our implementation; with --peers in an environment of its own, where the peers' versions win."""
    if "--peers" not in arguments:
        ensure_installed(BENCH_EXTRAS)
        return run(python("-m", "tests.benchmarks", *arguments))
    inputs = PYPROJECT, CONSTRAINTS, *PEERS
    noted = PEERS_VENV / "dev.stamp"
    if not (noted.is_file() and noted.read_text() == fingerprint(*inputs)):
        say("installing what the benchmarks are run beside into .venv-peers (minutes)")
        make_venv(PEERS_VENV)
        pip_install("-c", "constraints.txt", "torch", venv=PEERS_VENV)
        pip_install("-c", "constraints.txt", "-e", f".[{BENCH_EXTRAS}]", venv=PEERS_VENV)
        for requirements in PEERS:
            pip_install("--no-deps", "-r", str(requirements), venv=PEERS_VENV)
        noted.write_text(fingerprint(*inputs))
    return run(python("-m", "tests.benchmarks", *arguments, venv=PEERS_VENV))


def constraints(arguments: list[str]) -> int:
    """Write constraints.txt from a fresh install: torch as pinned now, all else at its newest."""
    if arguments:
        sys.exit("dev.py constraints takes no arguments")
    if sys.version_info[:2] != OLDEST:
        sys.exit("dev.py constraints needs Python 3.11 itself: newer pins would not serve the oldest Python")
    old = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "venv"
        make_venv(fresh)
        pip_install(*(line for line in old if line.startswith("torch==")), venv=fresh)
        pip_install("-e", f".[{TEST_EXTRAS}]", venv=fresh)
        # --all, because a plain freeze hides setuptools, which torch needs.
        # Without triton, because torch's builds for CUDA each want their own.
        left_out = [word for name in ("pip", "triton") for word in ("--exclude", name)]
        freeze = python("-m", "pip", "freeze", "--all", "--exclude-editable", *left_out, venv=fresh)
        frozen = subprocess.run(freeze, check=True, stdout=subprocess.PIPE, text=True).stdout
    header = [line for line in old if line.startswith("#")]
    pins = re.sub(r"\+\S+", "", frozen)  # 2.13.0+cpu is this machine's build of 2.13.0
    CONSTRAINTS.write_text("\n".join(header) + "\n" + pins, encoding="utf-8")
    return 0


def ensure_installed(extras: str) -> None:
    """Install this project with these extras, unless an earlier run did."""
    if any(is_stamped(done, PYPROJECT, CONSTRAINTS) for done in (extras, TEST_EXTRAS)):
        return
    if not has_pip(VENV):
        say(f"making .venv with Python {sys.version_info[0]}.{sys.version_info[1]}")
        make_venv(VENV)
    for path in VENV.glob("dev-*.stamp"):
        path.unlink()  # from here on the environment is neither what it was nor what it will be
    say(f"installing rlspec[{extras}] into .venv (minutes at first)")
    # torch first and pinned: an unpinned one can bring gigabytes of CUDA packages to a machine without a GPU.
    pip_install("-c", "constraints.txt", "torch")
    pip_install("-c", "constraints.txt", "-e", f".[{extras}]")
    stamp(extras, PYPROJECT, CONSTRAINTS)


def ensure_backend(name: str) -> None:
    """Install the library behind a registered backend, if a requirements file here names one."""
    requirements = ADAPTERS / f"{name}-requirements.txt"
    inputs = (PYPROJECT, CONSTRAINTS, requirements)
    if not requirements.is_file() or is_stamped(name, *inputs):
        return
    say(f"installing what {name} needs into .venv")
    # Without dependencies: a peer's own pins would replace the versions that everything else is run with.
    pip_install("--no-deps", "-r", str(requirements))
    stamp(name, *inputs)


def suite_options(arguments: list[str]) -> list[str]:
    """Return pytest's arguments for the suite: in parallel, and naming the five slowest tests.

    Without a backend or dtype among the arguments, it is our own implementation in three dtypes.
    """
    chosen = any(argument.startswith(("--backend", "--dtype")) for argument in arguments)
    dtypes = [] if chosen else [word for dtype in OUR_DTYPES for word in ("--dtype", dtype)]
    return [*PARALLEL, "--durations=5", *dtypes, *absolute(arguments)]


def backends(arguments: list[str]) -> list[str]:
    """Return the registered names among the values of --backend: not paths, not dotted modules."""
    values = [value for option, value in itertools.pairwise(arguments) if option == "--backend"]
    values += [option.partition("=")[2] for option in arguments if option.startswith("--backend=")]
    return [value for value in values if re.fullmatch(r"[\w-]+", value)]


def absolute(arguments: list[str]) -> list[str]:
    """Spell out the paths among the arguments: pytest runs in the project's folder, not in the caller's."""
    found = []
    for before, argument in itertools.pairwise(["", *arguments]):
        option, equals, value = argument.partition("=") if argument[:2] == "--" else (before, "", argument)
        is_path = (option in PATHS and value != "off") or (value.endswith(".py") and Path(value).is_file())
        left = f"{option}=" if equals else ""
        found.append(f"{left}{Path(value).resolve()}" if value and is_path else argument)
    return found


def has_pip(venv: Path) -> bool:
    """Tell whether this environment works, has pip, and is for the Python that runs now."""
    check = "import sys, pip; sys.exit(sys.version_info[:2] != ({}, {}))".format(*sys.version_info[:2])
    try:
        done = subprocess.run(python("-c", check, venv=venv), stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return False
    return done.returncode == 0


def make_venv(venv: Path) -> None:
    """Make an empty virtual environment, in place of whatever was there."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        version = "{}.{}".format(*sys.version_info[:2])
        sys.exit(
            "dev.py: this Python cannot make virtual environments: its venv or ensurepip module is missing.\n"
            f"On Debian and Ubuntu: apt install python{version}-venv"
        )
    require([sys.executable, "-m", "venv", "--clear", str(venv)])


def pip_install(*arguments: str, venv: Path = VENV) -> None:
    """Install, and say nothing if it works."""
    require(python("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments, venv=venv))


def python(*arguments: str, venv: Path = VENV) -> list[str]:
    """Return the command that runs the environment's Python."""
    return [str(interpreter(venv)), *arguments]


def interpreter(venv: Path) -> Path:
    """Return where a virtual environment has its Python."""
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def pytest(folder: str, arguments: list[str]) -> list[str]:
    """Return the command that runs one folder's tests; -c, because a path in --backend can mislead pytest."""
    return python("-m", "pytest", "-c", "pyproject.toml", folder, *arguments)


def run(command: list[str], folder: Path = ROOT) -> int:
    """Run a command in a folder, the project's by default, and return its exit status."""
    with subprocess.Popen(command, cwd=folder) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # it was interrupted too: let it print its own last lines
            raise


def require(command: list[str]) -> None:
    """Run a command silently; if it fails, show what it printed, name it and stop."""
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        print(done.stdout, end="", flush=True)
        sys.exit(f"dev.py: this command failed with exit status {done.returncode}:\n  {shlex.join(command)}")


def is_stamped(name: str, *inputs: Path) -> bool:
    """Tell whether an install finished with just these inputs."""
    path = stamp_path(name)
    return interpreter(VENV).exists() and path.is_file() and path.read_text() == fingerprint(*inputs)


def stamp(name: str, *inputs: Path) -> None:
    """Note that an install finished."""
    stamp_path(name).write_text(fingerprint(*inputs))


def stamp_path(name: str) -> Path:
    """Return the file that notes an install."""
    return VENV / f"dev-{name.replace(',', '-')}.stamp"


def fingerprint(*inputs: Path) -> str:
    """Hash what an install depends on: the Python, the place and the files."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for path in inputs:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def say(line: str) -> None:
    """Print a line that can be told from the tools' own."""
    print(f"== {line}", flush=True)


def main(arguments: list[str]) -> int:
    """Run the command that the first argument names."""
    if sys.version_info < OLDEST:
        sys.exit("dev.py needs Python 3.11 or newer; this is {}.{}.".format(*sys.version_info[:2]))
    commands: dict[str, Callable[[list[str]], int]] = {
        "conformance": conformance,
        "test": test,
        "museum": museum,
        "alarms": alarms,
        "mutants": mutants,
        "train": train,
        "bench": bench,
        "constraints": constraints,
    }
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name in ("", "-h", "--help"):
        print(__doc__)
        return 0 if name else 2
    if name not in commands:
        near = difflib.get_close_matches(name, commands)
        hint = f"near: {', '.join(near)}" if near else f"the commands are {', '.join(commands)}"
        print(f"dev.py: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    try:
        return commands[name](rest)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
