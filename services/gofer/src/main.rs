//! The executable `cofferdam-gofer`.
//!
//! Owns: its command line and the start of the log. Must never do without the walls when a supervisor started it.
//! Callers: the supervisor (descriptor 3), or with `--serve` a person or a test.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use cofferdam_gofer::host::{Export, ExportKind, Host};
use cofferdam_gofer::orders::{Control, FromGofer};
use cofferdam_gofer::service::{self, Confinement};
use cofferdam_ninep::server::Session;
use cofferdam_transport::{Address, Channel};
use rustix::fs::{Mode, OFlags};

/// File server of a Cofferdam sandbox.
///
/// Started by the supervisor it takes its orders from descriptor 3. With --serve it serves directories over 9P2000.L to
/// whoever connects, unconfined.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Listen on unix:PATH or vsock:CID:PORT instead of taking orders.
    #[arg(long, value_name = "ADDRESS")]
    serve: Option<Address>,
    /// Serve DIR under NAME; :ro refuses every change.
    #[arg(long = "export", value_name = "NAME=DIR[:ro]", requires = "serve")]
    exports: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.serve {
        Some(address) => {
            log("info");
            serve(address, &arguments.exports)
        }
        None => ordered(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("cofferdam-gofer: {e}");
            ExitCode::FAILURE
        }
    }
}

fn log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(filter));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

type Failure = Box<dyn std::error::Error>;

fn ordered() -> Result<(), Failure> {
    let control = Arc::new(Control::new(cofferdam_confine::inherited_channel()?));
    match service::run(control.clone(), Confinement::Whole) {
        Ok(()) => cofferdam_confine::exit_now(0),
        Err(e) => {
            // Descriptor 2 may be behind walls already; the supervisor hears it on the channel.
            let _ = control.send(&FromGofer::Failed { message: e.to_string() });
            cofferdam_confine::exit_now(1)
        }
    }
}

/// Splits `NAME=DIR[:ro]`.
fn parse_export(text: &str) -> Result<(String, String, bool), String> {
    let (name, dir) = text.split_once('=').ok_or_else(|| format!("--export {text}: NAME=DIR[:ro] expected"))?;
    let (dir, read_only) = dir.strip_suffix(":ro").map_or((dir, false), |dir| (dir, true));
    if name.is_empty() || dir.is_empty() {
        return Err(format!("--export {text}: NAME=DIR[:ro] expected"));
    }
    Ok((name.to_owned(), dir.to_owned(), read_only))
}

fn open_exports(exports: &[String]) -> Result<Vec<Export>, Failure> {
    exports
        .iter()
        .map(|text| {
            let (name, dir, read_only) = parse_export(text)?;
            let root = rustix::fs::open(&*dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| format!("{dir}: {e}"))?;
            Ok(Export { name, read_only, kind: ExportKind::Directory, root, beside: None })
        })
        .collect()
}

fn serve(address: &Address, exports: &[String]) -> Result<(), Failure> {
    rustix::process::umask(Mode::empty());
    // Fails now, not at the first connection.
    open_exports(exports)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = address.listen()?;
        tracing::info!(%address, "listening");
        loop {
            let channel = Channel::new(listener.accept().await?)?;
            let budget = service::descriptor_budget();
            let backend = Host::new(open_exports(exports)?, None, budget)?;
            let session = Arc::new(Session::new(backend, service::limits(budget)));
            service::start_workers(session, channel, service::WORKERS)?;
        }
    })
}
