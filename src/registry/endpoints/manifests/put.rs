//! Putting a manifest.
//!
//! The order of the writes makes crashes harmless: everything else, then the tag. A tag never points at
//! what is not there, and a repeat of the request completes what is missing.
//!
//! Three round trips to the store: what the manifest needs is looked up; then its content, its link and
//! the tag's history are written together; then the tag, and the entry at its subject.
//!
//! A manifest that needs what a collection of garbage is about to remove is refused for now ([`Lookout`]). That is looked at
//! beside the references, so that it is no further round trip, and after the links are written, before the tag is.
//!
//! A tag that policy makes immutable is created by the store's own conditional write, so that of two who race one wins. In
//! the end its manifest's link is looked at again: a `DELETE` of the manifest that did not see the tag yet may have taken
//! it away, and looks at its side for such tags too.
//!
//! A `PUT` that is refused because something is missing has written nothing. To write the content while
//! its references are looked up would take no less time, and it could not be taken back after a refusal:
//! another `PUT` may have written the same content meanwhile, and the store can't tell the one from the
//! other. The link need not wait for the content: without that it counts for nothing, here and in
//! `distribution`, as after a collection of garbage that left links behind.
//!
//! The history is written before the tag, because by it a `DELETE` of what the tag pointed at sees that the
//! tag is being moved ([`crate::store`]). With a history but no `current/link` a tag is listed and can't be
//! pulled, so a `PUT` that fails takes its entry back if there is no such tag. What remains is the entry of
//! one that ended together with its client, its proxy or the store.

use std::pin::pin;

use bytes::Bytes;
use futures::future::{FutureExt, join, join_all, join3, join4, try_join};
use futures::stream::{self, StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::immutable::{self, denied};
use crate::oci::manifest::{Dependency, InvalidManifest, ParsedManifest, media_type_of};
use crate::oci::{Algorithm, Digest, MediaType, Name, Reference, Tag};
use crate::registry::access::Permit;
use crate::registry::events::{EventAction, ManifestRecord, Reporter};
use crate::registry::http::conditional::TagPrecondition;
use crate::registry::http::error::{Error, ErrorCode, being_collected};
use crate::registry::http::reply::{bare, identity};
use crate::registry::lookout::Lookout;
#[cfg(feature = "schema1")]
use crate::registry::schema1::{Pushed, PushedError};
use crate::registry::{Body, Environment, Request, Settings, policy};
use crate::store::layout::{self, Key};
use crate::store::{PARALLEL_CALLS, Store, StoreError, TagCondition};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// The most tags that one request may set. The specification asks for ten at least.
const MAX_TAGS: usize = 100;

/// How many missing references an answer names. When there are more, the rest is not looked up.
const MAX_MISSING: usize = 100;

/// From so many blobs on, the repository's links are listed instead of the link of each being read.
const WORTH_A_LISTING: usize = 50;

/// `PUT`: three round trips to the store; two more, once, before the first conditional one.
pub async fn put(
    request: &Request,
    permit: &Permit<'_>,
    store: &impl Store,
    settings: &Settings,
    name: &Name,
    reference: &Reference,
) -> Result<Response<Bytes>, Error> {
    let body = whole_body(&request.body, settings)?;
    let content_type = request.header_value(CONTENT_TYPE);
    let tags = tags_to_set(request, reference)?;
    let (manifest, content) = read(body, content_type, settings, name, &tags)?;
    request.exchange.pushed_type.get_or_init(|| manifest.media_type);
    check_descriptors(&manifest, settings)?;
    let digest = digest_of(&content, reference)?;
    let resources = [permit.grants(), &request.resources].concat();
    policy::check(&manifest, name, &resources, &settings.classes)?;
    let precondition = precondition(request, reference)?;

    let reporter = Reporter::new(request, permit);
    let (missing, moves, lookout, before) = join4(
        missing_references(store, settings, name, &manifest),
        plan_moves(store, settings, name, &tags, &digest, precondition),
        Lookout::begin(store, &*request.environment),
        digests_before(reporter, store, settings, name, &tags),
    )
    .await;
    if let Some(error) = Error::all(missing?) {
        return Err(error);
    }
    let (digest, manifest, content) = (&digest, &manifest, &content);
    let new = New { store, settings, name, digest, manifest, content };
    if let Err(error) = new.write(&tags, &moves?, lookout?, &*request.environment).await {
        new.take_back_history(&tags).await;
        return Err(error);
    }
    let media_type = manifest.media_type;
    let pushed = ManifestRecord { name, digest, media_type, size: content.len() };
    reporter.manifest_pushed(pushed, &tags, &before);
    Ok(created(name, digest, manifest, reference, &tags))
}

/// The digests that tags point at before they are moved, for who wants to know of that; nothing if nobody does. What can't
/// be read is `None`: to tell of a push is no reason to refuse it.
async fn digests_before(
    reporter: Reporter<'_>,
    store: &impl Store,
    settings: &Settings,
    name: &Name,
    tags: &[Tag],
) -> Vec<Option<Digest>> {
    if !reporter.wants(EventAction::TagMoved, name) {
        return Vec::new();
    }
    let digest_before = async |tag: &Tag| {
        if settings.immutable(name, tag).is_some() {
            return None;
        }
        match store.tag_version(name, tag).await {
            Ok(before) => Some(before?.digest),
            Err(error) => {
                log::warn!("no event will tell if the tag {name}:{tag} was moved: {error}");
                None
            }
        }
    };
    join_all(tags.iter().map(digest_before)).await
}

/// A manifest that may be put.
struct New<'a, S> {
    store: &'a S,
    settings: &'a Settings,
    name: &'a Name,
    digest: &'a Digest,
    manifest: &'a ParsedManifest,
    content: &'a Bytes,
}

