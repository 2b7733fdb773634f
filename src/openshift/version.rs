//! Versions as OpenShift's own tools read, order and match them.
//!
//! The rules are those of the Go library the cluster's components share (blang/semver), which differ from the
//! usual Rust crates in three ways that matter: a range never hides pre-releases, build metadata never
//! decides an order, and a range may be a disjunction.
//!
//! ```text
//! version := major "." minor "." patch ["-" identifier *("." identifier)] ["+" word *("." word)]
//! range   := conjunction *("||" conjunction)
//! conjunction := comparator *(" " comparator)
//! comparator  := ["=" | "==" | "!=" | "!" | ">" | ">=" | "<" | "<="] (version | "1.x" | "1.2.x")
//! ```
//!
//! Pre-release identifiers of digits are numbers and sort before words: `5.2.3-9 < 5.2.3-31 < 5.2.3-rc < 5.2.3`.
//!
//! ## Oddities kept, and one that is not
//! `!=1.2.x` stands for `<1.2.0 >=1.3.0`, which nothing satisfies, and `1.x.x` ends at `<1.1.0`. Both are what a
//! cluster computes from the same text, so they are kept. A comparator cut off from its version by a space is
//! joined to it, and so is `!`, which the Go library drops without a word.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hint::Hint;

/// The longest text that is read as a version or a range.
const TEXT_LIMIT: usize = 4096;

/// A text that is not a version or not a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The text is empty or longer than anything that was ever meant as a version.
    #[error("a version of {length} bytes: expected 1 to {TEXT_LIMIT}")]
    Length {
        /// How long it is.
        length: usize,
    },
    /// There are not three parts.
    #[error("{text:?} is not a version: expected major.minor.patch")]
    Parts {
        /// What was read.
        text: String,
    },
    /// A number is not a number, is too big or opens with a zero.
    #[error("{text:?} is not a version: {part:?} is not a number below 2^64 without leading zeros")]
    Number {
        /// What was read.
        text: String,
        /// The part at fault.
        part: String,
    },
    /// An identifier after `-` or `+` is empty or has other characters than letters, digits and hyphens.
    #[error(
        "{text:?} is not a version: {part:?} is not an identifier of letters, digits and \"-\""
    )]
    Identifier {
        /// What was read.
        text: String,
        /// The part at fault.
        part: String,
    },
    /// A short version was given with more than numbers.
    #[error(
        "{text:?} is not a version: a shortened version cannot have a pre-release or build part"
    )]
    Short {
        /// What was read.
        text: String,
    },
    /// A comparator that does not exist.
    #[error(
        "{comparator:?} in range {text:?} is not a comparator: expected = == != ! > >= < or <="
    )]
    Comparator {
        /// The whole range.
        text: String,
        /// What stands where a comparator is expected.
        comparator: String,
    },
    /// A side of `||` or the whole range is empty, or a comparator has no version.
    #[error("range {text:?} has an empty part")]
    Empty {
        /// The whole range.
        text: String,
    },
    /// A version in a range is wrong.
    #[error("range {range:?} cannot be read")]
    InRange {
        /// The whole range.
        range: String,
        /// What is wrong with the version.
        source: Box<VersionError>,
    },
}

impl Hint for VersionError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Parts { text } if text.starts_with(['v', 'V']) => {
                Some("leave out the leading \"v\"".to_owned())
            }
            Self::InRange { range, .. } if range.contains(',') => {
                Some("join comparators with a space, alternatives with \"||\"".to_owned())
            }
            Self::InRange { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// One identifier of a pre-release.
///
/// The order of the variants is their precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identifier {
    /// Digits only: compared as a number.
    Number(u64),
    /// Anything else: compared byte by byte.
    Word(String),
}

impl fmt::Display for Identifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Word(word) => formatter.write_str(word),
        }
    }
}

