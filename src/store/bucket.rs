//! The objects of an S3-compatible bucket.

use std::cell::Cell;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::bucket_options::BucketOptions;
use super::budget::{self, Budget};
use super::compose::{ChecksumTrial, Compositions, PARALLEL_JOINS};
use super::condemned::CondemnedView;
use super::fault::{Fault, StoreError, StoreErrorKind};
use super::health::HealthView;
use super::layout::{self, Key};
use super::multi_delete::MultiDelete;
use super::objects::{
    Condition, Content, Cursor, Head, ListRequest, Listed, Object, Objects, Page, Removal, Start,
    Version,
};
use super::permits::Permits;
use super::rehash::Rehashes;
use super::s3;
use super::streaming::{BlobStream, StreamedWrite, WriteTarget};
use super::transport::{Http, HttpError, HttpRequest, HttpResponse, Repeat, Timeout};
use crate::oci::{ByteRange, Digest};

/// The characters that S3 encodes in the values of a query: all but unreserved characters.
pub(super) const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How much of some content is read at first, in bytes. Most manifests are smaller, and one call has all
/// of them.
const FIRST_READ: u64 = 32 * 1024;
/// How many times as much is read of it by each further call. Nobody knows how much there is, so memory
/// for each is reserved before.
const READ_GROWTH: u64 = 16;
/// The size of one entry of a listing in the store's answer, in bytes, at most about.
pub(super) const LISTED_ENTRY: usize = 512;
/// A bucket that is reached over `H`.
#[derive(Debug)]
pub struct Bucket<H> {
    http: H,
    pub(super) budget: Rc<Budget>,
    permits: Permits,
    pub(super) joins: Permits,
    authority: String,
    name: String,
    /// The path of the bucket itself, with a slash at its end.
    root: String,
    /// The prefix of all keys within the bucket.
    prefix: String,
    content_limit: u64,
    heeds_conditions: Cell<Option<bool>>,
    heeds_conditional_removal: Cell<Option<bool>>,
    multi_delete: MultiDelete,
    condemned: CondemnedView,
    health: HealthView,
    pub(super) checksum_trial: ChecksumTrial,
    pub(super) rehashes: Rehashes,
    pub(super) compositions: Compositions,
}

impl<H: Http> Bucket<H> {
    /// The bucket that `options` describe; `budget` is what there is of memory for what is read.
    pub fn new(http: H, options: &BucketOptions, budget: Rc<Budget>) -> Self {
        Self {
            http,
            budget,
            permits: Permits::for_calls(),
            joins: Permits::new(PARALLEL_JOINS),
            authority: options.request_authority(),
            name: options.bucket.clone(),
            root: options.bucket_path(),
            prefix: options.key_prefix(),
            content_limit: options.content_limit,
            heeds_conditions: Cell::new(None),
            heeds_conditional_removal: Cell::new(None),
            multi_delete: MultiDelete::default(),
            condemned: CondemnedView::default(),
            health: HealthView::default(),
            checksum_trial: ChecksumTrial::default(),
            rehashes: Rehashes::default(),
            compositions: Compositions::default(),
        }
    }

    /// The transport to the bucket.
    pub fn http(&self) -> &H {
        &self.http
    }

    /// The request with which the proxy streams a blob from the store.
    pub fn stream_request(&self, stream: &BlobStream) -> HttpRequest {
        let mut request = self.request(stream.method.clone(), &layout::content(&stream.content));
        request.headers.extend(stream.range.map(|range| ("range", range.to_string())));
        request
    }

    /// The request with which the proxy streams a client's body to the store.
    pub fn write_request(&self, write: &StreamedWrite) -> HttpRequest {
        let key = match &write.target {
            WriteTarget::Content(digest) => layout::content(digest),
            WriteTarget::Chunk(session, id) => layout::upload_chunk(&session.name, &session.id, id),
        };
        let mut request = self.request(Method::PUT, &key);
        let length = write.length.map(|length| ("content-length", length.to_string()));
        request.headers.extend(length);
        request.headers.extend(write.sha256.as_ref().map(checksum));
        request
    }

    /// How a request names an object that it copies.
    pub(super) fn copy_source(&self, key: &Key) -> (&'static str, String) {
        ("x-amz-copy-source", format!("/{}/{}{}", self.name, self.prefix, key.as_str()))
    }

    /// The prefix of all keys within the bucket.
    pub(super) fn key_prefix(&self) -> &str {
        &self.prefix
    }

