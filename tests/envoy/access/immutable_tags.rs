//! Tags that policy makes immutable, set by two Envoys at once.

use http::{Method, Response};
use tempfile::TempDir;

use bytes::Bytes;
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, error_of};
use moorage_test_support::digest_of;
use moorage_test_support::envoy::{Bootstrap, Envoy};

const POLICY: &str =
    r#""policy": {"tags": {"immutable": [{"repositories": ["apps/**"], "tags": ["v*"]}]}}"#;

fn manifest(which: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{{"is":"{which}"}}}}"#
    )
}

async fn put(envoy: &Envoy, tag: &str, manifest: &str) -> Response<Bytes> {
    let path = format!("/v2/apps/web/manifests/{tag}");
    client::send_body(envoy.address, Method::PUT, &path, &[], manifest.to_owned()).await
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn of_two_who_set_an_immutable_tag_one_wins_and_the_tag_stays() {
    let root = TempDir::new().expect("a temporary folder");
    std::fs::create_dir(root.path().join("registry")).expect("a folder");
    let store = BlobStore::open(root.path()).await;
    let bootstrap = || Bootstrap::new(store.address).with_fields(POLICY).workers(2);
    let (one, two) = (Envoy::start(&bootstrap()).await, Envoy::start(&bootstrap()).await);
    let denied = (403, "DENIED".to_owned());
    for round in 0..20 {
        let tag = format!("v{round}");
        let manifests = ["one", "two"].map(|which| manifest(&format!("{which} {round}")));
        let (first, second) =
            tokio::join!(put(&one, &tag, &manifests[0]), put(&two, &tag, &manifests[1]));
        let winner = usize::from(first.status() != 201);
        let (won, lost) = if winner == 0 { (first, second) } else { (second, first) };
        assert_eq!((won.status().as_u16(), error_of(&lost)), (201, denied.clone()), "{tag}");
        for envoy in [&one, &two] {
            let path = format!("/v2/apps/web/manifests/{tag}");
            let read = client::get(envoy.address, &path, &[]).await;
            assert_eq!(read.body(), &manifests[winner], "{tag}");
            assert_eq!(put(envoy, &tag, &manifests[winner]).await.status(), 201, "the same again");
            assert_eq!(error_of(&put(envoy, &tag, &manifests[1 - winner]).await), denied);
            for reference in [tag.clone(), digest_of(&manifests[winner]).to_string()] {
                let path = format!("/v2/apps/web/manifests/{reference}");
                let delete = client::request(Method::DELETE, &path, &[]);
                assert_eq!(error_of(&client::send(envoy.address, delete).await), denied);
            }
            assert_eq!(client::get(envoy.address, &path, &[]).await.body(), &manifests[winner]);
        }
    }
}
