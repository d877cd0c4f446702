"""The two ways to install: `make .venv/installed` in a clone, and the package by pip."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import rasterio
from graph import ROOT
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from tiny_dataset import CRS, TRANSFORM, tile_pixels, write_raster

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = "9.8.7"  # of the clone
# A stand-in for a Python that `make` uses: it copies itself into .venv, and installs nothing.
STAND_IN = f"""#!/bin/sh
case "$*" in
    "-c import platform"*) echo {{version}} ;;
    "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip install "*) ;;
    *) exec "{sys.executable}" "$@" ;;
esac
"""
BROKEN = "#!/bin/sh\nexit 127\n"  # as pyenv's shim of a Python that is not switched on
NAMES = ("python3.13", "python3.12", "python3.11", "python3")  # those that `make` tries, in order


def write_script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout, installed as the Makefile does it, but for the minutes that packages take."""
    folder = tmp_path_factory.mktemp("any") / "a path's name, ü"
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "src" / "roofseg" / "version.py").write_text(f'VERSION = "{VERSION}"\n')
    write_script(folder / "python", STAND_IN.format(version="3.12.9"))
    subprocess.run(["make", "PYTHON=./python", ".venv/installed"], cwd=folder, check=True)
    return folder


def called(command: Path | str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [command, "--version"],
        cwd=cwd,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.whole
def test_it_runs_the_src_beside_it(clone: Path, tmp_path: Path) -> None:
    """Wherever it is called, whatever lies there, by whatever name, beside whatever PYTHONPATH."""
    (tmp_path / "argparse.py").write_text("raise RuntimeError")
    (tmp_path / "link").symlink_to(clone / ".venv" / "bin" / "roofseg")
    search = f"{clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for cwd, command in (
        (tmp_path, clone / ".venv" / "bin" / "roofseg"),
        (clone, Path(".venv/bin/roofseg")),
        (tmp_path, tmp_path / "link"),
        (tmp_path, "roofseg"),
    ):
        told = called(command, cwd, PATH=search, PYTHONPATH=str(ROOT / "src"))
        assert told == f"roofseg {VERSION}\n"


@pytest.mark.whole
def test_arguments_and_status_are_passed_on(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "a b.tif").touch()
    command = [clone / ".venv" / "bin" / "roofseg", "predict", "a b.tif", "--out", tmp_path / "o"]
    done = subprocess.run(
        [*command, "--model", "no such"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no such: expected a model, found nothing")


def test_a_second_time_there_is_nothing_to_do(clone: Path) -> None:
    made = [clone / ".venv" / "installed", clone / ".venv" / "bin" / "roofseg"]
    before = [path.stat().st_mtime_ns for path in made]
    subprocess.run(["make", ".venv/installed"], cwd=clone, check=True)
    assert [path.stat().st_mtime_ns for path in made] == before


def make_installed(
    tmp_path: Path, pythons: dict[str, str | None], *variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `make .venv/installed` with Pythons on the path: by name their version; None: broken."""
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for name, version in pythons.items():
        text = STAND_IN.format(version=version) if version else BROKEN
        write_script(tmp_path / "bin" / name, text)
    return subprocess.run(
        ["make", *variables, ".venv/installed"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.defpath}"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("versions", "taken"),
    [
        (["3.13.0", "3.12.1", "3.11.2", "3.12.1"], "python3.13"),
        ([None, "3.12.1", "3.11.2", "3.11.2"], "python3.12"),
        ([None, None, "3.11.2", "3.10.1"], "python3.11"),
        ([None, None, None, "3.13.0"], "python3"),
    ],
)
def test_make_takes_the_newest_python_that_runs(
    versions: list[str | None], taken: str, tmp_path: Path
) -> None:
    pythons = dict(zip(NAMES, versions, strict=True))
    done = make_installed(tmp_path, pythons)
    made = f"Making .venv with Python {pythons[taken]} ({tmp_path / 'bin' / taken})\n"
    assert done.stdout.startswith(made)
    assert (done.returncode, done.stderr) == (0, "")


def test_make_takes_the_python_that_is_named(tmp_path: Path) -> None:
    done = make_installed(tmp_path, {"python3.13": "3.13.0", "other": "3.11.2"}, "PYTHON=other")
    made = f"Making .venv with Python 3.11.2 ({tmp_path / 'bin' / 'other'})\n"
    assert done.stdout.startswith(made)


def test_make_finds_the_home_folder_in_the_name_of_a_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell may leave the ~ of PYTHON=~/python to make."""
    monkeypatch.setenv("HOME", str(tmp_path))
    done = make_installed(tmp_path, {"other": "3.11.2"}, "PYTHON=~/bin/other")
    made = f"Making .venv with Python 3.11.2 ({tmp_path / 'bin' / 'other'})\n"
    assert done.stdout.startswith(made)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        (
            [],
            "python3.13 (does not run, or has no ensurepip), python3.12 (3.9.1), "
            "python3.11 (does not run, or has no ensurepip), python3 (3.14.0)",
        ),
        (["PYTHON=python3"], "python3 (3.14.0)"),
        (["PYTHON=no such"], "no such (does not run, or has no ensurepip)"),
    ],
)
def test_without_a_python_that_serves_make_says_what_it_found(
    variables: list[str], found: str, tmp_path: Path
) -> None:
    pythons = dict(zip(NAMES, [None, "3.9.1", None, "3.14.0"], strict=True))
    done = make_installed(tmp_path, pythons, *variables)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: Python 3.11, 3.12 or 3.13 is needed; found: {found}. Install one"
    )
    assert not (tmp_path / ".venv").exists()


