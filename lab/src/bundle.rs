//! The server as an MCP bundle (`.mcpb`): a zip archive with a manifest, which
//! desktop clients install by a double click. The same binary and version give the
//! same bytes. Never starts what it packs.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use xtask::process;

/// The manifest, with `{version}` in it.
const MANIFEST: &str = "packaging/mcpb/manifest.json";

/// Files of the repository that go along.
const FILES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// Packs a binary into a bundle at `output`.
///
/// # Errors
/// When a file cannot be read, or the bundle not be written.
pub(crate) fn pack(binary: &Path, output: &Path) -> Result<()> {
    let failed = || format!("failed to write {}", output.display());
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("failed to read {}", path.display()));
    let manifest = fs::read_to_string(process::root().join(MANIFEST))
        .with_context(|| format!("failed to read {MANIFEST}"))?;
    let manifest = manifest.replace("{version}", env!("CARGO_PKG_VERSION"));
    let mut entries = vec![("manifest.json", 0o644, manifest.into_bytes())];
    for name in FILES {
        entries.push((name, 0o644, read(&process::root().join(name))?));
    }
    entries.push(("server/codex-server", 0o755, read(binary)?));
    let mut archive = ZipWriter::new(File::create(output).with_context(failed)?);
    for (name, mode, bytes) in entries {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            // Times of this machine stay out.
            .last_modified_time(DateTime::default())
            .unix_permissions(mode);
        archive.start_file(name, options).with_context(failed)?;
        archive.write_all(&bytes).with_context(failed)?;
    }
    archive.finish().with_context(failed)?.sync_all()?;
    println!("{}", output.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let scratch = tempfile::tempdir().expect("a directory");
        let binary = scratch.path().join("binary");
        fs::write(&binary, b"\x7fELF").expect("written");
        let made = |name: &str| {
            let output = scratch.path().join(name);
            pack(&binary, &output).expect("packed");
            fs::read(output).expect("readable")
        };
        let bundle = made("a.mcpb");
        assert_eq!(bundle, made("b.mcpb"));
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bundle)).expect("a zip");
        let server = archive.by_name("server/codex-server").expect("the binary");
        assert_eq!(server.unix_mode().map(|mode| mode & 0o777), Some(0o755));
    }
}
