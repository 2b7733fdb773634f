//! Which blocks an update is for: the `SEL` of `lock --update SEL…`.
//!
//! ```text
//! release            every release          catalog:REF    a catalog and its packages
//! rules              the rule files         package:NAME   a package, in whichever catalog
//! image:GLOB         additional images      chart:REF      a chart, in every version
//! file:REF           a plain file
//! ```
//!
//! In a `GLOB`, `*` stays within one segment of a path and `**` does not. A name that equals the text itself always
//! matches, so an image can be named without thinking of globs.

use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};

use super::key::BlockKey;
use super::text::nearest;
use crate::hint::Hint;

/// A choice of blocks.
#[derive(Clone, Debug)]
pub enum Selector {
    /// Every release.
    Release,
    /// The rule files.
    Rules,
    /// A catalog and its packages, by the catalog's `ref`.
    Catalog(String),
    /// A package, by its name.
    Package(String),
    /// Additional images, by their `ref`.
    Image {
        /// The pattern as written.
        text: String,
        /// The pattern, compiled.
        glob: GlobMatcher,
    },
    /// A chart in every version, by its `ref`.
    Chart(String),
    /// A plain file, by its `ref`.
    File(String),
}

/// The kinds that stand before a colon.
const KINDS: [&str; 5] = ["catalog", "package", "image", "chart", "file"];

/// The words that stand alone.
const WORDS: [&str; 2] = ["release", "rules"];

/// Why a text selects nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SelectorError {
    /// An unknown kind.
    #[error(
        "{text:?} selects nothing: expected release, rules, catalog:REF, package:NAME, image:GLOB, chart:REF or file:REF"
    )]
    Kind {
        /// What was read.
        text: String,
        /// The known kind that it resembles.
        nearest: Option<&'static str>,
    },
    /// A kind without a name.
    #[error("{text:?} names nothing behind the colon")]
    Nameless {
        /// What was read.
        text: String,
    },
    /// A name behind a word that takes none.
    #[error("{word} takes no name, found {text:?}")]
    Named {
        /// The word.
        word: &'static str,
        /// What was read.
        text: String,
    },
    /// A malformed pattern.
    #[error("{text:?} is not a pattern")]
    Glob {
        /// What was read.
        text: String,
        /// What is wrong with it.
        source: globset::Error,
    },
}

impl Hint for SelectorError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Kind {
                nearest: Some(nearest),
                ..
            } => Some(format!("did you mean {nearest}?")),
            _ => None,
        }
    }
}

