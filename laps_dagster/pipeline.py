"""The stages in order, over many hours: what ``laps backfill`` and ``laps demo`` do.

With a current release an hour takes two runs, *observe* and *segment*. On a store without one the first call makes
it: tracks, tokenizer, latent streams, calibrations, primitives, clusters, promotion. A failed hour never stops the
others; it is reported at the end and picked up by the next call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from laps.errors import InputError, NotProcessedError
from laps.tables import (
    KEYPOINT_TRACKS,
    SEGMENT_EMBEDDINGS,
)
from laps.timegrid import CameraHour, hours_to_close, now_ns
from laps_dagster.runs import Outcome, Runner, Task
from laps_dagster.stages import ASSIGN, CUT, ENCODE, OBSERVE, SEGMENT, TRACK, OutOfDate, Stage
from resources.freshness import registrations
from resources.models import ModelRegistry, Release
from resources.recordings import Recordings
from resources.store import Store


@dataclass(frozen=True)
class Options:
    """How to process hours.

    Attributes:
        release: release to work with; empty: the current one, or the first one that this call makes.
        only_missing: skip hours whose tables are there already, and newer than what they are made from.
        workers: runs at once.
        preset, train_minutes, seed: for the models, where this call makes them.
        cut, teacher: of the calibrations that this call makes (:mod:`laps.cutting`, :mod:`laps.boundaries`).
        k: number of clusters, where this call fits them; None: 6, or a third of the primitives if that is less.
    """

    release: str = ""
    only_missing: bool = False
    workers: int = 1
    preset: str = "full"
    train_minutes: float = 60.0
    cut: str = "rests"
    teacher: str = "rests"
    k: int | None = 6
    seed: int = 0


@dataclass
class Progress:
    """What a backfill did so far; ``report`` is called with one line at a time."""

    report: Callable[[str], None]
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.ok]


def select_hours(
    recordings: Recordings, cameras: Sequence[str], start_ns: int | None, stop_ns: int | None
) -> list[CameraHour]:
    """The hours with footage of the cameras (default: all) inside ``[start_ns, stop_ns)``, and those that had such."""
    known = recordings.cameras(include_superseded=True)
    for camera in cameras:
        if camera not in known:
            raise InputError(
                f"camera {camera!r} has no recordings",
                where=recordings.store.root,
                fix=f"Register some with `laps ingest`. Cameras: {', '.join(known) or 'none yet'}.",
            )
    hours = [
        hour
        for camera in (cameras or known)
        for hour in recordings.hours(camera, include_superseded=True)
        if (start_ns is None or hour.stop_ns > start_ns) and (stop_ns is None or hour.start_ns < stop_ns)
    ]
    if not hours:
        raise InputError(
            "there is no footage in the chosen hours",
            where=recordings.store.root,
            fix="Register recordings with `laps ingest PATH --camera NAME`, or widen --from and --to.",
        )
    return hours


class Backfill:
    """One pass over a set of hours."""

    def __init__(self, store: Store, hours: Sequence[CameraHour], options: Options, progress: Progress) -> None:
        self.store = store
        self.hours = list(hours)
        # The hour after the one that is running is no partition yet; what is open stays open until then.
        self.closing = [hour for hour in hours_to_close(hours) if hour.start_ns <= now_ns()]
        self.options = options
        self.progress = progress
        self.registry = ModelRegistry(store)
        self.recordings = Recordings(store)
        # A first hour in the middle of footage is cut with the hour before it, which is observed where it is not yet.
        filmed = {hour for camera in {hour.camera for hour in hours} for hour in self.recordings.hours(camera)}
        self.preceding = sorted({hour.previous for hour in hours} & filmed - set(self.closing))
        self.runner = Runner(options.workers, notice=progress.report)

    def run(self) -> Release:
        """Process the hours; returns the release that they were processed with.

        Raises NotProcessedError when a step that all hours depend on failed.
        """
        self.store.remove_leftovers(besides=self.recordings.landing)
        try:
            with self.runner:
                return self._run()
        except KeyboardInterrupt:
            named = f" --release {self.options.release}" if self.options.release else ""
            self.progress.report(f"interrupted: `laps backfill --only missing{named}` goes on from here")
            raise

    def plan(self) -> dict[CameraHour, list[str]]:
        """The stages that :meth:`run` would make for each hour, beside models that are missing; nothing is made."""
        release = self._chosen()
        self.options = replace(self.options, release=release.name if release else "")
        trained = release is not None and release.tokenizer is not None
        clustered = release is not None and release.cluster_model is not None
        stage = OBSERVE if trained else TRACK
        observed = self._jobs(stage, self.preceding, redo=False)
        observed |= self._jobs(stage, self.closing, redo=trained or release is None)
        over = self._over()
        cut = set(self._due(SEGMENT if clustered else CUT, over))
        cut |= {after for hour in observed for after in (hour, hour.next)} & set(over)
        first = {hour: job if job == ENCODE.job else OBSERVE.job for hour, job in observed.items()}
        then = dict.fromkeys(cut, SEGMENT.job)
        return {hour: [jobs[hour] for jobs in (first, then) if hour in jobs] for hour in sorted({*first, *then})}

    def _run(self) -> Release:
        release = self._release_with_tokenizer()
        for camera in sorted({hour.camera for hour in self.hours}):
            if camera not in release.calibrations:
                how = {"cut": self.options.cut, "teacher": self.options.teacher}
                self._step("calibrate", camera, ops={"segmenter_calibration": {"config": how}})
        release = self.registry.release(release.name)
        calibrated = [hour for hour in self._over() if hour.camera in release.calibrations]
        if release.cluster_model is None:
            self._hours(CUT, calibrated)
            config = {"k": self.options.k or self._default_k(release), "seed": self.options.seed}
            self._step("fit_clusters", ops={"cluster_model": {"config": config}}, required=True)
            self._hours(ASSIGN, calibrated)
        else:
            self._hours(SEGMENT, calibrated)
        if self.registry.current_name() is None:
            release = self.registry.promote(release.name)
            self.progress.report(f"release {release.name} is now current")
        self._step("publish")
        return self.registry.release(release.name)

    def _release_with_tokenizer(self) -> Release:
        """Observe the hours with the chosen release's tokenizer, training one first where there is none."""
        release = self._chosen()
        if release is not None:
            self.options = replace(self.options, release=release.name)
        if release is None or release.tokenizer is None:
            # Tracks belong to no release: a new one takes those that are there.
            self._hours(TRACK, self.closing, redo=release is None)
            self._hours(TRACK, self.preceding, redo=False)
            if not any(self.store.has_partition(KEYPOINT_TRACKS, hour) for hour in self.hours):
                raise NotProcessedError(
                    "no hour could be tracked, so there is nothing to train on",
                    where=self.store.root,
                    fix="The failures above say why.",
                )
            config = {
                "preset": self.options.preset,
                "max_minutes": self.options.train_minutes,
                "seed": self.options.seed,
                "hours": [hour.key for hour in self.hours if self.store.has_partition(KEYPOINT_TRACKS, hour)],
            }
            outcome = self._step("train_tokenizer", ops={"motion_tokenizer": {"config": config}}, required=True)
            release = self.registry.release(str(outcome.metadata["motion_tokenizer"]["release"]))
            self.options = replace(self.options, release=release.name)
            tracked = [
                hour for hour in (*self.preceding, *self.closing) if self.store.has_partition(KEYPOINT_TRACKS, hour)
            ]
            self._hours(ENCODE, tracked)
        else:
            self._hours(OBSERVE, self.preceding, redo=False)
            self._hours(OBSERVE, self.closing)
        return release

    def _default_k(self, release: Release) -> int:
        hours = self.store.partitions(SEGMENT_EMBEDDINGS, release.name)
        count = sum(self.store.partition_rows(SEGMENT_EMBEDDINGS, hour, release.name) for hour in hours)
        return max(1, min(6, count // 3))

    def _chosen(self) -> Release | None:
        if self.options.release:
            return self.registry.release(self.options.release)
        if self.registry.current_name() is None and not self.registry.drafts():
            return None
        return self.registry.to_read()

    def _over(self) -> list[CameraHour]:
        """The hours to cut: one that is running is observed as far as it has come, and cut when it is over."""
        return [hour for hour in self.closing if hour.stop_ns <= now_ns()]

    def _due(self, stage: Stage, hours: Sequence[CameraHour], *, redo: bool = True) -> list[CameraHour]:
        """The hours that a stage has to make: all, or only such as are missing or out of date."""
        if not hours or (redo and not self.options.only_missing):
            return list(hours)
        registered = registrations(self.recordings, {hour.camera for hour in self.hours})
        return OutOfDate(self.store, self.options.release, registered).hours(stage, hours)

    def _jobs(self, stage: Stage, hours: Sequence[CameraHour], *, redo: bool = True) -> dict[CameraHour, str]:
        """The hours that a stage has to make, each with the job for it: video is not decoded again for new codes."""
        due = self._due(stage, hours, redo=redo)
        if stage is not OBSERVE or (redo and not self.options.only_missing):
            return dict.fromkeys(due, stage.job)
        to_track = set(self._due(TRACK, due, redo=False))
        return {hour: stage.job if hour in to_track else ENCODE.job for hour in due}

    def _hours(self, stage: Stage, hours: Sequence[CameraHour], *, redo: bool = True) -> None:
        if not hours:
            return
        jobs = self._jobs(stage, hours, redo=redo)
        if not jobs:
            self.progress.report(f"{stage.job}: nothing to do")
            return
        tasks = [Task(job, hour.key, resources=self._resources()) for hour, job in jobs.items()]
        self.progress.outcomes += self.runner.run_all(tasks, done=self._report)

    def _step(
        self,
        job: str,
        partition: str | None = None,
        *,
        ops: dict[str, Any] | None = None,
        required: bool = False,
    ) -> Outcome:
        task = Task(job, partition, ops=ops or {}, resources=self._resources())
        outcome = self.runner.run_all([task], done=self._report)[0]
        self.progress.outcomes.append(outcome)
        if required and not outcome.ok:
            # What failed before is why: without calibrations there are no primitives, for instance.
            first = self.progress.failures[0]
            raise NotProcessedError(f"{first.task} failed: {first.error}", where=self.store.root)
        return outcome

    def _resources(self) -> dict[str, Any]:
        return {"release": {"config": {"name": self.options.release}}} if self.options.release else {}

    def _report(self, outcome: Outcome) -> None:
        if outcome.ok:
            self.progress.report(f"{outcome.task}: {_in_words(outcome)}")
        else:
            self.progress.report(f"{outcome.task}: FAILED: {outcome.error}")


def _in_words(outcome: Outcome) -> str:
    """The figures of a run that a person watching wants."""
    said = []
    for asset, values in outcome.metadata.items():
        if "hour_covered" in values:
            said.append(f"{values['footage_s']:.0f} s of footage" if values["footage_s"] else "no footage")
        elif asset == "keypoint_tracks" and values["observed_s"]:
            said.append(f"tracks at {values['real_time_factor']:.0f}x real time")
        elif asset == "motion_tokenizer":
            said.append(f"{values['tokenizer_id']}, perplexity {values['perplexity']:.0f} of {values['codes']} codes")
        elif asset == "latent_stream":
            said.append(f"{values['codes_used']} codes used" if values["valued_s"] else "nothing to encode")
        elif asset == "segmenter_calibration":
            said.append(str(values["message"]))
        elif asset == "segments":
            said.append(f"{values['dagster/row_count']} primitives")
        elif asset == "cluster_model":
            said.append(f"{values['k']} clusters of {values['primitives']} primitives")
        elif asset == "icss_report":
            said.append(f"report {values['report']}")
    return ", ".join(said) or "done"
