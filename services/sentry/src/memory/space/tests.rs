use super::super::shared::SharedMemory;
use super::*;

fn request(address: u64, len: u64, fixed: bool) -> MapRequest {
    MapRequest { address, len, prot: READ | WRITE, max_prot: 7, fixed, ..MapRequest::default() }
}

#[test]
fn neighbours_join_and_holes_split() {
    let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
    let (a, _) = s.map(1, request(0, 0x3000, false), &Bounds::NONE).unwrap();
    let (b, _) = s.map(1, request(0, 0x1000, false), &Bounds::NONE).unwrap();
    assert_eq!(b + 0x1000, a);
    assert_eq!(s.areas().len(), 1);
    s.unmap(1, a + 0x1000, 0x1000).unwrap();
    assert_eq!(
        s.areas().iter().map(|v| (v.start, v.end)).collect::<Vec<_>>(),
        [(b, a + 0x1000), (a + 0x2000, a + 0x3000)]
    );
}

#[test]
fn what_a_thread_is_unmapping_is_not_given_to_another() {
    let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
    let (a, _) = s.map(1, request(0, 0x1000, false), &Bounds::NONE).unwrap();
    s.unmap(1, a, 0x1000).unwrap();
    let (b, _) = s.map(2, request(0, 0x1000, false), &Bounds::NONE).unwrap();
    assert_ne!(a, b);
    let (c, _) = s.map(1, request(0, 0x1000, false), &Bounds::NONE).unwrap();
    assert_ne!(c, b);
}

/// An object that nobody needs to fill, and an area of it.
fn shared(s: &AddressSpace, tid: i32) -> (std::sync::Weak<SharedMemory>, u64) {
    let window = cofferdam_shm::Window::create("t", 1 << 20).unwrap();
    let memory = SharedMemory::new(&Arc::new(super::super::store::Store::new(window)), 0x1000).unwrap();
    let weak = Arc::downgrade(&memory);
    let mut r = request(0, 0x1000, false);
    let object: Object = memory;
    (r.shared, r.object) = (true, Some((object, 0)));
    let at = s.map(tid, r, &Bounds::NONE).unwrap().0;
    (weak, at)
}

#[test]
fn an_object_is_kept_until_the_host_has_unmapped_it() {
    let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
    let (object, at) = shared(&s, 1);
    s.settle(1);
    s.unmap(1, at, 0x1000).unwrap();
    s.settle(2);
    assert!(object.upgrade().is_some(), "its thread has not stopped since");
    s.settle(1);
    assert!(object.upgrade().is_none());
    // Replaced: until the order for that was carried out.
    let (object, at) = shared(&s, 1);
    s.settle(1);
    s.map(1, request(at, 0x1000, true), &Bounds::NONE).unwrap();
    assert!(object.upgrade().is_some());
    s.settle(1);
    assert!(object.upgrade().is_none());
    // Removed by another while the order to map it is not carried out: nobody knows when it will be.
    let (object, at) = shared(&s, 1);
    s.unmap(2, at, 0x1000).unwrap();
    s.settle(1);
    s.settle(2);
    assert!(object.upgrade().is_some());
    drop(s);
    assert!(object.upgrade().is_none());
}

#[test]
fn a_forked_copy_keeps_what_the_host_may_have_copied() {
    let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
    let (before, at) = shared(&s, 1);
    s.settle(1);
    s.unmap(1, at, 0x1000).unwrap();
    let child = s.fork(2);
    let (meanwhile, at) = shared(&s, 1);
    s.unmap(1, at, 0x1000).unwrap();
    s.settle(1);
    s.settle(2);
    assert!(before.upgrade().is_some() && meanwhile.upgrade().is_some());
    let (after, at) = shared(&s, 1);
    s.settle(1);
    s.unmap(1, at, 0x1000).unwrap();
    s.settle(1);
    assert!(after.upgrade().is_none(), "the copy was made before");
    drop((s, child));
    assert!(before.upgrade().is_none() && meanwhile.upgrade().is_none());
}

#[test]
fn break_moves_and_stops_at_a_mapping() {
    let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
    assert_eq!(s.brk(1, 0, &Bounds::NONE).0, 0x5000_0000);
    assert_eq!(s.brk(1, 0x5000_1001, &Bounds::NONE).0, 0x5000_1001);
    s.map(1, request(0x5000_4000, 0x1000, true), &Bounds::NONE).unwrap();
    assert_eq!(s.brk(1, 0x5000_5000, &Bounds::NONE).0, 0x5000_1001);
    assert_eq!(s.brk(1, 0x5000_0000, &Bounds::NONE).0, 0x5000_0000);
    assert_eq!(s.areas().len(), 1);
}

#[test]
fn protect_of_a_hole_is_enomem_and_moves_keep_length() {
    let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
    let (a, _) = s.map(1, request(0, 0x3000, false), &Bounds::NONE).unwrap();
    assert!(s.protect(1, a, 0x1000, READ, &Bounds::NONE).unwrap().is_none());
    assert_eq!(s.areas().len(), 2);
    s.unmap(1, a + 0x1000, 0x1000).unwrap();
    assert_eq!(s.protect(1, a, 0x3000, READ, &Bounds::NONE).err(), Some(Errno::ENOMEM));
    let done = s.remap(1, a, 0x1000, 0x10000, true, None, false, &Bounds::NONE).unwrap();
    let (b, orders) = (done.address, &done.orders);
    assert_ne!(a, b);
    assert_eq!(orders.len(), 1);
    assert_eq!(s.areas().iter().map(Vma::len).sum::<u64>(), 0x11000);
}

#[test]
fn a_range_outside_what_may_be_mapped_is_refused() {
    let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
    assert_eq!(s.map(1, request(GUEST_TOP, 0x1000, true), &Bounds::NONE).err(), Some(Errno::ENOMEM));
    assert_eq!(s.map(1, request(0, 0x1000, true), &Bounds::NONE).err(), Some(Errno::EPERM));
    assert_eq!(s.unmap(1, GUEST_TOP - 0x1000, 0x2000), Err(Errno::EINVAL));
    assert_eq!(s.unmap(1, !0xfff, u64::MAX), Err(Errno::EINVAL));
}
