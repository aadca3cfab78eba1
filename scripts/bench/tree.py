"""What lies in the buckets that are measured. The layout is that of `src/store/layout.rs`."""

import hashlib
import json
from pathlib import Path

ROOT = "docker/registry/v2"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def content_key(digest):
    hexadecimal = digest.removeprefix("sha256:")
    return f"{ROOT}/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"


def descriptor(digest, size, media_type="application/vnd.oci.image.layer.v1.tar+gzip"):
    return {"mediaType": media_type, "digest": digest, "size": size}


def image(layers, config, note="", subject=None):
    """An OCI image manifest."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {**config, "mediaType": "application/vnd.oci.image.config.v1+json"},
        "layers": layers,
        "annotations": {"note": note},
    }
    if subject:
        manifest["subject"] = subject
    return json.dumps(manifest, separators=(",", ":")).encode()


class Tree:
    """A bucket, written through `put(key, content)`."""

    def __init__(self, put):
        self.put = put

    def blob(self, name, content):
        """Puts a blob into a repository. Gives its descriptor."""
        digest = digest_of(content)
        self.put(content_key(digest), content)
        blob = descriptor(digest, len(content))
        self.link(name, blob)
        return blob

    def link(self, name, blob):
        """Puts a blob that is in one repository into another, too."""
        self._link(f"{name}/_layers/{blob['digest'].replace(':', '/')}", blob["digest"])

    def manifest(self, name, content):
        """Puts a manifest into a repository. Gives its descriptor."""
        digest = digest_of(content)
        self.put(content_key(digest), content)
        self._link(f"{name}/_manifests/revisions/{digest.replace(':', '/')}", digest)
        return descriptor(digest, len(content), MANIFEST_TYPE)

    def tags(self, name, tags, digest):
        """Points tags at a manifest."""
        for tag in tags:
            self._link(f"{name}/_manifests/tags/{tag}/current", digest)
            self._link(f"{name}/_manifests/tags/{tag}/index/{digest.replace(':', '/')}", digest)

    def referrers(self, name, subject, count):
        """Lists so many manifests, which need not be there, as referrers of a subject."""
        place = f"{name}/_manifests/referrers/{subject.replace(':', '/')}"
        for number in range(count):
            digest = digest_of(b"%d" % number)
            entry = descriptor(digest, 500, MANIFEST_TYPE)
            entry["artifactType"] = "application/vnd.example.signature"
            key = f"{ROOT}/repositories/{place}/{digest.replace(':', '/')}/link"
            self.put(key, json.dumps(entry).encode())

    def _link(self, folder, digest):
        self.put(f"{ROOT}/repositories/{folder}/link", digest.encode())


def into_folder(bucket):
    """Writes objects as files below `bucket`."""

    def put(key, content):
        path = Path(bucket, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return put
