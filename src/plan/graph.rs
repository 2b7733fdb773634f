//! The plan: a graph of fetches that grows by reading.
//!
//! It starts from the pins of a lock. Reading a manifest adds what it names: every edge goes from an older node to
//! a newer one or to one that names no others, so the graph has no cycle that matters; a manifest that names its
//! own ancestor cannot exist, since it would contain its own digest. Once every manifest has been read the plan is
//! whole: its leaves are fixed and nothing remains to be asked.
//!
//! A digest is one node whatever refers to it. Which children of an index are taken depends on who asks; a node
//! holds the union, and [`Plan::content_of`] walks with the choice of one root.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::digest::Digest;
use crate::oci::{Descriptor, Manifest, ManifestError, PlatformName};
use crate::step::{Content, Fetch, Origin};
use crate::store::Blob;

/// Deepest nesting of indexes that is followed; two levels occur in the field.
const DEPTH_LIMIT: usize = 8;

/// Something that the plan must bring: a pin of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Who asked, as people read it.
    pub owner: String,
    /// What is fetched first.
    pub fetch: Fetch,
}

/// Why a plan cannot grow.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The bytes are no manifest that can be mirrored.
    #[error("manifest {digest} of {owner} cannot be used")]
    Manifest {
        /// Which manifest.
        digest: Digest,
        /// One of those who asked.
        owner: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// No child of an index is for the platforms that were asked for.
    #[error("{owner} has no image for {wanted}; it has {found}")]
    Platform {
        /// Who asked.
        owner: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// Indexes inside indexes inside indexes.
    #[error("{owner} nests indexes more than {DEPTH_LIMIT} deep")]
    Depth {
        /// Who asked.
        owner: String,
    },
    /// Two manifests describe one blob with different sizes.
    #[error("blob {digest} is declared with {first} and with {second} bytes")]
    Size {
        /// Which blob.
        digest: Digest,
        /// One declared size.
        first: u64,
        /// The other.
        second: u64,
    },
}

impl crate::hint::Hint for PlanError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Manifest { source, .. } => source.hint(),
            Self::Platform { .. } => {
                Some("change `platforms` of this image to what it has".to_owned())
            }
            Self::Depth { .. } | Self::Size { .. } => None,
        }
    }
}

/// What one node of the plan is.
#[derive(Clone, Debug)]
pub struct Node {
    /// The fetch.
    pub fetch: Fetch,
    /// The manifest, once read.
    pub manifest: Option<Manifest>,
}

/// The plan.
#[derive(Default)]
pub struct Plan {
    graph: DiGraph<Node, ()>,
    nodes: HashMap<Digest, NodeIndex>,
    roots: Vec<Root>,
}

/// What a lock (or one root of it) comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// Every manifest once, in lock order, an index before its children.
    pub manifests: Vec<Blob>,
    /// Every other blob once: per image its layers in order, then its config.
    pub blobs: Vec<Blob>,
    /// Manifests that are not read yet; what they name is missing above.
    pub unread: Vec<Blob>,
}

impl Closure {
    /// Everything, sorted by digest.
    #[must_use]
    pub fn sorted(&self) -> Vec<Blob> {
        let all: BTreeSet<Blob> = self.manifests.iter().chain(&self.blobs).copied().collect();
        all.into_iter().collect()
    }

    /// The bytes of everything.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.manifests
            .iter()
            .chain(&self.blobs)
            .map(|blob| blob.size)
            .sum()
    }

    /// How many blobs there are in all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.manifests.len() + self.blobs.len()
    }
}

