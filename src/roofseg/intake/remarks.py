"""Remarks for the user on how tiles were brought in, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from roofseg.core.images import UNKNOWN_IN_FILES
from roofseg.core.messages import gathered, shortened
from roofseg.intake.convert import PERCENTILES, ImageHeader
from roofseg.intake.inspect import TileReport
from roofseg.intake.rasterize import RasterizeStats


def unlabelled_remarks(
    reports: Sequence[TileReport], blank: Sequence[str], *, areas: bool, stated: float | None
) -> Iterator[str]:
    """Remarks on unknown pixels, and on the ``blank`` tiles, which have no others.

    ``areas`` says whether labelled areas were given, and ``stated`` which value of the masks means
    unknown, if one was.
    """
    if blank:
        yield f"left out, since none of their pixels is labelled: {shortened(blank)}"
    pixels = [report.grid.height * report.grid.width if report.grid else 0 for report in reports]
    if (share := fmean([report.labelled for report in reports], pixels)) < 1:
        yield (
            f"{1 - share:.1%} of the pixels are unknown (without data"
            f"{', or outside the labelled areas' if areas else ''}"
            f"{', or unknown in your masks' if stated is not None else ''}); "
            f"they are {UNKNOWN_IN_FILES} in msks/"
        )
    doubtful = [tile.name for tile in reports if tile.building == 0 and tile.labelled < 1]
    if stated in (1, 255) and doubtful:
        yield (
            f"no building on {shortened(doubtful)}, whose masks hold {stated:g}, which means "
            "unknown (--unknown): if it marks buildings there, give these masks other values"
        )


def remarks(
    sources: Mapping[str, ImageHeader],
    scale: tuple[float, float] | None,
    rasterized: Mapping[str, RasterizeStats],
    *,
    areas: bool,
) -> Iterator[str]:
    """Remarks on how tiles were brought in; ``areas``: whether it is known what was labelled."""
    if renamed := [
        f"{source.path.stem!r} is {name}"
        for name, source in sources.items()
        if source.path.stem != name
    ]:
        yield f"tiles named differently from their files: {shortened(renamed)}"
    yield from gathered((name, note) for name, source in sources.items() for note in source.notes)
    if not areas and (bare := [name for name, stats in rasterized.items() if not stats.features]):
        yield (
            f"no footprint on {shortened(bare)}: leave out tiles that nobody has mapped, or say "
            "with --areas where the footprints are complete"
        )
    if repaired := sum(stats.repaired for stats in rasterized.values()):
        yield f"invalid footprints that were repaired: {repaired}"
    if skipped := sum(stats.skipped for stats in rasterized.values()):
        yield f"features without a usable polygon that were left out: {skipped}"
    if scale:
        low, high = scale  # all digits, so that prediction can use exactly the same scale
        yield (
            f"{low} became 0 and {high} 255: percentiles {PERCENTILES[0]} and {PERCENTILES[1]} of "
            f"all tiles; to predict such imagery, use --scale {low} {high}"
        )
