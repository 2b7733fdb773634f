//! `minVersion` and `maxVersion`, read and applied as each selection does.

use std::cmp::Ordering;

use super::{Prereleases, Selection};
use crate::openshift::version::{Identifier, Version, VersionError};

/// One end of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) version: Version,
    /// How many of the three numbers were written.
    parts: usize,
}

impl Bound {
    pub(super) fn parse(text: &str, selection: Selection) -> Result<Self, VersionError> {
        let version = match selection {
            Selection::V1 => text.parse()?,
            _ => Version::parse_tolerant(text)?,
        };
        let core = text.split(['-', '+']).next().unwrap_or_default();
        Ok(Self {
            version,
            parts: core.split('.').count().min(3),
        })
    }

    /// Whether `version` is this one, as `v1` compares: a re-spin `2.2.0-0` is `2.2.0`.
    pub(super) fn is(&self, version: &Version) -> bool {
        let numbers = |version: &Version| (version.major, version.minor, version.patch);
        self.version.same_release(version)
            || numbers(&self.version) == numbers(version)
                && self.version.pre.is_empty()
                && matches!(version.pre[..], [Identifier::Number(_)])
    }
}

/// Versions from one to another, both included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) min: Option<Bound>,
    pub(super) max: Option<Bound>,
}

/// How a version stands to [`Bounds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    In,
    Out,
    /// It would be in, were it not a pre-release.
    Prerelease,
}

impl Bounds {
    pub(super) fn is_empty(&self) -> bool {
        self.min.is_none() && self.max.is_none()
    }

    pub(super) fn standing(
        &self,
        version: &Version,
        selection: Selection,
        prereleases: Prereleases,
    ) -> Standing {
        let above = self
            .min
            .as_ref()
            .is_none_or(|min| version.precedence(&min.version).is_ge());
        let below = self.max.as_ref().is_none_or(|max| {
            if selection == Selection::EveryChannel && max.parts < 3 {
                // A maximum of 5.6 is the whole of 5.6.
                let numbers = (version.major, version.minor);
                let most = (max.version.major, max.version.minor);
                match max.parts {
                    1 => numbers.0 <= most.0,
                    _ => numbers <= most,
                }
            } else {
                version.precedence(&max.version) != Ordering::Greater
            }
        });
        if !(above && below) {
            return Standing::Out;
        }
        let asked = [&self.min, &self.max]
            .into_iter()
            .flatten()
            .any(|bound| !bound.version.pre.is_empty());
        if prereleases == Prereleases::Exclude && !version.pre.is_empty() && !asked {
            Standing::Prerelease
        } else {
            Standing::In
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(min: &str, max: &str, version: &str, selection: Selection) -> bool {
        let bound = |text: &str| (!text.is_empty()).then(|| Bound::parse(text, selection).unwrap());
        let bounds = Bounds {
            min: bound(min),
            max: bound(max),
        };
        let standing = bounds.standing(
            &version.parse().unwrap(),
            selection,
            selection.prereleases(),
        );
        standing == Standing::In
    }

    /// The table of pre-releases: version, then `>=5.6.0`, `>=5.6.0-0`, `>=5.6.1-4`, `<=5.6.1`.
    const TABLE: [(&str, [bool; 4]); 6] = [
        ("5.6.0", [true, true, false, true]),
        ("5.6.1-3", [false, true, false, false]),
        ("5.6.1-4", [false, true, true, false]),
        ("5.6.1", [true, true, true, true]),
        ("5.6.1+build7", [true, true, true, true]),
        ("5.7.0", [true, true, true, false]),
    ];

    #[test]
    fn pre_releases_count_as_the_table_says() {
        for (version, expected) in TABLE {
            for ((min, max), expected) in [
                ("5.6.0", ""),
                ("5.6.0-0", ""),
                ("5.6.1-4", ""),
                ("", "5.6.1"),
            ]
            .into_iter()
            .zip(expected)
            {
                assert_eq!(
                    holds(min, max, version, Selection::EveryChannel),
                    expected,
                    "{version} from {min:?} to {max:?}"
                );
                let plain = version.parse::<Version>().unwrap();
                let order = holds(min, max, version, Selection::DefaultChannel);
                assert!(
                    order || !expected,
                    "{plain}: the order alone never takes less"
                );
            }
        }
        assert!(
            holds("5.6.0", "", "5.6.1-3", Selection::DefaultChannel),
            "by default only the order counts"
        );
    }

    #[test]
    fn a_short_maximum_is_what_the_selection_makes_of_it() {
        for (max, version, every, default) in [
            ("5.6", "5.6.9", true, false),
            ("5.6", "5.7.0", false, false),
            ("5", "5.9.9", true, false),
            ("5", "6.0.0", false, false),
            ("5.6.0", "5.6.0", true, true),
        ] {
            assert_eq!(
                holds("", max, version, Selection::EveryChannel),
                every,
                "<={max} {version}"
            );
            assert_eq!(
                holds("", max, version, Selection::DefaultChannel),
                default,
                "<={max} {version}"
            );
        }
        assert!(
            Bound::parse("5.6", Selection::V1).is_err(),
            "v1 takes full versions only"
        );
        for (bound, version, same) in [
            ("2.2.0", "2.2.0-0", true),
            ("2.2.0", "2.2.0-31", true),
            ("2.2.0", "2.2.0", true),
            ("2.2.0", "2.2.0+x", true),
            ("2.2.0", "2.2.0-rc", false),
            ("2.2.0-0", "2.2.0", false),
        ] {
            let bound = Bound::parse(bound, Selection::V1).unwrap();
            assert_eq!(
                bound.is(&version.parse().unwrap()),
                same,
                "{bound:?} {version}"
            );
        }
    }
}
