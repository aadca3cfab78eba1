"""The benchmark, `./build.sh bench`: starts all it compares, measures in turn, writes what it found.

It takes the programs from the environment, as the tests do, and the standard library alone. Nothing
here fails because something is slow: what was reached is part of the report. With the argument `gc`
only the collection of garbage is measured, with `edge` only an edge node, with `images` only whole images, with
`cores` only many workers and connections.
"""

import datetime
import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import access
import blobs
import bootstraps
import chart
import collection
import contests
import cores
import edge
import far
import growth
import images
import report
import telemetry
from load import ask
from servers import Servers, s3_storage
from tree import Tree, image, into_folder

NAME, TAG = "library/bench", "latest"
OUTPUT = bootstraps.TOP / "target/bench"
MEMORY = (Path("/dev/shm"),)
SECONDS_OF_GROWTH = 0.3


@dataclass(frozen=True)
class Settings:
    """What the user may choose, and what is there."""

    seconds: int
    rounds: int
    wasm: str
    fixed_reply: str | None
    distribution: str | None
    garage: str | None

    @classmethod
    def read(cls):
        return cls(
            seconds=_number("MOORAGE_BENCH_SECONDS", 3),
            rounds=_number("MOORAGE_BENCH_ROUNDS", 3),
            wasm=os.environ["MOORAGE_WASM"],
            fixed_reply=os.environ.get("MOORAGE_FIXED_REPLY"),
            distribution=os.environ.get("MOORAGE_DISTRIBUTION"),
            garage=os.environ.get("MOORAGE_GARAGE"),
        )


def _number(name, default):
    text = os.environ.get(name, str(default))
    if not re.fullmatch("[1-9][0-9]{0,3}", text):
        sys.exit(f"build.sh: {name} must be a whole number from 1 to 9999, not '{text}'")
    return int(text)


def main():
    settings = Settings.read()
    machine = f"{describe_machine()} {settings.rounds} rounds of {settings.seconds} s each."
    measured = PARTS[sys.argv[1]] if sys.argv[1:] else measure_all
    OUTPUT.mkdir(parents=True, exist_ok=True)
    # In memory if possible: it is not disks that are compared, and half a million files are written.
    place = next((place for place in MEMORY if os.access(place, os.W_OK)), OUTPUT)
    with tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=place) as folder:
        try:
            with Servers(folder) as servers:
                measured(settings, servers, Path(folder), machine)
        except BaseException:
            keep_logs(Path(folder))
            raise


def measure_all(settings, servers, folder, machine):
    """All there is, and the report on it."""
    found, growths = run(settings, servers, folder)
    (OUTPUT / "results.csv").write_text(report.as_csv(found, growths))
    (OUTPUT / "chart.svg").write_text(chart.svg(found, machine))
    # Kept after each part, so that one that fails costs none of what was found before.
    parts = [report.markdown(machine, found, growths)]
    keep(parts, "README.md")
    pulled_and_pushed = images.measure(settings, servers, folder, tell)
    (OUTPUT / "images.csv").write_text(report.images_csv(pulled_and_pushed))
    parts.append(report.images_markdown(pulled_and_pushed))
    keep(parts, "README.md")
    rows = many_connections(settings, servers, folder)
    (OUTPUT / "cores.csv").write_text(report.cores_csv(rows))
    parts.append(report.cores_markdown(rows))
    keep(parts, "README.md")
    collected = collection.measure(settings, servers, folder, tell)
    (OUTPUT / "gc.csv").write_text(report.collection_csv(*collected))
    parts.append(report.collection_markdown(*collected))
    keep(parts, "README.md")
    print(f"==> Kept in {OUTPUT}: README.md, results.csv, images.csv, cores.csv, gc.csv, chart.svg")


def measure_collection(settings, servers, folder, machine):
    """Only what collecting garbage costs."""
    collected = collection.measure(settings, servers, folder, tell)
    keep([f"{machine} Medians.\n\n{report.collection_markdown(*collected)}"], "gc.md")
    (OUTPUT / "gc.csv").write_text(report.collection_csv(*collected))
    print(f"==> Kept in {OUTPUT}: gc.md, gc.csv")


