//! The program as its users run it: two sites, real registries, real files, exit codes and words.
//!
//! One binary, a module per story; [`site`] has what they stand on.

#[test]
fn every_file_of_tests_is_run() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = std::fs::read_to_string(root.join("Cargo.toml")).unwrap() + include_str!("main.rs");
    for entry in std::fs::read_dir(root.join("tests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(stem) = name.strip_suffix(".rs") {
            assert!(
                named.contains(&format!("mod {stem};")) || named.contains(&format!("tests/{name}")),
                "tests/{name} must be a module of tests/main.rs or a target in Cargo.toml"
            );
        }
    }
}

mod access;
mod air_gap;
mod bad_day;
mod bad_input;
mod bytes;
mod catalogs;
mod charts;
mod delivery;
mod demo;
mod destinations;
mod everyday;
mod extract;
mod helm;
mod incremental;
mod killed;
mod once;
mod openshift_graph;
mod openshift_payload;
mod openshift_signature;
mod pages;
mod places;
mod releases;
mod review;
mod signed;
mod site;
mod takeover;
