//! A configuration that can't be right stops Envoy from starting, and the log says which field.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::process::Command;

use moorage_test_support::envoy::Bootstrap;
use moorage_test_support::process::{run, tool};

fn bootstrap() -> Bootstrap {
    Bootstrap::new(SocketAddr::from(([127, 0, 0, 1], 1)))
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_local_bootstrap_is_valid() {
    let output = bootstrap().validate().await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_bootstraps_for_production_are_valid_once_their_files_are_there() {
    let folder = TempDir::new().expect("a temporary folder");
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=registry"])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key);
    run(&mut command).await;
    let disk = folder.path().display().to_string();
    let edge = || Bootstrap::edge().set(|settings| settings.edge.disk_cache = Some(disk.clone()));
    let central = "127.0.0.1:5000".parse().expect("an address");
    let (edge, passing_on) = (edge(), edge().passing_writes_on(central));
    for bootstrap in [Bootstrap::production(), edge, passing_on] {
        let bootstrap = bootstrap
            .with("/etc/envoy/tls/fullchain.pem", &certificate.display().to_string())
            .with("/etc/envoy/tls/privkey.pem", &key.display().to_string())
            .with("/etc/envoy/moorage.wasm", &tool("MOORAGE_WASM").display().to_string());
        let output = bootstrap.validate().await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_wrong_field_stops_envoy_and_is_named() {
    for (bootstrap, named) in [
        (bootstrap().with_store_fields(r#""colour": 1"#), "colour"),
        (bootstrap().with_store_fields(r#""timeout_ms": "1s""#), "store.timeout_ms"),
        (bootstrap().with_store_fields(r#""timeout_ms": 0"#), "store.timeout_ms"),
        (bootstrap().with(r#""cluster": "blob_store","#, ""), "cluster"),
        (bootstrap().with(r#""cluster": "blob_store""#, r#""cluster": """#), "store.cluster"),
        (bootstrap().with(r#""store": {"#, "store: {"), "google.protobuf.StringValue"),
        (bootstrap().with_legacy(r#""schema1_key": "a secret""#), "legacy.schema1_key"),
        (bootstrap().with_legacy(r#""schema1_key": ["a secret"]"#), "legacy.schema1_key"),
    ] {
        let output = bootstrap.validate().await;
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{named:?} must be refused");
        assert!(log.contains(named), "{log}");
        assert!(!log.contains("a secret"), "{log}");
    }
}
