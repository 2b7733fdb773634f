//! The members of an archive's tar files, and `part.json`, which announces them.
//!
//! ```text
//! {"archive":"sha256:…","entries":[["imgbuild/manifest.json",0,812],["blobs/sha256/<hex>",0,4096]],"of":"0003","part":"0002"}
//! ```
//!
//! An entry is a member's name, the offset of its bytes in the blob (0 unless it is a span), and their number.
//! Every member behind `part.json` itself is listed, in order. `of` and `part` are texts of four digits, so the
//! number of parts cannot change the size of one.

use std::fmt;
use std::io;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BLOB_LIMIT, Flaw, Manifest, PART_LIMIT, SIZE_LIMIT, digits, tar};
use crate::digest::Digest;

/// A member of an archive's tar file, by what its name says it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// `imgbuild/part.json`.
    Part,
    /// `imgbuild/manifest.json`.
    Manifest,
    /// `imgbuild/closure`.
    Closure,
    /// `imgbuild/provides`.
    Provides,
    /// `imgbuild/lock.toml`.
    Lock,
    /// `imgbuild/rules/<name>`.
    Rule(String),
    /// `imgbuild/resources/<path>`.
    Resource(String),
    /// `oci-layout`.
    OciLayout,
    /// `index.json`.
    Index,
    /// `blobs/sha256/<hex>`.
    Blob(Digest),
    /// `imgbuild/spans/<hex>.0001-of-0003`: a piece of a blob that is larger than a part.
    Span {
        /// The blob.
        digest: Digest,
        /// Which piece, counted from 1.
        number: u32,
        /// How many pieces there are.
        of: u32,
    },
}

impl Member {
    /// Reads a member's name.
    ///
    /// # Errors
    /// If the format has no member of that name.
    pub fn parse(name: &str) -> Result<Self, Flaw> {
        Self::read(name).ok_or_else(|| Flaw::MemberName {
            name: name.to_owned(),
        })
    }

    fn read(name: &str) -> Option<Self> {
        if name.len() > tar::NAME_LIMIT {
            return None;
        }
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            return Digest::from_hex(hex).ok().map(Self::Blob);
        }
        match name {
            "oci-layout" => return Some(Self::OciLayout),
            "index.json" => return Some(Self::Index),
            _ => {}
        }
        let name = name.strip_prefix("imgbuild/")?;
        if let Some(rule) = name.strip_prefix("rules/") {
            return is_segment(rule).then(|| Self::Rule(rule.to_owned()));
        }
        if let Some(path) = name.strip_prefix("resources/") {
            return path
                .split('/')
                .all(is_segment)
                .then(|| Self::Resource(path.to_owned()));
        }
        if let Some(span) = name.strip_prefix("spans/") {
            let (hex, place) = span.split_once('.')?;
            let (number, of) = place.split_once("-of-")?;
            let (number, of) = (four_digits(number)?, four_digits(of)?);
            return (1 <= number && number <= of && of >= 2).then_some(Self::Span {
                digest: Digest::from_hex(hex).ok()?,
                number,
                of,
            });
        }
        Some(match name {
            "part.json" => Self::Part,
            "manifest.json" => Self::Manifest,
            "closure" => Self::Closure,
            "provides" => Self::Provides,
            "lock.toml" => Self::Lock,
            _ => return None,
        })
    }

    /// The blob that the member is, or is a piece of.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        match self {
            Self::Blob(digest) | Self::Span { digest, .. } => Some(*digest),
            _ => None,
        }
    }

    /// The length of the name, in bytes.
    pub(super) fn name_length(&self) -> u64 {
        (match self {
            Self::Blob(_) => "blobs/sha256/".len() + 64,
            Self::Span { .. } => "imgbuild/spans/.0001-of-0003".len() + 64,
            other => other.to_string().len(),
        }) as u64
    }
}

/// Whether `text` may stand between the slashes of a member's name: a file name on any system, and no way up.
fn is_segment(text: &str) -> bool {
    let good = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'@' | b':' | b'=' | b'~')
    };
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(good)
}

