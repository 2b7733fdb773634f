//! Who brought something in: every block of a lock that holds what a query names.
//!
//! A query is a digest, the first digits of one, a repository, a tag, or a repository with either. Blocks list all
//! their images, so the answer is a walk over the lock and needs nothing else. Where the request stands in the config
//! is known to whoever read the config.

use super::key::{BlockKey, Role};
use super::lock::{Block, Lock, Pin};
use crate::digest::Digest;
use crate::reference::Reference;

/// Fewest digits that are taken as the start of a digest; fewer would match by accident.
pub const PREFIX_LENGTH: usize = 6;

/// A place in a lock that holds what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason<'a> {
    /// The block.
    pub block: BlockKey,
    /// What it is to the block.
    pub role: Role<'a>,
    /// The digest that is held.
    pub digest: Digest,
    /// The image it is, or belongs to as its signature.
    pub pin: Option<&'a Pin>,
}

/// What was asked for.
struct Query<'q> {
    /// A name, without a transport.
    name: &'q str,
    /// The first digits of a digest, or all.
    digits: Option<&'q str>,
}

impl<'q> Query<'q> {
    fn new(text: &'q str) -> Self {
        let name = text.strip_prefix("docker://").unwrap_or(text);
        let bare = name.strip_prefix("sha256:").unwrap_or(name);
        let is_prefix = (PREFIX_LENGTH..=64).contains(&bare.len())
            && bare
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        Self {
            name,
            digits: is_prefix.then_some(bare),
        }
    }

    fn names_digest(&self, digest: &Digest) -> bool {
        self.digits
            .is_some_and(|digits| digest.hex().starts_with(digits))
    }

    fn names_pin(&self, pin: &Pin, reference: Option<&str>) -> bool {
        let origin = pin.origin.to_string();
        let tag = pin.tag.as_ref().map(ToString::to_string);
        self.names_digest(&pin.digest)
            || self.names(&origin, tag.as_deref())
            || self
                .name
                .strip_prefix(origin.as_str())
                .and_then(|rest| rest.strip_prefix('@'))
                .is_some_and(|rest| rest == pin.digest.to_string())
            || reference.is_some_and(|reference| self.names_reference(reference))
    }

    /// Whether the query is the repository, the tag, or both with a colon.
    fn names(&self, repository: &str, tag: Option<&str>) -> bool {
        self.name == repository
            || tag.is_some_and(|tag| {
                self.name == tag
                    || self
                        .name
                        .strip_suffix(tag)
                        .and_then(|rest| rest.strip_suffix(':'))
                        == Some(repository)
            })
    }

    /// The same for a name as the user wrote it.
    fn names_reference(&self, reference: &str) -> bool {
        let bare = reference.strip_prefix("docker://").unwrap_or(reference);
        self.name == bare
            || Reference::parse_lenient(bare).is_ok_and(|parsed| {
                self.names(
                    &parsed.repository.to_string(),
                    parsed.tag.as_ref().map(crate::reference::Tag::as_str),
                )
            })
    }
}

