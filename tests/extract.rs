//! Tools out of a release: from a mirror, from the store, for every system, pinned and with checksums.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use imgbuild::digest::Digest;

use crate::site::Disconnected;
use crate::site::content::{Content, noise};
use crate::site::release::{ART, MODIFIED, Made, Recipe, World, channels};

/// A program with a place for each value, and a second place for the version that must stay.
fn program(seed: u64, markers: &[(&str, usize)]) -> Vec<u8> {
    let mut bytes = noise(seed, 70_000);
    for (word, room) in markers {
        bytes.push(0);
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
        bytes.extend(std::iter::repeat_n(b'X', *room));
        bytes.push(0);
        bytes.extend(noise(seed + 1, 1_100_000));
    }
    bytes
}

const IMAGE: (&str, usize) = ("_RELEASE_IMAGE_LOCATION_", 300);
const VERSION: (&str, usize) = ("_RELEASE_VERSION_LOCATION_", 64);
const ARCHITECTURE: (&str, usize) = ("_RELEASE_ARCHITECTURE_LOCATION_", 64);

/// What a program is when `value` is written over the first place of `word`.
fn pinned(mut program: Vec<u8>, word: &str, value: &str) -> Vec<u8> {
    let marker = [b"\0".as_slice(), word.as_bytes(), b"\0XX"].concat();
    let at = program
        .windows(marker.len())
        .position(|window| window == marker)
        .unwrap();
    program[at..at + value.len()].copy_from_slice(value.as_bytes());
    program[at + value.len()] = 0;
    program
}

/// A release with tools in it, and the programs as they were built.
fn world(circle: bool) -> (World, Made, BTreeMap<&'static str, Vec<u8>>) {
    let world = World::new();
    let programs = BTreeMap::from([
        ("oc", program(1, &[VERSION, VERSION])),
        ("oc.exe", program(2, &[VERSION])),
        ("oc.rhel9", program(3, &[VERSION])),
        ("install", program(4, &[VERSION, IMAGE, ARCHITECTURE])),
        ("ccoctl", program(5, &[])),
    ]);
    let image = |layers: &[serde_json::Value]| world.image(ART, "amd64", layers).digest;
    let base = world.layer(&[("usr/bin/oc", b"an older one".to_vec())], false);
    // The client is a link to the variant for the newer system, and its folder is one as well.
    let mut tar = tar::Builder::new(Vec::new());
    let mut link = |path: &str, target: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_mtime(MODIFIED);
        tar.append_link(&mut header, path, target).unwrap();
    };
    link("usr/share/openshift/linux_arm64", "../openshift/aarch64");
    link("usr/share/openshift/aarch64/oc", "oc.rhel9");
    if circle {
        link("usr/share/openshift/mac/oc", "oc");
    }
    let links = world.layer_of(&tar.into_inner().unwrap(), false);
    let artifacts = [
        world.layer(
            &[
                (
                    "usr/share/openshift/windows/oc.exe",
                    programs["oc.exe"].clone(),
                ),
                (
                    "usr/share/openshift/aarch64/oc.rhel9",
                    programs["oc.rhel9"].clone(),
                ),
            ],
            true,
        ),
        links,
    ];
    let components = BTreeMap::from([
        (
            "cli".to_owned(),
            image(&[
                base.clone(),
                world.layer(&[("usr/bin/oc", programs["oc"].clone())], true),
            ]),
        ),
        ("cli-artifacts".to_owned(), image(&artifacts)),
        (
            "installer".to_owned(),
            image(&[world.layer(
                &[("usr/bin/openshift-install", programs["install"].clone())],
                false,
            )]),
        ),
        (
            "cloud-credential-operator".to_owned(),
            image(&[world.layer(&[("./usr/bin/ccoctl", programs["ccoctl"].clone())], false)]),
        ),
        ("etcd".to_owned(), image(&[base])),
    ]);
    let payload = world
        .payload("4.16.1", &components, &Recipe::default())
        .digest;
    world.sign(&payload, "4.16.1", 1, &world.key);
    let made = Made {
        version: "4.16.1".to_owned(),
        payload,
        components,
    };
    world.channel("stable-4.16", "amd64", &[&made], &[], &[]);
    (world, made, programs)
}

#[track_caller]
fn same(path: &Path, wanted: &[u8], what: &str) {
    let found = fs::read(path).unwrap();
    assert!(found == wanted, "{what}: {} differs", path.display());
}

