"""What every flow is to whoever asks for it, on the command line, in the UI's form or in Python: one record a flow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from prefect import flow

from featcx_core.store.artifacts import Store
from flows.recipes import Submit
from flows.running.embedded import heed_sigterm
from flows.running.publishing import publishing
from flows.running.submitting import Placed, new_env, nothing_left, task_runner
from tasks.env import Env, opened
from tasks.progress import noted

S = TypeVar("S", bound=Placed)
Results = dict[str, Any]

AGAIN = 2  # times that a run begins again
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job(Generic[S]):
    """A flow; called, it runs on the Prefect API in force.

    Attributes:
        name: the flow's.
        title: what a run is called.
        check: raises InputError for a spec that cannot run here, with the store that it would write to.
        stages: puts the DAG into a `Submit`; of a sweep all of it, as if no target failed.
        body: runs within the flow and gives the results in the form of `--json`.
        show: leaves the results of the run so called in Prefect's UI.
    """

    name: str
    title: Callable[[S], str]
    check: Callable[[S, Path], None]
    stages: Callable[[Submit, S], Any]
    body: Callable[[S, Env], Results]
    show: Callable[[str, Results], None]

    def __call__(self, spec: S, store: Path, env: Env | None = None) -> Results:
        """The results in the form of `--json`.

        Args:
            env: where it works, for a spec that has been checked; made, and the spec checked, if None.

        Raises:
            InputError: for a spec that cannot run here.
        """
        if env is None:
            self.check(spec, store)
            env = new_env(spec, store)

        @flow(name=self.name, flow_run_name="{name}", validate_parameters=False, task_runner=task_runner(spec))
        def run(spec: Any, env: Env, name: str) -> Results:
            heed_sigterm()
            return self.within(spec, env, name)

        began = time.monotonic()
        with nothing_left(Store(env.store)):
            results: Results = run(spec, env, self.title(spec))
        return results | {"seconds": round(time.monotonic() - began, 2)}

    def within(self, spec: S, env: Env, name: str) -> Results:
        """The results of a run so called, within a flow; left in the UI as well, where there is one."""
        began = time.monotonic()
        with publishing(env) as remote:
            results = self._results(spec, env)
        results |= remote
        results |= {"seconds": round(time.monotonic() - began, 2)}
        if env.shown:
            self.show(name, results)
        return results

    def _results(self, spec: S, env: Env) -> Results:
        """What the body gives. Where something has vanished that the run had found or made, it begins again."""
        for _ in range(AGAIN):
            try:
                results = self.body(spec, env)
            except Exception:
                if not vanished(env):
                    raise
            else:
                if not (results.get("failed") and vanished(env)):
                    return results
            log.warning(
                "Something has vanished from %s that this run had found there; it is computed again.", env.store
            )
        return self.body(spec, env)


def vanished(env: Env) -> bool:
    """Whether something that a run has found or made is no longer there, or no longer whole."""
    store = opened(env)
    return any(store.find(stage, key) is None for stage, key in noted(env.store, env.run))
