//! A configuration that can't be right stops Envoy from starting, and the log says which field.

use std::net::SocketAddr;

use crate::support::envoy::Bootstrap;

fn bootstrap() -> Bootstrap {
    Bootstrap::new(SocketAddr::from(([127, 0, 0, 1], 1)))
}

#[tokio::test]
async fn the_local_bootstrap_is_valid() {
    let output = bootstrap().validate().await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_wrong_field_stops_envoy_and_is_named() {
    for (bootstrap, named) in [
        (bootstrap().with_store_fields(r#""colour": 1"#), "colour"),
        (
            bootstrap().with_store_fields(r#""timeout_ms": "1s""#),
            "store.timeout_ms",
        ),
        (
            bootstrap().with_store_fields(r#""timeout_ms": 0"#),
            "store.timeout_ms",
        ),
        (
            bootstrap().with(r#""cluster": "blob_store","#, ""),
            "cluster",
        ),
        (
            bootstrap().with(r#""cluster": "blob_store""#, r#""cluster": """#),
            "store.cluster",
        ),
        (
            bootstrap().with(r#""store": {"#, "store: {"),
            "google.protobuf.StringValue",
        ),
    ] {
        let output = bootstrap.validate().await;
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{named:?} must be refused");
        assert!(log.contains(named), "{log}");
    }
}
