//! Names that were probably meant.

/// How many are proposed.
const MOST: usize = 3;

/// The names of `known` that are closest to `wanted`, the closest first; none if nothing is close.
pub(super) fn near<'k>(wanted: &str, known: impl IntoIterator<Item = &'k str>) -> Vec<String> {
    let lower = wanted.to_lowercase();
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|name| {
            let other = name.to_lowercase();
            let apart = distance(&lower, &other);
            let part = lower.len() > 2 && (other.contains(&lower) || lower.contains(&other));
            (apart <= (lower.len().max(other.len()) / 4).max(1) || part).then_some((apart, name))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
        .into_iter()
        .take(MOST)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let same = left[i - 1] == right[j - 1];
            let mut least = (above[j - 1] + usize::from(!same))
                .min(above[j] + 1)
                .min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn what_was_probably_meant_comes_first() {
        let known = ["stable", "stable-3.10", "stable-3.1", "candidate", "fast"];
        for (wanted, expected) in [
            ("stabel", &["stable"][..]),
            ("stable-3.11", &["stable-3.1", "stable-3.10", "stable"]),
            ("Fast", &["fast"]),
            ("nightly", &[]),
        ] {
            assert_eq!(near(wanted, known), expected, "{wanted}");
        }
    }
}
