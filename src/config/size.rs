//! Sizes as people write them: `4.7GB`, `8GiB`, `650 MB`, `1048576`.

/// Reads a size in bytes.
///
/// `kB MB GB TB PB` count in thousands, `KiB MiB GiB TiB PiB` in 1024s, in any case; a bare number and `B` are
/// bytes. A fraction is rounded down to a whole byte. `K`, `M`, `G` alone mean different things to different
/// tools and are refused.
///
/// # Errors
/// If it is no size, is zero or does not fit in 63 bits.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let form = || SizeError::Form {
        text: text.to_owned(),
    };
    let text_trimmed = text.trim();
    let end = text_trimmed
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text_trimmed.len());
    let (number, unit) = text_trimmed.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let bytes: u128 = match unit.as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "pib" => 1 << 50,
        "k" | "m" | "g" | "t" | "p" => {
            return Err(SizeError::Ambiguous {
                text: text.to_owned(),
                unit: unit.to_ascii_uppercase(),
            });
        }
        _ => return Err(form()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return Err(form());
    }
    let value = |text: &str| {
        text.bytes()
            .fold(0, |sum, byte| sum * 10 + u128::from(byte - b'0'))
    };
    let scale = fraction.bytes().fold(1, |scale: u128, _| scale * 10);
    let size = value(whole) * bytes + value(fraction) * bytes / scale;
    match i64::try_from(size) {
        Ok(size) if size > 0 => Ok(size.unsigned_abs()),
        _ => Err(SizeError::Range {
            text: text.to_owned(),
        }),
    }
}

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It is not a number with a unit.
    #[error("{text:?} is not a size: expected a number and a unit, for example 4.7GB or 8GiB")]
    Form {
        /// What was read.
        text: String,
    },
    /// The unit has two meanings.
    #[error(
        "{text:?} does not say which {unit} it means: expected {unit}B (thousands) or {unit}iB (1024s)"
    )]
    Ambiguous {
        /// What was read.
        text: String,
        /// Its unit.
        unit: String,
    },
    /// It is zero, or more than any disk holds.
    #[error("the size {text:?} is out of range: expected 1 byte to 8 EiB")]
    Range {
        /// What was read.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_to_the_byte() {
        for (text, bytes) in [
            ("4.7GB", 4_700_000_000),
            ("8GiB", 8 << 30),
            ("650 MB", 650_000_000),
            ("1048576", 1 << 20),
            ("1 b", 1),
            ("0.5kib", 512),
            ("1.9999B", 1),
            ("3tb", 3_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "the bytes of {text:?}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for (text, part) in [
            ("", "not a size"),
            ("GB", "not a size"),
            ("1.GB", "not a size"),
            (".5GB", "not a size"),
            ("1.2.3GB", "not a size"),
            ("-1GB", "not a size"),
            ("1e9", "not a size"),
            ("4G", "expected GB (thousands) or GiB (1024s)"),
            ("0GB", "out of range"),
            ("0.1B", "out of range"),
            ("9000PiB", "out of range"),
            ("99999999999999999999GB", "not a size"),
        ] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(
                error.contains(part),
                "{text:?} must be refused with {part:?}, not {error:?}"
            );
        }
    }
}
