//! Retention: the real program, on the real blob store, beside others who write and with a store that fails.

mod beside_others;
mod fallback_tags;
mod registry;

use std::collections::BTreeSet;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client;
use moorage_test_support::docker_registry::DockerRegistry;
use serde_json::{Value, json};

use registry::{DAY, Registry, retain};

/// Of each of two repositories some tags go, and of a third none.
const POLICY: &str = r#"
rules:
  - repositories: ["apps/*"]
    tags: ["*"]
    keep:
      - tags: [latest]
      - newest: 2
      - versions: { newest: 1, of_each: minor }
  - repositories: ["ci/**"]
    tags: ["pr-*"]
    keep:
      - younger_than: 7days
"#;

/// What the policy deletes of [`filled`].
const GOES: [&str; 4] = ["apps/web:1.2.0", "apps/web:old", "ci/a/b:pr-1", "ci/a/b:pr-3"];

fn filled() -> Registry {
    let registry = Registry::new();
    for (repository, tag, age) in [
        ("apps/web", "latest", 90),
        ("apps/web", "1.2.0", 80),
        ("apps/web", "1.2.1", 70),
        ("apps/web", "1.1.0", 60),
        ("apps/web", "old", 50),
        ("apps/web", "newer", 20),
        ("apps/web", "newest", 10),
        ("apps/web/nested", "old", 99),
        ("ci/a/b", "main", 99),
        ("ci/a/b", "pr-1", 8),
        ("ci/a/b", "pr-2", 6),
        ("ci/a/b", "pr-3", 30),
        ("other", "pr-1", 99),
    ] {
        registry.image(repository, tag, DAY * age);
    }
    registry
}

