//! Moorage in a gateway of Istio's, and behind one.

use std::fs;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::garage::Garage;
use moorage_test_support::process::{optional_tool, tool};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::artifacts::{ModuleLayout, VERSION, push};
use crate::resources::{Resources, at, deploy, replaced, serves};

/// The image of the module in the files.
const IMAGE: &str = "registry.example.org/moorage:0.1.0";

#[tokio::test]
#[ignore = "needs Envoy, and Istio's packages: run ./build.sh test"]
async fn a_gateway_with_the_module_that_istios_agent_fetched_serves_pushes_and_pulls() {
    let (Some(istio_config), Some(crane), Some(garage)) = (
        optional_tool("MOORAGE_ISTIO_CONFIG"),
        optional_tool("MOORAGE_CRANE"),
        optional_tool("MOORAGE_GARAGE"),
    ) else {
        return;
    };
    let store = Garage::start(&garage).await;
    let source = Envoy::start(&Bootstrap::new(store.address).signed()).await;
    let layout = ModuleLayout::of("image").await;
    push(&crane, &layout, source.address, &format!("moorage:{VERSION}")).await;

    let (host, address) = at(store.address);
    let image = format!("{}/moorage:{VERSION}", source.address);
    let text = replaced(
        &deploy("istio/in-gateway.yaml"),
        &[
            (IMAGE, &image),
            ("address: garage.garage.svc.cluster.local, port_value: 3900", &address),
            ("garage.garage.svc.cluster.local:3900", &host),
            ("region: garage", "region: us-east-1"),
        ],
    );
    let resources = Resources::of_istio(&istio_config, &text).await.expect("it is valid");
    let extension = resources.named("extensions", "moorage");
    let code = &extension["typed_config"]["config"]["vm_config"]["code"];
    let fetched = code["local"]["filename"].as_str().expect("the agent has fetched it");
    assert_eq!(
        fs::read(fetched).expect("the module"),
        fs::read(tool("MOORAGE_WASM")).expect("the module")
    );
    serves(&Envoy::start(&resources.bootstrap()).await).await;
}

#[tokio::test]
#[ignore = "needs Envoy, and Istio's packages: run ./build.sh test"]
async fn a_module_that_is_not_to_be_had_leaves_a_gateway_that_refuses_everything() {
    let Some(istio_config) = optional_tool("MOORAGE_ISTIO_CONFIG") else { return };
    let text = replaced(&deploy("istio/in-gateway.yaml"), &[(IMAGE, "127.0.0.1:1/moorage:1")]);
    let resources = Resources::of_istio(&istio_config, &text).await.expect("it is valid");
    let extension = resources.named("extensions", "moorage");
    assert_eq!(
        extension["typed_config"]["@type"],
        "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    );
    assert_eq!(extension["typed_config"]["rules"], json!({}));
}

#[tokio::test]
#[ignore = "needs Envoy, and Istio's packages: run ./build.sh test"]
async fn moorage_behind_a_gateway_serves_pushes_and_pulls() {
    let Some(istio_config) = optional_tool("MOORAGE_ISTIO_CONFIG") else { return };
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let moorage = Envoy::start(&Bootstrap::new(store.address)).await;
    // The clients of the test name it by its address.
    let text = replaced(
        &deploy("istio/in-front.yaml"),
        &[("hosts: [registry.example.org]", "hosts: ['*']")],
    );
    let mut resources = Resources::of_istio(&istio_config, &text).await.expect("it is valid");
    // The cluster that Istio makes once there is the service.
    let cluster = "outbound|5000||moorage.moorage.svc.cluster.local";
    let socket = json!({ "address": moorage.address.ip(), "port_value": moorage.address.port() });
    resources.lists["clusters"] = json!([{
        "name": cluster,
        "type": "STATIC",
        "load_assignment": { "cluster_name": cluster, "endpoints": [
            { "lb_endpoints": [{ "endpoint": { "address": { "socket_address": socket } } }] },
        ] },
    }]);
    let route = route_to(&resources, cluster).expect("a route to Moorage");
    assert_eq!(route["timeout"], "0s");
    assert!(route.get("retry_policy").is_none(), "{route}");
    serves(&Envoy::start(&resources.bootstrap()).await).await;
}

fn route_to<'a>(resources: &'a Resources, cluster: &str) -> Option<&'a Value> {
    let configurations = resources.lists["routes"].as_array()?;
    let hosts = configurations.iter().flat_map(|each| each["virtual_hosts"].as_array());
    let routes = hosts.flatten().flat_map(|host| host["routes"].as_array()).flatten();
    routes.map(|route| &route["route"]).find(|route| route["cluster"] == cluster)
}

#[tokio::test]
#[ignore = "needs Istio's packages: run ./build.sh test"]
async fn what_istio_does_not_know_is_found() {
    let Some(istio_config) = optional_tool("MOORAGE_ISTIO_CONFIG") else { return };
    let whole = deploy("istio/in-gateway.yaml");
    for (piece, mistake) in [
        ("allow_on_headers_stop_iteration", "allow_on_headers_stop"),
        ("INSERT_BEFORE", "INSERT_SOMEWHERE"),
        ("credentialName", "credential"),
    ] {
        let text = replaced(&whole, &[(piece, mistake)]);
        assert!(Resources::of_istio(&istio_config, &text).await.is_err(), "{mistake}");
    }
}
