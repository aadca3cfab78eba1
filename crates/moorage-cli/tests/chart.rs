//! The Helm chart: that Kubernetes takes what it makes, that the program takes the settings and flags in it, that wrong
//! values are told, and that it is kept in a registry that it starts. There is no cluster here to install it into.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
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

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

/// The only object of a kind.
fn only(made: &str, kind: &str) -> Value {
    let mut found: Vec<_> =
        objects(made).into_iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    found.remove(0)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

/// The variables that the image sets, which win over a settings file.
fn variables_of_the_image() -> Vec<(String, String)> {
    let file = fs::read_to_string(top().join("deploy/Containerfile")).expect("text");
    let set = file.lines().filter_map(|line| line.strip_prefix("ENV ")?.split_once('='));
    // One that depends on the base is what the base makes of it.
    let set = set.filter(|(_, value)| !value.starts_with('$'));
    let set: Vec<_> = set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert!(!set.is_empty());
    set
}

/// The variables of a container whose values are in its manifest.
fn variables(container: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let variables = items(&container["env"]);
    variables.filter_map(|one| text(&one["name"]).zip(text(&one["value"]))).collect()
}

/// The ports of a container, by their names.
fn ports(container: &Value) -> BTreeMap<String, u64> {
    let port = |port: &Value| {
        (
            port["name"].as_str().expect("a name").to_owned(),
            port["containerPort"].as_u64().expect("a port"),
        )
    };
    items(&container["ports"]).map(port).collect()
}

/// The ports that Envoy listens on, by its listeners' names. Those that only Envoy itself connects to have none.
fn listeners(bootstrap: &Value) -> BTreeMap<String, u64> {
    let all = items(&bootstrap["static_resources"]["listeners"]);
    let open = all.filter(|listener| listener["internal_listener"].is_null());
    let port = |listener: &Value| {
        let port = listener["address"]["socket_address"]["port_value"].as_u64().expect("a port");
        (listener["name"].as_str().expect("a name").to_owned(), port)
    };
    open.map(port).collect()
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
        let made = template(&helm, &values).await;
        let deployment = only(&made, "Deployment");
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let mut check = Command::new(PROGRAM);
        check.args(["bootstrap", "--config"]).arg(&settings).env_clear();
        check.envs(variables_of_the_image()).envs(variables(container));
        let output = output(&mut check).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{values}: {told}");
        let bootstrap = yaml(&String::from_utf8(output.stdout).expect("text"));
        assert_eq!(listeners(&bootstrap), ports(container), "{values}");
        // An edge node takes no pushes of its own, whether or not there is a central registry.
        let written = yaml(&fs::read_to_string(&settings).expect("text"));
        assert_eq!(written["read_only"] == true, written.get("edge").is_some(), "{values}");
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
        ("edge.enabled=true,config.read_only=false", "config.read_only can't be false"),
        ("config.legacy.schema1_key=a", "schema1_key"),
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

#[tokio::test]
#[ignore = "needs helm: run ./build.sh test"]
async fn nothing_secret_is_outside_of_secrets() {
    let Some(helm) = optional_tool("MOORAGE_HELM") else { return };
    let helm = Helm::new(helm);
    let mut secrets = 0;
    for values in values() {
        for object in objects(&template(&helm, &values).await) {
            let text = object.to_string();
            let tells = text.contains("top-secret") || text.contains("PRIVATE KEY");
            assert!(!tells || object["kind"] == "Secret", "{values}: {text}");
            secrets += usize::from(tells);
        }
    }
    assert!(secrets >= 3, "{secrets}");
}

#[tokio::test]
#[ignore = "needs helm: run ./build.sh test"]
async fn what_selects_pods_selects_those_of_the_registry() {
    let Some(helm) = optional_tool("MOORAGE_HELM") else { return };
    let helm = Helm::new(helm);
    let mut selectors = 0;
    for values in values() {
        let made = template(&helm, &values).await;
        let objects = objects(&made);
        let Some(deployment) = objects.iter().find(|object| object["kind"] == "Deployment") else {
            continue;
        };
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        for object in &objects {
            let selector = match object["kind"].as_str() {
                Some("Service") => &object["spec"]["selector"],
                Some("Deployment" | "PodDisruptionBudget") => {
                    &object["spec"]["selector"]["matchLabels"]
                }
                Some("NetworkPolicy") => &object["spec"]["podSelector"]["matchLabels"],
                _ => continue,
            };
            let selector = selector.as_object().expect("labels");
            assert!(selector.iter().all(|(label, value)| labels[label] == *value), "{object}");
            // A version in it would keep a release from being upgraded.
            assert_eq!(selector.len(), 3, "{object}");
            selectors += 1;
        }
    }
    assert!(selectors >= 16, "{selectors}");
}

#[tokio::test]
#[ignore = "needs helm: run ./build.sh test"]
async fn alerts_dashboard_and_scraping_are_those_in_deploy() {
    let Some(helm) = optional_tool("MOORAGE_HELM") else { return };
    let read = |file: &str| fs::read_to_string(top().join("deploy").join(file)).expect("text");
    let values = top().join("deploy/helm/moorage/ci/everything.yaml").display().to_string();
    let made = template(&Helm::new(helm), &values).await;

    let rules = only(&made, "PrometheusRule")["spec"].clone();
    let mut expected = yaml(&read("prometheus/moorage.rules.yaml"))["groups"][0].clone();
    // These values leave one out, and add a group.
    let alerts = expected["rules"].as_array_mut().expect("rules");
    alerts.retain(|rule| rule["alert"] != "MoorageFailedLogins");
    assert_eq!(rules["groups"][0], expected);
    assert_eq!(rules["groups"][1]["rules"][0]["alert"], "MoorageJobFailed");

    let dashboards = objects(&made).into_iter().filter_map(|object| {
        serde_json::from_str::<Value>(object["data"]["moorage.json"].as_str()?).ok()
    });
    let dashboard: Value = serde_json::from_str(&read("grafana/moorage.json")).expect("JSON");
    assert_eq!(dashboards.collect::<Vec<_>>(), [dashboard]);

    let scrape = &yaml(&read("prometheus/scrape.yaml"))["scrape_configs"][0];
    let endpoint = &only(&made, "ServiceMonitor")["spec"]["endpoints"][0];
    assert_eq!(endpoint["params"], scrape["params"]);
    assert_eq!(endpoint["path"], scrape["metrics_path"]);
    assert_eq!(endpoint["relabelings"][0]["replacement"], scrape["job_name"]);

    let Some(promtool) = optional_tool("MOORAGE_PROMTOOL") else { return };
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("rules.yaml");
    fs::write(&file, rules.to_string()).expect("it is written");
    run(Command::new(promtool).args(["check", "rules"]).arg(file)).await;
}

#[tokio::test]
#[ignore = "needs helm: run ./build.sh test"]
async fn the_jobs_are_those_of_the_plain_manifests() {
    let Some(helm) = optional_tool("MOORAGE_HELM") else { return };
    let values = top().join("deploy/helm/moorage/ci/jobs.yaml").display().to_string();
    let made = objects(&template(&Helm::new(helm), &values).await);
    for name in ["gc", "purge-uploads", "check"] {
        let file = top().join(format!("deploy/kubernetes/{name}.yaml"));
        let plain = yaml(&fs::read_to_string(file).expect("text"));
        let job = made.iter().find(|object| {
            object["kind"] == "CronJob" && object["metadata"]["labels"][COMPONENT] == name
        });
        assert_eq!(same(job.expect("a job")), same(&plain), "{name}");
    }
}

const COMPONENT: &str = "app.kubernetes.io/component";

/// What of a job is the same with and without Helm: when, for how long, with which rights, and what it does.
fn same(job: &Value) -> Value {
    let (spec, run) = (&job["spec"], &job["spec"]["jobTemplate"]["spec"]);
    let pod = &run["template"]["spec"];
    let container = &pod["containers"][0];
    let schedule: Vec<&Value> =
        ["schedule", "timeZone", "concurrencyPolicy", "startingDeadlineSeconds"]
            .map(|field| &spec[field])
            .into();
    json!({
        "schedule": schedule,
        "limits": [run["backoffLimit"], run["activeDeadlineSeconds"], pod["restartPolicy"]],
        "args": container["args"],
        "resources": container["resources"],
        "rights": [
            container["securityContext"], pod["automountServiceAccountToken"],
            pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"],
            pod["securityContext"]["seccompProfile"],
        ],
    })
}

#[tokio::test]
#[ignore = "needs helm: run ./build.sh test"]
async fn a_pod_has_the_time_and_the_memory_that_it_may_take() {
    let Some(helm) = optional_tool("MOORAGE_HELM") else { return };
    let values = top().join("deploy/helm/moorage/ci/minimal.yaml").display().to_string();
    let made = only(&template(&Helm::new(helm), &values).await, "Deployment");
    let pod = &made["spec"]["template"]["spec"];
    let container = &pod["containers"][0];

    let times: BTreeMap<_, _> = variables(container).into_iter().collect();
    let seconds = |name: &str| times[name].trim_end_matches('s').parse::<u64>().expect("seconds");
    let drains = seconds("MOORAGE_DRAIN_GRACE") + seconds("MOORAGE_DRAIN_LIMIT");
    let patience = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
    assert!(patience > drains, "{patience}");

    // The defaults of docs/settings.md and docs/configuration.md: of Envoy, and of the module in each worker.
    let (heap, cache, requests) = (1_610_612_736, 67_108_864, 268_435_456);
    let args: Vec<_> = items(&container["args"]).filter_map(Value::as_str).collect();
    let workers = args.iter().position(|argument| *argument == "--concurrency").expect("workers");
    let workers: u64 = args[workers + 1].parse().expect("a number");
    let limit = container["resources"]["limits"]["memory"].as_str().expect("a quantity");
    let limit: u64 = limit.trim_end_matches("Mi").parse().expect("MiB");
    assert!(limit * 1024 * 1024 > heap + workers * (cache + requests), "{limit} MiB");
}
