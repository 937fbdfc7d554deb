//! The OpenAPI documents, made from the code that answers.
//!
//! Paths, parameters and schemas come from the handlers and the wire types;
//! the refusals from the one table of problems. Nothing is written twice, and
//! golden copies at the root of the repository show each change in review.

use engine::{Bounds, Language, Package, PackageState};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa::openapi::HttpMethod;

use super::route::{Counted, Door, Route, Verb, documented};
use crate::api::{
    CellOut, Code, CommandOut, CommandRequest, CommandsOut, ContextOut, ContextRequest, Encoding,
    ExceptionOut, ExecuteRequest, ExecuteResponse, FileEntryOut, FileForm, FileIn, FileListOut,
    FileMove, FileOut, FileWork, ForkRequest, Health, HealthStatus, LanguageOut, Languages,
    LoadOut, PackageOut, PackagesOut, PackagesPhase, ProblemDocument, ResultOut, SessionOut,
    SessionRequest, Sessions, StageOut, UsageOut,
};
use crate::config::Access;
use crate::hooks::{HookRequest, HookResponse};
use crate::provision;

mod flatten;

/// The address in the golden copies.
pub const EXAMPLE_URL: &str = "https://codex.example.com";

/// The name of the one security scheme.
const SCHEME: &str = "BearerAuth";

/// Bytes in a MiB.
const MIB: u64 = 1024 * 1024;

/// What a streamed answer consists of.
const EVENTS: &str = "Server-sent events with an `id`, an `event` and JSON as `data`: `queued` {running, waiting} after a while without a place, `start` {id, language, version, isolation}, `stdout` and `stderr` {text} as the program writes, `result` with each RichResult as it is shown (at its end for a program that runs once), `dropped` {stream, bytes} where the reader was too slow, `truncated` {limit} where no more output is streamed, and at last `end` with the whole ExecuteResponse, or `error` with a Problem.";

/// Such an answer.
const EVENTS_EXAMPLE: &str = concat!(
    "id: 1\nevent: start\ndata: {\"id\":\"019b7c1e-5a3f-7c10-8a51-0242ac120002\",\"language\":\"python\",\"version\":\"3.11.2\",\"isolation\":\"full\"}\n\n",
    "id: 2\nevent: stdout\ndata: {\"text\":\"4\\n\"}\n\n",
);

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Codex Code Execution Server",
        description = "Runs code in a sandbox and answers with its output, errors and files."
    ),
    components(schemas(
        CommandOut, CommandRequest, CommandsOut,
        FileEntryOut, FileForm, FileListOut, FileMove, FileWork, ForkRequest,
        CellOut, ContextOut, ContextRequest, Encoding, ExceptionOut, ExecuteRequest, ExecuteResponse, FileIn, FileOut, Health, HealthStatus,
        HookRequest, HookResponse, LanguageOut, Languages, LoadOut, PackageOut, PackagesOut, PackagesPhase, ProblemDocument,
        ResultOut, SessionOut, SessionRequest, Sessions, StageOut, UsageOut,
    )),
    tags(
        (name = "execution", description = "Running code"),
        (name = "sessions", description = "Sandboxes that keep files and state between calls"),
        (name = "files", description = "Files that runs left"),
        (name = "server", description = "What this server is and can do"),
        (name = "schemas", description = "This API, described"),
        (name = "pages", description = "For people"),
    )
)]
struct Api;

/// The part of the documents that is the same for every server.
#[derive(Debug)]
pub struct Description {
    base: Value,
    routes: Vec<Route>,
}

impl Description {
    /// Describes an API of these routes.
    pub(super) fn of(routes: impl Iterator<Item = Route>) -> Self {
        let routes: Vec<Route> = routes.collect();
        let mut api = Api::openapi();
        for route in &routes {
            let Some(documentation) = route.documentation else {
                continue;
            };
            let mut operation = (documentation.operation)();
            operation.tags = Some(vec![documentation.tag.to_owned()]);
            let method = match route.verb {
                Verb::Get => HttpMethod::Get,
                Verb::Post => HttpMethod::Post,
                Verb::Put => HttpMethod::Put,
                Verb::Delete => HttpMethod::Delete,
            };
            api.paths
                .add_path_operation((documentation.path)(), vec![method], operation);
        }
        Self {
            base: serde_json::to_value(api).expect("a document of strings and numbers serialises"),
            routes,
        }
    }

