//! Whole catalogs: real ones, their canonical form, and images that mean harm.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::value::tests::any_value;
use super::*;

/// The folder of public catalogs, where this machine has it.
pub(in crate::openshift) fn public(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data/fbc")
        .join(folder);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is absent", path.display());
    None
}

pub(in crate::openshift) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file() && !path.to_string_lossy().contains("template"))
        .collect();
    found.sort();
    found
}

/// The layers of an image, top first.
type Layers = Vec<Vec<u8>>;

/// Paths and bytes of a catalog's files.
type Members<'m> = &'m [(&'m str, &'m [u8])];

pub(in crate::openshift) fn catalog(
    members: &[(&str, &[u8])],
) -> Result<Catalog<Vec<u8>>, FbcError> {
    let mut builder = Builder::new(Vec::new(), Limits::default());
    for (path, bytes) in members {
        builder.member(path, &mut &bytes[..])?;
    }
    builder.finish()
}

fn digests(catalog: &Catalog<Vec<u8>>) -> BTreeMap<String, String> {
    catalog
        .each(
            |_| true,
            |fragment| {
                Ok::<_, FbcError>((fragment.package().to_owned(), fragment.digest().to_string()))
            },
        )
        .unwrap()
        .into_iter()
        .collect()
}

#[test]
fn every_public_catalog_is_read_and_its_fragments_read_back() {
    let Some(root) = public("") else { return };
    let (mut catalogs, mut packages, mut documents, mut bytes) = (0, 0, 0, 0);
    for path in files(&root) {
        let text = fs::read(&path).unwrap();
        let read = catalog(&[("c", &text)]).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        catalogs += 1;
        documents += read.documents();
        bytes += text.len();
        for package in read.packages() {
            packages += 1;
            let fragment = read.fragment(package).unwrap().unwrap();
            let canonical = fragment.to_bytes();
            let back = Fragment::parse(package, &canonical).unwrap();
            assert_eq!(back, fragment, "{path:?}: a fragment must read back");
            assert_eq!(
                back.to_bytes(),
                canonical,
                "{path:?}: the canonical form is a fixed point"
            );
            assert_eq!(
                fragment.digest(),
                crate::digest::Digest::of(&canonical),
                "the digest is that of the bytes"
            );
            for document in fragment.documents() {
                let theirs: serde_json::Value = serde_json::from_str(document.json()).unwrap();
                let ours: serde_json::Value =
                    serde_json::from_str(&document.value().to_json()).unwrap();
                assert_eq!(theirs, ours, "{path:?}: any reader must see the same");
            }
            fragment.channels().unwrap();
            fragment.bundles().unwrap();
            fragment.deprecations().unwrap();
        }
    }
    println!("{catalogs} catalogs, {packages} packages, {documents} documents, {bytes} bytes");
    assert!(
        catalogs >= 77 && documents > 1000,
        "{catalogs} catalogs, {documents} documents"
    );
}

#[test]
fn what_yaml_says_is_what_another_reader_reads() {
    let Some(root) = public("redhat-openshift-ecosystem+community-operators-prod") else {
        return;
    };
    let mut compared = 0;
    for path in files(&root) {
        let text = fs::read(&path).unwrap();
        for raw in Documents::new(text.as_slice(), "c", u64::MAX) {
            let raw = raw.unwrap();
            let ours: serde_json::Value =
                serde_json::from_str(&raw.value("c").unwrap().to_json()).unwrap();
            let theirs: serde_json::Value = serde_yaml::from_slice(&raw.bytes).unwrap();
            assert_eq!(ours, theirs, "{path:?} line {}", raw.line);
            compared += 1;
        }
    }
    println!("{compared} YAML documents compared");
}

const PACKAGE_P: &str = r#"{"schema":"olm.package","name":"p","defaultChannel":"c"}"#;
const CHANNEL_P: &str = r#"{"schema":"olm.channel","package":"p","name":"c","entries":[{"name":"p.v1"}],"x":[1.0,"<&>"]}"#;
const BUNDLE_P: &str =
    r#"{"schema":"olm.bundle","package":"p","name":"p.v1","image":"q.io/p:v1","properties":[]}"#;
