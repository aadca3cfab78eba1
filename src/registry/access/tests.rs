//! Access control as clients meet it: challenges, tokens, what is refused and what is let through.

mod attacks;
mod callers;
mod forgeries;
mod rights;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{AUTHORIZATION, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Response};
use serde_json::{Value, json};
use sha2::Digest as _;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::rules::tests::rules;
use super::*;
use crate::registry::jose::private_key_tests::{jwk, key};
use crate::registry::jose::{BASE64, PrivateKey};
use crate::registry::test_registry::{TestRegistry, errors, image, whole};
use crate::registry::{Body, Exchange, Mount, handle};
use crate::store::memory::run;

/// When the tests take place.
const NOW: Duration = Duration::from_secs(1_800_000_000);

const ROBOT: &str = "mrg_x5Wq0cJ7m1Zt0q2yJ4o6T8nLr3vB9dFhKpSgUeAiXwY";

const HOST: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The registry of the tests: everybody pulls `public/…`, `ada` may do everything, `ci` pushes tags `v…` into `apps/…`, the
/// group `dev` pulls `apps/…`.
fn access() -> Access {
    let rules = rules(&[
        ["anonymous authenticated", "public/**", "pull", ""],
        ["user:ada", "**", "*", ""],
        ["user:ci spiffe://example.org/ci", "apps/*", "*", "v*"],
        ["group:dev issuer:https://gitlab.example.org", "apps/*", "pull", ""],
    ]);
    let user = |line: &str| line.parse().expect("a user");
    let accounts = Accounts {
        users: vec![
            user("ada:$2y$04$NHFVFxLN6UTwJghZxZIXVubLaLeO0XGdvYfKmmHmjwazQ77YPGUu."),
            user("bob:$2y$05$abcdefghijklmnopqrstuu3wiKDIdUrAhSFkvcAcWHGTjN7vc525q"),
        ],
        robots: vec![Robot {
            name: "ci".to_owned(),
            hash: TokenHash::of(ROBOT),
            expires: Some(SystemTime::UNIX_EPOCH + NOW + Duration::from_secs(3600)),
        }],
        groups: vec![Group {
            name: "dev".to_owned(),
            members: vec!["user:bob".parse().expect("a pattern")],
        }],
    };
    let sources = Sources {
        certificates: vec!["spiffe://example.org/*".parse().expect("a pattern")],
        jwt: vec![JwtSource { payload: "oidc".to_owned(), names: names(), issuer: None }],
        ext_authz: Some(ExtAuthzSource {
            subject: "user".to_owned(),
            groups: Some("groups".to_owned()),
            prefix: "ext:".to_owned(),
        }),
    };
    let signing = Signing {
        key: key(),
        accepted_keys: Vec::new(),
        issuer: "moorage".to_owned(),
        lifetime: Duration::from_secs(300),
    };
    let issuer = Issuer {
        issuer: "https://gitlab.example.org".to_owned(),
        audience: "container_registry".to_owned(),
        keys: vec![(Some("theirs".to_owned()), their_key().public_key())],
        names: names(),
    };
    let tokens = Tokens::new("moorage".to_owned(), signing, vec![issuer]);
    Access::new(rules, accounts, sources, tokens, None)
}

fn names() -> Names {
    Names { subject: "sub".to_owned(), groups: Some("groups".to_owned()), prefix: String::new() }
}

/// RFC 7515, appendix A.3.
fn their_key() -> PrivateKey {
    let jwk = json!({
        "kty": "EC", "crv": "P-256", "kid": "theirs",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
    });
    PrivateKey::read(&jwk).expect("a key")
}

struct Fixture {
    registry: TestRegistry,
    /// What was noted of the latest request.
    exchange: RefCell<Option<Rc<Exchange>>>,
}

