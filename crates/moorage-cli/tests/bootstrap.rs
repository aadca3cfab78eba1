//! `moorage bootstrap` as its users run it: what it prints, how it ends, and what an Envoy says of what it makes.

use std::fs;

use tempfile::TempDir;
use tokio::process::Command;

use moorage_test_support::process::{output, tool};

/// Runs it with a file of settings and no variables but these, and gives its status and what it printed.
async fn bootstrap(settings: &str, options: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("moorage.yaml");
    fs::write(&file, settings).expect("it is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorage"));
    command.arg("bootstrap").arg("--config").arg(&file).args(options).env_clear();
    let output = output(command.envs(variables.iter().copied())).await;
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().expect("a status"), String::from_utf8(printed).expect("text"))
}

#[tokio::test]
async fn a_bootstrap_is_printed_or_what_is_wrong() {
    let (status, printed) =
        bootstrap("bucket: a", &[], &[("MOORAGE_BUCKET", "b"), ("MOORAGE_ENVOY", "/envoy")]).await;
    assert_eq!(status, 0, "{printed}");
    assert!(printed.contains("prefix: /b/docker/registry/v2/blobs/"), "{printed}");
    for (settings, variables, named) in [
        ("colour: red", &[][..], "moorage.yaml: colour: unknown field"),
        ("", &[("MOORAGE_LISTEN", "here")], "listen (from MOORAGE_LISTEN): must be an IP address"),
    ] {
        let (status, printed) = bootstrap(settings, &[], variables).await;
        assert!(status == 2 && printed.contains(named), "{status} {printed}");
    }
    let (status, printed) = bootstrap("", &["--check"], &[("PATH", "/nowhere")]).await;
    assert!(status == 0 && printed.contains("no Envoy was there"), "{status} {printed}");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn envoy_checks_what_is_made() {
    let envoy = tool("MOORAGE_ENVOY").display().to_string();
    let module = format!("module: {}", tool("MOORAGE_WASM").display());
    let check = ["--check", "--envoy", &envoy];
    let (status, printed) = bootstrap(&module, &check, &[]).await;
    assert!(status == 0 && printed.contains("Envoy takes what they make"), "{status} {printed}");
    let missing = format!("{module}\ntls: {{ certificate: /no/c.pem, key: /no/k.pem }}");
    let (status, printed) = bootstrap(&missing, &check, &[]).await;
    assert!(status == 1 && printed.contains("/no/k.pem"), "{status} {printed}");
    let none = ["--check", "--envoy", "/no/envoy"];
    let (status, printed) = bootstrap(&module, &none, &[]).await;
    assert!(status == 1 && printed.contains("/no/envoy"), "{status} {printed}");
}
