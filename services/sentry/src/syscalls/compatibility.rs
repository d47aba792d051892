//! `docs/COMPATIBILITY.md`, made from the table.

use super::{Support, families, names};

/// The page.
pub fn page() -> String {
    let mut out = String::from(
        "# System calls\n\nMade from the system-call table by `cofferdam-sentry --compatibility`; do not edit.\n\n",
    );
    let all = families();
    let count = |s: Support| all.iter().flat_map(|(_, f)| f.iter()).filter(|e| e.support == s).count();
    out.push_str(&format!(
        "{} full, {} partial, {} refused on purpose. A call that is not listed answers ENOSYS, is counted, and is named\nonce in the sandbox's log and `dmesg`.\n",
        count(Support::Full),
        count(Support::Partial),
        count(Support::Refused)
    ));
    for (family, entries) in &all {
        let mut title = (*family).to_owned();
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        out.push_str(&format!("\n## {title}\n\n| number | call | support | note |\n|---|---|---|---|\n"));
        let mut sorted: Vec<_> = entries.iter().collect();
        sorted.sort_by_key(|e| e.number);
        for e in sorted {
            let support = match e.support {
                Support::Full => "full",
                Support::Partial => "partial",
                Support::Refused => "refused",
            };
            out.push_str(&format!("| {} | {} | {support} | {} |\n", e.number, e.name, e.note));
        }
    }
    let listed: Vec<u32> = all.iter().flat_map(|(_, f)| f.iter().map(|e| e.number)).collect();
    let missing: Vec<&str> = (0u32..)
        .zip(names::NAMES)
        .filter(|(n, name)| !name.is_empty() && !listed.contains(n))
        .map(|(_, name)| *name)
        .collect();
    out.push_str(&format!("\n## Missing\n\n{}\n", missing.join(", ")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_the_number_its_name_has_on_linux_and_stands_once() {
        let mut seen = std::collections::BTreeSet::new();
        for (_, entries) in families() {
            for e in entries {
                assert_eq!(names::of(e.number), e.name, "number {}", e.number);
                assert!(seen.insert(e.number), "{} stands twice", e.name);
                assert!(e.support == Support::Full || !e.note.is_empty(), "{} says not what is missing", e.name);
            }
        }
    }

    #[test]
    fn the_page_in_the_tree_is_the_one_that_the_table_makes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/COMPATIBILITY.md");
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        let made = page();
        let differs = stored.lines().zip(made.lines()).find(|(a, b)| a != b);
        assert!(stored == made, "run cofferdam-sentry --compatibility > docs/COMPATIBILITY.md; first: {differs:?}");
    }
}
