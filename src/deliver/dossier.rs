//! Approval papers for one archive: what it carries, what changed, and how to check it, for people who must sign.
//!
//! One content in three forms: Markdown for a merge request, JSON for programs, and one HTML page that needs nothing
//! else, readable on light and dark screens and on paper. Nothing in them depends on when, where or by whom they were
//! made, so two people who make them separately can compare them byte for byte.

use std::fmt::Write as _;

use serde_json::json;

use crate::archive::Manifest;
use crate::archive::chain::{Line, LineBase};
use crate::digest::Digest;
use crate::plan::diff::Diff;

/// One image of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DossierImage {
    /// Which block of the lock asked for it.
    pub owner: String,
    /// `repository@digest`.
    pub image: String,
    /// The bytes of all its blobs, if its manifests are at hand.
    pub bytes: Option<u64>,
    /// Those of them that this archive carries.
    pub carried: Option<u64>,
}

/// A part, as its checksum file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DossierPart {
    /// The file's name.
    pub name: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Its checksum, if a checksum file is at hand.
    pub sha256: Option<Digest>,
}

/// Everything that the papers say.
pub struct Dossier<'a> {
    /// The line of the chain.
    pub line: &'a Line,
    /// The archive's manifest.
    pub manifest: &'a Manifest,
    /// What changed since the archive before it, if there was one whose lock is at hand.
    pub changes: Option<&'a Diff>,
    /// Every image of the lock.
    pub images: Vec<DossierImage>,
    /// The parts, if they are at hand.
    pub parts: Vec<DossierPart>,
}

/// Bytes for people, the same on every machine.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut whole = bytes;
    let mut rest = 0;
    while whole >= 1000 && unit + 1 < UNITS.len() {
        rest = whole % 1000 / 100;
        whole /= 1000;
        unit += 1;
    }
    if unit == 0 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{rest} {}", UNITS[unit])
    }
}

fn some_size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unknown".to_owned(), size)
}

