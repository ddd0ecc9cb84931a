"""`python -m tests.faults.fuzz [ENTRY…] --minutes 30`: hostile input, which ends in success or in a clean InputError.

Hypothesis draws what is broken and makes each find small; every round has a seed of its own and runs in a process of its own,
so that a library's crash is a find as well. It is not guided by coverage: random bits seldom pass a checksum, so what is
drawn is broken where it is read first, and in values rather than in bits wherever a file holds JSON.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from featcx_core.errors import InputError
from tests.faults.mutations import mutated, small_files

ROOM = 12 << 30  # bytes of addresses that a round may take
TEXT = st.text(max_size=12) | st.sampled_from(["..", "nan", "1e400", "os:system", "timm:x", "torchvision:x", "a" * 300])
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
EDITS = st.lists(
    st.tuples(st.sampled_from(["flip", "write", "cut", "insert", "repeat"]), st.floats(0, 1), st.binary(max_size=8)),
    min_size=1,
    max_size=4,
)


def clean(entry: Callable[[], Any]) -> None:
    """Whether it succeeds, or is refused in a sentence or two."""
    try:
        entry()
    except InputError as error:
        text = str(error)
        assert text.strip(), "an empty sentence"
        assert len(text) < 2000, f"a sentence of {len(text)} letters: {text[:200]}"


def edited(data: bytes, edits: Iterable[tuple[str, float, bytes]]) -> bytes:
    """Bytes with some of them flipped, written over, cut off, put in between or said twice."""
    out = bytearray(data)
    for kind, share, piece in edits:
        at = int(share * len(out))
        if kind == "flip" and at < len(out):
            out[at] ^= 1 << (piece[0] % 8 if piece else 0)
        elif kind == "write":
            out[at : at + len(piece)] = piece
        elif kind == "cut":
            del out[at:]
        elif kind == "insert":
            out[at:at] = piece
        elif kind == "repeat":
            out[at:at] = out[at : at + 64]
    return bytes(out)


def paths_in(model: Any, before: str = "") -> list[str]:
    """The paths of all fields of a spec and of those within it."""
    from pydantic import BaseModel

    found = []
    for name, field in model.model_fields.items():
        found.append(before + name)
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += paths_in(kind, f"{before}{name}.")
    return found


def spec(folder: Path) -> Callable[[Any], None]:
    """Settings: values of any kind in any fields, from a file or a form; texts after --set; files of any bytes."""
    from featcx_core.specs import RunSpec, SweepSpec, validated
    from flows.asked import Asked
    from flows.settings import changed_preset, load_spec, nest

    presets = st.sampled_from(["digits", "mnist", "cifar10-paper", "nope", "../digits", "/etc/passwd"])
    paths = st.sampled_from(paths_in(RunSpec)) | TEXT.filter(bool)
    file = folder / "settings.toml"
    whole = b'seed = 1\n[target]\nsamples = 200\n[disentangler]\nblocks = [1, 2]\nprotocol = "fast"\n'

    def one(data: Any) -> None:
        kind = data.draw(st.sampled_from(["values", "texts", "bytes", "sweep"]))
        if kind == "values":
            changes = data.draw(st.lists(st.tuples(paths, VALUE), min_size=1, max_size=3))
            clean(lambda: changed_preset(data.draw(presets), *(nest(path, value) for path, value in changes)))
        elif kind == "texts":
            texts = data.draw(st.lists(st.builds("{}={}".format, paths, TEXT | VALUE.map(str)) | TEXT, max_size=3))
            clean(lambda: load_spec("digits", None, texts))
        elif kind == "bytes":
            file.write_bytes(edited(whole, data.draw(EDITS)))
            clean(lambda: load_spec("digits", file))
        else:
            over = data.draw(st.lists(st.builds("{}={}".format, paths, TEXT) | TEXT, max_size=2))
            given_texts = data.draw(
                st.fixed_dictionaries({}, optional=dict.fromkeys(("sizes", "archs", "seeds"), TEXT))
            )
            clean(lambda: Asked("digits", over=over, **given_texts).sweep())
            clean(lambda: validated(SweepSpec, data.draw(st.dictionaries(TEXT | st.just("base"), VALUE, max_size=2))))

    return one


def parquet(folder: Path) -> Callable[[Any], None]:
    """Data sets in Parquet: broken bytes, columns of other types, what a file says of its own columns."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from featcx_core.data.sources import load_dataset, split_sizes
    from featcx_core.specs import DatasetSpec

    chance = np.random.default_rng(0)
    blobs = [picture(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8), "PNG") for _ in range(20)]
    labels = [i % 2 for i in range(20)]
    features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    columns = st.sampled_from([labels, blobs, ["a", "b"] * 10, [0.5, float("nan")] * 10, [None] * 20, [[1]] * 20])
    odd = st.sampled_from([labels, [-1] * 20, [0, 10**12] * 10, [0] * 20, [True, False] * 10, [2**63 - 1, 0] * 10])

    def write(path: Path, images: Any, numbers: Any, meta: Any) -> bytes:
        images = [{"bytes": blob, "path": None} for blob in images] if images is blobs else images
        table = pa.table({"image": images, "label": numbers})
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": meta}})}), path)
        return path.read_bytes()

    train, test = folder / "train.parquet", folder / "test.parquet"
    whole = write(train, blobs, labels, features)
    test.write_bytes(whole)

    def one(data: Any) -> None:
        if data.draw(st.booleans()):
            train.write_bytes(edited(whole, data.draw(EDITS)))
        else:
            meta = data.draw(VALUE | st.fixed_dictionaries({"image": VALUE, "label": st.dictionaries(TEXT, VALUE)}))
            write(train, data.draw(st.just(blobs) | columns), data.draw(odd | columns), meta)
        wanted = data.draw(st.fixed_dictionaries({}, optional={"image": TEXT, "size": st.sampled_from([8, 16])}))
        source = DatasetSpec(source=f"parquet:{folder}", **wanted)
        clean(lambda: split_sizes(source, 2))
        clean(lambda: load_dataset(source))

    return one


