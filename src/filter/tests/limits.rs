//! What requests may hold, all together and of one client, and that they hold it no longer than they have to.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy, config_with};
use super::store::REPOSITORY;
use crate::store::{Purpose, Reservation};

const KIB: usize = 1024;

/// The least memory that there may be: 32 MiB for each purpose, and 8 MiB for a client.
const LEAST_MEMORY: &str = r#""limits":{"memory_bytes":134217728,"streams_per_client":10000}"#;

/// The same, where clients are not told apart.
const ANY_CLIENT: &str = r#""limits":{"memory_bytes":134217728,"streams_per_client":0}"#;

/// How many requests of one client may wait with [`LEAST_MEMORY`], of 16 KiB each.
const WAITING_OF_A_CLIENT: usize = 512;

/// A configuration with these limits and a cache.
fn cached(limits: &str) -> String {
    config_with(limits).replace("\"max_bytes\":0", "\"max_bytes\":1000000")
}

/// An index with so many bytes.
fn manifest(length: usize) -> Vec<u8> {
    let mut manifest = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
        .to_vec();
    manifest.resize(length, b' ');
    manifest
}

/// Takes all that is left for a purpose.
fn take_all(proxy: &Proxy, purpose: Purpose) -> Vec<Reservation> {
    let budget = &proxy.worker().budget;
    std::iter::from_fn(|| budget.reserve(purpose, 4 * KIB)).collect()
}

#[test]
fn a_request_counts_while_it_waits_and_no_longer() {
    let mut proxy = Proxy::new(CONFIG);
    let digest = proxy.put(b"blob");
    let waiting = |proxy: &Proxy| proxy.worker().budget.held(Purpose::Waiting);
    for (path, is_answered) in
        [("/v2/a/manifests/t".to_owned(), true), (format!("/v2/a/blobs/{digest}"), false)]
    {
        let id = proxy.begin("GET", &path, &[], true);
        assert_eq!(waiting(&proxy), 16 * KIB);
        proxy.answer_calls();
        assert_eq!(proxy.reply(id).is_some(), is_answered);
        assert_eq!(waiting(&proxy), 0, "a reply or a stream does not wait");
        proxy.close(id);
    }
    let id = proxy.begin("GET", "/v2/", &[], true);
    assert_eq!((proxy.outcome(id).0, waiting(&proxy)), (200, 0));
}

#[test]
fn what_waits_is_refused_where_there_is_no_memory_for_it() {
    let mut proxy = Proxy::new(&config_with(LEAST_MEMORY));
    let location = proxy.begin_upload();
    let all = take_all(&proxy, Purpose::Waiting);
    // The upload would go on to the store at once.
    for (method, path) in
        [("GET", "/v2/a/manifests/t"), ("PUT", "/v2/a/manifests/t"), ("PATCH", &location)]
    {
        let id = proxy.begin(method, path, &[], method == "GET");
        assert_eq!(proxy.outcome(id), (503, "UNAVAILABLE".to_owned()));
        proxy.close(id);
        assert_eq!(proxy.open_calls().len(), 0);
    }
    let id = proxy.begin("GET", "/v2/", &[], true);
    assert_eq!(proxy.outcome(id).0, 200, "this one does not wait");
    proxy.close(id);
    drop(all);
    proxy.assert_idle();
}

