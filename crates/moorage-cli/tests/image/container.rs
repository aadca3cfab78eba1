//! The image by itself, before a real store: it takes itself, and drains before it stops.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use http::Method;
use http_body_util::BodyExt;

use moorage_test_support::blob_store::{ACCESS_KEY, SECRET_KEY};
use moorage_test_support::envoy::stat;
use moorage_test_support::garage::Garage;
use moorage_test_support::podman::{Container, Podman};
use moorage_test_support::process::{optional_tool, own_address, wait_for, within};
use moorage_test_support::{client, digest_of};

use crate::build;

/// The users that the processes of a container run as: its first one's, and those of its children.
async fn users(container: &Container<'_>) -> BTreeSet<String> {
    let first = container.inspect("{{.State.Pid}}").await;
    let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
    let children = children.expect("/proc is there");
    let user = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a user");
        line.split_whitespace().next().expect("a number").to_owned()
    };
    assert_ne!(children, "", "Envoy runs");
    std::iter::once(first.as_str()).chain(children.split_whitespace()).map(user).collect()
}

async fn ready(container: &Container<'_>, address: SocketAddr) -> SocketAddr {
    wait_for("the registry", async || {
        let running = container.inspect("{{.State.Running}}").await;
        assert_eq!(running, "true", "{}", container.logs().await);
        let ready = client::try_get(address, "/readyz").await?;
        (ready.status() == 200).then_some(address)
    })
    .await
}

#[tokio::test]
#[ignore = "needs podman, Garage and Envoy: run ./build.sh test"]
async fn the_image_serves_itself_and_drains_before_it_stops() {
    let (Some(program), Some(garage)) =
        (optional_tool("MOORAGE_PODMAN"), optional_tool("MOORAGE_GARAGE"))
    else {
        return;
    };
    let podman = Podman::new(program.clone());
    let id = build(&podman).await;
    let store = Garage::start(&garage).await;

    let (address, admin) = (own_address(), own_address());
    let settings = [
        ("MOORAGE_LISTEN", address.to_string()),
        ("MOORAGE_ADMIN", admin.to_string()),
        ("MOORAGE_ENDPOINT", format!("http://{}", store.address)),
        ("MOORAGE_CREDENTIALS", "environment".to_owned()),
        ("MOORAGE_DRAIN_GRACE", "1s".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ];
    let settings = settings.map(|(name, value)| format!("--env={name}={value}"));
    let mut arguments: Vec<&str> = settings.iter().map(String::as_str).collect();
    arguments.extend([
        // Nothing can be written but to this, and nobody is root.
        "--read-only",
        "--read-only-tmpfs=false",
        "--tmpfs=/var/tmp",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "localhost/moorage",
        "--",
        "--concurrency",
        "2",
        "--log-level",
        "warning",
    ]);
    let container = podman.start(&arguments).await;
    let server = ready(&container, address).await;
    assert_eq!(users(&container).await, BTreeSet::from(["65532".to_owned()]));
    let health = ["/usr/local/bin/moorage", "health", "--admin", &admin.to_string()];
    assert_eq!(container.exec(&health).await, "LIVE");

    let pushed = podman.push(&id, server, "moorage:self").await;
    wait_for("layers that were hashed in native code", async || {
        (stat(admin, "wasmcustom.moorage_native_hashes_total").await > 0).then_some(())
    })
    .await;
    let manifest = client::get(
        server,
        "/v2/moorage/manifests/self",
        &[("accept", "application/vnd.oci.image.manifest.v1+json")],
    )
    .await;
    assert_eq!(digest_of(manifest.body()).as_str(), pushed);
    let manifest: serde_json::Value = serde_json::from_slice(manifest.body()).expect("JSON");
    // One without any image, so that all of it is pulled.
    let pulled = Podman::new(program).pull(server, "moorage:self").await;
    assert_eq!(pulled, id);

    let layers = manifest["layers"].as_array().expect("layers");
    let largest = layers.iter().max_by_key(|layer| layer["size"].as_u64()).expect("a layer");
    let path = format!("/v2/moorage/blobs/{}", largest["digest"].as_str().expect("a digest"));
    let answer = client::open(server, client::request(Method::GET, &path, &[])).await;
    let mut body = answer.expect("an answer").into_body();
    let mut taken = 0;
    let ended = async {
        wait_for("/readyz to fail", async || {
            (client::try_get(server, "/readyz").await?.status() == 503).then_some(())
        })
        .await;
        while let Some(frame) = within("a piece", body.frame()).await {
            taken += frame.expect("it goes on").data_ref().map_or(0, bytes::Bytes::len);
        }
    };
    let (status, ()) = tokio::join!(container.stop(120), ended);
    let logs = container.logs().await;
    assert_eq!((status.as_str(), Some(taken as u64)), ("0", largest["size"].as_u64()), "{logs}");
    assert!(logs.contains("nothing is under way any more"), "{logs}");
}
