//! `negbank top`: a live view of a running server.

mod columns;
mod look;
mod screen;

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use look::Look;
use screen::{Key, Screen};
use tokio::sync::watch;

use super::connection::told;
use super::remote::Remote;
use crate::client::Client;

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Seconds between looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// Prints one table and ends; so it does where standard output is no terminal.
    #[arg(long)]
    once: bool,
    /// Prints it once, as JSON.
    #[arg(long)]
    json: bool,
}

/// How long a key waits for its effect.
const KEYS: Duration = Duration::from_millis(100);

/// What there is to show: the last look, and why there is no newer one.
#[derive(Debug, Clone, Default)]
struct Seen {
    look: Option<Look>,
    fault: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let client = runtime.block_on(args.remote.connect())?;
    let interval = Duration::from_secs_f64(args.interval);
    let first = runtime.block_on(Look::take(&client, &args.remote, None)).map_err(|fault| told(fault.as_ref()))?;
    if args.once || args.json || !std::io::stdout().is_terminal() {
        std::thread::sleep(interval);
        let look = runtime.block_on(Look::take(&client, &args.remote, Some(&first))).map_err(|fault| told(fault.as_ref()))?;
        let mut out = std::io::stdout().lock();
        if args.json {
            writeln!(out, "{:#}", look.json())?;
        } else {
            write!(out, "{}\n\n{}", look.heading(), look.table(look::Order::Name))?;
        }
        return Ok(());
    }
    let (tell, seen) = watch::channel(Seen { look: Some(first), fault: None });
    runtime.spawn(look_again(client, args.remote.clone(), interval, tell));
    let ended = show(&args.remote.address, &seen);
    // A look that waits for a silent server is not waited for.
    runtime.shutdown_background();
    ended
}

/// Looks until nobody watches.
async fn look_again(client: Client, remote: Remote, interval: Duration, tell: watch::Sender<Seen>) {
    while !tell.is_closed() {
        tokio::time::sleep(interval).await;
        let before = tell.borrow().look.clone();
        let seen = match Look::take(&client, &remote, before.as_ref()).await {
            Ok(look) => Seen { look: Some(look), fault: None },
            Err(fault) => Seen { look: before, fault: Some(told(fault.as_ref())) },
        };
        tell.send_replace(seen);
    }
}

fn show(address: &str, seen: &watch::Receiver<Seen>) -> Result<(), Box<dyn Error>> {
    let mut terminal = ratatui::try_init()?;
    let mut screen = Screen::default();
    let ended = loop {
        let now = seen.borrow().clone();
        if let Err(fault) = terminal.draw(|frame| screen.draw(frame, address, &now)) {
            break Err(fault);
        }
        match screen.key(KEYS) {
            Ok(Key::Quit) => break Ok(()),
            Ok(Key::Other) => {}
            Err(fault) => break Err(fault),
        }
    };
    ratatui::try_restore()?;
    Ok(ended?)
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "seconds are wanted, as in 1 or 0.5".to_owned())?;
    if (0.1..=3_600.0).contains(&seconds) { Ok(seconds) } else { Err("seconds are wanted, 0.1 to 3600".to_owned()) }
}