const OTHER_P: &str = r#"{"schema":"my.thing","package":"p","unknown":{"b":null,"a":[]}}"#;
const GLOBAL: &str = r#"{"schema":"my.global","name":"g"}"#;
const PACKAGE_Q: &str = r#"{"schema":"olm.package","name":"q","defaultChannel":"c"}"#;

#[test]
fn a_fragment_does_not_depend_on_how_its_catalog_is_laid_out() {
    let one = [PACKAGE_P, CHANNEL_P, BUNDLE_P, OTHER_P, GLOBAL].join("\n");
    let yaml = "---\n# words\nname: p\nschema: olm.package\ndefaultChannel: c\n---\nschema: my.thing\npackage: p\nunknown: {b: ~, a: []}\n---\nschema: olm.channel\npackage: p\nname: c\nentries:\n- {name: p.v1}\nx: [1.0, <&>]\n---\nschema: olm.bundle\npackage: p\nimage: q.io/p:v1\nname: \"p.v1\"\nproperties: []\n";
    let pinned = digests(&catalog(&[("index.json", one.as_bytes())]).unwrap())["p"].clone();
    let layouts: [Members<'_>; 5] = [
        &[("p/catalog.yaml", yaml.as_bytes())],
        &[
            ("p/b/1.json", BUNDLE_P.as_bytes()),
            ("p/channel.json", CHANNEL_P.as_bytes()),
            ("zzz", OTHER_P.as_bytes()),
            ("p.json", PACKAGE_P.as_bytes()),
        ],
        &[
            ("a", one.as_bytes()),
            ("q/catalog.json", PACKAGE_Q.as_bytes()),
        ],
        &[
            ("q", PACKAGE_Q.as_bytes()),
            ("a", one.as_bytes()),
            (".indexignore", b"README*"),
            ("README.md", b"# Read\n\n- me"),
        ],
        &[
            ("a", one.as_bytes()),
            ("old/x.json", BUNDLE_P.as_bytes()),
            ("old/.indexignore", b"*.json"),
        ],
    ];
    for layout in layouts {
        let found = digests(&catalog(layout).unwrap());
        assert_eq!(found["p"], pinned, "{layout:?} says the same about p");
    }
    assert_eq!(
        pinned, "sha256:c5bcc540b46337ff36bc058abc5f9f4c4beaea70b6c3dcfa285e33ddb3bfcca0",
        "moving this moves every fragment ever pinned in a lock"
    );
    let found = catalog(&[("a", one.as_bytes())]).unwrap();
    assert_eq!(
        found.globals().unwrap().documents().len(),
        1,
        "what belongs to no package is kept apart"
    );
    assert_eq!(
        found.fragment("absent").unwrap(),
        None,
        "absence is no error"
    );
    let lines: Vec<String> = found
        .fragment("p")
        .unwrap()
        .unwrap()
        .documents()
        .iter()
        .map(|document| document.head().schema.clone())
        .collect();
    assert_eq!(
        lines,
        [PACKAGE, CHANNEL, BUNDLE, "my.thing"],
        "documents have one order"
    );
}