#[test]
fn tools_are_taken_from_a_mirror_and_are_pinned_to_it() {
    let (world, made, programs) = world(false);
    let near = world.site();
    near.config(&channels(&["stable-4.16"]));
    world.run(&near, "lock").done();
    let mirror = Content::default().served();
    let host = mirror.address();
    world
        .run(
            &near,
            &format!("push docker://{host}/ocp --insecure {host}"),
        )
        .done();

    // Somebody behind the gap who has the mirror and nothing else.
    let far = Disconnected::with(&host);
    let from = format!("{host}/ocp/openshift/release-images@{}", made.payload);
    let run = far
        .imgbuild(&format!(
            "extract openshift-install oc ccoctl --command-os linux --from {from} -o bin"
        ))
        .done();
    let install = pinned(programs["install"].clone(), VERSION.0, "4.16.1");
    let install = pinned(install, IMAGE.0, &from);
    let install = pinned(install, ARCHITECTURE.0, "amd64");
    same(
        &far.path("bin/openshift-install"),
        &install,
        "the installer pulls from the mirror",
    );
    let oc = pinned(programs["oc"].clone(), VERSION.0, "4.16.1");
    same(
        &far.path("bin/oc"),
        &oc,
        "the client knows its version, once",
    );
    same(
        &far.path("bin/ccoctl"),
        &programs["ccoctl"],
        "nothing is written into others",
    );
    for name in ["openshift-install", "oc", "ccoctl"] {
        let mode = fs::metadata(far.path(format!("bin/{name}")))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755, "{name} can be run");
    }
    let line = format!("{}  bin/oc\n", Digest::of(&oc).hex());
    assert!(
        run.stdout.contains(&line),
        "its checksum is told in\n{}",
        run.stdout
    );

    // From the store alone: the same bytes.
    far.imgbuild(&format!(
        "extract oc --command-os linux --offline --from {from} -o again"
    ))
    .done();
    same(&far.path("again/oc"), &oc, "the same from the store");
    near.imgbuild(&format!("extract openshift-install --offline --command-os linux --from quay.io/openshift-release-dev/ocp-release@{} -o bin", made.payload))
        .done();

    // For other systems, over links inside the image.
    far.imgbuild(&format!(
        "extract oc --command-os linux/arm64 --from {from} -o arm"
    ))
    .done();
    let arm = pinned(programs["oc.rhel9"].clone(), VERSION.0, "4.16.1");
    same(&far.path("arm/oc"), &arm, "links lead to the file");
    far.imgbuild(&format!(
        "extract oc --command-os windows --from {from} -o windows"
    ))
    .done();
    let windows = pinned(programs["oc.exe"].clone(), VERSION.0, "4.16.1");
    same(
        &far.path("windows/oc.exe"),
        &windows,
        "the client for Windows",
    );

    // A file of the payload, to standard output.
    let run = far
        .imgbuild(&format!("extract --file image-references --from {from}"))
        .done();
    assert!(
        run.stdout.starts_with('{') && run.stdout.contains("\"ImageStream\""),
        "the list itself, and nothing else"
    );
    assert!(
        !fs::read_dir(far.path("bin")).unwrap().any(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with('.')
        }),
        "nothing unfinished is left"
    );
}

