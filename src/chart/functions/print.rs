//! Values as text: Go's `fmt` package, as far as `print`, `printf` and actions use it.

use std::fmt::Write as _;

use crate::chart::template::evaluate::{Evaluated, Fault, FaultKind, Machine, VALUE_DEPTH};
use crate::chart::value::{IntKind, Object, Value, stray_byte};

/// What is said of a value nested deeper than [`VALUE_DEPTH`].
pub(in crate::chart) const TOO_DEEP: &str = "a value contains itself or is nested too deep";

/// Widths and precisions beyond this are no formats of charts.
const WIDTH: usize = 10_000;

/// Writes a value as an action does: no value at all is `<no value>`.
pub(in crate::chart) fn print(
    machine: &mut Machine,
    value: &Value,
    output: &mut String,
) -> Evaluated<()> {
    if value.is_null() {
        output.push_str("<no value>");
        return Ok(());
    }
    show(machine, value, output, 0)
}

/// A value as `%v` writes it.
pub(in crate::chart) fn shown(machine: &mut Machine, value: &Value) -> Evaluated<String> {
    let mut output = String::new();
    show(machine, value, &mut output, 0)?;
    Ok(output)
}

fn show(machine: &mut Machine, value: &Value, output: &mut String, depth: usize) -> Evaluated<()> {
    machine.step(1)?;
    if depth > VALUE_DEPTH {
        return Err(Fault::of(FaultKind::Limit, TOO_DEEP));
    }
    match value {
        Value::Null | Value::NilElement => output.push_str("<nil>"),
        Value::Bool(truth) => output.push_str(if *truth { "true" } else { "false" }),
        Value::Int(number, kind) => output.push_str(&integer(*number, *kind)),
        Value::Float(number) => output.push_str(&shortest(*number, None)),
        Value::Text(text) => {
            if depth > 0 {
                machine.charge(text.len())?;
            }
            output.push_str(text);
        }
        Value::Bytes(bytes) => {
            machine.charge(bytes.len() * 4)?;
            output.push('[');
            for (index, byte) in bytes.iter().enumerate() {
                if index > 0 {
                    output.push(' ');
                }
                let _ = write!(output, "{byte}");
            }
            output.push(']');
        }
        Value::List(list) => {
            output.push('[');
            for (index, item) in list.items().iter().enumerate() {
                if index > 0 {
                    output.push(' ');
                }
                show(machine, item, output, depth + 1)?;
            }
            output.push(']');
        }
        Value::Map(map) => {
            output.push_str("map[");
            for (index, (key, item)) in map.entries().iter().enumerate() {
                if index > 0 {
                    output.push(' ');
                }
                output.push_str(key);
                output.push(':');
                show(machine, item, output, depth + 1)?;
            }
            output.push(']');
        }
        Value::Object(object) => match &**object {
            Object::Record(record) => {
                if let Some(text) = record.field("__string") {
                    return show(machine, text, output, depth);
                }
                if record.type_name.starts_with('*') {
                    output.push('&');
                }
                output.push('{');
                for (index, field) in record.fields.iter().enumerate() {
                    if index > 0 {
                        output.push(' ');
                    }
                    show(machine, &field.value, output, depth + 1)?;
                }
                output.push('}');
            }
            Object::Files(files) => {
                output.push_str("map[");
                for (index, (name, bytes)) in files.iter().enumerate() {
                    if index > 0 {
                        output.push(' ');
                    }
                    output.push_str(name);
                    output.push(':');
                    show(machine, &Value::Bytes(bytes.clone()), output, depth + 1)?;
                }
                output.push(']');
            }
            Object::Version(version) => output.push_str(&version.to_string()),
            Object::Time(nanoseconds) => output.push_str(&super::dates::format(
                "2006-01-02 15:04:05.999999999 -0700 MST",
                *nanoseconds,
            )),
            Object::Duration(nanoseconds) => {
                output.push_str(&super::dates::show_duration(*nanoseconds));
            }
        },
    }
    Ok(())
}

fn integer(number: i64, kind: IntKind) -> String {
    if kind == IntKind::Uint64 {
        number.cast_unsigned().to_string()
    } else {
        number.to_string()
    }
}

/// The start of a text, for messages.
pub(in crate::chart) fn shortened(text: &str) -> String {
    if text.chars().count() <= 80 {
        return text.to_owned();
    }
    let start: String = text.chars().take(80).collect();
    format!("{start}...")
}

