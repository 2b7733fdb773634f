//! Names of images as people write them: `registry/repository:tag@digest`.
//!
//! The grammar is the one of the distribution project, with IPv6 hosts (`[::1]:5000/a`). A [`Reference`] is
//! always qualified: its registry was written down. What the older tools fill in (`docker.io`, `library`,
//! `latest`) is filled in by [`Reference::parse_lenient`] alone, which only a `v1alpha2` config asks for.
//!
//! A name in a config may also be an OCI layout on disk (`oci:///path[:tag]`); [`ImageName`] is either.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};
use crate::hint::Hint;

/// Longest tag, from the OCI distribution specification.
const TAG_LENGTH: usize = 128;

/// Longest `registry/path`, from the OCI distribution specification.
const REPOSITORY_LENGTH: usize = 255;

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing was written.
    #[error("an image reference is empty")]
    Empty,
    /// The first segment is not a host.
    #[error("{text:?} names no registry: {first:?} is not a host")]
    Unqualified {
        /// What was read.
        text: String,
        /// Its first segment.
        first: String,
    },
    /// Neither a tag nor a digest.
    #[error("{text:?} has neither a tag nor a digest")]
    Untagged {
        /// What was read.
        text: String,
    },
    /// The host is malformed.
    #[error(
        "{text:?} has a malformed registry {registry:?}: expected host, host:port or [IPv6]:port"
    )]
    Registry {
        /// What was read.
        text: String,
        /// The part before the first slash.
        registry: String,
    },
    /// The path is malformed.
    #[error(
        "{text:?} has a malformed repository path {path:?}: expected lowercase letters, digits and single separators ('.', '_', '__', '-') between slashes"
    )]
    Path {
        /// What was read.
        text: String,
        /// The part after the registry.
        path: String,
    },
    /// The tag is malformed.
    #[error(
        "{text:?} has a malformed tag {tag:?}: expected at most 128 letters, digits, '_', '.', '-', not opening with '.' or '-'"
    )]
    Tag {
        /// What was read.
        text: String,
        /// The part after the colon.
        tag: String,
    },
    /// The digest is malformed.
    #[error("{text:?} has a malformed digest")]
    Digest {
        /// What was read.
        text: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// A transport that images are not read from.
    #[error("{text:?} uses the transport {transport:?}; expected docker:// or oci://")]
    Transport {
        /// What was read.
        text: String,
        /// The part before the colon.
        transport: String,
    },
}

impl Hint for ReferenceError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unqualified { text, .. } => Some(format!(
                "write the registry out, for example docker.io/library/{text} or quay.io/{text}"
            )),
            Self::Untagged { text } => Some(format!(
                "write the tag or the digest, for example {text}:latest"
            )),
            Self::Path { path, .. } if path.bytes().any(|byte| byte.is_ascii_uppercase()) => Some(
                format!("repository names are lowercase: {}", path.to_lowercase()),
            ),
            _ => None,
        }
    }
}

/// A repository in a registry, without tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    path: String,
}

impl Repository {
    /// Joins a registry (`host[:port]`) and a path.
    ///
    /// # Errors
    /// If either part is malformed.
    pub fn new(registry: &str, path: &str) -> Result<Self, ReferenceError> {
        let text = format!("{registry}/{path}");
        if !is_registry(registry) {
            return Err(ReferenceError::Registry {
                text,
                registry: registry.to_owned(),
            });
        }
        if !is_path(path) || text.len() > REPOSITORY_LENGTH {
            return Err(ReferenceError::Path {
                text,
                path: path.to_owned(),
            });
        }
        Ok(Self {
            registry: registry.to_owned(),
            path: path.to_owned(),
        })
    }

    /// `host[:port]`, as written.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path under the registry, as written.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same repository, one tag of it.
    #[must_use]
    pub fn with_tag(self, tag: Tag) -> Reference {
        Reference {
            repository: self,
            tag: Some(tag),
            digest: None,
        }
    }

