"""Whether all dependencies work with the oldest Rust that Moorage says it does (`rust-version`).

What of the standard library Moorage itself uses is held by clippy's lint `incompatible_msrv`.
"""

import json
import subprocess
import sys


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in (text + ".0.0").split(".")[:3])


def main() -> int:
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    packages = json.loads(subprocess.check_output(command))["packages"]
    ours = {p["name"]: p["rust_version"] for p in packages if p["source"] is None}
    oldest = min(map(version, ours.values()))
    newer = [p for p in packages if p["rust_version"] and version(p["rust_version"]) > oldest]
    for package in newer:
        print(f"{package['name']} {package['version']} needs Rust {package['rust_version']}")
    if newer:
        print("take older versions of them, or raise rust-version in Cargo.toml")
        return 1
    print(f"all {len(packages)} packages work with Rust {'.'.join(map(str, oldest))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