impl Fixture {
    fn new() -> Self {
        let mut registry = TestRegistry::default();
        registry.environment.time.set(NOW);
        registry.settings.access = Some(Rc::new(access()));
        registry.settings.mount = Mount::From;
        for name in ["public/a", "apps/web", "secret/x"] {
            let name = name.parse().expect("a valid name");
            registry.store.put_blob(&name, b"config");
            registry.store.put_blob(&name, b"layer");
        }
        Self { registry, exchange: RefCell::default() }
    }

    /// The answer and the number of round trips to the store.
    fn send(&self, method: Method, target: &str, authorization: &str) -> (Response<Bytes>, usize) {
        self.send_body(method, target, authorization, Body::None)
    }

    fn send_body(
        &self,
        method: Method,
        target: &str,
        authorization: &str,
        body: Body,
    ) -> (Response<Bytes>, usize) {
        let header = [(AUTHORIZATION, authorization), (HOST, "http")];
        let headers = if authorization.is_empty() { &header[1..] } else { &header[..] };
        let mut request = self.registry.request(method, target, headers);
        request.body = body;
        self.exchange.replace(Some(Rc::clone(&request.exchange)));
        let answer = handle(&request, &self.registry.store, &self.registry.settings);
        let (answer, round_trips) = run(answer);
        match answer {
            crate::registry::Answer::Reply(reply) => ((*reply).clone(), round_trips),
            crate::registry::Answer::Stream(_) => (Response::new(Bytes::new()), round_trips),
        }
    }

    fn status(&self, method: Method, target: &str, authorization: &str) -> u16 {
        self.send(method, target, authorization).0.status().as_u16()
    }

    /// What was noted of the latest request.
    fn exchange(&self) -> Rc<Exchange> {
        self.exchange.borrow().as_ref().map(Rc::clone).expect("a request")
    }

    /// Who sent the latest request, and how that was proven.
    fn identity(&self) -> String {
        self.exchange().identity().expect("access control").to_owned()
    }

    fn decision(&self) -> String {
        self.exchange().decision().expect("access control")
    }

    /// Gets a token for scopes.
    fn token(&self, scopes: &str, authorization: &str) -> String {
        let scopes = scopes.replace(' ', "%20");
        let target = format!("/auth/token?service=moorage&scope={scopes}");
        let (response, round_trips) = self.send(Method::GET, &target, authorization);
        assert_eq!((response.status().as_u16(), round_trips), (200, 0), "{response:?}");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let body: Value = serde_json::from_slice(response.body()).expect("JSON");
        assert_eq!(body["expires_in"], 300);
        assert_eq!(body["token"], body["access_token"]);
        format!("Bearer {}", body["token"].as_str().expect("a text"))
    }
}

/// What a filter leaves in the metadata of requests, in the place of what was there.
fn leave_metadata(fixture: &Fixture, filter: &str, entries: &[(&str, &str)]) {
    let entry = |(key, value): &(&str, &str)| {
        (format!("envoy.filters.http.{filter}/{key}"), (*value).to_owned())
    };
    fixture.registry.environment.metadata.replace(entries.iter().map(entry).collect());
}

