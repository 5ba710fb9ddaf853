"""The clusters of primitives: standardize, L2-normalize, k-means (paper section 3.2.2).

k is given: a workstation has a finite set of actions that its people know. A scan over neighbouring k is printed to
help choose it. Cluster numbers are matched to those of the current release, so that `cluster_id = 3` means the same
tomorrow; with another tokenizer by the primitives that both releases have cut at the same time. The fit takes an even
sample of at most 100,000 primitives, unless configured otherwise; the metadata says of how many.
"""

import json
import tempfile
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.partitions import any_hours
from assets.plots import scatter_plot
from assets.retries import tried_again
from assets.specs import MODELS, describe, picture
from laps.errors import NotProcessedError
from laps.tables import SEGMENT_EMBEDDINGS
from laps.timegrid import CameraHour
from resources.comparison import NONE, earlier_numbers
from resources.configured import StoreResource
from resources.embeddings import read_embeddings
from resources.models import CLUSTER_MODEL, EMBEDDER, TOKENIZER, ModelRegistry
from resources.release import ReleaseResource


class Clustering(dg.Config):
    """How many clusters, and from which hours."""

    k: int = Field(6, ge=1, description="Number of clusters: how many kinds of action the workstation has.")
    hours: list[str] = Field(default=[], description="Camera hours to fit on. Empty: all of the release.")
    sample_primitives: int = Field(
        100_000,
        ge=1,
        description="Primitives to fit on at most, evenly spread over the hours; 100,000 take about 1 GB.",
    )
    scan: list[int] = Field(default=[2, 3, 4, 5, 6, 8, 10, 12], description="Numbers of clusters to compare.")
    seed: int = Field(0, description="Seed of the sample and of k-means.")


@dg.asset(
    deps=any_hours("segment_embeddings"),
    **describe(__doc__, group=MODELS, kinds={"scikitlearn"}),
)
@tried_again
def cluster_model(
    context: dg.AssetExecutionContext, config: Clustering, store: StoreResource, release: ReleaseResource
) -> dg.MaterializeResult:
    import numpy as np

    from laps.clustering import FIGURES_FILE, fit, fit_figures, project, render_scan, scan_k

    files = store.open()
    registry = ModelRegistry(files)
    target = release.to_fill(files, CLUSTER_MODEL)
    tokenizer_id, embedder_id = target.require(TOKENIZER), target.require(EMBEDDER)
    hours = [CameraHour.parse(key) for key in config.hours] or files.partitions(SEGMENT_EMBEDDINGS, target.name)
    sample = read_embeddings(files, target, hours, at_most=config.sample_primitives, seed=config.seed)
    count = len(sample.embeddings)
    if not count:
        raise NotProcessedError(
            f"release {target.name} has no primitives in the {len(hours)} chosen hours",
            fix=f"Materialize segments and segment_embeddings of hours with footage{target.in_run}; if they are empty, "
            "the calibration's message says why.",
        )
    current = registry.current()
    previous = labels = None
    if current is not None and current.cluster_model is not None:
        previous = registry.clusters(current)
        if (previous.tokenizer_id, previous.embedder_id) != (tokenizer_id, embedder_id):
            # Embeddings of another kind: the same action is told by its time.
            earlier = earlier_numbers(files, target, current)
            labels = np.array([earlier.get(segment_id, NONE) for segment_id in sample.segment_ids], np.int64)
    fitted = fit(
        sample.embeddings,
        config.k,
        tokenizer_id=tokenizer_id,
        embedder_id=embedder_id,
        seed=config.seed,
        previous=previous,
        previous_labels=labels,
    )
    distinct = len(np.unique(sample.embeddings, axis=0))
    scan = render_scan(scan_k(sample.embeddings, [k for k in config.scan if 1 < k < distinct], seed=config.seed))
    context.log.info("how other numbers of clusters would do:\n" + scan)
    points, how = project(fitted.model, sample.embeddings, method="pca")
    with tempfile.TemporaryDirectory() as folder:
        model_id = fitted.model.save(Path(folder))
        (Path(folder) / FIGURES_FILE).write_text(json.dumps(fit_figures(fitted, sample.embeddings)), encoding="utf-8")
        registry.put(CLUSTER_MODEL, model_id, Path(folder))
    registry.fill(target, CLUSTER_MODEL, model_id)
    scores = {"silhouette": fitted.quality.silhouette, "calinski_harabasz": fitted.quality.calinski_harabasz}
    return dg.MaterializeResult(
        metadata={
            "cluster_model_id": model_id,
            "tokenizer_id": tokenizer_id,
            "embedder_id": embedder_id,
            "release": target.name,
            "k": config.k,
            "primitives": sample.available,
            "sample": f"fitted on {count} of {sample.available} primitives, evenly spread, seed {config.seed}",
            "numbers_kept": list(fitted.kept_ids),
            "numbers_new": list(fitted.new_ids),
            "numbers_retired": list(fitted.retired_ids),
            **{name: value for name, value in scores.items() if value is not None},
            "scan": dg.MetadataValue.md(f"```\n{scan}\n```"),
            "scan_text": scan,
            "map": picture(scatter_plot(points, fitted.labels), f"map of the primitives ({how})"),
        }
    )
