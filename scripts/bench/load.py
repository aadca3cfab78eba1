"""What measures: `wrk` for many requests, `curl` for large bodies, and a clock."""

import contextlib
import http.client
import re
import selectors
import socket
import statistics
import subprocess
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    value: float
    """In the unit of its cell: requests/s, MB/s or ms."""
    p99_ms: float | None = None
    """Below this were 99 of 100 answers."""


@dataclass(frozen=True)
class Target:
    """What is asked for."""

    port: int
    path: str
    method: str = "GET"
    headers: tuple = ()
    status: int = 200

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{self.path}"

    @property
    def header_options(self):
        return [option for header in self.headers for option in ("-H", header)]


class Unexpected(Exception):
    """An answer that would make the measurement worthless."""


def requests_per_second(target, connections, seconds):
    """As many requests as the connections take, one after another on each."""
    ask(target.port, target.method, target.path, target.headers, target.status)
    if target.method == "HEAD":
        return _heads(target, connections, seconds)
    options = ["-t1", f"-c{connections}", f"-d{seconds}", "--latency", *target.header_options]
    output = _run(["wrk", *options, target.url])
    if complaint := re.search(r"Non-2xx or 3xx responses: .*", output):
        raise Unexpected(f"{target.url}: {complaint[0]}")
    rate = re.search(r"Requests/sec: +([\d.]+)", output)
    if float(rate[1]) == 0:
        raise Unexpected(f"{target.url}: no answer in {seconds} s")
    number, unit = re.search(r"99% +([\d.]+)(us|ms|s)", output).groups()
    return Sample(float(rate[1]), float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit])


def _heads(target, connections, seconds):
    """For `HEAD`, after which `wrk` would wait for a body: each answer here is headers alone."""
    lines = [f"HEAD {target.path} HTTP/1.1", "Host: bench", *target.headers, "", ""]
    request, answers = "\r\n".join(lines).encode(), 0
    with contextlib.ExitStack() as stack:
        ready = stack.enter_context(selectors.DefaultSelector())
        for _ in range(connections):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", target.port)))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready.register(client, selectors.EVENT_READ)
            client.sendall(request)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in ready.select(timeout=1):
                answer = key.fileobj.recv(16384)
                if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"\r\n\r\n"):
                    raise Unexpected(f"HEAD {target.url}: {answer!r}")
                answers += 1
                key.fileobj.sendall(request)
    return Sample(answers / seconds)


def ask(port, method, path, headers=(), status=200, body=None):
    """One request, which must be answered with that status. Gives headers and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        fields = dict(header.split(": ", 1) for header in headers)
        connection.request(method, path, body, fields)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != status:
        raise Unexpected(f"{method} {path}: {response.status} {content[:300]!r}")
    return response.headers, content


def milliseconds(act):
    """How long `act` takes."""
    start = time.perf_counter()
    act()
    return (time.perf_counter() - start) * 1000


def megabytes_per_second(size, transfer, seconds):
    """Repeats a transfer of `size` bytes, which gives its own time in seconds, for so long."""
    times, end = [], time.monotonic() + seconds
    while not times or time.monotonic() < end:
        times.append(transfer())
    return Sample(size / statistics.median(times) / 1e6)


def curl(url, *options, status):
    """One transfer. Gives how long it took, in seconds."""
    wanted = "%{http_code} %{time_total}"
    command = ["curl", "--silent", "--show-error", "--output", "/dev/null", "--write-out", wanted]
    found, seconds = _run([*command, *options, url]).split()
    if int(found) != status:
        raise Unexpected(f"{url}: {found}")
    return float(seconds)


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unexpected(f"{command[0]} failed: {done.stderr or done.stdout}")
    return done.stdout
