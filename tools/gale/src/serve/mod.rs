//! The servers that gale is measured against, and that show what the kernel costs before any server does anything.
//!
//! Invariant: they do as little as their protocol allows, so that a measurement against them is a ceiling.

pub mod http;
pub mod raw;

use std::{
    io,
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{SocketFlags, accept_with, sockopt::set_tcp_nodelay},
};

use crate::{
    cli::Serve,
    net::{UNIX, listener, unix_listener},
    poll::{self, Interest, Poll, Ready},
};

/// What a server does with a connection.
pub trait Service: Clone + Send {
    /// A connection.
    type Peer;

    /// One has come.
    fn welcome(&mut self) -> Self::Peer;

    /// Something can be read, or there is room to write. Whether the connection goes on, and what it waits for.
    fn serve(&mut self, socket: &OwnedFd, peer: &mut Self::Peer, ready: Ready) -> Result<Interest, Errno>;

    /// What a new connection waits for.
    fn first_interest(&self) -> Interest {
        Interest::Read
    }
}

const LISTENER: usize = usize::MAX;
const HOUR: Duration = Duration::from_secs(3600);

/// Serves until its time is over, or for ever.
pub fn run<S: Service>(serve: &Serve, service: &S) -> Result<(), String> {
    let (listeners, address) = listeners(serve)?;
    println!("listening on {address}");
    let ends = serve.lasts.map(|lasts| Instant::now() + lasts);
    thread::scope(|scope| {
        let threads: Vec<_> = (listeners.into_iter().enumerate())
            .map(|(number, listener)| {
                let (service, core) = (service.clone(), serve.core(number));
                scope.spawn(move || turn(&listener, service, core, ends))
            })
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join().expect("a server does not panic"));
        ended.collect::<io::Result<Vec<()>>>().map(drop).map_err(|why| why.to_string())
    })
}

/// One for each thread, and where they are.
fn listeners(serve: &Serve) -> Result<(Vec<OwnedFd>, String), String> {
    if let Some(path) = serve.listen.strip_prefix(UNIX) {
        // All accept from the same queue: a path has one socket.
        let first = unix_listener(path)?;
        let others = (1..serve.threads).map(|_| first.try_clone().map_err(|why| why.to_string()));
        let mut listeners = others.collect::<Result<Vec<_>, _>>()?;
        listeners.push(first);
        return Ok((listeners, serve.listen.clone()));
    }
    let first = listener(&serve.listen, &serve.congestion)?;
    let address = first.local_addr().map_err(|why| why.to_string())?.to_string();
    let others = (1..serve.threads).map(|_| listener(&address, &serve.congestion).map(OwnedFd::from));
    let mut listeners = others.collect::<Result<Vec<_>, _>>()?;
    listeners.push(first.into());
    Ok((listeners, address))
}

fn turn<S: Service>(
    listener: &OwnedFd,
    mut service: S,
    core: Option<usize>,
    ends: Option<Instant>,
) -> io::Result<()> {
    poll::settle(core)?;
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER, Interest::Read)?;
    let mut peers: Vec<Option<(OwnedFd, S::Peer, Interest)>> = Vec::new();
    let mut ready = Vec::new();
    loop {
        let left = ends.map_or(HOUR, |ends| ends.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(());
        }
        poll.wait(left.as_nanos() as u64, &mut ready)?;
        for ready in &ready {
            if ready.token == LISTENER {
                welcome(listener, &poll, &mut service, &mut peers)?;
                continue;
            }
            let Some((socket, peer, interest)) = &mut peers[ready.token] else { continue };
            match service.serve(socket, peer, *ready) {
                Ok(same) if same == *interest => {}
                Ok(other) => {
                    poll.change(&*socket, ready.token, other)?;
                    *interest = other;
                }
                Err(_) => peers[ready.token] = None,
            }
        }
    }
}

fn welcome<S: Service>(
    listener: &OwnedFd,
    poll: &Poll,
    service: &mut S,
    peers: &mut Vec<Option<(OwnedFd, S::Peer, Interest)>>,
) -> io::Result<()> {
    loop {
        let socket = match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(()),
            Err(why) => return Err(why.into()),
        };
        // A unix socket has no such option and needs none.
        match set_tcp_nodelay(&socket, true) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT) => {}
            Err(why) => return Err(why.into()),
        }
        let token = peers.iter().position(Option::is_none).unwrap_or(peers.len());
        if token == peers.len() {
            peers.push(None);
        }
        let interest = service.first_interest();
        poll.add(&socket, token, interest)?;
        peers[token] = Some((socket, service.welcome(), interest));
    }
}
