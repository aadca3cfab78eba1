//! Moorage in an Envoy of Envoy Gateway's.

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::envoy::Envoy;
use moorage_test_support::process::{optional_tool, tool};
use serde_json::Value;
use tempfile::TempDir;

use crate::resources::{Resources, at, deploy, replaced, serves};

#[tokio::test]
#[ignore = "needs Envoy, and Envoy Gateway's packages: run ./build.sh test"]
async fn an_envoy_of_envoy_gateways_serves_pushes_and_pulls() {
    let Some(config) = optional_tool("MOORAGE_ENVOY_GATEWAY_CONFIG") else { return };
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let (host, address) = at(store.address);
    let text = replaced(
        &deploy("envoy-gateway/in-gateway.yaml"),
        &[
            ("/moorage/plugin.wasm", &tool("MOORAGE_WASM").display().to_string()),
            ("address: s3.eu-central-1.amazonaws.com, port_value: 443", &address),
            (
                r#""authority": "s3.eu-central-1.amazonaws.com""#,
                &format!(r#""authority": "{host}""#),
            ),
        ],
    );
    let mut resources = Resources::of_envoy_gateway(&config, &text).await.expect("it is valid");
    without_tls_and_signatures(&mut resources.lists["clusters"]);
    let envoy = Envoy::start(&resources.bootstrap()).await;
    serves(&envoy).await;
}

/// For a store on this machine.
fn without_tls_and_signatures(clusters: &mut Value) {
    let clusters = clusters.as_array_mut().expect("clusters");
    let store = clusters.iter_mut().find(|cluster| cluster["name"] == "blob_store");
    let store = store.and_then(Value::as_object_mut).expect("the store's cluster");
    for field in ["transport_socket", "typed_extension_protocol_options", "health_checks"] {
        store.remove(field).unwrap_or_else(|| panic!("no {field}"));
    }
}

#[tokio::test]
#[ignore = "needs Envoy Gateway's packages: run ./build.sh test"]
async fn the_resources_for_a_registry_behind_a_gateway_are_what_envoy_gateway_knows() {
    let Some(config) = optional_tool("MOORAGE_ENVOY_GATEWAY_CONFIG") else { return };
    let text = deploy("envoy-gateway/in-front.yaml");
    Resources::of_envoy_gateway(&config, &text).await.expect("it is valid");
}

#[tokio::test]
#[ignore = "needs Envoy Gateway's packages: run ./build.sh test"]
async fn what_envoy_gateway_does_not_know_or_can_not_patch_is_found() {
    let Some(config) = optional_tool("MOORAGE_ENVOY_GATEWAY_CONFIG") else { return };
    let whole = deploy("envoy-gateway/in-gateway.yaml");
    for (piece, mistake) in [
        ("allow_on_headers_stop_iteration", "allow_on_headers_stop"),
        ("path: typed_config", "path: typed_configuration"),
        ("name: moorage/registry/https", "name: moorage/registry/http"),
        ("bufferLimit", "buffer"),
    ] {
        let text = replaced(&whole, &[(piece, mistake)]);
        assert!(Resources::of_envoy_gateway(&config, &text).await.is_err(), "{mistake}");
    }
}
