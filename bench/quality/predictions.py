"""Runs methods over a set, one file for each (set, setting, recording, method): what is there is not made again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.quality import kept
from bench.quality.methods import Context, Method, Streams, predict
from bench.quality.sets import INDUCTIVE, Camera, Item, RecordingSet, Setting
from bench.quality.tokenizers import Say, Tokenizers
from laps.evaluation import Document

METHOD_SOURCES = (
    "laps/**/*.py",
    "bench/quality/energies.py",
    "bench/quality/methods.py",
    "bench/quality/recordings.py",
)


def run(
    recording_set: RecordingSet,
    setting: Setting,
    methods: Sequence[Method],
    tokenizers: Tokenizers,
    streams: Streams,
    folder: Path,
    say: Say,
) -> dict[str, list[dict[str, Any]]]:
    """The predictions of each method for the recordings of a set, in the order of ``recording_set.scored``.

    Returns:
        For each method that fits the set's recordings a list of ``{"segments", "notes"}``.
    """
    found: dict[str, list[dict[str, Any]]] = {method.name: [] for method in methods}
    for camera in recording_set.cameras:
        tokenizer = tokenizers.get(camera.tokenizer)
        learn = camera.learn if setting == INDUCTIVE else ()
        context = Context(
            setting, tokenizer, [item.load for item in learn], streams, [item.load for item in camera.scored]
        )
        for item in camera.scored:
            place = folder / recording_set.name / setting / item.name
            for name, value in _of_one(item, camera, methods, context, place, say).items():
                if value["fits"]:
                    found[name].append(value)
    count = len(recording_set.scored)
    return {name: values for name, values in found.items() if len(values) == count}


def _of_one(
    item: Item, camera: Camera, methods: Sequence[Method], context: Context, place: Path, say: Say
) -> dict[str, dict[str, Any]]:
    """All methods on one recording; it is loaded only if something is missing."""
    learn = [other.content_id for other in (camera.learn if context.setting == INDUCTIVE else camera.scored)]
    keys = {
        method.name: kept.key_of(
            method.name, context.setting, context.tokenizer.tokenizer_id, item.content_id, learn, sources()
        )
        for method in methods
    }
    known = {name: kept.read(place / f"{name}.json", key) for name, key in keys.items()}
    missing = [method for method in methods if known[method.name] is None]
    if missing:
        recording = item.load()
        began = time.monotonic()
        for method in missing:
            fits = method.fits(recording)
            made = predict(method, recording, context) if fits else {"segments": [], "notes": []}
            known[method.name] = {"fits": fits, **made}
            kept.write(place / f"{method.name}.json", keys[method.name], known[method.name])
        say(f"  {item.name}, {context.setting}: {len(missing)} methods in {time.monotonic() - began:.1f} s")
    return {name: value for name, value in known.items() if value is not None}


@cache
def sources() -> str:
    """Stands for the code that predictions depend on."""
    return kept.sources_key(*METHOD_SOURCES)


def documents(recording_set: RecordingSet, predictions: Sequence[dict[str, Any]]) -> list[Document]:
    """Predictions as documents that are held against truth."""
    return [
        {"duration_sec": item.truth["duration_sec"], "segments": one["segments"]}
        for item, one in zip(recording_set.scored, predictions, strict=True)
    ]
