//! A real OpenTelemetry collector, `tests/otel-collector/`: it takes spans by OTLP over gRPC and prints them.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::process::wait_for;
use crate::receiver::Receiver;

/// Everything that comes is printed at once, and the collector has no port of its own for its metrics.
const CONFIGURATION: &str = r#"
receivers: { otlp: { protocols: { grpc: { endpoint: "ADDRESS" } } } }
exporters: { debug: { verbosity: detailed } }
service:
  telemetry: { metrics: { level: none } }
  pipelines: { traces: { receivers: [otlp], exporters: [debug] } }
"#;

/// A running collector. It ends when this is dropped.
pub struct OtelCollector {
    pub address: SocketAddr,
    output: PathBuf,
    _process: Child,
    _folder: TempDir,
}

/// A span, as the collector prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    pub trace: String,
    pub parent: String,
    /// The attributes that are texts.
    pub attributes: BTreeMap<String, String>,
}

impl OtelCollector {
    /// Starts the program `binary` and waits until it listens.
    pub async fn start(binary: &Path) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let address = Receiver::nowhere().await;
        let (config, output) = (folder.path().join("config.yaml"), folder.path().join("output"));
        let text = CONFIGURATION.replace("ADDRESS", &address.to_string());
        fs::write(&config, text).expect("the configuration is written");
        let mut process = Command::new(binary)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&output).expect("a file"))
            .kill_on_drop(true)
            .spawn()
            .expect("the collector starts");
        wait_for("the collector", async || {
            if let Ok(Some(status)) = process.try_wait() {
                let log = fs::read_to_string(&output).unwrap_or_default();
                panic!("the collector ended with {status}: {log}");
            }
            TcpStream::connect(address).await.ok()
        })
        .await;
        Self { address, output, _process: process, _folder: folder }
    }

    /// The spans that have come so far.
    pub fn spans(&self) -> Vec<Span> {
        let text = fs::read_to_string(&self.output).expect("the output is text");
        text.split("\nSpan #").skip(1).map(read).collect()
    }

    /// Waits for a span of a trace.
    pub async fn span_of(&self, trace: &str) -> Span {
        let is_it = |span: &Span| span.trace == trace;
        wait_for("a span", async || self.spans().into_iter().find(is_it)).await
    }
}

/// Reads what is printed of a span: lines like `Trace ID : 0123…`, and `-> name: Str(value)` for an attribute.
fn read(text: &str) -> Span {
    let mut span = Span::default();
    for line in text.lines().map(str::trim) {
        if let Some(attribute) = line.strip_prefix("-> ") {
            let value = attribute.split_once(": Str(");
            if let Some((name, value)) = value
                && let Some(value) = value.strip_suffix(')')
            {
                span.attributes.insert(name.to_owned(), value.to_owned());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            match name.trim_end() {
                "Trace ID" => span.trace = value.trim().to_owned(),
                "Parent ID" => span.parent = value.trim().to_owned(),
                _ => {}
            }
        }
    }
    span
}
