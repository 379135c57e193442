//! One connection of a user, and the requests on it.
//!
//! Called by `listener` when the handshake is done. [`Served::answer`] is the whole way of a request on one screen.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use moorline_model::{ClusterName, Identity};
use moorline_process::Phase;
use tower::ServiceExt as _;

use crate::audit::{self, Notes, Refusal, Trail};

use super::{
    account::{Account, Busy, End, Faces, Who},
    authn::{Authenticated, CertificateUser, Sources},
    authz::{Memo, Rules},
    body::{Body, RequestBody},
    doors::Place,
    forward::{Forwarded, Limits, Outgoing},
    listener::Shared,
    request::{self, Target},
    respond::{self, Asked, Cause},
    vigil::{self, Vigil},
};

/// Who calls our own API: an extension of every request that reaches its router.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The authenticated user.
    pub(crate) identity: Identity,
    /// As whom they want to act (`kubectl --as`); whether they may is for `access` to say.
    pub(crate) as_whom: Option<Identity>,
    /// The request's id, for logs.
    pub(crate) request_id: HeaderValue,
    /// What the audit event of the request is to say.
    pub(crate) notes: Notes,
}

/// A connection of a user.
pub(super) struct Served {
    shared: Arc<Shared>,
    certificate: Option<Arc<CertificateUser>>,
    peer: SocketAddr,
    memo: Memo,
    faces: Faces,
    running: Arc<AtomicUsize>,
    begun: AtomicU64,
    known: AtomicU64,
    named: AtomicBool,
    place: Place,
}

/// What a connection is used for.
pub(super) struct Activity {
    /// Requests that have begun on it.
    pub(super) begun: u64,
    /// Those of them whose user is known.
    pub(super) known: u64,
    /// Whether one is running.
    pub(super) running: bool,
}

