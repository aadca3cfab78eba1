"""What the run found, as Markdown and CSV, and which bars it clears."""

import csv
import io
import statistics
from dataclasses import dataclass

import access
import collection
import cores
import edge
import images
from contests import (
    DISTANT,
    DISTRIBUTION,
    DOCKER_REGISTRY,
    FIXED,
    MOORAGE,
    OPEN,
    PLAIN,
    SUBJECTS,
    UNTROUBLED,
)


@dataclass(frozen=True)
class Bar:
    """What Moorage wants to reach, and what it did."""

    text: str
    found: str
    is_reached: bool


def median(cell):
    return statistics.median(sample.value for sample in cell.samples)


def p99(cell):
    figures = [sample.p99_ms for sample in cell.samples if sample.p99_ms is not None]
    return statistics.median(figures) if figures else None


def bars(contests, growths):
    """The bars that this run can tell about."""
    by_title = {(contest.work, contest.connections): contest for contest in contests}

    def ratio(*bar):
        return _ratio(by_title, *bar)

    yield from ratio("manifest by digest, local store", 16, DOCKER_REGISTRY, 10)
    yield from ratio("manifest by digest, local store", 16, FIXED, 0.85)
    yield from ratio("manifest by tag, Garage", 16, DISTRIBUTION, 2)
    yield from ratio("blob of 1 MiB, pull", 16, PLAIN, 0.95)
    yield from ratio("blob of 256 MiB, pull", 1, PLAIN, 0.95)
    yield from ratio("blob of 64 MiB, push, length known, local store", 1, PLAIN, 0.85)
    yield from ratio("blob of 64 MiB, push, length unknown, local store", 1, PLAIN, 0.75)
    yield from ratio("blob of 64 MiB, push, length unknown, local store", 1, DOCKER_REGISTRY, 1.3)
    yield from ratio("blob of 64 MiB, push, length unknown, Garage", 1, DISTRIBUTION, 1)
    yield from ratio("manifest by digest with a token", 16, OPEN, 0.85)
    yield from ratio(f"the same while {access.GUESSES} connections guess passwords", 16, UNTROUBLED, 0.5)
    yield from edge_bars(contests)
    cached = by_title["manifest by digest, local store", 16].cells[MOORAGE]
    text = "manifest by digest, 16 connections: 99th percentile below 3 ms"
    yield Bar(text, f"{p99(cached):.2f} ms", p99(cached) < 3)
    for work in ("page of 100 tags", "pull by tag", "put by tag"):
        # A page of ten tags is no whole page.
        found = {g.size: max(g.calls) for g in growths if g.work == work and g.size > 100}
        text = f"{work}: as many calls to the store among {max(found):,} tags as among {min(found):,}"
        is_same = found[max(found)] <= found[min(found)]
        yield Bar(text, f"{found[max(found)]} and {found[min(found)]}", is_same)


def edge_bars(contests):
    """The bars of an edge node."""
    by_title = {(contest.work, contest.connections): contest for contest in contests}
    for work, connections in ((edge.SMALL, 16), (edge.LARGE, 1)):
        yield from _ratio(by_title, work, connections, PLAIN, 0.9)
        yield from _ratio(by_title, work, connections, DISTANT, 5)


def _ratio(by_title, work, connections, peer, least):
    contest = by_title.get((work, connections))
    if contest is None or peer not in contest.cells:
        return
    found = median(contest.cells[MOORAGE]) / median(contest.cells[peer])
    plural = "s" if connections > 1 else ""
    text = f"{work}, {connections} connection{plural}: at least {least:g} × {peer}"
    yield Bar(text, f"{found:.2f}", found >= least)


def contest_table(contests):
    """One row a contest, one column a server; in brackets how many times as fast Moorage is."""
    subjects = [who for who in SUBJECTS if any(who in contest.cells for contest in contests)]
    lines = [
        f"| | connections | {' | '.join(subjects)} | p99 of Moorage |",
        f"| --- | --: |{' --: |' * len(subjects)} --: |",
    ]
    for contest in contests:
        own = median(contest.cells[MOORAGE])
        cells = [_cell(contest.cells.get(who), own, who) for who in subjects]
        high = p99(contest.cells[MOORAGE])
        tail = f"{high:.2f} ms" if high is not None else ""
        work = f"{contest.work}, {contest.unit}"
        lines.append(f"| {work} | {contest.connections} | {' | '.join(cells)} | {tail} |")
    return "\n".join(lines)


def _cell(cell, own, who):
    if cell is None:
        return ""
    value = median(cell)
    text = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return text if who == MOORAGE else f"{text} ({own / value:.2f})"


def peers_ahead(contests):
    """The rows in which another registry is faster, as a list, the largest lead first."""
    found = []
    for contest in contests:
        own = median(contest.cells[MOORAGE])
        for who in (DOCKER_REGISTRY, DISTRIBUTION):
            if who in contest.cells and (ratio := own / median(contest.cells[who])) < 1:
                found.append((ratio, f"{contest.work}, {contest.connections} at once: {who}"))
    lines = [f"- {text}; Moorage reaches {ratio:.2f} of it" for ratio, text in sorted(found)]
    return "\n".join(lines) or "- none"