/// The shortest digits of a float and where its decimal point is.
fn digits(float: f64, single: Option<f32>) -> (String, i32) {
    let text = match single {
        Some(single) => format!("{:e}", single.abs()),
        None => format!("{:e}", float.abs()),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (mantissa.replace('.', ""), exponent.parse().unwrap_or(0))
}

/// `strconv.FormatFloat(f, 'g', -1, bits)`, which is also `%v`.
pub(in crate::chart) fn shortest(float: f64, single: Option<f32>) -> String {
    if float.is_nan() {
        return "NaN".to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let (digits, exponent) = digits(float, single);
    let sign = if float.is_sign_negative() { "-" } else { "" };
    if float != 0.0 && !(-4..EXPONENT_FORM).contains(&exponent) {
        return format!("{sign}{}", exponential(&digits, exponent));
    }
    format!("{sign}{}", positional(&digits, exponent))
}

/// From this exponent on the shortest form is exponential.
const EXPONENT_FORM: i32 = 6;

/// `d.ddde±dd`
pub(super) fn exponential(digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}e{sign}{:02}", exponent.abs())
}

/// Digits with the point in its place.
pub(super) fn positional(digits: &str, exponent: i32) -> String {
    if exponent < 0 {
        let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
        return format!("0.{}{digits}", "0".repeat(zeros));
    }
    let whole = usize::try_from(exponent).unwrap_or(0) + 1;
    if digits.len() <= whole {
        format!("{digits}{}", "0".repeat(whole - digits.len()))
    } else {
        format!("{}.{}", &digits[..whole], &digits[whole..])
    }
}

/// The shortest digits and the exponent of a float's absolute value.
pub(super) fn shortest_digits(float: f64) -> (String, i32) {
    digits(float, None)
}

/// Whether Go calls a character printable: letters, marks, numbers, punctuation, symbols and the space.
fn is_printable(character: char) -> bool {
    use std::sync::OnceLock;
    static PRINTABLE: OnceLock<::regex::Regex> = OnceLock::new();
    if character.is_ascii() {
        return (' '..='~').contains(&character);
    }
    PRINTABLE
        .get_or_init(|| {
            ::regex::Regex::new(r"^[\p{L}\p{M}\p{N}\p{P}\p{S}]$").expect("the classes exist")
        })
        .is_match(character.encode_utf8(&mut [0; 4]))
}

/// `strconv.Quote`.
pub(in crate::chart) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        if let Some(byte) = stray_byte(character) {
            let _ = write!(quoted, "\\x{byte:02x}");
            continue;
        }
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            _ if is_printable(character) => quoted.push(character),
            _ => {
                let scalar = u32::from(character);
                let _ = if scalar < 0x80 {
                    write!(quoted, "\\x{scalar:02x}")
                } else if scalar <= 0xFFFF {
                    write!(quoted, "\\u{scalar:04x}")
                } else {
                    write!(quoted, "\\U{scalar:08x}")
                };
            }
        }
    }
    quoted.push('"');
    quoted
}

