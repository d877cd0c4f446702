"""Draw a scene as a camera would see it from above: one height field, one sun, one sensor.

All objects are written into one height field, and the light is computed from it: the faces of a
roof are lit by their normals (Lambert's law), and a point lies in shadow if the height field rises
above the ray from the point to the sun. So every shadow agrees with the sun.

A tile has the same bytes on every CPU of one architecture. OpenCV runs its baseline code
(`roofseg.core.images.portable_opencv`). The last bits of NumPy's sines, cosines and powers depend
on the CPU's instruction set; they are computed in float64 and rounded to float32, which drops those
bits. Lengths are ``sqrt(x * x + y * y)``, whose rounding IEEE 754 prescribes.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from roofseg.core.images import Image, portable_opencv
from roofseg.synthetic.scene import (
    GSD,
    Box,
    Building,
    Colour,
    Cover,
    Material,
    Points,
    Roof,
    Scene,
    Sun,
    Surface,
    Tree,
    unturned,
)

Field = npt.NDArray[np.float32]  # (H, W) unless said otherwise

# Pixels that are drawn around the tile and then cut off, so that shadows and crowns reach into the
# tile. Only the ends of the longest shadows, of tall trees under a low sun, are lost.
MARGIN = 40
_SHIFT = 4  # cv2 draws polygons on a grid of 1/16 pixel
_STAMP = 64  # side of a tree's stamp before it is scaled to the tree

# How strongly the fine and the coarse noise show on each material, as a share of its brightness.
_TEXTURE = {
    Material.GRASS: (0.13, 0.16),
    Material.SOIL: (0.11, 0.15),
    Material.ASPHALT: (0.045, 0.08),
    Material.CONCRETE: (0.05, 0.07),
    Material.WATER: (0.02, 0.05),
    Material.PAINT: (0.03, 0.04),
}


def noise(rng: np.random.Generator, size: int, cells: tuple[float, ...]) -> Field:
    """Make a smooth random field (size, size) with mean 0 and standard deviation 1, about.

    It is the sum of random grids with the given sizes of cells (pixels), each scaled up to the tile
    and weighted by the root of its cell size, so that large forms are stronger than small ones.
    """
    total = np.zeros((size, size), np.float32)
    power = 0.0
    for cell in cells:
        side = max(2, math.ceil(size / cell) + 1)
        grid = rng.standard_normal((side, side), dtype=np.float32)
        weight = math.sqrt(cell)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR) * weight
        power += weight**2 * (1.0 if cell <= 1 else 4 / 9)  # linear interpolation halves variance
    return total / np.float32(math.sqrt(power))


def _cosine(angle: npt.NDArray[np.floating]) -> Field:
    """Cosine of an angle in radians, computed in float64 (see the module's docstring)."""
    return np.cos(angle, dtype=np.float64).astype(np.float32)


def cast_shadow(height: Field, sun: Sun) -> Field:
    """Compute the share of sunlight that the height field takes from each pixel.

    A pixel p is dark below the maximum over distances d of ``height(p + d * towards) - d * slope``.
    The maximum is built by doubling (d = 1, 2, 4, ...), so that a shadow of n pixels costs log2(n)
    shifts. ``height`` is (H, W) metres above the ground; the result is (H, W), from 0 (lit) to 1
    (dark).
    """
    x, y = sun.towards
    fall = sun.slope * GSD  # metres per pixel
    reach = float(height.max()) / fall
    ray = height
    step = 1.0
    while step < reach + 1:
        move = np.array([[1, 0, step * x], [0, 1, step * y]], np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        shifted = cv2.warpAffine(
            ray, move, ray.shape[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )
        ray = np.maximum(ray, shifted - np.float32(step * fall))
        step *= 2
    # The ramp, as high as the fall of one pixel, makes the edge soft, as the disc of the sun does.
    return np.clip((ray - height - 0.05) / np.float32(fall), 0, 1)


class _Canvas:
    """The layers of a tile while it is drawn: (H, W) arrays that include the margin."""

    def __init__(self, scene: Scene, size: int, rng: np.random.Generator) -> None:
        side = size + 2 * MARGIN
        self.centre = side / 2
        self.sun = scene.sun
        self.fine = noise(rng, side, (1.0, 2.2))
        self.coarse = noise(rng, side, (9.0, 27.0, 90.0))
        self.broad = noise(rng, side, (60.0, 220.0))
        self.albedo = self._wild(scene.conditions.green)
        self.height = np.zeros((side, side), np.float32)
        self.lit = np.ones((side, side), np.float32)  # brightness of the slope against the level
        self.veil = np.zeros((side, side), np.float32)  # shade of bare branches
        self.mask = np.zeros((side, side), np.uint8)

    def _wild(self, green: float) -> Field:
        """Make the colours of unpaved ground, (H, W, 3): grass, straw and bare soil in patches."""
        straw = np.array((108, 105, 86), np.float32)
        grass = np.array((80, 91, 62), np.float32)
        soil = np.array((126, 116, 99), np.float32)
        share = np.clip(green + 0.35 * self.broad + 0.15 * self.coarse, 0, 1)[..., None]
        bare = np.clip(0.9 * self.coarse - 0.9 * self.broad - 1.3, 0, 0.8)[..., None]
        ground = straw + (grass - straw) * share
        return np.asarray(ground + (soil - ground) * bare, np.float32)

    def grid(self, points: Points) -> npt.NDArray[np.int32]:
        """Convert positions on the tile to the fixed-point coordinates of cv2."""
        # In cv2 whole numbers are the centres of pixels.
        return np.round((points + self.centre - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def window(self, points: Points) -> tuple[slice, slice, Field, Field] | None:
        """The rows and columns that hold ``points``, and x and y of the centres of their pixels.

        None if all points are outside the canvas.
        """
        side = self.height.shape[0]
        low = np.maximum(np.floor(points.min(0) + self.centre - 1.5).astype(int), 0)
        high = np.minimum(np.ceil(points.max(0) + self.centre + 1.5).astype(int), side)
        if (high <= low).any():
            return None
        x = (np.arange(low[0], high[0]) + (0.5 - self.centre)).astype(np.float32)[None, :]
        y = (np.arange(low[1], high[1]) + (0.5 - self.centre)).astype(np.float32)[:, None]
        return slice(low[1], high[1]), slice(low[0], high[0]), x, y


def _draw_ground(canvas: _Canvas, surfaces: list[Surface]) -> None:
    """Paint the surfaces in their order, then add the texture of each material."""
    side = canvas.height.shape[0]
    paint = np.zeros((side, side, 4), np.uint8)  # red, green, blue and coverage
    material = np.zeros((side, side), np.uint8)
    for surface in surfaces:
        points = [canvas.grid(surface.outline)]
        label, coat = (int(surface.material),), (*surface.colour, 255.0)
        if surface.width:
            thick = max(1, round(surface.width))
            cv2.polylines(paint, points, False, coat, thick, cv2.LINE_AA, _SHIFT)
            cv2.polylines(material, points, False, label, thick, cv2.LINE_8, _SHIFT)
        else:
            cv2.fillPoly(paint, points, coat, cv2.LINE_AA, _SHIFT)
            cv2.fillPoly(material, points, label, cv2.LINE_8, _SHIFT)
    # Grass and soil let 40 % of the ground below show through, so that gardens share its patches.
    keep = np.where(material <= Material.SOIL, np.float32(0.4), np.float32(0))[..., None]
    share = paint[..., 3:].astype(np.float32) / 255
    # Paint was drawn on black, so its antialiased edges are already multiplied by their coverage.
    canvas.albedo *= 1 - share * (1 - keep)
    canvas.albedo += paint[..., :3] * (1 - keep)
    strengths = np.array([_TEXTURE[kind] for kind in Material], np.float32)
    fine, coarse = strengths[material, 0], strengths[material, 1]
    texture = 1 + fine * canvas.fine + coarse * canvas.coarse * 0.6 + coarse * canvas.broad * 0.4
    canvas.albedo *= np.clip(texture, 0.45, 1.6)[..., None]


def _draw_building(canvas: _Canvas, building: Building, streak: Field) -> None:
    """Draw one building: the height of its roof, the light on its faces, its colour and mask."""
    wings = building.wings
    reach_u = [w.u + sign * w.length / 2 for w in wings for sign in (-1, 1, -1, 1)]
    reach_v = [w.v + sign * w.width / 2 for w in wings for sign in (-1, -1, 1, 1)]
    window = canvas.window(building.place(reach_u, reach_v))
    if window is None:
        return
    rows, columns, x, y = window
    u, v = unturned(building.angle, x - np.float32(building.x), y - np.float32(building.y))

    shape = u.shape
    top = np.full(shape, -1, np.float32)
    edge = np.full(shape, -9, np.float32)  # distance (pixels) inside the outline
    slope_u, slope_v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    along = np.zeros(shape, np.float32)  # coordinate along the eaves, for streaks and seams
    ridge = np.zeros(shape, bool)
    for wing in wings:
        du, dv = u - np.float32(wing.u), v - np.float32(wing.v)
        in_u, in_v = wing.length / 2 - np.abs(du), wing.width / 2 - np.abs(dv)
        inside = np.minimum(in_u, in_v)
        if wing.roof is Roof.FLAT:
            # A low parapet, two pixels wide.
            height = np.where(inside < 2, np.float32(wing.eave + 0.5), np.float32(wing.eave))
            falls_u = np.zeros(shape, bool)
            pitch, cap = 0.0, np.zeros(shape, bool)
        else:
            if wing.roof is Roof.HIP:
                falls_u = in_u < in_v
                rise = inside
            else:
                falls_u = np.full(shape, wing.across)
                rise = in_u if wing.across else in_v
            height = np.float32(wing.eave) + np.float32(wing.pitch * GSD) * rise
            half = (wing.length if wing.across else min(wing.width, wing.length)) / 2
            pitch, cap = wing.pitch, rise > half - 0.7
        upper = (inside > -0.5) & (height > top)
        top = np.where(upper, height, top)
        slope_u = np.where(upper, np.where(falls_u, -np.sign(du) * pitch, 0), slope_u)
        slope_v = np.where(upper, np.where(falls_u, 0, -np.sign(dv) * pitch), slope_v)
        along = np.where(upper, np.where(falls_u, dv, du), along)
        ridge = np.where(upper, cap, ridge)
        edge = np.maximum(edge, inside)

    # Lambert's law relative to level ground: n . s / s_z, with the normal n = (-slope, 1) / |.|.
    sun_u, sun_v = unturned(building.angle, *canvas.sun.towards)
    facing = 1 - (slope_u * sun_u + slope_v * sun_v) / np.float32(canvas.sun.slope)
    lit = np.clip(facing, 0.05, None) / np.sqrt(1 + slope_u**2 + slope_v**2)

    fine, coarse = canvas.fine[rows, columns], canvas.coarse[rows, columns]
    broad = canvas.broad[rows, columns]
    lines = streak[(along * 2 + len(streak) // 2).astype(np.int64) % len(streak)]
    if building.cover is Cover.SHINGLE:
        tone = 1 + 0.06 * fine + 0.08 * coarse + 0.03 * lines + 0.05 * ridge
    elif building.cover is Cover.METAL:
        seams = _cosine(along * (2 * math.pi / 4.2))
        tone = 1 + 0.02 * fine + 0.05 * coarse + 0.035 * lines + 0.035 * seams + 0.05 * ridge
    else:
        stain = np.clip(-coarse - 0.4, 0, 2)  # where water stands after rain
        tone = 1 + 0.035 * fine + 0.05 * coarse + 0.05 * broad - 0.07 * stain
        tone += 0.10 * ((edge < 2) & (edge > 0.8))
    share = np.clip(edge + 0.5, 0, 1)[..., None]  # coverage of a pixel by the footprint
    colour = np.asarray(building.colour, np.float32) * np.clip(tone, 0.5, 1.5)[..., None]
    albedo = canvas.albedo[rows, columns]
    albedo += (colour - albedo) * share
    level = canvas.lit[rows, columns]
    level += (lit - level) * share[..., 0]
    inside_all = edge >= 0
    below = canvas.height[rows, columns]
    np.maximum(below, top, out=below, where=inside_all)
    canvas.mask[rows, columns] |= inside_all.astype(np.uint8)


def _draw_boxes(canvas: _Canvas, boxes: list[Box]) -> None:
    """Paint the boxes in their order and raise the height field to their tops."""
    side = canvas.height.shape[0]
    paint = np.zeros((side, side, 4), np.uint8)
    tops = np.zeros((side, side), np.float32)
    for box in boxes:
        points = [canvas.grid(box.outline)]
        cv2.fillPoly(paint, points, (*box.colour, 255.0), cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(tops, points, (box.top,), cv2.LINE_8, _SHIFT)
    canvas.albedo *= 1 - paint[..., 3:].astype(np.float32) / 255
    canvas.albedo += paint[..., :3]
    np.maximum(canvas.height, tops, out=canvas.height)


def _crowns(rng: np.random.Generator, count: int) -> list[Field]:
    """Make stamps of closed, ragged crowns: height from 0 (no crown) to about 1."""
    axis = np.linspace(-1.05, 1.05, _STAMP)
    radius = np.sqrt(axis[None, :] ** 2 + axis[:, None] ** 2).astype(np.float32)
    angle = np.arctan2(axis[:, None], axis[None, :])
    stamps = []
    for _ in range(count):
        reach = np.full_like(radius, 0.86)
        for wave in range(2, 7):
            swing = np.float32(rng.normal(0, 0.16 / wave))
            reach += swing * _cosine(wave * angle + rng.uniform(0, 2 * math.pi))
        dome = np.sqrt(np.clip(1 - (radius / reach) ** 2, 0, None))
        clumps = noise(rng, _STAMP, (4.0, 9.0, 16.0))
        crown = dome * (0.8 + 0.2 * clumps) + 0.10 * noise(rng, _STAMP, (3.0,)) * (dome > 0)
        stamps.append(np.clip(crown - 0.08, 0, None).astype(np.float32) * (dome > 0.12))
    return stamps


def _branches(rng: np.random.Generator, count: int) -> list[Field]:
    """Make stamps of leafless crowns: coverage, in [0, 1], by limbs that fork several times."""
    stamps = []
    for _ in range(count):
        sheet = np.zeros((2 * _STAMP, 2 * _STAMP), np.uint8)
        limbs = int(rng.integers(5, 9))
        turns = np.arange(limbs) * (2 * math.pi / limbs) + rng.normal(0, 0.3, limbs)
        tips = [(float(_STAMP), float(_STAMP), turn) for turn in turns]
        length = _STAMP * 0.34
        for fork, thick in enumerate((4, 3, 2, 2, 1)):
            grown = []
            for x, y, angle in tips:
                for spread in (0.0,) if fork == 0 else (-0.42, 0.42):
                    turn = angle + rng.normal(spread, 0.22)
                    reach = length * rng.uniform(0.6, 1.15)
                    end = x + reach * math.cos(turn), y + reach * math.sin(turn)
                    ends = np.round(np.array([[(x, y)], [end]]) * (1 << _SHIFT)).astype(np.int32)
                    cv2.polylines(sheet, [ends], False, (255,), thick, cv2.LINE_AA, _SHIFT)
                    grown.append((*end, turn))
            tips, length = grown, length * 0.68
        stamps.append(np.asarray(sheet / 255, np.float32))
    return stamps


def _turned(stamp: Field, rng: np.random.Generator) -> Field:
    """Turn and flip a stamp at random."""
    turned = np.rot90(stamp, int(rng.integers(4)))
    return turned.T if rng.random() < 0.5 else turned


def _draw_trees(canvas: _Canvas, trees: list[Tree], rng: np.random.Generator) -> None:
    """Draw the trees over everything else: crowns hide and shade roofs, but the mask stays."""
    side = canvas.height.shape[0]
    crowns, branches = _crowns(rng, 16), _branches(rng, 10)
    height = np.zeros((side, side), np.float32)
    share = np.zeros((side, side), np.float32)
    colour = np.zeros((side, side, 3), np.float32)
    sun_x, sun_y = canvas.sun.towards

    def stamp_on(
        stamp: Field, x: float, y: float, half: int
    ) -> tuple[tuple[slice, slice], Field] | None:
        left, up = round(x + canvas.centre) - half, round(y + canvas.centre) - half
        x0, y0 = max(left, 0), max(up, 0)
        x1, y1 = min(left + 2 * half, side), min(up + 2 * half, side)
        if x0 >= x1 or y0 >= y1:
            return None
        return (slice(y0, y1), slice(x0, x1)), stamp[y0 - up : y1 - up, x0 - left : x1 - left]

    for tree in trees:
        half = max(2, round(tree.radius))
        kind = branches if tree.bare else crowns
        stamp = np.ascontiguousarray(_turned(kind[int(rng.integers(len(kind)))], rng))
        scaled = cv2.resize(stamp, (2 * half, 2 * half), interpolation=cv2.INTER_AREA)
        stamp = np.asarray(scaled, np.float32)
        put = stamp_on(stamp, tree.x, tree.y, half)
        if tree.bare:
            far = 0.7 * tree.height / canvas.sun.slope / GSD
            shade = stamp_on(stamp, tree.x - far * sun_x, tree.y - far * sun_y, half)
            if shade is not None:
                np.maximum(canvas.veil[shade[0]], 0.8 * shade[1], out=canvas.veil[shade[0]])
        if put is None:
            continue
        at, part = put
        if tree.bare:
            above = (part * 0.9 > share[at]) & (height[at] < tree.height)
            share[at][above] = part[above] * 0.9
        else:
            raised = part * np.float32(tree.height * 0.55) + np.float32(tree.height * 0.45)
            above = (part > 0.02) & (raised > height[at])
            height[at][above] = raised[above]
            share[at][above] = np.clip(part[above] * 5, 0, 0.97)
        colour[at][above] = tree.colour

    # Leaves that face the sun are brighter, by the slope of the canopy.
    smooth = cv2.GaussianBlur(height, (0, 0), 0.8)
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    slope_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    leafy = height > 0
    lit = np.clip(1 - 0.75 * (slope_x * sun_x + slope_y * sun_y), 0.35, 1.7)
    lit = np.where(leafy, lit, 1)
    mottle = np.clip(1 + 0.20 * canvas.fine + 0.12 * canvas.coarse, 0.4, 1.7)
    colour *= mottle[..., None]
    canvas.albedo += (colour - canvas.albedo) * share[..., None]
    canvas.lit += (lit - canvas.lit) * share
    np.maximum(canvas.height, height, out=canvas.height)


def _expose(canvas: _Canvas, scene: Scene, size: int, rng: np.random.Generator) -> Image:
    """Light the scene and take its picture: haze, colour cast, blur, noise, JPEG."""
    conditions = scene.conditions
    shadow = np.maximum(cast_shadow(canvas.height, scene.sun), canvas.veil)
    sunlight = cv2.GaussianBlur(canvas.lit * (1 - shadow), (0, 0), 0.6)
    inner = slice(MARGIN, MARGIN + size)
    sunlight, albedo = sunlight[inner, inner], canvas.albedo[inner, inner]
    sky: Colour = (0.90, 1.0, 1.14)  # a shadow is lit by the blue sky
    image = np.empty((size, size, 3), np.float32)
    for channel in range(3):
        ambient = conditions.ambient * sky[channel]
        light = ambient + (1 - conditions.ambient) * sunlight
        picture = albedo[..., channel] * light
        picture = picture * (1 - conditions.haze) + conditions.haze * (120, 128, 140)[channel]
        picture = ((picture - 100) * conditions.contrast + 100) * conditions.cast[channel]
        image[..., channel] = picture
    seen = np.asarray(cv2.GaussianBlur(image, (0, 0), conditions.blur), np.float32)
    toned = np.power(np.clip(seen / 255, 0, 1), conditions.gamma, dtype=np.float64)
    image = 255 * toned.astype(np.float32)
    grain = rng.standard_normal((size, size, 3), dtype=np.float32)
    grain += rng.standard_normal((size, size, 1), dtype=np.float32)
    image += np.float32(conditions.noise / math.sqrt(2)) * grain
    exposed = np.clip(np.round(image), 0, 255).astype(np.uint8)
    bgr = np.ascontiguousarray(exposed[:, :, ::-1])  # cv2's order of channels
    _, stored = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, conditions.quality])
    softened = cv2.imdecode(stored, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(np.asarray(softened, np.uint8)[:, :, ::-1])


@portable_opencv()
def render(scene: Scene, size: int, rng: np.random.Generator) -> tuple[Image, Image]:
    """Draw a scene as a tile of ``size`` x ``size`` pixels, with texture and noise from ``rng``.

    Shadows of objects outside the tile reach into it.

    Returns:
        The image, (size, size, 3) uint8 RGB, and the mask, (size, size) uint8: 255 where the
        footprint of a building covers the centre of the pixel, even below a tree, and 0 elsewhere.
    """
    canvas = _Canvas(scene, size, rng)
    _draw_ground(canvas, scene.surfaces)
    streak = cv2.GaussianBlur(rng.standard_normal((1, 1024), dtype=np.float32), (0, 0), 1.2)[0]
    streak /= streak.std()
    for building in scene.buildings:
        _draw_building(canvas, building, streak)
    _draw_boxes(canvas, scene.boxes)
    _draw_trees(canvas, scene.trees, rng)
    image = _expose(canvas, scene, size, rng)
    inner = slice(MARGIN, MARGIN + size)
    return image, canvas.mask[inner, inner] * np.uint8(255)
