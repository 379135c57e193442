//! Pass-through: bytes as they come, both ways, each direction to its own end.
//!
//! Called by the two entrances with a stream that names a service that is for its cluster. TLS, if that is what passes,
//! is between the program and the service.

use std::{sync::Arc, time::Duration};

use moorline_mux::Splicing;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use tokio_util::io::{InspectReader, InspectWriter};

use super::{
    catalog::Offered,
    dial::dial,
    origin::{Origin, Room},
    refused::Refused,
    visit::Visit,
};
use crate::audit::End;

/// Bytes copied at once, in each direction; and how long a program that still sends is read from after the service has
/// ended, so that the service's last bytes are not destroyed by a reset.
const SPLICING: Splicing = Splicing { buffer: 16 * 1024, linger: Duration::from_secs(2) };

/// A connection to a service, with all that is held for it.
pub(super) struct Passage {
    origin: Arc<Origin>,
    offered: Arc<Offered>,
    upstream: TcpStream,
    visit: Visit,
    _room: Room,
}

impl Passage {
    /// Connects to the service. `code` is what the program is told then, in the words of HTTP.
    ///
    /// # Errors
    /// It goes nowhere; counted, and written down.
    pub(super) async fn open(origin: &Arc<Origin>, offered: &Arc<Offered>, code: u16) -> Result<Self, Refused> {
        let mut visit = Visit::connection(origin, &offered.service.name);
        match connect(origin, offered, &mut visit).await {
            Ok((upstream, room)) => {
                visit.answered(code);
                let (origin, offered) = (Arc::clone(origin), Arc::clone(offered));
                Ok(Self { origin, offered, upstream, visit, _room: room })
            }
            Err(refused) => {
                visit.refused(&refused);
                Err(refused)
            }
        }
    }

    /// Carries bytes until the end: of both directions, of the stream, of the process, or of the right to it.
    pub(super) async fn carry<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { origin, offered, mut upstream, mut visit, _room } = self;
        let carried = Arc::clone(visit.carried());
        let read = InspectReader::new(io, |bytes: &[u8]| carried.up(bytes.len()));
        let mut io = InspectWriter::new(read, |bytes: &[u8]| carried.down(bytes.len()));
        let interval = origin.state().gateway.recheck_interval;
        let withdrawn = Arc::clone(&origin).withdrawn(offered.service.name.clone(), interval);
        let end = tokio::select! {
            ended = moorline_mux::splice(&mut io, &mut upstream, SPLICING) => match ended {
                Ok(_carried) => End::Complete,
                Err(_cut) => End::Lost,
            },
            () = withdrawn => End::Forbidden,
            () = origin.state().phases.cancelled() => End::Lost,
        };
        visit.ends(end);
    }
}

async fn connect(
    origin: &Arc<Origin>,
    offered: &Arc<Offered>,
    visit: &mut Visit,
) -> Result<(TcpStream, Room), Refused> {
    visit.receipt().await?;
    let room = origin.room(offered)?;
    let services = origin.services();
    let began = Instant::now();
    let upstream = dial(origin.state(), offered, began + services.config.dial_timeout).await;
    services.metrics.dial_seconds.observe(began.elapsed().as_secs_f64());
    Ok((upstream.map_err(Refused::Dial)?, room))
}
