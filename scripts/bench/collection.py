"""What collecting garbage costs: time, memory and calls by the size of a bucket, beside docker-registry, and what it
takes from those who pull and push meanwhile."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import resource
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import bootstraps
from contests import ACCEPT, DISTRIBUTION, DOCKER_REGISTRY, MOORAGE
from load import Sample, Target, Unexpected, ask, requests_per_second
from servers import get, s3_storage
from tree import MANIFEST_TYPE, Tree, image

SIZES = (10_000, 100_000, 1_000_000)
"""Objects of the buckets that are only served from memory."""
SHARED = 100_000
"""Objects of the bucket that is pulled from and pushed to while its garbage is collected."""
LATENCY = 10
"""How long that bucket's store waits before it answers, in milliseconds."""
ON_DISK = 100_000
"""Objects of the bucket that is written to a disk, so that docker-registry reads it as well."""
PARALLEL = "--parallel=8"
NAME, TAG = "library/bench", "latest"

FIRST, LATER = "first run", "manifests remembered"
SAME_BUCKET, SAME_FOLDER = "first run, the same bucket", "first run, the same folder"
ALONE, BESIDE = "alone", "beside a collection"


@dataclass
class Run:
    """One process that ran to its end."""

    seconds: float
    processor_seconds: float
    """What it computed itself; the work of others on the machine does not change that."""
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
    if settings.distribution:
        collections += _beside_distribution(settings, servers, tell)
    bucket = folder / "collected/registry"
    bucket.mkdir(parents=True)
    tell(f"writing {ON_DISK:,} objects")
    made = _made(["--objects", str(ON_DISK), "--write", bucket])
    collections += _beside_docker_registry(settings, servers, made, bucket, tell)
    return collections, _disturbances(settings, servers, tell)


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
            collection.runs.append(_counted(_gc(port), port))
    return [*found.values()]


def _beside_distribution(settings, servers, tell):
    """Dry runs of the same bucket by both programs, by turns. It calls the store for each object and more, so it gets the
    smallest bucket."""
    port, made = servers.synthetic_bucket(SIZES[0])
    config = _configuration(servers, "collected-s3", s3_storage(port))
    commands = {
        MOORAGE: _gc(port),
        DISTRIBUTION: [settings.distribution, "garbage-collect", "--dry-run", config],
    }
    return _by_turns(settings, SAME_BUCKET, made, commands, tell, port)


def _beside_docker_registry(settings, servers, made, bucket, tell):
    """Dry runs of the same folder by both programs, by turns."""
    port = servers.blob_store(bucket.parent)
    storage = f"filesystem: {{ rootdirectory: '{bucket}' }}"
    config = _configuration(servers, "collected-folder", storage)
    commands = {
        MOORAGE: _gc(port),
        DOCKER_REGISTRY: ["docker-registry", "garbage-collect", "--dry-run", config],
    }
    return _by_turns(settings, SAME_FOLDER, made, commands, tell)


def _by_turns(settings, work, made, commands, tell, counting_store=None):
    """Runs the commands, by whose they are, one after the other. A store that counts calls is asked for them."""
    count = made["total"]["objects"]
    found = {who: Collection(work, count, who) for who in commands}
    for number in range(settings.rounds):
        for who, command in commands.items():
            tell(f"round {number + 1} of {settings.rounds}: {count:,} objects, {work}, {who}")
            found[who].runs.append(_counted(command, counting_store))
    return [*found.values()]


def _configuration(servers, name, storage):
    """Writes a configuration for distribution. `storage` is the driver, as YAML."""
    config = servers.folder / f"{name}.yaml"
    config.write_text(f"version: 0.1\nlog: {{ level: error }}\nstorage: {{ {storage} }}\n")
    return config


def _gc(port):
    """The command line of a collection that only tells what it would do."""
    endpoint = f"http://127.0.0.1:{port}"
    program = [os.environ["MOORAGE_CLI"], "gc"]
    return [*program, "--summary", "--endpoint", endpoint, "--no-sign-request", PARALLEL]


def _counted(command, counting_store):
    """Runs a command, and counts the calls to the store meanwhile if that tells."""
    if counting_store is None:
        return _run(command)
    before = _calls(counting_store)
    run = _run(command)
    run.calls = _calls(counting_store) - before
    return run


def _calls(port):
    return sum(json.loads(get(port, "/_calls")).values())


def _run(command):
    """Runs a command to its end, which must be a good one."""
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, env=environment, **pipes) as process:
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
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, computed, peak)


def _peak_of(process):
    """The most memory that a process has held so far, in MiB."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def _disturbances(settings, servers, tell):
    """Pulls and pushes through an Envoy, alone and beside collections that go on all the time.

    The store answers as late as one at the other end of a network. So it is not the few cores of this machine that all
    of them share which limit what is done, as they would with a store that answers at once.
    """
    store, _ = servers.synthetic_bucket(SHARED, LATENCY)
    tree = Tree(lambda key, content: ask(store, "PUT", f"/registry/{key}", body=content))
    layer = tree.blob(NAME, os.urandom(64 * 1024))
    manifest = tree.manifest(NAME, image([layer], layer))
    tree.tags(NAME, [TAG], manifest["digest"])
    port, _ = servers.envoy("collected", bootstraps.moorage(store, settings.wasm))

    def pulls(path):
        target = Target(port, path, headers=(ACCEPT,))
        return partial(requests_per_second, target, 16, settings.seconds)

    works = [
        ("manifest by digest, pull", "requests/s", pulls(f"/v2/{NAME}/manifests/{manifest['digest']}")),
        ("manifest by tag, pull", "requests/s", pulls(f"/v2/{NAME}/manifests/{TAG}")),
        ("blob of 64 KiB, pull", "requests/s", pulls(f"/v2/{NAME}/blobs/{layer['digest']}")),
        ("image of one small layer, push", "images/s", partial(_pushes, port, settings.seconds)),
    ]
    ways = {ALONE: contextlib.nullcontext, BESIDE: partial(_collecting, store)}
    found = [Disturbance(work, unit, {way: [] for way in ways}) for work, unit, _ in works]
    for number in range(settings.rounds):
        for disturbance, (work, _, act) in zip(found, works):
            tell(f"round {number + 1} of {settings.rounds}: {work}, alone and beside a collection")
            # The other first each time: the machine has other work.
            for way in sorted(ways, reverse=number % 2 == 1):
                with ways[way]():
                    disturbance.samples[way].append(act())
    return found


@contextlib.contextmanager
def _collecting(store):
    """Has garbage collected over and over for as long as the `with` lasts, without what an earlier run remembered."""
    ended, begun, failures = threading.Event(), [], []
    command = [*_gc(store), "--apply"]

    def repeat():
        while not ended.is_set():
            # The first run reads all manifests. So each is a first run.
            for key in ("manifests", "condemned"):
                ask(store, "DELETE", f"/registry/moorage/gc/{key}", status=204)
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
