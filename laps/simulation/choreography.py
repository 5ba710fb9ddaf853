"""What happens at the bench, and when: the actions, the paths of both hands, the objects that they carry.

The world is in metres: x along the bench to the worker's right, y away from the worker, z up from the bench
top. Times are seconds from the start of the timeline. The plan depends on the scenario's seed, duration and
rest style only: size, frame rate, view and distractors do not change what is done.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import atan2, cos, hypot, pi, sin

import numpy as np
import numpy.typing as npt

from laps.simulation.scenario import Scenario

FloatArray = npt.NDArray[np.float64]

RIGHT, LEFT = "right", "left"
HANDS = (RIGHT, LEFT)
SHOULDERS: Mapping[str, tuple[float, float, float]] = {RIGHT: (1.04, -0.24, 0.36), LEFT: (0.56, -0.24, 0.36)}
HOMES: Mapping[str, tuple[float, float, float]] = {RIGHT: (1.04, 0.10, 0.04), LEFT: (0.56, 0.10, 0.04)}

FIXTURE = (0.80, 0.34)
SUPPLY = ((0.22, 0.34), (0.30, 0.48), (0.45, 0.52))
DONE = ((1.12, 0.53), (1.29, 0.52), (1.45, 0.46))
PARTS = ("plate", "gear", "bracket")
REST_POSES: Mapping[str, tuple[float, float, float]] = {
    "driver": (1.25, 0.14, 1.5),
    "mallet": (1.40, 0.16, 1.6),
    "cloth": (0.34, 0.17, 0.2),
    "tray": (0.80, 0.58, 0.0),
}
DRIVER_TIP_M = 0.15
MALLET_HEAD_M = 0.17
GRASP_Z_M = 0.035


@dataclass(frozen=True)
class Action:
    """One primitive of the truth: ``[start_s, end_s)`` on the timeline, its label, the hands that do it."""

    start_s: float
    end_s: float
    label: str
    hands: tuple[str, ...]


@dataclass(frozen=True)
class Pose:
    """Place of a hand's grip or an object's anchor on a plane parallel to the bench."""

    x: float
    y: float
    z: float
    yaw: float

    def compose(self, local: Pose) -> Pose:
        """This pose applied to one given relative to it."""
        c, s = cos(self.yaw), sin(self.yaw)
        return Pose(
            self.x + c * local.x - s * local.y,
            self.y + s * local.x + c * local.y,
            self.z + local.z,
            self.yaw + local.yaw,
        )

    def relative(self, other: Pose) -> Pose:
        """``other`` seen from this pose: ``self.compose(self.relative(other)) == other``."""
        dx, dy = other.x - self.x, other.y - self.y
        c, s = cos(self.yaw), sin(self.yaw)
        return Pose(c * dx + s * dy, -s * dx + c * dy, other.z - self.z, other.yaw - self.yaw)


@dataclass(frozen=True)
class Knot:
    """A hand reaches ``pose`` at ``time_s``; the way there bulges upward by ``arc_m``, and its speed is that of
    people (minimum jerk: fast in the middle) or steady."""

    time_s: float
    pose: Pose
    arc_m: float = 0.0
    steady: bool = False


class HandPath:
    """The path of one hand: knots, with a small sway on top, for nobody rests like a statue."""

    def __init__(self, knots: list[Knot], rng: np.random.Generator) -> None:
        self._knots = knots
        self._sway_hz = rng.uniform(0.15, 0.6, (4, 3))
        self._sway_phase = rng.uniform(0, 2 * pi, (4, 3))
        self._sway_m = np.array([0.0011, 0.0011, 0.0008, 0.004])[:, None] / np.arange(1, 4)

    def pose(self, time_s: float) -> Pose:
        """The grip's pose; before the first and after the last knot the hand stays where it is."""
        after = bisect_right(self._knots, time_s, key=lambda knot: knot.time_s)
        dx, dy, dz, dyaw = (
            (self._sway_m * np.sin(2 * pi * self._sway_hz * time_s + self._sway_phase)).sum(axis=1).tolist()
        )
        if after == 0 or after == len(self._knots):
            at = self._knots[0 if after == 0 else -1].pose
            return Pose(at.x + dx, at.y + dy, at.z + dz, at.yaw + dyaw)
        a, b = self._knots[after - 1], self._knots[after]
        s = (time_s - a.time_s) / (b.time_s - a.time_s)
        if not b.steady:
            s = s * s * s * (10 + s * (6 * s - 15))
        lift = b.arc_m * 4 * s * (1 - s)
        p, q = a.pose, b.pose
        return Pose(
            p.x + s * (q.x - p.x) + dx,
            p.y + s * (q.y - p.y) + dy,
            p.z + s * (q.z - p.z) + dz + lift,
            p.yaw + s * (q.yaw - p.yaw) + dyaw,
        )


