//! Texts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use super::{int_at, print, str_at};
use crate::chart::template::evaluate::{Evaluated, Fault, Machine};
use crate::chart::value::{Map, MapKind, Value, text_from_bytes, text_to_bytes};

/// A value as sprig's `toString` makes it.
pub(super) fn text_of(machine: &mut Machine, value: &Value) -> Evaluated<String> {
    match value {
        Value::Text(text) => {
            machine.charge(text.len())?;
            Ok(text.to_string())
        }
        Value::Bytes(bytes) => {
            machine.charge(bytes.len())?;
            Ok(text_from_bytes(bytes).into_owned())
        }
        other => print::shown(machine, other),
    }
}

/// A value as the list of texts sprig's `join` and `sortAlpha` work on: nils are left out.
fn texts_of(machine: &mut Machine, value: &Value) -> Evaluated<Vec<String>> {
    match value {
        Value::List(list) => {
            let mut texts = Vec::with_capacity(list.items().len());
            for item in list.items() {
                if !item.is_null() {
                    texts.push(text_of(machine, item)?);
                }
            }
            Ok(texts)
        }
        Value::Null | Value::NilElement => Ok(Vec::new()),
        other => Ok(vec![text_of(machine, other)?]),
    }
}

pub(super) fn hello(_: &mut Machine, _: &[Value]) -> Evaluated<Value> {
    Ok(Value::text("Hello!"))
}

pub(super) fn same(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(arguments[0].clone())
}

pub(super) fn print(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut text = String::new();
    for (index, argument) in arguments.iter().enumerate() {
        // Spaces stand between operands when neither is a text.
        let plain = |value: &Value| !matches!(value, Value::Text(_));
        if index > 0 && plain(argument) && plain(&arguments[index - 1]) {
            text.push(' ');
        }
        text.push_str(&print::shown(machine, argument)?);
    }
    machine.text(text)
}

pub(super) fn println(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut text = String::new();
    for (index, argument) in arguments.iter().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(&print::shown(machine, argument)?);
    }
    text.push('\n');
    machine.text(text)
}

pub(super) fn printf(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = print::sprintf(machine, str_at(arguments, 0), &arguments[1..])?;
    machine.text(text)
}

fn printed(machine: &mut Machine, arguments: &[Value]) -> Evaluated<String> {
    match print(machine, arguments)? {
        Value::Text(text) => Ok(text.to_string()),
        _ => Ok(String::new()),
    }
}

pub(super) fn html(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut escaped = String::new();
    for character in printed(machine, arguments)?.chars() {
        match character {
            '\0' => escaped.push('\u{fffd}'),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            _ => escaped.push(character),
        }
    }
    machine.text(escaped)
}

pub(super) fn js(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut escaped = String::new();
    for character in printed(machine, arguments)?.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\'' => escaped.push_str("\\'"),
            '"' => escaped.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\0'..='\u{1f}' => {
                let _ = write!(escaped, "\\u{:04X}", u32::from(character));
            }
            _ => escaped.push(character),
        }
    }
    machine.text(escaped)
}

pub(super) fn to_string(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = text_of(machine, &arguments[0])?;
    machine.text(text)
}

pub(super) fn to_strings(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    texts_of(machine, &arguments[0]).map(Value::texts)
}

pub(super) fn join(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let texts = texts_of(machine, &arguments[1])?;
    machine.charge(texts.len().saturating_mul(str_at(arguments, 0).len()))?;
    machine.text(texts.join(str_at(arguments, 0)))
}

pub(super) fn sort_alpha(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut texts = texts_of(machine, &arguments[0])?;
    machine.step(texts.len() * 4)?;
    texts.sort_unstable();
    Ok(Value::texts(texts))
}

/// Cuts a text at bytes, as Go does.
fn cut(text: &str, from: usize, to: usize) -> Value {
    if let Some(part) = text.get(from..to)
        && text_to_bytes(text).len() == text.len()
    {
        return Value::text(part);
    }
    let bytes = text_to_bytes(text);
    let to = to.min(bytes.len());
    Value::text(text_from_bytes(&bytes[from.min(to)..to]))
}

