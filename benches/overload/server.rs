//! A server in a process of its own, with probes and metrics, as users run it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use negbank::config::fingerprint;
use tempfile::NamedTempFile;

use crate::{MAX_INBOUND, MAX_MESSAGE};

pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    /// Where it tells its metrics.
    pub(crate) probes: String,
    /// One a caller.
    pub(crate) tokens: Vec<String>,
    /// `memory.max_bytes`.
    max_memory: usize,
    _file: NamedTempFile,
}

/// What it holds before any load, and what it may hold under it, in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed {
    pub(crate) base: f64,
    pub(crate) bound: f64,
}

/// For what no setting counts: tasks and buffers of ten connections with up to 1,024 calls each, what threads keep for the next search,
/// and what the allocator loses between its pieces.
const UNCOUNTED_MIB: f64 = 16.0;

impl Server {
    pub(crate) fn start(callers: usize, max_memory: usize) -> Self {
        let tokens: Vec<String> = (0..callers).map(|number| format!("a-token-for-overload-{number:04}")).collect();
        let file = tokens_file(&tokens);
        let settings = [
            "http.listen=127.0.0.1:0".to_owned(),
            "log.filter=warn,negbank::app=info".to_owned(),
            "index.enabled=false".to_owned(),
            format!("server.max_message_bytes={MAX_MESSAGE}"),
            format!("server.max_inbound_bytes={MAX_INBOUND}"),
            format!("memory.max_bytes={max_memory}"),
            format!("auth.tokens={}", file.path().display()),
        ];
        let mut child = Command::new(env!("CARGO_BIN_EXE_negbank"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let said = |line: &str, what: &str| Some(line.split(what).nth(1)?.split_whitespace().next()?.to_owned());
        let (address, probes) = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server ended before it said where it serves");
            if let Some(found) = said(&line, " address=").zip(said(&line, " probes=")) {
                break found;
            }
        };
        std::thread::spawn(move || log.read_to_string(&mut String::new()));
        Self { child, address, probes, tokens, max_memory, _file: file }
    }

    /// Waits until it holds no more than it needs, and says what it may come to hold: what requests and answers find free of
    /// `memory.max_bytes`, and what is not counted. Its peak counts from here.
    pub(crate) fn at_rest(&self) -> Allowed {
        let mut base = self.memory("VmRSS:");
        // The allocator gives back what was freed over ten seconds.
        for _ in 0..10 {
            std::thread::sleep(Duration::from_secs(3));
            let now = self.memory("VmRSS:");
            if (base - now).abs() < 0.1 {
                break;
            }
            base = now;
        }
        let counted = counted(&metrics(&self.probes));
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("the peak must count from here");
        Allowed { base, bound: base + (self.max_memory as f64 - counted) / MIB + UNCOUNTED_MIB }
    }

    /// The most memory that it held since it was at rest, in MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

const MIB: f64 = (1 << 20) as f64;

fn tokens_file(tokens: &[String]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for (number, token) in tokens.iter().enumerate() {
        let sha256 = fingerprint(token);
        writeln!(file, "[[tokens]]\nsubject = \"caller-{number}\"\nsha256 = \"{sha256}\"\nrole = \"admin\"\nbanks = [\"*\"]")
            .unwrap();
    }
    file
}

/// What Prometheus would be told.
pub(crate) fn metrics(probes: &str) -> String {
    let mut stream = TcpStream::connect(probes).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {probes}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

/// Bytes that count towards `memory.max_bytes`, but for buffers, which make room for others.
pub(crate) fn counted(metrics: &str) -> f64 {
    let parts = metrics.lines().filter_map(|line| line.strip_prefix("negbank_memory_bytes{part=\""));
    let counted: Vec<f64> = parts
        .filter_map(|rest| rest.split_once("\"} "))
        .filter(|(part, _)| *part != "buffers")
        .map(|(_, bytes)| bytes.parse().unwrap())
        .collect();
    assert!(counted.len() > 5, "{metrics}");
    counted.iter().sum()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
