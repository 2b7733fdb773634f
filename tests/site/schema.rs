//! Whether a JSON value follows a JSON Schema (draft 7), for the keywords that the schemas of the tests use.
//!
//! A keyword that is not known here is a panic, not a pass. Schemas of other files are never reached by what is written
//! here; one that is would panic likewise. `format` is checked for times alone, since it is a remark otherwise.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

/// Whether `value` follows `root`; else the first thing that is wrong, and where.
pub(crate) fn follows(root: &Value, value: &Value) -> Result<(), String> {
    below(root, root, value, "$")
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => panic!("type {other} is not handled"),
    }
}

fn below(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Value::Bool(allowed) = schema {
        return if *allowed {
            Ok(())
        } else {
            Err(format!("{at}: nothing is allowed here"))
        };
    }
    let length = |value: &Value| value.as_str().map(|text| text.chars().count() as u64);
    let holding = |rule: &Value| {
        let rules = rule.as_array().unwrap();
        rules
            .iter()
            .filter(|schema| below(root, schema, value, at).is_ok())
            .count()
    };
    for (keyword, rule) in schema.as_object().unwrap() {
        let good = match keyword.as_str() {
            "$schema" | "$id" | "$comment" | "$defs" | "definitions" | "title" | "description"
            | "examples" | "default" | "deprecated" | "meta:enum" => true,
            "$ref" => {
                let name = rule.as_str().unwrap();
                let Some(pointer) = name.strip_prefix('#') else {
                    panic!("{at}: {name} is a schema of its own, which is not at hand")
                };
                let target = root.pointer(pointer).ok_or(format!("no {name}"))?;
                below(root, target, value, at)?;
                true
            }
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "type" => match rule {
                Value::String(name) => is(name, value),
                names => {
                    let names = names.as_array().unwrap();
                    names.iter().any(|name| is(name.as_str().unwrap(), value))
                }
            },
            "minimum" => value
                .as_f64()
                .is_none_or(|number| Some(number) >= rule.as_f64()),
            "maximum" => value
                .as_f64()
                .is_none_or(|number| Some(number) <= rule.as_f64()),
            "minLength" => length(value).is_none_or(|length| Some(length) >= rule.as_u64()),
            "maxLength" => length(value).is_none_or(|length| Some(length) <= rule.as_u64()),
            "minItems" => value
                .as_array()
                .is_none_or(|items| Some(items.len() as u64) >= rule.as_u64()),
            "maxItems" => value
                .as_array()
                .is_none_or(|items| Some(items.len() as u64) <= rule.as_u64()),
            "uniqueItems" => {
                let items = value.as_array().into_iter().flatten();
                let texts: Vec<String> = items.map(ToString::to_string).collect();
                rule != &Value::Bool(true)
                    || texts.iter().collect::<BTreeSet<_>>().len() == texts.len()
            }
            "pattern" => value
                .as_str()
                .is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
            "format" => match (rule.as_str().unwrap(), value.as_str()) {
                ("date-time", Some(text)) => text.parse::<jiff::Timestamp>().is_ok(),
                _ => true,
            },
            "required" => {
                let names = rule.as_array().unwrap();
                names
                    .iter()
                    .all(|key| !value.is_object() || value.get(key.as_str().unwrap()).is_some())
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (key, value) in value.as_object().into_iter().flatten() {
                    if !known.is_some_and(|known| known.contains_key(key)) {
                        below(root, rule, value, &format!("{at}.{key}"))?;
                    }
                }
                true
            }
            "properties" => {
                for (key, schema) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(key) {
                        below(root, schema, value, &format!("{at}.{key}"))?;
                    }
                }
                true
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    below(root, rule, item, &format!("{at}[{index}]"))?;
                }
                true
            }
            // Says something only beside a list of schemas under `items`, which none has.
            "additionalItems" => true,
            "oneOf" => holding(rule) == 1,
            "anyOf" => holding(rule) > 0,
            "allOf" => holding(rule) == rule.as_array().unwrap().len(),
            other => panic!("keyword {other} is not handled"),
        };
        if !good {
            return Err(format!("{at}: {keyword} {rule} does not hold for {value}"));
        }
    }
    Ok(())
}
