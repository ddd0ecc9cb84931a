"""One cache for a team: a store's artifacts at an address that any fsspec file system opens.

`address` bounds what a server can make us wait for, `envelope` says what of a stranger's answer counts, `remote` is the cache
itself, `shared` a local store with one behind it, `outbox` sends in the background, `upkeep` looks after what lies there.
"""
