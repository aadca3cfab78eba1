//! As much of PromQL as tells which metrics and labels a query names. Whether it is PromQL at all, promtool says.

use std::collections::BTreeSet;
use std::ops::Range;

use moorage_test_support::documented_metrics::Table;

/// Words before a list of labels.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words between two operands.
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

const COMPARISONS: [&str; 6] = ["==", "!=", ">", "<", ">=", "<="];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Text,
    Number,
    Symbol,
}

struct Token<'a> {
    kind: Kind,
    text: &'a str,
    place: Range<usize>,
}

/// A query, cut into tokens.
pub struct Query<'a> {
    source: &'a str,
    tokens: Vec<Token<'a>>,
}

/// A series that a query asks for.
struct Selector<'a> {
    place: usize,
    name: &'a str,
    /// Label, operator, and what the label is compared with.
    matchers: Vec<(&'a str, &'a str, &'a str)>,
}

impl<'a> Query<'a> {
    /// Reads a query, in which Grafana's variables are replaced already.
    pub fn new(source: &'a str) -> Self {
        let mut tokens = Vec::new();
        let mut start = 0;
        while let Some(first) = source[start..].chars().next() {
            let rest = &source[start..];
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.');
            let run = rest.find(|c| !word(c)).unwrap_or(rest.len());
            let (kind, length) = match first {
                '"' => (Kind::Text, 2 + rest[1..].find('"').expect("a text that ends")),
                '0'..='9' => (Kind::Number, run),
                _ if word(first) => (Kind::Word, run),
                _ if ["=~", "!~", "!=", ">=", "<=", "=="].iter().any(|s| rest.starts_with(s)) => {
                    (Kind::Symbol, 2)
                }
                _ => (Kind::Symbol, first.len_utf8()),
            };
            let place = start..start + length;
            if !first.is_whitespace() {
                tokens.push(Token { kind, text: &source[place.clone()], place });
            }
            start += length;
        }
        Self { source, tokens }
    }

    fn text(&self, place: usize) -> &'a str {
        self.tokens.get(place).map_or("", |token| token.text)
    }

    /// The series that it asks for.
    fn selectors(&self) -> Vec<Selector<'a>> {
        let mut found = Vec::new();
        let mut place = 0;
        while place < self.tokens.len() {
            let (word, next) = (self.text(place), self.text(place + 1));
            let is_word = self.tokens[place].kind == Kind::Word;
            if GROUPING.contains(&word) && next == "(" {
                place = self.closing(place + 1);
            } else if is_word && next == "{" {
                let end = self.closing(place + 1);
                found.push(Selector { place, name: word, matchers: self.matchers(place + 2, end) });
                place = end;
            } else if is_word && !OPERATORS.contains(&word) && !GROUPING.contains(&word) {
                // Neither a function nor an aggregation.
                if !["(", "by", "without"].contains(&next) {
                    found.push(Selector { place, name: word, matchers: Vec::new() });
                }
            }
            place += 1;
        }
        found
    }

    /// What is between two braces.
    fn matchers(&self, start: usize, end: usize) -> Vec<(&'a str, &'a str, &'a str)> {
        let parts = self.tokens[start..end].split(|token| token.text == ",");
        let matcher = |part: &[Token<'a>]| match part {
            [label, operator, text] if text.kind == Kind::Text => {
                (label.text, operator.text, text.text.trim_matches('"'))
            }
            _ => panic!("no matcher in {}", self.source),
        };
        parts.map(matcher).collect()
    }

    /// Where what opens there ends.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0;
        for place in open..self.tokens.len() {
            match self.text(place) {
                "(" | "{" => depth += 1,
                ")" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return place;
            }
        }
        panic!("what opens does not end in {}", self.source)
    }

    /// Lists of labels, with the part of the query that they are about.
    fn groupings(&self) -> Vec<(Vec<&'a str>, Range<usize>)> {
        let is_list =
            |place: &usize| GROUPING.contains(&self.text(*place)) && self.text(place + 1) == "(";
        let grouping = |place: usize| {
            let end = self.closing(place + 1);
            let labels = self.tokens[place + 2..end].iter().filter(|token| token.text != ",");
            // `sum by (…) (…)` is about what follows, `a / on (…) b` about what is on both sides.
            let scope = match self.text(place) {
                "by" | "without" => end + 1..self.closing(end + 1),
                _ => 0..self.tokens.len(),
            };
            (labels.map(|token| token.text).collect(), scope)
        };
        (0..self.tokens.len()).filter(is_list).map(grouping).collect()
    }

    /// The labels that the result has, as far as a list names them.
    pub fn labels_of_result(&self) -> BTreeSet<&'a str> {
        let groupings = self.groupings();
        groupings.into_iter().flat_map(|(labels, _)| labels).collect()
    }

    /// The series that it names.
    pub fn series(&self) -> Vec<&'a str> {
        self.selectors().into_iter().map(|selector| selector.name).collect()
    }

    /// What in it is in no metric of the table.
    pub fn unknown(&self, table: &Table) -> Vec<String> {
        let mut unknown = Vec::new();
        let selectors = self.selectors();
        for selector in &selectors {
            unknown.extend(selector.unknown(table));
        }
        for (labels, scope) in self.groupings() {
            let within = selectors.iter().filter(|selector| scope.contains(&selector.place));
            let known: BTreeSet<&str> =
                within.filter_map(|selector| table.labels_of(selector.name)).flatten().collect();
            let strange = labels.iter().filter(|label| !known.contains(*label));
            unknown.extend(strange.map(|label| format!("the label {label} of a grouping")));
        }
        unknown
    }

    /// The parts of an alert's condition, each without what it is compared with.
    pub fn without_thresholds(&self) -> Vec<&'a str> {
        let mut depth = 0;
        let is_outer_and = |token: &Token<'_>| {
            match token.text {
                "(" | "{" => depth += 1,
                ")" | "}" => depth -= 1,
                _ => {}
            }
            depth == 0 && token.text == "and"
        };
        let part = |tokens: &[Token<'a>]| {
            let tokens = match tokens {
                [left @ .., comparison, number]
                    if number.kind == Kind::Number && COMPARISONS.contains(&comparison.text) =>
                {
                    left
                }
                all => all,
            };
            let (first, last) = (tokens.first().expect("a part"), tokens.last().expect("a part"));
            &self.source[first.place.start..last.place.end]
        };
        self.tokens.split(is_outer_and).map(part).collect()
    }
}

impl Selector<'_> {
    fn unknown(&self, table: &Table) -> Vec<String> {
        let Some(labels) = table.labels_of(self.name) else {
            return vec![format!("the metric {}", self.name)];
        };
        let mut unknown = Vec::new();
        for (label, operator, text) in &self.matchers {
            if !labels.contains(label) {
                unknown.push(format!("the label {label} of {}", self.name));
            }
            let Some(values) = table.values_of(self.name, label) else { continue };
            let alternatives: Vec<&str> = match *operator {
                "=~" | "!~" => text.split('|').collect(),
                _ => vec![text],
            };
            let strange = alternatives.into_iter().filter(|text| !values.contains(*text));
            unknown.extend(strange.map(|text| format!("{label}=\"{text}\" of {}", self.name)));
        }
        unknown
    }
}
