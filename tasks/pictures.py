"""The stage that keeps what the report shows of components as pictures."""

from __future__ import annotations

from typing import Any

from featcx_core.store import ArtifactRef
from tasks.engine import Work, stage


@stage("pictures", computes=False)
def pictures(work: Work, *, data: ArtifactRef, components: ArtifactRef, substitution: ArtifactRef) -> dict[str, Any]:
    """Maps of one channel for a few test images, and energy maps of classes; `substitution` has the target's answers."""
    from safetensors import safe_open

    from featcx_core.components import ComponentTable
    from featcx_core.data import Dataset
    from featcx_core.pictures import make_pictures

    with safe_open(work.path(substitution) / "predictions.safetensors", "pt") as file:
        correct = file.get_tensor("test.correct")[:, 0]
    test = ComponentTable.open(work.path(components) / "test")
    found = make_pictures(Dataset.load(work.path(data)), test, correct)
    found.save(work.folder)
    return {"channel": found.channel, "samples": list(found.samples)}
