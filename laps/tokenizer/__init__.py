"""The motion tokenizer: from velocities of tracked points to discrete latent actions (paper section 3.1)."""

from laps.tokenizer.config import LearningSettings, TokenizerConfig, default_precision
from laps.tokenizer.data import MAX_WINDOWS, from_tracks
from laps.tokenizer.files import load, save
from laps.tokenizer.model import MotionTokenizer
from laps.tokenizer.training import TokenizerQuality, TrainedTokenizer, TrainingProgress, train

__all__ = [
    "MAX_WINDOWS",
    "LearningSettings",
    "MotionTokenizer",
    "TokenizerConfig",
    "TokenizerQuality",
    "TrainedTokenizer",
    "TrainingProgress",
    "default_precision",
    "from_tracks",
    "load",
    "save",
    "train",
]
