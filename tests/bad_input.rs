//! Whatever a client sends: nothing panics, and no path reaches a key that the types don't allow.

#![cfg(not(target_family = "wasm"))]

mod recorder;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::LocalBoxFuture;
use http::Method;
use moorage::config::Config;
use moorage::oci::manifest::media_type_of;
use moorage::oci::{Digest, MediaType, Name, Reference, Tag, UploadId};
use moorage::registry::http::accept::Accept;
use moorage::registry::http::conditional;
use moorage::registry::route::Endpoint;
use moorage::registry::{Answer, Body, Environment, HeaderFields, Nonce, Ranges, Request};
use proptest::prelude::*;
use proptest::string::string_regex;
use recorder::{DIGEST, Parameters, Registry};
use serde_json::json;

/// In every folder it lists some others, mostly of names that no registry gives.
fn listing(parameters: &Parameters<'_>) -> String {
    let prefix = parameters.get("prefix").map_or("", |prefix| prefix);
    let names =
        ["..", ".", "", "%2e%2e", "A", "\u{e9}", "a b", "a?x", "_manifests", "a", "startedat"];
    let entry = |name| match parameters.contains_key("delimiter") {
        true => format!("<CommonPrefixes><Prefix>{prefix}{name}/</Prefix></CommonPrefixes>"),
        false => format!("<Contents><Key>{prefix}{name}</Key></Contents>"),
    };
    names.into_iter().map(entry).collect()
}

fn registry() -> Registry {
    Registry::new("", Box::new(listing))
}

/// A clock that stands still, and nonces that are all the same: each request here has a store of its own.
#[derive(Debug)]
struct StandStill;