def growth_table(growths):
    lines = ["| | size | time | calls to the store |", "| --- | --: | --: | --: |"]
    for growth in growths:
        time = statistics.median(growth.milliseconds)
        calls = statistics.median(growth.calls)
        lines.append(
            f"| {growth.work} | {growth.size:,} {growth.of} | {time:,.2f} ms | {calls:,.0f} |"
        )
    return "\n".join(lines)


def bar_table(found):
    lines = ["| bar | found | |", "| --- | --: | --- |"]
    for bar in found:
        lines.append(f"| {bar.text} | {bar.found} | {'✓' if bar.is_reached else '✗ missed'} |")
    return "\n".join(lines)


def markdown(machine, contests, growths):
    """Everything, ready for docs/benchmarks.md."""
    return "\n\n".join(
        [
            f"{machine} Medians; in brackets how many times as fast Moorage is.",
            contest_table(contests),
            "Where another registry is ahead:",
            peers_ahead(contests),
            "As a repository grows:",
            growth_table(growths),
            "What Moorage wants to reach, and did:",
            bar_table(bars(contests, growths)),
        ]
    )


def images_markdown(rows):
    """What pulls and pushes of whole images cost, ready for docs/benchmarks.md."""
    if not rows:
        return "Whole images were not measured: crane is not there."
    return "\n\n".join(
        [
            "Whole images of 12 layers; in brackets what share of the other's Moorage has:",
            _images_table(rows),
            "What Moorage wants to reach, and did:",
            bar_table(_images_bars(rows)),
        ]
    )


FIGURES = {"seconds": "time, s", "processor_seconds": "processor time of the servers, s", "mebibytes": "memory, MiB"}


