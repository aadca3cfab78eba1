//! What settings make, and how wrong ones are told.

use std::collections::HashMap;
use std::path::Path;

use moorage_bootstrap::{Settings, SettingsError, VARIABLES};
use serde_json::{Value, json};

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Settings::read(Some(text), |name| variables.get(name).map(|value| (*value).to_owned()))
}

/// The bootstrap that settings make, as data; the plugin's configuration in it too.
fn made(text: &str, variables: &[(&str, &str)]) -> Value {
    let settings = read(text, variables).unwrap_or_else(|error| panic!("{text}: {error}"));
    let bootstrap = settings.bootstrap();
    serde_saphyr::from_str(&bootstrap).unwrap_or_else(|error| panic!("{error}\n{bootstrap}"))
}

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

fn cluster<'a>(bootstrap: &'a Value, name: &str) -> &'a Value {
    let clusters = bootstrap["static_resources"]["clusters"].as_array().expect("clusters");
    clusters.iter().find(|cluster| cluster["name"] == name).unwrap_or(&Value::Null)
}

fn http_filter<'a>(bootstrap: &'a Value, name: &str) -> &'a Value {
    let manager = bootstrap.pointer(MANAGER).expect("the connection manager");
    let filters = manager["http_filters"].as_array().expect("filters");
    filters.iter().find(|filter| filter["name"] == name).unwrap_or(&Value::Null)
}

fn plugin(bootstrap: &Value) -> Value {
    let configuration =
        &http_filter(bootstrap, "moorage")["typed_config"]["config"]["configuration"];
    serde_json::from_str(configuration["value"].as_str().expect("a text")).expect("JSON")
}

#[test]
fn the_files_in_envoy_are_what_their_settings_make() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../envoy");
    let read_file = |path: &Path| std::fs::read_to_string(path).expect("the file is there");
    for name in ["local.yaml", "production.yaml", "edge.yaml"] {
        let settings = read_file(&folder.join("settings").join(name));
        let made = read(&settings, &[]).expect("the settings are right").bootstrap();
        assert!(
            made == read_file(&folder.join(name)),
            "envoy/{name} is not what its settings make: \
             moorage bootstrap --config envoy/settings/{name} > envoy/{name}"
        );
    }
}

/// `./build.sh run` and those who write bootstraps themselves put that file before the filter `moorage`.
/// Envoy 1.40 crashes otherwise, and an upload under way would lose the way to the store when Envoy is stopped in order.
#[test]
fn uploads_are_spooled_in_a_listener_that_neither_clients_nor_draining_reach() {
    let bootstrap = made("", &[]);
    let [clients, spool] = [0, 1].map(|at| &bootstrap["static_resources"]["listeners"][at]);
    assert!(http_filter(&bootstrap, "envoy.filters.http.file_system_buffer").is_null());
    assert_eq!(clients["traffic_direction"], "INBOUND");
    assert_eq!(spool["name"], "spool");
    assert!(spool["internal_listener"].is_object() && spool["traffic_direction"].is_null());
    assert!(cluster(&bootstrap, "spool").is_object());
    assert!(cluster(&made("spool: 'off'", &[]), "spool").is_null());
}

#[test]
fn the_native_hasher_stands_right_before_moorage_where_blobs_are_pushed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../envoy/native-hash.yaml");
    let filter = std::fs::read_to_string(file).expect("the file is there");
    let moorage = "                  - name: moorage\n";
    let setting = "native_hash: /usr/local/lib/libmoorage_native_hash.so";
    let with = read(setting, &[]).expect("the settings are right").bootstrap();
    assert!(with.contains(&format!("{filter}{moorage}")), "{filter} is not in {with}");
    for text in ["", &format!("{setting}\nread_only: true")] {
        let bootstrap = made(text, &[]);
        assert_eq!(http_filter(&bootstrap, "native_hash"), &Value::Null, "{text}");
    }
}

#[test]
fn nothing_at_all_makes_a_bootstrap() {
    let bootstrap = Settings::read(None, |_| None).expect("all has a default").bootstrap();
    let bootstrap: Value = serde_saphyr::from_str(&bootstrap).expect("YAML");
    assert_eq!(plugin(&bootstrap)["store"]["authority"], "s3.us-east-1.amazonaws.com");
}

