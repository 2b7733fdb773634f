use super::*;
use crate::store::contract::{Liar, Lie, content, contract, held};
use crate::store::memory::Memory;
use crate::store::{Moved, transfer};

#[test]
fn every_store_keeps_the_contract() {
    contract(&Memory::default());
    let folder = tempfile::tempdir().unwrap();
    contract(&Store::open(folder.path(), Access::Shared).unwrap());
}

#[test]
fn a_new_store_is_an_image_layout_that_is_recognised_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/store");
    let absent = Store::open(&path, Access::ReadOnly).unwrap_err();
    assert!(
        matches!(absent, StoreError::Absent { .. }),
        "{absent} must say that there is none"
    );
    assert!(!path.exists(), "looking creates nothing");
    let blob = Store::open(&path, Access::Shared)
        .unwrap()
        .insert(b"hello")
        .unwrap();
    assert_eq!(
        fs::read_to_string(path.join("oci-layout")).unwrap(),
        OCI_LAYOUT,
        "it is an image layout"
    );
    assert_eq!(
        fs::read_to_string(path.join("imgbuild/version")).unwrap(),
        "1\n",
        "of this version"
    );
    for access in [Access::Shared, Access::Exclusive, Access::ReadOnly] {
        let store = Store::open(&path, access).unwrap();
        assert!(
            store.holds(&blob).unwrap(),
            "what was stored is there with {access:?}"
        );
    }
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    fs::write(folder.path().join("thesis.tex"), b"").unwrap();
    for access in [Access::Shared, Access::Exclusive, Access::ReadOnly] {
        let error = Store::open(folder.path(), access).unwrap_err();
        assert!(
            error.to_string().contains("thesis.tex"),
            "{error} must say what is there"
        );
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "nothing is added to it"
        );
    }
    fs::remove_file(folder.path().join("thesis.tex")).unwrap();
    Store::open(folder.path(), Access::Shared)
        .expect("a new file system is empty but for lost+found");
}

#[test]
fn a_store_whose_creation_was_cut_short_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("imgbuild")).unwrap();
    Store::open(folder.path(), Access::Shared)
        .unwrap()
        .insert(b"x")
        .unwrap();
    assert!(
        folder.path().join("oci-layout").exists(),
        "it is complete now"
    );
}

#[test]
fn a_later_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path(), Access::Shared).unwrap());
    fs::write(folder.path().join("imgbuild/version"), "4\n").unwrap();
    for access in [Access::Shared, Access::ReadOnly] {
        use crate::hint::Hint as _;
        let error = Store::open(folder.path(), access).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("has version 4; this imgbuild reads up to 1"),
            "{error} must name both versions"
        );
        assert_eq!(
            error.hint().unwrap(),
            "upgrade imgbuild",
            "and the hint the way out"
        );
    }
    for text in ["", "0", "one"] {
        fs::write(folder.path().join("imgbuild/version"), text).unwrap();
        let error = Store::open(folder.path(), Access::Shared).unwrap_err();
        assert!(
            matches!(error, StoreError::Malformed { .. }),
            "{error}: {text:?} is no version"
        );
    }
}

#[test]
fn garbage_collection_excludes_everyone_else() {
    let folder = tempfile::tempdir().unwrap();
    let open = |access| Store::open(folder.path(), access);
    let first = open(Access::Shared).unwrap();
    let second = open(Access::Shared).expect("any number share a store");
    let reader = open(Access::ReadOnly).unwrap();
    for remaining in [vec![first, second], vec![reader]] {
        let error = open(Access::Exclusive).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("another imgbuild is using the store at"),
            "{error} must say who is in the way"
        );
        drop(remaining);
    }
    let collector = open(Access::Exclusive).unwrap();
    for access in [Access::Shared, Access::ReadOnly, Access::Exclusive] {
        let error = open(access).unwrap_err();
        assert!(
            matches!(error, StoreError::Busy { .. }),
            "{error} must say that it is in use"
        );
    }
    drop(collector);
    open(Access::Shared).expect("the lock goes with its holder");
}

