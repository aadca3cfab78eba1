//! Fills in the template. Every text that comes from a setting is written as YAML reads it back: plain where that is
//! safe, in double quotes otherwise.

use minijinja::value::{Value as Filled, ValueKind};
use minijinja::{AutoEscape, Environment, Error, Output, State, UndefinedBehavior, context};
use serde_json::json;

use crate::endpoint::{Discovery, Endpoint, is_ip};
use crate::plugin;
use crate::settings::{AccessLog, Addressing, AdminPaths, Credentials, Settings, Tracing};

const TEMPLATE: &str = include_str!("bootstrap.yaml.jinja");

/// How much a disk's cache may take unless set, in bytes.
const DISK_CACHE_BYTES: u64 = 50 * 1024 * 1024 * 1024;

/// How long one blob may take to come into a disk's cache unless set, in seconds.
const FETCH_SECONDS: u64 = 3600;

/// How many streams the store may have under way where clients' connections have no limit.
const STREAMS: u32 = 10_000;

/// What a manifest that comes at once has to fit into, in bytes, at least.
const REQUEST_BODY_BUFFER: u64 = 8 * 1024 * 1024;

/// The bootstrap for settings that are right.
pub fn render(settings: &Settings) -> String {
    let mut environment = Environment::new();
    // A line that has nothing but a block leaves no line.
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(true);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Custom("yaml"));
    environment.set_formatter(write_yaml);
    environment.add_function("plain", |text: &str| yaml(text));
    environment.add_function("is_ip", is_ip);
    // The template and what fills it are parts of this program, and every setting is there.
    environment
        .render_str(TEMPLATE, values(settings))
        .unwrap_or_else(|error| panic!("the template of the bootstrap is wrong: {error:#}"))
}

fn values(settings: &Settings) -> Filled {
    let (configuration, receivers) =
        plugin::configuration(settings).expect("it was checked when the settings were read");
    let tls = settings.tls.as_ref().map(|tls| {
        json!({"certificate": tls.certificate, "key": tls.key, "sds": tls.sds, "client_ca": tls.client_ca})
    });
    let receivers: Vec<_> = receivers
        .iter()
        .map(|receiver| {
            let mut values = server(&receiver.endpoint);
            values["setting"] = json!(receiver.setting);
            values["cluster"] = json!(receiver.cluster);
            values
        })
        .collect();
    let manifest_max_bytes =
        settings.plugin.get("manifest_max_bytes").and_then(|bytes| bytes.as_u64());
    let signs = settings.credentials != Credentials::None;
    context! {
        purpose => purpose(settings),
        has_access => settings.plugin.contains_key("access"),
        read_only => settings.is_read_only(),
        signed => signs,
        admin => address(settings.admin.0),
        admin_paths => match settings.admin_paths { AdminPaths::Needed => "needed", AdminPaths::All => "all" },
        listen => address(settings.listen.0),
        metrics => settings.metrics.map(|metrics| address(metrics.0)),
        max_heap_bytes => settings.max_heap_bytes,
        max_connections => settings.max_connections,
        streams => match settings.max_connections { 0 => STREAMS, limit => limit },
        requests_per_second => settings.requests_per_second,
        keep_request_ids => settings.keep_request_ids,
        trusted_proxies => settings.trusted_proxies,
        tls => tls,
        access_log => match &settings.access_log {
            AccessLog::Stdout => "stdout",
            AccessLog::Off => "off",
            AccessLog::File(path) => path,
        },
        tracing => settings.tracing.as_ref().map(tracing),
        local_errors => local_errors(),
        module => settings.module,
        native_hash => settings.native_hash.as_ref().filter(|_| !settings.is_read_only()),
        configuration => Filled::from_safe_string(configuration.replace('\n', &format!("\n{:28}", ""))),
        disk_cache => settings.edge.disk_cache,
        disk_cache_bytes => settings.edge.disk_cache_bytes.unwrap_or(DISK_CACHE_BYTES),
        max_blob_fetch => settings.edge.fetch_seconds.unwrap_or(FETCH_SECONDS),
        central => settings.edge.central.as_ref().map(server),
        spool => settings.spool,
        spools => settings.spool != "off" && !settings.is_read_only(),
        request_body_buffer_limit => REQUEST_BODY_BUFFER.max(2 * manifest_max_bytes.unwrap_or(0)),
        blobs_path => format!("{}/docker/registry/v2/blobs/", folder(settings)),
        chunks_regex => format!(
            "{}/docker/registry/v2/repositories/.+/_uploads/.+/chunks/.+",
            regex_of(&folder(settings))
        ),
        idle_timeout => settings.store.idle_timeout_seconds,
        event_receivers => receivers,
        ca_file => settings.ca_file,
        credentials => match settings.credentials {
            Credentials::Auto => "auto",
            Credentials::Environment => "environment",
            Credentials::Role => "role",
            Credentials::None => "none",
        },
        role_arn => settings.role_arn,
        web_identity_token_file => settings.web_identity_token_file,
        region => settings.region,
        store => store(settings),
    }
}

