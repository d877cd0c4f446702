"""Fetching the Inria tiles (small stand-ins) from folders and from a hub on this host."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from rasterio.transform import Affine
from servers import running
from tiny_dataset import tile_pixels, write_raster

from roofseg.core.errors import UserError
from roofseg.inria.austin import TERMS, check_pair, fetch_tiles
from roofseg.inria.sources import HUB, find_train

SIZE = 48
NUMBERS = (1, 2, 10)
CRS = "EPSG:26914"
PLACE = Affine(0.3, 0.0, 621000.0, 0.0, -0.3, 3350000.0)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = [f"{kind}/austin{number}.tif" for kind in ("images", "gt") for number in NUMBERS]


def write_pair(image: Path, mask: Path, seed: int = 0, size: int = SIZE, **profile: Any) -> None:
    pixels, building = tile_pixels(seed, size)
    profile = {"crs": CRS, "transform": PLACE, **profile}
    write_raster(image, pixels, **profile)
    write_raster(mask, building * np.uint8(255), **profile)


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder train of the unpacked dataset."""
    folder = tmp_path_factory.mktemp("inria") / "train"
    for number in NUMBERS:
        pair = [folder / kind / f"austin{number}.tif" for kind in ("images", "gt")]
        write_pair(*pair, seed=number)
    (folder / "images" / "chicago1.tif").write_text("not wanted")
    return folder


@pytest.fixture
def tree(train: Path, tmp_path: Path) -> Path:
    return copied(train, tmp_path / "copy" / "train")


def copied(train: Path, folder: Path) -> Path:
    for path in sorted(train.rglob("*.tif")):
        target = folder / path.relative_to(train)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


def run(folder: Path, source: Path | None, **changed: Any) -> list[str]:
    """Fetch the tiles and return the reported lines."""
    reported: list[str] = []
    settings = {"numbers": NUMBERS, "size": SIZE, "report": reported.append}
    fetch_tiles(folder, source, **{**settings, **changed})
    return reported


def check_all_tiles(folder: Path, train: Path) -> None:
    for kind, theirs in (("imgs", "images"), ("msks", "gt")):
        for number in NUMBERS:
            file = f"austin{number}.tif"
            assert (folder / kind / file).read_bytes() == (train / theirs / file).read_bytes()
    assert inside(folder) == sorted(
        ["manifest.csv", *(f"{kind}/austin{n}.tif" for kind in ("imgs", "msks") for n in NUMBERS)]
    )


def inside(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# The unpacked dataset


@pytest.mark.parametrize("tree", ["AerialImageDataset/train", "train", "data/train", "."])
def test_from_the_unpacked_dataset(train: Path, tmp_path: Path, tree: str) -> None:
    copied(train, tmp_path / "copy" / tree)
    reported = run(tmp_path / "inria", tmp_path / "copy")
    check_all_tiles(tmp_path / "inria", train)
    assert reported[0] == TERMS
    assert reported[-1] == "austin10: checked and in place (3 of 3)"


def test_a_dataset_that_lacks_a_tile(tree: Path, tmp_path: Path) -> None:
    (tree / "gt" / "austin2.tif").unlink()
    with pytest.raises(UserError, match=r"gt/austin2\.tif: no such file"):
        run(tmp_path / "inria", tree)
    assert inside(tmp_path / "inria") == [
        "imgs/austin1.tif",
        "manifest.csv",
        "msks/austin1.tif",
    ]


UNZIP = "unzip NEW2-AerialImageDataset.zip`, then set INRIA_SOURCE="


@pytest.mark.parametrize(
    ("files", "named", "says"),
    [
        (["NEW2-AerialImageDataset.zip"], "NEW2-AerialImageDataset.zip", f"&& {UNZIP}"),
        (["NEW2-AerialImageDataset.zip"], ".", f"&& {UNZIP}"),
        (["a b.7z.001", "a b.7z.002"], "a b.7z.001", f"&& 7z x 'a b.7z.001' && {UNZIP}"),
        (["a.7z.001", "a.7z.002"], ".", f"&& 7z x a.7z.001 && {UNZIP}"),
        (["a.7z"], ".", f"&& 7z x a.7z && {UNZIP}"),
    ],
)
def test_an_archive_is_refused_with_the_commands_that_unpack_it(
    tmp_path: Path, files: list[str], named: str, says: str
) -> None:
    folder = tmp_path / "my downloads"
    folder.mkdir()
    for name in files:
        (folder / name).touch()
    with pytest.raises(UserError) as error:
        run(tmp_path / "inria", folder / named)
    assert f"`cd '{folder}' {says}'{folder}'." in str(error.value)
    assert inside(tmp_path / "inria") == []


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (None, "no such folder; expected the folder of the unpacked dataset"),
        ([], "found no images/ and gt/ in it; expected"),
        (["x/images/a", "x/gt/a"], "found no images/ and gt/ in it; expected"),
        (["images/a"], "found no images/ and gt/ in it; expected"),
    ],
)
def test_a_folder_without_the_dataset(tmp_path: Path, there: list[str] | None, says: str) -> None:
    path = tmp_path / "copy"
    for name in there or []:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    if there == []:
        path.mkdir()
    with pytest.raises(UserError, match=says) as error:
        find_train(path)
    assert str(path) in str(error.value)
    assert "INRIA_SOURCE" in str(error.value)


