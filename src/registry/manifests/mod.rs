//! `/v2/<name>/manifests/<reference>`
//!
//! Source: OCI distribution specification, "Pulling manifests", "Pushing manifests", "Content management".

mod convert;
#[cfg(test)]
mod crashes;
mod delete;
#[cfg(test)]
mod legacy_tests;
mod negotiate;
mod put;
#[cfg(all(test, not(target_family = "wasm")))]
mod races;
#[cfg(test)]
pub(super) mod scene;

use std::rc::Rc;

use bytes::Bytes;
use futures::future::join;
use http::header::{CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, VARY};
use http::{HeaderValue, Response, StatusCode};

use super::conditional::{IfNoneMatch, entity_tag};
use super::error::{Error, ErrorCode};
use super::manifest::media_type_of;
use super::media_type::MediaType;
use super::reference::{Digest, Name, Reference, Tag};
use super::{
    Answer, ContentStream, DOCKER_CONTENT_DIGEST, Request, Settings, refuse_body,
    with_common_headers,
};
use crate::store::{Content, Description, Store, StoreError, Uploads, Verified};
pub use delete::delete;
use negotiate::negotiate;
pub use put::put;

/// A manifest that may be answered: verified content and what it is.
struct Manifest {
    digest: Digest,
    description: Description,
    /// The digest under which the store has the content; `None` for a manifest that was made for the client.
    stored_under: Option<Digest>,
}

impl Manifest {
    /// A manifest that was made for the client.
    fn made(digest: Digest, media_type: MediaType, content: Bytes) -> Self {
        let description = describe(&digest, media_type, content);
        Self { digest, description, stored_under: None }
    }

    fn media_type(&self) -> MediaType {
        self.description.media_type
    }

    fn content(&self) -> &Bytes {
        self.description.reply.body()
    }

    /// 200, or 304 for a client that has the manifest. What is large is streamed.
    ///
    /// # Errors
    ///
    /// `SIZE_INVALID` for a request with a body, which would be streamed to the store with it.
    fn into_answer(
        self,
        request: &Request,
        name: &Name,
        reference: &Reference,
    ) -> Result<Answer, Error> {
        let condition = IfNoneMatch::parse(request.header_values(IF_NONE_MATCH));
        if condition.matches(&self.digest) {
            return Ok(Answer::Reply(self.description.not_modified));
        }
        let reply = self.description.reply;
        match self.stored_under {
            Some(content) if reply.body().len() > request.reply_max_bytes => {
                refuse_body(request)?;
                Ok(Answer::Stream(Box::new(ContentStream {
                    method: request.method.clone(),
                    content,
                    range: None,
                    parts: None,
                    headers: reply.headers().clone(),
                    unknown: manifest_unknown(name, reference),
                })))
            }
            _ => Ok(Answer::Reply(reply)),
        }
    }
}

/// `GET` and `HEAD`. Two waves of storage calls by tag, one by digest; more for old clients.
pub async fn get(
    request: &Request,
    store: &(impl Store + Uploads),
    settings: &Settings,
    name: &Name,
    reference: &Reference,
) -> Result<Answer, Error> {
    let tag = match reference {
        Reference::Digest(digest) => {
            let manifest = fetch(store, name, digest, reference).await?;
            return manifest.into_answer(request, name, reference);
        }
        Reference::Tag(tag) => tag,
    };
    let vary = HeaderValue::from_static("Accept");
    let manifest = tagged(request, store, settings, name, tag).await;
    let answer = manifest.and_then(|manifest| manifest.into_answer(request, name, reference));
    match answer {
        Ok(Answer::Reply(reply)) => {
            let mut reply = Rc::unwrap_or_clone(reply);
            reply.headers_mut().insert(VARY, vary);
            Ok(Answer::Reply(Rc::new(reply)))
        }
        Ok(Answer::Stream(mut stream)) => {
            stream.headers.insert(VARY, vary);
            Ok(Answer::Stream(stream))
        }
        Err(error) => Err(error.with_header(VARY, vary)),
    }
}

/// What the client gets for a tag.
async fn tagged(
    request: &Request,
    store: &(impl Store + Uploads),
    settings: &Settings,
    name: &Name,
    tag: &Tag,
) -> Result<Manifest, Error> {
    let reference = Reference::Tag(tag.clone());
    let digest = store.tag(name, tag).await?;
    let digest = digest.ok_or_else(|| manifest_unknown(name, &reference))?;
    let stored = fetch(store, name, &digest, &reference).await?;
    negotiate(request, store, settings, name, tag, stored).await
}

