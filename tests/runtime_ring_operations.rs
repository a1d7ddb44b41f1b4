//! Operations of the ring: dropped futures leave the kernel its memory, buffers come back, bytes arrive whole.
//!
//! Runs real shards in this process; every wait has a deadline.

use millpond::runtime::driver;
use millpond::runtime::file::os::OsDisk;
use millpond::runtime::file::{Disk, FileRange};
use millpond::runtime::ring::accept::{self, Acceptor};
use millpond::runtime::ring::recv::{End, Receiver};
use millpond::runtime::ring::send::{self, Outgoing};
use millpond::runtime::ring::{self, buffers, poll, socket::Socket};
use millpond::runtime::{shard, timer};
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::Poll;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn on_a_shard<T: Send + 'static, F: Future<Output = T> + 'static>(
    test: impl Fn() -> F + Clone + Send + 'static,
) -> T {
    let (done, result) = sync_channel(1);
    let running = driver::start(1, Arc::new(OsDisk), move |_, _| {
        let (test, done) = (test.clone(), done.clone());
        Box::pin(async move {
            let value = test().await;
            let _ = done.send(value);
        })
    });
    let running = running.expect("shards start here");
    let value = result.recv_timeout(PATIENCE).expect("the test on the shard ends without a panic");
    assert!(running.join(), "the shard ends in order");
    value
}

fn pair() -> (Rc<Socket>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket");
    (Rc::new(Socket::from_fd(ours.into())), theirs)
}

/// Polls `work` once.
async fn poll_once<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| {
        Poll::Ready(match work.as_mut().poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

/// Turns until nothing is under way in the ring, or a second has passed.
async fn settle() -> usize {
    let began = shard::now();
    while ring::current().in_flight() > 0 && shard::now().since(began) < Duration::from_secs(1) {
        timer::sleep(Duration::from_millis(1)).await;
    }
    ring::current().in_flight()
}

/// The rule that makes every future here safe to drop: what the kernel still reads belongs to the operation. The
/// message outlives its future; memory that is freed and used again meanwhile must not reach the peer.
#[test]
fn a_dropped_send_leaves_the_kernel_its_bytes() {
    on_a_shard(|| async {
        let (socket, mut theirs) = pair();
        let mut message = Outgoing::new(socket.clone());
        message.head = vec![b'a'; 8 << 20];
        assert!(poll_once(send::send(message)).await.is_none(), "8 MiB do not fit into a socket");
        // One turn submits it, then the future is gone already; scribble over whatever was freed.
        shard::yield_now().await;
        let scribble: Vec<Vec<u8>> = (0..8).map(|_| vec![b'z'; 1 << 20]).collect();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
            let _ = theirs.read_to_end(&mut all);
            all
        });
        assert_eq!(settle().await, 0, "the cancelled send comes back");
        socket.finish_sending();
        drop((socket, scribble));
        let arrived = reader.join().expect("the reader reads");
        assert!(arrived.iter().all(|&byte| byte == b'a'), "freed memory reached the peer");
    });
}

#[test]
fn dropped_waits_end_in_the_kernel_and_free_their_sockets() {
    on_a_shard(|| async {
        let (socket, mut theirs) = pair();
        for _ in 0..100 {
            assert!(poll_once(poll::readable(&socket)).await.is_none());
        }
        let receiver = Receiver::new(socket.clone());
        assert!(poll_once(receiver.more_than(0)).await.is_none());
        drop((receiver, socket));
        assert_eq!(settle().await, 0, "cancelled operations come back");
        theirs.set_read_timeout(Some(PATIENCE)).expect("a socket");
        assert_eq!(theirs.read(&mut [0]).expect("an end, not an error"), 0, "the socket was closed");
    });
}

#[test]
fn provided_buffers_return_whatever_happens_to_their_readers() {
    on_a_shard(|| async {
        let rounds = usize::from(buffers::COUNT) * 4;
        for round in 0..rounds {
            let (socket, mut theirs) = pair();
            let receiver = Receiver::new(socket);
            assert!(poll_once(receiver.more_than(0)).await.is_none());
            theirs.write_all(&[round as u8; 100]).expect("it fits");
            if round % 2 == 0 {
                receiver.more_than(99).await;
                assert_eq!(&*receiver.buffered(), [round as u8; 100]);
            }
        }
        assert_eq!(settle().await, 0);
        let (socket, mut theirs) = pair();
        let receiver = Receiver::new(socket);
        theirs.write_all(b"still here").expect("it fits");
        receiver.more_than(9).await;
        assert_eq!(&*receiver.buffered(), b"still here");
    });
}

