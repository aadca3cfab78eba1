//! What may be set: one field for each setting, by the setting's own name. `docs/settings.md` says the same to users.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::endpoint::{Address, Endpoint};
use crate::{plugin, template, variables};

/// Why there is no bootstrap. The text names the setting, and the variable where one set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// The setting, as `tls.certificate`; empty if it is about the whole file.
    pub setting: String,
    variable: Option<&'static str>,
    problem: String,
}

impl SettingsError {
    /// One about a setting.
    pub(crate) fn new(setting: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { setting: setting.into(), variable: None, problem: problem.into() }
    }

    /// The same, of a setting that a variable has set.
    pub(crate) fn set_by(self, variable: Option<&'static str>) -> Self {
        Self { variable: variable.or(self.variable), ..self }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.variable, self.setting.as_str()) {
            (Some(variable), setting) => write!(f, "{setting} (from {variable}): ")?,
            (None, "") => {}
            (None, setting) => write!(f, "{setting}: ")?,
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for SettingsError {}

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where clients connect.
    pub listen: Address,
    /// TLS towards clients; plain HTTP unless set.
    pub tls: Option<Tls>,
    /// How many proxies before this one append to `X-Forwarded-For`.
    pub trusted_proxies: u32,
    /// Whether a client's `X-Request-Id` is kept, rather than a new one made.
    pub keep_request_ids: bool,
    /// How often one address may ask, in requests a second; any number if 0.
    pub requests_per_second: u32,
    /// The bucket.
    pub bucket: String,
    /// The folder of the bucket that holds the registry.
    pub prefix: String,
    /// The store: one server, or all nodes of one. S3 in the region unless set.
    #[serde(deserialize_with = "one_or_more")]
    pub endpoint: Vec<Endpoint>,
    /// What is asked only while too few of these can be reached.
    #[serde(deserialize_with = "one_or_more")]
    pub fallback_endpoints: Vec<Endpoint>,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether requests name the bucket in the path or in the host.
    pub addressing: Addressing,
    /// Where Envoy finds the store's credentials.
    pub credentials: Credentials,
    /// The role that a web identity token is for, with `credentials: role`.
    pub role_arn: Option<String>,
    /// The file with that token.
    pub web_identity_token_file: Option<String>,
    /// The authorities that servers' certificates must come from: a file, in PEM.
    pub ca_file: String,
    /// The folder for uploads whose length is not known, or `off`.
    pub spool: String,
    /// More about the store.
    pub store: Store,
    /// Where the module lies, or will lie where Envoy runs.
    pub module: String,
    /// Where the library lies, or will lie, that hashes uploads in native code; none unless set.
    pub native_hash: Option<String>,
    /// Where Envoy's admin page is.
    pub admin: Address,
    /// What that page answers.
    pub admin_paths: AdminPaths,
    /// Where Prometheus gets the metrics; nowhere unless set.
    #[serde(deserialize_with = "address_or_off")]
    pub metrics: Option<Address>,
    /// Where a line for each request goes.
    pub access_log: AccessLog,
    /// Where spans go; nowhere unless set.
    pub tracing: Option<Tracing>,
    /// How much memory Envoy may have, in bytes, without that of the Wasm VMs; any if 0.
    pub max_heap_bytes: u64,
    /// How many connections clients may have; any number if 0.
    pub max_connections: u32,
    /// What an edge node has.
    pub edge: Edge,
    /// What the plugin is told as it is, by its own names.
    #[serde(skip)]
    pub plugin: BTreeMap<String, Value>,
}

/// TLS towards clients.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The certificate with its chain: a file, in PEM.
    pub certificate: Option<String>,
    /// Its key: a file, in PEM.
    pub key: Option<String>,
    /// In place of both, a file that Envoy reads anew when it is replaced (SDS).
    pub sds: Option<String>,
    /// The authorities of clients' certificates: a file, in PEM.
    pub client_ca: Option<String>,
}

/// More about the store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// As the plugin's, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// As the plugin's, in milliseconds.
    pub copy_timeout_ms: Option<u64>,
    /// How long a blob may stand still on its way, in seconds.
    pub idle_timeout_seconds: u32,
    /// Whether Envoy looks after the store by itself.
    pub health_check: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            timeout_ms: None,
            copy_timeout_ms: None,
            idle_timeout_seconds: 60,
            health_check: true,
        }
    }
}

/// How requests name the bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressing {
    /// `https://host/bucket/key`
    #[default]
    Path,
    /// `https://bucket.host/key`
    VirtualHost,
}

/// Where Envoy finds the store's credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credentials {
    /// Wherever AWS' own tools look.
    #[default]
    Auto,
    /// In environment variables alone.
    Environment,
    /// With a role alone: of a Kubernetes service account, a container, a machine.
    Role,
    /// Nowhere: requests are not signed.
    None,
}

