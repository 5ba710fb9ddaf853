"""The schema registry: every table that the pipeline stores, declared once.

From here come the Arrow schemas that the writer validates against, the asset checks, the column metadata in the
Dagster UI, the comments of the catalog's views and the data dictionary in the docs. Times are UTC with
microseconds; ranges are half-open; units are in the names.

The declarations are plain data, so that importing this module (which the Dagster definitions do) does not load
pyarrow; :meth:`Table.schema` builds the Arrow schema when it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from laps.errors import InputError, SchemaError

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Column:
    """A column: its name, Arrow type as text, meaning, and unit.

    Attributes:
        name: field name.
        type: one of the keys of :func:`_arrow_types`.
        description: what a value means, for someone who has never seen the code.
        unit: unit of a value, where it has one.
        nullable: whether a value may be absent.
        values: the values that are allowed, where they are a closed set.
    """

    name: str
    type: str
    description: str
    unit: str | None = None
    nullable: bool = False
    values: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Table:
    """A table: its columns and how its files are laid out.

    Attributes:
        name: name of the table, of its folder in the store and of its view in the catalog.
        description: one paragraph for the data dictionary.
        columns: columns stored in the files, in order.
        partitioned: ``"camera_hour"`` (``camera=/date=/hour=``), ``"camera"`` (several files in ``camera=``),
            ``"one_per_camera"`` (one file in ``camera=``), ``"release"`` (one file for a release) or ``"cluster"`` (one
            file for a cluster).
        model_level: the folder above the partition that names the models: None, ``"tokenizer"``, ``"release"`` or
            ``"cluster_model"``.
        key: columns whose values identify a row.
        mend: what to do when one of its files is damaged.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partitioned: str = "camera_hour"
    model_level: str | None = None
    mend: str = "Materialize this partition again; the others are not affected."

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def schema(self) -> pa.Schema:
        """The Arrow schema, with descriptions and units in the fields' metadata."""
        return _schema(self)

    def validate(self, table: pa.Table) -> pa.Table:
        """Return the rows cast to this schema, or raise SchemaError with everything that does not fit.

        Missing or unknown columns, values that do not cast without loss, nulls where none are allowed, values
        outside a closed set, and rows with the same key are errors: bad rows never reach the store.
        """
        return _validate(self, table)