impl Plan {
    /// A plan of the given roots; their manifests are still to be read.
    ///
    /// # Errors
    /// If two roots declare different sizes for one digest.
    pub fn of(roots: Vec<Root>) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        plan.add(roots)?;
        Ok(plan)
    }

    /// Adds roots; their manifests are still to be read.
    ///
    /// # Errors
    /// If one declares another size for a digest than is known.
    pub fn add(&mut self, roots: Vec<Root>) -> Result<(), PlanError> {
        for root in &roots {
            self.node(root.fetch.clone())?;
        }
        self.roots.extend(roots);
        Ok(())
    }

    /// The roots, in lock order.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The node of a digest.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&Node> {
        self.nodes.get(digest).map(|index| &self.graph[*index])
    }

    /// Every node, oldest first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.graph.node_weights()
    }

    /// Every edge, as digests from a manifest to what it names.
    pub fn edges(&self) -> impl Iterator<Item = (Digest, Digest)> {
        self.graph
            .edge_indices()
            .filter_map(|edge| self.graph.edge_endpoints(edge))
            .map(|(from, to)| {
                (
                    self.graph[from].fetch.blob.digest,
                    self.graph[to].fetch.blob.digest,
                )
            })
    }

    /// The manifests that are not read yet, oldest first.
    #[must_use]
    pub fn unread(&self) -> Vec<Fetch> {
        self.nodes()
            .filter(|node| {
                node.manifest.is_none() && matches!(node.fetch.content, Content::Manifest { .. })
            })
            .map(|node| node.fetch.clone())
            .collect()
    }

    /// Takes the bytes of a manifest in, and grows by what it names. Answers the fetches that are new.
    ///
    /// # Errors
    /// If the bytes are no usable manifest, or no child fits the platforms asked for.
    pub fn read(&mut self, digest: &Digest, bytes: &[u8]) -> Result<Vec<Fetch>, PlanError> {
        let Some(&index) = self.nodes.get(digest) else {
            return Ok(Vec::new());
        };
        let Content::Manifest { media_type, .. } = &self.graph[index].fetch.content else {
            return Ok(Vec::new());
        };
        let manifest = Manifest::parse(bytes, media_type.as_deref()).map_err(|source| {
            PlanError::Manifest {
                digest: *digest,
                owner: self.owners(digest).into_iter().next().unwrap_or_default(),
                source,
            }
        })?;
        self.graph[index].manifest = Some(manifest);
        let mut new = Vec::new();
        self.expand(index, &mut new)?;
        Ok(new)
    }

    /// Adds what a manifest that was read names, for the platforms now asked of it.
    fn expand(&mut self, index: NodeIndex, new: &mut Vec<Fetch>) -> Result<(), PlanError> {
        let Node { fetch, manifest } = self.graph[index].clone();
        let (Some(manifest), Content::Manifest { platforms, .. }) = (manifest, fetch.content)
        else {
            return Ok(());
        };
        let children: Vec<Fetch> = match &manifest {
            Manifest::Index(list) => {
                let taken = list.taken(&platforms);
                if taken.is_empty() && !list.manifests.is_empty() {
                    return Err(self.no_platform(&fetch.blob.digest, &platforms, list));
                }
                taken
                    .into_iter()
                    .map(|child| Fetch {
                        blob: child.into(),
                        content: Content::Manifest {
                            media_type: (!child.media_type.is_empty())
                                .then(|| child.media_type.clone()),
                            // A child that is an index again is chosen from by the same platforms.
                            platforms: if child.platform.is_none() {
                                platforms.clone()
                            } else {
                                Vec::new()
                            },
                        },
                        origins: fetch.origins.clone(),
                    })
                    .collect()
            }
            Manifest::Image(image) => image
                .blobs()
                .map(|blob| opaque(blob, &fetch.origins))
                .collect(),
        };
        for child in children {
            let digest = child.blob.digest;
            let known = self.nodes.contains_key(&digest);
            let (to, grown) = self.node(child.clone())?;
            if self.graph.find_edge(index, to).is_none() {
                self.graph.add_edge(index, to, ());
            }
            if !known {
                new.push(child);
            } else if grown {
                self.expand(to, new)?;
            }
        }
        Ok(())
    }

    fn no_platform(
        &self,
        digest: &Digest,
        platforms: &[PlatformName],
        list: &crate::oci::Index,
    ) -> PlanError {
        let wanted: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        let found: BTreeSet<String> = list
            .manifests
            .iter()
            .filter_map(|child| child.platform.as_ref())
            .map(ToString::to_string)
            .collect();
        PlanError::Platform {
            owner: self.owners(digest).into_iter().next().unwrap_or_default(),
            wanted: wanted.join(", "),
            found: if found.is_empty() {
                "no platforms at all".to_owned()
            } else {
                found.into_iter().collect::<Vec<_>>().join(", ")
            },
        }
    }

    /// The node for a fetch; also whether an existing manifest node must be expanded again for more platforms.
    fn node(&mut self, fetch: Fetch) -> Result<(NodeIndex, bool), PlanError> {
        let digest = fetch.blob.digest;
        let Some(&index) = self.nodes.get(&digest) else {
            let index = self.graph.add_node(Node {
                fetch,
                manifest: None,
            });
            self.nodes.insert(digest, index);
            return Ok((index, false));
        };
        let known = &mut self.graph[index].fetch;
        if known.blob.size != fetch.blob.size {
            return Err(PlanError::Size {
                digest,
                first: known.blob.size,
                second: fetch.blob.size,
            });
        }
        for origin in fetch.origins {
            if !known.origins.contains(&origin) {
                known.origins.push(origin);
            }
        }
        let grown = match (&mut known.content, fetch.content) {
            (
                Content::Manifest { platforms, .. },
                Content::Manifest {
                    platforms: more, ..
                },
            ) => widen(platforms, &more),
            // The same bytes as a manifest and as a blob (an artifact of an artifact): a manifest it is.
            (content @ Content::Opaque, more @ Content::Manifest { .. }) => {
                *content = more;
                true
            }
            (_, Content::Opaque) => false,
        };
        Ok((index, grown))
    }

    /// Those who asked for `digest`, directly or through others, sorted.
    #[must_use]
    pub fn owners(&self, digest: &Digest) -> Vec<String> {
        let Some(&index) = self.nodes.get(digest) else {
            return Vec::new();
        };
        let mut seen = HashSet::from([index]);
        let mut stack = vec![index];
        while let Some(node) = stack.pop() {
            for parent in self.graph.neighbors_directed(node, Direction::Incoming) {
                if seen.insert(parent) {
                    stack.push(parent);
                }
            }
        }
        let digests: HashSet<Digest> = seen
            .into_iter()
            .map(|node| self.graph[node].fetch.blob.digest)
            .collect();
        let owners: BTreeSet<String> = self
            .roots
            .iter()
            .filter(|root| digests.contains(&root.fetch.blob.digest))
            .map(|root| root.owner.clone())
            .collect();
        owners.into_iter().collect()
    }

    /// What one root comes to.
    ///
    /// # Errors
    /// If indexes nest deeper than is followed.
    pub fn content_of(&self, root: &Root) -> Result<Closure, PlanError> {
        let mut walk = Walk::default();
        self.walk(&root.fetch, &root.owner, 0, &mut walk)?;
        Ok(walk.closure)
    }

    /// What all roots come to.
    ///
    /// # Errors
    /// If indexes nest deeper than is followed.
    pub fn closure(&self) -> Result<Closure, PlanError> {
        let mut walk = Walk::default();
        for root in &self.roots {
            self.walk(&root.fetch, &root.owner, 0, &mut walk)?;
        }
        Ok(walk.closure)
    }

    fn walk(
        &self,
        fetch: &Fetch,
        owner: &str,
        depth: usize,
        walk: &mut Walk,
    ) -> Result<(), PlanError> {
        if depth > DEPTH_LIMIT {
            return Err(PlanError::Depth {
                owner: owner.to_owned(),
            });
        }
        let Content::Manifest { platforms, .. } = &fetch.content else {
            walk.blob(fetch.blob);
            return Ok(());
        };
        let choice: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        if !walk.walked.insert((fetch.blob.digest, choice)) {
            return Ok(());
        }
        walk.manifest(fetch.blob);
        match self
            .get(&fetch.blob.digest)
            .and_then(|node| node.manifest.as_ref())
        {
            None => {
                if !walk.closure.unread.contains(&fetch.blob) {
                    walk.closure.unread.push(fetch.blob);
                }
            }
            Some(Manifest::Image(image)) => {
                for blob in image.blobs() {
                    walk.blob(blob.into());
                }
            }
            Some(Manifest::Index(list)) => {
                for child in list.taken(platforms) {
                    let child = Fetch {
                        blob: child.into(),
                        content: Content::Manifest {
                            media_type: None,
                            platforms: if child.platform.is_none() {
                                platforms.clone()
                            } else {
                                Vec::new()
                            },
                        },
                        origins: Vec::new(),
                    };
                    self.walk(&child, owner, depth + 1, walk)?;
                }
            }
        }
        Ok(())
    }

    /// The children that `root` takes of an index, and for every manifest under it what it names: enough to place
    /// each blob in the repositories that need it. Yields manifests with their parsed form, children first, so that
    /// whoever puts them in this order never refers to something absent.
    ///
    /// # Errors
    /// If indexes nest deeper than is followed.
    pub fn manifests_of(&self, root: &Root) -> Result<Vec<(Blob, &Manifest)>, PlanError> {
        let closure = self.content_of(root)?;
        let mut out: Vec<(Blob, &Manifest)> = Vec::new();
        for blob in closure.manifests.iter().rev() {
            if let Some(manifest) = self
                .get(&blob.digest)
                .and_then(|node| node.manifest.as_ref())
            {
                out.push((*blob, manifest));
            }
        }
        // Children stand after their index in a closure, unless they were reached earlier by another way.
        let mut ordered: Vec<(Blob, &Manifest)> = Vec::new();
        let mut placed: BTreeSet<Digest> = BTreeSet::new();
        let by_digest: BTreeMap<Digest, (Blob, &Manifest)> =
            out.iter().map(|entry| (entry.0.digest, *entry)).collect();
        fn visit<'a>(
            digest: Digest,
            by_digest: &BTreeMap<Digest, (Blob, &'a Manifest)>,
            placed: &mut BTreeSet<Digest>,
            ordered: &mut Vec<(Blob, &'a Manifest)>,
        ) {
            let Some(entry) = by_digest.get(&digest) else {
                return;
            };
            if !placed.insert(digest) {
                return;
            }
            if let Manifest::Index(list) = entry.1 {
                for child in &list.manifests {
                    visit(child.digest, by_digest, placed, ordered);
                }
            }
            ordered.push(*entry);
        }
        for (blob, _) in &out {
            visit(blob.digest, &by_digest, &mut placed, &mut ordered);
        }
        Ok(ordered)
    }
}

