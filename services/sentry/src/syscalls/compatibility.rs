//! `docs/COMPATIBILITY.md`, made from the table.

use cofferdam_control::calls;

use super::{Support, families};

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
        .zip(calls::NAMES)
        .filter(|(n, name)| !name.is_empty() && !listed.contains(n))
        .map(|(_, name)| *name)
        .collect();
    out.push_str(&format!("\n## Missing\n\n{}\n", missing.join(", ")));
    out.push_str(&differences(DEVIATIONS));
    out
}

/// What the guest programs print otherwise in the sandbox than natively, each with its reason.
const DEVIATIONS: &str = include_str!("../../../../tests/guest/EXPECTED-DEVIATIONS");

/// The reasons, by program, each once, with how many lines differ for it.
fn differences(known: &str) -> String {
    let mut reasons: Vec<(&str, &str, usize)> = Vec::new();
    for line in known.lines().filter(|l| !l.starts_with('#')) {
        let (Some(program), Some(reason)) = (line.split(" | ").next(), line.split(" | ").nth(2)) else { continue };
        match reasons.iter_mut().find(|r| r.0 == program && r.1 == reason) {
            Some(r) => r.2 += 1,
            None => reasons.push((program, reason, 1)),
        }
    }
    let mut out = String::from(
        "\n## What tests found to differ\n\nThe programs of `tests/guest` say the same natively and in the sandbox, line by line, but for these lines:\n\n| program | lines | why |\n|---|---|---|\n",
    );
    for (program, reason, lines) in reasons {
        out.push_str(&format!("| {program} | {lines} | {reason} |\n"));
    }
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
                assert_eq!(calls::of(e.number), e.name, "number {}", e.number);
                assert!(seen.insert(e.number), "{} stands twice", e.name);
                assert!(e.support == Support::Full || !e.note.is_empty(), "{} says not what is missing", e.name);
            }
        }
    }

    #[test]
    fn a_reason_stands_once_for_all_its_lines() {
        let page = differences("# no line\na | -1 x | because\na | +1 y | because\nb | -2 z | why not\n");
        assert!(page.ends_with("| a | 2 | because |\n| b | 1 | why not |\n"), "{page}");
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
