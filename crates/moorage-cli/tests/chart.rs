//! The Helm chart: that Kubernetes takes what it makes, that the program takes the settings and flags in it, that wrong
//! values are told, and that it is kept in a registry that it starts. There is no cluster here to install it into.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::helm::Helm;
use moorage_test_support::process::{optional_tool, output, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_moorage");

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn chart() -> String {
    top().join("deploy/helm/moorage").display().to_string()
}

/// The files of values that the chart is tried with.
fn values() -> Vec<String> {
    let files = fs::read_dir(top().join("deploy/helm/moorage/ci")).expect("a folder");
    let mut files: Vec<_> =
        files.map(|file| file.expect("a file").path().display().to_string()).collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    files
}

/// What the chart makes of a file of values.
async fn template(helm: &Helm, values: &str) -> String {
    let arguments = ["template", "release", &chart(), "--values", values];
    String::from_utf8(run(&mut helm.command(&arguments)).await).expect("text")
}

/// The objects in what the chart makes.
fn objects(made: &str) -> Vec<Value> {
    let documents = made.split("\n---\n").map(|text| text.trim_start_matches("---\n"));
    let object = |text: &str| serde_saphyr::from_str::<Value>(text).expect("YAML");
    documents.map(object).filter(|object| !object.is_null()).collect()
}

#[tokio::test]
#[ignore = "needs helm and Kubernetes' schemas: run ./build.sh test"]
async fn kubernetes_takes_what_the_chart_makes() {
    let (Some(helm), Some(validate), Some(custom)) = (
        optional_tool("MOORAGE_HELM"),
        optional_tool("MOORAGE_KUBERNETES_VALIDATE"),
        optional_tool("MOORAGE_CUSTOM_RESOURCES"),
    ) else {
        return;
    };
    let (helm, folder) = (Helm::new(helm), TempDir::new().expect("a folder"));
    let mut check = Command::new(validate.with_file_name("python"));
    check.arg(top().join("scripts/check_kubernetes.py")).arg(custom);
    for (number, values) in values().iter().enumerate() {
        run(&mut helm.command(&["lint", "--strict", &chart(), "--values", values])).await;
        let file = folder.path().join(format!("{number}.yaml"));
        fs::write(&file, template(&helm, values).await).expect("it is written");
        check.arg(file);
    }
    run(&mut check).await;
}

/// The settings that a pod would read, with the files that they name, are right.
#[tokio::test]
#[ignore = "needs helm: run ./build.sh test"]
async fn the_program_takes_the_settings_that_the_chart_writes() {
    let Some(helm) = optional_tool("MOORAGE_HELM") else { return };
    let helm = Helm::new(helm);
    let mut checked = 0;
    for values in values() {
        let folder = TempDir::new().expect("a folder");
        let mounted = folder.path().display().to_string();
        for object in objects(&template(&helm, &values).await) {
            let data = object.get("stringData").or(object.get("data"));
            for (name, text) in data.and_then(Value::as_object).into_iter().flatten() {
                let text = text.as_str().expect("a text");
                let text = text.replace("/etc/moorage/", &format!("{mounted}/"));
                fs::write(folder.path().join(name), text).expect("it is written");
            }
        }
        let settings = folder.path().join("moorage.yaml");
        if !settings.exists() {
            continue;
        }
        // The rules of these values have no key, which is a secret, or are in a Secret that is not the chart's.
        let access = moorage_test_support::accounts::access().await;
        fs::write(folder.path().join("access.yaml"), access.to_string()).expect("it is written");
        let mut check = Command::new(PROGRAM);
        check.args(["bootstrap", "--config"]).arg(&settings).env_clear();
        let output = output(&mut check).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{values}: {told}");
        checked += 1;
    }
    assert!(checked >= 3, "{checked}");
}

#[tokio::test]
#[ignore = "needs helm: run ./build.sh test"]
async fn the_program_knows_the_flags_that_the_chart_gives_it() {
    let Some(helm) = optional_tool("MOORAGE_HELM") else { return };
    let helm = Helm::new(helm);
    let mut flags = 0;
    for values in values() {
        let made = template(&helm, &values).await;
        for object in objects(&made) {
            let spec = match object["kind"].as_str() {
                Some("CronJob") => &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
                Some("Deployment") => &object["spec"]["template"]["spec"],
                Some("Pod") => &object["spec"],
                _ => continue,
            };
            for container in spec["containers"].as_array().expect("containers") {
                let args = container["args"].as_array().map(Vec::as_slice).unwrap_or_default();
                let mut args = args.iter().filter_map(Value::as_str).peekable();
                // The image's entry point serves.
                let command = args.next_if(|first| !first.starts_with('-')).unwrap_or("serve");
                let help = run(Command::new(PROGRAM).args([command, "--help"])).await;
                let help = String::from_utf8(help).expect("text");
                for flag in
                    args.take_while(|flag| *flag != "--").filter(|flag| flag.starts_with("--"))
                {
                    let name = flag.split('=').next().unwrap_or(flag);
                    assert!(
                        help.contains(&format!("{name} ")) || help.contains(&format!("{name}\n")),
                        "{values}: moorage {command} has no {flag}"
                    );
                    flags += 1;
                }
            }
        }
    }
    assert!(flags >= 5, "{flags}");
}

#[tokio::test]
#[ignore = "needs helm: run ./build.sh test"]
async fn values_that_can_not_be_right_are_refused_by_name() {
    let Some(helm) = optional_tool("MOORAGE_HELM") else { return };
    let helm = Helm::new(helm);
    for (set, named) in [
        ("config.colour=red", "colour"),
        ("replicaCount=many", "replicaCount"),
        ("config.bucket=", "bucket"),
        ("config.credentials=file", "credentials"),
        ("config.cache.colour=1", "colour"),
        ("service.type=NodePort", "service.type NodePort opens the registry"),
        ("ports.metrics=5000", "ports.registry and ports.metrics must differ"),
        ("credentials.accessKeyId=a", "credentials.secretAccessKey"),
        ("edge.central=https://registry.example.test", "edge.central needs edge.enabled"),
    ] {
        let set = format!("config.bucket=b,image.repository=example.test/moorage,{set}");
        let arguments = ["template", "release", &chart(), "--set", &set];
        let output = output(&mut helm.command(&arguments)).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{set}");
        assert!(told.contains(named), "{set}: {told}");
    }
}

#[tokio::test]
#[ignore = "needs helm and Envoy: run ./build.sh test"]
async fn the_chart_is_kept_in_moorage_and_made_from_there() {
    let Some(helm) = optional_tool("MOORAGE_HELM") else { return };
    let helm = Helm::new(helm);
    let root = TempDir::new().expect("a folder");
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let packed = TempDir::new().expect("a folder");
    let folder = packed.path().display().to_string();
    run(&mut helm.command(&["package", "--destination", &folder, &chart()])).await;
    let archive = fs::read_dir(packed.path()).expect("a folder").next().expect("an archive");
    helm.push(&archive.expect("an archive").path(), envoy.address, "charts").await;
    let address = format!("oci://{}/charts/moorage", envoy.address);
    let values = top().join("deploy/helm/moorage/ci/tls-access.yaml").display().to_string();
    let from = |chart: &str| {
        let arguments = ["template", "release", chart, "--plain-http", "--values", &values];
        helm.command(&arguments.map(str::to_owned).iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (here, there) = (run(&mut from(&chart())).await, run(&mut from(&address)).await);
    assert!(here == there, "what is made of the chart that was pulled is something else");
}
