"""What a primitive looks like: one descriptor from several of its keyframes (paper section 3.2.3).

Two encoders stand behind one interface. :class:`OpenClipEncoder` is a real vision-language model (CLIP ViT-B/32 by
default). :class:`WeightFreeEncoder` needs no weights: edges and colours. Its id begins with ``weight_free:``; scores
made with it are no vision-language scores and must be shown as what they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol
from urllib.error import URLError

import cv2
import numpy as np
import torch
from PIL import Image

from laps.errors import InputError, MissingDependencyError
from laps.timegrid import NS_PER_S

WEIGHT_FREE = "weight_free:"
# Number of frames by length, and how far a picture may lie outside a primitive too short to hold one.
_FEW, _SOME, _MANY = 8, 12, 16
_FEW_UP_TO_S, _SOME_UP_TO_S = 5, 10
_NEAREST_WITHIN_S = 0.5


@dataclass(frozen=True)
class FrameFeatures:
    """Descriptors of frames.

    Attributes:
        features: float32 [n, d], each L2-normalised (or zero for a picture without any content).
        norms: float32 [n], their L2 norms before that.
    """

    features: np.ndarray
    norms: np.ndarray


class VisionEncoder(Protocol):
    """Turns pictures into descriptors whose cosine says how alike the pictures are."""

    @property
    def encoder_id(self) -> str:
        """Names the model and its weights; features of different ids never mix."""
        ...

    def encode(self, images: Sequence[np.ndarray]) -> FrameFeatures:
        """Descriptors of pictures, uint8 [h, w, 3] in the order red, green, blue; sizes may differ."""
        ...


def choose_frames(times_ns: Sequence[int] | np.ndarray, start_ns: int, end_ns: int) -> np.ndarray:
    """Which keyframes stand for a primitive.

    Up to 8 for a primitive of at most 5 s, 12 up to 10 s, 16 above, spread evenly over those with
    ``start_ns <= time < end_ns``; all of them where there are fewer. A primitive too short to hold a keyframe takes
    the one nearest to its middle, when that is at most half a second outside.

    Args:
        times_ns: sorted times of the keyframes.
        start_ns: start of the primitive.
        end_ns: its end, exclusive.

    Returns:
        indices into ``times_ns``, increasing; empty when no keyframe is near.
    """
    times = np.asarray(times_ns, dtype=np.int64)
    first, stop = np.searchsorted(times, (start_ns, end_ns), side="left")
    length_s = (end_ns - start_ns) / NS_PER_S
    wanted = _FEW if length_s <= _FEW_UP_TO_S else _SOME if length_s <= _SOME_UP_TO_S else _MANY
    count = int(stop - first)
    if count > 0:
        picked = min(wanted, count)
        # The middles of `picked` equal parts.
        return first + ((2 * np.arange(picked) + 1) * count) // (2 * picked)
    outside_s = np.maximum(start_ns - times, times - end_ns) / NS_PER_S
    near = np.flatnonzero(outside_s <= _NEAREST_WITHIN_S)
    if near.size == 0:
        return near
    middle = (start_ns + end_ns) // 2
    return near[[np.argmin(np.abs(times[near] - middle))]]


def pool(features: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Descriptor v_i of a primitive: the mean of its frames' features weighted by their norms, L2-normalised.

    Args:
        features: float [n, d], L2-normalised, n >= 1.
        norms: float [n], not negative; equal weights where all are zero.

    Returns:
        float32 [d]; zero only when the features cancel out.
    """
    if len(features) == 0 or len(features) != len(norms):
        raise InputError(f"{len(features)} features and {len(norms)} norms cannot be pooled")
    weights = np.asarray(norms, dtype=np.float64)
    if not weights.any():
        weights = np.ones_like(weights)
    mean = weights @ np.asarray(features, dtype=np.float64)
    return _normalise(mean[None]).features[0]


