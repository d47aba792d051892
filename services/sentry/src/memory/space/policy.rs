//! Memory policies of areas (`mbind(2)`), and areas that are sealed (`mseal(2)`).

use super::{AddressSpace, Inner};
use crate::errno::Errno;
use crate::memory::policy::Policy;
use crate::memory::store::PAGE;
use crate::memory::vma::{Vma, WRITE, page_of};

impl Inner {
    /// EPERM if any of `[from, to)` is sealed.
    pub(super) fn unsealed(&self, from: u64, to: u64) -> Result<(), Errno> {
        if self.any_sealed && self.within(from, to, |v| v.sealed) > 0 {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// EPERM if what advice would discard of `[from, to)` is sealed and could not be overwritten either.
    pub(super) fn discardable(&self, from: u64, to: u64) -> Result<(), Errno> {
        if self.any_sealed && self.within(from, to, |v| v.sealed && !v.shared && v.prot & WRITE == 0) > 0 {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
}

impl AddressSpace {
    /// Changes all areas of a range, which end at its borders then. `hole`: the error if not all of it is mapped.
    fn change(&self, address: u64, len: u64, hole: Errno, change: impl Fn(&mut Vma)) -> Result<(), Errno> {
        let end = Self::range(address, len)?;
        let mut inner = self.inner.lock();
        if inner.within(address, end, |_| true) < end - address {
            return Err(hole);
        }
        for mut v in inner.take(address, end) {
            change(&mut v);
            inner.put(v);
        }
        Ok(())
    }

    /// `mseal(2)`: what lies there cannot be taken away or protected otherwise any more. EINVAL for no such range, ENOMEM for a hole.
    pub fn seal(&self, address: u64, len: u64) -> Result<(), Errno> {
        self.change(address, len, Errno::ENOMEM, |v| v.sealed = true)?;
        self.inner.lock().any_sealed = true;
        Ok(())
    }

    /// `mbind(2)`. EINVAL for no such range, EFAULT for a hole.
    pub fn set_policy(&self, address: u64, len: u64, policy: Option<Policy>) -> Result<(), Errno> {
        self.change(address, len, Errno::EFAULT, |v| v.policy = policy)
    }

    /// The policies of the areas of a range.
    pub fn policies(&self, address: u64, len: u64) -> Result<Vec<Option<Policy>>, Errno> {
        let end = Self::range(address, len)?;
        let inner = self.inner.lock();
        let areas = inner.touching(address, end).into_iter().filter_map(|s| inner.areas.get(&s));
        Ok(areas.map(|v| v.policy).collect())
    }

    /// Whether the host has an address mapped; `None` where there is no area.
    pub fn host_has(&self, address: u64) -> Option<bool> {
        let inner = self.inner.lock();
        let page = page_of(address);
        Some(inner.find(address)?.mapped_whole(page, page.saturating_add(PAGE)))
    }
}
