//! The running server that a command looks at.

use std::error::Error;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::figures::Figures;
use crate::client::{Client, Options, Security};

/// Where it listens.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Remote {
    /// host:port, https://host:port or unix:/path of the server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    pub(super) address: String,
    /// host:port of its probes and metrics: its setting http.listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7701")]
    pub(super) probes: String,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// What was answered over HTTP.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The server's clock, as the Date header has it.
    pub(super) date: Option<String>,
    pub(super) body: String,
}

const WITHIN: Duration = Duration::from_secs(5);
/// Metrics of a thousand banks are a few megabytes.
const LARGEST: u64 = 64 << 20;

impl Remote {
    /// Connects; calls are tried once, for a few seconds.
    pub(super) async fn connect(&self) -> Result<Client, Box<dyn Error>> {
        self.showing(self.connection.security()?).await
    }

    /// Connects as somebody who has no token.
    pub(super) async fn connect_without_token(&self) -> Result<Client, Box<dyn Error>> {
        self.showing(Security { token: None, ..self.connection.security()? }).await
    }

    async fn showing(&self, security: Security) -> Result<Client, Box<dyn Error>> {
        let options = Options { timeout: WITHIN, retries: 0, security, ..Options::default() };
        Ok(Client::connect(&self.address, options).await?)
    }

    /// What is measured now.
    pub(super) async fn figures(&self) -> Result<Figures, Box<dyn Error + Send + Sync>> {
        let answer = self.get("/metrics").await?;
        if answer.status == 200 { Ok(Figures::parse(&answer.body)) } else { Err(format!("/metrics: {}", answer.status).into()) }
    }

    /// Asks over HTTP/1.1.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let probes = &self.probes;
        let asked = tokio::time::timeout(WITHIN, self.ask(path)).await;
        let missing =
            |fault: &dyn std::fmt::Display| format!("no probes answer at {probes} (the server's http.listen): {fault}");
        let text = asked.map_err(|_| missing(&format!("nothing within {WITHIN:?}")))?.map_err(|fault| missing(&fault))?;
        parse(&text).ok_or_else(|| format!("what answers at {probes} is no negbank's probes").into())
    }

    async fn ask(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.probes).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.probes);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LARGEST).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let date = lines.filter_map(header).find_map(|(name, value)| (name == "date").then_some(value));
    Some(Answer { status, date, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_answer_is_read_or_refused() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\nDate: now\r\nx: y\r\n\r\ndraining\n").unwrap();
        assert_eq!((answer.status, answer.date.as_deref(), answer.body.as_str()), (503, Some("now"), "draining\n"));
        for wrong in ["", "HTTP/1.1 20", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
