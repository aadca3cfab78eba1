//! The environment variables that stand in for settings. One that is set wins over the file; one that is empty counts
//! as unset.

use serde_json::{Map, Value};

use crate::settings::SettingsError;

/// How the text of a variable becomes a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it is.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Flag,
    /// Several, by commas.
    List,
}

/// The variables, each with the setting it stands in for.
pub const VARIABLES: [(&str, &str, Kind); 35] = [
    ("MOORAGE_LISTEN", "listen", Kind::Text),
    ("MOORAGE_TLS_CERTIFICATE", "tls.certificate", Kind::Text),
    ("MOORAGE_TLS_KEY", "tls.key", Kind::Text),
    ("MOORAGE_TLS_SDS", "tls.sds", Kind::Text),
    ("MOORAGE_TLS_CLIENT_CA", "tls.client_ca", Kind::Text),
    ("MOORAGE_TRUSTED_PROXIES", "trusted_proxies", Kind::Number),
    ("MOORAGE_BUCKET", "bucket", Kind::Text),
    ("MOORAGE_PREFIX", "prefix", Kind::Text),
    ("MOORAGE_ENDPOINT", "endpoint", Kind::List),
    ("MOORAGE_FALLBACK_ENDPOINTS", "fallback_endpoints", Kind::List),
    ("AWS_REGION", "region", Kind::Text),
    ("MOORAGE_ADDRESSING", "addressing", Kind::Text),
    ("MOORAGE_CREDENTIALS", "credentials", Kind::Text),
    ("AWS_ROLE_ARN", "role_arn", Kind::Text),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file", Kind::Text),
    ("AWS_CA_BUNDLE", "ca_file", Kind::Text),
    ("MOORAGE_SPOOL", "spool", Kind::Text),
    ("MOORAGE_WASM", "module", Kind::Text),
    ("MOORAGE_NATIVE_HASH", "native_hash", Kind::Text),
    ("MOORAGE_ADMIN", "admin", Kind::Text),
    ("MOORAGE_METRICS", "metrics", Kind::Text),
    ("MOORAGE_ACCESS_LOG", "access_log", Kind::Text),
    ("MOORAGE_TRACING_COLLECTOR", "tracing.collector", Kind::Text),
    ("MOORAGE_TRACING_PERCENT", "tracing.percent", Kind::Number),
    ("MOORAGE_MAX_HEAP_BYTES", "max_heap_bytes", Kind::Number),
    ("MOORAGE_MAX_CONNECTIONS", "max_connections", Kind::Number),
    ("MOORAGE_EDGE_DISK_CACHE", "edge.disk_cache", Kind::Text),
    ("MOORAGE_EDGE_DISK_CACHE_BYTES", "edge.disk_cache_bytes", Kind::Number),
    ("MOORAGE_EDGE_CENTRAL", "edge.central", Kind::Text),
    ("MOORAGE_ACCESS", "access", Kind::Text),
    ("MOORAGE_EVENTS", "events", Kind::Text),
    ("MOORAGE_CACHE_TAG_TTL", "cache.tag_ttl", Kind::Text),
    ("MOORAGE_CACHE_STALE_IF_ERROR", "cache.stale_if_error", Kind::Text),
    ("MOORAGE_CACHE_MAX_BYTES", "cache.max_bytes", Kind::Number),
    ("MOORAGE_READ_ONLY", "read_only", Kind::Flag),
];

/// The variable that set a setting, if one did.
pub fn variable_of(
    setting: &str,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Option<&'static str> {
    let is_set = |name: &str| variables(name).is_some_and(|value| !value.is_empty());
    let of_setting = |path: &str| {
        setting
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
    };
    let mut found = VARIABLES.iter().filter(|(name, path, _)| of_setting(path) && is_set(name));
    found.next().map(|(name, ..)| *name)
}

/// Puts what the variables say over what the file says.
///
/// # Errors
///
/// A variable that does not say what its setting takes.
pub fn apply(
    settings: &mut Map<String, Value>,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<(), SettingsError> {
    for (name, path, kind) in VARIABLES {
        let Some(text) = variables(name).filter(|text| !text.is_empty()) else { continue };
        let value = value(kind, &text)
            .map_err(|problem| SettingsError::new(path, problem).set_by(Some(name)))?;
        match path.split_once('.') {
            None => {
                settings.insert(path.to_owned(), value);
            }
            Some((outer, inner)) => {
                let object = settings.entry(outer).or_insert_with(|| Value::Object(Map::new()));
                // Anything else is refused when the settings are read.
                if let Value::Object(fields) = object {
                    fields.insert(inner.to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

fn value(kind: Kind, text: &str) -> Result<Value, &'static str> {
    match kind {
        Kind::Text => Ok(Value::from(text)),
        Kind::Number => {
            text.parse::<u64>().map(Value::from).map_err(|_| "must be a whole number, 0 or more")
        }
        Kind::Flag => text.parse::<bool>().map(Value::from).map_err(|_| "must be true or false"),
        Kind::List => Ok(text.split(',').map(str::trim).collect()),
    }
}
