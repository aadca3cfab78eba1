//! What clients pushed, tagged and deleted at one registry, or at two by turns, and what of it there must be.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use moorage::oci::{Digest, Name};
use moorage::store::layout;
use serde_json::{Value, json};

use moorage_test_support::client::send_body;
use moorage_test_support::{bucket_folder, digest_of, whole};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The repository whose manifest [`Written::corrupt_a_manifest`] spoils.
pub const CORRUPTED: &str = "web";

/// What was written.
pub struct Written {
    bucket: PathBuf,
    /// What each digest is of, in words.
    about: BTreeMap<String, String>,
    /// The manifests that tags point at, by their repositories and tags.
    tags: BTreeMap<(&'static str, &'static str), String>,
    /// What a tagged index has, with all that its images need.
    platforms: BTreeSet<String>,
    /// What refers to a tagged manifest, with all that it needs.
    referrers: BTreeSet<String>,
    /// The manifests of that.
    signatures: Vec<String>,
    /// What a tag points at to whose manifest there is no link.
    unlinked: BTreeSet<String>,
    writers: Vec<SocketAddr>,
    turn: Cell<usize>,
}

impl Written {
    /// Has the registries write by turns, to the folder `bucket`. In the end all of it is an hour old.
    pub async fn by(writers: Vec<SocketAddr>, bucket: &Path) -> Self {
        let mut written = Self {
            bucket: bucket.to_owned(),
            about: BTreeMap::new(),
            tags: BTreeMap::new(),
            platforms: BTreeSet::new(),
            referrers: BTreeSet::new(),
            signatures: Vec::new(),
            unlinked: BTreeSet::new(),
            writers,
            turn: Cell::new(0),
        };
        written.write_images().await;
        written.write_indexes().await;
        written.write_referrers().await;
        written.write_what_is_odd().await;
        written.make_old();
        written
    }

    /// How many contents are garbage beyond dispute, at least.
    pub fn garbage_contents(&self, removes_untagged: bool) -> usize {
        let untagged = self.about.values().filter(|about| about.contains("untagged")).count();
        let unused = self.about.values().filter(|about| about.contains("unused")).count();
        assert!(untagged > 0 && unused > 0);
        if removes_untagged { untagged + unused } else { unused }
    }

    pub fn about(&self, digest: &str) -> &str {
        self.about.get(digest).map_or("unknown", String::as_str)
    }

    pub fn is_platform(&self, digest: &str) -> bool {
        self.platforms.contains(digest)
    }

    pub fn is_referrer(&self, digest: &str) -> bool {
        self.referrers.contains(digest)
    }

    pub fn is_unlinked(&self, digest: &str) -> bool {
        self.unlinked.contains(digest)
    }

    async fn write_images(&mut self) {
        let [one, two] = [("app", "one"), ("app", "two")];
        let (one, _) = self.image(one, MANIFEST, &["a layer of both"]).await;
        self.put("app", "latest", MANIFEST, &one, "the untagged image one").await;
        let (two, _) = self.image(two, MANIFEST, &["a layer of both", "a layer of two"]).await;
        self.put("app", "latest", MANIFEST, &two, "the image two").await;
        self.put("app", "2", MANIFEST, &two, "the image two").await;
        // Its own configuration goes with it; the layer is needed by the other.
        self.about.insert(config_of(&one), "the configuration of the untagged image".to_owned());
        let (web, _) = self.image(("web", "web"), DOCKER_MANIFEST, &["a layer of web"]).await;
        self.put("web", "1", DOCKER_MANIFEST, &web, "the image web").await;
        // A layer from elsewhere.
        let layer = digest_of("a layer of both");
        let path = format!("team/app/blobs/uploads/?mount={layer}&from=app");
        let mounted = self.send(Method::POST, &path, &[], "").await;
        assert_eq!(mounted.status(), 201);
        let (team, _) = self.image(("team/app", "team"), MANIFEST, &[]).await;
        let mut team: Value = serde_json::from_str(&team).expect("JSON");
        team["layers"] = json!([descriptor("a/b", "a layer of both")]);
        self.put("team/app", "t", MANIFEST, &team.to_string(), "the image of the team").await;
        self.blob("team/app", "an unused blob").await;
        self.blob("web", "another unused blob").await;
        // A manifest that was deleted: what it had is unused from then on.
        let (deleted, _) = self.image(("web", "unused"), MANIFEST, &["an unused layer"]).await;
        let digest = self.put("web", "gone", MANIFEST, &deleted, "an unused image").await;
        let path = format!("web/manifests/{digest}");
        assert_eq!(self.send(Method::DELETE, &path, &[], "").await.status(), 202);
        self.tags.remove(&("web", "gone"));
    }

