"""What becomes of a request's cost as the repository grows: its time, and its calls to the store."""

import statistics
import time
from dataclasses import dataclass, field
from functools import partial

from contests import ACCEPT
from load import ask, milliseconds
from servers import storage_calls
from tree import MANIFEST_TYPE, image

TYPE = f"Content-Type: {MANIFEST_TYPE}"
TAGS = (10, 1_000, 100_000)
TAGS_BY_HTTP = (10, 1_000, 10_000)
TAGS_OF_ONE = (10, 1_000, 10_000)
LAYERS = (1, 10, 200)
REFERRERS = (1, 100, 10_000)
REPOSITORIES = 5_000


@dataclass
class Growth:
    """One request in a repository of one size."""

    work: str
    size: int
    of: str
    milliseconds: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)


def measure(tree, port, admin, seconds, rounds, tell):
    """All of it, round by round, on a local store behind an Envoy."""
    repeated, once = [], []
    for count in TAGS:
        tell(f"writing {count:,} tags")
        repeated += _among_tags(tree, port, count)
    for count in LAYERS:
        repeated.append(_put_of_layers(tree, port, count))
    for count in REFERRERS:
        repeated.append(_referrers(tree, port, count))
    tell(f"writing {REPOSITORIES:,} repositories")
    repeated.append(_catalog(tree, port))
    for count in REFERRERS:
        once.append((Growth("page of 100 referrers, the first time", count, "referrers"), _first_referrers))
    for count in TAGS_OF_ONE:
        once.append((Growth("delete a digest", count, "tags on it"), _deletion))
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}: growth")
        for growth, act in repeated:
            _sample(growth, admin, act, seconds)
        for growth, prepare in once:
            _sample(growth, admin, prepare(tree, port, growth.size, number), 0)
    return _by_work([growth for growth, _ in repeated + once])


def measure_on(store, tree, port, admin, seconds, rounds, tell):
    """What is done among tags, on a store that finds its objects by an index."""
    repeated = []
    for count in TAGS_BY_HTTP:
        tell(f"writing {count:,} tags to {store}")
        repeated += _among_tags(tree, port, count, f", {store}")
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}: growth on {store}")
        for growth, act in repeated:
            _sample(growth, admin, act, seconds)
    return _by_work([growth for growth, _ in repeated])


def _by_work(growths):
    works = [growth.work for growth in growths]
    return sorted(growths, key=lambda growth: works.index(growth.work))


def _among_tags(tree, port, count, where=""):
    """A page, a pull and a put beside so many tags."""
    name = f"tags-{count}"
    blob = tree.blob(name, b"a blob")
    digest = tree.manifest(name, image([blob], blob))["digest"]
    tree.tags(name, (f"v{number:06}" for number in range(count)), digest)
    rows = [
        ("page of 100 tags", f"/v2/{name}/tags/list?n=100"),
        ("pull by tag", f"/v2/{name}/manifests/v000001"),
    ]
    reads = [
        (Growth(work + where, count, "tags"), partial(ask, port, "GET", path, (ACCEPT,)))
        for work, path in rows
    ]
    puts = _puts(port, name, [blob], blob)
    return [*reads, (Growth("put by tag" + where, count, "tags"), puts)]


def _put_of_layers(tree, port, count):
    name = f"layers-{count}"
    layers = [tree.blob(name, b"layer %d" % number) for number in range(count)]
    return Growth("put of an image", count, "layers"), _puts(port, name, layers, layers[0])


def _puts(port, name, layers, config):
    """Puts a manifest that was never there before, each time it is called."""
    path = f"/v2/{name}/manifests/put"

    def put():
        body = image(layers, config, note=str(time.monotonic_ns()))
        ask(port, "PUT", path, (TYPE,), 201, body)

    return put


def _catalog(tree, port):
    blob = tree.blob("catalog/0000", b"a blob")
    for number in range(REPOSITORIES):
        tree.link(f"catalog/{number:04}", blob)
    path = "/v2/_catalog?n=100&last=catalog/2500"
    return Growth("page of 100 repositories", REPOSITORIES, "repositories"), partial(ask, port, "GET", path)


def _first_referrers(tree, port, count, number):
    """A page that was never asked for, so that no descriptor is known."""
    return _referrers(tree, port, count, f"-{number}")[1]


def _referrers(tree, port, count, suffix=""):
    name = f"referrers-{count}{suffix}"
    blob = tree.blob(name, b"a blob")
    subject = tree.manifest(name, image([blob], blob))["digest"]
    tree.referrers(name, subject, count)
    path = f"/v2/{name}/referrers/{subject}?n=100"
    return Growth("page of 100 referrers", count, "referrers"), partial(ask, port, "GET", path)


def _deletion(tree, port, count, number):
    name = f"delete-{count}"
    blob = tree.blob(name, b"a blob")
    digest = tree.manifest(name, image([blob], blob, note=str(number)))["digest"]
    tree.tags(name, (f"v{index:06}" for index in range(count)), digest)
    return partial(ask, port, "DELETE", f"/v2/{name}/manifests/{digest}", (), 202)


def _sample(growth, admin, act, seconds):
    """Repeats `act` for so long; a sample is the median."""
    if seconds:
        # The first one fills the cache.
        act()
    before, times, end = storage_calls(admin), [], time.monotonic() + seconds
    while not times or time.monotonic() < end:
        times.append(milliseconds(act))
    growth.milliseconds.append(statistics.median(times))
    growth.calls.append(round((storage_calls(admin) - before) / len(times)))