@pytest.fixture(scope="module")
def package(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `pip install` fills from the clone, with the package alone."""
    folder = tmp_path_factory.mktemp("package")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", folder, clone], check=True)
    return folder


@pytest.mark.whole
def test_the_package_has_all_files_of_its_source_and_no_others(clone: Path, package: Path) -> None:
    assert {path.name for path in package.iterdir()} == {
        "bin",
        "roofseg",
        f"roofseg-{VERSION}.dist-info",
    }
    installed, source = (
        {path.relative_to(folder) for path in folder.rglob("*") if path.suffix != ".pyc"}
        - {path.relative_to(folder) for path in folder.rglob("__pycache__")}
        for folder in (package / "roofseg", clone / "src" / "roofseg")
    )
    assert installed == source > {Path("pages/templates/page.html.j2"), Path("py.typed")}


@pytest.mark.whole
def test_the_package_predicts_without_a_checkout(package: Path, tmp_path: Path) -> None:
    from small_model import write_model  # imports torch, which the other tests need not wait for

    model = write_model(tmp_path / "model")
    write_raster(tmp_path / "a.tif", tile_pixels(0, 90)[0], crs=CRS, transform=TRANSFORM)
    subprocess.run(
        [package / "bin" / "roofseg", "predict", "a.tif", "--model", model, "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(package)},
        check=True,
    )
    with rasterio.open(tmp_path / "out" / "a.tif") as mask:
        assert mask.shape == (90, 90)
        assert mask.tags()["ROOFSEG_VERSION"] == VERSION  # not the code of this checkout


def pins(python: str) -> dict[str, str]:
    """The versions that requirements.lock installs here with this Python, by package."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    lines = re.findall(
        r"^([\w.-]+)==([^\s;]+)(?: ; (.*))? \\$", (ROOT / "requirements.lock").read_text(), re.M
    )
    found = [
        (name, version)
        for name, version, marker in lines
        if not marker or Marker(marker).evaluate(environment)
    ]
    assert len(found) == len(dict(found)) > 100
    return dict(found)


@pytest.mark.slow
def test_the_wheel_serves_in_an_empty_environment(clone: Path, tmp_path: Path) -> None:
    """`pip install` of the built wheel in an empty environment predicts; so do its extras.

    It takes the versions of requirements.lock, from wherever pip is set to look.
    """
    from small_model import write_model

    def run(*command: Path | str, status: int = 0) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        return " ".join(done.stderr.split())  # a message may be wrapped

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    constraints = tmp_path / "pins.txt"
    constraints.write_text("".join(f"{name}=={pin}\n" for name, pin in pins(version).items()))
    run(sys.executable, "-m", "venv", "empty")
    install = (tmp_path / "empty" / "bin" / "pip", "install", "--quiet", "-c", constraints)
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps")
    run(*build, "--no-build-isolation", "--wheel-dir", "dist", clone)
    run(*install, *(tmp_path / "dist").glob("*.whl"))

    model = write_model(tmp_path / "model")
    write_raster(tmp_path / "a.tif", tile_pixels(0, 90)[0], crs=CRS, transform=TRANSFORM)
    roofseg = tmp_path / "empty" / "bin" / "roofseg"
    predict = (roofseg, "predict", "a.tif", "--vector", "gpkg", "--model")
    run(*predict, model, "--out", "plain")
    uses = {
        "regularise": (*predict, model, "--regularise", "--out", "regular"),
        "ray": (*predict, model, "--engine", "ray", "--workers", "1", "--out", "by ray"),
        "onnx": (roofseg, "export", "--model", model, "--out", "model.onnx"),
    }
    for extra, use in uses.items():
        assert f"`pip install 'roofseg[{extra}]'`" in run(*use, status=2)
        run(*install, f"roofseg[{extra}]")
        run(*use)
    run(*predict, "model.onnx", "--out", "by onnx")
    for name in ("plain", "by ray", "by onnx"):
        with rasterio.open(tmp_path / name / "a.tif") as mask:
            assert mask.shape == (90, 90)
            assert mask.tags()["ROOFSEG_VERSION"] == VERSION


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_has_every_dependency_within_its_bounds(python: str) -> None:
    assert f"{python}.0" in SpecifierSet(PROJECT["project"]["requires-python"])
    direct = [
        *PROJECT["build-system"]["requires"],
        *PROJECT["project"]["dependencies"],
        *(text for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra),
        *PROJECT["dependency-groups"]["dev"],
    ]
    locked = pins(python)
    for requirement in map(Requirement, direct):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    assert locked == pins("3.11")  # so that the Python is all that differs


def test_the_package_declares_what_it_imports() -> None:
    """In the dependencies or in an extra; so an empty environment lacks nothing."""
    imported = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *(text for extra in extras for text in extra)]
    declared = {canonicalize_name(Requirement(text).name) for text in requirements}
    distributions = packages_distributions()
    undeclared = {
        module
        for module in imported - sys.stdlib_module_names - {"roofseg"}
        if not declared & {canonicalize_name(name) for name in distributions.get(module, [])}
    }
    assert undeclared == set()