fn four_digits(text: &str) -> Option<u32> {
    (text.len() == 4)
        .then(|| digits(text))?
        .and_then(|number| u32::try_from(number).ok())
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Part => "imgbuild/part.json",
            Self::Manifest => "imgbuild/manifest.json",
            Self::Closure => "imgbuild/closure",
            Self::Provides => "imgbuild/provides",
            Self::Lock => "imgbuild/lock.toml",
            Self::OciLayout => "oci-layout",
            Self::Index => "index.json",
            Self::Rule(name) => return write!(formatter, "imgbuild/rules/{name}"),
            Self::Resource(path) => return write!(formatter, "imgbuild/resources/{path}"),
            Self::Blob(digest) => return write!(formatter, "blobs/sha256/{}", digest.hex()),
            Self::Span { digest, number, of } => {
                return write!(
                    formatter,
                    "imgbuild/spans/{}.{number:04}-of-{of:04}",
                    digest.hex()
                );
            }
        })
    }
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&name).map_err(D::Error::custom)
    }
}

/// One member of a part, as `part.json` announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub member: Member,
    /// Where its bytes stand in the blob; 0 unless it is a span.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

impl Entry {
    /// A member that is whole.
    pub(super) const fn whole(member: Member, length: u64) -> Self {
        Self {
            member,
            offset: 0,
            length,
        }
    }

    /// The bytes it takes in `part.json`, without the comma.
    pub(super) fn json_length(&self) -> u64 {
        const PUNCTUATION: u64 = r#"["",,]"#.len() as u64;
        self.member.name_length()
            + decimal_length(self.offset)
            + decimal_length(self.length)
            + PUNCTUATION
    }
}

const fn decimal_length(number: u64) -> u64 {
    match number.checked_ilog10() {
        Some(power) => power as u64 + 1,
        None => 1,
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.member, self.offset, self.length).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (member, offset, length) = Deserialize::deserialize(deserializer)?;
        Ok(Self {
            member,
            offset,
            length,
        })
    }
}

/// What a part says of itself: `imgbuild/part.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartHeader {
    /// The id of the archive it belongs to.
    pub archive: Digest,
    /// Every member behind this one, in order.
    pub entries: Vec<Entry>,
    /// How many parts the archive has.
    #[serde(with = "number")]
    pub of: u32,
    /// Which of them this is, counted from 1.
    #[serde(with = "number")]
    pub part: u32,
}

mod number {
    use super::{Deserialize, Deserializer, Serializer, four_digits};
    use serde::de::Error as _;

    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde decides the signature"
    )]
    pub(super) fn serialize<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:04}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        four_digits(&text).ok_or_else(|| D::Error::custom("expected four digits"))
    }
}

impl PartHeader {
    /// The bytes of a `part.json` without entries.
    pub(super) const EMPTY_LENGTH: u64 =
        r#"{"archive":"sha256:","entries":[],"of":"0000","part":"0000"}"#.len() as u64 + 64 + 1;

