//! Versions and version constraints as Helm resolves them.
//!
//! Charts follow semantic versioning, read tolerantly (`v1.2` is `1.2.0`). Constraints know `=`, `!=`, `<`, `>`,
//! `<=`, `>=`, `~`, `^`, wildcards (`1.x`), hyphen ranges (`1.2 - 1.4`), a space or comma for *and*, `||` for *or*.
//! A prerelease satisfies a constraint only if the constraint names one. This is the dialect of the library Helm
//! uses; update graphs and operator bundles follow another one.

use std::cmp::Ordering;
use std::fmt;
use std::sync::OnceLock;

use regex::Regex;

/// Longest text read as a version or constraint.
const LENGTH: usize = 4096;

/// Why a text is no version or no constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SemverError {
    /// Not a version.
    #[error("{0:?} is not a semantic version")]
    Version(String),
    /// Not a constraint.
    #[error("improper constraint: {0:?}")]
    Constraint(String),
}

/// A semantic version.
#[derive(Clone, Debug)]
pub struct Version {
    /// The first number.
    pub major: u64,
    /// The second number; 0 where it was left out.
    pub minor: u64,
    /// The third number; 0 where it was left out.
    pub patch: u64,
    /// What follows the first `-`.
    pub prerelease: String,
    /// What follows `+`; it does not count in comparisons.
    pub metadata: String,
    /// The text it was read from.
    pub original: String,
}

fn version_regex() -> &'static Regex {
    static REGEX: OnceLock<Regex> = OnceLock::new();
    REGEX.get_or_init(|| {
        Regex::new(concat!(
            r"^v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?",
            r"(?:-([0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*))?",
            r"(?:\+([0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*))?$"
        ))
        .expect("the expression is well-formed")
    })
}

impl Version {
    /// Reads a version; a leading `v` and missing numbers are allowed.
    pub fn parse(text: &str) -> Result<Self, SemverError> {
        let fail = || SemverError::Version(text.chars().take(80).collect());
        if text.len() > LENGTH {
            return Err(fail());
        }
        let captures = version_regex().captures(text).ok_or_else(fail)?;
        let number = |index| match captures.get(index) {
            None => Ok(0),
            Some(digits) => digits.as_str().parse().map_err(|_| fail()),
        };
        let text_at = |index| {
            captures
                .get(index)
                .map_or("", |part| part.as_str())
                .to_owned()
        };
        let version = Self {
            major: number(1)?,
            minor: number(2)?,
            patch: number(3)?,
            prerelease: text_at(4),
            metadata: text_at(5),
            original: text.to_owned(),
        };
        let leading_zero = version.prerelease.split('.').any(|part| {
            part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit())
        });
        if leading_zero {
            return Err(fail());
        }
        Ok(version)
    }

    /// Compares by precedence: metadata does not count.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let numbers = |version: &Self| (version.major, version.minor, version.patch);
        numbers(self)
            .cmp(&numbers(other))
            .then_with(|| compare_prereleases(&self.prerelease, &other.prerelease))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if !self.prerelease.is_empty() {
            write!(f, "-{}", self.prerelease)?;
        }
        if !self.metadata.is_empty() {
            write!(f, "+{}", self.metadata)?;
        }
        Ok(())
    }
}

fn compare_prereleases(left: &str, right: &str) -> Ordering {
    match (left.is_empty(), right.is_empty()) {
        (true, true) => return Ordering::Equal,
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let mut left = left.split('.');
    let mut right = right.split('.');
    loop {
        let (left, right) = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(left), Some(right)) => (left, right),
        };
        let order = match (left.parse::<u64>(), right.parse::<u64>()) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => left.cmp(right),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Which versions are wanted.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// One of these has to hold, all of it.
    alternatives: Vec<Vec<Comparison>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Tilde,
    Caret,
}

#[derive(Clone, Debug)]
struct Comparison {
    operator: Operator,
    version: Version,
    /// Some number was left out or a wildcard.
    dirty: bool,
    /// The second number was.
    minor_dirty: bool,
    /// The third number was, and not the second.
    patch_dirty: bool,
}

/// A version in a constraint, which may have wildcards; the groups inside are nameless.
const WILD: &str = concat!(
    r"v?[0-9|xX*]+(?:\.[0-9|xX*]+)?(?:\.[0-9|xX*]+)?",
    r"(?:-[0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*)?",
    r"(?:\+[0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*)?"
);

const OPERATORS: &str = r"=||!=|>|<|>=|=>|<=|=<|~|~>|\^";