pub(super) fn trunc(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let (count, text) = (int_at(arguments, 0), str_at(arguments, 1));
    machine.charge(text.len())?;
    let length = text_to_bytes(text).len();
    let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if size >= length {
        return Ok(arguments[1].clone());
    }
    Ok(if count < 0 {
        cut(text, length - size, length)
    } else {
        cut(text, 0, size)
    })
}

pub(super) fn substr(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 2);
    machine.charge(text.len())?;
    let length = text_to_bytes(text).len();
    let bound = |number: i64| {
        usize::try_from(number)
            .ok()
            .filter(|number| *number <= length)
            .ok_or_else(|| Fault::new("slice bounds out of range"))
    };
    let (start, end) = (int_at(arguments, 0), int_at(arguments, 1));
    if start < 0 {
        return Ok(cut(text, 0, bound(end)?));
    }
    let start = bound(start)?;
    let end = usize::try_from(end)
        .ok()
        .filter(|end| *end <= length)
        .unwrap_or(length);
    if start > end {
        return Err(Fault::new("slice bounds out of range"));
    }
    Ok(cut(text, start, end))
}

pub(super) fn trim(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.text(str_at(arguments, 0).trim())
}

pub(super) fn upper(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.text(str_at(arguments, 0).to_uppercase())
}

pub(super) fn lower(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.text(str_at(arguments, 0).to_lowercase())
}

fn is_separator(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_alphanumeric() && character != '_';
    }
    !character.is_alphanumeric() && character.is_whitespace()
}

pub(super) fn title(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut titled = String::new();
    let mut previous = ' ';
    for character in str_at(arguments, 0).chars() {
        if is_separator(previous) {
            titled.extend(character.to_uppercase());
        } else {
            titled.push(character);
        }
        previous = character;
    }
    machine.text(titled)
}

pub(super) fn untitle(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut plain = String::new();
    let mut start = true;
    for character in str_at(arguments, 0).chars() {
        if character.is_whitespace() {
            start = true;
            plain.push(character);
        } else if start {
            plain.extend(character.to_lowercase());
            start = false;
        } else {
            plain.push(character);
        }
    }
    machine.text(plain)
}

pub(super) fn repeat(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let Ok(count) = usize::try_from(int_at(arguments, 0)) else {
        return Err(Fault::new("strings: negative Repeat count"));
    };
    let text = str_at(arguments, 1);
    machine.charge(text.len().saturating_mul(count))?;
    Ok(Value::text(text.repeat(count)))
}

pub(super) fn trim_all(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let set = str_at(arguments, 0);
    let text = str_at(arguments, 1);
    machine.step((set.len().saturating_mul(text.len())) / 64)?;
    machine.text(text.trim_matches(|character| set.contains(character)))
}

pub(super) fn trim_suffix(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 1);
    machine.text(text.strip_suffix(str_at(arguments, 0)).unwrap_or(text))
}

pub(super) fn trim_prefix(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 1);
    machine.text(text.strip_prefix(str_at(arguments, 0)).unwrap_or(text))
}

pub(super) fn nospace(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text: String = str_at(arguments, 0)
        .chars()
        .filter(|character| !character.is_whitespace())
        .collect();
    machine.text(text)
}

pub(super) fn initials(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text: String = str_at(arguments, 0)
        .split_whitespace()
        .filter_map(|word| word.chars().next())
        .collect();
    machine.text(text)
}

pub(super) fn swapcase(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut swapped = String::new();
    for character in str_at(arguments, 0).chars() {
        if character.is_uppercase() {
            swapped.extend(character.to_lowercase());
        } else if character.is_lowercase() {
            swapped.extend(character.to_uppercase());
        } else {
            swapped.push(character);
        }
    }
    machine.text(swapped)
}

/// The words of a name, split at case changes, digits and connectors.
fn words(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut words: Vec<String> = Vec::new();
    let mut current = String::new();
    for (index, &character) in characters.iter().enumerate() {
        if matches!(character, '_' | '-') || character.is_whitespace() {
            if !current.is_empty() {
                words.push(std::mem::take(&mut current));
            }
            continue;
        }
        let previous = index.checked_sub(1).map(|before| characters[before]);
        let next = characters.get(index + 1).copied();
        let starts = match previous {
            Some(previous) if character.is_uppercase() => {
                previous.is_lowercase()
                    || previous.is_numeric()
                    || (previous.is_uppercase() && next.is_some_and(char::is_lowercase))
            }
            _ => false,
        };
        if starts && !current.is_empty() {
            words.push(std::mem::take(&mut current));
        }
        current.push(character);
    }
    if !current.is_empty() {
        words.push(current);
    }
    words
}