#[test]
fn a_store_that_is_read_only_refuses_every_change() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path(), Access::Shared).unwrap());
    let store = Store::open(folder.path(), Access::ReadOnly).unwrap();
    let lock = Blob::of(b"lock");
    let root = crate::store::roots::Root {
        kind: crate::store::roots::Kind::Working,
        lock,
    };
    let results: Vec<Result<(), StoreError>> = vec![
        store.insert(b"x").map(|_| ()),
        store.roots().set("a", &root),
        store.roots().remove("a").map(|_| ()),
        store.stream("a").unwrap().write("b", b"c"),
        store.stream("a").unwrap().lock().map(|_| ()),
        store.closures().put(&lock.digest, &[]),
        store.evidence().append("{}"),
        store
            .write_index(&[])
            .and(store.collect(&|_| true, false).map(|_| ())),
    ];
    for result in results {
        let error = result.unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::ReadOnly { .. } | StoreError::NotExclusive { .. }
            ),
            "{error} must refuse"
        );
    }
    assert!(
        transfer(
            &Liar::new(b"x", Lie::None),
            &store,
            &Blob::of(b"x"),
            &|_| ()
        )
        .is_err(),
        "nor are blobs written"
    );
    assert_eq!(store.stat().unwrap().blobs, 0, "nothing was written");
}

#[test]
fn a_layout_that_another_tool_wrote_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let blob = Blob::of(b"hello");
    fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
    fs::write(
        folder.path().join("oci-layout"),
        r#"{ "imageLayoutVersion": "1.0.0" }"#,
    )
    .unwrap();
    fs::write(
        folder.path().join("blobs/sha256").join(blob.digest.hex()),
        b"hello",
    )
    .unwrap();
    let store = Store::open(folder.path(), Access::ReadOnly).unwrap();
    assert_eq!(
        held(&store, &blob).unwrap(),
        b"hello",
        "blobs are where the specification puts them"
    );
    assert_eq!(store.stat().unwrap().blobs, 1, "everything else is empty");
    assert!(
        !folder.path().join("imgbuild").exists(),
        "reading leaves no trace"
    );
}

#[test]
fn bytes_of_unknown_name_are_stored_under_the_one_they_have() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store"), Access::Shared).unwrap();
    let bytes = content(1, 700_000);
    let blob = Blob::of(&bytes);
    let file = folder.path().join("file");
    fs::write(&file, &bytes).unwrap();
    for _ in 0..2 {
        assert_eq!(
            store.insert_file(&file).unwrap(),
            blob,
            "a file is named by its bytes"
        );
    }
    assert_eq!(
        store.insert(b"").unwrap(),
        Blob::of(b""),
        "no bytes have a name too"
    );
    let mut draft = store.draft().unwrap();
    io::copy(&mut &bytes[..1000], &mut draft).unwrap();
    assert_eq!(
        draft.blob(),
        Blob::of(&bytes[..1000]),
        "a draft knows its name at any time"
    );
    drop(draft);
    let stat = store.stat().unwrap();
    assert_eq!(
        (stat.blobs, stat.bytes, stat.temporary),
        (2, 700_000, 0),
        "a dropped draft leaves nothing"
    );
    assert_eq!(held(&store, &blob).unwrap(), bytes, "the bytes are there");
    let mode = fs::metadata(store.path_of(&blob.digest))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, BLOB_MODE, "a blob is a read-only file");
    assert_eq!(
        store.size_of(&blob.digest).unwrap(),
        Some(700_000),
        "its size is known"
    );
}

/// Leaves the first `count` bytes of `bytes` as the partial of its blob.
fn begin(store: &Store, bytes: &[u8], count: usize) -> Blob {
    let blob = Blob::of(bytes);
    let source = Liar::new(bytes, Lie::Breaks(count));
    transfer(&source, store, &blob, &|_| ()).unwrap_err();
    blob
}

#[test]
fn a_start_that_is_whole_needs_no_source() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Shared).unwrap();
    let bytes = content(1, 100_000);
    let blob = begin(&store, &bytes, 100_000);
    let source = Liar::new(&bytes, Lie::Lacks);
    assert_eq!(
        transfer(&source, &store, &blob, &|_| ()).unwrap(),
        Moved::Written(0),
        "killed between the last byte and the rename, nothing is fetched again"
    );
    assert_eq!(held(&store, &blob).unwrap(), bytes, "and the blob is right");
}

#[test]
fn a_start_that_is_wrong_is_started_over_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Shared).unwrap();
    let bytes = content(1, 100_000);
    for (name, start) in [
        ("flipped", {
            let mut start = bytes[..50_000].to_vec();
            start[7] ^= 1;
            start
        }),
        ("full of zeros", vec![0; 50_000]),
        ("as long as the blob", vec![0; 100_000]),
        ("longer than the blob", vec![0; 100_001]),
    ] {
        let blob = begin(&store, &bytes, 50_000);
        fs::write(store.partial_of(&blob.digest), &start).unwrap();
        let source = Liar::new(&bytes, Lie::None);
        assert_eq!(
            transfer(&source, &store, &blob, &|_| ()).unwrap(),
            Moved::Written(100_000),
            "a start that is {name} is no start"
        );
        assert!(
            source.sent.load(std::sync::atomic::Ordering::Relaxed) <= 150_000,
            "it is started over once"
        );
        assert_eq!(
            held(&store, &blob).unwrap(),
            bytes,
            "the blob is right after a start that is {name}"
        );
        fs::remove_file(store.path_of(&blob.digest)).unwrap();
    }
}

