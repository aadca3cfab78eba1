"""Where the time of an answer from the cache goes, `./build.sh profile`.

Three views of it: instructions of the native build under callgrind, which are the same on every machine
and in every run; the module in V8 with a stand-in for Envoy; and how long Envoy takes to load the module.
What it costs within Envoy, the benchmark tells.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import bootstraps
from servers import Servers

KINDS = ("by-digest", "by-tag", "304-by-digest")
PROFILED = KINDS[0]
SHOWN = 15
COUNTS = (1000, 3000)
STARTS = 5
WORKERS = (1, 8)
OUTPUT = bootstraps.TOP / "target/profile"


def main():
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        text = "\n\n".join([native(Path(folder)), in_v8(), loading()])
    (OUTPUT / "README.md").write_text(text + "\n")
    print(text)
    print(f"==> Kept in {OUTPUT}: README.md")


def native(folder):
    """Instructions of the native build."""
    rows = [(kind, f"{instructions(folder, kind):,}") for kind in KINDS]
    annotate = ["callgrind_annotate", "--auto=no", str(folder / f"{PROFILED}.{COUNTS[1]}")]
    functions = []
    for line in _run(annotate).splitlines():
        if found := re.match(r"\s*([\d,]+) \([ \d.]+%\)\s+[^:]*:(.*?)(?: \[.*)?$", line):
            functions.append((f"`{found[2]}`", f"{int(found[1].replace(',', '')) // COUNTS[1]:,}"))
    return "\n\n".join(
        [
            "Natively, without the filter's own part:",
            _table(("answer", "instructions"), rows),
            _table((f"function, {PROFILED}", "instructions"), functions[:SHOWN]),
        ]
    )


def instructions(folder, kind):
    """What one more request takes, which leaves out what happens once."""
    few, many = (_instructions_of(folder, kind, count) for count in COUNTS)
    return (many - few) // (COUNTS[1] - COUNTS[0])


def _instructions_of(folder, kind, count):
    output = folder / f"{kind}.{count}"
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]
    _run([*valgrind, os.environ["MOORAGE_HOT_PATH"], kind, str(count)])
    return int(re.search(r"^(?:totals|summary): (\d+)", output.read_text(), re.MULTILINE)[1])


def in_v8():
    """The module's own cost. Envoy's V8 has no baseline compiler and compiles all of a module at once."""
    host = str(Path(__file__).with_name("host.mjs"))
    options = ["--no-liftoff", "--no-wasm-lazy-compilation"]
    command = ["node", *options, host, os.environ["MOORAGE_WASM"]]
    found = {kind: json.loads(_run([*command, kind])) for kind in KINDS}
    rows = [(kind, f"{one['microseconds']:.2f} µs", _calls(one)) for kind, one in found.items()]
    names, shares = zip(*found[PROFILED]["functions"][:SHOWN])
    functions = zip((f"`{name}`" for name in _demangled(names)), (f"{share:.1%}" for share in shares))
    return "\n\n".join(
        [
            "As wasm in V8, with a stand-in for Envoy:",
            _table(("answer", "time", "calls to the host"), rows),
            _table((f"function, {PROFILED}", "time"), functions),
        ]
    )


def _calls(found):
    return ", ".join(f"{name.removeprefix('proxy_')} {n}" for name, n in found["calls"].items())


def _demangled(names):
    if not shutil.which("c++filt"):
        return names
    found = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True)
    return found.stdout.splitlines()


def loading():
    """How long Envoy takes until it is ready."""
    texts = {
        "without a filter": bootstraps.plain(1),
        "with a fixed reply": bootstraps.fixed_reply(os.environ["MOORAGE_FIXED_REPLY"], "{}"),
        "with Moorage": bootstraps.moorage(1, os.environ["MOORAGE_WASM"]),
    }
    times = {(what, workers): [] for what in texts for workers in WORKERS}
    for number in range(STARTS):
        for (what, workers), found in times.items():
            found.append(_milliseconds_to_start(texts[what], workers))
    rows = [
        (what, *(f"{statistics.median(times[what, workers]):,.0f} ms" for workers in WORKERS))
        for what in texts
    ]
    size = Path(os.environ["MOORAGE_WASM"]).stat().st_size
    return "\n\n".join(
        [
            f"Until Envoy is ready; the module, with its names, has {size // 1024:,} KiB:",
            _table(("", *(f"--concurrency {workers}" for workers in WORKERS)), rows),
        ]
    )


def _milliseconds_to_start(bootstrap, workers):
    with tempfile.TemporaryDirectory() as folder, Servers(folder) as servers:
        start = time.perf_counter()
        servers.envoy("envoy", bootstrap, workers)
        return (time.perf_counter() - start) * 1000


def _table(head, rows):
    aligned = ["---", *("--:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, aligned, *rows))


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {done.stderr or done.stdout}")
    return done.stdout


main()