impl Selector {
    /// Whether the block called `key` is among those chosen.
    #[must_use]
    pub fn matches(&self, key: &BlockKey) -> bool {
        match (self, key) {
            (Self::Release, BlockKey::Release { .. } | BlockKey::Payload { .. })
            | (Self::Rules, BlockKey::Rule { .. }) => true,
            (
                Self::Catalog(name),
                BlockKey::Catalog { reference, .. }
                | BlockKey::Package {
                    catalog: reference, ..
                },
            )
            | (Self::Chart(name), BlockKey::Chart { reference, .. })
            | (Self::File(name), BlockKey::File { reference }) => name == reference,
            (Self::Package(wanted), BlockKey::Package { name, .. }) => wanted == name,
            (Self::Image { text, glob }, BlockKey::Image { reference, .. }) => {
                text == reference || glob.is_match(reference)
            }
            _ => false,
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        let named = |word| SelectorError::Named {
            word,
            text: text.to_owned(),
        };
        match (kind, name) {
            ("release", None) => return Ok(Self::Release),
            ("rules", None) => return Ok(Self::Rules),
            ("release", Some(_)) => return Err(named("release")),
            ("rules", Some(_)) => return Err(named("rules")),
            _ => {}
        }
        if !KINDS.contains(&kind) {
            let known = [&KINDS[..], &WORDS[..]].concat();
            return Err(SelectorError::Kind {
                text: text.to_owned(),
                nearest: nearest(kind, &known),
            });
        }
        let name = name
            .filter(|name| !name.is_empty())
            .ok_or_else(|| SelectorError::Nameless {
                text: text.to_owned(),
            })?
            .to_owned();
        Ok(match kind {
            "catalog" => Self::Catalog(name),
            "package" => Self::Package(name),
            "chart" => Self::Chart(name),
            "file" => Self::File(name),
            _ => {
                let glob = GlobBuilder::new(&name)
                    .literal_separator(true)
                    .build()
                    .map_err(|source| SelectorError::Glob {
                        text: text.to_owned(),
                        source,
                    })?
                    .compile_matcher();
                Self::Image { text: name, glob }
            }
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Release => formatter.write_str("release"),
            Self::Rules => formatter.write_str("rules"),
            Self::Catalog(name) => write!(formatter, "catalog:{name}"),
            Self::Package(name) => write!(formatter, "package:{name}"),
            Self::Image { text, .. } => write!(formatter, "image:{text}"),
            Self::Chart(name) => write!(formatter, "chart:{name}"),
            Self::File(name) => write!(formatter, "file:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::text::parse;

    const SAMPLE: &str = include_str!("../../tests/data/lock/sample.lock.toml");

    #[test]
    fn a_selector_chooses_the_blocks_it_names() {
        let lock = parse(SAMPLE, "sample").unwrap();
        let mut keys: Vec<BlockKey> = lock.blocks().map(|block| block.key()).collect();
        keys.extend(
            lock.rules
                .keys()
                .map(|name| BlockKey::Rule { name: name.clone() }),
        );
        for (text, chosen) in [
            ("release", vec!["release"]),
            ("rules", vec!["rule"; 5]),
            (
                "catalog:registry.redhat.io/redhat/redhat-operator-index:v4.16",
                vec!["catalog", "package", "package"],
            ),
            ("catalog:registry.redhat.io/redhat/other:v4.16", vec![]),
            ("package:odf-operator", vec!["package"]),
            ("image:registry.redhat.io/ubi9/ubi:9.4", vec!["image"]),
            ("image:registry.redhat.io/ubi9/*", vec!["image"]),
            ("image:registry.redhat.io/*", vec![]),
            ("image:registry.redhat.io/**", vec!["image"]),
            (
                "chart:https://sigstore.github.io/helm-charts#cosigned",
                vec!["chart"],
            ),
            ("file:https://example.test/a", vec![]),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.to_string(), text, "printing must undo parsing");
            let kinds: Vec<&str> = keys
                .iter()
                .filter(|key| selector.matches(key))
                .map(BlockKey::kind)
                .collect();
            assert_eq!(kinds, chosen, "{text} chooses these");
        }
    }

    #[test]
    fn an_ipv6_registry_is_matched_as_it_is_written() {
        let key = BlockKey::Image {
            reference: "[::1]:5000/a:1".to_owned(),
            target: None,
        };
        let selector: Selector = "image:[::1]:5000/a:1".parse().unwrap();
        assert!(selector.matches(&key), "brackets are not a glob there");
    }

    #[test]
    fn what_selects_nothing_is_refused_by_name() {
        for (text, says, hint) in [
            ("", "selects nothing", None),
            ("images:a", "\"images:a\" selects nothing", Some("image")),
            ("relaese", "selects nothing", Some("release")),
            ("package", "names nothing", None),
            ("package:", "names nothing", None),
            ("release:4.16", "release takes no name", None),
            ("image:[a", "is not a pattern", None),
        ] {
            let error = text.parse::<Selector>().unwrap_err();
            assert!(error.to_string().contains(says), "{text:?} gave {error}");
            if let Some(hint) = hint {
                assert!(
                    error.hint().unwrap_or_default().contains(hint),
                    "{text:?} must advise {hint}"
                );
            }
        }
    }
}
