//! Upload sessions as a bucket has them, whoever began them, for those who clean it up.
//!
//! A session is a folder `_uploads/<id>/` of a repository. Here it is looked at from outside: its id may
//! be any text, and what it holds is not read. Taking in a blob is [`uploads`](super::uploads)'s.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::TryStreamExt;

use super::fault::StoreError;
use super::for_each_bounded;
use super::layout::{self, Key};
use super::objects::{ListRequest, Listed, Objects, pages, parse_time};
use crate::oci::Name;

/// How many objects of a session are removed at a time.
const PARALLEL_REMOVALS: usize = 16;

/// The objects of an upload session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadFolder {
    /// The repository.
    pub repository: Name,
    /// The session's id, which need not be a UUID.
    pub id: String,
    /// When the newest of its objects was written.
    pub modified: SystemTime,
    /// The key of `startedat`, if there is such an object.
    start: Option<Key>,
    /// The keys of all others.
    others: Vec<Key>,
}

/// Lists the upload sessions of a repository, in the order of their ids. A call for every thousand
/// objects of theirs.
///
/// # Errors
///
/// As the store fails, or if it does not say when an object was written.
pub async fn upload_folders(
    objects: &impl Objects,
    repository: &Name,
) -> Result<Vec<UploadFolder>, StoreError> {
    let root = layout::uploads(repository);
    let mut found: BTreeMap<String, UploadFolder> = BTreeMap::new();
    let mut pages = pin!(pages(objects, ListRequest::new(&root, Listed::Objects)));
    while let Some(page) = pages.try_next().await? {
        for (key, modified) in page.keys.into_iter().zip(page.modified) {
            let modified = parse_time(&key, &modified)?;
            let place = key.as_str().strip_prefix(root.as_str());
            // An object beside the sessions' folders belongs to no session.
            let Some((id, name)) = place.and_then(|place| place.split_once('/')) else {
                continue;
            };
            let (id, is_start) = (id.to_owned(), name == "startedat");
            let folder = found.entry(id.clone()).or_insert_with(|| UploadFolder {
                repository: repository.clone(),
                id,
                modified,
                start: None,
                others: Vec::new(),
            });
            folder.modified = folder.modified.max(modified);
            if is_start {
                folder.start = Some(key);
            } else {
                folder.others.push(key);
            }
        }
    }
    Ok(found.into_values().collect())
}

impl UploadFolder {
    /// Whether it has an object that says when it began. Without one, `distribution` no longer knows of
    /// the session.
    pub fn has_start(&self) -> bool {
        self.start.is_some()
    }

