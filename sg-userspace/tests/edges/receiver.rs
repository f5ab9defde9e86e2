//! Sockets that hear every number that arrives.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
};

use crate::{
    bed::{Class, HANDED, TRACKED, UNTRACKED, ends},
    common::netns::Namespace,
    sender::{datagrams, read},
};

/// Sockets on the ports of all classes.
pub(crate) struct Receiver {
    sockets: Vec<UdpSocket>,
}

/// A number that arrived, by channel, and who sent it to which socket.
pub(crate) struct Arrival {
    pub(crate) channel: usize,
    pub(crate) number: u32,
    pub(crate) from: SocketAddr,
    socket: usize,
}

impl Receiver {
    /// At the near end, or at the far one.
    pub(crate) fn new(namespace: &Namespace, is_near: bool) -> Self {
        let place = usize::from(!is_near);
        let [v4, v6] = [ends(false)[place], ends(true)[place]];
        let sockets = [(v4, TRACKED), (v6, UNTRACKED)]
            .into_iter()
            .flat_map(|(address, first)| {
                Class::ALL.map(|class| SocketAddr::new(address, first + class.offset()))
            })
            .chain([SocketAddr::new(v6, HANDED)])
            .map(|address| datagrams(namespace, address))
            .collect();
        Self { sockets }
    }

    /// Everything that has arrived.
    pub(crate) fn drain(&self) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        let mut bytes = [0; 64];
        for (place, socket) in self.sockets.iter().enumerate() {
            loop {
                match socket.recv_from(&mut bytes) {
                    Ok((length, from)) => {
                        let (channel, number) =
                            read(&bytes[..length]).expect("nobody else sends here");
                        arrivals.push(Arrival {
                            channel,
                            number,
                            from,
                            socket: place,
                        });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        arrivals
    }

    /// Sends a datagram back where it came from.
    pub(crate) fn answer(&self, arrival: &Arrival) {
        let payload = crate::sender::payload(arrival.channel, arrival.number);
        // The device may be down; then the other end sends again.
        let _ = self.sockets[arrival.socket].send_to(&payload, arrival.from);
    }
}
