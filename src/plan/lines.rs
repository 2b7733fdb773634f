//! A lock as plain lines, for `git diff`: what `imgbuild textconv` prints.
//!
//! ```text
//! image registry.example.test/ubi:9
//!   want platforms = ["linux/amd64"]
//!   image registry.example.test/ubi@sha256:… 1485 bytes, for linux/amd64
//! ```
//!
//! A block opens at the margin, so git shows it above each hunk. Nothing of a lock is left out and no digest is
//! shortened: locks that differ have lines that differ.

use std::fmt::Write as _;

use super::lock::{Block, ChartSource, Lock, Pin, want_order};
use super::text::write_value;

/// Writes a lock as lines. There is no way back.
#[must_use]
pub fn lines(lock: &Lock) -> String {
    let mut out = format!("version {}", lock.version);
    if let Some(revision) = lock.revision {
        put(&mut out, format_args!(" revision {revision}"));
    }
    out.push('\n');
    for (name, digest) in &lock.rules {
        put(&mut out, format_args!("rule {name} {digest}\n"));
    }
    for block in lock.blocks() {
        let key = block.key();
        put(&mut out, format_args!("{key}\n"));
        for comment in lock.comments.get(&key).into_iter().flatten() {
            put(&mut out, format_args!("  #:{comment}\n"));
        }
        if let Some(want) = block.want() {
            for (name, value) in want_order(want.settings()) {
                let mut text = String::new();
                write_value(value, &mut text);
                put(&mut out, format_args!("  want {name} = {text}\n"));
            }
        }
        match block {
            Block::Release(release) => {
                for risk in &release.risks {
                    put(
                        &mut out,
                        format_args!("  accepted risk {} {}\n", risk.name, risk.url),
                    );
                }
                for payload in &release.payloads {
                    let key = release.payload_key(payload);
                    for comment in lock.comments.get(&key).into_iter().flatten() {
                        put(
                            &mut out,
                            format_args!("  #:{comment}  ({})\n", payload.version),
                        );
                    }
                }
            }
            Block::Package(_, package) => {
                put(&mut out, format_args!("  fragment {}\n", package.fbc));
                if let Some(from) = package.from {
                    put(&mut out, format_args!("  from catalog {from}\n"));
                }
                for bundle in &package.bundles {
                    put(
                        &mut out,
                        format_args!(
                            "  bundle {} in {}\n",
                            bundle.name,
                            bundle.channels.join(", ")
                        ),
                    );
                }
            }
            Block::Chart(chart) => {
                if let ChartSource::File { url: Some(url), .. } = &chart.source {
                    put(&mut out, format_args!("  url {url}\n"));
                }
            }
            Block::Skip(skip) => put(&mut out, format_args!("  reason {:?}\n", skip.reason)),
            _ => {}
        }
        if let Some(file) = block.file() {
            put(
                &mut out,
                format_args!("  file {} {} bytes\n", file.digest, file.size),
            );
        }
        for (role, pin) in block.pins() {
            put(&mut out, format_args!("  {role} "));
            write_pin(pin, &mut out);
        }
    }
    out
}

fn write_pin(pin: &Pin, out: &mut String) {
    put(out, format_args!("{} {} bytes", pin.image(), pin.size));
    if let Some(tag) = &pin.tag {
        put(out, format_args!(", tag {tag}"));
    }
    if !pin.platforms.is_empty() {
        let names: Vec<String> = pin.platforms.iter().map(ToString::to_string).collect();
        put(out, format_args!(", for {}", names.join(" ")));
    }
    out.push('\n');
    for signature in &pin.signatures {
        put(
            out,
            format_args!(
                "    signed by {} {} bytes ({})\n",
                signature.digest, signature.size, signature.from
            ),
        );
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::any::any_lock;
    use crate::plan::text::parse;
    use proptest::prelude::*;

    const SAMPLE: &str = include_str!("../../tests/data/lock/sample.lock.toml");

    #[test]
    fn lines_say_everything_that_the_file_says() {
        let lines = lines(&parse(SAMPLE, "sample").unwrap());
        for word in SAMPLE.split(['"', ' ', '\n']) {
            if word.contains("sha256:") || word.ends_with("-operator") {
                assert!(lines.contains(word), "{word} must be in the lines");
            }
        }
        assert!(
            lines.contains(
                "\nimage registry.redhat.io/ubi9/ubi:9.4 as base/ubi9:9.4\n  want platforms = "
            ),
            "a block opens at the margin:\n{lines}"
        );
    }

    proptest! {
        #[test]
        fn locks_that_differ_have_lines_that_differ(one in any_lock(), other in any_lock()) {
            let (one, other) = (one.canonical(), other.canonical());
            prop_assert_eq!(lines(&one) == lines(&other), one == other, "no difference may be hidden, none invented");
        }
    }
}