#[test]
fn a_variable_wins_over_the_file() {
    let bootstrap = made(
        "bucket: file\nlisten: 127.0.0.1:1\ncache: { tag_ttl: 1s, link_ttl: 2s }",
        &[("MOORAGE_BUCKET", "variable"), ("MOORAGE_CACHE_TAG_TTL", "30s"), ("MOORAGE_LISTEN", "")],
    );
    let plugin = plugin(&bootstrap);
    assert_eq!(plugin["store"]["bucket"], "variable");
    assert_eq!(plugin["cache"], json!({ "tag_ttl": "30s", "link_ttl": "2s" }));
    let address = &bootstrap["static_resources"]["listeners"][0]["address"]["socket_address"];
    assert_eq!(address["port_value"], 1);
}

/// What the bootstrap has once a variable has this value.
const OF_VARIABLES: &[(&str, &str, &str)] = &[
    ("MOORAGE_LISTEN", "127.0.0.9:7", "{ address: 127.0.0.9, port_value: 7 }"),
    ("MOORAGE_TLS_CERTIFICATE", "/probe", "certificate_chain: { filename: /probe }"),
    ("MOORAGE_TLS_KEY", "/probe", "private_key: { filename: /probe }"),
    ("MOORAGE_TLS_SDS", "/probe", "node: { id: moorage, cluster: moorage }"),
    ("MOORAGE_TLS_CLIENT_CA", "/probe", "trusted_ca: { filename: /probe }"),
    ("MOORAGE_TRUSTED_PROXIES", "7", "xff_num_trusted_hops: 7"),
    ("MOORAGE_BUCKET", "probe", "/probe/docker/registry/v2/blobs/"),
    ("MOORAGE_PREFIX", "probe", "/registry/probe/docker/registry/v2/blobs/"),
    ("MOORAGE_ENDPOINT", "https://probe, https://other", "address: probe"),
    ("MOORAGE_FALLBACK_ENDPOINTS", "https://probe", "priority: 1"),
    ("AWS_REGION", "probe", "region: probe"),
    ("MOORAGE_ADDRESSING", "virtual-host", "address: registry.s3"),
    ("MOORAGE_CREDENTIALS", "environment", "environment_credential_provider"),
    ("AWS_ROLE_ARN", "probe", "role_arn: probe"),
    (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "/probe",
        "web_identity_token_data_source: { filename: /probe }",
    ),
    ("AWS_CA_BUNDLE", "/probe", "trusted_ca: { filename: /probe }"),
    ("MOORAGE_SPOOL", "/probe", "storage_buffer_path: /probe"),
    ("MOORAGE_WASM", "/probe", "local: { filename: /probe }"),
    ("MOORAGE_NATIVE_HASH", "/probe", "module: { local: { filename: /probe } }"),
    ("MOORAGE_ADMIN", "127.0.0.9:7", "{ address: 127.0.0.9, port_value: 7 }"),
    ("MOORAGE_METRICS", "127.0.0.9:7", "{ address: 127.0.0.9, port_value: 7 }"),
    ("MOORAGE_ACCESS_LOG", "/probe", "path: /probe"),
    ("MOORAGE_TRACING_COLLECTOR", "probe:7", "{ address: probe, port_value: 7 }"),
    ("MOORAGE_TRACING_PERCENT", "7", "random_sampling: { value: 7 }"),
    ("MOORAGE_MAX_HEAP_BYTES", "7", "max_heap_size_bytes: 7"),
    ("MOORAGE_MAX_CONNECTIONS", "7", "max_active_downstream_connections: 7"),
    ("MOORAGE_EDGE_DISK_CACHE", "/probe", "cache_path: /probe"),
    ("MOORAGE_EDGE_DISK_CACHE_BYTES", "7", "max_cache_size_bytes: 7"),
    ("MOORAGE_EDGE_CENTRAL", "https://probe", "hostname: probe"),
    ("MOORAGE_ACCESS", "FILE", "access.key (from MOORAGE_ACCESS): is missing"),
    ("MOORAGE_EVENTS", "FILE", "\"events\": {"),
    ("MOORAGE_CACHE_TAG_TTL", "7m", "\"tag_ttl\": \"7m\""),
    ("MOORAGE_CACHE_STALE_IF_ERROR", "7m", "\"stale_if_error\": \"7m\""),
    ("MOORAGE_CACHE_MAX_BYTES", "7", "\"max_bytes\": 7"),
    ("MOORAGE_READ_ONLY", "true", "\"read_only\": true"),
];