fn connected(text: &str, connector: &str) -> String {
    words(text)
        .iter()
        .map(|word| word.to_lowercase())
        .collect::<Vec<_>>()
        .join(connector)
}

pub(super) fn snakecase(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.step(str_at(arguments, 0).len())?;
    machine.text(connected(str_at(arguments, 0), "_"))
}

pub(super) fn kebabcase(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.step(str_at(arguments, 0).len())?;
    machine.text(connected(str_at(arguments, 0), "-"))
}

pub(super) fn camelcase(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut text = String::new();
    for word in str_at(arguments, 0).split(['_', '-', ' ']) {
        let mut characters = word.chars();
        if let Some(first) = characters.next() {
            text.extend(first.to_uppercase());
            text.push_str(characters.as_str());
        }
    }
    machine.text(text)
}

/// Breaks lines at spaces before they get longer than `width`; longer words are cut where `cuts` says so.
fn wrapped(text: &str, width: i64, separator: &str, cuts: bool) -> String {
    let width = usize::try_from(width).unwrap_or(0).max(1);
    let characters: Vec<char> = text.chars().collect();
    let mut output = String::new();
    let mut offset = 0;
    while characters.len() - offset > width {
        if characters[offset] == ' ' {
            offset += 1;
            continue;
        }
        let end = offset + width + 1;
        let space = characters[offset..end.min(characters.len())]
            .iter()
            .rposition(|character| *character == ' ')
            .map(|at| at + offset);
        match space {
            Some(at) => {
                output.extend(&characters[offset..at]);
                output.push_str(separator);
                offset = at + 1;
            }
            None if cuts => {
                output.extend(&characters[offset..offset + width]);
                output.push_str(separator);
                offset += width;
            }
            None => {
                let end = offset + width;
                let space = characters[end..]
                    .iter()
                    .position(|character| *character == ' ')
                    .map(|at| at + end);
                let Some(at) = space else { break };
                output.extend(&characters[offset..at]);
                output.push_str(separator);
                offset = at + 1;
            }
        }
    }
    output.extend(&characters[offset..]);
    output
}

pub(super) fn wrap(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.charge(str_at(arguments, 1).len().saturating_mul(4))?;
    machine.text(wrapped(
        str_at(arguments, 1),
        int_at(arguments, 0),
        "\n",
        false,
    ))
}

pub(super) fn wrap_with(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let (separator, text) = (str_at(arguments, 1), str_at(arguments, 2));
    machine.charge(text.len().saturating_mul(4 + separator.len()))?;
    machine.text(wrapped(text, int_at(arguments, 0), separator, true))
}

pub(super) fn abbrev(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    abbreviated(machine, str_at(arguments, 1), 0, int_at(arguments, 0))
}

pub(super) fn abbrev_both(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let (left, right) = (int_at(arguments, 0), int_at(arguments, 1));
    if right < 4 || left > 0 && right < 7 {
        return Ok(arguments[2].clone());
    }
    abbreviated(machine, str_at(arguments, 2), left, right)
}

fn abbreviated(machine: &mut Machine, text: &str, offset: i64, width: i64) -> Evaluated<Value> {
    let bytes = text_to_bytes(text);
    machine.charge(bytes.len())?;
    let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    if width < 4 || length <= width {
        return Ok(Value::text(text));
    }
    let part = |from: i64, to: i64| {
        let at = |number: i64| usize::try_from(number.clamp(0, length)).unwrap_or(0);
        String::from_utf8_lossy(&bytes[at(from)..at(to).max(at(from))]).into_owned()
    };
    let mut offset = offset.min(length);
    if length - offset < width - 3 {
        offset = length - (width - 3);
    }
    if offset <= 4 {
        return machine.text(format!("{}...", part(0, width - 3)));
    }
    if width < 7 {
        return Ok(Value::text(text));
    }
    if offset + width - 3 < length {
        let rest = part(offset, offset + width - 6);
        return machine.text(format!("...{rest}..."));
    }
    machine.text(format!("...{}", part(length - (width - 3), length)))
}