fn basic(name: &str, password: &str) -> String {
    let pair = format!("{name}:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

fn ada() -> String {
    basic("ada", "wonderland")
}

fn challenge(response: &Response<Bytes>) -> &str {
    response.headers()[WWW_AUTHENTICATE].to_str().expect("text")
}

#[test]
fn whoever_says_nothing_is_told_what_a_token_has_to_grant() {
    let fixture = Fixture::new();
    let upload = "/v2/apps/web/blobs/uploads/0b0f4ed6-9c1c-4b9c-9d0e-5c1f1a1b2c3d";
    let digest = format!("sha256:{}", "0".repeat(64));
    let mount = format!("/v2/apps/web/blobs/uploads/?mount={digest}&from=secret/x");
    for (method, target, scope) in [
        (Method::GET, "/v2/", None),
        (Method::GET, "/v2/apps/web/manifests/t", Some("repository:apps/web:pull")),
        (Method::HEAD, "/v2/apps/web/manifests/t", Some("repository:apps/web:pull")),
        (Method::GET, "/v2/%61pps/web/manifests/t", Some("repository:apps/web:pull")),
        (Method::PUT, "/v2/public/a/manifests/t", Some("repository:public/a:pull,push")),
        (Method::DELETE, "/v2/public/a/manifests/t", Some("repository:public/a:delete")),
        (Method::GET, "/v2/apps/web/tags/list", Some("repository:apps/web:pull")),
        (Method::POST, "/v2/apps/web/blobs/uploads/", Some("repository:apps/web:pull,push")),
        (Method::PATCH, upload, Some("repository:apps/web:pull,push")),
        (Method::GET, upload, Some("repository:apps/web:pull")),
        (Method::POST, &mount, Some("repository:apps/web:pull,push repository:secret/x:pull")),
        (Method::GET, &format!("/v2/a/referrers/{digest}"), Some("repository:a:pull")),
        (Method::GET, "/v2/_catalog", Some("registry:catalog:*")),
    ] {
        let (response, round_trips) = fixture.send(method.clone(), target, "");
        assert_eq!((response.status().as_u16(), round_trips), (401, 0), "{method} {target}");
        assert_eq!(errors(&response).1, ["UNAUTHORIZED"]);
        let scope = scope.map_or(String::new(), |scope| format!(r#",scope="{scope}""#));
        let expected = format!(r#"Bearer realm="http:///auth/token",service="moorage"{scope}"#);
        assert_eq!(challenge(&response), expected, "{method} {target}");
    }
}

#[test]
fn a_request_is_allowed_if_its_token_and_the_rules_grant_it() {
    let fixture = Fixture::new();
    let manifest = "/v2/apps/web/manifests/t";
    let full = fixture.token("repository:apps/web:pull,push", &ada());
    assert_eq!(fixture.status(Method::GET, manifest, &full), 404);
    assert_eq!(fixture.status(Method::GET, "/v2/", &full), 200);
    // The rules would, but the token does not.
    let (response, round_trips) = fixture.send(Method::DELETE, manifest, &full);
    assert_eq!((response.status().as_u16(), round_trips), (401, 0));
    assert!(challenge(&response).ends_with(r#",error="insufficient_scope""#));
    assert_eq!(fixture.status(Method::GET, "/v2/secret/x/manifests/t", &full), 401);
    // Less is granted than is asked for, which is no error.
    let anonymous = fixture.token("repository:public/a:pull,push repository:apps/web:pull", "");
    assert_eq!(fixture.status(Method::GET, "/v2/", &anonymous), 200);
    assert_eq!(fixture.status(Method::GET, "/v2/public/a/manifests/t", &anonymous), 404);
    assert_eq!(fixture.status(Method::PUT, "/v2/public/a/manifests/t", &anonymous), 401);
    assert_eq!(fixture.status(Method::GET, manifest, &anonymous), 401);
    // What everybody may do needs no token.
    assert_eq!(fixture.status(Method::GET, "/v2/public/a/manifests/t", ""), 404);
    // There is none for what nobody may see, whether it exists or not.
    for name in ["secret/x", "secret/y"] {
        let (response, _) = fixture.send(Method::GET, &format!("/v2/{name}/tags/list"), &anonymous);
        let body = String::from_utf8_lossy(response.body()).replace(name, "…");
        let expected = r#"{"errors":[{"code":"UNAUTHORIZED","message":"the caller, or its token, may not do this","detail":"repository:…:pull"}]}"#;
        assert_eq!(body, expected);
    }
}

#[test]
fn a_token_is_void_when_its_time_is_over_or_its_user_is_gone_or_the_rules_have_changed() {
    let mut fixture = Fixture::new();
    let token = fixture.token("repository:apps/web:pull", &ada());
    let get = |fixture: &Fixture| fixture.send(Method::GET, "/v2/apps/web/manifests/t", &token).0;
    assert_eq!(get(&fixture).status(), 404);
    fixture.registry.environment.time.set(NOW + Duration::from_secs(299));
    assert_eq!(get(&fixture).status(), 404);
    fixture.registry.environment.time.set(NOW + Duration::from_secs(300));
    assert!(challenge(&get(&fixture)).ends_with(r#"error="invalid_token""#));
    fixture.registry.environment.time.set(NOW);
    // Another configuration is another worker: it remembers nothing.
    let mut changed = access();
    changed.rules = rules(&[["user:bob", "**", "*", ""]]);
    fixture.registry.settings.access = Some(Rc::new(changed));
    assert!(challenge(&get(&fixture)).ends_with(r#"error="insufficient_scope""#));
    let mut changed = access();
    changed.accounts.users.retain(|user| user.name != "ada");
    fixture.registry.settings.access = Some(Rc::new(changed));
    assert!(challenge(&get(&fixture)).ends_with(r#"error="invalid_token""#));
}

#[test]
fn the_token_endpoint_speaks_oauth2_too() {
    let fixture = Fixture::new();
    let post = |form: &str| {
        let (response, round_trips) =
            fixture.send_body(Method::POST, "/auth/token", "", Body::Whole(form.to_owned().into()));
        assert_eq!(round_trips, 0);
        response
    };
    let scope =
        "scope=repository%3Aapps/web%3Apull%2Cpush+repository:secret/x:pull&service=moorage";
    let form = format!("grant_type=password&username=bob&password=builder&client_id=x&{scope}");
    let response = post(&form);
    assert_eq!(response.status(), 200);
    let body: Value = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(body["scope"], "repository:apps/web:pull");
    let bearer = format!("Bearer {}", body["access_token"].as_str().expect("a text"));
    assert_eq!(fixture.status(Method::GET, "/v2/apps/web/manifests/t", &bearer), 404);
    let robot = format!("grant_type=refresh_token&refresh_token={ROBOT}&{scope}");
    assert_eq!(post(&robot).status(), 200);
    for (form, status) in [
        ("", 400),
        ("grant_type=authorization_code", 400),
        ("grant_type=password&username=bob&password=wrong", 401),
        ("grant_type=password", 401),
        ("grant_type=refresh_token", 401),
        ("grant_type=refresh_token&refresh_token=mrg_x", 401),
        ("grant_type=password&username=bob&password=builder&scope=x", 400),
    ] {
        let response = post(form);
        assert_eq!(response.status(), status, "{form}");
        if status == 401 {
            assert!(challenge(&response).starts_with("Basic "));
        }
    }
    let too_large = fixture.send_body(Method::POST, "/auth/token", "", Body::TooLarge).0;
    assert_eq!(too_large.status(), 400);
}

#[test]
fn by_a_token_one_gets_no_other_and_wrong_credentials_get_none() {
    let fixture = Fixture::new();
    let token = fixture.token("repository:apps/web:pull", &ada());
    for authorization in [&token, &basic("ada", "wrong"), "Digest x", &basic("eve", "wonderland")] {
        assert_eq!(fixture.status(Method::GET, "/auth/token", authorization), 401);
    }
    assert_eq!(fixture.status(Method::GET, "/auth/token?scope=x", &ada()), 400);
    let scopes = "repository:a:pull%20".repeat(101);
    assert_eq!(fixture.status(Method::GET, &format!("/auth/token?scope={scopes}"), &ada()), 400);
    assert_eq!(fixture.status(Method::DELETE, "/auth/token", &ada()), 405);
}

#[test]
fn without_access_control_there_are_no_tokens_and_no_challenges() {
    let mut fixture = Fixture::new();
    fixture.registry.settings.access = None;
    assert_eq!(fixture.status(Method::GET, "/auth/token", ""), 404);
    assert_eq!(fixture.status(Method::GET, "/v2/", ""), 200);
    assert_eq!(fixture.status(Method::GET, "/v2/secret/x/manifests/t", ""), 404);
}

#[test]
fn what_is_decided_is_in_the_access_log_and_no_secret_is() {
    let fixture = Fixture::new();
    fixture.status(Method::PUT, "/v2/apps/web/manifests/v1", &basic("ci", ROBOT));
    assert_eq!(fixture.identity(), "user:ci (robot-token)");
    assert_eq!(fixture.decision(), "allowed by rules[2]");
    fixture.status(Method::GET, "/v2/secret/x/manifests/v1", "");
    assert_eq!(fixture.identity(), "anonymous");
    assert_eq!(fixture.decision(), "denied");
    fixture.status(Method::GET, "/v2/secret/x/manifests/v1", &basic("ada", "my secret"));
    assert_eq!(fixture.identity(), "unknown");
    let shown = format!("{:?} {:?}", fixture.exchange(), fixture.registry.settings);
    for secret in [
        "my secret",
        "mrg_",
        "NHFVFx",
        "ya-p2EW6",
        &base64::engine::general_purpose::STANDARD.encode("ada:my secret"),
    ] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[test]
fn logins_that_fail_are_in_the_access_log_too() {
    let fixture = Fixture::new();
    let log = |authorization: &str| {
        fixture.status(Method::GET, "/auth/token", authorization);
        [fixture.identity(), fixture.decision()]
    };
    assert_eq!(log(&ada()), ["user:ada (password)", "allowed"]);
    assert_eq!(log(&basic("ada", "wrong")), ["unknown", "denied"]);
    let token = fixture.token("repository:apps/web:pull", &ada());
    assert_eq!(log(&token), ["user:ada (password)", "denied"], "by a token one gets no other");
}

#[test]
fn a_realm_is_derived_from_the_request_or_configured() {
    let realm = |access: &Access, authority: &str, proto: &str| {
        let fields = [(":authority", authority), ("x-forwarded-proto", proto)];
        let headers = crate::registry::HeaderFields::from(&fields[..]);
        let environment = Rc::<crate::registry::test_registry::TestEnvironment>::default();
        access.realm(&Request::new(Method::GET, "/v2/", headers, environment))
    };
    let access = access();
    assert_eq!(realm(&access, "r.example.org", "https"), "https://r.example.org/auth/token");
    assert_eq!(realm(&access, "[::1]:5000", "http"), "http://[::1]:5000/auth/token");
    assert_eq!(realm(&access, "a\",x=\"", "https"), "https:///auth/token");
    assert_eq!(realm(&access, "a", "javascript"), "https://a/auth/token");
    let mut configured = super::tests::access();
    configured.realm = Some("https://auth.example.org/token".to_owned());
    assert_eq!(realm(&configured, "a", "http"), "https://auth.example.org/token");
}

#[test]
fn a_key_can_be_changed_without_refusing_anybody() {
    let mut fixture = Fixture::new();
    let rotate = |fixture: &mut Fixture, key: PrivateKey, accepted_keys: Vec<PrivateKey>| {
        let mut changed = access();
        let (issuer, lifetime) = ("moorage".to_owned(), Duration::from_secs(300));
        let signing = Signing { key, accepted_keys, issuer, lifetime };
        changed.tokens = Tokens::new("moorage".to_owned(), signing, Vec::new());
        fixture.registry.settings.access = Some(Rc::new(changed));
    };
    let pull = |fixture: &Fixture, token: &str| {
        fixture.status(Method::GET, "/v2/apps/web/manifests/t", token)
    };
    let old = fixture.token("repository:apps/web:pull", &ada());
    rotate(&mut fixture, their_key(), vec![key()]);
    let new = fixture.token("repository:apps/web:pull", &ada());
    assert_eq!((pull(&fixture, &old), pull(&fixture, &new)), (404, 404));
    rotate(&mut fixture, key(), vec![their_key()]);
    assert_eq!((pull(&fixture, &old), pull(&fixture, &new)), (404, 404));
    rotate(&mut fixture, their_key(), Vec::new());
    assert_eq!((pull(&fixture, &old), pull(&fixture, &new)), (401, 404));
}
