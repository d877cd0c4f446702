"""Errors of the system are explained by errno and file, with a remedy that fits."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from graph import ROOT
from hypothesis import given
from hypothesis import strategies as st
from processes import started
from unwritable import full_disk, read_only_folder

from roofseg.core.errors import FEWER_WORKERS, REMEDIES, UserError, explain_system_error
from roofseg.core.files import atomic_write, write_text


def explained(error: OSError) -> str:
    message = explain_system_error(error)
    assert isinstance(message, UserError)
    return str(message)


@given(st.sampled_from(sorted(errno.errorcode)))
def test_an_errno_with_a_remedy_is_explained_and_any_other_is_not(number: int) -> None:
    error = OSError(number, os.strerror(number), "some/file")
    if number in REMEDIES:
        fewer = ", or lower `workers` in params.yaml" if number in FEWER_WORKERS else ""
        message = f"some/file: {os.strerror(number)}. {REMEDIES[number]}{fewer}, then run"
        assert explained(error).startswith(message)
    else:
        assert explain_system_error(error) is None


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOMEM, "memory: Cannot allocate memory. Free memory, or lower `workers`"),
        (errno.EMFILE, "open files of this process: Too many open files. Raise the limit"),
        (
            errno.ENFILE,
            "open files of this machine: Too many open files in system. Close other programs",
        ),
        (errno.EAGAIN, "processes of this user: Resource temporarily unavailable. Raise the limit"),
        (errno.EPIPE, "output: Broken pipe. Let the program that reads the output run on"),
        (errno.ENOSPC, "a file: No space left on device. Free space"),
    ],
)
def test_an_error_without_a_file_names_the_resource(number: int, says: str) -> None:
    assert explained(OSError(number, os.strerror(number))).startswith(says)


def test_an_error_without_an_errno_is_not_explained() -> None:
    assert explain_system_error(OSError("cannot load a library")) is None


def test_a_full_disk_names_the_file_that_was_written(tmp_path: Path) -> None:
    with full_disk(10), pytest.raises(OSError, match="File too large") as caught:
        write_text(tmp_path / "large.txt", "x" * 100)
    assert explained(caught.value).startswith(
        f"{tmp_path / 'large.txt'}: File too large. Raise the limit on file sizes"
    )


def test_atomic_write_names_the_file_only_if_the_disk_is_full(
    tmp_path: Path,
) -> None:
    with pytest.raises(OSError, match="memory") as caught, atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    assert caught.value.filename is None


def test_permission_denied_names_the_file() -> None:
    with read_only_folder() as folder:
        with pytest.raises(PermissionError) as caught:
            (folder / "new").write_text("")
        assert explained(caught.value).startswith(f"{folder / 'new'}: Permission denied. Change")


def test_too_many_open_files_names_the_file(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    (tmp_path / "patch").touch()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many") as caught:
            (tmp_path / "patch").read_bytes()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "patch: Too many open files. Raise the limit (`ulimit -n`)" in explained(caught.value)


def test_a_closed_output_is_one_line_and_status_2() -> None:
    """The reader of the output ends first, as in `python -m stages.train | head -1`."""
    code = (
        "import stages\ndef main():\n    while True: print('epoch', flush=True)\nstages.run(main)"
    )
    command = [sys.executable, "-c", code]
    with started(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error.count("\n")) == (2, 1)
    assert error.startswith("error: output: Broken pipe. ")
