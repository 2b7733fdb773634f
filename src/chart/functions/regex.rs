//! Regular expressions, in the syntax of RE2 that Go and this crate share.

use std::collections::HashMap;
use std::rc::Rc;

use regex::{Regex, RegexBuilder};

use super::{int_at, str_at};
use crate::chart::template::evaluate::{Evaluated, Fault, Machine};
use crate::chart::value::{List, ListKind, Value};

/// A compiled expression up to this size costs nothing extra to match.
const SMALL: usize = 1 << 16;

/// An expression that compiles to more than this is refused.
const LARGE: usize = 1 << 20;

/// Compiled expressions of one chart, with the price of matching a byte.
#[derive(Debug, Default)]
pub(in crate::chart) struct Cache(HashMap<String, (Rc<Regex>, usize)>);

/// The expression of a text, its work counted for a subject of that length.
fn compiled(machine: &mut Machine, pattern: &str, subject: usize) -> Evaluated<Rc<Regex>> {
    if !machine.regexes.0.contains_key(pattern) {
        machine.charge(pattern.len() * 256)?;
        machine.step(1000)?;
        let translated = translated(pattern);
        let small = RegexBuilder::new(&translated).size_limit(SMALL).build();
        let (regex, price) = match small {
            Ok(regex) => (regex, 1),
            Err(regex::Error::CompiledTooBig(_)) => {
                machine.step(100_000)?;
                let large = RegexBuilder::new(&translated).size_limit(LARGE).build();
                (large.map_err(|error| Fault::new(error.to_string()))?, 64)
            }
            Err(error) => return Err(Fault::new(error.to_string())),
        };
        machine
            .regexes
            .0
            .insert(pattern.to_owned(), (Rc::new(regex), price));
    }
    let (regex, price) = &machine.regexes.0[pattern];
    let (regex, price) = (regex.clone(), *price);
    machine.step((subject / 16).saturating_mul(price))?;
    Ok(regex)
}

pub(super) fn is_match(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 1);
    match compiled(machine, str_at(arguments, 0), text.len()) {
        Ok(regex) => Ok(Value::Bool(regex.is_match(text))),
        // A malformed expression matches nothing; a spent budget is another matter.
        Err(fault) if fault.kind == crate::chart::template::evaluate::FaultKind::Template => {
            Ok(Value::Bool(false))
        }
        Err(fault) => Err(fault),
    }
}

pub(super) fn must_match(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 1);
    let regex = compiled(machine, str_at(arguments, 0), text.len())?;
    Ok(Value::Bool(regex.is_match(text)))
}

/// Go's nil slice where nothing was found.
fn texts_or_nil(texts: Vec<&str>) -> Value {
    if texts.is_empty() {
        return Value::List(List::of(Vec::new(), ListKind::Nil));
    }
    Value::texts(texts)
}

/// An expression of Go in the syntax of this crate.
///
/// They differ in little: a `{` that opens no repetition is itself, classes know no operations, and `\d`, `\w`,
/// `\s` and `\b` are about ASCII.
fn translated(pattern: &str) -> String {
    let mut output = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        let mut taken = character.len_utf8();
        match character {
            '\\' => {
                let escaped = after.chars().next();
                taken += escaped.map_or(0, char::len_utf8);
                match (escaped, in_class) {
                    (Some('Q'), false) => {
                        let literal = &after[1..];
                        let end = literal.find("\\E").unwrap_or(literal.len());
                        output.push_str(&regex::escape(&literal[..end]));
                        taken += end + "\\E".len().min(literal.len() - end);
                    }
                    (Some('d'), true) => output.push_str("0-9"),
                    (Some('w'), true) => output.push_str("0-9A-Za-z_"),
                    (Some('s'), true) => output.push_str("\\t\\n\\f\\r "),
                    (Some('d'), false) => output.push_str("[0-9]"),
                    (Some('w'), false) => output.push_str("[0-9A-Za-z_]"),
                    (Some('s'), false) => output.push_str("[\\t\\n\\f\\r ]"),
                    (Some('D'), _) => output.push_str("[^0-9]"),
                    (Some('W'), _) => output.push_str("[^0-9A-Za-z_]"),
                    (Some('S'), _) => output.push_str("[^\\t\\n\\f\\r ]"),
                    (Some('b'), false) => output.push_str("(?-u:\\b)"),
                    _ => output.push_str(&rest[..taken]),
                }
            }
            '[' if !in_class => {
                in_class = true;
                output.push('[');
                let start = after.len() - after.strip_prefix('^').unwrap_or(after).len();
                output.push_str(&after[..start]);
                taken += start;
                // A bracket that comes first is one of the class.
                if after[start..].starts_with(']') {
                    output.push_str("\\]");
                    taken += 1;
                }
            }
            '[' if after.starts_with(':') => {
                let end = after.find(":]").map_or(0, |end| end + 2);
                output.push('[');
                output.push_str(&after[..end]);
                taken += end;
            }
            ']' if in_class => {
                in_class = false;
                output.push(']');
            }
            '[' | '&' | '~' if in_class => {
                output.push('\\');
                output.push(character);
            }
            '-' if in_class && after.starts_with('-') => output.push_str("\\-"),
            '{' if !in_class && !opens_repetition(after) => output.push_str("\\{"),
            _ => output.push(character),
        }
        rest = &rest[taken..];
    }
    output
}