def test_a_disk_that_is_too_small(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"GB are free; the missing tiles need 12000000000\.0 GB"):
        run(tmp_path / "inria", tree, size=10**9)
    assert inside(tmp_path / "inria") == []


# Tiles that are already in place, and the manifest


def test_a_second_run_opens_no_source(tree: Path, tmp_path: Path) -> None:
    run(tmp_path / "inria", tree)
    before = (tmp_path / "inria" / "manifest.csv").read_bytes()
    reported = run(tmp_path / "inria", tmp_path / "nosuch")
    assert reported[1:] == [f"{tmp_path / 'inria'}: 3 of 3 tiles are already in place"]
    assert (tmp_path / "inria" / "manifest.csv").read_bytes() == before


def test_the_manifest_names_every_file(train: Path, tmp_path: Path) -> None:
    run(tmp_path / "inria", train)
    lines = (tmp_path / "inria" / "manifest.csv").read_text().splitlines()
    assert lines[0] == "file,bytes,sha256,revision"
    assert [line.split(",")[0] for line in lines[1:]] == [
        f"{kind}/austin{n}.tif" for kind in ("imgs", "msks") for n in NUMBERS
    ]
    content = (train / "gt" / "austin10.tif").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert lines[-1] == f"msks/austin10.tif,{len(content)},{digest},"


def test_tiles_that_the_user_put_there_are_kept_and_recorded(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inria"
    write_pair(folder / "imgs" / "austin2.tif", folder / "msks" / "austin2.tif", seed=77)
    mine = (folder / "imgs" / "austin2.tif").read_bytes()
    run(folder, tree)
    assert (folder / "imgs" / "austin2.tif").read_bytes() == mine
    assert hashlib.sha256(mine).hexdigest() in (folder / "manifest.csv").read_text()


def test_a_run_continues_where_an_earlier_one_stopped(tree: Path, tmp_path: Path) -> None:
    folder, broken = tmp_path / "inria", tree / "images" / "austin2.tif"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:2000])
    with pytest.raises(UserError, match="cut off") as error:
        run(folder, tree)
    assert f"that came from {tree} were not kept" in str(error.value)
    assert inside(folder) == ["imgs/austin1.tif", "manifest.csv", "msks/austin1.tif"]
    (folder / ".incoming" / "imgs").mkdir(parents=True)  # left by a killed run
    (folder / ".incoming" / "imgs" / "austin2.tif").write_bytes(b"half")
    broken.write_bytes(whole)
    (tree / "images" / "austin1.tif").unlink()  # no longer needed
    reported = run(folder, tree)
    assert "1 of 3 tiles are already in place" in reported[1]
    assert inside(folder)[:3] == [f"imgs/austin{n}.tif" for n in (1, 10, 2)]


@pytest.mark.parametrize("place", ["source", "folder"])
def test_a_tile_that_differs_from_its_row_in_the_manifest(
    tree: Path, tmp_path: Path, place: str
) -> None:
    folder = tmp_path / "inria"
    run(folder, tree)
    (folder / "msks" / "austin2.tif").unlink()
    other = [tree / "images" / "austin2.tif", tree / "gt" / "austin2.tif"]
    if place == "folder":
        other = [folder / kind / "austin1.tif" for kind in ("imgs", "msks")]
    write_pair(*other, seed=99)
    manifest = (folder / "manifest.csv").read_bytes()
    digest = hashlib.sha256(other[place == "source"].read_bytes()).hexdigest()
    before = inside(folder)
    with pytest.raises(UserError, match=rf"{digest}; the manifest expects \d+ bytes") as error:
        run(folder, tree)
    assert other[place == "source"].name in str(error.value)
    assert inside(folder) == before
    assert (folder / "manifest.csv").read_bytes() == manifest


