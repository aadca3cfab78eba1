//! Which classes of manifest may be pushed, with tokens that Envoy's `jwt_authn` verifies.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Response};
use serde_json::{Value, json};

use moorage_test_support::client::{self, error_of, send_body};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::jwt;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const IMAGE: &str = "application/vnd.oci.image.config.v1+json";
const PLUGIN: &str = "application/vnd.docker.plugin.v1+json";

/// Envoy with `jwt_authn` before Moorage, which allows these classes.
async fn envoy(store: &StandIn, classes: &str) -> Envoy {
    let filters = "                http_filters:\n";
    let authentication = format!("{filters}{}", jwt::filter(jwt::REQUIRED).await);
    let store_object = r#""store": {"#;
    let policy = format!(
        r#""policy": {{"repository": {{"classes": {classes}}}}}, "jwt_payload": "token", {store_object}"#
    );
    let bootstrap = Bootstrap::new(store.address);
    Envoy::start(&bootstrap.with(filters, &authentication).with(store_object, &policy)).await
}

/// Puts a manifest with this type of configuration into `a/b`.
async fn put(envoy: SocketAddr, config_type: &str, access: Value) -> Response<Bytes> {
    let authorization = format!("Bearer {}", jwt::token(access).await);
    let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": { "mediaType": config_type, "digest": digest, "size": 2 },
        "layers": [],
    });
    let headers = [("authorization", authorization.as_str())];
    let path = "/v2/a/b/manifests/t";
    send_body(envoy, Method::PUT, path, &headers, manifest.to_string()).await
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_token_authorises_classes() {
    let mut tree = Tree::default();
    tree.put_blob("a/b", b"{}");
    let store = StandIn::start(tree, |_, _| Behaviour::Serve).await;
    let both = envoy(&store, r#"["image", "plugin"]"#).await;
    let only_images = envoy(&store, r#"["image"]"#).await;
    let repository = |class: Value| {
        let pull = json!({ "type": "repository", "name": "else/where", "actions": ["pull"] });
        let mut here = json!({ "type": "repository", "name": "a/b", "actions": ["pull", "push"] });
        here["class"] = class;
        json!([pull, here])
    };
    for (envoy, config_type, access, denied) in [
        (&both, IMAGE, repository(json!("image")), None),
        (&both, IMAGE, repository(json!("")), None),
        (&both, PLUGIN, repository(json!("plugin")), None),
        (&both, PLUGIN, json!([]), None),
        (&both, PLUGIN, repository(json!("image")), Some("repository not authorized for plugin")),
        (&both, IMAGE, repository(json!("plugin")), Some("repository not authorized for image")),
        (&both, "application/x", repository(json!("image")), Some("unknown manifest class")),
        (&only_images, IMAGE, json!([]), None),
        (&only_images, PLUGIN, repository(json!("plugin")), Some("does not allow plugin")),
    ] {
        let response = put(envoy.address, config_type, access.clone()).await;
        let body = String::from_utf8_lossy(response.body()).into_owned();
        match denied {
            None => assert_eq!(response.status(), 201, "{config_type} {access}: {body}"),
            Some(message) => {
                assert_eq!(error_of(&response), (403, "DENIED".to_owned()), "{access}");
                assert!(body.contains(message), "{config_type} {access}: {body}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_a_filter_before_moorage_refuses_is_answered_in_json() {
    let store = StandIn::start(Tree::default(), |_, _| Behaviour::Serve).await;
    let envoy = envoy(&store, "[]").await;
    let response = client::get(envoy.address, "/v2/", &[]).await;
    assert_eq!(error_of(&response), (401, "UNAUTHORIZED".to_owned()));
    assert!(response.headers().contains_key("www-authenticate"));
}