impl Environment for StandStill {
    fn delay(&self, _: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn nonce(&self) -> Nonce {
        Nonce([1; 32])
    }
}

fn request(method: Method, target: String, headers: HeaderFields) -> Request {
    Request::new(method, target, headers, Rc::new(StandStill))
}

/// Sends a body and gives the paths that anything was asked of or written to.
fn paths_written_to(method: Method, target: String, headers: HeaderFields) -> Vec<String> {
    registry().ask_with_stream(&request(method, target, headers)).1
}

/// Answers a request and gives the paths that the store was asked for.
fn paths_asked_for(target: String, headers: HeaderFields) -> Vec<String> {
    registry().ask(&request(Method::GET, target, headers)).1
}

/// Whether a path is one of those that the layout has, written down independently of it.
fn is_in_layout(path: &str) -> bool {
    if let Some(query) = path.strip_prefix("/bucket/?") {
        return lists_the_layout(query);
    }
    if path == "/bucket/pre/fix/moorage/probes/checksums" {
        return true;
    }
    let Some(key) = path.strip_prefix("/bucket/pre/fix/docker/registry/v2/") else {
        return false;
    };
    let is_hex = |text: &str| {
        matches!(text.len(), 64 | 128) && text.bytes().all(|b| b"0123456789abcdef".contains(&b))
    };
    let is_algorithm = |text: &str| matches!(text, "sha256" | "sha512");
    let is_plain = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    let is_tag = |text: &str| {
        !text.starts_with(['.', '-'])
            && (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let is_uuid =
        |text: &str| text.len() == 36 && text.bytes().all(|b| b"0123456789abcdef-".contains(&b));
    let segments: Vec<&str> = key.split('/').collect();
    match segments.as_slice() {
        ["blobs", algorithm, shard, hex, "data"] => {
            is_algorithm(algorithm) && is_hex(hex) && hex.starts_with(shard) && shard.len() == 2
        }
        // A session ends with all that its folder has, whatever that is.
        ["repositories", rest @ ..] if rest.contains(&"_uploads") => {
            let place = rest.iter().position(|segment| *segment == "_uploads").unwrap_or(0);
            let (name, session) = rest.split_at(place);
            !name.is_empty()
                && name.iter().all(|n| is_plain(n))
                && session.len() >= 3
                && is_uuid(session[1])
                // Some stores have an object that stands for the folder itself.
                && (session[2..] == [""] || session[2..].iter().all(|n| is_tag(n)))
        }
        ["repositories", rest @ ..] => match rest {
            [name @ .., "_layers", algorithm, hex, "link"]
            | [name @ .., "_manifests", "revisions", algorithm, hex, "link"] => {
                !name.is_empty()
                    && name.iter().all(|n| is_plain(n))
                    && is_algorithm(algorithm)
                    && is_hex(hex)
            }
            [name @ .., "_manifests", "tags", tag, "current", "link"] => {
                !name.is_empty() && name.iter().all(|n| is_plain(n)) && is_tag(tag)
            }
            // A tag goes with what its folder is said to have.
            [name @ .., "_manifests", "tags", tag, of_tag] => {
                !name.is_empty()
                    && name.iter().all(|n| is_plain(n))
                    && is_tag(tag)
                    && (of_tag.is_empty() || is_tag(of_tag))
            }
            _ => false,
        },
        _ => false,
    }
}

/// Whether the query of a listing asks for folders of the layout, and begins within them.
fn lists_the_layout(query: &str) -> bool {
    let parameters: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).collect();
    let Some(prefix) = parameters.get("prefix") else {
        return false;
    };
    let Some(folder) = prefix.strip_prefix("pre/fix/docker/registry/v2/repositories/") else {
        return false;
    };
    let (name, rest) =
        folder.split_once("/_").unwrap_or((folder.strip_suffix('/').unwrap_or(folder), ""));
    let is_folder = match rest {
        "" if folder.is_empty() => true,
        "" | "layers/" | "manifests/" | "manifests/tags/" => name.parse::<Name>().is_ok(),
        _ if rest.starts_with("manifests/tags/") => {
            let tag = rest.strip_prefix("manifests/tags/").and_then(|tag| tag.strip_suffix('/'));
            name.parse::<Name>().is_ok() && tag.is_some_and(|tag| tag.parse::<Tag>().is_ok())
        }
        _ if rest.starts_with("uploads/") => {
            let id = rest.strip_prefix("uploads/").and_then(|rest| rest.strip_suffix('/'));
            name.parse::<Name>().is_ok() && id.is_some_and(|id| id.parse::<UploadId>().is_ok())
        }
        _ => {
            let subject = rest.strip_prefix("manifests/referrers/").unwrap_or_default();
            let subject = subject.strip_suffix('/').unwrap_or_default().replacen('/', ":", 1);
            name.parse::<Name>().is_ok() && subject.parse::<Digest>().is_ok()
        }
    };
    let start = parameters.get("start-after").map_or("", |start| &start[prefix.len()..]);
    is_folder && start.len() <= 255 && start.bytes().all(|b| (b'-'..=b'~').contains(&b))
}

/// Pieces of paths, the dangerous ones above all, put together at random.
fn hostile_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just("/".to_owned()),
        2 => Just("a".to_owned()),
        2 => Just("/manifests/".to_owned()),
        2 => Just("/blobs/".to_owned()),
        1 => Just("/tags/list".to_owned()),
        1 => Just("/referrers/".to_owned()),
        1 => Just("_catalog".to_owned()),
        1 => Just("?last=".to_owned()),
        1 => Just("&n=1".to_owned()),
        1 => Just(DIGEST.to_owned()),
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just("//".to_owned()),
        1 => Just("%2f".to_owned()),
        1 => Just("%2e%2e".to_owned()),
        1 => Just("%00".to_owned()),
        1 => Just("\0".to_owned()),
        1 => Just("%".to_owned()),
        1 => Just("%ff".to_owned()),
        1 => Just("\\".to_owned()),
        1 => Just("?".to_owned()),
        1 => Just("_manifests".to_owned()),
        1 => Just("a".repeat(300)),
        1 => Just("sha256:".to_owned()),
        1 => any::<String>(),
        1 => string_regex("[a-zA-Z0-9._-]{1,20}").expect("a regex"),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/v2/{}", pieces.concat()))
}

/// Paths of the API's shape with parts that are mostly valid.
fn plausible_path() -> impl Strategy<Value = String> {
    let name = string_regex("[a-z0-9._/-]{1,30}|(%[0-9a-f]{2}|[a-z]){1,10}").expect("a regex");
    let kind = prop_oneof![Just("manifests"), Just("blobs"), Just("referrers")];
    let reference = prop_oneof![
        string_regex("[A-Za-z0-9._-]{1,130}").expect("a regex"),
        string_regex("sha(256|512):([0-9a-f]{64}|[0-9a-f]{128}|[0-9a-fA-F/.]{0,70})")
            .expect("a regex"),
        Just(DIGEST.to_owned()),
    ];
    let last = string_regex("(%[0-9a-f]{2}|[ -%'-~]){0,10}").expect("a regex");
    (name, kind, reference, last, any::<bool>()).prop_map(|(name, kind, reference, last, tags)| {
        match tags {
            true => format!("/v2/{name}/tags/list?last={last}"),
            false => format!("/v2/{name}/{kind}/{reference}"),
        }
    })
}

/// Whether a path is what a write asks for beside the layout, whatever the client says: the markers of collections of garbage,
/// and what the store names as such.
fn looks_at_markers(path: &str) -> bool {
    let folder = "pre%2Ffix%2Fmoorage%2Fgc%2Fmarkers%2F";
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let marker = path.strip_prefix("/bucket/pre/fix/moorage/gc/markers/");
    path == format!("/bucket/?list-type=2&max-keys=1000&prefix={folder}")
        || marker.is_some_and(|name| !name.is_empty() && name.bytes().all(is_plain))
}

/// Paths of uploads with parts that are mostly valid.
fn upload_path() -> impl Strategy<Value = String> {
    let name = string_regex("[a-z0-9._/-]{1,30}|a").expect("a regex");
    let id = prop_oneof![
        3 => Just("01234567-89ab-cdef-0123-456789abcdef".to_owned()),
        1 => string_regex("[0-9a-f-]{36}|[.%/a-f]{0,40}").expect("a regex"),
        1 => Just(String::new()),
    ];
    let parameter = prop_oneof![
        string_regex("offset=(0|[0-9]{1,25}|-1)").expect("a regex"),
        string_regex("algorithm=(sha256|sha512|[a-z./]{0,5})").expect("a regex"),
        Just(format!("digest={DIGEST}")),
        string_regex("(digest|mount|from)=[ -~]{0,80}").expect("a regex"),
        Just(format!("mount={DIGEST}&from=b")),
    ];
    let query = prop::collection::vec(parameter, 0..4).prop_map(|query| query.join("&"));
    (name, id, query).prop_map(|(n, i, q)| format!("/v2/{n}/blobs/uploads/{i}?{q}"))
}

/// Base64 of JWS, mostly as long as one of the numbers that belong there.
fn number() -> impl Strategy<Value = String> {
    let length = prop_oneof![Just(32), Just(64), Just(128), Just(256), 0..300usize];
    let bytes = length.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length));
    bytes.prop_map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
}

