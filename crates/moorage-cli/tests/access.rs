//! Accounts and access control, by the real program. What it makes is taken by the filter's own code, and what it
//! explains is what that decides about requests.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use http::Method;
use moorage::config::AccessConfig;
use moorage::registry::access::{Access, NameAndPassword, permit};
use moorage::registry::{Environment, HeaderFields, Nonce, Request, Settings};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// Runs the program with this on standard input.
fn moorage(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorage"));
    command.args(arguments).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().expect("the program starts");
    let mut stdin = program.stdin.take().expect("it is piped");
    // A program that refuses its arguments reads nothing.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    program.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("text")
}

fn file(content: &Value) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(&file, content.to_string()).expect("a file");
    file
}

/// The key of RFC 7515, appendix A.3.
fn key() -> Value {
    json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
    })
}

fn access(config: &Value) -> Access {
    AccessConfig::parse(config.to_string().as_bytes()).expect("a valid configuration").access()
}

/// What a request comes with, beside its headers.
#[derive(Debug, Default)]
struct Surroundings {
    certificate: Option<String>,
}

impl Environment for Surroundings {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn nonce(&self) -> Nonce {
        Nonce([7; 32])
    }

    fn delay(&self, _: Duration) -> LocalBoxFuture<'static, ()> {
        std::future::ready(()).boxed_local()
    }

    fn certificate_names(&self) -> Vec<String> {
        self.certificate.iter().cloned().collect()
    }
}

/// Makes a user with this password.
fn made_user(name: &str, password: &str) -> String {
    let made = moorage(&["user", "add", name, "--cost", "4"], &format!("{password}\n"));
    assert!(made.status.success(), "{made:?}");
    let hint = text(&made.stderr);
    assert!(hint.contains("access.users") && hint.lines().count() == 1, "{hint}");
    text(&made.stdout).strip_suffix('\n').expect("a line").to_owned()
}

/// Makes a token: that, and its entry.
fn made_token(name: &str, expires: &str) -> (String, Value) {
    let made = moorage(&["token", "new", name, "--expires", expires, "--format", "json"], "");
    assert!(made.status.success() && made.stderr.is_empty(), "{made:?}");
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    (made["token"].as_str().expect("a text").to_owned(), made["entry"].clone())
}

#[test]
fn a_made_user_is_taken_with_its_password_alone() {
    let line = made_user("ada", "wonder land");
    assert!(line.starts_with("ada:$2y$04$"), "{line}");
    assert_ne!(line, made_user("ada", "wonder land"), "each has a salt of its own");
    let config = json!({ "key": key(), "users": [line] });
    let caller = |password: &str| {
        let pair = NameAndPassword { name: "ada".to_owned(), password: password.to_owned() };
        let access = access(&config);
        let surroundings = Surroundings::default();
        let caller = access.caller_with_password(&pair, &surroundings);
        caller.now_or_never().expect("nothing to wait for").map(|c| c.identity.subject.clone()).ok()
    };
    assert_eq!(caller("wonder land").as_deref(), Some("user:ada"));
    assert_eq!(caller("wonder land\n"), None);
    let unset = moorage(&["user", "add", "ada"], "wonderland\r\n");
    assert!(text(&unset.stdout).starts_with("ada:$2y$10$"), "{unset:?}");
}

#[test]
fn a_user_that_can_not_be_is_refused_without_a_word_of_the_password() {
    let long = "secret".repeat(13);
    for (name, password, cost, status) in [
        ("ada", "", "4", 1),
        ("ada", &long, "4", 1),
        ("ada", "mrg_secret", "4", 1),
        ("", "secret", "4", 2),
        ("ada:secret", "secret", "4", 2),
        ("a\tsecret", "secret", "4", 2),
        ("ada", "secret", "3", 2),
        ("ada", "secret", "13", 2),
    ] {
        let refused = moorage(&["user", "add", "--cost", cost, "--", name], password);
        assert_eq!(refused.status.code(), Some(status), "{name:?} {password:?}");
        let complaint = text(&refused.stderr);
        assert!(complaint.lines().count() == 1 && !complaint.contains("secret"), "{complaint}");
        assert!(refused.stdout.is_empty());
    }
    for arguments in [&["ada", "secret"][..], &["ada", "--password=secret"], &["ada", "-psecret"]] {
        let refused = moorage(&[&["user", "add"], arguments].concat(), "wonderland");
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        let complaint = text(&refused.stderr);
        assert!(complaint.contains("argument") && !complaint.contains("secret"), "{complaint}");
    }
}

#[test]
fn a_made_token_is_taken_and_shown_on_standard_output_alone() {
    let made = moorage(&["token", "new", "ci"], "");
    assert!(made.status.success(), "{made:?}");
    let (token, told) = (text(&made.stdout).trim_end(), text(&made.stderr));
    assert!(token.starts_with("mrg_") && token.len() == 47, "{token}");
    assert!(!told.contains("mrg_") && told.contains("never expires"), "{told}");
    let entry = told.lines().find(|line| line.starts_with('{')).expect("an entry");
    let entry: Value = serde_json::from_str(entry).expect("JSON");
    assert!(entry.get("expires").is_none(), "{entry}");
    let (another, other_entry) = made_token("build", "90d");
    assert_ne!(another, token);
    let access = access(&json!({ "key": key(), "tokens": [entry, other_entry] }));
    let caller = |token: &str| {
        let caller = access.caller_with_robot_token(token, &Surroundings::default());
        caller.map(|caller| caller.identity.subject.clone()).ok()
    };
    assert_eq!(caller(token).as_deref(), Some("user:ci"));
    assert_eq!(caller(&another).as_deref(), Some("user:build"));
    assert_eq!(caller(&token[..46]), None);
    for (name, expires) in [("", "90d"), ("a:b", "90d"), ("ci", "0s"), ("ci", "soon")] {
        let refused = moorage(&["token", "new", name, "--expires", expires], "");
        assert_eq!(refused.status.code(), Some(2), "{name:?} {expires:?}");
        assert!(refused.stdout.is_empty());
    }
}

/// Access control with accounts that the program has made.
struct Made {
    config: Value,
    robot: String,
}

impl Made {
    fn new() -> Self {
        let (robot, entry) = made_token("ci", "1h");
        let rule = |who: &[&str], repositories: &str, actions: &[&str], tags: &[&str]| json!({ "who": who, "repositories": [repositories], "actions": actions, "tags": tags });
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
        let request = Request::new(method, target, headers, Rc::new(Surroundings { certificate }));
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
