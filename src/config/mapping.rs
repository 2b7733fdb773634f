//! Lists of images with their destinations, in place of a config: what a dry run wrote and somebody has edited, the
//! file of `oc image mirror -f`, and the file of `skopeo sync --src yaml`.
//!
//! ```text
//! # SRC=DST, any number in a line, or SRC DST [DST...]; the schemes docker:// and file:// may stand or not
//! docker://registry.example.test/ubi9/ubi:9.4=docker://mirror.example.test:5000/ocp/ubi9/ubi:9.4
//! registry.example.test/team/app@sha256:… mirror.example.test:5000/team/app:stable
//! ```
//!
//! ```yaml
//! registry.example.test:
//!   images:
//!     team/app: ["1.0", "sha256:…"]
//! ```
//!
//! Each becomes a row of `additionalImages` whose target is the path and the tag of its destination. A lock knows no
//! registry to push to, so all destinations of a file must be in one; which one is noted. A destination without a tag
//! gets that of its source; where that has none either, a tag that is made of the digest. Files of skopeo name no
//! destinations, so their images keep their paths.
//!
//! Names that stand for whatever tags there are (a bare repository, `*`, `images-by-tag-regex`, `images-by-semver`) are
//! refused: a list says what is in it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::diagnostic::{At, ConfigErrors, Document, Position};
use super::imageset::{AdditionalImage, ApiVersion, ImageSet, Mirror};
use super::node::{Kind, Node, shorten};
use super::reader::Reader;
use super::{utf8, yaml};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::reference::{ImageName, Reference, Repository, Tag};

/// Reads a list of images from the bytes of a file; `file` is its name in messages.
///
/// # Errors
/// Everything that is wrong with it, each with its line and column.
pub fn parse_mapping(bytes: &[u8], file: &str) -> Result<ImageSet, ConfigErrors> {
    let document = Arc::new(Document::new(file, utf8(bytes, file)?));
    let (images, notes) = if is_yaml(document.text()) {
        let (root, diagnostics) = yaml::read(&document);
        let mut reader = Reader::new(&document, diagnostics, &[], false);
        let images = root.map(|root| skopeo(&mut reader, &root));
        reader.finish(images)?
    } else {
        let mut reader = Reader::new(&document, Vec::new(), &[], false);
        let images = lines(&mut reader, &document);
        reader.finish(Some(images))?
    };
    Ok(ImageSet {
        api_version: ApiVersion::V2Alpha1,
        archive_size: None,
        storage_config: None,
        mirror: Mirror {
            additional_images: images,
            ..Mirror::default()
        },
        notes,
        document,
    })
}

/// Whether a text is YAML rather than lines of a mapping: those have no colon before a space or the end.
fn is_yaml(text: &str) -> bool {
    text.lines()
        .map(|line| {
            line.split_once('#')
                .map_or(line, |(before, _)| before)
                .trim()
        })
        .find(|line| !line.is_empty())
        .is_some_and(|line| {
            line.ends_with(':') || line.contains(": ") || line.starts_with(['{', '"', '\'', '-'])
        })
}

/// Where a word of a line came from.
struct Word<'t> {
    text: &'t str,
    position: Position,
}

/// The blank-separated words of a line, without its comment.
fn words(document: &Document, range: Range<usize>) -> Vec<Word<'_>> {
    let line = &document.text()[range.clone()];
    let line = line.split_once('#').map_or(line, |(before, _)| before);
    let mut words = Vec::new();
    let mut start = None;
    for (index, character) in line.char_indices().chain([(line.len(), ' ')]) {
        match (character.is_whitespace(), start) {
            (false, None) => start = Some(index),
            (true, Some(from)) => {
                words.push(Word {
                    text: &line[from..index],
                    position: document.position(&(range.start + from..range.start + index)),
                });
                start = None;
            }
            _ => {}
        }
    }
    words
}

/// A part of a word.
fn part<'t>(word: &Word<'t>, range: Range<usize>) -> Word<'t> {
    let before = word.text[..range.start].chars().count();
    let text = &word.text[range];
    Word {
        text,
        position: Position {
            column: word.position.column + before,
            length: text.chars().count().max(1),
            ..word.position
        },
    }
}

