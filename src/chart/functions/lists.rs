//! Lists: every function makes a new one.

use std::rc::Rc;

use super::logic::{is_deeply_equal, is_empty};
use super::{dicts, int_at};
use crate::chart::template::evaluate::{Evaluated, Fault, Machine};
use crate::chart::value::{IntKind, List, ListKind, Object, Value, text_from_bytes, text_to_bytes};

/// The items of a list argument.
fn items<'a>(machine: &mut Machine, value: &'a Value, verb: &str) -> Evaluated<&'a [Value]> {
    match value {
        Value::List(list) => {
            machine.charge(64 + list.items().len() * 32)?;
            Ok(list.items())
        }
        other => Err(Fault::new(format!(
            "Cannot {verb} on type {}",
            other.kind_name()
        ))),
    }
}

pub(super) fn list(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.charge(64 + arguments.len() * 32)?;
    if arguments.is_empty() {
        return Ok(Value::List(List::of(Vec::new(), ListKind::Any)));
    }
    Ok(Value::list(arguments.to_vec()))
}

pub(super) fn len(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let length = match &arguments[0] {
        Value::List(list) => list.items().len(),
        Value::Map(map) => map.len(),
        Value::Text(text) => text_to_bytes(text).len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Null | Value::NilElement => return Err(Fault::new("len of nil pointer")),
        Value::Object(object) if matches!(**object, Object::Files(_)) => {
            dicts::entries_of(&arguments[0]).map_or(0, |entries| entries.len())
        }
        other => return Err(Fault::new(format!("len of type {}", other.type_name()))),
    };
    Ok(Value::int(i64::try_from(length).unwrap_or(i64::MAX)))
}

/// An index into something of that length.
fn position(index: &Value, length: usize) -> Evaluated<usize> {
    match index {
        Value::Int(number, _) => match usize::try_from(*number) {
            Ok(number) if number <= length => Ok(number),
            _ => Err(Fault::new(format!("index out of range: {number}"))),
        },
        Value::Null | Value::NilElement => Err(Fault::new("cannot index slice/array with nil")),
        other => Err(Fault::new(format!(
            "cannot index slice/array with type {}",
            other.type_name()
        ))),
    }
}

pub(super) fn index(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut item = arguments[0].clone();
    if item.is_null() {
        return Err(Fault::new("index of untyped nil"));
    }
    for index in &arguments[1..] {
        item = match &item {
            Value::List(list) => {
                let at = position(index, list.items().len())?;
                list.items()
                    .get(at)
                    .cloned()
                    .ok_or_else(|| Fault::new(format!("index out of range: {at}")))?
            }
            Value::Bytes(bytes) => {
                let at = position(index, bytes.len())?;
                let byte = bytes
                    .get(at)
                    .ok_or_else(|| Fault::new(format!("index out of range: {at}")))?;
                Value::int(i64::from(*byte))
            }
            Value::Text(text) => {
                let bytes = text_to_bytes(text);
                let at = position(index, bytes.len())?;
                let byte = bytes
                    .get(at)
                    .ok_or_else(|| Fault::new(format!("index out of range: {at}")))?;
                Value::int(i64::from(*byte))
            }
            Value::Map(map) => match index {
                Value::Text(key) => dicts::entry(map, key),
                Value::Null | Value::NilElement => {
                    return Err(Fault::new("value is nil; should be of type string"));
                }
                other => {
                    return Err(Fault::new(format!(
                        "value has type {}; should be string",
                        other.type_name()
                    )));
                }
            },
            Value::Object(object) => match (&**object, index) {
                (Object::Files(files), Value::Text(name)) => {
                    Value::Bytes(files.get(&**name).cloned().unwrap_or_else(|| Rc::from([])))
                }
                _ => {
                    return Err(Fault::new(format!(
                        "can't index item of type {}",
                        item.type_name()
                    )));
                }
            },
            Value::Null | Value::NilElement => return Err(Fault::new("index of nil pointer")),
            other => {
                return Err(Fault::new(format!(
                    "can't index item of type {}",
                    other.type_name()
                )));
            }
        };
    }
    Ok(item)
}

pub(super) fn append(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut list = items(machine, &arguments[0], "push")?.to_vec();
    list.push(arguments[1].clone());
    Ok(Value::list(list))
}

pub(super) fn prepend(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut list = vec![arguments[1].clone()];
    list.extend_from_slice(items(machine, &arguments[0], "prepend")?);
    Ok(Value::list(list))
}