def picture(pixels: Any, kind: str, **how: Any) -> bytes:
    """Pixels in the bytes of a file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **how)
    return buffer.getvalue()


def image(folder: Path) -> Callable[[Any], None]:
    """Pictures of every kind that Pillow reads here."""
    import numpy as np

    from featcx_core.data.decoding import channels_of, decode

    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    kinds = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000", "ICO", "DIB", "PCX")
    files = [picture(pixels, kind) for kind in kinds] + [picture(pixels[..., 0], kind) for kind in kinds[:5]]
    files.append(picture(pixels[..., 0].astype(np.uint16) * 257, "PNG"))

    def one(data: Any) -> None:
        blob = edited(data.draw(st.sampled_from(files)), data.draw(EDITS))
        size, fit = data.draw(st.sampled_from([None, 8])), data.draw(st.sampled_from(["crop", "pad", "stretch"]))
        clean(lambda: decode(blob, "it", size, fit))
        channels_of(blob)

    return one


def checkpoint(folder: Path) -> Callable[[Any], None]:
    """Weights from elsewhere, and the checkpoints of trainings."""
    import torch
    from safetensors.torch import save_file

    from featcx_core.nets.checkpoints import fitted, read_checkpoint
    from featcx_core.training.checkpoint import Checkpoint, read, write

    own = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2), "n.num_batches_tracked": torch.tensor(1)}
    torch.save({"state_dict": own, "epoch": 3}, folder / "it")
    zipped = (folder / "it").read_bytes()
    torch.save(own, folder / "it", _use_new_zipfile_serialization=False)
    legacy = (folder / "it").read_bytes()
    save_file(own, folder / "it", {"key": "k"})
    safe = (folder / "it").read_bytes()
    saved = Checkpoint(folder / "training", "key")
    write(saved, own, 3, [1.0])
    kept = (saved.folder / "checkpoint.safetensors").read_bytes()
    header = json.loads(safe[8 : 8 + int.from_bytes(safe[:8], "little")])
    body = safe[8 + int.from_bytes(safe[:8], "little") :]

    def one(data: Any) -> None:
        path = folder / "weights"
        kind = data.draw(st.sampled_from(["bytes", "bytes", "header", "training"]))
        if kind == "training":
            (saved.folder / "checkpoint.safetensors").write_bytes(edited(kept, data.draw(EDITS)))
            clean(lambda: read(saved))
            return
        if kind == "header":
            head = mutated(json.dumps(header).encode(), random.Random(data.draw(st.integers(0, 10**9))))
            path.write_bytes(len(head).to_bytes(8, "little") + head + body)
        else:
            path.write_bytes(edited(data.draw(st.sampled_from([zipped, legacy, safe])), data.draw(EDITS)))
        clean(lambda: fitted(read_checkpoint(path), own, path))

    return one


def finished(folder: Path) -> Path:
    """A store of a data set, a target and a report, with the notes, locks and records of a run."""
    from tests.core.store.test_trust import made

    store, refs = made(folder)
    for ref in refs.values():
        record = store.root / ".prefect" / "results" / f"{ref.stage}-{ref.key}"
        record.parent.mkdir(parents=True, exist_ok=True)
        told = {"metadata": {"serializer": {"type": "json"}, "expiration": None}, "result": ref.model_dump_json()}
        record.write_text(json.dumps(told))
    return store.root


def store(folder: Path, given_store: Path | None = None) -> Callable[[Any], None]:
    """Every field of every manifest, note, lock and record: nothing outside is touched, nothing wrong is found."""
    from featcx_core.store.artifacts import ArtifactRef, Store
    from featcx_core.store.pruning import left_over, remove, superfluous

    if given_store is None:
        place = finished(folder)
    else:
        place = folder / "store"
        shutil.copytree(given_store, place)
    kept = folder / "kept"
    shutil.copytree(place, kept)
    whole = Store(place)
    refs = [ArtifactRef(stage=m["stage"], key=m["key"], digest=m["digest"]) for m in whole.manifests()]
    small = [path.relative_to(kept) for path in small_files(kept)]
    before = _outside(folder)

    def one(data: Any) -> None:
        chance = random.Random(data.draw(st.integers(0, 10**9)))
        name = chance.choice(small)
        (place / name).write_bytes(mutated((kept / name).read_bytes(), chance))
        for ref in refs:
            found = whole.find(ref.stage, ref.key)
            assert found is None or found == ref, name
        whole.verify()
        whole.lineage(refs)
        for m in whole.manifests():
            assert whole.resolve(f"{m['stage']}/{m['key']}") == m
        clean(lambda: opened(place))
        scraps = left_over(whole, older_than=-1)
        assert all(path.resolve().is_relative_to(place.resolve()) for path in scraps)
        if chance.random() < 0.1:
            remove(whole, superfluous(whole, chance.choice([0, 1, None]), chance.choice([0, None])), scraps)
            shutil.rmtree(place)
            shutil.copytree(kept, place)
        else:
            superfluous(whole, 0, None)
            shutil.copytree(kept / ".checks", place / ".checks", dirs_exist_ok=True)
            shutil.copy2(kept / name, place / name)
        assert _outside(folder) == before

    return one


def opened(store: Path) -> None:
    """As a notebook and other commands open what a store holds."""
    from featcx_core.notebook.opening import open_run
    from flows.compare import networks_of

    clean(lambda: open_run(store))
    networks_of(store, "1", "2")


def _outside(folder: Path) -> dict[Path, bytes]:
    """What lies beside the store."""
    beside = [path for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in ("store", "kept")]
    return {path: path.read_bytes() if path.is_file() else b"" for path in beside}


ENTRIES: dict[str, Callable[..., Callable[[Any], None]]] = {
    entry.__name__: entry for entry in (spec, parquet, image, checkpoint, store)
}


def fuzz(name: str, count: int, seed: int, **how: Any) -> None:
    """So many cases of an entry point.

    Raises:
        AssertionError, Exception: whatever the first find that is no clean refusal is, made small.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        one = ENTRIES[name](Path(folder), **how)

        @seeded(seed)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(st.data())
        def cases(data: Any) -> None:
            one(data)

        cases()


