"""Saved tokenizers: ``weights.safetensors``, ``config.json`` and ``training.json`` in one folder.

The id is the hash of the weights' bytes and the canonical settings, so a tokenizer cannot change and keep its
name. ``training.json`` (the learning curve and what was measured) is for people and not part of the id.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from laps.errors import InputError, ModelMismatchError
from laps.tokenizer.config import TokenizerConfig
from laps.tokenizer.model import MotionTokenizer

WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
TRAINING = "training.json"


def content_id(tokenizer: MotionTokenizer) -> str:
    """``t`` and 12 hexadecimal digits of the SHA-256 of the weights' bytes and the canonical settings."""
    return _id_of(_weights_bytes(tokenizer), tokenizer.config)


def save(tokenizer: MotionTokenizer, folder: Path | str, *, training: dict[str, Any] | None = None) -> str:
    """Write a frozen tokenizer and return its id.

    Args:
        tokenizer: the tokenizer.
        folder: made if it is not there.
        training: what ``training.json`` shall hold, for example ``TrainedTokenizer.report()``.
    """
    tokenizer_id = tokenizer.tokenizer_id
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(_weights_bytes(tokenizer))
    config = {"tokenizer_id": tokenizer_id, "config": json.loads(tokenizer.config.to_json())}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if training is not None:
        text = json.dumps(training, indent=1, sort_keys=True, allow_nan=False)
        (folder / TRAINING).write_text(text + "\n", encoding="utf-8")
    return tokenizer_id


def load(folder: Path | str, *, device: str = "cpu") -> MotionTokenizer:
    """Read a saved tokenizer, ready to encode.

    Raises:
        InputError: no tokenizer lies there, or its files cannot be read.
        ModelMismatchError: the files were changed after saving: they do not hash to their id.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"there is no {name}", where=str(folder), fix="Give the folder that `laps train --out` wrote."
            )
    try:
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config_text, tokenizer_id = json.dumps(stored["config"]), stored["tokenizer_id"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{CONFIG} cannot be read ({error})", where=str(folder), fix="Train it again.") from error
    config = TokenizerConfig.from_json(config_text)
    data = (folder / WEIGHTS).read_bytes()
    found = _id_of(data, config)
    if found != tokenizer_id:
        raise ModelMismatchError(
            f"the files were changed after saving: they hash to {found}, but are named {tokenizer_id}",
            where=str(folder),
            fix="Restore the folder from where it was trained, or train again.",
        )
    tokenizer = MotionTokenizer(config)
    try:
        tokenizer.load_state_dict(safetensors.torch.load(data))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{WEIGHTS} does not fit {CONFIG} ({error})", where=str(folder)) from error
    return tokenizer.adopt_id(tokenizer_id).to(device)


def _weights_bytes(tokenizer: MotionTokenizer) -> bytes:
    state: dict[str, Tensor] = {name: value.cpu().contiguous() for name, value in tokenizer.state_dict().items()}
    return safetensors.torch.save(state)


def _id_of(weights: bytes, config: TokenizerConfig) -> str:
    digest = hashlib.sha256(weights)
    digest.update(config.to_json().encode())
    return "t" + digest.hexdigest()[:12]
