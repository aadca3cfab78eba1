//! Clients: what they push, mount, tag and delete, and what of it was acknowledged.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use moorage::oci::{Algorithm, Digest};
use serde_json::{Value, json};

use super::proxy::Proxy;
use super::world::World;
use crate::time::Clock as _;

/// The media type of images.
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of indexes.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How often a client tries what is refused for now.
const ATTEMPTS: usize = 4;

/// A manifest that a registry has acknowledged.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    pub content: Bytes,
    pub subject: Option<Digest>,
    /// When.
    pub at: Duration,
}

/// What registries have acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// By repository and digest.
    pub manifests: BTreeMap<(String, Digest), Acknowledged>,
    /// The manifests that somebody has asked to delete: nobody can tell whether they are there.
    pub deleted: BTreeSet<(String, Digest)>,
    /// What went wrong that must not.
    pub violations: Vec<String>,
    /// How many manifests were refused for now, because garbage was being collected.
    pub refused: usize,
    /// How many manifests were acknowledged.
    pub acknowledged: usize,
}

/// A client.
#[derive(Clone)]
pub struct Client {
    pub world: Rc<World>,
    pub proxy: Rc<Proxy>,
    pub ledger: Rc<RefCell<Ledger>>,
    /// How long what it uploads is safe before a manifest refers to it.
    pub grace: Duration,
}

pub fn digest_of(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

/// The content of a layer or a configuration.
pub fn blob(name: &str) -> Bytes {
    Bytes::from(format!("the content of {name}"))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest_of(content).as_str(), "size": content.len() })
}

/// An image of these blobs, the first its configuration.
pub fn image(blobs: &[Bytes], subject: Option<&Bytes>) -> Bytes {
    let layers =
        blobs[1..].iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer));
    let mut image = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &blobs[0]),
        "layers": layers.collect::<Vec<_>>(),
    });
    if let Some(subject) = subject {
        image["subject"] = descriptor(IMAGE, subject);
    }
    image.to_string().into()
}

/// An index of these manifests.
pub fn index(children: &[Bytes]) -> Bytes {
    let manifests: Vec<_> = children.iter().map(|child| descriptor(IMAGE, child)).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string().into()
}

impl Client {
    /// Pushes blobs and a manifest of them, as clients do: what is there is not uploaded, what another repository has is
    /// mounted, and what is refused for now is tried again.
    pub async fn push(
        &self,
        name: &str,
        reference: &str,
        blobs: &[Bytes],
        manifest: Bytes,
        subject: Option<Digest>,
    ) -> bool {
        for _ in 0..ATTEMPTS {
            let began = self.world.now();
            let mut uploaded = Vec::new();
            let mut is_refused = false;
            for content in blobs {
                match self.push_blob(name, content).await {
                    Pushed::There => {}
                    Pushed::New => uploaded.push(digest_of(content)),
                    Pushed::Refused => is_refused = true,
                }
            }
            if !is_refused {
                // A large layer takes its time.
                if self.world.one_in(4) {
                    self.world.wait(self.world.time_up_to(Duration::from_secs(180))).await;
                }
                let reply = self.put_manifest(name, reference, &manifest, subject.clone()).await;
                if reply.0 == 201 {
                    return true;
                }
                let body = String::from_utf8_lossy(&reply.1).into_owned();
                let took = self.world.now() - began;
                for digest in &uploaded {
                    if reply.0 == 400 && body.contains(digest.as_str()) && took < self.grace {
                        let told =
                            format!("{name} lost {digest}, uploaded within {took:?}: {body}");
                        self.ledger.borrow_mut().violations.push(told);
                    }
                }
            }
            self.world.wait(Duration::from_secs(30)).await;
        }
        false
    }

    /// Puts a manifest, and notes it if it is acknowledged.
    pub async fn put_manifest(
        &self,
        name: &str,
        reference: &str,
        manifest: &Bytes,
        subject: Option<Digest>,
    ) -> (u16, Bytes) {
        let target = format!("/v2/{name}/manifests/{reference}");
        let reply = self.proxy.send(Method::PUT, &target, Some(manifest.clone())).await;
        let mut ledger = self.ledger.borrow_mut();
        if reply.status == 201 {
            let key = (name.to_owned(), digest_of(manifest));
            let acknowledged =
                Acknowledged { content: manifest.clone(), subject, at: self.world.now() };
            ledger.manifests.insert(key, acknowledged);
            ledger.acknowledged += 1;
        }
        ledger.refused += usize::from(String::from_utf8_lossy(&reply.body).contains("collected"));
        (reply.status, reply.body)
    }

    /// Deletes a manifest with its tags.
    pub async fn delete_manifest(&self, name: &str, digest: &Digest) {
        self.ledger.borrow_mut().deleted.insert((name.to_owned(), digest.clone()));
        self.proxy.send(Method::DELETE, &format!("/v2/{name}/manifests/{digest}"), None).await;
    }

    /// Deletes a tag.
    pub async fn delete_tag(&self, name: &str, tag: &str) {
        self.proxy.send(Method::DELETE, &format!("/v2/{name}/manifests/{tag}"), None).await;
    }

    /// Asks for a blob, so that the proxy remembers it.
    pub async fn head(&self, name: &str, content: &[u8]) -> bool {
        let target = format!("/v2/{name}/blobs/{}", digest_of(content));
        self.proxy.send(Method::HEAD, &target, None).await.status == 200
    }

    async fn push_blob(&self, name: &str, content: &Bytes) -> Pushed {
        if self.head(name, content).await {
            return Pushed::There;
        }
        let digest = digest_of(content);
        let uploads = format!("/v2/{name}/blobs/uploads/");
        let from = *self.world.any(&super::scenario::REPOSITORIES);
        if from != name {
            let target = format!("{uploads}?mount={digest}&from={from}");
            match self.proxy.send(Method::POST, &target, None).await {
                reply if reply.status == 201 => return Pushed::New,
                reply if reply.status != 202 => return Pushed::Refused,
                _ => {}
            }
        }
        let status = match self.world.below(3) {
            0 => self.upload_at_once(&uploads, &digest, content).await,
            1 => self.upload_by_put(&uploads, &digest, content).await,
            _ => self.upload_in_chunks(&uploads, &digest, content).await,
        };
        if status == 201 { Pushed::New } else { Pushed::Refused }
    }

    async fn upload_at_once(&self, uploads: &str, digest: &Digest, content: &Bytes) -> u16 {
        let target = format!("{uploads}?digest={digest}");
        self.proxy.stream(Method::POST, &target, content.clone()).await.status
    }

    async fn upload_by_put(&self, uploads: &str, digest: &Digest, content: &Bytes) -> u16 {
        let Some(location) = self.proxy.send(Method::POST, uploads, None).await.location else {
            return 503;
        };
        let target = format!("{location}&digest={digest}");
        self.proxy.stream(Method::PUT, &target, content.clone()).await.status
    }

    async fn upload_in_chunks(&self, uploads: &str, digest: &Digest, content: &Bytes) -> u16 {
        let Some(location) = self.proxy.send(Method::POST, uploads, None).await.location else {
            return 503;
        };
        let appended = self.proxy.stream(Method::PATCH, &location, content.clone()).await;
        let Some(location) = appended.location.filter(|_| appended.status == 202) else {
            return appended.status;
        };
        let target = format!("{location}&digest={digest}");
        self.proxy.send(Method::PUT, &target, None).await.status
    }
}

/// What became of a blob that a client needs.
enum Pushed {
    /// It was there.
    There,
    /// It is there now.
    New,
    /// It can't be pushed now.
    Refused,
}
