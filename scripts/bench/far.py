"""A store that is far away: each round trip to it takes 30 ms, so that their number decides how long a request takes."""

import http.client
import itertools
import os
import time
from urllib.parse import urlsplit

import bootstraps
from contests import DISTRIBUTION, MOORAGE, Cell, Contest
from load import Sample, Unexpected
from servers import s3_storage
from tree import MANIFEST_TYPE, digest_of, image

NAME, TAG = "far/image", "latest"
LAYERS = 10


def contests(settings, servers, store, tree, seconds):
    """The contests between Moorage and distribution before the Garage at the port `store`, which both ask over a line."""
    far = servers.distance(store)
    layers = [tree.blob(NAME, b"layer %d" % number) for number in range(LAYERS)]
    digest = tree.manifest(NAME, image(layers, layers[0]))["digest"]
    tree.tags(NAME, [TAG], digest)

    def moorage(name, cache=""):
        return servers.envoy(name, bootstraps.moorage(far, settings.wasm, cache, signed=True))[0]

    cached, cold = moorage("moorage-far"), moorage("moorage-far-cold", '{ "max_bytes": 0 }')
    other = None
    if settings.distribution:
        other = servers.distribution(settings.distribution, "distribution-far", s3_storage(far))

    def contest(work, act, port=cached):
        cells = {MOORAGE: Cell(_rate(act, port, seconds))}
        if other:
            cells[DISTRIBUTION] = Cell(_rate(act, other, seconds))
        return Contest(f"store 30 ms away: {work}", 1, "requests/s", cells)

    accept = {"Accept": MANIFEST_TYPE}
    numbers = itertools.count()

    def get(path, **headers):
        return lambda client: client.ask("GET", path, headers=headers, status=200)

    def put_manifest(client):
        content = image(layers, layers[0], note=f"{os.getpid()} {next(numbers)}")
        path = f"/v2/{NAME}/manifests/pushed"
        client.ask("PUT", path, content, {"Content-Type": MANIFEST_TYPE}, 201)

    def upload(client):
        content = os.urandom(1024)
        started = client.ask("POST", f"/v2/{NAME}/blobs/uploads/", status=202)
        parts = urlsplit(started)
        query = f"{parts.query}&" if parts.query else ""
        client.ask("PUT", f"{parts.path}?{query}digest={digest_of(content)}", content, status=201)

    def mount(client):
        target = f"far/mounted-{os.getpid()}-{next(numbers)}"
        path = f"/v2/{target}/blobs/uploads/?mount={layers[0]['digest']}&from={NAME}"
        client.ask("POST", path, status=201)

    return [
        contest("manifest by tag", get(f"/v2/{NAME}/manifests/{TAG}", **accept)),
        contest("manifest by tag, no cache", get(f"/v2/{NAME}/manifests/{TAG}", **accept), cold),
        contest("manifest by digest, no cache", get(f"/v2/{NAME}/manifests/{digest}", **accept), cold),
        contest("blob of a few bytes, pull", get(f"/v2/{NAME}/blobs/{layers[1]['digest']}")),
        contest("blob of a few bytes, pull, no cache", get(f"/v2/{NAME}/blobs/{layers[1]['digest']}"), cold),
        contest(f"manifest of {LAYERS} layers, push", put_manifest),
        contest("blob of 1 KiB, push in two requests", upload),
        contest("blob, mount", mount),
    ]


class _Client:
    """One connection, which is kept."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method, path, body=None, headers=None, status=200):
        """One request, which must be answered with that status. Gives the `Location` of the answer."""
        self.connection.request(method, path, body, headers or {})
        response = self.connection.getresponse()
        content = response.read()
        if response.status != status:
            raise Unexpected(f"{method} {path}: {response.status} {content[:300]!r}")
        return response.headers.get("Location")


def _rate(act, port, seconds):
    def measure():
        client = _Client(port)
        act(client)
        done, start = 0, time.perf_counter()
        while time.perf_counter() < start + seconds:
            act(client)
            done += 1
        return Sample(done / (time.perf_counter() - start))

    return measure
