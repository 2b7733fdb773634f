//! One YAML document as a [`Value`], resolved as the tools that write catalogs resolve it.
//!
//! Those tools follow YAML 1.1: `yes`, `on` and `y` are true, `010` is eight, `1_000` is a thousand, `<<` merges.
//! Dates and `12:30` are strings. What an alias brings in is bounded.

use std::collections::{BTreeMap, HashMap};

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use super::value::{DEEPEST, Flaw, Value, is_number};

/// Most that aliases may bring in, all together, in nodes and bytes of text.
const LARGEST_EXPANSION: usize = 16 << 20;

/// What a node weighs beside its text.
const NODE_WEIGHT: usize = 32;

#[derive(Clone)]
struct Built {
    value: Value,
    weight: usize,
    /// A plain `<<`, which merges where it is a key.
    merge: bool,
}

enum Open {
    List(Vec<Value>),
    Mapping {
        entries: BTreeMap<String, Value>,
        merged: Vec<Value>,
        key: Option<Key>,
    },
}

enum Key {
    Name(String),
    Merge,
}

struct Frame {
    open: Open,
    anchor: usize,
    weight: usize,
}

/// Reads exactly one document; `offset` of a flaw is a line from 0, for that is what YAML is read by.
pub(super) fn read(bytes: &[u8]) -> Result<Value, Flaw> {
    let text = std::str::from_utf8(bytes).map_err(|error| Flaw {
        offset: memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count(),
        reason: "the text is not UTF-8".to_owned(),
    })?;
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: DEEPEST,
        block_nesting_limit: DEEPEST,
    };
    let mut anchors: HashMap<usize, Built> = HashMap::new();
    let mut stack: Vec<Frame> = Vec::new();
    let mut expansion = 0usize;
    let mut root = None;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| Flaw {
            offset: error.marker().line().saturating_sub(1),
            reason: error.info(),
        })?;
        let line = span.start.line().saturating_sub(1);
        let flaw = |reason: String| Flaw {
            offset: line,
            reason,
        };
        let (built, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                let weight = NODE_WEIGHT + text.len();
                let value = scalar(&text, style, tag.as_deref()).map_err(flaw)?;
                (
                    Built {
                        value,
                        weight,
                        merge,
                    },
                    anchor,
                )
            }
            Event::SequenceStart(_, anchor, tag) => {
                collection(tag.as_deref(), "seq").map_err(flaw)?;
                stack.push(Frame {
                    open: Open::List(Vec::new()),
                    anchor,
                    weight: NODE_WEIGHT,
                });
                continue;
            }
            Event::MappingStart(_, anchor, tag) => {
                collection(tag.as_deref(), "map").map_err(flaw)?;
                stack.push(Frame {
                    open: Open::Mapping {
                        entries: BTreeMap::new(),
                        merged: Vec::new(),
                        key: None,
                    },
                    anchor,
                    weight: NODE_WEIGHT,
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = stack.pop() else { continue };
                let value = match frame.open {
                    Open::List(items) => Value::List(items),
                    Open::Mapping {
                        mut entries,
                        merged,
                        ..
                    } => {
                        for value in merged {
                            merge(&mut entries, value).map_err(flaw)?;
                        }
                        Value::Map(entries)
                    }
                };
                (
                    Built {
                        value,
                        weight: frame.weight,
                        merge: false,
                    },
                    frame.anchor,
                )
            }
            Event::Alias(anchor) => {
                let built = anchors
                    .get(&anchor)
                    .ok_or_else(|| flaw("an alias stands inside what it names".to_owned()))?;
                expansion = expansion.saturating_add(built.weight);
                if expansion > LARGEST_EXPANSION {
                    return Err(flaw("aliases bring in more than they may".to_owned()));
                }
                (built.clone(), 0)
            }
            Event::DocumentStart(..) if root.is_some() => {
                return Err(flaw("expected one document, found a second".to_owned()));
            }
            _ => continue,
        };
        if anchor != 0 {
            anchors.insert(anchor, built.clone());
        }
        let Some(frame) = stack.last_mut() else {
            root = Some(built.value);
            continue;
        };
        frame.weight = frame.weight.saturating_add(built.weight);
        match &mut frame.open {
            Open::List(items) => items.push(built.value),
            Open::Mapping {
                entries,
                merged,
                key,
            } => match key.take() {
                None => {
                    *key = Some(if built.merge {
                        Key::Merge
                    } else {
                        Key::Name(name(built.value).map_err(flaw)?)
                    });
                }
                Some(Key::Merge) => merged.push(built.value),
                Some(Key::Name(name)) => {
                    if entries
                        .get(&name)
                        .is_some_and(|there| *there != built.value)
                    {
                        return Err(flaw(format!("key {name:?} has two values in one mapping")));
                    }
                    entries.insert(name, built.value);
                }
            },
        }
    }
    Ok(root.unwrap_or(Value::Null))
}