impl<S: Store> New<'_, S> {
    /// Two round trips. Whatever fails, all calls are over in the end.
    async fn write(
        &self,
        tags: &[Tag],
        moves: &[Move],
        lookout: Lookout<'_>,
        environment: &dyn Environment,
    ) -> Result<(), Error> {
        let Self { store, name, digest, .. } = *self;
        let (content, link, history) = join3(
            store.put_content(digest, self.content.clone()),
            store.link_manifest(name, digest),
            join_all(tags.iter().map(|tag| store.record_tag(name, tag, digest))),
        )
        .await;
        content.and(link).and(history.into_iter().collect::<Result<(), _>>())?;
        self.refuse_condemned(tags, lookout).await?;

        // Before the tag is there: a DELETE of the manifest may take its link away until it sees that.
        let lookout = match moves.iter().any(Move::is_for_good) {
            true => Some(Lookout::begin(store, environment).await?),
            false => None,
        };
        let new_tags = tags.iter().zip(moves);
        let moved = new_tags.map(|(tag, planned)| point_tag(store, name, tag, digest, planned));
        let (referrer, moved) = join(self.record_referrer(), join_all(moved)).await;
        referrer.and(moved.into_iter().collect::<Result<(), _>>())?;
        if let Some(lookout) = lookout {
            if store.manifest_link(name, digest).await?.is_none() {
                store.link_manifest(name, digest).await?;
            }
            // The link may also have been away for a while and been put back: a collection that looked then saw no use of
            // what the manifest needs.
            self.refuse_condemned(tags, lookout).await?;
        }
        Ok(())
    }

    /// Makes sure that no collection of garbage removes what was written, or what the manifest refers to. No call, unless
    /// writing took long.
    async fn refuse_condemned(&self, tags: &[Tag], lookout: Lookout<'_>) -> Result<(), Error> {
        let Self { store, settings, name, digest, manifest, .. } = *self;
        let rely =
            async || match Error::all(missing_references(store, settings, name, manifest).await?) {
                Some(error) => Err(error),
                // Its link, too, may have come just before one that was condemned was removed.
                None => Ok(store.has_manifest(name, digest).await?),
            };
        match lookout.end(store, || self.keys(tags), rely).await? {
            true => Ok(()),
            false => Err(being_collected(digest)),
        }
    }

    /// The keys of what is written, but for the tags, and of what the manifest refers to.
    fn keys<'k>(&'k self, tags: &'k [Tag]) -> impl Iterator<Item = Key> + 'k {
        let Self { name, digest, manifest, .. } = *self;
        let dependencies = manifest.dependencies.iter().map(Dependency::digest);
        let linked = |digest: &'k Digest| {
            let links = [layout::manifest_link(name, digest), layout::blob_link(name, digest)];
            links.into_iter().chain([layout::content(digest)])
        };
        let history = move |tag| layout::tag_history(name, tag, digest);
        let referrer = move |subject| layout::referrer(name, subject, digest);
        let linked = [digest].into_iter().chain(dependencies).flat_map(linked);
        linked.chain(tags.iter().map(history)).chain(manifest.subject.as_ref().map(referrer))
    }

    /// Removes what the history says of this manifest where there is no tag. If that fails too there is
    /// nothing more to do about it.
    async fn take_back_history(&self, tags: &[Tag]) {
        let take_back = |tag| self.store.take_back_record(self.name, tag, self.digest);
        join_all(tags.iter().map(take_back)).await;
    }

    /// Notes at the subject, if there is one, that this manifest refers to it.
    async fn record_referrer(&self) -> Result<(), Error> {
        let Self { store, name, digest, manifest, content, .. } = *self;
        let Some(subject) = &manifest.subject else {
            return Ok(());
        };
        let mut descriptor = json!({
            "mediaType": manifest.media_type.as_str(),
            "digest": digest.as_str(),
            "size": content.len(),
        });
        if let Some(artifact_type) = &manifest.artifact_type {
            descriptor["artifactType"] = artifact_type.as_str().into();
        }
        if !manifest.annotations.is_empty() {
            descriptor["annotations"] = json!(manifest.annotations);
        }
        Ok(store.put_referrer(name, subject, digest, descriptor.to_string().into()).await?)
    }
}

