"""Make buildings and vehicles: houses, sheds, shops, blocks of flats, cars and trucks.

Each function draws its sizes and colours from ``rng``. Lengths are in pixels, and ``x``, ``y`` and
``angle`` place the middle of the object on the tile (see `roofseg.synthetic.scene`).
"""

from __future__ import annotations

import math

import numpy as np

from roofseg.synthetic.palette import CAR, GLASS, MEMBRANE, METAL, SHINGLE, pick
from roofseg.synthetic.scene import Box, Building, Colour, Cover, Roof, Wing, place, rectangle


def _item(
    building: Building, u: float, v: float, size: tuple[float, float], colour: Colour, top: float
) -> Box:
    """Make a box at (u, v) in the building's frame, turned with the building."""
    x, y = building.place([u], [v])[0]
    return Box(rectangle(x, y, size[0], size[1], building.angle), colour, top)


def _roof_of(rng: np.random.Generator) -> tuple[Roof, Cover, Colour]:
    """Choose the shape, cover and colour of the roof of a house."""
    draw = rng.random()
    if draw < 0.12:
        return Roof.FLAT, Cover.MEMBRANE, pick(rng, MEMBRANE, 9)
    shape = Roof.HIP if rng.random() < 0.42 else Roof.GABLE
    if draw < 0.36:
        return shape, Cover.METAL, pick(rng, METAL, 9)
    if draw < 0.39:
        return shape, Cover.SHINGLE, pick(rng, ((164, 96, 70), (178, 112, 80)), 9)  # red tiles
    return shape, Cover.SHINGLE, pick(rng, SHINGLE, 9)


def house(
    rng: np.random.Generator,
    x: float,
    y: float,
    angle: float,
    length: float,
    depth: float,
    tall: float,
) -> tuple[Building, list[Box]]:
    """Make a house with its front towards -v, and the boxes on its roof.

    It has one wing, or two that form an L or a T, and sometimes a lower extension at the back. On
    its roof there may be vents, a chimney, skylights or solar panels. ``tall`` is the probability
    of two floors.
    """
    shape, cover, colour = _roof_of(rng)
    eave = 5.6 if rng.random() < tall else 2.9
    pitch = rng.uniform(0.28, 0.62)
    wings: list[Wing] = []
    plan = rng.random()
    sign = 1.0 if rng.random() < 0.5 else -1.0
    if plan < 0.34:  # a plain rectangle with its ridge along the street or towards it
        across = rng.random() < 0.3 and depth > 0.7 * length
        wings.append(Wing(0, 0, length, depth, shape, eave, pitch, across))
    else:
        body = depth * rng.uniform(0.58, 0.74)
        leg = length * rng.uniform(0.32, 0.5)
        side = sign * (length - leg) / 2 if plan < 0.74 else sign * length * 0.12
        front = plan < 0.6
        shift = (depth - body) / 2
        wings.append(Wing(0, shift if front else -shift, length, body, shape, eave, pitch))
        leg_eave = eave if rng.random() < 0.6 else max(2.6, eave - 2.6)
        # The leg reaches to the far eave of the body, so that its ridge meets the body's slope.
        wings.append(Wing(side, 0, leg, depth, shape, leg_eave, pitch, across=leg < depth))
    if rng.random() < 0.28:  # an extension at the back with a flat roof
        wide, out = length * rng.uniform(0.25, 0.5), rng.uniform(7, 13)
        at = rng.uniform(-0.5, 0.5) * (length - wide)
        wings.append(Wing(at, (depth + out) / 2 - 2, wide, out + 4, Roof.FLAT, 2.4))
    building = Building(x, y, angle, tuple(wings), colour, cover)
    boxes = []
    dark, light = (70.0, 70.0, 70.0), (186.0, 186.0, 182.0)
    for _ in range(rng.integers(0, 5)):  # vents
        u, v = rng.uniform(-0.42, 0.42) * length, rng.uniform(-0.25, 0.25) * depth
        tone = dark if rng.random() < 0.5 else light
        boxes.append(_item(building, u, v, (1.6, 1.6), tone, 0.0))
    if rng.random() < 0.25:  # a chimney
        u, v = sign * 0.3 * length, rng.uniform(-0.2, 0.2) * depth
        tone = pick(rng, ((130, 92, 78), (140, 130, 120)), 8)
        boxes.append(_item(building, u, v, (3, 3), tone, eave + 3.2))
    if rng.random() < 0.12:  # skylights
        for u in (-0.2, 0.05):
            boxes.append(_item(building, u * length, 0.12 * depth, (3.4, 4), GLASS, 0.0))
    if rng.random() < 0.06 and shape is not Roof.FLAT:  # solar panels
        for u in np.arange(-0.3, 0.2, 0.14):
            size = (0.12 * length, 0.3 * depth)
            boxes.append(_item(building, u * length, -0.22 * depth, size, (44, 50, 66), 0.0))
    return building, boxes


def shed(rng: np.random.Generator, x: float, y: float, angle: float) -> Building:
    """Make a shed, a garage or a carport that stands behind a house."""
    long, wide = rng.uniform(9, 21), rng.uniform(8, 16)
    palette, cover = (METAL, Cover.METAL) if rng.random() < 0.5 else (SHINGLE, Cover.SHINGLE)
    roof = Roof.FLAT if rng.random() < 0.3 else Roof.GABLE
    wing = Wing(0, 0, long, wide, roof, 2.3, rng.uniform(0.2, 0.45))
    return Building(x, y, angle, (wing,), pick(rng, palette, 12), cover)


