//! Call sites: instructions `mov $number, %eax; syscall` that are come to often, and their patching for the platform's short way.
//!
//! A site's `mov` (5 bytes) becomes a jump to a trampoline near it, which sets the number and goes to the platform's short way; the
//! `syscall` behind it stays, for whoever jumps to it and for the short way itself when it does not pay. Text is patched in the
//! process's private copy of the page, while nobody but one thread, which is stopped, has that memory. A forked copy keeps the
//! trampolines and adds none to their pages, which are its parent's as well. Owned here: counts, trampolines, where a
//! trampoline belongs to. Never here: text that others share, or that is not exactly such a site. Called by `task::run`.

use std::sync::Arc;

use super::object::MemoryObject;
use super::shared::SharedMemory;
use super::store::{PAGE, Store, page_down};
use crate::errno::Errno;
use crate::sync::Mutex;

/// Calls from one site that make it worth patching; where it could not be, it is looked at again each time they have doubled.
const OFTEN: u32 = 64;
/// Pages of trampolines that an address space may have (2,720 sites).
const PAGES: usize = 16;
/// Sites that are counted at a time (a power of two).
const COUNTED: usize = 64;
/// Bytes a site takes.
pub const SITE_LEN: u64 = 7;
/// Bytes of it that are patched.
const JUMP_LEN: u64 = 5;
/// Bytes a trampoline takes; the first of a page's is the address they all go to.
const TRAMPOLINE: u64 = 24;
/// How far a jump reaches, with room to spare.
const REACH: u64 = 0x7000_0000;

/// Calls that may go the short way: those that never change the caller's memory map, and need its registers only to deliver a
/// signal.
const SUITABLE: [u32; 44] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 16, 17, 18, 19, 20, 21, 32, 33, 39, 44, 45, 63, 72, 79, 80, 82, 83, 87, 89, 96,
    102, 104, 107, 108, 110, 186, 202, 217, 228, 257, 262, 267, 332,
];

/// [`SUITABLE`] as a bit a number.
const SUITABLE_BITS: [u64; 8] = {
    let (mut bits, mut i) = ([0; 8], 0);
    while i < SUITABLE.len() {
        bits[SUITABLE[i] as usize / 64] |= 1 << (SUITABLE[i] % 64);
        i += 1;
    }
    bits
};

/// A call site that was patched.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Its first byte.
    pub at: u64,
    number: u32,
    /// What was written over its first bytes.
    pub jump: [u8; JUMP_LEN as usize],
}

impl Site {
    /// What its first bytes were.
    pub fn original(&self) -> [u8; JUMP_LEN as usize] {
        let [a, b, c, d, e, ..] = Sites::pattern(self.number);
        [a, b, c, d, e]
    }
}

/// A page of trampolines.
#[derive(Clone)]
struct Page {
    address: u64,
    memory: Arc<SharedMemory>,
    /// The site of each.
    sites: Vec<Site>,
    /// Others have it mapped, and may add to it.
    inherited: bool,
}

#[derive(Clone, Default)]
struct Inner {
    counts: Vec<(u64, u32)>,
    pages: Vec<Page>,
    off: bool,
}

impl Inner {
    /// Whether no further site can have a trampoline.
    fn is_full(&self) -> bool {
        self.pages.len() >= PAGES && !self.pages.iter().any(Page::has_room)
    }
}

/// The call sites of a process.
#[derive(Default)]
pub struct Sites {
    inner: Mutex<Inner>,
}

/// A number as the 32 bits of a jump's displacement.
fn displacement(from: u64, to: u64) -> Option<[u8; 4]> {
    i32::try_from(to.wrapping_sub(from).cast_signed()).ok().map(i32::to_le_bytes)
}

impl Sites {
    /// Those of a forked copy of the process.
    pub fn fork(&self) -> Self {
        let mut inner = self.inner.lock().clone();
        inner.pages.iter_mut().for_each(|p| p.inherited = true);
        Self { inner: Mutex::new(inner) }
    }

