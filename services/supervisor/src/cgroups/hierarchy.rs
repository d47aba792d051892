//! Where this host's cgroup hierarchies are: from `/proc/self/mountinfo` and `/proc/self/cgroup`, whose texts are the kernel's.
//!
//! A host has version 2 alone (unified), version 1 (a hierarchy for each controller), or both (hybrid: the one of version 2 has the
//! controllers that no other has). Called by `cgroups`.

use std::path::{Path, PathBuf};

use crate::paths::below_root;

/// One hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Where the process is in it, below `mount`.
    pub own: PathBuf,
    /// The controllers of version 1 (`name=systemd` for one without); none for version 2, whose folders say what they have.
    pub controllers: Vec<String>,
    /// Whether it is the one of version 2.
    pub unified: bool,
}

/// The hierarchies, with the place of a process in them; of this one, if that is gone.
pub fn discover(of: i32) -> std::io::Result<Vec<Hierarchy>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    // A kernel without cgroups has none.
    let groups = std::fs::read_to_string(format!("/proc/{of}/cgroup"))
        .or_else(|_| std::fs::read_to_string("/proc/self/cgroup"))
        .unwrap_or_default();
    Ok(parse(&mounts, &groups))
}

/// The hierarchies that both texts tell of.
pub fn parse(mountinfo: &str, cgroup: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(names), Some(own)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let controllers: Vec<String> = names.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect();
        let unified = controllers.is_empty();
        let mount = mountinfo.lines().filter_map(Mount::parse).find(|m| {
            let words: Vec<&str> = m.options.split(',').collect();
            match unified {
                true => m.kind == "cgroup2",
                false => m.kind == "cgroup" && controllers.iter().all(|c| words.contains(&c.as_str())),
            }
        });
        let Some(mount) = mount else { continue };
        // What is mounted may be a part of the hierarchy (in a container); a place outside of it cannot be named.
        let below = Path::new(own).strip_prefix(&mount.root).unwrap_or(Path::new(""));
        let own = below.strip_prefix("/").unwrap_or(below).to_owned();
        found.push(Hierarchy { mount: mount.point, own, controllers, unified });
    }
    found
}

struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELDS] - TYPE SOURCE OPTIONS`.
    fn parse(line: &'a str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, point) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, options) = (back.next()?, back.nth(1).unwrap_or_default());
        Some(Self { root: unescaped(root), point: unescaped(point), kind, options })
    }
}

/// A path as mountinfo has it: blanks and backslashes by their number, `\040`.
fn unescaped(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let number = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match after.split_at_checked(3).and_then(|(digits, after)| number(digits).zip(Some(after))) {
            Some((byte, after)) if *first == b'\\' => {
                out.push(byte);
                rest = after;
            }
            _ => out.push(*first),
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

impl Hierarchy {
    /// The folder of a container's cgroup, as runc finds it: an absolute path is one below the mount, another (the id by default) one
    /// below the process's own cgroup. Where nothing but version 2 is, it is beside our own, since one with processes can give no controllers on.
    pub fn folder(&self, asked: &str, id: &str, alone: bool) -> PathBuf {
        let inner = below_root(Path::new(asked));
        if asked.starts_with('/') {
            return self.mount.join(inner);
        }
        let own = match (self.unified && alone, self.own.parent()) {
            (true, Some(parent)) => parent,
            _ => &self.own,
        };
        let inner = if inner.as_os_str().is_empty() { PathBuf::from(id) } else { inner };
        self.mount.join(own).join(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/a\\040b /sys/fs/cgroup/mem\\134ory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_are_found_by_controller() {
        let own = "9:name=systemd:/init.scope\n5:pids:/p\n4:memory:/docker/a b/x\n2:cpu,cpuacct:/\n0::/init.scope\n";
        let found = parse(HYBRID, own);
        let brief: Vec<_> = found.iter().map(|h| (h.mount.to_str().unwrap(), h.own.to_str().unwrap())).collect();
        assert_eq!(
            brief,
            [
                ("/sys/fs/cgroup/systemd", "init.scope"),
                ("/sys/fs/cgroup/mem\\ory", "x"),
                ("/sys/fs/cgroup/cpu,cpuacct", ""),
                ("/sys/fs/cgroup/unified", "init.scope"),
            ],
            "pids is mounted nowhere"
        );
        assert!(found.last().unwrap().unified);
        assert!(parse("", own).is_empty());
        assert!(parse("garbage\n - \n", "0::\nx\n1:\n").is_empty());
    }

    #[test]
    fn a_path_never_leaves_its_hierarchy() {
        let own = PathBuf::from("user.slice/a.scope");
        let h = Hierarchy { mount: "/m".into(), own, controllers: vec![], unified: true };
        for (asked, alone, folder) in [
            ("/a/../../../b", true, "/m/b"),
            ("/pod/c1", false, "/m/pod/c1"),
            ("", false, "/m/user.slice/a.scope/id"),
            ("", true, "/m/user.slice/id"),
            ("x/./y", true, "/m/user.slice/x/y"),
            ("../../../x", false, "/m/user.slice/a.scope/x"),
            ("system.slice:x:y", false, "/m/user.slice/a.scope/system.slice:x:y"),
        ] {
            assert_eq!(h.folder(asked, "id", alone), PathBuf::from(folder), "{asked}");
        }
    }
}
