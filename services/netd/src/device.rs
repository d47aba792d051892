//! A packet device: one packet socket, with the host's word on what a packet's sums are worth and how long ones are cut (`virtio_net_hdr`).

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;

/// Bytes of `struct virtio_net_hdr`.
pub const OFFLOAD: usize = 10;
/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// The longest that comes at once: what a packet's length can say, with both headers.
pub const LONGEST: usize = OFFLOAD + ETHERNET + 65_536 + 40;

/// What the host says of a packet that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Bytes of the frame, which begins after [`OFFLOAD`].
    pub len: usize,
    /// The sum of what it carries need not be looked at: it never was on a wire, or the device did.
    pub trusted: bool,
}

/// How a frame is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// Where the transport's header is in the frame, and where in that its sum is to be put; none: all sums are complete.
    pub sum: Option<(u16, u16)>,
    /// It is to be cut into packets that carry so many bytes each: of TCP over IPv4 or IPv6. `headers`: bytes before what is cut.
    pub cut: Option<Cut>,
}

/// See [`Offload::cut`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Cut {
    pub size: u16,
    pub headers: u16,
    pub six: bool,
}

/// One.
#[derive(Debug)]
pub struct Device {
    socket: OwnedFd,
    /// It took nothing last time.
    pub full: bool,
}

impl Device {
    /// Of a packet socket that does not wait.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, full: false }
    }

    /// Takes the next frame, if there is one. `Err`: it is gone, or down.
    pub fn receive(&self, to: &mut [u8]) -> Result<Option<Arrived>, Errno> {
        const NEEDS_SUM: u8 = 1;
        const SUM_IS_GOOD: u8 = 2;
        match rustix::net::recv(&self.socket, &mut *to, RecvFlags::TRUNC) {
            Ok((_, whole)) => {
                let kept = whole.min(to.len());
                let flags = to.first().copied().unwrap_or(0);
                // One that is longer than anything that fits its own length field is none.
                let len = if whole > kept { 0 } else { kept.saturating_sub(OFFLOAD) };
                Ok(Some(Arrived { len, trusted: flags & (NEEDS_SUM | SUM_IS_GOOD) != 0 }))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Sends a frame; whether it was taken.
    pub fn send(&mut self, ethernet: &[u8; ETHERNET], packet: &[u8], how: Offload) -> bool {
        const TCP4: u8 = 1;
        const TCP6: u8 = 4;
        let (start, offset) = how.sum.unwrap_or((0, 0));
        let (kind, size, headers) = match how.cut {
            Some(cut) => (if cut.six { TCP6 } else { TCP4 }, cut.size, cut.headers),
            None => (0, 0, 0),
        };
        let mut head = [0; OFFLOAD];
        let flags = u8::from(how.sum.is_some());
        let halves = [headers, size, start, offset].map(u16::to_ne_bytes);
        head.iter_mut().zip([flags, kind].into_iter().chain(halves.into_iter().flatten())).for_each(|(to, b)| *to = b);
        let parts = [IoSlice::new(&head), IoSlice::new(ethernet), IoSlice::new(packet)];
        match rustix::io::writev(&self.socket, &parts) {
            Ok(_) => true,
            Err(Errno::AGAIN) => {
                self.full = true;
                false
            }
            // It is down, or has no memory: the packet is lost, as on a wire.
            Err(_) => false,
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
