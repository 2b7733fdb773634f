//! What answering a block may use: names, bytes by digest, files by address, files out of images.
//!
//! Everything is had once per run, however many blocks need it: from the store where that has it, else from upstream.
//! What was had is in the store, so a run that was stopped goes on where it was. Any number of blocks may ask at once;
//! [`Means`] lets only so many requests out at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use regex::Regex;
use url::Url;

use super::within::Vetted;
use super::{Answer, Resolver};
use crate::chart::Index;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::{Descriptor, Image, MANIFEST_LIMIT, Manifest, PlatformName};
use crate::plan::lock::{Origin as PinOrigin, Pin, Skip};
use crate::reference::{ImageName, Repository, Tag};
use crate::run::event::{Event, advice, one_line};
use crate::run::member::{Member, TakeMember, read_members, stream_member};
use crate::run::realise::fetch_one;
use crate::step::{Address, Content, Derive, Fetch, Observe, Origin};
use crate::store::memo::{Output, recall};
use crate::store::{Blob, Source, Verified, read};

/// What refers to a manifest, as evidence keeps it: one digest per line.
#[must_use]
pub fn referrer_list(digests: &[Digest]) -> Vec<u8> {
    let lines: Vec<String> = digests.iter().map(|digest| format!("{digest}\n")).collect();
    lines.concat().into_bytes()
}

/// Why a request cannot be answered, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub text: String,
    /// What would help.
    pub hint: Option<String>,
    /// Whether it is about trust: a signature that is missing or proves nothing.
    pub is_trust: bool,
    /// Where it was asked for, if that is more precise than where its block was.
    pub at: Option<String>,
}

impl Problem {
    /// A problem in words.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            hint: None,
            is_trust: false,
            at: None,
        }
    }

    /// A problem that an error describes, with its causes and its advice.
    pub fn of<E: std::error::Error + Hint + 'static>(error: &E) -> Self {
        Self {
            hint: error.hint(),
            ..Self::new(one_line(error))
        }
    }

    /// The same about something.
    #[must_use]
    pub fn about(mut self, what: impl std::fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same as a matter of trust.
    #[must_use]
    pub const fn trust(mut self) -> Self {
        self.is_trust = true;
        self
    }

    /// The same at a place of the config.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at = Some(place.into());
        self
    }

    fn io(what: impl std::fmt::Display, error: &io::Error) -> Self {
        Self {
            hint: advice(error),
            ..Self::new(format!("{what}: {}", one_line(error)))
        }
    }
}

/// Images that nobody gets: those that match a pattern, and those that are left out on purpose.
#[derive(Default)]
pub struct Exclusions {
    patterns: Vec<Regex>,
    skips: Vec<Skip>,
    used: Mutex<BTreeSet<String>>,
}

impl Exclusions {
    /// Leaves out what matches a pattern or is named by a skip.
    #[must_use]
    pub fn new(patterns: Vec<Regex>, skips: Vec<Skip>) -> Self {
        Self {
            patterns,
            skips,
            used: Mutex::default(),
        }
    }

    /// Why an image is left out, if it is: by its name (and by how its block names it), or by the place it would have.
    pub fn excludes(&self, names: &[&str], place: Option<&str>) -> Option<String> {
        if let Some(skip) = self
            .skips
            .iter()
            .find(|skip| names.contains(&skip.image.as_str()))
        {
            lock(&self.used).insert(skip.image.clone());
            return Some(format!("is skipped: {}", skip.reason));
        }
        let bare = |name: &str| {
            name.split_once("://")
                .map_or(name, |(_, rest)| rest)
                .to_owned()
        };
        self.patterns
            .iter()
            .find(|pattern| {
                names.iter().any(|name| pattern.is_match(&bare(name)))
                    || place.is_some_and(|place| pattern.is_match(place))
            })
            .map(|pattern| format!("is blocked by {:?}", pattern.as_str()))
    }

