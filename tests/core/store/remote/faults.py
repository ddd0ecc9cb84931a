"""Faults of a remote, made on purpose: each ends in a miss or a sentence, never in wrong bytes, never in a hang.

`python -m tests.core.store.remote.faults --count 10` makes each of them so often and prints a table of what came of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from featcx_core.errors import InputError
from featcx_core.store.artifacts import ArtifactRef, Store
from featcx_core.store.remote.address import Address
from featcx_core.store.remote.envelope import envelope_name
from featcx_core.store.remote.upkeep import faults as told_faults
from featcx_core.store.remote.upkeep import inventory
from tests.core.store.remote.homes import KEYS, SHORT, content, home, publish, sent
from tests.core.store.remote.servers import BUCKET, CREDENTIALS, Breaker, Rule, s3_server

ENVELOPE = f"{KEYS['net']}.json"
HANG = 30.0  # seconds; patience is a second here, so that nothing sensible takes longer
Spoil = Callable[[Address, ArtifactRef], None]


class Fault(NamedTuple):
    """Something that goes wrong.

    Attributes:
        rule: for the server between.
        spoil: changes what lies at the remote.
        words: of the sentence; none for what further tries mend.
        mended: whether further tries mend it.
        sends: it happens to who sends, not to who fetches.
    """

    rule: Callable[[], Rule] = lambda: lambda method, path: None
    spoil: Spoil = lambda address, ref: None
    words: str = ""
    mended: bool = False
    sends: bool = False


class Outcome(NamedTuple):
    """What came of a fault."""

    seconds: float
    right: bool
    missed: bool
    told: list[str]
    broken: int


def always(fault: str, where: str = "", method: str = "") -> Callable[[], Rule]:
    """On every request whose path holds `where`."""
    return lambda: lambda m, path: fault if where in path and method in ("", m) else None


def once(fault: str, where: str = "", method: str = "") -> Callable[[], Rule]:
    """On the first such request alone."""

    def fresh() -> Rule:
        left = itertools.count()
        return lambda m, path: fault if where in path and method in ("", m) and next(left) == 0 else None

    return fresh


def no_listing() -> Rule:
    """Forbids listing; then S3 says 'denied' for what is not there, too."""

    def rule(method: str, path: str) -> str | None:
        return "denied" if "list-type" in path or KEYS["report"] in path else None

    return rule


def _payload(address: Address, ref: ArtifactRef) -> str:
    return next(e.name for e in address.list(f"artifacts/{ref.stage}/{ref.key}") if e.name.endswith("payload.bin"))


def tampered(address: Address, ref: ArtifactRef) -> None:
    """One byte of the payload differs; its size does not."""
    name = _payload(address, ref)
    data = bytearray(address.read(name, 0, 1 << 24))
    data[len(data) // 2] ^= 1
    address.create(bytes(data), name, over=True)


def shortened(address: Address, ref: ArtifactRef) -> None:
    """The payload ends half-way."""
    name = _payload(address, ref)
    address.create(address.read(name, 0, 1000), name, over=True)


def vanished(address: Address, ref: ArtifactRef) -> None:
    """The payload is gone, the envelope is there."""
    address.remove(_payload(address, ref))


def torn(address: Address, ref: ArtifactRef) -> None:
    """Half an envelope."""
    name = envelope_name(ref.stage, ref.key)
    address.create(address.read(name, 0, 300), name, over=True)


def strange(address: Address, ref: ArtifactRef) -> None:
    """A manifest that names a file outside its folder."""
    name = envelope_name(ref.stage, ref.key)
    whole = json.loads(address.read(name, 0, 1 << 20))
    manifest = json.loads(whole["manifest"])
    del manifest["seal"]  # which is against chance alone
    manifest["files"]["../../../outside"] = manifest["files"].pop("empty")
    whole["manifest"] = json.dumps(manifest)
    address.create(json.dumps(whole).encode(), name, over=True)


def moved(address: Address, ref: ArtifactRef) -> None:
    """The envelope of another artifact in the place of this one."""
    other = address.read(envelope_name("data", KEYS["data"]), 0, 1 << 20)
    address.create(other, envelope_name(ref.stage, ref.key), over=True)


FAULTS = {
    "the connection is cut in a file, once": Fault(once("cut", "payload"), mended=True),
    "the connection is cut in a file, always": Fault(always("cut", "payload"), words="does not answer"),
    "503, once": Fault(once("503"), mended=True),
    "503, always": Fault(always("503"), words="does not answer"),
    "500 on files": Fault(always("500", "payload"), words="does not answer"),
    "answers that take too long": Fault(always("slow"), words="does not answer"),
    "a file that trickles": Fault(always("trickle", "payload"), words="does not answer"),
    "expired credentials": Fault(always("expired"), words="have expired; renew"),
    "credentials that are not known": Fault(always("unknown"), words="does not accept these credentials"),
    "a clock that is wrong": Fault(always("skewed"), words="clock"),
    "no such bucket": Fault(always("bucket"), words="no bucket"),
    "a bucket that forbids listing": Fault(lambda: no_listing(), mended=True),
    "a file that may not be read": Fault(always("denied", "payload"), words="does not allow"),
    "a tampered file": Fault(spoil=tampered, words="is not what its manifest says"),
    "a file that was cut short": Fault(spoil=shortened, words="ends too soon"),
    "a file that vanishes between list and get": Fault(spoil=vanished, words="is missing"),
    "a torn envelope": Fault(spoil=torn, words="does not count"),
    "a manifest that leads outside": Fault(spoil=strange, words="leads out"),
    "another artifact's envelope": Fault(spoil=moved, words="another place"),
    "sending: cut, once": Fault(once("cut up", "payload", "PUT"), mended=True, sends=True),
    "sending: cut, always": Fault(always("cut up", "payload", "PUT"), words="could not be sent", sends=True),
    "sending: 503 on envelopes": Fault(always("503", ENVELOPE, "PUT"), words="could not be sent", sends=True),
    "sending: no 'only if it is not there'": Fault(once("501", ENVELOPE, "PUT"), mended=True, sends=True),
    "sending: expired credentials": Fault(always("expired", "", "PUT"), words="have expired", sends=True),
    "sending: not allowed": Fault(always("denied", "", "PUT"), words="does not allow", sends=True),
}


def made(fault: Fault, url: str, server: str, breaker: Breaker, folder: Path) -> Outcome:
    """Makes a fault happen to a machine that fetches, or sends, what another has sent, or fetches."""
    clean, dirty = folder / "clean", folder / "dirty"
    breaker.rule, breaker.broken = lambda method, path: None, 0
    if fault.sends:
        return _sending(fault, url, server, breaker, clean, dirty)
    os.environ["AWS_ENDPOINT_URL"] = server
    a = home(clean, url)
    refs = sent(a)
    fault.spoil(a.remote.address, refs["net"])
    os.environ["AWS_ENDPOINT_URL"] = breaker.url
    breaker.rule = fault.rule()
    b, began, got = home(dirty, url, SHORT), time.monotonic(), None
    ref = b.find("net", KEYS["net"])
    if ref is not None:
        try:
            got = content(b.path(ref))
        except FileNotFoundError:
            assert b.find("net", KEYS["net"]) is None  # from then on it is missing
    seconds = time.monotonic() - began
    right = got is None or got == content(a.path(refs["net"]))
    assert Store(dirty).verify() == []
    assert not (folder / "outside").exists()
    again = publish(b, "net", data=publish(b, "data"))  # a miss is computed, to the same bytes
    assert again.digest == refs["net"].digest
    return Outcome(seconds, right, got is None, b.journal.summary()["told"], breaker.broken)


def _sending(fault: Fault, url: str, server: str, breaker: Breaker, clean: Path, dirty: Path) -> Outcome:
    os.environ["AWS_ENDPOINT_URL"] = breaker.url
    a, reader_root = home(dirty, url, SHORT), clean
    ref = publish(a, "net")
    breaker.rule, began = fault.rule(), time.monotonic()
    done = a.send("net", ref.key)
    seconds = time.monotonic() - began
    os.environ["AWS_ENDPOINT_URL"] = server
    reader = home(reader_root, url)
    found = reader.find("net", ref.key)
    right = found is None or content(reader.path(found)) == content(a.path(ref))
    assert (done is None) == (found is None)  # nobody sees what was not sent whole
    assert (a.due / f"net-{ref.key}").exists() == (done is None)
    broken, told = breaker.broken, a.journal.summary()["told"]
    later = home(dirty, url)  # with the fault gone it is sent
    assert later.send("net", ref.key) is not None
    assert home(clean.with_name("later"), url).find("net", ref.key) == ref
    return Outcome(seconds, right, found is None, told, broken)


def listing_is_told(url: str, breaker: Breaker) -> str:
    """What who forbids listing is told by what needs it."""
    os.environ["AWS_ENDPOINT_URL"] = breaker.url
    breaker.rule = no_listing()
    with tempfile.TemporaryDirectory() as folder:
        try:
            inventory(home(Path(folder), url).remote)
        except InputError as error:
            return str(error)
    return ""


def main() -> None:
    """Makes every fault so often, and prints a line each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=5)
    count, numbers = parser.parse_args().count, itertools.count()
    os.environ |= CREDENTIALS
    print("| fault | made | requests broken | survived | missed, told | wrong results | hangs | longest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with s3_server() as server, Breaker(server) as breaker:
        for name, fault in FAULTS.items():
            found = list[Outcome]()
            for _ in range(count):
                with tempfile.TemporaryDirectory() as folder:
                    found.append(made(fault, f"s3://{BUCKET}/f{next(numbers)}", server, breaker, Path(folder)))
            missed = sum(o.missed and any(fault.words in text for text in o.told) for o in found)
            whole = sum(not o.missed and o.right for o in found)
            wrong, hangs = sum(not o.right for o in found), sum(o.seconds > HANG for o in found)
            longest, broken = max(o.seconds for o in found), sum(o.broken for o in found)
            cells = (name, count, broken, whole, missed, wrong, hangs, f"{longest:.1f} s")
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()

__all__ = ["FAULTS", "HANG", "listing_is_told", "made", "told_faults"]
