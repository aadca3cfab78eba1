//! What the program says of a configuration, and what the filter does by it.

use std::process::Output;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use http::Method;
use moorage::registry::access::permit;
use moorage::registry::{HeaderFields, Request, Settings};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{TestEnvironment, access, made_token, made_user, moorage, text};
use moorage_test_support::accounts::key;

fn file(content: &Value) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(&file, content.to_string()).expect("a file");
    file
}

/// Access control with accounts that the program has made.
struct Made {
    config: Value,
    robot: String,
}

impl Made {
    fn new() -> Self {
        let (robot, entry) = made_token("ci", "1h");
        let rule = |who: &[&str], repositories: &str, actions: &[&str], tags: &[&str]| {
            // Without tags a rule is for all of them.
            let tags = (!tags.is_empty()).then_some(tags);
            json!({ "who": who, "repositories": [repositories], "actions": actions, "tags": tags })
        };
        let config = json!({
            "key": key(),
            "users": [made_user("ada", "wonderland"), made_user("bob", "builder")],
            "tokens": [entry],
            "groups": { "dev": ["bob"] },
            "certificates": ["spiffe://example.org/*"],
            "rules": [
                rule(&["anonymous", "authenticated"], "public/**", &["pull"], &[]),
                rule(&["user:ada"], "**", &["*"], &[]),
                rule(&["user:ci", "spiffe://example.org/ci"], "apps/*", &["*"], &["v*"]),
                rule(&["group:dev"], "apps/*", &["pull"], &[]),
                rule(&["group:dev"], "scratch", &["push"], &[]),
            ],
        });
        Self { config, robot }
    }

    /// Whether the filter lets a caller do this.
    fn allows(&self, caller: &str, method: Method, target: &str) -> bool {
        let basic = |password| format!("Basic {}", STANDARD.encode(format!("{caller}:{password}")));
        let credentials = match caller {
            "ada" => Some(basic("wonderland")),
            "bob" => Some(basic("builder")),
            "ci" => Some(format!("Bearer {}", self.robot)),
            _ => None,
        };
        let certificate = Some(caller.to_owned()).filter(|name| name.starts_with("spiffe://"));
        let headers: Vec<_> =
            credentials.iter().map(|credentials| ("authorization", credentials)).collect();
        let headers = HeaderFields::from(&headers[..]);
        let request =
            Request::new(method, target, headers, Rc::new(TestEnvironment { certificate }));
        let access = Some(Rc::new(access(&self.config)));
        let settings = Settings { access, ..Settings::default() };
        let permit = permit(&request, &settings).now_or_never().expect("nothing to wait for");
        permit.is_ok()
    }
}

fn explained(config: &NamedTempFile, arguments: &[&str]) -> Output {
    let path = config.path().to_str().expect("a path");
    moorage(&[&["access", "explain", "--config", path], arguments].concat(), "")
}

#[test]
fn what_is_explained_is_what_the_filter_decides() {
    let made = Made::new();
    let config = file(&made.config);
    let digest = format!("sha256:{}", "0".repeat(64));
    let callers = ["anonymous", "ada", "bob", "ci", "spiffe://example.org/ci", "spiffe://x.org/ci"];
    let mut allowed = 0;
    for repository in ["public/a", "apps/web", "apps/a/b", "scratch"] {
        let manifest = |reference: &str| format!("/v2/{repository}/manifests/{reference}");
        for (action, tag, method, target) in [
            ("pull", "", Method::GET, manifest(&digest)),
            ("pull", "v1", Method::GET, manifest("v1")),
            ("push", "", Method::POST, format!("/v2/{repository}/blobs/uploads/")),
            ("push", "v1", Method::PUT, manifest("v1")),
            ("push", "edge", Method::PUT, manifest("edge")),
            ("delete", "", Method::DELETE, manifest(&digest)),
            ("delete", "v1", Method::DELETE, manifest("v1")),
            ("delete", "edge", Method::DELETE, manifest("edge")),
        ] {
            for caller in callers {
                let tag = if tag.is_empty() { vec![] } else { vec!["--tag", tag] };
                let asked = [vec!["--as", caller, action, repository], tag].concat();
                let allows = made.allows(caller, method.clone(), &target);
                let status = explained(&config, &asked).status.code();
                assert_eq!(status, Some(i32::from(!allows)), "{asked:?}");
                allowed += u32::from(allows);
            }
        }
    }
    // Neither nothing nor everything: 32 of ada's, and of the others what the rules say.
    assert!((50..100).contains(&allowed), "{allowed}");
}

