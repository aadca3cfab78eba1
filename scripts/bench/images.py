"""Whole images, pulled and pushed by crane as its users do it: how long it takes, and what the servers take for it."""

import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import bootstraps
from contests import DISTRIBUTION, DOCKER_REGISTRY, MOORAGE
from load import Unexpected
from servers import s3_storage
from tree import MANIFEST_TYPE, descriptor, digest_of, image

KIB, MIB = 1024, 1024 * 1024
LARGE = tuple(KIB * size for size in (1, 4, 32, 128, 512)) + tuple(MIB * size for size in (1, 2, 4, 8, 16, 64, 200))
SMALL = tuple(KIB * size for size in (1, 4, 16, 32, 64, 128, 256, 512, 512)) + tuple(MIB * size for size in (1, 2, 8))
"""The layers of an image, in bytes. The small one is for many clients at once."""
CLIENTS = 20

LOCAL, GARAGE = "local store", "Garage"
NAME = "library/image"
PULL_WARM, PULL_COLD, PUSH = "pull, pulled before", "pull, the registry just started", "push"


@dataclass
class Run:
    """What one measurement found."""

    seconds: float
    processor_seconds: float
    """Of the registry and its store together."""
    mebibytes: float
    """The most memory that each of them held, added up."""


@dataclass
class Row:
    """Some work, by some registry."""

    work: str
    store: str
    clients: int
    subject: str
    runs: list[Run] = field(default_factory=list)

    def median(self, what):
        return statistics.median(getattr(run, what) for run in self.runs)


@dataclass
class Registry:
    """A registry before a store. `start` starts it anew and gives its port."""

    subject: str
    store: str
    processes: tuple[str, ...]
    start: Callable[[], int]
    port: int = 0


class Layout:
    """An image in a folder, in the OCI image layout, with other content each time it is made."""

    def __init__(self, folder, layers):
        self.folder, self.bytes = Path(folder), sum(layers)
        blobs = self.folder / "blobs/sha256"
        blobs.mkdir(parents=True)

        def put(content, *media_type):
            digest = digest_of(content)
            (blobs / digest.removeprefix("sha256:")).write_bytes(content)
            return descriptor(digest, len(content), *media_type)

        found = [put(os.urandom(size)) for size in layers]
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in found]},
            }
        ).encode()
        manifest = put(image(found, put(config)), MANIFEST_TYPE)
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        index = {"schemaVersion": 2, "manifests": [manifest]}
        (self.folder / "index.json").write_text(json.dumps(index))

    def remove(self):
        for path in sorted(self.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        self.folder.rmdir()


def measure(settings, servers, folder, tell):
    """All rows. What is compared is done by turns."""
    crane = os.environ.get("MOORAGE_CRANE")
    if not crane:
        tell("images: skipped, crane is not there")
        return []
    tell("images: starting the registries")
    registries = [*_on_a_folder(settings, servers, folder), *_on_garage(settings, servers)]
    for registry in registries:
        registry.port = registry.start()
    rows = {}
    for clients, layers in ((1, LARGE), (CLIENTS, SMALL)):
        _push_for_pulls(crane, registries, folder, layers, clients)
        for number in range(settings.rounds):
            for work in (PULL_COLD, PULL_WARM, PUSH):
                for registry in registries:
                    tell(f"round {number + 1} of {settings.rounds}: {work}, {clients} at once: {registry.subject}, {registry.store}")
                    row = Row(work, registry.store, clients, registry.subject)
                    row = rows.setdefault((work, registry.store, clients, registry.subject), row)
                    row.runs.append(_run(servers, crane, registry, work, clients, layers, folder))
    return list(rows.values())


def _on_a_folder(settings, servers, folder):
    root = folder / "images"
    (root / "registry").mkdir(parents=True)
    store = servers.blob_store(root)

    def moorage():
        return servers.envoy("images-moorage", bootstraps.moorage(store, settings.wasm))[0]

    def docker_registry():
        storage = f"filesystem: {{ rootdirectory: '{root / 'registry'}' }}"
        return servers.distribution("docker-registry", "images-docker-registry", storage)

    yield Registry(MOORAGE, LOCAL, ("images-moorage", f"blob-store-{store}"), moorage)
    yield Registry(DOCKER_REGISTRY, LOCAL, ("images-docker-registry",), docker_registry)


def _on_garage(settings, servers):
    if not (settings.garage and settings.distribution):
        return
    store = servers.garage(settings.garage)

    def moorage():
        return servers.envoy("images-moorage-garage", bootstraps.moorage(store, settings.wasm, signed=True))[0]

    def distribution():
        return servers.distribution(settings.distribution, "images-distribution", s3_storage(store))

    yield Registry(MOORAGE, GARAGE, ("images-moorage-garage", "garage"), moorage)
    yield Registry(DISTRIBUTION, GARAGE, ("images-distribution", "garage"), distribution)


def _push_for_pulls(crane, registries, folder, layers, clients):
    """One image into each store: both registries before it read what one of them wrote."""
    layout = Layout(folder / "pulled", layers)
    for registry in registries:
        if registry.subject == MOORAGE:
            _all([_push(crane, registry, layout, f"pull-{clients}")])
    layout.remove()


def _run(servers, crane, registry, work, clients, layers, folder):
    layouts = []
    if work == PUSH:
        layouts = [Layout(folder / f"pushed-{number}", layers) for number in range(clients)]
        commands = [_push(crane, registry, layout, f"push-{at}") for at, layout in enumerate(layouts)]
    else:
        if work == PULL_COLD:
            servers.stop(registry.processes[0])
            registry.port = registry.start()
        else:
            _all([_pull(crane, registry, clients)])
        commands = [_pull(crane, registry, clients) for _ in range(clients)]
    servers.forget_peaks(registry.processes)
    before, start = servers.processor_seconds(registry.processes), time.perf_counter()
    _all(commands)
    seconds = time.perf_counter() - start
    used = servers.processor_seconds(registry.processes) - before
    for layout in layouts:
        layout.remove()
    return Run(seconds, used, servers.peak_mebibytes(registry.processes))


def _push(crane, registry, layout, tag):
    return [crane, "push", "--insecure", layout.folder, f"127.0.0.1:{registry.port}/{NAME}:{tag}"]


def _pull(crane, registry, clients):
    return [crane, "pull", "--insecure", f"127.0.0.1:{registry.port}/{NAME}:pull-{clients}", "/dev/null"]


def _all(commands):
    """Runs them at once, to their ends."""
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for command in commands
    ]
    for process in running:
        _, said = process.communicate()
        if process.returncode != 0:
            raise Unexpected(f"crane failed: {said}")
