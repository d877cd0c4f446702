"""Damaged files put through everything that opens a user's files.

``python tests/fuzzing.py FORMAT FIRST END FOLDER`` tries the files FIRST to END - 1 of a format, in
a new folder, and prints a JSON line before and after each. A seed gives the same damage everywhere.
"""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from intake_files import SIZE, place_of, write_footprints, write_pairs
from small_model import write_model
from tiny_dataset import CRS, tile_pixels, write_raster

from roofseg.core.entry_point import system_errors_explained
from roofseg.core.errors import UserError, raise_all
from roofseg.core.files import atomic_write
from roofseg.inference.predictor import Predictor
from roofseg.intake.bring_in import bring_in
from roofseg.intake.division import Division
from roofseg.intake.inspect import inspect_dataset
from roofseg.mapping.footprints import Vector
from roofseg.mapping.load_model import load_predictor
from roofseg.mapping.predict import Options, open_input, predict_raster

SUFFIXES = {
    "GeoTIFF": ".tif",
    "PNG": ".png",
    "JPEG": ".jpg",
    "GeoPackage": ".gpkg",
    "GeoJSON": ".geojson",
}
RASTERS = ("GeoTIFF", "PNG", "JPEG")
NAMES = ("a", "b", "c")  # tiles; the damaged one is b
DIVISION = Division(val=1 / 3, test=1 / 3)
LARGE = 2**22  # pixels; damage may claim any size, and such a raster is only read at its corners
SCALE = (0.0, 300.0)  # for those of the sound files that are not 8-bit
OPTIONS = (
    Options(scale=SCALE),
    Options(output="probability", gsd=0.6, resample=True, scale=SCALE),
    Options(vector=Vector("gpkg"), scale=SCALE),
    Options(),
)
HEADER = 512  # bytes
MEMORY = 16 * 2**30  # bytes of address space


def main() -> None:
    kind, first, end, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    folder.mkdir(parents=True, exist_ok=True)
    sound = bases(kind, folder / "sound")
    masks = bases(kind, folder / "masks", mask=True) if kind in RASTERS else sound
    predictor = load_predictor(write_model(folder / "model"), device="cpu", precision="32-true")
    write_pairs(folder / "good", NAMES)
    for seed in range(first, end):
        print(json.dumps({"seed": seed}), flush=True)
        outcomes = {}
        for name, job in jobs(kind, seed, sound, masks, predictor, folder):
            try:
                with left_clean(folder / "out"), system_errors_explained():
                    job()
                outcomes[name] = "read"
            except UserError:
                outcomes[name] = "refused"
            except Exception:
                outcomes[name] = traceback.format_exc()
        print(json.dumps({"seed": seed, "outcomes": outcomes}), flush=True)