    /// The path of the bucket itself, with a slash at its end.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    pub(super) fn request(&self, method: Method, key: &Key) -> HttpRequest {
        HttpRequest {
            method,
            authority: self.authority.clone(),
            path: format!("{}{}{}", self.root, self.prefix, key.as_str()),
            headers: Vec::new(),
            body: Bytes::new(),
            wants_version: false,
            timeout: Timeout::Ordinary,
        }
    }

    /// Sends a request that may be repeated: what a distributed store gets wrong once is mostly right
    /// the second time, and at another node. The proxy repeats it, after a pause, when the connection
    /// fails or the store errs, all within the time of one call. What it can't repeat is a request whose
    /// answer has begun and breaks off, so that is sent once more from here. A request that timed out is
    /// not repeated, since the client has waited long enough.
    pub(super) async fn send(&self, request: &HttpRequest) -> Result<HttpResponse, StoreError> {
        let result = match self.http.send(request, Repeat::WhenItFails).await {
            Err(HttpError::Connection) => self.http.send(request, Repeat::WhenItFails).await,
            result => result,
        };
        unreachable(request, result)
    }

    pub(super) async fn send_once(
        &self,
        request: &HttpRequest,
    ) -> Result<HttpResponse, StoreError> {
        unreachable(request, self.http.send(request, Repeat::Never).await)
    }

    /// Reads content from one byte to another, both included.
    pub(super) async fn read_range(
        &self,
        key: &Key,
        first: u64,
        last: u64,
    ) -> Result<Read, StoreError> {
        let mut request = self.request(Method::GET, key);
        let range = ByteRange::From(first, Some(last));
        request.headers.push(("range", range.to_string()));
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::PARTIAL_CONTENT => Ok(Read::Part(response.body)),
            // A store need not heed a range.
            StatusCode::OK => Ok(Read::Whole(response.body)),
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Read::Nothing),
            _ => absent_or_fault(&request, &response).map(|()| Read::Absent),
        }
    }

    fn list_query(&self, list: ListRequest<'_>) -> String {
        let prefix = format!("{}{}", self.prefix, list.prefix.as_str());
        // In the order of their names, as signing wants them.
        let mut parameters = Vec::new();
        if let Start::At(cursor) = list.start {
            parameters.push(("continuation-token", cursor.0.clone()));
        }
        if list.listed == Listed::Folders {
            parameters.push(("delimiter", "/".to_owned()));
        }
        parameters.push(("list-type", "2".to_owned()));
        parameters.push(("max-keys", list.limit.to_string()));
        parameters.push(("prefix", prefix.clone()));
        if let Start::After(text) = list.start {
            parameters.push(("start-after", format!("{prefix}{text}")));
        }
        let parameters = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY)));
        parameters.collect::<Vec<_>>().join("&")
    }

    async fn get(&self, request: &HttpRequest) -> Result<Option<HttpResponse>, StoreError> {
        let response = self.send(request).await?;
        match response.status {
            StatusCode::OK => Ok(Some(response)),
            _ => absent_or_fault(request, &response).map(|()| None),
        }
    }
}

impl<H: Http> Objects for Bucket<H> {
    fn content_limit(&self) -> u64 {
        self.content_limit
    }

    fn budget(&self) -> &Budget {
        &self.budget
    }

    fn permits(&self) -> &Permits {
        &self.permits
    }

    fn heeds_conditions(&self) -> &Cell<Option<bool>> {
        &self.heeds_conditions
    }

    fn heeds_conditional_removal(&self) -> &Cell<Option<bool>> {
        &self.heeds_conditional_removal
    }

    fn multi_delete(&self) -> &MultiDelete {
        &self.multi_delete
    }

    fn condemned_view(&self) -> &CondemnedView {
        &self.condemned
    }

    fn health_view(&self) -> &HealthView {
        &self.health
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let response = self.get(&self.request(Method::GET, key)).await?;
        Ok(response.map(|response| response.body))
    }

    async fn read_version(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let mut request = self.request(Method::GET, key);
        request.wants_version = true;
        let Some(response) = self.get(&request).await? else {
            return Ok(None);
        };
        match response.version {
            Some(version) => Ok(Some(Object { bytes: response.body, version: Version(version) })),
            None => Err(fault(&request, StoreErrorKind::Failed, "the blob store sent no ETag")),
        }
    }