def measure_edge(settings, servers, folder, machine):
    """Only an edge node."""
    bucket = folder / "store/registry"
    bucket.mkdir(parents=True)
    store = servers.blob_store(bucket.parent)
    found = edge.contests(servers, store, Tree(into_folder(bucket)), settings.wasm, NAME, settings.seconds)
    contests.measure(found, settings.rounds, tell)
    keep([f"{machine} Medians.\n\n{report.contest_table(found)}\n\n{report.bar_table(report.edge_bars(found))}"], "edge.md")
    (OUTPUT / "edge.csv").write_text(report.as_csv(found, []))
    print(f"==> Kept in {OUTPUT}: edge.md, edge.csv")


def measure_images(settings, servers, folder, machine):
    """Only whole images."""
    rows = images.measure(settings, servers, folder, tell)
    keep([f"{machine} Medians.\n\n{report.images_markdown(rows)}"], "images.md")
    (OUTPUT / "images.csv").write_text(report.images_csv(rows))
    print(f"==> Kept in {OUTPUT}: images.md, images.csv")


def measure_cores(settings, servers, folder, machine):
    """Only many workers and connections."""
    rows = many_connections(settings, servers, folder)
    keep([f"{machine} Medians.\n\n{report.cores_markdown(rows)}"], "cores.md")
    (OUTPUT / "cores.csv").write_text(report.cores_csv(rows))
    print(f"==> Kept in {OUTPUT}: cores.md, cores.csv")


def many_connections(settings, servers, folder):
    """Several workers and very many connections, on a local store of their own."""
    bucket = folder / "many/registry"
    bucket.mkdir(parents=True)
    tree = Tree(into_folder(bucket))
    digest, _ = put_image(tree)
    blob = tree.blob(NAME, os.urandom(1024 * 1024))["digest"]
    paths = {
        cores.DIGEST: f"/v2/{NAME}/manifests/{digest}",
        cores.TAG: f"/v2/{NAME}/manifests/{TAG}",
        cores.BLOB: f"/v2/{NAME}/blobs/{blob}",
    }
    store = servers.blob_store(bucket.parent)
    return cores.measure(settings, servers, store, bucket, paths, tell)


PARTS = {"gc": measure_collection, "edge": measure_edge, "images": measure_images, "cores": measure_cores}
"""What can be measured by itself."""


def keep(parts, name):
    """Writes the parts of a report, and prints the last."""
    (OUTPUT / name).write_text("\n\n".join(parts) + "\n")
    print(parts[-1])


def run(settings, servers, folder):
    """Measures everything. Gives the contests, and how costs grow."""
    bucket = folder / "store/registry"
    bucket.mkdir(parents=True)
    tell("starting the servers")
    tree = Tree(into_folder(bucket))
    found, growing = on_the_local_store(settings, servers, bucket, tree)
    found_there, growing_there = on_garage(settings, servers) if settings.garage else ([], None)
    found += found_there
    contests.measure(found, settings.rounds, tell)
    how = (SECONDS_OF_GROWTH, settings.rounds, tell)
    growths = growth.measure(*growing, *how)
    if growing_there:
        growths += growth.measure_on("Garage", *growing_there, *how)
    return found, growths