/// Widens a choice of platforms; answers whether it grew. An empty choice is every platform.
fn widen(platforms: &mut Vec<PlatformName>, more: &[PlatformName]) -> bool {
    if platforms.is_empty() {
        return false;
    }
    if more.is_empty() {
        platforms.clear();
        return true;
    }
    let before = platforms.len();
    for platform in more {
        if !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    platforms.len() > before
}

fn opaque(descriptor: &Descriptor, origins: &[Origin]) -> Fetch {
    let mut origins = origins.to_vec();
    if descriptor.is_foreign() {
        origins.extend(descriptor.urls.iter().cloned().map(Origin::Url));
    }
    Fetch {
        blob: descriptor.into(),
        content: Content::Opaque,
        origins,
    }
}

#[derive(Default)]
struct Walk {
    closure: Closure,
    seen: HashSet<Digest>,
    walked: HashSet<(Digest, Vec<String>)>,
}

impl Walk {
    fn manifest(&mut self, blob: Blob) {
        if self.seen.insert(blob.digest) {
            self.closure.manifests.push(blob);
        }
    }

    fn blob(&mut self, blob: Blob) {
        if self.seen.insert(blob.digest) {
            self.closure.blobs.push(blob);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(letter: u8, layers: &[u8]) -> Vec<u8> {
        let entry = |byte: u8| {
            format!(
                r#"{{"mediaType":"application/octet-stream","digest":"{}","size":1}}"#,
                Digest::of(&[byte])
            )
        };
        let layers: Vec<String> = layers.iter().map(|layer| entry(*layer)).collect();
        format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            entry(letter),
            layers.join(",")
        )
        .into_bytes()
    }

    fn index(children: &[(&[u8], &str)]) -> Vec<u8> {
        let children: Vec<String> = children
            .iter()
            .map(|(bytes, platform)| {
                let (os, architecture) = platform.split_once('/').unwrap();
                format!(
                    r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#,
                    crate::oci::OCI_MANIFEST,
                    Digest::of(bytes),
                    bytes.len()
                )
            })
            .collect();
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            children.join(",")
        )
        .into_bytes()
    }

    fn root(owner: &str, bytes: &[u8], platforms: &[&str]) -> Root {
        Root {
            owner: owner.to_owned(),
            fetch: Fetch {
                blob: Blob::of(bytes),
                content: Content::Manifest {
                    media_type: None,
                    platforms: platforms.iter().map(|name| name.parse().unwrap()).collect(),
                },
                origins: vec![Origin::Repository("quay.io/a/b".parse().unwrap())],
            },
        }
    }

    fn read_all(plan: &mut Plan, manifests: &[&[u8]]) {
        loop {
            let unread = plan.unread();
            let Some(fetch) = unread.first() else { break };
            let bytes = manifests
                .iter()
                .find(|bytes| Digest::of(bytes) == fetch.blob.digest)
                .expect("the manifest is at hand");
            plan.read(&fetch.blob.digest, bytes).unwrap();
        }
    }

    #[test]
    fn a_plan_grows_by_reading_until_nothing_is_unread() {
        let (a, b) = (image(b'a', b"123"), image(b'b', b"234"));
        let list = index(&[(&a, "linux/amd64"), (&b, "linux/arm64")]);
        let mut plan = Plan::of(vec![root("one", &list, &[])]).unwrap();
        assert_eq!(
            plan.closure().unwrap().unread.len(),
            1,
            "nothing is known before reading"
        );
        read_all(&mut plan, &[&a, &b, &list]);
        let closure = plan.closure().unwrap();
        assert_eq!(
            (closure.manifests.len(), closure.blobs.len()),
            (3, 6),
            "a shared layer counts once"
        );
        assert_eq!(
            closure.manifests[0],
            Blob::of(&list),
            "an index stands before its children"
        );
        assert_eq!(
            plan.owners(&Digest::of(b"2")),
            ["one"],
            "a layer knows who asked"
        );
        let ordered: Vec<Digest> = plan
            .manifests_of(&plan.roots()[0])
            .unwrap()
            .iter()
            .map(|(blob, _)| blob.digest)
            .collect();
        assert_eq!(
            ordered.last(),
            Some(&Digest::of(&list)),
            "an index is put after its children"
        );
    }

    #[test]
    fn each_owner_gets_the_platforms_it_asked_for_and_the_plan_their_union() {
        let (a, b) = (image(b'a', b"1"), image(b'b', b"2"));
        let list = index(&[(&a, "linux/amd64"), (&b, "linux/arm64")]);
        for order in [
            ["linux/amd64", "linux/arm64"],
            ["linux/arm64", "linux/amd64"],
        ] {
            let mut plan = Plan::of(vec![root("one", &list, &order[..1])]).unwrap();
            read_all(&mut plan, &[&a, &b, &list]);
            assert_eq!(
                plan.closure().unwrap().manifests.len(),
                2,
                "one child of two is taken"
            );
            let mut plan = Plan::of(vec![
                root("one", &list, &order[..1]),
                root("two", &list, &order[1..]),
            ])
            .unwrap();
            read_all(&mut plan, &[&a, &b, &list]);
            assert_eq!(
                plan.closure().unwrap().manifests.len(),
                3,
                "together they take both"
            );
            assert_eq!(
                plan.content_of(&plan.roots()[0]).unwrap().manifests.len(),
                2,
                "one root still takes its own"
            );
        }
        let mut plan = Plan::of(vec![root("one", &list, &["windows/amd64"])]).unwrap();
        let error = plan.read(&Digest::of(&list), &list).unwrap_err();
        assert!(
            error.to_string().contains("linux/amd64, linux/arm64"),
            "{error} must name what there is"
        );
    }

    #[test]
    fn one_blob_with_two_sizes_is_refused() {
        let a = image(b'a', b"1");
        let mut second = root("two", &a, &[]);
        second.fetch.blob.size += 1;
        assert!(
            matches!(
                Plan::of(vec![root("one", &a, &[]), second]),
                Err(PlanError::Size { .. })
            ),
            "a digest has one size"
        );
    }
}
