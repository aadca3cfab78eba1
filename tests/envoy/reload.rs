//! What happens should the module trap, and the figures by which it shows.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;

use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::{tool, wait_for};

const TRAP: &str = include_str!("trap.wat");

/// docs/operations.md names these figures for an alarm.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_trap_is_answered_closed_and_counted() {
    let folder = TempDir::new().expect("a temporary folder");
    let module = folder.path().join("trap.wasm");
    fs::write(&module, wat::parse_str(TRAP).expect("a module")).expect("a file");
    let path = |path: &std::path::Path| path.to_str().expect("the path is text").to_owned();
    let bootstrap = Bootstrap::new(SocketAddr::from(([127, 0, 0, 1], 1)));
    let envoy = Envoy::start(&bootstrap.with(&path(&tool("MOORAGE_WASM")), &path(&module))).await;

    for reloads in 1..=2 {
        wait_for("the module to be loaded anew", async || {
            let status = client::get(envoy.address, "/v2/", &[]).await.status();
            assert_eq!(status, 503, "nothing gets past a filter that trapped");
            (envoy.stat("wasm.moorage.vm_reload_success").await >= reloads).then_some(())
        })
        .await;
    }
    assert_eq!(envoy.stat("wasm.moorage.vm_reload_failure").await, 0);
    // It looks like their sum, and it is none: an alarm on it never rings.
    assert_eq!(envoy.stat("wasm.moorage.vm_reload").await, 0);
}
