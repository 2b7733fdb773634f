//! Bodies on their way in.
//!
//! A body goes piece by piece through a bounded channel from the connection to a blocking thread, which writes it
//! to the store (when its digest and size are known beforehand) or to the spool of its upload. A spool is an
//! unnamed file in the spool folder, or memory; nothing of it outlives the process.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};

use super::Depot;
use crate::digest::{Digest, Hasher};
use crate::store::{Blob, Damage, Verified};

/// Pieces between the connection and the thread that writes them; a piece is what hyper read at once (up to about
/// 400 KiB), so a body in flight takes a few megabytes at most.
const PIECES: usize = 8;

/// How long a client may send nothing of a body that it announced.
const BODY_PATIENCE: Duration = Duration::from_mins(1);

/// Most of an unwanted body that is read and dropped, so that the client gets to read the answer.
const DRAIN_LIMIT: u64 = 8 << 20;

/// How long that may take.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// How long an upload is kept that nobody touches.
const UPLOAD_PATIENCE: Duration = Duration::from_hours(1);

/// Most uploads under way; each may hold a file open.
const OPEN_UPLOADS: usize = 512;

/// The body of a request.
pub(super) struct Intake {
    stream: BodyDataStream,
    ended: bool,
}

/// The connection broke before the body ended, or was silent for too long.
#[derive(Debug)]
pub(super) struct Broken;

impl Intake {
    pub(super) fn new(body: Body) -> Self {
        Self {
            stream: body.into_data_stream(),
            ended: false,
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Broken> {
        if self.ended {
            return Ok(None);
        }
        match tokio::time::timeout(BODY_PATIENCE, self.stream.next()).await {
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Ok(Some(Err(_))) | Err(_) => {
                self.ended = true;
                Err(Broken)
            }
        }
    }

    /// All of it, if it has at most `limit` bytes.
    pub(super) async fn whole(&mut self, limit: u64) -> Result<Option<Vec<u8>>, Broken> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            if (whole.len() + piece.len()) as u64 > limit {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole))
    }

    /// Hands it to `work` on a thread that may block, until another request takes the `turn`.
    pub(super) async fn feed<T: Send + 'static>(
        &mut self,
        mut turn: Turn,
        work: impl FnOnce(&mut Pieces) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let task = tokio::task::spawn_blocking(move || {
            let mut pieces = Pieces {
                receiver,
                current: Bytes::new(),
                ended: false,
            };
            work(&mut pieces)
        });
        loop {
            let piece = tokio::select! {
                biased;
                () = turn.lost() => {
                    self.ended = true;
                    Err(Broken)
                }
                piece = self.piece() => piece,
            };
            let next = match piece {
                Ok(Some(piece)) => Next::Piece(piece),
                Ok(None) => Next::End,
                // The thread learns of it from the channel's end.
                Err(Broken) => break,
            };
            let last = matches!(next, Next::End);
            if sender.send(next).await.is_err() || last {
                break;
            }
        }
        drop(sender);
        task.await
    }

    /// Reads and drops what is left, within reason.
    pub(super) async fn drain(mut self) {
        let drained = async {
            let mut dropped = 0;
            while let Ok(Some(piece)) = self.piece().await {
                dropped += piece.len() as u64;
                if dropped > DRAIN_LIMIT {
                    break;
                }
            }
        };
        // Whoever is slower than that may see the connection end instead of the answer.
        let _ = tokio::time::timeout(DRAIN_PATIENCE, drained).await;
    }
}

enum Next {
    Piece(Bytes),
    End,
}

/// A body as a blocking thread reads it. It ends in an error unless the whole body came.
pub(super) struct Pieces {
    receiver: mpsc::Receiver<Next>,
    current: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.receiver.blocking_recv() {
                Some(Next::Piece(piece)) => self.current = piece,
                Some(Next::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the connection broke before the body ended",
                    ));
                }
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Writes `bytes` as `blob`, or only verifies them if the store has it. Of a blob that there is no room for nothing is
/// kept, so that others find some.
pub(super) fn shelve(
    depot: &dyn Depot,
    blob: &Blob,
    bytes: Box<dyn Read + Send + '_>,
) -> io::Result<()> {
    let mut verified = Verified::new(bytes, *blob);
    let result = if depot.holds(blob)? {
        io::copy(&mut verified, &mut io::sink()).map(|_| ())
    } else {
        depot.write(blob, &mut verified)
    };
    if let Err(error) = &result
        && (error.kind() == io::ErrorKind::StorageFull
            || Damage::in_error(error)
                .is_some_and(|damage| !matches!(damage, Damage::Short { .. })))
    {
        depot.forget(blob)?;
    }
    result
}

