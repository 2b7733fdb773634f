//! Archives with one tool in them: `tar.gz` for most systems, `zip` for Windows.
//!
//! What is written follows from the file, its name, its text and its time alone, so the same release gives the same
//! archive everywhere.

use std::io::{self, Read, Seek, SeekFrom, Write};

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc};

/// As `oc adm release extract` packs: fast, since these files hardly shrink further.
const LEVEL: u32 = 3;

/// The name of the text in an archive.
const README: &str = "README.md";

/// What goes into an archive.
pub struct Contents<'a> {
    /// The name of the tool's file.
    pub name: &'a str,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last changed, in seconds since 1970.
    pub modified: u64,
    /// What lies beside it.
    pub readme: &'a str,
    /// What else the tool is called.
    pub link: Option<&'a str>,
}

/// Writes a `tar.gz`: the text, the tool, the link to it.
///
/// # Errors
/// If reading or writing fails, or the tool does not have the length that was said.
pub fn tar_gz(
    contents: &Contents<'_>,
    tool: &mut dyn Read,
    output: &mut dyn Write,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(GzEncoder::new(output, Compression::new(LEVEL)));
    let header = |size: u64, mode: u32, kind: tar::EntryType| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_mtime(contents.modified);
        header
    };
    let text = contents.readme.as_bytes();
    let mut readme = header(text.len() as u64, 0o644, tar::EntryType::Regular);
    tar.append_data(&mut readme, README, text)?;
    let mut file = header(contents.size, 0o755, tar::EntryType::Regular);
    let mut counted = Counted {
        inner: tool,
        count: 0,
    };
    tar.append_data(&mut file, contents.name, &mut counted)?;
    check(&counted, contents)?;
    if let Some(link) = contents.link {
        let mut header = header(0, 0o755, tar::EntryType::Link);
        tar.append_link(&mut header, link, contents.name)?;
    }
    tar.into_inner()?.finish()?.flush()
}

/// Counts what is read.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    count: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

fn check(read: &Counted<'_>, contents: &Contents<'_>) -> io::Result<()> {
    if read.count == contents.size {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "{} has {} bytes; expected {}",
            contents.name, read.count, contents.size
        ),
    ))
}

/// One member of a zip, as its directory has it.
struct Member {
    name: String,
    crc: u32,
    packed: u32,
    size: u32,
    offset: u32,
    mode: u32,
}

/// Writes a `zip`: the text and the tool.
///
/// # Errors
/// If reading or writing fails, the tool does not have the length that was said, or has 4 GiB or more.
pub fn zip<W: Write + Seek>(
    contents: &Contents<'_>,
    tool: &mut dyn Read,
    output: &mut W,
) -> io::Result<()> {
    let time = dos_time(contents.modified);
    let mut text = contents.readme.as_bytes();
    let mut members = vec![member(README, 0o644, time, &mut text, output)?];
    let mut counted = Counted {
        inner: tool,
        count: 0,
    };
    members.push(member(contents.name, 0o755, time, &mut counted, output)?);
    check(&counted, contents)?;
    let start = small(output.stream_position()?)?;
    for member in &members {
        let mut entry = Vec::new();
        // Made on Unix (3) by version 2.0 of the format, which is needed to read it.
        for half in [0x0314_u16, 20, UTF8, DEFLATE] {
            entry.extend_from_slice(&half.to_le_bytes());
        }
        entry.extend_from_slice(&time);
        for word in [member.crc, member.packed, member.size] {
            entry.extend_from_slice(&word.to_le_bytes());
        }
        entry.extend_from_slice(&name_length(&member.name)?.to_le_bytes());
        entry.extend_from_slice(&[0; 8]);
        entry.extend_from_slice(&((0o100_000 | member.mode) << 16).to_le_bytes());
        entry.extend_from_slice(&member.offset.to_le_bytes());
        entry.extend_from_slice(member.name.as_bytes());
        output.write_all(b"PK\x01\x02")?;
        output.write_all(&entry)?;
    }
    let length = small(output.stream_position()?)? - start;
    let count = u16::try_from(members.len()).expect("two members");
    output.write_all(b"PK\x05\x06\0\0\0\0")?;
    output.write_all(&count.to_le_bytes())?;
    output.write_all(&count.to_le_bytes())?;
    output.write_all(&length.to_le_bytes())?;
    output.write_all(&start.to_le_bytes())?;
    output.write_all(&[0, 0])?;
    output.flush()
}

/// Names are UTF-8.
const UTF8: u16 = 1 << 11;

/// The method of compression.
const DEFLATE: u16 = 8;

fn name_length(name: &str) -> io::Result<u16> {
    u16::try_from(name.len()).map_err(io::Error::other)
}

fn small(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::Error::other("a zip of 4 GiB or more is not written"))
}