/// Every place in `lock` that holds what `query` names, in the order of the file; none if nothing does.
#[must_use]
pub fn why<'a>(lock: &'a Lock, query: &str) -> Vec<Reason<'a>> {
    let query = Query::new(query.trim());
    let mut reasons = Vec::new();
    if query.name.is_empty() {
        return reasons;
    }
    for (name, digest) in &lock.rules {
        if query.names_digest(digest) {
            reasons.push(Reason {
                block: BlockKey::Rule { name: name.clone() },
                role: Role::Rule,
                digest: *digest,
                pin: None,
            });
        }
    }
    for block in lock.blocks() {
        let mut push = |role, digest, pin| {
            reasons.push(Reason {
                block: block.key(),
                role,
                digest,
                pin,
            });
        };
        // The name that the block's own image was asked for by.
        let reference = match block {
            Block::Catalog(catalog) => Some(catalog.reference.as_str()),
            Block::Image(image) => Some(image.reference.as_str()),
            Block::Chart(chart) => chart
                .reference
                .strip_prefix("oci://")
                .or(Some(&chart.reference)),
            _ => None,
        };
        for (role, pin) in block.pins() {
            let own = matches!(role, Role::Catalog | Role::Image | Role::Chart);
            if query.names_pin(pin, reference.filter(|_| own)) {
                push(role, pin.digest, Some(pin));
            }
            for signature in &pin.signatures {
                if query.names_digest(&signature.digest) {
                    let from = signature.from.as_str();
                    push(Role::Signature { from }, signature.digest, Some(pin));
                }
            }
        }
        if let Some(file) = block.file()
            && query.names_digest(&file.digest)
        {
            push(Role::File, file.digest, None);
        }
        if let Block::Package(_, package) = block {
            if query.names_digest(&package.fbc) {
                push(Role::Fragment, package.fbc, None);
            }
            if let Some(from) = package.from
                && query.names_digest(&from)
            {
                push(Role::FragmentSource, from, None);
            }
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::text::parse;

    const SAMPLE: &str = include_str!("../../tests/data/lock/sample.lock.toml");

    #[test]
    fn a_query_finds_every_block_that_holds_what_it_names() {
        let lock = parse(SAMPLE, "sample").unwrap();
        let albo = "package aws-load-balancer-operator in registry.redhat.io/redhat/redhat-operator-index:v4.16";
        let odf = "package odf-operator in registry.redhat.io/redhat/redhat-operator-index:v4.16";
        let ubi = "image registry.redhat.io/ubi9/ubi:9.4 as base/ubi9:9.4";
        let release = "release stable-4.16 amd64";
        let chart = "chart https://sigstore.github.io/helm-charts#cosigned 0.1.23";
        let index = "catalog registry.redhat.io/redhat/redhat-operator-index:v4.16";
        let proxy = "05cb2d738693b47ac495f19f318ec66af940d95055f23fcfe2021e1836f57750";
        for (query, found) in [
            (
                format!("sha256:{proxy}"),
                vec![(albo, "related image"), (odf, "related image")],
            ),
            (
                proxy[..6].to_owned(),
                vec![(albo, "related image"), (odf, "related image")],
            ),
            (
                format!("sha256:{}", &proxy[..9]),
                vec![(albo, "related image"), (odf, "related image")],
            ),
            (proxy[..5].to_owned(), vec![]),
            (
                format!("registry.redhat.io/openshift4/ose-kube-rbac-proxy@sha256:{proxy}"),
                vec![(albo, "related image"), (odf, "related image")],
            ),
            (
                "docker://registry.redhat.io/openshift4/ose-kube-rbac-proxy".to_owned(),
                vec![(albo, "related image"), (odf, "related image")],
            ),
            (
                "6c8c1b668297".to_owned(),
                vec![
                    (release, "component etcd of 4.16.10"),
                    (release, "component etcd of 4.16.12"),
                ],
            ),
            (
                "registry.redhat.io/ubi9/ubi:9.4".to_owned(),
                vec![(ubi, "image")],
            ),
            (
                "registry.redhat.io/ubi9/ubi".to_owned(),
                vec![(ubi, "image")],
            ),
            ("9.4".to_owned(), vec![(ubi, "image")]),
            ("v1.9.0".to_owned(), vec![(chart, "image of the chart")]),
            (
                "gcr.io/projectsigstore/cosigned:v1.9.0".to_owned(),
                vec![(chart, "image of the chart")],
            ),
            ("v4.16".to_owned(), vec![(index, "catalog image")]),
            (
                "8e8b29e83be6".to_owned(),
                vec![(release, "signature (signature-1)")],
            ),
            ("cc57fc1903e4".to_owned(), vec![(chart, "file")]),
            ("e6c81c443861".to_owned(), vec![(odf, "catalog fragment")]),
            (
                "081706ccee3f".to_owned(),
                vec![(odf, "catalog that holds the fragment")],
            ),
            (
                "900cbdbecb46".to_owned(),
                vec![("rule helm-chart", "rule file")],
            ),
            ("registry.redhat.io".to_owned(), vec![]),
            (String::new(), vec![]),
        ] {
            let reasons = why(&lock, &query);
            let reasons: Vec<(String, String)> = reasons
                .iter()
                .map(|reason| (reason.block.to_string(), reason.role.to_string()))
                .collect();
            let reasons: Vec<(&str, &str)> = reasons
                .iter()
                .map(|(block, role)| (block.as_str(), role.as_str()))
                .collect();
            assert_eq!(reasons, found, "{query:?} is held by these");
        }
    }
}