/// Why an upload did not go on.
#[derive(Debug)]
pub(super) enum UploadProblem {
    /// It was finished or given up meanwhile.
    Gone,
    /// The chunk starts elsewhere than the upload ends.
    Gap {
        /// Where it ends.
        length: u64,
    },
    /// The chunk has another length than was said.
    Length {
        /// What was said.
        declared: u64,
        /// What came.
        found: u64,
    },
    /// The blob is larger than the registry takes.
    Limit,
    /// The bytes are not those of the digest.
    Digest(Damage),
    /// The connection broke.
    Broken,
    /// The spool or the store failed.
    Io(io::Error),
}

fn classify(error: io::Error) -> UploadProblem {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return UploadProblem::Broken;
    }
    match Damage::in_error(&error) {
        Some(damage) => UploadProblem::Digest(damage.clone()),
        None => UploadProblem::Io(error),
    }
}

/// What a request says of the bytes it brings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Announced {
    /// `Content-Length`.
    pub(super) length: Option<u64>,
    /// First and last byte, from `Content-Range`.
    pub(super) range: Option<(u64, u64)>,
}

/// The right of a request to write to an upload; the next request takes it away. A client whose connection died
/// unnoticed goes on at once, rather than when the dead connection is given up.
pub(super) struct Turn(watch::Receiver<()>);

impl Turn {
    /// Returns once the turn is another's.
    async fn lost(&mut self) {
        if self.0.changed().await.is_err() {
            // The upload is over, and nobody else can want it.
            std::future::pending::<()>().await;
        }
    }
}

enum Spool {
    Memory(Vec<u8>),
    File(File),
}

/// An upload under way.
pub(super) struct Upload {
    repository: String,
    folder: Option<PathBuf>,
    state: Mutex<State>,
    length: AtomicU64,
    turn: watch::Sender<()>,
    touched: Mutex<Instant>,
}

struct State {
    /// Made at the first byte.
    spool: Option<Spool>,
    hasher: Hasher,
    closed: bool,
}

impl State {
    fn length(&self) -> u64 {
        self.hasher.length()
    }

    /// Takes more bytes; what came before an error is kept only if the connection broke.
    fn append(
        &mut self,
        folder: Option<&Path>,
        pieces: &mut dyn Read,
        announced: Announced,
        limit: Option<u64>,
    ) -> Result<(), UploadProblem> {
        let length = self.length();
        let mut declared = announced.length;
        if let Some((first, last)) = announced.range {
            if first != length {
                return Err(UploadProblem::Gap { length });
            }
            let range = last - first + 1;
            if declared.is_some_and(|declared| declared != range) {
                return Err(UploadProblem::Length {
                    declared: range,
                    found: declared.unwrap_or_default(),
                });
            }
            declared = Some(range);
        }
        let room = limit.map(|limit| limit.saturating_sub(length));
        if declared.is_some_and(|declared| room.is_some_and(|room| declared > room)) {
            return Err(UploadProblem::Limit);
        }
        let before = self.hasher.clone();
        let result = self.copy(folder, pieces, room).and_then(|()| {
            let found = self.length() - length;
            match declared {
                Some(declared) if declared != found => {
                    Err(UploadProblem::Length { declared, found })
                }
                _ => Ok(()),
            }
        });
        if !matches!(result, Ok(()) | Err(UploadProblem::Broken)) {
            match &mut self.spool {
                Some(Spool::Memory(bytes)) => {
                    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
                }
                Some(Spool::File(file)) => {
                    file.set_len(length).map_err(UploadProblem::Io)?;
                }
                None => {}
            }
            self.hasher = before;
        }
        result
    }

    fn copy(
        &mut self,
        folder: Option<&Path>,
        pieces: &mut dyn Read,
        mut room: Option<u64>,
    ) -> Result<(), UploadProblem> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = pieces.read(&mut buffer).map_err(classify)?;
            if count == 0 {
                return Ok(());
            }
            if let Some(room) = &mut room {
                *room = room.checked_sub(count as u64).ok_or(UploadProblem::Limit)?;
            }
            let piece = &buffer[..count];
            let at = self.length();
            let spool = match &mut self.spool {
                Some(spool) => spool,
                empty => empty.insert(match folder {
                    Some(folder) => {
                        Spool::File(tempfile::tempfile_in(folder).map_err(UploadProblem::Io)?)
                    }
                    None => Spool::Memory(Vec::new()),
                }),
            };
            match spool {
                Spool::Memory(bytes) => bytes.extend_from_slice(piece),
                Spool::File(file) => file
                    .seek(SeekFrom::Start(at))
                    .and_then(|_| file.write_all(piece))
                    .map_err(UploadProblem::Io)?,
            }
            self.hasher.update(piece);
        }
    }

    /// Moves the spool to the store.
    fn commit(&mut self, depot: &dyn Depot, digest: Digest) -> Result<Blob, UploadProblem> {
        let promise = Blob {
            digest,
            size: self.length(),
        };
        let found = self.hasher.clone().finish();
        if found != digest {
            return Err(UploadProblem::Digest(Damage::Wrong { promise, found }));
        }
        if depot.holds(&promise).map_err(UploadProblem::Io)? {
            return Ok(promise);
        }
        let bytes: Box<dyn Read + Send + '_> = match &mut self.spool {
            None => Box::new(io::empty()),
            Some(Spool::Memory(bytes)) => Box::new(Cursor::new(bytes.as_slice())),
            Some(Spool::File(file)) => {
                file.rewind().map_err(UploadProblem::Io)?;
                Box::new(&*file)
            }
        };
        shelve(depot, &promise, bytes).map_err(UploadProblem::Io)?;
        Ok(promise)
    }
}