struct Expressions {
    range: Regex,
    valid: Regex,
    find: Regex,
    one: Regex,
}

fn expressions() -> &'static Expressions {
    static EXPRESSIONS: OnceLock<Expressions> = OnceLock::new();
    EXPRESSIONS.get_or_init(|| {
        let regex = |text: String| Regex::new(&text).expect("the expression is well-formed");
        Expressions {
            range: regex(format!(r"\s*({WILD})\s+-\s+({WILD})\s*")),
            valid: regex(format!(
                r"^(?:\s*(?:{OPERATORS})\s*(?:{WILD})\s*)(?:(?:\s+|,\s*)(?:{OPERATORS})\s*(?:{WILD})\s*)*$"
            )),
            find: regex(format!(r"(?:{OPERATORS})\s*(?:{WILD})")),
            one: regex(format!(
                r"^\s*({OPERATORS})\s*v?([0-9|xX*]+)(?:\.([0-9|xX*]+))?(?:\.([0-9|xX*]+))?((?:-[0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*)?)((?:\+[0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*)?)\s*$"
            )),
        }
    })
}

impl Constraint {
    /// Reads a constraint; an empty alternative is every release.
    pub fn parse(text: &str) -> Result<Self, SemverError> {
        let fail = || SemverError::Constraint(text.chars().take(80).collect());
        if text.len() > LENGTH {
            return Err(fail());
        }
        let expressions = expressions();
        let ranges = expressions.range.replace_all(text, ">= $1, <= $2 ");
        let mut alternatives = Vec::new();
        for alternative in ranges.split("||") {
            if !expressions.valid.is_match(alternative) {
                return Err(fail());
            }
            let mut comparisons = Vec::new();
            for comparison in expressions.find.find_iter(alternative) {
                comparisons.push(Comparison::parse(comparison.as_str()).ok_or_else(fail)?);
            }
            alternatives.push(comparisons);
        }
        Ok(Self { alternatives })
    }

    /// Whether a version satisfies it.
    #[must_use]
    pub fn check(&self, version: &Version) -> bool {
        self.alternatives
            .iter()
            .any(|all| all.iter().all(|comparison| comparison.holds(version)))
    }
}

impl Comparison {
    fn parse(text: &str) -> Option<Self> {
        let captures = expressions().one.captures(text)?;
        let part = |index| captures.get(index).map_or("", |part| part.as_str());
        let wild = |text: &str| matches!(text, "" | "x" | "X" | "*");
        let operator = match part(1) {
            "" | "=" => Operator::Equal,
            "!=" => Operator::NotEqual,
            ">" => Operator::Greater,
            "<" => Operator::Less,
            ">=" | "=>" => Operator::GreaterOrEqual,
            "<=" | "=<" => Operator::LessOrEqual,
            "~" | "~>" => Operator::Tilde,
            "^" => Operator::Caret,
            _ => return None,
        };
        let (major, minor, patch) = (part(2), part(3), part(4));
        let (mut minor_dirty, mut patch_dirty) = (false, false);
        let (dirty, version) = if wild(major) {
            (true, format!("0.0.0{}", part(5)))
        } else if wild(minor) {
            minor_dirty = true;
            (true, format!("{major}.0.0{}", part(5)))
        } else if wild(patch) {
            patch_dirty = true;
            (true, format!("{major}.{minor}.0{}", part(5)))
        } else {
            (
                false,
                format!("{major}.{minor}.{patch}{}{}", part(5), part(6)),
            )
        };
        Some(Self {
            operator,
            version: Version::parse(&version).ok()?,
            dirty,
            minor_dirty,
            patch_dirty,
        })
    }

    fn holds(&self, version: &Version) -> bool {
        let wanted = &self.version;
        let stray_prerelease = !version.prerelease.is_empty() && wanted.prerelease.is_empty();
        if stray_prerelease && (self.operator != Operator::NotEqual || self.dirty) {
            return false;
        }
        let order = version.compare(wanted);
        match self.operator {
            Operator::NotEqual => self.differs(version),
            Operator::Greater => {
                if !self.dirty || version.major != wanted.major {
                    return if self.dirty {
                        version.major > wanted.major
                    } else {
                        order.is_gt()
                    };
                }
                if self.minor_dirty {
                    false
                } else if self.patch_dirty {
                    version.minor > wanted.minor
                } else {
                    order.is_gt()
                }
            }
            Operator::Less => order.is_lt(),
            Operator::GreaterOrEqual => order.is_ge(),
            Operator::LessOrEqual => {
                if !self.dirty {
                    return order.is_le();
                }
                version.major < wanted.major
                    || (version.major == wanted.major
                        && (version.minor <= wanted.minor || self.minor_dirty))
            }
            Operator::Equal if !self.dirty => order.is_eq(),
            Operator::Equal | Operator::Tilde => {
                let anything = (wanted.major, wanted.minor, wanted.patch) == (0, 0, 0)
                    && !self.minor_dirty
                    && !self.patch_dirty;
                order.is_ge()
                    && (anything
                        || (version.major == wanted.major
                            && (version.minor == wanted.minor || self.minor_dirty)))
            }
            Operator::Caret => self.is_compatible(version, order),
        }
    }