pub(super) fn contains(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.step(str_at(arguments, 1).len() / 64)?;
    Ok(Value::Bool(
        str_at(arguments, 1).contains(str_at(arguments, 0)),
    ))
}

pub(super) fn has_prefix(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(
        str_at(arguments, 1).starts_with(str_at(arguments, 0)),
    ))
}

pub(super) fn has_suffix(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Bool(
        str_at(arguments, 1).ends_with(str_at(arguments, 0)),
    ))
}

pub(super) fn quote(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut quoted = Vec::new();
    for argument in arguments.iter().filter(|argument| !argument.is_null()) {
        let text = text_of(machine, argument)?;
        quoted.push(print::quote(&text));
    }
    machine.text(quoted.join(" "))
}

pub(super) fn squote(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut quoted = Vec::new();
    for argument in arguments.iter().filter(|argument| !argument.is_null()) {
        quoted.push(format!("'{}'", print::shown(machine, argument)?));
    }
    machine.text(quoted.join(" "))
}

pub(super) fn cat(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let mut words = Vec::new();
    for argument in arguments.iter().filter(|argument| !argument.is_null()) {
        words.push(print::shown(machine, argument)?);
    }
    machine.text(words.join(" "))
}

fn indented(machine: &mut Machine, arguments: &[Value]) -> Evaluated<String> {
    let Ok(spaces) = usize::try_from(int_at(arguments, 0)) else {
        return Err(Fault::new("strings: negative Repeat count"));
    };
    let text = str_at(arguments, 1);
    let lines = 1 + memchr::memchr_iter(b'\n', text.as_bytes()).count();
    machine.charge(text.len().saturating_add(lines.saturating_mul(spaces)))?;
    let padding = " ".repeat(spaces);
    Ok(format!(
        "{padding}{}",
        text.replace('\n', &format!("\n{padding}"))
    ))
}

pub(super) fn indent(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    indented(machine, arguments).map(Value::text)
}

pub(super) fn nindent(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::text(format!("\n{}", indented(machine, arguments)?)))
}

pub(super) fn replace(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let (old, new, text) = (
        str_at(arguments, 0),
        str_at(arguments, 1),
        str_at(arguments, 2),
    );
    let times = if old.is_empty() {
        text.len() + 1
    } else {
        text.matches(old).count()
    };
    machine.charge(text.len().saturating_add(times.saturating_mul(new.len())))?;
    Ok(Value::text(text.replace(old, new)))
}

pub(super) fn plural(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(arguments[usize::from(int_at(arguments, 2) != 1)].clone())
}

/// Go's `strings.SplitN`: an empty separator splits into characters.
fn pieces(text: &str, separator: &str, limit: Option<usize>) -> Vec<String> {
    if separator.is_empty() {
        let mut all: Vec<String> = text.chars().map(String::from).collect();
        if let Some(limit) = limit
            && all.len() > limit
            && limit > 0
        {
            let rest = all.split_off(limit - 1).concat();
            all.push(rest);
        }
        return all;
    }
    match limit {
        None => text.split(separator).map(str::to_owned).collect(),
        Some(0) => Vec::new(),
        Some(limit) => text.splitn(limit, separator).map(str::to_owned).collect(),
    }
}

fn numbered(pieces: Vec<String>) -> Value {
    let entries: BTreeMap<Rc<str>, Value> = pieces
        .into_iter()
        .enumerate()
        .map(|(index, piece)| (Rc::from(format!("_{index}")), Value::text(piece)))
        .collect();
    Value::Map(Map::of(entries, MapKind::Texts))
}

pub(super) fn split(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 1);
    let pieces = pieces(text, str_at(arguments, 0), None);
    machine.charge(text.len() + pieces.len() * 64)?;
    Ok(numbered(pieces))
}

pub(super) fn splitn(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 2);
    let limit = usize::try_from(int_at(arguments, 1)).ok();
    let pieces = pieces(text, str_at(arguments, 0), limit);
    machine.charge(text.len() + pieces.len() * 64)?;
    Ok(numbered(pieces))
}

pub(super) fn split_list(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 1);
    let pieces = pieces(text, str_at(arguments, 0), None);
    machine.charge(text.len() + pieces.len() * 64)?;
    Ok(Value::texts(pieces))
}
