//! The plugin's own configuration: what of the settings goes to it as it is, and what is made for it.

use std::collections::BTreeMap;
use std::path::Path;

use moorage::config::{Config, ConfigError};
use serde_json::{Map, Value, json};

use crate::endpoint::Endpoint;
use crate::settings::{Addressing, Settings, SettingsError};

/// The settings that are the plugin's, by the same names. `store` is made for it.
const FIELDS: [&str; 14] = [
    "access",
    "cache",
    "delete_enabled",
    "events",
    "jwt_payload",
    "legacy",
    "limits",
    "manifest_max_bytes",
    "mount",
    "policy",
    "read_only",
    "telemetry",
    "verify_image_references",
    "verify_index_references",
];

/// Where events are sent: the settings' own `url` in place of what the plugin is told.
#[derive(Debug, Clone)]
pub struct EventReceiver {
    /// The setting.
    pub setting: String,
    /// The name of its cluster.
    pub cluster: String,
    /// The server.
    pub endpoint: Endpoint,
}

/// Takes the plugin's fields out of the settings. `access` and `events` may be the names of files that have them.
///
/// # Errors
///
/// A file that can't be read.
pub fn take_fields(
    settings: &mut Map<String, Value>,
) -> Result<BTreeMap<String, Value>, SettingsError> {
    let mut fields = BTreeMap::new();
    for name in FIELDS {
        let Some(value) = settings.remove(name).filter(|value| !value.is_null()) else { continue };
        let value = match (name, value) {
            ("access" | "events", Value::String(path)) => read_file(name, Path::new(&path))?,
            (_, value) => value,
        };
        fields.insert(name.to_owned(), value);
    }
    Ok(fields)
}

fn read_file(setting: &str, path: &Path) -> Result<Value, SettingsError> {
    let wrong = |problem: String| SettingsError::new(setting, problem);
    let text = std::fs::read_to_string(path)
        .map_err(|error| wrong(format!("{} can't be read: {error}", path.display())))?;
    let options = serde_saphyr::options! { with_snippet: false };
    // JSON is YAML.
    serde_saphyr::from_str_with_options(&text, options)
        .map_err(|error| wrong(format!("{} is no JSON and no YAML: {error}", path.display())))
}

/// Has the filter's own code read what the plugin would be told.
///
/// # Errors
///
/// What it would refuse, by the setting's name.
pub fn check(settings: &Settings) -> Result<(), SettingsError> {
    let (configuration, _) = configuration(settings)?;
    match Config::parse(configuration.as_bytes()) {
        Ok(_) => Ok(()),
        Err(ConfigError::Field { place, problem }) => {
            Err(SettingsError::new(setting_of(&place), problem))
        }
        Err(error) => Err(SettingsError::new("", error.to_string())),
    }
}

/// The setting that a field of the plugin's configuration is made from.
fn setting_of(place: &str) -> String {
    match place {
        "store.bucket" => "bucket".to_owned(),
        "store.prefix" => "prefix".to_owned(),
        "store.authority" => "endpoint".to_owned(),
        _ => match place.rsplit_once('.') {
            Some((endpoint, "authority" | "path")) if endpoint.starts_with("events.") => {
                format!("{endpoint}.url")
            }
            _ => place.to_owned(),
        },
    }
}

/// The plugin's configuration, as JSON in ASCII, and where its events go.
///
/// # Errors
///
/// A receiver of events that has no `url`.
pub fn configuration(settings: &Settings) -> Result<(String, Vec<EventReceiver>), SettingsError> {
    let mut fields = settings.plugin.clone();
    let receivers = match fields.get_mut("events") {
        Some(events) => receivers(events)?,
        None => Vec::new(),
    };
    let store = store(settings);
    let store = object(store.iter().map(|(name, value)| (*name, value.to_string())), "    ");
    let plugins = fields.iter().map(|(name, value)| (name.as_str(), indented(value)));
    let json = object([("store", store.replace("\n}", "\n  }"))].into_iter().chain(plugins), "  ");
    Ok((ascii(&json), receivers))
}

/// The fields of the object `store`.
fn store(settings: &Settings) -> Vec<(&'static str, Value)> {
    let mut fields = vec![
        ("cluster", json!("blob_store")),
        ("authority", json!(settings.endpoint[0].authority)),
        ("bucket", json!(settings.bucket)),
    ];
    if settings.addressing == Addressing::VirtualHost {
        fields.push(("addressing", json!("virtual-host")));
    }
    if !settings.prefix.is_empty() {
        fields.push(("prefix", json!(settings.prefix)));
    }
    let times = [
        ("timeout_ms", settings.store.timeout_ms),
        ("copy_timeout_ms", settings.store.copy_timeout_ms),
    ];
    fields.extend(times.into_iter().filter_map(|(name, time)| Some((name, json!(time?)))));
    fields
}

/// Puts cluster, authority and path in the place of each receiver's `url`.
fn receivers(events: &mut Value) -> Result<Vec<EventReceiver>, SettingsError> {
    let mut receivers = Vec::new();
    // What is no list of objects is refused by the filter's code.
    let endpoints = events.get_mut("endpoints").and_then(Value::as_array_mut);
    for (number, endpoint) in endpoints.into_iter().flatten().enumerate() {
        let setting = format!("events.endpoints[{number}]");
        let Value::Object(fields) = endpoint else { continue };
        let wrong = |problem: &str| SettingsError::new(format!("{setting}.url"), problem);
        if let Some(made) =
            ["cluster", "authority", "path"].iter().find(|name| fields.contains_key(**name))
        {
            let problem = "is made from url: set that alone";
            return Err(SettingsError::new(format!("{setting}.{made}"), problem));
        }
        let url = fields.remove("url").ok_or_else(|| wrong("is missing"))?;
        let url = url.as_str().ok_or_else(|| wrong("must be a text"))?;
        let (server, path) = Endpoint::parse_with_path(url).map_err(|problem| wrong(&problem))?;
        let cluster = format!("events_{number}");
        fields.insert("cluster".to_owned(), json!(cluster));
        fields.insert("authority".to_owned(), json!(server.authority));
        fields.insert("path".to_owned(), json!(path));
        receivers.push(EventReceiver { setting, cluster, endpoint: server });
    }
    Ok(receivers)
}

/// An object of fields whose values are JSON already, in the order in which they come.
fn object<'a>(fields: impl Iterator<Item = (&'a str, String)>, indent: &str) -> String {
    let lines: Vec<_> = fields.map(|(name, json)| format!("{indent}\"{name}\": {json}")).collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}

/// JSON over several lines, two spaces further in but for the first line.
fn indented(value: &Value) -> String {
    format!("{value:#}").replace('\n', "\n  ")
}

/// The same JSON without any character that YAML could take for the end of a line. Only texts have such characters.
pub fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}
