//! Where images land at a destination.
//!
//! A rule's `[[place]]` says it; this module fills in the values of a pin, applies the destination's path limit, and
//! refuses a placement that would collide. The names are those of the incumbents (their layout "v2"), so a mirror
//! that they filled can go on.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::hole::HoleError;
use super::rule::{MirrorSet, Rule};
use crate::canon::Value;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::PlatformName;
use crate::reference::{ImageName, ReferenceError, Repository, Tag, is_path};
use crate::store::Blob;

/// A registry, perhaps with a prefix for every repository, as `docker://HOST[:PORT][/PREFIX]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// `HOST[:PORT]`
    pub registry: String,
    /// Path components before every repository; may be empty.
    pub prefix: String,
    /// Whether those who pull from it may ask the source as well; absent, if nobody has said.
    pub asks_source: Option<bool>,
}

impl Destination {
    /// The repository at `path` of this destination.
    ///
    /// # Errors
    /// If the path is malformed.
    pub fn repository(&self, path: &str) -> Result<Repository, ReferenceError> {
        Repository::new(&self.registry, &self.join(path))
    }

    /// `path` under the prefix.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        if self.prefix.is_empty() {
            path.to_owned()
        } else {
            format!("{}/{path}", self.prefix)
        }
    }
}

impl FromStr for Destination {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bare = match text.split_once("://") {
            Some(("docker", rest)) => rest,
            Some((transport, _)) => {
                return Err(ReferenceError::Transport {
                    text: text.to_owned(),
                    transport: transport.to_owned(),
                });
            }
            None => text,
        };
        let bare = bare.trim_end_matches('/');
        let (registry, prefix) = bare.split_once('/').unwrap_or((bare, ""));
        // The repository check covers the host, too.
        Repository::new(registry, if prefix.is_empty() { "x" } else { prefix })?;
        Ok(Self {
            registry: registry.to_owned(),
            prefix: prefix.to_owned(),
            asks_source: None,
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "docker://{}", self.join_registry())
    }
}

impl Destination {
    /// `HOST[:PORT][/PREFIX]`, without the scheme.
    #[must_use]
    pub fn join_registry(&self) -> String {
        if self.prefix.is_empty() {
            self.registry.clone()
        } else {
            format!("{}/{}", self.registry, self.prefix)
        }
    }
}

/// How a destination is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The `layout` of `[[place]]` that is chosen.
    pub name: String,
    /// Most components a path may have, the prefix included; 0 is no limit.
    pub max_nested_paths: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            name: "v2".to_owned(),
            max_nested_paths: 0,
        }
    }
}

impl Layout {
    /// The layouts that rules know.
    pub const NAMES: [&str; 4] = ["v2", "v2-4.17", "v1", "oc"];

    /// Joins what is too deep: of more than N components the first N-1 stay and the rest is one, with `-` between.
    #[must_use]
    pub fn limit(&self, path: &str) -> String {
        let parts: Vec<&str> = path.split('/').collect();
        if self.max_nested_paths == 0 || parts.len() <= self.max_nested_paths {
            return path.to_owned();
        }
        let (kept, joined) = parts.split_at(self.max_nested_paths - 1);
        let last = joined.join("-");
        if kept.is_empty() {
            last
        } else {
            format!("{}/{last}", kept.join("/"))
        }
    }
}

/// One image at its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placement {
    /// Which mirror set lists it; `None` where no mirror set may (catalogs).
    pub category: Option<String>,
    /// Whether those for pulls by digest and by tag list it.
    pub by: Vec<MirrorSet>,
    /// The block that brought it.
    pub owner: String,
    /// What it is to that block, as `of` says it.
    pub role: String,
    /// What was asked for, as written.
    pub origin: ImageName,
    /// The manifest.
    pub digest: Digest,
    /// The size of the manifest.
    pub size: u64,
    /// Only these children of an index; all, if empty.
    pub platforms: Vec<PlatformName>,
    /// The repository, relative to the destination, before its path limit.
    pub path: String,
    /// The tag.
    pub tag: Tag,
}

