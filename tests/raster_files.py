"""Unusual raster files that several test modules need."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from tiny_dataset import CRS, TRANSFORM, write_raster


def name_bands(path: Path, *names: str) -> None:
    """Set the colour interpretation of a raster: a name of `ColorInterp` for each band."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # plain rasters are meant
        with rasterio.open(path, "r+") as target:
            target.colorinterp = [ColorInterp[name] for name in names]


def write_huge_raster(path: Path, side: int = 20_000, bands: int = 3) -> None:
    """Write a georeferenced raster of ``side`` px that takes no disk space, and long to predict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "dtype": "uint8", "tiled": True, "sparse_ok": True}
    georeference = {"crs": CRS, "transform": TRANSFORM}
    size = {"width": side, "height": side, "count": bands}
    with rasterio.open(path, "w", **profile, **georeference, **size):
        pass


def write_bands_of_two_types(path: Path) -> None:
    """Write a VRT of three bands, uint8, uint16, uint8, and the rasters that it refers to."""
    pixels = np.ones((40, 60), np.uint8)
    write_raster(path.parent / "uint8.tif", pixels)
    write_raster(path.parent / "uint16.tif", pixels.astype(np.uint16))
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{band}"><SimpleSource><SourceFilename '
        f'relativeToVRT="1">{name}</SourceFilename></SimpleSource></VRTRasterBand>'
        for band, (kind, name) in enumerate(
            [("Byte", "uint8.tif"), ("UInt16", "uint16.tif"), ("Byte", "uint8.tif")], start=1
        )
    )
    path.write_text(f'<VRTDataset rasterXSize="60" rasterYSize="40">{bands}</VRTDataset>')


def add_mask(path: Path, mask: npt.NDArray[np.uint8], *, internal: bool) -> None:
    """Give a GeoTIFF a mask of the whole dataset, inside it or in a file beside it."""
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(path, "r+") as target,
    ):
        target.write_mask(mask)


def add_mask_per_band(path: Path, mask: npt.NDArray[np.uint8]) -> None:
    """Give every band of a GeoTIFF a mask of its own, in a file beside it."""
    with rasterio.open(path) as source:
        count = source.count
    beside = path.with_name("mask.tif")
    write_raster(beside, np.dstack([mask] * count), photometric="minisblack")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(beside, "r+") as target:
            target.update_tags(**{f"INTERNAL_MASK_FLAGS_{n}": 0 for n in range(1, count + 1)})
    beside.rename(path.with_name(f"{path.name}.msk"))


def add_rpcs(path: Path) -> None:
    """Place a raster by RPCs alone, near 30 degrees north and 98 degrees west."""
    line, sample, one = ([0.0] * 20 for _ in range(3))
    line[2] = sample[1] = one[0] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "r+") as target:
            target.rpcs = RPC(
                height_off=0,
                height_scale=100,
                lat_off=30.3,
                lat_scale=0.0001,
                long_off=-97.7,
                long_scale=0.0001,
                line_off=target.height / 2,
                line_scale=target.height / 2,
                samp_off=target.width / 2,
                samp_scale=target.width / 2,
                line_num_coeff=line,
                line_den_coeff=one,
                samp_num_coeff=sample,
                samp_den_coeff=one,
            )


def write_turned(path: Path, pixels: npt.NDArray[np.uint8], tag: int) -> None:
    """Write RGB pixels as a JPEG or TIFF with an orientation tag, 1 to 8."""
    exif = Image.Exif()
    exif[0x112] = tag
    Image.fromarray(pixels).save(path, exif=exif)


def write_container(path: Path, rasters: dict[str, npt.NDArray[np.uint8]]) -> None:
    """Write several RGB rasters, by name, as one GeoPackage."""
    for number, (name, pixels) in enumerate(rasters.items()):
        height, width, count = pixels.shape
        with rasterio.open(
            path,
            "w",
            driver="GPKG",
            width=width,
            height=height,
            count=count,
            dtype="uint8",
            crs=CRS,
            transform=TRANSFORM,
            RASTER_TABLE=name,
            APPEND_SUBDATASET="YES" if number else "NO",
        ) as target:
            target.write(pixels.transpose(2, 0, 1))
