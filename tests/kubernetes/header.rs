//! Some scenarios in which a header names the cluster: kubectl cannot send one, so a proxy on loopback adds it.

use std::convert::Infallible;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use moorline_testkit::client::{Body, Client, full};
use moorline_testkit::kubernetes::{Credential, Kubectl};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::stage::{Caller, Stage};
use crate::tunnel::{ALICE, ALICES_GROUPS, House, NAMES, POWERLESS, POWERLESS_GROUPS, RUNTIME, caller, house};

async fn stage(version: Kubectl) -> Option<Stage> {
    let house = house().await?;
    let number = usize::from(version == Kubectl::New);
    let alice = through_proxy(house, NAMES[number], ALICE, &ALICES_GROUPS).await;
    let powerless = through_proxy(house, NAMES[number], POWERLESS, &POWERLESS_GROUPS).await;
    Stage::set(house.clusters[number], version, &alice, &powerless).await
}

/// A caller with a proxy of its own. The proxy adds the token too: kubectl sends none where there is no TLS.
async fn through_proxy(house: &House, cluster: &'static str, who: (&str, &str), groups: &[&str]) -> Caller {
    let client = house.server.admin_client().unwrap().with_token(who.0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let address = listener.local_addr().unwrap();
    RUNTIME.spawn(async move { serve(TcpListener::from_std(listener).unwrap(), client, cluster).await });
    let kubeconfig = house.kubeconfig_at(&format!("http://{address}"), who.1, &Credential::Token("unused"));
    caller(kubeconfig, "", who.1, groups)
}

async fn serve(listener: TcpListener, client: Client, cluster: &'static str) {
    let mut running = JoinSet::new();
    loop {
        let (socket, _from) = listener.accept().await.unwrap();
        let client = client.clone();
        let service = service_fn(move |request| {
            let client = client.clone();
            async move { Ok::<_, Infallible>(pass(request, &client, cluster).await) }
        });
        running.spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service).with_upgrades());
        while running.try_join_next().is_some() {}
    }
}

async fn pass(mut request: Request<Incoming>, client: &Client, cluster: &'static str) -> Response<Body> {
    let theirs = hyper::upgrade::on(&mut request);
    let (mut head, body) = request.into_parts();
    let own = client.request(head.method.clone(), "/");
    head.headers.insert("x-cluster-id", HeaderValue::from_static(cluster));
    head.headers.insert(header::HOST, own.headers()[header::HOST].clone());
    head.headers.insert(header::AUTHORIZATION, own.headers()[header::AUTHORIZATION].clone());
    let body = body.map_err(std::io::Error::other).boxed();
    let mut response = match client.send(Request::from_parts(head, body)).await {
        Ok(response) => response,
        Err(error) => {
            let mut answer = Response::new(full(format!("{error:#}")));
            *answer.status_mut() = StatusCode::BAD_GATEWAY;
            return answer;
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let ours = hyper::upgrade::on(&mut response);
        RUNTIME.spawn(async move {
            if let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) {
                let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
                drop(tokio::io::copy_bidirectional(&mut ours, &mut theirs).await);
            }
        });
    }
    response.map(|body| body.map_err(std::io::Error::other).boxed())
}

mod old {
    crate::scenarios::play!(crate::header::stage, Old,
        objects: get, list_in_chunks, watch; identity: whoami, forbidden;
        exec: exec, exec_with_stdin, exec_exit_codes; logs: logs, logs_follow;);
}

mod new {
    crate::scenarios::play!(crate::header::stage, New,
        objects: get, list_in_chunks, watch; identity: whoami, forbidden;
        exec: exec, exec_with_stdin, exec_exit_codes; logs: logs, logs_follow;);
}
