//! Bytes as they arrive: a blocking reader over an answer, which goes on by itself where a connection broke.
//!
//! ```text
//! GET …                              200, bytes 0 to 700, reset
//! GET …  Range: bytes=700-           206, Content-Range: bytes 700-999/1000
//! ```
//!
//! Follows RFC 9110, 14 (Range, If-Range, Content-Range). The reader never yields more bytes than were asked for,
//! and ends well only after all of them.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use http::HeaderValue;
use http::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};

use super::Client;
use super::error::RegistryError;
use super::wire::{Ask, Reply};

/// How often one reader goes on after breaks, even if each time some bytes come.
const RESUMPTIONS: u32 = 1000;

/// How many bytes there will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// This many: their name is known, so any place that has them may go on.
    Exact(u64),
    /// At most this many, and what the answer declares.
    AtMost(u64),
}

/// A body that is being read.
pub(super) struct Body {
    client: Client,
    /// Where the bytes are, the one being read first.
    asks: Vec<Ask>,
    reply: Option<Reply>,
    chunk: Bytes,
    /// Bytes of the answer that were yielded before, and come again.
    skip: u64,
    position: u64,
    extent: Extent,
    /// Where it ends, once that is known.
    end: Option<u64>,
    etag: Option<HeaderValue>,
    /// Breaks since bytes last came.
    breaks: u32,
    resumptions: u32,
    /// It ended in an error, and does not end well after that.
    failed: bool,
}

/// What opening found.
enum Opened {
    Absent,
    Open,
}

impl Body {
    /// Asks each of `asks` in turn; `None` if all of them say that it is absent.
    ///
    /// The first failure is reported if none has it, since what could not be asked may have it.
    pub(super) fn open(
        client: &Client,
        asks: Vec<Ask>,
        from: u64,
        extent: Extent,
    ) -> Result<Option<Self>, RegistryError> {
        let mut body = Self {
            client: client.clone(),
            asks,
            reply: None,
            chunk: Bytes::new(),
            skip: 0,
            position: from,
            extent,
            end: match extent {
                Extent::Exact(size) => Some(size),
                Extent::AtMost(_) => None,
            },
            etag: None,
            breaks: 0,
            resumptions: 0,
            failed: false,
        };
        let mut failure = None;
        while !body.asks.is_empty() {
            match body.ask() {
                Ok(Opened::Open) => return Ok(Some(body)),
                Ok(Opened::Absent) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
            body.asks.remove(0);
        }
        failure.map_or(Ok(None), Err)
    }

    /// A body over an answer that came already, of unknown length.
    pub(super) fn of(
        client: &Client,
        ask: Ask,
        reply: Reply,
        limit: u64,
    ) -> Result<Self, RegistryError> {
        let mut body = Self {
            client: client.clone(),
            asks: vec![ask],
            reply: None,
            chunk: Bytes::new(),
            skip: 0,
            position: 0,
            extent: Extent::AtMost(limit),
            end: None,
            etag: None,
            breaks: 0,
            resumptions: 0,
            failed: false,
        };
        body.accept_whole(reply)?;
        Ok(body)
    }

    /// Asks the first place from where we are.
    fn ask(&mut self) -> Result<Opened, RegistryError> {
        self.reply = None;
        let mut ask = self.asks[0].clone();
        if self.position > 0 {
            let range = format!("bytes={}-", self.position);
            ask.headers.insert(
                RANGE,
                HeaderValue::from_str(&range).expect("a range is ASCII"),
            );
            if let Some(etag) = &self.etag {
                ask.headers.insert(IF_RANGE, etag.clone());
            }
        }
        let wire = &self.client.inner.wire;
        let reply = self.client.run(wire.send(&ask))?;
        match reply.status() {
            200 => self.accept_whole(reply)?,
            206 if self.position > 0 => self.accept_part(reply)?,
            404 | 410 => return Ok(Opened::Absent),
            206 => return Err(ask.protocol("all of it (200)", "a part of it (206)")),
            416 => {
                return Err(ask.protocol(
                    format!("the bytes from {}", self.position),
                    "that there are not so many (416)",
                ));
            }
            _ => return Err(self.client.block_on(wire.failure(&ask, reply))),
        }
        Ok(Opened::Open)
    }

    fn accept_whole(&mut self, reply: Reply) -> Result<(), RegistryError> {
        let ask = &self.asks[0];
        let length = reply.length();
        match (self.extent, length) {
            (Extent::Exact(size), Some(length)) if length != size => {
                return Err(ask.protocol(format!("{size} bytes"), format!("{length}")));
            }
            (Extent::AtMost(limit), Some(length)) if length > limit => {
                return Err(ask.protocol(format!("at most {limit} bytes"), format!("{length}")));
            }
            (Extent::AtMost(_), _) if self.position > 0 => {
                // Without a digest nothing says that these are still the same bytes.
                return Err(ask.protocol(
                    format!("the bytes from {}", self.position),
                    "that it changed while it was read",
                ));
            }
            (Extent::AtMost(_), length) => self.end = length,
            (Extent::Exact(_), _) => {}
        }
        self.skip = self.position;
        self.note(reply);
        Ok(())
    }

    fn accept_part(&mut self, reply: Reply) -> Result<(), RegistryError> {
        let ask = &self.asks[0];
        let text = reply.header(CONTENT_RANGE).unwrap_or_default().to_owned();
        let expected = || match self.end {
            Some(end) => format!(
                "Content-Range: bytes {}-{}/{end}",
                self.position,
                end.saturating_sub(1)
            ),
            None => format!("Content-Range: bytes {}-…", self.position),
        };
        let good = content_range(&text).is_some_and(|(first, last, total)| {
            first == self.position
                && self
                    .end
                    .is_none_or(|end| last + 1 == end && total.is_none_or(|total| total == end))
        });
        if !good {
            return Err(ask.protocol(
                expected(),
                if text.is_empty() {
                    "none".to_owned()
                } else {
                    format!("Content-Range: {text}")
                },
            ));
        }
        self.skip = 0;
        self.note(reply);
        Ok(())
    }

    fn note(&mut self, reply: Reply) {
        // A weak tag does not promise the same bytes.
        self.etag = reply
            .response
            .headers()
            .get(ETAG)
            .filter(|value| value.as_bytes().starts_with(b"\""))
            .cloned();
        self.reply = Some(reply);
    }

    /// The next bytes of the answer at hand.
    fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let Some(reply) = &mut self.reply else {
            return Ok(None);
        };
        let wire = &self.client.inner.wire;
        self.client
            .run(wire.chunk(&self.asks[0], &mut reply.response))
    }

