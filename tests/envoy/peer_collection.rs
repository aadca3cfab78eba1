//! Garbage beside `docker-registry`: what its own collector calls garbage is what Moorage's does, but for the differences listed
//! here; and what Moorage's leaves, both serve.

mod written;

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::Value;
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::collector::{garbage, gc};
use moorage_test_support::docker_registry::{DockerRegistry, Eligible};
use moorage_test_support::envoy::{Bootstrap, Envoy};

use written::Written;

const UNTAGGED: [&str; 2] = ["--untagged-older-than", "0s"];

/// What one of the collectors calls garbage and the other does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Theirs,
    Ours,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Manifest,
    Content,
    BlobLink,
    TagHistory,
}

/// A difference that is meant.
struct Difference {
    name: &'static str,
    reason: &'static str,
    /// Whether the peer is asked to remove untagged manifests when it shows.
    is_of_untagged: Option<bool>,
    /// Whether it explains this.
    explains: fn(&Written, Side, What, &str) -> bool,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "what a tagged index refers to",
        reason: "the peer takes the images of an index for untagged, and breaks it; a live index keeps them",
        is_of_untagged: Some(true),
        explains: |written, side, _, digest| side == Side::Theirs && written.is_platform(digest),
    },
    Difference {
        name: "what refers to a tagged manifest",
        reason: "the peer knows no subject; a signature is as live as what it signs",
        is_of_untagged: Some(true),
        explains: |written, side, _, digest| side == Side::Theirs && written.is_referrer(digest),
    },
    Difference {
        name: "a tag without a link to its manifest",
        reason: "the peer looks at links only; what a tag points at is never removed here",
        is_of_untagged: None,
        explains: |written, side, what, digest| {
            side == Side::Theirs && what == What::Content && written.is_unlinked(digest)
        },
    },
    Difference {
        name: "links to blobs that no manifest needs",
        reason: "the peer leaves them, and they then lead to nothing",
        is_of_untagged: None,
        explains: |_, side, what, _| side == Side::Ours && what == What::BlobLink,
    },
    Difference {
        name: "the history of tags that are gone",
        reason: "the peer leaves it, but for that of a manifest which it removes",
        is_of_untagged: None,
        explains: |_, side, what, _| side == Side::Ours && what == What::TagHistory,
    },
];

type Findings = BTreeSet<(Side, What, String)>;

fn differences(theirs: &Eligible, ours: &Value) -> Findings {
    let digests = |kinds: &[&str]| {
        let found = garbage(ours, kinds).into_iter();
        found.map(|(_, digest)| digest).collect::<BTreeSet<_>>()
    };
    let (our_contents, our_manifests) =
        (digests(&["content"]), garbage(ours, &["manifest", "index"]));
    let mut found = Findings::new();
    for digest in theirs.contents.symmetric_difference(&our_contents) {
        let side = if our_contents.contains(digest) { Side::Ours } else { Side::Theirs };
        found.insert((side, What::Content, digest.clone()));
    }
    for manifest in theirs.manifests.symmetric_difference(&our_manifests) {
        let side = if our_manifests.contains(manifest) { Side::Ours } else { Side::Theirs };
        found.insert((side, What::Manifest, manifest.1.clone()));
    }
    for (what, kind) in [(What::BlobLink, "blob"), (What::TagHistory, "tag history")] {
        found.extend(digests(&[kind]).into_iter().map(|digest| (Side::Ours, what, digest)));
    }
    found
}

/// A bucket that both serve.
struct Shared {
    root: TempDir,
    peer: DockerRegistry,
    store: BlobStore,
    envoy: Envoy,
}

