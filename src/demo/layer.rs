//! A layer that is made anew each time it is read: a tar whose contents follow from a key, as it is or framed as
//! gzip or zstd.
//!
//! The bytes depend on nothing but the members: no compressor, no clock, no user. The frames hold their content
//! uncompressed (RFC 1951 section 3.2.4 "stored" blocks, RFC 8878 section 3.1.1.2 "raw" blocks), which every
//! decompressor takes, and which no later version of a compressor can change. A layer of many gigabytes takes no more
//! memory than one of a few bytes.

use std::io::{self, Read};
use std::sync::Arc;

use crate::demo::WorldError;
use crate::digest::{Digest, Hasher};
use crate::store::Blob;

/// Bytes of a tar block.
const BLOCK: u64 = 512;
/// Most bytes of a stored block (RFC 1951: a 16-bit length).
const STORED: u64 = 0xffff;
/// Most bytes of a raw block (RFC 8878: 128 KiB, with a window of as much).
const RAW: u64 = 128 << 10;
/// RFC 1952: magic, deflate, no flags, no time, no hints, unknown system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// RFC 8878: magic; a content size of 8 bytes, no checksum; a window of 128 KiB.
const ZSTD_HEAD: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0xc0, 7 << 3];

/// How a layer's tar is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// As it is.
    None,
    /// As gzip.
    Gzip,
    /// As zstd.
    Zstd,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// Bytes without a pattern that follow from a key.
    Made {
        /// What they follow from.
        key: [u8; 32],
        /// How many.
        size: u64,
    },
}

impl Content {
    /// Bytes that follow from `name`; the same for everyone.
    #[must_use]
    pub fn made(name: &str, size: u64) -> Self {
        Self::Made {
            key: blake3::derive_key("imgbuild demo content", name.as_bytes()),
            size,
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Made { size, .. } => *size,
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().into())
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// A folder.
    Folder {
        /// Where, relative to the root of the image.
        path: String,
    },
    /// A regular file. One named `.wh.NAME` removes NAME of the layers below.
    File {
        /// Where, relative to the root of the image.
        path: String,
        /// What is in it.
        content: Content,
    },
    /// A symbolic link.
    Link {
        /// Where, relative to the root of the image.
        path: String,
        /// What it points at.
        target: String,
    },
}

impl Member {
    /// A regular file.
    pub fn file(path: impl Into<String>, content: impl Into<Content>) -> Self {
        Self::File {
            path: path.into(),
            content: content.into(),
        }
    }

    /// Its tar header, owned by root, at the beginning of time.
    fn header(&self) -> Result<tar::Header, WorldError> {
        let (path, kind, mode, size) = match self {
            Self::Folder { path } => (path, tar::EntryType::Directory, 0o755, 0),
            Self::File { path, content } => (path, tar::EntryType::Regular, 0o644, content.size()),
            Self::Link { path, .. } => (path, tar::EntryType::Symlink, 0o777, 0),
        };
        let wrong = |source| WorldError::Member {
            path: path.clone(),
            source,
        };
        let mut header = tar::Header::new_ustar();
        header.set_path(path).map_err(wrong)?;
        if let Self::Link { target, .. } = self {
            header.set_link_name(target).map_err(wrong)?;
        }
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        Ok(header)
    }
}

/// A stretch of a tar.
#[derive(Clone, Debug)]
enum Piece {
    Bytes(Arc<[u8]>),
    Made { key: [u8; 32], size: u64 },
    Zeros(u64),
}

impl Piece {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Made { size, .. } | Self::Zeros(size) => *size,
        }
    }
}

/// A layer: the recipe of its bytes, and their names.
#[derive(Clone, Debug)]
pub struct Layer {
    pieces: Arc<[Piece]>,
    compression: Compression,
    content: u64,
    blob: Blob,
    diff_id: Digest,
}

impl Layer {
    /// Lays out a tar of `members`, in their order, and hashes it once.
    ///
    /// # Errors
    /// If a path or the target of a link does not fit a ustar header.
    pub fn new(members: &[Member], compression: Compression) -> Result<Self, WorldError> {
        let mut pieces = Vec::with_capacity(members.len() * 3 + 1);
        let mut content_size = 0;
        for member in members {
            pieces.push(Piece::Bytes(member.header()?.as_bytes()[..].into()));
            let Member::File { content, .. } = member else {
                continue;
            };
            let size = content.size();
            content_size += size;
            pieces.push(match content {
                Content::Bytes(bytes) => Piece::Bytes(Arc::clone(bytes)),
                Content::Made { key, size } => Piece::Made {
                    key: *key,
                    size: *size,
                },
            });
            pieces.push(Piece::Zeros(size.next_multiple_of(BLOCK) - size));
        }
        pieces.push(Piece::Zeros(2 * BLOCK));
        let mut layer = Self {
            pieces: pieces.into(),
            compression,
            content: content_size,
            blob: Blob::of(b""),
            diff_id: Digest::of(b""),
        };
        let mut bytes = Framed::new(&layer);
        let mut whole = Hasher::default();
        let mut buffer = vec![0; usize::try_from(RAW).unwrap_or(1 << 17)];
        loop {
            let count = bytes.read(&mut buffer).expect("it is made in memory");
            if count == 0 {
                break;
            }
            whole.update(&buffer[..count]);
        }
        layer.diff_id = bytes.tar_state.finish();
        layer.blob = Blob {
            size: whole.length(),
            digest: whole.finish(),
        };
        Ok(layer)
    }

