//! YAML, JSON and TOML, in and out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use serde_json::{Map as JsonMap, Number, Value as Json};

use super::{print, str_at};
use crate::chart::template::evaluate::{Evaluated, Fault, FaultKind, Machine, VALUE_DEPTH};
use crate::chart::value::{self, ListKind, Object, Value};
use crate::chart::yaml::{self, Layout};

/// A value as a JSON document. `None` is what Go's encoder refuses: a cycle, an infinity.
fn document(machine: &mut Machine, value: &Value, depth: usize) -> Evaluated<Option<Json>> {
    machine.step(1)?;
    if depth > VALUE_DEPTH {
        return Ok(None);
    }
    Ok(Some(match value {
        Value::Null | Value::NilElement => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number, value::IntKind::Uint64) => Json::from(number.cast_unsigned()),
        Value::Int(number, _) => Json::from(*number),
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        Value::Float(float) => {
            if float.fract() == 0.0
                && float.abs() < 1e18
                && !(*float == 0.0 && float.is_sign_negative())
            {
                Json::from(*float as i64)
            } else {
                match Number::from_f64(*float) {
                    Some(number) => Json::Number(number),
                    None => return Ok(None),
                }
            }
        }
        Value::Text(text) => {
            machine.charge(text.len())?;
            Json::String(text.to_string())
        }
        Value::Bytes(bytes) => {
            machine.charge(bytes.len() * 2)?;
            Json::String(super::encoding::base64_encode(bytes))
        }
        Value::List(list) if list.kind() == ListKind::Nil => Json::Null,
        Value::List(list) => {
            let mut items = Vec::with_capacity(list.items().len());
            machine.charge(list.items().len() * 32)?;
            for item in list.items() {
                match document(machine, item, depth + 1)? {
                    Some(item) => items.push(item),
                    None => return Ok(None),
                }
            }
            Json::Array(items)
        }
        Value::Map(map) => {
            machine.charge(map.len() * 64)?;
            let mut entries = JsonMap::new();
            for (key, item) in map.entries() {
                match document(machine, &item, depth + 1)? {
                    Some(item) => entries.insert(key.to_string(), item),
                    None => return Ok(None),
                };
            }
            Json::Object(entries)
        }
        Value::Object(object) => match &**object {
            Object::Record(record) => {
                let mut entries = JsonMap::new();
                for field in &record.fields {
                    if !field.value.is_true() {
                        continue;
                    }
                    match document(machine, &field.value, depth + 1)? {
                        Some(item) => entries.insert(field.json.to_owned(), item),
                        None => return Ok(None),
                    };
                }
                Json::Object(entries)
            }
            Object::Files(files) => {
                let mut entries = JsonMap::new();
                for (name, bytes) in files {
                    machine.charge(bytes.len() * 2)?;
                    let text = super::encoding::base64_encode(bytes);
                    entries.insert(name.to_string(), Json::String(text));
                }
                Json::Object(entries)
            }
            Object::Version(version) => Json::String(version.to_string()),
            Object::Time(nanoseconds) => Json::String(super::dates::format(
                "2006-01-02T15:04:05.999999999Z07:00",
                *nanoseconds,
            )),
            Object::Duration(nanoseconds) => Json::from(*nanoseconds),
        },
    }))
}

/// A value as `yaml.v2` writes it, with a line feed at its end; empty if it has no YAML form.
pub(super) fn yaml_text(machine: &mut Machine, value: &Value) -> Evaluated<String> {
    Ok(document(machine, value, 0)?
        .map(|document| yaml::emit(&document, Layout::Compact))
        .unwrap_or_default())
}

fn without_line_feed(machine: &mut Machine, text: &str) -> Evaluated<Value> {
    machine.text(text.strip_suffix('\n').unwrap_or(text))
}

pub(super) fn to_yaml(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = yaml_text(machine, &arguments[0])?;
    without_line_feed(machine, &text)
}

const UNSUPPORTED: &str = "json: unsupported value";

pub(super) fn must_to_yaml(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = yaml_text(machine, &arguments[0])?;
    if text.is_empty() {
        return Err(Fault::new(UNSUPPORTED));
    }
    without_line_feed(machine, &text)
}

pub(super) fn to_yaml_pretty(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = document(machine, &arguments[0], 0)?
        .map(|document| yaml::emit(&document, Layout::Pretty))
        .unwrap_or_default();
    without_line_feed(machine, &text)
}

