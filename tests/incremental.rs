//! Archive after archive: only what is new is carried, in any order it arrives.

use std::collections::BTreeSet;
use std::fs;

use imgbuild::registry::server::Kind;

use crate::site::content::Content;
use crate::site::registry::Registry;
use crate::site::{Connected, Disconnected, Run, copy};

/// The first delivery's images; `app:stable` moves later.
fn beginning() -> (Content, Registry) {
    let content = Content::default();
    content.image("team/base:1", &[(1, 40_000)]);
    content.image("team/app:stable", &[(1, 40_000), (2, 20_000)]);
    content.image("team/other:1", &[(3, 30_000)]);
    let upstream = content.served();
    (content, upstream)
}

fn wants(site: &Connected) {
    site.wants(["team/base:1", "team/app:stable", "team/other:1"]);
}

/// Locks and exports the first archive into `one`.
fn first(upstream: &Registry) -> Connected {
    let site = Connected::to(upstream);
    wants(&site);
    site.lock();
    site.export("one", "")
        .says(&["imageset seq 1: full, applies on top of nothing"]);
    site
}

/// Moves the tag by a layer with this number, locks it and nothing else.
fn moves(site: &Connected, content: &Content, layer: u64) {
    content.image("team/app:stable", &[(1, 40_000), (layer, 20_000)]);
    site.imgbuild("lock --update image:*/team/app*")
        .done()
        .says(&["team/app:stable"]);
}

/// Writes archive 2 into `two` and archive 3 into `three`.
fn second_and_third(site: &Connected, content: &Content) {
    moves(site, content, 12);
    site.export("two", "")
        .says(&["imageset seq 2: applies where seq 1 has been adopted"]);
    moves(site, content, 13);
    site.export("three", "")
        .says(&["imageset seq 3: applies where seq 2 has been adopted"]);
}

fn size(site: &Connected, folder: &str) -> u64 {
    site.names(folder)
        .iter()
        .map(|name| fs::metadata(site.path(folder).join(name)).unwrap().len())
        .sum()
}

/// The digests of the blobs that are in the parts of a folder.
fn carried(site: &Connected, folder: &str) -> BTreeSet<String> {
    let mut blobs = BTreeSet::new();
    for name in site.names(folder) {
        if name.ends_with(".tar") {
            let file = fs::File::open(site.path(folder).join(&name)).unwrap();
            for entry in tar::Archive::new(file).entries().unwrap() {
                let path = entry.unwrap().path().unwrap().display().to_string();
                if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                    blobs.insert(hex.to_owned());
                }
            }
        }
    }
    blobs
}

/// Insists that every image of the content is served by the mirror below `mirror`.
#[track_caller]
fn serves(mirror: &Registry, content: &Content) {
    for image in content.images() {
        assert_eq!(
            mirror.digest_of(&format!("mirror/{}", image.repository), &image.tag),
            Some(image.descriptor.digest),
            "the mirror must serve {}",
            image.name()
        );
    }
}

fn import(far: &Disconnected, mirror: &Registry, what: &str) -> Run {
    far.imgbuild(&format!(
        "import {what} --to docker://{}/mirror",
        mirror.address()
    ))
}

#[test]
fn the_second_archive_carries_only_what_is_new() {
    let (content, upstream) = beginning();
    let site = first(&upstream);
    let before = site.lock_text();
    let old: BTreeSet<String> = carried(&site, "one");
    let asked = upstream.requests().len();
    moves(&site, &content, 12);
    let changed: Vec<_> = similar::TextDiff::from_lines(&before, &site.lock_text())
        .iter_all_changes()
        .filter(|change| change.tag() != similar::ChangeTag::Equal)
        .map(|change| change.value().to_owned())
        .collect();
    assert!(
        changed
            .iter()
            .all(|line| line.contains("team/app") || line.starts_with("size")),
        "only the block of the tag that moved may change: {changed:?}"
    );
    let names: Vec<String> = upstream.requests()[asked..]
        .iter()
        .map(|request| request.path.clone())
        .collect();
    assert!(
        names.iter().all(|path| path.starts_with("/v2/team/app/")),
        "nothing else is asked upstream: {names:?}"
    );
    site.export("two", "");
    let new = carried(&site, "two");
    let fresh: Vec<&String> = new.difference(&old).collect();
    assert_eq!(
        fresh.len(),
        3,
        "a manifest, a config and a layer are new: {fresh:?}"
    );
    let again: Vec<&String> = new.intersection(&old).collect();
    assert_eq!(
        again.len(),
        2,
        "of what was carried only the two other manifests travel again: {again:?}"
    );
    assert!(
        size(&site, "two") < size(&site, "one") / 2,
        "the second archive is smaller"
    );
    site.imgbuild("export -o two")
        .done()
        .says(&["nothing to carry: imageset seq 2 has this lock"]);
    assert_eq!(
        site.names("two").len(),
        2,
        "nothing to carry writes nothing"
    );
}

