//! Tokens that nobody trusted has signed, or that are not for this, and those of servers that are trusted.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// A token of `key`, with these claims in the place of those that it would have.
pub fn forge(header: Value, changes: Value, key: &PrivateKey) -> String {
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
