//! Access control through the whole filter: what is kept of bodies that are refused, who waits, and what the access log is
//! told.

use base64::Engine as _;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{Proxy, config_with};
use crate::filter::host::Action;
use crate::registry::private_key_tests::jwk;

/// `wonderland` at the lowest cost.
const ADA: &str = "ada:$2y$04$NHFVFxLN6UTwJghZxZIXVubLaLeO0XGdvYfKmmHmjwazQ77YPGUu.";

/// Ada may do everything, whoever has a certificate of the mesh may pull, and so may `oidc` in the group `dev`.
fn config() -> String {
    let key = jwk();
    config_with(&format!(
        r#""access":{{"key":{key},"users":["{ADA}"],"certificates":["spiffe://mesh/**"],
            "jwt":[{{"payload":"oidc","groups":"groups"}}],
            "rules":[{{"who":["user:ada"],"repositories":["**"],"actions":["*"]}},
                     {{"who":["spiffe://mesh/*","group:dev"],"repositories":["a"],"actions":["pull"]}}]}}"#
    ))
}

fn basic(password: &str) -> String {
    let pair = format!("ada:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

#[test]
fn of_a_manifest_that_is_refused_nothing_is_kept_and_the_answer_waits_for_its_end() {
    let mut proxy = Proxy::new(&config());
    let id = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
    let before = proxy.worker().budget.held(crate::store::Purpose::Bodies);
    for _ in 0..10 {
        assert_eq!(proxy.send(id, &[b' '; 100_000], false), Action::Pause);
        assert!(proxy.reply(id).is_none(), "clients that still send may not read the answer");
    }
    assert_eq!(proxy.worker().budget.held(crate::store::Purpose::Bodies), before);
    proxy.send(id, b"", true);
    assert_eq!(proxy.outcome(id), (401, "UNAUTHORIZED".to_owned()));
    assert!(proxy.host.state().calls.is_empty());
    assert_eq!(proxy.record(id)["decision"], "denied");
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn a_blob_that_is_refused_goes_nowhere() {
    let mut proxy = Proxy::new(&config());
    let path = "/v2/a/blobs/uploads/0b0f4ed6-9c1c-4b9c-9d0e-5c1f1a1b2c3d";
    let id = proxy.begin("PATCH", path, &[], false);
    assert_eq!(proxy.send(id, b"piece", false), Action::Pause);
    assert_eq!(proxy.send(id, b"the last", true), Action::Pause);
    assert_eq!(proxy.outcome(id), (401, "UNAUTHORIZED".to_owned()));
    proxy.with(id, |stream| assert!(stream.sent_on.is_empty()));
    assert!(proxy.host.state().calls.is_empty());
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn an_upload_of_which_something_came_before_its_password_was_checked_is_to_be_repeated() {
    let mut proxy = Proxy::new(&config());
    let guess = proxy.begin("GET", "/v2/", &[("authorization", &basic("a guess"))], true);
    assert_eq!(proxy.outcome(guess).0, 401);
    proxy.close(guess);
    let path = "/v2/a/blobs/uploads/0b0f4ed6-9c1c-4b9c-9d0e-5c1f1a1b2c3d?offset=0";
    let authorization = basic("wonderland");
    let headers = [("authorization", authorization.as_str())];
    let id = proxy.begin("PATCH", path, &headers, false);
    assert_eq!(proxy.send(id, b"the first piece", false), Action::Pause);
    proxy.pass(1);
    while proxy.run_queue() {}
    let sent = proxy.send(id, b"the last", true);
    proxy.with(id, |stream| assert!(stream.sent_on.is_empty(), "{:?}", stream.sent_on));
    assert_eq!(sent, Action::Pause);
    assert_eq!(proxy.outcome(id), (429, "TOOMANYREQUESTS".to_owned()));
    proxy.close(id);
    // By then the password is known.
    let id = proxy.begin("PATCH", path, &headers, false);
    assert_eq!(proxy.send(id, b"the first piece", false), Action::Continue);
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn who_guesses_waits_for_the_refusal_and_may_go_away_meanwhile() {
    let mut proxy = Proxy::new(&config());
    let guess = |proxy: &mut Proxy, number: u32| {
        let authorization = basic(&format!("guess {number}"));
        proxy.begin("GET", "/v2/", &[("authorization", &authorization)], true)
    };
    let mut waiting = Vec::new();
    for number in 0..12 {
        let id = guess(&mut proxy, number);
        if proxy.reply(id).is_none() {
            waiting.push(id);
        } else {
            assert_eq!(proxy.outcome(id).0, 401);
            proxy.close(id);
        }
    }
    assert!(waiting.len() >= 2, "the last two at least: ten may be wrong at once");
    proxy.close(waiting.pop().expect("one that waits"));
    for _ in 0..30 {
        proxy.pass(1);
        proxy.answer_calls();
    }
    for id in waiting {
        let (status, _) = proxy.outcome(id);
        assert!(status == 401 || status == 429, "{status}");
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn what_is_decided_and_by_what_is_told_to_the_access_log() {
    let mut proxy = Proxy::new(&config());
    let authorization = basic("wonderland");
    let id = proxy.ask("GET", "/v2/a/manifests/t", &[("authorization", &authorization)]);
    assert_eq!(proxy.outcome(id).0, 404);
    for (name, expected) in
        [("identity", "user:ada (password)"), ("decision", "allowed by rules[0]")]
    {
        assert_eq!(proxy.record(id)[name], expected, "{name}");
    }
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn nothing_is_told_where_there_is_no_access_control() {
    let mut proxy = Proxy::new(super::driver::CONFIG);
    let id = proxy.ask("GET", "/v2/a/manifests/t", &[]);
    let record = proxy.record(id);
    assert!(!record.contains_key("identity") && !record.contains_key("decision"), "{record:?}");
}