def bases(kind: str, folder: Path, *, mask: bool = False) -> list[bytes]:
    """Sound files of a format, as bytes: images or masks of tile b, or footprints."""
    folder.mkdir()
    path = folder / f"sound{SUFFIXES[kind]}"
    if kind not in RASTERS:
        return [write_footprints(path, NAMES).read_bytes()]
    image, roofs = tile_pixels(1, SIZE)
    pixels = roofs * np.uint8(255) if mask else image
    place = {"crs": CRS, "transform": place_of(1)}
    alpha = np.dstack([image, roofs * np.uint8(255)])
    profiles = {
        "GeoTIFF": [
            {},
            {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"},
            {"compress": "lzw", "predictor": 2, "interleave": "band", "bigtiff": "yes"},
            {"nodata": 0, "compress": "packbits", "blockysize": 7},
        ],
        "PNG": [{}],
        "JPEG": [{}, {"progressive": True}],
    }[kind]
    variants = [(pixels, profile) for profile in profiles]
    if not mask and kind == "GeoTIFF":
        variants += [
            (image.astype(np.uint16), {}),
            (image.astype(np.float32), {"compress": "deflate", "predictor": 3}),
            (alpha, {"alpha": "yes"}),
            (image, {"compress": "jpeg", "photometric": "ycbcr"}),
        ]
    if not mask and kind == "PNG":
        variants += [(alpha, {}), (image.astype(np.uint16), {})]
    found = []
    for pixels, profile in variants:
        write_raster(path, pixels, **place, **profile)
        found.append(path.read_bytes())
    return found


def jobs(
    kind: str,
    seed: int,
    sound: list[bytes],
    masks: list[bytes],
    predictor: Predictor,
    folder: Path,
) -> Iterator[tuple[str, Callable[[], None]]]:
    """What opens the damaged file of a seed, with the file in its place."""
    shutil.rmtree(folder / "in", ignore_errors=True)
    damaged = damage(kind, seed, sound)
    if kind not in RASTERS:
        path = put(folder / "in" / f"roofs{SUFFIXES[kind]}", damaged)
        yield "new-dataset", partial(make_dataset, folder / "good" / "imagery", path, folder)
        return
    path = put(folder / "in" / f"b{SUFFIXES[kind]}", damaged)
    yield "predict", partial(predict, predictor, path, OPTIONS[seed // 7 % len(OPTIONS)], folder)
    images, labels = (folder / "in" / name for name in ("imagery", "labels"))
    for name in ("imagery", "labels"):
        shutil.copytree(folder / "good" / name, folder / "in" / name)
    if seed % 3:
        (images / "b.tif").unlink()
        put(images / path.name, damaged)
    else:
        (labels / "b.tif").unlink()
        put(labels / path.name, damage(kind, seed, masks))
    if seed % 3 < 2:
        yield "new-dataset", partial(make_dataset, images, labels, folder)
        return
    images.rename(folder / "in" / "imgs")
    labels.rename(folder / "in" / "msks")
    put(folder / "in" / "split.csv", b"tile,split\na,train\nb,val\nc,test\n")
    put(folder / "in" / "nudges.csv", b"tile,row,col\n")
    yield "check-data", lambda: raise_all(inspect_dataset(folder / "in").problems)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def make_dataset(images: Path, masks: Path, folder: Path) -> None:
    with atomic_write(folder / "out" / "data") as scratch:
        bring_in(images, masks, scratch, division=DIVISION, say=lambda line: None)


def predict(predictor: Predictor, path: Path, options: Options, folder: Path) -> None:
    with open_input(predictor, str(path), options) as imagery:
        if imagery.height * imagery.width > LARGE:
            for row, col in ((0, 0), (imagery.height - 1, imagery.width - 1)):
                imagery.read(row, 1, col, 1)
            return
    out = folder / "out" / "b.tif"
    predict_raster(predictor, str(path), out, options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(out) as written:
            written.read()


@contextmanager
def left_clean(out: Path) -> Iterator[None]:
    """Check that an error leaves nothing in the folder ``out``, and no job anything hidden."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    try:
        yield
    except UserError:
        assert not list(out.iterdir()), f"half-written: {list(out.rglob('*'))}"
        raise
    assert not list(out.glob(".*")), f"scratch is left: {list(out.rglob('*'))}"


def damage(kind: str, seed: int, sound: list[bytes]) -> bytes:
    """The file of a seed: one of the sound files with a few bytes, or its end, changed."""
    rng = random.Random(f"{kind} {seed}")
    data = bytearray(rng.choice(sound))
    for _ in range(rng.choice((1, 1, 1, 2))):
        rng.choice(WAYS if kind != "GeoJSON" else (*WAYS, _token, _token, _token))(data, rng)
    return sealed_png(data) if kind == "PNG" and rng.random() < 0.7 else bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    """A place in a file; half of them are in its header, where damage goes deeper."""
    return rng.randrange(max(1, min(len(data), HEADER) if rng.random() < 0.5 else len(data)))


def _flip(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    data[place : place + 1] = bytes([rng.randrange(256)])


def _number(data: bytearray, rng: random.Random) -> None:
    place, size = _place(data, rng), rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 2, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1))
    data[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    del data[place : place + rng.randrange(1, 40)]


def _insert(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    data[place:place] = rng.randbytes(rng.randrange(1, 40))


def _repeat(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    data[place:place] = data[place : place + rng.randrange(1, 400)]


def _blank(data: bytearray, rng: random.Random) -> None:
    place, size = _place(data, rng), rng.randrange(1, 200)
    data[place : place + size] = bytes(len(data[place : place + size]))


def _token(data: bytearray, rng: random.Random) -> None:
    """Replace a number or a string of JSON by another value."""
    if found := list(re.finditer(rb'-?\d+\.?\d*|"[^"]*"', data)):
        other = (b"null", b"1e999", b"-1e300", b"NaN", b"[]", b"{}", b'"x"', b"0", b"[[[]]]", b'""')
        token = rng.choice(found)
        data[token.start() : token.end()] = rng.choice(other)


WAYS = (_flip, _flip, _number, _number, _cut, _remove, _insert, _repeat, _blank)


def sealed_png(data: bytearray) -> bytes:
    """A PNG with right checksums, so that damage reaches what lies behind them."""
    place = 8
    while (length := int.from_bytes(data[place : place + 4], "big")) + place + 12 <= len(data):
        end = place + 8 + length
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(data)


if __name__ == "__main__":
    main()
