"""What metrics and the record for the access log cost: a cached manifest with and without them."""

import bootstraps
from contests import ACCEPT, MOORAGE, SILENT, Cell, Contest
from load import Target, requests_per_second

OFF = '{ "metrics": false, "log_fields": false }'


def contests(servers, store, wasm, name, digest, seconds):
    """The contests between Envoys with telemetry and without, once with no access log and once with one."""
    path = f"/v2/{name}/manifests/{digest}"

    def cell(server, **settings):
        port, _ = servers.envoy(server, bootstraps.moorage(store, wasm, **settings))
        return Cell(lambda: requests_per_second(Target(port, path, headers=(ACCEPT,)), 16, seconds))

    def contest(work, **settings):
        label = "logged" if settings else "unlogged"
        told = cell(f"moorage-told-{label}", **settings)
        silent = cell(f"moorage-silent-{label}", telemetry=OFF, **settings)
        return Contest(work, 16, "requests/s", {MOORAGE: told, SILENT: silent})

    return [
        contest("manifest by digest, telemetry on and off"),
        contest("the same with an access log", is_logged=True),
    ]
