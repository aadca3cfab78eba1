"""The processes that are measured, each on ports of its own: started, waited for, ended."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ACCESS_KEY = "moorage-bench"
SECRET_KEY = "not-a-secret-at-all"


class Servers:
    """Starts processes, with their files in `folder`, and ends all of them at the end of a `with`."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.processes = {}
        self.garage_port = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait()

    def stop(self, name):
        """Ends a process, which may be started again by the same name."""
        process = self.processes.pop(name)
        process.terminate()
        process.wait()

    def processor_seconds(self, names):
        """What these processes have computed so far, all together."""
        ticks = 0
        for name in names:
            stat = self._proc(name, "stat").read_text().rpartition(")")[2].split()
            ticks += int(stat[11]) + int(stat[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def forget_peaks(self, names):
        """Has `peak_mebibytes` count from now on."""
        for name in names:
            self._proc(name, "clear_refs").write_text("5")

    def peak_mebibytes(self, names):
        """The most memory that each of these processes held at a time, all together."""
        peaks = (re.search(r"VmHWM:\s+(\d+) kB", self._proc(name, "status").read_text()) for name in names)
        return sum(int(peak[1]) for peak in peaks) / 1024

    def _proc(self, name, file):
        return Path(f"/proc/{self.processes[name].pid}/{file}")

    def envoy(self, name, bootstrap, workers=1):
        """Envoy. Gives the ports of its listener and of its admin page, once it is ready."""
        config, admin_file = self.folder / f"{name}.yaml", self.folder / f"{name}.admin"
        admin_file.unlink(missing_ok=True)
        config.write_text(bootstrap)
        options = "--disable-hot-restart --log-level error --concurrency".split()
        envoy = [os.environ["MOORAGE_ENVOY"], "--config-path", config, *options, str(workers)]
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        self._start(name, [*envoy, "--admin-address-path", admin_file], keys)
        admin = int(_wait(name, lambda: admin_file.read_text().rpartition(":")[2]))
        _wait(name, lambda: get(admin, "/ready"))
        listeners = json.loads(get(admin, "/listeners?format=json"))["listener_statuses"]
        return listeners[0]["local_address"]["socket_address"]["port_value"], admin

    def blob_store(self, root):
        """The local blob store, on the folder `root`. Gives its port."""
        port = _free_port()
        listen = ["--listen", f"127.0.0.1:{port}"]
        program = os.environ["MOORAGE_BLOB_STORE"]
        self._start(f"blob-store-{port}", [program, *listen, "--root", root])
        _wait("blob-store", lambda: socket.create_connection(("127.0.0.1", port)).close() or True)
        return port

    def synthetic_bucket(self, objects, latency=0):
        """A made-up registry of so many objects, in memory. Gives the port of its store, and what there is."""
        name = f"synthetic-bucket-{objects}-{latency}"
        options = ["--objects", str(objects), "--latency", str(latency)]
        self._start(name, [os.environ["MOORAGE_SYNTHETIC_BUCKET"], *options])
        log = self.folder / f"{name}.log"
        made = _wait(name, lambda: log.read_text().endswith("\n") and json.loads(log.read_text()))
        return int(made["listening"].rpartition(":")[2]), made

    def distance(self, port):
        """A line to the server on this port, as if that were far away. Gives the port of its near end."""
        name = f"distance-{port}"
        self._start(name, [sys.executable, Path(__file__).with_name("distance.py"), str(port)])
        return int(_wait(name, lambda: (self.folder / f"{name}.log").read_text()))

    def garage(self, program):
        """The one store Garage, with the bucket `registry`. Gives its port."""
        if self.garage_port:
            return self.garage_port
        port, rpc_port, folder = _free_port(), _free_port(), self.folder / "garage"
        config = self.folder / "garage.toml"
        config.write_text(
            f'metadata_dir = "{folder}/meta"\n'
            f'data_dir = "{folder}/data"\n'
            'db_engine = "lmdb"\n'
            "replication_factor = 1\n"
            f'rpc_bind_addr = "127.0.0.1:{rpc_port}"\n'
            f'rpc_secret = "{"0" * 64}"\n'
            "[s3_api]\n"
            's3_region = "us-east-1"\n'
            f'api_bind_addr = "127.0.0.1:{port}"\n'
        )
        environment = {
            "GARAGE_DEFAULT_ACCESS_KEY": ACCESS_KEY,
            "GARAGE_DEFAULT_SECRET_KEY": SECRET_KEY,
            "GARAGE_DEFAULT_BUCKET": "registry",
            "RUST_LOG": "error",
        }
        options = ["server", "--single-node", "--default-bucket"]
        self._start("garage", [program, "-c", config, *options], environment)
        _wait("garage", lambda: get(port, "/", any_status=True))
        self.garage_port = port
        return port

    def distribution(self, program, name, storage, tls=None):
        """A registry of CNCF Distribution, with its usual cache. `storage` is the driver, as YAML; `tls` the files of a
        certificate and of its key. Gives its port."""
        port, config = _free_port(), self.folder / f"{name}.yaml"
        files = f", tls: {{ certificate: '{tls[0]}', key: '{tls[1]}' }}" if tls else ""
        config.write_text(
            "version: 0.1\n"
            "log: { level: error, accesslog: { disabled: true } }\n"
            f"storage: {{ {storage}, cache: {{ blobdescriptor: inmemory }},"
            " delete: { enabled: true }, redirect: { disable: true } }\n"
            f"http: {{ addr: '127.0.0.1:{port}'{files} }}\n"
        )
        self._start(name, [program, "serve", config], {"OTEL_TRACES_EXPORTER": "none"})
        # By TLS it refuses what is asked plainly, but it answers.
        _wait(name, lambda: get(port, "/v2/", any_status=tls is not None))
        return port

    def _start(self, name, command, environment=None):
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes[name] = process


def s3_storage(port):
    """Distribution's driver for the bucket `registry` of a store on this machine."""
    return (
        f"s3: {{ accesskey: {ACCESS_KEY}, secretkey: {SECRET_KEY}, region: us-east-1,"
        f" regionendpoint: 'http://127.0.0.1:{port}', bucket: registry, secure: false,"
        " forcepathstyle: true }"
    )


def get(port, path, any_status=False):
    """The body of a `GET`."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        if any_status:
            return b"answered"
        raise error


def storage_calls(admin):
    """How many requests an Envoy has sent to its store so far."""
    stats = get(admin, "/stats?filter=^cluster.blob_store.upstream_rq_total$").decode()
    return int(stats.rpartition(":")[2] or 0)


def _wait(name, condition):
    deadline = time.monotonic() + 60
    while True:
        try:
            if result := condition():
                return result
        except (OSError, ValueError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not serve; see its log") from error
        time.sleep(0.005)


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
