//! The page of metrics: what it names, with which labels, and who is who among the workers.

use std::collections::BTreeSet;
use std::fs;

use moorage_test_support::digest_of;
use moorage_test_support::documented_metrics::{Kind, Table};
use moorage_test_support::metrics_page::Series;
use moorage_test_support::process::tool;
use moorage_test_support::raw;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// What takes a store that goes away, a cache that is full, receivers of events, or access control: `tests/monitoring/` has
/// these.
const NOT_HERE: &[&str] = &["moorage_cache_evictions_total", "moorage_cache_stale_total"];

/// A client that chooses words which no page may have.
const CLIENTS_WORD: &str = "chosen-by-a-client";

/// Something of everything.
async fn use_it(registry: &Registry) {
    let blob = digest_of("a blob");
    let name = format!("/v2/{CLIENTS_WORD}");
    let put = format!("{name}/manifests/{CLIENTS_WORD}");
    registry.expect(201, Method::PUT, &put, MANIFEST).await;
    for _ in 0..2 {
        registry.expect(200, Method::GET, &put, "").await;
    }
    registry.expect(200, Method::HEAD, &put, "").await;
    registry.expect(404, Method::GET, &format!("{name}/manifests/none"), "").await;
    let upload = format!("{name}/blobs/uploads/?digest={blob}");
    registry.expect(201, Method::POST, &upload, "a blob").await;
    let begun = registry.expect(202, Method::POST, &format!("{name}/blobs/uploads/"), "").await;
    let appended = registry.expect(202, Method::PATCH, &location(&begun), "a blob").await;
    registry.expect(204, Method::DELETE, &location(&appended), "").await;
    registry.expect(200, Method::GET, &format!("{name}/blobs/{blob}"), "").await;
    registry.expect(200, Method::GET, &format!("{name}/tags/list"), "").await;
    registry.expect(200, Method::GET, "/healthz", "").await;
    registry.expect(200, Method::GET, "/readyz", "").await;
    registry.expect(404, Method::GET, &format!("/{CLIENTS_WORD}"), "").await;
    // By HTTP/1.1 Envoy takes only methods that it knows.
    let method = Method::from_bytes(CLIENTS_WORD.to_ascii_uppercase().as_bytes()).expect("a token");
    let request = client::request(method, &format!("http://registry{put}"), &[]);
    let strange = client::open_http2(registry.envoy.address, request).await.expect("an answer");
    assert_eq!(strange.status(), 405);
}

/// The metric that a series is of; it has to be documented, and to have just the labels that are.
fn checked<'a>(table: &'a Table, series: &Series) -> &'a str {
    let metric = table.metric_of(&series.name);
    let metric = metric.unwrap_or_else(|| panic!("{series:?} is not documented"));
    let found: BTreeSet<&str> = series.labels.keys().map(String::as_str).collect();
    let mut expected = table.labels_of(&series.name).expect("a documented metric");
    // Those that Prometheus sets.
    expected.remove("job");
    expected.remove("instance");
    assert_eq!(found, expected, "{series:?}");
    for (label, value) in &series.labels {
        let values = table.values_of(&series.name, label);
        assert!(values.is_none_or(|values| values.contains(value)), "{series:?}: {label}");
        assert!(!value.to_lowercase().contains(CLIENTS_WORD), "{series:?}");
    }
    metric
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn every_metric_has_its_labels_and_none_that_a_client_chose() {
    let table = Table::documented();
    let own = table.own().filter(|(name, _)| !NOT_HERE.contains(name));
    let own: BTreeSet<&str> = own.map(|(name, _)| name).collect();
    assert!(own.len() > 15, "the table was not read: {own:?}");
    let bootstraps: [(&str, fn(SocketAddr) -> Bootstrap); 2] =
        [("local", Bootstrap::new), ("production", |store| Bootstrap::production_before(&[store]))];
    for (name, bootstrap) in bootstraps {
        let registry = Registry::start_on(bootstrap).await;
        use_it(&registry).await;
        let page = wait_for("all metrics", async || {
            let page = registry.envoy.series("moorage_").await;
            let found: BTreeSet<&str> = page.iter().map(|series| checked(&table, series)).collect();
            // Histograms come with Envoy's next flush.
            let has_all = own.difference(&found).next().is_none();
            has_all.then_some(page)
        })
        .await;
        let others = registry.envoy.series("").await;
        let raw: Vec<_> = others.iter().filter(|it| it.name.contains("wasmcustom")).collect();
        assert!(raw.is_empty(), "{name}: {raw:?}");
        for (name, kind) in table.own() {
            let bucket = format!("{name}_bucket");
            let is_there = |name: &str| page.iter().any(|series| series.name == name);
            assert!(kind != Kind::Histogram || is_there(&bucket), "{bucket}");
        }
    }
}