    /// Returns the whole API as OpenAPI 3.1.
    #[must_use]
    pub fn document(&self, server: &Server) -> Value {
        let mut document = self.base.clone();
        document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
        document["info"]["license"] = json!({
            "name": "Apache-2.0 OR MIT",
            "identifier": "Apache-2.0 OR MIT",
        });
        document["servers"] = json!([{ "url": server.url }]);
        document["components"]["securitySchemes"] = json!({
            SCHEME: { "type": "http", "scheme": "bearer" },
        });
        bound(&mut document, &server.bounds);
        tell_versions(&mut document, &server.languages);
        tell_packages(&mut document, &server.packages);
        let answers = &mut document["paths"]["/execute"]["post"]["responses"]["200"]["content"];
        answers["text/event-stream"] = json!({
            "schema": { "type": "string", "description": EVENTS },
            "example": EVENTS_EXAMPLE,
        });
        let paths = document["paths"].as_object_mut();
        for (path, item) in paths.into_iter().flatten() {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                self.complete(path, method, operation, server.access);
            }
        }
        document
    }

    /// Returns the part for ChatGPT Actions, flattened.
    #[must_use]
    pub fn actions_document(&self, server: &Server) -> Value {
        flatten::flatten(&self.document(server), server.access)
    }

    /// Adds to an operation what no handler says by itself.
    fn complete(&self, path: &str, method: &str, operation: &mut Value, access: Access) {
        let mut routes = self.routes.iter();
        let route = routes.find(|one| documented(one.path) == path && one.verb.word() == method);
        let route = route.expect("every operation is of a route");
        operation["security"] = match (route.door, access) {
            (Door::Body(_), _) => json!([{ SCHEME: [] }, {}]),
            (Door::Open | Door::Anyone, _) | (_, Access::Open) => json!([]),
            (Door::Signed(_), Access::Token) => json!([{}, { SCHEME: [] }]),
            (Door::Scope(_), Access::Token) => json!([{ SCHEME: [] }]),
        };
        let mut ok_headers = headers(&["X-Request-Id"]);
        if route.counted == Counted::Run {
            ok_headers.append(&mut headers(&["RateLimit", "RateLimit-Policy"]));
        }
        let responses = &mut operation["responses"];
        for (status, response) in responses.as_object_mut().into_iter().flatten() {
            if status.starts_with('2') {
                response["headers"] = Value::Object(ok_headers.clone());
            }
        }
        for code in refusals(route, access) {
            responses[code.status().to_string()] = refusal(code);
        }
    }
}

/// The server that a document speaks of.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its address as clients see it.
    pub url: String,
    /// Who is let in.
    pub access: Access,
    /// The bounds in force.
    pub bounds: Bounds,
    /// What it runs.
    pub languages: Vec<Language>,
    /// What programs find installed.
    pub packages: Vec<PackageState>,
}

impl Server {
    /// One that nothing is known of but that: the default bounds, and no word
    /// of versions and packages.
    #[must_use]
    pub fn unseen(url: impl Into<String>, access: Access) -> Self {
        Self {
            url: url.into(),
            access,
            bounds: Bounds::default(),
            languages: Vec::new(),
            packages: Vec::new(),
        }
    }
}

/// A document as YAML.
#[must_use]
pub fn to_yaml(document: &Value) -> String {
    yaml_serde::to_string(document).expect("any JSON value is a YAML value")
}

