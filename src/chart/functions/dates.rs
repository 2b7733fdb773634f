//! Times and durations. The clock stands still at [`NOW`], and the only zone is UTC.

use super::str_at;
use crate::chart::template::evaluate::{Evaluated, Fault, Machine};
use crate::chart::value::{Object, Value};

/// What `now` says, in nanoseconds since 1970: 2025-01-01T00:00:00Z.
const NOW: i128 = 1_735_689_600 * SECOND;

const SECOND: i128 = 1_000_000_000;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A moment taken apart.
struct Civil {
    year: i128,
    month: usize,
    day: i128,
    weekday: usize,
    year_day: i128,
    hour: i128,
    minute: i128,
    second: i128,
    nanosecond: i128,
}

/// Days since 1970 of a date in the Gregorian calendar.
fn days_of(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil(nanoseconds: i128) -> Civil {
    let seconds = nanoseconds.div_euclid(SECOND);
    let days = seconds.div_euclid(86_400);
    let of_day = seconds.rem_euclid(86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    Civil {
        year,
        month: usize::try_from(month).unwrap_or(1),
        day,
        weekday: usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0),
        year_day: days - days_of(year, 1, 1) + 1,
        hour: of_day / 3600,
        minute: of_day / 60 % 60,
        second: of_day % 60,
        nanosecond: nanoseconds.rem_euclid(SECOND),
    }
}

/// The parts of Go's reference time that a layout may name, longest first where one begins another.
const PARTS: [&str; 31] = [
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "-07:00:00",
    "-07:00",
    "-0700",
    "-070000",
    "-07",
    "Z07:00",
    "Z0700",
    "Z07",
    "002",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "15",
    "__2",
    "_2",
    "PM",
    "pm",
    "1",
    "2",
    "3",
    "4",
    "5",
];

/// The part of the reference time a layout starts with.
fn part_at(layout: &str) -> Option<&'static str> {
    // "Jan" inside of a longer word is still a part, as in Go; "_2006" is an underscore and a year.
    if layout.starts_with("_2006") {
        return None;
    }
    PARTS
        .iter()
        .find(|part| layout.starts_with(**part))
        .copied()
}

/// A fraction of seconds: `.000` or `,999`, not followed by a digit.
fn fraction_at(layout: &str) -> Option<&str> {
    let mut characters = layout.chars();
    if !matches!(characters.next(), Some('.' | ',')) {
        return None;
    }
    let digit = characters.next().filter(|c| matches!(c, '0' | '9'))?;
    let rest = &layout[1..];
    let length = rest.len() - rest.trim_start_matches(digit).len();
    if rest[length..].starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some(&layout[..=length])
}

/// Go's `Time.Format`, in UTC.
pub(super) fn format(layout: &str, nanoseconds: i128) -> String {
    let time = civil(nanoseconds);
    let mut output = String::new();
    let mut rest = layout;
    while let Some(character) = rest.chars().next() {
        if let Some(fraction) = fraction_at(rest) {
            let digits = format!("{:09}", time.nanosecond);
            let wanted = &digits[..(fraction.len() - 1).min(9)];
            if fraction.ends_with('0') {
                output.push(character);
                output.push_str(wanted);
            } else {
                let wanted = wanted.trim_end_matches('0');
                if !wanted.is_empty() {
                    output.push(character);
                    output.push_str(wanted);
                }
            }
            rest = &rest[fraction.len()..];
            continue;
        }
        let Some(part) = part_at(rest) else {
            output.push(character);
            rest = &rest[character.len_utf8()..];
            continue;
        };
        let hour_12 = match time.hour % 12 {
            0 => 12,
            hour => hour,
        };
        let month = MONTHS[time.month - 1];
        let written = match part {
            "January" => month.to_owned(),
            "Jan" => month[..3].to_owned(),
            "Monday" => DAYS[time.weekday].to_owned(),
            "Mon" => DAYS[time.weekday][..3].to_owned(),
            "MST" => "UTC".to_owned(),
            "2006" => format!("{:04}", time.year),
            "06" => format!("{:02}", time.year.rem_euclid(100)),
            "-07:00" => "+00:00".to_owned(),
            "-07:00:00" => "+00:00:00".to_owned(),
            "-0700" => "+0000".to_owned(),
            "-070000" => "+000000".to_owned(),
            "-07" => "+00".to_owned(),
            "Z07:00" | "Z0700" | "Z07" => "Z".to_owned(),
            "002" => format!("{:03}", time.year_day),
            "__2" => format!("{:>3}", time.year_day),
            "01" => format!("{:02}", time.month),
            "1" => time.month.to_string(),
            "02" => format!("{:02}", time.day),
            "_2" => format!("{:>2}", time.day),
            "2" => time.day.to_string(),
            "15" => format!("{:02}", time.hour),
            "03" => format!("{hour_12:02}"),
            "3" => hour_12.to_string(),
            "04" => format!("{:02}", time.minute),
            "4" => time.minute.to_string(),
            "05" => format!("{:02}", time.second),
            "5" => time.second.to_string(),
            "PM" => if time.hour >= 12 { "PM" } else { "AM" }.to_owned(),
            _ => if time.hour >= 12 { "pm" } else { "am" }.to_owned(),
        };
        output.push_str(&written);
        rest = &rest[part.len()..];
    }
    output
}