/// Counts a document before it is read.
fn charge_document(machine: &mut Machine, text: &str) -> Evaluated<()> {
    // Reading a byte takes about as long as a step.
    machine.step(text.len())?;
    machine.charge(text.len().saturating_mul(8))
}

fn error_map(message: String) -> Value {
    Value::map(BTreeMap::from([(Rc::from("Error"), Value::text(message))]))
}

fn json_kind(document: &Json) -> &'static str {
    match document {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

fn wrong_kind(document: &Json, expected: &str) -> String {
    format!(
        "json: cannot unmarshal {} into Go value of type {expected}",
        json_kind(document)
    )
}

const A_MAP: &str = "map[string]interface {}";
const A_LIST: &str = "[]interface {}";

/// Reads YAML; a document that refers to itself often is charged for what it becomes.
fn read_yaml(machine: &mut Machine, text: &str) -> Evaluated<Result<Json, String>> {
    charge_document(machine, text)?;
    let document = match yaml::parse(text) {
        Ok(document) => document,
        Err(error) => return Ok(Err(format!("error converting YAML to JSON: yaml: {error}"))),
    };
    machine.charge(nodes(&document).saturating_mul(64))?;
    Ok(Ok(document))
}

fn nodes(document: &Json) -> usize {
    match document {
        Json::Array(items) => 1 + items.iter().map(nodes).sum::<usize>(),
        Json::Object(entries) => 1 + entries.values().map(nodes).sum::<usize>(),
        Json::String(text) => 1 + text.len() / 64,
        _ => 1,
    }
}

const DECODING: &str = "error unmarshaling JSON: while decoding JSON: ";

pub(super) fn from_yaml(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(match read_yaml(machine, str_at(arguments, 0))? {
        Ok(Json::Null) => Value::map(BTreeMap::new()),
        Ok(document @ Json::Object(_)) => value::from_json(&document),
        Ok(other) => error_map(format!("{DECODING}{}", wrong_kind(&other, A_MAP))),
        Err(message) => error_map(message),
    })
}

pub(super) fn from_yaml_array(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(match read_yaml(machine, str_at(arguments, 0))? {
        Ok(Json::Null) => Value::list(Vec::new()),
        Ok(document @ Json::Array(_)) => value::from_json(&document),
        Ok(other) => Value::list(vec![Value::text(format!(
            "{DECODING}{}",
            wrong_kind(&other, A_LIST)
        ))]),
        Err(message) => Value::list(vec![Value::text(message)]),
    })
}

fn read_json(machine: &mut Machine, text: &str) -> Evaluated<Result<Json, String>> {
    charge_document(machine, text)?;
    if text.trim().is_empty() {
        return Ok(Err("unexpected end of JSON input".to_owned()));
    }
    Ok(serde_json::from_str(text).map_err(|error| format!("json: {error}")))
}

pub(super) fn from_json(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(match read_json(machine, str_at(arguments, 0))? {
        Ok(Json::Null) => Value::map(BTreeMap::new()),
        Ok(document @ Json::Object(_)) => value::from_json(&document),
        Ok(other) => error_map(wrong_kind(&other, A_MAP)),
        Err(message) => error_map(message),
    })
}

pub(super) fn must_from_json(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    match read_json(machine, str_at(arguments, 0))? {
        Ok(document) => Ok(value::from_json(&document)),
        Err(message) => Err(Fault::new(message)),
    }
}

pub(super) fn from_json_array(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(match read_json(machine, str_at(arguments, 0))? {
        Ok(Json::Null) => Value::list(Vec::new()),
        Ok(document @ Json::Array(_)) => value::from_json(&document),
        Ok(other) => Value::list(vec![Value::text(wrong_kind(&other, A_LIST))]),
        Err(message) => Value::list(vec![Value::text(message)]),
    })
}

/// Go's way to write JSON: keys sorted, and `<`, `>`, `&` escaped where wanted.
fn json_text(document: &Json, pretty: bool, escapes_html: bool) -> String {
    let mut text = String::new();
    write_json(document, pretty.then_some(0), escapes_html, &mut text);
    text
}

fn write_json(document: &Json, indent: Option<usize>, escapes_html: bool, output: &mut String) {
    let line = |indent: Option<usize>, output: &mut String| {
        if let Some(indent) = indent {
            output.push('\n');
            output.extend(std::iter::repeat_n(' ', indent));
        }
    };
    match document {
        Json::Null => output.push_str("null"),
        Json::Bool(truth) => output.push_str(if *truth { "true" } else { "false" }),
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => output.push_str(&json_float(float)),
            _ => output.push_str(&number.to_string()),
        },
        Json::String(text) => write_json_text(text, escapes_html, output),
        Json::Array(items) if items.is_empty() => output.push_str("[]"),
        Json::Array(items) => {
            output.push('[');
            let inner = indent.map(|indent| indent + 2);
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    output.push(',');
                }
                line(inner, output);
                write_json(item, inner, escapes_html, output);
            }
            line(indent, output);
            output.push(']');
        }
        Json::Object(entries) if entries.is_empty() => output.push_str("{}"),
        Json::Object(entries) => {
            output.push('{');
            let inner = indent.map(|indent| indent + 2);
            let sorted: BTreeMap<&String, &Json> = entries.iter().collect();
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    output.push(',');
                }
                line(inner, output);
                write_json_text(key, escapes_html, output);
                output.push_str(if indent.is_some() { ": " } else { ":" });
                write_json(item, inner, escapes_html, output);
            }
            line(indent, output);
            output.push('}');
        }
    }
}

