"""Stages in processes of their own."""

from __future__ import annotations

import importlib
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from prefect.task_runners import ProcessPoolTaskRunner

# What takes seconds to import: torch._dynamo comes with the first optimiser, the report's module with figures and statistics.
NEEDED = ["torch._dynamo", "prefect.task_engine", "featcx_core.report_sweep", "flows.recipes"]


class ProcessPool(ProcessPoolTaskRunner):
    """Prefect's pool of processes, for a DAG of short stages.

    1. Every stage waits for its inputs in a thread of its own. Prefect has as many threads as processes, first come first
       served, so that the stages of one chain keep those of all others from starting.
    2. The processes are forked from one that has imported what stages need, which takes each of them seconds otherwise; not
       where there is a GPU, which a forked process might not reach.
    3. All start at once, while the data are read. Prefect starts one when a stage finds none idle.

    For this it sets attributes that Prefect and Python keep to themselves; where they are no longer read, the pool is
    Prefect's own, and slower.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        self._resolver_executor = ThreadPoolExecutor(max_workers=10_000)
        executor = self._executor
        if (
            executor is not None and multiprocessing.parent_process() is None
        ):  # a stage enters its flow's runner as well
            if can_fork():
                context = multiprocessing.get_context("forkserver")
                context.set_forkserver_preload(NEEDED)
                executor._mp_context = context
            for _ in range(self._max_workers):
                executor.submit(import_needed)
        return self


def can_fork() -> bool:
    """Whether a process may be forked from one that has imported torch."""
    import torch

    return "forkserver" in multiprocessing.get_all_start_methods() and not torch.cuda.is_available()


def import_needed() -> None:
    """What a process imports before its first stage, unless it was forked with it."""
    for name in NEEDED:
        importlib.import_module(name)
