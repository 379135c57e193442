//! The port on loopback to which the browser brings the code. Called by `browser`.
//!
//! Any program of this machine, and any page in the browser, can call it: only the right state is listened to, and
//! whoever has a wrong one changes nothing. The code alone is worth nothing without the PKCE verifier.

use std::{convert::Infallible, io, net::Ipv4Addr, net::Ipv6Addr, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::super::provider::printable;

const CALLBACK: &str = "/callback";

/// Connections at a time: browsers open some that they do not use.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may take to ask.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// How long the browser may take to read the last page.
const LAST_PAGE: Duration = Duration::from_secs(1);

/// What the browser has to bring.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) state: &'a str,
    /// The path that leads on to `page`.
    pub(super) start: &'a str,
    pub(super) page: &'a str,
}

/// The code, or why there is none.
type Outcome = Result<String, String>;

type Serving<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

pub(super) struct Loopback {
    four: TcpListener,
    /// Where `localhost` may lead, too.
    six: Option<TcpListener>,
    port: u16,
}

enum Event {
    Connected(io::Result<TcpStream>),
    Served,
    Outcome(Outcome),
}

impl Loopback {
    pub(super) async fn bind() -> io::Result<Self> {
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = four.local_addr()?.port();
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.ok();
        Ok(Self { four, six, port })
    }

    /// Issuers compare it with what is registered, but for the port; more of them know `localhost` than `127.0.0.1`.
    pub(super) fn redirect_uri(&self) -> String {
        self.url(CALLBACK)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    /// Waits for the code.
    pub(super) async fn code(&self, expected: &Expected<'_>) -> Outcome {
        let (found, mut outcomes) = mpsc::channel(1);
        let mut serving = FuturesUnordered::<Serving<'_>>::new();
        loop {
            let event = tokio::select! {
                Some(outcome) = outcomes.recv() => Event::Outcome(outcome),
                Some(()) = serving.next() => Event::Served,
                connected = self.accept(), if serving.len() < MAX_CONNECTIONS => Event::Connected(connected),
            };
            match event {
                Event::Served => {}
                Event::Connected(Ok(stream)) => serving.push(Box::pin(serve(stream, expected, found.clone()))),
                // One that went away at once.
                Event::Connected(Err(_gone)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Event::Outcome(outcome) => {
                    let last = async { while let Some(()) = serving.next().await {} };
                    // Whether or not the browser has read it, the login goes on.
                    drop(tokio::time::timeout(LAST_PAGE, last).await);
                    return outcome;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        let six = async {
            match &self.six {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        let (stream, _from) = tokio::select! {
            four = self.four.accept() => four,
            six = six => six,
        }?;
        Ok(stream)
    }
}

async fn serve(stream: TcpStream, expected: &Expected<'_>, found: mpsc::Sender<Outcome>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (response, outcome) = answer(&request, expected);
        if let Some(outcome) = outcome {
            // Full only where one came before: the first counts.
            drop(found.try_send(outcome));
        }
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(ASK_WITHIN);
    // A browser that hangs up may come again.
    drop(http.serve_connection(TokioIo::new(stream), service).await);
}

fn answer<B>(request: &Request<B>, expected: &Expected<'_>) -> (Response<Full<Bytes>>, Option<Outcome>) {
    let path = request.uri().path();
    if request.method() != Method::GET || (path != CALLBACK && path != expected.start) {
        return (page(StatusCode::NOT_FOUND, "There is nothing here."), None);
    }
    if path == expected.start {
        let mut response = page(StatusCode::FOUND, "");
        if let Ok(location) = HeaderValue::from_str(expected.page) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        return (response, None);
    }
    let Some(outcome) = read(request.uri().query().unwrap_or_default(), expected) else {
        return (page(StatusCode::BAD_REQUEST, "This is not the login that was started here."), None);
    };
    let said = match &outcome {
        Ok(_code) => "You are back from the issuer. Close this page and look at the terminal.",
        Err(_why) => "The issuer refused the login. Close this page and look at the terminal.",
    };
    (page(StatusCode::OK, said), Some(outcome))
}

/// What the browser brought; none where it is not about this login.
fn read(query: &str, expected: &Expected<'_>) -> Option<Outcome> {
    let one = |wanted: &str| {
        let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == wanted);
        let first = values.next().map(|(_name, value)| value.into_owned());
        if values.next().is_some() { None } else { first }
    };
    if one("state")? != expected.state {
        return None;
    }
    // RFC 9207: the answer of another issuer is not for this one.
    if query.contains("iss=") && one("iss").is_some_and(|issuer| issuer != expected.issuer) {
        return None;
    }
    if let Some(error) = one("error") {
        let description = one("error_description").map(|text| format!(": {text}")).unwrap_or_default();
        return Some(Err(printable(&(error + &description))));
    }
    one("code").map(Ok)
}

fn page(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The address of this page holds the code.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected<'_> =
        Expected { issuer: "https://a.example", state: "right", start: "/start-1", page: "https://a.example/auth?x" };

    fn of(method: Method, target: &str) -> (u16, Option<Outcome>) {
        let request = Request::builder().method(method).uri(target).body(()).unwrap();
        let (response, outcome) = answer(&request, &EXPECTED);
        (response.status().as_u16(), outcome)
    }

    #[test]
    fn only_the_right_state_counts() {
        let get = |target: &str| of(Method::GET, target);
        assert_eq!(get("/callback?code=c%2F1&state=right"), (200, Some(Ok("c/1".to_owned()))));
        assert_eq!(get("/callback?code=c&state=right&iss=https://a.example").0, 200);
        let denied = "/callback?error=access_denied&error_description=not%20you%1b&state=right";
        assert_eq!(get(denied), (200, Some(Err("access_denied: not you ".to_owned()))));
        for target in [
            "/callback",
            "/callback?code=c",
            "/callback?code=c&state=wrong",
            "/callback?code=c&state=right&state=right",
            "/callback?code=c&code=d&state=right",
            "/callback?error=access_denied&state=wrong",
            "/callback?code=c&state=right&iss=https://b.example",
        ] {
            assert_eq!(get(target), (400, None), "{target}");
        }
        assert_eq!(get("/?code=c&state=right"), (404, None));
        assert_eq!(of(Method::POST, "/callback?code=c&state=right"), (404, None));
        assert_eq!(get("/start-1"), (302, None));
        assert_eq!(get("/start-2"), (404, None));
    }
}
