//! What `imgbuild init` writes: commented files that work as they are.

use super::imageset::ApiVersion;

/// A commented `ImageSetConfiguration` to start from; it parses without a note.
#[must_use]
pub fn starter(api_version: ApiVersion) -> &'static str {
    match api_version {
        ApiVersion::V1Alpha2 => include_str!("starter/v1alpha2.yaml"),
        ApiVersion::V2Alpha1 => include_str!("starter/v2alpha1.yaml"),
    }
}

/// A commented `DeleteImageSetConfiguration` to start from; it parses without a note.
#[must_use]
pub fn delete_starter() -> &'static str {
    include_str!("starter/delete.yaml")
}

/// A commented `imgbuild.toml` to start from; it parses and sets nothing.
#[must_use]
pub fn settings_starter() -> &'static str {
    include_str!("starter/imgbuild.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Settings, parse};

    /// The file with its examples in force.
    fn in_force(text: &str, example: impl Fn(&str) -> bool) -> String {
        text.lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if example(rest) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect()
    }

    #[test]
    fn every_starter_works_as_it_is_and_with_all_its_examples() {
        for text in [
            starter(ApiVersion::V2Alpha1),
            starter(ApiVersion::V1Alpha2),
            delete_starter(),
        ] {
            for (form, sections) in [
                (text.to_owned(), 1..2),
                (in_force(text, |rest| rest.starts_with("  ")), 3..10),
            ] {
                let config = parse(&form, "starter").unwrap_or_else(|errors| {
                    panic!("a starter must parse:\n{form}\n{}", errors.render())
                });
                let notes = match &config {
                    Config::ImageSet(set) => &set.notes,
                    Config::Delete(set) => &set.notes,
                };
                let allowed = usize::from(form.contains("\n    - name: busybox"));
                assert_eq!(
                    notes.len(),
                    allowed,
                    "a starter gives no cause for notes: {notes:#?}"
                );
                let used = config.sections().len();
                assert!(
                    sections.contains(&used),
                    "{used} sections are in use in\n{form}"
                );
            }
        }
    }

    #[test]
    fn the_settings_starter_sets_nothing_until_its_examples_are_in_force() {
        let text = settings_starter();
        let settings = Settings::parse(text, "imgbuild.toml").unwrap();
        assert!(
            settings.store.is_none() && settings.streams.is_empty(),
            "comments set nothing"
        );
        let form = in_force(text, |rest| !rest.starts_with(' ') && !rest.is_empty());
        let settings = Settings::parse(&form, "imgbuild.toml")
            .unwrap_or_else(|errors| panic!("the examples must parse:\n{}", errors.render()));
        assert_eq!(settings.destinations.len(), 1, "the examples are in force");
        assert_eq!(
            settings.streams["prod"].part_size.as_ref().unwrap().value,
            4_700_000_000,
            "a size is read in bytes"
        );
    }
}
