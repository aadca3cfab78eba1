//! What clients make of the access log with words of their own, and what it says of requests that never got to Moorage.

use moorage_test_support::envoy::NOBODY_BELOW_SECRET;
use moorage_test_support::raw;

use super::*;

/// Sends `GET` with these headers as they are, and waits until it is answered.
async fn get(envoy: &Envoy, id: &str, path: &str, user_agent: &[u8]) {
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: registry\r\nconnection: close\r\nx-request-id: {id}\r\nuser-agent: "
    );
    raw::send(envoy.address, &[head.as_bytes(), user_agent, b"\r\n\r\n"].concat()).await;
}

/// A path and a `User-Agent` as they are sent, and as the log has them.
type Row<'a> = (&'a str, &'a [u8], &'a str, &'a str);

/// What stands in the log for a header that is not ASCII.
const NO_TEXT: &str = "\u{fffd}";

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn whatever_a_client_calls_itself_and_asks_for_is_one_line_of_json() {
    let registry = Registry::start(Bootstrap::logging_to_stderr).await;
    let long = "x".repeat(5000);
    #[rustfmt::skip]
    let rows: &[Row<'_>] = &[
        ("/v2/a/manifests/%22,%22status%22:200%7D", br#"","status":200} {"#,
         "/v2/a/manifests/%22,%22status%22:200%7D", r#"","status":200} {"#),
        // Envoy encodes what has to be encoded before anybody looks at the path.
        ("/v2/a/manifests/<script>alert('1')</script>", b"<script>alert(\"1\")</script>",
         "/v2/a/manifests/%3Cscript%3Ealert('1')%3C/script%3E", "<script>alert(\"1\")</script>"),
        ("/v2/a/manifests/%0a%0d%1b[31m", b"a\ttab",
         "/v2/a/manifests/%0a%0d%1b[31m", "a\ttab"),
        ("/v2/a/manifests/\"\\\"", b"\\\" \\u0022 \\",
         "/v2/a/manifests/%22/%22", "\\\" \\u0022 \\"),
        ("/v2/a/manifests/{{7*7}}$(id)`id`", b"%REQ(authorization)% %CEL(1)%",
         "/v2/a/manifests/%7B%7B7*7%7D%7D$(id)%60id%60", "%REQ(authorization)% %CEL(1)%"),
        ("/v2/a/manifests/v1?x=\"<>", b"\xff\xfe no text", "/v2/a/manifests/v1?x=\"<>", NO_TEXT),
        ("/v2/a/manifests/v1?y", "\u{202e}\u{2028}\u{85}".as_bytes(), "/v2/a/manifests/v1?y", NO_TEXT),
        ("/v2/a/manifests/v1?z", long.as_bytes(), "/v2/a/manifests/v1?z", &long[..256]),
    ];
    for (number, (path, user_agent, logged_path, logged_agent)) in rows.iter().enumerate() {
        let id = format!("odd-{number}");
        get(&registry.envoy, &id, path, user_agent).await;
        let line = line_of(&registry.envoy, &id).await;
        let told = &line["moorage"];
        let expected = [logged_path, logged_agent];
        assert_eq!([&told["path"], &told["user_agent"]], expected, "{line}");
    }
    let path = format!("/v2/{long}/tags/list");
    get(&registry.envoy, "long", &path, b"").await;
    let line = line_of(&registry.envoy, "long").await;
    assert_eq!(line["moorage"]["path"], path[..1024], "{line}");
    // What Envoy takes for no HTTP has a line too.
    get(&registry.envoy, "refused", "/v2/", b"\x1b[31mred\x07").await;
    let lines = wait_for("the last line", async || {
        let lines = registry.envoy.log().lines().filter(|line| line.ends_with('}')).count();
        (lines >= rows.len() + 2).then(|| access_log(&registry.envoy))
    })
    .await;
    assert_eq!(lines.len(), rows.len() + 2, "{lines:?}");
    let last = &lines[lines.len() - 1];
    assert_eq!([&last["status"], &last["moorage"]], [&Value::from(400), &Value::Null], "{last}");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_request_that_a_filter_before_moorage_answers_has_a_line_without_fields_of_moorage() {
    let registry =
        Registry::start(|bootstrap| bootstrap.guarded_by(NOBODY_BELOW_SECRET).logging_to_stderr())
            .await;
    for (id, path, status) in
        [("refused", "/v2/secret/a/tags/list", 403), ("let-through", "/v2/a/tags/list", 404)]
    {
        let headers = [("x-request-id", id)];
        let response = registry.send(Method::GET, path, &headers, "").await;
        assert_eq!(response.status(), status, "{path}");
        let line = line_of(&registry.envoy, id).await;
        assert_eq!(line["status"], status, "{line}");
        assert!(line.as_object().is_some_and(|fields| fields.contains_key("moorage")), "{line}");
        assert_eq!(line["moorage"].is_null(), id == "refused", "{line}");
    }
}