/// Why an image has no place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// No `[[place]]` fits.
    #[error("rule {rule:?} has no place for {image} in layout {layout:?}")]
    None {
        /// The rule.
        rule: String,
        /// The image.
        image: String,
        /// The layout.
        layout: String,
    },
    /// The place is not a repository path.
    #[error("{image} would be placed at {path:?}, which is not a repository path")]
    Path {
        /// The image.
        image: String,
        /// What the rule yields.
        path: String,
    },
    /// The tag is not a tag.
    #[error("{image} would be tagged {tag:?}, which is not a tag")]
    Tag {
        /// The image.
        image: String,
        /// What the rule yields.
        tag: String,
    },
    /// A hole could not be filled.
    #[error("rule {rule:?} cannot place {image}")]
    Hole {
        /// The rule.
        rule: String,
        /// The image.
        image: String,
        /// Why.
        source: HoleError,
    },
    /// Two images would be one.
    #[error("{first} and {second} would both be {path}:{tag} at the destination")]
    Collision {
        /// One image, with its digest.
        first: String,
        /// The other.
        second: String,
        /// The path they share.
        path: String,
        /// The tag they share.
        tag: String,
    },
}

impl Hint for PlaceError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Path { .. } | Self::Tag { .. } => {
                Some("set targetRepo and targetTag for this image".to_owned())
            }
            Self::Collision { .. } => Some(
                "set targetRepo or targetTag for one of them, or raise --max-nested-paths"
                    .to_owned(),
            ),
            Self::None { .. } => Some(format!("the layouts are {}", Layout::NAMES.join(", "))),
            Self::Hole { .. } => None,
        }
    }
}

/// An image that is to be placed.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The block that brought it, as people read it.
    pub owner: String,
    /// What was asked for.
    pub origin: &'a ImageName,
    /// What it is to its block, as `of` says it.
    pub role: &'a str,
    /// Its name in the block, if it has one.
    pub name: Option<&'a str>,
    /// The version that it is part of, if there are versions.
    pub version: Option<&'a str>,
    /// The names of the block: `ref`, `channel`, `arch`.
    pub block: Value,
    /// The request.
    pub want: Value,
    /// Where it was found, unless that is on disk.
    pub source: Option<&'a Repository>,
    /// Its manifest.
    pub blob: Blob,
    /// Only these children of an index; all, if empty.
    pub platforms: &'a [PlatformName],
}

impl<'a> Subject<'a> {
    /// An image that is its block.
    #[must_use]
    pub fn alone(origin: &'a ImageName, want: Value, blob: Blob) -> Self {
        Self {
            owner: format!("image {origin}"),
            origin,
            role: "image",
            name: None,
            version: None,
            block: Value::map([]),
            want,
            source: None,
            blob,
            platforms: &[],
        }
    }

    /// The values that places are filled from: `ref`, `want`, `pin`, `role` and `block`.
    #[must_use]
    pub fn context(&self) -> Value {
        let mut reference = BTreeMap::new();
        let mut set = |name: &str, text: String| {
            reference.insert(name.to_owned(), Value::Text(text));
        };
        match self.origin {
            ImageName::Registry(name) => {
                set("transport", "docker".to_owned());
                set("registry", name.repository.registry().to_owned());
                set("path", name.repository.path().to_owned());
                if let Some(tag) = &name.tag {
                    set("tag", tag.to_string());
                }
            }
            ImageName::Layout(name) => {
                set("transport", "oci".to_owned());
                set(
                    "path",
                    name.path
                        .trim_start_matches(['.', '/'])
                        .trim_end_matches('/')
                        .to_owned(),
                );
                let last = name.path.trim_end_matches('/').rsplit('/').next();
                set("name", last.unwrap_or_default().to_owned());
                if let Some(tag) = &name.tag {
                    set("tag", tag.to_string());
                }
            }
        }
        let digest = self.blob.digest;
        let mut pin = BTreeMap::from([
            ("digest".to_owned(), Value::Digest(digest)),
            ("hex".to_owned(), Value::Text(digest.hex())),
            (
                "short".to_owned(),
                Value::Text(digest.hex()[..6].to_owned()),
            ),
            (
                "digest-tag".to_owned(),
                Value::Text(format!("sha256-{}", digest.hex())),
            ),
        ]);
        if let Some(source) = self.source {
            pin.insert("registry".to_owned(), source.registry().into());
            pin.insert("path".to_owned(), source.path().into());
            // What `oc adm catalog mirror` names an image after: the whole reference.
            let whole = format!("{source}@{digest}");
            pin.insert("fnv".to_owned(), format!("{:x}", fnv(&whole)).into());
        }
        let mut role = BTreeMap::from([("kind".to_owned(), Value::from(self.role))]);
        if let Some(name) = self.name {
            role.insert("name".to_owned(), name.into());
        }
        if let Some(version) = self.version {
            role.insert("version".to_owned(), version.into());
        }
        Value::map([
            ("ref", Value::Map(reference)),
            ("want", self.want.clone()),
            ("pin", Value::Map(pin)),
            ("role", Value::Map(role)),
            ("block", self.block.clone()),
        ])
    }
}

