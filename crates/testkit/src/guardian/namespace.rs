//! A network namespace with nothing but a loopback interface, and ways between it and the tests' own.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::task::JoinHandle;

/// A namespace. It ends with this value, and with this process.
#[derive(Debug)]
pub(super) struct Namespace {
    keeper: Child,
    ways: Vec<JoinHandle<()>>,
}

impl Namespace {
    /// Whether one can be made here, which takes root.
    pub(super) fn possible() -> bool {
        let script = "ip link set lo up && mount -t tmpfs tmpfs /run";
        let probe = Command::new("unshare").args(["--net", "--mount", "sh", "-c", script]).output();
        probe.is_ok_and(|output| output.status.success())
    }

    pub(super) fn new() -> Result<Self> {
        // Reads what never comes, and so ends when this process does.
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut told = [0; 3];
        keeper.stdout.as_mut().context("a pipe")?.read_exact(&mut told).context("no namespace")?;
        Ok(Self { keeper, ways: Vec::new() })
    }

    /// Where it is in the file system.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.keeper.id())
    }

    /// From now on `to` is reached from within, under the same address.
    pub(super) fn lead_out(&mut self, to: SocketAddr) -> Result<()> {
        let listener = self.within(move || TcpListener::bind(to))?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        #[expect(clippy::disallowed_methods, reason = "a network lives outside of the process that is under test")]
        let way = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            while let Ok((mut inside, _)) = listener.accept().await {
                running.spawn(async move {
                    if let Ok(mut outside) = tokio::net::TcpStream::connect(to).await {
                        _ = (inside.set_nodelay(true), outside.set_nodelay(true));
                        // How it ended, both have seen.
                        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                    }
                });
                while running.try_join_next().is_some() {}
            }
        });
        self.ways.push(way);
        Ok(())
    }

    /// A connection to a port of its loopback.
    pub(super) fn connect(&self, port: u16) -> Result<tokio::net::TcpStream> {
        let stream = self.within(move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)))?;
        stream.set_nonblocking(true)?;
        Ok(tokio::net::TcpStream::from_std(stream)?)
    }

    /// Makes a socket in it. A socket stays in the namespace that it was made in, whoever uses it.
    fn within<T: Send + 'static>(&self, make: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
        let namespace = File::open(self.path())?;
        let made = std::thread::spawn(move || -> Result<T> {
            // Only this thread, which ends here.
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(make()?)
        });
        made.join().map_err(|_panic| anyhow!("a thread fell over"))?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for way in &self.ways {
            way.abort();
        }
        _ = self.keeper.kill();
        _ = self.keeper.wait();
    }
}