fn member<W: Write + Seek>(
    name: &str,
    mode: u32,
    time: [u8; 4],
    input: &mut dyn Read,
    output: &mut W,
) -> io::Result<Member> {
    let offset = small(output.stream_position()?)?;
    output.write_all(b"PK\x03\x04")?;
    for half in [20, UTF8, DEFLATE] {
        output.write_all(&half.to_le_bytes())?;
    }
    output.write_all(&time)?;
    // Sums and lengths are known at the end only.
    output.write_all(&[0; 12])?;
    output.write_all(&name_length(name)?.to_le_bytes())?;
    output.write_all(&[0, 0])?;
    output.write_all(name.as_bytes())?;
    let mut encoder = DeflateEncoder::new(&mut *output, Compression::new(LEVEL));
    let mut crc = Crc::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        crc.update(&buffer[..count]);
        encoder.write_all(&buffer[..count])?;
        size += count as u64;
    }
    encoder.try_finish()?;
    let packed = small(encoder.total_out())?;
    drop(encoder);
    let member = Member {
        name: name.to_owned(),
        crc: crc.sum(),
        packed,
        size: small(size)?,
        offset,
        mode,
    };
    let end = output.stream_position()?;
    output.seek(SeekFrom::Start(u64::from(offset) + 14))?;
    for word in [member.crc, member.packed, member.size] {
        output.write_all(&word.to_le_bytes())?;
    }
    output.seek(SeekFrom::Start(end))?;
    Ok(member)
}

/// A time as zip has it: to two seconds, from 1980 to 2107, in UTC; others are moved to the nearest end.
fn dos_time(seconds: u64) -> [u8; 4] {
    let moment = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map(|moment| moment.to_zoned(jiff::tz::TimeZone::UTC));
    let (date, time) = match moment {
        Some(moment) if (1980..=2107).contains(&moment.year()) => {
            let part = |value: i8| u16::try_from(value).unwrap_or(0);
            let year = u16::try_from(moment.year() - 1980).unwrap_or(0);
            (
                (year << 9) | (part(moment.month()) << 5) | part(moment.day()),
                (part(moment.hour()) << 11)
                    | (part(moment.minute()) << 5)
                    | (part(moment.second()) / 2),
            )
        }
        _ => ((1 << 5) | 1, 0),
    };
    let [a, b] = time.to_le_bytes();
    let [c, d] = date.to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::process::Command;

    fn contents(link: Option<&'static str>) -> Contents<'static> {
        Contents {
            name: "oc",
            size: 300_000,
            modified: 1_700_000_001,
            readme: "# Text\n",
            link,
        }
    }

    fn tool() -> Vec<u8> {
        (0..300_000_u32).map(|at| at.to_le_bytes()[0] / 3).collect()
    }

    #[test]
    fn a_tar_holds_the_text_the_tool_and_its_other_name() {
        let mut out = Vec::new();
        tar_gz(&contents(Some("kubectl")), &mut tool().as_slice(), &mut out).unwrap();
        let mut again = Vec::new();
        tar_gz(
            &contents(Some("kubectl")),
            &mut tool().as_slice(),
            &mut again,
        )
        .unwrap();
        assert_eq!(out, again, "the same content gives the same bytes");
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(out.as_slice()));
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                (
                    entry.path().unwrap().display().to_string(),
                    entry.size(),
                    header.mode().unwrap(),
                    header.mtime().unwrap(),
                    entry
                        .link_name()
                        .unwrap()
                        .map(|name| name.display().to_string()),
                )
            })
            .collect();
        let time = 1_700_000_001;
        assert_eq!(
            found,
            [
                ("README.md".to_owned(), 7, 0o644, time, None),
                ("oc".to_owned(), 300_000, 0o755, time, None),
                ("kubectl".to_owned(), 0, 0o755, time, Some("oc".to_owned())),
            ]
        );
        assert!(
            tar_gz(&contents(None), &mut &tool()[1..], &mut Vec::new()).is_err(),
            "a tool that is too short is refused"
        );
    }

    #[test]
    fn a_zip_is_read_by_others() {
        let mut out = Cursor::new(Vec::new());
        zip(&contents(None), &mut tool().as_slice(), &mut out).unwrap();
        let mut again = Cursor::new(Vec::new());
        zip(&contents(None), &mut tool().as_slice(), &mut again).unwrap();
        assert_eq!(
            out.get_ref(),
            again.get_ref(),
            "the same content gives the same bytes"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.zip");
        std::fs::write(&path, out.get_ref()).unwrap();
        let script = "import sys, zipfile, stat\nz = zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\nfor i in z.infolist(): print(i.filename, i.file_size, oct(i.external_attr >> 16), *i.date_time)\n";
        let Ok(output) = Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .output()
        else {
            println!("skipped: there is no python3 to read a zip with");
            return;
        };
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "README.md 7 0o100644 2023 11 14 22 13 20\noc 300000 0o100755 2023 11 14 22 13 20\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    fn times_outside_those_of_a_zip_are_its_first() {
        for seconds in [0, u64::MAX, 5_000_000_000_000] {
            assert_eq!(dos_time(seconds), [0, 0, 0x21, 0], "{seconds}");
        }
    }
}
