//! Numbers.

use super::{int_at, lists, str_at};
use crate::chart::template::evaluate::{Evaluated, Fault, Machine};
use crate::chart::value::{IntKind, Object, Value};

/// `strconv.ParseInt` for 64 bits; base 0 takes prefixes and underscores.
pub(in crate::chart) fn parse_integer(text: &str, base: u32) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if base != 0 {
        (base, lower.as_str())
    } else if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    let clean;
    let digits = if base == 0 && digits.contains('_') {
        clean = digits.replace('_', "");
        clean.as_str()
    } else {
        digits
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        0_i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// The float of `0x1p-2` and the like.
#[allow(clippy::cast_precision_loss)]
fn parse_hexadecimal_float(text: &str) -> Option<f64> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = unsigned.to_ascii_lowercase().replace('_', "");
    let (mantissa, exponent) = lower.strip_prefix("0x")?.split_once('p')?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    // More digits would need rounding; no chart writes them.
    if digits.is_empty() || digits.len() > 13 {
        return None;
    }
    let magnitude = u64::from_str_radix(&digits, 16).ok()? as f64;
    let exponent: i32 = exponent.parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()? * 4;
    let float = sign * magnitude * 2_f64.powi(exponent.clamp(-2000, 2000) - places);
    float.is_finite().then_some(float)
}

/// `strconv.ParseFloat`.
pub(in crate::chart) fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned.to_ascii_lowercase().as_str() {
        "inf" | "infinity" | "nan" => return text.parse().ok(),
        _ => {}
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if unsigned.starts_with("0x") || unsigned.starts_with("0X") {
        return parse_hexadecimal_float(text);
    }
    text.replace('_', "")
        .parse()
        .ok()
        .filter(|float: &f64| float.is_finite())
}

/// Sprig's `toInt64`: what cannot be one is zero.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn to_integer(value: &Value) -> i64 {
    match value {
        Value::Int(number, _) => *number,
        Value::Float(float) => *float as i64,
        Value::Bool(truth) => i64::from(*truth),
        Value::Text(text) => {
            let text = trim_zero_decimal(text);
            parse_integer(text, 0).unwrap_or(0)
        }
        Value::Object(object) => match &**object {
            Object::Duration(nanoseconds) => *nanoseconds,
            _ => 0,
        },
        _ => 0,
    }
}

/// `1.00` is an integer, `1.50` is none.
fn trim_zero_decimal(text: &str) -> &str {
    match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => {
            whole
        }
        _ => text,
    }
}

/// Sprig's `toFloat64`: what cannot be one is zero.
#[allow(clippy::cast_precision_loss)]
pub(super) fn to_float(value: &Value) -> f64 {
    match value {
        Value::Int(number, IntKind::Uint64) => number.cast_unsigned() as f64,
        Value::Int(number, _) => *number as f64,
        Value::Float(float) => *float,
        Value::Bool(truth) => f64::from(u8::from(*truth)),
        Value::Text(text) => parse_float(text).unwrap_or(0.0),
        _ => 0.0,
    }
}

pub(super) fn atoi(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let number = parse_integer(str_at(arguments, 0), 10).unwrap_or(0);
    Ok(Value::int(number))
}

pub(super) fn int64(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::int64(to_integer(&arguments[0])))
}

pub(super) fn int(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::int(to_integer(&arguments[0])))
}

pub(super) fn float64(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Float(to_float(&arguments[0])))
}

pub(super) fn to_decimal(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = super::print::shown(machine, &arguments[0])?;
    Ok(Value::int64(parse_integer(&text, 8).unwrap_or(0)))
}

/// Numbers from `start` to before `end`.
fn steps(machine: &mut Machine, start: i64, end: i64, step: i64) -> Evaluated<Vec<i64>> {
    let mut numbers = Vec::new();
    if (end < start && step >= 0) || (end >= start && step <= 0) {
        return Ok(numbers);
    }
    let mut number = start;
    while (step > 0 && number < end) || (step < 0 && number > end) {
        machine.charge(32)?;
        numbers.push(number);
        match number.checked_add(step) {
            Some(next) => number = next,
            None => break,
        }
    }
    Ok(numbers)
}

pub(super) fn until(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let count = int_at(arguments, 0);
    let step = if count < 0 { -1 } else { 1 };
    Ok(lists::ints(steps(machine, 0, count, step)?.into_iter()))
}

pub(super) fn until_step(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let numbers = steps(
        machine,
        int_at(arguments, 0),
        int_at(arguments, 1),
        int_at(arguments, 2),
    )?;
    Ok(lists::ints(numbers.into_iter()))
}