/// What Envoy's admin page answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminPaths {
    /// Metrics, readiness, and what stopping in order takes. Envoy 1.37 or later knows how to.
    #[default]
    Needed,
    /// Everything, the configuration with its secrets too.
    All,
}

/// Where a line for each request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// Nowhere.
    Off,
    /// A file.
    File(String),
}

impl<'de> Deserialize<'de> for AccessLog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match String::deserialize(deserializer)? {
            text if text == "stdout" => Self::Stdout,
            text if text == "off" => Self::Off,
            text if text.is_empty() => {
                return Err(D::Error::custom("must be stdout, off, or a file"));
            }
            file => Self::File(file),
        })
    }
}

/// Where spans go.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// The collector's receiver for OTLP over gRPC.
    #[serde(deserialize_with = "host_and_port")]
    pub collector: Endpoint,
    /// Which share of the requests is traced, in percent.
    #[serde(default = "one_percent")]
    pub percent: f64,
}

fn one_percent() -> f64 {
    1.0
}

/// What an edge node has.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edge {
    /// The folder that keeps blobs.
    pub disk_cache: Option<String>,
    /// How much of it they may take, in bytes; 50 GiB unless set.
    pub disk_cache_bytes: Option<u64>,
    /// The longest that one blob may take to come into it, in seconds; an hour unless set.
    pub fetch_seconds: Option<u64>,
    /// The registry that writes are passed to.
    pub central: Option<Endpoint>,
}

impl Tls {
    fn check(&self) -> Result<(), SettingsError> {
        match (&self.certificate, &self.key, &self.sds) {
            (Some(_), Some(_), None) | (None, None, Some(_)) => Ok(()),
            (Some(_), None, None) => wrong("tls.key", "is missing"),
            (None, Some(_), None) => wrong("tls.certificate", "is missing"),
            (None, None, None) => wrong("tls", "needs certificate and key, or sds"),
            _ => wrong("tls.sds", "stands in place of certificate and key"),
        }
    }
}

impl Edge {
    fn check(&self) -> Result<(), SettingsError> {
        for (setting, is_set) in [
            ("edge.disk_cache_bytes", self.disk_cache_bytes.is_some()),
            ("edge.fetch_seconds", self.fetch_seconds.is_some()),
        ] {
            if is_set && self.disk_cache.is_none() {
                return wrong(setting, "needs edge.disk_cache");
            }
        }
        Ok(())
    }
}

fn wrong(setting: &str, problem: &str) -> Result<(), SettingsError> {
    Err(SettingsError::new(setting, problem))
}

