"""Write tiles into a dataset: copy, convert or merge images, and copy, merge or rasterize masks."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import rasterio.shutil

from roofseg.core.errors import collect_errors, raise_all
from roofseg.core.images import UNKNOWN_IN_FILES
from roofseg.core.messages import shortened
from roofseg.core.progress import Progress
from roofseg.intake.chips import joined, merge_images, merge_masks, write_place
from roofseg.intake.convert import SUFFIXES, ImageHeader, verified_write, write_rgb
from roofseg.intake.inspect import open_bounded
from roofseg.intake.pairing import Label
from roofseg.intake.rasterize import FootprintLayer, RasterizeStats, rasterize_footprints
from roofseg.intake.unlabelled import mark_unlabelled, missing_pixels
from roofseg.tiles.grid import Grid
from roofseg.tiles.tile import WORLD_FILES, TilePair, check_tile

# Sidecars that hold the georeference of formats that cannot, such as PNG.
GEOREFERENCE = {".xml", ".prj", *WORLD_FILES}
# The folders of a dataset.
KINDS = ("imgs", "msks")


@dataclass(frozen=True)
class TileWriter:
    """What it takes to bring in tiles; see `bring_in`.

    ``placed`` are the images that get the place in ``grids``. ``origins`` gets the source of each
    file. ``unknown`` is the value of unknown pixels in the user's masks, and ``areas`` are those
    that were labelled.
    """

    sources: Mapping[str, ImageHeader]
    grids: Mapping[str, Grid]
    placed: Collection[str]
    labels: Mapping[str, Label]
    scale: tuple[float, float] | None
    max_expansion: float
    origins: dict[Path, str]
    unknown: float | None = None
    areas: FootprintLayer | None = None

    def bring(
        self, members: Mapping[str, Sequence[str]], folder: Path, progress: Progress
    ) -> tuple[list[TilePair], dict[str, RasterizeStats]]:
        """Bring all tiles with labelled pixels into ``folder``; UserError naming all that fail."""
        problems: list[str] = []
        tiles = []
        rasterized: dict[str, RasterizeStats] = {}
        for name, chips in progress(list(members.items()), "Bringing in tiles"):
            with collect_errors(problems):
                if len(chips) == 1:
                    tile, stats = self._tile(name, folder)
                else:
                    tile, stats = self._merged(name, chips, folder)
                missing = [
                    missing_pixels(self.sources[chip].path, self.max_expansion) for chip in chips
                ]
                marked = mark_unlabelled(tile, joined(missing), self.areas)
                self.origins[marked.mask] = self.origins[tile.mask]
                if not marked.image.exists():
                    continue
                tiles.append(marked)
                if stats:
                    rasterized[name] = stats
        raise_all(problems)
        return tiles, rasterized

    def _tile(self, name: str, folder: Path) -> tuple[TilePair, RasterizeStats | None]:
        """Copy or convert one image, and copy or rasterize its mask."""
        image = self._image(name, folder)
        label = self.labels[name]
        if isinstance(label, FootprintLayer):
            mask, stats = self._rasterized(label, image, folder)
            return TilePair(name, "", image, mask), stats
        mask = _copy(label, folder / "msks", name, self.max_expansion)
        self.origins[mask] = str(label)
        return TilePair(name, "", image, mask, self.unknown), None

    def _merged(
        self, name: str, chips: Sequence[str], folder: Path
    ) -> tuple[TilePair, RasterizeStats | None]:
        """Merge a square of images, and merge or rasterize its mask."""
        image, mask = (folder / kind / f"{name}.tif" for kind in KINDS)
        self.origins[image] = f"{name} (merged from {shortened(chips)})"
        labels = {self.labels[chip] for chip in chips}
        with TemporaryDirectory(dir=folder) as scratch:
            for kind in KINDS:
                (Path(scratch) / kind).mkdir()
            if len(labels) == 1 and isinstance(label := labels.pop(), FootprintLayer):
                merge_images([self._image(chip, Path(scratch)) for chip in chips], image)
                mask, stats = self._rasterized(label, image, folder)
                return TilePair(name, "", image, mask), stats
            pairs, counts = zip(*(self._tile(chip, Path(scratch)) for chip in chips), strict=True)
            for pair in pairs:
                check_tile(pair, 1)
            merge_images([pair.image for pair in pairs], image)
            merge_masks([pair.mask for pair in pairs], image, mask, self.unknown)
        self.origins[mask] = f"mask of {self.origins[image]}"
        unknown = None if self.unknown is None else UNKNOWN_IN_FILES
        return TilePair(name, "", image, mask, unknown), _sum(counts)

    def _image(self, name: str, folder: Path) -> Path:
        """Copy or convert an image, and georeference it where its name does."""
        source = self.sources[name]
        if source.as_is:
            image = _copy(source.path, folder / "imgs", name, self.max_expansion)
        else:
            image = folder / "imgs" / f"{name}.tif"
            write_rgb(source.path, image, self.scale)
        self.origins[image] = str(source.path)
        if name in self.placed:
            write_place(image, self.grids[name])
        return image

    def _rasterized(
        self, layer: FootprintLayer, image: Path, folder: Path
    ) -> tuple[Path, RasterizeStats]:
        """Rasterize footprints onto an image."""
        mask = folder / "msks" / f"{image.stem}.tif"
        self.origins[mask] = f"{layer.path}, rasterized onto {self.origins[image]}"
        return mask, rasterize_footprints(layer, image, mask)


def _sum(counts: Iterable[RasterizeStats | None]) -> RasterizeStats | None:
    known = [astuple(stats) for stats in counts if stats]
    return RasterizeStats(*map(sum, zip(*known, strict=True))) if known else None


def _copy(path: Path, folder: Path, name: str, max_expansion: float) -> Path:
    """Copy a raster and its sidecars as ``name``; convert other formats to GeoTIFF."""
    with open_bounded(path, max_expansion) as source:
        suffix, beside = SUFFIXES.get(source.driver), source.files[1:]
        if suffix is None:
            out = folder / f"{name}.tif"
            with verified_write(out):
                rasterio.shutil.copy(source, out, driver="GTiff", compress="deflate", tiled=True)
            return out
    out = folder / f"{name}{suffix}"
    shutil.copyfile(path, out)
    for sidecar in map(Path, beside):
        if sidecar.suffix.lower() in GEOREFERENCE:
            if sidecar.name.startswith(path.name):  # a.tif.aux.xml, unlike a.tfw
                shutil.copyfile(sidecar, folder / f"{out.name}{sidecar.name[len(path.name) :]}")
            else:
                shutil.copyfile(sidecar, folder / f"{name}{sidecar.suffix}")
    return out