#[test]
fn a_source_that_starts_over_by_itself_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Shared).unwrap();
    let bytes = content(1, 100_000);
    let blob = begin(&store, &bytes, 50_000);
    let source = Liar::new(&bytes, Lie::IgnoresStart);
    assert_eq!(
        transfer(&source, &store, &blob, &|_| ()).unwrap(),
        Moved::Written(100_000),
        "its answer was too long, so the blob was asked for from its first byte"
    );
    assert_eq!(held(&store, &blob).unwrap(), bytes, "and came out right");
}

#[test]
fn a_start_that_was_swapped_after_it_was_read_is_not_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Shared).unwrap();
    let bytes = content(1, 1000);
    let blob = begin(&store, &bytes, 500);
    let mut state = Hasher::default();
    state.update(&bytes[..500]);
    fs::write(store.partial_of(&blob.digest), vec![0; 500]).unwrap();
    let mut reader = Verified::resumed(Box::new(&bytes[500..]), blob, state, &|_| ());
    let error = store.write(&blob, &mut reader).unwrap_err();
    assert!(
        PrefixGone::is_in(&error),
        "{error} must say that the start is another"
    );
    assert!(
        !store.holds(&blob).unwrap(),
        "wrong bytes must not get the right name"
    );
}

#[test]
fn a_write_from_the_first_byte_leaves_no_trace_of_an_older_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Shared).unwrap();
    let bytes = content(1, 1000);
    let blob = begin(&store, &bytes, 500);
    fs::write(store.partial_of(&blob.digest), vec![0; 2000]).unwrap();
    let mut wrong = bytes.clone();
    wrong[999] ^= 1;
    store
        .write(&blob, &mut Verified::new(Box::new(&wrong[..]), blob))
        .unwrap_err();
    assert_eq!(
        store.stat().unwrap().partials,
        0,
        "false bytes are not kept"
    );
    fs::write(store.partial_of(&blob.digest), vec![0; 2000]).unwrap();
    store
        .write(&blob, &mut Verified::new(Box::new(&bytes[..]), blob))
        .unwrap();
    assert_eq!(
        held(&store, &blob).unwrap(),
        bytes,
        "nothing of a longer start may stand behind the blob"
    );
}

#[test]
fn a_start_that_is_taken_is_nobody_elses_to_remove() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Shared).unwrap();
    let blob = Blob::of(b"x");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..3000 {
                    if let Partial::Mine(file) = store.take_partial(&blob.digest, true).unwrap() {
                        assert_eq!(
                            file.metadata().unwrap().nlink(),
                            1,
                            "whoever removed it had let it go"
                        );
                    }
                    store.forget(&blob).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_second_writer_of_a_blob_does_not_touch_the_start_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Shared).unwrap();
    let bytes = content(1, 1000);
    let blob = begin(&store, &bytes, 500);
    let Partial::Mine(first) = store.take_partial(&blob.digest, false).unwrap() else {
        panic!("nobody else has it")
    };
    assert!(
        store.kept(&blob).unwrap().is_none(),
        "a start that is in use is not offered"
    );
    store.forget(&blob).unwrap();
    assert_eq!(
        first.metadata().unwrap().nlink(),
        1,
        "a start that is in use is not removed"
    );
    assert_eq!(
        transfer(&Liar::new(&bytes, Lie::None), &store, &blob, &|_| ()).unwrap(),
        Moved::Written(1000),
        "the second writer has a file of its own"
    );
    assert_eq!(
        first.metadata().unwrap().len(),
        500,
        "the first writer's is as it was"
    );
    drop(first);
    let stat = store.stat().unwrap();
    assert_eq!(
        (stat.blobs, stat.partials, stat.temporary),
        (1, 1, 0),
        "only the blob and the old start are left"
    );
}

#[test]
fn a_blob_that_was_cut_short_on_disk_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Shared).unwrap();
    let bytes = content(1, 1000);
    let blob = store.insert(&bytes).unwrap();
    let path = store.path_of(&blob.digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, &bytes[..10]).unwrap();
    assert!(
        !store.holds(&blob).unwrap(),
        "a file of another size is not the blob"
    );
    transfer(&Liar::new(&bytes, Lie::None), &store, &blob, &|_| ()).unwrap();
    assert_eq!(held(&store, &blob).unwrap(), bytes, "it is whole again");
}

mod kill;
mod mounted;
mod skopeo;
