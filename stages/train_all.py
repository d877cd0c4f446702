"""Train all attempts of the revision at hand, several at once: ``make train-all JOBS=2``.

What they need comes first; then each is a `dvc repro --single-item` of its own. DVC writes dvc.lock
while it holds the project's lock, and lets go of that while a stage runs: jobs that wait for the
lock, instead of giving up after 3 seconds, all end up in dvc.lock.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from contextlib import suppress
from pathlib import Path

from roofseg.core.errors import StoppedError, UserError
from roofseg.recipe.params import read_params
from stages import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, help="attempts at once; default: one per GPU, else 1")
    parser.add_argument("--allow-missing", action="store_true", help="as in dvc repro")
    args = parser.parse_args()
    if args.jobs is None:
        import torch  # seconds

        args.jobs = torch.cuda.device_count() or 1
    if args.jobs < 1:
        raise UserError(f"--jobs: found {args.jobs}; expected at least 1")
    options = ["--allow-missing"] if args.allow_missing else []
    params = read_params(Path("params.yaml"))
    priors = {name: params.recipe(name).prior for name in params.attempts}
    failed = asyncio.run(Jobs(args.jobs, options).train(priors))
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}; the lines that begin so say why")
    print("All attempts are trained. `dvc repro` evaluates them.")


class Jobs:
    """Up to ``count`` processes of `dvc repro` at once; a signal stops them and starts no more."""

    def __init__(self, count: int, options: list[str]) -> None:
        self.slots, self.options = asyncio.Semaphore(count), options
        self.running: set[Process] = set()
        self.signal: int | None = None

    async def train(self, priors: dict[str, str]) -> list[str]:
        """Train the attempts, given with their priors; gives the names of those that failed."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                asyncio.get_running_loop().add_signal_handler(number, self.stop, number)
        weights = (f"weights/dvc.yaml:{prior}" for prior in sorted(set(priors.values())))
        failed = ["inputs"] if await self.repro("inputs", "make_patches", *weights) else []
        if not failed:
            trained = await asyncio.gather(*(self.repro(n, "-s", f"train@{n}") for n in priors))
            failed = [name for name, status in zip(priors, trained, strict=True) if status]
        if self.signal:
            name = signal.Signals(self.signal).name
            raise StoppedError(f"stopped by {name}; the same command goes on", 128 + self.signal)
        return failed

    async def repro(self, name: str, *targets: str) -> int:
        """Run `dvc repro`, print its lines with ``name`` before each, and give its exit status."""
        async with self.slots:
            if self.signal:
                return 0
            command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *self.options]
            process = await asyncio.create_subprocess_exec(
                *(*command, *targets),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                limit=2**24,  # bytes in a line; beyond it asyncio gives up
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # a group to interrupt, and no Ctrl-C from the terminal
            )
            self.running.add(process)
            if self.signal:  # it came while the process started
                self.stop(self.signal)
            assert process.stdout
            async for line in process.stdout:
                print(f"{name} | {line.decode(errors='replace').rstrip()}", flush=True)
            self.running.remove(process)
            return await process.wait()

    def stop(self, number: int) -> None:
        """Interrupt all jobs: DVC then waits for its stage, which SIGTERM would leave running."""
        self.signal = self.signal or number
        for process in self.running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)


if __name__ == "__main__":
    run(main)