/// Names the versions that code can ask for, beside the languages that every
/// server knows.
fn tell_versions(document: &mut Value, languages: &[Language]) {
    let request = &mut document["components"]["schemas"]["ExecuteRequest"]["properties"];
    let Some(names) = request["language"]["enum"].as_array_mut() else {
        return;
    };
    let versions = languages.iter().filter(|one| one.version_of.is_some());
    let versions: Vec<Value> = versions.map(|one| json!(one.name)).collect();
    // Before the null at their end.
    let end = names.len() - usize::from(names.last().is_some_and(Value::is_null));
    names.splice(end..end, versions);
}

/// Names the packages that programs can use where a model reads what code may
/// be: as many as fit, the most wanted first.
fn tell_packages(document: &mut Value, packages: &[PackageState]) {
    let request = &mut document["components"]["schemas"]["ExecuteRequest"]["properties"];
    let text = request["code"]["description"].as_str().unwrap_or_default();
    let lists: Vec<(&str, Vec<Package>)> = packages
        .iter()
        .map(|state| (state.title.as_str(), provision::named(state)))
        .filter(|(_, named)| !named.is_empty())
        .collect();
    if lists.is_empty() {
        return;
    }
    let mut told = format!("{} Installed", text.trim_end());
    let mut room = flatten::TEXT_CHARS.saturating_sub(told.chars().count());
    for (number, (title, named)) in lists.iter().enumerate() {
        // Each language gets its part of the room that is left.
        let share = room / (lists.len() - number);
        let list = listed(title, named, share);
        room = room.saturating_sub(list.chars().count());
        told.push_str(&list);
        told.push(if number + 1 < lists.len() { ';' } else { '.' });
    }
    request["code"]["description"] = json!(told);
}

/// A language's packages in at most so many characters.
fn listed(title: &str, named: &[Package], room: usize) -> String {
    let mut list = format!(" for {title}: ");
    let mut first = true;
    for package in named {
        let name = package.name.chars().count();
        // With the comma before it, and what may have to stand after it.
        if list.chars().count() + name + ", , …;".len() > room {
            list.push_str(", …");
            break;
        }
        if !std::mem::take(&mut first) {
            list.push_str(", ");
        }
        list.push_str(&package.name);
    }
    list
}

/// Writes the bounds in force into the request's schema.
fn bound(document: &mut Value, bounds: &Bounds) {
    let request = &mut document["components"]["schemas"]["ExecuteRequest"]["properties"];
    request["code"]["maxLength"] = json!(bounds.code);
    request["args"]["maxItems"] = json!(bounds.args);
    request["files"]["maxItems"] = json!(bounds.files_in);
    request["timeout"]["default"] = json!(bounds.wall_time.as_secs());
    request["timeout"]["maximum"] = json!(bounds.wall_time_max.as_secs());
    request["memory_mb"]["default"] = json!(bounds.memory / MIB);
    request["memory_mb"]["maximum"] = json!(bounds.memory_max / MIB);
}

/// The problems that an operation can end in.
fn refusals(route: &Route, access: Access) -> Vec<Code> {
    let mut codes = vec![Code::InvalidRequest, Code::Internal];
    codes.extend(route.refusals);
    if route.door == Door::Open {
        return codes;
    }
    codes.push(Code::Forbidden);
    if route.counted == Counted::Run || access == Access::Token {
        // Also where wrong tokens came too often.
        codes.push(Code::RateLimited);
    }
    if access == Access::Token || matches!(route.door, Door::Body(_)) {
        codes.push(Code::Unauthorized);
    }
    codes
}

fn refusal(code: Code) -> Value {
    let mut names = vec!["X-Request-Id"];
    match code {
        Code::Unauthorized => names.push("WWW-Authenticate"),
        Code::RateLimited => names.extend(["Retry-After", "RateLimit", "RateLimit-Policy"]),
        Code::Unavailable => names.push("Retry-After"),
        _ => {}
    }
    json!({
        "description": code.doc(),
        "headers": headers(&names),
        "content": {
            "application/problem+json": {
                "schema": { "$ref": "#/components/schemas/Problem" },
                "example": {
                    "type": code.type_uri(),
                    "title": code.title(),
                    "status": code.status(),
                    "detail": example_detail(code),
                    "request_id": "019b7c1e-5a3f-7c10-8a51-0242ac120002",
                },
            },
        },
    })
}

