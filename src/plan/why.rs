//! Who brought something in: every block of a lock that holds what a query names.
//!
//! A query is a digest, the first digits of one, a repository, a tag, or a repository with either. Blocks list all
//! their images, so the answer is a walk over the lock and needs nothing else. Where the request stands in the config
//! is known to whoever read the config.
//!
//! [`trace`] goes below the pins, into manifests that a plan has read: it says by which way a child, a config or a
//! layer hangs below each pin.

use std::collections::HashSet;

use super::graph::Plan;
use super::key::{BlockKey, Role};
use super::lock::{Block, Lock, Pin};
use crate::digest::Digest;
use crate::oci::{Manifest, PlatformName};
use crate::reference::Reference;
use crate::step::Content;
use crate::store::Blob;

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
    if query.name.is_empty() {
        return Vec::new();
    }
    walk(
        lock,
        &|digest| query.names_digest(digest),
        &|pin, reference| query.names_pin(pin, reference),
    )
}

/// Every place in `lock` that holds a digest that is `wanted`, in the order of the file.
#[must_use]
pub fn holding<'a>(lock: &'a Lock, wanted: &dyn Fn(&Digest) -> bool) -> Vec<Reason<'a>> {
    walk(lock, wanted, &|pin, _| wanted(&pin.digest))
}

fn walk<'a>(
    lock: &'a Lock,
    names_digest: &dyn Fn(&Digest) -> bool,
    names_pin: &dyn Fn(&Pin, Option<&str>) -> bool,
) -> Vec<Reason<'a>> {
    let mut reasons = Vec::new();
    for (name, digest) in &lock.rules {
        if names_digest(digest) {
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
            if names_pin(pin, reference.filter(|_| own)) {
                push(role, pin.digest, Some(pin));
            }
            for signature in &pin.signatures {
                if names_digest(&signature.digest) {
                    let from = signature.from.as_str();
                    push(Role::Signature { from }, signature.digest, Some(pin));
                }
            }
        }
        if let Some(file) = block.file()
            && names_digest(&file.digest)
        {
            push(Role::File, file.digest, None);
        }
        if let Block::Package(_, package) = block {
            if names_digest(&package.fbc) {
                push(Role::Fragment, package.fbc, None);
            }
            if let Some(from) = package.from
                && names_digest(&from)
            {
                push(Role::FragmentSource, from, None);
            }
        }
    }
    reasons
}

/// One step of the way from a pin down to a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// What it is to the one above: `linux/arm64`, `child 3`, `layer 2`, `config`; `image` or `file` for the pin itself.
    pub role: String,
    /// The bytes.
    pub blob: Blob,
}

/// How a digest hangs below a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The block that has the pin, as people read it.
    pub owner: String,
    /// From the pin down to the digest; the pin itself is one hop.
    pub hops: Vec<Hop>,
}

impl Trace {
    /// The digest that was looked for.
    ///
    /// # Panics
    /// Never: a trace has at least the pin.
    #[must_use]
    pub fn found(&self) -> Digest {
        self.hops
            .last()
            .expect("a trace begins at a pin")
            .blob
            .digest
    }
}

/// Every way by which something that is `wanted` hangs below the roots of a plan, in lock order, as far as manifests
/// have been read. Only the children that a root takes of an index count.
#[must_use]
pub fn trace(plan: &Plan, wanted: &dyn Fn(&Digest) -> bool) -> Vec<Trace> {
    let mut traces = Vec::new();
    for root in plan.roots() {
        let (role, platforms) = match &root.fetch.content {
            Content::Manifest { platforms, .. } => ("image", platforms.as_slice()),
            Content::Opaque => ("file", [].as_slice()),
        };
        let mut descent = Descent {
            plan,
            wanted,
            owner: &root.owner,
            hops: Vec::new(),
            seen: HashSet::new(),
            traces: &mut traces,
        };
        descent.down(role.to_owned(), root.fetch.blob, Some(platforms));
    }
    traces
}

/// A walk below one root.
struct Descent<'a> {
    plan: &'a Plan,
    wanted: &'a dyn Fn(&Digest) -> bool,
    owner: &'a str,
    hops: Vec<Hop>,
    seen: HashSet<(Digest, Digest)>,
    traces: &'a mut Vec<Trace>,
}