def on_the_local_store(settings, servers, bucket, tree):
    """The contests, and what the growth is measured with: a tree, and the ports of an Envoy."""
    digest, manifest = put_image(tree)
    sizes = {"1 KiB": 1024, "1 MiB": 1024 * 1024, "256 MiB": blobs.LARGE}
    pulled = {text: tree.blob(NAME, os.urandom(size)) for text, size in sizes.items()}

    store = servers.blob_store(bucket.parent)

    def start(name, cache=""):
        return servers.envoy(name, bootstraps.moorage(store, settings.wasm, cache))

    moorage, admin = start("moorage")
    fixed = bootstraps.fixed_reply(settings.fixed_reply, manifest.decode())
    storage = f"filesystem: {{ rootdirectory: '{bucket}' }}"
    peer = servers.distribution("docker-registry", "docker-registry", storage)
    ports = contests.Ports(
        store="local store",
        moorage=moorage,
        hasty=start("moorage-tag-ttl", '{ "tag_ttl": "5s" }')[0],
        cold=start("moorage-cold", '{ "max_bytes": 0 }')[0],
        plain=servers.envoy("plain", bootstraps.plain(store))[0],
        registries={contests.DOCKER_REGISTRY: peer},
        fixed=servers.envoy("fixed-reply", fixed)[0],
        in_the_module=_without_hasher(servers, "moorage-unaided", store, settings.wasm),
    )
    guarded = bootstraps.moorage(store, settings.wasm, access=access.configuration())
    guarded, _ = servers.envoy("moorage-access", guarded)
    found = [
        *contests.manifest_contests(ports, NAME, TAG, digest, settings.seconds),
        *access.contests(guarded, moorage, NAME, digest, bucket.parent.parent, settings.seconds),
        *telemetry.contests(servers, store, settings.wasm, NAME, digest, settings.seconds),
        *blobs.pull_contests(ports, store, NAME, pulled, settings.seconds),
        *blobs.push_contests(ports, store, NAME, bucket.parent.parent),
        *edge.contests(servers, store, tree, settings.wasm, NAME, settings.seconds),
    ]
    return found, (tree, moorage, admin)


def on_garage(settings, servers):
    """The same on Garage."""
    store = servers.garage(settings.garage)
    plain, _ = servers.envoy("plain-garage", bootstraps.plain(store, signed=True))

    def start(name, cache=""):
        bootstrap = bootstraps.moorage(store, settings.wasm, cache, signed=True)
        return servers.envoy(name, bootstrap)

    def put(key, content):
        ask(plain, "PUT", f"/registry/{key}", body=content)

    tree = Tree(put)
    digest, _ = put_image(tree)
    registries = {}
    if settings.distribution:
        port = servers.distribution(settings.distribution, "distribution", s3_storage(store))
        registries[contests.DISTRIBUTION] = port
    moorage, admin = start("moorage-garage")
    ports = contests.Ports(
        store="Garage",
        moorage=moorage,
        hasty=moorage,
        cold=start("moorage-garage-cold", '{ "max_bytes": 0 }')[0],
        plain=plain,
        registries=registries,
    )
    found = [
        *contests.manifest_contests(ports, NAME, TAG, digest, settings.seconds),
        *blobs.push_contests(ports, store, NAME, servers.folder),
        *far.contests(settings, servers, store, tree, settings.seconds),
    ]
    return found, (tree, moorage, admin)


def _without_hasher(servers, name, store, wasm):
    if "MOORAGE_NATIVE_HASH_LIBRARY" not in os.environ:
        return None
    return servers.envoy(name, bootstraps.moorage(store, wasm, hashes_natively=False))[0]


def put_image(tree):
    """An image of the usual size. Gives its digest and the manifest itself."""
    layers = [tree.blob(NAME, b"layer %d" % number) for number in range(5)]
    manifest = image(layers, layers[0])
    digest = tree.manifest(NAME, manifest)["digest"]
    tree.tags(NAME, [TAG], digest)
    return digest, manifest


def describe_machine():
    """When and where, in one sentence."""
    cpu = platform.processor() or platform.machine()
    if models := re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()):
        cpu = models[0]
    date = datetime.date.today().isoformat()
    load = os.getloadavg()[0]
    return f"{date}, {cpu}, {os.cpu_count()} cores, load {load:.1f} before the run, one Envoy worker unless said otherwise."


def keep_logs(folder):
    """What the servers said, for whoever looks for the fault."""
    for log in folder.glob("*.log"):
        shutil.copy(log, OUTPUT)
    tell(f"failed; the servers' logs are in {OUTPUT}")


def tell(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


main()
