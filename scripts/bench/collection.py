"""What collecting garbage costs: time, memory and calls by the size of a bucket, beside docker-registry, and what it
takes from those who pull and push meanwhile."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import bootstraps
from contests import ACCEPT, DOCKER_REGISTRY, MOORAGE
from load import Sample, Target, Unexpected, requests_per_second
from servers import get
from tree import MANIFEST_TYPE, Tree, image, into_folder

SIZES = (10_000, 100_000, 1_000_000)
"""Objects of the buckets that are only served from memory."""
ON_DISK = 100_000
"""Objects of the bucket that is written to a disk, so that docker-registry reads it as well."""
PARALLEL = "--parallel=8"
NAME, TAG = "library/bench", "latest"

IDLE = ("chrt", "--idle", "0")
"""Starts a program that runs only while a processor has nothing else to do."""

FIRST, LATER = "first run", "manifests remembered"
ALONE, BESIDE, APART = "alone", "beside a collection", "beside one on idle time"


@dataclass
class Run:
    """One process that ran to its end."""

    seconds: float
    mebibytes: float
    """The most memory that it held."""
    calls: int | None = None
    """How many calls the store got meanwhile, where it counts them."""


@dataclass
class Collection:
    """A dry run by one program of one bucket."""

    work: str
    objects: int
    subject: str
    runs: list[Run] = field(default_factory=list)

    def median(self, what):
        return statistics.median(getattr(run, what) for run in self.runs)


@dataclass
class Disturbance:
    """Work that is done beside a collection and alone, by turns."""

    work: str
    unit: str
    samples: dict[str, list[Sample]]

    def median(self, how):
        return statistics.median(sample.value for sample in self.samples[how])


def measure(settings, servers, folder, tell):
    """Everything. Gives the collections, and the disturbances."""
    collections = []
    for objects in SIZES:
        collections += _by_size(settings, servers, objects, tell)
    bucket = folder / "collected/registry"
    bucket.mkdir(parents=True)
    tell(f"writing {ON_DISK:,} objects")
    made = _made(["--objects", str(ON_DISK), "--write", bucket])
    collections += _beside_docker_registry(settings, servers, made, bucket, tell)
    return collections, _disturbances(settings, servers, bucket, tell)


def _made(options):
    """Has a registry written. Gives what there is."""
    command = [os.environ["MOORAGE_SYNTHETIC_BUCKET"], *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def _by_size(settings, servers, objects, tell):
    """Dry runs of a bucket in memory: before its manifests are remembered, and then."""
    port, made = servers.synthetic_bucket(objects)
    count = made["total"]["objects"]
    found = {work: Collection(work, count, MOORAGE) for work in (FIRST, LATER)}
    for work, collection in found.items():
        if work == LATER:
            # It notes what is garbage, remembers manifests, and removes nothing yet.
            tell(f"{count:,} objects: remembering manifests")
            _run([*_gc(port), "--apply", "--trash=off"])
        for number in range(settings.rounds):
            tell(f"round {number + 1} of {settings.rounds}: {count:,} objects, {work}")
            before = _calls(port)
            run = _run(_gc(port))
            run.calls = _calls(port) - before
            collection.runs.append(run)
    return [*found.values()]


def _beside_docker_registry(settings, servers, made, bucket, tell):
    """Dry runs of the same folder by both programs, by turns."""
    port, count = servers.blob_store(bucket.parent), made["total"]["objects"]
    config = servers.folder / "collected.yaml"
    config.write_text(
        "version: 0.1\n"
        "log: { level: error }\n"
        f"storage: {{ filesystem: {{ rootdirectory: '{bucket}' }} }}\n"
    )
    commands = {
        MOORAGE: _gc(port),
        DOCKER_REGISTRY: ["docker-registry", "garbage-collect", "--dry-run", config],
    }
    found = {who: Collection(f"{FIRST}, a folder", count, who) for who in commands}
    for number in range(settings.rounds):
        for who, command in commands.items():
            tell(f"round {number + 1} of {settings.rounds}: {count:,} objects in a folder, {who}")
            found[who].runs.append(_run(command))
    return [*found.values()]


def _gc(port):
    """The command line of a collection that only tells what it would do."""
    endpoint = f"http://127.0.0.1:{port}"
    program = [os.environ["MOORAGE_CLI"], "gc"]
    return [*program, "--summary", "--endpoint", endpoint, "--no-sign-request", PARALLEL]


def _calls(port):
    return sum(json.loads(get(port, "/_calls")).values())


def _run(command):
    """Runs a command to its end, which must be a good one."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        complaints = []
        reader = threading.Thread(target=lambda: complaints.append(process.stderr.read()))
        reader.start()
        start, peak = time.perf_counter(), 0.0
        while process.poll() is None:
            # Taken again and again: it is gone with the process.
            peak = max(peak, _peak_of(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        seconds = time.perf_counter() - start
        reader.join()
    if process.returncode != 0:
        raise Unexpected(f"{command}: {process.returncode} {complaints[0][-500:]!r}")
    return Run(seconds, peak)


def _peak_of(process):
    """The most memory that a process has held so far, in MiB."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def _disturbances(settings, servers, bucket, tell):
    """Pulls and pushes through an Envoy, alone and beside collections that go on all the time.

    All share the few cores of one machine, where a collection takes from the others what it computes itself. So it is
    measured once more with the collection, and a store that serves it, on time that nobody else wants: what is left then
    is nearer to what a collection on another machine costs.
    """
    content = os.urandom(1024 * 1024)
    tree = Tree(into_folder(bucket))
    layer = tree.blob(NAME, content)
    manifest = tree.manifest(NAME, image([layer], layer))
    tree.tags(NAME, [TAG], manifest["digest"])
    store, other_store = (servers.blob_store(bucket.parent, prefix) for prefix in ((), IDLE))
    port, _ = servers.envoy("collected", bootstraps.moorage(store, settings.wasm))

    def pulls(path):
        target = Target(port, path, headers=(ACCEPT,))
        return partial(requests_per_second, target, 16, settings.seconds)

    works = [
        ("manifest by digest, pull", "requests/s", pulls(f"/v2/{NAME}/manifests/{manifest['digest']}")),
        ("manifest by tag, pull", "requests/s", pulls(f"/v2/{NAME}/manifests/{TAG}")),
        ("blob of 1 MiB, pull", "requests/s", pulls(f"/v2/{NAME}/blobs/{layer['digest']}")),
        ("image of one small layer, push", "images/s", partial(_pushes, port, settings.seconds)),
    ]
    ways = {
        ALONE: contextlib.nullcontext,
        BESIDE: partial(_collecting, bucket, store, ()),
        APART: partial(_collecting, bucket, other_store, IDLE),
    }
    found = [Disturbance(work, unit, {way: [] for way in ways}) for work, unit, _ in works]
    for number in range(settings.rounds):
        for disturbance, (work, _, act) in zip(found, works):
            tell(f"round {number + 1} of {settings.rounds}: {work}, alone and beside a collection")
            # Another first each time: what is pushed stays, and the machine has other work.
            order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
            for way in order:
                with ways[way]():
                    disturbance.samples[way].append(act())
    return found


@contextlib.contextmanager
def _collecting(bucket, port, prefix):
    """Has garbage collected over and over for as long as the `with` lasts, without what an earlier run remembered."""
    ended, begun, failures = threading.Event(), [], []
    command = [*prefix, *_gc(port), "--apply"]

    def repeat():
        while not ended.is_set():
            # The first run reads all manifests. So each is a first run.
            shutil.rmtree(bucket / "moorage/gc", ignore_errors=True)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            begun.append(process)
            if ended.is_set():
                process.terminate()
            _, complaint = process.communicate()
            if process.returncode != 0 and not ended.is_set():
                failures.append(complaint)
                return

    repeating = threading.Thread(target=repeat)
    repeating.start()
    try:
        yield
    finally:
        ended.set()
        for process in begun:
            process.terminate()
        repeating.join()
    if failures:
        raise Unexpected(f"{command}: {failures[0][-500:]!r}")


def _pushes(port, seconds):
    """Pushes images that were never there before, one after another. Gives how many a second."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def send(method, path, body, headers=None):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 201:
            raise Unexpected(f"{method} {path}: {response.status} {answer[:300]!r}")

    pushed, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        content = random.randbytes(4096)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        send("POST", f"/v2/{NAME}/blobs/uploads/?digest={digest}", content)
        layer = {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}
        headers = {"Content-Type": MANIFEST_TYPE}
        send("PUT", f"/v2/{NAME}/manifests/pushed", image([layer], layer), headers)
        pushed += 1
    rate = pushed / (time.perf_counter() - start)
    connection.close()
    return Sample(rate)