    /// Goes on after a break: at the same place while there is patience, then at the next.
    fn resume(&mut self, broke: RegistryError) -> Result<(), RegistryError> {
        let policy = self.client.inner.wire.settings.retry;
        self.reply = None;
        self.breaks += 1;
        self.resumptions += 1;
        let can_go_on =
            matches!(self.extent, Extent::Exact(_)) || self.etag.is_some() || self.position == 0;
        if !broke.is_temporary()
            || !can_go_on
            || self.resumptions > RESUMPTIONS
            || self.breaks >= policy.attempts
        {
            return self.move_on(broke);
        }
        self.client.pause(policy.pause(self.breaks))?;
        match self.ask() {
            Ok(Opened::Open) => Ok(()),
            Ok(Opened::Absent) => self.move_on(broke),
            // It was asked for with patience already.
            Err(error) => self.move_on(error),
        }
    }

    /// Goes on at the next place that has the same bytes.
    fn move_on(&mut self, broke: RegistryError) -> Result<(), RegistryError> {
        if !matches!(self.extent, Extent::Exact(_)) {
            return Err(broke);
        }
        while self.asks.len() > 1 {
            self.asks.remove(0);
            self.etag = None;
            self.breaks = 0;
            if let Ok(Opened::Open) = self.ask() {
                return Ok(());
            }
        }
        Err(broke)
    }

    fn short(&self) -> RegistryError {
        RegistryError::Short {
            asked: self.asks[0].asked(),
            expected: self.end.unwrap_or(self.position),
            found: self.position,
        }
    }

    fn fill(&mut self) -> Result<bool, RegistryError> {
        loop {
            if self.end == Some(self.position) {
                // Reads to the end of the answer, so that the connection can be used again, and to see excess.
                let rest = self.next();
                self.reply = None;
                return match rest {
                    Ok(Some(rest)) if !rest.is_empty() => {
                        Err(self.asks[0].protocol(format!("{} bytes", self.position), "more"))
                    }
                    _ => Ok(false),
                };
            }
            match self.next() {
                Ok(Some(mut chunk)) => {
                    if self.skip > 0 {
                        let skipped = self.skip.min(chunk.len() as u64);
                        chunk.advance(usize::try_from(skipped).unwrap_or(chunk.len()));
                        self.skip -= skipped;
                    }
                    if chunk.is_empty() {
                        continue;
                    }
                    self.breaks = 0;
                    let bound = match (self.end, self.extent) {
                        (Some(end), _) => end,
                        (None, Extent::AtMost(limit) | Extent::Exact(limit)) => limit,
                    };
                    if chunk.len() as u64 > bound - self.position {
                        self.reply = None;
                        return Err(self.asks[0].protocol(format!("at most {bound} bytes"), "more"));
                    }
                    self.chunk = chunk;
                    return Ok(true);
                }
                Ok(None) if self.end.is_none() => {
                    self.end = Some(self.position);
                    self.reply = None;
                    return Ok(false);
                }
                Ok(None) => {
                    let short = self.short();
                    self.resume(short)?;
                }
                Err(error) => self.resume(error)?,
            }
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.chunk.is_empty() {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    self.failed = true;
                    self.reply = None;
                    return Err(error.into());
                }
            }
        }
        let count = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

/// Reads `bytes first-last/total`; the total may be `*`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let last: u64 = last.parse().ok()?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (first <= last && last < u64::MAX).then_some((first, last, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_strictly() {
        for (text, expected) in [
            ("bytes 0-9/10", Some((0, 9, Some(10)))),
            ("bytes 5-9/*", Some((5, 9, None))),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("5-9/10", None),
            ("bytes 5-9", None),
            ("bytes -5-9/10", None),
            ("", None),
        ] {
            assert_eq!(content_range(text), expected, "{text:?}");
        }
    }
}