#[test]
fn what_is_no_catalog_is_refused_with_its_place() {
    let refused: [(Members<'_>, &str); 8] = [
        (&[("README.md", b"# Read\n")], ""),
        (
            &[("a/README.md", b"Read me")],
            "a/README.md:1: expected an object",
        ),
        (
            &[("x", b"{\"schema\":\"s\"}\n\n{\"schema\":\"s\"")],
            "x:3: the object does not end",
        ),
        (
            &[("x", b"{\"schema\":\"s\",\"package\":\"../../etc\"}")],
            "\"../../etc\" cannot name a package",
        ),
        (
            &[("x", b"{\"schema\":\"olm.package\",\"name\":\"a\\u0000\"}")],
            "cannot name a package",
        ),
        (&[("x", b"{\"schema\":\"s\",\"package\":7}")], "x:1: "),
        (&[("x", b"PK\x03\x04\xff\xfe")], "x:1: "),
        (&[("x", b"[]")], "x:1: "),
    ];
    for (members, part) in refused {
        match catalog(members) {
            Ok(_) => assert_eq!(part, "", "{members:?} must be refused"),
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !part.is_empty() && error.contains(part),
                    "{error:?} must say {part:?}"
                );
            }
        }
    }
    let twice = catalog(&[(
        "x",
        b"{\"schema\":\"s\",\"package\":\"p\",\"k\":{\"a\":1,\"a\":2}}",
    )])
    .unwrap();
    let error = twice.fragment("p").unwrap_err().to_string();
    assert_eq!(error, "x:1: key \"a\" has two values in one object");
    let foreign = Fragment::parse("p", PACKAGE_Q.as_bytes())
        .unwrap_err()
        .to_string();
    assert_eq!(
        foreign,
        "olm.package \"q\" belongs to package \"q\", not to \"p\""
    );
    let mut builder = Builder::new(
        Vec::new(),
        Limits {
            catalog: 1 << 20,
            ..Limits::default()
        },
    );
    let endless = builder.member("x", &mut io::repeat(b' ')).unwrap_err();
    assert!(
        endless.to_string().contains("over the limit of 1048576"),
        "{endless}"
    );
}

#[test]
fn a_spool_on_disk_is_like_one_in_memory() {
    let all = [PACKAGE_P, CHANNEL_P, BUNDLE_P, OTHER_P, GLOBAL, PACKAGE_Q].join("\n");
    let mut builder = Builder::new(tempfile::tempfile().unwrap(), Limits::default());
    builder.member("index.json", &mut all.as_bytes()).unwrap();
    let on_disk = builder.finish().unwrap();
    let in_memory = catalog(&[("index.json", all.as_bytes())]).unwrap();
    for package in ["p", "q"] {
        assert_eq!(
            on_disk.fragment(package).unwrap(),
            in_memory.fragment(package).unwrap(),
            "where {package} waited must not matter"
        );
    }
    assert_eq!(on_disk.documents(), 6, "nothing is lost");
}

#[test]
fn only_the_packages_that_are_asked_for_are_decoded() {
    let read = catalog(&[
        ("p", PACKAGE_P.as_bytes()),
        (
            "q",
            b"{\"schema\":\"olm.package\",\"name\":\"q\",\"twice\":1,\"twice\":2}",
        ),
    ])
    .unwrap();
    let decoded = AtomicUsize::new(0);
    let names = read
        .each(
            |name| name == "p",
            |fragment| {
                decoded.fetch_add(1, Ordering::Relaxed);
                Ok::<_, FbcError>(fragment.package().to_owned())
            },
        )
        .unwrap();
    assert_eq!(
        (names, decoded.into_inner()),
        (vec!["p".to_owned()], 1),
        "q stays closed, damaged as it is"
    );
    assert!(
        read.fragment("q").is_err(),
        "the damage is found when q is asked for"
    );
}

proptest! {
    #[test]
    fn any_document_survives_its_fragment(mut values in prop::collection::vec(any_value(), 0..5)) {
        for (index, value) in values.iter_mut().enumerate() {
            let mut entries = match value { Value::Map(entries) => std::mem::take(entries), _ => BTreeMap::new() };
            entries.insert("schema".into(), Value::Text("s".into()));
            entries.insert("package".into(), Value::Text("p".into()));
            entries.insert("name".into(), Value::Text(index.to_string()));
            *value = Value::Map(entries);
        }
        let documents: Vec<_> = values.iter().map(|value| Document::new(value).unwrap()).collect();
        let fragment = Fragment::new("p", documents.iter().rev().cloned().collect()).unwrap();
        prop_assert_eq!(&Fragment::new("p", documents).unwrap(), &fragment, "the order given must not matter");
        let back = Fragment::parse("p", &fragment.to_bytes()).unwrap();
        prop_assert_eq!(&back, &fragment);
        let pretty: String = values.iter().map(|value| {
            serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&value.to_json()).unwrap()).unwrap()
        }).collect();
        let read = catalog(&[("x", pretty.as_bytes())]).unwrap();
        let again = read.fragment("p").unwrap();
        prop_assert_eq!(again.map_or(0, |fragment| fragment.documents().len()), values.len());
    }
}

