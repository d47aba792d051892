//! The keyed hash: of four-tuples in the table of connections, of initial sequence numbers, of cookies.
//!
//! Owns SipHash-1-3 with a key of this engine. Remote peers choose their addresses and ports; without the key they cannot choose which
//! of them share a bucket, nor tell the next sequence number. Called by `engine` and its parts.

use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A key of 128 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secret(u64, u64);

impl Secret {
    /// From a seed; `purpose` tells two keys of one seed apart.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mut state = seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Secret(next(), next())
    }

    /// The hash of some words.
    pub(crate) fn hash(self, words: &[u64]) -> u64 {
        let mut sip = self.build_hasher();
        words.iter().for_each(|&word| sip.write_u64(word));
        sip.finish()
    }
}

impl BuildHasher for Secret {
    type Hasher = Sip;

    fn build_hasher(&self) -> Sip {
        Sip {
            v0: self.0 ^ 0x736f_6d65_7073_6575,
            v1: self.1 ^ 0x646f_7261_6e64_6f6d,
            v2: self.0 ^ 0x6c79_6765_6e65_7261,
            v3: self.1 ^ 0x7465_6462_7974_6573,
            words: 0,
        }
    }
}

/// SipHash-1-3 over whole words.
#[derive(Clone, Debug)]
pub(crate) struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
    words: u64,
}

impl Sip {
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

impl Hasher for Sip {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.words = self.words.wrapping_add(1);
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    fn finish(&self) -> u64 {
        let mut end = self.clone();
        let last = self.words << 59;
        end.v3 ^= last;
        end.round();
        end.v0 ^= last;
        end.v2 ^= 0xff;
        end.round();
        end.round();
        end.round();
        end.v0 ^ end.v1 ^ end.v2 ^ end.v3
    }
}

/// A four-tuple as it is looked up. IPv4 addresses are mapped ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    local: [u64; 2],
    remote: [u64; 2],
    ports: u64,
}

fn halves(ip: IpAddr) -> [u64; 2] {
    let bits = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
    .to_bits();
    [(bits >> 64) as u64, bits as u64]
}

impl Key {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Key {
            local: halves(local.ip()),
            remote: halves(remote.ip()),
            ports: (u64::from(local.port()) << 16) | u64::from(remote.port()),
        }
    }

    pub(crate) fn words(&self) -> [u64; 5] {
        [self.local[0], self.local[1], self.remote[0], self.remote[1], self.ports]
    }

    fn ip(halves: [u64; 2]) -> IpAddr {
        Ipv6Addr::from_bits((u128::from(halves[0]) << 64) | u128::from(halves[1])).to_canonical()
    }

    /// The local and the remote address. Ports fit by construction.
    pub(crate) fn flow(&self) -> (SocketAddr, SocketAddr) {
        (
            SocketAddr::new(Self::ip(self.local), (self.ports >> 16) as u16),
            SocketAddr::new(Self::ip(self.remote), self.ports as u16),
        )
    }
}

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words().iter().for_each(|&word| state.write_u64(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_as_flows() {
        for (local, remote) in [("10.0.0.1:80", "192.168.7.9:65535"), ("[fe80::1]:1", "[2001:db8::7]:443")] {
            let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
            assert_eq!(Key::new(local, remote).flow(), (local, remote));
        }
    }

    #[test]
    fn the_hash_depends_on_key_and_words() {
        let (one, two) = (Secret::new(1, 0), Secret::new(2, 0));
        assert_ne!(one.hash(&[1]), two.hash(&[1]));
        assert_ne!(one.hash(&[1]), one.hash(&[1, 0]));
        assert_ne!(one.hash(&[1, 0]), one.hash(&[0, 1]));
        assert_eq!(one.hash(&[1, 0]), one.hash(&[1, 0]));
    }
}
