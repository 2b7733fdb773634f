//! Registries on a bad day: one request in five goes wrong, in every way there is.

use std::collections::BTreeMap;

use imgbuild::digest::Digest;
use imgbuild::registry::server::{Broken, Fault, Faults, Options, Tokens};

use crate::site::content::{Content, many};
use crate::site::registry::Registry;
use crate::site::{Connected, Disconnected};

/// A registry where one request in five meets one of the faults, but never so often that patience is in vain.
fn unlucky(content: &Content, seed: u64, kinds: Vec<Fault>, tokens: bool) -> Registry {
    content.serve(Options {
        faults: Some(Faults {
            seed,
            per_mille: 200,
            kinds,
            most_per_path: Some(3),
            ..Faults::default()
        }),
        tokens: tokens.then(Tokens::default),
        ..Options::default()
    })
}

/// How many requests did not end as they should have.
fn unhappy(registry: &Registry) -> usize {
    registry
        .requests()
        .iter()
        .filter(|request| request.status == 0 || request.status == 429 || request.status >= 500)
        .count()
}

fn world() -> Content {
    let content = Content::default();
    many(&content, 16, 2_000);
    // Too large to be held in memory while it is sent.
    content.image("large/one:1", &[(9_999, 5_000_000)]);
    content
}

#[test]
fn a_bad_day_upstream_changes_nothing_but_the_time_it_takes() {
    let content = world();
    let site = |upstream: &Registry| {
        let site = Connected::to(upstream);
        site.wants(content.names());
        site.lock();
        site.export("media", "");
        site
    };
    let good = content.served();
    let calm = site(&good);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (content, calm, site) = (&content, &calm, &site);
            scope.spawn(move || {
                let upstream = unlucky(content, seed, Fault::every(), seed % 2 == 1);
                let stormy = site(&upstream);
                assert!(unhappy(&upstream) > 5, "seed {seed} must bring misfortune");
                assert_eq!(
                    stormy.lock_text(),
                    calm.lock_text(),
                    "seed {seed}: the lock is the same"
                );
                assert_eq!(
                    stormy.tree("media"),
                    calm.tree("media"),
                    "seed {seed}: the archive is the same"
                );
                stormy.has_a_sound_store();
            });
        }
    });
}

#[test]
fn a_bad_day_at_the_destination_changes_nothing_but_the_time_it_takes() {
    let content = world();
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.wants(content.names());
    site.lock();
    site.export("media", "");
    std::thread::scope(|scope| {
        for seed in 10..14 {
            let (content, site) = (&content, &site);
            scope.spawn(move || {
                let kinds = if seed == 10 {
                    vec![Fault::LostAnswer]
                } else {
                    Fault::every()
                };
                let mirror = unlucky(&Content::default(), seed, kinds, seed % 2 == 1);
                let far = Disconnected::with(&mirror.address());
                far.receives(site, "media");
                far.imgbuild(&format!(
                    "import media --to docker://{}/mirror",
                    mirror.address()
                ))
                .done();
                assert!(unhappy(&mirror) > 5, "seed {seed} must bring misfortune");
                // What is there, seen without the faults.
                let calm = mirror.content.served();
                for (image, below) in content.all() {
                    let repository = format!("mirror/{}", image.repository);
                    assert_eq!(
                        calm.digest_of(&repository, &image.tag),
                        Some(image.descriptor.digest),
                        "seed {seed}: {}",
                        image.name()
                    );
                    for blob in &below.blobs {
                        let bytes = mirror.content.bytes(blob).expect("every blob is there");
                        assert_eq!(
                            Digest::of(&bytes),
                            blob.digest,
                            "seed {seed}: nothing wrong is stored"
                        );
                    }
                }
            });
        }
    });
}

#[test]
fn what_stays_broken_is_named_with_its_source_and_who_needs_it() {
    let content = Content::default();
    many(&content, 6, 1_000);
    let all = content.all();
    // A base that two images share, and the config of one.
    let shared = all[0]
        .1
        .blobs
        .intersection(&all[5].1.blobs)
        .next()
        .copied()
        .expect("images 0 and 5 share a base");
    let alone = *all[1]
        .1
        .blobs
        .iter()
        .find(|blob| {
            all.iter()
                .filter(|(_, below)| below.blobs.contains(blob))
                .count()
                == 1
        })
        .unwrap();
    let upstream = content.serve(Options {
        faults: Some(Faults {
            broken: BTreeMap::from([
                (shared.digest, Broken::WrongBytes),
                (alone.digest, Broken::Absent),
            ]),
            ..Faults::default()
        }),
        ..Options::default()
    });
    let site = Connected::to(&upstream);
    site.wants(content.names());
    site.lock();
    let run = site.imgbuild("build").ends(5).says(&[
        "2 blobs did not arrive",
        &shared.digest.to_string(),
        &alone.digest.to_string(),
        "registry.example.test/team0/app0",
        "registry.example.test/team1/app1",
        &format!(
            "needed by image registry.example.test/{}, image registry.example.test/{}",
            all[0].0.name(),
            all[5].0.name()
        ),
        &format!("needed by image registry.example.test/{}", all[1].0.name()),
    ]);
    assert!(
        !run.stdout.contains("in the store"),
        "no success is claimed\n{}",
        run.story()
    );
    site.has_a_sound_store();
    let held = site.names("store/blobs/sha256");
    for blob in [shared, alone] {
        assert!(
            !held.contains(&blob.digest.hex()),
            "nothing wrong is stored"
        );
    }
    let wanted: usize = all
        .iter()
        .flat_map(|(_, below)| below.blobs.clone())
        .collect::<std::collections::BTreeSet<_>>()
        .len();
    let came = all
        .iter()
        .flat_map(|(_, below)| below.blobs.clone())
        .filter(|blob| held.contains(&blob.digest.hex()))
        .collect::<std::collections::BTreeSet<_>>()
        .len();
    assert_eq!(came, wanted - 2, "everything else arrived");
    site.imgbuild("export -o media").ends(5);
    assert!(
        site.names("media").is_empty(),
        "an incomplete closure is never exported"
    );
    // Mended, only the rest is fetched.
    let mended = content.served();
    site.write("registries.conf", "");
    site.leads(crate::site::UPSTREAM, &mended.address());
    site.imgbuild("build").done().says(&["2 fetched"]);
    assert_eq!(mended.requests().len(), 2, "only the rest is asked for");
    site.has_a_sound_store();
}
