//! The signature inside a program for macOS, made good after the program was changed.
//!
//! A program is signed by a list of hashes, one per page of it, at its end. The linker writes one that nobody vouches
//! for ("ad hoc"); macOS on ARM runs nothing without. Where bytes of a page change in place, its hash in the list must.
//!
//! ```text
//! header, load commands ── LC_CODE_SIGNATURE ──> superblob ──> code directory: hash type, page size, hashes
//! ```
//!
//! The header is little-endian, the signature big-endian.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use sha2::{Digest as _, Sha256};

const MAGIC_64: u32 = 0xfeed_facf;
const LC_CODE_SIGNATURE: u32 = 0x1d;
const SUPERBLOB: u32 = 0xfade_0cc0;
const CODE_DIRECTORY: u32 = 0xfade_0c02;
const VENDOR_SIGNATURE: u32 = 0xfade_0b01;

/// Most bytes of load commands that are read; programs have a few thousand.
const COMMANDS_LIMIT: u32 = 1 << 20;

/// Most bytes of a signature that are read: 32 per page of 4 KiB is 8 MiB per GiB of program.
const SIGNATURE_LIMIT: u32 = 64 << 20;

/// An empty wrapper is how an ad hoc signature may say that nobody vouches.
const EMPTY_WRAPPER: u32 = 8;

/// What became of the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resigned {
    /// So many page hashes were written anew; the program is as good as before.
    Pages(usize),
    /// It has none.
    Unsigned,
    /// Its maker vouched for it with a key, and no longer does.
    Vendor(usize),
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the program for macOS is malformed: {what}"),
    )
}

fn little(bytes: &[u8], at: usize) -> io::Result<u32> {
    let part = at.checked_add(4).and_then(|end| bytes.get(at..end));
    let part = part.ok_or_else(|| malformed("a field is cut off"))?;
    Ok(u32::from_le_bytes(part.try_into().expect("four bytes")))
}

fn big(bytes: &[u8], at: usize) -> io::Result<u32> {
    Ok(little(bytes, at)?.swap_bytes())
}

fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Writes the hashes of the pages that `touched` meets anew, in every list of hashes that the program has.
///
/// # Errors
/// If the file is no 64-bit program for macOS, its signature is malformed, or reading or writing fails.
pub fn resign<F: Read + Write + Seek>(
    file: &mut F,
    touched: &[Range<u64>],
) -> io::Result<Resigned> {
    let mut header = [0; 32];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut header)
        .map_err(|_| malformed("it has no header"))?;
    if little(&header, 0)? != MAGIC_64 {
        return Err(malformed("it does not begin as one"));
    }
    let (count, length) = (little(&header, 16)?, little(&header, 20)?);
    if length > COMMANDS_LIMIT {
        return Err(malformed("too many load commands"));
    }
    let mut commands = vec![0; index(length)];
    file.read_exact(&mut commands)
        .map_err(|_| malformed("its load commands are cut off"))?;
    let mut at = 0;
    let mut place = None;
    for _ in 0..count {
        let (kind, size) = (little(&commands, at)?, little(&commands, at + 4)?);
        if kind == LC_CODE_SIGNATURE {
            place = Some((little(&commands, at + 8)?, little(&commands, at + 12)?));
        }
        if size < 8 {
            return Err(malformed("a load command has no size"));
        }
        at += index(size);
    }
    let Some((start, size)) = place else {
        return Ok(Resigned::Unsigned);
    };
    if size > SIGNATURE_LIMIT {
        return Err(malformed("its signature is too large"));
    }
    let mut signature = vec![0; index(size)];
    file.seek(SeekFrom::Start(u64::from(start)))?;
    file.read_exact(&mut signature)
        .map_err(|_| malformed("its signature is cut off"))?;
    if big(&signature, 0)? != SUPERBLOB {
        return Err(malformed("its signature does not begin as one"));
    }
    let (mut pages, mut is_vendor) = (0, false);
    for blob in 0..big(&signature, 8)?.min(64) {
        let offset = index(big(&signature, 12 + 8 * index(blob) + 4)?);
        match big(&signature, offset)? {
            CODE_DIRECTORY => pages += directory(file, &mut signature, offset, touched)?,
            VENDOR_SIGNATURE => is_vendor |= big(&signature, offset + 4)? > EMPTY_WRAPPER,
            _ => {}
        }
    }
    file.seek(SeekFrom::Start(u64::from(start)))?;
    file.write_all(&signature)?;
    Ok(if is_vendor {
        Resigned::Vendor(pages)
    } else {
        Resigned::Pages(pages)
    })
}

