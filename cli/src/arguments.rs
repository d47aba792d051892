//! The command line's grammar. Flags may follow positional arguments, and a repeated flag's last value counts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs programs in a sandbox: an OCI container runtime whose kernel is a program of its own.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, subcommand_required = true, arg_required_else_help = true)]
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
    /// Accepted for compatibility: resources are not put into systemd slices yet
    #[arg(long, global = true, overrides_with = "systemd_cgroup")]
    pub systemd_cgroup: bool,
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
    /// Stand in for a container's init (started by create)
    #[command(hide = true)]
    StandIn {
        /// The container
        id: String,
    },
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
    /// Network of the sandbox
    #[arg(long, default_value = "none", value_parser = ["none"])]
    pub network: String,
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
    /// Write to the rootfs itself instead of memory
    #[arg(long)]
    pub no_overlay: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
}
