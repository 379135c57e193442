//! Kubernetes' `Status` (`meta/v1`): the only error body that kubectl prints well, so the only one that we send.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The machine-readable cause of a failure, as Kubernetes' `StatusReason` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// 400: the request makes no sense.
    BadRequest,
    /// 401: who is asking could not be told.
    Unauthorized,
    /// 403: whoever is asking may not.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 409: something of that name exists.
    AlreadyExists,
    /// 409: the object changed meanwhile, or the operation cannot be done now.
    Conflict,
    /// 413.
    RequestEntityTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 422: the object is understood but not allowed.
    Invalid,
    /// 429.
    TooManyRequests,
    /// 431: the request head is too large. Kubernetes has no word for it; the text is ours.
    RequestHeaderFieldsTooLarge,
    /// 500.
    InternalError,
    /// 501: what is in between cannot do it. Kubernetes has no word for it and writes none.
    NotImplemented,
    /// 502: the other side did not answer properly. Kubernetes has no word for it and writes `InternalError`.
    BadGateway,
    /// 503: try again later.
    ServiceUnavailable,
    /// 504: no answer in time.
    Timeout,
    /// Anything else; Kubernetes leaves the field out.
    #[default]
    Unknown,
}

impl Reason {
    /// The text in the `reason` field; empty for [`Reason::Unknown`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::RequestHeaderFieldsTooLarge => "RequestHeaderFieldsTooLarge",
            Self::InternalError | Self::BadGateway => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
            Self::NotImplemented | Self::Unknown => "",
        }
    }

    /// The HTTP status code that goes with the reason.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::RequestHeaderFieldsTooLarge => 431,
            Self::InternalError | Self::Unknown => 500,
            Self::NotImplemented => 501,
            Self::BadGateway => 502,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }

    const READABLE: [Self; 15] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::AlreadyExists,
        Self::Conflict,
        Self::RequestEntityTooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::TooManyRequests,
        Self::RequestHeaderFieldsTooLarge,
        Self::InternalError,
        Self::ServiceUnavailable,
        Self::Timeout,
    ];
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    /// Reads any text; one that is not listed becomes [`Reason::Unknown`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::READABLE.into_iter().find(|reason| reason.as_str() == text).unwrap_or_default())
    }
}

/// One field that a failure is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusCause {
    /// A machine-readable word, such as `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is wrong, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The path of the field, such as `metadata.name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a failure is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    /// The name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The API group of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource, such as `managedclusters`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Each single fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// When to try again, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ListMeta {}

/// A Kubernetes `Status` object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    kind: String,
    api_version: String,
    #[serde(default)]
    metadata: ListMeta,
    /// `Success` or `Failure`.
    pub status: String,
    /// What happened, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What happened, for programs.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub reason: Reason,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// The HTTP status code.
    pub code: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn is_unknown(reason: &Reason) -> bool {
    *reason == Reason::Unknown
}

impl Status {
    /// A failure with this HTTP status code. `message` is read by the user: it must hold nothing secret.
    #[must_use]
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self::new("Failure", code, reason, message.into())
    }

    /// A success, as Kubernetes answers a deletion.
    #[must_use]
    pub fn success() -> Self {
        Self::new("Success", 200, Reason::Unknown, String::new())
    }

    fn new(status: &str, code: u16, reason: Reason, message: String) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: ListMeta {},
            status: status.to_owned(),
            message,
            reason,
            details: None,
            code,
        }
    }

    /// Says which object it is about.
    #[must_use]
    pub fn about(mut self, group: &str, resource: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        group.clone_into(&mut details.group);
        resource.clone_into(&mut details.kind);
        name.clone_into(&mut details.name);
        self
    }

    /// Says when to try again; kubectl and client-go wait that long. Send the same number as `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// Adds one single fault.
    #[must_use]
    pub fn because(mut self, field: &str, reason: &str, message: &str) -> Self {
        self.details.get_or_insert_default().causes.push(StatusCause {
            reason: reason.to_owned(),
            message: message.to_owned(),
            field: field.to_owned(),
        });
        self
    }

    /// The object as JSON, to be sent as `application/json`.
    #[must_use]
    #[expect(clippy::expect_used, reason = "strings, numbers and lists of them: there is nothing JSON cannot say")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a Status is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_as_kube_apiserver_writes_it() {
        let status = Status::failure(404, Reason::NotFound, "pods \"a\" not found").about("", "pods", "a");
        assert_eq!(
            String::from_utf8(status.to_json()).unwrap(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"a\" not found","reason":"NotFound","details":{"name":"a","kind":"pods"},"code":404}"#
        );
        assert_eq!(
            String::from_utf8(Status::success().to_json()).unwrap(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":200}"#
        );
    }

    #[test]
    fn carries_retry_and_causes() {
        let status = Status::failure(503, Reason::ServiceUnavailable, "later").retry_after(3).because("a.b", "r", "m");
        let json: serde_json::Value = serde_json::from_slice(&status.to_json()).unwrap();
        assert_eq!(json["details"]["retryAfterSeconds"], 3);
        assert_eq!(json["details"]["causes"][0]["field"], "a.b");
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }

    #[test]
    fn reads_any_reason() {
        for reason in Reason::READABLE {
            let status = Status::failure(reason.code(), reason, "m");
            assert_eq!(serde_json::from_slice::<Status>(&status.to_json()).unwrap().reason, reason);
        }
        let odd =
            r#"{"kind":"Status","apiVersion":"v1","metadata":{"x":1},"status":"Failure","reason":"Odd","code":418}"#;
        assert_eq!(serde_json::from_str::<Status>(odd).unwrap().reason, Reason::Unknown);
        let gateway = Status::failure(502, Reason::BadGateway, "m").to_json();
        assert!(String::from_utf8(gateway).unwrap().contains(r#""reason":"InternalError""#));
    }
}
