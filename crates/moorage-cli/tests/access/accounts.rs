//! Users and tokens that the program makes.

use futures::FutureExt as _;
use moorage::registry::access::NameAndPassword;
use serde_json::{Value, json};

use crate::{TestEnvironment, access, made_token, made_user, moorage, text};
use moorage_test_support::accounts::key;

#[test]
fn a_made_user_is_taken_with_its_password_alone() {
    let line = made_user("ada", "wonder land");
    assert!(line.starts_with("ada:$2y$04$"), "{line}");
    assert_ne!(line, made_user("ada", "wonder land"), "each has a salt of its own");
    let config = json!({ "key": key(), "users": [line] });
    let caller = |password: &str| {
        let pair = NameAndPassword { name: "ada".to_owned(), password: password.to_owned() };
        let access = access(&config);
        let environment = TestEnvironment::default();
        let caller = access.caller_with_password(&pair, &environment);
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
        let caller = access.caller_with_robot_token(token, &TestEnvironment::default());
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