class WeightFreeEncoder:
    """Histograms of oriented gradients and of colours: needs no weights, and is no vision-language model.

    The picture is squeezed to 128 x 128. Edges: gradients in 9 unsigned orientations over 8 x 8 cells, normalised
    in blocks of 2 x 2 cells and clipped (Dalal and Triggs, 2005). Colours: square roots of a histogram over 8 hues x
    4 saturations x 4 values in each quarter of the picture. Both halves weigh the same in the cosine of two ordinary
    pictures. 1,764 + 512 numbers.
    """

    _SIDE, _CELL, _ORIENTATIONS, _CLIP = 128, 16, 9, 0.2
    _COLOUR_BINS = (8, 4, 4)

    @property
    def encoder_id(self) -> str:
        return f"{WEIGHT_FREE}hog-colour/v1"

    def encode(self, images: Sequence[np.ndarray]) -> FrameFeatures:
        """See :class:`VisionEncoder`."""
        edges = self._SIDE // self._CELL - 1
        width = edges * edges * 4 * self._ORIENTATIONS + 4 * int(np.prod(self._COLOUR_BINS))
        raw = np.zeros((len(images), width), dtype=np.float32)
        for i, image in enumerate(images):
            small = cv2.resize(_checked(image), (self._SIDE, self._SIDE), interpolation=cv2.INTER_AREA)
            raw[i] = np.concatenate((self._edges(small), self._colours(small)))
        return _normalise(raw)

    def _edges(self, picture: np.ndarray) -> np.ndarray:
        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        across = cv2.Sobel(gray, cv2.CV_32F, 1, 0)
        down = cv2.Sobel(gray, cv2.CV_32F, 0, 1)
        size, orientation = np.hypot(across, down), np.arctan2(down, across) % np.pi
        # Each gradient is shared between its two nearest orientations, so that a small turn is a small change.
        place = orientation * (self._ORIENTATIONS / np.pi)
        lower = np.floor(place).astype(np.int64)
        share = place - lower
        side, count = self._SIDE // self._CELL, self._ORIENTATIONS
        row = np.arange(self._SIDE) // self._CELL
        cell = (row[:, None] * side + row[None, :]) * count
        histogram = np.bincount((cell + lower % count).ravel(), (size * (1 - share)).ravel(), side * side * count)
        histogram += np.bincount((cell + (lower + 1) % count).ravel(), (size * share).ravel(), side * side * count)
        cells = histogram.reshape(side, side, count)
        blocks = np.concatenate((cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:]), axis=2)
        # The constant keeps sensor noise on flat walls from weighing as much as true edges.
        blocks = blocks / np.sqrt(np.square(blocks).sum(axis=2, keepdims=True) + 1.0)
        blocks = np.minimum(blocks, self._CLIP).ravel()
        normalised: np.ndarray = blocks / (side - 1)
        return normalised

    def _colours(self, picture: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        half = self._SIDE // 2
        parts = []
        for top in (0, half):
            for left in (0, half):
                quarter = np.ascontiguousarray(hsv[top : top + half, left : left + half])
                ranges = [0, 180, 0, 256, 0, 256]
                histogram = cv2.calcHist([quarter], [0, 1, 2], None, list(self._COLOUR_BINS), ranges)
                parts.append(np.sqrt(histogram.ravel() / (4 * half * half)))
        return np.concatenate(parts)


class OpenClipEncoder:
    """A vision tower of open_clip, by default CLIP ViT-B/32.

    Args:
        model: architecture known to open_clip (``ViT-B-32``), or ``hf-hub:owner/name`` for one on Hugging Face, whose
            weights come with it.
        weights: a tag of published weights, which are downloaded once, or the path of a checkpoint file.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
        batch_size: pictures encoded at a time; batches are always filled up to it, so that a picture's features do
            not depend on how many come with it.

    Raises:
        MissingDependencyError: open_clip is not usable, or the weights are neither here nor to be downloaded.
        InputError: the model or tag is unknown, or the checkpoint is one of another model.
    """

    def __init__(
        self,
        model: str = "ViT-B-32",
        weights: str | Path = "laion2b_s34b_b79k",
        *,
        device: str = "auto",
        batch_size: int = 16,
    ) -> None:
        open_clip = import_open_clip()
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(device)
        self._name = model
        self._batch_size = batch_size
        from_hub = model.startswith("hf-hub:")
        path = None if from_hub else _checkpoint_path(weights)
        quick_gelu = False
        if not from_hub:
            if model not in open_clip.list_models():
                raise InputError(f"open_clip has no model {model!r}", fix="open_clip.list_models() lists those it has.")
            if path is None:
                tags = open_clip.list_pretrained_tags_by_model(model)
                if weights not in tags:
                    raise InputError(
                        f"open_clip has no weights {str(weights)!r} for {model}, and there is no such file",
                        fix=f"Give the path of a checkpoint or one of {', '.join(tags) or 'no tags'}.",
                    )
                # Some published weights were trained with another activation than the architecture's name says.
                quick_gelu = bool(open_clip.get_pretrained_cfg(model, weights).get("quick_gelu", False))
        try:
            self._model, _, self._preprocess = open_clip.create_model_and_transforms(
                model,
                pretrained=None if from_hub else str(path or weights),
                device=self._device,
                force_quick_gelu=quick_gelu,
            )
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError, URLError) as error:
            if path is not None:
                raise InputError(
                    f"cannot be loaded as weights of {model} ({_first_line(error)})",
                    where=str(path),
                    fix="Give a checkpoint of that model (safetensors, or a state dict saved by torch).",
                ) from error
            name = model if from_hub else f"{model}/{weights}"
            raise MissingDependencyError(
                f"the weights of {name} are not on this machine and cannot be downloaded ({_first_line(error)})",
                fix="Run once with internet access, copy the Hugging Face cache of a machine that has it (HF_HOME), "
                "or give the path of a checkpoint file; or choose the weight-free descriptor, which is no "
                "vision-language model.",
            ) from error
        self._model.eval()
        if from_hub:
            self._encoder_id = f"open_clip:{model}"
        elif path is None:
            self._encoder_id = f"open_clip:{model}/{weights}"
        else:
            self._encoder_id = f"open_clip:{model}/sha256-{_file_hash(path)}"

    @property
    def encoder_id(self) -> str:
        return self._encoder_id

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> FrameFeatures:
        """See :class:`VisionEncoder`."""
        out = []
        for start in range(0, len(images), self._batch_size):
            pictures = [
                self._preprocess(Image.fromarray(_checked(image))) for image in images[start:][: self._batch_size]
            ]
            batch = torch.stack(pictures + [pictures[-1]] * (self._batch_size - len(pictures)))
            encoded = self._model.encode_image(batch.to(self._device)).float().cpu().numpy()
            out.append(encoded[: len(pictures)])
        if not out:
            return FrameFeatures(np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.float32))
        return _normalise(np.concatenate(out))

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Descriptors of texts, float32 [n, d], L2-normalised: their cosine with a picture's says how well they fit."""
        open_clip = import_open_clip()
        tokens = open_clip.get_tokenizer(self._name)(list(texts))
        parts = [self._model.encode_text(part.to(self._device)).float().cpu().numpy() for part in tokens.split(64)]
        return _normalise(np.concatenate(parts)).features


