"""An edge node: blobs from its disk, and blobs that it has to fetch first, beside a store that is near and one that is far."""

import os
import time
from pathlib import Path

import bootstraps
from contests import DISTANT, MOORAGE, PLAIN, Cell, Contest
from load import Sample, Target, curl, megabytes_per_second, requests_per_second
from tree import content_key

MEBIBYTE = 1024 * 1024
FETCHED = 64 * MEBIBYTE
SMALL, LARGE = "edge: blob of 1 MiB from its disk", "edge: blob of 256 MiB from its disk"


def contests(servers, store, tree, wasm, name, seconds):
    """The contests of an edge node, whose store is at a distance, with plain Envoys before the same store, near and far."""
    far = servers.distance(store)
    folder = servers.folder / "edge"
    folder.mkdir()
    edge, _ = servers.envoy("edge", bootstraps.edge(far, wasm, folder))
    near_plain, _ = servers.envoy("plain-near", bootstraps.plain(store))
    far_plain, _ = servers.envoy("plain-far", bootstraps.plain(far))

    def targets(blob):
        content = f"/registry/{content_key(blob['digest'])}"
        return {
            MOORAGE: Target(edge, f"/v2/{name}/blobs/{blob['digest']}"),
            PLAIN: Target(near_plain, content),
            DISTANT: Target(far_plain, content),
        }

    def kept(size):
        found = targets(tree.blob(name, os.urandom(size)))
        _keep(found[MOORAGE], folder, size)
        return found.items()

    def small():
        cells = {who: Cell(_requests(target, seconds)) for who, target in kept(MEBIBYTE)}
        return Contest(SMALL, 16, "requests/s", cells)

    def large():
        size = 256 * MEBIBYTE
        cells = {who: Cell(_transfers(target, size, seconds)) for who, target in kept(size)}
        return Contest(LARGE, 1, "MB/s", cells)

    def fetch(who):
        def measure():
            blob = tree.blob(name, os.urandom(FETCHED))
            return Sample(FETCHED / curl(targets(blob)[who].url, status=200) / 1e6)

        return Cell(measure)

    cold = {who: fetch(who) for who in (MOORAGE, PLAIN, DISTANT)}
    return [small(), large(), Contest("edge: blob of 64 MiB for the first time", 1, "MB/s", cold)]


def _keep(target, folder, size):
    """Pulls a blob for the first time, and waits until the disk has all of it."""
    before = _kept(folder)
    curl(target.url, status=200)
    deadline = time.monotonic() + 60
    while _kept(folder) < before + size:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the edge node has not kept {target.path} in {folder}")
        time.sleep(0.01)


def _kept(folder):
    return sum(path.stat().st_size for path in Path(folder).iterdir())


def _requests(target, seconds):
    return lambda: requests_per_second(target, 16, seconds)


def _transfers(target, size, seconds):
    return lambda: megabytes_per_second(size, lambda: curl(target.url, status=200), seconds)
