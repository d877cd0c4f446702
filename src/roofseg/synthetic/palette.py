"""The colours of objects and ground, as digital numbers on level ground in sunlight.

The colours are muted and overlap on purpose: shingles look like asphalt and soil, and flat roofs
like concrete, so that no threshold on colour finds the roofs. They were chosen by eye, in
comparison with aerial imagery of Austin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from roofseg.synthetic.scene import Colour


def _colours(text: str) -> tuple[Colour, ...]:
    """Read colours from hexadecimal RGB, such as "a8a399 b6b2aa"."""
    return tuple((red, green, blue) for red, green, blue in map(bytes.fromhex, text.split()))


CONCRETE = _colours("a8a399 b6b2aa 96928a 88847d c4beb2")
SHINGLE = _colours(
    "72706e 86837f 605e5f 98938c 887360 967e66 745e4e 606874 7a848a 525050 a49786 805c4c 8e8a86"
)
METAL = _colours("c4c8ca acb2b6 969ca2 e8e8e4 86929c b8b2a4 627066")
MEMBRANE = _colours("eeeeea deddd8 cccac4 b0aca4 9c968c 8a847c 767471 646362 a69884 92826e")
CAR = _colours(
    "dededc c4c6c8 96989c 5c5e62 d6d5d0 424245 36363a 282a2e 70322e 3c465e a8a08e 787a7c"
)
GLASS: Colour = (46, 52, 58)
ASPHALT = _colours("686765 767470 5c5c5d 84817b")
LAWN = _colours("566142 60674c 6e6d58 4c5b3c 666454")
SOIL = _colours("847967 746c5f 948a78 686257")
COURT = _colours("4e6854 52627c 8e6050 7a7a78 967a66")
EVERGREEN = _colours("34422c 3e4a32 465034 2e3a2a")
AUTUMN = _colours("625440 684e3e 605c40 585244")
BARK = _colours("88817a 78716b 948d85 7e756b")
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
