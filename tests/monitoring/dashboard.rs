//! The dashboard of Grafana.

use serde_json::Value;

const DASHBOARD: &str = include_str!("../../deploy/grafana/moorage.json");

/// A panel that shows something.
pub struct Panel {
    pub title: String,
    pub description: String,
    pub datasource: String,
    pub targets: Vec<Target>,
}

/// What a panel asks Prometheus.
pub struct Target {
    pub expression: String,
    /// What each series is called, with labels in it as `{{label}}`.
    pub legend: String,
    pub datasource: String,
}

/// The dashboard as it is.
pub fn json() -> Value {
    serde_json::from_str(DASHBOARD).expect("the dashboard is JSON")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The titles of its rows.
pub fn rows() -> Vec<String> {
    let json = json();
    let panels = json["panels"].as_array().expect("panels");
    panels.iter().filter(|panel| panel["type"] == "row").map(|row| text(&row["title"])).collect()
}

/// Its panels, of all rows.
pub fn panels() -> Vec<Panel> {
    let json = json();
    let panels = json["panels"].as_array().expect("panels");
    panels.iter().filter(|panel| panel["type"] != "row").map(panel).collect()
}

fn panel(panel: &Value) -> Panel {
    let target = |target: &Value| Target {
        expression: text(&target["expr"]),
        legend: text(&target["legendFormat"]),
        datasource: text(&target["datasource"]["uid"]),
    };
    Panel {
        title: text(&panel["title"]),
        description: text(&panel["description"]),
        datasource: text(&panel["datasource"]["uid"]),
        targets: panel["targets"].as_array().expect("targets").iter().map(target).collect(),
    }
}

impl Target {
    /// The query as Grafana sends it when everything is chosen, with rates over so long a time.
    pub fn query(&self, interval: &str) -> String {
        let query = self.expression.replace("$__rate_interval", interval);
        let query = query.replace("$job", ".+").replace("$instance", ".+");
        assert!(!query.contains('$'), "a variable that Grafana does not have: {query}");
        query
    }

    /// The labels in its legend.
    pub fn labels_of_legend(&self) -> Vec<&str> {
        let parts = self.legend.split("{{").skip(1);
        parts.map(|part| part.split("}}").next().expect("a part").trim()).collect()
    }
}

/// The queries that fill the variables: each asks for the values of a label in some series.
pub fn variables() -> Vec<(String, String, String)> {
    let json = json();
    let variables = json["templating"]["list"].as_array().expect("variables");
    let queried = variables.iter().filter(|variable| variable["type"] == "query");
    let variable = |variable: &Value| {
        let query = text(&variable["query"]["query"]);
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (series, label) =
            inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values");
        (text(&variable["name"]), series.replace("$job", ".+"), label.to_owned())
    };
    queried.map(variable).collect()
}
