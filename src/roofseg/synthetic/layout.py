"""Lay out a tile: streets and blocks, and in each block houses, shops, flats or open ground."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from roofseg.synthetic.buildings import apartments, car, house, shed, shop, truck
from roofseg.synthetic.palette import (
    ASPHALT,
    AUTUMN,
    BARK,
    CONCRETE,
    COURT,
    EVERGREEN,
    LAWN,
    PAINT_WHITE,
    SOIL,
    STRAW,
    mixed,
    pick,
    toned,
)
from roofseg.synthetic.plan import Plan, normals
from roofseg.synthetic.scene import (
    Box,
    Building,
    Colour,
    Conditions,
    Material,
    Points,
    Scene,
    Sun,
    Surface,
    Tree,
    place,
    rectangle,
    unturned,
)

# Side (pixels) of the open ground in a tile with an empty centre. It is so large that a window of
# 448 px in its middle shows hardly a house, whatever the angle of the streets.
CENTRE = 680


@dataclass(frozen=True)
class Neighbourhood:
    """The kind of place that a tile shows: lengths in pixels, shares in [0, 1]."""

    lot: tuple[float, float] = (60, 74)  # least and greatest width of a lot
    depth: tuple[float, float] = (90, 112)  # least and greatest depth of a lot
    bend: float = 0.0  # see `roofseg.synthetic.plan.Plan`
    trees: float = 4.0  # mean number on a lot
    bare: float = 0.5  # share of trees without leaves
    built: float = 0.95  # share of lots with a house
    shops: float = 0.08  # share of blocks with shops
    flats: float = 0.06  # share of blocks with flats
    parks: float = 0.04  # share of blocks with open ground
    sheds: float = 0.35  # share of lots with a shed
    tall: float = 0.2  # share of houses with two floors


NEIGHBOURHOODS: tuple[Neighbourhood, ...] = (
    Neighbourhood(trees=3.4),  # a plain grid
    Neighbourhood(bend=46, lot=(66, 84), depth=(98, 122), trees=4.6, shops=0.02, tall=0.4),
    Neighbourhood(lot=(50, 62), depth=(80, 98), trees=2.6, sheds=0.6, flats=0.12),  # dense
    Neighbourhood(bend=60, lot=(84, 116), depth=(120, 160), trees=8, shops=0, flats=0),  # woods
    Neighbourhood(bend=10, shops=0.55, flats=0.14, trees=2.8, parks=0.07),
    Neighbourhood(bend=26, lot=(60, 92), trees=4.4, shops=0.18, flats=0.16, parks=0.09),
)


def _conditions(rng: np.random.Generator) -> Conditions:
    """Draw season, air and camera, which differ between tiles as between flights."""
    red, green, blue = (1 + rng.normal(0, 0.018, 3)).tolist()
    return Conditions(
        green=rng.uniform(0.15, 0.85),
        haze=rng.uniform(0.0, 0.12),
        cast=(red, green, blue),
        gamma=rng.uniform(0.88, 1.12),
        contrast=rng.uniform(0.92, 1.18),
        blur=rng.uniform(0.3, 0.62),
        noise=rng.uniform(1.2, 3.4),
        quality=int(rng.integers(84, 97)),
        ambient=rng.uniform(0.24, 0.38),
    )


class _Layout:
    """Fills the scene of one tile; ``size`` is the side of the tile in pixels."""

    def __init__(self, rng: np.random.Generator, size: int, kind: Neighbourhood) -> None:
        self.rng = rng
        self.size = size
        self.kind = kind
        self.reach = 0.75 * size + 120  # half the side of the plan, which covers the turned tile
        self.half = size / 2 + 60  # objects further from the centre than this are not visible
        sun = Sun(rng.uniform(125, 235), rng.uniform(32, 56))
        self.scene = Scene(sun, _conditions(rng))
        self.plan = Plan(
            angle=rng.uniform(-math.pi / 2, math.pi / 2),
            bend=kind.bend * rng.uniform(0.7, 1.3),
            wave=rng.uniform(620, 1300),
            phase=(rng.uniform(0, 6.3), rng.uniform(0, 6.3)),
        )
        self.asphalt = pick(rng, ASPHALT, 4)
        self.street = rng.uniform(25, 33)

    # -- small things -------------------------------------------------------------------------

    def _visible(self, x: float, y: float) -> bool:
        return abs(x) < self.half and abs(y) < self.half

    def _paint(self, outline: Points, colour: Colour, material: Material, width: float = 0) -> None:
        self.scene.surfaces.append(Surface(outline, colour, material, width))

    def _build(self, building: Building, boxes: list[Box]) -> None:
        self.scene.buildings.append(building)
        self.scene.boxes.extend(boxes)

    def tree(self, x: float, y: float, big: float = 1.0) -> None:
        """Plant one tree."""
        if not self._visible(x, y):
            return
        rng = self.rng
        radius = min(30.0, max(5.0, rng.gamma(4.5, 3.2) * big))
        is_bare = bool(rng.random() < self.kind.bare and radius > 7)
        palette = BARK if is_bare else (AUTUMN if rng.random() < 0.18 else EVERGREEN)
        height = 2.0 + 0.42 * radius * rng.uniform(0.8, 1.25)
        self.scene.trees.append(Tree(x, y, radius, height, pick(rng, palette, 7), is_bare))

    def grove(self, s0: float, s1: float, t0: float, t1: float, spacing: float) -> None:
        """Plant trees at random in an area, about ``spacing`` pixels apart."""
        rng = self.rng
        count = int(abs((s1 - s0) * (t1 - t0)) / spacing**2)
        for _ in range(count):
            x, y = self.plan.at(rng.uniform(s0, s1), rng.uniform(t0, t1))[0]
            self.tree(x, y, 1.15)

    def car(self, x: float, y: float, angle: float) -> None:
        """Park a car, or sometimes a truck."""
        if not self._visible(x, y):
            return
        make = truck if self.rng.random() < 0.04 else car
        self.scene.boxes.extend(make(self.rng, x, y, angle))

    # -- streets ------------------------------------------------------------------------------

    def lines(self, gaps: tuple[float, float], hole: float) -> list[float]:
        """Draw the positions of parallel streets across the plan.

        Args:
            gaps: least and greatest gap between two streets, pixels.
            hole: width of the gap in the middle of the plan; 0 for an ordinary gap.
        """
        rng = self.rng
        start = -hole / 2 if hole else -rng.uniform(0.2, 0.8) * gaps[0]
        positions = [start]
        while positions[0] > -self.reach:
            positions.insert(0, positions[0] - self.street - rng.uniform(*gaps))
        positions.append(start + hole if hole else start + self.street + rng.uniform(*gaps))
        while positions[-1] < self.reach:
            positions.append(positions[-1] + self.street + rng.uniform(*gaps))
        return positions

    def streets(self, s_lines: list[float], t_lines: list[float]) -> None:
        """Make the streets: pavements, kerbs, asphalt with repairs, markings and moving cars."""
        rng, plan, far = self.rng, self.plan, self.reach
        roads = [plan.line(-far, t, far, t) for t in t_lines]
        roads += [plan.line(s, -far, s, far) for s in s_lines]
        walk = pick(rng, CONCRETE, 6)
        verge = pick(rng, LAWN, 5)
        strips = [(verge, Material.GRASS, 14)]
        if rng.random() < 0.7:
            strips += [(walk, Material.CONCRETE, 12), (verge, Material.GRASS, 7)]
        strips += [(walk, Material.CONCRETE, 2), (self.asphalt, Material.ASPHALT, 0)]
        for colour, material, wider in strips:
            for road in roads:
                self._paint(road, colour, material, self.street + wider)
        dark, light = toned(self.asphalt, 0.86), toned(self.asphalt, 1.1)
        for road in roads:
            for _ in range(rng.integers(2, 9)):  # repairs and seams
                begin = int(rng.integers(0, max(1, len(road) - 4)))
                shift = rng.uniform(-0.35, 0.35) * self.street
                normal = normals(road) * shift
                piece = (road + normal)[begin : begin + int(rng.integers(2, 14))]
                width = rng.choice([1, 1, 2, 5, 9])
                tone = dark if rng.random() < 0.6 else light
                self._paint(piece, tone, Material.ASPHALT, width)
        marked = rng.random() < 0.5
        for number, road in enumerate(roads):
            if marked and number < len(t_lines) and number % 2 == 0:
                self._paint(road, (176, 158, 96), Material.PAINT, 1)
            for _ in range(rng.poisson(len(road) / 16)):
                at = int(rng.integers(1, len(road) - 1))
                ahead = road[at + 1] - road[at - 1]
                side = rng.choice([-0.36, -0.2, 0.2, 0.36]) * self.street
                x, y = road[at] + normals(road)[at] * side
                self.car(x, y, math.atan2(ahead[1], ahead[0]))

    # -- blocks -------------------------------------------------------------------------------

    def homes(self, s0: float, s1: float, t0: float, t1: float) -> None:
        """Fill a block with two rows of lots, back to back."""
        middle = (t0 + t1) / 2 + self.rng.uniform(-6, 6)
        for front, back in ((t0, middle), (t1, middle)):
            s = s0
            while s1 - s > 40:
                width = self.rng.uniform(*self.kind.lot)
                end = s1 if s1 - s < 1.5 * width else s + width
                x, y = self.plan.at((s + end) / 2, (front + back) / 2)[0]
                if self._visible(x, y):
                    self.lot(s, end, front, back)
                s = end

    def lot(self, s0: float, s1: float, front: float, back: float) -> None:
        """Make one lot: lawn, house, drive, shed, pool, fences, trees and things lying about."""
        rng, plan, kind = self.rng, self.plan, self.kind
        way = 1.0 if back > front else -1.0
        depth, width = abs(back - front), s1 - s0
        bare_soil = rng.random() < 0.10
        green = pick(rng, SOIL if bare_soil else LAWN, 6)
        share = self.scene.conditions.green
        if not bare_soil:  # dry lawns turn to straw
            green = mixed(STRAW, green, share)
        if rng.random() < 0.8:
            material = Material.SOIL if bare_soil else Material.GRASS
            self._paint(plan.area(s0, s1, front, back), green, material)
        if rng.random() < 0.5:
            yard = pick(rng, SOIL if rng.random() < 0.5 else LAWN, 8)
            self._paint(plan.area(s0, s1, front + way * depth * 0.6, back), yard, Material.SOIL)

        def spot(across: float, deep: float) -> tuple[float, float, float]:
            """Position on the tile, and the direction of the lot.

            ``across`` is a share of the lot's width, ``deep`` a distance from the kerb in pixels.
            """
            x, y, angle = plan.frame(s0 + across * width, front + way * deep)
            return x, y, angle if way > 0 else angle + math.pi

        setback = rng.uniform(14, 28) if depth > 96 else rng.uniform(9, 17)
        long = min(width - 7, rng.uniform(44, 66) * max(1.0, width / 88))
        deep = min(depth - setback - 14, rng.uniform(36, 52))
        x, y, angle = spot(0.5 + rng.uniform(-0.05, 0.05), setback + deep / 2)
        angle += rng.normal(0, 0.02 if kind.bend == 0 else 0.06)
        if rng.random() < kind.built:
            self._build(*house(rng, x, y, angle, long, deep, kind.tall))
        elif rng.random() < 0.6:  # a slab without its house
            slab = rectangle(x, y, long, deep, angle)
            self._paint(slab, pick(rng, CONCRETE, 12), Material.CONCRETE)

        # The drive leads to one end of the house, where its garage would be.
        side = 0.24 if rng.random() < 0.5 else 0.76
        paving = pick(rng, ASPHALT if rng.random() < 0.25 else CONCRETE, 9)
        half = rng.uniform(4.5, 9) / width
        end = setback + (2 if rng.random() < 0.6 else deep * rng.uniform(0.4, 1.2))
        corners = (s0 + (side - half) * width, s0 + (side + half) * width)
        drive = plan.area(*corners, front - way * 10, front + way * end)
        # It may reach under the house: buildings are drawn over surfaces.
        self._paint(drive, paving, Material.CONCRETE)
        for _ in range(int(rng.choice([0, 1, 1, 2]))):
            across = side + rng.uniform(-0.04, 0.04)
            cx, cy, turn = spot(across, setback * rng.uniform(0.2, 0.7))
            self.car(cx, cy, turn + math.pi / 2 + rng.normal(0, 0.05))

        rear = setback + deep
        room = depth - rear
        if rng.random() < 0.35:  # a terrace or a slab, which looks like a flat roof
            px, py, turn = spot(rng.uniform(0.3, 0.7), rear + rng.uniform(3, 9))
            slab = rectangle(px, py, rng.uniform(14, 30), rng.uniform(10, 18), turn)
            self._paint(slab, pick(rng, CONCRETE, 12), Material.CONCRETE)
        if room > 34 and rng.random() < 0.10:
            self.pool(*spot(rng.uniform(0.35, 0.65), rear + room * 0.5))
        if room > 22 and rng.random() < kind.sheds:
            hx, hy, turn = spot(rng.choice([0.17, 0.83]), depth - rng.uniform(12, 18))
            self.scene.buildings.append(shed(rng, hx, hy, turn))
        elif room > 22 and rng.random() < 0.15:
            hx, hy, turn = spot(rng.choice([0.2, 0.8]), depth - rng.uniform(12, 18))
            slab = rectangle(hx, hy, rng.uniform(12, 20), rng.uniform(10, 16), turn)
            self._paint(slab, pick(rng, CONCRETE, 14), Material.CONCRETE)
        for _ in range(rng.poisson(0.6)):  # things lying about
            gx, gy, turn = spot(rng.uniform(0.1, 0.9), rng.uniform(rear, depth))
            long_side, short_side = rng.uniform(3, 8, 2)
            junk = rectangle(gx, gy, long_side, short_side, turn + rng.uniform(0, 3))
            tone = pick(rng, (*CONCRETE, (96, 110, 140), (170, 80, 70), (70, 70, 70)), 14)
            self.scene.boxes.append(Box(junk, tone, rng.uniform(0.4, 1.6)))
        if rng.random() < 0.6:
            fence = pick(rng, ((126, 108, 92), (150, 140, 126), (98, 88, 80)), 8)
            for s in (s0, s1):
                line = plan.area(s - 0.5, s + 0.5, front + way * rear, back)
                self.scene.boxes.append(Box(line, fence, 1.7))
            self.scene.boxes.append(Box(plan.area(s0, s1, back - 0.5, back + 0.5), fence, 1.7))

        for _ in range(rng.poisson(kind.trees)):
            deep_at = depth * rng.beta(1.6, 1.1)
            tx, ty, _ = spot(rng.uniform(-0.02, 1.02), deep_at)
            self.tree(tx, ty)
        for _ in range(rng.poisson(2.5)):  # shrubs along the walls
            u, v = rng.uniform(-0.6, 0.6) * long, rng.choice([-1, 1]) * (deep / 2 + 2)
            bx, by = place(x, y, angle, [u], [v])[0]
            self.scene.trees.append(
                Tree(bx, by, rng.uniform(2, 4.5), 1.4, pick(rng, EVERGREEN, 10), False)
            )

    def pool(self, x: float, y: float, angle: float) -> None:
        """Make a swimming pool with its deck."""
        rng = self.rng
        long, wide = rng.uniform(16, 30), rng.uniform(9, 14)
        deck = rectangle(x, y, long + 12, wide + 10, angle)
        self._paint(deck, pick(rng, CONCRETE, 8), Material.CONCRETE)
        turns = np.linspace(0, 2 * math.pi, 20, endpoint=False)
        power = rng.choice([0.35, 1.0])  # nearly a rectangle, or an oval
        u = np.sign(np.cos(turns)) * np.abs(np.cos(turns)) ** power * long / 2
        v = np.sign(np.sin(turns)) * np.abs(np.sin(turns)) ** power * wide / 2
        water = pick(rng, ((92, 166, 186), (70, 140, 170), (60, 92, 88)), 8)
        self._paint(place(x, y, angle, u, v), water, Material.WATER)

    def parking(self, s0: float, s1: float, t0: float, t1: float, full: float) -> None:
        """Make a car park: rows of marked bays, a share ``full`` of them with cars, and trees."""
        rng, plan = self.rng, self.plan
        tone = pick(rng, ASPHALT if rng.random() < 0.7 else CONCRETE, 8)
        self._paint(plan.area(s0, s1, t0, t1), tone, Material.ASPHALT)
        line = pick(rng, (PAINT_WHITE, (190, 178, 120)), 8)
        bay, deep = 8.6, 17.0
        t = min(t0, t1) + 2
        stop = max(t0, t1)
        while t + deep < stop:
            for row in (t, t + deep):
                if row + deep > stop:
                    break
                for s in np.arange(s0 + 8, s1 - 8, bay):
                    mark = plan.at(np.array([s, s]), np.array([row, row + deep]))
                    self._paint(mark, line, Material.PAINT, 1)
                    if rng.random() < full and s + bay < s1 - 8:
                        x, y, angle = plan.frame(s + bay / 2, row + deep / 2 + rng.uniform(-1, 1))
                        nose_in = math.pi if rng.random() < 0.5 else 0.0
                        self.car(x, y, angle + math.pi / 2 + nose_in)
            self._paint(plan.line(s0 + 8, t + deep, s1 - 8, t + deep), line, Material.PAINT, 1)
            for s in np.arange(s0 + 60, s1 - 20, 110):
                if rng.random() < 0.6:
                    island = plan.area(s, s + bay, t + 2, t + 2 * deep - 2)
                    self._paint(island, pick(rng, LAWN, 8), Material.GRASS)
                    x, y = plan.at(s + bay / 2, t + deep)[0]
                    self.tree(x, y, 0.7)
            t += 2 * deep + 22

    def shops(self, s0: float, s1: float, t0: float, t1: float) -> None:
        """Fill a block with shops, which have large flat roofs, and their car park."""
        rng, plan = self.rng, self.plan
        margin = 6
        s0, s1, t0, t1 = s0 + margin, s1 - margin, t0 + margin, t1 - margin
        share = rng.uniform(0.35, 0.62)
        if rng.random() < 0.5:
            split = t0 + share * (t1 - t0)
            built, lot = (t0, split), (split, t1)
        else:
            split = t1 - share * (t1 - t0)
            built, lot = (split, t1), (t0, split)
        self.parking(s0, s1, *lot, full=rng.uniform(0.15, 0.7))
        yard = pick(rng, (*CONCRETE, *ASPHALT), 8)
        self._paint(plan.area(s0, s1, *built), yard, Material.CONCRETE)
        s = s0 + 4
        while s1 - s > 50:
            length = min(s1 - s - 4, rng.uniform(70, 240))
            deep = (built[1] - built[0]) * rng.uniform(0.62, 0.9)
            x, y, angle = plan.frame(s + length / 2, (built[0] + built[1]) / 2)
            if self._visible(x, y) or length > 120:
                self._build(*shop(rng, x, y, angle, length, deep))
            s += length + rng.choice([3, 14, 26])
        for _ in range(int((s1 - s0) / 50)):
            x, y = plan.at(rng.uniform(s0, s1), t0 if rng.random() < 0.5 else t1)[0]
            self.tree(x, y, 0.8)

    def flats(self, s0: float, s1: float, t0: float, t1: float) -> None:
        """Fill a block with rows of long buildings, with car parks or pools between them."""
        rng, plan = self.rng, self.plan
        self._paint(plan.area(s0, s1, t0, t1), pick(rng, LAWN, 8), Material.GRASS)
        deep = rng.uniform(36, 50)
        colour_seed = rng.integers(1 << 30)  # the blocks of one estate look alike
        t = t0 + 8 + deep / 2
        while t + deep / 2 < t1 - 4:
            s = s0 + 10
            while s1 - s > 70:
                length = min(s1 - s - 8, rng.uniform(80, 150))
                x, y, angle = plan.frame(s + length / 2, t)
                if self._visible(x, y) or length > 100:
                    alike = np.random.default_rng(colour_seed)
                    self._build(*apartments(alike, x, y, angle, length, deep))
                s += length + rng.uniform(12, 30)
            t += deep / 2
            if t1 - t > 60 + deep:
                if rng.random() < 0.75:
                    self.parking(s0 + 6, s1 - 6, t + 8, t + 48, full=0.6)
                else:
                    self.pool(*plan.frame((s0 + s1) / 2, t + 28))
            t += 56 + deep / 2
        self.grove(s0, s1, t0, t1, 55)

    def court(self, s: float, t: float) -> None:
        """Make a tennis or basketball court: a painted rectangle as large as a roof."""
        rng, plan = self.rng, self.plan
        x, y, angle = plan.frame(s, t)
        angle += math.pi / 2 if rng.random() < 0.5 else 0.0
        long, wide = (120.0, 60.0) if rng.random() < 0.5 else (93.0, 50.0)
        self._paint(rectangle(x, y, long, wide, angle), pick(rng, COURT, 8), Material.PAINT)
        inner = pick(rng, COURT, 8)
        self._paint(rectangle(x, y, long * 0.66, wide * 0.6, angle), inner, Material.PAINT)
        for a, b in ((0.66, 0.6), (0.0, 0.6), (0.66, 0.0), (0.36, 0.46)):
            box = rectangle(x, y, long * a, wide * b, angle)
            self._paint(np.vstack([box, box[:1]]), PAINT_WHITE, Material.PAINT, 1)

    def open_ground(self, s0: float, s1: float, t0: float, t1: float, use: str) -> None:
        """Fill a block without buildings: a ``park``, ``field``, ``pond`` or ``car park``."""
        rng, plan = self.rng, self.plan
        s_mid, t_mid = (s0 + s1) / 2, (t0 + t1) / 2
        spread_s, spread_t = (s1 - s0) / 2, (t1 - t0) / 2
        if use == "car park":
            self.parking(s0 + 6, s1 - 6, t0 + 6, t1 - 6, full=rng.uniform(0.25, 0.6))
            return
        if rng.random() < 0.6:
            self._paint(plan.area(s0, s1, t0, t1), pick(rng, LAWN, 8), Material.GRASS)
        turns = np.linspace(0, 2 * math.pi, 48, endpoint=False)

        def blob(s: float, t: float, radius: float) -> Points:
            ring = np.ones_like(turns)
            for k in (2, 3, 4, 5):
                ring += rng.normal(0, 0.22 / k) * np.cos(k * turns + rng.uniform(0, 6))
            return plan.at(s + radius * ring * np.cos(turns), t + radius * ring * np.sin(turns))

        def inside(share: float) -> tuple[float, float]:
            s, t = rng.uniform(-share, share, 2)
            return s_mid + s * spread_s, t_mid + t * spread_t

        small = min(spread_s, spread_t)
        for _ in range(rng.integers(2, 7)):  # worn patches
            tone = pick(rng, SOIL if rng.random() < 0.5 else LAWN, 10)
            patch = blob(*inside(0.8), rng.uniform(0.08, 0.25) * small)
            self._paint(patch, tone, Material.SOIL)
        if use == "field":
            tone = pick(rng, SOIL, 10)
            self._paint(plan.area(s0 + 20, s1 - 20, t0 + 20, t1 - 20), tone, Material.SOIL)
            for t in np.arange(t0 + 24, t1 - 22, rng.uniform(7, 12)):
                furrow = plan.line(s0 + 22, t, s1 - 22, t)
                shade = toned(tone, rng.uniform(0.9, 1.06))
                self._paint(furrow, shade, Material.SOIL, rng.uniform(2, 6))
            self.grove(s0, s1, t0, t0 + 20, 26)
            return
        path = pick(rng, CONCRETE, 10)
        bow = np.linspace(-1, 1, 30)
        swing = 0.7 * np.sin(2.2 * bow + rng.uniform(0, 6))
        curve = plan.at(s_mid + bow * spread_s, t_mid + swing * spread_t)
        self._paint(curve, path, Material.CONCRETE, rng.uniform(5, 9))
        if use == "pond":
            pond = blob(s_mid + rng.uniform(-0.2, 0.2) * spread_s, t_mid, 0.52 * small)
            self._paint(pond, pick(rng, SOIL, 10), Material.SOIL)
            centre = pond.mean(0)
            water = pick(rng, ((58, 70, 66), (76, 84, 76), (46, 60, 64)), 6)
            self._paint(centre + 0.95 * (pond - centre), water, Material.WATER)
        elif small > 60:
            for _ in range(int(rng.integers(1, 5)) if small > 150 else 1):
                self.court(*inside(0.6))
        for _ in range(int((s1 - s0) * (t1 - t0) / 4200)):
            s, t = rng.uniform(s0, s1), rng.uniform(t0, t1)
            edge = max(abs(s - s_mid) / spread_s, abs(t - t_mid) / spread_t)
            if edge > (0.62 if use == "pond" else 0.3) * rng.random() ** 0.3:
                x, y = plan.at(s, t)[0]
                self.tree(x, y)

    def fill(self, centre: str | None) -> Scene:
        """Lay out the whole tile; for ``centre`` see `lay_out`."""
        rng, kind = self.rng, self.kind
        hole = min(CENTRE, 0.55 * self.size) if centre else 0.0
        t_lines = self.lines((2 * kind.depth[0], 2 * kind.depth[1]), hole)
        s_lines = self.lines((5 * kind.lot[0], 10 * kind.lot[1]), hole)
        self.streets(s_lines, t_lines)
        gap = self.street / 2 + 7
        for s0, s1 in pairwise(s_lines):
            for t0, t1 in pairwise(t_lines):
                block = (s0 + gap, s1 - gap, t0 + gap, t1 - gap)
                if min(s1 - s0, t1 - t0) < 2 * gap + 40:
                    continue  # the open centre of a tiny tile can be as narrow as a street
                use = rng.random()
                if s0 < 0 < s1 and t0 < 0 < t1:
                    if centre:
                        self.open_ground(*block, centre)
                        continue
                    use += kind.parks  # the block in the middle is open only if `centre` is given
                if use < kind.parks:
                    self.open_ground(*block, str(rng.choice(["park", "field", "pond"])))
                elif use < kind.parks + kind.shops:
                    self.shops(*block)
                elif use < kind.parks + kind.shops + kind.flats:
                    self.flats(*block)
                else:
                    self.homes(*block)
        self.scene.trees[:] = _outside_roofs(self.scene.trees, self.scene.buildings)
        return self.scene


def _outside_roofs(trees: list[Tree], buildings: list[Building]) -> list[Tree]:
    """Leave out trees that would grow out of a roof; crowns may hang over its edges."""
    at = np.array([(tree.x, tree.y) for tree in trees]).reshape(-1, 2)
    free = np.ones(len(trees), bool)
    for building in buildings:
        x, y = (at - (building.x, building.y)).T
        u, v = unturned(building.angle, x, y)
        for wing in building.wings:
            in_u = np.abs(u - wing.u) < wing.length / 2 - 2
            free &= ~(in_u & (np.abs(v - wing.v) < wing.width / 2 - 2))
    return [tree for tree, kept in zip(trees, free, strict=True) if kept]


def lay_out(rng: np.random.Generator, size: int, index: int, centre: str | None) -> Scene:
    """Lay out one tile.

    Args:
        rng: the source of every random choice.
        size: side of the tile in pixels.
        index: number of the tile. Neighbourhoods follow each other in turn, so that every split has
            every kind.
        centre: the open ground in the middle of the tile, ``park``, ``field``, ``pond`` or
            ``car park``; None for an ordinary block.
    """
    kind = NEIGHBOURHOODS[index % len(NEIGHBOURHOODS)]
    kind = replace(kind, bare=rng.uniform(0.15, 0.75), trees=kind.trees * rng.uniform(0.6, 1.3))
    return _Layout(rng, size, kind).fill(centre)