impl Shared {
    async fn new() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let bucket = root.path().join("registry");
        std::fs::create_dir(&bucket).expect("a folder");
        let peer = DockerRegistry::start(&bucket).await;
        let store = BlobStore::open(root.path()).await;
        let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
        Self { root, peer, store, envoy }
    }

    async fn gc(&self, arguments: &[&str]) -> Value {
        let always = ["--grace", "0s", "--link-ttl", "0s"];
        let outcome = gc(self.store.address, &[&always, arguments].concat()).await;
        outcome.unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    /// Compares what both call garbage; gives the differences that there were.
    async fn is_judged_alike(
        &self,
        written: &Written,
        removes_untagged: bool,
    ) -> Vec<&'static str> {
        let (their_options, our_options): (&[&str], &[&str]) = match removes_untagged {
            true => (&["--delete-untagged"], &UNTAGGED),
            false => (&[], &[]),
        };
        let theirs = self.peer.garbage(their_options).await.expect("it looks at all of it");
        let ours = self.gc(our_options).await;
        let mut seen = Vec::new();
        for (side, what, digest) in differences(&theirs, &ours) {
            let difference = DIFFERENCES.iter().find(|difference| {
                difference.is_of_untagged.is_none_or(|untagged| untagged == removes_untagged)
                    && (difference.explains)(written, side, what, &digest)
            });
            let difference = difference.unwrap_or_else(|| {
                let about = written.about(&digest);
                panic!("{what:?} {digest} ({about}) is garbage on one side, {side:?}: {theirs:?}, {ours}")
            });
            seen.push(difference.name);
        }
        // What both agree about is most of it.
        let ours = garbage(&ours, &["content"]);
        let agreed = ours.iter().filter(|(_, digest)| theirs.contents.contains(digest));
        assert!(agreed.count() >= written.garbage_contents(removes_untagged), "{theirs:?}");
        seen
    }

    async fn is_collected(&self, written: &Written) {
        let mut seen = Vec::new();
        for removes_untagged in [false, true] {
            seen.extend(self.is_judged_alike(written, removes_untagged).await);
        }
        for Difference { name, reason, .. } in DIFFERENCES {
            let count = seen.iter().filter(|seen| *seen == name).count();
            println!("{count} differ: {name}; {reason}");
            assert!(count > 0, "{name} is no difference any more");
        }
        for _ in 0..2 {
            self.gc(&[&["--apply"], &UNTAGGED[..]].concat()).await;
        }
        for server in [self.peer.address, self.envoy.address] {
            written.is_served(server).await;
        }
        // Nothing is left for either, but for what a tag without a link points at.
        assert_eq!(self.gc(&UNTAGGED).await["total"]["objects"], 0);
        let left = self.peer.garbage(&[]).await.expect("it looks at all of it");
        assert!(left.contents.iter().all(|digest| written.is_unlinked(digest)), "{left:?}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_peer_calls_the_same_things_garbage_and_serves_what_is_left() {
    let (of_peer, of_both) = (Shared::new().await, Shared::new().await);
    let mut collections = Vec::new();
    for (shared, is_of_both) in [(&of_peer, false), (&of_both, true)] {
        let writers = match is_of_both {
            true => vec![shared.peer.address, shared.envoy.address],
            false => vec![shared.peer.address],
        };
        let written = Written::by(writers, &shared.root.path().join("registry")).await;
        collections.push(async move { shared.is_collected(&written).await });
    }
    join_all(collections).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_peer_gives_up_where_one_repository_is_left_alone() {
    let shared = Shared::new().await;
    let bucket = shared.root.path().join("registry");
    let written = Written::by(vec![shared.peer.address], &bucket).await;
    let before = garbage(&shared.gc(&UNTAGGED).await, &["content", "blob", "manifest", "index"]);
    written.corrupt_a_manifest();

    let refusal = shared.peer.garbage(&[]).await.expect_err("it reads every manifest");
    assert!(refusal.contains("failed to mark"), "{refusal}");
    let ours = shared.gc(&UNTAGGED).await;
    let unclear = ours["unclear"].as_array().expect("a list");
    assert_eq!(unclear.len(), 1, "{ours}");
    assert_eq!(unclear[0]["repository"], written::CORRUPTED);
    let after = garbage(&ours, &["content", "blob", "manifest", "index"]);
    assert!(!after.is_empty() && after.is_subset(&before), "{ours}");
    assert!(after.iter().all(|(repository, _)| repository != written::CORRUPTED), "{ours}");
}
