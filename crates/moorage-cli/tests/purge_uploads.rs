//! The purge of abandoned uploads: the real program, on the real blob store and on one that fails.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use http::Method;
use tokio::process::Command;

use moorage_test_support::blob_store::{ACCESS_KEY, BlobStore, SECRET_KEY};
use moorage_test_support::bucket_folder::{BucketFolder, set_age};
use moorage_test_support::client;
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::process::{output, tool, within};
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const DAY: &[&str] = &["--older-than", "24h"];

/// Ages in hours, on either side of the day that is asked for.
const OLD: u64 = 25;
const YOUNG: u64 = 23;

const REPOSITORIES: &str = "docker/registry/v2/repositories";

/// A bucket as a folder, and what should be left of it.
struct Bucket {
    folder: BucketFolder,
    kept: BTreeSet<String>,
}

impl Bucket {
    fn new() -> Self {
        Self { folder: BucketFolder::new(), kept: BTreeSet::new() }
    }

    /// A registry, below `prefix`, with sessions of all kinds.
    fn with_sessions(prefix: &str) -> Self {
        let mut bucket = Self::new();
        for (session, started, objects, goes) in [
            (
                "a/_uploads/old",
                Some(OLD),
                &[("chunks/1", OLD), ("lists/1", OLD), ("progress/0", 900)][..],
                true,
            ),
            ("a/_uploads/bare", Some(OLD), &[], true),
            ("a/_uploads/young", Some(YOUNG), &[("chunks/1", YOUNG)], false),
            ("a/_uploads/slow", Some(900), &[("chunks/1", OLD), ("chunks/2", YOUNG)], false),
            ("a/_uploads/beheaded", None, &[("data", OLD)], true),
            ("a/_uploads/headless", None, &[("data", OLD), ("hashstates/sha256/9", YOUNG)], false),
            ("a/b/_uploads/old", Some(OLD), &[("data", OLD), ("hashstates/sha256/9", OLD)], true),
            ("a/b/c.d/e/_uploads/old", Some(8760), &[], true),
            ("z/_uploads/young", Some(0), &[], false),
        ] {
            let mut write = |name: &str, content: &str, age| {
                let key = format!("{prefix}{REPOSITORIES}/{session}/{name}");
                bucket.write(&key, content, age, !goes);
            };
            if let Some(age) = started {
                write("startedat", &time(age), age);
            }
            for (name, age) in objects {
                write(name, "bytes", *age);
            }
        }
        for key in [
            "a/_layers/sha256/00/link",
            "a/_manifests/tags/_uploads/current/link",
            "a/_manifests/revisions/_uploads/old/startedat",
            "_uploads/old/startedat",
        ] {
            bucket.write(&format!("{prefix}{REPOSITORIES}/{key}"), &time(OLD), OLD, true);
        }
        for key in ["docker/registry/v2/blobs/sha256/00/00/data", "r/_uploads/old/startedat"] {
            bucket.write(&format!("{prefix}{key}"), &time(OLD), OLD, true);
        }
        let elsewhere = format!("other/{REPOSITORIES}/a/_uploads/old/startedat");
        bucket.write(&elsewhere, &time(OLD), OLD, true);
        bucket
    }

    /// Stores an object that is so many hours old.
    fn write(&mut self, key: &str, content: &str, age: u64, is_kept: bool) {
        self.folder.put(key, content, hours(age));
        if is_kept {
            self.kept.insert(key.to_owned());
        }
    }

    fn keys(&self) -> BTreeSet<String> {
        self.folder.keys()
    }

    fn root(&self) -> &Path {
        self.folder.root()
    }
}

fn hours(number: u64) -> Duration {
    Duration::from_secs(number * 60 * 60)
}

/// What `startedat` holds for a session that began so many hours ago.
fn time(age: u64) -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() - hours(age)).to_string()
}

struct Outcome {
    status: Option<i32>,
    stdout: Vec<String>,
    stderr: Vec<String>,
}

/// Runs the program on a store, with these variables as its whole environment.
async fn purge(store: SocketAddr, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new(tool("MOORAGE_CLI"));
    command.args(["purge-uploads", "--endpoint"]).arg(format!("http://{store}")).args(arguments);
    let output = output(command.env_clear().envs(variables.iter().copied())).await;
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    Outcome {
        status: output.status.code(),
        stdout: lines(&output.stdout),
        stderr: lines(&output.stderr),
    }
}

/// The sessions that lines beginning with `verb` name, as repository and UUID.
fn named(lines: &[String], verb: &str) -> BTreeSet<String> {
    let rest = lines.iter().filter_map(|line| line.strip_prefix(verb));
    rest.filter_map(|rest| Some(rest.split_once(',')?.0.trim().to_owned())).collect()
}

