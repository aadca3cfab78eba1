//! The dashboard and the alerts in `deploy/`: that they name metrics which are there, that each alert fires when it
//! should and holds back when it should not, and that a real Prometheus gets all of it from a real Envoy.

#![cfg(not(target_family = "wasm"))]

mod dashboard;
mod live;
mod load;
mod query;
mod rules;

use std::collections::BTreeSet;
use std::path::Path;

use moorage_test_support::documented_metrics::{Table, section};
use moorage_test_support::process::{optional_tool, run};
use query::Query;
use tempfile::TempDir;
use tokio::process::Command;

/// All queries, each with where it stands: the dashboard's, and the alerts'.
fn queries() -> Vec<(String, String)> {
    let panels = dashboard::panels().into_iter().flat_map(|panel| {
        let title = panel.title;
        panel
            .targets
            .into_iter()
            .map(move |target| (format!("panel {title:?}"), target.query("1m")))
    });
    let alerts = rules::alerts().into_iter();
    let alerts = alerts.map(|alert| (format!("alert {}", alert.name), alert.expression));
    let variables = dashboard::variables().into_iter();
    let variables = variables.map(|(name, series, _)| (format!("variable {name}"), series));
    panels.chain(alerts).chain(variables).collect()
}

#[test]
fn dashboard_and_alerts_name_only_metrics_and_labels_that_are_documented() {
    let table = Table::documented();
    for (place, query) in queries() {
        let unknown = Query::new(&query).unknown(&table);
        assert!(unknown.is_empty(), "{place}: {unknown:?} in {query}");
    }
    for (name, series, label) in dashboard::variables() {
        let series = Query::new(&series).series();
        let labels = table.labels_of(series[0]).expect("a known metric");
        assert!(labels.contains(label.as_str()), "variable {name}");
    }
}

#[test]
fn a_name_that_is_not_documented_is_found_wherever_it_stands() {
    let table = Table::documented();
    #[rustfmt::skip]
    let rows: &[(&str, &[&str])] = &[
        ("moorage_cache_bytes", &[]),
        ("sum by (worker, le) (rate(moorage_requests_total[5m]))",
         &["the label worker of a grouping", "the label le of a grouping"]),
        ("moorage_requests", &["the metric moorage_requests"]),
        ("1 - moorage_request_total{code=\"200\"} > 0", &["the metric moorage_request_total"]),
        ("rate(moorage_requests_total{status=~\"5..\"}[5m])", &["the label status of moorage_requests_total"]),
        ("rate(moorage_requests_total{code=~\"5..\", operation!~\"health|redy\"}[5m])",
         &["operation=\"redy\" of moorage_requests_total"]),
        // A value of the label of the same name in other metrics.
        ("moorage_store_calls_total{operation=\"manifest_get\"}",
         &["operation=\"manifest_get\" of moorage_store_calls_total"]),
        // A histogram is three series, and only one of them has buckets.
        ("moorage_request_duration_milliseconds", &["the metric moorage_request_duration_milliseconds"]),
        ("sum by (le) (moorage_request_duration_milliseconds_bucket)", &[]),
        ("sum by (le) (moorage_request_duration_milliseconds_count)", &["the label le of a grouping"]),
        ("moorage_cache_bytes_bucket", &["the metric moorage_cache_bytes_bucket"]),
        ("sum(a) / on (job, purpose) group_left () moorage_memory_bytes", &["the metric a"]),
        ("sum by (kind) (moorage_cache_bytes) / sum(moorage_cache_hits_total)", &["the label kind of a grouping"]),
    ];
    for (query, expected) in rows {
        assert_eq!(Query::new(query).unknown(&table), *expected, "{query}");
    }
}

#[test]
fn an_alerts_condition_is_cut_into_what_it_compares() {
    let rows: &[(&str, &[&str])] = &[
        ("up == 0", &["up"]),
        (
            "rate(a[5m]) / rate(b[5m]) > 0.5 and sum(c) >= 10",
            &["rate(a[5m]) / rate(b[5m])", "sum(c)"],
        ),
        ("sum(a and b > 1) > 2", &["sum(a and b > 1)"]),
        ("increase(a[15m])", &["increase(a[15m])"]),
    ];
    for (query, parts) in rows {
        assert_eq!(Query::new(query).without_thresholds(), *parts, "{query}");
    }
}

