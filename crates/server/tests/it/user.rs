//! A user: HTTP over TLS to the gateway, with the token of the first start.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use moorline_api::{CreatedCluster, ManagedCluster, paths};
use moorline_mtls::{HttpsConnector, Roots};
use moorline_server::bootstrap::StateDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::house::{House, LIMIT};

/// Somebody with a token.
#[derive(Clone)]
pub(crate) struct User {
    gateway: SocketAddr,
    roots: Roots,
    token: String,
}

impl User {
    pub(crate) fn new(house: &House) -> Self {
        Self::at(house.gateway, &house.state)
    }

    pub(crate) fn at(gateway: SocketAddr, state: &StateDir) -> Self {
        let ca = std::fs::read(state.gateway_ca_certificate()).unwrap();
        let token = state.admin_token().unwrap().unwrap();
        Self { gateway, roots: Roots::from_pem(&ca).unwrap(), token }
    }

    pub(crate) fn with_token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// Sends a request, waits for the head of the response.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &str) -> http::Response<Incoming> {
        let socket = TcpStream::connect(self.gateway).await.unwrap();
        let connector = HttpsConnector::new(self.roots.clone(), None, &[b"http/1.1"]);
        let tls = connector.connect(socket, "localhost", LIMIT).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        tokio::time::timeout(LIMIT, sender.send_request(request)).await.expect("a response").unwrap()
    }

    /// Sends a request, reads the whole response.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: &str) -> (StatusCode, String) {
        let response = self.send(method, path, body).await;
        let code = response.status();
        let body = tokio::time::timeout(LIMIT, response.into_body().collect()).await.expect("a body").unwrap();
        (code, String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    /// Registers a cluster.
    pub(crate) async fn create(&self, name: &str) -> CreatedCluster {
        let (code, body) = self.ask(Method::POST, paths::CLUSTERS, &format!("{{\"name\":{name:?}}}")).await;
        assert_eq!(code, StatusCode::CREATED, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Deletes a cluster.
    pub(crate) async fn delete(&self, name: &str) -> (StatusCode, String) {
        self.ask(Method::DELETE, &paths::cluster(&name.parse().unwrap()), "").await
    }

    /// A cluster as it stands.
    pub(crate) async fn cluster(&self, name: &str) -> ManagedCluster {
        let (code, body) = self.ask(Method::GET, &paths::cluster(&name.parse().unwrap()), "").await;
        assert_eq!(code, StatusCode::OK, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// A plain HTTP request to the admin door.
pub(crate) async fn plain_get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(LIMIT, socket.read_to_string(&mut text)).await.expect("an answer").unwrap();
    text
}
