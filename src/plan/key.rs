//! What blocks are called, what a digest is to its block, and how names sort.
//!
//! [`BlockKey`] sorts as blocks stand in the file, so a map by key is a lock in order: sections as in the file, then
//! by name, a release before its payloads and a catalog before its packages. Versions sort by precedence of Semantic
//! Versioning 2.0.0, section 11.

use std::cmp::Ordering;
use std::fmt;

/// What a release is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReleaseName {
    /// A channel of the update graph.
    Channel(String),
    /// A payload, by a reference.
    Reference(String),
}

impl ReleaseName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Channel(text) | Self::Reference(text) => text,
        }
    }
}

/// Names a block; keys sort as their blocks stand in the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BlockKey {
    /// One line of the rules.
    Rule {
        /// The rule.
        name: String,
    },
    /// A release.
    Release {
        /// The channel or reference.
        name: ReleaseName,
        /// The architecture.
        arch: String,
    },
    /// One version within a release, for what concerns it alone (comments, merges).
    Payload {
        /// The channel or reference.
        release: ReleaseName,
        /// The architecture.
        arch: String,
        /// The version.
        version: String,
    },
    /// A catalog, without its packages.
    Catalog {
        /// Its name as the user wrote it.
        reference: String,
        /// The name it is published by, if one was asked for.
        target: Option<String>,
    },
    /// A package of a catalog.
    Package {
        /// The catalog's name as the user wrote it.
        catalog: String,
        /// The name the catalog is published by, if one was asked for.
        target: Option<String>,
        /// The package.
        name: String,
    },
    /// An additional image.
    Image {
        /// Its name as the user wrote it.
        reference: String,
        /// The name it is published by, if one was asked for.
        target: Option<String>,
    },
    /// A chart.
    Chart {
        /// Its name as the user wrote it.
        reference: String,
        /// The version that was asked for, if one was.
        version: Option<String>,
    },
    /// A plain file.
    File {
        /// Its name as the user wrote it.
        reference: String,
    },
    /// A pattern of blocked images.
    Blocked {
        /// The pattern.
        name: String,
    },
    /// An image that is left out.
    Skip {
        /// The image.
        image: String,
    },
}

impl BlockKey {
    /// The kind of block, as `diff --format json` spells it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Rule { .. } => "rule",
            Self::Release { .. } => "release",
            Self::Payload { .. } => "payload",
            Self::Catalog { .. } => "catalog",
            Self::Package { .. } => "package",
            Self::Image { .. } => "image",
            Self::Chart { .. } => "chart",
            Self::File { .. } => "file",
            Self::Blocked { .. } => "blocked",
            Self::Skip { .. } => "skip",
        }
    }

    /// What tells it from others of its kind, outermost first; an optional part that is absent is left out.
    #[must_use]
    pub fn parts(&self) -> Vec<&str> {
        match self {
            Self::Release { name, arch } => vec![name.as_str(), arch],
            Self::Payload {
                release,
                arch,
                version,
            } => vec![release.as_str(), arch, version],
            Self::Catalog { reference, target } | Self::Image { reference, target } => {
                std::iter::once(reference.as_str())
                    .chain(target.as_deref())
                    .collect()
            }
            Self::Package {
                catalog,
                target,
                name,
            } => std::iter::once(catalog.as_str())
                .chain(target.as_deref())
                .chain([name.as_str()])
                .collect(),
            Self::Chart { reference, version } => std::iter::once(reference.as_str())
                .chain(version.as_deref())
                .collect(),
            Self::Rule { name } | Self::Blocked { name } => vec![name],
            Self::File { reference } => vec![reference],
            Self::Skip { image } => vec![image],
        }
    }

    /// The block that this one stands in: the release of a payload, the catalog of a package.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        match self {
            Self::Payload { release, arch, .. } => Some(Self::Release {
                name: release.clone(),
                arch: arch.clone(),
            }),
            Self::Package {
                catalog, target, ..
            } => Some(Self::Catalog {
                reference: catalog.clone(),
                target: target.clone(),
            }),
            _ => None,
        }
    }

    const fn section(&self) -> u8 {
        match self {
            Self::Rule { .. } => 0,
            Self::Release { .. } | Self::Payload { .. } => 1,
            Self::Catalog { .. } | Self::Package { .. } => 2,
            Self::Image { .. } => 3,
            Self::Chart { .. } => 4,
            Self::File { .. } => 5,
            Self::Blocked { .. } => 6,
            Self::Skip { .. } => 7,
        }
    }
}

