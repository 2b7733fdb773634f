//! Bodies on their way out: read from the store piece by piece, counted, and spoilt where that was drawn.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::{Depot, Exchange, Log};
use crate::store::Blob;

/// Bytes that are read from the store at once.
const PIECE: usize = 128 << 10;

/// Pieces between the thread that reads the store and the connection.
const PIECES: usize = 4;

/// How long half a body is given to leave before the connection is closed on purpose.
const HALF_WAY: Duration = Duration::from_millis(20);

/// Something wrong with a body on its way out.
pub(super) enum Fate {
    Truncate {
        after: u64,
    },
    Stall {
        after: u64,
        pause: Duration,
        close: bool,
    },
}

impl Fate {
    const fn after(&self) -> u64 {
        match self {
            Self::Truncate { after } | Self::Stall { after, .. } => *after,
        }
    }
}

/// Reports an exchange when dropped.
pub(super) struct Report {
    pub(super) exchange: Exchange,
    pub(super) log: Option<Log>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log(&self.exchange);
        }
    }
}

/// A body on its way out, counted, and spoilt where that was drawn.
pub(super) struct Outgoing {
    pub(super) body: BodyDataStream,
    pub(super) rest: Option<Bytes>,
    pub(super) fate: Option<Fate>,
    /// Offset and mask of a byte that is changed.
    pub(super) flips: Vec<(u64, u8)>,
    pub(super) report: Report,
}

impl Outgoing {
    pub(super) fn stream(self) -> impl Stream<Item = io::Result<Bytes>> {
        futures_util::stream::unfold(Some(self), |outgoing| async {
            let mut outgoing = outgoing?;
            match outgoing.next().await? {
                Ok(piece) => Some((Ok(piece), Some(outgoing))),
                Err(error) => {
                    outgoing.report.exchange.problem = Some(error.to_string());
                    Some((Err(error), None))
                }
            }
        })
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let sent = self.report.exchange.bytes;
        if self.fate.as_ref().is_some_and(|fate| fate.after() == sent) {
            let broken = || io::Error::new(io::ErrorKind::ConnectionAborted, "broken on purpose");
            match self.fate.take() {
                Some(Fate::Truncate { .. }) => {
                    tokio::time::sleep(HALF_WAY).await;
                    return Some(Err(broken()));
                }
                Some(Fate::Stall { pause, close, .. }) => {
                    tokio::time::sleep(pause).await;
                    if close {
                        return Some(Err(broken()));
                    }
                }
                None => {}
            }
        }
        let mut piece = match self.rest.take() {
            Some(rest) => rest,
            None => match self.body.next().await? {
                Ok(piece) => piece,
                Err(error) => return Some(Err(io::Error::other(error))),
            },
        };
        if let Some(fate) = &self.fate
            && fate.after() > sent
            && fate.after() < sent + piece.len() as u64
        {
            let room = usize::try_from(fate.after() - sent).expect("less than a piece's length");
            self.rest = Some(piece.split_off(room));
        }
        let end = sent + piece.len() as u64;
        for (at, mask) in &self.flips {
            if (sent..end).contains(at) {
                let mut changed = piece.to_vec();
                changed[usize::try_from(at - sent).expect("inside a piece")] ^= mask;
                piece = changed.into();
            }
        }
        self.report.exchange.bytes = end;
        Some(Ok(piece))
    }
}

/// Streams `length` bytes of `blob` from `first` on; `None` if the store does not have it.
pub(super) async fn read_out(
    depot: Arc<dyn Depot>,
    blob: Blob,
    first: u64,
    length: u64,
) -> io::Result<Option<Body>> {
    let (opened, is_open) = oneshot::channel();
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut bytes = match depot.open(&blob, first) {
            Ok(Some(bytes)) => {
                let _ = opened.send(Ok(true));
                bytes.take(length)
            }
            other => {
                let _ = opened.send(other.map(|_| false));
                return;
            }
        };
        loop {
            let piece = match read_piece(&mut bytes) {
                Ok(piece) if piece.is_empty() && bytes.limit() == 0 => return,
                Ok(piece) if piece.is_empty() => Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{} is shorter in the store than it should be", blob.digest),
                )),
                other => other,
            };
            let failed = piece.is_err();
            // A client that went away takes the channel with it.
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    let is_open = is_open
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the store could not be read")))?;
    Ok(is_open.then(|| {
        Body::from_stream(futures_util::stream::unfold(
            receiver,
            |mut receiver| async {
                let piece = receiver.recv().await?;
                Some((piece, receiver))
            },
        ))
    }))
}

/// Reads until a piece is full or nothing is left.
fn read_piece(bytes: &mut io::Take<impl Read>) -> io::Result<Bytes> {
    let size = usize::try_from(bytes.limit()).map_or(PIECE, |left| left.min(PIECE));
    let mut piece = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match bytes.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece.into())
}
