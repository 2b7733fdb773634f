//! Proving that a destination holds what a lock says, by asking the destination alone.
//!
//! For each image at its place: the tag stands for the pinned digest; the manifest's bytes have that digest; so have
//! those of the children that the pin takes; every layer and config is there, with its size. A deep proof also reads
//! every blob once and hashes it. Nothing local is consulted but the lock and its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::holdings::Holdings;
use crate::digest::Digest;
use crate::oci::{Manifest, PlatformName};
use crate::plan::lock::{Block, Lock};
use crate::reference::{ImageName, Tag};
use crate::run::built::Built;
use crate::run::each;
use crate::run::event::{Event, Observer, one_line};
use crate::run::resolve::placements;
use crate::step::place::{Destination, Layout, PlaceError, refuse_collisions};
use crate::step::rule::Rules;
use crate::store::{Blob, TransferError};

/// Deepest nesting of indexes that is followed.
const DEPTH_LIMIT: usize = 8;

/// An image that must be at a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Its repository, whole.
    pub path: String,
    /// Its tag.
    pub tag: Tag,
    /// Its manifest.
    pub digest: Digest,
    /// Its name for people.
    pub name: String,
    /// Only these children of an index; all where empty.
    pub platforms: Vec<PlatformName>,
}

/// What a block asked for, and which children of an index it takes.
type Asked<'a> = (Option<ImageName>, &'a [PlatformName]);

/// Where every image of a lock must be at a destination, sorted.
///
/// # Errors
/// If one has no place there, or two collide.
pub fn claims(
    lock: &Lock,
    built: &[Built],
    rules: &Rules,
    destination: &Destination,
    layout: &Layout,
) -> Result<Vec<Claim>, PlaceError> {
    let placements = placements(lock, built, rules, layout)?;
    refuse_collisions(&placements, &destination.prefix, layout)?;
    let mut pins: BTreeMap<Digest, Vec<Asked<'_>>> = BTreeMap::new();
    for block in lock.blocks() {
        let name = match block {
            Block::Image(image) => image.reference.parse().ok(),
            _ => None,
        };
        for (_, pin) in block.pins() {
            pins.entry(pin.digest)
                .or_default()
                .push((name.clone(), &pin.platforms));
        }
    }
    let mut claims: Vec<Claim> = placements
        .into_iter()
        .map(|placement| {
            let pins = pins.get(&placement.digest).map_or(&[][..], Vec::as_slice);
            let own = pins
                .iter()
                .find(|(name, _)| name.as_ref() == Some(&placement.origin))
                .or_else(|| pins.first());
            Claim {
                path: layout.limit(&destination.join(&placement.path)),
                tag: placement.tag,
                digest: placement.digest,
                name: placement.origin.to_string(),
                platforms: own
                    .map(|(_, platforms)| platforms.to_vec())
                    .unwrap_or_default(),
            }
        })
        .collect();
    claims.sort();
    claims.dedup();
    Ok(claims)
}

/// What is wrong at a destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// The tag is not there.
    NoTag {
        /// `PATH:TAG`
        at: String,
        /// The digest it should stand for.
        expected: Digest,
    },
    /// The tag stands for something else.
    OtherTag {
        /// `PATH:TAG`
        at: String,
        /// The digest it should stand for.
        expected: Digest,
        /// The digest it stands for.
        found: Digest,
    },
    /// A manifest is not there.
    NoManifest {
        /// The repository.
        at: String,
        /// Which.
        digest: Digest,
    },
    /// A blob is not there.
    NoBlob {
        /// The repository.
        at: String,
        /// Which.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// The bytes are others than they should be.
    Damaged {
        /// The repository.
        at: String,
        /// What they should be.
        digest: Digest,
        /// What is wrong, in one line.
        found: String,
    },
    /// The destination gave no answer.
    Unknown {
        /// What was asked.
        at: String,
        /// Why, in one line.
        because: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTag { at, expected } => write!(formatter, "{at} is not there ({expected})"),
            Self::OtherTag {
                at,
                expected,
                found,
            } => write!(formatter, "{at} is {found}, expected {expected}"),
            Self::NoManifest { at, digest } => {
                write!(formatter, "{at}@{digest}: the manifest is not there")
            }
            Self::NoBlob { at, digest, size } => {
                write!(formatter, "{at}: blob {digest} ({size} bytes) is not there")
            }
            Self::Damaged { at, digest, found } => {
                write!(formatter, "{at}: {digest} is damaged: {found}")
            }
            Self::Unknown { at, because } => write!(formatter, "{at}: {because}"),
        }
    }
}

