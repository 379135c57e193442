//! Label and field selectors: which objects of a list or watch are wanted. Pure.

use serde_json::Value;

use crate::{answer::Failure, query::Query};

/// Both selectors of a request; the empty one wants everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    wanted: Wanted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Selector {
    pub(crate) fn parse(query: &Query) -> Result<Self, Failure> {
        let labels = query.first("labelSelector").unwrap_or_default();
        let fields = query.first("fieldSelector").unwrap_or_default();
        Ok(Self {
            labels: split(labels).map(label).collect::<Result<_, _>>()?,
            fields: split(fields).map(field).collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn wants(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        let field = |path: &str| path.split('.').fold(object, |value, step| &value[step]).as_str();
        // An absent field reads as empty, as `spec.nodeName` of an unscheduled pod does.
        self.labels.iter().all(|wanted| wanted.met_by(label(&wanted.key)))
            && self.fields.iter().all(|wanted| wanted.met_by(Some(field(&wanted.key).unwrap_or_default())))
    }
}

impl Requirement {
    fn met_by(&self, value: Option<&str>) -> bool {
        match &self.wanted {
            Wanted::Exists => value.is_some(),
            Wanted::Absent => value.is_none(),
            Wanted::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Wanted::NotIn(values) => value.is_none_or(|value| values.iter().all(|unwanted| unwanted != value)),
        }
    }
}

/// Splits at commas outside parentheses.
fn split(selector: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    selector
        .split(move |character| {
            match character {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            character == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn label(part: &str) -> Result<Requirement, Failure> {
    if let Some(requirement) = comparison(part) {
        return Ok(requirement);
    }
    if let Some((head, values)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        return match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => Ok(Requirement { key: (*key).to_owned(), wanted: Wanted::In(values) }),
            [key, "notin"] => Ok(Requirement { key: (*key).to_owned(), wanted: Wanted::NotIn(values) }),
            _ => Err(Failure::bad_request(format!("unable to parse requirement {part:?} of the label selector"))),
        };
    }
    Ok(match part.strip_prefix('!') {
        Some(key) => Requirement { key: key.trim().to_owned(), wanted: Wanted::Absent },
        None => Requirement { key: part.to_owned(), wanted: Wanted::Exists },
    })
}

fn field(part: &str) -> Result<Requirement, Failure> {
    comparison(part).ok_or_else(|| {
        Failure::bad_request(format!("invalid selector: {part:?}; can't understand, expected FIELD=VALUE"))
    })
}

fn comparison(part: &str) -> Option<Requirement> {
    let (key, value, equal) = if let Some((key, value)) = part.split_once("!=") {
        (key, value, false)
    } else if let Some((key, value)) = part.split_once("==") {
        (key, value, true)
    } else {
        let (key, value) = part.split_once('=')?;
        (key, value, true)
    };
    let values = vec![value.trim().to_owned()];
    let wanted = if equal { Wanted::In(values) } else { Wanted::NotIn(values) };
    Some(Requirement { key: key.trim().to_owned(), wanted })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selector(name: &str, text: &str) -> Result<Selector, Failure> {
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair(name, text).finish();
        Selector::parse(&Query::parse(Some(&query)))
    }

    #[test]
    fn selectors_pick_as_kubernetes_does() {
        let pod = json!({"metadata": {"name": "ticker", "labels": {"app": "ticker", "tier": "demo"}},
                         "status": {"phase": "Running"}});
        for (name, text, wanted) in [
            ("labelSelector", "app=ticker", true),
            ("labelSelector", "app==ticker,tier!=prod", true),
            ("labelSelector", "app in (web, ticker),tier", true),
            ("labelSelector", "app notin (ticker)", false),
            ("labelSelector", "!app", false),
            ("labelSelector", "!other", true),
            ("labelSelector", "other!=x", true),
            ("fieldSelector", "metadata.name=ticker", true),
            ("fieldSelector", "metadata.name=other", false),
            ("fieldSelector", "status.phase!=Running", false),
            ("fieldSelector", "spec.nodeName=", true),
        ] {
            assert_eq!(selector(name, text).unwrap().wants(&pod), wanted, "{name}={text}");
        }
        assert!(selector("fieldSelector", "metadata.name").is_err());
        assert!(selector("labelSelector", "a near (b)").is_err());
    }
}
