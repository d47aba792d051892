//! The user namespace that this process is in, as far as ids go: which it has, and which of them nobody is likely to use.
//!
//! Called by `spawn`, by the supervisor, which is root of the host only where all ids are there, and by the command line.

use crate::ConfineError;

/// Which ids of users, or of groups, there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids(Vec<(u32, u32)>);

impl Ids {
    /// Of this process, by the file's name (`uid_map`, `gid_map`).
    pub fn own(file: &'static str) -> Result<Self, ConfineError> {
        let text = std::fs::read_to_string(format!("/proc/self/{file}"))
            .map_err(|source| ConfineError::Host { what: "reading our own id map", source })?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (inside, _, count) = (words.next()?, words.next()?, words.next()?);
            Some((inside.parse().ok()?, count.parse().ok()?))
        });
        Self(lines.collect())
    }

    /// Whether all ids are there, as in the host's first user namespace.
    pub fn are_all(&self) -> bool {
        self.0 == [(0, u32::MAX)]
    }

    /// `inside outside count` lines that map every one to itself.
    pub fn to_themselves(&self) -> String {
        self.0.iter().map(|(first, count)| format!("{first} {first} {count}\n")).collect()
    }

    /// The id `wanted` if there is one, else one from the upper end of the longest run, chosen by it: accounts are at the lower end.
    pub fn spare(&self, wanted: u32) -> u32 {
        if self.0.iter().any(|(first, count)| wanted.checked_sub(*first).is_some_and(|n| n < *count)) {
            return wanted;
        }
        let (first, count) = self.0.iter().copied().max_by_key(|(_, count)| *count).unwrap_or((0, 1));
        // Not the last one of all of a 16-bit range: that is nobody's.
        let room = count / 4;
        first.saturating_add(count.saturating_sub(1)).saturating_sub(if room > 1 { 2 + wanted % room } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_ids_are_those_of_the_namespace() {
        let host = Ids::parse("         0          0 4294967295\n");
        assert!(host.are_all());
        assert_eq!((host.spare(0x7000_0001), host.to_themselves().as_str()), (0x7000_0001, "0 0 4294967295\n"));
        let rootless = Ids::parse("0 54330 1\n1 100000 65536\n");
        assert!(!rootless.are_all());
        assert_eq!(rootless.to_themselves(), "0 0 1\n1 1 65536\n");
        for wanted in [0x7000_0000, 0x7000_3fff, 0x7000_4000, u32::MAX] {
            let id = rootless.spare(wanted);
            assert!((49_000..65_535).contains(&id), "{id}");
        }
        assert_eq!(Ids::parse("0 1000 1\n").spare(0x7000_0000), 0);
        assert_eq!(Ids::parse("").spare(5), 0);
    }
}
