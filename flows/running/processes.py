"""Stages in processes of their own."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import forkserver
from typing import Any, Self
from unittest.mock import patch

from prefect.task_runners import ProcessPoolTaskRunner
from prefect.utilities.engine import resolve_inputs_sync

from flows.running.embedded import save_trainings
from tasks.devices import Turns

# What takes seconds to import: torch._dynamo comes with the first optimiser, the report's module with figures and statistics.
NEEDED = ["torch._dynamo", "prefect.task_engine", "featcx_core.report.sweep.page", "flows.recipes"]


class ProcessPool(ProcessPoolTaskRunner):
    """Prefect's pool of processes, for a DAG of short stages.

    1. Every stage waits for its inputs in a thread of its own. Prefect has as many threads as processes, first come first
       served, so that the stages of one chain keep those of all others from starting.
    2. The processes are forked from one that has imported what stages need, which takes each of them seconds otherwise; not
       where there is a GPU, which a forked process might not reach.
    3. All start at once, and end with the run however it ends. Prefect starts one when a stage finds none idle, and a run
       that is killed leaves them behind.
    4. A stage goes to the processes when one is free, the first in the recipe first. Prefect queues them as they come.

    5. What the processes tell is handed on with the run's own settings. In a thread of its own Prefect knows of no address
       and starts one more server for it, which outlives a run that is killed.

    It reaches for attributes that Prefect and Python keep to themselves (`_resolver_executor`, `_executor`, `_mp_context`,
    `_forward_subprocess_messages`).
    """

    def __enter__(self) -> Self:
        first = multiprocessing.parent_process() is None  # a stage enters its flow's runner as well, in its own process
        if first:
            self._initializer = get_ready
        self._own = contextvars.copy_context()
        super().__enter__()
        self._resolver_executor = ThreadPoolExecutor(max_workers=10_000)
        self._turns = Turns(self._max_workers)
        if first and self._executor is not None:
            if can_fork():
                self._executor._mp_context = forking_context()
            for _ in range(self._max_workers):
                self._executor.submit(os.getpid)
        return self

    def _forward_subprocess_messages(self, *given: Any, **named: Any) -> None:
        self._own.run(super()._forward_subprocess_messages, *given, **named)

    def _resolve_futures_and_submit(self, *given: Any, **submitted: Any) -> Future[bytes]:
        submitted["parameters"] = resolve_inputs_sync(submitted["parameters"], return_data=True, max_depth=-1)
        give_back = self._turns.take(submitted["parameters"]["env"].turn)
        try:
            future = super()._resolve_futures_and_submit(*given, **submitted)
        except BaseException:
            give_back()
            raise
        future.add_done_callback(lambda _: give_back())
        return future

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if multiprocessing.parent_process() is None:
            forkserver._forkserver._stop()  # type: ignore[attr-defined]  # a later run may find other code and settings


def can_fork() -> bool:
    """Whether a process may be forked from one that has imported torch."""
    import torch

    return "forkserver" in multiprocessing.get_all_start_methods() and not torch.cuda.is_available()


def forking_context() -> Any:
    """Starts the process to fork from. It finds modules where this one does, and not in the working directory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(NEEDED)
    where = os.pathsep.join(path or os.getcwd() for path in sys.path)
    with patch.dict(os.environ, {"PYTHONSAFEPATH": "1", "PYTHONPATH": where}):
        forkserver.ensure_running()
    return context


def get_ready() -> None:
    """A process's first act: it imports what it was not forked with, and prepares to end with the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal's Ctrl-C the run is told as well
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    with contextlib.suppress(Exception):  # the stage that needs it will say so
        for name in NEEDED:
            importlib.import_module(name)


def _end_with_the_run() -> None:
    run = multiprocessing.parent_process()
    if run is not None:
        run.join()
        save_trainings()
        os._exit(1)
