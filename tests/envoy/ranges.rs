//! Several ranges of a blob in one request, as podman and others ask for them.

mod partial_pulls;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use bytes::{Buf, Bytes};
use http::{Method, Response};
use http_body_util::BodyExt;
use moorage::oci::{Algorithm, Digest};
use moorage::store::layout;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client;
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::garage::Garage;
use moorage_test_support::process::{optional_tool, within};
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const MIB: usize = 1024 * 1024;

/// So many bytes that look random, and are the same every time.
pub fn noise(seed: usize, length: usize) -> Vec<u8> {
    let blocks = (0..length.div_ceil(32)).flat_map(|number| {
        let seed = [seed, number].map(usize::to_be_bytes).concat();
        Sha256::digest(seed)
    });
    blocks.take(length).collect()
}

/// What each part of an answer says of its range, and its bytes.
fn parts_of(response: &Response<Bytes>) -> Vec<(String, Bytes)> {
    assert_eq!(response.status(), 206, "{:?}", response.headers());
    let media_type = response.headers()["content-type"].to_str().expect("text");
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.unwrap_or_else(|| panic!("{media_type} has no parts"));
    let mut rest = response.body().clone();
    assert_eq!(response.headers()["content-length"], rest.len().to_string());
    let mut parts = Vec::new();
    loop {
        skip(&mut rest, "\r\n");
        assert!(skip(&mut rest, &format!("--{boundary}")), "a part begins: {rest:?}");
        if skip(&mut rest, "--") {
            assert!(rest.is_empty() || rest == "\r\n", "nothing follows: {rest:?}");
            return parts;
        }
        let end = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("headers");
        let head = String::from_utf8(rest.split_to(end + 4).to_vec()).expect("text");
        let range = head.lines().find_map(|line| line.strip_prefix("Content-Range: bytes "));
        let range = range.unwrap_or_else(|| panic!("no range: {head}")).to_owned();
        let offsets = range.split_once('/').and_then(|(range, _)| range.split_once('-'));
        let (first, last) = offsets.expect("two offsets");
        let number = |text: &str| text.parse::<usize>().expect("a number");
        let bytes = rest.split_to(number(last) + 1 - number(first));
        parts.push((range, bytes));
    }
}

/// Takes `text` off the beginning, if it is there.
fn skip(bytes: &mut Bytes, text: &str) -> bool {
    let is_there = bytes.starts_with(text.as_bytes());
    if is_there {
        bytes.advance(text.len());
    }
    is_there
}

/// A registry whose repository `a` has a blob, and the blob's path.
async fn with_blob(root: &Path, content: Vec<u8>) -> (BlobStore, Envoy, String) {
    let digest = Digest::of(Algorithm::Sha256, &content);
    let path = put_blob(root, &digest, |data| fs::write(data, content));
    let store = BlobStore::open(root).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    (store, envoy, path)
}

/// The same with a blob of so many zeros, which takes no room: a hole in a file reads so.
async fn with_zeros(root: &Path, length: usize) -> (BlobStore, Envoy, String) {
    let digest = Digest::of(Algorithm::Sha256, b"something else, as nobody looks");
    let path = put_blob(root, &digest, |data| fs::File::create(data)?.set_len(length as u64));
    let store = BlobStore::open(root).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    (store, envoy, path)
}

/// Puts a blob in the repository `a`, by what writes its file.
fn put_blob(
    root: &Path,
    digest: &Digest,
    write: impl FnOnce(&Path) -> std::io::Result<()>,
) -> String {
    let bucket = root.join("registry");
    let mut tree = Tree::default();
    tree.link_blob("a", digest);
    tree.write_to(&bucket);
    let data = bucket.join(layout::content(digest).as_str());
    fs::create_dir_all(data.parent().expect("a folder")).expect("a folder");
    write(&data).expect("a file");
    format!("/v2/a/blobs/{digest}")
}

