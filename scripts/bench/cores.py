"""Many cores and many connections: the most that an Envoy with several workers answers, and how long its answers take at half of that.

The load is vegeta's, at a fixed rate: a request is sent when it is due, whether or not those before it are answered, so that a slow
answer can't hide what it delays (no coordinated omission). Beside it a thousand connections are open on which nothing is asked.
"""

import contextlib
import json
import os
import re
import resource
import socket
import ssl
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import bootstraps
from contests import ACCEPT, DOCKER_REGISTRY, MOORAGE
from load import Unexpected

WORKERS = (1, 2, 4)
IDLE, BUSY, GENERATORS = 1_000, 200, 4
"""Connections without requests and with them, and the processes that share the latter."""

PLAIN_HTTP, TLS, HTTP2 = "HTTP/1.1", "HTTP/1.1, TLS", "HTTP/2, TLS"
DIGEST, TAG, BLOB = "manifest by digest", "manifest by tag", "blob of 1 MiB"
WORKS = ((DIGEST, PLAIN_HTTP), (DIGEST, TLS), (DIGEST, HTTP2), (TAG, PLAIN_HTTP), (BLOB, PLAIN_HTTP), (BLOB, HTTP2))
PERCENTILES = (0.5, 0.99, 0.999)


@dataclass
class Run:
    """What one measurement found."""

    most: float
    """The greatest rate, in answers a second."""
    latencies: tuple[float, ...]
    """What so many of the answers stayed below at half of that rate, in ms; see `PERCENTILES`."""
    mebibytes: float
    """The most memory that the server held."""


@dataclass
class Row:
    """Some work, by some server."""

    work: str
    transport: str
    subject: str
    runs: list[Run] = field(default_factory=list)

    @property
    def most(self):
        return statistics.median(run.most for run in self.runs)

    @property
    def latencies(self):
        return [statistics.median(found) for found in zip(*(run.latencies for run in self.runs))]

    @property
    def mebibytes(self):
        return statistics.median(run.mebibytes for run in self.runs)


@dataclass(frozen=True)
class Server:
    """A registry, with its ports for plain HTTP and for TLS, each of a process of that name."""

    subject: str
    plain: tuple[str, int]
    tls: tuple[str, int]

    def at(self, transport):
        return self.plain if transport == PLAIN_HTTP else self.tls


def measure(settings, servers, store, bucket, paths, tell):
    """All rows. `paths` are those of `WORKS` on the store at the port `store`, whose bucket is the folder `bucket`."""
    if not os.environ.get("MOORAGE_VEGETA"):
        tell("many connections: skipped, vegeta is not there")
        return []
    # This process holds the idle connections, and the servers, which inherit the limit, the other ends.
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    started = list(_servers(settings, servers, store, bucket))
    rows = [Row(*work, server.subject) for work in WORKS for server in started]
    by_subject = {server.subject: server for server in started}
    for number in range(settings.rounds):
        for row in rows:
            tell(f"round {number + 1} of {settings.rounds}: {row.work}, {row.transport}: {row.subject}")
            name, port = by_subject[row.subject].at(row.transport)
            row.runs.append(_run(servers, name, port, row, paths[row.work], settings.seconds))
    return rows


def _servers(settings, servers, store, bucket):
    certificate = _certify(servers.folder)
    for workers in WORKERS:
        def envoy(name, tls=None, workers=workers):
            bootstrap = bootstraps.for_many(store, settings.wasm, tls)
            return name, servers.envoy(name, bootstrap, workers)[0]

        plural = "s" if workers > 1 else ""
        plain, tls = envoy(f"workers-{workers}"), envoy(f"workers-{workers}-tls", certificate)
        yield Server(f"{MOORAGE}, {workers} worker{plural}", plain, tls)
    storage = f"filesystem: {{ rootdirectory: '{bucket}' }}"

    def peer(name, tls=None):
        return name, servers.distribution("docker-registry", name, storage, tls)

    yield Server(DOCKER_REGISTRY, peer("many-docker-registry"), peer("many-docker-registry-tls", certificate))


def _certify(folder):
    """A certificate for this machine, signed by itself. Gives its file and that of its key."""
    certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost".split()
    command = ["openssl", "req", *options, "-out", certificate, "-keyout", key]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def _run(servers, name, port, row, path, seconds):
    with _idle_connections(port, row.transport):
        servers.forget_peaks([name])
        most, _ = _load(servers.folder, port, path, row.transport, 0, seconds)
        _, latencies = _load(servers.folder, port, path, row.transport, most / 2, 2 * seconds)
        return Run(most, latencies, servers.peak_mebibytes([name]))


@contextlib.contextmanager
def _idle_connections(port, transport):
    """A thousand of them, all of which must be there at the end."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(IDLE):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            if transport != PLAIN_HTTP:
                connection = stack.enter_context(context.wrap_socket(connection))
            connections.append(connection)
        yield
        for connection in connections:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: bench\r\n\r\n")
            if not (answer := connection.recv(4096)).startswith(b"HTTP/1.1 200"):
                raise Unexpected(f"a connection without requests at port {port} was closed: {answer!r}")


def _load(folder, port, path, transport, rate, seconds):
    """Asks at this rate, in requests a second, or as fast as answers come if it is 0. Gives the rate of answers, and latencies."""
    scheme = "http" if transport == PLAIN_HTTP else "https"
    target = f"GET {scheme}://127.0.0.1:{port}{path}\n{ACCEPT}\n"
    connections = BUSY // GENERATORS
    options = ["-duration", f"{seconds}s", "-max-body", "0", "-insecure", f"-http2={str(transport == HTTP2).lower()}"]
    options += ["-connections", str(connections), "-max-connections", str(connections), "-workers", str(connections)]
    each = max(1, round(rate / GENERATORS))
    options += ["-rate", str(each)] if rate else ["-rate", "0", "-max-workers", str(connections)]
    files = [Path(folder, f"vegeta-{number}") for number in range(GENERATORS)]
    command = [os.environ["MOORAGE_VEGETA"], "attack", *options, "-output"]
    running = [subprocess.Popen([*command, file], stdin=subprocess.PIPE, text=True) for file in files]
    for process in running:
        process.stdin.write(target)
        process.stdin.close()
    if any([process.wait() for process in running]):
        raise Unexpected("vegeta failed")
    found = json.loads(_report("json", files))
    if found["success"] < 1:
        raise Unexpected(f"{target}: {found['status_codes']} {found['errors'][:3]}")
    return found["throughput"], tuple(_percentile(_report("hdrplot", files), share) for share in PERCENTILES)


def _report(kind, files):
    command = [os.environ["MOORAGE_VEGETA"], "report", "-type", kind, *files]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _percentile(plot, share):
    """The latency below which this share of the answers stayed, in ms, from lines of a value in ms and the share below it."""
    for value, below in re.findall(r"^ *([\d.]+) +([\d.]+) ", plot, re.MULTILINE):
        if float(below) >= share:
            return float(value)
    raise Unexpected(f"vegeta's report ends before {share}: {plot[-200:]}")
