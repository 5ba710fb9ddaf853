"""The simulated workstation: determinism, truth, distractors, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.errors import InputError
from laps.simulation import DISTRACTORS, LABELS, SCENARIOS, VIEWS, Renderer, Scenario, plan, record, render, truth
from laps.simulation.choreography import HANDS, choreograph
from laps.simulation.distractors import Distractors
from laps.timegrid import NS_PER_S, parse_utc

START_NS = parse_utc("2026-03-05T09:59:50Z")
SMALL = Scenario(seed=3, duration_s=12.0, width_px=320, height_px=180, fps=10.0)


def frames_of(scenario: Scenario, view: int = 0, start_s: float = 0.0, stop_s: float | None = None):
    return list(render(scenario, view, start_s, stop_s))


def pts_s(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.array([float(frame.pts * frame.time_base) for frame in container.decode(video=0)])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), duration_s=st.floats(2.0, 400.0), rest_style=st.sampled_from(["mixed", "no_rest"]))
def test_truth_is_ordered_and_inside(seed, duration_s, rest_style):
    scenario = Scenario(seed=seed, duration_s=duration_s, rest_style=rest_style)
    actions = plan(scenario)
    assert actions == plan(replace(scenario, width_px=320, height_px=180, distractors=frozenset(DISTRACTORS)))
    times = [time for action in actions for time in (action.start_s, action.end_s)]
    assert times == sorted(times)
    assert all(0 <= time <= duration_s for time in times)
    assert all(action.end_s - action.start_s > 0.5 for action in actions)
    assert {action.label for action in actions} <= LABELS.keys()
    assert all(action.hands for action in actions)


def test_default_work_looks_like_work():
    actions = plan(Scenario(seed=1, duration_s=1200.0))
    assert {action.label for action in actions} == set(LABELS)
    assert 12 < len(actions) / 20 < 16
    lengths = np.array([action.end_s - action.start_s for action in actions])
    assert 2.5 < lengths.mean() < 3.5
    gaps = np.array([after.start_s - action.end_s for action, after in pairwise(actions)])
    assert 0.03 < (gaps == 0).mean() < 0.3  # missing rests
    assert gaps.max() > 4  # idle times
    assert 0.6 < np.median(gaps[gaps > 0]) < 1.6  # short rests


def test_no_rest_has_few_rests_holds_inside_actions_and_motion_in_gaps():
    scenario = replace(SCENARIOS["no_rest"], seed=2, duration_s=600.0)
    choreography = choreograph(scenario)
    actions = choreography.actions
    pairs = list(pairwise(actions))
    assert np.mean([after.start_s == action.end_s for action, after in pairs]) > 0.5

    def speed(time_s: float) -> float:
        a, b = ([choreography.hand(hand, t) for hand in HANDS] for t in (time_s - 0.05, time_s + 0.05))
        return max(np.hypot(np.hypot(p.x - q.x, p.y - q.y), p.z - q.z) / 0.1 for p, q in zip(a, b, strict=True))

    gaps = [(action.end_s + after.start_s) / 2 for action, after in pairs if after.start_s - action.end_s > 0.5]
    assert np.median([speed(time_s) for time_s in gaps]) > 0.04
    inside = [speed(t) for action in actions for t in np.arange(action.start_s + 0.3, action.end_s - 0.3, 0.1)]
    assert np.mean(np.array(inside) < 0.02) > 0.1


def test_objects_move_with_the_hands():
    choreography = choreograph(Scenario(seed=4, duration_s=300.0))
    carried = 0
    for name in choreography.objects:
        for time_s in np.arange(0.0, 299.0, 0.5):
            before, hand = choreography.object(name, time_s)
            after, still = choreography.object(name, time_s + 0.1)
            moved = np.hypot(after.x - before.x, after.y - before.y)
            if hand is None and still is None:
                assert moved == 0
            elif hand is not None and still == hand:
                carried += 1
                grip = choreography.hand(hand, time_s)
                assert np.hypot(before.x - grip.x, before.y - grip.y) < 0.25
            assert moved < 0.3  # never jumps, not even when it is taken, passed on or let go
    assert carried > 100


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_same_seed_same_frames(name, view):
    scenario = replace(SCENARIOS[name], seed=5, duration_s=2.0, width_px=320, height_px=180, fps=10.0)
    first, second = frames_of(scenario, view), frames_of(scenario, view)
    assert [time for time, _ in first] == [i / 10 for i in range(20)]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, second, strict=True))
    assert first[0][1].shape == (180, 320, 3) and first[0][1].dtype == np.uint8
    other = frames_of(replace(scenario, seed=6), view)
    assert not any(np.array_equal(a, b) for (_, a), (_, b) in zip(first, other, strict=True))


def test_views_differ():
    assert np.abs(frames_of(SMALL, 0)[0][1].astype(int) - frames_of(SMALL, 1)[0][1]).mean() > 20


@pytest.mark.parametrize("view", VIEWS)
def test_parts_give_the_frames_of_one_pass(view):
    scenario = replace(SMALL, distractors=frozenset(DISTRACTORS), fps=30000 / 1001, duration_s=5.0)
    whole = frames_of(scenario, view)
    parts = [frame for a, b in ((0.0, 1.7), (1.7, 3.0), (3.0, None)) for frame in frames_of(scenario, view, a, b)]
    assert [time for time, _ in parts] == [time for time, _ in whole]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(whole, parts, strict=True))


def quiet_pair(name: str, view: int = 0, **changes) -> tuple[Callable, Callable, Distractors]:
    """Frames without and with one distractor, free of noise, and its schedule."""
    plain = replace(SMALL, noise=0.0, duration_s=60.0, **changes)
    told = replace(plain, distractors=frozenset({name}))
    return Renderer(plain, view).frame, Renderer(told, view).frame, Distractors(told, view)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(int) - b).max(axis=2)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("name", "event_of"), [("shadow", "shadow"), ("passer_by", "passer"), ("occlusion", "occlusion")]
)
def test_passing_things_are_there_during_their_event_only(name, event_of, view):
    plain, told, distractors = quiet_pair(name, view)
    times = np.arange(600) / 10
    events = [getattr(distractors, event_of)(time) for time in times]
    middle = next(i for i, event in enumerate(events) if event is not None and event.progress(times[i]) > 0.5)
    share = (difference(plain(middle), told(middle)) > 15).mean()
    assert {"shadow": 0.02, "passer_by": 0.004, "occlusion": 0.1}[name] < share < 0.6
    quiet = next(i for i, event in enumerate(events) if event is None)
    assert np.array_equal(plain(quiet), told(quiet))


@pytest.mark.parametrize("view", VIEWS)
def test_belt_moves_while_it_runs(view):
    _, told, distractors = quiet_pair("belt", view)
    way_m = [distractors.belt_m((i + 8) / 10) - distractors.belt_m(i / 10) for i in range(590)]
    running = [i for i in range(20, 590) if way_m[i] > 0.99 * max(way_m)]
    standing = [i for i in range(20, 590) if way_m[i] == 0]
    assert len(running) > len(standing) > 0

    def far_side(index: int) -> float:
        pair = [told(i)[:70] if view == 0 else told(i)[60:, :160] for i in (index, index + 8)]
        return float((difference(*pair) > 20).mean())

    assert np.median([far_side(i) for i in running[::40]]) > 0.01
    assert np.median([far_side(i) for i in standing[::20]]) < 0.005


def test_light_blinks_in_one_place():
    plain, told, distractors = quiet_pair("blink")
    states = {distractors.lamp(i / 10): i for i in range(40)}
    assert states.keys() == {"on", "off"}
    changed = difference(told(states["on"]), told(states["off"])) > 40
    assert 0 < changed.mean() < 0.02
    lamp = difference(told(states["off"]), plain(states["off"])) > 40
    assert 0 < lamp.mean() < 0.01


def test_flicker_and_exposure_change_the_brightness():
    plain, told, _ = quiet_pair("flicker", fps=30.0)
    ratio = np.array([told(i).mean() / plain(i).mean() for i in range(90)])
    assert 0.006 < np.ptp(ratio) < 0.05 and np.abs(np.diff(ratio)).max() > 0.002
    plain, told, _ = quiet_pair("exposure")
    ratio = np.array([told(i).mean() / plain(i).mean() for i in range(0, 300, 5)])
    assert np.ptp(ratio) > 0.15
    assert np.mean(np.abs(np.diff(ratio)) < 0.01) > 0.5  # steps: mostly constant


def test_shake_moves_the_whole_picture():
    plain, told, _ = quiet_pair("shake", width_px=1280, height_px=720)
    shifts = [
        cv2.phaseCorrelate(*(cv2.cvtColor(frame(i), cv2.COLOR_BGR2GRAY).astype(np.float32) for frame in (plain, told)))[
            0
        ]
        for i in range(0, 200, 10)
    ]
    assert np.std(shifts, axis=0).min() > 0.1
    assert np.abs(shifts).max() > 0.3


def test_freezes_repeat_the_picture_exactly():
    scenario = replace(SMALL, duration_s=30.0, distractors=frozenset({"freezes"}))
    frames = [frame for _, frame in frames_of(scenario)]
    assert len(frames) == 300
    same = [np.array_equal(a, b) for a, b in pairwise(frames)]
    assert 0.01 < np.mean(same) < 0.4
    plain = [frame for _, frame in frames_of(replace(scenario, distractors=frozenset()), stop_s=5.0)]
    assert not any(np.array_equal(a, b) for a, b in pairwise(plain))


def test_dropped_frames_are_missing_from_the_file(tmp_path):
    scenario = replace(SMALL, duration_s=20.0, fps=30.0, distractors=frozenset({"drops"}))
    path = record(tmp_path, scenario, camera="cam1", start_ns=START_NS)
    times = pts_s(path)
    assert times == pytest.approx([time for time, _ in render(scenario)], abs=1e-4)
    gaps = np.diff(times) * 30
    assert gaps == pytest.approx(np.rint(gaps), abs=1e-2)
    assert 0 < (gaps > 1.5).sum() < 40 and gaps.max() < 17
    assert set(range(20)) <= set(np.rint(times * 30) / 30)  # every whole second has its frame
    assert json.loads((tmp_path / "cam1" / f"{path.stem}.truth.json").read_text())["duration_sec"] == 20.0


def test_distractors_leave_each_other_and_the_work_alone():
    one = Distractors(replace(SMALL, distractors=frozenset({"shake"})), 0)
    many = Distractors(replace(SMALL, distractors=frozenset(DISTRACTORS)), 0)
    assert (
        one.shake(3.3) == many.shake(3.3) != Distractors(replace(SMALL, distractors=frozenset({"shake"})), 1).shake(3.3)
    )


def test_recordings_of_two_views_and_two_parts(tmp_path):
    """One timeline, two cameras, one of them split at the full hour."""
    scenario = replace(SMALL, duration_s=24.0, fps=15.0)
    overhead = record(tmp_path, scenario, camera="overhead", view=0, start_ns=START_NS)
    before = record(tmp_path, scenario, camera="side", view=1, start_ns=START_NS, stop_s=10.0)
    after = record(tmp_path, scenario, camera="side", view=1, start_ns=START_NS, start_s=10.0)
    assert overhead == tmp_path / "overhead" / "overhead_20260305T095950Z.mp4"
    assert [before.name, after.name] == ["side_20260305T095950Z.mp4", "side_20260305T100000Z.mp4"]
    assert not list(tmp_path.rglob("*.part"))

    def truth_of(path: Path) -> dict:
        return json.loads(path.with_name(f"{path.stem}.truth.json").read_text())

    whole = truth_of(overhead)
    assert whole == truth(scenario)
    assert whole | {"segments": None} == {
        "fps": 15.0,
        "width": 320,
        "height": 180,
        "duration_sec": 24.0,
        "labels": dict(LABELS),
        "segments": None,
    }
    labels = [(s["start_sec"], s["end_sec"], s["label"]) for s in whole["segments"]]
    assert labels == [(round(a.start_s, 6), round(a.end_s, 6), a.label) for a in plan(scenario)]
    first, second = truth_of(before), truth_of(after)
    assert (first["duration_sec"], second["duration_sec"]) == (10.0, 14.0)
    joined = sum(s["end_sec"] - s["start_sec"] for part in (first, second) for s in part["segments"])
    assert joined == pytest.approx(sum(end - start for start, end, _ in labels), abs=0.08)
    assert all(0 <= s["start_sec"] < s["end_sec"] <= 14.0 for s in second["segments"])

    with av.open(str(after)) as container:
        stream = container.streams.video[0]
        assert container.metadata["creation_time"].startswith("2026-03-05T10:00:00")
        assert (stream.codec_context.name, stream.pix_fmt, stream.width, stream.height) == ("h264", "yuv420p", 320, 180)
        frames = list(container.decode(video=0))
    assert [round(float(f.pts * f.time_base) * 15) for f in frames] == list(range(14 * 15))
    keys = [i for i, f in enumerate(frames) if f.key_frame]
    assert keys[0] == 0 and max(np.diff([*keys, len(frames)])) <= 30
    shown = frames[7].to_ndarray(format="bgr24").astype(int)
    assert np.abs(shown - Renderer(scenario, 1).frame(157)).mean() < 8  # 10 s * 15 + 7


def test_a_start_between_seconds_is_told_by_a_sidecar(tmp_path):
    done = []
    path = record(
        tmp_path, SMALL, camera="c", start_ns=START_NS, start_s=0.5, stop_s=1.0, progress=lambda *a: done.append(a)
    )
    assert path.name == "c_20260305T095950Z.mp4"
    sidecar = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert parse_utc(sidecar["start"]) == START_NS + NS_PER_S // 2
    assert done == [(i, 5) for i in range(1, 6)]


@pytest.mark.parametrize("view", VIEWS)
def test_flow_tells_action_from_rest(view):
    """Mean flow magnitude separates actions from rests on the clean scenario, well but not perfectly."""
    scenario = replace(SMALL, seed=5, duration_s=40.0, width_px=640, height_px=360)
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    actions = plan(scenario)
    previous, acting, resting = None, [], []
    for time_s, frame in render(scenario, view):
        grey = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (569, 320), interpolation=cv2.INTER_AREA)
        if previous is not None:
            energy = np.linalg.norm(dis.calc(previous, grey, None), axis=2).mean()
            inside = any(action.start_s <= time_s - 0.05 < action.end_s for action in actions)
            (acting if inside else resting).append(energy)
        previous = grey
    assert np.mean(acting) > 5 * np.mean(resting)
    wins = np.mean(np.array(acting)[:, None] > np.array(resting)[None, :])  # the area under the ROC curve
    assert wins > 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distractors": frozenset({"earthquake"})}, "earthquake"),
        ({"width_px": 321}, "even"),
        ({"height_px": 10}, "64"),
        ({"duration_s": 0.0}, "timeline"),
        ({"fps": 0.0}, "frames a second"),
        ({"seed": -1}, "seed"),
        ({"rest_style": "lazy"}, "rest style"),
        ({"noise": 99.0}, "noise"),
    ],
)
def test_impossible_scenarios(changes, words):
    with pytest.raises(InputError, match=words):
        replace(SMALL, **changes)


def test_impossible_recordings(tmp_path):
    with pytest.raises(InputError, match="camera's name"):
        record(tmp_path, SMALL, camera="../x", start_ns=START_NS)
    with pytest.raises(InputError, match="view 7"):
        record(tmp_path, SMALL, camera="cam1", view=7, start_ns=START_NS)
    with pytest.raises(InputError, match="no part of a timeline"):
        record(tmp_path, SMALL, camera="cam1", start_ns=START_NS, start_s=12.0)
    assert not list(tmp_path.iterdir())