@cache
def _arrow_types() -> dict[str, Any]:
    import pyarrow as pa

    return {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "uint16": pa.uint16(),
        "float32": pa.float32(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "binary": pa.binary(),
        "list<uint16>": pa.list_(pa.field("element", pa.uint16(), nullable=False)),
        "list<int64>": pa.list_(pa.field("element", pa.int64(), nullable=False)),
        "list<float32>": pa.list_(pa.field("element", pa.float32(), nullable=False)),
        "list<float64>": pa.list_(pa.field("element", pa.float64(), nullable=False)),
        "list<string>": pa.list_(pa.field("element", pa.string(), nullable=False)),
    }


@cache
def _schema(table: Table) -> pa.Schema:
    import pyarrow as pa

    fields = []
    for column in table.columns:
        metadata = {"description": column.description}
        if column.unit:
            metadata["unit"] = column.unit
        fields.append(pa.field(column.name, _arrow_types()[column.type], nullable=column.nullable, metadata=metadata))
    return pa.schema(
        fields,
        metadata={
            "table": table.name,
            "schema_version": str(SCHEMA_VERSION),
            "description": table.description,
        },
    )


def _validate(table: Table, rows: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = table.schema()
    missing = [name for name in table.column_names if name not in rows.column_names]
    unknown = [name for name in rows.column_names if name not in table.column_names]
    problems = []
    if missing:
        problems.append(f"missing columns {', '.join(missing)}")
    if unknown:
        problems.append(f"unknown columns {', '.join(unknown)}")
    arrays = []
    for column, field in zip(table.columns, schema, strict=True):
        if column.name in missing:
            continue
        values = rows[column.name]
        if values.type != field.type:
            try:
                values = values.cast(field.type)
            except pa.ArrowInvalid as error:
                problems.append(f"column {column.name} does not fit {column.type}: {error}")
                continue
        if not column.nullable and values.null_count:
            problems.append(f"column {column.name} has {values.null_count} nulls")
        if column.values is not None:
            wrong = pc.unique(pc.drop_null(values)).to_pylist()
            wrong = [value for value in wrong if value not in column.values]
            if wrong:
                problems.append(f"column {column.name} has the unknown values {wrong[:5]}")
        arrays.append(values)
    if not problems and rows.num_rows:
        distinct = rows.group_by(list(table.key)).aggregate([]).num_rows
        if distinct != rows.num_rows:
            problems.append(f"{rows.num_rows - distinct} rows repeat the key ({', '.join(table.key)})")
    if problems:
        raise SchemaError(
            f"rows do not fit the table {table.name}: {'; '.join(problems)}",
            fix="This is a fault in the stage that made them; nothing was written.",
        )
    return pa.Table.from_arrays(arrays, schema=schema)


_CAMERA = Column("camera", "string", "Camera that filmed it.")
_TOKENIZER = Column("tokenizer_id", "string", "Motion tokenizer that made the row: hash of its content.")
_RELEASE = Column("release", "string", "Release (set of models) that made the row.")
_SEGMENT = Column("segment_id", "string", "Primitive: hash of camera, first sample and model ids; stable over re-runs.")
_SCORE_ENCODER = Column(
    "encoder_id",
    "string",
    "Vision encoder that made the features, for example open_clip:ViT-B-32/laion2b_s34b_b79k; "
    "weight_free:… is the descriptor used where no weights are to be had, and no vision-language model.",
)

RECORDINGS = Table(
    name="recordings",
    description=(
        "One row for each video file that was offered, accepted or quarantined, and one for each start at which its "
        "footage stood before it was corrected or quarantined. Files are never copied."
    ),
    key=("recording_id", "start_time", "status"),
    partitioned="camera",
    mend="Delete the file and register the recording again (laps ingest); nothing else is affected.",
    columns=(
        Column("recording_id", "string", "Hash of camera and uri, and hash of size and modification time."),
        _CAMERA,
        Column("uri", "string", "Where the file lies: an absolute path or a URL that fsspec reads."),
        Column(
            "status",
            "string",
            "ok; quarantined (cannot be used, or shall not be: quarantined_at); superseded (was ok until the same uri "
            "was registered with another start or content, or quarantined). A uri of a camera has one row that is not "
            "superseded.",
            values=("ok", "quarantined", "superseded"),
        ),
        Column("reason", "string", "Why the file is quarantined, or what took the row's place.", nullable=True),
        Column("start_time", "timestamp", "UTC time of the first frame.", nullable=True),
        Column(
            "start_source",
            "string",
            "Where the start time comes from.",
            nullable=True,
            values=("option", "sidecar", "file_name", "container"),
        ),
        Column("end_time", "timestamp", "UTC end as the container claims it (exclusive).", nullable=True),
        Column("size_bytes", "int64", "Size of the file.", unit="bytes"),
        Column("etag", "string", "Change marker: the store's etag, or modification time and size."),
        Column("registered_at", "timestamp", "When the file was first registered with this start."),
        Column(
            "quarantined_at",
            "timestamp",
            "When a person quarantined the file (laps quarantine), UTC; null where nobody did. It stands until the "
            "file changes or somebody takes it back.",
            nullable=True,
        ),
        Column("container", "string", "Container format.", nullable=True),
        Column("codec", "string", "Video codec.", nullable=True),
        Column("pixel_format", "string", "Pixel format as stored.", nullable=True),
        Column("width_px", "int32", "Width as displayed (after rotation).", unit="px", nullable=True),
        Column("height_px", "int32", "Height as displayed (after rotation).", unit="px", nullable=True),
        Column("rotation_deg", "int32", "Rotation that a player applies.", unit="degrees", nullable=True),
        Column("nominal_fps", "float64", "Frame rate that the container claims.", unit="frames/s", nullable=True),
        Column("pts_offset_s", "float64", "Presentation time of the first frame.", unit="s", nullable=True),
    ),
)

CAMERAS = Table(
    name="cameras",
    description=(
        "What people say about their cameras (`laps camera set`): where one hangs, its time zone, the shifts that work "
        "there, and what in its picture is no work. A camera that nobody described has no row."
    ),
    key=("camera",),
    partitioned="one_per_camera",
    mend="Delete the file and say again what is known of the camera (laps camera set); nothing else is affected.",
    columns=(
        Column("camera", "string", "Camera that is described."),
        Column("site", "string", "Plant or building.", nullable=True),
        Column("station", "string", "Workstation that it looks at.", nullable=True),
        Column("time_zone", "string", "IANA name of the time zone of its wall clock.", nullable=True),
        Column(
            "shifts",
            "list<string>",
            "Shifts by the wall clock, NAME=HH:MM-HH:MM[@DAYS]: the days are those on which a shift begins, all "
            "without @; an end at or before the start lies on the next day.",
        ),
        Column(
            "ignore_regions",
            "list<float64>",
            "Parts of the picture that are no work (a clock, a belt, a monitor): left, top, right and bottom of each, "
            "as shares of width and height.",
        ),
        Column(
            "ignore_regions_set_at",
            "timestamp",
            "When ignore_regions last changed, UTC: latent streams that are older were made with others.",
            nullable=True,
        ),
        Column(
            "blur_regions",
            "list<float64>",
            "Parts of the picture that nobody may see (laps camera set --blur), written like ignore_regions: grey in "
            "keyframes and clips, and so in report and exports.",
            nullable=True,
        ),
        Column(
            "blur_regions_set_at",
            "timestamp",
            "When blur_regions last changed, UTC: keyframes and clips that are older were made with others.",
            nullable=True,
        ),
        Column("updated_at", "timestamp", "When the row was last written, UTC."),
    ),
)

RAW_VIDEO = Table(
    name="raw_video",
    description=(
        "Which parts of which files cover a camera hour and its pre-roll, from packet timestamps. Rows with "
        "used = true are what later stages read; the others say what was not used, or missing, and why."
    ),
    key=("start_time", "end_time", "status", "recording_id"),
    columns=(
        _CAMERA,
        Column("start_time", "timestamp", "Start of the range, UTC."),
        Column("end_time", "timestamp", "End of the range, UTC (exclusive)."),
        Column(
            "status",
            "string",
            "ok; truncated (the file ends here before its container claims, or its timestamps jump back and what "
            "follows is not used); corrupt (cannot be read here); overlap (another recording covers the range and is "
            "used instead); gap (no footage); forgotten (laps forget: footage there is never used).",
            values=("ok", "truncated", "corrupt", "overlap", "gap", "forgotten"),
        ),
        Column("used", "bool", "Whether later stages take frames from this range."),
        Column("reason", "string", "What is wrong, and which file is used instead.", nullable=True),
        Column("recording_id", "string", "Recording; empty for a gap."),
        Column("uri", "string", "Where the file lies.", nullable=True),
        Column("recording_start_time", "timestamp", "UTC time of the recording's first frame.", nullable=True),
        Column(
            "recording_start_ns",
            "int64",
            "The same in nanoseconds since the epoch.",
            unit="ns",
            nullable=True,
        ),
        Column("first_frame_time", "timestamp", "Time of the first frame in the range.", nullable=True),
        Column("last_frame_time", "timestamp", "Time of the last frame in the range.", nullable=True),
        Column("frame_count", "int64", "Frames in the range.", nullable=True),
        Column("measured_fps", "float64", "Frames a second, measured.", unit="frames/s", nullable=True),
        Column("min_interval_s", "float64", "Shortest time between two frames.", unit="s", nullable=True),
        Column("max_interval_s", "float64", "Longest time between two frames.", unit="s", nullable=True),
        Column(
            "variable_rate",
            "bool",
            "Whether intervals between frames vary by more than a tenth.",
            nullable=True,
        ),
        Column("pts_offset_s", "float64", "Presentation time of the recording's first frame.", "s", nullable=True),
        Column("codec", "string", "Video codec.", nullable=True),
        Column("width_px", "int32", "Width as displayed.", unit="px", nullable=True),
        Column("height_px", "int32", "Height as displayed.", unit="px", nullable=True),
        Column("rotation_deg", "int32", "Rotation that a player applies.", unit="degrees", nullable=True),
        Column("size_bytes", "int64", "Size of the file.", unit="bytes", nullable=True),
        Column("etag", "string", "Change marker of the file when it was read.", nullable=True),
    ),
)

FORGOTTEN = Table(
    name="forgotten",
    description=(
        "Times of cameras that were forgotten (`laps forget`): all that was made of them was removed, and footage in "
        "them is never used again. One row for each time."
    ),
    key=("camera", "start_time", "end_time"),
    partitioned="camera",
    mend="Delete the file and forget the time again (laps forget), or what was filmed then may be used again.",
    columns=(
        Column("camera", "string", "Camera whose time was forgotten."),
        Column("start_time", "timestamp", "Start, UTC."),
        Column("end_time", "timestamp", "End, UTC (exclusive)."),
        Column("reason", "string", "Why, in the words of whoever did it.", nullable=True),
        Column("forgotten_at", "timestamp", "When it was first forgotten, UTC."),
        Column(
            "removed_at",
            "timestamp",
            "When all that was made of it had been removed, UTC; null while that is under way or was interrupted.",
            nullable=True,
        ),
    ),
)

KEYPOINT_TRACKS = Table(
    name="keypoint_tracks",
    description=(
        "One row for each window of 16 samples: the paths of a 20 x 20 grid of points that starts anew in each "
        "window (paper section 3.1). Arrays are packed; laps.tracks.unpack reads them."
    ),
    key=("end_sample",),
    columns=(
        _CAMERA,
        Column("end_sample", "int64", "Last sample of the window (samples since the epoch)."),
        Column("end_time", "timestamp", "Time of the last sample, UTC."),
        Column("tracker_id", "string", "Tracker, its settings and the image size it ran at."),
        Column("image_width_px", "int32", "Width of the image that was tracked.", unit="px"),
        Column("image_height_px", "int32", "Height of the image that was tracked.", unit="px"),
        Column("frame_times_ns", "list<int64>", "True time of the frame shown at each sample.", unit="ns"),
        Column(
            "displacements",
            "binary",
            "Little-endian int16 [steps, points, (x, y)]: motion of each point between neighbouring samples.",
            unit="1/32 px",
        ),
        Column("visible", "binary", "Bits [samples, points], most significant first: the point was seen."),
        Column("visible_share", "float32", "Share of points seen, over the window."),
    ),
)

KEYFRAMES = Table(
    name="keyframes",
    description="Small JPEG pictures, two a second, for the vision encoder, the report and contact sheets.",
    key=("sample",),
    columns=(
        _CAMERA,
        Column("sample", "int64", "Sample (since the epoch) at which the picture stands."),
        Column("time", "timestamp", "Time of the sample, UTC."),
        Column("frame_time", "timestamp", "Time of the frame shown, UTC."),
        Column("width_px", "int32", "Width of the picture.", unit="px"),
        Column("height_px", "int32", "Height of the picture.", unit="px"),
        Column("jpeg", "binary", "The picture, JPEG."),
    ),
)

LATENT_STREAM = Table(
    name="latent_stream",
    description=(
        "One row for each sample (10 a second): the latent action code and energies of the motion since the "
        "sample before. Rows are null where there is no footage or no window, with the reason."
    ),
    key=("sample",),
    model_level="tokenizer",
    columns=(
        _CAMERA,
        Column("sample", "int64", "Sample since the epoch."),
        Column("time", "timestamp", "Time of the sample, UTC."),
        Column("code", "uint16", "Latent action code: index into the FSQ codebook.", nullable=True),
        Column(
            "latent_action_energy",
            "float32",
            "The paper's energy, ||z_q,t - z_q,t-1||_2 within the window (section 3.1.1).",
            nullable=True,
        ),
        Column(
            "decoded_motion_energy",
            "float32",
            "Mean speed of the points as decoded from the code, common motion removed.",
            unit="px per sample step",
            nullable=True,
        ),
        Column(
            "velocity_energy",
            "float32",
            "Mean speed of the tracked points, common motion removed.",
            unit="px per sample step",
            nullable=True,
        ),
        Column(
            "prequantized_energy",
            "float32",
            "||z_t - z_t-1||_2 before quantization (the paper's ablation, table 5).",
            nullable=True,
        ),
        Column(
            "null_reason",
            "string",
            "Why the values are null: no_footage, window_start (too soon after a gap), lost_tracks.",
            nullable=True,
            values=("no_footage", "window_start", "lost_tracks"),
        ),
        _TOKENIZER,
    ),
)

SEGMENTS = Table(
    name="segments",
    description=(
        "The action primitives: from where the energy rises to where it falls, divided where one passes into the next."
    ),
    key=("segment_id",),
    model_level="release",
    columns=(
        _SEGMENT,
        _CAMERA,
        Column("start_time", "timestamp", "Start, UTC."),
        Column("end_time", "timestamp", "End, UTC (exclusive)."),
        Column("duration_s", "float64", "Length.", unit="s"),
        Column("start_sample", "int64", "First sample of the ON run."),
        Column("end_sample", "int64", "Sample after the last ON sample."),
        Column(
            "decided_sample",
            "int64",
            "Sample at which the detector knew the end; it sets the hour of the row.",
        ),
        Column(
            "end_reason",
            "string",
            "rest (the energy fell), boundary (the motion looks like an end and a beginning), gap (footage or tracks "
            "ended), maximum (cut at the longest allowed duration).",
            values=("rest", "boundary", "gap", "maximum"),
        ),
        Column("codes", "list<uint16>", "Latent action sequence: one code a sample, start <= t < end."),
        Column("energy_form", "string", "Which energy was cut by."),
        Column("energy_mean", "float32", "Mean smoothed energy."),
        Column("energy_peak", "float32", "Highest smoothed energy."),
        Column("confidence", "float32", "Mean of ln(smoothed energy / theta_on): how far above the threshold."),
        _TOKENIZER,
        Column("calibration_id", "string", "Calibration that held the thresholds: hash of its content."),
        _RELEASE,
    ),
)

CLIPS = Table(
    name="clips",
    description="One playable mp4 for each primitive, cut from the keyframe before; re-encoded only where it must be.",
    key=("segment_id",),
    model_level="release",
    columns=(
        _SEGMENT,
        _CAMERA,
        Column("status", "string", "ok, or failed with the reason.", values=("ok", "failed")),
        Column("reason", "string", "Why there is no clip.", nullable=True),
        Column("clip_path", "string", "Path of the mp4 below the store's root.", nullable=True),
        Column("recording_id", "string", "Recording that the clip was cut from.", nullable=True),
        Column("first_frame_time", "timestamp", "Time of the first frame shown, UTC.", nullable=True),
        Column("last_frame_time", "timestamp", "Time of the last frame shown, UTC.", nullable=True),
        Column("frame_count", "int32", "Frames shown.", nullable=True),
        Column(
            "lead_in_s",
            "float64",
            "Length of what is in the file before the first frame shown; players skip it by the edit list.",
            unit="s",
            nullable=True,
        ),
        Column("size_bytes", "int64", "Size of the mp4.", unit="bytes", nullable=True),
        _RELEASE,
    ),
)

SEGMENT_EMBEDDINGS = Table(
    name="segment_embeddings",
    description="e_i of the frozen Transformer over the primitive's quantized vectors (paper section 3.2.1).",
    key=("segment_id",),
    model_level="release",
    columns=(
        _SEGMENT,
        _CAMERA,
        Column("embedding", "list<float32>", "256 numbers."),
        Column("embedder_id", "string", "The frozen Transformer: hash of its content."),
        _TOKENIZER,
        _RELEASE,
    ),
)

VISUAL_FEATURES = Table(
    name="visual_features",
    description="v_i: the vision encoder's pooled, normalised descriptor of the primitive (paper section 3.2.3).",
    key=("segment_id",),
    model_level="release",
    columns=(
        _SEGMENT,
        _CAMERA,
        Column("status", "string", "ok, or failed with the reason.", values=("ok", "failed")),
        Column("reason", "string", "Why there are no features.", nullable=True),
        Column("feature", "list<float32>", "L2-normalised descriptor.", nullable=True),
        Column("frames_used", "int32", "Keyframes that went in."),
        _SCORE_ENCODER,
        _RELEASE,
    ),
)

CLUSTER_ASSIGNMENTS = Table(
    name="cluster_assignments",
    description="The cluster of each primitive (paper section 3.2.2).",
    key=("segment_id",),
    model_level="release",
    columns=(
        _SEGMENT,
        _CAMERA,
        Column("cluster_id", "int32", "Cluster number, stable from one refit to the next."),
        Column("centroid_distance", "float32", "Cosine distance, 1 - cos, to the cluster's centroid."),
        Column("cluster_model_id", "string", "Cluster model: hash of its content."),
        _RELEASE,
    ),
)

CLUSTERS = Table(
    name="clusters",
    description="One row for each cluster: size, durations and coherence (ICSS, paper section 3.2.3).",
    key=("cluster_id",),
    partitioned="release",
    model_level="release",
    columns=(
        Column("cluster_id", "int32", "Cluster number."),
        Column("segment_count", "int64", "Primitives in the cluster."),
        Column("median_duration_s", "float64", "Median length of its primitives.", unit="s", nullable=True),
        Column("icss_mean", "float64", "Mean cosine similarity of sampled pairs.", nullable=True),
        Column("icss_std", "float64", "Standard deviation over the pairs.", nullable=True),
        Column("icss_ci_low", "float64", "95% bootstrap interval over primitives, low end.", nullable=True),
        Column("icss_ci_high", "float64", "95% bootstrap interval over primitives, high end.", nullable=True),
        Column("pair_count", "int64", "Pairs sampled."),
        Column(
            "baseline_mean",
            "float64",
            "Mean cosine similarity of random pairs of the whole set.",
            nullable=True,
        ),
        Column("baseline_std", "float64", "Standard deviation of the random pairs.", nullable=True),
        _SCORE_ENCODER,
        Column("cluster_model_id", "string", "Cluster model: hash of its content."),
        _RELEASE,
    ),
)

CLUSTER_NAMES = Table(
    name="cluster_names",
    description=(
        "What people call the clusters (`laps name`). A name belongs to the numbers of one cluster model and carries "
        "over to a later one where that took the cluster's number over. In the catalog: the names that hold for the "
        "release, one row for each cluster that has or had one."
    ),
    key=("cluster_model_id", "cluster_id"),
    partitioned="cluster",
    model_level="cluster_model",
    mend="Name the cluster again: laps name CLUSTER NAME, or --clear. CLUSTER is the number in the file's name.",
    columns=(
        Column("cluster_id", "int32", "Cluster number."),
        Column(
            "action_name", "string", "What its cluster is called; null where the name was taken away.", nullable=True
        ),
        Column("named_at", "timestamp", "When it was named, UTC."),
        Column("cluster_model_id", "string", "Cluster model under whose numbers it was named: hash of its content."),
    ),
)

EVALUATION = Table(
    name="evaluation",
    description=(
        "Scores against truth, where a recording has `<name>.truth.json` beside it, each beside the same score of "
        "predictions that did not look at the video. One row for each recording, metric and level, and one for all "
        "recordings of a setting together (counts added). Truth is for scoring: no other table is made from it."
    ),
    key=("setting", "recording_id", "metric", "level"),
    partitioned="release",
    model_level="release",
    columns=(
        Column(
            "setting",
            "string",
            "transductive: tokenizer or calibration were made from hours of this recording, without labels; inductive: "
            "neither was; unknown: nobody recorded what the tokenizer was trained on. Clusters are not asked about.",
            values=("transductive", "inductive", "unknown"),
        ),
        Column("camera", "string", "Camera that filmed it; null over all recordings.", nullable=True),
        Column("recording_id", "string", "Recording; null over all recordings of the setting.", nullable=True),
        Column("uri", "string", "Where the recording lies; null over all.", nullable=True),
        Column("recordings", "int64", "Recordings that went in."),
        Column("duration_s", "float64", "Their length.", unit="s"),
        Column(
            "metric",
            "string",
            "F1 of boundaries (boundary_greedy: as the reference implementation matches; boundary: one to one, shared "
            "ones once; typed: starts with starts, ends with ends) and of segments; average_precision of segments by "
            "confidence (mAP); over_segmentation, predicted over true count; purity, nmi and ari of the clusters "
            "against the labels of truth.",
            values=(
                "boundary_greedy",
                "boundary",
                "typed",
                "segment",
                "average_precision",
                "over_segmentation",
                "purity",
                "nmi",
                "ari",
            ),
        ),
        Column("level", "float64", "Tolerance in seconds of a boundary; IoU of segments.", nullable=True),
        Column("value", "float64", "The score.", nullable=True),
        Column("low", "float64", "95% block-bootstrap interval, low end; null below 10 blocks of 30 s.", nullable=True),
        Column("high", "float64", "95% block-bootstrap interval, high end.", nullable=True),
        Column("precision", "float64", "Matched over predicted.", nullable=True),
        Column("recall", "float64", "Matched over true.", nullable=True),
        Column(
            "chance_equal_true",
            "float64",
            "The same of a prediction at equal spacing, as many as in truth.",
            nullable=True,
        ),
        Column("chance_equal_predicted", "float64", "The same, as many as were predicted.", nullable=True),
        Column(
            "chance_random_true", "float64", "The same at random times, as many as in truth; a mean.", nullable=True
        ),
        Column("chance_random_predicted", "float64", "The same, as many as were predicted.", nullable=True),
        Column(
            "chance_metronome",
            "float64",
            "The same of a boundary every so many seconds, with the best period from 1 to 10 s, picked by the truth.",
            nullable=True,
        ),
        Column("metronome_period_s", "float64", "That period.", unit="s", nullable=True),
        Column("chance_shuffled", "float64", "The same of shuffled labels (clusters only); a mean.", nullable=True),
        Column(
            "matched",
            "int64",
            "Boundaries or segments that found their partner; of clusters: primitives with a label of truth.",
            nullable=True,
        ),
        Column("truth", "int64", "Boundaries or segments in truth.", nullable=True),
        Column("predicted", "int64", "Boundaries or segments predicted; of clusters: primitives.", nullable=True),
        _TOKENIZER,
        Column("calibration_id", "string", "Calibration of the camera; null over all recordings.", nullable=True),
        Column("cluster_model_id", "string", "Cluster model, for purity, nmi and ari.", nullable=True),
        _RELEASE,
    ),
)

_IMPORT = Column(
    "import_id", "string", "What was imported: hash of the rows' content. Other rows of the same video have another."
)
_VIDEO = Column("video", "string", "The video's name without suffix, from the names of the imported files.")
_IMPORTED_RECORDING = Column("recording_id", "string", "The video's recording, where it is registered.", nullable=True)

IMPORTED_SEGMENTS = Table(
    name="imported_segments",
    description=(
        "Segments that the reference implementation cut, or another program that writes its files (`laps import`), "
        "never mixed with the primitives that are cut here; columns that mean the same have the same names."
    ),
    key=("segment_id",),
    partitioned="camera",
    mend="Delete the file and import the work again (laps import); nothing else is affected.",
    columns=(
        Column("segment_id", "string", "Its id in the imported file, else a hash of camera, video, start and place."),
        _CAMERA,
        Column("start_time", "timestamp", "Start, UTC."),
        Column("end_time", "timestamp", "End, UTC (exclusive)."),
        Column("duration_s", "float64", "Length.", unit="s"),
        Column("cluster_id", "int32", "Cluster number of the program that made the file.", nullable=True),
        Column("action_name", "string", "What the imported file calls it.", nullable=True),
        Column(
            "codes",
            "list<uint16>",
            "Its latent action sequence, one code a sample, in the codebook of the program that made the file.",
            nullable=True,
        ),
        _IMPORTED_RECORDING,
        _VIDEO,
        _IMPORT,
    ),
)

IMPORTED_ENERGY = Table(
    name="imported_energy",
    description=(
        "Energies that the reference implementation computed (`laps import`), one row a window, to be compared with "
        "those of latent_stream."
    ),
    key=("video", "source", "mode", "window"),
    partitioned="camera",
    mend="Delete the file and import the work again (laps import); nothing else is affected.",
    columns=(
        _CAMERA,
        Column(
            "time",
            "timestamp",
            "Where that implementation puts the window, UTC: window * stride / target_fps after the first frame.",
        ),
        Column("window", "int64", "Number of the window in the video."),
        Column("energy", "float64", "The energy, in the imported file's own unit."),
        Column("source", "string", "What it is an energy of, in the file's words, for example quantized or velocity."),
        Column("mode", "string", "How it was computed, in the file's words, for example token_diff_l2_mean."),
        _IMPORTED_RECORDING,
        _VIDEO,
        _IMPORT,
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        RECORDINGS,
        CAMERAS,
        FORGOTTEN,
        RAW_VIDEO,
        KEYPOINT_TRACKS,
        KEYFRAMES,
        LATENT_STREAM,
        SEGMENTS,
        CLIPS,
        SEGMENT_EMBEDDINGS,
        VISUAL_FEATURES,
        CLUSTER_ASSIGNMENTS,
        CLUSTERS,
        CLUSTER_NAMES,
        EVALUATION,
        IMPORTED_SEGMENTS,
        IMPORTED_ENERGY,
    )
}


def mend(path: str) -> str:
    """What to do about a damaged file, from the folder of its path that is named like a table."""
    named = [TABLES[folder] for folder in path.split("/")[:-1] if folder in TABLES]
    return named[-1].mend if named else Table.mend


def table(name: str) -> Table:
    """The table of that name, or InputError that lists the names."""
    if name not in TABLES:
        raise InputError(f"there is no table {name!r}", fix=f"The tables are {', '.join(TABLES)}.")
    return TABLES[name]
