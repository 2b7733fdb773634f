//! The tar form: one way to write each member.
//!
//! POSIX.1-1988 `ustar` headers (IEEE Std 1003.1, `pax`, "ustar Interchange Format"): regular files only, mode
//! 0444, user and group 0 without names, modification time 0, device numbers 0, a name of at most 100 bytes. A
//! size of 8 GiB and more is base-256, as GNU tar, Python and the Rust and Go libraries read it. Contents are
//! padded with zeros to 512 bytes; two zero blocks end the file; there is no padding to 10 KiB records.

use super::Flaw;

/// The unit of a tar file, in bytes.
pub const BLOCK: u64 = 512;

/// The bytes of the two zero blocks at the end.
pub const END: u64 = 2 * BLOCK;

/// Longest name of a member, in bytes.
pub const NAME_LIMIT: usize = 100;

/// First size that eleven octal digits cannot hold.
const OCTAL_END: u64 = 1 << 33;

/// The bytes that a member with `length` bytes of content takes, its header and padding counted.
#[must_use]
pub const fn entry_size(length: u64) -> u64 {
    BLOCK + padded(length)
}

/// `length`, rounded up to full blocks.
#[must_use]
pub const fn padded(length: u64) -> u64 {
    length.div_ceil(BLOCK) * BLOCK
}

const FIELDS: [(&str, usize, usize); 17] = [
    ("name", 0, 100),
    ("type flag", 156, 157),
    ("magic", 257, 263),
    ("version", 263, 265),
    ("mode", 100, 108),
    ("user id", 108, 116),
    ("group id", 116, 124),
    ("size", 124, 136),
    ("modification time", 136, 148),
    ("link name", 157, 257),
    ("user name", 265, 297),
    ("group name", 297, 329),
    ("major device number", 329, 337),
    ("minor device number", 337, 345),
    ("name prefix", 345, 500),
    ("last 12 bytes", 500, 512),
    ("checksum", 148, 156),
];