    async fn read_head(&self, key: &Key, limit: u64) -> Result<Option<Head>, StoreError> {
        let reservation = self.budget.reserve_read(usize::try_from(limit).unwrap_or(usize::MAX))?;
        let (bytes, is_whole) = match self.read_range(key, 0, limit.saturating_sub(1)).await? {
            Read::Absent => return Ok(None),
            Read::Whole(bytes) => (bytes, true),
            Read::Part(bytes) => {
                let is_whole = (bytes.len() as u64) < limit;
                (bytes, is_whole)
            }
            // An empty object has no first byte.
            Read::Nothing => (Bytes::new(), true),
        };
        Ok(Some(Head { bytes: reservation.hold(bytes), is_whole }))
    }

    async fn read_content(&self, key: &Key) -> Result<Content, StoreError> {
        // Any blob can be asked for as if it were a manifest, a huge layer too. So no more is read
        // than a manifest may have, and one byte to tell that there is more.
        let end = self.content_limit.saturating_add(1);
        let mut reservation = self.budget.reserve_read(0)?;
        let mut content = Bytes::new();
        let mut size = FIRST_READ.min(end);
        loop {
            let start = content.len() as u64;
            let room = usize::try_from(size - start).unwrap_or(usize::MAX);
            if !reservation.grow(room) {
                return Err(budget::no_room_for_reads());
            }
            match self.read_range(key, start, size - 1).await? {
                Read::Absent => return Ok(Content::Absent),
                Read::Whole(bytes) => {
                    content = bytes;
                    break;
                }
                Read::Part(bytes) if content.is_empty() => content = bytes,
                Read::Part(bytes) => content = [content, bytes].concat().into(),
                Read::Nothing => break,
            }
            if (content.len() as u64) < size || size >= end {
                break;
            }
            size = size.saturating_mul(READ_GROWTH).min(end);
        }
        let limit = self.content_limit;
        let is_too_large = content.len() as u64 > limit;
        Ok(match is_too_large {
            true => Content::TooLarge { limit },
            false => Content::Whole(reservation.hold(content)),
        })
    }

    async fn exists(&self, key: &Key) -> Result<bool, StoreError> {
        let request = self.request(Method::HEAD, key);
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::OK => Ok(true),
            // The answer to a HEAD has no body that could say what is missing. Whoever asks reads a
            // link beside it, and learns from that if it is the bucket.
            StatusCode::NOT_FOUND => Ok(false),
            _ => absent_or_fault(&request, &response).map(|()| false),
        }
    }

    async fn write(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        let mut request = self.request(Method::PUT, key);
        request.body = bytes;
        let response = self.send(&request).await?;
        if response.status == StatusCode::OK { Ok(()) } else { refused(&request, &response) }
    }

    async fn write_if(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<bool, StoreError> {
        let mut request = self.request(Method::PUT, key);
        request.body = bytes;
        request.headers.push(match condition {
            Condition::Absent => ("if-none-match", "*".to_owned()),
            Condition::Unchanged(version) => ("if-match", version.0.clone()),
        });
        // Never repeated: were the first one done after all, the second would be refused because of it.
        let response = self.send_once(&request).await?;
        match response.status {
            StatusCode::OK => Ok(true),
            // 409 is S3's word for "someone else is writing right now", and 404 for a version of an
            // object that is gone.
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => Ok(false),
            StatusCode::NOT_FOUND if *condition != Condition::Absent => {
                absent_or_fault(&request, &response).map(|()| false)
            }
            _ => refused(&request, &response).map(|()| false),
        }
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let request = self.request(Method::DELETE, key);
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            _ => absent_or_fault(&request, &response),
        }
    }

    async fn remove_if(&self, key: &Key, version: &Version) -> Result<Removal, StoreError> {
        let mut request = self.request(Method::DELETE, key);
        request.headers.push(("if-match", version.0.clone()));
        // Never repeated: were the first one done after all, the second would find nothing, and nobody
        // would know who removed it.
        let response = self.send_once(&request).await?;
        match response.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(Removal::Removed),
            // 409 is S3's word for "someone else is writing right now".
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => Ok(Removal::Changed),
            _ => absent_or_fault(&request, &response).map(|()| Removal::Absent),
        }
    }

    async fn remove_many(
        &self,
        removals: &[(Key, Option<Version>)],
    ) -> Result<Option<Vec<Option<Removal>>>, StoreError> {
        self.delete_objects(removals).await
    }

    async fn list(&self, list: ListRequest<'_>) -> Result<Page, StoreError> {
        let mut request = self.request(Method::GET, list.prefix);
        request.path = format!("{}?{}", self.root, self.list_query(list));
        let _permit = self.permits.take().await;
        let _room = self.budget.reserve_read(list.limit.saturating_mul(LISTED_ENTRY))?;
        let response = self.send(&request).await?;
        if response.status != StatusCode::OK {
            return Err(match Fault::of(response.status, &response.body) {
                Fault::NoSuchKey => {
                    fault(&request, StoreErrorKind::Failed, "the bucket can't be listed")
                }
                Fault::Other(error) => logged(&request, error),
            });
        }
        let nonsense =
            || fault(&request, StoreErrorKind::Failed, "the blob store's answer is no listing");
        let listing = s3::parse_listing(&response.body).ok_or_else(nonsense)?;
        if let (Start::At(cursor), Some(next)) = (list.start, &listing.next)
            && cursor.0 == *next
        {
            return Err(fault(
                &request,
                StoreErrorKind::Failed,
                "the blob store's listing is endless",
            ));
        }
        let mut page = Page { next: listing.next.map(Cursor), ..Page::default() };
        for entry in listing.entries {
            let key = entry.key.strip_prefix(&self.prefix).and_then(Key::listed);
            if let Some(key) = key {
                page.keys.push(key);
                page.modified.push(entry.modified);
                page.sizes.push(entry.size);
                page.versions.push(Version(entry.etag));
            }
        }
        Ok(page)
    }
}