#[test]
fn every_variable_stands_in_for_a_setting() {
    let folder = tempfile::tempdir().expect("a folder");
    let names: Vec<_> = OF_VARIABLES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, VARIABLES.map(|(name, ..)| name));
    for &(name, value, expected) in OF_VARIABLES {
        // What the setting needs beside it.
        let (beside, file) = match name {
            "MOORAGE_TLS_CERTIFICATE" | "MOORAGE_TLS_CLIENT_CA" => {
                ("tls: { certificate: c, key: k }", "")
            }
            "MOORAGE_TLS_KEY" => ("tls: { certificate: c }", ""),
            "AWS_ROLE_ARN" => ("{credentials: role, web_identity_token_file: t}", ""),
            "AWS_WEB_IDENTITY_TOKEN_FILE" => ("{credentials: role, role_arn: r}", ""),
            "MOORAGE_TRACING_PERCENT" => ("tracing: { collector: 'otel:4317' }", ""),
            "MOORAGE_EDGE_DISK_CACHE_BYTES" => ("edge: { disk_cache: d }", ""),
            "MOORAGE_ACCESS" => {
                ("", "rules: [{who: [anonymous], repositories: ['**'], actions: [pull]}]")
            }
            "MOORAGE_EVENTS" => ("", "endpoints: [{name: a, url: 'https://a.example.org'}]"),
            _ => ("", ""),
        };
        let path = folder.path().join("file.yaml");
        std::fs::write(&path, file).expect("it is written");
        let path = path.display().to_string();
        let value = if value == "FILE" { &path } else { value };
        assert!(
            !bootstrap_of(beside, &[]).contains(expected),
            "{name}: {expected} is there without it"
        );
        let bootstrap = bootstrap_of(beside, &[(name, value)]);
        assert!(bootstrap.contains(expected), "{name}: {expected} is not in\n{bootstrap}");
    }
}

fn bootstrap_of(text: &str, variables: &[(&str, &str)]) -> String {
    // A certificate without a key is refused, and its key is what is tried.
    let text = if variables.is_empty() && text == "tls: { certificate: c }" { "" } else { text };
    read(text, variables).map_or_else(|error| error.to_string(), |settings| settings.bootstrap())
}

