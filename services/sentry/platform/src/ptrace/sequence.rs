//! Restartable sequences (`rseq(2)`) of a stopped thread.
//!
//! The host aborts a sequence as it delivers a signal or lets a thread run on that was preempted, and judges by the instruction that
//! comes next. A tracer that has a stopped thread do something else first would have it forget the sequence, which would then go on
//! as if nothing had been. So it is aborted here, as the host would, before anything is done with the thread. Everything read here is
//! the container's, and can only send the container's own thread elsewhere. Called by the tracer thread.

use libc::user_regs_struct as Regs;

use super::tracee::request;
use crate::host;

const GET_RSEQ_CONFIGURATION: i32 = 0x420f;
/// Bytes of `struct rseq_cs`.
const DESCRIPTOR: usize = 32;

/// Address of the registered area, and its signature.
fn registered(tid: i32) -> Option<(u64, u32)> {
    let mut c = [0u8; 24];
    if request(GET_RSEQ_CONFIGURATION, tid, c.len(), c.as_mut_ptr() as usize) < c.len() as i64 {
        return None;
    }
    let [a, b, c, d, e, f, g, h, _, _, _, _, s, t, u, v, ..] = c;
    let address = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    (address != 0).then_some((address, u32::from_le_bytes([s, t, u, v])))
}

fn word(tid: i32, at: u64) -> Option<u64> {
    let mut b = [0u8; 8];
    (host::read(tid, at, &mut b) == Ok(b.len())).then(|| u64::from_le_bytes(b))
}

/// Where a thread goes that is interrupted at `ip` in a sequence; `None` if it is in none.
fn aborted(ip: u64, descriptor: &[u8; DESCRIPTOR]) -> Option<u64> {
    let field = |at: usize| descriptor.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let (version, start, len, abort) = (field(0) as u32, field(8), field(16), field(24));
    start.checked_add(len)?;
    let within = |at: u64| at.wrapping_sub(start) < len;
    (version == 0 && within(ip) && !within(abort)).then_some(abort)
}

/// Aborts the sequence that a thread stopped in, if it stopped in one. What is wrong with one is left to the host, which ends the thread.
pub(super) fn abort(tid: i32, regs: &mut Regs) {
    const POINTER: u64 = 8;
    let Some((area, signature)) = registered(tid) else { return };
    let Some(pointer) = area.checked_add(POINTER).and_then(|at| word(tid, at)).filter(|p| *p != 0) else { return };
    let mut descriptor = [0u8; DESCRIPTOR];
    if host::read(tid, pointer, &mut descriptor) != Ok(DESCRIPTOR) {
        return;
    }
    let Some(to) = aborted(regs.rip, &descriptor) else { return };
    let mut before = [0u8; 4];
    let signed = to.checked_sub(4).is_some_and(|at| host::read(tid, at, &mut before) == Ok(before.len()));
    if signed && before == signature.to_le_bytes() && host::write(tid, area + POINTER, &[0; 8]) == Ok(8) {
        regs.rip = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(version: u64, start: u64, len: u64, abort: u64) -> [u8; DESCRIPTOR] {
        let mut d = [0; DESCRIPTOR];
        for (to, value) in d.chunks_exact_mut(8).zip([version, start, len, abort]) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        d
    }

    #[test]
    fn only_what_lies_in_a_sequence_is_sent_to_its_end() {
        let d = descriptor(0, 0x1000, 0x20, 0x2000);
        assert_eq!(aborted(0xfff, &d), None);
        assert_eq!(aborted(0x1000, &d), Some(0x2000));
        assert_eq!(aborted(0x101f, &d), Some(0x2000));
        assert_eq!(aborted(0x1020, &d), None);
        assert_eq!(aborted(0x1000, &descriptor(1, 0x1000, 0x20, 0x2000)), None);
        assert_eq!(aborted(0x1000, &descriptor(0, 0x1000, 0x20, 0x1010)), None, "an end within itself");
        assert_eq!(aborted(!0, &descriptor(0, !0 - 8, 0x20, 0x1010)), None, "around the end");
    }
}
