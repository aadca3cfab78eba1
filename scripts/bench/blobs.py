"""Blobs: pulled and pushed, small and large."""

import os
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urljoin

from contests import IN_THE_MODULE, MOORAGE, PLAIN, STORE, Cell, Contest
from load import Sample, Target, curl, megabytes_per_second, requests_per_second
from tree import content_key, digest_of

MEBIBYTE = 1024 * 1024
LARGE = 256 * MEBIBYTE
PUSHED, PUSHED_BESIDE = 64 * MEBIBYTE, 16 * MEBIBYTE
"""What is pushed alone, and what is pushed beside others."""
NO_EXPECT = ("-H", "Expect:")
CHUNKED = ("-H", "Transfer-Encoding: chunked")


def pull_contests(ports, store_port, name, blobs, seconds):
    """`blobs`: their descriptors by what their sizes are called."""
    contests = []
    for size, blob in blobs.items():
        content = f"/registry/{content_key(blob['digest'])}"
        path = f"/v2/{name}/blobs/{blob['digest']}"
        targets = {MOORAGE: Target(ports.moorage, path)}
        targets |= {who: Target(port, path) for who, port in ports.registries.items()}
        targets |= {PLAIN: Target(ports.plain, content), STORE: Target(store_port, content)}
        is_large = blob["size"] == LARGE
        cell = _transfers if is_large else _requests
        contests.append(
            Contest(
                f"blob of {size}, pull",
                1 if is_large else 16,
                "MB/s" if is_large else "requests/s",
                {who: cell(target, blob["size"], seconds) for who, target in targets.items()},
            )
        )
    return contests


def _requests(target, _size, seconds):
    return Cell(lambda: requests_per_second(target, 16, seconds))


def _transfers(target, size, seconds):
    return Cell(
        lambda: megabytes_per_second(size, lambda: curl(target.url, status=200), seconds)
    )


def push_contests(ports, store_port, name, folder):
    """New blobs each time: with their length in as few requests as the server takes, and in three without."""
    others = ports.registries.items()
    content = f"/registry/{content_key('sha256:bench')}"

    def row(kind, clients, size, pushes):
        text = f"blob of {size // MEBIBYTE} MiB, push, length {kind}, {ports.store}"
        cells = {who: _pushes(folder, push, clients, size) for who, push in pushes.items()}
        return Contest(text, clients, "MB/s", cells)

    def upload(port, way):
        return lambda file, digest: way(f"http://127.0.0.1:{port}", name, file, digest)

    def put(port, *options):
        return lambda file, _: curl(f"http://127.0.0.1:{port}{content}-{file.name}", "-T", file, *NO_EXPECT, *options, status=200)

    def stores(*options):
        found = {PLAIN: put(ports.plain, *options)}
        # Garage takes what is signed alone.
        return found | ({STORE: put(store_port, *options)} if ports.fixed else {})

    known = {MOORAGE: upload(ports.moorage, _in_one_request)}
    known |= {who: upload(port, _in_two_requests) for who, port in others}
    unknown = {who: upload(port, _in_three_requests) for who, port in ((MOORAGE, ports.moorage), *others)}
    if ports.in_the_module:
        unknown[IN_THE_MODULE] = upload(ports.in_the_module, _in_three_requests)
    return [
        row("known", 1, PUSHED, known | stores()),
        row("unknown", 1, PUSHED, unknown | stores(*CHUNKED)),
        *(row("unknown", clients, PUSHED_BESIDE, unknown | stores(*CHUNKED)) for clients in (4, 16)),
    ]


def _pushes(folder, push, clients, size):
    """So many clients, each of which pushes a blob of its own at the same time."""

    def measure():
        files = [Path(folder, f"blob-{number}") for number in range(clients)]
        digests = []
        for file in files:
            content = os.urandom(size)
            file.write_bytes(content)
            digests.append(digest_of(content))
        if clients == 1:
            # What the client does between its requests is not the server's.
            return Sample(size / push(files[0], digests[0]) / 1e6)
        with ThreadPoolExecutor(clients) as pool:
            start = time.perf_counter()
            list(pool.map(push, files, digests))
        return Sample(clients * size / (time.perf_counter() - start) / 1e6)

    return Cell(measure)


def _in_one_request(server, name, file, digest):
    # After a slash curl would put the file's name.
    url = f"{server}/v2/{name}/blobs/uploads?digest={digest}"
    return curl(url, "-X", "POST", "-T", file, *NO_EXPECT, status=201)


def _in_two_requests(server, name, file, digest):
    seconds, session = _send("POST", f"{server}/v2/{name}/blobs/uploads/", 202)
    whole = curl(_closing(session, digest), "-T", file, *NO_EXPECT, status=201)
    return seconds + whole


def _in_three_requests(server, name, file, digest):
    started, session = _send("POST", f"{server}/v2/{name}/blobs/uploads/", 202)
    seconds, session = _send("PATCH", session, 202, "-T", file, *NO_EXPECT, *CHUNKED)
    finished, _ = _send("PUT", _closing(session, digest), 201)
    return started + seconds + finished


def _send(method, url, status, *options):
    """How long it took, and the `Location` of the answer."""
    with tempfile.NamedTemporaryFile("r") as headers:
        seconds = curl(url, "-X", method, "-D", headers.name, *options, status=status)
        location = re.search(r"(?im)^location: *(\S+)", headers.read())
    return seconds, urljoin(url, location[1])


def _closing(session, digest):
    return f"{session}{'&' if '?' in session else '?'}digest={digest}"
