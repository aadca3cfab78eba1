//! Tokens that nobody should take, and those that all Envoys take.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moorage::registry::PrivateKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;

use moorage_test_support::accounts::{self, DEPLOY, READER};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::within;
use moorage_test_support::{client, raw};

use super::{
    PRIVATE, PUBLIC, assert_unharmed, get_as, key_of, login, sign, signed_part, status_as, store,
    token,
};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The claims of a valid token, with these in the place of some.
fn claims(changes: Value) -> String {
    let mut claims = json!({
        "iss": "moorage", "sub": "user:reader", "aud": "moorage", "proof": "password",
        "exp": now() + 3600, "nbf": now(), "iat": now(), "jti": "x",
        "access": [{ "type": "repository", "name": "private/web", "actions": ["pull"] }],
    });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.to_string()
}

/// RFC 2104, for what programs do that take a public key for a shared secret.
fn hs256(signed: &str, key: &[u8]) -> String {
    let mut block = [0; 64];
    let key = if key.len() > 64 { Sha256::digest(key).to_vec() } else { key.to_vec() };
    block[..key.len()].copy_from_slice(&key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(signed);
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c));
    let signature = outer.chain_update(inner.finalize()).finalize();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Tokens that are nearly right, and what is wrong with each.
fn forged(key: &PrivateKey, other: &PrivateKey) -> Vec<(&'static str, String)> {
    let header = json!({ "alg": "ES256", "typ": "JWT", "kid": key.id() }).to_string();
    let right = claims(json!({}));
    let valid = sign(&header, &right, key);
    let with = |changes: Value| sign(&header, &claims(changes), key);
    let access = |access: Value| with(json!({ "access": access }));
    let doubled = |claim: &str| sign(&header, &right.replacen('{', &format!("{{{claim},"), 1), key);
    let point = key.public().to_sec1_point(false);
    let hmac = signed_part(&json!({ "alg": "HS256", "kid": key.id() }).to_string(), &right);
    let none = signed_part(r#"{"alg":"none"}"#, &right);
    vec![
        ("alg none", format!("{none}.")),
        ("alg none, with a signature", sign(r#"{"alg":"none"}"#, &right, key)),
        ("HS256 by the public key", hs256(&hmac, point.as_bytes())),
        ("HS256 by the key's id", hs256(&hmac, key.id().as_bytes())),
        ("HS256 by nothing", hs256(&hmac, b"")),
        ("RS256 by name", sign(&header.replace("ES256", "RS256"), &right, key)),
        ("another's key", sign(&header, &right, other)),
        ("another's key by its own id", sign(&header.replace(key.id(), other.id()), &right, other)),
        ("the id of another key", sign(&header.replace(key.id(), other.id()), &right, key)),
        ("a critical extension", sign(&header.replacen('{', r#"{"crit":["x"],"#, 1), &right, key)),
        ("expired", with(json!({ "exp": now() - 1 }))),
        ("without an end", with(json!({ "exp": null }))),
        ("valid later", with(json!({ "nbf": now() + 300 }))),
        ("issued later", with(json!({ "iat": now() + 300 }))),
        ("for another service", with(json!({ "aud": "elsewhere" }))),
        ("for nobody", with(json!({ "aud": [] }))),
        ("of another issuer", with(json!({ "iss": "elsewhere" }))),
        ("of no issuer", with(json!({ "iss": null }))),
        (
            "for another repository",
            access(json!([{ "type": "repository", "name": "public/web", "actions": ["*"] }])),
        ),
        (
            "for a pattern",
            access(json!([{ "type": "repository", "name": "**", "actions": ["*"] }])),
        ),
        (
            "for another action",
            access(json!([{ "type": "repository", "name": "private/web", "actions": ["push"] }])),
        ),
        ("for nothing", access(json!([]))),
        ("a user who is not there", with(json!({ "sub": "user:nobody" }))),
        ("a user who may not", with(json!({ "sub": "user:team" }))),
        ("a proof that is none", with(json!({ "proof": "belief" }))),
        ("an issuer twice", doubled(r#""iss":"moorage""#)),
        ("an access twice", doubled(r#""access":[]"#)),
        ("a subject that is a list", with(json!({ "sub": ["user:reader"] }))),
        ("an end that is a text", with(json!({ "exp": "4102444800" }))),
        ("an end before all time", with(json!({ "exp": -1 }))),
        ("an end after all time", with(json!({ "exp": 1e300 }))),
        ("an access that is an object", access(json!({ "type": "repository" }))),
        ("an access of numbers", access(json!([1, 2]))),
        ("claims that are a text", sign(&header, r#""iss""#, key)),
        ("deep claims", sign(&header, &format!("{}1{}", "[".repeat(3000), "]".repeat(3000)), key)),
        ("a header that is a list", sign("[]", &right, key)),
        ("no signature", valid[..valid.rfind('.').expect("a dot")].to_owned()),
        ("a signature that is cut", valid[..valid.len() - 2].to_owned()),
        ("a signature of zeros", format!("{}.{}", signed_part(&header, &right), "A".repeat(86))),
        ("50 KB", with(json!({ "x": "x".repeat(37_000) }))),
    ]
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn forged_tokens_are_refused_and_the_next_valid_one_is_not() {
    let (access, others) = (accounts::access().await, accounts::access().await);
    let store = store().await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).with_access(&access)).await;
    let server = envoy.address;
    let key = key_of(&access);
    let header = json!({ "alg": "ES256" }).to_string();
    let valid = format!("Bearer {}", sign(&header, &claims(json!({})), &key));
    assert_eq!(status_as(server, PRIVATE, &valid).await, 200, "what is not forged is valid");
    let asked = store.requests().len();
    for (what, token) in forged(&key, &key_of(&others)) {
        let response = get_as(server, PRIVATE, &format!("Bearer {token}")).await;
        assert_eq!(client::error_of(&response), (401, "UNAUTHORIZED".to_owned()), "{what}");
        let challenge = response.headers()["www-authenticate"].to_str().expect("text");
        let (invalid, insufficient) =
            (r#",error="invalid_token""#, r#",error="insufficient_scope""#);
        assert!(challenge.ends_with(invalid) || challenge.ends_with(insufficient), "{what}");
    }
    for end in (1..valid.len()).step_by(40) {
        assert_eq!(status_as(server, PRIVATE, &valid[..end]).await, 401, "cut after {end}");
    }
    assert_eq!(store.requests().len(), asked, "none of it reached the store");
    // More than Envoy takes of headers: it refuses by itself, or breaks off.
    let head = format!("GET {PRIVATE} HTTP/1.1\r\nauthorization: Bearer {}", "A".repeat(1 << 20));
    let answer = answer_to(server, &head).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(status_as(server, PRIVATE, &valid).await, 200);
    let fresh = token(server, &login(READER), "repository:private/web:pull").await;
    assert_eq!(status_as(server, PRIVATE, &format!("Bearer {fresh}")).await, 200);
    assert_unharmed(&envoy).await;
}

/// Sends a head as it is, and gives what comes until the connection ends, in whatever way.
async fn answer_to(server: std::net::SocketAddr, head: &str) -> String {
    let stream = raw::connect_from(IpAddr::from([127, 0, 0, 1]), server).await;
    let (mut reader, mut writer) = stream.into_split();
    let request = format!("{head}\r\nconnection: close\r\nhost: registry\r\n\r\n");
    // A server that has had enough does not read to the end.
    let writing = tokio::spawn(async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, request.as_bytes()).await;
        writer
    });
    let mut answer = Vec::new();
    let _ = within("an answer", reader.read_to_end(&mut answer)).await;
    within("the request", writing).await.expect("no panic");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn of_two_authorization_headers_none_counts() {
    let access = accounts::access().await;
    let store = store().await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).with_access(&access)).await;
    let (right, wrong) = (login(READER), super::basic("reader", "a guess"));
    let token = token(envoy.address, &right, "repository:private/web:pull").await;
    let bearer = format!("Bearer {token}");
    for (first, second) in
        [(&right, &right), (&right, &wrong), (&wrong, &right), (&bearer, &right), (&right, &bearer)]
    {
        let head =
            format!("GET {PRIVATE} HTTP/1.1\r\nauthorization: {first}\r\nauthorization: {second}");
        let answer = answer_to(envoy.address, &head).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    assert_unharmed(&envoy).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn envoys_with_one_key_accept_each_others_tokens() {
    let access = accounts::access().await;
    let mut next = accounts::access().await;
    next["accepted_keys"] = json!([access["key"]]);
    let store = store().await;
    let start = async |access: &Value| {
        Envoy::start(&Bootstrap::new(store.address).with_access(access)).await
    };
    let (one, two, new) = (start(&access).await, start(&access).await, start(&next).await);
    let scope = "repository:private/web:pull";
    for (from, to, status) in
        [(&one, &two, 200), (&two, &one, 200), (&one, &new, 200), (&new, &one, 401)]
    {
        let token = token(from.address, &login(DEPLOY), scope).await;
        assert_eq!(status_as(to.address, PRIVATE, &format!("Bearer {token}")).await, status);
    }
    assert_eq!(client::get(one.address, PUBLIC, &[]).await.status(), 200);
}