fn whole_body<'a>(body: &'a Body, settings: &Settings) -> Result<&'a Bytes, Error> {
    match body {
        Body::Whole(content) => Ok(content),
        Body::None | Body::Discarded => {
            Err(Error::new(ErrorCode::ManifestInvalid, "the request has no manifest"))
        }
        Body::Short => {
            let message = "the request ended before as much was sent as Content-Length announced";
            Err(Error::new(ErrorCode::SizeInvalid, message))
        }
        Body::TooLarge => {
            let limit = settings.manifest_max_bytes;
            let message = format!("a manifest may have {limit} bytes at most");
            Err(Error::new(ErrorCode::ManifestTooLarge, message))
        }
    }
}

/// Reads the manifest that the body is, and gives what is stored of it: the body, but of a signed
/// schema 1 manifest what was signed.
fn read(
    body: &Bytes,
    content_type: Option<&str>,
    settings: &Settings,
    name: &Name,
    tags: &[Tag],
) -> Result<(ParsedManifest, Bytes), Error> {
    let is_schema1 = matches!(
        media_type_of(body),
        Ok(MediaType::DockerSchema1 | MediaType::DockerSchema1Signed)
    );
    if !is_schema1 || !settings.legacy.accept_schema1 {
        let manifest = ParsedManifest::parse(body, content_type).map_err(manifest_invalid)?;
        return Ok((manifest, body.clone()));
    }
    read_schema1(body, content_type, name, tags)
}

/// The same of a signed schema 1 manifest.
#[cfg(feature = "schema1")]
fn read_schema1(
    body: &Bytes,
    content_type: Option<&str>,
    name: &Name,
    tags: &[Tag],
) -> Result<(ParsedManifest, Bytes), Error> {
    let pushed = Pushed::parse(body, content_type).map_err(|refused| match refused {
        PushedError::Invalid(invalid) => manifest_invalid(invalid),
        PushedError::Unverified(_) => {
            Error::new(ErrorCode::ManifestUnverified, refused.to_string())
        }
    })?;
    if pushed.name != name.as_str() {
        let message = format!("the manifest is signed for another name than {name}");
        return Err(Error::new(ErrorCode::NameInvalid, message).with_detail(name.as_str()));
    }
    if let Some(other) = tags.iter().find(|tag| tag.as_str() != pushed.tag) {
        let message = format!("the manifest is signed for another tag than {other}");
        return Err(Error::new(ErrorCode::TagInvalid, message).with_detail(other.as_str()));
    }
    Ok((pushed.manifest, pushed.payload.into()))
}

#[cfg(not(feature = "schema1"))]
fn read_schema1(
    _: &Bytes,
    _: Option<&str>,
    _: &Name,
    _: &[Tag],
) -> Result<(ParsedManifest, Bytes), Error> {
    Err(manifest_invalid(InvalidManifest::new(
        "schemaVersion",
        "is 1, and this build has no schema 1",
    )))
}

fn manifest_invalid(invalid: InvalidManifest) -> Error {
    let message = match invalid.field.as_str() {
        "" => format!("the manifest is invalid: {}", invalid.problem),
        _ => format!("the manifest is invalid: {invalid}"),
    };
    let detail = json!({ "field": invalid.field, "problem": invalid.problem });
    Error::new(ErrorCode::ManifestInvalid, message).with_detail(detail)
}

fn check_descriptors(manifest: &ParsedManifest, settings: &Settings) -> Result<(), Error> {
    let limit = settings.limits.manifest_descriptors;
    let count = manifest.descriptors;
    if count <= limit {
        return Ok(());
    }
    let problem = format!("has {count} descriptors, and may have {limit} at most");
    Err(manifest_invalid(InvalidManifest::new("", problem)))
}

/// The digest under which the manifest is stored: the one of the URL, which it must have, or its
/// SHA-256.
fn digest_of(content: &[u8], reference: &Reference) -> Result<Digest, Error> {
    match reference {
        Reference::Tag(_) => Ok(Digest::of(Algorithm::Sha256, content)),
        Reference::Digest(digest) if digest.matches(content) => Ok(digest.clone()),
        Reference::Digest(digest) => {
            let message = format!("the manifest does not have the digest {digest}");
            Err(Error::new(ErrorCode::DigestInvalid, message).with_detail(digest.as_str()))
        }
    }
}

/// The tag of the URL, or those of the query's `tag` parameters where the manifest is put by digest.
fn tags_to_set(request: &Request, reference: &Reference) -> Result<Vec<Tag>, Error> {
    if let Reference::Tag(tag) = reference {
        return Ok(vec![tag.clone()]);
    }
    let mut tags: Vec<Tag> = Vec::new();
    for value in request.query_values("tag") {
        let tag = value.parse::<Tag>().map_err(|error| {
            Error::new(ErrorCode::TagInvalid, error.to_string()).with_detail(&*value)
        })?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > MAX_TAGS {
            let message = format!("one request may set {MAX_TAGS} tags at most");
            return Err(Error::new(ErrorCode::TagInvalid, message));
        }
    }
    Ok(tags)
}

