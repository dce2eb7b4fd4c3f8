//! The wire: protobuf messages of `dispatch.proto` and their framing.
#![allow(missing_docs, reason = "generated from dispatch.proto, which documents each field")]

include!(concat!(env!("OUT_DIR"), "/arborist.v1.rs"));

/// The version of the protocol this code speaks.
pub const PROTOCOL: u32 = 1;

/// The largest frame either side accepts, in bytes.
pub const MAX_FRAME: usize = 4 << 20;

/// Why a byte stream is no sequence of frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes; at most {MAX_FRAME} are allowed")]
    TooLarge(usize),
    #[error("not a message: {0}")]
    Malformed(String),
}

/// Appends a message as one frame.
pub fn put_frame<M: prost::Message>(message: &M, out: &mut bytes::BytesMut) {
    let length = message.encoded_len();
    out.reserve(4 + length);
    bytes::BufMut::put_u32(out, length as u32);
    message.encode_raw(out);
}

/// Takes the next whole frame off the front of `buffer`; `None` until one is complete.
///
/// # Errors
/// The frame is larger than [`MAX_FRAME`] or no message; the connection is of no more use.
pub fn take_frame<M: prost::Message + Default>(
    buffer: &mut bytes::BytesMut,
) -> Result<Option<M>, FrameError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLarge(length));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let message = M::decode(&buffer[4..4 + length]).map_err(|e| FrameError::Malformed(e.to_string()))?;
    bytes::Buf::advance(buffer, 4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut all = BytesMut::new();
        let messages: Vec<_> =
            (0..5).map(|i| ToWorker { ack: i, revoked: vec![i; i as usize], ..Default::default() }).collect();
        messages.iter().for_each(|m| put_frame(m, &mut all));
        for step in [1, 3, all.len()] {
            let (mut buffer, mut got) = (BytesMut::new(), vec![]);
            for piece in all.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(m) = take_frame::<ToWorker>(&mut buffer).unwrap() {
                    got.push(m);
                }
            }
            assert_eq!(got, messages);
        }
    }

    #[test]
    fn oversized_and_garbled_frames_are_errors() {
        let mut huge = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(matches!(take_frame::<ToWorker>(&mut huge), Err(FrameError::TooLarge(_))));
        let mut garbled = BytesMut::from(&[0, 0, 0, 2, 0xff, 0xff][..]);
        assert!(matches!(take_frame::<ToWorker>(&mut garbled), Err(FrameError::Malformed(_))));
    }
}
