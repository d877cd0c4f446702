"""Predict with many processes, on one machine or a cluster: Ray actors, each with its own model.

Reading, blending and writing stay in the process that runs `mapping.predict`. Only batches of
windows are sent to workers. They are the same batches as without Ray, so the result is
byte-identical if the workers compute as the local process would (same device and threads).

A queue of `BATCHES_PER_WORKER` batches per worker keeps the order, bounds the memory and keeps
workers busy. Ray Data would cut its own batches, which changes the last bits of a result, and
`ray.util.ActorPool` would either submit a whole raster at once or leave workers idle.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import socket
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from roofseg.core.errors import UserError
from roofseg.inference.predictor import (
    D4,
    Backend,
    Device,
    Images,
    Precision,
    Predictor,
    Probabilities,
)
from roofseg.mapping.load_model import load_predictors

BATCHES_PER_WORKER = 2  # one that it computes, and the next one in transit
RETRIES = 3  # of a batch whose worker died; without a limit, a batch could kill workers for ever
CONNECT_S = 10  # for the head of a cluster to take a connection
# Environment variables that Ray reads at its first import, in this process and in its own.
ALWAYS = {"RAY_USAGE_STATS_ENABLED": "0"}
LOCAL = {
    # Despite its name it works on all systems: 0 makes nodes listen on loopback only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Every user of the machine can reach loopback, so require a token instead of that in ~/.ray.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


class WorkersLostError(UserError):
    """A batch failed after all retries, or the cluster is gone. Further rasters would fail, too."""


class Worker:
    """A model in its own process, with ``threads`` CPU threads. For the arguments see `workers`."""

    def __init__(
        self,
        models: Sequence[Path],
        disagreement: bool,
        device: Device,
        precision: Precision,
        tta: bool,
        threads: int | None,
        backend: Backend = "torch",
    ) -> None:
        self._load = partial(
            load_predictors,
            models,
            disagreement=disagreement,
            device=device,
            precision=precision,
            threads=threads,
            backend=backend,
        )
        self._tta = tta

    @cached_property
    def predictor(self) -> Predictor:
        """The model, loaded at first use: Ray reports an error in ``__init__`` as a dead worker."""
        return D4(self._load()) if self._tta else self._load()

    def about(self) -> tuple[int, tuple[float, ...], dict[str, str]]:
        """The predictor's window, GSDs and provenance."""
        return self.predictor.window, self.predictor.gsd, self.predictor.provenance

    def predict(self, images: Images) -> Probabilities:
        """See `roofseg.inference.predictor.Predictor`."""
        return self.predictor(images.copy())  # torch warns about Ray's read-only arrays


class Workers:
    """Workers with the same model: an `inference.predictor.Predictor` that also runs many batches.

    Args:
        ray: the module ray, connected to a cluster
        actors: Ray actors of `Worker`, at least one

    Raises:
        UserError: the model cannot be loaded, or differs between workers
    """

    def __init__(self, ray: Any, actors: Sequence[Any]) -> None:
        self.actors = actors
        self._ray = ray
        first, *others = map(self._get, [actor.about.remote() for actor in actors])
        for other in others:
            if other != first:
                raise UserError(
                    f"--engine ray: workers differ in their models: {first} and {other}. The model "
                    "must be the same file on every machine; where they have different devices, "
                    "set --precision."
                )
        self.window, self.gsd, self.provenance = first

    def __call__(self, images: Images) -> Probabilities:
        """See `inference.predictor.Predictor`; one batch runs on one worker."""
        (probabilities,) = self.infer(iter([images]))
        return probabilities

    def infer(self, batches: Iterator[Images]) -> Generator[Probabilities, None, None]:
        """Predict batches on all workers: a `roofseg.sliding_window.blocks.Infer`.

        Holds at most ``BATCHES_PER_WORKER * len(actors)`` batches. A worker that dies is started
        again, and its batches are repeated.

        Raises:
            UserError: raised by the model on a worker
            WorkersLostError: a batch failed after all retries
        """
        waiting: deque[Any] = deque()
        for actor, batch in zip(cycle(self.actors), batches, strict=False):
            waiting.append(actor.predict.remote(batch))
            if len(waiting) == BATCHES_PER_WORKER * len(self.actors):
                yield self._get(waiting.popleft())
        while waiting:
            yield self._get(waiting.popleft())

    def _get(self, result: Any) -> Any:
        try:
            return self._ray.get(result)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(f"a Ray worker: {error.cause}") from None
            raise
        except self._ray.exceptions.RayError as error:
            raise WorkersLostError(
                f"--engine ray: a batch failed {RETRIES + 1} times, or the cluster is "
                f"gone. Workers that run out of memory need a smaller --batch-size or fewer "
                f"--workers. Run the same command again to continue. Ray says: {error}"
            ) from None