#[test]
fn a_wrong_setting_is_named() {
    for (text, variables, named) in [
        ("colour: red", &[][..], "colour"),
        ("tls: { colour: red }", &[], "colour"),
        ("listen: 5000", &[], "listen"),
        ("listen: localhost:5000", &[], "listen"),
        ("native_hash: libmoorage_native_hash.so", &[], "native_hash"),
        ("native_hash: ''", &[], "native_hash"),
        ("metrics: yes please", &[], "metrics"),
        ("tls: {}", &[], "tls"),
        ("tls: { certificate: c }", &[], "tls.key"),
        ("tls: { key: k }", &[], "tls.certificate"),
        ("tls: { certificate: c, key: k, sds: s }", &[], "tls.sds"),
        ("endpoint: s3.example.org", &[], "endpoint"),
        ("endpoint: [https://a.example.org, http://b.example.org]", &[], "endpoint"),
        ("endpoint: https://key:secret@a.example.org", &[], "endpoint"),
        ("fallback_endpoints: http://b.example.org", &[], "fallback_endpoints"),
        ("endpoint: http://127.0.0.1:9000\naddressing: virtual-host", &[], "addressing"),
        ("addressing: host", &[], "addressing"),
        ("region: a b", &[], "region"),
        ("credentials: file", &[], "credentials"),
        ("credentials: role\nrole_arn: a", &[], "web_identity_token_file"),
        ("credentials: role\nweb_identity_token_file: a", &[], "role_arn"),
        ("bucket: ''", &[], "bucket"),
        ("prefix: a b?", &[], "prefix"),
        ("spool: ''", &[], "spool"),
        ("store: { timeout_ms: 0 }", &[], "store.timeout_ms"),
        ("store: { idle_timeout_seconds: 0 }", &[], "store.idle_timeout_seconds"),
        ("tracing: { percent: 5 }", &[], "tracing"),
        ("tracing: { collector: otel }", &[], "tracing.collector"),
        ("tracing: { collector: 'otel:4317', percent: 101 }", &[], "tracing.percent"),
        ("edge: { disk_cache_bytes: 5 }", &[], "edge.disk_cache_bytes"),
        ("edge: { central: 'https://a.example.org' }\nread_only: false", &[], "edge.central"),
        ("cache: { tag_ttl: soon }", &[], "cache.tag_ttl"),
        ("cache: { max_bytes: 0, stale_if_error: 1h }", &[], "cache.stale_if_error"),
        ("access: /no/such/file", &[], "access"),
        ("access: { rules: [] }", &[], "access"),
        ("mount: somewhere", &[], "mount"),
        ("events: { endpoints: [{ name: a }] }", &[], "events.endpoints[0].url"),
        ("events: { endpoints: [{ name: a, url: 'ftp://a' }] }", &[], "events.endpoints[0].url"),
        ("events: { endpoints: [{ name: a, cluster: b }] }", &[], "events.endpoints[0].cluster"),
        (
            "",
            &[("MOORAGE_MAX_CONNECTIONS", "many")],
            "max_connections (from MOORAGE_MAX_CONNECTIONS)",
        ),
        ("", &[("MOORAGE_READ_ONLY", "1")], "read_only (from MOORAGE_READ_ONLY)"),
        (
            "",
            &[("MOORAGE_ENDPOINT", "https://a.example.org,b")],
            "endpoint (from MOORAGE_ENDPOINT)",
        ),
        ("", &[("MOORAGE_CACHE_TAG_TTL", "soon")], "cache.tag_ttl (from MOORAGE_CACHE_TAG_TTL)"),
    ] {
        let error = read(text, variables).expect_err(text).to_string();
        assert!(error.contains(named), "{text} {variables:?}: {error}");
    }
}