impl Dossier<'_> {
    fn title(&self) -> String {
        format!(
            "{} sequence {}",
            self.manifest.stream, self.manifest.sequence
        )
    }

    fn bases(&self) -> String {
        if self.line.bases.is_empty() {
            return "nothing: it is complete in itself".to_owned();
        }
        let names: Vec<String> = self
            .line
            .bases
            .iter()
            .map(|base| match base {
                LineBase::Sequence(sequence) => format!("sequence {sequence}"),
                LineBase::Lock(lock) => format!("lock {lock}"),
            })
            .collect();
        names.join(" or ")
    }

    /// The facts, as a table of two columns.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let (manifest, line) = (self.manifest, self.line);
        let parent = manifest
            .parent
            .map_or_else(|| "none: it is the first".to_owned(), |id| id.to_string());
        vec![
            ("Archive", line.archive_id.to_string()),
            ("Archive before it", parent),
            ("Lock", line.lock.to_string()),
            ("Applies on top of", self.bases()),
            (
                "Carries",
                format!(
                    "{} blobs, {} ({} bytes)",
                    line.provides,
                    size(line.bytes),
                    line.bytes
                ),
            ),
            (
                "Comes to, with what is there",
                format!(
                    "{} blobs, {}",
                    manifest.closure.count,
                    size(manifest.closure.bytes)
                ),
            ),
            ("Largest part", size(line.part_size)),
        ]
    }

    /// How to check it, by hand and by program.
    fn checks(&self) -> Vec<String> {
        let name = format!("{}_seq{:06}", self.manifest.stream, self.manifest.sequence);
        vec![
            format!("sha256sum -c {name}.sha256"),
            format!(
                "tar -xOf {name}_0001.tar imgbuild/manifest.json | sha256sum    # {}",
                self.line.archive_id.hex()
            ),
            format!(
                "tar -xOf {name}_0001.tar imgbuild/lock.toml | sha256sum    # {}",
                self.line.lock.hex()
            ),
            "imgbuild verify . --chain FILE".to_owned(),
        ]
    }

    /// The papers as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("# Archive {}\n\n| | |\n|---|---|\n", self.title());
        for (name, value) in self.facts() {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        if !self.parts.is_empty() {
            text.push_str("\n## Parts\n\n| file | size | SHA-256 |\n|---|---:|---|\n");
            for part in &self.parts {
                let sha256 = part.sha256.map_or_else(String::new, |sha256| sha256.hex());
                let _ = writeln!(text, "| {} | {} | `{sha256}` |", part.name, size(part.size));
            }
        }
        text.push_str("\n## Changes\n\n");
        match self.changes {
            Some(changes) => text.push_str(changes.markdown().trim_end()),
            None => text.push_str("Everything is new, or the lock before it is not at hand."),
        }
        text.push_str("\n\n## Images\n\n| asked for by | image | size | carried here |\n|---|---|---:|---:|\n");
        for image in &self.images {
            let _ = writeln!(
                text,
                "| {} | `{}` | {} | {} |",
                image.owner.replace('|', "\\|"),
                image.image,
                some_size(image.bytes),
                some_size(image.carried)
            );
        }
        text.push_str("\n## How to check it\n\n```\n");
        for line in self.checks() {
            let _ = writeln!(text, "{line}");
        }
        text.push_str("```\n");
        text
    }

    /// The papers as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let changes: serde_json::Value = self
            .changes
            .and_then(|changes| serde_json::from_str(&changes.json()).ok())
            .unwrap_or_default();
        let images: Vec<_> = self
            .images
            .iter()
            .map(|image| {
                json!({ "block": image.owner, "image": image.image, "bytes": image.bytes, "carried": image.carried })
            })
            .collect();
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|part| json!({ "name": part.name, "size": part.size, "sha256": part.sha256 }))
            .collect();
        let bases: Vec<String> = self
            .line
            .bases
            .iter()
            .map(|base| match base {
                LineBase::Sequence(sequence) => sequence.to_string(),
                LineBase::Lock(lock) => lock.to_string(),
            })
            .collect();
        let value = json!({
            "version": 1,
            "stream": self.manifest.stream.as_str(),
            "sequence": self.manifest.sequence,
            "archive": self.line.archive_id,
            "parent": self.manifest.parent,
            "lock": self.line.lock,
            "bases": bases,
            "provides": { "count": self.line.provides, "bytes": self.line.bytes },
            "closure": { "count": self.manifest.closure.count, "bytes": self.manifest.closure.bytes },
            "partSize": self.line.part_size,
            "parts": parts,
            "changes": changes,
            "images": images,
        });
        format!("{value:#}\n")
    }

    /// The papers as one HTML page.
    #[must_use]
    pub fn html(&self) -> String {
        let title = escape(&self.title());
        let mut text = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>Archive {title}</title>\n<style>{STYLE}</style>\n<h1>Archive {title}</h1>\n<table>\n"
        );
        for (name, value) in self.facts() {
            let _ = writeln!(text, "<tr><th>{name}<td>{}", escape(&value));
        }
        text.push_str("</table>\n");
        if !self.parts.is_empty() {
            text.push_str(
                "<h2>Parts</h2>\n<table class=\"list\">\n<tr><th>file<th>size<th>SHA-256\n",
            );
            for part in &self.parts {
                let sha256 = part.sha256.map_or_else(String::new, |sha256| sha256.hex());
                let _ = writeln!(
                    text,
                    "<tr><td>{}<td class=\"n\" data-is=\"size\">{}<td><code>{sha256}</code>",
                    escape(&part.name),
                    size(part.size)
                );
            }
            text.push_str("</table>\n");
        }
        text.push_str("<h2>Changes</h2>\n<pre>");
        match self.changes {
            Some(changes) => text.push_str(&escape(changes.text().trim_end())),
            None => text.push_str("Everything is new, or the lock before it is not at hand."),
        }
        text.push_str("</pre>\n<h2>Images</h2>\n<table class=\"list\">\n<tr><th>asked for by<th>image<th>size<th>carried here\n");
        for image in &self.images {
            let _ = writeln!(
                text,
                "<tr><td>{}<td><code>{}</code><td class=\"n\" data-is=\"size\">{}<td class=\"n\" data-is=\"carried here\">{}",
                escape(&image.owner),
                escape(&image.image),
                some_size(image.bytes),
                some_size(image.carried)
            );
        }
        text.push_str("</table>\n<h2>How to check it</h2>\n<pre>");
        for line in self.checks() {
            let _ = writeln!(text, "{}", escape(&line));
        }
        text.push_str("</pre>\n<h2>Decision</h2>\n<table class=\"sign\">\n<tr><th>Released by<td><tr><th>Date<td><tr><th>Signature<td>\n</table>\n</html>\n");
        text
    }
}

const STYLE: &str = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{border:1px solid #8886;padding:.3rem .6rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}td.n{text-align:right;white-space:nowrap}pre,code{font-family:ui-monospace,monospace;font-size:.85em}pre{border:1px solid #8886;padding:.6rem;overflow-x:auto}.sign td{height:2.5rem;width:70%}@media screen and (max-width:44rem){pre{white-space:pre-wrap;overflow-wrap:anywhere}.list tr{display:block;border:1px solid #8886;margin:.5rem 0;padding:.3rem .6rem}.list th{display:none}.list tr:first-child{display:none}.list td{display:block;border:0;padding:.1rem 0;text-align:left}.list td[data-is]::before{content:attr(data-is) \": \"}}@media print{body{font-size:10pt;margin:0;max-width:none}pre{white-space:pre-wrap}tr{break-inside:avoid}h2{break-after:avoid}}";

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_down_to_one_decimal() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (1_999_999, "1.9 MB"),
            (4_700_000_000, "4.7 GB"),
            (u64::MAX, "18446744.0 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn nothing_in_a_name_becomes_markup() {
        assert_eq!(
            escape("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }
}
