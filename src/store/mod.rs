//! Places where bytes live, and the one arrow between them.
//!
//! Bytes move one way: from a [`Source`] to a [`Sink`], as a [`Blob`] that carries its promise. Fetch, export,
//! import, push and serve are all [`transfer`] between different places. A sink is only ever handed a
//! [`Verified`] reader, which ends in an error unless the bytes keep the promise; so a sink that commits when its
//! reader ends well has stored the right bytes, and an unverified write cannot be written down.
//!
//! ## Why not one trait with ten methods
//! A store trait that grows is a store trait that nobody implements twice. What only a disk can do (collect
//! garbage, check itself) is on [`disk::Store`].

pub mod disk;
pub mod memo;
pub mod memory;

use std::io::{self, Read};

use crate::digest::{Digest, Hasher};

/// Bytes, by the promise of their digest and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob {
    /// Their SHA-256.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

impl Blob {
    /// The promise that `bytes` keep.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        }
    }
}

impl From<&crate::oci::Descriptor> for Blob {
    fn from(descriptor: &crate::oci::Descriptor) -> Self {
        Self {
            digest: descriptor.digest,
            size: descriptor.size,
        }
    }
}

/// A place that blobs are read from.
pub trait Source: Sync {
    /// Opens `blob` at byte `from`; `None` if it is not here.
    ///
    /// The reader may lie: whoever reads verifies. It yields the bytes from `from` to the end.
    ///
    /// # Errors
    /// If the place cannot tell or cannot read. A custom inner error names the place.
    fn open(&self, blob: &Blob, from: u64) -> io::Result<Option<Box<dyn Read + Send + '_>>>;
}

/// A place that blobs are written to.
pub trait Sink: Sync {
    /// Whether `blob` is here, whole.
    ///
    /// # Errors
    /// If the place cannot tell.
    fn holds(&self, blob: &Blob) -> io::Result<bool>;

    /// Stores what `bytes` yields as `blob`; it appears whole, at the end, or not at all.
    ///
    /// On an error of the reader nothing is committed. What was written may be kept for [`Sink::kept`].
    ///
    /// # Errors
    /// Those of the reader, unchanged, and those of the place.
    fn write(&self, blob: &Blob, bytes: &mut Verified<'_>) -> io::Result<()>;

    /// The start of `blob` that an earlier, broken write left here, to go on from.
    ///
    /// # Errors
    /// If the place cannot tell.
    fn kept(&self, blob: &Blob) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        let _ = blob;
        Ok(None)
    }

    /// Forgets what [`Sink::kept`] offers, because it was wrong.
    ///
    /// # Errors
    /// If the place cannot forget.
    fn forget(&self, blob: &Blob) -> io::Result<()> {
        let _ = blob;
        Ok(())
    }
}

/// The bytes were not what was promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Fewer bytes than promised.
    #[error("{} ended after {found} of {} bytes", promise.digest, promise.size)]
    Short {
        /// What was promised.
        promise: Blob,
        /// How many bytes came.
        found: u64,
    },
    /// More bytes than promised.
    #[error("{} has more than the {} bytes that were declared", promise.digest, promise.size)]
    Long {
        /// What was promised.
        promise: Blob,
    },
    /// As many bytes as promised, but others.
    #[error("expected {}, found {found}", promise.digest)]
    Wrong {
        /// What was promised.
        promise: Blob,
        /// The digest of what came.
        found: Digest,
    },
}

impl Damage {
    /// The damage that `error` reports, if it reports one.
    #[must_use]
    pub fn in_error(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> Self {
        Self::new(io::ErrorKind::InvalidData, damage)
    }
}

/// A reader that ends well only if its bytes keep their promise.
///
/// It never yields more bytes than promised, and reports the end of input only after the digest was found right.
pub struct Verified<'a> {
    bytes: Box<dyn Read + Send + 'a>,
    promise: Blob,
    state: Option<Hasher>,
    start: u64,
    passed: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Verified<'a> {
    /// Holds `bytes` to `promise`.
    #[must_use]
    pub fn new(bytes: Box<dyn Read + Send + 'a>, promise: Blob) -> Self {
        Self::resumed(bytes, promise, Hasher::default(), &|_| ())
    }

    /// The same, where `state` has seen the first bytes already and `bytes` yields the rest. `passed` is told of
    /// each read that succeeded, with its number of bytes.
    #[must_use]
    pub fn resumed(
        bytes: Box<dyn Read + Send + 'a>,
        promise: Blob,
        state: Hasher,
        passed: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        Self {
            bytes,
            promise,
            start: state.length(),
            state: Some(state),
            passed,
        }
    }

    /// The offset of the first byte that this reader yields; bytes before it are kept by the sink.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// What is promised.
    #[must_use]
    pub const fn promise(&self) -> Blob {
        self.promise
    }
}

