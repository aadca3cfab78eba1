//! The plugin's configuration: JSON, read strictly.
//!
//! Whatever can't be right stops Envoy from starting, with a message that names the field.
//!
//! In Envoy's bootstrap the JSON is the text of a `google.protobuf.StringValue`. Envoy 1.40 hands a
//! `google.protobuf.Struct` over as its binary encoding, not as the JSON that its documentation
//! promises, so a `Struct` is refused, with a message that says so.
//!
//! It is read field by field, not by `serde`'s derived code: that repeats in its errors what it found, which may be a
//! secret, and with the paths of fields in them it makes the module 80 KB larger.

mod access;
mod announcement;
mod events;
mod fields;

use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

pub use access::AccessConfig;
pub use events::{EventEndpointConfig, EventHeader, EventsConfig};
use fields::Fields;

use crate::registry::http::is_authority;
use crate::registry::{
    Class, DEFAULT_MANIFEST_MAX_BYTES, ImmutableTags, Legacy, Limits, Mount, Settings, SigningKey,
    strict_json,
};
use crate::store::{Addressing, BucketOptions, Budget, CacheSettings};

/// The plugin's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The blob store.
    pub store: StoreConfig,
    /// The largest manifest that is served or accepted, in bytes; 4 MiB unless set.
    pub manifest_max_bytes: u64,
    /// Whether nothing may be changed; off unless set.
    pub read_only: bool,
    /// Whether manifests, tags and blobs may be deleted; on unless set.
    pub delete_enabled: bool,
    /// Whether an image's configuration and layers must be there when it is put; on unless set.
    pub verify_image_references: bool,
    /// Whether an index's manifests must be there when it is put; on unless set.
    pub verify_index_references: bool,
    /// Who may do what; everybody everything unless set.
    pub access: Option<AccessConfig>,
    /// From where a blob may be mounted; from nowhere unless set, or with access control from wherever the caller may
    /// pull.
    pub mount: Mount,
    /// The settings for clients from before 2017.
    pub legacy: Legacy,
    /// The cache.
    pub cache: CacheConfig,
    /// The limits of requests.
    pub limits: LimitsConfig,
    /// The rules for pushes.
    pub policy: PolicyConfig,
    /// What operators see.
    pub telemetry: TelemetryConfig,
    /// Who is told of pushes and the like; nobody unless set.
    pub events: EventsConfig,
    /// The `payload_in_metadata` of the provider by which Envoy's `jwt_authn` filter verifies callers'
    /// tokens. Without it, and without access control, callers have no resources.
    pub jwt_payload: Option<String>,
}

/// What operators see of each worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Whether there are metrics; there are unless set.
    pub metrics: bool,
    /// Whether the access log and traces get the record `wasm.moorage`; they do unless set.
    pub log_fields: bool,
}

/// The rules for pushes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyConfig {
    /// The classes of manifest that may be pushed (`repository.classes`); any unless set.
    pub classes: Vec<Class>,
    /// The tags that, once set, are neither moved nor deleted (`tags.immutable`); none unless set.
    pub immutable_tags: Vec<ImmutableTags>,
}

/// The cache. Times are whole seconds, or texts such as `"1m 30s"` or `"500ms"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// How much each of Envoy's workers keeps, in bytes; 64 MiB unless set, and nothing if it is 0.
    pub max_bytes: u32,
    /// How long it is known that a repository has a manifest or blob; a minute unless set.
    pub link_ttl: Duration,
    /// How long it is known what a tag points at; not at all unless set.
    pub tag_ttl: Duration,
    /// How long it is known that something is not there; not at all unless set.
    pub negative_ttl: Duration,
    /// How old what is known of links and tags may be that pulls are answered with while the store can't be reached; they
    /// get the error unless set.
    pub stale_if_error: Duration,
}

/// The limits of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The most descriptors of a manifest that is put; 10,000 unless set.
    pub manifest_descriptors: usize,
    /// How much memory each of Envoy's workers holds for requests under way, beside the cache, in bytes; 256 MiB
    /// unless set.
    pub memory_bytes: u32,
    /// How many uploads and downloads a client may have under way in each of Envoy's workers; 100 unless
    /// set, and any number if it is 0.
    pub streams_per_client: u32,
    /// How long a manifest's body may take to come, and the rest of any other body that has its answer already;
    /// a minute unless set.
    pub body_timeout: Duration,
}

