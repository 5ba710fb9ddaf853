"""Pictures of the things at the workstation, painted once for each size: textured, so that optical flow has
something to hold on to.

Everything is measured in metres and painted at a density in pixels a metre, so that a scene looks the same at
every size. Colours are BGR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, pi, sin

import cv2
import numpy as np
import numpy.typing as npt

ByteImage = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Sprite:
    """A picture with transparency on a plane.

    Attributes:
        colour: uint8 [h, w, 3], already multiplied by its opacity.
        keep: uint8 [h, w], how much of what lies below shows through (255: all).
        to_plane: [3, 3], pixels to metres on the sprite's plane (x to the right, y up).
    """

    colour: ByteImage
    keep: ByteImage
    to_plane: FloatArray

    def shaded(self) -> Sprite:
        """The same shape in shade, for the sides of a thick thing."""
        return Sprite((self.colour * np.float32(0.5)).astype(np.uint8), self.keep, self.to_plane)


class Canvas:
    """An area of a plane, ``x0..x1`` by ``y0..y1`` metres, to paint on in metres."""

    def __init__(self, x0: float, x1: float, y0: float, y1: float, density: float) -> None:
        self.x0, self.y1, self.density = x0, y1, density
        self.shape = (max(2, ceil((y1 - y0) * density)), max(2, ceil((x1 - x0) * density)))
        self.colour: FloatImage = np.zeros((*self.shape, 3), np.float32)
        self.mask: ByteImage = np.zeros(self.shape, np.uint8)

    def px(self, x: float, y: float) -> tuple[int, int]:
        return round((x - self.x0) * self.density - 0.5), round((self.y1 - y) * self.density - 0.5)

    def size(self, metres: float) -> int:
        return max(1, round(metres * self.density))

    def polygon(self, points: Sequence[tuple[float, float]]) -> npt.NDArray[np.int32]:
        return np.array([self.px(x, y) for x, y in points], np.int32)

    def noise(self, rng: np.random.Generator, cell_m: float, stretch: float = 1.0) -> FloatImage:
        """Smooth unit noise with blobs of about ``cell_m``, ``stretch`` times longer along x."""
        height, width = self.shape
        cell = max(cell_m * self.density, 1.5)
        rows, columns = ceil(height / cell) + 2, ceil(width / (cell * stretch)) + 2
        coarse = rng.standard_normal((rows, columns)).astype(np.float32)
        fine = cv2.resize(coarse, (ceil(columns * cell * stretch), ceil(rows * cell)), interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(fine[:height, :width])

    def paint(self, base: Colour, contrast: FloatImage | float = 0.0, where: ByteImage | None = None) -> None:
        """Fill (within ``where``) with a colour whose brightness varies by ``contrast``."""
        x, y, width, height = (0, 0, *self.shape[::-1]) if where is None else cv2.boundingRect(where)
        area = np.s_[y : y + height, x : x + width]
        shade = np.broadcast_to(np.asarray(contrast, np.float32), self.shape)[area]
        painted = np.array(base, np.float32) * (1.0 + shade)[..., None]
        if where is not None:
            weight = where[area].astype(np.float32)[..., None] / 255
            painted = self.colour[area] + weight * (painted - self.colour[area])
        self.colour[area] = painted

    def region(self, points: Sequence[tuple[float, float]]) -> ByteImage:
        """Mask of a polygon."""
        mask = np.zeros(self.shape, np.uint8)
        cv2.fillPoly(mask, [self.polygon(points)], 255, cv2.LINE_AA)
        return mask

    def box(self, x0: float, x1: float, y0: float, y1: float) -> ByteImage:
        return self.region([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])

    def disc(self, x: float, y: float, radius: float) -> ByteImage:
        mask = np.zeros(self.shape, np.uint8)
        cv2.circle(mask, self.px(x, y), self.size(radius), 255, -1, cv2.LINE_AA)
        return mask

    def stroke(self, points: Sequence[tuple[float, float]], width: float) -> ByteImage:
        mask = np.zeros(self.shape, np.uint8)
        cv2.polylines(mask, [self.polygon(points)], False, 255, self.size(width), cv2.LINE_AA)
        return mask

    def round_edges(self, depth_m: float) -> None:
        """Darken towards the outline, as on something rounded."""
        inside = (self.mask > 127).astype(np.uint8)
        padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
        self.colour *= (0.45 + 0.55 * np.minimum(1.0, distance / (depth_m * self.density)))[..., None]

    def sprite(self, opacity: FloatImage | None = None) -> Sprite:
        """The finished picture; transparent outside the mask."""
        alpha = self.mask.astype(np.float32) / 255 if opacity is None else opacity
        colour = np.clip(self.colour, 0, 255) * alpha[..., None]
        step = 1 / self.density
        to_plane = np.array([[step, 0, self.x0 + step / 2], [0, -step, self.y1 - step / 2], [0, 0, 1]])
        return Sprite(np.rint(colour).astype(np.uint8), np.rint(255 * (1 - alpha)).astype(np.uint8), to_plane)


def bench_top(rng: np.random.Generator, density: float, fixture: tuple[float, float]) -> Canvas:
    """Birch top with a cutting mat, a clamping fixture, bins, a sheet of instructions and tool silhouettes."""
    c = Canvas(0.0, 1.6, -0.02, 0.8, density)
    grain = 0.05 * c.noise(rng, 0.012, 14) + 0.035 * c.noise(rng, 0.005, 25) + 0.05 * c.noise(rng, 0.06, 3)
    c.paint((138, 176, 205), grain)
    c.mask[:] = 255
    for y in np.arange(0.12, 0.8, 0.135):
        c.paint((80, 112, 140), 0.0, c.stroke([(0, y), (1.6, y)], 0.003))
    for _ in range(70):
        x, y, angle, length = (
            rng.uniform(0, 1.6),
            rng.uniform(0, 0.8),
            rng.uniform(-0.6, 0.6),
            rng.uniform(0.01, 0.07),
        )
        shade = rng.uniform(-0.25, 0.2)
        line = c.stroke([(x, y), (x + length * cos(angle), y + length * sin(angle))], 0.002)
        c.paint((138, 176, 205), float(shade), line)
    # Cutting mat with its grid.
    x, y = fixture
    mat = c.box(x - 0.24, x + 0.24, y - 0.17, y + 0.15)
    c.paint((82, 98, 46), 0.06 * c.noise(rng, 0.01) + 0.05 * c.noise(rng, 0.05), mat)
    for i in range(13):
        at = x - 0.24 + 0.04 * i
        c.paint((140, 160, 110), 0.0, c.stroke([(at, y - 0.17), (at, y + 0.15)], 0.002))
    for i in range(9):
        at = y - 0.17 + 0.04 * i
        c.paint((140, 160, 110), 0.0, c.stroke([(x - 0.24, at), (x + 0.24, at)], 0.002))
    # The fixture: a steel plate with bolts and jaws.
    c.paint((128, 126, 122), 0.06 * c.noise(rng, 0.004, 6), c.box(x - 0.10, x + 0.10, y - 0.075, y + 0.075))
    for side in (-1, 1):
        jaw = c.box(x + side * 0.085 - 0.022, x + side * 0.085 + 0.022, y - 0.05, y + 0.05)
        c.paint((70, 70, 74), 0.1 * c.noise(rng, 0.006), jaw)
        for end in (-1, 1):
            c.paint((205, 205, 205), 0.0, c.disc(x + side * 0.085, y + end * 0.035, 0.008))
    # Bins at the back, each with loose parts in it.
    for i, colour in enumerate(((150, 80, 40), (40, 60, 160), (60, 130, 60), (150, 80, 40), (30, 130, 170))):
        left = 0.05 + 0.315 * i
        c.paint(colour, 0.05 * c.noise(rng, 0.02), c.box(left, left + 0.24, 0.67, 0.785))
        c.paint((50, 46, 44), 0.1 * c.noise(rng, 0.01), c.box(left + 0.015, left + 0.225, 0.68, 0.775))
        for _ in range(26):
            px, py = left + rng.uniform(0.03, 0.21), rng.uniform(0.69, 0.765)
            tone = int(rng.integers(110, 220))
            c.paint((tone, tone, int(min(255, tone * 1.1))), 0.0, c.disc(px, py, rng.uniform(0.004, 0.009)))
    # A sheet of instructions, a ruler, silhouettes of the tools.
    c.paint((235, 238, 240), 0.02 * c.noise(rng, 0.02), c.box(0.04, 0.17, 0.03, 0.21))
    for row in range(9):
        y0 = 0.195 - 0.018 * row
        c.paint((90, 80, 80), 0.0, c.stroke([(0.055, y0), (0.055 + rng.uniform(0.05, 0.1), y0)], 0.004))
    c.paint((60, 190, 220), 0.04 * c.noise(rng, 0.01), c.box(0.60, 1.0, 0.015, 0.04))
    for i in range(41):
        at = 0.60 + 0.01 * i
        c.paint((30, 40, 50), 0.0, c.stroke([(at, 0.04), (at, 0.028 if i % 5 else 0.02)], 0.002))
    for left, right in ((1.20, 1.30), (1.34, 1.46)):
        c.paint((96, 128, 158), 0.05 * c.noise(rng, 0.01), c.box(left, right, 0.03, 0.33))
    return c


def floor(rng: np.random.Generator, density: float) -> Canvas:
    """Concrete with joints, stains and a yellow line."""
    x0, x1, y0, y1 = -1.2, 6.0, -5.5, 1.6  # what the two cameras see of it, and nothing behind either
    c = Canvas(x0, x1, y0, y1, density)
    speckles = 0.16 * c.noise(rng, 0.03) + 0.12 * c.noise(rng, 0.08)  # as rough concrete has: something to track
    c.paint((118, 122, 124), speckles + 0.08 * c.noise(rng, 0.3) + 0.05 * c.noise(rng, 1.0))
    c.mask[:] = 255
    for at in np.arange(-5.0, 6.0, 0.9):
        c.paint((84, 86, 88), 0.0, c.stroke([(x0, at), (x1, at)], 0.02))
        c.paint((84, 86, 88), 0.0, c.stroke([(at, y0), (at, y1)], 0.02))
    c.paint((50, 170, 200), 0.06 * c.noise(rng, 0.05), c.box(x0, x1, -1.75, -1.65))
    return c


def bench_edge(rng: np.random.Generator, density: float, length: float, height: float) -> Sprite:
    """A side of the bench: an apron with drawers, seen edge-on."""
    c = Canvas(0.0, length, -height, 0.0, density)
    c.paint((84, 110, 132), 0.06 * c.noise(rng, 0.012, 10))
    c.mask[:] = 255
    c.paint((62, 60, 58), 0.08 * c.noise(rng, 0.03), c.box(0, length, -height, -0.06))
    for left in np.arange(0.06, length - 0.3, 0.38):
        c.paint((92, 88, 84), 0.05 * c.noise(rng, 0.02), c.box(left, left + 0.34, -height + 0.03, -0.09))
        c.paint((190, 190, 190), 0.0, c.stroke([(left + 0.12, -0.16), (left + 0.22, -0.16)], 0.012))
    return c.sprite()


def sleeve(
    rng: np.random.Generator,
    density: float,
    length: float,
    r0: float,
    r1: float,
    base: Colour,
    stripe: Colour,
) -> Sprite:
    """A limb from (0, 0) to (length, 0) with round ends, in checked cloth with folds."""
    r = max(r0, r1)
    c = Canvas(-r0 - 0.005, length + r1 + 0.005, -r - 0.005, r + 0.005, density)
    cloth = 0.16 * c.noise(rng, 0.022, 0.6) + 0.12 * c.noise(rng, 0.009) + 0.06 * c.noise(rng, 0.004)
    c.paint(base, cloth)
    for at in np.arange(-r0, length + r1, 0.034):
        c.paint(stripe, cloth, c.stroke([(at, -r), (at + 0.008, r)], 0.007))
    for at in (-0.5 * r, 0.1 * r, 0.6 * r):
        c.paint(stripe, cloth, c.stroke([(-r0, at), (length + r1, at)], 0.005))
    c.mask = np.maximum.reduce(
        [c.disc(0, 0, r0), c.disc(length, 0, r1), c.region([(0, -r0), (length, -r1), (length, r1), (0, r0)])]
    )
    c.round_edges(0.6 * min(r0, r1))
    return c.sprite()


def glove(rng: np.random.Generator, density: float, *, left: bool, closed: bool) -> Sprite:
    """A work glove from the wrist at (0, 0), fingers along x: knit with grip dots, knuckle bars and a cuff."""
    c = Canvas(-0.05, 0.215, -0.085, 0.085, density)
    thumb = -1 if left else 1  # seen from above, the right hand's thumb is at its left
    tips = (0.165, 0.17, 0.165, 0.15) if closed else (0.19, 0.205, 0.195, 0.17)
    shapes = [c.region([(-0.04, -0.033), (0.02, -0.036), (0.10, -0.047), (0.10, 0.047), (0.02, 0.036), (-0.04, 0.033)])]
    for i, tip in enumerate(tips):
        y = thumb * (0.035 - 0.023 * i)
        bend = 0.4 if closed else 1.15
        shapes.append(c.stroke([(0.09, y), (tip - 0.012, y * bend)], 0.021))
    reach = (0.135, 0.03) if closed else (0.115, 0.07)
    shapes.append(c.stroke([(0.045, thumb * 0.03), (0.08, thumb * 0.058), (reach[0], thumb * reach[1])], 0.024))
    c.mask = np.maximum.reduce(shapes)
    knit = 0.13 * c.noise(rng, 0.012) + 0.11 * c.noise(rng, 0.005)
    c.paint((72, 148, 226) if left else (96, 196, 216), knit)
    for i in range(12):
        for j in range(8):
            x, y = 0.025 + 0.0145 * i + 0.006 * (j % 2), -0.06 + 0.016 * j
            c.paint((52, 52, 60), 0.0, c.disc(x, y, 0.0038))
    for i in range(4):
        y = thumb * (0.035 - 0.023 * i)
        c.paint((40, 44, 120), knit, c.stroke([(0.098, y - 0.007), (0.098, y + 0.007)], 0.012))
    c.paint((60, 50, 46), knit, c.box(-0.05, -0.005, -0.06, 0.06))
    c.paint((215, 215, 225), knit, c.stroke([(-0.018, -0.06), (-0.018, 0.06)], 0.007))
    c.round_edges(0.011)
    return c.sprite()


def driver(rng: np.random.Generator, density: float, tip_m: float) -> Sprite:
    """A screwdriver, its handle at (0, 0), its tip at (tip_m, 0)."""
    c = Canvas(-0.07, tip_m + 0.01, -0.025, 0.025, density)
    handle = c.region([(-0.06, -0.017), (0.03, -0.019), (0.045, -0.01), (0.045, 0.01), (0.03, 0.019), (-0.06, 0.017)])
    shaft = c.stroke([(0.04, 0), (tip_m, 0)], 0.009)
    c.mask = np.maximum(handle, shaft)
    c.paint((170, 172, 175), 0.12 * c.noise(rng, 0.006))
    c.paint((36, 90, 230), 0.1 * c.noise(rng, 0.008), handle)
    for at in (-0.045, -0.02, 0.005, 0.03):
        c.paint((30, 30, 34), 0.0, c.stroke([(at, -0.02), (at, 0.02)], 0.008))
    c.round_edges(0.008)
    return c.sprite()


def mallet(rng: np.random.Generator, density: float, head_m: float) -> Sprite:
    """A mallet, held at (0, 0), its head at (head_m, 0)."""
    c = Canvas(-0.09, head_m + 0.04, -0.065, 0.065, density)
    handle, head = (
        c.stroke([(-0.08, 0), (head_m, 0)], 0.022),
        c.box(head_m - 0.032, head_m + 0.032, -0.058, 0.058),
    )
    c.mask = np.maximum(handle, head)
    c.paint((86, 130, 176), 0.15 * c.noise(rng, 0.005, 6))
    c.paint((44, 44, 48), 0.16 * c.noise(rng, 0.01), head)
    for y in (-0.042, 0.042):
        c.paint((40, 60, 200), 0.1 * c.noise(rng, 0.01), c.stroke([(head_m - 0.03, y), (head_m + 0.03, y)], 0.014))
    c.round_edges(0.009)
    return c.sprite()


def cloth(rng: np.random.Generator, density: float) -> Sprite:
    """A checked cleaning cloth with creases."""
    c = Canvas(-0.1, 0.1, -0.085, 0.085, density)
    outline = [
        (rx * cos(a) * rng.uniform(0.9, 1.05), ry * sin(a) * rng.uniform(0.9, 1.05))
        for a, rx, ry in ((2 * pi * i / 22, 0.088, 0.074) for i in range(22))
    ]
    c.mask = c.region(outline)
    fold = 0.14 * c.noise(rng, 0.02) + 0.09 * c.noise(rng, 0.008)
    c.paint((206, 206, 216), fold)
    for at in np.arange(-0.1, 0.1, 0.03):
        c.paint((170, 80, 60), fold, c.stroke([(at, -0.09), (at, 0.09)], 0.008))
        c.paint((170, 80, 60), fold, c.stroke([(-0.1, at), (0.1, at)], 0.008))
    c.round_edges(0.01)
    return c.sprite()


def part(rng: np.random.Generator, density: float, name: str) -> Sprite:
    """One of the workpieces: ``plate``, ``gear`` or ``bracket``."""
    c = Canvas(-0.07, 0.07, -0.07, 0.07, density)
    metal = 0.1 * c.noise(rng, 0.005, 4) + 0.08 * c.noise(rng, 0.02)
    holes: tuple[tuple[float, float], ...]
    if name == "gear":
        teeth = [
            (r * cos(pi * i / 28), r * sin(pi * i / 28))
            for i, r in ((i, 0.062 if i % 4 < 2 else 0.05) for i in range(56))
        ]
        c.mask = c.region(teeth)
        c.paint((66, 160, 196), metal)
        holes = ((0.0, 0.0), (0.03, 0.0), (-0.015, 0.026), (-0.015, -0.026))
    elif name == "plate":
        c.mask = c.box(-0.06, 0.06, -0.042, 0.042)
        c.paint((176, 130, 90), metal)
        holes = ((-0.045, -0.028), (0.045, -0.028), (-0.045, 0.028), (0.045, 0.028), (0.0, 0.0))
    else:
        c.mask = c.region(
            [(-0.06, -0.055), (0.06, -0.055), (0.06, -0.01), (-0.012, -0.01), (-0.012, 0.06), (-0.06, 0.06)]
        )
        c.paint((120, 84, 168), metal)
        holes = ((-0.036, 0.04), (0.042, -0.032), (-0.036, -0.032))
    for x, y in holes:
        c.paint((30, 30, 34), 0.0, c.disc(x, y, 0.008))
        c.paint((225, 225, 225), 0.0, c.stroke([(x - 0.007, y + 0.008), (x + 0.003, y + 0.011)], 0.003))
    c.round_edges(0.006)
    return c.sprite()


def tray(rng: np.random.Generator, density: float) -> Sprite:
    """A shallow box with screws in its compartments."""
    c = Canvas(-0.155, 0.155, -0.075, 0.075, density)
    c.mask = c.box(-0.15, 0.15, -0.07, 0.07)
    c.paint((70, 66, 60), 0.08 * c.noise(rng, 0.015))
    for i in range(4):
        left = -0.142 + 0.072 * i
        c.paint((112, 108, 96), 0.1 * c.noise(rng, 0.01), c.box(left, left + 0.066, -0.062, 0.062))
        for _ in range(12):
            tone = int(rng.integers(130, 235))
            x, y = left + rng.uniform(0.008, 0.058), rng.uniform(-0.054, 0.054)
            c.paint((tone, tone, tone), 0.0, c.disc(x, y, rng.uniform(0.003, 0.006)))
    c.round_edges(0.004)
    return c.sprite()


def head(rng: np.random.Generator, density: float, radius: float, base: Colour) -> Sprite:
    """A head with a cap."""
    c = Canvas(-radius - 0.01, radius + 0.01, -radius - 0.01, radius + 0.01, density)
    c.mask = c.disc(0, 0, radius)
    c.paint((70, 90, 120), 0.2 * c.noise(rng, 0.008, 0.4) + 0.1 * c.noise(rng, 0.03))
    c.paint(base, 0.12 * c.noise(rng, 0.012), c.box(0.0, radius, -radius, radius))
    c.paint((225, 225, 225), 0.0, c.stroke([(0.0, -radius), (0.0, radius)], 0.014))
    c.round_edges(0.5 * radius)
    return c.sprite()


def belt(
    rng: np.random.Generator, density: float, period: float, length: float, y0: float, y1: float
) -> tuple[Sprite, float]:
    """A conveyor belt with cartons, ``length`` long and repeating along x; and its exact period in metres."""
    c = Canvas(0.0, period, y0, y1, density)
    c.paint((58, 56, 54), 0.12 * c.noise(rng, 0.01) + 0.08 * c.noise(rng, 0.04))
    for at in np.arange(0, period, 0.1):
        c.paint((96, 96, 96), 0.0, c.stroke([(at, y0), (at, y1)], 0.006))
    middle = (y0 + y1) / 2
    for at, half, colour in (
        (0.15, 0.045, (110, 160, 196)),
        (0.42, 0.035, (150, 150, 60)),
        (0.66, 0.05, (90, 130, 170)),
    ):
        c.paint(colour, 0.08 * c.noise(rng, 0.012), c.box(at - half, at + half, middle - 0.04, middle + 0.04))
        c.paint((60, 80, 100), 0.0, c.stroke([(at - half, middle), (at + half, middle)], 0.008))
    exact = c.shape[1] / density  # whole pixels, or the belt would jump where it repeats
    wide = Canvas(0.0, length, y0, y1, density)
    repeats = ceil(wide.shape[1] / c.shape[1])
    wide.colour[:] = np.tile(c.colour, (1, repeats, 1))[:, : wide.shape[1]]
    wide.mask[:] = 255
    return wide.sprite(), exact


def soft_blob(density: float, half_x: float, half_y: float, strength: float, edge: float) -> Sprite:
    """A shadow: black, opaque by ``strength`` in the middle, fading over the outer ``edge`` of its radius."""
    c = Canvas(-half_x, half_x, -half_y, half_y, density)
    height, width = c.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = np.hypot((x + 0.5) / width * 2 - 1, (y + 0.5) / height * 2 - 1)
    fade = np.clip((1 - radius) / edge, 0, 1)
    return c.sprite((strength * fade * fade * (3 - 2 * fade)).astype(np.float32))


def glow(size_px: int, colour: Colour) -> ByteImage:
    """Light around a lamp, to be added: uint8 [size, size, 3]."""
    y, x = np.mgrid[0:size_px, 0:size_px].astype(np.float32)
    radius = np.hypot((x + 0.5) / size_px * 2 - 1, (y + 0.5) / size_px * 2 - 1)
    light = 0.35 * np.clip(1 - radius, 0, 1) ** 2 + np.clip((0.28 - radius) / 0.06, 0, 1)
    return np.clip(light[..., None] * np.array(colour, np.float32), 0, 255).astype(np.uint8)


def occluder(rng: np.random.Generator, width: float, height: float, density: float) -> Sprite:
    """A carton that somebody holds before the camera; in shares of the picture's width."""
    c = Canvas(-width / 2, width / 2, -height / 2, height / 2, density)
    c.mask[:] = 255
    card = 0.06 * c.noise(rng, 0.004) + 0.06 * c.noise(rng, 0.03)
    c.paint((96, 136, 172), card)
    c.paint((150, 186, 206), card, c.box(-0.02, 0.02, -height, height))
    c.paint((60, 84, 110), card, c.stroke([(-width, 0.06), (width, 0.06)], 0.004))
    for i in range(3):
        x = -0.15 + 0.12 * i
        c.paint((40, 50, 70), 0.0, c.region([(x, -0.12), (x + 0.05, -0.12), (x + 0.025, -0.06)]))
    c.round_edges(0.015)
    return c.sprite()
