# rustc: a program with threads and collections, built with optimisation and run; one that panics.
cat > main.rs <<'R'
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
fn main() {
    let (tx, rx) = mpsc::channel();
    let map = Arc::new(Mutex::new(BTreeMap::new()));
    let threads: Vec<_> = (0..8u64).map(|t| { let (tx, map) = (tx.clone(), map.clone()); std::thread::spawn(move || for i in 0..100 { map.lock().unwrap().insert(t * 100 + i, i * i); tx.send(i).unwrap(); }) }).collect();
    drop(tx);
    let sum: u64 = rx.iter().sum();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let map = map.lock().unwrap();
    println!("{sum} {} {}", map.len(), map.values().sum::<u64>());
    if std::env::args().count() > 1 { panic!("asked for"); }
}
R
status rustc -O main.rs
status ./main
status ./main x > log 2>&1; grep -o "asked for" log; tail -1 log