/// The one header of a member.
///
/// # Panics
/// If `name` is longer than [`NAME_LIMIT`]; a [`super::Member`] never is.
#[must_use]
pub fn header(name: &str, size: u64) -> [u8; 512] {
    assert!(name.len() <= NAME_LIMIT, "members have short names");
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000444\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    if size < OCTAL_END {
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].copy_from_slice(b"        ");
    block[156] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[329..337].copy_from_slice(b"0000000\0");
    block[337..345].copy_from_slice(b"0000000\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Reads a header: the member's name and size. Whatever is not exactly what [`header`] writes is refused.
///
/// # Errors
/// Names the first field that differs.
pub fn parse(block: &[u8; 512]) -> Result<(&str, u64), Flaw> {
    let end = block[..NAME_LIMIT]
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(NAME_LIMIT);
    let name = std::str::from_utf8(&block[..end]).map_err(|_| Flaw::MemberName {
        name: block[..end].escape_ascii().to_string(),
    })?;
    let field: [u8; 8] = block[128..136].try_into().expect("eight bytes");
    let size = if block[124] & 0x80 != 0 {
        u64::from_be_bytes(field)
    } else {
        // Anything but digits becomes a number whose header is another one.
        block[124..135].iter().fold(0_u64, |size, digit| {
            size << 3 | u64::from(digit.wrapping_sub(b'0') & 7)
        })
    };
    let expected = header(name, size);
    for (field, from, to) in FIELDS {
        if block[from..to] != expected[from..to] {
            return Err(Flaw::Header {
                field,
                expected: expected[from..to].to_vec(),
                found: block[from..to].to_vec(),
            });
        }
    }
    Ok((name, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_the_one_that_gnu_tar_writes() {
        let folder = tempfile::tempdir().unwrap();
        let content = vec![7; 1771];
        std::fs::create_dir_all(folder.path().join("imgbuild")).unwrap();
        std::fs::write(folder.path().join("imgbuild/lock.toml"), &content).unwrap();
        let output = std::process::Command::new("tar")
            .args(["--format=ustar", "--mtime=@0", "--mode=0444"])
            .args(["--owner=0", "--group=0", "--numeric-owner", "-cf", "-"])
            .arg("imgbuild/lock.toml")
            .current_dir(folder.path())
            .output();
        let Ok(output) = output else {
            println!("skipped: there is no tar here");
            return;
        };
        assert!(output.status.success(), "tar must write the file");
        let ours = header("imgbuild/lock.toml", 1771);
        assert_eq!(
            output.stdout[..512].escape_ascii().to_string(),
            ours.escape_ascii().to_string(),
            "the form is what GNU tar writes as ustar"
        );
    }

    #[test]
    fn a_size_of_8_gib_is_base_256() {
        let name = "blobs/sha256/x";
        for (size, field) in [
            (0, b"00000000000\0".to_vec()),
            (1771, b"00000003353\0".to_vec()),
            ((8 << 30) - 1, b"77777777777\0".to_vec()),
            (8 << 30, vec![0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]),
            (u64::MAX, [vec![0x80, 0, 0, 0], vec![0xff; 8]].concat()),
        ] {
            let block = header(name, size);
            assert_eq!(&block[124..136], field, "the size field of {size}");
            assert_eq!(parse(&block).unwrap(), (name, size), "reading undoes it");
            let mut other = ::tar::Header::new_ustar();
            other.as_mut_bytes().copy_from_slice(&block);
            assert_eq!(
                other.entry_size().unwrap(),
                size,
                "the tar crate reads {size} alike"
            );
            assert_eq!(
                other.cksum().unwrap(),
                block
                    .iter()
                    .enumerate()
                    .map(|(at, byte)| if (148..156).contains(&at) {
                        32
                    } else {
                        u32::from(*byte)
                    })
                    .sum::<u32>(),
                "the checksum counts itself as spaces"
            );
        }
    }

    #[test]
    fn a_header_written_another_way_is_refused_by_field() {
        type Change = fn(&mut [u8; 512]);
        let table: [(&str, Change); 13] = [
            ("mode", |block| {
                block[100..108].copy_from_slice(b"0000644\0");
            }),
            ("mode", |block| {
                block[100..108].copy_from_slice(b"000444 \0");
            }),
            ("type flag", |block| block[156] = b'2'),
            ("type flag", |block| block[156] = 0),
            ("type flag", |block| block[156] = b'L'),
            ("type flag", |block| block[156] = b'x'),
            ("type flag", |block| block[156] = b'S'),
            ("size", |block| {
                block[124..136].copy_from_slice(b"       3353 ");
            }),
            ("size", |block| {
                block[124] = 0x80;
                block[125..136].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0xeb]);
            }),
            ("size", |block| {
                block[124] = 0xff;
                block[125..136].fill(0xff);
            }),
            ("link name", |block| block[157] = b'/'),
            ("magic", |block| {
                block[257..265].copy_from_slice(b"ustar  \0");
            }),
            ("name", |block| block[60] = b'x'),
        ];
        for (expected, change) in table {
            let mut block = header("imgbuild/lock.toml", 1771);
            change(&mut block);
            block[148..156].copy_from_slice(b"        ");
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            match parse(&block) {
                Err(Flaw::Header { field, .. }) => {
                    assert_eq!(field, expected, "the field at fault is named");
                }
                other => panic!("{expected}: a right checksum must not help: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn a_header_survives_printing(name in "[a-z0-9/._-]{1,100}", size in any::<u64>()) {
            let block = header(&name, size);
            prop_assert_eq!(parse(&block).unwrap(), (name.as_str(), size));
        }

        #[test]
        fn any_changed_byte_of_a_header_shows(at in 0_usize..512, change in 1_u8..) {
            let mut block = header("imgbuild/lock.toml", 1771);
            block[at] ^= change;
            prop_assert!(parse(&block).is_err(), "byte {} is part of the form", at);
        }

        #[test]
        fn any_block_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 512)) {
            let block: [u8; 512] = bytes.try_into().unwrap();
            let _ = parse(&block);
        }
    }
}