    async fn write_indexes(&mut self) {
        for (repository, list, image) in
            [("platforms", INDEX, MANIFEST), ("lists", DOCKER_LIST, DOCKER_MANIFEST)]
        {
            let mut manifests = Vec::new();
            for platform in ["amd64", "arm64"] {
                let layer = format!("the layer of {repository}, {platform}");
                let what = format!("{repository} {platform}");
                let (manifest, parts) = self.image((repository, &what), image, &[&layer]).await;
                let digest = self.put_untagged(repository, image, &manifest, &what).await;
                self.platforms.extend(parts.into_iter().chain([digest]));
                let mut descriptor = descriptor(image, &manifest);
                descriptor["platform"] = json!({ "os": "linux", "architecture": platform });
                manifests.push(descriptor);
            }
            let index = json!({ "schemaVersion": 2, "mediaType": list, "manifests": manifests });
            self.put(repository, "t", list, &index.to_string(), "an index").await;
        }
    }

    async fn write_referrers(&mut self) {
        let (image, _) = self.image(("signed", "signed"), MANIFEST, &["a signed layer"]).await;
        self.put("signed", "t", MANIFEST, &image, "a signed image").await;
        let (mut subject, of) = (image, "the signature");
        for what in [of, "the signature of the signature"] {
            let (artifact, parts) = self.image(("signed", what), MANIFEST, &[what]).await;
            let mut artifact: Value = serde_json::from_str(&artifact).expect("JSON");
            artifact["subject"] = descriptor(MANIFEST, &subject);
            subject = artifact.to_string();
            let digest = self.put_untagged("signed", MANIFEST, &subject, what).await;
            self.referrers.extend(parts.into_iter().chain([digest.clone()]));
            self.signatures.push(digest);
        }
    }

    /// What is left where a registry was ended in the middle of a deletion, and in no other way.
    async fn write_what_is_odd(&mut self) {
        let (image, parts) = self.image(("odd", "unlinked"), MANIFEST, &["an odd layer"]).await;
        let digest = self.put("odd", "t", MANIFEST, &image, "an image without a link").await;
        let name: Name = "odd".parse().expect("a name");
        let link = layout::manifest_link(&name, &digest.parse::<Digest>().expect("a digest"));
        fs::remove_file(self.bucket.join(link.as_str())).expect("the link is there");
        self.tags.remove(&("odd", "t"));
        self.unlinked.extend(parts.into_iter().chain([digest.clone()]));
        let tag = "gone".parse().expect("a tag");
        let history = layout::tag_history(&name, &tag, &digest.parse().expect("a digest"));
        let history = self.bucket.join(history.as_str());
        fs::create_dir_all(history.parent().expect("a folder")).expect("a folder");
        fs::write(history, digest).expect("a file");
    }

