//! Sockets that only descriptors in flight lead to: the garbage collector of `SCM_RIGHTS`.
//!
//! A socket's descriptor may wait in a message of a socket that itself waits in a message. Where that goes round in a circle nobody
//! can receive any of it, and no count of references ever falls to nothing. As on Linux the collector looks for such sockets when a
//! socket is closed: those whose open files are held by messages alone, by messages of sockets of which the same is true. It empties
//! them, and then all goes its way.
//!
//! Owns which socket's descriptor waits in which socket. Rules that make it safe to judge while others run: whoever takes messages
//! out of a socket, or accepts from it, holds its open file meanwhile; descriptors enter a message, leave it, are copied out of it
//! by a peek, and a connection leaves its listener's queue, only through here, under the one lock. Called by `scm` and `unix`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::ipc::unix::{Socket, SocketFile};
use crate::sync::Mutex;
use crate::vfs::file::File;

/// A socket whose descriptor goes along with a message.
pub struct Passenger {
    socket: Weak<Socket>,
    file: Weak<File>,
    id: u64,
}

impl Passenger {
    /// An open file, if it is a socket.
    pub fn of(file: &Arc<File>) -> Option<Self> {
        let socket = &file.ops_as::<SocketFile>()?.0;
        Some(Self { socket: Arc::downgrade(socket), file: Arc::downgrade(file), id: socket.id })
    }
}

/// Through which socket one is reached: itself, or its listener as long as it waits to be accepted.
pub type Reach = Arc<AtomicU64>;

/// A socket whose descriptor is on its way.
struct Vertex {
    socket: Weak<Socket>,
    file: Weak<File>,
    /// By the flights that it takes part in: through which socket those are reached, and how often it is in each.
    flights: BTreeMap<u64, (Reach, usize)>,
}

/// By the sockets' numbers. Below the locks of sockets.
static GRAPH: Mutex<BTreeMap<u64, Vertex>> = Mutex::new(BTreeMap::new());
/// Whether there may be a circle: some descriptor waits in a socket whose own is on its way.
static CIRCLES: AtomicBool = AtomicBool::new(false);

/// How often it was asked to look since it last did.
static ASKED: AtomicUsize = AtomicUsize::new(0);
/// Of so many descriptors in flight one more call is needed before it looks: so a call costs no more with many of them.
const SHARE: usize = 64;

const IDLE: u8 = 0;
const BUSY: u8 = 1;
const AGAIN: u8 = 2;
static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// More references to descriptors that stay in a message, for a peek: nothing is judged meanwhile.
pub fn copy(files: &[Arc<File>]) -> Vec<Arc<File>> {
    let _held = GRAPH.lock();
    files.to_vec()
}

/// Descriptors of sockets are put into a message of `holder`.
pub fn board(flight: u64, sockets: &[Passenger], holder: &Socket) {
    let mut graph = GRAPH.lock();
    for p in sockets {
        let new = || Vertex { socket: p.socket.clone(), file: p.file.clone(), flights: BTreeMap::new() };
        let vertex = graph.entry(p.id).or_insert_with(new);
        vertex.flights.entry(flight).or_insert_with(|| (holder.reach.clone(), 0)).1 += 1;
    }
    if graph.contains_key(&holder.reach.load(Ordering::Relaxed)) {
        CIRCLES.store(true, Ordering::Relaxed);
    }
}

/// And out of it.
pub fn leave(flight: u64, sockets: &[Passenger]) {
    let mut graph = GRAPH.lock();
    for p in sockets {
        if let Some(vertex) = graph.get_mut(&p.id) {
            vertex.flights.remove(&flight);
            if vertex.flights.is_empty() {
                graph.remove(&p.id);
            }
        }
    }
}

/// A connection has been accepted: it is reached by itself.
pub fn accepted(socket: &Socket) {
    let graph = GRAPH.lock();
    socket.reach.store(socket.id, Ordering::Relaxed);
    if graph.contains_key(&socket.id) {
        CIRCLES.store(true, Ordering::Relaxed);
    }
}