pub(super) fn seq(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let at = |index| int_at(arguments, index);
    let direction = |start: i64, end: i64| if end < start { -1 } else { 1 };
    let numbers = match arguments.len() {
        1 => {
            let step = direction(1, at(0));
            steps(machine, 1, at(0).saturating_add(step), step)?
        }
        2 => {
            let step = direction(at(0), at(1));
            steps(machine, at(0), at(1).saturating_add(step), step)?
        }
        3 => {
            let direction = direction(at(0), at(2));
            if direction < 0 && at(1) > 0 {
                Vec::new()
            } else {
                steps(machine, at(0), at(2).saturating_add(direction), at(1))?
            }
        }
        _ => Vec::new(),
    };
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    machine.text(texts.join(" "))
}

pub(super) fn add1(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::int64(to_integer(&arguments[0]).wrapping_add(1)))
}

pub(super) fn add(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::int64(
        arguments
            .iter()
            .fold(0, |sum, value| sum.wrapping_add(to_integer(value))),
    ))
}

pub(super) fn sub(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::int64(
        to_integer(&arguments[0]).wrapping_sub(to_integer(&arguments[1])),
    ))
}

pub(super) fn div(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    match to_integer(&arguments[1]) {
        0 => Err(Fault::new("runtime error: integer divide by zero")),
        divisor => Ok(Value::int64(
            to_integer(&arguments[0]).wrapping_div(divisor),
        )),
    }
}

pub(super) fn modulo(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    match to_integer(&arguments[1]) {
        0 => Err(Fault::new("runtime error: integer divide by zero")),
        divisor => Ok(Value::int64(
            to_integer(&arguments[0]).wrapping_rem(divisor),
        )),
    }
}

pub(super) fn mul(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::int64(arguments.iter().fold(1, |product, value| {
        product.wrapping_mul(to_integer(value))
    })))
}

/// Calculates in decimals, as sprig does, so that 3 + 1.5 + 2.2 is 6.7.
fn decimal(arguments: &[Value], start: f64, operation: fn(f64, f64) -> f64) -> Value {
    let mut result = start;
    for argument in arguments {
        result = operation(result, to_float(argument));
    }
    // Fifteen digits are what a float holds of any decimal: the noise of binary fractions is behind them.
    let rounded: f64 = format!("{result:.14e}").parse().unwrap_or(result);
    // A decimal has no negative zero.
    Value::Float(if rounded == 0.0 { 0.0 } else { rounded })
}

pub(super) fn add1f(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(decimal(arguments, 1.0, |a, b| a + b))
}

pub(super) fn addf(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(decimal(arguments, 0.0, |a, b| a + b))
}

pub(super) fn subf(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(decimal(&arguments[1..], to_float(&arguments[0]), |a, b| {
        a - b
    }))
}

pub(super) fn divf(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    if arguments[1..].iter().any(|value| to_float(value) == 0.0) {
        return Err(Fault::new("decimal division by 0"));
    }
    Ok(decimal(&arguments[1..], to_float(&arguments[0]), |a, b| {
        a / b
    }))
}

pub(super) fn mulf(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(decimal(&arguments[1..], to_float(&arguments[0]), |a, b| {
        a * b
    }))
}

pub(super) fn max(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let largest = arguments.iter().map(to_integer).max();
    Ok(Value::int64(largest.unwrap_or(0)))
}

pub(super) fn min(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let least = arguments.iter().map(to_integer).min();
    Ok(Value::int64(least.unwrap_or(0)))
}

pub(super) fn maxf(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Float(
        arguments
            .iter()
            .map(to_float)
            .fold(f64::NEG_INFINITY, f64::max),
    ))
}

pub(super) fn minf(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Float(
        arguments.iter().map(to_float).fold(f64::INFINITY, f64::min),
    ))
}

pub(super) fn ceil(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Float(to_float(&arguments[0]).ceil()))
}

pub(super) fn floor(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::Float(to_float(&arguments[0]).floor()))
}

pub(super) fn round(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let round_on = arguments.get(2).map_or(0.5, to_float);
    let value = to_float(&arguments[0]);
    #[allow(clippy::cast_possible_truncation)]
    let power = 10_f64.powi(int_at(arguments, 1).clamp(-400, 400) as i32);
    let digit = power * value;
    let rounded = if digit.fract() >= round_on {
        digit.ceil()
    } else {
        digit.floor()
    };
    Ok(Value::Float(rounded / power))
}
