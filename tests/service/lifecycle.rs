//! The real binary: it starts without configuration, tells the truth about its health, reflects itself, and drains.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use negbank::client::{Client, Options, rows};
use negbank::proto::v1;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1 as reflection_v1, v1alpha as reflection_v1alpha};

use crate::live::{keyed, nearest};

/// What a server logs once no bank is being recovered.
pub(crate) const READY: &str = " ready banks=";

/// A `negbank serve` process; killed if the test forgets it.
pub(crate) struct Process {
    child: Child,
    /// `host:port`, or `unix:` and a path.
    pub(crate) address: String,
    log: JoinHandle<String>,
}

impl Process {
    /// On a free port.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_at("address=", &[&["--listen", "127.0.0.1:0"], arguments].concat())
    }

    /// On a Unix socket alone.
    pub(crate) fn start_on_socket(path: &Path) -> Self {
        let socket = format!("server.unix_socket={}", path.display());
        let mut process = Self::start_at("unix_socket=", &["--set", "server.listen=none", "--set", &socket]);
        assert_eq!(process.address, path.display().to_string());
        process.address.insert_str(0, "unix:");
        process
    }

    pub(crate) fn start_at(announced: &str, arguments: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_negbank")), announced, arguments)
    }

    /// Started by a command that ends as `negbank` and the arguments say; ready, with all banks recovered.
    pub(crate) fn start_by(command: Command, announced: &str, arguments: &[&str]) -> Self {
        Self::start_until(command, &[announced, READY], arguments)
    }

    /// Not waited for: it listens, and may be recovering banks.
    pub(crate) fn start_early(command: Command, arguments: &[&str]) -> Self {
        Self::start_until(command, &["address="], arguments)
    }

    /// Returns when it has said all of this, in this order; its address comes after the first.
    fn start_until(mut command: Command, announced: &[&str], arguments: &[&str]) -> Self {
        let mut child =
            command.args(["serve", "--set", "http.listen=none"]).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let mut said = announced.iter().map(|announced| {
            loop {
                let before = line.len();
                assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it said {announced:?}: {line}");
                if let Some(rest) = line[before..].split(announced).nth(1) {
                    break rest.split_whitespace().next().unwrap_or_default().to_owned();
                }
            }
        });
        let address = said.next().unwrap();
        said.for_each(drop);
        // Keep reading, or a full pipe would stop the server.
        let log = std::thread::spawn(move || {
            log.read_to_string(&mut line).unwrap();
            line
        });
        Self { child, address, log }
    }

    pub(crate) fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Threads of the process.
    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }

    /// True if the process has a thread of that name.
    pub(crate) fn has_thread(&self, name: &str) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let mut names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
        names.any(|running| running.trim() == name)
    }

    /// Names of the process's threads, with how far each gives way to others (`nice`).
    pub(crate) fn priorities(&self) -> Vec<(String, i64)> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
        let parsed = stats.map(|stat| {
            let (before, after) = stat.rsplit_once(") ").unwrap();
            let (_, name) = before.split_once('(').unwrap();
            (name.to_owned(), after.split(' ').nth(16).unwrap().parse().unwrap())
        });
        parsed.collect()
    }

    /// Bytes of memory that the process holds.
    pub(crate) fn memory(&self) -> usize {
        self.resident("VmRSS:")
    }

    /// Bytes of memory that the process has ever held at once.
    pub(crate) fn peak_memory(&self) -> usize {
        self.resident("VmHWM:")
    }

    fn resident(&self, of: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix(of)).unwrap();
        resident.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Connections to its address that it has taken and not closed.
    pub(crate) fn connections(&self) -> usize {
        let port: u16 = self.address.rsplit_once(':').unwrap().1.parse().unwrap();
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.child.id())).unwrap();
        let own = format!(":{port:04X}");
        let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // What listens is none, and what no process holds has no inode.
        fields.filter(|fields| fields.len() > 9 && fields[1].ends_with(&own) && fields[3] != "0A" && fields[9] != "0").count()
    }

    /// Kills the process and tells all that it logged.
    pub(crate) fn killed(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let reader = std::thread::spawn(String::new);
        std::mem::replace(&mut self.log, reader).join().unwrap()
    }

    /// Waits for its end, and gives its exit code and what it logged.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        let wait = move || {
            let code = self.exit_code();
            let log = std::mem::replace(&mut self.log, std::thread::spawn(String::new));
            (code, log.join().unwrap())
        };
        tokio::task::spawn_blocking(wait).await.unwrap()
    }

    /// Sends a signal and waits for the end, as [`Self::ended`].
    pub(crate) async fn ended_by(self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        self.ended().await
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub(crate) async fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_true_and_both_reflections_list_the_services() {
    let server = Process::start(&[]);
    let channel = channel(&server.address).await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "negbank.v1.Banks", "negbank.v1.Checkpoints", "negbank.v1.Gathering", "negbank.v1.Sampling"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    assert!(health.check(HealthCheckRequest { service: "negbank.v1.Nothing".into() }).await.is_err());

    let ask = reflection_v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = reflection_v1::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = reflection_v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answer = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner().message().await;
    let answer = format!("{:?}", answer.unwrap().unwrap());
    assert!(answer.contains("negbank.v1.Banks") && answer.contains("negbank.v1.Sampling"), "{answer}");

    let ask = reflection_v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = reflection_v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = reflection_v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answer = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner().message().await;
    assert!(format!("{:?}", answer.unwrap().unwrap()).contains("negbank.v1.Sampling"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_calls_in_flight_end_and_exits_cleanly() {
    let mut server = Process::start(&["--set", "server.drain_seconds=20"]);
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    let (entries, dim) = (30_000u64, 64);
    client.create_bank(keyed("docs", dim as u32, 8)).await.unwrap();
    for start in (0..entries).step_by(10_000) {
        let ids: Vec<u64> = (start..start + 10_000).collect();
        let x: Vec<f32> = ids.iter().flat_map(|id| (0..dim).map(move |at| ((id * 31 + at * 17) % 101) as f32 - 50.0)).collect();
        let request = v1::WriteRequest { bank: "docs".into(), ids, embeddings: Some(rows(&x)), ..Default::default() };
        client.write(request).await.unwrap();
    }
    let watch = HealthClient::new(channel(&server.address).await).watch(HealthCheckRequest::default()).await.unwrap();
    let mut watch = watch.into_inner();
    let status = |update: Option<HealthCheckResponse>| update.map(|update| update.status());
    assert_eq!(status(watch.message().await.unwrap()), Some(ServingStatus::Serving));

    // 4,000 searches keep the compute threads busy well past the signal.
    let anchors: Vec<f32> = (0..12_000 * dim).map(|at| (at % 97) as f32 - 48.0).collect();
    let request = v1::SampleRequest {
        bank: "docs".into(),
        anchors: Some(v1::Anchors { embeddings: Some(rows(&anchors)), ..Default::default() }),
        draws: vec![nearest(8)],
        columns: vec![v1::Column::Ids.into()],
        ..Default::default()
    };
    let in_flight = tokio::spawn({
        let client = client.clone();
        async move { client.sample(request).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!in_flight.is_finished(), "the call must be in flight when the signal comes");
    server.signal("-TERM");
    assert_eq!(status(watch.message().await.unwrap()), Some(ServingStatus::NotServing));
    let answer = in_flight.await.unwrap().expect("a call in flight was cut by the drain");
    assert_eq!(answer.draws[0].counts, vec![8; 12_000]);
    drop(client);
    let code = tokio::task::spawn_blocking(move || server.exit_code()).await.unwrap();
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_watch_or_ask_for_ever_are_told_and_hold_up_no_drain() {
    let mut server = Process::start(&["--set", "server.drain_seconds=120"]);
    let channel = channel(&server.address).await;
    let watch = HealthClient::new(channel.clone()).watch(HealthCheckRequest::default()).await.unwrap();
    let mut watch = watch.into_inner();
    let status = |update: Option<HealthCheckResponse>| update.map(|update| update.status());
    assert_eq!(status(watch.message().await.unwrap()), Some(ServingStatus::Serving));

    let ask = reflection_v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = reflection_v1::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    // More may be asked, and never is.
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let mut client = reflection_v1::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();

    server.signal("-TERM");
    assert_eq!(status(watch.message().await.unwrap()), Some(ServingStatus::NotServing));
    for ended in [watch.message().await.map(drop).unwrap_err(), answers.message().await.map(drop).unwrap_err()] {
        assert_eq!((ended.code(), ended.message()), (tonic::Code::Unavailable, "the server is stopping"));
    }
    // The streams, and the connection, are still held here.
    let exited = tokio::task::spawn_blocking(move || server.exit_code());
    let code = tokio::time::timeout(Duration::from_secs(60), exited).await.expect("it waits for them").unwrap();
    assert_eq!(code, Some(0));
}

#[test]
fn the_settings_in_force_are_printed_with_their_origin() {
    let output = Command::new(env!("CARGO_BIN_EXE_negbank"))
        .args(["config", "--set", "limits.max_k=5"])
        .env("NEGBANK__SERVER__DRAIN_SECONDS", "7")
        .output()
        .unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8_lossy(&output.stdout);
    for line in ["limits.max_k = 5  # a flag", "server.listen = \"127.0.0.1:7700\"  # default", "server.drain_seconds = 7  # "]
    {
        assert!(printed.contains(line), "no {line:?} in\n{printed}");
    }
}

#[test]
fn wrong_settings_are_reported_all_at_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_negbank"))
        .args(["serve", "--set", "limits.max_k=none", "--set", "server.listn=x"])
        .env("NEGBANK__LOG__FORMAT", "xml")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let complaint = String::from_utf8_lossy(&output.stderr);
    for part in ["limits.max_k", "server.listn", "log.format"] {
        assert!(complaint.contains(part), "{complaint}");
    }
}
