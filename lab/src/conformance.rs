//! The OpenAPI documents against an independent validator, a live server
//! against its own document with schemathesis, and its metrics against
//! Prometheus' own tool.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::live::{Home, Server};
use crate::load::HELLO;
use crate::promtool;
use crate::venv;
use xtask::openapi;
use xtask::process;

/// What must never happen, whatever is sent.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// The operation that runs code: called with its documented examples only,
/// never with generated programs.
const EXECUTE: &str = "executeCode";

/// Generated cases for each operation: of a short run and of a full one.
const CASES: [(&str, &str); 2] = [("20", "20"), ("400", "900")];

/// Validates both documents and probes a live server.
pub(crate) fn conformance(binary: &Path, full: bool) -> Result<()> {
    let tools = venv::bin()?;
    let home = Home::new()?;
    for (name, printed) in openapi::print(binary)? {
        let kept = std::fs::read_to_string(process::root().join(name))
            .with_context(|| format!("failed to read {name}"))?;
        ensure!(
            kept == printed,
            "{name} is out of date; run `cargo xtask openapi` and look at the difference"
        );
        validate(&tools, &process::root().join(name))?;
    }
    let server = Server::start(binary, &home, &[])?;
    for path in ["/openapi.json", "/actions/openapi.json"] {
        let served = server.client().get(path)?;
        ensure!(served.status == 200, "{path} answered {}", served.status);
        let file = home.path().join("served.json");
        std::fs::write(&file, &served.body).context("failed to keep a served document")?;
        validate(&tools, &file)?;
    }
    let seed = "1";
    for examples_only in [true, false] {
        let mut command = schemathesis(&tools, &server, full, examples_only);
        command.args(["--seed", seed]).current_dir(home.path());
        process::run("pass schemathesis", &mut command)?;
    }
    check_metrics(&server)?;
    let health = server.client().get("/health")?;
    ensure!(
        health.status == 200,
        "the server answers {} after schemathesis",
        health.status
    );
    Ok(())
}

/// After all those requests every metric has something to show.
fn check_metrics(server: &Server) -> Result<()> {
    for (language, code, printed) in HELLO {
        let answer = server.client().execute(language, code)?;
        ensure!(
            answer.json()?["output"] == printed,
            "{language} answered {}",
            answer.text()
        );
    }
    let metrics = server.client().get("/metrics")?;
    ensure!(
        metrics.status == 200,
        "/metrics answered {}",
        metrics.status
    );
    promtool::check(&metrics.body)
}

fn validate(tools: &Path, document: &Path) -> Result<()> {
    let mut validator = process::command(tools.join("openapi-spec-validator"));
    validator.arg(document);
    process::run(&format!("validate {}", document.display()), &mut validator)
}

/// Running code by example only, or everything else at length.
fn schemathesis(tools: &Path, server: &Server, full: bool, examples_only: bool) -> Command {
    let (cases, seconds) = CASES[usize::from(full)];
    let mut command = process::command(program(tools));
    command
        .arg("run")
        .arg(format!("http://{}/openapi.json", server.address))
        // The document may name a public address: never call that one.
        .arg("--url")
        .arg(format!("http://{}", server.address))
        .args(["--checks", CHECKS, "--no-color"])
        .args(["--max-examples", cases, "--max-time", seconds]);
    if let Some(token) = server.token() {
        command
            .arg("--header")
            .arg(format!("Authorization: Bearer {token}"));
    }
    if examples_only {
        command.args(["--include-operation-id", EXECUTE, "--phases", "examples"]);
    } else {
        command.args([
            "--exclude-operation-id",
            EXECUTE,
            "--phases",
            "examples,coverage,fuzzing",
        ]);
    }
    command
}

fn program(tools: &Path) -> PathBuf {
    tools.join("schemathesis")
}
