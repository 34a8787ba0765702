//! Calls in the traces of those who make them, as a collector of OpenTelemetry hears of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use negbank::client::{Client, Options};
use negbank::proto::v1;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::lifecycle::Process;
use crate::live::{keyed, nearest};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector, and what it was sent: the service's name with each span.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let service = text(&of_resource.resource.unwrap_or_default().attributes, "service.name");
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// It, and its URL.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (collector, url)
    }

    fn spans(&self) -> Vec<(String, Span)> {
        self.0.lock().unwrap().clone()
    }

    /// The one span of that name.
    fn span(&self, name: &str) -> Span {
        let mut found: Vec<Span> = self.spans().into_iter().map(|(_, span)| span).filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name} in {:?}", self.spans());
        found.remove(0)
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    attributes.iter().find(|pair| pair.key == key)?.value.clone()?.value
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn filled(server: &Process) -> Client {
    let client = Client::connect(&server.address, Options::default()).await.unwrap();
    client.create_bank(keyed("traced", 2, 1)).await.unwrap();
    client
}

fn write(ids: Vec<u64>) -> v1::WriteRequest {
    let embeddings = Some(negbank::client::rows(&[1.0, 0.0, 0.0, 1.0, 0.6, 0.8]));
    v1::WriteRequest { bank: "traced".into(), ids, embeddings, ..Default::default() }
}

fn sample() -> v1::SampleRequest {
    let anchors = v1::Anchors { embeddings: Some(negbank::client::rows(&[1.0, 0.0, 0.0, 1.0])), ..Default::default() };
    v1::SampleRequest { bank: "traced".into(), anchors: Some(anchors), draws: vec![nearest(2)], ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_part_of_its_callers_trace_and_says_what_it_took() {
    let (collector, url) = Collector::start().await;
    let settings = [format!("traces.endpoint={url}"), "traces.sample_per_million=0".into(), "traces.service_name=banks".into()];
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let server = Process::start(&arguments);
    let client = filled(&server).await;
    let traced = client.with_trace(&format!("00-{TRACE}-{PARENT}-01"), "vendor=opaque").unwrap();
    traced.write(write(vec![1, 2, 3])).await.unwrap();
    traced.sample(sample()).await.unwrap();
    traced.get_bank(v1::GetBankRequest { name: "not-there".into() }).await.unwrap_err();
    // Not recorded by its caller, and of no trace where none are begun.
    client.with_trace(&format!("00-{TRACE}-{PARENT}-00"), "").unwrap().sample(sample()).await.unwrap();
    client.sample(sample()).await.unwrap();
    // What waits is sent before the server ends.
    server.signal("-TERM");
    let (code, log) = server.ended().await;
    assert_eq!(code, Some(0), "{log}");

    let spans = collector.spans();
    assert!(spans.iter().all(|(service, span)| service == "banks" && hex(&span.trace_id) == TRACE), "{spans:?}");
    let sampled = collector.span("negbank.v1.Sampling/Sample");
    assert_eq!((hex(&sampled.parent_span_id).as_str(), sampled.trace_state.as_str()), (PARENT, "vendor=opaque"));
    let (bank, plans) = (text(&sampled.attributes, "negbank.bank"), text(&sampled.attributes, "negbank.plans"));
    assert_eq!((bank.as_str(), plans.as_str()), ("traced", "scan"));
    assert_eq!(text(&sampled.attributes, "rpc.method"), "Sample");
    assert_eq!(value(&sampled.attributes, "negbank.anchors"), Some(Value::IntValue(2)));
    assert_eq!(value(&sampled.attributes, "rpc.grpc.status_code"), Some(Value::IntValue(0)));
    let written = collector.span("negbank.v1.Banks/Write");
    assert_eq!(value(&written.attributes, "negbank.written_rows"), Some(Value::IntValue(3)));
    let refused = collector.span("negbank.v1.Banks/GetBank");
    assert_eq!(value(&refused.attributes, "rpc.grpc.status_code"), Some(Value::IntValue(5)));
    assert!(refused.status.unwrap_or_default().message.is_empty(), "it is its caller's mistake");

    let calls = [("compute_queue", "compute", &sampled), ("commit_queue", "commit", &written)];
    for (waiting, working, call) in calls {
        let (waited, worked) = (collector.span(waiting), collector.span(working));
        assert!([&waited, &worked].iter().all(|span| span.parent_span_id == call.span_id));
        let ordered = [
            call.start_time_unix_nano,
            waited.start_time_unix_nano,
            waited.end_time_unix_nano,
            worked.start_time_unix_nano,
            worked.end_time_unix_nano,
        ];
        assert!(ordered.is_sorted() && waited.end_time_unix_nano == worked.start_time_unix_nano, "{ordered:?}");
    }
    assert_eq!(spans.len(), 7, "{spans:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_trace_begins_one_and_a_collector_that_is_away_delays_nobody() {
    let (collector, url) = Collector::start().await;
    let endpoint = format!("traces.endpoint={url}");
    let server = Process::start(&["--set", &endpoint, "--set", "traces.sample_per_million=1000000"]);
    filled(&server).await.write(write(vec![1, 2, 3])).await.unwrap();
    let heard = async {
        while !collector.spans().iter().any(|(_, span)| span.name == "negbank.v1.Banks/Write") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), heard).await.expect("it is sent while the server runs");
    assert!(collector.span("negbank.v1.Banks/Write").parent_span_id.is_empty());

    let nobody = Process::start(&["--set", "traces.endpoint=http://127.0.0.1:9", "--set", "traces.sample_per_million=1000000"]);
    let client = filled(&nobody).await;
    client.write(write(vec![1, 2, 3])).await.unwrap();
    client.sample(sample()).await.unwrap();
    nobody.signal("-TERM");
    let (code, log) = nobody.ended().await;
    assert!(code == Some(0) && log.contains("ExportError"), "{log}");
}
