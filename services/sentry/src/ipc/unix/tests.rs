//! Unix sockets, driven without any platform.

use super::*;

fn send(a: &Arc<Socket>, data: &[u8]) -> Result<usize, Errno> {
    a.send(&a.target()?, &mut Source::kernel(data), &Ancillary::default(), false)
}

fn receive(a: &Socket, max: usize) -> Result<Vec<u8>, Errno> {
    let mut v = Vec::new();
    a.receive(&mut Sink::kernel(&mut v, max), false, false)?;
    Ok(v)
}

#[test]
fn streams_join_and_packets_keep_their_bounds() {
    for (kind, expect) in [(Kind::Stream, &b"abcd"[..]), (Kind::Packet, b"ab"), (Kind::Datagram, b"ab")] {
        let (a, b) = Socket::pair(kind, Ucred::default(), &[], None);
        assert_eq!(receive(&b, 9), Err(Errno::EAGAIN));
        send(&a, b"ab").unwrap();
        send(&a, b"cd").unwrap();
        assert_eq!(receive(&b, 9).unwrap(), expect);
    }
}

#[test]
fn the_end_of_a_stream_is_seen_after_its_data() {
    let (a, b) = Socket::pair(Kind::Stream, Ucred::default(), &[], None);
    send(&a, b"last").unwrap();
    a.shutdown(false, true).unwrap();
    assert_eq!(send(&a, b"x"), Err(Errno::EPIPE));
    assert_eq!(receive(&b, 2).unwrap(), b"la");
    assert_eq!(receive(&b, 9).unwrap(), b"st");
    assert_eq!(receive(&b, 9).unwrap(), b"");
    send(&b, b"back").unwrap();
    let f = a.file(&Creds::root(0), false);
    drop(f);
    assert_eq!(receive(&b, 9), Err(Errno::ECONNRESET), "it had unread data");
    assert_eq!(send(&b, b"x"), Err(Errno::EPIPE));
}

#[test]
fn abstract_names_connect_and_go() {
    let me = Ucred { pid: 7, uid: 8, gid: 9 };
    let l = Socket::new(Kind::Stream, me);
    assert_eq!(l.listen(1, me), Err(Errno::EINVAL));
    l.bind_abstract(b"\0unit-test-name").unwrap();
    l.listen(0, me).unwrap();
    let c = Socket::new(Kind::Stream, Ucred::default());
    let found = Socket::find_abstract(Kind::Stream, b"\0unit-test-name").unwrap();
    c.connect(&found, Ucred { pid: 1, uid: 2, gid: 3 }).unwrap();
    let second = Socket::new(Kind::Stream, Ucred::default());
    assert_eq!(second.connect(&found, Ucred::default()), Err(Errno::EAGAIN));
    let s = l.accept().unwrap();
    assert_eq!(l.accept().err(), Some(Errno::EAGAIN));
    assert_eq!((s.peer_creds().pid, c.peer_creds()), (1, me));
    send(&c, b"hi").unwrap();
    assert_eq!(receive(&s, 9).unwrap(), b"hi");
    let other = Socket::new(Kind::Stream, me);
    assert_eq!(other.bind_abstract(b"\0unit-test-name"), Err(Errno::EADDRINUSE));
    drop(found);
    drop(l.file(&Creds::root(0), false));
    drop(l);
    assert!(Socket::find_abstract(Kind::Stream, b"\0unit-test-name").is_err());
}

#[test]
fn a_full_stream_waits_and_descriptors_travel() {
    let (a, b) = Socket::pair(Kind::Stream, Ucred::default(), &[], None);
    let mut sent = 0;
    while let Ok(n) = send(&a, &[1; 50_000]) {
        sent += n;
    }
    assert_eq!(sent, BUFFER);
    assert!(!a.events().contains(PollMask::OUT));
    while receive(&b, 1 << 20).is_ok() {}
    assert!(a.events().contains(PollMask::OUT));
    let f = crate::ipc::eventfd::eventfd(0, 0);
    let with = Ancillary { files: vec![f.clone()], ..Ancillary::default() };
    a.send(&b, &mut Source::kernel(b"f"), &with, false).unwrap();
    let mut v = Vec::new();
    let got = b.receive(&mut Sink::kernel(&mut v, 9), false, false).unwrap();
    assert!(Arc::ptr_eq(&got.ancillary.files[0], &f));
}
