//! Query parameters, decoded. Pure.

/// The parameters of one request, in order; a name may come several times (`command=` of exec does).
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The first value; an empty one counts as absent, as it does for Kubernetes.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    pub(crate) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// True for `1`, `true` and their like; false when absent or anything else.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.first(name).is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    /// A number, or what was there instead of one.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, String> {
        match self.first(name) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|error| format!("{name}: {text:?} is not a number: {error}")),
        }
    }
}