/// The result of reading a range of some content.
pub(super) enum Read {
    /// There is no such content.
    Absent,
    /// All of the content.
    Whole(Bytes),
    /// The bytes of the range, as far as there are any.
    Part(Bytes),
    /// The content ends before the range.
    Nothing,
}

/// The header by which the store verifies what it is sent.
pub(super) fn checksum(sha256: &Digest) -> (&'static str, String) {
    ("x-amz-checksum-sha256", STANDARD.encode(sha256.hash()))
}

/// Turns "no answer" into a fault.
fn unreachable(
    request: &HttpRequest,
    result: Result<HttpResponse, HttpError>,
) -> Result<HttpResponse, StoreError> {
    result.map_err(|error| {
        let kind = match error {
            HttpError::Connection | HttpError::NoSuchCluster | HttpError::Unreachable(_) => {
                StoreErrorKind::Unavailable
            }
            HttpError::Nonsense => StoreErrorKind::Failed,
        };
        fault(request, kind, &format!("the blob store can't be reached: {error}"))
    })
}

/// Tells "there is no such object", which is no error, from a fault.
pub(super) fn absent_or_fault(
    request: &HttpRequest,
    response: &HttpResponse,
) -> Result<(), StoreError> {
    match Fault::of(response.status, &response.body) {
        Fault::NoSuchKey => Ok(()),
        Fault::Other(error) => Err(logged(request, error)),
    }
}

/// A write that was not done is a fault, whatever the reason.
pub(super) fn refused(request: &HttpRequest, response: &HttpResponse) -> Result<(), StoreError> {
    absent_or_fault(request, response)?;
    Err(fault(request, StoreErrorKind::Failed, "the blob store answered a write with NoSuchKey"))
}

pub(super) fn fault(request: &HttpRequest, kind: StoreErrorKind, message: &str) -> StoreError {
    logged(request, StoreError::new(kind, message))
}

