//! Calls as bytes, past every client library's care.

use std::net::Ipv4Addr;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::net::{TcpSocket, TcpStream};
use tonic::{Code, Status};

/// A message with its prefix.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

/// What the server answers to `body` on `path`, with these further headers.
pub(crate) async fn call(address: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Status {
    call_over(TcpStream::connect(address).await.unwrap(), address, path, headers, body).await
}

/// The same from this address of the machine.
pub(crate) async fn call_from(source: Ipv4Addr, address: &str, path: &str, body: Bytes) -> Status {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    call_over(socket.connect(address.parse().unwrap()).await.unwrap(), address, path, &[], body).await
}

async fn call_over(connection: TcpStream, address: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Status {
    let (mut requests, connection) = h2::client::handshake(connection).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{address}{path}"));
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    let (answer, mut upload) = requests.send_request(request.body(()).unwrap(), false).unwrap();
    // A server that has refused the call already takes no body.
    let _refused = upload.send_data(body, true);
    let answer = answer.await.unwrap();
    let status = match Status::from_header_map(answer.headers()) {
        Some(status) => status,
        None => {
            let mut body = answer.into_body();
            while let Some(piece) = body.data().await {
                let bytes = piece.unwrap().len();
                body.flow_control().release_capacity(bytes).unwrap();
            }
            let trailers = body.trailers().await.unwrap().unwrap_or_default();
            Status::from_header_map(&trailers).unwrap_or_else(|| Status::new(Code::Unknown, "no grpc-status"))
        }
    };
    drop(requests);
    driver.abort();
    status
}