fn example_detail(code: Code) -> String {
    match code {
        Code::Unauthorized => crate::api::Problem::unauthorized().detail,
        _ => code.doc().to_owned(),
    }
}

/// Response headers by name, each with its meaning.
fn headers(names: &[&str]) -> Map<String, Value> {
    let header = |name: &&str| {
        let (kind, text) = match *name {
            "Retry-After" => ("integer", "Seconds until the next try is worth while."),
            "RateLimit" => ("string", "Requests left (r) and seconds until more (t)."),
            "RateLimit-Policy" => ("string", "Requests (q) per window of seconds (w)."),
            "WWW-Authenticate" => ("string", "The scheme to authenticate with: Bearer."),
            _ => ("string", "Finds this request in the server's log."),
        };
        let header = json!({ "description": text, "schema": { "type": kind } });
        ((*name).to_owned(), header)
    };
    names.iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(title: &str, names: &[&str]) -> PackageState {
        let package = |name: &&str| Package {
            name: (*name).to_owned(),
            version: "1".to_owned(),
        };
        PackageState {
            language: title.to_lowercase(),
            title: title.to_owned(),
            directory: "/nowhere".into(),
            main: names.iter().map(|&name| name.to_owned()).collect(),
            added: Vec::new(),
            installed: Some(names.iter().map(package).collect()),
            current: true,
            installing: false,
            obstacle: None,
        }
    }

    #[test]
    fn versions_are_told_where_a_language_is_chosen() {
        let check = |names: &[&str], expected: Value| {
            let language = |name: &&str| Language {
                name: (*name).to_owned(),
                title: (*name).to_owned(),
                aliases: Vec::new(),
                extensions: Vec::new(),
                version: "1".to_owned(),
                available: true,
                cure: None,
                interpreter: None,
                passed_over: Vec::new(),
                version_of: name.contains('.').then(|| "python".to_owned()),
            };
            let document = crate::http::description().document(&Server {
                languages: names.iter().map(language).collect(),
                ..Server::unseen(EXAMPLE_URL, Access::Token)
            });
            let request = &document["components"]["schemas"]["ExecuteRequest"]["properties"];
            assert_eq!(request["language"]["enum"], expected, "{names:?}");
        };
        check(&[], json!(["python", "bash", "javascript", null]));
        check(
            &["python", "bash", "javascript"],
            json!(["python", "bash", "javascript", null]),
        );
        let all = ["python", "bash", "javascript", "python3.12", "python3.8"];
        let told = json!([
            "python",
            "bash",
            "javascript",
            "python3.12",
            "python3.8",
            null
        ]);
        check(&all, told);
    }

    #[test]
    fn installed_packages_are_told_as_far_as_the_importer_reads() {
        let check = |packages: &[PackageState], expected: &str| {
            let document = crate::http::description().actions_document(&Server {
                packages: packages.to_vec(),
                ..Server::unseen(EXAMPLE_URL, Access::Token)
            });
            let schema = &document["paths"]["/execute"]["post"]["requestBody"]["content"];
            let code = &schema["application/json"]["schema"]["properties"]["code"];
            let told = code["description"].as_str().expect("a description");
            assert!(told.ends_with(expected), "{told}");
            assert!(told.chars().count() <= flatten::TEXT_CHARS, "{told}");
        };
        check(&[], "nor hold a NUL character.");
        check(&[state("Python", &[])], "nor hold a NUL character.");
        let python = state("Python", &["numpy", "pandas"]);
        check(
            &[python.clone(), state("JavaScript", &["lodash"])],
            " Installed for Python: numpy, pandas; for JavaScript: lodash.",
        );
        let many: Vec<String> = (0..90).map(|number| format!("package-{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&[python, state("JavaScript", &many)], ", ….");
        check(
            &[state("Python", &many), state("JavaScript", &many)],
            ", ….",
        );
    }
}
