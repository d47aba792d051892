//! The few threads that may hang in a write to a terminal.
//!
//! Not tokio's pool: that one makes threads and asks for the time when it likes, and behind the walls neither is to be had.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Barrier, Mutex, PoisonError, mpsc};

use cofferdam_ninep::Errno;
use tokio::sync::oneshot;

struct Job {
    fd: Arc<OwnedFd>,
    data: Vec<u8>,
    done: oneshot::Sender<Result<usize, Errno>>,
}

/// A queue to the threads.
#[derive(Debug, Clone)]
pub struct Writers {
    queue: mpsc::Sender<Job>,
}

impl Writers {
    /// Starts `count` threads and waits until they run.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        let running = Arc::new(Barrier::new(count + 1));
        for _ in 0..count {
            let (jobs, running) = (jobs.clone(), running.clone());
            std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
                running.wait();
                loop {
                    let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    match job {
                        Ok(job) => {
                            let written = rustix::io::write(&*job.fd, &job.data).map_err(Errno::from);
                            // Nobody waits any more where the write was flushed.
                            let _ = job.done.send(written);
                        }
                        // The service is ending; a thread that ends makes calls that the policy does not have.
                        Err(_) => std::thread::park(),
                    }
                }
            })?;
        }
        running.wait();
        Ok(Self { queue })
    }

    /// Writes on one of the threads.
    pub async fn write(&self, fd: Arc<OwnedFd>, data: Vec<u8>) -> Result<usize, Errno> {
        let (done, written) = oneshot::channel();
        self.queue.send(Job { fd, data, done }).map_err(|_| Errno::IO)?;
        written.await.map_err(|_| Errno::IO)?
    }
}
