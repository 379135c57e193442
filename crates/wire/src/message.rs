//! The messages of the control stream. Each is JSON with a `type`; unknown fields are ignored, so that a later version
//! may add some, and a message of an unknown type is kept as [`Message::Unknown`] and answered with an error.

use moorline_model::{ClusterName, SessionId};
use serde::{Deserialize, Serialize};

use crate::{CloseReason, text};

/// One message of the control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Agent to server, first of all.
    Hello(Hello),
    /// Server to agent, in answer to a hello: the session stands.
    Welcome(Welcome),
    /// Server to agent, in answer to a hello: it does not, and why.
    Refused(Refused),
    /// Either way: are you there?
    Heartbeat(Heartbeat),
    /// In answer to a heartbeat.
    HeartbeatAck(HeartbeatAck),
    /// Either way: finish what runs, open nothing new.
    GoAway(GoAway),
    /// Agent to server, whenever it changes: how the agent fares with its kube-apiserver.
    Status(AgentStatus),
    /// Server to agent: get a new certificate, over a stream of this session. For agents that say
    /// [`crate::capability::RENEW`].
    Renew(RenewOrder),
    /// Server to agent: believe these authorities from now on. For agents that say [`crate::capability::ROOTS`].
    Roots(RootsOrder),
    /// In answer to [`Message::Roots`].
    RootsTaken(RootsTaken),
    /// Either way: the last message was not understood.
    Error(ProtocolError),
    /// A type that this version does not know, by name. Answer with [`Message::Error`].
    Unknown(String),
}

impl Message {
    /// The word in the `type` field.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Hello(_) => Hello::KIND,
            Self::Welcome(_) => Welcome::KIND,
            Self::Refused(_) => Refused::KIND,
            Self::Heartbeat(_) => Heartbeat::KIND,
            Self::HeartbeatAck(_) => HeartbeatAck::KIND,
            Self::GoAway(_) => GoAway::KIND,
            Self::Status(_) => AgentStatus::KIND,
            Self::Renew(_) => RenewOrder::KIND,
            Self::Roots(_) => RootsOrder::KIND,
            Self::RootsTaken(_) => RootsTaken::KIND,
            Self::Error(_) => ProtocolError::KIND,
            Self::Unknown(kind) => kind,
        }
    }
}

/// The agent introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version of the protocol it speaks.
    pub protocol_min: u32,
    /// The newest.
    pub protocol_max: u32,
    /// The version of the agent program.
    #[serde(serialize_with = "text::text")]
    pub agent_version: String,
    /// The id the agent gave this session, for both logs.
    pub session_id: SessionId,
    /// The uid of the `kube-system` namespace, which tells one cluster from another.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "text::optional")]
    pub cluster_uid: Option<String>,
    /// The version of the kube-apiserver, where it is known yet.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "text::optional")]
    pub kubernetes_version: Option<String>,
    /// What the agent can do beyond the protocol version.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "text::words")]
    pub capabilities: Vec<String>,
    /// The cluster it takes itself for; must be the one that its certificate stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// The SHA-256 of each authority that it believes about servers, in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "text::fingerprints")]
    pub roots: Vec<String>,
}

/// The server accepts the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version of the protocol that both speak from now on.
    pub protocol: u32,
    /// The version of the server program.
    #[serde(serialize_with = "text::text")]
    pub server_version: String,
    /// The id of this session.
    pub session_id: SessionId,
    /// The cluster that the certificate stands for.
    pub cluster: ClusterName,
    /// Milliseconds between heartbeats.
    pub heartbeat_interval_ms: u64,
    /// What the server holds the agent to.
    #[serde(default)]
    pub limits: SessionLimits,
}

/// What the server holds the agent to. Zero stands for a server that does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionLimits {
    /// Streams that the server may open at the same time.
    pub streams: u32,
    /// Bytes of the head of a request.
    pub request_head: u64,
}

/// The server refuses the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for programs.
    pub reason: CloseReason,
    /// Why, for the agent's log.
    #[serde(default, serialize_with = "text::text")]
    pub message: String,
    /// Milliseconds after which the agent may come again; none leaves it to its backoff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect_after_ms: Option<u64>,
}

/// Are you there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up; comes back in the answer.
    pub sequence: u64,
}

/// Here I am.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// The number of the heartbeat that is answered.
    pub sequence: u64,
}

/// Finish what runs, open nothing new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoAway {
    /// Why, for programs.
    pub reason: CloseReason,
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "String::is_empty", serialize_with = "text::text")]
    pub message: String,
    /// Milliseconds after which the agent may dial again; none leaves it to its backoff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect_after_ms: Option<u64>,
}

/// How the agent fares with its kube-apiserver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Whether the last probe of the kube-apiserver went well.
    pub upstream_ok: bool,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "text::optional")]
    pub upstream_reason: Option<String>,
    /// The version of the kube-apiserver.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "text::optional")]
    pub kubernetes_version: Option<String>,
    /// The uid of the `kube-system` namespace, where the hello came too early to know it.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "text::optional")]
    pub cluster_uid: Option<String>,
}

/// Get a new certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewOrder {
    /// Milliseconds within which to do so, at a moment of the agent's own choice: a fleet is not to come at once.
    pub within_ms: u64,
}

/// Believe these authorities, and no others, from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootsOrder {
    /// Their certificates, PEM; at most [`crate::limits::ROOTS`] bytes.
    #[serde(serialize_with = "text::roots")]
    pub pem: String,
}

/// What the agent believes now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootsTaken {
    /// The SHA-256 of each authority that it believes, in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "text::fingerprints")]
    pub roots: Vec<String>,
    /// Why it does not believe those that it was told to.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "text::optional")]
    pub error: Option<String>,
}

/// The last message was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolError {
    /// What is wrong, for the log.
    #[serde(serialize_with = "text::text")]
    pub message: String,
    /// The type of the message, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "text::optional")]
    pub message_type: Option<String>,
}

/// A message that has a word for the `type` field.
pub(crate) trait Kind {
    /// The word.
    const KIND: &'static str;
}

macro_rules! kinds {
    ($($name:ident = $word:literal),* $(,)?) => {
        $(impl Kind for $name { const KIND: &'static str = $word; })*
    };
}

kinds! {
    Hello = "hello",
    Welcome = "welcome",
    Refused = "refused",
    Heartbeat = "heartbeat",
    HeartbeatAck = "heartbeat-ack",
    GoAway = "go-away",
    AgentStatus = "status",
    RenewOrder = "renew",
    RootsOrder = "roots",
    RootsTaken = "roots-taken",
    ProtocolError = "error",
}
