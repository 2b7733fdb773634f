//! `.indexignore`: which files of a catalog are none, in the syntax of gitignore(5).

use std::collections::BTreeMap;
use std::io::{self, Read};

use globset::{GlobBuilder, GlobMatcher};

/// Largest file of patterns that is read.
const LARGEST: u64 = 1 << 20;

/// The patterns of one folder, in their order.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    glob: GlobMatcher,
    /// `!`: what it matches is taken after all.
    keep: bool,
    /// It ends in `/`.
    only_folders: bool,
}

impl Ignore {
    pub(super) fn read(reader: &mut dyn Read) -> io::Result<Self> {
        let mut text = String::new();
        if reader.take(LARGEST + 1).read_to_string(&mut text)? as u64 > LARGEST {
            return Err(io::Error::other(format!(
                "more than {LARGEST} bytes of patterns"
            )));
        }
        let patterns = text
            .lines()
            .filter_map(|line| Pattern::parse(line).transpose())
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)?;
        Ok(Self { patterns })
    }

    /// What the last pattern that matches says; `None` where none does.
    fn decides(&self, path: &str, folder: bool) -> Option<bool> {
        self.patterns
            .iter()
            .rev()
            .find(|pattern| (folder || !pattern.only_folders) && pattern.glob.is_match(path))
            .map(|pattern| !pattern.keep)
    }
}

impl Pattern {
    fn parse(line: &str) -> Result<Option<Self>, globset::Error> {
        let line = line.trim_end_matches(['\r', ' ']);
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let (keep, line) = match line.strip_prefix('!') {
            Some(line) => (true, line),
            None => (false, line),
        };
        let (only_folders, line) = match line.strip_suffix('/') {
            Some(line) => (true, line),
            None => (false, line),
        };
        // A pattern with a slash inside is for this folder alone, another one for every folder below.
        let glob = match line.strip_prefix('/') {
            Some(anchored) => anchored.to_owned(),
            None if line.contains('/') => line.to_owned(),
            None => format!("**/{line}"),
        };
        let glob = GlobBuilder::new(&glob)
            .literal_separator(true)
            .backslash_escape(true)
            .build()?
            .compile_matcher();
        Ok(Some(Self {
            glob,
            keep,
            only_folders,
        }))
    }
}

/// Whether the file at `path` is left out by the patterns of the folders above it.
pub(super) fn ignored(ignores: &BTreeMap<String, Ignore>, path: &str) -> bool {
    // A file in a folder that is left out cannot be taken after all, so folders come first.
    let ends = path
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([path.len()]);
    for end in ends {
        let (part, folder) = (&path[..end], end < path.len());
        // The nearest folder with an opinion decides.
        let mut base = part;
        while let Some((above, relative)) = match base.rfind('/') {
            Some(at) => Some((&part[..at], &part[at + 1..])),
            None if base.is_empty() => None,
            None => Some(("", part)),
        } {
            if let Some(out) = ignores
                .get(above)
                .and_then(|ignore| ignore.decides(relative, folder))
            {
                if out {
                    return true;
                }
                break;
            }
            base = above;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_git_makes_of_them() {
        let ignores: BTreeMap<String, Ignore> = [
            (
                "",
                "# words\nREADME*\n/top.txt\ndocs/\na/*.md\n**/deep/**/x\n\\#odd\n",
            ),
            ("sub", "*.txt\n!keep.txt\nREADME.yaml/\n!README.json\n"),
        ]
        .into_iter()
        .map(|(folder, text)| {
            (
                folder.to_owned(),
                Ignore::read(&mut text.as_bytes()).unwrap(),
            )
        })
        .collect();
        for (path, out) in [
            ("README.md", true),
            ("a/README", true),
            ("top.txt", true),
            ("a/top.txt", false),
            ("docs/catalog.yaml", true),
            ("a/docs/catalog.yaml", true),
            ("docs", false),
            ("a/b.md", true),
            ("a/b/c.md", false),
            ("deep/x", true),
            ("a/deep/b/c/x", true),
            ("#odd", true),
            ("sub/a.txt", true),
            ("sub/keep.txt", false),
            ("sub/x/b.txt", true),
            ("sub/README.json", false),
            ("sub/README.yaml", true),
            ("p/catalog.yaml", false),
        ] {
            assert_eq!(ignored(&ignores, path), out, "{path}");
        }
    }
}