    fn differs(&self, version: &Version) -> bool {
        let wanted = &self.version;
        if self.dirty {
            if wanted.major != version.major {
                return true;
            }
            if wanted.minor != version.minor && !self.minor_dirty {
                return true;
            }
            if self.minor_dirty {
                return false;
            }
            if wanted.patch != version.patch && !self.patch_dirty {
                return true;
            }
            if self.patch_dirty {
                return (!version.prerelease.is_empty() || !wanted.prerelease.is_empty())
                    && compare_prereleases(&version.prerelease, &wanted.prerelease).is_ne();
            }
        }
        version.compare(wanted).is_ne()
    }

    fn is_compatible(&self, version: &Version, order: Ordering) -> bool {
        let wanted = &self.version;
        if order.is_lt() {
            return false;
        }
        if wanted.major > 0 || self.minor_dirty {
            return version.major == wanted.major;
        }
        if version.major > 0 {
            return false;
        }
        if wanted.minor > 0 || self.patch_dirty {
            return version.minor == wanted.minor;
        }
        version.minor == 0 && version.patch == wanted.patch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn constraints_hold_as_documented() {
        for (constraint, version, holds) in [
            ("^1.2.3", "1.9.0", true),
            ("^1.2.3", "2.0.0", false),
            ("^0.2.3", "0.2.9", true),
            ("^0.2.3", "0.3.0", false),
            ("^0.0.3", "0.0.4", false),
            ("^0", "0.9.9", true),
            ("~1.2.3", "1.2.9", true),
            ("~1.2.3", "1.3.0", false),
            ("~1", "1.9.9", true),
            ("1.x", "1.4.2", true),
            ("1.2.x", "1.3.0", false),
            ("*", "0.0.1", true),
            ("*", "1.0.0-rc1", false),
            (">=1.0.0-0", "1.0.0-rc1", true),
            (">=1.19-0", "v1.29.0-eks-1", true),
            (">=1.19", "v1.29.0-eks-1", false),
            ("1.2 - 1.4", "1.4.0", true),
            ("1.2 - 1.4.5", "1.4.6", false),
            (">1.2, <1.5", "1.3.0", true),
            (">1.2 <1.5", "1.2.9", false),
            ("<1.0.0 || >=2.0.0", "2.1.0", true),
            ("<1.0.0 || >=2.0.0", "1.1.0", false),
            ("!=1.2.3", "1.2.4", true),
            ("!=1.x", "1.2.4", false),
            ("=1.2.3+meta", "1.2.3", true),
            (">11", "11.1.0", false),
            (">11.1", "11.2.0", true),
            ("<=11", "11.9.0", true),
        ] {
            let read = Constraint::parse(constraint).unwrap();
            assert_eq!(
                read.check(&Version::parse(version).unwrap()),
                holds,
                "{constraint} on {version}"
            );
        }
    }

    #[test]
    fn what_is_no_constraint_is_refused() {
        for text in ["badConstraint", ">=", "1.2.3.4", "> > 1", "^"] {
            assert!(
                Constraint::parse(text).is_err(),
                "{text:?} says nothing about versions"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_the_reader(text in ".{0,40}", version in "[0-9v.x*+-]{0,20}") {
            let _ = Constraint::parse(&text);
            if let (Ok(constraint), Ok(version)) = (Constraint::parse(&version), Version::parse(&version)) {
                let _ = constraint.check(&version);
            }
        }

        #[test]
        fn printing_undoes_reading(major: u64, minor: u64, patch: u64, pre in "(a[0-9a-z]{0,4})?") {
            let dash = if pre.is_empty() { "" } else { "-" };
            let text = format!("{major}.{minor}.{patch}{dash}{pre}");
            prop_assert_eq!(Version::parse(&text).unwrap().to_string(), text);
        }
    }
}
