"""The jobs: one run an hour for each of the two stages, and one for each step without hours."""

from __future__ import annotations

import dagster as dg

OBSERVE_ASSETS = ("raw_video", "keypoint_tracks", "keyframes", "latent_stream")
TRACK_ASSETS = OBSERVE_ASSETS[:3]
SEGMENT_ASSETS = ("segments", "clips", "segment_embeddings", "visual_features", "cluster_assignments")
CUT_ASSETS = SEGMENT_ASSETS[:4]


def _job(name: str, assets: tuple[str, ...], description: str) -> dg.UnresolvedAssetJobDefinition:
    return dg.define_asset_job(name, selection=list(assets), description=description)


observe = _job("observe", OBSERVE_ASSETS, "Video of an hour to its latent stream, with the release's tokenizer.")
segment = _job("segment", SEGMENT_ASSETS, "Latent streams of an hour to clustered primitives.")

# Before there is a release, the stages run in parts, with the models made in between.
track = _job("track", TRACK_ASSETS, "Video of an hour to keypoint tracks; needs no model.")
encode = _job("encode", ("latent_stream",), "Keypoint tracks of an hour to its latent stream.")
cut = _job("cut", CUT_ASSETS, "Latent streams of an hour to primitives, before there are clusters.")
assign = _job("assign", ("cluster_assignments",), "Primitives of an hour to the release's clusters.")

train_tokenizer = _job("train_tokenizer", ("motion_tokenizer",), "Train a motion tokenizer into the draft release.")
calibrate = _job("calibrate", ("segmenter_calibration",), "Find the thresholds of one camera.")
fit_clusters = _job("fit_clusters", ("cluster_model",), "Fit the clusters of the draft release.")
publish = _job("publish", ("icss_report", "catalog"), "Coherence, report and catalog views.")
compact = _job("compact", ("compacted_catalog",), "Compacted copies of the tables that people query.")
export = _job("export", ("vla_dataset",), "A data set for training, into the store.")
evaluate = _job("evaluate", ("evaluation",), "Scores against truth, where a recording has it beside it.")

# What closes a night, one after the other, when all of its hours have ended; jobs without partitions. A job that
# keeps house over the day takes its place here, before or after the publication.
CLOSING_JOBS = (publish, compact)

JOBS = (
    observe,
    segment,
    track,
    encode,
    cut,
    assign,
    train_tokenizer,
    calibrate,
    fit_clusters,
    publish,
    compact,
    export,
    evaluate,
)
