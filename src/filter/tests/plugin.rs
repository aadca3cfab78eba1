//! The plugin: its configuration, and what it does not start without.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy};
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
    proxy.host.state().has_no_cluster = true;
    let id = proxy.ask("GET", "/v2/a/manifests/t", &[]);
    assert_eq!(proxy.outcome(id), (503, "UNAVAILABLE".to_owned()));
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn a_path_that_is_no_text_is_no_endpoint() {
    let mut proxy = Proxy::new(CONFIG);
    let id = proxy.begin("GET", "/v2/", &[], false);
    proxy.close(id);
    let id = proxy.ask("GET", "\u{fffd}", &[]);
    assert_eq!(proxy.outcome(id).0, 404);
}
