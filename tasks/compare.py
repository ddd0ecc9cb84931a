"""The stage that holds networks against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featcx_core.report.frames import read_frames
from featcx_core.specs import AnalysisSpec
from featcx_core.store.artifacts import ArtifactRef
from featcx_core.store.record import Record
from tasks.engine import Work, stage

if TYPE_CHECKING:
    from featcx_core.analysis.comparison import Measured

Refs = dict[str, ArtifactRef | None]


@stage("comparison")
def comparison(work: Work, *, networks: dict[str, Refs], settings: AnalysisSpec) -> dict[str, Any]:
    """Every other network against the first, order by order, with paired intervals; a table and a figure."""
    from featcx_core.analysis.comparison import compare_networks
    from featcx_core.report.facets.comparison import draw_comparison
    from featcx_core.report.figure_files import save

    (_, original), *others = networks.items()
    frame = compare_networks(
        _measured(work, original), {name: _measured(work, refs) for name, refs in others}, settings.confidence
    )
    Record({"comparison": frame}).save(work.folder)
    frames = read_frames(original, work.path) | {"comparison": frame}
    save(draw_comparison, frames, work.folder, "comparison", settings.confidence)
    return {"comparisons": len(frame)}


def _measured(work: Work, refs: Refs) -> Measured:
    from featcx_core.analysis.comparison import COMPARED, Measured

    frames, values, draws = read_frames(refs, work.path), {}, {}
    for name, metric in COMPARED.items():
        if (ref := refs.get(metric.frame)) is not None:
            frame = frames[metric.frame]
            frame = frame[frame.quantity == "component"] if "quantity" in frame else frame
            values[name] = frame[name].to_numpy()
            draws[name] = work.record(ref).tensors["draws"][name]
    orders, moved = frames["significance"], refs["spread"]
    assert moved is not None
    spread = {str(metric): rows.variance.to_numpy() for metric, rows in frames["spread"].groupby("metric")}
    spread["cross_seed"] = orders.cross_seed_variance.to_numpy()
    if "reliability" in frames:
        spread["reliability"] = frames["reliability"].reliability_variance.to_numpy()
    chains = work.record(moved).numbers["chains"]
    return Measured(tuple(orders.order.tolist()), values, draws, spread, chains, tuple(orders.resolved))