/// Clients are not told which object it was; the log is.
fn logged(request: &HttpRequest, error: StoreError) -> StoreError {
    log::error!("{} {}: {error}", request.method, request.path);
    error
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::Algorithm;
    use crate::store::memory::run;
    use crate::store::{Addressing, Purpose};

    const LIMIT: u64 = 4 * 1024 * 1024;
    const MEMORY: usize = 8 * 1024 * 1024;

    /// A store with one object, which serves ranges or ignores them.
    struct OneObject {
        content: Vec<u8>,
        heeds_ranges: bool,
        calls: RefCell<usize>,
    }

    impl Http for OneObject {
        async fn send(&self, request: &HttpRequest, _: Repeat) -> Result<HttpResponse, HttpError> {
            *self.calls.borrow_mut() += 1;
            let answer = |status, body: &[u8]| {
                Ok(HttpResponse { status, version: None, body: Bytes::copy_from_slice(body) })
            };
            let range = request.headers.iter().find(|(name, _)| *name == "range");
            let (_, range) = range.expect("content is read by ranges");
            let (first, last) =
                range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).expect("a range");
            let first: usize = first.parse().expect("a number");
            let last: usize = last.parse().expect("a number");
            if !self.heeds_ranges {
                return answer(StatusCode::OK, &self.content);
            }
            if first >= self.content.len() {
                return answer(StatusCode::RANGE_NOT_SATISFIABLE, b"");
            }
            let end = self.content.len().min(last + 1);
            answer(StatusCode::PARTIAL_CONTENT, &self.content[first..end])
        }
    }

    fn options(content_limit: u64) -> BucketOptions {
        BucketOptions {
            authority: "a".to_owned(),
            bucket: "b".to_owned(),
            addressing: Addressing::Path,
            prefix: String::new(),
            content_limit,
        }
    }

    fn bucket(size: usize, heeds_ranges: bool, memory: usize) -> Bucket<OneObject> {
        let content = (0..size).map(|position| (position / 1000) as u8).collect();
        let store = OneObject { content, heeds_ranges, calls: RefCell::new(0) };
        Bucket::new(store, &options(LIMIT), Rc::new(Budget::new(memory * 4)))
    }

    fn read(bucket: &Bucket<OneObject>) -> Result<Content, StoreError> {
        let key = layout::content(&Digest::of(Algorithm::Sha256, b""));
        run(bucket.read_content(&key)).0
    }

    #[test]
    fn content_of_any_size_is_read_whole_and_most_by_one_call() {
        let first = FIRST_READ as usize;
        let second = first * READ_GROWTH as usize;
        let limit = LIMIT as usize;
        for (size, calls) in [
            (0, 1),
            (1, 1),
            (first - 1, 1),
            (first, 2),
            (first + 1, 2),
            (second - 1, 2),
            (second + 1, 3),
            (limit, 3),
        ] {
            for heeds_ranges in [true, false] {
                let bucket = bucket(size, heeds_ranges, MEMORY);
                let content = read(&bucket).expect("no fault");
                let whole = Content::Whole(bucket.http.content.clone().into());
                assert_eq!(content, whole, "{size} bytes");
                let made = *bucket.http.calls.borrow();
                assert_eq!(made, if heeds_ranges { calls } else { 1 }, "{size} bytes");
                let held = bucket.budget.held(Purpose::Reads);
                let counted = if size > crate::store::UNCOUNTED { size } else { 0 };
                assert_eq!(held, counted, "{size} bytes");
                drop(content);
                assert_eq!(bucket.budget.held(Purpose::Reads), 0, "{size} bytes");
            }
        }
    }

    #[test]
    fn no_more_is_read_than_the_limit_and_one_byte() {
        for size in [LIMIT as usize + 1, 2 * LIMIT as usize] {
            let bucket = bucket(size, true, MEMORY);
            assert_eq!(read(&bucket), Ok(Content::TooLarge { limit: LIMIT }));
            assert_eq!(bucket.budget.held(Purpose::Reads), 0);
        }
    }

    #[test]
    fn what_there_is_no_memory_for_is_not_read() {
        let bucket = bucket(1_000_000, true, 100_000);
        let refused = read(&bucket).expect_err("there is no memory for it");
        assert_eq!(refused.kind(), StoreErrorKind::Busy);
        assert_eq!((*bucket.http.calls.borrow(), bucket.budget.held(Purpose::Reads)), (1, 0));
    }

    /// A store that always gives the same answer, and counts how often.
    struct Always(HttpResponse, Cell<usize>);

    impl Http for Always {
        async fn send(&self, request: &HttpRequest, _: Repeat) -> Result<HttpResponse, HttpError> {
            assert_eq!(request.method, Method::DELETE);
            assert_eq!(request.headers, [("if-match", "\"version\"".to_owned())]);
            self.1.set(self.1.get() + 1);
            Ok(self.0.clone())
        }
    }

    #[test]
    fn a_conditional_removal_is_tried_once_and_only_clear_answers_count() {
        let document = |code: &str| format!("<Error><Code>{code}</Code></Error>");
        for (status, body, expected) in [
            (204, String::new(), Some(Removal::Removed)),
            (200, String::new(), Some(Removal::Removed)),
            (412, document("PreconditionFailed"), Some(Removal::Changed)),
            (409, document("ConditionalRequestConflict"), Some(Removal::Changed)),
            (404, document("NoSuchKey"), Some(Removal::Absent)),
            (404, document("NoSuchBucket"), None),
            (403, document("AccessDenied"), None),
            (501, document("NotImplemented"), None),
            (503, document("SlowDown"), None),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let response = HttpResponse { status, version: None, body: body.into() };
            let always = Always(response, Cell::new(0));
            let bucket = Bucket::new(always, &options(1), Rc::default());
            let version = Version("\"version\"".to_owned());
            let found = run(bucket.remove_if(&layout::removal_probe(), &version)).0;
            assert_eq!(found.ok(), expected, "{status}");
            assert_eq!(bucket.http().1.get(), 1, "{status}");
        }
    }
}