/// Go's `time.Parse`, for layouts without names of zones.
fn parse(layout: &str, text: &str) -> Option<i128> {
    let (mut year, mut month, mut day) = (1, 1, 1);
    let (mut hour, mut minute, mut second, mut nanosecond) = (0, 0, 0, 0_i128);
    let (mut offset, mut afternoon) = (0_i128, None);
    let mut layout = layout;
    let mut rest = text;
    let number = |rest: &mut &str, least: usize, most: usize| -> Option<i128> {
        let length = rest
            .bytes()
            .take(most)
            .take_while(u8::is_ascii_digit)
            .count();
        if length < least {
            return None;
        }
        let (digits, after) = rest.split_at(length);
        *rest = after;
        digits.parse().ok()
    };
    while let Some(character) = layout.chars().next() {
        if let Some(fraction) = fraction_at(layout) {
            if let Some(after) = rest.strip_prefix(['.', ',']) {
                let length = after.bytes().take_while(u8::is_ascii_digit).count();
                let digits: String = after[..length]
                    .chars()
                    .chain("000000000".chars())
                    .take(9)
                    .collect();
                nanosecond = digits.parse().ok()?;
                rest = &after[length..];
            } else if fraction.ends_with('0') {
                return None;
            }
            layout = &layout[fraction.len()..];
            continue;
        }
        let Some(part) = part_at(layout) else {
            rest = rest.strip_prefix(character)?;
            layout = &layout[character.len_utf8()..];
            continue;
        };
        layout = &layout[part.len()..];
        match part {
            "2006" => year = number(&mut rest, 4, 4)?,
            "06" => {
                year = number(&mut rest, 2, 2)?;
                year += if year >= 69 { 1900 } else { 2000 };
            }
            "01" => month = number(&mut rest, 2, 2)?,
            "1" => month = number(&mut rest, 1, 2)?,
            "January" | "Jan" => {
                let at = MONTHS.iter().position(|name| {
                    rest.starts_with(if part == "Jan" { &name[..3] } else { name })
                })?;
                rest = &rest[if part == "Jan" { 3 } else { MONTHS[at].len() }..];
                month = i128::try_from(at).ok()? + 1;
            }
            "Monday" | "Mon" => {
                let at = DAYS.iter().position(|name| {
                    rest.starts_with(if part == "Mon" { &name[..3] } else { name })
                })?;
                rest = &rest[if part == "Mon" { 3 } else { DAYS[at].len() }..];
            }
            "02" => day = number(&mut rest, 2, 2)?,
            "2" => day = number(&mut rest, 1, 2)?,
            "_2" => {
                rest = rest.strip_prefix(' ').unwrap_or(rest);
                day = number(&mut rest, 1, 2)?;
            }
            "15" | "03" => hour = number(&mut rest, 2, 2)?,
            "3" => hour = number(&mut rest, 1, 2)?,
            "04" => minute = number(&mut rest, 2, 2)?,
            "4" => minute = number(&mut rest, 1, 2)?,
            "05" => {
                second = number(&mut rest, 2, 2)?;
                if fraction_at(layout).is_none()
                    && let Some(after) = rest.strip_prefix('.')
                {
                    let length = after.bytes().take_while(u8::is_ascii_digit).count();
                    let digits: String = after[..length]
                        .chars()
                        .chain("000000000".chars())
                        .take(9)
                        .collect();
                    nanosecond = digits.parse().ok()?;
                    rest = &after[length..];
                }
            }
            "5" => second = number(&mut rest, 1, 2)?,
            "PM" | "pm" => {
                let half = rest.get(..2)?.to_ascii_uppercase();
                afternoon = Some(match half.as_str() {
                    "PM" => true,
                    "AM" => false,
                    _ => return None,
                });
                rest = &rest[2..];
            }
            "MST" => {
                let length = rest.bytes().take_while(u8::is_ascii_uppercase).count();
                if length < 3 {
                    return None;
                }
                rest = &rest[length..];
            }
            "Z07:00" | "Z0700" | "Z07" if rest.starts_with('Z') => rest = &rest[1..],
            _ if part.contains("07") => {
                let sign = match rest.chars().next()? {
                    '+' => 1,
                    '-' => -1,
                    _ => return None,
                };
                rest = &rest[1..];
                let hours = number(&mut rest, 2, 2)?;
                let minutes = if part.ends_with("00") {
                    if part.contains(':') {
                        rest = rest.strip_prefix(':')?;
                    }
                    number(&mut rest, 2, 2)?
                } else {
                    0
                };
                offset = sign * (hours * 3600 + minutes * 60);
            }
            _ => return None,
        }
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        2 => 28 + i128::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !rest.is_empty()
        || !(1..=12).contains(&month)
        || !(1..=month_days).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    match afternoon {
        Some(true) if hour < 12 => hour += 12,
        Some(false) if hour == 12 => hour = 0,
        _ => {}
    }
    let seconds = days_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(seconds * SECOND + nanosecond)
}

/// Go's `Duration.String`.
pub(super) fn show_duration(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let rest = value % unit;
        let width = unit.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        match digits.trim_end_matches('0') {
            "" => format!("{}", value / unit),
            digits => format!("{}.{digits}", value / unit),
        }
    };
    if total < 1_000 {
        return format!("{sign}{total}ns");
    }
    if total < 1_000_000 {
        return format!("{sign}{}\u{b5}s", fraction(total, 1_000));
    }
    if total < 1_000_000_000 {
        return format!("{sign}{}ms", fraction(total, 1_000_000));
    }
    let minutes = total / 60_000_000_000;
    let seconds = fraction(total % 60_000_000_000, 1_000_000_000);
    if minutes == 0 {
        format!("{sign}{seconds}s")
    } else if minutes < 60 {
        format!("{sign}{minutes}m{seconds}s")
    } else {
        format!("{sign}{}h{}m{seconds}s", minutes / 60, minutes % 60)
    }
}

