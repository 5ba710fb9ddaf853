"""Export a small store as a LeRobot data set, and write down what a reader must find in it.

``python -m tests.check_lerobot.write_export FOLDER`` makes ``FOLDER/dataset`` and ``FOLDER/expected.json``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from resources.curation import Selection, choose
from resources.datasets import Format, write_dataset
from resources.names import name_cluster
from tests.export_store import make_export_store, picture_of


def main(folder: Path) -> None:
    os.environ["LAPS_FIRST_HOUR"] = "2026-01-01T00:00:00Z"
    made = make_export_store(folder)
    name_cluster(made.store, made.release, 1, "tighten screw")
    chosen = choose(made.store, made.release, Selection(split="recording", guard_s=0.0))
    summary = write_dataset(
        made.store, made.release, chosen, Format("lerobot"), folder / "dataset", name="check of the format"
    )
    rows = {row["segment_id"]: row for row in made.rows}
    expected = [
        {
            "task": "tighten screw" if item.cluster_id == 1 else f"cluster {item.cluster_id}",
            "codes": rows[item.segment_id]["codes"],
            "video": str(rows[item.segment_id]["video"]),
            "frames": [picture_of(rows[item.segment_id], place) for place in range(len(item.codes))],
        }
        for item in summary.written
    ]
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
