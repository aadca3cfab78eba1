//! Bodies that the filter takes in itself: manifests, and what no request takes.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy, config_with};
use crate::filter::host::Action;

const MANIFEST: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

#[test]
fn a_manifest_is_taken_in_as_it_comes_and_put_when_it_is_whole() {
    for ends_with_trailers in [false, true] {
        let mut proxy = Proxy::new(CONFIG);
        let id = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
        for piece in MANIFEST.as_bytes().chunks(7) {
            assert_eq!(proxy.send(id, piece, false), Action::Pause);
            // Nothing of it stays in Envoy, and nothing goes on.
            proxy.with(id, |stream| assert!(stream.request_body.is_empty()));
        }
        if ends_with_trailers {
            assert_eq!(proxy.send_trailers(id), Action::Pause);
        } else {
            proxy.send(id, b"", true);
        }
        proxy.answer_calls();
        assert_eq!(proxy.outcome(id).0, 201);
        proxy.with(id, |stream| assert!(stream.sent_on.is_empty()));
        proxy.close(id);
        proxy.assert_idle();
        let got = proxy.ask("GET", "/v2/a/manifests/t", &[]);
        assert_eq!(proxy.reply(got).expect("a reply").body, MANIFEST.as_bytes());
    }
}

#[test]
fn a_body_that_ends_early_is_refused() {
    let mut proxy = Proxy::new(CONFIG);
    let announced = (MANIFEST.len() + 1).to_string();
    let headers = [("content-length", announced.as_str())];
    let id = proxy.begin("PUT", "/v2/a/manifests/t", &headers, false);
    proxy.send(id, MANIFEST.as_bytes(), true);
    assert_eq!(proxy.outcome(id), (400, "SIZE_INVALID".to_owned()));
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn a_body_that_is_too_large_is_refused_as_soon_as_that_is_known() {
    let config = config_with(r#""manifest_max_bytes":100"#);
    let large = [b' '; 101];
    for announced in [Some("101"), None] {
        let mut proxy = Proxy::new(&config);
        let headers: Vec<_> =
            announced.map(|length| ("content-length", length)).into_iter().collect();
        let id = proxy.begin("PUT", "/v2/a/manifests/t", &headers, false);
        assert_eq!(proxy.reply(id).is_some(), announced.is_some());
        if announced.is_none() {
            proxy.send(id, &large[..100], false);
            assert!(proxy.reply(id).is_none());
            proxy.send(id, &large[100..], false);
        }
        assert_eq!(proxy.outcome(id), (413, "MANIFEST_INVALID".to_owned()));
        proxy.close(id);
        proxy.assert_idle();
    }
}

#[test]
fn bodies_beyond_the_memory_for_them_are_refused_and_those_before_go_on() {
    // A quarter of 128 MiB is for bodies, and an eighth of that for small ones alone.
    let config = config_with(
        r#""manifest_max_bytes":16777216,"limits":{"memory_bytes":134217728,"streams_per_client":0}"#,
    );
    let mut proxy = Proxy::new(&config);
    let piece = vec![b' '; 8 * 1024 * 1024];
    let ids = [(); 4].map(|()| proxy.begin("PUT", "/v2/a/manifests/t", &[], false));
    for id in &ids[..3] {
        proxy.send(*id, &piece, false);
        assert!(proxy.reply(*id).is_none());
    }
    proxy.send(ids[3], &piece, false);
    assert_eq!(proxy.outcome(ids[3]), (503, "UNAVAILABLE".to_owned()));
    let small = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
    proxy.send(small, MANIFEST.as_bytes(), true);
    proxy.answer_calls();
    assert_eq!(proxy.outcome(small).0, 201);
    proxy.close(small);
    proxy.send(ids[0], b"", true);
    assert_eq!(proxy.outcome(ids[0]), (400, "MANIFEST_INVALID".to_owned()));
    for id in ids {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn one_client_may_not_hold_the_memory_of_all() {
    let config = config_with(r#""limits":{"memory_bytes":134217728}"#);
    let mut proxy = Proxy::new(&config);
    let piece = vec![b' '; 3 * 1024 * 1024];
    // A sixteenth of the memory, 8 MiB, is for one client.
    let ids = [(); 3].map(|()| proxy.begin("PUT", "/v2/a/manifests/t", &[], false));
    for id in &ids[..2] {
        proxy.send(*id, &piece, false);
    }
    proxy.send(ids[2], &piece, false);
    assert_eq!(proxy.outcome(ids[2]), (429, "TOOMANYREQUESTS".to_owned()));
    let other = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
    proxy.close(other);
    for id in ids {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn a_client_has_so_many_streams_and_no_more() {
    let config = config_with(r#""limits":{"streams_per_client":2}"#);
    for (address, is_same_client) in [
        ("192.0.2.1:9", true),
        ("192.0.2.2:9", false),
        ("[2001:db8::1]:9", false),
        ("no address", false),
    ] {
        let mut proxy = Proxy::new(&config);
        let first = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
        let second = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
        assert!(proxy.reply(first).is_none() && proxy.reply(second).is_none());
        let third = begin_from(&mut proxy, address);
        assert_eq!(proxy.reply(third).map(|reply| reply.status), is_same_client.then_some(429));
        proxy.close(first);
        let fourth = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
        assert!(proxy.reply(fourth).is_none(), "a place is free again");
        for id in [second, third, fourth] {
            proxy.close(id);
        }
        proxy.assert_idle();
    }
    // Of IPv6 a client is a network of 64 bits.
    let mut proxy = Proxy::new(&config);
    let statuses = ["[2001:db8::1]:9", "[2001:db8::2]:9", "[2001:db8::3]:9", "[2001:db8:0:1::1]:9"]
        .map(|address| {
            let id = begin_from(&mut proxy, address);
            proxy.reply(id).map(|reply| reply.status)
        });
    assert_eq!(statuses, [None, None, Some(429), None]);
}

/// Begins a `PUT` of a manifest as a client of this address.
fn begin_from(proxy: &mut Proxy, address: &str) -> u32 {
    proxy.begin_from(address, "PUT", "/v2/a/manifests/t", &[], false)
}

#[test]
fn a_body_where_none_belongs_is_thrown_away_and_not_waited_for_when_it_is_large() {
    let mut proxy = Proxy::new(CONFIG);
    let small = proxy.begin("GET", "/v2/", &[("content-length", "3")], false);
    proxy.send(small, b"abc", true);
    assert_eq!(proxy.outcome(small).0, 200);
    let large = proxy.begin("GET", "/v2/", &[("content-length", "65537")], false);
    assert_eq!(proxy.outcome(large).0, 200, "nothing of it has to come");
    let endless = proxy.begin("GET", "/v2/", &[], false);
    for _ in 0..65 {
        if proxy.reply(endless).is_none() {
            proxy.send(endless, &[0; 1024], false);
        }
    }
    assert_eq!(proxy.outcome(endless).0, 200);
    for id in [small, large, endless] {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn a_body_has_its_time_and_no_more() {
    let config = config_with(r#""limits":{"body_timeout":10,"streams_per_client":0}"#);
    let mut proxy = Proxy::new(&config);
    let ids: Vec<u32> =
        (0..40).map(|_| proxy.begin("PUT", "/v2/a/manifests/t", &[], false)).collect();
    let in_time = ids[0];
    proxy.pass(9);
    assert!(ids.iter().all(|id| proxy.reply(*id).is_none()));
    proxy.send(in_time, MANIFEST.as_bytes(), true);
    proxy.answer_calls();
    proxy.pass(1);
    let late = |proxy: &Proxy| ids[1..].iter().filter(|id| proxy.reply(**id).is_some()).count();
    assert_eq!(late(&proxy), 16, "no more replies are sent from one callback");
    assert!(proxy.run_queue());
    assert_eq!(late(&proxy), 32);
    while proxy.run_queue() {}
    assert_eq!(late(&proxy), 39);
    assert_eq!(proxy.outcome(ids[1]).0, 408);
    assert_eq!(proxy.outcome(in_time).0, 201);
    for id in ids {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn a_reply_counts_until_the_client_has_it() {
    let config = config_with(r#""limits":{"memory_bytes":134217728,"streams_per_client":0}"#);
    let mut proxy = Proxy::new(&config);
    let content = format!("{}{}", MANIFEST, " ".repeat(60 * 1024));
    let digest = proxy.put(content.as_bytes());
    let path = format!("/v2/a/manifests/{digest}");
    let id = proxy.ask("GET", &path, &[]);
    assert_eq!(proxy.reply(id).expect("a reply").body.len(), content.len());
    let held = proxy.worker().budget.held(crate::store::Purpose::Replies);
    assert_eq!(held, content.len());
    proxy.close(id);
    proxy.assert_idle();
}