/// What was proven, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Images that were looked for.
    pub images: u64,
    /// Images with all they need.
    pub whole: u64,
    /// Manifests whose bytes were found right, by repository.
    pub manifests: u64,
    /// Blobs that are there, by repository.
    pub blobs: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Bytes of blobs that were read and found right; 0 unless the proof is deep.
    pub read: u64,
    /// What is wrong, sorted, each with the images it concerns.
    pub problems: BTreeMap<Problem, BTreeSet<String>>,
    /// Whether it was told to stop.
    pub stopped: bool,
}

/// Proves claims against a destination.
#[must_use]
pub fn prove(
    claims: &[Claim],
    holdings: &dyn Holdings,
    deep: bool,
    workers: usize,
    observer: Observer<'_>,
    stop: &AtomicBool,
) -> Proof {
    let found: Mutex<Found> = Mutex::default();
    let record = |change: &dyn Fn(&mut Found)| {
        change(&mut found.lock().unwrap_or_else(PoisonError::into_inner));
    };
    each(claims.len(), workers, stop, |index| {
        let claim = &claims[index];
        let at = format!("{}:{}", claim.path, claim.tag);
        let problem = match holdings.tag(&claim.path, &claim.tag) {
            Ok(Some(digest)) if digest == claim.digest => None,
            Ok(Some(found)) => Some(Problem::OtherTag {
                at,
                expected: claim.digest,
                found,
            }),
            Ok(None) => Some(Problem::NoTag {
                at,
                expected: claim.digest,
            }),
            Err(error) => Some(Problem::Unknown {
                at,
                because: one_line(&error),
            }),
        };
        if let Some(problem) = problem {
            record(&|found| found.blame(problem.clone(), index));
        }
        let visit = Visit {
            claim,
            index,
            holdings,
            record: &record,
        };
        visit.manifest(claim.digest, &claim.platforms, 0);
    });
    let Found {
        manifests,
        blobs,
        mut problems,
    } = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let blobs: Vec<((String, Blob), Owners)> = blobs.into_iter().collect();
    let present: Mutex<BTreeMap<Blob, String>> = Mutex::default();
    let late: Mutex<Vec<(Problem, BTreeSet<usize>)>> = Mutex::default();
    let counts: Mutex<(u64, u64)> = Mutex::default();
    each(blobs.len(), workers, stop, |index| {
        let ((path, blob), (owners, foreign)) = &blobs[index];
        let problem = match holdings.holds(path, blob) {
            Ok(true) => {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                counts.0 += 1;
                counts.1 += blob.size;
                drop(counts);
                present
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(*blob)
                    .or_insert_with(|| path.clone());
                return;
            }
            Ok(false) if *foreign => return,
            Ok(false) => Problem::NoBlob {
                at: path.clone(),
                digest: blob.digest,
                size: blob.size,
            },
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Problem::Damaged {
                at: path.clone(),
                digest: blob.digest,
                found: one_line(&error),
            },
            Err(error) => Problem::Unknown {
                at: format!("{path}@{}", blob.digest),
                because: one_line(&error),
            },
        };
        late.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((problem, owners.clone()));
    });
    let mut read = 0;
    if deep {
        let mut work: Vec<(Blob, String)> = present
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .into_iter()
            .collect();
        work.sort_by_key(|(blob, _)| (std::cmp::Reverse(blob.size), blob.digest));
        for (blob, _) in &work {
            observer(Event::Planned {
                blobs: 1,
                bytes: blob.size,
            });
        }
        let total: Mutex<u64> = Mutex::new(0);
        each(work.len(), workers, stop, |index| {
            let (blob, path) = &work[index];
            let passed = |bytes| {
                observer(Event::Bytes {
                    digest: blob.digest,
                    bytes,
                });
            };
            let problem = match holdings.read(path, blob, &passed) {
                Ok(()) => {
                    *total.lock().unwrap_or_else(PoisonError::into_inner) += blob.size;
                    observer(Event::Done {
                        digest: blob.digest,
                        size: blob.size,
                        present: true,
                    });
                    return;
                }
                Err(TransferError::Absent { .. }) => Problem::NoBlob {
                    at: path.clone(),
                    digest: blob.digest,
                    size: blob.size,
                },
                Err(TransferError::Damaged { source, .. }) => Problem::Damaged {
                    at: path.clone(),
                    digest: blob.digest,
                    found: source.to_string(),
                },
                Err(error) => Problem::Unknown {
                    at: format!("{path}@{}", blob.digest),
                    because: one_line(&error),
                },
            };
            let owners = blobs
                .iter()
                .filter(|((_, other), _)| other == blob)
                .flat_map(|(_, (owners, _))| owners.iter().copied())
                .collect();
            late.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((problem, owners));
        });
        read = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    }
    for (problem, owners) in late.into_inner().unwrap_or_else(PoisonError::into_inner) {
        problems.entry(problem).or_default().extend(owners);
    }
    let broken: BTreeSet<usize> = problems.values().flatten().copied().collect();
    let stopped = stop.load(Ordering::Relaxed);
    let (blobs, bytes) = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    Proof {
        images: claims.len() as u64,
        whole: if stopped {
            0
        } else {
            (claims.len() - broken.len()) as u64
        },
        manifests: manifests.len() as u64,
        blobs,
        bytes,
        read,
        problems: problems
            .into_iter()
            .map(|(problem, owners)| {
                let names = owners
                    .into_iter()
                    .map(|index| claims[index].name.clone())
                    .collect();
                (problem, names)
            })
            .collect(),
        stopped,
    }
}

