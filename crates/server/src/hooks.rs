//! Calls of no-code tools, such as Zapier and Make: flat fields in, a flat answer
//! out, since such tools make forms of single values and can't reach into lists.
//!
//! Pure. A token comes among the fields where a tool can't set headers: nothing
//! here may write it down, or give it back.

use serde::Serialize;
use serde_json::{Map, Number, Value};
use utoipa::ToSchema;

use crate::api::{Code, ExecuteResponse, Order, Problem, parse_object, unknown_warning};

/// Fields that a form may have.
const FIELDS: usize = 100;
/// The fields that mean something.
const KNOWN: [&str; 4] = ["code", "language", "stdin", "timeout"];
/// The field of the token.
const TOKEN: &str = "token";

/// How the fields of a call are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As a JSON object.
    Json,
    /// As the form of a page.
    Form,
}

/// A flat call. Only for the documents; it is read by hand.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the fields are there to be documented")]
pub(crate) struct HookRequest {
    /// The program text.
    #[schema(min_length = 1, max_length = 1_048_576, example = "print(2+2)")]
    code: String,
    /// Language of the code, such as `python`, `javascript` or `bash`.
    #[schema(required = false, example = "python")]
    language: Option<String>,
    /// Seconds before the program is killed, as a number or as its digits.
    #[schema(required = false, minimum = 1, example = 10)]
    timeout: Option<f64>,
    /// What the program reads from standard input.
    #[schema(required = false, example = "")]
    stdin: Option<String>,
    /// A token of this server, where no `Authorization` header can be set.
    #[schema(required = false, example = "codex_…")]
    token: Option<String>,
}

/// The fields of a call, the token apart.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    /// The token among them.
    pub(crate) token: Option<String>,
    object: Map<String, Value>,
}

impl Fields {
    /// Reads the fields of a body.
    ///
    /// # Errors
    /// What is wrong with the body as a whole, or with the token's type.
    pub(crate) fn read(body: &[u8], encoding: Encoding) -> Result<Self, Problem> {
        let mut object = match encoding {
            Encoding::Json => parse_object(body)?,
            Encoding::Form => form(body)?,
        };
        // Never quoted, whatever it is.
        let token = match object.remove(TOKEN) {
            None | Some(Value::Null) => None,
            Some(Value::String(token)) if token.trim().is_empty() => None,
            Some(Value::String(token)) => Some(token.trim().to_owned()),
            Some(_) => {
                return Err(Problem::field(
                    TOKEN,
                    "is not a string",
                    "Send the token as text.",
                ));
            }
        };
        Ok(Self { token, object })
    }

    /// Returns what the fields ask for.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(crate) fn order(self) -> Result<Order, Problem> {
        // Others mean nothing here, though some of them do in `/execute`.
        let (mut known, unknown): (Map<_, _>, Map<_, _>) = self
            .object
            .into_iter()
            .partition(|(name, _)| KNOWN.contains(&name.as_str()));
        // A tool's form sends each field, filled or not, and each as text.
        known.retain(|name, value| name == "code" || value.as_str() != Some(""));
        if let Some(Value::String(text)) = known.get("timeout")
            && let Some(number) = text.trim().parse().ok().and_then(Number::from_f64)
        {
            known.insert("timeout".to_owned(), Value::Number(number));
        }
        let mut order = Order::try_from(known)?;
        let unknown: Vec<String> = unknown.into_iter().map(|(name, _)| name).collect();
        order.warnings.extend(unknown_warning(&unknown));
        Ok(order)
    }
}

/// Reads the form of a page into an object of strings.
fn form(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let invalid = |detail: String| Problem::new(Code::InvalidRequest, detail);
    let mut object = Map::new();
    for (name, value) in form_urlencoded::parse(body) {
        if object.len() == FIELDS {
            return Err(invalid(format!(
                "The form has more than {FIELDS} fields. Send `code`, and what else is needed of {}.",
                KNOWN[1..].join(", ")
            )));
        }
        let value = Value::String(value.into_owned());
        let (name, twice) = (name.to_string(), object.insert(name.into_owned(), value));
        if twice.is_some() {
            return Err(Problem::field(
                crate::api::error::quote(&name),
                "comes more than once",
                "Send each field once.",
            ));
        }
    }
    Ok(object)
}

/// A flat answer: each value is text, a number or true or false.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct HookResponse {
    /// Whether the program ended well.
    #[schema(example = true)]
    success: bool,
    /// How it ended: `success`, `error`, `timeout` and so on.
    #[schema(example = "success")]
    status: String,
    /// Standard output.
    #[schema(example = "4\n")]
    output: String,
    /// Standard error.
    #[schema(example = "")]
    error: String,
    /// Exit code of the program: 124 for a timeout, 128 + N for signal N.
    #[schema(example = 0)]
    exit_code: i32,
    /// Seconds that the program took.
    #[schema(minimum = 0, example = 0.012)]
    execution_time: f64,
    /// Links to the files that it left, a line each, which need no token until they expire.
    #[schema(example = "")]
    files: String,
    /// Names of these files, in the same order, a line each.
    #[schema(example = "")]
    file_names: String,
    /// How many they are.
    #[schema(minimum = 0, example = 0)]
    file_count: usize,
    /// Until when the links hold, RFC 3339 in UTC; empty without files.
    #[schema(example = "")]
    files_expire: String,
    /// What the caller should know, a line each.
    #[schema(example = "")]
    warnings: String,
    /// Whether output or files were cut to a bound.
    truncated: bool,
    /// Canonical name of the language.
    #[schema(example = "python")]
    language: String,
    /// Version of the interpreter.
    #[schema(example = "3.11.2")]
    version: String,
    /// The isolation that held during this run.
    #[schema(example = "full")]
    isolation: String,
    /// Id of the run.
    #[schema(example = "019b7c1e-5a3f-7c10-8a51-0242ac120002")]
    id: String,
    /// When the run began, RFC 3339 in UTC.
    #[schema(example = "2026-01-02T03:04:05.678901Z")]
    timestamp: String,
}