@contextmanager
def workers(
    models: Sequence[Path],
    count: int | None = None,
    *,
    address: str | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tta: bool = False,
    disagreement: bool = False,
    backend: Backend = "torch",
) -> Iterator[Workers]:
    """Start workers that stop at the end of the block. Call it in the main thread.

    Args:
        models, disagreement: see `roofseg.mapping.load_model.load_predictors`; every machine must
            have the models at these paths.
        count: number of workers; None for one per GPU, or one per machine if there are no GPUs.
        address: address of a Ray cluster (``HOST:PORT``, or ``auto`` on one of its machines), on
            which roofseg is installed; None starts Ray on this machine, reachable only from it.
        device: "cpu", or "cuda" with a GPU for each worker; "auto" means "cuda" if the cluster has
            GPUs.
        precision, backend: see `roofseg.mapping.load_model.load_predictor`.
        tta: average over the eight symmetries of the square.

    Raises:
        UserError: Ray is not installed, the cluster does not answer or is too small for ``count``,
            or the model cannot be loaded
    """
    with connected(address) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        number, share = plan_workers(nodes, count, device)
        actor = ray.remote(
            max_restarts=-1, max_task_retries=RETRIES, scheduling_strategy="SPREAD", **share
        )(Worker)
        # Ray limits torch's threads to num_cpus, but not onnxruntime's.
        places = [model.absolute() for model in models]
        arguments = places, disagreement, device, precision, tta, share.get("num_cpus"), backend
        yield Workers(ray, [actor.remote(*arguments) for _ in range(number)])


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Connect to Ray and yield the module ray; for ``address`` and errors see `workers`."""
    os.environ.update(ALWAYS)
    if address is None:
        for name, value in LOCAL.items():
            os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError(
            "--engine ray: the package ray is not installed. Install it with `pip install "
            "'roofseg[ray]'`, or leave the option out."
        ) from None
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            _check_answers(address)
        ray.init(address or "local", include_dashboard=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        option = f"--address {address}" if address else "--engine ray"
        raise UserError(
            f"{option}: Ray cannot be reached or started; expected HOST:PORT of a cluster's head, "
            f"as `ray start --head` prints it. Ray says: {error}"
        ) from None
    finally:
        # Restore the handler: Ray sets its own, which exits with status 15.
        signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise OSError at once if nothing listens at ``HOST:PORT``; Ray would try for two minutes."""
    place = urlsplit(f"//{address.rpartition('//')[2]}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=CONNECT_S).close()


def plan_workers(
    nodes: Sequence[Mapping[str, float]], count: int | None, device: Device
) -> tuple[int, dict[str, int]]:
    """Decide how many workers to start, and what each takes of its machine.

    Args:
        nodes: the numbers of "CPU" and "GPU" of each machine
        count, device: see `workers`

    Returns:
        The number of workers, and ``{"num_gpus": 1}`` or ``{"num_cpus": N}``, with N such that
        every machine can hold its part of the workers. N is also the number of threads of a worker.

    Raises:
        UserError: the cluster has too few GPUs or CPUs
    """
    gpus = any(node.get("GPU") for node in nodes)
    kind = "GPU" if device == "cuda" or (device == "auto" and gpus) else "CPU"
    available = [int(node[kind]) for node in nodes if node.get(kind)]
    if not available:
        raise UserError(f"--device {device}: the cluster has no {kind}. Use --device cpu.")
    count = count or (sum(available) if kind == "GPU" else len(available))
    if count > sum(available):
        raise UserError(
            f"--workers {count}: the cluster has {sum(available)} {kind}s, and each worker takes "
            "at least one. Use fewer workers, or leave the option out."
        )
    if kind == "GPU":
        return count, {"num_gpus": 1}
    return count, {"num_cpus": max(1, min(available) // math.ceil(count / len(available)))}
