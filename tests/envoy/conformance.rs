//! The OCI distribution specification's own conformance suite against Moorage: nothing may fail.

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::TempDir;

use moorage_test_support::accounts::{self, DEPLOY};
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::conformance::{self, Check};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::garage::Garage;
use moorage_test_support::process::{note, optional_tool};
use moorage_test_support::tls::Authority;

/// The checks that the suite does not make unless asked. `OCI_VERSION=dev` turns on cancelling an upload,
/// tags as parameters, and digests in headers.
const EVERYTHING: &[(&str, &str)] = &[("OCI_VERSION", "dev"), ("OCI_DATA_SPARSE", "true")];

/// What those checks need of Moorage.
const LENIENT: &str = r#""verify_image_references": false, "verify_index_references": false"#;

/// If fewer pass than that, the suite has not run: by default it makes some 850 checks.
const LEAST_PASSED: usize = 800;

/// Runs the suite; `name` is also the folder for its reports.
async fn conforms(suite: &Path, name: &str, settings: &[(&str, &str)], bootstrap: &Bootstrap) {
    let envoy = Envoy::start(bootstrap).await;
    let outcome = conformance::run(suite, envoy.address, name, settings).await;
    let (reports, log) = (outcome.reports.display(), envoy.log());
    note(&format!(
        "OCI conformance, {name}: {} passed, {} failed, {} skipped, {} disabled; reports are in {reports}",
        outcome.passed, outcome.failed, outcome.skipped, outcome.disabled
    ));
    for skip in outcome.skips.iter().map(kind).collect::<BTreeSet<_>>() {
        note(&format!("OCI conformance, {name}, skipped: {skip}"));
    }
    let failures: String = outcome.failures.iter().map(listing).collect();
    assert_eq!(outcome.failed, 0, "{name}:\n{failures}Envoy's log:\n{log}");
    assert!(outcome.passed >= LEAST_PASSED, "{name}: see {reports}");
    assert_eq!(envoy.stat("wasm.moorage.vm_reload_success").await, 0, "the filter trapped: {log}");
}

/// What the check was of, and what the suite said, without the group of checks it was in.
fn kind(check: &Check) -> String {
    let (_, name) = check.name.rsplit_once('/').unwrap_or(("", &check.name));
    format!("{name}: {}", check.messages.join("; "))
}

fn listing(check: &Check) -> String {
    format!("{}\n    {}\n", check.name, check.messages.join("\n    "))
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn moorage_conforms_by_default() {
    let Some(suite) = optional_tool("MOORAGE_CONFORMANCE") else { return };
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    conforms(&suite, "default", &[], &Bootstrap::new(store.address)).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn moorage_conforms_with_every_optional_check() {
    let Some(suite) = optional_tool("MOORAGE_CONFORMANCE") else { return };
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let bootstrap = Bootstrap::new(store.address).with_fields(LENIENT).mounting("anywhere");
    conforms(&suite, "everything", EVERYTHING, &bootstrap).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn moorage_conforms_on_a_distributed_store() {
    let Some(suite) = optional_tool("MOORAGE_CONFORMANCE") else { return };
    let Some(garage) = optional_tool("MOORAGE_GARAGE") else { return };
    let store = Garage::start(&garage).await;
    conforms(&suite, "garage", &[], &Bootstrap::new(store.address).signed()).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn moorage_conforms_for_a_user_who_logs_in_over_tls() {
    let Some(suite) = optional_tool("MOORAGE_CONFORMANCE") else { return };
    let (authority, access) = (Authority::new().await, accounts::access().await);
    let certificate = authority.certificate();
    // The suite asks for a token at first alone, or for each request.
    for (name, cache_auth) in [("access", "true"), ("access-anew", "false")] {
        let root = TempDir::new().expect("a temporary folder");
        let store = BlobStore::open(root.path()).await;
        let bootstrap = Bootstrap::new(store.address).with_tls(&authority).with_access(&access);
        let settings = [
            ("OCI_TLS", "enabled"),
            ("SSL_CERT_FILE", certificate.to_str().expect("the path is text")),
            ("OCI_USERNAME", DEPLOY.name),
            ("OCI_PASSWORD", DEPLOY.password),
            ("OCI_CACHE_AUTH", cache_auth),
        ];
        conforms(&suite, name, &settings, &bootstrap).await;
    }
}
