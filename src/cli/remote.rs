//! The running server that a command looks at.

use std::error::Error;
use std::time::Duration;

use super::connection::Connection;
use super::figures::Figures;
use crate::client::{Client, Options, Security};

/// Where it listens.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Remote {
    /// host:port, https://host:port or unix:/path of the server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    pub(super) address: String,
    /// host:port of its probes and metrics: its setting http.listen; none does without them.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7701")]
    pub(super) probes: String,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// What a stranger shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    /// The client certificate, if one was given, and no token.
    Certificate,
}

/// What was answered over HTTP.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The server's clock, as the Date header has it.
    pub(super) date: Option<String>,
    pub(super) body: String,
}

/// What stands in the place of the probes' address where there are none.
const NO_PROBES: &str = "none";
const WITHIN: Duration = Duration::from_secs(5);
/// Metrics of a thousand banks are a few megabytes.
const LARGEST: usize = 64 << 20;

impl Remote {
    /// Connects; calls are tried once, for a few seconds.
    pub(super) async fn connect(&self) -> Result<Client, Box<dyn Error>> {
        self.connect_with(self.connection.security()?).await
    }

    /// Connects as somebody who shows less than was given.
    pub(super) async fn showing(&self, shown: Shown) -> Result<Client, Box<dyn Error>> {
        let given = self.connection.security()?;
        let identity = if shown == Shown::Certificate { given.identity.clone() } else { None };
        self.connect_with(Security { token: None, identity, ..given }).await
    }

    async fn connect_with(&self, security: Security) -> Result<Client, Box<dyn Error>> {
        let options = Options { timeout: WITHIN, retries: 0, security, ..Options::default() };
        Ok(Client::connect(&self.address, options).await?)
    }

    /// Whether there are probes to ask.
    pub(super) fn has_probes(&self) -> bool {
        self.probes != NO_PROBES
    }

    /// What is measured now.
    pub(super) async fn figures(&self) -> Result<Figures, Box<dyn Error + Send + Sync>> {
        let answer = self.get("/metrics").await?;
        if answer.status == 200 {
            Ok(Figures::parse(&answer.body))
        } else {
            Err(format!("/metrics: {} {}", answer.status, answer.body.trim_end()).into())
        }
    }

    /// Asks over HTTP.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let probes = &self.probes;
        self.ask(path).await.map_err(|fault| {
            let cause = deepest(&fault);
            if fault.is_connect() || fault.is_timeout() || fault.is_builder() {
                format!("no probes answer at {probes} (give --probes, the server's http.listen, or none): {cause}").into()
            } else {
                format!("what answers at {probes} is no negbank's probes: {cause}").into()
            }
        })
    }

    async fn ask(&self, path: &str) -> reqwest::Result<Answer> {
        // The client wants one, whatever it speaks; another part of the program may have chosen it already.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(WITHIN).build()?;
        let mut answered = http.get(format!("http://{}{path}", self.probes)).send().await?;
        let (status, date) = (answered.status().as_u16(), answered.headers().get(reqwest::header::DATE));
        let date = date.and_then(|date| date.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(piece) = answered.chunk().await?.filter(|_| body.len() < LARGEST) {
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status, date, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// The deepest cause of a fault.
fn deepest(fault: &reqwest::Error) -> String {
    let causes = std::iter::successors(Some(fault as &dyn Error), |&fault| fault.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}