/// What has been seen of the destinations of a file.
#[derive(Default)]
struct Destinations {
    /// The first registry, and where it stands.
    registry: Option<(String, Position)>,
    /// `path:tag`, and where it stands.
    taken: BTreeMap<String, Position>,
}

fn lines(reader: &mut Reader<'_>, document: &Document) -> Vec<At<AdditionalImage>> {
    let mut images = Vec::new();
    let mut seen = Destinations::default();
    let mut start = 0;
    for line in document.text().split_inclusive('\n') {
        let words = words(document, start..start + line.len());
        start += line.len();
        let has_pairs = words.iter().any(|word| word.text.contains('='));
        if has_pairs {
            for word in &words {
                let Some((source, _)) = word.text.split_once('=') else {
                    let hint = "a line is SRC=DST, any number of them, or SRC DST [DST...]";
                    reader.error(
                        word.position,
                        format!("{:?} is no SRC=DST", shorten(word.text)),
                        Some(hint.to_owned()),
                    );
                    continue;
                };
                let source_word = part(word, 0..source.len());
                let destination = part(word, source.len() + 1..word.text.len());
                images.extend(row(reader, &source_word, &destination, &mut seen));
            }
        } else if let [source, destinations @ ..] = words.as_slice() {
            if destinations.is_empty() {
                reader.error(
                    source.position,
                    format!("{:?} has no destination", shorten(source.text)),
                    Some("a line is SRC=DST or SRC DST [DST...]".to_owned()),
                );
            }
            for destination in destinations {
                images.extend(row(reader, source, destination, &mut seen));
            }
        }
    }
    if let Some((registry, position)) = seen.registry {
        reader.note(
            position,
            format!("destinations are kept without their registry, {registry}"),
            Some(format!(
                "`imgbuild push docker://{registry}` puts them there"
            )),
        );
    }
    images
}

/// One image with its destination.
fn row(
    reader: &mut Reader<'_>,
    source: &Word<'_>,
    destination: &Word<'_>,
    seen: &mut Destinations,
) -> Option<At<AdditionalImage>> {
    let name = source_name(reader, source);
    let place = target(reader, destination);
    let (name, place) = (name?, place?);
    if let Some(registry) = &place.registry {
        match &seen.registry {
            None => seen.registry = Some((registry.clone(), destination.position)),
            Some((first, at)) if first != registry => {
                let message = format!(
                    "this goes to {registry}, but line {} goes to {first}: one lock fills one registry",
                    at.line
                );
                let hint = "make one file of each registry's lines".to_owned();
                reader.error(destination.position, message, Some(hint));
                return None;
            }
            Some(_) => {}
        }
    }
    let (source_tag, source_digest) = match &name {
        ImageName::Registry(reference) => (reference.tag.clone(), reference.digest),
        ImageName::Layout(layout) => (layout.tag.clone(), layout.digest),
    };
    let tag = place.tag.or_else(|| source_tag.clone());
    if let (ImageName::Registry(reference), Some(registry)) = (&name, &place.registry)
        && reference.repository.registry() == registry
        && reference.repository.path() == place.path
        && (tag == source_tag || tag.is_none())
    {
        reader.error(
            destination.position,
            format!("{name} would go onto itself"),
            None,
        );
        return None;
    }
    let spot = match (&tag, source_digest) {
        (Some(tag), _) => format!("{}:{tag}", place.path),
        (None, Some(digest)) => format!("{}@{digest}", place.path),
        (None, None) => place.path.clone(),
    };
    if let Some(first) = seen.taken.get(&spot) {
        let message = format!("{spot} is already the destination of line {}", first.line);
        reader.error(destination.position, message, None);
        return None;
    }
    seen.taken.insert(spot, destination.position);
    Some(At::new(
        AdditionalImage {
            name: At::new(name, source.position),
            target_repo: Some(At::new(place.path, destination.position)),
            target_tag: tag.map(|tag| At::new(tag, destination.position)),
            platforms: Vec::new(),
        },
        source.position,
    ))
}

