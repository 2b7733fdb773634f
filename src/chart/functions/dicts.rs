//! Dictionaries: maps that change in place.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{map_at, print, str_at};
use crate::chart::template::evaluate::{Evaluated, Fault, FaultKind, Machine, VALUE_DEPTH};
use crate::chart::value::{List, Map, MapKind, Object, Value};

/// The value of a key, or what the map's type has in its place.
pub(in crate::chart) fn entry(map: &Map, key: &str) -> Value {
    map.get(key).unwrap_or_else(|| match map.kind() {
        MapKind::Texts => Value::text(""),
        MapKind::Any | MapKind::Values => Value::Null,
    })
}

pub(super) fn dict(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.charge(64 + arguments.len() * 48)?;
    let mut entries = BTreeMap::new();
    for pair in arguments.chunks(2) {
        let key: Rc<str> = match &pair[0] {
            Value::Text(text) => text.clone(),
            other => Rc::from(super::strings::text_of(machine, other)?),
        };
        entries.insert(key, pair.get(1).cloned().unwrap_or_else(|| Value::text("")));
    }
    Ok(Value::map(entries))
}

pub(super) fn get(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(map_at(arguments, 0)
        .get(str_at(arguments, 1))
        .unwrap_or_else(|| Value::text("")))
}

pub(super) fn set(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let map = map_at(arguments, 0);
    machine.charge(64)?;
    map.insert(Rc::from(str_at(arguments, 1)), arguments[2].clone());
    if matches!(arguments[2], Value::Map(_) | Value::List(_)) {
        machine.watch(map)?;
    }
    Ok(arguments[0].clone())
}

pub(super) fn unset(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    map_at(arguments, 0).remove(str_at(arguments, 1));
    Ok(arguments[0].clone())
}

pub(super) fn has_key(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(
        map_at(arguments, 0).contains(str_at(arguments, 1)),
    ))
}

pub(super) fn pluck(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.charge(arguments.len() * 32)?;
    let key = str_at(arguments, 0);
    let found = (1..arguments.len())
        .filter_map(|index| map_at(arguments, index).get(key))
        .collect();
    Ok(Value::list(found))
}

pub(super) fn keys(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut keys = Vec::new();
    for index in 0..arguments.len() {
        let map = map_at(arguments, index);
        machine.charge(map.len() * 32)?;
        keys.extend(map.entries().into_iter().map(|(key, _)| key));
    }
    Ok(Value::texts(keys))
}

pub(super) fn values(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let map = map_at(arguments, 0);
    machine.charge(map.len() * 32)?;
    Ok(Value::list(
        map.entries().into_iter().map(|(_, value)| value).collect(),
    ))
}

pub(super) fn pick(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.charge(arguments.len() * 48)?;
    let map = map_at(arguments, 0);
    let picked = (1..arguments.len())
        .filter_map(|index| {
            let key = str_at(arguments, index);
            map.get(key).map(|value| (Rc::from(key), value))
        })
        .collect();
    Ok(Value::map(picked))
}

pub(super) fn omit(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let map = map_at(arguments, 0);
    machine.charge(map.len() * 48)?;
    machine.step(map.len().saturating_mul(arguments.len()))?;
    let kept = map
        .entries()
        .into_iter()
        .filter(|(key, _)| (1..arguments.len()).all(|index| str_at(arguments, index) != &**key))
        .collect();
    Ok(Value::map(kept))
}