/// One entry of a layer.
enum Made<'m> {
    File(&'m str, &'m str),
    Folder(&'m str),
    Link(&'m str, tar::EntryType),
    Sized(&'m str, u64),
}
use Made::{File, Folder, Link, Sized};

fn layer(entries: &[Made<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        let (path, kind, bytes, size) = match entry {
            File(path, text) => (*path, tar::EntryType::Regular, *text, text.len() as u64),
            Folder(path) => (*path, tar::EntryType::Directory, "", 0),
            Link(path, kind) => (*path, *kind, "", 0),
            Sized(path, size) => (*path, tar::EntryType::Regular, "", *size),
        };
        header.set_entry_type(kind);
        header.set_size(size);
        // Written past the library's own checks: hostile archives are.
        let name = path.as_bytes();
        if name.len() <= 100 {
            header.as_mut_bytes()[..name.len()].copy_from_slice(name);
            header.set_cksum();
            archive.append(&header, bytes.as_bytes()).unwrap();
        } else {
            archive
                .append_data(&mut header, path, bytes.as_bytes())
                .unwrap();
        }
    }
    archive.into_inner().unwrap()
}

fn read(configs: &str, layers: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let catalog = read_layers(
        configs,
        layers
            .iter()
            .map(|layer| Ok(Box::new(layer.as_slice()) as Box<dyn Read>)),
        Vec::new(),
        Limits {
            unpacked: 1 << 20,
            entries: 100,
            ..Limits::default()
        },
    )
    .map_err(|error| match io::Error::other(error).into_inner() {
        Some(error) => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
        None => String::new(),
    })?;
    Ok(catalog.packages().map(str::to_owned).collect())
}

#[test]
fn upper_layers_replace_and_delete_what_is_below() {
    let p = PACKAGE_P;
    let q = PACKAGE_Q;
    let base = layer(&[
        Folder("configs/"),
        File("configs/p/catalog.json", p),
        File("./configs/q.json", q),
        File("etc/passwd", "root"),
        Link("bin", tar::EntryType::Symlink),
    ]);
    let long = format!("configs/{}/catalog.json", "n".repeat(200));
    let cases: [(&str, Layers, &[&str]); 11] = [
        ("one layer", vec![base.clone()], &["p", "q"]),
        (
            "a file deleted",
            vec![layer(&[File("configs/.wh.q.json", "")]), base.clone()],
            &["p"],
        ),
        (
            "a folder deleted",
            vec![layer(&[File("configs/.wh.p", "")]), base.clone()],
            &["q"],
        ),
        (
            "everything replaced, as filtered catalogs do",
            vec![
                layer(&[File("configs/index.json", p)]),
                layer(&[File(".wh.configs", "")]),
                base.clone(),
            ],
            &["p"],
        ),
        (
            "an opaque folder hides what is below, not what is beside",
            vec![
                layer(&[
                    Folder("configs"),
                    File("configs/.wh..wh..opq", ""),
                    File("configs/x", q),
                ]),
                base.clone(),
            ],
            &["q"],
        ),
        (
            "a whiteout does not touch its own layer",
            vec![
                layer(&[File("configs/.wh.q.json", ""), File("configs/q.json", q)]),
                base.clone(),
            ],
            &["p", "q"],
        ),
        (
            "a file over a folder",
            vec![layer(&[File("configs/p", q)]), base.clone()],
            &["q"],
        ),
        (
            "a folder over a file",
            vec![
                layer(&[Folder("configs/q.json"), File("configs/q.json/c", p)]),
                base.clone(),
            ],
            &["p"],
        ),
        (
            "the upper file counts",
            vec![layer(&[File("configs/p/catalog.json", q)]), base.clone()],
            &["q"],
        ),
        ("long names", vec![layer(&[File(&long, p)])], &["p"]),
        (
            "what was deleted does no harm",
            vec![
                layer(&[File("configs/.wh.bad", "")]),
                layer(&[
                    Link("configs/bad", tar::EntryType::Symlink),
                    File("configs/a", p),
                ]),
            ],
            &["p"],
        ),
    ];
    for (what, layers, expected) in cases {
        assert_eq!(
            read("configs", &layers).as_deref(),
            Ok(&expected
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()[..]),
            "{what}"
        );
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&base).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(base.as_slice(), 1).unwrap();
    for packed in [gzip.clone(), zstd.clone()] {
        assert_eq!(
            read("configs", &[packed]).map(|found| found.len()),
            Ok(2),
            "compression must not matter"
        );
    }
    for cut in [gzip.len() - 4, gzip.len() / 2] {
        let error = read("configs", &[gzip[..cut].to_vec()]).unwrap_err();
        assert!(
            error.contains("layer 1 from the top cannot be read"),
            "{error}"
        );
    }
}

#[test]
fn hostile_layers_are_refused_with_place_and_reason() {
    let p = PACKAGE_P;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            layer(&[Link("configs/x", tar::EntryType::Symlink)]),
            "entry \"configs/x\": links are not followed",
        ),
        (
            layer(&[Link("configs/x", tar::EntryType::Link)]),
            "links are not followed",
        ),
        (
            layer(&[Link("configs/x", tar::EntryType::Fifo)]),
            "neither a file nor a folder",
        ),
        (
            layer(&[Link("configs/x", tar::EntryType::Char)]),
            "neither a file nor a folder",
        ),
        (
            layer(&[Link("configs", tar::EntryType::Symlink)]),
            "is not a folder",
        ),
        (layer(&[File("configs", p)]), "is not a folder"),
        (
            layer(&[File("configs/../../etc/passwd", p)]),
            "the path leaves the image",
        ),
        (layer(&[File("a/..", p)]), "the path leaves the image"),
        (
            layer(&[File("configs/a", p), File("./configs//a", p)]),
            "the layer has it twice",
        ),
        (
            layer(&[Link("a", tar::EntryType::GNUSparse)]),
            "sparse files are not read",
        ),
        (
            layer(&[File("other", p)]),
            "no file of a catalog below \"/configs\"",
        ),
        (
            layer(&[Sized("configs/a", 1 << 40)]),
            "entry \"configs/a\": it is said to have 1099511627776 bytes",
        ),
        (vec![7; 4096], "layer 1 from the top cannot be read"),
        (b"BZh91AY".to_vec(), "compressed with bzip2"),
        (
            layer(&(0..101).map(|_| Folder("a")).collect::<Vec<_>>()),
            "the number of entries",
        ),
        (
            layer(&[File("configs/a", "words")]),
            "a:1: expected an object",
        ),
        (
            zstd::encode_all(io::repeat(0).take(64 << 20), 1).unwrap(),
            "unpacked size of all layers",
        ),
    ];
    for (bytes, part) in cases {
        let error = read("configs", &[bytes]).unwrap_err();
        assert!(error.contains(part), "{error:?} must say {part:?}");
    }
    let mut headers = tar::Builder::new(Vec::new());
    headers
        .append_pax_extensions([("size", &b"5"[..])])
        .unwrap();
    let mut bytes = headers.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(layer(&[File("configs/a", p)]));
    let error = read("configs", &[bytes]).unwrap_err();
    assert!(error.contains("two sizes"), "{error}");
}

#[test]
fn the_labels_say_what_kind_of_catalog_it_is() {
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    for (value, path) in [
        ("/configs", "configs"),
        ("/", ""),
        ("//a/./b/", "a/b"),
        ("configs", ""),
        ("/a/../b", ""),
    ] {
        let found = configs_path(&labels(&[(CONFIGS_LABEL, value), (DATABASE_LABEL, "/x")]));
        match found {
            Ok(found) => assert_eq!(found, path, "{value}"),
            Err(error) => assert!(
                path.is_empty() && error.to_string().contains(value),
                "{value}: {error}"
            ),
        }
    }
    let sqlite = configs_path(&labels(&[(DATABASE_LABEL, "/database/index.db")])).unwrap_err();
    assert_eq!(
        sqlite.to_string(),
        "the catalog is an sqlite database (/database/index.db); only file-based catalogs can be read"
    );
    assert!(sqlite.hint().is_some(), "there is a way out");
    assert!(
        matches!(configs_path(&labels(&[])), Err(FbcError::NoCatalog)),
        "an image without labels is no catalog"
    );
}
