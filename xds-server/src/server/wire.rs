//! Responses on the wire: gRPC messages whose resources are shared by all streams.
//!
//! tonic would encode each response into a buffer of its stream, and keep the buffer. With the filter in it, that is
//! 256 KB for every client. But a message within a message is a run of bytes, and fields may come in any order
//! ([encoding](https://protobuf.dev/programming-guides/encoding/)): so a response is a few bytes of its own and the
//! resources as they are, framed as
//! [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) says.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::{Body, Frame};
use prost::Message;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, string};
use tokio::sync::mpsc;
use tonic::Status;

use crate::kind::Kind;
use crate::lineage::Lineage;
use crate::resource::Resource;

/// What precedes a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Resources from this size on are shared. To copy a smaller one costs less than a frame of its own.
const SHARED: usize = 4 * 1024;

/// Number of the field `resources` in `DiscoveryResponse` and `DeltaDiscoveryResponse`.
const RESOURCES: u32 = 2;
/// Number of the field `version` in `Resource`.
const RESOURCE_VERSION: u32 = 1;
/// Number of the field `resource` in `Resource`.
const RESOURCE_BODY: u32 = 2;
/// Number of the field `name` in `Resource`.
const RESOURCE_NAME: u32 = 3;
/// Number of the field `type_url` in `Any`.
const ANY_TYPE_URL: u32 = 1;
/// Number of the field `value` in `Any`.
const ANY_VALUE: u32 = 2;

/// A message with its prefix, in pieces.
pub(super) type Pieces = VecDeque<Bytes>;

/// A resource within a response: what goes before its body, and the body.
pub(super) struct Field {
    head: Vec<u8>,
    body: Bytes,
}

impl Field {
    /// Returns a resource as state of the world has it: in an `Any`.
    pub(super) fn packed(kind: Kind, resource: &Resource) -> Self {
        Self { head: within(RESOURCES, any(kind, resource), resource), body: resource.body.clone() }
    }

    /// Returns a resource as delta has it: in an `Any` with a name and a version.
    pub(super) fn versioned(kind: Kind, resource: &Resource, lineage: Lineage) -> Self {
        let mut head = Vec::new();
        string::encode(RESOURCE_NAME, &resource.name, &mut head);
        string::encode(RESOURCE_VERSION, &lineage.mark(resource.version), &mut head);
        head.extend(within(RESOURCE_BODY, any(kind, resource), resource));
        Self { head: within(RESOURCES, head, resource), body: resource.body.clone() }
    }
}

/// Returns the begin of an `Any`, up to the body.
fn any(kind: Kind, resource: &Resource) -> Vec<u8> {
    let mut head = Vec::new();
    string::encode(ANY_TYPE_URL, &kind.type_url().to_owned(), &mut head);
    head.extend(within(ANY_VALUE, Vec::new(), resource));
    head
}

/// Returns the begin of a field that consists of these bytes and the body.
fn within(field: u32, bytes: Vec<u8>, resource: &Resource) -> Vec<u8> {
    let mut head = Vec::new();
    encode_key(field, WireType::LengthDelimited, &mut head);
    encode_varint((bytes.len() + resource.body.len()) as u64, &mut head);
    head.extend(bytes);
    head
}

/// Returns a message of these fields and resources.
pub(super) fn message(fields: &impl Message, resources: &[Field]) -> Result<Pieces, Status> {
    let of_resources: usize = resources.iter().map(|field| field.head.len() + field.body.len()).sum();
    let length = fields.encoded_len() + of_resources;
    let too_long = |_| Status::out_of_range(format!("a response has {length} bytes, more than gRPC can say"));
    let length = u32::try_from(length).map_err(too_long)?;
    let mut pieces = Pieces::new();
    let mut own = BytesMut::with_capacity(PREFIX + fields.encoded_len());
    own.put_u8(0);
    own.put_u32(length);
    own.extend(fields.encode_to_vec());
    for Field { head, body } in resources {
        own.extend_from_slice(head);
        if body.len() < SHARED {
            own.extend_from_slice(body);
        } else {
            pieces.extend([own.split().freeze(), body.clone()]);
        }
    }
    if !own.is_empty() {
        pieces.push_back(own.freeze());
    }
    Ok(pieces)
}

/// The body of an answer: messages until the stream ends, and how it ended.
pub(super) struct Answers {
    responses: mpsc::Receiver<Result<Pieces, Status>>,
    sending: Pieces,
    ended: bool,
}

