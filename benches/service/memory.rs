//! Memory of a million entries, in a server process of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use negbank::client::rows;
use negbank::proto::v1;
use tokio::runtime::Runtime;

use crate::bank::{DIM, connect, random};

const ENTRIES: u64 = 1_000_000;
const BATCH: u64 = 50_000;

pub(crate) struct Memory {
    pub(crate) bytes_per_entry: f64,
    pub(crate) raw: usize,
}

pub(crate) fn measure(client: &Runtime) -> Memory {
    let mut server = Process::start();
    let before = server.resident_bytes();
    client.block_on(async {
        let client = connect(&server.address).await;
        let request = v1::CreateBankRequest { name: "million".into(), dim: DIM as u32, ..Default::default() };
        client.create_bank(request).await.unwrap();
        for start in (0..ENTRIES).step_by(BATCH as usize) {
            let ids: Vec<u64> = (start..start + BATCH).collect();
            let labels = ids.iter().map(|id| (id % 1_000) as i64).collect();
            let embeddings = Some(rows(&random(BATCH as usize, start)));
            let request = v1::WriteRequest { bank: "million".into(), ids, labels, embeddings, ..Default::default() };
            client.write(request).await.unwrap();
        }
    });
    let bytes_per_entry = (server.resident_bytes() - before) as f64 / ENTRIES as f64;
    server.stop();
    let raw = DIM * 4;
    println!(
        "\nmemory: {ENTRIES} entries x {DIM} f32 with labels in a server of its own: {bytes_per_entry:.0} bytes an entry resident, {:.2} of the raw {raw}",
        bytes_per_entry / raw as f64
    );
    Memory { bytes_per_entry, raw }
}

struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_negbank"))
            .args(["serve", "--listen", "127.0.0.1:0", "--set", "http.listen=none"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        Self { child, address }
    }

    fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
