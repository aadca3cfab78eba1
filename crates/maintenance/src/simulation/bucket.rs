//! A bucket in memory that speaks S3, and the way to it, on which things take time and go wrong.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, StatusCode};
use moorage::store::{
    Addressing, Bucket, BucketOptions, Budget, Http, HttpError, HttpRequest, HttpResponse, Repeat,
};
use sha2::{Digest as _, Sha256};

use super::world::World;
use crate::time::Clock as _;

/// An object.
#[derive(Debug, Clone)]
pub struct Object {
    pub bytes: Bytes,
    pub modified: Duration,
}

/// The objects by their keys.
pub type Objects = BTreeMap<String, Object>;

/// The bucket.
#[derive(Debug, Default)]
pub struct SimStore {
    pub objects: RefCell<Objects>,
    /// Calls by this method whose path has this in it take so long to get here.
    pub slow: RefCell<Vec<(Method, String, Duration)>>,
    /// The most that a page of a listing has, if that is less than is asked for.
    pub page: Option<usize>,
}

/// What is wrong with the way of somebody to the bucket, so that a test can tell whether it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blindness {
    /// Nothing.
    None,
    /// Who looks at markers sees none.
    Markers,
    /// Who looks a second time sees what there was the first time.
    Changes,
}

/// A way to the bucket.
pub struct SimHttp {
    pub world: Rc<World>,
    pub store: Rc<SimStore>,
    pub blindness: Blindness,
    /// What there was at the first look, for who sees no changes.
    first_look: RefCell<Option<Objects>>,
    pub calls: Cell<usize>,
}

/// The bucket by any way.
pub fn bucket_over<H: Http>(http: H) -> Bucket<H> {
    let options = BucketOptions {
        authority: "store".to_owned(),
        bucket: "b".to_owned(),
        addressing: Addressing::Path,
        prefix: String::new(),
        content_limit: 4 * 1024 * 1024,
    };
    Bucket::new(http, &options, Rc::new(Budget::new(1 << 30)))
}

impl SimHttp {
    /// A bucket by this way.
    pub fn bucket(world: &Rc<World>, store: &Rc<SimStore>, blindness: Blindness) -> Bucket<Self> {
        let http = Self {
            world: Rc::clone(world),
            store: Rc::clone(store),
            blindness,
            first_look: RefCell::default(),
            calls: Cell::default(),
        };
        bucket_over(http)
    }

    /// The objects that an answer is made of.
    fn look(&self, request: &HttpRequest) -> Option<Objects> {
        let is_look = request.method == Method::GET && request.path.contains("docker");
        if self.blindness != Blindness::Changes || !is_look {
            return None;
        }
        let mut first = self.first_look.borrow_mut();
        Some(first.get_or_insert_with(|| self.store.objects.borrow().clone()).clone())
    }
}

impl Http for SimHttp {
    async fn send(&self, request: &HttpRequest, _: Repeat) -> Result<HttpResponse, HttpError> {
        self.calls.set(self.calls.get() + 1);
        let hides = self.blindness == Blindness::Markers
            && request.method == Method::GET
            && request.path.contains("markers");
        if hides {
            return Ok(answer(200, LISTING_OF_NOTHING));
        }
        let (world, quiet) = (&self.world, self.world.is_quiet.get());
        let (there, back) = (world.latency() + self.store.delay(request), world.latency());
        let is_lost = !quiet && world.one_in(150);
        let result = Rc::new(RefCell::new(None));
        // What was sent has its effect, whatever becomes of who sent it. The effect of what got lost comes late, or never.
        let is_done = !is_lost || world.one_in(2);
        let late =
            if is_lost { world.time_up_to(Duration::from_secs(200)) } else { Duration::ZERO };
        if is_done {
            let (slot, store, frozen) =
                (Rc::clone(&result), Rc::clone(&self.store), self.look(request));
            let (request, clock) = (request.clone(), Rc::clone(world));
            world.after(there + late, move || {
                let answer = match frozen {
                    Some(objects) => read(&objects, &request, store.page),
                    None => store.apply(&request, clock.now()),
                };
                slot.replace(Some(answer));
            });
        }
        world.wait(there + back).await;
        if is_lost {
            return Err(HttpError::Unreachable("lost".to_owned()));
        }
        result.take().ok_or(HttpError::Connection)
    }
}

const LISTING_OF_NOTHING: &str =
    "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

fn answer(status: u16, body: impl Into<Bytes>) -> HttpResponse {
    let status = StatusCode::from_u16(status).expect("a status");
    HttpResponse { status, version: None, body: body.into() }
}

fn no_such_key() -> HttpResponse {
    answer(404, "<Error><Code>NoSuchKey</Code></Error>")
}

fn version(bytes: &[u8]) -> String {
    format!("\"{:x}\"", u64::from_be_bytes(Sha256::digest(bytes)[..8].try_into().expect("eight")))
}

fn key_of(request: &HttpRequest) -> String {
    let path = request.path.split('?').next().unwrap_or_default();
    path.strip_prefix("/b/").unwrap_or_default().to_owned()
}

fn header<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
    request.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
}