impl Upload {
    pub(super) fn new(repository: &str, folder: Option<&Path>) -> Self {
        Self {
            repository: repository.to_owned(),
            folder: folder.map(Path::to_owned),
            state: Mutex::new(State {
                spool: None,
                hasher: Hasher::default(),
                closed: false,
            }),
            length: AtomicU64::new(0),
            turn: watch::Sender::new(()),
            touched: Mutex::new(Instant::now()),
        }
    }

    /// The upload, once no other request works on it. Blocks.
    fn open(&self) -> Result<MutexGuard<'_, State>, UploadProblem> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.touch();
        if state.closed {
            Err(UploadProblem::Gone)
        } else {
            Ok(state)
        }
    }

    /// How many bytes have come, as far as is known while more come in.
    pub(super) fn length(&self) -> u64 {
        self.touch();
        self.length.load(Ordering::Acquire)
    }

    /// Ends the turn of whichever request writes now.
    pub(super) fn take_turn(&self) -> Turn {
        self.turn.send_replace(());
        Turn(self.turn.subscribe())
    }

    fn touch(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Takes a chunk; returns how many bytes there are. Blocks.
    pub(super) fn append(
        &self,
        pieces: &mut Pieces,
        announced: Announced,
        limit: Option<u64>,
    ) -> Result<u64, UploadProblem> {
        let mut state = self.open()?;
        let result = state.append(self.folder.as_deref(), pieces, announced, limit);
        self.length.store(state.length(), Ordering::Release);
        result.map(|()| state.length())
    }

    /// Takes the last bytes, if there are more, and stores the blob. Blocks.
    ///
    /// The upload is over, unless the connection broke or a chunk did not fit.
    pub(super) fn finish(
        &self,
        depot: &dyn Depot,
        pieces: &mut Pieces,
        digest: Digest,
        announced: Announced,
        limit: Option<u64>,
    ) -> Result<Blob, UploadProblem> {
        let mut state = self.open()?;
        let result = match announced.length {
            Some(size) if state.length() == 0 && announced.range.is_none() => {
                if limit.is_some_and(|limit| size > limit) {
                    Err(UploadProblem::Limit)
                } else {
                    let blob = Blob { digest, size };
                    shelve(depot, &blob, Box::new(pieces))
                        .map(|()| blob)
                        .map_err(classify)
                }
            }
            _ => state
                .append(self.folder.as_deref(), pieces, announced, limit)
                .and_then(|()| state.commit(depot, digest)),
        };
        self.length.store(state.length(), Ordering::Release);
        if matches!(
            result,
            Ok(_) | Err(UploadProblem::Digest(_) | UploadProblem::Limit)
        ) {
            state.close();
        }
        result
    }

    /// Gives it up. Blocks.
    pub(super) fn cancel(&self) -> Result<(), UploadProblem> {
        self.open()?.close();
        Ok(())
    }
}

impl State {
    fn close(&mut self) {
        self.closed = true;
        self.spool = None;
    }
}

/// The uploads under way.
pub(super) struct Uploads {
    open: Mutex<BTreeMap<String, Arc<Upload>>>,
    folder: Option<PathBuf>,
    /// Keyed by the operating system's randomness, so an id cannot be guessed.
    naming: [RandomState; 2],
    named: AtomicU64,
}

impl Uploads {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self {
            open: Mutex::default(),
            folder,
            naming: [RandomState::new(), RandomState::new()],
            named: AtomicU64::new(0),
        }
    }

    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Upload>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A text that nobody has seen or can foresee.
    pub(super) fn fresh(&self) -> String {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        let [left, right] = &self.naming;
        format!(
            "{:016x}{:016x}",
            left.hash_one(number),
            right.hash_one(number)
        )
    }

    /// Starts one; `None` if too many are under way.
    pub(super) fn start(&self, repository: &str) -> Option<String> {
        let mut open = self.lock();
        open.retain(|_, upload| {
            upload
                .touched
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .elapsed()
                < UPLOAD_PATIENCE
        });
        if open.len() >= OPEN_UPLOADS {
            return None;
        }
        let id = self.fresh();
        open.insert(id.clone(), Arc::new(Upload::new(repository, self.folder())));
        Some(id)
    }

    /// The upload of that name in that repository.
    pub(super) fn find(&self, repository: &str, id: &str) -> Option<Arc<Upload>> {
        self.lock()
            .get(id)
            .filter(|upload| upload.repository == repository)
            .cloned()
    }

    /// Forgets one that is over.
    pub(super) fn end(&self, id: &str) {
        self.lock().remove(id);
    }
}