/// FNV-1a, 32 bits.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Places one image by its rule.
///
/// # Errors
/// If the rule has no place for it, or the place is no name that a registry takes.
pub fn place(rule: &Rule, layout: &Layout, subject: &Subject<'_>) -> Result<Placement, PlaceError> {
    let image = || subject.origin.to_string();
    let context = subject.context();
    let place = rule
        .place(&layout.name, subject.role, &context)
        .ok_or_else(|| PlaceError::None {
            rule: rule.name.clone(),
            image: image(),
            layout: layout.name.clone(),
        })?;
    let hole = |source| PlaceError::Hole {
        rule: rule.name.clone(),
        image: image(),
        source,
    };
    let path = place
        .repository
        .fill_text(&context)
        .map_err(hole)?
        .unwrap_or_default();
    if !is_path(&path) {
        return Err(PlaceError::Path {
            image: image(),
            path,
        });
    }
    let tag = place
        .tag
        .fill_text(&context)
        .map_err(hole)?
        .unwrap_or_default();
    let tag = tag.parse().map_err(|_| PlaceError::Tag {
        image: image(),
        tag,
    })?;
    let by = place.by.clone().unwrap_or_else(|| match subject.origin {
        ImageName::Registry(name) => {
            let digest = name.digest.is_some().then_some(MirrorSet::Digest);
            let tag = name.tag.is_some().then_some(MirrorSet::Tag);
            digest.into_iter().chain(tag).collect()
        }
        // An image from a layout on disk has no name that a workload could use.
        ImageName::Layout(_) => Vec::new(),
    });
    Ok(Placement {
        category: rule.category.clone(),
        by,
        owner: subject.owner.clone(),
        role: subject.role.to_owned(),
        origin: subject.origin.clone(),
        digest: subject.blob.digest,
        size: subject.blob.size,
        platforms: subject.platforms.to_vec(),
        path,
        tag,
    })
}