impl From<ExecuteResponse> for HookResponse {
    fn from(response: ExecuteResponse) -> Self {
        let linked: Vec<_> = response
            .files
            .iter()
            .filter_map(|file| Some((file.url.as_deref()?, file)))
            .collect();
        let lines = |words: Vec<&str>| words.join("\n");
        Self {
            success: response.status == engine::Status::Success.as_str(),
            files: lines(linked.iter().map(|(url, _)| *url).collect()),
            file_names: lines(linked.iter().map(|(_, file)| file.name.as_str()).collect()),
            file_count: linked.len(),
            files_expire: linked
                .first()
                .and_then(|(_, file)| file.expires.clone())
                .unwrap_or_default(),
            warnings: response.warnings.join("\n"),
            status: response.status,
            output: response.output,
            error: response.error,
            exit_code: response.exit_code,
            execution_time: response.execution_time,
            truncated: response.truncated,
            language: response.language,
            version: response.version,
            isolation: response.isolation,
            id: response.id,
            timestamp: response.timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Reads a call: the token, and the code with the seconds of its time, or a
    /// part of what is wrong.
    #[track_caller]
    fn check(
        encoding: Encoding,
        body: &str,
        token: Option<&str>,
        expected: Result<(&str, Option<u64>), &str>,
    ) {
        let read = Fields::read(body.as_bytes(), encoding).and_then(|fields| {
            assert_eq!(fields.token.as_deref(), token, "{body}");
            fields.order()
        });
        match (read, expected) {
            (Ok(order), Ok((code, timeout))) => {
                assert_eq!(order.draft.code, code, "{body}");
                let timeout = timeout.map(Duration::from_secs);
                assert_eq!(order.draft.wall_time, timeout, "{body}");
            }
            (Err(problem), Err(part)) => {
                assert!(problem.detail.contains(part), "{body}: {}", problem.detail);
                assert!(!problem.detail.contains("codex_"), "{}", problem.detail);
            }
            (read, _) => panic!("{body}: {read:?}"),
        }
    }

    #[test]
    fn calls_are_read_as_json() {
        let check = |body, token, expected| check(Encoding::Json, body, token, expected);
        check(r#"{"code": "print(1)"}"#, None, Ok(("print(1)", None)));
        let whole = r#"{"code": "x", "token": " codex_a ", "timeout": "7"}"#;
        check(whole, Some("codex_a"), Ok(("x", Some(7))));
        let empty = r#"{"code": "x", "language": "", "stdin": "", "timeout": ""}"#;
        check(empty, None, Ok(("x", None)));
        check(r#"{"code": "x", "token": null}"#, None, Ok(("x", None)));
        let list = r#"{"code": "x", "token": ["codex_a"]}"#;
        check(list, None, Err("`token` is not a string"));
        check(
            r#"{"code": "x", "timeout": "soon"}"#,
            None,
            Err("`timeout`"),
        );
        check(r#"{"code": "x", "timeout": "NaN"}"#, None, Err("`timeout`"));
        let lacking = r#"{"token": "codex_a"}"#;
        check(lacking, Some("codex_a"), Err("`code` is missing"));
        check("[]", None, Err("must be a JSON object"));
    }

    #[test]
    fn calls_are_read_as_forms() {
        let check = |body: &str, token, expected| check(Encoding::Form, body, token, expected);
        let lines = "code=print%281%29%0Aprint('%C3%A4+b')&timeout=3";
        check(lines, None, Ok(("print(1)\nprint('ä b')", Some(3))));
        let empty = "code=x&token=codex_a&stdin=&language=";
        check(empty, Some("codex_a"), Ok(("x", None)));
        check("code=x&code=y", None, Err("comes more than once"));
        let twice = "token=codex_a&token=codex_b";
        check(twice, None, Err("`token` comes more than once"));
        check("", None, Err("`code` is missing"));
        let many: String = (0..=FIELDS).map(|n| format!("f{n}=1&")).collect();
        check(&many, None, Err("more than 100 fields"));
    }

    #[test]
    fn what_is_not_known_is_named_and_does_nothing() {
        let body = br#"{"code": "x", "memory_mb": 99999999, "Zap id": "7"}"#;
        let fields = Fields::read(body, Encoding::Json).expect("an object");
        let order = fields.order().expect("an order");
        assert_eq!(order.draft.memory, None);
        let warning = order.warnings.join(" ");
        assert!(
            warning.contains("memory_mb") && warning.contains("Zap id"),
            "{warning}"
        );
    }
}