    /// Whether a skip left something out.
    #[must_use]
    pub fn was_used(&self, skip: &Skip) -> bool {
        lock(&self.used).contains(&skip.image)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values that are made once, whoever asks first; the others wait.
struct Once<K, V> {
    cells: Mutex<HashMap<K, Arc<OnceLock<V>>>>,
}

impl<K, V> Default for Once<K, V> {
    fn default() -> Self {
        Self {
            cells: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Eq + Hash, V: Clone> Once<K, V> {
    fn get(&self, key: K, make: impl FnOnce() -> V) -> V {
        let cell = Arc::clone(lock(&self.cells).entry(key).or_default());
        cell.get_or_init(make).clone()
    }
}

/// So many requests at once.
struct Gate {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A request under way.
struct Passage<'a>(&'a Gate);

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

impl Gate {
    fn pass(&self) -> Passage<'_> {
        let mut free = self
            .freed
            .wait_while(lock(&self.free), |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Passage(self)
    }
}

/// What is at an address, or why nobody can say.
type Seen = Result<Option<Arc<[u8]>>, Problem>;

/// A manifest that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its promise.
    pub blob: Blob,
}

/// The instance of an image that files are read out of.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its manifest.
    pub blob: Blob,
    /// The same, read.
    pub image: Image,
    /// How many instances the image has.
    pub of: usize,
}

/// Largest plain file that is had whole: update graphs, signatures, graph data.
pub const FILE_LIMIT: u64 = 64 << 20;

/// What answering a block may use.
pub struct Means<'a> {
    resolver: &'a Resolver<'a>,
    exclusions: &'a Exclusions,
    /// Files at hand, by digest: the name as the user wrote it, and the bytes.
    files: &'a BTreeMap<Digest, (String, Vec<u8>)>,
    /// Risks of updates that somebody accepts, by name.
    risks: &'a [String],
    gate: Gate,
    names: Once<ImageName, Result<Option<Named>, Problem>>,
    addresses: Once<Address, Seen>,
    tags: Once<Repository, Result<Option<Arc<[Tag]>>, Problem>>,
    indexes: Once<String, Result<Arc<Index>, Problem>>,
    manifests: Once<(Repository, Digest), Result<Option<Stored>, Problem>>,
    blobs: Once<Digest, Result<(), Problem>>,
}

/// What a mutable name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Where its bytes are.
    pub origin: PinOrigin,
    /// The manifest, which is in the store.
    pub stored: Stored,
}

impl<'a> Means<'a> {
    /// The means of one run.
    #[must_use]
    pub fn new(
        resolver: &'a Resolver<'a>,
        exclusions: &'a Exclusions,
        files: &'a BTreeMap<Digest, (String, Vec<u8>)>,
        risks: &'a [String],
    ) -> Self {
        Self {
            resolver,
            exclusions,
            files,
            risks,
            gate: Gate {
                free: Mutex::new(resolver.limits.workers.max(1)),
                freed: Condvar::new(),
            },
            names: Once::default(),
            addresses: Once::default(),
            tags: Once::default(),
            indexes: Once::default(),
            manifests: Once::default(),
            blobs: Once::default(),
        }
    }

    /// The run that this is for.
    #[must_use]
    pub const fn resolver(&self) -> &'a Resolver<'a> {
        self.resolver
    }

    /// The lock that alone answers, if one does.
    #[must_use]
    pub const fn within(&self) -> Option<&'a Vetted<'a>> {
        self.resolver.within
    }

    /// What is left out.
    #[must_use]
    pub const fn exclusions(&self) -> &'a Exclusions {
        self.exclusions
    }