/// The claims that need a blob, and whether it need not be there (a foreign layer).
type Owners = (BTreeSet<usize>, bool);

/// Notes something down, under a lock.
type Record<'a> = dyn Fn(&dyn Fn(&mut Found)) + Sync + 'a;

#[derive(Default)]
struct Found {
    manifests: BTreeSet<(String, Digest)>,
    blobs: BTreeMap<(String, Blob), Owners>,
    problems: BTreeMap<Problem, BTreeSet<usize>>,
}

impl Found {
    fn blame(&mut self, problem: Problem, index: usize) {
        self.problems.entry(problem).or_default().insert(index);
    }
}

struct Visit<'a> {
    claim: &'a Claim,
    index: usize,
    holdings: &'a dyn Holdings,
    record: &'a Record<'a>,
}

impl Visit<'_> {
    fn manifest(&self, digest: Digest, platforms: &[PlatformName], depth: usize) {
        let path = &self.claim.path;
        let blame = |problem: Problem| {
            (self.record)(&|found| found.blame(problem.clone(), self.index));
        };
        if depth > DEPTH_LIMIT {
            return blame(Problem::Unknown {
                at: format!("{path}@{digest}"),
                because: format!("indexes nest more than {DEPTH_LIMIT} deep"),
            });
        }
        let manifest = match self.holdings.manifest(path, digest) {
            Ok(Some((_, manifest))) => manifest,
            Ok(None) => {
                return blame(Problem::NoManifest {
                    at: path.clone(),
                    digest,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return blame(Problem::Damaged {
                    at: path.clone(),
                    digest,
                    found: one_line(&error),
                });
            }
            Err(error) => {
                return blame(Problem::Unknown {
                    at: format!("{path}@{digest}"),
                    because: one_line(&error),
                });
            }
        };
        (self.record)(&|found| {
            found.manifests.insert((path.clone(), digest));
        });
        match manifest {
            Manifest::Image(image) => (self.record)(&|found| {
                for blob in image.blobs() {
                    let (owners, foreign) = found
                        .blobs
                        .entry((path.clone(), blob.into()))
                        .or_insert_with(|| (BTreeSet::new(), true));
                    owners.insert(self.index);
                    *foreign &= blob.is_foreign();
                }
            }),
            Manifest::Index(list) => {
                for child in list.taken(platforms) {
                    let inner = if child.platform.is_none() {
                        platforms
                    } else {
                        &[]
                    };
                    self.manifest(child.digest, inner, depth + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::holdings::fake::Fake;
    use super::*;

    /// What goes wrong at a destination.
    type Harm<'a> = dyn Fn(&Fake) + 'a;

    fn claim(path: &str, tag: &str, digest: Digest) -> Claim {
        Claim {
            path: path.to_owned(),
            tag: tag.parse().unwrap(),
            digest,
            name: format!("upstream/{path}"),
            platforms: Vec::new(),
        }
    }

    fn proof(claims: &[Claim], fake: &Fake, deep: bool) -> Proof {
        prove(claims, fake, deep, 3, &|_| (), &AtomicBool::new(false))
    }

    #[test]
    fn what_is_there_is_proven_and_what_is_not_is_listed() {
        let fake = Fake::default();
        let child = fake.image("a", None, "one");
        let index = fake.index("a", Some("v1"), &[child]);
        let other = fake.image("b", Some("v1"), "two");
        let claims = [claim("a", "v1", index), claim("b", "v1", other)];
        let whole = proof(&claims, &fake, true);
        assert!(whole.problems.is_empty(), "all is there: {whole:?}");
        assert_eq!(
            (whole.images, whole.whole, whole.manifests, whole.blobs),
            (2, 2, 3, 4),
            "everything is counted: {whole:?}"
        );
        let key = |path: &str, text: &str| (path.to_owned(), Digest::of(text.as_bytes()));
        let cases: [(&str, &Harm<'_>); 5] = [
            ("a:v1 is not there", &|fake| {
                fake.tags
                    .lock()
                    .unwrap()
                    .remove(&("a".to_owned(), "v1".parse().unwrap()));
            }),
            ("b:v1 is sha256:", &|fake| {
                let wrong = Digest::of(b"x");
                fake.tags
                    .lock()
                    .unwrap()
                    .insert(("b".to_owned(), "v1".parse().unwrap()), wrong);
            }),
            ("the manifest is not there", &|fake| {
                fake.manifests
                    .lock()
                    .unwrap()
                    .remove(&("a".to_owned(), child));
            }),
            ("bytes) is not there", &|fake| {
                fake.blobs.lock().unwrap().remove(&key("b", "two"));
            }),
            ("is damaged", &|fake| {
                fake.blobs
                    .lock()
                    .unwrap()
                    .insert(key("a", "one"), b"ONE".to_vec());
            }),
        ];
        for (expected, harm) in cases {
            let fake = Fake::default();
            let child = fake.image("a", None, "one");
            fake.index("a", Some("v1"), &[child]);
            fake.image("b", Some("v1"), "two");
            harm(&fake);
            let proof = proof(&claims, &fake, true);
            let texts: Vec<String> = proof.problems.keys().map(ToString::to_string).collect();
            assert_eq!(texts.len(), 1, "one harm, one problem: {texts:?}");
            assert!(
                texts[0].contains(expected),
                "{texts:?} must say {expected:?}"
            );
            assert_eq!(proof.whole, 1, "the other image is whole: {proof:?}");
        }
    }

    #[test]
    fn only_the_children_that_were_asked_for_must_be_there() {
        let fake = Fake::default();
        let kept = fake.image("a", None, "one");
        let list = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[
                {{"mediaType":"{m}","digest":"{kept}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}},
                {{"mediaType":"{m}","digest":"{}","size":1,"platform":{{"os":"linux","architecture":"arm64"}}}}]}}"#,
            crate::oci::OCI_INDEX,
            Digest::of(b"left out"),
            m = crate::oci::OCI_MANIFEST
        );
        let index = Digest::of(list.as_bytes());
        fake.manifests
            .lock()
            .unwrap()
            .insert(("a".to_owned(), index), list.into_bytes());
        fake.tags
            .lock()
            .unwrap()
            .insert(("a".to_owned(), "v1".parse().unwrap()), index);
        let mut claims = [claim("a", "v1", index)];
        assert_eq!(
            proof(&claims, &fake, false).problems.len(),
            1,
            "all children are wanted"
        );
        claims[0].platforms = vec!["linux/amd64".parse().unwrap()];
        assert!(
            proof(&claims, &fake, false).problems.is_empty(),
            "the other one was not asked for"
        );
    }
}