@pytest.mark.parametrize(
    "row", ["imgs/austin1.tif,x,y,", "imgs/austin1.tif,5," + 64 * "g" + ",", "a,5", "\x00\xff"]
)
def test_a_manifest_that_is_broken(tree: Path, tmp_path: Path, row: str) -> None:
    folder = tmp_path / "inria"
    folder.mkdir()
    (folder / "manifest.csv").write_text(f"file,bytes,sha256,revision\n{row}\n")
    with pytest.raises(UserError, match=r"manifest\.csv: .*git checkout"):
        run(folder, tree)
    assert inside(folder) == ["manifest.csv"]


def test_a_file_that_is_no_tile_is_refused(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inria"
    (folder / "imgs").mkdir(parents=True)
    (folder / "imgs" / "austin3.tif").touch()  # not among this test's numbers
    with pytest.raises(UserError, match=r"imgs/austin3\.tif: not a tile of the dataset"):
        run(folder, tree)
    assert inside(folder) == ["imgs/austin3.tif"]


# A tile


@pytest.mark.parametrize(
    "crs", [CRS, "EPSG:32614", "EPSG:26714", "+proj=utm +zone=14 +ellps=GRS80"]
)
def test_zone_14_of_any_datum_is_accepted(tmp_path: Path, crs: str) -> None:
    pair = tmp_path / "a.tif", tmp_path / "b.tif"
    write_pair(*pair, crs=crs)
    check_pair("a", *pair, SIZE)


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ({"size": SIZE - 1}, r"47 x 47 px; expected 48 x 48 px"),
        ({"transform": PLACE @ Affine.scale(2)}, r"gives 0\.6 m per pixel; expected 0\.3 m"),
        ({"crs": None}, r"gives no GSD in metres; expected 0\.3"),
        ({"crs": "EPSG:4326"}, r"gives no GSD in metres"),
        ({"crs": "EPSG:2277"}, r"gives 0\.0868 m per pixel"),  # feet, far from Texas
        ({"crs": "EPSG:32615"}, r"its CRS is EPSG:32615; expected UTM zone 14"),
        (
            {"crs": "+proj=nsper +h=3000 +lat_0=10 +lon_0=3"},
            "gives no GSD in metres; expected 0.3 m",
        ),
    ],
)
def test_a_tile_of_another_dataset(tmp_path: Path, profile: dict[str, Any], says: str) -> None:
    pair = tmp_path / "a.tif", tmp_path / "b.tif"
    write_pair(*pair, **profile)
    with pytest.raises(UserError, match=says) as error:
        check_pair("a", *pair, SIZE)
    assert str(error.value).startswith(str(pair[0]))


@pytest.mark.parametrize("value", [1, 128, 254])
def test_a_mask_with_another_value(tmp_path: Path, value: int) -> None:
    pair = tmp_path / "a.tif", tmp_path / "b.tif"
    write_pair(*pair)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[-1, -1] = value
    write_raster(pair[1], mask, crs=CRS, transform=PLACE)
    with pytest.raises(UserError, match=rf"b\.tif: holds the value {value}; expected 0 and 255"):
        check_pair("a", *pair, SIZE)


@pytest.mark.parametrize("bands", [1, 4])
def test_an_image_that_is_not_rgb(tmp_path: Path, bands: int) -> None:
    pair = tmp_path / "a.tif", tmp_path / "b.tif"
    write_pair(*pair)
    pixels = np.zeros((SIZE, SIZE, bands), np.uint8)
    write_raster(pair[0], pixels, crs=CRS, transform=PLACE)
    with pytest.raises(UserError, match=rf"{bands} bands? of uint8; expected 8-bit RGB"):
        check_pair("a", *pair, SIZE)


def test_a_tile_that_is_damaged_inside(tmp_path: Path) -> None:
    pair = tmp_path / "a.tif", tmp_path / "b.tif"
    write_pair(*pair, compress="deflate", blockysize=8)
    content = bytearray(pair[0].read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1500] = b"\xff" * 1500  # more than a strip
    pair[0].write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tif: cannot be read"):
        check_pair("a", *pair, SIZE)


# The hub


