//! Envoy with the filter, on the bootstrap that `./build.sh run` uses.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use moorage_bootstrap::{AccessLog, Address, AdminPaths, Credentials, Endpoint, Settings, Tracing};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::blob_store::{ACCESS_KEY, SECRET_KEY};
use crate::client;
use crate::process::{self, tool, wait_for};

const LOCAL: &str = include_str!("../../../envoy/settings/local.yaml");
const PRODUCTION: &str = include_str!("../../../envoy/settings/production.yaml");
const EDGE: &str = include_str!("../../../envoy/settings/edge.yaml");

const METRICS_LISTENER: &str = include_str!("../../../deploy/prometheus/listener.yaml");

/// An HTTP filter for [`Bootstrap::guarded_by`] by which nobody may have the repositories below `secret/`.
pub const NOBODY_BELOW_SECRET: &str = r#"                  - name: envoy.filters.http.rbac
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
                      rules:
                        action: DENY
                        policies:
                          secret:
                            permissions: [{ url_path: { path: { prefix: /v2/secret/ } } }]
                            principals: [{ any: true }]
"#;

/// A bootstrap: what the settings of one of those in `envoy/` make, with changes.
pub struct Bootstrap {
    settings: Settings,
    /// What the settings make, and then whatever a test changes in it.
    text: String,
    /// Whether an Envoy that stands still for a while, on a busy machine, must not take that for a store that can't be
    /// reached.
    is_patient: bool,
    workers: usize,
    log_level: &'static str,
}

impl Bootstrap {
    /// The local bootstrap in front of the store at `store`.
    pub fn new(store: SocketAddr) -> Self {
        let local = Self::of(LOCAL).before(&[store]);
        let local = local.set(|settings| settings.access_log = AccessLog::File("/dev/null".into()));
        Self { is_patient: true, ..local }
    }

    /// The bootstrap that users start from.
    pub fn production() -> Self {
        Self::of(PRODUCTION)
    }

    /// The same before stores on this machine, without TLS and signatures: all that protects Envoy and its
    /// clients is as users have it.
    pub fn production_before(nodes: &[SocketAddr]) -> Self {
        Self::production().before(nodes)
    }

    /// The bootstrap that users start an edge node from.
    pub fn edge() -> Self {
        Self::of(EDGE)
    }

    /// The same before stores on this machine, without TLS and signatures.
    pub fn edge_before(nodes: &[SocketAddr]) -> Self {
        Self::edge().before(nodes)
    }

    /// What settings make, in YAML.
    pub fn of(settings: &str) -> Self {
        let settings = Settings::read(Some(settings), |_| None).expect("the settings are right");
        let text = settings.bootstrap();
        Self { settings, text, is_patient: false, workers: 1, log_level: "warning" }
    }

    /// A bootstrap of no settings, in YAML or JSON.
    pub fn of_text(text: String) -> Self {
        Self { text, ..Self::of(LOCAL) }
    }

