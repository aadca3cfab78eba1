//! What somebody would try who may do little.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::registry::{Environment as _, HeaderFields};

#[test]
fn robots_tokens_that_are_wrong_make_nobody_forget_a_password() {
    let fixture = Fixture::new();
    let log_in = |authorization: &str| fixture.status(Method::GET, "/v2/", authorization);
    assert_eq!(log_in(&ada()), 200);
    let guesses = (0..20).map(|number| log_in(&basic("ada", &format!("guess {number}"))));
    assert!(guesses.into_iter().any(|status| status == 429), "who is not known has to wait");
    for number in 0..5000 {
        assert_eq!(log_in(&basic("ada", &format!("mrg_{number}"))), 401);
    }
    assert_eq!(log_in(&ada()), 200);
}

#[test]
fn a_token_does_not_keep_a_group_that_the_configuration_has_taken_away() {
    let mut fixture = Fixture::new();
    let token = fixture.token("repository:apps/web:pull", &basic("bob", "builder"));
    let pull = |fixture: &Fixture| fixture.status(Method::GET, "/v2/apps/web/manifests/t", &token);
    assert_eq!(pull(&fixture), 404);
    let mut changed = access();
    changed.accounts.groups.clear();
    fixture.registry.settings.access = Some(Rc::new(changed));
    assert_eq!(pull(&fixture), 401);
}

#[test]
fn a_token_keeps_the_groups_that_another_filter_has_verified() {
    let fixture = Fixture::new();
    let entries = [("oidc", ""), ("oidc/sub", "eve"), ("oidc/groups", "dev")];
    let environment = &fixture.registry.environment;
    leave_metadata(&fixture, "jwt_authn", &entries);
    let token = fixture.token("repository:apps/web:pull", "");
    environment.metadata.take();
    assert_eq!(fixture.status(Method::GET, "/v2/apps/web/manifests/t", &token), 404);
}

#[test]
fn no_name_begins_a_line_of_its_own_in_the_access_log() {
    let fixture = Fixture::new();
    let entries = [("oidc", ""), ("oidc/sub", "eve\r\nuser:ada (password)\u{85}\0é")];
    leave_metadata(&fixture, "jwt_authn", &entries);
    fixture.status(Method::GET, "/v2/apps/web/manifests/t", "");
    assert_eq!(fixture.identity(), r"user:eve\r\nuser:ada (password)\u{85}\u{0}é (jwt)");
}

#[test]
fn lists_of_repositories_are_the_same_whatever_there_is_that_the_caller_may_not_see() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    for number in 0..40 {
        for name in
            [format!("secret/{number:02}"), format!("public-{number}"), format!("z/{number}")]
        {
            fixture.registry.store.put_blob(&name.parse().expect("a valid name"), b"layer");
        }
    }
    for name in ["public/b", "public/c/d"] {
        for fixture in [&fixture, &other] {
            fixture.registry.store.put_blob(&name.parse().expect("a valid name"), b"layer");
        }
    }
    let anonymous = fixture.token("registry:catalog:*", "");
    for entries in 1..6 {
        for last in
            ["", "a", "public/a", "public/b", "public-1", "secret/3", "secret/38", "z/00", "z/39"]
        {
            let target = format!("/v2/_catalog?n={entries}&last={last}");
            let page = |fixture: &Fixture| {
                let (response, _) = fixture.send(Method::GET, &target, &anonymous);
                (response.headers().get("link").cloned(), response.into_body())
            };
            assert_eq!(page(&fixture), page(&other), "{target}");
        }
    }
}

#[test]
fn a_cursor_does_not_tell_how_long_the_name_is() {
    let fixture = Fixture::new();
    let access = access();
    let cursor = |name: &str| access.cursors().encrypt(name, fixture.registry.environment.nonce());
    let (short, long) = (cursor("a"), cursor(&"a".repeat(255)));
    assert_eq!(short.len(), long.len());
    assert_eq!(access.cursors().decrypt(&short).as_deref(), Some("a"));
    assert_eq!(access.cursors().decrypt(&long), Some("a".repeat(255)));
}

#[test]
fn whoever_names_its_host_gets_no_challenge_of_its_own_making() {
    let access = access();
    for authority in ["a\", x=\"", "a,b", "a b", "a\r\nx: y", "a/b", "a?b", "u@a", "\u{e9}", "a\\b"]
    {
        let fields = [(":authority", authority), ("x-forwarded-proto", "http\", x=\"")];
        let headers = HeaderFields::from(&fields[..]);
        let environment = Rc::<crate::registry::test_registry::TestEnvironment>::default();
        let request = Request::new(Method::GET, "/v2/", headers, environment);
        assert_eq!(access.realm(&request), "https:///auth/token", "{authority}");
    }
}

#[test]
fn who_asks_for_token_after_token_has_to_wait_and_others_do_not() {
    let fixture = Fixture::new();
    let environment = &fixture.registry.environment;
    environment.address.set(Some([192, 0, 2, 1].into()));
    let ask = || fixture.status(Method::GET, "/auth/token?scope=repository:public/a:pull", "");
    let statuses: Vec<_> = (0..600).map(|_| ask()).take_while(|status| *status == 200).collect();
    assert_eq!(statuses.len(), 500);
    environment.address.set(Some([192, 0, 2, 2].into()));
    assert_eq!(ask(), 200);
}

#[test]
fn no_token_is_given_that_would_be_too_long_to_be_taken() {
    let fixture = Fixture::new();
    let name = format!("public/{}", "a".repeat(240));
    let ask = |scopes: usize| {
        let scopes = format!("repository:{name}:pull%20").repeat(scopes);
        fixture.send(Method::GET, &format!("/auth/token?scope={scopes}"), "").0
    };
    let (few, many) = (ask(20), ask(60));
    assert_eq!((few.status().as_u16(), errors(&many)), (200, (400, vec!["UNSUPPORTED".into()])));
    let body: Value = serde_json::from_slice(few.body()).expect("JSON");
    let token = format!("Bearer {}", body["token"].as_str().expect("a text"));
    assert_eq!(fixture.status(Method::GET, "/v2/", &token), 200);
}
