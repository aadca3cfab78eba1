//! The bootstraps `envoy/local.yaml`, `envoy/edge.yaml` and `envoy/production.yaml` say the same, but for the differences that
//! are listed here with their reasons.
//!
//! Users copy `production.yaml` or `edge.yaml` and change it, so each of them is a whole file with comments of its own.
//! That Envoy takes them is not tested here, but in `envoy/configuration.rs`.

#![cfg(not(target_family = "wasm"))]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

const LOCAL: &str = include_str!("../envoy/local.yaml");
const PRODUCTION: &str = include_str!("../envoy/production.yaml");
const EDGE: &str = include_str!("../envoy/edge.yaml");

/// Differences that are meant: where, and why. Everything below the place may differ.
///
/// A place is written like `listeners[registry].address`: list items go by what `identity` calls them.
#[rustfmt::skip]
const MEANT: &[(&str, &str)] = &[
    // All of Envoy.
    ("overload_manager",
     "only clients out there overload an Envoy"),

    // The listener.
    ("static_resources.listeners[registry].address",
     "a registry for this machine listens where only this machine reaches it"),
    ("static_resources.listeners[registry].filter_chains[0].transport_socket",
     "no TLS within one machine"),
    ("static_resources.listeners[registry].filter_chains[0].transport_socket_connect_timeout",
     "no TLS, so no handshake"),

    // The connection manager.
    ("….access_log[envoy.access_loggers.file]",
     "beside Envoy's own log, in a file of its own"),
    ("….access_log[envoy.access_loggers.stdout]",
     "what runs Envoy collects what it writes to standard output"),
    ("….use_remote_address",
     "every client has the same address"),
    ("….request_headers_timeout",
     "clients that hold connections open are not on one's own machine"),
    ("….stream_idle_timeout",
     "as above"),
    ("….common_http_protocol_options",
     "as above"),

    // HTTP filters.
    ("….http_filters[envoy.filters.http.local_ratelimit]",
     "limits by address, and here all clients have one"),
    ("….http_filters[envoy.filters.http.file_system_buffer]",
     "S3 wants to know a body's length first, the local store takes it as it comes"),
    ("….http_filters[moorage].typed_config.config.vm_config.code.local.filename",
     "where the module was built, or where users put it"),

    // Moorage's own configuration.
    ("….http_filters[moorage].typed_config.config.configuration.value.store.authority",
     "another store"),
    ("….http_filters[moorage].typed_config.config.configuration.value.mount",
     "a filter may guard one repository from another in production, none does locally"),
    ("….http_filters[moorage].typed_config.config.configuration.value.limits",
     "limits by address, and here all clients have one"),
    ("….http_filters[moorage].typed_config.config.configuration.value.legacy",
     "the place where `./build.sh run` puts a key, if it is given one"),

    // Routes.
    ("….route_config.virtual_hosts[registry].routes[GET|HEAD /registry/docker/registry/v2/blobs/]\
      .route.retry_policy.per_try_idle_timeout",
     "a store on one's own machine that is silent for 15 s is dead; S3 may be slow"),
    ("….route_config.virtual_hosts[registry]\
      .routes[PUT /registry/docker/registry/v2/blobs/ without content-length]",
     "leads through file_system_buffer"),
    ("….route_config.virtual_hosts[registry]\
      .routes[PUT /registry/docker/registry/v2/repositories/.+/_uploads/.+/chunks/.+ without content-length]",
     "leads through file_system_buffer"),

    // The store's cluster.
    ("static_resources.clusters[blob_store].type",
     "another store: one address, or a name that stands for many"),
    ("static_resources.clusters[blob_store].dns_lookup_family",
     "as above"),
    ("static_resources.clusters[blob_store].load_assignment.endpoints[0].lb_endpoints[0].endpoint.address",
     "another store"),
    ("static_resources.clusters[blob_store].transport_socket",
     "no TLS within one machine"),
    ("static_resources.clusters[blob_store].upstream_connection_options",
     "no firewall within one machine forgets a connection"),
    ("static_resources.clusters[blob_store].health_checks",
     "the local store is watched by `./build.sh run`"),
    ("static_resources.clusters[blob_store].typed_extension_protocol_options",
     "the local store takes no signatures and closes no idle connections"),
    ("static_resources.clusters[blob_store].circuit_breakers.thresholds[HIGH].max_connections",
     "as many as the overload manager admits clients, which is not there locally"),
    ("static_resources.clusters[blob_store].circuit_breakers.thresholds[HIGH].max_requests",
     "as above"),
];

