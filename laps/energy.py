"""The energies that a stream can be cut by, and the cleaning of the decoded motion.

========================  ==========================================================================================
form                      value at a sample
========================  ==========================================================================================
``decoded_motion``        mean speed of the points as the tokenizer decodes it from the sample's code, after cleaning
``latent_action``         the paper's Latent Action Energy, ||z_q,t - z_q,t-1||_2 (section 3.1.1)
``velocity``              mean speed of the tracked points
``prequantized``          the paper's energy before quantization (its ablation, table 5)
========================  ==========================================================================================

With a decoder that sees one token at a time, what is decoded is a function of the code, so the cleaned energy is a
table with one number a code. It belongs to a camera's calibration: the background is the camera's, and fixed, never
taken from the hour that is being processed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from laps.errors import InputError, ModelMismatchError
from laps.motion import mean_speed

if TYPE_CHECKING:
    from laps.calibration import Calibration
    from laps.latent import LatentStream

DEFAULT_FORM = "decoded_motion"
FORM_COLUMNS = {
    "decoded_motion": "decoded_motion_energy",
    "latent_action": "latent_action_energy",
    "velocity": "velocity_energy",
    "prequantized": "prequantized_energy",
}


def check_form(form: str) -> str:
    """Return the name of an energy form, or raise InputError that lists them."""
    if form not in FORM_COLUMNS:
        raise InputError(f"there is no energy form {form!r}", fix=f"The forms are {', '.join(FORM_COLUMNS)}.")
    return form


def code_counts(streams: list[LatentStream], n_codes: int) -> NDArray[np.int64]:
    """How often each code occurs, int64[n_codes]."""
    counts = np.zeros(n_codes, dtype=np.int64)
    for stream in streams:
        codes = stream.code[stream.code >= 0]
        if codes.size and int(codes.max()) >= n_codes:
            raise ModelMismatchError(
                f"the stream holds code {int(codes.max())} but the tokenizer has {n_codes} codes",
                fix="Take the decoded motion of the tokenizer that made the stream.",
            )
        counts += np.bincount(codes, minlength=n_codes)
    return counts


def weighted_median(values: NDArray[np.floating[Any]], weights: NDArray[np.number[Any]]) -> NDArray[np.float64]:
    """Lower weighted median along the first axis.

    Args:
        values: float[n, ...].
        weights: number[n], at least 0, not all 0.

    Returns:
        float64[...]: for each column the smallest value at which half of the weight is reached.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    if (weighty := weights > 0).any():  # the others only take time: a camera may show few of the codes
        values, weights = values[weighty], weights[weighty]
    order = np.argsort(values, axis=0, kind="stable")
    reached = np.cumsum(weights[order], axis=0)
    place = np.argmax(reached >= reached[-1:] / 2, axis=0, keepdims=True)
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), place, axis=0)[0]


def without_background(decoded_motion: NDArray[np.floating[Any]], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Decoded motion float[n_codes, N, 2] less each point's and component's median over time.

    Over codes that is the median weighted by how often a code occurs.
    """
    motion = np.asarray(decoded_motion, dtype=np.float64)
    return motion - weighted_median(motion, counts)


def cleaned_code_energy(decoded_motion: NDArray[np.floating[Any]], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The energy of each code: mean speed of its decoded points without the camera's background.

    Background: belts, screens. What all points do in common never reached the tokenizer.

    Args:
        decoded_motion: float[n_codes, N, 2], displacement of each point that a code stands for, px per sample step.
        counts: int64[n_codes], occurrences of the codes in the calibration's hours, as :func:`code_counts` gives.

    Returns:
        float32[n_codes], px per sample step.

    Raises:
        InputError: shapes that do not fit, or no code at all.
    """
    motion = np.asarray(decoded_motion, dtype=np.float64)
    if motion.ndim != 3 or motion.shape[2] != 2 or counts.shape != motion.shape[:1]:
        raise InputError(
            f"decoded motion must be [codes, points, 2] with a count a code, not {motion.shape} and {counts.shape}"
        )
    if not counts.any():
        raise InputError("no sample of the calibration's hours has a code")
    return mean_speed(without_background(motion, counts))


def form_series(stream: LatentStream, form: str, code_energy: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    """One energy of a stream.

    Args:
        stream: n samples.
        form: a key of :data:`FORM_COLUMNS`.
        code_energy: float32[n_codes] for ``decoded_motion``; without it the stream's own column is taken, whose
            background is not removed.

    Returns:
        float64[n], NaN where the stream is null.
    """
    check_form(form)
    present = stream.code >= 0
    if form == "decoded_motion" and code_energy is not None:
        if present.any() and int(stream.code.max()) >= len(code_energy):
            raise ModelMismatchError(
                f"the stream holds code {int(stream.code.max())} but the calibration knows {len(code_energy)} codes",
                fix="Calibrate the camera for the tokenizer that made the stream.",
            )
        values = code_energy.astype(np.float64)[np.where(present, stream.code, 0)]
    else:
        values = np.asarray(getattr(stream, FORM_COLUMNS[form]), dtype=np.float64)
    return np.where(present & np.isfinite(values), values, np.nan)


def series(stream: LatentStream, calibration: Calibration) -> NDArray[np.float64]:
    """The energy that a calibration cuts by: float64[n], NaN where the stream is null.

    Raises:
        ModelMismatchError: the calibration was made for another tokenizer.
    """
    if stream.tokenizer_id != calibration.tokenizer_id:
        raise ModelMismatchError(
            f"the stream was made by tokenizer {stream.tokenizer_id}, the calibration {calibration.calibration_id} "
            f"belongs to {calibration.tokenizer_id}",
            where=calibration.camera,
            fix="Calibrate the camera for this tokenizer, or encode the hour with the calibration's tokenizer.",
        )
    return form_series(stream, calibration.form, calibration.code_energy)