def _images_table(rows):
    lines = [f"| | at once | by | {' | '.join(FIGURES.values())} |", "| --- | --: | --- | --: | --: | --: |"]
    for own, peer in _pairs(rows):
        title = f"{own.work}, {own.store} | {own.clients}"
        cells = [f"{own.median(figure):,.2f}" for figure in FIGURES]
        lines.append(f"| {title} | {MOORAGE} | {' | '.join(cells)} |")
        cells = [f"{peer.median(figure):,.2f} ({own.median(figure) / peer.median(figure):.2f})" for figure in FIGURES]
        lines.append(f"| {title} | {peer.subject} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _images_bars(rows):
    for own, peer in _pairs(rows):
        what = f"{own.work}, {own.store}, {own.clients} at once"
        if own.work != images.PUSH:
            most = 0.5 if own.store == images.LOCAL else 0.7
            share = own.median("seconds") / peer.median("seconds")
            yield Bar(f"{what}: at most {most} of the time of {peer.subject}", f"{share:.2f}", share <= most)
            share = own.median("processor_seconds") / peer.median("processor_seconds")
            yield Bar(f"{what}: less processor time than {peer.subject}", f"{share:.2f}", share < 1)
        else:
            share = own.median("seconds") / peer.median("seconds")
            yield Bar(f"{what}: no longer than {peer.subject}", f"{share:.2f}", share <= 1)


def _pairs(rows):
    """Each row of Moorage with that of whom it is compared with."""
    by_work = {}
    for row in rows:
        by_work.setdefault((row.work, row.store, row.clients), []).append(row)
    return by_work.values()


def images_csv(rows):
    """Every single sample."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["work", "store", "clients", "subject", "round", *FIGURES])
    for row in rows:
        for number, run in enumerate(row.runs, 1):
            figures = [f"{getattr(run, figure):.3f}" for figure in FIGURES]
            lines.writerow([row.work, row.store, row.clients, row.subject, number, *figures])
    return text.getvalue()


def cores_markdown(rows):
    """What many workers and connections reach, ready for docs/benchmarks.md."""
    if not rows:
        return "Many connections were not measured: vegeta is not there."
    about = f"{cores.BUSY} connections with requests beside {cores.IDLE:,} without; the times at half of the greatest rate:"
    return f"{about}\n\n{_cores_table(rows)}"


def _cores_table(rows):
    shares = [f"{100 * share:g}% below" for share in cores.PERCENTILES]
    lines = [
        f"| | by | answers/s at most | {' | '.join(shares)} | memory |",
        f"| --- | --- | --: |{' --: |' * len(shares)} --: |",
    ]
    for row in rows:
        times = [f"{latency:.2f} ms" for latency in row.latencies]
        cells = [f"{row.work}, {row.transport}", row.subject, f"{row.most:,.0f}", *times, f"{row.mebibytes:,.0f} MiB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cores_csv(rows):
    """Every single sample."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["work", "transport", "subject", "round", "most", *(f"p{100 * share:g}_ms" for share in cores.PERCENTILES), "mebibytes"])
    for row in rows:
        for number, run in enumerate(row.runs, 1):
            figures = [f"{run.most:.1f}", *(f"{latency:.3f}" for latency in run.latencies), f"{run.mebibytes:.1f}"]
            lines.writerow([row.work, row.transport, row.subject, number, *figures])
    return text.getvalue()


def collection_markdown(collections, disturbances):
    """What collecting garbage costs, ready for docs/benchmarks.md."""
    return "\n\n".join(
        [
            "A dry run of garbage collection:",
            _collection_table(collections),
            "What else is done while garbage is collected; in brackets the share of what it is alone:",
            _disturbance_table(disturbances),
            "What Moorage wants to reach, and did:",
            bar_table(_collection_bars(collections, disturbances)),
        ]
    )


def _collection_table(collections):
    lines = [
        "| | objects | by | time | processor time | memory | calls to the store |",
        "| --- | --: | --- | --: | --: | --: | --: |",
    ]
    for row in collections:
        calls = f"{row.median('calls'):,.0f}" if row.runs[0].calls is not None else ""
        times = [f"{row.median(what):.2f} s" for what in ("seconds", "processor_seconds")]
        memory = f"{row.median('mebibytes'):,.0f} MiB"
        cells = [row.work, f"{row.objects:,}", row.subject, *times, memory, calls]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _disturbance_table(disturbances):
    ways = list(disturbances[0].samples)
    lines = [f"| | {' | '.join(ways)} |", f"| --- |{' --: |' * len(ways)}"]
    for row in disturbances:
        alone = row.median(collection.ALONE)
        cells = [f"{row.work}, {row.unit}", f"{alone:,.0f}"]
        cells += [f"{row.median(way):,.0f} ({row.median(way) / alone:.2f})" for way in ways[1:]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _collection_bars(collections, disturbances):
    largest = max(collections, key=lambda row: row.objects)
    memory = max(run.mebibytes for row in collections if row.objects == largest.objects for run in row.runs)
    text = f"a dry run of {largest.objects:,} objects: less than 1 GiB of memory"
    yield Bar(text, f"{memory:,.0f} MiB", memory < 1024)
    by_size = {row.objects: row for row in collections if row.work == collection.FIRST}
    sizes = sorted(by_size)
    for small, large in zip(sizes, sizes[1:]):
        more = by_size[large].median("processor_seconds") / by_size[small].median("processor_seconds")
        text = f"a dry run of {large:,} objects: no more processor time for an object than at {small:,}"
        share = more * small / large
        # So much is within what two runs differ by.
        yield Bar(text, f"{share:.2f} ×", share < 1.1)
    for work, peer in ((collection.SAME_BUCKET, DISTRIBUTION), (collection.SAME_FOLDER, DOCKER_REGISTRY)):
        seconds = {row.subject: row.median("seconds") for row in collections if row.work == work}
        if seconds:
            ratio = seconds[peer] / seconds[MOORAGE]
            text = f"a dry run, {work}: at least as fast as {peer}"
            yield Bar(text, f"{ratio:.2f} ×", ratio >= 1)
    for row in disturbances:
        share = row.median(collection.BESIDE) / row.median(collection.ALONE)
        text = f"{row.work}, beside a collection: at least 0.9 of what it is alone"
        yield Bar(text, f"{share:.2f}", share >= 0.9)


def collection_csv(collections, disturbances):
    """Every single sample."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["work", "objects", "subject", "unit", "round", "value"])
    for row in collections:
        for number, run in enumerate(row.runs, 1):
            title = [row.work, row.objects, row.subject]
            rows.writerow([*title, "s", number, f"{run.seconds:.3f}"])
            rows.writerow([*title, "s of a processor", number, f"{run.processor_seconds:.3f}"])
            rows.writerow([*title, "MiB", number, f"{run.mebibytes:.1f}"])
            if run.calls is not None:
                rows.writerow([*title, "calls", number, run.calls])
    for row in disturbances:
        for way, samples in row.samples.items():
            for number, sample in enumerate(samples, 1):
                rows.writerow([row.work, "", way, row.unit, number, f"{sample.value:.1f}"])
    return text.getvalue()


def as_csv(contests, growths):
    """Every single sample."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["work", "connections", "subject", "unit", "round", "value", "p99_ms"])
    for contest in contests:
        for who, cell in contest.cells.items():
            for number, sample in enumerate(cell.samples, 1):
                title = [contest.work, contest.connections, who, contest.unit]
                rows.writerow([*title, number, f"{sample.value:.1f}", sample.p99_ms or ""])
    for growth in growths:
        title = [f"{growth.work}, {growth.size} {growth.of}", 1, MOORAGE]
        for number, (time, calls) in enumerate(zip(growth.milliseconds, growth.calls), 1):
            rows.writerow([*title, "ms", number, f"{time:.2f}", ""])
            rows.writerow([*title, "calls", number, calls, ""])
    return text.getvalue()