fn precondition(
    request: &Request,
    reference: &Reference,
) -> Result<Option<TagPrecondition>, Error> {
    let unsupported = |message: String| Error::new(ErrorCode::ConditionUnsupported, message);
    let if_match = request.header_values(IF_MATCH);
    let if_none_match = request.header_values(IF_NONE_MATCH);
    let precondition = TagPrecondition::parse(if_match, if_none_match)
        .map_err(|error| unsupported(error.to_string()))?;
    if precondition.is_some() && matches!(reference, Reference::Digest(_)) {
        let message = "a PUT can be conditional only on the tag in its URL";
        return Err(unsupported(message.to_owned()));
    }
    Ok(precondition)
}

/// Looks up what the manifest refers to, and gives an error for each that is missing, up to
/// [`MAX_MISSING`] and one that tells how much was not looked up then.
async fn missing_references(
    store: &impl Store,
    settings: &Settings,
    name: &Name,
    manifest: &ParsedManifest,
) -> Result<Vec<Error>, StoreError> {
    let is_index =
        matches!(manifest.media_type, MediaType::OciIndex | MediaType::DockerManifestList);
    let must_be_there =
        if is_index { settings.verify_index_references } else { settings.verify_image_references };
    if !must_be_there {
        return Ok(Vec::new());
    }
    let is_blob = |dependency: &&Dependency| matches!(dependency, Dependency::Blob(_));
    let blobs = manifest.dependencies.iter().filter(is_blob).count();
    let listed =
        (blobs >= WORTH_A_LISTING).then(|| store.listed_blobs(name).boxed_local().shared());
    let has_blob = async |digest: &Digest| match &listed {
        Some(listed) => store.has_blob_listed(name, digest, listed.clone()).await,
        None => store.has_blob(name, digest).await,
    };
    // What an index lists may be a manifest or a blob, whatever its type suggests.
    let look_up = async |dependency: &Dependency| match dependency {
        Dependency::Blob(digest) => {
            let is_there =
                has_blob(digest).await? || is_index && store.has_manifest(name, digest).await?;
            Ok((!is_there).then(|| unknown_reference("blob", digest)))
        }
        Dependency::Manifest(digest) => {
            let is_there =
                store.has_manifest(name, digest).await? || is_index && has_blob(digest).await?;
            Ok((!is_there).then(|| unknown_reference("manifest", digest)))
        }
    };
    let look_ups = manifest.dependencies.iter().map(look_up);
    let mut look_ups = pin!(stream::iter(look_ups).buffered(PARALLEL_CALLS));
    let mut missing = Vec::new();
    let mut unseen = manifest.dependencies.len();
    while let Some(found) = look_ups.try_next().await? {
        unseen -= 1;
        missing.extend(found);
        if missing.len() >= MAX_MISSING && unseen > 0 {
            let message = format!("{unseen} more references of the manifest were not looked at");
            missing.push(Error::new(ErrorCode::ManifestBlobUnknown, message));
            break;
        }
    }
    Ok(missing)
}

fn unknown_reference(what: &str, digest: &Digest) -> Error {
    let message = format!("the repository does not have the {what} that the manifest refers to");
    Error::new(ErrorCode::ManifestBlobUnknown, message).with_detail(digest.as_str())
}

/// How a tag is pointed at the manifest.
pub(super) enum Move {
    /// Whatever it points at.
    Always,
    /// If the request's condition holds.
    If(TagCondition),
    /// If there is none yet: from then on it stays as it is, by the rule with this number.
    ForGood(TagCondition, usize),
    /// It stays as it is, and points at the manifest already.
    Done,
}

impl Move {
    fn is_for_good(&self) -> bool {
        matches!(self, Self::ForGood(..) | Self::Done)
    }
}

/// Makes sure that each tag may be moved and that what that depends on can be held to.
async fn plan_moves(
    store: &impl Store,
    settings: &Settings,
    name: &Name,
    tags: &[Tag],
    digest: &Digest,
    precondition: Option<TagPrecondition>,
) -> Result<Vec<Move>, Error> {
    let condition = check_precondition(store, name, tags, precondition);
    let plan = async |tag: &Tag| match settings.immutable(name, tag) {
        Some(rule) => immutable::plan(store, name, tag, digest, rule).await,
        None => Ok(Move::Always),
    };
    let (condition, plans) = join(condition, join_all(tags.iter().map(plan))).await;
    let condition = condition?;
    let with_condition = |planned| match (planned, &condition) {
        (Move::Always, Some(condition)) => Move::If(condition.clone()),
        (planned, _) => planned,
    };
    plans.into_iter().map(|planned| planned.map(with_condition)).collect()
}