#[test]
fn all_tools_are_archives_with_checksums_and_the_same_every_time() {
    let (world, made, programs) = world(false);
    let site = world.site();
    let line = format!(
        "extract --tools --from quay.io/openshift-release-dev/ocp-release@{}",
        made.payload
    );
    site.imgbuild(&format!("{line} -o a"))
        .done()
        .says(&["the release has not got openshift-install-mac-4.16.1.tar.gz"]);
    fs::remove_dir_all(site.path("store")).unwrap();
    site.imgbuild(&format!("{line} -o b --jobs 1")).done();
    let names = |folder: &str| -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(site.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names("a"),
        [
            "ccoctl-linux-4.16.1.tar.gz",
            "openshift-client-linux-4.16.1.tar.gz",
            "openshift-client-linux-arm64-4.16.1.tar.gz",
            "openshift-client-linux-arm64-rhel9-4.16.1.tar.gz",
            "openshift-client-windows-4.16.1.zip",
            "openshift-install-linux-4.16.1.tar.gz",
            "release.txt",
            "sha256sum.txt",
        ]
    );
    let sums = site.read("a/sha256sum.txt");
    for name in names("a") {
        let bytes = fs::read(site.path(format!("a/{name}"))).unwrap();
        same(
            &site.path(format!("b/{name}")),
            &bytes,
            "an archive follows from the release",
        );
        assert!(
            name == "sha256sum.txt"
                || sums.contains(&format!("{}  {name}\n", Digest::of(&bytes).hex())),
            "{name} is in\n{sums}"
        );
    }
    let file = fs::File::open(site.path("a/openshift-client-linux-4.16.1.tar.gz")).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        found.push((
            entry.path().unwrap().display().to_string(),
            entry.header().mtime().unwrap(),
            bytes,
        ));
    }
    let places: Vec<(&str, u64)> = found
        .iter()
        .map(|(name, time, _)| (name.as_str(), *time))
        .collect();
    assert_eq!(
        places,
        [
            ("README.md", MODIFIED),
            ("oc", MODIFIED),
            ("kubectl", MODIFIED)
        ],
        "the text, the client and its other name, as old as the file in the image"
    );
    assert!(
        found[1].2 == pinned(programs["oc"].clone(), VERSION.0, "4.16.1"),
        "what is packed is pinned"
    );
    let text = site.read("a/release.txt");
    assert!(
        text.contains("Name:         4.16.1\n")
            && text.contains(&made.components["etcd"].to_string()),
        "which release it is, in\n{text}"
    );
}

#[test]
fn what_cannot_be_taken_is_said_and_leaves_nothing() {
    let (world, made, _) = world(true);
    let site = world.site();
    site.config(&channels(&["stable-4.16"]));
    world.run(&site, "lock").done();
    let quay = "quay.io/openshift-release-dev/ocp-release";
    let from = format!("{quay}@{}", made.payload);
    let absent = Digest::of(b"absent");
    let component = made.components["etcd"];
    for (line, code, texts, hints) in [
        (
            format!("kubectl --from {from}"),
            2,
            vec!["no release has a tool \"kubectl\""],
            vec!["openshift-install"],
        ),
        (
            format!("oc --from {quay}:4.16.1-x86_64"),
            2,
            vec!["no payload by digest"],
            vec![],
        ),
        (
            format!("oc --command-os beos --from {from}"),
            2,
            vec!["\"beos\" is no system"],
            vec![],
        ),
        (
            format!("oc --from {quay}@{absent}"),
            1,
            vec!["neither in the store nor at quay.io"],
            vec![],
        ),
        (
            format!("oc --from quay.io/{ART}@{component}"),
            1,
            vec!["has no release-manifests/image-references"],
            vec!["no release payload"],
        ),
        (
            format!("oc --command-os mac --from {from}"),
            1,
            vec![
                "oc",
                "links lead from usr/share/openshift/mac/oc to no file",
            ],
            vec![],
        ),
        (
            format!("oc.rhel9 --command-os linux --from {from}"),
            1,
            vec!["no /usr/share/openshift/linux_amd64/oc.rhel9 in image cli-artifacts"],
            vec![],
        ),
        (
            format!("openshift-install --command-os mac --from {from}"),
            1,
            vec!["in image installer-artifacts"],
            vec![],
        ),
        (
            format!("ccoctl --command-os windows --from {from}"),
            1,
            vec!["there is no ccoctl for windows/amd64"],
            vec!["--command-os"],
        ),
        (
            format!("--file nothing --from {from}"),
            1,
            vec!["has no release-manifests/nothing"],
            vec![],
        ),
        (format!("--from {from}"), 2, vec!["TOOL"], vec![]),
    ] {
        let run = site
            .imgbuild(&format!("extract {line} -o out"))
            .ends(code)
            .says(&texts);
        if !hints.is_empty() {
            run.hints(&hints);
        }
        let left = fs::read_dir(site.path("out")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{line}: nothing is left behind");
    }
    // A tag is no name for a tool to be pinned to, but the lock knows its digest.
    site.imgbuild(&format!("extract oc --from {quay}:4.16.1-x86_64"))
        .ends(2)
        .hints(&[&from]);
    // Offline, what the store lacks cannot be had.
    fs::remove_dir_all(site.path("store")).unwrap();
    site.imgbuild(&format!("extract oc --offline --from {from}"))
        .ends(1)
        .says(&["neither in the store"]);
}
