//! `kubectl port-forward`.

use moorline_testkit::Refusing;
use moorline_testkit::kubernetes::PodSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::kube::{DEADLINE, Running};
use crate::stage::Stage;

/// What one connection carries each way.
const BULK: usize = 8 << 20;

/// The local port that kubectl listens on.
async fn local_port(kubectl: &mut Running) -> u16 {
    let line = kubectl.line_with("Forwarding from 127.0.0.1:").await;
    let rest = line.trim_start_matches("Forwarding from 127.0.0.1:");
    rest.split(' ').next().unwrap().parse().unwrap()
}

pub(crate) async fn port_forward(stage: &Stage) {
    stage.pod(PodSpec::idle("idle")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut echoes = JoinSet::new();
        while let Ok((mut peer, _)) = listener.accept().await {
            echoes.spawn(async move {
                let (mut from, mut to) = peer.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let mut kubectl = stage.kube.start(&["port-forward", "pod/idle", &format!(":{target}")]);
    let port = local_port(&mut kubectl).await;
    // One small conversation after another, then several at once.
    for number in 0..3 {
        converse(port, vec![number; 100]).await;
    }
    let mut at_once = JoinSet::new();
    for number in 0..4u8 {
        at_once.spawn(converse(port, (0..BULK).map(|index| (index % 251) as u8 ^ number).collect()));
    }
    while let Some(done) = at_once.join_next().await {
        done.unwrap();
    }
}

/// Sends, hears the same back, and closes.
async fn converse(port: u16, sent: Vec<u8>) {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut heard = vec![0; sent.len()];
    let (mut from, mut to) = connection.split();
    let both = async { tokio::join!(to.write_all(&sent), from.read_exact(&mut heard)) };
    let (write, read) = timeout(DEADLINE, both).await.expect("an echo in time");
    write.unwrap();
    read.unwrap();
    assert!(heard == sent, "the echo differs");
}

/// A port where nothing listens closes the connection; it does not hang.
pub(crate) async fn port_forward_refused(stage: &Stage) {
    stage.pod(PodSpec::idle("idle")).await;
    let dead = Refusing::bind().unwrap();
    let mut kubectl = stage.kube.start(&["port-forward", "pod/idle", &format!(":{}", dead.address().port())]);
    let port = local_port(&mut kubectl).await;
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut nothing = Vec::new();
    let read = timeout(DEADLINE, connection.read_to_end(&mut nothing)).await.expect("an end in time");
    assert!(nothing.is_empty(), "{read:?}");
}