/// Reads a manifest of the repository and verifies it.
async fn fetch(
    store: &impl Store,
    name: &Name,
    digest: &Digest,
    reference: &Reference,
) -> Result<Manifest, Error> {
    let (stored_under, content) = locate(store, store.manifest_link(name, digest), digest).await?;
    let stored_under = Some(stored_under);
    let content = match content {
        Content::Verified(verified) => {
            let description = describe_once(&verified)?.clone();
            let digest = verified.digest().clone();
            return Ok(Manifest { digest, description, stored_under });
        }
        Content::Whole(content) => content,
        Content::Absent => return Err(manifest_unknown(name, reference)),
        Content::TooLarge { limit } => {
            let why = format!("it is larger than the {limit} bytes of manifest_max_bytes");
            return Err(unservable(digest, &why));
        }
    };
    if !digest.matches(&content) {
        let why = "its content does not match its digest; it is corrupt in the store";
        return Err(unservable(digest, why));
    }
    let media_type =
        media_type_of(&content).map_err(|error| unservable(digest, &error.to_string()))?;
    let description = describe(digest, media_type, content);
    Ok(Manifest { digest: digest.clone(), description, stored_under })
}

/// What verified content is, which is found out once.
fn describe_once(verified: &Verified) -> Result<&Description, Error> {
    let digest = verified.digest();
    if let Some(description) = verified.description().get() {
        return Ok(description);
    }
    let media_type = media_type_of(verified.content())
        .map_err(|error| unservable(digest, &error.to_string()))?;
    Ok(verified
        .description()
        .get_or_init(|| describe(digest, media_type, verified.content().clone())))
}

/// Reads the content of a manifest that the repository has.
pub(super) async fn content_of(
    store: &impl Store,
    name: &Name,
    digest: &Digest,
) -> Result<Content, StoreError> {
    linked_content(store, store.manifest_link(name, digest), digest).await
}

/// Reads content that a repository has if there is a link to it.
async fn linked_content(
    store: &impl Store,
    link: impl Future<Output = Result<Option<Digest>, StoreError>>,
    digest: &Digest,
) -> Result<Content, StoreError> {
    let (_, content) = locate(store, link, digest).await?;
    Ok(content)
}

/// The same, with the digest under which the content is stored.
async fn locate(
    store: &impl Store,
    link: impl Future<Output = Result<Option<Digest>, StoreError>>,
    digest: &Digest,
) -> Result<(Digest, Content), StoreError> {
    let (link, content) = join(link, store.content(digest)).await;
    match link? {
        // Without a link the content is none of this repository's business, whatever became of
        // reading it.
        None => Ok((digest.clone(), Content::Absent)),
        Some(target) if target == *digest => Ok((target, content?)),
        // `distribution` links content under a second digest by pointing from there to the first.
        // What was verified there was verified against the other digest.
        Some(target) => match store.content(&target).await? {
            Content::Verified(verified) => Ok((target, Content::Whole(verified.content().clone()))),
            content => Ok((target, content)),
        },
    }
}

/// What a manifest is, with the replies that tell of it.
fn describe(digest: &Digest, media_type: MediaType, content: Bytes) -> Description {
    let not_modified = with_common_headers(not_modified(digest));
    let mut reply = Response::new(content);
    // These are kept as long as the manifest is: cloned, they share their values.
    reply.headers_mut().clone_from(not_modified.headers());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type.as_str()));
    Description { media_type, reply: Rc::new(reply), not_modified: Rc::new(not_modified) }
}

/// 304, with the headers that RFC 9110 section 15.4.5 asks for.
pub(super) fn not_modified(digest: &Digest) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().extend(identity(digest));
    response
}

/// The headers that say which content this is.
pub(super) fn identity(digest: &Digest) -> [(HeaderName, HeaderValue); 2] {
    // A digest is ASCII letters, digits and a colon, so the conversion can't fail.
    let value = HeaderValue::try_from(digest.as_str()).unwrap_or(HeaderValue::from_static(""));
    [(DOCKER_CONTENT_DIGEST, value), (ETAG, entity_tag(digest))]
}

fn manifest_unknown(name: &Name, reference: &Reference) -> Error {
    let message = format!("the repository {name} has no manifest {reference}");
    Error::new(ErrorCode::ManifestUnknown, message).with_detail(detail(name, reference))
}

fn detail(name: &Name, reference: &Reference) -> serde_json::Value {
    serde_json::json!({ "name": name.as_str(), "reference": reference.to_string() })
}