    /// What says when the session began, RFC 3339 as text; `None` if there is no such object any more.
    /// One call.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn read_start(&self, objects: &impl Objects) -> Result<Option<Bytes>, StoreError> {
        match &self.start {
            Some(key) => objects.read(key).await,
            None => Ok(None),
        }
    }

    /// Removes all that was listed, `startedat` last: whatever breaks off, the session can still be found
    /// by it. A call for each object.
    ///
    /// # Errors
    ///
    /// As the store fails; then some objects may be gone.
    pub async fn remove(&self, objects: &impl Objects) -> Result<(), StoreError> {
        let remove = async |key: &Key| objects.remove(key).await;
        for_each_bounded(PARALLEL_REMOVALS, &self.others, remove).await?;
        match &self.start {
            Some(key) => objects.remove(key).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use http::StatusCode;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::store::memory::run;
    use crate::store::{
        Addressing, Bucket, BucketOptions, Budget, Http, HttpError, HttpRequest, HttpResponse,
        Repeat,
    };
    use crate::store::{repositories_with_manifests, repositories_with_uploads};

    /// A store with these objects, all written so many seconds after 1970. Whatever is asked of a key
    /// with `broken` in it fails.
    struct Script {
        objects: Vec<(&'static str, u64)>,
        removed: RefCell<Vec<String>>,
    }

    const ROOT: &str = "docker/registry/v2/repositories/";

    impl Script {
        fn list(&self, path: &str) -> String {
            let (_, prefix) = path.split_once("prefix=").expect("a listing has a prefix");
            let prefix = prefix.replace("%2F", "/");
            let mut entries = Vec::new();
            for (name, seconds) in &self.objects {
                let key = format!("{ROOT}{name}");
                let Some(rest) = key.strip_prefix(&prefix) else { continue };
                entries.push(match rest.split_once('/') {
                    Some((folder, _)) if path.contains("delimiter") => {
                        format!("<CommonPrefixes><Prefix>{prefix}{folder}/</Prefix></CommonPrefixes>")
                    }
                    _ => {
                        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(*seconds);
                        let time = humantime::format_rfc3339_millis(time);
                        format!(
                            "<Contents><Key>{key}</Key><LastModified>{time}</LastModified></Contents>"
                        )
                    }
                });
            }
            entries.dedup();
            format!("<ListBucketResult>{}</ListBucketResult>", entries.concat())
        }
    }

    impl Http for Script {
        async fn send(&self, request: &HttpRequest, _: Repeat) -> Result<HttpResponse, HttpError> {
            let answer = |status, body: String| {
                Ok(HttpResponse { status, version: None, body: body.into() })
            };
            if request.path.contains("broken") {
                return answer(StatusCode::INTERNAL_SERVER_ERROR, String::new());
            }
            match request.method {
                http::Method::DELETE => {
                    let removed = request.path.rsplit('/').next().expect("a path").to_owned();
                    self.removed.borrow_mut().push(removed);
                    answer(StatusCode::NO_CONTENT, String::new())
                }
                _ => answer(StatusCode::OK, self.list(&request.path)),
            }
        }
    }

    fn bucket(objects: &[(&'static str, u64)]) -> Bucket<Script> {
        let options = BucketOptions {
            authority: "a".to_owned(),
            bucket: "b".to_owned(),
            addressing: Addressing::Path,
            prefix: String::new(),
            content_limit: 1,
        };
        let script = Script { objects: objects.to_vec(), removed: RefCell::default() };
        Bucket::new(script, &options, Rc::new(Budget::new(1 << 30)))
    }

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn repositories_are_found_however_they_nest() {
        let bucket = bucket(&[
            ("_uploads/x/startedat", 1),
            ("a/_manifests/tags/_uploads/current/link", 1),
            ("a/b.c/_uploads/x/startedat", 1),
            ("broken/_uploads/x/startedat", 1),
            ("Upper/_uploads/x/startedat", 1),
            ("z/_uploads/x/startedat", 1),
            ("z/z/_uploads/x/startedat", 1),
        ]);
        let found = run(repositories_with_uploads(&bucket)).0.expect("no fault at the root");
        assert_eq!(found.names, ["a/b.c", "z", "z/z"].map(name));
        let unlisted: Vec<_> = found.unlisted.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(unlisted, ["broken"]);
        let found = run(repositories_with_manifests(&bucket)).0.expect("no fault at the root");
        assert_eq!(found.names, ["a"].map(name));
        assert_eq!(found.unlisted.len(), 1);
    }

    #[test]
    fn objects_are_told_apart_by_session() {
        let bucket = bucket(&[
            ("a/_uploads/1/chunks/startedat", 30),
            ("a/_uploads/1/startedat", 10),
            ("a/_uploads/2/data", 20),
            ("a/_uploads/stray", 40),
        ]);
        let found = run(upload_folders(&bucket, &name("a"))).0.expect("no fault");
        let seconds = |folder: &UploadFolder| {
            let since = folder.modified.duration_since(SystemTime::UNIX_EPOCH);
            since.expect("a time after 1970").as_secs()
        };
        let told: Vec<_> = found
            .iter()
            .map(|folder| (folder.id.as_str(), seconds(folder), folder.has_start()))
            .collect();
        assert_eq!(told, [("1", 30, true), ("2", 20, false)]);
    }

    #[test]
    fn the_start_is_removed_last() {
        let bucket = bucket(&[
            ("a/_uploads/1/startedat", 1),
            ("a/_uploads/1/x", 1),
            ("a/_uploads/1/y", 1),
            ("a/_uploads/2/broken", 1),
            ("a/_uploads/2/startedat", 1),
        ]);
        let found = run(upload_folders(&bucket, &name("a"))).0.expect("no fault");
        run(found[0].remove(&bucket)).0.expect("no fault");
        assert_eq!(*bucket.http().removed.borrow(), ["x", "y", "startedat"]);
        run(found[1].remove(&bucket)).0.expect_err("an object can't be removed");
        assert_eq!(bucket.http().removed.borrow().len(), 3);
    }
}