    /// The promise of its bytes, framed.
    #[must_use]
    pub const fn blob(&self) -> Blob {
        self.blob
    }

    /// The digest of its tar, as image configs name it.
    #[must_use]
    pub const fn diff_id(&self) -> Digest {
        self.diff_id
    }

    /// How it is framed.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        self.compression
    }

    /// How many bytes its files have together.
    #[must_use]
    pub const fn content(&self) -> u64 {
        self.content
    }

    /// Makes its bytes again.
    #[must_use]
    pub fn bytes(&self) -> Box<dyn Read + Send> {
        match self.compression {
            Compression::None => Box::new(Tar::new(&self.pieces)),
            _ => Box::new(Framed::new(self)),
        }
    }
}

/// Reads a tar piece by piece.
struct Tar {
    pieces: Arc<[Piece]>,
    index: usize,
    offset: u64,
    made: Option<blake3::OutputReader>,
}

impl Tar {
    fn new(pieces: &Arc<[Piece]>) -> Self {
        Self {
            pieces: Arc::clone(pieces),
            index: 0,
            offset: 0,
            made: None,
        }
    }
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(piece) = self.pieces.get(self.index) {
            let left = piece.size() - self.offset;
            if left == 0 {
                self.index += 1;
                self.offset = 0;
                self.made = None;
                continue;
            }
            let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let out = &mut buffer[..count];
            match piece {
                Piece::Bytes(bytes) => {
                    let start = usize::try_from(self.offset).expect("it is within a slice");
                    out.copy_from_slice(&bytes[start..start + count]);
                }
                Piece::Zeros(_) => out.fill(0),
                Piece::Made { key, .. } => self
                    .made
                    .get_or_insert_with(|| blake3::Hasher::new_keyed(key).finalize_xof())
                    .fill(out),
            }
            self.offset += count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

/// Puts a frame around a tar, block by block.
struct Framed {
    tar: Tar,
    compression: Compression,
    /// Bytes of the tar that are still to come.
    left: u64,
    size: u64,
    buffer: Vec<u8>,
    position: usize,
    tar_state: Hasher,
    checksum: flate2::Crc,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Blocks,
    Tail,
    End,
}

impl Framed {
    fn new(layer: &Layer) -> Self {
        let size = layer.pieces.iter().map(Piece::size).sum();
        Self {
            tar: Tar::new(&layer.pieces),
            compression: layer.compression,
            left: size,
            size,
            buffer: Vec::new(),
            position: 0,
            tar_state: Hasher::default(),
            checksum: flate2::Crc::new(),
            stage: Stage::Head,
        }
    }

    /// Replaces the buffer by the next stretch.
    fn refill(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.position = 0;
        match self.stage {
            Stage::Head => {
                match self.compression {
                    Compression::None => {}
                    Compression::Gzip => self.buffer.extend(GZIP_HEAD),
                    Compression::Zstd => {
                        self.buffer.extend(ZSTD_HEAD);
                        self.buffer.extend(self.size.to_le_bytes());
                    }
                }
                // A tar ends in two blocks of zeros, so there is a first block.
                self.stage = Stage::Blocks;
            }
            Stage::Blocks => self.block()?,
            Stage::Tail => {
                if self.compression == Compression::Gzip {
                    self.buffer.extend(self.checksum.sum().to_le_bytes());
                    self.buffer.extend(self.checksum.amount().to_le_bytes());
                }
                self.stage = Stage::End;
            }
            Stage::End => {}
        }
        Ok(())
    }

    /// The next block of the tar behind its head.
    fn block(&mut self) -> io::Result<()> {
        let most = match self.compression {
            Compression::Gzip => STORED,
            Compression::None | Compression::Zstd => RAW,
        };
        let count = self.left.min(most);
        self.left -= count;
        let is_last = self.left == 0;
        match self.compression {
            Compression::None => {}
            Compression::Gzip => {
                let length = u16::try_from(count).expect("a stored block is bounded");
                self.buffer.push(u8::from(is_last));
                self.buffer.extend(length.to_le_bytes());
                self.buffer.extend((!length).to_le_bytes());
            }
            Compression::Zstd => {
                let length = u32::try_from(count).expect("a raw block is bounded");
                let head = (length << 3) | u32::from(is_last);
                self.buffer.extend(&head.to_le_bytes()[..3]);
            }
        }
        let start = self.buffer.len();
        self.buffer.resize(
            start + usize::try_from(count).expect("a block is bounded"),
            0,
        );
        self.tar.read_exact(&mut self.buffer[start..])?;
        self.tar_state.update(&self.buffer[start..]);
        if self.compression == Compression::Gzip {
            self.checksum.update(&self.buffer[start..]);
        }
        if is_last {
            self.stage = Stage::Tail;
        }
        Ok(())
    }
}

impl Read for Framed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.buffer.len() {
            if self.stage == Stage::End {
                return Ok(0);
            }
            self.refill()?;
        }
        let count = (self.buffer.len() - self.position).min(buffer.len());
        buffer[..count].copy_from_slice(&self.buffer[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}
