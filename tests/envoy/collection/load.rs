//! What clients have been told, and whether it is so.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use futures::stream::{self, StreamExt};
use moorage::oci::Digest;

use moorage_test_support::process::wait_for;
use moorage_test_support::{client, whole};

/// How many pulls are made at a time in the end.
const PULLS: usize = 8;

/// A tag, by its repository and its name.
pub type Tag = (String, String);

/// The load, as all its clients share it.
pub struct Load {
    pub envoys: [SocketAddr; 2],
    seen: Mutex<Seen>,
    turn: AtomicUsize,
    is_over: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    /// Where each tag was set to last.
    tags: BTreeMap<Tag, Digest>,
    /// The manifests that refer to others, by those, with their repositories.
    referrers: BTreeMap<(String, Digest), Vec<Digest>>,
    acknowledged: usize,
    deleted: usize,
    pulled: usize,
    /// Pushes that were refused, because garbage is being collected.
    refused: usize,
    /// Pushes that were refused, because a blob of theirs was collected before its manifest came.
    collected: usize,
}

impl Load {
    pub fn new(envoys: [SocketAddr; 2]) -> Self {
        Self {
            envoys,
            seen: Mutex::default(),
            turn: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Has clients stop after what they are at.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The Envoy whose turn it is, as a balancer has it.
    pub fn next(&self) -> SocketAddr {
        self.envoys[self.turn.fetch_add(1, Ordering::Relaxed) % self.envoys.len()]
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panicked meanwhile")
    }

    /// A manifest was pushed by a tag.
    pub fn acknowledged(&self, name: &str, tag: &str, digest: &Digest) {
        let mut seen = self.seen();
        seen.acknowledged += 1;
        seen.tags.insert((name.to_owned(), tag.to_owned()), digest.clone());
    }

    /// A manifest was pushed that refers to a tagged one.
    pub fn acknowledged_referrer(&self, name: &str, subject: &Digest, digest: Digest) {
        let mut seen = self.seen();
        seen.acknowledged += 1;
        seen.referrers.entry((name.to_owned(), subject.clone())).or_default().push(digest);
    }

    /// A tag is about to be deleted.
    pub fn forget_tag(&self, name: &str, tag: &str) {
        let mut seen = self.seen();
        seen.deleted += 1;
        seen.tags.remove(&(name.to_owned(), tag.to_owned()));
    }

    /// A manifest is about to be deleted: with it all tags on it, and what refers to it.
    pub fn forget(&self, name: &str, digest: &Digest) {
        let mut seen = self.seen();
        seen.deleted += 1;
        seen.tags.retain(|(of, _), on| of != name || on != digest);
        seen.referrers.remove(&(name.to_owned(), digest.clone()));
    }

    /// A push was refused. It may only be for the one or the other reason.
    pub fn refused(&self, answer: &str) {
        let mut seen = self.seen();
        // Where it closes an upload, skopeo tells the status alone. The clients of plain requests look at the reason.
        let told_by_skopeo = answer.contains("received unexpected HTTP status: 503");
        if answer.contains("garbage is being collected") || told_by_skopeo {
            seen.refused += 1;
        } else if answer.contains("MANIFEST_BLOB_UNKNOWN") || answer.contains("blob unknown") {
            seen.collected += 1;
        } else {
            drop(seen);
            panic!("a push must not fail like this: {answer}");
        }
    }

    pub fn tags(&self) -> BTreeMap<Tag, Digest> {
        self.seen().tags.clone()
    }

    /// The tag of this name, and where it was set to.
    pub fn tag(&self, name: &str, tag: &str) -> Option<Digest> {
        self.seen().tags.get(&(name.to_owned(), tag.to_owned())).cloned()
    }

    /// What has happened, in words.
    pub fn summary(&self) -> String {
        let Seen { acknowledged, deleted, pulled, refused, collected, .. } = &*self.seen();
        format!(
            "{acknowledged} pushes acknowledged, {refused} refused, {collected} whose blob had been collected; \
             {deleted} deletions, {pulled} pulls"
        )
    }

    /// Waits until so many pushes have been acknowledged.
    pub async fn has_pushed(&self, count: usize) {
        let is_reached = async || (self.seen().acknowledged >= count).then_some(());
        wait_for("pushes", is_reached).await;
    }

    /// There were pushes and deletions, and something of it is left.
    pub fn was_used(&self) {
        let seen = self.seen();
        let is_used = seen.acknowledged > 0 && seen.deleted > 0 && !seen.tags.is_empty();
        assert!(is_used, "{seen:?}");
    }

    /// A tag is served as it was pushed. Nobody else may push or delete it meanwhile.
    pub async fn serves(&self, server: SocketAddr, name: &str, tag: &str, digest: &Digest) {
        let pulled = whole::pull(server, name, tag).await;
        self.seen().pulled += 1;
        assert_eq!(pulled.as_ref(), Ok(digest), "{name}:{tag} was acknowledged");
    }

    /// Everything that was acknowledged is served by both Envoys.
    pub async fn is_whole(&self) {
        for server in self.envoys {
            let look = async |((name, tag), digest): (Tag, Digest)| {
                self.serves(server, &name, &tag, &digest).await;
            };
            stream::iter(self.tags()).for_each_concurrent(PULLS, look).await;
            let referrers = self.seen().referrers.clone();
            for ((name, subject), referrers) in referrers {
                self.lists(server, &name, &subject, &referrers).await;
            }
        }
    }

    /// What was attached to a manifest is listed by either Envoy, and is there.
    pub async fn lists_all(&self, name: &str, subject: &Digest) {
        let referrers = self.seen().referrers.get(&(name.to_owned(), subject.clone())).cloned();
        self.lists(self.next(), name, subject, &referrers.unwrap_or_default()).await;
    }

    /// These are among the referrers of a manifest, and are there.
    async fn lists(&self, server: SocketAddr, name: &str, subject: &Digest, referrers: &[Digest]) {
        let path = format!("/v2/{name}/referrers/{subject}");
        let listed = client::get(server, &path, &[]).await;
        let listed = String::from_utf8_lossy(listed.body()).into_owned();
        for digest in referrers {
            assert!(listed.contains(digest.as_str()), "{digest} is not in {listed}");
            let pulled = whole::pull(server, name, digest.as_str()).await;
            assert_eq!(pulled.as_ref(), Ok(digest), "{name}@{digest} was acknowledged");
        }
    }
}