#[test]
fn an_explanation_names_rules_and_groups_and_what_comes_near() {
    let config = file(&Made::new().config);
    for (arguments, parts) in [
        (
            &["--as", "bob", "pull", "apps/web"][..],
            &[
                "allowed: user:bob may pull from apps/web",
                "groups by the configuration: dev",
                "by rules[3]: who group:dev; repositories apps/*; actions pull",
            ][..],
        ),
        (
            &["--as", "ci", "push", "apps/web"],
            &["allowed", "though only with some tags", "by rules[2]", "; tags v*"],
        ),
        (
            &["--as", "ci", "push", "apps/web", "--tag", "edge"],
            &[
                "denied",
                "not for this tag",
                "near: rules[2]",
                "only for other tags",
                "near: rules[1]",
                "to other callers",
            ],
        ),
        (
            &["--as", "ci", "delete", "apps/web"],
            &["denied", "takes away every tag", "near: rules[2]"],
        ),
        (
            &["--as", "bob", "push", "apps/web", "--tag", "x"],
            &[
                "denied",
                "(push)",
                "near: rules[3]",
                "does not grant push",
                "near: rules[2]",
                "for other callers here, and only for other tags",
                "near: rules[4]",
                "in other repositories",
            ],
        ),
        (
            &["--as", "bob", "push", "scratch"],
            &["denied", "(pull)", "near: rules[4]", "does not grant pull", "near: rules[3]"],
        ),
        (
            &["--as", "anonymous", "pull", "apps/web"],
            &["denied: anonymous may not pull from apps/web", "without a name", "near: rules[0]"],
        ),
        (
            &["--as", "user:eve", "--group", "dev", "pull", "apps/x"],
            &["allowed: user:eve", "by rules[3]"],
        ),
    ] {
        let explained = explained(&config, arguments);
        let told = text(&explained.stdout);
        for part in parts {
            assert!(told.contains(part), "{arguments:?}: no {part:?} in\n{told}");
        }
    }
    let json = explained(&config, &["--as", "eve", "pull", "apps/web", "--format", "json"]);
    assert!(text(&json.stderr).contains("no account \"eve\""), "{json:?}");
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["allowed"], false);
    let near: Vec<_> =
        json["near"].as_array().expect("a list").iter().map(|n| &n["rule"]).collect();
    assert_eq!(near, [0, 1, 2, 3]);
}

#[test]
fn wrong_use_and_wrong_configurations_have_a_status_of_their_own() {
    let config = file(&Made::new().config);
    for arguments in [
        &["--as", "group:dev", "pull", "a"][..],
        &["--as", "mrg_secret", "pull", "a"],
        &["--as", "ada", "pull", "A"],
        &["--as", "ada", "pull", "a", "--tag", "?"],
        &["--as", "ada", "fetch", "a"],
        &["pull", "a"],
    ] {
        let refused = explained(&config, arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(refused.stdout.is_empty() && !text(&refused.stderr).contains("secret"));
    }
    let invalid = file(&json!({ "key": key(), "users": ["ada:secret"] }));
    let refused = explained(&invalid, &["--as", "ada", "pull", "a"]);
    assert_eq!(refused.status.code(), Some(2));
    let complaint = text(&refused.stderr);
    assert!(complaint.contains("access.users[0]") && !complaint.contains("secret"), "{complaint}");
}

#[test]
fn a_configuration_is_checked_as_the_filter_would() {
    let check = |path: &str| moorage(&["access", "check", "--config", path], "");
    let valid = file(&Made::new().config);
    let checked = check(valid.path().to_str().expect("a path"));
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let told = text(&checked.stdout);
    assert_eq!(told, "valid: users: 2; robots' tokens: 1; groups: 1; rules: 5\n");
    let store = json!({ "cluster": "s", "authority": "s", "bucket": "b" });
    for (config, named) in [
        (json!({ "key": "secret" }), "access.key"),
        (
            json!({ "key": key(), "tokens": [{ "name": "ci", "sha256": "secret" }] }),
            "access.tokens[0].sha256",
        ),
        (json!({ "store": store, "access": { "key": key() }, "mount": "anywhere" }), "mount"),
        (json!({ "store": {}, "access": { "key": key() } }), "store.cluster"),
    ] {
        let invalid = file(&config);
        let checked = check(invalid.path().to_str().expect("a path"));
        assert_eq!(checked.status.code(), Some(1), "{named}");
        let complaint = text(&checked.stderr);
        assert!(complaint.contains(named) && complaint.lines().count() == 1, "{complaint}");
        assert!(!complaint.contains("secret") && checked.stdout.is_empty(), "{complaint}");
    }
    assert_eq!(check("/nowhere/access.json").status.code(), Some(2));
}
