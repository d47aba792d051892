//! A hostile program in a service's place: born as the launcher bears services, behind the same walls, it makes one
//! system call that it was told and says by its exit status what came of it.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use cofferdam_confine::caps::Capability;
use cofferdam_confine::{Landlock, Walls, inherited_channel};
use cofferdam_control::Channel;
use cofferdam_integration::attempt::{Argument, Attempt, NO_WALLS, REFUSED, SUCCEEDED};

fn main() {
    let attempt = match prepare() {
        Ok(attempt) => attempt,
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(NO_WALLS);
        }
    };
    let mut buffers: Vec<Vec<u8>> = Vec::new();
    let mut words = [u64::MAX; 6];
    for (word, argument) in words.iter_mut().zip(&attempt.arguments) {
        *word = match argument {
            Argument::Number(n) => *n,
            Argument::Bytes(bytes) => {
                let mut owned = bytes.clone();
                owned.push(0);
                buffers.push(owned);
                buffers.last().map_or(0, |b| b.as_ptr() as u64)
            }
            Argument::Zeros(len) => {
                buffers.push(vec![0; *len as usize]);
                buffers.last().map_or(0, |b| b.as_ptr() as u64)
            }
            Argument::Vector(len) => {
                buffers.push(vec![0; *len as usize]);
                let base = buffers.last().map_or(0, |b| b.as_ptr() as u64);
                buffers.push([base.to_ne_bytes(), u64::from(*len).to_ne_bytes()].concat());
                buffers.last().map_or(0, |b| b.as_ptr() as u64)
            }
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: the whole point: any call with any arguments, in a process that has nothing to lose. The exit must not
    // run anything that the call may have broken.
    unsafe {
        let result = libc::syscall(attempt.number, a, b, c, d, e, f);
        libc::syscall(libc::SYS_exit_group, if result == -1 { REFUSED } else { SUCCEEDED });
    }
}

fn prepare() -> Result<Attempt, String> {
    let channel = Channel::new(inherited_channel().map_err(|e| e.to_string())?);
    let attempt: Attempt = channel.receive().map_err(|e| e.to_string())?.message;
    // A call that blocks must not block the test. The alarm survives the filter.
    // SAFETY: a scalar.
    unsafe { libc::alarm(2) };
    let keep = [channel.into_socket().as_raw_fd()];
    let files =
        [Capability::CAP_CHOWN, Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH, Capability::CAP_FOWNER];
    Walls {
        policy: &attempt.policy,
        keep: if attempt.files { &[] } else { &keep[..0] },
        capabilities: if attempt.files { &files } else { &[] },
        landlock: attempt.files.then(Landlock::default),
        trees: &[],
        dumpable: false,
    }
    .raise()
    .map_err(|e| e.to_string())?;
    Ok(attempt)
}
