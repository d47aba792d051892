//! The executable `cofferdam-netd`: started by the supervisor, with its channel as descriptor 3.

use std::process::ExitCode;

use cofferdam_control::Channel;
use cofferdam_control::netd::FromNetd;

fn main() -> ExitCode {
    let channel = match cofferdam_confine::inherited_channel() {
        Ok(fd) => Channel::new(fd),
        Err(e) => {
            eprintln!("cofferdam-netd: started by the supervisor only ({e})");
            return ExitCode::from(64);
        }
    };
    match cofferdam_netd::service::run(&channel) {
        Ok(()) => cofferdam_confine::exit_now(0),
        Err(e) => {
            let _ = channel.send_plain(&FromNetd::Failed { message: e.to_string() });
            cofferdam_confine::exit_now(1)
        }
    }
}
