//! One piece of work per digest: what registries are asked, counted.

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use imgbuild::registry::server::{Kind, Options};
use imgbuild::store::Blob;

use crate::site::content::{Content, many};
use crate::site::{Connected, Disconnected};

/// Method and kind of every request since `from`, counted.
fn kinds(
    registry: &crate::site::registry::Registry,
    from: usize,
) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for request in &registry.requests()[from..] {
        *counts
            .entry((request.method.clone(), format!("{:?}", request.kind)))
            .or_default() += 1;
    }
    counts
}

#[test]
fn every_manifest_and_blob_is_fetched_once_however_many_images_share_it() {
    let content = Content::default();
    many(&content, 40, 600);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.wants(content.names());
    site.lock();
    let manifests: BTreeSet<Blob> = content
        .all()
        .iter()
        .flat_map(|(_, below)| {
            below
                .manifests
                .iter()
                .map(|(blob, _)| *blob)
                .collect::<Vec<_>>()
        })
        .collect();
    let blobs: BTreeSet<Blob> = content
        .all()
        .iter()
        .flat_map(|(_, below)| below.blobs.clone())
        .collect();
    let counts = kinds(&upstream, 0);
    let gets = |kind: &str| {
        counts
            .get(&("GET".to_owned(), kind.to_owned()))
            .copied()
            .unwrap_or(0)
    };
    assert_eq!(
        gets("Manifest"),
        manifests.len(),
        "one GET per manifest: {counts:?}"
    );
    assert!(gets("Base") <= 1, "no ping per image: {counts:?}");
    assert_eq!(gets("Blob"), 0, "locking fetches no layer: {counts:?}");
    site.imgbuild("build").done();
    let asked = upstream.asked("GET", &[Kind::Blob]);
    assert_eq!(asked.len(), blobs.len(), "every blob is fetched");
    for (name, count) in asked
        .into_iter()
        .chain(upstream.asked("GET", &[Kind::Manifest]))
    {
        // Tags are not unique among repositories.
        if name.starts_with("sha256:") {
            assert_eq!(count, 1, "{name} must be fetched once");
        }
    }
    let counts = kinds(&upstream, 0);
    assert_eq!(
        counts.values().sum::<usize>(),
        manifests.len()
            + blobs.len()
            + counts
                .get(&("GET".to_owned(), "Base".to_owned()))
                .copied()
                .unwrap_or(0),
        "nothing else is asked: {counts:?}"
    );
    let before = upstream.requests().len();
    site.imgbuild("build").done().says(&["0 fetched"]);
    site.export("media", "");
    site.imgbuild("lock").done().says(&["nothing changed"]);
    assert_eq!(
        upstream.requests().len(),
        before,
        "what is here is not asked for again"
    );
}

#[test]
fn a_destination_gets_each_blob_once_and_mounts_it_elsewhere() {
    let content = Content::default();
    many(&content, 40, 600);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.wants(content.names());
    site.lock();
    site.export("media", "");
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "media");
    let to = format!("import media --to docker://{}/mirror", mirror.address());
    far.imgbuild(&to).done();
    let blobs: BTreeSet<Blob> = content
        .all()
        .iter()
        .flat_map(|(_, below)| below.blobs.clone())
        .collect();
    let placed: BTreeSet<(String, Blob)> = content
        .all()
        .iter()
        .flat_map(|(image, below)| {
            below
                .blobs
                .iter()
                .map(|blob| (image.repository.clone(), *blob))
                .collect::<Vec<_>>()
        })
        .collect();
    let ended = |kind: Kind, method: &str, status: u16| {
        mirror
            .server
            .counts()
            .get(&(method.to_owned(), kind, status))
            .copied()
            .unwrap_or(0)
    };
    let counts = mirror.server.counts();
    let uploads = ended(Kind::Upload, "PUT", 201) + ended(Kind::Uploads, "POST", 201);
    let mounts = placed.len() - blobs.len();
    assert_eq!(
        uploads,
        (blobs.len() + mounts + 1) as u64,
        "one upload for each of {} blobs, {mounts} mounts, and one of the head: {counts:?}",
        blobs.len()
    );
    assert_eq!(
        ended(Kind::Uploads, "POST", 201),
        mounts as u64,
        "what is elsewhere is mounted: {counts:?}"
    );
    assert!(
        ended(Kind::Base, "GET", 200) <= 1,
        "no ping per image: {counts:?}"
    );
    let asked: u64 = mirror
        .server
        .counts()
        .iter()
        .filter(|((method, kind, _), _)| method == "HEAD" && *kind == Kind::Blob)
        .map(|(_, count)| count)
        .sum();
    assert!(
        asked <= 1,
        "no blob is asked for where nobody ever sent one, but for the head's: {counts:?}"
    );
    // Once more: only whether every image and tag is there.
    let before = mirror.requests().len();
    far.imgbuild(&to)
        .done()
        .says(&["was adopted before; 0 blobs sent"]);
    let again = kinds(&mirror, before);
    assert!(
        again
            .keys()
            .all(|(method, kind)| (method == "HEAD" || method == "GET") && kind == "Manifest"),
        "a second import asks for manifests only: {again:?}"
    );
    let manifests: usize = content
        .all()
        .iter()
        .map(|(_, below)| below.manifests.len())
        .sum();
    assert!(
        again.values().sum::<usize>() <= manifests + 1,
        "a question per image (its tag says its digest), one per child, and one for the head: {again:?}"
    );
    // A new image on known layers is mounted, not sent.
    content.image("team9/new:1", &[(0, 1_200), (100, 600)]);
    site.wants(content.names());
    site.lock();
    site.export("two", "");
    far.receives(&site, "two");
    let before = mirror.requests().len();
    far.imgbuild(&to.replace("media", "two"))
        .done()
        .says(&["1 blob sent"]);
    let again = kinds(&mirror, before);
    assert!(
        again
            .get(&("PUT".to_owned(), "Upload".to_owned()))
            .copied()
            .unwrap_or(0)
            <= 1,
        "only the config is sent: {again:?}"
    );
}

#[test]
fn two_builds_at_once_share_a_store() {
    let content = Content::default();
    many(&content, 20, 5_000);
    content.image("large/one:1", &[(9_999, 2_000_000)]);
    let upstream = content.serve(Options {
        delay: Duration::from_millis(5),
        ..Options::default()
    });
    let site = Connected::to(&upstream);
    site.wants(content.names());
    site.lock();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| site.imgbuild("build").done());
        }
    });
    site.has_a_sound_store();
    let before = upstream.requests().len();
    site.imgbuild("build").done().says(&["0 fetched"]);
    assert_eq!(upstream.requests().len(), before, "everything is there");
}

#[test]
fn two_exports_at_once_make_one_archive() {
    let content = Content::default();
    many(&content, 10, 5_000);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.wants(content.names());
    site.lock();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let run = site.imgbuild("export -o media");
                if run.code == Some(1) {
                    // Whoever comes second is told so, rather than kept waiting.
                    run.says(&["another imgbuild is working on stream imageset"])
                        .hints(&["try again when it is done"]);
                } else {
                    run.done();
                }
            });
        }
    });
    assert_eq!(
        site.read("lockfiles/imageset.chain")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count(),
        1,
        "one archive, one line"
    );
    site.imgbuild("verify media --chain lockfiles/imageset.chain")
        .done();
}