/// Where the blob store is, and where in it the registry lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The Envoy cluster that leads to the store.
    pub cluster: String,
    /// The store's host, and its port unless that is the scheme's: the `Host` of requests to it.
    pub authority: String,
    /// The bucket.
    pub bucket: String,
    /// How requests name the bucket; in the path unless set.
    pub addressing: Addressing,
    /// The folder of the bucket that holds the registry, `rootdirectory` in `distribution`; the
    /// whole bucket unless set.
    pub prefix: String,
    /// How long one call to the store may take, in milliseconds; 5,000 unless set. Streamed blobs
    /// are limited by the route instead.
    pub timeout_ms: u64,
    /// How long one call may take by which the store copies or puts together a blob, up to 256 MiB at
    /// a time, in milliseconds; 60,000 unless set.
    pub copy_timeout_ms: u64,
}

/// The least memory with which a worker serves every request, in bytes: of a quarter, what it reads at a time to put
/// small chunks together.
const LEAST_MEMORY: u64 = 128 * 1024 * 1024;

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No JSON at all, or a field twice.
    #[error("it must be JSON, in Envoy's bootstrap the text of a google.protobuf.StringValue: {0}")]
    Json(#[from] serde_json::Error),
    /// A field that is missing, does not exist, or has a value that can't be right.
    #[error("{place}: {problem}")]
    Field {
        /// The field, with the objects it is in.
        place: String,
        /// What is wrong with it. It says nothing of secrets.
        problem: String,
    },
}

impl Config {
    /// Reads the configuration that Envoy hands to the plugin.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`], whose text names the field.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let mut fields = Fields::new("", strict_json::parse(json)?)?;
        let access = fields.take("access").map(AccessConfig::read).transpose()?;
        let events = fields.take("events").map(EventsConfig::read).transpose()?;
        let config = Self {
            store: StoreConfig::read(fields.take_object("store")?)?,
            manifest_max_bytes: fields
                .take_number("manifest_max_bytes", 1..=256 * 1024 * 1024)?
                .unwrap_or(DEFAULT_MANIFEST_MAX_BYTES),
            read_only: fields.take_flag("read_only")?.unwrap_or(false),
            delete_enabled: fields.take_flag("delete_enabled")?.unwrap_or(true),
            verify_image_references: fields.take_flag("verify_image_references")?.unwrap_or(true),
            verify_index_references: fields.take_flag("verify_index_references")?.unwrap_or(true),
            mount: read_mount(&mut fields, access.is_some())?,
            access,
            legacy: read_legacy(fields.take_object("legacy")?)?,
            cache: CacheConfig::read(fields.take_object("cache")?)?,
            limits: LimitsConfig::read(fields.take_object("limits")?)?,
            events: events.unwrap_or_default(),
            policy: PolicyConfig::read(fields.take_object("policy")?)?,
            telemetry: TelemetryConfig::read(fields.take_object("telemetry")?)?,
            jwt_payload: fields.take_text("jwt_payload")?,
        };
        fields.end()?;
        if u64::from(config.limits.memory_bytes) / 8 < config.manifest_max_bytes {
            let problem = "must be eight times manifest_max_bytes at least";
            return Err(fields::wrong("limits.memory_bytes".to_owned(), problem));
        }
        Ok(config)
    }

    /// How much of a worker's memory may be held for one client, in bytes: two of the largest manifests at least.
    pub fn client_memory_bytes(&self) -> usize {
        let least = usize::try_from(2 * self.manifest_max_bytes).unwrap_or(usize::MAX);
        least.max(self.limits.memory_bytes as usize / 16)
    }

    /// The settings of the handlers. The access control in them remembers callers, and so is a worker's own.
    pub fn settings(&self) -> Settings {
        Settings {
            manifest_max_bytes: self.manifest_max_bytes,
            read_only: self.read_only,
            delete_enabled: self.delete_enabled,
            verify_image_references: self.verify_image_references,
            verify_index_references: self.verify_index_references,
            classes: self.policy.classes.clone(),
            immutable_tags: self.policy.immutable_tags.clone(),
            access: self.access.as_ref().map(|access| Rc::new(access.access())),
            mount: self.mount,
            legacy: self.legacy.clone(),
            limits: Limits { manifest_descriptors: self.limits.manifest_descriptors },
        }
    }
}

/// The path of a request to mount a blob does not show the source: only where this registry decides who may pull from it
/// is it safe to have mounts without being told so.
fn read_mount(fields: &mut Fields, has_access: bool) -> Result<Mount, ConfigError> {
    let mount = fields.take_parsed("mount")?;
    if has_access && mount == Some(Mount::Anywhere) {
        let problem =
            "can't be anywhere with access control: whoever knows a digest could have any blob";
        return Err(fields.wrong("mount", problem));
    }
    Ok(mount.unwrap_or(if has_access { Mount::From } else { Mount::Off }))
}

