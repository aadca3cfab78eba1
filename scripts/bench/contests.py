"""What is compared with what.

A cell is one thing to measure: some work, done by some server. A contest names the cells that are
set side by side; the same cell may be in several and is measured once in a round.
"""

from dataclasses import dataclass, field
from typing import Callable

from load import Sample, Target, requests_per_second
from tree import MANIFEST_TYPE, content_key

MOORAGE = "Moorage"
DOCKER_REGISTRY = "docker-registry 2.8.2"
DISTRIBUTION = "distribution 3.1.1"
PLAIN = "store through plain Envoy"
STORE = "store itself"
DISTANT = "store 30 ms and 200 Mbit/s away, through plain Envoy"
FIXED = "fixed reply"
OPEN = "Moorage without access control"
UNTROUBLED = "Moorage while nobody guesses"
SILENT = "Moorage without telemetry"
IN_THE_MODULE = "Moorage without the native hasher"
SUBJECTS = (MOORAGE, DOCKER_REGISTRY, DISTRIBUTION, FIXED, PLAIN, STORE, DISTANT, OPEN, UNTROUBLED, SILENT, IN_THE_MODULE)

CONNECTIONS = (1, 16, 256)
ACCEPT = f"Accept: {MANIFEST_TYPE}"


@dataclass(eq=False)
class Cell:
    """Something to measure, and what came of it, one sample a round."""

    measure: Callable[[], Sample]
    samples: list[Sample] = field(default_factory=list)


@dataclass
class Contest:
    """One row of the table."""

    work: str
    connections: int
    unit: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Ports:
    """The servers on one store. `registries` are the others that serve the same content."""

    store: str
    moorage: int
    hasty: int
    """Moorage with `tag_ttl` 5 s."""
    cold: int
    """Moorage without a cache."""
    plain: int
    registries: dict[str, int]
    fixed: int | None = None
    in_the_module: int | None = None
    """Moorage without the native hasher, where there is one."""


def manifest_contests(ports, name, tag, digest, seconds):
    """Reading one manifest in every way."""
    by_digest, by_tag = f"/v2/{name}/manifests/{digest}", f"/v2/{name}/manifests/{tag}"
    content = f"/registry/{content_key(digest)}"
    condition = f'If-None-Match: "{digest}"'
    contests = []
    for connections in CONNECTIONS:

        def cell(port, path, connections=connections, **more):
            target = Target(port, path, headers=(ACCEPT, *more.pop("headers", ())), **more)
            return Cell(lambda: requests_per_second(target, connections, seconds))

        def others(path, cell=cell, **more):
            return {who: cell(port, path, **more) for who, port in ports.registries.items()}

        def row(work, port, path, peers, cell=cell, connections=connections, **more):
            cells = {MOORAGE: cell(port, path, **more), **peers}
            contests.append(Contest(f"{work}, {ports.store}", connections, "requests/s", cells))

        plain = {PLAIN: cell(ports.plain, content)}
        fixed = {FIXED: cell(ports.fixed, by_digest)} if ports.fixed else {}
        digest_peers = {**others(by_digest), **plain}
        tag_peers = {**others(by_tag), **plain}
        row("manifest by digest", ports.moorage, by_digest, {**digest_peers, **fixed})
        row("manifest by digest, no cache", ports.cold, by_digest, digest_peers)
        row("manifest by tag", ports.moorage, by_tag, tag_peers)
        if ports.fixed:
            row("manifest by tag, `tag_ttl` 5 s", ports.hasty, by_tag, tag_peers)
            head = {"method": "HEAD"}
            row("`HEAD` by digest", ports.moorage, by_digest, others(by_digest, **head), **head)
            known = {"headers": (condition,), "status": 304}
            row("304 by digest", ports.moorage, by_digest, others(by_digest, **known), **known)
    return contests


def measure(contests, rounds, tell):
    """Measures every cell once a round, those of a contest one after the other."""
    in_turn = {}
    for contest in contests:
        for subject, cell in contest.cells.items():
            title = f"{contest.work} ({contest.connections}): {subject}"
            in_turn.setdefault(id(cell), (title, cell))
    for number in range(rounds):
        for index, (title, cell) in enumerate(in_turn.values()):
            tell(f"round {number + 1} of {rounds}, {index + 1} of {len(in_turn)}: {title}")
            cell.samples.append(cell.measure())