impl Ord for BlockKey {
    fn cmp(&self, other: &Self) -> Ordering {
        /// A release or payload: name, architecture, version.
        fn release(key: &BlockKey) -> Option<(&ReleaseName, &str, Option<Version<'_>>)> {
            match key {
                BlockKey::Release { name, arch } => Some((name, arch, None)),
                BlockKey::Payload {
                    release,
                    arch,
                    version,
                } => Some((release, arch, Some(Version::of(version)))),
                _ => None,
            }
        }
        /// Anything else: its texts, an absent one before any other.
        fn texts(key: &BlockKey) -> (&str, Option<&str>, Option<&str>) {
            match key {
                BlockKey::Catalog { reference, target } | BlockKey::Image { reference, target } => {
                    (reference, target.as_deref(), None)
                }
                BlockKey::Package {
                    catalog,
                    target,
                    name,
                } => (catalog, target.as_deref(), Some(name)),
                BlockKey::Rule { name } | BlockKey::Blocked { name } => (name, None, None),
                BlockKey::Chart { reference, .. } | BlockKey::File { reference } => {
                    (reference, None, None)
                }
                BlockKey::Skip { image } => (image, None, None),
                BlockKey::Release { name, .. } | BlockKey::Payload { release: name, .. } => {
                    (name.as_str(), None, None)
                }
            }
        }
        fn chart(key: &BlockKey) -> Option<Version<'_>> {
            match key {
                BlockKey::Chart { version, .. } => version.as_deref().map(Version::of),
                _ => None,
            }
        }
        self.section()
            .cmp(&other.section())
            .then_with(|| release(self).cmp(&release(other)))
            .then_with(|| texts(self).cmp(&texts(other)))
            .then_with(|| chart(self).cmp(&chart(other)))
    }
}

impl PartialOrd for BlockKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ", self.kind())?;
        let (text, target) = match self {
            Self::Release { name, arch } => {
                return write!(formatter, "{} {arch}", name.as_str());
            }
            Self::Payload {
                release,
                arch,
                version,
            } => return write!(formatter, "{version} in {} {arch}", release.as_str()),
            Self::Package {
                catalog,
                target,
                name,
            } => {
                write!(formatter, "{name} in ")?;
                (catalog, target)
            }
            Self::Catalog { reference, target } | Self::Image { reference, target } => {
                (reference, target)
            }
            Self::Chart {
                reference,
                version: Some(version),
            } => return write!(formatter, "{reference} {version}"),
            Self::Rule { name } | Self::Blocked { name } => (name, &None),
            Self::Chart { reference, .. } | Self::File { reference } => (reference, &None),
            Self::Skip { image } => (image, &None),
        };
        formatter.write_str(text)?;
        match target {
            Some(target) => write!(formatter, " as {target}"),
            None => Ok(()),
        }
    }
}

/// What a pinned digest is to its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role<'a> {
    /// The image of a release payload.
    Payload {
        /// The version.
        version: &'a str,
    },
    /// An image that a release payload is made of.
    Component {
        /// The version.
        version: &'a str,
        /// Its name in the payload.
        name: &'a str,
    },
    /// The image of a catalog.
    Catalog,
    /// The image of a bundle.
    Bundle {
        /// The bundle.
        name: &'a str,
    },
    /// An image that a bundle of the package names.
    Related,
    /// An additional image.
    Image,
    /// A chart that is an image.
    Chart,
    /// An image that a chart needs.
    ChartImage,
    /// A plain file, or a chart that is a file.
    File,
    /// The catalog fragment of a package.
    Fragment,
    /// A catalog image that is known to hold the fragment.
    FragmentSource,
    /// A signature of a pin.
    Signature {
        /// Which of the places that were looked at had it.
        from: &'a str,
    },
    /// A rule file.
    Rule,
}

