//! Accounts and access control, by the real program. What it makes is taken by the filter's own code, and what it
//! explains is what that decides about requests.

mod accounts;
mod rules;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use moorage::config::AccessConfig;
use moorage::registry::access::Access;
use moorage::registry::{Environment, Nonce};
use serde_json::Value;

/// Runs the program with this on standard input.
fn moorage(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorage"));
    command.args(arguments).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().expect("the program starts");
    let mut stdin = program.stdin.take().expect("it is piped");
    // A program that refuses its arguments reads nothing.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    program.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("text")
}

fn access(config: &Value) -> Access {
    AccessConfig::parse(config.to_string().as_bytes()).expect("a valid configuration").access()
}

/// What a request comes with, beside its headers.
#[derive(Debug, Default)]
struct TestEnvironment {
    certificate: Option<String>,
}

impl Environment for TestEnvironment {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn nonce(&self) -> Nonce {
        Nonce([7; 32])
    }

    fn delay(&self, _: Duration) -> LocalBoxFuture<'static, ()> {
        std::future::ready(()).boxed_local()
    }

    fn certificate_names(&self) -> Vec<String> {
        self.certificate.iter().cloned().collect()
    }
}

/// Makes a user with this password.
fn made_user(name: &str, password: &str) -> String {
    let made = moorage(&["user", "add", name, "--cost", "4"], &format!("{password}\n"));
    assert!(made.status.success(), "{made:?}");
    let hint = text(&made.stderr);
    assert!(hint.contains("access.users") && hint.lines().count() == 1, "{hint}");
    text(&made.stdout).strip_suffix('\n').expect("a line").to_owned()
}

/// Makes a token: that, and its entry.
fn made_token(name: &str, expires: &str) -> (String, Value) {
    let made = moorage(&["token", "new", name, "--expires", expires, "--format", "json"], "");
    assert!(made.status.success() && made.stderr.is_empty(), "{made:?}");
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    (made["token"].as_str().expect("a text").to_owned(), made["entry"].clone())
}