    /// Counts a call with the instruction pointer `ip` after it; whether its site should be patched now.
    pub fn often(&self, number: u32, ip: u64) -> bool {
        if SUITABLE_BITS.get(number as usize / 64).is_none_or(|b| b >> (number % 64) & 1 == 0) {
            return false;
        }
        let mut inner = self.inner.lock();
        if inner.off || inner.is_full() {
            return false;
        }
        if inner.counts.is_empty() {
            inner.counts = vec![(0, 0); COUNTED];
        }
        let at = (ip ^ (ip >> 7)) as usize % COUNTED;
        let Some((site, count)) = inner.counts.get_mut(at) else { return false };
        if *site != ip {
            (*site, *count) = (ip, 0);
        }
        *count = count.saturating_add(1);
        *count >= OFTEN && count.is_power_of_two()
    }

    /// No site is patched from now on; whether none is yet.
    pub fn turn_off(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.off = true;
        inner.pages.is_empty()
    }

    /// Whether [`turn_off`](Self::turn_off) was called.
    pub fn is_off(&self) -> bool {
        self.inner.lock().off
    }

    /// The site that the trampoline at `rip` belongs to.
    pub fn site_of(&self, rip: u64) -> Option<u64> {
        let inner = self.inner.lock();
        let page = inner.pages.iter().find(|p| p.address == page_down(rip))?;
        let index = (rip - page.address).checked_sub(8)? / TRAMPOLINE;
        page.sites.get(usize::try_from(index).ok()?).map(|s| s.at)
    }

    /// The patched sites whose first bytes lie in a range. Others may be written there by now.
    pub fn within(&self, from: u64, to: u64) -> Vec<Site> {
        let inner = self.inner.lock();
        let all = inner.pages.iter().flat_map(|p| &p.sites);
        all.filter(|s| s.at < to && from < s.at + JUMP_LEN).copied().collect()
    }

    /// What a site looks like, for a call of that number.
    pub fn pattern(number: u32) -> [u8; SITE_LEN as usize] {
        let [a, b, c, d] = number.to_le_bytes();
        [0xb8, a, b, c, d, 0x0f, 0x05]
    }

    /// Whether a page of trampolines with room is in reach of a site.
    pub fn has_room(&self, site: u64) -> bool {
        self.inner.lock().pages.iter().any(|p| p.reaches(site) && p.has_room())
    }

    /// Whether there may be one more page of trampolines.
    pub fn may_add_page(&self) -> bool {
        self.inner.lock().pages.len() < PAGES
    }

    /// Adds a page of trampolines, mapped at `address`. ENOSPC if there may be no more.
    pub fn add_page(&self, address: u64, memory: Arc<SharedMemory>, way: u64) -> Result<(), Errno> {
        memory.write(0, &way.to_le_bytes())?;
        let mut inner = self.inner.lock();
        if inner.pages.len() >= PAGES {
            return Err(Errno::ENOSPC);
        }
        inner.pages.push(Page { address, memory, sites: Vec::new(), inherited: false });
        Ok(())
    }

    /// Makes the trampoline of a site; the bytes to write over the site's first.
    pub fn trampoline(&self, site: u64, number: u32) -> Result<[u8; JUMP_LEN as usize], Errno> {
        let mut inner = self.inner.lock();
        let page = inner.pages.iter_mut().find(|p| p.reaches(site) && p.has_room()).ok_or(Errno::ENOSPC)?;
        let offset = 8 + page.sites.len() as u64 * TRAMPOLINE;
        let at = page.address + offset;
        let mut code = Vec::with_capacity(TRAMPOLINE as usize);
        code.push(0xb8);
        code.extend(number.to_le_bytes());
        // lea site's syscall(%rip), %rcx
        code.extend([0x48, 0x8d, 0x0d]);
        code.extend(displacement(at + 12, site + JUMP_LEN).ok_or(Errno::ENOSPC)?);
        // jmp *page(%rip)
        code.extend([0xff, 0x25]);
        code.extend(displacement(at + 18, page.address).ok_or(Errno::ENOSPC)?);
        page.memory.write(offset, &code)?;
        let [a, b, c, d] = displacement(site + JUMP_LEN, at).ok_or(Errno::ENOSPC)?;
        let jump = [0xe9, a, b, c, d];
        page.sites.push(Site { at: site, number, jump });
        Ok(jump)
    }

    /// Memory for a page of trampolines.
    pub fn page(store: &Arc<Store>) -> Result<Arc<SharedMemory>, Errno> {
        SharedMemory::new(store, PAGE)
    }

