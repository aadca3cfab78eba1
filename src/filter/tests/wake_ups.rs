//! Storage calls, whose responses come to one stream or another, and streams that wait for each other's reads.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy};
use crate::filter::scripted_host::{ROOT, ScriptedHost};
use crate::oci::Digest;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

/// A configuration with a cache, by which streams share their reads.
fn cached() -> String {
    CONFIG.replace("\"max_bytes\":0", "\"max_bytes\":1000000")
}

/// A proxy with a manifest that so many clients ask for at the same time.
fn asked_by(count: usize) -> (Proxy, Digest, Vec<u32>) {
    let mut proxy = Proxy::new(&cached());
    let digest = proxy.put(MANIFEST);
    let path = format!("/v2/a/manifests/{digest}");
    let ids = (0..count).map(|_| proxy.begin("GET", &path, &[], true)).collect();
    (proxy, digest, ids)
}

fn answered(proxy: &Proxy, ids: &[u32]) -> usize {
    ids.iter().filter(|id| proxy.reply(**id).is_some()).count()
}

/// Answers the open calls and calls nobody else back.
fn answer_open_calls(proxy: &mut Proxy, digest: &Digest) {
    for call in proxy.open_calls() {
        let body = if call.path.ends_with("/data") { MANIFEST } else { digest.as_str().as_bytes() };
        proxy.report(call.token, Some(200), body);
    }
}

#[test]
fn streams_that_share_a_read_are_woken_by_the_plugin_and_never_from_within_the_one_that_read() {
    let (mut proxy, digest, ids) = asked_by(3);
    assert_eq!(proxy.open_calls().len(), 2, "the link and the content, once for all");
    answer_open_calls(&mut proxy, &digest);
    assert_eq!(answered(&proxy, &ids), 1, "whoever read has its answer");
    assert!(proxy.run_queue());
    assert_eq!(answered(&proxy, &ids), 3);
    assert!(ids.iter().all(|id| proxy.outcome(*id).0 == 200));
    for id in ids {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn no_more_than_16_streams_go_on_in_one_callback() {
    let (mut proxy, digest, ids) = asked_by(40);
    answer_open_calls(&mut proxy, &digest);
    let mut counts = vec![answered(&proxy, &ids)];
    while proxy.run_queue() {
        counts.push(answered(&proxy, &ids));
    }
    assert!(counts.windows(2).all(|pair| pair[1] - pair[0] <= 16), "{counts:?}");
    assert_eq!(counts.last(), Some(&40));
}

#[test]
fn a_stream_that_is_gone_when_it_would_be_woken_is_passed_over() {
    let (mut proxy, digest, mut ids) = asked_by(4);
    proxy.close(ids.remove(1));
    answer_open_calls(&mut proxy, &digest);
    proxy.close(ids.remove(2));
    while proxy.run_queue() {}
    assert_eq!(answered(&proxy, &ids), 2);
}

#[test]
fn when_the_one_that_reads_goes_away_another_reads() {
    let (mut proxy, _, mut ids) = asked_by(3);
    proxy.close(ids.remove(0));
    assert_eq!(proxy.open_calls().len(), 0, "the calls died with it");
    proxy.answer_calls();
    assert_eq!(answered(&proxy, &ids), 2);
    let calls = proxy.host.state().calls.clone();
    assert!(
        calls[2..].iter().all(|call| call.reported_to == ROOT),
        "what a woken stream asks for is reported to the plugin that woke it"
    );
    for id in ids {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn a_response_that_is_reported_to_the_plugin_goes_on_with_its_stream_at_once() {
    let (mut proxy, digest, mut ids) = asked_by(2);
    proxy.close(ids.remove(0));
    assert!(proxy.run_queue(), "the other one reads now");
    answer_open_calls(&mut proxy, &digest);
    assert_eq!(answered(&proxy, &ids), 1, "there was no need for another callback");
}

#[test]
fn two_plugins_in_one_vm_wake_their_own_streams() {
    let host = ScriptedHost::default();
    let mut first = Proxy::beside(&host, &cached(), 100);
    let mut second = Proxy::beside(&host, &cached(), 200);
    let digest = first.put(MANIFEST);
    let path = format!("/v2/a/manifests/{digest}");
    let of_first = [(); 2].map(|()| first.begin("GET", &path, &[], true));
    let of_second = [(); 2].map(|()| second.begin("GET", &path, &[], true));
    for call in first.open_calls() {
        let body = if call.path.ends_with("/data") { MANIFEST } else { digest.as_str().as_bytes() };
        let proxy = if call.owner < 200 { &mut first } else { &mut second };
        proxy.report(call.token, Some(200), body);
    }
    assert_eq!((answered(&first, &of_first), answered(&second, &of_second)), (1, 1));
    assert!(second.run_queue());
    assert_eq!((answered(&first, &of_first), answered(&second, &of_second)), (1, 2));
    assert!(first.run_queue());
    assert_eq!(answered(&first, &of_first), 2);
    assert!(!first.run_queue() && !second.run_queue());
}

#[test]
fn a_response_that_is_reported_to_another_stream_reaches_the_one_that_asked() {
    let mut proxy = Proxy::new(CONFIG);
    let asking = proxy.begin("GET", "/v2/a/tags/list", &[], true);
    let other = proxy.begin("GET", "/v2/b/tags/list", &[], true);
    let call = proxy.open_calls().remove(0);
    assert_eq!(call.reported_to, asking);
    proxy.host.state().calls[call.token as usize].reported_to = other;
    proxy.report(call.token, Some(503), b"");
    assert!(proxy.reply(other).is_none(), "it is not the other's answer");
    proxy.answer_calls();
    assert_eq!(proxy.outcome(asking), (503, "UNAVAILABLE".to_owned()));
    for id in [asking, other] {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn a_late_response_to_a_stream_that_is_gone_is_dropped() {
    let mut proxy = Proxy::new(CONFIG);
    let id = proxy.begin("GET", "/v2/a/tags/list", &[], true);
    let call = proxy.open_calls().remove(0);
    proxy.close(id);
    proxy.host.state().calls[call.token as usize].is_open = true;
    proxy.host.state().calls[call.token as usize].reported_to = ROOT;
    proxy.report(call.token, Some(200), b"<ListBucketResult></ListBucketResult>");
    proxy.assert_idle();
}

#[test]
fn a_broken_connection_is_tried_once_more_and_then_told() {
    let mut proxy = Proxy::new(CONFIG);
    let id = proxy.begin("GET", "/v2/a/tags/list", &[], true);
    for _ in 0..2 {
        assert!(proxy.reply(id).is_none());
        let call = proxy.open_calls().remove(0);
        // Envoy reports a broken connection, and a response that is too large, by one without headers.
        proxy.report(call.token, None, b"");
    }
    assert_eq!(proxy.outcome(id), (503, "UNAVAILABLE".to_owned()));
}
