//! One call whose answer is decoded straight from the frames that the transport received.
//!
//! tonic's codec gathers an answer in a buffer of its own and decodes slices of it. Those share their memory, so that whoever
//! wants to own a column has to copy it again: 8 MiB of embeddings, twice. Here they are copied once, while they arrive.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tonic::body::Body;
use tonic::client::GrpcService as _;
use tonic::{Code, Request, Status};

use super::incoming::{Incoming, PREFIX};
use super::line::Line;

/// A method of the service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    /// `/package.Service/Name`
    pub(super) path: &'static str,
    /// Numbers of the fields that lead to the answer's one large field; none: it has none.
    pub(super) large: &'static [u32],
}

/// Sends a `frame` to the `method`, tells the server the `timeout`, and decodes the answer, of at most `limit` bytes.
pub(super) async fn unary<A: Message + Default>(
    mut line: Line,
    method: Method,
    frame: Bytes,
    timeout: Duration,
    limit: usize,
) -> Result<A, Status> {
    poll_fn(|context| line.poll_ready(context)).await.map_err(|fault| Status::from_error(fault.into()))?;
    let sent = line.call(request(method.path, frame, timeout)).await;
    let (head, mut body) = sent.map_err(|fault| Status::from_error(fault.into()))?.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok) {
        return Err(status);
    }
    let mut answer = Incoming::new(method.large, limit);
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(piece) => answer.push(piece)?,
            Err(other) => trailers = other.into_trailers().ok().or(trailers),
        }
    }
    closing(trailers.as_ref(), head.status)?;
    A::decode(answer.message()?).map_err(|fault| Status::internal(format!("the answer cannot be decoded: {fault}")))
}

/// A message as it is sent, its prefix included. A copy shares the memory.
pub(super) fn frame(message: &impl Message) -> Result<Bytes, Status> {
    let len = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + len);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(len).map_err(|_| Status::out_of_range(format!("a request of {len} bytes cannot be sent")))?);
    message.encode(&mut frame).map_err(|fault| Status::internal(fault.to_string()))?;
    Ok(frame.freeze())
}

fn request(path: &'static str, frame: Bytes, timeout: Duration) -> http::Request<Body> {
    let mut told = Request::new(());
    told.set_timeout(timeout);
    let mut request = http::Request::new(Body::new(Full::new(frame)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = told.into_parts().0.into_headers();
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

/// What the trailers say of the call; without their word, what the HTTP status does (the mapping is gRPC's own).
fn closing(trailers: Option<&HeaderMap>, http: StatusCode) -> Result<(), Status> {
    if let Some(status) = trailers.and_then(Status::from_header_map) {
        return if status.code() == Code::Ok { Ok(()) } else { Err(status) };
    }
    let code = match http {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    Err(Status::new(code, format!("the answer ended without a gRPC status (HTTP status {http})")))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use tonic::Code;

    use super::closing;

    #[test]
    fn trailers_become_the_status_that_they_are() {
        let trailers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        closing(Some(&trailers(&[("grpc-status", "0")])), StatusCode::OK).unwrap();
        let said =
            trailers(&[("grpc-status", "5"), ("grpc-message", "no bank %22a%C3%A9%22"), ("grpc-status-details-bin", "aGk")]);
        let status = closing(Some(&said), StatusCode::OK).unwrap_err();
        assert_eq!((status.code(), status.message(), status.details()), (Code::NotFound, "no bank \"aé\"", &b"hi"[..]));
        for (http, code) in [(503, Code::Unavailable), (404, Code::Unimplemented), (200, Code::Unknown)] {
            assert_eq!(closing(None, StatusCode::from_u16(http).unwrap()).unwrap_err().code(), code);
        }
    }
}
