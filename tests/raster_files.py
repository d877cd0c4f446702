"""Unusual raster files that several test modules need."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
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
