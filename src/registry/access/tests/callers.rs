//! How callers are known, and how often they may be wrong.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

#[test]
fn callers_are_known_in_many_ways() {
    let fixture = Fixture::new();
    let environment = &fixture.registry.environment;
    let pull = |authorization: &str| {
        fixture.status(Method::GET, "/v2/apps/web/manifests/t", authorization)
    };
    let is_known = |status: u16, who: &str, how: &str| {
        assert_eq!((status, fixture.identity()), (404, format!("{who} ({how})")));
    };
    is_known(pull(&basic("bob", "builder")), "user:bob", "password");
    is_known(pull(&basic("ci", ROBOT)), "user:ci", "robot-token");
    is_known(pull(&format!("Bearer {ROBOT}")), "user:ci", "robot-token");
    is_known(
        pull(&fixture.token("repository:apps/web:pull", &basic("bob", "builder"))),
        "user:bob",
        "password",
    );
    assert_eq!(pull(&basic("bob", "wonderland")), 401);
    assert_eq!(pull(&basic("ada", ROBOT)), 401, "another's token");
    assert_eq!(pull(&format!("{} {ROBOT}x", "Bearer")), 401);
    environment.certificate_names.replace(vec!["spiffe://example.org/ci".to_owned()]);
    is_known(pull(""), "spiffe://example.org/ci", "certificate");
    environment.certificate_names.replace(vec!["spiffe://elsewhere.org/ci".to_owned()]);
    assert_eq!(pull(""), 401, "no caller by this name is configured");
    let metadata = |filter, entries: &[(&str, &str)]| leave_metadata(&fixture, filter, entries);
    metadata("jwt_authn", &[("oidc", ""), ("oidc/sub", "eve"), ("oidc/groups", "x dev")]);
    is_known(pull(""), "user:eve", "jwt");
    is_known(pull("Bearer a.token.of-another"), "user:eve", "jwt");
    metadata("jwt_authn", &[("oidc", ""), ("oidc/sub", "eve")]);
    assert_eq!(pull(""), 401);
    metadata("ext_authz", &[("user", "eve"), ("groups", "dev")]);
    assert_eq!(pull(""), 401, "its groups have a prefix");
    assert_eq!(fixture.identity(), "user:ext:eve (ext-authz)");
}

#[test]
fn a_robots_token_ends_with_its_time() {
    let fixture = Fixture::new();
    fixture.registry.environment.time.set(NOW + Duration::from_secs(3400));
    let pull = |authorization: &str| {
        fixture.status(Method::GET, "/v2/apps/web/manifests/t", authorization)
    };
    let robot = basic("ci", ROBOT);
    let token = fixture.token("repository:apps/web:pull", &robot);
    assert_eq!(pull(&token), 404, "it is good for 300 seconds, and remembered");
    fixture.registry.environment.time.set(NOW + Duration::from_secs(3599));
    assert_eq!((pull(&robot), pull(&format!("Bearer {ROBOT}"))), (404, 404));
    fixture.registry.environment.time.set(NOW + Duration::from_secs(3600));
    assert_eq!((pull(&robot), pull(&format!("Bearer {ROBOT}")), pull(&token)), (401, 401, 401));
}

#[test]
fn guesses_are_slowed_down_and_a_password_that_is_known_is_not() {
    let fixture = Fixture::new();
    assert_eq!(fixture.status(Method::GET, "/v2/", &ada()), 200);
    let mut refused = None;
    for number in 0..30 {
        let guess = basic("ada", &format!("guess {number}"));
        let (response, _) = fixture.send(Method::GET, "/v2/", &guess);
        match response.status().as_u16() {
            401 => assert!(refused.is_none(), "once refused, always refused"),
            429 => refused = refused.or(Some(number)),
            status => panic!("{status}"),
        }
        if let Some(seconds) = response.headers().get(RETRY_AFTER) {
            assert!(seconds.to_str().expect("text").parse::<u32>().expect("seconds") >= 1);
            assert_eq!(errors(&response).1, ["TOOMANYREQUESTS"]);
        }
        if refused.is_some_and(|first| number > first + 2) {
            break;
        }
    }
    assert_eq!(refused, Some(10));
    assert_eq!(fixture.status(Method::GET, "/v2/", &ada()), 200, "it is remembered");
    let token = fixture.token("repository:apps/web:pull", &ada());
    assert_eq!(fixture.status(Method::GET, "/v2/", &token), 200);
    // A wrong one that has been tried before is as cheap as a right one, and no further guess.
    assert_eq!(fixture.status(Method::GET, "/v2/", &basic("ada", "guess 1")), 401);
    // Refusals are held back, so that no client gets many.
    let before = fixture.registry.environment.time.get();
    assert_eq!(fixture.status(Method::GET, "/v2/", &basic("ada", "one more")), 429);
    assert!(fixture.registry.environment.time.get() >= before + Duration::from_secs(1));
}

#[test]
fn a_password_is_checked_once_and_then_known() {
    let fixture = Fixture::new();
    let request = |authorization: &str| {
        fixture.registry.request(Method::GET, "/v2/", &[(AUTHORIZATION, authorization)])
    };
    let access = access();
    let (ada, bob) = (request(&ada()), request(&basic("bob", "builder")));
    let checks = [&ada, &ada, &bob].map(|request| access.caller(request).now_or_never());
    let names =
        checks.map(|caller| caller.expect("no store").expect("known").identity.subject.clone());
    assert_eq!(names, ["user:ada", "user:ada", "user:bob"]);
    let first = access.caller_at_once(&ada).expect("remembered").expect("known");
    assert!(Rc::ptr_eq(&first, &access.caller_at_once(&ada).expect("remembered").expect("known")));
}

#[test]
fn who_has_a_token_of_its_own_and_one_of_another_filter_is_whom_its_own_names() {
    let fixture = Fixture::new();
    let entries = [("oidc", ""), ("oidc/sub", "eve"), ("oidc/groups", "dev")];
    let token = fixture.token("repository:apps/web:pull", &ada());
    leave_metadata(&fixture, "jwt_authn", &entries);
    // Whether it is remembered or not.
    for _ in 0..2 {
        assert_eq!(fixture.status(Method::GET, "/v2/apps/web/manifests/t", &token), 404);
        assert_eq!(fixture.identity(), "user:ada (password)");
    }
    let foreign = forgeries::forge(json!({ "alg": "ES256" }), json!({ "iss": "eve's" }), &key());
    let foreign = format!("Bearer {foreign}");
    assert_eq!(fixture.status(Method::GET, "/v2/apps/web/manifests/t", &foreign), 404);
    assert_eq!(fixture.identity(), "user:eve (jwt)");
}