impl Answers {
    /// Returns what comes out of this channel.
    pub(super) fn new(responses: mpsc::Receiver<Result<Pieces, Status>>) -> Self {
        Self { responses, sending: Pieces::new(), ended: false }
    }
}

impl Body for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(piece) = self.sending.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let status = match ready!(self.responses.poll_recv(context)) {
                Some(Ok(pieces)) => {
                    self.sending = pieces;
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
        }
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Without a status, the client takes the stream for broken: it comes again.
    let _no_header = status.add_header(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3 as xds;
    use envoy_types::pb::google::protobuf::Any;
    use http_body_util::BodyExt as _;
    use prost::bytes::Buf as _;

    use super::*;
    use crate::version::Version;

    fn resource(name: &str, length: usize) -> Resource {
        Resource {
            name: name.to_owned(),
            body: vec![7; length].into(),
            version: Version::of([name.as_bytes()]),
            refers_to: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Around the limit, above and below what takes one byte of length, empty, and a large one last or not.
    const LENGTHS: [&[usize]; 6] =
        [&[], &[0], &[127, 128], &[SHARED - 1, SHARED], &[300_000, 5], &[5, 300_000, 300_000]];

    fn resources(lengths: &[usize]) -> Vec<Resource> {
        lengths.iter().map(|length| resource(&format!("r{length}"), *length)).collect()
    }

    fn packed(resource: &Resource) -> Any {
        Any { type_url: Kind::Routes.type_url().to_owned(), value: resource.body.to_vec() }
    }

    fn decode<M: Message + Default>(pieces: &Pieces) -> M {
        let mut all: BytesMut = pieces.iter().flatten().copied().collect();
        assert_eq!((all.get_u8(), all.get_u32() as usize), (0, all.len()));
        M::decode(all).unwrap()
    }

    #[test]
    fn pieces_are_envoys_message_of_the_state_of_the_world() {
        for lengths in LENGTHS {
            let resources = resources(lengths);
            let fields = xds::DiscoveryResponse { nonce: "7".into(), version_info: "v".into(), ..Default::default() };
            let packed_ones: Vec<Field> = resources.iter().map(|it| Field::packed(Kind::Routes, it)).collect();
            let told: xds::DiscoveryResponse = decode(&message(&fields, &packed_ones).unwrap());
            assert_eq!(told, xds::DiscoveryResponse { resources: resources.iter().map(packed).collect(), ..fields });
        }
    }

    #[test]
    fn pieces_are_envoys_message_of_a_change() {
        for lengths in LENGTHS {
            let resources = resources(lengths);
            let lineage = Lineage { id: 9, ..Lineage::default() };
            let removed_resources = vec!["gone".to_owned()];
            let fields = xds::DeltaDiscoveryResponse { removed_resources, nonce: "7".into(), ..Default::default() };
            let versioned: Vec<Field> =
                resources.iter().map(|it| Field::versioned(Kind::Routes, it, lineage)).collect();
            let told: xds::DeltaDiscoveryResponse = decode(&message(&fields, &versioned).unwrap());
            let expected = resources.iter().map(|it| xds::Resource {
                name: it.name.clone(),
                version: lineage.mark(it.version),
                resource: Some(packed(it)),
                ..Default::default()
            });
            assert_eq!(told, xds::DeltaDiscoveryResponse { resources: expected.collect(), ..fields });
        }
    }

    #[test]
    fn large_resources_are_not_copied() {
        let large = resource("filter", 180_000);
        let fields = xds::DiscoveryResponse::default();
        let pieces = message(&fields, &[Field::packed(Kind::Extension, &large)]).unwrap();
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[1].as_ptr(), large.body.as_ptr());
    }

    #[tokio::test]
    async fn an_answer_ends_with_its_status() {
        for (end, code, data) in [(None, "0", "ab"), (Some(Status::not_found("what?")), "5", "ab")] {
            let (responses, answers) = mpsc::channel(3);
            for piece in ["a", "b"] {
                responses.send(Ok([Bytes::from_static(piece.as_bytes())].into())).await.unwrap();
            }
            if let Some(status) = end {
                responses.send(Err(status)).await.unwrap();
            }
            drop(responses);
            let all = Answers::new(answers).collect().await.unwrap();
            assert_eq!(all.trailers().unwrap()["grpc-status"], code);
            assert_eq!(all.to_bytes(), data);
        }
    }
}
