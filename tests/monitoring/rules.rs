//! The alert rules of Prometheus, and the cases that they are tested by.

use std::collections::BTreeMap;

use serde_json::Value;

pub const RULES: &str = include_str!("../../deploy/prometheus/moorage.rules.yaml");
const CASES: &str = include_str!("../../deploy/prometheus/moorage.rules.test.yaml");

/// An alert.
pub struct Alert {
    pub name: String,
    pub expression: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

fn read(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned())).collect()
}

/// All alerts.
pub fn alerts() -> Vec<Alert> {
    let rules = read(RULES);
    let alert = |rule: &Value| Alert {
        name: rule["alert"].as_str().expect("every rule is an alert").to_owned(),
        expression: rule["expr"].as_str().expect("a text").to_owned(),
        labels: texts(&rule["labels"]),
        annotations: texts(&rule["annotations"]),
    };
    items(&rules["groups"]).flat_map(|group| items(&group["rules"])).map(alert).collect()
}

/// How often the cases have an alert fire, and how often they have it hold back for their whole time.
pub fn cases(alert: &str) -> (usize, usize) {
    let cases = read(CASES);
    let asks = |test: &&Value| {
        let expression = test["expr"].as_str().expect("a text");
        expression.contains(&format!(r#"alertname="{alert}""#))
            && expression.contains(r#"alertstate="firing""#)
    };
    let tests = items(&cases["tests"]).flat_map(|case| items(&case["promql_expr_test"]));
    let tests: Vec<&Value> = tests.filter(asks).collect();
    let fires = tests.iter().filter(|test| items(&test["exp_samples"]).count() > 0).count();
    let holds = |test: &&&Value| {
        let whole_time = test["expr"].as_str().expect("a text").starts_with("count_over_time(");
        whole_time && items(&test["exp_samples"]).count() == 0
    };
    (fires, tests.iter().filter(holds).count())
}

impl Alert {
    /// The labels that its texts name.
    pub fn labels_in_texts(&self) -> Vec<&str> {
        let parts = self.annotations.values().flat_map(|text| text.split("$labels.").skip(1));
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        parts.map(|part| part.split(|c| !is_part(c)).next().expect("a part")).collect()
    }
}
