//! The configuration of events: who is told of pushes and the like. No error that it gives shows a secret.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::ConfigError;
use super::fields::Fields;
use crate::registry::events::{EventAction, EventFilter, Format};
use crate::registry::http::is_authority;

/// The name of this registry in events unless set.
const DEFAULT_SOURCE: &str = "moorage";

/// The most bytes of a name, of the registry's or an endpoint's.
const NAME_MAX_BYTES: usize = 256;

/// How long an endpoint may take to answer unless set.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest time that an endpoint may be given: that of a tick, by which time is measured.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// The longest time that an endpoint may be given.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// The most endpoints: each may have 4 MiB of events waiting in every worker.
const ENDPOINTS_MAX: usize = 8;

/// What an endpoint is sent unless set: pulls are very many.
const DEFAULT_ACTIONS: [EventAction; 4] =
    [EventAction::Push, EventAction::Delete, EventAction::Mount, EventAction::TagMoved];

/// Headers that are Moorage's or Envoy's to set.
const RESERVED_HEADERS: [&str; 6] =
    ["connection", "content-length", "content-type", "host", "te", "transfer-encoding"];

/// Who is told of what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsConfig {
    /// The name of this registry in events; `moorage` unless set.
    pub source: String,
    /// Where events are sent; nowhere unless set.
    pub endpoints: Vec<EventEndpointConfig>,
}

/// Where events are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventEndpointConfig {
    /// Its name in the log.
    pub name: String,
    /// The Envoy cluster that leads there.
    pub cluster: String,
    /// The `Host` of requests to it.
    pub authority: String,
    /// The path, and query, of requests to it.
    pub path: String,
    /// Further headers of requests to it.
    pub headers: Vec<EventHeader>,
    /// How long it may take to answer; five seconds unless set.
    pub timeout: Duration,
    /// How events are written; as `distribution` does unless set.
    pub format: Format,
    /// The events that it is sent; all but pulls, of all repositories, unless set.
    pub filter: EventFilter,
}

/// A header of requests to an endpoint. Its value may be a secret, and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct EventHeader {
    /// Its name, in lower case.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl fmt::Debug for EventHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHeader").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { source: DEFAULT_SOURCE.to_owned(), endpoints: Vec::new() }
    }
}

impl EventsConfig {
    /// Reads the object `events`.
    pub(super) fn read(value: Value) -> Result<Self, ConfigError> {
        let mut fields = Fields::new("events", value)?;
        let source = fields.take_text("source")?.unwrap_or_else(|| DEFAULT_SOURCE.to_owned());
        check_name(&fields, "source", &source)?;
        let endpoints = fields.take_objects("endpoints", read_endpoint)?;
        if endpoints.len() > ENDPOINTS_MAX {
            let problem = format!("may have {ENDPOINTS_MAX} entries at most");
            return Err(fields.wrong("endpoints", problem));
        }
        for (number, endpoint) in endpoints.iter().enumerate() {
            if endpoints.iter().take(number).any(|other| other.name == endpoint.name) {
                let problem = "is the name of another endpoint already";
                return Err(fields.wrong(&format!("endpoints[{number}].name"), problem));
            }
        }
        fields.end()?;
        Ok(Self { source, endpoints })
    }
}

fn read_endpoint(mut fields: Fields) -> Result<EventEndpointConfig, ConfigError> {
    let name = fields.need_text("name")?;
    check_name(&fields, "name", &name)?;
    let cluster = fields.need_text("cluster")?;
    if cluster.is_empty() {
        return Err(fields.wrong("cluster", "is empty: it must be the name of an Envoy cluster"));
    }
    let authority = fields.need_text("authority")?;
    if !is_authority(&authority) {
        return Err(fields.wrong("authority", "must be a host, perhaps with a port"));
    }
    let path = fields.need_text("path")?;
    if !path.starts_with('/') || !is_visible(&path) || path.contains('#') {
        let problem = "must be a path, with a query perhaps, of visible ASCII: /hooks/registry";
        return Err(fields.wrong("path", problem));
    }
    let endpoint = EventEndpointConfig {
        name,
        cluster,
        authority,
        path,
        headers: read_headers(&mut fields)?,
        timeout: read_timeout(&mut fields)?,
        format: fields.take_parsed("format")?.unwrap_or_default(),
        filter: read_filter(&mut fields)?,
    };
    fields.end()?;
    Ok(endpoint)
}