/// Whether `3}`, `3,}` or `3,5}` follows.
fn opens_repetition(after: &str) -> bool {
    let Some((bounds, _)) = after.split_once('}') else {
        return false;
    };
    let (least, most) = bounds.split_once(',').unwrap_or((bounds, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

/// How many matches a count allows: a negative one allows all.
fn limit(count: i64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

pub(super) fn find_all(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 1);
    let regex = compiled(machine, str_at(arguments, 0), text.len())?;
    let mut found = Vec::new();
    for hit in regex.find_iter(text).take(limit(int_at(arguments, 2))) {
        machine.charge(hit.len() + 32)?;
        found.push(hit.as_str());
    }
    Ok(texts_or_nil(found))
}

pub(super) fn find(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 1);
    let regex = compiled(machine, str_at(arguments, 0), text.len())?;
    machine.text(regex.find(text).map_or("", |hit| hit.as_str()))
}

fn replaced(
    machine: &mut Machine,
    arguments: &[Value],
    expand: fn(&regex::Captures<'_>, &str, &mut String),
) -> Evaluated<Value> {
    let (text, replacement) = (str_at(arguments, 1), str_at(arguments, 2));
    let regex = compiled(machine, str_at(arguments, 0), text.len())?;
    let mut output = String::new();
    let mut last = 0;
    for captures in regex.captures_iter(text) {
        let whole = captures.get(0).expect("a match has a whole");
        output.push_str(&text[last..whole.start()]);
        let start = output.len();
        expand(&captures, replacement, &mut output);
        machine.charge(output.len() - start)?;
        machine.step(1)?;
        last = whole.end();
    }
    output.push_str(&text[last..]);
    machine.text(output)
}

pub(super) fn replace_all(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    replaced(machine, arguments, |captures, replacement, output| {
        captures.expand(replacement, output);
    })
}

pub(super) fn replace_all_literal(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    replaced(machine, arguments, |_, replacement, output| {
        output.push_str(replacement);
    })
}

pub(super) fn split(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 1);
    let regex = compiled(machine, str_at(arguments, 0), text.len())?;
    let count = int_at(arguments, 2);
    if count == 0 {
        return Ok(texts_or_nil(Vec::new()));
    }
    if text.is_empty() {
        return Ok(Value::texts([""]));
    }
    let limit = limit(count);
    let mut pieces = Vec::new();
    let (mut start, mut end) = (0, 0);
    for hit in regex.find_iter(text) {
        if pieces.len() + 1 >= limit {
            break;
        }
        machine.charge(32)?;
        end = hit.start();
        if hit.end() != 0 {
            pieces.push(&text[start..end]);
        }
        start = hit.end();
    }
    if end != text.len() {
        pieces.push(&text[start..]);
    }
    Ok(Value::texts(pieces))
}

pub(super) fn quote_meta(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut quoted = String::new();
    for character in str_at(arguments, 0).chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    machine.text(quoted)
}
