"""What a run has to do with its remote beside its stages: sends what they make meanwhile, and tells what came of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from featcx_core.store.artifacts import Store
from tasks.env import Env, opened


@contextlib.contextmanager
def publishing(env: Env) -> Iterator[dict[str, Any]]:
    """Sends what the block makes; what it gives holds, after the block, what the run had of its remote, if it has one."""
    store: Store = opened(env)
    told = dict[str, Any]()
    if not env.remote or type(store) is Store:
        yield told
        return
    from featcx_core.store.remote.outbox import sending
    from featcx_core.store.remote.shared import SharedStore

    assert isinstance(store, SharedStore)
    with sending(store, env.patient, lambda text: print(text, file=sys.stderr, flush=True)):
        yield told
    told["remote"] = {"url": store.remote.url, **store.journal.summary()}


def remote_line(told: dict[str, Any]) -> str:
    """'s3://team/cache: 40 stages found there, 1.2 MB fetched; 3 sent, 0.4 MB.'"""
    sent = f"{told['sent']} sent, {told['bytes_sent'] / 1e6:.1f} MB"
    refused = f"; {told['refused']} refused" if told["refused"] else ""
    fetched = f"{told['found']} stages found there, {told['bytes_fetched'] / 1e6:.1f} MB fetched"
    return f"{told['url']}: {fetched}; {sent}{refused}."