def shop(
    rng: np.random.Generator, x: float, y: float, angle: float, length: float, depth: float
) -> tuple[Building, list[Box]]:
    """Make a shop, workshop or office: large, mostly with a flat roof and machines on it."""
    height = float(rng.choice([4.5, 5.5, 7.0, 10.5]))
    if rng.random() < 0.18:  # a hall under sheet metal
        wing = Wing(0, 0, length, depth, Roof.GABLE, height, 0.12)
        return Building(x, y, angle, (wing,), pick(rng, METAL, 9), Cover.METAL), []
    wings = [Wing(0, 0, length, depth, Roof.FLAT, height)]
    if rng.random() < 0.6:  # a part of another height
        share = rng.uniform(0.3, 0.6)
        at = float(rng.choice([-1, 1])) * (1 - share) / 2 * length
        out = rng.uniform(0.8, 1.25)
        lift = height + float(rng.choice([-1.2, 1.4, 3.0]))
        wings.append(Wing(at, 0, length * share, depth * out, Roof.FLAT, lift))
    if rng.random() < 0.3:  # an awning along the front
        wings.append(Wing(0, depth / 2 + 3, length * 0.9, 9, Roof.FLAT, 3.2))
    cover = Cover.METAL if rng.random() < 0.15 else Cover.MEMBRANE
    building = Building(x, y, angle, tuple(wings), pick(rng, MEMBRANE, 8), cover)
    top = max(wing.eave for wing in wings)
    return building, _machines(rng, building, length, depth, top)


def apartments(
    rng: np.random.Generator, x: float, y: float, angle: float, length: float, depth: float
) -> tuple[Building, list[Box]]:
    """Make one block of flats: a long body with cross gables or a flat roof."""
    floors = float(rng.choice([5.6, 8.4]))
    if rng.random() < 0.4:
        cover, colour = Cover.MEMBRANE, pick(rng, MEMBRANE, 6)
        wings = [Wing(0, 0, length, depth, Roof.FLAT, floors)]
    else:
        cover, colour = Cover.SHINGLE, pick(rng, SHINGLE, 6)
        shape, pitch = (Roof.HIP if rng.random() < 0.5 else Roof.GABLE), 0.36
        wings = [Wing(0, 0, length, depth * 0.8, shape, floors, pitch)]
        for at in (-0.3, 0.3):
            wings.append(Wing(at * length, 0, depth * 0.5, depth, shape, floors, pitch, True))
    building = Building(x, y, angle, tuple(wings), colour, cover)
    flat = cover is Cover.MEMBRANE
    return building, _machines(rng, building, length, depth, floors) if flat else []


def _machines(
    rng: np.random.Generator, building: Building, length: float, depth: float, roof: float
) -> list[Box]:
    """Make air conditioners, ducts, skylights and vents on a flat roof at height ``roof`` (m)."""
    boxes = []
    for _ in range(rng.poisson(2 + length * depth / 2200)):
        u, v = rng.uniform(-0.42, 0.42) * length, rng.uniform(-0.36, 0.36) * depth
        draw = rng.random()
        if draw < 0.55:
            size = (rng.uniform(4, 9), rng.uniform(4, 8))
            tone = pick(rng, ((176, 176, 172), (120, 120, 120), (206, 204, 198)), 10)
            boxes.append(_item(building, u, v, size, tone, roof + 1.4))
        elif draw < 0.7:
            size = (rng.uniform(10, 26), 2.5)
            boxes.append(_item(building, u, v, size, (150, 152, 152), roof + 0.7))
        elif draw < 0.85:
            boxes.append(_item(building, u, v, (4, 6), pick(rng, ((214, 220, 222), GLASS), 8), 0.0))
        else:
            boxes.append(_item(building, u, v, (2, 2), (84, 84, 84), roof + 0.9))
    return boxes


def car(rng: np.random.Generator, x: float, y: float, angle: float) -> list[Box]:
    """Make a car: its body, windscreen and rear window."""
    colour = pick(rng, CAR, 8)
    long, wide = rng.uniform(14.5, 17.5), rng.uniform(5.8, 6.8)
    turns = np.array([-0.5, -0.46, 0.44, 0.5, 0.5, 0.44, -0.46, -0.5]) * long
    sides = np.array([-0.36, -0.5, -0.5, -0.3, 0.3, 0.5, 0.5, 0.36]) * wide
    boxes = [Box(place(x, y, angle, turns, sides), colour, 1.45)]
    for fore, aft in ((0.12, 0.26), (-0.40, -0.30)):
        u, v = [fore * long, aft * long, aft * long, fore * long], [-0.4, -0.36, 0.36, 0.4]
        boxes.append(Box(place(x, y, angle, u, np.array(v) * wide), GLASS, 1.4))
    return boxes


def truck(rng: np.random.Generator, x: float, y: float, angle: float) -> list[Box]:
    """Make a delivery van or truck: a pale box that casts a shadow and is not a roof."""
    long, wide = rng.uniform(19, 40), rng.uniform(7.5, 8.6)
    colour = pick(rng, ((218, 218, 214), (190, 190, 188), (150, 140, 122)), 8)
    cab = place(x, y, angle, [long / 2], [0.0])[0]
    return [
        Box(rectangle(x, y, long, wide, angle), colour, 3.2),
        Box(rectangle(cab[0], cab[1], 6, wide * math.sqrt(0.8), angle), pick(rng, CAR, 8), 2.2),
    ]
