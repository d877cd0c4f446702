"""Ray's workers give the same bytes as the local engine, even if a worker dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from graph import ROOT
from identity import picture
from onnx_files import TAGS, WINDOW, write_model
from processes import started, wait_until
from raster_files import write_huge_raster
from tiny_dataset import CRS, TRANSFORM, write_raster

from roofseg import cli
from roofseg.core.errors import UserError
from roofseg.inference.predictor import D4, Images
from roofseg.mapping.load_model import load_predictor
from roofseg.mapping.predict import Options, predict_raster
from roofseg.mapping.ray_workers import (
    BATCHES_PER_WORKER,
    Worker,
    Workers,
    connected,
    plan_workers,
    workers,
)
from roofseg.sliding_window.blocks import count_windows
from roofseg.sliding_window.imagery import open_imagery

GEO = {"crs": CRS, "transform": TRANSFORM}
OPTIONS = Options(output="probability", batch_size=3)
SOURCES = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "grey.onnx")


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "tile.tif"
    write_raster(path, picture(90, 130), **GEO)
    return path


@pytest.fixture(scope="module")
def pool(model: Path) -> Iterator[Workers]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SOURCES)
        with workers([model], 2, device="cpu") as started:
            yield started


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Restore the signal handlers that `cli.main` sets."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def processes(pool: Workers) -> list[int]:
    """The id of each worker's process."""
    import ray

    return ray.get([actor.__ray_call__.remote(lambda self: os.getpid()) for actor in pool.actors])


