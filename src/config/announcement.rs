//! What the log says of a configuration at the start: what is on, and what is allowed but dangerous.

use std::time::Duration;

use super::Config;
use crate::registry::Mount;

impl Config {
    /// One line with the version, the bucket, and what is on.
    pub fn announcement(&self) -> String {
        let store = &self.store;
        let cache = match self.cache.max_bytes {
            0 => "off".to_owned(),
            bytes => format!("{bytes} bytes a worker"),
        };
        let on_or_off = |is_on: bool| if is_on { "on" } else { "off" };
        let schema1 = self.legacy.accept_schema1 || self.legacy.schema1_key.is_some();
        format!(
            "Moorage {version}: bucket {bucket} at {authority} by the cluster {cluster}; access {access}, cache {cache}, \
             stale answers {stale}, events {events}, schema 1 {schema1}{read_only}",
            version = env!("CARGO_PKG_VERSION"),
            bucket = store.bucket,
            authority = store.authority,
            cluster = store.cluster,
            access = on_or_off(self.access.is_some()),
            stale = on_or_off(!self.cache.stale_if_error.is_zero()),
            events = on_or_off(!self.events.endpoints.is_empty()),
            schema1 = on_or_off(schema1),
            read_only = if self.read_only { ", read only" } else { "" },
        )
    }

    /// What may be meant, but is dangerous if it is not: what it means and what to do, each.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if self.access.is_none() && self.mount != Mount::Off {
            warnings.push(
                "mount is not off and there is no access: whoever gets here can have a blob of any repository that a filter \
                 before Moorage may guard; set mount to off, or access, unless there is no such filter",
            );
        }
        if self.looks_like_an_edge() && self.cache.stale_if_error.is_zero() {
            warnings.push(
                "cache.tag_ttl is set, as at an edge, and cache.stale_if_error is not: pulls fail while the blob store is away, \
                 also of what is known here; set it to how old an answer may be then",
            );
        }
        warnings
    }

    /// Whether answers may be older than the store's, which nobody wants but at a distance from it.
    fn looks_like_an_edge(&self) -> bool {
        self.cache.max_bytes > 0 && self.cache.tag_ttl > Duration::ZERO
    }

    /// The warning about a listener that other machines reach, unless there is access control.
    pub fn open_listener_warning(&self) -> Option<&'static str> {
        self.access.is_none().then_some(
            "there is no access, and this listener is not on loopback: everybody who reaches it may do everything that other \
             filters let through; set access (docs/access.md), or see that they refuse what shall not be",
        )
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn config(fields: &str) -> Config {
        let store = r#""store":{"cluster":"c","authority":"s3:9000","bucket":"registry"}"#;
        Config::parse(format!("{{{store}{fields}}}").as_bytes()).expect("a valid configuration")
    }

    #[test]
    fn the_announcement_says_what_is_on() {
        for (fields, parts) in [
            (
                "",
                &["bucket registry at s3:9000", "access off", "cache 67108864 bytes", "events off"]
                    [..],
            ),
            (r#","cache":{"max_bytes":0},"read_only":true"#, &["cache off", "read only"]),
            (r#","cache":{"stale_if_error":"1h"}"#, &["stale answers on"]),
        ] {
            let announcement = config(fields).announcement();
            for part in parts {
                assert!(announcement.contains(part), "{part} in {announcement}");
            }
        }
    }

    #[test]
    fn what_is_dangerous_is_warned_about() {
        for (fields, beginnings) in [
            ("", &[][..]),
            (r#","mount":"from""#, &["mount is not off"]),
            (r#","cache":{"tag_ttl":"30s"}"#, &["cache.tag_ttl is set"]),
            (r#","cache":{"tag_ttl":"30s","stale_if_error":"1h"}"#, &[]),
            (r#","cache":{"tag_ttl":"30s","max_bytes":0}"#, &[]),
        ] {
            let warnings = config(fields).warnings();
            assert_eq!(warnings.len(), beginnings.len(), "{fields}: {warnings:?}");
            for (warning, beginning) in warnings.iter().zip(beginnings) {
                assert!(warning.starts_with(beginning), "{warning}");
            }
        }
        assert!(config("").open_listener_warning().is_some());
    }
}
