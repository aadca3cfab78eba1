//! Requests and rules, of few names so that they meet.

use bytes::Bytes;
use moorage::oci::{Algorithm, Digest};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::naive::Rule;

/// The names of repositories. Words of the API are names like any others.
pub const NAMES: &[&str] = &[
    "a",
    "b",
    "ab",
    "a-b",
    "a/b",
    "b/a",
    "a/a/b",
    "a/manifests",
    "a/blobs/uploads",
    "tags",
    "catalog",
];

/// The actions, and what is none.
pub const ACTIONS: &[&str] = &["pull", "push", "delete", "*", "admin"];

const PATTERNS: &[&str] = &[
    "a",
    "ab",
    "a/b",
    "*",
    "**",
    "a*",
    "*b",
    "a/*",
    "a/**",
    "**/b",
    "*/*",
    "a**",
    "**b",
    "*a*b",
    "a/*/b",
    "tags",
    "**/manifests",
];

const TAG_PATTERNS: &[&str] = &["v1", "v*", "**", "*1", "latest"];

const TAGS: &[&str] = &["v1", "v2", "latest", "1"];

const WHO: &[&str] = &[
    "anonymous",
    "authenticated",
    "user:ada",
    "user:a*",
    "user:**",
    "user:ci",
    "user:x",
    "group:dev",
    "group:ops/*",
    "group:**",
    "group:ada",
    "spiffe://mesh/*",
    "spiffe://**",
    "issuer:https://issuer.test",
    "issuer:*",
];

const METHODS: &[&str] =
    &["GET", "GET", "HEAD", "PUT", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "get"];

/// A manifest that refers to nothing.
pub const MANIFEST: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

pub fn digest() -> Digest {
    Digest::of(Algorithm::Sha256, &Bytes::from_static(MANIFEST.as_bytes()))
}

pub fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let some = |all: &'static [&'static str], most: usize| subsequence(all, 1..=most);
    let tags = prop_oneof![2 => Just(Vec::new()), 1 => subsequence(TAG_PATTERNS, 1..=2)];
    let rule = (some(WHO, 3), some(PATTERNS, 2), some(&ACTIONS[..4], 3), tags);
    let rule = rule.prop_map(|(who, repositories, actions, tags)| Rule {
        who,
        repositories,
        actions,
        tags,
    });
    prop::collection::vec(rule, 0..5)
}

/// A part of a path, mostly as it is, else with a character encoded, or with what does not belong there.
fn spelled(text: String) -> impl Strategy<Value = String> {
    let place = 0..text.len().max(1);
    (0..16u8, place).prop_map(move |(way, place)| {
        let encoded = |place: usize| match text.as_bytes().get(place) {
            Some(byte) => format!("{}%{byte:02x}{}", &text[..place], &text[place + 1..]),
            None => text.clone(),
        };
        match way {
            0 | 1 => encoded(place),
            2 => encoded(place).to_uppercase(),
            3 => encoded(place).replace('%', "%25"),
            4 => text.replace('/', "%2f"),
            5 => text.replace('/', "//"),
            6 => format!("{text}/"),
            7 => format!("{text}%00"),
            8 => format!("x/../{text}"),
            _ => text.clone(),
        }
    })
}

fn name() -> impl Strategy<Value = String> {
    select(NAMES).prop_flat_map(|name| spelled(name.to_owned()))
}

fn query() -> impl Strategy<Value = String> {
    let tag = prop_oneof![
        4 => select(TAGS).prop_map(str::to_owned),
        1 => Just("%76%31".to_owned()),
        1 => Just(String::new()),
        1 => Just("a+b".to_owned()),
    ];
    let parameter = prop_oneof![
        4 => tag.prop_map(|tag| format!("tag={tag}")),
        3 => select(NAMES).prop_map(|name| format!("from={}", name.replace('/', "%2F"))),
        3 => Just(format!("mount={}", digest())),
        1 => Just(format!("digest={}", digest())),
        1 => Just("offset=0".to_owned()),
        1 => Just("n=2".to_owned()),
        1 => select(NAMES).prop_map(|name| format!("last={name}")),
    ];
    let parameters = prop::collection::vec(parameter, 0..4);
    parameters.prop_map(|parameters| parameters.join("&"))
}

fn path() -> impl Strategy<Value = String> {
    let reference = prop_oneof![
        3 => select(TAGS).prop_map(str::to_owned),
        3 => Just(digest().to_string()),
        1 => Just("..".to_owned()),
    ];
    let reference = || reference.clone().prop_flat_map(spelled);
    let upload = "01234567-89ab-cdef-0123-456789abcdef".to_owned();
    prop_oneof![
        1 => select(vec!["/v2/", "/v2", "/v2/_catalog", "/v2/%5fcatalog", "//v2/a/tags/list", "/auth/token"])
            .prop_map(str::to_owned),
        4 => (name(), reference()).prop_map(|(name, reference)| format!("/v2/{name}/manifests/{reference}")),
        2 => (name(), reference()).prop_map(|(name, digest)| format!("/v2/{name}/blobs/{digest}")),
        2 => (name(), any::<bool>()).prop_map(|(name, slash)| {
            format!("/v2/{name}/blobs/uploads{}", if slash { "/" } else { "" })
        }),
        2 => (name(), spelled(upload)).prop_map(|(name, id)| format!("/v2/{name}/blobs/uploads/{id}")),
        1 => name().prop_map(|name| format!("/v2/{name}/tags/list")),
        1 => (name(), reference()).prop_map(|(name, digest)| format!("/v2/{name}/referrers/{digest}")),
    ]
}

/// A request for a blob of another repository, or of the same.
fn mount() -> impl Strategy<Value = (&'static str, String)> {
    (select(NAMES), select(NAMES), any::<bool>()).prop_map(|(name, from, has_source)| {
        let from =
            if has_source { format!("&from={}", from.replace('/', "%2F")) } else { String::new() };
        ("POST", format!("/v2/{name}/blobs/uploads/?mount={}{from}", digest()))
    })
}

/// A method and a target.
pub fn request() -> impl Strategy<Value = (&'static str, String)> {
    let any = (select(METHODS), path(), query());
    let any = any.prop_map(|(method, path, query)| match query.as_str() {
        "" => (method, path),
        query => (method, format!("{path}?{query}")),
    });
    prop_oneof![6 => any, 1 => mount()]
}