@dataclass(frozen=True)
class Carriage:
    """From ``start_s`` on an object is held (``hand``; pose relative to its grip) or lies there (no hand)."""

    start_s: float
    hand: str | None
    pose: Pose


class Choreography:
    """The finished plan: where everything is at any time."""

    def __init__(self, actions: list[Action], hands: dict[str, HandPath], objects: dict[str, list[Carriage]]) -> None:
        self.actions = actions
        self._hands = hands
        self._objects = objects

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(self._objects)

    def hand(self, name: str, time_s: float) -> Pose:
        return self._hands[name].pose(time_s)

    def object(self, name: str, time_s: float) -> tuple[Pose, str | None]:
        """An object's pose, and the hand that holds it."""
        changes = self._objects[name]
        change = changes[bisect_right(changes, time_s, key=lambda change: change.start_s) - 1]
        if change.hand is None:
            return change.pose, None
        return self.hand(change.hand, time_s).compose(change.pose), change.hand


def plan(scenario: Scenario) -> list[Action]:
    """The truth: actions in order of time, never overlapping; without a rest between them they touch."""
    return choreograph(scenario).actions


def choreograph(scenario: Scenario) -> Choreography:
    """Plan the whole timeline: the truth and every path."""
    return _Choreographer(scenario).run()


