//! What the rules let a caller do with tags, other repositories and lists.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

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
