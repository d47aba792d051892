//! The loopback device of a network namespace: whether it is up, and its addresses, which are those that the namespace has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::errno::Errno;
use crate::sync::Mutex;
use crate::syscalls::{SysResult, UserPtr, done};
use crate::task::Task;

/// Its number, the first of a namespace.
pub const INDEX: u32 = 1;
/// Its name.
pub const NAME: &[u8] = b"lo";
/// Largest packet, bytes.
pub const MTU: u32 = 65536;
/// Addresses there may be: memory of the Sentry. ENOBUFS.
const ADDRESSES: usize = 1024;
/// `IFF_UP`.
pub const UP: u32 = 1;
/// `IFA_F_PERMANENT`.
pub const PERMANENT: u32 = 0x80;
const LOOPBACK: u32 = 8;
const RUNNING: u32 = 0x40;
const LOWER_UP: u32 = 0x1_0000;

/// An address (`struct ifaddrmsg` and its attributes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Address {
    pub local: [u8; 4],
    pub address: [u8; 4],
    pub broadcast: Option<[u8; 4]>,
    pub prefix: u8,
    pub scope: u8,
    pub flags: u32,
}

impl Address {
    fn subnet(&self) -> u32 {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from_be_bytes(self.address) & mask
    }

    fn covers(&self, ip: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from(ip) & mask == self.subnet()
    }

    fn beside(&self, other: &Self) -> bool {
        self.prefix == other.prefix && self.subnet() == other.subnet()
    }
}

#[derive(Debug, Default)]
struct State {
    up: bool,
    /// It was up before, and has kept its way of queueing.
    used: bool,
    addresses: Vec<Address>,
}

/// The device.
#[derive(Debug, Default)]
pub struct Loopback(Mutex<State>);

impl Loopback {
    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.0.lock().up
    }

    /// Takes it up or down. The first that it gets, unless it was given another, is the address that all know.
    pub fn set_up(&self, up: bool) {
        const HOST: u8 = 254;
        let mut s = self.0.lock();
        if up && !s.up && s.addresses.is_empty() {
            let local = [127, 0, 0, 1];
            s.addresses.push(Address {
                local,
                address: local,
                broadcast: None,
                prefix: 8,
                scope: HOST,
                flags: PERMANENT,
            });
        }
        s.up = up;
        s.used |= up;
    }

    /// Its way of queueing.
    pub fn queueing(&self) -> &'static [u8] {
        if self.0.lock().used { b"noqueue\0" } else { b"noop\0" }
    }

    /// `IFF_*`, as links show them.
    pub fn flags(&self) -> u32 {
        LOOPBACK | if self.is_up() { UP | RUNNING | LOWER_UP } else { 0 }
    }

    /// Its addresses.
    pub fn addresses(&self) -> Vec<Address> {
        self.0.lock().addresses.clone()
    }

    /// Whether the namespace has the address: all of a loopback device's networks are its own.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.source(ip).is_some()
    }

    /// Whether it is the last address of one of the networks.
    pub fn is_broadcast(&self, ip: Ipv4Addr) -> bool {
        let last = |a: &Address| u32::MAX.checked_shr(u32::from(a.prefix)).unwrap_or(0) | a.subnet();
        self.0.lock().addresses.iter().any(|a| a.prefix < 31 && u32::from(ip) == last(a))
    }

    /// The address that something for there, which must be the namespace's own, comes from.
    pub fn source(&self, to: IpAddr) -> Option<IpAddr> {
        let s = self.0.lock();
        if !s.up {
            return None;
        }
        match to {
            IpAddr::V4(ip) => {
                let local = |a: &Address| IpAddr::V4(Ipv4Addr::from(a.local));
                let exact = s.addresses.iter().find(|a| Ipv4Addr::from(a.local) == ip);
                exact.or_else(|| s.addresses.iter().find(|a| a.covers(ip))).map(local)
            }
            IpAddr::V6(ip) => (ip == Ipv6Addr::LOCALHOST).then_some(to),
        }
    }

    /// Adds one. EEXIST, ENOBUFS.
    pub fn add(&self, mut new: Address, replace: bool) -> Result<(), Errno> {
        const SECONDARY: u32 = 1;
        let mut s = self.0.lock();
        if let Some(old) = s.addresses.iter_mut().find(|a| a.local == new.local && a.beside(&new)) {
            if !replace {
                return Err(Errno::EEXIST);
            }
            old.flags = new.flags & !SECONDARY | old.flags & SECONDARY;
            return Ok(());
        }
        if s.addresses.len() >= ADDRESSES {
            return Err(Errno::ENOBUFS);
        }
        let second = s.addresses.iter().any(|a| a.beside(&new));
        new.flags = new.flags & !SECONDARY | if second { SECONDARY } else { 0 };
        // Those that are the first of their kind come before the others.
        let firsts = s.addresses.iter().take_while(|a| a.flags & SECONDARY == 0).count();
        let at = if second { s.addresses.len() } else { firsts };
        s.addresses.insert(at, new);
        Ok(())
    }

    /// Takes the first away that `is` says so of. EADDRNOTAVAIL.
    pub fn remove(&self, is: impl Fn(&Address) -> bool) -> Result<(), Errno> {
        let mut s = self.0.lock();
        let at = s.addresses.iter().position(is).ok_or(Errno::EADDRNOTAVAIL)?;
        s.addresses.remove(at);
        Ok(())
    }
}