/// Makes sure that a condition can be held to and holds now; what comes back holds to it later.
async fn check_precondition(
    store: &impl Store,
    name: &Name,
    tags: &[Tag],
    precondition: Option<TagPrecondition>,
) -> Result<Option<TagCondition>, Error> {
    let (Some(precondition), [tag]) = (precondition, tags) else {
        return Ok(None);
    };
    let expected = match &precondition {
        TagPrecondition::Never => return Err(precondition_failed(tag)),
        TagPrecondition::Absent => None,
        TagPrecondition::PointsAt(digests) => Some(digests.as_slice()),
    };
    let (honours, condition) =
        try_join(store.honours_conditions(), store.tag_condition(name, tag, expected)).await?;
    if !honours {
        return Err(conditions_ignored());
    }
    condition.map(Some).ok_or_else(|| precondition_failed(tag))
}

pub(super) fn conditions_ignored() -> Error {
    let message = "the blob store ignores the conditions of writes, so two writers could both win";
    Error::new(ErrorCode::ConditionUnsupported, message)
}

fn precondition_failed(tag: &Tag) -> Error {
    let message = format!("the tag {tag} is not what the request's condition asks for");
    Error::new(ErrorCode::PreconditionFailed, message).with_detail(tag.as_str())
}

/// Points the tag at the manifest, holding to what has been planned.
async fn point_tag(
    store: &impl Store,
    name: &Name,
    tag: &Tag,
    digest: &Digest,
    planned: &Move,
) -> Result<(), Error> {
    let condition = match planned {
        Move::Always => return Ok(store.set_tag(name, tag, digest).await?),
        Move::Done => return Ok(()),
        Move::If(condition) | Move::ForGood(condition, _) => condition,
    };
    let is_set = store.set_tag_if(name, tag, digest, condition).await;
    if let Ok(true) = is_set {
        return Ok(());
    }
    match (is_set, planned) {
        // Whoever was faster may have set it to the same.
        (Ok(_), Move::ForGood(_, rule)) => match store.tag_version(name, tag).await? {
            Some(current) if current.digest == *digest => Ok(()),
            _ => Err(denied(tag, *rule)),
        },
        (Ok(_), _) => Err(precondition_failed(tag)),
        // The answer was lost, but the write may have been done: then the tag says so.
        (Err(error), _) => match store.tag(name, tag).await {
            Ok(Some(current)) if current == *digest => Ok(()),
            _ => Err(error.into()),
        },
    }
}

/// 201, with what the specification wants to be told.
fn created(
    name: &Name,
    digest: &Digest,
    manifest: &ParsedManifest,
    reference: &Reference,
    tags: &[Tag],
) -> Response<Bytes> {
    let mut response = bare(StatusCode::CREATED);
    let headers = response.headers_mut();
    let mut add = |header, value: String| {
        // Names, tags and digests are ASCII, so none is ever left out.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(header, value);
        }
    };
    add(LOCATION, format!("/v2/{name}/manifests/{digest}"));
    if let Some(subject) = &manifest.subject {
        add(OCI_SUBJECT, subject.to_string());
    }
    if matches!(reference, Reference::Digest(_)) {
        tags.iter().for_each(|tag| add(OCI_TAG, tag.to_string()));
    }
    headers.extend(identity(digest));
    response
}

#[cfg(test)]
mod tests {
    use http::Method;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::test_registry::{
        OCI_INDEX, OCI_MANIFEST, TestRegistry, descriptor, digest_of, error, errors, image, name,
        whole,
    };
    use crate::store::layout;

    #[test]
    fn a_manifest_is_stored_as_it_was_sent_and_served_again() {
        let registry = TestRegistry::with_blobs();
        // White space and order that no serialiser would give.
        let text = image("x").to_string().replacen('{', "{ \n", 1);
        let body = Body::Whole(text.clone().into());
        for _ in 0..2 {
            let (response, round_trips) =
                registry.send_manifest(Method::PUT, "t", &[], body.clone());
            assert_eq!((response.status().as_u16(), round_trips), (201, 3));
            let digest = digest_of(&text);
            let headers = response.headers();
            assert_eq!(headers[LOCATION], format!("/v2/a/b/manifests/{digest}"));
            assert_eq!(headers["docker-content-digest"], digest.as_str());
            for reference in ["t", digest.as_str()] {
                assert_eq!(registry.get(reference).body(), text.as_bytes());
            }
        }
    }

    #[test]
    fn a_manifest_with_a_hundred_layers_takes_three_round_trips() {
        let mut registry = TestRegistry::with_blobs();
        registry.store.page_limit = Some(1_000);
        let mut image = image("x");
        let layers: Vec<_> = (0..100).map(|number| format!("layer {number}")).collect();
        for layer in &layers {
            let digest = digest_of(layer);
            registry.store.put(layout::content(&digest), layer.clone());
            registry.store.put(layout::blob_link(&name(), &digest), digest.to_string());
        }
        image["layers"] = layers.iter().map(|layer| descriptor("layer", layer)).collect();
        image["subject"] = descriptor(OCI_MANIFEST, "a subject");
        let (response, round_trips) = registry.send_manifest(Method::PUT, "t", &[], whole(&image));
        assert_eq!((response.status().as_u16(), round_trips), (201, 3));
        // A listing of links, the content of 101 references, the manifest's content, link, referrer, history, tag; and a look for
        // collections of garbage, which does for a while.
        assert_eq!(registry.store.calls().len(), 1 + 101 + 5 + 1);
        registry.settings.verify_image_references = false;
        let before = registry.store.calls().len();
        registry.put("u", &image);
        assert_eq!(registry.store.calls().len() - before, 5);
    }

