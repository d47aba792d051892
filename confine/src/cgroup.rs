//! A container's cgroups as its folder notes them: a stand-in goes there, the command line removes them where a supervisor was killed.
//!
//! Which ones is noted in a container's folder. Nothing but empty folders is ever removed, whatever the paths.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the file that lists them.
pub const RECORD: &str = "cgroups";

/// How a line begins that names the unit of systemd that they are, and how if it is a user's.
const UNIT: &str = "unit ";
const USER_UNIT: &str = "user-unit ";

/// Its text. `unit`: the unit of systemd that they are, and whether it is a user's.
pub fn record(folders: &[PathBuf], unit: Option<(&str, bool)>) -> Vec<u8> {
    let unit = unit.map(|(name, user)| format!("{}{name}\n", if user { USER_UNIT } else { UNIT }).into_bytes());
    let folders = folders.iter().flat_map(|f| [f.as_os_str().as_bytes(), b"\n"].concat());
    unit.unwrap_or_default().into_iter().chain(folders).collect()
}

/// The unit of systemd that is noted in a container's folder, and whether it is a user's.
pub fn recorded_unit(container: &Path) -> Option<(String, bool)> {
    unit_of(&std::fs::read_to_string(container.join(RECORD)).ok()?)
}

fn unit_of(text: &str) -> Option<(String, bool)> {
    text.lines().find_map(|l| {
        let system = l.strip_prefix(UNIT).map(|name| (name.to_owned(), false));
        system.or_else(|| l.strip_prefix(USER_UNIT).map(|name| (name.to_owned(), true)))
    })
}

/// Removes the cgroup at `folder`, and says whether it is gone. It stays while a process is in it.
pub fn remove(folder: &Path) -> bool {
    match std::fs::remove_dir(folder) {
        Ok(()) => true,
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Moves the calling process to the cgroup at `folder`.
pub fn join(folder: &Path) -> std::io::Result<()> {
    let file = folder.join("cgroup.procs");
    let joined = std::fs::File::options().write(true).open(&file).and_then(|mut f| f.write_all(b"0"));
    joined.map_err(|e| std::io::Error::other(format!("{}: {e}", file.display())))
}

/// Moves the calling process to those that are noted in a container's folder.
pub fn join_recorded(container: &Path) -> std::io::Result<()> {
    recorded(&std::fs::read(container.join(RECORD)).unwrap_or_default()).into_iter().try_for_each(join)
}

fn recorded(text: &[u8]) -> Vec<&Path> {
    text.split(|b| *b == b'\n').filter(|l| l.starts_with(b"/")).map(|l| Path::new(OsStr::from_bytes(l))).collect()
}

/// Removes those that are noted in a container's folder, trying again for a second while processes in them are dying. Whether all are
/// gone.
pub fn remove_recorded(container: &Path) -> bool {
    let text = std::fs::read(container.join(RECORD)).unwrap_or_default();
    let mut left = recorded(&text);
    for attempt in 0..100u32 {
        left.retain(|folder| !remove(folder));
        if left.is_empty() {
            return true;
        }
        if attempt < 99 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_folders_and_the_unit() {
        let folders = [PathBuf::from("/a/p-x.scope"), PathBuf::from("/b")];
        for unit in [None, Some(("p-x.scope", false)), Some(("p-x.scope", true))] {
            let text = record(&folders, unit);
            assert_eq!(recorded(&text), [Path::new("/a/p-x.scope"), Path::new("/b")]);
            let told = unit_of(std::str::from_utf8(&text).unwrap());
            assert_eq!(told.as_ref().map(|(name, user)| (name.as_str(), *user)), unit);
        }
    }
}
