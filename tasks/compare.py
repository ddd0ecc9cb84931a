"""The stage that holds networks against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featcx_core.report.frames import read_frames
from featcx_core.specs import AnalysisSpec
from featcx_core.store.artifacts import ArtifactRef
from featcx_core.store.record import Record
from tasks.engine import Work, stage

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from featcx_core.analysis.comparison import Measured

Refs = dict[str, ArtifactRef | None]


@stage("comparison")
def comparison(work: Work, *, networks: dict[str, Refs], settings: AnalysisSpec) -> dict[str, Any]:
    """Every other network against the first, order by order, with paired intervals; what the paper claims of variants."""
    from featcx_core.analysis.comparison import compare_networks
    from featcx_core.report.facets.comparison import draw_comparison
    from featcx_core.report.figure_files import save
    from featcx_core.studies.variant_claims import judge_variants

    (_, original), *others = networks.items()
    ours, theirs = _measured(work, original), {name: _measured(work, refs) for name, refs in others}
    frame = compare_networks(ours, theirs, settings.confidence)
    told = {
        "comparison": frame,
        "variant_claims": judge_variants(ours, theirs, settings.confidence),
        "variant_accuracy": _accuracies(work, original, dict(others), settings),
    }
    Record(told).save(work.folder)
    frames = read_frames(original, work.path) | told
    save(draw_comparison, frames, work.folder, "comparison", settings.confidence)
    return {"comparisons": len(frame)}


def _accuracies(work: Work, original: Refs, others: dict[str, Refs], settings: AnalysisSpec) -> pd.DataFrame:
    """A row a variant: what test accuracy it gains on the original, image by image: variants have the same test images."""
    import pandas as pd

    from featcx_core.analysis.substitution import Gain, paired_gain
    from featcx_core.studies.variant_claims import CLAIMS

    def correct(refs: Refs) -> Tensor:
        ref = refs["substitution"]
        assert ref is not None
        return work.record(ref).tensors["predictions"]["test.correct"][:, 0]

    before = correct(original)
    gains = {
        name: paired_gain(before, correct(refs), settings.bootstrap, settings.confidence, seed=0)._asdict()
        for name, refs in others.items()
        if name in CLAIMS
    }
    frame = pd.DataFrame(list(gains.values()), columns=list(Gain._fields)).rename(
        columns={"low": "gain_low", "high": "gain_high"}
    )
    frame.insert(0, "variant", list(gains))
    return frame


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
