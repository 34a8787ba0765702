//! A server in a process of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use negbank::config::fingerprint;
use tempfile::NamedTempFile;

static PROCESS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    /// One a caller.
    pub(crate) tokens: Vec<String>,
    _file: NamedTempFile,
}

impl Server {
    pub(crate) fn start(callers: usize) -> Self {
        let tokens: Vec<String> = (0..callers).map(|number| format!("a-token-for-overload-{number:04}")).collect();
        let mut file = NamedTempFile::new().unwrap();
        for (number, token) in tokens.iter().enumerate() {
            let sha256 = fingerprint(token);
            writeln!(
                file,
                "[[tokens]]\nsubject = \"caller-{number}\"\nsha256 = \"{sha256}\"\nrole = \"admin\"\nbanks = [\"*\"]"
            )
            .unwrap();
        }
        let named = format!("auth.tokens={}", file.path().display());
        let settings = ["http.listen=none", "log.filter=warn,negbank::app=info", "index.enabled=false", &named];
        let mut child = Command::new(env!("CARGO_BIN_EXE_negbank"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        PROCESS.store(child.id(), Ordering::Relaxed);
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server ended before it said where it serves");
            let address = line.split(" address=").nth(1).and_then(|rest| rest.split_whitespace().next());
            if let Some(address) = address {
                break address.to_owned();
            }
        };
        std::thread::spawn(move || log.read_to_string(&mut String::new()));
        Self { child, address, tokens, _file: file }
    }

    /// The most memory that it ever held.
    pub(crate) fn peak_mib(&self) -> f64 {
        memory(self.child.id(), "VmHWM:")
    }
}

/// The memory that the server holds.
pub(crate) fn resident_mib() -> f64 {
    memory(PROCESS.load(Ordering::Relaxed), "VmRSS:")
}

fn memory(process: u32, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