/// Makes sure that no two images share a path and a tag, once `prefix` and the path limit are applied.
///
/// # Errors
/// With the first two that do.
pub fn refuse_collisions(
    placements: &[Placement],
    prefix: &str,
    layout: &Layout,
) -> Result<(), PlaceError> {
    let mut seen: BTreeMap<(String, &Tag), &Placement> = BTreeMap::new();
    for placement in placements {
        let path = if prefix.is_empty() {
            placement.path.clone()
        } else {
            format!("{prefix}/{}", placement.path)
        };
        let path = layout.limit(&path);
        match seen.entry((path, &placement.tag)) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(placement);
            }
            std::collections::btree_map::Entry::Occupied(entry)
                if entry.get().digest == placement.digest => {}
            std::collections::btree_map::Entry::Occupied(entry) => {
                let name = |placement: &Placement| {
                    format!("{} ({})", placement.origin, placement.digest.short())
                };
                return Err(PlaceError::Collision {
                    first: name(entry.get()),
                    second: name(placement),
                    path: entry.key().0.clone(),
                    tag: placement.tag.to_string(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rule::Rules;
    use super::*;

    const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn placed(name: &str, target: &str, layout: &str) -> Result<String, PlaceError> {
        let rules = Rules::embedded().unwrap();
        let rule = rules.serving("mirror.additionalImages").next().unwrap();
        let want = if target.is_empty() {
            Value::map([])
        } else {
            Value::map([("target", target.into())])
        };
        let layout = Layout {
            name: layout.to_owned(),
            max_nested_paths: 0,
        };
        let blob = Blob {
            digest: Digest::from_hex(HEX).unwrap(),
            size: 7,
        };
        place(
            rule,
            &layout,
            &Subject::alone(&name.parse().unwrap(), want, blob),
        )
        .map(|placement| format!("{}:{}", placement.path, placement.tag))
    }

    #[test]
    fn additional_images_land_where_the_incumbents_put_them() {
        let digest_only = format!("quay.io/a/b@sha256:{HEX}");
        let both = format!("quay.io/a/b:v1@sha256:{HEX}");
        let digest_tag = format!("a/b:sha256-{HEX}");
        let bare_tag = format!("a/b:{HEX}");
        for (name, target, layout, wanted) in [
            (
                "registry.redhat.io/ubi9/ubi:latest",
                "",
                "v2",
                "ubi9/ubi:latest",
            ),
            (digest_only.as_str(), "", "v2", digest_tag.as_str()),
            (digest_only.as_str(), "", "v2-4.17", bare_tag.as_str()),
            (both.as_str(), "", "v2", "a/b:v1"),
            ("quay.io/a/b:v1", "base/x:9", "v2", "base/x:9"),
            (both.as_str(), "", "oc", "a/b:v1"),
            (digest_only.as_str(), "", "v1", "a/b:2cf24d"),
            ("quay.io/a/b:v1", "base/x", "v2", "base/x:v1"),
            ("quay.io/a/b:v1", ":9", "v2", "a/b:9"),
            ("oci:///srv/images/a", "", "v2", "srv/images/a:latest"),
            ("oci:///srv/images/a", "x/y:1", "v2", "x/y:1"),
        ] {
            assert_eq!(
                placed(name, target, layout).unwrap(),
                wanted,
                "{name} to {target:?} in {layout}"
            );
        }
        let error = placed("oci:///srv/My Images", "", "v2").unwrap_err();
        assert!(
            error.hint().is_some_and(|hint| hint.contains("targetRepo")),
            "{error} can be mended by targetRepo"
        );
    }

    #[test]
    fn releases_land_where_the_incumbents_put_them() {
        let rules = Rules::embedded().unwrap();
        let rule = rules.serving("mirror.platform.channels").next().unwrap();
        let payload: ImageName = format!("quay.io/openshift-release-dev/ocp-release@sha256:{HEX}")
            .parse()
            .unwrap();
        let component: ImageName =
            format!("quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:{HEX}")
                .parse()
                .unwrap();
        let digest_tag = format!("openshift-release-dev/ocp-v4.0-art-dev:sha256-{HEX}");
        for (origin, name, arch, layout, wanted) in [
            (
                &payload,
                None,
                "amd64",
                "v2",
                "openshift/release-images:4.16.1-x86_64",
            ),
            (
                &payload,
                None,
                "arm64",
                "v1",
                "openshift/release-images:4.16.1-aarch64",
            ),
            (
                &payload,
                None,
                "s390x",
                "oc",
                "openshift/release:4.16.1-s390x",
            ),
            (
                &payload,
                None,
                "multi",
                "v2-4.17",
                "openshift-release-dev/ocp-release:4.16.1-multi",
            ),
            (
                &component,
                Some("cli"),
                "amd64",
                "v2",
                "openshift/release:4.16.1-x86_64-cli",
            ),
            (
                &component,
                Some("cli"),
                "ppc64le",
                "v1",
                "openshift/release:4.16.1-ppc64le-cli",
            ),
            (
                &component,
                Some("cli"),
                "arm64",
                "oc",
                "openshift/release:4.16.1-aarch64-cli",
            ),
            (
                &component,
                Some("cli"),
                "amd64",
                "v2-4.17",
                digest_tag.as_str(),
            ),
        ] {
            let ImageName::Registry(reference) = origin else {
                panic!("a registry")
            };
            let subject = Subject {
                owner: "release".to_owned(),
                origin,
                role: if name.is_some() {
                    "component"
                } else {
                    "payload"
                },
                name,
                version: Some("4.16.1"),
                block: Value::map([("arch", arch.into()), ("channel", "stable-4.16".into())]),
                want: Value::map([]),
                source: Some(&reference.repository),
                blob: Blob {
                    digest: Digest::from_hex(HEX).unwrap(),
                    size: 7,
                },
                platforms: &[],
            };
            let layout = Layout {
                name: layout.to_owned(),
                max_nested_paths: 0,
            };
            let placed = place(rule, &layout, &subject).unwrap();
            assert_eq!(
                format!("{}:{}", placed.path, placed.tag),
                wanted,
                "{origin} in {}",
                layout.name
            );
            let both = [MirrorSet::Digest, MirrorSet::Tag];
            assert_eq!(
                placed.by,
                if name.is_some() {
                    &both[..1]
                } else {
                    &both[..]
                },
                "installers pull a payload by digest though its name has a tag"
            );
        }
    }

    #[test]
    fn a_path_limit_joins_the_deepest_components() {
        for (limit, path, wanted) in [
            (0, "a/b/c/d", "a/b/c/d"),
            (
                2,
                "ns/redhat/redhat-operator-index",
                "ns/redhat-redhat-operator-index",
            ),
            (3, "a/b/c", "a/b/c"),
            (3, "a/b/c/d", "a/b/c-d"),
            (1, "a/b/c", "a-b-c"),
        ] {
            let layout = Layout {
                name: "v2".to_owned(),
                max_nested_paths: limit,
            };
            assert_eq!(layout.limit(path), wanted, "limit {limit} on {path}");
        }
    }

    #[test]
    fn two_images_at_one_place_are_refused_unless_they_are_one() {
        let placement = |origin: &str, letter: &str, path: &str| Placement {
            category: None,
            by: Vec::new(),
            owner: String::new(),
            role: String::new(),
            origin: origin.parse().unwrap(),
            digest: Digest::from_hex(&letter.repeat(64)).unwrap(),
            size: 7,
            platforms: Vec::new(),
            path: path.to_owned(),
            tag: "1".parse().unwrap(),
        };
        let same = [
            placement("a.io/x/y:1", "a", "x/y"),
            placement("b.io/x/y:1", "a", "x/y"),
        ];
        refuse_collisions(&same, "", &Layout::default()).expect("equal bytes may share a name");
        let other = [
            placement("a.io/x/y:1", "a", "x/y"),
            placement("b.io/x/y:1", "b", "x/y"),
        ];
        let error = refuse_collisions(&other, "m", &Layout::default()).unwrap_err();
        assert!(
            error.to_string().contains("m/x/y:1"),
            "{error} must name the place"
        );
        let joined = [
            placement("a.io/x/y-z:1", "a", "x/y-z"),
            placement("a.io/x/y/z:1", "b", "x/y/z"),
        ];
        refuse_collisions(&joined, "", &Layout::default()).expect("these differ without a limit");
        let limited = Layout {
            name: "v2".to_owned(),
            max_nested_paths: 2,
        };
        assert!(
            refuse_collisions(&joined, "", &limited).is_err(),
            "the limit makes them one"
        );
    }

    #[test]
    fn a_destination_survives_printing() {
        for (text, printed) in [
            (
                "docker://reg.example.com:5000/mirror/a",
                "docker://reg.example.com:5000/mirror/a",
            ),
            ("127.0.0.1:5000", "docker://127.0.0.1:5000"),
            ("docker://reg.example.com/", "docker://reg.example.com"),
        ] {
            assert_eq!(
                text.parse::<Destination>().unwrap().to_string(),
                printed,
                "{text}"
            );
        }
        for text in ["", "docker://", "oci:///a", "docker://h/Upper"] {
            assert!(
                text.parse::<Destination>().is_err(),
                "{text:?} is no destination"
            );
        }
    }
}
