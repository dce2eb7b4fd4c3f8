//! Frames in a stream of bytes.

use arborist_core::wire::FromWorker;
use prost::Message;

/// Why a stream is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadFrame {
    #[error("a frame of {length} bytes; at most {max} are allowed here")]
    TooLarge { length: usize, max: usize },
    #[error("not a message: {0}")]
    Malformed(String),
}

/// The frame at the front of `bytes` and how many bytes it takes; `None` until it is whole.
pub(super) fn next_frame(bytes: &[u8], max: usize) -> Result<Option<(FromWorker, usize)>, BadFrame> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > max {
        return Err(BadFrame::TooLarge { length, max });
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let message = FromWorker::decode(body).map_err(|e| BadFrame::Malformed(e.to_string()))?;
    Ok(Some((message, 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_core::wire::put_frame;

    #[test]
    fn a_frame_is_taken_once_it_is_whole() {
        let mut bytes = bytes::BytesMut::new();
        let sent = FromWorker { seq: 7, ..Default::default() };
        put_frame(&sent, &mut bytes);
        let whole = bytes.len();
        put_frame(&sent, &mut bytes);
        for cut in 0..whole {
            assert_eq!(next_frame(&bytes[..cut], 100), Ok(None), "cut at {cut}");
        }
        for cut in [whole, whole + 1, bytes.len()] {
            assert_eq!(next_frame(&bytes[..cut], 100), Ok(Some((sent.clone(), whole))), "cut at {cut}");
        }
    }

    #[test]
    fn large_and_garbled_frames_are_refused() {
        for (bytes, text) in [
            (&[0, 0, 1, 0][..], "a frame of 256 bytes; at most 255 are allowed here"),
            (&[0, 0, 0, 2, 0xff, 0xff][..], "not a message"),
        ] {
            let error = next_frame(bytes, 255).unwrap_err();
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
}
