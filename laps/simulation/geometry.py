"""The two cameras' projection, and arms that reach (inverse kinematics)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from laps.simulation.choreography import HOMES, SHOULDERS, Pose

FloatArray = npt.NDArray[np.float64]

UPPER_ARM_M = 0.34
FOREARM_M = 0.31
GRIP_M = 0.145
"""From the wrist to the point between the finger tips."""
HAND_PITCH = 0.4


class Camera:
    """A pinhole camera: world metres to pixels.

    Args:
        position, target: where it stands and what its picture's middle shows.
        up: a direction that is up in the picture.
        focal: focal length in widths of the picture.
    """

    def __init__(
        self,
        position: tuple[float, float, float],
        target: tuple[float, float, float],
        up: tuple[float, float, float],
        focal: float,
        width_px: int,
        height_px: int,
    ) -> None:
        self.position = np.array(position)
        self.width_px, self.height_px = width_px, height_px
        forward = np.array(target) - self.position
        self._distance_m = float(np.linalg.norm(forward))
        forward /= self._distance_m
        right = np.cross(forward, np.array(up))
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        self._focal_px = focal * width_px
        lens = np.array([[self._focal_px, 0, (width_px - 1) / 2], [0, self._focal_px, (height_px - 1) / 2], [0, 0, 1]])
        self._forward = forward
        self._matrix = lens @ np.concatenate([rotation, -(rotation @ self.position)[:, None]], axis=1)

    @property
    def density_px_m(self) -> float:
        """Pixels a metre at the target."""
        return self._focal_px / self._distance_m

    def layers(self, height_m: float) -> int:
        """Into how many layers a thing of this height is cut, for its sides to look closed (about 2 px each)."""
        slant = max(0.3, float(np.hypot(*self._forward[:2])))
        return max(1, round(height_m * self.density_px_m * slant / 2))

    def plane(self, origin: FloatArray, ex: FloatArray, ey: FloatArray) -> FloatArray:
        """Homography [3, 3] from coordinates (a, b) of the plane ``origin + a ex + b ey`` to pixels."""
        columns = np.stack([ex, ey, origin], axis=1)
        homography: FloatArray = self._matrix[:, :3] @ columns
        homography[:, 2] += self._matrix[:, 3]
        return homography

    def depth_m(self, point: FloatArray) -> float:
        return float((point - self.position) @ self._forward)

    def facing(self, along: FloatArray, point: FloatArray) -> FloatArray:
        """Unit vector across a ribbon at ``point`` that runs along ``along``, so that it shows its full width."""
        across = np.cross(point - self.position, along)
        unit: FloatArray = across / max(float(np.linalg.norm(across)), 1e-9)
        return unit


def cameras(width_px: int, height_px: int) -> Mapping[int, Camera]:
    """The two viewpoints, by view number."""
    return {
        0: Camera((0.8, 0.24, 1.75), (0.8, 0.33, 0.0), (0, 1, 0), 0.92, width_px, height_px),
        1: Camera((-0.22, 1.56, 1.34), (0.75, 0.26, 0.02), (0, 0, 1), 0.96, width_px, height_px),
    }


@dataclass(frozen=True)
class Arm:
    """Joint positions in metres, and the hand's axes: forward along the fingers, and to its left."""

    shoulder: FloatArray
    elbow: FloatArray
    wrist: FloatArray
    grip: FloatArray
    forward: FloatArray
    sideways: FloatArray


def lean(poses: Mapping[str, Pose]) -> FloatArray:
    """How far the torso leans with its hands (x, y, z)."""
    offsets = [(pose.x - HOMES[hand][0], pose.y - HOMES[hand][1]) for hand, pose in poses.items()]
    x, y = np.mean(offsets, axis=0)
    return np.array([0.3 * x, 0.3 * y, 0.0])


def solve_arm(hand: str, pose: Pose, torso: FloatArray) -> Arm:
    """Two-bone inverse kinematics; the elbow points outward, back and down."""
    x, y, _ = HOMES[hand]
    shoulder = np.array(SHOULDERS[hand]) + torso + 0.18 * np.array([pose.x - x, pose.y - y, 0.0])
    grip = np.array([pose.x, pose.y, pose.z])
    c, s = np.cos(pose.yaw), np.sin(pose.yaw)
    forward = np.array([c * np.cos(HAND_PITCH), s * np.cos(HAND_PITCH), -np.sin(HAND_PITCH)])
    sideways = np.array([-s, c, 0.0])
    wrist = grip - GRIP_M * forward
    axis = wrist - shoulder
    reach = float(np.linalg.norm(axis))
    axis /= reach
    # A target out of reach gives a straight, slightly stretched arm: the hand is always where the plan says.
    bent = min(reach, 0.999 * (UPPER_ARM_M + FOREARM_M))
    along = (bent**2 + UPPER_ARM_M**2 - FOREARM_M**2) / (2 * bent)
    aside = np.sqrt(max(UPPER_ARM_M**2 - along**2, 0.0))
    pole = np.array([0.7 if hand == "right" else -0.7, -0.25, -0.45])
    pole -= (pole @ axis) * axis
    elbow = shoulder + axis * (along * reach / bent) + pole / np.linalg.norm(pole) * aside
    return Arm(shoulder, elbow, wrist, grip, forward, sideways)