def import_open_clip() -> Any:
    """The module open_clip, also where torchvision's compiled operators do not fit the installed torch.

    Raises:
        MissingDependencyError: it is not installed or cannot be imported.
    """
    fix = "Install open_clip_torch, and a torchvision that fits the installed torch (see https://pytorch.org)."
    for package in ("torchvision", "open_clip"):
        if find_spec(package) is None:
            raise MissingDependencyError(f"the package {package} is not installed", fix=fix)
    _declare_torchvision_operators()
    try:
        import open_clip
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingDependencyError(f"open_clip cannot be imported ({_first_line(error)})", fix=fix) from error
    return open_clip


@cache
def _declare_torchvision_operators() -> torch.library.Library | None:
    """Make ``import torchvision`` possible beside a CPU-only torch.

    The torchvision wheel of the package index is compiled for CUDA. Beside a CPU-only torch its library does not
    load, and the import fails where it describes the shapes of two operators (for boxes) that are then unknown.
    Declared without an implementation they satisfy it; open_clip uses torchvision's image transforms only. Where
    the library loads, nothing is declared. The declaration lives as long as the object returned.
    """
    spec = find_spec("torchvision")
    library = Path(spec.origin).parent / "_C.so" if spec is not None and spec.origin else None
    if library is not None and library.exists():
        try:
            torch.ops.load_library(str(library))
        except OSError:
            pass
        else:
            return None
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return declared


def _checkpoint_path(weights: str | Path) -> Path | None:
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if isinstance(weights, Path) or path.suffix or len(path.parts) > 1:
        raise MissingDependencyError(
            "there is no checkpoint", where=str(weights), fix="Give the path of a file, or a tag that open_clip knows."
        )
    return None


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"a picture must be uint8 [h, w, 3], not {image.dtype} {list(image.shape)}")
    return image


def _normalise(raw: np.ndarray) -> FrameFeatures:
    norms = np.linalg.norm(raw, axis=1)
    safe = np.where(norms > 0, norms, 1.0)
    return FrameFeatures((raw / safe[:, None]).astype(np.float32), norms.astype(np.float32))
