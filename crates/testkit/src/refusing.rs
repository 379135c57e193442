//! An address that refuses every connection for as long as a test holds it.
//!
//! A port that is bound, given up and then expected to refuse may belong to another test by the time it is dialled. This
//! one stays bound and nobody listens on it: the kernel answers with a reset, and gives it to nobody else.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port of loopback on which nobody listens, and nobody else can.
#[derive(Debug)]
pub struct Refusing {
    address: SocketAddr,
    _bound: Socket,
}

impl Refusing {
    /// Takes a free port of loopback.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn bind() -> io::Result<Self> {
        Self::take(false)
    }

    /// The same, for whoever comes and goes at one address: a listener that sets `SO_REUSEADDR`, as those of the standard
    /// library and of tokio do, can listen there meanwhile. The kernel still gives the port to nobody who asks for a free
    /// one.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn shared() -> io::Result<Self> {
        Self::take(true)
    }

    /// What refuses.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn take(shared: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(shared)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("bound to no address"))?;
        Ok(Self { address, _bound: socket })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn refuses(address: SocketAddr) -> bool {
        TcpStream::connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    #[test]
    fn it_refuses_and_nobody_else_gets_it() {
        let held = Refusing::bind().unwrap();
        assert!(refuses(held.address()));
        assert_eq!(TcpListener::bind(held.address()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn whoever_comes_and_goes_finds_its_address_again() {
        let held = Refusing::shared().unwrap();
        for _ in 0..2 {
            assert!(refuses(held.address()));
            let listener = TcpListener::bind(held.address()).unwrap();
            let (_caller, _answered) = (TcpStream::connect(held.address()).unwrap(), listener.accept().unwrap());
        }
        assert!(refuses(held.address()));
    }
}
