//! What is typed for an installation, made into values.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use thiserror::Error;

use crate::{object::map, problem::Problem, yaml::Node};

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A DNS name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// It is not `HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("is no HOST:PORT")]
pub struct InvalidAddress;

/// It is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{what}; {remedy}")]
pub struct Unfit {
    what: &'static str,
    remedy: &'static str,
}

/// Addresses: `ADDRESS/BITS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cidr(String);

/// A taint that does not keep the agent away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    key: String,
    value: Option<String>,
    effect: Option<String>,
}

impl Address {
    /// Reads `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, InvalidAddress> {
        let authority: http::uri::Authority = text.parse().map_err(|_not_one| InvalidAddress)?;
        if text.contains('@') || (text.matches(':').count() > 1 && !text.starts_with('[')) {
            return Err(InvalidAddress);
        }
        let after = text.strip_prefix(authority.host()).ok_or(InvalidAddress)?;
        let port = match after.strip_prefix(':') {
            None => default_port,
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(InvalidAddress)?,
        };
        Ok(Self { host: authority.host().trim_matches(['[', ']']).to_owned(), port })
    }

    /// The host, where it is an IP address: what a NetworkPolicy can name.
    pub(super) fn ip(&self) -> Option<Cidr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(Cidr(format!("{ip}/{}", bits(ip))))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        if brackets { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

const fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

impl Cidr {
    /// One that is known to be right.
    pub(super) const fn known(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Cidr {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: Unfit = Unfit { what: "is no range of addresses", remedy: "write one such as 10.0.0.1/32" };
        let (ip, length) = text.split_once('/').ok_or(WRONG)?;
        let ip: IpAddr = ip.parse().map_err(|_not_one| WRONG)?;
        let length: u8 = length.parse().map_err(|_not_one| WRONG)?;
        if length > bits(ip) {
            return Err(WRONG);
        }
        Ok(Self(format!("{ip}/{length}")))
    }
}

impl From<Cidr> for Node {
    fn from(cidr: Cidr) -> Self {
        map! { "ipBlock" => map! { "cidr" => cidr.0 } }
    }
}

impl FromStr for Toleration {
    type Err = Unfit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (taint, effect) = match text.rsplit_once(':') {
            Some((taint, effect)) => (taint, Some(effect)),
            None => (text, None),
        };
        let (key, value) = match taint.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (taint, None),
        };
        if key.is_empty() {
            return Err(Unfit { what: "is no taint", remedy: "write KEY[=VALUE][:EFFECT]" });
        }
        if effect.is_some_and(|effect| !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)) {
            let remedy = "write NoSchedule, PreferNoSchedule or NoExecute";
            return Err(Unfit { what: "has an unknown effect", remedy });
        }
        Ok(Self { key: key.to_owned(), value: value.map(str::to_owned), effect: effect.map(str::to_owned) })
    }
}

impl From<Toleration> for Node {
    fn from(toleration: Toleration) -> Self {
        let operator = if toleration.value.is_some() { "Equal" } else { "Exists" };
        let mut node = map! { "key" => toleration.key, "operator" => operator };
        for (key, value) in [("value", toleration.value), ("effect", toleration.effect)] {
            if let Some(value) = value {
                node.set(key, value.into());
            }
        }
        node
    }
}

/// All of them as something else; those that are not become problems.
pub(super) fn each<T: FromStr<Err = Unfit>>(
    field: &'static str,
    texts: &[String],
    problems: &mut Vec<Problem>,
) -> Vec<T> {
    let mut good = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(value) => good.push(value),
            Err(Unfit { what, remedy }) => problems.push(Problem::new(field, format!("{text:?} {what}"), remedy)),
        }
    }
    good
}

/// `KEY=VALUE` each.
pub(super) fn pairs(field: &'static str, texts: &[String], problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        match text.split_once('=').filter(|(key, _)| !key.is_empty()) {
            Some((key, value)) => drop(pairs.insert(key.to_owned(), value.to_owned())),
            None => problems.push(Problem::new(field, format!("{text:?} is no pair"), "write KEY=VALUE")),
        }
    }
    pairs
}

/// An amount as Kubernetes writes it.
pub(super) fn quantity(field: &'static str, text: &str, problems: &mut Vec<Problem>) {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(number).unwrap_or_default();
    let units = ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"];
    let digits = number.chars().all(|c| c.is_ascii_digit() || c == '.') && number.matches('.').count() <= 1;
    if number.is_empty() || number.starts_with('.') || number.ends_with('.') || !digits || !units.contains(&unit) {
        problems.push(Problem::new(field, format!("{text:?} is no quantity"), "write one such as 100m or 128Mi"));
    }
}
