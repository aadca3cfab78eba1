"""Envoy's bootstraps: `envoy/local.yaml` with changes, but for that of an edge node."""

import os
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
MOORAGE = "                  - name: moorage\n"


def moorage(store_port, wasm, cache="", signed=False, access="", telemetry="", is_logged=False, hashes_natively=True):
    """The filter as `./build.sh run` has it, but for its access log, which goes nowhere if there is to be one; `cache`,
    `access` and `telemetry` are the plugin's fields of these names, as JSON. `hashes_natively`: with the native hasher,
    where there is one."""
    text = _local(store_port, signed, access, is_logged).replace("filename: moorage.wasm", f"filename: {wasm}")
    for name, value in (("cache", cache), ("telemetry", telemetry)):
        if value:
            text = _replace(text, '"store": {', f'"{name}": {value}, "store": {{')
    library = os.environ.get("MOORAGE_NATIVE_HASH_LIBRARY")
    if library and hashes_natively:
        hasher = (TOP / "envoy/native-hash.yaml").read_text()
        hasher = hasher.replace("/usr/local/lib/libmoorage_native_hash.so", library)
        text = _replace(text, MOORAGE, f"{hasher}{MOORAGE}")
    return text


def fixed_reply(wasm, body):
    """A filter that only sends `body`, one line of text."""
    text = _local(1, signed=False).replace("filename: moorage.wasm", f"filename: {wasm}")
    start = text.index("value: |")
    end = text.index("- name: envoy.filters.http.router")
    indent = " " * 28
    rest = text[text.rindex("\n", 0, end) :]
    return f"{text[:start]}value: |-\n{indent}{body}{rest}"


def plain(store_port, signed=False):
    """No filter: whatever is asked for goes to the store."""
    text = _local(store_port, signed)
    start = text.index("- name: moorage\n")
    end = text.index("- name: envoy.filters.http.router")
    text = text[:start] + text[end:]
    return _replace(text, "route: { cluster: nowhere }", "route: { cluster: blob_store, timeout: 0s }")


def edge(store_port, wasm, folder):
    """What `moorage bootstrap` makes for an edge node that keeps blobs in `folder`."""
    return _from_settings(
        store_port,
        wasm,
        "read_only: true",
        "cache: { tag_ttl: 30s, stale_if_error: 1h }",
        f"edge: {{ disk_cache: {folder}, disk_cache_bytes: 4294967296 }}",
    )


def for_many(store_port, wasm, tls):
    """What `moorage bootstrap` makes for very many connections. `tls`: the files of a certificate and of its key, or `None`."""
    files = [f"tls: {{ certificate: {tls[0]}, key: {tls[1]} }}"] if tls else []
    return _from_settings(store_port, wasm, "max_connections: 0", "max_heap_bytes: 0", *files)


def _from_settings(store_port, wasm, *more):
    """What `moorage bootstrap` makes. All requests come from one address here, which therefore may ask as often as it
    likes."""
    settings = [
        "listen: 127.0.0.1:0",
        "admin: 127.0.0.1:0",
        f"endpoint: http://127.0.0.1:{store_port}",
        "credentials: none",
        f"module: {wasm}",
        'access_log: "off"',
        "admin_paths: all",
        "requests_per_second: 0",
        "limits: { streams_per_client: 0 }",
        *more,
    ]
    command = [os.environ["MOORAGE_CLI"], "bootstrap", "--config", "/dev/stdin"]
    done = subprocess.run(command, input="\n".join(settings), stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _local(store_port, signed, access="", is_logged=False):
    text = (TOP / "envoy/local.yaml").read_text()
    # Envoy chooses free ports and tells which.
    text = text.replace("port_value: 5000", "port_value: 0").replace("port_value: 9901", "port_value: 0")
    text = text.replace("port_value: 5002", f"port_value: {store_port}")
    text = text.replace('"127.0.0.1:5002"', f'"127.0.0.1:{store_port}"')
    if access:
        text = _replace(text, '"legacy": {}', f'"legacy": {{}}, "access": {access}')
    if signed:
        text = _signing(text, store_port)
    if is_logged:
        return text.replace("path: access.log", "path: /dev/null")
    # The peers write none either, and what Envoy takes for its lines is not what is compared.
    start, end = text.index("                access_log:"), text.index("                # The client is who connects")
    text = text[:start] + text[end:]
    return text


def _signing(text, store_port):
    """The filters of `envoy/production.yaml` that sign what goes to the store."""
    production = (TOP / "envoy/production.yaml").read_text()
    filters = production[production.index("          http_filters:\n            # An upstream filter") :]
    filters = filters.replace("s3.eu-central-1.amazonaws.com", f'"127.0.0.1:{store_port}"')
    filters = filters.replace("region: eu-central-1", "region: us-east-1")
    codec = "            http_protocol_options: {}\n"
    return _replace(text, codec, codec + filters)


def _replace(text, piece, replacement):
    if piece not in text:
        raise LookupError(f"{piece!r} is not in envoy/local.yaml")
    return text.replace(piece, replacement)
