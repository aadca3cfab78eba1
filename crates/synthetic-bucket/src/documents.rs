//! The JSON of manifests, image configurations and entries of referrers: each the same whenever it is made.

use crate::registry::{Body, Content, ContentIndex, ManifestKind, Registry};

/// The empty JSON object.
pub const EMPTY_JSON: &str = "{}";

const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const SIGNATURE: &str = "application/vnd.example.signature.v1+json";
const ARCHITECTURES: [&str; 3] = ["amd64", "arm64", "s390x"];

/// The configuration of an image.
pub fn config(number: u32) -> String {
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"build":"{number}"}}}},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#
    )
}

/// A manifest, by its place in [`Registry::manifests`].
pub fn manifest(registry: &Registry, number: u32) -> String {
    let manifest = &registry.manifests[number as usize];
    let (config_type, layer_type) = match manifest.kind {
        ManifestKind::Oci => (OCI_CONFIG, OCI_LAYER),
        ManifestKind::Docker => (DOCKER_CONFIG, DOCKER_LAYER),
        ManifestKind::Index => ("", ""),
        ManifestKind::Signature => (EMPTY, SIGNATURE),
    };
    let references = registry.references(manifest);
    let mut text = String::with_capacity(512 + 200 * references.len());
    text.push_str(r#"{"schemaVersion":2,"mediaType":""#);
    text.push_str(media_type(manifest.kind));
    text.push('"');
    if manifest.kind == ManifestKind::Signature {
        text.push_str(r#","artifactType":""#);
        text.push_str(SIGNATURE);
        text.push('"');
    }
    if let Some(config) = manifest.config {
        text.push_str(r#","config":"#);
        descriptor(registry, config, config_type, "", &mut text);
    }
    let is_index = manifest.kind == ManifestKind::Index;
    text.push_str(if is_index { r#","manifests":["# } else { r#","layers":["# });
    for (position, content) in references.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        if is_index {
            let architecture = ARCHITECTURES[position % ARCHITECTURES.len()];
            let platform =
                format!(r#","platform":{{"architecture":"{architecture}","os":"linux"}}"#);
            let media_type = media_type_of(registry, *content);
            descriptor(registry, *content, media_type, &platform, &mut text);
        } else {
            descriptor(registry, *content, layer_type, "", &mut text);
        }
    }
    text.push(']');
    if let Some(subject) = manifest.subject {
        text.push_str(r#","subject":"#);
        descriptor(registry, subject, media_type_of(registry, subject), "", &mut text);
    }
    text.push('}');
    text
}

/// The entry of a referrer: its descriptor.
pub fn referrer(registry: &Registry, content: ContentIndex) -> String {
    let mut text = String::new();
    let more = format!(r#","artifactType":"{SIGNATURE}""#);
    descriptor(registry, content, media_type_of(registry, content), &more, &mut text);
    text
}

fn media_type(kind: ManifestKind) -> &'static str {
    match kind {
        ManifestKind::Oci | ManifestKind::Signature => OCI_IMAGE,
        ManifestKind::Docker => DOCKER_IMAGE,
        ManifestKind::Index => OCI_INDEX,
    }
}

/// The media type of a manifest; of anything else, that of bytes.
fn media_type_of(registry: &Registry, content: ContentIndex) -> &'static str {
    match registry.contents[content as usize].body {
        Body::Manifest(number) => media_type(registry.manifests[number as usize].kind),
        Body::Zeros | Body::Config(_) | Body::EmptyJson => "application/octet-stream",
    }
}

fn descriptor(
    registry: &Registry,
    content: ContentIndex,
    media_type: &str,
    more: &str,
    text: &mut String,
) {
    let Content { size, .. } = registry.contents[content as usize];
    text.push_str(r#"{"mediaType":""#);
    text.push_str(media_type);
    text.push_str(r#"","digest":""#);
    text.push_str(&registry.digest(content));
    text.push_str(r#"","size":"#);
    text.push_str(&size.to_string());
    text.push_str(more);
    text.push('}');
}
