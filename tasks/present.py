"""The stage that writes the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from featcx_core.report.frames import read_frames, target_rows
from featcx_core.store.artifacts import ArtifactRef
from tasks.engine import Work, stage

if TYPE_CHECKING:
    import pandas as pd


@stage("figures", computes=False)
def figures(
    work: Work, *, network: str, nodes: dict[str, ArtifactRef | None], spec: dict[str, Any], notes: dict[str, str]
) -> dict[str, Any]:
    """One network's figures, as soon as its tables are there; reports take them from here."""
    from featcx_core.report.run import draw_figures

    assert nodes["substitution"] is not None
    shown = nodes["pictures"] if network == "target" else None
    draw_figures(
        work.folder,
        network,
        read_frames(nodes, work.path),
        spec=spec,
        notes=notes,
        chosen_order=work.record(nodes["substitution"]).numbers["chosen_order"],
        pictures=None if shown is None else work.path(shown),
    )
    return {}


@stage("report", label="{spec[target][net]} n={spec[target][samples]} s{spec[seed]}", computes=False)
def report(
    work: Work,
    *,
    networks: dict[str, dict[str, ArtifactRef | None]],
    figures: dict[str, ArtifactRef],
    spec: dict[str, Any],
    notes: dict[str, str],
) -> dict[str, Any]:
    """Figures, tables and the HTML report. The page tells times and devices, so it is no part of the artifact's digest."""
    from featcx_core.report.run import write_report

    main = networks["target"]
    assert main["target"] is not None
    assert main["substitution"] is not None
    assert main["pictures"] is not None
    chosen = work.record(main["substitution"]).numbers["chosen_order"]
    refs = [ref for nodes in networks.values() for ref in nodes.values() if ref is not None]
    refs += figures.values()
    analyses = {name: read_frames(nodes, work.path) for name, nodes in networks.items()}
    if "comparison" in analyses["target"]:
        told = {
            name: work.record(ref).numbers for name, nodes in networks.items() if (ref := nodes["target"]) is not None
        }
        analyses["target"]["networks"] = _networks(told)
    write_report(
        work.folder,
        analyses,
        title=f"{spec['target']['net']} on {spec['dataset']['source'].split(':')[0]}, n = {spec['target']['samples']}",
        spec=spec,
        provenance=work.store.lineage(refs),
        scores=work.record(main["target"]).numbers["scores"],
        notes=notes,
        chosen_order=chosen,
        pictures={"target": work.path(main["pictures"])},  # four networks' pictures would make a page of 6 MB
        drawn={name: work.path(ref) for name, ref in figures.items()},
    )
    return {"volatile": ["report.html"]}


def _networks(told: dict[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row a network: accuracies, and the compressed size where it has one."""
    import pandas as pd

    nothing = {"compressed_bytes": float("nan"), "ratio": float("nan")}
    return pd.DataFrame([{"network": n} | nothing | s["scores"] | s.get("size", {}) for n, s in told.items()])


@stage("sweep_report", computes=False)
def sweep_report(
    work: Work,
    *,
    targets: dict[str, dict[str, ArtifactRef | None]],
    reports: dict[str, ArtifactRef],
    links: dict[str, str],
    about: dict[str, dict[str, Any]],
    fields: list[str],
    failed: dict[str, str],
    spec: dict[str, Any],
) -> dict[str, Any]:
    """The tidy table over all targets of a sweep, figures over its sizes, and the paper's claims held against it.

    `about` holds a target's architecture, samples, seed and further swept `fields`; `links` lead to each target's page.
    """
    import pandas as pd

    from featcx_core.report.sweep.page import write_sweep_report

    rows = []
    for name, refs in targets.items():
        assert refs["target"] is not None
        depth = work.record(refs["target"]).numbers["depth"] or float("nan")
        known = {"target": name, **about[name], "depth": depth}
        rows += [known | row for row in target_rows(refs, work.store)]
    write_sweep_report(
        work.folder,
        pd.DataFrame(rows),
        fields=tuple(fields),
        failed=failed,
        links=links,
        spec=spec,
        provenance=work.store.lineage([ref for refs in targets.values() for ref in refs.values() if ref is not None]),
    )
    return {"targets": len(targets), "volatile": ["report.html"]}
