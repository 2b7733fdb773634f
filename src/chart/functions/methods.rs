//! Methods: what `.Files.Get`, `.Capabilities.APIVersions.Has` and the like call.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Native, data, encoding, strings, urls};
use crate::chart::glob::Glob;
use crate::chart::semver::Version;
use crate::chart::template::evaluate::{Evaluated, Fault, Machine};
use crate::chart::value::{IntKind, ListKind, MapKind, Object, Value, text_from_bytes};

/// A method; its first argument is the receiver, which `arity` does not count.
pub(in crate::chart) struct Method {
    pub(in crate::chart) arity: usize,
    pub(in crate::chart) native: Native,
}

const fn method(arity: usize, native: Native) -> Option<Method> {
    Some(Method { arity, native })
}

/// The method of that name, if the receiver has one.
pub(in crate::chart) fn find(receiver: &Value, name: &str) -> Option<Method> {
    match receiver {
        Value::List(list) if list.kind() == ListKind::Versions && name == "Has" => method(1, has),
        Value::Map(map) if map.kind() == MapKind::Values => match name {
            "AsMap" => method(0, |_, arguments| Ok(arguments[0].clone())),
            "YAML" => method(0, |machine, arguments| {
                let text = data::yaml_text(machine, &arguments[0])?;
                machine.text(text)
            }),
            _ => None,
        },
        Value::Object(object) => match (&**object, name) {
            (Object::Record(record), "String" | "GitVersion")
                if record.type_name == "chartutil.KubeVersion" =>
            {
                method(0, |machine, arguments| {
                    let mut text = String::new();
                    super::print::print(machine, &arguments[0], &mut text)?;
                    machine.text(text)
                })
            }
            (Object::Files(_), "Get") => method(1, get),
            (Object::Files(_), "GetBytes") => method(1, get_bytes),
            (Object::Files(_), "Glob") => method(1, glob),
            (Object::Files(_), "Lines") => method(1, lines),
            (Object::Files(_), "AsConfig") => method(0, as_config),
            (Object::Files(_), "AsSecrets") => method(0, as_secrets),
            (Object::Version(_), "Major") => method(0, |_, arguments| {
                with_version(arguments, |version| number(version.major))
            }),
            (Object::Version(_), "Minor") => method(0, |_, arguments| {
                with_version(arguments, |version| number(version.minor))
            }),
            (Object::Version(_), "Patch") => method(0, |_, arguments| {
                with_version(arguments, |version| number(version.patch))
            }),
            (Object::Version(_), "Prerelease") => method(0, |_, arguments| {
                with_version(arguments, |version| Value::text(&version.prerelease))
            }),
            (Object::Version(_), "Metadata") => method(0, |_, arguments| {
                with_version(arguments, |version| Value::text(&version.metadata))
            }),
            (Object::Version(_), "Original") => method(0, |_, arguments| {
                with_version(arguments, |version| Value::text(&version.original))
            }),
            (Object::Version(_), "String") => method(0, |_, arguments| {
                with_version(arguments, |version| Value::text(version.to_string()))
            }),
            (Object::Version(_), "Compare") => method(1, |_, arguments| {
                compared(arguments).map(|order| Value::int(order as i64))
            }),
            (Object::Version(_), "LessThan") => method(1, |_, arguments| {
                compared(arguments).map(|order| Value::Bool(order.is_lt()))
            }),
            (Object::Version(_), "GreaterThan") => method(1, |_, arguments| {
                compared(arguments).map(|order| Value::Bool(order.is_gt()))
            }),
            (Object::Version(_), "Equal") => method(1, |_, arguments| {
                compared(arguments).map(|order| Value::Bool(order.is_eq()))
            }),
            (Object::Time(_), "Unix") => method(0, |machine, arguments| {
                let text = super::dates::unix_epoch(machine, arguments)?;
                Ok(Value::int64(super::math::to_integer(&text)))
            }),
            (Object::Time(_), "Year") => method(0, |machine, arguments| {
                let year =
                    super::dates::date(machine, &[Value::text("2006"), arguments[0].clone()])?;
                let Value::Text(year) = year else {
                    return Ok(Value::Null);
                };
                Ok(Value::int(
                    super::math::parse_integer(&year, 10).unwrap_or(0),
                ))
            }),
            (Object::Time(_), "Format") => method(1, |machine, arguments| {
                let layout = super::check(arguments[1].clone(), b's')?;
                super::dates::date(machine, &[layout, arguments[0].clone()])
            }),
            (Object::Time(_) | Object::Duration(_), "String") => method(0, strings::to_string),
            (Object::Duration(_), "Seconds") => method(0, super::dates::duration_seconds),
            (Object::Duration(_), "Minutes") => method(0, super::dates::duration_minutes),
            (Object::Duration(_), "Hours") => method(0, super::dates::duration_hours),
            _ => None,
        },
        _ => None,
    }
}

