"""``laps name``: what people call the clusters."""

from __future__ import annotations

import click

from laps_dagster.cli.places import existing_store


@click.command()
@click.argument("cluster", type=int, required=False)
@click.argument("action", required=False, metavar="[NAME]")
@click.option("--list", "listing", is_flag=True, help="List the clusters with their names.")
@click.option("--clear", is_flag=True, help="Take the name of CLUSTER away.")
@click.option("--release", metavar="RELEASE", help="Release whose clusters are meant. Default: the current one.")
def name(cluster: int | None, action: str | None, listing: bool, clear: bool, release: str | None) -> None:
    """Call CLUSTER by NAME, for example: laps name 3 "tighten screw".

    Catalog (column action_name), report and exports use it. It stays when the clusters are fitted again, where the
    new ones keep the number; a cluster that is new has no name.
    """
    from resources.models import ModelRegistry
    from resources.names import cluster_names, name_cluster

    if listing == (cluster is not None) or (cluster is not None and clear == (action is not None)):
        raise click.UsageError('give CLUSTER "NAME", CLUSTER --clear, or --list')
    store = existing_store()
    chosen = ModelRegistry(store).to_read(release)
    if cluster is not None:
        name_cluster(store, chosen, cluster, action)
    for one in cluster_names(store, chosen):
        if cluster in (None, one.cluster_id):
            since = f"  (since {one.named_at:%Y-%m-%d %H:%M} UTC)" if one.named_at and one.action_name else ""
            click.echo(f"cluster {one.cluster_id}: {one.action_name or '-'}{since}")