/// Bytes beyond what all provided buffers hold, taken slowly: the multishot receive ends with ENOBUFS or is
/// stopped at the inbox's bound, and nothing is lost, doubled or reordered on the way into bulk reading and back.
#[test]
fn every_byte_arrives_once_and_in_order_at_any_pace() {
    const TOTAL: usize = 24 << 20;
    let arrived = on_a_shard(|| async {
        let (socket, mut theirs) = pair();
        std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..TOTAL).map(|at| (at % 251) as u8).collect();
            // Small pieces, large pieces, small pieces again.
            let (small, rest) = bytes.split_at(100_000);
            let (large, tail) = rest.split_at(TOTAL - 200_000);
            small.chunks(77).try_for_each(|piece| theirs.write_all(piece)).expect("the shard reads");
            theirs.write_all(large).expect("the shard reads");
            tail.chunks(1000).try_for_each(|piece| theirs.write_all(piece)).expect("the shard reads");
        });
        let receiver = Receiver::new(socket);
        let mut at = 0;
        while at < TOTAL {
            let wanted = 1 + at % 300_000;
            let taken = receiver.next_piece(wanted, |piece| {
                let used = piece.len().div_ceil(2);
                for (index, byte) in piece[..used].iter().enumerate() {
                    assert_eq!(*byte, ((at + index) % 251) as u8, "byte {}", at + index);
                }
                used
            });
            at += taken.await.expect("no error").expect("no early end");
        }
        let end = receiver.next_piece(1, |piece| piece.len()).await.expect("no error");
        assert_eq!((end, receiver.end()), (None, Some(End::Finished)));
        at
    });
    assert_eq!(arrived, TOTAL);
}

#[test]
fn head_stored_bytes_and_trailer_leave_whole_through_a_narrow_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("stored");
    let file = OsDisk.create(&path, 8 << 20).expect("a file");
    let content: Vec<u8> = (0..8 << 20).map(|at: usize| (at / 3 % 256) as u8).collect();
    file.write_at(&content, 0).expect("it fits");
    for len in [1, 4095, 200 * 1024, 5 << 20] {
        let (file, expected) = (file.clone(), content[10..10 + len].to_vec());
        on_a_shard(move || {
            let (file, expected) = (file.clone(), expected.clone());
            async move {
                let (socket, mut theirs) = pair();
                let reader = std::thread::spawn(move || {
                    let mut all = Vec::new();
                    theirs.read_to_end(&mut all).expect("the shard sends");
                    all
                });
                let range = FileRange { file, offset: 10, len: len as u64 };
                let mut message = Outgoing::new(socket.clone());
                message.head.extend_from_slice(b"head ");
                if range.len <= send::TOGETHER_MAX {
                    message.stored = Some(range);
                    message.trailer.extend_from_slice(b" trailer");
                    send::send(message).await.0.expect("it is read");
                } else {
                    send::send(message).await.0.expect("it is read");
                    send::send_file(&socket, &range).await.expect("it is read");
                    let mut message = Outgoing::new(socket.clone());
                    message.head.extend_from_slice(b" trailer");
                    send::send(message).await.0.expect("it is read");
                }
                socket.finish_sending();
                let arrived = reader.join().expect("the reader reads");
                assert_eq!(arrived.len(), len + 13);
                assert!(arrived == [b"head ", &expected[..], b" trailer"].concat());
            }
        });
    }
}

#[test]
fn accepting_pauses_without_losing_anyone() {
    on_a_shard(|| async {
        let listener = Socket::listen_tcp("127.0.0.1:0".parse().expect("an address"), "").expect("loopback");
        let addr = listener.local_addr().expect("bound").expect("TCP");
        let acceptor = Acceptor::new(listener);
        let clients = std::thread::spawn(move || {
            (0..600u32)
                .map(|number| {
                    let mut client = TcpStream::connect(addr).expect("the backlog takes it");
                    client.write_all(&number.to_ne_bytes()).expect("it fits");
                    client
                })
                .collect::<Vec<_>>()
        });
        let mut seen = Vec::new();
        for round in 0..600 {
            if round % 100 == 50 {
                acceptor.pause();
            }
            let socket = Rc::new(acceptor.next().await.expect("a connection"));
            let receiver = Receiver::new(socket);
            receiver.more_than(3).await;
            seen.push(u32::from_ne_bytes(receiver.buffered()[..4].try_into().expect("four bytes")));
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..600), "each client once");
        drop((acceptor, clients));
    });
}

/// More connections wait in the backlog than may wait between kernel and accept loop: accepting stops at the bound and
/// has to begin again by itself, however the stop and the emptying of the queue fall together.
#[test]
fn a_burst_beyond_the_bound_is_accepted_whole() {
    on_a_shard(|| async {
        let listener = Socket::listen_tcp("127.0.0.1:0".parse().expect("an address"), "").expect("loopback");
        let addr = listener.local_addr().expect("bound").expect("TCP");
        let acceptor = Acceptor::new(listener);
        for burst in [accept::WAITING_MAX * 2 + 50, accept::WAITING_MAX, accept::WAITING_MAX + 1, 1] {
            let clients: Vec<_> =
                (0..burst).map(|_| TcpStream::connect(addr).expect("the backlog has room")).collect();
            let mut accepted = Vec::new();
            for _ in 0..burst {
                accepted.push(acceptor.next().await.expect("a connection"));
            }
            drop((accepted, clients));
        }
    });
}
