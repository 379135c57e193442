//! Services of the management cluster, reached from managed clusters of both dialects through the whole server.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use moorline_ca::{Authority, SubjectName};
use moorline_mtls::{GatewayAcceptor, HttpsConnector, KeyPair, Roots};
use moorline_mux::{Config, Handle, Role, Stream};
use moorline_testkit::{eventually, logs::Logs};
use moorline_wire::services::{PROTOCOL, path};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    agent::{Agent, Alive, Credentials},
    house::{House, LIMIT},
    wrong_door::{as_guardian, guardian},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A file that says which services there are.
struct Table {
    dir: tempfile::TempDir,
}

impl Table {
    fn new(services: &str) -> Self {
        let table = Self { dir: tempfile::tempdir().unwrap() };
        table.write(services);
        table
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("services.yaml")
    }

    fn write(&self, services: &str) {
        let text = format!("apiVersion: moorline.io/v1alpha1\nkind: ManagementServices\nservices:\n{services}");
        // At once, as a kubelet changes a mounted file.
        let next = self.dir.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.path()).unwrap();
    }

    async fn house(&self) -> House {
        let file = Some(self.path());
        House::start_with(|raw| {
            raw.services_file = file;
            raw.reload_interval = Some("50ms".to_owned());
            raw.recheck_interval = Some("50ms".to_owned());
        })
        .await
    }
}

fn pass(name: &str, cluster: &str, address: SocketAddr) -> String {
    format!(
        "- {{name: {name}, serverNames: [{name}.test], clusters: [{cluster}], upstream: 'localhost:{}', mode: \
         PassThrough}}\n",
        address.port()
    )
}

/// A service that speaks TLS as `*.test`, and gives back what it gets.
async fn echo() -> (SocketAddr, Roots) {
    let now = std::time::SystemTime::now().into();
    let authority = Authority::generate("services", now, HOUR).unwrap();
    let names = ["logs.test", "other.test"].map(|name| SubjectName::Dns(name.to_owned()));
    let issued = authority.issue_server(&names, now, HOUR).unwrap();
    let keys = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let acceptor = GatewayAcceptor::new(keys, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok((mut tls, _)) = acceptor.accept(socket, LIMIT).await else { return };
                let mut piece = [0; 1024];
                while let Ok(count @ 1..) = tls.read(&mut piece).await {
                    tls.write_all(&piece[..count]).await.unwrap();
                    tls.flush().await.unwrap();
                }
            });
        }
    });
    (address, Roots::from_pem(authority.certificate_pem().as_bytes()).unwrap())
}

/// A Guardian of this cluster, as far as it opens streams.
async fn guardian_of(house: &House, credentials: &Credentials) -> Handle {
    let tls = as_guardian(house, credentials).await;
    let (handle, _down, driver) = moorline_mux::session(tls, Config::new(Role::Client));
    tokio::spawn(async move {
        let _streams = _down;
        driver.await
    });
    handle
}

/// Says something to who answers to that name, and hears it again.
async fn says(stream: Stream, roots: &Roots, name: &str) -> Result<(), moorline_mtls::HandshakeError> {
    let connector = HttpsConnector::new(roots.clone(), None, &[]);
    let mut tls = connector.connect(stream, name, LIMIT).await?;
    tls.write_all(b"anybody there?").await.unwrap();
    tls.flush().await.unwrap();
    let mut heard = [0; 14];
    tls.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"anybody there?");
    Ok(())
}

/// Asks for a service as our own agent does; gives the code, and the stream that may lead there now.
async fn ask(agent: &Handle, name: &str) -> (u16, Stream) {
    let mut stream = agent.open().await.unwrap();
    let path = path(&name.parse().unwrap());
    let asks = format!("POST {path} HTTP/1.1\r\nhost: m\r\nconnection: Upgrade\r\nupgrade: {PROTOCOL}\r\n\r\n");
    stream.write_all(asks.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(LIMIT, stream.read_u8()).await.expect("an answer").unwrap());
    }
    (String::from_utf8_lossy(&head[9..12]).parse().unwrap(), stream)
}

async fn agent_of(house: &House, name: &str) -> Alive {
    let credentials = Credentials::from(&house.user().create(name).await.enrolment);
    Agent::connect(house, &credentials).await.live("agent")
}