/// A version.
///
/// [`Version::precedence`] is the order of the specification, in which build metadata does not count. `Ord` is
/// the same with build metadata as the last word, so that a sorted list has one order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// First number.
    pub major: u64,
    /// Second number.
    pub minor: u64,
    /// Third number.
    pub patch: u64,
    /// What follows `-`; empty for a release.
    pub pre: Vec<Identifier>,
    /// What follows `+`; never part of the precedence.
    pub build: Vec<String>,
}

impl Version {
    /// A release without pre-release and build parts.
    #[must_use]
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self {
            major,
            minor,
            patch,
            pre: Vec::new(),
            build: Vec::new(),
        }
    }

    /// Reads a version that may be written loosely: surrounding space, a leading `v`, missing parts, leading zeros.
    pub fn parse_tolerant(text: &str) -> Result<Self, VersionError> {
        check_length(text)?;
        let trimmed = text.trim();
        let trimmed = trimmed.strip_prefix('v').unwrap_or(trimmed);
        let mut parts: Vec<String> = trimmed.splitn(3, '.').map(without_zeros).collect();
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err(VersionError::Short {
                    text: text.to_owned(),
                });
            }
            parts.resize(3, "0".to_owned());
        }
        parts.join(".").parse()
    }

    /// Orders by the specification: build metadata does not count.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        (self.major, self.minor, self.patch)
            .cmp(&(other.major, other.minor, other.patch))
            .then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => self.pre.cmp(&other.pre),
            })
    }

    /// Whether the two differ in nothing but build metadata.
    #[must_use]
    pub fn same_release(&self, other: &Self) -> bool {
        self.precedence(other).is_eq()
    }

    /// The version without build metadata.
    #[must_use]
    pub fn without_build(mut self) -> Self {
        self.build.clear();
        self
    }
}

fn check_length(text: &str) -> Result<(), VersionError> {
    if text.is_empty() || text.len() > TEXT_LIMIT {
        return Err(VersionError::Length { length: text.len() });
    }
    Ok(())
}

/// Drops leading zeros, but for the one that is the number.
fn without_zeros(part: &str) -> String {
    if part.len() < 2 {
        return part.to_owned();
    }
    let rest = part.trim_start_matches('0');
    if rest.starts_with(|first: char| first.is_ascii_digit()) {
        rest.to_owned()
    } else {
        format!("0{rest}")
    }
}

fn number(text: &str, part: &str) -> Result<u64, VersionError> {
    let wrong = || VersionError::Number {
        text: text.to_owned(),
        part: part.to_owned(),
    };
    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (part.len() > 1 && part.starts_with('0')) {
        return Err(wrong());
    }
    part.parse().map_err(|_| wrong())
}

fn word<'a>(text: &str, part: &'a str) -> Result<&'a str, VersionError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if part.is_empty() || !part.bytes().all(fits) {
        return Err(VersionError::Identifier {
            text: text.to_owned(),
            part: part.to_owned(),
        });
    }
    Ok(part)
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        check_length(text)?;
        let mut parts = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(VersionError::Parts {
                text: text.to_owned(),
            });
        };
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (rest, None),
        };
        let (patch, pre) = match rest.split_once('-') {
            Some((patch, pre)) => (patch, Some(pre)),
            None => (rest, None),
        };
        let mut version = Self::new(
            number(text, major)?,
            number(text, minor)?,
            number(text, patch)?,
        );
        for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
            let part = word(text, part)?;
            version
                .pre
                .push(if part.bytes().all(|byte| byte.is_ascii_digit()) {
                    Identifier::Number(number(text, part)?)
                } else {
                    Identifier::Word(part.to_owned())
                });
        }
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            version.build.push(word(text, part)?.to_owned());
        }
        Ok(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)?;
        for (index, part) in self.pre.iter().enumerate() {
            write!(formatter, "{}{part}", if index == 0 { '-' } else { '.' })?;
        }
        for (index, part) in self.build.iter().enumerate() {
            write!(formatter, "{}{part}", if index == 0 { '+' } else { '.' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.precedence(other)
            .then_with(|| self.build.cmp(&other.build))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How a version is held against another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

impl Comparator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "=" | "==" => Self::Equal,
            "!" | "!=" => Self::NotEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            _ => return None,
        })
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }

    const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
        }
    }
}