#[test]
fn the_second_archive_alone_is_staged_and_says_what_to_bring() {
    let (content, upstream) = beginning();
    let site = first(&upstream);
    moves(&site, &content, 12);
    site.export("two", "");
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "one");
    far.receives(&site, "two");
    import(&far, &mirror, "two").ends(5).says(&[
        "imageset seq 2 is staged but cannot be adopted",
        "adopted here: nothing",
        "applies on top of seq 1",
        "bring imageset_seq000001",
        "imgbuild export --full",
    ]);
    assert!(
        mirror
            .server
            .repositories()
            .tags("mirror/team/app", None)
            .unwrap_or_default()
            .is_empty(),
        "nothing is visible before it is whole"
    );
    assert!(far.heads().is_empty(), "nothing is adopted");
    import(&far, &mirror, "one")
        .done()
        .says(&["imageset seq 1: adopted"]);
    import(&far, &mirror, "two")
        .done()
        .says(&["imageset seq 2: adopted"]);
    serves(&mirror, &content);
    import(&far, &mirror, "two")
        .done()
        .says(&["imageset seq 2: was adopted before"]);
}

#[test]
fn both_archives_at_once_adopt_the_newer_one() {
    let (content, upstream) = beginning();
    let site = first(&upstream);
    moves(&site, &content, 12);
    site.export("two", "");
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "one");
    far.receives(&site, "two");
    import(&far, &mirror, "one two")
        .done()
        .says(&["imageset seq 2: adopted", "passed over seq 1"]);
    serves(&mirror, &content);
    // And into a store, in two steps.
    let store = Disconnected::new();
    store.receives(&site, "one");
    store.receives(&site, "two");
    store.imgbuild("import two").ends(5).says(&["staged"]);
    store
        .imgbuild("import one two")
        .done()
        .says(&["imageset seq 2: adopted"]);
    store.has_a_sound_store();
}

#[test]
fn an_older_archive_is_refused_unless_the_site_is_to_go_back() {
    let (content, upstream) = beginning();
    let site = first(&upstream);
    let old = content.images();
    moves(&site, &content, 12);
    site.export("two", "");
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "one");
    far.receives(&site, "two");
    import(&far, &mirror, "one two").done();
    let heads = far.heads();
    import(&far, &mirror, "one")
        .ends(4)
        .says(&["imageset seq 1 is older than seq 2, which this site has adopted"])
        .hints(&["--allow-rollback"]);
    assert_eq!(heads, far.heads(), "a refusal changes nothing");
    serves(&mirror, &content);
    import(&far, &mirror, "one --allow-rollback")
        .done()
        .says(&["imageset seq 1: adopted"]);
    for image in old {
        assert_eq!(
            mirror.digest_of(&format!("mirror/{}", image.repository), &image.tag),
            Some(image.descriptor.digest),
            "the mirror must serve {} as it was",
            image.name()
        );
    }
}

#[test]
fn two_archives_for_one_place_are_a_fork() {
    let (content, upstream) = beginning();
    let site = first(&upstream);
    let copied = Connected::to(&upstream);
    copy(&site.path(""), &copied.path(""));
    moves(&site, &content, 12);
    site.export("two", "");
    moves(&copied, &content, 13);
    copied.export("fork", "");
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    for (from, folder) in [(&site, "one"), (&site, "two"), (&copied, "fork")] {
        far.receives(from, folder);
    }
    import(&far, &mirror, "one two").done();
    let heads = far.heads();
    import(&far, &mirror, "fork")
        .ends(4)
        .says(&["imageset seq 2", "claims the place of"])
        .hints(&["two exports were made from one point"]);
    assert_eq!(heads, far.heads(), "a fork changes nothing");
    // Both at hand, before either is adopted.
    let other = Disconnected::with(&mirror.address());
    for (from, folder) in [(&site, "one"), (&site, "two"), (&copied, "fork")] {
        other.receives(from, folder);
    }
    import(&other, &mirror, "one two fork")
        .ends(4)
        .says(&["claims the place of"]);
    // A chain file tells them apart without adopting anything.
    site.imgbuild("verify one two --chain lockfiles/imageset.chain")
        .done()
        .says(&["on the chain"]);
    far.imgbuild("verify fork").done();
    far.run([
        "verify",
        "fork",
        "--chain",
        site.path("lockfiles/imageset.chain").to_str().unwrap(),
    ])
    .ends(4);
}

