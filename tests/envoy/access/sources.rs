//! Callers whom Envoy's `jwt_authn` knows: as identities, and with what their token server lets them do.

use serde_json::{Value, json};

use moorage_test_support::accounts::{self, READER};
use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::jwt;

use super::{PRIVATE, PUBLIC, assert_unharmed, get_as, login, status_as, store, token};

/// Envoy with `jwt_authn`, and these fields and rules beside those of the accounts.
async fn envoy(store: std::net::SocketAddr, fields: Value, rule: Value) -> Envoy {
    let mut access = accounts::access().await;
    for (name, value) in fields.as_object().expect("an object") {
        access[name] = value.clone();
    }
    access["rules"].as_array_mut().expect("a list").push(rule);
    let filter = jwt::filter(jwt::OPTIONAL).await;
    Envoy::start(&Bootstrap::new(store).with_access(&access).guarded_by(&filter)).await
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn who_has_a_token_that_envoy_has_verified_is_who_it_says() {
    let store = store().await;
    let source = json!({ "jwt": [{ "payload": "token", "groups": "groups", "prefix": "oidc:" }] });
    let rule = json!({
        "who": ["user:oidc:eve", "group:oidc:dev"], "repositories": ["private/**"], "actions": ["pull"],
    });
    let envoy = envoy(store.address, source, rule).await;
    let server = envoy.address;
    let pull = async |claims: Value| {
        let bearer = format!("Bearer {}", jwt::token_of(claims).await);
        status_as(server, PRIVATE, &bearer).await
    };
    let of = |sub: &str, groups: Value| json!({ "iss": "tests", "sub": sub, "groups": groups });
    for (claims, status) in [
        (of("eve", json!([])), 200),
        (of("someone", json!(["ops", "dev"])), 200),
        (of("someone", json!("dev")), 200),
        (of("someone", json!(["ops"])), 401),
        (of("someone", json!({ "dev": "x" })), 200),
        // The prefix keeps such names apart from those of users and certificates.
        (of("reader", json!([])), 401),
        (of("user:reader", json!([])), 401),
        (of("", json!([])), 401),
        (json!({ "iss": "tests", "sub": 5 }), 401),
        (json!({ "iss": "tests", "sub": ["eve"] }), 401),
        (json!({ "iss": "tests" }), 401),
        // What `jwt_authn` has not verified is nobody's.
        (json!({ "iss": "elsewhere", "sub": "eve" }), 401),
        (json!({ "iss": "tests", "sub": "eve", "exp": 1 }), 401),
    ] {
        assert_eq!(pull(claims.clone()).await, status, "{claims}");
    }
    let forged = jwt::token_of(of("eve", json!([]))).await;
    let cut = format!("Bearer {}", &forged[..forged.len() - 4]);
    assert_eq!(status_as(server, PRIVATE, &cut).await, 401);
    // It gets tokens of this registry, and others are known as ever.
    let bearer = format!("Bearer {}", jwt::token_of(of("eve", json!([]))).await);
    for login in [bearer, login(READER)] {
        let token = token(server, &login, "repository:private/web:pull").await;
        assert_eq!(status_as(server, PRIVATE, &format!("Bearer {token}")).await, 200);
    }
    assert_eq!(client::get(server, PUBLIC, &[]).await.status(), 200);
    assert_unharmed(&envoy).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn another_token_server_grants_what_the_rules_let_it_grant() {
    let store = store().await;
    let issuer = json!({ "issuers": [{ "issuer": "tests", "payload": "token" }] });
    let rule = json!({
        "who": ["issuer:tests"], "repositories": ["private/**"], "actions": ["pull"],
    });
    let envoy = envoy(store.address, issuer, rule).await;
    let server = envoy.address;
    let entry = |kind: &str, name: &str, actions: Value| {
        json!([
            { "type": "repository", "name": "else/where", "actions": ["pull"] },
            { "type": kind, "name": name, "actions": actions },
        ])
    };
    for (access, path, status) in [
        (entry("repository", "private/web", json!(["pull"])), PRIVATE, 200),
        (entry("repository", "private/web", json!(["push", "pull"])), PRIVATE, 200),
        (entry("repository", "private/web", json!(["*"])), PRIVATE, 200),
        (entry("repository", "private/web", json!(["push"])), PRIVATE, 401),
        (entry("repository", "private/web", json!([])), PRIVATE, 401),
        (entry("repository", "private/web", json!("pull")), PRIVATE, 401),
        (entry("repository", "private/web", json!(5)), PRIVATE, 401),
        (entry("repository", "private/**", json!(["pull"])), PRIVATE, 401),
        (entry("registry", "private/web", json!(["pull"])), PRIVATE, 401),
        (json!([]), PRIVATE, 401),
        (json!("private/web"), PRIVATE, 401),
        // The token says so, and no rule does.
        (entry("repository", "public/web", json!(["*"])), PUBLIC, 200),
        (entry("repository", "else/web", json!(["*"])), "/v2/else/web/manifests/t", 401),
    ] {
        let claims = json!({ "iss": "tests", "sub": "someone", "access": access });
        let bearer = format!("Bearer {}", jwt::token_of(claims).await);
        let response = get_as(server, path, &bearer).await;
        assert_eq!(response.status(), status, "{access}");
    }
    // By such a token one gets no other.
    let token = jwt::token(entry("repository", "private/web", json!(["pull"]))).await;
    assert_eq!(status_as(server, "/auth/token", &format!("Bearer {token}")).await, 401);
    assert_unharmed(&envoy).await;
}
