//! Clients that push as all do, by plain requests and much faster: what a registry has is not uploaded, and images that were
//! deleted are pushed again.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use moorage::oci::Digest;
use serde_json::{Value, json};

use moorage_test_support::client::send_body;
use moorage_test_support::digest_of;

use super::load::Load;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const REPOSITORIES: [&str; 2] = ["load/one", "load/two"];

/// Of each client. There are few tags, so that most of what is pushed becomes garbage; and so many images that one comes again
/// about as often as garbage is collected.
const TAGS: usize = 3;
const IMAGES: usize = 150;

/// Which all clients share: some that are in use nearly always, and some that seldom are.
const COMMON_LAYERS: usize = 12;
const RARE_LAYERS: usize = 100;

/// Uses the registry until it is told to end.
pub async fn use_registry(load: Arc<Load>, number: usize) {
    let mut client = Client { load, number, random: number as u64 };
    while !client.load.is_over() {
        client.do_something().await;
    }
}

struct Client {
    load: Arc<Load>,
    number: usize,
    random: u64,
}

struct Image {
    blobs: Vec<String>,
    manifest: String,
    digest: Digest,
}

impl Client {
    async fn do_something(&mut self) {
        let name = REPOSITORIES[self.below(REPOSITORIES.len())];
        let number = self.below(TAGS);
        let tag = format!("{}-{number}", self.number);
        let now = self.load.tag(name, &tag);
        match (self.below(10), now) {
            (0..=1, Some(digest)) => self.delete(name, &digest).await,
            (2, Some(_)) => {
                self.load.forget_tag(name, &tag);
                let path = format!("{name}/manifests/{tag}");
                let deleted = self.send(Method::DELETE, &path, "").await;
                assert_eq!(deleted.status(), 202, "{path} was acknowledged: {deleted:?}");
            }
            (3..=4, Some(digest)) => {
                self.load.serves(self.load.next(), name, &tag, &digest).await;
            }
            _ => {
                let image = self.image();
                self.push(name, &tag, &image).await;
            }
        }
    }

    /// An image with a configuration that no other client has, and with layers that others have too.
    fn image(&mut self) -> Image {
        let (client, number) = (self.number, self.below(IMAGES));
        let config = json!({ "client": client, "image": number }).to_string();
        let layers = [
            format!("common layer {}", (number + client) % COMMON_LAYERS),
            format!("rare layer {}", (number * 3 + client) % RARE_LAYERS),
        ];
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.each_ref().map(|layer| descriptor("application/vnd.example.layer", layer)),
        });
        let manifest = manifest.to_string();
        let digest = digest_of(&manifest);
        Image { blobs: layers.into_iter().chain([config]).collect(), manifest, digest }
    }

    async fn push(&mut self, name: &str, tag: &str, image: &Image) {
        for blob in &image.blobs {
            let path = format!("{name}/blobs/{}", digest_of(blob));
            let is_there = match self.send(Method::HEAD, &path, "").await.status().as_u16() {
                200 => true,
                404 => false,
                other => panic!("HEAD {path}: {other}"),
            };
            if !is_there && !self.upload(name, blob).await {
                return;
            }
        }
        let path = format!("{name}/manifests/{tag}");
        let put = self.send(Method::PUT, &path, &image.manifest).await;
        if self.is_taken(&put) {
            self.load.acknowledged(name, tag, &image.digest);
        }
    }

    /// Brings a blob, by a mount if the other repository has it, at once or in a session. Whether it was taken.
    async fn upload(&mut self, name: &str, blob: &str) -> bool {
        let digest = digest_of(blob);
        let sessions = format!("{name}/blobs/uploads/");
        let uploaded = match self.below(3) {
            0 => self.send(Method::POST, &format!("{sessions}?digest={digest}"), blob).await,
            how => {
                let other = REPOSITORIES[usize::from(name == REPOSITORIES[0])];
                let path = match how {
                    1 => format!("{sessions}?mount={digest}&from={other}"),
                    _ => sessions,
                };
                let begun = self.send(Method::POST, &path, "").await;
                if begun.status() == 201 {
                    return true;
                }
                assert_eq!(begun.status(), 202, "{path}: {begun:?}");
                let location = begun.headers()["location"].to_str().expect("a URL");
                let location = location.strip_prefix("/v2/").expect("a path of the API");
                self.send(Method::PUT, &format!("{location}&digest={digest}"), blob).await
            }
        };
        self.is_taken(&uploaded)
    }

    async fn delete(&self, name: &str, digest: &Digest) {
        self.load.forget(name, digest);
        let deleted = self.send(Method::DELETE, &format!("{name}/manifests/{digest}"), "").await;
        assert_eq!(deleted.status(), 202, "{name}@{digest} was acknowledged: {deleted:?}");
    }

    fn is_taken(&self, answer: &Response<Bytes>) -> bool {
        if answer.status() != 201 {
            let body = String::from_utf8_lossy(answer.body());
            self.load.refused(&format!("{} {body}", answer.status()));
        }
        answer.status() == 201
    }

    /// Sends a request to either Envoy.
    async fn send(&self, method: Method, path: &str, body: &str) -> Response<Bytes> {
        let headers: &[_] = match method {
            Method::PUT if path.contains("/manifests/") => &[("content-type", MANIFEST)],
            _ => &[],
        };
        let path = format!("/v2/{path}");
        send_body(self.load.next(), method, &path, headers, body.to_owned()).await
    }

    /// A number that looks random.
    fn below(&mut self, limit: usize) -> usize {
        // The constants are Knuth's, for the MMIX.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005);
        self.random = self.random.wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % limit
    }
}

fn descriptor(media_type: &str, content: &str) -> Value {
    let digest = digest_of(content);
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": content.len() })
}
