#!/usr/bin/env python3
"""Lists the crates that a built file is made of, as CycloneDX 1.5 in JSON.

usage: scripts/sbom.py PACKAGE FILE [ARGUMENT...] >LIST

PACKAGE is the package of the workspace that FILE was built from; the arguments are those that cargo had to choose
what goes into it (--target, --features, --no-default-features).

The crates are those that `cargo tree` finds: linked into the file on its target, with the features they have there.
`cargo metadata` alone, on which `cargo cyclonedx` relies, also names what only the tests switch on. Procedural macros,
build scripts and the standard library are not listed. The same sources give the same list: it has no time in it.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Crate(NamedTuple):
    """A package as `cargo tree` names it."""

    name: str
    version: str

    @property
    def purl(self) -> str:
        return f"pkg:cargo/{self.name}@{self.version}"


Tree = dict[Crate, list[Crate]]


def cargo(*arguments: str) -> str:
    command = ["cargo", *arguments, "--locked"]
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        sys.exit(f"sbom.py: '{' '.join(command)}' failed; see its message above")
    return process.stdout


def linked_crates(package: str, arguments: list[str]) -> tuple[Crate, Tree]:
    """The package itself, and every crate that is linked into it with the crates which that one needs."""
    lines = cargo(
        "tree", "--package", package, "--edges", "normal,no-proc-macro",
        "--prefix", "depth", "--format", " {p}", *arguments,
    ).splitlines()  # fmt: skip
    return read_tree(lines)


def read_tree(lines: list[str]) -> tuple[Crate, Tree]:
    """Reads lines such as `2 name v1.0.0 (/source) (*)`, which begin with the depth in the tree.

    `(*)` marks a crate whose own needs stand in an earlier line.
    """
    tree: Tree = {}
    path: list[Crate] = []
    for line in lines:
        match = re.match(r"(\d+) (\S+) v(\S+)", line)
        if not match:
            sys.exit(f"sbom.py: cargo tree printed a line that is not a crate: {line!r}")
        depth, crate = int(match[1]), Crate(match[2], match[3])
        tree.setdefault(crate, [])
        del path[depth:]
        if path and crate not in tree[path[-1]]:
            tree[path[-1]].append(crate)
        path.append(crate)
    return path[0], tree


def packages() -> dict[Crate, dict[str, Any]]:
    """What the packages' own manifests say, of all that Cargo.lock names."""
    found: dict[Crate, dict[str, Any]] = {}
    for package in json.loads(cargo("metadata", "--format-version", "1"))["packages"]:
        crate = Crate(package["name"], package["version"])
        if crate in found:
            sys.exit(f"sbom.py: two sources have {crate.purl}, which are not told apart here")
        found[crate] = package
    return found


def checksums(lock: str) -> dict[Crate, str]:
    """The SHA-256 sums in a Cargo.lock, which every crate from a registry has."""
    entry = re.compile(r'^name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "([0-9a-f]{64})"$', re.M)
    return {Crate(name, version): checksum for name, version, checksum in entry.findall(lock)}


def component(crate: Crate, package: dict[str, Any], checksum: str | None) -> dict[str, Any]:
    if not package["license"]:
        sys.exit(f"sbom.py: the manifest of {crate.purl} names no license: find out which, and say so here")
    described = {
        "type": "library",
        "bom-ref": crate.purl,
        "name": crate.name,
        "version": crate.version,
        # Older manifests write `MIT/Apache-2.0`.
        "licenses": [{"expression": package["license"].replace("/", " OR ")}],
        "purl": crate.purl,
    }
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    elif package["source"]:
        sys.exit(f"sbom.py: Cargo.lock has no checksum of {crate.purl}: only crates from a registry can be listed")
    return described


def sbom(package: str, file: Path, arguments: list[str]) -> dict[str, Any]:
    root, tree = linked_crates(package, arguments)
    manifests, sums = packages(), checksums((ROOT / "Cargo.lock").read_text())
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    # The file itself: the package's crate, with everything below linked in.
    whole = component(root, manifests[root], content) | {"type": "application", "name": file.name}
    parts = [component(crate, manifests[crate], sums.get(crate)) for crate in sorted(tree) if crate != root]
    needs = [
        {"ref": crate.purl, "dependsOn": sorted(needed.purl for needed in tree[crate])} for crate in sorted(tree)
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": whole},
        "components": parts,
        "dependencies": needs,
    }


def main() -> None:
    match sys.argv[1:]:
        case [package, file, *arguments]:
            json.dump(sbom(package, Path(file), arguments), sys.stdout, indent=2)
            print()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