    /// Reads `part.json`, strictly.
    ///
    /// # Errors
    /// If it is not the canonical form of a part that can be.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let header: Self = serde_json::from_slice(bytes).map_err(Flaw::Json)?;
        expect_canonical(bytes, &header)?;
        header.check()?;
        Ok(header)
    }

    /// The canonical form.
    #[must_use]
    pub fn print(&self) -> Vec<u8> {
        canonical(self)
    }

    /// What holds for every part, whatever its archive.
    fn check(&self) -> Result<(), Flaw> {
        let Self { of, part, .. } = self;
        if *part == 0 || part > of || *of > PART_LIMIT {
            return Err(Flaw::Inconsistent(format!("it is part {part} of {of}")));
        }
        let mut digests = Vec::new();
        for entry in &self.entries {
            if entry.length > SIZE_LIMIT || entry.offset > SIZE_LIMIT {
                return Err(Flaw::Limit {
                    what: "size of a member",
                    found: entry.length.max(entry.offset),
                    limit: SIZE_LIMIT,
                });
            }
            let first = matches!(entry.member, Member::Span { number: 1, .. });
            let later = matches!(entry.member, Member::Span { .. }) && !first;
            if later != (entry.offset > 0)
                || (entry.length == 0 && matches!(entry.member, Member::Span { .. }))
            {
                return Err(Flaw::Inconsistent(format!(
                    "{} has {} bytes at offset {}",
                    entry.member, entry.length, entry.offset
                )));
            }
            digests.extend(entry.member.digest());
        }
        if digests.len() as u64 > BLOB_LIMIT {
            return Err(Flaw::blobs(digests.len() as u64));
        }
        digests.sort_unstable();
        if let Some([digest, _]) = digests.array_windows().find(|[a, b]| a == b) {
            return Err(Flaw::Inconsistent(format!("it carries {digest} twice")));
        }
        Ok(())
    }

    /// The size of the part's file, in bytes; `None` beyond [`SIZE_LIMIT`].
    #[must_use]
    pub fn file_size(&self, own_length: u64) -> Option<u64> {
        self.entries
            .iter()
            .try_fold(tar::entry_size(own_length) + tar::END, |sum, entry| {
                sum.checked_add(tar::entry_size(entry.length))
            })
            .filter(|size| *size <= SIZE_LIMIT)
    }

    /// Holds the entries to the manifest: the members that must be there, their order and sizes, and the rules
    /// for spans.
    ///
    /// # Errors
    /// Names the first entry that is out of place.
    pub fn check_against(&self, manifest: &Manifest, manifest_length: u64) -> Result<(), Flaw> {
        let mut expected = vec![(Member::Manifest, Some(manifest_length))];
        if self.part == 1 {
            expected.extend(manifest.members());
        }
        let mut entries = self.entries.iter();
        for (member, length) in expected {
            let found = entries.next();
            if found.is_none_or(|found| {
                found.member != member || length.is_some_and(|length| found.length != length)
            }) {
                let bytes = |length: u64| format!(" with {length} bytes");
                return Err(Flaw::Unexpected {
                    expected: format!("{member}{}", length.map(bytes).unwrap_or_default()),
                    found: found.map_or_else(
                        || "nothing".to_owned(),
                        |found| format!("{}{}", found.member, bytes(found.length)),
                    ),
                });
            }
        }
        let blobs = entries.as_slice();
        for (index, entry) in blobs.iter().enumerate() {
            match entry.member {
                Member::Blob(_) => {}
                // A span opens a part; only the last one leaves room behind it.
                Member::Span { number, of, .. }
                    if index == 0
                        && self.part > 1
                        && (number == of || (blobs.len() == 1 && self.part < self.of)) => {}
                _ => {
                    return Err(Flaw::Inconsistent(format!(
                        "{} is out of place",
                        entry.member
                    )));
                }
            }
        }
        if blobs.len() as u64 > manifest.provides.count {
            return Err(Flaw::Inconsistent(format!(
                "it has {} blobs; the whole archive has {}",
                blobs.len(),
                manifest.provides.count
            )));
        }
        Ok(())
    }
}

/// The canonical JSON of `value`, whose fields are declared in the order of their names.
pub(super) fn canonical(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("texts, numbers and lists are always JSON");
    bytes.push(b'\n');
    bytes
}

