//! Connections of command lines: requests in, answers out.
//!
//! Called by `main` for each connection whose peer may command this supervisor. What a connection owns ends with it.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use cofferdam_control::AsyncChannel;
use cofferdam_control::client::{Create, Owner, Request, Response, Status};

use crate::container::Container;
use crate::house::House;
use crate::spec::Refused;

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its uid.
    pub uid: u32,
    /// Its pid.
    pub pid: i32,
}

/// What becomes of containers when the connection ends.
struct Ties {
    /// Made over this connection.
    made: Vec<Rc<Container>>,
    /// Owned by it, or stood in for by its peer.
    owned: Vec<Rc<Container>>,
    stood_in: Vec<(Rc<Container>, u32)>,
    /// Processes of `exec` that were asked for over it.
    execs: Vec<(Rc<Container>, u32, Owner)>,
}

/// Serves one connection until it ends, then ends what it owned.
pub async fn serve(house: Rc<House>, channel: AsyncChannel, peer: Peer) {
    house.arrive();
    let channel = Rc::new(channel);
    let mut ties = Ties { made: Vec::new(), owned: Vec::new(), stood_in: Vec::new(), execs: Vec::new() };
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
    for container in ties.owned {
        container.destroy().await;
    }
    for container in ties.made {
        if !container.kept.get() {
            container.destroy().await;
        }
    }
    for (container, process, owner) in ties.execs {
        let kept = container.running(process).is_ok_and(|r| r.kept.get());
        if owner == Owner::Connection || !kept {
            container.abandon(process).await;
        }
    }
    for (container, process) in ties.stood_in {
        // The stand-in is the process to the world: who kills it has killed that.
        if process != 0 {
            container.abandon(process).await;
        } else if container.state().status != Status::Stopped {
            let _ = container.kill(0, 9, true).await;
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
        // Asked for in between: see `view`.
        Request::Opened(_) => {
            return Err(Refused::new(cofferdam_control::sentry::FailureKind::Invalid, "nothing was to be opened"));
        }
        Request::Exec(exec) => {
            let container = house.find(&exec.id)?;
            let process = container.exec(&exec, descriptors).await?;
            ties.execs.push((container, process, exec.owner));
            return Ok(Some(Response::Executed { process }));
        }
        Request::Start { id, process: 0 } => house.find(&id)?.start().await?,
        Request::Start { id, process } => house.find(&id)?.start_process(process).await?,
        Request::Kill { id, process, signal, all } => house.find(&id)?.kill(process, signal, all).await?,
        Request::Freeze { id, frozen } => house.find(&id)?.freeze(frozen).await?,
        Request::Processes { id } => return Ok(Some(Response::Processes(house.find(&id)?.processes().await?))),
        Request::Delete { id, force } => {
            let container = house.find(&id)?;
            let status = container.state().status;
            // One that was made and never let run needs no force: as runc.
            if !force && !matches!(status, Status::Created | Status::Stopped) {
                let message = format!("cannot delete container {id} that is not stopped: {}", status.word());
                return Err(Refused::new(cofferdam_control::sentry::FailureKind::WrongState, message));
            }
            if status == Status::Creating {
                container.give_up("was deleted");
            }
            container.destroy().await;
        }
        Request::State { id } => return Ok(Some(Response::State(house.find(&id)?.state()))),
        Request::List => {
            let states = house.containers.borrow().values().map(|s| s.state()).collect();
            return Ok(Some(Response::List(states)));
        }
        Request::InVain { id } => return Ok(Some(Response::InVain(house.find(&id)?.in_vain().await?))),
        Request::Update { id, resources } => house.find(&id)?.update(&resources).await?,
        Request::Stats { id } => {
            let (stats, oom_kills) = house.find(&id)?.stats().await?;
            return Ok(Some(Response::Stats { stats, oom_kills }));
        }
        Request::Wait { id } => {
            tell_end(house.find(&id)?, 0, channel.clone())?;
            return Ok(None);
        }
        Request::AwaitReady { id } => {
            let (container, channel) = (house.find(&id)?, channel.clone());
            tokio::task::spawn_local(async move {
                let is = container.await_ready().await;
                let _ = channel.send(&Response::Ready { id, is }, &[]);
            });
            return Ok(None);
        }
        Request::StandIn { id, process } => {
            let container = house.find(&id)?;
            container.stand_in(process, peer.pid)?;
            ties.stood_in.push((container.clone(), process));
            tell_end(container, process, channel.clone())?;
        }
        Request::Network { id, from } => house.find(&id)?.has_network(from, descriptors)?,
        Request::Resize { id, process, rows, cols } => house.find(&id)?.resize(process, rows, cols).await?,
        Request::Front { id, stops } => house.find(&id)?.front(stops).await?,
        Request::Events => {
            for container in house.containers.borrow().values() {
                tell_end(container.clone(), 0, channel.clone())?;
            }
        }
    }
    Ok(Some(Response::Done))
}

/// Makes a container.
async fn create(
    house: &Rc<House>,
    channel: &Rc<AsyncChannel>,
    peer: Peer,
    ties: &mut Ties,
    create: Create,
    descriptors: Vec<OwnedFd>,
) -> Result<Response, Refused> {
    let (container, warnings) = Container::create(house, channel, &create, descriptors, peer).await?;
    match create.owner {
        Owner::Connection => {
            container.kept.set(true);
            ties.owned.push(container.clone());
        }
        Owner::Itself => ties.made.push(container.clone()),
    }
    if create.trace_startup {
        let _ = channel.send(&Response::Trace(container.trace()), &[]);
    }
    let (platform, why) = container.platform();
    Ok(Response::Created { platform, why, warnings })
}

/// Sends the end of a process over `channel` when it comes, and the stops of a container until then.
fn tell_end(container: Rc<Container>, process: u32, channel: Rc<AsyncChannel>) -> Result<(), Refused> {
    let mut stops = container.stops();
    let end = container.end_of(process)?;
    tokio::task::spawn_local(async move {
        let (status, reason) = loop {
            tokio::select! {
                end = Container::wait(end.clone()) => break end,
                Ok(()) = stops.changed(), if process == 0 => {
                    let signal = *stops.borrow_and_update();
                    let _ = channel.send(&Response::Stopped { id: container.state().id, signal }, &[]);
                }
            }
        };
        let _ = channel.send(&Response::Trace(container.trace()), &[]);
        let _ = channel.send(&Response::Exited { id: container.state().id, process, status, reason }, &[]);
    });
    Ok(())
}
