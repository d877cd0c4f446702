from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofseg.core.errors import UserError
from roofseg.core.files import (
    atomic_write,
    flush,
    read_json,
    read_rows,
    remove_scratch,
    sha256_file,
    write_json,
    write_rows,
    write_text,
)


def inside(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# atomic_write


def test_a_file_replaces_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "some" / "folder" / "a.txt"
    for text in ("old", "new"):
        with atomic_write(path) as scratch:
            scratch.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert inside(tmp_path) == ["some", "some/folder", "some/folder/a.txt"]


def test_a_folder_replaces_the_old_one_with_its_files(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for name in ("old", "new"):
        with atomic_write(path) as scratch:
            (scratch / name).mkdir(parents=True)
            (scratch / name / "file").write_text(name)
        assert inside(tmp_path) == ["out", f"out/{name}", f"out/{name}/file"]


@pytest.mark.parametrize("before", ["file", "folder", None])
def test_an_error_leaves_the_old_file_or_folder(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "out"
    if before == "file":
        path.write_text("old")
    elif before == "folder":
        path.mkdir()
        (path / "old").write_text("old")
    kept = inside(tmp_path)

    def fail() -> None:
        with atomic_write(path) as scratch:
            scratch.mkdir()
            (scratch / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert inside(tmp_path) == kept


def test_a_block_that_writes_nothing_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    assert inside(tmp_path) == ["out"]


def test_a_folder_becomes_a_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for folder in (True, False, True):
        with atomic_write(path) as scratch:
            scratch.mkdir() if folder else scratch.write_text("")
        assert path.is_dir() == folder
    assert inside(tmp_path) == ["out"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    # DVC may link outputs to its cache, and files in the cache must not change.
    cache, path = tmp_path / "cache", tmp_path / "out"
    cache.mkdir()
    (cache / "old").write_text("old")
    path.symlink_to(cache, target_is_directory=True)
    with atomic_write(path) as scratch:
        scratch.mkdir()
    assert not path.is_symlink()
    assert inside(tmp_path) == ["cache", "cache/old", "out"]


@pytest.fixture
def fsynced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files and folders that are flushed to the disk, in order."""
    paths: list[Path] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return paths


@pytest.mark.skipif(sys.platform != "linux", reason="names of descriptors are looked up in /proc")
def test_flush_reaches_every_file_and_folder_and_nothing_else(
    tmp_path: Path, fsynced: list[Path]
) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    files = [tmp_path / "out" / "deep" / "a", tmp_path / "out" / "b"]
    for file in (*files, tmp_path / "other"):
        file.write_text("x")
    flush(tmp_path / "out")
    folders = [tmp_path, tmp_path / "out", tmp_path / "out" / "deep"]
    assert sorted(fsynced) == sorted([*files, *folders])


@pytest.mark.skipif(sys.platform != "linux", reason="names of descriptors are looked up in /proc")
def test_a_durable_write_flushes_the_bytes_before_the_name(
    tmp_path: Path, fsynced: list[Path]
) -> None:
    with atomic_write(tmp_path / "a", durable=True) as scratch:
        scratch.write_text("x")
    assert fsynced[0] == scratch
    assert fsynced[-1] == tmp_path
    fsynced.clear()
    with atomic_write(tmp_path / "a") as scratch:
        scratch.write_text("x")
    assert fsynced == []


def test_the_scratch_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "model") as scratch:
        scratch.mkdir()
        (scratch.parent / "half").write_text("written")
        scratch.parent.rename(tmp_path / ".model.abcd_123")  # as if the block had never ended
        scratch.mkdir(parents=True)
    others = [".model.v2.abcd_123", ".models.abcd_123"]
    for name in others:
        (tmp_path / name).mkdir()
    remove_scratch(tmp_path / "model")
    assert inside(tmp_path) == [*others, "model"]


# Text and JSON


def test_text_is_written_as_given(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "ä\r\n\nb")
    assert (tmp_path / "a").read_bytes() == "ä\r\n\nb".encode()


def test_json_keeps_keys_in_order_and_floats_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 0.1, "a": [1, None], "ü": 1e-05})
    assert path.read_text() == (
        '{\n  "b": 0.1,\n  "a": [\n    1,\n    null\n  ],\n  "ü": 1e-05\n}\n'
    )


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False).filter(math.isfinite),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(VALUES)
def test_json_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_nan_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"iou": math.nan})
    assert read_json(path) == 1
    assert inside(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_json_that_is_missing_or_broken_is_an_error(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    assert "dvc repro" in str(caught.value)


def test_sha256_file_hashes_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"tile": "a,b", "note": 'line\nbreak "quoted"'}, {"tile": "", "note": "é"}]
    write_rows(tmp_path / "t.csv", ["tile", "note"], (row.values() for row in rows))
    assert read_rows(tmp_path / "t.csv", ["tile", "note"], "Make it.") == rows


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "expected a table with the columns tile,note"),
        (b"tile,other\na,b\n", "expected a table"),
        (b"tile,note\na\n", "expected a table"),
        (b'tile,note\n"a,b\n', "expected a table"),
        (b"tile,note\n\xff,b\n", "expected a table"),
    ],
)
def test_another_table_is_an_error(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path}: {says}.*\. Make it\.$"):
        read_rows(path, ["tile", "note"], "Make it.")
