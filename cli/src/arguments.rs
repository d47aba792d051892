//! The command line's grammar. Flags may follow positional arguments, and a repeated flag's last value counts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::activation;
use crate::events::Events;
use crate::network;
use crate::update::Update;

/// What `--version` says after the name, in runc's form: engines look for `version` and `spec:`.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.1");

/// Runs programs in a sandbox: an OCI container runtime whose kernel is a program of its own.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version = VERSION, subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    /// What every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `time="..." level=... msg="..."`.
    Text,
    /// One JSON object a line.
    Json,
}

/// The platform that runs the container's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Platform {
    /// Whatever works best on this host.
    Auto,
    /// Seccomp user notification.
    Notify,
    /// ptrace.
    Ptrace,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Who changes files of the host that a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileAccess {
    /// The container alone: what was once fetched is kept.
    Exclusive,
    /// The host, too: each use asks anew.
    Shared,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// Directory for the state of containers [default: /run/cofferdam, or $XDG_RUNTIME_DIR/cofferdam without root]
    #[arg(long, global = true, value_name = "DIR", overrides_with = "root")]
    pub root: Option<PathBuf>,
    /// Write the log to FILE
    #[arg(long, global = true, value_name = "FILE", overrides_with = "log")]
    pub log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", overrides_with = "log_format")]
    pub log_format: Format,
    /// Log each decision
    #[arg(long, global = true, overrides_with = "debug")]
    pub debug: bool,
    /// Print how long each phase of the start took
    #[arg(long, global = true, overrides_with = "trace_startup")]
    pub trace_startup: bool,
    /// The platform that runs the container's code
    #[arg(long, global = true, value_name = "P", default_value = "auto", overrides_with = "platform")]
    pub platform: Platform,
    /// Whether call sites of programs may be patched, so that frequent calls come to the Sentry by a shorter way
    #[arg(long, global = true, value_name = "SWITCH", default_value = "on", overrides_with = "patch")]
    pub patch: Switch,
    /// Whether the root's files are the container's alone and kept in memory once read (exclusive), or change on the host
    /// while it runs and are asked for each time (shared)
    #[arg(long, global = true, value_name = "ACCESS", default_value = "exclusive", overrides_with = "file_access")]
    pub file_access: FileAccess,
    /// The same for bind mounts
    #[arg(long, global = true, value_name = "ACCESS", default_value = "shared", overrides_with = "file_access_mounts")]
    pub file_access_mounts: FileAccess,
    /// Whether what a container of a bundle changes in its root stays in memory and is gone with it (on), or is written to the
    /// bundle's rootfs, where its engine looks for it (off). The annotation dev.cofferdam.overlay says it for one container
    #[arg(long, global = true, value_name = "SWITCH", default_value = "off", overrides_with = "overlay")]
    pub overlay: Switch,
    /// Have systemd make the cgroups: linux.cgroupsPath is slice:prefix:name then, and the container a unit prefix-name.scope
    #[arg(long, global = true, overrides_with = "systemd_cgroup")]
    pub systemd_cgroup: bool,
    /// Accepted as runc has it, before the command: cgroups that may not be made are an error for root and a warning for others, whatever
    /// is said here
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = ["true", "false", "auto"])]
    pub rootless: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one command over the host's root (or another directory); nothing on the host changes
    Do(Do),
    /// Write a config.json to start from
    Spec {
        /// The bundle to write it to
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        bundle: PathBuf,
        /// For a caller without privilege: in a user namespace, where root is the caller
        #[arg(long, default_value_t = false)]
        rootless: bool,
    },
    /// Make a container from a bundle
    Create(Create),
    /// Run the process of a created container
    Start {
        /// The container
        id: String,
    },
    /// Make a container, run it and wait for its end
    Run {
        /// As for create
        #[command(flatten)]
        create: Create,
        /// Do not wait for its end
        #[arg(short, long)]
        detach: bool,
        /// Keep the container when it has ended
        #[arg(long)]
        keep: bool,
    },
    /// Run a further process in a container
    Exec(Exec),
    /// Print the processes of a container, by their ids on the host
    Ps {
        /// The container
        id: String,
        /// table or json
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        format: String,
        /// Options of ps(1) for the table [default: -ef]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        options: Vec<OsString>,
    },
    /// Let none of a container's processes run until it is resumed
    Pause {
        /// The container
        id: String,
    },
    /// Let a paused container's processes run on
    Resume {
        /// The container
        id: String,
    },
    /// Wait for a container's end and print how it ended
    Wait {
        /// The container
        id: String,
    },
    /// Print the state of a container
    State {
        /// The container
        id: String,
    },
    /// Send a signal to a container's init
    Kill {
        /// The container
        id: String,
        /// The signal, by name or number
        #[arg(default_value = "SIGTERM")]
        signal: String,
        /// Send it to every process of the container
        #[arg(short, long)]
        all: bool,
    },
    /// Remove a container that has ended
    Delete {
        /// The container
        id: String,
        /// Kill it first; no error if there is none
        #[arg(short, long)]
        force: bool,
    },
    /// Print every container
    List {
        /// table or json
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        format: String,
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Change the limits of a container
    Update(Box<Update>),
    /// Print what a container uses, and when the host kills in it for want of memory
    Events(Events),
    /// Print what this runtime can do, as the OCI runtime specification has it
    Features,
    /// Look into a running container
    Debug {
        /// The container
        id: String,
        /// Print the system calls that it made in vain: missing ones, and those refused on purpose
        #[arg(long, required = true)]
        unimplemented: bool,
    },
    /// Stand in for a process of a container (started by create and exec)
    #[command(hide = true)]
    StandIn {
        /// The container
        id: String,
        /// Which process: 0 for its init
        process: u32,
    },
}