/// Go's `time.ParseDuration`.
fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        let length = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
            .count();
        let (number, after) = rest.split_at(length);
        let unit_length = after
            .bytes()
            .take_while(|byte| !byte.is_ascii_digit() && *byte != b'.')
            .count();
        let (unit, after) = after.split_at(unit_length);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30
        {
            return None;
        }
        if !whole.is_empty() {
            total += whole.parse::<i128>().ok()?.checked_mul(scale)?;
        }
        if !fraction.is_empty() {
            let fraction: String = fraction.chars().take(15).collect();
            let power = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
            total += fraction.parse::<i128>().ok()? * scale / power;
        }
        if total > i128::from(i64::MAX) {
            return None;
        }
        rest = after;
    }
    let total = i64::try_from(total).ok()?;
    Some(if negative { -total } else { total })
}

/// The moment a value names; what names none is now.
fn moment(value: &Value) -> i128 {
    match value {
        Value::Int(seconds, _) => i128::from(*seconds) * SECOND,
        Value::Object(object) => match &**object {
            Object::Time(nanoseconds) => *nanoseconds,
            _ => NOW,
        },
        _ => NOW,
    }
}

fn time(nanoseconds: i128) -> Value {
    Value::object(Object::Time(nanoseconds))
}

/// The zero of Go's `time.Time`, which `toDate` gives for a text it cannot read.
fn zero() -> i128 {
    days_of(1, 1, 1) * 86_400 * SECOND
}

