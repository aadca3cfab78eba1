"""Blobs: pulled and pushed, small and large."""

import os
import re
import tempfile
from pathlib import Path
from urllib.parse import urljoin

from contests import MOORAGE, PLAIN, STORE, Cell, Contest
from load import Sample, Target, curl, megabytes_per_second, requests_per_second
from tree import content_key, digest_of

LARGE = 256 * 1024 * 1024
PUSHED = 64 * 1024 * 1024
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
    """A new blob each time: with its length in as few requests as the server takes, and in three
    without."""
    file = Path(folder, "blob")

    def row(kind, pushes):
        cells = {who: _pushes(file, push) for who, push in pushes.items()}
        return Contest(f"blob of 64 MiB, push, length {kind}", 1, "MB/s", cells)

    def upload(port, way):
        return lambda digest: way(f"http://127.0.0.1:{port}", name, file, digest)

    def put(port, *options):
        url = f"http://127.0.0.1:{port}/registry/{content_key('sha256:bench')}"
        return lambda _: curl(url, "-T", file, *NO_EXPECT, *options, status=200)

    others = ports.registries.items()
    return [
        row(
            "known",
            {MOORAGE: upload(ports.moorage, _in_one_request)}
            | {who: upload(port, _in_two_requests) for who, port in others}
            | {PLAIN: put(ports.plain), STORE: put(store_port)},
        ),
        row(
            "unknown",
            {MOORAGE: upload(ports.moorage, _in_three_requests)}
            | {who: upload(port, _in_three_requests) for who, port in others}
            | {PLAIN: put(ports.plain, *CHUNKED), STORE: put(store_port, *CHUNKED)},
        ),
    ]


def _pushes(file, push):
    def measure():
        content = os.urandom(PUSHED)
        file.write_bytes(content)
        return Sample(PUSHED / push(digest_of(content)) / 1e6)

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