impl Default for Settings {
    fn default() -> Self {
        let local = |port| Address(SocketAddr::from(([127, 0, 0, 1], port)));
        Self {
            listen: local(5000),
            tls: None,
            trusted_proxies: 0,
            keep_request_ids: false,
            requests_per_second: 1000,
            bucket: "registry".to_owned(),
            prefix: String::new(),
            endpoint: Vec::new(),
            fallback_endpoints: Vec::new(),
            region: "us-east-1".to_owned(),
            addressing: Addressing::default(),
            credentials: Credentials::default(),
            role_arn: None,
            web_identity_token_file: None,
            ca_file: "/etc/ssl/certs/ca-certificates.crt".to_owned(),
            spool: "/var/tmp".to_owned(),
            store: Store::default(),
            module: "/etc/envoy/moorage.wasm".to_owned(),
            native_hash: None,
            admin: local(9901),
            admin_paths: AdminPaths::default(),
            metrics: None,
            access_log: AccessLog::Stdout,
            tracing: None,
            max_heap_bytes: 1536 * 1024 * 1024,
            max_connections: 10_000,
            edge: Edge::default(),
            plugin: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads settings: `file` is the text of a YAML file, `variables` gives the value of an environment variable. What
    /// is set by neither has its default.
    ///
    /// # Errors
    ///
    /// A [`SettingsError`] that names the setting. It repeats nothing of what may be secret.
    pub fn read(
        file: Option<&str>,
        variables: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let mut fields = file.map(read_yaml).transpose()?.unwrap_or_default();
        variables::apply(&mut fields, &variables)?;
        let settings = Self::from_fields(fields);
        settings.map_err(|error| {
            let variable = variables::variable_of(&error.setting, &variables);
            error.set_by(variable)
        })
    }

    fn from_fields(mut fields: Map<String, Value>) -> Result<Self, SettingsError> {
        // The plugin's fields are not looked at here, lest an error repeat a secret.
        let of_plugin = plugin::take_fields(&mut fields)?;
        let mut settings = deserialize(fields)?;
        settings.plugin = of_plugin;
        settings.complete()?;
        plugin::check(&settings)?;
        Ok(settings)
    }

    /// Fills in what depends on other settings, and refuses what contradicts them.
    fn complete(&mut self) -> Result<(), SettingsError> {
        if self.endpoint.is_empty() {
            let url = format!("https://s3.{}.amazonaws.com", self.region);
            let endpoint = Endpoint::parse(&url);
            self.endpoint = vec![endpoint.map_err(|_| {
                SettingsError::new("region", "must be a region's name, such as eu-central-1")
            })?];
        }
        self.check_store()?;
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        for (setting, text) in [("spool", &self.spool), ("module", &self.module)] {
            if text.is_empty() {
                return wrong(setting, "must not be empty");
            }
        }
        // The loader would look for a mere name in the system's folders.
        if self.native_hash.as_ref().is_some_and(|path| !path.contains('/')) {
            return wrong(
                "native_hash",
                "must be a path, such as /usr/local/lib/libmoorage_native_hash.so",
            );
        }
        if let Some(tracing) = &self.tracing
            && !(0.0..=100.0).contains(&tracing.percent)
        {
            return wrong("tracing.percent", "must be 0 to 100");
        }
        self.edge.check()?;
        if self.edge.central.is_some() {
            let read_only = self.plugin.insert("read_only".to_owned(), Value::from(true));
            if read_only == Some(Value::from(false)) {
                return wrong("edge.central", "passes on what writes, so read_only can't be false");
            }
        }
        Ok(())
    }

    fn check_store(&self) -> Result<(), SettingsError> {
        let first = &self.endpoint[0];
        for (setting, nodes) in
            [("endpoint", &self.endpoint), ("fallback_endpoints", &self.fallback_endpoints)]
        {
            if nodes.iter().any(|node| node.tls != first.tls) {
                return wrong(
                    setting,
                    "must be all https, or all http: they share Envoy's cluster",
                );
            }
        }
        if self.addressing == Addressing::VirtualHost && first.is_ip() {
            let problem = "can't be virtual-host where the endpoint is an IP address";
            return wrong("addressing", problem);
        }
        // With other credentials they are whatever the environment has for other programs.
        match (self.credentials, &self.role_arn, &self.web_identity_token_file) {
            (Credentials::Role, Some(_), None) => {
                return wrong("web_identity_token_file", "is missing");
            }
            (Credentials::Role, None, Some(_)) => return wrong("role_arn", "is missing"),
            _ => {}
        }
        if self.store.idle_timeout_seconds == 0 {
            return wrong("store.idle_timeout_seconds", "must be 1 at least");
        }
        Ok(())
    }

    /// All servers of the store, in the order in which they are set.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoint.iter().chain(&self.fallback_endpoints)
    }

    /// Whether nothing may be changed through this Envoy.
    pub fn is_read_only(&self) -> bool {
        self.plugin.get("read_only") == Some(&Value::Bool(true))
    }

    /// Envoy's bootstrap, in YAML. With access control it has secrets in it.
    pub fn bootstrap(&self) -> String {
        template::render(self)
    }
}

/// Reads YAML. Its complaints show no line of the file, which may have a secret.
fn read_yaml(text: &str) -> Result<Map<String, Value>, SettingsError> {
    let wrong = |problem: String| SettingsError::new("", problem);
    let options = serde_saphyr::options! { with_snippet: false };
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| wrong(format!("the settings are no YAML: {error}")))?;
    match value {
        Value::Object(fields) => Ok(fields),
        Value::Null => Ok(Map::new()),
        _ => Err(wrong("the settings must be an object: lines such as `bucket: registry`".into())),
    }
}

/// Reads all settings but the plugin's.
fn deserialize(fields: Map<String, Value>) -> Result<Settings, SettingsError> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        let setting = if path == "." { String::new() } else { path };
        SettingsError::new(setting, error.into_inner().to_string())
    })
}

/// One server, or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    let texts = match Value::deserialize(deserializer)? {
        Value::String(text) => vec![text],
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                _ => Err(D::Error::custom("must be a list of URLs")),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(D::Error::custom("must be a URL, or a list of URLs")),
    };
    texts.iter().map(|text| Endpoint::parse(text).map_err(D::Error::custom)).collect()
}

/// An address, or `off`.
fn address_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) if text == "off" => Ok(None),
        value => Address::deserialize(value).map(Some).map_err(D::Error::custom),
    }
}

/// A host and a port, reached without TLS.
fn host_and_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    let text = String::deserialize(deserializer)?;
    let endpoint = Endpoint::parse(&format!("http://{text}")).ok();
    let endpoint = endpoint.filter(|endpoint| text.ends_with(&format!(":{}", endpoint.port)));
    endpoint.ok_or_else(|| {
        D::Error::custom("must be a host and a port, such as collector.example.org:4317")
    })
}
