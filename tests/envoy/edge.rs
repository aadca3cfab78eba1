//! An edge node's disk: which pulls it answers, and what of it a client may see.
//!
//! What an edge node does while the store is away is in `outage.rs`.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::join_all;
use moorage::oci::{Algorithm, Digest};
use moorage::store::layout;
use serde_json::Value;
use tempfile::TempDir;

use moorage_test_support::accounts::{self, READER};
use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::{note, wait_for};
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const BLOB_BYTES: usize = 256 * 1024;

/// An edge node before a store that counts what it is asked for.
struct Edge {
    store: StandIn,
    disk: TempDir,
    bootstrap: Bootstrap,
    blobs: Vec<(Digest, &'static [u8])>,
}

impl Edge {
    /// With so many blobs in the repository `repository`; `settings` are further ones.
    async fn new(repository: &str, blobs: usize, settings: &[(&str, Value)]) -> Self {
        let mut tree = Tree::default();
        let blob = |number: usize| {
            let content: Vec<u8> = (0..BLOB_BYTES).map(|at| (at / 7 + number) as u8).collect();
            let content: &'static [u8] = content.leak();
            (tree.put_blob(repository, content), content)
        };
        let blobs = (0..blobs).map(blob).collect();
        let store = StandIn::start(tree, |_, _| Behaviour::Serve).await;
        let disk = TempDir::new().expect("a folder");
        let bootstrap = Bootstrap::edge_before(&[store.address]).set(|all| {
            all.edge.disk_cache = Some(disk.path().display().to_string());
            for (name, value) in settings {
                all.plugin.insert((*name).to_owned(), value.clone());
            }
        });
        Self { store, disk, bootstrap, blobs }
    }

    /// How often the store was asked for the content of a blob.
    fn fetches(&self, blob: &Digest) -> usize {
        let content = layout::content(blob);
        self.store.requests().iter().filter(|key| *key == content.as_str()).count()
    }

    /// The files that the disk has.
    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.disk.path()).expect("the folder is there");
        files.map(|file| file.expect("it can be read").path()).collect()
    }

    /// The one file of a blob, once it is there.
    async fn only_file(&self) -> PathBuf {
        wait_for("the blob's file", async || {
            let mut files = self.files();
            files.retain(|file| file.metadata().is_ok_and(|file| file.len() > BLOB_BYTES as u64));
            files.pop().filter(|_| files.is_empty())
        })
        .await
    }
}

