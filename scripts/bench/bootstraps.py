"""Envoy's bootstraps: all of them are `envoy/local.yaml` with changes."""

from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def moorage(store_port, wasm, cache="", signed=False, access="", telemetry="", is_logged=False):
    """The filter as `./build.sh run` has it, but for its access log, which goes nowhere if there is to be one; `cache`,
    `access` and `telemetry` are the plugin's fields of these names, as JSON."""
    text = _local(store_port, signed, access, is_logged).replace("${MOORAGE_WASM}", wasm)
    for name, value in (("cache", cache), ("telemetry", telemetry)):
        if value:
            text = _replace(text, '"store": {', f'"{name}": {value}, "store": {{')
    return text


def fixed_reply(wasm, body):
    """A filter that only sends `body`, one line of text."""
    text = _local(1, signed=False).replace("${MOORAGE_WASM}", wasm)
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


def _local(store_port, signed, access="", is_logged=False):
    text = (TOP / "envoy/local.yaml").read_text()
    # Envoy chooses free ports and tells which.
    text = text.replace("${MOORAGE_PORT}", "0").replace("${MOORAGE_ADMIN_PORT}", "0")
    text = text.replace("${MOORAGE_STORE_PORT}", str(store_port))
    text = text.replace("${MOORAGE_SCHEMA1_KEY}", "")
    text = text.replace("${MOORAGE_ACCESS}", f', "access": {access}' if access else "")
    if signed:
        cluster = "    - name: blob_store\n"
        signing = (TOP / "tests/envoy/support/signing.yaml").read_text()
        text = _replace(text, cluster, cluster + signing)
    if is_logged:
        return text.replace("${MOORAGE_ACCESS_LOG}", "/dev/null")
    # The peers write none either, and what Envoy takes for its lines is not what is compared.
    start, end = text.index("                access_log:"), text.index("                # Filters before Moorage")
    text = text[:start] + text[end:]
    return text


def _replace(text, piece, replacement):
    if piece not in text:
        raise LookupError(f"{piece!r} is not in envoy/local.yaml")
    return text.replace(piece, replacement)
