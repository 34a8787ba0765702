//! Requests by the clock, whether or not the server keeps up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use negbank::client::{Client, ClientError};
use negbank::model::{Seed, clock};
use tokio::task::LocalSet;

use crate::shape::Shape;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Refused,
    /// It was taken on, and its deadline passed.
    Late,
    Failed,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) caller: usize,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
    /// It was sent, and ended, while the load lasted.
    pub(crate) in_window: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) ended: Vec<Ended>,
    pub(crate) without_retry_info: usize,
}

/// Answers a second when each caller has two requests in flight and sends the next when one is answered.
pub(crate) async fn capacity(clients: &[Client], shape: Shape, lasts: Duration) -> f64 {
    let (warm, answered) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0u32)));
    let local = LocalSet::new();
    let until = clock::now() + lasts + WARM_UP;
    for (number, client) in clients.iter().chain(clients).enumerate() {
        let (client, warm, answered) = (client.clone(), Rc::clone(&warm), Rc::clone(&answered));
        local.spawn_local(async move {
            let mut random = Seed(2).stream(0, number);
            while clock::now() < until {
                let answer = client.sample_columns(shape.request(&mut random)).await;
                if !warm.get() && matches!(answer, Err(ClientError::ResourceExhausted { .. })) {
                    // What a load left behind may stand in the way yet.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                answer.unwrap();
                answered.set(answered.get() + u32::from(warm.get()));
            }
        });
    }
    local
        .run_until(async {
            tokio::time::sleep(WARM_UP).await;
            warm.set(true);
            let began = clock::now();
            tokio::time::sleep(lasts).await;
            f64::from(answered.get()) / began.elapsed().as_secs_f64()
        })
        .await
}

const WARM_UP: Duration = Duration::from_secs(2);

/// Sends each caller's requests at its rate, in requests a second, and waits for what became of the last.
pub(crate) async fn offer((clients, rates): (&[Client], &[f64]), shape: Shape, lasts: Duration, round: usize) -> Load {
    let load = Rc::new(RefCell::new(Load::default()));
    let local = LocalSet::new();
    let (began, mut random) = (clock::now(), Seed(3).stream(0, round));
    let until = began + lasts;
    let mut sent = vec![0.0; clients.len()];
    local
        .run_until(async {
            while began.elapsed() < lasts {
                let due = began.elapsed().as_secs_f64();
                for (caller, client) in clients.iter().enumerate() {
                    while sent[caller] < due * rates[caller] {
                        sent[caller] += 1.0;
                        let (client, load, request) = (client.clone(), Rc::clone(&load), shape.request(&mut random));
                        tokio::task::spawn_local(async move {
                            let sent = clock::now();
                            let answer = client.sample_columns(request).await.map(drop);
                            note(&mut load.borrow_mut(), caller, answer, (sent, until));
                        });
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    local.await;
    Rc::into_inner(load).unwrap().into_inner()
}

fn note(load: &mut Load, caller: usize, answer: Result<(), ClientError>, (sent, until): (Instant, Instant)) {
    let ended = clock::now();
    let (took, in_window) = (ended.saturating_duration_since(sent), ended <= until);
    let outcome = match answer {
        Ok(()) => Outcome::Answered,
        Err(ClientError::ResourceExhausted { retry_after, .. }) => {
            load.without_retry_info += usize::from(retry_after.is_none());
            Outcome::Refused
        }
        Err(ClientError::DeadlineExceeded(_)) => Outcome::Late,
        Err(fault) => {
            println!("failed: {fault}");
            Outcome::Failed
        }
    };
    load.ended.push(Ended { caller, outcome, took, in_window });
}
