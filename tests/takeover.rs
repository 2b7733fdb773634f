//! Taking over from what others filled: a stock registry that skopeo filled, its folder, tars of it, and archives of
//! oc-mirror v2 made of its cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::site::content::Content;
use crate::site::stock::Stock;
use crate::site::{Connected, Disconnected, Site, UPSTREAM, wire};

/// Every file below a folder, by its path from there.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    crate::site::tree(folder)
        .into_keys()
        .map(|name| {
            let bytes = fs::read(folder.join(&name)).unwrap();
            (name, bytes)
        })
        .collect()
}

/// A tar as `archive/tar` of Go writes it: regular files alone.
fn tar_of<'a>(members: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

/// Fills a registry as people do.
fn fill(site: &Site, from: &str, to: &str, names: &[&str]) -> Option<()> {
    for name in names {
        site.other(&format!(
            "skopeo copy --all -q --insecure-policy --src-tls-verify=false --dest-tls-verify=false docker://{from}/{name} docker://{to}/{name}"
        ))?
        .done();
    }
    Some(())
}

/// The images of a lock, without the registry.
fn references(site: &Site, lock: &str) -> BTreeSet<String> {
    site.read(lock)
        .lines()
        .filter_map(|line| line.strip_prefix("ref = \""))
        .map(|line| {
            line.trim_end_matches('"')
                .split_once('/')
                .unwrap()
                .1
                .to_owned()
        })
        .collect()
}