/// Requests of `netdevice(7)`, which any socket takes: those that ask. ENOTTY for what is none of them.
pub fn ioctl(task: &Arc<Task>, request: u32, argument: u64) -> SysResult {
    const NAME_OF: u32 = 0x8910;
    const FLAGS_OF: u32 = 0x8913;
    const MTU_OF: u32 = 0x8921;
    const ADDRESS_OF: u32 = 0x8927;
    const INDEX_OF: u32 = 0x8933;
    const TXQLEN_OF: u32 = 0x8942;
    const IFREQ: usize = 40;
    /// `ARPHRD_LOOPBACK`.
    const KIND: u32 = 772;
    if ![NAME_OF, FLAGS_OF, MTU_OF, ADDRESS_OF, INDEX_OF, TXQLEN_OF].contains(&request) {
        return Err(Errno::ENOTTY);
    }
    let at = UserPtr::<u8>::new(argument);
    let mut ifreq = at.read_array(task, IFREQ, IFREQ)?;
    let (name, value) = ifreq.split_at_mut_checked(16).ok_or(Errno::EFAULT)?;
    let mut put = |number: u32| {
        if let Some(to) = value.get_mut(..4) {
            to.copy_from_slice(&number.to_ne_bytes());
        }
    };
    let device = task.namespaces().net.clone();
    if request == NAME_OF {
        if value.get(..4) != Some(&INDEX.to_ne_bytes()) {
            return Err(Errno::ENODEV);
        }
        name.fill(0);
        name.iter_mut().zip(NAME).for_each(|(to, b)| *to = *b);
    } else {
        if name.split(|b| *b == 0).next() != Some(NAME) {
            return Err(Errno::ENODEV);
        }
        match request {
            FLAGS_OF => {
                // There are sixteen bits of them here.
                let flags = (device.loopback.flags() as u16).to_ne_bytes();
                value.iter_mut().zip(flags).for_each(|(to, b)| *to = b);
            }
            MTU_OF => put(MTU),
            ADDRESS_OF => {
                value.get_mut(..16).ok_or(Errno::EFAULT)?.fill(0);
                value.iter_mut().zip((KIND as u16).to_ne_bytes()).for_each(|(to, b)| *to = b);
            }
            TXQLEN_OF => put(1000),
            _ => put(INDEX),
        }
    }
    at.write_array(task, &ifreq)?;
    done()
}
