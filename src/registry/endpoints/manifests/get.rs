//! Pulling a manifest.

use std::rc::Rc;

use http::HeaderValue;
use http::header::{IF_NONE_MATCH, VARY};

use super::fetch::{Manifest, fetch};
use super::manifest_unknown;
use super::negotiate::negotiate;
use crate::oci::{Name, Reference, Tag};
use crate::registry::events::{ManifestRecord, Reporter};
use crate::registry::http::conditional::IfNoneMatch;
use crate::registry::http::error::Error;
use crate::registry::{Answer, ContentStream, Request, Settings};
use crate::store::{BlobStream, Store, Uploads};

impl Manifest {
    /// 200, or 304 for a client that has the manifest. What is large is streamed.
    ///
    /// # Errors
    ///
    /// `SIZE_INVALID` for a request with a body, which would be streamed to the store with it.
    fn into_answer(
        self,
        request: &Request,
        reporter: Reporter<'_>,
        name: &Name,
        reference: &Reference,
    ) -> Result<Answer, Error> {
        let condition = IfNoneMatch::parse(request.header_values(IF_NONE_MATCH));
        if condition.matches(&self.digest) {
            return Ok(Answer::Reply(self.description.not_modified));
        }
        let (digest, media_type, reply) =
            (&self.digest, self.description.media_type, self.description.reply);
        let pulled = ManifestRecord { name, digest, media_type, size: reply.body().len() };
        match self.stored_under {
            Some(content) if reply.body().len() > request.reply_max_bytes => {
                request.refuse_body()?;
                reporter.manifest_pulled(pulled, reference);
                Ok(Answer::Stream(Box::new(ContentStream {
                    read: BlobStream { method: request.method.clone(), content, range: None },
                    parts: None,
                    headers: reply.headers().clone(),
                    unknown: manifest_unknown(name, reference),
                })))
            }
            _ => {
                reporter.manifest_pulled(pulled, reference);
                Ok(Answer::Reply(reply))
            }
        }
    }
}

