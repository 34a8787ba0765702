//! The README's grpcurl session, run command by command against a real server with the real grpcurl.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lifecycle::Process;

#[test]
fn every_command_of_the_grpcurl_session_prints_what_the_readme_shows() {
    let Some(grpcurl) = grpcurl() else { return not_tested("THE README'S GRPCURL SESSION") };
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let commands = session(&readme);
    assert!(commands.len() >= 6, "start, list, describe, create, write, sample: found {}", commands.len());
    let server = Process::start(&[]);
    for (command, expected) in commands {
        if command.starts_with("negbank serve") {
            continue;
        }
        let here = command.replace("127.0.0.1:7700", &server.address);
        let path = format!("{}:{}", grpcurl.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new("bash").args(["-c", &here]).env("PATH", path).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(is_shown(&printed, &expected), "$ {command}\n{printed}{problem}\nis not what the README shows:\n{expected}");
    }
}

/// Written past the test harness's capture: a test that did not run must not look as if it had. With `NEGBANK_REQUIRE_ALL=1` it fails.
pub(crate) fn not_tested(what: &str) {
    let why = format!(
        "{what} WAS NOT TESTED: no grpcurl here. Install Go (https://go.dev/dl) and run `make test`, which puts grpcurl into \
         target/tools/bin."
    );
    assert!(std::env::var("NEGBANK_REQUIRE_ALL").as_deref() != Ok("1"), "{why}");
    let mut terminal = std::io::stderr();
    writeln!(terminal, "\n*** {why} ***\n").unwrap();
}

/// Line by line the same; a `…` in the README stands for the rest of its line, which no two runs share.
fn is_shown(printed: &str, shown: &str) -> bool {
    let (printed, shown) = (printed.trim().lines(), shown.trim().lines());
    let same = |(printed, shown): (&str, &str)| match shown.split_once('…') {
        Some((start, _)) => printed.starts_with(start),
        None => printed == shown,
    };
    printed.clone().count() == shown.clone().count() && printed.zip(shown).all(same)
}

/// Where `make test` puts grpcurl, or wherever it is on the path.
pub(crate) fn grpcurl() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/grpcurl");
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    std::iter::once(installed).chain(on_path.map(|folder| folder.join("grpcurl"))).find(|candidate| candidate.is_file())
}

/// The commands of the README's console blocks that speak grpcurl, each with the output shown under it.
fn session(readme: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            commands.push((command.to_owned(), String::new()));
        } else if let Some((command, output)) = commands.last_mut().filter(|_| inside) {
            // A command goes on until its quotes are closed.
            let is_open = command.matches('\'').count() % 2 == 1;
            let target = if is_open { command } else { output };
            target.push('\n');
            target.push_str(line);
        }
    }
    commands.retain(|(command, _)| command.starts_with("grpcurl") || command.starts_with("negbank"));
    commands
}