/// A schema 1 manifest with a signature that has what a signature has, and is nobody's.
fn forged_manifest() -> impl Strategy<Value = String> {
    let key =
        (prop_oneof![Just("EC"), Just("RSA")], number(), number(), "(AQAB|Aw|[A-Za-z0-9_-]{0,12})");
    let key = key.prop_map(
        |(kty, x, y, e)| json!({ "kty": kty, "crv": "P-256", "x": x, "y": y, "n": x, "e": e }),
    );
    let protected = (0..400usize, prop_oneof![Just("Cn0".to_owned()), number()]);
    let algorithm = prop_oneof![Just("ES256"), Just("RS256"), Just("none")];
    (key, algorithm, number(), protected).prop_map(|(key, algorithm, signature, (length, tail))| {
        let protected = json!({ "formatLength": length, "formatTail": tail }).to_string();
        let manifest = json!({
            "schemaVersion": 1,
            "name": "a",
            "tag": "t",
            "fsLayers": [],
            "history": [],
            "signatures": [{
                "header": { "jwk": key, "alg": algorithm },
                "signature": signature,
                "protected": URL_SAFE_NO_PAD.encode(protected),
            }],
        });
        manifest.to_string()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn no_upload_leaves_the_layout(
        path in prop_oneof![upload_path(), hostile_path()],
        method in prop_oneof![Just("POST"), Just("PATCH"), Just("PUT"), Just("DELETE"), Just("GET")],
        range in "[0-9]{0,25}-[0-9]{0,25}|[ -~]{0,20}",
    ) {
        let headers = HeaderFields::from(&[("content-range", range)][..]);
        let method = method.parse().expect("a method");
        for written in paths_written_to(method, path.clone(), headers) {
            let is_known = is_in_layout(&written) || looks_at_markers(&written);
            prop_assert!(is_known, "{path:?} led to {written:?}");
        }
    }

    #[test]
    fn no_path_reaches_a_key_outside_the_layout(
        path in prop_oneof![hostile_path(), plausible_path(), any::<String>()],
    ) {
        let paths = paths_asked_for(path, HeaderFields::default());
        for path in paths {
            prop_assert!(is_in_layout(&path), "{path}");
        }
    }

    #[test]
    fn what_is_asked_of_the_store_names_the_repository_asked_for(path in plausible_path()) {
        let paths = paths_asked_for(path.clone(), HeaderFields::default());
        if let Ok(
            Endpoint::Manifest { name, .. }
            | Endpoint::Blob { name, .. }
            | Endpoint::Tags { name }
            | Endpoint::Referrers { name, .. },
        ) = Endpoint::parse(&path)
        {
            let repository = format!("/repositories/{name}/_");
            prop_assert!(!paths.is_empty());
            let paths = paths.iter().map(|path| path.replace("%2F", "/"));
            for path in paths.filter(|path| path.contains("/repositories/")) {
                prop_assert!(path.contains(&repository), "{path}");
            }
        } else {
            prop_assert!(paths.is_empty(), "an invalid path makes no storage call");
        }
    }

    #[test]
    fn any_headers_are_survived(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4),
    ) {
        let names = ["accept", "if-none-match", "range", "if-range"];
        let fields = values.iter().flat_map(|value| names.map(|name| (name, value)));
        let headers = HeaderFields::from(&fields.collect::<Vec<_>>()[..]);
        for path in ["/v2/a/manifests/t".to_owned(), format!("/v2/a/blobs/{DIGEST}")] {
            paths_asked_for(path, headers.clone());
        }
    }

    #[test]
    fn no_forged_signature_is_taken(manifest in forged_manifest()) {
        let mut registry = registry();
        registry.settings.legacy.accept_schema1 = true;
        let mut put = request(Method::PUT, "/v2/a/manifests/t".to_owned(), HeaderFields::default());
        put.body = Body::Whole(manifest.into());
        let (Answer::Reply(response), paths) = registry.ask(&put) else {
            panic!("manifests are not streamed");
        };
        prop_assert_eq!(response.status(), 400);
        prop_assert_eq!(paths, Vec::<String>::new());
    }

    #[test]
    fn names_tags_and_digests_stay_as_they_were_given(text in any::<String>()) {
        if let Ok(name) = text.parse::<Name>() {
            prop_assert_eq!(name.to_string(), &text[..]);
        }
        if let Ok(tag) = text.parse::<Tag>() {
            prop_assert_eq!(tag.to_string(), &text[..]);
        }
        if let Ok(digest) = text.parse::<Digest>() {
            prop_assert_eq!(digest.to_string(), &text[..]);
        }
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string(), &text[..]);
        }
    }

    #[test]
    fn every_name_of_the_grammar_is_taken(
        text in "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}(/[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}){0,3}",
    ) {
        prop_assert_eq!(text.parse::<Name>().is_ok(), text.len() <= 255, "{}", text);
    }

    #[test]
    fn every_tag_of_the_grammar_is_taken(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
        prop_assert!(text.parse::<Tag>().is_ok(), "{}", text);
    }

    #[test]
    fn every_digest_of_the_grammar_is_taken(text in "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}") {
        prop_assert!(text.parse::<Digest>().is_ok(), "{}", text);
    }

    /// A type that stands in the header with a positive weight is admitted, whatever stands around it.
    #[test]
    fn a_type_that_is_listed_is_admitted(
        // No quotation, which would swallow what follows it, and no weight.
        before in "[ !#-<>-\\[\\]-~]{0,40}",
        weight in "(;q=(1(\\.0{0,3})?|0\\.[1-9][0-9]{0,2}))?",
        parameter in "(; ?[a-z]{2,5}=(\"[ a-z,;=]*\"|[a-z0-9]+))?",
    ) {
        let media_type = MediaType::OciIndex;
        let own = format!("{media_type}{parameter}{weight}");
        let header = format!("{before},{own}");
        prop_assert!(Accept::parse([header.as_str()]).admits(media_type), "{header}");
        let headers = [before.as_str(), own.as_str()];
        prop_assert!(Accept::parse(headers).admits(media_type), "{headers:?}");
    }

    #[test]
    fn a_type_that_is_named_is_admitted(
        elements in prop::collection::vec(
            "(application/vnd\\.oci\\.image\\.index\\.v1\\+json|\\*/\\*|x/y)?(;q=[01])?[ \"\\\\,;]{0,3}",
            0..5,
        ),
    ) {
        let values = || elements.iter().map(String::as_str);
        let is_named = Accept::names(values(), MediaType::OciIndex);
        prop_assert!(!is_named || Accept::parse(values()).admits(MediaType::OciIndex));
        let list = elements.join(",");
        let is_named = Accept::names([list.as_str()], MediaType::OciIndex);
        prop_assert!(!is_named || Accept::parse([list.as_str()]).admits(MediaType::OciIndex));
    }

    #[test]
    fn parsers_survive_any_text(text in any::<String>()) {
        for media_type in MediaType::ALL {
            Accept::parse([text.as_str()]).admits(media_type);
        }
        conditional::IfNoneMatch::parse([text.as_str()]);
        if let Some(Ranges::One(range)) = Ranges::parse(&text) {
            prop_assert_eq!(Ranges::parse(&range.to_string()), Some(Ranges::One(range)));
        }
        // Any text: an error or a type, but no panic.
        let _ = media_type_of(text.as_bytes());
        let _ = Config::parse(text.as_bytes());
    }
}