    /// The file of that digest, if it is at hand: its name and its bytes.
    #[must_use]
    pub fn file(&self, digest: &Digest) -> Option<&'a (String, Vec<u8>)> {
        self.files.get(digest)
    }

    /// The risks that somebody accepts.
    #[must_use]
    pub const fn risks(&self) -> &'a [String] {
        self.risks
    }

    /// Set to stop.
    #[must_use]
    pub const fn stop(&self) -> &'a AtomicBool {
        self.resolver.stop
    }

    /// Runs `work` for every index below `count`, several at a time; the results in the order of the indices.
    ///
    /// # Errors
    /// If it was told to stop.
    pub fn gather<T: Send>(
        &self,
        count: usize,
        at_once: usize,
        work: impl Fn(usize) -> T + Sync,
    ) -> Result<Vec<T>, Problem> {
        crate::run::gather(count, at_once, self.resolver.stop, work)
            .ok_or_else(|| Problem::new("stopped"))
    }

    fn pass(&self) -> Result<Passage<'_>, Problem> {
        let passage = self.gate.pass();
        if self.resolver.stop.load(Ordering::Relaxed) {
            return Err(Problem::new("stopped"));
        }
        Ok(passage)
    }

    /// Keeps bytes in the store.
    ///
    /// # Errors
    /// If the store fails.
    pub fn keep(&self, bytes: &[u8]) -> Result<Blob, Problem> {
        let blob = Blob::of(bytes);
        let store = self.resolver.store;
        let failed = |error: io::Error| Problem::io("the store", &error);
        if !store.holds(&blob).map_err(failed)? {
            let mut bytes = Verified::new(Box::new(bytes), blob);
            store.write(&blob, &mut bytes).map_err(failed)?;
        }
        Ok(blob)
    }

    /// What a mutable name means now; its manifest is in the store then. `None` if it means nothing.
    ///
    /// # Errors
    /// If nobody could be asked, or what they said is no manifest that can be mirrored.
    pub fn resolve(&self, name: &ImageName) -> Result<Option<Named>, Problem> {
        self.names.get(name.clone(), || {
            if let Some(vetted) = self.within() {
                let (origin, digest) = vetted.resolve(name)?;
                let blob = vetted.bring(&origin, &digest, self)?;
                return Ok(Some(Named {
                    origin,
                    stored: Stored { blob },
                }));
            }
            let names = self.names_or_offline(name)?;
            let answer = {
                let _passage = self.pass()?;
                names.resolve(name)
            };
            let answer: Option<Answer> = answer.map_err(|error| Problem::io(name, &error))?;
            let digest = answer.as_ref().map(|answer| Digest::of(&answer.bytes));
            (self.resolver.evidence)(&Observe::Tag(name.clone()).to_string(), digest);
            let Some(answer) = answer else {
                return Ok(None);
            };
            Manifest::parse(&answer.bytes, answer.media_type.as_deref())
                .map_err(|error| Problem::of(&error).about(name))?;
            Ok(Some(Named {
                origin: answer.origin,
                stored: Stored {
                    blob: self.keep(&answer.bytes)?,
                },
            }))
        })
    }

    fn names_or_offline(
        &self,
        what: &dyn std::fmt::Display,
    ) -> Result<&'a dyn super::Names, Problem> {
        self.resolver
            .names
            .ok_or_else(|| Problem::new(format!("{what} cannot be asked offline")))
    }

    /// What is at an address now; `None` if nothing is. Within another lock, what that pins from there.
    ///
    /// # Errors
    /// If nobody could be asked, or it is larger than [`FILE_LIMIT`].
    pub fn get(&self, address: &Address) -> Result<Option<Arc<[u8]>>, Problem> {
        match self.within() {
            None => self.ask(address),
            Some(vetted) => vetted
                .get(address, self)
                .map(|bytes| Some(Arc::from(bytes))),
        }
    }

    /// What is at an address now, whoever else answers names; `None` if nothing is.
    ///
    /// # Errors
    /// If nobody could be asked, or it is larger than [`FILE_LIMIT`].
    pub fn ask(&self, address: &Address) -> Result<Option<Arc<[u8]>>, Problem> {
        self.addresses.get(address.clone(), || {
            let names = self.names_or_offline(address)?;
            let found = {
                let _passage = self.pass()?;
                names.get(address, FILE_LIMIT)
            };
            let found = found.map_err(|error| Problem::io(address, &error))?;
            (self.resolver.evidence)(
                &Observe::File(address.clone()).to_string(),
                found.as_deref().map(Digest::of),
            );
            // What was seen stays at hand, for whoever replays this run.
            if let Some(bytes) = &found {
                self.keep(bytes)?;
            }
            Ok(found.map(Arc::from))
        })
    }

    /// What refers to a manifest now, sorted; the list is in the store then, for whoever replays this run.
    ///
    /// # Errors
    /// If nobody could be asked.
    pub fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<Digest>, Problem> {
        let question = Observe::Referrers(repository.clone(), *digest);
        let names = self.names_or_offline(&question)?;
        let found = {
            let _passage = self.pass()?;
            names.referrers(repository, digest)
        };
        let found = found.map_err(|error| Problem::io(&question, &error))?;
        let list = referrer_list(&found);
        (self.resolver.evidence)(&question.to_string(), Some(Digest::of(&list)));
        self.keep(&list)?;
        Ok(found)
    }

    /// The tags of a repository, sorted; `None` if there is no such repository.
    ///
    /// # Errors
    /// If nobody could be asked.
    pub fn tags(&self, repository: &Repository) -> Result<Option<Arc<[Tag]>>, Problem> {
        self.tags.get(repository.clone(), || {
            let question = Observe::Tags(repository.clone());
            let names = self.names_or_offline(&question)?;
            let found = {
                let _passage = self.pass()?;
                names.tags(repository)
            };
            let found = found.map_err(|error| Problem::io(&question, &error))?;
            // As a file, so that it can be found again by its digest.
            let text = found.as_deref().map(tag_list);
            (self.resolver.evidence)(
                &question.to_string(),
                text.as_ref().map(|text| Digest::of(text.as_bytes())),
            );
            if let Some(text) = text {
                self.keep(text.as_bytes())?;
            }
            Ok(found.map(Arc::from))
        })
    }

    /// The index of a repository of charts.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn index(&self, repository: &Url) -> Result<Arc<Index>, Problem> {
        self.indexes.get(repository.to_string(), || {
            let address = super::chart::index_url(repository);
            let bytes = self.get(&Address::plain(address.as_str()))?.ok_or_else(|| {
                Problem::new(format!("there is no index at {address}"))
                    .hint("the URL of a chart repository is that of the folder with index.yaml; a registry's begins with oci://")
            })?;
            let index = Index::parse(&bytes).map_err(|error| Problem::of(&error).about(&address))?;
            Ok(Arc::new(index))
        })
    }

    /// Brings a manifest of known digest but unknown size into the store; `None` if the repository has not got it.
    ///
    /// # Errors
    /// If the repository could not be asked, or gave other bytes.
    pub fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Stored>, Problem> {
        self.manifests.get((repository.clone(), *digest), || {
            if let Some(vetted) = self.within() {
                vetted.check(digest, &format!("{repository}@{digest}"))?;
            }
            let failed = |error: io::Error| Problem::io("the store", &error);
            if let Some(size) = self.resolver.store.size_of(digest).map_err(failed)? {
                let blob = Blob {
                    digest: *digest,
                    size,
                };
                return Ok(Some(Stored { blob }));
            }
            let name = format!("{repository}@{digest}");
            (self.resolver.observer)(Event::Planned { blobs: 1, bytes: 0 });
            let bytes = {
                let _passage = self.pass()?;
                self.resolver.upstream.manifest(repository, digest)
            };
            let Some(bytes) = bytes.map_err(|error| Problem::io(&name, &error))? else {
                return Ok(None);
            };
            if Digest::of(&bytes) != *digest {
                return Err(Problem::new(format!(
                    "{name}: what was served is {}",
                    Digest::of(&bytes)
                )));
            }
            let blob = self.keep(&bytes)?;
            (self.resolver.observer)(Event::Done {
                digest: *digest,
                size: blob.size,
                present: false,
            });
            Ok(Some(Stored { blob }))
        })
    }

    /// Many at once, in the order asked.
    ///
    /// # Errors
    /// If it was told to stop; what is wrong with one of them is in its place.
    pub fn manifests(
        &self,
        wanted: &[(&Repository, Digest)],
    ) -> Result<Vec<Result<Option<Stored>, Problem>>, Problem> {
        self.gather(wanted.len(), self.resolver.limits.workers, |index| {
            let (repository, digest) = wanted[index];
            self.manifest(repository, &digest)
        })
    }

    /// Reads a manifest that is in the store.
    ///
    /// # Errors
    /// If it is damaged, or no manifest that can be mirrored.
    pub fn read(&self, stored: Stored) -> Result<Manifest, Problem> {
        let digest = stored.blob.digest;
        let bytes = read(self.resolver.store, &stored.blob, MANIFEST_LIMIT)
            .map_err(|error| Problem::new(one_line(&error)))?;
        Manifest::parse(&bytes, None).map_err(|error| Problem::of(&error).about(digest))
    }

    /// Pins a manifest that is in the store, with only `platforms` of it where it is an index (all, if none are given;
    /// within another lock, all that it has).
    ///
    /// # Errors
    /// If it has none of these platforms, or is no manifest that can be mirrored.
    pub fn pin(
        &self,
        origin: PinOrigin,
        stored: Stored,
        platforms: &[PlatformName],
    ) -> Result<Pin, Problem> {
        let mut pin = Pin::new(origin, stored.blob.digest, stored.blob.size);
        let vetted;
        let platforms = match self.within() {
            None => platforms,
            Some(within) => {
                vetted = within.platforms(&pin.digest, platforms, &pin.image())?;
                vetted.as_slice()
            }
        };
        if let Manifest::Index(list) = self.read(stored)? {
            let taken = list.taken(platforms).len();
            if taken == 0 && !list.manifests.is_empty() {
                let wanted: Vec<String> = platforms.iter().map(ToString::to_string).collect();
                let found: BTreeSet<String> = list
                    .manifests
                    .iter()
                    .filter_map(|child| child.platform.as_ref())
                    .map(ToString::to_string)
                    .collect();
                let found: Vec<String> = found.into_iter().collect();
                return Err(Problem::new(format!(
                    "{} has no image for {}; it has {}",
                    pin.image(),
                    wanted.join(", "),
                    if found.is_empty() {
                        "no platforms at all".to_owned()
                    } else {
                        found.join(", ")
                    }
                ))
                .hint("change `platforms` to what it has"));
            }
            if taken < list.manifests.len() {
                pin.platforms = platforms.to_vec();
            }
        }
        Ok(pin)
    }

    /// Brings a blob into the store.
    ///
    /// # Errors
    /// If it does not arrive.
    pub fn blob(&self, blob: Blob, origins: Vec<Origin>) -> Result<(), Problem> {
        self.blobs.get(blob.digest, || {
            let store = self.resolver.store;
            if store
                .holds(&blob)
                .map_err(|error| Problem::io("the store", &error))?
            {
                return Ok(());
            }
            let fetch = Fetch {
                blob,
                content: Content::Opaque,
                origins,
            };
            (self.resolver.observer)(Event::Planned {
                blobs: 1,
                bytes: blob.size,
            });
            let _passage = self.pass()?;
            fetch_one(
                &fetch,
                self.resolver.upstream,
                store,
                self.resolver.limits.attempts,
                self.resolver.observer,
                self.resolver.stop,
            )
            .map_err(|error| Problem::new(one_line(&error)))?;
            (self.resolver.observer)(Event::Done {
                digest: blob.digest,
                size: blob.size,
                present: false,
            });
            Ok(())
        })
    }

    /// The instance of an image that speaks for it: itself, or the first child that is taken.
    ///
    /// # Errors
    /// If it does not arrive, or has no instance.
    pub fn instance(
        &self,
        origin: &PinOrigin,
        stored: Stored,
        platforms: &[PlatformName],
    ) -> Result<Instance, Problem> {
        let mut at = stored;
        let mut of = 1;
        // Indexes of indexes are rare, deeper ones unknown.
        for _ in 0..5 {
            match self.read(at)? {
                Manifest::Image(image) => {
                    return Ok(Instance {
                        blob: at.blob,
                        image,
                        of,
                    });
                }
                Manifest::Index(list) => {
                    let taken = list.taken(platforms);
                    let runs = |child: &&&Descriptor| {
                        child
                            .platform
                            .as_ref()
                            .is_some_and(|platform| platform.os != "unknown")
                    };
                    of = list
                        .manifests
                        .iter()
                        .filter(|child| runs(&child))
                        .count()
                        .max(1);
                    let Some(child) = taken.iter().find(runs).or(taken.first()) else {
                        break;
                    };
                    let blob = Blob::from(*child);
                    let fetch = Fetch {
                        blob,
                        content: Content::Manifest {
                            media_type: None,
                            platforms: Vec::new(),
                        },
                        origins: vec![origin_of(origin)],
                    };
                    let _passage = self.pass()?;
                    fetch_one(
                        &fetch,
                        self.resolver.upstream,
                        self.resolver.store,
                        self.resolver.limits.attempts,
                        self.resolver.observer,
                        self.resolver.stop,
                    )
                    .map_err(|error| Problem::new(one_line(&error)))?;
                    at = Stored { blob };
                }
            }
        }
        Err(Problem::new(format!(
            "{} has no image to read from",
            stored.blob.digest
        )))
    }

    /// Opens a layer, which is in the store then.
    fn layer(
        &self,
        origin: &PinOrigin,
        layer: &Descriptor,
    ) -> io::Result<Box<dyn Read + Send + '_>> {
        let blob = Blob::from(layer);
        self.blob(blob, vec![origin_of(origin)])
            .map_err(|problem| io::Error::other(problem.text))?;
        let bytes = Source::open(self.resolver.store, &blob, 0)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is gone"))?;
        Ok(Box::new(Verified::new(bytes, blob)))
    }

    /// Hands one file out of an instance to `take`, however long it is; `None` where it has no such file. Of its layers
    /// only those are fetched that must be.
    ///
    /// # Errors
    /// If a layer does not arrive, `take` fails, or what is there is no file.
    pub fn stream(
        &self,
        origin: &PinOrigin,
        instance: &Instance,
        path: &str,
        take: TakeMember<'_>,
    ) -> Result<Option<Member>, Problem> {
        let open = |layer: &Descriptor| self.layer(origin, layer);
        stream_member(&instance.image.layers, path, &open, take)
            .map_err(|error| Problem::new(one_line(&error)))
    }

    /// Files out of an instance, in the order asked; `None` where it has no such file. What was read before is not read
    /// again, and of its layers only those are fetched that must be.
    ///
    /// # Errors
    /// If a layer does not arrive, or what is there is no plain file of at most `limit` bytes.
    pub fn members(
        &self,
        origin: &PinOrigin,
        instance: &Instance,
        paths: &[&str],
        limit: u64,
    ) -> Result<Vec<Option<Vec<u8>>>, Problem> {
        let store = self.resolver.store;
        let failed = |error: io::Error| Problem::io("the store", &error);
        let key = |path: &str| {
            Derive::ReadMember {
                image: instance.blob,
                path: path.to_owned(),
            }
            .key()
        };
        let mut out: Vec<Option<Vec<u8>>> = Vec::new();
        let mut open = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            let known = recall(store, store, &key(path)).map_err(failed)?;
            if let Some([output, ..]) = known.as_deref() {
                let bytes = read(store, &output.blob, limit)
                    .map_err(|error| Problem::new(one_line(&error)))?;
                out.push(Some(bytes));
            } else {
                out.push(None);
                open.push(index);
            }
        }
        if open.is_empty() {
            return Ok(out);
        }
        let layer = |layer: &Descriptor| self.layer(origin, layer);
        let wanted: Vec<&str> = open.iter().map(|index| paths[*index]).collect();
        let found = read_members(&instance.image.layers, &wanted, limit, &layer)
            .map_err(|error| Problem::new(one_line(&error)))?;
        for (index, bytes) in open.into_iter().zip(found) {
            if let Some(bytes) = &bytes {
                let output = Output {
                    media_type: "application/octet-stream".to_owned(),
                    blob: self.keep(bytes)?,
                };
                store.put(&key(paths[index]), &[output]).map_err(failed)?;
            }
            out[index] = bytes;
        }
        Ok(out)
    }
}