/// Empties what nobody can reach. Called with no lock held. One thread at a time does so; what the others ask for meanwhile, it does.
pub fn collect() {
    if !CIRCLES.load(Ordering::Relaxed) {
        return;
    }
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    if asked < GRAPH.lock().len() / SHARE || STATE.swap(AGAIN, Ordering::SeqCst) != IDLE {
        return;
    }
    ASKED.store(0, Ordering::Relaxed);
    loop {
        STATE.store(BUSY, Ordering::SeqCst);
        let dead = unreachable(&GRAPH.lock());
        for socket in &dead {
            socket.empty();
        }
        if STATE.compare_exchange(BUSY, IDLE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return;
        }
    }
}

fn unreachable(graph: &BTreeMap<u64, Vertex>) -> Vec<Arc<Socket>> {
    // By what holds them: those that can be reached if it can be.
    let mut held: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut reached = Vec::new();
    for (id, vertex) in graph {
        let waiting: usize = vertex.flights.values().map(|(_, n)| n).sum();
        let mut live = vertex.file.strong_count() > waiting;
        for (reach, _) in vertex.flights.values() {
            let by = reach.load(Ordering::Relaxed);
            if graph.contains_key(&by) {
                held.entry(by).or_default().push(*id);
            } else {
                live = true;
            }
        }
        if live {
            reached.push(*id);
        }
    }
    CIRCLES.store(!held.is_empty(), Ordering::Relaxed);
    let mut dead: BTreeMap<u64, &Vertex> = graph.iter().map(|(id, v)| (*id, v)).collect();
    while let Some(id) = reached.pop() {
        if dead.remove(&id).is_some() {
            reached.extend(held.get(&id).into_iter().flatten());
        }
    }
    dead.values().filter_map(|v| v.socket.upgrade()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::scm::{Ancillary, Flight, Ucred};
    use crate::ipc::unix::Kind;
    use crate::task::Creds;
    use crate::uio::Source;

    fn pair() -> (Arc<File>, Arc<File>) {
        let (a, b) = Socket::pair(Kind::Stream, Ucred::default(), &[], None);
        (a.file(&Creds::root(0), false), b.file(&Creds::root(0), false))
    }

    fn socket(file: &Arc<File>) -> Arc<Socket> {
        file.ops_as::<SocketFile>().unwrap().0.clone()
    }

    fn pass(from: &Arc<File>, files: &[&Arc<File>]) {
        let files: Vec<_> = files.iter().map(|f| Arc::clone(f)).collect();
        let flight = Some(Flight::begin(77_777, &files, u64::MAX).unwrap());
        let with = Ancillary { files, flight, ..Ancillary::default() };
        let from = socket(from);
        from.send(&from.target().unwrap(), &mut Source::kernel(b"x"), &with, false).unwrap();
    }

    #[test]
    fn rings_are_freed_as_often_as_they_are_made() {
        let mut all = Vec::new();
        for _ in 0..2000 {
            let ((a, b), (c, d)) = (pair(), pair());
            pass(&a, &[&d, &d]);
            pass(&c, &[&b, &b, &a]);
            all.extend([&a, &b, &c, &d].map(|f| Arc::downgrade(&socket(f))));
        }
        // What another test held up is looked at again.
        for _ in 0..5000 {
            collect();
            if all.iter().all(|s| s.strong_count() == 0) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(all.iter().filter(|s| s.strong_count() > 0).count(), 0);
    }

    #[test]
    fn a_long_chain_is_dropped_on_a_small_stack() {
        let work = || {
            let (_, mut last) = pair();
            let first = Arc::downgrade(&socket(&last));
            for _ in 0..20_000 {
                let (a, b) = pair();
                pass(&a, &[&last]);
                last = b;
            }
            drop(last);
            assert_eq!(first.strong_count(), 0);
        };
        std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
    }
}