fn path(repository: &str, blob: &Digest) -> String {
    format!("/v2/{repository}/blobs/{blob}")
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_blob_is_fetched_once_however_many_pull_it_and_by_whichever_repository() {
    let edge = Edge::new("a", 1, &[]).await;
    let (blob, content) = edge.blobs[0].clone();
    let envoy = Envoy::start(&edge.bootstrap).await;
    let path = path("a", &blob);
    let pulls = (0..16).map(|_| client::get(envoy.address, &path, &[]));
    for response in join_all(pulls).await {
        assert_eq!(response.status(), 200);
        assert!(response.body() == content);
    }
    assert_eq!(edge.fetches(&blob), 1, "of 16 pulls at once");
    edge.only_file().await;
    let before = edge.store.requests().len();
    let again = client::get(envoy.address, &path, &[]).await;
    assert!(again.status() == 200 && again.body() == content);
    assert_eq!(edge.store.requests().len(), before, "calls for a pull of what was pulled before");
    let range = client::get(envoy.address, &path, &[("range", "bytes=5-9")]).await;
    assert_eq!((range.status().as_u16(), &range.body()[..]), (206, &content[5..10]));
    assert_eq!(edge.fetches(&blob), 1);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_the_disk_has_is_served_by_the_next_envoy_after_one_was_killed() {
    let edge = Edge::new("a", 1, &[]).await;
    let (blob, content) = edge.blobs[0].clone();
    for _ in 0..2 {
        let envoy = Envoy::start(&edge.bootstrap).await;
        let response = client::get(envoy.address, &path("a", &blob), &[]).await;
        assert!(response.status() == 200 && response.body() == content);
        edge.only_file().await;
        envoy.kill().await;
        assert_eq!(edge.fetches(&blob), 1);
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_the_limit_has_no_room_for_is_removed_and_fetched_again() {
    const ROOM: u64 = 5 * BLOB_BYTES as u64;
    let edge = Edge::new("a", 12, &[]).await;
    let bootstrap = edge.bootstrap.set(|all| all.edge.disk_cache_bytes = Some(ROOM));
    let edge = Edge { bootstrap, ..edge };
    for times in [1, 2] {
        let envoy = Envoy::start(&edge.bootstrap).await;
        for (blob, content) in &edge.blobs {
            let response = client::get(envoy.address, &path("a", blob), &[]).await;
            assert!(response.status() == 200 && response.body() == content);
        }
        wait_for("the disk to be within its limit", async || {
            let sizes = edge
                .files()
                .iter()
                .map(|file| file.metadata().map_or(0, |file| file.len()))
                .sum::<u64>();
            (sizes > BLOB_BYTES as u64 && sizes <= ROOM).then_some(())
        })
        .await;
        let fetches: usize = edge.blobs.iter().map(|(blob, _)| edge.fetches(blob)).sum();
        // The first Envoy has none on its disk, the next at most what there is room for.
        assert!(fetches >= 12 + (times - 1) * 8, "{fetches} fetches by {times} Envoys");
        // Only one that begins anew has closed the files that it has removed.
        envoy.kill().await;
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_file_whose_bytes_were_changed_gives_what_its_digest_shows_to_be_wrong() {
    let edge = Edge::new("a", 1, &[]).await;
    let (blob, _) = edge.blobs[0].clone();
    let envoy = Envoy::start(&edge.bootstrap).await;
    client::get(envoy.address, &path("a", &blob), &[]).await;
    let file = edge.only_file().await;
    envoy.kill().await;
    let mut bytes = fs::read(&file).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("it can be written");
    let envoy = Envoy::start(&edge.bootstrap).await;
    let response = client::get(envoy.address, &path("a", &blob), &[]).await;
    assert_eq!(response.headers()["docker-content-digest"], blob.to_string().as_str());
    assert_ne!(Digest::of(Algorithm::Sha256, response.body()), blob);
}

/// The disk's files have no checksum: what was changed in one is what a client gets, and every client of a registry
/// compares a blob with its digest. A file that is cut off, as an Envoy never leaves one, is no whole answer.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_file_that_is_cut_off_is_never_a_whole_answer() {
    for left in [0, 10, 300, BLOB_BYTES as u64 / 2, BLOB_BYTES as u64] {
        let edge = Edge::new("a", 1, &[]).await;
        let (blob, content) = edge.blobs[0].clone();
        let envoy = Envoy::start(&edge.bootstrap).await;
        client::get(envoy.address, &path("a", &blob), &[]).await;
        let file = edge.only_file().await;
        // Only one that begins anew has forgotten what it read of the file.
        envoy.kill().await;
        let open = fs::OpenOptions::new().write(true).open(&file).expect("the file is there");
        open.set_len(left).expect("it is cut off");
        let envoy = Envoy::start(&edge.bootstrap).await;
        for _ in 0..2 {
            let request = client::request(http::Method::GET, &path("a", &blob), &[]);
            match whole(&envoy, request).await {
                Some(body) => assert!(body == content, "{left} bytes left: a wrong answer"),
                None => note(&format!("{left} bytes left: an answer that breaks off")),
            }
        }
    }
}

/// The body of an answer of 200, if it came to its end.
async fn whole(
    envoy: &Envoy,
    request: http::Request<http_body_util::Full<Bytes>>,
) -> Option<Bytes> {
    use http_body_util::BodyExt;
    let response = client::open(envoy.address, request).await.ok()?;
    if response.status() != 200 {
        return None;
    }
    Some(response.into_body().collect().await.ok()?.to_bytes())
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn who_may_not_pull_a_blob_does_not_get_it_from_the_disk() {
    let access = accounts::access().await;
    let edge = Edge::new("private/a", 1, &[("access", access)]).await;
    let (blob, content) = edge.blobs[0].clone();
    let envoy = Envoy::start(&edge.bootstrap).await;
    let login = STANDARD.encode(format!("{}:{}", READER.name, READER.password));
    let ask = "/auth/token?service=moorage&scope=repository:private/a:pull";
    let token =
        client::get(envoy.address, ask, &[("authorization", &format!("Basic {login}"))]).await;
    let token: Value = serde_json::from_slice(token.body()).expect("JSON");
    let bearer = format!("Bearer {}", token["token"].as_str().expect("a token"));
    let authorized = [("authorization", bearer.as_str())];
    let private = path("private/a", &blob);
    let response = client::get(envoy.address, &private, &authorized).await;
    assert!(response.status() == 200 && response.body() == content, "{response:?}");
    edge.only_file().await;
    for (path, headers, expected) in [
        (&private, &[][..], 401),
        (&private, &[("authorization", "Bearer x")][..], 401),
        // Everybody may pull from there, and it does not have the blob.
        (&path("public/b", &blob), &[][..], 404),
        (&private, &authorized[..], 200),
    ] {
        let response = client::get(envoy.address, path, headers).await;
        assert_eq!(response.status().as_u16(), expected, "{path} {headers:?}");
    }
    assert_eq!(edge.fetches(&blob), 1);
}