/// A set of versions.
///
/// Wildcards are replaced by the bounds they stand for when it is read, and [`fmt::Display`] prints the bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Alternatives; within one, every bound must hold. None of the lists is empty.
    alternatives: Vec<Vec<(Comparator, Version)>>,
}

impl Range {
    /// Whether `version` is in the set. Pre-releases count like any other version; build metadata does not count.
    #[must_use]
    pub fn contains(&self, version: &Version) -> bool {
        self.alternatives.iter().any(|bounds| {
            bounds
                .iter()
                .all(|(comparator, bound)| comparator.holds(version.precedence(bound)))
        })
    }
}

impl FromStr for Range {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        check_length(text)?;
        let mut alternatives = Vec::new();
        for side in text.split("||") {
            let mut bounds = Vec::new();
            let mut words = side.split_ascii_whitespace();
            while let Some(word) = words.next() {
                let start = word
                    .find(|character: char| !"=!<>".contains(character))
                    .unwrap_or(word.len());
                let (comparator, version) = word.split_at(start);
                let version = if version.is_empty() {
                    words.next().ok_or_else(|| VersionError::Empty {
                        text: text.to_owned(),
                    })?
                } else {
                    version
                };
                let comparator =
                    Comparator::parse(comparator).ok_or_else(|| VersionError::Comparator {
                        text: text.to_owned(),
                        comparator: comparator.to_owned(),
                    })?;
                expand(comparator, version, &mut bounds).map_err(|source| {
                    VersionError::InRange {
                        range: text.to_owned(),
                        source: Box::new(source),
                    }
                })?;
            }
            if bounds.is_empty() {
                return Err(VersionError::Empty {
                    text: text.to_owned(),
                });
            }
            alternatives.push(bounds);
        }
        Ok(Self { alternatives })
    }
}

/// Adds the bounds that `comparator version` stands for, where `version` may end in a wildcard.
fn expand(
    comparator: Comparator,
    version: &str,
    bounds: &mut Vec<(Comparator, Version)>,
) -> Result<(), VersionError> {
    let parts: Vec<&str> = version.split('.').collect();
    let (low, high) = match parts[..] {
        [major, "x"] => {
            let major = number(version, major)?;
            (
                Version::new(major, 0, 0),
                Version::new(next(version, major)?, 0, 0),
            )
        }
        [major, "x", "x"] => {
            let major = number(version, major)?;
            (Version::new(major, 0, 0), Version::new(major, 1, 0))
        }
        [major, minor, "x"] => {
            let (major, minor) = (number(version, major)?, number(version, minor)?);
            (
                Version::new(major, minor, 0),
                Version::new(major, next(version, minor)?, 0),
            )
        }
        _ => {
            bounds.push((comparator, version.parse()?));
            return Ok(());
        }
    };
    match comparator {
        Comparator::Greater => bounds.push((Comparator::GreaterOrEqual, high)),
        Comparator::GreaterOrEqual => bounds.push((Comparator::GreaterOrEqual, low)),
        Comparator::Less => bounds.push((Comparator::Less, low)),
        Comparator::LessOrEqual => bounds.push((Comparator::Less, high)),
        Comparator::Equal => {
            bounds.extend([(Comparator::GreaterOrEqual, low), (Comparator::Less, high)]);
        }
        Comparator::NotEqual => {
            bounds.extend([(Comparator::Less, low), (Comparator::GreaterOrEqual, high)]);
        }
    }
    Ok(())
}

