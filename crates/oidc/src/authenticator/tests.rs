//! Discovery, rotation and outage, against a scripted issuer over TLS on loopback.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use jsonwebtoken::encode;
use moorline_ca::{Authority, SubjectName};
use moorline_mtls::{GatewayAcceptor, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    config::Flags,
    token::tests::{ONE, Signer, TWO, header},
};

/// An issuer that answers with what it is told to; with an error where that is nothing.
struct Provider {
    url: String,
    authority: String,
    acceptor: GatewayAcceptor,
    listener: TcpListener,
    keys: Mutex<Option<Value>>,
    fetches: AtomicUsize,
}

impl Provider {
    async fn start() -> Self {
        let (now, life) = (std::time::SystemTime::now().into(), Duration::from_secs(3600));
        let authority = Authority::generate("issuer", now, life).unwrap();
        let issued = authority.issue_server(&[SubjectName::from_host("127.0.0.1")], now, life).unwrap();
        let keys = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            url: format!("https://{}", listener.local_addr().unwrap()),
            authority: authority.certificate_pem().to_owned(),
            acceptor: GatewayAcceptor::new(keys, None).unwrap(),
            listener,
            keys: Mutex::new(None),
            fetches: AtomicUsize::new(0),
        }
    }

    fn publish(&self, keys: Option<&[&Signer]>) {
        let document = keys.map(|keys| json!({"keys": keys.iter().map(|key| &key.jwk).collect::<Vec<_>>()}));
        *self.keys.lock().unwrap() = document;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    fn token(&self, signer: &Signer) -> String {
        self.token_of(signer, None)
    }

    fn token_of(&self, signer: &Signer, issued_at: Option<u64>) -> String {
        let mut claims = json!({"iss": self.url, "aud": "moorline", "sub": "ann", "groups": ["dev"]});
        claims["exp"] = (clock::now() + 600).into();
        if let Some(moment) = issued_at {
            claims["iat"] = moment.into();
        }
        encode(&header(signer), &claims, &signer.key).unwrap()
    }

    fn oidc(&self) -> Oidc {
        let flags = Flags {
            issuer_url: Some(self.url.clone()),
            client_id: Some("moorline".to_owned()),
            authorities: Some(self.authority.clone()),
            username_prefix: Some("oidc:".to_owned()),
            groups_claim: Some("groups".to_owned()),
            signing_algs: vec!["RS256".to_owned(), "ES256".to_owned()],
            ..Flags::default()
        };
        Oidc::new(Configuration::from_flags(flags).unwrap().unwrap(), Duration::from_secs(3600)).unwrap()
    }

    async fn serve(&self) {
        loop {
            let (tcp, _from) = self.listener.accept().await.unwrap();
            let (mut stream, _peer) = self.acceptor.accept(tcp, Duration::from_secs(5)).await.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let discovery = request[..length].starts_with(b"GET /.well-known/openid-configuration ");
            let body = match (discovery, self.keys.lock().unwrap().as_ref()) {
                (_, None) => None,
                (true, Some(_)) => Some(json!({"issuer": self.url, "jwks_uri": format!("{}/keys", self.url)})),
                (false, Some(keys)) => Some(keys.clone()),
            };
            if !discovery {
                self.fetches.fetch_add(1, Ordering::Relaxed);
            }
            let (status, body) = body.map_or(("500 No", String::new()), |body| ("200 OK", body.to_string()));
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    }
}

async fn pass(span: Duration) {
    tokio::time::pause();
    tokio::time::advance(span).await;
    tokio::time::resume();
}

/// What the authenticator says, in a word.
async fn ask(oidc: &Oidc, token: &str) -> &'static str {
    match oidc.authenticate(token).await {
        Ok(Some(user)) => {
            assert_eq!((user.user(), user.groups()[0].as_str()), ("oidc:ann", "dev"));
            "ann"
        }
        Ok(None) => "nobody",
        Err(_unavailable) => "unavailable",
    }
}

#[tokio::test]
async fn keys_are_found_rotated_and_outlive_an_outage_for_a_day() {
    let provider = Provider::start().await;
    provider.publish(Some(&[&ONE]));
    let oidc = provider.oidc();
    let (one, two) = (provider.token(&ONE), provider.token(&TWO));
    let story = async {
        assert_eq!(ask(&oidc, &one).await, "ann");
        // A key that is not known does not make the issuer busy.
        provider.publish(Some(&[&TWO]));
        assert_eq!(ask(&oidc, &two).await, "nobody");
        let (old, new) = (clock::now() - 300, clock::now());
        assert_eq!(ask(&oidc, &provider.token_of(&TWO, Some(old))).await, "nobody", "its key would be known");
        assert_eq!(ask(&oidc, &provider.token_of(&TWO, Some(new))).await, "unavailable", "its key may be new");
        let forged = provider.token_of(&ONE, Some(new)).rsplit_once('.').unwrap().0.to_owned() + ".AAAA";
        assert_eq!(ask(&oidc, &forged).await, "nobody", "its key is known");
        assert_eq!(provider.fetches(), 1);
        pass(Duration::from_secs(11)).await;
        assert!(join_all((0..20).map(|_| ask(&oidc, &two))).await.iter().all(|found| *found == "ann"));
        assert_eq!(provider.fetches(), 2, "twenty who ask cost one fetch");
        // What was remembered goes with the key that verified it.
        assert_eq!(ask(&oidc, &one).await, "nobody");
        provider.publish(None);
        pass(Duration::from_secs(11)).await;
        assert_eq!(ask(&oidc, &one).await, "unavailable", "its key might be newer than those known");
        assert_eq!(ask(&oidc, &two).await, "ann", "the issuer is away, its keys are not");
        pass(Duration::from_secs(25 * 60 * 60)).await;
        assert_eq!(ask(&oidc, &two).await, "unavailable", "nobody is believed by keys of yesterday");
        provider.publish(Some(&[&TWO]));
        pass(Duration::from_secs(11)).await;
        assert_eq!(ask(&oidc, &two).await, "ann", "the issuer is back, and so are its users");
    };
    tokio::select! {
        () = story => {}
        () = oidc.keep_keys() => unreachable!(),
        () = provider.serve() => unreachable!(),
    }
}

#[tokio::test]
async fn an_issuer_that_never_answered_is_not_there_and_strangers_are_nobody() {
    let provider = Provider::start().await;
    let oidc = provider.oidc();
    let story = async {
        assert_eq!(ask(&oidc, &provider.token(&ONE)).await, "unavailable");
        for text in ["", "a.b.c", "static-token"] {
            assert_eq!(ask(&oidc, text).await, "nobody");
        }
    };
    tokio::select! {
        () = story => {}
        () = oidc.keep_keys() => unreachable!(),
        () = provider.serve() => unreachable!(),
    }
}
