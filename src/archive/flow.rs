//! Bounded buffers that one thread fills and several read at the same time.
//!
//! A part is read once and hashed twice (as a file, and blob by blob), and written or checked besides. Each of
//! these runs on a thread of its own over the same chunks. A chunk's buffer goes back to the [`Pool`] when the last
//! reader lets go of it, so the slowest reader sets the pace and memory stays at [`CHUNKS`] × [`CHUNK`].

use std::cell::Cell;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Bytes of a chunk: large enough that handing it over costs nothing, small enough to stay in the cache until the
/// last reader has it.
pub(super) const CHUNK: usize = 512 << 10;

/// Chunks in flight.
pub(super) const CHUNKS: usize = 12;

/// Buffers to fill.
pub(super) struct Pool {
    home: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
    size: usize,
    most: usize,
    made: Cell<usize>,
}

impl Pool {
    /// At most [`CHUNKS`] buffers of `size` bytes, made as they are needed.
    pub(super) fn new(size: usize) -> Self {
        Self::of(CHUNKS, size)
    }

    /// At most `most` buffers of `size` bytes, made as they are needed.
    pub(super) fn of(most: usize, size: usize) -> Self {
        let (home, free) = channel();
        Self {
            home,
            free,
            size,
            most,
            made: Cell::new(0),
        }
    }

    /// An empty buffer, of full length; waits until one is free.
    pub(super) fn take(&self) -> Vec<u8> {
        if let Ok(buffer) = self.free.try_recv() {
            return buffer;
        }
        if self.made.get() < self.most {
            self.made.set(self.made.get() + 1);
            return vec![0; self.size];
        }
        self.free.recv().expect("the pool holds a sender itself")
    }

    /// A chunk of the first `length` bytes of `buffer`.
    pub(super) fn chunk(&self, buffer: Vec<u8>, length: usize) -> Arc<Chunk> {
        Arc::new(Chunk {
            buffer,
            length,
            home: self.home.clone(),
        })
    }
}

/// Bytes that several threads read.
pub(super) struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    home: Sender<Vec<u8>>,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Nobody waits for it any more where this fails.
        let _ = self.home.send(std::mem::take(&mut self.buffer));
    }
}

/// Some bytes of a chunk, for a reader of its own.
pub(super) struct Share {
    chunk: Arc<Chunk>,
    range: Range<usize>,
}

/// Bytes that go by, for one who takes them.
///
/// They are those of the medium, and nothing is proven of them. Ends early where the medium cannot be read on.
pub struct Passing {
    arriving: Receiver<Share>,
    current: Option<Share>,
}

impl Passing {
    pub(super) const fn new(arriving: Receiver<Share>) -> Self {
        Self {
            arriving,
            current: None,
        }
    }
}

impl Read for Passing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self
            .current
            .as_ref()
            .is_none_or(|share| share.range.is_empty())
        {
            // Give the buffer back before waiting for the next.
            self.current = None;
            match self.arriving.recv() {
                Ok(share) => self.current = Some(share),
                Err(_) => return Ok(0),
            }
        }
        let Some(share) = &mut self.current else {
            return Ok(0);
        };
        let count = share.range.len().min(buffer.len());
        let from = share.range.start;
        buffer[..count].copy_from_slice(&share.chunk[from..from + count]);
        share.range.start += count;
        Ok(count)
    }
}

/// Something to read from front to back that can leave bytes out.
pub(super) trait Input: BufRead {
    /// Goes on `count` bytes further; perhaps beyond the end.
    fn skip(&mut self, count: u64) -> io::Result<()>;

    /// The next `count` bytes, which are buffered, for another reader; `None` where buffers are not shared.
    fn share(&self, count: usize) -> Option<Share> {
        let _ = count;
        None
    }
}

impl<F: Read + Seek> Input for io::BufReader<F> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        match i64::try_from(count) {
            Ok(count) => self.seek_relative(count),
            Err(_) => self.seek(SeekFrom::Current(i64::MAX)).map(|_| ()),
        }
    }
}

/// The chunks that arrive, as one input.
pub(super) struct Chunks {
    arriving: Receiver<Arc<Chunk>>,
    current: Option<Arc<Chunk>>,
    at: usize,
}

impl Chunks {
    pub(super) const fn new(arriving: Receiver<Arc<Chunk>>) -> Self {
        Self {
            arriving,
            current: None,
            at: 0,
        }
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self
            .current
            .as_ref()
            .is_none_or(|chunk| self.at == chunk.len())
        {
            // Give the buffer back before waiting for the next.
            self.current = None;
            self.at = 0;
            match self.arriving.recv() {
                Ok(chunk) => self.current = Some(chunk),
                Err(_) => return Ok(&[]),
            }
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk[self.at..]))
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl Input for Chunks {
    fn share(&self, count: usize) -> Option<Share> {
        let chunk = Arc::clone(self.current.as_ref()?);
        let range = self.at..self.at + count;
        Some(Share { chunk, range })
    }

    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let here = self.fill_buf()?.len();
            if here == 0 {
                break;
            }
            let step = here.min(usize::try_from(count).unwrap_or(here));
            self.consume(step);
            count -= step as u64;
        }
        Ok(())
    }
}

/// Reads until `buffer` is full or the input ends.
pub(super) fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