@pytest.mark.whole
class TestOnALocalRay:
    def test_workers_describe_their_model(self, pool: Workers) -> None:
        assert (pool.window, pool.gsd) == (WINDOW, (0.3, 0.6))
        assert pool.provenance == {**TAGS, "ROOFSEG_PRECISION": "32-true"}
        assert len(set(processes(pool))) == 2

    def test_workers_share_the_machines_cores(self, pool: Workers) -> None:
        """By default, onnxruntime takes all cores."""
        import ray

        def threads(worker: Any) -> int:
            return worker.predictor.session.get_session_options().intra_op_num_threads

        cores = int(ray.cluster_resources()["CPU"])
        told = ray.get([actor.__ray_call__.remote(threads) for actor in pool.actors])
        assert told == [cores // 2] * 2

    def test_a_worker_killed_midway_changes_nothing(
        self, pool: Workers, model: Path, tile: Path, tmp_path: Path
    ) -> None:
        predict_raster(load_predictor(model), str(tile), tmp_path / "local.tif", OPTIONS)
        before = processes(pool)
        with open_imagery(str(tile)) as imagery:
            windows = count_windows(imagery, WINDOW)
        done = killed = 0

        def kill(more: int) -> None:
            nonlocal done, killed
            done += more
            if not killed and done > windows / 2:
                killed = before[0]
                os.kill(killed, signal.SIGKILL)

        predict_raster(
            pool, str(tile), tmp_path / "ray.tif", OPTIONS, infer=pool.infer, progress=kill
        )
        after = processes(pool)
        assert killed not in after
        assert after[1] == before[1]
        assert (tmp_path / "ray.tif").read_bytes() == (tmp_path / "local.tif").read_bytes()

    def test_batches_come_back_in_order_and_few_are_held(self, pool: Workers, model: Path) -> None:
        rng = np.random.default_rng(0)
        sent = [rng.integers(0, 256, (n, WINDOW, WINDOW, 3), np.uint8) for n in range(1, 30)]
        ahead = 0
        most = 0

        def batches() -> Iterator[Images]:
            nonlocal ahead, most
            for batch in sent:
                ahead += 1
                most = max(most, ahead)
                yield batch

        local = load_predictor(model)
        for batch, found in zip(sent, pool.infer(batches()), strict=True):
            ahead -= 1
            np.testing.assert_array_equal(found, local(batch))
        assert most == BATCHES_PER_WORKER * 2
        np.testing.assert_array_equal(pool(sent[3]), local(sent[3]))

    def test_nothing_listens_beyond_loopback(self, pool: Workers) -> None:
        family = psutil.Process().children(recursive=True)
        heard = [
            connection.laddr.ip
            for process in [psutil.Process(), *family]
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert heard
        assert set(heard) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

    def test_a_model_that_a_worker_cannot_load_is_named(self, pool: Workers) -> None:
        import ray

        start = ray.remote(num_cpus=0)(Worker).remote
        lost = start([Path("/none")], False, "cpu", "auto", False, 1)
        with pytest.raises(UserError, match=r"^a Ray worker: /none: expected a model, found noth"):
            Workers(ray, [lost])

    def test_models_that_differ_are_refused(self, pool: Workers, tmp_path: Path) -> None:
        import ray

        other = write_model(tmp_path / "other.onnx", {"roofseg_window": "8", "roofseg_gsd": "[1]"})
        start = ray.remote(num_cpus=0)(Worker).remote
        with pytest.raises(UserError, match=r"workers differ in their models: \(8, \(0\.3, 0\.6"):
            Workers(ray, [pool.actors[0], start([other], False, "cpu", "auto", False, 1)])


@pytest.mark.whole
class TestCommand:
    """Each command runs in its own process, where it starts and ends Ray itself."""

    def command(self, *arguments: object) -> AbstractContextManager[subprocess.Popen[str]]:
        return started(
            [sys.executable, "-m", "roofseg", "predict", *arguments],
            env={**os.environ, "PYTHONPATH": SOURCES},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def test_outputs_equal_those_of_the_local_engine(self, model: Path, tmp_path: Path) -> None:
        for seed in range(3):
            write_raster(tmp_path / "in" / f"{seed}.tif", picture(40, 50 + seed, seed), **GEO)
        common = ("--model", model, tmp_path / "in", "--device", "cpu", "--tta", "--probability")
        written = []
        for more in ((), ("--engine", "ray", "--workers", 2)):
            out = tmp_path / f"maps{len(written)}"
            with self.command(*common, *more, "--out", out) as running:
                said = running.communicate()[1]
            assert running.returncode == 0, said
            written.append([path.read_bytes() for path in sorted(out.iterdir())])
        assert written[0] == written[1]
        assert len(written[0]) == 3

    def test_stopping_the_command_ends_its_workers(self, model: Path, tmp_path: Path) -> None:
        write_huge_raster(tmp_path / "in" / "a.tif")
        out = tmp_path / "maps"
        common = ("--model", model, tmp_path / "in", "--device", "cpu", "--batch-size", 1)
        with self.command(*common, "--engine", "ray", "--workers", 2, "--out", out) as running:
            # until the output is being written
            wait_until(lambda: list(out.glob(".a.tif*")), lambda: running.poll() is None)
            family = psutil.Process(running.pid).children(recursive=True)
            running.send_signal(signal.SIGTERM)
            said = running.communicate()[1]
        assert running.returncode == 143
        assert "run the same command again" in said
        assert list(out.iterdir()) == []
        assert family
        psutil.wait_procs(family)


@pytest.mark.parametrize(
    ("nodes", "count", "device", "expected"),
    [
        ([{"CPU": 8}], None, "auto", (1, {"num_cpus": 8})),
        ([{"CPU": 8}], 2, "cpu", (2, {"num_cpus": 4})),
        ([{"CPU": 8}, {"CPU": 8}], 5, "cpu", (5, {"num_cpus": 2})),
        ([{"CPU": 8}, {"CPU": 2}], None, "auto", (2, {"num_cpus": 2})),
        ([{"CPU": 8}, {"CPU": 1}], 9, "auto", (9, {"num_cpus": 1})),
        ([{"CPU": 8, "GPU": 4}, {"CPU": 8}], None, "auto", (4, {"num_gpus": 1})),
        ([{"CPU": 8, "GPU": 4}, {"CPU": 8}], 3, "cuda", (3, {"num_gpus": 1})),
        ([{"CPU": 8, "GPU": 4}, {}], None, "cpu", (1, {"num_cpus": 8})),
    ],
)
def test_the_plan_of_workers(
    nodes: list[dict[str, float]], count: int | None, device: Any, expected: Any
) -> None:
    found, share = plan_workers(nodes, count, device)
    assert (found, share) == expected
    kind, each = "GPU" if "num_gpus" in share else "CPU", max(share.values())
    assert sum(node.get(kind, 0) // each for node in nodes) >= found  # all can start


@pytest.mark.parametrize(
    ("nodes", "count", "device", "message"),
    [
        ([{"CPU": 2}], 3, "auto", "--workers 3: the cluster has 2 CPUs"),
        ([{"CPU": 8, "GPU": 1}], 2, "auto", "--workers 2: the cluster has 1 GPUs"),
        ([{"CPU": 2}], None, "cuda", "--device cuda: the cluster has no GPU"),
    ],
)
def test_a_cluster_that_is_too_small(
    nodes: list[dict[str, float]], count: int | None, device: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_workers(nodes, count, device)


def test_workers_apply_test_time_augmentation(model: Path) -> None:
    assert isinstance(Worker([model], False, "cpu", "auto", True, None).predictor, D4)
    assert not isinstance(Worker([model], False, "cpu", "auto", False, None).predictor, D4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "ray"), "error: --engine ray: the package ray is not installed. Install it"),
        (("--workers", "2"), "error: --workers: needs --engine ray"),
        (("--address", "head:6379"), "error: --address: needs --engine ray"),
        (("--engine", "ray", "--workers", "0"), "--workers: found '0', expected a positive whole"),
        (("--engine", "dask"), "--engine: invalid choice: 'dask'"),
    ],
)
def test_wrong_options(
    model: Path,
    tile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    common = ["predict", str(tile), "--model", str(model), "--out", str(tmp_path / "maps")]
    with pytest.raises(SystemExit, match="2"):
        cli.main([*common, *arguments])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    "address",
    ["nowhere", "127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "127.0.0.1:port"],
)
def test_an_address_without_a_cluster(address: str) -> None:
    with (
        pytest.raises(UserError, match=f"^--address {re.escape(address)}: Ray cannot be reached"),
        connected(address),
    ):
        pass
