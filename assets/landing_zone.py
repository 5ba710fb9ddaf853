"""Video files as they arrive in `<landing>/<camera>/…`, or wherever `laps ingest` found them.

Nothing is materialized here: the files belong to whoever records them and are never copied. `laps ingest`
registers them in the table `recordings`.
"""

import dagster as dg

from assets.partitions import camera_hours
from assets.specs import OBSERVE, describe
from laps.tables import RECORDINGS

landing_zone = dg.AssetSpec(
    "landing_zone",
    partitions_def=camera_hours,
    **describe(__doc__, group=OBSERVE, kinds={"file"}, table=RECORDINGS),
)