fn purpose(settings: &Settings) -> String {
    let bucket = format!("the bucket {} at {}", settings.bucket, settings.endpoint[0].authority);
    let bucket = bucket.replace(|character: char| character.is_control(), " ");
    match (&settings.edge.disk_cache, settings.is_read_only()) {
        (Some(_), _) => format!("an edge node, which keeps blobs of {bucket} on its disk."),
        (None, true) => format!("a registry to pull from, in {bucket}."),
        (None, false) => format!("a registry in {bucket}."),
    }
}

fn address(address: std::net::SocketAddr) -> serde_json::Value {
    json!({"host": address.ip().to_string(), "port": address.port()})
}

fn server(endpoint: &Endpoint) -> serde_json::Value {
    json!({
        "host": endpoint.host,
        "port": endpoint.port,
        "authority": endpoint.authority,
        "tls": endpoint.tls,
        "discovery": endpoint.discovery(),
    })
}

fn tracing(tracing: &Tracing) -> serde_json::Value {
    let mut values = server(&tracing.collector);
    // A float is shown with a fraction, a whole number without.
    values["percent"] = match tracing.percent {
        whole if whole.fract() == 0.0 => json!(whole as u64),
        part => json!(part),
    };
    values
}

/// What Envoy answers by itself, and the API's code for it.
fn local_errors() -> serde_json::Value {
    json!([
        {"condition": "response.code == 401", "code": "UNAUTHORIZED"},
        {"condition": "response.code == 403", "code": "DENIED"},
        {"condition": "response.code == 429", "code": "TOOMANYREQUESTS"},
        {"condition": "(response.code == 503 || response.code == 504)", "code": "UNAVAILABLE"},
        {"condition": "response.code >= 400", "code": "UNKNOWN"},
    ])
}

/// The path of the folder that holds the registry, as the store is asked for it.
fn folder(settings: &Settings) -> String {
    let mut folder = String::new();
    if settings.addressing == Addressing::Path {
        folder = format!("/{}", settings.bucket);
    }
    match settings.prefix.trim_matches('/') {
        "" => folder,
        prefix => format!("{folder}/{prefix}"),
    }
}

/// A regular expression (RE2) that matches just this text.
fn regex_of(text: &str) -> String {
    let mut regex = String::new();
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            regex.push('\\');
        }
        regex.push(character);
    }
    regex
}

fn store(settings: &Settings) -> serde_json::Value {
    let first = &settings.endpoint[0];
    let in_host = settings.addressing == Addressing::VirtualHost;
    // The name that the bucket has there.
    let named =
        |name: &str| if in_host { format!("{}.{name}", settings.bucket) } else { name.to_owned() };
    let node = |node: &Endpoint| json!({"host": named(&node.host), "port": node.port});
    let priorities: Vec<Vec<_>> = [&settings.endpoint, &settings.fallback_endpoints]
        .into_iter()
        .filter(|nodes| !nodes.is_empty())
        .map(|nodes| nodes.iter().map(node).collect())
        .collect();
    let are_many = settings.nodes().count() > 1;
    let discovery = match are_many {
        false => first.discovery(),
        true if settings.nodes().all(Endpoint::is_ip) => Discovery::Static,
        true => Discovery::StrictDns,
    };
    json!({
        "authority": named(&first.authority),
        "tls": first.tls,
        "tls_name": named(&first.host),
        "discovery": discovery,
        "nodes_are_many": are_many,
        "priorities": priorities,
        "health_check": settings.store.health_check,
        "health_path": if in_host { "/".to_owned() } else { format!("/{}", settings.bucket) },
    })
}

/// Writes a value of the template as YAML.
fn write_yaml(output: &mut Output, _: &State, value: &Filled) -> Result<(), Error> {
    match value.as_str() {
        Some(text) if value.kind() == ValueKind::String && !value.is_safe() => {
            Ok(output.write_str(&yaml(text))?)
        }
        Some(text) => Ok(output.write_str(text)?),
        None => Ok(write!(output, "{value}")?),
    }
}

/// A text as a YAML scalar that is read back as this text, wherever it stands.
fn yaml(text: &str) -> String {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "/._-+".contains(character);
    let begins_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    let is_word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    if begins_plain && text.chars().all(is_plain) && !is_word {
        return text.to_owned();
    }
    if is_ip(text) && !text.contains(':') {
        return text.to_owned();
    }
    plugin::ascii(&serde_json::Value::from(text).to_string())
}
