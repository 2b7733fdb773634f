//! Work that is done again without the memo, and what it yields held to what the memo says.
//!
//! A record of the memo is a claim about work, and nothing in it proves the claim: whoever can write a file can write a
//! record that reads well. So an audit does not ask the memo. Every list of a lock is read out of the pinned bytes anew,
//! and every image that was built of it is built again; where the memo says something else, the record is named.
//!
//! What is made meanwhile is kept aside, in memory and in a temporary folder; the store is only read.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use crate::canon::Key;
use crate::digest::Digest;
use crate::plan::graph::{Plan, Root};
use crate::plan::lock::Lock;
use crate::reference::Repository;
use crate::run::built;
use crate::run::event::{Observer, one_line};
use crate::run::realise::{Depot, Extent, Limits, Upstream, realise};
use crate::run::resolve::release::Services;
use crate::run::resolve::{self, Request, ResolveError, Resolver};
use crate::step::rule::Rules;
use crate::step::{Content, Origin};
use crate::store::disk::{Access, Store};
use crate::store::memo::{Memo, Output};
use crate::store::memory::Memory;
use crate::store::{Blob, Sink, Source, Verified, read};

/// Largest file of a lock that a list depends on: keys, values of charts.
const FILE_LIMIT: u64 = 64 << 20;

/// What is not as the work yields it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deviation {
    /// A record of the memo, by its name, and what it should say.
    Record {
        /// The key of the work.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A list in the lock, and what is wrong with it.
    List {
        /// The block and what is wrong with it.
        what: String,
    },
    /// Work that could not be done again, and why.
    Work {
        /// The block.
        owner: String,
        /// Why.
        what: String,
    },
}

/// A store that has forgotten all work, and keeps what is made aside.
struct Afresh<'a> {
    store: &'a Store,
    aside: Memory,
    made: Mutex<BTreeMap<Key, Vec<Output>>>,
}

impl Source for Afresh<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        match self.store.open(blob, from)? {
            None => self.aside.open(blob, from),
            found => Ok(found),
        }
    }
}

impl Sink for Afresh<'_> {
    fn holds(&self, blob: &Blob) -> io::Result<bool> {
        Ok(self.store.holds(blob)? || self.aside.holds(blob)?)
    }

    fn write(&self, blob: &Blob, bytes: &mut Verified<'_>) -> io::Result<()> {
        self.aside.write(blob, bytes)
    }
}

impl Memo for Afresh<'_> {
    fn get(&self, key: &Key) -> io::Result<Option<Vec<Output>>> {
        Ok(lock(&self.made).get(key).cloned())
    }

    fn put(&self, key: &Key, outputs: &[Output]) -> io::Result<()> {
        lock(&self.made).insert(*key, outputs.to_vec());
        Ok(())
    }
}

impl Depot for Afresh<'_> {
    fn size_of(&self, digest: &Digest) -> io::Result<Option<u64>> {
        Ok(self
            .store
            .size_of(digest)?
            .or_else(|| self.aside.size_of(digest)))
    }

    fn scratch(&self) -> io::Result<std::fs::File> {
        // The store may be one that an auditor may only read.
        Depot::scratch(&self.aside)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store as the only place that there is.
struct Here<'a>(&'a Store);

impl Upstream for Here<'_> {
    fn source(&self, _origin: &Origin, _content: &Content) -> io::Result<Box<dyn Source + '_>> {
        Ok(Box::new(At(self.0)))
    }

    fn manifest(&self, _repository: &Repository, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let Some(size) = self.0.size_of(digest)? else {
            return Ok(None);
        };
        let blob = Blob {
            digest: *digest,
            size,
        };
        read(self.0, &blob, size)
            .map(Some)
            .map_err(io::Error::other)
    }
}

struct At<'a>(&'a Store);

impl Source for At<'_> {
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        self.0.open(blob, from)
    }
}