    /// Uploads a configuration and layers; gives the manifest, and the digests of the blobs.
    async fn image(
        &mut self,
        (repository, what): (&str, &str),
        media_type: &str,
        layers: &[&str],
    ) -> (String, Vec<String>) {
        let config = json!({ "created_by": what }).to_string();
        let (config_type, layer_type) = match media_type {
            DOCKER_MANIFEST => (
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            ),
            _ => (
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar+gzip",
            ),
        };
        let mut digests = vec![self.blob(repository, &config).await];
        for layer in layers {
            digests.push(self.blob(repository, layer).await);
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type, "config": descriptor(config_type, &config),
            "layers": layers.iter().map(|layer| descriptor(layer_type, layer)).collect::<Vec<_>>(),
        });
        (manifest.to_string(), digests)
    }

    async fn blob(&mut self, repository: &str, content: &str) -> String {
        let digest = digest_of(content).to_string();
        let server = self.next();
        let path = format!("/v2/{repository}/blobs/uploads/");
        let begun = send_body(server, Method::POST, &path, &[], "").await;
        let location = begun.headers()["location"].to_str().expect("a URL").to_owned();
        let path = location.split_once("/v2/").map(|(_, path)| path).expect("a path of the API");
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("/v2/{path}{separator}digest={digest}");
        let closed = send_body(server, Method::PUT, &path, &[], content.to_owned()).await;
        assert_eq!(closed.status(), 201, "{closed:?}");
        self.about.insert(digest.clone(), content.to_owned());
        digest
    }

    async fn put(
        &mut self,
        repository: &'static str,
        tag: &'static str,
        media_type: &str,
        manifest: &str,
        what: &str,
    ) -> String {
        let digest = self.put_at(repository, tag, media_type, manifest, what).await;
        self.tags.insert((repository, tag), digest.clone());
        digest
    }

    async fn put_untagged(
        &mut self,
        repository: &str,
        media_type: &str,
        manifest: &str,
        what: &str,
    ) -> String {
        let digest = digest_of(manifest).to_string();
        self.put_at(repository, &digest, media_type, manifest, what).await
    }

    async fn put_at(
        &mut self,
        repository: &str,
        reference: &str,
        media_type: &str,
        manifest: &str,
        what: &str,
    ) -> String {
        let path = format!("{repository}/manifests/{reference}");
        let put = self.send(Method::PUT, &path, &[("content-type", media_type)], manifest).await;
        assert_eq!(put.status(), 201, "{put:?}");
        let digest = digest_of(manifest).to_string();
        self.about.insert(digest.clone(), what.to_owned());
        digest
    }

    /// Sends a request to whoever's turn it is.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Bytes> {
        send_body(self.next(), method, &format!("/v2/{path}"), headers, body.to_owned()).await
    }

    fn next(&self) -> SocketAddr {
        let turn = self.turn.replace(self.turn.get() + 1);
        self.writers[turn % self.writers.len()]
    }

    fn make_old(&self) {
        for path in bucket_folder::objects(&self.bucket).values() {
            bucket_folder::set_age(path, Duration::from_secs(60 * 60));
        }
    }

    /// Spoils the content of a manifest of [`CORRUPTED`].
    pub fn corrupt_a_manifest(&self) {
        let digest = self.tags[&(CORRUPTED, "1")].parse().expect("a digest");
        let path = self.bucket.join(layout::content(&digest).as_str());
        fs::write(path, "rotten").expect("a file");
    }

    /// Everything that is tagged is there, wholly, and so is what refers to it.
    pub async fn is_served(&self, server: SocketAddr) {
        for ((repository, tag), digest) in &self.tags {
            let pulled = whole::pull(server, repository, tag).await;
            assert_eq!(pulled.as_ref().map(Digest::as_str), Ok(digest.as_str()));
        }
        let signatures = self.signatures.iter().map(String::as_str);
        for digest in signatures {
            let pulled = whole::pull(server, "signed", digest).await;
            assert_eq!(pulled.as_ref().map(Digest::as_str), Ok(digest));
        }
    }
}

fn config_of(manifest: &str) -> String {
    let manifest: Value = serde_json::from_str(manifest).expect("JSON");
    manifest["config"]["digest"].as_str().expect("a digest").to_owned()
}

fn descriptor(media_type: &str, content: &str) -> Value {
    let digest = digest_of(content);
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": content.len() })
}