class _Choreographer:
    """Builds a plan action by action, keeping track of where the hands and objects are."""

    def __init__(self, scenario: Scenario) -> None:
        self._rng = scenario.generator("work")
        self._no_rest = scenario.rest_style == "no_rest"
        self._duration_s = scenario.duration_s
        self._now_s = float(self._rng.uniform(0.6, 1.4))
        self._pace = float(self._rng.uniform(1.06, 1.2))  # this worker's; each action varies it
        self._tempo = 1.0
        self._holds = 0
        self._actions: list[Action] = []
        self._knots: dict[str, list[Knot]] = {}
        self._paths: dict[str, HandPath] = {}
        self._cursor_s: dict[str, float] = {}
        for hand in HANDS:
            x, y, z = HOMES[hand]
            self._knots[hand] = [Knot(0.0, Pose(x, y, z, self._natural_yaw(hand, x, y)))]
            self._paths[hand] = HandPath(self._knots[hand], self._rng)
        self._objects: dict[str, list[Carriage]] = {
            name: [Carriage(0.0, None, Pose(x, y, 0.0, yaw))] for name, (x, y, yaw) in REST_POSES.items()
        }
        self._slot: dict[str, tuple[float, float]] = {}
        for part, slot in zip(PARTS, SUPPLY, strict=True):
            self._slot[part] = slot
            self._objects[part] = [Carriage(0.0, None, Pose(*slot, 0.0, float(self._rng.uniform(-pi, pi))))]
        self._work_done = 0

    def run(self) -> Choreography:
        last = ""
        while self._now_s < self._duration_s:
            options: dict[str, tuple[float, Callable[[], None]]] = {
                "wipe": (0.8, self._wiping),
                "slide": (0.7, self._sliding),
            }
            if self._on_fixture() is None:
                if any(slot in SUPPLY for slot in self._slot.values()):
                    options["load"] = (3.0, self._loading)
            else:
                options["screw"] = (1.8, self._screwing)
                options["hammer"] = (1.3, self._hammering)
                if self._work_done:
                    options["unload"] = (1.2 * self._work_done, self._unloading)
            if sum(slot in DONE for slot in self._slot.values()) > 1:
                options["return"] = (1.5, self._returning)
            names = [name for name in options if name != last]
            weights = np.array([options[name][0] for name in names])
            last = names[int(self._rng.choice(len(names), p=weights / weights.sum()))]
            options[last][1]()
        return self._finish()

    def _finish(self) -> Choreography:
        """Whole actions only: nobody begins what the recording's end would cut."""
        actions = [action for action in self._actions if action.end_s <= self._duration_s]
        end_s = actions[-1].end_s if actions else 0.0
        tolerance_s = 1e-9
        for knots in self._knots.values():
            knots[:] = [knot for knot in knots if knot.time_s <= end_s + tolerance_s]
        objects = {
            name: [change for change in changes if change.start_s <= end_s + tolerance_s]
            for name, changes in self._objects.items()
        }
        return Choreography(actions, self._paths, objects)

    # Time and motion

    def _uniform(self, low: float, high: float) -> float:
        return float(self._rng.uniform(low, high))

    @staticmethod
    def _natural_yaw(hand: str, x: float, y: float) -> float:
        """The hand points away from its shoulder."""
        return atan2(y - SHOULDERS[hand][1] + 0.1, 0.8 * (x - SHOULDERS[hand][0]))

    def _begin(self) -> None:
        self._tempo = self._pace * self._uniform(0.82, 1.22)
        self._holds = int(self._rng.integers(1, 3)) if self._no_rest else 0
        self._cursor_s = dict.fromkeys(HANDS, self._now_s)

    def _end(self, label: str, leading: str) -> None:
        start_s, self._now_s = self._now_s, max(self._cursor_s.values())
        busy = tuple(hand for hand in HANDS if self._cursor_s[hand] > start_s)
        self._actions.append(Action(start_s, self._now_s, label, busy))
        self._pause(leading)

    def _pause(self, hand: str) -> None:
        chance = self._rng.random()
        if self._no_rest:
            if chance < 0.65:
                return
            # Drifting, slowly and steadily, to nowhere in particular.
            gap_s = self._uniform(0.8, 1.8)
            self._begin()
            self._holds = 0
            at = self._at(hand)
            angle, way_m = self._uniform(0, 2 * pi), gap_s * self._uniform(0.07, 0.13)
            x = float(np.clip(at.x + way_m * cos(angle), 0.3, 1.3))
            y = float(np.clip(at.y + way_m * sin(angle), 0.08, 0.42))
            self._move(hand, (x, y, at.z), gap_s / self._tempo, yaw=at.yaw, steady=True)
            self._now_s = self._cursor_s[hand]
        elif chance >= 0.12:
            idle = chance > 0.955
            self._now_s += (
                self._uniform(4.0, 8.0) if idle else float(np.clip(self._rng.lognormal(0.05, 0.4), 0.45, 3.0))
            )

    def _at(self, hand: str) -> Pose:
        return self._knots[hand][-1].pose

    def _move(
        self,
        hand: str,
        to: tuple[float, float, float],
        seconds: float,
        *,
        arc_m: float = 0.0,
        yaw: float | None = None,
        turn: float = 0.0,
        steady: bool = False,
    ) -> None:
        """Move a hand from where it is; its yaw follows the arm unless given."""
        if self._holds and self._cursor_s[hand] > self._now_s and self._rng.random() < 0.5:
            self._holds -= 1
            self._wait(hand, self._uniform(0.5, 1.0) / self._tempo)
        knots, start_s = self._knots[hand], self._cursor_s[hand]
        if start_s > knots[-1].time_s:
            knots.append(Knot(start_s, knots[-1].pose))
        if yaw is None:
            yaw = self._natural_yaw(hand, to[0], to[1]) + turn
        end_s = start_s + seconds * self._tempo
        knots.append(Knot(end_s, Pose(*to, yaw), arc_m, steady))
        self._cursor_s[hand] = end_s

    def _wait(self, hand: str, seconds: float) -> None:
        self._cursor_s[hand] += seconds * self._tempo
        self._knots[hand].append(Knot(self._cursor_s[hand], self._knots[hand][-1].pose))

    def _meet(self) -> None:
        """Both hands go on at the same time."""
        at_s = max(self._cursor_s.values())
        self._cursor_s = dict.fromkeys(HANDS, at_s)

    def _reach_s(self, hand: str, to: tuple[float, float, float]) -> float:
        """Farther takes longer, but not in proportion."""
        at = self._at(hand)
        return (0.55 + 0.9 * hypot(to[0] - at.x, to[1] - at.y, to[2] - at.z)) * self._uniform(0.95, 1.35)

    def _retract(self, hand: str, share: float = 1.0) -> None:
        at, (x, y, z) = self._at(hand), HOMES[hand]
        k = share * self._uniform(0.6, 1.0)
        to = (
            at.x + k * (x - at.x) + self._uniform(-0.03, 0.03),
            at.y + k * (y - at.y),
            at.z + k * (z - at.z),
        )
        self._move(hand, to, 0.35 + 0.8 * hypot(to[0] - at.x, to[1] - at.y), arc_m=0.03)

    def _object_pose(self, name: str) -> Pose:
        return self._objects[name][-1].pose

    def _grab(self, name: str, hand: str) -> None:
        at_s = self._cursor_s[hand]
        held = self._objects[name][-1]
        pose = held.pose if held.hand is None else self._paths[held.hand].pose(at_s).compose(held.pose)
        self._objects[name].append(Carriage(at_s, hand, self._paths[hand].pose(at_s).relative(pose)))

    def _release(self, name: str, hand: str) -> None:
        at_s = self._cursor_s[hand]
        pose = self._paths[hand].pose(at_s).compose(self._objects[name][-1].pose)
        self._objects[name].append(Carriage(at_s, None, Pose(pose.x, pose.y, 0.0, pose.yaw)))

    # Primitives

    def _pick(self, name: str, hand: str) -> None:
        self._begin()
        thing = self._object_pose(name)
        to = (thing.x, thing.y, GRASP_Z_M)
        self._move(hand, to, self._reach_s(hand, to), arc_m=self._uniform(0.05, 0.11))
        self._wait(hand, self._uniform(0.02, 0.10))
        self._grab(name, hand)
        at = self._at(hand)
        back = self._uniform(0.02, 0.10)
        self._move(hand, (at.x, at.y - back, at.z + self._uniform(0.06, 0.10)), self._uniform(0.4, 0.6))
        self._end("pick", hand)

    def _place(self, name: str, hand: str, target: tuple[float, float], yaw: float | None = None) -> None:
        """Put an object's anchor on ``target``; tools come back to their old direction."""
        self._begin()
        if hand == RIGHT and hypot(self._at(LEFT).x - FIXTURE[0], self._at(LEFT).y - FIXTURE[1]) < 0.12:
            self._retract(LEFT)  # it steadied the part until now
        local = self._objects[name][-1].pose
        grip_yaw = self._natural_yaw(hand, *target) if yaw is None else yaw - local.yaw
        c, s = cos(grip_yaw), sin(grip_yaw)
        x, y = target[0] - c * local.x + s * local.y, target[1] - s * local.x - c * local.y
        over = (x, y, GRASP_Z_M + 0.07)
        self._move(hand, over, self._reach_s(hand, over), arc_m=self._uniform(0.02, 0.06), yaw=grip_yaw)
        self._move(hand, (x, y, GRASP_Z_M), self._uniform(0.28, 0.45), yaw=grip_yaw)
        self._wait(hand, self._uniform(0.02, 0.10))
        self._release(name, hand)
        self._retract(hand)
        self._end("place", hand)

    def _tool_to_work(self, hand: str, tool_m: float, z: float) -> tuple[float, float, float]:
        """Where the grip must be for a tool's working end to be on a point of the fixture."""
        x, y = FIXTURE[0] + self._uniform(-0.05, 0.05), FIXTURE[1] + self._uniform(-0.04, 0.04)
        yaw = self._natural_yaw(hand, x, y)
        return (x - tool_m * cos(yaw), y - tool_m * sin(yaw), z)

    def _support(self, chance: float) -> None:
        """The left hand may come to steady the part."""
        if self._rng.random() < chance:
            to = (FIXTURE[0] - 0.07, FIXTURE[1] - 0.02, 0.05)
            self._wait(LEFT, self._uniform(0.05, 0.3))
            self._move(LEFT, to, self._reach_s(LEFT, to), arc_m=0.05)

    def _screw(self) -> None:
        self._begin()
        self._support(0.4)
        x, y, z = self._tool_to_work(RIGHT, DRIVER_TIP_M, 0.07)
        self._move(RIGHT, (x, y, z), self._reach_s(RIGHT, (x, y, z)) * 0.8, arc_m=0.03)
        yaw = self._at(RIGHT).yaw
        tip = (x + DRIVER_TIP_M * cos(yaw), y + DRIVER_TIP_M * sin(yaw))
        half_s, swing = self._uniform(0.12, 0.18), self._uniform(0.05, 0.08)
        for burst in range(int(self._rng.integers(2, 5))):
            if burst:
                self._wait(RIGHT, self._uniform(0.05, 0.15))
            for turn in range(2 * int(self._rng.integers(2, 5))):
                angle = yaw + (swing if turn % 2 == 0 else -swing)
                to = (tip[0] - DRIVER_TIP_M * cos(angle), tip[1] - DRIVER_TIP_M * sin(angle), z)
                self._move(RIGHT, to, half_s, yaw=angle)
        self._move(RIGHT, (x, y - 0.05, z + 0.04), self._uniform(0.35, 0.55))
        self._end("screw", RIGHT)

    def _hammer(self) -> None:
        self._begin()
        self._support(0.3)
        x, y, z = self._tool_to_work(RIGHT, MALLET_HEAD_M, 0.06)
        lifted, height = z + 0.05, self._uniform(0.10, 0.16)
        self._move(RIGHT, (x, y, lifted), self._reach_s(RIGHT, (x, y, lifted)) * 0.8, arc_m=0.04)
        yaw = self._at(RIGHT).yaw
        up_s, down_s = self._uniform(0.22, 0.34), self._uniform(0.10, 0.14)
        for _ in range(int(self._rng.integers(4, 8))):
            self._move(RIGHT, (x, y - 0.35 * height, z + height), up_s, yaw=yaw)
            self._move(RIGHT, (x, y, z), down_s, yaw=yaw)
            if self._rng.random() < 0.2:
                self._wait(RIGHT, self._uniform(0.05, 0.15))
        self._move(RIGHT, (x, y - 0.06, z + 0.05), self._uniform(0.35, 0.5))
        self._end("hammer", RIGHT)

    def _wipe(self, hand: str) -> None:
        self._begin()
        sweeps, sweep_s = int(self._rng.integers(5, 9)), self._uniform(0.34, 0.52)
        middle = 0.58 if hand == LEFT else 1.02
        width, y = self._uniform(0.10, 0.15), self._uniform(0.18, 0.28)
        start = (middle - width, y, GRASP_Z_M)
        self._move(hand, start, self._reach_s(hand, start) * 0.8)
        for i in range(sweeps):
            y += self._uniform(0.0, 0.02)
            self._move(hand, (middle + (width if i % 2 == 0 else -width), y, GRASP_Z_M), sweep_s)
        at = self._at(hand)
        self._move(hand, (at.x, at.y - 0.06, at.z + 0.03), self._uniform(0.35, 0.5))
        self._end("wipe", hand)

    def _inspect(self, hand: str) -> None:
        self._begin()
        side = 1 if hand == RIGHT else -1
        x, y, z = 0.8 + side * self._uniform(0.03, 0.12), self._uniform(0.16, 0.24), self._uniform(0.20, 0.28)
        self._move(hand, (x, y, z), self._uniform(0.8, 1.05))
        natural = self._natural_yaw(hand, x, y)
        turn = self._uniform(0.5, 0.8) * (1 if self._rng.random() < 0.5 else -1)
        self._move(hand, (x, y + 0.03, z), self._uniform(0.5, 0.7), yaw=natural + turn)
        self._wait(hand, self._uniform(0.05, 0.15))
        self._move(hand, (x - side * 0.04, y, z + 0.02), self._uniform(0.7, 1.0), yaw=natural - turn)
        if self._rng.random() < 0.5:
            self._wait(hand, self._uniform(0.05, 0.15))
        self._move(hand, (x + side * 0.08, y, 0.12), self._uniform(0.5, 0.7))
        self._end("inspect", hand)

    def _hand_over(self, name: str, giver: str) -> None:
        taker = LEFT if giver == RIGHT else RIGHT
        side = 1 if giver == RIGHT else -1
        self._begin()
        x, y, z = 0.8 + self._uniform(-0.05, 0.05), self._uniform(0.18, 0.26), self._uniform(0.10, 0.16)
        give, take = (x + side * 0.03, y, z), (x - side * 0.05, y + 0.01, z)
        self._move(giver, give, self._reach_s(giver, give), arc_m=0.03)
        self._wait(taker, self._uniform(0.1, 0.4))
        self._move(taker, take, self._reach_s(taker, take), arc_m=0.02)
        self._meet()
        for hand in HANDS:
            self._wait(hand, 0.1)
        self._grab(name, taker)
        back = (x - side * self._uniform(0.14, 0.22), y - self._uniform(0.0, 0.05), z - 0.02)
        self._move(taker, back, self._uniform(0.55, 0.75))
        self._retract(giver)
        self._end("hand_over", taker)

    def _slide(self) -> None:
        self._begin()
        tray = self._object_pose("tray")
        half, low = 0.15, 0.03
        for hand, side in ((RIGHT, 1), (LEFT, -1)):
            to = (tray.x + side * half, tray.y - 0.06, low)
            self._move(hand, to, self._reach_s(hand, to), arc_m=0.05, turn=side * 0.35)
        self._meet()
        for hand in HANDS:
            self._wait(hand, 0.15)
        self._holds = 0  # a stop of one hand alone would tear the tray from it
        self._grab("tray", RIGHT)
        shift = (0.70 if tray.x > 0.8 else 0.90) + self._uniform(-0.02, 0.02) - tray.x
        depth = 0.58 + self._uniform(-0.02, 0.02) - tray.y
        seconds = self._uniform(0.9, 1.3)
        for hand in HANDS:
            at = self._at(hand)
            self._move(hand, (at.x + shift, at.y + depth, at.z), seconds, yaw=at.yaw)
        self._release("tray", RIGHT)
        for hand in HANDS:
            self._retract(hand)
        self._end("slide", RIGHT)

    # Routines: sequences of primitives that make sense together

    def _on_fixture(self) -> str | None:
        return next((part for part, slot in self._slot.items() if slot == FIXTURE), None)

    def _free(self, slots: tuple[tuple[float, float], ...]) -> tuple[float, float]:
        taken = set(self._slot.values())
        free = [slot for slot in slots if slot not in taken]
        return free[int(self._rng.integers(len(free)))]

    def _loading(self) -> None:
        waiting = [part for part, slot in self._slot.items() if slot in SUPPLY]
        part = waiting[int(self._rng.integers(len(waiting)))]
        hand = LEFT
        self._pick(part, hand)
        if self._rng.random() < 0.4:
            self._hand_over(part, hand)
            hand = RIGHT
        self._place(part, hand, FIXTURE)
        self._slot[part] = FIXTURE
        self._work_done = 0

    def _screwing(self) -> None:
        self._with_tool("driver", self._screw)

    def _hammering(self) -> None:
        self._with_tool("mallet", self._hammer)

    def _with_tool(self, tool: str, work: Callable[[], None]) -> None:
        self._pick(tool, RIGHT)
        for _ in range(int(self._rng.integers(1, 4))):
            work()
            self._work_done += 1
        x, y, yaw = REST_POSES[tool]
        self._place(tool, RIGHT, (x, y), yaw)

    def _unloading(self) -> None:
        part = self._on_fixture()
        if part is None:
            return
        self._pick(part, RIGHT)
        if self._rng.random() < 0.6:
            self._inspect(RIGHT)
        slot = self._free(DONE)
        self._place(part, RIGHT, slot)
        self._slot[part] = slot

    def _returning(self) -> None:
        done = [part for part, slot in self._slot.items() if slot in DONE]
        part = done[int(self._rng.integers(len(done)))]
        self._pick(part, RIGHT)
        if self._rng.random() < 0.4:
            self._inspect(RIGHT)
        self._hand_over(part, RIGHT)
        slot = self._free(SUPPLY)
        self._place(part, LEFT, slot)
        self._slot[part] = slot

    def _wiping(self) -> None:
        x, y, yaw = REST_POSES["cloth"]
        self._pick("cloth", LEFT)
        self._wipe(LEFT)
        if self._rng.random() < 0.4:
            self._wipe(LEFT)
        self._place("cloth", LEFT, (x, y), yaw)

    def _sliding(self) -> None:
        self._slide()
