"""``laps name``: what people call the clusters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from laps.errors import InputError
from laps_dagster.cli.places import existing_store

if TYPE_CHECKING:
    from resources.models import Release
    from resources.store import Store


@click.command()
@click.argument("cluster", type=int, required=False)
@click.argument("action", required=False, metavar="[NAME]")
@click.option("--list", "listing", is_flag=True, help="List the clusters with their names.")
@click.option("--clear", is_flag=True, help="Take the name of CLUSTER away.")
@click.option("--suggest", is_flag=True, help="Suggest names for all clusters, from a list of verbs. Needs CLIP.")
@click.option("--verbs", type=click.Path(path_type=Path), metavar="FILE", help="With --suggest: verbs, one a line, "
              "such as 'tighten a screw'. Default: some fifty of what people do at a workstation.")  # fmt: skip
@click.option("--apply", "applied", is_flag=True, help="With --suggest: give the clusters that have no name the first "
              "suggestion. Without it nothing is written.")  # fmt: skip
@click.option("--min-margin", type=click.FloatRange(min=0), default=0.0, metavar="MARGIN", help="With --apply: only "
              "where the first suggestion is better than the second by so much.")  # fmt: skip
@click.option("--release", metavar="RELEASE", help="Release whose clusters are meant. Default: the current one.")
def name(
    cluster: int | None,
    action: str | None,
    listing: bool,
    clear: bool,
    suggest: bool,
    verbs: Path | None,
    applied: bool,
    min_margin: float,
    release: str | None,
) -> None:
    """Call CLUSTER by NAME: laps name 3 "tighten screw".

    Catalog (column action_name), report and exports use it. It stays when the clusters are fitted again, where the
    new ones keep the number; a cluster that is new has no name.
    """
    from resources.models import ModelRegistry
    from resources.names import cluster_names, name_cluster

    if suggest and (cluster is not None or listing or clear):
        raise click.UsageError("--suggest is about all clusters: give neither CLUSTER nor --list")
    if not suggest and (verbs or applied):
        raise click.UsageError("--verbs and --apply go with --suggest")
    if min_margin and not applied:
        raise click.UsageError("--min-margin goes with --apply")
    if not suggest and (listing == (cluster is not None) or (cluster is not None and clear == (action is not None))):
        raise click.UsageError('give CLUSTER "NAME", CLUSTER --clear, --list, or --suggest')
    store = existing_store()
    chosen = ModelRegistry(store).to_read(release)
    if suggest:
        _suggest(store, chosen, verbs, min_margin if applied else None)
        return
    if cluster is not None:
        name_cluster(store, chosen, cluster, action)
    for one in cluster_names(store, chosen):
        if cluster in (None, one.cluster_id):
            since = f"  (since {one.named_at:%Y-%m-%d %H:%M} UTC)" if one.named_at and one.action_name else ""
            click.echo(f"cluster {one.cluster_id}: {one.action_name or '-'}{since}")


def _suggest(store: Store, release: Release, verbs: Path | None, apply_from_margin: float | None) -> None:
    """Print suggestions, and name clusters where a least margin is given."""
    from laps.naming import VERBS, parse_verbs
    from resources.configured import vision_from_environment
    from resources.names import cluster_names, name_cluster, suggest_names

    found = suggest_names(
        store,
        release,
        list(VERBS) if verbs is None else parse_verbs(_read(verbs), str(verbs)),
        lambda: vision_from_environment().build(),
    )
    named = {one.cluster_id: one.action_name for one in cluster_names(store, release)}
    for one in found:
        best = ", ".join(f"{verb} {score:.3f}" for verb, score in one.verbs)
        has = named.get(one.cluster_id)
        said = f"  (is named {has})" if has else ""
        if apply_from_margin is not None and not has and one.margin >= apply_from_margin:
            name_cluster(store, release, one.cluster_id, one.verbs[0][0])
            said = f"  (named {one.verbs[0][0]})"
        click.echo(f"cluster {one.cluster_id}, {one.primitives} primitives: {best}; margin {one.margin:.3f}{said}")
    if apply_from_margin is None:
        click.echo('nothing was written: `laps name CLUSTER "NAME"` names one, --apply takes the first suggestions')


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("is no UTF-8 text", where=str(path)) from error