pub(super) fn now(_: &mut Machine, _: &[Value]) -> Evaluated<Value> {
    Ok(time(NOW))
}

pub(super) fn date(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.step(str_at(arguments, 0).len())?;
    machine.charge(str_at(arguments, 0).len() * 4)?;
    machine.text(format(str_at(arguments, 0), moment(&arguments[1])))
}

pub(super) fn date_in_zone(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    date(machine, arguments)
}

pub(super) fn html_date(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.text(format("2006-01-02", moment(&arguments[0])))
}

fn expect_time(value: &Value) -> Evaluated<i128> {
    match value {
        Value::Object(object) => match &**object {
            Object::Time(nanoseconds) => Ok(*nanoseconds),
            _ => Err(Fault::new("expected a time")),
        },
        other => Err(Fault::new(format!(
            "wrong type for value; expected time.Time; got {}",
            other.type_name()
        ))),
    }
}

pub(super) fn date_modify(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let start = expect_time(&arguments[1])?;
    let by = parse_duration(str_at(arguments, 0)).unwrap_or(0);
    Ok(time(start + i128::from(by)))
}

pub(super) fn must_date_modify(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let start = expect_time(&arguments[1])?;
    match parse_duration(str_at(arguments, 0)) {
        Some(by) => Ok(time(start + i128::from(by))),
        None => Err(Fault::new(format!(
            "time: invalid duration {:?}",
            str_at(arguments, 0)
        ))),
    }
}

pub(super) fn ago(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let seconds = (NOW - moment(&arguments[0])) / SECOND;
    let nanoseconds = i64::try_from(seconds * SECOND).unwrap_or(0);
    machine.text(show_duration(nanoseconds))
}

pub(super) fn duration(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let seconds = match &arguments[0] {
        Value::Text(text) => super::math::parse_integer(text, 10).unwrap_or(0),
        Value::Int(number, crate::chart::value::IntKind::Int64) => *number,
        _ => 0,
    };
    machine.text(show_duration(seconds.saturating_mul(1_000_000_000)))
}

pub(super) fn duration_round(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let nanoseconds = match &arguments[0] {
        Value::Text(text) => parse_duration(text).unwrap_or(0),
        Value::Int(number, crate::chart::value::IntKind::Int64) => *number,
        Value::Object(object) => match &**object {
            Object::Time(moment) => i64::try_from(NOW - moment).unwrap_or(0),
            _ => 0,
        },
        _ => 0,
    };
    let total = nanoseconds.unsigned_abs();
    let hour = 3_600_000_000_000_u64;
    for (unit, name) in [
        (hour * 24 * 365, "y"),
        (hour * 24 * 30, "mo"),
        (hour * 24, "d"),
        (hour, "h"),
        (hour / 60, "m"),
        (hour / 3600, "s"),
    ] {
        if total > unit {
            return machine.text(format!("{}{name}", total / unit));
        }
    }
    Ok(Value::text("0s"))
}

pub(super) fn to_date(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.step(str_at(arguments, 0).len())?;
    let moment = parse(str_at(arguments, 0), str_at(arguments, 1));
    Ok(time(moment.unwrap_or_else(zero)))
}

pub(super) fn must_to_date(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.step(str_at(arguments, 0).len())?;
    match parse(str_at(arguments, 0), str_at(arguments, 1)) {
        Some(moment) => Ok(time(moment)),
        None => Err(Fault::new(format!(
            "parsing time {:?} as {:?}",
            str_at(arguments, 1),
            str_at(arguments, 0)
        ))),
    }
}