/// Refuses `bytes` unless they are what [`canonical`] makes of `value`; needs no second copy.
pub(super) fn expect_canonical(bytes: &[u8], value: &impl Serialize) -> Result<(), Flaw> {
    struct Compare<'a> {
        bytes: &'a [u8],
        at: usize,
    }
    impl io::Write for Compare<'_> {
        fn write(&mut self, printed: &[u8]) -> io::Result<usize> {
            let rest = &self.bytes[self.at..];
            let same = rest.iter().zip(printed).take_while(|(a, b)| a == b).count();
            self.at += same;
            if same < printed.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(same)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut compare = Compare { bytes, at: 0 };
    let same = serde_json::to_writer(&mut compare, value).is_ok();
    if same && &bytes[compare.at..] == b"\n" {
        return Ok(());
    }
    Err(Flaw::NotCanonical {
        offset: compare.at as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest::from_bytes)
    }

    fn member() -> impl Strategy<Value = Member> {
        prop_oneof![
            Just(Member::Part),
            Just(Member::Manifest),
            Just(Member::Closure),
            Just(Member::Provides),
            Just(Member::Lock),
            Just(Member::OciLayout),
            Just(Member::Index),
            "[a-zA-Z0-9_@:+=~-][a-zA-Z0-9._-]{0,20}".prop_map(Member::Rule),
            "[a-z0-9-]{1,9}(/[a-z.-]{3,9}){0,3}".prop_filter_map("dots", |path| {
                Member::parse(&format!("imgbuild/resources/{path}")).ok()
            }),
            digest().prop_map(Member::Blob),
            (digest(), 1_u32..=9999, 0_u32..=9999).prop_map(|(digest, number, more)| {
                let of = (number + more).clamp(2, 9999);
                Member::Span { digest, number, of }
            }),
        ]
    }

    fn header() -> impl Strategy<Value = PartHeader> {
        let entry = (member(), 0..=SIZE_LIMIT, 1..=SIZE_LIMIT).prop_map(|(member, at, length)| {
            let offset = match member {
                Member::Span { number, .. } if number > 1 => at.max(1),
                _ => 0,
            };
            Entry {
                member,
                offset,
                length,
            }
        });
        (
            digest(),
            prop::collection::vec(entry, 0..9),
            1_u32..=9999,
            0_u32..9999,
        )
            .prop_map(|(archive, entries, part, more)| PartHeader {
                archive,
                entries,
                of: (part + more).min(9999),
                part,
            })
    }

    proptest! {
        #[test]
        fn a_member_survives_printing(member in member()) {
            let name = member.to_string();
            prop_assert!(name.len() <= tar::NAME_LIMIT);
            prop_assert_eq!(name.len() as u64, member.name_length());
            prop_assert_eq!(Member::parse(&name).unwrap(), member);
        }

        #[test]
        fn any_name_is_read_without_panic(name in "(blobs/sha256/|imgbuild/|spans/|resources/|rules/|\\PC|\\.|/|[0-9a-f]{64}|-of-|0001){0,8}") {
            if let Ok(member) = Member::parse(&name) {
                prop_assert_eq!(member.to_string(), name, "a member has one name");
            }
        }

        #[test]
        fn part_json_survives_printing(header in header()) {
            let text = header.print();
            let entries: u64 = header.entries.iter().map(|entry| entry.json_length() + 1).sum();
            prop_assert_eq!(
                text.len() as u64,
                PartHeader::EMPTY_LENGTH + entries.saturating_sub(1),
                "its length is what the layout counts"
            );
            prop_assert_eq!(PartHeader::parse(&text).unwrap(), header);
        }

        #[test]
        fn a_changed_part_json_is_refused_or_another(header in header(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = header.print();
            let at = at.index(text.len());
            text[at] = byte;
            if let Ok(parsed) = PartHeader::parse(&text) {
                prop_assert_eq!(parsed.print(), text, "whatever is read has one form");
            }
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_no_members() {
        let hex = "a".repeat(64);
        for name in [
            String::new(),
            "/".to_owned(),
            "/etc/passwd".to_owned(),
            "../index.json".to_owned(),
            "./index.json".to_owned(),
            "index.json/".to_owned(),
            "INDEX.JSON".to_owned(),
            "imgbuild".to_owned(),
            "imgbuild/".to_owned(),
            "imgbuild/rules/".to_owned(),
            "imgbuild/rules/a/b".to_owned(),
            "imgbuild/rules/..".to_owned(),
            "imgbuild/rules/a\0b".to_owned(),
            "imgbuild/rules/a\\b".to_owned(),
            "imgbuild/rules/a b".to_owned(),
            "imgbuild/rules/ä".to_owned(),
            format!("imgbuild/rules/{}", "a".repeat(86)),
            "imgbuild/resources/..".to_owned(),
            "imgbuild/resources/./a".to_owned(),
            "imgbuild/resources//a".to_owned(),
            "imgbuild/resources/a/".to_owned(),
            "imgbuild/resources/a/../../../x".to_owned(),
            format!("blobs/sha256/{}", "A".repeat(64)),
            format!("blobs/sha256/{hex}a"),
            format!("blobs/sha512/{hex}"),
            format!("blobs/sha256/{hex}/"),
            format!("imgbuild/spans/{hex}.0000-of-0002"),
            format!("imgbuild/spans/{hex}.0003-of-0002"),
            format!("imgbuild/spans/{hex}.0001-of-0001"),
            format!("imgbuild/spans/{hex}.1-of-2"),
            format!("imgbuild/spans/{hex}.00001-of-0002"),
        ] {
            assert!(Member::parse(&name).is_err(), "{name:?} is no member");
        }
    }
}