#[test]
fn a_full_archive_applies_anywhere() {
    let (content, upstream) = beginning();
    let site = first(&upstream);
    moves(&site, &content, 12);
    site.export("two", "--full")
        .says(&["imageset seq 2: full, applies on top of nothing"]);
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "two");
    import(&far, &mirror, "two")
        .done()
        .says(&["imageset seq 2: adopted"]);
    serves(&mirror, &content);
    // The same lock again, in full: that was asked for, so it is written.
    site.export("three", "--full")
        .says(&["imageset seq 3: full"]);
}

#[test]
fn an_overlap_survives_a_lost_archive() {
    let (content, upstream) = beginning();
    let site = first(&upstream);
    moves(&site, &content, 12);
    site.export("two", "");
    moves(&site, &content, 13);
    site.export("three", "--overlap 1")
        .says(&["imageset seq 3: applies where seq 1 or seq 2 has been adopted"]);
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "one");
    far.receives(&site, "three");
    import(&far, &mirror, "one").done();
    import(&far, &mirror, "three")
        .done()
        .says(&["imageset seq 3: adopted"]);
    serves(&mirror, &content);
}

#[test]
fn an_archive_for_an_older_sequence_applies_there() {
    let (content, upstream) = beginning();
    let site = first(&upstream);
    second_and_third(&site, &content);
    moves(&site, &content, 14);
    site.export("four", "--for 1")
        .says(&["imageset seq 4: applies where seq 1 has been adopted"]);
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "one");
    far.receives(&site, "four");
    import(&far, &mirror, "one").done();
    import(&far, &mirror, "four")
        .done()
        .says(&["imageset seq 4: adopted"]);
    serves(&mirror, &content);
    site.imgbuild("export -o five --for 9")
        .ends(1)
        .says(&["stream imageset has no sequence 9; it ends at 4"]);
}

#[test]
fn an_archive_applies_on_top_of_a_lock_given_by_file() {
    let (content, upstream) = beginning();
    let site = Connected::to(&upstream);
    wants(&site);
    site.lock();
    site.imgbuild("build").done();
    site.write("known.toml", site.lock_text());
    moves(&site, &content, 12);
    site.export("new", "--base-lock known.toml")
        .says(&["imageset seq 1: applies where lock"]);
    let new = carried(&site, "new");
    assert_eq!(
        new.len(),
        5,
        "three manifests, one config, one layer: {new:?}"
    );
    // A site that holds that much by other means takes it.
    site.write("other/imageset.yaml", site.read("imageset.yaml"));
    let mirror = Content::default();
    content.image("team/app:stable", &[(1, 40_000), (2, 20_000)]);
    for (image, below) in content.all() {
        for blob in below.blobs {
            mirror.memory.insert(&content.bytes(&blob).unwrap());
            mirror
                .repositories
                .link_blob(&format!("mirror/{}", image.repository), &blob)
                .unwrap();
        }
    }
    let mirror = mirror.served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "new");
    import(&far, &mirror, "new")
        .done()
        .says(&["imageset seq 1: adopted"]);
    // One that does not is told.
    let empty = Content::default().served();
    let poor = Disconnected::with(&empty.address());
    poor.receives(&site, "new");
    import(&poor, &empty, "new")
        .ends(5)
        .says(&["applies on top of the lock"]);
}

