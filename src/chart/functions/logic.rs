//! Truth, comparison, defaults, types, and the functions that run templates.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{print, str_at};
use crate::chart::semver::{Constraint, Version};
use crate::chart::template::evaluate::{Evaluated, Fault, FaultKind, Machine, VALUE_DEPTH};
use crate::chart::value::{IntKind, Object, Value};

/// `and` and `or` are evaluated by the machine; this is what they are declared with.
pub(super) fn last(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(arguments.last().cloned().unwrap_or(Value::Null))
}

pub(super) fn not(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(!arguments[0].is_true()))
}

/// What Go calls the basic kind of a value.
#[derive(PartialEq, Eq)]
enum Basic {
    None,
    Bool,
    Int,
    Uint,
    Float,
    Text,
}

fn basic(value: &Value) -> Basic {
    match value {
        Value::Bool(_) => Basic::Bool,
        Value::Int(_, IntKind::Uint64) => Basic::Uint,
        Value::Int(..) => Basic::Int,
        Value::Float(_) => Basic::Float,
        Value::Text(_) => Basic::Text,
        Value::Object(object) if matches!(**object, Object::Duration(_)) => Basic::Int,
        _ => Basic::None,
    }
}

fn integer(value: &Value) -> i64 {
    match value {
        Value::Int(number, _) => *number,
        Value::Object(object) => match &**object {
            Object::Duration(nanoseconds) => *nanoseconds,
            _ => 0,
        },
        _ => 0,
    }
}

fn incompatible<T>(left: &Value, right: &Value) -> Evaluated<T> {
    Err(Fault::new(format!(
        "incompatible types for comparison: {} and {}",
        left.type_name(),
        right.type_name()
    )))
}

fn equal(left: &Value, right: &Value) -> Evaluated<bool> {
    let (left_kind, right_kind) = (basic(left), basic(right));
    if left_kind != right_kind {
        return match (left_kind, right_kind) {
            (Basic::Int, Basic::Uint) | (Basic::Uint, Basic::Int) => {
                Ok(integer(left) == integer(right))
            }
            _ if left.is_null() || right.is_null() => Ok(false),
            _ => incompatible(left, right),
        };
    }
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        #[allow(clippy::float_cmp)]
        (Value::Float(left), Value::Float(right)) => Ok(left == right),
        (Value::Text(left), Value::Text(right)) => Ok(left == right),
        _ if left_kind == Basic::Int || left_kind == Basic::Uint => {
            Ok(integer(left) == integer(right))
        }
        _ if left.is_null() || right.is_null() => Ok(left.is_null() == right.is_null()),
        _ => Err(Fault::new(format!(
            "non-comparable type {}",
            right.type_name()
        ))),
    }
}

pub(super) fn eq(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    if arguments.len() < 2 {
        return Err(Fault::new("missing argument for comparison"));
    }
    for other in &arguments[1..] {
        if equal(&arguments[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

pub(super) fn ne(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(!equal(&arguments[0], &arguments[1])?))
}

fn compare(left: &Value, right: &Value) -> Evaluated<Option<Ordering>> {
    let (left_kind, right_kind) = (basic(left), basic(right));
    if left_kind == Basic::None || right_kind == Basic::None {
        return Err(Fault::new("invalid type for comparison"));
    }
    match (left, right) {
        (Value::Float(left), Value::Float(right)) => Ok(left.partial_cmp(right)),
        (Value::Text(left), Value::Text(right)) => Ok(Some(left.cmp(right))),
        _ if matches!(left_kind, Basic::Int | Basic::Uint)
            && matches!(right_kind, Basic::Int | Basic::Uint) =>
        {
            Ok(Some(integer(left).cmp(&integer(right))))
        }
        (Value::Bool(_), Value::Bool(_)) => Err(Fault::new("invalid type for comparison")),
        _ => incompatible(left, right),
    }
}

pub(super) fn lt(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let order = compare(&arguments[0], &arguments[1])?;
    Ok(Value::Bool(order == Some(Ordering::Less)))
}

pub(super) fn le(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let order = compare(&arguments[0], &arguments[1])?;
    Ok(Value::Bool(matches!(
        order,
        Some(Ordering::Less | Ordering::Equal)
    )))
}

pub(super) fn gt(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let order = compare(&arguments[0], &arguments[1])?;
    Ok(Value::Bool(!matches!(
        order,
        Some(Ordering::Less | Ordering::Equal)
    )))
}

pub(super) fn ge(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let order = compare(&arguments[0], &arguments[1])?;
    Ok(Value::Bool(order != Some(Ordering::Less)))
}

pub(super) fn call(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Err(Fault::new(format!(
        "non-function of type {}",
        arguments[0].type_name()
    )))
}

fn text_argument(arguments: &[Value], index: usize) -> Rc<str> {
    match &arguments[index] {
        Value::Text(text) => text.clone(),
        _ => Rc::from(""),
    }
}

pub(super) fn include(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let name = text_argument(arguments, 0);
    let output = machine.include(&name, &arguments[1])?;
    machine.text(output)
}

pub(super) fn tpl(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = text_argument(arguments, 0);
    let output = machine.tpl(&text, &arguments[1])?;
    machine.text(output)
}

pub(super) fn required(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let missing = match &arguments[1] {
        Value::Null => true,
        Value::Text(text) => text.is_empty(),
        _ => false,
    };
    if missing {
        return Err(Fault::of(FaultKind::Refused, str_at(arguments, 0)));
    }
    Ok(arguments[1].clone())
}

pub(super) fn fail(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Err(Fault::of(FaultKind::Refused, str_at(arguments, 0)))
}

pub(super) fn lookup(_: &mut Machine, _: &[Value]) -> Evaluated<Value> {
    Ok(Value::map(BTreeMap::new()))
}

/// What sprig calls empty. It is not the opposite of truth only for structs that are pointers, which no chart has.
pub(super) fn is_empty(value: &Value) -> bool {
    !value.is_true()
}

pub(super) fn default(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(match arguments.get(1) {
        Some(given) if !is_empty(given) => given.clone(),
        _ => arguments[0].clone(),
    })
}

pub(super) fn empty(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(is_empty(&arguments[0])))
}

pub(super) fn coalesce(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(arguments
        .iter()
        .find(|value| !is_empty(value))
        .cloned()
        .unwrap_or(Value::Null))
}

pub(super) fn all(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(!arguments.iter().any(is_empty)))
}

pub(super) fn any(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(arguments.iter().any(|value| !is_empty(value))))
}