pub(super) fn unix_epoch(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let moment = expect_time(&arguments[0])?;
    machine.text(moment.div_euclid(SECOND).to_string())
}

/// A duration written as one, or as a number of seconds.
#[allow(clippy::cast_possible_truncation)]
fn as_duration(value: &Value) -> Result<i64, String> {
    let seconds = |number: f64| {
        let nanoseconds = number * 1e9;
        if nanoseconds.is_finite() && nanoseconds.abs() < 9.223_372_036_854_775e18 {
            Ok(nanoseconds as i64)
        } else {
            Err("duration is out of range".to_owned())
        }
    };
    match value {
        Value::Text(text) => {
            let text = text.trim();
            if text.is_empty() {
                return Err("cannot convert an empty text to a duration".to_owned());
            }
            match (super::math::parse_float(text), parse_duration(text)) {
                (_, Some(nanoseconds)) => Ok(nanoseconds),
                (Some(number), None) => seconds(number),
                (None, None) => Err(format!("time: invalid duration {text:?}")),
            }
        }
        Value::Int(number, _) => number
            .checked_mul(1_000_000_000)
            .ok_or_else(|| "duration is out of range".to_owned()),
        Value::Float(number) => seconds(*number),
        Value::Object(object) => match &**object {
            Object::Duration(nanoseconds) => Ok(*nanoseconds),
            _ => Err(format!(
                "cannot convert {} to a duration",
                value.type_name()
            )),
        },
        other => Err(format!(
            "cannot convert {} to a duration",
            other.type_name()
        )),
    }
}

pub(super) fn must_to_duration(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    as_duration(&arguments[0])
        .map(|nanoseconds| Value::object(Object::Duration(nanoseconds)))
        .map_err(Fault::new)
}

/// How many of a unit a duration has; what is no duration has none.
#[allow(clippy::cast_precision_loss)]
fn in_units(arguments: &[Value], unit: i64) -> Value {
    let nanoseconds = as_duration(&arguments[0]).unwrap_or(0);
    let whole = nanoseconds / unit;
    let part = nanoseconds % unit;
    Value::Float(whole as f64 + part as f64 / unit as f64)
}

pub(super) fn duration_seconds(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(in_units(arguments, 1_000_000_000))
}

pub(super) fn duration_milliseconds(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let nanoseconds = as_duration(&arguments[0]).unwrap_or(0);
    Ok(Value::int64(nanoseconds / 1_000_000))
}

pub(super) fn duration_microseconds(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let nanoseconds = as_duration(&arguments[0]).unwrap_or(0);
    Ok(Value::int64(nanoseconds / 1_000))
}

pub(super) fn duration_nanoseconds(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(Value::int64(as_duration(&arguments[0]).unwrap_or(0)))
}

pub(super) fn duration_minutes(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(in_units(arguments, 60_000_000_000))
}

pub(super) fn duration_hours(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(in_units(arguments, 3_600_000_000_000))
}

pub(super) fn duration_days(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(in_units(arguments, 86_400_000_000_000))
}

pub(super) fn duration_weeks(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(in_units(arguments, 604_800_000_000_000))
}

fn to_multiple(arguments: &[Value], round: bool) -> Value {
    let nanoseconds = as_duration(&arguments[0]).unwrap_or(0);
    let multiple = as_duration(&arguments[1]).unwrap_or(0);
    let result = if multiple <= 0 {
        nanoseconds
    } else {
        let rest = nanoseconds % multiple;
        let truncated = nanoseconds - rest;
        if round && rest.unsigned_abs().saturating_mul(2) >= multiple.unsigned_abs() {
            truncated.saturating_add(if nanoseconds < 0 { -multiple } else { multiple })
        } else {
            truncated
        }
    };
    Value::object(Object::Duration(result))
}

pub(super) fn duration_round_to(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(to_multiple(arguments, true))
}

pub(super) fn duration_truncate_to(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    Ok(to_multiple(arguments, false))
}
