//! A small HTTPS client that reads a kubeconfig and talks as kubectl does.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use serde_json::Value;
use tokio::{net::TcpStream, runtime::Runtime};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use tokio_util::task::TaskTracker;

/// Nothing here takes longer unless it is broken; the first event of the demo comes within a few seconds.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct Kubectl {
    /// `127.0.0.1:PORT`.
    authority: String,
    /// `/clusters/NAME`.
    prefix: String,
    ca: String,
    token: Option<String>,
}

impl Kubectl {
    /// The context of that name, whose cluster and user are called the same.
    pub(crate) fn from_kubeconfig(yaml: &str, name: &str) -> Self {
        let config: Value = serde_saphyr::from_str(yaml).unwrap();
        let entry = |list: &str, inner: &str| {
            let entries = config[list].as_array().unwrap();
            entries.iter().find(|entry| entry["name"] == name).unwrap()[inner].clone()
        };
        let (cluster, user) = (entry("clusters", "cluster"), entry("users", "user"));
        let server = cluster["server"].as_str().unwrap().strip_prefix("https://").unwrap();
        let (authority, path) = server.split_once('/').unwrap();
        let ca = BASE64_STANDARD.decode(cluster["certificate-authority-data"].as_str().unwrap()).unwrap();
        Self {
            authority: authority.to_owned(),
            prefix: format!("/{path}"),
            ca: String::from_utf8(ca).unwrap(),
            token: Some(user["token"].as_str().unwrap().to_owned()),
        }
    }

    pub(crate) fn without_credentials(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub(crate) fn same_credentials(&self, other: &Self) -> bool {
        self.ca == other.ca && self.token == other.token
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        self.whole(Method::GET, path, Bytes::new())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.whole(Method::POST, path, Bytes::from(body.to_string()))
    }

    /// The first line of an answer that goes on for ever.
    pub(crate) fn first_line(&self, path: &str) -> String {
        patiently(async {
            let response = self.send(Method::GET, path, Bytes::new()).await;
            assert_eq!(response.status(), 200);
            let (mut frames, mut line) = (response.into_body().into_data_stream(), Vec::new());
            while !line.contains(&b'\n') {
                line.extend_from_slice(&frames.next().await.expect("a line comes").unwrap());
            }
            String::from_utf8(line).unwrap().lines().next().unwrap().to_owned()
        })
    }

    /// Standard output of a command.
    pub(crate) fn exec(&self, path: &str, input: &[u8]) -> Vec<u8> {
        patiently(async {
            let url = format!("wss://{}{}{path}", self.authority, self.prefix);
            let mut request = url.into_client_request().unwrap();
            request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("v5.channel.k8s.io"));
            request.headers_mut().extend(self.bearer().map(|bearer| (header::AUTHORIZATION, bearer)));
            let (mut socket, _response) =
                tokio_tungstenite::client_async(request, self.connect().await).await.expect("exec is accepted");
            socket.send(Message::binary([&[0], input].concat())).await.unwrap();
            socket.send(Message::binary(vec![255, 0])).await.unwrap();
            let (mut stdout, mut status) = (Vec::new(), Value::Null);
            while let Some(message) = socket.next().await {
                if let Message::Binary(message) = message.unwrap() {
                    match message[0] {
                        1 => stdout.extend_from_slice(&message[1..]),
                        3 => status = serde_json::from_slice(&message[1..]).unwrap(),
                        _other => {}
                    }
                }
            }
            assert_eq!(status["status"], "Success", "{status}");
            stdout
        })
    }

    fn whole(&self, method: Method, path: &str, body: Bytes) -> (u16, Value) {
        patiently(async {
            let response = self.send(method, path, body).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&body).unwrap())
        })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Response<Incoming> {
        let (mut sender, driver) = http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        // Ends with the runtime of this call.
        TaskTracker::new().spawn(driver);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.prefix).parse().unwrap();
        request.headers_mut().insert(header::HOST, self.authority.parse().unwrap());
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().extend(self.bearer().map(|bearer| (header::AUTHORIZATION, bearer)));
        sender.send_request(request).await.unwrap()
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        for authority in moorline_pki::certificates_from_pem(self.ca.as_bytes()).unwrap() {
            roots.add(authority).unwrap();
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let host = self.authority.rsplit_once(':').unwrap().0.to_owned();
        let stream = TcpStream::connect(&self.authority).await.unwrap();
        TlsConnector::from(Arc::new(tls)).connect(ServerName::try_from(host).unwrap(), stream).await.unwrap()
    }

    fn bearer(&self) -> Option<HeaderValue> {
        self.token.as_ref().map(|token| HeaderValue::try_from(format!("Bearer {token}")).unwrap())
    }
}

fn patiently<T>(what: impl Future<Output = T>) -> T {
    let patient = async { tokio::time::timeout(PATIENCE, what).await.expect("it does not take so long") };
    Runtime::new().unwrap().block_on(patient)
}
