//! What settings make, in a real Envoy: each part of the bootstrap's template, a certificate that is renewed, a store that
//! stands in for another one.
//!
//! That the bootstrap has what a setting says is tested in `crates/bootstrap`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use moorage_bootstrap::{Endpoint, Tls};
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::{tool, wait_for};
use moorage_test_support::tls::Authority;

/// Settings by which every part of the template is made by one or more. `FOLDER` has the files that they name.
const SETTINGS: &[&str] = &[
    "tls: { sds: FOLDER/sds.yaml, client_ca: FOLDER/live/tls.crt }",
    "tls: { certificate: FOLDER/live/tls.crt, key: FOLDER/live/tls.key }\ntrusted_proxies: 2",
    "credentials: environment\nendpoint: https://s3.example.org:8443\naddressing: virtual-host",
    "credentials: role\nregion: eu-central-1\nprefix: a/b",
    "credentials: role\nrole_arn: arn:aws:iam::123456789012:role/a\nweb_identity_token_file: FOLDER/sds.yaml",
    "endpoint: [http://127.0.0.1:1, http://127.0.0.1:2]\nfallback_endpoints: http://127.0.0.1:3",
    "endpoint: [https://a.example.org, https://b.example.org]\nca_file: FOLDER/live/tls.crt",
    "metrics: 127.0.0.1:0\naccess_log: FOLDER/access.log\nadmin_paths: all\nkeep_request_ids: true",
    "tracing: { collector: 'otel.example.org:4317', percent: 0.5 }",
    "tracing: { collector: '[::1]:4317' }\naccess_log: 'off'\nspool: 'off'",
    "events: { endpoints: [{ name: a, url: 'https://a.example.org/x' }, { name: b, url: 'http://127.0.0.1:1' }] }",
    "edge: { disk_cache: FOLDER, central: 'https://registry.example.org' }",
    "edge: { disk_cache: FOLDER }\nmanifest_max_bytes: 16777216",
    "max_heap_bytes: 0\nrequests_per_second: 0",
    "max_connections: 0\nread_only: true",
    "max_heap_bytes: 0\nmax_connections: 0\nstore: { health_check: false }",
];

/// A folder whose part `live` has the authority's certificate for a server, and a file for SDS that names it.
async fn certificates(authority: &Authority) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    put_certificate(folder.path(), authority);
    let path = folder.path().display();
    let sds = format!(
        r#"resources:
  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: registry
    tls_certificate:
      certificate_chain: {{ filename: {path}/live/tls.crt }}
      private_key: {{ filename: {path}/live/tls.key }}
      watched_directory: {{ path: {path} }}
"#
    );
    fs::write(folder.path().join("sds.yaml"), sds).expect("it is written");
    folder
}

/// Has `live` lead to the authority's certificate from now on, in one step, as Kubernetes does.
fn put_certificate(folder: &Path, authority: &Authority) {
    let files = TempDir::new_in(folder).expect("a folder").keep();
    fs::copy(authority.server_certificate(), files.join("tls.crt")).expect("it is copied");
    fs::copy(authority.server_key(), files.join("tls.key")).expect("it is copied");
    let next = folder.join("next");
    symlink(&files, &next).expect("a link");
    fs::rename(&next, folder.join("live")).expect("it takes the place");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn envoy_takes_what_settings_make() {
    let folder = certificates(&Authority::new().await).await;
    let folder = folder.path().display().to_string();
    for settings in SETTINGS {
        let settings = settings.replace("FOLDER", &folder);
        let module = tool("MOORAGE_WASM").display().to_string();
        let bootstrap = Bootstrap::of(&settings).set(|settings| settings.module = module);
        let output = bootstrap.validate().await;
        assert!(output.status.success(), "{settings}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_certificate_that_is_renewed_is_used_without_a_restart() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let (first, second) = (Authority::new().await, Authority::new().await);
    let folder = certificates(&first).await;
    let sds = Some(folder.path().join("sds.yaml").display().to_string());
    let bootstrap = Bootstrap::new(store.address)
        .set(|settings| settings.tls = Some(Tls { sds, ..Tls::default() }));
    let envoy = Envoy::start(&bootstrap).await;
    assert_eq!(first.get(envoy.address, "/v2/", None).await, 200);
    assert_eq!(second.get(envoy.address, "/v2/", None).await, 0);
    put_certificate(folder.path(), &second);
    wait_for("the new certificate", async || {
        (second.get(envoy.address, "/v2/", None).await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_store_that_stands_in_is_asked_while_the_first_can_not_be_reached() {
    let root = TempDir::new().expect("a temporary folder");
    let (first, second) = (BlobStore::open(root.path()).await, BlobStore::open(root.path()).await);
    let address = first.address;
    drop(first);
    let bootstrap = Bootstrap::production_before(&[address]).set(|settings| {
        let endpoint = Endpoint::parse(&format!("http://{}", second.address));
        settings.fallback_endpoints = vec![endpoint.expect("an address makes a URL")];
        settings.store.health_check = true;
    });
    let envoy = Envoy::start(&bootstrap).await;
    let ready = async || {
        let answer = client::get(envoy.address, "/readyz", &[]).await;
        (answer.status() == 200).then_some(())
    };
    wait_for("the other store to be asked", ready).await;
    // And the first one again, once it is there.
    let first = BlobStore::reopen(root.path(), address).await;
    drop(second);
    wait_for("the first store to be asked again", async || {
        let answer = client::get(envoy.address, "/v2/_catalog", &[]).await;
        (answer.status() == 200).then_some(())
    })
    .await;
    drop(first);
}