/// `GET` and `HEAD`. Two round trips to the store by tag, one by digest; more for old clients.
pub async fn get(
    request: &Request,
    reporter: Reporter<'_>,
    store: &(impl Store + Uploads),
    settings: &Settings,
    name: &Name,
    reference: &Reference,
) -> Result<Answer, Error> {
    let tag = match reference {
        Reference::Digest(digest) => {
            let manifest = fetch(store, name, digest, reference).await?;
            return manifest.into_answer(request, reporter, name, reference);
        }
        Reference::Tag(tag) => tag,
    };
    let vary = HeaderValue::from_static("Accept");
    let manifest = tagged(request, store, settings, name, tag).await;
    let answer =
        manifest.and_then(|manifest| manifest.into_answer(request, reporter, name, reference));
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

/// The manifest that the client gets for a tag.
async fn tagged(
    request: &Request,
    store: &(impl Store + Uploads),
    settings: &Settings,
    name: &Name,
    tag: &Tag,
) -> Result<Manifest, Error> {
    let reference = Reference::Tag(tag.clone());
    let digest = store.tag_for_pull(name, tag).await?;
    let digest = digest.ok_or_else(|| manifest_unknown(name, &reference))?;
    let stored = fetch(store, name, &digest, &reference).await?;
    negotiate(request, store, settings, name, tag, stored).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName};
    use http::{HeaderMap, Method, Response, StatusCode};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::{Algorithm, Digest, MediaType};
    use crate::registry::http::reply::DOCKER_CONTENT_DIGEST;
    use crate::registry::test_registry::{self, TestRegistry, error, name};
    use crate::registry::{Allowance, Body, REPLY_MAX_BYTES, StreamAnswer, handle};
    use crate::store::memory::{TestCacheEnvironment, run};
    use crate::store::{CacheSettings, Cached, StoreErrorKind, layout};

    const CONTENT: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

    /// A repository `a/b` with one OCI image manifest, tagged `t`; gives its digest as well.
    fn tagged() -> (TestRegistry, Digest) {
        let registry = TestRegistry::default();
        let tag = "t".parse().expect("a valid tag");
        let digest = registry.store.put_manifest(&name(), &tag, CONTENT);
        (registry, digest)
    }

    fn request(method: Method, reference: &str, headers: &[(HeaderName, &str)]) -> Request {
        test_registry::request(method, &format!("/v2/a/b/manifests/{reference}"), headers)
    }

    /// Asks for `a/b`'s manifest; gives the response and the number of round trips.
    fn get(
        registry: &TestRegistry,
        reference: &str,
        headers: &[(HeaderName, &str)],
    ) -> (Response<Bytes>, usize) {
        registry.send_manifest(Method::GET, reference, headers, Body::None)
    }

    fn error_of(registry: &TestRegistry, reference: &str) -> (u16, String) {
        error(&get(registry, reference, &[]).0)
    }

    #[test]
    fn a_manifest_is_served_with_its_type_digest_and_entity_tag() {
        let (registry, manifest) = tagged();
        for (reference, round_trips, vary) in [("t", 2, true), (manifest.as_str(), 1, false)] {
            let (response, round_trips_made) = get(&registry, reference, &[]);
            assert_eq!(response.status(), 200);
            assert_eq!(response.body(), CONTENT);
            let headers = response.headers();
            assert_eq!(headers[CONTENT_TYPE], MediaType::OciManifest.as_str());
            assert_eq!(headers[DOCKER_CONTENT_DIGEST], manifest.as_str());
            assert_eq!(headers[ETAG], format!("\"{}\"", manifest));
            assert_eq!(headers["docker-distribution-api-version"], "registry/2.0");
            assert_eq!(headers.contains_key(VARY), vary);
            assert_eq!(round_trips_made, round_trips, "round trips to the store by {reference}");
        }
        assert_eq!(registry.store.calls().len(), 3 + 2, "calls by tag and by digest");
    }

    #[test]
    fn a_manifest_is_served_by_sha512_as_well() {
        let (registry, manifest) = tagged();
        let digest = Digest::of(Algorithm::Sha512, CONTENT);
        // As `distribution` stores it: under its SHA-256, linked from its SHA-512.
        let link = layout::manifest_link(&name(), &digest);
        registry.store.put(link.clone(), manifest.to_string());
        assert_eq!(get(&registry, digest.as_str(), &[]).0.body(), CONTENT);
        // And as content of its own.
        registry.store.put(link, digest.to_string());
        registry.store.put(layout::content(&digest), CONTENT);
        let (response, round_trips) = get(&registry, digest.as_str(), &[]);
        assert_eq!((response.body(), round_trips), (&Bytes::from_static(CONTENT), 1));
    }

    /// A manifest of so many bytes, in the repository under its SHA-256 and a SHA-512 that points there.
    fn put_large(registry: &TestRegistry, size: usize) -> [Digest; 2] {
        let mut content = CONTENT.to_vec();
        content.resize(size, b' ');
        let digests =
            [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| Digest::of(algorithm, &content));
        let stored = digests[0].to_string();
        registry.store.put(layout::content(&digests[0]), content);
        for digest in &digests {
            registry.store.put(layout::manifest_link(&name(), digest), stored.clone());
        }
        let tag = "large".parse().expect("a valid tag");
        registry.store.put(layout::tag_link(&name(), &tag), stored);
        digests
    }

    #[test]
    fn a_large_manifest_is_verified_and_then_streamed() {
        let (registry, _) = tagged();
        let [sha256, sha512] = put_large(&registry, REPLY_MAX_BYTES + 1);
        let store_headers =
            HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(REPLY_MAX_BYTES + 1))]);
        for (reference, own, vary) in [
            ("large", &sha256, true),
            (sha256.as_str(), &sha256, false),
            (sha512.as_str(), &sha512, false),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let request = request(method.clone(), reference, &[]);
                let answer = run(handle(&request, &registry.store, &registry.settings)).0;
                let Answer::Stream(stream) = answer else {
                    panic!("a stream, not {answer:?}");
                };
                assert_eq!((&stream.read.method, &stream.read.content), (&method, &sha256));
                assert_eq!(stream.read.range, None);
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
            assert_eq!(get(&registry, reference, &[(IF_NONE_MATCH, &entity_tag)]).0.status(), 304);
        }
        // While many replies wait for their clients, less is sent from memory.
        let mut small = request(Method::GET, "t", &[]);
        small.reply_max_bytes = CONTENT.len() - 1;
        let answer = run(handle(&small, &registry.store, &registry.settings)).0;
        assert!(matches!(answer, Answer::Stream(_)), "{answer:?}");
        // What would go to the store with the request is refused.
        let mut with_body = request(Method::GET, "large", &[]);
        with_body.body = Body::Discarded;
        let refused = run(handle(&with_body, &registry.store, &registry.settings)).0.expect_reply();
        assert_eq!(refused.status(), 400);
        // Never streamed unverified.
        registry.store.put(layout::content(&sha256), vec![b' '; REPLY_MAX_BYTES + 1]);
        assert_eq!(error_of(&registry, "large"), (500, "UNKNOWN".to_owned()));
    }

    #[test]
    fn a_manifest_that_is_not_large_is_sent_from_memory() {
        let (registry, _) = tagged();
        let [digest, _] = put_large(&registry, REPLY_MAX_BYTES);
        assert_eq!(get(&registry, digest.as_str(), &[]).0.body().len(), REPLY_MAX_BYTES);
    }

    #[test]
    fn replies_that_are_kept_are_those_of_their_digest() {
        let (TestRegistry { store, .. }, digest) = tagged();
        let other = Digest::of(Algorithm::Sha512, CONTENT);
        store.put(layout::manifest_link(&name(), &other), digest.to_string());
        let environment = TestCacheEnvironment::default();
        let cache = CacheSettings {
            max_bytes: 100_000,
            link_ttl: Duration::from_secs(60),
            tag_ttl: Duration::from_secs(60),
            negative_ttl: Duration::ZERO,
            stale_if_error: Duration::ZERO,
        };
        let cached = Cached::new(store, &environment, cache, 0);
        // In each round what was kept in the one before is given again.
        for _ in 0..3 {
            for (reference, own, vary) in [
                (other.as_str(), &other, false),
                (digest.as_str(), &digest, false),
                ("t", &digest, true),
            ] {
                for known in [false, true] {
                    let condition = if known { own.as_str() } else { "\"other\"" };
                    let request = request(Method::GET, reference, &[(IF_NONE_MATCH, condition)]);
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
        let (registry, manifest) = tagged();
        let entity_tag = format!("\"{}\"", manifest);
        for reference in ["t", manifest.as_str()] {
            let (response, _) = get(&registry, reference, &[(IF_NONE_MATCH, &entity_tag)]);
            assert_eq!(response.status(), 304);
            assert!(response.body().is_empty());
            assert_eq!(response.headers()[ETAG], entity_tag.as_str());
            assert_eq!(response.headers()[DOCKER_CONTENT_DIGEST], manifest.as_str());
            let (response, _) = get(&registry, reference, &[(IF_NONE_MATCH, "\"other\"")]);
            assert_eq!(response.status(), 200);
        }
    }

    #[test]
    fn accept_is_heeded_by_tag_and_ignored_by_digest() {
        let (registry, manifest) = tagged();
        let docker = MediaType::DockerManifest.as_str();
        let by_digest = get(&registry, manifest.as_str(), &[(ACCEPT, docker)]).0;
        assert_eq!(by_digest.status(), 200);

        let both = [(ACCEPT, docker), (ACCEPT, "application/*;q=0.1")];
        assert_eq!(get(&registry, "t", &both).0.status(), 200);

        // Having the content does not make its type acceptable.
        let entity_tag = format!("\"{}\"", manifest);
        for more in [(IF_NONE_MATCH, "\"other\""), (IF_NONE_MATCH, &entity_tag)] {
            let (response, _) = get(&registry, "t", &[(ACCEPT, docker), more]);
            assert_eq!(response.status(), 404);
            let body = String::from_utf8_lossy(response.body());
            let names = ["MANIFEST_UNKNOWN", MediaType::OciManifest.as_str(), docker];
            assert!(names.iter().all(|name| body.contains(name)), "{body}");
        }
    }

    #[test]
    fn what_the_repository_does_not_have_is_unknown() {
        let unknown = (404, "MANIFEST_UNKNOWN".to_owned());
        let (mut registry, manifest) = tagged();
        assert_eq!(error_of(&registry, "other"), unknown);
        assert_eq!(error_of(&registry, Digest::of(Algorithm::Sha256, b"x").as_str()), unknown);
        // Content without a link belongs to other repositories.
        registry.store.delete(&layout::manifest_link(&name(), &manifest));
        assert_eq!(error_of(&registry, "t"), unknown);
        assert_eq!(error_of(&registry, manifest.as_str()), unknown);
        // So it does not matter whether it could be read.
        registry.store.fail(layout::content(&manifest), StoreErrorKind::Failed);
        assert_eq!(error_of(&registry, manifest.as_str()), unknown);
    }

    #[test]
    fn a_link_to_content_that_is_gone_is_unknown() {
        let (registry, manifest) = tagged();
        registry.store.delete(&layout::content(&manifest));
        assert_eq!(error_of(&registry, "t"), (404, "MANIFEST_UNKNOWN".to_owned()));
    }

    #[test]
    fn storage_faults_are_never_not_found() {
        let tag = "t".parse().expect("a valid tag");
        for (kind, expected) in [
            (StoreErrorKind::Failed, (500, "UNKNOWN".to_owned())),
            (StoreErrorKind::TimedOut, (504, "UNAVAILABLE".to_owned())),
            (StoreErrorKind::Unavailable, (503, "UNAVAILABLE".to_owned())),
        ] {
            let (_, digest) = tagged();
            for key in [
                layout::tag_link(&name(), &tag),
                layout::manifest_link(&name(), &digest),
                layout::content(&digest),
            ] {
                let (mut registry, _) = tagged();
                registry.store.fail(key.clone(), kind);
                assert_eq!(error_of(&registry, "t"), expected, "{key:?}");
            }
        }
    }

    #[test]
    fn what_may_not_be_served_is_an_error() {
        let unknown = (500, "UNKNOWN".to_owned());
        let (corrupt, manifest) = tagged();
        corrupt.store.put(layout::content(&manifest), &b"{}"[..]);
        assert_eq!(error_of(&corrupt, "t"), unknown);

        let (mut too_large, _) = tagged();
        too_large.store.content_limit = CONTENT.len() as u64 - 1;
        assert_eq!(error_of(&too_large, "t"), unknown);
        too_large.store.content_limit += 1;
        assert_eq!(get(&too_large, "t", &[]).0.status(), 200);

        let (no_manifest, _) = tagged();
        let tag = "t".parse().expect("a valid tag");
        no_manifest.store.put_manifest(&name(), &tag, b"{}");
        assert_eq!(error_of(&no_manifest, "t"), unknown);

        let (broken_link, _) = tagged();
        broken_link.store.put(layout::tag_link(&name(), &tag), "sha256:");
        assert_eq!(error_of(&broken_link, "t"), unknown);
    }
}
