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
//!
//! ## Why not retry here
//! Whether another attempt is worth it depends on the place (a registry that answers `429`, a disk that is full), so
//! [`transfer`] makes one, and leaves behind what the next one can go on from.

pub mod closures;
#[cfg(test)]
pub(crate) mod contract;
pub mod disk;
mod error;
pub mod evidence;
pub mod index;
pub mod memo;
pub mod memory;
mod name;
pub mod roots;
pub mod streams;
mod sweep;

use std::io::{self, Read};

pub use error::StoreError;
pub use sweep::{Checked, Collected, Loss, Lost, Stat};

use crate::digest::{Digest, Hasher};
use crate::hint::Hint;

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
    /// The reader may lie: whoever reads verifies. It yields the bytes from `from` to the end; `from` is less than
    /// the size of the blob, or 0.
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
    /// On an error of the reader nothing is committed. What was written may be kept for [`Sink::kept`]. A blob that
    /// came here meanwhile by another way is well stored, and `bytes` may be left unread.
    ///
    /// # Errors
    /// Those of the reader, unchanged, and those of the place. If `bytes` promises another blob
    /// ([`Verified::is_for`]). [`PrefixGone`] if `bytes` starts after bytes that are not kept here (any more).
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

/// The start of a blob, which a reader was told to go on from, is not kept at the sink.
///
/// Another writer of the same blob took it up, finished or forgot it between [`Sink::kept`] and [`Sink::write`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the first {start} bytes of {} are no longer kept", blob.digest)]
pub struct PrefixGone {
    /// Whose start it is.
    pub blob: Blob,
    /// How many bytes were wanted.
    pub start: u64,
}

impl PrefixGone {
    /// Whether `error` says so.
    #[must_use]
    pub fn is_in(error: &io::Error) -> bool {
        error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Self>())
            .is_some()
    }
}

impl From<PrefixGone> for io::Error {
    fn from(gone: PrefixGone) -> Self {
        Self::new(io::ErrorKind::NotFound, gone)
    }
}

/// A reader that ends well only if its bytes keep their promise.
///
/// It never yields more bytes than promised, and reports the end of input only after the digest was found right.
/// Once it has found damage it finds the same damage again on every read.
pub struct Verified<'a> {
    bytes: Box<dyn Read + Send + 'a>,
    promise: Blob,
    state: State,
    start: u64,
    prefix: Hasher,
    passed: &'a (dyn Fn(u64) + Sync),
}

enum State {
    Reading(Hasher),
    Kept,
    Broken(Damage),
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
            prefix: state.clone(),
            state: State::Reading(state),
            passed,
        }
    }

    /// The offset of the first byte that this reader yields; bytes before it are kept by the sink.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The digest of the bytes before [`Verified::start`]. A sink compares it with what it keeps before it goes on.
    #[must_use]
    pub fn prefix(&self) -> Digest {
        self.prefix.clone().finish()
    }

    /// What is promised.
    #[must_use]
    pub const fn promise(&self) -> Blob {
        self.promise
    }

    /// Passes if this reader promises `blob`; every [`Sink::write`] asks this first.
    ///
    /// # Errors
    /// If it promises something else.
    pub fn is_for(&self, blob: &Blob) -> io::Result<()> {
        if self.promise == *blob {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} ({} bytes) was to be written from a reader of {} ({} bytes)",
                blob.digest, blob.size, self.promise.digest, self.promise.size
            ),
        ))
    }

    fn broken(&mut self, damage: Damage) -> io::Error {
        self.state = State::Broken(damage.clone());
        damage.into()
    }
}

impl Read for Verified<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = match &mut self.state {
            State::Reading(state) => state,
            State::Kept => return Ok(0),
            State::Broken(damage) => return Err(damage.clone().into()),
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        let promise = self.promise;
        let count = self.bytes.read(buffer)?;
        if count == 0 {
            let found = state.length();
            if found < promise.size {
                return Err(self.broken(Damage::Short { promise, found }));
            }
            let found = state.clone().finish();
            if found != promise.digest {
                return Err(self.broken(Damage::Wrong { promise, found }));
            }
            self.state = State::Kept;
            return Ok(0);
        }
        if state.length() + count as u64 > promise.size {
            return Err(self.broken(Damage::Long { promise }));
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

impl TransferError {
    /// What `error`, met while moving `blob`, says.
    #[must_use]
    pub fn of(blob: &Blob, error: io::Error) -> Self {
        match Damage::in_error(&error) {
            Some(damage) => Self::Damaged {
                blob: *blob,
                source: damage.clone(),
            },
            None => Self::Io {
                blob: *blob,
                source: error,
            },
        }
    }
}

impl Hint for TransferError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } => StoreError::in_error(source).and_then(Hint::hint),
            Self::Absent { .. } | Self::Damaged { .. } => None,
        }
    }
}