impl Command {
    /// How many descriptors from 3 on are for what is to be run.
    pub fn preserved(&self) -> u32 {
        match self {
            Command::Create(create) | Command::Run { create, .. } => {
                create.preserve_fds.saturating_add(activation::handed())
            }
            Command::Exec(exec) => exec.preserve_fds,
            _ => 0,
        }
    }
}

/// `do`.
#[derive(Debug, Args)]
pub struct Do {
    /// Directory to take as the root [default: /]
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// Show a host file or directory inside, writable unless :ro
    #[arg(long, value_name = "SRC:DST[:ro]")]
    pub bind: Vec<String>,
    /// Set an environment variable
    #[arg(long, short, value_name = "K=V")]
    pub env: Vec<OsString>,
    /// Directory to run in
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// User and group to run as [default: yours]
    #[arg(long, short, value_name = "U[:G]")]
    pub user: Option<String>,
    /// Make the root read-only instead of writable in memory
    #[arg(long)]
    pub readonly: bool,
    /// Network of the sandbox: user (one of its own, which leads out by your sockets), host (yours), sandbox (an interface and addresses of its own,
    /// behind this host's; root only), none (its loopback device alone), or ns:PATH (what is in that network namespace is the sandbox's while it
    /// runs)
    #[arg(long, value_name = "MODE", default_value = "user")]
    pub network: network::Mode,
    /// Let a port of yours lead into the sandbox
    #[arg(long, short, value_name = "[IP:]PORT:PORT_INSIDE[/udp]")]
    pub publish: Vec<network::Publish>,
    /// What may pass between the sandbox and its network: `in|out allow|deny all|[tcp|udp|icmp|any] [ADDRESS[/BITS]][:PORT[-PORT]]`, the first
    /// rule that fits counts; `in|out default allow|deny` is for what none fits
    #[arg(long, value_name = "RULE")]
    pub net_rule: Vec<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `create`, and the same of `run`.
#[derive(Debug, Args)]
pub struct Create {
    /// The container's id
    pub id: String,
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Write the pid of the container's process to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Socket that takes the terminal's descriptor
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Pass N more descriptors, from 3
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub preserve_fds: u32,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// The container
    pub id: String,
    /// Socket that takes the terminal's descriptor
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Directory to run in
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Set an environment variable
    #[arg(long, short, value_name = "K=V")]
    pub env: Vec<String>,
    /// Give it a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// User and group to run as, as numbers
    #[arg(long, short, value_name = "U[:G]")]
    pub user: Option<String>,
    /// Supplementary groups
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// Take the process from an OCI process document
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(long, short)]
    pub detach: bool,
    /// Write the pid of the process to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Accepted for compatibility: there is no SELinux in a sandbox
    #[arg(long, hide = true)]
    pub process_label: Option<String>,
    /// Accepted for compatibility: there is no AppArmor in a sandbox
    #[arg(long, hide = true)]
    pub apparmor: Option<String>,
    /// It can gain no privileges
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub no_new_privs: Option<bool>,
    /// Add a capability
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Pass N more descriptors, from 3
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub preserve_fds: u32,
    /// End by the signal that ended it, where that is how it ended (for hooks)
    #[arg(long, hide = true)]
    pub end_as_it: bool,
    /// Make it in a paused container, where it runs once that is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// Run it in that cgroup of the container, which must be there: there is the container's own alone (/)
    #[arg(long, value_name = "[CONTROLLERS:]PATH")]
    pub cgroup: Vec<String>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use super::VERSION;

    #[test]
    fn the_version_names_the_specification_that_features_does() {
        assert!(VERSION.ends_with(cofferdam_control::oci::VERSIONS.1));
    }
}
