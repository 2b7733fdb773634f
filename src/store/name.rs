//! Free text as a file name, and back.
//!
//! Letters, digits, `.`, `_` and `-` stand for themselves; every other byte, and a leading `.`, is `%` and two
//! uppercase hexadecimal digits. So any text is one file in its directory, and a person can read it there.

use super::StoreError;

/// Longest file name that is made. Linux allows 255; some file systems below a mount allow less.
const LONGEST: usize = 200;

/// The file name of `name`; `what` says what it names, for the error.
pub(super) fn encode(name: &str, what: &'static str) -> Result<String, StoreError> {
    let refuse = |problem| StoreError::Name {
        name: name.to_owned(),
        what,
        problem,
    };
    if name.is_empty() {
        return Err(refuse("it is empty"));
    }
    let text = escape(name);
    if text.len() > LONGEST {
        return Err(refuse("it is too long for a file name"));
    }
    Ok(text)
}

fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (position, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b'-')
            || (byte == b'.' && position > 0);
        if plain {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push_str(&crate::digest::hex(&[byte]).to_ascii_uppercase());
        }
    }
    text
}

/// The name that `file` is the file name of; `None` if no name has it.
pub(super) fn decode(file: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(file.len());
    let mut rest = file.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    (!name.is_empty() && escape(&name) == file).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_survives_being_a_file_name(name in ".{1,20}") {
            let file = encode(&name, "test").unwrap();
            prop_assert!(!file.contains('/') && !file.starts_with('.'), "{file:?} must be one visible file");
            prop_assert_eq!(decode(&file), Some(name), "decode must undo encode");
        }

        #[test]
        fn a_file_has_a_name_only_if_the_name_has_the_file(file in "[%a-zA-F0-9./]{0,12}") {
            if let Some(name) = decode(&file) {
                prop_assert_eq!(encode(&name, "test").unwrap(), file, "one name, one file");
            }
        }
    }

    #[test]
    fn a_plain_name_is_its_own_file_name() {
        for (name, file) in [
            ("prod-7", "prod-7"),
            ("manifest-000007.json", "manifest-000007.json"),
            (
                "mirror.example.com:5000/ocp",
                "mirror.example.com%3A5000%2Focp",
            ),
            ("..", "%2E."),
        ] {
            assert_eq!(encode(name, "test").unwrap(), file, "the file of {name:?}");
        }
        for name in ["", &"x".repeat(201)] {
            let error = encode(name, "root").unwrap_err();
            assert!(
                error.to_string().contains("cannot name a root"),
                "{error} must say what it was for"
            );
        }
    }
}
