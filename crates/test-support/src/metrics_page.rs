//! What Envoy's admin page has for Prometheus, read as text: every series, with its labels as they are.

use std::collections::BTreeMap;

use crate::client;
use crate::envoy::Envoy;

/// A series with its value at the moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Envoy {
    /// All series whose names begin so.
    pub async fn series(&self, beginning: &str) -> Vec<Series> {
        let page = client::get(self.admin, "/stats/prometheus", &[]).await;
        let text = String::from_utf8_lossy(page.body());
        let is_wanted =
            |line: &&str| !line.is_empty() && !line.starts_with('#') && line.starts_with(beginning);
        let lines = text.lines().filter(is_wanted);
        lines.map(|line| read(line).unwrap_or_else(|| panic!("no series: {line:?}"))).collect()
    }
}

/// Reads a line: `name{label="value",...} number`. No value here has an escaped quotation mark.
fn read(line: &str) -> Option<Series> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let parts: Vec<&str> = labels.split_terminator('"').collect();
    let label = |pair: &[&str]| {
        let [name, value] = pair else { return None };
        let name = name.trim_start_matches(',').strip_suffix('=')?;
        Some((name.to_owned(), (*value).to_owned()))
    };
    let labels = parts.chunks(2).map(label).collect::<Option<_>>()?;
    Some(Series { name: name.to_owned(), labels, value: value.parse().ok()? })
}
