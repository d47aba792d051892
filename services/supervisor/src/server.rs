//! Connections of command lines: requests in, answers out.
//!
//! Called by `main` for each connection whose peer may command this supervisor. What a connection owns ends with it.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use cofferdam_control::AsyncChannel;
use cofferdam_control::client::{Create, Owner, Request, Response, Status};

use crate::house::House;
use crate::sandbox::Sandbox;
use crate::spec::Refused;

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its uid.
    pub uid: u32,
    /// Its pid.
    pub pid: i32,
}

/// What becomes of a sandbox when the connection ends.
struct Ties {
    /// Made over this connection.
    made: Vec<Rc<Sandbox>>,
    /// Owned by it, or stood in for by its peer.
    owned: Vec<Rc<Sandbox>>,
    stood_in: Vec<Rc<Sandbox>>,
}

/// Serves one connection until it ends, then ends what it owned.
pub async fn serve(house: Rc<House>, channel: AsyncChannel, peer: Peer) {
    house.arrive();
    let channel = Rc::new(channel);
    let mut ties = Ties { made: Vec::new(), owned: Vec::new(), stood_in: Vec::new() };
    // The greeting tells that this supervisor is not about to leave.
    if channel.send(&Response::Done, &[]).is_ok() {
        while let Ok(got) = channel.receive::<Request>().await {
            let answer = match handle(&house, &channel, peer, &mut ties, got.message, got.descriptors).await {
                Ok(Some(answer)) => answer,
                Ok(None) => continue,
                Err(Refused { kind, message }) => Response::Failed { kind, message },
            };
            if channel.send(&answer, &[]).is_err() {
                break;
            }
        }
    }
    for sandbox in ties.owned {
        sandbox.destroy().await;
    }
    for sandbox in ties.made {
        if !sandbox.kept.get() {
            sandbox.destroy().await;
        }
    }
    for sandbox in ties.stood_in {
        // The stand-in is the container's init to the world: who kills it has killed the container.
        if sandbox.state().status != Status::Stopped {
            let _ = sandbox.kill(9, true).await;
        }
    }
    house.leave();
}

async fn handle(
    house: &Rc<House>,
    channel: &Rc<AsyncChannel>,
    peer: Peer,
    ties: &mut Ties,
    request: Request,
    descriptors: Vec<OwnedFd>,
) -> Result<Option<Response>, Refused> {
    match request {
        Request::Create(create) => {
            return self::create(house, channel, peer, ties, *create, descriptors).await.map(Some);
        }
        Request::Start { id } => house.find(&id)?.start().await?,
        Request::Kill { id, signal, all } => house.find(&id)?.kill(signal, all).await?,
        Request::Delete { id, force } => {
            let sandbox = house.find(&id)?;
            let status = sandbox.state().status;
            if !force && status != Status::Stopped {
                let message = format!("cannot delete container {id} that is not stopped: {}", status.word());
                return Err(Refused::new(cofferdam_control::sentry::FailureKind::WrongState, message));
            }
            sandbox.destroy().await;
        }
        Request::State { id } => return Ok(Some(Response::State(house.find(&id)?.state()))),
        Request::List => {
            let states = house.sandboxes.borrow().values().map(|s| s.state()).collect();
            return Ok(Some(Response::List(states)));
        }
        Request::Wait { id } => {
            tell_end(house.find(&id)?, channel.clone());
            return Ok(None);
        }
        Request::StandIn { id } => {
            let sandbox = house.find(&id)?;
            sandbox.stand_in(peer.pid)?;
            ties.stood_in.push(sandbox.clone());
            tell_end(sandbox, channel.clone());
        }
        Request::Resize { id, rows, cols } => house.find(&id)?.resize(rows, cols).await?,
        Request::Front { id, stops } => house.find(&id)?.front(stops).await?,
        Request::Events => {
            for sandbox in house.sandboxes.borrow().values() {
                tell_end(sandbox.clone(), channel.clone());
            }
        }
    }
    Ok(Some(Response::Done))
}

/// Makes a container; stops making it when the command line goes away meanwhile.
async fn create(
    house: &Rc<House>,
    channel: &Rc<AsyncChannel>,
    peer: Peer,
    ties: &mut Ties,
    create: Create,
    descriptors: Vec<OwnedFd>,
) -> Result<Response, Refused> {
    let sandbox = Sandbox::create(house, &create, descriptors, peer.uid).await?;
    match create.owner {
        Owner::Connection => {
            sandbox.kept.set(true);
            ties.owned.push(sandbox.clone());
        }
        Owner::Itself => ties.made.push(sandbox.clone()),
    }
    if create.trace_startup {
        let _ = channel.send(&Response::Trace(sandbox.trace()), &[]);
    }
    let (platform, why) = sandbox.platform();
    Ok(Response::Created { platform, why })
}

/// Sends the end of a container over `channel` when it comes, and its stops until then.
fn tell_end(sandbox: Rc<Sandbox>, channel: Rc<AsyncChannel>) {
    let mut stops = sandbox.stops();
    tokio::task::spawn_local(async move {
        let (status, reason) = loop {
            tokio::select! {
                end = sandbox.wait() => break end,
                Ok(()) = stops.changed() => {
                    let signal = *stops.borrow_and_update();
                    let _ = channel.send(&Response::Stopped { id: sandbox.state().id, signal }, &[]);
                }
            }
        };
        let _ = channel.send(&Response::Trace(sandbox.trace()), &[]);
        let _ = channel.send(&Response::Exited { id: sandbox.state().id, status, reason }, &[]);
    });
}
