//! A network that breaks, with a word or without: calls are made anew on another connection, and none hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use negbank::client::{Client, Code, Options};
use negbank::model::clock;
use negbank::proto::v1;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::live::{Live, keyed, uniform};

/// Less than a call's own deadline.
const SOON: Duration = Duration::from_secs(20);

/// What a relay does with the connections that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Passes,
    /// Neither passes anything on nor says that it does not.
    Silent,
    Cut,
}

/// Stands between clients and a server.
struct Relay {
    address: String,
    lines: Arc<watch::Sender<Line>>,
    /// Connections that were cut.
    cuts: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Relay {
    async fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let lines = Arc::new(watch::Sender::new(Line::Passes));
        let (told, cuts) = (Arc::clone(&lines), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&cuts);
        let accepting = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect(&server).await.unwrap();
                let (mut line, counted) = (told.subscribe(), Arc::clone(&counted));
                tokio::spawn(async move {
                    let told = tokio::select! {
                        _ended = copy_bidirectional(&mut near, &mut far) => return,
                        told = line.changed() => told,
                    };
                    if told.is_ok() && *line.borrow() == Line::Silent {
                        // Held open until it is cut, or the relay is gone.
                        let _over = line.changed().await;
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, lines, cuts, accepting }
    }

    /// All connections that there are; those that are made later pass.
    fn tell(&self, line: Line) {
        self.lines.send_replace(line);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn draw() -> v1::SampleRequest {
    let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
    v1::SampleRequest { bank: "b".to_owned(), anchors, draws: vec![uniform(3)], ..Default::default() }
}

async fn behind_a_relay(options: Options) -> (Live, Relay, Client) {
    let live = Live::start(&[]).await;
    live.create(keyed("b", 1, 1)).await;
    live.write("b", &[1, 2, 3, 4], &[1.0; 4], &[]).await;
    let relay = Relay::before(live.address.clone()).await;
    let client = Client::connect(&relay.address, options).await.unwrap();
    // So that its line is one that the relay has.
    client.sample(draw()).await.unwrap();
    (live, relay, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered_however_often_its_connection_is_cut() {
    let (_live, relay, client) = behind_a_relay(Options::default()).await;
    for number in 0..100 {
        relay.tell(Line::Cut);
        let drawn = timeout(SOON, client.sample(draw())).await.unwrap_or_else(|_| panic!("call {number} hangs"));
        assert_eq!(drawn.unwrap().draws[0].counts, [3]);
    }
    assert!(relay.cuts.load(Ordering::Relaxed) > 90, "{:?}", relay.cuts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_is_given_up_and_its_calls_are_made_on_another() {
    let keepalive = Duration::from_millis(500);
    let (_live, relay, client) = behind_a_relay(Options { keepalive: Some(keepalive), ..Options::default() }).await;
    relay.tell(Line::Silent);
    let asked = clock::now();
    let drawn = timeout(SOON, client.sample(draw())).await.expect("it hangs").unwrap();
    assert_eq!(drawn.draws[0].counts, [3]);
    assert!(asked.elapsed() >= 2 * keepalive, "the line was not silent: {:?}", asked.elapsed());
    // Nobody knows whether it was done: it is not tried again, and says why.
    relay.tell(Line::Silent);
    let remove = v1::RemoveRequest { bank: "b".to_owned(), ids: vec![1] };
    let lost = timeout(SOON, client.remove(remove)).await.expect("it hangs").unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable);
    assert!(lost.to_string().contains("timed out") && lost.to_string().contains("may or may not"), "{lost}");
}