#[test]
fn a_registry_that_skopeo_filled_is_taken_over_and_the_next_archive_carries_the_rest() {
    let Some(stock) = Stock::start(None) else {
        return;
    };
    let content = Content::default();
    let first = content.image("team/one:v1", &[(1, 50_000)]);
    content.index(
        "team/multi:v1",
        &[
            ("linux/amd64", &[(2, 4_000)]),
            ("linux/arm64", &[(3, 4_000)]),
        ],
    );
    let gone = content.image("team/gone:v1", &[(4, 900)]);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    let (from, to) = (upstream.address(), stock.address().to_owned());
    let all = ["team/one:v1", "team/multi:v1", "team/gone:v1"];
    if fill(&site, &from, &to, &all).is_none() {
        return;
    }
    // The tag moves: what it stood for stays in the registry, without a name.
    content.image("team/one:v1", &[(1, 50_000), (5, 2_000)]);
    fill(&site, &from, &to, &["team/one:v1"]).unwrap();
    // What is deleted leaves its blobs behind until the registry collects its garbage.
    let deleted = wire::ask("DELETE", &to, &format!("/v2/team/gone/manifests/{gone}")).unwrap();
    assert_eq!(deleted.status, 202, "the registry allows deleting");
    let expected: BTreeSet<String> = [
        "team/multi:v1".to_owned(),
        "team/one:v1".to_owned(),
        format!("team/one@{first}"),
    ]
    .into();

    // The folder, tars of it, and the archives that oc-mirror v2 makes of such a folder.
    let work = Site::new();
    let data = stock.data();
    let folder = data.to_str().unwrap();
    for (name, flags) in [("registry.tar", "-cf"), ("registry.tar.gz", "-czf")] {
        work.other(&format!(
            "tar -C {folder} {flags} {} docker",
            work.path(name).display()
        ))
        .unwrap()
        .done();
    }
    let cache = files(&data);
    let (links, blobs): (BTreeMap<_, _>, BTreeMap<_, _>) = cache
        .into_iter()
        .filter(|(name, _)| !name.contains("/_uploads/"))
        .partition(|(name, _)| name.contains("/repositories/"));
    assert!(
        links.keys().any(|name| name.contains("/_layers/sha256/"))
            && links
                .keys()
                .any(|name| name.contains("/tags/v1/index/sha256/")),
        "the registry keeps what is read over, too"
    );
    let (late, early): (BTreeMap<_, _>, BTreeMap<_, _>) = blobs
        .iter()
        .map(|(name, bytes)| (name.clone(), bytes.clone()))
        .partition(|(_, bytes)| (2_000..3_500).contains(&bytes.len()));
    assert_eq!(late.len(), 1, "one layer came with the second run");
    let working = BTreeMap::from([
        (
            "working-dir/.history/.history-2026-11-01T10:00:00Z".to_owned(),
            b"sha256:00\n".to_vec(),
        ),
        (
            "working-dir/release-images/x/oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ),
        (
            "isc_2026-11-01T10:00:00Z".to_owned(),
            b"kind: ImageSetConfiguration\n".to_vec(),
        ),
    ]);
    work.write(
        "v2/mirror_000001.tar",
        tar_of(links.iter().chain(&early).chain(&working)),
    );
    work.write(
        "v2/mirror_000002.tar",
        tar_of(links.iter().chain(&late).chain(&working)),
    );

    let mut locks = BTreeSet::new();
    for origin in [
        folder.to_owned(),
        format!("{folder}/docker/registry/v2"),
        work.path("registry.tar").display().to_string(),
        work.path("registry.tar.gz").display().to_string(),
        work.path("v2").display().to_string(),
    ] {
        let taker = Site::new();
        let run = taker.imgbuild(&format!("takeover {origin}")).done();
        assert_eq!(
            references(&taker, "takeover.lock.toml"),
            expected,
            "{origin}: every image that is served, and no other\n{}",
            run.story()
        );
        taker.has_a_sound_store();
        locks.insert(taker.read("takeover.lock.toml"));
    }
    assert_eq!(locks.len(), 1, "whatever it came from, the lock is one");
    // The second archive alone has every link and one layer: manifests that are not there are named, and nothing is
    // claimed of them.
    let taker = Site::new();
    taker
        .imgbuild(&format!(
            "takeover {} --files kept",
            work.path("v2/mirror_000002.tar").display()
        ))
        .done()
        .says(&["left out: ", "team/one:v1: its manifest", "is not there"]);
    assert_eq!(references(&taker, "takeover.lock.toml"), BTreeSet::new());
    assert_eq!(
        files(&taker.path("kept")),
        working,
        "the working directory and the config are kept where they are asked for"
    );

    // The site moves over: the next archive stands on what the registry has.
    site.imgbuild(&format!("takeover {folder} --registry {UPSTREAM}"))
        .done();
    content.image("team/one:v2", &[(1, 50_000), (6, 1_500)]);
    site.wants(["team/one:v1", "team/one:v2", "team/multi:v1"]);
    site.lock();
    site.export("media", "--base-lock takeover.lock.toml");
    let carried: u64 = site
        .parts("media")
        .iter()
        .map(|name| fs::metadata(site.path("media").join(name)).unwrap().len())
        .sum();
    assert!(
        carried < 40_000,
        "only the new layer, its config and manifests are carried: {carried} bytes"
    );
    let far = Disconnected::with(&to);
    far.receives(&site, "media");
    far.imgbuild(&format!("import media --to docker://{to}"))
        .done()
        .says(&["2 blobs sent"]);
    for name in ["team/one:v1", "team/one:v2", "team/multi:v1"] {
        let layout = far.path(name.replace([':', '/'], "-"));
        far.other(&format!(
            "skopeo copy --all -q --insecure-policy --src-tls-verify=false docker://{to}/{name} oci:{}:x",
            layout.display()
        ))
        .unwrap()
        .done();
    }
}

#[test]
fn what_a_registry_would_not_serve_is_not_claimed() {
    let Some(stock) = Stock::start(Some(&{
        let content = Content::default();
        content.image("team/one:v1", &[(1, 500)]);
        content.index(
            "team/multi:v1",
            &[("linux/amd64", &[(2, 400)]), ("linux/arm64", &[(3, 400)])],
        );
        content
    })) else {
        return;
    };
    let repositories = stock.data().join("docker/registry/v2/repositories/team");
    let revisions = |name: &str| repositories.join(name).join("_manifests/revisions/sha256");
    // A tag whose manifest the repository does not have: the registry answers 404.
    fs::remove_dir_all(revisions("one")).unwrap();
    // An index of which one child is not there.
    let index = wire::manifest(stock.address(), "team/multi", "v1").unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let child = index["manifests"][1]["digest"].as_str().unwrap();
    fs::remove_dir_all(revisions("multi").join(&child["sha256:".len()..])).unwrap();
    let site = Site::new();
    site.imgbuild(&format!("takeover {}", stock.data().display()))
        .done()
        .says(&["left out: takeover.invalid/team/one:v1: its repository has no manifest"]);
    assert_eq!(
        references(&site, "takeover.lock.toml"),
        BTreeSet::from(["team/multi:v1".to_owned()])
    );
    let lock = site.read("takeover.lock.toml");
    assert!(
        lock.contains("linux/amd64") && !lock.contains("linux/arm64"),
        "the child that is served, and no other:\n{lock}"
    );
}

#[test]
fn a_registry_tree_is_served_by_the_stock_registry_for_every_image() {
    let Some(stock) = Stock::start(None) else {
        return;
    };
    let content = Content::default();
    crate::site::content::many(&content, 8, 700);
    content.index(
        "team/multi:v1",
        &[("linux/amd64", &[(2, 400)]), ("linux/arm64", &[(3, 400)])],
    );
    content.image("a/deep/path/of/names:v1", &[(4, 100)]);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.wants(content.names());
    site.lock();
    site.imgbuild("export -o tree --as registry-fs").done();
    crate::site::copy(&site.path("tree"), &stock.data());
    for image in content.images() {
        let name = image.name();
        let served = wire::manifest(stock.address(), &image.repository, &image.tag).unwrap();
        assert_eq!(
            imgbuild::digest::Digest::of(&served),
            image.descriptor.digest,
            "{name}: the very bytes"
        );
        let copy = site.path(name.replace([':', '/'], "-"));
        let Some(run) = site.other(&format!(
            "skopeo copy --all -q --insecure-policy --src-tls-verify=false docker://{}/{name} dir:{}",
            stock.address(),
            copy.display()
        )) else {
            return;
        };
        run.done();
    }
}
