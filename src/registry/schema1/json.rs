//! JSON to the byte as `distribution` writes it: as the JSON package of Go up to 1.21 does.
//!
//! That package also escapes `<`, `>`, `&` and the two line separators of Unicode, wherever they stand,
//! and has no short escapes for backspace and form feed. Go 1.22 has them; the registries that old
//! clients know were built before.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// The indentation of schema 1 manifests.
pub const INDENT: &str = "   ";

/// Writes a value on one line.
pub fn compact(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(value).map(|text| with_go_escapes(&text))
}

/// Writes a value with a line for every element, each indented by [`INDENT`] for every level.
pub fn indented(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    let formatter = PrettyFormatter::with_indent(INDENT.as_bytes());
    value.serialize(&mut Serializer::with_formatter(&mut text, formatter))?;
    Ok(with_go_escapes(&String::from_utf8_lossy(&text)))
}

/// Writes JSON without the white space between its parts; numbers and escapes stay as they are
/// written.
pub fn compacted(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut quoted = false;
    let mut escaped = false;
    for c in json.chars() {
        if escaped {
            escaped = false;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        }
        let is_between = !quoted && matches!(c, ' ' | '\t' | '\r' | '\n');
        if !is_between {
            push_escaped(&mut text, c);
        }
    }
    text
}

/// Gives what `serde_json` wrote Go's escapes. The characters concerned occur within strings only.
fn with_go_escapes(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut chars = json.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            (_, Some('b')) => text.push_str("\\u0008"),
            (_, Some('f')) => text.push_str("\\u000c"),
            (_, Some(escape)) => text.extend(['\\', escape]),
            (c, None) => push_escaped(&mut text, c),
        }
    }
    text
}

fn push_escaped(text: &mut String, c: char) {
    match c {
        '<' => text.push_str("\\u003c"),
        '>' => text.push_str("\\u003e"),
        '&' => text.push_str("\\u0026"),
        '\u{2028}' => text.push_str("\\u2028"),
        '\u{2029}' => text.push_str("\\u2029"),
        c => text.push(c),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        for (value, written) in [
            ("a/b 'c'", r#""a/b 'c'""#),
            ("<a & b>", r#""\u003ca \u0026 b\u003e""#),
            ("\u{2028}\u{2029}\u{2027}", "\"\\u2028\\u2029\u{2027}\""),
            ("\u{8}\u{c}\n\r\t\u{1}\u{7f}", "\"\\u0008\\u000c\\n\\r\\t\\u0001\u{7f}\""),
            ("\\b \\\\f \"", r#""\\b \\\\f \"""#),
            ("ä😀", "\"ä😀\""),
        ] {
            assert_eq!(compact(&value).expect("JSON"), written);
        }
    }

    #[test]
    fn what_is_compacted_loses_its_white_space_and_nothing_else() {
        for (json, written) in [
            ("{ \"a\" : [ 1.0 ,\n 2e5 ] }", r#"{"a":[1.0,2e5]}"#),
            (r#""a \" b\\" "#, r#""a \" b\\""#),
            (r#"{ "<" : "\b & \u003c" }"#, r#"{"\u003c":"\b \u0026 \u003c"}"#),
        ] {
            assert_eq!(compacted(json), written);
        }
    }

    #[test]
    fn an_indented_value_has_a_line_for_every_element() {
        let value = serde_json::json!({ "a": ["<", 1] });
        let written = "{\n   \"a\": [\n      \"\\u003c\",\n      1\n   ]\n}";
        assert_eq!(indented(&value).expect("JSON"), written);
    }
}