fn query(request: &HttpRequest, name: &str) -> Option<String> {
    let (_, query) = request.path.split_once('?')?;
    let pairs = form_urlencoded::parse(query.as_bytes());
    pairs.into_iter().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

impl SimStore {
    /// From now on calls by this method whose path has this in it take so long to get here.
    pub fn slow_down(&self, method: Method, path: &str, seconds: u64) {
        let rule = (method, path.to_owned(), Duration::from_secs(seconds));
        self.slow.borrow_mut().push(rule);
    }

    /// How much longer than others a call takes.
    fn delay(&self, request: &HttpRequest) -> Duration {
        let slow = self.slow.borrow();
        let applies = |(method, path, _): &&(Method, String, Duration)| {
            request.method == *method && request.path.contains(path.as_str())
        };
        slow.iter().find(applies).map_or(Duration::ZERO, |(_, _, time)| *time)
    }

    /// Does what a request asks for.
    pub fn apply(&self, request: &HttpRequest, now: Duration) -> HttpResponse {
        let mut objects = self.objects.borrow_mut();
        let key = key_of(request);
        match request.method {
            Method::PUT => put(&mut objects, request, key, now),
            Method::DELETE => {
                let current = objects.get(&key).map(|object| version(&object.bytes));
                match header(request, "if-match") {
                    Some(_) if current.is_none() => no_such_key(),
                    Some(wanted) if current.as_deref() != Some(wanted) => answer(412, ""),
                    _ => {
                        objects.remove(&key);
                        answer(204, "")
                    }
                }
            }
            _ => read(&objects, request, self.page),
        }
    }
}

fn put(objects: &mut Objects, request: &HttpRequest, key: String, now: Duration) -> HttpResponse {
    let current = objects.get(&key).map(|object| version(&object.bytes));
    let is_refused = match (header(request, "if-none-match"), header(request, "if-match")) {
        (Some(_), _) => current.is_some(),
        (_, Some(wanted)) => current.as_deref() != Some(wanted),
        _ => false,
    };
    if is_refused {
        return answer(412, "");
    }
    let Some(source) = header(request, "x-amz-copy-source") else {
        objects.insert(key, Object { bytes: request.body.clone(), modified: now });
        return answer(200, "");
    };
    let source = source.strip_prefix("/b/").unwrap_or_default();
    match objects.get(source).cloned() {
        None => no_such_key(),
        Some(object) => {
            objects.insert(key, Object { modified: now, ..object });
            answer(200, "<CopyObjectResult><ETag>e</ETag></CopyObjectResult>")
        }
    }
}

fn read(objects: &Objects, request: &HttpRequest, page: Option<usize>) -> HttpResponse {
    if request.path.starts_with("/b/?") || request.path.starts_with("/b?") {
        return list(objects, request, page.unwrap_or(usize::MAX));
    }
    let Some(object) = objects.get(&key_of(request)) else {
        return if request.method == Method::HEAD { answer(404, "") } else { no_such_key() };
    };
    let range = header(request, "range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    let mut answer = match range {
        Some((first, _)) if first >= object.bytes.len() => answer(416, ""),
        Some((first, last)) => {
            answer(206, object.bytes.slice(first..object.bytes.len().min(last + 1)))
        }
        None if request.method == Method::HEAD => answer(200, ""),
        None => answer(200, object.bytes.clone()),
    };
    answer.version = request.wants_version.then(|| version(&object.bytes));
    answer
}

fn list(objects: &Objects, request: &HttpRequest, page: usize) -> HttpResponse {
    if query(request, "versioning").is_some() {
        return answer(200, "<VersioningConfiguration/>");
    }
    let prefix = query(request, "prefix").unwrap_or_default();
    let by_folder = query(request, "delimiter").is_some();
    let token = query(request, "continuation-token");
    let is_continued = token.is_some();
    let after = token.or_else(|| query(request, "start-after")).unwrap_or_default();
    let limit =
        query(request, "max-keys").and_then(|limit| limit.parse().ok()).unwrap_or(1000).min(page);
    let mut entries: Vec<(String, Option<&Object>)> = Vec::new();
    for (key, object) in objects.range(prefix.clone()..) {
        let Some(rest) = key.strip_prefix(prefix.as_str()) else {
            break;
        };
        let folder = rest.find('/').filter(|_| by_folder).map(|at| &key[..prefix.len() + at + 1]);
        let was_before = is_continued && folder.is_some_and(|folder| *folder <= *after);
        if *key <= after || was_before {
            continue;
        }
        match folder {
            Some(folder) if entries.last().is_some_and(|(last, _)| last == folder) => {}
            Some(folder) => entries.push((folder.to_owned(), None)),
            None => entries.push((key.clone(), Some(object))),
        }
    }
    let is_truncated = entries.len() > limit;
    entries.truncate(limit);
    let mut text = format!("<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>");
    if let Some((last, _)) = entries.last().filter(|_| is_truncated) {
        text.push_str(&format!("<NextContinuationToken>{last}</NextContinuationToken>"));
    }
    for (key, object) in entries {
        text.push_str(&match object {
            None => format!("<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"),
            Some(object) => {
                // As Amazon's, in whole seconds.
                let seconds = Duration::from_secs(object.modified.as_secs());
                let modified = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + seconds);
                let size = object.bytes.len();
                format!(
                    "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><Size>{size}</Size></Contents>"
                )
            }
        });
    }
    text.push_str("</ListBucketResult>");
    answer(200, text)
}
