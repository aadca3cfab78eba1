//! Answers one request from the cache, again and again, for a profiler to look at: all that Moorage
//! does for it but the filter's own part, natively.
//!
//! `hot-path KIND COUNT`, where KIND is a key of [`KINDS`].

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use http::{Method, StatusCode};
use moorage::config::Config;
use moorage::oci::{Algorithm, Digest};
use moorage::registry::{Answer, Environment, Nonce, Request, Settings, handle};
use moorage::store::{
    Bucket, CacheEnvironment, Cached, Http, HttpError, HttpRequest, HttpResponse, Repeat, layout,
};

const CONFIG: &[u8] = br#"{
    "store": { "cluster": "c", "authority": "s3", "bucket": "registry" },
    "cache": { "tag_ttl": "5s" }
}"#;
const NAME: &str = "library/profile";
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYERS: usize = 5;

/// What may be asked for, and the status of the answer.
const KINDS: [(&str, StatusCode); 3] = [
    ("by-digest", StatusCode::OK),
    ("by-tag", StatusCode::OK),
    ("304-by-digest", StatusCode::NOT_MODIFIED),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().and_then(|name| KINDS.into_iter().find(|kind| kind.0 == name));
    let count: Option<u32> = arguments.next().and_then(|text| text.parse().ok());
    let (Some((kind, status)), Some(count)) = (kind, count) else {
        let kinds = KINDS.map(|kind| kind.0).join("|");
        eprintln!("usage: hot-path {kinds} COUNT");
        return ExitCode::from(2);
    };
    let manifest = manifest();
    let digest = Digest::of(Algorithm::Sha256, &manifest);
    let request = request(kind, &digest);
    let (cache, settings) = cache(manifest, digest);
    for _ in 0..count {
        let answer = run(handle(black_box(&request), &cache, &settings));
        assert!(matches!(black_box(answer), Answer::Reply(reply) if reply.status() == status));
    }
    ExitCode::SUCCESS
}

fn manifest() -> Bytes {
    let descriptor = |media_type: &str, number: usize| {
        let digest = Digest::of(Algorithm::Sha256, &number.to_be_bytes());
        serde_json::json!({ "mediaType": media_type, "digest": digest.as_str(), "size": 1 })
    };
    let layer = |number| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", number);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", 0),
        "layers": (1..=LAYERS).map(layer).collect::<Vec<_>>(),
    });
    manifest.to_string().into()
}

fn request(kind: &str, digest: &Digest) -> Request {
    let mut headers = vec![("accept", MEDIA_TYPE.to_owned())];
    if kind.starts_with("304") {
        headers.push(("if-none-match", format!("\"{digest}\"")));
    }
    let reference = if kind == "by-tag" { "latest" } else { digest.as_str() };
    let target = format!("/v2/{NAME}/manifests/{reference}");
    Request::new(Method::GET, target, headers[..].into(), Rc::new(StandStill::default()))
}

fn cache(manifest: Bytes, digest: Digest) -> (Cached<Bucket<OneManifest>, StandStill>, Settings) {
    let config = Config::parse(CONFIG).expect("a valid configuration");
    let store = OneManifest { content_path: layout::content(&digest), manifest, digest };
    let budget = Rc::new(config.limits.budget());
    let options = config.store.bucket_options(config.manifest_max_bytes);
    let bucket = Bucket::new(store, &options, budget);
    (Cached::new(bucket, StandStill::default(), config.cache.settings(), 1), config.settings())
}

/// A store with one manifest: what is not its content is a link to it.
struct OneManifest {
    content_path: layout::Key,
    manifest: Bytes,
    digest: Digest,
}

impl Http for OneManifest {
    async fn send(&self, request: &HttpRequest, _: Repeat) -> Result<HttpResponse, HttpError> {
        let body = match request.path.ends_with(self.content_path.as_str()) {
            true => self.manifest.clone(),
            false => self.digest.to_string().into(),
        };
        Ok(HttpResponse { status: StatusCode::OK, version: None, body })
    }
}

/// A proxy in which no time passes and nobody writes.
#[derive(Debug, Default)]
struct StandStill {
    write_epoch: Cell<u64>,
}

impl CacheEnvironment for StandStill {
    fn now(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn write_epoch(&self, _: u8) -> u64 {
        self.write_epoch.get()
    }

    fn begin_write_epoch(&self, _: u8) {
        self.write_epoch.set(self.write_epoch.get() + 1);
    }

    fn acknowledged_epoch(&self, _: u8) -> u64 {
        0
    }

    fn begin_acknowledged_epoch(&self, _: u8) {}
}

impl Environment for StandStill {
    fn delay(&self, _: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    /// Nothing is written here that needs a name of its own.
    fn nonce(&self) -> Nonce {
        Nonce([1; 32])
    }
}

/// Runs a future that never waits.
fn run<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the store answers at once")
}
