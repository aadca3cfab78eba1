//! The plugin: its configuration, and what it does not start without.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy};
use crate::filter::host::CallError;
use crate::filter::plugin::Plugin;
use crate::filter::scripted_host::ScriptedHost;

#[test]
fn a_plugin_starts_only_with_all_that_it_needs() {
    let prepared = |prepare: fn(&ScriptedHost)| {
        let host = ScriptedHost::default();
        prepare(&host);
        host
    };
    for (host, config, starts) in [
        (prepared(|_| ()), CONFIG, true),
        (prepared(|_| ()), "{}", false),
        (prepared(|host| host.state().has_no_random = true), CONFIG, false),
        (prepared(|host| host.state().refuses_queues = true), CONFIG, false),
        (prepared(|host| host.state().faster_workers = 3), CONFIG, true),
        (prepared(|host| host.state().faster_workers = 5_000), CONFIG, true),
    ] {
        let mut plugin = Plugin::new(host.clone());
        assert_eq!(plugin.configure(config.as_bytes()), starts, "{config}");
        assert_eq!(plugin.create_filter(2).is_some(), starts, "no filter without a configuration");
        assert_eq!(host.state().tick_period.is_some(), starts);
    }
}

#[test]
fn every_plugin_has_a_queue_of_its_own_and_ids_that_no_other_gives() {
    let host = ScriptedHost::default();
    let mut first = Proxy::beside(&host, CONFIG, 100);
    let mut second = Proxy::beside(&host, CONFIG, 200);
    assert_eq!(host.state().shared["moorage/queues"].0, Some(2_u64.to_le_bytes().to_vec()));
    let locations = [first.begin_upload(), second.begin_upload(), first.begin_upload()];
    assert!(locations[0] != locations[1] && locations[0] != locations[2], "{locations:?}");
}

#[test]
fn a_store_that_envoy_has_no_cluster_for_is_unavailable() {
    let mut proxy = Proxy::new(CONFIG);
    proxy.host.state().refuses_calls = Some(CallError::NoSuchCluster);
    let id = proxy.ask("GET", "/v2/a/manifests/t", &[]);
    assert_eq!(proxy.outcome(id), (503, "UNAVAILABLE".to_owned()));
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn a_request_whose_path_or_method_is_no_text_is_for_no_endpoint() {
    for (method, path) in
        [(&b"GET"[..], &b"/v2/\xff"[..]), (b"G T", b"/v2/"), (b"GET", "/v2/\u{fffd}".as_bytes())]
    {
        let mut proxy = Proxy::new(CONFIG);
        let headers = [(":method", method), (":path", path)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_vec()));
        let id = proxy.begin_with("192.0.2.1:1", headers.to_vec(), false);
        if proxy.reply(id).is_none() {
            proxy.send(id, b"", true);
        }
        assert_eq!(proxy.outcome(id).0, 404);
        proxy.close(id);
        proxy.assert_idle();
    }
}