/// Floats are exponential below 1e-6 and from 1e21 on.
fn json_float(float: f64) -> String {
    let (digits, exponent) = print::shortest_digits(float);
    let sign = if float.is_sign_negative() { "-" } else { "" };
    if float != 0.0 && !(-6..21).contains(&exponent) {
        let text = print::exponential(&digits, exponent);
        // Go writes e-09 as e-9.
        return format!("{sign}{}", text.replace("e-0", "e-"));
    }
    format!("{sign}{}", print::positional(&digits, exponent))
}

fn write_json_text(text: &str, escapes_html: bool, output: &mut String) {
    output.push('"');
    for character in text.chars() {
        if value::stray_byte(character).is_some() {
            output.push_str("\\ufffd");
            continue;
        }
        match character {
            '"' => output.push_str("\\\""),
            '\\' => output.push_str("\\\\"),
            '\n' => output.push_str("\\n"),
            '\r' => output.push_str("\\r"),
            '\t' => output.push_str("\\t"),
            '\u{8}' => output.push_str("\\b"),
            '\u{c}' => output.push_str("\\f"),
            '<' | '>' | '&' if escapes_html => {
                let _ = write!(output, "\\u{:04x}", u32::from(character));
            }
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(output, "\\u{:04x}", u32::from(character));
            }
            _ => output.push(character),
        }
    }
    output.push('"');
}

fn written_json(
    machine: &mut Machine,
    value: &Value,
    pretty: bool,
    escapes_html: bool,
) -> Evaluated<Option<Value>> {
    match document(machine, value, 0)? {
        Some(document) => {
            if pretty {
                // Indentation may be most of it.
                machine.charge(nodes(&document).saturating_mul(64))?;
            }
            machine
                .text(json_text(&document, pretty, escapes_html))
                .map(Some)
        }
        None => Ok(None),
    }
}

pub(super) fn to_json(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(written_json(machine, &arguments[0], false, true)?.unwrap_or_else(|| Value::text("")))
}

pub(super) fn must_to_json(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    written_json(machine, &arguments[0], false, true)?.ok_or_else(|| Fault::new(UNSUPPORTED))
}

pub(super) fn to_pretty_json(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(written_json(machine, &arguments[0], true, true)?.unwrap_or_else(|| Value::text("")))
}

pub(super) fn must_to_pretty_json(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    written_json(machine, &arguments[0], true, true)?.ok_or_else(|| Fault::new(UNSUPPORTED))
}

pub(super) fn to_raw_json(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    written_json(machine, &arguments[0], false, false)?.ok_or_else(|| Fault::new(UNSUPPORTED))
}

/// A table as TOML: plain keys first, then tables, both sorted.
fn toml_text(machine: &mut Machine, value: &Value) -> Evaluated<Result<String, String>> {
    let Some(Json::Object(entries)) = document(machine, value, 0)? else {
        return Ok(Err(
            "toml: top-level values must be Go maps or structs".to_owned()
        ));
    };
    let mut output = String::new();
    Ok(write_toml(&entries, &mut Vec::new(), &mut output).map(|()| output))
}

