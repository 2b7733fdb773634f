//! Paths and URLs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use super::{map_at, str_at};
use crate::chart::template::evaluate::{Evaluated, Fault, Machine};
use crate::chart::value::{Value, text_to_bytes};

/// Go's `path.Clean`.
pub(in crate::chart) fn cleaned(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Go's `path.Base`.
pub(super) fn last_part(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

pub(super) fn base(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.text(last_part(str_at(arguments, 0)))
}

pub(super) fn dir(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let path = str_at(arguments, 0);
    let parent = path.rfind('/').map_or("", |at| &path[..=at]);
    machine.text(cleaned(parent))
}

pub(super) fn clean(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.step(str_at(arguments, 0).len())?;
    machine.text(cleaned(str_at(arguments, 0)))
}

pub(super) fn ext(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let name = str_at(arguments, 0).rsplit('/').next().unwrap_or("");
    machine.text(name.rfind('.').map_or("", |at| &name[at..]))
}

pub(super) fn is_abs(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(str_at(arguments, 0).starts_with('/')))
}

pub(super) fn urlquery(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let printed = super::strings::print(machine, arguments)?;
    let Value::Text(text) = printed else {
        return Ok(printed);
    };
    let mut escaped = String::new();
    for byte in text_to_bytes(&text).iter() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(*byte));
            }
            b' ' => escaped.push('+'),
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    machine.text(escaped)
}

/// Turns `%41` into `A`.
fn unescaped(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let hexadecimal = text.get(at + 1..at + 3)?;
            plain.push(u8::from_str_radix(hexadecimal, 16).ok()?);
            at += 3;
        } else {
            plain.push(bytes[at]);
            at += 1;
        }
    }
    Some(crate::chart::value::text_from_bytes(&plain).into_owned())
}

fn escaped_path(path: &str) -> String {
    let mut escaped = String::new();
    for byte in text_to_bytes(path).iter() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b'$'
            | b'&'
            | b'+'
            | b','
            | b'/'
            | b':'
            | b';'
            | b'='
            | b'@'
            | b'!'
            | b'\''
            | b'('
            | b')'
            | b'*' => escaped.push(char::from(*byte)),
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

pub(super) fn url_parse(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let whole = str_at(arguments, 0);
    machine.charge(whole.len() * 8 + 512)?;
    let malformed = || Fault::new(format!("unable to parse url: parse {whole:?}"));
    if whole.contains(|character: char| character.is_ascii_control()) {
        return Err(malformed());
    }
    let (rest, fragment) = whole.split_once('#').unwrap_or((whole, ""));
    let scheme_end = rest.find(':').filter(|at| {
        rest.starts_with(|c: char| c.is_ascii_alphabetic())
            && rest[..*at]
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    let (scheme, rest) = match scheme_end {
        Some(at) => (rest[..at].to_lowercase(), &rest[at + 1..]),
        None if rest.starts_with(':') => return Err(malformed()),
        None => (String::new(), rest),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let first = rest.split('/').next().unwrap_or("");
    if scheme.is_empty() && first.contains(':') {
        return Err(malformed());
    }
    let (mut opaque, mut authority, mut path) = ("", "", rest);
    if !scheme.is_empty() && !rest.starts_with('/') {
        (opaque, path) = (rest, "");
    } else if let Some(after) = rest.strip_prefix("//") {
        let end = after.find('/').unwrap_or(after.len());
        (authority, path) = after.split_at(end);
    }
    let (userinfo, host) = match authority.rsplit_once('@') {
        Some((userinfo, host)) => (userinfo, host),
        None => ("", authority),
    };
    let hostname = if let Some(end) = host.find(']') {
        host[..end].trim_start_matches('[')
    } else {
        host.split(':').next().unwrap_or(host)
    };
    let mut entries: BTreeMap<Rc<str>, Value> = BTreeMap::new();
    let path = unescaped(path).ok_or_else(malformed)?;
    let fragment = unescaped(fragment).ok_or_else(malformed)?;
    for (key, value) in [
        ("scheme", scheme.as_str()),
        ("host", host),
        ("hostname", hostname),
        ("path", &path),
        ("query", query),
        ("opaque", opaque),
        ("fragment", &fragment),
        ("userinfo", userinfo),
    ] {
        entries.insert(Rc::from(key), Value::text(value));
    }
    Ok(Value::map(entries))
}

pub(super) fn url_join(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let parts = map_at(arguments, 0);
    let part = |key: &str| match parts.get(key) {
        None => Ok(String::new()),
        Some(Value::Text(text)) => Ok(text.to_string()),
        Some(other) => Err(Fault::new(format!(
            "unable to parse {key} key, must be of type string, but {} found",
            other.kind_name()
        ))),
    };
    let (scheme, host, path) = (part("scheme")?, part("host")?, part("path")?);
    let (opaque, userinfo) = (part("opaque")?, part("userinfo")?);
    let (query, fragment) = (part("query")?, part("fragment")?);
    let mut url = String::new();
    if !scheme.is_empty() {
        url.push_str(&scheme);
        url.push(':');
    }
    if opaque.is_empty() {
        if !scheme.is_empty() || !host.is_empty() || !userinfo.is_empty() {
            if !host.is_empty() || !path.is_empty() || !userinfo.is_empty() {
                url.push_str("//");
            }
            if !userinfo.is_empty() {
                url.push_str(&userinfo);
                url.push('@');
            }
            url.push_str(&host);
        }
        let path = escaped_path(&path);
        if !path.is_empty() && !path.starts_with('/') && !host.is_empty() {
            url.push('/');
        }
        url.push_str(&path);
    } else {
        url.push_str(&opaque);
    }
    if !query.is_empty() {
        url.push('?');
        url.push_str(&query);
    }
    if !fragment.is_empty() {
        url.push('#');
        url.push_str(&escaped_path(&fragment));
    }
    machine.text(url)
}