def _round(name: str, count: int, seed: int, how: dict[str, Any]) -> None:
    """One round, in a process of its own."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
    fuzz(name, count, seed, **how)


def main() -> int:
    """1 when something was found."""
    asked = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    asked.add_argument("entries", nargs="*", default=list(ENTRIES), help=", ".join(ENTRIES))
    asked.add_argument("--minutes", type=float, default=30, help="no round begins later")
    asked.add_argument("--count", type=int, default=500, help="cases of a round")
    asked.add_argument("--rounds", type=int, default=10**9, help="of each entry point, at most")
    asked.add_argument("--seed", type=int, default=0, help="of the first round")
    asked.add_argument("--store", type=Path, help="a finished run's store, for the entry store")
    given_ = asked.parse_args()
    until, finds, done = time.monotonic() + 60 * given_.minutes, 0, dict.fromkeys(given_.entries, 0)
    fork = multiprocessing.get_context("fork")
    for number in range(given_.rounds):
        for name in given_.entries:
            if time.monotonic() > until:
                break
            how = {"given_store": given_.store} if name == "store" and given_.store else {}
            one = fork.Process(target=_round, args=(name, given_.count, given_.seed + number, how))
            one.start()
            one.join()
            done[name] += given_.count
            if one.exitcode:
                finds += 1
                print(f"{name}, seed {given_.seed + number}: ended with {one.exitcode}", flush=True)
        if time.monotonic() > until:
            break
    print(", ".join(f"{count:,} cases of {name}" for name, count in done.items()), f"{finds} finds", sep="; ")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
