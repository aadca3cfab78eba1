//! What the files for meshes have of Moorage's bootstrap is what `moorage bootstrap` makes of these settings.

use moorage_bootstrap::Settings;
use serde_json::Value;

use crate::resources::deploy;

/// In Istio: a store of the cluster's own, and no spool, which Istio's Envoy can't have.
const ISTIO: &str = "
listen: 0.0.0.0:443
endpoint: http://garage.garage.svc.cluster.local:3900
region: garage
credentials: environment
spool: 'off'
";

/// In Envoy Gateway: AWS S3 and a volume for the module; a spool would take a listener that can't be patched in.
const ENVOY_GATEWAY: &str = "
listen: 0.0.0.0:443
region: eu-central-1
module: /moorage/plugin.wasm
spool: 'off'
";

/// The parts of the bootstrap that the files have.
struct Parts {
    listener: Value,
    manager: Value,
    host: Value,
    clusters: Value,
}

impl Parts {
    fn of(settings: &str) -> Self {
        let settings = Settings::read(Some(settings), |_| None).expect("the settings are right");
        let bootstrap: Value = serde_saphyr::from_str(&settings.bootstrap()).expect("YAML");
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
fn istios_extension_is_the_filter_of_the_bootstrap_but_for_where_the_module_is() {
    let parts = Parts::of(ISTIO);
    let module = ["/typed_config/config/vm_config/code"];
    let ours = istio_patch("EXTENSION_CONFIG");
    assert_eq!(without(&ours, &module), without(parts.filter("moorage"), &module));
}

#[test]
fn istios_routes_and_clusters_are_those_of_the_bootstrap() {
    let parts = Parts::of(ISTIO);
    assert_eq!(istio_patch("VIRTUAL_HOST"), parts.host);
    let clusters = Value::from(istio_patches("CLUSTER"));
    for name in ["blob_store", "nowhere"] {
        assert_eq!(named(&clusters, name), parts.cluster(name), "{name}");
    }
}

#[test]
fn istios_connection_manager_and_listener_get_what_the_bootstraps_have() {
    let parts = Parts::of(ISTIO);
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
fn envoy_gateways_patches_are_the_bootstraps_parts() {
    let parts = Parts::of(ENVOY_GATEWAY);
    let patches = envoy_gateway_patches();
    let [manager, store, nowhere] = &patches[..] else { panic!("other patches: {patches:?}") };
    assert_eq!(*manager, parts.manager);
    assert_eq!(store, parts.cluster("blob_store"));
    assert_eq!(nowhere, parts.cluster("nowhere"));
}
