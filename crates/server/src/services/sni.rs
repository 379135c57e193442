//! Guardian's entrance: a stream is what a program in the cluster sent, TLS almost always, and the server name in its first
//! message names the service.
//!
//! Spawned by the tunnel door for each session, and ended with it.

use std::{sync::Arc, time::Duration};

use moorline_mtls::server::hello::{Heard, Replayed, hear_hello};
use moorline_mux::{Incoming, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{catalog::Offered, origin::Origin, pass::Passage, proxy, refused::Refused, table::Mode, visit};
use crate::{registry::Cluster, state::State, tunnel::session::Session};

/// For the first message of TLS, and for the rest of the handshake where it is with us.
const HELLO: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a program that is refused is listened to, so that it hears why.
const LINGER: Duration = Duration::from_secs(1);

/// How much of that is read before it is hung up on anyway, in bytes.
const LINGER_BYTES: u64 = 64 * 1024;

/// Answers the raw streams that Guardian opens, until its session has ended.
pub(crate) async fn serve_guardian(
    state: Arc<State>,
    cluster: Arc<Cluster>,
    session: Arc<Session>,
    mut incoming: Incoming,
) {
    let origin = Origin::new(&state, &cluster, &session);
    drop(session);
    while let Some(stream) = incoming.accept().await {
        let place = match origin.stream() {
            Ok(place) => place,
            Err(refused) => {
                visit::count(&origin, &refused);
                stream.reset();
                continue;
            }
        };
        let origin = Arc::clone(&origin);
        state.tasks.spawn("service-stream", async move {
            let _place = place;
            let (phases, gone) = (origin.state().phases.clone(), stream.watch());
            tokio::select! {
                () = Box::pin(serve(&origin, stream)) => {}
                // Wherever it waits: for the service, most likely.
                () = gone => {}
                () = phases.cancelled() => {}
            }
        });
    }
}

/// Takes one stream to its service.
async fn serve(origin: &Arc<Origin>, stream: Stream) {
    let (server_name, io) = match hear_hello(stream, HELLO).await {
        Ok(Heard { server_name, io }) => (server_name, io),
        Err((error, stream)) => {
            visit::count(origin, &Refused::Hello(error));
            return stream.reset();
        }
    };
    let found = match &server_name {
        None => Err(Refused::NoName),
        Some(name) => origin.by_server_name(name),
    };
    let offered = match found {
        Ok(offered) => offered,
        Err(refused) => {
            visit::not_found(origin, &refused);
            return turn_away(io, &refused).await;
        }
    };
    match &offered.service.mode {
        Mode::PassThrough => match Passage::open(origin, &offered, 200).await {
            Ok(passage) => {
                origin.services().metrics.entered("server-name");
                passage.carry(io).await;
            }
            Err(refused) => turn_away(io, &refused).await,
        },
        Mode::Http { .. } => terminate(origin, &offered, io).await,
    }
}

/// Does the handshake with the program, and then HTTP.
async fn terminate(origin: &Arc<Origin>, offered: &Arc<Offered>, io: Replayed<Stream>) {
    // There is one wherever there are server names.
    let Some(acceptor) = &offered.acceptor else {
        return turn_away(io, &Refused::Unknown(offered.service.name.to_string())).await;
    };
    match acceptor.accept(io, HANDSHAKE).await {
        Ok((tls, _nobody)) => {
            origin.services().metrics.entered("server-name");
            let h2 = tls.alpn() == Some(b"h2");
            proxy::serve(origin, &offered.service.name, tls, h2).await;
        }
        Err(error) => visit::count(origin, &Refused::Handshake(error)),
    }
}

/// Tells a program in TLS that it is refused, and hangs up.
async fn turn_away<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, refused: &Refused) {
    let Some(alert) = refused.alert() else { return };
    let telling = async {
        io.write_all(&alert).await?;
        io.shutdown().await?;
        tokio::io::copy(&mut (&mut io).take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    drop(tokio::time::timeout(LINGER, telling).await);
}
