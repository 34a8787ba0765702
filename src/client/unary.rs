//! One call whose answer is decoded straight from the frames that the transport received.
//!
//! tonic's codec gathers an answer in a buffer of its own and decodes slices of it. Those share their memory, so that whoever
//! wants to own a column has to copy it again. Of 8 MiB of embeddings that is the difference between one copy and three.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{Method, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tonic::body::Body;
use tonic::client::GrpcService as _;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::rope::Rope;

/// Bytes before a message: a flag that says whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Sends a `frame` to the method `path`, tells the server the `timeout`, and decodes the answer, of at most `limit` bytes.
pub(super) async fn unary<A: Message + Default>(
    mut channel: Channel,
    path: &'static str,
    frame: Bytes,
    timeout: Duration,
    limit: usize,
) -> Result<A, Status> {
    poll_fn(|context| channel.poll_ready(context)).await.map_err(|fault| Status::from_error(fault.into()))?;
    let sent = channel.call(request(path, frame, timeout)).await;
    let (head, mut body) = sent.map_err(|fault| Status::from_error(fault.into()))?.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok) {
        return Err(status);
    }
    let mut answer = Incoming::of_at_most(limit);
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
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = told.into_parts().0.into_headers();
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

/// An answer on its way in.
struct Incoming {
    rope: Rope,
    /// Length of the message, once its prefix is here.
    len: Option<usize>,
    limit: usize,
}

impl Incoming {
    fn of_at_most(limit: usize) -> Self {
        Self { rope: Rope::default(), len: None, limit }
    }

    /// Takes the next piece; refuses a message that is too large as soon as it says so.
    fn push(&mut self, piece: Bytes) -> Result<(), Status> {
        self.rope.push(piece);
        if self.len.is_none() && self.rope.remaining() >= PREFIX {
            let compressed = self.rope.get_u8();
            if compressed != 0 {
                return Err(Status::internal(format!("the answer has compression flag {compressed}: none was agreed on")));
            }
            self.len = Some(self.rope.get_u32() as usize);
        }
        let (limit, arrived) = (self.limit, self.rope.remaining());
        match self.len {
            Some(len) if len > limit => {
                Err(Status::out_of_range(format!("the answer has {len} bytes, over the limit of {limit}")))
            }
            Some(len) if arrived > len => Err(Status::internal(format!("{} bytes came after the answer", arrived - len))),
            _ => Ok(()),
        }
    }

    /// The message, once all of it is here.
    fn message(self) -> Result<Rope, Status> {
        match self.len {
            Some(len) if len == self.rope.remaining() => Ok(self.rope),
            _ => Err(Status::internal("the answer ended before its end")),
        }
    }
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
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};
    use prost::Message;
    use tonic::Code;

    use super::{Incoming, closing};
    use crate::proto::v1::{Matrix, Rows};

    fn sent(message: &impl Message) -> Vec<u8> {
        let body = message.encode_to_vec();
        [&[0u8][..], &(body.len() as u32).to_be_bytes(), &body].concat()
    }

    fn rows() -> Rows {
        let data = (0..4_000u32).flat_map(|x| (x as f32).to_le_bytes()).collect::<Vec<_>>().into();
        Rows { ids: (0..1_000).collect(), embeddings: Some(Matrix { data, dim: 4, ..Matrix::default() }), ..Rows::default() }
    }

    #[test]
    fn a_message_is_the_same_in_whatever_pieces_it_comes() {
        let whole = sent(&rows());
        for piece in [1, 2, 3, 7, 1_000, whole.len()] {
            let mut incoming = Incoming::of_at_most(whole.len());
            for part in whole.chunks(piece) {
                incoming.push(Bytes::copy_from_slice(part)).unwrap();
            }
            assert_eq!(Rows::decode(incoming.message().unwrap()).unwrap(), rows());
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_refused_by_its_prefix() {
        let mut incoming = Incoming::of_at_most(100);
        let refused = incoming.push(Bytes::from_static(&[0, 0, 0, 0, 101])).unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
        assert!(refused.message().contains("101 bytes, over the limit of 100"), "{}", refused.message());
        Incoming::of_at_most(101).push(Bytes::from_static(&[0, 0, 0, 0, 101])).unwrap();
    }

    #[test]
    fn a_message_that_is_cut_short_or_goes_on_is_refused() {
        let whole = sent(&rows());
        for kept in [0, 3, 5, whole.len() - 1] {
            let mut incoming = Incoming::of_at_most(whole.len());
            incoming.push(Bytes::copy_from_slice(&whole[..kept])).unwrap();
            assert_eq!(incoming.message().unwrap_err().code(), Code::Internal, "{kept} bytes");
        }
        let mut longer = Incoming::of_at_most(whole.len());
        longer.push(Bytes::from(whole)).unwrap();
        assert_eq!(longer.push(Bytes::from_static(b"x")).unwrap_err().code(), Code::Internal);
        assert_eq!(Incoming::of_at_most(9).push(Bytes::from_static(&[1, 0, 0, 0, 0])).unwrap_err().code(), Code::Internal);
    }

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
