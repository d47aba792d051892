//! What is kept on disk of a container: DIR/ID/state.json, as `state` prints it, replaced whole on every change.
//!
//! A command line reads it without a supervisor; the supervisor never trusts it for anything but removal.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cofferdam_control::client::State;
use serde::Serialize;

/// A container's folder.
#[derive(Debug)]
pub struct Record {
    folder: PathBuf,
    oci_version: String,
    annotations: BTreeMap<String, String>,
    /// Whether it ends with a connection: nothing of it outlives the supervisor.
    passing: bool,
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: String,
    created: u64,
    owner: u32,
    annotations: &'a BTreeMap<String, String>,
    passing: bool,
}

impl Record {
    /// Makes the folder (mode 0700); it must not exist.
    pub fn create(
        root: &Path,
        id: &str,
        oci_version: String,
        annotations: BTreeMap<String, String>,
        passing: bool,
    ) -> std::io::Result<Self> {
        let folder = root.join(id);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self { folder, oci_version, annotations, passing })
    }

    /// Writes the state.
    pub fn write(&self, state: &State) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(&Written {
            oci_version: &self.oci_version,
            id: &state.id,
            pid: state.pid,
            status: state.status.word(),
            bundle: String::from_utf8_lossy(&state.bundle).into_owned(),
            created: state.created,
            owner: state.owner,
            annotations: &self.annotations,
            passing: self.passing,
        })?;
        let new = self.folder.join("state.json.new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, self.folder.join("state.json"))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    for file in ["state.json", "state.json.new"] {
        let _ = std::fs::remove_file(folder.join(file));
    }
    let _ = std::fs::remove_dir(folder);
}

/// Removes what an earlier supervisor of this directory could not, because it was killed: containers that were to end
/// with a connection, and such as never came to be. Only for the holder of the lock.
pub fn sweep(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let folder = entry.path();
        let passing = match std::fs::read(folder.join("state.json")) {
            Ok(text) => serde_json::from_slice::<serde_json::Value>(&text)
                .is_ok_and(|state| state.get("passing").and_then(serde_json::Value::as_bool) == Some(true)),
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        };
        if passing {
            remove(&folder);
        }
    }
}