    /// The same repository, one digest of it.
    #[must_use]
    pub fn with_digest(self, digest: Digest) -> Reference {
        Reference {
            repository: self,
            tag: None,
            digest: Some(digest),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.path)
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (registry, path) = split_registry(text)?;
        Self::new(registry, path)
    }
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if is_tag(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::Tag {
                text: text.to_owned(),
                tag: text.to_owned(),
            })
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An image in a registry: a repository and a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Where it is.
    pub repository: Repository,
    /// The mutable name, if one was written.
    pub tag: Option<Tag>,
    /// The immutable name, if one was written.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference as Docker does: a missing registry is `docker.io`, a missing namespace there is
    /// `library`, a missing tag is `latest`.
    ///
    /// # Errors
    /// If a part that is present is malformed.
    pub fn parse_lenient(text: &str) -> Result<Self, ReferenceError> {
        let bare = strip_docker(text)?;
        let (name, tag, digest) = split(bare)?;
        let (registry, path) = match split_registry(name) {
            Ok((registry, path)) => (registry, path.to_owned()),
            Err(ReferenceError::Unqualified { .. }) => ("docker.io", name.to_owned()),
            Err(error) => return Err(error),
        };
        let path = if registry == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        let tag = match (tag, digest) {
            (None, None) => Some(Tag("latest".to_owned())),
            (tag, _) => tag,
        };
        Ok(Self {
            repository: Repository::new(registry, &path)?,
            tag,
            digest,
        })
    }

    /// The part that names one manifest in a request: the digest where there is one, else the tag.
    #[must_use]
    pub fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_string(),
            (None, None) => unreachable!("a reference has a tag or a digest"),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Reads `[docker://]registry/path[:tag][@digest]`; a tag or a digest is required.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bare = strip_docker(text)?;
        let (name, tag, digest) = split(bare)?;
        let repository = name.parse()?;
        if tag.is_none() && digest.is_none() {
            return Err(ReferenceError::Untagged {
                text: bare.to_owned(),
            });
        }
        Ok(Self {
            repository,
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

/// An image as a config names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageName {
    /// In a registry.
    Registry(Reference),
    /// In an OCI layout on disk (`oci://PATH`, `oci:PATH`, optionally `:TAG` or `@DIGEST` behind it).
    Layout(LayoutName),
}

/// An image in an OCI layout on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayoutName {
    /// The folder, as the user wrote it.
    pub path: String,
    /// The `org.opencontainers.image.ref.name` that selects it, if one was written.
    pub tag: Option<Tag>,
    /// The manifest that selects it, if one was written.
    pub digest: Option<Digest>,
}

impl FromStr for ImageName {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let Some(rest) = text.strip_prefix("oci:") else {
            return text.parse().map(Self::Registry);
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (rest, digest) = split_digest(rest)?;
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(parse_tag(text, tag)?)),
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err(ReferenceError::Empty);
        }
        Ok(Self::Layout(LayoutName {
            path: path.to_owned(),
            tag,
            digest,
        }))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => fmt::Display::fmt(reference, formatter),
            Self::Layout(LayoutName { path, tag, digest }) => {
                write!(formatter, "oci://{path}")?;
                if let Some(tag) = tag {
                    write!(formatter, ":{tag}")?;
                }
                if let Some(digest) = digest {
                    write!(formatter, "@{digest}")?;
                }
                Ok(())
            }
        }
    }
}

macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(Repository, Tag, Reference, ImageName);

fn strip_docker(text: &str) -> Result<&str, ReferenceError> {
    if text.is_empty() {
        return Err(ReferenceError::Empty);
    }
    match text.split_once("://") {
        Some(("docker", rest)) => Ok(rest),
        Some((transport, _)) => Err(ReferenceError::Transport {
            text: text.to_owned(),
            transport: transport.to_owned(),
        }),
        None => Ok(text),
    }
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), ReferenceError> {
    match text.split_once('@') {
        Some((rest, digest)) => match digest.parse() {
            Ok(digest) => Ok((rest, Some(digest))),
            Err(source) => Err(ReferenceError::Digest {
                text: text.to_owned(),
                source,
            }),
        },
        None => Ok((text, None)),
    }
}

fn parse_tag(text: &str, tag: &str) -> Result<Tag, ReferenceError> {
    tag.parse().map_err(|_| ReferenceError::Tag {
        text: text.to_owned(),
        tag: tag.to_owned(),
    })
}

/// Splits `name[:tag][@digest]`.
fn split(text: &str) -> Result<(&str, Option<Tag>, Option<Digest>), ReferenceError> {
    let (rest, digest) = split_digest(text)?;
    let colon = rest
        .rfind(':')
        .filter(|colon| rest.rfind('/').is_none_or(|slash| slash < *colon));
    match colon {
        Some(colon) => Ok((
            &rest[..colon],
            Some(parse_tag(text, &rest[colon + 1..])?),
            digest,
        )),
        None => Ok((rest, None, digest)),
    }
}

