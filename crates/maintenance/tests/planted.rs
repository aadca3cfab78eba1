//! Collections of a made-up registry: what they find is what was planted, and nothing else goes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::LocalBoxFuture;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use moorage::store::{
    Addressing, Bucket, BucketOptions, Budget, Http, HttpError, HttpRequest, HttpResponse, Repeat,
    StoreError,
};
use moorage_maintenance::gc::{Collector, Observer, Options, Plan, Removed, RunId, Stage};
use moorage_maintenance::mark::{Garbage, Kind};
use moorage_maintenance::s3_inventory::Summary;
use moorage_maintenance::snapshot::Snapshot;
use moorage_maintenance::time::Clock;
use moorage_synthetic_bucket::bucket::Bucket as MadeUpBucket;
use moorage_synthetic_bucket::census::Census;
use moorage_synthetic_bucket::plan;
use moorage_synthetic_bucket::registry::{Entry, Registry};
use moorage_synthetic_bucket::server::Store;

const OBJECTS: u64 = 6_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The made-up store, without a network.
struct InProcess(Store);

impl Http for InProcess {
    async fn send(&self, request: &HttpRequest, _: Repeat) -> Result<HttpResponse, HttpError> {
        let mut built = Request::builder().method(request.method.clone()).uri(&request.path);
        for (name, value) in &request.headers {
            built = built.header(*name, value);
        }
        let request = built.body(Full::new(request.body.clone())).expect("a request");
        let (head, body) = self.0.answer(request).await.into_parts();
        let version = head.headers.get("etag").map(|tag| tag.to_str().expect("text").to_owned());
        let body: Bytes = body.collect().await.expect("it can't fail").to_bytes();
        Ok(HttpResponse { status: head.status, version, body })
    }
}

/// A clock that is moved on by whoever waits.
struct Moved(Cell<Duration>);

impl Clock for Moved {
    fn now(&self) -> Duration {
        self.0.get()
    }

    fn sleep(&self, time: Duration) -> LocalBoxFuture<'_, ()> {
        self.0.set(self.0.get() + time);
        Box::pin(future::ready(()))
    }
}

/// What a run found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Found {
    keys: BTreeSet<String>,
    contents: u64,
    bytes: u64,
    manifest_links: u64,
    blob_links: u64,
    tag_histories: u64,
    referrers: u64,
}

#[derive(Default)]
struct Told(RefCell<Found>);

impl Observer for Told {
    fn stage(&self, _: Stage) {}

    fn inventory(&self, _: &Summary) {}

    fn planned(&self, plan: &Plan) {
        let mut found = Found::default();
        for garbage in &plan.garbage {
            found.keys.insert(garbage.key(&plan.snapshot).as_str().to_owned());
            match garbage.kind {
                Kind::TagHistory => found.tag_histories += 1,
                Kind::Referrer => found.referrers += 1,
                Kind::IndexLink | Kind::ManifestLink => found.manifest_links += 1,
                Kind::BlobLink => found.blob_links += 1,
                Kind::Content => {
                    let id = garbage.content_id(&plan.snapshot);
                    found.contents += 1;
                    found.bytes += plan.snapshot.digests.stored(id).expect("it is there").size;
                }
            }
        }
        self.0.replace(found);
    }

    fn removed(&self, _: &Snapshot, _: &Garbage) {}

    fn failed(&self, what: &str, error: &StoreError) {
        panic!("{what}: {error}");
    }
}

/// A bucket, and what is done to it.
struct Bench {
    bucket: Bucket<InProcess>,
    clock: Moved,
    options: Options,
    told: Told,
}

impl Bench {
    fn new(registry: Registry, untagged_older_than: Option<Duration>) -> Self {
        let made_up = MadeUpBucket::new(registry);
        let store = Store::new("registry".to_owned(), made_up, Duration::ZERO);
        let options = BucketOptions {
            authority: "store".to_owned(),
            bucket: "registry".to_owned(),
            addressing: Addressing::Path,
            prefix: String::new(),
            content_limit: 4 * 1024 * 1024,
        };
        let bucket = Bucket::new(InProcess(store), &options, Rc::new(Budget::new(1 << 30)));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let options = Options {
            grace: DAY,
            untagged_older_than,
            trash: None,
            link_ttl: Duration::from_secs(10),
            parallel: 4,
            inventory: None,
        };
        Self { bucket, clock: Moved(Cell::new(now)), options, told: Told::default() }
    }

    fn collector(&self) -> Collector<'_, InProcess, Moved, Told> {
        let Self { bucket, clock, options, told } = self;
        Collector { bucket, clock, options, observer: told }
    }

    fn dry_run(&self) -> Found {
        block_on(self.collector().dry_run()).expect("no fault");
        self.told.0.borrow().clone()
    }

    fn apply(&self, run: &str) -> Removed {
        let run: RunId = run.parse().expect("a name");
        block_on(self.collector().run(&run, future::pending())).expect("no fault")
    }
}