pub(super) fn ternary(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(arguments[usize::from(!arguments[2].is_true())].clone())
}

pub(super) fn type_of(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::text(arguments[0].type_name()))
}

pub(super) fn type_is(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(
        str_at(arguments, 0) == arguments[1].type_name(),
    ))
}

pub(super) fn type_is_like(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let (wanted, found) = (str_at(arguments, 0), arguments[1].type_name());
    Ok(Value::Bool(
        wanted == found || found.strip_prefix('*') == Some(wanted),
    ))
}

pub(super) fn kind_of(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::text(arguments[0].kind_name()))
}

pub(super) fn kind_is(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(
        str_at(arguments, 0) == arguments[1].kind_name(),
    ))
}

pub(super) fn deep_equal(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    is_deeply_equal(machine, &arguments[0], &arguments[1], 0).map(Value::Bool)
}

/// Go's `reflect.DeepEqual`: equal types all the way down.
pub(super) fn is_deeply_equal(
    machine: &mut Machine,
    left: &Value,
    right: &Value,
    depth: usize,
) -> Evaluated<bool> {
    machine.step(1)?;
    if depth > VALUE_DEPTH {
        return Err(Fault::of(FaultKind::Limit, print::TOO_DEEP));
    }
    if left.type_name() != right.type_name() {
        return Ok(false);
    }
    match (left, right) {
        (Value::List(left), Value::List(right)) => {
            if left.items().len() != right.items().len() {
                return Ok(false);
            }
            for (left, right) in left.items().iter().zip(right.items()) {
                if !is_deeply_equal(machine, left, right, depth + 1)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Map(left), Value::Map(right)) => {
            if left.is(right) {
                return Ok(true);
            }
            if left.len() != right.len() {
                return Ok(false);
            }
            for ((left_key, left), (right_key, right)) in
                left.entries().iter().zip(right.entries().iter())
            {
                if left_key != right_key || !is_deeply_equal(machine, left, right, depth + 1)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Bytes(left), Value::Bytes(right)) => Ok(left == right),
        (Value::Object(left), Value::Object(right)) => Ok(match (&**left, &**right) {
            (Object::Time(left), Object::Time(right)) => left == right,
            (Object::Duration(left), Object::Duration(right)) => left == right,
            (Object::Version(left), Object::Version(right)) => {
                left.to_string() == right.to_string()
            }
            _ => Rc::ptr_eq(left, right),
        }),
        (Value::Null | Value::NilElement, Value::Null | Value::NilElement) => Ok(true),
        _ => equal(left, right),
    }
}

pub(super) fn semver(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Version::parse(str_at(arguments, 0))
        .map(|version| Value::object(Object::Version(version)))
        .map_err(|error| Fault::new(error.to_string()))
}

pub(super) fn semver_compare(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.step(str_at(arguments, 0).len())?;
    let constraint =
        Constraint::parse(str_at(arguments, 0)).map_err(|error| Fault::new(error.to_string()))?;
    let version =
        Version::parse(str_at(arguments, 1)).map_err(|error| Fault::new(error.to_string()))?;
    Ok(Value::Bool(constraint.check(&version)))
}
