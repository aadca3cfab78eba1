//! Clients as users have them: skopeo, crane and oras, each with repositories of its own. Their images share a layer.

use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use moorage::oci::Digest;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use moorage_test_support::client::{self, send_body};
use moorage_test_support::image::Layout;
use moorage_test_support::process::try_run;
use moorage_test_support::{crane, oras, skopeo};

use super::load::Load;

/// Pushes images by two tags in turn, and deletes what the other is on.
pub async fn use_skopeo(load: Arc<Load>) {
    let name = "tools/skopeo";
    let mut layouts = Vec::new();
    for image in ["skopeo-0", "skopeo-1", "skopeo-2"] {
        layouts.push(Layout::image_of(["base", image]).await);
    }
    for round in 0.. {
        if load.is_over() {
            return;
        }
        let layout = &layouts[round % layouts.len()];
        let [tag, other] = [round % 2, (round + 1) % 2].map(|number| format!("t{number}"));
        let command = |server, reference: &str| {
            skopeo::push_command(layout.path(), skopeo::AS_IT_IS, server, reference)
        };
        push(&load, name, &tag, &layout.digest(), command).await;
        if let Some(digest) = load.tag(name, &other).filter(|digest| *digest != layout.digest()) {
            delete(&load, name, &digest).await;
        }
    }
}

/// Pushes images and an index, copies them to another repository, sets further tags, and deletes the copies.
pub async fn use_crane(load: Arc<Load>, crane: PathBuf) {
    let (name, copy) = ("tools/crane", "tools/copy");
    let layouts = [Layout::index().await, Layout::image_of(["base", "crane"]).await];
    for round in 0.. {
        if load.is_over() {
            return;
        }
        let layout = &layouts[round % layouts.len()];
        let digest = layout.digest();
        let command =
            |server, reference: &str| crane::push_command(&crane, layout.path(), server, reference);
        if !push(&load, name, "t", &digest, command).await {
            continue;
        }
        let from = format!("{name}:t");
        let command =
            |server, reference: &str| crane::copy_command(&crane, server, &from, reference);
        if push(&load, copy, "t", &digest, command).await {
            let copied = format!("{copy}:t");
            let command =
                |server, reference: &str| crane::copy_command(&crane, server, &copied, reference);
            push(&load, copy, "again", &digest, command).await;
            load.serves(load.next(), copy, "t", &digest).await;
            delete(&load, copy, &digest).await;
        }
        if round % 3 == 2 {
            delete(&load, name, &digest).await;
        }
    }
}

/// Attaches artifacts to an image, and deletes that with what was attached now and then.
pub async fn use_oras(load: Arc<Load>, crane: PathBuf, oras: PathBuf) {
    let name = "tools/oras";
    let layout = Layout::image_of(["base", "oras"]).await;
    let digest = layout.digest();
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("sbom.json");
    std::fs::write(&file, "{\"parts\": []}").expect("a file");
    for round in 0.. {
        if load.is_over() {
            return;
        }
        let command =
            |server, reference: &str| crane::push_command(&crane, layout.path(), server, reference);
        if !push(&load, name, "t", &digest, command).await {
            continue;
        }
        let artifact_type = format!("application/vnd.example.round-{round}");
        let reference = format!("{name}@{digest}");
        let mut command =
            oras::attach_command(&oras, load.next(), &reference, &artifact_type, &file);
        match try_run(&mut command).await {
            Ok(_) => {
                let attached = attached(&load, name, &digest, &artifact_type).await;
                load.acknowledged_referrer(name, &digest, attached);
            }
            Err(complaint) => load.refused(&complaint),
        }
        if round % 4 == 3 {
            load.lists_all(name, &digest).await;
            delete(&load, name, &digest).await;
        }
    }
}

/// The artifact of a type among those that refer to a manifest.
async fn attached(load: &Load, name: &str, subject: &Digest, artifact_type: &str) -> Digest {
    let path = format!("/v2/{name}/referrers/{subject}");
    let listed = client::get(load.next(), &path, &[]).await;
    let listed: Value = serde_json::from_slice(listed.body()).expect("an index");
    let manifests = listed["manifests"].as_array().expect("a list");
    let found = manifests.iter().find(|manifest| manifest["artifactType"] == artifact_type);
    let digest = found.and_then(|manifest| manifest["digest"].as_str()?.parse().ok());
    digest.unwrap_or_else(|| panic!("{artifact_type} was acknowledged: {listed}"))
}

/// Runs what pushes a manifest by a tag. Whether it was taken.
async fn push(
    load: &Load,
    name: &str,
    tag: &str,
    digest: &Digest,
    command: impl Fn(std::net::SocketAddr, &str) -> Command,
) -> bool {
    let outcome = try_run(&mut command(load.next(), &format!("{name}:{tag}"))).await;
    match &outcome {
        Ok(_) => load.acknowledged(name, tag, digest),
        Err(complaint) => load.refused(complaint),
    }
    outcome.is_ok()
}

async fn delete(load: &Load, name: &str, digest: &Digest) {
    load.forget(name, digest);
    let path = format!("/v2/{name}/manifests/{digest}");
    let deleted = send_body(load.next(), Method::DELETE, &path, &[], "").await;
    assert_eq!(deleted.status(), 202, "{name}@{digest} was acknowledged: {deleted:?}");
}
