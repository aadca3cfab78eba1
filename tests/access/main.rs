//! Whoever calls, whatever the rules say and however a path is spelled: nothing reaches the store of a repository that is
//! not granted, and what is granted is not refused. What is granted is found out a second time, in `naive`.

#![cfg(not(target_family = "wasm"))]

mod callers;
mod naive;
#[path = "../recorder/mod.rs"]
mod recorder;
mod requests;

use std::rc::Rc;

use bytes::Bytes;
use callers::{Caller, Known};
use http::{Method, Response};
use moorage::registry::{Answer, Body, HeaderFields, Request};
use naive::{Rule, Tags, Verdict, Want, Who};
use proptest::prelude::*;
use recorder::{Listing, Parameters, Registry};
use requests::NAMES;
use serde_json::{Value, json};

/// A registry with these rules, whose store has a repository of every name.
fn registry(rules: &[Rule]) -> Registry {
    let rule = |rule: &Rule| {
        let Rule { who, repositories, actions, tags } = rule;
        let tags = if tags.is_empty() { Value::Null } else { json!(tags) };
        json!({ "who": who, "repositories": repositories, "actions": actions, "tags": tags })
    };
    let mut access = callers::configuration();
    access["rules"] = rules.iter().map(rule).collect();
    let listing: Listing = Box::new(listing);
    Registry::new(&format!(r#""access":{access},"#), listing)
}

const ROOT: &str = "pre/fix/docker/registry/v2/repositories/";

/// What S3 lists (AWS, "ListObjectsV2") of a bucket where each repository has one object.
fn listing(parameters: &Parameters<'_>) -> String {
    let parameter = |name: &str| parameters.get(name).map_or("", |value| value);
    let (prefix, after) = (parameter("prefix"), parameter("start-after"));
    let mut keys: Vec<_> =
        NAMES.iter().map(|name| format!("{ROOT}{name}/_layers/x/link")).collect();
    keys.sort();
    let mut entries: Vec<String> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        let entry = match rest.split_once('/') {
            Some((folder, _)) if parameters.contains_key("delimiter") => {
                format!("{prefix}{folder}/")
            }
            _ => key.clone(),
        };
        if entry.as_str() > after && !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    let most: usize = parameter("max-keys").parse().expect("a number");
    let is_more = entries.len() > most;
    entries.truncate(most);
    let entry = |entry: String| match entry.ends_with('/') {
        true => format!("<CommonPrefixes><Prefix>{entry}</Prefix></CommonPrefixes>"),
        false => format!("<Contents><Key>{entry}</Key></Contents>"),
    };
    let entries: String = entries.into_iter().map(entry).collect();
    format!("<IsTruncated>{is_more}</IsTruncated>{entries}")
}

/// Sends a request. A manifest is put where one belongs, and some other body where it is streamed.
fn send(
    registry: &Registry,
    caller: &Caller,
    method: &str,
    target: &str,
) -> (u16, Response<Bytes>, Vec<String>) {
    let headers: Vec<_> =
        caller.headers().into_iter().map(|value| ("authorization", value)).collect();
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let headers = HeaderFields::from(&headers[..]);
    let mut request = Request::new(method, target, headers, Rc::new(Known(caller.clone())));
    if request.method == Method::PUT {
        request.body = Body::Whole(requests::MANIFEST.into());
    }
    let (answer, paths) = match request.method {
        Method::PATCH | Method::PUT => registry.ask_with_stream(&request),
        _ => registry.ask(&request),
    };
    match answer {
        Answer::Reply(reply) => (reply.status().as_u16(), (*reply).clone(), paths),
        Answer::Stream(_) => (200, Response::default(), paths),
    }
}

/// The repository that a path of the store is for, and the tag.
fn repository_and_tag(path: &str) -> (Option<String>, Option<String>) {
    let path = naive::decoded(path);
    let Some((_, rest)) = path.split_once("/repositories/").or_else(|| path.split_once(ROOT))
    else {
        return (None, None);
    };
    let (name, rest) = rest.split_once("/_").unwrap_or((rest, ""));
    let tag = rest.strip_prefix("manifests/tags/").and_then(|rest| rest.split_once('/'));
    (Some(name.to_owned()), tag.map(|(tag, _)| tag.to_owned()))
}

/// Checks that a request was answered as it has to be, and asked the store for what it may.
fn check(
    rules: &[Rule],
    who: Option<&Who>,
    (method, target): (&str, &str),
    status: u16,
    paths: &[String],
) -> Result<(), TestCaseError> {
    let want = naive::want(method, target);
    let what = format!("{method} {target} {want:?} {who:?}: {status} {paths:?}");
    let Want::Repository { name, actions, tags } = &want else {
        prop_assert!(paths.is_empty() || want == Want::Catalog, "{}", what);
        let expected = match (&want, who) {
            (Want::Nothing, _) => {
                prop_assert!((400..=405).contains(&status), "{}", what);
                return Ok(());
            }
            (Want::NoMethod, _) => 405,
            // There is no form, whoever sends none.
            (Want::Token, _) if method == "POST" => 400,
            (_, None) => 401,
            // A token that grants something gets no other.
            (Want::Token, Some(who)) => {
                if who.token.is_some() {
                    401
                } else {
                    200
                }
            }
            (want, Some(who)) if naive::judge(rules, who, want) == Verdict::Allowed => 200,
            _ => 401,
        };
        prop_assert_eq!(status, expected, "{}", what);
        return Ok(());
    };
    let Some(who) = who else {
        prop_assert!(status == 401 && paths.is_empty(), "{}", what);
        return Ok(());
    };
    match naive::judge(rules, who, &want) {
        Verdict::Allowed => prop_assert!(![401, 403].contains(&status), "{}", what),
        verdict => {
            let expected = if verdict == Verdict::Denied { 403 } else { 401 };
            prop_assert!(status == expected && paths.is_empty(), "{}", what);
        }
    }
    let from = naive::parameters(target, "from").into_iter().next().filter(|from| {
        naive::may(rules, who, from, &["pull"], &Tags::None)
            && method == "POST"
            && !naive::parameters(target, "mount").is_empty()
    });
    if method == "POST" && status < 400 && naive::parameters(target, "digest").is_empty() {
        prop_assert_eq!(status, if from.is_some() { 201 } else { 202 }, "{}", what);
    }
    for (repository, tag) in paths.iter().map(|path| repository_and_tag(path)) {
        let is_meant = repository
            .as_ref()
            .is_none_or(|repository| repository == name || Some(repository) == from.as_ref());
        prop_assert!(is_meant, "{}", what);
        if let Some(tag) = tag
            && ["PUT", "DELETE"].contains(&method)
            && *tags != Tags::Any
        {
            let one = Tags::These(vec![tag]);
            prop_assert!(naive::may(rules, who, name, actions, &one), "{}", what);
        }
    }
    Ok(())
}

/// Gets a token from the registry itself, and gives what it has to grant.
fn token_of(
    registry: &Registry,
    rules: &[Rule],
    caller: &Caller,
    asked: &callers::Grants,
) -> Result<Option<(Caller, Who)>, TestCaseError> {
    let scopes = asked.iter().map(|(kind, name, actions)| {
        format!("scope={kind}:{}:{}", name.replace('*', "%2A"), actions.join(","))
    });
    let target = format!("/auth/token?{}", scopes.collect::<Vec<_>>().join("&"));
    let (status, response, paths) = send(registry, caller, "GET", &target);
    prop_assert!(paths.is_empty());
    let Some(who) = caller.who().filter(|who| who.token.is_none()) else {
        prop_assert_eq!(status, 401);
        return Ok(None);
    };
    prop_assert_eq!(status, 200);
    let body: Value = serde_json::from_slice(response.body()).expect("JSON");
    let token = body["token"].as_str().expect("a text");
    let granted = asked.iter().map(|(kind, name, actions)| {
        let is_asked = |action: &str| actions.iter().any(|of| of == action || of == "*");
        let is_granted = |action: &&str| {
            is_asked(action) && naive::grants(rules, &who, name, action, &Tags::None)
        };
        let actions = match (kind.as_str(), name.as_str()) {
            ("repository", _) => {
                ["pull", "push", "delete"].into_iter().filter(is_granted).collect()
            }
            ("registry", "catalog") if actions.iter().any(|of| of == "*") => vec!["*"],
            _ => Vec::new(),
        };
        (kind.clone(), name.clone(), actions.into_iter().map(str::to_owned).collect())
    });
    let who = Who { token: Some(granted.collect()), ..who };
    Ok(Some((Caller::Wrong(vec![format!("Bearer {token}")]), who)))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_reached_that_is_not_granted_and_what_is_granted_is_not_refused(
        rules in requests::rules(),
        requests in prop::collection::vec((callers::caller(), requests::request()), 1..8),
    ) {
        let registry = registry(&rules);
        for (caller, (method, target)) in requests {
            let (status, _, paths) = send(&registry, &caller, method, &target);
            check(&rules, caller.who().as_ref(), (method, &target), status, &paths)?;
        }
    }

    #[test]
    fn a_token_of_the_registry_grants_what_was_asked_for_and_is_granted(
        rules in requests::rules(),
        caller in callers::caller(),
        asked in callers::grants(),
        requests in prop::collection::vec(requests::request(), 1..8),
    ) {
        let registry = registry(&rules);
        if let Some((holder, who)) = token_of(&registry, &rules, &caller, &asked)? {
            for (method, target) in requests {
                let (status, _, paths) = send(&registry, &holder, method, &target);
                check(&rules, Some(&who), (method, &target), status, &paths)?;
            }
        }
    }

    #[test]
    fn the_catalog_shows_what_may_be_pulled_and_nothing_else(
        rules in requests::rules(),
        caller in callers::caller(),
        entries in 1..12usize,
    ) {
        let registry = registry(&rules);
        let mut target = format!("/v2/_catalog?n={entries}");
        let mut shown = Vec::new();
        let who = loop {
            let (status, response, _) = send(&registry, &caller, "GET", &target);
            check(&rules, caller.who().as_ref(), ("GET", &target), status, &[])?;
            let Some(who) = caller.who().filter(|_| status == 200) else {
                return Ok(());
            };
            let body: Value = serde_json::from_slice(response.body()).expect("JSON");
            let page = body["repositories"].as_array().expect("a list");
            shown.extend(page.iter().map(|name| name.as_str().expect("a text").to_owned()));
            let Some(link) = response.headers().get("link") else {
                break who;
            };
            let link = link.to_str().expect("text").trim_start_matches('<');
            target = link.trim_end_matches(">; rel=\"next\"").to_owned();
        };
        let may_pull = |name: &&&str| naive::grants(&rules, &who, name, "pull", &Tags::None);
        let mut expected: Vec<_> = NAMES.iter().filter(may_pull).map(|name| (*name).to_owned()).collect();
        expected.sort();
        shown.sort();
        prop_assert_eq!(shown, expected);
    }
}