pub(super) fn first(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let list = items(machine, &arguments[0], "find first")?;
    Ok(list.first().cloned().unwrap_or(Value::Null))
}

pub(super) fn last(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let list = items(machine, &arguments[0], "find last")?;
    Ok(list.last().cloned().unwrap_or(Value::Null))
}

fn part(list: &[Value]) -> Value {
    Value::list(list.to_vec())
}

pub(super) fn rest(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(match items(machine, &arguments[0], "find rest")? {
        [] => Value::List(List::of(Vec::new(), ListKind::Nil)),
        [_, rest @ ..] => part(rest),
    })
}

pub(super) fn initial(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(match items(machine, &arguments[0], "find initial")? {
        [] => Value::List(List::of(Vec::new(), ListKind::Nil)),
        [initial @ .., _] => part(initial),
    })
}

pub(super) fn reverse(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut list = items(machine, &arguments[0], "find reverse")?.to_vec();
    list.reverse();
    Ok(Value::list(list))
}

pub(super) fn compact(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let list = items(machine, &arguments[0], "compact")?;
    Ok(Value::list(
        list.iter()
            .filter(|item| !is_empty(item))
            .cloned()
            .collect(),
    ))
}

fn holds(machine: &mut Machine, list: &[Value], wanted: &Value) -> Evaluated<bool> {
    for item in list {
        if is_deeply_equal(machine, wanted, item, 0)? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn uniq(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut unique: Vec<Value> = Vec::new();
    for item in items(machine, &arguments[0], "find uniq")? {
        if !holds(machine, &unique, item)? {
            unique.push(item.clone());
        }
    }
    Ok(Value::list(unique))
}

pub(super) fn without(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut kept = Vec::new();
    for item in items(machine, &arguments[0], "find without")? {
        if !holds(machine, &arguments[1..], item)? {
            kept.push(item.clone());
        }
    }
    Ok(Value::list(kept))
}

pub(super) fn has(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    if arguments[1].is_null() {
        return Ok(Value::Bool(false));
    }
    let list = items(machine, &arguments[1], "find has")?;
    holds(machine, list, &arguments[0]).map(Value::Bool)
}

pub(super) fn slice(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    if let Value::Text(_) = &arguments[0] {
        return Err(Fault::new(
            "list should be type of slice or array but string",
        ));
    }
    let Value::List(whole) = &arguments[0] else {
        return Err(Fault::new(format!(
            "list should be type of slice or array but {}",
            arguments[0].kind_name()
        )));
    };
    let list = items(machine, &arguments[0], "slice")?;
    if list.is_empty() {
        return Ok(Value::Null);
    }
    let bound = |value: Option<&Value>, default: usize| match value {
        None => Ok(default),
        Some(value) => usize::try_from(super::math::to_integer(value))
            .map_err(|_| Fault::new("slice index out of bounds")),
    };
    let start = bound(arguments.get(1), 0)?;
    let end = bound(arguments.get(2), list.len())?;
    match list.get(start..end) {
        Some(part) => Ok(Value::List(List::of(part.to_vec(), whole.kind()))),
        None => Err(Fault::new("slice index out of bounds")),
    }
}

pub(super) fn concat(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut all = Vec::new();
    for list in arguments {
        let Value::List(list) = list else {
            return Err(Fault::new(format!(
                "Cannot concat type {} as list",
                list.kind_name()
            )));
        };
        machine.charge(list.items().len() * 32)?;
        all.extend_from_slice(list.items());
    }
    let kind = if all.is_empty() {
        ListKind::Nil
    } else {
        ListKind::Any
    };
    Ok(Value::List(List::of(all, kind)))
}

pub(super) fn chunk(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let list = items(machine, &arguments[1], "chunk")?;
    let Some(size) = usize::try_from(int_at(arguments, 0))
        .ok()
        .filter(|size| *size > 0)
    else {
        return Err(Fault::new("chunk needs a positive size"));
    };
    let chunks = list.chunks(size).map(part).collect();
    Ok(Value::List(List::of(chunks, ListKind::Lists)))
}

/// Text made of a list's numbers in order.
pub(super) fn ints(numbers: impl Iterator<Item = i64>) -> Value {
    let items = numbers
        .map(|number| Value::Int(number, IntKind::Int))
        .collect();
    Value::List(List::of(items, ListKind::Ints))
}

/// Bytes as the text Go makes of them.
pub(super) fn text_of_bytes(bytes: &[u8]) -> Value {
    Value::text(text_from_bytes(bytes))
}