#[test]
fn no_complaint_shows_a_secret() {
    for text in [
        "access: { key: hunter2 }",
        "access: [hunter2]",
        "access: { key: \"hunter2",
        "legacy: { schema1_key: hunter2 }",
        "events: { endpoints: [{ name: a, url: 'https://a.example.org', headers: { authorization: [hunter2] } }] }",
        "access: { key: hunter2 }\naccess: { key: hunter2 }",
    ] {
        let error = read(text, &[]).expect_err(text).to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// Whatever a setting says stays one text of the bootstrap.
#[test]
fn no_setting_gets_out_of_its_place() {
    for path in ["a: b", "a\" }\nadmin: {", "é\u{85}\u{2028}x", "*x", "off", "1", "{{ 1 }}", "a'#b"]
    {
        let settings = json!({
            "module": path,
            "ca_file": path,
            "access_log": path,
            "spool": path,
            "tls": { "certificate": path, "key": path },
            "edge": { "disk_cache": path },
            "events": { "source": path },
        });
        // JSON is YAML.
        let Ok(settings) = read(&settings.to_string(), &[]) else {
            // The filter takes no such name of a registry.
            continue;
        };
        let text = settings.bootstrap();
        let bootstrap: Value = serde_saphyr::from_str(&text).expect("YAML");
        let module = &http_filter(&bootstrap, "moorage")["typed_config"]["config"]["vm_config"];
        assert_eq!(module["code"]["local"]["filename"], path);
        assert_eq!(plugin(&bootstrap)["events"]["source"], path);
        let cache = &http_filter(&bootstrap, "envoy.filters.http.cache_v2")["typed_config"];
        assert_eq!(cache["typed_config"]["cache_path"], path);
    }
}

#[test]
fn the_bucket_is_where_the_settings_say() {
    for (text, authority, node, blobs, health) in [
        (
            "bucket: b",
            "s3.us-east-1.amazonaws.com",
            "s3.us-east-1.amazonaws.com",
            "/b/docker/registry/v2/blobs/",
            "/b",
        ),
        (
            "bucket: b\nprefix: a/c",
            "s3.us-east-1.amazonaws.com",
            "s3.us-east-1.amazonaws.com",
            "/b/a/c/docker/registry/v2/blobs/",
            "/b",
        ),
        (
            "bucket: b\nregion: eu-central-1\naddressing: virtual-host",
            "s3.eu-central-1.amazonaws.com",
            "b.s3.eu-central-1.amazonaws.com",
            "/docker/registry/v2/blobs/",
            "/",
        ),
        (
            "bucket: b\nprefix: p\nendpoint: https://s3.example.org:8443\naddressing: virtual-host",
            "s3.example.org:8443",
            "b.s3.example.org",
            "/p/docker/registry/v2/blobs/",
            "/",
        ),
    ] {
        let bootstrap = made(text, &[]);
        assert_eq!(plugin(&bootstrap)["store"]["authority"], authority, "{text}");
        let store = cluster(&bootstrap, "blob_store");
        let address =
            "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/address";
        assert_eq!(store.pointer(address), Some(&json!(node)), "{text}");
        assert_eq!(store["transport_socket"]["typed_config"]["sni"], node, "{text}");
        assert_eq!(store["health_checks"][0]["http_health_check"]["path"], health, "{text}");
        let routes = bootstrap.pointer(MANAGER).expect("the manager");
        let routes =
            routes["route_config"]["virtual_hosts"][0]["routes"].as_array().expect("routes");
        assert_eq!(routes[0]["match"]["prefix"], blobs, "{text}");
        let signing = &store["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
            ["http_filters"][0];
        let host = signing["typed_config"]["host_rewrite"].as_str().expect("a host");
        assert!(host.starts_with(node), "{text}");
    }
}

#[test]
fn a_dot_in_the_buckets_name_is_no_wildcard_of_the_route() {
    let bootstrap = made("bucket: my.bucket", &[]);
    assert!(
        bootstrap.to_string().contains(r"/my\\\\.bucket/")
            || bootstrap.to_string().contains(r"/my\\.bucket/")
    );
}

#[test]
fn several_nodes_and_those_that_stand_in_are_one_cluster() {
    let text = "endpoint: [http://a.example.org, http://b.example.org:81]\nfallback_endpoints: [http://c.example.org]";
    let bootstrap = made(text, &[]);
    let store = cluster(&bootstrap, "blob_store");
    assert_eq!(store["type"], "STRICT_DNS");
    assert!(store["outlier_detection"].is_object());
    let endpoints = store["load_assignment"]["endpoints"].as_array().expect("endpoints");
    assert_eq!(endpoints.len(), 2);
    assert_eq!(endpoints[0]["lb_endpoints"].as_array().expect("nodes").len(), 2);
    assert_eq!(endpoints[1]["priority"], 1);
    assert!(store["transport_socket"].is_null());
}

#[test]
fn an_edge_node_that_passes_pushes_on_sends_them_to_the_central_registry_alone() {
    let text = "edge: { disk_cache: /d, central: 'https://registry.example.org' }";
    let bootstrap = made(text, &[]);
    assert_eq!(plugin(&bootstrap)["read_only"], true);
    let manager = bootstrap.pointer(MANAGER).expect("the connection manager");
    let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array().expect("routes");
    let past_moorage: Vec<_> =
        routes.iter().filter(|route| route.get("typed_per_filter_config").is_some()).collect();
    assert_eq!(past_moorage.len(), 2);
    for route in past_moorage {
        assert_eq!(route["route"]["cluster"], "central");
        assert_eq!(route["typed_per_filter_config"]["moorage"]["disabled"], true);
    }
}

#[test]
fn events_tracing_and_metrics_have_clusters_of_their_own() {
    let text = "
        events: { endpoints: [{ name: scanner, url: 'https://scanner.example.org/hooks?a=b' }] }
        tracing: { collector: 'otel.example.org:4317' }
        metrics: 0.0.0.0:9902
        trusted_proxies: 2";
    let bootstrap = made(text, &[]);
    let endpoint = &plugin(&bootstrap)["events"]["endpoints"][0];
    assert_eq!(endpoint["authority"], "scanner.example.org");
    assert_eq!(endpoint["path"], "/hooks?a=b");
    for name in [endpoint["cluster"].as_str().expect("a name"), "otel_collector", "admin"] {
        assert!(cluster(&bootstrap, name).is_object(), "{name}");
    }
    assert_eq!(bootstrap["static_resources"]["listeners"][1]["name"], "metrics");
    assert_eq!(bootstrap.pointer(MANAGER).expect("the manager")["xff_num_trusted_hops"], 2);
}
