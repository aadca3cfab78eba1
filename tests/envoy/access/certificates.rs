//! Callers who are known by a certificate that Envoy has verified.

use serde_json::json;

use moorage_test_support::accounts;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::tls::Authority;

use super::{PRIVATE, PUBLIC, assert_unharmed, store};

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_certificate_that_envoy_has_verified_is_a_name_in_rules() {
    let (store, authority, foreign) =
        (store().await, Authority::new().await, Authority::new().await);
    let mut access = accounts::access().await;
    access["certificates"] = json!(["spiffe://mesh/**"]);
    let rule = json!({
        "who": ["spiffe://mesh/ci/*", "spiffe://else/**"], "repositories": ["private/**"], "actions": ["pull"],
    });
    access["rules"].as_array_mut().expect("a list").push(rule);
    let bootstrap = Bootstrap::new(store.address)
        .with_tls(&authority)
        .verifying_clients(&authority)
        .with_access(&access);
    let envoy = Envoy::start(&bootstrap).await;
    let server = envoy.address;
    for (uri, status) in [
        ("spiffe://mesh/ci/push", 200),
        ("spiffe://mesh/ci/a/b", 401),
        ("spiffe://mesh/web", 401),
        // There is a rule for it, and it is no caller by configuration.
        ("spiffe://else/ci", 401),
        ("https://mesh/ci/push", 401),
    ] {
        let certificate = authority.certify_client(uri).await;
        assert_eq!(authority.get(server, PRIVATE, Some(&certificate)).await, status, "{uri}");
        assert_eq!(authority.get(server, PUBLIC, Some(&certificate)).await, 200, "{uri}");
    }
    assert_eq!(authority.get(server, PRIVATE, None).await, 401);
    assert_eq!(authority.get(server, PUBLIC, None).await, 200);
    // By an authority that Envoy does not trust, nobody gets as far as Moorage.
    let forged = foreign.certify_client("spiffe://mesh/ci/push").await;
    assert_eq!(authority.get(server, PRIVATE, Some(&forged)).await, 0);
    assert_unharmed(&envoy).await;
}
