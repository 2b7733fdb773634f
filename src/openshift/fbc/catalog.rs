//! A whole catalog as offsets: which document is where, and whose it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use rayon::prelude::*;

use super::fragment::{Document, Fragment, check_name};
use super::ignore::Ignore;
use super::read::{Documents, Format, RawDocument};
use super::{FbcError, Limits, Place};

/// Where documents wait between being found and being read: bytes that are only ever appended.
pub trait Spool {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// Whatever keeps them from being kept.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Reads back what was appended, `length` bytes from `offset`.
    ///
    /// # Errors
    /// Also if there are fewer.
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

impl Spool for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        start
            .checked_add(length)
            .and_then(|end| self.get(start..end))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// An empty file that nobody else writes to, best one without a name.
impl Spool for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// Where one document lies.
#[derive(Clone, Copy, Debug)]
struct Found {
    offset: u64,
    length: u32,
    member: u32,
    line: u32,
    format: Format,
}

/// Takes the files of a catalog, in any order.
pub struct Builder<S> {
    spool: S,
    limits: Limits,
    spooled: u64,
    taken: u64,
    members: Vec<String>,
    found: BTreeMap<String, Vec<Found>>,
    ignores: BTreeMap<String, Ignore>,
    /// Files that cannot be read; an error unless they are ignored, which is known at the end.
    broken: Vec<(String, FbcError)>,
}

impl<S: Spool> Builder<S> {
    /// Starts with an empty spool.
    pub fn new(spool: S, limits: Limits) -> Self {
        Self {
            spool,
            limits,
            spooled: 0,
            taken: 0,
            members: Vec::new(),
            found: BTreeMap::new(),
            ignores: BTreeMap::new(),
            broken: Vec::new(),
        }
    }

