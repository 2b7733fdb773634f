//! Receipts: what a site has adopted, told back to where archives are made.
//!
//! One line, short enough for a QR code or a telephone:
//!
//! ```text
//! imgbuild-receipt/1 prod site-a 6 sha256:<archive id> sha256:<lock> <signature>
//! ```
//!
//! Stream, site, sequence, archive, lock; then an ed25519 signature (Base64) over all that stands before the last
//! space, or `-`. A site is named by `[A-Za-z0-9._:-]`. Archives for a site that has confirmed sequence 6 need only
//! what sequence 6 does not have, whatever was lost since.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::archive::Stream;
use crate::archive::chain::Chain;
use crate::archive::key::{PublicKey, SecretKey};
use crate::digest::Digest;
use crate::hint::Hint;

const FORMAT: &str = "imgbuild-receipt/1";

/// Longest name of a site: that of a host with a port.
const SITE_LIMIT: usize = 260;

/// Why a receipt is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It has another form.
    #[error(
        "{text:?} is no receipt: expected \"{FORMAT} STREAM SITE SEQUENCE ARCHIVE LOCK SIGNATURE\""
    )]
    Form {
        /// What was read.
        text: String,
    },
    /// A site cannot be called so.
    #[error("{text:?} cannot name a site: expected letters, digits, '.', '_', ':' and '-'")]
    Site {
        /// What was read.
        text: String,
    },
    /// It confirms what this stream never sent.
    #[error("site {site} says that it adopted {found} as sequence {sequence}; {expected}")]
    Other {
        /// The site.
        site: String,
        /// The sequence.
        sequence: u64,
        /// What it says.
        found: Digest,
        /// What the chain says.
        expected: String,
    },
    /// None of the keys that are trusted signed it.
    #[error("the receipt of site {site} is not signed by a key that is trusted here")]
    Unsigned {
        /// The site.
        site: String,
    },
}

impl Hint for ReceiptError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Other { .. } => Some("the site took an archive that was not made from this chain; find out which, or send --full".to_owned()),
            Self::Unsigned { .. } => Some("have the site sign it: `imgbuild import --key FILE`".to_owned()),
            Self::Form { .. } | Self::Site { .. } => None,
        }
    }
}

/// The name of a site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteName(String);