fn read_timeout(fields: &mut Fields) -> Result<Duration, ConfigError> {
    let timeout = fields.take_time("timeout")?.unwrap_or(DEFAULT_TIMEOUT);
    if (TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) {
        return Ok(timeout);
    }
    Err(fields.wrong("timeout", "must be from \"100ms\" to \"1m\""))
}

fn read_filter(fields: &mut Fields) -> Result<EventFilter, ConfigError> {
    let actions = match fields.has("actions") {
        true => fields.need_parsed_list("actions")?,
        false => DEFAULT_ACTIONS.to_vec(),
    };
    let repositories = match fields.has("repositories") {
        true => fields.need_parsed_list("repositories")?,
        // A pattern for all names is always valid.
        false => "**".parse().into_iter().collect(),
    };
    Ok(EventFilter { actions: actions.into_iter().collect(), repositories })
}

fn read_headers(fields: &mut Fields) -> Result<Vec<EventHeader>, ConfigError> {
    let place = "headers";
    let mut object = fields.take_object(place)?;
    let mut headers: Vec<EventHeader> = Vec::new();
    for name in object.names() {
        let value = object.need_text(&name)?;
        let lower = name.to_ascii_lowercase();
        if http::HeaderName::try_from(lower.as_str()).is_err() {
            return Err(fields.wrong(place, "has a name that is no header's"));
        }
        if RESERVED_HEADERS.contains(&lower.as_str()) {
            return Err(object.wrong(&name, "is set by Moorage or Envoy"));
        }
        if headers.iter().any(|header| header.name == lower) {
            return Err(object.wrong(&name, "is there twice"));
        }
        if value.bytes().any(|byte| !matches!(byte, b'\t' | b' '..=b'~')) {
            return Err(object.wrong(&name, "must be visible ASCII"));
        }
        headers.push(EventHeader { name: lower, value });
    }
    Ok(headers)
}

