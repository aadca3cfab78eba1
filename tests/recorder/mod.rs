//! A store that remembers what it is asked for, and a registry before it: what tests share that look at what reaches the
//! store.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use futures::FutureExt;
use http::StatusCode;
use moorage::config::Config;
use moorage::oci::{Digest, Hasher};
use moorage::registry::{Answer, Hashing, Request, RequestBody, Settings, handle, handle_streamed};
use moorage::store::{
    Bucket, Http, HttpError, HttpRequest, HttpResponse, Repeat, StreamedWrite, WriteAnswer,
    WriteTarget,
};

/// What every object has.
pub const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What is listed: the entries of the XML document, by the parameters of the query.
pub type Listing = Box<dyn Fn(&Parameters<'_>) -> String>;

/// The parameters of a listing's query.
pub type Parameters<'a> = HashMap<Cow<'a, str>, Cow<'a, str>>;

/// A store that has whatever it is asked for and remembers what that was.
pub struct Recorder {
    paths: RefCell<Vec<String>>,
    listing: Listing,
}

impl Http for Recorder {
    async fn send(&self, request: &HttpRequest, _: Repeat) -> Result<HttpResponse, HttpError> {
        self.paths.borrow_mut().push(request.path.clone());
        let body = match request.path.strip_prefix("/bucket/?") {
            Some(query) => {
                let entries = (self.listing)(&form_urlencoded::parse(query.as_bytes()).collect());
                format!("<ListBucketResult>{entries}</ListBucketResult>").into()
            }
            None => Bytes::from_static(DIGEST.as_bytes()),
        };
        Ok(HttpResponse { status: StatusCode::OK, version: None, body })
    }
}

/// A body that goes wherever it is sent, and remembers where that was.
#[derive(Default)]
struct RecordedBody {
    writes: RefCell<Vec<StreamedWrite>>,
}

impl RequestBody for RecordedBody {
    fn is_empty(&self) -> bool {
        false
    }

    fn announced(&self) -> Option<u64> {
        None
    }

    fn forward(&self, target: WriteTarget, sha256: Option<Digest>, _: Hashing) {
        self.writes.borrow_mut().push(StreamedWrite { target, length: None, sha256 });
    }

    fn hash_with(&self, _: Option<Hasher>) {}

    async fn arrived(&self) -> Result<u64, WriteAnswer> {
        Ok(1)
    }

    fn take_hasher(&self) -> Option<Hasher> {
        None
    }

    async fn complete(&self) -> WriteAnswer {
        WriteAnswer { status: StatusCode::OK, document: Bytes::new() }
    }
}

/// A registry before such a store.
pub struct Registry {
    bucket: Bucket<Recorder>,
    pub settings: Settings,
}

impl Registry {
    /// A registry whose bucket is `bucket`, and its prefix `pre/fix`, with further fields of the configuration.
    pub fn new(fields: &str, listing: Listing) -> Self {
        let store =
            r#""store":{"cluster":"c","authority":"s3","bucket":"bucket","prefix":"pre/fix"}"#;
        let json = format!("{{{fields}{store}}}");
        let config = Config::parse(json.as_bytes()).expect("a valid configuration");
        let budget = Rc::new(config.limits.budget());
        let options = config.store.bucket_options(config.manifest_max_bytes);
        let recorder = Recorder { paths: RefCell::default(), listing };
        let bucket = Bucket::new(recorder, &options, budget);
        Self { bucket, settings: config.settings() }
    }

    /// Answers a request, and gives the paths that the store was asked for.
    pub fn ask(&self, request: &Request) -> (Answer, Vec<String>) {
        let answer = run(handle(request, &self.bucket, &self.settings));
        let paths = self.take_paths(&answer, &[]);
        (answer, paths)
    }

    /// The same for a request whose body is streamed, with where it is streamed to.
    pub fn ask_with_stream(&self, request: &Request) -> (Answer, Vec<String>) {
        let body = RecordedBody::default();
        let answer = run(handle_streamed(request, &body, &self.bucket, &self.settings));
        let paths = self.take_paths(&answer, &body.writes.take());
        (answer, paths)
    }

    fn take_paths(&self, answer: &Answer, writes: &[StreamedWrite]) -> Vec<String> {
        let mut paths = self.bucket.http().paths.take();
        paths.extend(writes.iter().map(|write| self.bucket.write_request(write).path));
        if let Answer::Stream(stream) = answer {
            paths.push(self.bucket.stream_request(&stream.read).path);
        }
        paths
    }
}

/// Runs a future that never waits.
fn run<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the recorder answers at once")
}
