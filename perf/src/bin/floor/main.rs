//! The floor: a program that moves the bytes that the proxy would move, with the least code that
//! does it. It terminates TLS and WebSocket, knows each client by a number that the load writes at
//! known places, and relays by it; of SIP it knows nothing else. What it costs is what any server
//! of this load costs on this machine; the proxy is compared with that. Linux, IPv4, one thread.

mod connection;
mod connections;
mod datagrams;
mod floor;
mod ring;
mod spares;
mod text;
mod tls;
mod ways;
mod ws;

use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use socket2::{Domain, Protocol, Socket, Type};

use connection::Layer;
use floor::{Floor, Listening};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that wait to be accepted, and bytes of the UDP socket's buffers: the proxy's.
const BACKLOG: i32 = 4096;
const DATAGRAM_SOCKET_BYTES: usize = 4 << 20;

/// Relays the load without SIP: the least that a server of it can cost. Prints one line for each
/// address, `TRANSPORT ADDRESS`, then `ready`.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address for WebSocket over TLS.
    #[arg(long)]
    wss: Option<SocketAddrV4>,
    /// Address for WebSocket.
    #[arg(long)]
    ws: Option<SocketAddrV4>,
    /// Address for SIP over TLS.
    #[arg(long)]
    tls: Option<SocketAddrV4>,
    /// Address for SIP over TCP.
    #[arg(long)]
    tcp: Option<SocketAddrV4>,
    /// Address for SIP over UDP.
    #[arg(long)]
    udp: Option<SocketAddrV4>,
    /// PEM file of the certificate.
    #[arg(long)]
    cert: PathBuf,
    /// PEM file of its key.
    #[arg(long)]
    key: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wanted = [
        ("wss", arguments.wss, Layer::Upgrade, true),
        ("ws", arguments.ws, Layer::Upgrade, false),
        ("tls", arguments.tls, Layer::Stream, true),
        ("tcp", arguments.tcp, Layer::Stream, false),
    ];
    let mut listeners = Vec::new();
    for (name, address, layer, is_secure) in wanted {
        let Some(address) = address else { continue };
        let socket = listen(address).with_context(|| format!("listening on {name} {address}"))?;
        println!("{name} {}", socket.local_addr()?);
        listeners.push(Listening { socket, layer, is_secure });
    }
    let udp = arguments.udp.map(bind).transpose().context("binding the UDP socket")?;
    if let Some(udp) = &udp {
        println!("udp {}", udp.local_addr()?);
    }
    let tls = tls::config(&arguments.cert, &arguments.key)?;
    let mut floor = Floor::new(listeners, udp, tls).context("setting up the ring")?;
    println!("ready");
    floor.run().context("entering the ring")
}

fn listen(address: SocketAddrV4) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind(address: SocketAddrV4) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Smaller buffers lose more in a burst, no more than that.
    let _ = socket.set_recv_buffer_size(DATAGRAM_SOCKET_BYTES);
    let _ = socket.set_send_buffer_size(DATAGRAM_SOCKET_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
