//! Garbage is collected in a loop, with no grace, while clients push, mount, retag and delete through two Envoys before one
//! distributed store: what was acknowledged is there, all the time and in the end.

mod load;
mod requests;
mod tools;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;
use tokio::task::JoinHandle;

use moorage_test_support::collector::signed_gc;
use moorage_test_support::crane;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::garage::Garage;
use moorage_test_support::process::{note, optional_tool};

use load::Load;

/// How long garbage is collected while clients are at it, unless `MOORAGE_COLLECTION_SECONDS` says otherwise; and on until so
/// many contents were removed.
const DURATION: Duration = Duration::from_secs(60);
const CONTENTS: u64 = 100;

/// How many pushes there are before, so that there is garbage from the beginning.
const PUSHES: usize = 500;

/// How many clients make plain requests. Beside them are skopeo, crane and oras.
const CLIENTS: usize = 4;

/// After how many runs there must have been garbage.
const MOST_RUNS: usize = 1000;

/// How often garbage is collected in the end, at most, until none is left.
const LAST_RUNS: usize = 6;

const OPTIONS: [&str; 6] = ["--grace", "0s", "--link-ttl", "2s", "--untagged-older-than", "0s"];

/// What collections did.
#[derive(Debug, Default)]
struct Collected {
    runs: usize,
    links: u64,
    contents: u64,
    spared: u64,
}

impl Collected {
    fn add(&mut self, document: &Value) {
        let number = |field: &str| document["removed"][field].as_u64().expect("a number");
        self.runs += 1;
        self.links += number("links");
        self.contents += number("contents");
        self.spared += number("spared");
    }
}

async fn run(garage: &Garage, arguments: &[&str]) -> Value {
    let outcome = signed_gc(garage.address, &[&OPTIONS, arguments].concat()).await;
    outcome.unwrap_or_else(|complaint| panic!("gc {arguments:?}: {complaint}"))
}

fn duration() -> Duration {
    let seconds = std::env::var("MOORAGE_COLLECTION_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("MOORAGE_COLLECTION_SECONDS: a number"));
    seconds.map_or(DURATION, Duration::from_secs)
}

fn start(load: &Arc<Load>) -> Vec<JoinHandle<()>> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(tokio::spawn(requests::use_registry(Arc::clone(load), number)));
    }
    clients.push(tokio::spawn(tools::use_skopeo(Arc::clone(load))));
    if let Some(crane) = optional_tool("MOORAGE_CRANE") {
        clients.push(tokio::spawn(tools::use_crane(Arc::clone(load), crane.clone())));
        if let Some(oras) = optional_tool("MOORAGE_ORAS") {
            clients.push(tokio::spawn(tools::use_oras(Arc::clone(load), crane, oras)));
        }
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn nothing_that_was_acknowledged_is_lost_while_garbage_is_collected() {
    let Some(garage) = optional_tool("MOORAGE_GARAGE") else { return };
    let garage = Garage::start(&garage).await;
    let bootstrap = || {
        let bootstrap = Bootstrap::new(garage.address).signed();
        bootstrap.with_fields(r#""cache": { "link_ttl": "2s" }"#)
    };
    let envoys = [Envoy::start(&bootstrap()).await, Envoy::start(&bootstrap()).await];
    let load = Arc::new(Load::new(envoys.each_ref().map(|envoy| envoy.address)));
    let clients = start(&load);

    load.has_pushed(PUSHES).await;
    let (begun, mut collected) = (Instant::now(), Collected::default());
    while begun.elapsed() < duration() || collected.contents < CONTENTS {
        collected.add(&run(&garage, &["--apply"]).await);
        assert!(collected.runs < MOST_RUNS, "there is no garbage: {collected:?}");
    }
    load.end();
    for client in join_all(clients).await {
        client.expect("the registry did to this client as it should");
    }
    note(&format!("{:?}: {collected:?}, {}", begun.elapsed(), load.summary()));
    load.is_whole().await;
    load.was_used();

    // Once nobody writes, everything that is garbage goes, and nothing else.
    for _ in 0..LAST_RUNS {
        if run(&garage, &[]).await["total"]["objects"] == 0 {
            break;
        }
        collected.add(&run(&garage, &["--apply"]).await);
    }
    assert_eq!(run(&garage, &[]).await["total"]["objects"], 0);
    load.is_whole().await;
    if let Some(crane) = optional_tool("MOORAGE_CRANE") {
        for (name, tag) in load.tags().into_keys().filter(|(name, _)| name.starts_with("tools/")) {
            crane::validate(&crane, envoys[0].address, &format!("{name}:{tag}")).await;
        }
    }
}