#[test]
fn every_metric_of_moorage_is_on_the_dashboard() {
    let table = Table::documented();
    let panels = dashboard::panels();
    let queries: Vec<String> =
        panels.iter().flat_map(|panel| &panel.targets).map(|target| target.query("1m")).collect();
    let shown: BTreeSet<&str> = queries
        .iter()
        .flat_map(|query| Query::new(query).series())
        .filter_map(|series| table.metric_of(series))
        .collect();
    let all: BTreeSet<&str> = table.own().map(|(name, _)| name).collect();
    assert!(all.len() > 20, "the table was not read: {all:?}");
    assert_eq!(all.difference(&shown).collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn every_panel_says_what_it_shows_and_every_series_in_it_has_a_name() {
    let mut titles = BTreeSet::new();
    for panel in dashboard::panels() {
        let title = &panel.title;
        assert!(!title.is_empty() && titles.insert(title.clone()), "twice or without: {title:?}");
        assert!(panel.description.len() > 20, "{title:?} has no description");
        assert_eq!(panel.datasource, "${datasource}", "{title:?}");
        assert!(!panel.targets.is_empty(), "{title:?}");
        for target in &panel.targets {
            let query = target.query("1m");
            assert_eq!(target.datasource, "${datasource}", "{title:?}");
            assert!(!target.legend.is_empty(), "{title:?}");
            assert!(
                target.expression.contains("job=~\"$job\", instance=~\"$instance\""),
                "{title:?}"
            );
            let labels = Query::new(&query).labels_of_result();
            for label in target.labels_of_legend() {
                assert!(labels.contains(label), "{title:?}: {label} is in no series of {query}");
            }
        }
    }
    let rows = dashboard::rows();
    let expected =
        ["Traffic", "Latency", "Errors", "Store", "Cache", "Uploads", "Memory", "Access", "Events"];
    assert_eq!(rows, expected);
}

#[test]
fn every_alert_says_what_it_means_is_documented_and_has_cases_on_both_sides() {
    let operations = include_str!("../../docs/operations.md");
    let documented = section(operations, "### The alerts");
    let table = Table::documented();
    let alerts = rules::alerts();
    for alert in &alerts {
        let name = &alert.name;
        let severity = alert.labels["severity"].as_str();
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        let texts: Vec<&str> = alert.annotations.keys().map(String::as_str).collect();
        assert_eq!(texts, ["description", "summary"], "{name}");
        assert!(documented.contains(&format!("\n| `{name}` | {severity} |")), "{name} in the docs");
        let (fires, holds) = rules::cases(name);
        assert!(
            fires >= 1 && holds >= 1,
            "{name} fires in {fires} cases and holds back in {holds}"
        );
        let query = Query::new(&alert.expression);
        let grouped = query.labels_of_result();
        for label in alert.labels_in_texts() {
            let has = |series: &str| table.labels_of(series).is_some_and(|it| it.contains(label));
            let is_kept = grouped.is_empty() || grouped.contains(label);
            let is_there = query.series().into_iter().any(has);
            assert!(
                is_there && (is_kept || !alert.expression.contains(" by (")),
                "{name}: {label}"
            );
        }
    }
    let rows = documented.lines().filter(|line| line.starts_with("| `Moorage")).count();
    assert_eq!(rows, alerts.len(), "an alert is documented that is not there");
}

fn deploy(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

#[tokio::test]
#[ignore = "needs promtool: run ./build.sh test"]
async fn each_alert_fires_and_holds_back_as_its_cases_say() {
    let Some(promtool) = optional_tool("MOORAGE_PROMTOOL") else { return };
    let rules = deploy("prometheus/moorage.rules.yaml");
    run(Command::new(&promtool).args(["check", "rules", "--lint-fatal"]).arg(rules)).await;
    let cases = deploy("prometheus/moorage.rules.test.yaml");
    run(Command::new(&promtool).args(["test", "rules"]).arg(cases)).await;
    let scrape = deploy("prometheus/scrape.yaml");
    run(Command::new(&promtool).args(["check", "config", "--lint-fatal"]).arg(scrape)).await;
}

#[tokio::test]
#[ignore = "needs promtool: run ./build.sh test"]
async fn every_query_of_the_dashboard_is_promql() {
    let Some(promtool) = optional_tool("MOORAGE_PROMTOOL") else { return };
    let queries = queries();
    let rule = |place: usize, query: &str| {
        let query = serde_json::to_string(query).expect("JSON");
        format!("  - {{ record: \"query:{place}\", expr: {query} }}\n")
    };
    let rules: String =
        queries.iter().enumerate().map(|(place, (_, query))| rule(place, query)).collect();
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("queries.yaml");
    std::fs::write(&file, format!("groups:\n- name: dashboard\n  rules:\n{rules}"))
        .expect("a file");
    run(Command::new(promtool).args(["check", "rules"]).arg(file)).await;
}
