"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

# albumentations asks a server for its newest version unless this is set before its first import.
# Some test modules import it before roofseg.training.augment, which sets it.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
# A git hook, a stage or a `make` that runs the tests sets these variables for its own work.
for name in [name for name in os.environ if name.startswith(("GIT_", "DVC_", "MAKE", "MFLAGS"))]:
    del os.environ[name]
# Several processes share the cores: more threads than one would wait for each other, spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Grids of datums that a user has, or that PROJ would fetch, change the results of transformations.
os.environ["PROJ_NETWORK"] = "OFF"
os.environ["PROJ_USER_WRITABLE_DIRECTORY"] = "/nonexistent"
# Without this, DVC sends usage data to its makers from projects that do not forbid it.
os.environ["DVC_NO_ANALYTICS"] = "1"

# Use the same examples in every run, and no deadline, which a busy machine would miss.
# `make test-all` takes the profile `all` (pytest --hypothesis-profile all).
for name, examples in (("few", 15), ("all", 50)):
    settings.register_profile(name, max_examples=examples, derandomize=True, deadline=None)
settings.load_profile("few")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run torch in one thread, which is faster for small models, and restore its settings."""
    import torch  # seconds, which modules without it need not wait for

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def call_main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call a stage's main, in this process, with these arguments."""

    def call(module: object, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["stage", *map(str, arguments)])
        module.main()  # type: ignore[attr-defined]

    return call


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that `roofseg.cli.main` replaces."""
    from roofseg.core.signals import STOP_SIGNALS

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def roofseg() -> Callable[..., None]:
    """Call `roofseg` in this process; its errors are raised, and nothing is sealed."""
    from roofseg.cli import make_parser  # seconds, which tests without commands need not wait for
    from roofseg.core.entry_point import system_errors_explained

    def call(*arguments: object) -> None:
        args = make_parser().parse_args([str(argument) for argument in arguments])
        with system_errors_explained():
            args.main(args)

    return call


# The most disk space that the folders of the tests needed, 1.8 GB, and some more.
SPACE_GB = 2.5


def pytest_sessionstart(session: pytest.Session) -> None:
    """Stop with one clear error if the disk is too small, before hundreds of tests fail."""
    folder = tempfile.gettempdir()
    free_gb = shutil.disk_usage(folder).free / 1e9
    at_start = not hasattr(session.config, "workerinput")  # a process of pytest-xdist starts later
    if at_start and not session.config.getoption("--basetemp") and free_gb < SPACE_GB:
        raise pytest.UsageError(
            f"{folder} has {free_gb:.1f} GB free, and the tests need {SPACE_GB} GB there: make "
            "room, or set TMPDIR to another folder"
        )


def pytest_configure() -> None:
    """Restore the default signal handlers.

    `nohup`, and shells that start a command in the background, make the command ignore signals, and
    so would the processes that tests start and interrupt.
    """
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, None)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default or signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--proofs", action="store_true", help="print one line per test that says what it proves"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Pipelines first: one process runs them, while others take what is short from the end.
    items.sort(key=lambda item: item.path.parent.name != "pipeline")
    for item in items:
        if item.get_closest_marker("whole") or item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(3600))
        lines = (getattr(getattr(item, "obj", None), "__doc__", None) or item.name).splitlines()
        item.user_properties.append(("proves", lines[0]))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """With --proofs, print one line for each test, or for all cases of a test."""
    if not config.getoption("--proofs"):
        return
    outcomes: dict[str, str] = {}
    for outcome in ("passed", "failed", "error"):  # a test that failed in any case has failed
        for report in terminalreporter.stats.get(outcome, []):
            outcomes[dict(report.user_properties)["proves"]] = outcome
    terminalreporter.section("proofs")
    for proves, outcome in outcomes.items():
        terminalreporter.line(f"{'proved' if outcome == 'passed' else 'FAILED'}  {proves}")
