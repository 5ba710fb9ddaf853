"""Frames of a scenario, drawn from what the choreography and the distractors say about each instant.

A frame is a function of the scenario, the view and the frame's index alone, so that a timeline rendered in parts
gives the same frames as in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, cos, pi, sin

import cv2
import numpy as np
import numpy.typing as npt

from laps.errors import InputError
from laps.simulation import textures
from laps.simulation.choreography import (
    DRIVER_TIP_M,
    FIXTURE,
    HANDS,
    LEFT,
    MALLET_HEAD_M,
    PARTS,
    Pose,
    choreograph,
)
from laps.simulation.distractors import Distractors, Event
from laps.simulation.geometry import (
    FOREARM_M,
    GRIP_M,
    UPPER_ARM_M,
    Arm,
    FloatArray,
    cameras,
    lean,
    solve_arm,
)
from laps.simulation.scenario import VIEWS, Scenario
from laps.simulation.textures import ByteImage, Canvas, Sprite

_X, _Y, _Z = np.eye(3)
_HEIGHTS_M = {
    "driver": 0.03,
    "mallet": 0.045,
    "cloth": 0.012,
    "tray": 0.05,
    "plate": 0.025,
    "gear": 0.025,
    "bracket": 0.03,
}
_HAND_M = 0.025
_BELT_Y_M = (0.66, 0.79)
_BELT_PERIOD_M = 0.8
_LAMP = np.array([1.53, 0.74, 0.16])
_FLOOR_Z_M = -0.85
_NOISE_MARGIN_PX = 192


def render(
    scenario: Scenario, view: int = 0, start_s: float = 0.0, stop_s: float | None = None
) -> Iterator[tuple[float, ByteImage]]:
    """The frames of ``[start_s, stop_s)`` as (seconds on the timeline, uint8 [height, width, 3] BGR).

    Dropped frames are not yielded. Each array is the caller's to keep.
    """
    renderer = Renderer(scenario, view)
    for index in scenario.frame_range(start_s, stop_s):
        frame = renderer.frame(index)
        if frame is not None:
            yield float(index / scenario.frame_rate), frame


class Renderer:
    """Draws single frames; holds everything that is painted once."""

    def __init__(self, scenario: Scenario, view: int = 0) -> None:
        if view not in VIEWS:
            raise InputError(f"the simulation has no view {view}", fix=f"Choose from {', '.join(map(str, VIEWS))}.")
        self._scenario = scenario
        self._view = view
        self._plan = choreograph(scenario)
        self._distractors = Distractors(scenario, view)
        self._camera = cameras(scenario.width_px, scenario.height_px)[view]
        self._paint_sprites()
        self._background = self._paint_background()
        self._noise = self._paint_noise()
        self._bench: tuple[tuple[tuple[str, Pose], ...], ByteImage, ByteImage] | None = None

    def frame(self, index: int) -> ByteImage | None:
        """Frame ``index`` of the timeline, uint8 [height, width, 3] BGR; None where the camera dropped it."""
        source = self._distractors.source_frame(index)
        if source is None:
            return None
        return self._draw(float(source / self._scenario.frame_rate), source)

    # Painting, once

    def _paint_sprites(self) -> None:
        """Shapes and colours are the same in both views; only the density differs."""
        rng = self._scenario.generator("sprites")
        d = 1.1 * self._camera.density_px_m
        self._sprites: dict[str, Sprite] = {
            "upper_arm": textures.sleeve(rng, d, UPPER_ARM_M, 0.062, 0.05, (128, 72, 40), (196, 170, 140)),
            "forearm": textures.sleeve(rng, d, FOREARM_M, 0.05, 0.037, (128, 72, 40), (196, 170, 140)),
            "torso": textures.sleeve(rng, d, 0.62, 0.2, 0.17, (118, 66, 38), (180, 150, 120)),
            "shoulders": textures.sleeve(rng, d, 0.44, 0.085, 0.085, (128, 72, 40), (196, 170, 140)),
            "head": textures.head(rng, d, 0.12, (40, 120, 220)),
            "driver": textures.driver(rng, d, DRIVER_TIP_M),
            "mallet": textures.mallet(rng, d, MALLET_HEAD_M),
            "cloth": textures.cloth(rng, d),
            "tray": textures.tray(rng, d),
            "hand_shadow": textures.soft_blob(100.0, 0.16, 0.10, 0.4, 0.7),
            "object_shadow": textures.soft_blob(100.0, 0.10, 0.10, 0.5, 0.6),
        }
        for name in PARTS:
            self._sprites[name] = textures.part(rng, d, name)
        for hand in HANDS:
            for closed in (False, True):
                self._sprites[f"glove_{hand}_{closed}"] = textures.glove(rng, d, left=hand == LEFT, closed=closed)
        thick = [*_HEIGHTS_M, *(name for name in self._sprites if name.startswith("glove"))]
        self._shaded = {name: self._sprites[name].shaded() for name in thick}
        self._sprites["passer"] = textures.sleeve(rng, 0.6 * d, 0.6, 0.19, 0.22, (60, 130, 70), (70, 220, 230))
        self._sprites["leg"] = textures.sleeve(rng, 0.6 * d, 0.75, 0.09, 0.07, (90, 70, 60), (120, 96, 84))
        self._sprites["passer_head"] = textures.head(rng, 0.6 * d, 0.12, (60, 60, 60))
        self._sprites["world_shadow"] = textures.soft_blob(40.0, 0.45, 0.7, 0.25, 0.7)
        self._sprites["occluder"] = textures.occluder(rng, 0.34, 0.24, self._scenario.width_px)
        belt_length = 1.7 + 2 * _BELT_PERIOD_M
        self._sprites["belt"], self._belt_period_m = textures.belt(rng, d, _BELT_PERIOD_M, belt_length, *_BELT_Y_M)

    def _paint_background(self) -> ByteImage:
        """The empty workstation; also finds which pixels the bench and the belt cover."""
        rng = self._scenario.generator("background")
        camera, d = self._camera, self._camera.density_px_m
        frame = np.full((camera.height_px, camera.width_px, 3), 96, np.uint8)
        floor = textures.floor(rng, 0.5 * d).sprite()
        _blend(frame, floor, camera.plane(np.array([0.0, 0.0, _FLOOR_Z_M]), _X, _Y))
        before = frame.copy()
        top = textures.bench_top(rng, 1.1 * d, FIXTURE).sprite()
        for edge, origin, along in (
            (textures.bench_edge(rng, d, 1.6, 0.4), np.array([0.0, -0.02, 0.0]), _X),
            (textures.bench_edge(rng, d, 1.6, 0.4), np.array([1.6, 0.8, 0.0]), -_X),
            (textures.bench_edge(rng, d, 0.82, 0.4), np.array([0.0, 0.8, 0.0]), -_Y),
        ):
            if float((camera.position - origin) @ np.cross(along, _Z)) > 0:  # its outer side is seen
                _blend(frame, edge, camera.plane(origin, along, _Z))
        _blend(frame, top, camera.plane(np.zeros(3), _X, _Y))
        self._bench_mask = np.where((frame != before).any(axis=2), 255, 0).astype(np.uint8)
        self._bench_mask = cv2.morphologyEx(self._bench_mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        corners = np.array([[0.0, 0.0, 1.6, 1.6], [_BELT_Y_M[0], _BELT_Y_M[1], _BELT_Y_M[1], _BELT_Y_M[0]], [1.0] * 4])
        outline = camera.plane(np.zeros(3), _X, _Y) @ corners
        self._belt_mask = np.zeros(frame.shape[:2], np.uint8)
        cv2.fillConvexPoly(self._belt_mask, np.rint((outline[:2] / outline[2]).T).astype(np.int32), 255)
        if "blink" in self._scenario.distractors:
            self._paint_lamp(frame)
        self._glow = textures.glow(max(8, round(0.18 * d)), (90, 170, 255))
        return frame

    def _paint_lamp(self, frame: ByteImage) -> None:
        canvas = Canvas(-0.02, 0.02, 0.0, float(_LAMP[2]) + 0.02, 2 * self._camera.density_px_m)
        canvas.paint((60, 60, 66))
        canvas.paint((40, 60, 120), 0.0, canvas.box(-0.02, 0.02, 0.1, 0.2))
        canvas.mask[:] = 255
        canvas.round_edges(0.012)
        across = self._camera.facing(_Z, _LAMP)
        _blend(frame, canvas.sprite(), self._camera.plane(_LAMP * [1, 1, 0], across, _Z))

    def _paint_noise(self) -> tuple[ByteImage, ByteImage] | None:
        """What to add and what to subtract; larger than the frame, so that each frame takes it elsewhere."""
        if self._scenario.noise == 0:
            return None
        rng = self._scenario.generator("noise")
        shape = (self._camera.height_px + _NOISE_MARGIN_PX, self._camera.width_px + _NOISE_MARGIN_PX, 3)
        noise = rng.standard_normal(shape, dtype=np.float32) * self._scenario.noise
        signed = np.rint(noise)
        return np.clip(signed, 0, 255).astype(np.uint8), np.clip(-signed, 0, 255).astype(np.uint8)

    # Drawing, for each frame

    def _draw(self, time_s: float, index: int) -> ByteImage:
        frame = self._background.copy()
        poses = {hand: self._plan.hand(hand, time_s) for hand in HANDS}
        torso = lean(poses)
        held: dict[str, list[tuple[str, Pose]]] = {hand: [] for hand in HANDS}
        lying: list[tuple[str, Pose]] = []
        for name in self._plan.objects:
            pose, hand = self._plan.object(name, time_s)
            (lying if hand is None else held[hand]).append((name, pose))
        bench, objects_mask = self._laid_bench(tuple(sorted(lying, key=lambda item: -item[1].y)))
        frame = bench.copy()
        passer = self._distractors.passer(time_s)
        if passer is not None:
            self._draw_passer(frame, passer, time_s)
        self._draw_torso(frame, torso)
        cv2.copyTo(bench, self._bench_mask, frame)  # the bench stands before the worker and passers-by
        belt_m = self._distractors.belt_m(time_s)
        if belt_m is not None:
            self._draw_belt(frame, belt_m)
            cv2.copyTo(bench, objects_mask, frame)
        self._draw_hands(frame, poses, torso, held)
        if self._distractors.lamp(time_s) == "on":
            self._draw_glow(frame)
        shadow = self._distractors.shadow(time_s)
        if shadow is not None:
            x = 0.8 + shadow.side * (3.0 * shadow.progress(time_s) - 1.5)
            origin = np.array([x, 0.2 + 0.35 * shadow.value, 0.0])
            _blend(frame, self._sprites["world_shadow"], self._camera.plane(origin, _X, _Y))
        occlusion = self._distractors.occlusion(time_s)
        if occlusion is not None:
            self._draw_occluder(frame, occlusion, time_s)
        return self._through_the_sensor(frame, time_s, index)

    def _laid_bench(self, lying: tuple[tuple[str, Pose], ...]) -> tuple[ByteImage, ByteImage]:
        """The workstation with the objects that lie on it, far ones first, and the mask of these; drawn anew only
        when an object was picked up or put down."""
        if self._bench is None or self._bench[0] != lying:
            frame = self._background.copy()
            for name, pose in lying:
                self._draw_object(frame, name, pose)
            mask = (cv2.absdiff(frame, self._background).max(axis=2) > 0).astype(np.uint8) * np.uint8(255)
            self._bench = lying, frame, mask
        return self._bench[1], self._bench[2]

    def _draw_hands(
        self,
        frame: ByteImage,
        poses: dict[str, Pose],
        torso: FloatArray,
        held: dict[str, list[tuple[str, Pose]]],
    ) -> None:
        """The limbs from far to near, what a hand holds just below it."""
        arms = {hand: solve_arm(hand, pose, torso) for hand, pose in poses.items()}
        # A tray is pushed, not lifted: both hands lie on it.
        for things in held.values():
            for name, pose in things:
                if name == "tray":
                    self._draw_object(frame, name, pose)
        for pose in poses.values():
            self._draw_shadow(frame, "hand_shadow", pose.x, pose.y - 0.05, pose.z, pose.yaw)
        parts: list[tuple[float, str, str]] = []
        for hand, arm in arms.items():
            parts.append((self._camera.depth_m(arm.grip), "hand", hand))
            parts.append((self._camera.depth_m((arm.elbow + arm.wrist) / 2), "forearm", hand))
            parts.append((self._camera.depth_m((arm.shoulder + arm.elbow) / 2), "upper_arm", hand))
        for _, kind, hand in sorted(parts, reverse=True):
            if kind == "hand":
                for name, pose in held[hand]:
                    if name != "tray":
                        self._draw_object(frame, name, pose)
                self._draw_glove(frame, hand, arms[hand], closed=bool(held[hand]))
            elif kind == "forearm":
                self._draw_ribbon(frame, "forearm", arms[hand].elbow, arms[hand].wrist, FOREARM_M)
            else:
                self._draw_ribbon(frame, "upper_arm", arms[hand].shoulder, arms[hand].elbow, UPPER_ARM_M)

    def _draw_object(self, frame: ByteImage, name: str, pose: Pose) -> None:
        self._draw_shadow(frame, "object_shadow", pose.x, pose.y, pose.z, pose.yaw)
        ex = np.array([cos(pose.yaw), sin(pose.yaw), 0.0])
        ey = np.array([-sin(pose.yaw), cos(pose.yaw), 0.0])
        self._draw_slab(frame, name, np.array([pose.x, pose.y, max(pose.z, 0.0)]), ex, ey, _HEIGHTS_M[name])

    def _draw_slab(
        self, frame: ByteImage, name: str, base: FloatArray, ex: FloatArray, ey: FloatArray, height_m: float
    ) -> None:
        """A flat thing with some thickness: its shape in shade, layer on layer, and its face on top."""
        layers = self._camera.layers(height_m)
        for layer in range(layers):
            origin = base + height_m * layer / layers * _Z
            _blend(frame, self._shaded[name], self._camera.plane(origin, ex, ey))
        _blend(frame, self._sprites[name], self._camera.plane(base + height_m * _Z, ex, ey))

    def _draw_shadow(self, frame: ByteImage, name: str, x: float, y: float, z: float, yaw: float) -> None:
        """Light comes from the upper left: the higher the thing, the further its shadow."""
        size = 1.0 + 1.5 * z
        ex = np.array([cos(yaw), sin(yaw), 0.0]) * size
        ey = np.array([-sin(yaw), cos(yaw), 0.0]) * size
        origin = np.array([x + 0.015 + 0.35 * z, y - 0.012 - 0.25 * z, 0.0])
        _blend(frame, self._sprites[name], self._camera.plane(origin, ex, ey))

    def _draw_glove(self, frame: ByteImage, hand: str, arm: Arm, *, closed: bool) -> None:
        base = arm.grip - GRIP_M * arm.forward - _HAND_M / 2 * _Z
        self._draw_slab(frame, f"glove_{hand}_{closed}", base, arm.forward, arm.sideways, _HAND_M)

    def _draw_torso(self, frame: ByteImage, torso: FloatArray) -> None:
        left, right = np.array([0.58, -0.25, 0.36]) + torso, np.array([1.02, -0.25, 0.36]) + torso
        neck = (left + right) / 2
        self._draw_ribbon(frame, "torso", np.array([0.8, -0.36, -0.30]) + 0.3 * torso, neck - 0.06 * _Z, 0.62)
        self._draw_ribbon(frame, "shoulders", left, right, 0.44)
        self._draw_ribbon(frame, "head", neck + 0.05 * _Y + 0.2 * _Z, neck + 0.09 * _Y + 0.4 * _Z, 0.2)
        cv2.copyTo(self._background, self._bench_mask, frame)  # the bench stands before the worker and passers-by

    def _draw_ribbon(self, frame: ByteImage, name: str, start: FloatArray, stop: FloatArray, length_m: float) -> None:
        """A limb, as a flat ribbon that always faces the camera."""
        along = (stop - start) / length_m
        across = self._camera.facing(along, (start + stop) / 2)
        _blend(frame, self._sprites[name], self._camera.plane(start, along, across))

    def _draw_passer(self, frame: ByteImage, event: Event, time_s: float) -> None:
        """Somebody walks past at the right end of the bench."""
        y = 0.1 + event.side * (3.6 * event.progress(time_s) - 1.8)
        stride = 2 * pi * 0.9 * (time_s - event.start_s)
        hip = np.array([1.8, y, -0.12 + 0.02 * abs(sin(stride))])
        for phase in (0.0, pi):
            foot = hip + 0.28 * sin(stride + phase) * _Y - 0.72 * _Z
            self._draw_ribbon(frame, "leg", hip, foot, 0.75)
        self._draw_ribbon(frame, "passer", hip, hip + 0.55 * _Z, 0.6)
        self._draw_ribbon(frame, "passer_head", hip + 0.85 * _Z, hip + 1.05 * _Z, 0.2)

    def _draw_belt(self, frame: ByteImage, way_m: float) -> None:
        homography = self._camera.plane(np.array([way_m % self._belt_period_m - _BELT_PERIOD_M, 0, 0.001]), _X, _Y)
        layer = np.zeros_like(frame)
        _blend(layer, self._sprites["belt"], homography)
        cv2.copyTo(layer, self._belt_mask, frame)

    def _draw_glow(self, frame: ByteImage) -> None:
        centre = self._camera.plane(_LAMP, _X, _Y)[:, 2]
        size = self._glow.shape[0]
        x, y = (round(float(v)) - size // 2 for v in centre[:2] / centre[2])
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + size, frame.shape[1]), min(y + size, frame.shape[0])
        if x0 < x1 and y0 < y1:
            roi = frame[y0:y1, x0:x1]
            cv2.add(roi, self._glow[y0 - y : y1 - y, x0 - x : x1 - x], dst=roi)

    def _draw_occluder(self, frame: ByteImage, event: Event, time_s: float) -> None:
        """It comes in from a side, stays a while, never quite still, and leaves."""
        inside = min(1.0, (time_s - event.start_s) / 0.6, (event.end_s - time_s) / 0.6)
        inside = inside * inside * (3 - 2 * inside)
        across = event.side * (0.85 - inside * (0.55 + 0.2 * event.value)) + 0.004 * sin(2.1 * time_s)
        down = 0.12 * (2 * event.value - 1) + 0.004 * cos(1.7 * time_s)
        angle = 0.1 * sin(0.9 * time_s) + 0.25 * event.value
        width, height = frame.shape[1], frame.shape[0]
        c, s = width * cos(angle), width * sin(angle)
        to_image = np.array([[c, s, width * (0.5 + across)], [s, -c, height / 2 + width * down], [0.0, 0.0, 1.0]])
        _blend(frame, self._sprites["occluder"], to_image)

    def _through_the_sensor(self, frame: ByteImage, time_s: float, index: int) -> ByteImage:
        shake = self._distractors.shake(time_s)
        if shake is not None:
            width, height = frame.shape[1], frame.shape[0]
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), np.degrees(shake[2]), 1.0)
            matrix[:, 2] += np.array(shake[:2]) * width
            frame = cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        gain = self._distractors.gain(time_s)
        if gain != 1.0:
            cv2.convertScaleAbs(frame, dst=frame, alpha=gain)
        if self._noise is not None:
            for sign, (noise, apply) in enumerate(zip(self._noise, (cv2.add, cv2.subtract), strict=True)):
                rng = self._scenario.generator("noise", self._view, index, sign)
                x, y = rng.integers(0, _NOISE_MARGIN_PX, 2)
                apply(frame, noise[y : y + frame.shape[0], x : x + frame.shape[1]], dst=frame)
        return frame


def _blend(frame: ByteImage, sprite: Sprite, plane_to_image: npt.NDArray[np.float64]) -> None:
    """Draw a sprite through a homography [3, 3] from its plane to pixels, in place."""
    homography = plane_to_image @ sprite.to_plane
    height, width = sprite.keep.shape
    corners = homography @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], np.float64)
    if corners[2].min() <= 1e-6:
        return  # reaches behind the camera: out of the picture for everything in this scene
    xs, ys = corners[0] / corners[2], corners[1] / corners[2]
    x0, y0 = max(int(xs.min()) - 1, 0), max(int(ys.min()) - 1, 0)
    x1, y1 = min(ceil(xs.max()) + 2, frame.shape[1]), min(ceil(ys.max()) + 2, frame.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    shift = np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0], [0.0, 0.0, 1.0]])
    local, size = shift @ homography, (x1 - x0, y1 - y0)
    keep = cv2.warpPerspective(
        sprite.keep, local, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=255
    )
    colour = cv2.warpPerspective(sprite.colour, local, size, flags=cv2.INTER_LINEAR)
    roi = frame[y0:y1, x0:x1]
    cv2.multiply(roi, cv2.cvtColor(keep, cv2.COLOR_GRAY2BGR), dst=roi, scale=1 / 255)
    cv2.add(roi, colour, dst=roi)
