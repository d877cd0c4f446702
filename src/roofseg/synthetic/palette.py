"""The colours of objects and ground, as digital numbers on level ground in sunlight.

The colours are muted and overlap on purpose: shingles look like asphalt and soil, and flat roofs
like concrete, so that no threshold on colour finds the roofs. They were chosen by eye, in
comparison with aerial imagery of Austin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from roofseg.synthetic.scene import Colour

CONCRETE: tuple[Colour, ...] = (
    (168, 163, 153),
    (182, 178, 170),
    (150, 146, 138),
    (136, 132, 125),
    (196, 190, 178),
)
SHINGLE: tuple[Colour, ...] = (
    (114, 112, 110),
    (134, 131, 127),
    (96, 94, 95),
    (152, 147, 140),
    (136, 115, 96),
    (150, 126, 102),
    (116, 94, 78),
    (96, 104, 116),
    (122, 132, 138),
    (82, 80, 80),
    (164, 151, 134),
    (128, 92, 76),
    (142, 138, 134),
)
METAL: tuple[Colour, ...] = (
    (196, 200, 202),
    (172, 178, 182),
    (150, 156, 162),
    (232, 232, 228),
    (134, 146, 156),
    (184, 178, 164),
    (98, 112, 102),
)
MEMBRANE: tuple[Colour, ...] = (
    (238, 238, 234),
    (222, 221, 216),
    (204, 202, 196),
    (176, 172, 164),
    (156, 150, 140),
    (138, 132, 124),
    (118, 116, 113),
    (100, 99, 98),
    (166, 152, 132),
    (146, 130, 110),
)
CAR: tuple[Colour, ...] = (
    (222, 222, 220),
    (196, 198, 200),
    (150, 152, 156),
    (92, 94, 98),
    (214, 213, 208),
    (66, 66, 69),
    (54, 54, 58),
    (40, 42, 46),
    (112, 50, 46),
    (60, 70, 94),
    (168, 160, 142),
    (120, 122, 124),
)
GLASS: Colour = (46, 52, 58)
ASPHALT: tuple[Colour, ...] = ((104, 103, 101), (118, 116, 112), (92, 92, 93), (132, 129, 123))
LAWN: tuple[Colour, ...] = (
    (86, 97, 66),
    (96, 103, 76),
    (110, 109, 88),
    (76, 91, 60),
    (102, 100, 84),
)
SOIL: tuple[Colour, ...] = ((132, 121, 103), (116, 108, 95), (148, 138, 120), (104, 98, 87))
COURT: tuple[Colour, ...] = (
    (78, 104, 84),
    (82, 98, 124),
    (142, 96, 80),
    (122, 122, 120),
    (150, 122, 102),
)
EVERGREEN: tuple[Colour, ...] = ((52, 66, 44), (62, 74, 50), (70, 80, 52), (46, 58, 42))
AUTUMN: tuple[Colour, ...] = ((98, 84, 64), (104, 78, 62), (96, 92, 64), (88, 82, 68))
BARK: tuple[Colour, ...] = ((136, 129, 122), (120, 113, 107), (148, 141, 133), (126, 117, 107))
PAINT_WHITE: Colour = (205, 204, 196)
STRAW: Colour = (110, 107, 88)  # a dried lawn


def pick(rng: np.random.Generator, palette: Sequence[Colour], spread: float) -> Colour:
    """Pick a colour at random, and vary its brightness by ``spread`` and its tint by a fifth of it.

    ``spread`` is a standard deviation in digital numbers.
    """
    colour = palette[int(rng.integers(len(palette)))]
    shift = rng.normal(0, spread)
    tint = rng.normal(0, spread / 5, 3).tolist()
    red, green, blue = (
        min(248.0, max(8.0, c + shift + d)) for c, d in zip(colour, tint, strict=True)
    )
    return red, green, blue


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """Mix two colours; ``share``, in [0, 1], is that of ``b``."""
    red, green, blue = ((1 - share) * p + share * q for p, q in zip(a, b, strict=True))
    return red, green, blue


def toned(colour: Colour, factor: float) -> Colour:
    """Multiply a colour by ``factor``, up to 255 in each channel."""
    red, green, blue = (min(255.0, factor * c) for c in colour)
    return red, green, blue