/// The same between `edge.yaml` and `production.yaml`.
#[rustfmt::skip]
const MEANT_AT_THE_EDGE: &[(&str, &str)] = &[
    // HTTP filters.
    ("….http_filters[envoy.filters.http.file_system_buffer]",
     "spools what is uploaded, and nothing is"),
    ("….http_filters[envoy.filters.http.cache_v2]",
     "blobs on the node's disk"),

    // Moorage's own configuration.
    ("….http_filters[moorage].typed_config.config.configuration.value.cache",
     "goes on while the store is away"),
    ("….http_filters[moorage].typed_config.config.configuration.value.read_only",
     "what writes goes to the central registry"),
    ("….http_filters[moorage].typed_config.config.configuration.value.store.timeout_ms",
     "so long the first pull waits for a store that hangs, and then goes on from memory"),

    // Routes.
    ("….route_config.virtual_hosts[registry].request_body_buffer_limit",
     "no manifest is taken"),
    ("….route_config.virtual_hosts[registry].routes[GET|HEAD /registry/docker/registry/v2/blobs/].route.idle_timeout",
     "the disk's cache asks past the route, and without its per_try_idle_timeout"),
    ("….route_config.virtual_hosts[registry].routes[PUT /registry/docker/registry/v2/blobs/ without content-length]",
     "nothing is uploaded"),
    ("….route_config.virtual_hosts[registry].routes[PUT /registry/docker/registry/v2/blobs/]",
     "as above"),
    ("….route_config.virtual_hosts[registry]\
      .routes[PUT /registry/docker/registry/v2/repositories/.+/_uploads/.+/chunks/.+ without content-length]",
     "as above"),
    ("….route_config.virtual_hosts[registry]\
      .routes[PUT /registry/docker/registry/v2/repositories/.+/_uploads/.+/chunks/.+]",
     "as above"),

    // The store's cluster.
    ("static_resources.clusters[blob_store].circuit_breakers.thresholds[0].max_connections",
     "the disk's cache fetches blobs past the routes and their priority"),
    ("static_resources.clusters[blob_store].circuit_breakers.thresholds[0].max_requests",
     "as above"),
    ("static_resources.clusters[blob_store].typed_extension_protocol_options\
      .envoy.extensions.upstreams.http.v3.HttpProtocolOptions.common_http_protocol_options.max_stream_duration",
     "ends a fetch of the disk's cache that hangs"),
    ("static_resources.clusters[blob_store].typed_extension_protocol_options\
      .envoy.extensions.upstreams.http.v3.HttpProtocolOptions.http_filters[envoy.filters.http.header_mutation]",
     "tells the disk's cache what to keep"),
];

/// What `…` in the places above stands for.
const MANAGER: &str = "static_resources.listeners[registry].filter_chains[0]\
                       .filters[envoy.filters.network.http_connection_manager].typed_config";

/// Two bootstraps of which one was made from the other.
struct Pair {
    names: [&'static str; 2],
    bootstraps: [Value; 2],
    meant: &'static [(&'static str, &'static str)],
}

impl Pair {
    fn all() -> [Self; 2] {
        [
            Self {
                names: ["local.yaml", "production.yaml"],
                bootstraps: [local(), read(PRODUCTION)],
                meant: MEANT,
            },
            Self {
                names: ["edge.yaml", "production.yaml"],
                bootstraps: [read(EDGE), read(PRODUCTION)],
                meant: MEANT_AT_THE_EDGE,
            },
        ]
    }

    /// Places where they may differ.
    fn meant_places(&self) -> impl Iterator<Item = String> {
        self.meant.iter().map(|(place, _)| place.replace('…', MANAGER))
    }

    /// The differences that are not meant, were the first one like that.
    fn drift(&self, first: &Value) -> Vec<Difference> {
        let meant: Vec<_> = self.meant_places().collect();
        let mut found = differences("", first, &self.bootstraps[1]);
        found.retain(|difference| !meant.iter().any(|meant| lies_in(&difference.place, meant)));
        found
    }
}

/// Whether `place` is `outer` or lies in it.
fn lies_in(place: &str, outer: &str) -> bool {
    place.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Something that one bootstrap says otherwise than the other.
#[derive(Debug)]
struct Difference {
    place: String,
    first: Option<Value>,
    second: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told =
            |value: &Option<Value>| value.as_ref().map_or("nothing".into(), Value::to_string);
        let (first, second) = (told(&self.first), told(&self.second));
        write!(f, "{}\n    one:   {first}\n    other: {second}", self.place)
    }
}

/// Reads a bootstrap. What stands in it as JSON text, the filter's configuration, is read as well.
fn read(text: &str) -> Value {
    let mut bootstrap = serde_saphyr::from_str(text).expect("YAML");
    read_texts(&mut bootstrap);
    bootstrap
}

fn read_texts(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(read_texts),
        Value::Array(items) => items.iter_mut().for_each(read_texts),
        Value::String(text) if text.starts_with('{') => {
            *value = serde_json::from_str(text).expect("a text that begins like JSON is JSON");
        }
        _ => {}
    }
}