/// Splits `registry/path`; the first segment must look like a host.
fn split_registry(text: &str) -> Result<(&str, &str), ReferenceError> {
    let unqualified = |first: &str| ReferenceError::Unqualified {
        text: text.to_owned(),
        first: first.to_owned(),
    };
    let (registry, path) = text.split_once('/').ok_or_else(|| unqualified(text))?;
    if registry == "localhost" || registry.contains(['.', ':', '[']) {
        Ok((registry, path))
    } else {
        Err(unqualified(registry))
    }
}

fn is_registry(text: &str) -> bool {
    let port_is_good = |port: &str| {
        !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(port_is_good));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    port.is_none_or(port_is_good)
        && host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Whether `text` is a repository path: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` between slashes.
#[must_use]
pub fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

fn is_path_component(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TAG_LENGTH
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn a_reference_survives_printing() {
        for text in [
            "quay.io/a/b:v1".to_owned(),
            format!("localhost:5000/a@sha256:{HEX}"),
            format!("a.b/c/d/e:x@sha256:{HEX}"),
            "[::1]:5000/a/b:latest".to_owned(),
            "localhost/a:1".to_owned(),
            "registry.example.test/a__b/c--d/e.f_g:V_1.2-rc".to_owned(),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text, "printing must undo parsing");
        }
    }

    #[test]
    fn a_malformed_reference_is_refused_with_its_part_named() {
        for (text, part) in [
            ("", "empty"),
            ("nginx:1", "names no registry"),
            ("library/nginx:1", "\"library\" is not a host"),
            ("quay.io/a", "neither a tag nor a digest"),
            ("quay.io/A:1", "malformed repository path"),
            ("quay.io/a//b:1", "malformed repository path"),
            ("quay.io/a___b:1", "malformed repository path"),
            ("quay.io/a/:1", "malformed repository path"),
            ("quay.io/a:.x", "malformed tag"),
            ("quay.io/a:", "malformed tag"),
            ("quay.io/a@sha256:12", "malformed digest"),
            ("quay.io:/a:1", "malformed registry"),
            ("[::g]/a:1", "malformed registry"),
            ("-a.b/c:1", "malformed registry"),
            ("ftp://quay.io/a:1", "transport \"ftp\""),
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(
                error.to_string().contains(part),
                "{text:?} gave {error:?}, which must say {part:?}"
            );
        }
    }

    #[test]
    fn the_lenient_reading_fills_in_what_docker_fills_in() {
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("docker.io/nginx:1", "docker.io/library/nginx:1"),
            ("quay.io/a/b", "quay.io/a/b:latest"),
            ("docker://quay.io/a/b:2", "quay.io/a/b:2"),
        ] {
            assert_eq!(
                Reference::parse_lenient(text).unwrap().to_string(),
                full,
                "{text} must be filled in"
            );
        }
        let digest_only = Reference::parse_lenient(&format!("quay.io/a@sha256:{HEX}")).unwrap();
        assert_eq!(digest_only.tag, None, "a digest needs no tag");
    }

    #[test]
    fn an_image_name_may_be_a_layout_on_disk() {
        for (text, path, tag) in [
            ("oci:///srv/a", "/srv/a", None),
            ("oci://rel/a:v1", "rel/a", Some("v1")),
            ("oci:/srv/a:b/c", "/srv/a:b/c", None),
        ] {
            let ImageName::Layout(name) = text.parse().unwrap() else {
                panic!("{text} is a layout")
            };
            assert_eq!(
                (name.path.as_str(), name.tag.as_ref().map(Tag::as_str)),
                (path, tag),
                "parts of {text}"
            );
        }
        assert!(
            matches!("quay.io/a:1".parse(), Ok(ImageName::Registry(_))),
            "without oci: it is in a registry"
        );
    }

    proptest! {
        #[test]
        fn any_text_parses_to_what_prints_to_itself_or_is_refused(text in "(docker://)?[a-z.:]{1,8}/[a-zA-Z0-9._/-]{0,12}(:[a-z.-]{0,4})?(@sha256:[0-9a-f]{0,64})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                let printed = reference.to_string();
                prop_assert_eq!(&printed, text.strip_prefix("docker://").unwrap_or(&text));
                prop_assert_eq!(printed.parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