/// `strconv.Unquote`: a Go literal in double quotes, single quotes or back quotes.
pub(in crate::chart) fn unquote(quoted: &str) -> Option<String> {
    let quote = quoted.chars().next()?;
    if quoted.len() < 2 || !quoted.ends_with(quote) {
        return None;
    }
    let content = &quoted[1..quoted.len() - 1];
    if quote == '`' {
        return Some(content.replace('\r', ""));
    }
    let mut bytes = Vec::with_capacity(content.len());
    let mut characters = content.chars();
    while let Some(character) = characters.next() {
        if character == quote || character == '\n' {
            return None;
        }
        if character != '\\' {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = characters.next()?;
        let simple = match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            '\'' | '"' if escape == quote => u8::try_from(escape).ok()?,
            'x' | 'u' | 'U' => {
                let length = match escape {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let number: String = characters.by_ref().take(length).collect();
                if number.len() != length || !number.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                let scalar = u32::from_str_radix(&number, 16).ok()?;
                if escape == 'x' {
                    bytes.push(u8::try_from(scalar).ok()?);
                } else {
                    let character = char::from_u32(scalar)?;
                    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                continue;
            }
            '0'..='7' => {
                let mut number = String::from(escape);
                number.extend(characters.by_ref().take(2));
                if number.len() != 3 {
                    return None;
                }
                bytes.push(u8::from_str_radix(&number, 8).ok()?);
                continue;
            }
            _ => return None,
        };
        bytes.push(simple);
    }
    Some(crate::chart::value::text_from_bytes(&bytes).into_owned())
}

/// One directive of a format: its flags are independent of each other.
#[allow(clippy::struct_excessive_bools)]
#[derive(Default)]
struct Directive {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `fmt.Sprintf`.
pub(in crate::chart) fn sprintf(
    machine: &mut Machine,
    format: &str,
    arguments: &[Value],
) -> Evaluated<String> {
    let mut output = String::new();
    let mut rest = format.chars().peekable();
    let mut next = 0;
    let mut reordered = false;
    while let Some(character) = rest.next() {
        if character != '%' {
            output.push(character);
            continue;
        }
        let mut directive = Directive::default();
        while let Some(flag) = rest.peek() {
            match flag {
                '-' => directive.minus = true,
                '+' => directive.plus = true,
                '#' => directive.sharp = true,
                ' ' => directive.space = true,
                '0' => directive.zero = true,
                _ => break,
            }
            rest.next();
        }
        argument_index(&mut rest, &mut next, &mut reordered);
        directive.width =
            size(&mut rest, arguments, &mut next, &mut output, "%!(BADWIDTH)").map(|width| {
                if width < 0 {
                    directive.minus = true;
                }
                usize::try_from(width.unsigned_abs()).unwrap_or(WIDTH)
            });
        if rest.peek() == Some(&'.') {
            rest.next();
            argument_index(&mut rest, &mut next, &mut reordered);
            let precision = size(&mut rest, arguments, &mut next, &mut output, "%!(BADPREC)");
            directive.precision = Some(
                precision
                    .and_then(|precision| usize::try_from(precision).ok())
                    .unwrap_or(0),
            );
        }
        if directive.width.unwrap_or(0) > WIDTH || directive.precision.unwrap_or(0) > WIDTH {
            return Err(Fault::of(
                FaultKind::Limit,
                format!("a width or precision in {} is over {WIDTH}", quote(format)),
            ));
        }
        argument_index(&mut rest, &mut next, &mut reordered);
        let Some(verb) = rest.next() else {
            output.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            output.push('%');
            continue;
        }
        let Some(argument) = arguments.get(next) else {
            let _ = write!(output, "%!{verb}(MISSING)");
            // An index out of range is an error as well.
            continue;
        };
        next += 1;
        let start = output.len();
        formatted(machine, argument, verb, &directive, &mut output)?;
        machine.charge(output.len() - start)?;
    }
    if !reordered && next < arguments.len() {
        output.push_str("%!(EXTRA ");
        for (index, argument) in arguments[next..].iter().enumerate() {
            if index > 0 {
                output.push_str(", ");
            }
            if argument.is_null() {
                output.push_str("<nil>");
            } else {
                output.push_str(argument.type_name());
                output.push('=');
                show(machine, argument, &mut output, 0)?;
            }
        }
        output.push(')');
    }
    Ok(output)
}

type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// `[n]`: which argument comes next.
fn argument_index(rest: &mut Characters<'_>, next: &mut usize, reordered: &mut bool) {
    if rest.peek() != Some(&'[') {
        return;
    }
    let mut ahead = rest.clone();
    ahead.next();
    let number: String = ahead
        .by_ref()
        .take_while(|character| *character != ']')
        .take(6)
        .collect();
    if let Ok(number) = number.parse::<usize>()
        && number > 0
    {
        *next = number - 1;
        *reordered = true;
        *rest = ahead;
    }
}

/// A width or precision, written out or as `*`.
fn size(
    rest: &mut Characters<'_>,
    arguments: &[Value],
    next: &mut usize,
    output: &mut String,
    bad: &str,
) -> Option<i64> {
    if rest.peek() == Some(&'*') {
        rest.next();
        let argument = arguments.get(*next);
        *next += 1;
        if let Some(Value::Int(number, _)) = argument {
            return Some(*number);
        }
        output.push_str(bad);
        return None;
    }
    let mut number: Option<i64> = None;
    while let Some(digit) = rest.peek().and_then(|character| character.to_digit(10)) {
        rest.next();
        number = Some(
            number
                .unwrap_or(0)
                .saturating_mul(10)
                .saturating_add(i64::from(digit)),
        );
    }
    number
}

fn pad(text: &str, directive: &Directive, zeros: bool, output: &mut String) {
    let width = directive.width.unwrap_or(0);
    let missing = width.saturating_sub(text.chars().count());
    if missing == 0 {
        output.push_str(text);
    } else if directive.minus {
        output.push_str(text);
        output.extend(std::iter::repeat_n(' ', missing));
    } else if zeros && directive.zero {
        let (sign, digits) = match text.strip_prefix(['+', '-']) {
            Some(digits) => text.split_at(text.len() - digits.len()),
            None => ("", text),
        };
        output.push_str(sign);
        output.extend(std::iter::repeat_n('0', missing));
        output.push_str(digits);
    } else {
        output.extend(std::iter::repeat_n(' ', missing));
        output.push_str(text);
    }
}

fn formatted(
    machine: &mut Machine,
    argument: &Value,
    verb: char,
    directive: &Directive,
    output: &mut String,
) -> Evaluated<()> {
    if verb == 'T' {
        pad(argument.type_name(), directive, false, output);
        return Ok(());
    }
    let text = match (argument, verb) {
        (_, 'v') if directive.sharp => go_syntax(machine, argument)?,
        (Value::Null | Value::NilElement, 'v') => "<nil>".to_owned(),
        (Value::Null | Value::NilElement, _) => format!("%!{verb}(<nil>)"),
        (Value::Bool(truth), 't' | 'v') => truth.to_string(),
        (Value::Int(number, kind), _) => {
            if let Some(text) = format_integer(*number, *kind, verb, directive) {
                pad(&text, directive, verb != 'q' && verb != 'c', output);
                return Ok(());
            }
            return bad_verb(machine, argument, verb, output);
        }
        (Value::Float(float), _) => {
            if let Some(text) = format_float(*float, verb, directive) {
                pad(&text, directive, float.is_finite(), output);
                return Ok(());
            }
            return bad_verb(machine, argument, verb, output);
        }
        (Value::Text(text), _) => match format_text(text, verb, directive) {
            Some(text) => text,
            None => return bad_verb(machine, argument, verb, output),
        },
        (Value::Bytes(bytes), 's' | 'q' | 'x' | 'X') => {
            let text = crate::chart::value::text_from_bytes(bytes);
            format_text(&text, verb, directive).unwrap_or_default()
        }
        (Value::List(list), verb) if verb != 'v' && verb != 's' || has_texts(argument) => {
            output.push('[');
            for (index, item) in list.items().iter().enumerate() {
                if index > 0 {
                    output.push(' ');
                }
                machine.step(1)?;
                if output.len() > 1 << 24 {
                    return Err(Fault::of(FaultKind::Limit, TOO_DEEP));
                }
                nested(machine, item, verb, directive, output)?;
            }
            output.push(']');
            return Ok(());
        }
        (_, 'v') | (Value::List(_), 's') => shown(machine, argument)?,
        (Value::Object(object), 's' | 'q') if !matches!(**object, Object::Files(_)) => {
            let text = shown(machine, argument)?;
            format_text(&text, verb, directive).unwrap_or_default()
        }
        (Value::Map(map), _) => {
            output.push_str("map[");
            for (index, (key, item)) in map.entries().iter().enumerate() {
                if index > 0 {
                    output.push(' ');
                }
                machine.step(1)?;
                output.push_str(
                    &format_text(key, verb, directive)
                        .unwrap_or_else(|| format!("%!{verb}(string={key})")),
                );
                output.push(':');
                nested(machine, item, verb, directive, output)?;
            }
            output.push(']');
            return Ok(());
        }
        _ => return bad_verb(machine, argument, verb, output),
    };
    pad(&text, directive, false, output);
    Ok(())
}

/// Formats what is inside of a list or map. Deeper nesting is written as `%v` would.
fn nested(
    machine: &mut Machine,
    item: &Value,
    verb: char,
    directive: &Directive,
    output: &mut String,
) -> Evaluated<()> {
    match item {
        Value::List(_) | Value::Map(_) => show(machine, item, output, 1),
        _ => formatted(machine, item, verb, directive, output),
    }
}

fn has_texts(value: &Value) -> bool {
    matches!(value, Value::List(list) if list.items().iter().any(|item| !matches!(item, Value::Text(_))))
}

fn bad_verb(
    machine: &mut Machine,
    argument: &Value,
    verb: char,
    output: &mut String,
) -> Evaluated<()> {
    let _ = write!(output, "%!{verb}({}=", argument.type_name());
    show(machine, argument, output, 0)?;
    output.push(')');
    Ok(())
}

fn format_text(text: &str, verb: char, directive: &Directive) -> Option<String> {
    let cut = |text: &str| match directive.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    };
    Some(match verb {
        's' | 'v' => cut(text),
        'q' => {
            let text = cut(text);
            if directive.sharp && !text.contains('`') && !text.contains(char::is_control) {
                format!("`{text}`")
            } else {
                quote(&text)
            }
        }
        'x' | 'X' => {
            let mut hexadecimal = String::new();
            for byte in crate::chart::value::text_to_bytes(text).iter() {
                let _ = if verb == 'x' {
                    write!(hexadecimal, "{byte:02x}")
                } else {
                    write!(hexadecimal, "{byte:02X}")
                };
            }
            hexadecimal
        }
        _ => return None,
    })
}

fn format_integer(number: i64, kind: IntKind, verb: char, directive: &Directive) -> Option<String> {
    let magnitude = if kind == IntKind::Uint64 {
        number.cast_unsigned()
    } else {
        number.unsigned_abs()
    };
    let mut digits = match verb {
        'd' | 'v' => magnitude.to_string(),
        'b' => format!("{magnitude:b}"),
        'o' | 'O' => format!("{magnitude:o}"),
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        'c' => {
            let character = u32::try_from(magnitude).ok().and_then(char::from_u32);
            return Some(character.unwrap_or(char::REPLACEMENT_CHARACTER).to_string());
        }
        'q' => {
            let character = u32::try_from(magnitude).ok().and_then(char::from_u32);
            let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
            return Some(match character {
                '\'' => "'\\''".to_owned(),
                '"' => "'\"'".to_owned(),
                _ => {
                    let quoted = quote(character.encode_utf8(&mut [0; 4]));
                    format!("'{}'", &quoted[1..quoted.len() - 1])
                }
            });
        }
        'U' => return Some(format!("U+{magnitude:04X}")),
        _ => return None,
    };
    if let Some(precision) = directive.precision {
        let missing = precision.saturating_sub(digits.len());
        digits = format!("{}{digits}", "0".repeat(missing));
    }
    if directive.sharp || verb == 'O' {
        match verb {
            'b' => digits = format!("0b{digits}"),
            'o' => digits = format!("0{digits}"),
            'O' => digits = format!("0o{digits}"),
            'x' => digits = format!("0x{digits}"),
            'X' => digits = format!("0X{digits}"),
            _ => {}
        }
    }
    let negative = number < 0 && kind != IntKind::Uint64;
    let sign = if negative {
        "-"
    } else if directive.plus {
        "+"
    } else if directive.space {
        " "
    } else {
        ""
    };
    Some(format!("{sign}{digits}"))
}

fn format_float(float: f64, verb: char, directive: &Directive) -> Option<String> {
    let magnitude = float.abs();
    if !float.is_finite() {
        if !matches!(verb, 'v' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G') {
            return None;
        }
        let text = shortest(float, None);
        if directive.plus {
            return Some(text);
        }
        return Some(text.trim_start_matches('+').to_owned());
    }
    let text = match verb {
        'f' | 'F' => format!("{magnitude:.*}", directive.precision.unwrap_or(6)),
        'e' | 'E' => {
            let text = format!("{magnitude:.*e}", directive.precision.unwrap_or(6));
            let (mantissa, exponent) = text.split_once('e')?;
            let exponent: i32 = exponent.parse().ok()?;
            let sign = if exponent < 0 { '-' } else { '+' };
            let text = format!("{mantissa}e{sign}{:02}", exponent.abs());
            if verb == 'E' {
                text.to_uppercase()
            } else {
                text
            }
        }
        'g' | 'G' | 'v' => {
            let text = match directive.precision {
                None => shortest(magnitude, None),
                Some(precision) => rounded(magnitude, precision.max(1)),
            };
            if verb == 'G' {
                text.to_uppercase()
            } else {
                text
            }
        }
        _ => return None,
    };
    let sign = if float.is_sign_negative() {
        "-"
    } else if directive.plus {
        "+"
    } else if directive.space {
        " "
    } else {
        ""
    };
    Some(format!("{sign}{text}"))
}

/// `%.{precision}g`.
fn rounded(magnitude: f64, precision: usize) -> String {
    let text = format!("{magnitude:.*e}", precision - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.replace('.', "");
    let digits = match digits.trim_end_matches('0') {
        "" => "0",
        digits => digits,
    };
    let limit = i32::try_from(precision).unwrap_or(i32::MAX);
    let limit = if limit > i32::try_from(digits.len()).unwrap_or(0)
        && i32::try_from(digits.len()).unwrap_or(0) > exponent
    {
        i32::try_from(digits.len()).unwrap_or(0)
    } else {
        limit
    };
    if exponent < -4 || exponent >= limit {
        exponential(digits, exponent)
    } else {
        positional(digits, exponent)
    }
}

/// `%#v`, for what charts print that way.
fn go_syntax(machine: &mut Machine, value: &Value) -> Evaluated<String> {
    Ok(match value {
        Value::Text(text) => quote(text),
        Value::Null | Value::NilElement => "<nil>".to_owned(),
        _ => shown(machine, value)?,
    })
}
