//! Regular expressions, in the syntax of RE2 that Go and this crate share.

use std::collections::HashMap;
use std::rc::Rc;

use regex::{Regex, RegexBuilder};

use super::{int_at, str_at};
use crate::chart::template::evaluate::{Evaluated, Fault, Machine};
use crate::chart::value::Value;

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
        let small = RegexBuilder::new(pattern).size_limit(SMALL).build();
        let (regex, price) = match small {
            Ok(regex) => (regex, 1),
            Err(regex::Error::CompiledTooBig(_)) => {
                machine.step(100_000)?;
                let large = RegexBuilder::new(pattern).size_limit(LARGE).build();
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
    Ok(Value::texts(found))
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
        return Ok(Value::texts::<&str>([]));
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
