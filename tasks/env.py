"""Where a run works."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Env(BaseModel):
    """Where a run works; none of it is in a key.

    Attributes:
        store: the store's root.
        run: names the run's progress notes.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads of each stage.
        checkpoint_seconds: how often a training saves itself.
        turn: the stage's place in the recipe; of stages that wait for a device the first goes ahead.
        scope: which of the run's networks a stage belongs to, for the reader.
        exclusive: lease a device before computing; false where Ray has placed the task on one already.
        shown: leave progress, tables and pictures as artifacts in Prefect's UI.
    """

    model_config = ConfigDict(frozen=True)

    store: str
    run: str
    device: str = "auto"
    threads: int = 1
    exclusive: bool = True
    checkpoint_seconds: float = 20.0
    turn: int = 0
    scope: str = ""
    shown: bool = False