/// Asks for ranges of a blob with this content, and looks whether they come as they are asked for.
async fn expect_parts(registry: SocketAddr, path: &str, content: &[u8]) {
    let length = content.len();
    let many: Vec<_> = (0..1024).map(|n| format!("{}-{}", 900 * n, 900 * n + 99)).collect();
    let many_parts: Vec<_> = (0..1024).map(|n| (900 * n, 900 * n + 99)).collect();
    for (ranges, expected) in [
        ("0-0,2-2".to_owned(), vec![(0, 0), (2, 2)]),
        // Next to each other, or nearly: podman takes it amiss if it gets one part for two.
        ("0-99,100-199,208-300".to_owned(), vec![(0, 99), (100, 199), (208, 300)]),
        ("5-700000, 1000000-1500000".to_owned(), vec![(5, 700_000), (1_000_000, 1_500_000)]),
        (format!("9-9,{}-", length - 5), vec![(9, 9), (length - 5, length - 1)]),
        (format!("9-9,{}-{}", length - 5, 2 * length), vec![(9, 9), (length - 5, length - 1)]),
        ("9-9,-7".to_owned(), vec![(9, 9), (length - 7, length - 1)]),
        (many.join(","), many_parts),
    ] {
        let range = format!("bytes={ranges}");
        let found = parts_of(&client::get(registry, path, &[("range", &range)]).await);
        let expected = expected.into_iter().map(|(first, last): (usize, usize)| {
            let bytes = Bytes::copy_from_slice(&content[first..=last]);
            (format!("{first}-{last}/{length}"), bytes)
        });
        assert!(found == expected.collect::<Vec<_>>(), "{}", &range[..range.len().min(60)]);
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn several_ranges_are_sent_in_parts_as_by_docker_registry() {
    let root = TempDir::new().expect("a temporary folder");
    let content = noise(0, 3 * MIB + 7);
    let (_store, envoy, path) = with_blob(root.path(), content.clone()).await;
    let peer = DockerRegistry::start(&root.path().join("registry")).await;
    for registry in [envoy.address, peer.address] {
        expect_parts(registry, &path, &content).await;
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn several_ranges_are_sent_in_parts_from_a_distributed_store() {
    let Some(garage) = optional_tool("MOORAGE_GARAGE") else { return };
    let store = Garage::start(&garage).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).signed()).await;
    let content = noise(0, 3 * MIB + 7);
    let digest = Digest::of(Algorithm::Sha256, &content);
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    let body = content.clone();
    let pushed = client::send_body(envoy.address, Method::POST, &target, &[], body).await;
    assert_eq!(pushed.status(), 201, "{:?}", pushed.body());
    let path = format!("/v2/a/blobs/{digest}");
    expect_parts(envoy.address, &path, &content).await;
    let range = "bytes=4194304-4194305,4194308-";
    let beyond = client::get(envoy.address, &path, &[("range", range)]).await;
    assert_eq!(client::error_of(&beyond), (416, "RANGE_INVALID".to_owned()));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_is_not_sent_in_parts_is_sent_whole_or_refused() {
    let root = TempDir::new().expect("a temporary folder");
    let content = noise(0, 6 * MIB);
    let (_store, envoy, path) = with_blob(root.path(), content.clone()).await;
    let get = async |range: &str| client::get(envoy.address, &path, &[("range", range)]).await;

    for range in ["bytes=5-6,1-2", "bytes=1-5,5-6", "bytes=0-4194304,-4194304", "bytes=0-1,x"] {
        let whole = get(range).await;
        assert_eq!(whole.status(), 200, "{range}");
        assert!(*whole.body() == content, "{range}");
    }
    let head = client::request(Method::HEAD, &path, &[("range", "bytes=0-1,3-4")]);
    let head = client::send(envoy.address, head).await;
    assert_eq!(head.headers()["content-length"], content.len().to_string());

    let many: Vec<_> = (0..1025).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect();
    let refused = get(&format!("bytes={}", many.join(","))).await;
    assert_eq!(client::error_of(&refused), (400, "RANGE_INVALID".to_owned()));
    let beyond = get("bytes=6291456-6291457,6291460-").await;
    assert_eq!(client::error_of(&beyond), (416, "RANGE_INVALID".to_owned()));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn ranges_are_refused_where_more_lies_between_them_than_may_be_read() {
    // More than a worker's whole allowance.
    const SIZE: usize = 1100 * MIB;
    let root = TempDir::new().expect("a temporary folder");
    let (_store, envoy, path) = with_zeros(root.path(), SIZE).await;
    let get = async |range: &str| client::get(envoy.address, &path, &[("range", range)]).await;
    for range in [format!("bytes=0-0,{}-{}", SIZE - 1, SIZE - 1), "bytes=0-0,-1".to_owned()] {
        let refused = get(&range).await;
        assert_eq!(client::error_of(&refused), (400, "RANGE_INVALID".to_owned()), "{range}");
    }
    // What was given up at the store leaves others as they are.
    let part = |first| (format!("{first}-{first}/{SIZE}"), Bytes::from_static(b"\0"));
    let near = get("bytes=0-0,20000000-20000000").await;
    assert_eq!(parts_of(&near), [part(0), part(20_000_000)]);
    assert_eq!(get("bytes=5-6").await.body().len(), 2);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn several_ranges_take_the_blobs_link_and_one_stream() {
    let mut tree = Tree::default();
    let digest = tree.put_blob("a", b"0123456789");
    let store = StandIn::start(tree, |_, _| Behaviour::Serve).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let path = format!("/v2/a/blobs/{digest}");
    // The stand-in knows no ranges and sends the whole object.
    let response = client::get(envoy.address, &path, &[("range", "bytes=1-2,5-7")]).await;
    let parts = [("1-2/10", "12"), ("5-7/10", "567")];
    let parts =
        parts.map(|(range, bytes)| (range.to_owned(), Bytes::from_static(bytes.as_bytes())));
    assert_eq!(parts_of(&response), parts);
    let requests = store.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(requests[0].contains("/_layers/") && requests[1].ends_with("/data"), "{requests:?}");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_client_notices_when_the_store_breaks_off_between_parts() {
    let mut tree = Tree::default();
    let digest = tree.put_blob("a", b"0123456789");
    let store = StandIn::start(tree, |key, _| match key.ends_with("/data") {
        true => Behaviour::Truncate,
        false => Behaviour::Serve,
    });
    let store = store.await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let path = format!("/v2/a/blobs/{digest}");
    let request = client::request(Method::GET, &path, &[("range", "bytes=1-2,8-9")]);
    let response = client::open(envoy.address, request).await.expect("a response");
    if response.status() == 206 {
        let body = within("the end of the answer", response.into_body().collect()).await;
        assert!(body.is_err(), "half of a blob passed for two parts of it");
    } else {
        // Envoy knew it before it had sent anything.
        assert_eq!(response.status(), 503);
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn parts_that_nobody_reads_do_not_stay_in_envoys_memory() {
    const SIZE: u64 = 512 * MIB as u64;
    const CLIENTS: usize = 32;
    let root = TempDir::new().expect("a temporary folder");
    let (_store, envoy, path) = with_zeros(root.path(), SIZE as usize).await;
    client::get(envoy.address, "/v2/a/manifests/none", &[]).await;
    let range = format!("bytes=0-{},{}-", SIZE / 2, SIZE / 2 + 100_000);
    let before = envoy.memory("VmRSS");

    let mut idle = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(envoy.address).await.expect("Envoy listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: registry\r\nrange: {range}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("Envoy reads");
        // The answer has begun.
        stream.readable().await.expect("Envoy answers");
        idle.push(stream);
    }
    // Another one is served meanwhile, and gets all that it asked for.
    let request = client::request(Method::GET, &path, &[("range", &range)]);
    let response = client::open(envoy.address, request).await.expect("a response");
    let announced = response.headers()["content-length"].to_str().expect("text").to_owned();
    let mut body = response.into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame.expect("the body goes on").into_data().expect("data").len() as u64;
    }
    assert_eq!(received.to_string(), announced);
    assert!(received > SIZE - 100_000 && received < SIZE - 99_000, "{received} bytes");
    let growth = envoy.memory("VmHWM").saturating_sub(before) / MIB as u64;
    println!("Envoy grew by {growth} MiB while {CLIENTS} clients did not read");
    // Each may fill Envoy's buffers for one stream.
    assert!(growth < 4 * CLIENTS as u64, "Envoy grew by {growth} MiB");
}