/// The manifest is there, but what is stored may not be served.
fn unservable(digest: &Digest, why: &str) -> Error {
    let message = format!("the manifest {digest} can't be served: {why}");
    log::error!("{message}");
    Error::new(ErrorCode::Unknown, message).with_detail(digest.as_str())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::{ACCEPT, CONTENT_LENGTH};
    use http::{HeaderMap, Method};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::reference::Algorithm;
    use crate::registry::{
        Allowance, Body, REPLY_MAX_BYTES, Settings, Stamp, StreamAnswer, handle,
    };
    use crate::store::memory::{MemoryStore, World, run};
    use crate::store::{CacheSettings, Cached, StoreErrorKind, layout};

    const CONTENT: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

    struct Scene {
        store: MemoryStore,
        name: Name,
        digest: Digest,
    }

    /// A repository `a/b` with one OCI image manifest, tagged `t`.
    fn scene() -> Scene {
        let store = MemoryStore::default();
        let name: Name = "a/b".parse().expect("a valid name");
        let tag = "t".parse().expect("a valid tag");
        let digest = store.put_manifest(&name, &tag, CONTENT);
        Scene { store, name, digest }
    }

    fn request(reference: &str, headers: &[(HeaderName, &str)]) -> Request {
        Request {
            method: Method::GET,
            target: format!("/v2/a/b/manifests/{reference}"),
            headers: headers.into(),
            body: Body::None,
            resources: Vec::new(),
            stamp: Stamp::default(),
            reply_max_bytes: REPLY_MAX_BYTES,
        }
    }

    impl Scene {
        /// Asks for `a/b`'s manifest; gives the response and the number of waves.
        fn get(&self, reference: &str, headers: &[(HeaderName, &str)]) -> (Response<Bytes>, usize) {
            let request = request(reference, headers);
            let (answer, waves) = run(handle(&request, &self.store, &Settings::default()));
            (answer.expect_reply(), waves)
        }

        fn error(&self, reference: &str) -> (u16, String) {
            let (response, _) = self.get(reference, &[]);
            let json: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
            let code = json["errors"][0]["code"].as_str().expect("a code").to_owned();
            (response.status().as_u16(), code)
        }
    }

    #[test]
    fn a_manifest_is_served_with_its_type_digest_and_entity_tag() {
        let scene = scene();
        for (reference, waves, vary) in [("t", 2, true), (scene.digest.as_str(), 1, false)] {
            let (response, waves_made) = scene.get(reference, &[]);
            assert_eq!(response.status(), 200);
            assert_eq!(response.body(), CONTENT);
            let headers = response.headers();
            assert_eq!(headers[CONTENT_TYPE], MediaType::OciManifest.as_str());
            assert_eq!(headers[DOCKER_CONTENT_DIGEST], scene.digest.as_str());
            assert_eq!(headers[ETAG], format!("\"{}\"", scene.digest));
            assert_eq!(headers["docker-distribution-api-version"], "registry/2.0");
            assert_eq!(headers.contains_key(VARY), vary);
            assert_eq!(waves_made, waves, "waves of storage calls by {reference}");
        }
        assert_eq!(scene.store.calls().len(), 3 + 2, "calls by tag and by digest");
    }

    #[test]
    fn a_manifest_is_served_by_sha512_as_well() {
        let scene = scene();
        let digest = Digest::of(Algorithm::Sha512, CONTENT);
        // As `distribution` stores it: under its SHA-256, linked from its SHA-512.
        let link = layout::manifest_link(&scene.name, &digest);
        scene.store.put(link.clone(), scene.digest.to_string());
        assert_eq!(scene.get(digest.as_str(), &[]).0.body(), CONTENT);
        // And as content of its own.
        scene.store.put(link, digest.to_string());
        scene.store.put(layout::content(&digest), CONTENT);
        let (response, waves) = scene.get(digest.as_str(), &[]);
        assert_eq!((response.body(), waves), (&Bytes::from_static(CONTENT), 1));
    }

    /// A manifest of so many bytes, in the repository under its SHA-256 and a SHA-512 that points there.
    fn put_large(scene: &Scene, size: usize) -> [Digest; 2] {
        let mut content = CONTENT.to_vec();
        content.resize(size, b' ');
        let digests =
            [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| Digest::of(algorithm, &content));
        let stored = digests[0].to_string();
        scene.store.put(layout::content(&digests[0]), content);
        for digest in &digests {
            scene.store.put(layout::manifest_link(&scene.name, digest), stored.clone());
        }
        let tag = "large".parse().expect("a valid tag");
        scene.store.put(layout::tag_link(&scene.name, &tag), stored);
        digests
    }

    #[test]
    fn a_large_manifest_is_verified_and_then_streamed() {
        let scene = scene();
        let [sha256, sha512] = put_large(&scene, REPLY_MAX_BYTES + 1);
        let store_headers =
            HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(REPLY_MAX_BYTES + 1))]);
        for (reference, own, vary) in [
            ("large", &sha256, true),
            (sha256.as_str(), &sha256, false),
            (sha512.as_str(), &sha512, false),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let mut request = request(reference, &[]);
                request.method = method.clone();
                let answer = run(handle(&request, &scene.store, &Settings::default())).0;
                let Answer::Stream(stream) = answer else {
                    panic!("a stream, not {answer:?}");
                };
                assert_eq!((&stream.method, &stream.content), (&method, &sha256));
                assert_eq!(stream.range, None);
                let StreamAnswer::Forward(status, headers) =
                    stream.answer(StatusCode::OK, &store_headers, &Allowance::default())
                else {
                    panic!("the manifest is forwarded");
                };
                assert_eq!(status, 200);
                assert_eq!(headers[CONTENT_TYPE], MediaType::OciManifest.as_str());
                assert_eq!(headers[CONTENT_LENGTH], (REPLY_MAX_BYTES + 1).to_string());
                assert_eq!(headers[DOCKER_CONTENT_DIGEST], own.as_str());
                assert_eq!(headers[ETAG], format!("\"{own}\""));
                assert_eq!(headers.contains_key(VARY), vary);
                let gone = b"<Error><Code>NoSuchKey</Code></Error>";
                let gone = stream.failure(StatusCode::NOT_FOUND, gone);
                assert_eq!(gone.status(), 404);
                assert!(String::from_utf8_lossy(gone.body()).contains("MANIFEST_UNKNOWN"));
            }
            let entity_tag = format!("\"{own}\"");
            assert_eq!(scene.get(reference, &[(IF_NONE_MATCH, &entity_tag)]).0.status(), 304);
        }
        // While many replies wait for their clients, less is sent from memory.
        let mut small = request("t", &[]);
        small.reply_max_bytes = CONTENT.len() - 1;
        let answer = run(handle(&small, &scene.store, &Settings::default())).0;
        assert!(matches!(answer, Answer::Stream(_)), "{answer:?}");
        // What would go to the store with the request is refused.
        let mut with_body = request("large", &[]);
        with_body.body = Body::Discarded;
        let refused = run(handle(&with_body, &scene.store, &Settings::default())).0.expect_reply();
        assert_eq!(refused.status(), 400);
        // Never streamed unverified.
        scene.store.put(layout::content(&sha256), vec![b' '; REPLY_MAX_BYTES + 1]);
        assert_eq!(scene.error("large"), (500, "UNKNOWN".to_owned()));
    }

    #[test]
    fn a_manifest_that_is_not_large_is_sent_from_memory() {
        let scene = scene();
        let [digest, _] = put_large(&scene, REPLY_MAX_BYTES);
        assert_eq!(scene.get(digest.as_str(), &[]).0.body().len(), REPLY_MAX_BYTES);
    }

    #[test]
    fn replies_that_are_kept_are_those_of_their_digest() {
        let Scene { store, name, digest } = scene();
        let other = Digest::of(Algorithm::Sha512, CONTENT);
        store.put(layout::manifest_link(&name, &other), digest.to_string());
        let world = World::default();
        let cache = CacheSettings {
            max_bytes: 100_000,
            link_ttl: Duration::from_secs(60),
            tag_ttl: Duration::from_secs(60),
            negative_ttl: Duration::ZERO,
        };
        let cached = Cached::new(store, &world, cache);
        // In each round what was kept in the one before is given again.
        for _ in 0..3 {
            for (reference, own, vary) in [
                (other.as_str(), &other, false),
                (digest.as_str(), &digest, false),
                ("t", &digest, true),
            ] {
                for known in [false, true] {
                    let condition = if known { own.as_str() } else { "\"other\"" };
                    let request = request(reference, &[(IF_NONE_MATCH, condition)]);
                    let (answer, _) = run(handle(&request, &cached, &Settings::default()));
                    let response = answer.expect_reply();
                    let (status, body) = if known { (304, &b""[..]) } else { (200, CONTENT) };
                    assert_eq!((response.status().as_u16(), &response.body()[..]), (status, body));
                    let headers = response.headers();
                    assert_eq!(headers[DOCKER_CONTENT_DIGEST], own.as_str());
                    assert_eq!(headers[ETAG], format!("\"{own}\""));
                    assert_eq!(headers["docker-distribution-api-version"], "registry/2.0");
                    assert_eq!(headers.contains_key(CONTENT_TYPE), !known);
                    assert_eq!(headers.contains_key(VARY), vary);
                }
            }
        }
    }

    #[test]
    fn a_client_that_has_the_manifest_gets_304() {
        let scene = scene();
        let entity_tag = format!("\"{}\"", scene.digest);
        for reference in ["t", scene.digest.as_str()] {
            let (response, _) = scene.get(reference, &[(IF_NONE_MATCH, &entity_tag)]);
            assert_eq!(response.status(), 304);
            assert!(response.body().is_empty());
            assert_eq!(response.headers()[ETAG], entity_tag.as_str());
            assert_eq!(response.headers()[DOCKER_CONTENT_DIGEST], scene.digest.as_str());
            let (response, _) = scene.get(reference, &[(IF_NONE_MATCH, "\"other\"")]);
            assert_eq!(response.status(), 200);
        }
    }

    #[test]
    fn accept_is_heeded_by_tag_and_ignored_by_digest() {
        let scene = scene();
        let docker = MediaType::DockerManifest.as_str();
        let by_digest = scene.get(scene.digest.as_str(), &[(ACCEPT, docker)]).0;
        assert_eq!(by_digest.status(), 200);

        let both = [(ACCEPT, docker), (ACCEPT, "application/*;q=0.1")];
        assert_eq!(scene.get("t", &both).0.status(), 200);

        // Having the content does not make its type acceptable.
        let entity_tag = format!("\"{}\"", scene.digest);
        for more in [(IF_NONE_MATCH, "\"other\""), (IF_NONE_MATCH, &entity_tag)] {
            let (response, _) = scene.get("t", &[(ACCEPT, docker), more]);
            assert_eq!(response.status(), 404);
            let body = String::from_utf8_lossy(response.body());
            let names = ["MANIFEST_UNKNOWN", MediaType::OciManifest.as_str(), docker];
            assert!(names.iter().all(|name| body.contains(name)), "{body}");
        }
    }

    #[test]
    fn what_the_repository_does_not_have_is_unknown() {
        let unknown = (404, "MANIFEST_UNKNOWN".to_owned());
        let mut scene = scene();
        assert_eq!(scene.error("other"), unknown);
        assert_eq!(scene.error(Digest::of(Algorithm::Sha256, b"x").as_str()), unknown);
        // Content without a link belongs to other repositories.
        scene.store.delete(&layout::manifest_link(&scene.name, &scene.digest));
        assert_eq!(scene.error("t"), unknown);
        assert_eq!(scene.error(scene.digest.as_str()), unknown);
        // So it does not matter whether it could be read.
        scene.store.fail(layout::content(&scene.digest), StoreErrorKind::Failed);
        assert_eq!(scene.error(scene.digest.as_str()), unknown);
    }

    #[test]
    fn a_link_to_content_that_is_gone_is_unknown() {
        let scene = scene();
        scene.store.delete(&layout::content(&scene.digest));
        assert_eq!(scene.error("t"), (404, "MANIFEST_UNKNOWN".to_owned()));
    }

    #[test]
    fn storage_faults_are_never_not_found() {
        let tag = "t".parse().expect("a valid tag");
        for (kind, expected) in [
            (StoreErrorKind::Failed, (500, "UNKNOWN".to_owned())),
            (StoreErrorKind::TimedOut, (504, "UNAVAILABLE".to_owned())),
            (StoreErrorKind::Unavailable, (503, "UNAVAILABLE".to_owned())),
        ] {
            let Scene { name, digest, .. } = scene();
            for key in [
                layout::tag_link(&name, &tag),
                layout::manifest_link(&name, &digest),
                layout::content(&digest),
            ] {
                let mut scene = scene();
                scene.store.fail(key.clone(), kind);
                assert_eq!(scene.error("t"), expected, "{key:?}");
            }
        }
    }

    #[test]
    fn what_may_not_be_served_is_an_error() {
        let unknown = (500, "UNKNOWN".to_owned());
        let corrupt = scene();
        corrupt.store.put(layout::content(&corrupt.digest), &b"{}"[..]);
        assert_eq!(corrupt.error("t"), unknown);

        let mut too_large = scene();
        too_large.store.content_limit = CONTENT.len() as u64 - 1;
        assert_eq!(too_large.error("t"), unknown);
        too_large.store.content_limit += 1;
        assert_eq!(too_large.get("t", &[]).0.status(), 200);

        let no_manifest = scene();
        let tag = "t".parse().expect("a valid tag");
        no_manifest.store.put_manifest(&no_manifest.name, &tag, b"{}");
        assert_eq!(no_manifest.error("t"), unknown);

        let broken_link = scene();
        broken_link.store.put(layout::tag_link(&broken_link.name, &tag), "sha256:");
        assert_eq!(broken_link.error("t"), unknown);
    }
}