#[tokio::test]
async fn each_cluster_reaches_what_is_for_it_in_its_own_dialect() {
    let _logs = Logs::capture();
    let (address, roots) = echo().await;
    let table = Table::new(&[pass("logs", "west", address), pass("other", "east", address)].concat());
    let house = table.house().await;
    let west = guardian(&house, "west").await;
    let (west, east) = (guardian_of(&house, &west).await, agent_of(&house, "east").await);

    says(west.open().await.unwrap(), &roots, "logs.test").await.unwrap();
    for name in ["other.test", "none.test"] {
        assert!(says(west.open().await.unwrap(), &roots, name).await.is_err(), "{name}");
    }
    let (code, stream) = ask(&east.handle, "other").await;
    assert_eq!(code, 101);
    says(stream, &roots, "other.test").await.unwrap();
    for name in ["logs", "none"] {
        assert_eq!(ask(&east.handle, name).await.0, 404, "{name}");
    }
    let metrics = house.metrics().await;
    for line in [
        "moorline_service_connections_total{by=\"name\"} 1",
        "moorline_service_connections_total{by=\"server-name\"} 1",
        "moorline_service_refused_total{reason=\"forbidden\"} 2",
        "moorline_service_refused_total{reason=\"unknown-name\"} 2",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} is missing from\n{metrics}");
    }
    let log = house.state.audit_log();
    let written = eventually(LIMIT, async || {
        let text = tokio::fs::read_to_string(&log).await.ok()?;
        let done = text.lines().filter(|line| line.contains("managementservices") && line.contains("ResponseComplete"));
        (done.count() == 4).then_some(text)
    });
    let text = written.await.unwrap_or_else(|_| panic!("four visits are not written down"));
    for user in ["system:moorline:cluster:east", "system:moorline:cluster:west"] {
        assert!(text.contains(user), "{text}");
    }
    west.close(moorline_mux::CloseReason::Local("the test is over"));
    east.handle.close(moorline_mux::CloseReason::Local("the test is over"));
    drop(house.ended().await);
}

#[tokio::test]
async fn a_changed_table_counts_and_a_broken_one_does_not() {
    let logs = Logs::capture();
    let (address, roots) = echo().await;
    let table = Table::new("");
    let house = table.house().await;
    let east = agent_of(&house, "east").await;
    assert_eq!(ask(&east.handle, "logs").await.0, 404);
    table.write(&pass("logs", "east", address));
    let running = eventually(LIMIT, async || {
        let (code, stream) = ask(&east.handle, "logs").await;
        (code == 101).then_some(stream)
    });
    let mut running = running.await.expect("the service is offered");
    table.write("- {name: logs}\n");
    eventually(LIMIT, async || logs.contain(&["cannot reload", "services[0].clusters: missing"]).then_some(()))
        .await
        .expect("it is told what is wrong");
    let (code, stream) = ask(&east.handle, "logs").await;
    assert_eq!(code, 101, "the table before stays in use");
    says(stream, &roots, "logs.test").await.unwrap();
    // To whom it is not offered any more is cut.
    table.write(&pass("logs", "west", address));
    let read = tokio::time::timeout(LIMIT, running.read_u8()).await.expect("an end");
    assert!(read.is_err());
    assert_eq!(ask(&east.handle, "logs").await.0, 404);
    east.handle.close(moorline_mux::CloseReason::Local("the test is over"));
    drop(house.ended().await);
}

#[tokio::test]
async fn f10_who_is_deleted_is_cut_from_services_as_well() {
    let _logs = Logs::capture();
    let (address, _roots) = echo().await;
    let table = Table::new(&pass("logs", "'*'", address));
    let house = table.house().await;
    let west = guardian(&house, "west").await;
    let (west, east) = (guardian_of(&house, &west).await, agent_of(&house, "east").await);
    let (code, mut of_east) = ask(&east.handle, "logs").await;
    assert_eq!(code, 101);
    let mut of_west = west.open().await.unwrap();
    // It waits for the rest of a hello.
    of_west.write_all(&[22, 3, 1, 1, 0]).await.unwrap();
    assert!(house.user().delete("east").await.0.is_success());
    assert!(house.user().delete("west").await.0.is_success());
    for stream in [&mut of_east, &mut of_west] {
        let read = tokio::time::timeout(LIMIT, stream.read_u8()).await.expect("an end");
        assert!(read.is_err());
    }
    eventually(LIMIT, async || {
        let metrics = house.metrics().await;
        metrics.lines().any(|line| line == "moorline_service_streams 0").then_some(())
    })
    .await
    .expect("nothing is left");
    drop(house.ended().await);
}

/// Where no table is named there is nothing, and no room for it either.
#[tokio::test]
async fn by_default_nothing_is_reachable() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let west = guardian(&house, "west").await;
    let (west, east) = (guardian_of(&house, &west).await, agent_of(&house, "east").await);
    assert_eq!(ask(&east.handle, "logs").await.0, 404);
    let (_, roots) = echo().await;
    assert!(says(west.open().await.unwrap(), &roots, "logs.test").await.is_err());
    west.close(moorline_mux::CloseReason::Local("the test is over"));
    east.handle.close(moorline_mux::CloseReason::Local("the test is over"));
    drop(house.ended().await);
}