const ABANDONED: [&str; 5] = ["a bare", "a beheaded", "a old", "a/b old", "a/b/c.d/e old"];

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn abandoned_sessions_go_and_nothing_else_does() {
    let keys = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    for (prefix, is_signed) in [("", false), ("", true), ("pre/fix/", true)] {
        let bucket = Bucket::with_sessions(prefix);
        let (store, variables) = match is_signed {
            true => (BlobStore::signed(bucket.root()).await, &keys[..]),
            false => (BlobStore::open(bucket.root()).await, &[][..]),
        };
        let arguments = [DAY, &["--prefix", prefix]].concat();

        let outcome = purge(store.address, &arguments, variables).await;

        assert_eq!(outcome.stderr, Vec::<String>::new());
        assert_eq!(outcome.status, Some(0));
        assert_eq!(bucket.keys(), bucket.kept);
        assert_eq!(named(&outcome.stdout, "removed "), ABANDONED.map(str::to_owned).into());
        let summary = outcome.stdout.last().expect("a summary");
        assert!(summary.contains("9 found, 5 removed"), "{summary}");

        let again = purge(store.address, &arguments, variables).await;
        assert_eq!((again.status, again.stdout.len()), (Some(0), 1), "{:?}", again.stdout);
        assert_eq!(bucket.keys(), bucket.kept);
    }
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_dry_run_tells_what_would_go_and_removes_nothing() {
    let bucket = Bucket::with_sessions("");
    let before = bucket.keys();
    let store = BlobStore::open(bucket.root()).await;
    let arguments = [DAY, &["--dry-run"]].concat();

    let outcome = purge(store.address, &arguments, &[]).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
    assert_eq!(named(&outcome.stdout, "would remove "), ABANDONED.map(str::to_owned).into());
    assert_eq!(bucket.keys(), before);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn json_is_one_document_of_all_that_was_done() {
    let bucket = Bucket::with_sessions("");
    let store = BlobStore::open(bucket.root()).await;
    let arguments = [DAY, &["--format", "json"]].concat();

    let outcome = purge(store.address, &arguments, &[]).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
    let report: serde_json::Value =
        serde_json::from_str(&outcome.stdout.join("\n")).expect("one document");
    assert_eq!(report["sessions_found"], 9);
    let removed = report["sessions_removed"].as_array().expect("a list").iter();
    let removed = removed.map(|session| {
        let [of, id] = ["of", "id"].map(|field| session[field].as_str().expect("text"));
        format!("{of} {id}")
    });
    assert_eq!(removed.collect::<BTreeSet<_>>(), ABANDONED.map(str::to_owned).into());
    assert_eq!(report["failures"], 0);
    assert_eq!(bucket.keys(), bucket.kept);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_reader_that_went_away_does_not_stop_the_purge() {
    let bucket = Bucket::with_sessions("");
    let store = BlobStore::open(bucket.root()).await;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(tool("MOORAGE_CLI"));
    command.args(["purge-uploads", "--endpoint"]).arg(format!("http://{}", store.address));
    command.args(DAY).env_clear().stdout(writer).stderr(Stdio::piped());

    let child = command.spawn().expect("the program starts");
    let output = within("the purge", child.wait_with_output()).await.expect("it ends");

    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(bucket.keys(), bucket.kept);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn listings_are_read_to_their_end() {
    let mut bucket = Bucket::new();
    // What counts is on the second page: a repository, and the newest object of a session.
    let slow = format!("{REPOSITORIES}/slow/_uploads/1");
    for number in 1000..2001 {
        bucket.write(&format!("{REPOSITORIES}/many/{number}/other"), "", OLD, true);
        bucket.write(&format!("{slow}/progress/{number}"), "", OLD, true);
    }
    bucket.write(&format!("{slow}/startedat"), &time(OLD), YOUNG, true);
    let old = format!("{REPOSITORIES}/many/last/_uploads/1/startedat");
    bucket.write(&old, &time(OLD), OLD, false);
    let store = BlobStore::open(bucket.root()).await;
    let uploads = bucket.root().join(".blob-store/uploads");
    for number in 0..1001 {
        // As the blob store keeps them. Two of one key are on different pages.
        let folder = uploads.join(format!("{number:x}"));
        let key = format!("docker/registry/v2/blobs/sha256/00/{}/data", number / 2);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("object"), format!("registry/{key}")).expect("a file");
        set_age(&folder.join("object"), hours(OLD));
    }

    let outcome = purge(store.address, DAY, &[]).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
    assert!(bucket.keys() == bucket.kept, "{:?}", outcome.stdout.last());
    assert_eq!(fs::read_dir(&uploads).expect("a folder").count(), 0);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn old_multipart_uploads_of_blobs_are_aborted() {
    let bucket = Bucket::new();
    let store = BlobStore::open(bucket.root()).await;
    let uploads = bucket.root().join(".blob-store/uploads");
    let mut kept = BTreeSet::new();
    for (key, age, goes) in [
        ("docker/registry/v2/blobs/sha256/00/00/data", OLD, true),
        ("docker/registry/v2/blobs/sha256/00/00/data", YOUNG, false),
        ("docker/registry/v2/blobs/sha256/01/01/data", OLD, true),
        ("elsewhere/docker/registry/v2/blobs/sha256/00/00/data", OLD, false),
    ] {
        let path = format!("/registry/{key}?uploads");
        let begun = client::send_body(store.address, Method::POST, &path, &[], "").await;
        let text = String::from_utf8_lossy(begun.body()).into_owned();
        let id = text.split_once("<UploadId>").and_then(|(_, rest)| rest.split_once('<'));
        let (id, _) = id.unwrap_or_else(|| panic!("no upload was begun: {text}"));
        set_age(&uploads.join(id).join("object"), hours(age));
        if !goes {
            kept.insert(id.to_owned());
        }
    }
    let left = || {
        let entries = fs::read_dir(&uploads).expect("a folder").map(|entry| entry.expect("one"));
        entries.map(|entry| entry.file_name().into_string().expect("text")).collect::<BTreeSet<_>>()
    };

    let dry = purge(store.address, &[DAY, &["--dry-run"]].concat(), &[]).await;
    assert_eq!((dry.status, left().len()), (Some(0), 4), "{:?}", dry.stderr);
    let outcome = purge(store.address, DAY, &[]).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
    assert_eq!(left(), kept);
    for told in [dry, outcome] {
        assert_eq!(told.stdout.len(), 3, "{:?}", told.stdout);
        assert!(told.stdout[2].contains("multipart uploads: 2 "), "{:?}", told.stdout);
    }
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn what_distribution_began_is_found() {
    let bucket = Bucket::new();
    let peer = DockerRegistry::start(&bucket.root().join("registry")).await;
    let begun = client::send_body(peer.address, Method::POST, "/v2/a/b/blobs/uploads/", &[], "");
    let location = begun.await.headers()["location"].to_str().expect("a URL").to_owned();
    let (_, path) = location.split_once("/v2/").expect("a path of the API");
    let sent =
        client::send_body(peer.address, Method::PATCH, &format!("/v2/{path}"), &[], "bytes").await;
    assert_eq!((sent.status().as_u16(), bucket.keys().len() > 1), (202, true));
    let store = BlobStore::open(bucket.root()).await;

    let young = purge(store.address, DAY, &[]).await;
    assert_eq!((young.status, bucket.keys().len() > 1), (Some(0), true), "{:?}", young.stderr);
    let old = purge(store.address, &["--older-than", "0s"], &[]).await;

    assert_eq!((old.status, old.stderr.len()), (Some(0), 0), "{:?}", old.stderr);
    assert!(old.stdout[0].starts_with("removed a/b "), "{:?}", old.stdout);
    assert_eq!(bucket.keys(), BTreeSet::new());
}

/// A store with one repository and two sessions in it, both old, each with a chunk.
async fn two_sessions(
    script: impl Fn(&str) -> Option<Behaviour> + Send + Sync + 'static,
) -> StandIn {
    const REPOSITORY: &str = "<ListBucketResult><IsTruncated>false</IsTruncated><CommonPrefixes>\
        <Prefix>docker/registry/v2/repositories/a/</Prefix></CommonPrefixes></ListBucketResult>";
    const UPLOADS: &str = "<ListBucketResult><IsTruncated>false</IsTruncated><CommonPrefixes>\
        <Prefix>docker/registry/v2/repositories/a/_uploads/</Prefix></CommonPrefixes></ListBucketResult>";
    const OBJECTS: &str = "<ListBucketResult><IsTruncated>false</IsTruncated>\
        <Contents><Key>docker/registry/v2/repositories/a/_uploads/1/startedat</Key>\
        <LastModified>2020-01-01T00:00:00Z</LastModified></Contents>\
        <Contents><Key>docker/registry/v2/repositories/a/_uploads/1/zone</Key>\
        <LastModified>2020-01-01T00:00:00Z</LastModified></Contents>\
        <Contents><Key>docker/registry/v2/repositories/a/_uploads/2/startedat</Key>\
        <LastModified>2020-01-01T00:00:00Z</LastModified></Contents>\
        <Contents><Key>docker/registry/v2/repositories/a/_uploads/2/zone</Key>\
        <LastModified>2020-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>";
    const NO_UPLOADS: &str = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>\
        </ListMultipartUploadsResult>";
    StandIn::start(Tree::default(), move |key, _| {
        script(key).unwrap_or(match key.split_once("prefix=").map(|(_, prefix)| prefix) {
            Some("docker%2Fregistry%2Fv2%2Fblobs%2F") => Behaviour::Answer(200, NO_UPLOADS),
            Some(prefix) if prefix.contains("_uploads") => Behaviour::Answer(200, OBJECTS),
            Some(prefix) if prefix.contains("a%2F") => Behaviour::Answer(200, UPLOADS),
            Some(_) => Behaviour::Answer(200, REPOSITORY),
            None if key.ends_with("startedat") => Behaviour::Answer(200, "2020-01-01T00:00:00Z"),
            None => Behaviour::Answer(204, ""),
        })
    })
    .await
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn what_fails_in_one_session_leaves_its_start_and_does_not_stop_the_others() {
    const BUSY: &str = "<Error><Code>SlowDown</Code><Message>Less, please</Message></Error>";
    for (fault, told) in [
        (Behaviour::Answer(503, BUSY), "503 SlowDown: Less, please"),
        (Behaviour::Answer(500, "oops"), "the store answered 500"),
        (Behaviour::Reset, "can't be reached"),
    ] {
        let store = two_sessions(move |key| key.ends_with("/1/zone").then(|| fault.clone())).await;

        let outcome = purge(store.address, DAY, &[]).await;

        assert_eq!(outcome.status, Some(1), "{told}");
        assert_eq!(named(&outcome.stdout, "removed "), BTreeSet::from(["a 2".to_owned()]));
        let [complaint] = outcome.stderr.as_slice() else {
            panic!("not one line: {:?}", outcome.stderr);
        };
        assert!(complaint.contains("a 1: ") && complaint.contains(told), "{complaint}");
        let touched = store.requests();
        let touched: Vec<&str> =
            touched.iter().filter_map(|key| Some(key.split_once("/_uploads/")?.1)).collect();
        // Each start is read; that of the second session is removed as well, and last.
        assert_eq!(touched.iter().filter(|name| **name == "1/startedat").count(), 1, "{touched:?}");
        assert_eq!(touched[touched.len() - 3..], ["2/startedat", "2/zone", "2/startedat"]);
    }
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_store_that_cannot_list_multipart_uploads_is_passed_over() {
    const UNKNOWN: &str = "<Error><Code>NotImplemented</Code><Message>No</Message></Error>";
    let store =
        two_sessions(|key| key.starts_with("?uploads=").then_some(Behaviour::Answer(501, UNKNOWN)))
            .await;

    let outcome = purge(store.address, DAY, &[]).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
    let passed_over = outcome.stdout.iter().filter(|line| line.contains("passed over")).count();
    assert_eq!(passed_over, 1, "{:?}", outcome.stdout);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_purge_that_cannot_begin_says_why_in_one_line() {
    let bucket = Bucket::with_sessions("");
    let before = bucket.keys();
    let open = BlobStore::open(bucket.root()).await;
    let signed = BlobStore::signed(bucket.root()).await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("an address")
    };
    let wrong = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", "wrong")];
    let half = [("AWS_ACCESS_KEY_ID", ACCESS_KEY)];
    let no_bucket = [DAY, &["--bucket", "nowhere"]].concat();
    for (store, arguments, variables, status, told) in [
        (nobody, DAY, &[][..], 1, "can't be reached"),
        (open.address, &no_bucket, &[], 1, "NoSuchBucket"),
        (signed.address, DAY, &[], 1, "AccessDenied"),
        (signed.address, DAY, &wrong, 1, "SignatureDoesNotMatch"),
        (nobody, &["--older-than", "soon"], &[], 2, "soon"),
        (nobody, &[], &[], 2, "--older-than"),
        (nobody, DAY, &half, 2, "AWS_SECRET_ACCESS_KEY"),
    ] {
        let outcome = purge(store, arguments, variables).await;
        assert_eq!(outcome.status, Some(status), "{told}: {:?}", outcome.stderr);
        let [complaint] = outcome.stderr.as_slice() else {
            panic!("not one line: {:?}", outcome.stderr);
        };
        assert!(complaint.contains(told), "{complaint}");
        assert_eq!(outcome.stdout, Vec::<String>::new(), "{told}");
    }
    assert_eq!(bucket.keys(), before);
}