fn source_name(reader: &mut Reader<'_>, word: &Word<'_>) -> Option<ImageName> {
    if let Some((scheme @ ("file" | "s3"), _)) = word.text.split_once("://") {
        reader.error(
            word.position,
            format!("a source is an image in a registry or an OCI layout; {scheme}:// is neither"),
            Some("`imgbuild takeover` reads what `oc image mirror` wrote to disk".to_owned()),
        );
        return None;
    }
    if word.text.contains('*') {
        reader.error(
            word.position,
            "a list names every image; patterns of tags are not taken",
            Some(tags_hint(word.text.split(':').next().unwrap_or(word.text))),
        );
        return None;
    }
    match word.text.parse::<ImageName>() {
        Ok(name) => Some(name),
        Err(error) => {
            let hint = error.hint();
            reader.error(word.position, error.to_string(), hint);
            None
        }
    }
}

fn tags_hint(repository: &str) -> String {
    format!("`skopeo list-tags docker://{repository}` lists the tags there are")
}

/// A destination, taken apart.
struct Target {
    registry: Option<String>,
    path: String,
    tag: Option<Tag>,
}

fn target(reader: &mut Reader<'_>, word: &Word<'_>) -> Option<Target> {
    let mut failed = |message: String, hint: Option<String>| {
        reader.error(word.position, message, hint);
        None
    };
    let (scheme, rest) = word.text.split_once("://").unwrap_or(("docker", word.text));
    let is_file = scheme == "file";
    if !is_file && scheme != "docker" {
        return failed(
            format!("a destination is in a registry; {scheme}:// is none"),
            Some("`imgbuild export` writes what is carried on media".to_owned()),
        );
    }
    if rest.contains('@') {
        return failed(
            format!("the destination {:?} has a digest", shorten(rest)),
            Some(
                "drop the digest; instances of an index need no line, they come with it".to_owned(),
            ),
        );
    }
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let tag = match tag.map(str::parse::<Tag>).transpose() {
        Ok(tag) => tag,
        Err(error) => return failed(error.to_string(), error.hint()),
    };
    // A registry of its own, so that the path is checked as any other.
    let full = if is_file {
        format!("file.invalid/{}", name.trim_start_matches('/'))
    } else {
        name.to_owned()
    };
    match full.parse::<Repository>() {
        Ok(repository) => Some(Target {
            registry: (!is_file).then(|| repository.registry().to_owned()),
            path: repository.path().to_owned(),
            tag,
        }),
        Err(error) => failed(
            error.to_string(),
            Some("a destination is HOST[:PORT]/PATH[:TAG]".to_owned()),
        ),
    }
}

/// The file of `skopeo sync`: registries with their images.
fn skopeo(reader: &mut Reader<'_>, root: &Node) -> Vec<At<AdditionalImage>> {
    let mut images = Vec::new();
    let Kind::Mapping(registries) = &root.kind else {
        reader.error(
            root.position,
            format!(
                "a file of skopeo sync maps registries to images, found {}",
                root.found()
            ),
            None,
        );
        return images;
    };
    for registry in registries {
        if registry.key == "apiVersion" || registry.key == "kind" {
            reader.error(
                registry.key_position,
                "this is a config, not a list of images",
                Some("name it with -c".to_owned()),
            );
            return images;
        }
        let Kind::Mapping(parts) = &registry.value.kind else {
            reader.error(
                registry.value.position,
                format!(
                    "{} has a mapping of images, found {}",
                    registry.key,
                    registry.value.found()
                ),
                None,
            );
            continue;
        };
        for entry in parts {
            match entry.key.as_str() {
                "images" => names(reader, &registry.key, &entry.value, &mut images),
                "images-by-tag-regex" | "images-by-semver" => reader.error(
                    entry.key_position,
                    format!("a list names every image; {} is not taken", entry.key),
                    Some("list the tags under `images`; `skopeo list-tags` knows them".to_owned()),
                ),
                "tls-verify" => {
                    let is_on = matches!(&entry.value.kind, Kind::Scalar { text, .. } if text == "true");
                    if !is_on {
                        let hint = format!("say --insecure {}", registry.key);
                        reader.note(entry.key_position, "tls-verify has no effect here", Some(hint));
                    }
                }
                "credentials" => reader.note(
                    entry.key_position,
                    "credentials have no effect here",
                    Some(format!("log in with `podman login {}`, or name a file with --authfile", registry.key)),
                ),
                "cert-dir" => reader.note(
                    entry.key_position,
                    "cert-dir has no effect here",
                    Some("name certificates with --certs".to_owned()),
                ),
                other => reader.error(
                    entry.key_position,
                    format!("unknown key {:?} of {}", shorten(other), registry.key),
                    Some("there are images, images-by-tag-regex, images-by-semver, credentials, tls-verify and cert-dir".to_owned()),
                ),
            }
        }
    }
    images
}

