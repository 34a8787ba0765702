//! A finished answer: a gRPC message in pieces of memory, sent as they are.
//!
//! tonic's codec copies each message into a buffer of its own, on an async worker. An answer is megabytes of rows that a compute
//! thread has gathered already, so it goes out from where it lies. The service hands it over in its response's extensions, and
//! [`Framed`] puts it in the place of the body.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::proto::v1;

/// One gRPC message, its length-prefix included. Cheap to clone: copies share the memory.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pieces: Vec<Bytes>,
}

/// Embeddings as bytes.
#[derive(Debug, Clone)]
pub(super) struct RawMatrix {
    /// Floats in a row.
    pub(super) dim: usize,
    /// What the bytes are.
    pub(super) dtype: v1::Dtype,
    /// Row-major rows.
    pub(super) pieces: Vec<Bytes>,
}

/// `rows` of SampleResponse, `embeddings` of Rows, and Matrix's fields.
mod tag {
    pub(super) const ROWS: u32 = 1;
    pub(super) const EMBEDDINGS: u32 = 2;
    pub(super) const DATA: u32 = 1;
    pub(super) const DIM: u32 = 3;
    pub(super) const DTYPE: u32 = 4;
}

/// Bytes of a message's prefix: a flag that says it is not compressed, and its length.
const PREFIX: usize = 5;

impl Frame {
    /// `response`, which has no rows yet, with `rows`, which have no embeddings yet, with `embeddings`. The last two come last, so
    /// that whoever reads a stream of bytes meets them when it knows everything else.
    pub(super) fn sampled(response: &v1::SampleResponse, rows: &v1::Rows, embeddings: Option<RawMatrix>) -> Self {
        let mut matrix = BytesMut::new();
        let data: usize = embeddings.iter().flat_map(|matrix| &matrix.pieces).map(Bytes::len).sum();
        if let Some(embeddings) = &embeddings {
            encode_key(tag::DIM, WireType::Varint, &mut matrix);
            encode_varint(embeddings.dim as u64, &mut matrix);
            encode_key(tag::DTYPE, WireType::Varint, &mut matrix);
            encode_varint(i32::from(embeddings.dtype) as u64, &mut matrix);
            encode_key(tag::DATA, WireType::LengthDelimited, &mut matrix);
            encode_varint(data as u64, &mut matrix);
        }
        let mut of_rows = BytesMut::with_capacity(rows.encoded_len() + 32);
        rows.encode_raw(&mut of_rows);
        if embeddings.is_some() {
            encode_key(tag::EMBEDDINGS, WireType::LengthDelimited, &mut of_rows);
            encode_varint((matrix.len() + data) as u64, &mut of_rows);
            of_rows.extend_from_slice(&matrix);
        }
        let rows_len = of_rows.len() + data;
        let response_len = response.encoded_len();
        let message = response_len + 1 + encoded_len_varint(rows_len as u64) + rows_len;

        let mut head = BytesMut::with_capacity(PREFIX + message - data);
        head.put_u8(0);
        head.put_u32(message as u32);
        response.encode_raw(&mut head);
        encode_key(tag::ROWS, WireType::LengthDelimited, &mut head);
        encode_varint(rows_len as u64, &mut head);
        head.extend_from_slice(&of_rows);
        let mut pieces = vec![head.freeze()];
        pieces.extend(embeddings.into_iter().flat_map(|matrix| matrix.pieces));
        Self { pieces }
    }

    /// Memory that the message takes.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

/// The body of a response: one message, then the trailers of success.
struct FrameBody {
    pieces: VecDeque<Bytes>,
    ended: bool,
}

impl http_body::Body for FrameBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(http_body::Frame::data(piece))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.ended = true;
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// A service whose responses may carry a [`Frame`] in their extensions, which then is the body.
#[derive(Debug, Clone)]
pub(super) struct Framed<S>(pub(super) S);

impl<S: NamedService> NamedService for Framed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, Q> Service<http::Request<Q>> for Framed<S>
where
    S: Service<http::Request<Q>, Response = http::Response<Body>, Future: Send + 'static>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let answered = self.0.call(request);
        Box::pin(async move {
            let mut response = answered.await?;
            if let Some(Frame { pieces }) = response.extensions_mut().remove::<Frame>() {
                *response.body_mut() = Body::new(FrameBody { pieces: pieces.into(), ended: false });
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::{Frame, PREFIX, RawMatrix};
    use crate::proto::v1;

    #[test]
    fn a_frame_is_the_message_that_a_codec_would_have_made() {
        let response = v1::SampleResponse {
            draws: vec![v1::DrawAnswer { counts: vec![2, 1], indices: vec![0, 1, 1], ..Default::default() }],
            seed: 7,
            ..Default::default()
        };
        let rows = v1::Rows { ids: vec![3, 4], ..Default::default() };
        let pieces = vec![Bytes::from(vec![1u8; 200]), Bytes::new(), Bytes::from(vec![2u8; 56])];
        let matrix = RawMatrix { dim: 32, dtype: v1::Dtype::F32, pieces: pieces.clone() };
        for embeddings in [None, Some(matrix)] {
            let frame = Frame::sampled(&response, &rows, embeddings.clone());
            let bytes = frame.pieces.concat();
            assert_eq!(frame.bytes(), bytes.len());
            assert_eq!((bytes[0], &bytes[1..PREFIX]), (0, &((bytes.len() - PREFIX) as u32).to_be_bytes()[..]));
            let whole = embeddings.map(|matrix| v1::Matrix {
                data: pieces.concat().into(),
                dim: 32,
                dtype: matrix.dtype.into(),
                ..Default::default()
            });
            let rows = Some(v1::Rows { embeddings: whole, ..rows.clone() });
            assert_eq!(v1::SampleResponse::decode(&bytes[PREFIX..]).unwrap(), v1::SampleResponse { rows, ..response.clone() });
        }
    }
}
