//! What the access log is told, and what no log and no page of Envoy shows.

use std::net::SocketAddr;

use http::Method;
use serde_json::Value;

use moorage_test_support::accounts::{self, DEPLOY, READER, TEAM};
use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::wait_for;

use super::{PRIVATE, PUBLIC, basic, get_as, login, status_as, store, token};

/// A line of JSON for each request, as docs/operations.md has it.
const LOG_FORMAT: &str = concat!(
    r#"{ json_format: { path: "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", status: "%RESPONSE_CODE%", "#,
    r#"identity: "%CEL(filter_state['wasm.moorage'].identity)%", "#,
    r#"decision: "%CEL(filter_state['wasm.moorage'].decision)%" } }"#,
);

async fn start(store: SocketAddr, access: &Value) -> Envoy {
    Envoy::start(&Bootstrap::new(store).with_access(access).with_access_log(LOG_FORMAT)).await
}

/// What the access log says of the request for a path, once it does.
async fn logged(envoy: &Envoy, path: &str) -> [String; 2] {
    let line = wait_for("a line of the access log", async || {
        let log = envoy.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["path"] == path)
    });
    let line = line.await;
    ["identity", "decision"].map(|field| line[field].as_str().unwrap_or("-").to_owned())
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_access_log_tells_who_did_what_by_which_rule() {
    let store = store().await;
    let access = accounts::access().await;
    let envoy = start(store.address, &access).await;
    let token = token(envoy.address, &login(READER), "repository:private/web:pull").await;
    let bearer = format!("Bearer {token}");
    for (number, (path, authorization, expected)) in [
        (PRIVATE, login(READER), ["user:reader (password)", "allowed by rules[2]"]),
        (PRIVATE, bearer.clone(), ["user:reader (password)", "allowed by rules[2]"]),
        (PUBLIC, bearer, ["user:reader (password)", "denied"]),
        (PRIVATE, login(TEAM), ["user:team (password)", "denied"]),
        (PRIVATE, basic("reader", "a guess"), ["unknown", "denied"]),
        (PRIVATE, "Bearer a.b.c".to_owned(), ["unknown", "denied"]),
        (PUBLIC, login(DEPLOY), ["user:deploy (password)", "allowed by rules[0]"]),
        ("/v2/", login(DEPLOY), ["user:deploy (password)", "allowed"]),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("{path}?number={number}");
        get_as(envoy.address, &path, &authorization).await;
        assert_eq!(logged(&envoy, &path).await, expected, "{path}");
    }
    let path = format!("{PUBLIC}?of-nobody");
    client::get(envoy.address, &path, &[]).await;
    assert_eq!(logged(&envoy, &path).await, ["anonymous", "allowed by rules[0]"]);
}

/// Envoy itself writes the headers of requests to its log from level debug on; Moorage adds nothing to that.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn nothing_that_moorage_writes_and_no_page_of_envoy_shows_a_secret() {
    let store = store().await;
    let access = accounts::access().await;
    let envoy = start(store.address, &access).await;
    let level = client::request(Method::POST, "/logging?level=debug", &[]);
    assert_eq!(client::send(envoy.admin, level).await.status(), 200);
    let mut secrets = vec!["a guess".to_owned(), "eve's own".to_owned()];
    for user in [DEPLOY, READER, TEAM] {
        assert_eq!(status_as(envoy.address, "/v2/", &login(user)).await, 200);
        let token = token(envoy.address, &login(user), "repository:private/web:pull").await;
        get_as(envoy.address, PRIVATE, &format!("Bearer {token}")).await;
        get_as(envoy.address, PRIVATE, &format!("Bearer {token}x")).await;
        secrets.extend([user.password.to_owned(), token, login(user)]);
    }
    let form = "grant_type=password&username=reader&password=eve's+own";
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    client::send_body(envoy.address, Method::POST, "/auth/token", &headers, form).await;
    get_as(envoy.address, PRIVATE, &basic("reader", "a guess")).await;
    let path = format!("{PUBLIC}?the-last");
    client::get(envoy.address, &path, &[]).await;
    logged(&envoy, &path).await;

    let is_moorages = |line: &&str| line.contains("[wasm]") || line.starts_with('{');
    let log = envoy.log();
    assert!(log.contains("request headers complete"), "the level is debug");
    let log: Vec<&str> = log.lines().filter(is_moorages).collect();
    assert!(log.len() >= 10, "{log:?}");
    let pages = ["/config_dump", "/stats", "/clusters", "/listeners", "/server_info"];
    for secret in secrets {
        assert!(!log.iter().any(|line| line.contains(&secret)), "{secret}");
        for page in pages {
            let text = client::get(envoy.admin, page, &[]).await;
            let text = String::from_utf8_lossy(text.body()).into_owned();
            assert!(!text.contains(&secret), "{page} {secret}");
        }
    }
}