/// The numbers of the workers that the page has, and what they hold in their caches together.
async fn workers(envoy: &Envoy) -> (BTreeSet<String>, f64) {
    let caches = envoy.series("moorage_cache_bytes").await;
    let held = caches.iter().map(|series| series.value).sum();
    let memory = envoy.series("moorage_memory_").await;
    let numbers = caches.iter().chain(&memory).map(|series| series.labels["worker"].clone());
    (numbers.collect(), held)
}

/// Sends a request by a connection to each worker, and gives the statuses.
async fn ask_each_worker<const N: usize>(envoy: &Envoy, request_line: &str) -> [u16; N] {
    let mut connections = Vec::new();
    for _ in 0..N {
        let mut stream = raw::connect_from([127, 0, 0, 1].into(), envoy.address).await;
        // The next connection goes elsewhere only when this one is somewhere.
        stream
            .write_all(b"HEAD /healthz HTTP/1.1\r\nhost: registry\r\n\r\n")
            .await
            .expect("it reads");
        head(&mut stream).await;
        connections.push(stream);
    }
    let mut statuses = [0; N];
    for (stream, status) in connections.iter_mut().zip(&mut statuses) {
        let request = format!("{request_line} HTTP/1.1\r\nhost: registry\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        *status = head(stream).await;
    }
    statuses
}

/// Reads to the end of an answer's headers, and gives its status.
async fn head(stream: &mut TcpStream) -> u16 {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("an answer"));
    }
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

fn numbers(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_worker_that_was_loaded_anew_has_the_number_of_the_one_before() {
    // Moorage, but that a body of an answer takes it to a callback for what is no stream: there it panics.
    let mut module = fs::read(tool("MOORAGE_WASM")).expect("the module");
    exchange(&mut module, b"proxy_on_response_body", b"proxy_on_upstream_data");
    let folder = TempDir::new().expect("a temporary folder");
    let trapping = folder.path().join("trapping.wasm");
    fs::write(&trapping, module).expect("a file");
    let path = |path: &std::path::Path| path.to_str().expect("the path is text").to_owned();
    let registry = Registry::start(|bootstrap| {
        bootstrap.with(&path(&tool("MOORAGE_WASM")), &path(&trapping)).workers(2).balanced()
    });
    let registry = registry.await;
    let envoy = &registry.envoy;
    let tag = "/v2/a/manifests/v1";
    registry.expect(201, Method::PUT, tag, MANIFEST).await;
    assert_eq!(ask_each_worker::<2>(envoy, &format!("HEAD {tag}")).await, [200; 2]);
    let both = wait_for("both workers' numbers", async || {
        let (numbers, held) = workers(envoy).await;
        (numbers.len() == 2 && held > 0.0).then_some(numbers)
    });
    assert_eq!(both.await, numbers(2));

    ask_each_worker::<2>(envoy, "GET /v2/").await;
    wait_for("both workers to be loaded anew", async || {
        // Envoy loads a module anew when the next request comes, and it has paused.
        ask_each_worker::<2>(envoy, "HEAD /v2/").await;
        (envoy.stat("wasm.moorage.vm_reload_success").await == 2).then_some(())
    })
    .await;
    // What the workers before had cached goes from the page when those after them have said what they have.
    let after = wait_for("the workers' numbers", async || {
        assert_eq!(ask_each_worker::<2>(envoy, "HEAD /v2/").await, [200; 2]);
        let (numbers, held) = workers(envoy).await;
        assert!(numbers.len() <= 2, "{numbers:?}");
        (held == 0.0).then_some(numbers)
    });
    assert_eq!(after.await, numbers(2));
}

/// Exchanges two texts of one length, each of which is there once.
fn exchange(bytes: &mut [u8], first: &[u8], second: &[u8]) {
    let place = |bytes: &[u8], text: &[u8]| {
        let places: Vec<usize> =
            (0..bytes.len()).filter(|place| bytes[*place..].starts_with(text)).collect();
        assert_eq!(places.len(), 1, "{}", String::from_utf8_lossy(text));
        places[0]
    };
    let places = (place(bytes, first), place(bytes, second));
    bytes[places.0..places.0 + first.len()].copy_from_slice(second);
    bytes[places.1..places.1 + second.len()].copy_from_slice(first);
}