fn next(text: &str, value: u64) -> Result<u64, VersionError> {
    value.checked_add(1).ok_or_else(|| VersionError::Number {
        text: text.to_owned(),
        part: value.to_string(),
    })
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (side, bounds) in self.alternatives.iter().enumerate() {
            if side > 0 {
                formatter.write_str(" || ")?;
            }
            for (index, (comparator, bound)) in bounds.iter().enumerate() {
                if index > 0 {
                    formatter.write_str(" ")?;
                }
                write!(formatter, "{}{bound}", comparator.text())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn a_version_survives_printing() {
        for text in [
            "1.2.3",
            "0.0.1",
            "0.0.1-alpha.preview+123.456",
            "1.2.3-alpha.1+123.456",
            "1.2.3+123.456",
            "1.2.3-alpha.b-eta+123.b-uild",
            "4.16.0-202407100906.p0",
            "4.0.0-0.okd-0+amd64",
            "18446744073709551615.0.0",
        ] {
            assert_eq!(
                version(text).to_string(),
                text,
                "printing must undo parsing"
            );
        }
    }

    #[test]
    fn a_text_that_is_no_version_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".1",
            "a.b.c",
            "1.a.b",
            "1.1.a",
            "1.a.1",
            "a.1.1",
            "..",
            "1..",
            "1.1.",
            "1..1",
            "1.1.+123",
            "1.1.-beta",
            "-1.1.1",
            "1.-1.1",
            "1.1.-1",
            "20000000000000000000.1.1",
            "1.20000000000000000000.1",
            "1.1.20000000000000000000",
            "1.1.1-20000000000000000000",
            "01.1.1",
            "001.1.1",
            "1.01.1",
            "1.001.1",
            "1.1.01",
            "1.1.001",
            "1.1.1-01",
            "1.1.1-001",
            "1.1.1-beta.01",
            "1.1.1-beta.001",
            "0.0.0-!",
            "0.0.0+!",
            "0.0.0-.alpha",
            "0.0.0-alpha+",
            "0.0.0-alpha+test.",
            "v4.0.0-0.1",
            "4-0-0+0.1",
            "1.2.3 ",
            "1.2.3\u{661}",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn a_tolerant_reader_mends_what_people_write() {
        for (text, expected) in [
            ("v1.2.3", "1.2.3"),
            ("1.2.0-alpha", "1.2.0-alpha"),
            ("1.2.00", "1.2.0"),
            ("\t1.2.3 ", "1.2.3"),
            ("01.02.03", "1.2.3"),
            ("00.0.03", "0.0.3"),
            ("000.0.03", "0.0.3"),
            ("1.2", "1.2.0"),
            ("1", "1.0.0"),
        ] {
            assert_eq!(
                Version::parse_tolerant(text).unwrap(),
                version(expected),
                "{text:?} must be read as {expected}"
            );
        }
        for text in ["1.0+abc", "1.0-rc.1", "", "x", "1.2.3.4", "1.2.3-01"] {
            assert!(
                Version::parse_tolerant(text).is_err(),
                "{text:?} must be refused"
            );
        }
    }

    #[test]
    fn versions_are_ordered_as_the_specification_says() {
        let ascending = [
            "0.0.1",
            "0.1.0",
            "0.2.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.2.3",
            "1.2.4",
            "1.3.3",
            "2.0.0",
            "2.1.0",
            "2.1.1",
            "2.2.4",
            "4.0.0-4",
            "4.0.0-5",
            "4.0.0-0a",
            "4.16.0-202407100906.p0",
            "4.16.0",
            "5.2.3-9",
            "5.2.3-31",
            "5.2.3",
        ];
        for (index, low) in ascending.iter().enumerate() {
            for high in &ascending[index + 1..] {
                assert_eq!(
                    version(low).precedence(&version(high)),
                    Ordering::Less,
                    "{low} < {high}"
                );
            }
        }
        assert_eq!(
            version("1.0.0+1.2.3").precedence(&version("1.0.0")),
            Ordering::Equal,
            "build metadata does not count"
        );
        assert!(
            version("1.0.0+b") > version("1.0.0+a") && version("1.0.1") > version("1.0.0+z"),
            "a sorted list has one order, in which build metadata comes last"
        );
    }

    /// The table of the Go library's own range test.
    #[test]
    fn ranges_match_what_the_cluster_matches() {
        let table: &[(&str, &[&str], &[&str])] = &[
            (">1.2.3", &["1.2.4"], &["1.2.2", "1.2.3"]),
            (">=1.2.3", &["1.2.3", "1.2.4"], &["1.2.2"]),
            ("<1.2.3", &["1.2.2"], &["1.2.3", "1.2.4"]),
            ("<=1.2.3", &["1.2.2", "1.2.3"], &["1.2.4"]),
            ("1.2.3", &["1.2.3"], &["1.2.2", "1.2.4"]),
            ("=1.2.3", &["1.2.3"], &["1.2.2", "1.2.4"]),
            ("==1.2.3", &["1.2.3"], &["1.2.2", "1.2.4"]),
            ("!=1.2.3", &["1.2.2", "1.2.4"], &["1.2.3"]),
            ("!1.2.3", &["1.2.2", "1.2.4"], &["1.2.3"]),
            ("! 1.2.3", &["1.2.2", "1.2.4"], &["1.2.3"]),
            (
                "  >=   1.2.3   <=  1.2.3   ",
                &["1.2.3"],
                &["1.2.2", "1.2.4"],
            ),
            (">1.2.2 <1.2.4", &["1.2.3"], &["1.2.2", "1.2.4"]),
            ("<1.2.2 <1.2.4", &["1.2.1"], &["1.2.2", "1.2.3", "1.2.4"]),
            (
                ">1.2.2 <1.2.5 !=1.2.4",
                &["1.2.3"],
                &["1.2.2", "1.2.4", "1.2.5"],
            ),
            (
                ">1.2.2 <1.2.5 !1.2.4",
                &["1.2.3"],
                &["1.2.2", "1.2.4", "1.2.5"],
            ),
            (">1.2.2 || <1.2.4", &["1.2.2", "1.2.3", "1.2.4"], &[]),
            ("<1.2.2 || >1.2.4", &[], &["1.2.2", "1.2.3", "1.2.4"]),
            ("<1.2.2||>1.2.4", &["1.2.1"], &["1.2.3"]),
            (">1.x", &["2.0.0"], &["0.1.9", "1.2.6", "1.9.0"]),
            (">1.2.x", &["1.3.0"], &["1.1.9", "1.2.6"]),
            (
                ">1.2.2 <1.2.4 || >=2.0.0",
                &["1.2.3", "2.0.0", "2.0.1"],
                &["1.2.2", "1.2.4"],
            ),
            (
                "1.x || >=2.0.x <2.2.x",
                &["1.2.2", "2.0.0", "2.1.8"],
                &["0.9.2", "2.2.0"],
            ),
            (
                ">1.2.2 <1.2.4 || >=2.0.0 <3.0.0",
                &["1.2.3", "2.0.0", "2.0.1", "2.9.9"],
                &["1.2.2", "1.2.4", "3.0.0"],
            ),
            ("!=1.2.x", &[], &["1.1.0", "1.2.0", "1.3.0"]),
            // No gating: a pre-release is a version like any other.
            (
                ">=4.1.0 <4.17.0",
                &["4.16.0-202407100906.p0", "4.17.0-rc.1"],
                &["4.17.0"],
            ),
            (
                ">=5.6.0",
                &[
                    "5.6.0",
                    "5.6.1-3",
                    "5.6.1-4",
                    "5.6.1",
                    "5.6.1+build7",
                    "5.7.0",
                ],
                &["5.6.0-1"],
            ),
            (
                ">=5.6.1-4",
                &["5.6.1-4", "5.6.1", "5.6.1+build7", "5.7.0"],
                &["5.6.0", "5.6.1-3"],
            ),
        ];
        for (text, inside, outside) in table {
            let range: Range = text.parse().unwrap();
            for one in *inside {
                assert!(range.contains(&version(one)), "{one} is in {text:?}");
            }
            for one in *outside {
                assert!(!range.contains(&version(one)), "{one} is not in {text:?}");
            }
        }
    }

    #[test]
    fn wildcards_become_bounds() {
        for (text, expected) in [
            (">=1.2.x", ">=1.2.0"),
            ("<=1.2.x", "<1.3.0"),
            (">1.2.x", ">=1.3.0"),
            ("<1.2.x", "<1.2.0"),
            ("!=1.2.x", "<1.2.0 >=1.3.0"),
            (">=1.x", ">=1.0.0"),
            ("<=1.x", "<2.0.0"),
            (">1.x", ">=2.0.0"),
            ("<1.x", "<1.0.0"),
            ("!=1.x", "<1.0.0 >=2.0.0"),
            ("1.2.x", ">=1.2.0 <1.3.0"),
            ("1.x", ">=1.0.0 <2.0.0"),
            ("1.x.x", ">=1.0.0 <1.1.0"),
        ] {
            assert_eq!(
                text.parse::<Range>().unwrap().to_string(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_text_that_is_no_range_is_refused() {
        for text in [
            "",
            " ",
            ">>1.2.3",
            "<==1.2.3",
            "-1.2.3",
            "1.0",
            "string",
            "fo.ob.ar.x",
            "foox",
            "x",
            ">1.2.3 ||",
            "|| >1.2.3",
            ">",
            "=invalid",
            ">=4.1.0, <4.2.0",
            ">1.2.3<2.0.0",
            "18446744073709551615.x",
        ] {
            assert!(text.parse::<Range>().is_err(), "{text:?} must be refused");
        }
        let error = ">=4.1.0, <4.2.0".parse::<Range>().unwrap_err();
        assert!(
            error.hint().is_some_and(|hint| hint.contains("space")),
            "a comma is the usual mistake and must be advised on"
        );
    }

    fn any_version() -> impl Strategy<Value = Version> {
        let identifier = prop_oneof![
            (0u64..40).prop_map(Identifier::Number),
            "[a-z-][a-z0-9-]{0,3}".prop_map(Identifier::Word),
        ];
        (
            (0u64..4, 0u64..4, 0u64..4),
            prop::collection::vec(identifier, 0..3),
            prop::collection::vec("[a-z0-9-]{1,3}", 0..2),
        )
            .prop_map(|((major, minor, patch), pre, build)| Version {
                major,
                minor,
                patch,
                pre,
                build,
            })
    }

    fn any_comparator() -> impl Strategy<Value = Comparator> {
        prop::sample::select(vec![
            Comparator::Equal,
            Comparator::NotEqual,
            Comparator::Greater,
            Comparator::GreaterOrEqual,
            Comparator::Less,
            Comparator::LessOrEqual,
        ])
    }

    proptest! {
        #[test]
        fn any_version_survives_printing(one in any_version()) {
            prop_assert_eq!(one.to_string().parse::<Version>().unwrap(), one.clone());
            prop_assert_eq!(Version::parse_tolerant(&format!(" v{one} ")).unwrap(), one);
        }

        #[test]
        fn any_range_survives_printing(
            alternatives in prop::collection::vec(prop::collection::vec((any_comparator(), any_version()), 1..4), 1..4),
        ) {
            let range = Range { alternatives };
            prop_assert_eq!(range.to_string().parse::<Range>().unwrap(), range);
        }

        #[test]
        fn precedence_is_an_order(a in any_version(), b in any_version(), c in any_version()) {
            prop_assert_eq!(a.precedence(&b), b.precedence(&a).reverse());
            prop_assert_eq!(a.cmp(&b).is_eq(), a == b);
            if a.precedence(&b).is_le() && b.precedence(&c).is_le() {
                prop_assert!(a.precedence(&c).is_le());
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Version>();
            let _ = Version::parse_tolerant(&text);
            let _ = text.parse::<Range>();
        }
    }
}
