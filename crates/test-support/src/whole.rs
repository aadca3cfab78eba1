//! Pulling something wholly, by plain requests: a manifest, and all that it needs, each held against its digest.

use std::net::SocketAddr;

use bytes::Bytes;
use moorage::oci::{Algorithm, Digest};
use serde_json::Value;

use crate::client;

const TYPES: &str = "application/vnd.oci.image.manifest.v1+json,application/vnd.oci.image.index.v1+json,\
    application/vnd.docker.distribution.manifest.v2+json,\
    application/vnd.docker.distribution.manifest.list.v2+json";

/// Pulls a manifest by a tag or a digest, with all that it refers to, and gives its digest.
///
/// # Errors
///
/// What of it is not served as it was pushed.
pub async fn pull(server: SocketAddr, name: &str, reference: &str) -> Result<Digest, String> {
    let path = format!("/v2/{name}/manifests/{reference}");
    let content = get(server, &path).await?;
    let json: Value = serde_json::from_slice(&content).map_err(|e| format!("{path}: {e}"))?;
    let list = |field: &str| json[field].as_array().cloned().unwrap_or_default();
    let config = json["config"].as_object().map(|_| json["config"].clone());
    for blob in list("layers").iter().chain(&config) {
        let digest = digest(blob)?;
        let path = format!("/v2/{name}/blobs/{digest}");
        if !digest.matches(&get(server, &path).await?) {
            return Err(format!("{path}: it is something else"));
        }
    }
    for image in list("manifests") {
        let digest = digest(&image)?;
        if Box::pin(pull(server, name, digest.as_str())).await? != digest {
            return Err(format!("{name}@{digest} is something else"));
        }
    }
    Ok(Digest::of(Algorithm::Sha256, &content))
}

fn digest(descriptor: &Value) -> Result<Digest, String> {
    let text = descriptor["digest"].as_str().unwrap_or_default();
    text.parse().map_err(|error| format!("{descriptor}: {error}"))
}

async fn get(server: SocketAddr, path: &str) -> Result<Bytes, String> {
    let response = client::get(server, path, &[("accept", TYPES)]).await;
    match response.status().as_u16() {
        200 => Ok(response.into_body()),
        status => Err(format!("{path}: {status} {}", String::from_utf8_lossy(response.body()))),
    }
}
