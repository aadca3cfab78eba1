//! A real Prometheus scrapes a real Envoy to which everything happens: then every query of the dashboard and the
//! alerts has data, and the metrics are as docs/operations.md says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use http::Method;
use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::optional_tool;
use moorage_test_support::prometheus::Prometheus;

use crate::load::Registry;
use crate::query::Query;
use crate::{dashboard, deploy, rules};
use moorage_test_support::documented_metrics::{Kind, Table};

const SCRAPE: &str = include_str!("../../deploy/prometheus/scrape.yaml");

/// How long it may take until all has happened and was scraped.
const PATIENCE: Duration = Duration::from_secs(180);

/// Something that Prometheus must be able to tell.
struct Wanted {
    place: String,
    query: String,
    /// Whether 0 will not do.
    is_counted: bool,
}

impl Wanted {
    async fn is_there(&self, prometheus: &Prometheus) -> bool {
        let samples = prometheus.query(&self.query).await;
        let samples = samples.unwrap_or_else(|error| panic!("{}: {error}", self.place));
        let is_right = |value: f64| value.is_finite() && (!self.is_counted || value > 0.0);
        samples.iter().any(|sample| is_right(sample.value))
    }
}

fn wanted(table: &Table) -> Vec<Wanted> {
    let panels = dashboard::panels().into_iter().flat_map(|panel| {
        let place = format!("panel {:?}", panel.title);
        panel.targets.into_iter().map(move |target| (place.clone(), target.query("1m"), false))
    });
    let alerts = rules::alerts().into_iter().flat_map(|alert| {
        let parts = Query::new(&alert.expression).without_thresholds();
        let parts: Vec<String> = parts.into_iter().map(str::to_owned).collect();
        parts.into_iter().map(move |part| (format!("alert {}", alert.name), part, false))
    });
    // What a gauge has at a moment may be nothing; everything that is counted has happened.
    let metrics = table.own().map(|(name, kind)| {
        let series = match kind {
            Kind::Histogram => format!("{name}_count"),
            Kind::Counter | Kind::Gauge => name.to_owned(),
        };
        (format!("metric {name}"), format!("sum({series})"), kind != Kind::Gauge)
    });
    let all = panels.chain(alerts).chain(metrics);
    all.map(|(place, query, is_counted)| Wanted { place, query, is_counted }).collect()
}

/// The example's configuration, for this target, and more impatient.
fn configuration(target: SocketAddr) -> String {
    let rules = deploy("prometheus/moorage.rules.yaml");
    let changes = [
        ("  - moorage.rules.yaml", format!("  - {}", rules.display())),
        ("127.0.0.1:9901", target.to_string()),
        ("scrape_interval: 15s", "scrape_interval: 1s".to_owned()),
    ];
    changes.iter().fold(SCRAPE.to_owned(), |text, (piece, replacement)| {
        assert!(text.contains(piece), "{piece:?} is not in scrape.yaml");
        text.replace(piece, replacement)
    })
}

/// Nothing but the metrics passes the listener for Prometheus.
async fn assert_only_metrics_pass(page: SocketAddr) {
    for path in
        ["/", "/stats", "/config_dump", "/stats/prometheus/", "/stats/prometheus/../../certs"]
    {
        assert_eq!(client::get(page, path, &[]).await.status(), 404, "{path}");
    }
    for (method, path) in [
        (Method::POST, "/quitquitquit"),
        (Method::POST, "/stats/prometheus"),
        (Method::POST, "/logging?level=trace"),
    ] {
        let request = client::request(method.clone(), path, &[]);
        assert_eq!(client::send(page, request).await.status(), 404, "{method} {path}");
    }
    assert_eq!(client::get(page, "/stats/prometheus", &[]).await.status(), 200);
}

/// Each metric of Moorage has the labels that are documented, and no value that is not.
async fn assert_as_documented(prometheus: &Prometheus, table: &Table) {
    for (name, kind) in table.own() {
        let series = match kind {
            Kind::Histogram => format!("{name}_bucket"),
            Kind::Counter | Kind::Gauge => name.to_owned(),
        };
        let expected = table.labels_of(&series).expect("a documented metric");
        for mut labels in prometheus.series(&series).await.expect("series") {
            labels.remove("__name__");
            let found: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
            assert_eq!(found, expected, "the labels of {series}");
            for (label, value) in &labels {
                let values = table.values_of(&series, label);
                let is_known = values.is_none_or(|values| values.contains(value));
                assert!(is_known, "{series} has {label}={value:?}");
            }
        }
    }
    let all = prometheus.series(r#"{__name__=~"moorage_.*"}"#).await.expect("series");
    let names: BTreeSet<&str> = all.iter().map(|labels| labels["__name__"].as_str()).collect();
    let strange: Vec<&&str> = names.iter().filter(|name| table.metric_of(name).is_none()).collect();
    assert!(strange.is_empty(), "metrics that are not documented: {strange:?}");
}

#[tokio::test]
#[ignore = "needs Envoy and Prometheus: run ./build.sh test"]
async fn dashboard_and_alerts_have_data_of_everything_that_happens() {
    let Some(binary) = optional_tool("MOORAGE_PROMETHEUS") else { return };
    let table = Table::documented();
    let mut registry = Registry::start().await;
    let page = Envoy::start(&Bootstrap::metrics_listener(registry.envoy.admin)).await;
    assert_only_metrics_pass(page.address).await;
    let prometheus = Prometheus::start(Path::new(&binary), &configuration(page.address)).await;

    let mut missing = wanted(&table);
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        registry.round().await;
        let mut still_missing = Vec::new();
        for wanted in missing {
            if !wanted.is_there(&prometheus).await {
                still_missing.push(wanted);
            }
        }
        missing = still_missing;
        let named: Vec<String> =
            missing.iter().map(|it| format!("{}: {}", it.place, it.query)).collect();
        assert!(Instant::now() < deadline, "no data:\n{}", named.join("\n"));
    }
    assert_as_documented(&prometheus, &table).await;
    assert_eq!(registry.envoy.stat("wasm.moorage.vm_reload_success").await, 0);
}
