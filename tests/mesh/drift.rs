//! What the files for meshes have of Moorage's bootstrap says the same as the bootstrap, but for what is listed here.

use serde_json::Value;

use crate::resources::deploy;

const BOOTSTRAP: &str = include_str!("../../envoy/production.yaml");

const MODULE: &str = "/config/vm_config/code";
const CONFIGURATION: &str = "/config/configuration/value";
const SIGNING: &str = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/\
                       http_filters/0/typed_config";

/// The parts of the bootstrap that the files have.
struct Parts {
    listener: Value,
    manager: Value,
    host: Value,
    clusters: Value,
}

impl Parts {
    fn of_the_bootstrap() -> Self {
        let bootstrap: Value = serde_saphyr::from_str(BOOTSTRAP).expect("YAML");
        let listener = bootstrap["static_resources"]["listeners"][0].clone();
        let manager = listener["filter_chains"][0]["filters"][0]["typed_config"].clone();
        let host = manager["route_config"]["virtual_hosts"][0].clone();
        let clusters = bootstrap["static_resources"]["clusters"].clone();
        Self { listener, manager, host, clusters }
    }

    fn filter(&self, name: &str) -> &Value {
        named(&self.manager["http_filters"], name)
    }

    fn cluster(&self, name: &str) -> &Value {
        named(&self.clusters, name)
    }
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut items = list.as_array().expect("a list").iter();
    items.find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// The resource of a kind in a file of YAML documents.
fn resource(file: &str, kind: &str) -> Value {
    let text = deploy(file);
    let mut documents = text.split("\n---\n").map(|document| {
        serde_saphyr::from_str::<Value>(document).unwrap_or_else(|error| panic!("{file}: {error}"))
    });
    documents.find(|document| document["kind"] == kind).expect("it is in the file")
}

/// A value without what is at these JSON pointers, each of which must be there.
fn without(value: &Value, pointers: &[&str]) -> Value {
    let mut rest = value.clone();
    for pointer in pointers {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        let parent = rest.pointer_mut(parent).and_then(Value::as_object_mut);
        let removed = parent.and_then(|parent| parent.remove(field));
        assert!(removed.is_some(), "nothing at {pointer} of {value}");
    }
    rest
}

/// Moorage's own configuration in a filter, which stands there as text.
fn configuration(filter: &Value) -> Value {
    let text = filter.pointer(CONFIGURATION).and_then(Value::as_str).expect("a text");
    serde_json::from_str(text).expect("JSON")
}

/// The values of the EnvoyFilter's patches of a kind.
fn istio_patches(kind: &str) -> Vec<Value> {
    let filter = resource("istio/in-gateway.yaml", "EnvoyFilter");
    let patches = filter["spec"]["configPatches"].as_array().expect("patches");
    let patches = patches.iter().filter(|patch| patch["applyTo"] == kind);
    patches.map(|patch| patch["patch"]["value"].clone()).collect()
}

fn istio_patch(kind: &str) -> Value {
    let mut patches = istio_patches(kind);
    assert_eq!(patches.len(), 1, "{kind}");
    patches.remove(0)
}

/// What the EnvoyPatchPolicy adds, in its order.
fn envoy_gateway_patches() -> Vec<Value> {
    let policy = resource("envoy-gateway/in-gateway.yaml", "EnvoyPatchPolicy");
    let patches = policy["spec"]["jsonPatches"].as_array().expect("patches");
    patches.iter().map(|patch| patch["operation"]["value"].clone()).collect()
}

#[test]
fn istios_extension_is_the_filter_of_the_bootstrap() {
    let parts = Parts::of_the_bootstrap();
    let (ours, theirs) = (
        &istio_patch("EXTENSION_CONFIG")["typed_config"],
        &parts.filter("moorage")["typed_config"],
    );
    let elsewhere = [MODULE, CONFIGURATION];
    assert_eq!(without(ours, &elsewhere), without(theirs, &elsewhere));
    // Another store.
    let elsewhere = ["/store/authority"];
    assert_eq!(
        without(&configuration(ours), &elsewhere),
        without(&configuration(theirs), &elsewhere)
    );
}

#[test]
fn istios_routes_are_those_of_the_bootstrap_without_spooling() {
    let mut theirs = Parts::of_the_bootstrap().host;
    let routes = theirs["routes"].as_array_mut().expect("routes");
    routes.retain(|route| route.get("typed_per_filter_config").is_none());
    assert_eq!(istio_patch("VIRTUAL_HOST"), theirs);
}

#[test]
fn istios_connection_manager_and_listener_get_what_the_bootstraps_have() {
    let parts = Parts::of_the_bootstrap();
    let ours = istio_patch("NETWORK_FILTER")["typed_config"].clone();
    let fields = ours.as_object().expect("an object");
    assert!(fields.len() > 5);
    for (name, value) in fields {
        assert_eq!(*value, parts.manager[name], "{name}");
    }
    for (name, value) in istio_patch("LISTENER").as_object().expect("an object") {
        assert_eq!(*value, parts.listener[name], "{name}");
    }
}

#[test]
fn istios_clusters_are_those_of_the_bootstrap_before_a_store_of_the_clusters_own() {
    let parts = Parts::of_the_bootstrap();
    let clusters = Value::from(istio_patches("CLUSTER"));
    assert_eq!(named(&clusters, "nowhere"), parts.cluster("nowhere"));
    let (region, host) = (format!("{SIGNING}/region"), format!("{SIGNING}/host_rewrite"));
    let elsewhere = [
        "/type",
        "/health_checks/0/http_health_check/host",
        "/load_assignment/endpoints",
        &region,
        &host,
    ];
    // A service of the cluster has one address, and is reached without TLS.
    let of_aws = ["/dns_lookup_family", "/transport_socket"];
    assert_eq!(
        without(named(&clusters, "blob_store"), &elsewhere),
        without(&without(parts.cluster("blob_store"), &elsewhere), &of_aws)
    );
}

#[test]
fn envoy_gateways_patches_are_the_bootstraps_parts() {
    let parts = Parts::of_the_bootstrap();
    let patches = envoy_gateway_patches();
    let [moorage, spool, replies, hosts, store, nowhere] = &patches[..] else {
        panic!("other patches: {patches:?}")
    };
    let elsewhere = ["/typed_config/config/vm_config/code"];
    assert_eq!(without(moorage, &elsewhere), without(parts.filter("moorage"), &elsewhere));
    let (elsewhere, filter) =
        (["/typed_config/storage_buffer_path"], "envoy.filters.http.file_system_buffer");
    assert_eq!(without(spool, &elsewhere), without(parts.filter(filter), &elsewhere));
    assert_eq!(*replies, parts.manager["local_reply_config"]);
    assert_eq!(hosts[0], parts.host);
    assert_eq!(*store, *parts.cluster("blob_store"));
    assert_eq!(*nowhere, *parts.cluster("nowhere"));
}