/// The local bootstrap; what `./build.sh run` fills in does not matter here.
fn local() -> Value {
    let mut text = LOCAL.replace("${MOORAGE_SCHEMA1_KEY}", "").replace("${MOORAGE_ACCESS}", "");
    for placeholder in ["PORT", "ADMIN_PORT", "STORE_PORT", "WASM", "ACCESS_LOG"] {
        text = text.replace(&format!("${{MOORAGE_{placeholder}}}"), "9901");
    }
    read(&text)
}

/// What an item of a list is called: by its name, its priority, or what the route matches; else by its number.
fn identity(number: usize, item: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    text(&item["name"])
        .or_else(|| text(&item["priority"]))
        .or_else(|| item.get("match").map(route_identity))
        .unwrap_or_else(|| number.to_string())
}

/// The method and path that a route matches, and the headers that must be missing.
fn route_identity(route_match: &Value) -> String {
    let path = route_match["prefix"].as_str().or(route_match["safe_regex"]["regex"].as_str());
    let mut identity = path.unwrap_or_default().to_owned();
    for header in route_match["headers"].as_array().into_iter().flatten() {
        let condition = &header["string_match"];
        let name = header["name"].as_str().unwrap_or_default();
        match condition["exact"].as_str().or(condition["safe_regex"]["regex"].as_str()) {
            Some(method) if name == ":method" => identity = format!("{method} {identity}"),
            _ => identity = format!("{identity} without {name}"),
        }
    }
    identity
}

/// The parts of an object or a list, with the places they are at.
fn parts<'a>(place: &str, value: &'a Value) -> Option<Vec<(String, &'a Value)>> {
    let dot = if place.is_empty() { "" } else { "." };
    match value {
        Value::Object(fields) => {
            Some(fields.iter().map(|(name, part)| (format!("{place}{dot}{name}"), part)).collect())
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            let part = |(number, item)| (format!("{place}[{}]", identity(number, item)), item);
            Some(items.map(part).collect())
        }
        _ => None,
    }
}

/// Every difference between two values, each at the innermost place that has it.
fn differences(place: &str, first: &Value, second: &Value) -> Vec<Difference> {
    let (Some(ours), Some(theirs)) = (parts(place, first), parts(place, second)) else {
        return if first == second {
            Vec::new()
        } else {
            vec![difference(place, Some(first), Some(second))]
        };
    };
    let mut found = Vec::new();
    let (ours_by_place, theirs_by_place) = (by_place(&ours), by_place(&theirs));
    let places: BTreeSet<_> = ours_by_place.keys().chain(theirs_by_place.keys()).collect();
    for &place in places {
        match (ours_by_place.get(place), theirs_by_place.get(place)) {
            (Some(first), Some(second)) => found.extend(differences(place, first, second)),
            (first, second) => {
                found.push(difference(place, first.copied(), second.copied()));
            }
        }
    }
    let shared = |parts: &[(String, &Value)], others: &BTreeMap<&str, &Value>| -> Vec<Value> {
        let places = parts.iter().map(|(place, _)| place.as_str());
        places.filter(|place| others.contains_key(place)).map(Value::from).collect()
    };
    // Filters and routes take their turns in the order of the list.
    let order = [shared(&ours, &theirs_by_place), shared(&theirs, &ours_by_place)];
    if order[0] != order[1] {
        let [first, second] = order.map(Value::from);
        found.push(difference(&format!("{place}, its order"), Some(&first), Some(&second)));
    }
    found
}

fn difference(place: &str, first: Option<&Value>, second: Option<&Value>) -> Difference {
    Difference { place: place.to_owned(), first: first.cloned(), second: second.cloned() }
}

fn by_place<'a>(parts: &'a [(String, &Value)]) -> BTreeMap<&'a str, &'a Value> {
    let map: BTreeMap<_, _> = parts.iter().map(|(place, value)| (place.as_str(), *value)).collect();
    assert_eq!(map.len(), parts.len(), "items of one list have the same name: {:?}", map.keys());
    map
}