#[test]
fn a_client_has_so_many_requests_that_wait_and_no_more() {
    let mut proxy = Proxy::new(&config_with(LEAST_MEMORY));
    let path = "/v2/a/manifests/t";
    let ids: Vec<u32> =
        (0..WAITING_OF_A_CLIENT).map(|_| proxy.begin("GET", path, &[], true)).collect();
    assert!(ids.iter().all(|id| proxy.reply(*id).is_none()));
    let refused = proxy.begin("GET", path, &[], true);
    assert_eq!(proxy.outcome(refused), (429, "TOOMANYREQUESTS".to_owned()));
    let other = proxy.begin_from("192.0.2.2:1", "GET", path, &[], true);
    assert!(proxy.reply(other).is_none());
    proxy.answer_calls();
    // They are answered, and their replies are so small that they do not count.
    let next = proxy.begin("GET", path, &[], true);
    assert!(proxy.reply(next).is_none());
    for id in ids.into_iter().chain([refused, other, next]) {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn a_download_is_counted_as_a_stream_and_not_as_a_request_that_waits() {
    let mut proxy = Proxy::new(&config_with(LEAST_MEMORY));
    let path = format!("/v2/a/blobs/{}", proxy.put(b"blob"));
    let ids: Vec<u32> = (0..=WAITING_OF_A_CLIENT).map(|_| proxy.ask("GET", &path, &[])).collect();
    let waiting = proxy.begin("GET", "/v2/a/manifests/t", &[], true);
    assert!(ids.iter().chain([&waiting]).all(|id| proxy.reply(*id).is_none()));
    for id in ids.into_iter().chain([waiting]) {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn uploads_and_downloads_of_a_client_are_streams() {
    let config = config_with(r#""limits":{"streams_per_client":2}"#);
    let mut proxy = Proxy::new(&config);
    let path = format!("/v2/a/blobs/{}", proxy.put(b"blob"));
    let location = proxy.begin_upload();
    let upload = proxy.begin("PATCH", &location, &[], false);
    let download = proxy.ask("GET", &path, &[]);
    assert!(proxy.reply(upload).is_none() && proxy.reply(download).is_none());
    let refused = [proxy.ask("GET", &path, &[]), proxy.begin("PATCH", &location, &[], false)];
    for id in refused {
        assert_eq!(proxy.outcome(id), (429, "TOOMANYREQUESTS".to_owned()));
        proxy.close(id);
    }
    proxy.close(download);
    let next = proxy.ask("GET", &path, &[]);
    assert!(proxy.reply(next).is_none(), "there is room for one again");
    for id in [upload, next] {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn a_body_is_counted_as_long_as_its_handler_has_it() {
    let mut proxy = Proxy::new(CONFIG);
    let bodies = |proxy: &Proxy| proxy.worker().budget.held(Purpose::Bodies);
    let id = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
    proxy.send(id, &manifest(10_000), false);
    assert_eq!(bodies(&proxy), 10_000);
    proxy.send(id, b"", true);
    assert_eq!((proxy.reply(id), bodies(&proxy)), (None, 10_000));
    proxy.answer_calls();
    assert_eq!((proxy.outcome(id).0, bodies(&proxy)), (201, 0));
}

#[test]
fn a_reply_of_more_than_4_kib_counts() {
    for (length, counted) in [(4 * KIB, 0), (4 * KIB + 1, 4 * KIB + 1)] {
        let mut proxy = Proxy::new(CONFIG);
        let digest = proxy.put(&manifest(length));
        let id = proxy.ask("GET", &format!("/v2/a/manifests/{digest}"), &[]);
        assert_eq!(proxy.reply(id).expect("a reply").body.len(), length);
        assert_eq!(proxy.worker().budget.held(Purpose::Replies), counted);
        proxy.close(id);
        proxy.assert_idle();
    }
}

#[test]
fn a_client_that_does_not_take_its_replies_gets_no_more_of_them() {
    let mut proxy = Proxy::new(&cached(LEAST_MEMORY));
    let path = format!("/v2/a/manifests/{}", proxy.put(&manifest(64 * KIB)));
    // 8 MiB are for one client.
    let ids: Vec<u32> = (0..128).map(|_| proxy.ask("GET", &path, &[])).collect();
    assert!(ids.iter().all(|id| proxy.outcome(*id).0 == 200));
    let refused = proxy.ask("GET", &path, &[]);
    assert_eq!(proxy.outcome(refused), (429, "TOOMANYREQUESTS".to_owned()));
    for id in ids.into_iter().chain([refused]) {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn manifests_are_streamed_once_more_than_half_of_the_memory_for_replies_is_held() {
    let mut proxy = Proxy::new(&cached(ANY_CLIENT));
    let large = format!("/v2/a/manifests/{}", proxy.put(&manifest(64 * KIB)));
    let small = format!("/v2/a/manifests/{}", proxy.put(&manifest(4 * KIB)));
    // Half of 32 MiB, and then one more.
    for _ in 0..=256 {
        let id = proxy.ask("GET", &large, &[]);
        assert_eq!(proxy.outcome(id).0, 200);
    }
    let streamed = proxy.ask("GET", &large, &[]);
    assert!(proxy.reply(streamed).is_none() && proxy.path(streamed).ends_with("/data"));
    let answered = proxy.ask("GET", &small, &[]);
    assert_eq!(proxy.outcome(answered).0, 200);
}

#[test]
fn a_reply_for_which_there_is_no_memory_is_refused() {
    let mut proxy = Proxy::new(&config_with(ANY_CLIENT));
    for number in 0..200 {
        let tag = format!("{number}{}", "x".repeat(40));
        let link = format!("{REPOSITORY}/_manifests/tags/{tag}/current/link");
        proxy.objects.insert(link, b"sha256:0".to_vec());
    }
    let listed = proxy.ask("GET", "/v2/a/tags/list", &[]);
    assert_eq!(proxy.outcome(listed).0, 200);
    let length = proxy.reply(listed).expect("a reply").body.len();
    assert_eq!(proxy.worker().budget.held(Purpose::Replies), length);
    proxy.close(listed);
    let all = take_all(&proxy, Purpose::Replies);
    let refused = proxy.ask("GET", "/v2/a/tags/list", &[]);
    assert_eq!(proxy.outcome(refused), (503, "UNAVAILABLE".to_owned()));
    proxy.close(refused);
    drop(all);
    proxy.assert_idle();
}

#[test]
fn bodies_that_are_late_are_looked_for_once_in_a_second() {
    let mut proxy = Proxy::new(&config_with(r#""limits":{"body_timeout":1}"#));
    // The configuration was the first tick, and with the tenth they are looked for.
    (0..9).for_each(|_| proxy.tick());
    let id = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
    proxy.host.state().now += std::time::Duration::from_secs(1);
    (0..9).for_each(|_| proxy.tick());
    assert!(proxy.reply(id).is_none());
    proxy.tick();
    assert_eq!(proxy.outcome(id).0, 408);
}