    #[test]
    fn by_digest_the_content_must_match() {
        let registry = TestRegistry::with_blobs();
        let image = image("x");
        let sha512 = Digest::of(Algorithm::Sha512, image.to_string().as_bytes());
        for digest in [digest_of(&image.to_string()), sha512] {
            assert_eq!(registry.put(digest.as_str(), &image).status(), 201);
            assert_eq!(registry.get(digest.as_str()).status(), 200);
        }
        let refused = registry.put(digest_of("other").as_str(), &image);
        assert_eq!(error(&refused), (400, "DIGEST_INVALID".to_owned()));
    }

    #[test]
    fn by_digest_the_query_sets_tags() {
        let registry = TestRegistry::with_blobs();
        let image = image("x");
        let digest = digest_of(&image.to_string());
        let response = registry.put(&format!("{digest}?tag=a&x=y&tag=b&tag=a"), &image);
        assert_eq!(response.status(), 201);
        let tags: Vec<_> = response.headers().get_all(OCI_TAG).iter().collect();
        assert_eq!(tags, ["a", "b"]);
        for tag in ["a", "b"] {
            assert_eq!(registry.get(tag).status(), 200);
        }
        let refused = registry.put(&format!("{digest}?tag=..%2fx"), &image);
        assert_eq!(error(&refused), (400, "TAG_INVALID".to_owned()));
    }

