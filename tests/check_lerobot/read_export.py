"""Read a data set with lerobot and compare every row with the source: code, task, time and picture.

``python tests/check_lerobot/read_export.py FOLDER``, in an environment that has lerobot and not this project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import numpy as np
from lerobot import __version__
from lerobot.datasets.lerobot_dataset import LeRobotDataset

KEY = "observation.images.workstation"
# Two compressions lie between the source's picture and the one read: levels of 255, mean over the pixels.
MOST_DIFFERENCE = 10.0


def pictures_of(video: str) -> list[np.ndarray]:
    with av.open(video) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def main(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    dataset = LeRobotDataset("local/check", root=folder / "dataset", video_backend="pyav")
    assert dataset.num_episodes == len(expected), dataset.num_episodes
    assert dataset.num_frames == len(dataset) == sum(len(episode["codes"]) for episode in expected)
    sources = {video: pictures_of(video) for video in {episode["video"] for episode in expected}}
    index, worst, nearest_other = 0, 0.0, 255.0
    for number, episode in enumerate(expected):
        source = sources[episode["video"]]
        for place, (code, frame) in enumerate(zip(episode["codes"], episode["frames"], strict=True)):
            row = dataset[index]
            where = f"episode {number}, row {place}"
            assert int(row["action"]) == code, where
            assert row["task"] == episode["task"], where
            assert int(row["episode_index"]) == number and int(row["frame_index"]) == place, where
            assert abs(float(row["timestamp"]) - place / dataset.fps) < 1e-4, where
            picture = row[KEY].numpy().transpose(1, 2, 0) * 255
            difference = float(np.abs(picture - source[frame]).mean())
            assert difference < MOST_DIFFERENCE, f"{where}: {difference:.1f} levels from frame {frame}"
            worst = max(worst, difference)
            other = source[frame + 1 if frame + 1 < len(source) else frame - 1]
            nearest_other = min(nearest_other, float(np.abs(picture - other).mean()))
            index += 1
    assert worst < nearest_other, "the pictures do not tell neighbouring frames apart"
    print(
        f"lerobot {__version__} read {len(expected)} episodes, {index} rows: codes, tasks and times equal; pictures at "
        f"most {worst:.1f} levels from their source frame, at least {nearest_other:.1f} from its neighbour"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