fn read_legacy(mut fields: Fields) -> Result<Legacy, ConfigError> {
    let key = fields.take("schema1_key").map(|key| SigningKey::read(&key));
    let key = key.transpose().map_err(|error| fields.wrong("schema1_key", error))?;
    let legacy = Legacy {
        platform: fields.take_parsed("platform")?.unwrap_or_default(),
        absent_accept: fields.take_parsed("absent_accept")?.unwrap_or_default(),
        accept_schema1: fields.take_flag("accept_schema1")?.unwrap_or(false),
        schema1_key: key,
    };
    if legacy.accept_schema1 && !cfg!(feature = "schema1") {
        let problem =
            "can't be on: this build of Moorage has no schema 1 (the Cargo feature `schema1`)";
        return Err(fields.wrong("accept_schema1", problem));
    }
    fields.end()?;
    Ok(legacy)
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { metrics: true, log_fields: true }
    }
}

impl TelemetryConfig {
    fn read(mut fields: Fields) -> Result<Self, ConfigError> {
        let unset = Self::default();
        let config = Self {
            metrics: fields.take_flag("metrics")?.unwrap_or(unset.metrics),
            log_fields: fields.take_flag("log_fields")?.unwrap_or(unset.log_fields),
        };
        fields.end()?;
        Ok(config)
    }
}

impl PolicyConfig {
    fn read(mut fields: Fields) -> Result<Self, ConfigError> {
        let mut repository = fields.take_object("repository")?;
        let classes = repository.take_parsed_list("classes")?;
        repository.end()?;
        let mut tags = fields.take_object("tags")?;
        let immutable_tags = tags.take_objects("immutable", read_immutable_tags)?;
        tags.end()?;
        fields.end()?;
        Ok(Self { classes, immutable_tags })
    }
}

fn read_immutable_tags(mut fields: Fields) -> Result<ImmutableTags, ConfigError> {
    let tags = ImmutableTags {
        repositories: fields.need_parsed_list("repositories")?,
        tags: fields.need_parsed_list("tags")?,
    };
    fields.end()?;
    Ok(tags)
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_bytes: 64 * 1024 * 1024,
            link_ttl: Duration::from_secs(60),
            tag_ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            stale_if_error: Duration::ZERO,
        }
    }
}

impl CacheConfig {
    fn read(mut fields: Fields) -> Result<Self, ConfigError> {
        let unset = Self::default();
        let config = Self {
            max_bytes: fields.take_u32("max_bytes", 0)?.unwrap_or(unset.max_bytes),
            link_ttl: fields.take_time("link_ttl")?.unwrap_or(unset.link_ttl),
            tag_ttl: fields.take_time("tag_ttl")?.unwrap_or(unset.tag_ttl),
            negative_ttl: fields.take_time("negative_ttl")?.unwrap_or(unset.negative_ttl),
            stale_if_error: fields.take_time("stale_if_error")?.unwrap_or(unset.stale_if_error),
        };
        if config.max_bytes == 0 && !config.stale_if_error.is_zero() {
            let problem = "needs memory to answer from: cache.max_bytes must not be 0";
            return Err(fields.wrong("stale_if_error", problem));
        }
        fields.end()?;
        Ok(config)
    }

    /// The settings of the cache.
    pub fn settings(&self) -> CacheSettings {
        CacheSettings {
            max_bytes: self.max_bytes as usize,
            link_ttl: self.link_ttl,
            tag_ttl: self.tag_ttl,
            negative_ttl: self.negative_ttl,
            stale_if_error: self.stale_if_error,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            manifest_descriptors: Limits::default().manifest_descriptors,
            memory_bytes: 256 * 1024 * 1024,
            streams_per_client: 100,
            body_timeout: Duration::from_secs(60),
        }
    }
}

impl LimitsConfig {
    fn read(mut fields: Fields) -> Result<Self, ConfigError> {
        let unset = Self::default();
        let descriptors = fields.take_number("manifest_descriptors", 1..=1_000_000)?;
        let descriptors = descriptors.and_then(|number| usize::try_from(number).ok());
        let config = Self {
            manifest_descriptors: descriptors.unwrap_or(unset.manifest_descriptors),
            memory_bytes: fields
                .take_u32("memory_bytes", LEAST_MEMORY)?
                .unwrap_or(unset.memory_bytes),
            streams_per_client: fields
                .take_u32("streams_per_client", 0)?
                .unwrap_or(unset.streams_per_client),
            body_timeout: fields.take_time("body_timeout")?.unwrap_or(unset.body_timeout),
        };
        fields.end()?;
        Ok(config)
    }