impl Read for Verified<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(state) = &mut self.state else {
            return Ok(0);
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.bytes.read(buffer)?;
        if count == 0 {
            let promise = self.promise;
            let Some(state) = self.state.take() else {
                return Ok(0);
            };
            let found = state.length();
            if found < promise.size {
                return Err(Damage::Short { promise, found }.into());
            }
            let found = state.finish();
            return if found == promise.digest {
                Ok(0)
            } else {
                Err(Damage::Wrong { promise, found }.into())
            };
        }
        if state.length() + count as u64 > self.promise.size {
            return Err(Damage::Long {
                promise: self.promise,
            }
            .into());
        }
        state.update(&buffer[..count]);
        (self.passed)(count as u64);
        Ok(count)
    }
}

/// What [`transfer`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The sink had it.
    Present,
    /// This many bytes came from the source.
    Written(u64),
}

/// A blob did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The source does not have it.
    #[error("blob {} is not there", blob.digest)]
    Absent {
        /// What was wanted.
        blob: Blob,
    },
    /// The source gave other bytes.
    #[error("blob {} is damaged", blob.digest)]
    Damaged {
        /// What was wanted.
        blob: Blob,
        /// What came.
        source: Damage,
    },
    /// The source or the sink failed.
    #[error("blob {} could not be moved", blob.digest)]
    Io {
        /// What was wanted.
        blob: Blob,
        /// Why.
        source: io::Error,
    },
}

/// Moves `blob` from `source` to `sink`, unless the sink has it. `passed` is told of bytes as they come in.
///
/// Goes on from what an earlier attempt left at the sink; should that turn out to be wrong, starts over once.
///
/// # Errors
/// If the source has not got it, gives other bytes, or either place fails. The sink then holds nothing of that name.
pub fn transfer(
    source: &dyn Source,
    sink: &dyn Sink,
    blob: &Blob,
    passed: &(dyn Fn(u64) + Sync),
) -> Result<Moved, TransferError> {
    let io = |source: io::Error| match Damage::in_error(&source) {
        Some(damage) => TransferError::Damaged {
            blob: *blob,
            source: damage.clone(),
        },
        None => TransferError::Io {
            blob: *blob,
            source,
        },
    };
    if sink.holds(blob).map_err(io)? {
        return Ok(Moved::Present);
    }
    let mut state = Hasher::default();
    if let Some(mut kept) = sink.kept(blob).map_err(io)? {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = kept.read(&mut buffer).map_err(io)?;
            if count == 0 || state.length() + count as u64 > blob.size {
                break;
            }
            state.update(&buffer[..count]);
        }
    }
    let start = state.length();
    if start > 0 {
        if let Some(bytes) = source.open(blob, start).map_err(io)? {
            match sink.write(blob, &mut Verified::resumed(bytes, *blob, state, passed)) {
                Ok(()) => return Ok(Moved::Written(blob.size - start)),
                Err(error) if Damage::in_error(&error).is_some() => {
                    sink.forget(blob).map_err(io)?;
                }
                Err(error) => return Err(io(error)),
            }
        } else {
            return Err(TransferError::Absent { blob: *blob });
        }
    }
    let bytes = source
        .open(blob, 0)
        .map_err(io)?
        .ok_or(TransferError::Absent { blob: *blob })?;
    match sink.write(
        blob,
        &mut Verified::resumed(bytes, *blob, Hasher::default(), passed),
    ) {
        Ok(()) => Ok(Moved::Written(blob.size)),
        Err(error) => {
            if Damage::in_error(&error)
                .is_some_and(|damage| !matches!(damage, Damage::Short { .. }))
            {
                sink.forget(blob).map_err(io)?;
            }
            Err(io(error))
        }
    }
}

/// Reads all of a small blob (a manifest, a config, a lock) into memory, verified.
///
/// # Errors
/// As [`transfer`]; also if the blob is larger than `limit`.
pub fn read(source: &dyn Source, blob: &Blob, limit: u64) -> Result<Vec<u8>, TransferError> {
    let io = |source: io::Error| match Damage::in_error(&source) {
        Some(damage) => TransferError::Damaged {
            blob: *blob,
            source: damage.clone(),
        },
        None => TransferError::Io {
            blob: *blob,
            source,
        },
    };
    if blob.size > limit {
        return Err(io(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "it has {} bytes; at most {limit} are read into memory",
                blob.size
            ),
        )));
    }
    let bytes = source
        .open(blob, 0)
        .map_err(io)?
        .ok_or(TransferError::Absent { blob: *blob })?;
    let mut out = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
    Verified::new(bytes, *blob)
        .read_to_end(&mut out)
        .map_err(io)?;
    Ok(out)
}
