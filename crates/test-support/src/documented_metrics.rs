//! What docs/operations.md says about the metrics: their names, labels, and the values of labels.

use std::collections::{BTreeMap, BTreeSet};

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// Labels that Prometheus sets, whatever is scraped.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];

/// Whether a metric's value only grows, and whether it is one series or many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// All metrics that dashboard and alerts may use.
pub struct Table {
    metrics: BTreeMap<String, (Kind, BTreeSet<String>)>,
    values: Vec<Values>,
}

/// The values that a label has in some metrics.
struct Values {
    label: String,
    metrics: Vec<String>,
    values: BTreeSet<String>,
}

impl Table {
    /// Reads the tables of the section "Metrics".
    pub fn documented() -> Self {
        let section = section(OPERATIONS, "## Metrics");
        let mut table = Self { metrics: BTreeMap::new(), values: Vec::new() };
        for cells in section.lines().filter_map(cells) {
            match (names(cells[0]), cells[1], &cells[2..]) {
                (metrics, "counter" | "gauge" | "histogram", [labels, ..]) => {
                    let labels: BTreeSet<String> = names(labels).into_iter().collect();
                    let row = (kind(cells[1]), labels);
                    table.metrics.extend(metrics.into_iter().map(|name| (name, row.clone())));
                }
                (label, of, [values]) if of.starts_with("`moorage_") => {
                    let [label] = <[String; 1]>::try_from(label).expect("one label in a row");
                    let values = names(values).into_iter().collect();
                    table.values.push(Values { label, metrics: names(of), values });
                }
                _ => {}
            }
        }
        // Prometheus' own, of every target.
        table.metrics.insert("up".to_owned(), (Kind::Gauge, BTreeSet::new()));
        table
    }

    /// The metrics of Moorage itself, with their kinds.
    pub fn own(&self) -> impl Iterator<Item = (&str, Kind)> {
        let own = self.metrics.iter().filter(|(name, _)| name.starts_with("moorage_"));
        own.map(|(name, (kind, _))| (name.as_str(), *kind))
    }

    /// The metric that a name of a series stands for: a histogram is three series.
    pub fn metric_of(&self, series: &str) -> Option<&str> {
        let whole = self.metrics.get_key_value(series);
        let is_histogram =
            |name: &&str| self.metrics.get(*name).is_some_and(|(kind, _)| *kind == Kind::Histogram);
        match whole {
            Some((_, (Kind::Histogram, _))) => None,
            Some((name, _)) => Some(name),
            None => ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| series.strip_suffix(suffix).filter(is_histogram))
                .and_then(|name| self.metrics.get_key_value(name))
                .map(|(name, _)| name.as_str()),
        }
    }

    /// The labels that a series has; none if there is no such series.
    pub fn labels_of(&self, series: &str) -> Option<BTreeSet<&str>> {
        let (_, labels) = &self.metrics[self.metric_of(series)?];
        let bucket = series.ends_with("_bucket").then_some("le");
        let labels = labels.iter().map(String::as_str).chain(OF_THE_TARGET).chain(bucket);
        Some(labels.collect())
    }

    /// The values that a label may have in a series; none if they are not named.
    pub fn values_of(&self, series: &str, label: &str) -> Option<&BTreeSet<String>> {
        let metric = self.metric_of(series)?;
        let is_it = |row: &&Values| {
            row.label == label && row.metrics.iter().any(|name| name.as_str() == metric)
        };
        let row = self.values.iter().find(is_it)?;
        (!row.values.is_empty()).then_some(&row.values)
    }
}

/// The text of a section, up to the next one of its level.
pub fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    let text = &text[start + heading.len()..];
    &text[..text.find("\n## ").unwrap_or(text.len())]
}

/// The cells of a row of a table, three at least.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    (cells.len() >= 3).then_some(cells)
}

/// The names in a text: what stands in backticks and is one word.
fn names(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    quoted.filter(is_name).map(str::to_owned).collect()
}

fn kind(text: &str) -> Kind {
    match text {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        _ => Kind::Histogram,
    }
}