    /// The memory that requests under way may hold in a worker.
    pub fn budget(&self) -> Budget {
        Budget::new(self.memory_bytes as usize)
    }
}

impl StoreConfig {
    fn read(mut fields: Fields) -> Result<Self, ConfigError> {
        // Keys go into URLs as they are, and S3 signs the encoded path: only characters that need
        // no encoding are sure to be signed as they are sent.
        let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let is_segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(is_unreserved);
        let time = 1..=3_600_000;
        let store = Self {
            cluster: fields.need_text("cluster")?,
            authority: fields.need_text("authority")?,
            bucket: fields.need_text("bucket")?,
            addressing: fields.take_parsed("addressing")?.unwrap_or_default(),
            prefix: fields.take_text("prefix")?.unwrap_or_default(),
            timeout_ms: fields.take_number("timeout_ms", time.clone())?.unwrap_or(5_000),
            copy_timeout_ms: fields.take_number("copy_timeout_ms", time)?.unwrap_or(60_000),
        };
        let Self { cluster, authority, bucket, prefix, .. } = &store;
        let checks = [
            ("cluster", !cluster.is_empty(), "must name an Envoy cluster"),
            ("authority", is_authority(authority), "must be a host, with a port where needed"),
            ("bucket", is_segment(bucket), "must be a bucket's name"),
            (
                "prefix",
                prefix.is_empty() || prefix.trim_matches('/').split('/').all(is_segment),
                "must be folders separated by slashes, of letters, digits and -._~",
            ),
        ];
        if let Some((name, _, problem)) = checks.into_iter().find(|(_, holds, _)| !holds) {
            return Err(fields.wrong(name, problem));
        }
        fields.end()?;
        Ok(store)
    }

    /// How long one call to the store may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How long one call may take by which the store copies a blob.
    pub fn copy_timeout(&self) -> Duration {
        Duration::from_millis(self.copy_timeout_ms)
    }

