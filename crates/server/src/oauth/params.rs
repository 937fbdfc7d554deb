//! The parameters of a request, from its query or its form. Pure; a parameter
//! that comes twice is refused, since two readers could choose different ones.

/// Parameters that a request may have.
const MOST: usize = 64;

/// The parameters of a request, each once and none empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Params(Vec<(String, String)>);

/// Why parameters are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadParams {
    /// One comes twice.
    Repeated,
    /// There are too many.
    TooMany,
}

impl BadParams {
    /// Returns the words for the client.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Repeated => "a parameter comes more than once",
            Self::TooMany => "there are too many parameters",
        }
    }
}

impl Params {
    /// Reads `application/x-www-form-urlencoded`. A parameter without a value
    /// counts as left out (RFC 6749, 3.1).
    ///
    /// # Errors
    /// When one comes twice, but for an equal `resource`, or there are too many.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BadParams> {
        let mut kept: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(bytes) {
            if value.is_empty() {
                continue;
            }
            if let Some((_, before)) = kept.iter().find(|(known, _)| *known == name) {
                if name == "resource" && *before == value {
                    continue;
                }
                return Err(BadParams::Repeated);
            }
            if kept.len() == MOST {
                return Err(BadParams::TooMany);
            }
            kept.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(kept))
    }

    /// Returns the value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_counts_once() {
        let check = |text: &str, expected: Result<Option<&str>, BadParams>| {
            let read = Params::parse(text.as_bytes());
            let read = read.as_ref().map(|params| params.get("a"));
            assert_eq!(read.map_err(|why| *why), expected, "{text}");
        };
        check("a=1&b=2", Ok(Some("1")));
        check("a=%20x+y", Ok(Some(" x y")));
        check("b=2", Ok(None));
        check("a=", Ok(None));
        check("a=&a=1", Ok(Some("1")));
        check("", Ok(None));
        check("a=1&a=1", Err(BadParams::Repeated));
        check("a=1&b=1&%61=2", Err(BadParams::Repeated));
        check("resource=x&resource=x", Ok(None));
        check("resource=x&resource=y", Err(BadParams::Repeated));
        let many: String = (0..=MOST).map(|at| format!("p{at}=1&")).collect();
        check(&many, Err(BadParams::TooMany));
    }
}
