//! Many who guess passwords at once, and those who have better to do.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moorage_test_support::accounts::{self, READER};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::{note, within};
use moorage_test_support::raw;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::{PRIVATE, assert_unharmed, basic, login, status_as, store, token};

const CONNECTIONS: u8 = 64;

/// One guess of each client is for a name that is there.
const GUESSES_EACH: usize = 4;

/// One request on a connection of its own, and what came of it: the status, and all of the answer.
async fn guess(client: IpAddr, envoy: std::net::SocketAddr, authorization: &str) -> (u16, String) {
    let head =
        format!("GET {PRIVATE} HTTP/1.1\r\nauthorization: {authorization}\r\nconnection: close");
    let mut stream = raw::begin(client, envoy, &head).await;
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.expect("an answer is text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_default(), answer)
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn who_guesses_is_slowed_down_and_who_has_a_token_is_not() {
    let store = store().await;
    let access = accounts::access().await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).with_access(&access)).await;
    let server = envoy.address;
    let token = token(server, &login(READER), "repository:private/web:pull").await;
    let bearer = format!("Bearer {token}");
    assert_eq!(status_as(server, PRIVATE, &bearer).await, 200);

    let is_over = Arc::new(AtomicBool::new(false));
    let holder = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            let (mut pulls, mut slowest) = (0, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(status_as(server, PRIVATE, &bearer).await, 200);
                slowest = slowest.max(begun.elapsed());
                pulls += 1;
            }
            (pulls, slowest)
        }
    });
    let mut guessers = JoinSet::new();
    for number in 0..CONNECTIONS {
        guessers.spawn(async move {
            let mut statuses = Vec::new();
            for turn in 0..GUESSES_EACH {
                let name = if turn == 0 { "deploy".to_owned() } else { format!("user-{number}") };
                let password = format!("guess {number} {turn}");
                let client = IpAddr::from([127, 0, 7, number]);
                let (status, answer) = guess(client, server, &basic(&name, &password)).await;
                let has_time = answer.lines().any(|line| {
                    let seconds = line.strip_prefix("retry-after: ");
                    seconds.is_some_and(|text| text.parse::<u32>().is_ok_and(|seconds| seconds > 0))
                });
                assert_eq!(has_time, status == 429, "{answer}");
                statuses.push(status);
            }
            statuses
        });
    }
    let statuses = within("all guesses", guessers.join_all()).await.concat();
    is_over.store(true, Ordering::Relaxed);
    let (pulls, slowest) = within("the last pull", holder).await.expect("all pulls succeed");
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    note(&format!(
        "{} guesses were refused, {} put off; meanwhile there were {pulls} pulls, the slowest in {slowest:?}",
        count(401),
        count(429)
    ));
    assert_eq!(count(401) + count(429), statuses.len(), "{statuses:?}");
    assert!(count(401) > 0 && count(429) > 0, "{statuses:?}");
    assert!(pulls > 10, "{pulls}");
    assert_unharmed(&envoy).await;
}
