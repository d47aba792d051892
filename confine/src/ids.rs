//! The user namespace that this process is in, as far as ids go: which it has, who they are outside, and which of them nobody is likely
//! to use.
//!
//! Called by `spawn`, by the supervisor, which is root of the host only where all ids are there, and by the command line.

use crate::ConfineError;

/// Which ids of users, or of groups, there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids(Vec<Run>);

/// Ids that follow each other: the first, how it is called in the namespace above, how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    outside: u32,
    count: u32,
}

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
            let mut number = || words.next()?.parse().ok();
            Some(Run { first: number()?, outside: number()?, count: number()? })
        });
        Self(lines.collect())
    }

    /// Whether all ids are there, as in the host's first user namespace.
    pub fn are_all(&self) -> bool {
        self.0 == [Run { first: 0, outside: 0, count: u32::MAX }]
    }

    /// `inside outside count` lines that map every one to itself.
    pub fn to_themselves(&self) -> String {
        self.0.iter().map(|Run { first, count, .. }| format!("{first} {first} {count}\n")).collect()
    }

    /// Who this is in the namespace above.
    pub fn outside(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|run| {
            let n = id.checked_sub(run.first).filter(|n| *n < run.count)?;
            run.outside.checked_add(n)
        })
    }

    /// The id `wanted` if there is one, else one from the upper end of the longest run, chosen by it: accounts are at the lower end.
    pub fn spare(&self, wanted: u32) -> u32 {
        if self.outside(wanted).is_some() {
            return wanted;
        }
        let longest = self.0.iter().max_by_key(|run| run.count);
        let (first, count) = longest.map_or((0, 1), |run| (run.first, run.count));
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
        let outside = [0, 1, 65_536, 65_537].map(|id| rootless.outside(id));
        assert_eq!(outside, [Some(54_330), Some(100_000), Some(165_535), None]);
        assert_eq!(rootless.to_themselves(), "0 0 1\n1 1 65536\n");
        for wanted in [0x7000_0000, 0x7000_3fff, 0x7000_4000, u32::MAX] {
            let id = rootless.spare(wanted);
            assert!((49_000..65_535).contains(&id), "{id}");
        }
        assert_eq!(Ids::parse("0 1000 1\n").spare(0x7000_0000), 0);
        assert_eq!(Ids::parse("").spare(5), 0);
    }
}
