//! What somebody would try who may do little.

use super::*;
use crate::registry::HeaderFields;

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