/// Brings one list of hashes up to date; answers how many were written.
fn directory<F: Read + Seek>(
    file: &mut F,
    signature: &mut [u8],
    at: usize,
    touched: &[Range<u64>],
) -> io::Result<usize> {
    let length = index(big(signature, at + 4)?);
    let end = at
        .checked_add(length)
        .filter(|end| *end <= signature.len())
        .ok_or_else(|| malformed("a list of hashes is cut off"))?;
    let version = big(signature, at + 8)?;
    let (hashes, slots) = (
        index(big(signature, at + 16)?),
        index(big(signature, at + 28)?),
    );
    let mut limit = u64::from(big(signature, at + 32)?);
    if version >= 0x2_0300 {
        let wide = u64::from(big(signature, at + 56)?) << 32 | u64::from(big(signature, at + 60)?);
        if wide > 0 {
            limit = wide;
        }
    }
    let widths = big(signature, at + 36)?.to_be_bytes();
    let [hash_size, hash_type, _, page_shift] = widths;
    let hash_size = usize::from(hash_size);
    // 2 is SHA-256, 3 the first twenty bytes of it.
    if !matches!((hash_type, hash_size), (2, 32) | (3, 20)) {
        return Err(malformed(&format!(
            "hashes of kind {hash_type} are not known"
        )));
    }
    if !(9..=24).contains(&page_shift) {
        return Err(malformed("its pages have no size"));
    }
    let page_size = 1_u64 << page_shift;
    let mut pages: Vec<u64> = touched
        .iter()
        .filter(|range| !range.is_empty())
        .flat_map(|range| range.start / page_size..=(range.end - 1) / page_size)
        .collect();
    pages.sort_unstable();
    pages.dedup();
    for page in &pages {
        let slot = usize::try_from(*page).unwrap_or(usize::MAX);
        let from = page * page_size;
        if slot >= slots || from >= limit {
            return Err(malformed("its list of hashes does not cover the change"));
        }
        let place = slot
            .checked_mul(hash_size)
            .and_then(|offset| offset.checked_add(at + hashes))
            .filter(|place| place + hash_size <= end)
            .ok_or_else(|| malformed("its list of hashes is cut off"))?;
        let mut hasher = Sha256::new();
        let mut left = page_size.min(limit - from);
        let mut buffer = [0; 4096];
        file.seek(SeekFrom::Start(from))?;
        while left > 0 {
            let count = usize::try_from(left.min(4096)).expect("at most 4096");
            file.read_exact(&mut buffer[..count])
                .map_err(|_| malformed("a page is cut off"))?;
            hasher.update(&buffer[..count]);
            left -= count as u64;
        }
        let hash = hasher.finalize();
        signature[place..place + hash_size].copy_from_slice(&hash[..hash_size]);
    }
    Ok(pages.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const PAGE: usize = 4096;

    /// A program of `pages` pages (the last one short) and its signature, as a linker makes them.
    fn program(pages: usize, vendor: bool) -> Vec<u8> {
        let limit = pages * PAGE - 100;
        let mut code: Vec<u8> = (0..limit)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let mut header = Vec::new();
        for word in [MAGIC_64, 0x0100_000c, 0, 2, 2, 40, 0, 0] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        // Another command first.
        for word in [0x32, 24, 0, 0, 0, 0] {
            header.extend_from_slice(&u32::to_le_bytes(word));
        }
        let identifier = b"a.out\0";
        let hashes = 64 + identifier.len();
        let length = hashes + pages * 32;
        let wrapper = if vendor { 20 } else { 8 };
        let total = 12 + 16 + length + wrapper;
        for word in [
            LC_CODE_SIGNATURE,
            16,
            limit.try_into().unwrap(),
            total.try_into().unwrap(),
        ] {
            header.extend_from_slice(&u32::to_le_bytes(word));
        }
        code[..header.len()].copy_from_slice(&header);
        let mut out = Vec::new();
        let word = |out: &mut Vec<u8>, value: usize| {
            out.extend_from_slice(&u32::try_from(value).unwrap().to_be_bytes());
        };
        for value in [SUPERBLOB as usize, total, 2, 0, 28, 0x10000, 28 + length] {
            word(&mut out, value);
        }
        for value in [
            CODE_DIRECTORY as usize,
            length,
            0x2_0400,
            0x2_0002,
            hashes,
            64,
            0,
            pages,
            limit,
        ] {
            word(&mut out, value);
        }
        out.extend_from_slice(&[32, 2, 0, 12]);
        out.resize(28 + 64, 0);
        out.extend_from_slice(identifier);
        for page in code.chunks(PAGE) {
            out.extend_from_slice(&Sha256::digest(page));
        }
        word(&mut out, VENDOR_SIGNATURE as usize);
        word(&mut out, wrapper);
        out.resize(total, 1);
        [code, out].concat()
    }

    /// Whether every page has the hash that the list says.
    fn is_good(program: &[u8], pages: usize) -> bool {
        let limit = pages * PAGE - 100;
        let hashes = &program[limit + 28 + 64 + 6..];
        program[..limit]
            .chunks(PAGE)
            .zip(hashes.chunks(32))
            .all(|(page, hash)| Sha256::digest(page).as_slice() == hash)
    }

    fn one(at: u64) -> Vec<Range<u64>> {
        std::iter::once(at..at + 1).collect()
    }

    #[test]
    fn pages_that_change_get_new_hashes() {
        for (vendor, ends, count) in [
            (false, &[(5000, 5007)][..], 1),
            (false, &[(4090, 4100)], 2),
            (false, &[(8000, 8004), (8190, 8194), (12290, 12295)], 3),
            (false, &[], 0),
            (true, &[(5000, 5007)], 1),
        ] {
            let ranges: Vec<Range<u64>> = ends.iter().map(|(from, to)| *from..*to).collect();
            let mut bytes = program(4, vendor);
            assert!(is_good(&bytes, 4), "it begins as a good program");
            for range in &ranges {
                for at in range.clone() {
                    bytes[usize::try_from(at).unwrap()] ^= 0xff;
                }
            }
            assert_eq!(
                is_good(&bytes, 4),
                ranges.is_empty(),
                "the change breaks it"
            );
            let mut file = Cursor::new(bytes);
            let outcome = resign(&mut file, &ranges).unwrap();
            let wanted = if vendor {
                Resigned::Vendor(count)
            } else {
                Resigned::Pages(count)
            };
            assert_eq!(outcome, wanted, "{ranges:?}");
            assert!(is_good(file.get_ref(), 4), "every page has its hash again");
        }
    }

    #[test]
    fn what_has_no_signature_is_said() {
        let mut bytes = program(2, false);
        bytes[32 + 24] = 0x33;
        assert_eq!(
            resign(&mut Cursor::new(bytes), &one(0)).unwrap(),
            Resigned::Unsigned
        );
    }

    #[test]
    fn a_malformed_program_is_an_error_and_never_more() {
        let good = program(2, false);
        for cut in (0..good.len()).step_by(13) {
            let _ = resign(&mut Cursor::new(good[..cut].to_vec()), &one(5000));
        }
        for at in (0..72).chain(2 * PAGE - 100..2 * PAGE) {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = resign(&mut Cursor::new(bytes), &one(5000));
            }
        }
        assert!(
            resign(&mut Cursor::new(b"\x7fELF".to_vec()), &[]).is_err(),
            "a program for another system is refused"
        );
        assert!(
            resign(&mut Cursor::new(good), &one(9_000_000)).is_err(),
            "a change behind the list is refused"
        );
    }
}
