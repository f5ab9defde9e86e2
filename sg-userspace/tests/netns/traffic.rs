//! Streams and datagrams between two namespaces.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use crate::common::netns::{NEVER, Namespace, SOON};

/// Bytes of a bulk transfer: enough for segments of every size.
pub(crate) const BULK: usize = 1 << 20;

/// Bytes that show when some are lost, doubled or out of order.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect()
}

/// Sends [`BULK`] bytes to an echo server and takes them back at the same time.
#[track_caller]
pub(crate) fn transfer(stream: &TcpStream) {
    let sent = pattern(BULK);
    let mut back = vec![0; BULK];
    thread::scope(|scope| {
        scope.spawn(|| (&*stream).write_all(&sent).unwrap());
        (&*stream).read_exact(&mut back).unwrap();
    });
    assert!(sent == back, "the bytes came back changed");
}

/// Sends a [`sink`] what it wants, however long it waits in between.
pub(crate) fn start(stream: &TcpStream) {
    stream.set_write_timeout(Some(2 * SOON)).unwrap();
    (&*stream).write_all(&pattern(BULK)).unwrap();
}

/// Whether the sink has it all within the time.
pub(crate) fn finish(stream: &TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut done = [0; 1];
    (&*stream).read_exact(&mut done).is_ok() && done == *b"!"
}

/// A server for one connection that wants [`BULK`] bytes and then says so.
pub(crate) fn sink(namespace: &Namespace, address: SocketAddr) -> thread::JoinHandle<()> {
    let listener = namespace.run(|| TcpListener::bind(address)).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = vec![0; BULK];
        if stream.read_exact(&mut bytes).is_ok() {
            assert!(bytes == pattern(BULK), "the bytes came changed");
            stream.write_all(b"!").unwrap();
        }
    })
}

/// One side ends its stream and still hears all that the other says after that.
#[track_caller]
pub(crate) fn half_close(server: &Namespace, client: &Namespace, address: IpAddr, port: u16) {
    let listener = server.run(|| TcpListener::bind((address, port))).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = Vec::new();
            stream.read_to_end(&mut question).unwrap();
            assert_eq!(question, b"question");
            stream.write_all(&pattern(BULK / 4)).unwrap();
        });
        let mut stream = client.connect(address, port).unwrap();
        stream.write_all(b"question").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer == pattern(BULK / 4), "the answer came changed");
    });
}

/// A UDP socket.
pub(crate) fn datagrams(namespace: &Namespace, address: IpAddr, port: u16) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((address, port))).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// A datagram of `length` bytes is heard by `server` and answered with the same.
#[track_caller]
pub(crate) fn question_and_answer(client: &UdpSocket, server: &UdpSocket, length: usize) {
    let sent = pattern(length);
    client.send_to(&sent, server.local_addr().unwrap()).unwrap();
    let mut heard = vec![0; length + 1];
    let (read, from) = server.recv_from(&mut heard).unwrap();
    assert!(heard[..read] == sent, "the question came changed");
    assert_eq!(from, client.local_addr().unwrap());
    server.send_to(&sent, from).unwrap();
    let (read, from) = client.recv_from(&mut heard).unwrap();
    assert!(heard[..read] == sent, "the answer came changed");
    assert_eq!(from, server.local_addr().unwrap());
}

/// Whether a datagram of `length` bytes to `server` is not heard.
pub(crate) fn question_is_dropped(client: &UdpSocket, server: &UdpSocket, length: usize) -> bool {
    server.set_read_timeout(Some(NEVER)).unwrap();
    let to = server.local_addr().unwrap();
    client.send_to(&pattern(length), to).unwrap();
    let heard = server.recv_from(&mut [0; 1]);
    heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
