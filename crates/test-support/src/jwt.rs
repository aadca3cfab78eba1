//! Tokens, and the key set that verifies them.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::process::Command;

use crate::process::run;

const KEY: &str = "a key that only the tests know..";

/// The key set, as JSON.
pub async fn key_set() -> String {
    let key = base64url(KEY.as_bytes()).await;
    json!({ "keys": [{ "kty": "oct", "kid": "test", "alg": "HS256", "k": key }] }).to_string()
}

/// A token of the issuer `tests` with these `access` entries.
pub async fn token(access: Value) -> String {
    token_of(json!({ "iss": "tests", "sub": "someone", "access": access })).await
}

/// A token with these claims.
pub async fn token_of(claims: Value) -> String {
    let header = json!({ "alg": "HS256", "kid": "test" }).to_string();
    let claims = claims.to_string();
    let (header, claims) = (base64url(header.as_bytes()).await, base64url(claims.as_bytes()).await);
    let signed = format!("{header}.{claims}");
    let hmac = openssl(&["dgst", "-sha256", "-binary", "-hmac", KEY], signed.as_bytes()).await;
    format!("{signed}.{}", base64url(&hmac).await)
}

/// Requires a token.
pub const REQUIRED: &str = "{ provider_name: tests }";

/// Takes what is no token, or none, as well.
pub const OPTIONAL: &str = "{ requires_any: { requirements: [{ provider_name: tests }, { allow_missing_or_failed: {} }] } }";

/// Envoy's `jwt_authn`, in YAML, which leaves what it has verified under `token`. `requires` is [`REQUIRED`] or
/// [`OPTIONAL`].
pub async fn filter(requires: &str) -> String {
    let keys = key_set().await;
    format!(
        r#"                  - name: envoy.filters.http.jwt_authn
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
                      providers:
                        tests:
                          issuer: tests
                          payload_in_metadata: token
                          local_jwks: {{ inline_string: '{keys}' }}
                      rules:
                        - match: {{ prefix: / }}
                          requires: {requires}
"#
    )
}

async fn base64url(bytes: &[u8]) -> String {
    let base64 = openssl(&["base64", "-A"], bytes).await;
    let base64 = String::from_utf8(base64).expect("base64 is text");
    base64.trim_end_matches(['=', '\n']).replace('+', "-").replace('/', "_")
}

async fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let file = NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), input).expect("a file");
    let input = fs::File::open(file.path()).expect("the file is there");
    run(Command::new("openssl").args(arguments).stdin(Stdio::from(input))).await
}
