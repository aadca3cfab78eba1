//! Access control as clients meet it: challenges, tokens, what is refused and what is let through.

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
use crate::registry::jose::{BASE64, PrivateKey, PublicJwk};
use crate::registry::test_registry::{TestRegistry, errors, image, whole};
use crate::registry::{Body, Mount, handle};
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
        Self { registry }
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
fn callers_are_known_in_many_ways() {
    let fixture = Fixture::new();
    let environment = &fixture.registry.environment;
    let pull = |authorization: &str| {
        fixture.status(Method::GET, "/v2/apps/web/manifests/t", authorization)
    };
    let identity = || environment.log.borrow().get("moorage.identity").cloned();
    let is_known = |status: u16, who: &str, how: &str| {
        assert_eq!((status, identity()), (404, Some(format!("{who} ({how})"))));
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
    let metadata = |filter: &str, entries: &[(&str, &str)]| {
        let entry = |(key, value): &(&str, &str)| {
            (format!("envoy.filters.http.{filter}/{key}"), (*value).to_owned())
        };
        environment.metadata.replace(entries.iter().map(entry).collect());
    };
    metadata("jwt_authn", &[("oidc", ""), ("oidc/sub", "eve"), ("oidc/groups", "x dev")]);
    is_known(pull(""), "user:eve", "jwt");
    is_known(pull("Bearer a.token.of-another"), "user:eve", "jwt");
    metadata("jwt_authn", &[("oidc", ""), ("oidc/sub", "eve")]);
    assert_eq!(pull(""), 401);
    metadata("ext_authz", &[("user", "eve"), ("groups", "dev")]);
    assert_eq!(pull(""), 401, "its groups have a prefix");
    assert_eq!(identity().as_deref(), Some("user:ext:eve (ext-authz)"));
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

/// A token of `key`, with these claims in the place of those that it would have.
fn forge(header: Value, changes: Value, key: &PrivateKey) -> String {
    let mut claims = json!({
        "iss": "moorage", "sub": "user:ada", "aud": "moorage", "proof": "password",
        "exp": NOW.as_secs() + 60, "nbf": NOW.as_secs(), "iat": NOW.as_secs(), "jti": "x",
        "access": [{"type": "repository", "name": "apps/web", "actions": ["pull"]}],
    });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    sign(&header.to_string(), &claims.to_string(), key)
}

fn sign(header: &str, claims: &str, key: &PrivateKey) -> String {
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = key.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", BASE64.encode(signature))
}

fn es256() -> Value {
    json!({ "alg": "ES256", "typ": "JWT", "kid": key().id() })
}

#[test]
fn no_forged_token_is_taken() {
    let fixture = Fixture::new();
    let pull = |token: &str| {
        let authorization = format!("Bearer {token}");
        fixture.send(Method::GET, "/v2/apps/web/manifests/t", &authorization)
    };
    let valid = forge(es256(), json!({}), &key());
    assert_eq!(pull(&valid).0.status(), 404, "what is forged below is forged in one respect");
    let whole = |changes: Value| forge(es256(), changes, &key());
    let of_header = |header: Value| forge(header, json!({}), &key());
    let (signed, _) = valid.rsplit_once('.').expect("a signature");
    let (_, claims) = signed.split_once('.').expect("claims");
    let none = BASE64.encode(json!({ "alg": "none" }).to_string());
    let hs256 = {
        let header = BASE64.encode(json!({ "alg": "HS256", "kid": key().id() }).to_string());
        let signed = format!("{header}.{claims}");
        let secret = jwk()["x"].as_str().expect("a text").to_owned();
        let mac = sha2::Sha256::digest([secret.as_bytes(), signed.as_bytes()].concat());
        format!("{signed}.{}", BASE64.encode(mac))
    };
    let twice = {
        let text = String::from_utf8(BASE64.decode(claims).expect("base64")).expect("text");
        text.replacen('{', r#"{"sub":"user:bob","#, 1)
    };
    let seconds = NOW.as_secs();
    for (what, token) in [
        ("no token", "x".to_owned()),
        ("dots", "..".to_owned()),
        ("alg none", format!("{none}.{claims}.")),
        ("alg none with a signature", of_header(json!({ "alg": "none" }))),
        ("HS256", hs256),
        ("another alg", of_header(json!({ "alg": "RS256", "kid": key().id() }))),
        ("alg in lower case", of_header(json!({ "alg": "es256" }))),
        ("no alg", of_header(json!({ "kid": key().id() }))),
        ("an alg that is no text", of_header(json!({ "alg": 5 }))),
        ("the kid of another key", of_header(json!({ "alg": "ES256", "kid": "theirs" }))),
        ("a kid that is no text", of_header(json!({ "alg": "ES256", "kid": ["x"] }))),
        ("an extension to be understood", of_header(json!({ "alg": "ES256", "crit": ["x"] }))),
        ("another's key", forge(es256(), json!({}), &their_key())),
        (
            "another's key by its name",
            forge(json!({ "alg": "ES256", "kid": "theirs" }), json!({}), &their_key()),
        ),
        (
            "the key in the header",
            forge(json!({ "alg": "ES256", "jwk": jwk() }), json!({}), &their_key()),
        ),
        ("expired", whole(json!({ "exp": seconds }))),
        ("expired long ago", whole(json!({ "exp": 0 }))),
        ("no end", whole(json!({ "exp": null }))),
        ("an end that is a text", whole(json!({ "exp": "never" }))),
        ("an end before 1970", whole(json!({ "exp": -1 }))),
        ("not yet valid", whole(json!({ "nbf": seconds + 3600 }))),
        ("issued later", whole(json!({ "iat": seconds + 3600 }))),
        ("another audience", whole(json!({ "aud": "harbor" }))),
        ("other audiences", whole(json!({ "aud": ["harbor", "gitlab"] }))),
        ("no audience", whole(json!({ "aud": null }))),
        ("an audience of another type", whole(json!({ "aud": 5 }))),
        ("another issuer", whole(json!({ "iss": "https://evil.example.org" }))),
        ("another issuer that is trusted", whole(json!({ "iss": "https://gitlab.example.org" }))),
        ("no issuer", whole(json!({ "iss": null }))),
        ("a subject that is a list", whole(json!({ "sub": ["user:ada"] }))),
        ("a subject who is not there", whole(json!({ "sub": "user:mallory" }))),
        ("groups that are numbers", whole(json!({ "groups": [1] }))),
        ("a proof that is none", whole(json!({ "proof": "trust-me" }))),
        ("access that is no list", whole(json!({ "access": "everything" }))),
        ("access to no name", whole(json!({ "access": [{ "type": "repository" }] }))),
        (
            "another's scope",
            whole(json!({ "access": [{
            "type": "repository", "name": "public/a", "actions": ["pull"]
        }] })),
        ),
        ("no scope", whole(json!({ "access": [] }))),
        (
            "a scope of another type",
            whole(json!({ "access": [{
            "type": "registry", "name": "apps/web", "actions": ["pull"]
        }] })),
        ),
        ("a claim twice", sign(&es256().to_string(), &twice, &key())),
        ("claims that are a list", sign(&es256().to_string(), "[]", &key())),
        ("claims that are no JSON", sign(&es256().to_string(), "{", &key())),
        (
            "deep claims",
            sign(&es256().to_string(), &format!("{{\"x\":{}", "[".repeat(5000)), &key()),
        ),
        ("no signature", format!("{signed}.")),
        ("a part too many", format!("{valid}.x")),
        ("a megabyte", format!("{valid}{}", "A".repeat(1 << 20))),
        ("a megabyte of claims", whole(json!({ "x": "A".repeat(1 << 20) }))),
        ("bytes that are no base64", valid.replace('.', ".*")),
    ] {
        let (response, round_trips) = pull(&token);
        assert_eq!((response.status().as_u16(), round_trips), (401, 0), "{what}");
        assert!(challenge(&response).contains("error="), "{what}");
        assert!(!String::from_utf8_lossy(response.body()).contains("eyJ"), "{what}");
    }
    for end in 0..valid.len() {
        assert_eq!(pull(&valid[..end]).0.status(), 401, "cut after {end}");
    }
}

#[test]
fn tokens_of_trusted_servers_are_taken_for_what_they_grant() {
    let fixture = Fixture::new();
    let theirs = |changes: Value| {
        let mut claims =
            json!({ "iss": "https://gitlab.example.org", "aud": "container_registry", "sub": "" });
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        let token = forge(json!({ "alg": "ES256", "kid": "theirs" }), claims, &their_key());
        let pull = |name: &str| {
            let target = format!("/v2/{name}/manifests/t");
            fixture.status(Method::GET, &target, &format!("Bearer {token}"))
        };
        (pull("apps/web"), pull("secret/x"))
    };
    assert_eq!(theirs(json!({})), (404, 401));
    assert_eq!(theirs(json!({ "aud": "moorage" })), (401, 401));
    // The rules do not grant it to whoever the token names, and the token does not grant what the rules would.
    let everything = json!([
        { "type": "repository", "name": "secret/x", "actions": ["*"] },
    ]);
    assert_eq!(theirs(json!({ "access": everything })), (401, 401));
    assert_eq!(theirs(json!({ "sub": "ada", "access": everything })), (401, 404));
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
fn tags_in_rules_limit_what_is_set_and_deleted() {
    let fixture = Fixture::new();
    let put = |reference: &str, authorization: &str| {
        let target = format!("/v2/apps/web/manifests/{reference}");
        fixture.send_body(Method::PUT, &target, authorization, whole(&image("x"))).0
    };
    let digest = crate::registry::test_registry::digest_of(&image("x").to_string());
    let ci = fixture.token("repository:apps/web:pull,push,delete", &basic("ci", ROBOT));
    for authorization in [&ci, &basic("ci", ROBOT)] {
        assert_eq!(put("v1", authorization).status(), 201);
        assert_eq!(put(digest.as_str(), authorization).status(), 201);
        assert_eq!(put(&format!("{digest}?tag=v2&tag=v3"), authorization).status(), 201);
        for reference in ["latest".to_owned(), format!("{digest}?tag=v2&tag=latest")] {
            let refused = put(&reference, authorization);
            assert_eq!(errors(&refused), (403, vec!["DENIED".to_owned()]), "{reference}");
        }
    }
    let delete = |reference: &str| {
        fixture.status(Method::DELETE, &format!("/v2/apps/web/manifests/{reference}"), &ci)
    };
    assert_eq!(put("latest", &ada()).status(), 201);
    assert_eq!(delete("latest"), 403);
    assert_eq!(delete(digest.as_str()), 403, "every tag goes with it");
    assert_eq!(delete("v2"), 202);
}

#[test]
fn a_mount_needs_the_right_to_its_source() {
    let fixture = Fixture::new();
    let digest = crate::registry::test_registry::digest_of("layer");
    let mount = |from: &str, authorization: &str| {
        let target = format!("/v2/apps/api/blobs/uploads/?mount={digest}&from={from}");
        fixture.status(Method::POST, &target, authorization)
    };
    let ci = basic("ci", ROBOT);
    assert_eq!(mount("apps/web", &ci), 201);
    assert_eq!(mount("secret/x", &ci), 202);
    assert_eq!(mount("secret/nothing", &ci), 202);
    assert_eq!(mount("secret%2fx", &ci), 202);
    assert_eq!(mount("secret/x", &ada()), 201);
    // A token that was given for the target alone.
    let token = fixture.token("repository:apps/api:pull,push", &ada());
    assert_eq!(mount("secret/x", &token), 202);
    let scopes = "repository:apps/api:pull,push repository:secret/x:pull";
    assert_eq!(mount("secret/x", &fixture.token(scopes, &ada())), 201);
}

#[test]
fn the_catalog_has_what_the_caller_may_pull_and_gives_nothing_else_away() {
    let fixture = Fixture::new();
    let all = |authorization: &str, entries: usize| {
        let mut target = format!("/v2/_catalog?n={entries}");
        let mut names = Vec::new();
        loop {
            let (response, _) = fixture.send(Method::GET, &target, authorization);
            assert_eq!(response.status(), 200, "{target}");
            let shown = format!("{:?}{:?}", response.headers(), response.body());
            let body: Value = serde_json::from_slice(response.body()).expect("JSON");
            let page = body["repositories"].as_array().expect("a list").clone();
            names.extend(page.iter().map(|name| name.as_str().expect("a text").to_owned()));
            if authorization != ada() {
                assert!(!shown.contains("secret"), "{shown}");
            }
            let Some(link) = response.headers().get("link") else {
                return names;
            };
            let link = link.to_str().expect("text").strip_prefix('<').expect("a link");
            target = link.strip_suffix(">; rel=\"next\"").expect("a link").to_owned();
        }
    };
    for number in 0..40 {
        let name = format!("secret/{number:02}").parse().expect("a valid name");
        fixture.registry.store.put_blob(&name, b"layer");
    }
    let name = "public/z".parse().expect("a valid name");
    fixture.registry.store.put_blob(&name, b"layer");
    let zoo = "public/zoo".parse().expect("a valid name");
    fixture.registry.store.put_blob(&zoo, b"layer");
    let anonymous = fixture.token("registry:catalog:*", "");
    for entries in [1, 2, 3, 100] {
        assert_eq!(all(&anonymous, entries), ["public/a", "public/z", "public/zoo"], "{entries}");
        assert_eq!(all(&ada(), entries).len(), 45, "{entries}");
    }
    assert_eq!(
        all(&basic("bob", "builder"), 2),
        ["apps/web", "public/a", "public/z", "public/zoo"]
    );
    // A token for something else does not list.
    let other = fixture.token("repository:public/a:pull", "");
    assert_eq!(fixture.status(Method::GET, "/v2/_catalog", &other), 401);
    assert_eq!(fixture.status(Method::GET, "/v2/_catalog?last=~x", &anonymous), 400);
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
fn what_is_decided_is_in_the_access_log_and_no_secret_is() {
    let fixture = Fixture::new();
    let log = || fixture.registry.environment.log.borrow().clone();
    let field = |name: &'static str| log().remove(name).unwrap_or_default();
    fixture.status(Method::PUT, "/v2/apps/web/manifests/v1", &basic("ci", ROBOT));
    assert_eq!(field("moorage.identity"), "user:ci (robot-token)");
    assert_eq!(field("moorage.decision"), "allowed by rules[2]");
    fixture.status(Method::GET, "/v2/secret/x/manifests/v1", "");
    assert_eq!(field("moorage.identity"), "anonymous");
    assert_eq!(field("moorage.decision"), "denied");
    fixture.status(Method::GET, "/v2/secret/x/manifests/v1", &basic("ada", "my secret"));
    assert_eq!(field("moorage.identity"), "unknown");
    let shown = format!("{:?} {:?}", log(), fixture.registry.settings);
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
        fixture.registry.environment.log.borrow_mut().clear();
        fixture.status(Method::GET, "/auth/token", authorization);
        let log = fixture.registry.environment.log.borrow();
        ["moorage.identity", "moorage.decision"].map(|name| log[name].clone())
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
fn many_who_log_in_at_once_wait_for_their_turns_and_one_password_is_checked_once() {
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
    let _ = PublicJwk::read;
}
