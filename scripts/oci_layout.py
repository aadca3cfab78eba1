#!/usr/bin/env python3
"""Packs the module as OCI layouts, which a client pushes to a registry as they are.

usage: scripts/oci_layout.py image|artifact MODULE FOLDER

image     an image for amd64 and arm64 whose one layer holds the module as `plugin.wasm`: the form that Istio and
          Envoy Gateway fetch, and that Kubernetes mounts as a volume
artifact  the module itself as the one blob of an artifact, as CNCF's "Wasm OCI Artifact layout" has it

The layout names what it holds by the version in Cargo.toml. The same module gives the same layout: files have no
time and no owner. The image's layer is compressed by Python's zlib, of which another version may give other bytes.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
IMAGE_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
WASM_CONFIG = "application/vnd.wasm.config.v0+json"
WASM_LAYER = "application/wasm"

# The name that Istio and Envoy Gateway look for in the layer.
MODULE_IN_IMAGE = "plugin.wasm"

# The module runs everywhere, but what mounts an image wants one for the machine's own platform.
ARCHITECTURES = ["amd64", "arm64"]

# Both kinds of configuration must have a time. Any other would make each build's digest another one.
CREATED = "1970-01-01T00:00:00Z"

Json = dict[str, Any]


class Layout:
    """A folder as the OCI image specification's "Image Layout" has it."""

    def __init__(self, folder: Path) -> None:
        self.blobs = folder / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        self.folder = folder
        write_json(folder / "oci-layout", {"imageLayoutVersion": "1.0.0"})

    def add(self, media_type: str, content: bytes) -> Json:
        """Adds a blob, and gives its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        (self.blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_json(self, media_type: str, value: Json) -> Json:
        return self.add(media_type, encoded(value))

    def name(self, descriptor: Json, version: str) -> None:
        """Names what the layout holds."""
        named = descriptor | {"annotations": {"org.opencontainers.image.ref.name": version}}
        write_json(self.folder / "index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]})


def encoded(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def write_json(path: Path, value: Json) -> None:
    path.write_bytes(encoded(value))


def tar_of(name: str, content: bytes) -> bytes:
    """A tar archive of one file that everybody may read, without a time or an owner."""
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(content), 0o444
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(file, io.BytesIO(content))
    return archive.getvalue()


def manifest(config: Json, layer: Json, annotations: Json) -> Json:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
        "annotations": annotations,
    }


def add_image(layout: Layout, module: bytes, annotations: Json) -> Json:
    archive = tar_of(MODULE_IN_IMAGE, module)
    layer = layout.add(IMAGE_LAYER, gzip.compress(archive, mtime=0))
    manifests = []
    for architecture in ARCHITECTURES:
        config = {
            "created": CREATED,
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(archive).hexdigest()}"]},
        }
        image = manifest(layout.add_json(IMAGE_CONFIG, config), layer, annotations)
        platform = {"platform": {"os": "linux", "architecture": architecture}}
        manifests.append(layout.add_json(MANIFEST, image) | platform)
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": annotations}
    return layout.add_json(INDEX, index)


def add_artifact(layout: Layout, module: bytes, annotations: Json) -> Json:
    layer = layout.add(WASM_LAYER, module)
    config = {
        "created": CREATED,
        # The layout's names for a module that is no component. This one asks no WASI of its host.
        "architecture": "wasm",
        "os": "wasip1",
        "layerDigests": [layer["digest"]],
    }
    return layout.add_json(MANIFEST, manifest(layout.add_json(WASM_CONFIG, config), layer, annotations))


def described() -> Json:
    """What Cargo.toml says of the module, as annotations."""
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    shared = cargo["workspace"]["package"]
    return {
        "org.opencontainers.image.title": cargo["package"]["name"],
        "org.opencontainers.image.description": cargo["package"]["description"],
        "org.opencontainers.image.licenses": shared["license"],
        "org.opencontainers.image.version": shared["version"],
    }


def main() -> None:
    forms = {"image": add_image, "artifact": add_artifact}
    match sys.argv[1:]:
        case [form, module, folder] if form in forms:
            content = Path(module).read_bytes()
            if not content.startswith(b"\0asm"):
                sys.exit(f"oci_layout.py: {module} is no WebAssembly module")
            annotations = described()
            layout = Layout(Path(folder))
            descriptor = forms[form](layout, content, annotations)
            layout.name(descriptor, annotations["org.opencontainers.image.version"])
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