fn toml_key(key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare {
        key.to_owned()
    } else {
        print::quote(key)
    }
}

fn is_table_list(value: &Json) -> bool {
    matches!(value, Json::Array(items) if !items.is_empty() && items.iter().all(Json::is_object))
}

fn write_toml(
    entries: &JsonMap<String, Json>,
    path: &mut Vec<String>,
    output: &mut String,
) -> Result<(), String> {
    let sorted: BTreeMap<&String, &Json> = entries.iter().collect();
    let indent = "  ".repeat(path.len());
    for (key, value) in &sorted {
        if value.is_object() || is_table_list(value) || value.is_null() {
            continue;
        }
        output.push_str(&indent);
        output.push_str(&toml_key(key));
        output.push_str(" = ");
        write_toml_value(value, output)?;
        output.push('\n');
    }
    for (key, value) in &sorted {
        path.push(toml_key(key));
        let indent = "  ".repeat(path.len() - 1);
        match value {
            Json::Object(table) => {
                if !output.is_empty() {
                    output.push('\n');
                }
                let _ = writeln!(output, "{indent}[{}]", path.join("."));
                write_toml(table, path, output)?;
            }
            Json::Array(items) if is_table_list(value) => {
                for item in items {
                    if !output.is_empty() {
                        output.push('\n');
                    }
                    let _ = writeln!(output, "{indent}[[{}]]", path.join("."));
                    if let Json::Object(table) = item {
                        write_toml(table, path, output)?;
                    }
                }
            }
            _ => {}
        }
        path.pop();
    }
    Ok(())
}

fn write_toml_value(value: &Json, output: &mut String) -> Result<(), String> {
    match value {
        Json::Null => return Err("toml: cannot encode a nil value".to_owned()),
        Json::Bool(truth) => output.push_str(if *truth { "true" } else { "false" }),
        Json::Number(number) => output.push_str(&number.to_string()),
        Json::String(text) => output.push_str(&print::quote(text)),
        Json::Array(items) => {
            output.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    output.push_str(", ");
                }
                write_toml_value(item, output)?;
            }
            output.push(']');
        }
        Json::Object(entries) => {
            output.push('{');
            let sorted: BTreeMap<&String, &Json> = entries.iter().collect();
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    output.push_str(", ");
                }
                output.push_str(&toml_key(key));
                output.push_str(" = ");
                write_toml_value(item, output)?;
            }
            output.push('}');
        }
    }
    Ok(())
}

pub(super) fn to_toml(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = toml_text(machine, &arguments[0])?;
    machine.text(text.unwrap_or_else(|message| message))
}

pub(super) fn must_to_toml(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    match toml_text(machine, &arguments[0])? {
        Ok(text) => machine.text(text),
        Err(message) => Err(Fault::new(message)),
    }
}

pub(super) fn from_toml(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 0);
    charge_document(machine, text)?;
    Ok(match text.parse::<toml::Table>() {
        Ok(table) => from_toml_value(&toml::Value::Table(table), 0)?,
        Err(error) => {
            let line = error.span().map_or(1, |span| {
                crate::chart::template::parse::line_of(text, span.start)
            });
            error_map(format!("toml: line {line}: {}", error.message()))
        }
    })
}

fn from_toml_value(value: &toml::Value, depth: usize) -> Evaluated<Value> {
    if depth > VALUE_DEPTH {
        return Err(Fault::of(FaultKind::Limit, print::TOO_DEEP));
    }
    Ok(match value {
        toml::Value::String(text) => Value::text(text),
        toml::Value::Integer(number) => Value::int64(*number),
        toml::Value::Float(float) => Value::Float(*float),
        toml::Value::Boolean(truth) => Value::Bool(*truth),
        toml::Value::Datetime(time) => Value::text(time.to_string()),
        toml::Value::Array(items) => Value::list(
            items
                .iter()
                .map(|item| from_toml_value(item, depth + 1))
                .collect::<Evaluated<_>>()?,
        ),
        toml::Value::Table(entries) => {
            let mut map = BTreeMap::new();
            for (key, item) in entries {
                map.insert(Rc::from(key.as_str()), from_toml_value(item, depth + 1)?);
            }
            Value::map(map)
        }
    })
}
