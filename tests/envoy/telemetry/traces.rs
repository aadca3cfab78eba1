//! The spans that Envoy sends to a real OpenTelemetry collector, as `production.yaml` has it.

use moorage_test_support::digest_of;
use moorage_test_support::otel_collector::OtelCollector;
use moorage_test_support::process::optional_tool;

use super::*;

/// The client's own span.
const PARENT: &str = "00f067aa0ba902b7";

/// A path, the status of the answer, the attributes of its span, and those that it does not have.
type Row<'a> = (&'a str, u16, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[tokio::test]
#[ignore = "needs Envoy and an OpenTelemetry collector: run ./build.sh test"]
async fn a_collector_gets_a_span_of_the_clients_trace_with_what_moorage_did() {
    let Some(program) = optional_tool("MOORAGE_OTELCOL") else { return };
    let collector = OtelCollector::start(&program).await;
    let registry = Registry::start_on(|store| {
        Bootstrap::production_before(&[store]).traced_to(collector.address)
    });
    let registry = registry.await;
    let (manifest, blob) = (digest_of(MANIFEST), digest_of("a blob"));
    registry.expect(201, Method::PUT, "/v2/a/b/manifests/v1", MANIFEST).await;
    let upload = format!("/v2/a/b/blobs/uploads/?digest={blob}");
    registry.expect(201, Method::POST, &upload, "a blob").await;

    let blob_path = format!("/v2/a/b/blobs/{blob}");
    let rows: [Row<'_>; 3] = [
        (
            "/v2/a/b/manifests/v1",
            200,
            &[
                ("moorage.operation", "manifest_get"),
                ("moorage.repository", "a/b"),
                ("moorage.reference", "v1"),
                ("moorage.digest", manifest.as_str()),
                ("moorage.media_type", MEDIA_TYPE),
                ("moorage.cache", "miss"),
            ],
            &["moorage.error", "moorage.upload", "moorage.identity"],
        ),
        (
            &blob_path,
            200,
            &[
                ("moorage.operation", "blob_get"),
                ("moorage.method", "GET"),
                ("moorage.path", &blob_path),
                ("moorage.repository", "a/b"),
                ("moorage.reference", blob.as_str()),
                ("moorage.digest", blob.as_str()),
            ],
            &["moorage.error", "moorage.media_type"],
        ),
        (
            "/v2/a/b/manifests/none",
            404,
            &[
                ("moorage.operation", "manifest_get"),
                ("moorage.reference", "none"),
                ("moorage.error", "MANIFEST_UNKNOWN"),
                ("http.status_code", "404"),
            ],
            &["moorage.digest"],
        ),
    ];
    // A client that wants no trace gets none; were it sent, it would be there before those below.
    let unwanted = "5bf92f3577b34da6a3ce929d0e0e4736";
    let headers = [("traceparent", &*format!("00-{unwanted}-{PARENT}-00"))];
    registry.send(Method::GET, "/v2/a/b/manifests/v2", &headers, "").await;
    for (number, (path, status, expected, missing)) in rows.into_iter().enumerate() {
        let trace = format!("4bf92f3577b34da6a3ce929d0e0e473{number}");
        let traceparent = format!("00-{trace}-{PARENT}-01");
        let response = registry.send(Method::GET, path, &[("traceparent", &traceparent)], "").await;
        assert_eq!(response.status(), status, "{path}: {response:?}");
        let span = collector.span_of(&trace).await;
        assert_eq!(span.parent, PARENT, "{span:?}");
        for (name, value) in expected {
            assert_eq!(
                span.attributes.get(*name).map(String::as_str),
                Some(*value),
                "{name} of {span:?}"
            );
        }
        for name in missing {
            assert_eq!(span.attributes.get(*name), None, "{name} of {span:?}");
        }
        for name in ["moorage.store_calls", "moorage.store_ms"] {
            let number = span.attributes.get(name).and_then(|text| text.parse::<f64>().ok());
            assert!(number.is_some(), "{name} of {span:?}");
        }
    }
    assert!(collector.spans().iter().all(|span| span.trace != unwanted), "{:?}", collector.spans());
}