impl FromStr for SiteName {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if text.is_empty() || text.len() > SITE_LIMIT || !text.bytes().all(good) {
            return Err(ReceiptError::Site {
                text: text.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a site says it has adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The stream.
    pub stream: Stream,
    /// The site.
    pub site: SiteName,
    /// The sequence.
    pub sequence: u64,
    /// The id of that archive.
    pub archive_id: Digest,
    /// Its lock.
    pub lock: Digest,
    signature: Option<[u8; 64]>,
}

impl Receipt {
    /// A receipt that nobody has signed.
    #[must_use]
    pub const fn new(
        stream: Stream,
        site: SiteName,
        sequence: u64,
        archive_id: Digest,
        lock: Digest,
    ) -> Self {
        Self {
            stream,
            site,
            sequence,
            archive_id,
            lock,
            signature: None,
        }
    }

    fn statement(&self) -> String {
        format!(
            "{FORMAT} {} {} {} {} {}",
            self.stream, self.site, self.sequence, self.archive_id, self.lock
        )
    }

    /// The same receipt, signed.
    #[must_use]
    pub fn signed(mut self, key: &SecretKey) -> Self {
        self.signature = Some(key.sign(self.statement().as_bytes()));
        self
    }

    /// Whether it carries a signature, good or not.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    /// Passes if one of `keys` signed it.
    ///
    /// # Errors
    /// If none did.
    pub fn check_signature(&self, keys: &[PublicKey]) -> Result<(), ReceiptError> {
        let statement = self.statement();
        let good = self.signature.is_some_and(|signature| {
            keys.iter()
                .any(|key| key.verifies(statement.as_bytes(), &signature))
        });
        if good {
            return Ok(());
        }
        Err(ReceiptError::Unsigned {
            site: self.site.to_string(),
        })
    }

    /// Passes if it confirms an archive of `chain`.
    ///
    /// # Errors
    /// If the chain has another archive at that place, or none.
    pub fn check_chain(&self, chain: &Chain) -> Result<(), ReceiptError> {
        let line = chain.line(self.sequence);
        let known = line.map(|line| (line.archive_id, line.lock));
        if known == Some((self.archive_id, self.lock)) {
            return Ok(());
        }
        let expected = line.map_or_else(
            || "the chain has no such sequence".to_owned(),
            |line| format!("the chain has {} with lock {}", line.archive_id, line.lock),
        );
        Err(ReceiptError::Other {
            site: self.site.to_string(),
            sequence: self.sequence,
            found: self.archive_id,
            expected,
        })
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.statement())?;
        match &self.signature {
            Some(signature) => write!(formatter, " {}", STANDARD.encode(signature)),
            None => formatter.write_str(" -"),
        }
    }
}

impl FromStr for Receipt {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        let malformed = || ReceiptError::Form {
            text: text.chars().take(300).collect(),
        };
        let words: Vec<&str> = text.split(' ').collect();
        let [FORMAT, stream, site, sequence, archive_id, lock, signature] = words[..] else {
            return Err(malformed());
        };
        let signature = match signature {
            "-" => None,
            text => {
                let bytes = STANDARD.decode(text).map_err(|_| malformed())?;
                Some(bytes.try_into().map_err(|_| malformed())?)
            }
        };
        let receipt = Self {
            stream: stream.parse().map_err(|_| malformed())?,
            site: site.parse()?,
            sequence: sequence.parse().map_err(|_| malformed())?,
            archive_id: archive_id.parse().map_err(|_| malformed())?,
            lock: lock.parse().map_err(|_| malformed())?,
            signature,
        };
        if receipt.to_string() != text {
            return Err(malformed());
        }
        Ok(receipt)
    }
}

/// Reads a file of receipts: one per line; empty lines and lines that begin with `#` are passed over.
///
/// # Errors
/// If a line is something else.
pub fn parse_all(text: &str) -> Result<Vec<Receipt>, ReceiptError> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::parse)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn receipt(site: &str, sequence: u64) -> Receipt {
        Receipt::new(
            "prod".parse().unwrap(),
            site.parse().unwrap(),
            sequence,
            Digest::of(b"archive"),
            Digest::of(b"lock"),
        )
    }

    proptest! {
        #[test]
        fn a_receipt_survives_printing(site in "[A-Za-z0-9._:-]{1,40}", sequence in 1_u64..999_999, signed in any::<bool>()) {
            let mut receipt = receipt(&site, sequence);
            if signed {
                receipt = receipt.signed(&SecretKey::generate().unwrap());
            }
            prop_assert_eq!(receipt.to_string().parse::<Receipt>(), Ok(receipt));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,200}") {
            let _ = parse_all(&text);
        }
    }

    #[test]
    fn a_signature_covers_every_word() {
        let key = SecretKey::generate().unwrap();
        let good = receipt("site-a", 6).signed(&key);
        let keys = [key.public()];
        good.check_signature(&keys).unwrap();
        for (from, to) in [("prod", "prep"), ("site-a", "site-b"), (" 6 ", " 7 ")] {
            let text = good.to_string().replace(from, to);
            let changed: Receipt = text.parse().unwrap();
            assert!(changed.check_signature(&keys).is_err(), "{text}");
        }
        assert!(
            receipt("site-a", 6).check_signature(&keys).is_err(),
            "nobody signed it"
        );
        assert!(good.check_signature(&[]).is_err(), "nobody is trusted");
    }

    #[test]
    fn other_texts_are_no_receipts() {
        let good = receipt("site-a", 6).to_string();
        for bad in [
            String::new(),
            good.replace("/1", "/2"),
            good.replace(" 6 ", " +6 "),
            good.replace(" 6 ", " 06 "),
            good.replace("site-a", "site a"),
            good.replace("site-a", ""),
            good.replace(" -", ""),
            good.replace(" -", " AAAA"),
            format!("{good} "),
        ] {
            assert!(bad.parse::<Receipt>().is_err(), "{bad:?}");
        }
        let file = format!("# brought by hand\n\n{good}\n");
        assert_eq!(
            parse_all(&file).unwrap().len(),
            1,
            "a file may have remarks"
        );
    }
}
