from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofseg.core.errors import UserError
from roofseg.results.ledger import LEDGER_COLUMNS, Look, count_looks, read_looks, record_look

LOOK = Look(
    digest="0123456789ab",
    training_inputs="1" * 64,
    weights="2" * 64,
    dataset="sample",
    test_set="3" * 64,
    time="2026-01-02T03:04:05+00:00",
    revision="4" * 40,
    experiment="",
)


def kinds(path: Path) -> list[str]:
    return [kind for kind, _ in read_looks(path)]


def test_no_look_makes_a_ledger_with_a_header(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "test_looks.csv"
    assert read_looks(path) == []
    record_look(path, None)
    assert path.read_text() == ",".join(LEDGER_COLUMNS) + "\n"
    record_look(path, None)
    assert count_looks(path, "sample") == 0


def test_the_same_weights_are_one_look(tmp_path: Path) -> None:
    path = tmp_path / "looks.csv"
    record_look(path, LOOK)
    before = path.read_bytes()
    record_look(path, replace(LOOK, time="2027-01-01T00:00:00+00:00", revision="5" * 40))
    assert path.read_bytes() == before
    assert read_looks(path) == [("looked", LOOK)]


def test_the_same_recipe_trained_again_is_listed_and_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "looks.csv"
    record_look(path, LOOK)
    record_look(path, replace(LOOK, weights="6" * 64))
    assert kinds(path) == ["looked", "reproduced"]
    assert count_looks(path, "sample") == 1


def test_another_recipe_or_test_set_is_another_look(tmp_path: Path) -> None:
    path = tmp_path / "looks.csv"
    record_look(path, LOOK)
    record_look(path, replace(LOOK, digest="ba9876543210", weights="6" * 64))
    record_look(path, replace(LOOK, test_set="7" * 64))
    assert kinds(path) == ["looked"] * 3
    assert count_looks(path, "sample") == 3


def test_looks_are_counted_by_dataset(tmp_path: Path) -> None:
    path = tmp_path / "looks.csv"
    record_look(path, LOOK)
    record_look(path, replace(LOOK, dataset="oslo", test_set="7" * 64))
    assert (count_looks(path, "sample"), count_looks(path, "oslo")) == (1, 1)


def test_a_look_that_a_merge_lists_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "looks.csv"
    record_look(path, LOOK)
    other = tmp_path / "other.csv"
    record_look(other, replace(LOOK, weights="6" * 64))
    path.write_text(path.read_text() + other.read_text().splitlines()[1] + "\n")
    assert kinds(path) == ["looked", "looked"]
    assert count_looks(path, "sample") == 1


def test_a_dataset_by_another_name_keeps_its_looks(tmp_path: Path) -> None:
    path = tmp_path / "looks.csv"
    record_look(path, LOOK)
    record_look(path, replace(LOOK, digest="ba9876543210", weights="6" * 64, dataset="renamed"))
    assert (count_looks(path, "sample"), count_looks(path, "renamed")) == (2, 2)


def test_missing_known_lines_are_restored(tmp_path: Path) -> None:
    path = tmp_path / "looks.csv"
    later = replace(LOOK, digest="ba9876543210")
    record_look(path, later)
    record_look(path, None, known=[("looked", LOOK), ("looked", later)])
    assert read_looks(path) == [("looked", LOOK), ("looked", later)]


short = st.sampled_from("abc")


@given(st.lists(st.tuples(short, short, short), max_size=12))
def test_the_ledger_only_grows_and_counts_recipes_by_test_set(
    tmp_path_factory: pytest.TempPathFactory, scored: list[tuple[str, str, str]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "looks.csv"
    text = ""
    for digest, test_set, weights in scored:
        record_look(path, replace(LOOK, digest=digest, test_set=test_set, weights=weights))
        assert path.read_text().startswith(text)
        text = path.read_text()
    assert len(read_looks(path)) == len(set(scored))
    assert count_looks(path, "sample") == len({(digest, test) for digest, test, _ in scored})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "look,digest\n",
        "<<<<<<< HEAD\n" + ",".join(LEDGER_COLUMNS) + "\n",
        ",".join(LEDGER_COLUMNS) + "\nlooked,1,2\n",
        ",".join(LEDGER_COLUMNS) + "\npeeked" + ",x" * (len(LEDGER_COLUMNS) - 1) + "\n",
    ],
)
def test_a_file_that_is_no_ledger_is_named_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "looks.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"looks\.csv: not a ledger"):
        record_look(path, LOOK)
    assert path.read_text() == text