/// Moves `blob` from `source` to `sink`, unless the sink has it. `passed` is told of bytes as they come in, false ones
/// among them.
///
/// Goes on from what an earlier attempt left at the sink; should that turn out to be wrong, starts over once. A blob
/// that ends early or whose connection breaks leaves its start at the sink, for the next attempt; one with other
/// bytes than promised leaves nothing.
///
/// # Errors
/// If the source has not got it, gives other bytes, or either place fails. The sink then holds nothing of that name.
pub fn transfer(
    source: &dyn Source,
    sink: &dyn Sink,
    blob: &Blob,
    passed: &(dyn Fn(u64) + Sync),
) -> Result<Moved, TransferError> {
    let io = |error| TransferError::of(blob, error);
    if sink.holds(blob).map_err(io)? {
        return Ok(Moved::Present);
    }
    let attempt = |state: Hasher| -> Result<io::Result<()>, TransferError> {
        let start = state.length();
        // All of it was kept: there is no byte to ask the source for.
        let bytes: Box<dyn Read + Send> = if start > 0 && start == blob.size {
            Box::new(io::empty())
        } else {
            source
                .open(blob, start)
                .map_err(io)?
                .ok_or(TransferError::Absent { blob: *blob })?
        };
        Ok(sink.write(blob, &mut Verified::resumed(bytes, *blob, state, passed)))
    };
    let state = kept_start(sink, blob).map_err(io)?;
    let start = state.length();
    if start > 0 {
        match attempt(state)? {
            Ok(()) => return Ok(Moved::Written(blob.size - start)),
            Err(error) if is_false(&error) => sink.forget(blob).map_err(io)?,
            Err(error) if PrefixGone::is_in(&error) => {}
            Err(error) => return Err(io(error)),
        }
        if sink.holds(blob).map_err(io)? {
            return Ok(Moved::Present);
        }
    }
    match attempt(Hasher::default())? {
        Ok(()) => Ok(Moved::Written(blob.size)),
        Err(error) => {
            if is_false(&error) {
                sink.forget(blob).map_err(io)?;
            }
            Err(io(error))
        }
    }
}

/// Whether the bytes were others than promised; bytes that are merely too few are a good start.
fn is_false(error: &io::Error) -> bool {
    matches!(
        Damage::in_error(error),
        Some(Damage::Wrong { .. } | Damage::Long { .. })
    )
}

/// The state after the bytes of `blob` that `sink` keeps; that of no bytes if what it keeps is unreadable or too long.
fn kept_start(sink: &dyn Sink, blob: &Blob) -> io::Result<Hasher> {
    let mut state = Hasher::default();
    let usable = match sink.kept(blob)? {
        None => true,
        Some(mut kept) => {
            let mut buffer = vec![0; BUFFER];
            loop {
                match kept.read(&mut buffer) {
                    Ok(0) => break true,
                    Ok(count) if state.length() + count as u64 > blob.size => break false,
                    Ok(count) => state.update(&buffer[..count]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break false,
                }
            }
        }
    };
    if usable {
        return Ok(state);
    }
    sink.forget(blob)?;
    Ok(Hasher::default())
}

/// Bytes per read. Larger ones measure no faster; smaller ones cost system calls.
const BUFFER: usize = 256 << 10;

/// Reads all of a small blob (a manifest, a config, a lock) into memory, verified.
///
/// # Errors
/// As [`transfer`]; also if the blob is larger than `limit`.
pub fn read(source: &dyn Source, blob: &Blob, limit: u64) -> Result<Vec<u8>, TransferError> {
    let io = |error| TransferError::of(blob, error);
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
