from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from roofseg.core.run_states import (
    finished_states,
    is_finished,
    is_locked,
    lock_file,
    mark_finished,
    remove_state,
    remove_states_of,
)


def state(root: Path, name: str, model_sha256: str | None = None) -> Path:
    """Make a state folder; mark it as finished if ``model_sha256`` is given."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_bytes(b"a checkpoint")
    if model_sha256 is not None:
        with FileLock(lock_file(folder)):  # as the caller of mark_finished must
            mark_finished(folder, model_sha256)
    return folder


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def test_marking_a_state_finished_keeps_its_files(tmp_path: Path) -> None:
    assert not is_finished(state(tmp_path, "small@0"))
    folder = state(tmp_path, "small@1", "abc")
    assert is_finished(folder)
    assert (folder / "last.ckpt").exists()


def test_a_run_that_finishes_removes_only_finished_states_of_its_attempt(
    tmp_path: Path,
) -> None:
    state(tmp_path, "small@1", "a")
    state(tmp_path, "small@2")  # unfinished: someone may resume it
    state(tmp_path, "small-er@1", "a")
    state(tmp_path, "small@3", "a")
    assert names(tmp_path) == ["small-er@1", "small@2", "small@3"]
    assert finished_states(tmp_path, "small") == [tmp_path / "small@3"]


def test_the_states_of_a_model_are_removed_with_their_locks(tmp_path: Path) -> None:
    state(tmp_path, "small@1", "loaded")
    state(tmp_path, "small@2")
    state(tmp_path, "smaller@1", "loaded")
    remove_states_of("loaded", tmp_path, "small")
    assert names(tmp_path) == ["small@2", "smaller@1"]
    assert [path.name for path in tmp_path.glob("*.lock")] == ["smaller@1.lock"]
    remove_states_of("loaded", tmp_path / "missing", "small")


def test_the_state_of_another_model_stays(tmp_path: Path) -> None:
    state(tmp_path, "small@1", "retrained since")
    remove_states_of("loaded", tmp_path, "small")
    assert names(tmp_path) == ["small@1"]


def test_a_locked_state_is_not_removed(tmp_path: Path) -> None:
    folder = state(tmp_path, "small@1", "loaded")
    assert not is_locked(folder)
    with FileLock(lock_file(folder)):
        assert is_locked(folder)
        remove_states_of("loaded", tmp_path, "small")
        state(tmp_path, "small@2", "another")
    assert names(tmp_path) == ["small@1", "small@2"]


def test_a_state_with_a_broken_mark_stays_and_raises_no_error(tmp_path: Path) -> None:
    folder = state(tmp_path, "small@1", "loaded")
    (folder / "finished.json").write_text("{")
    remove_states_of("loaded", tmp_path, "small")
    assert names(tmp_path) == ["small@1"]


def test_a_state_is_removed_after_an_interrupted_removal(tmp_path: Path) -> None:
    state(tmp_path, ".small@1")  # left by an interrupted removal
    folder = state(tmp_path, "small@1")
    remove_state(folder)
    assert list(tmp_path.iterdir()) == []
