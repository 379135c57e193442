//! The encrypted streams that a handshake gives: tokio byte streams, with the TLS library hidden behind them.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sniff::Sniff;

macro_rules! stream {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        ///
        /// A write that is done may still be on its way: flush before waiting for an answer. Shutting down sends the
        /// close of TLS; a read that ends without it is an error ([`io::ErrorKind::UnexpectedEof`]), so a cut
        /// connection is never taken for a clean end.
        pub struct $name<IO> {
            inner: $inner,
        }

        impl<IO> $name<IO> {
            pub(crate) fn new(inner: $inner) -> Self {
                Self { inner }
            }

            /// The byte stream below.
            #[must_use]
            pub fn io(&self) -> &IO {
                self.inner.get_ref().0.get_ref()
            }

            /// The application protocol that both sides agreed on, if any.
            #[must_use]
            pub fn alpn(&self) -> Option<&[u8]> {
                self.inner.get_ref().1.alpn_protocol()
            }

            /// The TLS version in two digits (`1.3`), for logs.
            #[must_use]
            pub fn tls_version(&self) -> &'static str {
                match self.inner.get_ref().1.protocol_version() {
                    Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
                    Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
                    _ => "unknown",
                }
            }
        }

        impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for $name<IO> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_read(cx, buf)
            }
        }

        impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for $name<IO> {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.inner).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                self.inner.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_shutdown(cx)
            }
        }

        impl<IO> fmt::Debug for $name<IO> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("tls", &self.tls_version()).finish_non_exhaustive()
            }
        }
    };
}

stream! {
    /// The accepting side of a TLS connection.
    ServerStream, tokio_rustls::server::TlsStream<Sniff<IO>>
}

stream! {
    /// The dialling side of a TLS connection.
    ClientStream, tokio_rustls::client::TlsStream<Sniff<IO>>
}
