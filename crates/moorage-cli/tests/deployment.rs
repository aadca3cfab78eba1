//! What lies in `deploy/` for those who run the program by schedule: that it can be read, that it holds what it must, and
//! that the program knows what it is told to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use moorage_test_support::process::note;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_moorage");

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files of a folder, by their names.
fn files(folder: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(top().join(folder)).expect("a folder");
    let file = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("text"))
    };
    entries.map(|entry| file(entry.expect("an entry").path())).collect()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

/// The jobs of Kubernetes: what each file says, and its text.
fn jobs() -> BTreeMap<String, (Value, String)> {
    let objects =
        files("deploy/kubernetes").into_iter().map(|(name, text)| (name, (yaml(&text), text)));
    let jobs: BTreeMap<_, _> =
        objects.filter(|(_, (object, _))| object["kind"] == "CronJob").collect();
    assert_eq!(jobs.keys().collect::<Vec<_>>(), ["check.yaml", "gc.yaml", "purge-uploads.yaml"]);
    jobs
}

/// The only container of a job.
fn container(job: &Value) -> &Value {
    let containers = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().map(Vec::len), Some(1));
    &containers[0]
}

/// The values of a unit's key, without those of its comments.
fn settings<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

fn help(command: &str) -> String {
    let output = Command::new(PROGRAM).args([command, "--help"]).output().expect("it runs");
    assert!(output.status.success(), "there is no command {command}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn jobs_have_no_more_rights_than_they_need_and_never_overlap() {
    for (file, (job, text)) in jobs() {
        assert_eq!(job["apiVersion"], "batch/v1", "{file}");
        let spec = &job["spec"];
        assert_eq!(spec["concurrencyPolicy"], "Forbid", "{file}");
        for limit in
            ["successfulJobsHistoryLimit", "failedJobsHistoryLimit", "startingDeadlineSeconds"]
        {
            assert!(spec[limit].as_u64().is_some_and(|limit| limit > 0), "{file}: {limit}");
        }
        let schedule = spec["schedule"].as_str().expect("a schedule");
        assert_eq!(schedule.split(' ').count(), 5, "{file}");
        let run = &spec["jobTemplate"]["spec"];
        assert_eq!(run["backoffLimit"], 0, "{file}");
        assert!(run["activeDeadlineSeconds"].is_u64(), "{file}");

        let pod = &run["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Never", "{file}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{file}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{file}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{file}");
        let expected = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        });
        let container = container(&job);
        assert_eq!(container["securityContext"], expected, "{file}");
        for place in ["requests", "limits"] {
            for resource in ["cpu", "memory"] {
                assert!(container["resources"][place][resource].is_string(), "{file}: {resource}");
            }
        }
        let image = text.lines().position(|line| line.trim_start().starts_with("image: "));
        let before = &text.lines().collect::<Vec<_>>()[..image.expect("an image")];
        let comments = before.iter().rev().take_while(|line| line.trim_start().starts_with('#'));
        assert!(comments.last().is_some_and(|line| line.contains("CHANGE")), "{file}: the image");
    }
}

#[test]
fn jobs_find_their_account_and_the_bucket() {
    let objects = files("deploy/kubernetes");
    let (bucket, account) = (yaml(&objects["bucket.yaml"]), yaml(&objects["service-account.yaml"]));
    assert_eq!(
        (&bucket["kind"], &account["kind"]),
        (&json!("ConfigMap"), &json!("ServiceAccount"))
    );
    assert_eq!(account["automountServiceAccountToken"], false);
    for (file, (job, _)) in jobs() {
        let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], account["metadata"]["name"], "{file}");
        let sources = &container(&job)["envFrom"];
        assert_eq!(sources[0]["configMapRef"]["name"], bucket["metadata"]["name"], "{file}");
        assert_eq!(sources[1]["secretRef"]["optional"], true, "{file}");
    }
    let help = help("purge-uploads");
    let variables = bucket["data"].as_object().expect("variables");
    assert!(variables.contains_key("MOORAGE_BUCKET"));
    for (variable, value) in variables {
        assert!(value.is_string(), "{variable}: variables are text");
        assert!(help.contains(&format!("[env: {variable}=")), "{variable} is not known");
    }
}