    /// Addresses near a site where a page of trampolines may find room: the farthest first, since what is behind a program's text
    /// is where its break grows.
    pub fn hints(site: u64) -> impl Iterator<Item = u64> {
        let at = page_down(site);
        (1..32u64).rev().flat_map(move |n| [at.checked_sub(n * (32 << 20)), at.checked_add(n * (32 << 20))]).flatten()
    }

    /// Whether a page at `address` is in reach of a site.
    pub fn reaches(address: u64, site: u64) -> bool {
        address.abs_diff(site) < REACH
    }
}

impl Page {
    fn reaches(&self, site: u64) -> bool {
        Sites::reaches(self.address, site)
    }

    fn has_room(&self) -> bool {
        !self.inherited && 8 + (self.sites.len() as u64 + 1) * TRAMPOLINE <= self.memory.size()
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_shm::Window;

    use super::*;

    #[test]
    fn a_site_is_often_now_and_then_and_only_for_suitable_calls() {
        let s = Sites::default();
        let times = |number| (0..1000).filter(|_| s.often(number, 0x40_1007)).count();
        // At 64, 128, 256 and 512.
        assert_eq!((times(39), times(56)), (4, 0));
        s.turn_off();
        assert!((0..1000).all(|_| !s.often(39, 0x50_1007)));
    }

    #[test]
    fn trampolines_lead_back_to_their_sites() {
        let store = Arc::new(Store::new(Window::create("t", 1 << 20).unwrap()));
        let s = Sites::default();
        assert_eq!(s.trampoline(0x40_0000, 39), Err(Errno::ENOSPC));
        let memory = Sites::page(&store).unwrap();
        s.add_page(0x2000_0000, memory, 0x7d00_0000_1234).unwrap();
        for i in 0..170u64 {
            let site = 0x40_0000 + i * 16;
            assert!(s.has_room(site));
            let jump = s.trampoline(site, 39).unwrap();
            let to = i64::from(i32::from_le_bytes(jump[1..].try_into().unwrap())) + site as i64 + 5;
            assert_eq!(s.site_of(to as u64), Some(site));
            assert_eq!(s.site_of(to as u64 + 17), Some(site));
        }
        assert!(!s.has_room(0x40_0000));
        assert!(!s.has_room(0x7fff_0000_0000), "out of reach");
        assert_eq!(s.site_of(0x2000_0000), None);
    }

    #[test]
    fn a_copy_adds_no_trampolines_to_the_pages_of_its_original() {
        let store = Arc::new(Store::new(Window::create("t", 1 << 20).unwrap()));
        let s = Sites::default();
        s.add_page(0x2000_0000, Sites::page(&store).unwrap(), 1).unwrap();
        s.trampoline(0x40_0000, 39).unwrap();
        let copy = s.fork();
        assert_eq!(copy.site_of(0x2000_0008), Some(0x40_0000));
        assert!(!copy.has_room(0x40_0010) && s.has_room(0x40_0010));
        assert_eq!(copy.trampoline(0x40_0010, 39), Err(Errno::ENOSPC));
        copy.add_page(0x2000_1000, Sites::page(&store).unwrap(), 1).unwrap();
        copy.trampoline(0x40_0010, 39).unwrap();
        assert_eq!(s.site_of(0x2000_1008), None);
    }

    #[test]
    fn there_are_only_so_many_pages_of_trampolines() {
        let store = Arc::new(Store::new(Window::create("t", 1 << 20).unwrap()));
        let s = Sites::default();
        let mut patched = 0;
        for i in 0..10_000u64 {
            let (site, ip) = (0x40_0000 + i * 16, 0x40_0007 + i * 16);
            if !(0..64).any(|_| s.often(39, ip)) {
                break;
            }
            if !s.has_room(site) {
                assert!(s.may_add_page(), "else no site is often");
                s.add_page(0x2000_0000 + i * 4096, Sites::page(&store).unwrap(), 1).unwrap();
            }
            s.trampoline(site, 39).unwrap();
            patched += 1;
        }
        assert_eq!(patched, PAGES * 170);
        assert!(!s.may_add_page() && s.add_page(0x1000_0000, Sites::page(&store).unwrap(), 1).is_err());
    }
}
