"""Train every attempt of params.yaml, several at a time.

Brings patches and priors up to date, then runs `dvc repro --single-item train@ATTEMPT` for each
attempt. Each line of output begins with the name of its attempt. Afterwards, `dvc repro` evaluates
the models.

A failed attempt does not stop the others; an error at the end names those that failed. After a
stop, the same command continues.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from contextlib import suppress

from roofseg.commands.arguments import count
from roofseg.commands.project import PARAMS, dvc_command, stage_environment
from roofseg.core.errors import StoppedError, UserError
from roofseg.core.signals import stop_signals
from roofseg.recipe.parsing import read_params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jobs",
        type=count,
        metavar="N",
        help="attempts to train at a time (default: one per GPU, or 1 without GPUs)",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="accept missing data if dvc.lock describes it, as `dvc repro --allow-missing` does",
    )


def main(args: argparse.Namespace) -> None:
    params = read_params(PARAMS)
    priors = {name: params.priors.stage(params.recipe(name).prior) for name in params.attempts}
    options = ["--allow-missing"] if args.allow_missing else []
    jobs = args.jobs
    if jobs is None:
        import torch  # takes seconds: a misspelt key in params.yaml must not wait for it

        jobs = torch.cuda.device_count() or 1
    failed = asyncio.run(Jobs(jobs, options).train(priors))
    if failed:
        raise UserError(f"failed: {', '.join(failed)}; see the lines that begin with these names")
    print("All attempts are trained. `dvc repro` evaluates them.")


class Jobs:
    """Runs up to ``count`` processes of `dvc repro` at a time; after a signal, stops all of them.

    DVC writes dvc.lock while it holds the project's lock, which it releases while a stage runs. A
    process waits for that lock instead of giving up after 3 seconds, so dvc.lock gets all attempts.
    """

    def __init__(self, count: int, options: list[str]) -> None:
        self.slots, self.options = asyncio.Semaphore(count), options
        self.running: set[Process] = set()
        self.signal: int | None = None

    async def train(self, priors: dict[str, str]) -> list[str]:
        """Train attempts; return the names of those that failed.

        ``priors`` maps each attempt's name to the stage of weights/dvc.yaml that makes its prior.
        Returns ``["inputs"]`` if the inputs of training (patches and priors) cannot be made. Raises
        StoppedError after a signal.
        """
        for number in stop_signals():
            asyncio.get_running_loop().add_signal_handler(number, self.stop, number)
        weights = (f"weights/dvc.yaml:{prior}" for prior in sorted(set(priors.values())))
        failed = ["inputs"] if await self.repro("inputs", "make_patches", *weights) else []
        if not failed:
            trained = await asyncio.gather(*(self.repro(n, "-s", f"train@{n}") for n in priors))
            failed = [name for name, status in zip(priors, trained, strict=True) if status]
        if self.signal:
            name = signal.Signals(self.signal).name
            raise StoppedError(
                f"stopped by {name}; run the same command again to continue", 128 + self.signal
            )
        return failed

    async def repro(self, name: str, *targets: str) -> int:
        """Run `dvc repro`, print its output with ``name`` before each line; return its status."""
        async with self.slots:
            if self.signal:
                return 0
            process = await asyncio.create_subprocess_exec(
                *dvc_command("--wait-for-lock", "repro", *self.options, *targets),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                limit=2**24,  # longest line in bytes; asyncio raises for a longer one
                env=stage_environment(),
                # In its own process group: Ctrl-C in the terminal does not reach it, `stop` does.
                start_new_session=True,
            )
            self.running.add(process)
            if self.signal:  # received while the process started
                self.stop(self.signal)
            assert process.stdout
            async for line in process.stdout:
                print(f"{name} | {line.decode(errors='replace').rstrip()}", flush=True)
            self.running.remove(process)
            return await process.wait()

    def stop(self, number: int) -> None:
        """Send SIGINT to all processes: DVC then waits for its stage to end, unlike on SIGTERM."""
        self.signal = self.signal or number
        for process in self.running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