impl Role<'_> {
    /// The word for it, as `diff --format json` spells it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Component { .. } => "component",
            Self::Catalog => "catalog",
            Self::Bundle { .. } => "bundle",
            Self::Related => "related",
            Self::Image => "image",
            Self::Chart => "chart",
            Self::ChartImage => "chart-image",
            Self::File => "file",
            Self::Fragment => "fragment",
            Self::FragmentSource => "fragment-source",
            Self::Signature { .. } => "signature",
            Self::Rule => "rule",
        }
    }

    /// The name it has within its block, if it has one.
    #[must_use]
    pub const fn name(&self) -> Option<&str> {
        match self {
            Self::Payload { version: name }
            | Self::Component { name, .. }
            | Self::Bundle { name }
            | Self::Signature { from: name } => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Role<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload { version } => write!(formatter, "payload {version}"),
            Self::Component { version, name } => write!(formatter, "component {name} of {version}"),
            Self::Catalog => formatter.write_str("catalog image"),
            Self::Bundle { name } => write!(formatter, "bundle {name}"),
            Self::Related => formatter.write_str("related image"),
            Self::Image => formatter.write_str("image"),
            Self::Chart => formatter.write_str("chart"),
            Self::ChartImage => formatter.write_str("image of the chart"),
            Self::File => formatter.write_str("file"),
            Self::Fragment => formatter.write_str("catalog fragment"),
            Self::FragmentSource => formatter.write_str("catalog that holds the fragment"),
            Self::Signature { from } => write!(formatter, "signature ({from})"),
            Self::Rule => formatter.write_str("rule file"),
        }
    }
}

/// Digits that compare by value, whatever their number.
type Digits<'a> = (usize, &'a str);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier<'a> {
    Number(Digits<'a>),
    Text(&'a str),
}

/// A version as it is ordered: by precedence of Semantic Versioning 2.0.0 (section 11), then as text, so that two
/// versions are equal only if they are written alike. A leading `v` and missing numbers are allowed; a text that is
/// no version stands behind those that are.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version<'a> {
    is_other: bool,
    numbers: [Digits<'a>; 3],
    /// A version without pre-release identifiers stands behind those with.
    is_final: bool,
    pre: Vec<Identifier<'a>>,
    text: &'a str,
}

impl<'a> Version<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self::parse(text, 1).unwrap_or(Self {
            is_other: true,
            numbers: [(0, ""); 3],
            is_final: true,
            pre: Vec::new(),
            text,
        })
    }

    /// Reads a version with at least `least` numbers.
    fn parse(text: &'a str, least: usize) -> Option<Self> {
        fn digits(text: &str) -> Option<Digits<'_>> {
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let text = text.trim_start_matches('0');
            Some((text.len(), text))
        }
        let rest = text.strip_prefix('v').unwrap_or(text);
        let rest = rest.split_once('+').map_or(rest, |(rest, _)| rest);
        let (core, pre) = match rest.split_once('-') {
            Some((core, pre)) => (core, Some(pre)),
            None => (rest, None),
        };
        let mut numbers = [(0, ""); 3];
        let mut count = 0;
        for number in core.split('.') {
            *numbers.get_mut(count)? = digits(number)?;
            count += 1;
        }
        let identifiers = |pre: &'a str| {
            pre.split('.')
                .map(|identifier| match digits(identifier) {
                    Some(number) => Some(Identifier::Number(number)),
                    None if identifier.is_empty() => None,
                    None => Some(Identifier::Text(identifier)),
                })
                .collect::<Option<Vec<_>>>()
        };
        (count >= least).then_some(Self {
            is_other: false,
            numbers,
            is_final: pre.is_none(),
            pre: match pre {
                Some(pre) => identifiers(pre)?,
                None => Vec::new(),
            },
            text,
        })
    }
}

/// The version in the name of a bundle (`odf-operator.v4.16.1-rhodf`), if there is one.
pub(super) fn bundle_version(name: &str) -> Option<&str> {
    let tails = || name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
    tails()
        .find(|tail| Version::parse(tail, 3).is_some())
        .or_else(|| tails().find(|tail| Version::parse(tail, 1).is_some()))
        .map(|tail| tail.strip_prefix('v').unwrap_or(tail))
}

/// The order of bundles: by version, those without one last, then by name.
pub(super) fn bundle_order(left: &str, right: &str) -> Ordering {
    fn key(name: &str) -> (bool, Option<Version<'_>>, &str) {
        let version = bundle_version(name).map(Version::of);
        (version.is_none(), version, name)
    }
    key(left).cmp(&key(right))
}