#[test]
fn no_part_is_larger_than_asked_and_a_missing_one_is_named() {
    let content = Content::default();
    content.image("team/large:1", &[(1, 300_000), (2, 150_000), (3, 10_000)]);
    content.image("team/small:1", &[(4, 5_000), (5, 60_000)]);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.wants(content.names());
    site.lock();
    site.export("media", "--part-size 100kB");
    let parts: Vec<String> = site
        .names("media")
        .into_iter()
        .filter(|name| name.ends_with(".tar"))
        .collect();
    assert!(parts.len() >= 5, "several parts: {parts:?}");
    for name in &parts {
        let size = fs::metadata(site.path("media").join(name)).unwrap().len();
        assert!(size <= 100_000, "{name} has {size} bytes, more than asked");
    }
    for missing in [&parts[0], &parts[2], &parts[parts.len() - 1]] {
        let mirror = Content::default().served();
        let far = Disconnected::with(&mirror.address());
        far.receives(&site, "media");
        fs::remove_file(far.path("media").join(missing)).unwrap();
        let number = missing
            .strip_suffix(".tar")
            .unwrap()
            .rsplit_once('_')
            .unwrap()
            .1;
        import(&far, &mirror, "media").ends(5).says(&[
            "imageset seq 1",
            "bring the missing parts of this archive",
            number,
        ]);
        far.imgbuild("verify media").ends(4).says(&[number]);
        assert!(far.heads().is_empty(), "nothing is adopted");
        assert_eq!(
            mirror
                .server
                .repositories()
                .tags("mirror/team/large", None)
                .unwrap_or_default()
                .len(),
            0,
            "nothing is visible"
        );
        // The part is written again and brought; nothing else is needed.
        site.export(
            "again",
            &format!("--seq 1 --only-parts {}", number.parse::<u32>().unwrap()),
        );
        assert_eq!(
            site.names("again")
                .iter()
                .filter(|name| name.ends_with(".tar"))
                .collect::<Vec<_>>(),
            [missing],
            "only that part is written"
        );
        fs::copy(
            site.path("again").join(missing),
            far.path("media").join(missing),
        )
        .unwrap();
        far.imgbuild("verify media").done();
        fs::remove_dir_all(site.path("again")).unwrap();
        import(&far, &mirror, "media").done().says(&["adopted"]);
        serves(&mirror, &content);
    }
    site.imgbuild("lock").done();
    site.imgbuild("export -o small --part-size 1kB --full")
        .ends(1)
        .hints(&[]);
}

#[test]
fn an_earlier_archive_is_written_again_byte_for_byte() {
    let (content, upstream) = beginning();
    let site = first(&upstream);
    let one = site.tree("one");
    let lock = site.lock_text();
    second_and_third(&site, &content);
    let two = site.tree("two");
    let chain = site.read("lockfiles/imageset.chain");
    site.export("one-again", "--seq 1");
    site.export("two-again", "--seq 2");
    assert_eq!(site.tree("one-again"), one, "sequence 1, again");
    assert_eq!(site.tree("two-again"), two, "sequence 2, again");
    assert_eq!(
        site.read("lockfiles/imageset.chain"),
        chain,
        "the chain is as it was"
    );
    site.imgbuild("export -o none --seq 7")
        .ends(2)
        .says(&["no sequence 7; it ends at 3"]);
    // On another machine, from what is kept in git: the chain and the lock of then.
    let other = Connected::to(&upstream);
    other.write("lockfiles/imageset.chain", &chain);
    wants(&other);
    other
        .imgbuild("export -o one-again --seq 1")
        .ends(1)
        .says(&["the lock of imageset seq 1"])
        .hints(&["check that version of the lock out of git and name it with --lock"]);
    other.write("lockfiles/imageset.lock.toml", lock);
    other.export("one-again", "--seq 1");
    assert_eq!(other.tree("one-again"), one, "sequence 1, elsewhere");
    assert_eq!(
        other.read("lockfiles/imageset.chain"),
        chain,
        "the chain is as it was"
    );
}

#[test]
fn a_lost_blob_is_fetched_again_before_an_export() {
    let (content, upstream) = beginning();
    let site = first(&upstream);
    let blob = *content.all()[2].1.blobs.iter().next().unwrap();
    fs::remove_file(site.path("store/blobs/sha256").join(blob.digest.hex())).unwrap();
    let before = upstream.asked("GET", &[Kind::Blob]);
    site.export("again", "--seq 1");
    let after = upstream.asked("GET", &[Kind::Blob]);
    assert_eq!(
        after.values().sum::<usize>() - before.values().sum::<usize>(),
        1,
        "only what was lost is fetched"
    );
    assert_eq!(
        site.tree("again"),
        site.tree("one"),
        "the archive is the same"
    );
}
