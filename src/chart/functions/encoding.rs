//! Base 64, base 32 and checksums.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;

use super::{lists, str_at};
use crate::chart::template::evaluate::{Evaluated, Machine};
use crate::chart::value::{Value, text_to_bytes};

/// Encodes with padding.
pub(in crate::chart) fn base64_encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes what has padding; line feeds are ignored, as Go does.
pub(in crate::chart) fn base64_decode(text: &str) -> Result<Vec<u8>, String> {
    let compact: String = text
        .chars()
        .filter(|character| !matches!(character, '\n' | '\r'))
        .collect();
    STANDARD
        .decode(compact.as_bytes())
        .map_err(|error| match error {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol { offset: at, .. } => {
                format!("illegal base64 data at input byte {at}")
            }
            // Go names the start of the group that is not whole.
            _ => format!(
                "illegal base64 data at input byte {}",
                compact.len() / 4 * 4
            ),
        })
}

pub(super) fn b64enc(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.text(base64_encode(&text_to_bytes(str_at(arguments, 0))))
}

pub(super) fn b64dec(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.charge(str_at(arguments, 0).len())?;
    Ok(match base64_decode(str_at(arguments, 0)) {
        Ok(bytes) => lists::text_of_bytes(&bytes),
        Err(message) => Value::text(message),
    })
}

const BASE_32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

pub(super) fn b32enc(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let bytes = text_to_bytes(str_at(arguments, 0));
    let mut encoded = String::new();
    for group in bytes.chunks(5) {
        let mut bits = 0_u64;
        for index in 0..5 {
            bits = bits << 8 | u64::from(group.get(index).copied().unwrap_or(0));
        }
        let used = (group.len() * 8).div_ceil(5);
        for index in 0..8 {
            if index < used {
                let five = usize::try_from(bits >> (35 - 5 * index) & 31).unwrap_or(0);
                encoded.push(char::from(BASE_32[five]));
            } else {
                encoded.push('=');
            }
        }
    }
    machine.text(encoded)
}

pub(super) fn b32dec(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let text = str_at(arguments, 0);
    machine.charge(text.len())?;
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for (at, byte) in text.trim_end_matches('=').bytes().enumerate() {
        let Some(five) = BASE_32.iter().position(|letter| *letter == byte) else {
            return machine.text(format!("illegal base32 data at input byte {at}"));
        };
        bits = (bits << 5 | u32::try_from(five).unwrap_or(0)) & 0xFFFF;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xFF).unwrap_or(0));
        }
    }
    Ok(lists::text_of_bytes(&bytes))
}

fn hexadecimal(bytes: &[u8]) -> Value {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    Value::text(text)
}

pub(super) fn sha256sum(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.charge(str_at(arguments, 0).len())?;
    let bytes = text_to_bytes(str_at(arguments, 0));
    Ok(hexadecimal(&sha2::Sha256::digest(&bytes)))
}

pub(super) fn sha512sum(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.charge(str_at(arguments, 0).len())?;
    let bytes = text_to_bytes(str_at(arguments, 0));
    Ok(hexadecimal(&sha2::Sha512::digest(&bytes)))
}

pub(super) fn sha1sum(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.charge(str_at(arguments, 0).len())?;
    Ok(hexadecimal(&sha1(&text_to_bytes(str_at(arguments, 0)))))
}

/// SHA-1, FIPS 180-4, whose letters these are. Only what charts print with `sha1sum` depends on it; nothing is trusted because of it.
#[allow(clippy::many_single_char_names)]
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for index in 16..80 {
            words[index] =
                (words[index - 3] ^ words[index - 8] ^ words[index - 14] ^ words[index - 16])
                    .rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (index, word) in words.iter().enumerate() {
            let (mix, constant) = match index {
                0..20 => ((b & c) | (!b & d), 0x5A827999),
                20..40 => (b ^ c ^ d, 0x6ED9EBA1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8F1BBCDC),
                _ => (b ^ c ^ d, 0xCA62C1D6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mix)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

pub(super) fn adler32sum(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    machine.charge(str_at(arguments, 0).len())?;
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in text_to_bytes(str_at(arguments, 0)).iter() {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    Ok(Value::text((b << 16 | a).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha1_agrees_with_its_standard() {
        let Value::Text(text) = hexadecimal(&sha1(b"abc")) else {
            panic!("a checksum is a text");
        };
        assert_eq!(
            &*text, "a9993e364706816aba3e25717850c26c9cd0d89d",
            "the example of FIPS 180"
        );
    }
}