impl Served {
    pub(super) fn new(
        shared: Arc<Shared>,
        certificate: Option<Arc<CertificateUser>>,
        peer: SocketAddr,
        place: Place,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            certificate,
            peer,
            memo: Memo::default(),
            faces: Faces::default(),
            running: Arc::default(),
            begun: AtomicU64::new(0),
            known: AtomicU64::new(0),
            named: AtomicBool::new(false),
            place,
        })
    }

    /// What this connection has been used for so far.
    pub(super) fn activity(&self) -> Activity {
        Activity {
            begun: self.begun.load(Ordering::Relaxed),
            known: self.known.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed) > 0,
        }
    }

    /// Answers one request, whatever happens.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let state = &self.shared.state;
        let mut account = Account::open(&self.shared.metrics, state.phases.work(), Busy::new(&self.running));
        let (method, version) = (request.method().clone(), request.version());
        let request_id = request_id();
        if let Some(trails) = &state.audit {
            let (uri, headers) = (request.uri(), request.headers());
            let head = audit::Head { id: &request_id, method: &method, uri, headers, peer: self.peer.ip() };
            account.leaves(Trail::open(trails, &head));
        }
        let phase = state.phases.current();
        let answered = if phase >= Phase::Draining {
            Err(Cause::Draining)
        } else {
            self.steps(request, &request_id, &mut account).await
        };
        let mut response = match answered {
            Ok(Answered::Proxied(forwarded, vigil)) => {
                self.shared.metrics.head_seconds.observe(account.age().as_secs_f64());
                self.deliver(forwarded, vigil, account)
            }
            Ok(Answered::Own(response)) => {
                account.answered(response.status().as_u16());
                account.ends(End::Complete);
                response
            }
            Err(cause) => {
                // What is refused is written down as surely as what goes on.
                let cause = account.receipt(false).await.err().map_or(cause, Cause::Unrecorded);
                let (group, peer) = (state.api_group.as_str(), self.peer);
                let asked = Asked { group, request_id: &request_id, peer, method: &method, version };
                respond::failure(&cause, &asked, account)
            }
        };
        response.headers_mut().insert(respond::REQUEST_ID, request_id);
        // Clients that keep a busy connection are asked to go elsewhere before it is closed under them.
        if phase >= Phase::NotReady && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            respond::close(response.headers_mut(), version);
        }
        Ok(response)
    }

    async fn steps(
        &self,
        request: Request<Incoming>,
        request_id: &HeaderValue,
        account: &mut Account,
    ) -> Result<Answered, Cause> {
        let target = request::target(request.method(), request.uri(), request.version(), request.headers());
        match target.map_err(Cause::Target)? {
            Target::Probe => Ok(Answered::Own(self.probe(request.method()))),
            Target::Control => self.control(request, request_id, account).await,
            Target::Cluster { cluster, path } => {
                let progress = (!request.body().is_end_stream()).then(Arc::default);
                account.uploads(progress.clone());
                let outgoing = Outgoing { request, path, request_id: request_id.clone(), progress };
                account.heads_for(&cluster, &outgoing.path, runs_long(&outgoing));
                self.proxy(cluster, outgoing, account).await
            }
        }
    }

    async fn proxy(&self, cluster: ClusterName, outgoing: Outgoing, account: &mut Account) -> Result<Answered, Cause> {
        let state = &self.shared.state;
        let authenticated = self.authenticate(&outgoing.request).await?;
        account.is_of(authenticated.identity(), &self.faces);
        let judge = state.judge();
        let rules = Rules {
            judge: &judge,
            group: &state.api_group,
            fairness: &self.shared.fairness,
            metrics: &self.shared.metrics,
        };
        let permitted = authenticated
            .authorize(cluster, outgoing.request.headers(), &rules, &self.memo, &outgoing.request_id)
            .await?;
        let who = Who {
            user: permitted.permit().authenticated().user(),
            as_user: permitted.permit().identity().user(),
            cluster: permitted.permit().cluster().as_str(),
        };
        account.describe(&outgoing.request_id, outgoing.request.method(), outgoing.path.path(), who);
        account.allowed(permitted.permit(), &self.faces);
        account.receipt(account.runs_long()).await.map_err(Cause::Unrecorded)?;
        let vigil = account.runs_long().then(|| {
            let asked = vigil::Asked::new(self.certificate.as_ref(), outgoing.request.headers(), permitted.permit());
            asked.watch(Arc::clone(state), state.gateway.recheck_interval)
        });
        let routed = permitted.route(&state.registry)?;
        account.goes_by(routed.session_id());
        let limits = Limits {
            fairness: &self.shared.fairness,
            open: state.gateway.open_timeout,
            response_head: state.gateway.response_timeout,
        };
        let forwarding = routed.forward(outgoing, &limits, &self.shared.metrics);
        let Some(mut vigil) = vigil else { return Ok(Answered::Proxied(forwarding.await?, None)) };
        let head = tokio::select! {
            forwarded = forwarding => Head::Came(Box::new(forwarded)),
            cause = &mut vigil => Head::Forbidden(cause),
        };
        match head {
            Head::Came(forwarded) => Ok(Answered::Proxied((*forwarded)?, Some(vigil))),
            Head::Forbidden(cause) => Err(cause),
        }
    }

    async fn authenticate(&self, request: &Request<Incoming>) -> Result<Authenticated, Cause> {
        let state = &self.shared.state;
        let tokens = state.tokens.load_full();
        let sources = Sources {
            tokens: &tokens,
            chain: &state.authenticators,
            anonymous: state.gateway.anonymous,
            metrics: Some(&self.shared.metrics),
        };
        let found = Authenticated::find(self.certificate.as_deref(), &sources, request.headers())
            .await
            .map_err(Cause::Unauthenticated)?;
        self.known.fetch_add(1, Ordering::Relaxed);
        // The places of users are not for whoever shows nothing, of whom there may be any number.
        if !found.is_anonymous() && !self.named.swap(true, Ordering::Relaxed) {
            self.place.known();
        }
        Ok(found)
    }

    fn deliver(&self, forwarded: Forwarded, vigil: Option<Vigil>, account: Account) -> Response<Body> {
        let (response, switch) = forwarded.deliver(account, vigil, &self.shared.state.phases);
        if let Some(switch) = switch {
            let state = &self.shared.state;
            let upgraded = self.shared.metrics.upgraded.clone();
            let running = switch.run(state.phases.clone());
            state.tasks.spawn("gateway-upgrade", async move {
                upgraded.inc();
                running.await;
                upgraded.dec();
            });
        }
        response
    }

    /// Our own API and pages. They authorise by themselves, since what they do differs by path.
    async fn control(
        &self,
        mut request: Request<Incoming>,
        request_id: &HeaderValue,
        account: &mut Account,
    ) -> Result<Answered, Cause> {
        let progress = (!request.body().is_end_stream()).then(Arc::default);
        account.uploads(progress.clone());
        let authenticated = self.authenticate(&request).await?;
        account.is_of(authenticated.identity(), &self.faces);
        let as_whom = moorline_impersonation::requested(request.headers()).map_err(Cause::Impersonation)?;
        let identity = authenticated.into_identity();
        let _slot = self.shared.fairness.admit_user(identity.user())?;
        account.receipt(false).await.map_err(Cause::Unrecorded)?;
        let notes = Notes::default();
        account.follows(&notes);
        let caller = Caller { identity, as_whom, request_id: request_id.clone(), notes };
        moorline_impersonation::strip(request.headers_mut());
        request.extensions_mut().clear();
        request.extensions_mut().insert(caller);
        let router = self.shared.control.clone();
        let request = request.map(|incoming| axum::body::Body::new(RequestBody::new(incoming, progress)));
        let Ok(mut response) = router.oneshot(request).await;
        if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
            account.refused(|| refusal);
        }
        let bytes = response.body().size_hint().exact().unwrap_or_default();
        account.sent(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(Answered::Own(response.map(Body::Control)))
    }

    /// For load balancers, which know no token: whether to send users here.
    fn probe(&self, method: &Method) -> Response<Body> {
        let serving = self.shared.state.phases.current() < Phase::NotReady;
        let text = if serving { "ok" } else { "shutting down" };
        let body = if method == Method::HEAD { None } else { Some(Bytes::from_static(text.as_bytes())) };
        let mut response = Response::new(Body::Own(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if !serving {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }
}

#[expect(clippy::large_enum_variant, reason = "lives for one call; a box would be an allocation for each request")]
enum Answered {
    Proxied(Forwarded, Option<Vigil>),
    Own(Response<Body>),
}

/// What comes first of a request that runs long: it may be hours until the head of a followed log.
enum Head {
    Came(Box<Result<Forwarded, Cause>>),
    Forbidden(Cause),
}

fn runs_long(outgoing: &Outgoing) -> bool {
    let upgrade = outgoing.request.headers().contains_key(header::UPGRADE);
    upgrade || moorline_wire::may_take_long(outgoing.path.path(), outgoing.path.query())
}

/// A fresh id. The random bits come from the thread's own generator: an id must be unique, not secret.
pub(crate) fn request_id() -> HeaderValue {
    let mut bytes: [u8; 16] = rand::random();
    // What makes 16 bytes a random UUID.
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let id = moorline_model::RequestId::from_bytes(bytes).to_string();
    HeaderValue::from_maybe_shared(Bytes::from(id)).unwrap_or(HeaderValue::from_static("unknown"))
}