    #[test]
    fn every_missing_reference_is_named() {
        let mut registry = TestRegistry::with_blobs();
        let mut missing = image("x");
        missing["layers"] =
            [descriptor("l", "one"), descriptor("l", "layer"), descriptor("l", "two")]
                .into_iter()
                .collect();
        let refused = registry.put("t", &missing);
        let unknown = "MANIFEST_BLOB_UNKNOWN".to_owned();
        assert_eq!(errors(&refused), (400, vec![unknown.clone(), unknown.clone()]));
        let body = String::from_utf8_lossy(refused.body());
        assert!(
            body.contains(digest_of("one").as_str()) && body.contains(digest_of("two").as_str())
        );
        assert_eq!(registry.get("t").status(), 404);

        // A link whose content was collected does not do.
        let gone = layout::content(&digest_of("layer"));
        registry.store.delete(&gone);
        assert_eq!(error(&registry.put("t", &image("x"))), (400, unknown.clone()));

        let index = json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [descriptor(OCI_MANIFEST, "child")],
        });
        assert_eq!(error(&registry.put("i", &index)), (400, unknown));
        registry.settings.verify_index_references = false;
        assert_eq!(registry.put("i", &index).status(), 201);
    }

    /// An image with so many layers, each the one of the number that `content` makes of its position.
    fn with_layers(count: usize, content: impl Fn(usize) -> usize) -> serde_json::Value {
        let mut manifest = image("x");
        let layer =
            |n| descriptor("application/vnd.oci.image.layer.v1.tar", &content(n).to_string());
        manifest["layers"] = (0..count).map(layer).collect();
        manifest
    }

    #[test]
    fn a_manifest_of_too_many_descriptors_costs_no_call() {
        let mut registry = TestRegistry::with_blobs();
        let invalid = (400, "MANIFEST_INVALID".to_owned());
        assert_eq!(error(&registry.put("t", &with_layers(10_000, |n| n))), invalid);
        registry.settings.limits.manifest_descriptors = 3;
        assert_eq!(error(&registry.put("t", &with_layers(3, |_| 0))), invalid, "each counts");
        let entry = descriptor(OCI_MANIFEST, "child");
        let manifests = [&entry, &entry, &entry, &entry];
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        assert_eq!(error(&registry.put("t", &index)), invalid);
        assert!(registry.store.calls().is_empty());
        assert_eq!(errors(&registry.put("t", &with_layers(2, |n| n))).0, 400);
        assert!(!registry.store.calls().is_empty(), "as many as it may have are looked up");
    }

    #[test]
    fn what_stands_many_times_is_looked_up_once_and_an_end_is_made_when_much_is_missing() {
        let registry = TestRegistry::with_blobs();
        let refused = registry.put("t", &with_layers(5_000, |n| n % 2));
        assert_eq!(errors(&refused).1.len(), 2);
        // The configuration and two layers, each by link and content, and the manifest itself.
        assert!(registry.store.calls().len() <= 7, "{:?}", registry.store.calls());

        let registry = TestRegistry::with_blobs();
        let refused = registry.put("t", &with_layers(9_000, |n| n));
        let (status, codes) = errors(&refused);
        assert_eq!((status, codes.len()), (400, MAX_MISSING + 1));
        let text = String::from_utf8_lossy(refused.body()).into_owned();
        assert!(text.contains("8900 more references"), "{}", &text[text.len() - 200..]);
        let calls = registry.store.calls().len();
        assert!(calls <= 2 * (PARALLEL_CALLS + MAX_MISSING) + 3, "{calls} calls");
    }

    #[test]
    fn the_links_of_many_layers_are_listed_and_those_of_few_are_read() {
        // The configuration is one more blob. Beside the layers: the markers, the manifest's content and link, the tag's history, the tag.
        for (layers, page_limit, calls, round_trips) in [
            (1, 1_000, 2 * 2 + 5, 3),
            (WORTH_A_LISTING - 2, 1_000, 2 * (WORTH_A_LISTING - 1) + 5, 3),
            (WORTH_A_LISTING - 1, 1_000, WORTH_A_LISTING + 1 + 5, 3),
            (200, 1_000, 201 + 1 + 5, 3),
            // More links than are on a page: those that are not are read.
            (200, 100, 201 + 1 + 102 + 5, 4),
        ] {
            let mut registry = TestRegistry::with_blobs();
            registry.store.page_limit = Some(page_limit);
            for number in 0..layers {
                let digest = digest_of(&number.to_string());
                registry.store.put(layout::content(&digest), number.to_string());
                registry.store.put(layout::blob_link(&name(), &digest), digest.to_string());
            }
            let manifest = with_layers(layers, |n| n);
            let (response, made) = registry.send_manifest(Method::PUT, "t", &[], whole(&manifest));
            assert_eq!(response.status(), 201, "{layers}");
            let found = registry.store.calls().len();
            // What else is in the repository may take a place on the page, or none.
            assert!(found <= calls && found + 2 >= calls, "{layers}: {found} calls, not {calls}");
            assert_eq!(made, round_trips, "{layers}");

            let lost = digest_of("0");
            registry.store.delete(&layout::blob_link(&name(), &lost));
            let refused = registry.put("t", &manifest);
            assert_eq!(error(&refused), (400, "MANIFEST_BLOB_UNKNOWN".to_owned()), "{layers}");
            registry.store.put(layout::blob_link(&name(), &lost), lost.to_string());
            registry.store.delete(&layout::content(&lost));
            let refused = registry.put("t", &manifest);
            assert_eq!(error(&refused), (400, "MANIFEST_BLOB_UNKNOWN".to_owned()), "{layers}");
        }
    }

    #[test]
    fn a_put_that_is_refused_leaves_nothing_behind() {
        let registry = TestRegistry::with_blobs();
        let before = registry.store.objects();
        let mut missing = image("x");
        missing["layers"] = [descriptor("l", "missing")].into_iter().collect();
        missing["subject"] = descriptor(OCI_MANIFEST, "a subject");
        assert_eq!(registry.put("t", &missing).status(), 400);
        let condition = [(IF_MATCH, "*")];
        let (refused, _) = registry.send_manifest(Method::PUT, "t", &condition, whole(&image("x")));
        assert_eq!(refused.status(), 412);
        let mut after = registry.store.objects();
        after.remove(&layout::condition_probe());
        assert_eq!(after, before);
    }

    /// BuildKit's cache is such an index: its layers, and a configuration of a type of its own.
    #[test]
    fn what_an_index_lists_may_be_a_manifest_or_a_blob() {
        let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let index = |entries: &[serde_json::Value]| json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
        let image = image("x");
        let as_image = |content: &str| descriptor(OCI_MANIFEST, content);
        let as_blob = |content: &str| descriptor(layer_type, content);
        let mut untyped = as_image(&image.to_string());
        untyped.as_object_mut().expect("an object").remove("mediaType");
        let cache_config = descriptor("application/vnd.buildkit.cacheconfig.v0", "config");
        for (entries, status, round_trips) in [
            (vec![as_image(&image.to_string())], 201, 3),
            (vec![untyped], 201, 3),
            (vec![as_blob("layer"), cache_config], 201, 3),
            // Each is looked for where its type does not suggest it only when it is missing there.
            (vec![as_blob(&image.to_string())], 201, 4),
            (vec![as_image("layer")], 201, 4),
            (vec![as_blob("layer"), as_blob("missing")], 400, 2),
            (vec![as_image("missing")], 400, 2),
        ] {
            let registry = TestRegistry::with_blobs();
            registry.put("image", &image);
            let index = index(&entries);
            let (response, round_trips_made) =
                registry.send_manifest(Method::PUT, "t", &[], whole(&index));
            assert_eq!(
                (response.status().as_u16(), round_trips_made),
                (status, round_trips),
                "{index}"
            );
            if status == 201 {
                assert_eq!(registry.get("t").body(), index.to_string().as_bytes());
                // One that takes no index gets no blob for an image.
                let docker = "application/vnd.docker.distribution.manifest.v2+json";
                let headers = [(http::header::ACCEPT, docker)];
                let (old, _) = registry.send_manifest(Method::GET, "t", &headers, Body::None);
                assert_eq!(error(&old), (404, "MANIFEST_UNKNOWN".to_owned()));
            }
        }
        // In an image, a layer is a blob.
        let registry = TestRegistry::with_blobs();
        registry.put("image", &image);
        let mut other = image.clone();
        other["layers"] = [as_blob(&image.to_string())].into_iter().collect();
        assert_eq!(error(&registry.put("t", &other)), (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    }

    #[test]
    fn a_subject_gets_the_manifest_as_its_referrer() {
        let registry = TestRegistry::with_blobs();
        let mut about = image("x");
        about["subject"] = descriptor(OCI_MANIFEST, "a subject that is not there");
        about["artifactType"] = "application/vnd.example".into();
        let response = registry.put("t", &about);
        let subject = digest_of("a subject that is not there");
        assert_eq!(response.headers()[OCI_SUBJECT], subject.as_str());
        let digest = digest_of(&about.to_string());
        let entry = &registry.store.objects()[&layout::referrer(&name(), &subject, &digest)];
        let entry: serde_json::Value = serde_json::from_slice(entry).expect("JSON");
        let expected = json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest.as_str(),
            "size": about.to_string().len(),
            "artifactType": "application/vnd.example",
            "annotations": { "note": "x" },
        });
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_body_that_is_no_manifest_is_refused() {
        let registry = TestRegistry::with_blobs();
        for (body, expected) in [
            (Body::None, (400, "MANIFEST_INVALID")),
            (Body::Whole("{".into()), (400, "MANIFEST_INVALID")),
            (Body::TooLarge, (413, "MANIFEST_INVALID")),
            (Body::Short, (400, "SIZE_INVALID")),
        ] {
            let (response, round_trips) = registry.send_manifest(Method::PUT, "t", &[], body);
            assert_eq!((error(&response), round_trips), ((expected.0, expected.1.to_owned()), 0));
        }
        let mut wrong = image("x");
        wrong["layers"][0]["digest"] = "x".into();
        let refused = registry.put("t", &wrong);
        let body: serde_json::Value = serde_json::from_slice(refused.body()).expect("JSON");
        assert_eq!(body["errors"][0]["detail"]["field"], "layers[0].digest");
    }

    #[test]
    fn a_condition_is_held_to() {
        let registry = TestRegistry::with_blobs();
        let failed = (412, "PRECONDITION_FAILED".to_owned());
        let put = |note: &str, header: HeaderName, value: &str| {
            registry.send_manifest(Method::PUT, "t", &[(header, value)], whole(&image(note))).0
        };
        let tag_of = |note: &str| format!("\"{}\"", digest_of(&image(note).to_string()));
        assert_eq!(error(&put("a", IF_MATCH, &tag_of("a"))), failed);
        assert_eq!(put("a", IF_NONE_MATCH, "*").status(), 201);
        assert_eq!(error(&put("b", IF_NONE_MATCH, "*")), failed);
        assert_eq!(error(&put("b", IF_MATCH, &tag_of("b"))), failed);
        assert_eq!(put("b", IF_MATCH, &tag_of("a")).status(), 201);
        assert_eq!(put("c", IF_MATCH, "*").status(), 201);
        assert_eq!(registry.get("t").body(), image("c").to_string().as_bytes());

        let unsupported = (501, "UNSUPPORTED".to_owned());
        assert_eq!(error(&put("c", IF_NONE_MATCH, &tag_of("c"))), unsupported);
        let digest = digest_of(&image("c").to_string());
        let condition = [(IF_NONE_MATCH, "*")];
        let by_digest =
            registry.send_manifest(Method::PUT, digest.as_str(), &condition, whole(&image("c"))).0;
        assert_eq!(error(&by_digest), unsupported);
    }

    #[test]
    fn a_store_that_ignores_conditions_is_found_out() {
        let mut registry = TestRegistry::with_blobs();
        registry.store.ignores_conditions = true;
        for _ in 0..2 {
            let condition = [(IF_NONE_MATCH, "*")];
            let (response, _) =
                registry.send_manifest(Method::PUT, "t", &condition, whole(&image("x")));
            assert_eq!(error(&response), (501, "UNSUPPORTED".to_owned()));
            assert!(String::from_utf8_lossy(response.body()).contains("ignores the conditions"));
            assert_eq!(registry.get("t").status(), 404);
        }
        assert_eq!(registry.put("t", &image("x")).status(), 201);
    }

    #[test]
    fn a_registry_that_may_not_be_changed_says_so() {
        let mut registry = TestRegistry::with_blobs();
        registry.settings.read_only = true;
        let refused = registry.put("t", &image("x"));
        assert_eq!(error(&refused), (405, "UNSUPPORTED".to_owned()));
        assert_eq!(refused.headers()["allow"], "GET, HEAD");
    }
}