/// A list of tags as a file: one a line.
#[must_use]
pub fn tag_list(tags: &[Tag]) -> String {
    let mut text = String::new();
    for tag in tags {
        text.push_str(tag.as_str());
        text.push('\n');
    }
    text
}

/// Where the bytes of a pin may be had.
#[must_use]
pub fn origin_of(origin: &PinOrigin) -> Origin {
    match origin {
        PinOrigin::Registry(repository) => Origin::Repository(repository.clone()),
        PinOrigin::Layout(path) => Origin::Layout(path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusion_says_why_and_remembers_its_use() {
        let skip = |image: &str| Skip {
            image: image.to_owned(),
            reason: "withdrawn".to_owned(),
        };
        let (used, unused) = (skip("quay.io/a/b:1"), skip("quay.io/a/c:1"));
        let exclusions = Exclusions::new(
            vec![
                Regex::new("^quay.io/x/").unwrap(),
                Regex::new("-disk$").unwrap(),
            ],
            vec![used.clone(), unused.clone()],
        );
        for (names, place, wanted) in [
            (&["quay.io/a/b:1"][..], None, Some("is skipped: withdrawn")),
            (
                &["docker://quay.io/x/y:1"],
                None,
                Some("is blocked by \"^quay.io/x/\""),
            ),
            (
                &["quay.io/z:1"],
                Some("a/b:1-disk"),
                Some("is blocked by \"-disk$\""),
            ),
            (&["quay.io/z:1"], Some("a/b:1"), None),
            (&["mirror.io/quay.io/x/y:1"], None, None),
        ] {
            assert_eq!(
                exclusions.excludes(names, place).as_deref(),
                wanted,
                "{names:?} at {place:?}"
            );
        }
        assert!(
            exclusions.was_used(&used) && !exclusions.was_used(&unused),
            "a skip that left nothing out can go"
        );
    }

    #[test]
    fn what_is_asked_for_at_once_is_made_once() {
        let once: Once<u8, usize> = Once::default();
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| once.get(1, || made.fetch_add(1, Ordering::SeqCst)));
            }
        });
        assert_eq!(
            made.load(Ordering::SeqCst),
            1,
            "the others wait for the first"
        );
        assert_eq!(
            once.get(2, || made.fetch_add(1, Ordering::SeqCst)),
            1,
            "another key is another value"
        );
    }

    #[test]
    fn no_more_pass_the_gate_than_there_is_room() {
        let gate = Gate {
            free: Mutex::new(2),
            freed: Condvar::new(),
        };
        let (inside, most) = (
            std::sync::atomic::AtomicUsize::new(0),
            std::sync::atomic::AtomicUsize::new(0),
        );
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let _passage = gate.pass();
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2, "two at a time");
        assert_eq!(*lock(&gate.free), 2, "everyone has left");
    }
}
