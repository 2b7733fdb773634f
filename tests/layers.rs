//! Imports only go down. This test reads the source and holds every module to its layer; it also holds the library to
//! what `cli` alone may do: print, read the environment, know the wall clock.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. Modules of one line may use each other.
const LAYERS: &[&[&str]] = &[
    &["digest", "canon", "hint", "oci", "reference"],
    &["openshift"],
    &["chart"],
    &["config"],
    &["store"],
    &["registry"],
    &["step"],
    &["plan"],
    &["archive"],
    &["run"],
    &["deliver"],
    &["demo"],
    &["cli"],
];

/// Imports that go up and are allowed, with the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "oci",
    "store",
    "a descriptor is a promise: `Blob::from(&Descriptor)` lives with `Blob`",
)];

/// What only `cli` may do, with what it is.
const RESERVED: &[(&str, &str)] = &[
    ("println!", "prints"),
    ("print!", "prints"),
    ("eprintln!", "prints"),
    ("eprint!", "prints"),
    ("std::env::", "reads the environment"),
    ("env::var", "reads the environment"),
    ("SystemTime::now", "knows the wall clock"),
    ("Timestamp::now", "knows the wall clock"),
    ("Zoned::now", "knows the wall clock"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The text of a file without comments and without what is compiled for tests only.
fn code(text: &str) -> String {
    let mut out = String::new();
    let mut skipped: Option<usize> = None;
    let mut pending = false;
    let mut depth = 0_usize;
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        if skipped.is_none() && line.trim_start().starts_with("#[cfg(test)]") {
            pending = true;
        }
        if pending && line.contains('{') {
            skipped = Some(depth);
            pending = false;
        } else if pending && line.trim_end().ends_with(';') {
            pending = false;
            continue;
        }
        depth = (depth + line.matches('{').count()).saturating_sub(line.matches('}').count());
        if let Some(start) = skipped {
            if depth <= start {
                skipped = None;
            }
            continue;
        }
        if !pending {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// The top-level module that a file belongs to.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix("src").unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name == "tests"
            || name == "tests.rs"
            || name.ends_with("_tests.rs")
            || name == "any.rs"
            || name == "samples.rs"
            || name == "contract.rs"
    })
}

fn files() -> Vec<(PathBuf, String, String)> {
    let mut found = Vec::new();
    sources(Path::new("src"), &mut found);
    found
        .into_iter()
        .filter(|path| !is_test_file(path))
        .map(|path| {
            let text = code(&fs::read_to_string(&path).unwrap());
            let module = module_of(&path);
            (path, module, text)
        })
        .collect()
}

#[test]
fn imports_only_go_down() {
    let height: BTreeMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(height, modules)| modules.iter().map(move |module| (*module, height)))
        .collect();
    let mut wrong = Vec::new();
    for (path, module, text) in files() {
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(own) = height.get(module.as_str()) else {
            wrong.push(format!(
                "{}: module {module} is in no layer",
                path.display()
            ));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for part in line.split("crate::").skip(1) {
                let names: Vec<&str> = match part.strip_prefix('{') {
                    Some(list) => list
                        .split(',')
                        .map(|name| name.trim().trim_end_matches('}'))
                        .collect(),
                    None => vec![part],
                };
                for name in names {
                    let name: String = name
                        .chars()
                        .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                        .collect();
                    let Some(other) = height.get(name.as_str()) else {
                        continue;
                    };
                    let excepted = EXCEPTIONS
                        .iter()
                        .any(|(from, to, _)| *from == module && *to == name);
                    if other > own && !excepted {
                        wrong.push(format!(
                            "{}:{}: {module} uses {name}, which is above it",
                            path.display(),
                            number + 1
                        ));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports must only go down:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn only_the_command_line_prints_reads_the_environment_or_knows_the_clock() {
    let mut wrong = Vec::new();
    for (path, module, text) in files() {
        if module == "cli" || module == "main" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for (mark, what) in RESERVED {
                if line.contains(mark) {
                    wrong.push(format!(
                        "{}:{}: {what} ({mark})",
                        path.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "only cli may do this:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn asynchrony_stays_inside_the_registry() {
    let mut wrong = Vec::new();
    for (path, module, text) in files() {
        for (number, line) in text.lines().enumerate() {
            let is_async =
                line.contains("async fn") || line.contains(".await") || line.contains("async move");
            let is_public = line.trim_start().starts_with("pub async fn");
            if is_async && (module != "registry" || is_public) {
                wrong.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "no async fn is visible outside registry:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_lower_layers_do_not_know_the_word_openshift() {
    let mut wrong = Vec::new();
    for (path, module, text) in files() {
        if ![
            "digest",
            "canon",
            "hint",
            "oci",
            "reference",
            "store",
            "registry",
            "archive",
            "plan",
        ]
        .contains(&module.as_str())
        {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if line.to_lowercase().contains("openshift") {
                wrong.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "store, wire, engine, archive and lock do not know it:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_reader_of_this_test_sees_what_is_compiled_and_nothing_else() {
    let text = "use crate::a;\n// use crate::b;\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\nuse crate::d;\n#[cfg(test)]\nmod e;\nuse crate::f;\n";
    let seen: Vec<String> = code(text)
        .lines()
        .map(str::to_owned)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(
        seen,
        ["use crate::a;", "use crate::d;", "use crate::f;"],
        "comments and tests are not code"
    );
}