/// What `<<` brings in; keys that are there already stay.
fn merge(entries: &mut BTreeMap<String, Value>, value: Value) -> Result<(), String> {
    match value {
        Value::Map(merged) => {
            for (key, value) in merged {
                entries.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::List(items) if items.iter().all(|item| matches!(item, Value::Map(_))) => {
            items.into_iter().try_for_each(|item| merge(entries, item))
        }
        _ => Err("\"<<\" merges a mapping or a list of mappings".to_owned()),
    }
}

fn name(value: Value) -> Result<String, String> {
    match value {
        Value::Text(text) | Value::Number(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        _ => Err("a key must be a string".to_owned()),
    }
}

fn collection(tag: Option<&Tag>, expected: &str) -> Result<(), String> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(expected) => Err(unknown(tag)),
        _ => Ok(()),
    }
}

fn unknown(tag: &Tag) -> String {
    format!("tag {:?} has no meaning in a catalog", tag.original())
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let resolved = || resolve(text);
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain {
            resolved()
        } else {
            Ok(Value::Text(text.to_owned()))
        };
    };
    let value = match tag.core_suffix() {
        Some("str") => return Ok(Value::Text(text.to_owned())),
        Some("null" | "bool" | "int" | "float") => resolved()?,
        _ if tag.original() == "!" => return Ok(Value::Text(text.to_owned())),
        _ => return Err(unknown(tag)),
    };
    match (tag.core_suffix(), &value) {
        (Some("null"), Value::Null)
        | (Some("bool"), Value::Bool(_))
        | (Some("int" | "float"), Value::Number(_)) => Ok(value),
        _ => Err(format!(
            "{text:?} is not what tag {:?} says",
            tag.original()
        )),
    }
}

/// Whether a plain scalar is a string.
pub(super) fn is_text(text: &str) -> bool {
    matches!(resolve(text), Ok(Value::Text(_)))
}

/// What a plain scalar stands for.
fn resolve(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Ok(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Ok(Value::Bool(false));
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF"
        | ".nan" | ".NaN" | ".NAN" => return Err(format!("{text} is no number that JSON has")),
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
        return Ok(Value::Text(text.to_owned()));
    }
    Ok(number(text).map_or_else(|| Value::Text(text.to_owned()), Value::Number))
}

/// The number that a plain scalar stands for, as JSON writes it.
fn number(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|digit| *digit != '_').collect();
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    let based = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, base)| Some((lower.strip_prefix(prefix)?, base)))
        .or_else(|| {
            let octal = lower.strip_prefix('0')?;
            (!octal.is_empty() && octal.bytes().all(|digit| (b'0'..b'8').contains(&digit)))
                .then_some((octal, 8))
        });
    if let Some((digits, base)) = based {
        if digits.starts_with(['+', '-']) {
            return None;
        }
        return u64::from_str_radix(digits, base)
            .ok()
            .map(|number| format!("{sign}{number}"));
    }
    let signed = format!("{sign}{digits}");
    if is_number(&signed) {
        return Some(signed);
    }
    // What YAML allows beyond JSON: no digit before or after the point, zeros in front.
    let (mantissa, exponent) = match lower.find('e') {
        Some(at) => lower.split_at(at),
        None => (lower.as_str(), ""),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() && mantissa.bytes().any(|byte| byte.is_ascii_digit()) {
        "0"
    } else {
        whole
    };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}{exponent}")).filter(|text| is_number(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_the_catalogs_tools_take_them_for() {
        for (yaml, json) in [
            ("a", r#""a""#),
            ("yes", "true"),
            ("'yes'", r#""yes""#),
            ("Off", "false"),
            ("~", "null"),
            ("''", r#""""#),
            ("4.10", "4.10"),
            ("1.2.3", r#""1.2.3""#),
            ("010", "8"),
            ("08", "8"),
            ("0o17", "15"),
            ("-0x10", "-16"),
            ("0b11", "3"),
            ("1_000", "1000"),
            (".5", "0.5"),
            ("5.", "5"),
            ("+1", "1"),
            ("1e3", "1e3"),
            ("1.5e+3", "1.5e+3"),
            (".", r#"".""#),
            ("+", r#""+""#),
            ("0x", r#""0x""#),
            ("12:30", r#""12:30""#),
            ("2024-01-01", r#""2024-01-01""#),
            ("18446744073709551616", "18446744073709551616"),
            ("!!str 1", r#""1""#),
            ("! 1", r#""1""#),
            ("{1: a, on: b, c: [d]}", r#"{"1":"a","c":["d"],"true":"b"}"#),
            (
                "a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  k: 2\n  l: 3",
                r#"{"a":{"k":1},"b":{"k":1},"c":{"k":2,"l":3}}"#,
            ),
            (
                "a: |\n  x\n  y\nb: >-\n  x\n  y",
                r#"{"a":"x\ny\n","b":"x y"}"#,
            ),
            ("# nothing", "null"),
            ("a: 1\na: 1", r#"{"a":1}"#),
        ] {
            match read(yaml.as_bytes()) {
                Ok(value) => assert_eq!(value.to_json(), json, "{yaml} must be {json}"),
                Err(flaw) => panic!("{yaml} must be {json}: {flaw:?}"),
            }
        }
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb = format!("{bomb}a{level}: &a{level} [{items}]\n");
        }
        let deep = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
        for (yaml, line, part) in [
            ("a: 1\nb: 2\na: 3", 2, "two values"),
            ("a: .inf", 0, "no number"),
            ("a: !!binary aGk=", 0, "tag"),
            ("a: !mine 1", 0, "tag"),
            ("a: !!int x", 0, "not what tag"),
            ("? [a]\n: 1", 0, "key"),
            ("a: 1\n---\nb: 2", 1, "second"),
            ("<<: 1", 0, "merges"),
            (bomb.as_str(), 4, "aliases"),
            ("a: [", 0, ""),
            ("a: *b", 0, ""),
            (deep.as_str(), 0, ""),
        ] {
            let flaw = read(yaml.as_bytes()).unwrap_err();
            assert!(
                flaw.reason.contains(part),
                "{yaml:.20}: {flaw:?} must say {part:?}"
            );
            assert!(
                flaw.offset >= line,
                "{yaml:.20}: {flaw:?} must be at line {line}"
            );
        }
    }
}
