//! Prometheus, which scrapes what it is told to and answers queries.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::client;
use crate::process::wait_for;

/// A running Prometheus. It ends when this is dropped.
pub struct Prometheus {
    address: SocketAddr,
    _process: Child,
    _folder: TempDir,
}

/// A series with its value at the moment.
#[derive(Debug)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Prometheus {
    /// Starts the program `binary` with the text of a `prometheus.yml`, and waits until it listens.
    pub async fn start(binary: &Path, configuration: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let (config, log) = (folder.path().join("prometheus.yml"), folder.path().join("log"));
        fs::write(&config, configuration).expect("the configuration is written");
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let mut process = Command::new(binary)
            .arg(flag("config.file", &config))
            .arg(flag("storage.tsdb.path", &folder.path().join("data")))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log file"))
            .kill_on_drop(true)
            .spawn()
            .expect("Prometheus starts");
        let address = wait_for("Prometheus", async || {
            let text = fs::read_to_string(&log).ok()?;
            if let Ok(Some(status)) = process.try_wait() {
                panic!("Prometheus ended, {status}: {text}");
            }
            let address = listens_at(&text)?;
            let ready = client::try_get(address, "/-/ready").await?;
            (ready.status() == 200).then_some(address)
        });
        Self { address: address.await, _process: process, _folder: folder }
    }

    /// What a query gives at the moment: a list of series.
    ///
    /// # Errors
    ///
    /// What Prometheus says of a query that it can't answer.
    pub async fn query(&self, query: &str) -> Result<Vec<Sample>, String> {
        let data = self.ask("query", "query", query).await?;
        let samples = data["result"].as_array().ok_or_else(|| format!("no list: {data}"))?;
        let sample = |sample: &Value| {
            let value = sample["value"][1].as_str().and_then(|text| text.parse().ok());
            let value = value.ok_or_else(|| format!("no sample: {sample}"))?;
            Ok(Sample { labels: labels(&sample["metric"]), value })
        };
        samples.iter().map(sample).collect()
    }

    /// The labels of all series that were ever scraped of a metric, its name among them.
    ///
    /// # Errors
    ///
    /// What Prometheus says.
    pub async fn series(&self, metric: &str) -> Result<Vec<BTreeMap<String, String>>, String> {
        let data = self.ask("series", "match[]", metric).await?;
        Ok(data.as_array().into_iter().flatten().map(labels).collect())
    }

    async fn ask(&self, what: &str, parameter: &str, value: &str) -> Result<Value, String> {
        let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        let path = format!("/api/v1/{what}?{parameter}={value}");
        let response = client::get(self.address, &path, &[]).await;
        let mut answer: Value = serde_json::from_slice(response.body()).expect("JSON");
        match answer["status"] == "success" {
            true => Ok(answer["data"].take()),
            false => Err(answer["error"].to_string()),
        }
    }
}

/// The address that the log names.
fn listens_at(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("msg=\"Listening on\""))?;
    let (_, address) = line.split_once("address=")?;
    address.split_whitespace().next()?.parse().ok()
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    let fields = value.as_object().into_iter().flatten();
    let label = |(name, value): (&String, &Value)| {
        (name.clone(), value.as_str().unwrap_or_default().to_owned())
    };
    fields.map(label).collect()
}