/// Does all work of a lock again from the bytes in a store, and says what deviates. Nothing is asked of anybody.
///
/// # Errors
/// If the store or a temporary folder fails.
pub fn rederive(
    store: &Store,
    locked: &Lock,
    rules: &Rules,
    stop: &AtomicBool,
) -> io::Result<Vec<Deviation>> {
    let silent: Observer<'_> = &|_| ();
    let afresh = Afresh {
        store,
        aside: Memory::default(),
        made: Mutex::default(),
    };
    let here = Here(store);
    let files = locked.files.iter().filter_map(|file| {
        let bytes = read(store, &file.file, FILE_LIMIT).ok()?;
        Some((file.reference.clone(), bytes))
    });
    let request = Request {
        blocked: locked
            .blocked
            .iter()
            .map(|blocked| blocked.name.clone())
            .collect(),
        files: files.collect(),
        ..Request::default()
    };
    let mut deviations = Vec::new();
    let lists = resolve::recheck(
        &request,
        locked,
        &Resolver {
            rules,
            names: None,
            upstream: &here,
            store: &afresh,
            limits: Limits::default(),
            observer: silent,
            stop,
            services: Services::default(),
            evidence: &|_, _| (),
            within: None,
        },
    );
    match lists {
        Ok(complaints) => {
            deviations.extend(complaints.into_iter().map(|what| Deviation::List { what }));
        }
        Err(ResolveError::Unanswered { problems }) => {
            deviations.extend(
                problems
                    .into_iter()
                    .map(|(owner, problem)| Deviation::Work {
                        owner,
                        what: problem.text,
                    }),
            );
        }
        Err(ResolveError::Stopped) => return Ok(deviations),
        Err(error) => deviations.push(Deviation::Work {
            owner: "all".to_owned(),
            what: one_line(&error),
        }),
    }
    for (key, outputs) in lock(&afresh.made).iter() {
        compare(store, key, outputs, &mut deviations)?;
    }
    build(store, &here, locked, rules, stop, &mut deviations)?;
    Ok(deviations)
}

/// Builds everything again in a folder of its own.
fn build(
    store: &Store,
    here: &Here<'_>,
    locked: &Lock,
    rules: &Rules,
    stop: &AtomicBool,
    deviations: &mut Vec<Deviation>,
) -> io::Result<()> {
    let failed = |owner: String, what: String| Deviation::Work { owner, what };
    let recipes = match built::recipes(locked, rules) {
        Ok(recipes) if recipes.is_empty() => return Ok(()),
        Ok(recipes) => recipes,
        Err(error) => {
            deviations.push(failed("all".to_owned(), one_line(&error)));
            return Ok(());
        }
    };
    let folder = tempfile::tempdir()?;
    let scratch = Store::open(folder.path(), Access::Shared)?;
    let silent: Observer<'_> = &|_| ();
    // Manifests first, as a build has them.
    let mine = |root: &Root| {
        recipes
            .iter()
            .any(|recipe| recipe.owner.to_string() == root.owner)
            && matches!(root.fetch.content, Content::Manifest { .. })
    };
    let roots: Vec<Root> = resolve::roots(locked, &[])
        .into_iter()
        .filter(mine)
        .collect();
    match Plan::of(roots) {
        Ok(mut plan) => {
            realise(
                &mut plan,
                Extent::Manifests,
                here,
                &scratch,
                Limits::default(),
                silent,
                stop,
            )?;
        }
        Err(error) => {
            deviations.push(failed("all".to_owned(), one_line(&error)));
            return Ok(());
        }
    }
    let made = built::make(
        locked,
        rules,
        &built::Means {
            store: &scratch,
            upstream: here,
            limits: Limits::default(),
            observer: silent,
            stop,
        },
    );
    if let Err(error) = made {
        deviations.push(failed("all".to_owned(), one_line(&error)));
        return Ok(());
    }
    for recipe in recipes {
        let key = recipe.key();
        if let Some(outputs) = scratch.memo().get(&key)? {
            compare(store, &key, &outputs, deviations)?;
        }
    }
    Ok(())
}

/// Holds a record to what the work yields. No record is no claim.
fn compare(
    store: &Store,
    key: &Key,
    outputs: &[Output],
    deviations: &mut Vec<Deviation>,
) -> io::Result<()> {
    let Some(claimed) = store.memo().get(key)? else {
        return Ok(());
    };
    if claimed != outputs {
        let name = |outputs: &[Output]| {
            outputs.first().map_or_else(
                || "nothing".to_owned(),
                |output| output.blob.digest.to_string(),
            )
        };
        deviations.push(Deviation::Record {
            key: key.hex(),
            what: format!(
                "it says that the work yields {}, and it yields {}",
                name(&claimed),
                name(outputs)
            ),
        });
    }
    Ok(())
}
