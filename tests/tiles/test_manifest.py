from __future__ import annotations

from pathlib import Path

import pytest

from roofseg.core.errors import UserError
from roofseg.tiles.manifest import COLUMNS, TileRecord, read_manifest, write_manifest


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    tiles = [
        TileRecord("a", "val", "a.tif", "0" * 64, "a.png", "1" * 64, "", "", "", "9", "8"),
        TileRecord(
            *('odd, "one"', "test", 'odd, "one".tif', "2" * 64, "x.png", "3" * 64, "a b"),
            *("EPSG:32614", "0.3 0.0 621000.0 0.0 -0.3 3350000.0", "1250", "1250"),
        ),
    ]
    write_manifest(tmp_path / "tiles.csv", tiles)
    assert list(read_manifest(tmp_path / "tiles.csv").values()) == tiles
    assert list(read_manifest(tmp_path / "tiles.csv")) == ["a", 'odd, "one"']


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"tile,split\n",
        f"{','.join(COLUMNS)}\na,val\n".encode(),
        b"\xff\n",
        b"a\rb\n",
    ],
)
def test_a_file_that_is_not_a_manifest_is_an_error_with_a_remedy(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "tiles.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"tiles\.csv: .*`dvc repro make_patches`"):
        read_manifest(path)