fn number(number: u64) -> Value {
    Value::Int(number.cast_signed(), IntKind::Uint64)
}

fn with_version(arguments: &[Value], read: fn(&Version) -> Value) -> Evaluated<Value> {
    version(&arguments[0]).map(read)
}

fn version(value: &Value) -> Evaluated<&Version> {
    match value {
        Value::Object(object) => match &**object {
            Object::Version(version) => Ok(version),
            _ => Err(Fault::new("expected a version")),
        },
        _ => Err(Fault::new("expected a version")),
    }
}

fn compared(arguments: &[Value]) -> Evaluated<std::cmp::Ordering> {
    Ok(version(&arguments[0])?.compare(version(&arguments[1])?))
}

fn has(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let wanted = super::check(arguments[1].clone(), b's')?;
    let (Value::List(list), Value::Text(wanted)) = (&arguments[0], &wanted) else {
        return Ok(Value::Bool(false));
    };
    Ok(Value::Bool(list.items().iter().any(
        |item| matches!(item, Value::Text(text) if text == wanted),
    )))
}

type Files = BTreeMap<Rc<str>, Rc<[u8]>>;

fn files(arguments: &[Value]) -> &Files {
    match &arguments[0] {
        Value::Object(object) => match &**object {
            Object::Files(files) => files,
            _ => unreachable!("the receiver has been looked at"),
        },
        _ => unreachable!("the receiver has been looked at"),
    }
}

fn name(arguments: &[Value]) -> Evaluated<Rc<str>> {
    match super::check(arguments[1].clone(), b's')? {
        Value::Text(name) => Ok(name),
        _ => Ok(Rc::from("")),
    }
}

fn get(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    match files(arguments).get(&*name(arguments)?) {
        Some(bytes) => machine.text(text_from_bytes(bytes)),
        None => Ok(Value::text("")),
    }
}

fn get_bytes(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bytes(
        files(arguments)
            .get(&*name(arguments)?)
            .cloned()
            .unwrap_or_else(|| Rc::from([])),
    ))
}

fn glob(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let files = files(arguments);
    let pattern = name(arguments)?;
    machine.step(files.len().saturating_mul(pattern.len() + 1))?;
    let glob = Glob::files(&pattern);
    let found = files
        .iter()
        .filter(|(name, _)| glob.matches(name))
        .map(|(name, bytes)| (name.clone(), bytes.clone()))
        .collect();
    Ok(Value::object(Object::Files(found)))
}

fn lines(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let Some(bytes) = files(arguments).get(&*name(arguments)?) else {
        return Ok(Value::texts::<&str>([]));
    };
    machine.charge(bytes.len() * 2)?;
    let text = text_from_bytes(bytes);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Value::texts(text.split('\n')))
}

fn as_map(
    machine: &mut Machine,
    arguments: &[Value],
    convert: fn(&[u8]) -> String,
) -> Evaluated<Value> {
    let mut entries = BTreeMap::new();
    for (name, bytes) in files(arguments) {
        machine.charge(bytes.len() * 2)?;
        entries.insert(Rc::from(urls::last_part(name)), Value::text(convert(bytes)));
    }
    data::to_yaml(machine, &[Value::map(entries)])
}

fn as_config(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    as_map(machine, arguments, |bytes| {
        text_from_bytes(bytes).into_owned()
    })
}

fn as_secrets(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    as_map(machine, arguments, encoding::base64_encode)
}