fn goes() -> BTreeSet<String> {
    GOES.map(str::to_owned).into()
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn what_a_dry_run_tells_is_what_is_deleted() {
    let registry = filled();
    let store = BlobStore::open(registry.root()).await;
    let before = registry.keys();

    let dry = retain(store.address, &registry, POLICY, &["--no-config"]).await;

    assert_eq!((dry.status, dry.stderr.len()), (Some(0), 0), "{:?}", dry.stderr);
    assert_eq!(dry.told("delete"), goes());
    assert_eq!(registry.keys(), before);
    let summary = dry.stdout.last().expect("a summary");
    let expected = "repositories: 2; tags: 6 kept, 4 would be deleted, 1 left alone; failures: 0";
    assert_eq!(summary, expected);

    let done = retain(store.address, &registry, POLICY, &["--no-config", "--apply"]).await;

    assert_eq!((done.status, done.stderr.len()), (Some(0), 0), "{:?}", done.stderr);
    assert_eq!(done.told("deleted"), goes());
    assert_eq!(done.told("keep"), dry.told("keep"));
    // Of a tag that went nothing is left, and nothing else is touched.
    let of_a_tag = |key: &String| {
        let gone = GOES.map(|tag| tag.replacen(':', "/_manifests/tags/", 1) + "/");
        gone.iter().any(|folder| key.contains(folder))
    };
    let expected = before.into_iter().filter(|key| !of_a_tag(key)).collect::<BTreeSet<_>>();
    let mut left = registry.keys();
    left.remove("moorage/probes/removals");
    assert_eq!(left, expected);

    let again = retain(store.address, &registry, POLICY, &["--no-config", "--apply"]).await;
    assert_eq!((again.status, again.told("deleted").len()), (Some(0), 0), "{:?}", again.stdout);
    let peer = DockerRegistry::start(&registry.root().join("registry")).await;
    let tags = client::get(peer.address, "/v2/apps/web/tags/list", &[]).await;
    let tags: Value = serde_json::from_slice(tags.body()).expect("JSON");
    let mut tags: Vec<_> = tags["tags"].as_array().expect("a list").clone();
    tags.sort_by_key(Value::to_string);
    assert_eq!(tags, ["1.1.0", "1.2.1", "latest", "newer", "newest"]);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn json_has_each_decision_with_its_reason() {
    let registry = filled();
    let store = BlobStore::open(registry.root()).await;

    let outcome = retain(store.address, &registry, POLICY, &["--no-config", "--format", "json"]);
    let outcome = outcome.await;

    let report: Value = serde_json::from_str(&outcome.stdout.join("\n")).expect("one document");
    assert_eq!(report["applied"], false);
    let numbers = ["repositories", "kept", "deleted", "left_alone", "failures"];
    assert_eq!(numbers.map(|field| report[field].as_u64()), [2, 6, 4, 1, 0].map(Some));
    let tags = report["tags"].as_array().expect("a list");
    assert_eq!(tags.len(), 10);
    let old = tags.iter().find(|tag| tag["tag"] == "old").expect("the tag");
    assert_eq!((&old["repository"], &old["outcome"]), (&json!("apps/web"), &json!("delete")));
    let why = old["why"].as_str().expect("text");
    assert!(why.contains("rules[0].keep[1]: number 3, only the newest 2 stay"), "{why}");
    let written = old["written"].as_str().expect("text");
    assert!(humantime::parse_rfc3339(written).is_ok(), "{written}");
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn listings_are_read_to_their_end_and_repositories_narrowed_down() {
    let registry = Registry::new();
    for number in 0..1001 {
        registry.image("apps/web", &format!("t{number:04}"), DAY * (number + 1));
    }
    for number in 0..4 {
        registry.image("apps/api", &format!("t{number}"), DAY * (number + 1));
    }
    let store = BlobStore::open(registry.root()).await;
    let policy = "rules: [{ repositories: [\"**\"], tags: [\"*\"], keep: [{ newest: 3 }] }]";

    let web = ["--no-config", "--apply", "--repository", "apps/w*"];
    let outcome = retain(store.address, &registry, policy, &web).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
    assert_eq!(outcome.told("deleted").len(), 998);
    let left = registry.tags();
    let kept = ["t0000", "t0001", "t0002"].map(|tag| format!("apps/web:{tag}"));
    assert!(kept.iter().all(|tag| left.contains(tag)), "{left:?}");
    assert_eq!(left.len(), 3 + 4);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn immutable_tags_stay_as_the_filter_has_them() {
    let registry = Registry::new();
    for (tag, age) in [("v1", 9), ("v2", 8), ("x", 7), ("y", 1)] {
        registry.image("a", tag, DAY * age);
    }
    let store = BlobStore::open(registry.root()).await;
    let config = registry.file(
        "config.json",
        &json!({
            "store": { "cluster": "s", "authority": "s", "bucket": "b" },
            "policy": { "tags": { "immutable": [{ "repositories": ["a"], "tags": ["v*"] }] } },
        })
        .to_string(),
    );
    let config = ["--config", config.to_str().expect("text")];
    let rule = |more: &str| {
        format!("rules: [{{ repositories: [a], tags: [\"*\"], keep: [{{ newest: 1 }}]{more} }}]")
    };

    let dry = retain(store.address, &registry, &rule(""), &[]).await;
    assert_eq!(dry.told("delete").len(), 3, "{:?}", dry.stdout);
    assert!(dry.stderr[0].contains("no tag counts as immutable"), "{:?}", dry.stderr);
    let apply = [&config[..], &["--apply"]].concat();
    let kept = retain(store.address, &registry, &rule(""), &apply).await;
    assert_eq!((kept.status, kept.stderr.len()), (Some(0), 0), "{:?}", kept.stderr);
    assert_eq!(registry.tags(), ["a:v1", "a:v2", "a:y"].map(str::to_owned).into());
    let said_so = rule(", delete_immutable: true");
    let all = retain(store.address, &registry, &said_so, &apply).await;
    assert_eq!(all.status, Some(0));
    assert_eq!(registry.tags(), ["a:y"].map(str::to_owned).into());
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_repository_that_would_be_emptied_is_not_touched() {
    let registry = Registry::new();
    for (repository, tag, age) in [("a", "x", 9), ("a", "y", 9), ("b", "x", 9), ("b", "y", 1)] {
        registry.image(repository, tag, DAY * age);
    }
    let store = BlobStore::open(registry.root()).await;
    let rule = |more: &str| {
        format!(
            "rules: [{{ repositories: [\"*\"], tags: [\"*\"], keep: [{{ younger_than: 7d }}]{more} }}]"
        )
    };

    for arguments in [&["--no-config"][..], &["--no-config", "--apply"]] {
        let outcome = retain(store.address, &registry, &rule(""), arguments).await;
        assert_eq!(outcome.status, Some(1));
        let [complaint] = outcome.stderr.as_slice() else {
            panic!("not one line: {:?}", outcome.stderr);
        };
        assert!(complaint.contains("a: ") && complaint.contains("may_delete_all"), "{complaint}");
        assert!(outcome.told("keep").contains("a:x"), "{:?}", outcome.stdout);
    }
    assert_eq!(registry.tags(), ["a:x", "a:y", "b:y"].map(str::to_owned).into());

    let may = rule(", may_delete_all: true");
    let outcome = retain(store.address, &registry, &may, &["--no-config", "--apply"]).await;
    assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
    assert_eq!(registry.tags(), ["b:y"].map(str::to_owned).into());
}

/// Each row: the policy, the arguments, the status, and what is told.
#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn what_makes_no_sense_is_refused_in_one_line_and_nothing_is_deleted() {
    let registry = filled();
    let store = BlobStore::open(registry.root()).await;
    let before = registry.keys();
    let access = registry.file("access.json", "{\"rules\": []}");
    let access = access.to_str().expect("text");
    let typo = POLICY.replace("newest: 2", "newst: 2");
    let zero = POLICY.replace("newest: 2", "newest: 0");
    for (policy, arguments, status, told) in [
        (POLICY, &["--apply"][..], 2, "--apply needs --config"),
        (POLICY, &["--apply", "--no-config", "--repository", "a***"], 2, "three stars"),
        (POLICY, &["--apply", "--config", "/nowhere.json"], 2, "/nowhere.json"),
        (POLICY, &["--apply", "--config", access], 2, "access.json"),
        (POLICY, &["--apply", "--config", access, "--no-config"], 2, "--no-config"),
        (POLICY, &["--apply", "--no-config", "--policy", "/nowhere.yaml"], 2, "--policy"),
        (POLICY, &["--apply", "--no-config", "--bucket", "nowhere"], 1, "NoSuchBucket"),
        (&typo, &["--apply", "--no-config"], 2, "line 7: unknown field `newst`"),
        (&zero, &["--apply", "--no-config"], 2, "line 7: rules[0].keep[1].newest"),
        ("", &["--apply", "--no-config"], 2, "policy.yaml: line 1"),
        ("rules: []", &["--apply", "--no-config"], 2, "rules is empty"),
    ] {
        let outcome = retain(store.address, &registry, policy, arguments).await;
        assert_eq!(outcome.status, Some(status), "{told}: {:?}", outcome.stderr);
        let [complaint] = outcome.stderr.as_slice() else {
            panic!("not one line: {:?}", outcome.stderr);
        };
        assert!(complaint.contains(told), "{told}: {complaint}");
        assert_eq!(outcome.stdout, Vec::<String>::new(), "{told}");
    }
    assert_eq!(registry.keys(), before);

    let idle = POLICY.replace("apps/*", "app/*");
    let outcome = retain(store.address, &registry, &idle, &["--no-config"]).await;
    assert_eq!(outcome.status, Some(0));
    assert!(outcome.stderr[0].contains("rules[0] is for no repository"), "{:?}", outcome.stderr);
}
