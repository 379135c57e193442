//! A real Dex, as an issuer of OpenID Connect tokens on loopback.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::certificates::Certificates;
use super::program::Program;
use super::tools::Tools;
use crate::client::{Client, full};
use crate::eventually;

/// How long it may take to start on a busy machine.
const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// Somebody whom Dex knows.
#[derive(Clone, Copy)]
pub struct Person {
    /// The claim `name`.
    pub id: &'static str,
    /// The claim `email`.
    pub email: &'static str,
    /// What Dex asks for.
    pub password: &'static str,
    /// The claim `groups`.
    pub groups: &'static [&'static str],
}

/// How long what Dex makes lasts.
pub struct DexOptions {
    /// Life of a signing key. Dex looks every 30 seconds whether one is over.
    pub signing_keys: Duration,
    /// Life of an ID token.
    pub id_tokens: Duration,
}

impl Default for DexOptions {
    fn default() -> Self {
        Self { signing_keys: Duration::from_secs(6 * 60 * 60), id_tokens: Duration::from_secs(60 * 60) }
    }
}

/// A Dex with the public clients `moorline` and `somebody-else`. It keeps nothing: each start has new signing keys.
pub struct Dex {
    tools: Tools,
    options: DexOptions,
    directory: tempfile::TempDir,
    authority: String,
    address: SocketAddr,
    program: Mutex<Option<Program>>,
}

impl Dex {
    /// Starts it on a port of its own, and waits until it answers.
    pub async fn start(tools: &Tools, people: &[Person], options: DexOptions) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("moorline-dex-").tempdir()?;
        let certificates = Certificates::generate()?;
        let people: Vec<_> = people
            .iter()
            .map(|one| json!({"id": one.id, "email": one.email, "password": one.password, "groups": one.groups}))
            .collect();
        for (name, text) in [
            ("server.crt", certificates.server.as_str()),
            ("server.key", &certificates.server_key),
            ("people.json", &Value::from(people).to_string()),
        ] {
            moorline_process::write_private(&directory.path().join(name), text.as_bytes())?;
        }
        let mut dex = Self {
            tools: tools.clone(),
            options,
            authority: certificates.authority_pem(),
            directory,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            program: Mutex::new(None),
        };
        dex.address = dex.run().await?;
        Ok(dex)
    }

    /// What tokens say in `iss`.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("https://{}/dex", self.address)
    }

    /// The authority of its certificate, PEM.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        &self.authority
    }

    /// Ends it.
    pub fn stop(&self) {
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(program);
    }

    /// Starts it again where it was, with new signing keys.
    pub async fn start_again(&self) -> Result<()> {
        self.run().await.map(drop)
    }

    /// Somebody's ID token, for a client.
    pub async fn token(&self, client: &str, person: &Person) -> Result<String> {
        let form = form_of(&[
            ("grant_type", "password"),
            ("client_id", client),
            ("username", person.email),
            ("password", person.password),
            ("scope", "openid email groups"),
        ]);
        let http = self.client()?;
        let mut request = http.request_with(Method::POST, "/dex/token", full(form));
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        let answer = http.ask(request).await?;
        ensure!(answer.code == StatusCode::OK, "{}: {}", answer.code, answer.body);
        let tokens: Value = serde_json::from_str(&answer.body)?;
        Ok(tokens["id_token"].as_str().context("an answer without an ID token")?.to_owned())
    }

    /// An HTTPS client of it.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(self.address, self.authority.as_bytes(), "")?.without_token())
    }

    async fn run(&self) -> Result<SocketAddr> {
        let ready = self.directory.path().join("address");
        if ready.exists() {
            std::fs::remove_file(&ready)?;
        }
        let file = |name: &str| self.directory.path().join(name).into_os_string();
        let span = |span: Duration| format!("{}ms", span.as_millis()).into();
        let arguments = [
            ("--listen", self.address.to_string().into()),
            ("--ready", ready.clone().into_os_string()),
            ("--cert", file("server.crt")),
            ("--key", file("server.key")),
            ("--people", file("people.json")),
            ("--rotate-keys", span(self.options.signing_keys)),
            ("--id-tokens", span(self.options.id_tokens)),
        ];
        let arguments = arguments.into_iter().flat_map(|(name, value)| [name.into(), value]);
        let mut program = Program::start("dex", &self.tools.dex, arguments, self.directory.path(), None)?;
        let announced = eventually(STARTED_WITHIN, || {
            let state = match program.check() {
                Err(ended) => Some(Err(ended)),
                Ok(()) => std::fs::read_to_string(&ready).ok().map(|text| Ok(text.parse()?)),
            };
            std::future::ready(state)
        });
        let address = announced.await.with_context(|| program.quote())??;
        *self.program.lock().unwrap_or_else(PoisonError::into_inner) = Some(program);
        Ok(address)
    }
}

/// A form of the web.
fn form_of(fields: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    form.finish()
}
