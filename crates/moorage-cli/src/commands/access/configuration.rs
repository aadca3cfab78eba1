//! The file with the configuration: the object `access`, or all of the filter's configuration with that in it.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::Args;
use moorage::config::{AccessConfig, Config, ConfigError};
use moorage::registry::{Settings, strict_json};

use crate::Failure;

/// Which file.
#[derive(Debug, Args)]
pub struct ConfigurationOptions {
    /// The file with the object access, or with all of the filter's configuration, in JSON.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Why there are no settings.
#[derive(Debug)]
pub enum ConfigurationError {
    /// The file can't be read.
    Unreadable(String),
    /// The filter would refuse what is in it. Nothing of it is shown.
    Invalid(String),
}

/// With the configuration's name; for commands that need one that is right.
impl From<ConfigurationError> for Failure {
    fn from(error: ConfigurationError) -> Self {
        let (ConfigurationError::Unreadable(text) | ConfigurationError::Invalid(text)) = error;
        Self::Usage(text)
    }
}

impl ConfigurationOptions {
    /// The settings that the file gives the filter. Where it has the object `access` alone, the others are as if they
    /// were not set.
    ///
    /// # Errors
    ///
    /// A [`ConfigurationError`], whose text names the file and, where it is wrong, the field.
    pub fn settings(&self) -> Result<Settings, ConfigurationError> {
        let path = self.config.display();
        let json = read(&self.config)
            .map_err(|error| ConfigurationError::Unreadable(format!("--config {path}: {error}")))?;
        parse(&json).map_err(|error| ConfigurationError::Invalid(format!("{path}: {error}")))
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// The settings of the object `access`, or of a configuration: what has one of the fields that only that has.
pub fn parse(json: &[u8]) -> Result<Settings, ConfigError> {
    let value = strict_json::parse(json)?;
    if ["access", "store"].iter().any(|field| value.get(field).is_some()) {
        return Ok(Config::parse(json)?.settings());
    }
    let access = AccessConfig::parse(json)?.access();
    Ok(Settings { access: Some(Rc::new(access)), ..Settings::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use moorage_test_support::accounts::key;

    fn access() -> Value {
        json!({
            "key": key(),
            "users": ["ada:$2y$05$NHFVFxLN6UTwJghZxZIXVu1Y2UfC8511cK9JLb2Did1ReDyxC6EFu"],
            "tokens": [{ "name": "ci", "sha256": "5".repeat(64) }],
            "rules": [{ "who": ["user:ada"], "repositories": ["**"], "actions": ["*"] }],
        })
    }

    fn whole() -> Value {
        let store = json!({ "cluster": "blob_store", "authority": "s3:9000", "bucket": "b" });
        json!({ "store": store, "access": access(), "read_only": true })
    }

    fn parsed(json: &Value) -> Result<Settings, ConfigError> {
        parse(json.to_string().as_bytes())
    }

    #[test]
    fn a_file_has_the_object_or_all_of_the_configuration() {
        let rules = |settings: &Settings| {
            settings.access.as_ref().map(|access| access.rules().all().to_vec())
        };
        let (alone, within) = (parsed(&access()).expect("valid"), parsed(&whole()).expect("valid"));
        assert_eq!(rules(&alone).expect("rules").len(), 1);
        assert_eq!(rules(&alone), rules(&within));
        assert!(within.read_only && !alone.read_only);
        let mut open = whole();
        open["access"].take();
        assert!(parsed(&open).expect("valid").access.is_none());
    }

    /// Each row: the field, what is put there, and what the message names.
    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        let user = "ada:$2y$05$NHFVFxLN6UTwJghZxZIXVu1Y2UfC8511cK9JLb2Did1ReDyxC6EF";
        for (field, value, named) in [
            ("key", json!("-----BEGIN EC PRIVATE KEY-----\nsecret"), "access.key"),
            ("key", json!({ "kty": "EC", "crv": "P-256", "d": "secret" }), "access.key"),
            ("accepted_keys", json!([key(), "secret"]), "access.accepted_keys[1]"),
            ("users", json!([user]), "access.users[0]"),
            ("users", json!(["ada:secret"]), "access.users[0]"),
            ("users", json!({ "ada": "secret" }), "access.users"),
            (
                "tokens",
                json!([{ "name": "ci", "sha256": "mrg_secret" }]),
                "access.tokens[0].sha256",
            ),
            ("tokens", json!(["mrg_secret"]), "access.tokens[0]"),
            ("tokens", json!([{ "name": "", "sha256": "5".repeat(64) }]), "access.tokens[0].name"),
            (
                "tokens",
                json!([{ "name": "a:b", "sha256": "5".repeat(64) }]),
                "access.tokens[0].name",
            ),
            ("rules", json!([{ "who": ["ada"] }]), "access.rules[0]"),
            ("rule", json!("secret"), "access.rule"),
            ("token_lifetime", json!("secret"), "access.token_lifetime"),
        ] {
            let mut alone = access();
            alone[field] = value;
            let mut within = whole();
            within["access"] = alone.clone();
            for json in [alone, within] {
                let message = parsed(&json).expect_err("must be refused").to_string();
                assert!(message.contains(named), "{named}: {message}");
                assert!(!message.contains("secret") && !message.contains("NHF"), "{message}");
            }
        }
        for text in ["", "[]", "null", "{\"key\": \"secret\"", "{\"key\": 1, \"key\": \"secret\"}"]
        {
            let message = parse(text.as_bytes()).expect_err("must be refused").to_string();
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
