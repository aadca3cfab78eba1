//! Access control through a real Envoy, and what clients that mean harm make of it.

mod certificates;
mod guesses;
mod immutable_tags;
mod logs;
mod sources;
mod tokens;

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Response;
use moorage::registry::PrivateKey;
use serde_json::Value;

use moorage_test_support::accounts::User;
use moorage_test_support::client;
use moorage_test_support::envoy::Envoy;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

/// What everybody may pull, and what some users may.
const PUBLIC: &str = "/v2/public/web/manifests/t";
const PRIVATE: &str = "/v2/private/web/manifests/t";

/// A store that has both.
async fn store() -> StandIn {
    let mut tree = Tree::default();
    for name in ["public/web", "private/web"] {
        tree.put_manifest(name, "t", br#"{"schemaVersion":2,"config":{},"layers":[]}"#);
    }
    StandIn::start(tree, |_, _| Behaviour::Serve).await
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn login(user: User) -> String {
    basic(user.name, user.password)
}

/// The token that the registry gives a user for a scope.
async fn token(server: SocketAddr, authorization: &str, scope: &str) -> String {
    let path = format!("/auth/token?service=moorage&scope={scope}");
    let response = client::get(server, &path, &[("authorization", authorization)]).await;
    assert_eq!(response.status(), 200, "{response:?}");
    let body: Value = serde_json::from_slice(response.body()).expect("JSON");
    body["token"].as_str().expect("a text").to_owned()
}

async fn get_as(server: SocketAddr, path: &str, authorization: &str) -> Response<Bytes> {
    client::get(server, path, &[("authorization", authorization)]).await
}

async fn status_as(server: SocketAddr, path: &str, authorization: &str) -> u16 {
    get_as(server, path, authorization).await.status().as_u16()
}

/// The key of a configuration.
fn key_of(access: &Value) -> PrivateKey {
    PrivateKey::read(&access["key"]).expect("a key")
}

/// Signs by ES256, whatever the header says.
fn sign(header: &str, claims: &str, key: &PrivateKey) -> String {
    let signed = signed_part(header, claims);
    let signature = key.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn signed_part(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// Nothing that was done to it made the module trap.
async fn assert_unharmed(envoy: &Envoy) {
    assert_eq!(envoy.stat("wasm.moorage.vm_reload_success").await, 0, "{}", envoy.log());
}
