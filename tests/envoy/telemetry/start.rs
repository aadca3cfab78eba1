//! What the log says when an Envoy begins, and of its store: once, however many workers there are.

use std::net::{IpAddr, UdpSocket};

use futures::future::join_all;
use moorage_test_support::digest_of;
use moorage_test_support::process::note;
use moorage_test_support::raw;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

use super::*;

const WORKERS: usize = 4;

/// One whose log has what is said at the start, with four workers.
fn talkative(bootstrap: Bootstrap) -> Bootstrap {
    bootstrap.logging("info").workers(WORKERS).balanced()
}

/// How many lines of the log have this in them.
fn told(envoy: &Envoy, text: &str) -> usize {
    envoy.log().lines().filter(|line| line.contains(text)).count()
}

/// Has every worker answer: so many connections that are open at the same time go to all of them.
async fn use_all_workers(registry: SocketAddr) {
    let connections = (0..WORKERS).map(|_| async move {
        raw::begin([127, 0, 0, 1].into(), registry, "HEAD /v2/ HTTP/1.1").await
    });
    let connections = join_all(connections).await;
    for stream in connections {
        wait_for("an answer", async || stream.readable().await.ok()).await;
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_log_says_once_what_is_on_and_what_is_dangerous() {
    let fields = r#""cache": { "tag_ttl": "30s" }, "read_only": true"#;
    let rows: [(&str, &[&str], &[&str]); 2] = [
        (
            r#""cache": { "max_bytes": 0 }"#,
            &[
                "Moorage 0.",
                "access off, cache off, stale answers off, events off",
                "mount is not off",
            ],
            &["cache.tag_ttl is set"],
        ),
        (fields, &["Moorage 0.", ", read only", "mount is not off", "cache.tag_ttl is set"], &[]),
    ];
    for (fields, once, never) in rows {
        let registry = Registry::start(|it| talkative(it.with_fields(fields))).await;
        use_all_workers(registry.envoy.address).await;
        for text in once {
            assert_eq!(told(&registry.envoy, text), 1, "{text}: {}", registry.envoy.log());
        }
        for text in never.iter().chain(&["not on loopback"]) {
            assert_eq!(told(&registry.envoy, text), 0, "{text}: {}", registry.envoy.log());
        }
    }
}

/// An address of this machine by which others reach it; the kernel is asked, and nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address for documentation (RFC 5737).
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_listener_that_others_reach_is_warned_of_once_unless_there_is_access_control() {
    let Some(address) = own_address().filter(|address| !address.is_loopback()) else {
        return note(
            "left out what needs an address other than loopback, which this machine has not",
        );
    };
    let listener = "      address:\n        socket_address: { address: 127.0.0.1, port_value: 0 }";
    let open = listener.replace("127.0.0.1", "0.0.0.0");
    let access = moorage_test_support::accounts::access().await;
    for has_access in [false, true] {
        let registry = Registry::start(|bootstrap| {
            let bootstrap = talkative(bootstrap.with(listener, &open));
            if has_access { bootstrap.with_access(&access) } else { bootstrap }
        });
        let registry = registry.await;
        let warning = "this listener is not on loopback";
        use_all_workers(registry.envoy.address).await;
        let expected = usize::from(!has_access);
        let outside = SocketAddr::new(address, registry.envoy.address.port());
        for _ in 0..2 * WORKERS {
            client::get(outside, "/v2/", &[]).await;
        }
        assert_eq!(told(&registry.envoy, warning), expected, "{}", registry.envoy.log());
    }
}

/// Sends these requests at once, so that all workers have some, and waits until every worker has told what it knows then.
async fn use_store(envoy: &Envoy, requests: Vec<(Method, String, String)>) {
    let count = requests.len() as f64;
    // Whatever the store is, it is asked whether it heeds conditions.
    let headers = [("if-none-match", "*")];
    let sending = requests.into_iter().map(|(method, path, body)| async move {
        client::send_body(envoy.address, method, &path, &headers, body).await
    });
    join_all(sending.collect::<Vec<_>>()).await;
    // A worker tells of its store when it has handed over what it counted.
    wait_for("what was counted", async || {
        let requests = envoy.series("moorage_requests_total").await;
        let counted: f64 = requests.iter().map(|series| series.value).sum();
        (counted == count).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_log_says_once_what_the_store_turned_out_to_do_after_the_first_push() {
    let registry = Registry::start(talkative).await;
    let texts =
        ["the blob store heeds the conditions of writes", "the blob store verifies the checksums"];
    assert_eq!(texts.map(|text| told(&registry.envoy, text)), [0; 2]);
    let pushes = (0..2 * WORKERS).flat_map(|number| {
        let blob = format!("blob {number}");
        let upload = format!("/v2/a/blobs/uploads/?digest={}", digest_of(&blob));
        let path = format!("/v2/a/manifests/v{number}");
        [(Method::POST, upload, blob), (Method::PUT, path, MANIFEST.to_owned())]
    });
    use_store(&registry.envoy, pushes.collect()).await;
    wait_for("what the log says", async || {
        let counts = texts.map(|text| told(&registry.envoy, text));
        assert!(counts.iter().all(|count| *count <= 1), "{}", registry.envoy.log());
        (counts == [1; 2]).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_store_that_heeds_no_conditions_is_warned_of_once() {
    // It takes every write, whatever there is already.
    let store = StandIn::start(Tree::default(), |_, _| Behaviour::Serve).await;
    let envoy = Envoy::start(&talkative(Bootstrap::new(store.address))).await;
    let push = |number| (Method::PUT, format!("/v2/a/manifests/v{number}"), MANIFEST.to_owned());
    use_store(&envoy, (0..2 * WORKERS).map(push).collect()).await;
    wait_for("the warning", async || {
        let warnings = told(&envoy, "conditions of writes");
        assert!(warnings <= 1, "{}", envoy.log());
        (warnings == 1).then_some(())
    })
    .await;
}
