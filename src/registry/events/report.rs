//! Making events of what handlers have done.

use http::Method;
use http::header::USER_AGENT;

use super::{Event, EventAction, RequestRecord, TEXT_MAX_BYTES, Target, TargetKind};
use crate::oci::{Digest, MediaType, Name, Reference, Tag};
use crate::registry::Request;
use crate::registry::access::Permit;
use crate::registry::http::beginning;

/// Tells whoever wants to know of what a request has done. Each method is for what is done already, and does nothing if
/// nobody wants to know of it.
#[derive(Debug, Clone, Copy)]
pub struct Reporter<'r> {
    request: &'r Request,
    permit: &'r Permit<'r>,
}

/// A manifest that was pushed or pulled.
#[derive(Debug, Clone, Copy)]
pub struct ManifestRecord<'a> {
    /// Its repository.
    pub name: &'a Name,
    /// Its digest.
    pub digest: &'a Digest,
    /// Its type.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: usize,
}

impl<'r> Reporter<'r> {
    /// One that tells of what the request does, which is permitted.
    pub fn new(request: &'r Request, permit: &'r Permit<'r>) -> Self {
        Self { request, permit }
    }

    /// Whether somebody wants to know of that in the repository.
    pub fn wants(self, action: EventAction, name: &Name) -> bool {
        self.request.environment.wants_event(action, name)
    }

    /// A manifest was put, and these tags point at it now. With each is the digest that it pointed at before, as far as
    /// somebody wanted that to be looked up.
    pub fn manifest_pushed(
        self,
        manifest: ManifestRecord<'_>,
        tags: &[Tag],
        before: &[Option<Digest>],
    ) {
        let name = manifest.name;
        if self.wants(EventAction::Push, name) {
            if tags.is_empty() {
                self.send(EventAction::Push, self.manifest(manifest, None));
            }
            for tag in tags {
                self.send(EventAction::Push, self.manifest(manifest, Some(tag)));
            }
        }
        let moved = tags.iter().zip(before);
        let moved = moved.filter_map(|(tag, before)| Some((tag, before.as_ref()?)));
        for (tag, before) in moved.filter(|(_, before)| *before != manifest.digest) {
            let target = self.manifest(manifest, Some(tag));
            let previous = Some(before.clone());
            self.send(EventAction::TagMoved, Target { kind: TargetKind::Tag, previous, ..target });
        }
    }

    /// A client gets a manifest. Asking for its headers alone is no pull.
    pub fn manifest_pulled(self, manifest: ManifestRecord<'_>, reference: &Reference) {
        if self.request.method == Method::GET && self.wants(EventAction::Pull, manifest.name) {
            let tag = match reference {
                Reference::Tag(tag) => Some(tag),
                Reference::Digest(_) => None,
            };
            self.send(EventAction::Pull, self.manifest(manifest, tag));
        }
    }

    /// A tag was deleted, or a manifest with all tags on it.
    pub fn manifest_deleted(self, name: &Name, reference: &Reference) {
        if !self.wants(EventAction::Delete, name) {
            return;
        }
        let target = match reference {
            Reference::Tag(tag) => {
                Target { tag: Some(tag.clone()), ..Target::new(TargetKind::Tag, name) }
            }
            Reference::Digest(digest) => {
                Target { digest: Some(digest.clone()), ..Target::new(TargetKind::Manifest, name) }
            }
        };
        self.send(EventAction::Delete, target);
    }

    /// A blob of so many bytes was uploaded.
    pub fn blob_pushed(self, name: &Name, digest: &Digest, size: u64) {
        if self.wants(EventAction::Push, name) {
            let target = Target { size: Some(size), ..self.blob(name, digest) };
            self.send(EventAction::Push, target);
        }
    }

    /// A blob was mounted, from that repository if the client named one.
    pub fn blob_mounted(self, name: &Name, digest: &Digest, from: Option<Name>) {
        if self.wants(EventAction::Mount, name) {
            let target = Target { from_repository: from, ..self.blob(name, digest) };
            self.send(EventAction::Mount, target);
        }
    }

    /// A blob was deleted.
    pub fn blob_deleted(self, name: &Name, digest: &Digest) {
        if self.wants(EventAction::Delete, name) {
            let target = Target { url: None, ..self.blob(name, digest) };
            self.send(EventAction::Delete, target);
        }
    }

    fn manifest(self, manifest: ManifestRecord<'_>, tag: Option<&Tag>) -> Target {
        let ManifestRecord { name, digest, media_type, size } = manifest;
        Target {
            digest: Some(digest.clone()),
            media_type: Some(media_type),
            size: u64::try_from(size).ok(),
            tag: tag.cloned(),
            url: self.url(name, "manifests", digest),
            ..Target::new(TargetKind::Manifest, name)
        }
    }

    fn blob(self, name: &Name, digest: &Digest) -> Target {
        Target {
            digest: Some(digest.clone()),
            url: self.url(name, "blobs", digest),
            ..Target::new(TargetKind::Blob, name)
        }
    }

    fn url(self, name: &Name, what: &str, digest: &Digest) -> Option<String> {
        let host = self.request.host().filter(|host| host.len() <= TEXT_MAX_BYTES)?;
        Some(format!("{}://{host}/v2/{name}/{what}/{digest}", self.request.scheme()))
    }

    fn send(self, action: EventAction, target: Target) {
        let Request { environment, headers, method, .. } = self.request;
        let id = environment.nonce().uuid();
        let cut = |text: &str| beginning(text, TEXT_MAX_BYTES).to_owned();
        let header = |name| cut(headers.text(name).unwrap_or_default());
        let request_id = header("x-request-id");
        let request = RequestRecord {
            id: if request_id.is_empty() { id.clone() } else { request_id },
            address: environment.client_socket().unwrap_or_default(),
            host: header(":authority"),
            method: cut(method.as_str()),
            user_agent: header(USER_AGENT.as_str()),
        };
        let actor = cut(self.permit.caller_name());
        environment.send_event(Event {
            id,
            time: environment.now(),
            action,
            target,
            request,
            actor,
        });
    }
}
