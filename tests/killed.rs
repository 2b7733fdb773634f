//! Kill -9 at any moment, then the same command again: it completes, does nothing twice, and the result is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use imgbuild::registry::server::{Kind, Options};
use imgbuild::store::Blob;

use crate::site::content::{Content, many, noise};
use crate::site::registry::Registry;
use crate::site::{Connected, Disconnected, Site, copy};

/// Kills of each command.
const KILLS: usize = 30;

/// How many of them must have landed while it ran; how fast the machine is differs from run to run.
const INSIDE: usize = KILLS / 4;

/// As from far away, so that kills land between answers.
const DELAY: Duration = Duration::from_millis(8);

/// Moments spread over a command that takes `whole`, in an order of their own.
fn moments(seed: u64, whole: Duration) -> Vec<Duration> {
    noise(seed, 4 * KILLS)
        .chunks(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .map(|word| whole.mul_f64(f64::from(word) / f64::from(u32::MAX)))
        .collect()
}

/// Runs a command and kills it after `moment`; answers whether it was still running.
fn kill(site: &Site, line: &str, moment: Duration) -> bool {
    let mut child = site
        .command(line.split_whitespace())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(moment);
    let was_running = child.try_wait().unwrap().is_none();
    drop(child.kill());
    child.wait().unwrap();
    was_running
}

/// Tries every moment, three at once; answers how many kills landed while the command ran.
fn kills(seed: u64, whole: Duration, one: impl Fn(Duration) -> bool + Sync) -> usize {
    let moments = moments(seed, whole);
    std::thread::scope(|scope| {
        let attempts: Vec<_> = moments
            .chunks(KILLS.div_ceil(3))
            .map(|share| {
                let one = &one;
                scope.spawn(move || share.iter().filter(|moment| one(**moment)).count())
            })
            .collect();
        attempts
            .into_iter()
            .map(|attempt| attempt.join().unwrap())
            .sum()
    })
}

fn timed(run: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    run();
    begun.elapsed()
}

fn slow(content: &Content) -> Registry {
    content.serve(Options {
        delay: DELAY,
        ..Options::default()
    })
}

/// A locked site with nothing built.
fn locked(upstream: &Registry, content: &Content) -> Connected {
    let site = Connected::to(upstream);
    site.wants(content.names());
    site.lock();
    site
}

/// The same site once more, where it is.
fn again(upstream: &Registry, site: &Connected) -> Connected {
    let other = Connected::to(upstream);
    for name in ["imageset.yaml", "lockfiles", "store"] {
        let path = site.path(name);
        if path.is_dir() {
            copy(&path, &other.path(name));
        } else {
            fs::copy(path, other.path(name)).unwrap();
        }
    }
    other
}

fn blobs(site: &Site) -> BTreeMap<String, imgbuild::digest::Digest> {
    site.tree("store/blobs")
}

#[test]
fn a_killed_build_goes_on_where_it_was() {
    let content = Content::default();
    many(&content, 24, 4_000);
    content.image("large/one:1", &[(7777, 900_000)]);
    let upstream = slow(&content);
    let site = locked(&upstream, &content);
    let whole = again(&upstream, &site);
    let time = timed(|| drop(whole.imgbuild("build").done()));
    let expected = blobs(&whole);
    let inside = kills(1, time, |moment| {
        let upstream = slow(&content);
        let victim = again(&upstream, &site);
        let was_running = kill(&victim, "build", moment);
        let finished: BTreeSet<String> = victim.names("store/blobs/sha256").into_iter().collect();
        let before = upstream.requests().len();
        victim.imgbuild("build").done();
        for request in &upstream.requests()[before..] {
            let name = request.path.rsplit_once(':').map_or("", |(_, hex)| hex);
            assert!(
                !finished.contains(name),
                "killed after {moment:?}: {} was finished and is fetched again",
                request.path
            );
        }
        assert_eq!(
            blobs(&victim),
            expected,
            "killed after {moment:?}: the store is the same"
        );
        assert!(
            victim.names("store/imgbuild/partial").is_empty(),
            "killed after {moment:?}: nothing unfinished stays"
        );
        was_running
    });
    assert!(inside >= INSIDE, "kills must land inside: {inside}");
}

#[test]
fn a_killed_lock_is_written_whole_or_not_at_all() {
    let content = Content::default();
    many(&content, 24, 500);
    let upstream = slow(&content);
    let site = || {
        let site = Connected::to(&upstream);
        site.wants(content.names());
        site
    };
    let whole = site();
    let time = timed(|| drop(whole.lock()));
    let expected = whole.lock_text();
    let inside = kills(5, time, |moment| {
        let victim = site();
        let was_running = kill(&victim, "lock", moment);
        if victim.path("lockfiles/imageset.lock.toml").exists() {
            assert_eq!(
                victim.lock_text(),
                expected,
                "killed after {moment:?}: what is there is whole"
            );
        }
        victim.lock();
        assert_eq!(
            victim.lock_text(),
            expected,
            "killed after {moment:?}: the lock is the same"
        );
        assert_eq!(
            victim.names("lockfiles").len(),
            1,
            "killed after {moment:?}: nothing else stays"
        );
        was_running
    });
    assert!(inside >= INSIDE, "kills must land inside: {inside}");
}

#[test]
fn a_killed_export_is_written_again() {
    let content = Content::default();
    many(&content, 24, 60_000);
    let upstream = content.served();
    let site = locked(&upstream, &content);
    site.imgbuild("build").done();
    let whole = again(&upstream, &site);
    let export = "export -o media --part-size 500kB";
    let time = timed(|| drop(whole.imgbuild(export).done()));
    let (media, chain) = (whole.tree("media"), whole.read("lockfiles/imageset.chain"));
    let inside = kills(2, time, |moment| {
        let victim = again(&upstream, &site);
        let was_running = kill(&victim, export, moment);
        victim.imgbuild(export).done();
        assert_eq!(
            victim.tree("media"),
            media,
            "killed after {moment:?}: the archive is the same"
        );
        assert_eq!(
            victim.read("lockfiles/imageset.chain"),
            chain,
            "killed after {moment:?}: the chain is the same"
        );
        was_running
    });
    assert!(inside >= INSIDE, "kills must land inside: {inside}");
}

#[test]
fn a_killed_import_goes_on_and_shows_only_what_is_whole() {
    let content = Content::default();
    many(&content, 20, 3_000);
    let upstream = content.served();
    let site = locked(&upstream, &content);
    site.export("media", "--part-size 100kB");
    let wanted: BTreeSet<Blob> = content
        .all()
        .iter()
        .flat_map(|(_, below)| below.blobs.clone())
        .collect();
    let attempt = || {
        let mirror = slow(&Content::default());
        let far = Disconnected::with(&mirror.address());
        far.receives(&site, "media");
        let line = format!("import media --to docker://{}/mirror", mirror.address());
        (mirror, far, line)
    };
    let (_mirror, whole, line) = attempt();
    let time = timed(|| drop(whole.imgbuild(&line).done()));
    let inside = kills(3, time, |moment| {
        let (mirror, far, line) = attempt();
        let was_running = kill(&far, &line, moment);
        // What the registry was still about to do.
        std::thread::sleep(DELAY * 2);
        let there: BTreeSet<Blob> = mirror.content.repositories.linked().into_iter().collect();
        // Whatever is tagged is whole.
        let (_, below) = &content.all()[0];
        assert!(!below.blobs.is_empty(), "images have blobs");
        for (image, below) in content.all() {
            let repository = format!("mirror/{}", image.repository);
            if mirror.digest_of(&repository, &image.tag).is_some() {
                for blob in &below.blobs {
                    assert!(
                        there.contains(blob),
                        "killed after {moment:?}: {} is visible but not whole",
                        image.name()
                    );
                }
            }
        }
        let before = mirror.requests().len();
        far.imgbuild(&line).done();
        let uploads = mirror.requests()[before..]
            .iter()
            .filter(|request| request.method == "PUT" && request.kind == Kind::Upload)
            .count();
        let missing = wanted.difference(&there).count();
        assert!(
            // One more is the head's own.
            uploads <= missing + 1,
            "killed after {moment:?}: {missing} blobs were missing, {uploads} were sent"
        );
        for image in content.images() {
            assert_eq!(
                mirror.digest_of(&format!("mirror/{}", image.repository), &image.tag),
                Some(image.descriptor.digest),
                "killed after {moment:?}: {}",
                image.name()
            );
        }
        was_running
    });
    assert!(inside >= INSIDE, "kills must land inside: {inside}");
}

#[test]
fn a_killed_import_into_a_store_goes_on() {
    let content = Content::default();
    many(&content, 20, 40_000);
    let upstream = content.served();
    let site = locked(&upstream, &content);
    site.export("media", "");
    let whole = Disconnected::new();
    whole.receives(&site, "media");
    let time = timed(|| drop(whole.imgbuild("import media").done()));
    let (expected, head) = (blobs(&whole), whole.heads());
    let inside = kills(4, time, |moment| {
        let far = Disconnected::new();
        far.receives(&site, "media");
        let was_running = kill(&far, "import media", moment);
        far.imgbuild("import media").done();
        assert_eq!(
            blobs(&far),
            expected,
            "killed after {moment:?}: the store is the same"
        );
        assert_eq!(
            far.heads(),
            head,
            "killed after {moment:?}: the same is adopted"
        );
        was_running
    });
    assert!(inside >= INSIDE, "kills must land inside: {inside}");
}