class Server(ThreadingHTTPServer):
    """A server that answers as the hub does when huggingface_hub downloads files of a dataset.

    Attributes:
        cuts: the number of bytes after which each of the next answers is cut off
        wrong: files whose bytes do not match their ETag
        requests: a line for each request: method, commit, file, first byte
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.cuts: list[int] = []
        self.wrong: set[str] = set()
        self.requests: list[str] = []
        self.commit: str | None = COMMIT

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        revision, _, file = self.path.partition("/resolve/")[2].partition("/")
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.server.requests.append(f"{self.command} {revision} {file.rpartition('/')[2]} {start}")
        content = self.server.files.get(file)
        if content is None or revision not in ("main", COMMIT):
            self.send_response(404)
            code = "EntryNotFound" if content is None else "RevisionNotFound"
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        digest = hashlib.sha256(content).hexdigest()
        body = (content[::-1] if file in self.server.wrong else content)[start:]
        self.send_response(206 if start else 200)
        if self.server.commit:
            self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_body and self.server.cuts:
            self.wfile.write(body[: self.server.cuts.pop(0)])
            self.close_connection = True
        elif with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(train: Path) -> Iterator[Server]:
    files = {f"data/train/{file}": (train / file).read_bytes() for file in FILES}
    with running(Server(files)) as server:
        yield server
        huggingface_hub.close_session()


def test_only_the_needed_files_are_downloaded(hub: Server, train: Path, tmp_path: Path) -> None:
    reported = run(tmp_path / "inria", None, endpoint=hub.endpoint)
    check_all_tiles(tmp_path / "inria", train)
    assert reported[0] == TERMS
    assert any(COMMIT in line and HUB in line for line in reported)
    got = [line.split()[2] for line in hub.requests if line.startswith("GET")]
    assert sorted(got) == sorted(file.rpartition("/")[2] for file in FILES)
    # One request finds the newest commit; all others name that commit.
    assert [line for line in hub.requests if f" {COMMIT} " not in line] == [
        "HEAD main austin1.tif 0"
    ]
    rows = (tmp_path / "inria" / "manifest.csv").read_text().splitlines()[1:]
    assert all(row.endswith(f",{COMMIT}") for row in rows)


def test_the_commit_in_the_manifest_is_requested(hub: Server, tmp_path: Path) -> None:
    folder = tmp_path / "inria"
    run(folder, None, endpoint=hub.endpoint)
    (folder / "imgs" / "austin2.tif").unlink()
    hub.requests.clear()
    run(folder, None, endpoint=hub.endpoint)
    assert hub.requests == [f"HEAD {COMMIT} austin2.tif 0", f"GET {COMMIT} austin2.tif 0"]


def test_a_file_keeps_its_commit_in_the_manifest(hub: Server, train: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inria"
    run(folder, None, endpoint=hub.endpoint)
    mask, manifest = "msks/austin2.tif", folder / "manifest.csv"
    (folder / mask).unlink()
    rows = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(row for row in rows if not row.startswith(mask)))
    run(folder, train)
    assert manifest.read_text() == "".join(
        row.replace(COMMIT, "") if row.startswith(mask) else row for row in rows
    )


@pytest.mark.whole
def test_a_download_continues_after_a_cut_connection(
    hub: Server, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client keeps whole chunks of 10 MB, more than these files have.
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 500)
    hub.cuts = [1100]
    run(tmp_path / "inria", None, endpoint=hub.endpoint)
    check_all_tiles(tmp_path / "inria", train)
    assert [line for line in hub.requests if line.startswith("GET")][:2] == [
        f"GET {COMMIT} austin1.tif 0",
        f"GET {COMMIT} austin1.tif 1000",
    ]


def test_a_download_of_another_checksum(hub: Server, tmp_path: Path) -> None:
    hub.wrong.add("data/train/gt/austin2.tif")
    with pytest.raises(UserError, match=r"gt/austin2\.tif of .* SHA-256 [0-9a-f]{64}, expected"):
        run(tmp_path / "inria", None, endpoint=hub.endpoint)
    assert inside(tmp_path / "inria") == ["imgs/austin1.tif", "manifest.csv", "msks/austin1.tif"]
    hub.wrong.clear()
    hub.requests.clear()
    run(tmp_path / "inria", None, endpoint=hub.endpoint)
    assert not re.search(r"austin1\.tif", " ".join(hub.requests))


def test_a_file_that_the_hub_lacks(hub: Server, tmp_path: Path) -> None:
    del hub.files["data/train/images/austin2.tif"]
    with pytest.raises(UserError, match=r"images/austin2\.tif of .*EntryNotFound") as error:
        run(tmp_path / "inria", None, endpoint=hub.endpoint)
    assert "INRIA_SOURCE" in str(error.value)
    assert inside(tmp_path / "inria") == ["imgs/austin1.tif", "manifest.csv", "msks/austin1.tif"]


def test_an_answer_that_is_not_the_hubs(hub: Server, tmp_path: Path) -> None:
    hub.commit = None
    with pytest.raises(UserError, match="names no commit, so it is not a hub's"):
        run(tmp_path / "inria", None, endpoint=hub.endpoint)
    assert inside(tmp_path / "inria") == []


def test_without_a_network(hub: Server, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()  # the port is closed from here on
    with pytest.raises(UserError, match=r"could not be downloaded \(.*refused") as error:
        run(tmp_path / "inria", None, endpoint=hub.endpoint)
    assert "INRIA_SOURCE" in str(error.value)
    assert inside(tmp_path / "inria") == []