/// What stands under `images`: repositories with their tags and digests.
fn names(
    reader: &mut Reader<'_>,
    registry: &str,
    node: &Node,
    images: &mut Vec<At<AdditionalImage>>,
) {
    let Kind::Mapping(repositories) = &node.kind else {
        reader.error(
            node.position,
            format!("images maps repositories to tags, found {}", node.found()),
            None,
        );
        return;
    };
    for entry in repositories {
        // As skopeo does: what has no namespace there is in `library`.
        let path = if registry == "docker.io" && !entry.key.contains('/') {
            format!("library/{}", entry.key)
        } else {
            entry.key.clone()
        };
        let repository = match Repository::new(registry, &path) {
            Ok(repository) => repository,
            Err(error) => {
                reader.error(entry.key_position, error.to_string(), error.hint());
                continue;
            }
        };
        let items = match &entry.value.kind {
            Kind::List(items) if !items.is_empty() => items.as_slice(),
            Kind::List(_) | Kind::Null => {
                reader.error(
                    entry.key_position,
                    format!("a list names every image; all tags of {repository} are not taken"),
                    Some(tags_hint(&repository.to_string())),
                );
                continue;
            }
            _ => {
                let message = format!(
                    "{repository} has a list of tags, found {}",
                    entry.value.found()
                );
                reader.error(entry.value.position, message, None);
                continue;
            }
        };
        for item in items {
            let Kind::Scalar { text, .. } = &item.kind else {
                reader.error(
                    item.position,
                    format!("a tag or a digest, found {}", item.found()),
                    None,
                );
                continue;
            };
            let reference: Result<Reference, (String, Option<String>)> = if text.contains(':') {
                text.parse::<Digest>()
                    .map(|digest| repository.clone().with_digest(digest))
                    .map_err(|error| (error.to_string(), None))
            } else {
                text.parse::<Tag>()
                    .map(|tag| repository.clone().with_tag(tag))
                    .map_err(|error| (error.to_string(), error.hint()))
            };
            match reference {
                Ok(reference) => images.push(At::new(
                    AdditionalImage {
                        name: At::new(ImageName::Registry(reference), item.position),
                        target_repo: None,
                        target_tag: None,
                        platforms: Vec::new(),
                    },
                    item.position,
                )),
                Err((message, hint)) => reader.error(item.position, message, hint),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        let set = parse_mapping(text.as_bytes(), "m").map_err(|errors| errors.to_string())?;
        let row = |image: &At<AdditionalImage>| {
            let target = image
                .target_repo
                .as_ref()
                .map_or("-", |path| path.value.as_str());
            let tag = image
                .target_tag
                .as_ref()
                .map_or("-", |tag| tag.value.as_str());
            format!("{} {target} {tag}", image.name.value)
        };
        Ok(set.mirror.additional_images.iter().map(row).collect())
    }

    fn hex() -> String {
        "a".repeat(64)
    }

    #[test]
    fn every_form_of_a_line_is_read() {
        let digest = format!("sha256:{}", hex());
        let table = [
            (
                "docker://r.io/a/b:1=docker://m.io:5000/p/a/b:1\n".to_owned(),
                vec!["r.io/a/b:1 p/a/b 1".to_owned()],
            ),
            (
                "# all of it\n\n r.io/a/b:1  m.io/x m.io/y:2 # two places\r\n".to_owned(),
                vec!["r.io/a/b:1 x 1".to_owned(), "r.io/a/b:1 y 2".to_owned()],
            ),
            (
                format!("r.io/a@{digest}=m.io/a r.io/b@{digest}=file://ubi8/ubi:latest"),
                vec![
                    format!("r.io/a@{digest} a -"),
                    format!("r.io/b@{digest} ubi8/ubi latest"),
                ],
            ),
            (
                format!("r.io/a:1@{digest}=localhost:55000/a"),
                vec![format!("r.io/a:1@{digest} a 1")],
            ),
            (
                "oci:///layouts/app:v1=m.io/app".to_owned(),
                vec!["oci:///layouts/app:v1 app v1".to_owned()],
            ),
            (String::new(), Vec::new()),
        ];
        for (text, wanted) in table {
            assert_eq!(shown(&text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn a_file_of_skopeo_is_read() {
        let digest = format!("sha256:{}", hex());
        let text = format!(
            "registry.example.test:\n  images:\n    team/app:\n      - \"1.0\"\n      - 2.10\n      - {digest}\n  tls-verify: false\ndocker.io:\n  images:\n    alpine: [\"3\"]\n"
        );
        assert_eq!(
            shown(&text),
            Ok(vec![
                "registry.example.test/team/app:1.0 - -".to_owned(),
                "registry.example.test/team/app:2.10 - -".to_owned(),
                format!("registry.example.test/team/app@{digest} - -"),
                "docker.io/library/alpine:3 - -".to_owned(),
            ]),
            "tags are texts, whatever they look like"
        );
        let set = parse_mapping(text.as_bytes(), "m").unwrap();
        assert!(
            set.notes.iter().any(|note| note.line == 7),
            "what has no effect is said: {:?}",
            set.notes
        );
    }

    #[test]
    fn a_bad_line_is_named_with_line_and_column() {
        let digest = format!("sha256:{}", hex());
        for (text, at, wanted) in [
            ("r.io/a:1\n".to_owned(), "m:1:1", "has no destination"),
            (
                "\nr.io/a:1=m.io/a x\n".to_owned(),
                "m:2:17",
                "is no SRC=DST",
            ),
            (
                "r.io/a=m.io/a:1\n".to_owned(),
                "m:1:1",
                "neither a tag nor a digest",
            ),
            ("r.io/a:*=m.io/a\n".to_owned(), "m:1:1", "patterns of tags"),
            ("ubi:1=m.io/a\n".to_owned(), "m:1:1", "names no registry"),
            (
                "r.io/a:1=m.io/A:1\n".to_owned(),
                "m:1:10",
                "malformed repository path",
            ),
            ("r.io/a:1=m.io/a:-1\n".to_owned(), "m:1:10", "tag"),
            (
                format!("r.io/a:1=m.io/a@{digest}\n"),
                "m:1:10",
                "has a digest",
            ),
            (
                "r.io/a:1=s3://h/r/b/p\n".to_owned(),
                "m:1:10",
                "s3:// is none",
            ),
            (
                "file://a/b:1=m.io/a\n".to_owned(),
                "m:1:1",
                "file:// is neither",
            ),
            (
                "r.io/a:1=m.io/a\nr.io/b:1=n.io/b\n".to_owned(),
                "m:2:10",
                "line 1 goes to m.io",
            ),
            (
                "r.io/a:1=m.io/a\n r.io/b:1 m.io/a:1\n".to_owned(),
                "m:2:11",
                "already the destination of line 1",
            ),
            ("r.io/a:1=r.io/a\n".to_owned(), "m:1:10", "onto itself"),
            (
                "r.io:\n  images:\n    a: []\n".to_owned(),
                "m:3:5",
                "all tags of r.io/a",
            ),
            (
                "r.io:\n  images-by-semver:\n    a: \">= 1\"\n".to_owned(),
                "m:2:3",
                "images-by-semver is not taken",
            ),
            (
                "r.io:\n  image: {}\n".to_owned(),
                "m:2:3",
                "unknown key \"image\"",
            ),
            (
                "r.io:\n  images:\n    a: [\"-x\"]\n".to_owned(),
                "m:3:9",
                "tag",
            ),
            (
                "kind: ImageSetConfiguration\n".to_owned(),
                "m:1:1",
                "this is a config",
            ),
        ] {
            let error = shown(&text).unwrap_err();
            assert!(
                error.starts_with(&format!("{at}: ")) && error.contains(wanted),
                "{text:?} must fail at {at} with {wanted:?}: {error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[a-z:/=#@ \n*.-]{0,60}") {
            let _ = parse_mapping(text.as_bytes(), "m");
        }
    }
}
