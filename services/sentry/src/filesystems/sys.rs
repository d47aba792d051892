//! `/sys`: what programs look for to count processors, and an empty cgroup tree.

use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::proc::system;
use crate::filesystems::pseudo::{PseudoFs, directory, fixed, text};
use crate::kernel::Kernel;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{FileSystem, InodeRef};

/// `SYSFS_MAGIC`.
const SYSFS_MAGIC: u64 = 0x6265_6572;
/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Processors that tasks may run on.
pub fn processors() -> usize {
    crate::syscalls::sched::cpus()
}

fn cpu_list() -> String {
    match processors() {
        1 => String::from("0\n"),
        n => format!("0-{}\n", n - 1),
    }
}

/// A new sysfs.
pub fn mount(kernel: &Arc<Kernel>) -> (Arc<dyn FileSystem>, Arc<Dentry>) {
    let fs = PseudoFs::new("sysfs", SYSFS_MAGIC);
    let f: &PseudoFs = &fs;
    let empty = || directory(f, Vec::new());
    let list = || fixed(f, cpu_list());
    let mut cpus: Vec<(String, InodeRef)> = Vec::new();
    for n in 0..processors() {
        let topology = directory(
            f,
            vec![
                ("core_id", fixed(f, format!("{n}\n"))),
                ("physical_package_id", fixed(f, "0\n")),
                ("thread_siblings_list", fixed(f, format!("{n}\n"))),
                ("core_cpus_list", fixed(f, format!("{n}\n"))),
            ],
        );
        cpus.push((format!("cpu{n}"), directory(f, vec![("topology", topology), ("online", fixed(f, "1\n"))])));
    }
    let mut cpu: Vec<(&str, InodeRef)> = cpus.iter().map(|(n, i)| (n.as_str(), i.clone())).collect();
    cpu.extend([("online", list()), ("possible", list()), ("present", list())]);
    cpu.push(("kernel_max", fixed(f, "8191\n")));
    let k = kernel.clone();
    let memory = text(f, move |_| {
        let all = system::meminfo(&k);
        Ok(all.lines().map(|l| format!("Node 0 {l}\n")).collect::<String>().into_bytes())
    });
    let map = fixed(f, format!("{:x}\n", u128::MAX.checked_shr(128 - processors().min(128) as u32).unwrap_or(0)));
    let node0 =
        directory(f, vec![("cpulist", list()), ("cpumap", map), ("distance", fixed(f, "10\n")), ("meminfo", memory)]);
    let node = directory(f, vec![("node0", node0), ("online", fixed(f, "0\n")), ("possible", fixed(f, "0\n"))]);
    let system = directory(f, vec![("cpu", directory(f, cpu)), ("node", node)]);
    let thp = directory(
        f,
        vec![("enabled", fixed(f, "always [madvise] never\n")), ("hpage_pmd_size", fixed(f, "2097152\n"))],
    );
    let mm = directory(f, vec![("transparent_hugepage", thp), ("hugepages", empty())]);
    let root = directory(
        f,
        vec![
            ("block", empty()),
            ("bus", empty()),
            ("class", directory(f, vec![("net", empty()), ("tty", empty())])),
            ("dev", directory(f, vec![("block", empty()), ("char", empty())])),
            ("devices", directory(f, vec![("system", system), ("virtual", empty())])),
            ("firmware", empty()),
            ("fs", directory(f, vec![("cgroup", empty())])),
            ("kernel", directory(f, vec![("mm", mm), ("security", empty()), ("debug", empty())])),
            ("module", empty()),
            ("power", empty()),
        ],
    );
    (fs, Dentry::root(root))
}

/// A new cgroup file system (version 2): the root group of the container, without controllers.
pub fn mount_cgroup() -> (Arc<dyn FileSystem>, Arc<Dentry>) {
    let fs = PseudoFs::new("cgroup2", CGROUP2_MAGIC);
    let f: &PseudoFs = &fs;
    let procs = text(f, |caller| {
        let Some(task) = caller.task else { return Err(Errno::ESRCH) };
        use crate::vfs::control::ProcessControl;
        Ok(format!("{}\n", task.process()).into_bytes())
    });
    let root = directory(
        f,
        vec![
            ("cgroup.controllers", fixed(f, "\n")),
            ("cgroup.subtree_control", fixed(f, "\n")),
            ("cgroup.procs", procs),
            ("cgroup.max.depth", fixed(f, "max\n")),
            ("cgroup.max.descendants", fixed(f, "max\n")),
        ],
    );
    (fs, Dentry::root(root))
}