impl Descent<'_> {
    /// Goes into `blob`; `platforms` says which children are taken, and that it may be a manifest at all.
    fn down(&mut self, role: String, blob: Blob, platforms: Option<&[PlatformName]>) {
        let above = self.hops.last().map_or(blob.digest, |hop| hop.blob.digest);
        // The same edge twice (a layer that an image repeats) is one way.
        if !self.seen.insert((above, blob.digest)) {
            return;
        }
        self.hops.push(Hop { role, blob });
        if (self.wanted)(&blob.digest) {
            self.traces.push(Trace {
                owner: self.owner.to_owned(),
                hops: self.hops.clone(),
            });
        }
        let plan = self.plan;
        if let Some(platforms) = platforms {
            match plan
                .get(&blob.digest)
                .and_then(|node| node.manifest.as_ref())
            {
                None => {}
                Some(Manifest::Image(image)) => {
                    for (index, layer) in image.layers.iter().enumerate() {
                        self.down(format!("layer {}", index + 1), layer.into(), None);
                    }
                    if let Some(config) = &image.config {
                        self.down("config".to_owned(), config.into(), None);
                    }
                }
                Some(Manifest::Index(list)) => {
                    for (index, child) in list.taken(platforms).into_iter().enumerate() {
                        let role = child
                            .platform
                            .as_ref()
                            .map_or_else(|| format!("child {}", index + 1), ToString::to_string);
                        let inner = if child.platform.is_none() {
                            platforms
                        } else {
                            &[]
                        };
                        self.down(role, child.into(), Some(inner));
                    }
                }
            }
        }
        self.hops.pop();
    }
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

    #[test]
    fn a_trace_names_every_way_down_from_the_pins() {
        use crate::plan::graph::Root;
        use crate::step::{Fetch, Origin};
        use serde_json::json;

        let blob = |text: &str| Blob::of(text.as_bytes());
        let config = "application/vnd.oci.image.config.v1+json";
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let image = |layers: &[&str]| {
            let layers: Vec<_> = layers
                .iter()
                .map(|text| json!({ "mediaType": layer, "digest": blob(text).digest, "size": blob(text).size }))
                .collect();
            json!({
                "schemaVersion": 2,
                "mediaType": crate::oci::OCI_MANIFEST,
                "config": { "mediaType": config, "digest": blob("config").digest, "size": 6 },
                "layers": layers,
            })
            .to_string()
        };
        let (amd, arm) = (image(&["base", "a"]), image(&["base", "b"]));
        let child = |bytes: &str, architecture: &str| {
            json!({
                "mediaType": crate::oci::OCI_MANIFEST,
                "digest": blob(bytes).digest,
                "size": bytes.len(),
                "platform": { "os": "linux", "architecture": architecture },
            })
        };
        let index = json!({
            "schemaVersion": 2,
            "mediaType": crate::oci::OCI_INDEX,
            "manifests": [child(&amd, "amd64"), child(&arm, "arm64")],
        })
        .to_string();
        let root = |owner: &str, bytes: &str, platforms: &[&str]| Root {
            owner: owner.to_owned(),
            fetch: Fetch {
                blob: blob(bytes),
                content: Content::Manifest {
                    media_type: None,
                    platforms: platforms.iter().map(|name| name.parse().unwrap()).collect(),
                },
                origins: vec![Origin::Layout("x".to_owned())],
            },
        };
        let roots = vec![
            root("all", &index, &[]),
            root("arm", &index, &["linux/arm64"]),
            root("one", &amd, &[]),
        ];
        let mut plan = Plan::of(roots).unwrap();
        for bytes in [&index, &amd, &arm] {
            plan.read(&blob(bytes).digest, bytes.as_bytes()).unwrap();
        }
        for (wanted, ways) in [
            (
                "base",
                vec![
                    "all: image/linux/amd64/layer 1",
                    "all: image/linux/arm64/layer 1",
                    "arm: image/linux/arm64/layer 1",
                    "one: image/layer 1",
                ],
            ),
            (
                "a",
                vec!["all: image/linux/amd64/layer 2", "one: image/layer 2"],
            ),
            (
                "config",
                vec![
                    "all: image/linux/amd64/config",
                    "all: image/linux/arm64/config",
                    "arm: image/linux/arm64/config",
                    "one: image/config",
                ],
            ),
            (amd.as_str(), vec!["all: image/linux/amd64", "one: image"]),
            ("absent", vec![]),
        ] {
            let found: Vec<String> = trace(&plan, &|digest| *digest == blob(wanted).digest)
                .iter()
                .map(|trace| {
                    assert_eq!(
                        trace.found(),
                        blob(wanted).digest,
                        "a trace ends where it was sent"
                    );
                    let roles: Vec<&str> = trace.hops.iter().map(|hop| hop.role.as_str()).collect();
                    format!("{}: {}", trace.owner, roles.join("/"))
                })
                .collect();
            assert_eq!(found, ways, "these are all ways to {wanted:.10}");
        }
    }
}