    /// The options of the bucket; `content_limit` is the largest content that is read into memory, in
    /// bytes.
    pub fn bucket_options(&self, content_limit: u64) -> BucketOptions {
        BucketOptions {
            authority: self.authority.clone(),
            bucket: self.bucket.clone(),
            addressing: self.addressing,
            prefix: self.prefix.clone(),
            content_limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn minimal() -> Value {
        json!({ "store": { "cluster": "blob_store", "authority": "s3:9000", "bucket": "registry" } })
    }

    fn parse(json: &Value) -> Result<Config, ConfigError> {
        Config::parse(json.to_string().as_bytes())
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        let config = parse(&minimal()).expect("a valid configuration");
        assert_eq!(format!("{:?}", config.settings()), format!("{:?}", Settings::default()));
        assert_eq!(config.store.timeout(), Duration::from_secs(5));
        let bucket = config.store.bucket_options(1);
        assert_eq!(bucket.request_authority(), "s3:9000");
        assert_eq!(bucket.bucket_path(), "/registry/");
        assert_eq!(bucket.key_prefix(), "");
    }

    #[test]
    fn times_are_seconds_or_texts() {
        let mut json = minimal();
        json["cache"] = json!({ "link_ttl": 5, "tag_ttl": "1m 500ms", "negative_ttl": "0s" });
        let cache = parse(&json).expect("a valid configuration").cache;
        assert_eq!(cache.link_ttl, Duration::from_secs(5));
        assert_eq!(cache.tag_ttl, Duration::from_millis(60_500));
        assert_eq!(cache.negative_ttl, Duration::ZERO);
    }

    #[test]
    fn bucket_and_prefix_are_addressed_as_configured() {
        for (addressing, prefix, authority, base) in [
            ("path", "", "s3:9000", "/registry/"),
            ("path", "/a/b/", "s3:9000", "/registry/a/b/"),
            ("virtual-host", "", "registry.s3:9000", "/"),
            ("virtual-host", "a", "registry.s3:9000", "/a/"),
        ] {
            let mut json = minimal();
            json["store"]["addressing"] = addressing.into();
            json["store"]["prefix"] = prefix.into();
            let store = parse(&json).expect("a valid configuration").store.bucket_options(1);
            assert_eq!(store.request_authority(), authority);
            assert_eq!(store.bucket_path() + &store.key_prefix(), base);
        }
    }

    /// Each row: what is put where, and what the message must name.
    #[test]
    fn a_wrong_configuration_is_refused_with_the_name_of_the_field() {
        for (pointer, value, named) in [
            ("/unknown", json!(1), "unknown"),
            ("/store/unknown", json!(1), "unknown"),
            ("/store", json!("x"), "store"),
            ("/store", json!({}), "cluster"),
            ("/store/cluster", json!(5), "store.cluster"),
            ("/store/cluster", json!(""), "store.cluster"),
            ("/store/authority", json!("a/b"), "store.authority"),
            ("/store/bucket", json!("a/b"), "store.bucket"),
            ("/store/bucket", json!(".."), "store.bucket"),
            ("/store/prefix", json!("a//b"), "store.prefix"),
            ("/store/prefix", json!("a/../b"), "store.prefix"),
            ("/store/prefix", json!("a b"), "store.prefix"),
            ("/store/addressing", json!("other"), "store.addressing"),
            ("/store/timeout_ms", json!("1s"), "store.timeout_ms"),
            ("/store/timeout_ms", json!(0), "store.timeout_ms"),
            ("/store/copy_timeout_ms", json!(0), "store.copy_timeout_ms"),
            ("/manifest_max_bytes", json!(-1), "manifest_max_bytes"),
            ("/manifest_max_bytes", json!(0), "manifest_max_bytes"),
            ("/limits", json!({ "descriptors": 1 }), "limits"),
            ("/limits", json!({ "manifest_descriptors": "many" }), "limits.manifest_descriptors"),
            ("/limits", json!({ "manifest_descriptors": 0 }), "limits.manifest_descriptors"),
            (
                "/policy",
                json!({ "repository": { "classes": ["vm"] } }),
                "policy.repository.classes[0]",
            ),
            ("/policy", json!({ "classes": [] }), "policy"),
            (
                "/policy",
                json!({ "tags": { "immutable": [{}] } }),
                "policy.tags.immutable[0].repositories",
            ),
            (
                "/policy",
                json!({ "tags": { "immutable": [{ "repositories": ["**"], "tags": ["***"] }] } }),
                "policy.tags.immutable[0].tags[0]",
            ),
            ("/access", json!("a secret"), "access"),
            ("/access", json!({}), "access.key"),
            ("/jwt_payload", json!(1), "jwt_payload"),
            ("/read_only", json!("yes"), "read_only"),
            ("/mount", json!("somewhere"), "mount"),
            ("/legacy", json!({ "key": 1 }), "legacy"),
            ("/legacy", json!({ "platform": "linux" }), "legacy.platform"),
            ("/legacy", json!({ "absent_accept": "any" }), "legacy.absent_accept"),
            ("/legacy", json!({ "accept_schema1": 1 }), "legacy.accept_schema1"),
            ("/legacy", json!({ "schema1_key": { "kty": "EC" } }), "legacy.schema1_key"),
            ("/legacy", json!({ "schema1_key": "a secret" }), "legacy.schema1_key"),
            ("/cache", json!({ "size": 1 }), "cache"),
            ("/cache", json!({ "max_bytes": -1 }), "cache.max_bytes"),
            ("/cache", json!({ "tag_ttl": "soon" }), "cache.tag_ttl"),
            ("/cache", json!({ "link_ttl": -1 }), "cache.link_ttl"),
            ("/cache", json!({ "stale_if_error": true }), "cache.stale_if_error"),
            ("/cache", json!({ "stale_if_error": 1, "max_bytes": 0 }), "cache.stale_if_error"),
            ("/delete_enabled", json!(1), "delete_enabled"),
            ("/limits", json!({ "memory": 1 }), "limits"),
            ("/limits", json!({ "memory_bytes": 134_217_727 }), "limits.memory_bytes"),
            ("/limits", json!({ "streams_per_client": -1 }), "limits.streams_per_client"),
            ("/limits", json!({ "body_timeout": "soon" }), "limits.body_timeout"),
        ] {
            let mut json = minimal();
            let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
            json.pointer_mut(parent).expect("an object")[field] = value;
            let message = parse(&json).expect_err("must be refused").to_string();
            assert!(message.contains(named), "{pointer}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
        for text in ["", "{", "[]", "null", "{} {}", r#"{"mount":"off","mount":"from"}"#] {
            assert!(Config::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_required_field_is_named_when_it_is_missing() {
        for field in ["cluster", "authority", "bucket"] {
            let mut json = minimal();
            json["store"].as_object_mut().expect("an object").remove(field);
            let message = parse(&json).expect_err("must be refused").to_string();
            assert!(message.contains("store") && message.contains(field), "{message}");
        }
    }
}