/// Adds what is missing or empty (`merge`), or takes over whatever the source has (`mergeOverwrite`).
///
/// Maps on both sides are merged in turn. A null of the source counts only when overwriting. What is taken over as
/// a whole stays shared with its source, as in sprig.
fn merge_into(
    machine: &mut Machine,
    target: &Map,
    source: &Map,
    overwrite: bool,
    depth: usize,
) -> Evaluated<()> {
    if depth > VALUE_DEPTH {
        return Err(Fault::of(FaultKind::Limit, print::TOO_DEEP));
    }
    if target.is(source) {
        return Ok(());
    }
    machine.charge(source.len() * 48)?;
    for (key, theirs) in source.entries() {
        machine.step(1)?;
        if theirs.is_null() {
            if overwrite {
                target.insert(key, Value::Null);
            }
            continue;
        }
        let ours = target.get(&key);
        if let (Some(Value::Map(ours)), Value::Map(theirs)) = (&ours, &theirs) {
            merge_into(machine, ours, theirs, overwrite, depth + 1)?;
            if !ours.is_empty() {
                continue;
            }
        }
        if overwrite || ours.is_none_or(|ours| !ours.is_true()) {
            target.insert(key, theirs);
        }
    }
    machine.watch(target)
}

pub(super) fn merge(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    for index in 1..arguments.len() {
        merge_into(
            machine,
            map_at(arguments, 0),
            map_at(arguments, index),
            false,
            0,
        )?;
    }
    Ok(arguments[0].clone())
}

pub(super) fn merge_overwrite(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    for index in 1..arguments.len() {
        merge_into(
            machine,
            map_at(arguments, 0),
            map_at(arguments, index),
            true,
            0,
        )?;
    }
    Ok(arguments[0].clone())
}

pub(super) fn deep_copy(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    if arguments[0].is_null() {
        return Err(Fault::new(
            "reflect: call of reflect.Value.Type on zero Value",
        ));
    }
    copy(machine, &arguments[0], 0)
}

/// A value that shares no map with the original.
pub(in crate::chart) fn copy(
    machine: &mut Machine,
    value: &Value,
    depth: usize,
) -> Evaluated<Value> {
    if depth > VALUE_DEPTH {
        return Err(Fault::of(FaultKind::Limit, print::TOO_DEEP));
    }
    Ok(match value {
        Value::List(list) => {
            machine.charge(64 + list.items().len() * 32)?;
            let mut items = Vec::with_capacity(list.items().len());
            for item in list.items() {
                items.push(copy(machine, item, depth + 1)?);
            }
            Value::List(List::of(items, list.kind()))
        }
        Value::Map(map) => {
            machine.charge(64 + map.len() * 48)?;
            let mut entries = BTreeMap::new();
            for (key, item) in map.entries() {
                entries.insert(key, copy(machine, &item, depth + 1)?);
            }
            Value::Map(Map::of(entries, map.kind()))
        }
        other => other.clone(),
    })
}

pub(super) fn dig(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let [keys @ .., default, Value::Map(map)] = arguments else {
        return Err(Fault::new(
            "dig needs at least three arguments, the last a map",
        ));
    };
    if keys.is_empty() {
        return Err(Fault::new("dig needs at least three arguments"));
    }
    let mut map = map.clone();
    for (index, key) in keys.iter().enumerate() {
        let Value::Text(key) = key else {
            return Err(Fault::new(format!(
                "dig expects keys of type string, not {}",
                key.type_name()
            )));
        };
        match map.get(key) {
            None => return Ok(default.clone()),
            Some(value) if index + 1 == keys.len() => return Ok(value),
            Some(Value::Map(inner)) => map = inner,
            Some(other) => {
                return Err(Fault::new(format!(
                    "interface conversion: interface {{}} is {}, not map[string]interface {{}}",
                    other.type_name()
                )));
            }
        }
    }
    Ok(default.clone())
}

/// The entries of a value that is a map of some kind.
pub(super) fn entries_of(value: &Value) -> Option<Vec<(Rc<str>, Value)>> {
    match value {
        Value::Map(map) => Some(map.entries()),
        Value::Object(object) => match &**object {
            Object::Files(files) => Some(
                files
                    .iter()
                    .map(|(name, bytes)| (name.clone(), Value::Bytes(bytes.clone())))
                    .collect(),
            ),
            _ => None,
        },
        _ => None,
    }
}