    /// Changes settings. What is changed in the text itself has to come after that.
    pub fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        assert!(
            self.text == self.settings.bootstrap(),
            "the bootstrap was changed before its settings"
        );
        change(&mut self.settings);
        let text = self.settings.bootstrap();
        Self { text, ..self }
    }

    /// Before stores on this machine, and without TLS towards clients. Envoy chooses ports that are free and tells
    /// which.
    fn before(self, nodes: &[SocketAddr]) -> Self {
        let any = Address(SocketAddr::from(([127, 0, 0, 1], 0)));
        self.set(|settings| {
            settings.endpoint = nodes.iter().map(endpoint).collect();
            settings.credentials = Credentials::None;
            settings.store.health_check = false;
            settings.listen = any;
            settings.tls = None;
            settings.admin = any;
            settings.admin_paths = AdminPaths::All;
            settings.module = tool("MOORAGE_WASM").display().to_string();
        })
    }

    /// Sends spans to a collector on this machine.
    pub fn traced_to(self, collector: SocketAddr) -> Self {
        let tracing = Tracing { collector: endpoint(&collector), percent: 100.0 };
        self.set(|settings| settings.tracing = Some(tracing))
    }

    /// An edge node that passes what writes on to a registry on this machine.
    pub fn passing_writes_on(self, central: SocketAddr) -> Self {
        self.set(|settings| settings.edge.central = Some(endpoint(&central)))
    }

    /// Signs what goes to the store, for the region that the tests' stores are in.
    pub fn signed(self) -> Self {
        self.set(|settings| {
            settings.credentials = Credentials::Environment;
            settings.region = "us-east-1".to_owned();
        })
    }

    /// Spools bodies of unknown length, as the production bootstrap does.
    pub fn spooling(self) -> Self {
        self.set(|settings| settings.spool = "/var/tmp".to_owned())
    }

    /// Has this library hash uploads in native code.
    pub fn hashing_with(self, library: &Path) -> Self {
        self.set(|settings| settings.native_hash = Some(library.display().to_string()))
    }

    /// Has Envoy write a line to its log for each request; `format` is its `log_format`, in YAML on one line.
    pub fn with_access_log(self, format: &str) -> Self {
        let log_format = "                      log_format:\n";
        self.logging_to_stderr().with_span(
            log_format,
            "                # The client is who connects",
            &format!("                      log_format: {format}\n"),
        )
    }

    /// Has Envoy write the lines of its access log to its log, in the format that the bootstrap has.
    pub fn logging_to_stderr(self) -> Self {
        self.with_span(
            "                  - name: envoy.access_loggers.file",
            "                      log_format:",
            r#"                  - name: envoy.access_loggers.stderr
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog
"#,
        )
    }

    /// An Envoy that has nothing but the listener for Prometheus, before the admin page of another one.
    pub fn metrics_listener(admin: SocketAddr) -> Self {
        let page =
            "admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }\n";
        let text = format!("{page}{METRICS_LISTENER}");
        Self { text, ..Self::of(LOCAL) }
            .with("port_value: 9902", "port_value: 0")
            .with("port_value: 9901", &format!("port_value: {}", admin.port()))
    }

    /// Has the kernel take little of an answer at once that its client does not take, so that Envoy holds the rest: otherwise
    /// the kernel takes more than Envoy ever holds.
    pub fn with_small_send_buffers(self) -> Self {
        // SO_SNDBUF of SOL_SOCKET.
        let options = "[{ level: 1, name: 7, int_value: 16384, state: STATE_PREBIND }]";
        let listener = "\n    - name: registry\n";
        self.with(listener, &format!("{listener}      socket_options: {options}\n"))
    }

    /// Replaces a piece of the bootstrap, which must be there.
    pub fn with(mut self, piece: &str, replacement: &str) -> Self {
        assert!(self.text.contains(piece), "{piece:?} is not in the bootstrap");
        self.text = self.text.replace(piece, replacement);
        self
    }

    /// Replaces what is between two texts, the first one included.
    fn with_span(self, from: &str, to: &str, replacement: &str) -> Self {
        let span = span(&self.text, from, to).to_owned();
        self.with(&span, replacement)
    }

    /// Has blobs mounted from there; `"off"` is what the filter does without being told.
    pub fn mounting(self, mount: &str) -> Self {
        self.with(r#""mount": "from""#, &format!(r#""mount": "{mount}""#))
    }

    /// Puts an HTTP filter, in YAML, before Moorage.
    pub fn guarded_by(self, filter: &str) -> Self {
        let moorage = "                  - name: moorage\n";
        self.with(moorage, &format!("{filter}{moorage}"))
    }

    /// Adds fields to the `store` object of the plugin's configuration.
    pub fn with_store_fields(self, fields: &str) -> Self {
        let bucket = r#""bucket": "registry""#;
        self.with(bucket, &format!("{bucket}, {fields}"))
    }

    /// Adds fields to the plugin's configuration.
    pub fn with_fields(self, fields: &str) -> Self {
        let store = r#""store": {"#;
        self.with(store, &format!("{fields}, {store}"))
    }

    /// Has the limits that are there without being told, but for these fields of the `limits` object.
    pub fn limiting(self, fields: &str) -> Self {
        self.with(r#""streams_per_client": 0"#, fields)
    }

    /// Sets fields of the `legacy` object of the plugin's configuration.
    pub fn with_legacy(self, fields: &str) -> Self {
        let legacy = r#""legacy": {"#;
        self.with(legacy, &format!("{legacy} {fields}"))
    }

    /// Has Envoy serve a second registry, on the same store, with these fields in its configuration.
    pub fn with_another_registry(mut self, fields: &str) -> Self {
        let start = self.text.find("    - name: registry\n      address").expect("a listener");
        let end = self.text.find("\n  clusters:").expect("clusters");
        let store = r#""store": {"#;
        let other = self.text[start..end]
            .replacen("- name: registry", "- name: other", 1)
            .replace(store, &format!("{fields}, {store}"));
        self.text.insert_str(end, &format!("\n{other}"));
        self
    }

    /// Has modules in Envoy write to its log what has this level, or a higher one.
    pub fn logging(self, log_level: &'static str) -> Self {
        Self { log_level, ..self }
    }

    /// Has every worker get as many connections as the others.
    pub fn balanced(self) -> Self {
        let listener = "    - name: registry\n      address";
        let balance = "      connection_balance_config: { exact_balance: {} }\n      address";
        self.with(listener, &format!("    - name: registry\n{balance}"))
    }

    /// Has Envoy serve with so many threads.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Has Envoy's admin page there.
    pub fn with_admin(self, admin: SocketAddr) -> Self {
        let address = format!("address: {}, port_value: {}", admin.ip(), admin.port());
        let start = self.text.find("admin:").expect("an admin page");
        let page = span(&self.text[start..], "address: 127.0.0.1, port_value: ", " }").to_owned();
        let text = self.text.replacen(&page, &address, 1);
        Self { text, ..self }
    }

    /// Writes it to a file, for an Envoy that something else starts.
    pub fn write_to(&self, file: &Path) {
        fs::write(file, self.patient()).expect("the bootstrap is written");
    }

    /// Has Envoy check the bootstrap and gives what it says.
    pub async fn validate(&self) -> Output {
        let folder = TempDir::new().expect("a temporary folder");
        process::output(self.command(&folder).args(["--mode", "validate"])).await
    }

    /// The text, with more time for the store's answers than users want where a test sets none.
    fn patient(&self) -> String {
        let mut text = self.text.clone();
        if self.is_patient {
            text = text.replace("connect_timeout: 2s", "connect_timeout: 60s");
        }
        if text.contains(r#""timeout_ms""#) {
            return text;
        }
        let store = r#""store": {"#;
        text.replace(store, &format!(r#"{store} "timeout_ms": 60000, "copy_timeout_ms": 180000,"#))
    }

    fn command(&self, folder: &TempDir) -> Command {
        let config = folder.path().join("envoy.yaml");
        self.write_to(&config);
        let mut command = Command::new(tool("MOORAGE_ENVOY"));
        command
            .arg("--config-path")
            .arg(config)
            .args(["--disable-hot-restart", "--log-level", "warning", "--component-log-level"])
            .arg(format!("wasm:{}", self.log_level))
            .args(["--file-flush-interval-msec", "50", "--concurrency"])
            .arg(self.workers.to_string())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .kill_on_drop(true);
        command
    }
}

/// A server on this machine, without TLS.
fn endpoint(address: &SocketAddr) -> Endpoint {
    Endpoint::parse(&format!("http://{address}")).expect("an address makes a URL")
}

/// What a bootstrap has between two texts, the first one included.
fn span<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text.find(from).unwrap_or_else(|| panic!("{from:?} is not in the bootstrap"));
    let length = text[start..].find(to).unwrap_or_else(|| panic!("{to:?} is not in the bootstrap"));
    &text[start..start + length]
}

/// A running Envoy. It ends when this is dropped.
pub struct Envoy {
    /// The registry's address; where there are several, the first one.
    pub address: SocketAddr,
    /// The addresses of all registries in this Envoy.
    pub addresses: Vec<SocketAddr>,
    /// The address of Envoy's admin page.
    pub admin: SocketAddr,
    process: Child,
    folder: TempDir,
}

impl Envoy {
    /// Starts Envoy and waits until it serves.
    pub async fn start(bootstrap: &Bootstrap) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let admin_file = folder.path().join("admin");
        let log = fs::File::create(folder.path().join("log")).expect("a log file");
        let mut process = bootstrap
            .command(&folder)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Envoy starts");
        let admin = wait_for("Envoy's admin address", async || {
            if let Ok(Some(status)) = process.try_wait() {
                let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                panic!("Envoy ended with {status}: {log}");
            }
            fs::read_to_string(&admin_file).ok()?.trim().parse().ok()
        });
        let admin = admin.await;
        let addresses = wait_for("Envoy's listeners", async || listeners(admin).await).await;
        Self { address: addresses[0], addresses, admin, process, folder }
    }

    /// One of Envoy's own figures, by the name that its admin page has; 0 until it first counts.
    pub async fn stat(&self, name: &str) -> u64 {
        stat(self.admin, name).await
    }

    /// Ends Envoy at once, in the middle of whatever it does.
    pub async fn kill(mut self) {
        self.process.kill().await.expect("Envoy runs");
    }

    /// Envoy's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("the log is text")
    }

    /// Has `VmHWM` begin anew with what Envoy has now (`man 5 proc_pid_clear_refs`).
    pub fn forget_peak_memory(&self) {
        let pid = self.process.id().expect("Envoy runs");
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("/proc is there");
    }

    /// A figure of `/proc/<pid>/status` in bytes, such as `VmRSS` or its highest value `VmHWM`.
    pub fn memory(&self, figure: &str) -> u64 {
        let pid = self.process.id().expect("Envoy runs");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc is there");
        let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
        let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("the figure is there") * 1024
    }
}

/// One of the figures of the Envoy with this admin page; 0 until it first counts.
pub async fn stat(admin: SocketAddr, name: &str) -> u64 {
    let stats = client::get(admin, "/stats", &[]).await;
    let text = String::from_utf8_lossy(stats.body());
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.map_or(0, |value| value.parse().expect("a count"))
}

/// The registries' addresses, once the Envoy with this admin page is ready.
pub async fn listeners(admin: SocketAddr) -> Option<Vec<SocketAddr>> {
    if client::try_get(admin, "/ready").await?.status() != 200 {
        return None;
    }
    let listeners = client::try_get(admin, "/listeners?format=json").await?;
    let json: Value = serde_json::from_slice(listeners.body()).ok()?;
    let port = |address: &Value| {
        let port = &address["socket_address"]["port_value"];
        u16::try_from(port.as_u64()?).ok()
    };
    let addresses = json["listener_statuses"].as_array()?.iter().map(|it| &it["local_address"]);
    // Those that only Envoy itself connects to have no ports.
    let addresses = addresses.filter(|address| address["envoy_internal_address"].is_null());
    let ports: Option<Vec<u16>> = addresses.map(port).collect();
    let addresses = ports?.into_iter().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    Some(addresses.collect())
}