/// What should be found of what was planted.
fn planted(census: &Census, with_untagged: bool) -> Found {
    let Census { garbage, untagged, .. } = census.clone();
    let mut found = Found {
        contents: garbage.content.objects,
        bytes: garbage.content.bytes,
        blob_links: garbage.blob_links,
        tag_histories: garbage.tag_histories,
        referrers: garbage.referrers,
        ..Found::default()
    };
    if with_untagged {
        found.contents += untagged.content.objects;
        found.bytes += untagged.content.bytes;
        found.blob_links += untagged.blob_links;
        found.manifest_links += untagged.manifests;
    }
    found
}

#[test]
fn a_dry_run_finds_what_was_planted_and_writes_nothing() {
    for seed in 1..4 {
        let registry = plan::make(OBJECTS, seed);
        let census = registry.census.clone();
        let bench = Bench::new(registry, None);
        let found = bench.dry_run();
        assert_eq!(Found { keys: BTreeSet::new(), ..found.clone() }, planted(&census, false));
        assert_eq!(bench.dry_run(), found);
    }
}

#[test]
fn old_manifests_without_a_tag_go_with_what_only_they_need_if_that_is_wanted() {
    let registry = plan::make(OBJECTS, 4);
    let census = registry.census.clone();
    let found = Bench::new(registry, Some(DAY)).dry_run();
    let expected = planted(&census, true);
    let links = (found.manifest_links, found.blob_links);
    assert_eq!(links, (expected.manifest_links, expected.blob_links));
    assert_eq!((found.contents, found.bytes), (expected.contents, expected.bytes));
}

#[test]
fn the_second_run_removes_what_the_first_found_and_nothing_else() {
    let registry = plan::make(OBJECTS, 5);
    let census = registry.census.clone();
    let all: BTreeSet<String> = registry.entries.iter().map(|entry| registry.key(*entry)).collect();
    let layers: u64 = registry
        .entries
        .iter()
        .filter(|entry| matches!(entry, Entry::Content(_)))
        .map(|entry| registry.size(*entry))
        .sum();
    assert_eq!(layers, census.content.bytes);
    let bench = Bench::new(registry, None);
    let garbage = bench.dry_run().keys;
    assert!(garbage.is_subset(&all));

    let first = bench.apply("first");
    assert_eq!((first.links, first.contents.objects), (0, 0), "{first:?}");
    let second = bench.apply("second");
    assert_eq!(second.contents.objects, census.garbage.content.objects);
    assert_eq!(second.contents.bytes, census.garbage.content.bytes);
    assert_eq!(second.links + second.contents.objects, garbage.len() as u64);
    assert_eq!((second.spared, second.failures), (0, 0));

    assert_eq!(bench.dry_run(), Found::default());
    let third = bench.apply("third");
    assert_eq!((third.links, third.contents.objects), (0, 0), "{third:?}");
    let left: BTreeSet<String> = keys(&bench.bucket, "docker/");
    assert_eq!(left, all.difference(&garbage).cloned().collect());
    let own = keys(&bench.bucket, "moorage/");
    let expected = ["moorage/gc/condemned", "moorage/gc/manifests"].map(str::to_owned);
    assert_eq!(own, expected.into(), "no claim and no marker is left");
}

/// All keys of the bucket that begin so, as the store lists them.
fn keys(bucket: &Bucket<InProcess>, prefix: &str) -> BTreeSet<String> {
    let (mut keys, mut token) = (BTreeSet::new(), None);
    loop {
        let more: String =
            token.map(|token| format!("&continuation-token={token}")).unwrap_or_default();
        let path = format!("/registry/?list-type=2&prefix={prefix}{more}");
        let request = Request::get(path).body(Full::<Bytes>::default()).expect("a request");
        let page = block_on(async {
            bucket.http().0.answer(request).await.into_body().collect().await.expect("no fault")
        });
        let text = String::from_utf8(page.to_bytes().to_vec()).expect("text");
        let element = |name: &str| {
            let (start, end) = (format!("<{name}>"), format!("</{name}>"));
            let pieces = text.split(&start).skip(1);
            let texts = pieces.filter_map(|piece| Some(piece.split_once(&end)?.0.to_owned()));
            texts.collect::<Vec<_>>()
        };
        keys.extend(element("Key"));
        // As it stands in a query: base64 has these three of S3's characters.
        let encode =
            |token: &String| token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        match element("NextContinuationToken").first() {
            Some(next) => token = Some(encode(next)),
            None => return keys,
        }
    }
}