/// Names go into the log, and the registry's into events, where CloudEvents want a URI reference.
fn check_name(fields: &Fields, field: &str, name: &str) -> Result<(), ConfigError> {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    if !name.is_empty() && name.len() <= NAME_MAX_BYTES && name.bytes().all(is_allowed) {
        return Ok(());
    }
    let problem =
        format!("must have from 1 to {NAME_MAX_BYTES} characters, of those that a URI may have");
    Err(fields.wrong(field, problem))
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'!'..=b'~'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// An endpoint with all fields.
    fn endpoint() -> Value {
        json!({
            "name": "scanner",
            "cluster": "event_receiver",
            "authority": "scanner.example.org",
            "path": "/hooks/registry?x=y",
            "headers": { "Authorization": "Bearer a-secret" },
            "timeout": "2s",
            "format": "cloudevents",
            "actions": ["pull", "delete"],
            "repositories": ["apps/**"],
        })
    }

    fn read(endpoints: Value) -> Result<EventsConfig, ConfigError> {
        EventsConfig::read(json!({ "source": "registry-1", "endpoints": endpoints }))
    }

    #[test]
    fn every_field_is_read_and_few_are_needed() {
        let config = read(json!([endpoint()])).expect("a valid configuration");
        assert_eq!(config.source, "registry-1");
        let [endpoint] = config.endpoints.as_slice() else {
            panic!("one endpoint");
        };
        assert_eq!(endpoint.headers[0].name, "authorization");
        assert_eq!(endpoint.headers[0].value, "Bearer a-secret");
        assert_eq!(endpoint.timeout, Duration::from_secs(2));
        assert_eq!(endpoint.format, Format::CloudEvents);
        let name = |text: &str| text.parse().expect("a name");
        assert!(endpoint.filter.matches(EventAction::Pull, &name("apps/web")));
        assert!(!endpoint.filter.matches(EventAction::Pull, &name("other")));
        assert!(!endpoint.filter.matches(EventAction::Push, &name("apps/web")));

        let least = json!([{ "name": "a", "cluster": "c", "authority": "h:80", "path": "/" }]);
        let config =
            EventsConfig::read(json!({ "endpoints": least })).expect("a valid configuration");
        assert_eq!(config.source, "moorage");
        let endpoint = &config.endpoints[0];
        assert_eq!((endpoint.timeout, endpoint.format), (DEFAULT_TIMEOUT, Format::Distribution));
        for action in EventAction::ALL {
            let matches = endpoint.filter.matches(action, &name("any/name"));
            assert_eq!(matches, action != EventAction::Pull, "{action:?}");
        }
        assert_eq!(EventsConfig::read(json!({})).ok(), Some(EventsConfig::default()));
    }

    #[test]
    fn what_can_not_be_right_is_refused_with_the_name_of_the_field_and_without_what_it_is() {
        for (field, value, named) in [
            ("name", json!(null), "events.endpoints[0].name: is missing"),
            ("name", json!(""), "events.endpoints[0].name: must have"),
            ("name", json!("a secret"), "events.endpoints[0].name: must have"),
            ("cluster", json!(null), "events.endpoints[0].cluster: is missing"),
            ("cluster", json!(""), "events.endpoints[0].cluster: is empty"),
            ("authority", json!(null), "events.endpoints[0].authority: is missing"),
            ("authority", json!("https://secret"), "events.endpoints[0].authority: must be"),
            ("path", json!(null), "events.endpoints[0].path: is missing"),
            ("path", json!("secret"), "events.endpoints[0].path: must be"),
            ("path", json!("/secret\r\nx: y"), "events.endpoints[0].path: must be"),
            ("path", json!("/#secret"), "events.endpoints[0].path: must be"),
            ("headers", json!(["secret"]), "events.endpoints[0].headers: must be an object"),
            ("headers", json!({ "a b": "secret" }), "events.endpoints[0].headers: has a name"),
            ("headers", json!({ ":path": "secret" }), "events.endpoints[0].headers: has a name"),
            ("headers", json!({ "Host": "secret" }), "events.endpoints[0].headers.Host: is set by"),
            (
                "headers",
                json!({ "a": ["secret"] }),
                "events.endpoints[0].headers.a: must be a text",
            ),
            (
                "headers",
                json!({ "a": "secret\n" }),
                "events.endpoints[0].headers.a: must be visible",
            ),
            ("headers", json!({ "a": "secret", "A": "b" }), "is there twice"),
            ("timeout", json!("10ms"), "events.endpoints[0].timeout: must be from"),
            ("timeout", json!("2m"), "events.endpoints[0].timeout: must be from"),
            ("timeout", json!("secret"), "events.endpoints[0].timeout: must be a time"),
            ("format", json!("secret"), "events.endpoints[0].format: must be distribution or"),
            ("actions", json!([]), "events.endpoints[0].actions: must have an entry"),
            ("actions", json!(["secret"]), "events.endpoints[0].actions[0]: must be push, pull"),
            ("repositories", json!([]), "events.endpoints[0].repositories: must have an entry"),
            ("repositories", json!([""]), "events.endpoints[0].repositories[0]: is empty"),
            ("url", json!("secret"), "events.endpoints[0].url: is unknown"),
        ] {
            let mut endpoint = endpoint();
            endpoint[field] = value;
            let message = read(json!([endpoint])).expect_err("must be refused").to_string();
            assert!(message.contains(named), "{field}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
        for (config, named) in [
            (json!([]), "events: must be an object"),
            (json!({ "endpoints": {} }), "events.endpoints: must be a list"),
            (json!({ "endpoints": ["secret"] }), "events.endpoints[0]: must be an object"),
            (json!({ "endpoints": [endpoint(), endpoint()] }), "events.endpoints[1].name: is the"),
            (json!({ "source": "a b" }), "events.source: must have"),
            (json!({ "source": "a".repeat(257) }), "events.source: must have"),
            (json!({ "sources": "secret" }), "events.sources: is unknown"),
        ] {
            let message = EventsConfig::read(config).expect_err("must be refused").to_string();
            assert!(message.contains(named) && !message.contains("secret"), "{message}");
        }
        let named = |number: usize| {
            let mut endpoint = endpoint();
            endpoint["name"] = number.to_string().into();
            endpoint
        };
        assert!(read((0..ENDPOINTS_MAX).map(named).collect()).is_ok());
        let message = read((0..=ENDPOINTS_MAX).map(named).collect()).expect_err("too many");
        assert!(message.to_string().contains("events.endpoints: may have 8"), "{message}");
    }

    #[test]
    fn nothing_shows_a_secret() {
        let shown = format!("{:?}", read(json!([endpoint()])).expect("a valid configuration"));
        assert!(shown.contains("authorization") && !shown.contains("secret"), "{shown}");
    }
}