#[test]
fn the_service_of_systemd_may_do_nothing_but_speak_to_the_store() {
    let units = files("deploy/systemd");
    let service = &units["moorage-gc.service"];
    for (key, value) in [
        ("Type", "oneshot"),
        ("DynamicUser", "yes"),
        ("CapabilityBoundingSet", ""),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateDevices", "yes"),
        ("PrivateTmp", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("SystemCallFilter", "@system-service"),
    ] {
        assert_eq!(settings(service, key).first(), Some(&value), "{key}");
    }
    let timer = &units["moorage-gc.timer"];
    assert_eq!(settings(timer, "Persistent"), ["yes"]);
    assert_eq!(settings(timer, "OnCalendar").len(), 1);
    assert_eq!(settings(timer, "WantedBy"), ["timers.target"]);
}

/// Where there is no systemd, the test above is all.
#[test]
fn systemd_takes_the_units() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let units: Vec<PathBuf> = files("deploy/systemd")
        .into_iter()
        .map(|(name, text)| {
            let path = folder.path().join(name);
            // It looks whether the program is there.
            fs::write(&path, text.replace("/usr/local/bin/moorage ", &format!("{PROGRAM} ")))
                .expect("a file");
            path
        })
        .collect();
    assert_eq!(units.len(), 2);
    match Command::new("systemd-analyze").arg("verify").args(&units).output() {
        Err(error) => note(&format!("systemd was not asked about its units: {error}")),
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && complaint.is_empty(), "{complaint}");
        }
    }
}

/// Whether the program takes these arguments, as far as its help tells.
fn assert_known(place: &str, arguments: &[&str]) {
    let (command, options) = arguments.split_first().expect("a command");
    let help = help(command);
    for option in options {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (*option, None),
        };
        assert!(name.starts_with("--"), "{place}: {option}");
        let told = help.lines().map(str::trim_start);
        let told = told.filter_map(|line| line.strip_prefix(name)).find(|rest| {
            !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-')
        });
        let told = told.unwrap_or_else(|| panic!("{place}: {command} does not know {name}"));
        assert_eq!(told.starts_with(" <"), value.is_some(), "{place}: {option}");
    }
}

#[test]
fn the_program_knows_what_it_is_told_to_do() {
    for (file, (job, text)) in jobs() {
        let arguments = container(&job)["args"].as_array().expect("arguments");
        let mut arguments: Vec<&str> =
            arguments.iter().map(|argument| argument.as_str().expect("text")).collect();
        assert_known(&file, &arguments);
        // What users are told to switch on.
        arguments.truncate(1);
        let offered = text.lines().filter_map(|line| line.trim_start().strip_prefix("# - --"));
        for offered in offered.map(|option| format!("--{option}")) {
            assert_known(&file, &[arguments[0], &offered]);
        }
    }
    let service = &files("deploy/systemd")["moorage-gc.service"];
    let [command] = settings(service, "ExecStart")[..] else { panic!("one command") };
    let arguments: Vec<&str> = command.split(' ').skip(1).collect();
    assert_known("moorage-gc.service", &arguments);
    assert_eq!(arguments[..2], ["gc", "--apply"]);
}

/// The actions that a policy allows, on the bucket and on its objects.
fn actions(policy: &Value) -> [BTreeSet<&str>; 2] {
    let mut actions = [BTreeSet::new(), BTreeSet::new()];
    for statement in policy["Statement"].as_array().expect("statements") {
        assert_eq!(statement["Effect"], "Allow");
        let resources = statement["Resource"].as_array().expect("resources");
        let is_bucket = |resource: &Value| *resource == "arn:aws:s3:::my-bucket";
        assert!(!resources.is_empty());
        for resource in resources {
            let is_object = ["docker/registry/v2/", "moorage/"].iter().any(|folder| {
                let start = format!("arn:aws:s3:::my-bucket/{folder}");
                resource
                    .as_str()
                    .is_some_and(|text| text.starts_with(&start) && text.ends_with("/*"))
            });
            assert!(is_bucket(resource) || is_object, "{resource}");
            let listed = statement["Action"].as_array().expect("actions");
            let listed = listed.iter().map(|action| action.as_str().expect("text"));
            actions[usize::from(!is_bucket(resource))].extend(listed);
        }
    }
    actions
}

#[test]
fn policies_allow_what_the_page_on_operations_says() {
    let page = fs::read_to_string(top().join("docs/operations.md")).expect("text");
    for (name, text) in files("deploy/aws") {
        let policy: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(policy["Version"], "2012-10-17", "{name}");
        let row = page.lines().find(|line| line.contains(&format!("](../deploy/aws/{name})")));
        let cells: Vec<&str> =
            row.unwrap_or_else(|| panic!("no row on {name}")).split('|').collect();
        let listed = |cell: &str| -> BTreeSet<String> {
            cell.split(", ").map(|action| action.trim().trim_matches('`').to_owned()).collect()
        };
        let found: [BTreeSet<String>; 2] =
            actions(&policy).map(|set| set.into_iter().map(str::to_owned).collect());
        assert_eq!(found, [listed(cells[3]), listed(cells[4])], "{name}");
    }
}