    /// Takes the file at `path`, relative to the catalog's folder, with `/` between its parts.
    ///
    /// A file that is not a catalog is no error before [`Builder::finish`]: a file that comes later may ignore it.
    pub fn member(&mut self, path: &str, reader: &mut dyn Read) -> Result<(), FbcError> {
        let limit = self
            .limits
            .member
            .min(self.limits.catalog.saturating_sub(self.taken));
        let mut bounded = Bounded {
            reader,
            left: limit,
            over: false,
        };
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == ".indexignore" {
            let ignore = Ignore::read(&mut bounded).map_err(|source| FbcError::Io {
                place: path.to_owned(),
                source,
            })?;
            self.ignores.insert(folder.to_owned(), ignore);
            return Ok(());
        }
        let member = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        self.members.push(path.to_owned());
        let result = self.documents(path, member, &mut bounded);
        let over = bounded.over;
        self.taken += limit - bounded.left;
        if over {
            return Err(FbcError::Limit {
                place: path.to_owned(),
                what: "the size of a catalog file, or of all together,",
                limit,
            });
        }
        match result {
            Err(error @ (FbcError::Io { .. } | FbcError::Limit { .. })) => Err(error),
            Err(error) => {
                self.broken.push((path.to_owned(), error));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn documents(
        &mut self,
        path: &str,
        member: u32,
        reader: &mut dyn Read,
    ) -> Result<(), FbcError> {
        let limit = self.limits.document.min(u64::from(u32::MAX));
        for document in Documents::new(reader, path, limit) {
            let document = document?;
            let head = document.head(path)?;
            if !head.package.is_empty() && !self.found.contains_key(&head.package) {
                check_name(&head.package)?;
            }
            let length = document.bytes.len();
            self.spool
                .append(&document.bytes)
                .map_err(|source| FbcError::Io {
                    place: "the spool".to_owned(),
                    source,
                })?;
            self.found.entry(head.package).or_default().push(Found {
                offset: self.spooled,
                length: u32::try_from(length).unwrap_or(u32::MAX),
                member,
                line: u32::try_from(document.line).unwrap_or(u32::MAX),
                format: document.format,
            });
            self.spooled += length as u64;
        }
        Ok(())
    }

    /// Leaves out what is ignored and refuses what cannot be read.
    pub fn finish(self) -> Result<Catalog<S>, FbcError> {
        let Self {
            spool,
            members,
            mut found,
            ignores,
            broken,
            ..
        } = self;
        let ignored = |path: &str| super::ignore::ignored(&ignores, path);
        if let Some((_, error)) = broken.into_iter().find(|(path, _)| !ignored(path)) {
            return Err(error);
        }
        if !ignores.is_empty() {
            let dropped: BTreeSet<u32> = (0u32..)
                .zip(&members)
                .filter(|(_, path)| ignored(path))
                .map(|(member, _)| member)
                .collect();
            for documents in found.values_mut() {
                documents.retain(|document| !dropped.contains(&document.member));
            }
            found.retain(|_, documents| !documents.is_empty());
        }
        let globals = found.remove("").unwrap_or_default();
        Ok(Catalog {
            spool,
            members,
            packages: found,
            globals,
        })
    }
}

/// A catalog whose documents have been found but not read.
pub struct Catalog<S> {
    spool: S,
    members: Vec<String>,
    packages: BTreeMap<String, Vec<Found>>,
    globals: Vec<Found>,
}

impl<S: Spool + Sync> Catalog<S> {
    /// The names of its packages, ascending.
    pub fn packages(&self) -> impl Iterator<Item = &str> {
        self.packages.keys().map(String::as_str)
    }

    /// How many documents it has.
    #[must_use]
    pub fn documents(&self) -> usize {
        self.packages.values().map(Vec::len).sum::<usize>() + self.globals.len()
    }

    /// What it says about `package`; `None` if nothing.
    pub fn fragment(&self, package: &str) -> Result<Option<Fragment>, FbcError> {
        self.packages
            .get(package)
            .map(|found| self.read(package, found))
            .transpose()
    }

    /// The documents that belong to no package.
    pub fn globals(&self) -> Result<Fragment, FbcError> {
        self.read("", &self.globals)
    }

    /// Reads every package that `wanted` names and hands its fragment to `each`, one per thread at a time; answers
    /// in the order of names.
    ///
    /// # Errors
    /// The first in the order of names, whatever the threads did.
    pub fn each<T: Send, E: Send + From<FbcError>>(
        &self,
        wanted: impl Fn(&str) -> bool + Sync,
        each: impl Fn(Fragment) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let packages: Vec<_> = self
            .packages
            .iter()
            .filter(|(package, _)| wanted(package))
            .collect();
        let results: Vec<Result<T, E>> = packages
            .into_par_iter()
            .map(|(package, found)| each(self.read(package, found)?))
            .collect();
        results.into_iter().collect()
    }

    fn read(&self, package: &str, found: &[Found]) -> Result<Fragment, FbcError> {
        let documents: Vec<Result<Document, FbcError>> = found
            .par_iter()
            .map(|found| {
                let member = self
                    .members
                    .get(found.member as usize)
                    .map_or("", String::as_str);
                let bytes = self
                    .spool
                    .read(found.offset, found.length as usize)
                    .map_err(|source| FbcError::Io {
                        place: "the spool".to_owned(),
                        source,
                    })?;
                let raw = RawDocument {
                    bytes,
                    line: u64::from(found.line),
                    format: found.format,
                };
                let value = raw.value(member)?;
                Document::new(&value).map_err(|reason| FbcError::Document {
                    place: Place {
                        member: member.to_owned(),
                        line: raw.line,
                    },
                    reason,
                })
            })
            .collect();
        Fragment::new(package, documents.into_iter().collect::<Result<_, _>>()?)
    }
}

/// A reader with an end of its own.
struct Bounded<'r> {
    reader: &'r mut dyn Read,
    left: u64,
    over: bool,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut probe = [0];
            self.over |= self.reader.read(&mut probe)? > 0;
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = buffer.len().min(most);
        let read = self.reader.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}