#[test]
fn the_bootstraps_differ_only_where_it_is_meant() {
    for pair in Pair::all() {
        let drift = pair.drift(&pair.bootstraps[0]);
        let drift: String = drift.iter().map(|found| format!("{found}\n")).collect();
        let [one, other] = pair.names;
        assert!(
            drift.is_empty(),
            "envoy/{one} and envoy/{other} say different things. Make them say the same, or add the place to \
             the list in tests/bootstraps.rs with the reason:\n{drift}"
        );
    }
}

#[test]
fn what_is_listed_as_a_difference_is_one() {
    for pair in Pair::all() {
        let found = differences("", &pair.bootstraps[0], &pair.bootstraps[1]);
        for meant in pair.meant_places() {
            assert!(
                found.iter().any(|difference| lies_in(&difference.place, &meant)),
                "{:?} say the same at {meant}: remove it from the list in tests/bootstraps.rs",
                pair.names
            );
        }
    }
}

/// Every way to change, in one place, what both bootstraps have: another value, or none at all.
fn changes(place: &str, value: &Value, changed: &mut Vec<(String, Value)>) {
    let Some(parts) = parts(place, value) else {
        let other = Value::from("something else");
        changed.push((place.to_owned(), other));
        return;
    };
    for (number, (place, part)) in parts.into_iter().enumerate() {
        let mut within = Vec::new();
        changes(&place, part, &mut within);
        changed.extend(
            within.into_iter().map(|(place, part)| (place, with_part(value, number, part))),
        );
        changed.push((place, without_part(value, number)));
    }
}

fn with_part(whole: &Value, number: usize, part: Value) -> Value {
    let mut whole = whole.clone();
    match &mut whole {
        Value::Object(fields) => {
            *fields.values_mut().nth(number).expect("the part is there") = part;
        }
        Value::Array(items) => items[number] = part,
        _ => unreachable!("only objects and lists have parts"),
    }
    whole
}

fn without_part(whole: &Value, number: usize) -> Value {
    let mut whole = whole.clone();
    match &mut whole {
        Value::Object(fields) => {
            let name = fields.keys().nth(number).expect("the part is there").clone();
            fields.remove(&name);
        }
        Value::Array(items) => {
            items.remove(number);
        }
        _ => unreachable!("only objects and lists have parts"),
    }
    whole
}

#[test]
fn a_change_in_one_of_them_is_found() {
    for pair in Pair::all() {
        let mut changed = Vec::new();
        changes("", &pair.bootstraps[0], &mut changed);
        let meant: Vec<_> = pair.meant_places().collect();
        changed.retain(|(place, _)| !meant.iter().any(|meant| lies_in(place, meant)));
        assert!(changed.len() > 200, "only {} places can be changed", changed.len());
        for (place, first) in changed {
            assert!(!pair.drift(&first).is_empty(), "a change at {place} is not found");
        }
    }
}

#[test]
fn another_order_of_routes_or_filters_is_found() {
    let [pair, _] = Pair::all();
    for (list, from, to) in [
        ("routes", "PUT /registry/docker/registry/v2/blobs/", "/"),
        ("http_filters", "moorage", "envoy.filters.http.health_check"),
    ] {
        let mut changed = pair.bootstraps[0].clone();
        let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
        let manager = changed.pointer_mut(manager).expect("the connection manager");
        let items = match list {
            "routes" => &mut manager["route_config"]["virtual_hosts"][0]["routes"],
            _ => &mut manager["http_filters"],
        };
        let items = items.as_array_mut().expect("a list");
        let position = |name: &str| {
            let mut items = items.iter().enumerate();
            items.position(|(number, item)| identity(number, item) == name).expect("it is there")
        };
        let (from, to) = (position(from), position(to));
        items.swap(from, to);
        assert!(!pair.drift(&changed).is_empty(), "another order of {list} is not found");
    }
}

/// The lines of `edge.yaml` that say WRITES are YAML once they are switched on, and lead nothing to the bucket.
#[test]
fn an_edge_node_that_passes_pushes_on_sends_them_to_the_central_registry_alone() {
    let bootstrap = read(&EDGE.replace("# WRITES ", ""));
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let manager = bootstrap.pointer(manager).expect("the connection manager");
    let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array().expect("routes");
    let past_moorage: Vec<_> =
        routes.iter().filter(|route| route.get("typed_per_filter_config").is_some()).collect();
    assert_eq!(past_moorage.len(), 2);
    for route in past_moorage {
        assert_eq!(route["route"]["cluster"], "central");
        assert_eq!(route["typed_per_filter_config"]["moorage"]["disabled"], true);
    }
}
