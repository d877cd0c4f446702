"""Archives from elsewhere: one member, whole and alone, or a message and nothing."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import multivolumefile
import py7zr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofseg.core.errors import UserError
from roofseg.inria.archives import (
    Limit,
    extract_7z,
    extract_zipped,
    find_member,
    open_zip,
    require_space,
)

LIMIT = Limit(1_000_000, "--max-tile-mb")
CONTENT = bytes(range(256)) * 20
OTHER = b"another tile"
MEMBERS = {"set/train/images/a1.tif": CONTENT, "set/train/images/a11.tif": OTHER}
ENDING = "train/images/a1.tif"
OUTSIDE = [
    "../evil.tif",
    "set/../../evil.tif",
    "/tmp/evil.tif",
    "..\\evil.tif",
    "C:\\evil.tif",
    "C:evil.tif",
    "\\\\host\\share\\evil.tif",
]


def write_zip(path: Path, members: dict[str, bytes], link: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            kind = stat.S_IFLNK if name == link else stat.S_IFREG
            member.external_attr = (kind | 0o644) << 16
            archive.writestr(member, content)
    return path


def write_7z(path: Path, members: dict[str, bytes]) -> Path:
    with py7zr.SevenZipFile(path, "w") as archive:
        for name, content in members.items():
            # Not the public way: that one refuses to write a name that leads out.
            archive._writestr(content, name)
    return path


def split(path: Path, sizes: int) -> Path:
    """Cut a file into parts of ``sizes`` bytes, NAME.001 and so on; gives the first."""
    content = path.read_bytes()
    for number, start in enumerate(range(0, len(content), sizes), start=1):
        path.with_name(f"{path.name}.{number:03}").write_bytes(content[start : start + sizes])
    path.unlink()
    return path.with_name(f"{path.name}.001")


def from_zip(path: Path, target: Path, limit: Limit = LIMIT) -> None:
    with open_zip(path) as archive:
        extract_zipped(archive, ENDING, target, limit)


def from_7z(path: Path, target: Path, limit: Limit = LIMIT) -> None:
    extract_7z(path, ENDING, target, limit)


@pytest.fixture(params=["zip", "7z", "7z.001"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def archive(kind: str, folder: Path, members: dict[str, bytes]) -> Path:
    """An archive of the kind; in parts that are so short that all it holds lies across them."""
    if kind == "zip":
        return write_zip(folder / "tiles.zip", members)
    path = write_7z(folder / "tiles.7z", members)
    return split(path, 33) if kind == "7z.001" else path


def extract(path: Path, target: Path, limit: Limit = LIMIT) -> None:
    (from_zip if path.suffix == ".zip" else from_7z)(path, target, limit)


def refused(path: Path, folder: Path, says: str, limit: Limit = LIMIT) -> str:
    """The message; what was there before is still there, and nothing else."""
    target = folder / "out" / "a1.tif"
    target.parent.mkdir()
    target.write_text("before")
    with pytest.raises(UserError, match=says) as error:
        extract(path, target, limit)
    assert [each.name for each in target.parent.iterdir()] == ["a1.tif"]
    assert target.read_text() == "before"
    assert not list(folder.parent.rglob("evil*"))
    assert str(path.parent) in str(error.value)
    return str(error.value)


def test_one_member_and_no_other_is_written(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "out" / "renamed.tif"
    extract(archive(kind, tmp_path, MEMBERS), target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["renamed.tif"]


def test_a_later_member_of_a_7z_and_how_far_it_is(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    extract_7z(
        archive("7z.001", tmp_path, MEMBERS),
        "a11.tif",
        tmp_path / "a11.tif",
        LIMIT,
        report=lambda done, total: reports.append((done, total)),
    )
    assert (tmp_path / "a11.tif").read_bytes() == OTHER
    assert reports[-1] == (len(OTHER), len(OTHER))


def test_a_7z_in_parts_as_another_library_writes_it(tmp_path: Path) -> None:
    with (
        multivolumefile.open(tmp_path / "tiles.7z", mode="wb", volume=2000) as file,
        py7zr.SevenZipFile(file, "w") as archive,
    ):
        archive.writestr(os.urandom(5000), "noise")
        archive.writestr(CONTENT, ENDING)
    for number in range(1, 4):  # it counts in four digits, 7-Zip in three
        (tmp_path / f"tiles.7z.{number:04}").rename(tmp_path / f"tiles.7z.{number:03}")
    extract(tmp_path / "tiles.7z.001", tmp_path / "a1.tif")
    assert (tmp_path / "a1.tif").read_bytes() == CONTENT


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_archive_with_a_way_out_is_refused_whole(kind: str, tmp_path: Path, name: str) -> None:
    path = archive(kind, tmp_path, {**MEMBERS, name: b"evil"})
    assert "leads out of the archive" in refused(path, tmp_path, "evil")


def test_a_name_with_dots_leads_nowhere(kind: str, tmp_path: Path) -> None:
    extract(archive(kind, tmp_path, {**MEMBERS, "set/..a/b..c": b""}), tmp_path / "a1.tif")
    assert (tmp_path / "a1.tif").read_bytes() == CONTENT


def test_a_bomb_is_refused_by_the_limit_that_has_a_setting(kind: str, tmp_path: Path) -> None:
    path = archive(kind, tmp_path, {ENDING: bytes(LIMIT.bytes + 1)})
    assert sum(part.stat().st_size for part in tmp_path.iterdir()) < 10_000
    message = refused(path, tmp_path, "1000001 bytes, more than the limit of 1000000")
    assert "raise the limit: --max-tile-mb" in message
    extract(path, tmp_path / "a1.tif", Limit(LIMIT.bytes + 1, ""))
    assert (tmp_path / "a1.tif").stat().st_size == LIMIT.bytes + 1


def test_a_bomb_before_the_member_of_a_7z(tmp_path: Path) -> None:
    path = archive("7z", tmp_path, {"first": bytes(LIMIT.bytes), ENDING: CONTENT})
    refused(path, tmp_path, "more than the limit")


def test_a_zip_that_lies_about_a_size_unpacks_no_more_than_it_says(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "tiles.zip", {ENDING: bytes(LIMIT.bytes + 1)})
    content = path.read_bytes()
    said = (LIMIT.bytes + 1).to_bytes(4, "little")
    assert content.count(said) == 2
    path.write_bytes(content.replace(said, (1000).to_bytes(4, "little")))
    refused(path, tmp_path, "CRC-32")


def test_a_member_that_is_missing_is_named(kind: str, tmp_path: Path) -> None:
    path = archive(kind, tmp_path, {"set/train/images/a11.tif": CONTENT})
    refused(path, tmp_path, f"one member {ENDING}, .* found none")


def test_two_members_of_one_name(kind: str, tmp_path: Path) -> None:
    path = archive(kind, tmp_path, {f"one/{ENDING}": b"", f"two/{ENDING}": b""})
    refused(path, tmp_path, "found 2 members .*one/train.*two/train")


def test_a_whole_path_is_an_ending_too() -> None:
    assert find_member(["xa/b", "a/b"], "a/b", Path()) == "a/b"


def test_links_are_no_files(tmp_path: Path) -> None:
    refused(write_zip(tmp_path / "a.zip", {ENDING: b"/etc/hosts"}, ENDING), tmp_path, "is a link")


def test_links_in_a_7z_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "aim").touch()
    (tmp_path / "link").symlink_to("aim")
    with py7zr.SevenZipFile(tmp_path / "tiles.7z", "w") as archive:
        archive.write(tmp_path / "link", ENDING)
    refused(tmp_path / "tiles.7z", tmp_path, "is a link")


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_archives_that_are_cut_off(kind: str, tmp_path: Path, keep: float) -> None:
    path = archive(kind, tmp_path, MEMBERS)
    last = sorted(tmp_path.iterdir())[-1]
    content = last.read_bytes()
    last.write_bytes(content[: int(keep * len(content))])
    refused(path, tmp_path, "missing or cut off|cannot be unpacked|not the start of")


def test_a_changed_byte_is_found_by_its_checksum(kind: str, tmp_path: Path) -> None:
    path = archive(kind, tmp_path, {ENDING: os.urandom(1000)})
    changed = path.with_name("tiles.7z.003") if kind == "7z.001" else path
    content = bytearray(changed.read_bytes())
    content[-1 if kind == "7z.001" else 300] ^= 1
    changed.write_bytes(content)
    refused(path, tmp_path, "cannot be unpacked; it is cut off, damaged")


def test_an_encrypted_zip_is_no_traceback(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "tiles.zip", MEMBERS)
    content = path.read_bytes()
    # The flags of each member: 6 bytes into its own header, 8 into that of the directory.
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(magic) + offset
        content = content[:place] + b"\x01" + content[place + 1 :]
    path.write_bytes(content)
    refused(path, tmp_path, "is encrypted")


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = archive("7z.001", tmp_path, MEMBERS)
    path.with_name("tiles.7z.002").rename(tmp_path / "away")
    message = refused(path, tmp_path, "no such file, but tiles.7z.003 is there")
    assert message.startswith(str(path.with_name("tiles.7z.002")))


def test_the_last_part_is_missing(tmp_path: Path) -> None:
    path = archive("7z.001", tmp_path, MEMBERS)
    sorted(tmp_path.iterdir())[-1].unlink()
    refused(path, tmp_path, r"found \d+ bytes up to tiles.7z.\d+; its header says \d+")


@pytest.mark.parametrize("name", ["tiles.7z.md5", "tiles.7z.003.part"])
def test_a_file_that_is_called_like_a_part(tmp_path: Path, name: str) -> None:
    path = archive("7z.001", tmp_path, MEMBERS)
    (tmp_path / name).touch()
    assert str(tmp_path / name) in refused(path, tmp_path, "called like a part")


def test_the_first_part_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiles\.7z\.001: no such file"):
        extract(tmp_path / "tiles.7z.001", tmp_path / "a1.tif")


def test_a_mistake_in_what_is_done_with_a_zip_is_no_damage(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "tiles.zip", MEMBERS)
    with pytest.raises(ZeroDivisionError), open_zip(path):
        1 / 0  # noqa: B018


def test_what_is_no_archive(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"tiles.{kind}"
    path.write_text("<html>You have to log in</html>" * 10)
    refused(path, tmp_path, "cannot be unpacked|not the start of a 7z archive")


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=4),
    st.just(0) | st.integers(1, 200),
)
@pytest.mark.parametrize("write", [write_zip, write_7z])
def test_a_damaged_archive_gives_the_content_or_a_message(
    tmp_path_factory: pytest.TempPathFactory,
    write: Callable[[Path, dict[str, bytes]], Path],
    changes: list[tuple[int, int]],
    cut: int,
) -> None:
    suffix = "zip" if write is write_zip else "7z"
    path = write(tmp_path_factory.getbasetemp() / f"damaged.{suffix}", MEMBERS)
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content[: len(content) - cut])
    target = path.with_name("out.tif")
    target.unlink(missing_ok=True)
    try:
        extract(path, target)
    except UserError:
        assert not target.exists()
    else:
        assert target.read_bytes() in (CONTENT, OTHER)


def test_what_the_system_says_is_no_damage(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "tiles.zip", MEMBERS)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        from_zip(path, tmp_path / "file" / "a1.tif")
    with pytest.raises(FileNotFoundError):
        from_zip(tmp_path / "nosuch.zip", tmp_path / "a1.tif")


def test_room_that_has_to_stay_free(tmp_path: Path) -> None:
    path = archive("7z", tmp_path, MEMBERS)
    with pytest.raises(UserError, match=r"images/a1\.tif out of .* needs 1000000000.0 GB"):
        extract_7z(path, ENDING, tmp_path / "out" / "a1.tif", LIMIT, room=10**18)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_is_too_small_is_named_with_what_is_needed(tmp_path: Path) -> None:
    require_space(tmp_path, 1, "a tile")
    with pytest.raises(UserError, match=r"GB are free; a tile needs 1000000000.0 GB") as error:
        require_space(tmp_path, 10**18, "a tile")
    assert str(error.value).startswith(str(tmp_path))
