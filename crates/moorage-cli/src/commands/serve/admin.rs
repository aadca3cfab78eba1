//! Envoy's admin page, as far as draining needs it.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};

use crate::Failure;
use crate::signed_http::{plain_client_builder, root_cause};

/// How long Envoy's main thread may take for an answer. It is on this machine, and may be busy with a start.
const PATIENCE: Duration = Duration::from_secs(5);

/// Matches the two figures of [`Admin::under_way`]: `^http\.registry\.downstream_(rq_active|cx_tx_bytes_buffered)$`.
const FIGURES: &str =
    "/stats?filter=%5Ehttp%5C.registry%5C.downstream_%28rq_active%7Ccx_tx_bytes_buffered%29%24";

/// The admin page of the Envoy at one address.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    client: Client,
}

/// Why the admin page did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody answers, or not in time.
    #[error("Envoy's admin page at {0} does not answer: {1}")]
    Away(SocketAddr, String),
    /// It answers something else than 200.
    #[error("Envoy's admin page answers {0}: {1}")]
    Refused(StatusCode, String),
    /// It does not have the figures of the registry's listener.
    #[error("Envoy has no figures of a connection manager with the stat_prefix `registry`")]
    NoFigures,
}

/// What Envoy has not done yet for the registry's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// Requests without a whole answer.
    pub requests: u64,
    /// Bytes of answers that Envoy has made and still holds, since their clients are slow to take them. Envoy counts their
    /// requests no more.
    pub unsent_bytes: u64,
}

impl UnderWay {
    /// Whether all is done.
    pub fn is_nothing(self) -> bool {
        self.requests == 0 && self.unsent_bytes == 0
    }
}

impl Admin {
    /// The page at this address.
    ///
    /// # Errors
    ///
    /// If no HTTP client can be made.
    pub fn at(address: SocketAddr) -> Result<Self, Failure> {
        // The page is plain HTTP on this machine: no proxy leads there, and no certificates need to be read.
        let client = plain_client_builder().no_proxy().tls_certs_only([]).timeout(PATIENCE).build();
        let client = client
            .map_err(|error| Failure::Failed(format!("no HTTP client could be made: {error}")))?;
        Ok(Self { address, client })
    }

    /// Whether Envoy takes requests; gives its word for that, `LIVE`.
    ///
    /// # Errors
    ///
    /// If it does not: while it starts, and once it is draining.
    pub async fn ready(&self) -> Result<String, AdminError> {
        Ok(self.call(Method::GET, "/ready").await?.trim().to_owned())
    }

    /// Has the registry's `/healthz` and `/readyz` answer 503 from now on, and every answer close its connection.
    ///
    /// # Errors
    ///
    /// If Envoy does not say that it does.
    pub async fn fail_health_check(&self) -> Result<(), AdminError> {
        self.call(Method::POST, "/healthcheck/fail").await.map(drop)
    }

    /// Has Envoy take no new connections. Those that are there go on.
    ///
    /// # Errors
    ///
    /// If Envoy does not say that it does.
    pub async fn drain_listeners(&self) -> Result<(), AdminError> {
        self.call(Method::POST, "/drain_listeners?inboundonly").await.map(drop)
    }

    /// What is under way at the listener of the registry.
    ///
    /// # Errors
    ///
    /// If Envoy does not tell.
    pub async fn under_way(&self) -> Result<UnderWay, AdminError> {
        let figures = self.call(Method::GET, FIGURES).await?;
        parse(&figures).ok_or(AdminError::NoFigures)
    }

    /// The body of an answer of 200.
    async fn call(&self, method: Method, path: &str) -> Result<String, AdminError> {
        let away =
            |error: reqwest::Error| AdminError::Away(self.address, root_cause(&error).to_string());
        let url = format!("http://{}{path}", self.address);
        let answer = self.client.request(method, url).send().await.map_err(away)?;
        let status = answer.status();
        let body = answer.text().await.map_err(away)?;
        match status {
            StatusCode::OK => Ok(body),
            status => Err(AdminError::Refused(status, body.trim().to_owned())),
        }
    }
}

fn parse(figures: &str) -> Option<UnderWay> {
    let figure = |name: &str| {
        let value = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value?.trim().parse().ok()
    };
    Some(UnderWay {
        requests: figure("http.registry.downstream_rq_active")?,
        unsent_bytes: figure("http.registry.downstream_cx_tx_bytes_buffered")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_read_from_both_figures() {
        let buffered = "http.registry.downstream_cx_tx_bytes_buffered";
        let active = "http.registry.downstream_rq_active";
        for (figures, expected) in [
            (format!("{buffered}: 17\n{active}: 2\n"), Some((2, 17))),
            (format!("{active}: 0\n{buffered}: 0\n"), Some((0, 0))),
            (format!("{active}: 0\n"), None),
            (format!("{active}: 0\n{buffered}: many\n"), None),
            (String::new(), None),
        ] {
            let read = parse(&figures).map(|read| (read.requests, read.unsent_bytes));
            assert_eq!(read, expected, "{figures}");
        }
    }
}
